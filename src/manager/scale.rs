//! How many replicas operators want of a service, in place of what its configuration says.
//!
//! It outlives the manager, as every wish of an operator does. A reload keeps it, unless that changes
//! `replicas` of the service itself; `wharf up` begins with what is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::event::Verb;
use crate::name::{ReplicaId, Requester, ServiceName, Target};
use crate::spec::{Service, Spec};

use super::commands::Waiter;
use super::control::Control;
use super::request::{Refusal, ReplicaStatus};

/// The configuration with the numbers that operators want.
pub(super) fn scaled(written: &Arc<Spec>, scale: &BTreeMap<ServiceName, u32>) -> Arc<Spec> {
    if scale.is_empty() {
        return Arc::clone(written);
    }
    let mut spec = Spec::clone(written);
    for (name, replicas) in scale {
        if let Some(service) = spec.services.get_mut(name) {
            let replicas = *replicas;
            *service = Arc::new(Service { replicas, ..Service::clone(service) });
        }
    }
    Arc::new(spec)
}

/// The wishes that a reload leaves in force.
fn kept(
    scale: &BTreeMap<ServiceName, u32>,
    before: &Spec,
    after: &Spec,
) -> BTreeMap<ServiceName, u32> {
    let replicas =
        |spec: &Spec, name: &ServiceName| spec.services.get(name).map(|service| service.replicas);
    let stays = |name: &ServiceName| {
        replicas(after, name).is_some_and(|now| replicas(before, name) == Some(now))
    };
    scale
        .iter()
        .filter(|(name, _)| stays(name))
        .map(|(name, count)| (name.clone(), *count))
        .collect()
}

impl Control {
    /// Makes it so many replicas of a service.
    pub(super) fn scale(
        &mut self,
        name: &ServiceName,
        replicas: u32,
        by: Requester,
        reply: oneshot::Sender<Result<Vec<ReplicaStatus>, Refusal>>,
    ) {
        let target = Target { service: name.clone(), replica: None };
        let before = match self.replicas_of(&target) {
            _ if self.shutting_down => return drop(reply.send(Err(Refusal::ShuttingDown))),
            Err(refusal) => return drop(reply.send(Err(refusal))),
            Ok(before) => before,
        };
        tracing::info!(service = %name, replicas, by = by.who, uid = by.uid, pid = by.pid, "scale");
        let written = self.written.services.get(name).map(|service| service.replicas);
        if written == Some(replicas) {
            self.scale.remove(name);
        } else {
            self.scale.insert(name.clone(), replicas);
        }
        self.configure(scaled(&self.written, &self.scale), by);
        self.persist_intent();
        let id = |replica| ReplicaId { service: name.clone(), replica };
        let up = if self.stopped.contains(name) { 0 } else { replicas };
        let gone = before.into_iter().filter(|id| id.replica > replicas).collect();
        let all = (1..=up).map(|number| (id(number), None)).collect();
        self.waiters.push(Waiter::command(Verb::Start, all, gone, self.intent, reply));
        self.settle();
    }

    /// A configuration that was read takes effect, with what operators want beside it.
    pub(super) fn take_spec(&mut self, written: Arc<Spec>, by: Requester) {
        let scale = kept(&self.scale, &self.written, &written);
        let changed = scale != self.scale;
        self.scale = scale;
        self.written = written;
        self.configure(scaled(&self.written, &self.scale), by);
        if changed {
            self.persist_intent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(replicas: &[(&str, u32)]) -> Spec {
        let services = replicas.iter().map(|(name, replicas)| {
            let name: ServiceName = name.parse().expect("a name");
            let service = Service { replicas: *replicas, ..Service::new(name.clone()) };
            (name, Arc::new(service))
        });
        Spec {
            files: Vec::new(),
            cgroups: crate::spec::Cgroups::Auto,
            metrics: None,
            on_event: Vec::new(),
            services: services.collect(),
            groups: indexmap::IndexMap::new(),
        }
    }

    #[test]
    fn a_wish_holds_until_the_file_says_something_else_of_it() {
        let name = |text: &str| text.parse::<ServiceName>().expect("a name");
        let scale = BTreeMap::from([(name("a"), 5), (name("b"), 0), (name("gone"), 3)]);
        let before = spec(&[("a", 2), ("b", 1), ("gone", 1)]);
        let after = spec(&[("a", 2), ("b", 2)]);
        assert_eq!(kept(&scale, &before, &after), BTreeMap::from([(name("a"), 5)]));
        let effective = scaled(&Arc::new(after), &kept(&scale, &before, &before));
        let counts: Vec<_> = effective.services.values().map(|service| service.replicas).collect();
        assert_eq!(counts, [5, 0]);
    }
}
