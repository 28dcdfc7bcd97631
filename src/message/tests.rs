//! Every frame there and back in both forms, cut at every byte, and every way to be wrong.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::exit::{Cause, Reason};

/// Reads a stream in pieces of this size.
fn read(mode: Mode, max: u64, stream: &[u8], piece: usize) -> (Vec<Read>, Option<FrameError>) {
    let (mut decoder, mut seen) = (Decoder::new(mode, max), Vec::new());
    for bytes in stream.chunks(piece.max(1)) {
        if let Err(error) = decoder.push(bytes, &mut |read| seen.push(read)) {
            assert!(decoder.is_failed() && decoder.capacity() == 0);
            assert_eq!(decoder.push(b"x", &mut |_| panic!("it has failed")), Err(error.clone()));
            return (seen, Some(error));
        }
        assert!(decoder.capacity() <= 2 * stream.len() + HEADER);
        if stream.len() < 500 {
            let saved = serde_json::to_string(&decoder).unwrap();
            assert_eq!(serde_json::from_str::<Decoder>(&saved).unwrap(), decoder);
        }
    }
    (seen, decoder.finish().err())
}

fn frames(mode: Mode, stream: &[u8]) -> Vec<Frame> {
    let (seen, error) = read(mode, MAX_FRAME, stream, usize::MAX);
    assert_eq!(error, None);
    let frame = |read| match read {
        Read::Frame(frame) => frame,
        Read::Stray { error, .. } => panic!("{error}"),
    };
    seen.into_iter().map(frame).collect()
}

/// What is wrong with a stream, as its text.
#[track_caller]
fn check_bad(mode: Mode, stream: &[u8], expected: &str) {
    for piece in [1, 2, 3, 7, stream.len()] {
        let (seen, error) = read(mode, 1000, stream, piece);
        let stray = seen.iter().find_map(|read| match read {
            Read::Stray { error, .. } => Some(error.clone()),
            Read::Frame(_) => None,
        });
        let error = error.or(stray).expect("it is wrong");
        let text = format!("{} at {}", error.fault, error.offset);
        assert_eq!(text, expected, "in pieces of {piece}");
        let from = usize::try_from(error.offset).unwrap();
        assert!(stream[from..].starts_with(&error.sample.0), "{error}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn a_frame_has_the_bytes_that_erlang_would_send() {
    let frame = Frame::new(Kind::Call, 7, "2+2");
    let wire = frame.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    assert_eq!(wire, hex("0000000d 01 00 0000000000000007 322b32"));
    assert_eq!(frames(Mode::Frame, &wire), [frame]);
}

#[test]
fn a_trace_and_an_address_stand_before_the_payload() {
    let mut frame = Frame::new(Kind::Send, 0, "hi");
    frame.to = Some(Address::Name("web/2".to_owned()));
    frame.trace = Trace::of_text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let wire = frame.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    let (head, rest) = wire.split_at(HEADER + Trace::SIZE);
    let expected =
        "00000037 20 14 0000000000000000 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 01";
    assert_eq!(head, hex(expected));
    assert_eq!(rest, [&b"\0\x10"[..], br#"{"name":"web/2"}"#, b"hi"].concat());
    assert_eq!(frames(Mode::Frame, &wire), [frame.clone()]);
    let line = frame.encode(&Form::new(Mode::Ndjson)).unwrap().to_vec();
    let expected = r#"{"k":"send","id":0,"trace":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","to":{"name":"web/2"},"t":"hi"}"#;
    assert_eq!(String::from_utf8(line.clone()).unwrap(), format!("{expected}\n"));
    assert_eq!(frames(Mode::Ndjson, &line), [frame]);
}

#[test]
fn ndjson_writes_a_payload_as_the_peer_wants_it() {
    let line = |payload: &'static [u8], enc| {
        let form = Form { enc, ..Form::new(Mode::Ndjson) };
        let wire = Frame::new(Kind::Data, 0, payload).encode(&form).unwrap().to_vec();
        String::from_utf8(wire).unwrap().replace(r#"{"k":"data","id":0"#, "")
    };
    assert_eq!(line(b"{\"a\":1}", Payloads::Json), ",\"p\":{\"a\":1}}\n");
    assert_eq!(line(b"[1,\r\n 2]\n", Payloads::Raw), ",\"p\":[1,   2]}\n");
    assert_eq!(line(b"42", Payloads::Raw), ",\"p\":42}\n");
    assert_eq!(line(b"42", Payloads::Text), ",\"t\":\"42\"}\n");
    assert_eq!(line(b"a \"b\"\n", Payloads::Raw), ",\"t\":\"a \\\"b\\\"\\n\"}\n");
    assert_eq!(line(b"\xff\0", Payloads::Text), ",\"b\":\"/wA=\"}\n");
    assert_eq!(line(b"\0\x01\x02", Payloads::Text), ",\"b\":\"AAEC\"}\n");
    assert_eq!(line(b"a", Payloads::Msgpack), ",\"b\":\"YQ==\"}\n");
    assert_eq!(line(b"", Payloads::Json), "}\n");
}

#[test]
fn a_large_payload_is_not_copied() {
    let payload = Bytes::from(vec![b'1'; 1 << 20]);
    for (mode, enc) in [(Mode::Frame, Payloads::Raw), (Mode::Ndjson, Payloads::Json)] {
        let form = Form { enc, ..Form::new(mode) };
        let wire = Frame::new(Kind::Reply, 1, payload.clone()).encode(&form).unwrap();
        assert_eq!(wire.body.as_ptr(), payload.as_ptr());
    }
}

#[test]
fn what_cannot_be_sent_is_refused_whole() {
    let form = Form { max_frame: 3, ..Form::new(Mode::Frame) };
    let refused = |frame: Frame| frame.encode(&form).unwrap_err().to_string();
    let large = "send a frame with a payload of 4 bytes: 3 are allowed";
    assert_eq!(refused(Frame::new(Kind::Data, 0, "four")), large);
    assert!(refused(Frame::new(Kind::Ping, 1, "x")).ends_with("has a payload, and PING has none"));
    assert!(refused(Frame::new(Kind::Call, 1 << 53, "")).contains("not below 2^53"));
    assert!(refused(Frame::new(Kind::Send, 0, "")).ends_with("says not to whom"));
    assert!(refused(Frame::new(Kind::Data, 0, "").with(Flags::MORE)).contains("flag `more`"));
}

#[test]
fn garbage_has_its_place_and_its_first_bytes() {
    let good = "0000000a 12 00 0000000000000001";
    let after = |text: &str| hex(&format!("{good}{text}"));
    check_bad(Mode::Frame, &hex("ffffffff"), "announces 4294967285 bytes, 1000 are allowed at 0");
    check_bad(Mode::Frame, &after("000003f3 00"), "announces 1001 bytes, 1000 are allowed at 14");
    check_bad(
        Mode::Frame,
        &after("00000009 00"),
        "announces 9 bytes, fewer than the 10 of its header at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000a 7f 00 0000000000000001"),
        "is of the kind 0x7f, which is not known at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000a 00 a0 0000000000000001"),
        "has the critical flags 0x20, which are not known at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000a 00 02 0000000000000001"),
        "announces descriptors, which this channel cannot carry at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000b 13 00 0000000000000001 41"),
        "has a payload of 1 bytes, and PONG has none at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000b 00 04 0000000000000001 41"),
        "ends inside its trace context at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000d 20 10 0000000000000001 000541"),
        "ends inside its address at 14",
    );
    check_bad(
        Mode::Frame,
        &after("0000000a 00 00 8000000000000001"),
        "has the id 9223372036854775809, which is not below 2^53 at 14",
    );
    let cut = "is cut off by the end of the stream";
    check_bad(Mode::Frame, &after("000000"), &format!("{cut}: 3 of 14 bytes of its header at 14"));
    check_bad(
        Mode::Frame,
        &after("0000000d 01 00 0000000000000007 32"),
        &format!("{cut}: 1 of 3 bytes of its body at 14"),
    );
}

#[test]
fn a_line_that_is_no_frame_is_a_stray_and_the_next_one_is_read() {
    let bad = |line: &str, expected: &str| {
        let stream = format!("{{\"k\":\"ping\",\"id\":1}}\n{line}\n{{\"k\":\"ping\"}}\n");
        check_bad(Mode::Ndjson, stream.as_bytes(), &format!("{expected} at 20"));
        let (seen, error) = read(Mode::Ndjson, 1000, stream.as_bytes(), 5);
        assert_eq!((seen.len(), error), (3, None));
        assert_eq!(seen[2], Read::Frame(Frame::new(Kind::Ping, 0, "")));
    };
    bad(r#"{"id":1}"#, "has no kind `k`");
    bad(r#"{"k":"say"}"#, "is of the kind \"say\", which is not known");
    bad(r#"{"k":"data","b":"?"}"#, "has a payload in `b` that is not base64");
    bad(r#"{"k":"ready","t":"?"}"#, "has its payload not in `p`, and that of READY is JSON");
    bad(r#"{"k":"ping","p":1}"#, "has a payload, and PING has none");
    bad(r#"{"k":"send","t":"x"}"#, "is of the kind SEND and says not to whom");
    bad(r#"{"k":"data","x":1,"critical":true}"#, "has \"x\", which is not known, and is critical");
    bad(
        r#"{"k":"data","id":9007199254740992}"#,
        "has the id 9007199254740992, which is not below 2^53",
    );
    bad(r#"{"k":"data","trace":"00-1"}"#, "has \"00-1\" for a trace");
    for line in
        ["Listening on 80", "[1]", r#"{"k":"data","p":1,"t":""}"#, r#"{"k":1}"#, "{\"k\"", "\u{1}"]
    {
        let (seen, error) = read(Mode::Ndjson, 1000, format!("{line}\n").as_bytes(), 4);
        assert!(matches!(&seen[..], [Read::Stray { .. }]) && error.is_none(), "{line}: {seen:?}");
    }
    check_bad(
        Mode::Ndjson,
        b"{\"k\"",
        "is cut off by the end of the stream: 4 of 5 bytes of its body at 0",
    );
    let long = vec![b'x'; 4000];
    check_bad(Mode::Ndjson, &long, "is longer than the 3024 bytes allowed at 0");
    check_bad(
        Mode::Ndjson,
        format!("{{\"k\":\"data\",\"p\":[{}1]}}\n", " ".repeat(999)).as_bytes(),
        "announces 1002 bytes, 1000 are allowed at 0",
    );
}

#[test]
fn what_a_later_version_may_add_is_ignored() {
    let ignored = hex("0000000d 80 ff ffffffffffffffff 414243 0000000a 12 60 0000000000000005");
    for piece in 1..ignored.len() {
        let (seen, error) = read(Mode::Frame, 1000, &ignored, piece);
        assert_eq!((&seen[..], error), (&[Read::Frame(Frame::new(Kind::Ping, 5, ""))][..], None));
    }
    let lines = b"\n  \r\n{\"k\":\"x-new\",\"p\":{}}\n{\"new\":[1],\"id\":5,\"k\":\"ping\"}\r\n";
    assert_eq!(frames(Mode::Ndjson, lines), [Frame::new(Kind::Ping, 5, "")]);
}

#[test]
fn the_first_byte_tells_the_form() {
    let read = |stream: &[u8]| {
        let (mut decoder, mut seen) = (Decoder::of_any(1000), Vec::new());
        assert_eq!(decoder.mode(), None);
        let result = decoder.push(stream, &mut |read| seen.push(read));
        (decoder.mode().unwrap(), seen.len(), result.is_ok() && decoder.finish().is_ok())
    };
    assert_eq!(read(&hex("0000000a 12 00 0000000000000001")), (Mode::Frame, 1, true));
    assert_eq!(read(b"{\"k\":\"ping\"}\n"), (Mode::Ndjson, 1, true));
    assert_eq!(read(b"Listening on 80\n{\"k\":\"ping\"}\n"), (Mode::Ndjson, 2, true));
    assert_eq!(read(&hex("ffffffff")), (Mode::Frame, 0, false));
    assert_eq!(Decoder::of_any(1).finish(), Ok(()));
}

#[test]
fn control_payloads_are_the_json_of_the_specification() {
    let mut hello = Hello::new("echo", "1.0");
    hello.credit = Some(8);
    hello.peer = Some(Peer { name: "web/2".to_owned(), incarnation: 9 });
    let json = r#"{"proto":1,"name":"echo","version":"1.0","concurrency":1,"max_frame":16777216,"enc":"raw","credit":8,"peer":{"name":"web/2","incarnation":9}}"#;
    assert_eq!(Frame::control(Kind::Hello, 0, &hello).payload, json);
    let least = Frame::new(Kind::Hello, 0, r#"{"proto":1,"later":true}"#);
    assert_eq!(least.read(), Ok(Hello::new("", "")));
    assert_eq!(Frame::new(Kind::Ready, 0, "").read(), Ok(Ready::default()));
    let down = Down {
        target: Address::Incarnation(9),
        incarnation: 9,
        reason: Reason::Signaled,
        cause: Cause::Spontaneous,
        msg: "web/2 was killed".to_owned(),
        late: false,
        is_final: true,
    };
    let json = r#"{"target":{"incarnation":9},"incarnation":9,"reason":"signaled","cause":"spontaneous","msg":"web/2 was killed","late":false,"final":true}"#;
    assert_eq!(Frame::control(Kind::Down, 1, &down).payload, json);
    let failure = Frame::failure(3, &Failure::not_supported(Kind::Spawn));
    let json = r#"{"code":"not_supported","message":"SPAWN is not supported yet","retry":"never"}"#;
    assert_eq!(failure.payload, json);
    let short = Frame::new(Kind::Error, 3, r#"{"code":"no"}"#).read::<Failure>().unwrap();
    assert_eq!(short.retry, Retry::Unsafe);
    let bad = Frame::new(Kind::Hello, 0, "{}").read::<Hello>().unwrap_err();
    assert!(bad.to_string().starts_with("read the payload of HELLO: missing field `proto`"));
}

#[test]
fn every_kind_has_one_number_and_one_word() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of_code(kind.code()), Some(*kind));
        assert_eq!(Kind::of_word(kind.as_str()), Some(*kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
    assert!(Kind::ALL.is_sorted_by_key(|kind| kind.code()));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..40),
        "[a-z \"\\\\\n\u{e4}]{0,20}".prop_map(String::into_bytes),
        Just(br#"{"a":[1,2]}"#.to_vec()),
        vec(any::<u8>(), 4097..4100),
    ];
    let to = proptest::option::of(prop_oneof![
        any::<u64>().prop_map(Address::Incarnation),
        "[a-z]{1,9}".prop_map(Address::Name),
    ]);
    let trace = proptest::option::of(any::<[u8; Trace::SIZE]>().prop_map(Trace::of_bytes));
    let kind = proptest::sample::select(Kind::ALL);
    (kind, 0_u64..1 << 53, payload, to, trace, any::<bool>()).prop_map(
        |(kind, id, payload, to, trace, flag)| {
            let payload = match kind.class() {
                Class::Opaque => payload,
                Class::Json => br#"{"x":"y"}"#.to_vec(),
                Class::Empty => Vec::new(),
            };
            let mut frame = Frame::new(kind, id, payload);
            frame.trace = trace;
            frame.to = match kind {
                Kind::Send => Some(to.unwrap_or(Address::Incarnation(1))),
                Kind::Call | Kind::Data => to,
                _ => None,
            };
            match kind {
                Kind::Reply if flag => frame.with(Flags::MORE),
                Kind::Call if flag => frame.with(Flags::NOREPLY),
                _ => frame,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever was sent arrives, in both forms, however it is cut.
    #[test]
    fn frames_arrive(sent in vec(any_frame(), 1..5), piece in 1_usize..30, ndjson in any::<bool>()) {
        let mode = if ndjson { Mode::Ndjson } else { Mode::Frame };
        // JSON may come back without the white space around it.
        let form = Form { enc: Payloads::Text, ..Form::new(mode) };
        let stream: Vec<u8> =
            sent.iter().flat_map(|frame| frame.encode(&form).unwrap().to_vec()).collect();
        prop_assert_eq!(&frames(mode, &stream), &sent);
        for piece in [1, piece] {
            let (seen, error) = read(mode, MAX_FRAME, &stream, piece);
            prop_assert_eq!(error, None);
            let expected: Vec<_> = sent.iter().cloned().map(Read::Frame).collect();
            prop_assert_eq!(seen, expected);
        }
        // Cut off anywhere, what was whole is there, and the rest is an error unless it is nothing.
        for end in 0..stream.len().min(300) {
            let (seen, error) = read(mode, MAX_FRAME, &stream[..end], usize::MAX);
            let whole: usize = sent[..seen.len()].iter().map(|f| f.encode(&form).unwrap().len()).sum();
            prop_assert_eq!(error.is_some(), whole != end);
        }
    }
}

/// Every example of the specification, in both forms.
#[test]
fn the_examples_of_the_specification_are_what_is_spoken() {
    let document = include_str!("../../docs/PROTOCOL.md");
    let examples = document.split("## Every frame, byte by byte").nth(1).unwrap();
    let lines: Vec<_> = examples.split("```").nth(1).unwrap().lines().skip(1).collect();
    let mut kinds = Vec::new();
    for pair in lines.chunks(2) {
        let mut wire = Vec::new();
        for (number, part) in pair[0].split(" | ").enumerate() {
            // The length of an address is the one number that stands behind the header.
            let is_hex = number == 0;
            wire.extend(if is_hex { hex(part) } else { part.as_bytes().to_vec() });
        }
        let [frame] = &frames(Mode::Frame, &wire)[..] else { panic!("{}", pair[0]) };
        let line = format!("{}\n", pair[1]);
        assert_eq!(frames(Mode::Ndjson, line.as_bytes()), std::slice::from_ref(frame));
        assert_eq!(frame.encode(&Form::new(Mode::Frame)).unwrap().to_vec(), wire);
        let as_text = frame.encode(&Form::new(Mode::Ndjson)).unwrap().to_vec();
        assert_eq!(String::from_utf8(as_text).unwrap(), line);
        check_payload(frame);
        kinds.push(frame.kind);
    }
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds, Kind::ALL, "each has an example");
}

/// A payload of an example has every key that it shows.
fn check_payload(frame: &Frame) {
    fn check<T: serde::de::DeserializeOwned + serde::Serialize>(frame: &Frame) {
        let shown: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&frame.payload).unwrap();
        let again = serde_json::to_value(frame.read::<T>().unwrap()).unwrap();
        for (key, value) in shown {
            assert_eq!(again.get(&key), Some(&value), "{key} of {}", frame.kind);
        }
    }
    match frame.kind {
        Kind::Error => check::<Failure>(frame),
        Kind::Credit => check::<Credit>(frame),
        Kind::Missed => check::<Missed>(frame),
        Kind::Hello => check::<Hello>(frame),
        Kind::Ready => check::<Ready>(frame),
        Kind::Drain => check::<Drain>(frame),
        Kind::Exit => check::<Exit>(frame),
        Kind::Monitor | Kind::Link => check::<Monitor>(frame),
        Kind::Down => check::<Down>(frame),
        Kind::Peer => check::<Socket>(frame),
        Kind::Spawn => check::<Spawn>(frame),
        Kind::Log => check::<Log>(frame),
        Kind::Metric => check::<Metric>(frame),
        Kind::Data | Kind::Call | Kind::Reply | Kind::Send => {}
        Kind::Cancel | Kind::Ping | Kind::Pong | Kind::Demonitor | Kind::Unlink => {
            assert!(frame.payload.is_empty());
        }
    }
}
