//! What the kernel says is what the record says: codes, signals, core dumps, failed starts.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Wharf, at, script, send};

/// One record of `service`, which has ended for good.
#[track_caller]
fn only(wharf: &Wharf, service: &str) -> Value {
    let mut records = wharf.wait_records(service, 1);
    assert_eq!(records.len(), 1, "{service}");
    records.remove(0)
}

#[test]
fn every_exit_code_is_its_own() {
    let codes = [0, 1, 7, 126, 127, 128, 137, 255];
    let mut yaml = "defaults: { restart: no }\nservices:\n".to_owned();
    for code in codes {
        let _ = writeln!(yaml, "  c{code}: {{ command: [sh, -c, 'exit {code}'] }}");
    }
    let wharf = Wharf::up(&yaml);
    for code in codes {
        let record = only(&wharf, &format!("c{code}"));
        assert_eq!(at(&record, "process.exit.code"), code);
        assert_eq!(at(&record, "exit.how"), "exited");
        assert_eq!(at(&record, "exit.reason"), if code == 0 { "completed" } else { "failed" });
        assert_eq!(at(&record, "exit.cause"), "spontaneous");
        assert_eq!(at(&record, "exit.signal"), &Value::Null);
        let state = if code == 0 { "finished" } else { "failed" };
        wharf.wait_state(&format!("c{code}"), state);
    }
}

/// Signals whose default is to end a process: 1 to 31 without those that stop, continue or are
/// ignored, and two real-time ones.
fn deadly() -> impl Iterator<Item = i32> {
    (1..=31).filter(|signal| ![17, 18, 19, 20, 21, 22, 23, 28].contains(signal)).chain([34, 64])
}

#[test]
fn every_signal_from_inside_is_its_own() {
    let mut yaml = "defaults: { restart: no, limits: { core: 0 } }\nservices:\n".to_owned();
    for signal in deadly() {
        let python = format!("import os; os.kill(os.getpid(), {signal})");
        let _ = writeln!(yaml, "  s{signal}: {{ command: [python3, -c, '{python}'] }}");
    }
    let wharf = Wharf::up(&yaml);
    for signal in deadly().filter(|signal| ![2, 13, 25].contains(signal)) {
        check_signal(&only(&wharf, &format!("s{signal}")), signal);
    }
    // Python makes an exception of SIGINT, and then dies of it all the same; SIGPIPE and SIGXFSZ it ignores.
    check_signal(&only(&wharf, "s2"), 2);
    for ignored in ["s13", "s25"] {
        assert_eq!(at(&only(&wharf, ignored), "process.exit.code"), 0);
    }
}

#[test]
fn every_signal_from_outside_is_its_own() {
    let mut yaml = "defaults: { restart: no, limits: { core: 0 } }\nservices:\n".to_owned();
    for signal in deadly() {
        let _ = writeln!(yaml, "  s{signal}: {{ command: [sleep, '1000'] }}");
    }
    let wharf = Wharf::up(&yaml);
    for signal in deadly() {
        let name = format!("s{signal}");
        wharf.wait_state(&name, "running");
        send(wharf.pid(&name), signal);
        let record = only(&wharf, &name);
        check_signal(&record, signal);
        assert_eq!(at(&record, "exit.cause"), "spontaneous");
    }
}

#[track_caller]
fn check_signal(record: &Value, signal: i32) {
    assert_eq!(at(record, "exit.signal.number"), signal, "{record}");
    let name = wharf::exit::Signal::new(signal).unwrap().to_string();
    assert_eq!(at(record, "exit.signal.name"), name.as_str());
    assert_eq!(at(record, "exit.how"), "signaled");
    assert_eq!(at(record, "exit.core_dumped"), false);
    assert_eq!(at(record, "process.exit"), &Value::Null, "a signal is no code");
    let limit = [24, 25].contains(&signal);
    assert_eq!(at(record, "exit.reason"), if limit { "resource_limit" } else { "signaled" });
}

#[test]
fn a_core_dump_is_told_from_none() {
    let crash = "import os; os.kill(os.getpid(), 11)";
    let wharf = Wharf::up(&format!(
        "defaults: {{ restart: no }}
services:
  with: {{ command: [python3, -c, '{crash}'], limits: {{ core: 1GiB }} }}
  without: {{ command: [python3, -c, '{crash}'], limits: {{ core: 0 }} }}
"
    ));
    let record = only(&wharf, "without");
    assert_eq!(at(&record, "exit.core_dumped"), false);
    assert_eq!(at(&record, "exit.reason"), "signaled");
    let record = only(&wharf, "with");
    assert_eq!(at(&record, "exit.signal.name"), "SIGSEGV");
    assert_eq!(at(&record, "exit.core_dumped"), true);
    assert_eq!(at(&record, "exit.how"), "dumped");
    assert_eq!(at(&record, "exit.reason"), "core_dumped");
}

#[test]
fn every_failed_start_has_its_stage_and_error() {
    let mut wharf = Wharf::new("");
    let folder = wharf.folder.clone();
    let garbage = script(&folder, "garbage", "this is no program\n");
    let orphan = script(&folder, "orphan", "#!/no/such/interpreter\n");
    let plain = folder.join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let plain = plain.to_str().unwrap();
    wharf.write(&format!(
        "defaults: {{ restart: no }}
services:
  enoent: {{ command: [/no/such/program] }}
  nowhere: {{ command: [no-such-program-anywhere] }}
  eacces: {{ command: ['{plain}'] }}
  folder: {{ command: [/etc] }}
  enoexec: {{ command: ['{garbage}'] }}
  interpreter: {{ command: ['{orphan}'] }}
  dir: {{ command: ['true'], working_dir: /no/such/folder }}
  user: {{ command: ['true'], user: no-such-user }}
"
    ));
    wharf.start_foreground();
    for (service, reason, stage, errno) in [
        ("enoent", "exec_failed", "exec", "ENOENT"),
        ("nowhere", "exec_failed", "exec", "ENOENT"),
        ("eacces", "exec_failed", "exec", "EACCES"),
        ("folder", "exec_failed", "exec", "EACCES"),
        ("enoexec", "exec_failed", "exec", "ENOEXEC"),
        ("interpreter", "exec_failed", "exec", "ENOENT"),
        ("dir", "setup_failed", "working_dir", "ENOENT"),
        ("user", "setup_failed", "user", "ENOENT"),
    ] {
        let record = only(&wharf, service);
        assert_eq!(at(&record, "exit.how"), "not_started", "{service}");
        assert_eq!(at(&record, "exit.reason"), reason, "{service}");
        assert_eq!(at(&record, "exit.stage"), stage, "{service}");
        assert_eq!(at(&record, "exit.errno.name"), errno, "{service}");
        assert_eq!(at(&record, "process.exit"), &Value::Null, "{service}: no code was invented");
        assert_eq!(at(&record, "exit.signal"), &Value::Null, "{service}");
        assert_eq!(wharf.row(service)["state"], "failed");
    }
    let told = only(&wharf, "interpreter").to_string();
    assert!(told.contains("interpreter or loader that it names is missing"), "{told}");
    assert!(
        wharf.ok(&["why", "dir"]).contains("entering the working directory failed with ENOENT")
    );
}

#[test]
fn a_program_starts_with_what_is_declared_and_nothing_else() {
    let wharf = Wharf::new(
        "services:
  env:
    command: [sh, -c, 'env | sort; ls /proc/self/fd | tr \"\\n\" \" \"; grep Sig /proc/self/status']
    restart: no
    environment: { GREETING: hello }
",
    );
    let mut command = wharf.command(&["up", "-d"]);
    command.env("LEAKED", "1").env("LANG", "C.UTF-8").env("TZ", "UTC").env("USER", "somebody");
    assert!(command.status().unwrap().success());
    only(&wharf, "env");
    let said = wharf.logs("env");
    let names: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .filter(|name| *name != "PWD" && *name != "_" && *name != "OLDPWD")
        .collect();
    let expected = [
        "GREETING",
        "HOME",
        "LANG",
        "PATH",
        "TZ",
        "USER",
        "WHARF_INCARNATION",
        "WHARF_REPLICA",
        "WHARF_SERVICE",
    ];
    assert_eq!(names, expected, "{said}");
    assert!(said.contains("0 1 2 3 "), "descriptor 3 is ls's own: {said}");
    assert!(said.contains("SigIgn:\t0000000000000000"), "{said}");
    assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
}
