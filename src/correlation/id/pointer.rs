//! An id at a place of a JSON message that a JSON pointer names (RFC 6901), as JSON-RPC 2.0 has it.
//!
//! A message is looked through once, nothing of it is kept, and what is not the id may be any bytes
//! that JSON allows, well-formed UTF-8 or not. An id of any type is the caller's to choose; wharf
//! sends a string where it was a string and a number otherwise. From the program an object with a
//! member `method` beside the id is a request of its own; one without an id, or with `null`, is a
//! notification. Everything else with an id is a reply.

use core::fmt;
use core::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{IdError, LONGEST};
use crate::correlation::flight::DIGITS;
use crate::correlation::{BadRule, Own, Sign, Tag};

/// Beside the id it makes a message a request.
const METHOD: &str = "method";

#[derive(Debug)]
pub(in crate::correlation) struct Pointer {
    /// As written.
    text: String,
    steps: Vec<String>,
}

impl Pointer {
    pub(in crate::correlation) fn new(text: &str) -> Result<Self, BadRule> {
        Ok(Self { text: text.to_owned(), steps: steps(text)? })
    }

    pub(super) fn tag(&self, request: &Bytes) -> Result<(Bytes, Tag), IdError> {
        let seen =
            self.look(request).map_err(|error| IdError::NotJson { why: error.to_string() })?;
        if seen.twice {
            return Err(IdError::Twice { pointer: self.text.clone() });
        }
        let Some(at) = seen.id else { return Err(IdError::None { pointer: self.text.clone() }) };
        if at.len() > LONGEST {
            return Err(IdError::Long { size: at.len() });
        }
        let own = Bytes::copy_from_slice(&request[at.clone()]);
        let quote: &[u8] = if own.starts_with(b"\"") { b"\"" } else { b"" };
        let mut whole = BytesMut::with_capacity(request.len() - at.len() + DIGITS + 2);
        whole.put_slice(&request[..at.start]);
        whole.put_slice(quote);
        let place = whole.len();
        // A number that JSON allows: no zero comes first.
        whole.put_bytes(b'1', DIGITS);
        whole.put_slice(quote);
        whole.put_slice(&request[at.end..]);
        // Within strings JSON has no line break that is not escaped.
        for byte in whole.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        Ok((whole.freeze(), Tag { at: place, own }))
    }

    pub(super) fn sign(&self, message: &Bytes) -> Sign {
        let Ok(seen) = self.look(message) else { return Sign::Foreign };
        let Some(at) = seen.id.filter(|_| !seen.method) else { return Sign::Notification };
        let id = &message[at.clone()];
        if id == b"null" {
            return Sign::Notification;
        }
        match number(id) {
            Some(number) if !seen.twice => Sign::Reply { number, at, own: Own::AsSent },
            Some(_) | None => Sign::Unknown,
        }
    }

    /// What a message says of itself, its method's name too.
    pub(in crate::correlation) fn anatomy(
        &self,
        message: &[u8],
    ) -> Result<Anatomy, serde_json::Error> {
        let seen = self.look_for(message, true)?;
        let method = seen.named.and_then(|at| serde_json::from_slice(&message[at]).ok());
        Ok(Anatomy { id: seen.id, method })
    }

    fn look(&self, message: &[u8]) -> Result<Seen, serde_json::Error> {
        self.look_for(message, false)
    }

    fn look_for(&self, message: &[u8], names: bool) -> Result<Seen, serde_json::Error> {
        let mut seen = Seen { names, ..Seen::default() };
        let mut json = serde_json::Deserializer::from_slice(message);
        Look { steps: &self.steps, message, seen: &mut seen }.deserialize(&mut json)?;
        json.end()?;
        Ok(seen)
    }
}

/// The steps of a pointer.
pub(super) fn steps(text: &str) -> Result<Vec<String>, BadRule> {
    let bad = || BadRule::Pointer { pointer: text.to_owned() };
    let steps = text.strip_prefix('/').ok_or_else(bad)?.split('/');
    Ok(steps.map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// The number that an id is: a number, or a string of digits. A program may well write 7 as 7.0.
fn number(id: &[u8]) -> Option<u64> {
    let id = id.strip_prefix(b"\"").and_then(|id| id.strip_suffix(b"\"")).unwrap_or(id);
    let text = std::str::from_utf8(id).ok()?;
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = text.parse().ok()?;
    // So large a number is exact, and its text without a fraction is that of an integer.
    let whole = number.fract() == 0.0 && (0.0..9e15).contains(&number);
    whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// What was found in a message.
#[derive(Debug, Default)]
struct Seen {
    id: Option<Range<usize>>,
    /// A key on the way to the id stands there more than once.
    twice: bool,
    /// The object with the id has a method too.
    method: bool,
    /// Whether the place of its name is wanted, and that place.
    names: bool,
    named: Option<Range<usize>>,
}

/// What a message of JSON-RPC, or of something like it, says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::correlation) struct Anatomy {
    /// Where its id is.
    pub(in crate::correlation) id: Option<Range<usize>>,
    /// The text of the member `method` beside the id's place.
    pub(in crate::correlation) method: Option<String>,
}

/// Looks for what is `steps` further into a value.
struct Look<'s> {
    steps: &'s [String],
    message: &'s [u8],
    seen: &'s mut Seen,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            let id = <&RawValue>::deserialize(value)?.get();
            let start = id.as_ptr().addr() - self.message.as_ptr().addr();
            self.seen.id = Some(start..start + id.len());
            return Ok(());
        }
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else { return Ok(()) };
        let mut found = false;
        while let Some(key) = map.next_key_seed(Key { step })? {
            match key {
                Which::Step if !found => {
                    found = true;
                    let look = Look { steps: rest, message: self.message, seen: self.seen };
                    map.next_value_seed(look)?;
                    continue;
                }
                Which::Step => self.seen.twice = true,
                Which::Method if rest.is_empty() => {
                    self.seen.method = true;
                    if self.seen.names {
                        let name = map.next_value::<&RawValue>()?.get();
                        let start = name.as_ptr().addr() - self.message.as_ptr().addr();
                        self.seen.named = Some(start..start + name.len());
                        continue;
                    }
                }
                Which::Method | Which::Other => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else { return Ok(()) };
        // A leading zero is no index (RFC 6901, section 4).
        let index = step.parse::<usize>().ok().filter(|index| index.to_string() == *step);
        let mut at = 0;
        loop {
            let more = if index == Some(at) {
                let look = Look { steps: rest, message: self.message, seen: self.seen };
                list.next_element_seed(look)?.is_some()
            } else {
                list.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Which key of an object this is. A key may be any bytes.
struct Key<'s> {
    step: &'s str,
}

enum Which {
    Step,
    Method,
    Other,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Which;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Which, D::Error> {
        key.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Which;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Which, E> {
        Ok(match key {
            key if key == self.step.as_bytes() => Which::Step,
            key if key == METHOD.as_bytes() => Which::Method,
            _ => Which::Other,
        })
    }
}
