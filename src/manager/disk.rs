//! The disk thread: exit records, program output and small state files, written in that order of
//! importance. The loop never waits for it. What it has appended it tells subscribers itself: a way
//! over the loop would be one more thread that has to wake.
//!
//! The queue of output is bounded in bytes. When it is full the loop stops reading program output for
//! a moment; if the disk still does not take any, the oldest queued output is dropped and counted
//! (or the program waits, where its service says `when_full: block`). Records are never dropped: while
//! they cannot be written they wait in memory and are tried again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exit::ExitRecord;
use crate::journal::Journal;
use crate::name::{Incarnation, ReplicaId, ServiceName};
use crate::os::fds::Waker;
use crate::os::live::Marker;
use crate::os::{clock, errno_of};
use crate::output::{CompressJob, LogFiles, Stream, dropped_marker};
use crate::spec::{Logging, WhenFull};
use crate::state::{Applied, Intent, StateDir};
use crate::time::Tick;

use super::announce::{Announcer, Once};
use super::failing::Failing;

/// Output beyond this many bytes in the queue: the loop stops reading output.
pub(super) const HIGH: usize = 1 << 20;
/// Output below this again: the loop goes on reading.
const LOW: usize = 256 << 10;
/// Output beyond this: the oldest is dropped.
const FULL: usize = 3 << 20;
/// How many buffers of lines are kept to be filled again, and how large one of them may be. A flood would
/// otherwise take each piece of memory from the kernel anew, and give it back.
const SPARE: usize = 4;
const LARGEST_SPARE: usize = 256 << 10;
/// How long after a failure a write is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Lines of one replica's output.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) replica: ReplicaId,
    pub(super) logging: Logging,
    /// Whole lines.
    pub(super) lines: Vec<u8>,
    /// Told around the write, where the run is to outlive the manager.
    pub(super) marker: Option<Marker>,
}

/// A small file to replace.
#[derive(Debug)]
pub(super) enum Persist {
    /// The configuration in effect.
    Applied(Box<Applied>),
    /// What operators want.
    Intent(Intent),
}

/// What the thread tells the loop.
#[derive(Debug)]
pub(super) enum Done {
    /// The records of these runs are in the journal, and subscribers have been told.
    Appended(Vec<Incarnation>),
    /// The journal cannot be written; the records wait.
    JournalFailed(String),
    /// The file with this version number was written, or could not be.
    Persisted(u64, Result<(), String>),
    /// There is room for output again.
    Room,
    /// Output could not be written and was dropped.
    Dropped {
        /// Of which service.
        service: ServiceName,
        /// How many bytes.
        bytes: u64,
        /// How many lines that is, a cut one counting as one.
        lines: u64,
    },
    /// A log that cannot be written, and why. Told once for as long as there is any.
    Failing(String),
    /// Every log is being written again.
    Recovered,
}

/// A record and whether anybody has told of it yet.
type Entry = (Arc<ExitRecord>, Once);

#[derive(Default)]
struct Queue {
    /// Each with how many chunks had been queued before it.
    records: Vec<(u64, Entry)>,
    persist: VecDeque<(u64, Persist)>,
    /// Each with its number, counted from 1.
    output: VecDeque<(u64, Chunk)>,
    /// How many chunks have ever been queued.
    queued: u64,
    /// How many of those in the queue each replica has.
    behind: HashMap<ReplicaId, usize>,
    bytes: usize,
    full: bool,
    closing: bool,
    dropped: u64,
    /// Bytes dropped of each replica and not yet marked in its log.
    gaps: HashMap<ReplicaId, u64>,
    /// Replicas that are gone.
    forgotten: Vec<ReplicaId>,
    compressed: Vec<crate::output::Compressed>,
    /// Buffers whose lines are written.
    spare: Vec<Vec<u8>>,
}

impl Queue {
    fn push(&mut self, chunk: Chunk) {
        self.queued += 1;
        self.bytes += chunk.lines.len();
        *self.behind.entry(chunk.replica.clone()).or_default() += 1;
        self.output.push_back((self.queued, chunk));
    }

    fn take(&mut self, at: usize) -> Option<Chunk> {
        let (_, chunk) = self.output.remove(at)?;
        self.bytes -= chunk.lines.len();
        if let Some(count) = self.behind.get_mut(&chunk.replica) {
            *count -= 1;
            if *count == 0 {
                self.behind.remove(&chunk.replica);
            }
        }
        Some(chunk)
    }

    /// How many records can be written now, and the chunk that comes next: what a program wrote is in
    /// its log before its end is told, and is not behind anybody else's output then.
    fn next(&self) -> (usize, usize) {
        let mut records = self.records.iter().enumerate();
        let held = records.find_map(|(at, record)| Some((at, self.holds(record)?)));
        held.unwrap_or((self.records.len(), 0))
    }

    /// The chunk that a record waits for: of its own program, and queued before it.
    fn holds(&self, (before, (record, _)): &(u64, Entry)) -> Option<usize> {
        let (service, replica) = (record.service.name.clone(), record.service.replica);
        let id = ReplicaId { service, replica };
        self.behind.get(&id)?;
        self.output.iter().position(|(at, chunk)| at <= before && chunk.replica == id)
    }
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl Shared {
    /// Nothing in the critical sections can panic half-way, so a poisoned queue is still whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's end of the disk thread.
pub(super) struct Disk {
    shared: Arc<Shared>,
    /// Queued and not yet handed over.
    records: Vec<Entry>,
    /// A buffer to be filled.
    spare: Option<Vec<u8>>,
    /// What the thread has to tell.
    pub(super) done: Receiver<Done>,
    closed: Receiver<()>,
}

/// What the thread starts with.
pub(super) struct Files {
    pub(super) state: StateDir,
    pub(super) journal: Journal,
    pub(super) output: LogFiles,
}

impl Disk {
    /// Starts the thread.
    pub(super) fn start(files: Files, waker: Waker, announcer: Announcer) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new() });
        let (tell, done) = channel();
        let (closing, closed) = channel();
        let mut writer = Writer {
            files,
            shared: Arc::clone(&shared),
            tell,
            waker,
            announcer,
            failing: Failing::default(),
            waiting: Vec::new(),
            untold: Vec::new(),
            retry_at: None,
            written: None,
        };
        super::vital("disk", move || {
            writer.serve();
            let _ = closing.send(());
        })?;
        Ok(Self { shared, records: Vec::new(), spare: None, done, closed })
    }

    /// Queues a record, to be written after the next [`Disk::go`]: many at once cost little more
    /// than one. Subscribers hear of it once it is written.
    pub(super) fn record(&mut self, record: Arc<ExitRecord>, once: Once) {
        self.records.push((record, once));
    }

    /// Has the queued records written.
    pub(super) fn go(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let mut queue = self.shared.lock();
        let before = queue.queued;
        queue.records.extend(self.records.drain(..).map(|entry| (before, entry)));
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Queues a small file.
    pub(super) fn persist(&self, version: u64, file: Persist) {
        self.shared.lock().persist.push_back((version, file));
        self.shared.filled.notify_one();
    }

    /// An empty buffer for the lines of a [`Chunk`].
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.take().unwrap_or_default()
    }

    /// Frees the buffers that nobody fills.
    pub(super) fn give_back(&mut self) {
        self.spare = None;
        self.shared.lock().spare = Vec::new();
    }

    /// Queues output. True means: read no more until [`Done::Room`]. What had to be dropped for it
    /// is told in lines.
    pub(super) fn output(&mut self, chunk: Chunk) -> (bool, Vec<(ServiceName, u64)>) {
        let mut told = Vec::new();
        if chunk.lines.is_empty() {
            return (false, told);
        }
        let mut queue = self.shared.lock();
        self.spare = self.spare.take().or_else(|| queue.spare.pop());
        queue.push(chunk);
        while queue.bytes > FULL {
            let oldest = queue
                .output
                .iter()
                .position(|(_, chunk)| chunk.logging.when_full == WhenFull::DropOldest);
            let Some(dropped) = oldest.and_then(|at| queue.take(at)) else { break };
            let lost = dropped.lines.len() as u64;
            queue.dropped += lost;
            told.push((dropped.replica.service.clone(), count_lines(&dropped.lines)));
            *queue.gaps.entry(dropped.replica).or_default() += lost;
        }
        queue.full |= queue.bytes > HIGH;
        let full = queue.full;
        drop(queue);
        self.shared.filled.notify_one();
        (full, told)
    }

    /// A replica is gone: that its log cannot be written is nobody's trouble any more.
    pub(super) fn forget(&self, replica: &ReplicaId) {
        self.shared.lock().forgotten.push(replica.clone());
        self.shared.filled.notify_one();
    }

    /// Bytes of output dropped because the disk was too slow.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Writes what is queued and ends the thread; waits for that at most `bound`. False when the
    /// disk did not manage.
    pub(super) fn close(&mut self, bound: Duration) -> bool {
        self.go();
        self.shared.lock().closing = true;
        self.shared.filled.notify_one();
        self.closed.recv_timeout(bound).is_ok()
    }
}

struct Writer {
    files: Files,
    shared: Arc<Shared>,
    tell: Sender<Done>,
    waker: Waker,
    announcer: Announcer,
    failing: Failing,
    /// Records that the journal would not take; tried again with the next or after a while.
    waiting: Vec<ExitRecord>,
    /// Whether each of those has been told of.
    untold: Vec<Once>,
    /// Not before this, unless there are new ones.
    retry_at: Option<Tick>,
    /// The buffer of the lines that were written last.
    written: Option<Vec<u8>>,
}

/// One round's work.
#[derive(Default)]
struct Round {
    records: Vec<Entry>,
    persist: VecDeque<(u64, Persist)>,
    output: Option<Chunk>,
    /// Bytes missing before `output`.
    gap: Option<u64>,
    forgotten: Vec<ReplicaId>,
    compressed: Vec<crate::output::Compressed>,
    closing: bool,
}

impl Writer {
    fn serve(&mut self) {
        loop {
            let round = self.next_round();
            let closing = round.closing && round.output.is_none();
            self.write_urgent(round.records, round.persist, closing);
            for done in round.compressed {
                match self.files.output.finish(done) {
                    Ok(job) => self.compress(job),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "a log stays uncompressed");
                    }
                }
            }
            if let Some(chunk) = round.output {
                if let Some(lost) = round.gap {
                    self.mark_gap(&chunk, lost, "the disk did not take it");
                }
                chunk.marker.iter().for_each(Marker::begin);
                self.write(&chunk);
                // While it is not said in the log that something is missing there, a successor has to know
                // that not all of it is there.
                let is_silent = self.shared.lock().gaps.contains_key(&chunk.replica);
                chunk.marker.iter().filter(|_| !is_silent).for_each(Marker::done);
                self.written = Some(chunk.lines);
            }
            for replica in &round.forgotten {
                let news = self.failing.well(replica);
                self.tell_of(news);
            }
            if closing {
                return;
            }
        }
    }

    /// Waits for work: records and files all at once, output one chunk at a time, so that a record
    /// never stands behind a flood but that of its own program.
    fn next_round(&mut self) -> Round {
        let retrying = !self.waiting.is_empty();
        let mut queue = self.shared.lock();
        let written = self.written.take().filter(|buffer| buffer.capacity() <= LARGEST_SPARE);
        if let Some(mut buffer) = written.filter(|_| queue.spare.len() < SPARE) {
            buffer.clear();
            queue.spare.push(buffer);
        }
        loop {
            let idle = queue.records.is_empty()
                && queue.persist.is_empty()
                && queue.output.is_empty()
                && queue.forgotten.is_empty()
                && queue.compressed.is_empty();
            if !idle || queue.closing {
                break;
            }
            if retrying {
                let (woken, wait) = self
                    .shared
                    .filled
                    .wait_timeout(queue, RETRY)
                    .unwrap_or_else(PoisonError::into_inner);
                queue = woken;
                if wait.timed_out() {
                    break;
                }
            } else {
                queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let (ready, at) = queue.next();
        let records = queue.records.drain(..ready).map(|(_, entry)| entry).collect();
        let output = queue.take(at);
        let gap = output.as_ref().and_then(|chunk| queue.gaps.remove(&chunk.replica));
        let room = queue.full && queue.bytes < LOW;
        if room {
            queue.full = false;
        }
        // What is still to be written of them may fail yet.
        let last = queue.output.is_empty();
        let forgotten = if last { std::mem::take(&mut queue.forgotten) } else { Vec::new() };
        let round = Round {
            records,
            persist: std::mem::take(&mut queue.persist),
            forgotten,
            compressed: std::mem::take(&mut queue.compressed),
            closing: queue.closing,
            output,
            gap,
        };
        drop(queue);
        if room {
            self.tell(Done::Room);
        }
        round
    }

    /// Writes what must not stand behind output: records and small files.
    fn write_urgent(&mut self, records: Vec<Entry>, files: VecDeque<(u64, Persist)>, last: bool) {
        let due = last || !records.is_empty() || self.retry_at.is_none_or(|at| at <= clock::now());
        for (record, once) in records {
            self.waiting.push(Arc::unwrap_or_clone(record));
            self.untold.push(once);
        }
        if due && !self.waiting.is_empty() {
            self.append();
        }
        for (version, file) in files {
            let result = match file {
                Persist::Applied(applied) => self.files.state.write_applied(&applied),
                Persist::Intent(intent) => self.files.state.write_intent(&intent),
            };
            self.tell(Done::Persisted(version, result.map_err(|error| chain(&error))));
        }
    }

    fn append(&mut self) {
        match self.files.journal.append(&mut self.waiting) {
            Ok(lines) => {
                self.retry_at = None;
                let records = std::mem::take(&mut self.waiting);
                let runs = records.iter().map(|record| record.service.incarnation).collect();
                let untold = std::mem::take(&mut self.untold);
                for ((record, once), line) in records.into_iter().zip(untold).zip(lines) {
                    self.announcer.end(&once, record, line);
                }
                self.tell(Done::Appended(runs));
            }
            Err(error) => {
                self.retry_at = Some(clock::now() + RETRY);
                self.tell(Done::JournalFailed(chain(&error)));
            }
        }
        if let Some(trouble) = self.files.journal.trouble() {
            tracing::warn!(error = %chain(&trouble), "the journal was not rotated");
        }
    }

    fn write(&mut self, chunk: &Chunk) {
        let mut written = 0;
        loop {
            let lines = &chunk.lines[written..];
            match self.files.output.write(&chunk.replica, &chunk.logging, lines) {
                Ok(job) => {
                    self.compress(job);
                    let news = self.failing.well(&chunk.replica);
                    self.tell_of(news);
                    return;
                }
                Err(error) => {
                    written += error.written;
                    let news = self.failing.failed(&chunk.replica, &error);
                    self.tell_of(news);
                    let closing = self.shared.lock().closing;
                    if chunk.logging.when_full == WhenFull::Block && !closing {
                        self.pause();
                        continue;
                    }
                    let lost = (chunk.lines.len() - written) as u64;
                    self.tell(Done::Dropped {
                        service: chunk.replica.service.clone(),
                        bytes: lost,
                        lines: count_lines(&chunk.lines[written..]),
                    });
                    self.mark_gap(chunk, lost, errno_of(&error.source).text());
                    return;
                }
            }
        }
    }

    /// Says in the log itself that something is missing; where the disk does not take even that,
    /// before the next output that it is asked to take.
    fn mark_gap(&mut self, chunk: &Chunk, lost: u64, why: &str) {
        let mut line = Vec::new();
        dropped_marker(clock::wall(), Stream::Stdout, lost, why, &mut line);
        if self.files.output.write(&chunk.replica, &chunk.logging, &line).is_err() {
            *self.shared.lock().gaps.entry(chunk.replica.clone()).or_default() += lost;
        }
    }

    /// Waits a moment before a write is tried again; records and small files that come meanwhile are
    /// written, and more output is no reason to try earlier.
    fn pause(&mut self) {
        let quiet = |queue: &mut Queue| {
            queue.records.is_empty() && queue.persist.is_empty() && !queue.closing
        };
        let waited = self.shared.filled.wait_timeout_while(self.shared.lock(), RETRY, quiet);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        // No end is kept back by a log that nobody can write.
        let records = queue.records.drain(..).map(|(_, entry)| entry).collect();
        let files = std::mem::take(&mut queue.persist);
        let closing = queue.closing;
        drop(queue);
        self.write_urgent(records, files, closing);
    }

    /// Compresses on a thread of its own: a tenth of a second during which records go on.
    fn compress(&self, job: Option<CompressJob>) {
        let Some(job) = job else { return };
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new().name("compress".into()).spawn(move || {
            let done = job.run();
            shared.lock().compressed.push(done);
            shared.filled.notify_one();
        });
        if let Err(error) = started {
            tracing::warn!(%error, "a log stays uncompressed");
        }
    }

    fn tell_of(&self, news: Option<Done>) {
        if let Some(done) = news {
            self.tell(done);
        }
    }

    fn tell(&self, done: Done) {
        let _ = self.tell.send(done);
        self.waker.wake();
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// An error with everything it came from, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::History;
    use super::*;
    use crate::exit::HostPart;
    use crate::name::{Generation, Realm};
    use crate::os::live::{Phase, Table};
    use crate::spec::Forward;
    use crate::time::Wall;

    #[test]
    fn what_was_dropped_and_not_marked_does_not_count_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(folder.path());
        state.create().unwrap();
        let name = |name: &str| ServiceName::new(name).unwrap();
        let id = |service: &str| ReplicaId { service: name(service), replica: 1 };
        std::os::unix::fs::symlink("/dev/full", state.output().join("lost.1.log")).unwrap();
        let files = Files {
            state: state.clone(),
            journal: Journal::open(&state.state).unwrap().0,
            output: LogFiles::open(&state.output()).unwrap(),
        };
        let history = History::new(Realm(1), Generation(1), 0, Wall(0));
        let host = HostPart { name: "h".to_owned(), boot_id: "b".to_owned() };
        let mut table = Table::open(&state.live(), Realm(1)).unwrap();
        let announcer = Announcer::new(history, host);
        let mut disk = Disk::start(files, Waker::new().unwrap(), announcer).unwrap();
        let logging = Logging { when_full: WhenFull::DropOldest, ..Logging::default() };
        let slots = ["lost", "written"].map(|service| {
            let slot = table.claim(&id(service), Phase::Open, 0).unwrap();
            table.slot(slot).open(Incarnation(slot as u64 + 1), Wall(1));
            let marker = Some(table.marker(slot, [Some((5, false)), None]));
            let (lines, logging) = (b"line\n".to_vec(), logging.clone());
            disk.output(Chunk { replica: id(service), logging, lines, marker });
            slot
        });
        assert!(disk.close(Duration::from_secs(20)));
        let kept = |at: usize| table.slot(slots[at]).kept();
        assert_eq!((kept(0).logged(0).0, kept(0).writing(0)), (0, 5));
        assert_eq!((kept(1).logged(0).0, kept(1).writing(0)), (5, 5));
    }

    #[test]
    fn small_files_do_not_stand_behind_output_that_waits_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(folder.path());
        state.create().unwrap();
        let replica = ReplicaId { service: ServiceName::new("web").unwrap(), replica: 1 };
        std::os::unix::fs::symlink("/dev/full", state.output().join("web.1.log")).unwrap();
        let files = Files {
            state: state.clone(),
            journal: Journal::open(&state.state).unwrap().0,
            output: LogFiles::open(&state.output()).unwrap(),
        };
        let history = History::new(Realm(1), Generation(1), 0, Wall(0));
        let host = HostPart { name: "h".to_owned(), boot_id: "b".to_owned() };
        let announcer = Announcer::new(history, host);
        let mut disk = Disk::start(files, Waker::new().unwrap(), announcer).unwrap();
        let logging = Logging { when_full: WhenFull::Block, ..Logging::default() };
        disk.output(Chunk { replica, logging, lines: b"line\n".to_vec(), marker: None });
        // That a program is held up is told.
        let failing = disk.done.recv_timeout(Duration::from_secs(20)).unwrap();
        let Done::Failing(why) = failing else { panic!("{failing:?}") };
        assert!(why.ends_with("web.1.log: No space left on device (os error 28)"), "{why}");
        // The first may have been taken together with the output, the second comes after it.
        for version in [1, 2] {
            disk.persist(version, Persist::Intent(Intent::default()));
            let done = disk.done.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(matches!(done, Done::Persisted(one, Ok(())) if one == version), "{done:?}");
        }
        assert!(disk.close(Duration::from_secs(20)), "closing gives up waiting for room");
        assert!(matches!(disk.done.try_recv(), Ok(Done::Dropped { bytes: 5, lines: 1, .. })));
    }

    #[test]
    fn an_end_is_told_after_what_its_program_wrote_and_before_everything_else() {
        let id = |name: &str| ReplicaId { service: ServiceName::new(name).unwrap(), replica: 1 };
        let chunk = |name: &str| Chunk {
            replica: id(name),
            logging: Logging::default(),
            lines: b"line\n".to_vec(),
            marker: None,
        };
        let mut queue = Queue::default();
        for name in ["flood", "flood", "web", "flood", "web"] {
            queue.push(chunk(name));
        }
        let end = |queue: &mut Queue, name: &str| {
            let record = serde_json::from_value(serde_json::json!({
                "ts": Wall(1_795_332_688_000_000_000).to_string(), "seq": 0, "schema": 1,
                "level": "info", "event": {"name": "process.exit"}, "msg": "it ended",
                "host": {"name": "h", "boot_id": "b"}, "manager": {"generation": 1},
                "service": {"name": name, "replica": 1, "incarnation": 1},
                "process": {"pid": 7, "exit": {"code": 0}}, "stderr_tail": "",
                "exit": {"how": "exited", "reason": "completed", "cause": "spontaneous",
                         "evidence": [], "certainty": "certain"}, "restart": {"decision": "no"},
            }));
            let entry = (Arc::new(record.unwrap()), Once::new(Forward::default(), Vec::new()));
            queue.records.push((queue.queued, entry));
        };
        end(&mut queue, "idle");
        end(&mut queue, "web");
        // What it leaves behind in its pipes, and what its next run says, is not waited for.
        queue.push(chunk("web"));
        let mut seen = Vec::new();
        while !queue.output.is_empty() {
            let (ready, at) = queue.next();
            let told =
                queue.records.drain(..ready).map(|(_, (record, _))| record.service.name.clone());
            seen.extend(told.map(|name| name.to_string()));
            seen.push(queue.take(at).unwrap().replica.to_string());
        }
        assert_eq!(seen.join(" "), "idle web/1 web/1 web flood/1 flood/1 flood/1 web/1");
        assert_eq!((queue.bytes, queue.behind.len()), (0, 0));
    }
}
