//! A configuration as services.yaml again: everything filled in, nothing short, secrets masked on
//! request. What is written here can be loaded and means the same.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    Banner, Cgroups, Check, Framing, Group, Healthcheck, Hook, IdPlace, Limits, Listen,
    ListenAddress, Logging, OnGiveUp, OnOom, Port, READY_INTERVAL, READY_TIMEOUT, Readiness, Ready,
    ReadyBy, Replies, Restart, Rights, START_TIMEOUT, Service, Spec, Stop,
};
use crate::time::{format_duration, format_size};

/// Words in the name of a variable that make its value a secret.
const SECRET: &[&str] =
    &["PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "SECRET", "KEY", "CREDENTIAL"];
/// What stands for a secret.
const MASK: &str = "***";

/// The whole of `spec` as YAML. With `mask`, values of environment variables whose names look like
/// that of a secret are written as `***`.
pub fn resolved(spec: &Spec, mask: bool) -> String {
    let mut text = String::new();
    block(&resolved_value(spec, mask), 0, &mut text);
    text
}

/// The same as a value, for those who want JSON.
pub fn resolved_value(spec: &Spec, mask: bool) -> Value {
    let mut services = Map::new();
    for (name, service) in &spec.services {
        services.insert(name.to_string(), written(service, mask));
    }
    let cgroups = match spec.cgroups {
        Cgroups::Auto => "auto",
        Cgroups::Off => "off",
    };
    let mut whole = json!({ "version": 1, "cgroups": cgroups });
    if let Some(metrics) = &spec.metrics {
        whole["metrics"] = json!(metrics);
    }
    if !spec.on_event.is_empty() {
        whole["on_event"] = spec.on_event.iter().map(hook).collect();
    }
    whole["services"] = Value::Object(services);
    if !spec.groups.is_empty() {
        let groups = spec.groups.iter().map(|(name, group)| (name.clone(), self::group(group)));
        whole["groups"] = Value::Object(groups.collect());
    }
    whole
}

/// A service in the keys of services.yaml.
pub(super) fn written(service: &Service, mask: bool) -> Value {
    let mut keys = Map::new();
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("command", json!(service.command));
    put("working_dir", json!(service.working_dir));
    if let Some(user) = &service.user {
        put("user", json!(user));
    }
    if !service.environment.is_empty() {
        let shown = |(name, value): (&String, &String)| {
            let value = if mask && is_secret(name) { MASK } else { value };
            (name.clone(), json!(value))
        };
        put("environment", Value::Object(service.environment.iter().map(shown).collect()));
    }
    put("replicas", json!(service.replicas));
    if !service.listen.is_empty() {
        put("listen", service.listen.iter().map(listen).collect());
    }
    if !service.config_files.is_empty() {
        put("config_files", service.config_files.keys().map(|path| json!(path)).collect());
    }
    if let Some(signal) = &service.reload_signal {
        put("reload_signal", json!(signal));
    }
    if !service.secrets.is_empty() {
        put("secrets", json!(service.secrets));
    }
    if !service.on_event.is_empty() {
        put("on_event", service.on_event.iter().map(hook).collect());
    }
    if !service.depends_on.is_empty() {
        put("depends_on", json!(service.depends_on));
    }
    if !service.profiles.is_empty() {
        put("profiles", json!(service.profiles));
    }
    if let Some(spoken) = &service.port {
        put("port", port(spoken));
    }
    if let Some(ready) = &service.ready {
        put("ready", readiness(ready));
    }
    if let Some(check) = &service.healthcheck {
        put("healthcheck", healthcheck(check));
    }
    if let Some(length) = service.watchdog {
        put("watchdog", json!(format_duration(length)));
    }
    if let Some(size) = service.max_memory {
        put("max_memory", json!(format_size(size)));
    }
    if let Some(length) = service.max_lifetime {
        put("max_lifetime", json!(format_duration(length)));
    }
    put("restart", restart(&service.restart));
    put("start_timeout", json!(format_duration(service.start_timeout)));
    put("stop_signal", json!(service.stop.signal.to_string()));
    put("stop_grace_period", json!(format_duration(service.stop.grace)));
    put("stop_kill", json!(service.stop.kill));
    put("on_manager_exit", json!(service.on_manager_exit));
    put("logging", logging(&service.logging));
    if service.limits != Limits::default() {
        put("limits", limits(&service.limits));
    }
    if let Some(schedule) = &service.schedule {
        put("schedule", json!(schedule));
    }
    rights(&service.rights, |key, value| drop(put(key, value)));
    if !service.labels.is_empty() {
        put("labels", json!(service.labels));
    }
    Value::Object(keys)
}

/// What holds where a service leaves a key out, except for the blocks with keys of their own.
pub(super) fn service_defaults() -> Value {
    let stop = Stop::default();
    json!({
        "shell": false,
        "replicas": 1,
        "restart": Restart::default().policy,
        "start_timeout": format_duration(START_TIMEOUT),
        "stop_signal": stop.signal.to_string(),
        "stop_grace_period": format_duration(stop.grace),
        "stop_kill": stop.kill,
        "on_manager_exit": "die",
        "umask": format!("{:03o}", Rights::default().umask),
        "no_new_privileges": false,
    })
}

/// An element of `listen:`.
fn listen(listen: &Listen) -> Value {
    let mut keys = json!({ "name": listen.name });
    let is_file = match &listen.address {
        ListenAddress::Tcp(address) => {
            keys["tcp"] = json!(address);
            false
        }
        ListenAddress::Udp(address) => {
            keys["udp"] = json!(address);
            false
        }
        ListenAddress::Unix(path) => {
            keys["unix"] = json!(path);
            !path.as_os_str().as_encoded_bytes().starts_with(b"@")
        }
    };
    if !matches!(listen.address, ListenAddress::Udp(_)) {
        keys["backlog"] = json!(listen.backlog);
    }
    if matches!(&listen.address, ListenAddress::Tcp(at) | ListenAddress::Udp(at) if at.is_ipv6()) {
        keys["ipv6_only"] = json!(listen.ipv6_only);
    }
    if is_file {
        keys["mode"] = json!(format!("{:04o}", listen.mode));
        if let Some(owner) = &listen.owner {
            keys["owner"] = json!(owner);
        }
    }
    keys
}

/// An element of `on_event:`.
fn hook(hook: &Hook) -> Value {
    json!({
        "exec": hook.exec,
        "events": hook.events,
        "timeout": format_duration(hook.timeout),
    })
}

/// A `restart:` block.
pub(super) fn restart(restart: &Restart) -> Value {
    json!({
        "policy": restart.policy,
        "delay": format_duration(restart.delay),
        "factor": restart.factor,
        "max_delay": format_duration(restart.max_delay),
        "jitter": restart.jitter,
        "reset_after": format_duration(restart.reset_after),
        "max_restarts": restart.max_restarts,
        "within": format_duration(restart.within),
        "on_give_up": match restart.on_give_up {
            OnGiveUp::Stop => json!("stop"),
            OnGiveUp::Escalate => json!("escalate"),
            OnGiveUp::RetryEvery(length) => json!({ "retry_every": format_duration(length) }),
        },
        "success_exit_codes": restart.success_exit_codes,
        "success_signals": restart.success_signals,
        "never_on": restart.never_on,
    })
}

/// A group in the keys of services.yaml.
pub(super) fn group(group: &Group) -> Value {
    json!({
        "services": group.services,
        "strategy": group.strategy,
        "max_restarts": group.max_restarts,
        "within": format_duration(group.within),
    })
}

/// What holds where a group leaves a key out.
pub(super) fn group_defaults() -> Value {
    let mut keys = group(&Group::default());
    if let Value::Object(keys) = &mut keys {
        keys.remove("services");
    }
    keys
}

/// A `logging:` block.
pub(super) fn logging(logging: &Logging) -> Value {
    json!({
        "max_size": format_size(logging.max_size),
        "max_files": logging.max_files,
        "compress": logging.compress,
        "when_full": logging.when_full,
        "journald": logging.forward.journald.as_deref().map_or(json!(false), |path| json!(path)),
        "syslog": logging.forward.syslog.as_deref().map_or(json!(false), |path| json!(path)),
    })
}

/// A `port:` block.
pub(super) fn port(port: &Port) -> Value {
    let mut keys = json!({
        "channel": port.channel,
        "unbuffer": port.unbuffer,
        "framing": match &port.framing {
            Framing::Counted { header, trailer } => {
                json!({ "counted": { "header": header, "trailer": trailer } })
            }
            Framing::Prompt(pattern) => json!({ "prompt": pattern }),
            word => json!(word.name()),
        },
        "replies": match &port.replies {
            Replies::None => json!("none"),
            Replies::One => json!("one"),
            Replies::Until(pattern) => json!({ "until": pattern }),
            Replies::Sentinel { send, expect } => {
                json!({ "sentinel": { "send": send, "expect": expect } })
            }
            Replies::Id(IdPlace::Pointer(pointer)) => json!({ "id": { "pointer": pointer } }),
            Replies::Id(IdPlace::Offset { offset, kind }) => {
                json!({ "id": { "offset": offset, "type": kind } })
            }
            Replies::Prefix { send, expect } => {
                json!({ "prefix": { "send": send, "expect": expect } })
            }
            Replies::Bracket { begin, end } => {
                json!({ "bracket": { "begin": begin, "end": end } })
            }
            Replies::Sections { longer, error } => {
                let mut keys = json!({ "longer": longer });
                if let (Some(error), Value::Object(keys)) = (error, &mut keys) {
                    keys.insert("error".to_owned(), json!(error));
                }
                json!({ "sections": keys })
            }
            Replies::Envelope => Value::Null,
        },
        "max_frame": format_size(port.max_frame),
        "queue": port.queue,
        "timeout": format_duration(port.timeout),
        "on_protocol_error": port.on_protocol_error,
        "eof": port.eof,
        "eof_grace": format_duration(port.eof_grace),
    });
    let Value::Object(map) = &mut keys else { return keys };
    if port.is_enveloped() {
        // These the protocol says itself.
        map.retain(|key, _| !matches!(key.as_str(), "framing" | "replies"));
        map.insert("protocol".to_owned(), json!(1));
        map.insert("stray".to_owned(), json!(port.stray));
        return keys;
    }
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    if let Some(stray) = &port.stray {
        put("stray", json!(stray));
    }
    match &port.banner {
        Banner::None => None,
        Banner::Messages(count) => put("banner", json!(count)),
        Banner::Until(pattern) => put("banner", json!(pattern)),
    };
    match &port.ready {
        Ready::Banner => None,
        Ready::Started => put("ready", json!("started")),
        Ready::FirstMessage => put("ready", json!("first_message")),
        Ready::Message(pattern) => put("ready", json!({ "message": pattern })),
        Ready::Exchange { send, expect } => {
            put("ready", json!({ "exchange": { "send": send, "expect": expect } }))
        }
    };
    if let Some(handshake) = &port.handshake {
        let mut words = json!({ "begin": handshake.begin, "end": handshake.end });
        if let (Some(done), Value::Object(words)) = (&handshake.done, &mut words) {
            words.insert("done".to_owned(), json!(done));
        }
        put("handshake", words);
    }
    if let Some(quit) = &port.quit {
        put("quit", json!(quit));
    }
    keys
}

/// A `ready:` block. What a port says of being ready stands in its own block.
pub(super) fn readiness(ready: &Readiness) -> Value {
    let mut keys = Map::new();
    match &ready.by {
        ReadyBy::Probe(check) => {
            question(check, &mut keys);
            keys.insert("interval".to_owned(), json!(format_duration(ready.interval)));
        }
        ReadyBy::LogLine(pattern) => drop(keys.insert("log_line".to_owned(), json!(pattern))),
        ReadyBy::Notify => drop(keys.insert("notify".to_owned(), json!("systemd"))),
        ReadyBy::Fd(number) => drop(keys.insert("fd".to_owned(), json!(number))),
        ReadyBy::Port => {}
    }
    keys.insert("timeout".to_owned(), json!(format_duration(ready.timeout)));
    Value::Object(keys)
}

/// A `healthcheck:` block.
pub(super) fn healthcheck(check: &Healthcheck) -> Value {
    let mut keys = Map::new();
    question(&check.by, &mut keys);
    for (key, length) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start_period", check.start_period),
        ("start_interval", check.start_interval),
    ] {
        keys.insert(key.to_owned(), json!(format_duration(length)));
    }
    keys.insert("retries".to_owned(), json!(check.retries));
    keys.insert("on_failure".to_owned(), json!(check.on_failure));
    Value::Object(keys)
}

/// What holds where a `ready:` block leaves a key out.
pub(super) fn ready_defaults() -> Value {
    json!({
        "timeout": format_duration(READY_TIMEOUT),
        "interval": format_duration(READY_INTERVAL),
    })
}

/// What holds where a `healthcheck:` block leaves a key out.
pub(super) fn health_defaults() -> Value {
    let mut keys = healthcheck(&Healthcheck::new(Check::Call(String::new())));
    if let Value::Object(keys) = &mut keys {
        keys.remove("call");
    }
    keys
}

fn question(check: &Check, keys: &mut Map<String, Value>) {
    let (key, value) = match check {
        Check::Http(url) => ("http", json!(url)),
        Check::Tcp(address) => ("tcp", json!(address)),
        Check::Exec(command) => ("exec", json!(command)),
        Check::Call(message) => ("call", json!(message)),
    };
    keys.insert(key.to_owned(), value);
}

fn limits(limits: &Limits) -> Value {
    let mut keys = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        value.map(|value| keys.insert(key.to_owned(), value));
    };
    let size = |bytes: Option<u64>| {
        bytes.map(|bytes| match bytes {
            u64::MAX => json!("unlimited"),
            bytes => json!(format_size(bytes)),
        })
    };
    let number = |number: Option<u64>| number.map(|number| json!(number));
    put("memory", size(limits.memory));
    put("cpus", limits.cpus.map(|cpus| json!(cpus)));
    put("pids", limits.pids.map(|pids| json!(pids)));
    put("on_oom", (limits.on_oom != OnOom::default()).then(|| json!(limits.on_oom)));
    put("required", limits.required.then(|| json!(true)));
    put("core", size(limits.core));
    put("nofile", number(limits.nofile));
    put("nproc", number(limits.nproc));
    put("stack", size(limits.stack));
    put("as", size(limits.address_space));
    put("data", size(limits.data));
    put("fsize", size(limits.fsize));
    put("memlock", size(limits.memlock));
    put("cpu", limits.cpu.map(|cpu| json!(format_duration(cpu))));
    put("msgqueue", size(limits.msgqueue));
    put("sigpending", number(limits.sigpending));
    put("rtprio", number(limits.rtprio));
    Value::Object(keys)
}

/// The identity of a service, key by key.
fn rights(rights: &Rights, mut put: impl FnMut(&str, Value)) {
    let usual = Rights::default();
    if rights.umask != usual.umask {
        put("umask", json!(format!("{:03o}", rights.umask)));
    }
    for (key, number) in [("nice", rights.nice), ("oom_score_adj", rights.oom_score_adj)] {
        if let Some(number) = number {
            put(key, json!(number));
        }
    }
    if !rights.group_add.is_empty() {
        put("group_add", json!(rights.group_add));
    }
    if rights.no_new_privileges {
        put("no_new_privileges", json!(true));
    }
    if !rights.cap_drop.is_empty() {
        put("cap_drop", json!(rights.cap_drop));
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// Maps in block style; everything inside a list in one line.
fn block(value: &Value, depth: usize, out: &mut String) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let _ = write!(out, "{}{}:", "  ".repeat(depth), scalar(key));
        match value {
            Value::Object(below) if below.is_empty() => out.push_str(" {}\n"),
            Value::Object(_) => {
                out.push('\n');
                block(value, depth + 1, out);
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(single).collect();
                let _ = writeln!(out, " [{}]", items.join(", "));
            }
            value => {
                let _ = writeln!(out, " {}", single(value));
            }
        }
    }
}

fn single(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(&text.replace('$', "$$")),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(single).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let entry =
                |(key, value): (&String, &Value)| format!("{}: {}", scalar(key), single(value));
            let entries: Vec<_> = map.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text that every YAML reader takes for that text.
fn scalar(text: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let word = text.to_ascii_lowercase();
    let other = matches!(
        word.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
    );
    if begins && text.chars().all(simple) && !other {
        return text.to_owned();
    }
    quoted(text)
}

/// A text in double quotes, as YAML reads it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fdcf}'
                if !matches!(c, '\u{2028}' | '\u{2029}') =>
            {
                quoted.push(c);
            }
            c if u32::from(c) <= 0xffff => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
