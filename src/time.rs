//! Points in time and lengths of time as numbers and as text. No clock: `now` is always given.

#[cfg(feature = "daemon")]
pub mod cron;

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point on the monotonic clock, in nanoseconds. It never jumps and means nothing across boots.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Tick {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Tick {
    type Output = Self;
    fn sub(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A point on the wall clock, in nanoseconds since 1970-01-01 UTC; text form RFC 3339 with nine
/// digits. For people and records; no decision rests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub u64);

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(at) => write!(f, "{at:.9}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl std::str::FromStr for Wall {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at: jiff::Timestamp = text.parse()?;
        Ok(Self(u64::try_from(at.as_nanosecond()).unwrap_or(0)))
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "daemon")]
impl schemars::JsonSchema for Wall {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Wall".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Why a text is no length of time or no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text is not a sequence of numbers with units.
    #[error("a duration is written like 500ms, 10s, 1h30m or 1.5s (units: us ms s m h d)")]
    Duration,
    /// The text is not a number with a unit of bytes.
    #[error(
        "a size is written like 512, 10KiB, 10MiB or 1GB (units: B KB MB GB TB KiB MiB GiB TiB)"
    )]
    Size,
    /// The number does not fit.
    #[error("the number is too large")]
    Overflow,
}

/// Reads `500ms`, `10s`, `1h30m`, `1.5s`, `0`. Units: `us ms s m h d`, largest first or not.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0);
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let nanos: f64 = match unit {
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            _ => return Err(QuantityError::Duration),
        };
        let number: f64 = number.parse().map_err(|_| QuantityError::Duration)?;
        let part = Duration::try_from_secs_f64(number * nanos / 1e9)
            .map_err(|_| QuantityError::Overflow)?;
        total = total.checked_add(part).ok_or(QuantityError::Overflow)?;
        rest = tail;
    }
    if text.is_empty() { Err(QuantityError::Duration) } else { Ok(total) }
}

/// Writes a length of time as `parse_duration` reads it: `1h30m`, `10s`, `200ms`, `0`.
pub fn format_duration(length: Duration) -> String {
    use fmt::Write as _;
    if length.is_zero() {
        return "0".to_owned();
    }
    let mut text = String::new();
    let mut left = length.as_nanos();
    for (unit, nanos) in [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000_u128),
    ] {
        let count = left / nanos;
        if count > 0 {
            left -= count * nanos;
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

/// Reads `512`, `10KiB`, `10MiB`, `1GB`, in bytes.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if digits > 0 => return Err(QuantityError::Overflow),
        Err(_) => return Err(QuantityError::Size),
    };
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(QuantityError::Size),
    };
    number.checked_mul(factor).ok_or(QuantityError::Overflow)
}

/// Writes a size with the largest binary unit that divides it: `10MiB`, `512B`.
pub fn format_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// A length of time that is written as text (`10s`) in files and JSON.
pub mod duration_text {
    use super::{Deserialize, Deserializer, Duration, Serializer, format_duration, parse_duration};

    /// Writes `10s`.
    pub fn serialize<S: Serializer>(length: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format_duration(*length))
    }

    /// Reads `10s`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("2d", 172_800_000),
        ] {
            let length = parse_duration(text).unwrap();
            assert_eq!(length, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_duration(&format_duration(length)).unwrap(), length);
        }
        for bad in ["", "10", "s", "10 s", "10x", "-1s", "1..5s", "1s2", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("512", 512), ("10MiB", 10 << 20), ("1GB", 1_000_000_000), ("4k", 4096)]
        {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
            assert_eq!(parse_size(&format_size(bytes)).unwrap(), bytes);
        }
        for bad in ["", "MiB", "1.5MiB", "-1", "1XB", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn wall_time_survives_its_text() {
        let at = Wall(1_795_332_688_576_123_456);
        assert_eq!(at.to_string().parse::<Wall>().unwrap(), at);
        assert!(at.to_string().ends_with(".576123456Z"));
    }

    #[test]
    fn ticks_saturate() {
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
        assert_eq!(Tick(u64::MAX) + Duration::from_secs(1), Tick(u64::MAX));
    }
}
