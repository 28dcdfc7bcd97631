//! What was told lately, so that a client that was away can be told again, and the places in it.
//!
//! Exits are not kept here: the journal has them, by `seq`. Everything else is kept in memory for as
//! long as this manager lives, the last ones of it; what can no longer be told is named as a
//! [`Gap`]. Ports' messages have a bound of their own, so that a talkative one does not push out
//! what happened to services. Nothing here waits, reads files or looks at a clock.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::published::{Published, What};
use crate::journal::parse_since;
use crate::name::{Generation, Realm};
use crate::time::Wall;

/// How many events are kept that are neither exits nor messages …
const EVENTS_KEPT: usize = 2048;
/// … and how many messages of ports.
const MESSAGES_KEPT: usize = 256;
/// How many bytes of text each of the two may hold beside.
const TEXT_KEPT: usize = 64 << 10;

/// A place in the stream of events: everything up to here has been told. It is the id of the event
/// before it, in the form `SEQ.GENERATION.NUMBER.REALM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The last exit.
    pub seq: u64,
    /// The life of the manager that `number` counts in.
    pub generation: Generation,
    /// The last event that is no exit.
    pub number: u64,
    /// The state directory; a place in another one means nothing here.
    pub realm: Realm,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.seq, self.generation.0, self.number, self.realm)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(CursorError)
        };
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(CursorError);
        let (seq, generation) = (number(next()?)?, Generation(number(next()?)?));
        let (count, realm) = (number(next()?)?, next()?);
        let hex = realm.len() == 16 && realm.bytes().all(|byte| byte.is_ascii_hexdigit());
        let realm = realm.parse().ok().filter(|_| hex).ok_or(CursorError)?;
        if parts.next().is_some() {
            return Err(CursorError);
        }
        Ok(Self { seq, generation, number: count, realm })
    }
}

/// A text is no id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is SEQ.GENERATION.NUMBER.REALM, as the stream gives it")]
pub struct CursorError;

/// From where on a client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// After the event with this id.
    Id(Cursor),
    /// After the exit with this number.
    Seq(u64),
    /// What is not older than this.
    Time(Wall),
}

impl Since {
    /// Reads an id of an event, the `seq` of an exit, or a point in time as
    /// [`parse_since`] does.
    pub fn parse(text: &str, now: Wall) -> Result<Self, SinceTextError> {
        if let Ok(cursor) = text.parse() {
            return Ok(Self::Id(cursor));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Seq).map_err(|_| SinceTextError::Number);
        }
        parse_since(text, now).map(Self::Time).map_err(SinceTextError::Time)
    }
}

/// A text does not say from where on a client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SinceTextError {
    /// No journal has so many records.
    #[error("the number of an exit has at most 64 bits")]
    Number,
    /// It is neither an id nor a number, and no point in time.
    #[error("an event's id, the number of an exit, or a point in time is expected; {0}")]
    Time(crate::journal::SinceError),
}

/// What can no longer be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Gap {
    /// What kind of numbers `after` and `before` are.
    pub what: Missing,
    /// Why.
    pub reason: GapReason,
    /// The life of the manager whose events are missing; absent for exits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<u64>")]
    pub generation: Option<Generation>,
    /// What is missing comes after this number; absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
    /// What is missing comes before this number; absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<u64>,
}

/// What a gap is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Exits, by their `seq`.
    Exits,
    /// Events that are neither exits nor messages, by their number in the manager's life.
    Events,
    /// Messages of ports, by the same numbers.
    Messages,
}

/// Why something can no longer be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The manager that kept them has ended; exits are kept for longer.
    ManagerEnded,
    /// More has happened since than is kept.
    Overrun,
    /// The journal has no such records any more: its oldest files were removed, or lines of it
    /// cannot be read.
    NotInJournal,
    /// The place is one of another state directory, or of a journal that was removed: everything
    /// that is kept here is told.
    ElsewhereOrWiped,
}

/// What a client is given that begins to listen: what was, and where what comes begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Recalled {
    /// From where on exits are to be read in the journal.
    pub from: Cursor,
    /// Where what comes begins: exits up to its `seq` are in the journal.
    pub now: Cursor,
    /// What is kept of everything but exits, in order.
    pub kept: Vec<Arc<Published>>,
    /// What is not kept any more.
    pub gaps: Vec<Gap>,
}

/// Whether an event of this number, after the exit of that `seq`, at that time, is to be told.
type IsNew = Box<dyn Fn(u64, u64, Wall) -> bool>;

/// The last events of this manager's life.
#[derive(Debug)]
pub struct History {
    now: Cursor,
    began: (u64, Wall),
    events: Kept,
    messages: Kept,
}

/// The last events of one sort.
#[derive(Debug)]
struct Kept {
    all: VecDeque<Arc<Published>>,
    most: usize,
    text: usize,
    /// The youngest that is not kept any more.
    lost: Option<(u64, u64, Wall)>,
}

impl Kept {
    fn new(most: usize) -> Self {
        Self { all: VecDeque::new(), most, text: 0, lost: None }
    }

    fn push(&mut self, event: Arc<Published>) {
        self.text += event.what.weight();
        self.all.push_back(event);
        while self.all.len() > self.most || self.text > TEXT_KEPT {
            let Some(oldest) = self.all.pop_front() else { return };
            self.text -= oldest.what.weight();
            self.lost = Some((oldest.number, oldest.seq, oldest.ts));
        }
    }
}

impl History {
    /// Begins the history of a life of the manager: `seq` is the last exit of those before.
    pub fn new(realm: Realm, generation: Generation, seq: u64, now: Wall) -> Self {
        Self {
            now: Cursor { seq, generation, number: 0, realm },
            began: (seq, now),
            events: Kept::new(EVENTS_KEPT),
            messages: Kept::new(MESSAGES_KEPT),
        }
    }

    /// Where it stands.
    pub fn now(&self) -> Cursor {
        self.now
    }

    /// Gives what happened its place and keeps it, where it is no exit.
    pub fn add(&mut self, ts: Wall, what: What) -> Arc<Published> {
        if let What::Exit { record, .. } = &what {
            self.now.seq = record.seq;
            let (number, seq) = (self.now.number, self.now.seq);
            return Arc::new(Published { number, seq, ts, what });
        }
        self.now.number += 1;
        let (number, seq) = (self.now.number, self.now.seq);
        let message = matches!(what, What::Message { .. });
        let event = Arc::new(Published { number, seq, ts, what });
        let kept = if message { &mut self.messages } else { &mut self.events };
        kept.push(Arc::clone(&event));
        event
    }

    /// A message came of so many that nobody hears that it is not worth keeping: it has its place all
    /// the same, and what was kept before it would be told as if nothing had come after.
    pub fn overlook(&mut self, ts: Wall) {
        self.now.number += 1;
        self.messages.all.clear();
        self.messages.text = 0;
        self.messages.lost = Some((self.now.number, self.now.seq, ts));
    }

    /// What is kept since then; without a `since` nothing that was.
    pub fn recall(&self, since: Option<Since>) -> Recalled {
        let now = self.now;
        let mut gaps = Vec::new();
        let (seq, new): (u64, IsNew) = match since {
            None => (now.seq, Box::new(|_, _, _| false)),
            Some(Since::Id(place)) => {
                let (seq, number) = self.place(place, &mut gaps);
                (seq, Box::new(move |count, _, _| count > number))
            }
            Some(Since::Seq(after)) => {
                let seq = if after > now.seq { wiped(after, &mut gaps) } else { after };
                self.earlier(seq < self.began.0, &mut gaps);
                (seq, Box::new(move |_, told, _| told >= seq))
            }
            Some(Since::Time(at)) => {
                self.earlier(at < self.began.1, &mut gaps);
                (0, Box::new(move |_, _, ts| ts >= at))
            }
        };
        let mut kept = Vec::new();
        for (one, what) in [(&self.events, Missing::Events), (&self.messages, Missing::Messages)] {
            if let Some((number, told, ts)) = one.lost
                && new(number, told, ts)
            {
                let after = match since {
                    Some(Since::Id(place)) if place.generation == now.generation => place.number,
                    _ => 0,
                };
                gaps.push(Gap {
                    what,
                    reason: GapReason::Overrun,
                    generation: Some(now.generation),
                    after: Some(after),
                    before: Some(number + 1),
                });
            }
            kept.extend(one.all.iter().filter(|event| new(event.number, event.seq, event.ts)));
        }
        kept.sort_unstable_by_key(|event| event.number);
        let kept: Vec<_> = kept.into_iter().cloned().collect();
        let number = kept.first().map_or(now.number, |first| first.number - 1);
        Recalled { from: Cursor { seq, number, ..now }, now, kept, gaps }
    }

    /// The exit and the event after which a client wants to be told that was at this place.
    fn place(&self, place: Cursor, gaps: &mut Vec<Gap>) -> (u64, u64) {
        let now = self.now;
        let ahead = place.generation == now.generation && place.number > now.number;
        if place.realm != now.realm || place.generation > now.generation || ahead {
            return (wiped(place.seq, gaps), 0);
        }
        if place.generation < now.generation {
            gaps.push(Gap {
                what: Missing::Events,
                reason: GapReason::ManagerEnded,
                generation: Some(place.generation),
                after: Some(place.number),
                before: None,
            });
        }
        let seq = if place.seq > now.seq { wiped(place.seq, gaps) } else { place.seq };
        (seq, if place.generation == now.generation { place.number } else { 0 })
    }

    /// What was told in earlier lives is not kept.
    fn earlier(&self, wanted: bool, gaps: &mut Vec<Gap>) {
        if wanted && self.now.generation.0 > 1 {
            gaps.push(Gap {
                what: Missing::Events,
                reason: GapReason::ManagerEnded,
                generation: Some(Generation(self.now.generation.0 - 1)),
                after: None,
                before: None,
            });
        }
    }
}

/// The place means nothing here: everything that is kept is told.
fn wiped(after: u64, gaps: &mut Vec<Gap>) -> u64 {
    gaps.push(Gap {
        what: Missing::Exits,
        reason: GapReason::ElsewhereOrWiped,
        generation: None,
        after: Some(after),
        before: None,
    });
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Incarnation, ReplicaId, ServiceName};

    const REALM: Realm = Realm(0xabc);

    fn replica() -> ReplicaId {
        ReplicaId { service: ServiceName::new("web").unwrap(), replica: 1 }
    }

    fn ready() -> What {
        What::Ready { replica: replica(), incarnation: Incarnation(1), pid: None }
    }

    fn message(size: usize) -> What {
        let text = Some("x".repeat(size).into());
        What::Message { replica: replica(), incarnation: Incarnation(1), text, bytes: 1 }
    }

    fn exit(seq: u64) -> What {
        let text = include_str!("../../docs/exit-record.json");
        let mut record: crate::exit::ExitRecord = serde_json::from_str(text).unwrap();
        record.seq = seq;
        What::Exit { record: Arc::new(record), line: bytes::Bytes::new() }
    }

    fn numbers(recalled: &Recalled) -> Vec<u64> {
        recalled.kept.iter().map(|event| event.number).collect()
    }

    /// Two events, an exit, a message, an exit, an event, each at its own second.
    fn some() -> History {
        let mut history = History::new(REALM, Generation(3), 10, Wall(1));
        for (at, what) in
            [ready(), ready(), exit(11), message(1), exit(12), ready()].into_iter().enumerate()
        {
            history.add(Wall(10 * (at as u64 + 1)), what);
        }
        history
    }

    fn id(seq: u64, generation: u64, number: u64) -> Since {
        Since::Id(Cursor { seq, generation: Generation(generation), number, realm: REALM })
    }

    #[test]
    fn ids_survive_their_text_and_nothing_else_is_one() {
        let cursor = Cursor { seq: 7, generation: Generation(2), number: 9, realm: REALM };
        assert_eq!(cursor.to_string(), "7.2.9.0000000000000abc");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in [
            "",
            "7",
            "7.2.9",
            "7.2.9.xyz",
            "7.2.9.abc",
            "+7.2.9.0000000000000abc",
            "7.2.9.0000000000000abc.1",
            "99999999999999999999.2.9.0000000000000abc",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError), "{bad}");
        }
    }

    #[test]
    fn a_place_is_an_id_a_number_or_a_time() {
        let now = Wall(3_600_000_000_000);
        let cursor = Cursor { seq: 1, generation: Generation(1), number: 2, realm: REALM };
        assert_eq!(Since::parse(&cursor.to_string(), now), Ok(Since::Id(cursor)));
        assert_eq!(Since::parse("17", now), Ok(Since::Seq(17)));
        assert_eq!(Since::parse("1h", now), Ok(Since::Time(Wall(0))));
        assert_eq!(Since::parse("99999999999999999999", now), Err(SinceTextError::Number));
        assert!(Since::parse("", now).is_err() && Since::parse("1.2.3.x", now).is_err());
    }

    #[test]
    fn everything_after_a_place_is_told_and_nothing_before_it() {
        let history = some();
        for (since, seq, told) in [
            (None, 12, &[][..]),
            (Some(id(12, 3, 4)), 12, &[]),
            (Some(id(11, 3, 2)), 11, &[3, 4]),
            (Some(id(10, 3, 0)), 10, &[1, 2, 3, 4]),
            (Some(Since::Seq(12)), 12, &[4]),
            (Some(Since::Seq(11)), 11, &[3, 4]),
            (Some(Since::Seq(10)), 10, &[1, 2, 3, 4]),
            (Some(Since::Time(Wall(40))), 0, &[3, 4]),
            (Some(Since::Time(Wall(99))), 0, &[]),
        ] {
            let recalled = history.recall(since);
            assert_eq!((recalled.from.seq, &*numbers(&recalled)), (seq, told), "{since:?}");
            assert_eq!(recalled.gaps, [], "{since:?}");
            assert_eq!((recalled.now.seq, recalled.now.number), (12, 4));
        }
    }

    #[test]
    fn what_is_gone_is_named() {
        let history = some();
        let gap = |since| {
            let recalled = history.recall(Some(since));
            let gap = recalled.gaps.first().cloned().unwrap();
            (recalled.from.seq, recalled.kept.len(), gap.reason, gap.generation, gap.after)
        };
        let (ended, wiped) = (GapReason::ManagerEnded, GapReason::ElsewhereOrWiped);
        assert_eq!(gap(id(9, 2, 5)), (9, 4, ended, Some(Generation(2)), Some(5)));
        assert_eq!(gap(Since::Seq(9)), (9, 4, ended, Some(Generation(2)), None));
        assert_eq!(gap(Since::Time(Wall(0))), (0, 4, ended, Some(Generation(2)), None));
        assert_eq!(gap(id(13, 3, 2)), (0, 2, wiped, None, Some(13)));
        assert_eq!(gap(id(12, 3, 5)), (0, 4, wiped, None, Some(12)));
        assert_eq!(gap(id(12, 4, 1)), (0, 4, wiped, None, Some(12)));
        assert_eq!(gap(Since::Seq(13)), (0, 4, wiped, None, Some(13)));
        let other = Cursor { realm: Realm(1), ..history.now() };
        assert_eq!(gap(Since::Id(other)), (0, 4, wiped, None, Some(12)));
    }

    #[test]
    fn what_was_overlooked_is_a_gap() {
        let mut history = some();
        history.overlook(Wall(70));
        history.add(Wall(80), message(1));
        let recalled = history.recall(Some(id(10, 3, 2)));
        assert_eq!(numbers(&recalled), [4, 6]);
        let [gap] = &recalled.gaps[..] else { panic!("{:?}", recalled.gaps) };
        assert_eq!((gap.what, gap.after, gap.before), (Missing::Messages, Some(2), Some(6)));
        assert_eq!(history.recall(Some(id(10, 3, 5))).gaps, []);
    }

    #[test]
    fn both_sorts_are_bounded_and_neither_pushes_out_the_other() {
        let mut history = History::new(REALM, Generation(1), 0, Wall(0));
        history.add(Wall(1), ready());
        for _ in 0..10 * MESSAGES_KEPT {
            history.add(Wall(2), message(1));
        }
        let recalled = history.recall(Some(id(0, 1, 1)));
        assert_eq!(recalled.kept.len(), MESSAGES_KEPT);
        let [gap] = &recalled.gaps[..] else { panic!("{:?}", recalled.gaps) };
        assert_eq!((gap.what, gap.reason), (Missing::Messages, GapReason::Overrun));
        assert_eq!((gap.after, gap.before), (Some(1), Some(recalled.kept[0].number)));
        assert_eq!(numbers(&history.recall(Some(id(0, 1, 0))))[0], 1, "the event is kept");

        for _ in 0..100 {
            history.add(Wall(3), message(4096));
        }
        assert!(history.messages.text <= TEXT_KEPT && history.messages.all.len() <= 16);
        for _ in 0..2 * EVENTS_KEPT {
            history.add(Wall(4), ready());
        }
        assert_eq!(history.events.all.len(), EVENTS_KEPT);
        let recalled = history.recall(Some(Since::Time(Wall(4))));
        assert_eq!(recalled.gaps.len(), 1, "only what was wanted is missed: {:?}", recalled.gaps);
    }
}
