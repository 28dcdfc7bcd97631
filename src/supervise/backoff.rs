//! How long to wait before a restart, and the chance that spreads the waits. No clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::Restart;

/// A replica that has failed this often in a row is shown as crash-looping.
pub const CRASH_LOOPING: u32 = 5;

/// The wait before the restart that follows the `row`-th failure in a row (from 1).
///
/// The first is none; the k-th is min(delay·factor^(k−2), max_delay), lengthened or shortened by up
/// to the share `jitter`. `chance` is within 0 and 1.
pub(super) fn wait(restart: &Restart, row: u32, chance: f64) -> Duration {
    let Some(exponent) = row.checked_sub(2) else {
        return Duration::ZERO;
    };
    let exponent = i32::try_from(exponent).unwrap_or(i32::MAX);
    let grown = restart.delay.as_secs_f64() * restart.factor.powi(exponent);
    // Zero times infinity is no number: a delay of nothing stays nothing however often it grows.
    let grown = if grown.is_nan() { 0.0 } else { grown };
    let capped = grown.min(restart.max_delay.as_secs_f64());
    let spread = 1.0 + restart.jitter * (2.0 * chance - 1.0);
    Duration::try_from_secs_f64(capped * spread).unwrap_or(restart.max_delay)
}

/// A counter-based generator (splitmix64, Steele, Lea and Flood 2014): the same seed gives the same
/// waits, so that a history can be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, but not including, 1.
    pub(super) fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let upper = u32::try_from(mixed >> 32).expect("32 bits are left");
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(row: u32, chance: f64) -> u128 {
        wait(&Restart::default(), row, chance).as_millis()
    }

    #[test]
    fn the_first_is_immediate_and_later_ones_double_up_to_the_cap() {
        for (row, expected) in [
            (0, 0),
            (1, 0),
            (2, 200),
            (3, 400),
            (4, 800),
            (9, 25_600),
            (10, 30_000),
            (60, 30_000),
            (u32::MAX, 30_000),
        ] {
            assert_eq!(millis(row, 0.5), expected, "failure {row} in a row");
        }
    }

    #[test]
    fn jitter_spreads_to_both_sides() {
        assert_eq!(millis(2, 0.0), 160);
        assert_eq!(millis(2, 1.0), 240);
        assert_eq!(millis(60, 1.0), 36_000);
    }

    #[test]
    fn odd_settings_give_finite_waits() {
        let none = Restart { delay: Duration::ZERO, ..Restart::default() };
        assert_eq!(wait(&none, u32::MAX, 0.5), Duration::ZERO);
        let flat = Restart { factor: 1.0, jitter: 0.0, ..Restart::default() };
        assert_eq!(wait(&flat, 1000, 0.9), flat.delay);
        let long = Restart { max_delay: Duration::MAX, ..Restart::default() };
        assert_eq!(wait(&long, u32::MAX, 0.9), Duration::MAX);
    }

    /// The first numbers of splitmix64 from 1234567, by Vigna's reference code (splitmix64.c).
    #[test]
    fn the_generator_is_the_published_one() {
        let mut chance = Chance::new(1_234_567);
        for whole in [
            6_457_827_717_110_365_317_u64,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ] {
            let upper = u32::try_from(whole >> 32).unwrap();
            let drawn = chance.draw();
            assert!((drawn * 4_294_967_296.0 - f64::from(upper)).abs() < 0.5, "{drawn}");
        }
    }

    #[test]
    fn chance_is_spread_and_repeats_with_its_seed() {
        let draws = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000).map(|_| chance.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let all = draws(7);
        assert!(all.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = all.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
