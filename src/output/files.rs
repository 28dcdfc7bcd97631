//! All log files of a folder, of which a few are open at a time.
//!
//! It belongs to one thread. Compression is handed out as jobs for another one; only the renaming
//! at their end is done here.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::compress::{self, CompressJob, Compressed};
use super::file::LogFile;
use super::{OutputError, WriteError, family};
use crate::name::ReplicaId;
use crate::rotation::Form;
use crate::spec::Logging;

/// How many files are open at a time: enough for those that write all the time, few beside the
/// usual limit of 1024 descriptors.
const OPEN: usize = 64;

/// The log files of a folder.
#[derive(Debug)]
pub struct LogFiles {
    dir: PathBuf,
    /// What was written to lately, open but for those that only hold the rest of a line.
    slots: HashMap<ReplicaId, Slot>,
    bound: usize,
    /// Counts writes, so that the file that was idle longest is closed first.
    uses: u64,
    /// Replicas of which a file is being compressed.
    compressing: HashSet<ReplicaId>,
    /// Replicas whose output was written in this life.
    known: HashSet<ReplicaId>,
}

#[derive(Debug)]
struct Slot {
    file: LogFile,
    used: u64,
}

impl LogFiles {
    /// Makes the folder where there is none, and puts in order what a crash left in it.
    pub fn open(dir: &Path) -> Result<Self, OutputError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .and_then(|()| compress::recover(dir))
            .map_err(|source| OutputError::Open { path: dir.to_owned(), source })?;
        Ok(Self {
            dir: dir.to_owned(),
            slots: HashMap::new(),
            bound: OPEN,
            uses: 0,
            compressing: HashSet::new(),
            known: HashSet::new(),
        })
    }

    /// Appends `lines`, which must be whole lines, to the file of `id`, rotated as `logging` says.
    /// After an error go on with `lines[written..]` or give it up; either way no line is torn.
    ///
    /// The job is to be run, on any thread, and its result given to [`LogFiles::finish`].
    pub fn write(
        &mut self,
        id: &ReplicaId,
        logging: &Logging,
        lines: &[u8],
    ) -> Result<Option<CompressJob>, WriteError> {
        if lines.is_empty() {
            return Ok(None);
        }
        self.uses += 1;
        let uses = self.uses;
        if !self.slots.get(id).is_some_and(|slot| slot.file.is_open()) {
            self.close_idle();
        }
        let (dir, known) = (&self.dir, &mut self.known);
        let slot = self.slots.entry(id.clone()).or_insert_with(|| {
            let strange = known.insert(id.clone());
            Slot { file: LogFile::new(family(dir, id), logging.max_files, strange), used: uses }
        });
        slot.used = uses;
        let outcome = slot.file.write(logging, lines);
        if let Some((written, source)) = outcome.failed {
            return Err(WriteError { written, path: family(&self.dir, id).current(), source });
        }
        Ok(if outcome.rotated && logging.compress { self.next_job(id) } else { None })
    }

    /// Puts a compressed file in the place of the uncompressed one; returns the next job where
    /// there is more to compress for the same replica.
    pub fn finish(&mut self, done: Compressed) -> Result<Option<CompressJob>, OutputError> {
        let id = done.id().clone();
        self.compressing.remove(&id);
        let files = family(&self.dir, &id);
        match done.install(&files) {
            Ok(()) => Ok(self.next_job(&id)),
            Err(source) => Err(OutputError::Compress { path: files.current(), source }),
        }
    }

    /// The replica's program goes on from an earlier life: so does an unfinished line in its file.
    pub fn go_on(&mut self, id: &ReplicaId) {
        self.known.insert(id.clone());
    }

    /// Closes the file of a replica that will not write any more.
    pub fn close(&mut self, id: &ReplicaId) {
        self.slots.remove(id);
    }

    /// Closes the file that was idle longest where there are too many.
    fn close_idle(&mut self) {
        let open = self.slots.iter_mut().filter(|(_, slot)| slot.file.is_open());
        let (mut count, mut idle) = (0, None);
        for (id, slot) in open {
            count += 1;
            if idle.as_ref().is_none_or(|(_, held): &(_, &mut Slot)| slot.used < held.used) {
                idle = Some((id.clone(), slot));
            }
        }
        if let Some((id, slot)) = idle.filter(|_| count >= self.bound)
            && !slot.file.park()
        {
            self.slots.remove(&id);
        }
    }

    /// One job a replica at a time, the youngest file first. That a file cannot be opened is no
    /// reason to complain: it stays uncompressed, and the next rotation tries again.
    fn next_job(&mut self, id: &ReplicaId) -> Option<CompressJob> {
        if self.compressing.contains(id) {
            return None;
        }
        let files = family(&self.dir, id);
        let entries = files.entries().ok()?;
        let (number, _) = entries.into_iter().find(|entry| entry.1 == Form::Plain)?;
        let job = CompressJob::new(id.clone(), &files, number).ok()?;
        self.compressing.insert(id.clone());
        Some(job)
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
