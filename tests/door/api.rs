//! The API over a real socket, with clients that behave and clients that do not.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::fake::{self, Asked, Fake};
use serde_json::{Value, json};
use wharf::event::Verb;
use wharf::exit::Signal;
use wharf::manager::Speech;
use wharf::name::Requester;
use wharf::os::socket;

/// Long enough for any machine; what fails, fails at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn connect(fake: &Fake) -> UnixStream {
    let stream = socket::connect(&fake.state.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}\n{}", self.head, String::from_utf8_lossy(&self.body))
        })
    }

    /// The status, the code and the sentence of an error.
    pub(crate) fn error(&self) -> (u16, String, String) {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        let json = self.json();
        let text = |field: &str| json[field].as_str().unwrap().to_owned();
        (self.status, text("code"), text("error"))
    }
}

/// Reads what comes until the server closes, and takes chunks apart.
pub(crate) fn read_answer(mut stream: UnixStream) -> Answer {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // Who is refused before everything that was sent is read hears of that too, after the answer.
    let expected = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(read.as_ref().err().is_none_or(expected), "{read:?}");
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap().to_lowercase();
    let mut rest = &bytes[at + 4..];
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
            let size = std::str::from_utf8(&rest[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = &rest[end + 2 + size + 2..];
        }
    } else {
        body.extend_from_slice(rest);
    }
    Answer { status, head, body }
}

pub(crate) fn ask_with(fake: &Fake, verb: &str, path: &str, header: &str, body: &[u8]) -> Answer {
    let mut stream = connect(fake);
    let length = body.len();
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{header}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    read_answer(stream)
}

pub(crate) fn ask(fake: &Fake, verb: &str, path: &str, body: &str) -> Answer {
    ask_with(fake, verb, path, "", body.as_bytes())
}

pub(crate) fn get(fake: &Fake, path: &str) -> Answer {
    ask(fake, "GET", path, "")
}

#[test]
fn what_is_can_be_asked() {
    let fake = fake::start();
    assert!(fake.state.socket().as_os_str().len() > 107);
    assert_eq!(get(&fake, "/v1/manager").json()["guardian_pid"], 11);
    let names = |path: &str| {
        let all = get(&fake, path).json();
        let name = |one: &Value| format!("{}/{}", one["service"].as_str().unwrap(), one["replica"]);
        all.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/services"), ["web/1", "web/2", "db/1"]);
    assert_eq!(names("/v1/services/web"), ["web/1", "web/2"]);
    assert_eq!(names("/v1/services/web%2F2"), ["web/2"]);
    assert_eq!(names("/v1/services/web?replica=1"), ["web/1"]);
    assert_eq!(names("/v1/services/none"), [""; 0]);
    let all = get(&fake, "/v1/services").json();
    assert_eq!((&all[0]["pid"], &all[1]["pid"]), (&json!(4242), &Value::Null));

    let near = get(&fake, "/v1/services/wbe");
    assert_eq!((near.status, &near.json()["suggestion"]), (404, &json!("web")));
    let (status, code, error) = get(&fake, "/v1/services/web%2F3").error();
    assert_eq!((status, code.as_str()), (404, "no_such_replica"), "{error}");

    let config = get(&fake, "/v1/config");
    assert_eq!(config.json()["services"]["web"]["environment"]["API_TOKEN"], "***");
    assert!(!String::from_utf8(config.body).unwrap().contains("hunter2"));
}

#[test]
fn commands_reach_the_loop_with_who_asked() {
    let fake = fake::start();
    let by = |who: &str| Requester {
        uid: Some(wharf::os::user::current()),
        pid: Some(i32::try_from(std::process::id()).unwrap()),
        who: who.to_owned(),
    };
    let post = |path: &str, header: &str, body: &str| {
        let answer = ask_with(&fake, "POST", path, header, body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        fake.asked.recv_timeout(PATIENCE).unwrap()
    };
    for (path, header, body, asked) in [
        ("web/start", "", "", Asked::Command(Verb::Start, "web".into(), by("http"))),
        (
            "web%2F2/stop",
            "x-wharf-command: wharf stop\r\n",
            "{}",
            Asked::Command(Verb::Stop, "web/2".into(), by("wharf stop")),
        ),
        (
            "web/restart?replica=2",
            "",
            " \n",
            Asked::Command(Verb::Restart, "web/2".into(), by("http")),
        ),
        ("web/restart?rolling=true", "", "", Asked::Command(Verb::Roll, "web".into(), by("http"))),
        (
            "web/stop?dependents=true",
            "",
            "",
            Asked::Command(Verb::StopWithDependents, "web".into(), by("http")),
        ),
        ("web/scale", "", r#"{"replicas":3}"#, Asked::Scale("web".into(), 3, by("http"))),
        (
            "db/signal",
            "",
            r#"{"signal":"HUP"}"#,
            Asked::Command(Verb::Signal(Signal::HUP), "db".into(), by("http")),
        ),
    ] {
        assert_eq!(post(&format!("/v1/services/{path}"), header, body), asked);
    }
    let shutdown = ask(&fake, "POST", "/v1/shutdown", "");
    assert_eq!(shutdown.status, 202);
    assert_eq!(fake.asked.recv_timeout(PATIENCE).unwrap(), Asked::Shutdown(by("http")));
}

#[test]
fn messages_pass_byte_for_byte() {
    let fake = fake::start();
    let all: Vec<u8> = (0..=255).collect();
    let answer = ask_with(&fake, "POST", "/v1/services/db%2F1/call?timeout=5s", "", &all);
    assert_eq!((answer.status, &answer.body), (200, &all));
    assert!(answer.head.contains("content-type: application/octet-stream"), "{}", answer.head);
    assert!(answer.head.contains("x-wharf-messages: 1"), "{}", answer.head);
    let asked = fake.asked.recv_timeout(PATIENCE).unwrap();
    let kind = Speech::Call(Some(Duration::from_secs(5)));
    assert_eq!(asked, Asked::Speak("db/1".into(), all.clone().into(), kind));

    let answer = ask(&fake, "POST", "/v1/services/words/call", "one two three");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"one\ntwo\nthree"[..]));
    assert!(answer.head.contains("x-wharf-messages: 3"), "{}", answer.head);
    let answer = ask(&fake, "POST", "/v1/services/silent/call", "");
    assert_eq!((answer.status, answer.body.len()), (200, 0));

    let large = vec![b'x'; 16 << 20];
    let answer = ask_with(&fake, "POST", "/v1/services/db/call", "", &large);
    assert!(answer.status == 200 && answer.body == large);

    fake.asked.try_iter().for_each(drop);
    let answer = ask(&fake, "POST", "/v1/services/db/send", "hello");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let asked = fake.asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(asked, Asked::Speak("db".into(), "hello".into(), Speech::Send));
}

#[test]
fn every_mistake_is_a_clear_error() {
    let fake = fake::start();
    let long = format!("/v1/services/{}", "x".repeat(65));
    for (verb, path, body, status, code) in [
        ("GET", "/", "", 404, "no_such_route"),
        ("GET", "/v2/services", "", 404, "no_such_route"),
        ("GET", "/v1/services/web/fly", "", 404, "no_such_route"),
        ("POST", "/v1/manager", "", 405, "wrong_verb"),
        ("POST", "/v1/services/web/2/restart?rolling=true", "", 404, "no_such_route"),
        ("POST", "/v1/services/web%2F2/restart?rolling=true", "", 422, "one_replica"),
        ("POST", "/v1/services/web/stop?replica=1&dependents=true", "", 422, "one_replica"),
        ("POST", "/v1/services/web/scale", "{\"replicas\":10001}", 400, "bad_replicas"),
        ("POST", "/v1/services/web%2F2/scale", "{\"replicas\":1}", 422, "one_replica"),
        ("POST", "/v1/services/web/scale", "{\"replicas\":1.5}", 400, "bad_body"),
        ("POST", "/v1/services/web/scale", "{}", 400, "bad_body"),
        ("GET", "/v1/services/web/stop", "", 405, "wrong_verb"),
        ("DELETE", "/v1/services/web", "", 405, "wrong_verb"),
        ("GET", "/v1/services/we%20b", "", 400, "bad_name"),
        ("GET", &long, "", 400, "bad_name"),
        ("GET", "/v1/services/web%2F0", "", 400, "bad_name"),
        ("GET", "/v1/services/web%2F1?replica=2", "", 400, "bad_name"),
        ("GET", "/v1/services/web?replica=x", "", 400, "bad_query"),
        ("GET", "/v1/services/web?rpelica=1", "", 400, "bad_query"),
        ("GET", "/v1/services/web?replica=1&replica=2", "", 400, "bad_query"),
        ("GET", "/v1/services/web?replica=%zz", "", 400, "bad_query"),
        ("GET", "/v1/services/web?%ff=1", "", 400, "bad_query"),
        ("GET", "/v1/manager?x", "", 400, "bad_query"),
        ("POST", "/v1/shutdown?now=1", "", 400, "bad_query"),
        ("GET", "/v1/services/%ff", "", 400, "bad_path"),
        ("GET", "/v1/services/%e2%28", "", 400, "bad_path"),
        ("GET", "/v1/services/web%2", "", 400, "bad_path"),
        ("GET", "/nowhere/%", "", 400, "bad_path"),
        ("GET", "/v1/services/web%00", "", 400, "bad_name"),
        ("GET", "/v1/services/", "", 404, "no_such_route"),
        ("GET", "/v1//services", "", 404, "no_such_route"),
        ("GET", "/v1/services/../manager", "", 404, "no_such_route"),
        ("TRACE", "/v1/manager", "", 405, "wrong_verb"),
        ("BREW", "/v1/manager", "", 405, "wrong_verb"),
        ("POST", "/v1/services/web/stop", "{\"now\":true}", 400, "bad_body"),
        ("POST", "/v1/services/web/signal", "", 400, "bad_body"),
        ("POST", "/v1/services/web/signal", "HUP", 400, "bad_body"),
        ("POST", "/v1/services/web/signal", "{\"signal\":1}", 400, "bad_body"),
        ("POST", "/v1/services/web/signal", "{\"signal\":\"HUP\",\"x\":1}", 400, "bad_body"),
        ("POST", "/v1/services/web/signal", "{\"signal\":\"NOSUCH\"}", 400, "no_such_signal"),
        ("POST", "/v1/services/db/call?timeout=soon", "", 400, "bad_query"),
        ("POST", "/v1/services/db/call?timeout=0", "", 400, "bad_query"),
        ("POST", "/v1/services/db/call?timeout=2h", "", 400, "bad_query"),
        ("POST", "/v1/services/db/send?timeout=1s", "", 400, "bad_query"),
        ("POST", "/v1/reload", "{\"paln\":true}", 400, "bad_body"),
        ("POST", "/v1/reload", " [true]", 400, "bad_body"),
        ("POST", "/v1/services/web/signal", "[\"HUP\"]", 400, "bad_body"),
        ("GET", "/v1/exits?reason=", "", 400, "bad_query"),
        ("GET", "/v1/exits?service=", "", 400, "bad_query"),
        ("GET", "/v1/exits?reason=exploded", "", 400, "bad_query"),
        ("GET", "/v1/exits?since=tomorrow", "", 400, "bad_query"),
        ("GET", "/v1/exits?since_seq=-1", "", 400, "bad_query"),
        ("GET", "/v1/exits?service=we%20b", "", 400, "bad_query"),
        ("POST", "/v1/services/nosuch/stop", "", 404, "no_such_service"),
        ("POST", "/v1/services/broken/start", "", 409, "ended"),
        ("POST", "/v1/services/down/signal", "{\"signal\":\"HUP\"}", 409, "not_running"),
        ("POST", "/v1/services/busy/start", "", 503, "busy"),
        ("POST", "/v1/services/plain/call", "", 422, "not_a_port"),
        ("POST", "/v1/services/slow/call", "", 504, "timed_out"),
        ("POST", "/v1/services/garbled/call", "", 502, "bad_reply"),
        ("POST", "/v1/services/dead/call", "", 409, "ended"),
    ] {
        let (found, word, error) = ask(&fake, verb, path, body).error();
        assert_eq!((found, word.as_str()), (status, code), "{verb} {path}: {error}");
        assert!(error.len() > 10 && !error.contains('\n'), "{error}");
    }
    let dead = ask(&fake, "POST", "/v1/services/dead/call", "").json();
    assert_eq!((&dead["signal"], &dead["read"]), (&json!("SIGKILL"), &json!("never_read")));
    let verb = ask(&fake, "POST", "/v1/manager", "");
    assert!(verb.head.contains("allow: get,head,options"), "{}", verb.head);
}

#[test]
fn what_a_body_says_of_itself_counts() {
    let fake = fake::start();
    let hup = b"{\"signal\":\"HUP\"}";
    for (header, status) in [
        ("content-type: application/json\r\n", 200),
        ("content-type: Application/JSON; charset=utf-8\r\n", 200),
        ("content-type: application/x-www-form-urlencoded\r\n", 200),
        ("content-type: application/problem+json\r\n", 200),
        ("content-encoding: identity\r\n", 200),
        ("content-type: text/xml\r\n", 415),
        ("content-type: application/jsonp\r\n", 415),
        ("content-type: é\r\n", 415),
        ("content-encoding: gzip\r\n", 415),
    ] {
        let answer = ask_with(&fake, "POST", "/v1/services/web/signal", header, hup);
        assert_eq!(answer.status, status, "{header}");
        if status == 415 {
            assert_eq!(answer.error().1, "unsupported_type", "{header}");
        }
    }
}

#[test]
fn every_path_says_what_can_be_done_with_it() {
    let fake = fake::start();
    let document = get(&fake, "/openapi.json").json();
    assert_eq!(document, wharf::api::document());
    assert_eq!(document["openapi"], "3.1.0");
    for (path, verbs) in document["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "web");
        let options = ask(&fake, "OPTIONS", &path, "");
        assert_eq!((options.status, options.body.len()), (204, 0), "{path}");
        let allow = options.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap();
        let known = allow.split(',').filter(|verb| !matches!(*verb, "head" | "options"));
        assert!(known.eq(verbs.as_object().unwrap().keys()), "{path}: {allow}");
        for verb in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"] {
            // A stream would go on, and what is commanded is tried elsewhere.
            if path == "/v1/events" || verb == "POST" {
                continue;
            }
            let answer = ask(&fake, verb, &path, "");
            let allowed = allow.split(',').any(|known| known == verb.to_lowercase());
            assert_eq!(answer.status == 405, !allowed, "{verb} {path}");
            assert_eq!(answer.body.is_empty(), verb == "HEAD", "{verb} {path}");
            if !allowed {
                assert!(answer.head.contains(&format!("allow: {allow}")), "{}", answer.head);
            }
        }
    }
    assert_eq!(ask(&fake, "OPTIONS", "/nowhere", "").status, 404);
}

#[test]
fn what_the_library_refuses_has_its_words_too() {
    let fake = fake::start();
    let many = (0..200).map(|at| format!("x-{at}: y\r\n")).collect::<Vec<_>>().concat();
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    let path = "x".repeat(70 << 10);
    for (text, status, code) in [
        ("this is no HTTP at all\r\n\r\n".to_owned(), 400, "bad_request"),
        ("\x16\x03\x01\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET /v1/manager HTTP/1.1\r\nhost\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET /v1/a b HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400, "bad_request"),
        (
            "POST /v1/shutdown HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (format!("GET /v1/manager HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431, "headers_too_large"),
        (format!("GET /v1/manager HTTP/1.1\r\nhost: x\r\n{long}\r\n"), 431, "headers_too_large"),
        (format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n"), 414, "uri_too_long"),
    ] {
        let mut stream = connect(&fake);
        // The server may have closed before all of it is written.
        let _ = stream.write_all(text.as_bytes());
        let start = &text[..text.len().min(60)];
        let answer = read_answer(stream);
        let (found, word, _) = answer.error();
        assert_eq!((found, word.as_str()), (status, code), "{start}");
    }
    assert!(fake.asked.try_recv().is_err());
}

/// Who begins a request and does not end it, and who takes no answer, is let go of; nobody else
/// waits for that.
#[test]
fn half_a_request_and_an_answer_that_nobody_takes_end() {
    let fake = fake::start();
    let lines = (1..=20_000).map(|seq| fake::exit_line(seq, "web", "failed")).collect::<Vec<_>>();
    fake::write_journal(&fake.state.state, &lines);
    let begin = |text: &str| {
        let mut stream = connect(&fake);
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let mut halves: Vec<_> =
        (0..50).map(|_| begin("GET /v1/manager HTTP/1.1\r\nhost: x\r\nx-slow")).collect();
    let bodies: Vec<_> = (0..50)
        .map(|_| {
            begin("POST /v1/services/web/signal HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{")
        })
        .collect();
    let deaf: Vec<_> =
        (0..20).map(|_| begin("GET /v1/exits HTTP/1.1\r\nhost: x\r\n\r\n")).collect();
    // Twenty answers that nobody takes, and there are four threads that read the journal.
    assert_eq!(get(&fake, "/v1/exits?limit=1").json()[0]["seq"], 20_000);
    assert_eq!(get(&fake, "/v1/manager").status, 200);
    for mut stream in bodies {
        // Still open: the time for a body is longer than this test's patience needs to be.
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    for stream in deaf {
        stream.set_read_timeout(None).unwrap();
        ends(&stream);
    }
    let mut rest = Vec::new();
    halves.remove(0).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

/// Waits until the server has closed a connection whose answer nobody takes.
fn ends(stream: &UnixStream) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    // A hang-up is told without asking for it.
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)).unwrap(), 1, "it is still open");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let fake = fake::start();
    for (path, announced, chunks) in [
        ("/v1/services/db/call", (17 << 20) + 1, 0),
        ("/v1/services/web/signal", (64 << 10) + 1, 0),
        ("/v1/services/web/signal", 0, 70),
        ("/v1/shutdown", 0, 70),
    ] {
        let mut stream = connect(&fake);
        let size = match announced {
            0 => "transfer-encoding: chunked".to_owned(),
            length => format!("content-length: {length}"),
        };
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{size}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
        for _ in 0..chunks {
            // A refusal may come before all of it is taken.
            if stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
        }
        let (status, code, error) = read_answer(stream).error();
        assert_eq!((status, code.as_str()), (413, "too_large"), "{path}: {error}");
    }
    assert!(fake.asked.try_recv().is_err(), "nothing of it reached the loop");
}

#[test]
fn a_client_that_goes_away_takes_its_question_with_it() {
    let fake = fake::start();
    let mut stream = connect(&fake);
    stream
        .write_all(
            b"POST /v1/services/mute/call HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi",
        )
        .unwrap();
    let Asked::Kept(mut kept) = fake.asked.recv_timeout(PATIENCE).unwrap() else { panic!() };
    drop(stream);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, kept.0.closed()).await.unwrap() });
}

#[test]
fn the_journal_is_read_in_pages() {
    let fake = fake::start();
    assert_eq!(get(&fake, "/v1/exits").json(), json!([]));
    let line = |seq: u64| {
        let (service, reason) =
            if seq.is_multiple_of(2) { ("web", "failed") } else { ("db", "oom_killed") };
        fake::exit_line(seq, service, reason)
    };
    fake::write_journal(&fake.state.state, &(1..=500).map(line).collect::<Vec<_>>());
    let seqs = |query: &str| {
        let answer = get(&fake, &format!("/v1/exits{query}"));
        assert_eq!(answer.status, 200, "{query}");
        let all = answer.json();
        all.as_array().unwrap().iter().map(|one| one["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(""), (1..=500).collect::<Vec<_>>());
    assert_eq!(seqs("?limit=2"), [499, 500]);
    assert_eq!(seqs("?since_seq=10&limit=2"), [11, 12]);
    assert_eq!(seqs("?since_seq=498"), [499, 500]);
    assert_eq!(seqs("?service=web&limit=2"), [498, 500]);
    assert_eq!(seqs("?service=web%2F2"), [0; 0]);
    assert_eq!(seqs("?reason=oom_killed&since_seq=497"), [499]);
    assert_eq!(seqs("?since=2026-11-22T07:31:59Z&limit=1"), [479]);
    assert_eq!(seqs("?limit=0"), [0; 0]);
}

/// Reads until the text is there.
pub(crate) fn read_until(stream: &mut UnixStream, seen: &mut String, text: &str) {
    let mut bytes = vec![0; 64 << 10];
    while !seen.contains(text) {
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "the stream ended without {text:?}");
        seen.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
}

#[test]
fn a_reload_is_planned_applied_or_refused() {
    let fake = fake::start();
    let nothing = ask(&fake, "POST", "/v1/reload", "{\"plan\":true}").json();
    assert_eq!(nothing["applied"], false);
    assert!(nothing["changes"].as_array().unwrap().iter().all(|one| one["change"] == "unchanged"));

    fake::write_services(
        &fake.state,
        "version: 1\nservices:\n  web: { command: [./other], replicas: 2 }\n  new: { command: [n] }\n",
    );
    let plan = ask(&fake, "POST", "/v1/reload", "{\"plan\":true}");
    assert_eq!(plan.status, 200);
    let kinds = |answer: &Answer| {
        let json = answer.json();
        let kind = |one: &Value| {
            format!("{} {}", one["service"].as_str().unwrap(), one["change"].as_str().unwrap())
        };
        json["changes"].as_array().unwrap().iter().map(kind).collect::<Vec<_>>()
    };
    let expected = ["web changed", "new added", "db removed", "none removed"];
    assert_eq!(kinds(&plan), expected);
    assert!(fake.asked.try_recv().is_err(), "a plan changes nothing");

    let done = ask(&fake, "POST", "/v1/reload", "");
    assert_eq!(
        (kinds(&done), &done.json()["applied"]),
        (expected.map(String::from).to_vec(), &json!(true))
    );
    let Asked::Apply(names, _) = fake.asked.recv_timeout(PATIENCE).unwrap() else { panic!() };
    assert_eq!(names, ["web", "new"]);

    let file = fake.state.state.parent().unwrap().join("services.yaml");
    std::fs::write(&file, "version: 1\nservices:\n  web: { comand: [x], replicas: -1 }\n").unwrap();
    let refused = ask(&fake, "POST", "/v1/reload", "");
    let (status, code, _) = refused.error();
    assert_eq!((status, code.as_str()), (422, "invalid"));
    assert!(refused.json()["mistakes"].as_array().unwrap().len() >= 2);
    assert!(refused.json()["text"].as_str().unwrap().contains("did you mean"));
    assert!(fake.asked.try_recv().is_err(), "the one in effect stays");
}

#[test]
fn beyond_the_bound_a_connection_waits_for_its_turn() {
    let fake = fake::start();
    let question = b"GET /v1/manager HTTP/1.1\r\nhost: x\r\n\r\n";
    let served = |stream: &mut UnixStream| {
        stream.write_all(question).unwrap();
        read_until(stream, &mut String::new(), "guardian_pid");
    };
    // Both ends of all of them are this process's.
    let _ = wharf::os::limits::raise_nofile().unwrap();
    let mut connections: Vec<_> = (0..1024).map(|_| connect(&fake)).collect();
    connections.iter_mut().for_each(served);
    let mut late = connect(&fake);
    late.write_all(question).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = late.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(connections.pop());
    read_until(&mut late, &mut String::new(), "guardian_pid");
}

#[test]
fn nonsense_closes_the_connection_and_nothing_else() {
    let fake = fake::start();
    let mut stream = connect(&fake);
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert_eq!(get(&fake, "/v1/manager").status, 200);
}
