//! The NDJSON twin of a frame: `{"k":"call","id":7,"p":{"x":1}}`, one object a line.
//!
//! A payload is in one of three keys: `p`, any JSON value, whose text is the payload; `t`, a text; `b`,
//! base64. What is written has `k` first, then `id`, then flags, and the payload last, so that a shell
//! or awk can take it apart; what is read may have any order.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use bytes::Bytes;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::decode::size;
use super::encode::Wire;
use super::error::Fault;
use super::frame::{Frame, IDS, Trace};
use super::kind::{Class, EXTENSION, Flags, Kind, misflagged};
use super::payload::{Address, Payloads};
use crate::bytes_text;

/// The longest line that can be needed for a payload of `max` bytes: a text whose escapes make it
/// longer than twice its size is written as base64.
pub(super) fn longest(max: u64) -> u64 {
    max.saturating_mul(2).saturating_add(1024)
}

/// A line as it is written.
#[derive(Default)]
struct Line<'a> {
    kind: Option<Cow<'a, str>>,
    id: u64,
    flags: Flags,
    trace: Option<String>,
    to: Option<Address>,
    payload: Option<Written<'a>>,
    /// A key that is not known.
    unknown: Option<String>,
}

enum Written<'a> {
    Json(&'a RawValue),
    Text(String),
    Bytes(String),
}

#[derive(Deserialize)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Line<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Line<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"k\":\"reply\",\"id\":1}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
        let mut line = Line::default();
        let mut seen = Vec::new();
        while let Some(Word(key)) = map.next_key()? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!("`{key}` stands there twice")));
            }
            let mut flag = |flag: Flags, is_set: bool| {
                line.flags = if is_set { line.flags.with(flag) } else { line.flags };
            };
            let payload = match &*key {
                "k" => {
                    line.kind = Some(map.next_value::<Word<'de>>()?.0);
                    None
                }
                "id" => {
                    line.id = map.next_value()?;
                    None
                }
                "more" => {
                    flag(Flags::MORE, map.next_value()?);
                    None
                }
                "noreply" => {
                    flag(Flags::NOREPLY, map.next_value()?);
                    None
                }
                "critical" => {
                    flag(Flags::CRITICAL, map.next_value()?);
                    None
                }
                "trace" => {
                    line.trace = Some(map.next_value()?);
                    None
                }
                "to" => {
                    line.to = Some(map.next_value()?);
                    None
                }
                "p" => Some(Written::Json(map.next_value()?)),
                "t" => Some(Written::Text(map.next_value()?)),
                "b" => Some(Written::Bytes(map.next_value()?)),
                unknown => {
                    line.unknown = Some(unknown.to_owned());
                    map.next_value::<de::IgnoredAny>()?;
                    None
                }
            };
            if payload.is_some() && line.payload.is_some() {
                return Err(de::Error::custom("it has more than one of `p`, `t` and `b`"));
            }
            line.payload = line.payload.or(payload);
            seen.push(key);
        }
        Ok(line)
    }
}

/// Reads a line, which has neither LF nor CR at its end. `None` where it is to be ignored.
pub(super) fn read(text: &[u8], max: u64) -> Result<Option<Frame>, Fault> {
    let garbage = |what: String| Fault::Garbage { what };
    let line: Line<'_> = serde_json::from_slice(text)
        .map_err(|error| garbage(format!("is no frame of wire protocol 1: {error}")))?;
    let Some(word) = line.kind else { return Err(garbage("has no kind `k`".to_owned())) };
    let Some(kind) = Kind::of_word(&word) else {
        if word.starts_with(EXTENSION) {
            return Ok(None);
        }
        return Err(garbage(format!("is of the kind {word:?}, which is not known")));
    };
    if let (true, Some(key)) = (line.flags.has(Flags::CRITICAL), line.unknown) {
        return Err(garbage(format!("has {key:?}, which is not known, and is critical")));
    }
    let addressed = if line.to.is_some() { Flags::TO } else { Flags::default() };
    if let Some(what) = misflagged(kind, line.flags.with(addressed)) {
        return Err(garbage(what));
    }
    if line.id >= IDS {
        return Err(garbage(format!("has the id {}, which is not below 2^53", line.id)));
    }
    let trace = match &line.trace {
        None => None,
        Some(text) => {
            Some(Trace::of_text(text).ok_or_else(|| garbage(format!("has {text:?} for a trace")))?)
        }
    };
    let payload = payload(kind, line.payload).map_err(garbage)?;
    if size(payload.len()) > max {
        return Err(Fault::Oversize { announced: Some(size(payload.len())), max });
    }
    let flags = line.flags.meant();
    Ok(Some(Frame { kind, flags, id: line.id, trace, to: line.to, payload }))
}

/// The bytes of a payload, or what is wrong with it.
fn payload(kind: Kind, written: Option<Written<'_>>) -> Result<Bytes, String> {
    let Some(written) = written else { return Ok(Bytes::new()) };
    match (kind.class(), written) {
        (Class::Empty, _) => Err(format!("has a payload, and {kind} has none")),
        (Class::Json | Class::Opaque, Written::Json(json)) => {
            Ok(Bytes::copy_from_slice(json.get().as_bytes()))
        }
        (Class::Json, Written::Text(_) | Written::Bytes(_)) => {
            Err(format!("has its payload not in `p`, and that of {kind} is JSON"))
        }
        (Class::Opaque, Written::Text(text)) => Ok(Bytes::from(text.into_bytes())),
        (Class::Opaque, Written::Bytes(text)) => match bytes_text::decode(&text) {
            Some(bytes) => Ok(Bytes::from(bytes)),
            None => Err("has a payload in `b` that is not base64".to_owned()),
        },
    }
}

/// Writes a line.
pub(super) fn write(frame: &Frame, enc: Payloads) -> Result<Wire, Fault> {
    let mut head = format!(r#"{{"k":"{}","id":{}"#, frame.kind.as_str(), frame.id);
    for (flag, word) in [(Flags::MORE, "more"), (Flags::NOREPLY, "noreply")] {
        if frame.flags.has(flag) {
            let _ = write!(head, r#","{word}":true"#);
        }
    }
    if let Some(trace) = frame.trace {
        let _ = write!(head, r#","trace":"{}""#, trace.to_text());
    }
    if let Some(to) = &frame.to {
        let to = serde_json::to_string(to).expect("an address is a text or a number");
        let _ = write!(head, r#","to":{to}"#);
    }
    let (key, body) = written(frame, enc)?;
    if !key.is_empty() {
        let _ = write!(head, r#","{key}":"#);
    }
    Ok(Wire::new(head.into_bytes(), body, b"}\n"))
}

/// The key of a payload, empty where there is none, and what stands there.
fn written(frame: &Frame, enc: Payloads) -> Result<(&'static str, Bytes), Fault> {
    let payload = &frame.payload;
    if payload.is_empty() {
        return Ok(("", Bytes::new()));
    }
    if frame.kind.class() == Class::Json {
        let json = json(payload);
        let what = || format!("has a payload that is not JSON, and that of {} is", frame.kind);
        return json.map(|json| ("p", json)).ok_or_else(|| Fault::Garbage { what: what() });
    }
    let as_json = match enc {
        Payloads::Raw | Payloads::Json => json(payload),
        Payloads::Text | Payloads::Msgpack | Payloads::Cbor => None,
    };
    let as_text = match enc {
        Payloads::Raw | Payloads::Json | Payloads::Text => text(payload),
        Payloads::Msgpack | Payloads::Cbor => None,
    };
    Ok(match (as_json, as_text) {
        (Some(json), _) => ("p", json),
        (None, Some(text)) => ("t", text),
        (None, None) => ("b", Bytes::from(format!("\"{}\"", bytes_text::encode(payload)))),
    })
}

/// A payload as one JSON value on one line: line breaks between the parts of it become spaces.
fn json(payload: &Bytes) -> Option<Bytes> {
    let value: &RawValue = serde_json::from_slice(payload).ok()?;
    let value = payload.slice_ref(value.get().as_bytes());
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !value.iter().any(is_break) {
        return Some(value);
    }
    let spaced = |byte: &u8| if is_break(byte) { b' ' } else { *byte };
    Some(value.iter().map(spaced).collect())
}

/// A payload as a JSON string, unless its escapes would make it much longer.
fn text(payload: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(payload).ok()?;
    let quoted = serde_json::to_string(text).expect("a text can be written");
    (quoted.len() <= 2 * text.len() + 2).then(|| Bytes::from(quoted))
}
