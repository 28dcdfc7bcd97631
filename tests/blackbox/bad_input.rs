//! What is wrong is refused by name, and what ran goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use crate::support::{Wharf, at, text, until};

#[test]
fn t40_a_wrong_configuration_never_replaces_a_running_one() {
    let wharf = Wharf::up("services:\n  s: { command: [sleep, '1000'] }\n");
    wharf.wait_state("s", "running");
    let pid = wharf.pid("s");
    for wrong in [
        "services:\n  s: { comand: [sleep, '1000'] }\n",
        "services: [\n",
        "",
        "services:\n  s: { command: [sleep, '1'], restart: sometimes }\n",
        "services:\n  s: { command: [sleep, '1'], depends_on: [nobody] }\n",
        "services:\n  s: { command: [sleep, '1'], depends_on: [t] }\n  t: { command: [sleep, '1'], depends_on: [s] }\n",
    ] {
        wharf.write(wrong);
        let told = wharf.fails(3, &["reload"]);
        // Each with its place, but for the file in which there is nothing.
        let placed = (1..=3).any(|line| told.contains(&format!("services.yaml:{line}:")));
        assert!(wrong.is_empty() || placed, "{told}");
        wharf.fails(3, &["check"]);
        assert_eq!(wharf.pid("s"), pid);
    }
    wharf.write("services:\n  s: { comand: [sleep, '1000'] }\n");
    let told = wharf.fails(3, &["reload"]);
    assert!(
        told.contains("services.yaml:2:8") && told.contains("did you mean `command`"),
        "{told}"
    );
    // A hang-up asks for the same and is refused as quietly.
    crate::support::send(wharf.guardian_pid(), 1);
    until("the refusal", || wharf.own_log().contains("not reloaded").then_some(()));
    assert_eq!(wharf.pid("s"), pid);
    assert!(wharf.records().is_empty());
}

/// To open a pipe nobody writes to would wait for ever.
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused() {
    let fifo = |wharf: &Wharf, name: &str| {
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&wharf.folder.join(name), mode).unwrap();
    };
    let wharf = Wharf::up("services:\n  s: { command: [sleep, '1000'] }\n");
    wharf.wait_state("s", "running");
    fifo(&wharf, "variables");
    wharf.write("services:\n  s: { command: [sleep, '1000'], env_file: variables }\n");
    for command in ["check", "reload"] {
        let told = wharf.fails(3, &[command]);
        assert!(told.contains("variables: cannot be read: it is no regular file"), "{told}");
    }
    std::fs::remove_file(wharf.folder.join("services.yaml")).unwrap();
    fifo(&wharf, "services.yaml");
    for command in ["check", "reload"] {
        assert!(wharf.fails(3, &[command]).contains("it is no regular file"), "{command}");
    }
    assert!(wharf.records().is_empty());
}

#[test]
fn a_second_manager_is_refused_by_name() {
    let wharf = Wharf::up("services:\n  s: { command: [sleep, '1000'] }\n");
    let guardian = wharf.guardian_pid();
    for words in [&["up"][..], &["up", "-d"]] {
        let told = wharf.fails(1, words);
        assert!(told.contains(&format!("wharf with pid {guardian}")), "{told}");
    }
    assert_eq!(wharf.guardian_pid(), guardian);
}

#[test]
fn unknown_names_are_told_with_what_was_perhaps_meant() {
    let wharf = Wharf::up("services:\n  server: { command: [sleep, '1000'] }\n");
    for words in [
        &["start", "sever"][..],
        &["stop", "sever"],
        &["restart", "sever"],
        &["signal", "sever", "TERM"],
        &["call", "sever", "x"],
        &["status", "sever"],
    ] {
        let told = wharf.fails(4, words);
        assert!(told.contains("sever") && told.contains("server"), "{words:?}: {told}");
    }
    wharf.fails(4, &["stop", "server/7"]);
    let told = wharf.fails(1, &["call", "server", "x"]);
    assert!(told.contains("plain server"), "{told}");
    wharf.fails(2, &["signal", "server", "SIGNONSENSE"]);
    wharf.fails(2, &["stop"]);
    wharf.fails(2, &["fly"]);
}

#[test]
fn without_a_manager_reading_works_and_commands_say_so() {
    let wharf =
        Wharf::up("services:\n  t: { command: [sh, -c, 'echo said; exit 4'], restart: no }\n");
    wharf.wait_records("t", 1);
    wharf.ok(&["down"]);
    wharf.ok(&["down"]);
    assert!(wharf.ok(&["exits"]).contains("exited with code 4"));
    assert!(wharf.ok(&["why", "t"]).contains("exited with code 4"));
    assert_eq!(wharf.logs("t"), "said\n");
    let lines = wharf.ok(&["exits", "--json"]);
    assert_eq!(lines.lines().count(), 1);
    let told = wharf.fails(5, &["ps"]);
    assert!(told.contains("wharf up"), "{told}");
    wharf.fails(5, &["stop", "t"]);
}

#[test]
fn t34_garbage_on_a_port_ends_in_a_protocol_error_without_an_allocation() {
    let wharf = Wharf::up(
        "services:
  garbage:
    command: [sh, -c, 'printf \"\\377\\377\\377\\377garbage\"; sleep 1000']
    port: { framing: packet4 }
    restart: no
  oversize:
    command: [sh, -c, 'head -c 100000 /dev/zero; sleep 1000']
    port: { framing: lines, max_frame: 64KiB }
    restart: no
  neighbour: { command: [cat], port: { replies: one } }
",
    );
    for (service, sample) in [("garbage", "4294967295"), ("oversize", "65536")] {
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "protocol_error", "{record}");
        let error = at(&record, "port.error").as_str().unwrap();
        assert!(error.contains(sample) && error.contains("byte 0"), "{error}");
        wharf.wait_state(service, "failed");
    }
    assert_eq!(wharf.ok(&["call", "neighbour", "still here"]), "still here\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", wharf.manager_pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB: nothing near the announced 4 GiB");
}

#[test]
fn t30_a_full_disk_degrades_and_never_stops_supervision() {
    // A quota of the process stands for a full disk: every write beyond it fails.
    let wharf = Wharf::new(
        "services:
  talker: { command: [sh, -c, 'yes talk | head -c 3000000; exit 1'], restart: { max_restarts: 1000 } }
  quiet: { command: [sleep, '1000'] }
",
    );
    let mut command = wharf.command(&["up", "-d"]);
    let set = || {
        use nix::sys::resource::{Resource, setrlimit};
        setrlimit(Resource::RLIMIT_FSIZE, 300_000, 300_000)?;
        Ok(())
    };
    // SAFETY: setrlimit(2) is a plain system call, safe between fork and exec.
    #[expect(unsafe_code, reason = "the limit must be in place before the program runs")]
    unsafe {
        command.pre_exec(set);
    }
    assert!(command.status().unwrap().success());
    until("to be degraded", || {
        let manager = wharf.manager();
        (manager["output_dropped_bytes"].as_u64() > Some(0)).then_some(())
    });
    assert!(!wharf.manager()["degraded"].as_array().unwrap().is_empty());
    // Supervision goes on: the talker is started again and again, the quiet one can be stopped.
    let before = wharf.row("talker")["restarts"].as_u64().unwrap();
    until("another restart", || {
        (wharf.row("talker")["restarts"].as_u64().unwrap() > before).then_some(())
    });
    wharf.ok(&["restart", "quiet"]);
    assert!(wharf.pid("quiet") > 0);
}

#[test]
fn what_a_log_lost_is_said_in_it_once_it_can_be_written() {
    let wharf = Wharf::new(
        "services:\n  s: { command: [sh, -c, 'echo lost; sleep 1000'], restart: always }\n",
    );
    let log = wharf.state().join("log/s.1.log");
    std::fs::create_dir_all(&log).unwrap();
    wharf.ok(&["up", "-d"]);
    until("the output to be dropped", || {
        (wharf.manager()["output_dropped_bytes"].as_u64() > Some(0)).then_some(())
    });
    std::fs::remove_dir(&log).unwrap();
    wharf.ok(&["restart", "s"]);
    let kept = until("the log", || {
        let kept = std::fs::read_to_string(&log).ok()?;
        kept.contains(" lost").then_some(kept)
    });
    let (first, _) = kept.split_once('\n').unwrap();
    assert!(first.contains("dropped") && first.contains("bytes"), "{kept}");
}

#[test]
fn a_stop_that_the_disk_refuses_is_written_down_later() {
    let wharf = Wharf::up("services:\n  s: { command: [sleep, '1000'] }\n");
    wharf.wait_state("s", "running");
    let file = wharf.state().join("intent.json");
    let _ = std::fs::remove_file(&file);
    // Nothing can be renamed onto a folder.
    std::fs::create_dir(&file).unwrap();
    let refused = wharf.run(&["stop", "s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("cannot be written down yet"), "{refused:?}");
    wharf.wait_state("s", "stopped");
    assert!(wharf.manager()["degraded"].to_string().contains("what operators want"));
    std::fs::remove_dir(&file).unwrap();
    until("the stop on disk", || {
        std::fs::read_to_string(&file).is_ok_and(|intent| intent.contains("\"s\"")).then_some(())
    });
    until("all to be well", || {
        wharf.manager()["degraded"].as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn the_socket_works_where_its_path_is_long() {
    let mut wharf = Wharf::new("services:\n  s: { command: [sleep, '1000'] }\n");
    let deep = wharf.folder.join("x".repeat(100)).join("y".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::rename(wharf.folder.join("services.yaml"), deep.join("services.yaml")).unwrap();
    wharf.folder = deep;
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("s", "running");
    let mode = std::fs::metadata(wharf.state().join("sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    wharf.ok(&["down"]);
}
