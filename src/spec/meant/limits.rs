//! What a replica may use, as meant. Which of it can be enforced is the machine's to say, not ours.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::Usage;
use crate::time::duration_text;

/// Limits; `None` leaves what the manager itself was given. Those of control groups hold for a replica
/// as a whole, the others (setrlimit(2)) for each of its processes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Most memory of a replica, swap included, in bytes.
    pub memory: Option<u64>,
    /// Most processors' worth of time, above 0.
    pub cpus: Option<f64>,
    /// Most processes and threads of a replica.
    pub pids: Option<u32>,
    /// What follows when the kernel kills one of several processes of a replica because memory ran out.
    pub on_oom: OnOom,
    /// Whether a replica is not started at all where one of `memory`, `cpus` and `pids` cannot be
    /// enforced.
    pub required: bool,
    /// Largest core dump, in bytes.
    pub core: Option<u64>,
    /// Most open descriptors.
    pub nofile: Option<u64>,
    /// Most processes and threads of the user, whoever started them.
    pub nproc: Option<u64>,
    /// Largest stack, in bytes.
    pub stack: Option<u64>,
    /// Most address space, in bytes.
    #[serde(rename = "as")]
    pub address_space: Option<u64>,
    /// Largest data segment, in bytes.
    pub data: Option<u64>,
    /// Largest file that may be written, in bytes.
    pub fsize: Option<u64>,
    /// Most memory locked into RAM, in bytes.
    pub memlock: Option<u64>,
    /// Most processor time, in whole seconds.
    #[serde(with = "optional_duration")]
    pub cpu: Option<Duration>,
    /// Most bytes in POSIX message queues.
    pub msgqueue: Option<u64>,
    /// Most signals that wait.
    pub sigpending: Option<u64>,
    /// Highest real-time priority.
    pub rtprio: Option<u64>,
}

/// How much more processor time than `cpu` the kernel gives before it kills, so that `SIGXCPU` comes first.
pub const CPU_GRACE: Duration = Duration::from_secs(5);

impl Limits {
    /// Whether so much processor time is all that `cpu` gives, to its hard end. The kernel's account at
    /// the end is behind the clock by which it kills, on a busy virtual machine by more than a second: half of what
    /// comes after the limit counts.
    pub fn is_cpu_spent(&self, usage: &Usage) -> bool {
        let used = usage.cpu_user_s + usage.cpu_system_s;
        self.cpu.is_some_and(|cpu| used >= (cpu + CPU_GRACE / 2).as_secs_f64())
    }
}

/// What follows when the kernel kills one of several processes of a replica because memory ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOom {
    /// The others go on.
    #[default]
    Continue,
    /// The others are killed too: the replica ends, for that reason.
    Kill,
}

/// `10s`, or nothing.
mod optional_duration {
    use super::{Deserialize, Duration, Serialize, duration_text};

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "duration_text")] Duration);

    #[expect(clippy::ref_option, reason = "the shape that serde's `with` asks for")]
    pub(super) fn serialize<S: serde::Serializer>(
        length: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        length.map(Text).serialize(s)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(d)?.map(|text| text.0))
    }
}
