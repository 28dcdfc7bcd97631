//! The closed list of causes: why a run ended, seen from the manager.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::reason::words;

words! {
    /// What led to an end, as far as the manager had a part in it.
    Cause {
        /// By itself, or by somebody the manager knows nothing of.
        Spontaneous = "spontaneous",
        /// An operator asked for a stop.
        StopRequested = "stop_requested",
        /// An operator asked for a restart.
        RestartRequested = "restart_requested",
        /// A reload brought another configuration.
        ConfigChanged = "config_changed",
        /// A service it depends on stopped.
        DependencyStopped = "dependency_stopped",
        /// Its group's strategy ended it because a sibling ended.
        GroupStrategy = "group_strategy",
        /// It did not start within `start_timeout`.
        StartTimeout = "start_timeout",
        /// It ran, and did not become ready within `start_timeout`.
        ReadyTimeout = "ready_timeout",
        /// Its health check failed.
        HealthFailed = "health_failed",
        /// It missed its watchdog's deadline.
        Watchdog = "watchdog",
        /// It used more than `max_memory`.
        MaxMemory = "max_memory",
        /// It lived longer than `max_lifetime`.
        MaxLifetime = "max_lifetime",
        /// It did not stop in time.
        StopTimeout = "stop_timeout",
        /// The manager was shutting down.
        ManagerShutdown = "manager_shutdown",
        /// The manager died.
        ManagerDied = "manager_died",
        /// Another incarnation took its place.
        Replaced = "replaced",
        /// The process that spawned it ended.
        ParentDied = "parent_died",
        /// A process that it was linked to ended.
        Linked = "linked",
        /// An operator sent it a signal.
        SignalRequested = "signal_requested",
        /// The guardian died.
        GuardianDied = "guardian_died",
        /// The task's time was up.
        TaskTimeout = "task_timeout",
        /// The task was cancelled.
        Cancelled = "cancelled",
        /// Its lease was lost to another node.
        LeaseLost = "lease_lost",
        /// Another node of the same name took over.
        Superseded = "superseded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_json_agree() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }
}
