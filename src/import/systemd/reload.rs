//! How a program is told to read its configuration again: `ExecReload=` and `Type=notify-reload`.

use std::path::Path;

use serde_json::Value;

use super::Unit;
use super::unit::{words, written};
use crate::exit::Signal;
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;
use crate::import::loss::Weight;

/// What the names of configuration files end with.
const ENDINGS: &[&str] = &["cfg", "cnf", "conf", "ini", "json", "toml", "yaml", "yml"];

/// The signal of a `kill -SIGNAL $MAINPID`, in all the ways in which kill(1) is asked for one, also by a shell;
/// `None` for any other command.
pub(super) fn kill_of(value: &str) -> Option<Signal> {
    // A `$` is written twice in services.yaml, as it is in a unit for what a shell is to see.
    kill_in(&value.replace("$$", "$"))
}

fn kill_in(line: &str) -> Option<Signal> {
    let all: Vec<_> = words(line).ok()?.into_iter().map(|(word, _)| word).collect();
    let all = all.strip_prefix(&["exec".to_owned()]).unwrap_or(&all);
    let (program, rest) = all.split_first()?;
    let program = program.trim_start_matches(['-', '+', '!', ':']);
    match (program.rsplit('/').next()?, rest) {
        ("kill", rest) => signal_of(rest),
        ("sh" | "bash" | "dash", [flag, script]) if flag == "-c" => kill_in(script),
        _ => None,
    }
}

/// The signal that kill(1) sends to the main process with these arguments.
fn signal_of(arguments: &[String]) -> Option<Signal> {
    let arguments: Vec<_> =
        arguments.iter().map(String::as_str).filter(|one| *one != "--").collect();
    let (pid, rest) = arguments.split_last()?;
    let name = pid.trim_start_matches('$');
    if name.len() == pid.len() || !matches!(name, "MAINPID" | "{MAINPID}") {
        return None;
    }
    match rest {
        [] => Some(Signal::TERM),
        ["-s" | "-n" | "--signal", signal] => signal.parse().ok(),
        [flag] => ["--signal=", "-", "-s", "-n"]
            .iter()
            .find_map(|before| flag.strip_prefix(before)?.parse().ok()),
        _ => None,
    }
}

/// Takes over `ExecReload=`.
pub(super) fn exec(draft: &mut Draft, from: &Origin, value: &str) {
    match kill_of(value) {
        Some(signal) => put(draft, from, signal),
        None => draft.lose(from, "there is no command for a reload", "run it by hand"),
    }
}

fn put(draft: &mut Draft, from: &Origin, signal: Signal) {
    if [Signal::KILL, Signal::STOP].contains(&signal) {
        draft.lose(from, format!("no program can hear {signal}"), "");
    } else {
        draft.put("reload_signal", signal.to_string(), from);
    }
}

/// What remains once all keys were read: the signal that goes with `Type=notify-reload`, and which files
/// are read again.
pub(super) fn finish(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit) {
    let kind = unit.last("Service", "Type").filter(|line| line.value == "notify-reload");
    if let (Some(kind), None) = (kind, draft.get("reload_signal")) {
        let written = unit.last("Service", "ReloadSignal");
        let (from, signal) =
            written.map_or((kind, Ok(Signal::HUP)), |line| (line, line.value.parse()));
        match signal {
            Ok(signal) => put(draft, &from.from, signal),
            Err(error) => job.wrong(&from.from, error.to_string(), ""),
        }
    }
    let Some(from) = draft.origins.get("reload_signal").cloned() else { return };
    let files = files(job, unit);
    if files.is_empty() {
        let signal = draft.get("reload_signal").and_then(Value::as_str).unwrap_or_default();
        let why = format!("`wharf signal {} {signal}` sends it", draft.name);
        let instead =
            "name what it reads in `config_files`, and `wharf reload` sends it after a change";
        draft.tell(Weight::Note, &from, why, instead);
    } else {
        let top = unit.last("Service", "ExecStart").map_or(&from, |line| &line.from);
        draft.put("config_files", files, top);
    }
}

/// The configuration files that the command names, where they are here.
fn files(job: &Job<'_>, unit: &Unit) -> Vec<String> {
    let Some(line) = unit.last("Service", "ExecStart") else { return Vec::new() };
    let Ok(words) = words(&unit.names.expand(&line.value).0) else { return Vec::new() };
    let mut files = Vec::new();
    for (word, _) in words.iter().skip(1) {
        let path = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
        let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
        let is_one =
            path.starts_with('/') && ending.is_some_and(|ending| ENDINGS.contains(&ending));
        let is_here = || (job.world.read)(Path::new(path)).is_some_and(|text| text.is_ok());
        let path = written(path);
        if is_one && !files.contains(&path) && is_here() {
            files.push(path);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_ask_kill_for_a_signal() {
        for line in [
            "/bin/kill -HUP $MAINPID",
            "/usr/bin/kill -SIGHUP ${MAINPID}",
            "kill -1 $MAINPID",
            "-/bin/kill -s HUP $MAINPID",
            "+kill -s SIGHUP -- $MAINPID",
            "kill -sHUP \"$MAINPID\"",
            "kill -n 1 $MAINPID",
            "kill --signal HUP $MAINPID",
            "kill --signal=SIGHUP $MAINPID",
            "kill -hup $$MAINPID",
            "/bin/sh -c 'kill -HUP $$MAINPID'",
            "/bin/sh -c \"exec /bin/kill -HUP $MAINPID\"",
        ] {
            assert_eq!(kill_of(line), Some(Signal::HUP), "{line}");
        }
        for (line, signal) in [
            ("kill $MAINPID", "TERM"),
            ("kill -USR2 $MAINPID", "USR2"),
            ("kill -STOP $MAINPID", "STOP"),
        ] {
            assert_eq!(kill_of(line), Some(signal.parse().unwrap()), "{line}");
        }
        for line in [
            "/usr/sbin/nginx -s reload",
            "kill -HUP -$MAINPID",
            "kill -HUP $OTHERPID",
            "kill -HUP MAINPID",
            "kill -HUP $MAINPID 7",
            "kill -HUP `cat /run/x.pid`",
            "kill -NONE $MAINPID",
            "kill -HUP 'open",
            "pkill -HUP $MAINPID",
            "/bin/sh -c 'kill -HUP $MAINPID; sleep 1'",
            "kill",
            "",
        ] {
            assert_eq!(kill_of(line), None, "{line}");
        }
    }
}
