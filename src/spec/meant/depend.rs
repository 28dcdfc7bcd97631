//! What a service waits for before it is started, as meant.

use serde::{Deserialize, Serialize};

/// What one service must have reached before another is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What it must have reached.
    pub condition: Condition,
    /// Whether the dependent is restarted too when an operator or a reload restarts it.
    pub restart: bool,
    /// Whether the dependent stays down where it cannot be had; otherwise it starts without it.
    pub required: bool,
}

/// What a service must have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    /// It runs, or has run and finished.
    #[serde(rename = "service_started")]
    Started,
    /// It is ready, and well where that is looked at.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// It has ended with success.
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

impl Default for Dependency {
    fn default() -> Self {
        Self { condition: Condition::Started, restart: false, required: true }
    }
}
