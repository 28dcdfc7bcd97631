//! What one service means for others: after every event those who wait are looked at again, those who
//! were to end after others are let go, and a group answers for its members.

use std::sync::Arc;

use crate::event::Action;
use crate::exit::Cause;
use crate::name::{ReplicaId, ServiceName, Target};
use crate::spec::{Group, Strategy};
use crate::time::Tick;

use super::graph::Graph;
use super::hold::{Held, Hold, Scope};
use super::ladder::After;
use super::machine::{Fallout, Input};
use super::supervisor::Supervisor;
use super::view::Marks;

impl Supervisor {
    /// Makes the graph anew from the present services and these groups.
    pub(super) fn relate<'g>(&mut self, groups: impl Iterator<Item = (&'g str, &'g Group)>) {
        let services = self.services.values().map(|known| &known.service);
        self.graph = Graph::new(services, groups, &self.graph);
        for (id, replica) in &self.replicas {
            self.graph.update(&id.service, Marks::default(), replica.marks());
            // Those whom it waited for may be no concern of it any more.
            if replica.held().is_some() {
                self.graph.freed.insert(id.service.clone());
            }
        }
    }

    /// Makes the indexes of all replicas.
    pub(super) fn index_all(&mut self) {
        for (id, replica) in &self.replicas {
            self.index.update(id, Marks::default(), replica.marks());
        }
    }

    /// Does what follows for others, until nothing follows any more.
    pub(super) fn settle(&mut self, now: Tick, actions: &mut Vec<Action>) {
        loop {
            if let Some((id, fallout)) = self.fallouts.pop_front() {
                self.answer_for(now, &id, fallout, actions);
            } else if let Some(service) = self.graph.freed.pop_first() {
                self.let_go(now, &service, actions);
            } else if let Some(service) = self.graph.stale.pop_first() {
                self.look_again(now, &service, actions);
            } else if let Some(service) = self.turning.pop_first() {
                self.turn(now, &service, actions);
            } else {
                return;
            }
        }
    }

    /// Those in line: whether they may start now is looked at whenever one is touched.
    fn look_again(&mut self, now: Tick, service: &ServiceName, actions: &mut Vec<Action>) {
        let waiting: Vec<_> = self
            .replicas_of(service)
            .filter(|replica| replica.is_in_line())
            .map(|replica| replica.id.clone())
            .collect();
        for id in waiting {
            self.drive(now, &id, actions, |_, _| {});
        }
    }

    /// Those who were to end when nobody is in the way.
    fn let_go(&mut self, now: Tick, service: &ServiceName, actions: &mut Vec<Action>) {
        let held: Vec<_> = self
            .replicas_of(service)
            .filter_map(|replica| Some((replica.id.clone(), replica.held()?.scope)))
            .filter(|(id, scope)| !self.graph.is_in_the_way(&id.service, *scope))
            .map(|(id, _)| id)
            .collect();
        for id in held {
            self.drive(now, &id, actions, |replica, cx| replica.step(cx, Input::LetGo));
        }
    }

    /// What the end of one replica means for the others of its group.
    fn answer_for(
        &mut self,
        now: Tick,
        id: &ReplicaId,
        fallout: Fallout,
        actions: &mut Vec<Action>,
    ) {
        let Some((at, place)) = self.graph.home_of(&id.service) else { return };
        let team = &mut self.graph.groups[at];
        let (name, members) = (Arc::clone(&team.name), team.group.services.clone());
        let strategy = team.group.strategy;
        let first = match (fallout, strategy) {
            (Fallout::Restart, Strategy::OneForOne) => return,
            (Fallout::Restart, Strategy::RestForOne) => place + 1,
            (Fallout::Restart, Strategy::OneForAll) => 0,
            (Fallout::GiveUp, _) => {
                team.recent.clear();
                0
            }
        };
        let reason = self.replicas.get(id).and_then(|replica| replica.machine.last);
        let reason = reason.map_or("ended", |last| last.reason.as_str());
        let (after, because, what) = match fallout {
            Fallout::Restart => (After::Again, None, "restarts"),
            Fallout::GiveUp => {
                let hold = Hold::GaveUp { group: Arc::clone(&name), replica: id.clone() };
                (After::GiveUp, Some(Box::new(hold)), "is given up")
            }
        };
        let why: Box<str> = format!("the group {name} {what} because of {id} ({reason})").into();
        for service in members.into_iter().skip(first).rev() {
            if fallout == Fallout::GiveUp {
                self.end_roll(&service);
            }
            let all = Target { service, replica: None };
            for other in self.configured_replicas(&all) {
                if other != *id {
                    let held = Held {
                        cause: Cause::GroupStrategy,
                        by: None,
                        after,
                        scope: Scope::Group,
                        why: Some(why.clone()),
                        hold: because.clone(),
                    };
                    self.end_in_order(now, &other, held, actions);
                }
            }
        }
    }
}
