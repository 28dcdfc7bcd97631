//! Every framing with a program that speaks it and that nobody here wrote, where there is one.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Wharf, at, text, until};

/// A call by the API, for messages that are no text. The reply is what came, to the byte.
#[track_caller]
fn call(wharf: &Wharf, service: &str, message: &[u8]) -> Vec<u8> {
    let (status, reply) = try_call(wharf, service, message);
    assert_eq!(status, 200, "{service}: {}\n{}", text(&reply), wharf.own_log());
    reply
}

fn try_call(wharf: &Wharf, service: &str, message: &[u8]) -> (u16, Vec<u8>) {
    let mut socket = wharf.connect().unwrap();
    let head = format!(
        "POST /v1/services/{service}/call HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        message.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(message).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let status = text(&answer[..12]).rsplit(' ').next().unwrap().parse().unwrap();
    (status, answer.split_off(body))
}

/// Waits until a program has said so many messages.
#[track_caller]
fn wait_said(wharf: &Wharf, service: &str, messages: u64) {
    until("the program to speak", || {
        let said = wharf.row(service)["port"]["frames_out"].as_u64();
        said.is_some_and(|said| said >= messages).then_some(())
    });
}

/// The reply to a call as soon as a run of the service is there to give it.
#[track_caller]
fn next(wharf: &Wharf, service: &str, message: &str) -> String {
    until("a run that answers", || {
        let said = wharf.run(&["call", service, message]);
        said.status.success().then(|| text(&said.stdout))
    })
}

fn git(folder: &std::path::Path, words: &[&str]) -> Vec<u8> {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(words);
    let output = command.current_dir(folder).env("GIT_PROTOCOL", "version=2").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    output.stdout
}

#[test]
fn every_framing_that_is_the_same_both_ways_passes_through_cat() {
    let framings: &[(&str, &[u8])] = &[
        ("netstring", b"he,llo\n"),
        ("pkt-line", b"hello\n"),
        ("content-length", b"he\r\n\r\nllo"),
        ("json", b"{ \"hello\":\n [1, null] }"),
        ("msgpack", b"\x92\xa5hello\xcd\x01\x00"),
        ("stanza", b"hello\nworld"),
    ];
    let mut yaml = "services:\n".to_owned();
    for (framing, _) in framings {
        let port = format!("{{ framing: {framing}, replies: one }}");
        let _ = writeln!(yaml, "  {framing}: {{ command: [cat], port: {port} }}");
    }
    let wharf = Wharf::up(&yaml);
    for (framing, message) in framings {
        wharf.wait_state(framing, "running");
        for _ in 0..3 {
            let reply = call(&wharf, framing, message);
            assert_eq!(reply, *message, "{framing}: {}", text(&reply));
        }
    }
    for (framing, message, complaint) in [
        ("json", "{\"a\":", "is no whole JSON value"),
        ("json", "hello", "has \"h\" at its byte 0 where a JSON value is due"),
        ("msgpack", "hello", "has more than one MessagePack value"),
        ("stanza", "two\n\nof them", "an empty line in it (at byte 4)"),
    ] {
        let told = wharf.fails(1, &["call", framing, message]);
        assert!(told.contains(complaint), "{told}");
        let (_, good) = framings.iter().find(|one| one.0 == framing).unwrap();
        assert_eq!(call(&wharf, framing, good), *good, "the port is unharmed");
    }
}

#[test]
fn t36_what_is_not_the_framing_ends_the_run_and_is_shown() {
    let said = [
        (
            "netstring",
            "1:a,Error: no such file",
            "at byte 4 of its output has \"E\" where a digit of its length is due; it begins with \"Error: no",
        ),
        (
            "pkt-line",
            "0006hifatal: no",
            "at byte 6 of its output has \"t\" where a hexadecimal digit",
        ),
        ("content-length", "listening on 80\\n", "has \"listening on 80\" where a header such as"),
        (
            "json",
            "{} {\"a\" 1}",
            "at byte 3 of its output has \"1\" at its byte 5 where a colon is due; it begins with \"{\\\"a\\\" 1",
        ),
        ("msgpack", "\\001\\301", "at byte 1 of its output has the byte c1"),
    ];
    let mut yaml = "services:\n".to_owned();
    for (framing, output, _) in &said {
        let output = output.replace('\\', "\\\\").replace('"', "\\\"");
        let program = format!("[sh, -c, \"printf '{output}'; exec sleep 1000\"]");
        // Where stray text can be told, it would be borne.
        let _ = writeln!(
            yaml,
            "  {framing}: {{ command: {program}, port: {{ framing: {framing}, stray: kill }}, restart: no }}"
        );
    }
    let wharf = Wharf::up(&yaml);
    for (framing, _, told) in &said {
        let record = wharf.wait_records(framing, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "protocol_error", "{record}");
        let error = at(&record, "port.error").as_str().unwrap();
        assert!(error.contains(told), "{framing}: {error}");
    }
}

#[test]
fn jq_speaks_json() {
    let wharf = Wharf::up(
        "services:
  add: { command: [jq, --unbuffered, -c, .a+1], port: { framing: json, replies: one } }
  pretty: { command: [jq, --unbuffered, .], port: { framing: json, replies: one } }
",
    );
    wharf.wait_state("add", "running");
    wharf.wait_state("pretty", "running");
    assert_eq!(wharf.ok(&["call", "add", "{\"a\": 41}"]), "42\n");
    assert_eq!(wharf.ok(&["call", "add", "{\n  \"a\":\n  -1.5\n}\n"]), "-0.5\n");
    let told = wharf.ok(&["call", "pretty", "{\"a\":[1,{\"b\":null}]}"]);
    assert_eq!(told, "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ]\n}\n");
}

#[test]
fn git_speaks_pkt_line() {
    let wharf = Wharf::new(
        "services:
  refs:
    command: [git, upload-pack, .]
    environment: { GIT_PROTOCOL: version=2 }
    port: { framing: pkt-line, replies: { until: '^0000$' }, quit: '0000' }
",
    );
    git(&wharf.folder, &["init", "-q", "-b", "trunk"]);
    git(&wharf.folder, &["commit", "-q", "--allow-empty", "-m", "first"]);
    let head = text(&git(&wharf.folder, &["rev-parse", "HEAD"]));
    // What it says before it is asked: its version, what it can, and a flush.
    let mut said = &git(&wharf.folder, &["upload-pack", "--http-backend-info-refs", "."])[..];
    let mut packets = 0;
    while let Some(digits) = said.get(..4) {
        let length = usize::from_str_radix(&text(digits), 16).unwrap();
        said = &said[length.max(4)..];
        packets += 1;
    }
    wharf.ok(&["up", "-d"]);
    wait_said(&wharf, "refs", packets);
    let refs = |request: &str| text(&call(&wharf, "refs", request.as_bytes()));
    let both = format!("{0} HEAD\n\n{0} refs/heads/trunk\n\n0000", head.trim());
    assert_eq!(refs("0014command=ls-refs\n0000"), both);
    // A delimiter before its arguments.
    let one = format!("{} refs/heads/trunk\n\n0000", head.trim());
    assert_eq!(refs("0014command=ls-refs\n0001001aref-prefix refs/heads/0000"), one);
    // The same in messages of one packet each.
    wharf.ok(&["send", "refs", "command=ls-refs\n"]);
    assert_eq!(refs("0000"), both);
    wharf.ok(&["stop", "refs"]);
    let record = wharf.records_of("refs").remove(0);
    assert_eq!(at(&record, "process.exit.code"), 0, "{record}");
    assert_eq!(at(&record, "exit.stop.steps")[0]["step"], "quit");
}

#[test]
fn a_language_server_speaks_content_length() {
    let wharf = Wharf::up(
        "services:
  pylsp: { command: [pylsp], port: { framing: content-length, replies: one, quit: '{\"jsonrpc\":\"2.0\",\"method\":\"exit\"}' } }
",
    );
    wharf.wait_state("pylsp", "running");
    let ask = |id: u32, method: &str, params: &str| -> serde_json::Value {
        let message =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        serde_json::from_slice(&call(&wharf, "pylsp", message.as_bytes())).unwrap()
    };
    let told = ask(1, "initialize", r#"{"processId":null,"rootUri":null,"capabilities":{}}"#);
    assert_eq!(told["id"], 1, "{told}");
    assert!(told["result"]["capabilities"].is_object(), "{told}");
    let told = ask(2, "no/such/method", "{}");
    assert_eq!((&told["id"], told["error"]["code"].as_i64()), (&2.into(), Some(-32601)), "{told}");
    let told = ask(3, "shutdown", "null");
    assert_eq!((&told["id"], &told["result"]), (&3.into(), &serde_json::Value::Null), "{told}");
    wharf.ok(&["stop", "pylsp"]);
    let record = wharf.records_of("pylsp").remove(0);
    assert_eq!(at(&record, "process.exit.code"), 0, "{record}");
}

#[test]
fn neovim_speaks_msgpack() {
    let wharf = Wharf::up(
        "services:
  nvim:
    command: [nvim, --headless, --embed, -u, NONE, -i, NONE, -n]
    port: { framing: msgpack, replies: one }
",
    );
    wharf.wait_state("nvim", "running");
    // [0, 1, "nvim_eval", ["6*7"]] and its reply [1, 1, nil, 42]
    let reply = call(&wharf, "nvim", b"\x94\x00\x01\xa9nvim_eval\x91\xa36*7");
    assert_eq!(reply, b"\x94\x01\x01\xc0\x2a", "{}", reply.escape_ascii());
    let reply = call(&wharf, "nvim", b"\x94\x00\x02\xa9nvim_eval\x91\xaerepeat('x', 5)");
    assert_eq!(reply, b"\x94\x01\x02\xc0\xa5xxxxx", "{}", reply.escape_ascii());
    // An error, and then a reply of many kilobytes.
    let reply = call(&wharf, "nvim", b"\x94\x00\x03\xa9nvim_eval\x91\xa3nix");
    assert!(reply.starts_with(b"\x94\x01\x03\x92\x00"), "{}", reply.escape_ascii());
    let reply = call(&wharf, "nvim", b"\x94\x00\x04\xb1nvim_get_api_info\x90");
    assert!(reply.starts_with(b"\x94\x01\x04\xc0\x92") && reply.len() > 10_000);
}

#[test]
fn apt_speaks_in_stanzas() {
    let wharf = Wharf::new(
        "services:
  file:
    command: [/usr/lib/apt/methods/file]
    port: { framing: stanza, replies: { until: '^(201|400) ' } }
",
    );
    // For root it becomes another user first. It removes what stands at `Filename`.
    std::fs::set_permissions(&wharf.folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    wharf.ok(&["up", "-d"]);
    wait_said(&wharf, "file", 1);
    let ask = |name: &str| {
        let folder = wharf.folder.display();
        let (from, to) = (format!("URI: file:{folder}/{name}"), format!("Filename: {folder}/to"));
        wharf.ok(&["call", "file", &format!("600 URI Acquire\n{from}\n{to}")])
    };
    let told = ask("services.yaml");
    assert!(told.contains("201 URI Done\n"), "{told}");
    let size = std::fs::metadata(wharf.folder.join("services.yaml")).unwrap().len();
    assert!(told.contains(&format!("Size: {size}\n")), "{told}");
    let told = ask("no.such");
    assert!(told.contains("400 URI Failure\nMessage: File not found"), "{told}");
    let told = wharf.fails(1, &["call", "file", "600 URI Acquire\n\nURI: file:/x"]);
    assert!(told.contains("an empty line in it (at byte 16)"), "{told}");
}

#[test]
fn programs_with_a_prompt_are_spoken_to_as_people_do() {
    let wharf = Wharf::up(
        "services:
  ed: { command: [ed, -p, '* '], port: { framing: { prompt: '^\\* $$' }, replies: one } }
  sqlite: { command: [sqlite3, -interactive, ':memory:'], port: { framing: { prompt: '^sqlite> $$' }, replies: one } }
",
    );
    wait_said(&wharf, "ed", 1);
    wait_said(&wharf, "sqlite", 1);
    assert_eq!(wharf.ok(&["call", "ed", "a\nfirst\nsecond\n."]), "\n", "it asks for more at once");
    assert_eq!(wharf.ok(&["call", "ed", ",p"]), "first\nsecond\n");
    assert_eq!(wharf.ok(&["call", "ed", "x"]), "?\n");
    assert_eq!(wharf.ok(&["call", "ed", "2p"]), "second\n");
    // It may repeat what it is told before it answers.
    let told = wharf.ok(&["call", "sqlite", "select 6*7, 'a > b';"]);
    assert_eq!(told.lines().last(), Some("42|a > b"), "{told}");
    let told = wharf.ok(&["call", "sqlite", "select count(*) from sqlite_master;"]);
    assert_eq!(told.lines().last(), Some("0"), "{told}");
}

#[test]
fn a_program_that_answers_at_the_end_is_called() {
    let wharf = Wharf::up(
        "services:
  sort: { command: [sort, -n], port: { framing: eof, replies: one }, restart: no }
  count: { command: [wc, -c], port: { framing: eof, replies: one }, restart: no }
  gzip: { command: [gzip, -c], port: { framing: eof, replies: one }, restart: no }
  back: { command: [cat], port: { framing: eof, replies: one }, restart: no }
  find: { command: [grep, x], port: { framing: eof, replies: one }, restart: { policy: 'no', success_exit_codes: [0, 1] } }
",
    );
    for service in ["sort", "count", "gzip", "back", "find"] {
        wharf.wait_state(service, "running");
    }
    wharf.ok(&["send", "sort", "30\n"]);
    assert_eq!(wharf.ok(&["call", "sort", "10\n9\n"]), "9\n10\n30\n");
    assert_eq!(call(&wharf, "count", b""), b"0\n");
    assert_eq!(wharf.ok(&["call", "find", "a\nb\n"]), "\n");
    let large: Vec<u8> =
        (0..4_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    assert!(call(&wharf, "back", &large) == large, "4 MiB came back changed");
    let small = call(&wharf, "gzip", &large[..100_000]);
    let mut gunzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gunzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&small).unwrap());
    let output = gunzip.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success() && output.stdout == large[..100_000]);
    for service in ["sort", "count", "gzip", "back", "find"] {
        wharf.wait_state(service, "finished");
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
        assert_eq!(at(&record, "exit.cause"), "spontaneous", "{record}");
        assert_eq!(at(&record, "port.frames_out"), 1);
    }
}

#[test]
fn a_run_that_fails_gives_its_reason_and_not_half_an_output() {
    let wharf = Wharf::up(
        "services:
  half: { command: [sh, -c, 'head -1; exit 3'], port: { framing: eof, replies: one }, restart: no }
  slow: { command: [sh, -c, 'cat; exec sleep 1000'], port: { framing: eof, replies: one, timeout: 300ms }, restart: no }
",
    );
    wharf.wait_state("half", "running");
    let told = wharf.fails(1, &["call", "half", "one\ntwo\n"]);
    assert!(told.contains("code 3") && told.contains("maybe_read"), "{told}");
    // One that does not end keeps its call to the deadline, and takes no other.
    wharf.wait_state("slow", "running");
    wharf.fails(6, &["call", "slow", "one"]);
    let (status, told) = try_call(&wharf, "slow", b"two");
    assert_eq!(status, 503, "{}", text(&told));
    assert!(text(&told).contains("\"code\":\"taken\""), "{}", text(&told));
}

#[test]
fn the_restart_policy_brings_the_next_run_for_the_next_call() {
    let wharf = Wharf::up(
        "services:
  sort:
    command: [sort]
    port: { framing: eof, replies: one }
    restart: { policy: always, delay: 10ms, factor: 1, max_restarts: 1000, within: 1s }
",
    );
    for number in 0..crate::support::times(200) {
        assert_eq!(next(&wharf, "sort", &format!("{number}\n!\n")), format!("!\n{number}\n"));
    }
    // A replica that has its call is not asked again while another one is free.
    let wharf = Wharf::up(
        "services:
  held:
    command: [sh, -c, 'cat; while [ ! -e go ]; do sleep 0.01; done']
    replicas: 2
    port: { framing: eof, replies: one }
    restart: no
",
    );
    until("both replicas", || {
        (wharf.ps().iter().filter(|row| row["state"] == "running").count() == 2).then_some(())
    });
    let calls: Vec<_> = ["a", "b"]
        .map(|message| {
            let mut call = wharf.command(&["call", "held", message]);
            let call = call.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let taken = || {
                let read = wharf.ps().iter().filter(|row| row["port"]["frames_in"] == 1).count();
                (read >= if message == "a" { 1 } else { 2 }).then_some(())
            };
            until("the call to be written", taken);
            (message, call)
        })
        .into();
    assert_eq!(try_call(&wharf, "held", b"c").0, 503);
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    for (message, call) in calls {
        assert_eq!(text(&call.wait_with_output().unwrap().stdout), format!("{message}\n"));
    }
}

#[test]
fn netstrings_of_a_program_of_another_language() {
    // No package of Debian has a program that speaks them over its standard output for long.
    let wharf = Wharf::new(
        "services:
  upper: { command: [python3, upper.py], port: { framing: netstring, replies: one } }
",
    );
    let program = "import sys
read, out = sys.stdin.buffer.read, sys.stdout.buffer
while first := read(1):
    digits = first
    while (byte := read(1)) != b':':
        digits += byte
    text = read(int(digits)).upper()
    assert read(1) == b','
    for byte in b'%d:%s,' % (len(text), text):
        out.write(bytes([byte]))
        out.flush()
";
    std::fs::write(wharf.folder.join("upper.py"), program).unwrap();
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("upper", "running");
    assert_eq!(wharf.ok(&["call", "upper", "he,llo:\n"]), "HE,LLO:\n");
    assert_eq!(call(&wharf, "upper", b""), b"");
}
