//! Times by a pattern of five fields, as crontab(5) has them. Pure: the time zone is a value.

use croner::Cron as Parsed;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Wall;

/// Minute, hour, day of the month, month and day of the week. Where both days are restricted either
/// of them will do, as with Vixie's cron. A time that the clocks skip in spring comes right after the
/// gap, one that they repeat in autumn comes once; a pattern with `*` or a step in minute or hour goes
/// by the time that passes.
#[derive(Debug, Clone)]
pub struct Cron(Parsed);

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
        if text.split_whitespace().count() != 5 || text.contains('@') {
            return Err(CronError::Fields);
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let parsed = parser.build().parse(text);
        let parsed = parsed.map_err(|error| CronError::Field(fragment(&error.to_string())))?;
        let cron = Self(parsed);
        match cron.next(Wall(0), &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }

    /// The first time after `after` that fits, in the clocks of `zone`; `None` past the end of the
    /// calendar.
    pub fn next(&self, after: Wall, zone: &TimeZone) -> Option<Wall> {
        let after = Timestamp::from_nanosecond(i128::from(after.0)).ok()?;
        let next = self.0.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
        u64::try_from(next.timestamp().as_nanosecond()).ok().map(Wall)
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
        ] {
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
