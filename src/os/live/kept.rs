//! What a slot says of a run that is to outlive its manager: enough for the next one to go on with it
//! as if nothing had happened.
//!
//! All of it is written without a system call at the moment it becomes true, so that a manager killed
//! at any instant leaves the truth, or a pair of numbers between which the truth lies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Mapping, Table};
use crate::name::Incarnation;
use crate::time::Tick;

/// Part of a message of its port had been read.
pub const PORT_IN_MESSAGE: u32 = 1;
/// Part of a message to its port had been written.
pub const PORT_IN_REQUEST: u32 = 2;
/// Its port owed replies.
pub const PORT_OWES: u32 = 4;

/// The fields; zero where nothing is known.
#[repr(C)]
#[derive(Debug)]
pub struct Kept {
    ran: AtomicU64,
    ready: AtomicU64,
    born: AtomicU64,
    configuration: AtomicU64,
    /// Of standard output and standard error: how far the program's bytes are in the log file. The
    /// last bit says that the last line there is a piece which goes on.
    logged: [AtomicU64; 2],
    /// How far they will be once the write that is under way is done.
    writing: [AtomicU64; 2],
    port: AtomicU32,
    keep: AtomicU32,
    contents: AtomicU64,
    /// What the kernel had counted of its memory when it was ordered: kills, and hits of the limit; then
    /// the kills that have been told. Each one more than it is.
    memory: [AtomicU64; 3],
}

/// What the kernel counts of a run's memory, as far as the next manager has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// How many it had killed in the run's group when the run was ordered.
    pub kills_before: u64,
    /// How often the group had been at its limit by then.
    pub hits_before: u64,
    /// Kills up to this count have been told.
    pub told: u64,
}

impl Kept {
    pub(super) fn clear(&self) {
        self.keep.store(0, Ordering::Relaxed);
        self.port.store(0, Ordering::Relaxed);
        let numbers = [&self.ran, &self.ready, &self.born, &self.configuration, &self.contents];
        let counts = self.logged.iter().chain(&self.writing).chain(&self.memory);
        for cell in numbers.into_iter().chain(counts) {
            cell.store(0, Ordering::Relaxed);
        }
    }

    /// The run is to outlive its manager; `configuration` is the fingerprint of what it is started with.
    pub fn keep(&self, configuration: u64) {
        self.configuration.store(configuration, Ordering::Relaxed);
        self.keep.store(1, Ordering::Release);
    }

    /// The fingerprint of what it was started with; `None` for a run that dies with its manager.
    pub fn configuration(&self) -> Option<u64> {
        let keep = self.keep.load(Ordering::Acquire) == 1;
        keep.then(|| self.configuration.load(Ordering::Relaxed))
    }

    /// What its program has read, or has been told to read: the number of what stood in its files.
    pub fn set_contents(&self, number: u64) {
        self.contents.store(number, Ordering::Release);
    }

    /// The number of what stood in its files; `None` where an earlier version of wharf started it.
    pub fn contents(&self) -> Option<u64> {
        Some(self.contents.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// Its process has this start time, in clock ticks since boot.
    pub fn set_born(&self, start: u64) {
        self.born.store(start, Ordering::Relaxed);
    }

    /// The start time of its process; `None` before it was looked at.
    pub fn born(&self) -> Option<u64> {
        Some(self.born.load(Ordering::Relaxed)).filter(|start| *start > 0)
    }

    /// Its program was seen to run: from here on a kept run outlives its manager.
    pub fn set_ran(&self, at: Tick) {
        self.ran.store(at.0.max(1), Ordering::Release);
    }

    /// When its program was seen to run; `None` before, and for a run that is not kept.
    pub fn ran(&self) -> Option<Tick> {
        self.configuration()?;
        self.executed()
    }

    /// The same of any run.
    pub fn executed(&self) -> Option<Tick> {
        Some(Tick(self.ran.load(Ordering::Acquire))).filter(|at| at.0 > 0)
    }

    /// It is ready.
    pub fn set_ready(&self, at: Tick) {
        self.ready.store(at.0.max(1), Ordering::Relaxed);
    }

    /// When it became ready.
    pub fn ready(&self) -> Option<Tick> {
        Some(Tick(self.ready.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// What the kernel had counted of its memory.
    pub fn set_memory(&self, memory: Memory) {
        let numbers = [memory.kills_before, memory.hits_before, memory.told];
        for (cell, number) in self.memory.iter().zip(numbers) {
            cell.store(number.saturating_add(1), Ordering::Release);
        }
    }

    /// What the kernel had counted of its memory; `None` where that is not limited, or not counted.
    pub fn memory(&self) -> Option<Memory> {
        let number = |at: usize| self.memory[at].load(Ordering::Acquire).checked_sub(1);
        Some(Memory { kills_before: number(0)?, hits_before: number(1)?, told: number(2)? })
    }

    /// Where the conversation with its port stands: `PORT_…`, added up.
    pub fn set_port(&self, standing: u32) {
        self.port.store(standing, Ordering::Release);
    }

    /// Where the conversation with its port stood.
    pub fn port(&self) -> u32 {
        self.port.load(Ordering::Acquire)
    }

    /// How far the bytes of standard output (0) or standard error (1) are in the log file, and whether
    /// the last line there is a piece.
    pub fn logged(&self, stream: usize) -> (u64, bool) {
        let value = self.logged[stream].load(Ordering::Acquire);
        (value >> 1, value & 1 == 1)
    }

    /// How far they may be, since the manager died while it wrote.
    pub fn writing(&self, stream: usize) -> u64 {
        self.writing[stream].load(Ordering::Acquire).max(self.logged(stream).0)
    }

    fn begin(&self, upto: [Option<(u64, bool)>; 2]) {
        for (cell, upto) in self.writing.iter().zip(upto) {
            if let Some((bytes, _)) = upto {
                // An earlier manager may have come further, and nobody knows how far.
                cell.fetch_max(bytes, Ordering::AcqRel);
            }
        }
    }

    fn done(&self, upto: [Option<(u64, bool)>; 2]) {
        for (cell, upto) in self.logged.iter().zip(upto) {
            if let Some((bytes, open)) = upto {
                cell.store(bytes << 1 | u64::from(open), Ordering::Release);
            }
        }
    }
}

/// Notes for a run, from another thread, how far its output is in the log file.
#[derive(Clone)]
pub struct Marker {
    map: Arc<Mapping>,
    slot: usize,
    incarnation: Incarnation,
    /// Of standard output and standard error: this far, and whether the last line is a piece.
    upto: [Option<(u64, bool)>; 2],
}

impl std::fmt::Debug for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { incarnation, upto, .. } = self;
        f.debug_struct("Marker")
            .field("incarnation", incarnation)
            .field("upto", upto)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// What notes how far the output of the run in this slot is in the log file.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn marker(&self, slot: usize, upto: [Option<(u64, bool)>; 2]) -> Marker {
        let incarnation = self.slot(slot).incarnation();
        Marker { map: Arc::clone(&self.map), slot, incarnation, upto }
    }
}

impl Marker {
    /// The write begins.
    pub fn begin(&self) {
        self.told(|kept| kept.begin(self.upto));
    }

    /// The write is done.
    pub fn done(&self) {
        self.told(|kept| kept.done(self.upto));
    }

    fn told(&self, tell: impl FnOnce(&Kept)) {
        // SAFETY: `Table::marker` checked that the slot lies within the file, which never shrinks.
        let slot = unsafe { self.map.slot(self.slot) };
        // A slot that another run has by now is none of ours.
        if slot.incarnation() == self.incarnation {
            tell(&slot.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;
    use crate::name::{Realm, ReplicaId, ServiceName};
    use crate::time::Wall;

    #[test]
    fn what_is_known_of_a_kept_run_is_there_for_the_next_manager() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        let mut table = Table::open(&path, Realm(1)).unwrap();
        let id = ReplicaId { service: ServiceName::new("web").unwrap(), replica: 1 };
        let slot = table.claim(&id, Phase::Open, 0).unwrap();
        table.slot(slot).open(Incarnation(4), Wall(1));
        let kept = table.slot(slot).kept();
        assert_eq!((kept.configuration(), kept.ran()), (None, None));
        kept.keep(77);
        assert_eq!(kept.ran(), None, "its program does not run yet");
        kept.set_ran(Tick(5));
        assert_eq!(kept.executed(), Some(Tick(5)));
        kept.set_ready(Tick(6));
        kept.set_port(PORT_OWES);
        assert_eq!(kept.memory(), None, "nothing is counted");
        let memory = Memory { kills_before: 0, hits_before: 5, told: 1 };
        kept.set_memory(memory);
        let marker = table.marker(slot, [Some((10, true)), None]);
        marker.begin();
        assert_eq!((kept.logged(0), kept.writing(0)), ((0, false), 10));
        marker.done();
        let other = Table::open(&path, Realm(1)).unwrap();
        let kept = other.slot(slot).kept();
        assert_eq!((kept.configuration(), kept.ran()), (Some(77), Some(Tick(5))));
        assert_eq!((kept.ready(), kept.port()), (Some(Tick(6)), PORT_OWES));
        assert_eq!((kept.logged(0), kept.writing(0)), ((10, true), 10));
        assert_eq!((kept.logged(1), kept.writing(1)), ((0, false), 0));
        assert_eq!(kept.memory(), Some(memory));

        let again = table.marker(slot, [Some((4, true)), None]);
        again.begin();
        assert_eq!(kept.writing(0), 10, "what may have been written is not forgotten");

        table.slot(slot).open(Incarnation(5), Wall(2));
        marker.done();
        let kept = table.slot(slot).kept();
        assert_eq!((kept.configuration(), kept.logged(0)), (None, (0, false)));
        assert_eq!(kept.memory(), None);
    }
}
