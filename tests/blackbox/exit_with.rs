//! `wharf up --exit-with NAME`, in the foreground and as PID 1: the exit code, the order, what is refused,
//! what is no end, and managers that are killed meanwhile. PID 1 beside it: orphans, signals, an empty
//! namespace.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use crate::support::{Wharf, alive, at, script, send, soaking, until};

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn up(wharf: &Wharf, name: &str) -> Child {
    quiet(&mut wharf.command(&["up", "--exit-with", name])).spawn().unwrap()
}

#[test]
fn wharf_exits_as_the_service_did() {
    let db = "  db: { command: [sh, -c, 'trap \"exit 9\" TERM; touch db; while :; do sleep 0.05; done'] }\n";
    for (web, code) in [
        ("command: [sh, -c, 'exit 0']", 0),
        ("restart: no, command: [sh, -c, 'exit 3']", 3),
        ("restart: no, command: [sh, -c, 'kill -KILL $$$$']", 137),
        ("restart: no, command: [sh, -c, 'kill -SEGV $$$$'], limits: { core: 0 }", 139),
        ("restart: no, command: [./not-there]", 127),
        ("restart: no, command: [./plain]", 126),
        ("restart: no, command: [x], working_dir: ./nowhere", 125),
        // It is given up after two more tries.
        (
            "restart: { delay: 1ms, max_delay: 1ms, max_restarts: 2, within: 60s }, command: [sh, -c, 'exit 4']",
            4,
        ),
        ("restart: no, replicas: 3, command: [sh, -c, 'exit $((WHARF_REPLICA % 2 * 5))']", 5),
        ("restart: { policy: no, success_exit_codes: [0, 7] }, command: [sh, -c, 'exit 7']", 7),
    ] {
        let needs = "depends_on: { db: { condition: service_started } }";
        let wharf = Wharf::new(&format!("services:\n{db}  web: {{ {web}, {needs} }}\n"));
        fs::write(wharf.folder.join("plain"), "no program").unwrap();
        let ended = up(&wharf, "web").wait().unwrap();
        assert_eq!(ended.code(), Some(code), "{web}\n{}", wharf.own_log());
        let record = wharf.records_of("db").pop().unwrap();
        assert_eq!(at(&record, "exit.cause"), "manager_shutdown");
        assert_eq!(at(&record, "exit.requested_by.who"), "--exit-with web");
        // What was needed by it ended after it.
        assert!(record["seq"].as_u64() > wharf.records_of("web").pop().unwrap()["seq"].as_u64());
    }
}

#[test]
fn what_can_never_end_is_refused_by_name() {
    let wharf = Wharf::new(
        "services:
  web: { command: [sleep, '1000'] }
  daily: { command: [sleep, '1000'], schedule: { every: 1d } }
  idle: { command: [sleep, '1000'], profiles: [dev] }
",
    );
    let said = wharf.fails(4, &["up", "--exit-with", "wbe"]);
    assert!(said.contains("there is no service wbe (did you mean web?)"), "{said}");
    let said = wharf.fails(2, &["up", "--exit-with", "daily"]);
    assert!(said.contains("never ends for good"), "{said}");
    let said = wharf.fails(2, &["up", "--exit-with", "idle"]);
    assert!(said.contains("not among what is started"), "{said}");
    let said = wharf.fails(2, &["up", "web", "--exit-with", "idle"]);
    assert!(said.contains("not among what is started"), "{said}");
    wharf.fails(2, &["up", "-d", "--exit-with", "web"]);
    assert!(!wharf.state().join("applied.json").exists(), "nothing was begun");
}

#[test]
fn a_stop_by_hand_and_a_restart_are_no_end_and_a_service_that_cannot_start_is_one() {
    let wharf = Wharf::new(
        "services:
  web: { command: [sh, -c, 'while ! test -e go; do sleep 0.02; done; exit 6'], restart: no }
",
    );
    let mut guardian = up(&wharf, "web");
    wharf.wait_state("web", "running");
    wharf.ok(&["restart", "web"]);
    wharf.ok(&["stop", "web"]);
    // Had that been the end, nobody would answer any more.
    wharf.ok(&["start", "web"]);
    assert!(!wharf.manager()["shutting_down"].as_bool().unwrap());
    fs::write(wharf.folder.join("go"), "").unwrap();
    assert_eq!(guardian.wait().unwrap().code(), Some(6));

    let wharf = Wharf::new(
        "services:
  first: { command: [sh, -c, 'exit 8'], restart: no }
  web: { command: [sleep, '1000'], depends_on: { first: { condition: service_completed_successfully } } }
",
    );
    assert_eq!(up(&wharf, "web").wait().unwrap().code(), Some(1));
    assert!(wharf.records_of("web").is_empty());
}

#[test]
fn who_is_asked_to_end_exits_as_the_service_does_then() {
    for (command, code) in [
        ("touch on; exec sleep 1000", 143),
        ("trap 'exit 0' TERM; touch on; while :; do sleep 0.05; done", 0),
        ("trap 'exit 12' TERM; touch on; while :; do sleep 0.05; done", 12),
    ] {
        let wharf = Wharf::new("services:\n  web: { command: [./web] }\n");
        script(&wharf.folder, "web", &format!("#!/bin/sh\n{command}\n"));
        let mut guardian = up(&wharf, "web");
        until("the program", || wharf.folder.join("on").exists().then_some(()));
        wharf.wait_state("web", "running");
        send(i32::try_from(guardian.id()).unwrap(), 15);
        assert_eq!(guardian.wait().unwrap().code(), Some(code), "{command}");
    }
}

/// The number of the present manager, in its own namespace.
fn manager(wharf: &Wharf) -> Option<i64> {
    let body = wharf.try_get("/v1/manager").ok()?;
    serde_json::from_str::<serde_json::Value>(&body).ok()?["pid"].as_i64()
}

#[test]
fn a_manager_that_is_killed_meanwhile_changes_nothing_of_it() {
    for kept in ["die", "keep"] {
        let wharf = Wharf::new(&format!(
            "services:
  web: {{ command: [sh, -c, 'while ! test -e go; do sleep 0.02; done; exit 5'], restart: no, on_manager_exit: {kept} }}
  other: {{ command: [sleep, '1000'] }}
"
        ));
        let mut guardian = up(&wharf, "web");
        for _ in 0..3 {
            wharf.wait_state("web", "running");
            let before = manager(&wharf).unwrap();
            send(i32::try_from(before).unwrap(), 9);
            until("another manager", || manager(&wharf).filter(|now| *now != before));
        }
        let web = wharf.wait_state("web", "running");
        if kept == "keep" {
            // It ends while no manager runs: the guardian has seen how.
            let (pid, manager) = (web["pid"].as_i64().unwrap(), manager(&wharf).unwrap());
            send(i32::try_from(manager).unwrap(), 19);
            fs::write(wharf.folder.join("go"), "").unwrap();
            until("its end", || (!alive(i32::try_from(pid).unwrap())).then_some(()));
            send(i32::try_from(manager).unwrap(), 9);
        } else {
            fs::write(wharf.folder.join("go"), "").unwrap();
        }
        assert_eq!(guardian.wait().unwrap().code(), Some(5), "{kept}\n{}", wharf.own_log());
    }
}

/// A wharf that is PID 1 of a namespace of its own.
struct Init {
    wharf: Wharf,
    outer: Child,
}

impl Init {
    fn start(yaml: &str, words: &[&str]) -> Self {
        let wharf = Wharf::new(yaml);
        script(&wharf.folder, "orphans.py", ORPHANS);
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.arg(env!("CARGO_BIN_EXE_wharf")).args(words).current_dir(&wharf.folder);
        command.env_remove("WHARF_STATE_DIR");
        let outer = quiet(&mut command).spawn().unwrap();
        until("the socket", || manager(&wharf));
        Self { wharf, outer }
    }

    /// PID 1, by its number here.
    fn pid(&self) -> i32 {
        let outer = i32::try_from(self.outer.id()).unwrap();
        let all = wharf::os::procfs::all().unwrap();
        all.into_iter().find(|one| one.parent == outer).unwrap().pid
    }

    /// The processes of the namespace that is PID 1's, zombies among them.
    fn inside(namespace: &std::path::Path) -> Vec<wharf::os::procfs::Stat> {
        let own = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let all = wharf::os::procfs::all().unwrap().into_iter();
        all.filter(|one| own(one.pid).as_deref() == Some(namespace)).collect()
    }

    /// Kills the manager, by its number here, and waits for the next one.
    fn kill_manager(&self) {
        let before = manager(&self.wharf).unwrap();
        let init = self.pid();
        let all = wharf::os::procfs::all().unwrap();
        let managers = all.into_iter().filter(|one| one.parent == init && !one.is_zombie());
        let is_one = |pid: i32| {
            wharf::os::procfs::arguments(pid).get(1).is_some_and(|word| word == b"manager")
        };
        let pid = managers.map(|one| one.pid).find(|pid| is_one(*pid)).unwrap();
        send(pid, 9);
        until("another manager", || manager(&self.wharf).filter(|now| *now != before));
    }
}

/// Makes so many grandchildren that end when nobody of their own is left to wait for them.
const ORPHANS: &str = "#!/usr/bin/env python3
import os, sys
for number in range(int(sys.argv[1])):
    if number % 1000 == 0: open(sys.argv[2] + f'.{number}', 'w').close()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            while os.getppid() == child: pass
        os._exit(0)
    os.waitpid(child, 0)
open(sys.argv[2], 'w').write('done')
";

#[test]
fn pid_1_adopts_and_reaps_thousands() {
    let count = if soaking() { 20_000 } else { 2_000 };
    let init = Init::start(
        &format!(
            "services:\n  web: {{ command: [sh, -c, './orphans.py {count} one; exec sleep 1000'] }}\n"
        ),
        &["up"],
    );
    let (wharf, pid) = (&init.wharf, init.pid());
    let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    // Each thousand has as long as anything that is waited for.
    for number in (1000..count).step_by(1000) {
        let written = wharf.folder.join(format!("one.{number}"));
        until("a thousand orphans of a service", || written.exists().then_some(()));
    }
    until("the orphans of a service", || wharf.folder.join("one").exists().then_some(()));
    // And those of somebody who came in from outside, as `docker exec` does: they are PID 1's own.
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &pid.to_string(), "--pid", "--mount"]);
    if !nix::unistd::geteuid().is_root() {
        enter.args(["--user", "--preserve-credentials"]);
    }
    enter.arg(wharf.folder.join("orphans.py")).args([count.to_string().as_str(), "two"]);
    enter.current_dir(&wharf.folder);
    assert!(quiet(&mut enter).status().unwrap().success());
    until("no zombie", || {
        (!Init::inside(&namespace).iter().any(wharf::os::procfs::Stat::is_zombie)).then_some(())
    });
    // Not one of them was taken for the service.
    assert_eq!(wharf.row("web")["restarts"], 0);
    assert!(wharf.records().is_empty());
    init.kill_manager();
    wharf.wait_state("web", "running");
    let (status, _) = wharf.http("POST", "/v1/shutdown", b"").unwrap();
    assert_eq!(status, 202);
    let mut init = init;
    assert!(init.outer.wait().unwrap().success());
    assert_eq!(Init::inside(&namespace).len(), 0);
}

#[test]
fn pid_1_obeys_signals_and_leaves_an_empty_namespace() {
    for (signal, code) in [(15, 0), (2, 0), (3, 0)] {
        let mut init = Init::start(
            "services:\n  web: { command: [sh, -c, 'setsid sleep 1000 & exec sleep 1000'] }\n",
            &["up"],
        );
        let pid = init.pid();
        let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        init.wharf.wait_state("web", "running");
        // A hang-up has no terminal to speak of: it is a reload.
        init.wharf.write("services:\n  other: { command: [sleep, '1000'] }\n");
        send(pid, 1);
        init.wharf.wait_state("other", "running");
        init.kill_manager();
        init.wharf.wait_state("other", "running");
        send(pid, signal);
        assert_eq!(init.outer.wait().unwrap().code(), Some(code), "{signal}");
        assert_eq!(Init::inside(&namespace).len(), 0);
    }
}

#[test]
fn pid_1_exits_as_its_service_did_though_its_manager_was_killed() {
    for (end, code) in [("exit 42", 42), ("kill -USR1 $$$$", 138)] {
        let mut init = Init::start(
            &format!(
                "services:
  web: {{ command: [sh, -c, 'while ! test -e go; do sleep 0.02; done; {end}'], restart: no }}
  other: {{ command: [sleep, '1000'] }}
"
            ),
            &["up", "--exit-with", "web"],
        );
        init.wharf.wait_state("web", "running");
        init.kill_manager();
        init.wharf.wait_state("web", "running");
        fs::write(init.wharf.folder.join("go"), "").unwrap();
        let ended = init.outer.wait().unwrap();
        assert_eq!(ended.code(), Some(code), "{:?} {}", ended.signal(), init.wharf.own_log());
        let record = init.wharf.records_of("other").pop().unwrap();
        assert_eq!(at(&record, "exit.requested_by.who"), "--exit-with web");
    }
}
