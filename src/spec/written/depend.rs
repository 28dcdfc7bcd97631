//! What a service waits for, as it is written: `depends_on:`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::NameText;

/// What must be there first.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Dependencies {
    /// Services by name, each with its condition.
    Map(IndexMap<String, Dependency>),
    /// Services that must have been started.
    List(Vec<NameText>),
}

/// One thing that must be there first.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Dependency {
    /// The condition alone.
    Short(Condition),
    /// Everything spelled out.
    Long(DependencyLong),
}

/// One thing that must be there first, spelled out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DependencyLong {
    /// What it must have reached.
    pub condition: Option<Condition>,
    /// Whether this service is restarted too when somebody, or a reload, restarts that one. A restart
    /// after a failure is none of these.
    pub restart: Option<bool>,
    /// Whether this service stays down when that one does not exist, was stopped or has failed for
    /// good; otherwise it is started without it.
    pub required: Option<bool>,
}

/// What a service must have reached.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It runs.
    ServiceStarted,
    /// It is ready and well.
    ServiceHealthy,
    /// It has ended with success.
    ServiceCompletedSuccessfully,
}
