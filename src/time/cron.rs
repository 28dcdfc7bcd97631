//! Times by a pattern of five fields, as crontab(5) has them. Pure: the time zone is a value.

use croner::Cron as Parsed;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::Wall;

/// Minute, hour, day of the month, month and day of the week, by the rules of Debian's cron, which are those of
/// Vixie's cron 3.0 (crontab(5) and cron(8), `entry.c` and `find_jobs` in `cron.c`):
///
/// - A day fits when either of the two day fields does. Where one of them begins with `*`, with a step or without,
///   both must.
/// - Where neither minute nor hour begins with `*`, the pattern names times of the day. Each comes once: one that the
///   clocks skip comes right after the gap, one that they repeat comes the first time. Times that fall together come
///   as one, which is where `cron` would start its command twice.
/// - Where one of them does, the pattern is a rhythm of the clock on the wall: it comes whenever that shows a time
///   which fits, so not in a gap, and twice in an hour that is repeated.
#[derive(Debug, Clone)]
pub struct Cron {
    /// Which times of a calendar without changes of the clock fit.
    fits: Parsed,
    /// Whether it names times of the day.
    is_fixed: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It has too few or too many fields, or is a nickname.
    #[error("a time pattern has five fields: minute hour day month weekday")]
    Fields,
    /// A field cannot be read.
    #[error("{0}")]
    Field(String),
    /// It names a day that no calendar has.
    #[error("there is no such day")]
    Never,
}

impl Cron {
    /// Reads a pattern, and makes sure that its time comes.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minute, hour, day, _, weekday] = fields[..] else { return Err(CronError::Fields) };
        if text.contains('@') {
            return Err(CronError::Fields);
        }
        let any = |field: &str| field.starts_with('*');
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .dom_and_dow(any(day) || any(weekday));
        let fits = parser.build().parse(text);
        let fits = fits.map_err(|error| CronError::Field(fragment(&error.to_string())))?;
        let cron = Self { fits, is_fixed: !any(minute) && !any(hour) };
        match cron.next(Wall(0), &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }

    /// The first time after `after` that fits, in the clocks of `zone`; `None` past the end of the
    /// calendar.
    pub fn next(&self, after: Wall, zone: &TimeZone) -> Option<Wall> {
        let after = Timestamp::from_nanosecond(i128::from(after.0)).ok()?;
        let next = if self.is_fixed {
            self.next_of_day(after, zone)
        } else {
            self.next_shown(after, zone)
        };
        u64::try_from(next?.as_nanosecond()).ok().map(Wall)
    }

    /// The first time of the day that comes after `after`.
    fn next_of_day(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut shown = zone.to_datetime(after);
        loop {
            // A later time of the day never comes before an earlier one, so the first that is still to come is
            // the next. Some are passed over where the clock shows an hour for the second time.
            shown = self.fits.find_next_occurrence(&shown, false).ok()?;
            let comes = comes(shown, zone)?;
            if comes > after {
                return Some(comes);
            }
        }
    }

    /// The first time after `after` at which the clocks show what fits.
    fn next_shown(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            // Until the next change of the clocks their distance to UTC is one number.
            let offset = zone.to_offset(from);
            let found = self.fits.find_next_occurrence(&offset.to_datetime(from), inclusive);
            let found = found.ok().and_then(|shown| offset.to_timestamp(shown).ok());
            match (found, zone.following(from).next()) {
                (Some(found), Some(change)) if found < change.timestamp() => return Some(found),
                (found, None) => return found,
                (_, Some(change)) => (from, inclusive) = (change.timestamp(), true),
            }
        }
    }
}

/// When a time of the day comes: for the first time, or right after the gap that it falls into.
fn comes(shown: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(shown).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(shown).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // By the clocks as they are after the gap this is before it.
            let before = after.to_timestamp(shown).ok()?;
            let change = zone.following(before).find(|change| change.offset() == after);
            change.map(|change| change.timestamp())
        }
    }
}

/// A sentence as a lower-case fragment without its full stop.
fn fragment(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut letters = sentence.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect::<String>())
}

#[cfg(test)]
mod zones;

#[cfg(test)]
mod tests {
    use super::*;

    fn next(pattern: &str, after: &str, zone: &TimeZone) -> String {
        let cron = Cron::parse(pattern).unwrap();
        let after = after.parse::<Wall>().unwrap();
        let next = cron.next(after, zone).unwrap().0;
        let next = Timestamp::from_nanosecond(i128::from(next)).unwrap();
        next.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    #[test]
    fn what_comes_next() {
        let utc = &TimeZone::UTC;
        for (pattern, after, expected) in [
            ("0 3 * * *", "2026-11-22T02:59:59.999999999Z", "2026-11-22 03:00:00 UTC"),
            ("0 3 * * *", "2026-11-22T03:00:00Z", "2026-11-23 03:00:00 UTC"),
            ("*/15 * * * *", "2026-12-31T23:50:00Z", "2027-01-01 00:00:00 UTC"),
            ("0 0 29 2 *", "2026-11-22T00:00:00Z", "2028-02-29 00:00:00 UTC"),
            ("30 8 * * mon-fri", "2026-11-20T09:00:00Z", "2026-11-23 08:30:00 UTC"),
            ("0 0 1 * sun", "2026-11-22T00:00:00Z", "2026-11-29 00:00:00 UTC"),
            ("0 0 * * 7", "2026-11-22T00:00:00Z", "2026-11-29 00:00:00 UTC"),
            // Of the two days either will do, unless one of them begins with a star.
            ("0 0 1-31/2 * sun", "2026-11-22T00:00:00Z", "2026-11-23 00:00:00 UTC"),
            ("0 0 */2 * sun", "2026-11-22T00:00:00Z", "2026-11-29 00:00:00 UTC"),
            ("0 0 */2 * sun", "2026-11-29T00:00:00Z", "2026-12-13 00:00:00 UTC"),
            ("0 0 13 * */5", "2026-11-22T00:00:00Z", "2026-12-13 00:00:00 UTC"),
            ("0 0 13 * fri", "2026-11-22T00:00:00Z", "2026-11-27 00:00:00 UTC"),
            ("0 0 * * */2", "2026-11-22T00:00:00Z", "2026-11-24 00:00:00 UTC"),
        ] {
            assert_eq!(next(pattern, after, utc), expected, "{pattern}");
        }
    }

    /// In Berlin 02:00 to 03:00 was skipped on 2026-03-29 and comes twice on 2026-10-25.
    #[test]
    fn clocks_that_change() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (pattern, after, expected) in [
            ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29 03:00:00 CEST"),
            ("30 2 * * *", "2026-03-29T01:30:00Z", "2026-03-30 02:30:00 CEST"),
            ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25 02:30:00 CEST"),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26 02:30:00 CET"),
            ("*/30 * * * *", "2026-10-25T00:30:00Z", "2026-10-25 02:00:00 CET"),
            // Both times of the day come at 03:00 in spring, as one; in autumn each comes once.
            ("0 2,3 * * *", "2026-03-29T00:59:59Z", "2026-03-29 03:00:00 CEST"),
            ("0 2,3 * * *", "2026-03-29T01:00:00Z", "2026-03-30 02:00:00 CEST"),
            ("0 2,3 * * *", "2026-10-24T23:00:00Z", "2026-10-25 02:00:00 CEST"),
            ("0 2,3 * * *", "2026-10-25T00:00:00Z", "2026-10-25 03:00:00 CET"),
            ("0,30 2-3 * * *", "2026-10-25T00:30:00Z", "2026-10-25 03:00:00 CET"),
            // A rhythm goes by what the clocks show.
            ("0 * * * *", "2026-03-29T00:00:00Z", "2026-03-29 03:00:00 CEST"),
            ("30 */2 * * *", "2026-03-28T23:30:00Z", "2026-03-29 04:30:00 CEST"),
            ("0 * * * *", "2026-10-25T00:00:00Z", "2026-10-25 02:00:00 CET"),
        ] {
            assert_eq!(next(pattern, after, &zone), expected, "{pattern} after {after}");
        }
    }

    /// Greenland's clocks go from Saturday 23:00 to Sunday, and Samoa had no 30 December in 2011.
    #[test]
    fn a_gap_that_ends_on_another_day() {
        for (zone, pattern, after, expected) in [
            ("America/Nuuk", "30 23 * * sat", "2026-03-28T12:00:00Z", "2026-03-29 00:00:00 -01"),
            ("America/Nuuk", "30 23 * * sat", "2026-03-29T01:00:00Z", "2026-04-04 23:30:00 -01"),
            ("Pacific/Apia", "0 12 30 12 *", "2011-12-29T12:00:00Z", "2011-12-31 00:00:00 +14"),
            ("Pacific/Apia", "0 12 * * *", "2011-12-29T23:00:00Z", "2011-12-31 00:00:00 +14"),
            ("Pacific/Apia", "0 * * * *", "2011-12-30T09:59:00Z", "2011-12-31 00:00:00 +14"),
        ] {
            let zone = TimeZone::get(zone)
                .expect("tzdata is installed: see TEST_PROGRAMS in the Makefile");
            assert_eq!(next(pattern, after, &zone), expected, "{pattern} after {after}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for (pattern, why) in [
            ("", "a time pattern has five fields: minute hour day month weekday"),
            ("@daily", "a time pattern has five fields: minute hour day month weekday"),
            ("0 3 * * * *", "a time pattern has five fields: minute hour day month weekday"),
            ("0 0 31 2 *", "there is no such day"),
        ] {
            assert_eq!(Cron::parse(pattern).unwrap_err().to_string(), why);
        }
        for pattern in ["60 * * * *", "* 24 * * *", "x * * * *", "*/0 * * * *", "5-1 * * * *"] {
            let error = Cron::parse(pattern).unwrap_err();
            assert!(matches!(error, CronError::Field(_)), "{pattern}: {error}");
        }
    }
}
