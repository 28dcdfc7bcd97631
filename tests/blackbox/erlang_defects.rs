//! What Erlang's ports get wrong, one test each: here it is right.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Wharf, alive, at, marked, send, text, until, wait_gone};

fn events(wharf: &Wharf, service: &str) -> Vec<Value> {
    let told = wharf.ok(&["events", "--json", "--service", service]);
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Erlang cannot close a program's input and still read its output.
#[test]
fn d01_half_close_lets_a_program_answer_after_its_input() {
    let wharf = Wharf::up(
        "services:
  sort: { command: [sort, -n], port: { framing: eof, replies: one }, restart: no }
  wc: { command: [wc, -c], port: { framing: eof, replies: one }, restart: no }
",
    );
    wharf.wait_state("sort", "running");
    assert_eq!(wharf.ok(&["call", "sort", "10\n9\n"]), "9\n10\n");
    wharf.wait_state("wc", "running");
    assert_eq!(wharf.ok(&["call", "wc", "hello"]), "5\n");
}

/// Erlang can neither kill a port's program nor send it a signal.
#[test]
fn d02_a_program_can_be_signalled_and_killed() {
    let wharf = Wharf::up(
        "services:
  told: { command: [sh, -c, 'trap \"echo heard\" USR1; echo up; while :; do sleep 0.05; done'], port: { ready: first_message }, restart: no }
",
    );
    wharf.wait_state("told", "running");
    wharf.ok(&["signal", "told", "USR1"]);
    until("the word", || (wharf.row("told")["port"]["frames_out"] == 2).then_some(()));
    wharf.ok(&["signal", "told", "KILL"]);
    let record = wharf.wait_records("told", 1).remove(0);
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
    assert_eq!(at(&record, "exit.cause"), "signal_requested");
    assert_eq!(at(&record, "exit.requested_by.who"), "wharf signal");
}

/// Erlang's `port_close` closes two pipes and forgets the program, which lives on.
#[test]
fn d03_a_program_that_ignores_the_end_of_its_input_is_no_orphan() {
    let wharf = Wharf::up(
        "services:
  sleeps: { command: [sleep, '1000'], port: { eof_grace: 100ms }, environment: { MARK: d03-orphan } }
",
    );
    wharf.wait_state("sleeps", "running");
    let pid = wharf.pid("sleeps");
    wharf.ok(&["stop", "sleeps"]);
    assert!(!alive(pid));
    assert!(marked("d03-orphan").is_empty());
    let record = wharf.wait_records("sleeps", 1).remove(0);
    assert_eq!(at(&record, "exit.stop.steps")[1]["step"], "SIGTERM");
}

/// Erlang knows nothing of what a program started.
#[test]
fn d04_grandchildren_end_with_their_program() {
    let wharf = Wharf::up(
        "services:
  parent:
    command: [sh, -c, 'setsid sleep 1000 & sleep 1000 & echo up; wait']
    environment: { MARK: d04-family }
    port: { ready: first_message, eof: ignored }
    restart: no
",
    );
    wharf.wait_state("parent", "running");
    until("the family", || (marked("d04-family").len() == 3).then_some(()));
    send(wharf.pid("parent"), 9);
    wharf.wait_records("parent", 1);
    until("nobody to be left", || marked("d04-family").is_empty().then_some(()));
    let cleaned = || events(&wharf, "parent").into_iter().find(|event| event["kind"] == "cleaned");
    let cleaned = until("the word on it", cleaned);
    assert_eq!(at(&cleaned, "cleaned.killed").as_array().map(Vec::len), Some(2), "{cleaned}");
}

/// Erlang reads whatever comes into its owner's mailbox, without a bound.
#[test]
fn d05_a_program_that_talks_to_nobody_waits_with_a_full_pipe() {
    let wharf = Wharf::up(
        "services:
  yes: { command: ['yes'], port: { replies: none } }
",
    );
    wharf.wait_state("yes", "running");
    let pid = wharf.pid("yes");
    // It sleeps in a write.
    until("it to be blocked", || {
        let waits = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
        waits.contains("pipe").then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", wharf.manager_pid())).unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let own: u64 = own.split_whitespace().next().unwrap().parse().unwrap();
    assert!(own < 32 << 10, "{own} KiB");
}

/// Erlang allocates 4 GiB for four bytes of garbage.
#[test]
fn d06_a_length_is_looked_at_before_memory_is_taken() {
    let wharf = Wharf::up(
        "services:
  garbage: { command: [sh, -c, 'printf \"\\377\\377\\377\\377\"; exec sleep 1000'], port: { framing: packet4 }, restart: no }
",
    );
    let record = wharf.wait_records("garbage", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "protocol_error");
    let error = at(&record, "port.error").as_str().unwrap();
    assert!(error.contains("announces 4294967295 bytes, 16777216 are allowed"), "{error}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", wharf.manager_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    let peak: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    assert!(peak < 2 << 20, "{peak} KiB of address space");
}

/// Erlang drops a frame that is cut off by the end without a word.
#[test]
fn d07_a_truncated_frame_is_told() {
    let wharf = Wharf::up(
        "services:
  cut: { command: [sh, -c, 'printf \"\\000\\000\\000\\012abc\"'], port: { framing: packet4 }, restart: no }
",
    );
    let record = wharf.wait_records("cut", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "protocol_error", "{record}");
    assert_eq!(at(&record, "process.exit.code"), 0, "the kernel's word is kept beside it");
    let error = at(&record, "port.error").as_str().unwrap();
    assert!(error.contains("3 of 10 bytes of its body"), "{error}");
    assert_eq!(at(&record, "port.partial_frame"), true);
}

/// Erlang tells the exit before the last line, when that has no line feed.
#[test]
fn d08_the_last_partial_line_comes_before_the_exit() {
    let wharf = Wharf::up(
        "services:
  last: { command: [sh, -c, 'echo whole; printf partial'], port: { replies: none }, restart: no }
",
    );
    wharf.wait_records("last", 1);
    let told = until("the exit", || {
        let told = events(&wharf, "last");
        told.iter().any(|event| event["kind"] == "exit").then_some(told)
    });
    let kinds = told.iter().filter_map(|event| match event["kind"].as_str()? {
        "message" => event["message"]["text"].as_str(),
        "exit" => Some("exit"),
        _ => None,
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["whole", "partial", "exit"]);
}

/// Erlang throws the exit status away when a write finds nobody to read.
#[test]
fn d09_a_broken_pipe_does_not_swallow_the_exit_status() {
    let wharf = Wharf::up(
        "services:
  deaf: { command: [sh, -c, 'exec <&-; echo closed; while [ ! -e go ]; do sleep 0.01; done; exit 7'], port: { ready: first_message }, restart: no }
",
    );
    wharf.wait_state("deaf", "running");
    let told = wharf.fails(1, &["send", "deaf", "hello"]);
    assert!(told.contains("closed its input"), "{told}");
    assert_eq!(wharf.row("deaf")["state"], "running", "it goes on");
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    let record = wharf.wait_records("deaf", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 7);
    assert_eq!(at(&record, "exit.reason"), "failed");
}

/// Erlang gives 137 for an exit with 137 and for SIGKILL alike.
#[test]
fn d10_a_code_is_no_signal() {
    let wharf = Wharf::up(
        "services:
  code: { command: [sh, -c, 'exit 137'], port: {}, restart: no }
  signal: { command: [sh, -c, 'kill -9 $$$$'], port: {}, restart: no }
",
    );
    let code = wharf.wait_records("code", 1).remove(0);
    assert_eq!(
        (at(&code, "exit.how"), at(&code, "process.exit.code")),
        (&"exited".into(), &137.into())
    );
    assert!(at(&code, "exit.signal").is_null());
    let signal = wharf.wait_records("signal", 1).remove(0);
    assert_eq!(at(&signal, "exit.how"), "signaled");
    assert_eq!(at(&signal, "exit.signal.number"), 9);
    assert!(at(&signal, "process.exit").is_null());
    assert_eq!(at(&signal, "exit.core_dumped"), false);
    assert!(at(&signal, "usage.max_rss_bytes").as_u64() > Some(0));
}

/// In Erlang a program that could not be executed has exited with a code.
#[test]
fn d11_a_failed_exec_is_no_exit_code() {
    let wharf = Wharf::new(
        "services:
  missing: { command: [./missing], port: {}, restart: no }
  interpreter: { command: [./script], port: {}, restart: no }
  folder: { command: [cat], working_dir: /nonexistent, port: {}, restart: no }
",
    );
    crate::support::script(&wharf.folder, "script", "#!/no/such/interpreter\n");
    wharf.ok(&["up", "-d"]);
    for (service, reason, stage) in [
        ("missing", "exec_failed", "exec"),
        ("interpreter", "exec_failed", "exec"),
        ("folder", "setup_failed", "working_dir"),
    ] {
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), reason, "{record}");
        assert_eq!(at(&record, "exit.stage"), stage);
        assert!(at(&record, "process.exit").is_null(), "{record}");
    }
}

/// Erlang tells no exit before everybody who inherited standard output has closed it.
#[test]
fn d12_the_exit_is_no_hostage_of_those_who_hold_the_output() {
    let wharf = Wharf::up(
        "services:
  parent:
    command: [sh, -c, 'sleep 1000 & echo $$!; exit 5']
    port: { replies: none }
    stop_kill: process
    restart: no
",
    );
    let start = Instant::now();
    let record = wharf.wait_records("parent", 1).remove(0);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(at(&record, "process.exit.code"), 5);
    assert!(at(&record, "uptime_s").as_f64().unwrap() < 10.0);
    let pid = events(&wharf, "parent")
        .iter()
        .find_map(|event| event["message"]["text"].as_str()?.parse::<i32>().ok());
    let pid = pid.unwrap();
    assert!(alive(pid), "it still holds the output");
    send(pid, 9);
    wait_gone(pid);
}

/// In Erlang standard error is nobody's, or mixed with standard output.
#[test]
fn d13_standard_error_stands_apart() {
    let wharf = Wharf::up(
        "services:
  both: { command: [sh, -c, 'read -r x; echo complaint >&2; echo \"$$x\"; read -r x; exit 1'], port: { replies: one }, restart: no }
",
    );
    wharf.wait_state("both", "running");
    assert_eq!(wharf.ok(&["call", "both", "message"]), "message\n");
    until("the complaint", || (wharf.logs("both") == "complaint\n").then_some(()));
    wharf.ok(&["stop", "both"]);
    let record = wharf.wait_records("both", 1).remove(0);
    assert_eq!(at(&record, "stderr_tail"), "complaint\n");
    assert_eq!(at(&record, "port.frames_out"), 1);
}

/// In Erlang a reason is gone when its owner is slow or absent.
#[test]
fn d14_the_reason_is_kept_for_whoever_asks_later() {
    let wharf = Wharf::up(
        "services:
  gone: { command: [sh, -c, 'echo last words >&2; exit 9'], port: { replies: one }, restart: no }
",
    );
    wharf.wait_state("gone", "failed");
    let told = wharf.fails(1, &["call", "gone", "hello"]);
    assert!(told.contains("exited with code 9"), "{told}");
    wharf.ok(&["down"]);
    // Neither the caller nor the manager was there any more.
    let why = wharf.ok(&["why", "gone"]);
    assert!(why.contains("exited with code 9") && why.contains("last words"), "{why}");
}

/// And Erlang's children begin with SIGPIPE and SIGFPE ignored, so that they never die of them.
#[test]
fn no_signal_is_left_ignored_in_a_program() {
    let wharf = Wharf::up(
        "services:
  shows: { command: [sh, -c, 'grep -E \"^Sig(Ign|Blk)\" /proc/self/status; read -r x'], port: {}, restart: no }
",
    );
    until("both lines", || (wharf.row("shows")["port"]["frames_out"] == 2).then_some(()));
    let told = events(&wharf, "shows");
    let lines = told.iter().filter_map(|event| event["message"]["text"].as_str());
    for line in lines {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

/// A reply that came with the last breath is delivered, whatever the order of events.
#[test]
fn a_caller_hears_the_reply_and_not_the_exit() {
    let wharf = Wharf::up(
        "services:
  breath: { command: [sh, -c, 'read -r x; printf \"you said %s\" \"$$x\"'], port: { replies: one }, restart: no }
",
    );
    wharf.wait_state("breath", "running");
    let mut socket = wharf.connect().unwrap();
    let asked = "POST /v1/services/breath/call HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: 4\r\n\r\nthis";
    socket.write_all(asked.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert!(text(&answer).ends_with("\r\n\r\nyou said this"), "{}", text(&answer));
}
