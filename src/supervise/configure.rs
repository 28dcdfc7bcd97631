//! A configuration takes effect: the first one with what an earlier life left behind, and reloads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::event::{Action, Configure, Past, PastEnd, Rest, State};
use crate::exit::Cause;
use crate::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use crate::spec::Service;
use crate::time::Tick;

use super::hold::{Held, Scope};
use super::ladder::After;
use super::machine::Input;
use super::memo::Memo;
use super::plan::{Takes, shuts_out};
use super::replica::Replica;
use super::supervisor::{Known, Supervisor};
use super::view::Marks;

impl Supervisor {
    /// Makes a configuration the present one.
    pub(super) fn configure(&mut self, now: Tick, configure: Configure, actions: &mut Vec<Action>) {
        let Configure { spec, by, past, stopped, down } = configure;
        let before_all = self.configured.replace(spec.cgroups);
        // What is said around the services concerns every process there is.
        let all = before_all.is_some_and(|before| before != spec.cgroups);
        let past = if before_all.is_some() { Vec::new() } else { past };
        if self.closing {
            // Nothing is started any more, but what has ended is to be recorded all the same.
            for past in past {
                self.bury(now, past, &by, actions);
            }
            return;
        }
        let is_stale = |past: &&Past| matches!(&past.ended, PastEnd::Alive(alive) if alive.stale);
        let stale: Vec<_> = past.iter().filter(is_stale).map(|past| past.replica.clone()).collect();
        let mut past: HashMap<_, _> =
            past.into_iter().map(|past| (past.replica.clone(), past)).collect();
        let stopped: HashSet<ServiceName> = stopped.into_iter().collect();
        let before = self.stopped();

        let removed: Vec<_> = self
            .services
            .keys()
            .filter(|name| !spec.services.contains_key(*name))
            .cloned()
            .collect();
        for name in &removed {
            self.end_roll(name);
            self.services.remove(name);
        }
        let mut takes = Vec::with_capacity(spec.services.len());
        for (name, service) in &spec.services {
            takes.push(self.take_service(service, stopped.contains(name), all, &by));
        }
        self.relate(spec.groups.iter().map(|(name, group)| (name.as_str(), group)));
        for name in removed {
            self.dismiss_above(now, &name, 0, &by, actions);
        }
        // First: nothing that is about to be restarted is why these end.
        for (name, service) in &spec.services {
            self.dismiss_above(now, name, service.replicas, &by, actions);
        }
        // Then: whoever ends with one that is restarted ends by its own present configuration.
        for (service, takes) in spec.services.values().zip(&takes) {
            self.take_in_place(now, service, takes, actions);
        }
        for ((name, service), takes) in spec.services.iter().zip(takes) {
            self.configure_service(now, service, &takes, &by, actions);
            for replica in 1..=service.replicas {
                let id = ReplicaId { service: name.clone(), replica };
                if !self.replicas.contains_key(&id) {
                    let past = past.remove(&id);
                    self.arrive(now, id, past, down.is_some(), &by, actions);
                }
            }
        }
        let mut strangers: Vec<_> = past.into_values().collect();
        strangers.sort_by(|a, b| a.replica.cmp(&b.replica));
        for past in strangers {
            self.bury(now, past, &by, actions);
        }
        for id in stale {
            let missed = self.replicas.get(&id).and_then(|replica| replica.missed_news(&by));
            self.news.extend(missed.map(|news| (id, news)));
        }
        match down {
            Some((cause, by)) => self.shut_down(now, cause, &by, actions),
            None if before_all.is_none() => self.go_on_changing(now, &spec.services, &by, actions),
            None => {}
        }
        if self.stopped() != before {
            actions.push(Action::Persist);
        }
    }

    /// Tells programs that their files have changed, once it is known which of them are to end all the same.
    pub(super) fn tell_news(&mut self, now: Tick, actions: &mut Vec<Action>) {
        for (id, news) in std::mem::take(&mut self.news) {
            self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::Reread(news)));
        }
    }

    /// Takes a service's configuration, and says what that means for its runs.
    fn take_service(
        &mut self,
        service: &Arc<Service>,
        stopped: bool,
        all: bool,
        by: &Requester,
    ) -> Takes {
        let known = self.services.get(&service.name);
        let takes = match known {
            Some(_) if all => Takes::NewRuns,
            Some(known) if !Arc::ptr_eq(&known.service, service) => {
                Takes::between(&known.service, service, by)
            }
            Some(_) | None => Takes::Nothing,
        };
        // An operator's word on a service that stays is already known here.
        let stopped = known.map_or(stopped, |known| known.stopped);
        let halted = known.and_then(|known| known.halted);
        let known = Known { service: Arc::clone(service), stopped, halted };
        self.services.insert(service.name.clone(), known);
        takes
    }

    /// A service's new configuration is in force at once for the replicas it already has, where they need no
    /// new runs for it.
    fn take_in_place(
        &mut self,
        now: Tick,
        service: &Arc<Service>,
        takes: &Takes,
        actions: &mut Vec<Action>,
    ) {
        let news = match takes {
            Takes::NewRuns => return,
            Takes::Telling(reread) => Some(reread),
            Takes::Nothing => None,
        };
        let all = Target { service: service.name.clone(), replica: None };
        for id in self.configured_replicas(&all) {
            self.drive(now, &id, actions, |replica, cx| replica.take_over(cx, service));
            self.news.extend(news.map(|news| (id, Box::new(news.clone()))));
        }
    }

    /// A service's new configuration makes new runs of the replicas it already has. Several that run make room one
    /// after the other, unless others are restarted with them or a socket of theirs is in the way.
    fn configure_service(
        &mut self,
        now: Tick,
        service: &Arc<Service>,
        takes: &Takes,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        let name = &service.name;
        let restart = *takes == Takes::NewRuns;
        let stopped = self.services[name].stopped;
        let waits = restart && self.graph.is_in_the_way(name, Scope::Restarting);
        let mut turns = BTreeSet::new();
        if restart {
            self.end_roll(name);
            if waits {
                self.restart_behind(now, name, by, actions);
            } else {
                let run = |replica: &&Replica| replica.has_run() && !replica.is_leaving();
                turns = self.replicas_of(name).filter(run).map(|one| one.id.replica).collect();
                turns.retain(|number| *number <= service.replicas);
            }
        }
        let in_the_way =
            |one: &Replica| turns.contains(&one.id.replica) && shuts_out(&one.service, service);
        if turns.len() < 2 || self.replicas_of(name).any(in_the_way) {
            turns.clear();
        }
        let present: Vec<_> = self
            .replicas_of(&service.name)
            .filter(|replica| replica.id.replica <= service.replicas)
            .map(|replica| (replica.id.clone(), replica.is_leaving()))
            .collect();
        for (id, leaving) in present {
            self.drive(now, &id, actions, |replica, cx| {
                if leaving {
                    replica.set_leaving(false);
                    replica.set_wanted(!stopped);
                }
                if waits && replica.runs_on() && !leaving {
                    replica.change_later(service);
                    let held =
                        Held::asked(Cause::ConfigChanged, by, After::Again, Scope::Restarting);
                    replica.step(cx, Input::Hold(Box::new(held)));
                } else if turns.contains(&replica.id.replica) {
                    replica.change_later(service);
                } else if leaving || restart {
                    replica.change(cx, service, by);
                }
            });
        }
        if !turns.is_empty() {
            self.roll(name, Cause::ConfigChanged, by, turns);
        }
    }

    /// Replicas above a number are no longer configured.
    fn dismiss_above(
        &mut self,
        now: Tick,
        service: &ServiceName,
        last: u32,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        let leaving: Vec<_> = self
            .replicas_of(service)
            .filter(|replica| replica.id.replica > last && !replica.is_leaving())
            .map(|replica| replica.id.clone())
            .collect();
        for id in leaving {
            self.drive(now, &id, actions, |replica, cx| {
                replica.set_leaving(true);
                replica.step(cx, Input::End(Cause::ConfigChanged, by));
            });
        }
    }

    /// A replica is configured that was not there before, except perhaps in an earlier life. Where everything
    /// is to end no run follows one that has ended.
    fn arrive(
        &mut self,
        now: Tick,
        id: ReplicaId,
        past: Option<Past>,
        is_last: bool,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        let known = &self.services[&id.service];
        let stopped = known.stopped;
        let scheduled = known.service.schedule.is_some();
        let replica = Replica::new(id.clone(), Arc::clone(&known.service), now);
        self.index.update(&id, Marks::default(), replica.marks());
        self.graph.update(&id.service, Marks::default(), replica.marks());
        self.replicas.insert(id.clone(), replica);
        let unknown = if scheduled { PastEnd::Resting(Rest::Scheduled) } else { PastEnd::Between };
        let (row, until, ended) =
            past.map_or((0, None, unknown), |past| (past.row, past.until, past.ended));
        if let Some(incarnation) = ended.incarnation() {
            self.reserve(incarnation);
        }
        if let PastEnd::Alive(alive) = &ended
            && let Some(halted) = Memo::halted(alive)
            && let Some(known) = self.services.get_mut(&id.service)
        {
            known.halted = Some(halted);
        }
        self.drive(now, &id, actions, |replica, cx| {
            replica.set_row(row);
            replica.set_wanted(!stopped);
            match ended {
                PastEnd::Unrecorded { incarnation, end, cause } => {
                    replica.set_wanted(!stopped && !is_last);
                    replica.recover(cx, incarnation, &end, cause);
                }
                PastEnd::Alive(alive) => replica.take_over_run(cx, &alive, by),
                PastEnd::Resting(_) | PastEnd::Between if stopped => {}
                PastEnd::Resting(Rest::Scheduled) if !scheduled => replica.step(cx, Input::Start),
                PastEnd::Resting(rest) => {
                    replica.set_wanted(rest != Rest::Stopped);
                    replica.rest(rest);
                }
                PastEnd::Between => match until.filter(|at| *at > now) {
                    Some(at) => replica.wait_until(now, at),
                    None => replica.step(cx, Input::Start),
                },
            }
        });
        // To be seen for the first time is a change, also for what only rests.
        if self.replicas.get(&id).is_some_and(|replica| replica.state() == State::Stopped) {
            actions.push(Action::Changed { replica: id });
        }
    }

    /// An earlier life's replica that is not configured any more: its end is recorded, no more; a run
    /// of it that still runs is ended.
    fn bury(&mut self, now: Tick, past: Past, by: &Requester, actions: &mut Vec<Action>) {
        let Some(incarnation) = past.ended.incarnation() else {
            return;
        };
        self.reserve(incarnation);
        let id = past.replica;
        let own = match &past.ended {
            PastEnd::Alive(alive) => alive.service.clone(),
            PastEnd::Unrecorded { .. } | PastEnd::Resting(_) | PastEnd::Between => None,
        };
        let service = own.unwrap_or_else(|| Arc::new(Service::new(id.service.clone())));
        let mut replica = Replica::new(id.clone(), service, now);
        replica.set_leaving(true);
        self.index.update(&id, Marks::default(), replica.marks());
        self.graph.update(&id.service, Marks::default(), replica.marks());
        self.replicas.insert(id.clone(), replica);
        self.drive(now, &id, actions, |replica, cx| match past.ended {
            PastEnd::Unrecorded { incarnation, end, cause } => {
                replica.recover(cx, incarnation, &end, cause);
            }
            PastEnd::Alive(alive) => {
                // Wanted for a moment, so that what ends it is that it is not configured.
                replica.set_wanted(true);
                replica.take_over_run(cx, &alive, by);
                replica.set_wanted(false);
                replica.step(cx, Input::End(Cause::ConfigChanged, by));
            }
            PastEnd::Resting(_) | PastEnd::Between => {}
        });
    }

    /// A change of configuration that was under way when the manager died goes on, one replica after the
    /// other as it had begun, unless it was halted. What was to end when others are out of the way is looked
    /// at.
    fn go_on_changing(
        &mut self,
        now: Tick,
        services: &IndexMap<ServiceName, Arc<Service>>,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        for (name, service) in services {
            if self.replicas_of(name).any(|one| one.held().is_some()) {
                self.graph.freed.insert(name.clone());
            }
            let is_left = |one: &&Replica| one.has_news() && one.has_run() && !one.is_leaving();
            let left = self.replicas_of(name).filter(is_left).map(|one| one.id.replica);
            let left: BTreeSet<u32> = left.collect();
            let Some(first) = left.first().filter(|_| self.services[name].halted.is_none()) else {
                continue;
            };
            let before = |one: &&Replica| one.id.replica < *first && one.is_wanted();
            let current = self.replicas_of(name).filter(before).last().map(|one| one.id.replica);
            let shut_out = self
                .replicas_of(name)
                .any(|one| one.has_news() && shuts_out(&one.service, service));
            let waits = self.graph.is_in_the_way(name, Scope::Restarting);
            if waits {
                self.restart_behind(now, name, by, actions);
            } else if service.replicas > 1 && !shut_out {
                self.roll(name, Cause::ConfigChanged, by, left);
                if let Some(roll) = self.rolls.get_mut(name) {
                    roll.current = current;
                }
                continue;
            }
            for replica in left {
                let id = ReplicaId { service: name.clone(), replica };
                self.drive(now, &id, actions, |replica, cx| {
                    if waits {
                        let held =
                            Held::asked(Cause::ConfigChanged, by, After::Again, Scope::Restarting);
                        replica.step(cx, Input::Hold(Box::new(held)));
                    } else {
                        replica.step(cx, Input::Changed(by));
                    }
                });
            }
        }
    }

    /// A number that was used is never used again.
    fn reserve(&mut self, used: Incarnation) {
        let next = &mut self.source.next_incarnation;
        *next = (*next).max(Incarnation(used.0 + 1));
    }
}
