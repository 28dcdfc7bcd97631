//! When a service is started, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cron, Length};

/// When a service is started. One of `cron` and `every` is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// At these times: minute, hour, day of the month, month, day of the week, in the manager's time
    /// zone.
    pub cron: Option<Cron>,
    /// In this rhythm, from one start to the next; the first is at once.
    pub every: Option<Length>,
    /// What happens when the last run has not ended.
    pub overlap: Option<Overlap>,
    /// What happens to a start whose time went by while the machine slept or no manager ran.
    pub missed: Option<Missed>,
}

/// What happens when the last run has not ended.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new run is left out.
    Skip,
    /// The new run waits; at most one does.
    Queue,
    /// The old run is stopped.
    Kill,
}

/// What happens to a start whose time went by.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// It is made up for, once, however many there were.
    Run,
    /// It is left out.
    Skip,
}
