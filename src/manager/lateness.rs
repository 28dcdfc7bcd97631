//! When deadlines may be looked at: a loop that was kept from running (stopped, or without a processor)
//! first takes what has waited for it meanwhile, so that nobody is punished for silence who has spoken.
//!
//! It decides nothing but that, and holds deadlines back for a moment only.

use std::time::Duration;

use crate::time::Tick;

/// A deadline that is overdue by more than this was missed because the loop did not run.
const LATE: Duration = Duration::from_millis(100);
/// What has waited is taken for so long at most: there may be somebody who never falls silent.
const BOUND: Duration = Duration::from_millis(500);

/// How one turn of the loop went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// When it asked the poller.
    pub(super) asked: Tick,
    /// Whether that told of nothing, or of output alone, and of all of that.
    pub(super) quiet: bool,
}

/// Whether what has waited is being taken, and since when.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    since: Option<Tick>,
}

impl Lateness {
    /// Whether deadlines may be looked at now, of which the first is `due`.
    pub(super) fn is_over(&mut self, now: Tick, due: Option<Tick>, turn: Turn) -> bool {
        // What came before the deadline was told to who asked after it.
        let settled = turn.quiet && due.is_none_or(|due| due < turn.asked);
        let late = due.is_some_and(|due| now.since(due) > LATE);
        if !late || settled {
            self.since = None;
            return true;
        }
        let since = *self.since.get_or_insert(now);
        let over = now.since(since) >= BOUND;
        if over {
            self.since = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(millis: u64) -> Tick {
        Tick(millis * MS)
    }

    fn turn(asked: u64, quiet: bool) -> Turn {
        Turn { asked: at(asked), quiet }
    }

    #[test]
    fn who_is_on_time_looks_at_once() {
        let mut lateness = Lateness::default();
        assert!(lateness.is_over(at(1_000), None, turn(900, false)));
        assert!(lateness.is_over(at(1_000), Some(at(2_000)), turn(900, false)));
        assert!(lateness.is_over(at(2_050), Some(at(2_000)), turn(900, false)));
    }

    #[test]
    fn who_is_late_first_takes_what_has_waited() {
        let mut lateness = Lateness::default();
        let due = Some(at(2_000));
        // It asked before the deadline and was kept from running then: that it was told nothing says
        // nothing.
        assert!(!lateness.is_over(at(5_000), due, turn(1_000, true)));
        assert!(!lateness.is_over(at(5_010), due, turn(5_001, false)));
        assert!(lateness.is_over(at(5_020), due, turn(5_011, true)));
        assert_eq!(lateness.since, None);
    }

    #[test]
    fn nobody_who_never_falls_silent_holds_deadlines_up() {
        let mut lateness = Lateness::default();
        let due = Some(at(2_000));
        let looked = (0..200)
            .map(|step| 5_000 + step * 10)
            .find(|now| lateness.is_over(at(*now), due, turn(now - 5, false)));
        assert_eq!(looked, Some(5_500));
        assert!(!lateness.is_over(at(6_000), due, turn(5_990, false)), "it begins anew");
    }
}
