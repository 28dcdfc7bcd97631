//! The stream of events over a real socket: each once, whoever was away, slow, or asks nonsense.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use wharf::manager::{SkipReason, What, event_schema};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName};

use crate::api::{PATIENCE, connect, get, read_answer, read_until};
use crate::fake::{self, Fake};

/// A client of the stream that takes it apart by the standard's rules.
struct Listener {
    stream: BufReader<UnixStream>,
    /// The id of the last event, as a browser keeps it.
    id: String,
}

impl Listener {
    fn new(fake: &Fake, query: &str, last: Option<&str>) -> Self {
        let mut stream = connect(fake);
        let header = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET /v1/events{query} HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut listener = Self { stream: BufReader::new(stream), id: String::new() };
        while listener.line() != ": listening" {}
        while !listener.line().is_empty() {}
        listener
    }

    /// The next line of the body, chunks' sizes and their ends left out.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the stream ended");
            let text = line.strip_suffix('\n').unwrap();
            if let Some(id) = text.strip_prefix("id: ") {
                id.clone_into(&mut self.id);
            }
            if !text.ends_with('\r') {
                return text.to_owned();
            }
        }
    }

    /// The next event: its kind and its JSON, in which its id stands too.
    fn next(&mut self) -> Value {
        let mut kind = String::new();
        loop {
            let line = self.line();
            if let Some(word) = line.strip_prefix("event: ") {
                word.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(
                    (data["kind"].as_str(), data["id"].as_str()),
                    (Some(&*kind), Some(&*self.id))
                );
                return data;
            }
        }
    }

    /// Short words for the next events.
    fn next_words(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| word(&self.next())).collect()
    }
}

fn word(event: &Value) -> String {
    match event["kind"].as_str().unwrap() {
        "exit" => format!("exit {}", event["seq"]),
        "message" => event["message"]["text"].as_str().unwrap().to_owned(),
        "gap" => format!("gap {}", event["gap"]["reason"].as_str().unwrap()),
        other => other.to_owned(),
    }
}

/// The words of everything that is told of the past.
fn past(fake: &Fake, query: &str) -> Vec<String> {
    let answer = get(fake, &format!("/v1/events{query}follow=false"));
    assert_eq!(answer.status, 200, "{query}: {}", String::from_utf8_lossy(&answer.body));
    let text = String::from_utf8(answer.body).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| word(&serde_json::from_str(data).unwrap())).collect()
}

fn journal(fake: &Fake, seqs: impl IntoIterator<Item = u64>) {
    let line = |seq| fake::exit_line(seq, if seq % 2 == 0 { "web" } else { "db" }, "failed");
    fake::write_journal(&fake.state.state, &seqs.into_iter().map(line).collect::<Vec<_>>());
}

/// Three exits with two messages between them.
fn some() -> Fake {
    let fake = fake::start();
    journal(&fake, 1..=3);
    fake.told.publish(fake::exit(1, "db"));
    fake.told.publish(fake::message("one"));
    fake.told.publish(fake::exit(2, "web"));
    fake.told.publish(fake::message("two"));
    fake.told.publish(fake::exit(3, "db"));
    fake
}

const ALL: [&str; 5] = ["exit 1", "one", "exit 2", "two", "exit 3"];

#[test]
fn what_was_comes_in_its_order_and_what_comes_follows() {
    let fake = some();
    let mut listener = Listener::new(&fake, "?since=0", None);
    assert_eq!(listener.next_words(5), ALL);
    fake.told.publish(fake::message("three"));
    journal(&fake, 1..=4);
    fake.told.publish(fake::exit(4, "web"));
    assert_eq!(listener.next_words(2), ["three", "exit 4"]);

    // Without a place it begins now, and a client that comes back misses nothing.
    let listener = Listener::new(&fake, "", None);
    let id = listener.id.clone();
    drop(listener);
    fake.told.publish(fake::message("four"));
    let mut listener = Listener::new(&fake, "", Some(&id));
    assert_eq!(listener.next_words(1), ["four"]);
}

#[test]
fn from_every_place_on_each_event_comes_once() {
    let fake = some();
    let mut listener = Listener::new(&fake, "?since=0", None);
    let ids: Vec<String> =
        (0..5).map(|_| listener.next()["id"].as_str().unwrap().to_owned()).collect();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(past(&fake, &format!("?since={id}&")), ALL[at + 1..], "{id}");
        // The header counts where both are given: the address is that of the first time.
        let mut listener = Listener::new(&fake, "?since=0", Some(id));
        assert_eq!(listener.next_words(ALL.len() - at - 1), ALL[at + 1..]);
    }
}

#[test]
fn what_is_wanted_comes_and_nothing_else() {
    let fake = some();
    for (query, told) in [
        ("?since=0&kind=exit&", &["exit 1", "exit 2", "exit 3"][..]),
        ("?since=0&kind=message&", &["one", "two"]),
        ("?since=0&service=web&", &["one", "exit 2", "two"]),
        ("?since=0&service=web%2F2&", &[]),
        ("?since=0&service=web%2F1,db&kind=exit,message&", &ALL),
        ("?since=0&kind=exit&service=db&", &["exit 1", "exit 3"]),
        ("?since=2&", &["two", "exit 3"]),
        ("?since=3&kind=exit&", &[]),
        ("?since=2026-11-22T07:31:02Z&kind=exit&", &["exit 2", "exit 3"]),
        ("?", &[]),
    ] {
        assert_eq!(past(&fake, query), told, "{query}");
    }
}

#[test]
fn what_can_no_longer_be_told_is_named() {
    let fake = some();
    let realm = "0000000000000007";
    for (since, gap) in [
        (format!("2.0.9.{realm}"), "gap manager_ended"),
        (format!("99.1.2.{realm}"), "gap elsewhere_or_wiped"),
        (format!("2.2.0.{realm}"), "gap elsewhere_or_wiped"),
        ("2.1.1.00000000000000ff".to_owned(), "gap elsewhere_or_wiped"),
        ("99".to_owned(), "gap elsewhere_or_wiped"),
    ] {
        let told = past(&fake, &format!("?since={since}&"));
        assert_eq!(told.first().map(String::as_str), Some(gap), "{since}");
        assert_eq!(told.last().map(String::as_str), Some("exit 3"), "{since}");
    }
    // The journal's older files are gone, and a line in the middle.
    journal(&fake, [2]);
    assert_eq!(
        past(&fake, "?since=0&kind=exit&"),
        ["gap not_in_journal", "exit 2", "gap not_in_journal"]
    );
    let answer = get(&fake, "/v1/events?since=0&kind=exit&follow=false");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        text.contains(r#""gap":{"what":"exits","reason":"not_in_journal","after":0,"before":2}"#),
        "{text}"
    );
    // Who wants no exits misses none.
    assert_eq!(past(&fake, "?since=0&kind=message&"), ["one", "two"]);
}

#[test]
fn a_slow_reader_is_told_all_exits_and_what_of_the_rest_was_too_much() {
    let fake = fake::start();
    let mut listener = Listener::new(&fake, "", None);
    // Far more than socket, connection and subscription hold, while nobody reads.
    let filler = "x".repeat(4 << 10);
    let count = 4000;
    journal(&fake, 1..=count);
    for seq in 1..=count {
        fake.told.publish(fake::exit(seq, "web"));
        fake.told.publish(fake::message(&filler));
    }
    fake.told.publish(fake::message("the last one"));
    let (mut exits, mut gaps, mut last) = (0, 0, 0);
    loop {
        let event = listener.next();
        match word(&event).as_str() {
            "the last one" => break,
            "gap overrun" => {
                gaps += 1;
                assert_eq!(event["gap"]["what"], "messages");
                assert!(event["gap"]["after"].as_u64() >= Some(last), "{event}");
            }
            word if word.starts_with("exit ") => {
                exits += 1;
                assert_eq!(event["seq"], exits, "in order, each once");
            }
            _ => last += 1,
        }
    }
    assert_eq!(exits, count);
    assert!(gaps > 0 && last < count);
}

/// Clients that read nothing, or hang up in the middle, are nobody's business but their own.
#[test]
fn who_does_not_read_holds_up_nobody_and_takes_bounded_memory() {
    let fake = fake::start();
    let mut deaf: Vec<_> = (0..100).map(|_| Listener::new(&fake, "", None)).collect();
    let mut good = Listener::new(&fake, "?kind=exit", None);
    let filler = "x".repeat(4 << 10);
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut early = 0;
    for seq in 1..=4000 {
        journal_grows(&fake, seq);
        fake.told.publish(fake::exit(seq, "web"));
        fake.told.publish(fake::message(&filler));
        assert_eq!(good.next()["seq"], seq);
        if seq % 40 == 0 {
            deaf.pop();
        }
        if seq == 1000 {
            early = resident();
        }
    }
    // 3,000 further messages of 4 KiB for each of at most 75 clients would be 900 MiB.
    let more = resident().saturating_sub(early) >> 10;
    assert!(more < 64, "{more} MiB");
    assert_eq!(get(&fake, "/v1/manager").status, 200);
}

fn journal_grows(fake: &Fake, seq: u64) {
    let path = fake.state.state.join("exits.jsonl");
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    writeln!(file, "{}", fake::exit_line(seq, "web", "failed")).unwrap();
}

#[test]
fn places_for_subscribers_are_bounded_and_free_again() {
    let fake = fake::start();
    let mut all: Vec<_> = (0..128).map(|_| Listener::new(&fake, "", None)).collect();
    let (status, code, _) = get(&fake, "/v1/events").error();
    assert_eq!((status, code.as_str()), (503, "busy"));
    all.pop();
    // Its hanging up is noticed without anything being told.
    let start = wharf::os::clock::now();
    loop {
        let mut stream = connect(&fake);
        stream
            .write_all(b"HEAD /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        if read_answer(stream).status == 200 {
            break;
        }
        assert!(wharf::os::clock::now().since(start) < PATIENCE);
    }
}

#[test]
fn nonsense_is_refused() {
    let fake = fake::start();
    for (query, word) in [
        ("since=someday", "since"),
        ("since=1.2.3", "since"),
        ("since=", "since"),
        ("kind=", "kind"),
        ("since=99999999999999999999", "since"),
        ("service=we%20b", "service"),
        ("service=web,", "service"),
        ("kind=explosion", "kind"),
        ("kind=exit,,start", "kind"),
        ("follow=perhaps", "follow"),
        ("fellow=true", "fellow"),
        ("kind=exit&kind=start", "kind"),
    ] {
        let (status, code, error) = get(&fake, &format!("/v1/events?{query}")).error();
        assert_eq!((status, code.as_str()), (400, "bad_query"), "{query}");
        assert!(error.contains(word), "{query}: {error}");
    }
    let mut stream = connect(&fake);
    stream
        .write_all(
            b"GET /v1/events HTTP/1.1\r\nhost: x\r\nlast-event-id: 7\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
    let (status, code, _) = read_answer(stream).error();
    assert_eq!((status, code.as_str()), (400, "bad_header"));
}

#[test]
fn the_last_word_is_heard_before_the_end() {
    let fake = fake::start();
    let mut stream = connect(&fake);
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, ": listening");
    fake.told.publish(What::ManagerStop);
    read_until(&mut stream, &mut seen, "manager.stop");
    read_until(&mut stream, &mut seen, "\r\n0\r\n\r\n");
    assert!(!fake.told.is_heard());
}

/// Every kind of event as it comes out of the stream is the committed sample, and the schema is
/// that of the code.
#[test]
fn every_kind_has_its_sample_and_the_schema() {
    let fake = fake::start();
    let replica = || ReplicaId { service: ServiceName::new("web").unwrap(), replica: 2 };
    let incarnation = Incarnation(17);
    let by = || Requester { uid: Some(0), pid: Some(4711), who: "wharf reload".into() };
    let state = wharf::event::State::Running;
    let before = Some(wharf::event::State::Starting);
    let path = Some("/usr/bin/web".into());
    let delay_s = 1.5;
    let hook_end = wharf::manager::HookEnd {
        event: wharf::spec::HookEvent::GiveUp,
        program: "./page-me".to_owned(),
        how: wharf::exit::How::Signaled(wharf::exit::Signal::KILL),
        timed_out: true,
        took: std::time::Duration::from_secs(30),
        output: "asking the pager\n".to_owned(),
        killed: vec![11],
    };
    let all = [
        What::ManagerStart,
        What::Start { replica: replica(), incarnation, pid: 7, executable: path },
        What::State {
            replica: replica(),
            state,
            before,
            incarnation: Some(incarnation),
            pid: Some(7),
            because: None,
        },
        What::Ready { replica: replica(), incarnation, pid: Some(7) },
        What::Message { replica: replica(), incarnation, text: Some("tick".into()), bytes: 4 },
        What::Message { replica: replica(), incarnation, text: None, bytes: 9000 },
        What::ProtocolError { replica: replica(), incarnation, error: "a line without end".into() },
        What::Restart { replica: replica(), incarnation, delay_s, attempt: Some(4) },
        What::Skipped { replica: replica(), why: SkipReason::Overlap },
        What::Skipped { replica: replica(), why: SkipReason::Missed },
        What::CrashLoop { replica: replica(), active: true, failures: 5 },
        What::CrashLoop { replica: replica(), active: false, failures: 0 },
        What::ProbeFailed {
            replica: replica(),
            incarnation,
            purpose: wharf::event::Purpose::Health,
            error: "status 503: no database".into(),
        },
        What::ProbeFailed {
            replica: replica(),
            incarnation,
            purpose: wharf::event::Purpose::Ready,
            error: "connection refused".into(),
        },
        What::Health {
            replica: replica(),
            incarnation,
            health: wharf::event::Health::Unhealthy,
            failures: 3,
        },
        What::Health {
            replica: replica(),
            incarnation,
            health: wharf::event::Health::Healthy,
            failures: 0,
        },
        What::GiveUp { replica: replica(), incarnation },
        What::Unrecorded {
            replica: replica(),
            incarnation,
            reason: wharf::exit::Reason::Failed,
            msg: "web/2 exited with code 1".into(),
        },
        What::Cleaned {
            replica: replica(),
            incarnation,
            killed: Box::new([8, 9]),
            left: Box::new([10]),
            spared: Box::new([]),
            exact: true,
        },
        What::Oom { replica: replica(), incarnation, killed: 1, limit: 50 << 20 },
        What::Hook { replica: replica(), incarnation, end: Box::new(hook_end) },
        What::Reread {
            replica: replica(),
            incarnation,
            signal: wharf::exit::Signal::HUP,
            by: Box::new(by()),
            files: Box::new(["/etc/nginx/nginx.conf".into()]),
        },
        What::Reload { by: by(), services: 3 },
        What::Degraded { what: vec!["the disk is full".into()] },
        What::Degraded { what: Vec::new() },
        fake::exit(1, "web"),
        What::ManagerStopping { by: by() },
        What::ManagerStop,
    ];
    let mut listener = Listener::new(&fake, "", None);
    let mut told: Vec<Value> = Vec::new();
    for what in all {
        let kind = what.kind();
        fake.told.publish(what);
        told.push(listener.next());
        assert_eq!(told.last().unwrap()["kind"], kind.as_str());
    }
    told.push(Listener::new(&fake, "", Some("9.9.9.0000000000000007")).next());
    let seen =
        |kind: &wharf::manager::Kind| told.iter().any(|event| event["kind"] == kind.as_str());
    let missing: Vec<_> = wharf::manager::Kind::ALL.iter().filter(|kind| !seen(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for event in &mut told {
        let parsed: wharf::manager::StreamEvent = serde_json::from_value(event.clone()).unwrap();
        assert_eq!(serde_json::to_value(&parsed).unwrap(), *event, "no field is lost");
        if event["kind"] != "exit" {
            event["ts"] = json!("2026-11-22T07:31:28.576123456Z");
        }
    }
    committed("event.json", &Value::Array(told));
    committed("event.schema.json", &event_schema());
}

#[track_caller]
fn committed(name: &str, value: &Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(value).unwrap());
    if std::env::var_os("WHARF_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is not what the code says; WHARF_BLESS=1 rewrites it");
}
