//! Services that live and die together, as meant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::ServiceName;
use crate::time::duration_text;

/// Services that live and die together. Every one of them is configured, and in no other group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its services, in the order in which they are started; not empty.
    pub services: Vec<ServiceName>,
    /// Who is restarted when one ends and is started again.
    pub strategy: Strategy,
    /// More restarts than this …
    pub max_restarts: u32,
    /// … within this time, and the group is given up.
    #[serde(with = "duration_text")]
    pub within: Duration,
}

/// Who is restarted when a service of a group ends; Erlang's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// That one.
    OneForOne,
    /// All.
    OneForAll,
    /// That one and those after it.
    RestForOne,
}

impl Strategy {
    /// The word in services.yaml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }
}

impl Default for Group {
    /// Nobody. Three restarts in five seconds: Erlang's one is too tight for programs of the operating system.
    fn default() -> Self {
        Self {
            services: Vec::new(),
            strategy: Strategy::OneForOne,
            max_restarts: 3,
            within: Duration::from_secs(5),
        }
    }
}
