//! Who holds up a shutdown: said in the manager's own log, and so on the terminal of `wharf up`, when
//! it takes longer than one expects. `wharf down` asks for itself.

use std::time::Duration;

use crate::event::State;
use crate::supervise::View;
use crate::time::Tick;

use super::control::Control;

/// How long a shutdown may take before it is explained, and how often it is explained again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many names a line has.
const NAMED: usize = 10;

impl Control {
    /// A shutdown has begun.
    pub(super) fn explain_shutdown(&mut self, now: Tick) {
        self.explained.get_or_insert(now + PATIENCE);
    }

    /// Says what is still there, if it is time to.
    pub(super) fn shutdown_due(&mut self, now: Tick) {
        if self.explained.is_none_or(|at| now < at) {
            return;
        }
        let held: Vec<View> =
            self.supervisor.views().filter(|view| !view.state.is_resting()).collect();
        let mut names: Vec<String> = held
            .iter()
            .take(NAMED)
            .map(|view| {
                let pid = self.pid_of(&view.replica).map(|pid| format!(" (pid {pid})"));
                let how =
                    if view.state == State::Unkillable { ", killed and still there" } else { "" };
                format!("{}{}{how}", view.replica, pid.unwrap_or_default())
            })
            .collect();
        if held.len() > NAMED {
            names.push(format!("and {} more", held.len() - NAMED));
        }
        if !names.is_empty() {
            tracing::info!("waiting for {}; a second request kills what is left", names.join(", "));
        }
        self.explained = Some(now + PATIENCE);
    }
}
