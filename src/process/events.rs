//! What a hub tells a process, as messages like any other: they are received by their type.

use serde::{Deserialize, Serialize};

use crate::mailbox::Exit;
use crate::name::Address;

/// A process that was monitored has ended. There is exactly one for each monitor, behind the last message of
/// that process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The monitor, as [`Monitor::id`](super::Monitor::id) says it.
    pub monitor: u64,
    /// Who ended.
    pub address: Address,
    /// How and why. Its reason is `lost` where nothing is known of such a process.
    pub exit: Exit,
    /// Whether it had ended before the monitor was asked for.
    pub late: bool,
}

/// A process that this one is linked to has ended, and ends are [trapped](super::trap_exits).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Who ended.
    pub address: Address,
    /// How and why.
    pub exit: Exit,
}
