//! pm2's applications as JSON: `ecosystem.json`, or what `pm2 prettylist` and `pm2 jlist` print.
//!
//! `ecosystem.config.js` is a program and cannot be read.

use std::path::Path;

use serde_json::Value;

use super::command::{escape, words};
use super::compose::values::size;
use super::draft::{Draft, Origin};
use super::job::{Job, asks, key_origin, place, texts};
use super::table::{Row, carried, lost, noted};
use crate::spec::{Entry, Kind, Node, parse};
use crate::time::{format_duration, parse_duration};

/// What becomes of pm2's keys.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    carried("name", "the service's name", ""),
    carried("script", "`command`", "with its interpreter: node for .js, python3 for .py, bash for .sh and so on"),
    carried("args", "`command`", ""),
    carried("interpreter", "`command`", "also `exec_interpreter`; `none` for none"),
    carried("node_args", "`command`", "also `interpreter_args`"),
    carried("cwd", "`working_dir`", ""),
    carried("env", "`environment`", ""),
    carried("instances", "`replicas`", "0, -1 and max are lost: one runs"),
    carried("autorestart", "`restart`", "always, or no for false"),
    carried("stop_exit_codes", "`restart.success_exit_codes`", "with on-failure, so that they end it"),
    carried("max_restarts", "`restart.max_restarts`", "counted within 60s"),
    carried("min_uptime", "`restart.reset_after`", ""),
    carried("restart_delay", "`restart.delay`", "with `factor: 1`"),
    carried("exp_backoff_restart_delay", "`restart.delay`", "with `factor: 1.5`"),
    carried("kill_timeout", "`stop_grace_period`", "1600ms where it is not written"),
    carried("max_memory_restart", "`max_memory`", ""),
    carried("cron_restart", "`schedule.cron`", "restarts of a running service at set times are lost"),
    carried("uid", "`user`", "with `gid`"),
    carried("gid", "`user`", ""),
    carried("treekill", "`stop_kill`", "`false` becomes process"),
    carried("namespace", "`labels.namespace`", ""),
    noted("exec_mode", "replicas are processes of their own; a cluster's shared socket is `listen`, later"),
    noted("merge_logs", "each replica has its own log; `wharf logs NAME` shows them together"),
    noted("log_date_format", "each line is kept with its time"),
    noted("time", "each line is kept with its time"),
    noted("pid_file", "wharf needs no pid file"),
    noted("source_map_support", "the program's own matter"),
    noted("vizion", "version control is not looked at"),
    lost("env_*", "there is one environment", "write another file and lay it over: `wharf -f services.yaml -f production.yaml`"),
    lost("watch*", "files are not watched", "`wharf restart NAME` after a change"),
    lost("ignore_watch", "files are not watched", ""),
    lost("out_file", "output is kept in .wharf/log", "read it with `wharf logs NAME`"),
    lost("error_file", "output is kept in .wharf/log", "read it with `wharf logs NAME`"),
    lost("log_file", "output is kept in .wharf/log", "read it with `wharf logs NAME`"),
    lost("combine_logs", "output is kept in .wharf/log", "read it with `wharf logs NAME`"),
    lost("wait_ready", "`process.send('ready')` is not heard", "see `ready`"),
    lost("listen_timeout", "`process.send('ready')` is not heard", "see `ready`"),
    lost("shutdown_with_message", "no message is sent before a stop", "`stop_signal` is sent"),
    lost("increment_var", "no variable counts on", "$WHARF_REPLICA counts from 1"),
    lost("instance_var", "NODE_APP_INSTANCE is not set", "$WHARF_REPLICA counts from 1"),
    lost("deploy", "nothing is deployed", ""),
];

/// Reads the files.
pub(super) fn read(job: &mut Job<'_>, files: &[usize]) {
    for &file in files {
        let Some(whole) = parse(file, &job.sources, &mut job.found) else { continue };
        let running = matches!(whole.kind, Kind::List(_));
        let apps = match &whole.kind {
            Kind::List(items) => items.clone(),
            _ => match whole.get("apps").map(|apps| &apps.kind) {
                Some(Kind::List(items)) => items.clone(),
                Some(Kind::Map(_)) => whole.get("apps").cloned().into_iter().collect(),
                _ if whole.get("script").is_some() => vec![whole.clone()],
                _ => {
                    let top = Origin::new(String::new(), place(file, 0, 1));
                    job.wrong(&top, "expected `apps`, a list of applications", "");
                    continue;
                }
            },
        };
        for entry in whole.entries().iter().filter(|entry| entry.key == "deploy") {
            job.lose_by(TABLE, &key_origin(entry));
        }
        for app in apps {
            application(job, file, &if running { running_app(&app) } else { app });
        }
    }
}

/// What `pm2 prettylist` says of a running application, in the keys of a file.
fn running_app(app: &Node) -> Node {
    let Some(own) = app.get("pm2_env") else { return app.clone() };
    let mut kept = Vec::new();
    for (theirs, ours) in [
        ("name", "name"),
        ("pm_exec_path", "script"),
        ("args", "args"),
        ("exec_interpreter", "interpreter"),
        ("node_args", "node_args"),
        ("pm_cwd", "cwd"),
        ("autorestart", "autorestart"),
        ("max_restarts", "max_restarts"),
        ("restart_delay", "restart_delay"),
        ("kill_timeout", "kill_timeout"),
        ("namespace", "namespace"),
    ] {
        if let Some(entry) = own.entry(theirs) {
            kept.push(Entry { key: ours.to_owned(), ..entry.clone() });
        }
    }
    Node::new(app.place, Kind::Map(kept))
}

fn application(job: &mut Job<'_>, file: usize, app: &Node) {
    let text = |key: &str| app.get(key).and_then(Node::text);
    let from = Origin::new(text("name").unwrap_or("script"), app.place);
    let Some(script) = text("script") else {
        return job.wrong(&from, "the key `script` is missing", "");
    };
    let stem = Path::new(script).file_stem().and_then(|stem| stem.to_str()).unwrap_or("app");
    let mut draft = job.draft(text("name").unwrap_or(stem), &from);
    let command: Vec<_> = command(app, script).iter().map(|word| escape(word)).collect();
    draft.put("command", words(&command), &from);
    draft.put("stop_grace_period", "1600ms", &from);
    for entry in app.entries() {
        if !take(job, &mut draft, file, app, entry) && asks(entry) {
            draft.lose_by(TABLE, &key_origin(entry));
        }
    }
    restart(&mut draft, app, &from);
    if draft.get("working_dir").is_none() {
        let folder = job.folder(file);
        if let Some(folder) = job.working_dir(&folder) {
            draft.put("working_dir", escape(&folder), &from);
        }
    }
    draft.note(
        &from,
        "the program sees PATH, HOME, USER, LANG, TZ and what is written here, not pm2's environment",
    );
    job.drafts.push(draft);
}

/// The words of a `[…]` or of one text.
fn split(node: Option<&Node>) -> Vec<String> {
    match node {
        Some(node) if matches!(node.kind, Kind::Scalar { .. }) => {
            shell_words::split(node.text().unwrap_or_default()).unwrap_or_default()
        }
        Some(node) => texts(node).unwrap_or_default().into_iter().map(|(text, _)| text).collect(),
        None => Vec::new(),
    }
}

fn command(app: &Node, script: &str) -> Vec<String> {
    let written = app.get("interpreter").or_else(|| app.get("exec_interpreter"));
    let end = Path::new(script).extension().and_then(|end| end.to_str()).unwrap_or_default();
    let interpreter = match (written.and_then(Node::text), end) {
        (Some("none"), _) => None,
        (Some(program), _) => Some(program),
        (None, "js" | "cjs" | "mjs") => Some("node"),
        (None, "py") => Some("python3"),
        (None, "sh") => Some("bash"),
        (None, "rb") => Some("ruby"),
        (None, "php") => Some("php"),
        (None, "pl") => Some("perl"),
        (None, "ts") => Some("bun"),
        (None, _) => None,
    };
    let mut words = Vec::new();
    if let Some(interpreter) = interpreter {
        words.push(interpreter.to_owned());
        words.extend(split(app.get("node_args").or_else(|| app.get("interpreter_args"))));
        words.push(script.to_owned());
    } else {
        // pm2 allows a whole command where a script is expected.
        words.extend(shell_words::split(script).unwrap_or_else(|_| vec![script.to_owned()]));
    }
    words.extend(split(app.get("args")));
    words
}

/// Takes one key over; `false` where it has no equal.
fn take(job: &mut Job<'_>, draft: &mut Draft, file: usize, app: &Node, entry: &Entry) -> bool {
    let from = &key_origin(entry);
    let text = entry.value.text().unwrap_or_default();
    match entry.key.as_str() {
        "name"
        | "script"
        | "args"
        | "interpreter"
        | "exec_interpreter"
        | "node_args"
        | "interpreter_args"
        | "autorestart"
        | "stop_exit_codes"
        | "max_restarts"
        | "min_uptime"
        | "restart_delay"
        | "exp_backoff_restart_delay"
        | "gid" => {}
        "cwd" => {
            let folder = job.folder(file).join(text);
            if let Some(folder) = job.working_dir(&folder) {
                draft.put("working_dir", escape(&folder), from);
            }
        }
        "env" => {
            for variable in entry.value.entries() {
                if let Some(value) = variable.value.text() {
                    draft.variable(&variable.key, escape(value));
                }
            }
        }
        "instances" => match text.parse::<i64>() {
            Ok(count @ 1..=10_000) => draft.put("replicas", count, from),
            _ => draft.lose(from, format!("`{text}` depends on the machine"), "write `replicas`"),
        },
        "kill_timeout" => match length(text) {
            Some(length) => draft.put("stop_grace_period", length, from),
            None => job.wrong(from, format!("`{text}` is no duration"), ""),
        },
        "max_memory_restart" => match size(text) {
            Some(size) => draft.put("max_memory", size, from),
            None => job.wrong(from, format!("`{text}` is no size"), ""),
        },
        "cron_restart" => draft.lose(
            from,
            "a running service is not restarted at set times",
            "have cron run `wharf restart NAME`",
        ),
        "uid" => {
            let group = app.get("gid").and_then(Node::text);
            let group = group.map(|group| format!(":{group}")).unwrap_or_default();
            job.user(draft, &escape(&format!("{text}{group}")), from);
        }
        "treekill" => {
            if text == "false" {
                draft.put("stop_kill", "process", from);
            }
        }
        "namespace" => draft.put("labels.namespace", escape(text), from),
        _ => return false,
    }
    true
}

/// Milliseconds, or with a unit.
fn length(text: &str) -> Option<String> {
    let with_unit = if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        format!("{text}ms")
    } else {
        text.to_owned()
    };
    parse_duration(&with_unit).ok().map(format_duration)
}

fn restart(draft: &mut Draft, app: &Node, from: &Origin) {
    let text = |key: &str| app.get(key).and_then(Node::text);
    let origin = |key: &str| app.entry(key).map_or(from.clone(), key_origin);
    let codes: Vec<i64> =
        split(app.get("stop_exit_codes")).iter().filter_map(|code| code.parse().ok()).collect();
    let policy = match text("autorestart") {
        Some("false") => "no",
        _ if !codes.is_empty() => "on-failure",
        _ => "always",
    };
    draft.put("restart.policy", policy, from);
    if !codes.is_empty() {
        draft.put("restart.success_exit_codes", codes, &origin("stop_exit_codes"));
    }
    if let Some(count) = text("max_restarts").and_then(|text| text.parse::<u32>().ok()) {
        draft.put("restart.max_restarts", count, &origin("max_restarts"));
    }
    if let Some(length) = text("min_uptime").and_then(length) {
        draft.put("restart.reset_after", length, &origin("min_uptime"));
    }
    for (key, factor) in [("restart_delay", 1.0), ("exp_backoff_restart_delay", 1.5)] {
        if let Some(length) = text(key).filter(|text| *text != "0").and_then(length) {
            draft.put("restart.delay", length, &origin(key));
            draft.put("restart.factor", factor, &origin(key));
        }
    }
    let alone = matches!(draft.get("restart"), Some(Value::Object(map)) if map.len() == 1);
    if alone {
        draft.keys.insert("restart".to_owned(), Value::String(policy.to_owned()));
    }
}
