//! services.yaml as meant: checked, complete, with every default filled in.
//!
//! This is what the supervisor works from and what is persisted as the applied configuration.
//! A difference between two configurations is derived from the serialised form (`diff`).

mod contents;
mod depend;
mod given;
mod group;
mod health;
mod hook;
mod life;
mod limits;
mod port;
mod rights;
mod schedule;

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::exit::{Signal, signal_name};
use crate::name::ServiceName;
use crate::time::duration_text;

pub use contents::{Contents, Digest};
pub use depend::{Condition, Dependency};
pub use given::{
    BACKLOG, CHANNEL_NAME, FIRST_DESCRIPTOR, LARGEST_SECRET, LONGEST_SOCKET, Listen, ListenAddress,
    MOST_GIVEN, SOCKET_MODE, Secret, SecretBy,
};
pub use group::{Group, Strategy};
pub use health::{
    Check, Endpoint, HealthFailure, Healthcheck, HttpUrl, READY_INTERVAL, READY_TIMEOUT, Readiness,
    ReadyBy,
};
pub use hook::{HOOK_TIMEOUT, Hook, HookEvent};
pub use life::OnManagerExit;
pub use limits::{CPU_GRACE, Limits, OnOom};
pub use port::{
    Banner, Channel, Eof, Framing, Handshake, IdPlace, IdType, Longer, OnProtocolError,
    PacketWidth, Port, Ready, Replies, Stray, Unbuffer,
};
pub use rights::{Capability, Rights};
pub use schedule::{Missed, Overlap, Rhythm, Schedule};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The files it was read from, absolute, in the order of merging.
    pub files: Vec<PathBuf>,
    /// Whether control groups may be used.
    pub cgroups: Cgroups,
    /// Where metrics can be scraped over TCP; `None` leaves the control socket alone for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Commands that are run when something happens to any service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_event: Vec<Hook>,
    /// Every service, in the order written.
    pub services: IndexMap<ServiceName, Arc<Service>>,
    /// Services that live and die together, by the name of the group.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub groups: IndexMap<String, Group>,
}

/// Where metrics can be scraped over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The address to listen on; its port is not 0.
    pub listen: SocketAddr,
    /// Whether it may be one that other machines can reach. Without it `listen` is a loopback
    /// address.
    #[serde(default)]
    pub allow_remote: bool,
}

/// Whether control groups may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroups {
    /// Where a writable cgroup2 mount is found.
    Auto,
    /// Never.
    Off,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The words to execute; never empty. The first is a path or is looked up in the child's `PATH`.
    pub command: Vec<String>,
    /// An absolute path.
    pub working_dir: PathBuf,
    /// Variables declared for it, added to (and overriding) the clean environment.
    pub environment: BTreeMap<String, String>,
    /// Sockets that the manager holds, in the order of their descriptors.
    #[serde(default)]
    pub listen: Vec<Listen>,
    /// The files and folders that it reads its own configuration from, by their absolute paths, and what
    /// stood in them when this was read.
    #[serde(default)]
    pub config_files: BTreeMap<PathBuf, Contents>,
    /// The signal at which it reads them again; without one a change of them needs a new run.
    #[serde(default)]
    pub reload_signal: Option<SignalName>,
    /// Secrets that it is given, in the order of their descriptors.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Commands that are run when something happens to it.
    #[serde(default)]
    pub on_event: Vec<Hook>,
    /// The user to run as; a name or a number, optionally `user:group`.
    pub user: Option<String>,
    /// How many run at once; 0 keeps the service defined but not running.
    pub replicas: u32,
    /// What must be there before it is started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// `up` starts it only when one of these is chosen; empty for always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// How it is spoken to; `None` is a plain server.
    pub port: Option<Port>,
    /// When it is ready; `None` as soon as it runs, or as its port says.
    #[serde(default)]
    pub ready: Option<Readiness>,
    /// How it is seen to be well.
    #[serde(default)]
    pub healthcheck: Option<Healthcheck>,
    /// The longest time between two signs of life (`WATCHDOG=1`).
    #[serde(default, with = "health::optional_length")]
    pub watchdog: Option<Duration>,
    /// The memory beyond which a replica is restarted, in bytes.
    #[serde(default)]
    pub max_memory: Option<u64>,
    /// The age beyond which a replica is restarted.
    #[serde(default, with = "health::optional_length")]
    pub max_lifetime: Option<Duration>,
    /// What follows an end.
    pub restart: Restart,
    /// How long a start may take.
    #[serde(with = "duration_text")]
    pub start_timeout: Duration,
    /// How it is stopped.
    pub stop: Stop,
    /// What becomes of it when the manager dies.
    #[serde(default)]
    pub on_manager_exit: OnManagerExit,
    /// What becomes of its output.
    pub logging: Logging,
    /// What it may use.
    pub limits: Limits,
    /// When it is started; `None` is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What it may do.
    #[serde(flatten)]
    pub rights: Rights,
    /// Free words for people and tools.
    pub labels: BTreeMap<String, String>,
}

impl Service {
    /// A plain server with every default, whose command is still to be said.
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            command: Vec::new(),
            working_dir: PathBuf::from("/"),
            environment: BTreeMap::new(),
            listen: Vec::new(),
            config_files: BTreeMap::new(),
            reload_signal: None,
            secrets: Vec::new(),
            on_event: Vec::new(),
            user: None,
            replicas: 1,
            depends_on: BTreeMap::new(),
            profiles: Vec::new(),
            port: None,
            ready: None,
            healthcheck: None,
            watchdog: None,
            max_memory: None,
            max_lifetime: None,
            restart: Restart::default(),
            start_timeout: START_TIMEOUT,
            stop: Stop::default(),
            on_manager_exit: OnManagerExit::Die,
            logging: Logging::default(),
            limits: Limits::default(),
            schedule: None,
            rights: Rights::default(),
            labels: BTreeMap::new(),
        }
    }

    /// Whether its runs outlive the manager that started them.
    pub fn is_kept(&self) -> bool {
        self.on_manager_exit == OnManagerExit::Keep
    }

    /// Whether `up` starts it where these profiles are chosen.
    pub fn is_chosen(&self, profiles: &[String]) -> bool {
        self.profiles.is_empty() || self.profiles.iter().any(|one| profiles.contains(one))
    }

    /// Whether a run of it counts as ready only once something has been seen of it, and not as soon
    /// as its program runs.
    pub fn awaits_ready(&self) -> bool {
        self.ready.is_some() || self.port.as_ref().is_some_and(Port::awaits_ready)
    }

    /// Whether what it says on its port is what shows that it is ready.
    pub fn is_ready_by_port(&self) -> bool {
        match &self.ready {
            Some(ready) => ready.by == ReadyBy::Port,
            None => self.awaits_ready(),
        }
    }

    /// The question that is asked until it is ready, if there is one.
    pub fn ready_check(&self) -> Option<&Check> {
        match &self.ready.as_ref()?.by {
            ReadyBy::Probe(check) => Some(check),
            ReadyBy::LogLine(_) | ReadyBy::Notify | ReadyBy::Fd(_) | ReadyBy::Port => None,
        }
    }

    /// The descriptor to which it writes a line when it is ready.
    pub fn ready_fd(&self) -> Option<u32> {
        match &self.ready.as_ref()?.by {
            ReadyBy::Fd(number) => Some(*number),
            ReadyBy::Probe(_) | ReadyBy::LogLine(_) | ReadyBy::Notify | ReadyBy::Port => None,
        }
    }

    /// Whether it has a socket to say how it is, as sd_notify(3) does.
    pub fn is_notifying(&self) -> bool {
        self.watchdog.is_some()
            || self.ready.as_ref().is_some_and(|ready| ready.by == ReadyBy::Notify)
    }
}

/// What follows an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// Which ends lead to a restart.
    pub policy: Policy,
    /// The wait before the second restart in a row; the first is immediate.
    #[serde(with = "duration_text")]
    pub delay: Duration,
    /// The growth of the wait from one failure in a row to the next, at least 1.
    pub factor: f64,
    /// The longest wait.
    #[serde(with = "duration_text")]
    pub max_delay: Duration,
    /// The share by which a wait is lengthened or shortened by chance, 0 to 1.
    pub jitter: f64,
    /// A run of this length ends the row of failures.
    #[serde(with = "duration_text")]
    pub reset_after: Duration,
    /// More restarts than this …
    pub max_restarts: u32,
    /// … within this time, and the service is given up.
    #[serde(with = "duration_text")]
    pub within: Duration,
    /// What giving up means.
    pub on_give_up: OnGiveUp,
    /// Exit codes that mean success.
    pub success_exit_codes: Vec<i32>,
    /// Signals that mean success when they end the service.
    pub success_signals: Vec<SignalName>,
    /// Reasons after which it is never restarted, whatever the policy.
    pub never_on: Vec<crate::exit::Reason>,
}

/// A signal that is written as its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignalName(#[serde(with = "signal_name")] pub Signal);

/// Which ends lead to a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// None.
    No,
    /// All.
    Always,
    /// Those that are no success.
    OnFailure,
    /// All; and a stop by an operator outlives `down` and `up`.
    UnlessStopped,
}

impl Policy {
    /// The word in services.yaml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::UnlessStopped => "unless-stopped",
        }
    }
}

/// What giving up means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGiveUp {
    /// It stays down until somebody starts it.
    Stop,
    /// Its group is given up with it.
    Escalate,
    /// It is tried again after this time.
    RetryEvery(#[serde(with = "duration_text")] Duration),
}

/// How a service is stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// The request to end.
    #[serde(with = "signal_name")]
    pub signal: Signal,
    /// How long after the signal it may take before it is killed.
    #[serde(with = "duration_text")]
    pub grace: Duration,
    /// What is killed.
    pub kill: KillScope,
}

/// What a kill reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillScope {
    /// Everything the program started, however it hid.
    Tree,
    /// The program's process group.
    Group,
    /// The program alone.
    Process,
}

/// What becomes of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// A log file is rotated before it grows beyond this, in bytes.
    pub max_size: u64,
    /// How many rotated files are kept.
    pub max_files: u32,
    /// Whether rotated files are compressed with gzip.
    pub compress: bool,
    /// What happens when the disk cannot take output as fast as it comes.
    pub when_full: WhenFull,
    /// Where it goes besides.
    #[serde(flatten)]
    pub forward: Forward,
}

/// Where lines and ends go besides; absolute paths of Unix datagram sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Forward {
    /// That of systemd-journald.
    #[serde(default)]
    pub journald: Option<String>,
    /// That of a syslog daemon.
    #[serde(default)]
    pub syslog: Option<String>,
}

/// Where systemd-journald listens.
pub const JOURNALD: &str = "/run/systemd/journal/socket";

/// Where the syslog daemon of a machine listens.
pub const SYSLOG: &str = "/dev/log";

/// What happens when the disk cannot take output as fast as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The program waits a moment, then its oldest output not yet on disk is dropped and counted.
    DropOldest,
    /// The program waits.
    Block,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: Policy::OnFailure,
            delay: Duration::from_millis(200),
            factor: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: 0.2,
            reset_after: Duration::from_secs(30),
            max_restarts: 10,
            within: Duration::from_secs(60),
            on_give_up: OnGiveUp::Stop,
            success_exit_codes: vec![0],
            success_signals: Vec::new(),
            never_on: vec![crate::exit::Reason::ExecFailed],
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal::TERM, grace: Duration::from_secs(10), kill: KillScope::Tree }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            max_size: 10 << 20,
            max_files: 5,
            compress: true,
            when_full: WhenFull::DropOldest,
            forward: Forward::default(),
        }
    }
}

/// How long a start may take unless written otherwise.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
