//! services.yaml as it is written: every key there is, with its description for editors.
//!
//! From these types comes the JSON Schema, and the schema is what a file is checked against. A key
//! marked `x-supported: false` is known and checked, and refused until its behaviour exists.
//! Nothing here fills in defaults or compares one key with another; that is `mean`'s.

mod depend;
mod given;
mod group;
mod health;
mod hook;
mod later;
mod limits;
mod metrics;
mod port;
mod schedule;
mod service;
mod values;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

pub use depend::{Condition, Dependencies, Dependency, DependencyLong};
pub use given::{
    Destination, EnvFile, EnvFileLong, EnvFiles, Listen, Secret, SecretLong, SecretSource,
};
pub use group::{Group, Strategy};
pub use health::{HealthFailure, Healthcheck, NotifyBy, Ready};
pub use hook::{Hook, HookEvent, Hooks};
pub use later::{Cluster, OneOrMore, Retry, Task};
pub use limits::{Capability, Limits, OnOom};
pub use metrics::{AddressText, Metrics};
pub use port::{
    Banner, Bracket, Channel, Counted, Eof, Framing, Handshake, Id, IdType, Longer,
    OnProtocolError, Port, PortReady, Prefix, Profile, Replies, SendExpect, Sentinel, Stray,
    Unbuffer,
};
pub use schedule::{Missed, Overlap, Schedule};
pub use service::{
    Command, Environment, Forward, KillScope, Logging, OnGiveUp, OnManagerExit, Policy, Restart,
    RestartLong, Service, WhenFull,
};
pub use values::{
    CoreSize, Cron, EndpointText, EnvEntry, Length, NameText, Octal, Pattern, ReasonWord,
    SignalText, Size, SocketPath, UrlText, User, Word,
};

/// The services that wharf keeps running, and how.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "services.yaml", rename = "Services")]
pub struct File {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: Option<u32>,
    /// Keys of a service that apply to every service which does not write them itself.
    pub defaults: Option<Box<Service>>,
    /// The services by name.
    pub services: Option<IndexMap<String, Service>>,
    /// Where secrets come from, by name.
    pub secrets: Option<IndexMap<String, SecretSource>>,
    /// Commands that are run when something happens to any service.
    pub on_event: Option<Hooks>,
    /// Whether control groups are used where they can be.
    pub cgroups: Option<Cgroups>,
    /// Services that live and die together.
    pub groups: Option<IndexMap<String, Group>>,
    /// Programs that must end, and what follows when they fail.
    #[schemars(extend("x-supported" = false))]
    pub tasks: Option<IndexMap<String, Task>>,
    /// How this manager finds others.
    #[schemars(extend("x-supported" = false))]
    pub cluster: Option<Cluster>,
    /// Where metrics can be scraped over TCP.
    pub metrics: Option<Metrics>,
}

/// Whether control groups are used.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cgroups {
    /// Where a writable cgroup2 mount is found.
    Auto,
    /// Never.
    Off,
}
