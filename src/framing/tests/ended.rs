//! Framings whose messages are ended by what follows them: `stanza`, `prompt`, `eof`.

use super::*;

fn sent(framing: &Framing, payload: &'static [u8]) -> Vec<u8> {
    flat(&Codec::new(framing, MAX).unwrap().encode(Bytes::from_static(payload)).unwrap())
}

#[test]
fn an_empty_line_ends_a_stanza() {
    let stanza = &Framing::Stanza;
    check(stanza, MAX, b"a\nb\n\nc\n\n", &[b"a\nb", b"c"], None);
    check(stanza, MAX, b"a\r\nb\r\n\r\n", &[b"a\nb"], None);
    check(stanza, MAX, b"\n\r\na\n\n\n", &[b"", b"", b"a", b""], None);
    check(stanza, MAX, b"a\rb\r\r\n\r\n", &[b"a\rb\r"], None);
    check(stanza, MAX, b"a\n\nb\nc\n", &[b"a", "b\nc…".as_bytes()], None);
    check(stanza, MAX, b"b", &["b…".as_bytes()], None);
    check(stanza, MAX, b"b\r", &["b\r…".as_bytes()], None);
    check(stanza, MAX, b"b\n\r", &["b\n\r…".as_bytes()], None);
}

#[test]
fn a_stanza_of_exactly_max_frame_and_one_more() {
    let stanza = &Framing::Stanza;
    check(stanza, 3, b"abc\n\na\nb\n\nabc\r\n\r\n", &[b"abc", b"a\nb", b"abc"], None);
    check(stanza, 3, b"abcd\n\n", &[], Some((oversize(None, 3), 0)));
    check(stanza, 3, b"\nab\nc\n\n", &[b""], Some((oversize(None, 3), 1)));
    check(stanza, 3, b"abc\r", &[], Some((oversize(None, 3), 0)));
    check(stanza, 3, b"abc\n\rx", &[], Some((oversize(None, 3), 0)));
}

#[test]
fn a_stanza_gets_its_empty_line_and_is_refused_another() {
    let stanza = &Framing::Stanza;
    for (payload, bytes) in [
        (&b""[..], &b"\n"[..]),
        (b"\n", b"\n"),
        (b"a", b"a\n\n"),
        (b"a\n", b"a\n\n"),
        (b"a\n\n", b"a\n\n"),
        (b"a\r\n", b"a\r\n\n"),
        (b"a\nb\r\n\r\n", b"a\nb\r\n\r\n"),
    ] {
        assert_eq!(sent(stanza, payload), bytes, "{}", payload.escape_ascii());
    }
    let codec = Codec::new(stanza, MAX).unwrap();
    for (payload, at) in
        [(&b"\na"[..], 0), (b"a\n\nb", 2), (b"a\n\r\nb\n\n", 2), (b"a\n\n\n", 2), (b"a\n\r", 2)]
    {
        let refused = Err(EncodeError::EmptyLine { at });
        assert_eq!(codec.check(payload), refused, "{}", payload.escape_ascii());
    }
}

fn prompt(pattern: &str) -> Framing {
    Framing::Prompt(pattern.to_owned())
}

#[test]
fn a_prompt_ends_a_message_without_a_line_feed() {
    let sqlite = &prompt("^sqlite> $");
    check(
        sqlite,
        MAX,
        b"banner\nsqlite> 1|2\r\n3\r\nsqlite> sqlite> ",
        &[b"banner", b"1|2\r\n3", b""],
        None,
    );
    check(sqlite, MAX, b"a sqlite> b\n\nsqlite> ", &[b"a sqlite> b\n"], None);
    check(sqlite, MAX, b"sqlite> bye\n", &[b"", "bye…".as_bytes()], None);
    check(sqlite, MAX, b"sqlite>", &["sqlite>…".as_bytes()], None);
    assert_eq!(sent(sqlite, b"select 1;"), b"select 1;\n");
    // Text without special characters stands for itself; on the same line it ends a message as well.
    let literal = &prompt("> ");
    check(literal, MAX, b"5> x\n> ", &[b"5", b"x"], None);
    let names = &prompt(r"^[a-z]+@\w+:\d+[$#] $");
    check(names, MAX, "é\nroot@böx:1# x\na@b:22$ ".as_bytes(), &["é".as_bytes(), b"x"], None);
}

#[test]
fn the_first_bytes_that_match_are_the_prompt() {
    check(&prompt("^>>? ?$"), MAX, b">>x", &[b"", b"", "x…".as_bytes()], None);
    check(&prompt("^> $"), MAX, b"> it goes on\n", &[b"", "it goes on…".as_bytes()], None);
}

#[test]
fn a_message_and_its_prompt_have_a_size_together() {
    let it = &prompt("^> $");
    check(it, 4, b"abcd", &["abcd…".as_bytes()], None);
    check(it, 4, b"a\n> > ", &[b"a", b""], None);
    check(it, 4, b"> ab\n> ", &[b""], Some((oversize(None, 4), 2)));
}

#[test]
fn the_whole_output_is_one_message_even_when_there_is_none() {
    let eof = &Framing::Eof;
    check(eof, MAX, b"a\n\0b", &[b"a\n\0b"], None);
    check(eof, MAX, b"", &[b""], None);
    check(eof, 3, b"abc", &[b"abc"], None);
    check(eof, 3, b"abcd", &[], Some((oversize(None, 3), 0)));
    assert_eq!(sent(eof, b"a\n"), b"a\n");
    assert_eq!(sent(eof, b""), b"");
}
