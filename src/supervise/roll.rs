//! One replica after the other makes room for a new run; the next one when that run is ready. It stops
//! where a new run does not become ready.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::event::Action;
use crate::exit::Cause;
use crate::name::{ReplicaId, Requester, ServiceName};
use crate::time::Tick;

use super::graph::Standing;
use super::machine::Input;
use super::replica::Replica;
use super::supervisor::Supervisor;

/// A restart of one replica after the other that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roll {
    /// `restart_requested`, or `config_changed`: then only those are meant that still run with another
    /// configuration when their turn comes.
    pub(super) cause: Cause,
    pub(super) by: Requester,
    /// Whose turn is yet to come.
    pub(super) left: BTreeSet<u32>,
    /// Whose new run is waited for.
    pub(super) current: Option<u32>,
}

/// Where a restart of one replica after the other was halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// The replica whose new run did not become ready.
    pub replica: u32,
    /// How many were left as they were.
    pub left: u32,
}

impl Supervisor {
    /// Whether a restart of one replica after the other is under way.
    pub fn is_rolling(&self, service: &ServiceName) -> bool {
        self.rolls.contains_key(service)
    }

    /// Where the last one was halted, if it was.
    pub fn halted(&self, service: &ServiceName) -> Option<Halted> {
        self.services.get(service)?.halted
    }

    /// Begins with the first of these replicas as soon as all else of the step is done. One that was under
    /// way is over.
    pub(super) fn roll(
        &mut self,
        service: &ServiceName,
        cause: Cause,
        by: &Requester,
        left: BTreeSet<u32>,
    ) {
        self.end_roll(service);
        let roll = Roll { cause, by: by.clone(), left, current: None };
        self.rolls.insert(service.clone(), roll);
        self.turning.insert(service.clone());
    }

    /// What was under way, or was halted, is no more.
    pub(super) fn end_roll(&mut self, service: &ServiceName) {
        self.rolls.remove(service);
        let known = self.services.get_mut(service);
        if known.is_some_and(|known| known.halted.take().is_some()) {
            self.note_all(service);
        }
    }

    /// Something happened to a service whose replicas have their turns.
    pub(super) fn turn(&mut self, now: Tick, service: &ServiceName, actions: &mut Vec<Action>) {
        while let Some(roll) = self.rolls.get_mut(service) {
            let id = |replica| ReplicaId { service: service.clone(), replica };
            if let Some(current) = roll.current {
                let replica = self.replicas.get(&id(current)).filter(|one| !one.is_leaving());
                match replica.map(Replica::standing) {
                    // A reload took it away.
                    None | Some(Standing::Ready | Standing::Healthy) => roll.current = None,
                    Some(Standing::Coming | Standing::Started | Standing::Ending) => return,
                    Some(
                        Standing::Stopped
                        | Standing::Finished
                        | Standing::Failed
                        | Standing::Scheduled
                        | Standing::Backoff
                        | Standing::Stuck,
                    ) => return self.halt(service, current, actions),
                }
                continue;
            }
            let Some(next) = roll.left.pop_first() else {
                self.rolls.remove(service);
                return;
            };
            let (cause, by) = (roll.cause, roll.by.clone());
            let replica = self.replicas.get(&id(next)).filter(|one| !one.is_leaving());
            if replica.is_none_or(|one| cause == Cause::ConfigChanged && !one.has_news()) {
                continue;
            }
            roll.current = Some(next);
            self.drive(now, &id(next), actions, |replica, cx| match cause {
                Cause::ConfigChanged => replica.step(cx, Input::Changed(&by)),
                _ => replica.step(cx, Input::Restart(&by)),
            });
        }
    }

    pub(super) fn halt(&mut self, service: &ServiceName, replica: u32, actions: &mut Vec<Action>) {
        let Some(roll) = self.rolls.remove(service) else { return };
        let left = u32::try_from(roll.left.len()).unwrap_or(u32::MAX);
        if let Some(known) = self.services.get_mut(service) {
            known.halted = Some(Halted { replica, left });
        }
        self.note_all(service);
        let replica = ReplicaId { service: service.clone(), replica };
        actions.push(Action::Halted { replica, left });
    }
}
