//! One service of a compose file, key by key.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::interpolate::without_environment;
use super::values::{duration, size};
use super::{TABLE, folder_text, host_path};
use crate::exit::Signal;
use crate::import::command::{reference, words};
use crate::import::draft::{Draft, Origin};
use crate::import::job::{Job, asks, key_origin, texts};
use crate::name::ServiceName;
use crate::spec::{Entry, Kind, Node};

/// A service as it is written, its references translated.
pub(super) struct Service {
    file: usize,
    name: String,
    node: Node,
    /// Folders of the container and where they are on this machine.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Service {
    pub(super) fn new(file: usize, name: &str, node: Node) -> Self {
        Self { file, name: name.to_owned(), node, mounts: Vec::new() }
    }

    /// The service; `None` where nothing says what to run, which is then told.
    pub(super) fn draft(&mut self, job: &mut Job<'_>, from: &Origin) -> Option<Draft> {
        let mut draft = Draft::new(self.name.clone(), from.place);
        let command = self.command(job, from)?;
        let at = self.node.entry("command").or_else(|| self.node.entry("entrypoint"));
        draft.put("command", words(&command), &at.map_or(from.clone(), key_origin));
        self.mounts = self.bind_mounts(job);
        for entry in self.node.clone().entries() {
            if !self.take(job, &mut draft, entry) && asks(entry) {
                draft.lose_by(TABLE, &key_origin(entry));
            }
        }
        if draft.get("restart").is_none() {
            draft.put("restart", "no", from);
        }
        if draft.get("working_dir").is_none()
            && let Some(folder) = folder_text(job, &self.home(job))
        {
            draft.put("working_dir", folder, from);
        }
        Some(draft)
    }

    /// The program and its arguments.
    fn command(&self, job: &mut Job<'_>, from: &Origin) -> Option<Vec<String>> {
        let mut parts = Vec::new();
        for key in ["entrypoint", "command"] {
            let Some(entry) = self.node.entry(key) else { continue };
            let read = match &entry.value.kind {
                Kind::Null => Ok(Vec::new()),
                Kind::Scalar { text, .. } => {
                    shell_words::split(text).map_err(|_| "a quote is opened and not closed")
                }
                _ => texts(&entry.value)
                    .map(|list| list.into_iter().map(|(text, _)| text).collect())
                    .ok_or("expected a text or a list of texts"),
            };
            match read {
                Ok(words) => parts.extend(words),
                Err(message) => {
                    job.wrong(&key_origin(entry), message, "");
                    return None;
                }
            }
        }
        let image = self.node.get("image").and_then(Node::text).unwrap_or("an image");
        let (why, instead) = if parts.is_empty() {
            let instead = "install it and write its command here";
            match self.node.get("build") {
                Some(_) => ("its program is named in a Dockerfile alone".to_owned(), instead),
                None => (format!("its program is inside {image}, which needs an engine"), instead),
            }
        } else if parts[0].starts_with('-') {
            let why = format!("its command is arguments for a program inside {image}");
            (why, "install it and write the whole command here")
        } else {
            return Some(parts);
        };
        job.lose(from, format!("the service is left out: {why}"), instead);
        None
    }

    /// The folder where the service's files are on this machine.
    fn home(&self, job: &Job<'_>) -> PathBuf {
        let build = self.node.get("build");
        let context = build.and_then(|build| build.text().or_else(|| build.get("context")?.text()));
        match context {
            Some(context) if !context.contains("://") => host_path(job, self.file, context),
            _ => job.folder(self.file),
        }
    }

    fn bind_mounts(&self, job: &Job<'_>) -> Vec<(PathBuf, PathBuf)> {
        let Some(Kind::List(items)) = self.node.get("volumes").map(|node| &node.kind) else {
            return Vec::new();
        };
        let mut mounts = Vec::new();
        for item in items {
            let pair = match (item.text(), item.get("source"), item.get("target")) {
                (Some(text), ..) => {
                    let text = without_environment(text);
                    let mut parts = text.split(':');
                    (parts.next().map(str::to_owned), parts.next().map(str::to_owned))
                }
                (None, Some(source), Some(target)) => {
                    let text = |node: &Node| node.text().map(without_environment);
                    (text(source), text(target))
                }
                _ => (None, None),
            };
            if let (Some(source), Some(target)) = pair
                && source.starts_with(['.', '/'])
            {
                mounts.push((PathBuf::from(target), host_path(job, self.file, &source)));
            }
        }
        // The innermost mount counts.
        mounts.sort_by_key(|(target, _)| std::cmp::Reverse(target.components().count()));
        mounts
    }

    /// Takes one key over; `false` where it has no equal.
    fn take(&self, job: &mut Job<'_>, draft: &mut Draft, entry: &Entry) -> bool {
        let from = &key_origin(entry);
        let value = &entry.value;
        match entry.key.as_str() {
            "command" | "entrypoint" | "extends" => {}
            "image" => draft.note(
                from,
                format!(
                    "the program is taken from this machine, not from {}",
                    without_environment(value.text().unwrap_or("the image"))
                ),
            ),
            "environment" => environment(job, draft, value, from),
            "env_file" => self.env_file(job, draft, value, from),
            "working_dir" => self.working_dir(job, draft, value, from),
            "volumes" => volumes(draft, value, from),
            "user" => job.user(draft, value.text().unwrap_or_default(), from),
            "restart" => restart(job, draft, value, from),
            "depends_on" => depends_on(job, draft, value, from),
            "links" => links(draft, value, from),
            "healthcheck" => healthcheck(job, draft, value, from),
            "stop_signal" => signal(job, draft, value, from),
            "stop_grace_period" => length(job, draft, "stop_grace_period", value, from),
            "scale" => text_number(job, draft, "replicas", value, from),
            "deploy" => deploy(job, draft, value, from),
            "ulimits" => ulimits(job, draft, value, from),
            "mem_limit" => bytes(job, draft, "limits.memory", value, from),
            "cpus" => text_number(job, draft, "limits.cpus", value, from),
            "pids_limit" => text_number(job, draft, "limits.pids", value, from),
            "oom_score_adj" => text_number(job, draft, "oom_score_adj", value, from),
            "group_add" => list(job, draft, "group_add", value, from),
            "cap_drop" => list(job, draft, "cap_drop", value, from),
            "security_opt" => security(draft, value, from),
            "profiles" => {
                list(job, draft, "profiles", value, from);
                if !job.works("profiles") {
                    draft.hold(from, "it is started only when one of its profiles is chosen");
                }
            }
            "labels" => labels(job, draft, value, from),
            "logging" => logging(draft, value, from),
            "secrets" => secrets(job, draft, value, from),
            _ => return false,
        }
        true
    }

    fn env_file(&self, job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
        let items: Vec<Node> = match &value.kind {
            Kind::List(items) => items.clone(),
            _ => vec![value.clone()],
        };
        // A later file counts more than an earlier one, and copying keeps what is there.
        for item in items.iter().rev() {
            let path = item.text().or_else(|| item.get("path")?.text());
            let Some(path) = path else {
                return job.wrong(from, "expected the path of a file", "");
            };
            let needed = item.get("required").and_then(Node::text) != Some("false");
            let path = host_path(job, self.file, path);
            if !job.env_file(draft, &path, needed, from) && needed {
                let shown = job.shown(&path);
                draft.lose(from, format!("there is no file {shown}"), "write its variables here");
            }
        }
    }

    fn working_dir(&self, job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
        let Some(text) = value.text() else { return job.wrong(from, "expected a path", "") };
        let inside = PathBuf::from(without_environment(text));
        for (target, source) in &self.mounts {
            if let Ok(below) = inside.strip_prefix(target) {
                let folder = source.join(below);
                draft.note(from, format!("{} is {} here", inside.display(), job.shown(&folder)));
                if let Some(folder) = folder_text(job, &folder) {
                    draft.put("working_dir", folder, from);
                }
                return;
            }
        }
        if self.node.get("image").is_none() && self.node.get("build").is_none() {
            return draft.put("working_dir", text, from);
        }
        let home = job.shown(&self.home(job));
        let home = if home == "." { "the folder of services.yaml".to_owned() } else { home };
        draft.lose(
            from,
            format!("{} is a folder of the image; it runs in {home}", inside.display()),
            "",
        );
    }
}

/// A number, which may still be a reference.
fn text_number(job: &mut Job<'_>, draft: &mut Draft, path: &str, value: &Node, from: &Origin) {
    let Some(text) = value.text() else { return job.wrong(from, "expected a number", "") };
    let plain = without_environment(text);
    let number = plain.parse::<i64>().map(Value::from).ok();
    let number = number.or_else(|| {
        let number = plain.parse::<f64>().ok().and_then(serde_json::Number::from_f64)?;
        Some(Value::Number(number))
    });
    match number {
        Some(number) if text == plain => draft.put(path, number, from),
        Some(_) => draft.put(path, text, from),
        None => job.wrong(from, format!("`{plain}` is no number"), ""),
    }
}

fn bytes(job: &mut Job<'_>, draft: &mut Draft, path: &str, value: &Node, from: &Origin) {
    let plain = value.text().map(without_environment).unwrap_or_default();
    match size(&plain) {
        Some(size) => draft.put(path, size, from),
        None => job.wrong(from, format!("`{plain}` is no size"), "write 512m"),
    }
}

fn length(job: &mut Job<'_>, draft: &mut Draft, path: &str, value: &Node, from: &Origin) {
    let plain = value.text().map(without_environment).unwrap_or_default();
    match duration(&plain) {
        Some(length) => draft.put(path, length, from),
        None => job.wrong(from, format!("`{plain}` is no duration"), "write 1m30s"),
    }
}

fn list(job: &mut Job<'_>, draft: &mut Draft, path: &str, value: &Node, from: &Origin) {
    match texts(value) {
        Some(items) => {
            let items: Vec<_> = items.into_iter().map(|(text, _)| text).collect();
            draft.put(path, items, from);
        }
        None => job.wrong(from, "expected a list of texts", ""),
    }
}

fn signal(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let plain = value.text().map(without_environment).unwrap_or_default();
    match plain.parse::<Signal>() {
        Ok(signal) => draft.put("stop_signal", signal.to_string(), from),
        Err(error) => job.wrong(from, error.to_string(), ""),
    }
}

/// A map of names, or a list of `NAME=value`.
fn pairs(value: &Node) -> Option<Vec<(String, Option<String>)>> {
    match &value.kind {
        Kind::Map(entries) => entries
            .iter()
            .map(|entry| match &entry.value.kind {
                Kind::Null => Some((entry.key.clone(), None)),
                _ => Some((entry.key.clone(), Some(entry.value.text()?.to_owned()))),
            })
            .collect(),
        Kind::List(items) => items
            .iter()
            .map(|item| {
                let text = item.text()?;
                Some(match text.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (text.to_owned(), None),
                })
            })
            .collect(),
        Kind::Null => Some(Vec::new()),
        _ => None,
    }
}

pub(in crate::import) fn environment(
    job: &mut Job<'_>,
    draft: &mut Draft,
    value: &Node,
    from: &Origin,
) {
    let Some(pairs) = pairs(value) else {
        return job.wrong(from, "expected variables by name, or a list of NAME=value", "");
    };
    for (name, value) in pairs {
        if name.is_empty() || name.contains('$') {
            job.wrong(from, format!("`{name}` is no name of a variable"), "");
            continue;
        }
        if let Some(value) = value {
            draft.variable(&name, value);
        } else {
            draft.variable(&name, reference(&name, "").unwrap_or_default());
            draft.note(from, format!("${name} is taken from the environment of `wharf up`"));
        }
    }
}

fn volumes(draft: &mut Draft, value: &Node, from: &Origin) {
    if let Kind::List(items) = &value.kind
        && !items.is_empty()
    {
        draft.lose(
            from,
            "nothing is mounted: the program sees this machine's folders",
            "give it the paths of this machine",
        );
    }
}

fn restart(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let plain = value.text().map(without_environment).unwrap_or_default();
    let (word, count) = plain.split_once(':').map_or((&*plain, None), |(w, c)| (w, Some(c)));
    match (word, count.map(str::parse::<u32>)) {
        ("no" | "false" | "", None) => draft.put("restart", "no", from),
        ("always" | "on-failure" | "unless-stopped", None) => draft.put("restart", word, from),
        ("on-failure", Some(Ok(count))) => {
            draft.put("restart.policy", word, from);
            draft.put("restart.max_restarts", count, from);
        }
        _ => job.wrong(
            from,
            format!("`{plain}` is none of no, always, on-failure, on-failure:N, unless-stopped"),
            "",
        ),
    }
}

fn depends_on(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let mut needed = Map::new();
    match &value.kind {
        Kind::List(_) => {
            for (name, _) in texts(value).unwrap_or_default() {
                needed.insert(name, json!({ "condition": "service_started" }));
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                let text = |key: &str| entry.value.get(key).and_then(Node::text);
                let condition = text("condition").unwrap_or("service_started");
                let mut keys = Map::new();
                keys.insert("condition".to_owned(), json!(condition));
                for key in ["restart", "required"] {
                    if let Some(word) = text(key) {
                        keys.insert(key.to_owned(), json!(word == "true"));
                    }
                }
                needed.insert(entry.key.clone(), Value::Object(keys));
            }
        }
        _ => return job.wrong(from, "expected a list of services or a map", ""),
    }
    if !needed.is_empty() {
        draft.put("depends_on", Value::Object(needed), from);
    }
}

fn links(draft: &mut Draft, value: &Node, from: &Origin) {
    for (link, _) in texts(value).unwrap_or_default() {
        let name = link.split(':').next().unwrap_or_default();
        if draft.get("depends_on").and_then(|map| map.get(name)).is_none() {
            draft.put(
                &format!("depends_on.{name}"),
                json!({ "condition": "service_started" }),
                from,
            );
        }
        draft.origins.insert("depends_on".to_owned(), from.clone());
    }
    draft.lose(from, "a service's name is no name of a host here", "reach it as 127.0.0.1");
}

fn healthcheck(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    if value.get("disable").and_then(Node::text) == Some("true") {
        return;
    }
    let none = |test: &Node| match &test.kind {
        Kind::List(items) => items.first().and_then(Node::text) == Some("NONE"),
        _ => false,
    };
    match value.get("test") {
        Some(test) if none(test) => return,
        Some(_) => {}
        None => {
            let why = "what the image asks of itself is not known here";
            return draft.lose(from, why, "write the command as `exec`");
        }
    }
    for entry in value.entries() {
        let origin = Origin::new(format!("healthcheck.{}", entry.key), entry.place);
        let path = format!("healthcheck.{}", entry.key);
        match entry.key.as_str() {
            "test" => {
                let Some(test) = texts(&entry.value) else {
                    return job.wrong(&origin, "expected a text or a list of texts", "");
                };
                let mut test: Vec<_> = test.into_iter().map(|(text, _)| text).collect();
                let listed = matches!(entry.value.kind, Kind::List(_));
                match test.first().map(String::as_str) {
                    Some("CMD") if listed => drop(test.remove(0)),
                    _ => {
                        let line = test.pop().unwrap_or_default();
                        test = vec!["/bin/sh".to_owned(), "-c".to_owned(), line];
                    }
                }
                draft.put("healthcheck.exec", test, from);
            }
            "interval" | "timeout" | "start_period" | "start_interval" => {
                length(job, draft, &path, &entry.value, &origin);
            }
            "retries" => text_number(job, draft, &path, &entry.value, &origin),
            "disable" => {}
            key if key.starts_with("x-") => {}
            _ => draft.lose_by(TABLE, &origin),
        }
    }
    // For docker compose health is something to look at.
    draft.put("healthcheck.on_failure", "report", from);
    // One word about all of it is enough.
    draft.origins.retain(|path, _| !path.starts_with("healthcheck."));
    draft.origins.insert("healthcheck".to_owned(), from.clone());
}

fn deploy(job: &mut Job<'_>, draft: &mut Draft, value: &Node, _from: &Origin) {
    for entry in value.entries() {
        let from = Origin::new(format!("deploy.{}", entry.key), entry.place);
        match entry.key.as_str() {
            "replicas" => text_number(job, draft, "replicas", &entry.value, &from),
            "resources" => {
                for kind in entry.value.entries() {
                    resources(job, draft, kind);
                }
            }
            "restart_policy" => restart_policy(job, draft, &entry.value, &from),
            "labels" => labels(job, draft, &entry.value, &from),
            "mode" if entry.value.text() == Some("replicated") => {}
            key if key.starts_with("x-") => {}
            _ => draft.lose(&from, "there is one machine and nothing to place or roll out", ""),
        }
    }
}

fn resources(job: &mut Job<'_>, draft: &mut Draft, kind: &Entry) {
    if kind.key != "limits" {
        let from = Origin::new(format!("deploy.resources.{}", kind.key), kind.place);
        return draft.lose(&from, "nothing is reserved", "");
    }
    for limit in kind.value.entries() {
        let from = Origin::new(format!("deploy.resources.limits.{}", limit.key), limit.place);
        match limit.key.as_str() {
            "cpus" => text_number(job, draft, "limits.cpus", &limit.value, &from),
            "memory" => bytes(job, draft, "limits.memory", &limit.value, &from),
            "pids" => text_number(job, draft, "limits.pids", &limit.value, &from),
            _ => draft.lose(&from, "there is no such limit", ""),
        }
    }
}

fn restart_policy(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let mut policy = "always";
    for entry in value.entries() {
        let from = Origin::new(format!("deploy.restart_policy.{}", entry.key), entry.place);
        match (entry.key.as_str(), entry.value.text()) {
            ("condition", Some("none")) => policy = "no",
            ("condition", Some("on-failure")) => policy = "on-failure",
            ("condition", _) => {}
            ("delay", _) => length(job, draft, "restart.delay", &entry.value, &from),
            ("max_attempts", _) => {
                text_number(job, draft, "restart.max_restarts", &entry.value, &from);
            }
            ("window", _) => length(job, draft, "restart.within", &entry.value, &from),
            _ => draft.lose_by(TABLE, &from),
        }
    }
    draft.put("restart.policy", policy, from);
}

fn ulimits(job: &mut Job<'_>, draft: &mut Draft, value: &Node, _from: &Origin) {
    for entry in value.entries() {
        let from = Origin::new(format!("ulimits.{}", entry.key), entry.place);
        let hard = entry.value.get("hard").unwrap_or(&entry.value);
        match entry.key.as_str() {
            "nofile" => text_number(job, draft, "limits.nofile", hard, &from),
            "core" | "stack" | "as" | "data" | "fsize" | "memlock" | "msgqueue" => {
                let path = format!("limits.{}", entry.key);
                if hard.text() == Some("-1") {
                    draft.put(&path, "unlimited", &from);
                } else {
                    text_number(job, draft, &path, hard, &from);
                }
            }
            "nproc" | "sigpending" | "rtprio" | "cpu" if hard.text() == Some("-1") => {}
            "nproc" | "sigpending" | "rtprio" => {
                text_number(job, draft, &format!("limits.{}", entry.key), hard, &from);
            }
            "cpu" if hard.text().is_some_and(|text| text.parse::<u64>().is_ok()) => {
                draft.put("limits.cpu", format!("{}s", hard.text().unwrap_or_default()), &from);
            }
            _ => {
                draft.lose(&from, "there is no such limit", "set it before `wharf up` with ulimit");
            }
        }
    }
}

fn security(draft: &mut Draft, value: &Node, from: &Origin) {
    for (option, _) in texts(value).unwrap_or_default() {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => {
                draft.put("no_new_privileges", true, from);
            }
            other => draft.lose(from, format!("`{other}` is not set"), ""),
        }
    }
}

fn labels(job: &mut Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let Some(pairs) = pairs(value) else {
        return job.wrong(from, "expected labels by name, or a list of NAME=value", "");
    };
    let map = draft.keys.entry("labels").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(map) = map {
        for (name, value) in pairs {
            map.insert(name, Value::String(value.unwrap_or_default()));
        }
    }
}

fn logging(draft: &mut Draft, value: &Node, from: &Origin) {
    let driver = value.get("driver").and_then(Node::text).unwrap_or("json-file");
    if !matches!(driver, "json-file" | "local") {
        return draft.lose(
            from,
            format!("the driver `{driver}` is not used: output is kept in .wharf/log"),
            "read it with `wharf logs NAME`",
        );
    }
    let option = |key: &str| {
        let text = value.get("options")?.get(key)?.text()?;
        Some(without_environment(text))
    };
    if let Some(size) = option("max-size").and_then(|text| size(&text)) {
        draft.put("logging.max_size", size, from);
    }
    if let Some(files) = option("max-file").and_then(|text| text.parse::<u32>().ok()) {
        draft.put("logging.max_files", files.saturating_sub(1).min(1000), from);
    }
    if let Some(word) = option("compress") {
        draft.put("logging.compress", word == "true", from);
    }
}

fn secrets(job: &Job<'_>, draft: &mut Draft, value: &Node, from: &Origin) {
    let Kind::List(items) = &value.kind else { return };
    let names = items.iter().filter_map(|item| item.text().or_else(|| item.get("source")?.text()));
    let mut known = Vec::new();
    for name in names {
        match job.secret(name).filter(|_| ServiceName::new(name).is_ok()) {
            Some(secret) if !known.contains(&secret) => known.push(secret),
            Some(_) => {}
            None => draft.lose(
                from,
                format!("no file is known for the secret `{name}`"),
                "put it into a file and name that in `secrets:` of the service",
            ),
        }
    }
    if !known.is_empty() {
        draft.put("secrets", known, from);
        draft
            .note(from, "secrets are files whose paths are in `NAME_FILE`, not below /run/secrets");
    }
}
