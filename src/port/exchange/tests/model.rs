//! Random histories against a model program behind pipes of a few bytes. Whatever happens, every
//! request that was accepted has exactly one outcome, and the true one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{
    CallError, Cancelled, Delivery, Exchange, Kind, Protocol, ReadState, Request, Saved,
};
use super::{bracket, lines, sentinel};
use crate::spec::{Port, Replies};
use crate::time::Tick;

/// What a pipe of the model holds.
const PIPE: usize = 40;

/// Every request is a line of this many bytes: `c0007 2`, a call with id 7 and two parts of reply.
const LINE: usize = 8;

#[derive(Debug, Clone)]
enum Step {
    Submit {
        client: u64,
        call: bool,
        timeout: u64,
        parts: u8,
    },
    /// Takes a chunk, lets time pass, and only then writes some of it.
    Write {
        most: usize,
        passing: u64,
    },
    /// The program reads some of its input and answers the lines that are whole.
    Run {
        most: usize,
    },
    /// Some of what it said arrives.
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
    let submit = (0..3_u64, any::<bool>(), 1..60_u64, 0..4_u8)
        .prop_map(|(client, call, timeout, parts)| Step::Submit { client, call, timeout, parts });
    let step = prop_oneof![
        4 => submit,
        4 => (0..60_usize, prop_oneof![3 => Just(0), 1 => 0..20_u64])
            .prop_map(|(most, passing)| Step::Write { most, passing }),
        4 => (1..60_usize).prop_map(|most| Step::Run { most }),
        4 => (1..60_usize).prop_map(|most| Step::Deliver { most }),
        1 => any::<prop::sample::Index>().prop_map(|id| Step::Cancel { id }),
        1 => (1..30_u64).prop_map(|time| Step::Pass { time }),
        1 => Just(Step::Save),
    ];
    proptest::collection::vec(step, 0..120)
}

/// What was said of a request.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Reply(Vec<Bytes>),
    Sent,
    Failed(CallError),
    Cancelled(Cancelled),
    Ended(ReadState),
}

struct Model {
    replies: Replies,
    protocol: Arc<Protocol>,
    exchange: Exchange,
    now: Tick,
    /// By id: the reply that it asks for; `None` for one without.
    asked: Vec<Option<Vec<String>>>,
    outcomes: BTreeMap<u64, Outcome>,
    /// Everything written to the program, and how much of it the program has read.
    written: Vec<u8>,
    read: usize,
    /// What the program has read of a line.
    line: Vec<u8>,
    /// What the program said and nobody has read.
    said: VecDeque<u8>,
}

impl Model {
    fn new(replies: Replies) -> Self {
        let port = Port { queue: 12, ..lines(replies.clone()) };
        let protocol = Arc::new(Protocol::new(&port).unwrap());
        Self {
            replies,
            exchange: Exchange::new(Arc::clone(&protocol), 1),
            protocol,
            now: Tick(0),
            asked: Vec::new(),
            outcomes: BTreeMap::new(),
            written: Vec::new(),
            read: 0,
            line: Vec::new(),
            said: VecDeque::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { client, call, timeout, parts } => {
                self.submit(client, call, timeout, parts);
            }
            Step::Write { most, passing } => self.write(most, passing),
            Step::Run { most } => self.run(most),
            Step::Deliver { most } => self.deliver(most),
            Step::Cancel { id } => {
                let id = id.index(self.asked.len() + 1) as u64;
                if let Some(cancelled) = self.exchange.cancel(id, self.now) {
                    self.outcome(id, Outcome::Cancelled(cancelled));
                }
            }
            Step::Pass { time } => self.pass(time),
            Step::Save => {
                let text = serde_json::to_string(&self.exchange).unwrap();
                let saved: Saved = serde_json::from_str(&text).unwrap();
                self.exchange = Exchange::restore(Arc::clone(&self.protocol), saved).unwrap();
            }
        }
    }

    fn submit(&mut self, client: u64, call: bool, timeout: u64, parts: u8) {
        let id = self.asked.len() as u64;
        let (letter, kind) = if call {
            ("c", Kind::Call { deadline: Tick(self.now.0 + timeout) })
        } else {
            ("s", Kind::Send)
        };
        let payload = Bytes::from(format!("{letter}{id:04} {parts}"));
        if self.exchange.submit(Request { id, client, kind, payload }, self.now).is_ok() {
            self.asked.push(call.then(|| self.reply_to(id, parts)));
        }
    }

    /// What the program says to a call. No parts means that it never answers, except that a
    /// sentinel is always said.
    fn reply_to(&self, id: u64, parts: u8) -> Vec<String> {
        let mut reply: Vec<_> = (0..parts).map(|part| format!("{id} part {part}")).collect();
        match self.replies {
            Replies::One => reply.truncate(1),
            Replies::Until(_) if parts > 0 => reply.push(format!("{id} end")),
            Replies::Until(_)
            | Replies::Sentinel { .. }
            | Replies::Bracket { .. }
            | Replies::None => {}
            Replies::Id(_) | Replies::Prefix { .. } | Replies::Envelope => {
                unreachable!("they have a model of their own")
            }
        }
        reply
    }

    fn write(&mut self, most: usize, passing: u64) {
        let Some(chunk) = self.exchange.next_write() else { return };
        assert_eq!(chunk.at, self.written.len() as u64);
        self.pass(passing);
        let bytes = chunk.pieces.concat();
        let room = PIPE - (self.written.len() - self.read);
        let count = bytes.len().min(room).min(most);
        self.written.extend(&bytes[..count]);
        let deliveries = self.exchange.wrote(count);
        self.tell(deliveries);
    }

    fn run(&mut self, most: usize) {
        let end = self.written.len().min(self.read + most);
        for at in self.read..end {
            let byte = self.written[at];
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            let said = if let Some(token) = line.strip_prefix("say ") {
                vec![token.to_owned()]
            } else if line.starts_with('c') {
                let id = line[1..5].parse().unwrap();
                let mut reply = self.reply_to(id, line[6..7].parse().unwrap());
                if matches!(self.replies, Replies::Bracket { .. }) {
                    reply.insert(0, format!("begin {id}"));
                    reply.push(format!("end {id}"));
                }
                reply
            } else {
                Vec::new()
            };
            for line in said {
                self.said.extend(line.bytes().chain([b'\n']));
            }
        }
        self.read = end;
    }

    fn deliver(&mut self, most: usize) {
        let bytes: Vec<_> = self.said.drain(..most.min(self.said.len())).collect();
        let deliveries = self.exchange.received(&bytes, self.now);
        self.tell(deliveries);
    }

    fn pass(&mut self, time: u64) {
        self.now.0 += time;
        let deliveries = self.exchange.expire(self.now);
        self.tell(deliveries);
        assert!(self.exchange.next_deadline().is_none_or(|deadline| deadline > self.now));
    }

    /// The program dies, having written all of `said` but perhaps its last byte, a line's end.
    fn end(&mut self, cut: bool) {
        if cut {
            self.said.pop_back();
        }
        self.deliver(usize::MAX);
        let unread = (self.written.len() - self.read) as u64;
        let ending = self.exchange.ended(unread, self.now);
        self.tell(ending.deliveries);
        for open in ending.unanswered {
            self.outcome(open.id, Outcome::Ended(open.read));
        }
        assert_eq!((self.exchange.waiting(), self.exchange.next_deadline()), ((0, 0), None));
    }

    fn tell(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            match delivery {
                Delivery::Reply { id, messages } => self.outcome(id, Outcome::Reply(messages)),
                Delivery::Sent { id } => self.outcome(id, Outcome::Sent),
                Delivery::Failed { id, error, .. } => self.outcome(id, Outcome::Failed(error)),
                Delivery::Event(message) => panic!("the program says nothing unasked: {message:?}"),
                Delivery::Protocol(error) => panic!("the program keeps its protocol: {error}"),
                Delivery::Ready | Delivery::Log(_) | Delivery::Stray(_) => {
                    panic!("there is nothing such")
                }
            }
        }
    }

    fn outcome(&mut self, id: u64, outcome: Outcome) {
        let before = self.outcomes.insert(id, outcome);
        assert_eq!(
            before, None,
            "request {id} has two outcomes, this and {:?}",
            self.outcomes[&id]
        );
    }

    /// Where the first byte of a request stands in what was written.
    fn place(&self, id: u64) -> Option<usize> {
        let name = format!("{id:04} ");
        let found = self.written.windows(name.len()).position(|seen| seen == name.as_bytes());
        // All but the last request, which may be cut short, are found by their number.
        let cut = self.written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let tail = &self.written[cut..];
        let starts = [format!("s{name}"), format!("c{name}")];
        let short = !tail.is_empty()
            && tail.len() < LINE
            && starts.iter().any(|start| start.as_bytes().starts_with(tail));
        found.map(|at| at - 1).or(short.then_some(cut))
    }

    fn check(&self) {
        for (id, asked) in self.asked.iter().enumerate() {
            let id = id as u64;
            let outcome = self.outcomes.get(&id).unwrap_or_else(|| panic!("{id} has no outcome"));
            let place = self.place(id);
            match (outcome, asked) {
                (Outcome::Reply(messages), Some(reply)) => assert_eq!(messages, reply),
                (Outcome::Sent, None) => assert!(place.is_some()),
                (
                    Outcome::Failed(CallError::Unanswered)
                    | Outcome::Cancelled(Cancelled::Abandoned),
                    Some(_),
                ) => {}
                (Outcome::Failed(CallError::Unsent { .. }), Some(_))
                | (Outcome::Cancelled(Cancelled::Withdrawn), _) => {
                    assert!(self.is_unsent(id, place), "{id} was written");
                }
                (Outcome::Ended(ReadState::NeverRead), _) => {
                    let never = place.is_none_or(|place| place >= self.read);
                    assert!(never || self.is_unsent(id, place), "{id} was read");
                }
                (Outcome::Ended(ReadState::MaybeRead), _) => {
                    assert!(place.is_some_and(|place| place < self.read), "{id} was not read");
                }
                (outcome, asked) => panic!("{id}: {outcome:?} of {asked:?}"),
            }
        }
        assert_eq!(self.outcomes.len(), self.asked.len(), "an outcome of what was not accepted");
    }

    /// Whether a request is not in what was written; a cut tail may look like several.
    fn is_unsent(&self, id: u64, place: Option<usize>) -> bool {
        let whole = format!("{id:04} ");
        place.is_none() || !self.written.windows(5).any(|seen| seen == whole.as_bytes())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_request_has_one_outcome_and_nobody_gets_the_reply_of_another(
        steps in steps(),
        rule in 0..4_usize,
        cut: bool,
    ) {
        let rules = [Replies::One, Replies::Until(" end$".to_owned()), sentinel(), bracket()];
        let mut model = Model::new(rules[rule].clone());
        for step in &steps {
            model.step(step);
        }
        model.end(cut);
        model.check();
    }

    /// A client waits for at most one request of each other client between two of its own.
    #[test]
    fn clients_take_turns(loads in proptest::collection::vec(1..30_u64, 2..6)) {
        let port = Port { queue: 1000, ..lines(Replies::One) };
        let mut exchange = Exchange::new(Arc::new(Protocol::new(&port).unwrap()), 1);
        let mut owner = Vec::new();
        for (client, load) in loads.iter().enumerate() {
            for _ in 0..*load {
                let (id, client) = (owner.len() as u64, client as u64);
                let kind = Kind::Call { deadline: Tick(1) };
                let request = Request { id, client, kind, payload: Bytes::from("x") };
                exchange.submit(request, Tick(0)).unwrap();
                owner.push(client);
            }
        }
        let mut served = Vec::new();
        while let Some(chunk) = exchange.next_write() {
            exchange.wrote(chunk.pieces.concat().len());
            for delivery in exchange.received(b"ok\n", Tick(0)) {
                let Delivery::Reply { id, .. } = delivery else { panic!("{delivery:?}") };
                served.push(owner[usize::try_from(id).unwrap()]);
            }
        }
        prop_assert_eq!(served.len(), owner.len());
        for (client, load) in loads.iter().enumerate() {
            let places = served.iter().enumerate().filter(|(_, by)| **by == client as u64);
            for (turn, (place, _)) in places.enumerate() {
                prop_assert!(place < (turn + 1) * loads.len(), "turn {} of {}", turn, load);
            }
        }
    }
}
