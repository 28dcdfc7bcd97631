//! Real programs as ports: calls, turns, deadlines, and ends in the middle.

use std::fmt::Write as _;
use std::io::{Read, Write};

use crate::support::{Wharf, at, send, text, until};

const PROGRAMS: &str = "services:
  calculator: { command: [awk, -W, interactive, '{ print $1 * $2; fflush() }'], port: { use: awk } }
  bc: { command: [bc, -q], port: { use: bc } }
  objects: { command: [git, cat-file, --batch], port: { use: git-cat-file } }
";

fn git(folder: &std::path::Path, words: &[&str], input: &[u8]) -> String {
    let mut command = std::process::Command::new("git");
    command.args(words).current_dir(folder);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout).trim().to_owned()
}

#[test]
fn real_programs_answer() {
    let wharf = Wharf::new(PROGRAMS);
    git(&wharf.folder, &["init", "-q"], b"");
    let blob = git(&wharf.folder, &["hash-object", "-w", "--stdin"], b"one\ntwo\n");
    wharf.ok(&["up", "-d"]);
    assert_eq!(wharf.ok(&["call", "calculator", "6 7"]), "42\n");
    assert_eq!(wharf.ok(&["call", "bc", "2^100"]), "1267650600228229401496703205376\n");
    assert_eq!(wharf.ok(&["call", "bc", "x = 5"]), "\n", "an empty reply is a reply");
    assert_eq!(wharf.ok(&["call", "bc", "x * 2"]), "10\n");
    let reply = wharf.ok(&["call", "objects", &blob]);
    assert_eq!(reply, format!("{blob} blob 8\none\ntwo\n"));
    assert_eq!(wharf.ok(&["call", "objects", "nonsense"]), "nonsense missing\n");
    assert_eq!(wharf.ok(&["call", "--raw", "calculator", "2 2"]), "4");
    // From standard input.
    let mut child = wharf.command(&["call", "bc", "-"]);
    child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"3 + 4").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "7\n");
}

#[test]
fn callers_take_turns_and_get_their_own_replies() {
    let wharf = Wharf::up(PROGRAMS);
    wharf.wait_state("bc", "running");
    let socket = wharf.state().join("sock");
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let socket = socket.clone();
            std::thread::spawn(move || {
                for number in 0..25 {
                    let (question, answer) =
                        (format!("{caller}*1000+{number}"), caller * 1000 + number);
                    let reply = post(&socket, "/v1/services/bc/call", question.as_bytes());
                    assert!(reply.ends_with(&format!("\r\n\r\n{answer}")), "{question}: {reply}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

fn post(socket: &std::path::Path, path: &str, body: &[u8]) -> String {
    let mut socket = wharf::os::socket::connect(socket).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_call_that_is_never_answered_ends_at_its_deadline() {
    let wharf = Wharf::up(
        "services:
  deaf: { command: [sh, -c, 'while read line; do :; done'], port: { replies: one, timeout: 300ms } }
",
    );
    let start = std::time::Instant::now();
    wharf.fails(6, &["call", "deaf", "hello"]);
    assert!(start.elapsed().as_millis() >= 300);
    wharf.fails(6, &["call", "--timeout", "100ms", "deaf", "hello"]);
    assert_eq!(wharf.row("deaf")["state"], "running");
}

#[test]
fn a_call_that_cannot_be_answered_any_more_gets_the_reason() {
    let wharf = Wharf::up(
        "services:
  dies: { command: [sh, -c, 'read line; sleep 0.1; exit 7'], port: { replies: one }, restart: no }
  reads_nothing: { command: [sleep, '1000'], port: { replies: one }, restart: no }
",
    );
    wharf.wait_state("dies", "running");
    let told = wharf.fails(1, &["call", "dies", "hello"]);
    assert!(told.contains("exited with code 7") && told.contains("maybe_read"), "{told}");

    wharf.wait_state("reads_nothing", "running");
    let socket = wharf.state().join("sock");
    let caller =
        std::thread::spawn(move || post(&socket, "/v1/services/reads_nothing/call", b"hello"));
    until("the message to be in the pipe", || {
        (wharf.row("reads_nothing")["port"]["frames_in"] == 1).then_some(())
    });
    send(wharf.pid("reads_nothing"), 9);
    let told = caller.join().unwrap();
    assert!(told.starts_with("HTTP/1.1 409"), "{told}");
    assert!(told.contains("SIGKILL") && told.contains("never_read"), "{told}");
    let record = wharf.wait_records("reads_nothing", 1).remove(0);
    assert_eq!(at(&record, "port.unread_stdin_bytes"), 6);
    let told = wharf.fails(1, &["call", "dies", "again"]);
    assert!(told.contains("failed") && told.contains("code 7"), "{told}");
}

#[test]
fn a_reply_in_the_same_breath_as_the_exit_is_delivered() {
    let wharf = Wharf::up(
        "services:
  last: { command: [sh, -c, 'read line; printf \"you said $line\"'], port: { replies: one }, restart: no }
",
    );
    for _ in 0..crate::support::times(200) {
        wharf.wait_state("last", "running");
        assert_eq!(wharf.ok(&["call", "last", "this"]), "you said this\n");
        wharf.wait_state("last", "finished");
        wharf.ok(&["start", "last"]);
    }
}

#[test]
fn binary_frames_of_every_framing_pass_unchanged() {
    // `cat` speaks every framing that looks the same in both directions.
    let mut yaml = "services:\n".to_owned();
    for framing in ["lines", "nul", "packet1", "packet2", "packet4"] {
        let port = format!("{{ framing: {framing}, replies: one }}");
        let _ = writeln!(yaml, "  {framing}: {{ command: [cat], port: {port} }}");
    }
    let wharf = Wharf::up(&yaml);
    let every: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n' && *byte != b'\r').collect();
    for framing in ["lines", "nul", "packet1", "packet2", "packet4"] {
        wharf.wait_state(framing, "running");
        let mut socket = wharf.connect().unwrap();
        let head = format!(
            "POST /v1/services/{framing}/call HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            every.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&every).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(&every), "{framing}: {}", text(&answer));
    }
}

#[test]
fn a_program_that_does_not_read_blocks_only_its_own_senders() {
    let wharf = Wharf::up(
        "services:
  deaf: { command: [sleep, '1000'], port: { queue: 10 } }
  cat: { command: [cat], port: { replies: one } }
",
    );
    wharf.wait_state("deaf", "running");
    let big = vec![b'x'; 60_000];
    let mut refused = None;
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut socket = wharf.connect().unwrap();
        let head = format!(
            "POST /v1/services/deaf/send HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            big.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&big).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let mut answer = [0; 64];
        if let Ok(length) = socket.read(&mut answer) {
            let answer = text(&answer[..length]);
            if answer.contains(" 503 ") {
                refused = Some(answer);
                break;
            }
        }
        waiting.push(socket);
    }
    assert!(refused.is_some(), "the bound was never reached");
    assert_eq!(wharf.ok(&["call", "cat", "hello"]), "hello\n");
    wharf.ok(&["restart", "deaf"]);
}

#[test]
fn a_port_is_asked_to_end_before_it_is_told() {
    let wharf = Wharf::up(
        "services:
  quits: { command: [bc, -q], port: { use: bc, quit: quit } }
  closes: { command: [cat], port: { replies: one } }
  ignores:
    command: [sh, -c, 'trap \"exit 3\" TERM; while :; do sleep 0.05; done']
    port: { replies: one, eof: ignored }
",
    );
    for service in ["quits", "closes", "ignores"] {
        wharf.wait_state(service, "running");
    }
    assert_eq!(wharf.ok(&["call", "quits", "1+1"]), "2\n");
    wharf.ok(&["stop", "quits", "closes", "ignores"]);
    let steps = |service: &str| -> Vec<String> {
        let record = wharf.records_of(service).remove(0);
        let steps = at(&record, "exit.stop.steps").as_array().unwrap().clone();
        steps.iter().map(|step| step["step"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(steps("quits"), ["quit"]);
    assert_eq!(steps("closes"), ["close_stdin"]);
    assert_eq!(steps("ignores"), ["SIGTERM"]);
    assert_eq!(at(&wharf.records_of("quits")[0], "process.exit.code"), 0);
}
