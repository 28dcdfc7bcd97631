//! Every SDK keeps every rule of wire protocol 1: its example program under the conformance runner. And
//! the runner notices a rule that is broken.

#![expect(clippy::disallowed_types, reason = "a test starts programs")]
#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]

#[path = "../examples/conformance/rules.rs"]
mod rules;
#[path = "../examples/conformance/subject.rs"]
mod subject;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rules::RULES;
use subject::Bench;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bench(command: &[&str], call: &'static str) -> Bench {
    Bench {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        payload: call.into(),
        patience: Duration::from_secs(30),
    }
}

/// The rules that a program breaks, with what speaks against it.
fn broken(bench: &Bench) -> Vec<String> {
    let verdict = |rule: &rules::Rule| {
        (rule.holds)(bench).err().map(|why| format!("{} ({}): {why}", rule.name, rule.about))
    };
    RULES.iter().filter_map(verdict).collect()
}

#[track_caller]
fn keeps_all(bench: &Bench) {
    let broken = broken(bench);
    assert!(broken.is_empty(), "{:?} breaks\n{}", bench.command, broken.join("\n"));
}

fn example(path: &str) -> String {
    root().join("sdk").join(path).to_str().unwrap().to_owned()
}

#[test]
fn the_sdk_for_python_keeps_every_rule() {
    let program = example("python/examples/adder.py");
    keeps_all(&bench(&["python3", &program], r#"{"op":"add","args":[1,2]}"#));
    // A reply in parts is an answer too.
    keeps_all(&bench(&["python3", &program], r#"{"op":"count","to":3}"#));
}

#[test]
fn the_sdk_for_node_keeps_every_rule() {
    keeps_all(&bench(&["node", &example("node/examples/words.js")], "three small words"));
}

/// Builds the SDK for C with its own Makefile; gives its example.
fn upper() -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-c");
    let made = Command::new("make")
        .args(["--silent", "CFLAGS=-O1 -g -Werror", "all"])
        .arg(format!("BUILD={}", build.display()))
        .current_dir(root().join("sdk/c"))
        .status()
        .unwrap();
    assert!(made.success());
    build.join("upper")
}

#[test]
fn the_sdk_for_c_keeps_every_rule() {
    keeps_all(&bench(&[upper().to_str().unwrap()], "small letters"));
}

#[test]
fn the_sdk_for_the_shell_keeps_every_rule() {
    for shell in ["sh", "bash"] {
        keeps_all(&bench(&[shell, &example("shell/examples/greeter.sh")], "whoever \"you\" are"));
    }
}

/// A program that does everything right but one thing is found out, by the rule that it breaks.
#[test]
fn the_runner_notices_what_is_broken() {
    let library = std::fs::read_to_string(example("shell/wharf-port.sh")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("examples")).unwrap();
    let program = folder.path().join("examples/greeter.sh");
    std::fs::copy(example("shell/examples/greeter.sh"), &program).unwrap();
    for (right, wrong, rule) in [
        (r#"{\"k\":\"hello\""#, r#"{\"k\":\"log\""#, "hello"),
        (r#"{"k":"ready""#, r#"{"k":"ping""#, "ready"),
        (r#"{\"k\":\"reply\",\"id\":$1,\"t\""#, r#"{\"k\":\"reply\",\"id\":3,\"t\""#, "reply"),
        (r#"{\"k\":\"pong\",\"id\":${port_id%%[!0-9]*}}"#, r#"{\"k\":\"pong\"}"#, "ping"),
        (r"exec 3>&1 4<&0 </dev/null >&2", r"exec 3>&1 4<&0 </dev/null; echo hi", "hello"),
        ("| exit | ready | x-*)", "| exit | ready)", "unknown-kind"),
        ("drain) break ;;", "drain) ;;", "drain"),
        ("3>/dev/null >&2", ">&2", "noreply"),
        ("if ! port_heeds", "if false && port_heeds", "critical"),
    ] {
        assert!(library.contains(right), "{right}");
        std::fs::write(folder.path().join("wharf-port.sh"), library.replace(right, wrong)).unwrap();
        let mut bench = bench(&["sh", program.to_str().unwrap()], "you");
        // What never comes need not be waited for long.
        bench.patience = Duration::from_secs(2);
        let one = RULES.iter().find(|one| one.name == rule).unwrap();
        assert!((one.holds)(&bench).is_err(), "{wrong} is not noticed by {rule}");
    }
}

/// Every rule stands in the specification, and every one that stands there is tried.
#[test]
fn the_specification_and_the_runner_have_the_same_rules() {
    let document = std::fs::read_to_string(root().join("docs/PROTOCOL.md")).unwrap();
    let marked = document.split("**`").skip(1).filter_map(|at| at.split_once("`**"));
    let mut named: Vec<_> = marked.map(|(name, _)| name).collect();
    named.sort_unstable();
    named.dedup();
    let mut tried: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    tried.sort_unstable();
    assert_eq!(named, tried);
}
