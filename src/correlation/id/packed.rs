//! An id at a place of a MessagePack message that a pointer names, as MessagePack-RPC has it
//! (<https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md>): there it is `/1`.
//!
//! A step of the pointer is an index of a list, or a key of a map, which is a string. An id of any
//! type is the caller's to choose; wharf sends a number of 32 bits. From the program, a list that
//! begins with 0 or 2 is a request or a notification of its own, as in MessagePack-RPC, and so is a
//! map with a key `method` beside the id. Everything else with a number in the place is a reply.
//! A message is looked through without recursion, and nothing of it is kept.

use core::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::pointer::steps;
use super::{IdError, LONGEST};
use crate::correlation::{BadRule, Own, Sign, Tag};

/// The first byte of an unsigned number of 32 bits.
const U32: u8 = 0xce;
/// How many bytes such a number has after it.
const WIDTH: usize = 4;
/// Beside the id it makes a map a request.
const METHOD: &[u8] = b"method";

#[derive(Debug)]
pub(in crate::correlation) struct Packed {
    /// As written.
    text: String,
    steps: Vec<String>,
}

impl Packed {
    pub(super) fn new(text: &str) -> Result<Self, BadRule> {
        Ok(Self { text: text.to_owned(), steps: steps(text)? })
    }

    pub(super) fn tag(&self, request: &Bytes) -> Result<(Bytes, Tag), IdError> {
        let seen = self.look(request).ok_or(IdError::NotMessagePack)?;
        if seen.twice {
            return Err(IdError::Twice { pointer: self.text.clone() });
        }
        let Some(at) = seen.id else { return Err(IdError::None { pointer: self.text.clone() }) };
        if at.len() > LONGEST {
            return Err(IdError::Long { size: at.len() });
        }
        let own = Bytes::copy_from_slice(&request[at.clone()]);
        let mut whole = BytesMut::with_capacity(request.len() - at.len() + 1 + WIDTH);
        whole.put_slice(&request[..at.start]);
        whole.put_u8(U32);
        let place = whole.len();
        whole.put_bytes(0, WIDTH);
        whole.put_slice(&request[at.end..]);
        Ok((whole.freeze(), Tag { at: place, own }))
    }

    pub(super) fn write(number: u64, place: &mut [u8]) {
        let bytes = number.to_be_bytes();
        if let Some(place) = place.get_mut(..WIDTH) {
            place.copy_from_slice(&bytes[bytes.len() - WIDTH..]);
        }
    }

    pub(super) fn sign(&self, message: &Bytes) -> Sign {
        let Some(seen) = self.look(message) else { return Sign::Foreign };
        let Some(at) = seen.id.filter(|_| !seen.own_word) else { return Sign::Notification };
        match value(message, at.start) {
            Some(Value::Nil) => Sign::Notification,
            Some(Value::Number(number)) if !seen.twice => {
                Sign::Reply { number, at, own: Own::AsSent }
            }
            _ => Sign::Unknown,
        }
    }

    /// `None` where the message is not one whole value.
    fn look(&self, message: &[u8]) -> Option<Seen> {
        if after(message, 0)? != message.len() {
            return None;
        }
        let mut seen = Seen::default();
        let mut at = 0;
        for (deep, step) in self.steps.iter().enumerate() {
            let last = deep + 1 == self.steps.len();
            let found = match value(message, at)? {
                Value::List { first, count } => {
                    let found = item(message, first, count, step);
                    let kind = found.and_then(|id| (id > first).then(|| value(message, first)));
                    seen.own_word = last && matches!(kind, Some(Some(Value::Number(0 | 2))));
                    found
                }
                Value::Map { first, count } => member(message, first, count, step, last, &mut seen),
                Value::Nil | Value::Number(_) | Value::Other { .. } => None,
            };
            let Some(found) = found else { return Some(seen) };
            at = found;
        }
        seen.id = Some(at..after(message, at)?);
        Some(seen)
    }
}

/// What was found in a message.
#[derive(Debug, Default)]
struct Seen {
    id: Option<Range<usize>>,
    /// A key on the way to the id stands there more than once.
    twice: bool,
    /// What holds the id is a request or a notification.
    own_word: bool,
}

/// Where an item of a list begins, if there is one; the list must be whole.
fn item(message: &[u8], first: usize, count: u64, step: &str) -> Option<usize> {
    // A leading zero is no index (RFC 6901, section 4).
    let index = step.parse::<u64>().ok().filter(|index| index.to_string() == *step);
    let index = index.filter(|index| *index < count)?;
    let mut at = first;
    for _ in 0..index {
        at = after(message, at)?;
    }
    Some(at)
}

/// Where a member of a map begins, if there is one; the map must be whole.
fn member(
    message: &[u8],
    first: usize,
    count: u64,
    step: &str,
    last: bool,
    seen: &mut Seen,
) -> Option<usize> {
    let (mut at, mut found) = (first, None);
    for _ in 0..count {
        let key = text(message, at);
        let value = after(message, at)?;
        if key == Some(step.as_bytes()) {
            seen.twice |= found.is_some();
            found.get_or_insert(value);
        } else if last && key == Some(METHOD) {
            seen.own_word = true;
        }
        at = after(message, value)?;
    }
    found
}

/// What stands at a place.
enum Value {
    Nil,
    /// One that is not below 0.
    Number(u64),
    List {
        first: usize,
        count: u64,
    },
    Map {
        first: usize,
        count: u64,
    },
    /// Anything else, and where it ends.
    Other {
        end: usize,
    },
}

/// The value that begins at `at`, whose first bytes must be there; of what it holds nothing is
/// looked at.
fn value(message: &[u8], at: usize) -> Option<Value> {
    let kind = *message.get(at)?;
    let next = at + 1;
    // A big-endian number of so many bytes, and where it ends.
    let number = |width: usize| {
        let end = next.checked_add(width)?;
        let bytes = message.get(next..end)?;
        Some((bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte)), end))
    };
    let skip = |(length, end): (u64, usize), more: usize| {
        let end = end.checked_add(usize::try_from(length).ok()?)?.checked_add(more)?;
        Some(Value::Other { end })
    };
    let low = |bits: u8| u64::from(kind & bits);
    Some(match kind {
        0x00..=0x7f => Value::Number(u64::from(kind)),
        0x80..=0x8f => Value::Map { first: next, count: low(0x0f) },
        0x90..=0x9f => Value::List { first: next, count: low(0x0f) },
        0xa0..=0xbf => skip((low(0x1f), next), 0)?,
        0xc0 => Value::Nil,
        0xc1 => return None,
        0xc2 | 0xc3 | 0xe0..=0xff => Value::Other { end: next },
        0xc4 | 0xd9 => skip(number(1)?, 0)?,
        0xc5 | 0xda => skip(number(2)?, 0)?,
        0xc6 | 0xdb => skip(number(4)?, 0)?,
        // An extension has a byte that says what it is.
        0xc7 => skip(number(1)?, 1)?,
        0xc8 => skip(number(2)?, 1)?,
        0xc9 => skip(number(4)?, 1)?,
        0xd4..=0xd8 => skip((1 << (kind - 0xd4), next), 1)?,
        0xca => Value::Other { end: next + 4 },
        0xcb => Value::Other { end: next + 8 },
        0xcc | 0xd0 => integer(number(1)?, 1, kind),
        0xcd | 0xd1 => integer(number(2)?, 2, kind),
        0xce | 0xd2 => integer(number(4)?, 4, kind),
        0xcf | 0xd3 => integer(number(8)?, 8, kind),
        0xdc | 0xdd => {
            let (count, first) = number(if kind == 0xdc { 2 } else { 4 })?;
            Value::List { first, count }
        }
        0xde | 0xdf => {
            let (count, first) = number(if kind == 0xde { 2 } else { 4 })?;
            Value::Map { first, count }
        }
    })
}

/// An integer, which a sign makes no number of ours where it is set.
fn integer((number, end): (u64, usize), width: u32, kind: u8) -> Value {
    let negative = kind >= 0xd0 && number >> (width * 8 - 1) == 1;
    if negative { Value::Other { end } } else { Value::Number(number) }
}

/// The bytes of the string at a place.
fn text(message: &[u8], at: usize) -> Option<&[u8]> {
    let head = match *message.get(at)? {
        0xa0..=0xbf => 1,
        0xd9 => 2,
        0xda => 3,
        0xdb => 5,
        _ => return None,
    };
    message.get(at + head..after(message, at)?)
}

/// Where the value at a place ends, all it holds included. Each turn takes a byte at least.
fn after(message: &[u8], mut at: usize) -> Option<usize> {
    let mut lacks: u64 = 1;
    while lacks > 0 {
        lacks -= 1;
        at = match value(message, at)? {
            Value::Nil => at + 1,
            Value::Number(_) => at + width(*message.get(at)?),
            Value::Other { end } => end,
            Value::List { first, count } => {
                lacks = lacks.checked_add(count)?;
                first
            }
            Value::Map { first, count } => {
                lacks = lacks.checked_add(count.checked_mul(2)?)?;
                first
            }
        };
        if at > message.len() {
            return None;
        }
    }
    Some(at)
}

/// How many bytes a number takes, by its first.
fn width(kind: u8) -> usize {
    match kind {
        0xcc | 0xd0 => 2,
        0xcd | 0xd1 => 3,
        0xce | 0xd2 => 5,
        0xcf | 0xd3 => 9,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::correlation::{Correlator, Outcome, Rule};
    use crate::spec::{Framing, IdPlace, Replies};

    const MAX: u64 = 1 << 20;

    fn rule(pointer: &str) -> Rule {
        let replies = Replies::Id(IdPlace::Pointer(pointer.to_owned()));
        Rule::within(&replies, &Framing::Msgpack).unwrap()
    }

    /// A call's request as it is sent, and its number.
    fn called(rule: &Rule, port: &mut Correlator, request: &[u8]) -> (Bytes, u64) {
        let (tagged, tag) = rule.tag(Bytes::copy_from_slice(request)).unwrap();
        let tag = tag.unwrap();
        let number = port.reserve(rule, 7, &tag, 5).unwrap();
        port.begin_numbered(number);
        (rule.numbered(tagged, &tag, number), number)
    }

    #[test]
    fn an_id_goes_out_as_a_number_and_comes_back_as_it_was() {
        // [0, ID, "f", []] and the replies [1, NUMBER, nil, 42] in each form of a number.
        for id in
            [&b"\x01"[..], b"\xcd\x01\x00", b"\xa1x", b"\xc0", b"\x92\x01\x02", b"\x81\xa1a\xc3"]
        {
            for form in [b'\xce', b'\xd2', b'\xcf', b'\xd3'] {
                let (rule, mut port) = (rule("/1"), Correlator::default());
                let request = [b"\x94\x00", id, b"\xa1f\x90"].concat();
                let (sent, number) = called(&rule, &mut port, &request);
                let digits = number.to_be_bytes();
                assert_eq!(sent, [b"\x94\x00\xce", &digits[4..], b"\xa1f\x90"].concat());
                let digits = if matches!(form, b'\xce' | b'\xd2') { &digits[4..] } else { &digits };
                let said = [&b"\x94\x01"[..], &[form], digits, b"\xc0\x2a"].concat();
                let reply = Bytes::from([b"\x94\x01", id, b"\xc0\x2a"].concat());
                let told = port.take(&rule, said.into(), MAX);
                assert_eq!(told, Outcome::Done { call: 7, reply: vec![reply] });
            }
        }
    }

    #[test]
    fn an_id_may_lie_deep_in_lists_and_maps() {
        let (rule, mut port) = (rule("/head/0/a~1b"), Correlator::default());
        // {"x": nil, "head": [{"a/b": 9, "c": 1.5}, 2]}
        let request = b"\x82\xa1x\xc0\xa4head\x92\x82\xa3a/b\x09\xa1c\xcb\x3f\xf8\0\0\0\0\0\0\x02";
        let (sent, _) = called(&rule, &mut port, request);
        assert_eq!(sent.len(), request.len() + 4);
        let told = port.take(&rule, sent, MAX);
        let reply = Bytes::from_static(request);
        assert_eq!(told, Outcome::Done { call: 7, reply: vec![reply] });
    }

    #[test]
    fn what_the_program_says_of_itself_is_no_reply() {
        let (one, map) = (rule("/1"), rule("/id"));
        let mut port = Correlator::default();
        let (_, number) = called(&one, &mut port, b"\x94\x00\x01\xa1f\x90");
        let number = &number.to_be_bytes()[4..];
        for (rule, said, expected) in [
            // A request, a notification, a nil, and a list without so many items.
            (&one, [b"\x94\x00\xce", number, b"\xa1f\x90"].concat(), None),
            (&one, b"\x93\x02\xa1f\x90".to_vec(), None),
            (&one, b"\x94\x01\xc0\xc0\xc0".to_vec(), None),
            (&one, b"\x91\x01".to_vec(), None),
            (&map, [b"\x82\xa6method\xa1f\xa2id\xce", number].concat(), None),
            // No number of ours: a text, one below 0, one that nobody has, the same key twice.
            (&one, b"\x94\x01\xa1x\xc0\xc0".to_vec(), Some(Outcome::Unmatched)),
            (&one, b"\x94\x01\xff\xc0\xc0".to_vec(), Some(Outcome::Unmatched)),
            (&one, b"\x94\x01\x07\xc0\xc0".to_vec(), Some(Outcome::Unmatched)),
            (&map, b"\x82\xa2id\x01\xa2id\x01".to_vec(), Some(Outcome::Unmatched)),
        ] {
            let said = Bytes::from(said);
            let expected = expected.unwrap_or_else(|| Outcome::Notification(said.clone()));
            assert_eq!(port.take(rule, said.clone(), MAX), expected, "{}", said.escape_ascii());
        }
        let text = Bytes::from_static(b"\x94\x01");
        assert_eq!(port.take(&one, text.clone(), MAX), Outcome::Event(text));
    }

    #[test]
    fn a_request_without_an_id_is_refused_with_its_reason() {
        for (request, said) in [
            (&b"{\"id\":1}"[..], "the message is not one whole MessagePack value"),
            (b"\x94\x00", "the message is not one whole MessagePack value"),
            (b"\xdf\xff\xff\xff\xff", "the message is not one whole MessagePack value"),
            (b"\x80", "the message has nothing at /id"),
            (b"\xc0", "the message has nothing at /id"),
            (b"\x82\xa2id\x01\xa2id\x01", "the message has /id more than once"),
        ] {
            let refused = rule("/id").tag(Bytes::from_static(request)).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
        let long = [b"\x81\xa2id\xc5\x10\x00", &[0; 4096][..]].concat();
        let refused = rule("/id").tag(long.into()).unwrap_err();
        assert_eq!(refused, IdError::Long { size: 4099 });
    }

    proptest! {
        #[test]
        fn garbage_is_borne(bytes: Vec<u8>, tail: Vec<u8>) {
            let (rule, mut port) = (rule("/1"), Correlator::default());
            let (_, number) = called(&rule, &mut port, b"\x94\x00\x01\xa1f\x90");
            let said = [b"\x94\x01\xce", &number.to_be_bytes()[4..], &bytes, &tail].concat();
            for said in [bytes, said] {
                let whole = Bytes::from(said);
                if let Ok((tagged, Some(tag))) = rule.tag(whole.clone()) {
                    prop_assert_eq!(rule.numbered(tagged.clone(), &tag, 1 << 30).len(), tagged.len());
                }
                match port.take(&rule, whole.clone(), MAX) {
                    Outcome::Event(same) | Outcome::Notification(same) => {
                        prop_assert_eq!(same, whole);
                    }
                    Outcome::Done { call, .. } => prop_assert_eq!(call, 7),
                    Outcome::Unmatched => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
