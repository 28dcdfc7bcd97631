//! Descriptors of ours in somebody's tokio reactor: being told when they can be read or written.
//! Nothing is read or written here.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime of the caller watch a descriptor for what can be read; reads must not wait.
///
/// # Panics
/// Outside of a runtime, or in one without input and output.
pub fn watch_reads(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(fd, Interest::READABLE)
}

/// Has the runtime of the caller watch a descriptor for room to write; writes must not wait.
///
/// # Panics
/// As [`watch_reads`].
pub fn watch_writes(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(fd, Interest::WRITABLE)
}

fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it owns the descriptor, which therefore stays open as long as it does and is always the
    // same number.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(Into::into)
}
