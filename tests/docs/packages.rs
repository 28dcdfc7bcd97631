//! The packages: what their descriptions name exists, and what they hold does what it should.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::place::{Place, root};

#[path = "../../examples/release-notes.rs"]
#[expect(dead_code, reason = "only its pure part is tested here")]
mod release_notes;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// Cargo.toml, as JSON.
fn manifest(place: &Place) -> Value {
    let script =
        "import sys, tomllib, json; print(json.dumps(tomllib.load(open(sys.argv[1], 'rb'))))";
    let mut python = place.command("python3");
    let output = python.args(["-c", script]).arg(root().join("Cargo.toml")).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The recipe of a target of the Makefile, a line each.
fn recipe(target: &str) -> Vec<String> {
    let makefile = read("Makefile");
    let rest = makefile.split(&format!("\n{target}:")).nth(1).expect(target);
    let lines = rest.lines().skip(1).take_while(|line| line.starts_with('\t'));
    lines.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_asset_of_the_debian_package_exists() {
    let place = Place::new();
    // What `make package-files` makes, by its own recipe and with the binary under test.
    for line in recipe("package-files").iter().filter(|line| line.contains("target/")) {
        let said = place.run(&line.replace("target/release/wharf", "wharf"));
        assert_eq!(said.code, Some(0), "{line}: {}", said.text);
    }
    let manifest = manifest(&place);
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    assert!(assets.len() > 10);
    for asset in assets {
        let source = asset[0].as_str().unwrap();
        if source == "target/release/wharf" {
            continue;
        }
        let folder = if source.starts_with("target/") { &place.folder } else { root() };
        let listed = place.run(&format!("cd '{}' && ls -1 {source}", folder.display()));
        assert_eq!(listed.code, Some(0), "{source}: {}", listed.text);
    }
    let completions = fs::read_to_string(place.folder.join("target/packaging/completions/_wharf"));
    assert!(completions.unwrap().starts_with("#compdef wharf"));
}

#[test]
fn a_published_crate_holds_what_a_build_needs_and_little_else() {
    let place = Place::new();
    let list = format!("cd '{}' && cargo package --list --allow-dirty --offline", root().display());
    let said = place
        .command("bash")
        .args(["-c", &list])
        .env("HOME", std::env::var("HOME").unwrap())
        .output()
        .unwrap();
    let listed = String::from_utf8(said.stdout).unwrap();
    let files: BTreeSet<&str> = listed.lines().collect();
    for needed in [
        "src/main.rs",
        "build.rs",
        "ports/bc/port.yaml",
        "ports/bc/README.md",
        "Cargo.lock",
        "README.md",
        "LICENSE-MIT",
    ] {
        assert!(
            files.contains(needed),
            "{needed} is missing: {}",
            String::from_utf8_lossy(&said.stderr)
        );
    }
    for folder in ["tests/", "benches/", ".ci/", "scripts/", "target/"] {
        assert!(!files.iter().any(|file| file.starts_with(folder)), "{folder}");
    }
    // Whatever the source takes in from outside its folder has to be there.
    let taken = place.run(&format!(
        "grep -rhoE 'include_(str|bytes)!\\(\"[^\"]+' '{}/src' || true",
        root().display()
    ));
    for line in taken.text.lines() {
        let path = line.split('"').nth(1).unwrap();
        let file = path.trim_start_matches("../");
        let there = files.iter().any(|known| known.ends_with(file));
        assert!(there, "{path} is not part of the crate");
    }
    let size: u64 = files
        .iter()
        .filter_map(|file| fs::metadata(root().join(file)).ok())
        .map(|meta| meta.len())
        .sum();
    // Half of what the registry takes, before compression.
    assert!(size < 5 << 20, "{size} bytes");
}

#[test]
fn the_unit_is_understood_by_systemd() {
    let place = Place::new();
    let unit = read("packaging/wharf.service");
    let here = unit.replace("/usr/bin/wharf", env!("CARGO_BIN_EXE_wharf"));
    fs::write(place.folder.join("wharf.service"), here).unwrap();
    let said = place.run("systemd-analyze verify --man=no ./wharf.service");
    assert_eq!(said.code, Some(0), "{}", said.text);
    // A misspelt key is only a warning to it.
    assert!(!said.text.contains("wharf.service"), "{}", said.text);
    for line in ["KillMode=mixed", "Delegate=yes", "OOMPolicy=continue", "Type=exec"] {
        assert!(unit.lines().any(|known| known == line), "{line}");
    }
    for command in unit.lines().filter_map(|line| line.split_once("=/usr/bin/wharf ")) {
        let said = place.run(&format!("wharf {} --help", command.1));
        assert_eq!(said.code, Some(0), "{}: {}", command.1, said.text);
    }
}

#[test]
fn the_image_copies_what_exists_and_starts_wharf_without_a_shell() {
    let place = Place::new();
    let text = read("packaging/Dockerfile");
    let mut stages = Vec::new();
    let mut started = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap();
        match word {
            "FROM" => stages.push(rest),
            "COPY" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let (_, sources) = words.split_last().unwrap();
                if !sources[0].starts_with("--from=build") {
                    for source in sources {
                        assert!(root().join(source).exists(), "{source}");
                    }
                }
            }
            "ENTRYPOINT" | "CMD" => {
                let words: Vec<String> =
                    serde_json::from_str(rest).expect("the form with brackets");
                started.extend(words);
            }
            "HEALTHCHECK" => {
                let words: Vec<String> =
                    serde_json::from_str(rest.trim_start_matches("CMD ")).unwrap();
                assert_eq!(words[0], "/usr/bin/wharf");
                let said = place.run(&format!("wharf {} --help", words[1..].join(" ")));
                assert_eq!(said.code, Some(0), "{}", said.text);
            }
            "RUN" | "WORKDIR" | "VOLUME" | "STOPSIGNAL" => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(stages, ["rust:1-slim-bookworm AS build", "debian:bookworm-slim"]);
    assert_eq!(started, ["/usr/bin/wharf", "--system", "up"]);
    let said =
        place.run(&format!("wharf check -f '{}/packaging/container.yaml'", root().display()));
    assert_eq!(said.code, Some(0), "{}", said.text);
}

#[test]
fn the_archive_of_a_release_is_where_binstall_looks() {
    let place = Place::new();
    let manifest = manifest(&place);
    let binstall = &manifest["package"]["metadata"]["binstall"];
    let archive = "wharf-{ version }-{ target }";
    assert!(binstall["pkg-url"].as_str().unwrap().ends_with(&format!("/{archive}.tar.gz")));
    assert_eq!(binstall["bin-dir"], format!("{archive}/{{ bin }}"));
    let dist = recipe("dist").join("\n");
    let made = archive.replace("{ version }", "$(NUMBER)").replace("{ target }", "$(HOST)");
    assert!(dist.contains(&format!("-czf target/dist/{made}.tar.gz {made}")), "{dist}");
}

#[test]
fn release_notes_are_a_section_of_the_changelog() {
    let changelog = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n- b\n\n\
                     ## [0.1.0] - 2026-11-22\n- a\n\n[0.1.0]: elsewhere\n";
    for (version, notes) in [
        (None, Some("### Added\n- b")),
        (Some("0.2.0"), Some("### Added\n- b")),
        (Some("v0.1.0"), Some("- a")),
        (Some("Unreleased"), Some("")),
        (Some("3.0.0"), None),
    ] {
        assert_eq!(release_notes::notes(changelog, version).as_deref(), notes, "{version:?}");
    }
    assert!(release_notes::notes(&read("CHANGELOG.md"), None).is_some());
}
