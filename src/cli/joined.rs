//! A port that a command has joined: which replica it is, and how it is spoken to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, path_of};
use super::failure::Failure;
use super::wire::{self, Ear, Mouth};
use crate::correlation::{JsonIds, Letter};
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

    /// Begins the conversation, and listens: to ends and starts, and to what the program says besides
    /// where `messages` are wanted.
    pub(super) fn begin(
        &self,
        client: &Client,
        command: &str,
        messages: bool,
    ) -> Result<(Mouth, Ear), Failure> {
        let (mut mouth, ear) = wire::join(client.connect()?, command)?;
        mouth.say(&[wire::monitor(&self.target, messages)])?;
        Ok((mouth, ear))
    }
}

/// What a message of a client is to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is answered; the id that its caller gave it, where messages have theirs in JSON.
    Call(Option<Bytes>),
    /// It is not.
    Send,
    /// It is the client's last word, and nobody else's business.
    Leave,
}

impl Joined {
    /// What a message of a client is to the port.
    pub(super) fn meaning(&self, message: &Bytes) -> Meaning {
        let Some(ids) = &self.ids else {
            return match self.port.replies {
                Replies::None => Meaning::Send,
                // Of MessagePack-RPC: a list that begins with 0 is a request.
                Replies::Id(_) if self.port.framing == Framing::Msgpack => match message.get(1) {
                    Some(0) => Meaning::Call(None),
                    _ => Meaning::Send,
                },
                _ => Meaning::Call(None),
            };
        };
        let ends = |method: &String| {
            self.port.handshake.as_ref().is_some_and(|words| words.end.contains(method))
        };
        match ids.read(message) {
            Letter::Request { id, .. } => Meaning::Call(Some(Bytes::copy_from_slice(&message[id]))),
            // Not everything with ids is JSON-RPC: without a method it may be a request all the same.
            Letter::Answer { id } if !has_result(message) => {
                Meaning::Call(Some(Bytes::copy_from_slice(&message[id])))
            }
            Letter::Notification { method } if ends(&method) => Meaning::Leave,
            Letter::Answer { .. } | Letter::Notification { .. } | Letter::Other => Meaning::Send,
        }
    }
}

/// Whether a message has what only an answer of JSON-RPC has, a member `result` or `error`.
fn has_result(message: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(message)
        .is_ok_and(|fields| fields.contains_key("result") || fields.contains_key("error"))
}
