//! Resource limits: which there are, and those of this process (getrlimit(2), setrlimit(2)).

use std::io;

use nix::sys::resource::{Resource as Known, getrlimit, setrlimit};

use super::io as to_io;

/// The resources that a limit can be set for, as `ulimit` and the kernel call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Address space, in bytes.
    As,
    /// The size of a core dump, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// The data segment, in bytes.
    Data,
    /// The size of a file that is written, in bytes.
    Fsize,
    /// File locks. Without any effect since Linux 2.4.25; see [`mark`](super::mark).
    Locks,
    /// Memory locked into RAM, in bytes.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Open descriptors.
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    /// The highest real-time priority.
    Rtprio,
    /// Signals that wait.
    Sigpending,
    /// The stack, in bytes.
    Stack,
}

impl Resource {
    /// The kernel's number.
    pub(super) fn number(self) -> usize {
        let known = match self {
            Self::As => libc::RLIMIT_AS,
            Self::Core => libc::RLIMIT_CORE,
            Self::Cpu => libc::RLIMIT_CPU,
            Self::Data => libc::RLIMIT_DATA,
            Self::Fsize => libc::RLIMIT_FSIZE,
            Self::Locks => libc::RLIMIT_LOCKS,
            Self::Memlock => libc::RLIMIT_MEMLOCK,
            Self::Msgqueue => libc::RLIMIT_MSGQUEUE,
            Self::Nofile => libc::RLIMIT_NOFILE,
            Self::Nproc => libc::RLIMIT_NPROC,
            Self::Rtprio => libc::RLIMIT_RTPRIO,
            Self::Sigpending => libc::RLIMIT_SIGPENDING,
            Self::Stack => libc::RLIMIT_STACK,
        };
        known as usize
    }

    /// The kernel's name, such as `RLIMIT_NOFILE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::As => "RLIMIT_AS",
            Self::Core => "RLIMIT_CORE",
            Self::Cpu => "RLIMIT_CPU",
            Self::Data => "RLIMIT_DATA",
            Self::Fsize => "RLIMIT_FSIZE",
            Self::Locks => "RLIMIT_LOCKS",
            Self::Memlock => "RLIMIT_MEMLOCK",
            Self::Msgqueue => "RLIMIT_MSGQUEUE",
            Self::Nofile => "RLIMIT_NOFILE",
            Self::Nproc => "RLIMIT_NPROC",
            Self::Rtprio => "RLIMIT_RTPRIO",
            Self::Sigpending => "RLIMIT_SIGPENDING",
            Self::Stack => "RLIMIT_STACK",
        }
    }
}

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// What the soft limit may be raised to.
    pub hard: u64,
}

/// The limit on open descriptors.
pub fn nofile() -> io::Result<Limit> {
    let (soft, hard) = getrlimit(Known::RLIMIT_NOFILE).map_err(to_io)?;
    Ok(Limit { soft, hard })
}

/// Our limits on processor time, in seconds (getrlimit(2)).
pub fn cpu() -> io::Result<Limit> {
    let (soft, hard) = getrlimit(Known::RLIMIT_CPU).map_err(to_io)?;
    Ok(Limit { soft, hard })
}

/// The limit on file locks, which limits nothing.
pub fn locks() -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one structure of numbers.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_LOCKS, &raw mut limit) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Raises the soft limit on open descriptors to the hard one and returns the limit as it was.
pub fn raise_nofile() -> io::Result<Limit> {
    let before = nofile()?;
    setrlimit(Known::RLIMIT_NOFILE, before.hard, before.hard).map_err(to_io)?;
    Ok(before)
}
