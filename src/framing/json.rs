//! `json`: JSON values one after the other, with white space between them or nothing.
//!
//! The message is the value as it was written, white space inside included. The grammar is that of
//! RFC 8259, to the letter, so that text which is no JSON is found out at its first wrong byte; what
//! is inside strings is not looked at beyond that, not even whether it is UTF-8. Values may be nested
//! 128 deep, which is as much as most readers take (serde_json among them). Between two numbers white
//! space is needed, and a number that stands for itself is whole once something follows it, or the
//! stream ends.
//!
//! Where stray text is borne, a line that cannot be the beginning of a value is none: it is left out
//! up to its LF. What is wrong only in a later line of a value is an error, and so is what is too
//! large. A number that stands for itself must then have white space or another value's first byte
//! behind it, or a line that begins with a date would be taken for numbers.
//!
//! Outgoing a message must be one value, and gets an LF after it, which readers of lines need and
//! others take for white space.

use bytes::Bytes;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::error::{EncodeError, Fault, Part};
use super::gather::{Gather, Stand, Step, memory, size};

/// How deep values may be nested.
pub(super) const DEPTH: usize = 128;

/// Where in a value the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Json {
    value: Gather,
    scan: Scan,
}

/// A reader of JSON that keeps nothing but where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Scan {
    at: At,
    /// How many lists and objects are open.
    depth: usize,
    /// Which of them are objects, a bit each.
    objects: [u64; DEPTH / 64],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum At {
    /// Outside any value.
    #[default]
    Between,
    /// In a line that is no JSON, which is borne.
    Stray,
    /// Before a value of an object or a list.
    Value,
    /// After `[`.
    FirstItem,
    /// After `{`.
    FirstKey,
    /// After a comma in an object.
    Key,
    /// After a key.
    Colon,
    /// After a value of an object or a list.
    Next,
    String(Text),
    /// After a backslash in a string.
    Escape(Text),
    /// Within the four hexadecimal digits of `\u`, so many of them missing.
    Unicode(Text, u8),
    /// Within `true`, `false` or `null`, so many letters into it.
    Word(Word, u8),
    Number(Number),
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Text {
    Key,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    True,
    False,
    Null,
}

/// The part of a number that the last byte belonged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// What a byte was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    /// White space before a value.
    Space,
    /// A part of a value.
    Part,
    /// Its last byte.
    Last,
    /// No part of the value, a number, which ended before it.
    After,
}

impl Word {
    fn text(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

impl Number {
    /// What the number comes to with a byte; `None` where the byte does not continue it.
    fn with(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Some(Self::Digits),
            (Self::Zero | Self::Digits, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Some(Self::E),
            (Self::E, b'+' | b'-') => Some(Self::Sign),
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Some(Self::Exponent),
            _ => None,
        }
    }

    /// Whether a byte can be its next one, or stand behind it in a stream that has other text too.
    fn goes_on(self, byte: u8) -> bool {
        self.with(byte).is_some()
            || self.is_whole() && (is_space(byte) || matches!(byte, b'"' | b'[' | b'{'))
    }

    /// Whether it is one as it stands.
    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::Exponent)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// How many bytes at the beginning of these are plain text of a string.
fn plain(bytes: &[u8]) -> usize {
    let special = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\');
    bytes.iter().position(special).unwrap_or(bytes.len())
}

impl Scan {
    /// Takes a byte; an error says what is due in its place.
    fn take(&mut self, byte: u8) -> Result<Byte, &'static str> {
        if let At::Number(number) = self.at {
            if let Some(number) = number.with(byte) {
                self.at = At::Number(number);
                return Ok(Byte::Part);
            }
            if !number.is_whole() || (number == Number::Zero && byte.is_ascii_digit()) {
                return Err("the rest of a number");
            }
            if self.ends() == Byte::Last {
                return Ok(Byte::After);
            }
        }
        match self.at {
            At::Between if is_space(byte) => Ok(Byte::Space),
            At::Between | At::Stray | At::Value => self.begin(byte, "a JSON value"),
            At::FirstItem | At::FirstKey | At::Key | At::Colon | At::Next if is_space(byte) => {
                Ok(Byte::Part)
            }
            At::FirstItem if byte == b']' => Ok(self.close()),
            At::FirstItem => self.begin(byte, "a JSON value or ]"),
            At::FirstKey if byte == b'}' => Ok(self.close()),
            At::FirstKey | At::Key if byte == b'"' => Ok(self.goes(At::String(Text::Key))),
            At::FirstKey => Err("a key or }"),
            At::Key => Err("a key"),
            At::Colon if byte == b':' => Ok(self.goes(At::Value)),
            At::Colon => Err("a colon"),
            At::Next => self.next(byte),
            At::String(_) | At::Escape(_) | At::Unicode(..) => self.string(byte),
            At::Word(word, at) => {
                let text = word.text();
                match text.get(usize::from(at)) {
                    Some(due) if *due == byte && usize::from(at) + 1 == text.len() => {
                        Ok(self.ends())
                    }
                    Some(due) if *due == byte => Ok(self.goes(At::Word(word, at + 1))),
                    _ => Err("the rest of true, false or null"),
                }
            }
            At::Number(_) => Err("the rest of a number"),
        }
    }

    fn goes(&mut self, at: At) -> Byte {
        self.at = at;
        Byte::Part
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8, due: &'static str) -> Result<Byte, &'static str> {
        if is_space(byte) {
            return Ok(Byte::Part);
        }
        let at = match byte {
            b'"' => At::String(Text::Value),
            b't' => At::Word(Word::True, 1),
            b'f' => At::Word(Word::False, 1),
            b'n' => At::Word(Word::Null, 1),
            b'-' => At::Number(Number::Minus),
            b'0' => At::Number(Number::Zero),
            b'1'..=b'9' => At::Number(Number::Digits),
            b'{' | b'[' if self.depth == DEPTH => return Err("something less deeply nested"),
            b'{' => {
                self.objects[self.depth / 64] |= 1 << (self.depth % 64);
                self.depth += 1;
                At::FirstKey
            }
            b'[' => {
                self.objects[self.depth / 64] &= !(1 << (self.depth % 64));
                self.depth += 1;
                At::FirstItem
            }
            _ => return Err(due),
        };
        Ok(self.goes(at))
    }

    fn in_object(&self) -> bool {
        let last = self.depth.saturating_sub(1);
        self.objects[last / 64] >> (last % 64) & 1 == 1
    }

    /// What follows a value of an object or a list.
    fn next(&mut self, byte: u8) -> Result<Byte, &'static str> {
        match (byte, self.in_object()) {
            (b',', true) => Ok(self.goes(At::Key)),
            (b',', false) => Ok(self.goes(At::Value)),
            (b'}', true) | (b']', false) => Ok(self.close()),
            (_, true) => Err("a comma or }"),
            (_, false) => Err("a comma or ]"),
        }
    }

    fn string(&mut self, byte: u8) -> Result<Byte, &'static str> {
        match (self.at, byte) {
            (At::String(Text::Key), b'"') => Ok(self.goes(At::Colon)),
            (At::String(Text::Value), b'"') => Ok(self.ends()),
            (At::String(text), b'\\') => Ok(self.goes(At::Escape(text))),
            (At::String(_), 0..=0x1f) => Err("text without a control character"),
            (At::Escape(text), b'u') => Ok(self.goes(At::Unicode(text, 4))),
            (At::Escape(text), b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                Ok(self.goes(At::String(text)))
            }
            (At::Unicode(text, left), byte) if byte.is_ascii_hexdigit() => {
                Ok(self.goes(if left == 1 {
                    At::String(text)
                } else {
                    At::Unicode(text, left - 1)
                }))
            }
            (At::Escape(_), _) => Err("an escape"),
            (At::Unicode(..), _) => Err("a hexadecimal digit"),
            _ => Ok(Byte::Part),
        }
    }

    /// The innermost list or object ends.
    fn close(&mut self) -> Byte {
        self.depth = self.depth.saturating_sub(1);
        self.ends()
    }

    /// A value ends.
    fn ends(&mut self) -> Byte {
        if self.depth == 0 {
            self.at = At::Between;
            return Byte::Last;
        }
        self.goes(At::Next)
    }

    /// Whether the end of the stream ends a value.
    fn is_whole(&self) -> bool {
        self.depth == 0 && matches!(self.at, At::Number(number) if number.is_whole())
    }
}

/// In words that can follow "the message".
fn wrong(byte: u8, at: usize, due: &str) -> String {
    format!("has \"{}\" at its byte {at} where {due} is due", byte.escape_ascii())
}

impl Json {
    /// Takes bytes. With `strays` a line is borne that cannot be the beginning of a value.
    pub(super) fn step(&mut self, bytes: &[u8], max: u64, strays: bool) -> Result<Step, Fault> {
        if self.scan.at == At::Stray {
            return Ok(self.stray(bytes, 0, false));
        }
        if self.scan.at == At::Between {
            let spaces = bytes.iter().take_while(|byte| is_space(**byte)).count();
            if spaces > 0 {
                return Ok(Step::between(spaces));
            }
        }
        let before = self.value.len();
        let room = memory(max).saturating_sub(before);
        let mut used = 0;
        let mut whole = false;
        while let (Some(byte), false) = (bytes.get(used), whole) {
            let text = match self.scan.at {
                At::String(_) => plain(&bytes[used..]),
                _ => 0,
            };
            used += text.max(1);
            let taken = match self.scan.at {
                _ if text > 0 => Ok(Byte::Part),
                // `2026-11-22 12:00` is a line of a log and no value.
                At::Number(number) if strays && self.scan.depth == 0 && !number.goes_on(*byte) => {
                    Err("white space")
                }
                _ => self.scan.take(*byte),
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(_) if strays && self.is_first_line(&bytes[..used - 1]) => {
                    return Ok(self.stray(bytes, used - 1, true));
                }
                Err(due) => {
                    let what = wrong(*byte, before + used - 1, due);
                    return Err(Fault::Garbage { what });
                }
            };
            used -= usize::from(taken == Byte::After);
            if used > room {
                return Err(Fault::Oversize { announced: None, max });
            }
            whole = matches!(taken, Byte::Last | Byte::After);
        }
        self.value.add(&bytes[..used], memory(max));
        if !whole {
            return Ok(Step::more(used));
        }
        let message = self.value.take();
        *self = Self::default();
        Ok(Step::whole(used, message))
    }

    /// Whether all of the present value so far, with these bytes, stands in one line.
    fn is_first_line(&self, bytes: &[u8]) -> bool {
        memchr(b'\n', self.value.as_slice()).is_none() && memchr(b'\n', bytes).is_none()
    }

    /// The present line is no JSON, as its byte at this place shows: it goes to its LF.
    fn stray(&mut self, bytes: &[u8], from: usize, begins: bool) -> Step {
        let end = memchr(b'\n', &bytes[from..]).map(|at| from + at + 1);
        let used = end.unwrap_or(bytes.len());
        let mut line = self.value.split_off(0);
        line.extend_from_slice(&bytes[..used]);
        *self = Self::default();
        self.scan.at = if end.is_some() { At::Between } else { At::Stray };
        Step::stray(used, line.into(), begins)
    }

    /// What is left of the stream: a number that nothing follows is whole.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Fault> {
        if matches!(self.scan.at, At::Between | At::Stray) {
            return Ok(None);
        }
        if self.scan.is_whole() {
            let message = self.value.take();
            *self = Self::default();
            return Ok(Some(message));
        }
        let got = size(self.value.len());
        Err(Fault::Truncated { part: Part::Body, got, wanted: got + 1 })
    }
}

impl Stand for Json {
    fn held(&self) -> usize {
        self.value.len()
    }

    fn seen(&self) -> Vec<u8> {
        self.value.seen()
    }

    fn capacity(&self) -> usize {
        self.value.capacity()
    }
}

/// Whether a message is one value.
pub(super) fn check(payload: &[u8]) -> Result<(), EncodeError> {
    let refuse = |what: String| Err(EncodeError::Malformed { what });
    let mut scan = Scan::default();
    let mut whole = false;
    for (at, byte) in payload.iter().enumerate() {
        if whole && is_space(*byte) {
            continue;
        }
        let taken = if whole { Err("nothing but white space") } else { scan.take(*byte) };
        match taken {
            Ok(Byte::Space | Byte::Part) => {}
            Ok(Byte::Last) => whole = true,
            Ok(Byte::After) if is_space(*byte) => whole = true,
            Ok(Byte::After) => return refuse(wrong(*byte, at, "nothing but white space")),
            Err(due) => return refuse(wrong(*byte, at, due)),
        }
    }
    if whole || scan.is_whole() {
        return Ok(());
    }
    refuse("is no whole JSON value".to_owned())
}
