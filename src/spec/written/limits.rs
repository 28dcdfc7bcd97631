//! `limits:` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CoreSize, Length, Size};

/// Limits on what a program may use. `memory`, `cpus` and `pids` hold for a replica with all it starts,
/// the others for each of its processes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most memory of a replica, swap included; beyond it the kernel kills.
    pub memory: Option<Size>,
    /// The most processors' worth of time of a replica; at least 0.01.
    #[schemars(range(min = 0))]
    pub cpus: Option<f64>,
    /// The most processes and threads of a replica.
    #[schemars(range(min = 1))]
    pub pids: Option<u32>,
    /// What follows when the kernel kills one process of a replica because memory ran out, and the
    /// program itself lives on.
    pub on_oom: Option<OnOom>,
    /// Whether it is not started where `memory`, `cpus` or `pids` cannot be enforced. Otherwise it is,
    /// and `wharf status` says so.
    pub required: Option<bool>,
    /// The most open descriptors of one process.
    #[schemars(range(min = 8, max = 1_073_741_816))]
    pub nofile: Option<u64>,
    /// The largest core dump; 0 for none.
    pub core: Option<CoreSize>,
    /// The most processes and threads of the user it runs as, whoever started them.
    #[schemars(range(min = 1))]
    pub nproc: Option<u64>,
    /// The largest stack.
    pub stack: Option<CoreSize>,
    /// The most address space.
    #[serde(rename = "as")]
    pub address_space: Option<CoreSize>,
    /// The largest data segment.
    pub data: Option<CoreSize>,
    /// The largest file it may write; beyond it the kernel sends `SIGXFSZ`.
    pub fsize: Option<CoreSize>,
    /// The most memory it may lock into RAM.
    pub memlock: Option<CoreSize>,
    /// The most processor time, in whole seconds; beyond it the kernel sends `SIGXCPU`, and `SIGKILL` to
    /// what goes on for 5 s more of it.
    pub cpu: Option<Length>,
    /// The most bytes in POSIX message queues of the user.
    pub msgqueue: Option<CoreSize>,
    /// The most signals that wait for the user.
    pub sigpending: Option<u64>,
    /// The highest real-time priority.
    #[schemars(range(min = 0, max = 99))]
    pub rtprio: Option<u64>,
}

/// What follows when the kernel kills one of several processes of a replica because memory ran out.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOom {
    /// The others go on; an event tells of it.
    Continue,
    /// The others are killed too: the replica ends as `oom_killed`.
    Kill,
}

/// A capability by name, such as `NET_RAW`, or `ALL`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Capability(#[schemars(regex(pattern = r"^(CAP_)?[A-Z_]+$"))] pub String);
