//! Lines and ends passed on to the system's log: journald by its native protocol, or a syslog daemon.
//!
//! It makes datagrams and sends them; the log files and the journal of this house are written whether
//! it succeeds or not. Nothing is kept for later: what a receiver does not take in time is dropped,
//! counted and said. It decides nothing about what is forwarded.

mod journald;
mod line;
mod receiver;
mod syslog;

pub use line::{Forwarded, What};
pub use receiver::{Receiver, Sent};

/// How an end is told from all other entries of journald (`journalctl MESSAGE_ID=…`).
pub const EXIT_MESSAGE_ID: &str = "7c2e3bfb7d5d4f4c9a3f0f5b6de81a42";

/// The severities of syslog(3) that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// Standard error.
    Error,
    /// An end that somebody should look at.
    Warning,
    /// All else.
    Info,
}

impl Severity {
    /// Its number: 0 is the most severe.
    fn number(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
        }
    }
}

#[cfg(test)]
mod tests;
