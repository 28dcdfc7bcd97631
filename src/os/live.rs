//! The table of what is alive: one slot a replica, in a file that every generation of the manager
//! and the guardian map into memory.
//!
//! It outlives any of them, being written without a system call: the kernel itself puts the number
//! of a new process into its slot before the process takes its first step (`CLONE_CHILD_SETTID`), so
//! a manager killed at any instant leaves no process that nobody knows. Only numbers and a name are
//! in it; what follows from them is decided elsewhere.

mod kept;
mod notes;

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::exit::{Errno, How, Signal, Stage, Usage};
use crate::name::{Generation, Incarnation, MAX_NAME, Realm, ReplicaId, ServiceName};
use crate::time::{Tick, Wall};

pub use kept::{Kept, Marker, Memory, PORT_IN_MESSAGE, PORT_IN_REQUEST, PORT_OWES};
pub use notes::{LONGEST_NOTE, Note, Notes};

const MAGIC: u64 = u64::from_le_bytes(*b"wharf\0\0\x03");
const HEADER: usize = 4096;
const SLOT: usize = 320;
/// Address space is reserved for this many slots; the file grows in steps of [`STEP`].
const MOST: usize = 1 << 17;
const STEP: usize = 256;

/// What a slot says of its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// The slot belongs to nobody.
    Free = 0,
    /// Its last incarnation, if it had one, has its record; another may follow.
    Between = 1,
    /// Its incarnation has been given out and has no record yet.
    Open = 2,
    /// Resting: stopped by an operator.
    Stopped = 3,
    /// Resting: done.
    Finished = 4,
    /// Resting: failed.
    Failed = 5,
    /// Resting: its time has not come yet.
    Scheduled = 6,
    /// Its incarnation has its record, and what it started, which is left alone, holds its pipes.
    Lingers = 7,
}

impl Phase {
    fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Between,
            2 => Self::Open,
            3 => Self::Stopped,
            4 => Self::Finished,
            5 => Self::Failed,
            6 => Self::Scheduled,
            7 => Self::Lingers,
            _ => Self::Free,
        }
    }
}

#[repr(C)]
struct Header {
    magic: AtomicU64,
    realm: AtomicU64,
    generation: AtomicU64,
    next_incarnation: AtomicU64,
    guardian: AtomicU64,
    boot: AtomicU64,
}

/// One replica's slot. All fields are atomic because the file is shared between processes.
#[repr(C)]
pub struct Slot {
    phase: AtomicU32,
    replica: AtomicU32,
    incarnation: AtomicU64,
    pid: AtomicI32,
    row: AtomicU32,
    started: AtomicU64,
    seen: AtomicU32,
    status: AtomicI32,
    usage: [AtomicU64; 7],
    name: [AtomicU8; MAX_NAME],
    /// Of a run that is to outlive its manager; see `live/kept.rs`.
    kept: Kept,
}

const _: () = assert!(size_of::<Slot>() <= SLOT && size_of::<Header>() <= HEADER);

/// The table, mapped.
pub struct Table {
    file: File,
    map: Arc<Mapping>,
    slots: usize,
}

/// The memory that the table is in.
struct Mapping {
    base: *mut c_void,
}

// SAFETY: the mapping stays where it is until it is dropped, and everything in it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// One slot.
    ///
    /// # Safety
    /// It must lie within the file.
    unsafe fn slot(&self, index: usize) -> &Slot {
        // SAFETY: within the file, says the caller, aligned to 64 bytes after a page, and holding
        // only atomics, for which any bytes are a value.
        unsafe { &*self.base.byte_add(HEADER + index * SLOT).cast::<Slot>() }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Table {
    /// Opens the table, making it with `realm` where there is none.
    pub fn open(path: &Path, realm: Realm) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut table = Self::map(file)?;
        if table.slots == 0 {
            table.grow()?;
        }
        let header = table.header();
        if header.magic.load(Ordering::Acquire) != MAGIC {
            header.realm.store(realm.0, Ordering::Relaxed);
            header.generation.store(0, Ordering::Relaxed);
            header.next_incarnation.store(1, Ordering::Relaxed);
            // What another program or version wrote is not about runs of ours.
            (0..table.slots).for_each(|index| table.slot(index).set_phase(Phase::Free));
            header.magic.store(MAGIC, Ordering::Release);
        }
        Ok(table)
    }

    /// Opens the table that a manager has made; `None` where none has. For the guardian, which
    /// knows no realm and must not make one up.
    pub fn existing(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let table = Self::map(file)?;
        let made = table.slots > 0 && table.header().magic.load(Ordering::Acquire) == MAGIC;
        Ok(made.then_some(table))
    }

    fn map(file: File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // No more than is mapped, whatever somebody put there.
        let slots = (length.saturating_sub(HEADER) / SLOT).min(MOST);
        // SAFETY: a new shared mapping at an address of the kernel's choice disturbs no other
        // memory. Pages beyond the end of the file are reserved but never touched: every access goes
        // through `slots`, and the file is never made shorter.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                HEADER + MOST * SLOT,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, map: Arc::new(Mapping { base }), slots })
    }

    /// Adds slots. The disk blocks are allocated now, so that no later store can fail.
    fn grow(&mut self) -> io::Result<()> {
        let slots = self.slots + STEP;
        if slots > MOST {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let length = i64::try_from(HEADER + slots * SLOT).map_err(io::Error::other)?;
        nix::fcntl::posix_fallocate(&self.file, 0, length).map_err(super::io)?;
        self.slots = slots;
        Ok(())
    }

    fn header(&self) -> &Header {
        // SAFETY: the first page of the mapping is within the file (grow came first), is aligned to
        // a page and holds only atomics, for which any bytes are a value.
        unsafe { &*self.map.base.cast::<Header>() }
    }

    /// The realm this table was made with.
    pub fn realm(&self) -> Realm {
        Realm(self.header().realm.load(Ordering::Relaxed))
    }

    /// Counts a new life of the manager.
    pub fn next_generation(&self) -> Generation {
        Generation(self.header().generation.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Notes which guardian this generation runs under (its number and start time, mixed) and tells
    /// whether the last one ran under the same.
    pub fn same_guardian(&self, guardian: u64) -> bool {
        self.header().guardian.swap(guardian, Ordering::Relaxed) == guardian
    }

    /// Notes which boot this is (a mix of its random number) and tells whether the last generation
    /// ran in the same: only then does a process's number and start time mean anything.
    pub fn same_boot(&self, boot: u64) -> bool {
        self.header().boot.swap(boot, Ordering::Relaxed) == boot
    }

    /// The first incarnation that has not been given out.
    pub fn next_incarnation(&self) -> Incarnation {
        Incarnation(self.header().next_incarnation.load(Ordering::Relaxed))
    }

    /// Remembers that every incarnation below `next` has been given out. It never goes back.
    pub fn set_next_incarnation(&self, next: Incarnation) {
        self.header().next_incarnation.fetch_max(next.0, Ordering::Relaxed);
    }

    /// One slot; `index` as returned by [`Table::claim`].
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn slot(&self, index: usize) -> &Slot {
        assert!(index < self.slots, "slot {index} of {}", self.slots);
        // SAFETY: the slot lies within the file, as just checked.
        unsafe { self.map.slot(index) }
    }

    /// The slots in use.
    pub fn used(&self) -> impl Iterator<Item = (usize, &Slot)> {
        (0..self.slots)
            .map(|index| (index, self.slot(index)))
            .filter(|(_, slot)| slot.phase() != Phase::Free)
    }

    /// Takes a free slot for a replica, which then says `phase` (an open one without a process is
    /// nobody's run); `ENOSPC` when the table cannot grow.
    pub fn claim(&mut self, replica: &ReplicaId, phase: Phase, from: usize) -> io::Result<usize> {
        let free = (from..self.slots).find(|index| self.slot(*index).phase() == Phase::Free);
        let index = if let Some(index) = free {
            index
        } else {
            let index = self.slots;
            self.grow()?;
            index
        };
        let slot = self.slot(index);
        slot.incarnation.store(0, Ordering::Relaxed);
        slot.row.store(0, Ordering::Relaxed);
        slot.started.store(0, Ordering::Relaxed);
        slot.replica.store(replica.replica, Ordering::Relaxed);
        let name = replica.service.as_str().as_bytes();
        for (at, cell) in slot.name.iter().enumerate() {
            cell.store(name.get(at).copied().unwrap_or(0), Ordering::Relaxed);
        }
        slot.pid.store(0, Ordering::Relaxed);
        slot.set_phase(phase);
        Ok(index)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `Table::map` with this length, and no reference into it can
        // outlive it.
        unsafe { libc::munmap(self.base, HEADER + MOST * SLOT) };
    }
}

impl Slot {
    /// What the slot says.
    pub fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Ordering::Acquire))
    }

    /// Says something else.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// Whose slot it is; `None` for one that was never claimed.
    pub fn replica(&self) -> Option<ReplicaId> {
        let name: Vec<u8> = self.name.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let service = ServiceName::new(std::str::from_utf8(name).ok()?).ok()?;
        Some(ReplicaId { service, replica: self.replica.load(Ordering::Relaxed) })
    }

    /// Opens a new incarnation: from here on it needs a record.
    pub fn open(&self, incarnation: Incarnation, now: Wall) {
        self.pid.store(0, Ordering::Relaxed);
        self.seen.store(0, Ordering::Relaxed);
        self.kept.clear();
        self.started.store(now.0, Ordering::Relaxed);
        self.incarnation.store(incarnation.0, Ordering::Relaxed);
        self.set_phase(Phase::Open);
    }

    /// The last incarnation given out; 0 for none.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::Relaxed))
    }

    /// The process of that incarnation, as the kernel wrote it; `None` before there was one.
    pub fn pid(&self) -> Option<i32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid > 0)
    }

    /// When the incarnation was opened.
    pub fn started(&self) -> Wall {
        Wall(self.started.load(Ordering::Relaxed))
    }

    /// How many failures in a row the replica has had.
    pub fn row(&self) -> u32 {
        self.row.load(Ordering::Relaxed)
    }

    /// Of a slot that tells how a replica rests: when it is started again, where that is a matter of time.
    pub fn due(&self) -> Option<Tick> {
        let at = Tick(self.started.load(Ordering::Relaxed));
        Some(at).filter(|at| at.0 > 0 && self.phase() == Phase::Between)
    }

    /// Remembers when it is started again.
    pub fn set_due(&self, due: Option<Tick>) {
        self.started.store(due.map_or(0, |at| at.0), Ordering::Relaxed);
    }

    /// Remembers the failures in a row.
    pub fn set_row(&self, row: u32) {
        self.row.store(row, Ordering::Relaxed);
    }

    /// Keeps what was seen of the end of this slot's process.
    pub fn keep_end(&self, how: How, usage: &Usage) {
        let (kind, status) = match how {
            How::Exited(code) => (1, code),
            How::Signaled(signal) => (2, signal.number()),
            How::Dumped(signal) => (3, signal.number()),
            // The stage stands in the next byte.
            How::NotStarted(stage, errno) => (4 | u32::from(stage as u8) << 8, errno.0),
            How::Unseen => (0, 0),
        };
        let micros = |seconds: f64| -> u64 {
            u64::try_from(
                std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_micros(),
            )
            .unwrap_or(u64::MAX)
        };
        let numbers = [
            micros(usage.cpu_user_s),
            micros(usage.cpu_system_s),
            usage.max_rss_bytes,
            usage.minor_faults,
            usage.major_faults,
            usage.ctx_vol,
            usage.ctx_invol,
        ];
        for (cell, number) in self.usage.iter().zip(numbers) {
            cell.store(number, Ordering::Relaxed);
        }
        self.status.store(status, Ordering::Relaxed);
        self.seen.store(kind, Ordering::Release);
    }

    /// What guardian or manager saw of the end; `None` when neither saw anything.
    pub fn kept_end(&self) -> Option<(How, Usage)> {
        let kind = self.seen.load(Ordering::Acquire);
        let status = self.status.load(Ordering::Relaxed);
        let stage = u8::try_from(kind >> 8).ok().and_then(Stage::from_number);
        let how = match (kind & 0xff, Signal::new(status)) {
            (1, _) => How::Exited(status),
            (4, _) => How::NotStarted(stage?, Errno(status)),
            (2, Ok(signal)) => How::Signaled(signal),
            (3, Ok(signal)) => How::Dumped(signal),
            _ => return None,
        };
        let number = |at: usize| self.usage[at].load(Ordering::Relaxed);
        let seconds = |at: usize| std::time::Duration::from_micros(number(at)).as_secs_f64();
        let usage = Usage {
            cpu_user_s: seconds(0),
            cpu_system_s: seconds(1),
            max_rss_bytes: number(2),
            minor_faults: number(3),
            major_faults: number(4),
            ctx_vol: number(5),
            ctx_invol: number(6),
        };
        Some((how, usage))
    }

    /// What it says of a run that is to outlive its manager.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Where the kernel is to write the number of this slot's next process. The table must outlive
    /// the process's start; the manager's lives as long as the manager.
    pub fn pid_cell(&self) -> PidCell {
        PidCell(self.pid.as_ptr())
    }
}

/// Where the kernel writes the number of a new process.
#[derive(Debug, Clone, Copy)]
pub struct PidCell(pub(super) *mut i32);

// SAFETY: it is only handed to the kernel, which stores one aligned number through it.
unsafe impl Send for PidCell {}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str) -> ReplicaId {
        ReplicaId { service: ServiceName::new(name).unwrap(), replica: 1 }
    }

    #[test]
    fn what_one_generation_writes_the_next_one_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        let mut first = Table::open(&path, Realm(7)).unwrap();
        assert_eq!(first.next_generation(), Generation(1));
        let index = first.claim(&replica("web"), Phase::Between, 0).unwrap();
        first.slot(index).open(Incarnation(5), Wall(9));
        first.set_next_incarnation(Incarnation(6));
        first.set_next_incarnation(Incarnation(3));
        let end = (How::Exited(7), Usage { minor_faults: 3, cpu_user_s: 0.5, ..Usage::default() });
        first.slot(index).keep_end(end.0, &end.1);
        drop(first);

        let second = Table::open(&path, Realm(8)).unwrap();
        assert_eq!(second.realm(), Realm(7), "a realm is made once");
        assert_eq!(second.next_generation(), Generation(2));
        assert_eq!(second.next_incarnation(), Incarnation(6));
        let (_, slot) = second.used().next().unwrap();
        assert_eq!(slot.replica(), Some(replica("web")));
        assert_eq!((slot.phase(), slot.incarnation()), (Phase::Open, Incarnation(5)));
        assert_eq!(slot.kept_end(), Some(end));
        assert_eq!(slot.pid(), None);
    }

    #[test]
    fn every_end_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::open(&folder.path().join("live"), Realm(1)).unwrap();
        let index = table.claim(&replica("web"), Phase::Between, 0).unwrap();
        let slot = table.slot(index);
        for how in [
            How::Exited(0),
            How::Exited(255),
            How::Signaled(Signal::KILL),
            How::Dumped(Signal::new(libc::SIGSEGV).unwrap()),
            How::NotStarted(Stage::Clone, Errno(libc::EAGAIN)),
            How::NotStarted(Stage::Exec, Errno(libc::ENOENT)),
        ] {
            slot.keep_end(how, &Usage::default());
            assert_eq!(slot.kept_end().unwrap().0, how);
            slot.open(Incarnation(1), Wall(1));
            assert_eq!(slot.kept_end(), None);
        }
    }

    #[test]
    fn who_knows_no_realm_makes_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        assert!(Table::existing(&path).unwrap().is_none());
        std::fs::write(&path, "x").unwrap();
        assert!(Table::existing(&path).unwrap().is_none());
        assert_eq!(Table::open(&path, Realm(7)).unwrap().realm(), Realm(7));
        assert_eq!(Table::existing(&path).unwrap().unwrap().realm(), Realm(7));
    }

    #[test]
    fn a_file_of_somebody_elses_is_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        std::fs::write(&path, vec![2; HEADER + 3 * SLOT]).unwrap();
        let table = Table::open(&path, Realm(7)).unwrap();
        assert_eq!((table.realm(), table.used().count()), (Realm(7), 0));
        drop(table);
        // Larger than all that is ever mapped.
        let length = u64::try_from(HEADER + (MOST + 2) * SLOT).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert_eq!(Table::open(&path, Realm(7)).unwrap().used().count(), 0);
    }

    #[test]
    fn the_table_grows_and_slots_are_reused() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::open(&folder.path().join("live"), Realm(1)).unwrap();
        for number in 0..STEP + 10 {
            assert_eq!(
                table.claim(&replica(&format!("s{number}")), Phase::Between, 0).unwrap(),
                number
            );
        }
        table.slot(3).set_phase(Phase::Free);
        assert_eq!(table.claim(&replica("again"), Phase::Between, 0).unwrap(), 3);
        assert_eq!(table.used().count(), STEP + 10);
    }
}
