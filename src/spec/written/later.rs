//! The keys whose behaviour does not exist yet. They are checked as if it did, so that a file
//! written for a later version is refused for one reason only.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, Environment, Length, NameText, SignalText, User, Word};

/// One text or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// Several.
    More(Vec<Word>),
    /// One.
    One(Word),
}

/// A program that must end.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What to run.
    pub command: Option<Command>,
    /// Whether `command` is a line for `/bin/sh -c`.
    pub shell: Option<bool>,
    /// The service whose replicas take these tasks over their port.
    pub worker: Option<NameText>,
    /// The folder to run in.
    pub working_dir: Option<Word>,
    /// The user to run as.
    pub user: Option<User>,
    /// Environment variables.
    pub environment: Option<Environment>,
    /// How long an attempt may take.
    pub timeout: Option<Length>,
    /// How many run at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// Higher goes first.
    pub priority: Option<i32>,
    /// Tasks that must have succeeded first.
    pub after: Option<Vec<NameText>>,
    /// What follows a failure.
    pub retry: Option<Retry>,
    /// The signal that asks it to end.
    pub stop_signal: Option<SignalText>,
}

/// What follows the failure of a task.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many more attempts there are.
    #[schemars(range(max = 1000))]
    pub max: Option<u32>,
    /// The wait before the first of them; it doubles.
    pub backoff: Option<Length>,
    /// The longest wait.
    pub max_backoff: Option<Length>,
}

/// How this manager finds others.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The name of the cluster.
    pub name: NameText,
    /// The name of this node.
    pub node: Option<NameText>,
    /// The addresses of NATS servers.
    pub servers: OneOrMore,
    /// A file with the credentials for them.
    pub credentials: Option<Word>,
}
