//! Rules that tell calls apart: several callers share one program, which answers in any order, twice,
//! late, to nobody and not at all. By hand first, then by chance against a model.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::super::{CallError, Cancelled, Delivery, Kind, ReadState, Refusal, Request};
use super::driver::{Driver, Outcome};
use super::{NOW, after, call, event, failed, lines, reply, send, start, unanswered};
use crate::correlation::IdError;
use crate::spec::{Framing, IdPlace, IdType, PacketWidth, Port, Replies};
use crate::time::Tick;

fn json() -> Replies {
    Replies::Id(IdPlace::Pointer("/id".to_owned()))
}

fn prefix() -> Replies {
    Replies::Prefix { send: "{token} ".to_owned(), expect: "(?P<keep>[=?]){token} ".to_owned() }
}

fn bytes(kind: IdType) -> Replies {
    Replies::Id(IdPlace::Offset { offset: 0, kind })
}

/// The numbers of `start`'s exchanges begin here.
const FIRST: u64 = (1 << 30) + 7;

#[test]
fn calls_are_open_at_once_and_answered_in_any_order() {
    let mut port = start(&lines(json()));
    port.accept(call(1, r#"{"id": "a", "x": 1}"#));
    port.accept(call(2, r#"{"x":2,"id":7}"#));
    port.accept(send(3, r#"{"x":3}"#));
    let (one, two) = (FIRST, FIRST + 1);
    let expected =
        format!("{{\"id\": \"{one}\", \"x\": 1}}\n{{\"x\":2,\"id\":{two}}}\n{{\"x\":3}}\n");
    assert_eq!(port.flush(), (expected, vec![Delivery::Sent { id: 3 }]));
    assert_eq!(port.open_calls(), 2);
    let told =
        port.says(&format!("{{\"id\":{two},\"error\":{{}}}}\n{{\"r\":[], \"id\" :\"{one}\" }}\n"));
    assert_eq!(
        told,
        [reply(2, &[r#"{"id":7,"error":{}}"#]), reply(1, &[r#"{"r":[], "id" :"a" }"#])]
    );
    assert_eq!((port.open_calls(), port.next_deadline()), (0, None));
    let told = port.says(&format!("{{\"id\":{two}}}\n{{\"id\":99}}\n{{\"id\":\"x\"}}\n"));
    assert_eq!((told, port.counters().unmatched), (vec![], 3), "a second one, and two to nobody");
}

#[test]
fn what_the_program_says_of_itself_reaches_everybody() {
    let mut port = start(&lines(json()));
    port.accept(call(1, r#"{"id":1}"#));
    port.writes();
    for said in [
        r#"{"method":"log","params":{"id":1073741831}}"#.to_owned(),
        format!(r#"{{"id":{FIRST},"method":"ask"}}"#),
        r#"{"id":null,"error":{"code":-32700}}"#.to_owned(),
        "[1]".to_owned(),
        "not JSON".to_owned(),
    ] {
        let told = port.says(&format!("{said}\n"));
        let [Delivery::Event(message)] = &told[..] else { panic!("{said}: {told:?}") };
        assert_eq!(message.payload, said);
    }
    assert_eq!(port.counters().unasked, 1, "what is not JSON");
    assert_eq!(port.open_calls(), 1);
}

#[test]
fn a_call_without_an_id_is_refused_and_a_send_is_not() {
    let mut port = start(&lines(json()));
    let mut refused = |text: &str| match port.submit(call(1, text), NOW) {
        Err(Refusal::Id(error)) => error,
        other => panic!("{text}: {other:?}"),
    };
    let pointer = "/id".to_owned();
    assert_eq!(refused("{}"), IdError::None { pointer: pointer.clone() });
    assert_eq!(refused("[7]"), IdError::None { pointer: pointer.clone() });
    assert_eq!(refused("7"), IdError::None { pointer: pointer.clone() });
    assert_eq!(refused(r#"{"id":1,"\u0069d":2}"#), IdError::Twice { pointer });
    assert_eq!(
        refused(&format!(r#"{{"id":"{}"}}"#, "x".repeat(4095))),
        IdError::Long { size: 4097 }
    );
    for text in ["", "hello", "{\"id\":1}\n{\"id\":2}", "{\"id\":1", "{\"id\":01}"] {
        assert!(matches!(refused(text), IdError::NotJson { .. }), "{text}");
    }
    assert_eq!((port.waiting(), port.next_deadline()), ((0, 0), None));
    port.accept(send(2, "hello"));
    assert_eq!(port.writes(), "hello\n");
    let mut port =
        start(&Port { framing: Framing::Packet(PacketWidth::One), ..lines(bytes(IdType::U32le)) });
    let refused = port.submit(call(1, "abc"), NOW);
    assert_eq!(refused, Err(Refusal::Id(IdError::Short { size: 3, end: 4 })));
}

#[test]
fn a_request_of_several_lines_is_sent_as_one() {
    let mut port = start(&lines(json()));
    port.accept(call(1, "{\r\n  \"id\": [1,\n2],\n  \"x\": \"\\n\"\n}"));
    assert_eq!(port.writes(), format!("{{    \"id\": {FIRST},   \"x\": \"\\n\" }}\n"));
    let told = port.says(&format!("{{\"id\":{FIRST}.0}}\n"));
    assert_eq!(told, [reply(1, &["{\"id\":[1,\n2]}"])], "the id as it was, of a float too");
}

#[test]
fn a_number_that_makes_a_message_too_large_is_seen_before_it_waits() {
    let mut port = start(&Port { max_frame: 23, ..lines(json()) });
    assert!(matches!(port.submit(call(1, r#"{"id":1,"x":1234}"#), NOW), Err(Refusal::Encode(_))));
    port.accept(call(1, r#"{"id":1,"x":1}"#));
    assert_eq!(port.writes().len(), 23 + 1);
}

#[test]
fn a_call_that_is_given_up_disturbs_no_other_and_its_late_reply_reaches_nobody() {
    for replies in [json(), prefix()] {
        let mut port = start(&lines(replies.clone()));
        let text = |id| match replies {
            Replies::Prefix { .. } => format!("go {id}"),
            _ => format!(r#"{{"id":{id}}}"#),
        };
        let said = |number| match replies {
            Replies::Prefix { .. } => format!("={number} done\n"),
            _ => format!("{{\"id\":{number}}}\n"),
        };
        port.accept(call(1, &text(1)));
        port.accept(call(2, &text(2)));
        let kind = Kind::Call { deadline: after(20) };
        port.accept(Request { kind, ..call(3, &text(3)) });
        port.writes();
        assert_eq!(port.cancel(1, NOW), Some(Cancelled::Abandoned));
        assert_eq!(port.cancel(1, NOW), None);
        assert_eq!(port.expire(after(10)), [failed(2, CallError::Unanswered, &[])]);
        assert_eq!((port.open_calls(), port.stuck_since()), (1, None));
        port.submit(Request { kind, ..call(4, &text(4)) }, after(10)).unwrap();
        assert!(!port.writes().is_empty(), "nothing holds it up");
        assert_eq!(port.says(&said(FIRST + 1)), []);
        assert_eq!(port.says(&said(FIRST)), []);
        let told = port.says(&said(FIRST + 3));
        assert!(matches!(told[..], [Delivery::Reply { id: 4, .. }]), "{told:?}");
        assert_eq!((port.counters().swallowed, port.counters().unmatched), (2, 0));
        assert_eq!(port.says(&said(FIRST)), []);
        assert_eq!(port.counters().unmatched, 1, "a late reply comes once");
    }
}

#[test]
fn a_prefix_leads_the_request_and_its_reply() {
    let mut port = start(&lines(prefix()));
    port.accept(call(1, "genmove black"));
    port.accept(call(2, "nonsense"));
    port.accept(send(3, "quit"));
    let (one, two) = (FIRST, FIRST + 1);
    assert_eq!(port.writes(), format!("{one} genmove black\n{two} nonsense\nquit\n"));
    let said = format!("thinking\n?{two} unknown command\n={one} D4\n=\n={one} D4\n");
    let told = port.says(&said);
    let expected =
        [event("thinking"), reply(2, &["?unknown command"]), reply(1, &["=D4"]), event("=")];
    assert_eq!(told, expected);
    assert_eq!(port.counters().unmatched, 1);
    port.says(&format!("={} x\n", "9".repeat(30)));
    assert_eq!(port.counters().unmatched, 2);
}

#[test]
fn a_bracket_stands_around_a_reply() {
    let replies = Replies::Bracket {
        begin: r"^%begin (?P<number>\d+)".to_owned(),
        end: r"^%(?:end|(?P<keep>error)) (?P<number>\d+)".to_owned(),
    };
    let mut port = start(&lines(replies));
    port.accept(call(1, "list"));
    port.accept(call(2, "nonsense"));
    assert_eq!(port.writes(), "list\n");
    let told = port.says("%window-add @1\n%begin 5\na\n%end 4\n%begin 6\n%end 5\n");
    assert_eq!(told, [event("%window-add @1"), reply(1, &["a", "%end 4", "%begin 6"])]);
    assert_eq!(port.writes(), "nonsense\n");
    assert_eq!(port.says("%begin 6\n%error 6\n%exit\n"), [reply(2, &["error"]), event("%exit")]);
}

#[test]
fn as_many_calls_are_open_as_may_wait() {
    let mut port = start(&lines(json()));
    for id in 0..8 {
        port.accept(call(id, r#"{"id":1}"#));
    }
    port.writes();
    for id in 8..16 {
        port.accept(call(id, r#"{"id":1}"#));
    }
    assert_eq!((port.writes(), port.waiting().0, port.open_calls()), (String::new(), 8, 8));
    assert!(matches!(port.submit(call(16, r#"{"id":1}"#), NOW), Err(Refusal::Busy { .. })));
    port.says(&format!("{{\"id\":{}}}\n", FIRST + 5));
    assert_eq!(port.writes().lines().count(), 1);
    assert_eq!(port.expire(after(10)).len(), 15);
}

#[test]
fn a_client_with_many_calls_open_does_not_starve_another() {
    let mut port = start(&Port { queue: 100, ..lines(json()) });
    for id in 0..100 {
        port.accept(call(id, r#"{"id":1}"#));
    }
    port.writes();
    for id in 100..150 {
        port.accept(call(id, r#"{"id":1}"#));
    }
    port.accept(Request { client: 1, ..call(500, r#"{"id":"few"}"#) });
    // All that may be open are the first client's. Two are answered.
    for number in [FIRST + 90, FIRST + 20] {
        port.says(&format!("{{\"id\":{number}}}\n"));
    }
    let written = port.writes();
    assert_eq!(written.lines().count(), 2);
    assert!(written.contains('"') && written.lines().nth(1).unwrap().contains(":\""), "{written}");
}

#[test]
fn a_number_that_is_owed_a_reply_is_given_to_nobody_else() {
    let port = Port {
        framing: Framing::Packet(PacketWidth::One),
        queue: 1000,
        ..lines(bytes(IdType::U8))
    };
    let mut port = start(&port);
    for id in 0..300 {
        port.accept(call(id, "0x"));
    }
    while let Some(chunk) = port.next_write() {
        port.wrote(chunk.pieces.concat().len());
    }
    assert_eq!((port.open_calls(), port.waiting().0), (255, 45), "0 is no number of ours");
    let told = port.expire(after(10));
    let count = |error: &CallError| {
        let is =
            |told: &&Delivery| matches!(told, Delivery::Failed { error: one, .. } if one == error);
        told.iter().filter(is).count()
    };
    assert_eq!(count(&CallError::Unanswered), 255);
    assert_eq!(count(&CallError::Unsent { stuck: true }), 45);
    let kind = Kind::Call { deadline: after(20) };
    port.submit(Request { kind, ..call(500, "0y") }, after(10)).unwrap();
    assert_eq!(port.next_write(), None);
    assert!(port.received(b"\x02\x09!", NOW).is_empty());
    assert_eq!(port.next_write().unwrap().pieces.concat(), b"\x02\x09y");
}

#[test]
fn at_the_end_each_open_call_is_told_whether_it_was_read() {
    let mut port = start(&lines(json()));
    for id in 1..=4 {
        port.accept(call(id, r#"{"id":1}"#));
    }
    let one = format!("{{\"id\":{FIRST}}}\n").len();
    port.next_write();
    port.wrote(3 * one + 1);
    port.says(&format!("{{\"id\":{}}}\n", FIRST + 1));
    let ending = port.ended(u64::try_from(one + 1).unwrap(), NOW);
    let (maybe, never) = (ReadState::MaybeRead, ReadState::NeverRead);
    assert_eq!(
        ending.unanswered,
        [unanswered(1, maybe), unanswered(3, never), unanswered(4, never)]
    );
}

/// What a pipe of the model holds.
const PIPE: usize = 120;

/// Ids that callers choose, as they may look.
const IDS: [&str; 10] = [
    "1",
    "\"a\"",
    "null",
    "12345678901234567890123",
    "1.50",
    "[1, 2]",
    "\"\\u00e9\\\"\"",
    "true",
    "{\"id\": 3}",
    "1073741825",
];

#[derive(Debug, Clone)]
enum Step {
    Submit {
        client: u64,
        call: bool,
        timeout: u64,
        own: usize,
    },
    /// Takes a chunk, lets time pass, and only then writes some of it.
    Write {
        most: usize,
        passing: u64,
    },
    /// The program reads some of its input.
    Read {
        most: usize,
    },
    /// It answers one of the requests it has, or one that it has answered before.
    Answer {
        which: prop::sample::Index,
        again: bool,
    },
    /// It says something of itself.
    Say {
        reply_to_nobody: bool,
    },
    Deliver {
        most: usize,
    },
    Cancel {
        id: prop::sample::Index,
    },
    Pass {
        time: u64,
    },
    Save,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (0..3_u64, prop::bool::weighted(0.8), 1..60_u64, 0..IDS.len())
            .prop_map(|(client, call, timeout, own)| Step::Submit { client, call, timeout, own }),
        4 => (0..200_usize, prop_oneof![3 => Just(0), 1 => 0..20_u64])
            .prop_map(|(most, passing)| Step::Write { most, passing }),
        4 => (1..200_usize).prop_map(|most| Step::Read { most }),
        5 => (index(), prop::bool::weighted(0.1))
            .prop_map(|(which, again)| Step::Answer { which, again }),
        1 => any::<bool>().prop_map(|reply_to_nobody| Step::Say { reply_to_nobody }),
        4 => (1..200_usize).prop_map(|most| Step::Deliver { most }),
        1 => index().prop_map(|id| Step::Cancel { id }),
        1 => (1..30_u64).prop_map(|time| Step::Pass { time }),
        1 => Just(Step::Save),
    ];
    proptest::collection::vec(step, 0..150)
}

struct Model {
    replies: Replies,
    driver: Driver,
    /// By id: the reply that its caller is to get; `None` for one without.
    asked: Vec<Option<Bytes>>,
    /// How much of what the program has read is messages.
    used: usize,
    /// The replies that the program can give, and those it has given.
    held: Vec<Bytes>,
    given: Vec<Bytes>,
    /// How many replies it said, and what it said of itself.
    answers: u64,
    told: Vec<Bytes>,
}

impl Model {
    fn new(replies: Replies) -> Self {
        let framing = Framing::Packet(PacketWidth::Two);
        let port = Port { framing, queue: 6, ..lines(replies.clone()) };
        Self {
            replies,
            driver: Driver::new(&port, u64::MAX, PIPE),
            asked: Vec::new(),
            used: 0,
            held: Vec::new(),
            given: Vec::new(),
            answers: 0,
            told: Vec::new(),
        }
    }

    /// A request without a reply, one with, and what its caller gets for it.
    fn request(&self, id: usize, own: usize) -> (Bytes, Bytes, Bytes) {
        let own = IDS[own];
        let (send, call, reply) = match &self.replies {
            Replies::Prefix { .. } => (format!("n {id}"), format!("c {id}"), format!("=r {id}")),
            Replies::Id(IdPlace::Pointer(_)) => (
                format!("{{\"n\":{id}}}"),
                format!("{{\"n\": {id},\"x\":{{\"id\":[]}},\"id\" :{own}}}"),
                format!("{{\"id\": {own} ,\"r\":{id}}}"),
            ),
            // What is not a call is too short for an id.
            _ => {
                (String::new(), format!("{:>8}c{id}", own.len()), format!("{:>8}r{id}", own.len()))
            }
        };
        (Bytes::from(send), Bytes::from(call), Bytes::from(reply))
    }

    /// What the program answers to a message.
    fn answer(&self, message: &[u8]) -> Option<Bytes> {
        let text = || std::str::from_utf8(message).unwrap();
        Some(Bytes::from(match &self.replies {
            Replies::Prefix { .. } => {
                let (number, id) = text().split_once(" c ")?;
                format!("={number} r {id}").into_bytes()
            }
            Replies::Id(IdPlace::Pointer(_)) => {
                let json: Value = serde_json::from_slice(message).unwrap();
                let id = json.get("id")?;
                format!("{{\"id\": {id} ,\"r\":{}}}", json["n"]).into_bytes()
            }
            _ => {
                // Eight bytes with the id stand before it.
                let at = message.get(8).filter(|byte| **byte == b'c').map(|_| 8)?;
                [&message[..at], b"r", &message[at + 1..]].concat()
            }
        }))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit { client, call, timeout, own } => {
                self.submit(*client, *call, *timeout, *own);
            }
            Step::Write { most, passing } => self.driver.write(*most, *passing),
            Step::Read { most } => self.read(*most),
            Step::Answer { which, again } => {
                if *again && !self.given.is_empty() {
                    let again = self.given[which.index(self.given.len())].clone();
                    self.reply(&again);
                } else if !self.held.is_empty() {
                    let answer = self.held.remove(which.index(self.held.len()));
                    self.reply(&answer);
                    self.given.push(answer);
                }
            }
            Step::Say { reply_to_nobody } => self.say_itself(*reply_to_nobody),
            Step::Deliver { most } => self.driver.deliver(*most),
            Step::Cancel { id } => {
                self.driver.cancel(id.index(self.asked.len() + 1) as u64);
            }
            Step::Pass { time } => self.driver.pass(*time),
            Step::Save => self.driver.save(),
        }
        assert!(self.driver.exchange.open_calls() <= 6 && self.driver.exchange.waiting().0 <= 6);
    }

    fn submit(&mut self, client: u64, call: bool, timeout: u64, own: usize) {
        let id = self.asked.len();
        let (sent, called, reply) = self.request(id, own);
        let (kind, payload) = if call {
            (Kind::Call { deadline: Tick(self.driver.now.0 + timeout) }, called)
        } else {
            (Kind::Send, sent)
        };
        let request = Request { id: id as u64, client, kind, payload };
        match self.driver.exchange.submit(request, self.driver.now) {
            Ok(()) => self.asked.push(call.then_some(reply)),
            Err(refusal) => assert!(matches!(refusal, Refusal::Busy { .. }), "{refusal:?}"),
        }
    }

    fn read(&mut self, most: usize) {
        self.driver.read = self.driver.written.len().min(self.driver.read + most);
        while let Some((message, next)) =
            packet(&self.driver.written[..self.driver.read], self.used)
        {
            self.held.extend(self.answer(message));
            self.used = next;
        }
    }

    fn reply(&mut self, answer: &Bytes) {
        self.answers += 1;
        self.say(answer);
    }

    fn say_itself(&mut self, reply_to_nobody: bool) {
        let (foreign, own) = match &self.replies {
            Replies::Prefix { .. } => ("=17 x", "tick"),
            Replies::Id(IdPlace::Pointer(_)) => ("{\"id\":\"?\"}", "{\"method\":\"m\",\"id\":1}"),
            _ => ("\0\0\0\0\0\0\0\0", ""),
        };
        if reply_to_nobody {
            self.reply(&Bytes::from(foreign));
        } else {
            self.told.push(Bytes::from(own));
            self.say(&Bytes::from(own));
        }
    }

    fn say(&mut self, message: &Bytes) {
        let length = u16::try_from(message.len()).unwrap();
        self.driver.said.extend(length.to_be_bytes());
        self.driver.said.extend(message);
    }

    fn check(&self) {
        // Where each request begins in what was written; a last one may be cut short.
        let (mut places, mut at) = (BTreeMap::new(), 0);
        while let Some((message, next)) = packet(&self.driver.written, at) {
            let answer = self.answer(message);
            places.extend(answer.map(|answer| (number_at_end(&answer), at)));
            at = next;
        }
        let cut = at < self.driver.written.len();
        for (id, asked) in self.asked.iter().enumerate() {
            let outcome = self.driver.outcomes.get(&(id as u64));
            let outcome = outcome.unwrap_or_else(|| panic!("{id} has no outcome"));
            let place = places.get(&id).copied();
            match (outcome, asked) {
                (Outcome::Reply(messages), Some(reply)) => {
                    // Nothing but the number's place differs from what the program said.
                    let want: Vec<_> = vec![reply.clone()];
                    assert_eq!(messages, &want);
                }
                (Outcome::Sent | Outcome::Ended(ReadState::MaybeRead), None)
                | (
                    Outcome::Failed(CallError::Unanswered)
                    | Outcome::Cancelled(Cancelled::Abandoned),
                    Some(_),
                ) => {}
                (Outcome::Failed(CallError::Unsent { .. }), Some(_))
                | (Outcome::Cancelled(Cancelled::Withdrawn), _) => {
                    assert_eq!(place, None, "{id} was written");
                }
                (Outcome::Ended(ReadState::NeverRead), _) => {
                    assert!(place.is_none_or(|place| place >= self.driver.read), "{id} was read");
                }
                (Outcome::Ended(ReadState::MaybeRead), Some(_)) => {
                    let read = place.map_or(cut, |place| place < self.driver.read);
                    assert!(read, "{id} was not read");
                }
                (outcome, asked) => panic!("{id}: {outcome:?} of {asked:?}"),
            }
        }
        assert_eq!(
            self.driver.outcomes.len(),
            self.asked.len(),
            "an outcome of what was not accepted"
        );
        assert_eq!(
            self.driver.heard, self.told,
            "what the program says of itself reaches everybody"
        );
        let replies =
            self.driver.outcomes.values().filter(|one| matches!(one, Outcome::Reply(_))).count();
        let counters = self.driver.exchange.counters();
        let accounted = replies as u64 + counters.swallowed + counters.unmatched;
        assert_eq!(accounted, self.answers, "every reply was had, late, or nobody's");
    }
}

/// The message at a place of a stream of packets, and where the next one begins.
fn packet(stream: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let [one, two] = *stream.get(at..at + 2)? else { return None };
    let next = at + 2 + usize::from(u16::from_be_bytes([one, two]));
    Some((stream.get(at + 2..next)?, next))
}

/// The last digits of a reply, which are its request's id.
fn number_at_end(reply: &[u8]) -> usize {
    let digits = reply.iter().rev().skip_while(|byte| !byte.is_ascii_digit());
    let digits: Vec<u8> = digits.take_while(|byte| byte.is_ascii_digit()).copied().collect();
    let text: String = digits.iter().rev().map(|digit| char::from(*digit)).collect();
    text.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_caller_gets_its_own_reply_whatever_the_order(steps in steps(), rule in 0..5_usize) {
        let kept = Replies::Prefix {
            send: "{token} ".to_owned(),
            expect: "(?P<keep>=){token} ".to_owned(),
        };
        let rules = [json(), kept, bytes(IdType::U8), bytes(IdType::U16le), bytes(IdType::U64be)];
        let mut model = Model::new(rules[rule].clone());
        for step in &steps {
            model.step(step);
        }
        model.driver.end();
        model.check();
    }
}
