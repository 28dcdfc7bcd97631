//! The loop's dealings with unfinished lines that somebody may be waiting before: a prompt is shown
//! in the log after about a second of silence, not only when its line ends.
//!
//! It keeps no clock a stream: while anything is held back, everything that is gets a look now and
//! then, and what has not grown since the look before is let go of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Incarnation;
use crate::time::Tick;

use super::control::Control;

/// The time between two looks: what is held back is let go of after one to two of them.
const LOOK: Duration = Duration::from_millis(700);

/// Who holds an unfinished line back, and when that is looked at.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    held: BTreeSet<Incarnation>,
    due: Option<Tick>,
}

impl Prompts {
    /// Something of this run is held back.
    pub(super) fn hold(&mut self, incarnation: Incarnation, now: Tick) {
        if self.held.insert(incarnation) && self.due.is_none() {
            self.due = Some(now + LOOK);
        }
    }

    /// When the next look is due; `None` while nothing is held back.
    pub(super) fn due(&self) -> Option<Tick> {
        self.due
    }
}

impl Control {
    /// Looks at everything that is held back.
    pub(super) fn look_at_prompts(&mut self, now: Tick) {
        if self.output_paused.is_some() {
            // The disk is behind: nothing is added to what it has to do.
            self.prompts.due = Some(now + LOOK);
            return;
        }
        for incarnation in std::mem::take(&mut self.prompts.held) {
            let (replica, service, formatter) = match self.runs.get_mut(&incarnation) {
                Some(run) => (&run.replica, &run.service, &mut run.formatter),
                None => match self.lingering.get_mut(&incarnation) {
                    Some(one) => (&one.replica, &one.service, &mut one.formatter),
                    None => continue,
                },
            };
            let mut lines = Vec::new();
            formatter.settle(&mut lines);
            let left = formatter.held() > 0;
            let (replica, service) = (replica.clone(), Arc::clone(service));
            if left {
                self.prompts.held.insert(incarnation);
            }
            self.write_log(incarnation, replica, &service, lines);
        }
        self.prompts.due = (!self.prompts.held.is_empty()).then(|| now + LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_until_something_is_held_and_the_first_sets_the_time() {
        let mut prompts = Prompts::default();
        assert_eq!(prompts.due(), None);
        prompts.hold(Incarnation(1), Tick(0));
        prompts.hold(Incarnation(1), Tick(5));
        prompts.hold(Incarnation(2), Tick(9));
        assert_eq!(prompts.due(), Some(Tick(0) + LOOK));
    }
}
