//! What operators want, and the end of everything: whom it concerns beside those it names, and in which
//! order.

use std::collections::{BTreeSet, VecDeque};

use crate::event::{Action, Verb};
use crate::exit::Cause;
use crate::name::{ReplicaId, Requester, ServiceName, Target};
use crate::spec::Condition;
use crate::time::Tick;

use super::graph::Fact;
use super::hold::{Held, Scope};
use super::ladder::After;
use super::machine::Input;
use super::supervisor::Supervisor;

impl Supervisor {
    pub(super) fn command(
        &mut self,
        now: Tick,
        verb: Verb,
        target: &Target,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        // Nothing is started any more once everything is to end.
        if self.closing && matches!(verb, Verb::Start | Verb::Restart | Verb::Roll) {
            return;
        }
        let before = self.stopped();
        match verb {
            Verb::Signal(signal) => {
                for id in self.configured_replicas(target) {
                    self.drive(now, &id, actions, |replica, cx| {
                        replica.step(cx, Input::Signal(signal, by));
                    });
                }
                return;
            }
            Verb::Start => {
                self.pull(now, &target.service, actions);
                for id in self.configured_replicas(target) {
                    self.drive(now, &id, actions, |replica, cx| {
                        replica.set_wanted(true);
                        replica.step(cx, Input::Start);
                    });
                }
            }
            Verb::Stop => self.stop_these(now, target, by, actions),
            Verb::StopWithDependents => {
                for service in self.all_behind(&target.service) {
                    self.stop_behind(now, &service, &target.service, by, actions);
                }
                self.stop_these(now, target, by, actions);
            }
            Verb::Restart => {
                self.pull(now, &target.service, actions);
                self.restart_these(now, target, by, actions);
            }
            Verb::Roll => {
                self.pull(now, &target.service, actions);
                self.roll_these(now, target, by, actions);
            }
        }
        let stopped = match verb {
            Verb::Start | Verb::Restart | Verb::Roll | Verb::Signal(_) => false,
            Verb::Stop | Verb::StopWithDependents => {
                target.replica.is_none() || !self.is_any_wanted(&target.service)
            }
        };
        self.set_stopped(&target.service, stopped);
        if self.stopped() != before {
            actions.push(Action::Persist);
        }
    }

    fn set_stopped(&mut self, service: &ServiceName, stopped: bool) {
        if let Some(known) = self.services.get_mut(service) {
            known.stopped = stopped;
        }
    }

    /// Stops what is named. With its dependents it waits until these are down.
    fn stop_these(
        &mut self,
        now: Tick,
        target: &Target,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        self.end_roll(&target.service);
        for id in self.configured_replicas(target) {
            let service = &target.service;
            let waits = self.is_being_cleared(service);
            self.drive(now, &id, actions, |replica, cx| {
                replica.set_wanted(false);
                if waits && replica.runs_on() {
                    let held =
                        Held::asked(Cause::StopRequested, by, After::Rest, Scope::Dependents);
                    replica.step(cx, Input::Hold(Box::new(held)));
                } else {
                    replica.step(cx, Input::Stop(by));
                }
            });
        }
    }

    /// Whether what depends on a service is all being stopped, and not down yet.
    fn is_being_cleared(&self, service: &ServiceName) -> bool {
        self.graph.is_in_the_way(service, Scope::Dependents)
            && self.graph.dependents_of(service).iter().all(|one| !self.is_any_wanted(one))
    }

    /// Stops a service because one that it depends on is stopped.
    fn stop_behind(
        &mut self,
        now: Tick,
        service: &ServiceName,
        needed: &ServiceName,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        self.end_roll(service);
        self.set_stopped(service, true);
        let all = Target { service: service.clone(), replica: None };
        for id in self.configured_replicas(&all) {
            self.drive(now, &id, actions, |replica, _| replica.set_wanted(false));
            let held = Held {
                why: Some(format!("{needed} is stopped with all that depends on it").into()),
                ..Held::asked(Cause::DependencyStopped, by, After::Rest, Scope::Dependents)
            };
            self.end_in_order(now, &id, held, actions);
        }
    }

    /// Ends a run now, or as soon as nobody is in the way.
    pub(super) fn end_in_order(
        &mut self,
        now: Tick,
        id: &ReplicaId,
        held: Held,
        actions: &mut Vec<Action>,
    ) {
        let waits = self.graph.is_in_the_way(&id.service, held.scope);
        let held = Box::new(held);
        self.drive(now, id, actions, |replica, cx| {
            replica.step(cx, if waits { Input::Hold(held) } else { Input::Yield(held) });
        });
    }

    /// All that depends on a service, directly or not; the nearest first.
    fn all_behind(&self, service: &ServiceName) -> Vec<ServiceName> {
        self.follow(service, |name| self.graph.dependents_of(name).to_vec())
    }

    /// Where the steps lead from a service, each once, the nearest first.
    fn follow(
        &self,
        service: &ServiceName,
        step: impl Fn(&ServiceName) -> Vec<ServiceName>,
    ) -> Vec<ServiceName> {
        let mut seen = BTreeSet::from([service.clone()]);
        let mut queue = VecDeque::from([service.clone()]);
        let mut found = Vec::new();
        while let Some(name) = queue.pop_front() {
            for next in step(&name) {
                if self.services.contains_key(&next) && seen.insert(next.clone()) {
                    found.push(next.clone());
                    queue.push_back(next);
                }
            }
        }
        found
    }

    fn restart_these(
        &mut self,
        now: Tick,
        target: &Target,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        self.end_roll(&target.service);
        let all = target.replica.is_none();
        if all {
            self.restart_behind(now, &target.service, by, actions);
        }
        for id in self.configured_replicas(target) {
            let waits = all && self.graph.is_in_the_way(&id.service, Scope::Restarting);
            self.drive(now, &id, actions, |replica, cx| {
                replica.set_wanted(true);
                if waits && replica.runs_on() {
                    let held =
                        Held::asked(Cause::RestartRequested, by, After::Again, Scope::Restarting);
                    replica.step(cx, Input::Hold(Box::new(held)));
                } else {
                    replica.step(cx, Input::Restart(by));
                }
            });
        }
    }

    /// Restarts those that run one after the other; what does not run is started now.
    fn roll_these(
        &mut self,
        now: Tick,
        target: &Target,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        let mut left = BTreeSet::new();
        for id in self.configured_replicas(target) {
            self.drive(now, &id, actions, |replica, cx| {
                replica.set_wanted(true);
                if replica.has_run() {
                    left.insert(replica.id.replica);
                } else {
                    replica.step(cx, Input::Restart(by));
                }
            });
        }
        self.roll(&target.service, Cause::RestartRequested, by, left);
    }

    /// Restarts what is to be restarted with a service, whether that runs or rests: it ends first and waits for it
    /// then. What stands between passes it on only where it is not down itself.
    pub(super) fn restart_behind(
        &mut self,
        now: Tick,
        service: &ServiceName,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        let behind = |name: &ServiceName| -> Vec<ServiceName> {
            let all = self.graph.dependents_of(name);
            let with = |one: &&ServiceName| {
                self.graph.restarts_with(one, name) && (name == service || self.graph.is_busy(name))
            };
            all.iter().filter(with).cloned().collect()
        };
        for name in self.follow(service, behind) {
            let all = Target { service: name, replica: None };
            for id in self.configured_replicas(&all) {
                let held = Held {
                    why: Some(format!("{service} is restarted, and it with it").into()),
                    ..Held::asked(Cause::DependencyStopped, by, After::Again, Scope::Restarting)
                };
                self.end_in_order(now, &id, held, actions);
            }
        }
    }

    /// Starts what a service needs and what would not come by itself, and what that needs.
    fn pull(&mut self, now: Tick, service: &ServiceName, actions: &mut Vec<Action>) {
        for (needed, condition) in self.missing(service) {
            self.set_stopped(&needed, false);
            let all = Target { service: needed, replica: None };
            for id in self.configured_replicas(&all) {
                self.drive(now, &id, actions, |replica, cx| {
                    if !replica.is_finished() || condition == Condition::Healthy {
                        replica.set_wanted(true);
                        replica.step(cx, Input::Start);
                    }
                });
            }
        }
    }

    /// What a service needs, directly or not, and what would not come by itself; each with the condition.
    fn missing(&self, service: &ServiceName) -> Vec<(ServiceName, Condition)> {
        let mut queue = VecDeque::from([service.clone()]);
        let mut found: Vec<(ServiceName, Condition)> = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(name) = queue.pop_front() {
            for (needed, dependency) in self.graph.needs_of(&name).iter() {
                let condition = dependency.condition;
                let missing = match self.graph.fact(needed, condition) {
                    Fact::Holds => false,
                    // It is on its way down.
                    Fact::Waits => !self.is_any_wanted(needed),
                    Fact::Never(_) => true,
                };
                if missing && seen.insert((needed.clone(), condition)) {
                    found.push((needed.clone(), condition));
                    queue.push_back(needed.clone());
                }
            }
        }
        found
    }

    /// Ends everything, what others depend on after them; a second time hurries.
    pub(super) fn shut_down(
        &mut self,
        now: Tick,
        cause: Cause,
        by: &Requester,
        actions: &mut Vec<Action>,
    ) {
        let again = std::mem::replace(&mut self.closing, true);
        self.rolls.clear();
        let all: Vec<_> = self.replicas.keys().cloned().collect();
        for id in all {
            if again {
                self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::Hurry));
                continue;
            }
            let held = Held::asked(cause, by, After::Rest, Scope::Everything);
            self.end_in_order(now, &id, held, actions);
        }
    }
}
