//! How and why a native process ended: what the kernel says, what the process said itself, put together.
//!
//! The kernel's word is never bent: who says that it returned and is then killed was killed, and what it said is
//! told beside that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes_text;
use crate::exit::{Cause, How, Reason, Signal, Stage};
use crate::message::{Ending, Exit as Said};

/// The end of a native process. There is exactly one for each, and everybody who asks is told the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why, of a closed list. [`Reason::Lost`] where nothing is known of such a process (Erlang's `noproc`).
    pub reason: Reason,
    /// What led to that, seen from the hub.
    pub cause: Cause,
    /// The kernel's word.
    pub how: How,
    /// The error with its chain, what the panic said, or why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of a panic: file, line and column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Of a panic: what called what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// What else is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What was returned, as MessagePack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Packed>,
}

/// Bytes, written as base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Packed(#[serde(with = "bytes_text")] pub Vec<u8>);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Exit {
    /// Of somebody of whom nothing is known.
    pub fn unknown() -> Self {
        let message = "nothing is known of such a process".to_owned();
        Self {
            message: Some(message),
            ..Self::plain(Reason::Lost, Cause::Spontaneous, How::Unseen)
        }
    }

    fn plain(reason: Reason, cause: Cause, how: How) -> Self {
        let (message, place, backtrace, value) = (None, None, None, None);
        Self { reason, cause, how, message, place, backtrace, evidence: Vec::new(), value }
    }

    /// What it costs to remember it, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let texts = [&self.message, &self.place, &self.backtrace].into_iter().flatten();
        let texts = texts.chain(&self.evidence).map(String::len).sum::<usize>();
        size_of::<Self>() + texts + self.value.as_ref().map_or(0, |value| value.0.len())
    }

    /// Whether it is an end that does not strike those who are linked: it returned a value, or exited with
    /// code 0.
    pub fn is_normal(&self) -> bool {
        matches!(self.reason, Reason::Returned | Reason::Completed)
    }
}

/// The end in one line, without a subject: `panicked at src/main.rs:3:5: no more paper`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Returned => f.write_str("returned")?,
            Reason::ReturnedError => f.write_str("returned an error")?,
            Reason::Panicked => f.write_str("panicked")?,
            Reason::Lost => f.write_str("is not there")?,
            Reason::SetupFailed if self.how.code().is_some() => f.write_str("could not begin")?,
            _ => match self.how {
                How::Exited(_) | How::NotStarted(..) | How::Unseen => write!(f, "{}", self.how)?,
                How::Signaled(_) | How::Dumped(_) => write!(f, "was {}", self.how)?,
            },
        }
        if let Some(place) = &self.place {
            write!(f, " at {place}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        match self.cause {
            Cause::Linked => f.write_str("; somebody it was linked to had ended"),
            Cause::SignalRequested => f.write_str("; it was killed on request"),
            Cause::StartTimeout => f.write_str("; it did not start in time"),
            Cause::ParentDied => f.write_str("; the first process was ending"),
            _ => Ok(()),
        }
    }
}

/// What there is to judge by.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The kernel's word.
    pub how: How,
    /// What the hub did to it.
    pub cause: Cause,
    /// Its last word, if it had one.
    pub said: Option<Said>,
    /// What it returned.
    pub value: Option<Vec<u8>>,
}

/// The codes that a native process exits with after each of its last words.
pub(crate) fn code(said: Ending) -> i32 {
    match said {
        Ending::Returned => 0,
        Ending::ReturnedError => 1,
        Ending::Panicked => 101,
    }
}

/// Puts the kernel's word and the process's own together.
pub fn judge(facts: Facts) -> Exit {
    let Facts { how, cause, said, value } = facts;
    // All that a hub does to a process is to kill it; who came before that ended by itself.
    let struck = how.signal() == Some(Signal::KILL) || matches!(how, How::NotStarted(..));
    let cause = if struck { cause } else { Cause::Spontaneous };
    let mut exit = Exit::plain(reason(how), cause, how);
    let Some(said) = said else { return exit };
    // A panic that may not unwind (`panic = "abort"`, or a second one) aborts.
    let abort = how.signal() == Some(Signal::ABRT) && said.reason == Ending::Panicked;
    if how != How::Exited(code(said.reason)) && !abort {
        exit.evidence.push(match &said.message {
            Some(message) => {
                format!("before that it said that it {}: {message}", words(said.reason))
            }
            None => format!("before that it said that it {}", words(said.reason)),
        });
        return exit;
    }
    exit.reason = match said.reason {
        Ending::Returned => Reason::Returned,
        Ending::ReturnedError => Reason::ReturnedError,
        Ending::Panicked => Reason::Panicked,
    };
    exit.message = said.message;
    exit.place = said.place;
    exit.backtrace = said.backtrace;
    exit.value = value.filter(|_| said.reason == Ending::Returned).map(Packed);
    exit
}

fn words(said: Ending) -> &'static str {
    match said {
        Ending::Returned => "returned",
        Ending::ReturnedError => "returned an error",
        Ending::Panicked => "panicked",
    }
}

/// What the kernel's word alone means.
fn reason(how: How) -> Reason {
    match how {
        How::Exited(0) => Reason::Completed,
        How::Exited(_) => Reason::Failed,
        How::Signaled(signal) if is_limit(signal) => Reason::ResourceLimit,
        How::Signaled(_) => Reason::Signaled,
        How::Dumped(signal) if is_limit(signal) => Reason::ResourceLimit,
        How::Dumped(_) => Reason::CoreDumped,
        How::NotStarted(Stage::Exec, _) => Reason::ExecFailed,
        How::NotStarted(..) => Reason::SetupFailed,
        How::Unseen => Reason::Lost,
    }
}

fn is_limit(signal: Signal) -> bool {
    matches!(signal, Signal::XCPU | Signal::XFSZ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Errno;

    fn said(reason: Ending) -> Said {
        let message = Some("no more paper".to_owned());
        Said { reason, message, place: Some("a.rs:3:5".to_owned()), backtrace: None, value: None }
    }

    #[test]
    fn the_kernel_says_how_and_the_process_why() {
        let table = [
            (How::Exited(0), None, Reason::Completed),
            (How::Exited(3), None, Reason::Failed),
            (How::Exited(0), Some(Ending::Returned), Reason::Returned),
            (How::Exited(1), Some(Ending::ReturnedError), Reason::ReturnedError),
            (How::Exited(101), Some(Ending::Panicked), Reason::Panicked),
            (How::Signaled(Signal::ABRT), Some(Ending::Panicked), Reason::Panicked),
            (How::Dumped(Signal::ABRT), Some(Ending::Panicked), Reason::Panicked),
            (How::Signaled(Signal::ABRT), None, Reason::Signaled),
            (How::Signaled(Signal::KILL), Some(Ending::Returned), Reason::Signaled),
            (How::Exited(7), Some(Ending::Returned), Reason::Failed),
            (How::Dumped(Signal::new(11).unwrap()), Some(Ending::Panicked), Reason::CoreDumped),
            (How::Signaled(Signal::XCPU), None, Reason::ResourceLimit),
            (How::NotStarted(Stage::Exec, Errno(2)), None, Reason::ExecFailed),
            (How::NotStarted(Stage::Clone, Errno(11)), None, Reason::SetupFailed),
            (How::Unseen, None, Reason::Lost),
        ];
        for (how, word, reason) in table {
            let value = Some(vec![7]);
            let exit = judge(Facts { how, cause: Cause::Spontaneous, said: word.map(said), value });
            assert_eq!(exit.reason, reason, "{how} {word:?}");
            assert_eq!(exit.value.is_some(), reason == Reason::Returned, "{how} {word:?}");
            let believed =
                matches!(reason, Reason::Returned | Reason::ReturnedError | Reason::Panicked);
            assert_eq!(exit.message.is_some(), believed, "{how} {word:?}");
            assert_eq!(exit.evidence.is_empty(), believed || word.is_none(), "{how} {word:?}");
        }
    }

    #[test]
    fn an_end_is_one_line() {
        let panicked = judge(Facts {
            how: How::Exited(101),
            cause: Cause::Spontaneous,
            said: Some(said(Ending::Panicked)),
            value: None,
        });
        assert_eq!(panicked.to_string(), "panicked at a.rs:3:5: no more paper");
        let killed = Facts {
            how: How::Signaled(Signal::KILL),
            cause: Cause::Linked,
            said: None,
            value: None,
        };
        let killed = judge(killed).to_string();
        assert_eq!(killed, "was killed by SIGKILL; somebody it was linked to had ended");
    }
}
