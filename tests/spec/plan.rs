//! What a reload would change, and that no field of a service is forgotten.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wharf::name::ServiceName;
use wharf::spec::{self, ChangeKind, Effect, Metrics, Service, Spec};

use super::{environment, load};

#[test]
fn a_reload_plan_says_what_each_change_takes() {
    let old = load(
        "services:\n  web: { command: a, environment: { RUST_LOG: info } }\n  \
         same: { command: s }\n  slow: { command: s }\n  old: { command: o }\n",
    );
    let mut new = old.clone();
    new.files.clear();
    let gone = new.services.pop().unwrap().1;
    new.services.insert("new".parse().unwrap(), gone);
    let web = Arc::make_mut(&mut new.services[0]);
    web.command.push("b".into());
    web.environment.insert("RUST_LOG".into(), "debug".into());
    let slow = Arc::make_mut(&mut new.services[2]);
    slow.restart.delay = Duration::from_secs(9);
    slow.replicas = 4;
    let plan: Vec<_> = spec::diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        plan,
        [
            "web: restart (command, environment.RUST_LOG)",
            "same: unchanged",
            "slow: live (replicas, restart.delay)",
            "new: added",
            "old: removed"
        ]
    );
    new.cgroups = spec::Cgroups::Off;
    assert_eq!(spec::diff(&old, &new)[1].to_string(), "same: restart (cgroups)");
    let json = serde_json::to_value(&spec::diff(&old, &new)[2]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "service": "slow", "change": "changed",
            "fields": ["cgroups", "replicas", "restart.delay"], "effect": "restart" })
    );
}

/// A service is never restarted for it, and the plan says so all the same.
#[test]
fn where_metrics_are_scraped_is_the_managers_own() {
    let old = load("metrics: { listen: 'localhost:9464' }\nservices: { web: { command: x } }");
    assert_eq!(old.metrics.unwrap().listen.to_string(), "127.0.0.1:9464");
    let mut new = old.clone();
    assert_eq!(spec::differing_around(&old, &new), [""; 0]);
    new.metrics = Some(Metrics { listen: "[::1]:9464".parse().unwrap(), allow_remote: true });
    assert_eq!(spec::differing_around(&old, &new), ["metrics.allow_remote", "metrics.listen"]);
    assert_eq!(spec::diff(&old, &new)[0].to_string(), "web: unchanged");
    new.metrics = None;
    assert_eq!(spec::differing_around(&old, &new), ["metrics"]);
    // What an earlier version wrote down has no such key.
    let mut earlier = serde_json::to_value(&new).unwrap();
    assert!(earlier.as_object_mut().unwrap().remove("metrics").is_none());
    assert_eq!(serde_json::from_value::<Spec>(earlier).unwrap(), new);
}

#[test]
fn what_stands_in_a_file_is_told_from_which_files_count() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    write("web.conf", "one");
    let load = |keys: &str| {
        write("services.yaml", &format!("services: {{ web: {{ command: x, {keys} }} }}"));
        spec::load(&[folder.path().join("services.yaml")], &environment).unwrap()
    };
    let change = |old: &Spec, new: &Spec| match spec::diff(old, new).remove(0).kind {
        ChangeKind::Unchanged => "unchanged".to_owned(),
        kind @ ChangeKind::Changed { .. } => {
            let told = spec::Change { service: ServiceName::new("web").unwrap(), kind }.to_string();
            told.replace(&folder.path().display().to_string(), "")
        }
        other => panic!("{other:?}"),
    };
    let plain = "config_files: [web.conf, conf.d]";
    let told = "config_files: [web.conf, conf.d], reload_signal: HUP";
    let old = load(told).spec;
    assert_eq!(change(&old, &load(told).spec), "unchanged");
    let both = "config_files[/conf.d], config_files[/web.conf]";
    assert_eq!(change(&load("").spec, &load(plain).spec), format!("web: live ({both})"));
    assert_eq!(change(&old, &load(plain).spec), "web: live (reload_signal)");
    write("web.conf", "two");
    assert_eq!(change(&old, &load(told).spec), "web: signal SIGHUP (config_files[/web.conf])");
    assert_eq!(
        change(&old, &load(plain).spec),
        "web: restart (config_files[/web.conf], reload_signal)",
    );
    assert_eq!(
        change(&old, &load(&format!("{told}, nice: 1")).spec),
        "web: restart (config_files[/web.conf], nice)",
    );
    assert_eq!(
        change(&old, &load(&format!("{told}, labels: {{ a: b }}")).spec),
        "web: signal SIGHUP (config_files[/web.conf], labels.a)",
    );
    write("web.conf", "one");
    fs::create_dir(folder.path().join("conf.d/below")).unwrap();
    for (file, counts) in
        [("conf.d/a", true), ("conf.d/below/b", true), ("conf.d/.c", false), ("conf.d/d~", false)]
    {
        let before = load(told).spec;
        write(file, "text");
        let expected = format!("web: signal SIGHUP (config_files[/{file}])");
        let expected = if counts { expected } else { "unchanged".to_owned() };
        assert_eq!(change(&before, &load(told).spec), expected);
    }
    // What is not there counts by its absence, and is warned of.
    fs::remove_file(folder.path().join("web.conf")).unwrap();
    let gone = load(told);
    assert_eq!(change(&old, &gone.spec).matches("web.conf").count(), 1);
    assert!(gone.warnings.iter().any(|warning| warning.message.contains("it is not there")));
    let idle = load("reload_signal: HUP");
    assert!(idle.warnings.iter().any(|warning| warning.path.ends_with("reload_signal")));
    // A configuration that was written down before there were such keys is still understood.
    let mut value = serde_json::to_value(&*old.services[0]).unwrap();
    value.as_object_mut().unwrap().retain(|key, _| key != "config_files" && key != "reload_signal");
    let earlier: Service = serde_json::from_value(value).unwrap();
    assert!(earlier.config_files.is_empty() && earlier.reload_signal.is_none());
    assert_eq!(spec::fingerprint(&earlier), spec::fingerprint(&old.services[0]));
    assert_ne!(spec::contents_number(&earlier), spec::contents_number(&old.services[0]));
}

/// Every field of a service, one after the other, is changed in the serialised form; the plan must
/// name that field and no other. A field that is added later is found here by itself.
#[test]
fn every_field_of_a_service_shows_in_the_plan() {
    let text = "services: { web: { command: x, user: app, environment: { A: a }, labels: { l: m }, \
                listen: [{ name: a, unix: /run/a }], secrets: [{ name: s, file: /dev/null }], \
                on_event: { exec: x }, reload_signal: HUP, \
                limits: { memory: 1GiB, cpus: 1.5, pids: 9, on_oom: continue, required: true, core: 0, \
                nofile: 64, nproc: 9, stack: 1MiB, as: 1GiB, data: 1GiB, fsize: 1GiB, memlock: 64KiB, \
                cpu: 9s, msgqueue: 64KiB, sigpending: 9, rtprio: 9 }, umask: '027', nice: 5, \
                oom_score_adj: 500, group_add: [staff], no_new_privileges: true, cap_drop: [ALL], \
                logging: { journald: true, syslog: true }, port: { quit: q, stray: kill, banner: b, \
                ready: { message: m }, framing: { counted: { header: '(1)', trailer: t } }, replies: { sentinel: { send: '{token}', expect: '{token}' } } }, \
                ready: { timeout: 5s }, healthcheck: { call: h }, watchdog: 5s, max_memory: 5, max_lifetime: 5s, \
                restart: { on_give_up: { retry_every: 1s }, success_signals: [TERM] }, profiles: [dev], \
                depends_on: { db: { condition: service_healthy } } }, db: { command: y } }";
    let old = load(text);
    let whole = serde_json::to_value(&*old.services[0]).unwrap();
    let mut leaves = Vec::new();
    pointers(&whole, "", &mut leaves);
    let mut live = Vec::new();
    for pointer in leaves.iter().filter(|pointer| *pointer != "/name") {
        let changed = changed_at(&whole, pointer);
        let mut new = old.clone();
        new.services[0] = Arc::new(changed);
        let field = pointer[1..].replace('/', ".");
        let change = spec::diff(&old, &new).remove(0);
        let ChangeKind::Changed { fields, effect, .. } = change.kind else { panic!("{field}") };
        assert_eq!(fields, [field.as_str()]);
        if effect == Effect::Live {
            live.push(field);
        }
    }
    assert!(leaves.len() >= 40, "{leaves:?}");
    let blocks = ["restart.", "stop.", "logging.", "labels.", "healthcheck.", "depends_on."];
    live.retain(|field| !blocks.iter().any(|block| field.starts_with(block)));
    let asked = ["ready.timeout", "ready.interval", "max_memory", "max_lifetime", "start_timeout"];
    assert_eq!(
        live,
        [&["reload_signal", "on_event", "replicas", "profiles", "port.timeout"], &asked[..]]
            .concat()
    );
}

fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, &format!("{path}/{key}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

/// The service with another value at `pointer`, of whatever kind fits there.
fn changed_at(whole: &Value, pointer: &str) -> Service {
    let words = [
        "7s",
        "SIGINT",
        "always",
        "group",
        "block",
        "stop",
        "ignored",
        "pty",
        "drop",
        "keep",
        "kill",
        "report",
        "notify",
        "service_started",
        "another",
    ];
    let before: Service = serde_json::from_value(whole.clone()).unwrap();
    words
        .into_iter()
        .map(Value::from)
        .chain([
            7.into(),
            0.5.into(),
            false.into(),
            true.into(),
            serde_json::json!([]),
            Value::Null,
        ])
        .chain([serde_json::json!({ "number": 2, "name": "SIGINT" })])
        .find_map(|value| {
            let mut whole = whole.clone();
            let old = std::mem::replace(whole.pointer_mut(pointer).unwrap(), value);
            let same_kind = whole.pointer(pointer).map(std::mem::discriminant)
                == Some(std::mem::discriminant(&old));
            let after: Service = serde_json::from_value(whole).ok().filter(|_| same_kind)?;
            (after != before).then_some(after)
        })
        .unwrap_or_else(|| panic!("nothing else fits at {pointer}"))
}
