//! The same end under seven causes gives seven different records, each naming who asked.

use std::fmt::Write as _;

use crate::support::{Wharf, at, until};

/// Ends with code 1 whatever asks it to, and after a while by itself.
const TRAPPED: &str =
    r#"trap "exit 1" TERM HUP; echo up; while :; do read -t 0.05 x; done <> <(:)"#;

fn yaml(label: &str) -> String {
    let mut yaml =
        "defaults: { restart: { policy: always, max_restarts: 1000 } }\nservices:\n".to_owned();
    for service in ["stop", "restart", "reload", "shutdown", "signal", "needed"] {
        let _ = write!(
            yaml,
            "  {service}:\n    command: [bash, -c, '{TRAPPED}']\n    environment: {{ LABEL: {} }}\n",
            if service == "reload" { label } else { "same" }
        );
    }
    yaml = yaml.replace("  needed:\n", "  needed:\n    depends_on: [below]\n");
    yaml += "  below: { command: [sleep, '1000'] }\n";
    yaml += "  alone: { command: [bash, -c, 'echo up; sleep 0.1; exit 1'], restart: no }\n";
    yaml
}

#[test]
fn t9_one_exit_code_under_seven_causes() {
    let wharf = Wharf::up(&yaml("one"));
    for service in ["stop", "restart", "reload", "shutdown", "signal", "needed"] {
        wharf.wait_state(service, "running");
        until("the trap", || wharf.logs(service).contains("up").then_some(()));
    }
    wharf.ok(&["stop", "stop"]);
    wharf.ok(&["stop", "--dependents", "below"]);
    wharf.ok(&["restart", "restart"]);
    wharf.ok(&["signal", "signal", "HUP"]);
    wharf.write(&yaml("two"));
    wharf.ok(&["reload"]);
    wharf.wait_records("reload", 1);
    wharf.wait_records("alone", 1);
    wharf.wait_records("signal", 1);
    // Those that were started again must have set their traps before the shutdown.
    for service in ["restart", "reload", "signal"] {
        until("the trap", || (wharf.logs(service).matches("up").count() == 2).then_some(()));
    }
    wharf.ok(&["down"]);

    let uid = nix::unistd::geteuid().as_raw();
    for (service, cause, who) in [
        ("stop", "stop_requested", "wharf stop"),
        ("needed", "dependency_stopped", "wharf stop"),
        ("restart", "restart_requested", "wharf restart"),
        ("reload", "config_changed", "wharf reload"),
        ("signal", "signal_requested", "wharf signal"),
        ("shutdown", "manager_shutdown", "wharf down"),
        ("alone", "spontaneous", ""),
    ] {
        let record = wharf.records_of(service).remove(0);
        assert_eq!(at(&record, "process.exit.code"), 1, "{service}: {record}");
        assert_eq!(at(&record, "exit.reason"), "failed", "{service}");
        assert_eq!(at(&record, "exit.cause"), cause, "{service}");
        let by = at(&record, "exit.requested_by");
        if who.is_empty() {
            assert!(by.is_null(), "{service}: {by}");
        } else {
            assert_eq!(by["who"], who, "{service}");
            assert_eq!(by["uid"], uid, "{service}");
            assert!(by["pid"].as_i64().unwrap() > 1, "{service}");
        }
    }
}

#[test]
fn t8_a_stop_that_needed_kill_says_so() {
    let wharf = Wharf::up(
        "services:
  deaf:
    command: [bash, -c, 'trap \"\" TERM; echo up; while :; do sleep 0.1; done']
    stop_grace_period: 300ms
",
    );
    until("the trap", || wharf.logs("deaf").contains("up").then_some(()));
    wharf.ok(&["stop", "deaf"]);
    let record = wharf.wait_records("deaf", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "signaled");
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
    assert_eq!(at(&record, "exit.cause"), "stop_requested");
    assert_eq!(at(&record, "exit.stop.escalated"), true);
    let steps: Vec<&str> = at(&record, "exit.stop.steps")
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["SIGTERM", "SIGKILL"]);
    assert!(at(&record, "exit.stop.took_s").as_f64().unwrap() >= 0.3);
    assert_eq!(at(&record, "restart.decision"), "stopped");
    let row = wharf.row("deaf");
    assert_eq!(row["state"], "stopped");
    assert_eq!(row["last_exit"]["cause"], "stop_requested", "a stop does not take it away");
    assert_eq!(row["last_exit"]["signal"], "SIGKILL");
    assert!(row["last_exit"]["msg"].as_str().unwrap().contains("had to be killed"), "{row}");
    assert!(wharf.ok(&["why", "deaf"]).contains("had to be killed"));
}

#[test]
fn a_stop_outlives_the_manager_and_unless_stopped_outlives_down_and_up() {
    let wharf = Wharf::up(
        "services:
  plain: { command: [sleep, '1000'] }
  sticky: { command: [sleep, '1000'], restart: unless-stopped }
",
    );
    wharf.ok(&["stop", "plain", "sticky"]);
    let manager = wharf.manager_pid();
    crate::support::send(manager, 9);
    until("a new manager", || {
        let body = wharf.try_get("/v1/manager").ok()?;
        let now: serde_json::Value = serde_json::from_str(&body).unwrap();
        (now["pid"] != manager).then_some(())
    });
    assert_eq!(wharf.wait_state("plain", "stopped")["pid"], serde_json::Value::Null);
    wharf.wait_state("sticky", "stopped");
    wharf.ok(&["down"]);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("plain", "running");
    wharf.wait_state("sticky", "stopped");
}
