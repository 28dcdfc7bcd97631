//! Who waits for whom: dependencies and groups as one graph of services, with what has to be known of
//! each service to answer at once.
//!
//! It is told how each replica stands and answers two questions: may a service be started
//! ([`Graph::gate`]), and is somebody in the way of ending it ([`Graph::is_in_the_way`]). It never
//! starts or ends anything; whose answers may have changed it notes in `stale` and `freed`. A change
//! costs the logarithm of the number of services, and what it changes for those who wait. Services that
//! nobody waits for and that wait for nobody are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::event::Rest;
use crate::name::ServiceName;
use crate::spec::{Condition, Dependency, Group, Service, Strategy};

use super::hold::{Hold, Scope};
use super::intensity::Intensity;
use super::view::Marks;

/// How one replica stands, as far as others wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Down, and nothing starts it.
    Stopped,
    Finished,
    /// Failed for good, given up, or skipped.
    Failed,
    /// It has never run, and waits for the time of its schedule.
    Scheduled,
    /// To be started; its program does not run yet.
    Coming,
    /// It failed and is tried again later.
    Backoff,
    /// Its program runs and is not ready.
    Started,
    /// It is ready, and not seen to be well.
    Ready,
    /// It is ready and, where that is looked at, seen to be well.
    Healthy,
    /// It is being ended, or is to be ended as soon as nobody is in the way.
    Ending,
    /// It cannot be ended.
    Stuck,
}

/// How many standings there are.
const STANDINGS: usize = 11;

/// What can be said of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    Holds,
    Waits,
    /// Not by itself: so it rests.
    Never(Rest),
}

/// The graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    nodes: BTreeMap<ServiceName, Node>,
    pub(super) groups: Vec<Team>,
    /// Services whose gate may have changed.
    pub(super) stale: BTreeSet<ServiceName>,
    /// Services that may be ended now, if they are to end.
    pub(super) freed: BTreeSet<ServiceName>,
}

/// A service that is in a relation.
#[derive(Debug, Clone, Default)]
struct Node {
    /// How many of its configured replicas stand how.
    tally: [u32; STANDINGS],
    /// How many replicas have a run or are being swept, configured or not.
    busy: u32,
    needs: Arc<[(ServiceName, Dependency)]>,
    dependents: Arc<[ServiceName]>,
    /// Its group and its place there.
    home: Option<(usize, usize)>,
    /// How many services that depend on it are busy.
    behind: u32,
    /// How many of them are restarted with it.
    restarting: u32,
}

/// A group with what is to be known of its members.
#[derive(Debug, Clone)]
pub(super) struct Team {
    pub(super) name: Arc<str>,
    pub(super) group: Group,
    /// Its restarts of late.
    pub(super) recent: Intensity,
    /// Places of members that are on their way up: those after them wait.
    coming: BTreeSet<usize>,
    /// Places of members that are on their way down: those before them wait.
    ending: BTreeSet<usize>,
    /// Places of members that have a run.
    busy: BTreeSet<usize>,
}

impl Team {
    fn new(name: &str, group: &Group, recent: Intensity) -> Self {
        Self {
            name: name.into(),
            group: group.clone(),
            recent,
            coming: BTreeSet::new(),
            ending: BTreeSet::new(),
            busy: BTreeSet::new(),
        }
    }
}

impl Node {
    fn count(&self, standings: &[Standing]) -> u32 {
        standings.iter().map(|standing| self.tally[*standing as usize]).sum()
    }

    /// What can be said of a condition. It holds when all replicas that are not down have got there, and
    /// one at least; of a service without replicas nothing is expected.
    fn fact(&self, condition: Condition) -> Fact {
        use Standing::{
            Backoff, Coming, Ending, Failed, Finished, Healthy, Ready, Scheduled, Started, Stopped,
            Stuck,
        };
        let total: u32 = self.tally.iter().sum();
        let rest = if self.count(&[Failed]) > 0 {
            Rest::Failed
        } else if self.count(&[Finished]) > 0 && condition != Condition::Completed {
            Rest::Finished
        } else {
            Rest::Stopped
        };
        let (there, under_way) = match condition {
            _ if total == 0 => return Fact::Holds,
            Condition::Started => {
                (&[Started, Ready, Healthy, Finished][..], &[Coming, Ending, Scheduled][..])
            }
            Condition::Healthy => {
                (&[Healthy][..], &[Coming, Started, Ready, Ending, Scheduled][..])
            }
            // Every one has to complete: one that is down for another reason is missing.
            Condition::Completed if self.count(&[Finished]) == total => return Fact::Holds,
            Condition::Completed if self.count(&[Failed, Stopped]) > 0 => {
                return Fact::Never(rest);
            }
            Condition::Completed => return Fact::Waits,
        };
        match (self.count(there), self.count(under_way), self.count(&[Backoff, Stuck])) {
            (1.., 0, _) => Fact::Holds,
            (0, 0, 0) => Fact::Never(rest),
            _ => Fact::Waits,
        }
    }

    fn facts(&self) -> [Fact; 3] {
        [Condition::Started, Condition::Healthy, Condition::Completed].map(|one| self.fact(one))
    }

    /// Whether those after it in its group wait for it.
    fn is_coming(&self, strategy: Strategy) -> bool {
        use Standing::{Backoff, Coming, Ending, Started};
        match strategy {
            // One that keeps failing is its own affair.
            Strategy::OneForOne => self.count(&[Coming, Started]) > 0,
            Strategy::OneForAll | Strategy::RestForOne => {
                self.count(&[Coming, Started, Backoff, Ending]) > 0
            }
        }
    }

    /// Whether those before it in its group wait for its end.
    fn is_ending(&self, strategy: Strategy) -> bool {
        strategy != Strategy::OneForOne && self.count(&[Standing::Ending]) > 0
    }
}

impl Graph {
    /// The graph of a configuration in which nothing runs yet. Groups that are as before keep count of
    /// their restarts.
    pub(super) fn new<'s, 'g>(
        services: impl Iterator<Item = &'s Arc<Service>> + Clone,
        groups: impl Iterator<Item = (&'g str, &'g Group)>,
        before: &Self,
    ) -> Self {
        let mut graph = Self::default();
        let mut dependents: BTreeMap<ServiceName, Vec<ServiceName>> = BTreeMap::new();
        for service in services.filter(|service| !service.depends_on.is_empty()) {
            let needs = service.depends_on.iter().map(|(name, one)| (name.clone(), *one));
            graph.nodes.entry(service.name.clone()).or_default().needs = needs.collect();
            for name in service.depends_on.keys() {
                dependents.entry(name.clone()).or_default().push(service.name.clone());
            }
        }
        for (name, all) in dependents {
            graph.nodes.entry(name).or_default().dependents = all.into();
        }
        for (at, (name, group)) in groups.enumerate() {
            for (place, member) in group.services.iter().enumerate() {
                graph.nodes.entry(member.clone()).or_default().home = Some((at, place));
            }
            let limit = (group.max_restarts, group.within);
            let same = before.groups.iter().find(|team| {
                *team.name == *name && (team.group.max_restarts, team.group.within) == limit
            });
            let recent = same.map(|team| team.recent.clone()).unwrap_or_default();
            graph.groups.push(Team::new(name, group, recent));
        }
        graph
    }

    /// The group of a service.
    pub(super) fn team_of(&mut self, name: &ServiceName) -> Option<&mut Team> {
        let (at, _) = self.nodes.get(name)?.home?;
        self.groups.get_mut(at)
    }

    /// The group of a service, by number, and its place there.
    pub(super) fn home_of(&self, name: &ServiceName) -> Option<(usize, usize)> {
        self.nodes.get(name)?.home
    }

    /// What a service waits for.
    pub(super) fn needs_of(&self, name: &ServiceName) -> Arc<[(ServiceName, Dependency)]> {
        self.nodes.get(name).map(|node| Arc::clone(&node.needs)).unwrap_or_default()
    }

    /// Who waits for a service.
    pub(super) fn dependents_of(&self, name: &ServiceName) -> Arc<[ServiceName]> {
        self.nodes.get(name).map(|node| Arc::clone(&node.dependents)).unwrap_or_default()
    }

    /// Whether `dependent` is restarted with `name`.
    pub(super) fn restarts_with(&self, dependent: &ServiceName, name: &ServiceName) -> bool {
        let needs = self.nodes.get(dependent).map(|node| &node.needs);
        needs.is_some_and(|needs| needs.iter().any(|(one, how)| one == name && how.restart))
    }

    /// Whether any replica has a run.
    pub(super) fn is_busy(&self, name: &ServiceName) -> bool {
        self.nodes.get(name).is_some_and(|node| node.busy > 0)
    }

    /// What can be said of a condition on a service. Of one that is not configured nothing is expected.
    pub(super) fn fact(&self, name: &ServiceName, condition: Condition) -> Fact {
        self.nodes.get(name).map_or(Fact::Holds, |node| node.fact(condition))
    }

    /// Why a service is not to be started now; `None` when it may be. What can never come true by itself
    /// comes before what is waited for, and dependencies before the order of a group.
    pub(super) fn gate(&self, name: &ServiceName) -> Option<Hold> {
        let node = self.nodes.get(name)?;
        let mut waits = None;
        for (service, dependency) in node.needs.iter() {
            let (service, condition) = (service.clone(), dependency.condition);
            match self.fact(&service, condition) {
                Fact::Never(rest) if dependency.required => {
                    return Some(Hold::Without { service, condition, rest });
                }
                Fact::Waits if waits.is_none() => waits = Some(Hold::Until { service, condition }),
                Fact::Never(_) | Fact::Waits | Fact::Holds => {}
            }
        }
        if waits.is_some() {
            return waits;
        }
        let (at, place) = node.home?;
        let team = &self.groups[at];
        let group = Arc::clone(&team.name);
        if team.ending.last().is_some_and(|last| *last > place) {
            return Some(Hold::Emptying { group });
        }
        let waits = team.coming.first().is_some_and(|first| *first < place);
        waits.then_some(Hold::Turn { group })
    }

    /// Whether somebody has to be down before a service is asked to end.
    pub(super) fn is_in_the_way(&self, name: &ServiceName, scope: Scope) -> bool {
        let Some(node) = self.nodes.get(name) else { return false };
        let later = || {
            node.home.is_some_and(|(at, place)| {
                self.groups[at].busy.last().is_some_and(|last| *last > place)
            })
        };
        match scope {
            Scope::Dependents => node.behind > 0,
            Scope::Restarting => node.restarting > 0,
            Scope::Group => later(),
            Scope::Everything => node.behind > 0 || later(),
        }
    }

    /// Replaces what is held of a replica.
    pub(super) fn update(&mut self, name: &ServiceName, before: Marks, after: Marks) {
        if before.standing == after.standing && before.busy == after.busy {
            return;
        }
        let Some(node) = self.nodes.get_mut(name) else { return };
        let (facts, busy) = (node.facts(), node.busy > 0);
        if let Some(standing) = before.standing {
            node.tally[standing as usize] -= 1;
        }
        if let Some(standing) = after.standing {
            node.tally[standing as usize] += 1;
        }
        node.busy = node.busy + u32::from(after.busy) - u32::from(before.busy);
        let (now_busy, home) = (node.busy > 0, node.home);
        let needs = (busy != now_busy).then(|| Arc::clone(&node.needs));
        if node.facts() != facts {
            self.stale.extend(node.dependents.iter().cloned());
        }
        for (needed, how) in needs.iter().flat_map(|needs| needs.iter()) {
            let Some(node) = self.nodes.get_mut(needed) else { continue };
            let one = |count: u32| if now_busy { count + 1 } else { count - 1 };
            node.behind = one(node.behind);
            if how.restart {
                node.restarting = one(node.restarting);
            }
            if !now_busy {
                self.freed.insert(needed.clone());
            }
        }
        if let Some((at, place)) = home {
            self.update_team(name, at, place);
        }
    }

    /// What a group knows of one of its members.
    fn update_team(&mut self, name: &ServiceName, at: usize, place: usize) {
        let (node, team) = (&self.nodes[name], &mut self.groups[at]);
        let strategy = team.group.strategy;
        let put = |set: &mut BTreeSet<usize>, there: bool| {
            if there {
                set.insert(place);
            } else {
                set.remove(&place);
            }
        };
        let members = team.group.services.len();
        let first = |set: &BTreeSet<usize>| set.first().copied().unwrap_or(members);
        let last = |set: &BTreeSet<usize>| set.last().copied().unwrap_or(0);
        let (coming, ending, busy) = (first(&team.coming), last(&team.ending), last(&team.busy));
        put(&mut team.coming, node.is_coming(strategy));
        put(&mut team.ending, node.is_ending(strategy));
        put(&mut team.busy, node.busy > 0);
        let between = |a: usize, b: usize| -> Range<usize> { a.min(b)..a.max(b) };
        let named = |places: Range<usize>| {
            let places = places.start..places.end.min(members);
            team.group.services[places].iter().cloned()
        };
        let waited = between(coming, first(&team.coming));
        // Who comes after the first on its way up waits for it; it does not wait for itself.
        self.stale.extend(named(waited.start..waited.end + 1));
        self.stale.extend(named(between(ending, last(&team.ending))));
        self.freed.extend(named(between(busy, last(&team.busy))));
    }
}

#[cfg(test)]
mod tests;
