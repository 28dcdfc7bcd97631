//! The supervisor as data: what an upgraded manager is handed by the one it replaces.
//!
//! Services are written once however many replicas share them; indexes are made anew.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::ReplicaId;
use crate::spec::{Cgroups, Group, Service};

use super::graph::Graph;
use super::intensity::Intensity;
use super::machine::{Machine, Source};
use super::replica::Replica;
use super::roll::{Halted, Roll};
use super::supervisor::{Index, Known, Supervisor};

/// The version of the written form. Another one is refused, not guessed at.
pub const STATE_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    source: Source,
    configured: Option<Cgroups>,
    closing: bool,
    closed: bool,
    /// Every configuration that is in use; the others name them by their place here.
    configurations: Vec<Arc<Service>>,
    services: Vec<WrittenService>,
    replicas: Vec<WrittenReplica>,
    #[serde(default)]
    groups: Vec<WrittenGroup>,
    #[serde(default)]
    rolls: std::collections::BTreeMap<crate::name::ServiceName, Roll>,
}

#[derive(Serialize, Deserialize)]
struct WrittenGroup {
    name: String,
    group: Group,
    recent: Intensity,
}

#[derive(Serialize, Deserialize)]
struct WrittenService {
    configuration: usize,
    stopped: bool,
    #[serde(default)]
    halted: Option<Halted>,
}

#[derive(Serialize, Deserialize)]
struct WrittenReplica {
    id: ReplicaId,
    configuration: usize,
    next: Option<usize>,
    machine: Machine,
}

/// Gives each configuration its place.
#[derive(Default)]
struct Table {
    places: HashMap<*const Service, usize>,
    all: Vec<Arc<Service>>,
}

impl Table {
    fn place(&mut self, service: &Arc<Service>) -> usize {
        *self.places.entry(Arc::as_ptr(service)).or_insert_with(|| {
            self.all.push(Arc::clone(service));
            self.all.len() - 1
        })
    }
}

impl Serialize for Supervisor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut table = Table::default();
        let services = self
            .services
            .values()
            .map(|known| WrittenService {
                configuration: table.place(&known.service),
                stopped: known.stopped,
                halted: known.halted,
            })
            .collect();
        let replicas = self
            .replicas
            .values()
            .map(|replica| WrittenReplica {
                id: replica.id.clone(),
                configuration: table.place(&replica.service),
                next: replica.next.as_ref().map(|next| table.place(next)),
                machine: replica.machine.clone(),
            })
            .collect();
        let groups = self.graph.groups.iter().map(|team| WrittenGroup {
            name: team.name.to_string(),
            group: team.group.clone(),
            recent: team.recent.clone(),
        });
        let groups = groups.collect();
        Written {
            version: STATE_VERSION,
            source: self.source.clone(),
            configured: self.configured,
            closing: self.closing,
            closed: self.closed,
            configurations: table.all,
            services,
            replicas,
            groups,
            rolls: self.rolls.clone(),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Supervisor {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(d)?;
        if written.version != STATE_VERSION {
            return Err(D::Error::custom(format_args!(
                "the state has version {}, this program knows {STATE_VERSION}",
                written.version
            )));
        }
        let all = written.configurations;
        let at = |place: usize| {
            all.get(place).cloned().ok_or_else(|| D::Error::custom("a configuration is missing"))
        };
        let mut supervisor = Self {
            source: written.source,
            configured: written.configured,
            closing: written.closing,
            closed: written.closed,
            services: std::collections::BTreeMap::new(),
            replicas: std::collections::BTreeMap::new(),
            index: Index::default(),
            graph: Graph::default(),
            rolls: written.rolls,
            turning: std::collections::BTreeSet::new(),
            noted: std::collections::BTreeSet::new(),
            fallouts: std::collections::VecDeque::new(),
            news: Vec::new(),
        };
        for known in written.services {
            let service = at(known.configuration)?;
            let name = service.name.clone();
            let known = Known { service, stopped: known.stopped, halted: known.halted };
            supervisor.services.insert(name, known);
        }
        for written in written.replicas {
            let replica = Replica {
                id: written.id.clone(),
                service: at(written.configuration)?,
                next: written.next.map(at).transpose()?,
                machine: written.machine,
            };
            supervisor.replicas.insert(written.id, replica);
        }
        let groups: Vec<_> = written.groups.iter().map(|one| (&*one.name, &one.group)).collect();
        supervisor.relate(groups.into_iter());
        for (team, written) in supervisor.graph.groups.iter_mut().zip(&written.groups) {
            team.recent = written.recent.clone();
        }
        supervisor.index_all();
        Ok(supervisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Incarnation;

    #[test]
    fn another_version_is_refused() {
        let mut value = serde_json::to_value(Supervisor::new(Incarnation(1), 2)).unwrap();
        assert!(serde_json::from_value::<Supervisor>(value.clone()).is_ok());
        value["version"] = 2.into();
        let error = serde_json::from_value::<Supervisor>(value).unwrap_err().to_string();
        assert_eq!(error, "the state has version 2, this program knows 1");
    }
}
