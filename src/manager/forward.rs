//! The thread that passes lines and ends on to journald and syslog, where a service asks for it.
//!
//! The loop puts down what is to be forwarded and goes on; what does not fit into the bounded queue,
//! and what a receiver does not take in time, is dropped and counted. The thread exists from the
//! first thing to be forwarded on: who forwards nothing has none.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::exit::ExitRecord;
use crate::forward::{Forwarded, Receiver, Sent, What};
use crate::name::{Incarnation, ReplicaId};
use crate::os::fds::Waker;
use crate::output::parse_lines;
use crate::spec::Forward;

/// How many bytes may wait for the thread; a record counts as [`RECORD`].
const FULL: usize = 1 << 20;
/// What a record counts for, in bytes: most of one is the end of standard error.
const RECORD: usize = 8 << 10;

/// Something to forward.
#[derive(Debug)]
struct Job {
    replica: ReplicaId,
    incarnation: Incarnation,
    pid: Option<i32>,
    to: Forward,
    what: Payload,
}

#[derive(Debug)]
enum Payload {
    /// Lines in the form of a log file.
    Lines(Vec<u8>),
    Exit(Box<ExitRecord>),
}

impl Payload {
    fn weight(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Exit(_) => RECORD,
        }
    }

    /// How many messages it is for one receiver.
    fn count(&self) -> u64 {
        match self {
            Self::Lines(lines) => memchr::memchr_iter(b'\n', lines).count() as u64,
            Self::Exit(_) => 1,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// The thread exists.
    started: bool,
    closing: bool,
    /// The thread has ended.
    over: bool,
    /// Messages that were not delivered, each receiver by itself.
    dropped: u64,
    /// Receivers that take nothing, and why.
    away: BTreeMap<String, String>,
    /// Receivers that somebody wants something forwarded to; all, until that is said.
    wanted: Option<HashSet<String>>,
}

impl Queue {
    /// The receivers that take nothing and are wanted.
    fn missed(&self) -> impl Iterator<Item = (&String, &String)> {
        let wanted = |path: &String| self.wanted.as_ref().is_none_or(|all| all.contains(path));
        self.away.iter().filter(move |(path, _)| wanted(path))
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was put down, or taken for the last time.
    changed: Condvar,
    /// Whether [`Forwarder::trouble`] says something else than before.
    news: AtomicBool,
    /// Wakes the loop to hear of it.
    waker: OnceLock<Waker>,
}

impl Shared {
    /// Nothing in the critical sections can panic half-way, so a poisoned queue is still whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes which receivers are away, and lets the loop know if that is news.
    fn away(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        let before: Vec<_> = queue.missed().map(|(path, _)| path.clone()).collect();
        change(&mut queue);
        let same = queue.missed().map(|(path, _)| path).eq(&before);
        drop(queue);
        if !same {
            self.news.store(true, Ordering::Release);
            if let Some(waker) = self.waker.get() {
                waker.wake();
            }
        }
    }
}

/// The way to the thread. Clones lead to the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Forwarder {
    shared: Arc<Shared>,
}

impl Forwarder {
    /// A way to the thread, which wakes the loop when a receiver goes away or comes back.
    pub(super) fn waking(waker: Waker) -> Self {
        let shared = Shared { waker: OnceLock::from(waker), ..Shared::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Says which receivers are wanted: that others take nothing is nobody's trouble.
    pub(super) fn wanted<'a>(&self, all: impl Iterator<Item = &'a Forward>) {
        let paths = all.flat_map(|to| to.journald.iter().chain(&to.syslog)).cloned().collect();
        self.shared.away(|queue| queue.wanted = Some(paths));
    }

    /// Whether [`Forwarder::trouble`] says something else since the last time this was asked.
    pub(super) fn has_news(&self) -> bool {
        self.shared.news.load(Ordering::Acquire) && self.shared.news.swap(false, Ordering::AcqRel)
    }

    /// Forwards lines of a log file, where `to` says so.
    pub(super) fn lines(
        &self,
        replica: &ReplicaId,
        incarnation: Incarnation,
        pid: Option<i32>,
        to: &Forward,
        lines: &[u8],
    ) {
        if *to != Forward::default() {
            let (replica, to) = (replica.clone(), to.clone());
            let what = Payload::Lines(lines.to_vec());
            self.push(Job { replica, incarnation, pid, to, what });
        }
    }

    /// Forwards an end, where `to` says so.
    pub(super) fn exit(&self, to: &Forward, record: &ExitRecord) {
        if *to != Forward::default() {
            let service = &record.service;
            let replica = ReplicaId { service: service.name.clone(), replica: service.replica };
            let (incarnation, pid) = (service.incarnation, record.process.pid);
            let what = Payload::Exit(Box::new(record.clone()));
            self.push(Job { replica, incarnation, pid, to: to.clone(), what });
        }
    }

    fn push(&self, job: Job) {
        let mut queue = self.shared.lock();
        let weight = job.what.weight();
        let full = queue.bytes + weight > FULL;
        if full || !self.start(&mut queue) {
            let receivers = job.to.journald.iter().chain(&job.to.syslog).count() as u64;
            let first = queue.dropped == 0;
            queue.dropped += job.what.count() * receivers;
            drop(queue);
            if full && first {
                tracing::warn!(
                    "more is to be forwarded than is taken; what is too much is dropped"
                );
            }
            return;
        }
        queue.bytes += weight;
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Starts the thread where there is none; whether there is one.
    fn start(&self, queue: &mut Queue) -> bool {
        if !queue.started {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("forward".to_owned());
            match thread.spawn(move || serve(&shared)) {
                Ok(_) => queue.started = true,
                Err(error) => tracing::error!(%error, "cannot start a thread to forward output"),
            }
        }
        queue.started
    }

    /// How many messages were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Receivers that take nothing, in words.
    pub(super) fn trouble(&self) -> Vec<String> {
        let queue = self.shared.lock();
        let say =
            |(path, why): (&String, &String)| format!("nothing is forwarded to {path}: {why}");
        queue.missed().map(say).collect()
    }

    /// Forwards what waits and ends the thread; waits for that at most `bound`.
    pub(super) fn close(&self, bound: Duration) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.changed.notify_all();
        let waits = |queue: &mut Queue| queue.started && !queue.over;
        drop(self.shared.changed.wait_timeout_while(queue, bound, waits));
    }
}

/// The receivers by their paths; the same path may be spoken to in both forms.
#[derive(Default)]
struct Receivers {
    journald: HashMap<String, Receiver>,
    syslog: HashMap<String, Receiver>,
}

fn serve(shared: &Shared) {
    let mut receivers = Receivers::default();
    loop {
        let mut queue = shared.lock();
        while queue.jobs.is_empty() && !queue.closing {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(job) = queue.jobs.pop_front() else {
            queue.over = true;
            shared.changed.notify_all();
            return;
        };
        queue.bytes -= job.what.weight();
        drop(queue);
        let mut all: Vec<(&String, &mut Receiver)> = Vec::new();
        if let Some(path) = &job.to.journald {
            let new = || Receiver::journald(Path::new(path));
            all.push((path, receivers.journald.entry(path.clone()).or_insert_with(new)));
        }
        if let Some(path) = &job.to.syslog {
            let new = || Receiver::syslog(Path::new(path));
            all.push((path, receivers.syslog.entry(path.clone()).or_insert_with(new)));
        }
        for (path, receiver) in all {
            send(shared, path, receiver, &job);
        }
    }
}

fn send(shared: &Shared, path: &str, receiver: &mut Receiver, job: &Job) {
    let (replica, incarnation, pid) = (&job.replica, job.incarnation, job.pid);
    match &job.what {
        Payload::Lines(lines) => {
            for line in parse_lines(lines) {
                let what = What::Line(&line);
                let sent = receiver.send(&Forwarded { replica, incarnation, pid, what });
                note(shared, path, sent);
            }
        }
        Payload::Exit(record) => {
            let what = What::Exit(record);
            note(shared, path, receiver.send(&Forwarded { replica, incarnation, pid, what }));
        }
    }
}

/// Says what became of a message, where that is news.
fn note(shared: &Shared, path: &str, sent: Sent) {
    match sent {
        Sent::Taken => {}
        Sent::Back(dropped) => {
            shared.away(|queue| drop(queue.away.remove(path)));
            tracing::info!(path, dropped, "forwarding goes on");
        }
        Sent::Lost(error) => {
            tracing::warn!(path, %error, "nothing can be forwarded; the log files have it all");
            shared.away(|queue| {
                queue.dropped += 1;
                queue.away.insert(path.to_owned(), error.to_string());
            });
        }
        Sent::LostToo => shared.lock().dropped += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ReplicaId {
        ReplicaId { service: "web".parse().unwrap(), replica: 1 }
    }

    #[test]
    fn nothing_is_started_for_who_forwards_nothing() {
        let forwarder = Forwarder::default();
        forwarder.lines(&id(), Incarnation(1), None, &Forward::default(), b"x\n");
        assert!(!forwarder.shared.lock().started);
        assert_eq!((forwarder.dropped(), forwarder.trouble()), (0, Vec::new()));
        forwarder.close(Duration::from_secs(20));
    }

    #[test]
    fn what_cannot_be_delivered_is_counted_and_the_queue_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let nobody = folder.path().join("nobody").to_str().unwrap().to_owned();
        let to = Forward { journald: Some(nobody.clone()), syslog: Some(nobody) };
        let forwarder = Forwarder::default();
        let line = b"1970-01-01T00:00:00.000000000Z stdout F hello\n".repeat(1_000);
        for _ in 0..100 {
            forwarder.lines(&id(), Incarnation(1), Some(7), &to, &line);
            assert!(forwarder.shared.lock().bytes <= FULL);
        }
        forwarder.close(Duration::from_secs(20));
        assert_eq!(forwarder.dropped(), 2 * 100 * 1_000);
        let trouble = forwarder.trouble();
        assert!(trouble[0].starts_with("nothing is forwarded to /"), "{trouble:?}");
        assert!(trouble[0].ends_with("No such file or directory (os error 2)"), "{trouble:?}");
    }
}
