//! services.yaml as meant: checked, complete, with every default filled in.
//!
//! This is what the supervisor works from and what is persisted as the applied configuration.
//! A difference between two configurations is derived from the serialised form (`diff`).

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::exit::{Signal, signal_name};
use crate::name::ServiceName;
use crate::time::duration_text;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The files it was read from, absolute, in the order of merging.
    pub files: Vec<PathBuf>,
    /// Whether control groups may be used.
    pub cgroups: Cgroups,
    /// Where metrics can be scraped over TCP; `None` leaves the control socket alone for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Every service, in the order written.
    pub services: IndexMap<ServiceName, Arc<Service>>,
}

/// Where metrics can be scraped over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The address to listen on; its port is not 0.
    pub listen: SocketAddr,
    /// Whether it may be one that other machines can reach. Without it `listen` is a loopback
    /// address.
    #[serde(default)]
    pub allow_remote: bool,
}

/// Whether control groups may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroups {
    /// Where a writable cgroup2 mount is found.
    Auto,
    /// Never.
    Off,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The words to execute; never empty. The first is a path or is looked up in the child's `PATH`.
    pub command: Vec<String>,
    /// An absolute path.
    pub working_dir: PathBuf,
    /// Variables declared for it, added to (and overriding) the clean environment.
    pub environment: BTreeMap<String, String>,
    /// The user to run as; a name or a number, optionally `user:group`.
    pub user: Option<String>,
    /// How many run at once; 0 keeps the service defined but not running.
    pub replicas: u32,
    /// How it is spoken to; `None` is a plain server.
    pub port: Option<Port>,
    /// What follows an end.
    pub restart: Restart,
    /// How long a start may take.
    #[serde(with = "duration_text")]
    pub start_timeout: Duration,
    /// How it is stopped.
    pub stop: Stop,
    /// What becomes of its output.
    pub logging: Logging,
    /// Resource limits.
    pub limits: Limits,
    /// Free words for people and tools.
    pub labels: BTreeMap<String, String>,
}

impl Service {
    /// Whether a run of it counts as ready only once something has been seen of it, and not as soon
    /// as its program runs.
    pub fn awaits_ready(&self) -> bool {
        self.port.as_ref().is_some_and(Port::awaits_ready)
    }
}

/// What follows an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// Which ends lead to a restart.
    pub policy: Policy,
    /// The wait before the second restart in a row; the first is immediate.
    #[serde(with = "duration_text")]
    pub delay: Duration,
    /// The growth of the wait from one failure in a row to the next, at least 1.
    pub factor: f64,
    /// The longest wait.
    #[serde(with = "duration_text")]
    pub max_delay: Duration,
    /// The share by which a wait is lengthened or shortened by chance, 0 to 1.
    pub jitter: f64,
    /// A run of this length ends the row of failures.
    #[serde(with = "duration_text")]
    pub reset_after: Duration,
    /// More restarts than this …
    pub max_restarts: u32,
    /// … within this time, and the service is given up.
    #[serde(with = "duration_text")]
    pub within: Duration,
    /// What giving up means.
    pub on_give_up: OnGiveUp,
    /// Exit codes that mean success.
    pub success_exit_codes: Vec<i32>,
    /// Signals that mean success when they end the service.
    pub success_signals: Vec<SignalName>,
    /// Reasons after which it is never restarted, whatever the policy.
    pub never_on: Vec<crate::exit::Reason>,
}

/// A signal that is written as its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignalName(#[serde(with = "signal_name")] pub Signal);

/// Which ends lead to a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// None.
    No,
    /// All.
    Always,
    /// Those that are no success.
    OnFailure,
    /// All; and a stop by an operator outlives `down` and `up`.
    UnlessStopped,
}

impl Policy {
    /// The word in services.yaml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::UnlessStopped => "unless-stopped",
        }
    }
}

/// What giving up means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGiveUp {
    /// It stays down until somebody starts it.
    Stop,
    /// It is tried again after this time.
    RetryEvery(#[serde(with = "duration_text")] Duration),
}

/// How a service is stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// The request to end.
    #[serde(with = "signal_name")]
    pub signal: Signal,
    /// How long after the signal it may take before it is killed.
    #[serde(with = "duration_text")]
    pub grace: Duration,
    /// What is killed.
    pub kill: KillScope,
}

/// What a kill reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillScope {
    /// Everything the program started, however it hid.
    Tree,
    /// The program's process group.
    Group,
    /// The program alone.
    Process,
}

/// What becomes of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// A log file is rotated before it grows beyond this, in bytes.
    pub max_size: u64,
    /// How many rotated files are kept.
    pub max_files: u32,
    /// Whether rotated files are compressed with gzip.
    pub compress: bool,
    /// What happens when the disk cannot take output as fast as it comes.
    pub when_full: WhenFull,
    /// Where it goes besides.
    #[serde(flatten)]
    pub forward: Forward,
}

/// Where lines and ends go besides; absolute paths of Unix datagram sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Forward {
    /// That of systemd-journald.
    #[serde(default)]
    pub journald: Option<String>,
    /// That of a syslog daemon.
    #[serde(default)]
    pub syslog: Option<String>,
}

/// Where systemd-journald listens.
pub const JOURNALD: &str = "/run/systemd/journal/socket";

/// Where the syslog daemon of a machine listens.
pub const SYSLOG: &str = "/dev/log";

/// What happens when the disk cannot take output as fast as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The program waits a moment, then its oldest output not yet on disk is dropped and counted.
    DropOldest,
    /// The program waits.
    Block,
}

/// Resource limits; `None` leaves what the manager itself was given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Largest core dump, in bytes.
    pub core: Option<u64>,
    /// Most open descriptors.
    pub nofile: Option<u64>,
}

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

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: Policy::OnFailure,
            delay: Duration::from_millis(200),
            factor: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: 0.2,
            reset_after: Duration::from_secs(30),
            max_restarts: 10,
            within: Duration::from_secs(60),
            on_give_up: OnGiveUp::Stop,
            success_exit_codes: vec![0],
            success_signals: Vec::new(),
            never_on: vec![crate::exit::Reason::ExecFailed],
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal::TERM, grace: Duration::from_secs(10), kill: KillScope::Tree }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            max_size: 10 << 20,
            max_files: 5,
            compress: true,
            when_full: WhenFull::DropOldest,
            forward: Forward::default(),
        }
    }
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

/// How long a start may take unless written otherwise.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
