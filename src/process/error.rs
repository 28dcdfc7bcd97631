//! Why a call of this module did not do what was asked.

use crate::mailbox::Exit;

/// What went wrong, as a fragment that can follow "cannot".
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The program did not begin with [`run`](super::run()), or has left it.
    #[error("do this outside of `wharf::run`")]
    Outside,
    /// The hub of this process is gone. The process is about to end too.
    #[error("reach the hub of this process: it is gone")]
    Hub,
    /// A value cannot be written as MessagePack.
    #[error("write the value: {0}")]
    Encode(String),
    /// A message of the right type, a reply or a result cannot be read. It has been taken out.
    #[error("read what came as {wanted}: {why}")]
    Decode {
        /// The type that was wanted.
        wanted: &'static str,
        /// In the words of the decoder.
        why: String,
    },
    /// The value is larger than a message may be.
    #[error("send a message of {size} bytes: {max} are allowed")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// The receiver has not taken enough out of its mailbox within the time that was given. Nothing was sent.
    #[error("send the message in time: the receiver takes none")]
    Full,
    /// Nobody answered within the time that was given.
    #[error("get an answer in time")]
    Timeout,
    /// Who was asked has ended.
    #[error("get an answer: it {0}")]
    Down(Box<Exit>),
    /// The process did not come to run its function.
    #[error("start the process: it {0}")]
    NotStarted(Box<Exit>),
    /// The hub refused.
    #[error("do this: {0}")]
    Refused(String),
    /// The function is not in the program's own executable, so that no other process could find it.
    #[error("spawn {0}: it is in a library that was loaded, not in the executable")]
    Library(&'static str),
}
