//! An exit record as one sentence: what ended, how, why, and what happens next.

use std::fmt::Write as _;

use super::{Cause, Decision, ExitRecord, OomPart, Reason};
use crate::time::{format_duration, format_size};

/// The record's `msg`. Everything in it stands in the record's other fields too.
pub fn sentence(record: &ExitRecord) -> String {
    let mut text = format!("{}/{} ", record.service.name, record.service.replica);
    what_happened(&mut text, record);
    if let Some(seconds) = record.uptime_s {
        let _ = write!(text, " after {}", human_seconds(seconds));
    }
    why(&mut text, record);
    who_lives_on(&mut text, record);
    what_next(&mut text, record);
    text
}

fn what_happened(text: &mut String, record: &ExitRecord) {
    let exit = &record.exit;
    match exit.reason {
        Reason::Lost => text.push_str("is gone and nobody saw how it ended"),
        Reason::ProtocolError => {
            text.push_str("broke its protocol");
            if let Some(error) = record.port.as_ref().and_then(|port| port.error.as_ref()) {
                let _ = write!(text, " ({error})");
            }
        }
        _ => match (exit.stage, exit.errno, exit.signal, &record.process.exit) {
            (Some(stage), Some(errno), ..) => {
                let _ = write!(
                    text,
                    "could not be started: {} failed with {errno} ({})",
                    stage.doing(),
                    errno.text()
                );
            }
            (_, _, Some(signal), _) => {
                let _ = write!(text, "was killed by {signal}");
                match (exit.reason, exit.core_dumped) {
                    (Reason::OomKilled, _) => out_of_memory(text, exit.oom.as_ref()),
                    (Reason::ResourceLimit, _) => text.push_str(" (resource limit exceeded)"),
                    (_, Some(true)) => text.push_str(" and dumped core"),
                    _ => {}
                }
            }
            (.., Some(code)) => {
                let _ = write!(text, "exited with code {}", code.code);
                if exit.reason == Reason::OomKilled {
                    out_of_memory(text, exit.oom.as_ref());
                }
            }
            _ => text.push_str("ended"),
        },
    }
}

fn out_of_memory(text: &mut String, part: Option<&OomPart>) {
    let Some(part) = part else { return text.push_str(" (out of memory)") };
    let limit = format_size(part.limit_bytes);
    let _ = match (part.main, part.killed) {
        (true, _) => write!(text, " (out of memory: its limit is {limit})"),
        (false, 1) => write!(
            text,
            " (out of memory: the kernel killed a process it had started; the limit is {limit})"
        ),
        (false, killed) => write!(
            text,
            " (out of memory: the kernel killed {killed} processes it had started; the limit is {limit})"
        ),
    };
}

fn why(text: &mut String, record: &ExitRecord) {
    let exit = &record.exit;
    let cause = match exit.cause {
        Cause::Spontaneous => "",
        Cause::StopRequested => "a stop was requested",
        Cause::RestartRequested => "a restart was requested",
        Cause::ConfigChanged => "its configuration changed",
        Cause::DependencyStopped => "a service it depends on stopped",
        Cause::GroupStrategy => "its group restarts together",
        Cause::StartTimeout => "it did not start in time",
        Cause::ReadyTimeout => "it was not ready in time",
        Cause::HealthFailed => "its health check failed",
        Cause::Watchdog => "it missed its watchdog",
        Cause::MaxMemory => "it used too much memory",
        Cause::MaxLifetime => "it reached its maximal lifetime",
        Cause::StopTimeout => "it did not stop in time",
        Cause::ManagerShutdown => "the manager was shutting down",
        Cause::ManagerDied => "the manager died",
        Cause::Replaced => "another run took its place",
        Cause::ParentDied => "the process that spawned it ended",
        Cause::Linked => "a process that it was linked to ended",
        Cause::SignalRequested => "a signal was sent to it on request",
        Cause::GuardianDied => "the guardian died",
        Cause::TaskTimeout => "its time was up",
        Cause::Cancelled => "it was cancelled",
        Cause::LeaseLost => "its lease was lost",
        Cause::Superseded => "another node took over",
    };
    if !cause.is_empty() {
        let _ = write!(text, "; {cause}");
    }
    if let Some(by) = &exit.requested_by {
        let _ = write!(text, " by {}", by.who);
        match (by.uid, by.pid) {
            (Some(uid), Some(pid)) => {
                let _ = write!(text, " (uid {uid}, pid {pid})");
            }
            (Some(uid), None) => {
                let _ = write!(text, " (uid {uid})");
            }
            _ => {}
        }
    }
    if exit.stop.as_ref().is_some_and(|stop| stop.escalated) {
        text.push_str("; it did not stop when asked and had to be killed");
    }
}

/// A program that ends by itself and leaves others behind may have meant to go into the background.
fn who_lives_on(text: &mut String, record: &ExitRecord) {
    let exit = &record.exit;
    let by_itself = exit.cause == Cause::Spontaneous && record.process.exit.is_some();
    match exit.survivors.len() {
        0 => {}
        _ if !by_itself => {}
        1 => text.push_str("; a process that it had started lived on"),
        many => {
            let _ = write!(text, "; {many} processes that it had started lived on");
        }
    }
}

fn what_next(text: &mut String, record: &ExitRecord) {
    match record.restart.decision {
        Decision::Restart => match record.restart.delay_s {
            Some(delay) if delay > 0.0 => {
                let _ = write!(text, "; restart in {}", human_seconds(delay));
                if let Some(attempt) = record.restart.attempt.filter(|attempt| *attempt > 1) {
                    let _ = write!(text, " (attempt {attempt})");
                }
            }
            _ => text.push_str("; restart now"),
        },
        Decision::No => text.push_str("; not restarted"),
        Decision::GaveUp => text.push_str("; failed too often, given up"),
        Decision::Stopped => text.push_str("; stays stopped"),
    }
}

/// Seconds to a person's precision: `1.2s` under ten seconds, `3m12s` above.
fn human_seconds(seconds: f64) -> String {
    let length = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if length.as_millis() == 0 {
        return "under 1ms".to_owned();
    }
    let unit = match length.as_secs() {
        0 => 1,
        1..=9 => 100,
        _ => 1000,
    };
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let rounded = std::time::Duration::from_millis(millis / unit * unit);
    match rounded.as_secs() {
        1..=9 => format!("{:.1}s", rounded.as_secs_f64()),
        _ => format_duration(rounded),
    }
}

#[cfg(test)]
mod tests {
    use super::human_seconds;

    #[test]
    fn lengths_have_a_persons_precision() {
        for (seconds, text) in [
            (0.0001, "under 1ms"),
            (0.0123, "12ms"),
            (1.234, "1.2s"),
            (192.9, "3m12s"),
            (10.0, "10s"),
        ] {
            assert_eq!(human_seconds(seconds), text);
        }
    }
}
