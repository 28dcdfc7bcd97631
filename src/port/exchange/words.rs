//! The words of an exchange: what is asked of it and what it says.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::correlation::IdError;
use crate::framing::{EncodeError, FramingError, Message};
use crate::message::Failure;
use crate::time::Tick;

/// Something to be sent to the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names it in everything that is said of it. The caller gives each its own.
    pub id: u64,
    /// Whose it is. Clients take turns.
    pub client: u64,
    /// Whether it is answered.
    pub kind: Kind,
    /// The message, without what frames it.
    pub payload: Bytes,
}

/// Whether a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is, or else it fails at the deadline.
    Call {
        /// The end of the caller's patience.
        deadline: Tick,
    },
    /// It is not. The program may say something all the same; that is an event, or, while a call is
    /// open, indistinguishable from a part of its reply.
    Send,
    /// It is the last one: it goes out once all others have and every call is answered, the input is
    /// closed behind it, and its reply is all that the program says from then on, whatever the port's
    /// rule. That is known when the run has ended, and stands in the [`Ending`]. An empty message is
    /// none: then only the input is closed.
    Last {
        /// The end of the caller's patience.
        deadline: Tick,
    },
}

impl Kind {
    /// The end of its caller's patience, where it is answered.
    pub(super) fn deadline(self) -> Option<Tick> {
        match self {
            Self::Call { deadline } | Self::Last { deadline } => Some(deadline),
            Self::Send => None,
        }
    }
}

/// Why a request is not even queued. Nothing of it is written and nothing else is said of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As much is waiting as may wait.
    #[error("take another message: {messages} messages of {bytes} bytes are waiting")]
    Busy {
        /// How many messages are waiting.
        messages: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The message cannot be framed, or is too large.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It is called with and has no id to tell its reply by.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The port's rule says that nothing is a reply.
    #[error("call a port with `replies: none`: nothing it says is a reply")]
    NoReplies,
    /// The port speaks wire protocol 1.
    #[error(
        "have all that is said for a reply in wire protocol 1, where each has an end of its own"
    )]
    Enveloped,
    /// The deadline has passed.
    #[error("make a call whose deadline has passed")]
    TooLate,
    /// The whole output of the run is the reply to a call that was made before.
    #[error("send to a program whose whole output is the reply to another call")]
    Taken,
    /// The program's input is closed, or about to be.
    #[error("send to a program whose input is closed")]
    InputClosed,
    /// The program has closed its output, so that it cannot answer.
    #[error("call a program that has closed its output")]
    OutputClosed,
    /// The program's output is not its protocol any more.
    #[error("use a port that broke its protocol")]
    Broken,
}

/// What an exchange has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A call was answered.
    Reply {
        /// Which call.
        id: u64,
        /// The messages of the reply.
        messages: Vec<Bytes>,
    },
    /// A request without a reply has been written to the program's input.
    Sent {
        /// Which request.
        id: u64,
    },
    /// A message that belongs to no call.
    Event(Message),
    /// The program has become ready: what clients sent is written from now on. Said once, and only
    /// where readiness is a matter of what the program says.
    Ready,
    /// A line that the program says for its log, with an LF: wire protocol 1.
    Log(Bytes),
    /// A piece of text that is no protocol, with the LF at the end of its line, for the program's
    /// log.
    Stray(Bytes),
    /// A request failed.
    Failed {
        /// Which request.
        id: u64,
        /// Why.
        error: CallError,
        /// What had come of the reply.
        so_far: Vec<Bytes>,
    },
    /// The program's output is not its protocol. Nothing is read or written from now on; what is
    /// still open is accounted for when the program has ended.
    Protocol(FramingError),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CallError {
    /// The deadline passed before the reply was complete. The program may have acted on it.
    #[error("get the reply in time")]
    Unanswered,
    /// The deadline passed before a byte of it was written. The program knows nothing of it.
    #[error("send the request in time: {}", if *.stuck {
        "the program still owes the reply to a call that was given up"
    } else {
        "the program did not come to it"
    })]
    Unsent {
        /// Whether an abandoned call held it up.
        stuck: bool,
    },
    /// The reply is too large. What is still to come of it is swallowed.
    #[error("take the reply: it has more than {max} bytes, or too many messages")]
    ReplyTooLarge {
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// The program closed its input before all of the request was written.
    #[error("send the request: the program has closed its input")]
    InputClosed,
    /// The program answered with an error: wire protocol 1.
    #[error("get a reply: the program says {}: {}", .0.code, .0.message)]
    Refused(Failure),
    /// The program turned out not to take such a request: wire protocol 1, when it introduced itself.
    #[error("send the request: {0}")]
    Unfit(Unfit),
}

/// What a program said of itself that a request does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// The message is larger than it takes.
    #[error("the program takes messages of {0} bytes at most")]
    TooLarge(u64),
    /// It takes no calls.
    #[error("the program takes no calls")]
    NoCalls,
}

/// What became of a request that its caller took back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Not a byte of it was written.
    Withdrawn,
    /// The program has it or part of it, and may act on it. Its reply will be swallowed.
    Abandoned,
}

/// Whether a program that has ended may have acted on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadState {
    /// It never read its first byte: the request may safely be repeated.
    NeverRead,
    /// It read some or all of it.
    MaybeRead,
}

/// A request that was open when the program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// Which request.
    pub id: u64,
    /// Whether the program may have acted on it.
    pub read: ReadState,
    /// What had come of the reply.
    pub so_far: Vec<Bytes>,
    /// Whether that is the whole reply, provided that the run was a success: the framing `eof`, and
    /// [`Kind::Last`].
    pub is_reply: bool,
}

/// The end of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What the framing's tail gave; it may complete a call.
    pub deliveries: Vec<Delivery>,
    /// Every request that was still open: calls without a reply, and requests not wholly written.
    pub unanswered: Vec<Unanswered>,
}

/// The next bytes for the program's input: pieces to be written one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How many bytes were written before it, since the program started.
    pub at: u64,
    /// Never empty, and none of them is.
    pub pieces: Vec<Bytes>,
}

/// What passed through, counted since the program started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Messages written to the program, sentinels included.
    pub frames_in: u64,
    /// Messages read from the program, sentinels included.
    pub frames_out: u64,
    /// Bytes written to the program.
    pub bytes_in: u64,
    /// Bytes read from the program.
    pub bytes_out: u64,
    /// Whether the program's output ended inside a message.
    pub partial_frame: bool,
    /// Lines that are no protocol and were borne: `stray: log` and `stray: drop`.
    pub strays: u64,
    /// Messages that belong to no call and are not known to be meant so, on a port that answers calls.
    #[serde(default)]
    pub unasked: u64,
    /// Messages of replies that came after their call had been given up.
    pub swallowed: u64,
    /// Replies that no open call could have had: a second one, or one to nobody. They were dropped.
    #[serde(default)]
    pub unmatched: u64,
}
