//! The child's way from clone to exec: raw system calls on memory it does not own.
//!
//! No allocation, no library call, no panic and no thread-local from here on, in release or debug.
//! The order of the steps is chosen: what takes rights comes before they are given up, the parent's
//! death is asked about after the user has changed (setuid(2) forgets it), signals come last.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use super::plan::Plan;
use super::{Privileges, Session};
use crate::exit::Stage;
use crate::os::raw::{call, last_words};

/// A step that failed: which one, with which error, and which of several things it was about.
type Failure = (Stage, i32, u8);

/// The child. From here on only raw system calls; no allocation, no panic, no thread-local.
pub(super) extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `start` passes a plan that lives until this process has executed or ended, and nobody
    // else touches it meanwhile.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    let (stage, errno, which) = match prepare(plan) {
        Ok(()) => execute(plan),
        Err(failure) => failure,
    };
    let number = errno.to_le_bytes();
    let report = [stage as u8, which, number[0], number[1], number[2], number[3]];
    // SAFETY: write(2) from a local array, which the kernel has read when the call returns.
    unsafe { last_words(fd(plan.status), &report) }
}

/// A descriptor, flag or small number as a register.
pub(super) fn fd(number: i32) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "registers are bits; the kernel reads the low half")]
    let register = number as isize as usize;
    register
}

/// A pointer as a register.
pub(super) fn at<T>(pointer: *const T) -> usize {
    pointer as usize
}

/// Makes one system call; a negative answer is an error.
fn checked(stage: Stage, number: libc::c_long, args: [usize; 5]) -> Result<usize, Failure> {
    // SAFETY: every caller below passes numbers and pointers into the plan or to locals, valid as
    // the call's manual page asks.
    let answer = unsafe { call(number, args) };
    match usize::try_from(answer) {
        Ok(answer) => Ok(answer),
        Err(_) => Err((stage, i32::try_from(-answer).unwrap_or(libc::EINVAL), 0)),
    }
}

fn prepare(plan: &mut Plan) -> Result<(), Failure> {
    checked(Stage::Session, libc::SYS_setsid, [0; 5])?;
    for procs in plan.launch.cgroup.iter().chain(&plan.launch.entered) {
        write_file(Stage::Cgroup, procs, c"0".to_bytes())?;
    }
    arrange_descriptors(plan)?;
    if plan.launch.session == Session::WithTerminal {
        let request = usize::try_from(libc::TIOCSCTTY).unwrap_or_default();
        checked(Stage::Session, libc::SYS_ioctl, [0, request, 0, 0, 0])?;
    }
    set_limits(plan)?;
    set_priority(plan)?;
    let privileges = plan.launch.privileges;
    narrow_bounds(privileges)?;
    become_user(plan)?;
    drop_capabilities(privileges)?;
    checked(Stage::Exec, libc::SYS_umask, [plan.launch.umask as usize, 0, 0, 0, 0])?;
    if !plan.launch.outlives_parent {
        let death = [fd(libc::PR_SET_PDEATHSIG), fd(libc::SIGKILL), 0, 0, 0];
        checked(Stage::ParentDeath, libc::SYS_prctl, death)?;
        // The parent may have died before the request took effect: then nobody would kill us.
        if checked(Stage::ParentDeath, libc::SYS_getppid, [0; 5])? != fd(plan.parent) {
            return Err((Stage::ParentDeath, libc::ESRCH, 0));
        }
    }
    if let Some(folder) = &plan.launch.folder {
        checked(Stage::WorkingDir, libc::SYS_chdir, [at(folder.as_ptr()), 0, 0, 0, 0])?;
    }
    if !plan.numbered.is_empty() {
        let own = checked(Stage::Exec, libc::SYS_getpid, [0; 5])?;
        plan.numbered.iter_mut().for_each(|variable| write_number(variable, own));
    }
    reset_signals(plan)
}

/// The most digits that a process's number has.
pub(super) const DIGITS: usize = 10;

/// Writes a number behind the `=` of a variable, which ends in room for it and a NUL.
pub(super) fn write_number(variable: &mut [u8], mut number: usize) {
    let mut digits = [0; DIGITS];
    let mut count = 0;
    while count == 0 || (number > 0 && count < DIGITS) {
        digits[count] = b"0123456789"[number % 10];
        number /= 10;
        count += 1;
    }
    let Some(from) = variable.len().checked_sub(DIGITS + 1) else { return };
    for (place, digit) in variable[from..].iter_mut().zip(digits[..count].iter().rev()) {
        *place = *digit;
    }
}

/// A caught signal becomes the default one by exec, an ignored one would stay ignored. All are reset
/// before the mask is lifted, so that no handler of the parent's can run here.
fn reset_signals(plan: &Plan) -> Result<(), Failure> {
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

fn set_limits(plan: &Plan) -> Result<(), Failure> {
    let mut which = 0_u8;
    for limit in &plan.launch.limits {
        let pair = [limit.soft, limit.hard];
        let args = [0, limit.resource.number(), at(pair.as_ptr()), 0, 0];
        checked(Stage::Limits, libc::SYS_prlimit64, args)
            .map_err(|(stage, errno, _)| (stage, errno, which))?;
        which = which.wrapping_add(1);
    }
    Ok(())
}

fn set_priority(plan: &Plan) -> Result<(), Failure> {
    if let Some(nice) = plan.launch.nice {
        let args = [fd(0), 0, fd(nice), 0, 0];
        checked(Stage::Priority, libc::SYS_setpriority, args)?;
    }
    if let Some(adjustment) = &plan.launch.oom_score_adj {
        let told = write_file(Stage::Priority, c"/proc/self/oom_score_adj", adjustment.to_bytes());
        told.map_err(|(stage, errno, _)| (stage, errno, 1))?;
    }
    Ok(())
}

fn become_user(plan: &Plan) -> Result<(), Failure> {
    let Some(identity) = &plan.launch.identity else { return Ok(()) };
    let (uid, gid) = (identity.uid as usize, identity.gid as usize);
    let groups = [identity.groups.len(), at(identity.groups.as_ptr()), 0, 0, 0];
    checked(Stage::User, libc::SYS_setgroups, groups)?;
    checked(Stage::User, libc::SYS_setresgid, [gid, gid, gid, 0, 0])?;
    checked(Stage::User, libc::SYS_setresuid, [uid, uid, uid, 0, 0])?;
    Ok(())
}

/// Whether the capability with this number is one of `set`.
fn holds(set: u64, capability: u8) -> bool {
    set & (1_u64 << (capability & 63)) != 0
}

/// Takes capabilities out of the bounding set: nothing that is executed gives them back. That takes
/// `CAP_SETPCAP`, so it comes before the user changes. Who has no right to it reaches the same by
/// `no_new_privileges`, and only then may go on without.
fn narrow_bounds(privileges: Privileges) -> Result<(), Failure> {
    for capability in 0..64_u8 {
        if !holds(privileges.dropped, capability) {
            continue;
        }
        let number = usize::from(capability);
        let ask = [fd(libc::PR_CAPBSET_READ), number, 0, 0, 0];
        match checked(Stage::Privileges, libc::SYS_prctl, ask) {
            Ok(0) => continue,
            Ok(_) => {}
            // This kernel has no capability of that number, nor any above it.
            Err((_, libc::EINVAL, _)) => break,
            Err((stage, errno, _)) => return Err((stage, errno, capability)),
        }
        let args = [fd(libc::PR_CAPBSET_DROP), number, 0, 0, 0];
        match checked(Stage::Privileges, libc::SYS_prctl, args) {
            Ok(_) => {}
            Err((_, libc::EPERM, _)) if privileges.no_new => break,
            Err((stage, errno, _)) => return Err((stage, errno, capability)),
        }
    }
    Ok(())
}

/// The header of capget(2) and capset(2), and their two halves of effective, permitted, inheritable.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Takes capabilities out of the sets that the program begins with, once none of them is needed any
/// more, and closes the door behind it.
fn drop_capabilities(privileges: Privileges) -> Result<(), Failure> {
    if privileges.dropped != 0 {
        for capability in 0..64_u8 {
            if holds(privileges.dropped, capability) {
                let lower = fd(libc::PR_CAP_AMBIENT_LOWER);
                let args = [fd(libc::PR_CAP_AMBIENT), lower, usize::from(capability), 0, 0];
                // Before Linux 4.3 there were no ambient capabilities, and of those that a kernel does
                // not know there are none either.
                let _ = checked(Stage::Privileges, libc::SYS_prctl, args);
            }
        }
        let header = [CAPABILITY_VERSION, 0];
        let mut sets = [0_u32; 6];
        let args = [at(header.as_ptr()), at(sets.as_ptr()), 0, 0, 0];
        checked(Stage::Privileges, libc::SYS_capget, args)?;
        let [e0, p0, i0, e1, p1, i1] = sets;
        #[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
        let (low, high) = (privileges.dropped as u32, (privileges.dropped >> 32) as u32);
        sets = [e0 & !low, p0 & !low, i0 & !low, e1 & !high, p1 & !high, i1 & !high];
        let args = [at(header.as_ptr()), at(sets.as_ptr()), 0, 0, 0];
        checked(Stage::Privileges, libc::SYS_capset, args)?;
    }
    if privileges.no_new {
        let args = [fd(libc::PR_SET_NO_NEW_PRIVS), 1, 0, 0, 0];
        checked(Stage::Privileges, libc::SYS_prctl, args)?;
    }
    Ok(())
}

/// Writes a few bytes to a file that takes them at once.
fn write_file(stage: Stage, path: &std::ffi::CStr, text: &[u8]) -> Result<(), Failure> {
    let flags = fd(libc::O_WRONLY | libc::O_CLOEXEC);
    let args = [fd(libc::AT_FDCWD), at(path.as_ptr()), flags, 0, 0];
    let file = checked(stage, libc::SYS_openat, args)?;
    checked(stage, libc::SYS_write, [file, at(text.as_ptr()), text.len(), 0, 0])?;
    checked(stage, libc::SYS_close, [file, 0, 0, 0, 0])?;
    Ok(())
}

/// Puts each descriptor in its place. Those that stand on another's place step aside first.
fn arrange_descriptors(plan: &mut Plan) -> Result<(), Failure> {
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
            Err((_, libc::ENOSYS | libc::EINVAL, _)) | Ok(_) => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(())
}

/// Tries each candidate as execvp(3) does; returns only when none could be executed.
fn execute(plan: &Plan) -> Failure {
    plan.at_exec.set();
    let mut worst = (Stage::Exec, libc::ENOENT, 0);
    for path in &plan.launch.candidates {
        let args = [at(path.as_ptr()), at(plan.argv.as_ptr()), at(plan.envp.as_ptr()), 0, 0];
        let Err((_, errno, _)) = checked(Stage::Exec, libc::SYS_execve, args) else { continue };
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
