//! What can be wrong with a stream of frames, or of messages in any framing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes_text::Sample;

/// What the peer sends is not wire protocol 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the frame at byte {offset} {fault}; it begins with {sample}")]
pub struct FrameError {
    /// What is wrong.
    pub fault: Fault,
    /// Where the offending frame begins, counted from the first byte of the stream.
    pub offset: u64,
    /// What stands there.
    pub sample: Sample,
}

/// What is wrong with a frame or a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is larger than allowed.
    Oversize {
        /// The size it announces, in bytes, where its framing announces one. A decimal number that
        /// does not fit is `u64::MAX`.
        announced: Option<u64>,
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// The stream ended inside it.
    Truncated {
        /// In which part of it.
        part: Part,
        /// How many bytes of that part came.
        got: u64,
        /// How many it has; where nothing announces that, how many it has at least.
        wanted: u64,
    },
    /// It is not what the protocol allows there.
    Garbage {
        /// In words that can follow "the frame" or "the message".
        what: String,
    },
}

/// A part of a frame or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The length and what stands beside it, or the line that announces it.
    Header,
    /// The message itself, or the payload.
    Body,
    /// What stands after each message.
    Trailer,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Body => "body",
            Self::Trailer => "trailer",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversize { announced: Some(announced), max } => {
                write!(f, "announces {announced} bytes, {max} are allowed")
            }
            Self::Oversize { announced: None, max } => {
                write!(f, "is longer than the {max} bytes allowed")
            }
            Self::Truncated { part, got, wanted } => {
                write!(
                    f,
                    "is cut off by the end of the stream: {got} of {wanted} bytes of its {part}"
                )
            }
            Self::Garbage { what } => f.write_str(what),
        }
    }
}
