//! Commands that are run when something happens, as meant.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::duration_text;

/// How long a hook may take unless written otherwise.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// A command that is run when something happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The words to execute; never empty.
    pub exec: Vec<String>,
    /// The folder to run in; an absolute path.
    pub folder: PathBuf,
    /// What it is run for.
    pub events: Vec<HookEvent>,
    /// How long it may take.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
}

/// What a hook is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// A replica failed too often and is not started again.
    GiveUp,
    /// Memory ran out: a run ended by it, or lost a process that it had started.
    OomKilled,
    /// A replica keeps failing.
    CrashLooping,
    /// A replica is not well.
    Unhealthy,
    /// Any run ended.
    Exit,
}

impl HookEvent {
    /// What a hook is run for unless written otherwise: everything that somebody must look at.
    pub const USUAL: [Self; 3] = [Self::GiveUp, Self::OomKilled, Self::CrashLooping];

    /// The word in services.yaml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GiveUp => "give_up",
            Self::OomKilled => "oom_killed",
            Self::CrashLooping => "crash_looping",
            Self::Unhealthy => "unhealthy",
            Self::Exit => "exit",
        }
    }
}
