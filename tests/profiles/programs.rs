//! The programs that transcripts speak to: those of Debian must be there (`make deps`), those of pip
//! and npm are installed under target, once, in the versions that are written down here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::text;
use crate::transcript::Transcript;

/// The `PATH` for a transcript, where every program that it names can be found.
pub(crate) fn path(transcript: &Transcript) -> String {
    // Debian's games are not in everybody's path.
    let usual = std::env::var("PATH").unwrap() + ":/usr/games";
    let path = if transcript.python.is_empty() && transcript.node.is_empty() {
        usual
    } else {
        // npm is one of pip's.
        let mut folders = vec![python().join("bin")];
        if !transcript.node.is_empty() {
            folders.push(node().join("node_modules/.bin"));
        }
        folders.extend(std::env::split_paths(&usual));
        std::env::join_paths(folders).unwrap().into_string().unwrap()
    };
    for pair in &transcript.debian {
        let (program, package) = pair.split_once(':').unwrap();
        let there = found(program, &path);
        assert!(
            there,
            "{program} is missing: install the package {package}, or run `make deps` (`make soak-deps`)"
        );
    }
    for program in transcript.python.iter().chain(&transcript.node) {
        assert!(found(program, &path), "{program} is missing: neither pip nor npm brings it");
    }
    path
}

/// Whether a program is in the path; one with slashes may have a `*` in it.
fn found(program: &str, path: &str) -> bool {
    let script = r#"for found in $1; do command -v "$found" >/dev/null || exit 1; done"#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh", program]).env("PATH", path);
    shell.status().unwrap().success()
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles")
}

fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("profiles").join(name)
}

/// A folder made by `install`, once for what `wanted` says.
fn installed(name: &str, wanted: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let folder = target(name);
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    install(&folder);
    fs::write(stamp, wanted).unwrap();
    folder
}

fn run(what: &str, command: &mut Command) {
    let output = command.output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{what} failed (is there a package index?)\n{said}");
}

/// A virtual environment with what the requirements say.
fn python() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let requirements = tests().join("requirements.txt");
        installed("python", &fs::read_to_string(&requirements).unwrap(), |folder| {
            let venv = ["-m", "venv", "--clear"];
            run("python3 -m venv", Command::new("python3").args(venv).arg(folder));
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
            run("pip install -r tests/profiles/requirements.txt", pip.arg(&requirements));
        })
    })
}

/// A folder with what `package-lock.json` says; no package's own scripts are run.
fn node() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let read = |name: &str| fs::read_to_string(tests().join(name)).unwrap();
        installed("node", &read("package-lock.json"), |folder| {
            for name in ["package.json", "package-lock.json"] {
                fs::write(folder.join(name), read(name)).unwrap();
            }
            let bin = python().join("bin");
            let mut npm = Command::new(bin.join("npm"));
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
            let usual = std::env::var("PATH").unwrap();
            npm.env("PATH", format!("{}:{usual}", bin.display()));
            run("npm ci in tests/profiles", &mut npm);
        })
    })
}
