//! One service unit, key by key.

use super::needs::{Need, unit_key};
use super::reload;
use super::restart::{length, restart};
use super::schedule::span;
use super::start::{environment, exec};
use super::unit::{Line, written};
use super::{TABLE, Unit};
use crate::exit::Signal;
use crate::import::compose::values::size;
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;

/// The service and what it needs; `None` where it cannot be one, which is told.
pub(super) fn read(job: &mut Job<'_>, unit: &Unit) -> Option<(Draft, Vec<Need>)> {
    let top = unit.last("Service", "ExecStart").map_or_else(
        || Origin::new(unit.names.full.as_str(), Job::top(unit.file)),
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
    reload::finish(job, &mut draft, unit);
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
                draft.lose(
                    &line.from,
                    format!("%{letter} is left as it stands"),
                    "write its value",
                );
            }
        }
    }
    written(&expanded)
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
            job.user(draft, &format!("{name}{group}"), &user.from);
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
        | "ReloadSignal"
        | "StartLimitInterval"
        | "StartLimitIntervalSec"
        | "StartLimitBurst"
        | "SuccessExitStatus"
        | "RestartPreventExitStatus" => {}
        "ExecReload" => reload::exec(draft, from, value),
        "ExecStop" => stop(draft, from, value),
        "Type" => kind(draft, from, value),
        "TimeoutStopSec" | "TimeoutStartSec" | "TimeoutSec" => timeout(job, draft, line),
        "WatchdogSec" => watchdog(job, draft, line),
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

fn stop(draft: &mut Draft, from: &Origin, value: &str) {
    match reload::kill_of(value) {
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

fn watchdog(job: &mut Job<'_>, draft: &mut Draft, line: &Line) {
    // Both mean that there is none.
    if line.value == "infinity" || span(&line.value).as_deref() == Some("0") {
        return;
    }
    if let Some(length) = length(job, line) {
        draft.put("watchdog", length, &line.from);
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
        "LimitNPROC" | "LimitSIGPENDING" | "LimitRTPRIO" => match hard.parse::<u64>() {
            Ok(number) => draft.put(&limit_path(key), number, from),
            Err(_) if hard == "infinity" => {}
            Err(_) => job.wrong(from, format!("`{value}` is no limit"), ""),
        },
        "LimitCPU" => match hard.parse::<u64>() {
            Ok(seconds) => draft.put("limits.cpu", format!("{seconds}s"), from),
            Err(_) if hard == "infinity" => {}
            Err(_) => return false,
        },
        "LimitCORE" | "LimitSTACK" | "LimitAS" | "LimitDATA" | "LimitFSIZE" | "LimitMEMLOCK"
        | "LimitMSGQUEUE" => match size(hard) {
            _ if hard == "infinity" => draft.put(&limit_path(key), "unlimited", from),
            Some(size) => draft.put(&limit_path(key), size, from),
            None => job.wrong(from, format!("`{value}` is no size"), ""),
        },
        "MemoryMax" | "MemoryLimit" => match size(hard) {
            _ if hard == "infinity" => {}
            Some(size) => draft.put("limits.memory", size, from),
            None if hard.ends_with('%') => return false,
            None => job.wrong(from, format!("`{value}` is no size"), ""),
        },
        "OOMPolicy" => match value {
            "continue" => draft.put("limits.on_oom", "continue", from),
            "stop" | "kill" => draft.put("limits.on_oom", "kill", from),
            _ => job.wrong(from, format!("`{value}` is no policy"), ""),
        },
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

/// `limits.nproc` of `LimitNPROC`.
fn limit_path(key: &str) -> String {
    format!("limits.{}", key.trim_start_matches("Limit").to_ascii_lowercase())
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
