//! A service that ends at once backs off within its bounds, cheaply, and says what it is.

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
fn a_crash_loop_backs_off_and_says_so() {
    let wharf = Wharf::up("services:\n  crash: { command: [sh, -c, 'exit 1'] }\n");
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
fn too_many_restarts_are_given_up_with_the_last_code() {
    let wharf = Wharf::up(
        "services:
  bad:
    command: [sh, -c, 'exit 9']
    restart: { delay: 1ms, max_delay: 1ms, max_restarts: 4, within: 60s }
",
    );
    wharf.wait_state("bad", "failed");
    wharf.wait_records("bad", 5);
    let records = wharf.records_of("bad");
    assert_eq!(records.len(), 5);
    assert_eq!(at(&records[4], "restart.decision"), "gave_up");
    assert_eq!(at(&records[4], "process.exit.code"), 9);
    let row = wharf.row("bad");
    assert_eq!(at(&row, "last_exit.code"), 9);
    // An operator may try again.
    wharf.run(&["start", "bad"]);
    wharf.wait_records("bad", 6);
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
