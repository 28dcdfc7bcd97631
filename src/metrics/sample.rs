//! What the loop hands to a scrape: a cheap copy of what it knows, made between two events.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::counts::Counts;
use crate::event::State;
use crate::name::{Incarnation, ReplicaId};
use crate::spec::Service;
use crate::time::Wall;

/// Everything the loop knows, at one instant.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The manager's own process, whose children the services are.
    pub manager_pid: i32,
    /// The folder of the control groups, where they are in use; a group is named `SERVICE.REPLICA`.
    pub cgroups: Option<PathBuf>,
    /// The manager itself.
    pub manager: ManagerSample,
    /// The services: those of the configuration, then those of which something still runs.
    pub services: Vec<ServiceSample>,
    /// Their replicas.
    pub replicas: Vec<ReplicaSample>,
    /// How long the loop took to make this.
    pub took: Duration,
}

/// The manager itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManagerSample {
    /// Whether the last configuration that was to take effect did not.
    pub reload_refused: bool,
    /// When the configuration in effect took effect.
    pub configured_at: Wall,
    /// Failed attempts to append to the journal.
    pub journal_errors: u64,
}

/// One service.
#[derive(Debug, Clone)]
pub struct ServiceSample {
    /// How it is configured.
    pub service: Arc<Service>,
    /// What has happened to it.
    pub counts: Counts,
}

/// One replica.
#[derive(Debug, Clone)]
pub struct ReplicaSample {
    /// Which of the services it belongs to.
    pub service: usize,
    /// Which it is.
    pub id: ReplicaId,
    /// Its state.
    pub state: State,
    /// Whether it is to run.
    pub wanted: bool,
    /// Whether it is ready and, as far as that is looked at, well.
    pub healthy: bool,
    /// The whole length of the wait it is in, in backoff.
    pub backoff: Duration,
    /// How many restarts it has left before it is given up.
    pub budget: u32,
    /// Its present run, while there is a process.
    pub process: Option<ProcessSample>,
    /// Its last end.
    pub last: Option<LastSample>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSample {
    /// Which run it is.
    pub incarnation: Incarnation,
    /// Its number. Whoever looks it up may find it gone.
    pub pid: i32,
    /// When it was made.
    pub created: Wall,
    /// Whether it is in a control group.
    pub grouped: bool,
    /// What has gone over its port.
    pub port: Option<PortSample>,
}

/// What has gone over the port of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortSample {
    /// Messages to and from the program.
    pub frames: [u64; 2],
    /// Bytes to and from the program.
    pub bytes: [u64; 2],
    /// Messages that wait.
    pub queued: u64,
    /// Replies to no open call.
    pub unmatched: u64,
    /// Lines that are no protocol and were borne.
    pub strays: u64,
    /// How long messages have waited with a full pipe.
    pub blocked: Duration,
}

/// The last end of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSample {
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// When it was recorded.
    pub at: Wall,
}
