//! The lock on a state directory: flock(2) on one file, shared by description.
//!
//! A lock of this kind belongs to the open file description. Guardian and manager inherit the same
//! one, so the directory stays locked until the last of them is gone and nobody slips in between.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Takes the lock, or gives the file back when somebody else has it. The lock lives exactly as long
/// as the descriptors of this description, here and in children.
pub fn try_lock(file: File) -> io::Result<Result<OwnedFd, File>> {
    // SAFETY: flock(2) on an open descriptor; it touches no memory.
    let answer = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if answer == 0 {
        return Ok(Ok(file.into()));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(Err(file)) } else { Err(error) }
}
