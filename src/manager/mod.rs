//! The manager: the loop in which deciding and doing meet. It never waits for anybody but the poller.

mod request;

use std::io;
use std::os::unix::net::UnixListener;

pub use request::{
    EVENTS, Handle, LastExit, ManagerStatus, PortStatus, Published, REQUESTS, ReadState, Refusal,
    ReplicaStatus, Request, Snapshot, SpeakError, Speech,
};

use crate::state::StateDir;

/// How a manager is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where its state is; the lock on it is descriptor 3.
    pub state: StateDir,
    /// Whether output goes to the terminal, and a hang-up means the end rather than a reload.
    pub foreground: bool,
    /// Whether the terminal gets colours.
    pub color: bool,
}

/// Runs the manager in this process, which the guardian has started for it.
pub fn run(options: &Options, _serve: impl FnOnce(UnixListener, Handle) -> io::Result<()>) -> i32 {
    // Without a loop there is nothing to manage, and starting again would not help.
    tracing::error!(?options, "this build has no loop");
    78
}
