//! What the guardian keeps while managers die and are replaced: what a kept run started, the sockets at
//! which it is heard and at which it listens, the way to the manager, and the binary of the manager.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::keep::kill_manager;
use crate::support::{
    LIMIT, Wharf, alive, at, compiled, script, send, text, until, wait_gone, with_argument,
};

#[test]
fn a_guardian_that_cannot_write_its_log_goes_on() {
    let mut wharf = Wharf::new(
        "services:
  web: { command: [sleep, '1000'], on_manager_exit: keep }
",
    );
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    wharf.start_foreground_to(full.into());
    wharf.wait_state("web", "running");
    let (pid, guardian) = (wharf.pid("web"), wharf.guardian_pid());
    for _ in 0..2 {
        kill_manager(&wharf);
        wharf.wait_state("web", "running");
    }
    assert_eq!((wharf.pid("web"), wharf.guardian_pid()), (pid, guardian));
    wharf.ok(&["down"]);
    assert!(!alive(pid));
}

/// Times to sleep that no other test has.
fn naps(salt: u32) -> [String; 4] {
    [0, 1, 2, 3].map(|number| format!("9{}.{salt}{number}", std::process::id()))
}

/// Those of these that are slept, each by whom.
fn sleepers(naps: &[String]) -> Vec<i32> {
    let mut all: Vec<i32> = naps.iter().flat_map(|nap| with_argument(nap)).collect();
    all.sort_unstable();
    all
}

/// A program that starts others which hide: in sessions of their own, without parents, with no
/// environment.
fn hiding([first, second, third, own]: &[String; 4]) -> String {
    format!(
        "env -i setsid sh -c \"sleep {first} & exit 0\"; setsid sh -c \"sleep {second} & exit 0\"; \
         env -i setsid sleep {third} & exec sleep {own}"
    )
}

#[test]
fn what_hides_is_spared_with_a_kept_run_and_swept_with_it() {
    for (salt, cgroups) in [(1, "auto"), (2, "off")] {
        let naps = naps(salt);
        let wharf = Wharf::up(&format!(
            "cgroups: {cgroups}
services:
  tree:
    command: [sh, -c, '{}']
    on_manager_exit: keep
",
            hiding(&naps)
        ));
        wharf.wait_state("tree", "running");
        let four = || Some(sleepers(&naps)).filter(|all| all.len() == 4);
        let before = until("four processes", four);
        kill_manager(&wharf);
        wharf.wait_state("tree", "running");
        assert_eq!(sleepers(&naps), before, "{cgroups}: {}", wharf.own_log());
        wharf.ok(&["upgrade"]);
        assert_eq!(sleepers(&naps), before, "{cgroups}: {}", wharf.own_log());
        // A restart leaves nothing of the old run beside the new one.
        wharf.ok(&["restart", "tree"]);
        let after = until("four others", || {
            four().filter(|all| all.iter().all(|pid| !before.contains(pid)))
        });
        kill_manager(&wharf);
        wharf.wait_state("tree", "running");
        assert_eq!(sleepers(&naps), after);
        wharf.ok(&["stop", "tree"]);
        until("all to be gone", || sleepers(&naps).is_empty().then_some(()));
        let told = wharf.ok(&["events", "--json", "--since", "1h", "--kind", "cleaned"]);
        assert!(told.contains("\"killed\":["), "{told}");
        wharf.ok(&["down"]);
    }
}

#[test]
fn what_a_run_started_that_cannot_be_taken_over_ends_with_it() {
    let naps = naps(3);
    let wharf = Wharf::up(&format!(
        "cgroups: off
services:
  tree:
    command: [sh, -c, '{}']
    on_manager_exit: keep
",
        hiding(&naps)
    ));
    wharf.wait_state("tree", "running");
    let four = || Some(sleepers(&naps)).filter(|all| all.len() == 4);
    let before = until("four processes", four);
    // A configuration that no manager has come to taking over.
    let (guardian, manager) = (wharf.guardian_pid(), wharf.manager_pid());
    send(guardian, 19);
    send(manager, 9);
    wait_gone(manager);
    let applied = wharf::state::StateDir::project(&wharf.state());
    let mut changed = applied.read_applied().unwrap();
    let service = changed.spec.services.values_mut().next().unwrap();
    std::sync::Arc::make_mut(service).environment.insert("MORE".to_owned(), "1".to_owned());
    applied.write_applied(&changed).unwrap();
    send(guardian, 18);
    let after =
        until("four others", || four().filter(|all| all.iter().all(|pid| !before.contains(pid))));
    assert!(after.iter().all(|pid| alive(*pid)));
    wharf.ok(&["down"]);
    assert!(sleepers(&naps).is_empty());
}

/// A program whose environment is overwritten, as setproctitle(3) does it, and which ends where it is not
/// heard.
const SPEAKER: &str = r#"
#include <stddef.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/un.h>
extern char **environ;
int main(void) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    const char *name = getenv("NOTIFY_SOCKET");
    size_t length = strlen(name);
    memcpy(to.sun_path, name, length);
    to.sun_path[0] = 0;
    char *end = environ[0];
    for (char **one = environ; *one; one++) end = *one + strlen(*one);
    memset(environ[0], 'x', end - environ[0]);
    int out = socket(AF_UNIX, SOCK_DGRAM, 0);
    const char *word = "READY=1";
    for (;;) {
        if (sendto(out, word, strlen(word), 0, (struct sockaddr *)&to,
                   offsetof(struct sockaddr_un, sun_path) + length) < 0)
            return 9;
        word = "WATCHDOG=1";
        usleep(5000);
    }
}
"#;

#[test]
fn a_program_is_heard_over_deaths_and_upgrades_and_never_refused() {
    let wharf = Wharf::new(
        "services:
  speaker:
    command: [./speaker]
    ready: { notify: systemd }
    watchdog: 2s
    on_manager_exit: keep
",
    );
    compiled(&wharf.folder, "speaker", SPEAKER);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("speaker", "running");
    let pid = wharf.pid("speaker");
    for _ in 0..3 {
        kill_manager(&wharf);
        wharf.ok(&["upgrade"]);
    }
    // While there is no manager at all it waits to be heard.
    let (guardian, manager) = (wharf.guardian_pid(), wharf.manager_pid());
    send(guardian, 19);
    send(manager, 9);
    wait_gone(manager);
    let waits = || fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok().then_some(());
    until("it to be there", waits);
    send(guardian, 18);
    let since = Instant::now();
    until("the time of its watchdog to pass", || {
        (since.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    assert_eq!(wharf.wait_state("speaker", "running")["pid"], pid, "{}", wharf.own_log());
    assert!(wharf.records().is_empty(), "{:?}", wharf.records());
}

fn executable(pid: i32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_takes_the_place_of_an_upgraded_binary_is_not_started() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sleep, '1000'], on_manager_exit: keep }
",
    );
    wharf.wait_state("web", "running");
    let pid = wharf.pid("web");
    let next = wharf.folder.join("next");
    fs::copy(env!("CARGO_BIN_EXE_wharf"), &next).unwrap();
    wharf.ok(&["upgrade", "./next"]);
    script(&wharf.folder, "broken", "#!/bin/sh\nexit 1\n");
    fs::rename(wharf.folder.join("broken"), &next).unwrap();
    for _ in 0..2 {
        kill_manager(&wharf);
        assert_eq!(executable(wharf.manager_pid()), format!("{} (deleted)", next.display()));
    }
    // One that comes to serve and later does not is given up for the guardian's own.
    let real = env!("CARGO_BIN_EXE_wharf");
    let flag = wharf.folder.join("broken-now");
    let test = format!("test -e {} && exit 1", flag.display());
    let fickle = format!("#!/bin/sh\n{test}\nexec {real} \"$@\"\n");
    script(&wharf.folder, "fickle", &fickle);
    let said = wharf.run(&["upgrade", "./fickle"]);
    assert!(executable(wharf.manager_pid()).ends_with("/wharf"), "{}", text(&said.stderr));
    fs::write(&flag, "").unwrap();
    kill_manager(&wharf);
    assert_eq!(wharf.wait_state("web", "running")["pid"], pid);
    let log = wharf.own_log();
    assert!(log.contains("does not come to serve; this one is tried"), "{log}");
    // A script that was changed is not what was asked for.
    fs::remove_file(&flag).unwrap();
    wharf.run(&["upgrade", "./fickle"]);
    script(&wharf.folder, "other", "#!/bin/sh\nexit 1\n");
    fs::rename(wharf.folder.join("other"), wharf.folder.join("fickle")).unwrap();
    kill_manager(&wharf);
    assert_eq!(wharf.wait_state("web", "running")["pid"], pid);
    let log = wharf.own_log();
    assert!(log.contains("the binary of the last manager cannot be started; this one is"), "{log}");
}

fn listening(wharf: &Wharf, path: &Path) {
    until("it to listen", || path.exists().then_some(()));
    wharf.wait_state("web", "running");
}

#[test]
fn what_took_the_place_of_a_sockets_file_is_left_alone_over_a_death() {
    let wharf = Wharf::up(
        "services:
  web:
    command: [sleep, '1000']
    on_manager_exit: keep
    listen: [{ name: s, unix: s.sock }]
",
    );
    let path = wharf.folder.join("s.sock");
    listening(&wharf, &path);
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    kill_manager(&wharf);
    wharf.wait_state("web", "running");
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode, "it is the same socket");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let mode = fs::symlink_metadata(&path).unwrap().mode();
    kill_manager(&wharf);
    wharf.wait_state("web", "running");
    wharf.ok(&["stop", "web"]);
    wharf.ok(&["down"]);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode(), mode);
}

/// Holds a process at the last step of its end (ptrace(2), `PTRACE_O_TRACEEXIT`), as a file system that
/// hangs does, until its own input ends.
const HOLDER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/ptrace.h>
int main(int count, char **words) {
    if (ptrace(PTRACE_SEIZE, atoi(words[1]), 0, PTRACE_O_TRACEEXIT)) return 9;
    printf("held\n");
    fflush(stdout);
    getchar();
    return 0;
}
"#;

/// A program that lets anybody trace it.
const TRACEABLE: &str = r#"
#include <sys/prctl.h>
#include <unistd.h>
int main(void) {
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    write(1, "x\n", 2);
    for (;;) pause();
}
"#;

#[test]
fn what_cannot_be_killed_at_a_managers_death_is_told_and_gets_no_second_copy() {
    for cgroups in ["auto", "off"] {
        let wharf = Wharf::new(&format!(
            "cgroups: {cgroups}
services:
  held: {{ command: [./traceable], restart: always, stop_grace_period: 100ms }}
  other: {{ command: [sleep, '1000'] }}
"
        ));
        compiled(&wharf.folder, "traceable", TRACEABLE);
        let holder = compiled(&wharf.folder, "holder", HOLDER);
        wharf.ok(&["up", "-d"]);
        until("it to run", || wharf.logs("held").contains('x').then_some(()));
        let (pid, run) = (wharf.pid("held"), wharf.row("held")["incarnation"].clone());
        let mut holder = Command::new(holder)
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        holder.stdout.take().unwrap().read_exact(&mut said).unwrap();
        let since = Instant::now();
        kill_manager(&wharf);
        let gap = since.elapsed();
        assert!(gap < Duration::from_secs(4), "nobody answered for {gap:?}: {}", wharf.own_log());
        let row = wharf.row("held");
        assert_eq!((&row["incarnation"], &row["state"]), (&run, &"stopping".into()), "{row}");
        let row = wharf.wait_state("held", "unkillable");
        assert_eq!((&row["pid"], &row["incarnation"]), (&pid.into(), &run), "{row}");
        wharf.wait_state("other", "running");
        assert!(wharf.records_of("held").is_empty(), "it has not ended");
        drop(holder.stdin.take());
        let record = wharf.wait_records("held", 1).remove(0);
        assert_eq!(at(&record, "process.pid"), pid, "{record}");
        assert_eq!(at(&record, "exit.cause"), "manager_died", "{record}");
        assert_eq!(at(&record, "exit.how"), "signaled", "{record}");
        until("another run", || {
            let row = wharf.row("held");
            (row["state"] == "running" && row["incarnation"] != run).then_some(())
        });
        holder.wait().unwrap();
        assert_eq!(wharf.records_of("held").len(), 1, "the next one lives");
    }
}

#[test]
fn who_comes_while_there_is_no_manager_is_answered_by_the_next() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sleep, '1000'], on_manager_exit: keep }
",
    );
    wharf.wait_state("web", "running");
    let place = wharf.state().join("sock");
    let inode = fs::symlink_metadata(&place).unwrap().ino();
    let (guardian, manager) = (wharf.guardian_pid(), wharf.manager_pid());
    send(guardian, 19);
    send(manager, 9);
    wait_gone(manager);
    let early = std::thread::scope(|scope| {
        let asked = scope.spawn(|| wharf.try_get("/v1/manager"));
        send(guardian, 18);
        asked.join().unwrap()
    });
    let answer: Value = serde_json::from_str(&early.expect("it is not refused")).unwrap();
    assert_ne!(answer["pid"], manager);
    assert_eq!(fs::symlink_metadata(&place).unwrap().ino(), inode, "nothing was made anew");
    // Where somebody removed it, it is made anew.
    fs::remove_file(&place).unwrap();
    send(i32::try_from(answer["pid"].as_i64().unwrap()).unwrap(), 9);
    let start = Instant::now();
    until("another way in", || wharf.try_get("/v1/manager").ok());
    assert!(start.elapsed() < LIMIT);
    wharf.ok(&["down"]);
    assert!(!place.exists());
}

#[test]
fn workers_that_are_left_alone_outlive_managers_and_go_on_to_be_read() {
    for cgroups in ["auto", "off"] {
        let wharf = Wharf::new(&format!(
            "cgroups: {cgroups}
services:
  leaver:
    command: [sh, -c, 'setsid ./worker.sh & exec sleep 1000']
    on_manager_exit: keep
    stop_kill: process
"
        ));
        let worker = "#!/bin/sh\necho $$ > worker.pid\nwhile echo tick; do sleep 0.02; done\n";
        script(&wharf.folder, "worker.sh", worker);
        wharf.ok(&["up", "-d"]);
        let pid: i32 = until("a worker", || wharf.read("worker.pid").trim().parse().ok());
        wharf.wait_state("leaver", "running");
        let ticks = || wharf.read(".wharf/log/leaver.1.log").matches("tick").count();
        let more = || {
            let before = ticks();
            until("it to be read", || (ticks() > before + 3).then_some(()));
            assert!(alive(pid), "{cgroups}: {}", wharf.own_log());
        };
        wharf.ok(&["stop", "leaver"]);
        more();
        for _ in 0..2 {
            wharf.ok(&["upgrade"]);
            more();
            kill_manager(&wharf);
            more();
        }
        wharf.ok(&["start", "leaver"]);
        wharf.wait_state("leaver", "running");
        kill_manager(&wharf);
        wharf.wait_state("leaver", "running");
        more();
        send(pid, 9);
        wharf.ok(&["down"]);
    }
}

#[test]
fn who_asks_for_an_upgrade_hears_that_it_cannot_be_prepared() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sleep, '1000'], on_manager_exit: keep }
",
    );
    wharf.wait_state("web", "running");
    let manager = wharf.manager_pid();
    let place = wharf::state::StateDir::project(&wharf.state()).handover();
    fs::create_dir(&place).unwrap();
    let said = wharf.run(&["upgrade"]);
    let complaint = text(&said.stderr);
    assert!(!said.status.success() && complaint.contains("cannot write"), "{complaint}");
    assert_eq!(wharf.manager_pid(), manager);
    fs::remove_dir(&place).unwrap();
    wharf.ok(&["upgrade"]);
}
