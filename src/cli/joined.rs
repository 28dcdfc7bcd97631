//! A port that a command has joined: which replica it is, and how it is spoken to.

use serde::Deserialize;

use super::client::{Client, path_of};
use super::failure::Failure;
use super::wire::{self, Ear, Mouth};
use crate::correlation::JsonIds;
use crate::manager::ReplicaStatus;
use crate::name::{ServiceName, Target};
use crate::spec::{Framing, IdPlace, Port, Replies};

/// One replica of a port, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Joined {
    /// The replica.
    pub(super) target: Target,
    pub(super) port: Port,
    /// Where messages have ids in JSON: what tells requests from the rest.
    pub(super) ids: Option<JsonIds>,
}

/// What the manager says of a port.
#[derive(Debug, Deserialize)]
struct About {
    port: Port,
}

impl Joined {
    /// Finds out about a port. Of several replicas it is the one with the fewest calls.
    pub(super) fn find(client: &Client, target: &Target) -> Result<Self, Failure> {
        let About { port } = client.get(&path_of(target, "/port"))?;
        let rows: Vec<ReplicaStatus> = client.get(&path_of(target, ""))?;
        let busy = |row: &&ReplicaStatus| {
            (!row.ready, row.port.as_ref().map(|port| port.open + port.queued))
        };
        let row = rows.iter().min_by_key(busy);
        let row = row.ok_or_else(|| Failure::usage(format!("{target} has no replicas")))?;
        let service = ServiceName::new(&row.service);
        let service = service.map_err(|error| Failure::Broken(error.to_string()))?;
        let ids = match &port.replies {
            Replies::Id(IdPlace::Pointer(pointer)) if port.framing != Framing::Msgpack => {
                JsonIds::new(pointer).ok()
            }
            _ => None,
        };
        Ok(Self { target: Target { service, replica: Some(row.replica) }, port, ids })
    }

    /// Begins the conversation, and listens.
    pub(super) fn begin(&self, client: &Client, command: &str) -> Result<(Mouth, Ear), Failure> {
        let (mut mouth, ear) = wire::join(client.connect()?, command)?;
        mouth.say(&[wire::monitor(&self.target)])?;
        Ok((mouth, ear))
    }
}
