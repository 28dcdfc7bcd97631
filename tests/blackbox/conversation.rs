//! How a conversation begins and what does not belong to it: banner, readiness, stray text.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Wharf, at, script, text, until};

/// What a port's program said that was no reply, as the events tell it.
fn messages(wharf: &Wharf, service: &str) -> Vec<String> {
    let told = wharf.ok(&["events", "--json", "--kind", "message", "--service", service]);
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|event| event["message"]["text"].as_str().unwrap().to_owned()).collect()
}

/// A program that says its lines only when it is told to go on, and then answers.
const SLOW: &str = "#!/bin/sh
echo one
while [ ! -e go ]; do sleep 0.01; done
echo two
while read -r line; do echo \"you said $line\"; done
";

#[test]
fn nothing_of_clients_is_written_before_the_program_is_ready() {
    for (service, greeting) in [
        ("counted", "banner: 2"),
        ("matched", "banner: ^two$"),
        ("first", "banner: 1, ready: { message: two }"),
        ("message", "ready: { message: ^two$ }"),
    ] {
        let wharf = Wharf::new(&format!(
            "services:\n  {service}: {{ command: [./slow], port: {{ replies: one, {greeting} }} }}\n"
        ));
        script(&wharf.folder, "slow", SLOW);
        wharf.ok(&["up", "-d"]);
        until("the first line", || (wharf.row(service)["port"]["frames_out"] == 1).then_some(()));
        let row = wharf.row(service);
        assert_eq!((&row["state"], &row["ready"]), (&"starting".into(), &false.into()));
        let status = text(&wharf.run(&["status", service]).stdout);
        assert!(status.contains("Ready: no") && status.contains("is not ready yet"), "{status}");
        let mut call = wharf.command(&["call", service, "hello"]);
        let call = call.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        until("the call to wait", || (wharf.row(service)["port"]["queued"] == 1).then_some(()));
        // One whose time is up is told so, and never written.
        wharf.fails(6, &["call", service, "too early", "--timeout", "50ms"]);
        assert_eq!(wharf.row(service)["port"]["frames_in"], 0, "{service}");
        std::fs::write(wharf.folder.join("go"), "").unwrap();
        let reply = text(&call.wait_with_output().unwrap().stdout);
        assert_eq!(reply, "you said hello\n", "{service}");
        let row = wharf.wait_state(service, "running");
        assert_eq!((&row["ready"], &row["port"]["frames_in"]), (&true.into(), &1.into()));
        assert_eq!(messages(&wharf, service), ["one", "two"], "{service}");
        let told = wharf.ok(&["events", "--json", "--service", service]);
        let kinds: Vec<Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let place = |kind: &str| kinds.iter().position(|event| event["kind"] == kind).unwrap();
        assert!(place("start") < place("ready"), "{told}");
    }
}

#[test]
fn a_question_shows_that_a_program_is_ready() {
    let wharf = Wharf::up(
        "services:
  bc: { command: [bc, -q], port: { replies: one, ready: { exchange: { send: '6*7', expect: ^42$ } } } }
  tells: { command: [sh, -c, 'echo welcome; echo 4; exec bc -q'], port: { replies: one, banner: 2, ready: { exchange: { send: '2+2', expect: ^4$ } } } }
",
    );
    for service in ["bc", "tells"] {
        wharf.wait_state(service, "running");
        assert_eq!(wharf.ok(&["call", service, "2^10"]), "1024\n");
    }
    assert_eq!(messages(&wharf, "bc"), ["42"]);
    let told = messages(&wharf, "tells");
    assert_eq!(told, ["welcome", "4", "4"], "what stands in the banner is no answer");
    assert_eq!(wharf.row("bc")["port"]["frames_in"], 2, "the question is a message too");
}

#[test]
fn aspell_is_ready_with_its_banner() {
    let wharf = Wharf::up(
        "services:
  aspell: { command: [aspell, -a, --lang=en], port: { replies: { until: '^$' }, banner: 1 } }
",
    );
    wharf.wait_state("aspell", "running");
    assert_eq!(wharf.ok(&["call", "aspell", "hello"]), "*\n");
    let told = messages(&wharf, "aspell");
    assert!(told.len() == 1 && told[0].starts_with("@(#)"), "{told:?}");
}

#[test]
fn a_program_that_is_not_ready_in_time_ends_with_that_cause_and_what_it_said() {
    let wharf = Wharf::up(
        "services:
  asks:
    command: [sh, -c, 'echo hello; printf \"password: \"; exec sleep 1000']
    port: { ready: { message: ^ready }, replies: one }
    start_timeout: 300ms
    restart: no
  silent: { command: [sleep, '1000'], port: { banner: 2 }, start_timeout: 300ms, restart: no }
  dies: { command: [sh, -c, 'echo no licence; exit 3'], port: { ready: { message: ^ready } }, restart: no }
",
    );
    // Who called it is told why.
    let told = wharf.fails(1, &["call", "asks", "hello"]);
    assert!(told.contains("not ready in time") && told.contains("never_read"), "{told}");
    let record = wharf.wait_records("asks", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "ready_timeout", "{record}");
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
    let evidence = at(&record, "exit.evidence").as_array().unwrap();
    for words in [
        "it was not ready within start_timeout (300ms)",
        "it was not ready: a message that matches \"^ready\" was waited for, and it had said 2 messages, \
         the last of them \"password: \"",
    ] {
        assert!(evidence.iter().any(|told| told == words), "{evidence:?}");
    }
    let why = wharf.ok(&["why", "asks"]);
    assert!(why.contains("it was not ready in time") && why.contains("password: "), "{why}");
    let record = wharf.wait_records("silent", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "ready_timeout");
    assert!(at(&record, "exit.evidence").to_string().contains("had said nothing"), "{record}");
    // An end before that has its own cause, and says what was waited for.
    let record = wharf.wait_records("dies", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "spontaneous");
    assert_eq!(at(&record, "process.exit.code"), 3);
    assert!(at(&record, "exit.evidence").to_string().contains("no licence"), "{record}");
}

#[test]
fn a_program_that_is_not_ready_is_stopped_without_its_quit_message() {
    let wharf = Wharf::up(
        "services:
  cat: { command: [cat], port: { ready: first_message, quit: bye, replies: one } }
",
    );
    // Its program, and not only its process: what does not run yet has no input to close.
    until("it to run", || wharf.row("cat")["uptime_s"].as_f64());
    wharf.ok(&["stop", "cat"]);
    let record = wharf.wait_records("cat", 1).remove(0);
    let steps = at(&record, "exit.stop.steps").as_array().unwrap();
    assert_eq!(steps.len(), 1, "{record}");
    assert_eq!(steps[0]["step"], "close_stdin");
    assert_eq!(at(&record, "process.exit.code"), 0);
}

/// A server of JSON-RPC that logs where it should not.
const CHATTY: &str = "import sys, json
out = sys.stdout.buffer
headers = sys.argv[1] == 'content-length'
def say(text): out.write(text.encode()); out.flush()
def frame(text): return 'Content-Length: %d\\r\\n\\r\\n%s' % (len(text), text) if headers else text + '\\n'
say('2026-11-22 12:00:00 [INFO] listening on stdio\\n')
while True:
    line = sys.stdin.readline()
    if headers:
        if not line: break
        sys.stdin.readline()
        line = sys.stdin.read(int(line.split(':')[1]))
    if not line: break
    asked = json.loads(line)
    say('INFO: got %s\\n' % asked['method'])
    say(frame(json.dumps({'id': asked['id'], 'result': asked['method'].upper()})))
";

#[test]
fn stray_text_is_logged_dropped_or_fatal_as_chosen() {
    for framing in ["lines", "json", "content-length"] {
        let mut yaml = "services:\n".to_owned();
        for (service, stray) in [
            ("usual", ""),
            ("log", ", stray: log"),
            ("drop", ", stray: drop"),
            ("kill", ", stray: kill"),
        ] {
            let _ = writeln!(
                yaml,
                "  {service}: {{ command: [python3, chatty.py, {framing}], restart: no, port: {{ framing: {framing}, replies: {{ id: {{ pointer: /id }} }}{stray} }} }}"
            );
        }
        let wharf = Wharf::new(&yaml);
        std::fs::write(wharf.folder.join("chatty.py"), CHATTY).unwrap();
        wharf.ok(&["up", "-d"]);
        for service in ["usual", "log", "drop"] {
            wharf.wait_state(service, "running");
            for (id, method) in [("1", "add"), ("\"two\"", "list")] {
                let asked = format!("{{\"id\":{id},\"method\":\"{method}\"}}");
                let reply: Value =
                    serde_json::from_str(&wharf.ok(&["call", service, &asked])).unwrap();
                assert_eq!(reply["result"], method.to_uppercase(), "{framing} {service}");
                assert_eq!(reply["id"].to_string(), id);
            }
            assert_eq!(wharf.row(service)["port"]["strays"], 3, "{framing} {service}");
            assert_eq!(messages(&wharf, service), [""; 0], "stray text is no message");
            let logged = wharf.logs(service);
            let expected =
                "2026-11-22 12:00:00 [INFO] listening on stdio\nINFO: got add\nINFO: got list\n";
            assert_eq!(
                logged,
                if service == "drop" { "" } else { expected },
                "{framing} {service}"
            );
            assert!(wharf.ok(&["status", service]).contains("3 stray lines"));
            let line = format!(
                "wharf_port_protocol_errors_total{{service=\"{service}\",kind=\"stray\"}} 3"
            );
            assert!(wharf.get("/metrics").contains(&line), "{line}");
        }
        let record = wharf.wait_records("kill", 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "protocol_error", "{framing}: {record}");
        let error = at(&record, "port.error").as_str().unwrap();
        assert!(error.contains("listening on stdio"), "{error}");
    }
}

#[test]
fn a_flood_of_stray_text_holds_nobody_up() {
    let wharf = Wharf::up(
        "services:
  chatters:
    command: [sh, -c, 'yes chatter & while read -r line; do echo \"$$line\"; done; kill %1']
    port: { replies: { id: { pointer: /id } } }
    logging: { max_size: 100KiB, max_files: 1 }
  cat: { command: [cat], port: { replies: one } }
",
    );
    wharf.wait_state("chatters", "running");
    for number in 0..5 {
        assert_eq!(
            wharf.ok(&["call", "chatters", &format!("{{\"id\":{number}}}")]),
            format!("{{\"id\":{number}}}\n")
        );
        assert_eq!(wharf.ok(&["call", "cat", "x"]), "x\n");
    }
    assert!(wharf.row("chatters")["port"]["strays"].as_u64().unwrap() > 1000);
}

#[test]
fn a_port_says_which_exit_is_normal() {
    let wharf = Wharf::up(
        "services:
  port: { command: [sh, -c, 'exit 3'], port: { success_exit_codes: [0, 3] } }
  both: { command: [sh, -c, 'exit 3'], port: { success_exit_codes: [0, 3] }, restart: { policy: no, success_exit_codes: [0] } }
  error: { command: [sh, -c, 'cat; exit 1'], port: { replies: one, eof: error }, restart: no }
  graceful: { command: [sh, -c, 'cat; exit 1'], port: { replies: one }, restart: no }
",
    );
    wharf.wait_state("port", "finished");
    assert_eq!(at(&wharf.wait_records("port", 1)[0], "exit.reason"), "completed");
    wharf.wait_state("both", "failed");
    for (service, reason) in [("error", "completed"), ("graceful", "failed")] {
        wharf.wait_state(service, "running");
        wharf.ok(&["stop", service]);
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), reason, "{record}");
        assert_eq!(at(&record, "process.exit.code"), 1, "the code is told as it was");
        assert_eq!(at(&record, "exit.stop.steps")[0]["step"], "close_stdin");
    }
    // Outside a stop an error is an error.
    wharf.ok(&["start", "error"]);
    crate::support::send(wharf.pid("error"), 15);
    let record = wharf.wait_records("error", 2).remove(1);
    assert_eq!(at(&record, "exit.reason"), "signaled");
}

#[test]
fn a_message_waits_for_room_where_its_sender_chose_to() {
    let wharf = Wharf::new(
        "services:
  late:
    command: [sh, -c, 'while [ ! -e go ]; do sleep 0.01; done; exec cat >got']
    port: { queue: 2, max_frame: 100KiB }
  cat: { command: [cat], port: { replies: one } }
",
    );
    let message = "x".repeat(60_000);
    std::fs::write(wharf.folder.join("message"), &message).unwrap();
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("late", "running");
    let send = |words: &[&str]| {
        let mut command = wharf.command(&[&["send", "late", "-"], words].concat());
        let file = std::fs::File::open(wharf.folder.join("message")).unwrap();
        command.stdin(file).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let queued = || wharf.row("late")["port"]["queued"].as_u64().unwrap();
    let mut senders = Vec::new();
    while queued() < 2 {
        senders.push(send(&[]).spawn().unwrap());
        let all = senders.len() as u64;
        until("it to be taken", || {
            let row = wharf.row("late");
            let port = &row["port"];
            (port["queued"].as_u64().unwrap() + port["frames_in"].as_u64().unwrap() == all)
                .then_some(())
        });
    }
    let full = senders.len();
    // Without a word it is refused; with one it waits, and no longer than that.
    let refused = send(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("busy"), "{refused:?}");
    let start = Instant::now();
    let refused = send(&["--wait", "300ms"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        start.elapsed() >= Duration::from_millis(300) && text(&refused.stderr).contains("busy")
    );
    // One who hangs up while waiting is forgotten.
    let mut gone = send(&["--wait", "1m"]).spawn().unwrap();
    senders.push(send(&["--wait", "1m"]).spawn().unwrap());
    senders.push(send(&["--wait", "1m"]).spawn().unwrap());
    assert_eq!(wharf.ok(&["call", "cat", "hello"]), "hello\n", "nobody else waits");
    gone.kill().unwrap();
    gone.wait().unwrap();
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    for sender in senders {
        let output = sender.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    until("all of it to have come", || {
        let got = wharf.read("got").len();
        let all = (full + 2) * (message.len() + 1);
        (got == all || got == all + message.len() + 1).then_some(())
    });
    wharf.fails(2, &["send", "late", "x", "--wait", "0"]);
    let (status, told) = wharf.http("POST", "/v1/services/late/send?wait=never", b"x").unwrap();
    assert_eq!((status, told.contains("wait: ")), (400, true), "{told}");
}
