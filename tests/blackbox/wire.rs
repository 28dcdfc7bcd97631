//! Wire protocol 1 over the control socket: calls, messages, monitors, and what is wrong with a client
//! costs nobody else anything. The programs are jq, seq, cat, yes and the like.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use wharf::message::{Address, Decoder, Form, Frame, Hello, Kind, Mode, Read as Came};

use crate::support::{LIMIT, Wharf, alive, send, text, times, until};

/// A client of protocol 1.
pub(crate) struct Wire {
    pub(crate) socket: UnixStream,
    decoder: Decoder,
    came: VecDeque<Frame>,
}

impl Wire {
    /// A connection that has gone on to protocol 1 and has said nothing.
    pub(crate) fn silent(wharf: &Wharf) -> Self {
        let mut socket = wharf.connect().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let asked = "GET /v1/connect HTTP/1.1\r\nhost: w\r\nconnection: keep-alive, Upgrade\r\nupgrade: wharf\r\n\r\n";
        socket.write_all(asked.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", text(&head));
        let decoder = Decoder::new(Mode::Frame, 64 << 20);
        Self { socket, decoder, came: VecDeque::new() }
    }

    /// One that has said hello and was greeted.
    pub(crate) fn new(wharf: &Wharf, credit: Option<u32>) -> Self {
        let mut wire = Self::silent(wharf);
        let hello = Hello { credit, ..Hello::new("test", "1") };
        wire.say(&Frame::control(Kind::Hello, 0, &hello));
        let hello: Hello = wire.next().read().unwrap();
        assert_eq!((hello.proto, &*hello.name), (1, "wharf"));
        wire
    }

    pub(crate) fn say(&mut self, frame: &Frame) {
        let form = Form { max_frame: 64 << 20, ..Form::new(Mode::Frame) };
        self.socket.write_all(&frame.encode(&form).unwrap().to_vec()).unwrap();
    }

    pub(crate) fn call(&mut self, name: &str, id: u64, message: impl Into<Bytes>) {
        let to = Some(Address::Name(name.to_owned()));
        self.say(&Frame { to, ..Frame::new(Kind::Call, id, message) });
    }

    pub(crate) fn data(&mut self, name: &str, message: impl Into<Bytes>) {
        let to = Some(Address::Name(name.to_owned()));
        self.say(&Frame { to, ..Frame::new(Kind::Data, 0, message) });
    }

    pub(crate) fn monitor(&mut self, id: u64, what: &Value) {
        self.say(&Frame::new(Kind::Monitor, id, what.to_string()));
    }

    /// The next frame; `None` at the end of the conversation.
    pub(crate) fn try_next(&mut self) -> Option<Frame> {
        let mut buffer = vec![0; 64 << 10];
        while self.came.is_empty() {
            let count = self.socket.read(&mut buffer).unwrap();
            if count == 0 {
                return None;
            }
            let came = &mut self.came;
            let mut each = |read| {
                if let Came::Frame(frame) = read {
                    came.push_back(frame);
                }
            };
            self.decoder.push(&buffer[..count], &mut each).unwrap();
        }
        self.came.pop_front()
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> Frame {
        self.try_next().expect("the manager hung up")
    }

    /// The next frame, which is of this kind and has this id, as JSON.
    #[track_caller]
    pub(crate) fn told(&mut self, kind: Kind, id: u64) -> Value {
        let frame = self.next();
        assert_eq!((frame.kind, frame.id), (kind, id), "{}", text(&frame.payload));
        frame.read().unwrap()
    }

    /// Whether it is still served.
    pub(crate) fn is_served(&mut self) {
        self.say(&Frame::new(Kind::Ping, 77, ""));
        assert_eq!((self.next().kind, self.came.len()), (Kind::Pong, 0));
    }
}

const YAML: &str = "services:
  echo: { command: [jq, --unbuffered, -c, .], port: { replies: { id: { pointer: /id } } } }
  tells:
    command: [jq, --unbuffered, -c, '{method: \"before\", params: .id}, ., {method: \"after\"}']
    port: { replies: { id: { pointer: /id } } }
    restart: { policy: always, delay: 1ms, factor: 1 }
  cat: { command: [cat], port: { framing: packet4, replies: one } }
  plain: { command: [sleep, infinity], replicas: 2 }
  down: { command: [cat], port: { replies: one }, restart: 'no' }
";

fn up() -> Wharf {
    let wharf = Wharf::up(YAML);
    for name in ["echo", "tells", "cat", "down"] {
        wharf.wait_state(name, "running");
    }
    wharf.ok(&["stop", "down"]);
    wharf
}

#[test]
fn calls_are_answered_by_their_ids_and_messages_come_in_their_order() {
    let wharf = up();
    let mut wire = Wire::new(&wharf, None);
    wire.monitor(5, &json!({"target": {"name": "tells"}, "messages": true, "follow": true}));
    let began = wire.told(Kind::Ready, 5);
    assert_eq!(began["peer"]["name"], "tells/1");
    wire.call("tells", 9, "{\"id\":\"mine\"}");
    let said: Vec<_> =
        (0..3).map(|_| wire.next()).map(|f| (f.kind, f.id, text(&f.payload))).collect();
    let data = |message: &str| (Kind::Data, 5, message.to_owned());
    assert_eq!(said[1], (Kind::Reply, 9, "{\"id\":\"mine\"}".to_owned()));
    assert_eq!(said[2], data("{\"method\":\"after\"}"));
    assert!(said[0].2.contains("\"before\""), "{said:?}");
    // Many at once, from two clients with the same ids; and a message of a mebibyte, byte for byte.
    let mut other = Wire::new(&wharf, None);
    for id in 0..times(2000) as u64 {
        wire.call("echo", id + 10, format!("{{\"id\":1,\"own\":{id}}}"));
        other.call("echo", id + 10, format!("{{\"id\":1,\"other\":{id}}}"));
    }
    for id in 0..times(2000) as u64 {
        for (wire, word) in [(&mut wire, "own"), (&mut other, "other")] {
            let reply = wire.next();
            assert_eq!((reply.kind, reply.id), (Kind::Reply, id + 10));
            assert_eq!(text(&reply.payload), format!("{{\"id\":1,\"{word}\":{id}}}"));
        }
    }
    let large: Vec<u8> =
        (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    wire.call("cat", 3, large.clone());
    let reply = wire.next();
    assert!(reply.kind == Kind::Reply && reply.payload == large);
}

#[test]
fn a_client_that_is_wrong_is_told_and_costs_nobody_else_anything() {
    let wharf = up();
    let mut good = Wire::new(&wharf, None);
    let mut bad = Wire::new(&wharf, None);
    // What is only refused.
    bad.call("dwon", 1, "x");
    let told = bad.told(Kind::Error, 1);
    assert!(told["code"] == "no_such_service" && told["message"].to_string().contains("down"));
    bad.call("down", 2, "x");
    let told = bad.told(Kind::Error, 2);
    assert_eq!((&told["code"], &told["data"]["state"]), (&json!("not_running"), &json!("stopped")));
    bad.call("plain", 3, "x");
    assert_eq!(bad.told(Kind::Error, 3)["code"], "not_a_port");
    bad.call("echo", 4, "no JSON");
    assert_eq!(bad.told(Kind::Error, 4)["code"], "unfit");
    bad.data("down", "x");
    assert_eq!(bad.told(Kind::Error, 0)["code"], "not_running");
    bad.monitor(6, &json!({"target": {"name": "plain"}}));
    assert!(bad.told(Kind::Error, 6)["message"].to_string().contains("plain/1"));
    for kind in [Kind::Reply, Kind::Ready, Kind::Spawn, Kind::Down] {
        bad.say(&Frame::new(kind, 8, "{}"));
        let told = bad.told(Kind::Error, 8);
        assert!(told["message"].to_string().contains(&kind.to_string()), "{told}");
    }
    bad.is_served();
    // What ends the conversation, with a last word.
    let hello =
        |proto: u32| Frame::control(Kind::Hello, 0, &Hello { proto, ..Hello::new("t", "1") });
    let bytes = |frame: &Frame| frame.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    let wrong: [(bool, Vec<u8>, &str); 8] = [
        (true, vec![0xff; 4], "4294967285 bytes"),
        (true, b"\0\0\0\x0a\x7f\0\0\0\0\0\0\0\0\0".to_vec(), "0x7f"),
        (true, b"\0\0\0\x0a\0\xa0\0\0\0\0\0\0\0\0".to_vec(), "critical"),
        (true, b"GET / HTTP/1.1\r\n\r\n".to_vec(), "bytes"),
        (true, bytes(&hello(1)), "once"),
        (false, bytes(&hello(2)), "version 2"),
        (false, bytes(&Frame::new(Kind::Ping, 1, "")), "PING"),
        (
            true,
            [bytes(&Frame::new(Kind::Call, 5, "")), bytes(&Frame::new(Kind::Call, 5, ""))].concat(),
            "",
        ),
    ];
    for (greeted, bytes, word) in wrong {
        let mut bad = if greeted { Wire::new(&wharf, None) } else { Wire::silent(&wharf) };
        bad.socket.write_all(&bytes).unwrap();
        let mut last = None;
        if word.is_empty() {
            // Two frames that say nobody's name are two errors and no end.
            assert_eq!(bad.told(Kind::Error, 5)["code"], "bad_name");
            assert_eq!(bad.told(Kind::Error, 5)["code"], "bad_name");
            continue;
        }
        while let Some(frame) = bad.try_next() {
            last = Some(frame);
        }
        let last = last.unwrap();
        assert_eq!((last.kind, last.id), (Kind::Error, 0));
        assert!(text(&last.payload).contains(word), "{word}: {}", text(&last.payload));
    }
    // Closing in the middle of a frame, and with a call open.
    for _ in 0..times(200) {
        let mut bad = Wire::new(&wharf, None);
        bad.call("echo", 1, "{\"id\":1}");
        bad.socket.write_all(&[0, 0, 0xff]).unwrap();
    }
    good.call("echo", 1, "{\"id\":1}");
    assert_eq!(good.next().kind, Kind::Reply);
    until("the calls of those who left", || (wharf.row("echo")["port"]["open"] == 0).then_some(()));
    let refused = wharf.get("/v1/manager");
    assert!(refused.contains("\"degraded\":[]"), "{refused}");
}

#[test]
fn a_monitor_tells_one_end_with_its_true_reason_also_when_asked_late() {
    let wharf = up();
    let mut wire = Wire::new(&wharf, None);
    let first = wharf.row("tells")["incarnation"].as_u64().unwrap();
    let kill = || send(i32::try_from(wharf.row("tells")["pid"].as_i64().unwrap()).unwrap(), 9);
    wire.monitor(1, &json!({"target": {"name": "tells/1"}}));
    wire.monitor(2, &json!({"target": {"incarnation": first}}));
    wire.monitor(3, &json!({"target": {"name": "tells"}, "messages": true, "follow": true}));
    assert_eq!(wire.told(Kind::Ready, 3)["peer"]["incarnation"], first);
    wire.monitor(4, &json!({"target": {"name": "down"}}));
    let down = wire.told(Kind::Down, 4);
    assert_eq!((&down["late"], &down["cause"]), (&json!(true), &json!("stop_requested")));
    kill();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let frame = wire.next();
        let told: Value = frame.read().unwrap();
        if frame.kind == Kind::Down {
            assert_eq!((&told["incarnation"], &told["late"]), (&json!(first), &json!(false)));
            assert!(told["msg"].to_string().contains("SIGKILL"), "{told}");
        }
        seen.push((frame.id, frame.kind));
    }
    let stream: Vec<_> = seen.iter().filter(|(id, _)| *id == 3).map(|(_, kind)| *kind).collect();
    assert_eq!(stream, [Kind::Down, Kind::Ready]);
    assert!(seen.contains(&(1, Kind::Down)) && seen.contains(&(2, Kind::Down)), "{seen:?}");
    // Another end, so that the first is in the journal alone.
    kill();
    assert_eq!([wire.next().kind, wire.next().kind], [Kind::Down, Kind::Ready]);
    wire.monitor(5, &json!({"target": {"incarnation": first}}));
    let down = wire.told(Kind::Down, 5);
    assert_eq!((&down["incarnation"], &down["late"]), (&json!(first), &json!(true)));
    wire.monitor(6, &json!({"target": {"incarnation": 999_999}}));
    assert_eq!(wire.told(Kind::Error, 6)["code"], "no_such_run");
    wire.is_served();
}

const FLOOD: &str = "services:
  seq:
    command: [sh, -c, 'read n; exec seq $n']
    port: { framing: lines, replies: none }
    restart: 'no'
  yes: { command: ['yes'], port: { framing: lines, replies: none } }
";

#[test]
fn a_program_waits_for_the_only_one_who_listens_and_every_line_arrives() {
    let wharf = Wharf::up(FLOOD);
    wharf.wait_state("seq", "running");
    let count = times(2_000_000) as u64;
    let mut wire = Wire::new(&wharf, None);
    wire.monitor(1, &json!({"target": {"name": "seq"}, "messages": true}));
    wire.told(Kind::Ready, 1);
    wire.data("seq", count.to_string());
    let frames = || wharf.row("seq")["port"]["frames_out"].as_u64().unwrap_or(0);
    // Nobody reads: the program comes to a halt, with no more than what fits on the way.
    let mut before = 0;
    let held = until("the program to be left alone", || {
        let now = frames();
        let stands = now == before && now > 0;
        before = now;
        stands.then_some(now)
    });
    assert!(held < count, "{held} of {count} were read");
    for number in 1..=count {
        let frame = wire.next();
        assert_eq!((frame.kind, text(&frame.payload)), (Kind::Data, number.to_string()));
    }
    let down = wire.told(Kind::Down, 1);
    assert_eq!(down["reason"], "completed");
}

#[test]
fn a_slow_listener_is_told_what_it_missed_and_holds_up_nobody() {
    let wharf = Wharf::up(FLOOD);
    wharf.wait_state("seq", "running");
    let count = times(4_000_000) as u64;
    let (mut fast, mut slow) = (Wire::new(&wharf, None), Wire::new(&wharf, Some(10)));
    for wire in [&mut fast, &mut slow] {
        wire.monitor(1, &json!({"target": {"name": "seq"}, "messages": true}));
        wire.told(Kind::Ready, 1);
    }
    fast.data("seq", count.to_string());
    for number in 1..=count {
        assert_eq!(text(&fast.next().payload), number.to_string());
    }
    assert_eq!(fast.told(Kind::Down, 1)["reason"], "completed");
    // It has its ten, and is served otherwise.
    for number in 1..=10 {
        assert_eq!(text(&slow.next().payload), number.to_string());
    }
    slow.is_served();
    slow.say(&Frame::new(Kind::Credit, 1, json!({"frames": u32::MAX}).to_string()));
    let (mut heard, mut missed) = (10, 0);
    loop {
        let frame = slow.next();
        match frame.kind {
            Kind::Data => {
                heard += 1;
                assert_eq!(text(&frame.payload), (heard + missed).to_string());
            }
            Kind::Missed => {
                missed += frame.read::<Value>().unwrap()["frames"].as_u64().unwrap();
            }
            kind => {
                assert_eq!(kind, Kind::Down);
                break;
            }
        }
    }
    assert_eq!(heard + missed, count);
    assert!(missed > 0, "it missed nothing of {count}");
}

#[test]
fn a_flood_that_nobody_takes_costs_little() {
    let wharf = Wharf::up(FLOOD);
    wharf.wait_state("yes", "running");
    let manager = i32::try_from(wharf.manager()["pid"].as_i64().unwrap()).unwrap();
    let mut wire = Wire::new(&wharf, None);
    wire.monitor(1, &json!({"target": {"name": "yes"}, "messages": true, "follow": true}));
    wire.told(Kind::Ready, 1);
    let frames = || wharf.row("yes")["port"]["frames_out"].as_u64().unwrap_or(0);
    let mut before = 0;
    let held = until("the flood to stand still", || {
        let now = frames();
        let stands = now == before && now > 0;
        before = now;
        stands.then_some(now)
    });
    let start = Instant::now();
    while start.elapsed().as_millis() < 500 {
        assert_eq!(frames(), held);
    }
    assert!(alive(manager));
    drop(wire);
    until("the flood to go on", || (frames() > held).then_some(()));
}

#[test]
fn only_who_asks_for_it_goes_on_in_protocol_1() {
    let wharf = up();
    for head in [
        "GET /v1/connect HTTP/1.1\r\nhost: w\r\n\r\n",
        "GET /v1/connect HTTP/1.1\r\nhost: w\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "GET /v1/connect HTTP/1.1\r\nhost: w\r\nupgrade: wharf\r\n\r\n",
        "POST /v1/connect HTTP/1.1\r\nhost: w\r\nconnection: upgrade\r\nupgrade: wharf\r\ncontent-length: 0\r\n\r\n",
    ] {
        let mut socket = wharf.connect().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let count = socket.read(&mut answer).unwrap();
        let answer = text(&answer[..count]).to_lowercase();
        let post = head.starts_with("POST");
        assert!(answer.starts_with(if post { "http/1.1 405" } else { "http/1.1 426" }), "{answer}");
        assert!(post || answer.contains("\r\nupgrade: wharf\r\n"), "{answer}");
    }
    // What comes behind the request at once is heard too.
    let mut socket = wharf.connect().unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let hello = Frame::control(Kind::Hello, 0, &Hello::new("t", "1"));
    let hello = hello.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    let head =
        "GET /v1/connect HTTP/1.1\r\nhost: w\r\nconnection: upgrade\r\nupgrade: wharf\r\n\r\n";
    socket.write_all(&[head.as_bytes(), &hello].concat()).unwrap();
    let mut came = Vec::new();
    while !text(&came).contains("\"proto\":1") {
        let mut buffer = [0; 1024];
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", text(&came));
        came.extend_from_slice(&buffer[..count]);
    }
}
