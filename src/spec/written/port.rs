//! The `port:` block, and the profiles that ship one for a well-known program.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, Environment, Length, NameText, Pattern, Size, Word};

/// How a program is spoken to over its standard input and output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// A profile to start from: a folder of `ports/` beside the file, or one that is compiled in.
    /// Keys written beside it replace the profile's.
    #[serde(rename = "use")]
    pub profile: Option<NameText>,
    /// The descriptors that carry messages.
    pub channel: Option<Channel>,
    /// The version of wharf's own protocol, for programs that speak it. It stands in the place of
    /// `framing`, `replies`, `banner`, `ready` and `quit`.
    #[schemars(range(min = 1, max = 1))]
    pub protocol: Option<u32>,
    /// How bytes become messages.
    pub framing: Option<Framing>,
    /// Which reply belongs to which request.
    pub replies: Option<Replies>,
    /// The largest message.
    pub max_frame: Option<Size>,
    /// The most messages that may wait to be written to the program.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: Option<u32>,
    /// How long a call may take unless it says otherwise.
    pub timeout: Option<Length>,
    /// What follows output that is not the protocol.
    pub on_protocol_error: Option<OnProtocolError>,
    /// What becomes of text between messages that is not protocol: lines that are no JSON where
    /// messages are, and lines that are no header before `content-length`. `log` where such text can
    /// be told; other framings cannot tell it or cannot find their way back.
    pub stray: Option<Stray>,
    /// What the program says before it is spoken to: so many messages, or all up to and including one
    /// that matches a regular expression. They are no replies.
    pub banner: Option<Banner>,
    /// When the program can be spoken to, and counts as ready. What clients send before waits. Without
    /// it: when its banner is over, where it has one, otherwise as soon as it runs.
    pub ready: Option<PortReady>,
    /// What a client says before all else, so that many share one run of the program: the first
    /// one's goes through, the others are answered with its reply, and a new run is greeted with it.
    /// Needs `replies: {id: {pointer: …}}`.
    pub handshake: Option<Handshake>,
    /// The message that asks the program to end.
    pub quit: Option<Word>,
    /// What the end of its input means to the program.
    pub eof: Option<Eof>,
    /// How long the program may take to end after `quit`, and again after the end of its input.
    pub eof_grace: Option<Length>,
    /// Exit codes that mean success, where `restart` does not say.
    #[schemars(inner(range(min = 0, max = 255)))]
    pub success_exit_codes: Option<Vec<i32>>,
    /// How the program is kept from holding back output.
    pub unbuffer: Option<Unbuffer>,
}

/// A file `port.yaml` in a folder of `ports/`: how one program is spoken to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "port.yaml")]
pub struct Profile {
    /// What the program is, in a sentence.
    pub description: String,
    /// How it is spoken to.
    pub port: Port,
    /// What to run where the service does not say.
    pub command: Option<Command>,
    /// Environment variables that the protocol needs.
    pub environment: Option<Environment>,
}

/// The descriptors that carry messages.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Standard input and output.
    Stdio,
    /// A socket on descriptor 3; standard output is a log, and standard input is empty.
    Fd3,
    /// A terminal as standard input and output; standard error is a log.
    Pty,
}

/// How bytes become messages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Ended by LF; a CR before it is not part of the message.
    Lines,
    /// Ended by a NUL byte.
    Nul,
    /// A length of one byte stands before each message.
    Packet1,
    /// A big-endian length of two bytes stands before each message.
    Packet2,
    /// A big-endian length of four bytes stands before each message.
    Packet4,
    /// Whatever a read returns is a message.
    Raw,
    /// `5:hello,`: a decimal length and a colon before each message, a comma after it.
    Netstring,
    /// Four hexadecimal digits of length before each packet, as git speaks it; `0000`, `0001` and
    /// `0002` are messages of their own.
    PktLine,
    /// Headers before each message, one of which, `Content-Length`, says how long it is, as
    /// language servers speak it.
    ContentLength,
    /// JSON values, one after the other.
    Json,
    /// MessagePack values, one after the other.
    Msgpack,
    /// Ended by an empty line.
    Stanza,
    /// The whole output of a run is one message; a call closes the program's input.
    Eof,
    /// A header line announces the length of the body that follows it.
    Counted(Counted),
    /// Ended by what the program prints, without an LF, when it waits for input.
    Prompt(Pattern),
}

/// A header line that announces the length of the body that follows it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// A regular expression whose group `length` (or first group) is the length in bytes; a line
    /// it does not match is a message of its own. It is over bytes: `\d` is a digit of ASCII.
    pub header: Pattern,
    /// What stands after each body.
    pub trailer: Option<String>,
}

/// Which reply belongs to which request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replies {
    /// Nothing is a reply; every message is an event.
    None,
    /// The next message is the reply.
    One,
    /// All messages up to and including one that matches this regular expression are the reply.
    Until(Pattern),
    /// A message that makes the program say a token is sent after each request; what comes before
    /// the token is the reply.
    Sentinel(Sentinel),
    /// Request and reply bear the same id. Many calls are open at once, and replies come in any order.
    Id(Id),
    /// A number that leads a request leads its reply too. Many calls are open at once, and replies
    /// come in any order.
    Prefix(Prefix),
    /// Lines with the same number stand around a reply; what comes outside them is an event.
    Bracket(Bracket),
    /// A flush packet ends a message, or as many as its first packet says: git's protocols over
    /// `pkt-line`. `ready: exchange` is then over when each request in it is answered, and clients of
    /// `wharf connect` that begin with the same requests get the same answers.
    Sections(Sections),
}

/// A message that makes the program say a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// The message to send, with `{token}` where the token goes.
    pub send: String,
    /// What the program then says, with `{token}` where the token is.
    pub expect: String,
}

/// Where the id is that says which reply belongs to which request: `pointer`, or `offset` and `type`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Id {
    /// In a JSON or MessagePack message: its JSON pointer, such as `/id`, or `/1` for MessagePack-RPC.
    pub pointer: Option<String>,
    /// In a binary message: how many bytes stand before it.
    pub offset: Option<u32>,
    /// In a binary message: what kind of number it is.
    #[serde(rename = "type")]
    pub kind: Option<IdType>,
}

/// The kind of a number in a binary message.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdType {
    /// One byte.
    U8,
    /// Two bytes, the largest first.
    U16be,
    /// Two bytes, the smallest first.
    U16le,
    /// Four bytes, the largest first.
    U32be,
    /// Four bytes, the smallest first.
    U32le,
    /// Eight bytes, the largest first.
    U64be,
    /// Eight bytes, the smallest first.
    U64le,
}

/// A number that leads a request and its reply.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// What is put before a request, with `{token}` where the number goes.
    pub send: String,
    /// A regular expression for what leads a reply, with `{token}` where the number is. It is taken off
    /// the reply, but for what a group `keep` matched.
    pub expect: String,
}

/// The lines around a reply.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bracket {
    /// The line before a reply, which is no part of it.
    pub begin: Pattern,
    /// The line after a reply, which is no part of it but for what a group `keep` matched. Where both
    /// have a group `number`, it counts only with the number of `begin`.
    pub end: Pattern,
}

/// How many sections messages have, each ended by a flush packet: one, unless it stands here.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sections {
    /// Requests and replies of more than one section; the first that fits counts.
    pub longer: Option<Vec<Longer>>,
    /// What a client of `wharf connect` is told, in packets, in the place of a reply that it does not
    /// get. Without it `wharf connect` ends, as a server would.
    pub error: Option<String>,
}

/// Messages of more than one section.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Longer {
    /// What their first packet matches.
    pub first: Pattern,
    /// How many sections they have.
    #[schemars(range(min = 2, max = 16))]
    pub count: u32,
}

/// The messages of a handshake, by what stands in their member `method`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// The request that begins it: `initialize`.
    pub begin: String,
    /// The message that ends it: `initialized`. Only the first one goes through.
    pub done: Option<String>,
    /// What a client says to take its leave, such as `shutdown` and `exit`: it never reaches the
    /// program, and a request is answered with `null`.
    pub end: Option<Vec<String>>,
}

/// What follows output that is not the protocol. The program is killed either way.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnProtocolError {
    /// The restart policy decides, as after any failure.
    Restart,
    /// It stays down.
    Stop,
}

/// What becomes of text that is not protocol.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stray {
    /// It goes to the program's output log, and is counted.
    Log,
    /// It is dropped and counted.
    Drop,
    /// It is a protocol error.
    Kill,
}

/// What the program says before it is spoken to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Banner {
    /// So many messages.
    Messages(#[schemars(range(min = 1, max = 1000))] u32),
    /// All messages up to and including one that matches.
    Until(Pattern),
}

/// When the program can be spoken to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortReady {
    /// As soon as it runs.
    Started,
    /// With its first message.
    FirstMessage,
    /// With a message that matches.
    Message(Pattern),
    /// When it has answered a question.
    Exchange(SendExpect),
}

/// A question and the answer that means ready.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendExpect {
    /// The message to send.
    pub send: String,
    /// What the answer matches.
    pub expect: Pattern,
}

/// What the end of its input means to a program.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Eof {
    /// It ends well.
    Graceful,
    /// Nothing.
    Ignored,
    /// It ends with an error code; after the end of its input during a stop that is a success.
    Error,
}

/// How a program is kept from holding back output.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unbuffer {
    /// It is not.
    None,
    /// By preloading the library of `stdbuf`, after which C's standard output is written line by line.
    Stdbuf,
    /// By giving it a terminal as standard output.
    Pty,
}
