//! A message as syslog(3) hands it to the daemon of this machine: RFC 3164 without a host name,
//! `<30>Nov 22 07:31:28 web/1[4242]: text`.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::{Forwarded, What};
use crate::time::Wall;

/// The facility `daemon`.
const FACILITY: u8 = 3;

/// The datagram of a message.
pub(super) fn message(forwarded: &Forwarded<'_>, zone: &TimeZone) -> Vec<u8> {
    let (at, text) = match forwarded.what {
        What::Line(line) => (line.at, String::from_utf8_lossy(&line.text)),
        What::Exit(record) => (record.ts, record.msg.as_str().into()),
    };
    let priority = FACILITY * 8 + forwarded.severity().number();
    let mut message = format!("<{priority}>{} {}", time(at, zone), forwarded.replica);
    if let Some(pid) = forwarded.pid {
        let _ = write!(message, "[{pid}]");
    }
    message.push_str(": ");
    for c in text.chars() {
        if c.is_ascii_control() && c != '\t' {
            // As rsyslog writes what has no place in a line.
            let _ = write!(message, "#{:03o}", u32::from(c));
        } else {
            message.push(c);
        }
    }
    message.into_bytes()
}

fn time(at: Wall, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%b %e %H:%M:%S").to_string(),
        Err(_) => "Jan  1 00:00:00".to_owned(),
    }
}
