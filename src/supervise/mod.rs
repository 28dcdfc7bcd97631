//! Decides what happens to services: pure state machines from events to actions.
//!
//! [`Supervisor::step`] takes what happened and returns what is to be done; [`Supervisor::next_deadline`]
//! says when it wants to be asked again. Nothing here looks at a clock, a process or a file: `now`
//! and the seed of all chance are arguments. `docs/POLICY.md` says every rule in plain words and
//! names the oracle in `tests/simulate.rs` that watches over it.

mod backoff;
mod command;
mod configure;
mod follow;
mod graph;
mod health;
mod hold;
mod intensity;
mod keep;
mod ladder;
mod machine;
mod memo;
mod persisted;
mod plan;
mod renew;
mod replica;
mod roll;
#[cfg(test)]
mod sample;
mod single;
mod supervisor;
#[cfg(feature = "daemon")]
mod timetable;
mod together;
mod verdict;
mod view;
mod watch;

pub use backoff::CRASH_LOOPING;
pub use follow::SWEEP_PATIENCE;
pub use health::{LONGEST_EXTENSION, MEMORY_INTERVAL, PROBE_PATIENCE, READY_QUESTION};
pub use hold::Hold;
pub use keep::{Conversation, Fate, Resume, fate, resume};
pub use ladder::KILL_PATIENCE;
pub use persisted::STATE_VERSION;
pub use plan::restart_needed;
pub use roll::Halted;
pub use single::{Judged, Single};
pub use supervisor::{MAX_STARTING, Supervisor};
#[cfg(feature = "daemon")]
pub use timetable::{Due, LATE, REPEATS, Timetable};
pub use verdict::of_predecessor;
pub use view::{LastEnd, View};
