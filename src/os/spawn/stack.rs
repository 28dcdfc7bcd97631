//! What a child runs on, and the one word it leaves for its parent.

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// A child's private stack, with a page below it that faults.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) base: *mut c_void,
    /// Of the whole mapping: the page that faults, and the stack above it.
    pub(super) length: usize,
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

    pub(super) fn top(&self) -> *mut c_void {
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
    pub(super) fn take(&mut self) -> io::Result<Stack> {
        self.free.pop().map_or_else(Stack::new, Ok)
    }

    pub(super) fn give(&mut self, stack: Stack) {
        if self.free.len() < KEPT {
            self.free.push(stack);
        }
    }
}

/// Set by a child when only exec is left to do.
#[derive(Debug)]
pub(super) struct Reached {
    /// Where the child shares our memory.
    own: AtomicBool,
    /// Where it has a copy of it: a page that both see.
    page: Option<*mut c_void>,
}

impl Reached {
    /// Not reached. `apart` says that the child will not share our memory.
    pub(super) fn new(apart: bool) -> io::Result<Self> {
        if !apart {
            return Ok(Self { own: AtomicBool::new(false), page: None });
        }
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), page(), rights, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { own: AtomicBool::new(false), page: Some(page) })
    }

    fn word(&self) -> &AtomicBool {
        match self.page {
            // SAFETY: the mapping made in `new`, which lives as long as this and begins with zeroes: a
            // valid `false`. Parent and child only ever touch it as an atomic.
            Some(page) => unsafe { &*page.cast::<AtomicBool>() },
            None => &self.own,
        }
    }

    pub(super) fn set(&self) {
        self.word().store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.word().load(Ordering::Acquire)
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(mapped) = self.page {
            // SAFETY: the mapping made in `new`; the child, if there ever was one, has left it.
            unsafe { libc::munmap(mapped, page()) };
        }
    }
}
