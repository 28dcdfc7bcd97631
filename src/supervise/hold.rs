//! Why a replica that is wanted is not started, and why one that is to end still runs: the words for
//! what stands between a replica and its neighbours. No decisions.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Rest;
use crate::exit::Cause;
use crate::name::{ReplicaId, Requester, ServiceName};
use crate::spec::Condition;
use crate::time::Tick;

use super::ladder::{After, Ending};

/// Why a replica that is wanted is not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// A dependency has not got there yet.
    Until {
        /// The dependency.
        service: ServiceName,
        /// What it must reach.
        condition: Condition,
    },
    /// A dependency will not get there by itself: the replica is skipped until it does.
    Without {
        /// The dependency.
        service: ServiceName,
        /// What it had to reach.
        condition: Condition,
        /// How it rests.
        rest: Rest,
    },
    /// Somebody before it in its group is not up yet. (Who is not said: it would have to be said anew of
    /// all of a long group whenever one of them is up.)
    Turn {
        /// The group.
        group: Arc<str>,
    },
    /// Somebody after it in its group is being ended, and ends before this one is started.
    Emptying {
        /// The group.
        group: Arc<str>,
    },
    /// Its group was given up.
    GaveUp {
        /// The group.
        group: Arc<str>,
        /// Whose end was one too many.
        replica: ReplicaId,
    },
}

impl Hold {
    /// Whether nothing is waited for: it stays down until something changes.
    pub fn is_shut(&self) -> bool {
        matches!(self, Self::Without { .. } | Self::GaveUp { .. })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until { service, condition } => match condition {
                Condition::Started => write!(f, "waits for {service} to run"),
                Condition::Healthy => write!(f, "waits for {service} to be healthy"),
                Condition::Completed => write!(f, "waits for {service} to complete"),
            },
            Self::Without { service, condition, rest } => {
                let rest = match rest {
                    Rest::Stopped => "is stopped",
                    Rest::Finished => "has finished",
                    Rest::Failed => "has failed",
                    Rest::Scheduled => "waits for its time",
                };
                write!(f, "skipped: {service} {rest}")?;
                match condition {
                    Condition::Started => Ok(()),
                    Condition::Healthy => f.write_str(" and is not healthy"),
                    Condition::Completed => f.write_str(" and has not completed"),
                }
            }
            Self::Turn { group } => {
                write!(f, "waits for those before it in the group {group}")
            }
            Self::Emptying { group } => {
                write!(f, "waits for those after it in the group {group} to end")
            }
            Self::GaveUp { group, replica } => {
                write!(f, "the group {group} was given up when {replica} ended")
            }
        }
    }
}

/// Who has to be down before a run that is to end is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// What depends on it.
    Dependents,
    /// What depends on it and is restarted with it.
    Restarting,
    /// What comes after it in its group.
    Group,
    /// What depends on it, and what comes after it in its group.
    Everything,
}

/// An end that is wanted: carried out at once, or as soon as nobody is in the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) cause: Cause,
    pub(super) by: Option<Requester>,
    pub(super) after: After,
    pub(super) scope: Scope,
    /// What the record has to say of it, beside the cause.
    pub(super) why: Option<Box<str>>,
    /// Why it is not started again, where its group is given up.
    pub(super) hold: Option<Box<Hold>>,
}

impl Held {
    /// Somebody's wish.
    pub(super) fn asked(cause: Cause, by: &Requester, after: After, scope: Scope) -> Self {
        Self { cause, by: Some(by.clone()), after, scope, why: None, hold: None }
    }

    /// The end as it begins now.
    pub(super) fn ending(self, now: Tick) -> Ending {
        Ending::wanted(self, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_who_is_waited_for() {
        let service: ServiceName = "db".parse().unwrap();
        let group: Arc<str> = "core".into();
        let replica = ReplicaId { service: service.clone(), replica: 2 };
        let without = |condition, rest| Hold::Without { service: service.clone(), condition, rest };
        let until = |condition| Hold::Until { service: service.clone(), condition };
        for (hold, words) in [
            (until(Condition::Started), "waits for db to run"),
            (until(Condition::Healthy), "waits for db to be healthy"),
            (until(Condition::Completed), "waits for db to complete"),
            (without(Condition::Started, Rest::Stopped), "skipped: db is stopped"),
            (
                without(Condition::Healthy, Rest::Finished),
                "skipped: db has finished and is not healthy",
            ),
            (
                without(Condition::Completed, Rest::Failed),
                "skipped: db has failed and has not completed",
            ),
            (without(Condition::Started, Rest::Scheduled), "skipped: db waits for its time"),
            (Hold::Turn { group: group.clone() }, "waits for those before it in the group core"),
            (
                Hold::Emptying { group: group.clone() },
                "waits for those after it in the group core to end",
            ),
            (Hold::GaveUp { group, replica }, "the group core was given up when db/2 ended"),
        ] {
            assert_eq!(hold.to_string(), words);
            assert_eq!(hold.is_shut(), !words.starts_with("waits"));
        }
    }
}
