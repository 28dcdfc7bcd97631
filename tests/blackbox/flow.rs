//! Flow control and hostile streams: nothing that a program does costs the manager memory or its
//! neighbours time.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wharf::message::Kind;

use crate::support::{LIMIT, Wharf, at, look_again, send, soaking, text, times, until};
use crate::wire::Wire;

/// Memory of a process that is its own and no file's, in KiB.
fn own_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Watches how much a process grows.
struct Growth {
    before: u64,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Growth {
    fn of(pid: i32) -> Self {
        let before = own_memory(pid);
        let (peak, over) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (seen, ends) = (Arc::clone(&peak), Arc::clone(&over));
        let watcher = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                seen.fetch_max(own_memory(pid), Ordering::Relaxed);
                look_again();
            }
        });
        Self { before, peak, over, watcher: Some(watcher) }
    }

    /// The most that it grew by, in KiB.
    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.watcher.take().unwrap().join().unwrap();
        self.peak.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

/// Processor time of a process, in ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// One connection that is kept.
struct Caller(UnixStream);

impl Caller {
    fn new(wharf: &Wharf) -> Self {
        let socket = wharf.connect().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self(socket)
    }

    /// A call and its reply.
    fn call(&mut self, service: &str, message: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST /v1/services/{}/call HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n",
            service.replace('/', "%2F"),
            message.len()
        );
        self.0.write_all(head.as_bytes()).unwrap();
        self.0.write_all(message).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "{}", text(&head));
            head.push(byte[0]);
        }
        let head = text(&head).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// How long the slowest but one in a hundred of so many calls took.
    fn slowest_of_hundred(&mut self, service: &str, calls: usize) -> Duration {
        let mut took: Vec<_> = (0..calls)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(self.call(service, b"ping"), b"ping");
                start.elapsed()
            })
            .collect();
        took.sort();
        took[calls * 99 / 100]
    }
}

#[test]
fn yes_with_nobody_listening_costs_neither_memory_nor_time() {
    let wharf = Wharf::up(
        "services:
  flood: { command: ['yes'], port: { framing: lines, replies: none } }
  tick: { command: [sh, -c, 'while :; do sleep 0.1; echo x; done'] }
",
    );
    wharf.wait_state("flood", "running");
    let manager = wharf.manager_pid();
    let lines = || wharf.read(".wharf/log/tick.1.log").lines().count();
    let seconds = if soaking() { 10 } else { 2 };
    let told = lines();
    until("it to settle", || (lines() >= told + 35).then_some(()));
    let (told, before, growth) = (lines(), ticks(manager), Growth::of(manager));
    until("the time to pass", || (lines() >= told + 10 * seconds).then_some(()));
    let used = ticks(manager) - before;
    let grown = growth.end();
    // What may wait of one port is 1 MiB.
    assert!(grown < 2048, "grew by {grown} KiB");
    assert!(used <= 5 * seconds as u64, "{used} ticks in {seconds} s");
    let said = wharf.row("flood")["port"]["frames_out"].as_u64().unwrap();
    assert!(said > 1000, "it is read, but not all the time: {said}");
}

#[test]
fn a_gibibyte_goes_through_cat_and_back() {
    let wharf = Wharf::up(
        "services:
  cat: { command: [cat], replicas: 2, port: { framing: packet4, replies: one, max_frame: 16MiB, timeout: 1m } }
",
    );
    until("both", || wharf.ps().iter().all(|row| row["state"] == "running").then_some(()));
    // 8 MiB each way, 64 times by each of two callers.
    let rounds = times(64);
    std::thread::scope(|scope| {
        for replica in 1..=2_u64 {
            let wharf = &wharf;
            scope.spawn(move || {
                let mut caller = Caller::new(wharf);
                let mut state = replica;
                for round in 0..rounds {
                    let mut message = vec![0; 8 << 20];
                    for eight in message.chunks_exact_mut(8) {
                        // xorshift64
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        eight.copy_from_slice(&state.to_le_bytes());
                    }
                    message.truncate((8 << 20) - round);
                    let reply = caller.call(&format!("cat/{replica}"), &message);
                    assert!(reply == message, "round {round} of {replica}: {} bytes", reply.len());
                }
            });
        }
    });
}

#[test]
fn t35_a_program_that_never_reads_costs_its_bound_and_no_more() {
    let wharf = Wharf::up(
        "services:
  deaf: { command: [sleep, '1000'], port: { queue: 1000, max_frame: 100KiB } }
  cat: { command: [cat], port: { replies: one } }
",
    );
    wharf.wait_state("deaf", "running");
    wharf.wait_state("cat", "running");
    let mut neighbour = Caller::new(&wharf);
    assert_eq!(neighbour.call("cat", b"warm"), b"warm");
    let growth = Growth::of(wharf.manager_pid());
    let message = vec![b'x'; 50_000];
    let mut waiting = Vec::new();
    let refused = loop {
        let mut socket = wharf.connect().unwrap();
        let head =
            "POST /v1/services/deaf/send HTTP/1.1\r\nhost: w\r\ncontent-length: 50000\r\n\r\n";
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&message).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 512];
        match socket.read(&mut answer).map(|count| text(&answer[..count])) {
            // It is in the pipe.
            Ok(told) if told.contains(" 204 ") => {}
            Ok(told) => break told,
            Err(_) => waiting.push(socket),
        }
        assert!(waiting.len() < 100, "the bound was never reached");
    };
    assert!(refused.contains(" 503 ") && refused.contains("busy"), "{refused}");
    assert_eq!(neighbour.call("cat", b"still here"), b"still here");
    // 1 MiB may wait for the program, twice for the moment in which a message changes hands.
    let grown = growth.end();
    assert!(grown < 4096, "grew by {grown} KiB for {} messages", waiting.len());
    wharf.ok(&["signal", "deaf", "KILL"]);
    for mut socket in waiting {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut answer = [0; 512];
        let count = socket.read(&mut answer).unwrap();
        let told = text(&answer[..count]);
        assert!(told.contains(" 204 ") || told.contains(" 409 "), "{told}");
    }
}

/// Programs that say what no program should, with what the record has to tell.
const HOSTILE: &[(&str, &str, &str, &str)] = &[
    ("length", "packet4", r"\377\377\377\377", "announces 4294967295 bytes"),
    ("gibibyte", "packet4", r"\100\000\000\000x", "announces 1073741824 bytes"),
    (
        "header",
        "packet4",
        r"\000\000",
        "is cut off by the end of the stream: 2 of 4 bytes of its header",
    ),
    (
        "body",
        "packet4",
        r"\000\000\000\012abc",
        "is cut off by the end of the stream: 3 of 10 bytes of its body",
    ),
    (
        "headers",
        "content-length",
        r"Content-Length: 1073741824\r\n\r\n{",
        "announces 1073741824 bytes",
    ),
    ("netstring", "netstring", "1073741824:x", "announces 1073741824 bytes"),
];

#[test]
fn t34_hostile_streams_have_the_documented_end_and_cost_nothing() {
    let mut yaml = "services:\n  cat: { command: [cat], port: { replies: one } }\n".to_owned();
    for (service, framing, said, _) in HOSTILE {
        let ends =
            if service.contains("er") || *service == "body" { "" } else { "; exec sleep 1000" };
        let _ = writeln!(
            yaml,
            "  {service}: {{ command: [sh, -c, \"printf '{}'{ends}\"], port: {{ framing: {framing} }}, restart: no }}",
            said.replace('\\', "\\\\")
        );
    }
    let wharf = Wharf::up(&yaml);
    wharf.wait_state("cat", "running");
    for (service, ..) in HOSTILE {
        wharf.wait_records(service, 1);
    }
    // Once more, now that everything has been used once.
    let mut neighbour = Caller::new(&wharf);
    neighbour.call("cat", b"warm");
    let growth = Growth::of(wharf.manager_pid());
    for (service, framing, _, error) in HOSTILE {
        wharf.run(&["start", service]);
        let record = wharf.wait_records(service, 2).remove(1);
        assert_eq!(at(&record, "exit.reason"), "protocol_error", "{record}");
        let told = at(&record, "port.error").as_str().unwrap();
        assert!(told.contains(error) && told.contains("byte 0"), "{framing}: {told}");
        assert_eq!(neighbour.call("cat", b"here"), b"here");
    }
    let grown = growth.end();
    assert!(grown < 1024, "grew by {grown} KiB");
}

#[test]
fn bytes_of_any_kind_pass_as_they_are() {
    // NUL, CR in the middle, invalid UTF-8, CR LF, an empty line, and a last line without an end.
    let wharf = Wharf::up(
        "services:
  says: { command: [sh, -c, \"read x; printf 'a\\\\000b\\\\rc\\\\377\\\\376\\\\r\\\\n\\\\nend'\"], port: { replies: { until: end } }, restart: no }
",
    );
    wharf.wait_state("says", "running");
    let (status, told) = {
        let mut socket = wharf.connect().unwrap();
        let asked = "POST /v1/services/says/call HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: 2\r\n\r\ngo";
        socket.write_all(asked.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        (answer.starts_with(b"HTTP/1.1 200"), answer)
    };
    assert!(status && told.ends_with(b"\r\n\r\na\0b\rc\xff\xfe\n\nend"), "{}", text(&told));
    assert_eq!(at(&wharf.wait_records("says", 1)[0], "port.partial_frame"), true);
}

#[test]
fn a_message_of_a_gibibyte_is_refused_before_it_is_sent() {
    let wharf = Wharf::up("services:\n  cat: { command: [cat], port: { replies: one } }\n");
    wharf.wait_state("cat", "running");
    let growth = Growth::of(wharf.manager_pid());
    let mut socket = wharf.connect().unwrap();
    let head =
        "POST /v1/services/cat/call HTTP/1.1\r\nhost: w\r\ncontent-length: 1073741824\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 256];
    let count = socket.read(&mut answer).unwrap();
    assert!(text(&answer[..count]).contains(" 413 "), "{}", text(&answer[..count]));
    let _ = socket.shutdown(Shutdown::Both);
    assert_eq!(wharf.ok(&["call", "cat", "hello"]), "hello\n");
    let grown = growth.end();
    assert!(grown < 1024, "grew by {grown} KiB");
}

#[test]
fn large_replies_that_nobody_takes_have_a_bound_together() {
    let wharf = Wharf::up(
        "services:
  large:
    command: [python3, -uc, \"import sys\\nfor line in sys.stdin: print('x' * (8 << 20))\"]
    port: { replies: one, timeout: 60s }
",
    );
    wharf.wait_state("large", "running");
    let growth = Growth::of(wharf.manager_pid());
    let head = "POST /v1/services/large/call HTTP/1.1\r\nhost: w\r\ncontent-length: 1\r\n\r\nx";
    let clients: Vec<UnixStream> = (0..48)
        .map(|_| {
            let mut socket = wharf.connect().unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    until("all replies to come", || (wharf.row("large")["port"]["frames_out"] == 48).then_some(()));
    let mut answers = Vec::new();
    for mut socket in clients {
        let mut head = [0; 256];
        let count = socket.read(&mut head).unwrap();
        answers.push(text(&head[..count])[9..12].to_owned());
    }
    let dropped = answers.iter().filter(|status| *status == "503").count();
    let given = answers.iter().filter(|status| *status == "200").count();
    assert!(given >= 31 && dropped > 0 && given + dropped == 48, "{given} {dropped}");
    let grown = growth.end();
    assert!(grown < (256 + 64) << 10, "grew by {grown} KiB");
    // So it is with clients of protocol 1, who get the rest when they read at last.
    let growth = Growth::of(wharf.manager_pid());
    let mut clients: Vec<_> = (0..8).map(|_| Wire::new(&wharf, None)).collect();
    for client in &mut clients {
        (1..=7).for_each(|id| client.call("large", id, "x"));
    }
    until("all replies to come", || {
        (wharf.row("large")["port"]["frames_out"] == 48 + 56).then_some(())
    });
    let answers = clients.iter_mut().flat_map(|client| (1..=7).map(|_| client.next().kind));
    let answers: Vec<_> = answers.collect();
    let count = |kind| answers.iter().filter(|one| **one == kind).count();
    let (given, dropped) = (count(Kind::Reply), count(Kind::Error));
    assert!(given >= 31 && dropped > 0 && given + dropped == 56, "{given} {dropped}");
    let grown = growth.end();
    assert!(grown < (256 + 64) << 10, "grew by {grown} KiB");
    // With those clients gone there is room again.
    assert_eq!(wharf.post("/v1/services/large/call", b"x").1.len(), 8 << 20);
}

/// Writes so many bytes, each by itself, and says how many lines that were.
const DRIP: &str = "import os, sys
count = int(sys.argv[1])
for line in sys.stdin:
    for at in range(count):
        os.write(1, b'x' if at % 100 else b'\\n')
    os.write(1, b'\\ndone\\n')
";

#[test]
fn a_hundred_thousand_writes_of_one_byte_disturb_nobody() {
    let count = 100_000;
    let wharf = Wharf::new(&format!(
        "services:
  drip: {{ command: [python3, drip.py, '{count}'], port: {{ replies: {{ until: ^done$ }}, timeout: 1m }} }}
  cat: {{ command: [cat], port: {{ replies: one }} }}
"
    ));
    std::fs::write(wharf.folder.join("drip.py"), DRIP).unwrap();
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("drip", "running");
    wharf.wait_state("cat", "running");
    let mut neighbour = Caller::new(&wharf);
    neighbour.slowest_of_hundred("cat", 200);
    let reply = Caller::new(&wharf).call("drip", b"go");
    assert_eq!(memchr::memchr_iter(b'x', &reply).count(), 99_000);
    let growth = Growth::of(wharf.manager_pid());
    // The machine is everybody's: one round in which the neighbour was not disturbed will do, and a
    // manager that stops for such a program would disturb it in each.
    let mut seen = Vec::new();
    let calm = (0..12).any(|_| {
        let quiet = neighbour.slowest_of_hundred("cat", 300);
        let busy = std::thread::scope(|scope| {
            let dripping = scope.spawn(|| {
                assert!(Caller::new(&wharf).call("drip", b"go").ends_with(b"done"));
            });
            let busy = neighbour.slowest_of_hundred("cat", 300);
            dripping.join().unwrap();
            busy
        });
        seen.push((quiet, busy));
        busy <= 2 * quiet
    });
    assert!(calm, "the neighbour's 99th percentile, quiet and busy: {seen:?}");
    let grown = growth.end();
    assert!(grown < 1024, "grew by {grown} KiB");
    send(wharf.pid("drip"), 9);
}
