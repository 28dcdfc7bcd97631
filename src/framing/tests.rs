//! Every framing against tables of streams, against chance, and against hostile input.

mod announced;
mod ended;
mod strays;
mod values;

use bytes::Bytes;
use proptest::prelude::*;

use super::{BadRule, Codec, Decoder, EncodeError, Fault, Frame, FramingError, Message, Part};
use crate::spec::{Framing, PacketWidth};

const MAX: u64 = 1 << 20;

fn git() -> Framing {
    Framing::Counted {
        header: r"^[0-9a-f]+ [a-z]+ (?<length>\d+)$".to_owned(),
        trailer: "\n".to_owned(),
    }
}

fn packet(width: PacketWidth) -> Framing {
    Framing::Packet(width)
}

fn every_cut() -> Vec<Framing> {
    let widths = [PacketWidth::One, PacketWidth::Two, PacketWidth::Four];
    let bare = Framing::Counted { header: r"^([0-9]+)$".to_owned(), trailer: String::new() };
    let wide = Framing::Counted { header: r"^#([0-9]+)$".to_owned(), trailer: "\r\n".to_owned() };
    let mut all = vec![Framing::Lines, Framing::Nul, git(), bare, wide];
    all.extend(widths.map(Framing::Packet));
    all.extend([
        Framing::Netstring,
        Framing::PktLine,
        Framing::ContentLength,
        Framing::Json,
        Framing::Msgpack,
        Framing::Stanza,
        Framing::Prompt("^> $".to_owned()),
        Framing::Eof,
        Framing::Envelope,
    ]);
    all
}

/// A message that a framing can say, with this text in it, and what a program says to give it.
fn said(framing: &Framing, codec: &Codec, text: &str) -> (Bytes, Vec<u8>) {
    let payload = match framing {
        Framing::Json => format!("{text:?}").into_bytes(),
        Framing::Msgpack => {
            let length = u16::try_from(text.len()).unwrap().to_be_bytes();
            [&[0xda], &length[..], text.as_bytes()].concat()
        }
        _ => text.as_bytes().to_vec(),
    };
    let payload = Bytes::from(payload);
    let mut stream = flat(&codec.encode(payload.clone()).unwrap());
    if let Framing::Prompt(_) = framing {
        stream.extend(b"> ");
    }
    (payload, stream)
}

/// Messages (with `…` after one that was left unfinished), and the error as kind and offset.
type Seen = (Vec<Vec<u8>>, Option<(Fault, u64)>);

fn read<'a>(framing: &Framing, max: u64, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let codec = Codec::new(framing, max).unwrap();
    let mut decoder = Decoder::new(&codec);
    let mut seen = Vec::new();
    let brief = |error: FramingError| Some((error.fault, error.offset));
    let mut keep = |message: Message| {
        let mut payload = message.payload.to_vec();
        if message.partial {
            payload.extend("…".bytes());
        }
        seen.push(payload);
    };
    for piece in pieces {
        if let Err(error) = decoder.push(&codec, piece, &mut keep) {
            assert!(decoder.is_failed() && decoder.held() == 0);
            assert_eq!(
                decoder.push(&codec, b"more", &mut |_| panic!("it failed")),
                Err(error.clone())
            );
            return (seen, brief(error));
        }
    }
    match decoder.finish(&codec) {
        Ok(left) => left.into_iter().for_each(keep),
        Err(error) => return (seen, brief(error)),
    }
    (seen, None)
}

/// The stream gives these messages and this error, whole and cut at every byte.
fn check(
    framing: &Framing,
    max: u64,
    stream: &[u8],
    messages: &[&[u8]],
    error: Option<(Fault, u64)>,
) {
    let expected = (messages.iter().map(|message| message.to_vec()).collect(), error);
    let context = format!("{framing:?} {:?}", stream.escape_ascii().to_string());
    assert_eq!(read(framing, max, [stream]), expected, "{context}");
    assert_eq!(read(framing, max, stream.chunks(1)), expected, "{context} byte by byte");
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(read(framing, max, [head, tail]), expected, "{context} cut at {at}");
    }
}

fn oversize(announced: Option<u64>, max: u64) -> Fault {
    Fault::Oversize { announced, max }
}

fn truncated(part: Part, got: u64, wanted: u64) -> Fault {
    Fault::Truncated { part, got, wanted }
}

#[test]
fn scenario_1_and_8_lines_are_cut_at_lf_and_otherwise_untouched() {
    let lines: &[(&[u8], &[&[u8]])] = &[
        (b"", &[]),
        (b"\n", &[b""]),
        (b"a\nb\n", &[b"a", b"b"]),
        (b"a\r\nb\r\n", &[b"a", b"b"]),
        (b"\r\n\r\n", &[b"", b""]),
        (b"a\r\r\n", &[b"a\r"]),
        (b"a\rb\n", &[b"a\rb"]),
        (b"\ra\n", &[b"\ra"]),
        (b"nul\0inside\n", &[b"nul\0inside"]),
        (b"\xff\xfe no utf-8 \xc3\n", &[b"\xff\xfe no utf-8 \xc3"]),
        ("grüße\n".as_bytes(), &["grüße".as_bytes()]),
    ];
    for (stream, messages) in lines {
        check(&Framing::Lines, MAX, stream, messages, None);
    }
}

#[test]
fn d8_an_unterminated_last_line_is_delivered_and_marked() {
    check(&Framing::Lines, MAX, b"a\nrest", &[b"a", "rest…".as_bytes()], None);
    check(&Framing::Lines, MAX, b"rest\r", &["rest\r…".as_bytes()], None);
    check(&Framing::Nul, MAX, b"a\0rest", &[b"a", "rest…".as_bytes()], None);
    check(&git(), MAX, b"fatal: no", &["fatal: no…".as_bytes()], None);
}

#[test]
fn scenario_6_lines_of_exactly_max_frame_and_one_more() {
    for end in ["\n", "\r\n"] {
        check(&Framing::Lines, 4, format!("abcd{end}").as_bytes(), &[b"abcd"], None);
        let error = Some((oversize(None, 4), 2));
        check(&Framing::Lines, 4, format!("x\nabcde{end}").as_bytes(), &[b"x"], error);
    }
    check(&Framing::Lines, 4, b"abcd", &["abcd…".as_bytes()], None);
    check(&Framing::Lines, 4, b"abcde", &[], Some((oversize(None, 4), 0)));
    check(&Framing::Lines, 4, b"abcd\r", &[], Some((oversize(None, 4), 0)));
    check(&Framing::Lines, 4, b"abcd\rx\n", &[], Some((oversize(None, 4), 0)));
    check(&Framing::Nul, 4, b"abcd\0", &[b"abcd"], None);
    check(&Framing::Nul, 4, b"abcde\0", &[], Some((oversize(None, 4), 0)));
}

#[test]
fn nul_ends_a_message_and_lf_does_not() {
    check(&Framing::Nul, MAX, b"\0", &[b""], None);
    check(&Framing::Nul, MAX, b"a\nb\r\n\0c\0", &[b"a\nb\r\n", b"c"], None);
}

#[test]
fn scenario_3_a_packet_of_length_zero_is_a_message() {
    check(&packet(PacketWidth::One), MAX, b"\x00\x01a\x00", &[b"", b"a", b""], None);
    check(&packet(PacketWidth::Two), MAX, b"\x00\x00\x00\x02hi", &[b"", b"hi"], None);
    check(&packet(PacketWidth::Four), MAX, b"\0\0\0\x02hi\0\0\0\0", &[b"hi", b""], None);
}

#[test]
fn scenario_4_and_d6_a_garbage_length_is_refused_before_anything_is_allocated() {
    let error = Some((oversize(Some(0xffff_ffff), MAX), 0));
    check(&packet(PacketWidth::Four), MAX, b"\xff\xff\xff\xff", &[], error.clone());
    check(&packet(PacketWidth::Four), MAX, b"\xff\xff\xff\xffmore", &[], error);
    let error = Some((oversize(Some(u64::from(u32::from_be_bytes(*b"Erro"))), MAX), 5));
    check(&packet(PacketWidth::Four), MAX, b"\0\0\0\x01xError: no", &[b"x"], error);
    let error = Some((oversize(Some(u64::MAX), MAX), 0));
    check(&git(), MAX, b"ab blob 99999999999999999999999\n", &[], error);
}

#[test]
fn scenario_4_a_large_announced_length_takes_no_memory_until_its_bytes_come() {
    let huge = u64::from(u32::MAX);
    for (framing, start) in [
        (packet(PacketWidth::Four), &b"\xf0\0\0\0start"[..]),
        (git(), b"ab blob 4026531840\nstart"),
    ] {
        let codec = Codec::new(&framing, huge).unwrap();
        let mut decoder = Decoder::new(&codec);
        decoder.push(&codec, start, &mut |_| panic!("not whole")).unwrap();
        assert!(decoder.held() <= 2 * start.len(), "{framing:?} holds {}", decoder.held());
    }
}

#[test]
fn scenario_6_packets_of_exactly_max_frame_and_one_more() {
    check(&packet(PacketWidth::One), 3, b"\x03abc", &[b"abc"], None);
    check(&packet(PacketWidth::One), 3, b"\x04abcd", &[], Some((oversize(Some(4), 3), 0)));
}

#[test]
fn scenario_7_and_d7_a_truncated_packet_is_an_error_that_says_how_much_came() {
    let four = packet(PacketWidth::Four);
    check(&four, MAX, b"\0\0", &[], Some((truncated(Part::Header, 2, 4), 0)));
    check(&four, MAX, b"\0\0\0\x0aabc", &[], Some((truncated(Part::Body, 3, 10), 0)));
    check(&four, MAX, b"\0\0\0\x01a\0\0\0\x05", &[b"a"], Some((truncated(Part::Body, 0, 5), 5)));
    check(&four, MAX, b"\0\0\0\x01a", &[b"a"], None);
    check(&packet(PacketWidth::Two), MAX, b"\0", &[], Some((truncated(Part::Header, 1, 2), 0)));
}

#[test]
fn a_counted_message_is_its_header_a_line_feed_and_its_body() {
    let git = &git();
    check(git, MAX, b"ab blob 5\nhello\n", &[b"ab blob 5\nhello"], None);
    check(git, MAX, b"ab blob 0\n\n", &[b"ab blob 0\n"], None);
    check(
        git,
        MAX,
        b"ab blob 4\n\n\n\r\n\nx missing\n",
        &[b"ab blob 4\n\n\n\r\n", b"x missing"],
        None,
    );
    check(git, MAX, b"ab blob 2\r\nhi\n", &[b"ab blob 2\nhi"], None);
    let bare = Framing::Counted { header: r"^([0-9]+)$".to_owned(), trailer: String::new() };
    check(&bare, MAX, b"2\nhi0\nno\n1\nx", &[b"2\nhi", b"0\n", b"no", b"1\nx"], None);
    // Digits are those of ASCII, whatever others there are.
    let digits = Framing::Counted { header: r"^(\d+)$".to_owned(), trailer: String::new() };
    let text = "\u{663}\n2\nhi".as_bytes();
    check(&digits, MAX, text, &["\u{663}".as_bytes(), b"2\nhi"], None);
}

#[test]
fn a_counted_stream_that_loses_its_frames_is_refused() {
    let git = &git();
    check(git, 12, b"ab blob 2\nhi\n", &[b"ab blob 2\nhi"], None);
    check(git, 12, b"ab blob 3\nhi!\n", &[], Some((oversize(Some(3), 12), 0)));
    check(git, 12, b"ab something 2\n", &[], Some((oversize(None, 12), 0)));
    check(git, MAX, b"ab blob 5", &[], Some((truncated(Part::Header, 9, 10), 0)));
    check(git, MAX, b"ab blob 5\nhel", &[], Some((truncated(Part::Body, 3, 5), 0)));
    check(git, MAX, b"ab blob 5\nhello", &[], Some((truncated(Part::Trailer, 0, 1), 0)));
    let (messages, error) = read(git, MAX, [&b"x\nab blob 2\nhello\n"[..]]);
    let Some((Fault::Garbage { what }, 2)) = error else { panic!("{error:?}") };
    assert_eq!(messages, [b"x"]);
    assert_eq!(what, r#"has "l" where its trailer "\n" is due"#);
    let odd = Framing::Counted { header: r"^length (\S+)$".to_owned(), trailer: String::new() };
    let (_, error) = read(&odd, MAX, [&b"length -5\n"[..]]);
    let Some((Fault::Garbage { what }, 0)) = error else { panic!("{error:?}") };
    assert_eq!(what, r#"announces "-5" as its length"#);
}

#[test]
fn an_error_says_all_in_a_sentence() {
    let codec = Codec::new(&packet(PacketWidth::Four), MAX).unwrap();
    let mut decoder = Decoder::new(&codec);
    decoder.push(&codec, b"\0\0\0\x01x\xff", &mut |_| {}).unwrap();
    let error = decoder.push(&codec, b"\xff\xff\xffUsage:\n", &mut |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the message at byte 5 of its output announces 4294967295 bytes, 1048576 are allowed; \
         it begins with \"\\xff\\xff\\xff\\xffUsage:\\n\""
    );
    let mut decoder = Decoder::new(&codec);
    decoder.push(&codec, b"\0\0\0\x0aabc", &mut |_| {}).unwrap();
    assert_eq!(
        decoder.finish(&codec).unwrap_err().to_string(),
        "the message at byte 0 of its output is cut off by the end of the stream: 3 of 10 bytes of \
         its body; it begins with \"\\x00\\x00\\x00\\nabc\""
    );
    let long = vec![b'x'; 1000];
    let codec = Codec::new(&Framing::Lines, 100).unwrap();
    let error = Decoder::new(&codec).push(&codec, &long, &mut |_| {}).unwrap_err();
    assert_eq!(error.sample.0, &long[..64]);
}

#[test]
fn raw_messages_are_the_reads_in_pieces_of_max_frame() {
    let seen = read(&Framing::Raw, 4, [&b"abc"[..], b"abcdefghi"]);
    assert_eq!(seen, (vec![b"abc".to_vec(), b"abcd".into(), b"efgh".into(), b"i".into()], None));
}

#[test]
fn scenario_2_ten_thousand_messages_in_one_read() {
    for framing in every_cut() {
        if framing == Framing::Eof {
            continue;
        }
        let codec = Codec::new(&framing, MAX).unwrap();
        let message = |n: u32| said(&framing, &codec, &format!("{n} x"));
        let stream: Vec<u8> = (0..10_000).flat_map(|n| message(n).1).collect();
        let mut next = 0;
        let mut same = |told: Message| {
            assert_eq!(told.payload, message(next).0);
            next += 1;
        };
        Decoder::new(&codec).push(&codec, &stream, &mut same).unwrap();
        assert_eq!(next, 10_000, "{framing:?}");
    }
}

/// Bytes are looked at once: the memory of a message that grows byte by byte is moved a number of
/// times that grows with the logarithm of its size.
#[test]
fn scenario_12_a_message_in_single_bytes_costs_no_more_than_linear() {
    for framing in every_cut() {
        let short = [PacketWidth::One, PacketWidth::Two].map(Framing::Packet);
        if short.contains(&framing) || [Framing::PktLine, Framing::Eof].contains(&framing) {
            continue;
        }
        let codec = Codec::new(&framing, MAX).unwrap();
        let x = |count| vec![b'x'; count];
        let payload = match framing {
            Framing::Json => [b"\"", &x(99_998)[..], b"\""].concat(),
            Framing::Msgpack => [b"\xdb\0\x01\x86\x9b", &x(99_995)[..]].concat(),
            _ => x(100_000),
        };
        let mut stream = flat(&codec.encode(Bytes::from(payload)).unwrap());
        if let Framing::Prompt(_) = framing {
            stream.extend(b"> ");
        }
        let (mut decoder, mut whole, mut moves, mut held) = (Decoder::new(&codec), 0, 0, 0);
        for byte in stream.chunks(1) {
            decoder.push(&codec, byte, &mut |message| whole = message.payload.len()).unwrap();
            moves += u32::from(decoder.held() != held);
            held = decoder.held();
        }
        assert_eq!((whole, held), (100_000, 0), "{framing:?}");
        assert!(moves < 40, "{framing:?} moved {moves} times");
    }
}

#[test]
fn a_decoder_survives_its_text_in_the_middle_of_a_message() {
    for framing in every_cut() {
        let codec = Codec::new(&framing, MAX).unwrap();
        let stream: Vec<u8> = ["12 \u{e4}", "", "last"]
            .iter()
            .flat_map(|text| said(&framing, &codec, text).1)
            .collect();
        let expected = read(&framing, MAX, [&stream[..]]);
        let (mut decoder, mut seen) = (Decoder::new(&codec), Vec::new());
        for byte in stream.chunks(1) {
            let text = serde_json::to_string(&decoder).unwrap();
            decoder = serde_json::from_str(&text).unwrap();
            assert!(decoder.fits(&codec));
            decoder.push(&codec, byte, &mut |message| seen.push(message.payload.to_vec())).unwrap();
        }
        seen.extend(decoder.finish(&codec).unwrap().map(|message| message.payload.to_vec()));
        assert_eq!(seen, expected.0, "{framing:?}");
    }
    let lines = Codec::new(&Framing::Lines, MAX).unwrap();
    let nul = Codec::new(&Framing::Nul, MAX).unwrap();
    let mut decoder = Decoder::new(&lines);
    assert!(!decoder.fits(&nul));
    assert!(decoder.push(&nul, b"x", &mut |_| panic!("no message")).is_err());
}

#[test]
fn bad_rules_are_refused() {
    let counted =
        |header: &str| Framing::Counted { header: header.to_owned(), trailer: String::new() };
    let refused = |framing: &Framing| Codec::new(framing, MAX).unwrap_err();
    assert!(matches!(refused(&counted("(")), BadRule::Pattern { .. }));
    assert_eq!(refused(&counted("^x$")), BadRule::NoGroup { pattern: "^x$".to_owned() });
    for prompt in ["", ">?", "(", r"\b> $", r"\w{300}{300}"] {
        let framing = Framing::Prompt(prompt.to_owned());
        assert!(matches!(refused(&framing), BadRule::Prompt { .. }), "{prompt}");
    }
    assert_eq!(Codec::new(&Framing::Lines, 0).unwrap_err(), BadRule::NoFrame);
}

fn flat(frame: &Frame) -> Vec<u8> {
    let bytes = [&frame.head[..], &frame.body, &frame.tail].concat();
    assert_eq!(bytes.len(), frame.len());
    bytes
}

#[test]
fn messages_are_framed() {
    let encoded = |framing: &Framing, payload: &'static [u8]| {
        flat(&Codec::new(framing, MAX).unwrap().encode(Bytes::from_static(payload)).unwrap())
    };
    let lines: &[(&[u8], &[u8])] = &[
        (b"", b"\n"),
        (b"a", b"a\n"),
        (b"a\n", b"a\n"),
        (b"a\n\n", b"a\n\n"),
        (b"two\nlines", b"two\nlines\n"),
    ];
    for (payload, bytes) in lines {
        assert_eq!(encoded(&Framing::Lines, payload), *bytes);
        assert_eq!(encoded(&git(), payload), *bytes);
    }
    assert_eq!(encoded(&Framing::Nul, b"a\n"), b"a\n\0");
    assert_eq!(encoded(&packet(PacketWidth::One), b"ab"), b"\x02ab");
    assert_eq!(encoded(&packet(PacketWidth::Two), b"ab"), b"\0\x02ab");
    assert_eq!(encoded(&packet(PacketWidth::Four), b""), b"\0\0\0\0");
    assert_eq!(encoded(&Framing::Raw, b"a"), b"a");
}

#[test]
fn scenario_5_a_message_that_cannot_be_sent_is_refused() {
    let refused = |framing: &Framing, max, length| {
        let codec = Codec::new(framing, max).unwrap();
        codec.encode(Bytes::from(vec![b'x'; length])).err()
    };
    let too_large = |size, max| Some(EncodeError::TooLarge { size, max });
    for framing in every_cut().iter().chain([&Framing::Raw]) {
        if ![Framing::Json, Framing::Msgpack].contains(framing) {
            assert_eq!(refused(framing, 100, 100), None);
        }
        assert_eq!(refused(framing, 100, 101), too_large(101, 100), "{framing:?}");
    }
    assert_eq!(refused(&packet(PacketWidth::One), MAX, 255), None);
    assert_eq!(refused(&packet(PacketWidth::One), MAX, 256), too_large(256, 255));
    assert_eq!(refused(&packet(PacketWidth::Two), MAX, 65_535), None);
    assert_eq!(refused(&packet(PacketWidth::Two), MAX, 65_536), too_large(65_536, 65_535));
    assert_eq!(refused(&Framing::Raw, MAX, 0), Some(EncodeError::Empty));
    let nul = Codec::new(&Framing::Nul, MAX).unwrap();
    assert_eq!(nul.encode(Bytes::from("ab\0c")), Err(EncodeError::Delimiter { at: 2 }));
}

#[test]
fn a_large_payload_is_not_copied() {
    let payload = Bytes::from(vec![b'x'; 100_000]);
    for framing in every_cut() {
        let small = ["packet1", "packet2", "pkt-line", "json", "msgpack"];
        if small.contains(&framing.name()) {
            continue;
        }
        let frame = Codec::new(&framing, MAX).unwrap().encode(payload.clone()).unwrap();
        assert_eq!(frame.body.as_ptr(), payload.as_ptr(), "{framing:?}");
    }
}

/// Streams made of what framings look for, so that chance finds their corners.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let bits = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"\0\0\0\x03".to_vec()),
        Just(b"3\n".to_vec()),
        Just(b"#3\nabc\r\n".to_vec()),
        Just(b"ab blob 3\n".to_vec()),
        Just(b"abc".to_vec()),
        Just(b"abc\n".to_vec()),
        Just(b"3:abc,".to_vec()),
        Just(b"0006hi0000".to_vec()),
        Just(b"Content-Length: 2\r\n\r\nhi".to_vec()),
        Just(b"[1,{\"a\":2}]".to_vec()),
        Just(b"\x92\xa1a\xc0".to_vec()),
        Just(b"> ".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(bits, 0..20).prop_map(|bits| bits.concat())
}

/// The pieces of a stream that is cut at these places.
fn cut<'a>(stream: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

/// Whether a message that can be sent arrives as it was, in those framings that look into it.
fn arrives(framing: &Framing, codec: &Codec, message: &[u8]) -> bool {
    match framing {
        // One end of a line and what would be a prompt are not part of a message.
        Framing::Prompt(_) => {
            let end = matches!(message.last(), Some(b'\r' | b'\n'));
            let prompt = message.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"> "));
            !end && !prompt
        }
        Framing::Stanza => !message.contains(&b'\r') && message.last() != Some(&b'\n'),
        // White space around a value is left out.
        Framing::Json => codec.check(message).is_ok() && message.trim_ascii() == message,
        // A packet of a message that needs no digits.
        Framing::PktLine => codec.check(message).is_ok() && !super::pkt_line::is_packets(message),
        _ => true,
    }
}

proptest! {
    #[test]
    fn scenario_1_the_same_stream_gives_the_same_messages_however_it_is_cut(
        stream in streams(),
        max in prop_oneof![1_u64..20, Just(MAX)],
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        for framing in every_cut() {
            let whole = read(&framing, max, [&stream[..]]);
            prop_assert_eq!(&read(&framing, max, cut(&stream, &places)), &whole, "{:?}", framing);
            prop_assert_eq!(&read(&framing, max, stream.chunks(1)), &whole, "{:?}", framing);
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        for framing in every_cut() {
            if framing == Framing::Eof {
                continue;
            }
            let codec = Codec::new(&framing, MAX).unwrap();
            let counted = matches!(framing, Framing::Counted { .. });
            let mut stream = Vec::new();
            let mut sent = Vec::new();
            for message in &messages {
                // What cannot be said in lines: a line with an end in it, or a CR at its own end.
                // What a counted stream would take for a header.
                let lines = framing == Framing::Lines || counted;
                let no_line = message.contains(&b'\n') || message.last() == Some(&b'\r');
                let header = message.iter().all(|byte| *byte == b'#' || byte.is_ascii_digit());
                if (lines && no_line) || (counted && header) || !arrives(&framing, &codec, message) {
                    continue;
                }
                let Ok(frame) = codec.encode(Bytes::from(message.clone())) else { continue };
                stream.extend(flat(&frame));
                if let Framing::Prompt(_) = framing {
                    stream.extend(b"> ");
                }
                sent.push(message.clone());
            }
            prop_assert_eq!(read(&framing, MAX, cut(&stream, &places)), (sent, None), "{:?}", framing);
        }
    }

    #[test]
    fn no_stream_takes_more_memory_than_twice_what_came(
        stream in proptest::collection::vec(any::<u8>(), 0..2000),
        size in 1_usize..100,
    ) {
        for framing in every_cut().iter().chain([&Framing::Raw]) {
            let codec = Codec::new(framing, u64::MAX).unwrap();
            let (mut decoder, mut came) = (Decoder::new(&codec), 0);
            for piece in stream.chunks(size) {
                came += piece.len();
                if decoder.push(&codec, piece, &mut |_| {}).is_err() {
                    break;
                }
                // The lists that are open, at most 128, take eight bytes each.
                let most = 2 * came + if *framing == Framing::Msgpack { 1024 } else { 0 };
                prop_assert!(decoder.held() <= most, "{:?} holds {}", framing, decoder.held());
            }
            let _ = decoder.finish(&codec);
        }
    }
}
