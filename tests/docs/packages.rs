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
fn the_units_are_understood_by_systemd() {
    let place = Place::new();
    let unit = read("packaging/wharf.service");
    let socket = read("packaging/wharf.socket");
    let here = unit.replace("/usr/bin/wharf", env!("CARGO_BIN_EXE_wharf"));
    fs::write(place.folder.join("wharf.service"), here).unwrap();
    fs::write(place.folder.join("wharf.socket"), &socket).unwrap();
    let said = place.run("systemd-analyze verify --man=no ./wharf.service ./wharf.socket");
    assert_eq!(said.code, Some(0), "{}", said.text);
    // A misspelt key is only a warning to it.
    assert!(!said.text.contains("wharf.s"), "{}", said.text);
    // And it does look: the same with a mistake is told.
    let wrong =
        unit.replace("WatchdogSec=30", "WatchdogSec=soon").replace("/usr/bin/wharf", "/none");
    fs::write(place.folder.join("wharf.service"), wrong).unwrap();
    let said = place.run("systemd-analyze verify --man=no ./wharf.service ./wharf.socket");
    assert!(said.code != Some(0) && said.text.contains("soon"), "{}", said.text);
    for line in [
        "KillMode=mixed",
        "Delegate=yes",
        "OOMPolicy=continue",
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=30",
        "RuntimeDirectoryPreserve=yes",
        "EnvironmentFile=-/etc/default/wharf",
    ] {
        assert!(unit.lines().any(|known| known == line), "{line}");
    }
    // Where commands look for it, and by the name that wharf knows.
    for line in ["ListenStream=/run/wharf/sock", "FileDescriptorName=control", "SocketMode=0600"] {
        assert!(socket.lines().any(|known| known == line), "{line}");
    }
    for command in unit.lines().filter_map(|line| line.split_once("=/usr/bin/wharf ")) {
        let said = place.run(&format!("wharf {} --help", command.1));
        assert_eq!(said.code, Some(0), "{}: {}", command.1, said.text);
    }
}

/// A package as `make deb` makes it, without a build: every asset of Cargo.toml in its place, with its mode;
/// `left_out` is missing. The program itself is a stand-in: what a package says of it is looked at here.
fn package(place: &Place, left_out: &str) -> std::path::PathBuf {
    let manifest = manifest(place);
    let deb = &manifest["package"]["metadata"]["deb"];
    let field = |name: &str| deb[name].as_str().unwrap().to_owned();
    let tree = place.folder.join("tree");
    let mut steps = vec![format!("set -e; rm -rf '{0}'; mkdir -p '{0}/DEBIAN'", tree.display())];
    for asset in deb["assets"].as_array().unwrap() {
        let [from, to, mode] = [0, 1, 2].map(|at| asset[at].as_str().unwrap());
        let program = "target/release/wharf";
        let from = if from == program { "tests/docs/packages.rs" } else { from };
        let folder = if from.starts_with("target/") { &place.folder } else { root() };
        let (folder, tree) = (folder.display(), tree.display());
        let kind = if to.ends_with('/') { "-t" } else { "-T" };
        let words = if kind == "-t" {
            format!("-t '{tree}/{to}' '{folder}'/{from}")
        } else {
            format!("-T '{folder}'/{from} '{tree}/{to}'")
        };
        steps.push(format!("install -D -m {mode} {words}"));
        if from == "tests/docs/packages.rs" {
            steps.push(format!("mv '{tree}/{to}packages.rs' '{tree}/{to}wharf'"));
        }
    }
    let scripts = root().join(field("maintainer-scripts"));
    for name in ["postinst", "prerm", "postrm"] {
        let (from, tree) = (scripts.join(name), tree.display());
        steps.push(format!("install -m 755 '{}' '{tree}/DEBIAN'", from.display()));
    }
    let control = format!(
        "Package: wharf\nVersion: {}\nArchitecture: all\nMaintainer: {}\nSection: {}\nPriority: {}\n\
         Depends: {}\nDescription: {}\n",
        manifest["package"]["version"].as_str().unwrap(),
        field("maintainer"),
        field("section"),
        field("priority"),
        field("depends").replace("$auto, ", ""),
        manifest["package"]["description"].as_str().unwrap(),
    );
    let said = place.run(&steps.join("\n"));
    assert_eq!(said.code, Some(0), "{}", said.text);
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let conffiles: Vec<_> =
        deb["conf-files"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    fs::write(tree.join("DEBIAN/conffiles"), conffiles.join("\n") + "\n").unwrap();
    if !left_out.is_empty() {
        fs::remove_file(tree.join(left_out)).unwrap();
    }
    let made = place.folder.join("wharf.deb");
    let words = ["dpkg-deb", "--root-owner-group", "-Znone", "--build"].join(" ");
    let said = place.run(&format!("{words} '{}' '{}'", tree.display(), made.display()));
    assert_eq!(said.code, Some(0), "{}", said.text);
    made
}

#[test]
fn the_debian_package_holds_what_it_should_and_its_check_sees_what_is_missing() {
    let place = Place::new();
    for line in recipe("package-files").iter().filter(|line| line.contains("target/")) {
        let said = place.run(&line.replace("target/release/wharf", "wharf"));
        assert_eq!(said.code, Some(0), "{line}: {}", said.text);
    }
    let check = root().join("scripts/deb-check");
    let check = |left_out: &str| {
        let made = package(&place, left_out);
        place.run(&format!("'{}' '{}'", check.display(), made.display()))
    };
    let said = check("");
    assert_eq!(said.code, Some(0), "{}", said.text);
    for left_out in [
        "usr/lib/systemd/system/wharf.socket",
        "usr/share/doc/wharf/copyright",
        "usr/share/man/man1/wharf.1",
        "DEBIAN/postrm",
        "DEBIAN/conffiles",
    ] {
        let said = check(left_out);
        assert_eq!(said.code, Some(1), "{left_out}: {}", said.text);
    }
    // The real check is part of the real recipe.
    assert!(recipe("deb").iter().any(|line| line == "scripts/deb-check target/debian/wharf_*.deb"));
}

/// The scripts of the package, with Debian's own program for units, below another root.
#[test]
fn an_installed_package_is_enabled_once_and_leaves_nothing_behind() {
    let place = Place::new();
    let below = place.folder.join("root");
    let units = below.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in ["wharf.service", "wharf.socket"] {
        fs::copy(root().join("packaging").join(unit), units.join(unit)).unwrap();
    }
    let run = |script: &str, words: &str| {
        let path = root().join("packaging/debian").join(script);
        let below = below.display();
        let said = place.run(&format!(
            // As dpkg calls it.
            "DPKG_MAINTSCRIPT_PACKAGE=wharf DPKG_ROOT='{below}' '{}' {words}",
            path.display()
        ));
        assert_eq!(said.code, Some(0), "{script} {words}: {}", said.text);
    };
    let wants = below.join("etc/systemd/system/multi-user.target.wants/wharf.service");
    let enabled = || wants.symlink_metadata().is_ok();
    run("postinst", "configure ''");
    assert!(enabled());
    assert!(below.join("etc/wharf").is_dir());
    assert!(!below.join("etc/systemd/system/sockets.target.wants").exists(), "it is optional");
    // What an administrator has disabled stays so over an upgrade.
    fs::remove_file(&wants).unwrap();
    run("prerm", "upgrade 0.2.0");
    run("postrm", "upgrade 0.2.0");
    run("postinst", "configure 0.1.0");
    assert!(!enabled());
    run("prerm", "remove");
    run("postrm", "remove");
    for folder in ["var/lib/wharf", "var/log/wharf"] {
        fs::create_dir_all(below.join(folder)).unwrap();
    }
    let configuration = below.join("etc/wharf/services.yaml");
    fs::write(&configuration, "services: {}\n").unwrap();
    run("postrm", "purge");
    assert!(!below.join("var/lib/wharf").exists() && !below.join("var/log/wharf").exists());
    assert!(configuration.exists(), "it was an administrator's");
    fs::remove_file(&configuration).unwrap();
    run("postrm", "purge");
    assert!(!below.join("etc/wharf").exists());
}

#[test]
fn the_image_copies_what_exists_and_starts_wharf_without_a_shell() {
    let place = Place::new();
    let text = read("packaging/Dockerfile");
    let mut stages = Vec::new();
    let mut started = Vec::new();
    let mut copied = Vec::new();
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
                        copied.push((*source).to_owned());
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
    // What the manifest names, and what the source takes in, has to be among it.
    let taken = place.run(&format!(
        "grep -rhoE 'include_(str|bytes)!\\(\"[^\"]*' '{}/src' || true",
        root().display()
    ));
    let outside = taken.text.lines().filter_map(|line| line.split_once("../../"));
    let needed =
        ["build.rs", "Cargo.lock", "README.md"].into_iter().chain(outside.map(|(_, path)| path));
    for path in needed {
        let is_there =
            copied.iter().any(|source| path == source || path.starts_with(&format!("{source}/")));
        assert!(is_there, "{path} is not copied: {copied:?}");
    }
    assert_eq!(stages, ["rust:1-slim-bookworm AS build", "debian:bookworm-slim"]);
    assert_eq!(started, ["/usr/bin/wharf", "--system", "up", "--exit-with", "web"]);
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
