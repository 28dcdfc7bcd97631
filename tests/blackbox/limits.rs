//! Limits: each is in force, and everybody is told by what; what cannot be enforced is said or refused.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::Value;

use crate::support::{Wharf, at, send, text, until};

/// The limits that every kernel has, as they are written and as /proc/PID/limits shows them.
const EVERYWHERE: &[(&str, &str, &str, &str)] = &[
    ("core", "4096", "Max core file size", "4096"),
    ("nofile", "99", "Max open files", "99"),
    ("nproc", "9999", "Max processes", "9999"),
    ("stack", "1MiB", "Max stack size", "1048576"),
    ("as", "1GiB", "Max address space", "1073741824"),
    ("data", "512MiB", "Max data size", "536870912"),
    ("fsize", "unlimited", "Max file size", "unlimited"),
    ("memlock", "16KiB", "Max locked memory", "16384"),
    ("cpu", "1m30s", "Max cpu time", "90"),
    ("msgqueue", "4KiB", "Max msgqueue size", "4096"),
    ("sigpending", "77", "Max pending signals", "77"),
    ("rtprio", "0", "Max realtime priority", "0"),
];

#[test]
fn every_limit_of_a_process_is_in_force_and_told() {
    let written: Vec<_> =
        EVERYWHERE.iter().map(|(key, value, ..)| format!("{key}: {value}")).collect();
    let wharf = Wharf::up(&format!(
        "services:\n  s: {{ command: [cat, /proc/self/limits], restart: no, limits: {{ {} }} }}\n",
        written.join(", ")
    ));
    let record = wharf.wait_records("s", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
    let said = wharf.logs("s");
    for (key, _, name, value) in EVERYWHERE {
        let line = said.lines().find(|line| line.contains(name)).unwrap();
        let mut shown = line.split(name).nth(1).unwrap().split_whitespace();
        // The kernel kills what goes on for 5 s more of processor time than it was told to end at.
        let hard = if *key == "cpu" { "95" } else { value };
        assert_eq!((shown.next(), shown.next()), (Some(*value), Some(hard)), "{key}: {line}");
    }
    let limits = wharf.row("s")["limits"].clone();
    for (key, ..) in EVERYWHERE {
        let told = limits.as_array().unwrap().iter().find(|one| one["limit"] == *key).unwrap();
        let name = format!("setrlimit RLIMIT_{}", key.to_uppercase());
        assert_eq!(told["enforced_by"], name.as_str(), "{limits}");
    }
    let status = text(&wharf.run(&["status", "s"]).stdout);
    assert!(status.contains("Limits: core 4KiB: setrlimit RLIMIT_CORE\n"), "{status}");
    assert!(status.contains("              cpu 1m30s: setrlimit RLIMIT_CPU\n"), "{status}");
}

#[test]
fn processor_time_that_is_spent_is_told_as_the_limit_it_was() {
    let deaf = "trap '' XCPU; while :; do :; done";
    let wharf = Wharf::up(&format!(
        "defaults: {{ restart: no, limits: {{ cpu: 1s }} }}\nservices:\n  \
         loop: {{ command: [sh, -c, 'while :; do :; done'] }}\n  \
         deaf: {{ command: [sh, -c, \"{deaf}\"] }}\n  \
         killed: {{ command: [sleep, '1000'] }}\n"
    ));
    let told = wharf.wait_records("loop", 1).remove(0);
    assert_eq!(at(&told, "exit.reason"), "resource_limit", "{told}");
    assert_eq!(at(&told, "exit.signal.name"), "SIGXCPU");
    let told = wharf.wait_records("deaf", 1).remove(0);
    assert_eq!(at(&told, "exit.reason"), "resource_limit", "{told}");
    assert_eq!(at(&told, "exit.signal.name"), "SIGKILL");
    assert_eq!(at(&told, "exit.certainty"), "inferred");
    assert!(at(&told, "exit.evidence").to_string().contains("limits.cpu"), "{told}");
    send(wharf.pid("killed"), 9);
    let told = wharf.wait_records("killed", 1).remove(0);
    assert_eq!(at(&told, "exit.reason"), "signaled", "{told}");
}

/// Forks until it cannot, tells how often it could, and burns the processor for a second.
const GREEDY: &str = r"
import os, time
count = 0
while count < 500:
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except BlockingIOError:
        break
    count += 1
start = time.monotonic()
before = time.process_time()
while time.monotonic() - start < 1: pass
print('forked', count, 'used', time.process_time() - before, flush=True)
time.sleep(1000)
";

#[test]
fn what_control_groups_limit_is_in_force_and_told() {
    let wharf = Wharf::new(
        "services:
  s:
    command: [python3, greedy]
    limits: { pids: 40, cpus: 0.2, memory: 300MiB }
",
    );
    std::fs::write(wharf.folder.join("greedy"), GREEDY).unwrap();
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("s", "running");
    let limits = wharf.row("s")["limits"].clone();
    let told = |name: &str| {
        limits.as_array().unwrap().iter().find(|one| one["limit"] == name).unwrap().clone()
    };
    let said = until("what it did", || wharf.logs("s").lines().next().map(str::to_owned));
    let words: Vec<_> = said.split_whitespace().collect();
    let forked: u32 =
        words.iter().skip_while(|word| **word != "forked").nth(1).unwrap().parse().unwrap();
    let used: f64 = words.last().unwrap().parse().unwrap();
    if told("pids")["enforced_by"].is_string() {
        assert_eq!(forked, 39, "{said}");
    }
    if told("cpus")["enforced_by"].is_string() {
        // Its share of a second, and what is left of the first period.
        assert!(used < 0.45, "{said}");
    }
    for (name, files) in [
        ("memory", ["cgroup v1 memory.limit_in_bytes", "cgroup v2 memory.max"]),
        ("cpus", ["cgroup v1 cpu.cfs_quota_us", "cgroup v2 cpu.max"]),
        ("pids", ["cgroup v1 pids.max", "cgroup v2 pids.max"]),
    ] {
        let one = told(name);
        match one["enforced_by"].as_str() {
            Some(by) => assert!(files.contains(&by), "{one}"),
            None => assert!(one["not_enforced"].is_string(), "{one}"),
        }
    }
    let status = text(&wharf.run(&["status", "s"]).stdout);
    assert!(status.contains("Limits: memory 300MiB: "), "{status}");
    wharf.ok(&["down"]);
    let left = |root: &str| {
        let found = Command::new("find").args([root, "-maxdepth", "8", "-name", "s.1"]).output();
        text(&found.unwrap().stdout)
    };
    for hierarchy in ["pids", "cpu", "memory"] {
        let left = left(&format!("/sys/fs/cgroup/{hierarchy}"));
        let realm = wharf.read(".wharf/live");
        assert!(!left.contains("wharf-") || !realm.is_empty(), "{left}");
    }
}

const UNENFORCED: &str = "cgroups: off
services:
  goes-on: { command: [sleep, '1000'], limits: { memory: 50MiB } }
  refused: { command: [sleep, '1000'], restart: no, limits: { memory: 50MiB, required: true } }
";

#[test]
fn what_cannot_be_enforced_is_said_or_refused() {
    let wharf = Wharf::new(UNENFORCED);
    let checked = wharf.run(&["check"]);
    assert!(checked.status.success());
    let warned = text(&checked.stderr);
    let words = "memory 50MiB of goes-on is not enforced here: cgroups: off";
    assert!(warned.contains(words), "{warned}");
    assert!(warned.contains("refused would not be started here"), "{warned}");
    let json: Value = serde_json::from_str(&wharf.ok(&["check", "--json"])).unwrap();
    assert!(json["machine"].to_string().contains(words), "{json}");

    wharf.ok(&["up", "-d"]);
    wharf.wait_state("goes-on", "running");
    let status = wharf.ok(&["status", "goes-on"]);
    assert!(status.contains("Limits: memory 50MiB: not enforced: cgroups: off"), "{status}");
    let degraded = wharf.manager()["degraded"].to_string();
    assert!(
        degraded.contains("memory 50MiB of goes-on is not enforced: cgroups: off"),
        "{degraded}"
    );
    wharf.ok(&["stop", "goes-on"]);
    let record = wharf.wait_records("goes-on", 1).remove(0);
    let evidence = at(&record, "exit.evidence").to_string();
    assert!(evidence.contains("memory 50MiB: not enforced: cgroups: off"), "{record}");

    let record = wharf.wait_records("refused", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "setup_failed", "{record}");
    assert_eq!(at(&record, "exit.stage"), "limits");
    assert_eq!(at(&record, "exit.errno.name"), "ENOTSUP");
    let why = wharf.ok(&["why", "refused"]);
    assert!(why.contains("memory 50MiB cannot be enforced: cgroups: off"), "{why}");
}

/// What an ordinary user may not do, which step says so, and in which words.
const REFUSED: &[(&str, &str, &str, &str, &str)] = &[
    ("files", "limits: { nofile: 1073741816 }", "limits", "EPERM", "RLIMIT_NOFILE 1073741816"),
    ("priority", "nice: -20", "priority", "EACCES", "nice -20 is a higher priority than ours"),
    ("oom", "oom_score_adj: -900", "priority", "EACCES", "oom_score_adj -900 is lower than ours"),
    ("caps", "cap_drop: [NET_RAW]", "privileges", "EPERM", "CAP_NET_RAW cannot be taken"),
    ("groups", "group_add: [0]", "user", "EPERM", "joining the groups 0 takes CAP_SETUID"),
    ("other", "user: root", "user", "EPERM", "becoming root takes CAP_SETUID"),
    ("nobody", "user: no-such-user", "user", "ENOENT", "no such user or group"),
    ("nogroup", "group_add: [no-such-group]", "user", "ENOENT", "no such user or group"),
];

#[test]
fn what_an_ordinary_user_may_not_do_is_refused_with_a_clear_word() {
    let mut yaml = "defaults: { restart: no, command: 'true' }\nservices:\n".to_owned();
    for (name, key, ..) in REFUSED {
        let _ = writeln!(yaml, "  {name}: {{ {key} }}");
    }
    // And what he may: his own groups, fewer rights than nobody has, a lower priority.
    yaml += "  may:
    command: [grep, -E, 'CapBnd|NoNewPrivs', /proc/self/status]
    cap_drop: [ALL]
    no_new_privileges: true
    nice: 15
    oom_score_adj: 900
    umask: '077'
    limits: { nofile: 64, core: 0 }
";
    let wharf = Wharf::new(&yaml);
    let folder = wharf.folder.clone();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let binary = folder.join("wharf");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_wharf")).arg(&binary).status().unwrap();
    assert!(copied.success());
    let mut command = Command::new(&binary);
    command.args(["up", "-d"]).current_dir(&folder).stdin(std::process::Stdio::null());
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let up = command.output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    for (name, _, stage, errno, words) in REFUSED {
        let record = wharf.wait_records(name, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "setup_failed", "{record}");
        assert_eq!(at(&record, "exit.stage"), stage, "{record}");
        assert_eq!(at(&record, "exit.errno.name"), errno, "{record}");
        let evidence = at(&record, "exit.evidence").to_string();
        assert!(evidence.contains(words), "{name}: {evidence}");
    }
    let record = wharf.wait_records("may", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
    assert!(wharf.logs("may").contains("NoNewPrivs:\t1"));
}
