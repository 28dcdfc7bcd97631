//! The last bytes that were read of kept programs, in a file that is mapped into memory: what a manager
//! had read and not yet written to a log when it was killed, its successor finds here.
//!
//! A ring of records, each with whose bytes they are and where in that stream they begin. A read goes
//! straight into the ring. Since a manager may be killed between the kernel's copying and our counting,
//! the place is marked beforehand, and a mark that is gone says that the bytes are there. Nothing here
//! knows what the bytes are for, and no other file is touched.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fds;

const MAGIC: u64 = u64::from_le_bytes(*b"wharfspl");
const HEADER: usize = 4096;
/// The size of the ring in bytes: what may wait for the disk, and as much again for unfinished lines.
const RING: usize = 6 << 20;
const RECORD: usize = 24;
/// The mark that stands where bytes will be. A read of fewer than [`CERTAIN`] bytes could write the same
/// by chance.
const MARK: [u8; 16] = [
    0xf5, 0x9e, 0x02, 0xc1, 0x7b, 0xfe, 0x33, 0x0d, 0xff, 0x91, 0x5a, 0xc0, 0x1e, 0xf8, 0x66, 0xbd,
];
/// From this length on a mark that is still there says that nothing was read.
const CERTAIN: usize = 8;
/// No ring ever comes this far; a larger number is not ours.
const SOUND: u64 = 1 << 60;
/// The owner of what only fills the ring to its end.
const NOBODY: u64 = u64::MAX;

#[repr(C)]
struct Header {
    magic: AtomicU64,
    /// Where the next record begins, counted without wrapping.
    head: AtomicU64,
    /// Where the oldest record begins.
    tail: AtomicU64,
    /// One more than where the record begins into which is being read; 0 for none.
    reading: AtomicU64,
}

/// The ring, mapped. It belongs to one thread.
#[derive(Debug)]
pub struct Spool {
    _file: File,
    base: *mut c_void,
}

// SAFETY: the mapping stays where it is until the value is dropped, which alone uses it.
unsafe impl Send for Spool {}

/// Bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose they are.
    pub owner: u64,
    /// Where in the stream they begin.
    pub at: u64,
    /// They themselves.
    pub bytes: Vec<u8>,
}

/// What an earlier life of the manager left in the ring.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// In the order in which it was read.
    pub pieces: Vec<Piece>,
    /// So many bytes, fewer than eight, of which nobody knows whether they were read.
    pub uncertain: Option<(u64, u64, usize)>,
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes came.
    Bytes(usize),
    /// There are none now.
    Later,
    /// There never will be any.
    End,
}

impl Spool {
    /// Opens the ring, making it where there is none. Its disk blocks are allocated at once, so that no
    /// later store can fail.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = HEADER + RING;
        if file.metadata()?.len() != length as u64 {
            file.set_len(0)?;
            let whole = i64::try_from(length).map_err(io::Error::other)?;
            nix::fcntl::posix_fallocate(&file, 0, whole).map_err(super::io)?;
        }
        // SAFETY: a new shared mapping at an address of the kernel's choice disturbs no other memory;
        // all of it is within the file, which nobody makes shorter.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let spool = Self { _file: file, base };
        let header = spool.header();
        let (tail, head) =
            (header.tail.load(Ordering::Acquire), header.head.load(Ordering::Acquire));
        let sound = head <= SOUND && tail <= head && head - tail <= RING as u64 && tail % 8 == 0;
        if header.magic.load(Ordering::Acquire) != MAGIC || !sound {
            spool.clear();
            spool.header().magic.store(MAGIC, Ordering::Release);
        }
        Ok(spool)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let header = self.header();
        header.reading.store(0, Ordering::Release);
        header.tail.store(0, Ordering::Release);
        header.head.store(0, Ordering::Release);
    }

    fn header(&self) -> &Header {
        // SAFETY: the first page is mapped, aligned to a page and holds only atomics, for which any
        // bytes are a value.
        unsafe { &*self.base.cast::<Header>() }
    }

    /// Where in memory the byte with this number is.
    fn place(&self, at: u64) -> *mut u8 {
        let inside = usize::try_from(at % RING as u64).unwrap_or(0);
        // SAFETY: below the length of the mapping.
        unsafe { self.base.byte_add(HEADER + inside).cast::<u8>() }
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        // SAFETY: records begin at multiples of eight and do not reach over the end of the ring, whose
        // length is one; only this thread writes.
        unsafe { std::ptr::copy_nonoverlapping(self.place(at), bytes.as_mut_ptr(), N) };
        bytes
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // SAFETY: as in `get`; the caller has made sure that the record has this much room.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.place(at), bytes.len()) };
    }

    /// Whether these bytes stand there.
    fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        // SAFETY: the caller asks for no more than the record has room for.
        unsafe { std::slice::from_raw_parts(self.place(at), bytes.len()) == bytes }
    }

    /// Owner, place in the stream and length of the record that begins there.
    fn record(&self, at: u64) -> (u64, u64, usize) {
        let number = |offset: u64| u64::from_le_bytes(self.get(at + offset));
        let length = usize::try_from(number(16)).unwrap_or(RING).min(RING);
        (number(0), number(8), length)
    }

    fn set_record(&self, at: u64, owner: u64, from: u64, length: usize) {
        self.put(at, &owner.to_le_bytes());
        self.put(at + 8, &from.to_le_bytes());
        self.put(at + 16, &(length as u64).to_le_bytes());
    }

    /// How much of the ring a record takes.
    fn span(length: usize) -> u64 {
        (RECORD + length.next_multiple_of(8)) as u64
    }

    /// Makes room for a record of this length and returns where it begins. The oldest go.
    fn make_room(&self, length: usize) -> u64 {
        let header = self.header();
        let mut head = header.head.load(Ordering::Relaxed);
        let needed = Self::span(length);
        let left = RING as u64 - head % RING as u64;
        let filler = if left < needed { left } else { 0 };
        let mut tail = header.tail.load(Ordering::Relaxed);
        while head + filler + needed - tail > RING as u64 {
            // Fewer than a record's bytes at the end of the ring hold none.
            let rest = RING as u64 - tail % RING as u64;
            tail += if rest < RECORD as u64 { rest } else { Self::span(self.record(tail).2) };
        }
        header.tail.store(tail, Ordering::Release);
        if filler > 0 {
            if filler >= RECORD as u64 {
                let length = usize::try_from(filler).unwrap_or(0) - RECORD;
                self.set_record(head, NOBODY, 0, length);
            }
            head += filler;
            header.head.store(head, Ordering::Release);
        }
        head
    }

    /// Reads a pipe of which nobody else reads; what comes is kept here as bytes of `owner` from `at` on,
    /// and copied to `buffer`.
    pub fn read(
        &mut self,
        pipe: BorrowedFd<'_>,
        owner: u64,
        at: u64,
        buffer: &mut [u8],
    ) -> io::Result<Read> {
        let wanted = fds::unread(pipe)?.min(buffer.len());
        if wanted == 0 {
            return Ok(if fds::hung_up(pipe) { Read::End } else { Read::Later });
        }
        let start = self.make_room(wanted);
        let data = start + RECORD as u64;
        self.set_record(start, owner, at, wanted);
        self.put(data, &MARK[..wanted.min(MARK.len())]);
        let header = self.header();
        header.reading.store(start + 1, Ordering::Release);
        // SAFETY: `make_room` made this many bytes free, all of them mapped; only this thread uses them.
        let room = unsafe { std::slice::from_raw_parts_mut(self.place(data), wanted) };
        let answer = fds::read(pipe, room);
        if let Ok(count) = &answer {
            self.set_record(start, owner, at, *count);
            header.head.store(start + Self::span(*count), Ordering::Release);
            buffer[..*count].copy_from_slice(&room[..*count]);
        }
        header.reading.store(0, Ordering::Release);
        match answer {
            Ok(0) => Ok(Read::End),
            Ok(count) => Ok(Read::Bytes(count)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Read::Later)
            }
            Err(error) => Err(error),
        }
    }

    /// What an earlier life left. A read that it was killed in is finished here.
    pub fn left(&mut self) -> Left {
        let mut left = Left::default();
        let header = self.header();
        let mut head = header.head.load(Ordering::Acquire);
        let reading = header.reading.load(Ordering::Acquire);
        if let Some(start) = reading.checked_sub(1).filter(|start| *start == head) {
            let (owner, at, length) = self.record(start);
            let there = length.min(MARK.len());
            if !self.holds(start + RECORD as u64, &MARK[..there]) {
                head += Self::span(length);
                header.head.store(head, Ordering::Release);
            } else if length < CERTAIN {
                left.uncertain = Some((owner, at, length));
            }
        }
        header.reading.store(0, Ordering::Release);
        let mut place = header.tail.load(Ordering::Acquire);
        while place < head {
            let rest = RING as u64 - place % RING as u64;
            if rest < RECORD as u64 {
                place += rest;
                continue;
            }
            let (owner, at, length) = self.record(place);
            if Self::span(length) > rest {
                // Not what was written here: a damaged file holds nothing more.
                break;
            }
            if owner != NOBODY {
                let mut bytes = vec![0; length];
                let data = self.place(place + RECORD as u64);
                // SAFETY: the record does not reach over the end of the ring, as just checked.
                unsafe { std::ptr::copy_nonoverlapping(data, bytes.as_mut_ptr(), length) };
                left.pieces.push(Piece { owner, at, bytes });
            }
            place += Self::span(length);
        }
        left
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` with this length, and no reference into it outlives it.
        unsafe { libc::munmap(self.base, HEADER + RING) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd;

    use super::*;

    fn opened() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    #[test]
    fn the_next_life_finds_what_was_read_last_wherever_the_ring_wrapped() {
        let (folder, mut spool) = opened();
        let pipe = fds::pipe().unwrap();
        let mut writer = File::from(pipe.write);
        let (mut all, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
        let mut at = 0;
        for round in 0_u32..1200 {
            let length = 1 + (round * 7919) % 20_011;
            let bytes: Vec<u8> = (0..length).map(|n| (n ^ round).to_le_bytes()[0]).collect();
            writer.write_all(&bytes).unwrap();
            let read = spool.read(pipe.read.as_fd(), 7, at, &mut buffer).unwrap();
            assert_eq!(read, Read::Bytes(bytes.len()));
            assert_eq!(buffer[..bytes.len()], bytes);
            all.extend_from_slice(&bytes);
            at += bytes.len() as u64;
        }
        assert_eq!(spool.read(pipe.read.as_fd(), 7, at, &mut buffer).unwrap(), Read::Later);
        drop(writer);
        assert_eq!(spool.read(pipe.read.as_fd(), 7, at, &mut buffer).unwrap(), Read::End);
        drop(spool);
        let mut spool = Spool::open(&folder.path().join("spool")).unwrap();
        let left = spool.left();
        assert_eq!(left.uncertain, None);
        let first = left.pieces[0].at;
        assert!(at - first > 5 << 20, "most of the ring is used");
        let mut next = first;
        for piece in &left.pieces {
            assert_eq!((piece.owner, piece.at), (7, next));
            next += piece.bytes.len() as u64;
        }
        assert_eq!(next, at);
        let told: Vec<u8> = left.pieces.into_iter().flat_map(|piece| piece.bytes).collect();
        assert!(told == all[usize::try_from(first).unwrap()..]);
        spool.clear();
        assert_eq!(spool.left(), Left::default());
    }

    /// Leaves the ring as a manager does that is killed in the middle of a read of `wanted` bytes.
    fn killed(spool: &Spool, wanted: usize, came: Option<&[u8]>) {
        let start = spool.make_room(wanted);
        spool.set_record(start, 3, 100, wanted);
        spool.put(start + RECORD as u64, &MARK[..wanted.min(MARK.len())]);
        spool.header().reading.store(start + 1, Ordering::Release);
        if let Some(bytes) = came {
            spool.put(start + RECORD as u64, bytes);
        }
    }

    #[test]
    fn a_read_that_was_cut_short_by_death_is_finished_or_never_was() {
        for (length, came, found, unsure) in [
            (12, true, true, false),
            (12, false, false, false),
            (3, true, true, false),
            (3, false, false, true),
        ] {
            let (_folder, mut spool) = opened();
            let bytes = vec![b'x'; length];
            killed(&spool, length, came.then_some(&bytes[..]));
            let left = spool.left();
            let piece = Piece { owner: 3, at: 100, bytes };
            assert_eq!(
                left.pieces,
                if found { vec![piece] } else { Vec::new() },
                "{length} {came}"
            );
            assert_eq!(left.uncertain, unsure.then_some((3, 100, length)), "{length} {came}");
            assert!(spool.left().uncertain.is_none(), "it is told once");
        }
    }

    #[test]
    fn a_damaged_ring_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut bytes = vec![0xff; HEADER + RING];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[16..24].copy_from_slice(&0_u64.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Spool::open(&path).unwrap().left(), Left::default());
    }
}
