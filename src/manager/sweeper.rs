//! Finding and killing what a run left behind, on a thread of its own with a bound on its time; and,
//! when everything ends at once, removing control groups beside the loop.
//!
//! With a control group that is one write and a wait for emptiness. Without one, survivors are the
//! members of the run's session or process group and those orphans of it that were reparented to
//! this process; that is a best effort, and the report says which of the two it was.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::exit::Signal;
use crate::name::Incarnation;
use crate::os::cgroup::Group;
use crate::os::fds::Waker;
use crate::os::procfs::Stat;
use crate::os::{clock, epoll, procfs, signal};
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
    /// Whether nothing could have escaped the search.
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
    pub(super) fn start(waker: Waker) -> std::io::Result<Self> {
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
                look(&mut searches);
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
    left: Vec<i32>,
}

impl Search {
    fn new(sweep: Sweep) -> Self {
        let deadline = clock::now() + BOUND;
        Self { sweep, deadline, killed: BTreeSet::new(), left: Vec::new() }
    }

    fn is_over(&self, now: Tick) -> bool {
        self.left.is_empty() || self.deadline <= now
    }

    fn report(self) -> Swept {
        Swept {
            incarnation: self.sweep.incarnation,
            exact: self.sweep.group.is_some(),
            killed: self.killed.into_iter().filter(|pid| !self.left.contains(pid)).collect(),
            left: self.left,
        }
    }
}

/// Kills what can be seen of each, and notes what that was.
fn look(searches: &mut [Search]) {
    let scanned = searches.iter().any(|search| search.sweep.group.is_none());
    let processes = if scanned { procfs::all().unwrap_or_default() } else { Vec::new() };
    for search in searches {
        search.left = match &search.sweep.group {
            Some(group) => kill_group(group, &mut search.killed),
            None => kill_found(&search.sweep, &processes, &mut search.killed),
        };
    }
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

/// Kills what a look at /proc shows of a run and returns it, but for zombies.
fn kill_found(sweep: &Sweep, processes: &[Stat], killed: &mut BTreeSet<i32>) -> Vec<i32> {
    let me = crate::os::prctl::pid();
    let mut found = Vec::new();
    if sweep.pid <= 0 {
        // Nothing was left by what never was; and 0 is the session of kernel threads and of
        // processes from outside this namespace.
        return found;
    }
    for process in processes {
        let marked = || {
            let variable = procfs::variable(process.pid, "WHARF_INCARNATION");
            variable.is_some_and(|value| value == sweep.incarnation.to_string())
        };
        let belongs = match sweep.scope {
            KillScope::Process => false,
            KillScope::Group => process.group == sweep.pid,
            KillScope::Tree => {
                process.session == sweep.pid
                    || process.group == sweep.pid
                    || (process.parent == me && marked())
            }
        };
        if belongs && process.pid != sweep.pid && !process.is_zombie() {
            found.push(process.pid);
        }
    }
    for pid in &found {
        // Looked at a moment ago; a descriptor first and a second look make sure that the number
        // still means the same process.
        let Ok(pidfd) = signal::open_pidfd(*pid) else { continue };
        let seen = processes.iter().find(|process| process.pid == *pid);
        if procfs::stat(*pid).map(|now| now.start) == seen.map(|then| then.start) {
            let _ = signal::send(pidfd.as_fd(), Signal::KILL);
            killed.insert(*pid);
        }
    }
    found
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
        let sweeper = Sweeper::start(Waker::new().unwrap()).unwrap();
        for (incarnation, pid) in [(1, 0), (2, i32::MAX)] {
            let incarnation = Incarnation(incarnation);
            sweeper.ask(Sweep { incarnation, pid, scope: KillScope::Tree, group: None });
            let swept = sweeper.reports.recv_timeout(Duration::from_secs(20)).unwrap();
            let (killed, left) = (Vec::new(), Vec::new());
            let nothing = Swept { incarnation, killed, left, exact: false };
            assert_eq!(swept, Report::Swept(nothing));
        }
    }
}
