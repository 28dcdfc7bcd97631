//! Why a request is not fulfilled, in the words and codes that clients get.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::State;
use crate::exit::Reason;
use crate::message::Failure;
use crate::name::Incarnation;

use super::request::REQUESTS;

/// Why a message was not even sent.
const HELD_UP: &str = ": the program never read the message, since it still owes the reply to a call that was \
     given up; a restart helps where that never comes";

/// Seconds as they are told: no finer than a millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Why the loop did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such service.
    #[error("there is no service {name}{}", hint(suggestion.as_deref()))]
    NoSuchService {
        /// What was asked for.
        name: String,
        /// A name that is close to it.
        suggestion: Option<String>,
    },
    /// The service has no such replica.
    #[error("{service} has {replicas} replica{}, there is no {name}", if *replicas == 1 { "" } else { "s" })]
    NoSuchReplica {
        /// What was asked for.
        name: String,
        /// The service.
        service: String,
        /// How many it has.
        replicas: u32,
    },
    /// What was wanted did not come about: it ended instead.
    #[error("{msg}")]
    Ended {
        /// The end, as a sentence.
        msg: String,
    },
    /// Nothing is running that a signal could be sent to.
    #[error("{name} is {}, there is no process to signal", state.as_str())]
    NotRunning {
        /// Which.
        name: String,
        /// Its state.
        state: State,
    },
    /// The manager is shutting down.
    #[error("the manager is shutting down")]
    ShuttingDown,
    /// Too many requests are waiting.
    #[error("the manager is busy: {REQUESTS} requests are waiting")]
    Busy,
    /// The manager cannot be replaced now.
    #[error("{msg}")]
    Upgrade {
        /// Why.
        msg: String,
    },
    /// A socket of a new configuration cannot be opened; the old configuration stays in effect.
    #[error("{msg}")]
    Listen {
        /// Which, and why.
        msg: String,
    },
    /// It could not be written down.
    #[error("{msg}")]
    Disk {
        /// Why.
        msg: String,
    },
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// Why a message got no reply.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum SpeakError {
    /// The service has no `port:`.
    #[error("{name} is a plain server, not a port: nothing is known of how to speak to it")]
    NotAPort {
        /// Which.
        name: String,
    },
    /// The port's `replies` is `none`: nothing it says is a reply.
    #[error("{name} gives no replies (replies: none); use send")]
    NoReplies {
        /// Which.
        name: String,
    },
    /// It is not running.
    #[error("{name} is {}{}", state.as_str(), last(msg.as_deref()))]
    NotRunning {
        /// Which.
        name: String,
        /// Its state.
        state: State,
        /// Its last end, as a sentence.
        msg: Option<String>,
    },
    /// Too many messages wait for the program already.
    #[error("{name} is busy: its queue is full")]
    Busy {
        /// Which.
        name: String,
    },
    /// Somebody closed the program's input before, or the program did.
    #[error("the input of {name} is closed: this run takes no more messages")]
    InputClosed {
        /// Which.
        name: String,
    },
    /// The run's whole output is the reply to a call that somebody made before.
    #[error("{name} is busy: the whole output of this run is the reply to another call")]
    Taken {
        /// Which.
        name: String,
    },
    /// The message cannot be sent in this port's framing, or has no id to tell its reply by.
    #[error("the message does not fit the port: {msg}")]
    Unfit {
        /// Why.
        msg: String,
    },
    /// No reply came in time. The program goes on; a late reply is dropped.
    #[error("no reply within {} s{}", rounded(*after_s), if *held_up { HELD_UP } else { "" })]
    TimedOut {
        /// How long it waited, in seconds.
        after_s: f64,
        /// Whether the program can have seen the message.
        read: ReadState,
        /// Whether all this time the program owed its answer to a call that was given up, so that no
        /// other could be made: only its answer or its end changes that.
        held_up: bool,
    },
    /// The program ended. `read` says whether it can have seen the request.
    #[error("{msg} ({})", read.words())]
    Ended {
        /// The end, as a sentence.
        msg: String,
        /// Why it ended.
        reason: Reason,
        /// The exit code, where it exited.
        exit_code: Option<i32>,
        /// The signal's name, where one ended it.
        signal: Option<String>,
        /// Which run it was.
        incarnation: Incarnation,
        /// Whether it can have seen the request.
        read: ReadState,
    },
    /// The reply is not the port's protocol, or larger than its limit.
    #[error("the reply is unusable: {msg}")]
    BadReply {
        /// Why.
        msg: String,
    },
    /// The program answered with an error: wire protocol 1.
    #[error("the program says {}: {}", failure.code, failure.message)]
    ProgramError {
        /// What it said.
        failure: Box<Failure>,
    },
    /// As for any request.
    #[error(transparent)]
    #[serde(untagged)]
    Refused(Refusal),
}

fn last(msg: Option<&str>) -> String {
    msg.map(|msg| format!("; last: {msg}")).unwrap_or_default()
}

/// Whether a program that ended can have seen a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadState {
    /// Not a byte of it: trying again is safe.
    NeverRead,
    /// Perhaps: it may have been acted upon.
    MaybeRead,
}

impl ReadState {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NeverRead => "never_read: it never saw the request",
            Self::MaybeRead => "maybe_read: it may have acted on the request",
        }
    }
}
