//! Framings whose messages are values that show their own end: `json`, `msgpack`.

use super::*;

fn wrong(framing: &Framing, stream: &[u8], messages: &[&[u8]], what: &str, at: u64) {
    let fault = Fault::Garbage { what: what.to_owned() };
    check(framing, MAX, stream, messages, Some((fault, at)));
}

fn refused(framing: &Framing, payload: &[u8]) -> String {
    let codec = Codec::new(framing, MAX).unwrap();
    match codec.check(payload) {
        Err(EncodeError::Malformed { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_values_follow_each_other_with_white_space_or_nothing() {
    let json = &Framing::Json;
    check(
        json,
        MAX,
        b"{\"a\":[1,2]}[]{}\n\"x\"true null",
        &[b"{\"a\":[1,2]}", b"[]", b"{}", b"\"x\"", b"true", b"null"],
        None,
    );
    check(json, MAX, b" \r\n\t1 2\n-0.5E+3[3]4", &[b"1", b"2", b"-0.5E+3", b"[3]", b"4"], None);
    check(
        json,
        MAX,
        b"1\"a\"2{}falsetrue",
        &[b"1", b"\"a\"", b"2", b"{}", b"false", b"true"],
        None,
    );
    check(
        json,
        MAX,
        b"{ \"a\\\"}\\u00e4\" : { } , \"b\" : [ 1 , null ] }",
        &[b"{ \"a\\\"}\\u00e4\" : { } , \"b\" : [ 1 , null ] }"],
        None,
    );
    check(json, MAX, b"\"\xff\xe4\"", &[b"\"\xff\xe4\""], None);
    check(json, MAX, b" \n ", &[], None);
}

#[test]
fn json_is_read_to_the_letter() {
    let json = &Framing::Json;
    for (stream, at, byte, due) in [
        (&b"Error: no"[..], 0, "E", "a JSON value"),
        (b"[1,]", 3, "]", "a JSON value"),
        (b"{\"a\":1,}", 7, "}", "a key"),
        (b"{a:1}", 1, "a", "a key or }"),
        (b"{\"a\" 1}", 5, "1", "a colon"),
        (b"[1 2]", 3, "2", "a comma or ]"),
        (b"{\"a\":1]", 6, "]", "a comma or }"),
        (b"[01]", 2, "1", "the rest of a number"),
        (b"-x", 1, "x", "the rest of a number"),
        (b"1.e", 2, "e", "the rest of a number"),
        (b"01", 1, "1", "the rest of a number"),
        (b"nulL", 3, "L", "the rest of true, false or null"),
        (b"\"a\nb\"", 2, "\\n", "text without a control character"),
        (b"\"\\x\"", 2, "x", "an escape"),
        (b"\"\\u12g4\"", 5, "g", "a hexadecimal digit"),
        (b"]", 0, "]", "a JSON value"),
    ] {
        let what = format!("has \"{byte}\" at its byte {at} where {due} is due");
        wrong(json, stream, &[], &what, 0);
        assert_eq!(refused(json, stream), what);
        assert!(serde_json::from_slice::<serde_json::Value>(stream).is_err());
    }
    let what = "has \"x\" at its byte 0 where a JSON value is due";
    wrong(json, b"{} \n1 x", &[b"{}", b"1"], what, 6);
}

#[test]
fn a_value_has_a_size_and_a_depth() {
    let json = &Framing::Json;
    check(json, 5, b"12345 \"abc\" [1,2]", &[b"12345", b"\"abc\"", b"[1,2]"], None);
    check(json, 5, b"1 123456", &[b"1"], Some((oversize(None, 5), 2)));
    check(json, 5, b"\"abcd\"", &[], Some((oversize(None, 5), 0)));
    check(json, 5, b"\"abcdefghijkl", &[], Some((oversize(None, 5), 0)));
    let deep = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    check(json, MAX, &deep(128), &[&deep(128)], None);
    let what = "has \"[\" at its byte 128 where something less deeply nested is due";
    wrong(json, &deep(129), &[], what, 0);
    let mixed = b"[{\"a\":".repeat(64);
    let whole = [&mixed[..], b"1", &b"}]".repeat(64)].concat();
    check(json, MAX, &whole, &[&whole], None);
    check(json, MAX, b"1 [1,", &[b"1"], Some((truncated(Part::Body, 3, 4), 2)));
    check(json, MAX, b"-", &[], Some((truncated(Part::Body, 1, 2), 0)));
    check(json, MAX, b"\"a", &[], Some((truncated(Part::Body, 2, 3), 0)));
}

#[test]
fn a_json_message_to_be_sent_is_one_value() {
    let json = &Framing::Json;
    let codec = Codec::new(json, MAX).unwrap();
    for (message, bytes) in [
        (&b"1"[..], &b"1\n"[..]),
        (b" {\"a\": 1}\n", b" {\"a\": 1}\n"),
        (b"-1.5 ", b"-1.5 \n"),
        (b"[1,\n2]", b"[1,\n2]\n"),
    ] {
        assert_eq!(flat(&codec.encode(Bytes::from(message)).unwrap()), bytes);
    }
    assert_eq!(refused(json, b""), "is no whole JSON value");
    assert_eq!(refused(json, b"{\"a\":"), "is no whole JSON value");
    assert_eq!(refused(json, b"- "), "has \" \" at its byte 1 where the rest of a number is due");
    let more = "has \"2\" at its byte 2 where nothing but white space is due";
    assert_eq!(refused(json, b"1 2"), more);
    assert_eq!(
        refused(json, b"1{}"),
        "has \"{\" at its byte 1 where nothing but white space is due"
    );
    assert_eq!(
        refused(json, b"{}{}"),
        "has \"{\" at its byte 2 where nothing but white space is due"
    );
}

proptest! {
    /// Whatever serde_json writes is read, and what it refuses is refused, but for texts that are no
    /// UTF-8 and numbers that are too large for it.
    #[test]
    fn json_agrees_with_serde_json(text in "[\\[\\]{}\",:0-9.eE+ntrufals\\\\ -]{0,12}") {
        let codec = Codec::new(&Framing::Json, MAX).unwrap();
        let ours = codec.check(text.as_bytes()).is_ok();
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{:?}", text);
    }

    #[test]
    fn json_that_serde_json_writes_is_one_message(keys in proptest::collection::vec(any::<String>(), 1..5), number in any::<f64>()) {
        let value = serde_json::json!({ "keys": keys, "number": number, keys[0].clone(): [null, true, {}] });
        for text in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            prop_assert_eq!(read(&Framing::Json, MAX, [&text[..]]), (vec![text.clone()], None));
        }
    }
}

/// A value of every type of the format.
const EVERY: &[&[u8]] = &[
    b"\x00",
    b"\x7f",
    b"\xe0",
    b"\xff",
    b"\xc0",
    b"\xc2",
    b"\xc3",
    b"\xcc\x01",
    b"\xd0\x01",
    b"\xcd\x01\x02",
    b"\xd1\x01\x02",
    b"\xce\x01\x02\x03\x04",
    b"\xd2\x01\x02\x03\x04",
    b"\xcf\x01\x02\x03\x04\x05\x06\x07\x08",
    b"\xd3\x01\x02\x03\x04\x05\x06\x07\x08",
    b"\xca\x01\x02\x03\x04",
    b"\xcb\x01\x02\x03\x04\x05\x06\x07\x08",
    b"\xa0",
    b"\xa2hi",
    b"\xd9\x02hi",
    b"\xda\0\x02hi",
    b"\xdb\0\0\0\x02hi",
    b"\xd9\0",
    b"\xc4\x02hi",
    b"\xc5\0\x02hi",
    b"\xc6\0\0\0\x02hi",
    b"\x90",
    b"\x92\x01\xa1a",
    b"\xdc\0\x02\x01\x02",
    b"\xdd\0\0\0\x01\x01",
    b"\xdc\0\0",
    b"\x80",
    b"\x81\x01\x02",
    b"\xde\0\x01\x01\x02",
    b"\xdf\0\0\0\x01\x01\x02",
    b"\xdf\0\0\0\0",
    b"\xd4\x05a",
    b"\xd5\x05ab",
    b"\xd6\x05abcd",
    b"\xd7\x05abcdefgh",
    b"\xd8\x05abcdefghijklmnop",
    b"\xc7\x01\x05a",
    b"\xc8\0\x01\x05a",
    b"\xc9\0\0\0\x01\x05a",
    b"\xc7\0\x05",
    b"\x93\x91\x90\x81\xa1a\x92\x01\x02\xc0",
];

#[test]
fn msgpack_values_follow_each_other() {
    let msgpack = &Framing::Msgpack;
    check(msgpack, MAX, &EVERY.concat(), EVERY, None);
    let codec = Codec::new(msgpack, MAX).unwrap();
    for value in EVERY {
        check(msgpack, MAX, value, &[value], None);
        check(msgpack, value.len() as u64, value, &[value], None);
        assert_eq!(flat(&codec.encode(Bytes::from_static(value)).unwrap()), *value);
    }
}

#[test]
fn msgpack_announcements_are_checked_at_once() {
    let msgpack = &Framing::Msgpack;
    let large = |least, max| Some((oversize(Some(least), max), 0));
    check(msgpack, MAX, b"\xdb\xff\xff\xff\xff", &[], large(5 + u64::from(u32::MAX), MAX));
    check(msgpack, MAX, b"\xdd\xff\xff\xff\xff", &[], large(5 + u64::from(u32::MAX), MAX));
    check(msgpack, MAX, b"\xdf\xff\xff\xff\xff", &[], large(5 + 2 * u64::from(u32::MAX), MAX));
    check(msgpack, 3, b"\x92\xa1a\x01", &[], large(4, 3));
    check(msgpack, 3, b"\x92\x01\xa1a", &[], large(4, 3));
    check(msgpack, 4, b"\x92\xa1a\x01", &[b"\x92\xa1a\x01"], None);
    check(msgpack, 2, b"\xcd\x01\x02", &[], large(3, 2));
    let deep = |depth: usize| [&b"\x91".repeat(depth)[..], b"\x01"].concat();
    check(msgpack, MAX, &deep(128), &[&deep(128)], None);
    wrong(msgpack, &deep(129), &[], "is nested more than 128 deep at its byte 128", 0);
    let never = "has the byte c1, which is never used, at its byte 1";
    wrong(msgpack, b"\x01\x92\xc1", &[b"\x01"], never, 1);
    check(msgpack, MAX, b"\x92\xa3ab", &[], Some((truncated(Part::Body, 4, 6), 0)));
    check(msgpack, MAX, b"\x92\x91", &[], Some((truncated(Part::Body, 2, 4), 0)));
}

#[test]
fn a_msgpack_message_to_be_sent_is_one_value() {
    let msgpack = &Framing::Msgpack;
    assert_eq!(refused(msgpack, b""), "is no whole MessagePack value");
    assert_eq!(refused(msgpack, b"\x92\x01"), "is no whole MessagePack value");
    let two = "has more than one MessagePack value: one ends at its byte 1";
    assert_eq!(refused(msgpack, b"hello"), two);
    assert_eq!(refused(msgpack, b"\xc1"), "has the byte c1, which is never used, at its byte 0");
}
