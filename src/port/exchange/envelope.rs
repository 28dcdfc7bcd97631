//! The side of wire protocol 1 that is no request: HELLO, READY, DRAIN, EXIT, what the program says of
//! itself, and what is refused by name.
//!
//! One machine a port: it hears each frame of the program, keeps what is to be answered in a lane of
//! its own, which is bounded, and says what a frame means to the rest of the exchange. It never sees
//! a byte of the wire and never decides what follows from a broken protocol.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::outgoing::size;
use crate::bytes_text;
use crate::message::{
    Credit, Drain, Exit, Failure, Flags, Form, Frame, Hello, Kind, Level, Log, Mode, PROTO,
    Payloads, Ready,
};

/// How many answers may wait for a program that does not read. What is beyond is dropped: it is the
/// program's own loss.
const LANE: usize = 64;

/// What the manager acts on beyond the least.
const FEATURES: [&str; 1] = ["log"];

/// What a port of wire protocol 1 stands on beside its requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Envelope {
    phase: Phase,
    /// What the program said of itself.
    hello: Option<Hello>,
    /// How many data frames it still takes; `None` as many as its input does.
    credit: Option<u32>,
    /// What is to be written before anything else.
    lane: VecDeque<Frame>,
    /// The parts of replies that have begun, by the number of their call.
    parts: BTreeMap<u64, Parts>,
    /// Why it never will be ready.
    failed: Option<String>,
    exit: Option<Exit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Nothing has come.
    Silent,
    /// HELLO has been said in both directions.
    Greeted,
    /// It can be called.
    Open,
    /// It said that it never will be.
    Hopeless,
    /// It was told that no more calls will come.
    Draining,
    /// It has said EXIT.
    Left,
}

/// A reply in the making.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Parts {
    #[serde(with = "bytes_text::list")]
    messages: Vec<Bytes>,
    bytes: u64,
}

/// What a frame means to the exchange.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// Nothing more.
    Nothing,
    /// Said after EXIT, or for a channel that is not there: it is dropped.
    Dropped,
    /// The program introduced itself: what it cannot take is refused.
    Hello,
    /// It can be called from now on.
    Ready,
    /// It never will be: its input is to be closed.
    Hopeless,
    /// A message for whoever listens.
    Event(Bytes),
    /// A line for its log, with an LF.
    Log(Bytes),
    /// A part of the reply to the call with this number; the last one without `more`.
    Reply { number: u64, payload: Bytes, more: bool },
    /// The call with this number failed.
    Failed { number: u64, failure: Failure },
    /// It broke the protocol, in words that can follow "the frame".
    Wrong(String),
}

impl Envelope {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Silent,
            hello: None,
            credit: None,
            lane: VecDeque::new(),
            parts: BTreeMap::new(),
            failed: None,
            exit: None,
        }
    }

    /// Whether requests may be written.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it said that it never will be ready.
    pub(super) fn is_hopeless(&self) -> bool {
        self.phase == Phase::Hopeless
    }

    /// Whether it counts as ready. That does not change when it is told to come to an end.
    pub(super) fn is_ready(&self) -> bool {
        match self.phase {
            Phase::Silent | Phase::Greeted | Phase::Hopeless => false,
            Phase::Open | Phase::Draining | Phase::Left => true,
        }
    }

    /// What is waited for, in words that make a sentence.
    pub(super) fn unready(&self) -> Option<String> {
        let due = match (self.phase, &self.failed) {
            (Phase::Open | Phase::Draining | Phase::Left, _) => return None,
            (_, Some(why)) => return Some(format!("it said that it never will be ready: {why}")),
            (Phase::Silent | Phase::Hopeless, None) => "HELLO",
            (Phase::Greeted, None) => "READY",
        };
        Some(format!("it was not ready: {due} of wire protocol 1 was waited for and did not come"))
    }

    /// What it said of its end, in words that make a sentence.
    pub(super) fn farewell(&self) -> Option<String> {
        let exit = self.exit.as_ref()?;
        let mut words = format!("its EXIT said: {}", exit.reason.as_str());
        let more = [
            exit.message.clone(),
            exit.place.as_ref().map(|place| format!("at {place}")),
            exit.value.as_ref().map(|value| format!("value {value}")),
        ];
        for more in more.into_iter().flatten() {
            words.push_str(", ");
            words.push_str(&more);
        }
        Some(shortened(&words, 1024).to_owned())
    }

    /// Whether it may be sent data, calls apart.
    pub(super) fn has_credit(&self) -> bool {
        self.credit != Some(0)
    }

    /// A data frame is on its way to it.
    pub(super) fn spend(&mut self) {
        self.credit = self.credit.map(|credit| credit.saturating_sub(1));
    }

    /// How many calls it works on at once; before it has said so, none.
    pub(super) fn concurrency(&self) -> u64 {
        self.hello.as_ref().map_or(0, |hello| u64::from(hello.concurrency))
    }

    /// Whether it has said that it takes no calls.
    pub(super) fn takes_no_calls(&self) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.concurrency == 0)
    }

    /// The largest message that it takes, in bytes, once it has said so.
    pub(super) fn largest(&self) -> Option<u64> {
        self.hello.as_ref().map(|hello| hello.max_frame)
    }

    /// How frames are written to it.
    pub(super) fn form(&self, mode: Mode) -> Form {
        let (enc, max_frame) = match &self.hello {
            Some(hello) => (hello.enc, hello.max_frame),
            None => (Payloads::Raw, u64::MAX),
        };
        Form { mode, enc, max_frame }
    }

    /// The next frame that nobody requested.
    pub(super) fn next(&mut self) -> Option<Frame> {
        self.lane.pop_front()
    }

    /// Whether one waits.
    pub(super) fn is_idle(&self) -> bool {
        self.lane.is_empty()
    }

    /// No more calls will come, and the program has so long to end.
    pub(super) fn drain(&mut self, deadline_ms: u64) {
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Draining;
                self.lane.push_back(Frame::control(Kind::Drain, 0, &Drain { deadline_ms }));
            }
            // Who is not there yet is not spoken to, and who is leaving knows.
            Phase::Silent | Phase::Greeted | Phase::Hopeless | Phase::Draining | Phase::Left => {}
        }
    }

    /// Nobody wants the answer to the call with this number any more.
    pub(super) fn cancel(&mut self, number: u64) {
        self.parts.remove(&number);
        if self.is_ready() {
            self.answer(Frame::new(Kind::Cancel, number, Bytes::new()));
        }
    }

    /// Keeps a part of a reply, as far as it may grow. `false` where it may not.
    pub(super) fn keep(&mut self, number: u64, part: Bytes, max: u64) -> bool {
        let parts = self.parts.entry(number).or_default();
        // An empty part takes room too.
        parts.bytes = parts.bytes.saturating_add(size(part.len()));
        let fits = parts.bytes <= max && size(parts.messages.len()) < (max / 16).max(1024);
        if fits {
            parts.messages.push(part);
        }
        fits
    }

    /// All parts of a reply, which is complete or will never be.
    pub(super) fn parts(&mut self, number: u64) -> Vec<Bytes> {
        self.parts.remove(&number).unwrap_or_default().messages
    }

    /// The bytes of the parts that came of a reply.
    pub(super) fn part_bytes(&self, number: u64) -> u64 {
        self.parts.get(&number).map_or(0, |parts| parts.bytes)
    }

    fn answer(&mut self, frame: Frame) {
        if self.lane.len() < LANE {
            self.lane.push_back(frame);
        }
    }

    fn refuse(&mut self, frame: &Frame) -> Heard {
        self.answer(Frame::failure(frame.id, &Failure::not_supported(frame.kind)));
        Heard::Nothing
    }

    /// The program sent a frame. `max_frame` is the largest that is taken from it, in bytes.
    pub(super) fn hear(&mut self, frame: Frame, max_frame: u64) -> Heard {
        match (self.phase, frame.kind) {
            (Phase::Silent, Kind::Hello) => self.greet(&frame, max_frame),
            (Phase::Silent, kind) => {
                Heard::Wrong(format!("is of the kind {kind}, and HELLO is due"))
            }
            (Phase::Left, _) => Heard::Dropped,
            (Phase::Greeted, Kind::Ready) => self.get_ready(&frame),
            (
                Phase::Greeted | Phase::Open | Phase::Hopeless | Phase::Draining,
                Kind::Hello | Kind::Ready,
            ) => Heard::Wrong(format!("is a second {}", frame.kind)),
            (Phase::Greeted | Phase::Open | Phase::Hopeless | Phase::Draining, _) => {
                self.hear_more(frame)
            }
        }
    }

    /// A frame that may come at any time between HELLO and EXIT.
    fn hear_more(&mut self, frame: Frame) -> Heard {
        let wants_reply = !frame.flags.has(Flags::NOREPLY);
        match frame.kind {
            Kind::Data if frame.id == 0 && frame.to.is_none() => Heard::Event(frame.payload),
            Kind::Reply => {
                let more = frame.flags.has(Flags::MORE);
                Heard::Reply { number: frame.id, payload: frame.payload, more }
            }
            Kind::Error => self.reads(&frame, |_, failure: Failure| match frame.id {
                0 => Heard::Log(log_line(Level::Error, &failure.message)),
                number => Heard::Failed { number, failure },
            }),
            Kind::Credit if frame.id == 0 => self.reads(&frame, |this, credit: Credit| {
                this.credit = this.credit.map(|had| had.saturating_add(credit.frames));
                Heard::Nothing
            }),
            Kind::Ping => {
                self.answer(Frame::new(Kind::Pong, frame.id, Bytes::new()));
                Heard::Nothing
            }
            Kind::Exit => self.reads(&frame, |this, exit: Exit| {
                this.phase = Phase::Left;
                this.exit = Some(exit);
                Heard::Nothing
            }),
            Kind::Log => self.reads(&frame, |_, log: Log| {
                let fields = if log.fields.is_empty() {
                    String::new()
                } else {
                    format!(" {}", serde_json::Value::Object(log.fields))
                };
                Heard::Log(log_line(log.level, &format!("{}{fields}", log.message)))
            }),
            Kind::Call if !wants_reply => Heard::Dropped,
            // Where there is nothing to cancel or nobody asked, there is nothing to say.
            Kind::Cancel | Kind::Pong => Heard::Nothing,
            Kind::Call
            | Kind::Data
            | Kind::Credit
            | Kind::Send
            | Kind::Peer
            | Kind::Monitor
            | Kind::Demonitor
            | Kind::Link
            | Kind::Unlink
            | Kind::Spawn
            | Kind::Metric => self.refuse(&frame),
            Kind::Hello | Kind::Ready | Kind::Missed | Kind::Drain | Kind::Down => Heard::Wrong(
                format!("is of the kind {}, which a program does not send", frame.kind),
            ),
        }
    }

    /// Goes on with the payload of a control frame, if it is one.
    fn reads<T: DeserializeOwned>(
        &mut self,
        frame: &Frame,
        then: impl FnOnce(&mut Self, T) -> Heard,
    ) -> Heard {
        match frame.read() {
            Ok(payload) => then(self, payload),
            Err(error) => Heard::Wrong(format!("cannot be understood: cannot {error}")),
        }
    }

    fn greet(&mut self, frame: &Frame, max_frame: u64) -> Heard {
        self.reads(frame, |this, hello: Hello| {
            if hello.proto != PROTO {
                let proto = hello.proto;
                return Heard::Wrong(format!(
                    "speaks version {proto} of the protocol, {PROTO} is due"
                ));
            }
            let mut own = Hello::new("wharf", env!("CARGO_PKG_VERSION"));
            own.concurrency = 0;
            own.max_frame = max_frame;
            own.features = FEATURES.map(str::to_owned).to_vec();
            this.lane.push_back(Frame::control(Kind::Hello, 0, &own));
            this.credit = hello.credit;
            this.hello = Some(hello);
            this.phase = Phase::Greeted;
            Heard::Hello
        })
    }

    fn get_ready(&mut self, frame: &Frame) -> Heard {
        self.reads(frame, |this, ready: Ready| match ready.failed {
            None => {
                this.phase = Phase::Open;
                Heard::Ready
            }
            Some(why) => {
                this.phase = Phase::Hopeless;
                this.failed = Some(shortened(&why, 1024).to_owned());
                Heard::Hopeless
            }
        })
    }
}

/// A line for the log: what it says stands on one line, whatever it holds.
fn log_line(level: Level, words: &str) -> Bytes {
    let words = words.trim_end_matches('\n').replace('\n', "\\n");
    Bytes::from(format!("{}: {words}\n", level.as_str()))
}

/// The beginning of a text, at most so many bytes of it.
fn shortened(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeted() -> Envelope {
        let mut envelope = Envelope::new();
        assert!(envelope.unready().unwrap().contains("HELLO"));
        let hello = Frame::new(Kind::Hello, 0, r#"{"proto":1,"concurrency":2,"credit":1}"#);
        assert_eq!(envelope.hear(hello, 1000), Heard::Hello);
        assert!(envelope.unready().unwrap().contains("READY"));
        let own: Hello = envelope.next().unwrap().read().unwrap();
        assert_eq!((own.max_frame, own.concurrency, &*own.features[0]), (1000, 0, "log"));
        envelope
    }

    fn open() -> Envelope {
        let mut envelope = greeted();
        assert_eq!(envelope.hear(Frame::new(Kind::Ready, 0, ""), 1000), Heard::Ready);
        assert!(envelope.is_open() && envelope.unready().is_none() && envelope.is_idle());
        envelope
    }

    #[track_caller]
    fn check_wrong(envelope: &mut Envelope, frame: Frame, expected: &str) {
        let Heard::Wrong(what) = envelope.hear(frame, 1000) else { panic!("it is taken") };
        assert!(what.starts_with(expected), "{what}");
    }

    #[test]
    fn hello_comes_first_once_and_in_this_version() {
        let first = Frame::new(Kind::Ready, 0, "");
        check_wrong(&mut Envelope::new(), first, "is of the kind READY, and HELLO is due");
        let new = Frame::new(Kind::Hello, 0, r#"{"proto":2}"#);
        check_wrong(&mut Envelope::new(), new, "speaks version 2 of the protocol, 1 is due");
        let bad = Frame::new(Kind::Hello, 0, "[]");
        check_wrong(&mut Envelope::new(), bad, "cannot be understood: cannot read the payload of");
        let again = Frame::new(Kind::Hello, 0, r#"{"proto":1}"#);
        check_wrong(&mut open(), again, "is a second HELLO");
        check_wrong(&mut open(), Frame::new(Kind::Ready, 0, ""), "is a second READY");
        let mut drained = open();
        drained.drain(5);
        check_wrong(&mut drained, Frame::new(Kind::Drain, 0, ""), "is of the kind DRAIN, which a");
    }

    #[test]
    fn what_waits_is_refused_by_name() {
        let mut envelope = open();
        for kind in [Kind::Monitor, Kind::Link, Kind::Spawn, Kind::Metric, Kind::Call, Kind::Unlink]
        {
            assert_eq!(envelope.hear(Frame::new(kind, 7, ""), 1000), Heard::Nothing);
            let answer = envelope.next().unwrap();
            let failure: Failure = answer.read().unwrap();
            assert_eq!((answer.kind, answer.id), (Kind::Error, 7));
            assert_eq!(failure.message, format!("{kind} is not supported yet"));
        }
        let wanted = Frame::new(Kind::Call, 7, "").with(Flags::NOREPLY);
        assert_eq!(envelope.hear(wanted, 1000), Heard::Dropped);
    }

    #[test]
    fn the_lane_is_bounded_and_keeps_its_order() {
        let mut envelope = open();
        for id in 0..1000 {
            assert_eq!(envelope.hear(Frame::new(Kind::Ping, id, ""), 1000), Heard::Nothing);
        }
        let ids: Vec<_> = std::iter::from_fn(|| envelope.next()).map(|frame| frame.id).collect();
        assert_eq!(ids, (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn credit_is_spent_and_granted() {
        let mut envelope = open();
        assert!(envelope.has_credit());
        envelope.spend();
        assert!(!envelope.has_credit());
        let grant = Frame::new(Kind::Credit, 0, r#"{"frames":2}"#);
        assert_eq!(envelope.hear(grant, 1000), Heard::Nothing);
        assert!(envelope.has_credit());
    }

    #[test]
    fn the_last_words_are_kept() {
        let mut envelope = open();
        envelope.drain(250);
        envelope.drain(250);
        let drain = envelope.next().unwrap();
        assert_eq!((drain.kind, &drain.payload[..]), (Kind::Drain, &b"{\"deadline_ms\":250}"[..]));
        assert!(envelope.is_idle() && !envelope.is_open() && envelope.is_ready());
        let exit = r#"{"reason":"panicked","message":"no","place":"a.rs:1","value":3}"#;
        assert_eq!(envelope.hear(Frame::new(Kind::Exit, 0, exit), 1000), Heard::Nothing);
        assert_eq!(envelope.farewell().unwrap(), "its EXIT said: panicked, no, at a.rs:1, value 3");
        assert_eq!(envelope.hear(Frame::new(Kind::Data, 0, ""), 1000), Heard::Dropped);
    }

    #[test]
    fn what_never_will_be_ready_says_why() {
        let mut envelope = greeted();
        let failed = Frame::new(Kind::Ready, 0, r#"{"failed":"no licence"}"#);
        assert_eq!(envelope.hear(failed, 1000), Heard::Hopeless);
        assert!(envelope.unready().unwrap().ends_with("never will be ready: no licence"));
    }

    #[test]
    fn a_log_frame_is_one_line() {
        let log = r#"{"level":"warn","message":"two\nlines","fields":{"ms":8}}"#;
        let heard = open().hear(Frame::new(Kind::Log, 0, log), 1000);
        assert_eq!(heard, Heard::Log(Bytes::from("warn: two\\nlines {\"ms\":8}\n")));
    }
}
