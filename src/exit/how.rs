//! The kernel's word on an end, and nothing but the kernel's word.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Errno, Signal};

/// How a run ended. A signal is never folded into a code, and a start that failed has no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It called `exit` with this code, 0 to 255.
    Exited(i32),
    /// A signal ended it.
    Signaled(Signal),
    /// A signal ended it and the kernel wrote a core dump.
    Dumped(Signal),
    /// The program never ran: this step on the way to it failed with this error.
    NotStarted(Stage, Errno),
    /// It is gone and nobody saw how: both guardian and manager were dead.
    Unseen,
}

/// `ENOENT`.
const NOT_THERE: i32 = 2;

impl How {
    /// The word for `exit.how` in a record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exited(_) => "exited",
            Self::Signaled(_) => "signaled",
            Self::Dumped(_) => "dumped",
            Self::NotStarted(..) => "not_started",
            Self::Unseen => "unseen",
        }
    }

    /// The exit code, where there is one.
    pub fn code(self) -> Option<i32> {
        if let Self::Exited(code) = self { Some(code) } else { None }
    }

    /// The exit code of who ends because this did, as shells and container runtimes have it: the code
    /// itself, 128 and the number of the signal, 127 for a program that is not there, 126 for one that
    /// cannot be executed, 125 for what is nobody's code. It is for others to read, never to judge by.
    pub fn passed_on(self) -> u8 {
        match self {
            // wait(2) has eight bits of it.
            Self::Exited(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signaled(signal) | Self::Dumped(signal) => {
                u8::try_from(128 + signal.number()).unwrap_or(u8::MAX)
            }
            Self::NotStarted(Stage::Exec, errno) if errno.0 == NOT_THERE => 127,
            Self::NotStarted(Stage::Exec, _) => 126,
            Self::NotStarted(..) | Self::Unseen => 125,
        }
    }

    /// The signal that ended it, where one did.
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Signaled(signal) | Self::Dumped(signal) => Some(signal),
            Self::Exited(_) | Self::NotStarted(..) | Self::Unseen => None,
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled(signal) => write!(f, "killed by {signal}"),
            Self::Dumped(signal) => write!(f, "killed by {signal} (core dumped)"),
            Self::NotStarted(stage, errno) => {
                write!(f, "not started: {} failed with {errno} ({})", stage.doing(), errno.text())
            }
            Self::Unseen => f.write_str("ended unseen"),
        }
    }
}

/// The steps from a request to a running program. Their numbers are kept on disk: a new one comes last,
/// whenever it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Stage {
    /// Making pipes and the new process itself.
    Clone = 0,
    /// Putting standard input, output, error and declared descriptors in their places.
    Descriptors,
    /// Becoming the leader of a session of its own.
    Session,
    /// Entering the replica's control group.
    Cgroup,
    /// Setting resource limits.
    Limits,
    /// Finding the user and taking on groups and user.
    User,
    /// Entering the working directory.
    WorkingDir,
    /// Asking to be killed with the manager.
    ParentDeath,
    /// Executing the program itself.
    Exec,
    /// The deadline passed before the program ran; which step hung is not known.
    Deadline,
    /// Setting its priorities (`nice`, `oom_score_adj`), after the limits.
    Priority,
    /// Giving up privileges (`cap_drop`, `no_new_privileges`), before and after the change of user.
    Privileges,
    /// Opening the sockets that it is handed.
    Listen,
    /// Reading the secrets that it is handed.
    Secrets,
}

impl Stage {
    /// The stage with this number, as reported by a child over its status pipe.
    pub fn from_number(number: u8) -> Option<Self> {
        const ALL: [Stage; 14] = [
            Stage::Clone,
            Stage::Descriptors,
            Stage::Session,
            Stage::Cgroup,
            Stage::Limits,
            Stage::User,
            Stage::WorkingDir,
            Stage::ParentDeath,
            Stage::Exec,
            Stage::Deadline,
            Stage::Priority,
            Stage::Privileges,
            Stage::Listen,
            Stage::Secrets,
        ];
        ALL.get(usize::from(number)).copied()
    }

    /// The step in words that can follow "failed:" or stand before "failed".
    pub fn doing(self) -> &'static str {
        match self {
            Self::Clone => "creating the process",
            Self::Descriptors => "arranging descriptors",
            Self::Session => "opening a session",
            Self::Cgroup => "entering the control group",
            Self::Limits => "setting resource limits",
            Self::User => "changing to the user",
            Self::WorkingDir => "entering the working directory",
            Self::ParentDeath => "tying its life to the manager",
            Self::Exec => "executing the program",
            Self::Deadline => "starting within the deadline",
            Self::Priority => "setting its priority",
            Self::Privileges => "giving up privileges",
            Self::Listen => "opening its sockets",
            Self::Secrets => "reading its secrets",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_because_of_an_end_has_its_code() {
        let signal = |number| Signal::new(number).unwrap();
        for (how, code) in [
            (How::Exited(0), 0),
            (How::Exited(255), 255),
            (How::Signaled(Signal::TERM), 143),
            (How::Signaled(Signal::KILL), 137),
            (How::Dumped(signal(11)), 139),
            (How::Signaled(signal(64)), 192),
            (How::NotStarted(Stage::Exec, Errno(2)), 127),
            (How::NotStarted(Stage::Exec, Errno(13)), 126),
            (How::NotStarted(Stage::WorkingDir, Errno(2)), 125),
            (How::Unseen, 125),
        ] {
            assert_eq!(how.passed_on(), code, "{how}");
        }
    }

    #[test]
    fn stages_survive_their_numbers() {
        for number in 0..14 {
            assert_eq!(Stage::from_number(number).unwrap() as u8, number);
        }
        assert_eq!(Stage::from_number(14), None);
    }
}
