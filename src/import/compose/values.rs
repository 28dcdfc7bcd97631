//! Sizes, durations and signals as compose writes them.

use crate::time::{format_duration, format_size, parse_duration};

/// `512m` or `1.5gb` in bytes, as services.yaml writes it. compose's units are powers of 1024.
pub(in crate::import) fn size(text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).map(format_size);
    }
    // A fraction: thousandths are as fine as anybody writes.
    let (whole, part) = number.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    let thousandths: u64 = digits.parse().ok()?;
    let bytes = whole.checked_mul(1000)?.checked_add(thousandths)?.checked_mul(1 << shift)? / 1000;
    Some(format_size(bytes))
}

/// `1m30s` as services.yaml writes it.
pub(in crate::import) fn duration(text: &str) -> Option<String> {
    parse_duration(text).ok().map(format_duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("512m", Some("512MiB")),
            ("1g", Some("1GiB")),
            ("1.5gb", Some("1536MiB")),
            ("64kb", Some("64KiB")),
            ("100", Some("100B")),
            ("2GiB", Some("2GiB")),
            ("much", None),
            ("1x", None),
        ] {
            assert_eq!(size(text).as_deref(), expected, "{text}");
        }
    }
}
