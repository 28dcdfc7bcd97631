//! What a user types after `--since` and `--until`, as a point in time.

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use crate::time::{Wall, parse_duration};

/// Why a text is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SinceError {
    /// The text has none of the forms.
    #[error(
        "a point in time is written like 10m or 1h30m (ago), now, today, yesterday, 07:00, 2026-11-22, 2026-11-22 07:00 or 2026-11-22T07:00:00Z"
    )]
    Form,
    /// It lies before 1970, or there is no such hour on that day.
    #[error("there is no such point in time")]
    Range,
}

/// Reads `10m` or `1h30m` (that long before `now`), RFC 3339, `now`, and in the zone of this machine
/// (`TZ`, otherwise `/etc/localtime`, otherwise UTC): `today` and `yesterday` (their first instant),
/// `07:00` or `07:00:30` of today, `2026-11-22 07:00` and `2026-11-22`.
pub fn parse_since(text: &str, now: Wall) -> Result<Wall, SinceError> {
    parse_in(text.trim(), now, &TimeZone::system())
}

fn parse_in(text: &str, now: Wall, zone: &TimeZone) -> Result<Wall, SinceError> {
    if let Ok(length) = parse_duration(text) {
        let nanos = u64::try_from(length.as_nanos()).map_err(|_| SinceError::Range)?;
        return Ok(Wall(now.0.saturating_sub(nanos)));
    }
    let at = if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else {
        let civil = civil(text, now, zone)?;
        zone.to_timestamp(civil).map_err(|_| SinceError::Range)?
    };
    u64::try_from(at.as_nanosecond()).map(Wall).map_err(|_| SinceError::Range)
}

/// A time by the calendar and the clock on the wall.
fn civil(text: &str, now: Wall, zone: &TimeZone) -> Result<DateTime, SinceError> {
    let now = Timestamp::from_nanosecond(i128::from(now.0)).map_err(|_| SinceError::Range)?;
    let now = zone.to_datetime(now);
    match text {
        "now" => return Ok(now),
        "today" => return Ok(now.date().into()),
        "yesterday" => {
            return now.date().yesterday().map(Into::into).map_err(|_| SinceError::Range);
        }
        _ => {}
    }
    // A bare hour is most likely a slip for a length of time.
    if text.contains(':')
        && !text.contains('-')
        && let Ok(time) = text.parse::<Time>()
    {
        return Ok(now.date().to_datetime(time));
    }
    text.parse().map_err(|_| SinceError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_have_a_few_forms() {
        let now: Wall = "2026-11-22T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        for (text, meant) in [
            ("1h", "2026-11-22T11:00:00Z"),
            (" 1h30m ", "2026-11-22T10:30:00Z"),
            ("0", "2026-11-22T12:00:00Z"),
            ("60000d", "1970-01-01T00:00:00Z"),
            ("2026-11-22T07:00:00Z", "2026-11-22T07:00:00Z"),
            ("2026-11-22T07:00:00+01:00", "2026-11-22T06:00:00Z"),
            ("2026-11-22T07:31:28.576123456Z", "2026-11-22T07:31:28.576123456Z"),
            ("2026-11-22 07:00", "2026-11-22T05:00:00Z"),
            ("2026-11-22T07:00:30", "2026-11-22T05:00:30Z"),
            ("2026-11-22", "2026-11-21T22:00:00Z"),
            ("now", "2026-11-22T12:00:00Z"),
            ("today", "2026-11-21T22:00:00Z"),
            ("yesterday", "2026-11-20T22:00:00Z"),
            ("07:00", "2026-11-22T05:00:00Z"),
            ("07:00:30", "2026-11-22T05:00:30Z"),
            ("23:59", "2026-11-22T21:59:00Z"),
        ] {
            assert_eq!(parse_in(text, now, &zone), Ok(meant.parse().unwrap()), "{text:?}");
        }
        for text in ["", "Yesterday", "tomorrow", "1", "-1h", "2026-13-01", "07", "25:00", "7:"] {
            assert_eq!(parse_in(text, now, &zone), Err(SinceError::Form), "{text:?}");
        }
        assert_eq!(parse_in("1969-12-31T23:59:59Z", now, &zone), Err(SinceError::Range));
    }

    #[test]
    fn the_zone_of_the_machine_is_asked() {
        let now = Wall(0);
        let here = TimeZone::system();
        assert_eq!(parse_since("2026-07-01 07:00", now), parse_in("2026-07-01 07:00", now, &here));
    }
}
