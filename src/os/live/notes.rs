//! What the next manager has to know of runs beside the numbers of the table: one page a slot, in a file
//! of its own that is mapped like the table and touched only where there is something to say.
//!
//! A note is written into the half of its page that is not in force and then put in force by one store,
//! so that a manager killed at any instant leaves the old one or the new one. What the bytes mean is
//! not known here.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::MOST;
use crate::name::Incarnation;

const PAGE: usize = 4096;
/// The longest note, in bytes.
pub const LONGEST_NOTE: usize = 2000;
/// The file grows by as many pages.
const STEP: usize = 32;

/// In which half the note is, where there is one, and whether it has been acted on.
const NONE: u32 = 0;
const FIRST: u32 = 1;
const SECOND: u32 = 2;
const DONE: u32 = 4;

#[repr(C)]
struct Page {
    state: AtomicU32,
    halves: [Half; 2],
}

#[repr(C)]
struct Half {
    run: AtomicU64,
    length: AtomicU32,
    bytes: [AtomicU8; LONGEST_NOTE],
}

const _: () = assert!(size_of::<Page>() <= PAGE);

/// A note as the manager before left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it says.
    pub bytes: Vec<u8>,
    /// Whether all that followed from it had been done.
    pub done: bool,
}

/// The notes, mapped. They belong to one thread.
#[derive(Debug)]
pub struct Notes {
    file: File,
    base: *mut c_void,
    pages: usize,
}

// SAFETY: the mapping stays where it is until the value is dropped, and everything in it is atomic.
unsafe impl Send for Notes {}

impl Notes {
    /// Opens the notes, making the file where there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // SAFETY: a new shared mapping at an address of the kernel's choice disturbs no other memory.
        // Pages beyond the end of the file are never touched: every access goes through `pages`, and
        // nobody makes the file shorter.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MOST * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, base, pages: (length / PAGE).min(MOST) })
    }

    fn page(&self, slot: usize) -> Option<&Page> {
        // SAFETY: within the file, as just checked, at the beginning of a page, and holding only
        // atomics, for which any bytes are a value.
        (slot < self.pages).then(|| unsafe { &*self.base.byte_add(slot * PAGE).cast::<Page>() })
    }

    /// Writes down what is to be known of the run in a slot; it has not been acted on. The disk blocks
    /// are allocated before, so that no store can fail.
    pub fn write(&mut self, slot: usize, run: Incarnation, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        if bytes.len() > LONGEST_NOTE || slot >= MOST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        if slot >= self.pages {
            let pages = (slot + 1).next_multiple_of(STEP).min(MOST);
            let whole = i64::try_from(pages * PAGE).map_err(io::Error::other)?;
            nix::fcntl::posix_fallocate(&self.file, 0, whole).map_err(crate::os::io)?;
            self.pages = pages;
        }
        let Some(page) = self.page(slot) else { return Ok(()) };
        let is_first = page.state.load(Ordering::Acquire) & FIRST == FIRST;
        let (half, next) = if is_first { (1, SECOND) } else { (0, FIRST) };
        let half = &page.halves[half];
        half.run.store(run.0, Ordering::Relaxed);
        half.length.store(length, Ordering::Relaxed);
        for (cell, byte) in half.bytes.iter().zip(bytes) {
            cell.store(*byte, Ordering::Relaxed);
        }
        page.state.store(next, Ordering::Release);
        Ok(())
    }

    /// What followed from the note of a slot has been done.
    pub fn done(&self, slot: usize) {
        if let Some(page) = self.page(slot)
            && page.state.load(Ordering::Acquire) != NONE
        {
            page.state.fetch_or(DONE, Ordering::Release);
        }
    }

    /// There is nothing to be known of a slot any more.
    pub fn clear(&self, slot: usize) {
        if let Some(page) = self.page(slot) {
            page.state.store(NONE, Ordering::Release);
        }
    }

    /// What was noted of the run in a slot; `None` where that is nothing, or another run's.
    pub fn read(&self, slot: usize, run: Incarnation) -> Option<Note> {
        let page = self.page(slot)?;
        let state = page.state.load(Ordering::Acquire);
        let half = match state & !DONE {
            FIRST => &page.halves[0],
            SECOND => &page.halves[1],
            _ => return None,
        };
        if half.run.load(Ordering::Relaxed) != run.0 {
            return None;
        }
        let length = usize::try_from(half.length.load(Ordering::Relaxed)).ok()?;
        let bytes = half.bytes.get(..length)?;
        let bytes = bytes.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        Some(Note { bytes, done: state & DONE == DONE })
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `Notes::open` with this length, and no reference into it can
        // outlive the value.
        unsafe { libc::munmap(self.base, MOST * PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_for_the_next_manager_and_for_its_run_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        let mut notes = Notes::open(&path).unwrap();
        let (one, two) = (Incarnation(1), Incarnation(2));
        assert_eq!(notes.read(3, one), None);
        notes.write(3, one, b"stop").unwrap();
        let said = |notes: &Notes, run| notes.read(3, run).map(|note| (note.bytes, note.done));
        assert_eq!(said(&notes, one), Some((b"stop".to_vec(), false)));
        notes.done(3);
        notes.done(4);
        drop(notes);
        let mut notes = Notes::open(&path).unwrap();
        assert_eq!(said(&notes, one), Some((b"stop".to_vec(), true)));
        assert_eq!(said(&notes, two), None);
        notes.write(3, one, b"kill it").unwrap();
        assert_eq!(said(&notes, one), Some((b"kill it".to_vec(), false)));
        notes.write(40, two, &[7; LONGEST_NOTE]).unwrap();
        assert_eq!(notes.read(40, two).unwrap().bytes.len(), LONGEST_NOTE);
        assert!(notes.write(3, two, &[7; LONGEST_NOTE + 1]).is_err());
        assert_eq!(said(&notes, one), Some((b"kill it".to_vec(), false)), "nothing was changed");
        notes.clear(3);
        assert_eq!(said(&notes, one), None);
    }
}
