//! Commands that are run when something happens.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, Length};

/// Commands that are run when something happens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Hooks {
    /// Several.
    More(Vec<Hook>),
    /// One.
    One(Hook),
}

/// A command that is run when something happens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// What to run, in the folder of the first configuration file. A list is executed as it stands; a
    /// text is split into words without a shell. The exit record, of
    /// `unhealthy` the event, comes as JSON on its standard input.
    pub exec: Command,
    /// What it is run for. Without it `give_up`, `oom_killed` and `crash_looping`.
    pub events: Option<Vec<HookEvent>>,
    /// How long it may take before it is killed with everything it started.
    pub timeout: Option<Length>,
}

/// What a hook is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// A replica failed too often and is not started again.
    GiveUp,
    /// Memory ran out: a run ended by it, or lost a process that it had started.
    OomKilled,
    /// A replica keeps failing: five times in a row.
    CrashLooping,
    /// A replica is not well: its health check has failed as often in a row as it may.
    Unhealthy,
    /// Any run ended.
    Exit,
}
