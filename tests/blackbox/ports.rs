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

#[test]
fn a_flood_that_nobody_wants_costs_next_to_nothing() {
    let wharf = Wharf::up(
        "services:
  flood: { command: ['yes'], port: { framing: lines, replies: one } }
  tick: { command: [sh, -c, 'while :; do sleep 0.1; echo x; done'] }
",
    );
    wharf.wait_state("flood", "running");
    let manager = wharf.manager_pid();
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{manager}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let lines = || wharf.read(".wharf/log/tick.1.log").lines().count();
    let (before, told) = (used(), lines());
    until("two seconds to pass", || (lines() >= told + 20).then_some(()));
    let ticks = used() - before;
    assert!(ticks < 100, "half a processor for what nobody reads: {ticks} ticks in 2 s");
    // A caller is served all the same, and the end is recorded as ever.
    assert_eq!(wharf.ok(&["call", "flood", "x"]), "y\n");
    send(wharf.pid("flood"), 9);
    let record = wharf.wait_records("flood", 1).remove(0);
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
}

#[test]
fn who_hangs_up_holds_nobody_up() {
    let wharf = Wharf::up(
        "services:
  slow:
    command: [sh, -c, 'while read l; do sleep 0.4; echo \"$$l\"; done']
    port: { framing: lines, replies: one, timeout: 6s }
",
    );
    wharf.wait_state("slow", "running");
    let callers: Vec<_> = (0..30)
        .map(|_| {
            let mut socket = wharf.connect().unwrap();
            let request =
                "POST /v1/services/slow/call HTTP/1.1\r\nhost: w\r\ncontent-length: 4\r\n\r\ngone";
            socket.write_all(request.as_bytes()).unwrap();
            socket
        })
        .collect();
    let waits = || wharf.row("slow")["port"]["queued"].as_u64().unwrap();
    until("the callers to be in the queue", || (waits() > 20).then_some(()));
    drop(callers);
    until("an empty queue", || (waits() <= 1).then_some(()));
    assert_eq!(wharf.ok(&["call", "slow", "me"]), "me\n");
}

#[test]
fn t33_a_program_that_closes_its_output_lives_and_its_end_is_told() {
    let wharf = Wharf::up(
        "services:
  mute:
    command: [sh, -c, 'exec >&-; while ! test -e go; do sleep 0.05; done; exit 4']
    port: { replies: one }
    restart: no
",
    );
    wharf.wait_state("mute", "running");
    let row = until("the end of its output", || {
        let row = wharf.row("mute");
        (row["port"]["output_closed"] == true).then_some(row)
    });
    assert_eq!(row["state"], "running");
    assert_eq!(row["port"]["input_closed"], false, "only one half is closed");
    assert!(wharf.ok(&["status", "mute"]).contains("output closed"));
    // It costs nothing to wait for what never comes.
    let manager = wharf.manager_pid();
    let before = crate::loops::cpu(manager);
    let began = std::time::Instant::now();
    until("a while", || (began.elapsed() > std::time::Duration::from_millis(500)).then_some(()));
    assert!(crate::loops::cpu(manager) - before < 0.25, "a closed pipe is looked at once");
    wharf.ok(&["send", "mute", "it can still be told something"]);
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    let record = wharf.wait_records("mute", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 4, "{record}");
    assert_eq!(at(&record, "exit.reason"), "failed");
}

/// Writes each byte of its messages by itself; then, asked for it, what is none.
const PIECES: &str = r#"
import os, struct, sys
def drip(bytes):
    for byte in bytes:
        os.write(1, b"%c" % byte)
while True:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        sys.exit(0)
    said = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
    if said == b"long":
        drip(struct.pack(">I", 70000) + b"x")
    elif said == b"garbage":
        drip(b"\xff\xff\xff\xff" + b"garbage")
    elif said == b"half":
        drip(struct.pack(">I", 10) + b"abc")
        sys.exit(0)
    else:
        drip(struct.pack(">I", len(said)) + said)
"#;

#[test]
fn t34_frames_in_single_bytes_arrive_and_what_is_none_ends_the_run_by_the_policy() {
    let wharf = Wharf::new(
        "services:
  pieces:
    command: [python3, pieces.py]
    port: { framing: packet4, replies: one, max_frame: 64KiB }
    restart: { delay: 10ms, max_delay: 10ms }
",
    );
    std::fs::write(wharf.folder.join("pieces.py"), PIECES).unwrap();
    wharf.ok(&["up", "-d"]);
    for (ends, (bad, told, bytes)) in [
        ("long", "announces 70000 bytes, 65536 are allowed", "\\x00\\x01\\x11p"),
        ("garbage", "announces 4294967295 bytes", "\\xff\\xff\\xff\\xff"),
        ("half", "3 of 10 bytes of its body", "abc"),
    ]
    .into_iter()
    .enumerate()
    {
        wharf.wait_state("pieces", "running");
        let whole = "a message of more than one byte";
        assert_eq!(wharf.ok(&["call", "pieces", whole]), format!("{whole}\n"));
        let complaint = wharf.fails(1, &["call", "pieces", bad]);
        assert!(complaint.contains("protocol"), "{complaint}");
        let record = wharf.wait_records("pieces", ends + 1).pop().unwrap();
        assert_eq!(at(&record, "exit.reason"), "protocol_error", "{record}");
        let error = at(&record, "port.error").as_str().unwrap();
        assert!(error.contains(told), "{bad}: {error}");
        assert!(error.contains(bytes), "the bytes that are wrong: {error}");
        assert_eq!(at(&record, "restart.decision"), "restart", "{record}");
    }
    wharf.wait_state("pieces", "running");
}
