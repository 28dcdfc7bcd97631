//! Framings that announce a length: `netstring`, `pkt-line`, `content-length`.

use super::*;

fn garbage(framing: &Framing, max: u64, stream: &[u8], messages: &[&[u8]], what: &str, at: u64) {
    let fault = Fault::Garbage { what: what.to_owned() };
    check(framing, max, stream, messages, Some((fault, at)));
}

fn cut_off(framing: &Framing, stream: &[u8], part: Part, got: u64, wanted: u64) {
    check(framing, MAX, stream, &[], Some((truncated(part, got, wanted), 0)));
}

fn sent(framing: &Framing, payload: &[u8]) -> Vec<u8> {
    let codec = Codec::new(framing, MAX).unwrap();
    flat(&codec.encode(Bytes::copy_from_slice(payload)).unwrap())
}

#[test]
fn a_netstring_has_a_length_a_colon_and_a_comma() {
    let netstring = &Framing::Netstring;
    check(netstring, MAX, b"12:hello world!,0:,1:,,", &[b"hello world!", b"", b","], None);
    check(netstring, 3, b"3:abc,4:abcd,", &[b"abc"], Some((oversize(Some(4), 3), 6)));
    let huge = Some((oversize(Some(u64::MAX), MAX), 0));
    check(netstring, MAX, b"99999999999999999999999999:", &[], huge);
    assert_eq!(sent(netstring, b"hi"), b"2:hi,");
    assert_eq!(sent(netstring, b""), b"0:,");
}

#[test]
fn scenario_11_a_netstring_is_strict() {
    let netstring = &Framing::Netstring;
    let zero = "announces its length with a zero before it";
    garbage(netstring, MAX, b"1:a,05:hello,", &[b"a"], zero, 4);
    garbage(netstring, MAX, b"00:,", &[], zero, 0);
    let due = r#"has "E" where a digit of its length is due"#;
    garbage(netstring, MAX, b"Error: no\n", &[], due, 0);
    let due = r#"has ":" where a digit of its length is due"#;
    garbage(netstring, MAX, b":abc,", &[], due, 0);
    let due = r#"has " " where a digit or a colon of its length is due"#;
    garbage(netstring, MAX, b"1 :a,", &[], due, 0);
    let due = r#"has "\n" where its last comma is due"#;
    garbage(netstring, MAX, b"1:a\n", &[], due, 0);
    cut_off(netstring, b"12", Part::Header, 2, 3);
    cut_off(netstring, b"12:", Part::Body, 0, 12);
    cut_off(netstring, b"3:ab", Part::Body, 2, 3);
    cut_off(netstring, b"3:abc", Part::Trailer, 0, 1);
}

#[test]
fn scenario_11_a_pkt_line_without_payload_is_told_by_its_digits() {
    let git = &Framing::PktLine;
    let stream = b"0014command=ls-refs\n00010009hello000400000002";
    let messages: &[&[u8]] = &[b"command=ls-refs\n", b"0001", b"hello", b"", b"0000", b"0002"];
    check(git, MAX, stream, messages, None);
    check(git, MAX, b"000Ahelloo", &[b"helloo"], None);
}

#[test]
fn a_payload_that_reads_as_packets_keeps_its_digits() {
    let git = &Framing::PktLine;
    let told: &[&[u8]] = &[b"00080000", b"000c00080000", b"00030"];
    check(git, MAX, b"00080000000c00080000000900030", told, None);
    for message in told {
        let bytes = sent(git, message);
        assert_eq!(read(git, MAX, [&bytes[..]]), (vec![message.to_vec()], None));
    }
}

#[test]
fn a_message_of_whole_packets_is_sent_as_it_stands() {
    let git = &Framing::PktLine;
    for (message, bytes) in [
        (&b"hello"[..], &b"0009hello"[..]),
        (b"", b"0004"),
        (b"0000", b"0000"),
        (b"0014command=ls-refs\n0000", b"0014command=ls-refs\n0000"),
        (b"0014command=ls-refs\n000", b"001b0014command=ls-refs\n000"),
        (b"0003", b"00080003"),
        (b"0009hell", b"000c0009hell"),
    ] {
        assert_eq!(sent(git, message), bytes, "{}", message.escape_ascii());
    }
    let codec = Codec::new(git, MAX).unwrap();
    assert_eq!(codec.check(&b"x".repeat(65_516)), Ok(()));
    let refused = EncodeError::TooLarge { size: 65_517, max: 65_516 };
    assert_eq!(codec.check(&b"x".repeat(65_517)), Err(refused));
    assert_eq!(codec.check(&b"0004".repeat(100_000)), Ok(()));
    let refused = EncodeError::TooLarge { size: MAX + 4, max: MAX };
    assert_eq!(codec.check(&b"0004".repeat((1 << 18) + 1)), Err(refused));
}

#[test]
fn a_pkt_line_that_git_would_not_take_is_refused() {
    let git = &Framing::PktLine;
    garbage(git, MAX, b"00000003", &[b"0000"], "announces 3 bytes, which no packet has", 4);
    let due = r#"has "g" where a hexadecimal digit of its length is due"#;
    garbage(git, MAX, b"00g4", &[], due, 0);
    let due = r#"has "t" where a hexadecimal digit of its length is due"#;
    garbage(git, MAX, b"fatal: not a git repository", &[], due, 0);
    let large = Some((oversize(Some(65_517), 65_516), 0));
    check(git, MAX, b"fff1", &[], large);
    check(git, 4, b"00080000", &[], Some((oversize(Some(8), 4), 0)));
    cut_off(git, b"000", Part::Header, 3, 4);
    cut_off(git, b"0009hel", Part::Body, 3, 5);
}

#[test]
fn scenario_10_headers_say_how_long_a_message_is() {
    let lsp = &Framing::ContentLength;
    check(lsp, MAX, b"Content-Length: 5\r\n\r\nhello", &[b"hello"], None);
    let odd = b"content-type: text\ncontent-length:2\n\nhi\
                Content-Type: application/vscode-jsonrpc; charset=utf8\r\nCONTENT-LENGTH :\t0 \r\n\r\n";
    check(lsp, MAX, odd, &[b"hi", b""], None);
    assert_eq!(sent(lsp, b"hello"), b"Content-Length: 5\r\n\r\nhello");
}

#[test]
fn scenario_10_headers_that_are_none_are_refused() {
    let lsp = &Framing::ContentLength;
    let no = "has \"Content-Length: -1\", which is no length";
    garbage(lsp, MAX, b"Content-Length: -1\r\n\r\n", &[], no, 0);
    let no = "has \"Content-Length:\", which is no length";
    garbage(lsp, MAX, b"Content-Length:\r\n\r\n", &[], no, 0);
    garbage(lsp, MAX, b"Content-Type: x\r\n\r\nhi", &[], "has no Content-Length in its headers", 0);
    garbage(lsp, MAX, b"\r\n", &[], "has no Content-Length in its headers", 0);
    let twice = b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n";
    garbage(lsp, MAX, twice, &[], "has Content-Length twice", 0);
    let stray = "has \"listening\" where a header such as \"Content-Length: 12\" is due";
    garbage(lsp, MAX, b"Content-Length: 1\n\nxlistening\n", &[b"x"], stray, 20);
    let endless = [b"x".repeat(8192), b"\n".to_vec()].concat();
    garbage(lsp, MAX, &endless, &[], "has headers of more than 8192 bytes", 0);
    let large = Some((oversize(Some(11), 10), 0));
    check(lsp, 10, b"Content-Length: 11\r\n\r\n", &[], large);
    let large = Some((oversize(Some(u64::MAX), MAX), 0));
    check(lsp, MAX, b"Content-Length: 999999999999999999999\r\n\r\n", &[], large);
    cut_off(lsp, b"Content-Length: 5\r\n", Part::Header, 19, 20);
    cut_off(lsp, b"Content-Length: 5\r\n\r\nhel", Part::Body, 3, 5);
}

#[test]
fn a_sample_shows_the_headers_too() {
    let codec = Codec::new(&Framing::ContentLength, MAX).unwrap();
    let mut decoder = Decoder::new(&codec);
    decoder.push(&codec, b"Content-Length: 5\r\n\r\nhel", &mut |_| {}).unwrap();
    let error = decoder.finish(&codec).unwrap_err();
    assert_eq!(error.sample.0, b"Content-Length: 5\r\n\r\nhel");
    let codec = Codec::new(&Framing::Netstring, MAX).unwrap();
    let mut decoder = Decoder::new(&codec);
    decoder.push(&codec, b"5:hel", &mut |_| {}).unwrap();
    assert_eq!(decoder.finish(&codec).unwrap_err().sample.0, b"5:hel");
}
