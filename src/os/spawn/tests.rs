//! Real children: how each lands, and what it is when it becomes a program.

use std::os::fd::BorrowedFd;

use super::child::{DIGITS, write_number};
use super::*;
use crate::exit::How;

/// Runs a command to its end on a thread of its own and tells how it landed and ended.
fn run(command: &[&str], change: impl FnOnce(&mut Launch) + Send + 'static) -> (Landing, How) {
    let command: Vec<String> = command.iter().map(ToString::to_string).collect();
    std::thread::spawn(move || {
        crate::os::signal::block_all().unwrap();
        let mut launch = Box::new(Launch::new(&command, [("PATH", "/usr/bin:/bin")]).unwrap());
        change(&mut launch);
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut stacks = Stacks::default();
        let mut started = launch.start(&[(null.as_fd(), 0)], &mut stacks).unwrap();
        let readable = |fd: BorrowedFd<'_>| {
            let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, 20_000_u16).unwrap();
        };
        readable(started.flight.as_fd());
        let landing = started.flight.landed(&mut stacks).unwrap();
        readable(started.pidfd.as_fd());
        let peeked = crate::os::wait::peek(started.pidfd.as_fd()).unwrap().unwrap();
        let ended = crate::os::wait::reap(started.pidfd.as_fd()).unwrap().unwrap();
        assert_eq!((peeked.pid, peeked.how), (ended.pid, ended.how));
        assert_eq!(peeked.pid, started.pid);
        (landing, ended.how)
    })
    .join()
    .unwrap()
}

fn failed(
    command: &[&str],
    change: impl FnOnce(&mut Launch) + Send + 'static,
) -> (Stage, i32, bool) {
    match run(command, change).0 {
        Landing::Failed { stage, errno, interpreter_missing, .. } => {
            (stage, errno.0, interpreter_missing)
        }
        other => panic!("{command:?}: {other:?}"),
    }
}

#[test]
fn a_program_runs_and_its_code_is_told() {
    for code in [0, 1, 7, 126, 127, 128, 137, 255] {
        let script = format!("exit {code}");
        let (landing, how) = run(&["sh", "-c", &script], |_| {});
        assert_eq!((landing, how), (Landing::Executed, How::Exited(code)));
    }
}

#[test]
fn every_failed_step_is_told_with_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let garbage = file("garbage", "no program", 0o755);
    let orphan = file("orphan", "#!/no/such/interpreter\n", 0o755);
    for (command, errno, interpreter) in [
        ("/no/such/program", libc::ENOENT, false),
        ("no-such-program", libc::ENOENT, false),
        (plain.as_str(), libc::EACCES, false),
        ("/etc", libc::EACCES, false),
        (garbage.as_str(), libc::ENOEXEC, false),
        (orphan.as_str(), libc::ENOENT, true),
    ] {
        assert_eq!(failed(&[command], |_| {}), (Stage::Exec, errno, interpreter), "{command}");
    }
    let missing = failed(&["true"], |launch| {
        launch.folder(Path::new("/no/such/folder")).unwrap();
    });
    assert_eq!(missing, (Stage::WorkingDir, libc::ENOENT, false));
    let cgroup = failed(&["true"], |launch| {
        launch.cgroup(Path::new("/no/such/cgroup.procs"), true).unwrap();
    });
    assert_eq!(cgroup, (Stage::Cgroup, libc::ENOENT, false));
    let limit = failed(&["true"], |launch| {
        launch.limit(ChildLimit { resource: Resource::Nofile, soft: 9, hard: 3 });
    });
    assert_eq!(limit, (Stage::Limits, libc::EINVAL, false));
}

#[test]
fn a_child_starts_with_default_signals_an_empty_mask_and_its_own_session() {
    let script = r#"
        set -e
        grep -q '^SigBlk:.0000000000000000$' /proc/self/status
        grep -q '^SigIgn:.0000000000000000$' /proc/self/status
        set -- $(cat /proc/$$/stat)
        test "$6" = "$$"
        test "$(umask)" = 0022
    "#;
    assert_eq!(run(&["sh", "-c", script], |_| {}).1, How::Exited(0));
}

#[test]
fn the_kernel_writes_the_number_before_the_child_moves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    let realm = crate::name::Realm(1);
    let mut table = crate::os::live::Table::open(&path, realm).unwrap();
    let replica = "web/1".parse::<crate::name::Target>().unwrap().service;
    let slot = table
        .claim(
            &crate::name::ReplicaId { service: replica, replica: 1 },
            crate::os::live::Phase::Between,
            0,
        )
        .unwrap();
    let cell = table.slot(slot).pid_cell();
    let script = "exit 3";
    let (_, how) = run(&["sh", "-c", script], move |launch| {
        launch.pid_cell(cell);
    });
    assert_eq!(how, How::Exited(3));
    assert!(table.slot(slot).pid().is_some());
}

#[test]
fn a_variable_can_hold_the_childs_own_number() {
    let script = "test $PID = $$ && test $OTHER = $$ && env | grep -qx OTHER=$$";
    let (_, how) = run(&["sh", "-c", script], |launch| {
        launch.pid_variable("PID").unwrap().pid_variable("OTHER").unwrap();
    });
    assert_eq!(how, How::Exited(0));
    for (number, text) in [(0, &b"A=0\0"[..]), (7, b"A=7\0"), (4_194_304, b"A=4194304\0")] {
        let mut variable = [&b"A="[..], &[0; DIGITS + 1]].concat();
        write_number(&mut variable, number);
        assert_eq!(&variable[..text.len()], text);
    }
}

#[test]
fn what_a_child_is_given_beside_its_program() {
    let script = r#"
        set -e
        test "$(umask)" = 0077
        test "$(cat /proc/self/oom_score_adj)" = 777
        test "$(nice)" = 19
        grep -q '^NoNewPrivs:.1$' /proc/self/status
        grep -q '^CapEff:.0000000000000000$' /proc/self/status
    "#;
    let before = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let (landing, how) = run(&["sh", "-c", script], |launch| {
        launch.umask(0o077).nice(19).oom_score_adj(777);
        launch.privileges(Privileges { dropped: u64::MAX, no_new: true });
    });
    assert_eq!((landing, how), (Landing::Executed, How::Exited(0)));
    // The kernel keeps that value alike in processes that share memory: this child shared none.
    assert_eq!(std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(), before);
}

#[test]
fn a_child_with_memory_of_its_own_tells_its_failures_too() {
    let apart = |launch: &mut Launch| {
        launch.oom_score_adj(777);
    };
    assert_eq!(failed(&["/no/such/program"], apart), (Stage::Exec, libc::ENOENT, false));
    let refused = run(&["true"], |launch| {
        launch.oom_score_adj(4_000);
    });
    let (stage, errno) = (Stage::Priority, Errno(libc::EINVAL));
    let expected = Landing::Failed { stage, errno, interpreter_missing: false, which: 1 };
    assert_eq!(refused.0, expected);
    let refused = run(&["true"], |launch| {
        let fine = ChildLimit { resource: Resource::Nofile, soft: 9, hard: 9 };
        launch.limit(fine).limit(ChildLimit { soft: 9, hard: 3, ..fine });
    });
    let (stage, errno) = (Stage::Limits, Errno(libc::EINVAL));
    let expected = Landing::Failed { stage, errno, interpreter_missing: false, which: 1 };
    assert_eq!(refused.0, expected);
}
