//! Messages that wait for room: their port has as many waiting as it takes, and their clients chose
//! to wait for a while instead of being refused.
//!
//! They are tried again, first come first served for each target, whenever the loop has done
//! something. What waits here is bounded in number and in bytes, over all ports.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::name::Target;
use crate::os::clock;
use crate::time::Tick;

use super::control::Control;
use super::request::{SpeakError, Speech};

/// The most messages that wait for room …
const WAITING: usize = 256;
/// … and the most bytes of them together, unless it is a single message.
const WAITING_BYTES: usize = 64 << 20;

/// A client's message.
pub(super) struct Spoken {
    pub(super) target: Target,
    pub(super) payload: Bytes,
    pub(super) speech: Speech,
    pub(super) client: u64,
    pub(super) reply: oneshot::Sender<Result<Vec<Bytes>, SpeakError>>,
}

/// Those that wait, in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<(Spoken, Tick)>,
    bytes: usize,
}

impl Queue {
    /// When the first of them has waited long enough.
    pub(super) fn due(&self) -> Option<Tick> {
        self.waiting.iter().map(|(_, until)| *until).min()
    }

    /// Takes a message in, or gives it back where there is no room even for those that wait.
    fn push(&mut self, spoken: Spoken, until: Tick) -> Result<(), Spoken> {
        let bytes = self.bytes + spoken.payload.len();
        let full = self.waiting.len() >= WAITING || bytes > WAITING_BYTES;
        if full && !self.waiting.is_empty() {
            return Err(spoken);
        }
        self.bytes = bytes;
        self.waiting.push_back((spoken, until));
        Ok(())
    }
}

impl Control {
    /// A message found no room, and its client waits for some for so long.
    pub(super) fn wait_for_room(&mut self, spoken: Spoken, wait: Duration) {
        let until = clock::now() + wait;
        if let Err(Spoken { target, reply, .. }) = self.room.push(spoken, until) {
            // A client that went away needs no answer.
            let _ = reply.send(Err(SpeakError::Busy { name: target.to_string() }));
        }
    }

    /// Tries the messages that wait for room again.
    pub(super) fn look_for_room(&mut self) {
        if self.room.waiting.is_empty() {
            return;
        }
        let now = clock::now();
        let mut full: HashSet<Target> = HashSet::new();
        for (spoken, until) in std::mem::take(&mut self.room).waiting {
            if spoken.reply.is_closed() {
                continue;
            }
            // What came later to the same target does not overtake.
            let room = !full.contains(&spoken.target)
                && self.has_room(&spoken.target, spoken.payload.len());
            if !room {
                full.insert(spoken.target.clone());
            }
            if room {
                self.speak(spoken, (until > now).then(|| until.since(now)));
            } else if until <= now {
                let name = spoken.target.to_string();
                let _ = spoken.reply.send(Err(SpeakError::Busy { name }));
            } else {
                self.room.bytes += spoken.payload.len();
                self.room.waiting.push_back((spoken, until));
            }
        }
    }

    /// Whether a message of so many bytes can come to anything: there is room, or another answer than "busy".
    pub(super) fn has_room(&self, target: &Target, size: usize) -> bool {
        let Ok(replicas) = self.replicas_of(target) else { return true };
        let run = self.least_busy(&replicas).and_then(|incarnation| self.runs.get(&incarnation));
        let exchange = run.and_then(|run| run.exchange.as_ref());
        exchange.is_none_or(|exchange| exchange.has_room(size as u64))
    }
}
