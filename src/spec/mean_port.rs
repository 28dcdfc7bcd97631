//! The `port:` block from written to meant, and the rules between its keys.

use super::format::{header_regex, regex};
use super::mean::Subject;
use super::{
    Banner, Channel, Eof, Framing, Handshake, IdPlace, IdType, Longer, OnProtocolError,
    PacketWidth, Port, Ready, Replies, Stray, Unbuffer, written,
};

/// The largest frame that may be allowed, in bytes.
const LARGEST_FRAME: u64 = 1 << 30;
/// The largest payload of a packet of `pkt-line`, in bytes.
const LARGEST_PACKET: u64 = 65_516;
/// The largest payload of wire protocol 1, in bytes: the first byte of a stream tells its form, see
/// [`Mode::of_first`](crate::message::Mode::of_first).
const LARGEST_FRAMED: u64 = 128 << 20;
/// A packet that ends a section.
const FLUSH: &str = "0000";
/// Where a token goes.
const TOKEN: &str = "{token}";

pub(super) fn port(subject: &mut Subject<'_, '_>, written: written::Port) -> Port {
    let usual = Port::default();
    let enveloped = written.protocol.is_some();
    let given = [
        ("framing", written.framing.is_some()),
        ("replies", written.replies.is_some()),
        ("banner", written.banner.is_some()),
        ("ready", written.ready.is_some()),
        ("quit", written.quit.is_some()),
    ];
    let mut port = Port {
        channel: written.channel.map_or(usual.channel, channel),
        unbuffer: written.unbuffer.map_or(usual.unbuffer, unbuffer),
        framing: written.framing.map_or(usual.framing, framing),
        replies: written.replies.map_or(usual.replies, |written| replies(subject, written)),
        max_frame: written.max_frame.map_or(usual.max_frame, |size| size.0),
        queue: written.queue.unwrap_or(usual.queue),
        timeout: written.timeout.map_or(usual.timeout, |length| length.0),
        on_protocol_error: match written.on_protocol_error {
            None => usual.on_protocol_error,
            Some(written::OnProtocolError::Restart) => OnProtocolError::Restart,
            Some(written::OnProtocolError::Stop) => OnProtocolError::Stop,
        },
        handshake: written.handshake.map(handshake),
        stray: None,
        ready: written.ready.map_or_else(|| ready_default(written.banner.as_ref()), ready),
        banner: written.banner.map_or(usual.banner, banner),
        quit: written.quit.map(|word| word.0),
        eof: match written.eof {
            None => usual.eof,
            Some(written::Eof::Graceful) => Eof::Graceful,
            Some(written::Eof::Ignored) => Eof::Ignored,
            Some(written::Eof::Error) => Eof::Error,
        },
        eof_grace: written.eof_grace.map_or(usual.eof_grace, |length| length.0),
    };
    if enveloped {
        envelope_rules(subject, &port, &given);
        (port.framing, port.replies) = (Framing::Envelope, Replies::Envelope);
        (port.banner, port.ready, port.quit) = (Banner::None, Ready::Started, None);
    }
    channel_rules(subject, &port);
    sizes(subject, &port);
    framing_rules(subject, &port);
    replies_rules(subject, &port);
    handshake_rules(subject, &port);
    greeting_rules(subject, &port);
    port.stray = stray(subject, &port, written.stray);
    port
}

fn channel(written: written::Channel) -> Channel {
    match written {
        written::Channel::Stdio => Channel::Stdio,
        written::Channel::Fd3 => Channel::Fd3,
        written::Channel::Pty => Channel::Pty,
    }
}

fn unbuffer(written: written::Unbuffer) -> Unbuffer {
    match written {
        written::Unbuffer::None => Unbuffer::None,
        written::Unbuffer::Stdbuf => Unbuffer::Stdbuf,
        written::Unbuffer::Pty => Unbuffer::Pty,
    }
}

fn channel_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    let why = match (port.channel, port.unbuffer) {
        (Channel::Stdio, _) | (_, Unbuffer::None) => return,
        (Channel::Fd3, _) => "with `channel: fd3` no message comes over standard output",
        (Channel::Pty, _) => "with `channel: pty` standard output is a terminal as it is",
    };
    subject.complain(&["port", "unbuffer"], why);
}

/// What the protocol says itself cannot be said beside it.
fn envelope_rules(subject: &mut Subject<'_, '_>, port: &Port, given: &[(&str, bool)]) {
    for (key, _) in given.iter().filter(|(_, is_given)| *is_given) {
        subject.complain(&["port", key], "with `protocol: 1` the protocol says this itself");
    }
    if port.channel == Channel::Pty {
        let message = "with `protocol: 1` this is `stdio` or `fd3`: a terminal alters what passes";
        subject.complain(&["port", "channel"], message);
    }
    if port.max_frame > LARGEST_FRAMED {
        let message = "with `protocol: 1` the size must be from 1 to 128MiB";
        subject.complain(&["port", "max_frame"], message);
    }
}

fn banner(written: written::Banner) -> Banner {
    match written {
        written::Banner::Messages(count) => Banner::Messages(count),
        written::Banner::Until(pattern) => Banner::Until(pattern.0),
    }
}

fn ready_default(banner: Option<&written::Banner>) -> Ready {
    if banner.is_some() { Ready::Banner } else { Ready::Started }
}

fn ready(written: written::PortReady) -> Ready {
    use written::PortReady as Written;
    match written {
        Written::Started => Ready::Started,
        Written::FirstMessage => Ready::FirstMessage,
        Written::Message(pattern) => Ready::Message(pattern.0),
        Written::Exchange(both) => Ready::Exchange { send: both.send, expect: both.expect.0 },
    }
}

/// What is said before anybody speaks has to be messages.
fn greeting_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    let raw = port.framing == Framing::Raw;
    for (key, is_there, is_counted) in [
        ("banner", port.banner != Banner::None, true),
        (
            "ready",
            !matches!(port.ready, Ready::Started | Ready::Banner),
            port.ready != Ready::FirstMessage,
        ),
    ] {
        if is_there && port.framing == Framing::Eof {
            let message = "with the framing `eof` all that the program says is one message";
            subject.complain(&["port", key], message);
        } else if is_there && raw && is_counted {
            let message = "this needs messages, and the framing `raw` has none";
            subject.complain(&["port", key], message);
        }
    }
}

/// The policy for text that is no protocol, where there can be one.
fn stray(
    subject: &mut Subject<'_, '_>,
    port: &Port,
    written: Option<written::Stray>,
) -> Option<Stray> {
    let stray = written.map(|written| match written {
        written::Stray::Log => Stray::Log,
        written::Stray::Drop => Stray::Drop,
        written::Stray::Kill => Stray::Kill,
    });
    if port.can_bear_strays() {
        return stray.or(Some(Stray::Log));
    }
    if stray.is_some_and(Stray::is_borne) {
        let framing = port.framing.name();
        let why = match port.framing {
            Framing::Packet(_) | Framing::Netstring | Framing::PktLine | Framing::Msgpack => {
                format!("in a stream of `{framing}` nobody can tell where the next message begins")
            }
            Framing::Lines | Framing::Nul | Framing::Stanza | Framing::Prompt(_) => format!(
                "with the framing `{framing}` everything is a message, unless `replies` is an \
                 `id` in JSON"
            ),
            _ => format!("with the framing `{framing}` everything is a message"),
        };
        subject.complain(&["port", "stray"], format!("stray text cannot be told: {why}"));
    }
    stray
}

fn framing(written: written::Framing) -> Framing {
    use written::Framing as Written;
    match written {
        Written::Nul => Framing::Nul,
        Written::Packet1 => Framing::Packet(PacketWidth::One),
        Written::Packet2 => Framing::Packet(PacketWidth::Two),
        Written::Packet4 => Framing::Packet(PacketWidth::Four),
        Written::Raw => Framing::Raw,
        Written::Counted(counted) => Framing::Counted {
            header: counted.header.0,
            trailer: counted.trailer.unwrap_or_default(),
        },
        Written::Lines => Framing::Lines,
        Written::Netstring => Framing::Netstring,
        Written::PktLine => Framing::PktLine,
        Written::ContentLength => Framing::ContentLength,
        Written::Json => Framing::Json,
        Written::Msgpack => Framing::Msgpack,
        Written::Stanza => Framing::Stanza,
        Written::Prompt(pattern) => Framing::Prompt(pattern.0),
        Written::Eof => Framing::Eof,
    }
}

fn replies(subject: &mut Subject<'_, '_>, written: written::Replies) -> Replies {
    use written::Replies as Written;
    match written {
        Written::None => Replies::None,
        Written::One => Replies::One,
        Written::Until(pattern) => Replies::Until(pattern.0),
        Written::Sentinel(sentinel) => {
            Replies::Sentinel { send: sentinel.send, expect: sentinel.expect }
        }
        Written::Id(id) => id_place(subject, id).map_or(Replies::None, Replies::Id),
        Written::Prefix(prefix) => Replies::Prefix { send: prefix.send, expect: prefix.expect },
        Written::Bracket(bracket) => {
            Replies::Bracket { begin: bracket.begin.0, end: bracket.end.0 }
        }
        Written::Sections(sections) => {
            let longer = sections.longer.unwrap_or_default().into_iter();
            let longer = longer.map(|one| Longer { first: one.first.0, count: one.count });
            Replies::Sections { longer: longer.collect(), error: sections.error }
        }
    }
}

fn id_place(subject: &mut Subject<'_, '_>, id: written::Id) -> Option<IdPlace> {
    match (id.pointer, id.offset, id.kind) {
        (Some(pointer), None, None) => return Some(IdPlace::Pointer(pointer)),
        (None, Some(offset), Some(kind)) => {
            return Some(IdPlace::Offset { offset, kind: id_type(kind) });
        }
        _ => {}
    }
    let message = "expected either `pointer`, for JSON, or `offset` and `type`, for bytes";
    subject.complain(&["port", "replies", "id"], message);
    None
}

fn id_type(written: written::IdType) -> IdType {
    use written::IdType as Written;
    match written {
        Written::U8 => IdType::U8,
        Written::U16be => IdType::U16be,
        Written::U16le => IdType::U16le,
        Written::U32be => IdType::U32be,
        Written::U32le => IdType::U32le,
        Written::U64be => IdType::U64be,
        Written::U64le => IdType::U64le,
    }
}

fn handshake(written: written::Handshake) -> Handshake {
    let written::Handshake { begin, done, end } = written;
    Handshake { begin, done, end: end.unwrap_or_default() }
}

/// A message is known by its id and method, and each method has one meaning.
fn handshake_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    let Some(handshake) = &port.handshake else { return };
    if !matches!(port.replies, Replies::Id(IdPlace::Pointer(_))) {
        let message = "this needs `replies: {id: {pointer: …}}`: messages are known by their ids";
        subject.complain(&["port", "handshake"], message);
    } else if port.framing == Framing::Msgpack {
        subject.complain(&["port", "handshake"], "this needs messages in JSON, not MessagePack");
    }
    let mut seen = vec![""];
    let named = [("begin", Some(&handshake.begin)), ("done", handshake.done.as_ref())];
    let named = named.into_iter().filter_map(|(key, method)| Some((key, method?)));
    for (key, method) in named.chain(handshake.end.iter().map(|method| ("end", method))) {
        if method.is_empty() {
            subject.complain(&["port", "handshake", key], "a method has a name");
        } else if seen.contains(&method.as_str()) {
            let message = format!("the method {method:?} stands here more than once");
            subject.complain(&["port", "handshake", key], message);
        }
        seen.push(method);
    }
}

fn sizes(subject: &mut Subject<'_, '_>, port: &Port) {
    if !(1..=LARGEST_FRAME).contains(&port.max_frame) {
        subject.complain(&["port", "max_frame"], "the size must be from 1 to 1GiB");
    }
    if port.timeout.is_zero() {
        subject.complain(&["port", "timeout"], "the time must be longer than 0");
    }
    let widest = match port.framing {
        Framing::Packet(PacketWidth::One) => u64::from(u8::MAX).min(port.max_frame),
        Framing::Packet(PacketWidth::Two) => u64::from(u16::MAX).min(port.max_frame),
        Framing::PktLine => LARGEST_PACKET.min(port.max_frame),
        _ => port.max_frame,
    };
    let length = |text: &String| u64::try_from(text.len()).unwrap_or(u64::MAX);
    let question = match &port.ready {
        Ready::Exchange { send, .. } => Some(send),
        _ => None,
    };
    for (message, at) in [
        (port.quit.as_ref(), &["port", "quit"][..]),
        (question, &["port", "ready", "exchange", "send"]),
    ] {
        if message.is_some_and(|message| length(message) > widest) {
            let message = format!("the message is longer than the framing's {widest} bytes");
            subject.complain(at, message);
        }
    }
}

fn framing_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    match &port.framing {
        // What is no expression at all has been complained of.
        Framing::Counted { header, .. } if regex(header).is_ok() => {
            let at = ["port", "framing", "counted", "header"];
            match header_regex(header) {
                Err(wrong) => subject.complain(&at, wrong),
                Ok(header) if header.captures_len() < 2 => {
                    let message =
                        "the expression has no group for the length, such as `(?P<length>[0-9]+)`";
                    subject.complain(&at, message);
                }
                Ok(_) => {}
            }
        }
        Framing::Prompt(pattern) if regex(pattern).is_ok_and(|prompt| prompt.is_match(b"")) => {
            let message = "the expression matches nothing at all: every line would begin with it";
            subject.complain(&["port", "framing", "prompt"], message);
        }
        Framing::Eof => eof_rules(subject, port),
        _ => {}
    }
}

/// Where the end of the output is the end of a message, a call ends the input.
fn eof_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    if !matches!(port.replies, Replies::One | Replies::None) {
        let message =
            "with the framing `eof` a run has one message, so that this is `one` or `none`";
        subject.complain(&["port", "replies"], message);
    }
    if port.eof == Eof::Ignored {
        let message = "with the framing `eof` the program must heed the end of its input";
        subject.complain(&["port", "eof"], message);
    }
    if port.quit.is_some() {
        let message = "with the framing `eof` this would be a part of the program's input";
        subject.complain(&["port", "quit"], message);
    }
}

fn replies_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    let raw = port.framing == Framing::Raw;
    let at = ["port", "replies"];
    match &port.replies {
        Replies::One if raw => subject.warn(
            &at,
            "with the framing `raw` a reply is whatever one read returns",
            "a framing with messages, such as `lines`, keeps a reply together",
        ),
        Replies::Until(_)
        | Replies::Sentinel { .. }
        | Replies::Id(_)
        | Replies::Prefix { .. }
        | Replies::Bracket { .. }
            if raw =>
        {
            subject.complain(&at, "this needs messages, and the framing `raw` has none");
        }
        Replies::None
        | Replies::One
        | Replies::Until(_)
        | Replies::Bracket { .. }
        | Replies::Envelope => {}
        Replies::Sections { .. } if port.framing != Framing::PktLine => {
            let message = "this counts flush packets, which only the framing `pkt-line` has";
            subject.complain(&["port", "replies", "sections"], message);
        }
        Replies::Sections { error, .. } => {
            sections_rules(subject, port);
            if error.as_ref().is_some_and(|error| !error.ends_with(FLUSH)) {
                let message = "the text must end with a flush packet, `0000`";
                subject.complain(&["port", "replies", "sections", "error"], message);
            }
        }
        Replies::Id(place) => id_rules(subject, place, port),
        Replies::Prefix { send, expect } => prefix_rules(subject, send, expect),
        Replies::Sentinel { send, expect } => {
            for (key, text) in [("send", send), ("expect", expect)] {
                if !text.contains(TOKEN) {
                    let message = format!("the text does not contain {TOKEN}");
                    subject.complain(&["port", "replies", "sentinel", key], message);
                }
            }
        }
    }
}

/// The first thing that is heard of a program whose messages have sections is its answers.
fn sections_rules(subject: &mut Subject<'_, '_>, port: &Port) {
    let Ready::Exchange { send, .. } = &port.ready else { return };
    if !send.ends_with(FLUSH) {
        let message = "with `replies: sections` the text must end with a flush packet, `0000`";
        subject.complain(&["port", "ready", "exchange", "send"], message);
    }
    if port.banner != Banner::None {
        let message = "with `replies: sections` the first that is said answers `ready: exchange`";
        subject.complain(&["port", "banner"], message);
    }
}

fn id_rules(subject: &mut Subject<'_, '_>, place: &IdPlace, port: &Port) {
    let at = ["port", "replies", "id"];
    match place {
        IdPlace::Pointer(pointer) => {
            if !pointer.starts_with('/') {
                let message = "expected a JSON pointer, such as `/id`";
                subject.complain(&["port", "replies", "id", "pointer"], message);
            }
            if matches!(port.framing, Framing::Counted { .. }) {
                let message =
                    "a message of the framing `counted` is not JSON: it has a header line";
                subject.complain(&at, message);
            }
        }
        IdPlace::Offset { offset, .. } => {
            // An id may be any bytes, those that end a message included.
            let holds_any = match port.framing {
                Framing::Packet(_)
                | Framing::Netstring
                | Framing::PktLine
                | Framing::ContentLength
                | Framing::Envelope => true,
                Framing::Lines
                | Framing::Nul
                | Framing::Counted { .. }
                | Framing::Raw
                | Framing::Json
                | Framing::Msgpack
                | Framing::Stanza
                | Framing::Prompt(_)
                | Framing::Eof => false,
            };
            if !holds_any {
                let message = format!(
                    "a number in bytes needs a framing that says how long a message is, such as \
                     `packet4`; `{}` does not",
                    port.framing.name()
                );
                subject.complain(&at, message);
            }
            if u64::from(*offset) >= port.max_frame {
                let message = "the id is beyond the largest message";
                subject.complain(&["port", "replies", "id", "offset"], message);
            }
        }
    }
}

fn prefix_rules(subject: &mut Subject<'_, '_>, send: &str, expect: &str) {
    for (key, text) in [("send", send), ("expect", expect)] {
        if text.matches(TOKEN).count() != 1 {
            let message = format!("the text must contain {TOKEN} once");
            subject.complain(&["port", "replies", "prefix", key], message);
        }
    }
    if let Err(wrong) = regex(&expect.replace(TOKEN, "[0-9]+")) {
        subject.complain(&["port", "replies", "prefix", "expect"], wrong);
    }
}
