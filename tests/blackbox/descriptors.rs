//! Many ends at once: one record each, nothing left over, also with few descriptors.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;

use crate::support::{LIMIT, Wharf, alive, at, look_again, times};

/// Children of `parent` that are zombies.
fn zombies(parent: i32) -> usize {
    let all = wharf::os::procfs::all().unwrap();
    all.iter().filter(|stat| stat.parent == parent && stat.is_zombie()).count()
}

fn open_descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Gives a command so many descriptors.
fn limited(command: &mut std::process::Command, limit: u64) {
    let set = move || {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, limit, limit)?;
        Ok(())
    };
    // SAFETY: setrlimit(2) is a plain system call, safe between fork and exec.
    #[expect(unsafe_code, reason = "the limit must be in place before the program runs")]
    unsafe {
        command.pre_exec(set);
    }
}

fn fast_exits(limit: Option<u64>) {
    let count = times(5_000);
    let mut yaml =
        "defaults: { restart: no }\nservices:\n  anchor: { command: [sleep, '1000'] }\n".to_owned();
    for number in 0..count {
        let _ = writeln!(yaml, "  t{number}: {{ command: 'true' }}");
    }
    let wharf = Wharf::new("services:\n  anchor: { command: [sleep, '1000'] }\n");
    let mut command = wharf.command(&["up", "-d"]);
    if let Some(limit) = limit {
        limited(&mut command, limit);
    }
    assert!(command.status().unwrap().success());
    wharf.wait_state("anchor", "running");
    let manager = wharf.manager_pid();
    let before = open_descriptors(manager);
    wharf.write(&yaml);
    wharf.ok(&["reload"]);

    let start = std::time::Instant::now();
    while wharf.records().len() < count {
        assert!(
            start.elapsed() < LIMIT * 3,
            "{} of {count}\n{}",
            wharf.records().len(),
            wharf.own_log()
        );
        look_again();
    }
    let records = wharf.records();
    let services: HashSet<&str> =
        records.iter().map(|record| record["service"]["name"].as_str().unwrap()).collect();
    assert_eq!((records.len(), services.len()), (count, count), "one record each");
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], index as u64 + 1);
        assert_eq!(at(record, "exit.reason"), "completed", "{record}");
    }
    crate::support::until("no zombie", || (zombies(manager) == 0).then_some(()));
    for row in wharf.ps() {
        let expected = if row["service"] == "anchor" { "running" } else { "finished" };
        assert_eq!(row["state"], expected, "{row}");
        assert_eq!(row["pid"].is_null(), row["service"] != "anchor");
    }
    // A log file or two may be open by now; the descriptors of runs are not.
    let after = open_descriptors(manager);
    assert!(after <= before + 2, "{before} descriptors before, {after} after");
    assert!(alive(manager));
    wharf.ok(&["down"]);
    wharf.write("");
}

#[test]
fn fast_exits_are_all_recorded_once() {
    fast_exits(None);
}

#[test]
fn fast_exits_are_all_recorded_once_with_few_descriptors() {
    fast_exits(Some(1024));
}

/// Sockets take descriptors too: what does not fit waits, and the manager answers.
#[test]
fn sockets_leave_the_manager_its_last_descriptors() {
    let own = std::process::id();
    let mut yaml = "services:\n".to_owned();
    for service in 0..5 {
        let _ = writeln!(yaml, "  s{service}:\n    command: [sleep, '1000']\n    listen:");
        for socket in 0..64 {
            let _ = writeln!(
                yaml,
                "      - {{ name: n{socket}, unix: '@few-{own}-{service}-{socket}' }}"
            );
        }
    }
    let wharf = Wharf::new(&yaml);
    let mut command = wharf.command(&["up", "-d"]);
    limited(&mut command, 300);
    assert!(command.status().unwrap().success());
    crate::support::until("what fits", || {
        let rows = wharf.ps();
        rows.iter().any(|row| row["state"] == "running").then_some(())
    });
    let open = open_descriptors(wharf.manager_pid());
    assert!(open < 300, "{open}");
    assert!(wharf.records().is_empty(), "what does not fit has not failed: {:?}", wharf.records());
    assert!(wharf.ps().iter().any(|row| row["state"] != "running"));
    // What a smaller configuration needs fits.
    let few = yaml.lines().filter(|line| !line.contains("- {") || line.contains("n1,"));
    wharf.write(&few.fold(String::new(), |all, line| all + line + "\n"));
    wharf.ok(&["reload"]);
    crate::support::until("all to run", || {
        wharf.ps().iter().all(|row| row["state"] == "running").then_some(())
    });
    wharf.ok(&["down"]);
}

#[test]
fn a_start_without_descriptors_is_delayed_and_never_lost() {
    // Forty programs that stay, in a manager with room for far fewer.
    let mut yaml = "services:\n".to_owned();
    for number in 0..40 {
        let _ = writeln!(yaml, "  s{number}: {{ command: [sleep, '1000'] }}");
    }
    let wharf = Wharf::new(&yaml);
    let mut command = wharf.command(&["up", "-d"]);
    let set = || {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 128, 128)?;
        Ok(())
    };
    // SAFETY: setrlimit(2) is a plain system call, safe between fork and exec.
    #[expect(unsafe_code, reason = "the limit must be in place before the program runs")]
    unsafe {
        command.pre_exec(set);
    }
    assert!(command.status().unwrap().success());
    let count = |state: &str| wharf.ps().iter().filter(|row| row["state"] == state).count();
    crate::support::until("some to wait", || {
        (count("waiting") > 0 && count("running") + count("waiting") == 40).then_some(())
    });
    assert!(count("running") > 0);
    assert!(wharf.records().is_empty(), "nothing ended, so nothing is recorded");
    // Each one that makes room lets another in.
    let waiting = count("waiting");
    for row in wharf.ps() {
        if row["state"] == "running" {
            wharf.ok(&["stop", row["service"].as_str().unwrap()]);
        }
        if count("waiting") < waiting {
            return;
        }
    }
    crate::support::until("room for another", || (count("waiting") < waiting).then_some(()));
}
