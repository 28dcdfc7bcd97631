//! The lock on a state directory: flock(2) on one file, shared by description.
//!
//! A lock of this kind belongs to the open file description. Guardian and manager inherit the same
//! one, so the directory stays locked until the last of them is gone and nobody slips in between.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{Flock, FlockArg};

/// Takes the lock, or gives the file back when somebody else has it.
pub fn try_lock(file: File) -> io::Result<Result<OwnedFd, File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // The guard would unlock on drop; the lock must live exactly as long as its descriptors.
            let kept = super::fds::duplicate(&*lock)?;
            std::mem::forget(lock);
            Ok(Ok(kept))
        }
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, error)) => Err(super::io(error)),
    }
}
