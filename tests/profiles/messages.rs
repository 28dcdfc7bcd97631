//! Messages as a transcript writes them, and whether what came is what was expected.

use libtest_mimic::Trial;
use regex::bytes::Regex;
use serde_json::{Value, json};

use crate::transcript::{By, Expected, Form, Message};

/// The bytes of a message.
pub(crate) fn bytes(message: &Message) -> Result<Vec<u8>, String> {
    match message {
        Message::Text(text) => Ok(text.clone().into_bytes()),
        Message::Form(Form::Json(value)) => Ok(value.to_string().into_bytes()),
        Message::Form(Form::Msgpack(value)) => {
            rmp_serde::to_vec(value).map_err(|error| error.to_string())
        }
        Message::Form(Form::Hex(digits)) => unhex(digits),
    }
}

/// What is wrong with what came, if anything.
pub(crate) fn compare(expected: &Expected, came: &[u8]) -> Result<(), String> {
    let found = |pattern: &str, came: &[u8]| {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        if regex.is_match(came) { Ok(()) } else { Err(format!("/{pattern}/ is not in it")) }
    };
    match expected {
        Expected::Text(text) if text.as_bytes() == came => Ok(()),
        Expected::Text(text) => Err(format!("it is not {text:?}")),
        Expected::By(By::Regex(pattern)) => found(pattern, came),
        Expected::By(By::HexRegex(pattern)) => found(pattern, hex(came).as_bytes()),
        Expected::By(By::Hex(digits)) => {
            let wanted = unhex(digits)?;
            if wanted == came { Ok(()) } else { Err(format!("it is not {}", hex(&wanted))) }
        }
        Expected::By(By::Json(part)) => {
            let came: Value = serde_json::from_slice(came).map_err(|error| error.to_string())?;
            within(part, &came, "")
        }
        Expected::By(By::Msgpack(part)) => {
            let came: Value = rmp_serde::from_slice(came).map_err(|error| error.to_string())?;
            within(part, &came, "")
        }
    }
}

/// Whether everything that `part` says is so in `whole`.
fn within(part: &Value, whole: &Value, place: &str) -> Result<(), String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().try_for_each(|(key, value)| {
            let place = format!("{place}/{key}");
            let found = whole.get(key).ok_or_else(|| format!("there is nothing at {place}"))?;
            within(value, found, &place)
        }),
        (Value::Array(part), Value::Array(whole)) => {
            part.iter().enumerate().try_for_each(|(at, value)| {
                let place = format!("{place}/{at}");
                let found = whole.get(at).ok_or_else(|| format!("there is nothing at {place}"))?;
                within(value, found, &place)
            })
        }
        _ if part == whole => Ok(()),
        _ => Err(format!("at {place:?} there is {whole} and not {part}")),
    }
}

/// What came, so that a person can read it.
pub(crate) fn shown(came: &[u8]) -> String {
    match std::str::from_utf8(came) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => format!("{} ({})", came.escape_ascii(), hex(came)),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| format!("{text:?} is not hexadecimal"))
        })
        .collect()
}

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        crate::test("messages::are_written_in_many_forms", forms),
        crate::test("messages::that_are_not_as_expected_are_refused", refusals),
    ]
}

fn forms() {
    let value = json!({ "a": [1, "x"] });
    for (form, made) in [
        (Form::Json(value.clone()), &b"{\"a\":[1,\"x\"]}"[..]),
        (Form::Msgpack(value), b"\x81\xa1a\x92\x01\xa1x"),
        (Form::Hex("00 0102 # three\nFF".to_owned()), b"\x00\x01\x02\xff"),
    ] {
        assert_eq!(bytes(&Message::Form(form)).unwrap(), made);
    }
    assert!(bytes(&Message::Form(Form::Hex("0".to_owned()))).is_err());
}

fn refusals() {
    for (part, good) in [
        (json!({}), true),
        (json!({ "b": { "c": 2 } }), true),
        (json!({ "a": [1] }), true),
        (json!({ "a": [1, 2, 3] }), false),
        (json!({ "a": [2] }), false),
        (json!({ "b": { "d": null } }), false),
        (json!([]), false),
    ] {
        let expected = Expected::By(By::Json(part.clone()));
        let came = compare(&expected, b"{\"a\":[1,2],\"b\":{\"c\":2,\"e\":null}}");
        assert_eq!(came.is_ok(), good, "{part}: {came:?}");
    }
    for (expected, came, good) in [
        (Expected::Text("a".to_owned()), &b"a"[..], true),
        (Expected::Text("a".to_owned()), b"a\n", false),
        (Expected::By(By::Regex("^b$".to_owned())), b"abc", false),
        (Expected::By(By::Hex("61".to_owned())), b"a", true),
        (Expected::By(By::HexRegex("^61..$".to_owned())), b"ab", true),
        (Expected::By(By::Msgpack(json!([1]))), b"\x92\x01\xc0", true),
        (Expected::By(By::Msgpack(json!([2]))), b"\x92\x01\xc0", false),
        (Expected::By(By::Json(json!(1))), b"one", false),
    ] {
        assert_eq!(compare(&expected, came).is_ok(), good, "{expected:?}");
    }
}
