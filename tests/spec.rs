//! services.yaml from the outside: what is refused and with which words, what is meant, what a
//! reload would change, and that a configuration survives being written out.
//!
//! `WHARF_BLESS=1` rewrites the expected texts; a difference is then seen in review.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data should stop")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use wharf::exit::{Reason, Signal};
use wharf::name::ServiceName;
use wharf::spec::{
    self, Banner, Capability, Cgroups, ChangeKind, Channel, Check, Condition, Dependency, Effect,
    Eof, Forward, Framing, Group, Handshake, HealthFailure, Healthcheck, IdPlace, KillScope,
    Limits, Loaded, Logging, Longer, Metrics, Missed, OnGiveUp, OnManagerExit, OnOom,
    OnProtocolError, Overlap, PacketWidth, Policy, Port, READY_INTERVAL, Readiness, Ready, ReadyBy,
    Replies, Restart, Rhythm, Rights, Schedule, Service, SignalName, Spec, Stop, Stray, Unbuffer,
    WhenFull,
};

fn environment(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("db.example".to_owned()),
        "EMPTY" => Some(String::new()),
        "REPLICAS" => Some("3".to_owned()),
        _ => None,
    }
}

/// Compares with a committed file, or writes it.
fn compare(path: &Path, text: &str) {
    if std::env::var_os("WHARF_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(text == expected, "{} is not as expected; it is\n{text}", path.display());
}

/// Loads files with these texts from a folder of their own.
fn load_all(texts: &[&str]) -> Result<Loaded, spec::Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        files.push(folder.path().join(format!("{at}.yaml")));
        fs::write(&files[at], text).unwrap();
    }
    spec::load(&files, &environment)
}

fn load(text: &str) -> Spec {
    load_all(&[text]).unwrap_or_else(|mistakes| panic!("{mistakes}")).spec
}

fn service(text: &str) -> Service {
    (**load(text).services.values().next().unwrap()).clone()
}

/// A service `web` with these keys beside a command.
fn web(keys: &str) -> Service {
    service(&format!("services:\n  web: {{ command: ./server, {keys} }}\n"))
}

#[test]
fn every_bad_file_is_refused_with_its_words() {
    let mut folders: Vec<PathBuf> =
        fs::read_dir("tests/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 50);
    for folder in folders {
        let refused = spec::load(&[folder.join("services.yaml")], &environment)
            .expect_err(&folder.display().to_string());
        compare(&folder.join("mistakes.txt"), &format!("{refused}\n"));
    }
}

#[test]
fn schemas_are_those_committed() {
    for (path, schema) in [
        ("services.schema.json", spec::schema()),
        ("ports/port.schema.json", spec::profile_schema()),
    ] {
        compare(Path::new(path), &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
    }
}

#[test]
fn what_is_left_out_has_the_documented_values() {
    let web = service("services: { web: { command: ./server --port 8080 } }");
    assert_eq!(web.command, ["./server", "--port", "8080"]);
    assert_eq!(web.replicas, 1);
    assert_eq!(web.port, None);
    assert_eq!(web.restart, spec::Restart::default());
    assert_eq!(web.stop, spec::Stop::default());
    assert_eq!(web.logging, spec::Logging::default());
    assert_eq!(web.start_timeout, spec::START_TIMEOUT);
    assert!(web.working_dir.is_absolute() && web.environment.is_empty());
}

#[test]
fn a_command_is_a_list_a_line_or_a_shell_line() {
    for (keys, words) in [
        ("command: [sleep, 5, yes, 0x10, ~/a]", vec!["sleep", "5", "yes", "0x10", "~/a"]),
        ("command: sh -c 'echo \"a b\"' x\\ y", vec!["sh", "-c", "echo \"a b\"", "x y"]),
        ("{ command: 'a | b > c', shell: true }", vec!["/bin/sh", "-c", "a | b > c"]),
        ("{ command: [a, '$HOME', '$${HOST}'], shell: false }", vec!["a", "$HOME", "${HOST}"]),
    ] {
        let body = if keys.starts_with('{') { keys.to_owned() } else { format!("{{ {keys} }}") };
        assert_eq!(service(&format!("services: {{ web: {body} }}")).command, words, "{keys}");
    }
}

#[test]
fn restart_is_written_in_many_ways() {
    for (word, policy) in [
        ("no", Policy::No),
        ("'no'", Policy::No),
        ("false", Policy::No),
        ("always", Policy::Always),
        ("on-failure", Policy::OnFailure),
        ("on_failure", Policy::OnFailure),
        ("unless-stopped", Policy::UnlessStopped),
        ("{ policy: always }", Policy::Always),
        ("{ policy: false }", Policy::No),
        ("{ max_restarts: 3 }", Policy::OnFailure),
    ] {
        assert_eq!(web(&format!("restart: {word}")).restart.policy, policy, "{word}");
    }
}

#[test]
fn values_are_read_as_they_are_meant() {
    let web = web("environment: { A: 1, B: yes, C: 007, D: '', HOST: , E: 'x${HOST}', x-F: f }, \
         labels: { team: core, x-y: 1.0 }, user: 1000, replicas: \"${REPLICAS}\", x-mine: [], \
         limits: { core: unlimited, nofile: 4096 }, logging: { max_size: 65536 }, \
         on_manager_exit: keep, stop_signal: int");
    assert!(web.is_kept());
    let environment: Vec<_> = web.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        environment,
        ["A=1", "B=yes", "C=007", "D=", "E=xdb.example", "HOST=db.example", "x-F=f"]
    );
    assert_eq!(web.labels["x-y"], "1.0");
    assert_eq!(web.user.as_deref(), Some("1000"));
    assert_eq!(web.replicas, 3);
    assert_eq!((web.limits.core, web.limits.nofile), (Some(u64::MAX), Some(4096)));
    assert_eq!(web.logging.max_size, 65536);
    assert_eq!(web.stop.signal.number(), 2);
}

#[test]
fn an_environment_may_be_a_list() {
    let web = web("environment: [A=1, HOST, B=, 'C=a=b', A=2, 'D=${EMPTY:-d}']");
    let environment: Vec<_> = web.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(environment, ["A=2", "B=", "C=a=b", "D=d", "HOST=db.example"]);
}

#[test]
fn defaults_lie_under_every_service() {
    let spec = load(
        "version: 1\ncgroups: off\n\
         defaults: { restart: always, environment: { A: a, B: b }, logging: { max_files: 1 } }\n\
         services:\n\
         \x20 plain: { command: x }\n\
         \x20 own: { command: x, restart: { delay: 1s }, environment: [B=c], logging: { compress: false } }\n",
    );
    let plain = &spec.services[0];
    assert_eq!(spec.cgroups, spec::Cgroups::Off);
    assert_eq!(plain.restart.policy, Policy::Always);
    assert_eq!(plain.environment["B"], "b");
    let own = &spec.services[1];
    assert_eq!(own.restart.policy, Policy::Always, "the short form is a map with a policy");
    assert_eq!(own.restart.delay.as_secs(), 1);
    assert_eq!((own.environment["A"].as_str(), own.environment["B"].as_str()), ("a", "c"));
    assert_eq!((own.logging.max_files, own.logging.compress), (1, false));
}

#[test]
fn later_files_lie_over_earlier_ones() {
    let spec = load_all(&[
        "services:\n  web: { command: [a, b], environment: { A: 1 }, port: { replies: { until: x } } }\n  db: { command: db }\n",
        "services:\n  web: { command: c, environment: [B=2], port: { replies: { sentinel: { send: '{token}', expect: '{token}' } } } }\n  new: { command: n }\n",
        "defaults: { replicas: 2 }\nservices:\n  db: { replicas: 0 }\n",
    ])
    .unwrap()
    .spec;
    let names: Vec<_> = spec.services.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["web", "db", "new"]);
    let web = &spec.services[0];
    assert_eq!(web.command, ["c"]);
    assert_eq!(web.environment.len(), 2);
    assert!(matches!(web.port.as_ref().unwrap().replies, Replies::Sentinel { .. }));
    assert_eq!((web.replicas, spec.services[1].replicas), (2, 0));
    assert_eq!(spec.files.len(), 3);
}

#[test]
fn anchors_and_merge_keys_work() {
    let spec = load(
        "x-base: &base { restart: always, command: base, x-note: '${NOT_SET}' }\n\
         services:\n\
         \x20 a: { <<: *base }\n\
         \x20 b: { <<: [*base, { replicas: 2, command: no }], command: own }\n\
         \x20 x-template: &t { command: t }\n\
         \x20 c: *t\n",
    );
    let commands: Vec<_> = spec.services.values().map(|s| s.command[0].as_str()).collect();
    assert_eq!(commands, ["base", "own", "t"]);
    assert_eq!((spec.services[1].restart.policy, spec.services[1].replicas), (Policy::Always, 2));
}

#[test]
fn profiles_give_what_is_not_written() {
    let bc = service("services: { calc: { port: { use: bc, timeout: 5s, quit: halt } } }");
    assert_eq!(bc.command, ["bc", "-q"]);
    assert_eq!(bc.environment["BC_LINE_LENGTH"], "0");
    let port = bc.port.unwrap();
    assert_eq!((port.timeout.as_secs(), port.quit.as_deref()), (5, Some("halt")));
    assert_eq!(
        port.replies,
        Replies::Sentinel { send: "print \"{token}\\n\"".into(), expect: "{token}".into() }
    );
    let git = service("services: { git: { port: { use: git-cat-file, replies: none } } }");
    let port = git.port.unwrap();
    assert_eq!(port.replies, Replies::None);
    let Framing::Counted { header, trailer } = port.framing else { panic!("{:?}", port.framing) };
    assert_eq!(trailer, "\n");
    let header = regex::bytes::Regex::new(&header).unwrap();
    let line = b"ce013625030ba8dba906f756967f9e9ca394464a blob 6";
    assert_eq!(&header.captures(line).unwrap()["length"], b"6");
    assert!(!header.is_match(b"nope missing"));
}

#[test]
fn every_framing_can_be_written() {
    for (written, meant) in [
        ("lines", Framing::Lines),
        ("nul", Framing::Nul),
        ("packet1", Framing::Packet(PacketWidth::One)),
        ("packet2", Framing::Packet(PacketWidth::Two)),
        ("packet4", Framing::Packet(PacketWidth::Four)),
        ("netstring", Framing::Netstring),
        ("pkt-line", Framing::PktLine),
        ("content-length", Framing::ContentLength),
        ("json", Framing::Json),
        ("msgpack", Framing::Msgpack),
        ("stanza", Framing::Stanza),
        ("{ prompt: '^> $' }", Framing::Prompt("^> $".into())),
        ("eof", Framing::Eof),
        ("raw", Framing::Raw),
    ] {
        let text = format!("services: {{ it: {{ command: x, port: {{ framing: {written} }} }} }}");
        assert_eq!(service(&text).port.unwrap().framing, meant, "{written}");
        assert!(written.contains(meant.name()), "{written}");
    }
}

#[test]
fn framings_that_cannot_work_are_mistakes() {
    for (port, path, message) in [
        (
            "framing: { prompt: '>*' }",
            "services.it.port.framing.prompt",
            "the expression matches nothing at all: every line would begin with it",
        ),
        (
            "framing: eof, replies: { until: x }",
            "services.it.port.replies",
            "with the framing `eof` a run has one message, so that this is `one` or `none`",
        ),
        (
            "framing: eof, eof: ignored",
            "services.it.port.eof",
            "with the framing `eof` the program must heed the end of its input",
        ),
        (
            "framing: eof, quit: x",
            "services.it.port.quit",
            "with the framing `eof` this would be a part of the program's input",
        ),
        (
            r"framing: { counted: { header: '\p{L}(\d+)' } }",
            "services.it.port.framing.counted.header",
            r"`\p{L}(\d+)` is not a regular expression over bytes: Unicode not allowed here",
        ),
        (
            "replies: { sections: { longer: [{ first: x, count: 2 }] } }",
            "services.it.port.replies.sections",
            "this counts flush packets, which only the framing `pkt-line` has",
        ),
        (
            "framing: pkt-line, replies: { sections: { longer: [], error: '0005x' } }",
            "services.it.port.replies.sections.error",
            "the text must end with a flush packet, `0000`",
        ),
        (
            "framing: pkt-line, replies: { sections: { longer: [] } }, \
             ready: { exchange: { send: '0005x', expect: x } }",
            "services.it.port.ready.exchange.send",
            "with `replies: sections` the text must end with a flush packet, `0000`",
        ),
        (
            "framing: pkt-line, replies: { sections: { longer: [] } }, banner: 1, \
             ready: { exchange: { send: '0005x0000', expect: x } }",
            "services.it.port.banner",
            "with `replies: sections` the first that is said answers `ready: exchange`",
        ),
        (
            &format!("framing: pkt-line, quit: {}", "x".repeat(65_517)),
            "services.it.port.quit",
            "the message is longer than the framing's 65516 bytes",
        ),
    ] {
        let text = format!("services: {{ it: {{ command: x, port: {{ {port} }} }} }}");
        let refused = load_all(&[&text]).unwrap_err();
        let said: Vec<_> = refused.iter().map(|one| (&*one.path, &*one.message)).collect();
        assert_eq!(said, [(path, message)]);
    }
}

#[test]
fn every_built_in_profile_makes_a_service() {
    for name in spec::built_in_profiles() {
        let made =
            service(&format!("services: {{ it: {{ command: x, port: {{ use: {name} }} }} }}"));
        assert!(made.port.is_some(), "{name}");
        assert!(Path::new("ports").join(name).join("README.md").exists(), "{name}");
    }
}

#[test]
fn a_profile_beside_the_file_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let ports = folder.path().join("ports/bc");
    fs::create_dir_all(&ports).unwrap();
    fs::write(ports.join("port.yaml"), "description: Mine\nport: { framing: nul }\n").unwrap();
    let file = folder.path().join("services.yaml");
    fs::write(&file, "services: { calc: { command: bc, port: { use: bc } } }").unwrap();
    let loaded = spec::load(std::slice::from_ref(&file), &environment).unwrap();
    let calc = &loaded.spec.services[0];
    assert_eq!(calc.port.as_ref().unwrap().framing, Framing::Nul);
    assert_eq!(calc.working_dir, folder.path());
    assert_eq!(loaded.spec.files, [file]);
}

#[test]
fn what_is_allowed_and_odd_is_a_warning() {
    let warnings =
        load_all(&["services:\n  x-ray: { command: x }\n  web: { command: 'a | b' }\n  \
         db: { command: 'echo ${x%y}', port: { framing: raw, replies: one } }\n"])
        .unwrap()
        .warnings;
    let said: Vec<_> = warnings.iter().map(|w| (w.path.as_str(), w.message.as_str())).collect();
    assert_eq!(
        said,
        [
            ("services", "`x-ray` is ignored"),
            ("services.web.command", "`|` is passed to the program as a word"),
            ("services.db.command", "`${x%y}` is left as it stands"),
            (
                "services.db.port.replies",
                "with the framing `raw` a reply is whatever one read returns"
            ),
        ]
    );
}

#[test]
fn a_secret_that_is_too_large_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("services.yaml");
    fs::write(&yaml, "services: { web: { command: x, secrets: [{ name: key, file: key }] } }\n")
        .unwrap();
    for (size, is_large) in [(1 << 20, false), ((1 << 20) + 1, true)] {
        fs::write(folder.path().join("key"), vec![b'x'; size]).unwrap();
        let warnings = spec::load(std::slice::from_ref(&yaml), &environment).unwrap().warnings;
        let told = warnings.iter().any(|one| one.message.ends_with("key: it is larger than 1MiB"));
        assert_eq!(told, is_large, "{warnings:?}");
    }
}

#[test]
fn mistakes_of_several_files_come_together() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.yaml", "b.yaml", "c.yaml"].map(|name| folder.path().join(name));
    fs::write(&files[0], "services: { web: { replicas: -1 } }").unwrap();
    fs::write(&files[2], "services: { web: { replica: 1 } }").unwrap();
    let refused = spec::load(&files, &environment).unwrap_err();
    assert_eq!(refused.total(), 3, "{refused}");
    assert!(refused.to_string().contains("b.yaml: cannot be read"));
}

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

#[test]
fn the_most_disk_is_the_sum_of_full_logs_and_the_journal() {
    let journal = (10 << 20) * 11;
    assert_eq!(spec::disk_bound(&load("services: {}")), journal);
    let spec = load(
        "services:\n  a: { command: x, replicas: 3, logging: { max_size: 1MiB, max_files: 1 } }\n  \
         b: { command: x }\n  c: { command: x, replicas: 0 }\n",
    );
    assert_eq!(spec::disk_bound(&spec), journal + 3 * 2 * (1 << 20) + 6 * (10 << 20));
}

#[test]
fn secrets_are_masked_and_only_on_request() {
    let spec = load(
        "services: { web: { command: x, environment: { DB_PASSWORD: hunter-no-1, API_TOKEN: hunter-no-2, \
         aws_secret_access_key: hunter-no-3, HOSTNAME: shown } } }",
    );
    let masked = spec::resolved(&spec, true);
    for secret in ["hunter-no-1", "hunter-no-2", "hunter-no-3"] {
        assert!(!masked.contains(secret) && spec::resolved(&spec, false).contains(secret));
    }
    assert!(masked.contains("shown") && masked.contains("DB_PASSWORD: \"***\""), "{masked}");
}

#[test]
fn two_thousand_services_are_read_and_share_nothing_with_the_file() {
    use std::fmt::Write as _;
    let mut text = String::from("defaults: { restart: always }\nservices:\n");
    for at in 0..2_000 {
        let _ = write!(
            text,
            "  web-{at}:\n    command: [./server, --port, {at}]\n    environment: {{ A: {at} }}\n    \
             port: {{ use: bc }}\n    logging: {{ max_size: 1MiB }}\n"
        );
    }
    let spec = load(&text);
    assert_eq!(spec.services.len(), 2_000);
    assert_eq!(spec.services[1999].command[2], "1999");
}

#[test]
fn hostile_files_are_refused_and_cheap() {
    let many_duplicates = format!("services: {{ {} }}", "a: {}, ".repeat(200_000));
    let many_mistakes = format!("services: {{ web: {{ {} }} }}", unknown_keys(100_000));
    for text in [
        many_duplicates,
        many_mistakes,
        "[".repeat(1_000_000),
        "- ".repeat(100_000),
        "a: &a [*a, *a]".to_owned(),
        "\u{feff}services: [".to_owned(),
        "services: { web: { command: '\u{0}' } }".to_owned(),
        "? ? ? ? a".to_owned(),
        "%YAML 9.9\n--- a".to_owned(),
        "{}".to_owned(),
        "services: { a: { command: \"\\0\" } }".to_owned(),
    ] {
        let refused = load_all(&[&text]).unwrap_err();
        assert!(refused.total() >= refused.iter().len() && refused.iter().len() <= 1_000);
        assert!(refused.to_string().len() < 100_000);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.yaml");
    fs::File::create(&file).unwrap().set_len(17 << 20).unwrap();
    let refused = spec::load(&[file], &environment).unwrap_err();
    assert!(refused.to_string().contains("is larger than 16MiB"), "{refused}");
}

fn unknown_keys(count: usize) -> String {
    (0..count).fold(String::new(), |text, at| text + &format!("k{at}: 1, "))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z./-]{0,8}",
        "[ -~]{0,12}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
        Just("null".to_owned()),
        Just("- a: b #c".to_owned()),
        Just("${HOST} $$ $1 ${".to_owned()),
        Just("line\n  two\t\n".to_owned()),
        Just("0x10".to_owned()),
    ]
}

fn length() -> impl Strategy<Value = Duration> {
    (1_u64..10_000_000_000).prop_map(Duration::from_micros)
}

fn any_port() -> impl Strategy<Value = Port> {
    let framing = prop_oneof![
        Just(Framing::Lines),
        Just(Framing::Nul),
        Just(Framing::Packet(PacketWidth::Four)),
        Just(Framing::Netstring),
        Just(Framing::PktLine),
        Just(Framing::ContentLength),
        Just(Framing::Json),
        Just(Framing::Msgpack),
        Just(Framing::Stanza),
        text().prop_map(|text| Framing::Prompt(format!("^{}> $", regex::escape(&text)))),
        text().prop_map(|trailer| Framing::Counted { header: r"^(\d+) \w$".into(), trailer }),
    ];
    let replies = prop_oneof![
        Just(Replies::None),
        Just(Replies::One),
        Just(Replies::Id(IdPlace::Pointer("/a~1b/0".to_owned()))),
        text().prop_map(|first| Replies::Sections {
            longer: vec![Longer { first: regex::escape(&first), count: 2 }],
            error: Some(format!("{first}0000")),
        }),
        (0..4_u8, text(), text()).prop_map(|(rule, a, b)| {
            let (first, second) = (regex::escape(&a), regex::escape(&b));
            match rule {
                0 => Replies::Until(first),
                1 => Replies::Bracket { begin: first, end: second },
                2 => Replies::Prefix {
                    send: format!("{a}{{token}}{b}"),
                    expect: format!("{second}{{token}}"),
                },
                _ => Replies::Sentinel {
                    send: format!("{a}{{token}}{b}"),
                    expect: format!("{b}{{token}}"),
                },
            }
        }),
    ]
    .boxed();
    // A message with a header line is not JSON.
    let spoken = (framing, replies).prop_map(|(framing, replies)| {
        let fits = !matches!(
            (&framing, &replies),
            (Framing::Counted { .. } | Framing::Msgpack, Replies::Id(_))
        );
        // Flush packets are those of `pkt-line`.
        let framing = match replies {
            Replies::Sections { .. } => Framing::PktLine,
            _ => framing,
        };
        (framing, if fits { replies } else { Replies::One })
    });
    let word = option::of("[ -~]{0,1}");
    let rest = (1..1_u64 << 30, 1..1_000_000_u32, length(), word);
    let wired = prop_oneof![
        Just((Channel::Fd3, Unbuffer::None)),
        Just((Channel::Pty, Unbuffer::None)),
        Just((Channel::Stdio, Unbuffer::None)),
        Just((Channel::Stdio, Unbuffer::Stdbuf)),
        Just((Channel::Stdio, Unbuffer::Pty)),
    ];
    let handshake = option::of(option::of("[a-z]{1,9}"));
    (spoken, wired, rest, any_greeting(), 0..3_u8, handshake).prop_map(
        |((framing, replies), wired, rest, (banner, ready), stray, handshake)| {
            let (max_frame, queue, timeout, quit) = rest;
            // What is heard first answers the question, which is made of packets.
            let (banner, ready) = match &replies {
                Replies::Sections { .. } => {
                    let (send, expect) = ("0005x0000".to_owned(), "x".to_owned());
                    (Banner::None, Ready::Exchange { send, expect })
                }
                _ => (banner, ready),
            };
            // It needs messages that are known by ids in JSON.
            let json = matches!(&replies, Replies::Id(IdPlace::Pointer(_)));
            let handshake = handshake.filter(|_| json).map(|done| Handshake {
                begin: "Begin".to_owned(),
                done,
                end: vec!["End".to_owned()],
            });
            let port = Port {
                channel: wired.0,
                unbuffer: wired.1,
                framing,
                replies,
                max_frame,
                queue,
                timeout,
                on_protocol_error: OnProtocolError::Stop,
                handshake,
                stray: None,
                banner,
                ready,
                quit,
                eof: Eof::Ignored,
                eof_grace: timeout / 2_000 * 1_000,
            };
            let borne = [Stray::Log, Stray::Drop, Stray::Kill][usize::from(stray)];
            let stray = if port.can_bear_strays() {
                Some(borne)
            } else {
                (stray == 0).then_some(Stray::Kill)
            };
            Port { stray, ..port }
        },
    )
}

fn any_greeting() -> impl Strategy<Value = (Banner, Ready)> {
    let banner = prop_oneof![
        Just(Banner::None),
        (1..=1000_u32).prop_map(Banner::Messages),
        text().prop_map(|text| Banner::Until(regex::escape(&text))),
    ];
    let ready = prop_oneof![
        Just(Ready::Started),
        Just(Ready::Banner),
        Just(Ready::FirstMessage),
        text().prop_map(|text| Ready::Message(regex::escape(&text))),
        ("[ -~]{0,1}", text())
            .prop_map(|(send, text)| Ready::Exchange { send, expect: regex::escape(&text) }),
    ];
    // To be ready with its banner takes one.
    (banner, ready).prop_map(|(banner, ready)| match (&banner, &ready) {
        (Banner::None, Ready::Banner) => (banner, Ready::Started),
        _ => (banner, ready),
    })
}

/// What a service is watched by, as far as it goes with its port.
fn any_watch() -> impl Strategy<Value = Watch> {
    let check = || {
        prop_oneof![
            Just(Check::Http("http://[::1]:80/a?b=%20".to_owned())),
            Just(Check::Tcp("unix:/run/a b.sock".to_owned())),
            (text().prop_filter("empty", |word| !word.is_empty()), vec(text(), 0..2)).prop_map(
                |(first, rest)| Check::Exec(std::iter::once(first).chain(rest).collect())
            ),
            text().prop_map(Check::Call),
        ]
    };
    let ready = prop_oneof![
        check().prop_map(ReadyBy::Probe),
        text().prop_map(|text| ReadyBy::LogLine(regex::escape(&text))),
        Just(ReadyBy::Notify),
        (4..=1023_u32).prop_map(ReadyBy::Fd),
    ];
    let longer = || (10_000_u64..10_000_000_000).prop_map(Duration::from_micros);
    let readiness = (ready, longer(), longer()).prop_map(|(by, timeout, interval)| Readiness {
        by,
        timeout,
        interval,
    });
    let health = (check(), (longer(), longer(), length(), longer()), 1..=1000_u32, any::<bool>())
        .prop_map(|(by, (interval, timeout, start_period, start_interval), retries, report)| {
            let on_failure = if report { HealthFailure::Report } else { HealthFailure::Restart };
            Healthcheck { by, interval, timeout, retries, start_period, start_interval, on_failure }
        });
    let lifetime = (1_u64..1_000_000).prop_map(Duration::from_secs);
    (
        option::of(readiness),
        option::of(health),
        option::of(longer()),
        option::of(1..u64::MAX / 2),
        option::of(lifetime),
    )
}

type Watch =
    (Option<Readiness>, Option<Healthcheck>, Option<Duration>, Option<u64>, Option<Duration>);

/// The same without what this port cannot have.
fn fitting((ready, health, watchdog, memory, lifetime): Watch, port: Option<&Port>) -> Watch {
    let replies = port.is_some_and(|port| port.replies != Replies::None);
    let ready = match ready {
        Some(ready) if port.is_some_and(Port::awaits_ready) => {
            Some(Readiness { by: ReadyBy::Port, interval: READY_INTERVAL, ..ready })
        }
        Some(Readiness { by: ReadyBy::Probe(Check::Call(_)), .. }) => None,
        Some(ready) if !matches!(ready.by, ReadyBy::Probe(_)) => {
            Some(Readiness { interval: READY_INTERVAL, ..ready })
        }
        same => same,
    };
    let health = health.filter(|health| replies || !matches!(health.by, Check::Call(_)));
    (ready, health, watchdog, memory, lifetime)
}

fn any_restart() -> impl Strategy<Value = Restart> {
    let policy = prop_oneof![
        Just(Policy::No),
        Just(Policy::Always),
        Just(Policy::OnFailure),
        Just(Policy::UnlessStopped)
    ];
    let give_up = option::of(length());
    let signals = vec(1_i32..32, 0..3);
    (policy, length(), 1.0..1000.0, 0.0..=1.0, any::<u32>(), give_up, vec(0..=255, 0..3), signals)
        .prop_map(|(policy, delay, factor, jitter, max_restarts, give_up, codes, signals)| {
            Restart {
                policy,
                delay,
                factor,
                max_delay: delay * 3,
                jitter,
                reset_after: delay * 2,
                max_restarts,
                within: delay,
                on_give_up: give_up.map_or(OnGiveUp::Stop, OnGiveUp::RetryEvery),
                success_exit_codes: codes,
                success_signals: signals
                    .into_iter()
                    .map(|number| SignalName(Signal::new(number).unwrap()))
                    .collect(),
                never_on: vec![Reason::Failed, Reason::NodeDown],
            }
        })
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let pattern = (0..60_u8, 0..24_u8).prop_map(|(m, h)| Rhythm::Cron(format!("{m} {h} * * mon")));
    let every = (1..100_000_u64).prop_map(|seconds| Rhythm::Every(Duration::from_secs(seconds)));
    let overlap = prop_oneof![Just(Overlap::Skip), Just(Overlap::Queue), Just(Overlap::Kill)];
    let missed = prop_oneof![Just(Missed::Run), Just(Missed::Skip)];
    (prop_oneof![pattern, every], overlap, missed).prop_map(|(rhythm, overlap, missed)| Schedule {
        rhythm,
        overlap,
        missed,
    })
}

fn any_limits() -> impl Strategy<Value = (Limits, Rights)> {
    let number = || option::of(1_u64..1 << 30);
    let size = || option::of(any::<u64>());
    let limits = (
        (option::of(65_536_u64..1 << 60), option::of(0.01_f64..1e3), option::of(1_u32..9999)),
        (any::<bool>(), any::<bool>(), option::of(8..1_u64 << 30), option::of(1..1_000_000_u64)),
        (number(), number(), option::of(0..=99_u64)),
        [size(), size(), size(), size(), size(), size(), size()],
    )
        .prop_map(|((memory, cpus, pids), (kills, required, nofile, cpu), counts, sizes)| {
            let [core, stack, address_space, data, fsize, memlock, msgqueue] = sizes;
            let (nproc, sigpending, rtprio) = counts;
            let on_oom = if kills { OnOom::Kill } else { OnOom::Continue };
            let cpu = cpu.map(Duration::from_secs);
            Limits {
                memory,
                cpus,
                pids,
                on_oom,
                required,
                core,
                nofile,
                nproc,
                stack,
                address_space,
                data,
                fsize,
                memlock,
                cpu,
                msgqueue,
                sigpending,
                rtprio,
            }
        });
    let capability = (0..Capability::names().count()).prop_map(|at| {
        let name = Capability::names().nth(at).unwrap();
        Capability::named(name).unwrap()
    });
    let rights = (
        (0..=0o777_u32, option::of(-20..=19_i32), option::of(-1000..=1000_i32)),
        vec("[a-z0-9]{1,8}", 0..3),
        any::<bool>(),
        proptest::collection::btree_set(capability, 0..4),
    )
        .prop_map(|((umask, nice, oom_score_adj), group_add, no_new_privileges, dropped)| {
            let cap_drop = dropped.into_iter().collect();
            Rights { umask, nice, oom_score_adj, group_add, no_new_privileges, cap_drop }
        });
    (limits, rights)
}

fn any_service() -> impl Strategy<Value = Service> {
    let name = "[a-z][a-zA-Z0-9_.-]{0,20}".prop_filter("reserved", |name| !name.starts_with("x-"));
    let key = "[a-zA-Z_][ -<>-~]{0,12}";
    let words = (text().prop_filter("empty", |word| !word.is_empty()), vec(text(), 0..4));
    let socket = || option::of("/[a-z]{1,8}/[a-z./ -]{0,8}");
    let forward = (socket(), socket()).prop_map(|(journald, syslog)| Forward { journald, syslog });
    let limits = any_limits();
    (
        (
            name,
            words,
            text(),
            btree_map(key, text(), 0..4),
            option::of("[a-z0-9]{1,8}(:[a-z]{1,4})?"),
        ),
        (
            0..=10_000_u32,
            option::of(any_port().boxed()).boxed(),
            any_watch().boxed(),
            any_restart().boxed(),
            length(),
            limits,
        ),
        (
            (1024..u64::MAX / 2, 0..=1000_u32, any::<bool>(), forward),
            btree_map("[ -~]{1,8}", text(), 0..4),
            option::of(any_schedule()),
            prop_oneof![Just(OnManagerExit::Die), Just(OnManagerExit::Keep)],
        ),
    )
        .prop_map(
            |(
                (name, (first, rest), folder, environment, user),
                (replicas, port, watch, restart, length, (limits, rights)),
                ((max_size, max_files, compress, forward), labels, schedule, on_manager_exit),
            )| {
                let (ready, healthcheck, watchdog, max_memory, max_lifetime) =
                    fitting(watch, port.as_ref());
                Service {
                    name: name.parse().unwrap(),
                    command: std::iter::once(first).chain(rest).collect(),
                    working_dir: Path::new("/srv").join(folder.trim_start_matches('/')),
                    environment,
                    user,
                    replicas,
                    profiles: labels
                        .keys()
                        .filter(|key| key.parse::<ServiceName>().is_ok())
                        .cloned()
                        .collect(),
                    port,
                    restart,
                    start_timeout: length,
                    stop: Stop { signal: Signal::INT, grace: length, kill: KillScope::Group },
                    on_manager_exit,
                    logging: Logging {
                        max_size,
                        max_files,
                        compress,
                        when_full: WhenFull::Block,
                        forward,
                    },
                    limits,
                    rights,
                    schedule,
                    labels,
                    ready,
                    healthcheck,
                    watchdog,
                    max_memory,
                    max_lifetime,
                    ..Service::new("any".parse().unwrap())
                }
            },
        )
}

/// One group of all services, in their order.
fn some_groups(
    services: &IndexMap<ServiceName, Arc<Service>>,
    strategy: usize,
) -> IndexMap<String, Group> {
    use spec::Strategy::{OneForAll, OneForOne, RestForOne};
    let strategies = [OneForOne, OneForAll, RestForOne];
    let group = Group {
        services: services.keys().cloned().collect(),
        strategy: strategies[strategy],
        max_restarts: 7,
        within: Duration::from_millis(1500),
    };
    if services.is_empty() { IndexMap::new() } else { [("all".to_owned(), group)].into() }
}

/// Each waits for the one before it.
fn in_a_row(
    services: IndexMap<ServiceName, Arc<Service>>,
    (condition, restart, required): (usize, bool, bool),
) -> IndexMap<ServiceName, Arc<Service>> {
    let condition = [Condition::Started, Condition::Healthy][condition];
    let mut before: Option<ServiceName> = None;
    let with = |(name, service): (ServiceName, Arc<Service>)| {
        let mut service = Service::clone(&service);
        if let Some(before) = before.replace(name.clone()) {
            service.depends_on.insert(before, Dependency { condition, restart, required });
        }
        (name, Arc::new(service))
    };
    services.into_iter().map(with).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What `wharf config` prints can be loaded again and means the same.
    #[test]
    fn a_configuration_survives_being_written_out(
        services in vec(any_service().boxed(), 0..4),
        metrics in option::of((any::<std::net::IpAddr>(), 1..=u16::MAX)),
        strategy in 0..3_usize,
        how in (0..2_usize, any::<bool>(), any::<bool>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        let services: IndexMap<_, _> =
            services.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect();
        let services = in_a_row(services, how);
        let metrics = metrics.map(|(host, port)| Metrics {
            listen: (host, port).into(),
            allow_remote: !host.is_loopback(),
        });
        let on_event = Vec::new();
        let groups = some_groups(&services, strategy);
        let files = vec![file.clone()];
        let spec = Spec { files, cgroups: Cgroups::Off, metrics, on_event, services, groups };
        let text = spec::resolved(&spec, false);
        fs::write(&file, &text).unwrap();
        match spec::load(&[file], &environment) {
            Ok(loaded) => prop_assert_eq!(loaded.spec, spec, "{}", text),
            Err(mistakes) => prop_assert!(false, "{}\n{}", mistakes, text),
        }
    }

    /// No file makes the reader panic or take for ever.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:{}\\[\\]&*!|>'\"%@,#? \n\t$-]{0,80}") {
        if let Err(mistakes) = load_all(&[&text]) {
            prop_assert!(mistakes.total() > 0 && !mistakes.to_string().is_empty());
        }
    }
}
