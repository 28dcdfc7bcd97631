//! `on_event:` from written to meant.

use std::path::Path;

use super::{HOOK_TIMEOUT, Hook, HookEvent, written};

/// The hooks, and what is wrong with them: a path below `on_event` and a message.
pub(super) fn hooks(
    written: Option<written::Hooks>,
    folder: &Path,
) -> (Vec<Hook>, Vec<(Vec<String>, String)>) {
    let (written, is_list) = match written {
        None => return (Vec::new(), Vec::new()),
        Some(written::Hooks::One(hook)) => (vec![hook], false),
        Some(written::Hooks::More(hooks)) => (hooks, true),
    };
    let mut wrong = Vec::new();
    let mut hooks = Vec::with_capacity(written.len());
    for (at, one) in written.into_iter().enumerate() {
        let mut complain = |key: &str, message: &str| {
            let number = is_list.then(|| at.to_string());
            let path = number.into_iter().chain([key.to_owned()]).collect();
            wrong.push((path, message.to_owned()));
        };
        let exec = match one.exec {
            written::Command::Words(words) => words.into_iter().map(|word| word.0).collect(),
            written::Command::Line(line) => shell_words::split(&line.0).unwrap_or_else(|_| {
                complain("exec", "a quote is opened and not closed");
                vec!["-".to_owned()]
            }),
        };
        let exec: Vec<String> = exec;
        if exec.first().is_none_or(String::is_empty) {
            complain("exec", "the command is empty");
        }
        if exec.iter().any(|word| word.contains('\0')) {
            complain("exec", "a NUL byte cannot be passed to a program");
        }
        let timeout = one.timeout.map_or(HOOK_TIMEOUT, |length| length.0);
        if timeout.is_zero() {
            complain("timeout", "the time must be longer than 0");
        }
        let mut events: Vec<HookEvent> = Vec::new();
        for event in one
            .events
            .map_or(HookEvent::USUAL.to_vec(), |events| events.into_iter().map(event).collect())
        {
            if !events.contains(&event) {
                events.push(event);
            }
        }
        if events.is_empty() {
            complain("events", "it is run for nothing");
        }
        hooks.push(Hook { exec, folder: folder.to_owned(), events, timeout });
    }
    (hooks, wrong)
}

fn event(written: written::HookEvent) -> HookEvent {
    match written {
        written::HookEvent::GiveUp => HookEvent::GiveUp,
        written::HookEvent::OomKilled => HookEvent::OomKilled,
        written::HookEvent::CrashLooping => HookEvent::CrashLooping,
        written::HookEvent::Unhealthy => HookEvent::Unhealthy,
        written::HookEvent::Exit => HookEvent::Exit,
    }
}
