//! What lies beside a service's unit: its timer, its socket, and the service of a timer or socket
//! that was named alone.

use serde_json::{Map, Value, json};

use super::schedule::{cron, span};
use super::unit::written;
use super::{TABLE, Unit, open};
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;

/// The name of the service that a timer or socket is for.
pub(super) fn served(unit: &Unit) -> String {
    let key = match unit.kind() {
        "timer" => unit.last("Timer", "Unit"),
        "socket" => unit.last("Socket", "Service"),
        _ => return unit.names.full.clone(),
    };
    match key {
        Some(line) => unit.names.expand(&line.value).0,
        None => format!("{}.service", unit.names.stem()),
    }
}

/// Opens what belongs to the units and lies beside them.
pub(super) fn find(job: &mut Job<'_>, units: &mut Vec<Unit>) {
    let mut more = Vec::new();
    for unit in units.iter() {
        let folder = job.folder(unit.file);
        let names = if unit.kind() == "service" {
            ["timer", "socket"].map(|kind| format!("{}.{kind}", unit.names.stem())).to_vec()
        } else {
            vec![served(unit)]
        };
        for name in names {
            let known = units.iter().chain(&more).any(|unit| unit.names.full == name);
            if !known && let Some(file) = job.open(&folder.join(name)) {
                more.push(open(job, file));
            }
        }
    }
    units.extend(more);
}

/// A timer as the schedule of its service.
pub(super) fn timer(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit) {
    let mut schedule: Map<String, Value> = Map::new();
    let mut origin = Origin::new("[Timer]", Job::top(unit.file));
    for line in &unit.lines {
        let from = &line.from;
        match (line.section.as_str(), from.key.as_str()) {
            ("Timer", "OnCalendar") => match cron(&line.value) {
                Some(pattern) if !schedule.contains_key("cron") => {
                    schedule.insert("cron".to_owned(), json!(pattern));
                    origin = from.clone();
                }
                Some(_) => draft.lose(from, "a schedule has one pattern", "write a second service"),
                None => {
                    draft.lose(from, "five fields of cron cannot say it", "write `schedule` anew");
                    origin = from.clone();
                }
            },
            ("Timer", "OnUnitActiveSec" | "OnUnitInactiveSec") => match span(&line.value) {
                Some(length) => {
                    schedule.insert("every".to_owned(), json!(length));
                    origin = from.clone();
                }
                None => job.wrong(from, format!("`{}` is no time", line.value), "write 15min"),
            },
            ("Timer", "Unit") | ("Unit", "Description") => {}
            _ => draft.lose_by(TABLE, from),
        }
    }
    if !schedule.is_empty() {
        draft.put("schedule", Value::Object(schedule), &origin);
    }
    if !job.works("schedule") {
        draft.hold(&origin, "a timer starts it at set times");
    }
}

/// A socket as one that the manager holds.
pub(super) fn socket(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit) {
    let mut held = Vec::new();
    let stem = unit.names.stem().replace('@', "-");
    let name = unit.last("Socket", "FileDescriptorName").map(|line| line.value.clone());
    let name = name.unwrap_or(stem);
    let mut origin = Origin::new("[Socket]", Job::top(unit.file));
    for line in &unit.lines {
        let from = &line.from;
        match (line.section.as_str(), from.key.as_str()) {
            ("Socket", "ListenStream" | "ListenDatagram") => {
                let value = written(&unit.names.expand(&line.value).0);
                let kind = match from.key.as_str() {
                    _ if value.starts_with(['/', '@']) => "unix",
                    "ListenStream" => "tcp",
                    _ => "udp",
                };
                let only_port = value.bytes().all(|b| b.is_ascii_digit());
                let address = if only_port { format!("[::]:{value}") } else { value };
                let number =
                    if held.is_empty() { String::new() } else { format!("-{}", held.len() + 1) };
                held.push(json!({ "name": format!("{name}{number}"), kind: address }));
                origin = from.clone();
            }
            ("Socket", "FileDescriptorName" | "Service") | ("Unit", "Description") => {}
            ("Socket", "Accept") if line.value == "no" || line.value == "false" => {}
            _ => draft.lose_by(TABLE, from),
        }
    }
    if !held.is_empty() {
        draft.put("listen", held, &origin);
        if !job.works("listen") {
            draft.lose(
                &origin,
                "the program gets no socket until `listen` is supported",
                "have it listen itself",
            );
        }
    }
}
