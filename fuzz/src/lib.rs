//! What the fuzz targets do, one function a framing: any bytes as the output of a program. It never
//! runs a program or reads a file.
//!
//! `tests/fuzz.rs` runs the same functions on stable, so that nothing here needs a fuzzer.
//!
//! The first byte of an input says the largest message (0: 1 MiB), the second how the stream is cut,
//! the rest is the stream. It must give the same however it is cut, whole, in pieces and in single
//! bytes, also where the decoder is written out and read back in between; hold no more than what
//! came, announce its errors where they are, and give messages that can be sent and arrive again.

use bytes::Bytes;
use wharf::framing::{Codec, Decoder, Fault, Message};
use wharf::message::{self as wire, Mode};
use wharf::spec::{Framing, PacketWidth};

/// The prompt of the `prompt` target.
const PROMPT: &str = "^> $";

/// A framing to be fuzzed.
pub struct Target {
    /// The name of its target, that of its folder of seeds too.
    pub name: &'static str,
    /// Takes an input; panics where a promise is broken.
    pub body: fn(&[u8]),
    /// What its streams are made of, to help chance.
    pub words: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "lines", body: lines, words: &[b"\n", b"\r\n", b"\r", b"line"] },
    Target { name: "nul", body: nul, words: &[b"\0", b"text"] },
    Target {
        name: "packet",
        body: packet,
        words: &[b"\0\0\0\x02hi", b"\x01a", b"\0\x01b", b"\xff"],
    },
    Target {
        name: "counted",
        body: counted,
        words: &[b"ab blob 3\n", b"abc\n", b"ab blob 0\n", b"\n", b"x missing\n", b"ab blob 99\n"],
    },
    Target {
        name: "netstring",
        body: netstring,
        words: &[b"5:hello,", b"0:,", b"3:", b"abc,", b",", b"0", b"99999999999999999999:"],
    },
    Target {
        name: "pkt_line",
        body: pkt_line,
        words: &[
            b"0000",
            b"0001",
            b"0002",
            b"0003",
            b"0004",
            b"0006hi",
            b"00080000",
            b"000A",
            b"fff0",
        ],
    },
    Target {
        name: "content_length",
        body: content_length,
        words: &[
            b"Content-Length: 3\r\n",
            b"content-length:0\n",
            b"\r\n",
            b"\n",
            b"abc",
            b"X: y\r\n",
            b"-",
        ],
    },
    Target {
        name: "json",
        body: json,
        words: &[
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"a\"",
            b":",
            b",",
            b"12",
            b"-0.5e+3",
            b"true",
            b"nul",
            b" ",
            b"\n",
            b"\"\\u00e4\\\"\"",
            b"{\"a\":[1,{}]}",
            b"0",
            b"\xe4",
            b"\"",
        ],
    },
    Target {
        name: "msgpack",
        body: msgpack,
        words: &[
            b"\x93\x01\xa2hi\xc0",
            b"\x81\xa1a\x01",
            b"\xdd\xff\xff\xff\xff",
            b"\xc4\x02ab",
            b"\xc7\x01\x05x",
            b"\xd4\x01x",
            b"\xcf\0\0\0\0\0\0\0\x01",
            b"\xc1",
            b"\x91",
            b"\x90",
            b"\xdc\0\x02",
            b"\xd9\x01",
            b"\xca",
        ],
    },
    Target {
        name: "stanza",
        body: stanza,
        words: &[b"a\n", b"\n", b"\r\n", b"\r", b"b\r\n\r\n", b"c"],
    },
    Target { name: "prompt", body: prompt, words: &[b"> ", b">", b"\n", b"\r\n", b"text", b" "] },
    Target { name: "eof", body: eof, words: &[b"text", b"\n"] },
    Target { name: "raw", body: raw, words: &[b"text", b"\n"] },
    Target {
        name: "envelope",
        body: envelope,
        words: &[
            b"\0\0\0\x0a\x12\0\0\0\0\0\0\0\0\x01",
            b"\0\0\0\x0c\x01\x04\0\0\0\0\0\0\0\x01hi",
            b"\0\0\0\x0d\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffabc",
            b"\0\0\0",
            b"\xff",
            b"{\"k\":\"call\",\"id\":7,\"p\":[1]}\n",
            b"{\"k\":\"data\",\"b\":\"AAE=\"}\r\n",
            b"{\"k\":\"x-y\"}\n",
            b"{\"k\":\"reply\",\"t\":\"a\\n\"",
            b",\"critical\":true}",
            b"}\n",
            b"\n",
        ],
    },
];

/// `lines`.
pub fn lines(data: &[u8]) {
    let sayable = |message: &[u8]| message.last() != Some(&b'\r');
    promises(&Framing::Lines, data, sayable);
}

/// `nul`.
pub fn nul(data: &[u8]) {
    promises(&Framing::Nul, data, |_| true);
}

/// `packet1`, `packet2` and `packet4`.
pub fn packet(data: &[u8]) {
    for width in [PacketWidth::One, PacketWidth::Two, PacketWidth::Four] {
        promises(&Framing::Packet(width), data, |_| true);
    }
}

/// `counted`, which sends something else than it reads.
pub fn counted(data: &[u8]) {
    let header = r"^[0-9a-f]+ [a-z]+ (\d+)$".to_owned();
    promises(&Framing::Counted { header, trailer: "\n".to_owned() }, data, |_| false);
}

/// `netstring`.
pub fn netstring(data: &[u8]) {
    promises(&Framing::Netstring, data, |_| true);
}

/// `pkt-line`.
pub fn pkt_line(data: &[u8]) {
    promises(&Framing::PktLine, data, |_| true);
}

/// `content-length`.
pub fn content_length(data: &[u8]) {
    promises(&Framing::ContentLength, data, |_| true);
}

/// `json`.
pub fn json(data: &[u8]) {
    promises(&Framing::Json, data, |_| true);
}

/// `msgpack`.
pub fn msgpack(data: &[u8]) {
    promises(&Framing::Msgpack, data, |_| true);
}

/// `stanza`.
pub fn stanza(data: &[u8]) {
    promises(&Framing::Stanza, data, |message| !message.contains(&b'\r'));
}

/// `prompt`.
pub fn prompt(data: &[u8]) {
    let sayable = |message: &[u8]| !matches!(message.last(), Some(b'\r' | b'\n'));
    promises(&Framing::Prompt(PROMPT.to_owned()), data, sayable);
}

/// `eof`.
pub fn eof(data: &[u8]) {
    promises(&Framing::Eof, data, |_| true);
}

/// `raw`, whose messages are the reads.
pub fn raw(data: &[u8]) {
    let Some((max, _, stream)) = input(data) else { return };
    let codec = codec(&Framing::Raw, max);
    let seen = read(&codec, stream.chunks(5), stream, false);
    assert_eq!(seen.0.iter().flat_map(|one| one.payload.to_vec()).collect::<Vec<_>>(), stream);
}

/// Wire protocol 1 in both forms, with and without text that is no frame.
pub fn envelope(data: &[u8]) {
    promises(&Framing::Envelope, data, |_| true);
    let Some((max, size, stream)) = input(data) else { return };
    for mode in [Mode::Frame, Mode::Ndjson] {
        let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut frames, mut seen) = (wire::Decoder::new(mode, max), Vec::new());
            let mut came = 0;
            for piece in pieces {
                came += piece.len();
                if let Err(error) = frames.push(piece, &mut |read| seen.push(read)) {
                    return (seen, Some((error.fault, error.offset)));
                }
                assert!(frames.capacity() <= 2 * came + 1024 && frames.unfinished() <= came as u64);
            }
            (seen, frames.finish().err().map(|error| (error.fault, error.offset)))
        };
        let whole = read(&mut [stream].into_iter());
        // A stray shows its text, wherever it was cut.
        assert_eq!(read(&mut stream.chunks(size)), whole, "cut every {size}");
        assert_eq!(read(&mut stream.chunks(1)), whole, "cut everywhere");
        for read in whole.0 {
            let wire::Read::Frame(frame) = read else { continue };
            // JSON stands in a line without white space around it, so both forms are tried as text.
            let form = wire::Form { enc: wire::Payloads::Text, ..wire::Form::new(mode) };
            let sent = frame.encode(&form).expect("what was read can be sent").to_vec();
            let mut back = Vec::new();
            let mut frames = wire::Decoder::new(mode, 1 << 30);
            frames.push(&sent, &mut |read| back.push(read)).expect("and arrives again");
            assert_eq!(back, [wire::Read::Frame(frame)]);
        }
    }
}

/// The largest message, the size of pieces, and the stream.
fn input(data: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (&[max, piece], stream) = data.split_first_chunk::<2>()?;
    let max = if max == 0 { 1 << 20 } else { u64::from(max) };
    Some((max, usize::from(piece) + 1, stream))
}

fn codec(framing: &Framing, max: u64) -> Codec {
    Codec::new(framing, max).expect("the rules of the targets are good")
}

/// The messages, and what was wrong where.
type Seen = (Vec<Message>, Option<(Fault, u64)>);

/// Reads a stream in pieces, through the written form of the decoder where that is wanted.
fn read<'a>(
    codec: &Codec,
    pieces: impl Iterator<Item = &'a [u8]>,
    stream: &[u8],
    written: bool,
) -> Seen {
    let (mut decoder, mut seen, mut came) = (Decoder::new(codec), Vec::new(), 0);
    let mut failed = None;
    for piece in pieces {
        came += piece.len();
        if let Err(error) = decoder.push(codec, piece, &mut |message| seen.push(message)) {
            failed = Some(error);
            break;
        }
        // A list that is open takes eight bytes besides its own one, and 128 may be.
        assert!(decoder.held() <= 2 * came + 1024, "{} bytes for {came}", decoder.held());
        assert!(decoder.unfinished() <= came as u64);
        if written {
            let text = serde_json::to_string(&decoder).expect("a decoder can be written");
            decoder = serde_json::from_str(&text).expect("and read back");
            assert!(decoder.fits(codec));
        }
    }
    match failed {
        Some(error) => {
            assert!(decoder.is_failed() && decoder.held() == 0);
            let from = usize::try_from(error.offset).expect("it is within the stream");
            assert!(from <= came && from + error.sample.0.len() <= stream.len());
            (seen, Some((error.fault, error.offset)))
        }
        None => match decoder.finish(codec) {
            Ok(left) => {
                seen.extend(left);
                (seen, None)
            }
            Err(error) => (seen, Some((error.fault, error.offset))),
        },
    }
}

/// The promises of a framing. `sayable` tells the messages that, sent back, arrive as they were.
fn promises(framing: &Framing, data: &[u8], sayable: impl Fn(&[u8]) -> bool) {
    let Some((max, size, stream)) = input(data) else { return };
    let codec = codec(framing, max);
    let seen = read(&codec, [stream].into_iter(), stream, false);
    assert_eq!(read(&codec, stream.chunks(size), stream, true), seen, "cut every {size}");
    assert_eq!(read(&codec, stream.chunks(1), stream, false), seen, "cut everywhere");
    for Message { payload, partial } in seen.0 {
        assert!(payload.len() as u64 <= max, "a message of {} bytes", payload.len());
        if partial || !sayable(&payload) {
            continue;
        }
        let frame = codec.encode(payload.clone()).expect("what was read can be sent");
        let mut sent: Vec<u8> = frame.into_pieces().concat();
        if let Framing::Prompt(_) = framing {
            sent.extend(b"> ");
        }
        // A message of the largest size has no room for its prompt.
        let wide = self::codec(framing, 2 << 20);
        let back = read(&wide, [&sent[..]].into_iter(), &sent, false);
        let message = Message { payload: Bytes::clone(&payload), partial: false };
        assert_eq!(back, (vec![message], None));
    }
}
