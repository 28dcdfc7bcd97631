//! What follows an end: `Restart=` and its neighbours as `restart:`.

use serde_json::{Map, Value, json};

use super::Unit;
use super::schedule::span;
use super::unit::Line;
use crate::exit::Signal;
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;

/// Ends after which there is no restart, by the word of `Restart=`.
const NEVER: &[(&str, &[&str])] = &[
    (
        "on-success",
        &[
            "failed",
            "signaled",
            "core_dumped",
            "oom_killed",
            "resource_limit",
            "exec_failed",
            "setup_failed",
        ],
    ),
    ("on-abnormal", &["failed", "exec_failed", "setup_failed"]),
    ("on-abort", &["failed", "exec_failed", "setup_failed"]),
];

pub(super) fn restart(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit, top: &Origin) {
    let line = unit.last("Service", "Restart");
    let from = line.map_or(top, |line| &line.from).clone();
    let word = line.map_or("no", |line| line.value.as_str());
    let policy = match word {
        "no" | "" => "no",
        "always" | "on-success" => "always",
        "on-failure" | "on-abnormal" | "on-abort" => "on-failure",
        "on-watchdog" => {
            let why = "no policy restarts after a missed watchdog alone";
            draft.lose(&from, why, "`restart: on-failure` is the nearest");
            "no"
        }
        _ => {
            job.wrong(&from, format!("`{word}` is no value of Restart"), "");
            "no"
        }
    };
    let mut keys = Map::new();
    keys.insert("policy".to_owned(), json!(policy));
    let (codes, signals) = statuses(job, draft, unit);
    if policy == "on-failure" || !codes.is_empty() || !signals.is_empty() {
        let usual = ["SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"].map(str::to_owned);
        let signals: Vec<_> = usual.into_iter().chain(signals).collect();
        if !codes.is_empty() {
            let codes: Vec<_> = std::iter::once(0).chain(codes).collect();
            keys.insert("success_exit_codes".to_owned(), json!(codes));
        }
        keys.insert("success_signals".to_owned(), json!(signals));
    }
    if let Some((_, reasons)) = NEVER.iter().find(|(known, _)| *known == word) {
        keys.insert("never_on".to_owned(), json!(reasons));
    }
    waits(job, unit, &mut keys);
    if keys.len() == 1 {
        draft.put("restart", policy, &from);
    } else {
        draft.put("restart", Value::Object(keys), &from);
    }
}

/// Codes and signals that are successes, beyond the usual ones.
fn statuses(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit) -> (Vec<u8>, Vec<String>) {
    let (mut codes, mut signals) = (Vec::new(), Vec::new());
    for key in ["SuccessExitStatus", "RestartPreventExitStatus"] {
        for line in unit.all("Service", key) {
            for word in line.value.split_whitespace() {
                if let Ok(code) = word.parse::<u8>() {
                    if code != 0 && !codes.contains(&code) {
                        codes.push(code);
                    }
                } else if let Ok(signal) = word.parse::<Signal>() {
                    signals.push(signal.to_string());
                } else if word.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                    draft.lose(&line.from, format!("`{word}` is no number"), "write the code");
                } else {
                    job.wrong(&line.from, format!("`{word}` is no code and no signal"), "");
                }
            }
        }
    }
    (codes, signals)
}

fn waits(job: &mut Job<'_>, unit: &Unit, keys: &mut Map<String, Value>) {
    let find = |names: &[(&str, &str)]| {
        names
            .iter()
            .find_map(|(section, key)| unit.last(section, key).filter(|l| !l.value.is_empty()))
    };
    let longest = find(&[("Service", "RestartMaxDelaySec")]);
    if let Some(line) = find(&[("Service", "RestartSec")])
        && let Some(length) = length(job, line)
    {
        keys.insert("delay".to_owned(), json!(length));
        keys.insert("factor".to_owned(), json!(if longest.is_some() { 2 } else { 1 }));
        keys.insert("jitter".to_owned(), json!(0));
    }
    if let Some(line) = longest
        && let Some(length) = length(job, line)
    {
        keys.insert("max_delay".to_owned(), json!(length));
    }
    let burst = find(&[("Unit", "StartLimitBurst"), ("Service", "StartLimitBurst")]);
    if let Some(line) = burst {
        match line.value.parse::<u32>() {
            Ok(count) => drop(keys.insert("max_restarts".to_owned(), json!(count))),
            Err(_) => job.wrong(&line.from, format!("`{}` is no number", line.value), ""),
        }
    }
    let names = ["StartLimitIntervalSec", "StartLimitInterval"]
        .map(|key| [("Unit", key), ("Service", key)]);
    if let Some(line) = find(names.as_flattened()) {
        // 0 means no limit: so many in a minute that it is none.
        match length(job, line).as_deref() {
            Some("0") => drop(keys.insert("max_restarts".to_owned(), json!(100_000))),
            Some(length) => drop(keys.insert("within".to_owned(), json!(length))),
            None => {}
        }
    }
}

/// A span of time; what is none is wrong.
pub(super) fn length(job: &mut Job<'_>, line: &Line) -> Option<String> {
    let length = span(&line.value);
    if length.is_none() && line.value != "infinity" {
        job.wrong(&line.from, format!("`{}` is no time", line.value), "write 5s or 1min 30s");
    }
    length
}
