//! Random histories against a model program behind pipes of a few bytes. Whatever happens, every
//! request that was accepted has exactly one outcome, and the true one.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{CallError, Cancelled, Delivery, Exchange, Kind, Protocol, ReadState, Request};
use super::driver::{Driver, Outcome};
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

struct Model {
    replies: Replies,
    driver: Driver,
    /// By id: the reply that it asks for; `None` for one without.
    asked: Vec<Option<Vec<String>>>,
    /// What the program has read of a line.
    line: Vec<u8>,
}

impl Model {
    fn new(replies: Replies) -> Self {
        let port = Port { queue: 12, ..lines(replies.clone()) };
        let driver = Driver::new(&port, 1, PIPE);
        Self { replies, driver, asked: Vec::new(), line: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { client, call, timeout, parts } => {
                self.submit(client, call, timeout, parts);
            }
            Step::Write { most, passing } => self.driver.write(most, passing),
            Step::Run { most } => self.run(most),
            Step::Deliver { most } => self.driver.deliver(most),
            Step::Cancel { id } => {
                self.driver.cancel(id.index(self.asked.len() + 1) as u64);
            }
            Step::Pass { time } => self.driver.pass(time),
            Step::Save => self.driver.save(),
        }
    }

    fn submit(&mut self, client: u64, call: bool, timeout: u64, parts: u8) {
        let id = self.asked.len() as u64;
        let (letter, kind) = if call {
            ("c", Kind::Call { deadline: Tick(self.driver.now.0 + timeout) })
        } else {
            ("s", Kind::Send)
        };
        let payload = Bytes::from(format!("{letter}{id:04} {parts}"));
        if self
            .driver
            .exchange
            .submit(Request { id, client, kind, payload }, self.driver.now)
            .is_ok()
        {
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
            | Replies::Sections { .. }
            | Replies::None => {}
            Replies::Id(_) | Replies::Prefix { .. } | Replies::Envelope => {
                unreachable!("they have a model of their own")
            }
        }
        reply
    }

    fn run(&mut self, most: usize) {
        let end = self.driver.written.len().min(self.driver.read + most);
        for at in self.driver.read..end {
            let byte = self.driver.written[at];
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
                self.driver.said.extend(line.bytes().chain([b'\n']));
            }
        }
        self.driver.read = end;
    }

    /// Where the first byte of a request stands in what was written.
    fn place(&self, id: u64) -> Option<usize> {
        let name = format!("{id:04} ");
        let found =
            self.driver.written.windows(name.len()).position(|seen| seen == name.as_bytes());
        // All but the last request, which may be cut short, are found by their number.
        let cut =
            self.driver.written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let tail = &self.driver.written[cut..];
        let starts = [format!("s{name}"), format!("c{name}")];
        let short = !tail.is_empty()
            && tail.len() < LINE
            && starts.iter().any(|start| start.as_bytes().starts_with(tail));
        found.map(|at| at - 1).or(short.then_some(cut))
    }

    /// The program dies, having written all that it said but perhaps the last byte, a line's end.
    fn end(&mut self, cut: bool) {
        if cut {
            self.driver.said.pop_back();
        }
        self.driver.end();
    }

    fn check(&self) {
        assert_eq!(self.driver.heard, Vec::<Bytes>::new(), "the program says nothing unasked");
        for (id, asked) in self.asked.iter().enumerate() {
            let id = id as u64;
            let outcome =
                self.driver.outcomes.get(&id).unwrap_or_else(|| panic!("{id} has no outcome"));
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
                    let never = place.is_none_or(|place| place >= self.driver.read);
                    assert!(never || self.is_unsent(id, place), "{id} was read");
                }
                (Outcome::Ended(ReadState::MaybeRead), _) => {
                    assert!(
                        place.is_some_and(|place| place < self.driver.read),
                        "{id} was not read"
                    );
                }
                (outcome, asked) => panic!("{id}: {outcome:?} of {asked:?}"),
            }
        }
        assert_eq!(
            self.driver.outcomes.len(),
            self.asked.len(),
            "an outcome of what was not accepted"
        );
    }

    /// Whether a request is not in what was written; a cut tail may look like several.
    fn is_unsent(&self, id: u64, place: Option<usize>) -> bool {
        let whole = format!("{id:04} ");
        place.is_none() || !self.driver.written.windows(5).any(|seen| seen == whole.as_bytes())
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
