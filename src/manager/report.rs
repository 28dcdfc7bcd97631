//! What the guardian is told for the service manager above wharf: that the loop turns, that it reads its
//! configuration anew, that everything ends, and how the services are, in a line.
//!
//! The guardian passes it on (`guardian/notify.rs`). Nothing here waits: what is to be told is compared
//! with what was, and what finds no room is told a moment later.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::event::State;
use crate::guardian::{ALIVE, RELOADED, RELOADING, STATUS, STOPPING};
use crate::name::ReplicaId;
use crate::os::fds::{self, Waker};
use crate::time::Tick;

use super::control::Control;

/// The pause between two lines that say how things are.
const PAUSE: Duration = Duration::from_millis(500);
/// How soon what found no room is told again.
const AGAIN: Duration = Duration::from_millis(50);
/// How many of those that keep failing are named.
const NAMED: usize = 3;

/// How many reloads have begun and how many are over, counted by whoever does them.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    begun: AtomicU64,
    over: AtomicU64,
}

/// A reload that is under way, until this is dropped.
#[derive(Debug)]
pub struct Reloading {
    reloads: Arc<Reloads>,
    waker: Waker,
}

impl Reloading {
    /// One begins.
    pub(super) fn begin(reloads: &Arc<Reloads>, waker: &Waker) -> Self {
        reloads.begun.fetch_add(1, Ordering::SeqCst);
        waker.wake();
        Self { reloads: Arc::clone(reloads), waker: waker.clone() }
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        self.reloads.over.fetch_add(1, Ordering::SeqCst);
        self.waker.wake();
    }
}

/// What has been told, and what is to be told next.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is told of by itself")]
pub(super) struct Tidings {
    /// Whether anybody wants to know.
    wanted: bool,
    /// How many reloads have been told of.
    begun: u64,
    reloading: bool,
    stopping: bool,
    /// Whether a sign of life was asked for and not given.
    owes_sign: bool,
    /// The last line that was told.
    told: String,
    /// Whether something has changed since it was made.
    stale: bool,
    /// When the next one may be told.
    next: Tick,
    /// When what found no room is told again.
    again: Option<Tick>,
}

impl Tidings {
    /// For a guardian that has somebody to tell, or that has nobody.
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, stale: wanted, ..Self::default() }
    }

    /// How a replica is has changed.
    pub(super) fn stale(&mut self) {
        self.stale = self.wanted;
    }

    /// When something is to be told.
    pub(super) fn due(&self) -> Option<Tick> {
        self.stale.then_some(self.next).into_iter().chain(self.again).max()
    }
}

impl Control {
    /// The guardian wants to know whether this loop turns: it does, or this would not be read.
    pub(super) fn asked_for_a_sign(&mut self) {
        self.tidings.owes_sign = true;
    }

    /// Tells the guardian what has changed.
    pub(super) fn look_at_report(&mut self, now: Tick) {
        if self.tidings.again.is_some_and(|at| at > now) {
            return;
        }
        let told = self.tell_guardian(now);
        self.tidings.again = if told { None } else { Some(now + AGAIN) };
    }

    /// Tells it as far as there is room; false where there is none.
    fn tell_guardian(&mut self, now: Tick) -> bool {
        if self.tidings.owes_sign {
            if !self.say_to_guardian(ALIVE) {
                return false;
            }
            self.tidings.owes_sign = false;
        }
        if !self.tidings.wanted {
            return true;
        }
        // What is over is read first: what begins in between is told by the next turn.
        let over = self.handle.reloads.over.load(Ordering::SeqCst);
        let begun = self.handle.reloads.begun.load(Ordering::SeqCst);
        if begun > self.tidings.begun && !self.tidings.reloading {
            if !self.say_to_guardian(RELOADING) {
                return false;
            }
            self.tidings.reloading = true;
        }
        self.tidings.begun = begun;
        if self.tidings.reloading && begun == over {
            if !self.say_to_guardian(RELOADED) {
                return false;
            }
            self.tidings.reloading = false;
        }
        if self.shutting_down && !self.tidings.stopping {
            if !self.say_to_guardian(STOPPING) {
                return false;
            }
            self.tidings.stopping = true;
        }
        self.tell_status(now)
    }

    fn tell_status(&mut self, now: Tick) -> bool {
        if !self.tidings.stale || self.tidings.next > now {
            return true;
        }
        self.tidings.next = now + PAUSE;
        let views = self.supervisor.views().map(|view| {
            let named = view.crash_looping.then_some(view.replica);
            (view.state, named)
        });
        let line = headline(views, self.shutting_down);
        if line != self.tidings.told {
            let word = [STATUS, line.as_bytes()].concat();
            if !self.say_to_guardian(&word) {
                return false;
            }
            self.tidings.told = line;
        }
        self.tidings.stale = false;
        true
    }

    /// Says something to the guardian; false where there is no room. One that is gone needs to hear
    /// nothing.
    pub(super) fn say_to_guardian(&self, word: &[u8]) -> bool {
        let sent = fds::try_send(self.guardian.as_fd(), word, &[]);
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// How all replicas are, in a line: how many run, how many are in another state, and who keeps failing.
fn headline(
    views: impl Iterator<Item = (State, Option<ReplicaId>)>,
    shutting_down: bool,
) -> String {
    const OTHERS: [State; 8] = [
        State::Starting,
        State::Waiting,
        State::Backoff,
        State::Stopping,
        State::Failed,
        State::Finished,
        State::Stopped,
        State::Unkillable,
    ];
    let (mut states, mut failing) = (Vec::new(), Vec::new());
    for (state, named) in views {
        states.push(state);
        failing.extend(named);
    }
    let count = |wanted| states.iter().filter(|state| **state == wanted).count();
    let ends = if shutting_down { "shutting down: " } else { "" };
    let mut line = format!("{ends}{} of {} running", count(State::Running), states.len());
    for state in OTHERS {
        let count = count(state);
        if count > 0 {
            line.extend([", ", &count.to_string(), " ", state.as_str()]);
        }
    }
    if !failing.is_empty() {
        let names: Vec<_> = failing.iter().take(NAMED).map(ToString::to_string).collect();
        line.extend(["; crash-looping: ", &names.join(", ")]);
        if failing.len() > NAMED {
            line.extend([" and ", &(failing.len() - NAMED).to_string(), " more"]);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_everything_is() {
        let check = |all: &[(State, u32)], shutting_down, expected: &str| {
            let views = all.iter().map(|(state, failing)| {
                let service = "web".parse().unwrap();
                (*state, (*failing > 0).then_some(ReplicaId { service, replica: *failing }))
            });
            assert_eq!(headline(views, shutting_down), expected);
        };
        check(&[], false, "0 of 0 running");
        check(&[(State::Running, 0), (State::Running, 0)], false, "2 of 2 running");
        check(
            &[(State::Stopping, 0), (State::Running, 0), (State::Stopped, 0)],
            true,
            "shutting down: 1 of 3 running, 1 stopping, 1 stopped",
        );
        let failing: Vec<_> = (1..=5).map(|replica| (State::Backoff, replica)).collect();
        check(
            &failing,
            false,
            "0 of 5 running, 5 backoff; crash-looping: web/1, web/2, web/3 and 2 more",
        );
    }
}
