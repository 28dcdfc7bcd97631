//! process-compose: processes, their probes and what they wait for.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::command::{escape, look, words};
use super::compose::interpolate::without_environment;
use super::compose::{dependencies, translated};
use super::draft::{Draft, Origin};
use super::job::{Job, asks, key_origin, layered, texts};
use super::table::{Row, carried, lost, noted};
use crate::exit::Signal;
use crate::spec::{Entry, Kind, Node};

/// What becomes of process-compose's keys.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    carried("processes", "`services`", ""),
    carried("command", "`command`", "through `bash -c` where it needs a shell, as process-compose does it"),
    carried("entrypoint", "`command`", ""),
    carried("working_dir", "`working_dir`", ""),
    carried("environment", "`environment`", "the whole file's below each process's own"),
    carried("env_file", "`env_file`", ""),
    carried(".env", "`environment`", "likewise, unless `is_dotenv_disabled`"),
    carried("depends_on", "`depends_on`", "process_healthy and process_log_ready are service_healthy; process_completed is service_completed_successfully"),
    carried("availability", "`restart`", "restart, backoff_seconds, max_restarts; exit_on_end and exit_on_skipped are lost"),
    carried("readiness_probe", "`ready`", "exec and http_get; initial_delay_seconds and thresholds are lost"),
    carried("liveness_probe", "`healthcheck`", ""),
    carried("ready_log_line", "`ready.log_line`", "as a regular expression of just that text"),
    carried("shutdown", "`stop_signal`, `stop_grace_period`, `stop_kill`", "a command is lost"),
    carried("replicas", "`replicas`", "$PC_REPLICA_NUM is worked out where the command refers to it"),
    carried("namespace", "`labels.namespace`", ""),
    carried("description", "a comment", ""),
    carried("disabled", "`replicas: 0`", ""),
    carried("is_daemon", "`restart: no`", "a program that goes into the background ends for wharf"),
    carried("launch_timeout_seconds", "`start_timeout`", ""),
    carried("schedule", "`schedule`", ""),
    carried("shell", "`command`", "shell_command and shell_argument"),
    carried("disable_env_expansion", "nothing to write", "`$` is kept as it is"),
    carried("x-*", "left out", "anchors in them are followed"),
    noted("version", "services.yaml has a version of its own"),
    noted("log_level", "programs' output is kept whatever it says"),
    noted("log_length", "`wharf logs -n 100` chooses how much is shown"),
    noted("is_strict", "unknown keys are always refused"),
    noted("is_tui_disabled", "`wharf up` has no screen of its own"),
    noted("is_dotenv_disabled", "files of variables are read once, by this import"),
    noted("disable_ansi_colors", "bytes of output are kept as they are"),
    noted("theme", "there is no screen of its own"),
    noted("name", "the folder tells projects apart"),
    noted("ordered_shutdown", "services stop together"),
    lost("log_location", "output is kept in .wharf/log", "read it with `wharf logs NAME`"),
    lost("log_configuration", "logs are rotated by size", "see `logging` of a service"),
    lost("log_format", "logs have one format", "read them with `wharf logs --json`"),
    lost("env_cmds", "no command is run to make variables", "run it before and write its values to a file"),
    lost("vars", "templates are not filled in", "write the values"),
    lost("extends", "another file is not taken over by itself", "name it first: `wharf import BASE FILE`"),
    lost("is_foreground", "no program gets the terminal", "run it by itself"),
    lost("is_interactive", "no program gets the terminal", "speak to it over a `port:`"),
    lost("is_tty", "programs have no terminal", ""),
    lost("is_elevated", "nothing is granted", "run `wharf up` as root and write `user:` for the others"),
    lost("watch", "files are not watched", "`wharf restart NAME` after a change"),
    lost("mcp*", "no tools are offered to models from here", ""),
];

/// What the whole file says.
struct Around {
    file: usize,
    dotenv: HashMap<String, String>,
    environment: Option<Entry>,
    shell: (String, String),
    /// Processes that are started again whenever they end.
    endless: Vec<String>,
}

/// Reads the files, a later one laid over those before it.
pub(super) fn read(job: &mut Job<'_>, files: &[usize]) {
    let Some(mut whole) = layered(job, files, "processes") else { return };
    let file = files.first().copied().unwrap_or_default();
    let expand = whole.get("disable_env_expansion").and_then(Node::text) != Some("true");
    let without = whole.get("is_dotenv_disabled").and_then(Node::text) == Some("true");
    let dotenv = if without { HashMap::new() } else { dotenv(job, file) };
    prepared(job, &mut whole, &dotenv, expand);
    let Some(processes) = whole.take("processes") else {
        let top = Origin::new(String::new(), whole.place);
        return job.wrong(&top, "the key `processes` is missing", "");
    };
    let environment = whole.take("environment");
    let shell = whole.take("shell");
    for entry in whole.entries() {
        if !entry.key.starts_with("x-") && entry.key != "disable_env_expansion" {
            job.lose_by(TABLE, &key_origin(entry));
        }
    }
    let Kind::Map(entries) = processes.value.kind else {
        return job.wrong(&key_origin(&processes), "expected processes by name", "");
    };
    let shell = shell_words_of(shell.as_ref());
    let is_endless = |entry: &&Entry| {
        let restart = entry.value.get("availability").and_then(|own| own.get("restart"));
        restart.and_then(Node::text) == Some("always")
    };
    let endless = entries.iter().filter(is_endless).map(|entry| entry.key.clone()).collect();
    let around = Around { file, dotenv, environment, shell, endless };
    let mut names = HashMap::new();
    for entry in entries {
        if entry.key.starts_with("x-") {
            continue;
        }
        if let Some(name) = process(job, &around, &entry) {
            names.insert(entry.key, name);
        }
    }
    for draft in &mut job.drafts {
        dependencies(draft, &names);
    }
    job.note(
        &Origin::new("environment", Job::top(file)),
        "processes do not see the environment of `wharf up`: only PATH, HOME, USER, LANG, TZ and \
         what is written below",
    );
}

fn dotenv(job: &mut Job<'_>, file: usize) -> HashMap<String, String> {
    let path = job.folder(file).join(".env");
    let Some(variables) = job.variables(&path) else { return HashMap::new() };
    job.copied(&path);
    variables.into_iter().collect()
}

/// Puts every scalar into the form of services.yaml.
fn prepared(job: &mut Job<'_>, node: &mut Node, dotenv: &HashMap<String, String>, expand: bool) {
    if expand {
        return translated(job, "$", node, dotenv);
    }
    match &mut node.kind {
        Kind::Scalar { text, .. } => *text = escape(text),
        Kind::List(items) => {
            for item in items {
                prepared(job, item, dotenv, expand);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                prepared(job, &mut entry.value, dotenv, expand);
            }
        }
        _ => {}
    }
}

fn shell_words_of(entry: Option<&Entry>) -> (String, String) {
    let text = |key: &str| entry?.value.get(key)?.text().map(str::to_owned);
    let program = text("shell_command").unwrap_or_else(|| "bash".to_owned());
    (program, text("shell_argument").unwrap_or_else(|| "-c".to_owned()))
}

/// Makes a service of a process; its name.
fn process(job: &mut Job<'_>, around: &Around, entry: &Entry) -> Option<String> {
    let from = key_origin(entry);
    if !matches!(entry.value.kind, Kind::Map(_)) {
        job.wrong(&from, "expected a map of keys", "");
        return None;
    }
    let mut draft = job.draft(&entry.key, &from);
    if let Some(environment) = &around.environment {
        let from = key_origin(environment);
        super::compose::environment(job, &mut draft, &environment.value, &from);
    }
    for key in entry.value.entries() {
        if !take(job, &mut draft, around, key) && asks(key) {
            draft.lose_by(TABLE, &key_origin(key));
        }
    }
    let own = entry.value.get("is_dotenv_disabled").and_then(Node::text) == Some("true");
    if !own {
        let mut variables: Vec<_> = around.dotenv.iter().collect();
        variables.sort();
        for (name, value) in variables {
            if !draft.has_variable(name) {
                draft.variable(name, escape(value));
            }
        }
    }
    if draft.get("command").is_none() {
        job.wrong(&from, "the key `command` is missing", "");
    }
    if draft.get("restart").is_none() {
        draft.put("restart", "no", &from);
    }
    if draft.get("working_dir").is_none() {
        let folder = job.folder(around.file);
        if let Some(folder) = job.working_dir(&folder) {
            draft.put("working_dir", escape(&folder), &from);
        }
    }
    let name = draft.name.clone();
    job.drafts.push(draft);
    Some(name)
}

/// Takes one key over; `false` where it has no equal.
fn take(job: &mut Job<'_>, draft: &mut Draft, around: &Around, entry: &Entry) -> bool {
    let from = &key_origin(entry);
    let value = &entry.value;
    match entry.key.as_str() {
        "command" => command(job, draft, around, value, from),
        "entrypoint" => match texts(value) {
            Some(list) => {
                let list: Vec<_> = list.into_iter().map(|(text, _)| text).collect();
                draft.put("command", words(&list), from);
            }
            None => job.wrong(from, "expected a list of texts", ""),
        },
        "working_dir" => {
            let plain = value.text().map(without_environment).unwrap_or_default();
            let folder = job.folder(around.file).join(plain);
            if let Some(folder) = job.working_dir(&folder) {
                draft.put("working_dir", escape(&folder), from);
            }
        }
        "environment" => super::compose::environment(job, draft, value, from),
        "env_file" => {
            for (path, _) in texts(value).unwrap_or_default() {
                let path = job.folder(around.file).join(without_environment(&path));
                if !job.env_file(draft, &path, true, from) {
                    let shown = job.shown(&path);
                    draft.lose(
                        from,
                        format!("there is no file {shown}"),
                        "write its variables here",
                    );
                }
            }
        }
        "depends_on" => depends_on(draft, around, value, from),
        "availability" => availability(job, draft, value, from),
        "readiness_probe" => probe(job, draft, "ready", value, from),
        "liveness_probe" => probe(job, draft, "healthcheck", value, from),
        "ready_log_line" => {
            let plain = value.text().map(without_environment).unwrap_or_default();
            draft.put("ready.log_line", escape(&regex::escape(&plain)), from);
            draft.origins.insert("ready".to_owned(), from.clone());
            draft.origins.remove("ready.log_line");
        }
        "shutdown" => shutdown(job, draft, value, from),
        "replicas" => match value.text().map(without_environment).map(|text| text.parse::<u32>()) {
            Some(Ok(count)) => draft.put("replicas", count, from),
            _ => job.wrong(from, "expected a number", ""),
        },
        "namespace" => draft.put("labels.namespace", value.text().unwrap_or_default(), from),
        "description" => draft.about.extend(value.text().map(without_environment)),
        "disabled" if value.text() == Some("true") => {
            draft.hold(from, "it is not to be started by itself");
        }
        "is_daemon" if value.text() == Some("true") => draft.lose(
            from,
            "a program that goes into the background has ended for wharf",
            "have it stay in the foreground",
        ),
        "disabled" | "is_daemon" => {}
        "launch_timeout_seconds" => seconds(job, draft, "start_timeout", value, from),
        "schedule" => schedule(job, draft, value, from),
        _ => return false,
    }
    true
}

fn command(job: &mut Job<'_>, draft: &mut Draft, around: &Around, value: &Node, from: &Origin) {
    let Some(text) = value.text() else { return job.wrong(from, "expected a text", "") };
    let text = text.trim_end_matches('\n');
    let plain = without_environment(text);
    let look = look(plain.trim());
    if plain.contains("{{") {
        draft.lose(from, "a template is not filled in", "write the values");
    }
    // A reference that wharf puts in may bring anything: then a shell reads it, as before.
    let refers = text.contains("${");
    match shell_words::split(text.trim()) {
        Ok(split) if !look.needs_shell && !refers && !split.is_empty() => {
            draft.put("command", words(&split), from);
        }
        Ok(split) if split.is_empty() => job.wrong(from, "the command is empty", ""),
        _ => {
            let (program, argument) = &around.shell;
            let counted = look.variables.iter().any(|name| name == "PC_REPLICA_NUM");
            let count =
                if counted { "export PC_REPLICA_NUM=$$((WHARF_REPLICA - 1)); " } else { "" };
            let line = if look.compound || refers || !look.needs_shell {
                format!("{count}{text}")
            } else {
                format!("{count}exec {}", text.trim_start())
            };
            draft.put("command", json!([program, argument, line]), from);
        }
    }
    let passed = super::command::Line {
        variables: look.variables.into_iter().filter(|name| !name.starts_with("PC_")).collect(),
        ..super::command::Line::default()
    };
    super::procfile::pass_on(draft, &passed, from);
}

fn depends_on(draft: &mut Draft, around: &Around, value: &Node, from: &Origin) {
    let mut needed = Map::new();
    for entry in value.entries() {
        let condition = match entry.value.get("condition").and_then(Node::text) {
            Some("process_completed" | "process_completed_successfully")
                if around.endless.contains(&entry.key) =>
            {
                draft.lose(
                    from,
                    format!(
                        "`{}` is started again whenever it ends: that it runs is waited for",
                        entry.key
                    ),
                    "",
                );
                "service_started"
            }
            Some("process_healthy" | "process_log_ready") => "service_healthy",
            Some("process_completed_successfully") => "service_completed_successfully",
            Some("process_completed") => {
                draft.lose(
                    from,
                    format!("`{}` must then end with success, not just end", entry.key),
                    "",
                );
                "service_completed_successfully"
            }
            _ => "service_started",
        };
        needed.insert(entry.key.clone(), json!({ "condition": condition }));
    }
    if !needed.is_empty() {
        draft.put("depends_on", Value::Object(needed), from);
    }
}

fn availability(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let mut policy = "no";
    let mut alone = true;
    for entry in value.entries() {
        let origin = Origin::new(format!("availability.{}", entry.key), entry.place);
        let text = entry.value.text().map(without_environment).unwrap_or_default();
        match (entry.key.as_str(), text.as_str()) {
            ("restart", "always") => policy = "always",
            ("restart", "on_failure") => policy = "on-failure",
            ("restart", "exit_on_failure") => {
                draft.lose(&origin, "a failure ends no other process", "watch `wharf exits -f`");
            }
            ("restart", "no" | "false" | "") => policy = "no",
            ("restart", other) => {
                let message =
                    format!("`{other}` is none of always, on_failure, exit_on_failure and no");
                job.wrong(&origin, message, "");
            }
            ("backoff_seconds", text) => match text.parse::<u64>() {
                Ok(length) => {
                    draft.put("restart.delay", format!("{length}s"), &origin);
                    draft.put("restart.factor", 1, &origin);
                    alone = false;
                }
                Err(_) => job.wrong(&origin, format!("`{text}` is no number of seconds"), ""),
            },
            // 0 is process-compose's word for no limit, as it is when the key is left out.
            ("max_restarts", "0") => {}
            ("max_restarts", text) => match text.parse::<u32>() {
                Ok(count) => {
                    draft.put("restart.max_restarts", count, &origin);
                    draft.note(&origin, "restarts are counted within 60s, not for ever");
                    alone = false;
                }
                Err(_) => job.wrong(&origin, format!("`{text}` is no number"), ""),
            },
            (_, "true") => draft.lose(&origin, "the end of one ends no other", ""),
            (_, "false") => {}
            _ => draft.lose_by(TABLE, &origin),
        }
    }
    if alone {
        draft.put("restart", policy, from);
    } else {
        draft.put("restart.policy", policy, from);
    }
}

fn probe(job: &mut Job<'_>, draft: &mut Draft, to: &str, value: &Node, from: &Origin) {
    let mut keys = Map::new();
    for entry in value.entries() {
        let origin = Origin::new(format!("{}.{}", from.key, entry.key), entry.place);
        let text = |key: &str| entry.value.get(key).and_then(Node::text);
        match entry.key.as_str() {
            "exec" => {
                let line = text("command").unwrap_or_default();
                keys.insert("exec".to_owned(), json!(["/bin/sh", "-c", line]));
                if text("working_dir").is_some() {
                    draft.lose(&origin, "a probe runs where its service runs", "cd in its command");
                }
            }
            "http_get" => {
                let scheme = text("scheme").unwrap_or("http").to_ascii_lowercase();
                let host = text("host").unwrap_or("127.0.0.1");
                let port = text("port").map(|port| format!(":{port}")).unwrap_or_default();
                let path = text("path").unwrap_or("/");
                let slash = if path.starts_with('/') { "" } else { "/" };
                let url = format!("{scheme}://{host}{port}{slash}{path}");
                let (key, question) = if scheme == "https" {
                    ("exec", json!(["curl", "-fsS", "-o", "/dev/null", url]))
                } else {
                    ("http", json!(url))
                };
                keys.insert(key.to_owned(), question);
            }
            "period_seconds" => number(job, &mut keys, "interval", entry, &origin),
            "timeout_seconds" if to == "ready" => {
                draft.lose(&origin, "a question whether it is ready has 3s at most", "");
            }
            "timeout_seconds" => number(job, &mut keys, "timeout", entry, &origin),
            "failure_threshold" if to == "healthcheck" => {
                let count = entry.value.text().and_then(|text| text.parse::<u32>().ok());
                keys.insert("retries".to_owned(), json!(count.unwrap_or(3)));
            }
            "initial_delay_seconds" if to == "healthcheck" => {
                number(job, &mut keys, "start_period", entry, &origin);
            }
            key if key.starts_with("x-") => {}
            _ => draft.lose(&origin, "has no equal", ""),
        }
    }
    draft.put(to, Value::Object(keys), from);
}

fn number(
    job: &mut Job<'_>,
    keys: &mut Map<String, Value>,
    to: &str,
    entry: &Entry,
    from: &Origin,
) {
    let plain = entry.value.text().map(without_environment).unwrap_or_default();
    match plain.parse::<u32>() {
        Ok(length) => drop(keys.insert(to.to_owned(), json!(format!("{length}s")))),
        Err(_) => job.wrong(from, format!("`{plain}` is no number of seconds"), ""),
    }
}

fn seconds(job: &mut Job<'_>, draft: &mut Draft, path: &str, value: &Node, from: &Origin) {
    let plain = value.text().map(without_environment).unwrap_or_default();
    match plain.parse::<u32>() {
        Ok(length) => draft.put(path, format!("{length}s"), from),
        Err(_) => job.wrong(from, format!("`{plain}` is no number of seconds"), ""),
    }
}

fn shutdown(job: &mut Job<'_>, draft: &mut Draft, value: &Node, _from: &Origin) {
    for entry in value.entries() {
        let from = Origin::new(format!("shutdown.{}", entry.key), entry.place);
        match entry.key.as_str() {
            "signal" => {
                let plain = entry.value.text().map(without_environment).unwrap_or_default();
                match plain.parse::<Signal>() {
                    Ok(signal) => draft.put("stop_signal", signal.to_string(), &from),
                    Err(error) => job.wrong(&from, error.to_string(), ""),
                }
            }
            "timeout_seconds" => seconds(job, draft, "stop_grace_period", &entry.value, &from),
            "parent_only" if matches!(entry.value.text(), Some("yes" | "true")) => {
                draft.put("stop_kill", "process", &from);
            }
            "parent_only" => {}
            "command" => {
                draft.lose(&from, "no command is run to stop it", "`stop_signal` is sent");
            }
            _ => draft.lose(&from, "has no equal", ""),
        }
    }
}

fn schedule(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let mut keys = Map::new();
    for entry in value.entries() {
        let origin = Origin::new(format!("schedule.{}", entry.key), entry.place);
        let text = entry.value.text().unwrap_or_default();
        match entry.key.as_str() {
            "cron" => drop(keys.insert("cron".to_owned(), json!(text))),
            "interval" => drop(keys.insert("every".to_owned(), json!(text))),
            _ => draft.lose(&origin, "has no equal", ""),
        }
    }
    draft.put("schedule", Value::Object(keys), from);
    if !job.works("schedule") {
        draft.hold(from, "it is started at set times only");
    }
}
