//! Starting a program: clone(2) that shares memory but never suspends the parent.
//!
//! `CLONE_VM` makes the cost independent of this process's size; leaving out `CLONE_VFORK` means
//! that a child which hangs on its way (a dead mount as its folder, say) holds up nobody. The child
//! runs on a stack of its own, makes raw system calls only, and reports a failed step over a pipe
//! that closes when the program is executed. Its memory is freed when that pipe has told how it went.
//!
//! Whoever calls [`Launch::start`] must be a thread that never ends while children are to live
//! (`PR_SET_PDEATHSIG` is bound to the thread) and that has every signal blocked, so that no handler
//! of ours ever runs in a child.

mod child;
mod plan;
mod stack;
#[cfg(test)]
mod tests;

use std::ffi::{CString, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::limits::Resource;
use super::live::PidCell;
use super::user::Identity;
use crate::exit::{Errno, Stage};
use plan::Plan;
use stack::Stack;

pub use stack::Stacks;

/// A resource limit to set in the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildLimit {
    /// Which resource.
    pub resource: Resource,
    /// What is enforced.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// What a child gives up before it becomes a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privileges {
    /// The capabilities that are taken from it, a bit each (capabilities(7)): out of its effective,
    /// permitted, inheritable, ambient and bounding sets.
    pub dropped: u64,
    /// Nothing it executes ever gives it more than it has (`PR_SET_NO_NEW_PRIVS`).
    pub no_new: bool,
}

/// The session of its own that a child lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// Without a terminal.
    Plain,
    /// Its terminal is what the child gets as descriptor 0.
    WithTerminal,
}

/// All that a child needs to become a program.
#[derive(Debug)]
pub struct Launch {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    envp: Vec<CString>,
    folder: Option<CString>,
    cgroup: Option<CString>,
    inside: bool,
    /// Further groups to enter, of other hierarchies.
    entered: Vec<CString>,
    limits: Vec<ChildLimit>,
    nice: Option<i32>,
    oom_score_adj: Option<CString>,
    identity: Option<Identity>,
    privileges: Privileges,
    umask: u32,
    session: Session,
    outlives_parent: bool,
    sealed: bool,
    pid_cell: Option<PidCell>,
    ignored: Option<Arc<[i32]>>,
    /// Variables whose value is the child's own number.
    pid_variables: Vec<CString>,
}

/// A word, a variable or a path that holds a NUL byte and so cannot be handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a NUL byte cannot be handed to a program")]
pub struct NulInside;

fn c_string(bytes: &[u8]) -> Result<CString, NulInside> {
    CString::new(bytes).map_err(|_| NulInside)
}

impl Launch {
    /// A program with its words (the first one names it) and its whole environment. A name without
    /// a slash is looked for in the folders of `PATH` as the *child* will have it.
    pub fn new<'a, T: AsRef<[u8]> + ?Sized + 'a>(
        command: &[impl AsRef<[u8]>],
        environment: impl IntoIterator<Item = (&'a T, &'a T)>,
    ) -> Result<Self, NulInside> {
        let mut envp = Vec::new();
        let mut path: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
        for (name, value) in environment {
            let (name, value) = (name.as_ref(), value.as_ref());
            envp.push(c_string(&[name, b"=", value].concat())?);
            if name == b"PATH" {
                path = value;
            }
        }
        let argv: Vec<_> =
            command.iter().map(|word| c_string(word.as_ref())).collect::<Result<_, _>>()?;
        let program = argv.first().ok_or(NulInside)?.to_bytes();
        let candidates = if program.contains(&b'/') {
            vec![c_string(program)?]
        } else {
            let folders = path.split(|byte| *byte == b':');
            let folders = folders.map(|folder| if folder.is_empty() { b"." } else { folder });
            folders
                .map(|folder| c_string(&[folder, b"/", program].concat()))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            candidates,
            argv,
            envp,
            folder: None,
            cgroup: None,
            inside: false,
            entered: Vec::new(),
            limits: Vec::new(),
            nice: None,
            oom_score_adj: None,
            identity: None,
            privileges: Privileges::default(),
            umask: 0o022,
            session: Session::Plain,
            outlives_parent: false,
            sealed: false,
            pid_cell: None,
            ignored: None,
            pid_variables: Vec::new(),
        })
    }

    /// The name the program is given as its first word, where that is not the file's.
    pub fn argv0(&mut self, name: &str) -> Result<&mut Self, NulInside> {
        self.argv[0] = c_string(name.as_bytes())?;
        Ok(self)
    }

    /// The working directory.
    pub fn folder(&mut self, folder: &Path) -> Result<&mut Self, NulInside> {
        self.folder = Some(c_string(folder.as_os_str().as_bytes())?);
        Ok(self)
    }

    /// The `cgroup.procs` file of the group to live in. `inside` has the kernel make the process
    /// there (`CLONE_INTO_CGROUP`), which spares it the milliseconds that entering from elsewhere
    /// takes. **Never for a group that was ever killed through `cgroup.kill`**: the kernel counts the
    /// kills of a group, compares the count with that of the *parent's* group, and kills the newcomer.
    pub fn cgroup(&mut self, procs: &Path, inside: bool) -> Result<&mut Self, NulInside> {
        self.cgroup = Some(c_string(procs.as_os_str().as_bytes())?);
        self.inside = inside;
        Ok(self)
    }

    /// A further `cgroup.procs` file, of a group of another hierarchy (cgroup v1), to enter.
    pub fn enter(&mut self, procs: &Path) -> Result<&mut Self, NulInside> {
        self.entered.push(c_string(procs.as_os_str().as_bytes())?);
        Ok(self)
    }

    /// Its scheduling priority, -20 (most favoured) to 19.
    pub fn nice(&mut self, nice: i32) -> &mut Self {
        self.nice = Some(nice);
        self
    }

    /// How readily the kernel kills it when memory runs out, -1000 (never) to 1000.
    ///
    /// The kernel gives all processes that share memory the same value, so such a child is made with a
    /// copy of this process's memory, which costs about 50 us for each MiB of it.
    pub fn oom_score_adj(&mut self, adjustment: i32) -> &mut Self {
        self.oom_score_adj = CString::new(adjustment.to_string()).ok();
        self
    }

    /// What it gives up.
    pub fn privileges(&mut self, privileges: Privileges) -> &mut Self {
        self.privileges = privileges;
        self
    }

    /// The file mode bits that are off in what it creates; 022 unless said.
    pub fn umask(&mut self, umask: u32) -> &mut Self {
        self.umask = umask;
        self
    }

    /// Sets a resource limit.
    pub fn limit(&mut self, limit: ChildLimit) -> &mut Self {
        self.limits.push(limit);
        self
    }

    /// Becomes another user.
    pub fn identity(&mut self, identity: Identity) -> &mut Self {
        self.identity = Some(identity);
        self
    }

    /// Makes the terminal that it gets as descriptor 0 that of its own session: it can be opened as
    /// `/dev/tty`, and hangs up on the program when our end is closed.
    pub fn terminal(&mut self) -> &mut Self {
        self.session = Session::WithTerminal;
        self
    }

    /// Is not killed when the thread that started it ends.
    pub fn outlives_parent(&mut self) -> &mut Self {
        self.outlives_parent = true;
        self
    }

    /// Closes every descriptor on exec that is not handed over, whatever the rest of this process forgot
    /// to mark so (close_range(2), kernel 5.11; before that those without the mark are inherited).
    pub fn sealed(&mut self) -> &mut Self {
        self.sealed = true;
        self
    }

    /// Has the kernel write the child's number here before the child takes its first step.
    pub fn pid_cell(&mut self, cell: PidCell) -> &mut Self {
        self.pid_cell = Some(cell);
        self
    }

    /// Which signals this process ignores, where its caller knows that and it does not change: spares a
    /// look at every signal.
    pub fn ignored_signals(&mut self, ignored: Arc<[i32]>) -> &mut Self {
        self.ignored = Some(ignored);
        self
    }

    /// Gives the program a variable with its own number, which nobody knows before there is a process.
    pub fn pid_variable(&mut self, name: &str) -> Result<&mut Self, NulInside> {
        self.pid_variables.push(c_string(name.as_bytes())?);
        Ok(self)
    }

    /// Makes the process. `fds` are pairs of a descriptor of ours and the number it gets in the
    /// child; every other descriptor must be closed on exec. Descriptors 0, 1 and 2 of this process
    /// must be open, so that no pipe of ours has one of these numbers.
    pub fn start(
        self: Box<Self>,
        fds: &[(BorrowedFd<'_>, RawFd)],
        stacks: &mut Stacks,
    ) -> Result<Started, (Stage, Errno)> {
        let failed = |error: io::Error| (Stage::Clone, super::errno_of(&error));
        let status = super::fds::pipe().map_err(failed)?;
        super::fds::set_nonblocking(status.read.as_fd()).map_err(failed)?;
        let stack = stacks.take().map_err(failed)?;
        let plan = Plan::new(self, fds, status.write.as_raw_fd());
        let mut plan = Box::new(plan.map_err(failed)?);
        let mut pidfd: c_int = -1;
        let pid = match plan.clone_into_group(&stack, &mut pidfd) {
            Some(pid) => pid,
            None => plan.clone_here(&stack, &mut pidfd),
        };
        let pid = match pid {
            Ok(pid) => pid,
            Err(errno) => {
                stacks.give(stack);
                return Err((Stage::Clone, errno));
            }
        };
        // SAFETY: the kernel has just made this descriptor for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let memory = std::mem::ManuallyDrop::new((plan, stack));
        Ok(Started { pid, pidfd, flight: Flight { status: status.read, memory } })
    }
}

/// A process that exists.
#[derive(Debug)]
pub struct Started {
    /// Its number.
    pub pid: i32,
    /// The descriptor that stands for it.
    pub pidfd: OwnedFd,
    /// Its way to the program.
    pub flight: Flight,
}

/// A child on its way from clone to exec.
///
/// Dropping it before [`Flight::landed`] gave the outcome leaks the child's memory on purpose.
#[derive(Debug)]
pub struct Flight {
    status: OwnedFd,
    memory: std::mem::ManuallyDrop<(Box<Plan>, Stack)>,
}

/// How a start went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// The program was executed (or the child was killed on the very last inch).
    Executed,
    /// The child was killed on its way.
    Died,
    /// A step failed; the child has ended by itself.
    Failed {
        /// Which step.
        stage: Stage,
        /// With which error.
        errno: Errno,
        /// The program's file is there and yet exec says `ENOENT`: the interpreter named in its
        /// first line, or its dynamic loader, is missing.
        interpreter_missing: bool,
        /// Which of the limits, in the order in which they were given, or which capability; 0 for
        /// other stages.
        which: u8,
    },
}

impl Flight {
    /// How it went, if that is known yet; the descriptor becomes readable when it is. Gives the
    /// child's memory back.
    pub fn landed(&mut self, stacks: &mut Stacks) -> Option<Landing> {
        let mut report = [0_u8; 6];
        let length = match super::fds::read(self.status.as_fd(), &mut report) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(_) => 0,
        };
        // SAFETY: the child closes the pipe by exec, which leaves our memory first, or by being
        // killed, or writes its report as its last act but exit, both of which `raw::last_words`
        // does without touching memory in between. `take` happens once: the caller drops a flight
        // that has landed.
        let (plan, stack) = unsafe { std::mem::ManuallyDrop::take(&mut self.memory) };
        let reached = plan.at_exec.is_set();
        drop(plan);
        stacks.give(stack);
        if length < report.len() {
            return Some(if reached { Landing::Executed } else { Landing::Died });
        }
        let errno = i32::from_le_bytes([report[2], report[3], report[4], report[5]]);
        let stage = Stage::from_number(report[0]).unwrap_or(Stage::Exec);
        let interpreter_missing = stage == Stage::Exec && report[1] == 1;
        let which = if stage == Stage::Exec { 0 } else { report[1] };
        Some(Landing::Failed { stage, errno: Errno(errno), interpreter_missing, which })
    }
}

impl AsFd for Flight {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }
}
