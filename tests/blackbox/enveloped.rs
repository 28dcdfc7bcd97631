//! Programs that speak wire protocol 1, made with the SDKs: shared by many callers, ready when they say
//! so, drained before they are stopped, and refused by name where they break the protocol.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use serde_json::Value;

use crate::support::{Wharf, at, script, times, until};

fn sdk(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk").join(path).to_str().unwrap().to_owned()
}

fn adder() -> String {
    let adder = sdk("python/examples/adder.py");
    format!("services: {{ adder: {{ command: [python3, {adder}], port: {{ protocol: 1 }} }} }}")
}

fn evidence(record: &Value) -> String {
    at(record, "exit.evidence").to_string()
}

#[test]
fn programs_of_every_sdk_are_called_alike() {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-c-wharf");
    let mut make = Command::new("make");
    make.args(["--silent", "all"]).arg(format!("BUILD={}", build.display()));
    assert!(make.current_dir(sdk("c")).status().unwrap().success());
    let (adder, words) = (sdk("python/examples/adder.py"), sdk("node/examples/words.js"));
    let (upper, greeter) = (build.join("upper"), sdk("shell/examples/greeter.sh"));
    let wharf = Wharf::up(&format!(
        "services:
  adder: {{ command: [python3, {adder}], port: {{ protocol: 1 }} }}
  words: {{ command: [node, {words}], port: {{ protocol: 1 }} }}
  upper: {{ command: [{}], port: {{ protocol: 1 }} }}
  greeter: {{ command: [sh, {greeter}], port: {{ protocol: 1 }} }}
",
        upper.display()
    ));
    for (service, message, reply) in [
        ("adder", r#"{"op":"add","args":[1,2,39]}"#, "42"),
        ("words", "three small words", r#"{"words":3,"bytes":17}"#),
        ("upper", "grüße", "GRüßE"),
        ("greeter", "\"ada\"\n\\ 👋", "good day, \"ada\"\n\\ 👋"),
    ] {
        wharf.wait_state(service, "running");
        assert_eq!(wharf.ok(&["call", "--raw", service, message]), reply);
        wharf.ok(&["send", service, "nobody answers"]);
        let told = wharf.fails(1, &["call", service, if service == "adder" { "x" } else { "" }]);
        assert!(told.contains("the program says bad_request: "), "{told}");
        wharf.ok(&["stop", service]);
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
        assert!(evidence(&record).contains("its EXIT said: returned"), "{record}");
        assert_eq!(record["exit"]["stop"]["steps"][0]["step"], "quit", "{record}");
        assert_eq!(at(&record, "port.framing"), "protocol-1");
    }
}

#[test]
fn many_callers_share_one_program_and_none_gets_the_reply_of_another() {
    let wharf = Arc::new(Wharf::up(&adder()));
    wharf.wait_state("adder", "running");
    let pid = wharf.ok(&["call", "adder", r#"{"op":"pid"}"#]);
    let callers = (1..=8).map(|caller| {
        let wharf = Arc::clone(&wharf);
        thread::spawn(move || {
            for number in 0..times(2000) {
                let sum = format!("{{\"op\":\"add\",\"args\":[{caller}000000,{number}]}}");
                let path = "/v1/services/adder/call";
                let (status, reply) = wharf.http("POST", path, sum.as_bytes()).unwrap();
                assert_eq!((status, reply), (200, (caller * 1_000_000 + number).to_string()));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.join().unwrap();
    }
    assert_eq!(wharf.ok(&["call", "adder", r#"{"op":"pid"}"#]), pid, "it was one program");
    let parts = wharf.ok(&["call", "adder", r#"{"op":"count","to":3}"#]);
    let parts: BTreeSet<_> = parts.split_whitespace().collect();
    assert_eq!(parts, BTreeSet::from(["1", "2", "3"]));
}

#[test]
fn log_frames_go_to_the_log_and_data_to_whoever_listens() {
    let wharf = Wharf::up(&adder());
    wharf.wait_state("adder", "running");
    wharf.ok(&["call", "adder", r#"{"op":"say","words":"good day"}"#]);
    until("the message among the events", || {
        let events = wharf.ok(&["-v", "events", "--json"]);
        events.lines().any(|event| event.contains("good day")).then_some(())
    });
    until("the line in its log", || {
        let logs = wharf.logs("adder");
        logs.contains("info: asked to say something {\"words\":\"good day\"}").then_some(())
    });
}

#[test]
fn over_descriptor_3_standard_output_is_a_log() {
    let wharf = Wharf::new(
        "services: { chatty: { command: ./chatty, port: { protocol: 1, channel: fd3 } } }",
    );
    let library = sdk("python");
    let program = format!(
        "#!/usr/bin/env python3\nimport sys\nsys.path.insert(0, '{library}')\nfrom wharf_port import Port\n\
         print('loading', flush=True)\nport = Port('chatty', enc='text')\n\
         @port.call\ndef answer(text, call):\n    print('asked', text, flush=True)\n    return text * 2\nport.run()\n"
    );
    script(&wharf.folder, "chatty", &program);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("chatty", "running");
    assert_eq!(wharf.ok(&["call", "--raw", "chatty", "ab"]), "abab");
    until("both lines in its log", || {
        let logs = wharf.logs("chatty");
        (logs.contains("loading") && logs.contains("asked ab")).then_some(())
    });
    wharf.ok(&["stop", "chatty"]);
    let record = wharf.wait_records("chatty", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
    assert!(evidence(&record).contains("its EXIT said: returned"), "{record}");
}

#[test]
fn a_start_without_hello_fails_by_name() {
    let wharf = Wharf::up(
        "services:
  mute:
    command: [sleep, infinity]
    start_timeout: 300ms
    restart: no
    port: { protocol: 1, eof: ignored }
",
    );
    let record = wharf.wait_records("mute", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "ready_timeout", "{record}");
    assert!(evidence(&record).contains("HELLO of wire protocol 1 was waited for"), "{record}");
}

/// A program for a shell that says these lines, and then what it is told to do.
fn lines(wharf: &Wharf, name: &str, lines: &[&str], then: &str) {
    let said: Vec<_> = lines.iter().map(|line| format!("echo '{line}'\n")).collect();
    let said = said.concat();
    script(&wharf.folder, name, &format!("#!/bin/sh\n{said}{then}\n"));
}

const HELLO: &str = r#"{"k":"hello","id":0,"p":{"proto":1}}"#;
const READY: &str = r#"{"k":"ready","id":0,"p":{}}"#;

#[test]
fn a_program_that_says_why_it_never_will_be_ready_is_believed() {
    let wharf =
        Wharf::new("services: { one: { command: ./one, restart: no, port: { protocol: 1 } } }");
    let failed = r#"{"k":"ready","id":0,"p":{"failed":"no licence"}}"#;
    lines(&wharf, "one", &[HELLO, failed], "cat >/dev/null; exit 3");
    wharf.ok(&["up", "-d"]);
    let record = wharf.wait_records("one", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 3, "{record}");
    assert!(evidence(&record).contains("never will be ready: no licence"), "{record}");
}

#[test]
fn what_is_no_frame_is_a_protocol_error_with_its_place_and_bytes() {
    let cases = [
        (
            "length",
            r"printf '\377\377\377\377'",
            "at byte 0",
            r"\xff\xff\xff\xff",
            "announces 4294967285",
        ),
        (
            "second",
            &format!("echo '{HELLO}{HELLO}' | sed 's/}}{{/}}\\n{{/'"),
            "at byte 37",
            "hello",
            "second HELLO",
        ),
        ("first", &format!("echo '{READY}'"), "at byte 0", "ready", "HELLO is due"),
        ("version", r#"echo '{"k":"hello","p":{"proto":2}}'"#, "at byte 0", "proto", "version 2"),
    ];
    for (name, says, place, bytes, why) in cases {
        let wharf =
            Wharf::new("services: { bad: { command: ./bad, restart: no, port: { protocol: 1 } } }");
        lines(&wharf, "bad", &[], &format!("{says}\nsleep 1000"));
        wharf.ok(&["up", "-d"]);
        let record = wharf.wait_records("bad", 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "protocol_error", "{name}: {record}");
        let error = at(&record, "port.error").as_str().unwrap();
        for part in [place, bytes, why] {
            assert!(error.contains(part), "{name}: {error:?} without {part:?}");
        }
    }
}

#[test]
fn stray_lines_go_to_the_log_and_calls_go_on() {
    let wharf = Wharf::new("services: { chatty: { command: ./chatty, port: { protocol: 1 } } }");
    let library = sdk("shell/wharf-port.sh");
    let program = format!(
        "#!/bin/sh\necho 'Loading the model...'\n. {library}\n\
         on_call() {{ echo 'a word too many' >&3; port_reply \"$1\" \"$2$2\"; }}\nport_run chatty 1\n"
    );
    script(&wharf.folder, "chatty", &program);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("chatty", "running");
    assert_eq!(wharf.ok(&["call", "--raw", "chatty", "ab"]), "abab");
    assert_eq!(wharf.ok(&["call", "--raw", "chatty", "{}"]), "{}{}");
    until("both lines in its log", || {
        let logs = wharf.logs("chatty");
        (logs.contains("Loading the model...") && logs.contains("a word too many")).then_some(())
    });
}

#[test]
fn kinds_that_wait_for_native_processes_are_refused_by_name() {
    let wharf = Wharf::new("services: { asks: { command: ./asks, port: { protocol: 1 } } }");
    let spawn = r#"{"k":"spawn","id":6,"p":{"command":["true"]}}"#;
    let monitor = r#"{"k":"monitor","id":4,"p":{"target":{"name":"web"}}}"#;
    lines(&wharf, "asks", &[HELLO, READY, spawn, monitor], "exec cat >heard");
    wharf.ok(&["up", "-d"]);
    for (id, kind) in [(6, "SPAWN"), (4, "MONITOR")] {
        let answer = format!(
            "{{\"k\":\"error\",\"id\":{id},\"p\":{{\"code\":\"not_supported\",\"message\":\"{kind} is not supported yet\",\"retry\":\"never\"}}}}\n"
        );
        until("the refusal", || wharf.read("heard").contains(&answer).then_some(()));
    }
}
