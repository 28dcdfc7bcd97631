//! The supervisor: all replicas, who may start when, and what everybody waits for.
//!
//! It hears one event at a time and answers with actions; it keeps no thread and no timer. A step
//! about one replica costs the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::event::{Action, Event, Reread, State};
use crate::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use crate::spec::{Cgroups, Service};
use crate::time::Tick;

use super::backoff::Chance;
use super::graph::Graph;
use super::machine::{Context, Fallout, Heard, Input, Retry, Source, Turn};
use super::replica::Replica;
use super::roll::{Halted, Roll};
use super::view::{Marks, View};

/// So many replicas are between the order to start and the running program at once; others wait,
/// first come, first served. It keeps a start of thousands gentle without slowing that of a few.
pub const MAX_STARTING: usize = 32;

/// Decides what happens to all services of a manager.
///
/// Serialisable with a version, so that an upgraded manager carries on in the middle of anything.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub(super) source: Source,
    /// What the configuration in effect says around its services; `None` before the first one.
    pub(super) configured: Option<Cgroups>,
    /// Whether everything is to end.
    pub(super) closing: bool,
    /// Whether it has been said that nothing runs any more.
    pub(super) closed: bool,
    pub(super) services: BTreeMap<ServiceName, Known>,
    pub(super) replicas: BTreeMap<ReplicaId, Replica>,
    pub(super) index: Index,
    /// Who waits for whom.
    pub(super) graph: Graph,
    /// Services whose replicas make room for new runs one after the other.
    pub(super) rolls: BTreeMap<ServiceName, Roll>,
    /// Those of them of whose replicas something happened.
    pub(super) turning: BTreeSet<ServiceName>,
    /// Replicas of kept services with another memo than was last asked for.
    pub(super) noted: BTreeSet<ReplicaId>,
    /// Ends that mean something for the others of a group.
    pub(super) fallouts: VecDeque<(ReplicaId, Fallout)>,
    /// Whose files have changed, or may have, and what is to be told of that when the step is settled.
    pub(super) news: Vec<(ReplicaId, Box<Reread>)>,
}

/// A configured service.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) service: Arc<Service>,
    /// Whether an operator stopped it as a whole: replicas to come are stopped too.
    pub(super) stopped: bool,
    /// Where the last restart of one replica after the other was halted.
    pub(super) halted: Option<Halted>,
}

/// The replicas by what is asked about them. Derived from them and never written.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    runs: BTreeMap<Incarnation, ReplicaId>,
    deadlines: BTreeSet<(Tick, ReplicaId)>,
    queue: BTreeMap<Turn, ReplicaId>,
    deferred: BTreeMap<Retry, ReplicaId>,
    /// How many are between the order to start and the program.
    starting: usize,
    busy: usize,
}

impl Index {
    /// Replaces what is held of a replica.
    pub(super) fn update(&mut self, id: &ReplicaId, before: Marks, after: Marks) {
        if before.run != after.run {
            before.run.map(|run| self.runs.remove(&run));
            after.run.map(|run| self.runs.insert(run, id.clone()));
        }
        if before.deadline != after.deadline {
            before.deadline.map(|at| self.deadlines.remove(&(at, id.clone())));
            after.deadline.map(|at| self.deadlines.insert((at, id.clone())));
        }
        if before.queued != after.queued {
            before.queued.map(|turn| self.queue.remove(&turn));
            after.queued.map(|turn| self.queue.insert(turn, id.clone()));
        }
        if before.deferred != after.deferred {
            before.deferred.map(|retry| self.deferred.remove(&retry));
            after.deferred.map(|retry| self.deferred.insert(retry, id.clone()));
        }
        self.starting = self.starting + usize::from(after.starting) - usize::from(before.starting);
        self.busy = self.busy + usize::from(after.busy) - usize::from(before.busy);
    }
}

impl Supervisor {
    /// A supervisor that knows of no service yet. Runs are numbered from `next_incarnation`; `seed`
    /// is the source of all chance (the jitter of waits).
    pub fn new(next_incarnation: Incarnation, seed: u64) -> Self {
        Self {
            source: Source { next_incarnation, next_turn: 0, chance: Chance::new(seed) },
            configured: None,
            closing: false,
            closed: false,
            services: BTreeMap::new(),
            replicas: BTreeMap::new(),
            index: Index::default(),
            graph: Graph::default(),
            rolls: BTreeMap::new(),
            turning: BTreeSet::new(),
            noted: BTreeSet::new(),
            fallouts: VecDeque::new(),
            news: Vec::new(),
        }
    }

    /// Hears what happened and says what is to be done, in this order.
    ///
    /// `now` never goes back. Events about runs that are over are ignored.
    pub fn step(&mut self, now: Tick, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        match event {
            Event::Configure(configure) => self.configure(now, *configure, out),
            Event::Command { verb, target, by } => self.command(now, verb, &target, &by, out),
            Event::Shutdown { cause, by } => self.shut_down(now, cause, &by, out),
            Event::Spawned { incarnation } => self.tell(now, incarnation, Heard::Spawned, out),
            Event::Started { incarnation } => self.tell(now, incarnation, Heard::Started, out),
            Event::Ready { incarnation } => self.tell(now, incarnation, Heard::Ready, out),
            Event::Deferred { incarnation, errno: _ } => {
                self.tell(now, incarnation, Heard::Lacking, out);
            }
            Event::Ended { incarnation, end } => {
                if self.index.runs.contains_key(&incarnation) {
                    self.tell(now, incarnation, Heard::Ended(end), out);
                    self.wake_one(now, out);
                }
            }
            Event::Swept { incarnation, stuck } => {
                self.tell(now, incarnation, Heard::Swept { stuck }, out);
            }
            Event::ProtocolError { incarnation } => {
                self.tell(now, incarnation, Heard::ProtocolError, out);
            }
            Event::Due { service } => self.due(now, &service, out),
            Event::OutOfMemory { incarnation } => {
                self.tell(now, incarnation, Heard::OutOfMemory, out);
            }
            Event::Probed { incarnation, number, result } => {
                self.tell(now, incarnation, Heard::Probed { number, result }, out);
            }
            Event::Said { incarnation, said } => {
                self.tell(now, incarnation, Heard::Said(said), out);
            }
            Event::Measured { incarnation, bytes } => {
                self.tell(now, incarnation, Heard::Measured(bytes), out);
            }
            Event::Time => self.pass(now, out),
        }
        self.settle(now, out);
        self.tell_news(now, out);
        self.admit(now, out);
        if self.closing && !self.closed && self.index.busy == 0 {
            self.closed = true;
            actions.push(Action::Down);
        }
        actions
    }

    /// When [`Event::Time`] is wanted next, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.index.deadlines.first().map(|(at, _)| *at)
    }

    /// How a replica stands; `None` when there is none of that name.
    pub fn view(&self, replica: &ReplicaId) -> Option<View> {
        self.replicas.get(replica).map(Replica::view)
    }

    /// How all replicas stand, by service and number. One that is no longer configured is among
    /// them until nothing of it is left.
    pub fn views(&self) -> impl Iterator<Item = View> + '_ {
        self.replicas.values().map(Replica::view)
    }

    /// The same, each with the restarts that it has left before it is given up.
    pub fn views_and_budgets(&self, now: Tick) -> impl Iterator<Item = (View, u32)> + '_ {
        self.replicas.values().map(move |replica| (replica.view(), replica.budget(now)))
    }

    /// Whether there is any replica of a service, configured or leaving.
    pub fn has_replicas(&self, service: &ServiceName) -> bool {
        self.replicas_of(service).next().is_some()
    }

    /// Whether a service has ended for good: every replica that it is to have has ended, or cannot be
    /// started because what it depends on failed, and neither the policy nor a schedule asks for another
    /// run. An operator's stop is no such end, nor is a service without replicas.
    pub fn is_over(&self, service: &ServiceName) -> bool {
        let Some(known) = self.services.get(service) else { return false };
        let mut replicas = self.replicas_of(service).filter(|one| !one.is_leaving()).peekable();
        known.service.schedule.is_none()
            && replicas.peek().is_some()
            && replicas.all(|one| matches!(one.state(), State::Finished | State::Failed))
    }

    /// The services that an operator has stopped. To be kept whenever [`Action::Persist`] is asked
    /// for, and given back to the next life of the manager.
    pub fn stopped(&self) -> Vec<ServiceName> {
        let stopped = self.services.iter().filter(|(_, known)| known.stopped);
        stopped.map(|(name, _)| name.clone()).collect()
    }

    /// The number that the next run will have.
    pub fn next_incarnation(&self) -> Incarnation {
        self.source.next_incarnation
    }

    /// Whether a shutdown is under way or over.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// One thing happens to one replica; its indexes and its visible changes follow.
    pub(super) fn drive(
        &mut self,
        now: Tick,
        id: &ReplicaId,
        actions: &mut Vec<Action>,
        what: impl FnOnce(&mut Replica, &mut Context<'_>),
    ) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let (marks, seen, gist) = (replica.marks(), replica.view(), replica.gist());
        let team = self.graph.team_of(&id.service);
        let mut cx = Context { now, source: &mut self.source, actions, team, fallout: None };
        what(replica, &mut cx);
        if let Some(fallout) = cx.fallout {
            self.fallouts.push_back((id.clone(), fallout));
        }
        if replica.is_in_line() {
            replica.set_hold(now, self.graph.gate(&id.service));
        }
        let gone = replica.is_gone();
        let after = if gone { Marks::default() } else { replica.marks() };
        let changed = replica.view() != seen;
        if replica.gist() != gist && replica.service.is_kept() {
            self.noted.insert(id.clone());
        }
        self.index.update(id, marks, after);
        self.graph.update(&id.service, marks, after);
        if marks.standing != after.standing && self.rolls.contains_key(&id.service) {
            self.turning.insert(id.service.clone());
        }
        if gone {
            self.replicas.remove(id);
            actions.push(Action::Forget { replica: id.clone() });
        } else if changed {
            actions.push(Action::Changed { replica: id.clone() });
        }
    }

    /// An event about a run reaches its replica, if that run is its present one.
    fn tell(
        &mut self,
        now: Tick,
        incarnation: Incarnation,
        heard: Heard,
        actions: &mut Vec<Action>,
    ) {
        if let Some(id) = self.index.runs.get(&incarnation).cloned() {
            self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::Heard(heard)));
        }
    }

    /// The time of a service's schedule has come.
    fn due(&mut self, now: Tick, service: &ServiceName, actions: &mut Vec<Action>) {
        if self.closing {
            return;
        }
        let clock = Requester { uid: None, pid: None, who: "the schedule".to_owned() };
        let target = Target { service: service.clone(), replica: None };
        for id in self.configured_replicas(&target) {
            self.drive(now, &id, actions, |replica, cx| {
                if replica.is_wanted() {
                    replica.step(cx, Input::Due(&clock));
                }
            });
        }
    }

    /// The replicas a target means, without those that are no longer configured.
    pub(super) fn configured_replicas(&self, target: &Target) -> Vec<ReplicaId> {
        let number = target.replica.unwrap_or(0)..=target.replica.unwrap_or(u32::MAX);
        self.replicas_of(&target.service)
            .filter(|replica| number.contains(&replica.id.replica) && !replica.is_leaving())
            .map(|replica| replica.id.clone())
            .collect()
    }

    /// The replicas of a service, in order.
    pub(super) fn replicas_of(&self, service: &ServiceName) -> impl Iterator<Item = &Replica> {
        let id = |replica| ReplicaId { service: service.clone(), replica };
        self.replicas.range(id(0)..=id(u32::MAX)).map(|(_, replica)| replica)
    }

    pub(super) fn is_any_wanted(&self, service: &ServiceName) -> bool {
        self.replicas_of(service).any(|replica| replica.is_wanted() && !replica.is_leaving())
    }

    /// Resources may have become free: who has waited for them longest tries again.
    fn wake_one(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if let Some((_, id)) = self.index.deferred.first_key_value() {
            let id = id.clone();
            self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::Wake));
        }
    }

    fn pass(&mut self, now: Tick, actions: &mut Vec<Action>) {
        while let Some((_, id)) = self.index.deadlines.first().filter(|(at, _)| *at <= now) {
            let id = id.clone();
            self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::Deadline));
        }
    }

    fn admit(&mut self, now: Tick, actions: &mut Vec<Action>) {
        while self.index.starting < MAX_STARTING
            && let Some((_, id)) = self.index.queue.first_key_value()
        {
            let id = id.clone();
            self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::Admit));
        }
    }
}
