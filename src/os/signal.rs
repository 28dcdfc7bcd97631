//! Signals: sending through pidfds, blocking, and receiving with their origin (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::io as to_io;
use crate::exit::Signal;

/// Sends a signal to the process behind a pidfd, and to no other whatever its number became.
pub fn send(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: pidfd_send_signal(2) with no siginfo and no flags reads no memory of ours.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.number(),
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal to every member of a process group. Only for a group whose leader is a child that
/// has not been reaped: its number cannot have been given to anybody else.
pub fn send_group(leader: i32, signal: Signal) -> io::Result<()> {
    kill(-leader, signal.number())
}

/// Whether a process group has members other than zombies that could be told by kill(2); `leader` as
/// in [`send_group`].
pub fn group_exists(leader: i32) -> bool {
    kill(-leader, 0).is_ok()
}

/// Sends a signal by number. The caller vouches that the number still means what it meant.
pub fn send_pid(pid: i32, signal: Signal) -> io::Result<()> {
    kill(pid, signal.number())
}

fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory.
    let answer = unsafe { libc::kill(pid, signal) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a pidfd for a process by number (pidfd_open(2)).
pub fn open_pidfd(pid: i32) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open(2) touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0_u32) };
    let fd = i32::try_from(answer).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Blocks every signal in the calling thread; threads made later inherit that.
pub fn block_all() -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).map_err(to_io)
}

/// Does something with every signal blocked in the calling thread, and puts the mask back after it.
pub fn with_all_blocked<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)).map_err(to_io)?;
    let done = work();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map_err(to_io)?;
    Ok(done)
}

/// Whether the calling process ignores a signal (it may have been started so, as `nohup` does).
pub fn ignored(signal: Signal) -> bool {
    disposition(signal.number()) == Some(libc::SIG_IGN)
}

/// The signals that the calling process ignores.
pub fn all_ignored() -> Vec<i32> {
    (1..=64).filter(|number| disposition(*number) == Some(libc::SIG_IGN)).collect()
}

/// The signals that are not at their default: what a child has to reset.
pub(super) fn changed() -> Vec<i32> {
    (1..=64)
        .filter(|number| disposition(*number).is_some_and(|handler| handler != libc::SIG_DFL))
        .collect()
}

fn disposition(signal: i32) -> Option<libc::sighandler_t> {
    // Not through the C library: it hides its own signals 32 and 33, which a parent may have left
    // ignored all the same.
    let mut old = [0_usize; 4];
    // SAFETY: rt_sigaction(2) with a null new action only writes the kernel's old one, whose first
    // word is the handler and which has at most 32 bytes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            std::ptr::null::<usize>(),
            old.as_mut_ptr(),
            8_usize,
        )
    };
    (answer == 0).then_some(old[0])
}

/// Signals that arrive as data, with who sent them. They must be blocked in every thread.
#[derive(Debug)]
pub struct Inbox {
    fd: SignalFd,
}

/// A signal and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Which one.
    pub signal: Signal,
    /// The sender's process number; `None` when the kernel sent it, as for Ctrl-C.
    pub pid: Option<i32>,
    /// The sender's user.
    pub uid: Option<u32>,
}

impl Inbox {
    /// Receives these signals from now on.
    pub fn open(signals: &[Signal]) -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(nix::sys::signal::Signal::try_from(signal.number()).map_err(to_io)?);
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { fd: SignalFd::with_flags(&set, flags).map_err(to_io)? })
    }

    /// The next one, if any has arrived.
    pub fn take(&self) -> io::Result<Option<Arrived>> {
        let Some(info) = self.fd.read_signal().map_err(to_io)? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        let signal = Signal::new(number).map_err(|_| io::ErrorKind::InvalidData)?;
        // SI_KERNEL is positive; SI_USER, SI_QUEUE and SI_TKILL come from a process and are not.
        let sender = info.ssi_code <= 0;
        Ok(Some(Arrived {
            signal,
            pid: sender.then(|| i32::try_from(info.ssi_pid).unwrap_or(0)),
            uid: sender.then_some(info.ssi_uid),
        }))
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
