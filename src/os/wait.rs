//! How a child ended: waitid(2) on its pidfd, in two steps.
//!
//! [`peek`] leaves the zombie in place, so that its evidence (procfs, control group) can still be
//! read and a manager that is killed before the record is written loses nothing; [`reap`] removes it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::exit::{How, Signal, Usage};

/// A child that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended {
    /// Its process number.
    pub pid: i32,
    /// The kernel's word.
    pub how: How,
    /// The kernel's account of what it used.
    pub usage: Usage,
    /// Bytes it fetched from storage, it and the children it waited for.
    pub read_bytes: u64,
    /// Bytes it sent to storage, it and the children it waited for.
    pub written_bytes: u64,
}

impl Ended {
    /// An end that nobody could look at.
    pub fn unseen(pid: i32) -> Self {
        Self { pid, how: How::Unseen, usage: Usage::default(), read_bytes: 0, written_bytes: 0 }
    }
}

/// Looks at a child without reaping it; `None` while it runs.
pub fn peek(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    waitid(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOWAIT | libc::WNOHANG)
}

/// Reaps a child that has ended; `None` while it runs.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    waitid(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOHANG)
}

/// Reaps any child that has ended; `None` when none has. An error of `ECHILD` means there is no
/// child at all. For the guardian, which owns every child it has.
pub fn reap_any() -> io::Result<Option<Ended>> {
    waitid(libc::P_ALL, 0, libc::WNOHANG)
}

/// Looks at any child that has ended without reaping it.
pub fn peek_any() -> io::Result<Option<Ended>> {
    waitid(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT)
}

/// Looks at the child with this number without reaping it; `None` while it runs.
pub fn peek_pid(pid: i32) -> io::Result<Option<Ended>> {
    waitid(libc::P_PID, pid, libc::WNOHANG | libc::WNOWAIT)
}

/// Reaps the child with this number, if it has ended.
pub fn reap_pid(pid: i32) -> io::Result<Option<Ended>> {
    waitid(libc::P_PID, pid, libc::WNOHANG)
}

fn waitid(kind: libc::idtype_t, id: i32, options: libc::c_int) -> io::Result<Option<Ended>> {
    loop {
        // SAFETY: both structures are plain numbers, for which all zeroes is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: waitid(2) in its five-argument form of the kernel; both pointers are valid for
        // writing and outlive the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                kind,
                id,
                &raw mut info,
                options | libc::WEXITED,
                &raw mut usage,
            )
        };
        if answer != 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: after a successful waitid the SIGCHLD members of the union are set; where no
        // child was ready the kernel left them zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        // getrusage(2) counts storage in blocks of 512 bytes, whatever the device has.
        let bytes = |blocks: i64| u64::try_from(blocks).unwrap_or(0) * 512;
        return Ok(Some(Ended {
            pid,
            how: how(info.si_code, status),
            usage: account(&usage),
            read_bytes: bytes(usage.ru_inblock),
            written_bytes: bytes(usage.ru_oublock),
        }));
    }
}

fn how(code: i32, status: i32) -> How {
    match (code, Signal::new(status)) {
        (libc::CLD_KILLED, Ok(signal)) => How::Signaled(signal),
        (libc::CLD_DUMPED, Ok(signal)) => How::Dumped(signal),
        _ => How::Exited(status),
    }
}

fn account(usage: &libc::rusage) -> Usage {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "CPU seconds are far below 2^52")]
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Usage {
        cpu_user_s: seconds(usage.ru_utime),
        cpu_system_s: seconds(usage.ru_stime),
        max_rss_bytes: count(usage.ru_maxrss) * 1024,
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
        ctx_vol: count(usage.ru_nvcsw),
        ctx_invol: count(usage.ru_nivcsw),
    }
}
