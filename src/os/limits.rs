//! Resource limits of this process: getrlimit(2), setrlimit(2).

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::io as to_io;

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
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(to_io)?;
    Ok(Limit { soft, hard })
}

/// Raises the soft limit on open descriptors to the hard one and returns the limit as it was.
pub fn raise_nofile() -> io::Result<Limit> {
    let before = nofile()?;
    setrlimit(Resource::RLIMIT_NOFILE, before.hard, before.hard).map_err(to_io)?;
    Ok(before)
}
