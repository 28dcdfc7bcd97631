//! How many restarts a replica may have within a time, in bounded memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Tick;

/// So many restarts are remembered one by one. With a higher limit, old ones are remembered in
/// pairs at the earlier one's time: giving up may come later than the limit says, never sooner.
const REMEMBERED: usize = 256;

/// The restarts of late.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Intensity(Vec<(Tick, u32)>);

impl Intensity {
    /// Whether one more restart at `now` stays within `max` in the time `within`. If so it counts.
    pub(super) fn allows(&mut self, now: Tick, max: u32, within: Duration) -> bool {
        self.0.retain(|(at, _)| now.since(*at) < within);
        if self.spent(now, within) >= max {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.merge();
        }
        self.0.push((now, 1));
        true
    }

    /// How many restarts there were in the time `within` before `now`.
    pub(super) fn spent(&self, now: Tick, within: Duration) -> u32 {
        let recent = self.0.iter().filter(|(at, _)| now.since(*at) < within);
        recent.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// A new allowance: after giving up, and with another configuration.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    fn merge(&mut self) {
        self.0 = self
            .0
            .chunks(2)
            .map(|pair| {
                let count = pair.iter().fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
                (pair[0].0, count)
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_limit_is_exact_and_the_window_slides() {
        let mut intensity = Intensity::default();
        let within = Duration::from_secs(10);
        let mut ask = |second: u64| {
            let now = Tick(second * SECOND);
            (intensity.allows(now, 3, within), intensity.spent(now, within))
        };
        for (second, allowed, spent) in [
            (0, true, 1),
            (1, true, 2),
            (2, true, 3),
            (3, false, 3),
            (9, false, 3),
            (10, true, 3),
            (10, false, 3),
            (11, true, 3),
            (30, true, 1),
        ] {
            assert_eq!(ask(second), (allowed, spent), "at {second} s");
        }
    }

    #[test]
    fn none_allowed_is_none_allowed() {
        assert!(!Intensity::default().allows(Tick(0), 0, Duration::from_secs(1)));
    }

    #[test]
    fn a_high_limit_is_never_reached_too_soon_and_memory_is_bounded() {
        let mut intensity = Intensity::default();
        let within = Duration::from_secs(100_000);
        for second in 0..10_000 {
            assert!(intensity.allows(Tick(second * SECOND), 10_000, within), "{second}");
            assert!(intensity.0.len() <= REMEMBERED);
        }
        assert!(!intensity.allows(Tick(10_000 * SECOND), 10_000, within));
    }
}
