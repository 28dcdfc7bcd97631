//! Clients that would rather wait than be refused as busy (`wait` among the features of their HELLO), as
//! at the end of a pipe: where a message of theirs finds no room, it waits with all that came behind it,
//! and nothing more is read from them. Other clients notice nothing of it.
//!
//! What waits is what one read brought and no more. It is tried again whenever the loop has done
//! something; after a while it is refused all the same.

use std::collections::VecDeque;
use std::time::Duration;

use crate::message::{Address, Frame, Kind as FrameKind};
use crate::name::Target;
use crate::os::clock;
use crate::time::Tick;

use super::super::control::Control;
use super::Guests;

/// The feature's name.
pub(super) const WAIT: &str = "wait";
/// How long a message waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(60);

impl Guests {
    /// When the first message has waited long enough.
    pub(in crate::manager) fn due(&self) -> Option<Tick> {
        let since = |key: &u64| Some(self.all.get(key)?.backlog.since? + PATIENCE);
        self.stalled.iter().filter_map(since).min()
    }
}

/// What of a client waits for room.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Whether it would rather wait than be refused.
    pub(super) waits: bool,
    /// A message that finds none, and all that came behind it.
    frames: VecDeque<Frame>,
    /// Since when the first of them waits.
    since: Option<Tick>,
}

impl Backlog {
    /// Whether there is anything.
    pub(super) fn is_stalled(&self) -> bool {
        !self.frames.is_empty()
    }
}

impl Control {
    /// Obeys a client's frames, as far as there is room for their messages.
    pub(super) fn obey_all(&mut self, key: u64, frames: Vec<Frame>) {
        for frame in frames {
            let stalls = self.guests.all.get(&key).is_some_and(|guest| {
                guest.backlog.waits && (guest.backlog.is_stalled() || !self.finds_room(&frame))
            });
            if !stalls {
                self.obey(key, frame);
                continue;
            }
            let Some(guest) = self.guests.all.get_mut(&key) else { return };
            if !guest.backlog.is_stalled() {
                guest.backlog.since = Some(clock::now());
                self.guests.stalled.push(key);
                // It is not read any more.
                self.guests.have_written(key);
            }
            if let Some(guest) = self.guests.all.get_mut(&key) {
                guest.backlog.frames.push_back(frame);
            }
        }
    }

    /// Whether obeying a frame can come to anything but "busy".
    fn finds_room(&self, frame: &Frame) -> bool {
        let (FrameKind::Data | FrameKind::Call, Some(Address::Name(name))) =
            (frame.kind, &frame.to)
        else {
            return true;
        };
        let Ok(target) = name.parse::<Target>() else { return true };
        self.has_room(&target, frame.payload.len())
    }

    /// Tries what waits for room again.
    pub(in crate::manager) fn look_for_guests_room(&mut self) {
        if self.guests.stalled.is_empty() {
            return;
        }
        let now = clock::now();
        for key in std::mem::take(&mut self.guests.stalled) {
            while let Some(guest) = self.guests.all.get(&key) {
                let Some(frame) = guest.backlog.frames.front() else { break };
                let late = guest.backlog.since.is_some_and(|since| now.since(since) >= PATIENCE);
                if !late && !guest.leaving && !self.finds_room(frame) {
                    break;
                }
                let Some(guest) = self.guests.all.get_mut(&key) else { break };
                guest.backlog.since = Some(now);
                if let Some(frame) = guest.backlog.frames.pop_front() {
                    self.obey(key, frame);
                }
                self.write_spoken();
            }
            match self.guests.all.get(&key) {
                Some(guest) if guest.backlog.is_stalled() => self.guests.stalled.push(key),
                // It is read again.
                Some(_) => self.guests.have_written(key),
                None => {}
            }
        }
    }
}
