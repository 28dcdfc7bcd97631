//! The end of an embedded port's program: how, why, and what there is to say of it.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::exit::{Cause, Certainty, How, PortPart, Reason, StopPart, Tail, Usage};
use crate::time::format_duration;

/// How and why a port's program ended. There is exactly one for each port.
///
/// It says what an exit record of a supervised service says, without what only a manager knows. The
/// kernel's word (`how`) is never mixed with the conclusions (`reason`, `cause`): a signal is never folded
/// into a code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exit {
    /// The program, as it was asked for.
    pub program: String,
    /// Its process number; it may belong to another process by now.
    pub pid: i32,
    /// The kernel's word.
    #[serde(serialize_with = "how")]
    pub how: How,
    /// Why it ended, of a closed list.
    pub reason: Reason,
    /// What led to that, seen from here: nobody ([`Cause::Spontaneous`]), [`Port::stop`](super::Port::stop)
    /// ([`Cause::StopRequested`]), a signal that was sent ([`Cause::SignalRequested`]), the last handle dropped
    /// ([`Cause::Cancelled`]), the runtime ended ([`Cause::ParentDied`]).
    pub cause: Cause,
    /// How far reason and cause are known.
    pub certainty: Certainty,
    /// What the reason rests on.
    pub evidence: Vec<String>,
    /// What was done to stop it, step by step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopPart>,
    /// From the start of the program to its end.
    #[serde(rename = "uptime_s", serialize_with = "seconds")]
    pub uptime: Duration,
    /// What it used, by the kernel's account.
    pub usage: Usage,
    /// What passed through the port.
    pub port: PortPart,
    /// The last 4 KiB it wrote on standard error, unless that was inherited.
    #[serde(flatten)]
    pub stderr_tail: Tail,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn how<S: Serializer>(how: &How, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(how)
}

fn seconds<S: Serializer>(length: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(length.as_secs_f64())
}

impl Exit {
    /// Whether it was a success: a code among those that were said to be one, by default 0.
    pub fn is_success(&self) -> bool {
        self.reason == Reason::Completed
    }
}

/// The whole story as one sentence: `bc exited with code 1 after 12ms`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.program)?;
        match (&self.port.error, self.reason, self.how) {
            (Some(error), Reason::ProtocolError, _) => write!(f, "broke its protocol ({error})")?,
            (_, Reason::Lost, _) => f.write_str("is gone and nobody saw how it ended")?,
            (.., How::Exited(_)) => write!(f, "{}", self.how)?,
            _ => write!(f, "was {}", self.how)?,
        }
        let millis = u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX);
        match millis {
            0 => f.write_str(" at once")?,
            _ => write!(f, " after {}", format_duration(Duration::from_millis(millis)))?,
        }
        f.write_str(match self.cause {
            Cause::StopRequested => "; a stop was requested",
            Cause::SignalRequested => "; a signal was sent to it on request",
            Cause::Cancelled => "; its port was dropped",
            Cause::ParentDied => "; the runtime of its port ended",
            _ => "",
        })?;
        if self.stop.as_ref().is_some_and(|stop| stop.escalated) {
            f.write_str("; it did not stop when asked and had to be killed")?;
        }
        Ok(())
    }
}
