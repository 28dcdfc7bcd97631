//! How everything stands at one instant, as values that are told: the manager, its replicas, and what belongs to
//! each. What fills them in is in `status`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Health, State};
use crate::exit::{Cause, Reason};
use crate::name::{Generation, Incarnation, Realm};
use crate::time::Wall;

/// Everything about everything, at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The manager.
    pub manager: ManagerStatus,
    /// Every replica, in the order of the configuration.
    pub replicas: Vec<ReplicaStatus>,
}

/// The manager's own state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ManagerStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: i32,
    /// The guardian's process.
    pub guardian_pid: i32,
    /// Which of its lives this is.
    pub generation: Generation,
    /// The state directory's realm.
    pub realm: Realm,
    /// When this life began.
    pub started_at: Wall,
    /// Whether control groups are in use, or why not.
    pub cgroups: String,
    /// What is not as it should be; empty when all is well.
    pub degraded: Vec<String>,
    /// Bytes of output that were dropped because the disk could not take them.
    pub output_dropped_bytes: u64,
    /// Messages to journald and syslog that were dropped because they were not taken in time.
    #[serde(default)]
    pub forward_dropped: u64,
    /// Hooks that were not run because too many were waiting.
    #[serde(default)]
    pub hooks_dropped: u64,
    /// Failed attempts to append to the journal.
    pub journal_write_errors: u64,
    /// Records that wait in memory for the disk.
    pub records_waiting: u64,
    /// Whether everything is being stopped.
    pub shutting_down: bool,
}

/// One replica; a row of `ps --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaStatus {
    /// The service.
    pub service: String,
    /// The replica, from 1.
    pub replica: u32,
    /// Its state.
    pub state: State,
    /// Its process; null when there is none.
    pub pid: Option<i32>,
    /// Its run; null before the first.
    pub incarnation: Option<Incarnation>,
    /// How often it was started again since the manager first knew it.
    pub restarts: u64,
    /// Whether it is ready; without a declared readiness, whether it runs.
    pub ready: bool,
    /// Seconds since the program began to run; null when it does not.
    pub uptime_s: Option<f64>,
    /// Whether it has failed five times in a row or more.
    pub crash_looping: bool,
    /// How many failures in a row it has had.
    pub failures_in_a_row: u32,
    /// When it came into this state.
    pub since: Wall,
    /// Seconds until its next start, in backoff.
    pub next_start_s: Option<f64>,
    /// What is known of its health, where a health check is declared and it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<HealthStatus>,
    /// What came of the last question whether it is ready or well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub check: Option<CheckStatus>,
    /// What it says of itself (`STATUS` of sd_notify(3)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_text: Option<String>,
    /// What its state alone does not say: what it waits for, for whose sake it is not started, or that it
    /// still has an older configuration.
    #[serde(default)]
    pub note: Option<String>,
    /// Its last end.
    pub last_exit: Option<LastExit>,
    /// Its counters, where it is a port and runs.
    pub port: Option<PortStatus>,
    /// What is enforced of its limits, and by what; empty where it has none.
    #[serde(default)]
    pub limits: Vec<LimitStatus>,
    /// The words of its command.
    pub command: Vec<String>,
    /// The labels of its service.
    pub labels: BTreeMap<String, String>,
    /// The sockets of its service, which all its replicas share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<SocketStatus>,
}

/// A socket that the manager holds for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SocketStatus {
    /// Its name.
    pub name: String,
    /// Where it listens: `tcp 127.0.0.1:8080`, `udp [::]:53`, `unix /run/app.sock`.
    pub address: String,
    /// Its descriptor in the programs of the service.
    pub fd: i32,
    /// Whether it is open; it is closed while no replica will run by itself.
    pub open: bool,
}

/// A limit of a replica: what it is, and whether and by what it is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitStatus {
    /// The key below `limits`.
    pub limit: String,
    /// Its value.
    pub value: String,
    /// What enforces it, such as `cgroup v1 memory.limit_in_bytes`; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enforced_by: Option<String>,
    /// Why nothing enforces it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_enforced: Option<String>,
}

impl std::fmt::Display for LimitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (limit, value) = (&self.limit, &self.value);
        match (&self.enforced_by, &self.not_enforced) {
            (Some(by), _) => write!(f, "{limit} {value}: {by}"),
            (None, Some(why)) => write!(f, "{limit} {value}: not enforced: {why}"),
            (None, None) => write!(f, "{limit} {value}: not enforced"),
        }
    }
}

/// A replica's last end, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastExit {
    /// When.
    pub ts: Wall,
    /// Which run.
    pub incarnation: Incarnation,
    /// The reason.
    pub reason: Reason,
    /// The cause.
    pub cause: Cause,
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal's name, where one ended it.
    pub signal: Option<String>,
    /// The whole story as one sentence.
    pub msg: String,
}

/// What is known of a replica's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthStatus {
    /// The word.
    pub state: Health,
    /// Checks in a row that failed, as far as they count.
    pub failures: u32,
}

/// What came of a question whether a replica is ready or well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckStatus {
    /// When the answer came, or its time was up.
    pub at: Wall,
    /// Whether it was a good one.
    pub ok: bool,
    /// What was wrong with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// What the program, or the command that asked, said: its last 4 KiB, or the first of a page.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
}

/// A running port's counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortStatus {
    /// Its framing.
    pub framing: String,
    /// Messages written to the program.
    pub frames_in: u64,
    /// Messages read from the program.
    pub frames_out: u64,
    /// Messages that wait to be written.
    pub queued: u64,
    /// Calls that the program has, or is about to get, and has not answered.
    #[serde(default)]
    pub open: u64,
    /// Replies that were dropped because no open call could have had them.
    #[serde(default)]
    pub unmatched: u64,
    /// Lines that are no protocol and were borne (`stray`).
    #[serde(default)]
    pub strays: u64,
    /// For how long a call that was given up, and that the program has not answered, has held up all
    /// others, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up_s: Option<f64>,
    /// Whether the program's input is closed, or will be after what waits: it takes no more messages.
    #[serde(default)]
    pub input_closed: bool,
    /// Whether the program has closed its output, and lives: it says nothing more.
    #[serde(default)]
    pub output_closed: bool,
}
