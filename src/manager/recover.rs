//! What an earlier life left behind: killed if it still runs, and told to the supervisor.
//!
//! The table of what is alive says which runs have no record yet. The guardian has killed and reaped
//! what came to it and has written how it ended into the table; when the guardian died too, nobody
//! has, and whatever survived is found by control group or by the marks in its environment.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Alive, End, Oom, Past, PastEnd, Rest};
use crate::exit::{Cause, How, Signal};
use crate::journal::{Journal, JournalError};
use crate::name::{Incarnation, ReplicaId};
use crate::os::cgroup::{self, Controller, Controllers, MemoryCount, Seat, Version};
use crate::os::live::{Phase, Slot, Table};
use crate::os::procfs::{self, Stat, Stuck};
use crate::os::{clock, epoll, mark, prctl, signal};
use crate::spec::{KillScope, Service, Spec};

/// What an earlier life left, ready for the loop.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// For the supervisor.
    pub(super) past: Vec<Past>,
    /// Runs without a record whose replica has a later run without one: recorded, nothing else.
    pub(super) superseded: Vec<(ReplicaId, Incarnation, End, Cause)>,
    /// The slot that tells how each replica rests.
    pub(super) homes: HashMap<ReplicaId, usize>,
    /// Slots that may be claimed below the mark.
    pub(super) free: Vec<usize>,
    /// Every slot from here on is free.
    pub(super) mark: usize,
}

/// What is known of the runs of an earlier life beside the table.
pub(super) struct Before {
    /// Whether its guardian is this one's.
    pub(super) same_guardian: bool,
    /// Those that go on.
    pub(super) alive: Vec<Alive>,
    /// Those in whose groups the kernel has killed for memory what was told to nobody.
    pub(super) starved: HashSet<Incarnation>,
}

/// Reads the table. Runs that have their record are forgotten; the others are told. Under a new
/// guardian everything begins afresh (`wharf up`), so old runs are recorded and nothing follows.
pub(super) fn recover(
    table: &Table,
    journal: &Journal,
    before: Before,
    configured: impl Fn(&ReplicaId) -> bool,
) -> Result<Recovered, JournalError> {
    let Before { same_guardian, alive, starved } = before;
    let cause = if same_guardian { Cause::ManagerDied } else { Cause::GuardianDied };
    let open = |slot: &Slot| slot.phase() == Phase::Open;
    // Nothing is kept of it by another guardian.
    let lingers = |slot: &Slot| slot.phase() == Phase::Lingers;
    let wanted: HashSet<Incarnation> =
        table.used().filter(|(_, slot)| open(slot)).map(|(_, slot)| slot.incarnation()).collect();
    let recorded = journal.recorded(&wanted)?;
    let mut found = Recovered::default();
    let mut unrecorded: HashMap<ReplicaId, Vec<(Incarnation, End)>> = HashMap::new();
    let mut resting = Vec::new();
    let alive: HashMap<Incarnation, Alive> =
        alive.into_iter().map(|alive| (alive.incarnation, alive)).collect();
    let mut going_on: HashMap<ReplicaId, Alive> = HashMap::new();
    for (index, slot) in table.used() {
        found.mark = found.mark.max(index + 1);
        let Some(replica) = slot.replica().filter(|_| same_guardian || !lingers(slot)) else {
            slot.set_phase(Phase::Free);
            continue;
        };
        if lingers(slot) {
            continue;
        }
        if !open(slot) {
            found.homes.insert(replica.clone(), index);
            resting.push((replica, rest_of(slot.phase()), (slot.row(), slot.due())));
        } else if let Some(alive) = alive.get(&slot.incarnation()) {
            going_on.insert(replica, alive.clone());
        } else if recorded.contains(&slot.incarnation()) || slot.pid().is_none() {
            // Recorded already, or killed before there was a process: nothing ran.
            slot.set_phase(Phase::Free);
        } else {
            let how = slot.kept_end().map_or(How::Unseen, |(how, _)| how);
            let is_starved = how != How::Unseen && starved.contains(&slot.incarnation());
            let oom = if is_starved { Oom::Now } else { Oom::No };
            let end = End { oom, ..End::plain(how) };
            unrecorded.entry(replica).or_default().push((slot.incarnation(), end));
        }
    }
    for (replica, ended, (row, until)) in resting {
        if same_guardian && !unrecorded.contains_key(&replica) && !going_on.contains_key(&replica) {
            let ended = ended.map_or(PastEnd::Between, PastEnd::Resting);
            found.past.push(Past { replica, ended, row, until });
        }
    }
    for (replica, mut runs) in unrecorded {
        runs.sort_by_key(|(incarnation, _)| *incarnation);
        let row = found.homes.get(&replica).map_or(0, |home| table.slot(*home).row());
        // The last one is what the replica was doing, unless one after it goes on.
        let is_last = same_guardian && !going_on.contains_key(&replica);
        if is_last && let Some((incarnation, end)) = runs.pop() {
            let ended = PastEnd::Unrecorded { incarnation, end, cause };
            found.past.push(Past { replica: replica.clone(), ended, row, until: None });
        }
        let older =
            runs.into_iter().map(|(incarnation, end)| (replica.clone(), incarnation, end, cause));
        found.superseded.extend(older);
    }
    for (replica, alive) in going_on {
        let row = found.homes.get(&replica).map_or(0, |home| table.slot(*home).row());
        found.past.push(Past { replica, ended: PastEnd::Alive(alive), row, until: None });
    }
    // What is no longer configured was left by an earlier `wharf up`: nobody would ever forget it.
    let gone = found.homes.extract_if(|replica, _| !configured(replica));
    gone.for_each(|(_, home)| table.slot(home).set_phase(Phase::Free));
    found.past.sort_by(|one, other| one.replica.cmp(&other.replica));
    let free = |index: &usize| table.slot(*index).phase() == Phase::Free;
    found.free = (0..found.mark).filter(free).collect();
    Ok(found)
}

fn rest_of(phase: Phase) -> Option<Rest> {
    match phase {
        Phase::Stopped => Some(Rest::Stopped),
        Phase::Finished => Some(Rest::Finished),
        Phase::Failed => Some(Rest::Failed),
        Phase::Scheduled => Some(Rest::Scheduled),
        Phase::Free | Phase::Between | Phase::Open | Phase::Lingers => None,
    }
}

/// What the control group of a replica is called.
pub(super) fn group_name(id: &ReplicaId) -> String {
    format!("{}.{}", id.service, id.replica)
}

/// The runs without a record in whose groups the kernel has killed for memory what was told to nobody.
pub(super) fn out_of_memory(
    table: &Table,
    controllers: &Controllers,
    cgroups: Option<&cgroup::Root>,
) -> HashSet<Incarnation> {
    let (root, version) = match (controllers.seat(Controller::Memory), cgroups) {
        (Ok(Seat::Own(folder)), _) => (cgroup::Root::at(folder.clone()), Version::One),
        (Ok(Seat::Unified), Some(root)) => (cgroup::Root::at(root.path().to_owned()), Version::Two),
        (Ok(Seat::Unified), None) | (Err(_), _) => return HashSet::new(),
    };
    let open = table.used().filter(|(_, slot)| slot.phase() == Phase::Open);
    let starved = open.filter_map(|(_, slot)| {
        let told = slot.kept().memory()?.told;
        let count = MemoryCount::of(&root.existing(&group_name(&slot.replica()?)), version)?;
        (count.kills()? > told).then(|| slot.incarnation())
    });
    starved.collect()
}

/// How long what an earlier life left may take to die, but for what the kernel holds.
const BOUND: Duration = Duration::from_secs(5);

/// Kills what is left of an earlier life, except for the runs of `spared`. `alone` is there where the
/// guardian of that life is dead too, and says whether that was in this boot of the machine.
/// Returns the processes that could not be killed within the bound.
pub(super) fn clean_up(
    table: &Table,
    cgroups: Option<&cgroup::Root>,
    alone: Option<bool>,
    spared: &[ReplicaId],
) -> Vec<i32> {
    let deadline = clock::now() + BOUND;
    let spared: HashSet<String> = spared.iter().map(group_name).collect();
    let groups = || -> Vec<cgroup::Group> {
        let mut groups = cgroups.map(cgroup::Root::groups).unwrap_or_default();
        groups.retain(|group| {
            let name = group.path().file_name().and_then(|name| name.to_str());
            name.is_none_or(|name| !spared.contains(name))
        });
        groups
    };
    let mut stuck = Stuck::default();
    loop {
        let mut left = Vec::new();
        for group in groups() {
            if group.populated().unwrap_or(false) {
                left.extend(group.members());
                let _ = group.kill();
            }
        }
        if let Some(same_boot) = alone {
            left.extend(kill_marked(table, same_boot));
        }
        let now = clock::now();
        if left.is_empty() || now >= deadline || stuck.for_good(left.clone(), now) {
            // Those that were killed cannot be used again, and the others are as quickly made anew.
            groups().iter().for_each(cgroup::Group::remove);
            return left;
        }
        wait_for(left[0]);
    }
}

/// The replicas of kept services whose runs leave alone what they started.
pub(super) fn leaving(spec: &Spec) -> Vec<ReplicaId> {
    let leaves =
        |service: &&Arc<Service>| service.is_kept() && service.stop.kill == KillScope::Process;
    let all = spec.services.values().filter(leaves);
    let replicas = all.flat_map(|service| {
        let id = |replica| ReplicaId { service: service.name.clone(), replica };
        (1..=service.replicas).map(id)
    });
    replicas.collect()
}

/// The replicas of which a group of an earlier life could not be removed: something in it was killed and
/// is still there.
pub(super) fn killed_groups(
    cgroups: Option<&cgroup::Root>,
    spec: &Spec,
    spared: &[ReplicaId],
) -> HashSet<ReplicaId> {
    let groups = cgroups.map(cgroup::Root::groups).unwrap_or_default();
    let name = |group: cgroup::Group| Some(group.path().file_name()?.to_str()?.to_owned());
    let left: HashSet<String> = groups.into_iter().filter_map(name).collect();
    if left.is_empty() {
        return HashSet::new();
    }
    let replicas = spec.services.values().flat_map(|service| {
        let id = |replica| ReplicaId { service: service.name.clone(), replica };
        (1..=service.replicas).map(id)
    });
    let is_left = |id: &ReplicaId| left.contains(&format!("{}.{}", id.service, id.replica));
    replicas.filter(|id| is_left(id) && !spared.contains(id)).collect()
}

/// Kills processes whose environment says that they belong to a run of this table, and that have no
/// living wharf above them.
fn kill_marked(table: &Table, same_boot: bool) -> Vec<i32> {
    // Only runs that have no record: any other is over, and its number alone names it in this
    // folder, not on this machine.
    let open = || table.used().filter(|(_, slot)| slot.phase() == Phase::Open);
    let runs: HashMap<Incarnation, ReplicaId> =
        open().filter_map(|(_, slot)| Some((slot.incarnation(), slot.replica()?))).collect();
    // Those that were to be kept are known by number and start time, whatever their environment says.
    let noted: HashSet<(i32, u64)> = open()
        .filter(|_| same_boot)
        .filter_map(|(_, slot)| Some((slot.pid()?, slot.kept().born()?)))
        .collect();
    if runs.is_empty() {
        return Vec::new();
    }
    let all: HashMap<i32, Stat> =
        procfs::all().unwrap_or_default().into_iter().map(|stat| (stat.pid, stat)).collect();
    let marks: HashSet<u64> = runs.keys().map(|run| mark::of(table.realm(), *run)).collect();
    let mut killed = Vec::new();
    for stat in all.values().filter(|stat| !stat.is_zombie() && stat.pid != prctl::pid()) {
        // One that changed its environment, or hid from it, carries the mark all the same.
        let belongs = noted.contains(&(stat.pid, stat.start))
            || mark::read(stat.pid).is_some_and(|mark| marks.contains(&mark))
            || is_marked(stat.pid, &runs);
        if !belongs || is_guarded(stat, &all) {
            continue;
        }
        // A descriptor first and a second look: the number must still mean this process.
        let Ok(pidfd) = signal::open_pidfd(stat.pid) else { continue };
        if procfs::stat(stat.pid).map(|now| now.start) == Some(stat.start) {
            let _ = signal::send(pidfd.as_fd(), Signal::KILL);
            killed.push(stat.pid);
        }
    }
    killed
}

/// Whether the environment of a process says that it belongs to one of these runs.
fn is_marked(pid: i32, runs: &HashMap<Incarnation, ReplicaId>) -> bool {
    let number = |name: &str| procfs::variable(pid, name)?.parse::<u64>().ok();
    let incarnation = number("WHARF_INCARNATION").map(Incarnation);
    let Some(id) = incarnation.and_then(|run| runs.get(&run)) else { return false };
    let service = procfs::variable(pid, "WHARF_SERVICE");
    service.as_deref() == Some(id.service.as_str())
        && number("WHARF_REPLICA") == Some(u64::from(id.replica))
}

/// Whether a living wharf is among a process's ancestors: then it is not ours to kill.
fn is_guarded(stat: &Stat, all: &HashMap<i32, Stat>) -> bool {
    let own = program(prctl::pid());
    let mut above = stat.parent;
    // The depth of a tree is bounded by the number of processes; a loop cannot be, but costs nothing
    // to exclude.
    for _ in 0..all.len() {
        let Some(parent) = all.get(&above) else { return false };
        let is_wharf = own.is_some() && program(parent.pid) == own;
        if is_wharf && parent.pid != prctl::parent() {
            return true;
        }
        above = parent.parent;
    }
    false
}

/// The name of the file a process executes. One that was replaced since (by an upgrade) carries a
/// mark of that, see proc(5), which is no part of its name.
fn program(pid: i32) -> Option<String> {
    let path = procfs::executable(pid)?;
    let name = path.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// Waits a moment for a process to be gone.
fn wait_for(pid: i32) {
    let Ok(poller) = epoll::Poller::new() else { return };
    let pidfd = signal::open_pidfd(pid);
    if let Ok(pidfd) = &pidfd {
        let _ = poller.add(pidfd.as_fd(), 0, epoll::Interest::Read);
    }
    let limit = if pidfd.is_ok() { 50 } else { 2 };
    let _ = poller.wait(&mut epoll::Ready::new(1), Some(Duration::from_millis(limit)));
}
