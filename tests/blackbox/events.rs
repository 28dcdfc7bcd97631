//! Events of a real manager: each exit once, whatever becomes of the manager, and the rest in words.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use wharf::manager::StreamEvent;

use crate::support::{LIMIT, Wharf, at, send, text, times, until, wait_gone};

/// `wharf events -f` with more words, and what it has told.
struct Following {
    child: Child,
    told: Receiver<Value>,
}

impl Following {
    fn new(wharf: &Wharf, words: &[&str]) -> Self {
        let mut command = wharf.command(&[&["-v", "events", "-f", "--json"], words].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut complaints = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while line != "listening\n" {
            line.clear();
            assert!(complaints.read_line(&mut line).unwrap() > 0, "it ended before it began");
        }
        child.stderr = Some(complaints.into_inner());
        let (tell, told) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines {
                let event = serde_json::from_str(&line.unwrap()).unwrap();
                // A test that is over wants no more.
                let _ = tell.send(event);
            }
        });
        Self { child, told }
    }

    /// The next event that is wanted.
    #[track_caller]
    fn next(&self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let event = self.told.recv_timeout(LIMIT).unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Waits for its end: everything that it told and this test has not taken, its code, and what it
    /// complained of.
    fn end(mut self) -> (Vec<Value>, i32, String) {
        let mut words = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (self.told.iter().collect(), code, words)
    }
}

fn seqs<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<u64> {
    let exits = events.into_iter().filter(|event| event["kind"] == "exit");
    exits.map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn name(event: &Value) -> String {
    at(event, "event.name").as_str().unwrap().to_owned()
}

#[test]
fn each_exit_is_told_once_whatever_becomes_of_the_manager() {
    let wharf = Wharf::up(
        "services:
  quick: { command: [sh, -c, 'exit 3'], replicas: 2, restart: { policy: always, delay: 50ms, max_delay: 50ms, jitter: 0, max_restarts: 1000000 } }
  steady: { command: [sleep, '1000'] }
",
    );
    wharf.wait_state("steady", "running");
    let following = Following::new(&wharf, &["--since", "0"]);
    let exits_only = Following::new(&wharf, &["--since", "0", "--kind", "exit"]);
    let mut told = Vec::new();
    for _ in 0..times(100) {
        let before = wharf.manager()["generation"].as_u64().unwrap();
        send(wharf.manager_pid(), libc_kill());
        let again = following.next(|event| {
            told.push(event.clone());
            name(event) == "manager.start"
                && at(event, "manager.generation").as_u64() > Some(before)
        });
        assert_eq!(again["kind"], "manager");
        let lost = told.iter().rev().find(|event| event["kind"] == "gap").unwrap();
        assert_eq!(at(lost, "gap.reason"), "manager_ended", "only what is no exit is missed");
        assert_eq!(at(lost, "gap.what"), "events");
        wharf.wait_state("steady", "running");
        let count = wharf.records().len();
        until("more exits", || (wharf.records().len() > count + 4).then_some(()));
    }
    wharf.ok(&["down"]);
    let all: Vec<u64> =
        wharf.records().iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    let (rest, code, words) = following.end();
    told.extend(rest);
    assert_eq!(seqs(&told), all);
    assert_eq!(name(told.last().unwrap()), "manager.stop");
    assert_eq!((code, words.contains("the manager has ended")), (0, true), "{words}");
    assert!(words.contains("the stream broke off") && words.contains("is there again"), "{words}");
    let (only, code, _) = exits_only.end();
    assert_eq!((seqs(&only), code), (all, 0));
    assert!(only.iter().all(|event| event["kind"] == "exit"), "who wants exits misses nothing");
    for event in told {
        let parsed: StreamEvent = serde_json::from_value(event.clone()).unwrap();
        assert_eq!(serde_json::to_value(parsed).unwrap(), event);
    }
}

fn libc_kill() -> i32 {
    wharf::exit::Signal::KILL.number()
}

#[test]
fn the_last_exits_are_told_where_manager_and_guardian_are_gone() {
    let wharf = Wharf::up("services: { web: { command: [sleep, '1000'] } }\n");
    wharf.wait_state("web", "running");
    let following = Following::new(&wharf, &[]);
    let (manager, guardian) = (wharf.manager_pid(), wharf.guardian_pid());
    send(guardian, libc_kill());
    wait_gone(manager);
    let (told, code, words) = following.end();
    assert_eq!(seqs(&told), [1], "{told:?}");
    assert_eq!(
        at(&told.iter().find(|one| one["kind"] == "exit").unwrap().clone(), "exit.cause"),
        "guardian_died"
    );
    // The manager has the time to say its last word, or it has not.
    assert!(code == 0 || code == 5, "{code}: {words}");
}

#[test]
fn a_life_is_told_in_words() {
    let wharf = Wharf::new(
        "services:
  flaky:
    command: [sh, -c, 'exit 1']
    restart: { policy: always, delay: 10ms, max_delay: 10ms, jitter: 0, max_restarts: 6, within: 60s }
  chatty:
    command: [sh, -c, 'echo hello; read line; printf \"%2000s\" x; sleep 1000']
    port: { framing: lines, replies: none, max_frame: 1KiB }
    restart: no
",
    );
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("flaky", "failed");
    wharf.wait_state("chatty", "running");
    wharf.ok(&["send", "chatty", "go"]);
    wharf.wait_records("chatty", 1);
    wharf.write("services: { web: { command: [sleep, '1000'] } }\n");
    wharf.ok(&["reload"]);
    wharf.wait_state("web", "running");
    let told = |words: &[&str]| -> Vec<Value> {
        let lines = wharf.ok(&[&["events", "--json"], words].concat());
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = told(&[]);
    let names: Vec<String> = all.iter().map(name).collect();
    assert_eq!(names[0], "manager.start");
    let flaky =
        told(&["--service", "flaky", "--kind", "start,ready,exit,restart,give_up,crash_loop"]);
    let told_of = |run: u64| {
        let of = |event: &&Value| at(event, "service.incarnation") == run;
        flaky.iter().filter(of).map(name).collect::<Vec<_>>()
    };
    let runs: Vec<u64> = flaky
        .iter()
        .filter(|event| event["kind"] == "exit")
        .map(|event| at(event, "service.incarnation").as_u64().unwrap())
        .collect();
    assert_eq!(runs.len(), 7);
    for run in &runs[..6] {
        let of = ["process.start", "process.ready", "process.exit", "restart.scheduled"];
        assert_eq!(told_of(*run), of);
    }
    assert_eq!(told_of(runs[6]).last().unwrap(), "restart.giveup");
    let loops: Vec<bool> = flaky
        .iter()
        .filter(|event| event["kind"] == "crash_loop")
        .map(|event| at(event, "crash_loop.active").as_bool().unwrap())
        .collect();
    assert_eq!(loops, [true, false], "it keeps failing, and it does not any more");
    let restart = flaky.iter().rfind(|event| event["kind"] == "restart").unwrap();
    assert_eq!(at(restart, "restart.delay_s"), 0.01);
    let start = flaky.iter().find(|event| event["kind"] == "start").unwrap();
    assert!(at(start, "process.pid").as_i64() > Some(1));
    assert!(at(start, "process.executable.path").as_str().unwrap().ends_with("sh"));

    let of = |kind: &str| all.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(at(of("message")[0], "message.text"), "hello");
    assert!(of("protocol_error")[0]["error"].as_str().unwrap().len() > 5);
    assert_eq!(at(of("reload")[0], "requested_by.who"), "wharf reload");
    assert_eq!(told(&["--since", all.last().unwrap()["id"].as_str().unwrap()]), [Value::Null; 0]);
    let words = wharf.ok(&["events", "--service", "flaky", "--kind", "give_up"]);
    assert!(words.ends_with("flaky/1 failed too often and is not started again\n"), "{words}");
    wharf.ok(&["down"]);
    // Without a manager there are the ends, from the journal.
    let names: Vec<String> = told(&["--since", "0"]).iter().map(name).collect();
    assert!(names.len() >= 8 && names.iter().all(|name| name == "process.exit"), "{names:?}");
    assert_eq!(told(&["--since", "0", "--kind", "start"]).len(), 0);
    assert_eq!(seqs(&told(&["--service", "chatty"])).len(), 1);
}

/// While some subscribers read nothing and others come and go, a flood of exits and messages goes on
/// undisturbed: every exit reaches who reads, and commands are answered.
#[test]
fn a_flood_with_bad_subscribers_disturbs_nobody() {
    let wharf = Wharf::up(
        "services:
  quick: { command: ['true'], replicas: 4, restart: { policy: always, delay: 5ms, max_delay: 5ms, jitter: 0, max_restarts: 1000000 } }
  noisy: { command: [sh, -c, 'while :; do echo 0123456789012345678901234567890123456789; done'], port: { framing: lines, replies: none } }
  still: { command: [cat], port: { framing: lines, replies: one } }
",
    );
    wharf.wait_state("still", "running");
    let pid = wharf.manager_pid();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let subscribe = || {
        use std::io::Write as _;
        let mut socket = wharf.connect().unwrap();
        socket.write_all(b"GET /v1/events?since=0 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        socket
    };
    let deaf: Vec<_> = (0..40).map(|_| subscribe()).collect();
    let good = Following::new(&wharf, &["--since", "0", "--kind", "exit"]);
    let (mut seen, mut most) = (0, 0);
    for _ in 0..times(4000) {
        // Here and gone, before and after something was read.
        let mut gone = subscribe();
        let _ = gone.read(&mut [0; 512]).unwrap();
        drop((subscribe(), gone));
        let exit = good.next(|_| true);
        assert_eq!(exit["seq"], seen + 1, "none is missing, none comes twice");
        seen += 1;
        assert_eq!(wharf.ok(&["call", "still", "hello"]), "hello\n");
        most = most.max(resident());
    }
    assert!(most < 96 << 10, "{most} KiB");
    assert_eq!(wharf.manager_pid(), pid);
    drop(deaf);
}

/// What a person types who knows curl and nothing of wharf.
#[test]
fn curl_is_enough() {
    let wharf = Wharf::up(
        "services: { web: { command: [sleep, '1000'] }, db: { command: [cat], port: { framing: lines, replies: one } } }\n",
    );
    wharf.wait_state("web", "running");
    wharf.wait_state("db", "running");
    let curl = |words: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--unix-socket", ".wharf/sock"]);
        command.args(words.split(' ')).current_dir(&wharf.folder).env_remove("http_proxy");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let json = |words: &str| -> Value { serde_json::from_str(&curl(words)).unwrap() };
    assert_eq!(json("http://wharf/v1/services/web")[0]["state"], "running");
    assert_eq!(curl("-d hello http://wharf/v1/services/db/call"), "hello");
    let row = json(r#"-d {"signal":"KILL"} http://wharf/v1/services/web/signal"#);
    assert_eq!(row[0]["service"], "web");
    wharf.wait_records("web", 1);
    assert_eq!(json("http://wharf/v1/exits?service=web")[0]["seq"], 1);
    let events = curl("http://wharf/v1/events?since=0&follow=false&kind=exit");
    assert!(events.contains("event: exit\nid: 1."), "{events}");
    let id = events.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let again =
        curl(&format!("-H last-event-id:{id} http://wharf/v1/events?follow=false&kind=exit"));
    assert!(!again.contains("event: exit"), "{again}");
    assert_eq!(json("http://wharf/openapi.json")["openapi"], "3.1.0");
    assert_eq!(json("http://wharf/nowhere")["code"], "no_such_route");
    assert!(curl("-I http://wharf/v1/services").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(curl("-i -X DELETE http://wharf/v1/services").contains("allow: GET,HEAD,OPTIONS"));
}
