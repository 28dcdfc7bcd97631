//! When a service is started, as meant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::duration_text;

/// When a service is started, instead of always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The times.
    #[serde(flatten)]
    pub rhythm: Rhythm,
    /// What happens when the last run has not ended.
    pub overlap: Overlap,
    /// What happens to a start whose time went by while the machine slept, its clock was set
    /// forward or no manager ran.
    pub missed: Missed,
}

/// The times of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rhythm {
    /// By the wall clock: a pattern of five fields that comes at some time.
    Cron(String),
    /// By the monotonic clock, from one start to the next; at least a second.
    Every(#[serde(with = "duration_text")] Duration),
}

/// What happens when the last run has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new run is left out, and that is told.
    #[default]
    Skip,
    /// The new run begins when the old one has ended. At most one waits.
    Queue,
    /// The old run is stopped by its ladder and the new one begins.
    Kill,
}

/// What happens to a start whose time went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// It is made up for, once, however many there were.
    #[default]
    Run,
    /// It is left out, and that is told.
    Skip,
}
