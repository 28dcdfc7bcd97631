//! The loop's dealings with time as people count it: which services are due by their schedules.

use std::time::Duration;

use crate::event::Event;
use crate::name::{ReplicaId, ServiceName};
use crate::os::clock;
use crate::supervise::Due;
use crate::time::{Tick, Wall};

use super::control::Control;
use super::published::{SkipReason, What};

/// How long the loop trusts the wall clock, where a schedule goes by it: somebody may set it, and a
/// machine that slept wakes up to another time.
const TRUST: Duration = Duration::from_secs(30);

impl Control {
    /// Starts what is due, and tells what is left out.
    pub(super) fn look_at_clocks(&mut self, now: Tick) {
        if self.look_at.is_none_or(|at| at > now) || self.shutting_down {
            return;
        }
        let wall = clock::wall();
        let due = self.timetable.due((now, wall));
        self.look_again(now, wall);
        if due.is_empty() {
            return;
        }
        for Due { service, run } in due {
            self.last_due.insert(service.clone(), wall);
            if run {
                self.feed(Event::Due { service });
            } else {
                self.skipped(&service, SkipReason::Missed);
            }
        }
        self.persist_intent();
    }

    /// Says when the clocks are looked at next.
    fn look_again(&mut self, now: Tick, wall: Wall) {
        let patience = self.timetable.patience(now, wall);
        let trust = self.timetable.goes_by_the_wall().then_some(TRUST);
        self.look_at = patience.into_iter().chain(trust).min().map(|patience| now + patience);
    }

    /// A configuration takes effect.
    pub(super) fn schedule(&mut self) {
        let (now, wall) = (clock::now(), clock::wall());
        self.timetable.configure(&self.spec, (now, wall), &self.last_due);
        self.look_again(now, wall);
        let spec = &self.spec;
        self.last_due.retain(|name, _| {
            spec.services.get(name).is_some_and(|service| service.schedule.is_some())
        });
    }

    /// In how long a replica will be started by its schedule; `None` where it has none.
    pub(super) fn next_due(&self, service: &ServiceName, now: Tick) -> Option<Duration> {
        self.timetable.patience_of(service, now, clock::wall())
    }

    fn skipped(&mut self, service: &ServiceName, why: SkipReason) {
        let replicas = self.spec.services.get(service).map_or(0, |service| service.replicas);
        for replica in 1..=replicas {
            let replica = ReplicaId { service: service.clone(), replica };
            // What an operator stopped misses nothing.
            if self.supervisor.view(&replica).is_some_and(|view| view.wanted) {
                self.skipped_one(replica, why);
            }
        }
    }

    /// Tells of a start that is left out.
    pub(super) fn skipped_one(&mut self, replica: ReplicaId, why: SkipReason) {
        tracing::info!(%replica, why = why.as_str(), "a start by the schedule is left out");
        self.publish_of(&replica.clone(), What::Skipped { replica, why });
    }
}

/// When each service was last due, as it is persisted.
pub(super) type LastDue = std::collections::BTreeMap<ServiceName, Wall>;
