//! System calls without the C library, for a child that still shares its parent's memory.
//!
//! The C library's wrappers write `errno`, which lives in the parent's thread and would be a data
//! race there. These return the kernel's own answer: a negative number is an error.

use std::arch::asm;
use std::ffi::{c_int, c_void};

/// Makes a system call with up to five arguments and gives the kernel's answer.
///
/// # Safety
/// The arguments must be valid for the call, as its manual page says.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn call(number: libc::c_long, args: [usize; 5]) -> i64 {
    let answer: i64;
    // SAFETY: the x86-64 convention of syscall(2): number in rax, arguments in rdi rsi rdx r10 r8,
    // rcx and r11 are destroyed. The validity of the arguments is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// Makes a system call with up to five arguments and gives the kernel's answer.
///
/// # Safety
/// The arguments must be valid for the call, as its manual page says.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn call(number: libc::c_long, args: [usize; 5]) -> i64 {
    let answer: i64;
    // SAFETY: the arm64 convention of syscall(2): number in x8, arguments in x0 to x4, answer in
    // x0. The validity of the arguments is the caller's promise.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => answer,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            options(nostack),
        );
    }
    answer
}

/// Writes `words` to a descriptor and ends the process with code 127. Between the two nothing but
/// registers is touched: whoever reads the words may reuse this stack at once.
///
/// # Safety
/// As for write(2).
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn last_words(fd: usize, words: &[u8]) -> ! {
    // SAFETY: see `call`; exit_group(2) does not return.
    unsafe {
        asm!(
            "syscall",
            "mov eax, {exit}",
            "mov edi, 127",
            "syscall",
            "ud2",
            exit = const libc::SYS_exit_group,
            in("rax") libc::SYS_write,
            in("rdi") fd,
            in("rsi") words.as_ptr(),
            in("rdx") words.len(),
            options(noreturn, nostack),
        );
    }
}

/// Writes `words` to a descriptor and ends the process with code 127. Between the two nothing but
/// registers is touched: whoever reads the words may reuse this stack at once.
///
/// # Safety
/// As for write(2).
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn last_words(fd: usize, words: &[u8]) -> ! {
    // SAFETY: see `call`; exit_group(2) does not return.
    unsafe {
        asm!(
            "svc 0",
            "mov x8, {exit}",
            "mov x0, 127",
            "svc 0",
            "brk 1",
            exit = const libc::SYS_exit_group,
            in("x8") libc::SYS_write,
            in("x0") fd,
            in("x1") words.as_ptr(),
            in("x2") words.len(),
            options(noreturn, nostack),
        );
    }
}

/// Makes a process with clone3(2), which the C library does not offer. Parent: the kernel's answer.
/// Child: `entry(argument)` on the stack that `args` names; it must never return.
///
/// # Safety
/// `args` must be valid for the call and name a stack that is the child's alone, with a top aligned
/// to 16 bytes; `entry` must do with `argument` only what a child that shares this memory may do.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn clone3(
    args: &libc::clone_args,
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> i64 {
    let answer: i64;
    // SAFETY: as in `call`. The child begins after the instruction with a copy of all registers but
    // rax and rsp, so it finds entry and argument in those that a system call keeps, and uses nothing
    // of this frame. A zero frame pointer ends backtraces; the call aligns the stack as any would.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => answer,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// Makes a process with clone3(2), which the C library does not offer. Parent: the kernel's answer.
/// Child: `entry(argument)` on the stack that `args` names; it must never return.
///
/// # Safety
/// `args` must be valid for the call and name a stack that is the child's alone, with a top aligned
/// to 16 bytes; `entry` must do with `argument` only what a child that shares this memory may do.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn clone3(
    args: &libc::clone_args,
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> i64 {
    let answer: i64;
    // SAFETY: as in `call`. The child begins after the instruction with a copy of all registers but
    // x0 and sp, so it finds entry and argument where they were put, and uses nothing of this frame.
    // A zero frame pointer ends backtraces.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => answer,
            in("x1") size_of::<libc::clone_args>(),
            in("x20") argument,
            in("x21") entry,
            options(nostack),
        );
    }
    answer
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("wharf knows the system call convention of x86-64 and arm64 only");
