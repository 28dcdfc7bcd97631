//! What can be wrong with a stream, with a message to be sent, and with a rule.

use serde::{Deserialize, Serialize};

pub use crate::bytes_text::Sample;
pub use crate::message::{Fault, Part};

/// The output of a program is not its port's protocol. There is no way back from it: a stream that
/// lost its frames cannot find them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the message at byte {offset} of its output {fault}; it begins with {sample}")]
pub struct FramingError {
    /// What is wrong.
    pub fault: Fault,
    /// Where the offending message begins (its length or header included), counted from the first
    /// byte of the stream.
    pub offset: u64,
    /// What stands there.
    pub sample: Sample,
}

/// Why a message cannot be sent. The port is unharmed: nothing of it has been written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum EncodeError {
    /// It is larger than `max_frame` or than the framing's length can say.
    #[error("send a message of {size} bytes: {max} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// It contains the byte that ends a message.
    #[error("send a message with a NUL in it (at byte {at}), which would end it")]
    Delimiter {
        /// Where in the message.
        at: u64,
    },
    /// It contains an empty line, which ends a message of `stanza`, before its own end.
    #[error("send a message with an empty line in it (at byte {at}), which would end it")]
    EmptyLine {
        /// Where in the message.
        at: u64,
    },
    /// It is not one value of a framing that consists of values.
    #[error("send a message that {what}")]
    Malformed {
        /// In words that can follow "a message that".
        what: String,
    },
    /// It is empty, and in `raw` nothing is not a message.
    #[error("send an empty message without a framing")]
    Empty,
}

/// Why a rule in a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// The header of `counted` is no regular expression.
    #[error("use {pattern:?} as the header of `counted`: {why}")]
    Pattern {
        /// As written.
        pattern: String,
        /// In the words of the regular expression compiler.
        why: String,
    },
    /// The header of `counted` has no group for the length.
    #[error(
        "use {pattern:?} as the header of `counted`: it has no group, such as `(\\d+)`, for the length"
    )]
    NoGroup {
        /// As written.
        pattern: String,
    },
    /// The expression of `prompt` cannot be one.
    #[error("use {pattern:?} as a prompt: {why}")]
    Prompt {
        /// As written.
        pattern: String,
        /// What stands against it.
        why: String,
    },
    /// `max_frame` is 0, so that no message would be allowed.
    #[error("use a max_frame of 0")]
    NoFrame,
}
