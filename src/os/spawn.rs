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

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::live::PidCell;
use super::raw::{call, last_words};
use super::user::Identity;
use crate::exit::{Errno, Stage};

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

/// The resources a child's limits can be set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// The size of a core dump.
    Core,
    /// Open descriptors.
    Nofile,
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
    limits: Vec<ChildLimit>,
    identity: Option<Identity>,
    session: Session,
    outlives_parent: bool,
    sealed: bool,
    pid_cell: Option<PidCell>,
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
            limits: Vec::new(),
            identity: None,
            session: Session::Plain,
            outlives_parent: false,
            sealed: false,
            pid_cell: None,
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
        let mut plan = Box::new(Plan::new(self, fds, status.write.as_raw_fd()));
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
        let reached = plan.at_exec.load(std::sync::atomic::Ordering::Acquire);
        drop(plan);
        stacks.give(stack);
        if length < report.len() {
            return Some(if reached { Landing::Executed } else { Landing::Died });
        }
        let errno = i32::from_le_bytes([report[2], report[3], report[4], report[5]]);
        Some(Landing::Failed {
            stage: Stage::from_number(report[0]).unwrap_or(Stage::Exec),
            errno: Errno(errno),
            interpreter_missing: report[1] == 1,
        })
    }
}

impl AsFd for Flight {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }
}

/// A child's private stack, with a page below it that faults.
#[derive(Debug)]
pub struct Stack {
    base: *mut c_void,
    /// Of the whole mapping: the page that faults, and the stack above it.
    length: usize,
}

/// The size of a page: 4, 16 or 64 KiB on arm64.
fn page() -> usize {
    // SAFETY: sysconf(3) touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// A debug build of `child` uses under 4 KiB of it.
const STACK: usize = 32 * 1024;

impl Stack {
    fn new() -> io::Result<Self> {
        let page = page();
        let length = STACK.next_multiple_of(page) + page;
        // SAFETY: a new private mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base, length };
        // SAFETY: the first page of the mapping just made.
        if unsafe { libc::mprotect(base, page, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, a multiple of a page and so aligned for any ABI.
        unsafe { self.base.byte_add(self.length) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no child runs on it any more.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

/// Stacks kept for the next children.
#[derive(Debug, Default)]
pub struct Stacks {
    free: Vec<Stack>,
}

/// More than this many idle stacks are not worth their memory.
const KEPT: usize = 8;

impl Stacks {
    fn take(&mut self) -> io::Result<Stack> {
        self.free.pop().map_or_else(Stack::new, Ok)
    }

    fn give(&mut self, stack: Stack) {
        if self.free.len() < KEPT {
            self.free.push(stack);
        }
    }
}

/// What the child reads while it shares our memory: pointers into a [`Launch`] that stays put.
#[derive(Debug)]
struct Plan {
    launch: Box<Launch>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    moves: Vec<(RawFd, RawFd)>,
    /// The first number above all targets in `moves`.
    above: RawFd,
    status: RawFd,
    changed_signals: Vec<i32>,
    parent: i32,
    /// Set by the child when only exec is left to do.
    at_exec: std::sync::atomic::AtomicBool,
}

impl Plan {
    fn new(launch: Box<Launch>, fds: &[(BorrowedFd<'_>, RawFd)], status: RawFd) -> Self {
        let pointers = |strings: &[CString]| {
            let ends = std::iter::once(std::ptr::null());
            strings.iter().map(|string| string.as_ptr()).chain(ends).collect()
        };
        Self {
            argv: pointers(&launch.argv),
            envp: pointers(&launch.envp),
            moves: fds.iter().map(|(fd, target)| (fd.as_raw_fd(), *target)).collect(),
            above: fds.iter().map(|(_, target)| target + 1).max().unwrap_or(3).max(3),
            status,
            changed_signals: super::signal::changed(),
            parent: super::prctl::pid(),
            at_exec: std::sync::atomic::AtomicBool::new(false),
            launch,
        }
    }

    /// Where the kernel is to write the child's number; null for nowhere.
    fn cell(&self) -> *mut i32 {
        self.launch.pid_cell.map_or(std::ptr::null_mut(), |cell| cell.0)
    }

    /// Makes the child in this process's own control group.
    fn clone_here(&mut self, stack: &Stack, pidfd: &mut c_int) -> Result<i32, Errno> {
        let cell = self.cell();
        let mut flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
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
        if pid < 0 { Err(super::errno_of(&io::Error::last_os_error())) } else { Ok(pid) }
    }

    /// Makes the child in the group it is to enter, by clone3(2). Entering from within costs some
    /// milliseconds: the kernel stops all forking for a move, and waits until everybody has noticed.
    /// `None`: there is no group, or the kernel (or a filter of system calls, as containers have it)
    /// will not do it like this; then the child enters by itself and tells what is wrong.
    fn clone_into_group(&mut self, stack: &Stack, pidfd: &mut c_int) -> Option<Result<i32, Errno>> {
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
        let cell = self.cell();
        let bits = |flag: c_int| u64::from(flag.cast_unsigned());
        let settid = if cell.is_null() { 0 } else { bits(libc::CLONE_CHILD_SETTID) };
        let args = libc::clone_args {
            flags: bits(libc::CLONE_VM) | bits(libc::CLONE_PIDFD) | CLONE_INTO_CGROUP | settid,
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
            unsafe { super::raw::clone3(&args, child, std::ptr::from_mut(self).cast::<c_void>()) };
        if answer < 0 {
            return Err(Errno(i32::try_from(-answer).unwrap_or(libc::EINVAL)));
        }
        i32::try_from(answer).map_err(|_| Errno(libc::EINVAL))
    }
}

/// Not among the constants of the C library, being wider than an `int`.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The child. From here on only raw system calls; no allocation, no panic, no thread-local.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `start` passes a plan that lives until this process has executed or ended, and nobody
    // else touches it meanwhile.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    let (stage, errno, hint) = match prepare(plan) {
        Ok(()) => execute(plan),
        Err((stage, errno)) => (stage, errno, 0),
    };
    let number = errno.to_le_bytes();
    let report = [stage as u8, hint, number[0], number[1], number[2], number[3]];
    // SAFETY: write(2) from a local array, which the kernel has read when the call returns.
    unsafe { last_words(fd(plan.status), &report) }
}

/// A descriptor, flag or small number as a register.
fn fd(number: i32) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "registers are bits; the kernel reads the low half")]
    let register = number as isize as usize;
    register
}

/// A pointer as a register.
fn at<T>(pointer: *const T) -> usize {
    pointer as usize
}

/// Makes one system call; a negative answer is an error.
fn checked(stage: Stage, number: libc::c_long, args: [usize; 5]) -> Result<usize, (Stage, i32)> {
    // SAFETY: every caller below passes numbers and pointers into the plan or to locals, valid as
    // the call's manual page asks.
    let answer = unsafe { call(number, args) };
    match usize::try_from(answer) {
        Ok(answer) => Ok(answer),
        Err(_) => Err((stage, i32::try_from(-answer).unwrap_or(libc::EINVAL))),
    }
}

fn prepare(plan: &mut Plan) -> Result<(), (Stage, i32)> {
    checked(Stage::Session, libc::SYS_setsid, [0; 5])?;
    if let Some(path) = &plan.launch.cgroup {
        enter_cgroup(path)?;
    }
    arrange_descriptors(plan)?;
    if plan.launch.session == Session::WithTerminal {
        let request = usize::try_from(libc::TIOCSCTTY).unwrap_or_default();
        checked(Stage::Session, libc::SYS_ioctl, [0, request, 0, 0, 0])?;
    }
    for limit in &plan.launch.limits {
        let number = match limit.resource {
            Resource::Core => libc::RLIMIT_CORE,
            Resource::Nofile => libc::RLIMIT_NOFILE,
        };
        let pair = [limit.soft, limit.hard];
        let args = [0, number as usize, at(pair.as_ptr()), 0, 0];
        checked(Stage::Limits, libc::SYS_prlimit64, args)?;
    }
    if let Some(identity) = &plan.launch.identity {
        let (uid, gid) = (identity.uid as usize, identity.gid as usize);
        let groups = [identity.groups.len(), at(identity.groups.as_ptr()), 0, 0, 0];
        checked(Stage::User, libc::SYS_setgroups, groups)?;
        checked(Stage::User, libc::SYS_setresgid, [gid, gid, gid, 0, 0])?;
        checked(Stage::User, libc::SYS_setresuid, [uid, uid, uid, 0, 0])?;
    }
    checked(Stage::Exec, libc::SYS_umask, [0o022, 0, 0, 0, 0])?;
    if !plan.launch.outlives_parent {
        let death = [fd(libc::PR_SET_PDEATHSIG), fd(libc::SIGKILL), 0, 0, 0];
        checked(Stage::ParentDeath, libc::SYS_prctl, death)?;
        // The parent may have died before the request took effect: then nobody would kill us.
        if checked(Stage::ParentDeath, libc::SYS_getppid, [0; 5])? != fd(plan.parent) {
            return Err((Stage::ParentDeath, libc::ESRCH));
        }
    }
    if let Some(folder) = &plan.launch.folder {
        checked(Stage::WorkingDir, libc::SYS_chdir, [at(folder.as_ptr()), 0, 0, 0, 0])?;
    }
    // A caught signal becomes the default one by exec, an ignored one would stay ignored. All are
    // reset before the mask is lifted, so that no handler of the parent's can run here.
    let default = [0_u64; 4];
    for signal in &plan.changed_signals {
        let args = [fd(*signal), at(default.as_ptr()), 0, 8, 0];
        checked(Stage::Exec, libc::SYS_rt_sigaction, args)?;
    }
    let none = 0_u64;
    let args = [fd(libc::SIG_SETMASK), at(&raw const none), 0, 8, 0];
    checked(Stage::Exec, libc::SYS_rt_sigprocmask, args)?;
    Ok(())
}

fn enter_cgroup(path: &CString) -> Result<(), (Stage, i32)> {
    let flags = fd(libc::O_WRONLY | libc::O_CLOEXEC);
    let args = [fd(libc::AT_FDCWD), at(path.as_ptr()), flags, 0, 0];
    let file = checked(Stage::Cgroup, libc::SYS_openat, args)?;
    checked(Stage::Cgroup, libc::SYS_write, [file, at(c"0".as_ptr()), 1, 0, 0])?;
    checked(Stage::Cgroup, libc::SYS_close, [file, 0, 0, 0, 0])?;
    Ok(())
}

/// Puts each descriptor in its place. Those that stand on another's place step aside first.
fn arrange_descriptors(plan: &mut Plan) -> Result<(), (Stage, i32)> {
    let aside = |number: RawFd| {
        let args = [fd(number), fd(libc::F_DUPFD_CLOEXEC), fd(plan.above), 0, 0];
        let moved = checked(Stage::Descriptors, libc::SYS_fcntl, args)?;
        Ok(i32::try_from(moved).unwrap_or(-1))
    };
    if plan.status < plan.above {
        plan.status = aside(plan.status)?;
    }
    for (from, _) in &mut plan.moves {
        if *from < plan.above {
            *from = aside(*from)?;
        }
    }
    for (from, target) in &plan.moves {
        let args = [fd(*from), fd(*target), 0, 0, 0];
        checked(Stage::Descriptors, libc::SYS_dup3, args)?;
    }
    if plan.launch.sealed {
        let flags = libc::CLOSE_RANGE_CLOEXEC as usize;
        let args = [fd(plan.above), u32::MAX as usize, flags, 0, 0];
        match checked(Stage::Descriptors, libc::SYS_close_range, args) {
            Err((_, libc::ENOSYS | libc::EINVAL)) | Ok(_) => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(())
}

/// Tries each candidate as execvp(3) does; returns only when none could be executed.
fn execute(plan: &Plan) -> (Stage, i32, u8) {
    plan.at_exec.store(true, std::sync::atomic::Ordering::Release);
    let mut worst = (Stage::Exec, libc::ENOENT, 0);
    for path in &plan.launch.candidates {
        let args = [at(path.as_ptr()), at(plan.argv.as_ptr()), at(plan.envp.as_ptr()), 0, 0];
        let Err((_, errno)) = checked(Stage::Exec, libc::SYS_execve, args) else { continue };
        match errno {
            libc::ENOENT | libc::ENOTDIR => {
                let exists = [fd(libc::AT_FDCWD), at(path.as_ptr()), 0, 0, 0];
                if errno == libc::ENOENT
                    && checked(Stage::Exec, libc::SYS_faccessat, exists).is_ok()
                {
                    return (Stage::Exec, errno, 1);
                }
                if worst.1 == libc::ENOENT {
                    worst.1 = errno;
                }
            }
            libc::EACCES => worst.1 = errno,
            _ => return (Stage::Exec, errno, 0),
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::How;

    /// Runs a command to its end on a thread of its own and tells how it landed and ended.
    fn run(command: &[&str], change: impl FnOnce(&mut Launch) + Send + 'static) -> (Landing, How) {
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        std::thread::spawn(move || {
            super::super::signal::block_all().unwrap();
            let mut launch = Box::new(Launch::new(&command, [("PATH", "/usr/bin:/bin")]).unwrap());
            change(&mut launch);
            let null = std::fs::File::open("/dev/null").unwrap();
            let mut stacks = Stacks::default();
            let mut started = launch.start(&[(null.as_fd(), 0)], &mut stacks).unwrap();
            let readable = |fd: BorrowedFd<'_>| {
                let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
                nix::poll::poll(&mut fds, 20_000_u16).unwrap();
            };
            readable(started.flight.as_fd());
            let landing = started.flight.landed(&mut stacks).unwrap();
            readable(started.pidfd.as_fd());
            let peeked = super::super::wait::peek(started.pidfd.as_fd()).unwrap().unwrap();
            let ended = super::super::wait::reap(started.pidfd.as_fd()).unwrap().unwrap();
            assert_eq!((peeked.pid, peeked.how), (ended.pid, ended.how));
            assert_eq!(peeked.pid, started.pid);
            (landing, ended.how)
        })
        .join()
        .unwrap()
    }

    fn failed(
        command: &[&str],
        change: impl FnOnce(&mut Launch) + Send + 'static,
    ) -> (Stage, i32, bool) {
        match run(command, change).0 {
            Landing::Failed { stage, errno, interpreter_missing } => {
                (stage, errno.0, interpreter_missing)
            }
            other => panic!("{command:?}: {other:?}"),
        }
    }

    #[test]
    fn a_program_runs_and_its_code_is_told() {
        for code in [0, 1, 7, 126, 127, 128, 137, 255] {
            let script = format!("exit {code}");
            let (landing, how) = run(&["sh", "-c", &script], |_| {});
            assert_eq!((landing, how), (Landing::Executed, How::Exited(code)));
        }
    }

    #[test]
    fn every_failed_step_is_told_with_its_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let plain = file("plain", "#!/bin/sh\n", 0o644);
        let garbage = file("garbage", "no program", 0o755);
        let orphan = file("orphan", "#!/no/such/interpreter\n", 0o755);
        for (command, errno, interpreter) in [
            ("/no/such/program", libc::ENOENT, false),
            ("no-such-program", libc::ENOENT, false),
            (plain.as_str(), libc::EACCES, false),
            ("/etc", libc::EACCES, false),
            (garbage.as_str(), libc::ENOEXEC, false),
            (orphan.as_str(), libc::ENOENT, true),
        ] {
            assert_eq!(failed(&[command], |_| {}), (Stage::Exec, errno, interpreter), "{command}");
        }
        let missing = failed(&["true"], |launch| {
            launch.folder(Path::new("/no/such/folder")).unwrap();
        });
        assert_eq!(missing, (Stage::WorkingDir, libc::ENOENT, false));
        let cgroup = failed(&["true"], |launch| {
            launch.cgroup(Path::new("/no/such/cgroup.procs"), true).unwrap();
        });
        assert_eq!(cgroup, (Stage::Cgroup, libc::ENOENT, false));
        let limit = failed(&["true"], |launch| {
            launch.limit(ChildLimit { resource: Resource::Nofile, soft: 9, hard: 3 });
        });
        assert_eq!(limit, (Stage::Limits, libc::EINVAL, false));
    }

    #[test]
    fn a_child_starts_with_default_signals_an_empty_mask_and_its_own_session() {
        let script = r#"
            set -e
            grep -q '^SigBlk:.0000000000000000$' /proc/self/status
            grep -q '^SigIgn:.0000000000000000$' /proc/self/status
            set -- $(cat /proc/$$/stat)
            test "$6" = "$$"
            test "$(umask)" = 0022
        "#;
        assert_eq!(run(&["sh", "-c", script], |_| {}).1, How::Exited(0));
    }

    #[test]
    fn the_kernel_writes_the_number_before_the_child_moves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        let realm = crate::name::Realm(1);
        let mut table = super::super::live::Table::open(&path, realm).unwrap();
        let replica = "web/1".parse::<crate::name::Target>().unwrap().service;
        let slot = table
            .claim(
                &crate::name::ReplicaId { service: replica, replica: 1 },
                super::super::live::Phase::Between,
                0,
            )
            .unwrap();
        let cell = table.slot(slot).pid_cell();
        let script = "exit 3";
        let (_, how) = run(&["sh", "-c", script], move |launch| {
            launch.pid_cell(cell);
        });
        assert_eq!(how, How::Exited(3));
        assert!(table.slot(slot).pid().is_some());
    }
}
