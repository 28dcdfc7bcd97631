//! Finding and killing what a run left behind, on a thread of its own with a bound on its time.
//!
//! With a control group that is one write and a wait for emptiness. Without one, survivors are the
//! members of the run's session or process group and those orphans of it that were reparented to
//! this process; that is a best effort, and the report says which of the two it was.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::exit::Signal;
use crate::name::Incarnation;
use crate::os::cgroup::Group;
use crate::os::fds::Waker;
use crate::os::procfs::Stat;
use crate::os::{clock, epoll, procfs, signal};
use crate::spec::KillScope;

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
pub(super) const BOUND: Duration = Duration::from_secs(5);

/// The thread's handle: sweeps go in, reports come out after the waker was rung.
#[derive(Debug)]
pub(super) struct Sweeper {
    requests: Sender<Sweep>,
    /// What was found, as it comes.
    pub(super) reports: Receiver<Swept>,
}

impl Sweeper {
    /// Starts the thread. The channel is bounded by the number of replicas: each has at most one
    /// sweep under way.
    pub(super) fn start(waker: Waker) -> std::io::Result<Self> {
        let (requests, inbox) = channel::<Sweep>();
        let (outbox, reports) = channel();
        super::vital("sweeper", move || {
            while let Ok(first) = inbox.recv() {
                // All that wait share one look at /proc.
                let mut sweeps = vec![first];
                sweeps.extend(inbox.try_iter());
                for swept in sweep(sweeps) {
                    if outbox.send(swept).is_err() {
                        return;
                    }
                }
                waker.wake();
            }
        })?;
        Ok(Self { requests, reports })
    }

    /// Asks for a sweep.
    pub(super) fn ask(&self, sweep: Sweep) {
        // The thread ends only with its handle.
        let _ = self.requests.send(sweep);
    }
}

struct Search {
    sweep: Sweep,
    killed: BTreeSet<i32>,
    left: Vec<i32>,
    done: bool,
}

fn sweep(sweeps: Vec<Sweep>) -> Vec<Swept> {
    let deadline = clock::now() + BOUND;
    let searches = sweeps.into_iter().map(|sweep| Search {
        sweep,
        killed: BTreeSet::new(),
        left: Vec::new(),
        done: false,
    });
    let mut searches: Vec<Search> = searches.collect();
    let pause = Pause::new();
    loop {
        let scanned = searches.iter().any(|search| !search.done && search.sweep.group.is_none());
        let processes = if scanned { procfs::all().unwrap_or_default() } else { Vec::new() };
        for search in searches.iter_mut().filter(|search| !search.done) {
            search.left = match &search.sweep.group {
                Some(group) => kill_group(group, &mut search.killed),
                None => kill_found(&search.sweep, &processes, &mut search.killed),
            };
            search.done = search.left.is_empty();
        }
        if searches.iter().all(|search| search.done) || clock::now() >= deadline {
            break;
        }
        pause.wait(searches.iter().find(|search| !search.done));
    }
    let reports = searches.into_iter().map(|search| Swept {
        incarnation: search.sweep.incarnation,
        exact: search.sweep.group.is_some(),
        killed: search.killed.into_iter().filter(|pid| !search.left.contains(pid)).collect(),
        left: search.left,
    });
    reports.collect()
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
struct Pause {
    poller: Option<epoll::Poller>,
}

impl Pause {
    fn new() -> Self {
        Self { poller: epoll::Poller::new().ok() }
    }

    fn wait(&self, search: Option<&Search>) {
        let Some(poller) = &self.poller else { return };
        let pidfd = search
            .and_then(|search| search.left.first())
            .and_then(|pid| signal::open_pidfd(*pid).ok());
        let mut ready = epoll::Ready::new(1);
        let watched = |fd: BorrowedFd<'_>| poller.add(fd, 0, epoll::Interest::Read);
        if let Some(pidfd) = &pidfd {
            let _ = watched(pidfd.as_fd());
        }
        let limit = if pidfd.is_some() { 50 } else { 2 };
        let _ = poller.wait(&mut ready, Some(Duration::from_millis(limit)));
        if let Some(pidfd) = &pidfd {
            let _ = poller.remove(pidfd.as_fd());
        }
    }
}
