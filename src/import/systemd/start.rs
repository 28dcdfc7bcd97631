//! How a unit starts its program: its environment, and its commands as one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Unit;
use super::exec::{Command, commands};
use super::unit::{words as split, written};
use crate::import::command::{reference, words};
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;

/// The environment, in the draft and, not escaped, as what commands refer to.
pub(super) fn environment(
    job: &mut Job<'_>,
    draft: &mut Draft,
    unit: &Unit,
) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for line in unit.all("Service", "Environment") {
        match split(&unit.names.expand(&line.value).0) {
            Err(error) => job.wrong(&line.from, error, ""),
            Ok(words) => {
                for (word, _) in words {
                    let Some((name, value)) = word.split_once('=') else {
                        job.wrong(&line.from, format!("`{word}` is not NAME=value"), "");
                        continue;
                    };
                    draft.variable(name, written(value));
                    known.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }
    for line in unit.all("Service", "PassEnvironment") {
        for name in line.value.split_whitespace() {
            draft.variable(name, reference(name, "").unwrap_or_default());
            draft.note(&line.from, format!("${name} is taken from the environment of `wharf up`"));
        }
    }
    for line in unit.all("Service", "EnvironmentFile") {
        let value = unit.names.expand(&line.value).0;
        let (path, needed) = match value.strip_prefix('-') {
            Some(path) => (path, false),
            None => (value.as_str(), true),
        };
        let path = std::path::Path::new(path.trim_matches('"'));
        let Some(variables) = job.variables(path) else {
            let weight = if needed { "must be there" } else { "may be missing" };
            draft.lose(
                &line.from,
                format!("{} is not here (it {weight})", path.display()),
                "import where it is, or write its variables here",
            );
            continue;
        };
        // What a file says comes before what the unit says.
        for (name, value) in variables {
            forget(draft, &name);
            known.insert(name, value);
        }
        job.env_file(draft, path, needed, &line.from);
    }
    for line in unit.all("Service", "UnsetEnvironment") {
        for name in line.value.split_whitespace() {
            forget(draft, name.split('=').next().unwrap_or(name));
        }
    }
    known
}

/// Takes a variable out of what the unit itself sets.
fn forget(draft: &mut Draft, name: &str) {
    if let Some(Value::Object(map)) = draft.keys.get_mut("environment") {
        map.shift_remove(name);
    }
}

/// `command:`; whether there is one.
pub(super) fn exec(
    job: &mut Job<'_>,
    draft: &mut Draft,
    unit: &Unit,
    variables: &BTreeMap<String, String>,
    top: &Origin,
) -> bool {
    let look = |name: &str| match name {
        // systemd sets these itself.
        "HOME" => Some("\u{1}HOME:-/root\u{2}".to_owned()),
        "USER" | "LOGNAME" => Some("\u{1}USER:-root\u{2}".to_owned()),
        _ => variables.get(name).cloned(),
    };
    let mut chain = Vec::new();
    for key in ["ExecStartPre", "ExecStart"] {
        for line in unit.all("Service", key) {
            let expanded = unit.names.expand(&line.value).0;
            match commands(&expanded, &look) {
                Ok(commands) => {
                    for command in commands {
                        tell(draft, &line.from, &command);
                        chain.push((key, command));
                    }
                }
                Err(error) => job.wrong(&line.from, error, ""),
            }
        }
    }
    if unit.all("Service", "ExecStart").is_empty() {
        let from = Origin::new(unit.names.full.as_str(), Job::top(unit.file));
        job.lose(&from, "the service is left out: nothing says what to run", "");
        return false;
    }
    match chain.as_slice() {
        [(_, only)] => {
            if only.ignore {
                draft.lose(top, "- is not followed: a failure is a failure", "");
            }
            let escaped: Vec<_> = only.words.iter().map(|word| written(word)).collect();
            draft.put("command", words(&escaped), top);
        }
        several => {
            let commands: Vec<_> = several.iter().map(|(_, command)| command).collect();
            draft.put("command", written(&shell_line(&commands)), top);
            draft.put("shell", true, top);
        }
    }
    true
}

/// Several commands, each after the success of the one before.
fn shell_line(commands: &[&Command]) -> String {
    let mut lines = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        let quoted: Vec<_> =
            command.words.iter().map(|word| shell_words::quote(word).into_owned()).collect();
        let line = quoted.join(" ");
        lines.push(match (command.ignore, at + 1 == commands.len()) {
            (true, _) => format!("{{ {line} || true; }}"),
            (false, true) => format!("exec {line}"),
            (false, false) => line,
        });
    }
    lines.join(" &&\n")
}

/// What is special about a command.
fn tell(draft: &mut Draft, from: &Origin, command: &Command) {
    if command.renamed {
        draft.lose(from, "@ is not followed: the first argument is the program's own name", "");
    }
    if command.elevated {
        draft.lose(
            from,
            "+ and ! are not followed: it runs with the rights of the rest",
            "run it beforehand as the user that may",
        );
    }
    if !command.used.is_empty() {
        let names = command.used.join(", $");
        draft.note(from, format!("the value of now is put in for ${names}"));
    }
    if !command.unset.is_empty() {
        let names = command.unset.join(", $");
        draft.lose(
            from,
            format!("nothing is put in for ${names}, which the unit does not set"),
            "",
        );
    }
}
