//! An entry in the native protocol of systemd-journald: fields as `NAME=value` lines, a value with a
//! line feed by its length (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use super::{EXIT_MESSAGE_ID, Forwarded, What};
use crate::exit::{Decision, ExitRecord};

/// The datagram of an entry.
pub(super) fn entry(forwarded: &Forwarded<'_>) -> Vec<u8> {
    let mut entry = Vec::with_capacity(512);
    let mut put = |name: &str, value: &[u8]| field(&mut entry, name, value);
    match forwarded.what {
        What::Line(line) => {
            put("MESSAGE", &line.text);
            put("WHARF_EVENT", b"output");
            put("WHARF_STREAM", line.source.as_str().as_bytes());
            put("WHARF_TIMESTAMP", line.at.to_string().as_bytes());
            if line.partial {
                put("WHARF_PARTIAL", b"1");
            }
        }
        What::Exit(record) => exit(record, &mut put),
    }
    put("PRIORITY", forwarded.severity().number().to_string().as_bytes());
    put("SYSLOG_IDENTIFIER", forwarded.replica.service.as_str().as_bytes());
    if let Some(pid) = forwarded.pid {
        put("SYSLOG_PID", pid.to_string().as_bytes());
    }
    put("WHARF_SERVICE", forwarded.replica.service.as_str().as_bytes());
    put("WHARF_REPLICA", forwarded.replica.replica.to_string().as_bytes());
    put("WHARF_INCARNATION", forwarded.incarnation.to_string().as_bytes());
    entry
}

fn exit(record: &ExitRecord, put: &mut impl FnMut(&str, &[u8])) {
    put("MESSAGE", record.msg.as_bytes());
    put("MESSAGE_ID", EXIT_MESSAGE_ID.as_bytes());
    put("WHARF_EVENT", record.event.name.as_bytes());
    put("WHARF_TIMESTAMP", record.ts.to_string().as_bytes());
    // 0 is the number of a record that the disk has not taken yet.
    if record.seq > 0 {
        put("WHARF_SEQ", record.seq.to_string().as_bytes());
    }
    let exit = &record.exit;
    put("WHARF_EXIT_HOW", exit.how.as_bytes());
    put("WHARF_EXIT_REASON", exit.reason.as_str().as_bytes());
    put("WHARF_EXIT_CAUSE", exit.cause.as_str().as_bytes());
    if let Some(code) = &record.process.exit {
        put("WHARF_EXIT_CODE", code.code.to_string().as_bytes());
    }
    if let Some(signal) = exit.signal {
        put("WHARF_EXIT_SIGNAL", signal.to_string().as_bytes());
    }
    if let Some(errno) = exit.errno {
        put("WHARF_EXIT_ERRNO", errno.to_string().as_bytes());
    }
    put("WHARF_RESTART", decision(record.restart.decision).as_bytes());
    if let Ok(json) = serde_json::to_vec(record) {
        put("WHARF_RECORD", &json);
    }
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Restart => "restart",
        Decision::No => "no",
        Decision::GaveUp => "gave_up",
        Decision::Stopped => "stopped",
    }
}

fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_line_feed_goes_by_its_length() {
        let mut entry = Vec::new();
        field(&mut entry, "A", b"x=\0y");
        field(&mut entry, "B", b"1\n2");
        assert_eq!(entry, b"A=x=\0y\nB\n\x03\0\0\0\0\0\0\x001\n2\n");
    }
}
