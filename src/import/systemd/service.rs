//! One service unit, key by key.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::exec::{Command, commands};
use super::schedule::span;
use super::unit::{Line, words as split, written};
use super::{TABLE, Unit};
use crate::exit::Signal;
use crate::import::command::{reference, words};
use crate::import::compose::values::size;
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;

/// Another unit that one needs.
pub(super) struct Need {
    /// Its full name.
    unit: String,
    /// Whether it is one that must be there, and not only an order.
    strength: Strength,
    from: Origin,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Strength {
    Order,
    Wish,
    Must,
}

/// The service and what it needs; `None` where it cannot be one, which is told.
pub(super) fn read(job: &mut Job<'_>, unit: &Unit) -> Option<(Draft, Vec<Need>)> {
    let top = unit.last("Service", "ExecStart").map_or_else(
        || Origin::new(unit.names.full.as_str(), job.top(unit.file)),
        |line| line.from.clone(),
    );
    if unit.names.stem().ends_with('@') {
        let instead = format!("name an instance: wharf import {}NAME.service", unit.names.stem());
        job.lose(&top, "the service is left out: it is a template", &instead);
        return None;
    }
    let mut draft = job.draft(unit.names.stem(), &top);
    let about = unit.last("Unit", "Description");
    draft.about.extend(about.map(|line| written(&unit.names.expand(&line.value).0)));
    let variables = environment(job, &mut draft, unit);
    if !exec(job, &mut draft, unit, &variables, &top) {
        return None;
    }
    folder_and_user(job, &mut draft, unit, &top);
    restart(job, &mut draft, unit, &top);
    let mut needs = Vec::new();
    for line in &unit.lines {
        if line.value.is_empty() || line.from.key == "Description" {
            continue;
        }
        let value = text(&mut draft, unit, line);
        if !take(job, &mut draft, line, &value, &mut needs) && asks(line) {
            draft.lose_by(TABLE, &line.from);
        }
    }
    if draft.get("stop_grace_period").is_none() {
        draft.put("stop_grace_period", "1m30s", &top);
    }
    Some((draft, needs))
}

/// Whether a key without an equal asks for anything. `no` does not, unless `yes` is the default.
fn asks(line: &Line) -> bool {
    let by_default = ["SendSIGKILL", "IgnoreSIGPIPE", "DefaultDependencies", "GuessMainPID"];
    by_default.contains(&line.from.key.as_str())
        || !matches!(line.value.to_ascii_lowercase().as_str(), "no" | "false" | "off" | "0")
}

/// A value with its specifiers, escaped for services.yaml.
fn text(draft: &mut Draft, unit: &Unit, line: &Line) -> String {
    let (expanded, unknown) = unit.names.expand(&line.value);
    for letter in unknown {
        match letter {
            'H' | 'l' | 'q' => draft.lose(
                &line.from,
                format!("%{letter} is $HOSTNAME here, or localhost"),
                "export HOSTNAME before `wharf up`",
            ),
            _ => {
                draft.lose(&line.from, format!("%{letter} is left as it stands"), "write its value")
            }
        }
    }
    written(&expanded)
}

/// The environment, in the draft and, not escaped, as what commands refer to.
fn environment(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit) -> BTreeMap<String, String> {
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
        match job.variables(path) {
            // What a file says comes before what the unit says.
            Some(variables) => {
                for (name, value) in &variables {
                    if let Some(Value::Object(map)) = draft.keys.get_mut("environment") {
                        map.shift_remove(name);
                    }
                    known.insert(name.clone(), value.clone());
                }
                job.env_file(draft, path, &line.from);
            }
            None => {
                let weight = if needed { "must be there" } else { "may be missing" };
                draft.lose(
                    &line.from,
                    format!("{} is not here (it {weight})", path.display()),
                    "import where it is, or write its variables here",
                );
            }
        }
    }
    for line in unit.all("Service", "UnsetEnvironment") {
        for name in line.value.split_whitespace() {
            if let Some(Value::Object(map)) = draft.keys.get_mut("environment") {
                map.shift_remove(name.split('=').next().unwrap_or(name));
            }
        }
    }
    known
}

/// `command:`; whether there is one.
fn exec(
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
        let from = Origin::new(unit.names.full.as_str(), job.top(unit.file));
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

fn folder_and_user(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit, top: &Origin) {
    match unit.last("Service", "WorkingDirectory") {
        None => draft.put("working_dir", "/", top),
        Some(line) => {
            let value = text(draft, unit, line);
            let value = value.trim_start_matches('-');
            if value == "~" {
                draft.lose(&line.from, "the home of its user is not looked up", "write its path");
                draft.put("working_dir", "/", &line.from);
            } else if value.starts_with(['/', '$']) {
                draft.put("working_dir", value, &line.from);
            } else {
                job.wrong(&line.from, format!("`{value}` is no absolute path"), "");
            }
        }
    }
    let user = unit.last("Service", "User").filter(|line| !line.value.is_empty());
    let group = unit.last("Service", "Group").filter(|line| !line.value.is_empty());
    match (user, group) {
        (Some(user), group) => {
            let name = text(draft, unit, user);
            let group = group.map(|line| text(draft, unit, line));
            let group = group.map(|group| format!(":{group}")).unwrap_or_default();
            draft.put("user", format!("{name}{group}"), &user.from);
        }
        (None, Some(group)) => {
            draft.lose(
                &group.from,
                "a group without a user is not set",
                "write `user: root:GROUP`",
            );
        }
        (None, None) => {}
    }
}

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

fn restart(job: &mut Job<'_>, draft: &mut Draft, unit: &Unit, top: &Origin) {
    let line = unit.last("Service", "Restart");
    let from = line.map_or(top, |line| &line.from).clone();
    let word = line.map_or("no", |line| line.value.as_str());
    let policy = match word {
        "no" | "" => "no",
        "always" | "on-success" => "always",
        "on-failure" | "on-abnormal" | "on-abort" => "on-failure",
        "on-watchdog" => {
            draft.lose(&from, "there is no watchdog", "see `healthcheck`");
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
fn length(job: &mut Job<'_>, line: &Line) -> Option<String> {
    let length = span(&line.value);
    if length.is_none() && line.value != "infinity" {
        job.wrong(&line.from, format!("`{}` is no time", line.value), "write 5s or 1min 30s");
    }
    length
}

/// Takes one key over; `false` where it has no equal.
fn take(
    job: &mut Job<'_>,
    draft: &mut Draft,
    line: &Line,
    value: &str,
    needs: &mut Vec<Need>,
) -> bool {
    let from = &line.from;
    match (line.section.as_str(), from.key.as_str()) {
        ("Unit", key) => return unit_key(draft, key, line, needs),
        ("Service", _) => {}
        (section, _) if section.starts_with("X-") => return true,
        _ => return false,
    }
    match from.key.as_str() {
        key if key.starts_with("X-") => {}
        "ExecStart"
        | "ExecStartPre"
        | "Environment"
        | "EnvironmentFile"
        | "PassEnvironment"
        | "UnsetEnvironment"
        | "WorkingDirectory"
        | "User"
        | "Group"
        | "Restart"
        | "RestartSec"
        | "RestartMaxDelaySec"
        | "StartLimitInterval"
        | "StartLimitIntervalSec"
        | "StartLimitBurst"
        | "SuccessExitStatus"
        | "RestartPreventExitStatus" => {}
        "ExecReload" => reload(draft, from, value),
        "ExecStop" => stop(draft, from, value),
        "Type" => kind(draft, from, value),
        "TimeoutStopSec" | "TimeoutStartSec" | "TimeoutSec" => timeout(job, draft, line),
        "KillSignal" => match value.parse::<Signal>() {
            Ok(signal) => draft.put("stop_signal", signal.to_string(), from),
            Err(error) => job.wrong(from, error.to_string(), ""),
        },
        "KillMode" => kill_mode(draft, from, value),
        "SupplementaryGroups" => {
            let groups: Vec<_> = value.split_whitespace().map(str::to_owned).collect();
            draft.put("group_add", groups, from);
        }
        "Nice" | "OOMScoreAdjust" => match value.parse::<i64>() {
            Ok(number) => {
                let path = if from.key == "Nice" { "nice" } else { "oom_score_adj" };
                draft.put(path, number, from);
            }
            Err(_) => job.wrong(from, format!("`{value}` is no number"), ""),
        },
        "UMask" => draft.put("umask", value, from),
        "NoNewPrivileges" => draft.put("no_new_privileges", is_true(value), from),
        "CapabilityBoundingSet" if value.starts_with('~') => {
            let names: Vec<_> =
                value.trim_start_matches('~').split_whitespace().map(str::to_owned).collect();
            draft.put("cap_drop", names, from);
        }
        "CapabilityBoundingSet" => draft.lose(
            from,
            "capabilities are named by what is taken, not by what is kept",
            "see `cap_drop`",
        ),
        "StandardInput" if value == "null" => {}
        "StandardInput" => draft.lose(
            from,
            "standard input is empty without a `port:`",
            "speak to the program over a `port:`",
        ),
        "StandardOutput" | "StandardError" => {
            if value.contains(':') || value == "null" || value == "tty" {
                draft.lose(from, "output is kept in .wharf/log", "read it with `wharf logs NAME`");
            }
        }
        key => return limit(job, draft, key, from, value) || directory(draft, key, from, value),
    }
    true
}

fn unit_key(draft: &mut Draft, key: &str, line: &Line, needs: &mut Vec<Need>) -> bool {
    let strength = match key {
        "Description" | "StartLimitIntervalSec" | "StartLimitInterval" | "StartLimitBurst" => {
            return true;
        }
        "After" => Strength::Order,
        "Wants" => Strength::Wish,
        "Requires" | "BindsTo" | "Requisite" => Strength::Must,
        key => return key.starts_with("X-"),
    };
    for unit in line.value.split_whitespace() {
        if unit.ends_with(".target") {
            draft.note(&line.from, format!("{unit} is reached before wharf is started"));
        } else {
            match needs.iter_mut().find(|need| need.unit == unit) {
                Some(known) => known.strength = known.strength.max(strength),
                None => {
                    needs.push(Need { unit: unit.to_owned(), strength, from: line.from.clone() });
                }
            }
        }
    }
    true
}

/// The signal of a `kill -SIGNAL $MAINPID`.
fn kill_of(value: &str) -> Option<Signal> {
    let words: Vec<_> = value.trim_start_matches('-').split_whitespace().collect();
    let (program, rest) = words.split_first()?;
    if !program.ends_with("/kill") && *program != "kill" {
        return None;
    }
    let rest: Vec<_> = rest.iter().filter(|word| **word != "--").collect();
    match rest.as_slice() {
        [pid] if pid.contains("MAINPID") => Some(Signal::TERM),
        [signal, pid] if pid.contains("MAINPID") => signal
            .trim_start_matches("--signal=")
            .trim_start_matches("-s")
            .trim_start_matches('-')
            .parse()
            .ok(),
        [flag, signal, pid] if pid.contains("MAINPID") && matches!(**flag, "-s" | "--signal") => {
            signal.parse().ok()
        }
        _ => None,
    }
}

fn reload(draft: &mut Draft, from: &Origin, value: &str) {
    match kill_of(value) {
        Some(signal) => {
            let name = draft.name.clone();
            draft.note(from, format!("`wharf signal {name} {signal}` does it"));
        }
        None => draft.lose(from, "there is no command for a reload", "run it by hand"),
    }
}

fn stop(draft: &mut Draft, from: &Origin, value: &str) {
    match kill_of(value) {
        Some(signal) => draft.put("stop_signal", signal.to_string(), from),
        None => {
            draft.lose(from, "no command is run to stop it", "`stop_signal` is sent");
        }
    }
}

fn kind(draft: &mut Draft, from: &Origin, value: &str) {
    match value {
        "notify" | "notify-reload" => {
            draft.put("ready.notify", "systemd", from);
            draft.origins.remove("ready.notify");
            draft.origins.insert("ready".to_owned(), from.clone());
        }
        "forking" => draft.lose(
            from,
            "a program that goes into the background has ended for wharf",
            "have it stay in the foreground: most have an option for it",
        ),
        "dbus" => draft.lose(from, "D-Bus names are not waited for", ""),
        _ => {}
    }
}

fn timeout(job: &mut Job<'_>, draft: &mut Draft, line: &Line) {
    if line.value == "infinity" || span(&line.value).as_deref() == Some("0") {
        let instead = "the longest wait that makes sense goes there";
        return draft.lose(&line.from, "no wait is without an end", instead);
    }
    let Some(length) = length(job, line) else { return };
    if line.from.key != "TimeoutStartSec" {
        draft.put("stop_grace_period", length.as_str(), &line.from);
    }
    if line.from.key != "TimeoutStopSec" {
        draft.put("start_timeout", length, &line.from);
    }
}

fn kill_mode(draft: &mut Draft, from: &Origin, value: &str) {
    match value {
        "process" => draft.put("stop_kill", "process", from),
        "none" => draft.lose(from, "what runs is always stopped", ""),
        "mixed" => draft.note(from, "the stop signal reaches the process group too"),
        _ => {}
    }
}

/// The kernel's default of `fs.nr_open` (proc(5)): no process may have more.
const KERNEL_NOFILE: u64 = 1_048_576;

/// A limit; `false` where there is no such one.
fn limit(job: &mut Job<'_>, draft: &mut Draft, key: &str, from: &Origin, value: &str) -> bool {
    let hard = value.rsplit(':').next().unwrap_or(value);
    match key {
        "LimitNOFILE" if hard == "infinity" => {
            draft.put("limits.nofile", KERNEL_NOFILE, from);
            draft.note(from, "infinity is as many as the kernel allows by default (fs.nr_open)");
        }
        "LimitNOFILE" => match hard.parse::<u64>() {
            Ok(number) => draft.put("limits.nofile", number.max(8), from),
            Err(_) => job.wrong(from, format!("`{value}` is no limit"), ""),
        },
        "LimitCORE" if hard == "infinity" => draft.put("limits.core", "unlimited", from),
        "LimitCORE" | "MemoryMax" | "MemoryLimit" => {
            let path = if key == "LimitCORE" { "limits.core" } else { "limits.memory" };
            match size(hard) {
                _ if hard == "infinity" => {}
                Some(size) => draft.put(path, size, from),
                None if hard.ends_with('%') => return false,
                None => job.wrong(from, format!("`{value}` is no size"), ""),
            }
        }
        "CPUQuota" => match value.strip_suffix('%').map(str::parse::<f64>) {
            Some(Ok(percent)) => draft.put("limits.cpus", percent / 100.0, from),
            _ => job.wrong(from, format!("`{value}` is no percentage"), ""),
        },
        "TasksMax" => match value.parse::<u64>() {
            Ok(number) => draft.put("limits.pids", number, from),
            Err(_) if value == "infinity" => {}
            Err(_) => return false,
        },
        _ => return false,
    }
    true
}

/// A folder that systemd would make; `false` where the key is none of these.
fn directory(draft: &mut Draft, key: &str, from: &Origin, value: &str) -> bool {
    let (variable, root) = match key {
        "RuntimeDirectory" => ("RUNTIME_DIRECTORY", "/run"),
        "StateDirectory" => ("STATE_DIRECTORY", "/var/lib"),
        "CacheDirectory" => ("CACHE_DIRECTORY", "/var/cache"),
        "LogsDirectory" => ("LOGS_DIRECTORY", "/var/log"),
        "ConfigurationDirectory" => ("CONFIGURATION_DIRECTORY", "/etc"),
        _ => return false,
    };
    let folders: Vec<_> =
        value.split_whitespace().map(|folder| format!("{root}/{folder}")).collect();
    draft.variable(variable, folders.join(":"));
    let all = folders.join(" ");
    draft.lose(from, format!("nobody makes {all}"), format!("run install -d {all} beforehand"));
    true
}

fn is_true(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
}

/// A service that was made of a unit.
pub(super) struct Made {
    /// The unit's full name.
    pub(super) unit: String,
    /// The service's name.
    pub(super) name: String,
    /// What it has reached when others may start: the unit's `Type` says it.
    pub(super) condition: &'static str,
    pub(super) needs: Vec<Need>,
}

/// What a unit must have reached before those that come after it are started.
pub(super) fn condition(unit: &Unit) -> &'static str {
    match unit.last("Service", "Type").map(|line| line.value.as_str()) {
        Some("oneshot") => "service_completed_successfully",
        Some("notify" | "notify-reload") => "service_healthy",
        _ => "service_started",
    }
}

/// Gives services what they need of one another, now that all names are known. `others` are the
/// units of the import that are no services.
pub(super) fn dependencies(job: &mut Job<'_>, made: &[Made], others: &[String]) {
    for one in made {
        let Some(at) = job.drafts.iter().position(|draft| draft.name == one.name) else { continue };
        for need in one.needs.iter().filter(|need| !others.contains(&need.unit)) {
            let draft = &mut job.drafts[at];
            let Some(other) = made.iter().find(|other| other.unit == need.unit) else {
                let why = format!("{} is not part of this import", need.unit);
                draft.lose(&need.from, why, "see to it that it runs");
                continue;
            };
            let mut value = json!({ "condition": other.condition });
            if need.strength == Strength::Wish {
                value["required"] = json!(false);
            }
            match draft.keys.get_mut("depends_on") {
                Some(Value::Object(map)) => drop(map.insert(other.name.clone(), value)),
                _ => {
                    let map = Map::from_iter([(other.name.clone(), value)]);
                    draft.put("depends_on", Value::Object(map), &need.from);
                }
            }
        }
    }
}
