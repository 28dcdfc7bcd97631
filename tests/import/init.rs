//! `wharf init` and the ways of `wharf import` to write: what is there is kept, what is written
//! works.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{Place, until};

/// The states of all services of a folder's services.yaml, by name.
fn states(place: &Place) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    place.rows().iter().map(|row| (text(&row["service"]), text(&row["state"]))).collect()
}

#[test]
fn every_example_is_good_and_runs() {
    for (example, services, asked) in [
        ("starter", &["web", "worker", "upper"][..], Some(("upper", "hello", "HELLO\n"))),
        ("ports", &["double", "echo", "list"], Some(("double", "21", "42\n"))),
        ("restarts", &["flaky", "fragile", "batch", "once"], None),
    ] {
        let place = Place::new();
        let (said, told) = place.ok(&["init", "--example", example]);
        assert_eq!(said, "");
        assert!(told.contains("services.yaml and services.schema.json are written"), "{told}");
        let yaml = place.read("services.yaml");
        assert!(yaml.starts_with("# yaml-language-server: $schema=./services.schema.json\n"));
        let schema: Value = serde_json::from_str(&place.read("services.schema.json")).unwrap();
        assert_eq!(schema, wharf::spec::schema());
        let (_, warned) = place.ok(&["check"]);
        assert_eq!(warned, "", "{example}");
        place.ok(&["up", "-d", "--state-dir", "state"]);
        let all = || format!("{services:?} of {example} to have started: {:?}", states(&place));
        until(&all, || {
            let states = states(&place);
            let started = |name: &&str| {
                states.iter().any(|(known, state)| {
                    known == name && !matches!(state.as_str(), "waiting" | "starting" | "failed")
                })
            };
            services.iter().all(started).then_some(())
        });
        if let Some((service, message, reply)) = asked {
            let (said, _) = place.ok(&["call", service, message, "--state-dir", "state"]);
            assert_eq!(said, reply, "{example}");
        }
    }
}

#[test]
fn nothing_is_written_over_unless_it_is_said() {
    let place = Place::new();
    place.write("services.yaml", "services: {}\n");
    let told = place.fails(1, &["init"]);
    assert!(told.contains("cannot write services.yaml: it is there already"), "{told}");
    assert!(told.contains("--force"), "{told}");
    assert_eq!(place.read("services.yaml"), "services: {}\n");
    assert!(!place.folder.join("services.schema.json").exists());
    place.write("services.schema.json", "mine\n");
    place.ok(&["init", "--force"]);
    assert!(place.read("services.yaml").contains("web:"));
    assert!(place.read("services.schema.json").starts_with('{'));
    let other = Place::new();
    other.write("services.schema.json", "mine\n");
    let (_, told) = other.ok(&["init"]);
    assert!(told.contains("left alone"), "{told}");
    assert_eq!(other.read("services.schema.json"), "mine\n");
}

#[test]
fn a_configuration_of_the_other_usual_name_is_not_hidden() {
    let place = Place::new();
    place.write("services.yml", "services: { mine: { command: sleep 1 } }\n");
    let told = place.fails(1, &["init"]);
    assert!(told.contains("there is a services.yml, which would not be found any more"), "{told}");
    assert!(!place.folder.join("services.yaml").exists());
    place.ok(&["init", "--force"]);
    assert!(place.folder.join("services.yaml").exists());
    place.write("Procfile", "web: sleep 1\n");
    let told = place.fails(1, &["import", "Procfile", "-o", "no/where"]);
    assert!(told.contains("no/where"), "{told}");
}

#[test]
fn what_lies_there_is_proposed_for_import() {
    let place = Place::new();
    place.write("Procfile", "web: ./web\n");
    place.write("docker-compose.yml", "services: { web: { image: x, command: ./web } }\n");
    place.write("process-compose.yaml", "processes: { web: { command: ./web } }\n");
    place.write("supervisord.conf", "[program:web]\ncommand=./web\n");
    place.write("my web.service", "[Service]\nExecStart=/bin/web\n");
    place.write("README.md", "nothing\n");
    let (_, told) = place.ok(&["init"]);
    let proposed: Vec<_> = told.lines().filter_map(|line| line.split_once("instead: ")).collect();
    assert_eq!(proposed.len(), 5, "{told}");
    for (_, command) in proposed {
        let words = shell_words::split(command).unwrap();
        let words: Vec<_> = words[1..].iter().map(String::as_str).collect();
        place.ok(&words);
        place.ok(&["check"]);
    }
}

#[test]
fn import_writes_where_it_is_told() {
    let place = Place::new();
    place.write("Procfile", "web: ./web $SECRET_PLACE\n");
    let (said, told) = place.ok(&["import", "Procfile"]);
    assert!(said.contains("\nservices:\n  web:\n"), "{said}");
    assert!(told.ends_with("output: 1 service from Procfile; 0 lost, 3 noted\n"), "{told}");
    let (said, told) = place.ok(&["-q", "import", "Procfile", "-o", "services.yaml"]);
    assert_eq!((said.as_str(), told.as_str()), ("", ""));
    let mode =
        |name: &str| place.folder.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("services.yaml") & 0o444, 0o444);
    let told = place.fails(1, &["import", "Procfile", "-o", "services.yaml"]);
    assert!(told.contains("it is there already"), "{told}");
    // Values of an environment file are as private as that file.
    place.write(".env", "TOKEN=x\n");
    place.ok(&["import", "Procfile", "-o", "private.yaml"]);
    assert_eq!(mode("private.yaml"), 0o600);
    place.ok(&["import", "Procfile", "-o", "services.yaml", "--force"]);
    assert_eq!(mode("services.yaml"), 0o600, "also where another was there");
    // Elsewhere, paths lead back.
    place.write("sub/x", "");
    place.ok(&["import", "Procfile", "-o", "sub/services.yaml"]);
    let folder = place.folder.display().to_string();
    assert!(place.read("sub/services.yaml").contains(&format!("working_dir: {folder}\n")));
    let (said, _) = place.ok(&["-q", "import", "Procfile", "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((json["services"].as_u64(), json["format"].as_str()), (Some(1), Some("Procfile")));
    assert_eq!(json["losses"][0]["weight"], "note");
    assert!(json["yaml"].as_str().unwrap().contains("TOKEN: x"));
}
