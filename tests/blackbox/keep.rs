//! Runs with `on_manager_exit: keep` outlive their manager: the same processes, the same incarnations, no
//! line of output lost or doubled without a word, every end with its true reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Wharf, alive, at, marked, script, send, soaking, text, until, wait_gone};

/// Counts as fast as its reader can take it, on both streams, a line now and then in two pieces.
const FLOOD: &str = r#"
import os, time
number = 0
while True:
    for _ in range(40):
        number += 1
        line = b"%d\n" % number
        if number % 7 == 0:
            os.write(1, line[:1])
            os.write(2, line)
            os.write(1, line[1:])
        else:
            os.write(1, line)
    time.sleep(0.002)
"#;

pub(crate) fn kill_manager(wharf: &Wharf) -> i32 {
    let old = wharf.manager_pid();
    send(old, 9);
    until("another manager", || {
        let body = wharf.try_get("/v1/manager").ok()?;
        let manager: Value = serde_json::from_str(&body).ok()?;
        manager["pid"].as_i64().filter(|pid| *pid != i64::from(old))
    });
    old
}

/// What each replica runs: process, incarnation, state.
fn runs(wharf: &Wharf) -> BTreeMap<String, (Value, Value, Value)> {
    let row = |row: &Value| {
        let name = format!("{}/{}", row["service"].as_str().unwrap(), row["replica"]);
        (name, (row["pid"].clone(), row["incarnation"].clone(), row["state"].clone()))
    };
    wharf.ps().iter().map(row).collect()
}

/// The bytes that a stream was told to be uncertain about, as ranges of byte numbers.
#[derive(Default)]
struct Told {
    twice: Vec<(u64, u64)>,
    missing: Vec<(u64, u64)>,
}

/// Puts the text of one stream of a log together again, and reads what the log says is uncertain of it.
fn stream(log: &str, name: &str) -> (String, Told) {
    let (mut whole, mut told) = (String::new(), Told::default());
    for line in log.lines() {
        let mut words = line.splitn(4, ' ');
        let (_, source, tag) = (words.next(), words.next().unwrap(), words.next().unwrap());
        let said = words.next().unwrap_or_default();
        if source == name {
            whole.push_str(said);
            if tag.starts_with('F') {
                whole.push('\n');
            }
        } else if source == "wharf" && said.contains(&format!("of {name} ")) {
            let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
            let range = (numbers[0], numbers[1]);
            if said.contains("twice") { told.twice.push(range) } else { told.missing.push(range) }
        }
    }
    (whole, told)
}

/// Every number from 1 on once, in order, but where the log itself says otherwise. How many there were.
fn check_counting(log: &str, stream_name: &str, every: u64) -> u64 {
    let (text, told) = stream(log, stream_name);
    // Where each line stands in what the program wrote.
    let mut place = 0;
    let mut expected = every;
    let told_of = |ranges: &[(u64, u64)], from: u64, to: u64| {
        ranges.iter().any(|(start, end)| from < *end && to > *start)
    };
    let mut places = BTreeMap::new();
    for line in text.lines() {
        let Ok(number) = line.parse::<u64>() else {
            // A line that was cut stands where the log tells of it.
            assert!(!told.twice.is_empty() || !told.missing.is_empty(), "{line:?}: {log}");
            continue;
        };
        while number > expected {
            let end = place + expected.to_string().len() as u64 + 1;
            assert!(told_of(&told.missing, place, end), "{expected} is missing before {number}");
            places.insert(expected, (place, end));
            (place, expected) = (end, expected + every);
        }
        if number < expected {
            let (from, to) = places.get(&number).copied().unwrap_or((0, place));
            let known = told_of(&told.twice, from, to) || told_of(&told.missing, from, to);
            assert!(known, "{number} is there twice, before {expected}");
            continue;
        }
        let end = place + line.len() as u64 + 1;
        places.insert(number, (place, end));
        (place, expected) = (end, expected + every);
    }
    expected / every - 1
}

#[test]
fn t12_fifty_services_outlive_their_manager_and_lose_no_line() {
    let wharf = Wharf::new("");
    script(&wharf.folder, "flood.py", FLOOD);
    let mut yaml =
        "defaults:\n  on_manager_exit: keep\n  logging: { max_size: 1GiB }\nservices:\n".to_owned();
    for number in 0..45 {
        let _ = writeln!(
            yaml,
            "  slow{number}: {{ command: [sh, -c, 'while echo $((i=i+1)); do sleep 0.2; done'] }}"
        );
    }
    for number in 0..5 {
        let _ = writeln!(yaml, "  fast{number}: {{ command: [python3, flood.py] }}");
    }
    wharf.write(&yaml);
    wharf.ok(&["up", "-d"]);
    let all_run = || {
        let runs = runs(&wharf);
        let running = runs.values().all(|(_, _, state)| state == "running");
        (runs.len() == 50 && running).then_some(runs)
    };
    let before = until("fifty to run", all_run);
    let log = |name: &str| wharf.read(&format!(".wharf/log/{name}.1.log"));
    for round in 0..if soaking() { 100 } else { 5 } {
        let said = log("fast0").len();
        until("more to be said", || (log("fast0").len() > said + 2_000).then_some(()));
        nix::poll::poll(&mut [], u16::try_from(round * 7 % 30).unwrap()).unwrap();
        kill_manager(&wharf);
        assert_eq!(until("fifty to run on", all_run), before, "{}", wharf.own_log());
    }
    let manager = wharf.manager();
    assert!(manager["generation"].as_u64().unwrap() > 5);
    wharf.ok(&["stop", "fast0"]);
    wharf.ok(&["down"]);
    let mut marks = 0;
    for name in before.keys().map(|name| name.trim_end_matches("/1")) {
        let log = log(name);
        marks += log.lines().filter(|line| line.contains(" wharf F bytes ")).count();
        let lines = check_counting(&log, "stdout", 1);
        assert!(lines > 3, "{name}: {lines} lines");
        if name.starts_with("fast") {
            check_counting(&log, "stderr", 7);
        }
    }
    println!("{marks} marks");
    let records = wharf.records();
    assert_eq!(records.len(), 50, "one end each");
    for record in &records {
        let cause = record["exit"]["cause"].as_str().unwrap();
        assert!(["manager_shutdown", "stop_requested"].contains(&cause), "{record}");
        let pid = before[&format!("{}/1", record["service"]["name"].as_str().unwrap())].0.clone();
        assert_eq!(record["process"]["pid"], pid);
        assert!(!alive(i32::try_from(pid.as_i64().unwrap()).unwrap()));
    }
}

#[test]
fn t12_an_end_that_no_manager_saw_has_its_true_reason() {
    // Each waits for the death of its manager, which shows as another parent.
    let yaml = "defaults:
  on_manager_exit: keep
  restart: { policy: 'no' }
services:
  fails: { command: [python3, wait.py, 'os.write(2, b\"last words\\n\"); os._exit(7)'] }
  crashes: { command: [python3, wait.py, 'os.kill(os.getpid(), 11)'] }
  restarts: { command: [python3, wait.py, 'os._exit(3)'], restart: always }
  stays: { command: [sleep, '1000'] }
  dies: { command: [sleep, '1000'], on_manager_exit: die }
";
    let wharf = Wharf::new(yaml);
    let wait = "import os, sys, time
mine = os.getppid()
print('up', flush=True)
while os.getppid() == mine:
    time.sleep(0.001)
exec(sys.argv[1])
";
    script(&wharf.folder, "wait.py", wait);
    wharf.ok(&["up", "-d"]);
    for name in ["fails", "crashes", "restarts"] {
        until("it to wait", || {
            wharf.read(&format!(".wharf/log/{name}.1.log")).contains("up").then_some(())
        });
    }
    wharf.wait_state("stays", "running");
    let (stays, fails, restarts) = (wharf.pid("stays"), wharf.pid("fails"), wharf.pid("restarts"));
    let crashes = wharf.pid("crashes");
    // Without a guardian that could start another manager there is none.
    let (guardian, manager) = (wharf.guardian_pid(), wharf.manager_pid());
    send(guardian, 19);
    send(manager, 9);
    for pid in [fails, crashes, restarts] {
        wait_gone(pid);
    }
    send(guardian, 18);
    let failed = &wharf.wait_records("fails", 1)[0];
    assert_eq!(failed["exit"]["reason"], "failed", "{failed}");
    assert_eq!(failed["exit"]["cause"], "spontaneous", "{failed}");
    assert_eq!(at(failed, "process.exit.code"), 7);
    assert_eq!(failed["exit"]["certainty"], "certain");
    assert_eq!(failed["stderr_tail"], "last words\n", "what nobody had read is read");
    assert!(failed["usage"]["max_rss_bytes"].as_u64().unwrap() > 0, "{failed}");
    let segv = &wharf.wait_records("crashes", 1)[0];
    assert_eq!(segv["exit"]["signal"]["name"], "SIGSEGV", "{segv}");
    let again = &wharf.wait_records("restarts", 1)[0];
    assert_eq!(
        (&again["exit"]["cause"], &again["exit"]["how"]),
        (&"spontaneous".into(), &"exited".into())
    );
    until("a new run", || {
        let row = wharf.row("restarts");
        (row["state"] == "running" && row["pid"] != restarts).then_some(())
    });
    assert_eq!(wharf.row("fails")["state"], "failed");
    assert_eq!(wharf.pid("stays"), stays);
    assert_eq!(wharf.wait_records("dies", 1)[0]["exit"]["cause"], "manager_died");

    // The truth comes over the guardian for as long as it lives.
    send(stays, 15);
    let ended = &wharf.wait_records("stays", 1)[0];
    assert_eq!(ended["exit"]["signal"]["name"], "SIGTERM", "{ended}");
    assert_eq!(ended["exit"]["cause"], "spontaneous");
    assert!(ended["uptime_s"].as_f64().unwrap() > 0.0);
    assert!(text(&wharf.run(&["why", "stays"]).stdout).contains("outlived"), "{ended}");
    wharf.ok(&["down"]);
    assert_eq!(wharf.records_of("stays").len(), 1);
}

const PORTS: &str = "defaults: { on_manager_exit: keep }
services:
  serial:
    command: [python3, serial.py]
    port: { replies: one, timeout: 60s }
  netstrings:
    command: [python3, netstrings.py]
    port: { framing: netstring, replies: none }
  lines:
    command: [python3, lines.py]
    port: { replies: none }
";

const SERIAL: &str = r"import sys, time
for line in sys.stdin:
    if line == 'wait\n':
        print('asked', file=sys.stderr, flush=True)
        time.sleep(1000)
    print('re: ' + line, end='', flush=True)
";

#[test]
fn a_port_is_spoken_to_again_unless_it_is_out_of_step() {
    let wharf = Wharf::new(PORTS);
    // Half a message each, and the rest when they are told to go on.
    let halves = |first: &str, rest: &str| {
        format!(
            "import os, sys, time
os.write(1, {first})
print('half', file=sys.stderr, flush=True)
while not os.path.exists('go'):
    time.sleep(0.01)
os.write(1, {rest})
sys.stdin.read()
"
        )
    };
    script(&wharf.folder, "serial.py", SERIAL);
    script(&wharf.folder, "netstrings.py", &halves("b'5:he'", "b'llo,'"));
    script(&wharf.folder, "lines.py", &halves("b'hal'", "b'f\\nwhole\\n'"));
    wharf.ok(&["up", "-d"]);
    assert_eq!(wharf.ok(&["call", "serial", "one"]), "re: one\n");
    for name in ["lines", "netstrings"] {
        until("half a message", || {
            wharf.read(&format!(".wharf/log/{name}.1.log")).contains("half").then_some(())
        });
    }
    wharf.wait_state("lines", "running");
    wharf.wait_state("netstrings", "running");
    let before = runs(&wharf);
    kill_manager(&wharf);
    let resting = wharf.wait_state("serial", "running");
    assert_eq!(resting["pid"], before["serial/1"].0, "it was at rest");
    assert_eq!(wharf.ok(&["call", "serial", "two"]), "re: two\n");
    assert_eq!(wharf.wait_state("lines", "running")["pid"], before["lines/1"].0);
    let lost = &wharf.wait_records("netstrings", 1)[0];
    assert_eq!(lost["exit"]["cause"], "manager_died", "{lost}");
    assert!(
        lost["exit"]["evidence"].to_string().contains("where the next message begins"),
        "{lost}"
    );
    until("another run", || {
        let row = wharf.row("netstrings");
        (row["state"] == "running" && row["pid"] != before["netstrings/1"].0).then_some(())
    });

    // The rest of a line that was read in part is no message.
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    let said = || {
        let told = wharf.ok(&["events", "--json", "--kind", "message", "--service", "lines"]);
        let texts = told.lines().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            at(&event, "message.text").clone()
        });
        Some(texts.collect::<Vec<_>>()).filter(|texts| !texts.is_empty())
    };
    assert_eq!(until("a message", said), ["whole"]);

    // One that owes a reply would give it to the wrong caller.
    let mut caller = wharf.command(&["call", "serial", "wait"]).spawn().unwrap();
    let log = ".wharf/log/serial.1.log";
    until("the call to be heard", || wharf.read(log).contains("asked").then_some(()));
    kill_manager(&wharf);
    let lost = &wharf.wait_records("serial", 1)[0];
    assert_eq!(lost["exit"]["cause"], "manager_died", "{lost}");
    assert!(lost["exit"]["evidence"].to_string().contains("do not say whose"), "{lost}");
    assert!(!caller.wait().unwrap().success());
    assert_eq!(wharf.ok(&["call", "serial", "three"]), "re: three\n");
}

#[test]
fn input_that_is_closed_is_closed_also_where_the_guardian_holds_it() {
    let wharf = Wharf::up(
        "services:
  cat: { command: [cat], port: {}, on_manager_exit: keep, stop_signal: SIGKILL }
",
    );
    wharf.wait_state("cat", "running");
    let pid = wharf.pid("cat");
    kill_manager(&wharf);
    wharf.wait_state("cat", "running");
    assert_eq!(wharf.pid("cat"), pid);
    wharf.ok(&["stop", "cat"]);
    let record = &wharf.records_of("cat")[0];
    assert_eq!(record["exit"]["how"], "exited", "the end of its input was enough: {record}");
}

#[test]
fn what_a_kept_program_started_is_spared_and_stopped_with_it() {
    let mark = format!("keep-tree-{}", std::process::id());
    let yaml = format!(
        "services:
  tree:
    command: [sh, -c, 'setsid sleep 1000 & (sleep 1000 &) ; exec sleep 1000']
    environment: {{ MARK: {mark} }}
    on_manager_exit: keep
"
    );
    let wharf = Wharf::up(&yaml);
    wharf.wait_state("tree", "running");
    let is_asleep =
        |pid: &i32| wharf::os::procfs::arguments(*pid).first().is_some_and(|it| it == b"sleep");
    let three = || Some(marked(&mark)).filter(|all| all.len() == 3 && all.iter().all(is_asleep));
    let mut before = until("three that sleep", three);
    for _ in 0..2 {
        kill_manager(&wharf);
        wharf.wait_state("tree", "running");
        let mut now = marked(&mark);
        before.sort_unstable();
        now.sort_unstable();
        assert_eq!(now, before);
    }
    wharf.ok(&["stop", "tree"]);
    until("all to be gone", || marked(&mark).is_empty().then_some(()));
    wharf.ok(&["down"]);
}

#[test]
fn without_their_guardian_kept_runs_are_ended() {
    let mark = format!("keep-guardian-{}", std::process::id());
    let yaml = format!(
        "services:
  web: {{ command: [sleep, '1000'], environment: {{ MARK: {mark} }}, on_manager_exit: keep }}
"
    );
    // The guardian alone: its manager ends what it started and what it took over.
    for taken_over in [false, true] {
        let wharf = Wharf::up(&yaml);
        wharf.wait_state("web", "running");
        if taken_over {
            kill_manager(&wharf);
            wharf.wait_state("web", "running");
        }
        let (guardian, manager) = (wharf.guardian_pid(), wharf.manager_pid());
        send(guardian, 9);
        wait_gone(manager);
        assert_eq!(marked(&mark), Vec::<i32>::new(), "{}", wharf.own_log());
        let record = &wharf.records_of("web")[0];
        assert_eq!(record["exit"]["cause"], "guardian_died", "{record}");
    }
    // Both: the next `up` finds it by its number and start time, and ends it.
    let wharf = Wharf::up(&yaml);
    wharf.wait_state("web", "running");
    let (guardian, manager, pid) = (wharf.guardian_pid(), wharf.manager_pid(), wharf.pid("web"));
    send(guardian, 19);
    send(manager, 9);
    wait_gone(manager);
    send(guardian, 9);
    wait_gone(guardian);
    assert!(alive(pid), "nobody is left who could end it");
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("web", "running");
    assert!(!alive(pid));
    assert_eq!(marked(&mark).len(), 1);
    let record = &wharf.wait_records("web", 1)[0];
    assert_eq!(record["exit"]["cause"], "guardian_died", "{record}");
    assert!(record["exit"]["evidence"].to_string().contains("outlive"), "{record}");
    wharf.ok(&["down"]);
    assert_eq!(marked(&mark), Vec::<i32>::new());
}

#[test]
fn commands_reach_a_run_that_was_taken_over() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sh, -c, 'trap \"echo heard\" HUP; while :; do sleep 0.05; done'], on_manager_exit: keep }
  other: { command: [sleep, '1000'], on_manager_exit: keep }
",
    );
    wharf.wait_state("other", "running");
    let other = wharf.pid("other");
    kill_manager(&wharf);
    let first = wharf.wait_state("web", "running");
    wharf.ok(&["signal", "web", "HUP"]);
    until("the signal", || wharf.read(".wharf/log/web.1.log").contains("heard").then_some(()));
    wharf.ok(&["restart", "web"]);
    assert_ne!(wharf.row("web")["pid"], first["pid"]);
    assert_eq!(wharf.records_of("web")[0]["exit"]["cause"], "restart_requested");
    // A stop that its manager did not live to carry out is carried out by the next.
    wharf.ok(&["stop", "other"]);
    kill_manager(&wharf);
    wharf.wait_state("other", "stopped");
    assert!(!alive(other));
    // Another configuration ends it like any other.
    let pid = wharf.pid("web");
    wharf.write("services: { web: { command: [sleep, '1000'] } }\n");
    wharf.ok(&["reload"]);
    until("the new one", || (wharf.row("web")["pid"] != pid).then_some(()));
    assert!(!alive(pid));
    wharf.ok(&["down"]);
}
