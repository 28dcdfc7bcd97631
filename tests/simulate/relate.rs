//! What one service means for others, worked out anew from the books whenever it is asked for: who may
//! start, who has to end first, what a group does, whose turn it is. Nothing is kept but what was said.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use wharf::event::{Action, Health, Rest};
use wharf::exit::Cause;
use wharf::name::{ReplicaId, Requester, ServiceName};
use wharf::spec::{Condition, Dependency, Group, KillScope, Strategy};
use wharf::supervise::Hold;
use wharf::time::Tick;

use super::book::{Book, Plan, Then};
use super::expect::Due;
use super::history::Sim;
use super::oracles::{Fault, Oracle, Tally};

/// How a replica stands for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Rests(Rest),
    Coming,
    Backoff,
    Started,
    Ready,
    Healthy,
    Ending,
    Stuck,
}

/// What can be said of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Holds,
    Waits,
    Never(Rest),
}

/// Who has to be down first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Dependents,
    Restarting,
    Group,
    Everything,
}

/// An end that comes when nobody is in the way.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) cause: Cause,
    pub(crate) by: Option<Requester>,
    pub(crate) then: Then,
    pub(crate) scope: Scope,
}

/// What an end means for its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallout {
    Restart,
    GiveUp,
}

/// A group and its restarts of late.
#[derive(Debug, Clone)]
pub(crate) struct Team {
    pub(crate) group: Group,
    pub(crate) recent: Vec<Tick>,
}

/// One replica after the other.
#[derive(Debug, Clone)]
pub(crate) struct Roll {
    pub(crate) cause: Cause,
    pub(crate) by: Requester,
    pub(crate) left: BTreeSet<u32>,
    pub(crate) current: Option<u32>,
}

impl Team {
    /// Restarts that count now.
    pub(crate) fn spent(&self, now: Tick) -> usize {
        self.recent.iter().filter(|at| now.since(**at) < self.group.within).count()
    }

    pub(crate) fn within(&self) -> Duration {
        self.group.within
    }
}

impl Sim {
    // ---- questions ---------------------------------------------------------------------------

    fn of(&self, service: &ServiceName) -> impl Iterator<Item = (&ReplicaId, &Book)> {
        let id = |replica| ReplicaId { service: service.clone(), replica };
        self.books.range(id(0)..=id(u32::MAX))
    }

    fn stand(&self, id: &ReplicaId, book: &Book) -> Stand {
        match &book.run {
            Some(run) if run.unkillable => Stand::Stuck,
            Some(run) if run.asked.is_some() || run.held.is_some() => Stand::Ending,
            Some(run) if run.ready.is_some() => match run.health() {
                None | Some(Health::Healthy) => Stand::Healthy,
                Some(Health::Starting | Health::Unhealthy) => Stand::Ready,
            },
            Some(run) if run.started.is_some() => Stand::Started,
            Some(_) => Stand::Coming,
            None if book.sweeping.is_some() || book.sweep_owed.is_some() => Stand::Ending,
            None => match book.plan {
                Plan::Rest(rest) => Stand::Rests(rest),
                Plan::At(_) => Stand::Backoff,
                Plan::Due(..) if self.is_skipped(&id.service) => Stand::Rests(Rest::Failed),
                Plan::Due(..) | Plan::Deferred(..) => Stand::Coming,
            },
        }
    }

    fn stands(&self, service: &ServiceName) -> Vec<Stand> {
        let configured = self.of(service).filter(|(_, book)| book.configured);
        configured.map(|(id, book)| self.stand(id, book)).collect()
    }

    /// Whether what is in line is kept from starting for good.
    pub(crate) fn is_skipped(&self, service: &ServiceName) -> bool {
        self.needs(service).into_iter().any(|(name, how)| {
            how.required && matches!(self.fact(&name, how.condition), Fact::Never(_))
        })
    }

    fn fact(&self, service: &ServiceName, condition: Condition) -> Fact {
        let stands = self.stands(service);
        let any = |one: Stand| stands.contains(&one);
        let finished = Stand::Rests(Rest::Finished);
        let rest = if any(Stand::Rests(Rest::Failed)) {
            Rest::Failed
        } else if any(finished) && condition != Condition::Completed {
            Rest::Finished
        } else {
            Rest::Stopped
        };
        if stands.is_empty() {
            return Fact::Holds;
        }
        if condition == Condition::Completed {
            return if stands.iter().all(|stand| *stand == finished) {
                Fact::Holds
            } else if any(Stand::Rests(Rest::Failed)) || any(Stand::Rests(Rest::Stopped)) {
                Fact::Never(rest)
            } else {
                Fact::Waits
            };
        }
        let runs = condition == Condition::Started;
        let up = any(Stand::Started) || any(Stand::Ready);
        let there = any(Stand::Healthy) || runs && (up || any(finished));
        let scheduled = any(Stand::Rests(Rest::Scheduled));
        let under_way = any(Stand::Coming) || any(Stand::Ending) || scheduled || !runs && up;
        if there && !under_way {
            Fact::Holds
        } else if there || under_way || any(Stand::Backoff) || any(Stand::Stuck) {
            Fact::Waits
        } else {
            Fact::Never(rest)
        }
    }

    pub(crate) fn needs(&self, service: &ServiceName) -> Vec<(ServiceName, Dependency)> {
        let known = self.services.get(service);
        let needs = known.into_iter().flat_map(|known| &known.service.depends_on);
        needs.map(|(name, how)| (name.clone(), *how)).collect()
    }

    fn dependents(&self, service: &ServiceName) -> Vec<ServiceName> {
        let all = self.services.iter();
        let depends = all.filter(|(_, known)| known.service.depends_on.contains_key(service));
        depends.map(|(name, _)| name.clone()).collect()
    }

    /// The group of a service, and its place there.
    pub(crate) fn home(&self, service: &ServiceName) -> Option<(&str, &Team, usize)> {
        self.teams.iter().find_map(|(name, team)| {
            let place = team.group.services.iter().position(|member| member == service)?;
            Some((name.as_str(), team, place))
        })
    }

    /// Why a service may not be started now.
    pub(crate) fn gate(&self, service: &ServiceName) -> Option<Hold> {
        let needs = self.needs(service);
        let facts: Vec<_> = needs
            .into_iter()
            .map(|(name, how)| {
                let fact = self.fact(&name, how.condition);
                (name, how, fact)
            })
            .collect();
        for (name, how, fact) in &facts {
            if let (Fact::Never(rest), true) = (fact, how.required) {
                let (service, condition) = (name.clone(), how.condition);
                return Some(Hold::Without { service, condition, rest: *rest });
            }
        }
        if let Some((name, how, _)) = facts.into_iter().find(|(.., fact)| *fact == Fact::Waits) {
            return Some(Hold::Until { service: name, condition: how.condition });
        }
        let (group, team, place) = self.home(service)?;
        let (earlier, later) = team.group.services.split_at(place);
        let together = team.group.strategy != Strategy::OneForOne;
        let is = |name: &ServiceName, all: &[Stand]| {
            self.stands(name).iter().any(|stand| all.contains(stand))
        };
        let ends = |name: &ServiceName| together && is(name, &[Stand::Ending]);
        if later[1..].iter().any(ends) {
            return Some(Hold::Emptying { group: group.into() });
        }
        let comes = |name: &ServiceName| {
            is(name, &[Stand::Coming, Stand::Started])
                || together && is(name, &[Stand::Backoff, Stand::Ending])
        };
        earlier.iter().any(comes).then(|| Hold::Turn { group: group.into() })
    }

    fn is_busy(&self, service: &ServiceName) -> bool {
        self.of(service).any(|(id, book)| match &book.run {
            Some(run) => !run.unkillable,
            None => {
                book.sweeping.is_some()
                    || book.sweep_owed.is_some()
                    || self.is_to_be_swept(id, book)
            }
        })
    }

    /// Whether an end of an earlier life, which is still to be recorded, left something behind.
    fn is_to_be_swept(&self, id: &ReplicaId, book: &Book) -> bool {
        let left = |(replica, due): &(ReplicaId, Due)| {
            replica == id && due.past.is_some() && due.end.survivors
        };
        book.service.stop.kill != KillScope::Process && self.due.values().any(left)
    }

    pub(crate) fn is_in_the_way(&self, service: &ServiceName, scope: Scope) -> bool {
        let dependents = |restart: bool| {
            let all = self.dependents(service).into_iter();
            let meant = |one: &ServiceName| {
                !restart || self.services[one].service.depends_on[service].restart
            };
            all.filter(meant).any(|one| self.is_busy(&one))
        };
        let later = || {
            self.home(service).is_some_and(|(_, team, place)| {
                team.group.services[place + 1..].iter().any(|one| self.is_busy(one))
            })
        };
        match scope {
            Scope::Dependents => dependents(false),
            Scope::Restarting => dependents(true),
            Scope::Group => later(),
            Scope::Everything => dependents(false) || later(),
        }
    }

    pub(crate) fn is_any_wanted(&self, service: &ServiceName) -> bool {
        self.of(service).any(|(_, book)| book.configured && book.wanted)
    }

    /// The replicas of a service that are configured.
    pub(crate) fn configured(&self, service: &ServiceName) -> Vec<ReplicaId> {
        let configured = self.of(service).filter(|(_, book)| book.configured);
        configured.map(|(id, _)| id.clone()).collect()
    }

    // ---- what follows ------------------------------------------------------------------------

    /// Ends a run now, or when nobody is in the way; what has none and is to rest, rests.
    pub(crate) fn end_in_order(&mut self, id: &ReplicaId, held: Held) {
        let waits = self.is_in_the_way(&id.service, held.scope);
        let now = self.now;
        let Some(book) = self.books.get_mut(id) else { return };
        let rest = match held.then {
            Then::Rest => Some(Rest::Stopped),
            Then::GiveUp => Some(Rest::Failed),
            Then::Again | Then::Judge => None,
        };
        match (&mut book.run, rest) {
            // It was stopped, and stays so whatever becomes of others.
            (Some(run), None) if run.asked.is_none() && !book.wanted && run.is_to_rest() => {}
            (Some(run), _) if run.asked.is_none() => {
                if waits && run.started.is_some() {
                    run.held = Some(held);
                } else {
                    book.ask_for(held.cause, held.by, now, held.then);
                }
            }
            (Some(run), Some(_)) => {
                let asked = run.asked.as_mut().expect("it is being ended");
                if asked.then != Then::Rest {
                    asked.then = held.then;
                }
            }
            (None, Some(rest))
                if !book.plan.is_rest()
                    && (rest == Rest::Stopped || book.plan != Plan::Rest(Rest::Scheduled)) =>
            {
                book.plan = Plan::Rest(rest);
                book.given_up = held.then == Then::GiveUp;
            }
            (Some(_) | None, _) => {}
        }
    }

    /// Lets go whom nobody keeps any more, and gives turns, until nothing follows.
    pub(crate) fn follow(&mut self) {
        if self.due.is_empty() {
            while let Some((id, fallout)) = self.fallouts.pop_front() {
                self.answer_for(&id, fallout);
            }
        }
        loop {
            let free = self.books.iter().find_map(|(id, book)| {
                let run = book.run.as_ref().filter(|run| run.asked.is_none())?;
                let scope = run.held.as_ref()?.scope;
                (!self.is_in_the_way(&id.service, scope)).then(|| id.clone())
            });
            if let Some(id) = free {
                let now = self.now;
                let book = self.books.get_mut(&id).expect("it was found");
                let held = book.run.as_mut().and_then(|run| run.held.take());
                let held = held.expect("it was looked at");
                book.ask_for(held.cause, held.by, now, held.then);
                continue;
            }
            let rolling: Vec<_> = self.rolls.keys().cloned().collect();
            if !rolling.iter().any(|service| self.turn(service)) {
                return;
            }
        }
    }

    /// The next one's turn, if the one before it is done; says whether anything was done.
    fn turn(&mut self, service: &ServiceName) -> bool {
        let (now, step) = (self.now, self.step);
        let Some(roll) = self.rolls.get(service) else { return false };
        let id = |replica| ReplicaId { service: service.clone(), replica };
        if let Some(current) = roll.current {
            let id = id(current);
            let book = self.books.get(&id).filter(|book| book.configured);
            match book.map(|book| self.stand(&id, book)) {
                Some(Stand::Coming | Stand::Started | Stand::Ending) => return false,
                None | Some(Stand::Ready | Stand::Healthy) => {
                    self.rolls.get_mut(service).expect("it is there").current = None;
                }
                Some(Stand::Rests(_) | Stand::Backoff | Stand::Stuck) => {
                    let left = u32::try_from(roll.left.len()).unwrap();
                    self.halts.push((id, left));
                    self.rolls.remove(service);
                }
            }
            return true;
        }
        let roll = self.rolls.get_mut(service).expect("it is there");
        let Some(next) = roll.left.pop_first() else {
            self.rolls.remove(service);
            return true;
        };
        let (cause, by) = (roll.cause, roll.by.clone());
        let Some(book) = self.books.get_mut(&id(next)).filter(|book| book.configured) else {
            return true;
        };
        let outdated = book.run.as_ref().is_some_and(|run| run.outdated);
        if cause == Cause::ConfigChanged && !outdated {
            return true;
        }
        self.rolls.get_mut(service).expect("it is there").current = Some(next);
        if cause == Cause::ConfigChanged {
            book.change(&by, now, step);
        } else if book.run.is_none() {
            book.due(step);
        } else {
            book.ask(cause, &by, now, Then::Again);
        }
        true
    }

    /// What the end of one means for the others of its group.
    fn answer_for(&mut self, id: &ReplicaId, fallout: Fallout) {
        let Some((name, team, place)) = self.home(&id.service) else { return };
        let (name, members) = (name.to_owned(), team.group.services.clone());
        let first = match (fallout, team.group.strategy) {
            (Fallout::Restart, Strategy::OneForOne) => return,
            (Fallout::Restart, Strategy::RestForOne) => place + 1,
            (Fallout::Restart, Strategy::OneForAll) | (Fallout::GiveUp, _) => 0,
        };
        let then = match fallout {
            Fallout::Restart => Then::Again,
            Fallout::GiveUp => {
                self.teams.get_mut(&name).expect("it is there").recent.clear();
                Then::GiveUp
            }
        };
        for member in members.iter().skip(first).rev() {
            if fallout == Fallout::GiveUp {
                self.rolls.remove(member);
            }
            for other in self.configured(member) {
                if other != *id {
                    let cause = Cause::GroupStrategy;
                    let held = Held { cause, by: None, then, scope: Scope::Group };
                    self.end_in_order(&other, held);
                }
            }
        }
    }

    /// Where the steps lead from a service, the nearest first.
    fn walk(
        &self,
        service: &ServiceName,
        step: impl Fn(&ServiceName) -> Vec<ServiceName>,
    ) -> Vec<ServiceName> {
        let mut queue = VecDeque::from([service.clone()]);
        let mut seen = vec![service.clone()];
        while let Some(name) = queue.pop_front() {
            for next in step(&name) {
                if self.services.contains_key(&next) && !seen.contains(&next) {
                    seen.push(next.clone());
                    queue.push_back(next);
                }
            }
        }
        seen.split_off(1)
    }

    /// A stop of all that depends on a service.
    pub(crate) fn stop_behind(&mut self, service: &ServiceName, by: &Requester) {
        for name in self.walk(service, |name| self.dependents(name)) {
            self.rolls.remove(&name);
            self.services.get_mut(&name).expect("it is configured").stopped = true;
            for id in self.configured(&name) {
                self.books.get_mut(&id).expect("it is configured").wanted = false;
                let held = Held {
                    cause: Cause::DependencyStopped,
                    by: Some(by.clone()),
                    then: Then::Rest,
                    scope: Scope::Dependents,
                };
                self.end_in_order(&id, held);
            }
        }
    }

    /// Whether a service that is stopped waits for what depends on it, all of which was stopped too.
    pub(crate) fn is_being_cleared(&self, service: &ServiceName) -> bool {
        self.is_in_the_way(service, Scope::Dependents)
            && self.dependents(service).iter().all(|one| !self.is_any_wanted(one))
    }

    /// A restart of what is restarted with a service.
    pub(crate) fn restart_behind(&mut self, service: &ServiceName, by: &Requester) {
        let behind = |name: &ServiceName| -> Vec<ServiceName> {
            let busy = name == service || self.is_busy(name);
            let with =
                |one: &ServiceName| busy && self.services[one].service.depends_on[name].restart;
            self.dependents(name).into_iter().filter(with).collect()
        };
        for name in self.walk(service, behind) {
            for id in self.configured(&name) {
                let held = Held {
                    cause: Cause::DependencyStopped,
                    by: Some(by.clone()),
                    then: Then::Again,
                    scope: Scope::Restarting,
                };
                self.end_in_order(&id, held);
            }
        }
    }

    /// A start of what a service needs and what would not come by itself.
    pub(crate) fn pull(&mut self, service: &ServiceName) {
        let step = self.step;
        let mut found: Vec<(ServiceName, Condition)> = Vec::new();
        let mut queue = VecDeque::from([service.clone()]);
        while let Some(name) = queue.pop_front() {
            for (needed, how) in self.needs(&name) {
                let missing = match self.fact(&needed, how.condition) {
                    Fact::Holds => false,
                    Fact::Waits => !self.is_any_wanted(&needed),
                    Fact::Never(_) => true,
                };
                let healthy = how.condition == Condition::Healthy;
                let known = found.iter().any(|(one, condition)| {
                    *one == needed && (*condition == Condition::Healthy) == healthy
                });
                if missing && !known {
                    found.push((needed.clone(), how.condition));
                    queue.push_back(needed);
                }
            }
        }
        for (needed, condition) in found {
            if let Some(known) = self.services.get_mut(&needed) {
                known.stopped = false;
            }
            for id in self.configured(&needed) {
                let book = self.books.get_mut(&id).expect("it is configured");
                let finished = book.is_empty() && book.plan == Plan::Rest(Rest::Finished);
                if finished && condition != Condition::Healthy {
                    continue;
                }
                book.wanted = true;
                book.start(step);
            }
        }
    }

    // ---- oracles -----------------------------------------------------------------------------

    /// What keeps a replica from starting is what is shown of it.
    pub(crate) fn hold_is_true(
        &self,
        id: &ReplicaId,
        shown: Option<&Hold>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let book = &self.books[id];
        let hold = match book.plan {
            Plan::Due(..) if book.is_empty() => self.gate(&id.service),
            Plan::Rest(Rest::Failed) if book.is_empty() && book.given_up => {
                let gave_up = matches!(shown, Some(Hold::GaveUp { .. }));
                return t.hold(Oracle::GroupEndsAsOne, gave_up, || format!("{id}: {shown:?}"));
            }
            _ => None,
        };
        let oracle = match hold.as_ref().or(shown) {
            Some(Hold::Without { .. }) => Oracle::DependentsAreSkipped,
            Some(Hold::Turn { .. } | Hold::Emptying { .. }) => Oracle::GroupStartsInOrder,
            Some(Hold::GaveUp { .. }) => Oracle::GroupEndsAsOne,
            Some(Hold::Until { .. }) | None => Oracle::DependenciesAreWaitedFor,
        };
        t.hold(oracle, hold.as_ref() == shown, || {
            format!("{id} is kept by {hold:?}, shown as {shown:?}")
        })
    }

    /// Who is to end after others is left alone while these are there.
    pub(crate) fn held_are_held(&self, t: &mut Tally) -> Result<(), Fault> {
        for (id, book) in &self.books {
            let Some(run) = &book.run else { continue };
            if let Some(held) = run.held.as_ref().filter(|_| run.asked.is_none()) {
                let oracle = match held.scope {
                    Scope::Group => Oracle::GroupEndsInReverse,
                    Scope::Restarting => Oracle::DependentsRestartToo,
                    Scope::Dependents | Scope::Everything => Oracle::DependentsStopFirst,
                };
                let kept = self.is_in_the_way(&id.service, held.scope);
                t.hold(oracle, kept && run.steps.is_empty(), || format!("{id}: {run:?}"))?;
            }
        }
        Ok(())
    }

    /// One replica after the other: never two at once, and it is said where it stops.
    pub(crate) fn turns_are_taken(&self, actions: &[Action], t: &mut Tally) -> Result<(), Fault> {
        let told: Vec<_> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Halted { replica, left } => Some((replica.clone(), *left)),
                _ => None,
            })
            .collect();
        t.hold(Oracle::RollingStopsAtAFailure, told == self.halts, || {
            format!("halted at {:?}, told {told:?}", self.halts)
        })?;
        let rolling = |one: &&ServiceName| self.supervisor.is_rolling(one);
        let known: Vec<_> = self.services.keys().filter(rolling).collect();
        let right = self.rolls.keys().eq(known.iter().copied());
        t.hold(Oracle::RollingIsOneAtATime, right, || {
            format!("{known:?} take turns, and should {:?}", self.rolls.keys())
        })
    }
}
