//! From a prepared launch to a process: what the child reads while it runs on our memory, and the two
//! ways of making it.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Launch;
use super::child::{DIGITS, at, child, fd};
use super::stack::{Reached, Stack};
use crate::exit::Errno;
use crate::os::{errno_of, prctl, raw, signal};

/// What the child reads while it shares our memory: pointers into a [`Launch`] that stays put.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) launch: Box<Launch>,
    pub(super) argv: Vec<*const c_char>,
    pub(super) envp: Vec<*const c_char>,
    /// Variables whose value the child fills in: `NAME=` and room for a number.
    pub(super) numbered: Vec<Vec<u8>>,
    pub(super) moves: Vec<(RawFd, RawFd)>,
    /// The first number above all targets in `moves`.
    pub(super) above: RawFd,
    pub(super) status: RawFd,
    /// The signals that the child sets back to what they are by default.
    pub(super) changed_signals: Vec<i32>,
    pub(super) parent: i32,
    pub(super) at_exec: Reached,
}

impl Plan {
    pub(super) fn new(
        launch: Box<Launch>,
        fds: &[(BorrowedFd<'_>, RawFd)],
        status: RawFd,
    ) -> io::Result<Self> {
        let pointers = |strings: &[CString]| {
            let ends = std::iter::once(std::ptr::null());
            strings.iter().map(|string| string.as_ptr()).chain(ends).collect()
        };
        let mut numbered: Vec<Vec<u8>> = launch
            .pid_variables
            .iter()
            .map(|name| [name.to_bytes(), b"=", &[0; DIGITS + 1]].concat())
            .collect();
        // Their bytes stay where they are however the plan is moved.
        let ends = numbered.iter_mut().map(|variable| variable.as_mut_ptr().cast_const().cast());
        let mut envp: Vec<*const c_char> = launch.envp.iter().map(|text| text.as_ptr()).collect();
        envp.extend(ends);
        envp.push(std::ptr::null());
        Ok(Self {
            argv: pointers(&launch.argv),
            envp,
            numbered,
            moves: fds.iter().map(|(fd, target)| (fd.as_raw_fd(), *target)).collect(),
            above: fds.iter().map(|(_, target)| target + 1).max().unwrap_or(3).max(3),
            status,
            changed_signals: Vec::new(),
            parent: prctl::pid(),
            at_exec: Reached::new(launch.oom_score_adj.is_some())?,
            launch,
        })
    }

    /// Whether the child shares our memory. One whose readiness to be killed for memory is to be
    /// changed must not: the kernel keeps that alike in all processes that share memory.
    fn sharing(&self) -> c_int {
        if self.launch.oom_score_adj.is_some() { 0 } else { libc::CLONE_VM }
    }

    /// Where the kernel is to write the child's number; null for nowhere.
    fn cell(&self) -> *mut i32 {
        self.launch.pid_cell.map_or(std::ptr::null_mut(), |cell| cell.0)
    }

    /// Makes the child in this process's own control group.
    pub(super) fn clone_here(&mut self, stack: &Stack, pidfd: &mut c_int) -> Result<i32, Errno> {
        self.changed_signals = signal::changed();
        let cell = self.cell();
        let mut flags = self.sharing() | libc::CLONE_PIDFD | libc::SIGCHLD;
        if !cell.is_null() {
            flags |= libc::CLONE_CHILD_SETTID;
        }
        // SAFETY: clone(2). The stack is the child's alone and large enough, its top is aligned; the
        // plan and everything it points to stay where they are until the child has executed or ended
        // (`Flight` leaks them otherwise); `child` makes raw system calls only, touches no
        // thread-local and never returns into code of ours. With CLONE_PIDFD the fifth argument is
        // where the pidfd is written; the last one is `cell`, valid by its own contract.
        let pid = unsafe {
            libc::clone(
                child,
                stack.top(),
                flags,
                std::ptr::from_mut(self).cast::<c_void>(),
                std::ptr::from_mut(pidfd),
                std::ptr::null_mut::<c_void>(),
                cell,
            )
        };
        if pid < 0 { Err(errno_of(&io::Error::last_os_error())) } else { Ok(pid) }
    }

    /// Makes the child in the group it is to enter, by clone3(2). Entering from within costs some
    /// milliseconds: the kernel stops all forking for a move, and waits until everybody has noticed.
    /// `None`: there is no group, or the kernel (or a filter of system calls, as containers have it)
    /// will not do it like this; then the child enters by itself and tells what is wrong.
    pub(super) fn clone_into_group(
        &mut self,
        stack: &Stack,
        pidfd: &mut c_int,
    ) -> Option<Result<i32, Errno>> {
        if !self.launch.inside {
            return None;
        }
        let procs = self.launch.cgroup.take()?;
        let folder = Path::new(std::ffi::OsStr::from_bytes(procs.to_bytes())).parent();
        let group = folder.and_then(|folder| std::fs::File::open(folder).ok());
        let answer = group.map(|group| self.clone_into(group.as_fd(), stack, pidfd));
        match answer {
            Some(Ok(pid)) => Some(Ok(pid)),
            Some(Err(errno)) if matches!(errno.0, libc::EAGAIN | libc::ENOMEM) => Some(Err(errno)),
            Some(Err(_)) | None => {
                self.launch.cgroup = Some(procs);
                None
            }
        }
    }

    fn clone_into(
        &mut self,
        group: BorrowedFd<'_>,
        stack: &Stack,
        pidfd: &mut c_int,
    ) -> Result<i32, Errno> {
        // Handlers are undone by the kernel as the child is made; what is ignored is not.
        self.changed_signals =
            self.launch.ignored.as_ref().map_or_else(signal::all_ignored, |known| known.to_vec());
        let cell = self.cell();
        let bits = |flag: c_int| u64::from(flag.cast_unsigned());
        let settid = if cell.is_null() { 0 } else { bits(libc::CLONE_CHILD_SETTID) };
        let args = libc::clone_args {
            flags: bits(self.sharing()) | bits(libc::CLONE_PIDFD) | settid | CLEAR_AND_INTO,
            pidfd: at(std::ptr::from_ref(pidfd)) as u64,
            child_tid: at(cell.cast_const()) as u64,
            parent_tid: 0,
            exit_signal: bits(libc::SIGCHLD),
            stack: at(stack.base.cast_const()) as u64,
            stack_size: stack.length as u64,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: fd(group.as_raw_fd()) as u64,
        };
        // SAFETY: clone3(2); for stack, plan and child as in `clone_here`. The other pointers are
        // those of `pidfd` and of `cell`, valid for writing.
        let answer =
            unsafe { raw::clone3(&args, child, std::ptr::from_mut(self).cast::<c_void>()) };
        if answer < 0 {
            return Err(Errno(i32::try_from(-answer).unwrap_or(libc::EINVAL)));
        }
        i32::try_from(answer).map_err(|_| Errno(libc::EINVAL))
    }
}

/// `CLONE_CLEAR_SIGHAND` and `CLONE_INTO_CGROUP`, which is the younger of the two (kernel 5.7). Not among the
/// constants of the C library, being wider than an `int`.
const CLEAR_AND_INTO: u64 = 1 << 32 | 1 << 33;
