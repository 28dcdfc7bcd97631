//! Properties of this process: prctl(2).

use std::io;

/// Makes this process the one that orphaned descendants are given to.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a flag and touches no memory.
    let answer = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Names the calling thread, for `top` and `gdb`; at most 15 bytes are kept.
pub fn name_thread(name: &std::ffi::CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, which a CStr is.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Gives the calling thread a descriptor table of its own, a copy of the shared one.
pub fn unshare_descriptors() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).map_err(super::io)
}

/// This process's number.
pub fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The number of this process's parent.
pub fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Makes this process the leader of a new session, without a terminal.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid().map(drop).map_err(super::io)
}
