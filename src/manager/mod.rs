//! The manager: the loop in which deciding and doing meet. It never waits for anybody but the poller.

mod request;

pub use request::*;

use crate::state::StateDir;

/// How a manager is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; its lock is held on descriptor [`LOCK_FD`](crate::guardian::LOCK_FD).
    pub state: StateDir,
    /// Whether somebody looks on at a terminal.
    pub foreground: bool,
    /// Whether its words may be coloured.
    pub color: bool,
}

/// Manages until everything is down and returns the exit code for this process.
pub fn run(options: Options) -> i32 {
    // Without a loop there is nothing to manage, and starting again would not help.
    tracing::error!(?options, "this build has no loop");
    78
}
