//! Text between messages that is no protocol.

use proptest::prelude::ProptestConfig;

use crate::framing::{Codec, Decoder, FramingError, Said};
use crate::spec::Framing;

/// What a stream gives, cut into pieces of a size: messages, and text with how many lines it was.
fn read(
    framing: &Framing,
    stream: &[u8],
    piece: usize,
) -> (Vec<String>, String, usize, Option<FramingError>) {
    let codec = Codec::new(framing, 1000).unwrap().bearing_strays();
    let mut decoder = Decoder::new(&codec);
    let (mut messages, mut text, mut lines) = (Vec::new(), Vec::new(), 0);
    let mut error = None;
    for bytes in stream.chunks(piece) {
        let pushed = decoder.push_all(&codec, bytes, &mut |said| match said {
            Said::Message { message, .. } => {
                messages.push(message.payload.escape_ascii().to_string());
            }
            Said::Frame { frame, .. } => {
                messages.push(frame.payload.escape_ascii().to_string());
            }
            Said::Stray(stray) => {
                text.extend_from_slice(&stray.bytes);
                lines += usize::from(stray.begins);
            }
        });
        if let Err(wrong) = pushed {
            error = Some(wrong);
            break;
        }
    }
    if error.is_none() {
        let left = decoder.finish_all(&codec, &mut |stray| {
            text.extend_from_slice(&stray.bytes);
            lines += usize::from(stray.begins);
        });
        error = left.err();
    }
    (messages, String::from_utf8_lossy(&text).into_owned(), lines, error)
}

/// Checks a stream, however it is cut.
#[track_caller]
fn check(framing: &Framing, stream: &str, messages: &[&str], text: &str, lines: usize) {
    for piece in 1..=stream.len() {
        let (got, stray, count, error) = read(framing, stream.as_bytes(), piece);
        assert_eq!(error, None, "{stream:?} in pieces of {piece}");
        assert_eq!(got, messages, "{stream:?} in pieces of {piece}");
        assert_eq!((stray.as_str(), count), (text, lines), "{stream:?} in pieces of {piece}");
    }
}

#[test]
fn json_skips_lines_that_begin_no_value() {
    let check = |stream: &str, messages: &[&str], text: &str, lines| {
        check(&Framing::Json, stream, messages, text, lines);
    };
    check("hello\n{}\n", &["{}"], "hello\n", 1);
    check("[INFO] up\n[1]\n", &["[1]"], "[INFO] up\n", 1);
    check("2026-11-22 12:00:00 up\n7\n", &["7"], "2026-11-22 12:00:00 up\n", 1);
    check("{not json}\n{}\n", &["{}"], "{not json}\n", 1);
    check("true story\n", &["true"], "story\n", 1);
    check("tru\n1\n", &["1"], "tru\n", 1);
    check("{} trailing\n{}", &["{}", "{}"], "trailing\n", 1);
    check("a\nb\n\nc\n", &[], "a\nb\nc\n", 3);
    check("no end", &[], "no end", 1);
    check("1 2[3]{}\"4\"5\n", &["1", "2", "[3]", "{}", "\\\"4\\\"", "5"], "", 0);
    check("\"a\nb\n[\n1\n]\n", &["[\\n1\\n]"], "\"a\nb\n", 2);
}

#[test]
fn json_that_goes_wrong_in_a_later_line_is_an_error() {
    for stream in ["[1,\nx]\n{}\n", "{\"a\":\n\n}\n"] {
        for piece in 1..=stream.len() {
            let (.., error) = read(&Framing::Json, stream.as_bytes(), piece);
            assert_eq!(error.map(|error| error.offset), Some(0), "{stream:?}");
        }
    }
    let long = format!("\"{}", "x".repeat(2000));
    assert!(read(&Framing::Json, long.as_bytes(), 7).3.is_some(), "too large is too large");
}

#[test]
fn content_length_skips_lines_that_are_no_headers() {
    let check = |stream: &str, messages: &[&str], text: &str, lines| {
        check(&Framing::ContentLength, stream, messages, text, lines);
    };
    let one = "Content-Length: 2\r\n\r\n{}";
    check(&format!("hello\n{one}{one}bye\n"), &["{}", "{}"], "hello\nbye\n", 2);
    check(&format!("INFO: ready\n{one}"), &["{}"], "INFO: ready\n", 1);
    check(&format!("\n\r\n{one}"), &["{}"], "\n\r\n", 2);
    check(&format!("loading … {one}"), &["{}"], "loading … ", 1);
    check("Content-Type: x\r\nContent-Length: 1\r\nX-A: b\n\na", &["a"], "", 0);
    check("Content-Length: 1\r\nWARN: late\r\n\r\na", &["a"], "WARN: late\r\n", 1);
    check(&format!("sent Content-Length: 9\n{one}"), &["{}"], "sent ", 1);
    check("content-length: 0\n\nbye", &[""], "bye", 1);
    let long = "x".repeat(20_000);
    let stream = format!("{long}\n{one}");
    let (messages, text, lines, error) = read(&Framing::ContentLength, stream.as_bytes(), 4096);
    assert_eq!((messages, text.len(), lines, error), (vec!["{}".to_owned()], 20_001, 1, None));
}

#[test]
fn a_length_that_is_none_is_an_error_among_strays_too() {
    for stream in
        ["hi\nContent-Length: x\n\n", "hi\nContent-Length: 1001\n\n", "Content-Length: 3\n\nab"]
    {
        let (.., error) = read(&Framing::ContentLength, stream.as_bytes(), 3);
        assert!(error.is_some(), "{stream:?}");
    }
}

proptest::proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// However a stream is cut: the same messages, the same text, as many lines, the same error; and
    /// nothing is lost between them.
    #[test]
    fn cuts_make_no_difference(
        words in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..24),
        piece in 1..40_usize,
    ) {
        let stream = words.concat();
        let read = |framing: &Framing, stream: &[u8], piece| {
            let (messages, text, lines, error) = read(framing, stream, piece);
            // How much of a sample had come depends on the cut.
            (messages, text, lines, error.map(|error| (error.fault, error.offset)))
        };
        for framing in [Framing::Json, Framing::ContentLength] {
            let whole = read(&framing, stream.as_bytes(), stream.len().max(1));
            for piece in [1, 2, piece] {
                proptest::prop_assert_eq!(&read(&framing, stream.as_bytes(), piece), &whole);
            }
        }
    }
}

/// What streams of chance are made of.
const WORDS: &[&str] = &[
    "\n",
    "\r\n",
    " ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "1",
    "-",
    ":",
    ",",
    "true",
    "a",
    "[INFO] up\n",
    "2026-11-22 ",
    "{\"id\":1}",
    "{\"id\":1}\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3",
    "content-length:0\n",
    "Content-Type: x\r\n",
    "X-Y: z\n",
    "INFO: ready\n",
    "\r\n\r\n",
    "abc",
];
