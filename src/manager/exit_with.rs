//! `wharf up --exit-with NAME`: when that service has ended for good, everything ends, and the guardian
//! exits as that service did.
//!
//! What for good means is decided by `Supervisor::is_over`. An operator's stop is no end: who stopped it may
//! start it again.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use crate::exit::{Cause, ExitRecord};
use crate::guardian::EXIT;
use crate::name::{ReplicaId, Requester, ServiceName};
use crate::os::fds;

use super::control::Control;

/// The service with which everything ends.
#[derive(Debug)]
pub(super) struct ExitWith {
    service: ServiceName,
    /// Whether something has happened to it since it was looked at.
    look: bool,
    /// The codes of the last ends, as others read them, by replica.
    codes: BTreeMap<u32, u8>,
    /// Whether it has ended for good.
    is_over: bool,
}

/// How a service is, as far as this is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It runs, will run by itself, or was stopped by somebody who may start it again.
    Alive,
    /// It has ended for good, but not every record of that is in the journal.
    Untold,
    /// It has ended for good.
    Over,
}

impl ExitWith {
    pub(super) fn new(service: ServiceName) -> Self {
        Self { service, look: true, codes: BTreeMap::new(), is_over: false }
    }

    /// Something has happened to a service.
    pub(super) fn changed(&mut self, service: &ServiceName) {
        self.look |= self.service == *service;
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, replica: &ReplicaId, record: &ExitRecord) {
        if replica.service == self.service {
            self.codes.insert(replica.replica, record.passed_on());
            self.look = true;
        }
    }

    /// The exit code: of the first replica that did not end well, or 0. Where it ended without ever
    /// having run (what it depends on failed) there is none of its own.
    fn code(&self) -> u8 {
        let bad = self.codes.values().copied().find(|code| *code != 0);
        bad.unwrap_or(u8::from(self.is_over && self.codes.is_empty()))
    }
}

impl Control {
    /// Ends everything if the service with which it is to end has ended for good.
    pub(super) fn look_at_exit_with(&mut self) {
        let Some(exit_with) = self.exit_with.as_mut().filter(|one| one.look) else { return };
        exit_with.look = false;
        if self.shutting_down {
            return;
        }
        let name = exit_with.service.clone();
        let standing = self.standing_of(&name);
        let Some(exit_with) = &mut self.exit_with else { return };
        match standing {
            Standing::Alive => {}
            Standing::Untold => exit_with.look = true,
            Standing::Over => {
                exit_with.is_over = true;
                let who = format!("--exit-with {name}");
                self.shut_down(Cause::ManagerShutdown, Requester { uid: None, pid: None, who });
            }
        }
    }

    fn standing_of(&self, name: &ServiceName) -> Standing {
        if !self.supervisor.is_over(name) {
            Standing::Alive
        } else if self.held.keys().any(|replica| replica.service == *name) {
            Standing::Untold
        } else {
            Standing::Over
        }
    }

    /// Tells the guardian with which code to exit. The last word of an orderly end.
    pub(super) fn say_exit_code(&self) {
        if let Some(exit_with) = &self.exit_with {
            let code = exit_with.code();
            tracing::info!(service = %exit_with.service, code, "wharf exits as its service did");
            let word = [EXIT, code.to_string().as_bytes()].concat();
            // The guardian reads all there is; and without it there is nobody to exit.
            let _ = fds::send(self.guardian.as_fd(), &word, &[]);
        }
    }
}
