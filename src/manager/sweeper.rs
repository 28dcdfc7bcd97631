//! Finding and killing what a run left behind, on a thread of its own with a bound on its time; and,
//! when everything ends at once, removing control groups beside the loop.
//!
//! With a control group that is one write and a wait for emptiness, and a look for who has left it.
//! Without one, survivors are the members of the run's session or process group, and whatever below this
//! process or its guardian carries the run's mark (`os::mark`), wherever it hid; a process that means to
//! can wash that off, so the report says whether a group held everything that was found.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::exit::Signal;
use crate::name::Incarnation;
use crate::os::cgroup::Group;
use crate::os::fds::Waker;
use crate::os::procfs::Stat;
use crate::os::{clock, epoll, mark, prctl, procfs, signal};
use crate::spec::KillScope;
use crate::time::Tick;

/// One run to clean up after.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Which run.
    pub(super) incarnation: Incarnation,
    /// Its process, which was the leader of its session and group; ended, and perhaps not reaped.
    pub(super) pid: i32,
    /// What counts as left behind.
    pub(super) scope: KillScope,
    /// The run's control group, where there is one.
    pub(super) group: Option<Group>,
    /// What its processes carry.
    pub(super) mark: u64,
    /// Whether what is found is left alone, and only told.
    pub(super) spared: bool,
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Work {
    Sweep(Sweep),
    Discard(Group),
}

/// What the thread has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// A sweep.
    Swept(Swept),
    /// So many groups were removed, or hold something.
    Discarded(usize),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Swept {
    /// Which run.
    pub(super) incarnation: Incarnation,
    /// The processes that were killed.
    pub(super) killed: Vec<i32>,
    /// The processes that were still there when the bound was reached.
    pub(super) left: Vec<i32>,
    /// The processes that were left alone.
    pub(super) spared: Vec<i32>,
    /// Whether a control group held all of them.
    pub(super) exact: bool,
}

/// How long a sweep may take.
const BOUND: Duration = Duration::from_secs(5);

/// The thread's handle: work goes in, reports come out after the waker was rung.
#[derive(Debug)]
pub(super) struct Sweeper {
    requests: Sender<Work>,
    /// What was done, as it comes.
    pub(super) reports: Receiver<Report>,
}

impl Sweeper {
    /// Starts the thread. The channel is bounded by the number of replicas: each has at most one
    /// sweep and one group to discard under way.
    ///
    /// `guardian` is looked below too: what a run started that outlived a manager belongs there.
    pub(super) fn start(waker: Waker, guardian: i32) -> std::io::Result<Self> {
        let (requests, inbox) = channel();
        let (outbox, reports) = channel();
        let poller = epoll::Poller::new()?;
        super::vital("sweeper", move || {
            let mut searches: Vec<Search> = Vec::new();
            loop {
                let first = if searches.is_empty() {
                    let Ok(first) = inbox.recv() else { return };
                    Some(first)
                } else {
                    None
                };
                let mut discarded = 0;
                for work in first.into_iter().chain(inbox.try_iter()) {
                    match work {
                        Work::Sweep(sweep) => searches.push(Search::new(sweep)),
                        Work::Discard(group) => {
                            group.remove_if_empty();
                            discarded += 1;
                        }
                    }
                }
                let mut reports = Vec::new();
                if discarded > 0 {
                    reports.push(Report::Discarded(discarded));
                }
                // All that are under way share one look at /proc, and none waits for another.
                look(&mut searches, guardian);
                let now = clock::now();
                let over = searches.extract_if(.., |search| search.is_over(now));
                reports.extend(over.map(|search| Report::Swept(search.report())));
                for report in reports {
                    if outbox.send(report).is_err() {
                        return;
                    }
                    waker.wake();
                }
                if let Some(first) = searches.first() {
                    wait_for(&poller, first.left[0]);
                }
            }
        })?;
        Ok(Self { requests, reports })
    }

    /// Asks for a sweep.
    pub(super) fn ask(&self, sweep: Sweep) {
        // The thread ends only with its handle.
        let _ = self.requests.send(Work::Sweep(sweep));
    }

    /// Has a group removed that nobody needs any more; it stays where something lives in it.
    pub(super) fn discard(&self, group: Group) {
        let _ = self.requests.send(Work::Discard(group));
    }
}

struct Search {
    sweep: Sweep,
    deadline: Tick,
    killed: BTreeSet<i32>,
    /// Those of them that were not in the control group.
    escaped: BTreeSet<i32>,
    left: Vec<i32>,
}

impl Search {
    fn new(sweep: Sweep) -> Self {
        let deadline = clock::now() + BOUND;
        let (killed, escaped, left) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Self { sweep, deadline, killed, escaped, left }
    }

    fn is_over(&self, now: Tick) -> bool {
        self.left.is_empty() || self.sweep.spared || self.deadline <= now
    }

    fn report(self) -> Swept {
        let killed = self.killed.into_iter().filter(|pid| !self.left.contains(pid)).collect();
        let (left, spared) =
            if self.sweep.spared { (Vec::new(), self.left) } else { (self.left, Vec::new()) };
        let exact = self.sweep.group.is_some() && self.escaped.is_empty();
        Swept { incarnation: self.sweep.incarnation, exact, killed, left, spared }
    }
}

/// Kills what can be seen of each, and notes what that was.
fn look(searches: &mut [Search], guardian: i32) {
    if searches.is_empty() {
        return;
    }
    // Groups first: what has left one is found by its mark, and only that costs a look at everybody.
    let mut held = Vec::with_capacity(searches.len());
    for search in &mut *searches {
        held.push(match &search.sweep.group {
            Some(group) if search.sweep.spared => group.members(),
            Some(group) => kill_group(group, &mut search.killed),
            None => Vec::new(),
        });
    }
    let is_needed = |(search, held): (&Search, &Vec<i32>)| {
        search.sweep.group.is_none() || held.is_empty() || search.sweep.spared
    };
    let looks = searches.iter().zip(&held).any(|(search, held)| is_needed((search, held)));
    let below = if looks { Below::look(guardian) } else { Below::default() };
    for (search, held) in searches.iter_mut().zip(held) {
        let (sweep, killed) = (&search.sweep, &mut search.killed);
        let mut found = below.of(sweep);
        found.retain(|pid| !held.contains(pid));
        if let Some(group) = &sweep.group {
            found.retain(|pid| !is_in(*pid, group));
            search.escaped.extend(&found);
        }
        if !sweep.spared {
            killed.extend(found.iter().copied().filter(|pid| below.kill(*pid)));
        }
        search.left = held;
        search.left.extend(found);
    }
}

/// Whether a process is in a group or below it.
fn is_in(pid: i32, group: &Group) -> bool {
    Group::of(pid).is_some_and(|own| own.path().starts_with(group.path()))
}

/// Kills a control group's members and returns those still there.
fn kill_group(group: &Group, killed: &mut BTreeSet<i32>) -> Vec<i32> {
    if !group.populated().unwrap_or(false) {
        return Vec::new();
    }
    let members = group.members();
    killed.extend(&members);
    let _ = group.kill();
    members
}

/// All processes at one moment, and the marks of those that descend from this one or its guardian. Both
/// are subreapers, so whatever a program started does, however often its parents died.
#[derive(Default)]
struct Below {
    processes: Vec<Stat>,
    marks: HashMap<u64, Vec<i32>>,
}

impl Below {
    fn look(guardian: i32) -> Self {
        let processes = procfs::all().unwrap_or_default();
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for one in &processes {
            children.entry(one.parent).or_default().push(one.pid);
        }
        let mut marks: HashMap<u64, Vec<i32>> = HashMap::new();
        // Who has another parent by now has no guardian any more, and its number may be a stranger's.
        let above = Some(guardian).filter(|pid| *pid == prctl::parent());
        let mut next: Vec<i32> = above.into_iter().chain([prctl::pid()]).collect();
        let mut seen = HashSet::new();
        while let Some(parent) = next.pop() {
            // A number can be reused between two of these looks, and close a circle.
            for child in children.remove(&parent).unwrap_or_default() {
                if seen.insert(child) {
                    next.push(child);
                    if let Some(mark) = mark::read(child) {
                        marks.entry(mark).or_default().push(child);
                    }
                }
            }
        }
        Self { processes, marks }
    }

    /// What is left of a run, but for zombies and its own process.
    fn of(&self, sweep: &Sweep) -> Vec<i32> {
        if sweep.pid <= 0 {
            // Nothing was left by what never was; and 0 is the session of kernel threads and of
            // processes from outside this namespace.
            return Vec::new();
        }
        let marked = self.marks.get(&sweep.mark).map_or(&[][..], Vec::as_slice);
        let belongs = |process: &Stat| match sweep.scope {
            KillScope::Process => false,
            KillScope::Group => process.group == sweep.pid,
            KillScope::Tree => {
                process.session == sweep.pid
                    || process.group == sweep.pid
                    || marked.contains(&process.pid)
            }
        };
        let left = self
            .processes
            .iter()
            .filter(|process| process.pid != sweep.pid && !process.is_zombie() && belongs(process));
        left.map(|process| process.pid).collect()
    }

    /// Kills one that was found; whether it could be.
    fn kill(&self, pid: i32) -> bool {
        // Looked at a moment ago; a descriptor first and a second look make sure that the number
        // still means the same process.
        let Ok(pidfd) = signal::open_pidfd(pid) else { return false };
        let seen = self.processes.iter().find(|process| process.pid == pid);
        if procfs::stat(pid).map(|now| now.start) != seen.map(|then| then.start) {
            return false;
        }
        let _ = signal::send(pidfd.as_fd(), Signal::KILL);
        true
    }
}

/// Waits for a killed process to be gone: on its pidfd, at most a few milliseconds.
fn wait_for(poller: &epoll::Poller, pid: i32) {
    let pidfd = signal::open_pidfd(pid).ok();
    if let Some(pidfd) = &pidfd {
        let _ = poller.add(pidfd.as_fd(), 0, epoll::Interest::Read);
    }
    let limit = if pidfd.is_some() { 50 } else { 2 };
    let _ = poller.wait(&mut epoll::Ready::new(1), Some(Duration::from_millis(limit)));
    if let Some(pidfd) = &pidfd {
        let _ = poller.remove(pidfd.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with a number that no process has leaves nothing, whatever else there is.
    #[test]
    fn what_left_nothing_is_reported_and_no_stranger_is_killed() {
        let sweeper = Sweeper::start(Waker::new().unwrap(), 0).unwrap();
        for (incarnation, pid) in [(1, 0), (2, i32::MAX)] {
            let incarnation = Incarnation(incarnation);
            let (scope, group, mark, spared) = (KillScope::Tree, None, 1, false);
            sweeper.ask(Sweep { incarnation, pid, scope, group, mark, spared });
            let swept = sweeper.reports.recv_timeout(Duration::from_secs(20)).unwrap();
            let (killed, left, spared) = (Vec::new(), Vec::new(), Vec::new());
            let nothing = Swept { incarnation, killed, left, spared, exact: false };
            assert_eq!(swept, Report::Swept(nothing));
        }
    }
}
