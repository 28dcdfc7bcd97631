//! What can go wrong with an embedded port. Messages are fragments that can follow "cannot".

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::exchange::{BadProtocol, CallError, ReadState, Refusal};
use super::exit::Exit;
use crate::exit::{Errno, Stage};

/// Why a port could not be opened. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no tokio runtime here that could carry it.
    #[error("open a port outside of a tokio runtime")]
    NoRuntime,
    /// Its framing or its replies cannot be used.
    #[error(transparent)]
    Protocol(#[from] BadProtocol),
    /// Its profile wants what only a manager gives: another channel than standard input and output, or
    /// a terminal for its output.
    #[error("open a port with `{0}`: an embedded port has pipes alone")]
    Channel(&'static str),
    /// The program could not be started. This is never an exit code: nothing has run.
    #[error("start {program}: {} failed with {errno} ({}){}", stage.doing(), errno.text(),
        if *interpreter_missing { "; the interpreter that its first line names is missing" } else { "" })]
    NotStarted {
        /// The program, as it was asked for.
        program: String,
        /// The step that failed.
        stage: Stage,
        /// With which error.
        errno: Errno,
        /// The file is there, and what it needs to be executed is not.
        interpreter_missing: bool,
    },
    /// It was to be kept from holding its output back, and what does that is not there.
    #[error("start {program}: {source}")]
    Stdbuf {
        /// The program, as it was asked for.
        program: String,
        /// Where it was looked for.
        source: super::stdbuf::NotThere,
    },
    /// A word, a variable or a path holds a NUL byte.
    #[error("start {program}: a NUL byte cannot be handed to a program")]
    Nul {
        /// The program, as it was asked for.
        program: String,
    },
    /// The pipes could not be made, or nothing waits for them.
    #[error("make the pipes of {program}")]
    Io {
        /// The program, as it was asked for.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A profile is not known or not right.
    #[error("use the profile {name}: {why}")]
    Profile {
        /// Its name.
        name: String,
        /// What is wrong, in whole lines.
        why: String,
    },
}

/// Why a message got no reply, or was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PortError {
    /// It was not taken: nothing of it was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It failed while the program lives on.
    #[error("{error}")]
    Failed {
        /// How.
        error: Box<CallError>,
        /// What had come of the reply.
        so_far: Vec<Bytes>,
    },
    /// The program ended, and this is why.
    #[error("get an answer: {exit}; {}", match read {
        ReadState::NeverRead => "it never read the message",
        ReadState::MaybeRead => "it may have read the message",
    })]
    Ended {
        /// How and why it ended.
        exit: Arc<Exit>,
        /// Whether it may have acted on the message.
        read: ReadState,
        /// What had come of the reply.
        so_far: Vec<Bytes>,
    },
}

impl PortError {
    /// Whether the program certainly knows nothing of the message, so that it may be sent again,
    /// here or elsewhere, whatever it asks for.
    pub fn never_read(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Failed { error, .. } => matches!(**error, CallError::Unsent { .. }),
            Self::Ended { read, .. } => *read == ReadState::NeverRead,
        }
    }

    /// Whether the time was up.
    pub fn is_timeout(&self) -> bool {
        let timeout =
            |error: &CallError| matches!(error, CallError::Unanswered | CallError::Unsent { .. });
        match self {
            Self::Refused(refusal) => *refusal == Refusal::TooLate,
            Self::Failed { error, .. } => timeout(error),
            Self::Ended { .. } => false,
        }
    }

    /// How the program ended, where that is the reason.
    pub fn exit(&self) -> Option<&Arc<Exit>> {
        match self {
            Self::Ended { exit, .. } => Some(exit),
            Self::Refused(_) | Self::Failed { .. } => None,
        }
    }
}
