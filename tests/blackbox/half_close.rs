//! The end of a program's input, told by a client while the output goes on.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Wharf, at, text, until};

const YAML: &str = "defaults: { restart: no }
services:
  sort: { command: [sort, -n], port: { framing: lines } }
  numbers: { command: [sort, -n], port: { framing: lines, replies: one } }
  words: { command: [wc, -w], port: { framing: lines, replies: one } }
  bytes: { command: [wc, -c], port: { framing: raw } }
  gzip: { command: [gzip, -c], port: { framing: raw } }
  whole: { command: [sort], port: { framing: eof, replies: one } }
  bc: { command: [bc, -q], port: { replies: one } }
  ids: { command: [jq, -c, '{id, result: (.params | add)}'], port: { replies: { id: { pointer: /id } } } }
  marks: { command: [sqlite3, -batch, ':memory:'], port: { replies: { sentinel: { send: '.print {token}', expect: '{token}' } } } }
  failing: { command: [sh, -c, 'head -1; cat >/dev/null; exit 3'], port: { framing: lines } }
  plain: { command: [sleep, '1000'] }
  ignorant: { command: [sh, -c, 'cat >/dev/null; exec sleep 1000'], port: { framing: lines, replies: one } }
";

fn up(services: &[&str]) -> Wharf {
    let wharf = Wharf::up(YAML);
    for service in services {
        wharf.wait_state(service, "running");
    }
    wharf
}

fn completed(wharf: &Wharf, service: &str) -> Value {
    let record = wharf.wait_records(service, 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{service}: {record}");
    assert_eq!(at(&record, "exit.cause"), "spontaneous", "{service}: {record}");
    assert_eq!(at(&record, "port.unread_stdin_bytes"), 0, "{service}: {record}");
    record
}

#[test]
fn programs_that_answer_at_the_end_of_their_input_do_so() {
    let wharf = up(&["sort", "numbers", "words", "bytes", "gzip", "whole", "bc"]);
    for number in ["30", "4"] {
        wharf.ok(&["send", "sort", number]);
    }
    assert_eq!(wharf.ok(&["call", "sort", "--close", "10"]), "4\n10\n30\n");
    let record = completed(&wharf, "sort");
    assert_eq!(
        (at(&record, "port.frames_in"), at(&record, "port.frames_out")),
        (&3.into(), &3.into())
    );
    // Whatever the rule for replies: all that is said is the reply.
    assert_eq!(wharf.ok(&["call", "numbers", "3\n1\n2", "--close"]), "1\n2\n3\n");
    assert_eq!(wharf.ok(&["call", "words", "--close", "a bc d"]), "3\n");
    let large: Vec<u8> =
        (0..3_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let (status, told) = wharf.post("/v1/services/bytes/call?close=true", &large);
    assert_eq!((status, text(&told)), (200, format!("{}\n", large.len())));
    let (status, packed) = wharf.post("/v1/services/gzip/call?close=true", &large);
    assert_eq!(status, 200);
    assert!(unpacked(packed) == large, "3 MiB came back changed");
    assert_eq!(wharf.ok(&["call", "whole", "--close", "b\na\n"]), "a\nb\n");
    // Calls before it are answered as ever.
    assert_eq!(wharf.ok(&["call", "bc", "6*7"]), "42\n");
    assert_eq!(wharf.ok(&["call", "bc", "--close", "1\n2\n3"]), "1\n2\n3\n");
    for service in ["numbers", "words", "bytes", "gzip", "whole", "bc"] {
        completed(&wharf, service);
    }
}

fn unpacked(packed: Vec<u8>) -> Vec<u8> {
    let mut gunzip = Command::new("gzip");
    let gunzip = gunzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut gunzip = gunzip.spawn().unwrap();
    let mut input = gunzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&packed).unwrap());
    let output = gunzip.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn the_rest_is_the_reply_under_every_rule() {
    let wharf = up(&["ids", "marks"]);
    // jq holds its answers back until then. A message keeps its id, the others have theirs.
    wharf.ok(&["send", "ids", r#"{"id":7,"params":[1,2]}"#]);
    let told = wharf.ok(&["call", "ids", "--close", r#"{"id":"own","params":[3,4]}"#]);
    assert_eq!(told, "{\"id\":7,\"result\":3}\n{\"id\":\"own\",\"result\":7}\n");
    completed(&wharf, "ids");
    assert_eq!(wharf.ok(&["call", "marks", "select 1;"]), "1\n");
    assert_eq!(wharf.ok(&["call", "marks", "--close", "select 2; select 3;"]), "2\n3\n");
    completed(&wharf, "marks");
}

#[test]
fn an_input_is_closed_without_a_message_too() {
    let wharf = up(&["sort", "words", "bytes"]);
    wharf.ok(&["send", "sort", "2"]);
    wharf.ok(&["send", "sort", "--close", "1"]);
    completed(&wharf, "sort");
    wharf.ok(&["send", "words", "--close"]);
    let record = completed(&wharf, "words");
    assert_eq!(
        (at(&record, "port.frames_in"), at(&record, "port.frames_out")),
        (&0.into(), &1.into())
    );
    wharf.ok(&["send", "bytes", "abc"]);
    assert_eq!(wharf.ok(&["call", "bytes", "--close"]), "3\n");
    completed(&wharf, "bytes");
    // What was said after the close, and then the end.
    let events = wharf.ok(&["events", "--json", "--since", "1h"]);
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_sort: Vec<_> =
        events.iter().filter(|event| event["service"]["name"] == "sort").collect();
    let messages: Vec<_> =
        of_sort.iter().filter(|event| event["event"]["name"] == "port.message").collect();
    assert_eq!(messages.len(), 2, "{of_sort:?}");
}

#[test]
fn a_second_close_and_other_misuse_is_told_what_is_wrong() {
    let wharf = up(&["ignorant", "plain", "failing", "sort"]);
    assert_eq!(wharf.row("ignorant")["port"]["input_closed"], false);
    assert!(!wharf.ok(&["status", "ignorant"]).contains("input closed"));
    wharf.ok(&["send", "ignorant", "--close", "bye"]);
    assert_eq!(wharf.row("ignorant")["port"]["input_closed"], true);
    assert!(wharf.ok(&["status", "ignorant"]).contains(" queued, input closed"));
    for words in [
        &["send", "ignorant", "more"][..],
        &["send", "ignorant", "--close"],
        &["call", "ignorant", "more"],
        &["call", "ignorant", "--close", "more"],
        &["call", "ignorant", "--close"],
    ] {
        let told = wharf.fails(1, words);
        assert!(told.contains("the input of ignorant/1 is closed"), "{words:?}: {told}");
    }
    let (status, told) = wharf.post("/v1/services/ignorant/send?close=true", b"");
    assert_eq!(status, 409);
    assert!(text(&told).contains("\"code\":\"input_closed\""), "{}", text(&told));
    let (status, told) = wharf.post("/v1/services/ignorant/send?close=perhaps", b"");
    assert_eq!(status, 400, "{}", text(&told));
    for verb in ["send", "call"] {
        let told = wharf.fails(1, &[verb, "plain", "--close"]);
        assert!(told.contains("not a port"), "{told}");
        wharf.fails(4, &[verb, "nobody", "--close"]);
        wharf.fails(2, &[verb, "sort"]);
    }
    // A run that fails gives its reason, and not half an output.
    let told = wharf.fails(1, &["call", "failing", "--close", "one\ntwo"]);
    assert!(told.contains("code 3") && told.contains("maybe_read"), "{told}");
    let told = wharf.fails(1, &["call", "failing", "--close"]);
    assert!(told.contains("failing is"), "{told}");
    // One that does not end keeps its caller to the deadline, and still stops as usual.
    wharf.ok(&["stop", "ignorant"]);
    let record = wharf.wait_records("ignorant", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "stop_requested", "{record}");
    wharf.ok(&["start", "ignorant"]);
    wharf.fails(6, &["call", "ignorant", "--close", "one", "--timeout", "300ms"]);
    let told = wharf.fails(1, &["send", "ignorant", "more"]);
    assert!(told.contains("the input of ignorant/1 is closed"), "{told}");
    wharf.ok(&["stop", "sort"]);
}

#[test]
fn t35_the_last_message_waits_for_those_before_it() {
    let wharf = Wharf::up(
        "services:
  slow:
    command: [sh, -c, 'while read line; do while [ ! -e go ]; do sleep 0.01; done; echo \"$$line\"; done; echo end']
    port: { replies: one }
    restart: no
",
    );
    wharf.wait_state("slow", "running");
    let start = |words: &[&str], open: u64, queued: u64| {
        let mut call = wharf.command(words);
        let call = call.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let call = call.spawn().unwrap();
        until("it to wait", || {
            let port = &wharf.row("slow")["port"];
            (port["open"] == open && port["queued"] == queued).then_some(())
        });
        call
    };
    let first = start(&["call", "slow", "first"], 1, 0);
    let second = start(&["call", "slow", "second"], 1, 1);
    let last = start(&["call", "slow", "--close", "last"], 1, 2);
    // From here on nobody else gets in, unless the last caller gives up before it is written.
    let told = wharf.fails(1, &["call", "slow", "too late"]);
    assert!(told.contains("the input of slow/1 is closed"), "{told}");
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    for (call, said) in [(first, "first\n"), (second, "second\n"), (last, "last\nend\n")] {
        let output = call.wait_with_output().unwrap();
        assert_eq!(text(&output.stdout), said, "{}", text(&output.stderr));
    }
    let record = wharf.wait_records("slow", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
}

#[test]
fn who_gives_up_before_it_is_written_closes_nothing() {
    let wharf = Wharf::up(
        "services:
  slow:
    command: [sh, -c, 'while read line; do while [ ! -e go ]; do sleep 0.01; done; echo \"$$line\"; done; echo end']
    port: { replies: one }
    restart: no
",
    );
    wharf.wait_state("slow", "running");
    let mut call = wharf.command(&["call", "slow", "first"]);
    let call = call.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    until("it to be written", || (wharf.row("slow")["port"]["open"] == 1).then_some(()));
    wharf.fails(6, &["call", "slow", "--close", "last", "--timeout", "200ms"]);
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    assert_eq!(text(&call.wait_with_output().unwrap().stdout), "first\n");
    assert_eq!(wharf.ok(&["call", "slow", "still open"]), "still open\n");
    assert_eq!(wharf.ok(&["call", "slow", "--close"]), "end\n");
}
