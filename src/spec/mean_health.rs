//! `ready:`, `healthcheck:` and the other rules a run is watched by, from written to meant, and the
//! rules between their keys.

use std::time::Duration;

use super::mean::Subject;
use super::{
    Channel, Check, Framing, HealthFailure, Healthcheck, Port, READY_INTERVAL, READY_TIMEOUT,
    Readiness, ReadyBy, Replies, written,
};

/// The shortest wait between two questions, and the shortest time between two signs of life.
const SHORTEST: Duration = Duration::from_millis(10);

/// The keys of `ready` that say what shows it.
const SHOWS_READY: [&str; 8] =
    ["http", "tcp", "exec", "log_line", "notify", "fd", "message", "exchange"];
/// The keys of `healthcheck` that say what is asked.
const QUESTIONS: [&str; 4] = ["http", "tcp", "exec", "call"];

/// What shows that it is ready, where that is said by a message on its port, is the port's to know.
pub(super) fn give_to_port(
    subject: &mut Subject<'_, '_>,
    ready: Option<&mut written::Ready>,
    port: Option<&mut written::Port>,
) {
    let Some(ready) = ready else { return };
    let message = ready.message.clone().map(written::PortReady::Message);
    let exchange = ready.exchange.clone().map(written::PortReady::Exchange);
    let key = if message.is_some() { "message" } else { "exchange" };
    let Some(rule) = message.or(exchange) else { return };
    match port {
        None => {
            let why = "this is a message on a port, and the service has no `port`";
            subject.complain(&["ready", key], why);
        }
        Some(port) if port.ready.is_some() || port.protocol.is_some() => {
            let why = "the port says itself when it is ready";
            subject.complain(&["ready", key], why);
        }
        Some(port) => port.ready = Some(rule),
    }
}

/// The `ready:` block.
pub(super) fn ready(
    subject: &mut Subject<'_, '_>,
    written: Option<written::Ready>,
    port: Option<&Port>,
) -> Option<Readiness> {
    let written = written?;
    let mut given = Vec::new();
    given.extend(written.http.map(|url| ("http", ReadyBy::Probe(Check::Http(url.0)))));
    given.extend(written.tcp.map(|address| ("tcp", ReadyBy::Probe(Check::Tcp(address.0)))));
    if let Some(command) = written.exec {
        let words = words(subject, &["ready", "exec"], command);
        given.push(("exec", ReadyBy::Probe(Check::Exec(words))));
    }
    given.extend(written.log_line.map(|pattern| ("log_line", ReadyBy::LogLine(pattern.0))));
    given.extend(written.notify.map(|written::NotifyBy::Systemd| ("notify", ReadyBy::Notify)));
    given.extend(written.fd.map(|number| ("fd", ReadyBy::Fd(number))));
    given.extend(written.message.map(|_| ("message", ReadyBy::Port)));
    given.extend(written.exchange.map(|_| ("exchange", ReadyBy::Port)));
    if let [_, (second, _), ..] = &given[..] {
        subject.complain(&["ready", second], "only one thing can show that it is ready");
    }
    let by_port = port.is_some_and(Port::awaits_ready);
    let by = match given.into_iter().next() {
        None if by_port => ReadyBy::Port,
        None if subject.has_any("ready", &SHOWS_READY) => return None, // said already
        None => {
            let why = "what shows that it is ready is missing: one of http, tcp, exec, log_line, \
                       notify, fd, message and exchange";
            subject.complain(&["ready"], why);
            return None;
        }
        Some((key, by)) => {
            if by_port && by != ReadyBy::Port {
                let why = "the port says itself when it is ready; write `ready: started` in it to \
                           have this instead";
                subject.complain(&["ready", key], why);
            }
            by
        }
    };
    if by == ReadyBy::Fd(3) && port.is_some_and(|port| port.channel == Channel::Fd3) {
        subject.complain(&["ready", "fd"], "descriptor 3 is what the port's messages come over");
    }
    let timeout = written.timeout.map_or(READY_TIMEOUT, |length| length.0);
    if timeout.is_zero() {
        subject.complain(&["ready", "timeout"], "the time must be longer than 0");
    }
    if written.interval.is_some() && !matches!(by, ReadyBy::Probe(_)) {
        let why = "nothing is asked: the program says by itself that it is ready";
        subject.complain(&["ready", "interval"], why);
    }
    let interval = written.interval.map_or(READY_INTERVAL, |length| length.0);
    at_least(subject, &["ready", "interval"], interval, SHORTEST);
    Some(Readiness { by, timeout, interval })
}

/// The `healthcheck:` block.
pub(super) fn healthcheck(
    subject: &mut Subject<'_, '_>,
    written: Option<written::Healthcheck>,
    port: Option<&Port>,
) -> Option<Healthcheck> {
    let written = written?;
    let mut given = Vec::new();
    given.extend(written.http.map(|url| ("http", Check::Http(url.0))));
    given.extend(written.tcp.map(|address| ("tcp", Check::Tcp(address.0))));
    if let Some(command) = written.exec {
        let words = words(subject, &["healthcheck", "exec"], command);
        given.push(("exec", Check::Exec(words)));
    }
    given.extend(written.call.map(|message| ("call", Check::Call(message))));
    if let [_, (second, _), ..] = &given[..] {
        subject.complain(&["healthcheck", second], "only one question can be asked");
    }
    let Some((_, by)) = given.into_iter().next() else {
        if subject.has_any("healthcheck", &QUESTIONS) {
            return None; // said already
        }
        let why = "the question is missing: one of http, tcp, exec and call";
        subject.complain(&["healthcheck"], why);
        return None;
    };
    if let Check::Call(_) = by {
        call_rules(subject, port);
    }
    let usual = Healthcheck::new(by);
    let or = |written: Option<written::Length>, usual| written.map_or(usual, |length| length.0);
    let check = Healthcheck {
        interval: or(written.interval, usual.interval),
        timeout: or(written.timeout, usual.timeout),
        retries: written.retries.unwrap_or(usual.retries),
        start_period: or(written.start_period, usual.start_period),
        start_interval: or(written.start_interval, usual.start_interval),
        on_failure: match written.on_failure {
            None => usual.on_failure,
            Some(written::HealthFailure::Restart) => HealthFailure::Restart,
            Some(written::HealthFailure::Report) => HealthFailure::Report,
        },
        by: usual.by,
    };
    at_least(subject, &["healthcheck", "interval"], check.interval, SHORTEST);
    at_least(subject, &["healthcheck", "start_interval"], check.start_interval, SHORTEST);
    at_least(subject, &["healthcheck", "timeout"], check.timeout, SHORTEST);
    Some(check)
}

/// A call needs somebody who replies.
fn call_rules(subject: &mut Subject<'_, '_>, port: Option<&Port>) {
    let why = match port {
        None => "this is a message on a port, and the service has no `port`",
        Some(port) if port.framing == Framing::Eof => {
            "with the framing `eof` a call is the whole of a run"
        }
        Some(port) if port.replies == Replies::None => {
            "nothing the program says is a reply (`replies: none`)"
        }
        Some(_) => return,
    };
    subject.complain(&["healthcheck", "call"], why);
}

/// `watchdog:`
pub(super) fn watchdog(
    subject: &mut Subject<'_, '_>,
    written: Option<written::Length>,
) -> Option<Duration> {
    let length = written?.0;
    at_least(subject, &["watchdog"], length, SHORTEST);
    Some(length)
}

/// `max_memory:`
pub(super) fn max_memory(
    subject: &mut Subject<'_, '_>,
    written: Option<written::Size>,
) -> Option<u64> {
    let size = written?.0;
    if size == 0 {
        subject.complain(&["max_memory"], "the size must be larger than 0");
    }
    Some(size)
}

/// `max_lifetime:`
pub(super) fn max_lifetime(
    subject: &mut Subject<'_, '_>,
    written: Option<written::Length>,
) -> Option<Duration> {
    let length = written?.0;
    at_least(subject, &["max_lifetime"], length, Duration::from_secs(1));
    Some(length)
}

fn at_least(subject: &mut Subject<'_, '_>, at: &[&str], length: Duration, least: Duration) {
    if length < least {
        let least = crate::time::format_duration(least);
        subject.complain(at, format!("the time must be at least {least}"));
    }
}

/// A command, to be executed as it stands.
fn words(subject: &mut Subject<'_, '_>, at: &[&str], command: written::Command) -> Vec<String> {
    let words = match command {
        written::Command::Words(words) => words.into_iter().map(|word| word.0).collect(),
        written::Command::Line(line) => shell_words::split(&line.0).unwrap_or_else(|_| {
            subject.complain(at, "a quote is opened and not closed");
            vec!["?".to_owned()]
        }),
    };
    if words.first().is_none_or(String::is_empty) {
        subject.complain(at, "the command is empty");
    }
    if words.iter().any(|word| word.contains('\0')) {
        subject.complain(at, "a NUL byte cannot be passed to a program");
    }
    words
}
