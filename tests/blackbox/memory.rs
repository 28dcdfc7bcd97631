//! Memory that runs out: in a program, in what it started, and never taken for anything else.

use serde_json::Value;

use crate::support::{Wharf, at, compiled, send, times, until, wait_gone};

/// Takes 200 MiB and touches every page of it.
const HOG: &str = r"
#include <stdlib.h>
#include <string.h>
int main(void) {
    size_t size = 200u << 20;
    char *memory = malloc(size);
    if (!memory) return 3;
    for (size_t at = 0; at < size; at += 4096) memory[at] = (char)at;
    return memory[4096];
}
";

/// A wharf with these services and the hog beside them, or `None` where this machine does not let us
/// limit memory: then that is what it must say.
fn with_hog(yaml: &str) -> Option<Wharf> {
    let mut wharf = Wharf::new(yaml);
    compiled(&wharf.folder, "hog", HOG);
    wharf.start_foreground();
    let limits = wharf.ps()[0]["limits"].clone();
    let memory = limits.as_array().unwrap().iter().find(|one| one["limit"] == "memory").unwrap();
    if let Some(why) = memory["not_enforced"].as_str() {
        assert!(why.contains("no writable memory controller"), "{limits}");
        let degraded = wharf.manager()["degraded"].to_string();
        assert!(degraded.contains("is not enforced"), "{degraded}");
        return None;
    }
    Some(wharf)
}

/// What every record of an end for want of memory has.
#[track_caller]
fn check(record: &Value, main: bool) {
    assert_eq!(at(record, "exit.reason"), "oom_killed", "{record}");
    assert_eq!(at(record, "exit.cause"), "spontaneous", "{record}");
    assert_eq!(at(record, "exit.oom.killed"), 1, "{record}");
    assert_eq!(at(record, "exit.oom.main"), main, "{record}");
    assert_eq!(at(record, "exit.oom.limit_bytes"), 50 << 20, "{record}");
    let evidence = at(record, "exit.evidence").to_string();
    assert!(evidence.contains("memory ran out in its control group"), "{record}");
    let msg = record["msg"].as_str().unwrap();
    assert!(msg.contains("out of memory") && msg.contains("50MiB"), "{msg}");
}

const AGAIN: &str = "restart: { policy: always, delay: 1ms, max_delay: 1ms, max_restarts: 100000 }";

#[test]
fn t7_memory_that_runs_out_in_the_program_itself() {
    let yaml =
        format!("services:\n  hog: {{ command: [./hog], limits: {{ memory: 50MiB }}, {AGAIN} }}\n");
    let Some(wharf) = with_hog(&yaml) else { return };
    for record in wharf.wait_records("hog", times(200)) {
        check(&record, true);
        assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
        assert_eq!(at(&record, "exit.certainty"), "certain");
    }
}

#[test]
fn t7_memory_that_runs_out_in_what_a_program_started() {
    let yaml = format!(
        "services:\n  shell: {{ command: [sh, -c, './hog; exit $?'], limits: {{ memory: 50MiB }}, {AGAIN} }}\n"
    );
    let Some(wharf) = with_hog(&yaml) else { return };
    for record in wharf.wait_records("shell", times(200)) {
        check(&record, false);
        assert_eq!(at(&record, "process.exit.code"), 137, "the shell's own way to say SIGKILL");
        assert_eq!(at(&record, "exit.signal"), &Value::Null);
        assert_eq!(at(&record, "exit.certainty"), "inferred");
    }
}

/// A kill from outside is a kill from outside, with or without a limit, and with memory that ran out
/// in something else long before.
#[test]
fn t7_a_kill_from_outside_is_never_called_memory() {
    let yaml = "defaults: { restart: no, limits: { memory: 50MiB } }
services:
  quiet: { command: [sleep, '1000'] }
  survivor: { command: [sh, -c, './hog; echo survived; exec sleep 1000'] }
";
    let Some(wharf) = with_hog(yaml) else { return };
    until("the shell to go on", || wharf.logs("survivor").contains("survived").then_some(()));
    let told = until("the event", || {
        let told = wharf.ok(&["events", "--json", "--kind", "oom"]);
        told.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap())
    });
    assert_eq!(told["event"]["name"], "process.oom");
    assert_eq!(told["level"], "warn");
    assert_eq!(told["service"]["name"], "survivor");
    assert_eq!(told["oom"], serde_json::json!({ "killed": 1, "limit_bytes": 50 << 20 }));
    assert_eq!(wharf.row("survivor")["state"], "running");
    for service in ["quiet", "survivor"] {
        send(wharf.pid(service), 9);
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "signaled", "{record}");
        assert_eq!(at(&record, "exit.certainty"), "certain");
    }
    let quiet = wharf.records_of("quiet").remove(0);
    assert_eq!(at(&quiet, "exit.oom"), &Value::Null);
    let metrics = wharf.get("/metrics");
    assert!(metrics.contains("wharf_oom_kills_total{service=\"survivor\"} 1\n"), "{metrics}");
    assert!(metrics.contains("wharf_oom_kills_total{service=\"quiet\"} 0\n"));
    let survivor = wharf.records_of("survivor").remove(0);
    assert_eq!(at(&survivor, "exit.oom.killed"), 1, "what was killed before is told");
    assert_eq!(at(&survivor, "exit.oom.main"), false);
}

#[test]
fn t7_a_replica_can_be_made_to_end_as_a_whole() {
    let yaml = "services:
  all:
    command: [sh, -c, './hog; echo survived; exec sleep 1000']
    limits: { memory: 50MiB, on_oom: kill }
    restart: no
";
    let Some(wharf) = with_hog(yaml) else { return };
    let record = wharf.wait_records("all", 1).remove(0);
    check(&record, at(&record, "exit.oom.main") == true);
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
    assert_eq!(wharf.row("all")["state"], "failed");
}

#[test]
fn a_hook_is_run_wherever_memory_runs_out() {
    let yaml = r#"on_event: { exec: [sh, -c, 'echo "$WHARF_EVENT $WHARF_SERVICE" >> book'], events: [oom_killed] }
defaults: { restart: no, limits: { memory: 50MiB } }
services:
  hog: { command: [./hog] }
  shell: { command: [sh, -c, './hog; exec sleep 1000'] }
  killed: { command: [sleep, '1000'] }
"#;
    let Some(wharf) = with_hog(yaml) else { return };
    wharf.wait_state("killed", "running");
    send(wharf.pid("killed"), 9);
    wharf.wait_records("killed", 1);
    let book = until("both hooks", || {
        let book = std::fs::read_to_string(wharf.folder.join("book")).unwrap_or_default();
        (book.lines().count() >= 2).then_some(book)
    });
    let mut lines: Vec<_> = book.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["oom_killed hog", "oom_killed shell"]);
}

/// Waits for a file, then takes more than it may.
const WAITS: &str = "while [ ! -e go ]; do sleep 0.01; done; ";

/// Memory that ran out while no manager was there to see it is told all the same: of the program itself, of
/// what it started, and of what dies with its manager nothing is made up.
#[test]
fn t7_memory_that_runs_out_while_there_is_no_manager() {
    let yaml = format!(
        "defaults: {{ restart: no, on_manager_exit: keep, limits: {{ memory: 50MiB }} }}
services:
  program: {{ command: [sh, -c, '{WAITS}exec ./hog'] }}
  helper: {{ command: [sh, -c, '{WAITS}./hog; exit $?'] }}
  survivor: {{ command: [sh, -c, '{WAITS}./hog; echo survived; exec sleep 1000'] }}
  quiet: {{ command: [sleep, '1000'] }}
"
    );
    let Some(wharf) = with_hog(&yaml) else { return };
    let names = ["program", "helper", "survivor", "quiet"];
    for name in names {
        wharf.wait_state(name, "running");
    }
    let pid = |name: &str| wharf.pid(name);
    let [program, helper, survivor, _] = names.map(pid);
    // Without a guardian that could start another manager there is none.
    let (guardian, manager) = (wharf.guardian_pid(), wharf.manager_pid());
    send(guardian, 19);
    send(manager, 9);
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    for pid in [program, helper] {
        wait_gone(pid);
    }
    let sleeps = || {
        let name = std::fs::read_to_string(format!("/proc/{survivor}/comm")).ok()?;
        (name == "sleep\n").then_some(())
    };
    until("the survivor to go on", sleeps);
    send(guardian, 18);
    let record = wharf.wait_records("program", 1).remove(0);
    check(&record, true);
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
    let record = wharf.wait_records("helper", 1).remove(0);
    check(&record, false);
    assert_eq!(at(&record, "process.exit.code"), 137);
    until("the event", || {
        let told = wharf.ok(&["events", "--json", "--kind", "oom"]);
        told.contains("survivor").then_some(())
    });
    for name in ["survivor", "quiet"] {
        send(wharf.pid(name), 9);
        let record = wharf.wait_records(name, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "signaled", "{record}");
    }
}
