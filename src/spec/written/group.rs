//! Services that live and die together, as they are written: `groups:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Length, NameText};

/// Services that live and die together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its services, in the order in which they are started. A service is in one group at most.
    pub services: Vec<NameText>,
    /// Who is restarted when one ends and is started again.
    pub strategy: Option<Strategy>,
    /// More restarts than this within `within`, and the group is given up: all of it is ended.
    pub max_restarts: Option<u32>,
    /// The time in which `max_restarts` are counted.
    pub within: Option<Length>,
}

/// Who is restarted when a service of a group ends.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// That one.
    OneForOne,
    /// All.
    OneForAll,
    /// That one and those after it.
    RestForOne,
}
