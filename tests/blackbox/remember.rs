//! What a manager that dies or makes room must not forget of runs that go on: the configuration they have,
//! that they were asked to end and why, what waits for its time, and that everything is to end.

use std::fmt::Write as _;
use std::process::Child;

use crate::keep::kill_manager;
use crate::support::{Wharf, alive, at, until, wait_gone};

/// Says that it was asked to end, and does so once there is a file `go`.
const SLOW: &str = "[sh, -c, 'trap \"echo asked; while [ ! -e go ]; do sleep 0.01; done; exit 0\" TERM; \
    echo up; while :; do sleep 0.02; done']";

fn slow(names: &[&str]) -> String {
    let mut yaml =
        "defaults: { on_manager_exit: keep, stop_grace_period: 60s }\nservices:\n".to_owned();
    for name in names {
        let _ = writeln!(yaml, "  {name}: {{ command: {SLOW} }}");
    }
    yaml
}

/// A command that does not come back before it is done.
fn spawned(wharf: &Wharf, words: &[&str]) -> Child {
    let quiet = std::process::Stdio::null;
    wharf.command(words).stdout(quiet()).stderr(quiet()).spawn().unwrap()
}

fn wait_said(wharf: &Wharf, name: &str, what: &str) {
    let log = format!(".wharf/log/{name}.log");
    until(&format!("{name} to say {what}"), || wharf.read(&log).contains(what).then_some(()));
}

fn go(wharf: &Wharf) {
    std::fs::write(wharf.folder.join("go"), "").unwrap();
}

fn replica(wharf: &Wharf, service: &str, number: u64) -> serde_json::Value {
    let mut rows = wharf.ps().into_iter();
    rows.find(|row| row["service"] == service && row["replica"] == number).unwrap()
}

#[test]
fn who_was_asked_to_end_is_still_asked_by_the_next_manager_for_the_same_reason() {
    let yaml = slow(&["web", "other"]) + &format!("  roll: {{ command: {SLOW}, replicas: 2 }}\n");
    let wharf = Wharf::up(&yaml);
    for name in ["web.1", "other.1", "roll.1", "roll.2"] {
        wait_said(&wharf, name, "up");
    }
    let (web, roll) = (wharf.pid("web"), replica(&wharf, "roll", 1)["pid"].clone());
    let mut children = vec![spawned(&wharf, &["restart", "web"])];
    children.push(spawned(&wharf, &["stop", "roll/2"]));
    for name in ["web.1", "roll.2"] {
        wait_said(&wharf, name, "asked");
    }
    // More than once: the second one has it from the first.
    for _ in 0..2 {
        kill_manager(&wharf);
        assert_eq!(wharf.row("web")["state"], "stopping", "{}", wharf.own_log());
        assert_eq!(replica(&wharf, "roll", 2)["state"], "stopping");
    }
    go(&wharf);
    let record = &wharf.wait_records("web", 1)[0];
    assert_eq!(at(record, "exit.cause"), "restart_requested", "{record}");
    assert!(at(record, "exit.requested_by.uid").is_number(), "{record}");
    assert_eq!(at(record, "restart.decision"), "restart", "{record}");
    assert_eq!(at(record, "exit.stop.steps").as_array().unwrap().len(), 1, "{record}");
    let log = wharf.read(".wharf/log/web.1.log");
    assert_eq!(log.matches("asked").count(), 1, "it is not asked twice: {log}");
    until("a new run", || {
        let row = wharf.row("web");
        (row["state"] == "running" && row["pid"] != web).then_some(())
    });
    let record = &wharf.wait_records("roll", 1)[0];
    assert_eq!(at(record, "exit.cause"), "stop_requested", "{record}");
    until("roll/2 to rest", || (replica(&wharf, "roll", 2)["state"] == "stopped").then_some(()));
    assert_eq!(replica(&wharf, "roll", 1)["pid"], roll, "nobody asked it");
    for child in &mut children {
        child.wait().unwrap();
    }
    wharf.ok(&["down"]);
}

/// What dies with its manager would be begun anew by the next one; not where everything was to end.
#[test]
fn after_a_down_the_next_manager_starts_nothing_for_a_moment() {
    let wharf = Wharf::up(
        "defaults: { stop_grace_period: 60s }
services:
  web:
    command: [sh, -c, 'trap \"echo asked\" TERM; echo up; while :; do sleep 0.02; done']
    replicas: 3
  after: { command: [sleep, '1000'], depends_on: [web] }
  job: { command: 'true', restart: { policy: always, delay: 1h, max_delay: 1h, jitter: 0 } }
",
    );
    wait_said(&wharf, "web.3", "up");
    // Its first restart is at once, the next one in an hour.
    let jobs = until("an hour to wait", || {
        let ends = wharf.records_of("job");
        (at(ends.last()?, "restart.delay_s").as_f64() > Some(3000.0)).then_some(ends.len())
    });
    let guardian = wharf.guardian_pid();
    let mut down = spawned(&wharf, &["down"]);
    wait_said(&wharf, "web.1", "asked");
    crate::support::send(wharf.manager_pid(), libc::SIGKILL);
    wait_gone(guardian);
    down.wait().unwrap();
    let started = wharf.own_log();
    for number in 1..=3 {
        let log = wharf.read(&format!(".wharf/log/web.{number}.log"));
        assert_eq!(log.matches(" up").count(), 1, "{log}{started}");
    }
    let records = wharf.records();
    let causes = |service: &str| {
        let of = |record: &&serde_json::Value| record["service"]["name"] == service;
        records.iter().filter(of).map(|record| at(record, "exit.cause").clone()).collect::<Vec<_>>()
    };
    // No start that was begun and given up is left behind either.
    assert_eq!(causes("web"), ["manager_died", "manager_died", "manager_died"], "{records:?}");
    assert_eq!(causes("after"), ["manager_shutdown"], "{records:?}");
    assert_eq!(causes("job").len(), jobs);
    for record in records.iter().filter(|record| record["service"]["name"] == "web") {
        assert_ne!(at(record, "restart.decision"), "restart", "{record}");
    }
}

#[test]
fn a_down_that_was_accepted_outlives_its_manager() {
    let wharf = Wharf::up(&slow(&["web", "other"]));
    for name in ["web.1", "other.1"] {
        wait_said(&wharf, name, "up");
    }
    let guardian = wharf.guardian_pid();
    let mut down = spawned(&wharf, &["down"]);
    wait_said(&wharf, "web.1", "asked");
    kill_manager(&wharf);
    go(&wharf);
    wait_gone(guardian);
    assert!(!alive(guardian), "{}", wharf.own_log());
    down.wait().unwrap();
    for name in ["web", "other"] {
        let records = wharf.records_of(name);
        assert_eq!(records.len(), 1, "nothing is started any more");
        assert_eq!(at(&records[0], "exit.cause"), "manager_shutdown", "{}", records[0]);
        assert_eq!(at(&records[0], "exit.how"), "exited");
    }
}

#[test]
fn a_change_that_was_halted_stays_so_and_runs_keep_the_configuration_they_have() {
    let yaml = |command: &str| {
        format!(
            "services: {{ a: {{ command: {command}, replicas: 3, on_manager_exit: keep, ready: {{ log_line: up }}, \
             restart: {{ delay: 1h, max_delay: 1h }} }} }}\n"
        )
    };
    let wharf = Wharf::up(&yaml("[sh, -c, 'echo up; exec sleep 1000']"));
    let pids = || [2, 3].map(|number| replica(&wharf, "a", number)["pid"].clone());
    let running = || {
        let states = [1, 2, 3].map(|number| replica(&wharf, "a", number)["state"].clone());
        states.iter().all(|state| state == "running").then_some(())
    };
    until("three to run", running);
    let before = pids();
    wharf.write(&yaml("[sh, -c, 'exit 1']"));
    wharf.run(&["reload"]);
    until("the first to fail", || (replica(&wharf, "a", 1)["state"] == "backoff").then_some(()));
    for upgrade in [false, true, false] {
        if upgrade {
            wharf.ok(&["upgrade"]);
        } else {
            kill_manager(&wharf);
        }
        assert_eq!(pids(), before, "{}", wharf.own_log());
        assert_eq!(replica(&wharf, "a", 1)["state"], "backoff", "{}", wharf.own_log());
    }
    // What was mended reaches all.
    wharf.write(&yaml("[sh, -c, 'echo up; exec sleep 2000']"));
    wharf.ok(&["reload"]);
    until("new runs", || {
        let all_new = pids().iter().zip(&before).all(|(new, old)| new != old);
        (all_new && running().is_some()).then_some(())
    });
    let ended =
        wharf.records_of("a").into_iter().filter(|one| at(one, "exit.cause") == "config_changed");
    assert_eq!(ended.count(), 3);
    wharf.ok(&["down"]);
}

#[test]
fn what_a_reload_ends_has_its_grace_also_from_the_next_manager() {
    let wharf = Wharf::up(&slow(&["stays", "changed", "gone"]));
    for name in ["changed.1", "gone.1"] {
        wait_said(&wharf, name, "up");
    }
    let stays = wharf.pid("stays");
    let changed =
        slow(&["stays"]) + &format!("  changed: {{ command: {SLOW}, environment: {{ A: b }} }}\n");
    wharf.write(&changed);
    let mut reload = spawned(&wharf, &["reload"]);
    for name in ["changed.1", "gone.1"] {
        wait_said(&wharf, name, "asked");
    }
    kill_manager(&wharf);
    wharf.ok(&["upgrade"]);
    go(&wharf);
    for name in ["changed", "gone"] {
        let record = &wharf.wait_records(name, 1)[0];
        assert_eq!(at(record, "exit.cause"), "config_changed", "{record}");
        assert_eq!(at(record, "process.exit.code"), 0, "{record}");
        assert_eq!(at(record, "exit.stop.escalated"), false, "{record}");
    }
    wharf.wait_state("changed", "running");
    assert_eq!(wharf.pid("stays"), stays);
    reload.wait().unwrap();
    wharf.ok(&["down"]);
}

#[test]
fn what_waits_to_be_started_again_waits_on() {
    let wharf = Wharf::up(
        "services:
  later: { command: [sh, -c, 'exit 1'], restart: { policy: always, delay: 1h, max_delay: 1h } }
  mark: { command: ['true'], restart: no }
",
    );
    wharf.wait_records("later", 2);
    wharf.wait_state("later", "backoff");
    kill_manager(&wharf);
    wharf.run(&["start", "mark"]);
    wharf.wait_records("mark", 2);
    assert_eq!(wharf.row("later")["state"], "backoff");
    assert_eq!(wharf.records_of("later").len(), 2, "its time has not come");
    wharf.ok(&["down"]);
}
