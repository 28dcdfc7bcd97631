//! A program that reads files of its own is told by a signal when one of them changed: that one, then, once,
//! and nothing else, whatever becomes of the manager.

use serde_json::Value;

use crate::keep::kill_manager;
use crate::support::{Wharf, look_again, script, times, until};

/// Says what stands in its file when it begins, and whenever it is told to read it again.
const READER: &str = r#"#!/usr/bin/env python3
import signal
def read(*_):
    print("read " + open("app.conf").read().strip(), flush=True)
signal.signal(signal.SIGHUP, read)
read()
while True:
    signal.pause()
"#;

const YAML: &str = "defaults: { ready: { log_line: '^read' } }
services:
  told: { command: ./reader, replicas: 2, config_files: [app.conf, conf.d], reload_signal: HUP }
  plain: { command: ./reader, config_files: [app.conf] }
  down: { command: ./reader, config_files: [app.conf], reload_signal: HUP }
  other: { command: ./reader }
";

fn folder(yaml: &str) -> Wharf {
    let wharf = Wharf::new(yaml);
    script(&wharf.folder, "reader", READER);
    write(&wharf, "app.conf", "one");
    std::fs::create_dir(wharf.folder.join("conf.d")).unwrap();
    write(&wharf, "conf.d/a.conf", "a");
    wharf
}

fn write(wharf: &Wharf, name: &str, text: &str) {
    std::fs::write(wharf.folder.join(name), text).unwrap();
}

/// What a service's replicas said, in order.
fn said(wharf: &Wharf, service: &str) -> Vec<String> {
    wharf.logs(service).lines().map(str::to_owned).collect()
}

/// How often a service has read something.
fn times_read(wharf: &Wharf, service: &str, what: &str) -> usize {
    said(wharf, service).iter().filter(|line| line.ends_with(&format!("read {what}"))).count()
}

fn wait_read(wharf: &Wharf, service: &str, what: &str, count: usize) {
    until("the file to be read", || (times_read(wharf, service, what) == count).then_some(()));
}

/// The runs of all replicas, by process and number.
fn runs(wharf: &Wharf, service: &str) -> Vec<(Value, Value)> {
    let rows = wharf.ps().into_iter().filter(|row| row["service"] == service);
    rows.map(|row| (row["pid"].clone(), row["incarnation"].clone())).collect()
}

fn plan(wharf: &Wharf, service: &str) -> Value {
    let plan: Value = serde_json::from_str(&wharf.ok(&["reload", "--plan", "--json"])).unwrap();
    let changes = plan["changes"].as_array().unwrap();
    changes.iter().find(|change| change["service"] == service).unwrap().clone()
}

fn rereads(wharf: &Wharf) -> Vec<Value> {
    let events = wharf.ok(&["events", "--json", "--kind", "reread"]);
    events.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_changed_file_is_a_signal_to_those_who_read_it_and_nothing_else() {
    let wharf = folder(YAML);
    wharf.ok(&["up", "-d"]);
    wharf.ok(&["stop", "down"]);
    wait_read(&wharf, "told", "one", 2);
    for name in ["plain", "other"] {
        wharf.wait_state(name, "running");
    }
    let (told, plain, other) = (runs(&wharf, "told"), runs(&wharf, "plain"), runs(&wharf, "other"));

    // The same text again is no change.
    write(&wharf, "app.conf", "one");
    write(&wharf, "conf.d/.a.conf.swp", "an editor's");
    assert_eq!(wharf.ok(&["reload", "--plan"]), "nothing changes\n");
    wharf.ok(&["reload"]);

    write(&wharf, "app.conf", "two");
    let path = wharf.folder.join("app.conf").display().to_string();
    let text = wharf.ok(&["reload", "--plan"]);
    for line in [
        format!("told: signal SIGHUP (config_files[{path}])"),
        format!("plain: restart (config_files[{path}])"),
        format!("down: signal SIGHUP (config_files[{path}])"),
        "unchanged: other".to_owned(),
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    let planned = plan(&wharf, "told");
    assert_eq!((&planned["effect"], &planned["signal"]), (&"signal".into(), &"SIGHUP".into()));
    assert_eq!(runs(&wharf, "plain"), plain, "a plan changes nothing");
    wharf.ok(&["reload"]);
    wait_read(&wharf, "told", "two", 2);
    wait_read(&wharf, "plain", "two", 1);
    assert_eq!(runs(&wharf, "told"), told, "told and not restarted");
    assert_ne!(runs(&wharf, "plain"), plain);
    assert_eq!(runs(&wharf, "other"), other);
    assert_eq!(wharf.records_of("plain")[0]["exit"]["cause"], "config_changed");
    let events = rereads(&wharf);
    assert_eq!(events.len(), 2, "what is down is told nothing: {events:?}");
    for event in &events {
        assert_eq!(event["reread"]["signal"], "SIGHUP");
        assert_eq!(event["reread"]["files"], serde_json::json!([path]));
        assert_eq!(event["requested_by"]["who"], "wharf reload");
    }

    // A file of a folder that comes, changes and goes.
    for (step, text) in [(1, Some("b")), (2, Some("c")), (3, None)] {
        match text {
            Some(text) => write(&wharf, "conf.d/b.conf", text),
            None => std::fs::remove_file(wharf.folder.join("conf.d/b.conf")).unwrap(),
        }
        let fields = plan(&wharf, "told")["fields"].to_string();
        assert!(fields.contains("conf.d/b.conf"), "{fields}");
        wharf.ok(&["reload"]);
        wait_read(&wharf, "told", "two", 2 + 2 * step);
    }
    assert_eq!(runs(&wharf, "told"), told);
    assert_eq!(wharf.records_of("told"), Vec::<Value>::new());
}

#[test]
fn a_restart_has_no_signal_beside_it_and_a_live_change_may_have_one() {
    let wharf = folder(YAML);
    wharf.ok(&["up", "-d"]);
    wait_read(&wharf, "told", "one", 2);
    let before = runs(&wharf, "told");
    write(&wharf, "app.conf", "two");
    wharf.write(&YAML.replace(
        "reload_signal: HUP }\n  plain",
        "reload_signal: HUP, labels: { a: b } }\n  plain",
    ));
    assert_eq!(plan(&wharf, "told")["effect"], "signal");
    wharf.ok(&["reload"]);
    wait_read(&wharf, "told", "two", 2);
    assert_eq!(runs(&wharf, "told"), before);

    write(&wharf, "app.conf", "three");
    wharf.write(&YAML.replace("replicas: 2", "replicas: 1, nice: 1"));
    assert_eq!(plan(&wharf, "told")["effect"], "restart");
    wharf.ok(&["reload"]);
    wait_read(&wharf, "told", "three", 1);
    let told = rereads(&wharf).into_iter().filter(|event| event["service"]["name"] == "told");
    assert_eq!(told.count(), 2, "what begins anew is not told beside that");

    // To name a file, or to name it no longer, is no news for a program.
    let before = runs(&wharf, "told");
    wharf.write(&YAML.replace("replicas: 2", "nice: 1").replace(", conf.d]", "]"));
    assert_eq!(plan(&wharf, "told")["effect"], "live");
    wharf.ok(&["reload"]);
    assert_eq!(runs(&wharf, "told"), before);
    assert_eq!(times_read(&wharf, "told", "three"), 1);
}

#[test]
fn a_program_that_is_not_ready_is_told_when_it_is() {
    let wharf = folder(
        "services:\n  told: { command: ./reader, config_files: [app.conf], reload_signal: HUP, \
         ready: { exec: [test, -e, go], interval: 100ms } }\n",
    );
    wharf.ok(&["up", "-d"]);
    wait_read(&wharf, "told", "one", 1);
    let before = runs(&wharf, "told");
    write(&wharf, "app.conf", "two");
    wharf.ok(&["reload"]);
    assert_eq!(wharf.row("told")["state"], "starting");
    assert!(rereads(&wharf).is_empty(), "it may not listen yet");
    write(&wharf, "go", "");
    wait_read(&wharf, "told", "two", 1);
    assert_eq!(runs(&wharf, "told"), before);
}

#[test]
fn a_program_that_ends_by_the_signal_is_recorded_with_who_sent_it() {
    let wharf = folder(
        "services:\n  told: { command: [sleep, '1000'], config_files: [app.conf], reload_signal: USR1 }\n",
    );
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("told", "running");
    write(&wharf, "app.conf", "two");
    wharf.ok(&["reload"]);
    let record = wharf.wait_records("told", 1).remove(0);
    assert_eq!(record["exit"]["signal"]["name"], "SIGUSR1");
    assert_eq!(record["exit"]["cause"], "signal_requested");
    assert_eq!(record["exit"]["requested_by"]["who"], "wharf reload");
    wharf.wait_state("told", "running");
}

#[test]
fn what_stood_in_a_file_is_known_to_the_next_manager() {
    let wharf = folder(&YAML.replace("defaults: {", "defaults: { on_manager_exit: keep,"));
    wharf.ok(&["up", "-d"]);
    wait_read(&wharf, "told", "one", 2);
    let before = runs(&wharf, "told");
    kill_manager(&wharf);
    wharf.wait_state("told", "running");
    assert_eq!(wharf.ok(&["reload", "--plan"]), "nothing changes\n");
    write(&wharf, "app.conf", "two");
    kill_manager(&wharf);
    wharf.wait_state("told", "running");
    assert_eq!(times_read(&wharf, "told", "two"), 0, "nobody asked for a reload");
    wharf.ok(&["reload"]);
    wait_read(&wharf, "told", "two", 2);
    let binary = wharf.folder.join("another");
    std::fs::copy(env!("CARGO_BIN_EXE_wharf"), &binary).unwrap();
    wharf.ok(&["upgrade", binary.to_str().unwrap()]);
    assert_eq!(wharf.ok(&["reload", "--plan"]), "nothing changes\n");
    write(&wharf, "app.conf", "three");
    wharf.ok(&["reload"]);
    wait_read(&wharf, "told", "three", 2);
    assert_eq!(runs(&wharf, "told"), before, "through two deaths and an upgrade");

    // In place, and with a new run, as of any other.
    let yaml = YAML.replace("defaults: {", "defaults: { on_manager_exit: keep,");
    wharf.write(&yaml.replace("replicas: 2", "replicas: 2, labels: { a: b }"));
    assert_eq!(plan(&wharf, "told")["effect"], "live");
    wharf.ok(&["reload"]);
    assert_eq!(runs(&wharf, "told"), before);
    wharf.write(&yaml.replace("replicas: 2", "replicas: 2, nice: 1"));
    wharf.ok(&["reload"]);
    wait_read(&wharf, "told", "three", 4);
    until("both to be anew", || {
        let now = runs(&wharf, "told");
        now.iter().all(|run| !run.0.is_null() && !before.contains(run)).then_some(())
    });
}

/// Whenever the manager dies during a reload, what was changed is read in the end, and nobody has to ask
/// twice for what was accepted.
#[test]
fn a_reload_in_which_the_manager_dies_is_heard_of() {
    let yaml = "services:\n  told: { command: ./reader, config_files: [app.conf], reload_signal: HUP, \
                on_manager_exit: keep, ready: { log_line: '^read' } }\n";
    let wharf = folder(yaml);
    wharf.ok(&["up", "-d"]);
    wait_read(&wharf, "told", "one", 1);
    let before = runs(&wharf, "told");
    for round in 0..times(100) {
        let text = format!("text{round}");
        write(&wharf, "app.conf", &text);
        let mut reload = wharf.command(&["reload"]);
        reload.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut reload = reload.spawn().unwrap();
        // From before it is heard of to after it is done.
        (0..round % 8).for_each(|_| look_again());
        kill_manager(&wharf);
        reload.wait().unwrap();
        wharf.wait_state("told", "running");
        // Where the dead manager had not accepted it there is still a change to be found.
        wharf.ok(&["reload"]);
        until("the newest text", || (times_read(&wharf, "told", &text) > 0).then_some(()));
    }
    assert_eq!(runs(&wharf, "told"), before);
}
