//! How a program is spoken to, as meant: channel, framing, replies and life.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::duration_text;

/// The messages of a handshake, by what stands in their member `method`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The request that begins it.
    pub begin: String,
    /// The message that ends it.
    pub done: Option<String>,
    /// What a client says to take its leave.
    pub end: Vec<String>,
}

/// How a program is spoken to over its standard input and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The descriptors that carry messages.
    #[serde(default)]
    pub channel: Channel,
    /// How the program is kept from holding back output.
    #[serde(default)]
    pub unbuffer: Unbuffer,
    /// Bytes to messages.
    pub framing: Framing,
    /// Which reply belongs to which request.
    pub replies: Replies,
    /// The largest message, in bytes.
    pub max_frame: u64,
    /// The most messages that may wait to be written to the program.
    pub queue: u32,
    /// How long a call may take unless it says otherwise.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// What follows output that is not the protocol.
    pub on_protocol_error: OnProtocolError,
    /// What a client says before all else, and the program hears once a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Handshake>,
    /// What becomes of text that is not protocol; `None` where nothing could tell such text, because
    /// every line, say, is a message.
    #[serde(default)]
    pub stray: Option<Stray>,
    /// What the program says before it is spoken to.
    #[serde(default)]
    pub banner: Banner,
    /// When the program can be spoken to.
    #[serde(default)]
    pub ready: Ready,
    /// The message that asks the program to end.
    pub quit: Option<String>,
    /// What the end of its input means to the program.
    pub eof: Eof,
    /// How long the program may take to end after `quit`, and again after the end of its input.
    #[serde(with = "duration_text")]
    pub eof_grace: Duration,
}

/// The descriptors that carry messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Standard input and output, which are pipes.
    #[default]
    Stdio,
    /// A socket on descriptor 3. Standard output is a log, standard input is empty.
    Fd3,
    /// Standard input and output, which are a terminal.
    Pty,
}

/// How a program is kept from holding back output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unbuffer {
    /// It is not.
    #[default]
    None,
    /// A preloaded library has C's standard output written line by line.
    Stdbuf,
    /// Its standard output is a terminal.
    Pty,
}

/// Bytes to messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Ended by LF; a CR before it is not part of the message.
    Lines,
    /// Ended by a NUL byte.
    Nul,
    /// A big-endian length of 1, 2 or 4 bytes stands before each message.
    Packet(PacketWidth),
    /// A header line announces the length of the body that follows it.
    Counted {
        /// A regular expression whose group `length` (or first group) is the length; a line it does
        /// not match is a message of its own.
        header: String,
        /// What stands after each body.
        trailer: String,
    },
    /// A decimal length and a colon before each message, a comma after it.
    Netstring,
    /// Four hexadecimal digits before each message, as git speaks it.
    PktLine,
    /// Headers before each message, one of which says how long it is.
    ContentLength,
    /// JSON values, one after the other.
    Json,
    /// MessagePack values, one after the other.
    Msgpack,
    /// Ended by an empty line.
    Stanza,
    /// Ended by a prompt that matches this regular expression and has no LF after it.
    Prompt(String),
    /// The whole output of a run is one message, and a call closes the program's input.
    Eof,
    /// Whatever a read returns is a message.
    Raw,
    /// Wire protocol 1: `protocol: 1`. It comes with [`Replies::Envelope`].
    Envelope,
}

/// The width of a `packet` length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketWidth {
    /// Up to 255 bytes.
    One,
    /// Up to 65,535 bytes.
    Two,
    /// Up to `max_frame`.
    Four,
}

impl Framing {
    /// [`Framing::Counted`]: a header line that matches announces the length of the body, after which
    /// stands `trailer`.
    pub fn counted(header: impl Into<String>, trailer: impl Into<String>) -> Self {
        Self::Counted { header: header.into(), trailer: trailer.into() }
    }

    /// The name, as in services.yaml and in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Nul => "nul",
            Self::Packet(PacketWidth::One) => "packet1",
            Self::Packet(PacketWidth::Two) => "packet2",
            Self::Packet(PacketWidth::Four) => "packet4",
            Self::Counted { .. } => "counted",
            Self::Netstring => "netstring",
            Self::PktLine => "pkt-line",
            Self::ContentLength => "content-length",
            Self::Json => "json",
            Self::Msgpack => "msgpack",
            Self::Stanza => "stanza",
            Self::Prompt(_) => "prompt",
            Self::Eof => "eof",
            Self::Raw => "raw",
            Self::Envelope => "protocol-1",
        }
    }
}

/// Which reply belongs to which request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replies {
    /// Nothing is a reply; every message is an event.
    None,
    /// The next message is the reply.
    One,
    /// All messages up to and including one that matches this regular expression are the reply.
    Until(String),
    /// A message that makes the program say a token is sent after each request; what comes before
    /// the token is the reply.
    Sentinel {
        /// The message to send, with `{token}` where the token goes.
        send: String,
        /// What the program then says, with `{token}` where the token is.
        expect: String,
    },
    /// Request and reply bear the same id.
    Id(IdPlace),
    /// A number that leads a request leads its reply too.
    Prefix {
        /// What is put before a request, with `{token}` where the number goes.
        send: String,
        /// A regular expression for the beginning of a reply, with `{token}` where the number is.
        expect: String,
    },
    /// Lines that match these stand around a reply.
    Bracket {
        /// The one before it.
        begin: String,
        /// The one after it.
        end: String,
    },
    /// A flush packet ends a message, or as many as its first packet says; for `pkt-line`.
    Sections {
        /// What has more than one section.
        longer: Vec<Longer>,
        /// What a client of `wharf connect` is told in the place of a reply that it does not get.
        error: Option<String>,
    },
    /// Request and reply are frames of wire protocol 1 with the same id.
    Envelope,
}

impl Replies {
    /// [`Replies::Until`]: everything up to a message that matches this regular expression.
    pub fn until(last: impl Into<String>) -> Self {
        Self::Until(last.into())
    }

    /// [`Replies::Sentinel`]: what is sent after each request, and what the program then says; both with
    /// `{token}` in them.
    pub fn sentinel(send: impl Into<String>, expect: impl Into<String>) -> Self {
        Self::Sentinel { send: send.into(), expect: expect.into() }
    }

    /// [`Replies::Id`]: the id is at this JSON pointer, such as `/id`.
    pub fn id(pointer: impl Into<String>) -> Self {
        Self::Id(IdPlace::Pointer(pointer.into()))
    }

    /// [`Replies::Prefix`]: what is put before a request, and what leads its reply; both with `{token}` in
    /// them.
    pub fn prefix(send: impl Into<String>, expect: impl Into<String>) -> Self {
        Self::Prefix { send: send.into(), expect: expect.into() }
    }

    /// [`Replies::Bracket`]: the lines around a reply.
    pub fn bracket(begin: impl Into<String>, end: impl Into<String>) -> Self {
        Self::Bracket { begin: begin.into(), end: end.into() }
    }

    /// [`Replies::Sections`]: what has more than one section, by what its first packet matches.
    pub fn sections<T: Into<String>>(longer: impl IntoIterator<Item = (T, u32)>) -> Self {
        let longer = longer.into_iter().map(|(first, count)| Longer { first: first.into(), count });
        Self::Sections { longer: longer.collect(), error: None }
    }
}

/// Messages with more than one section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Longer {
    /// A regular expression that their first packet matches.
    pub first: String,
    /// How many sections they have, each ended by a flush packet.
    pub count: u32,
}

/// Where the id of a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdPlace {
    /// In JSON, at this pointer (RFC 6901); never the empty one.
    Pointer(String),
    /// In bytes.
    Offset {
        /// How many stand before it.
        offset: u32,
        /// What kind of number it is.
        #[serde(rename = "type")]
        kind: IdType,
    },
}

/// The kind of an id in a binary message: unsigned, with its size in bits and the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each says its size and order")]
pub enum IdType {
    U8,
    U16be,
    U16le,
    U32be,
    U32le,
    U64be,
    U64le,
}

/// What follows output that is not the protocol. The program is killed either way, since a stream
/// that lost its frames cannot be trusted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnProtocolError {
    /// The restart policy decides, as after any failure.
    Restart,
    /// It stays down.
    Stop,
}

/// What becomes of text that is not protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stray {
    /// It goes to the program's output log.
    Log,
    /// It is dropped and counted.
    Drop,
    /// It is a protocol error.
    Kill,
}

impl Stray {
    /// Whether the program goes on after it.
    pub fn is_borne(self) -> bool {
        matches!(self, Self::Log | Self::Drop)
    }
}

/// What a program says before it is spoken to. It is no reply to anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Banner {
    /// Nothing.
    #[default]
    None,
    /// So many messages; at least one.
    Messages(u32),
    /// All messages up to and including one that matches this regular expression.
    Until(String),
}

/// When a program can be spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// As soon as it runs.
    #[default]
    Started,
    /// When its banner is over.
    Banner,
    /// With its first message, and when its banner is over.
    FirstMessage,
    /// With a message that matches this regular expression, and when its banner is over.
    Message(String),
    /// When it has answered a question that is asked once its banner is over.
    Exchange {
        /// The message to send.
        send: String,
        /// What the answer matches: a regular expression.
        expect: String,
    },
}

impl Port {
    /// Whether the program has to say something before it counts as ready.
    pub fn awaits_ready(&self) -> bool {
        self.ready != Ready::Started || self.is_enveloped()
    }

    /// Whether replies are told by ids in JSON.
    pub fn has_json_ids(&self) -> bool {
        matches!(self.replies, Replies::Id(IdPlace::Pointer(_))) && self.framing != Framing::Msgpack
    }

    /// Whether it speaks wire protocol 1.
    pub fn is_enveloped(&self) -> bool {
        self.framing == Framing::Envelope
    }

    /// Whether the program can be asked in words to come to an end.
    pub fn can_quit(&self) -> bool {
        self.quit.is_some() || self.is_enveloped()
    }

    /// Whether text that is no protocol can be told and left behind: between the values of `json`,
    /// among the headers of `content-length`, among the lines of protocol 1, and where messages that are cut by themselves have to
    /// be JSON for their id.
    pub fn can_bear_strays(&self) -> bool {
        let is_json = matches!(self.replies, Replies::Id(IdPlace::Pointer(_)));
        match self.framing {
            Framing::Json | Framing::ContentLength | Framing::Envelope => true,
            Framing::Lines | Framing::Nul | Framing::Stanza | Framing::Prompt(_) => is_json,
            Framing::Packet(_)
            | Framing::Counted { .. }
            | Framing::Netstring
            | Framing::PktLine
            | Framing::Msgpack
            | Framing::Eof
            | Framing::Raw => false,
        }
    }
}

/// What the end of its input means to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eof {
    /// It ends well.
    Graceful,
    /// Nothing; the stop ladder skips this step.
    Ignored,
    /// It ends with an error code: during a stop, whichever follows the end of its input is a success.
    Error,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            channel: Channel::Stdio,
            unbuffer: Unbuffer::None,
            framing: Framing::Lines,
            replies: Replies::None,
            max_frame: 16 << 20,
            queue: 1024,
            timeout: Duration::from_secs(30),
            on_protocol_error: OnProtocolError::Restart,
            handshake: None,
            stray: None,
            banner: Banner::None,
            ready: Ready::Started,
            quit: None,
            eof: Eof::Graceful,
            eof_grace: Duration::from_secs(3),
        }
    }
}
