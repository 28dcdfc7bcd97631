//! Times of systemd (systemd.time(7)): spans as durations, calendar events as cron patterns.

use std::time::Duration;

use crate::time::format_duration;

/// `5min 20s`, or a number of seconds; `None` for `infinity` and for what is none.
pub(super) fn span(text: &str) -> Option<String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "us" | "usec" => 1e-6,
            "ms" | "msec" => 1e-3,
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            "M" | "month" | "months" => 2_629_800.0,
            "y" | "year" | "years" => 31_557_600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let micros = (number * seconds * 1e6).round() / 1e6;
        total = total.checked_add(Duration::try_from_secs_f64(micros).ok()?)?;
        rest = after.trim_start();
    }
    Some(format_duration(total))
}

/// A calendar event as a cron pattern; `None` where five fields cannot say it.
pub(super) fn cron(text: &str) -> Option<String> {
    let short = match text.trim().to_ascii_lowercase().as_str() {
        "minutely" => "* * * * *",
        "hourly" => "0 * * * *",
        "daily" => "0 0 * * *",
        "weekly" => "0 0 * * 1",
        "monthly" => "0 0 1 * *",
        "quarterly" => "0 0 1 1,4,7,10 *",
        "semiannually" => "0 0 1 1,7 *",
        "yearly" | "annually" => "0 0 1 1 *",
        _ => "",
    };
    if !short.is_empty() {
        return Some(short.to_owned());
    }
    let (mut weekday, mut day, mut month) = ("*".to_owned(), "*".to_owned(), "*".to_owned());
    let (mut hour, mut minute) = ("0".to_owned(), "0".to_owned());
    for part in text.split_whitespace() {
        if part.contains(':') {
            let mut fields = part.split(':');
            hour = field(fields.next()?, 23)?;
            minute = field(fields.next()?, 59)?;
            if !matches!(fields.next(), None | Some("0" | "00")) {
                return None;
            }
        } else if part.starts_with(|c: char| c.is_ascii_alphabetic()) {
            weekday = weekdays(part)?;
        } else {
            let fields: Vec<_> = part.split('-').collect();
            let (year, of_month, of_day) = match fields.as_slice() {
                [month, day] => ("*", *month, *day),
                [year, month, day] => (*year, *month, *day),
                _ => return None,
            };
            if year != "*" {
                return None;
            }
            month = field(of_month, 12)?;
            day = field(of_day, 31)?;
        }
    }
    // cron takes a day of the month and one of the week as alternatives, systemd as both.
    if weekday != "*" && day != "*" {
        return None;
    }
    Some(format!("{minute} {hour} {day} {month} {weekday}"))
}

/// One field of a date or time.
fn field(text: &str, most: u32) -> Option<String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= most);
    let parts: Option<Vec<String>> = text
        .split(',')
        .map(|part| match (part.split_once('/'), part.split_once("..")) {
            _ if part == "*" => Some("*".to_owned()),
            (Some(("*" | "0" | "00", step)), _) => Some(format!("*/{}", number(step)?)),
            (Some((start, step)), _) => {
                Some(format!("{}-{most}/{}", number(start)?, number(step)?))
            }
            (None, Some((start, end))) => Some(format!("{}-{}", number(start)?, number(end)?)),
            (None, None) => Some(number(part)?.to_string()),
        })
        .collect();
    parts.map(|parts| parts.join(","))
}

fn weekdays(text: &str) -> Option<String> {
    let number = |day: &str| {
        let day = day.to_ascii_lowercase();
        let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        days.iter().position(|known| day.len() >= 3 && day.starts_with(known))
    };
    let parts: Option<Vec<String>> = text
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once("..") {
            Some((start, end)) => {
                let end = number(end)?;
                Some(format!("{}-{}", number(start)?, if end == 0 { 7 } else { end }))
            }
            None => Some(number(part)?.to_string()),
        })
        .collect();
    parts.map(|parts| parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_durations() {
        for (text, expected) in [
            ("90", Some("1m30s")),
            ("5min 20s", Some("5m20s")),
            ("2 hours", Some("2h")),
            ("100ms", Some("100ms")),
            ("1.5s", Some("1s500ms")),
            ("1w", Some("7d")),
            ("0", Some("0")),
            ("infinity", None),
            ("soon", None),
        ] {
            assert_eq!(span(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn calendar_events_are_cron_patterns() {
        for (text, expected) in [
            ("daily", Some("0 0 * * *")),
            ("*-*-* 03:30:00", Some("30 3 * * *")),
            ("Mon..Fri 09:00", Some("0 9 * * 1-5")),
            ("Sat,Sun *-*-* 6:05", Some("5 6 * * 6,0")),
            ("Mon *-*-* 00:00", Some("0 0 * * 1")),
            ("*:0/15", Some("*/15 * * * *")),
            ("00/6:00", Some("0 */6 * * *")),
            ("*-*-1,15 12:00:00", Some("0 12 1,15 * *")),
            ("*-1..6-01", Some("0 0 1 1-6 *")),
            ("2026-*-* 00:00", None),
            ("*-*-* 00:00:30", None),
            ("Mon *-*-1..7 00:00", None),
            ("*-*~1", None),
        ] {
            assert_eq!(cron(text).as_deref(), expected, "{text}");
        }
    }
}
