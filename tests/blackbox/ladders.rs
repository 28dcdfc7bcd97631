//! Programs that do not care about the end of their input, and each step that ends them.

use serde_json::Value;

use crate::support::{Wharf, at, send, text, until};

/// The steps of the only end of a service, with when each was taken, in seconds.
fn steps(wharf: &Wharf, service: &str) -> (Value, Vec<(String, f64)>) {
    let record = wharf.wait_records(service, 1).remove(0);
    let steps = at(&record, "exit.stop.steps").as_array().unwrap().iter();
    let told = steps
        .map(|step| (step["step"].as_str().unwrap().to_owned(), step["at_s"].as_f64().unwrap()));
    let told = told.collect();
    (record, told)
}

#[track_caller]
fn check(wharf: &Wharf, service: &str, expected: &[&str], reason: &str) {
    wharf.ok(&["stop", service]);
    let (record, told) = steps(wharf, service);
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, expected, "{service}: {record}");
    assert_eq!(at(&record, "exit.reason"), reason, "{service}: {record}");
    assert_eq!(at(&record, "exit.cause"), "stop_requested");
    // Each step had its time before the next one came.
    for (pair, name) in told.windows(2).zip(&names) {
        let waited = pair[1].1 - pair[0].1;
        assert!((0.3..30.0).contains(&waited), "{service}: {waited} s after {name}");
    }
}

/// Programs that ignore the end of their input, with a profile that knows and one that does not.
const DEAF: &str = "services:
  exiftool:
    command: [exiftool, -stay_open, 'True', -@, '-']
    port: { replies: { until: '^\\{ready' }, quit: \"-stay_open\\nFalse\", eof: ignored, success_exit_codes: [0, 1] }
  exiftool-untold: { command: [exiftool, -stay_open, 'True', -@, '-'], port: { replies: one, eof_grace: 300ms } }
  inotifywait: { command: [inotifywait, -m, .], port: { eof: ignored } }
  inotifywait-untold: { command: [inotifywait, -m, .], port: { eof_grace: 300ms } }
  redis: { command: [redis-server, --port, '0', --unixsocket, ./one, --save, ''], port: { eof: ignored, ready: { message: (?i)ready to accept } } }
  redis-untold: { command: [redis-server, --port, '0', --unixsocket, ./two, --save, ''], port: { eof_grace: 300ms, ready: { message: (?i)ready to accept } } }
  tail: { command: [tail, -f, /dev/null], port: { eof: ignored } }
  tail-untold: { command: [tail, -f, /dev/null], port: { eof_grace: 300ms } }
";

#[test]
fn programs_that_ignore_the_end_of_their_input_are_ended_step_by_step() {
    let wharf = Wharf::up(DEAF);
    for row in wharf.ps() {
        wharf.wait_state(row["service"].as_str().unwrap(), "running");
    }
    let echo = "-echo\nhello\n-execute7";
    assert!(wharf.ok(&["call", "exiftool", "--", echo]).ends_with("{ready7}\n"));
    check(&wharf, "exiftool", &["quit"], "completed");
    check(&wharf, "exiftool-untold", &["close_stdin", "SIGTERM"], "signaled");
    check(&wharf, "inotifywait", &["SIGTERM"], "signaled");
    check(&wharf, "inotifywait-untold", &["close_stdin", "SIGTERM"], "signaled");
    // It hears SIGTERM and goes in order.
    check(&wharf, "redis", &["SIGTERM"], "completed");
    check(&wharf, "redis-untold", &["close_stdin", "SIGTERM"], "completed");
    check(&wharf, "tail", &["SIGTERM"], "signaled");
    check(&wharf, "tail-untold", &["close_stdin", "SIGTERM"], "signaled");
}

#[test]
fn the_whole_ladder_is_climbed_for_one_who_heeds_nothing() {
    let wharf = Wharf::up(
        "services:
  stubborn:
    command: [python3, -c, \"import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)\"]
    port: { ready: first_message, quit: please, eof_grace: 400ms }
    stop_grace_period: 500ms
",
    );
    wharf.wait_state("stubborn", "running");
    check(&wharf, "stubborn", &["quit", "close_stdin", "SIGTERM", "SIGKILL"], "signaled");
    let (record, told) = steps(&wharf, "stubborn");
    assert_eq!(at(&record, "exit.stop.escalated"), true);
    let waits: Vec<f64> = told.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    for (wait, due) in waits.iter().zip([0.4, 0.4, 0.5]) {
        assert!((due..due + 5.0).contains(wait), "{waits:?}");
    }
    let why = wharf.ok(&["why", "stubborn"]);
    assert!(why.contains("quit, close_stdin, SIGTERM, SIGKILL"), "{why}");
}

#[test]
fn a_language_server_that_wants_an_exit_message_may_fail_at_the_end_of_its_input() {
    // What pyright, typescript, json and yaml servers do: an end without `exit` is an error.
    let wharf = Wharf::up(
        "services:
  server: { command: [sh, -c, 'cat >/dev/null; exit 1'], port: { framing: content-length, eof: error } }
",
    );
    wharf.wait_state("server", "running");
    check(&wharf, "server", &["close_stdin"], "completed");
    let record = wharf.wait_records("server", 1).remove(0);
    assert!(at(&record, "exit.evidence").to_string().contains("eof: error"), "{record}");
}

/// It cannot hear a signal while it is stopped: it is told to go on, and killed where that does not help.
#[test]
fn t26_a_stopped_program_is_ended_like_any_other() {
    let wharf = Wharf::up(
        "defaults: { stop_grace_period: 300ms }
services:
  polite: { command: [sleep, '1000'] }
  deaf: { command: [sh, -c, 'trap \"\" TERM; echo up; while :; do sleep 0.1; done'] }
",
    );
    wharf.wait_state("polite", "running");
    until("the trap", || wharf.logs("deaf").contains("up").then_some(()));
    for (service, expected) in [("polite", &["SIGTERM"][..]), ("deaf", &["SIGTERM", "SIGKILL"])] {
        send(wharf.pid(service), 19);
        check(&wharf, service, expected, "signaled");
        assert_eq!(wharf.row(service)["state"], "stopped");
    }
}

#[test]
fn a_stop_that_a_start_overtakes_is_told_so() {
    let wharf = Wharf::up(
        "services:
  slow: { command: [sh, -c, \"trap '' TERM; echo up; while :; do sleep 0.1; done\"], stop_grace_period: 3s }
",
    );
    until("the trap", || wharf.logs("slow").contains("up").then_some(()));
    let mut stop = wharf.command(&["stop", "slow"]);
    let stop = stop.stderr(std::process::Stdio::piped()).spawn().unwrap();
    wharf.wait_state("slow", "stopping");
    wharf.ok(&["start", "slow"]);
    let stop = stop.wait_with_output().unwrap();
    assert_eq!(stop.status.code(), Some(1));
    assert!(text(&stop.stderr).contains("slow/1 was started meanwhile"), "{}", text(&stop.stderr));
}
