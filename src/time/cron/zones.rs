//! Patterns beside the days on which real zones change their clocks: what `Cron` finds is what somebody finds who
//! looks at the clock on the wall each minute. A test alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::select;

use super::Cron;
use crate::time::Wall;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// How far around a change is looked.
const AROUND: SignedDuration = SignedDuration::from_hours(30);

/// A change of the clocks.
#[derive(Debug, Clone)]
struct Change {
    zone: TimeZone,
    at: Timestamp,
}

/// The changes of all zones since 1990, one of each kind: by how much, and at which time of the day and week.
static CHANGES: LazyLock<Vec<Change>> = LazyLock::new(|| {
    let first: Timestamp = "1990-01-01T00:00:00Z".parse().unwrap();
    let last: Timestamp = "2037-12-31T00:00:00Z".parse().unwrap();
    let mut kinds = BTreeMap::new();
    for name in jiff::tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        let mut before: Option<(Timestamp, Offset)> = None;
        for change in zone.following(first).take_while(|change| change.timestamp() < last) {
            let (at, offset) = (change.timestamp(), change.offset());
            let earlier = before.replace((at, offset));
            let Some((earlier, from)) = earlier else { continue };
            // A change of the name alone is none, and only one is looked at at a time.
            if from != offset && at.duration_since(earlier) > AROUND * 2 {
                let shown = from.to_datetime(at);
                let kind = (
                    from.seconds(),
                    offset.seconds(),
                    shown.time(),
                    shown.weekday().to_sunday_zero_offset(),
                );
                kinds.entry(kind).or_insert(Change { zone: zone.clone(), at });
            }
        }
    }
    assert!(kinds.len() > 100, "tzdata is installed: see TEST_PROGRAMS in the Makefile");
    kinds.into_values().collect()
});

/// A field as it is written, whether it begins with a star, and what fits.
#[derive(Debug, Clone)]
struct Field {
    text: String,
    fits: BTreeSet<i8>,
}

impl Field {
    fn is_star(&self) -> bool {
        self.text.starts_with('*')
    }
}

fn field(least: i8, most: i8) -> impl Strategy<Value = Field> {
    let all = move || least..=most;
    prop_oneof![
        Just(Field { text: "*".to_owned(), fits: all().collect() }),
        (2_i8..7).prop_map(move |step| {
            let fits = all().filter(|number| (number - least) % step == 0).collect();
            Field { text: format!("*/{step}"), fits }
        }),
        (all(), all()).prop_map(|(one, other)| {
            let (from, to) = (one.min(other), one.max(other));
            Field { text: format!("{from}-{to}"), fits: (from..=to).collect() }
        }),
        btree_set(all(), 1..4).prop_map(|fits| {
            let words: Vec<_> = fits.iter().map(ToString::to_string).collect();
            Field { text: words.join(","), fits }
        }),
    ]
}

/// Minute, hour, day of the month and day of the week; the hours are mostly those in which clocks are changed.
#[derive(Debug, Clone)]
struct Pattern([Field; 4]);

fn pattern() -> impl Strategy<Value = Pattern> {
    let early = btree_set(0_i8..4, 1..4).prop_map(|fits| {
        let words: Vec<_> = fits.iter().map(ToString::to_string).collect();
        Field { text: words.join(","), fits }
    });
    let every = |most| Just(Field { text: "*".to_owned(), fits: (0..=most).collect() });
    let (hour, day) = (prop_oneof![early, field(0, 23)], prop_oneof![every(31), field(1, 31)]);
    let all = (field(0, 59), hour, day, prop_oneof![every(6), field(0, 6)]);
    all.prop_map(|(minute, hour, day, weekday)| Pattern([minute, hour, day, weekday]))
}

impl Pattern {
    fn text(&self) -> String {
        let [minute, hour, day, weekday] = &self.0;
        format!("{} {} {} * {}", minute.text, hour.text, day.text, weekday.text)
    }

    fn fits(&self, shown: DateTime) -> bool {
        let [minute, hour, day, weekday] = &self.0;
        let of_month = day.fits.contains(&shown.day());
        let of_week = weekday.fits.contains(&Weekday::to_sunday_zero_offset(shown.weekday()));
        let fits_day = if day.is_star() || weekday.is_star() {
            of_month && of_week
        } else {
            of_month || of_week
        };
        minute.fits.contains(&shown.minute()) && hour.fits.contains(&shown.hour()) && fits_day
    }

    /// What who looks at the clock each minute does after `from`, up to `to`.
    fn watched(&self, zone: &TimeZone, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
        let is_rhythm = self.0[0].is_star() || self.0[1].is_star();
        // The latest time that the clock has shown: what lies before it has had its turn.
        let mut latest = zone.to_datetime(from);
        let mut comes = Vec::new();
        let mut now = from + MINUTE;
        while now <= to {
            let shown = zone.to_datetime(now);
            let mut fits = is_rhythm && self.fits(shown);
            while latest < shown {
                latest += MINUTE;
                fits |= !is_rhythm && self.fits(latest);
            }
            comes.extend(fits.then_some(now));
            now += MINUTE;
        }
        comes
    }
}

fn found(cron: &Cron, zone: &TimeZone, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let wall = |at: Timestamp| Wall(u64::try_from(at.as_nanosecond()).unwrap());
    let (mut at, to, mut found) = (wall(from), wall(to), Vec::new());
    while let Some(next) = cron.next(at, zone).filter(|next| *next <= to) {
        assert!(next > at);
        found.push(Timestamp::from_nanosecond(i128::from(next.0)).unwrap());
        at = next;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_time_is_lost_or_repeated_where_clocks_change(
        change in select(CHANGES.as_slice()),
        pattern in pattern(),
    ) {
        let (from, to) = (change.at - AROUND, change.at + AROUND);
        // No such day: 30 February is refused.
        let Ok(cron) = Cron::parse(&pattern.text()) else { return Err(TestCaseError::reject("never")) };
        let (found, watched) =
            (found(&cron, &change.zone, from, to), pattern.watched(&change.zone, from, to));
        prop_assert_eq!(found, watched, "{} in {:?}", pattern.text(), change.zone.iana_name());
    }
}
