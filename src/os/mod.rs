//! The operating system, one call or one small group of calls a file. No decisions are made here.
//!
//! **The only `unsafe` of the house.** Each block says the contract it relies on and why it holds.
#![expect(unsafe_code, reason = "this is the one module that talks to the kernel directly")]

pub mod cgroup;
pub mod clock;
pub mod epoll;
pub mod executable;
pub mod fds;
pub mod function;
pub mod input;
pub mod limits;
pub mod listen;
pub mod live;
pub mod lock;
pub mod mark;
pub mod memory;
pub mod prctl;
pub mod procfs;
pub mod random;
mod raw;
pub mod reactor;
pub mod sealed;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod spool;
pub mod terminal;
pub mod usage;
pub mod user;
pub mod wait;
pub mod watch;

pub use nix::errno::Errno as NixErrno;

use crate::exit::Errno;

/// The error number of a failed call, as the house's own value.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A `nix` error as a standard one.
fn io(error: nix::errno::Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(error as i32)
}
