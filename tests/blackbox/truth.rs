//! What the kernel says is what the record says: codes, signals, core dumps, failed starts.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Wharf, at, script, send, until};

/// One record of `service`, which has ended for good.
#[track_caller]
fn only(wharf: &Wharf, service: &str) -> Value {
    let mut records = wharf.wait_records(service, 1);
    assert_eq!(records.len(), 1, "{service}");
    records.remove(0)
}

#[test]
fn t2_every_exit_code_is_its_own() {
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

/// Signals whose default is to end a process: 1 to 31 without those of `harmless`, and real-time ones.
fn deadly() -> impl Iterator<Item = i32> {
    (1..=31).filter(|signal| !harmless().any(|other| other == *signal)).chain([34, 50, 64])
}

/// Signals that end nothing: those that are ignored, and those that stop and continue.
fn harmless() -> impl Iterator<Item = i32> {
    [17, 23, 28, 18, 19, 20, 21, 22].into_iter()
}

/// Whether a process is stopped, in the words of proc(5).
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

#[test]
fn t3_every_signal_from_inside_is_its_own() {
    let mut yaml = "defaults: { restart: no, limits: { core: 0 } }\nservices:\n".to_owned();
    for signal in deadly() {
        // Python ignores some, and makes an exception of another.
        let default = "signal.signal(n, signal.SIG_DFL) if n != 9 else 0";
        let python = format!("import os, signal; n = {signal}; {default}; os.kill(os.getpid(), n)");
        let _ = writeln!(yaml, "  s{signal}: {{ command: [python3, -c, '{python}'] }}");
    }
    // What ends nothing: the program goes on to its own end, at once or when it is continued.
    for signal in harmless() {
        let python = format!("import os, sys; os.kill(os.getpid(), {signal}); sys.exit({signal})");
        let _ = writeln!(yaml, "  s{signal}: {{ command: [python3, -c, '{python}'] }}");
    }
    let wharf = Wharf::up(&yaml);
    for signal in deadly() {
        let record = only(&wharf, &format!("s{signal}"));
        check_signal(&record, signal);
        assert_eq!(at(&record, "exit.cause"), "spontaneous");
    }
    for signal in harmless() {
        let name = format!("s{signal}");
        // Those of a terminal stop nobody who has none: see setpgid(2) on orphaned process groups.
        if signal == 19 {
            let pid = until("it to be stopped", || {
                let pid = i32::try_from(wharf.row(&name)["pid"].as_i64()?).ok()?;
                is_stopped(pid).then_some(pid)
            });
            assert_eq!(wharf.row(&name)["state"], "running", "to be stopped is no end");
            send(pid, 18);
        }
        let record = only(&wharf, &name);
        assert_eq!(at(&record, "process.exit.code"), signal, "{record}");
        assert_eq!(at(&record, "exit.signal"), &Value::Null, "{record}");
    }
}

#[test]
fn t3_every_signal_from_outside_is_its_own() {
    let mut yaml = "defaults: { restart: no, limits: { core: 0 } }\nservices:\n".to_owned();
    for signal in deadly() {
        let _ = writeln!(yaml, "  s{signal}: {{ command: [sleep, '1000'] }}");
    }
    yaml += "  lives: { command: [sleep, '1000'] }\n";
    let wharf = Wharf::up(&yaml);
    for signal in deadly() {
        let name = format!("s{signal}");
        wharf.wait_state(&name, "running");
        send(wharf.pid(&name), signal);
        let record = only(&wharf, &name);
        check_signal(&record, signal);
        assert_eq!(at(&record, "exit.cause"), "spontaneous");
    }
    // What ends nothing is no end.
    wharf.wait_state("lives", "running");
    let pid = wharf.pid("lives");
    for signal in harmless() {
        send(pid, signal);
        send(pid, 18);
    }
    send(pid, 15);
    let record = only(&wharf, "lives");
    check_signal(&record, 15);
    assert_eq!(at(&record, "process.pid"), pid);
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
fn t4_a_core_dump_is_told_from_none() {
    let mut yaml = "defaults: { restart: no }\nservices:\n".to_owned();
    for signal in [11, 6] {
        let crash = format!("import os; os.kill(os.getpid(), {signal})");
        let command = format!("command: [python3, -c, '{crash}']");
        let _ = writeln!(yaml, "  with{signal}: {{ {command}, limits: {{ core: 1GiB }} }}");
        let _ = writeln!(yaml, "  without{signal}: {{ {command}, limits: {{ core: 0 }} }}");
    }
    let wharf = Wharf::up(&yaml);
    for (signal, name) in [(11, "SIGSEGV"), (6, "SIGABRT")] {
        let record = only(&wharf, &format!("without{signal}"));
        assert_eq!(at(&record, "exit.signal.name"), name);
        assert_eq!(at(&record, "exit.signal.number"), signal);
        assert_eq!(at(&record, "exit.core_dumped"), false);
        assert_eq!(at(&record, "exit.reason"), "signaled");
        let record = only(&wharf, &format!("with{signal}"));
        assert_eq!(at(&record, "exit.signal.name"), name);
        assert_eq!(at(&record, "exit.signal.number"), signal);
        assert_eq!(at(&record, "exit.core_dumped"), true);
        assert_eq!(at(&record, "exit.how"), "dumped");
        assert_eq!(at(&record, "exit.reason"), "core_dumped");
    }
}

/// What cannot be started: keys beside the command, and the reason, stage and error of its record.
fn unstartable(folder: &std::path::Path) -> Vec<(&'static str, String, [&'static str; 3])> {
    let garbage = script(folder, "garbage", "this is no program\n");
    let orphan = script(folder, "orphan", "#!/no/such/interpreter\n");
    let busy = script(folder, "busy", "#!/bin/sh\n");
    let plain = folder.join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let exec = |errno| ["exec_failed", "exec", errno];
    // One word may be 128 KiB, see execve(2).
    let long = "x".repeat(200_000);
    vec![
        ("enoent", "command: [/no/such/program]".to_owned(), exec("ENOENT")),
        ("nowhere", "command: [no-such-program-anywhere]".to_owned(), exec("ENOENT")),
        ("eacces", format!("command: ['{}']", plain.display()), exec("EACCES")),
        ("folder", "command: [/etc]".to_owned(), exec("EACCES")),
        ("enoexec", format!("command: ['{garbage}']"), exec("ENOEXEC")),
        ("interpreter", format!("command: ['{orphan}']"), exec("ENOENT")),
        ("e2big", format!("command: ['true', '{long}']"), exec("E2BIG")),
        ("etxtbsy", format!("command: ['{busy}']"), exec("ETXTBSY")),
        (
            "dir",
            "command: ['true'], working_dir: /no/such/folder".to_owned(),
            ["setup_failed", "working_dir", "ENOENT"],
        ),
        (
            "user",
            "command: ['true'], user: no-such-user".to_owned(),
            ["setup_failed", "user", "ENOENT"],
        ),
    ]
}

#[test]
fn t5_every_failed_start_has_its_stage_and_error() {
    let mut wharf = Wharf::new("");
    let all = unstartable(&wharf.folder);
    // Whoever writes to a program keeps it from being executed.
    let _held = std::fs::File::options().write(true).open(wharf.folder.join("busy")).unwrap();
    let mut yaml = "defaults: { restart: no }\nservices:\n".to_owned();
    for (service, keys, _) in &all {
        let _ = writeln!(yaml, "  {service}: {{ {keys} }}");
    }
    wharf.write(&yaml);
    wharf.start_foreground();
    for (service, _, [reason, stage, errno]) in &all {
        let record = only(&wharf, service);
        assert_eq!(at(&record, "exit.how"), "not_started", "{service}");
        assert_eq!(at(&record, "exit.reason"), reason, "{service}");
        assert_eq!(at(&record, "exit.stage"), stage, "{service}");
        assert_eq!(at(&record, "exit.errno.name"), errno, "{service}");
        assert_eq!(at(&record, "process.exit"), &Value::Null, "{service}: no code was invented");
        assert_eq!(at(&record, "exit.signal"), &Value::Null, "{service}");
        wharf.wait_state(service, "failed");
    }
    let told = only(&wharf, "interpreter").to_string();
    assert!(told.contains("interpreter or loader that it names is missing"), "{told}");
    assert!(
        wharf.ok(&["why", "dir"]).contains("entering the working directory failed with ENOENT")
    );
    // The machine is everybody's: one start of each that is told within 100 ms shows that nothing waits.
    for (service, ..) in &all {
        let mut took = Vec::new();
        until("a prompt refusal", || {
            let began = std::time::Instant::now();
            let (status, _) = wharf.post(&format!("/v1/services/{service}/start"), b"");
            assert_ne!(status, 200, "{service}");
            took.push(began.elapsed());
            (began.elapsed() < std::time::Duration::from_millis(100)).then_some(())
        });
    }
}

#[test]
fn t5_what_cannot_be_executed_is_not_tried_again_unless_that_is_asked_for() {
    let wharf = Wharf::new("");
    let all = unstartable(&wharf.folder);
    let mut yaml = "services:\n".to_owned();
    let twice = "delay: 10ms, max_delay: 10ms, max_restarts: 2, within: 60s";
    for (service, keys, _) in
        all.iter().filter(|one| ["enoent", "eacces", "enoexec"].contains(&one.0))
    {
        let _ = writeln!(yaml, "  {service}: {{ {keys}, restart: {{ {twice} }} }}");
        let _ =
            writeln!(yaml, "  {service}-again: {{ {keys}, restart: {{ {twice}, never_on: [] }} }}");
    }
    let dir = &all.iter().find(|one| one.0 == "dir").unwrap().1;
    let _ = writeln!(yaml, "  dir-again: {{ {dir}, restart: {{ {twice} }} }}");
    wharf.write(&yaml);
    wharf.ok(&["up", "-d"]);
    for service in ["enoent", "eacces", "enoexec"] {
        wharf.wait_state(service, "failed");
        let record = only(&wharf, service);
        assert_eq!(at(&record, "restart.decision"), "no", "{record}");
    }
    // A folder may come; and whoever wants it has a program tried again too.
    for service in ["enoent-again", "eacces-again", "enoexec-again", "dir-again"] {
        wharf.wait_state(service, "failed");
        let records = wharf.wait_records(service, 3);
        assert_eq!(records.len(), 3, "{service}");
        assert_eq!(at(&records[2], "restart.decision"), "gave_up");
    }
}

/// A program whose log cannot be opened runs, and that its log cannot be opened is said.
#[test]
fn t5_a_missing_log_folder_is_made_and_one_that_cannot_be_is_told() {
    let wharf = Wharf::new("services:\n  s: { command: [sh, -c, 'echo said; exec sleep 1000'] }\n");
    wharf.ok(&["up", "-d"]);
    until("its word", || (wharf.logs("s") == "said\n").then_some(()));
    std::fs::remove_dir_all(wharf.state().join("log")).unwrap();
    wharf.ok(&["restart", "s"]);
    until("its word again", || (wharf.logs("s") == "said\n").then_some(()));
    std::fs::remove_dir_all(wharf.state().join("log")).unwrap();
    std::fs::write(wharf.state().join("log"), "no folder").unwrap();
    wharf.ok(&["restart", "s"]);
    until("the trouble", || {
        let degraded = wharf.manager()["degraded"].to_string();
        degraded.contains("program output waits or is dropped").then_some(())
    });
    wharf.wait_state("s", "running");
    // No end was invented: these are the two restarts.
    let ends = wharf.records_of("s");
    assert!(ends.iter().all(|end| at(end, "exit.cause") == "restart_requested"), "{ends:?}");
}

#[test]
fn t37_a_program_starts_with_what_is_declared_and_nothing_else() {
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

/// Whoever runs wharf may name himself, root or not.
#[test]
fn one_may_be_who_one_is() {
    let own = nix::unistd::geteuid();
    let wharf = Wharf::up(&format!(
        "services:\n  me: {{ command: [id, '-u'], user: '{own}', restart: no }}\n"
    ));
    let record = wharf.wait_records("me", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
    assert_eq!(wharf.logs("me").trim(), own.to_string());
}
