//! A service that ends at once backs off within its bounds, cheaply, and says what it is.

use std::fmt::Write as _;
use std::time::Duration;

use crate::support::{Wharf, at, soaking, until};

/// CPU time of a process so far, in seconds.
pub(crate) fn cpu(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

#[test]
fn t14_a_crash_loop_backs_off_and_says_so() {
    let wharf = Wharf::up(
        "services:
  crash: { command: [sh, -c, 'exit 1'] }
",
    );
    let manager = wharf.manager_pid();
    let (start, spent) = (std::time::Instant::now(), cpu(manager));
    // Eight ends take 0 + 0.2 + 0.4 + … + 6.4 s ± 20 %; a soak goes on for a minute.
    let failures = if soaking() { 10 } else { 7 };
    let records = wharf.wait_records("crash", failures);
    let share = (cpu(manager) - spent) / start.elapsed().as_secs_f64();
    assert!(share < 0.01, "{:.2} % of a core", share * 100.0);
    for (index, record) in records.iter().enumerate() {
        let delay = at(record, "restart.delay_s").as_f64().unwrap();
        let failure = i32::try_from(index).unwrap() + 1;
        if failure == 1 {
            assert!(delay.abs() < f64::EPSILON, "the first failure restarts at once: {delay}");
        } else {
            let exact = (0.2 * 2_f64.powi(failure - 2)).min(30.0);
            assert!((exact * 0.8..=exact * 1.2).contains(&delay), "failure {failure}: {delay}");
        }
        assert_eq!(at(record, "restart.decision"), "restart");
    }
    // The wall clock agrees with what was announced.
    let end_of = |record: &serde_json::Value| {
        record["ts"].as_str().unwrap().parse::<wharf::time::Wall>().unwrap().0
    };
    for pair in records.windows(2) {
        let waited = Duration::from_nanos(end_of(&pair[1]) - end_of(&pair[0])).as_secs_f64();
        let announced = at(&pair[0], "restart.delay_s").as_f64().unwrap();
        assert!(waited >= announced - 0.002, "announced {announced}, waited {waited}");
        assert!(waited <= announced + 2.0, "announced {announced}, waited {waited}");
    }
    let told = wharf.ok(&["events", "--json", "--kind", "crash_loop"]);
    for line in told.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["crash_loop"]["failures"], 5, "after five in a row: {event}");
    }
    assert_eq!(told.lines().count(), 1, "{told}");
    let row = until("crash-looping", || {
        let row = wharf.row("crash");
        (row["crash_looping"] == true).then_some(row)
    });
    assert_eq!(row["state"], "backoff");
    let told = wharf.run(&["status", "crash"]);
    assert_eq!(told.status.code(), Some(3), "a service that is not running");
    assert!(crate::support::text(&told.stdout).contains("crash-looping"));
}

#[test]
fn t14_the_wait_grows_to_its_limit_and_no_further() {
    let wharf = Wharf::up(
        "services:
  capped:
    command: [sh, -c, 'exit 1']
    restart: { delay: 100ms, max_delay: 300ms, jitter: 0.1, max_restarts: 100 }
",
    );
    let delays: Vec<f64> = wharf
        .wait_records("capped", 7)
        .iter()
        .map(|record| at(record, "restart.delay_s").as_f64().unwrap())
        .collect();
    for (delay, exact) in delays.iter().zip([0.0, 0.1, 0.2, 0.3, 0.3, 0.3, 0.3]) {
        assert!((exact * 0.899..=exact * 1.101).contains(delay), "{delays:?}");
    }
}

#[test]
fn t14_too_many_restarts_are_given_up_with_the_last_code() {
    let wharf = Wharf::up(
        "services:
  bad:
    command: [sh, -c, 'exit 9']
    restart: { delay: 1ms, max_delay: 1ms, max_restarts: 5, within: 60s }
",
    );
    wharf.wait_state("bad", "failed");
    wharf.wait_records("bad", 6);
    let records = wharf.records_of("bad");
    assert_eq!(records.len(), 6);
    assert_eq!(at(&records[5], "restart.decision"), "gave_up");
    assert_eq!(at(&records[5], "process.exit.code"), 9);
    let row = wharf.row("bad");
    assert_eq!(at(&row, "last_exit.code"), 9);
    // An operator may try again.
    wharf.run(&["start", "bad"]);
    wharf.wait_records("bad", 7);
}

/// A service that always lives a little longer than what ends its row of failures would be started again
/// once a second for ever.
#[test]
fn t15_who_dodges_the_backoff_is_limited_all_the_same() {
    let wharf = Wharf::up(
        "services:
  dodger:
    command: [sh, -c, 'sleep 0.22; exit 1']
    restart: { reset_after: 200ms, max_restarts: 5, within: 60s }
",
    );
    wharf.wait_state("dodger", "failed");
    let records = wharf.wait_records("dodger", 6);
    assert_eq!(records.len(), 6);
    for record in &records[..5] {
        // None is the second of a row, so none has to wait.
        assert_eq!(at(record, "restart.delay_s"), 0.0, "{record}");
    }
    assert_eq!(at(&records[5], "restart.decision"), "gave_up");
    assert_eq!(wharf.row("dodger")["last_exit"]["code"], 1);
}

#[test]
fn t16_only_a_long_run_ends_the_row_and_a_manual_restart_changes_nothing_of_it() {
    let wharf = Wharf::up(
        "services:
  s:
    command: [sh, -c, 'test -e stay && exec sleep 1000; exit 1']
    restart: { delay: 100ms, max_delay: 1h, factor: 100, jitter: 0, reset_after: 2s, max_restarts: 100 }
",
    );
    // 0 s, 0.1 s, 10 s: the third failure is followed by a long wait.
    let row = until("the third", || {
        let row = wharf.row("s");
        (row["failures_in_a_row"] == 3 && row["state"] == "backoff").then_some(row)
    });
    assert_eq!(row["restarts"], 3, "the one that is waited for is counted");
    std::fs::write(wharf.folder.join("stay"), "").unwrap();
    wharf.ok(&["start", "s"]);
    let first = wharf.row("s");
    assert_eq!(first["failures_in_a_row"], 3, "to run is not yet to be well");
    wharf.ok(&["restart", "s"]);
    let row = wharf.row("s");
    // On a slow machine the run before may have been long enough; then this one begins a row of none.
    let ended = wharf.records_of("s").pop().unwrap();
    if at(&ended, "uptime_s").as_f64().unwrap() < 2.0 {
        assert_eq!(row["failures_in_a_row"], 3, "a restart by hand neither counts nor clears");
    }
    assert_eq!(row["restarts"], 3, "those by hand are none by the policy");
    let up = until("the row to end", || {
        let row = wharf.row("s");
        (row["failures_in_a_row"] == 0).then(|| row["uptime_s"].as_f64().unwrap())
    });
    assert!(up >= 1.99 || at(&ended, "uptime_s").as_f64().unwrap() >= 2.0, "cleared after {up} s");
    std::fs::remove_file(wharf.folder.join("stay")).unwrap();
    crate::support::send(wharf.pid("s"), 9);
    let records = wharf.wait_records("s", 5);
    let killed = records.iter().find(|end| at(end, "exit.signal.number") == 9).unwrap();
    assert_eq!(at(killed, "restart.delay_s"), 0.0, "the first of a new row: {killed}");
    assert_eq!(at(killed, "restart.attempt"), 1, "{killed}");
}

#[test]
fn t17_whatever_happens_in_a_backoff_leaves_one_process_at_most() {
    // Who runs holds a lock; a second copy would end with 99.
    let service = |name: &str, then: &str| {
        format!(
            "  {name}: {{ command: [flock, -n, -F, -E, '99', {name}.lock, sh, -c, '{then}'], \
             restart: {{ policy: always, delay: 1h, max_delay: 1h }} }}\n"
        )
    };
    let fails = "test -e go && exec sleep 1000; exit 1";
    let names = ["stop", "start", "change", "remove", "both"];
    let mut yaml = "services:\n".to_owned();
    for name in names {
        yaml += &service(name, fails);
    }
    let wharf = Wharf::up(&yaml);
    for name in names {
        until("a backoff of an hour", || {
            let row = wharf.row(name);
            (row["state"] == "backoff" && row["failures_in_a_row"] == 2).then_some(())
        });
    }
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    wharf.ok(&["stop", "stop"]);
    assert_eq!(wharf.row("stop")["state"], "stopped");
    wharf.ok(&["start", "start"]);
    wharf.ok(&["stop", "both"]);
    wharf.ok(&["start", "both"]);
    let mut changed = "services:\n".to_owned();
    for name in names.iter().filter(|name| **name != "remove") {
        changed += &service(name, if *name == "change" { "exec sleep 1001" } else { fails });
    }
    wharf.write(&changed);
    wharf.ok(&["reload"]);
    for name in ["start", "change", "both"] {
        wharf.wait_state(name, "running");
    }
    until("the removed one to be gone", || wharf.row("remove").is_null().then_some(()));
    assert_eq!(wharf.row("stop")["state"], "stopped");
    wharf.ok(&["down"]);
    for record in wharf.records() {
        assert_ne!(at(&record, "process.exit.code"), 99, "two at once: {record}");
    }
    for (name, ends) in [("stop", 2), ("start", 3), ("change", 3), ("remove", 2), ("both", 3)] {
        assert_eq!(wharf.records_of(name).len(), ends, "{name}");
    }
}

#[test]
fn t22_what_counts_as_success_is_not_restarted() {
    let mut yaml = "defaults:
  restart:
    policy: on-failure
    success_exit_codes: [0, 3]
    success_signals: [SIGTERM]
    delay: 1ms
    max_delay: 1ms
    max_restarts: 2
services:
"
    .to_owned();
    for (name, ends) in [
        ("c0", "exit 0"),
        ("c3", "exit 3"),
        ("term", "kill -TERM $$$$"),
        ("c4", "exit 4"),
        ("kill", "kill -KILL $$$$"),
        ("c143", "exit 143"),
    ] {
        let _ = writeln!(yaml, "  {name}: {{ command: [sh, -c, '{ends}'] }}");
    }
    let wharf = Wharf::up(&yaml);
    for name in ["c0", "c3", "term"] {
        wharf.wait_state(name, "finished");
        assert_eq!(wharf.wait_records(name, 1).len(), 1, "{name}");
    }
    // A signal is no code, and only what is named is a success.
    for name in ["c4", "kill", "c143"] {
        wharf.wait_state(name, "failed");
        assert_eq!(wharf.wait_records(name, 3).len(), 3, "{name}");
    }
    assert_eq!(at(&wharf.records_of("c3")[0], "exit.reason"), "completed");
    assert_eq!(at(&wharf.records_of("term")[0], "exit.signal.name"), "SIGTERM");
}

#[test]
fn a_program_that_is_being_written_is_tried_again() {
    let wharf =
        Wharf::new("services:\n  web: { command: [./web, '1000'], restart: { delay: 50ms } }\n");
    let path = wharf.folder.join("web");
    std::fs::copy("/bin/sleep", &path).unwrap();
    let writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let up = wharf.command(&["up", "-d"]).output().unwrap();
    assert!(up.status.success(), "{up:?}");
    let told = wharf.wait_records("web", 2).remove(0);
    assert_eq!(at(&told, "exit.errno.name"), "ETXTBSY", "{told}");
    assert_eq!(at(&told, "exit.reason"), "exec_failed");
    drop(writer);
    wharf.wait_state("web", "running");
}
