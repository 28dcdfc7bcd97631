//! The deaths of manager and guardian: nothing lost, nothing doubled, nothing left behind.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::{Wharf, alive, at, look_again, marked, send, times, until, wait_gone};

/// Twenty services that flap every 50 ms and a port. Each program, and what it starts, holds a lock
/// that the kernel takes back with the last of them, so that two at once would show.
fn yaml(mark: &str) -> String {
    let mut yaml = format!(
        "defaults:
  environment: {{ MARK: {mark} }}
  restart: {{ policy: always, delay: 10ms, max_delay: 10ms, max_restarts: 100000 }}
services:
  calculator:
    command: [awk, -W, interactive, '{{ print $1 + $2; fflush() }}']
    port: {{ replies: one, timeout: 5s }}
"
    );
    for number in 0..20 {
        let _ = write!(
            yaml,
            "  flap{number}:
    command: [sh, -c, 'exec 9>>lock{number}; flock -n 9 || echo doubled {number} >> doubled; sleep 0.05']
"
        );
    }
    yaml
}

/// What must hold of the journal at any time.
fn check_journal(wharf: &Wharf) {
    let records = wharf.records();
    let mut seen: HashMap<u64, &Value> = HashMap::new();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], index as u64 + 1, "seq is gap-free and never goes back");
        let incarnation = at(record, "service.incarnation").as_u64().unwrap();
        if let Some(first) = seen.insert(incarnation, record) {
            panic!("incarnation {incarnation} has two records:\n{first}\n{record}");
        }
    }
    // What one replica ran came in the order of its incarnations.
    let mut last: HashMap<&str, u64> = HashMap::new();
    for record in &records {
        let name = record["service"]["name"].as_str().unwrap();
        let incarnation = at(record, "service.incarnation").as_u64().unwrap();
        let before = last.insert(name, incarnation).unwrap_or(0);
        assert!(incarnation > before, "{name}: {incarnation} after {before}");
    }
}

/// A caller that never pauses; each call ends, well or with an error. Stops with its handle.
struct Caller {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Caller {
    fn start(wharf: &Wharf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = wharf.state().join("sock");
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut answered = 0;
            while !stopped.load(Ordering::Relaxed) {
                if call(&socket).is_some_and(|reply| reply.ends_with("\r\n\r\n5")) {
                    answered += 1;
                } else {
                    look_again();
                }
            }
            answered
        });
        Self { stop, thread: Some(thread) }
    }

    fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn call(socket: &std::path::Path) -> Option<String> {
    use std::io::{Read, Write};
    let mut socket = wharf::os::socket::connect(socket).ok()?;
    let request = "POST /v1/services/calculator/call HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: 3\r\n\r\n2 3";
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A delay of 20 to 400 ms, different each time and the same in each run of the test.
fn pause(step: usize) {
    let millis = 20 + (step * 7_919) % 380;
    let millis = u16::try_from(millis).unwrap();
    nix::poll::poll(&mut [], millis).unwrap();
}

fn manager_now(wharf: &Wharf) -> Option<(i32, i32)> {
    let body = wharf.try_get("/v1/manager").ok()?;
    let manager: Value = serde_json::from_str(&body).ok()?;
    let pid = |key: &str| i32::try_from(manager[key].as_i64()?).ok();
    Some((pid("pid")?, pid("guardian_pid")?))
}

fn no_doubles(wharf: &Wharf) {
    assert_eq!(wharf.read("doubled"), "", "two copies ran at once\n{}", wharf.own_log());
}

#[test]
fn t12_a_killed_manager_loses_nothing_and_doubles_nothing() {
    let mark = format!("deaths-a-{}", std::process::id());
    let wharf = Wharf::up(&yaml(&mark));
    let caller = Caller::start(&wharf);
    let mut last = 0;
    for step in 0..times(100) {
        pause(step);
        let (manager, _) =
            until("another manager", || manager_now(&wharf).filter(|now| now.0 != last));
        last = manager;
        send(manager, 9);
    }
    until("the last manager", || manager_now(&wharf).filter(|now| now.0 != last));
    until("life after it", || {
        call(&wharf.state().join("sock")).filter(|reply| reply.ends_with('5'))
    });
    let answered = caller.finish();
    assert!(answered > 0);
    check_journal(&wharf);
    no_doubles(&wharf);
    let died = wharf.records().iter().filter(|r| at(r, "exit.cause") == "manager_died").count();
    assert!(died > 0, "runs that ended with the manager are recorded as such");
    wharf.ok(&["down"]);
    assert_eq!(marked(&mark), Vec::<i32>::new());
    check_journal(&wharf);
}

/// Without `keep` nothing outlives its manager, not even for a second.
#[test]
fn t12_twenty_programs_die_with_their_manager_within_a_second() {
    let mut yaml = "services:\n".to_owned();
    for number in 0..20 {
        let _ = writeln!(
            yaml,
            "  s{number}: {{ command: [flock, -n, -F, -E, '99', lock{number}, sleep, '1000'] }}"
        );
    }
    let wharf = Wharf::up(&yaml);
    let all_up = || {
        until("all to run", || {
            let rows: Vec<Value> =
                serde_json::from_str(&wharf.try_get("/v1/services").ok()?).unwrap();
            let up = rows.len() == 20 && rows.iter().all(|row| row["state"] == "running");
            let pid = |row: &Value| i32::try_from(row["pid"].as_i64()?).ok();
            up.then(|| rows.iter().filter_map(pid).collect::<Vec<_>>())
        })
    };
    // The machine is everybody's: one death of several has to be prompt.
    let mut took = Vec::new();
    until("a prompt death of all", || {
        let pids = all_up();
        send(wharf.manager_pid(), 9);
        let began = std::time::Instant::now();
        for pid in pids {
            wait_gone(pid);
        }
        took.push(began.elapsed());
        (began.elapsed() < std::time::Duration::from_secs(1)).then_some(())
    });
    all_up();
    for record in wharf.records() {
        assert_ne!(at(&record, "process.exit.code"), 99, "two copies at once: {record}");
        assert_eq!(at(&record, "exit.cause"), "manager_died", "{record}");
    }
    assert_eq!(wharf.records().len(), 20 * took.len());
}

#[test]
fn a_killed_guardian_takes_everything_with_it() {
    let mark = format!("deaths-b-{}", std::process::id());
    let wharf = Wharf::new(&yaml(&mark));
    for step in 0..times(20) {
        wharf.ok(&["up", "-d"]);
        let (manager, guardian) = manager_now(&wharf).unwrap();
        pause(step);
        send(guardian, 9);
        wait_gone(manager);
        assert!(!alive(manager));
        until("an empty machine", || marked(&mark).is_empty().then_some(()));
    }
    check_journal(&wharf);
    let causes = wharf.records();
    assert!(causes.iter().any(|record| at(record, "exit.cause") == "guardian_died"));
}

#[test]
fn guardian_and_manager_killed_at_once_leave_nothing_behind() {
    let mark = format!("deaths-c-{}", std::process::id());
    let orphans = format!("orphans-{}", std::process::id());
    let mut yaml = yaml(&mark);
    // A program that hides children in sessions of their own.
    let _ = write!(
        yaml,
        "  hider:
    command: [sh, -c, 'setsid sleep 1000 & setsid sh -c \"sleep 1001 & sleep 1002\" & wait']
    environment: {{ MARK: {orphans} }}
"
    );
    let wharf = Wharf::new(&yaml);
    for step in 0..times(20) {
        wharf.ok(&["up", "-d"]);
        let (manager, guardian) = manager_now(&wharf).unwrap();
        until("the hidden ones", || (marked(&orphans).len() >= 4).then_some(()));
        let hidden = marked(&orphans);
        pause(step);
        send(guardian, 19);
        send(manager, 19);
        send(manager, 9);
        send(guardian, 9);
        wait_gone(manager);
        wait_gone(guardian);
        wharf.ok(&["up", "-d"]);
        // It serves, so it has begun to start things: the old ones must be gone by now.
        for pid in hidden {
            assert!(!alive(pid), "{pid} of the earlier life is still there\n{}", wharf.own_log());
        }
        until("new ones", || (marked(&orphans).len() >= 4).then_some(()));
        wharf.ok(&["down"]);
        assert_eq!(marked(&orphans), Vec::<i32>::new());
    }
    check_journal(&wharf);
}

#[test]
fn a_torn_last_record_is_repaired() {
    let wharf = Wharf::up("services:\n  t: { command: 'true' }\n");
    for count in 1..=3 {
        wharf.wait_records("t", count);
        wharf.wait_state("t", "finished");
        wharf.ok(&["start", "t"]);
    }
    wharf.ok(&["down"]);
    let journal = wharf.state().join("exits.jsonl");
    let whole = std::fs::read(&journal).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let cuts: Vec<usize> = (last..whole.len()).collect();
    // The journal's own tests cut at every byte; here the binary meets a few of them.
    for cut in cuts.iter().step_by((cuts.len() / 4).max(1)) {
        std::fs::write(&journal, &whole[..*cut]).unwrap();
        wharf.ok(&["up", "-d"]);
        wharf.wait_state("t", "finished");
        wharf.ok(&["down"]);
        let records = wharf.records();
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record["seq"], index as u64 + 1);
        }
        assert!(records.len() >= 3, "{}", records.len());
    }
}

#[test]
fn ctrl_c_ends_everything_and_says_who_asked() {
    let mut wharf = Wharf::foreground("services:\n  s: { command: [sleep, '1000'] }\n");
    wharf.wait_state("s", "running");
    let pid = wharf.pid("s");
    let guardian = wharf.guardian_pid();
    send(guardian, 2);
    wait_gone(guardian);
    assert!(!alive(pid));
    let record = wharf.records_of("s").remove(0);
    assert_eq!(at(&record, "exit.cause"), "manager_shutdown");
    assert_eq!(at(&record, "exit.requested_by.who"), "SIGINT");
    assert_eq!(at(&record, "exit.requested_by.pid"), std::process::id());
    // A second one hurries: a program that ignores SIGTERM is killed at once.
    wharf.write("services:\n  s: { command: [bash, -c, 'trap \"\" TERM; echo up; while :; do sleep 0.1; done'] }\n");
    wharf.start_foreground();
    until("the trap", || wharf.logs("s").contains("up").then_some(()));
    let guardian = wharf.guardian_pid();
    send(guardian, 2);
    wharf.wait_state("s", "stopping");
    send(guardian, 2);
    wait_gone(guardian);
    let record = wharf.records_of("s").remove(1);
    assert_eq!(at(&record, "exit.signal.name"), "SIGKILL");
    assert_eq!(at(&record, "exit.stop.escalated"), true);
}

#[test]
fn it_can_be_process_1() {
    let wharf = Wharf::new(
        "services:\n  s: { command: [sh, -c, 'echo I am $$; setsid sleep 0.1 & exec sleep 1000'] }\n",
    );
    let wharf_binary = env!("CARGO_BIN_EXE_wharf");
    let is_root = nix::unistd::geteuid().is_root();
    let mut command = std::process::Command::new("unshare");
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", wharf_binary, "up"]);
    command.current_dir(&wharf.folder).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).stdin(std::process::Stdio::null());
    let mut outer = command.spawn().unwrap();
    wharf.wait_state("s", "running");
    assert_eq!(wharf.guardian_pid(), 1);
    wharf.ok(&["stop", "s"]);
    let (status, _) = wharf.http("POST", "/v1/shutdown", b"").unwrap();
    assert_eq!(status, 202);
    assert!(outer.wait().unwrap().success());
    assert_eq!(at(&wharf.records_of("s")[0], "exit.cause"), "stop_requested");
}

#[test]
fn a_manager_whose_directory_was_removed_gets_no_double_and_can_be_ended() {
    let wharf = Wharf::up("services:\n  s: { command: [sleep, '1000'] }\n");
    wharf.wait_state("s", "running");
    let (pid, guardian) = (wharf.pid("s"), wharf.guardian_pid());
    std::fs::remove_dir_all(wharf.state()).unwrap();
    let said = wharf.fails(1, &["up", "-d"]);
    assert!(said.contains(&format!("pid {guardian} runs on")), "{said}");
    assert!(alive(pid));
    wharf.ok(&["down"]);
    assert!(!alive(guardian) && !alive(pid));
    // And where only the socket was.
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("s", "running");
    let guardian = wharf.guardian_pid();
    std::fs::remove_file(wharf.state().join("sock")).unwrap();
    wharf.ok(&["down"]);
    assert!(!alive(guardian));
}

#[test]
fn nohup_is_respected() {
    let wharf = Wharf::new("services:\n  s: { command: [sleep, '1000'] }\n");
    let mut command = std::process::Command::new("nohup");
    command.args([env!("CARGO_BIN_EXE_wharf"), "up"]).current_dir(&wharf.folder);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut guardian = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    wharf.wait_state("s", "running");
    let pid = i32::try_from(guardian.id()).unwrap();
    send(pid, 1);
    // Signals are read in the order of their numbers: had the hang-up counted, it would be told.
    wharf.ok(&["stop", "s"]);
    wharf.ok(&["start", "s"]);
    assert!(!wharf.own_log().contains("SIGHUP"), "{}", wharf.own_log());
    wharf.ok(&["down"]);
    assert!(guardian.wait().unwrap().success());
}

/// A port sees its input end when the manager dies, and may exit by itself before it is killed.
#[test]
fn a_port_that_ended_with_the_managers_pipes_is_started_again() {
    let wharf = Wharf::up("services:\n  bc: { command: bc, port: { use: bc } }\n");
    wharf.wait_state("bc", "running");
    for _ in 0..times(200) {
        let (manager, _) = manager_now(&wharf).unwrap();
        send(manager, 9);
        until("another manager", || manager_now(&wharf).filter(|now| now.0 != manager));
        wharf.wait_state("bc", "running");
        assert_eq!(wharf.ok(&["call", "bc", "6 * 7"]), "42\n");
    }
}
