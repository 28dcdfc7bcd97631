//! services.yaml from the outside: what is refused and with which words, what is meant, what a
//! reload would change, and that a configuration survives being written out.
//!
//! `WHARF_BLESS=1` rewrites the expected texts; a difference is then seen in review.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data should stop")]

#[path = "spec/any.rs"]
mod any;
#[path = "spec/plan.rs"]
mod plan;
#[path = "spec/ports.rs"]
mod ports;
#[path = "spec/survives.rs"]
mod survives;

use std::fs;
use std::path::{Path, PathBuf};

use wharf::spec::{self, Loaded, Policy, Replies, Service, Spec};

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
