//! Ready and well: each way to show it, by real programs, and what follows when it is not shown.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::{Wharf, alive, at, marked, script, send, text, times, until};

/// A port of this machine that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn evidence(record: &Value) -> String {
    at(record, "exit.evidence").to_string()
}

/// The pages of a real server, in Python.
fn server(port: u16) -> String {
    format!("[python3, -u, -m, http.server, '{port}', --bind, 127.0.0.1]")
}

#[test]
fn a_server_is_ready_when_it_answers_and_well_as_long_as_it_does() {
    let port = free_port();
    let wharf = Wharf::up(&format!(
        "services:
  web:
    command: {}
    ready: {{ http: 'http://127.0.0.1:{port}/services.yaml', interval: 50ms }}
    healthcheck: {{ http: 'http://localhost:{port}/healthz', interval: 100ms, start_interval: 50ms, retries: 2 }}
    stop_grace_period: 1s
",
        server(port)
    ));
    let row = wharf.wait_state("web", "running");
    assert_eq!(row["ready"], true);
    // There is no such page yet.
    let record = wharf.wait_records("web", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "health_failed", "{record}");
    let told = evidence(&record);
    assert!(told.contains("/healthz") && told.contains("status 404"), "{told}");
    assert!(told.contains("2 times in a row"), "{told}");
    assert!(at(&record, "restart.decision") == "restart", "{record}");
    std::fs::write(wharf.folder.join("healthz"), "fine\n").unwrap();
    let well = until("a healthy server", || {
        let row = wharf.row("web");
        (row["health"]["state"] == "healthy").then_some(row)
    });
    assert_eq!(well["check"]["ok"], true);
    assert!(wharf.ok(&["ps"]).contains("HEALTH"));
    assert!(wharf.ok(&["status", "web"]).contains("Health: healthy"));
    let metrics = wharf.get("/metrics");
    assert!(metrics.contains("wharf_service_replicas_healthy{service=\"web\"} 1"), "{metrics}");
    let failures = metrics.lines().find(|line| line.starts_with("wharf_probe_failures_total{"));
    assert!(failures.is_some_and(|line| !line.ends_with(" 0")), "{failures:?}");
    let events = wharf.ok(&["events", "--json", "--since", "1h"]);
    for kind in ["\"kind\":\"probe_failed\"", "\"kind\":\"health\""] {
        assert!(events.contains(kind), "{kind} is not among {events}");
    }
}

#[test]
fn each_way_of_being_ready_is_waited_for() {
    let port = free_port();
    let wharf = Wharf::new(&format!(
        "services:
  tcp:
    command: {}
    ready: {{ tcp: 'localhost:{port}', interval: 20ms }}
  exec:
    command: [sh, -c, 'sleep 0.2; touch up; exec sleep 1000']
    ready: {{ exec: 'test -e up', interval: 20ms }}
  line:
    command: [sh, -c, 'echo soon >&2; sleep 0.2; echo now listening on 7; exec sleep 1000']
    ready: {{ log_line: 'listening on \\d+$' }}
  fd:
    command: [sh, -c, 'sleep 0.2; echo >&5; exec 5>&-; exec sleep 1000']
    ready: {{ fd: 5 }}
  notify:
    command: [sh, -c, 'sleep 0.2; systemd-notify --ready --status=\"all is well\"; sleep 1000']
    ready: {{ notify: systemd }}
  message:
    command: [sh, -c, 'sleep 0.2; echo hello you; cat']
    port: {{ replies: one }}
    ready: {{ message: '^hello' }}
  exchange:
    command: cat
    port: {{ replies: one }}
    ready: {{ exchange: {{ send: marco, expect: '^marco$' }} }}
    healthcheck: {{ call: polo, interval: 100ms, start_interval: 50ms }}
",
        server(port)
    ));
    wharf.ok(&["up", "-d"]);
    for service in ["tcp", "exec", "line", "fd", "notify", "message", "exchange"] {
        wharf.wait_state(service, "running");
        assert_eq!(wharf.row(service)["restarts"], 0, "{service}");
    }
    until("the call's answer", || {
        (wharf.row("exchange")["health"]["state"] == "healthy").then_some(())
    });
    assert_eq!(wharf.row("notify")["status_text"], "all is well");
    assert!(wharf.ok(&["status", "notify"]).contains("Status: all is well"));
    // Each was starting before: the word that it runs came earlier than that it is ready.
    let events = wharf.ok(&["events", "--json", "--since", "1h"]);
    for service in ["tcp", "exec", "line", "fd", "notify", "message"] {
        let of = |kind: &str| {
            let mut lines = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let mut line =
                lines.find(|line| line["kind"] == kind && line["service"]["name"] == service);
            line.take().unwrap()["ts"].as_str().unwrap().to_owned()
        };
        assert!(of("start") < of("ready"), "{service}");
    }
    assert!(wharf.records().is_empty());
}

#[test]
fn who_is_not_ready_in_time_is_killed_and_the_record_says_what_was_waited_for() {
    let port = free_port();
    let wharf = Wharf::up(&format!(
        "defaults: {{ command: [sleep, '1000'], restart: no }}
services:
  tcp: {{ ready: {{ tcp: '127.0.0.1:{port}', timeout: 300ms }} }}
  line: {{ ready: {{ log_line: never, timeout: 300ms }} }}
  fd: {{ ready: {{ fd: 4, timeout: 300ms }} }}
  notify: {{ ready: {{ notify: systemd, timeout: 300ms }} }}
  exec: {{ ready: {{ exec: [sh, -c, 'echo not yet; exit 3'], timeout: 300ms, interval: 50ms }} }}
"
    ));
    for (service, words) in [
        ("tcp", "connection refused"),
        ("line", "a line that matches"),
        ("fd", "a line on descriptor 4"),
        ("notify", "READY=1"),
        ("exec", "exited with code 3: not yet"),
    ] {
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.cause"), "ready_timeout", "{record}");
        let told = evidence(&record);
        assert!(told.contains(words) && told.contains("ready.timeout (300ms)"), "{told}");
    }
}

/// A stopped program answers nothing: its check fails by its own time, and it is ended all the same.
#[test]
fn t26_a_stopped_program_fails_its_health_check() {
    let port = free_port();
    let wharf = Wharf::up(&format!(
        "services:
  web:
    command: {}
    ready: {{ tcp: '127.0.0.1:{port}', interval: 20ms }}
    healthcheck: {{ http: 'http://127.0.0.1:{port}/', interval: 50ms, timeout: 200ms, retries: 2, start_interval: 50ms }}
",
        server(port)
    ));
    until("a healthy server", || (wharf.row("web")["health"]["state"] == "healthy").then_some(()));
    let pid = wharf.pid("web");
    send(pid, libc_stop());
    let record = wharf.wait_records("web", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "health_failed");
    assert!(evidence(&record).contains("no answer within 200ms"), "{record}");
    // It was told to go on after the signal that asks it to end.
    assert_eq!(at(&record, "exit.signal.name"), "SIGTERM", "{record}");
    until("the next run", || (wharf.row("web")["health"]["state"] == "healthy").then_some(()));
}

fn libc_stop() -> i32 {
    "SIGSTOP".parse::<wharf::exit::Signal>().unwrap().number()
}

/// What is asked by a program that hangs, forks and holds the pipe, prints a megabyte or ends late.
#[test]
fn t44_a_probe_is_killed_with_all_it_started() {
    for cgroups in ["auto", "off"] {
        probes_that_misbehave(cgroups);
    }
}

fn probes_that_misbehave(cgroups: &str) {
    let own = tempfile::tempdir().unwrap();
    let mark = format!("probe-{}-{cgroups}", std::process::id());
    let probe = |name: &str, body: &str| script(own.path(), name, &format!("#!/bin/sh\n{body}\n"));
    let hangs = probe("hangs", "echo thinking; sleep 997");
    let forks =
        probe("forks", "sleep 998 & (setsid sleep 998 &) ; setsid sh -c 'sleep 998' & wait");
    let holds = probe("holds", "(setsid sleep 996 &); sleep 996 & echo fine; exit 0");
    let prints =
        probe("prints", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the last line; exit 1");
    let late = probe("late", "trap '' TERM; sleep 1; exit 0");
    let yaml = format!(
        "cgroups: {cgroups}
defaults:
  command: [sleep, '1000']
  environment: {{ MARK: {mark} }}
services:
  hangs: {{ healthcheck: {{ exec: [{hangs}], timeout: 300ms, start_interval: 50ms, on_failure: report }} }}
  forks: {{ healthcheck: {{ exec: [{forks}], timeout: 300ms, start_interval: 50ms, on_failure: report }} }}
  holds: {{ healthcheck: {{ exec: [{holds}], timeout: 3s, interval: 50ms, start_interval: 50ms, on_failure: report }} }}
  prints: {{ healthcheck: {{ exec: [{prints}], timeout: 3s, start_interval: 50ms, on_failure: report }} }}
  late: {{ healthcheck: {{ exec: [{late}], timeout: 200ms, start_interval: 50ms, on_failure: report }} }}
"
    );
    let wharf = Wharf::up(&yaml);
    let check = |service: &str, state: &str| {
        until(&format!("{service} to be {state}"), || {
            let row = wharf.row(service);
            (row["health"]["state"] == state).then(|| row["check"].clone())
        })
    };
    assert_eq!(check("hangs", "unhealthy")["error"], "no answer within 300ms: thinking");
    assert_eq!(check("forks", "unhealthy")["error"], "no answer within 300ms");
    // Its end is seen although what it started holds its pipe.
    assert_eq!(check("holds", "healthy")["output"], "fine\n");
    let printed = check("prints", "unhealthy");
    assert_eq!(printed["error"], "exited with code 1: the last line");
    let output = printed["output"].as_str().unwrap();
    assert!(output.len() == 4096 && output.ends_with("xxx\nthe last line\n"), "{}", output.len());
    assert_eq!(check("late", "unhealthy")["error"], "no answer within 200ms");
    assert!(wharf.records().is_empty(), "questions are no runs");
    assert!(wharf.ok(&["why", "hangs"]).contains("unhealthy"));

    // No more of it than what is asked at this moment.
    for service in ["hangs", "forks", "holds", "prints", "late"] {
        wharf.ok(&["stop", service]);
    }
    until("all that was asked to be gone", || {
        let left = marked(&mark);
        left.is_empty().then_some(())
    });
}

/// It says nothing of itself any more, and lives in a session of its own.
#[test]
fn t44_what_a_probe_hid_is_found_without_control_groups() {
    let mark = format!("77{}", std::process::id());
    let wharf = Wharf::up(&format!(
        "cgroups: off
services:
  web: {{ command: [sleep, '1000'], healthcheck: {{ exec: [sh, -c, 'env -i setsid sleep {mark} & echo asked >> times; exit 0'], interval: 20ms, start_interval: 20ms }} }}
"
    ));
    let asked = || wharf.read("times").lines().count();
    until("some questions", || {
        (wharf.row("web")["health"]["state"] == "healthy" && asked() > 10).then_some(())
    });
    // Those that are asked go on; those that were asked are gone, again and again.
    let before = asked();
    until("many questions", || (asked() > before + 20).then_some(()));
    until("few to be left", || {
        let (left, all) = (crate::support::with_argument(&mark).len(), asked());
        (2 * left < all).then_some(())
    });
    wharf.write("cgroups: off\nservices:\n  web: { command: [sleep, '1000'] }\n");
    wharf.ok(&["reload"]);
    until("none to be left", || crate::support::with_argument(&mark).is_empty().then_some(()));
    assert!(wharf.records().is_empty(), "its run goes on");
}

/// All health checks hang, as many as are asked at once and more; who is not ready yet is asked all the
/// same.
#[test]
fn hanging_health_checks_keep_nobody_from_becoming_ready() {
    use std::fmt::Write as _;
    let mut yaml = "defaults: { command: [sleep, '1000'] }\nservices:\n".to_owned();
    for service in 0..20 {
        let _ = writeln!(
            yaml,
            "  s{service}: {{ healthcheck: {{ exec: [sh, -c, 'touch hung.{service}; exec sleep 1000'], timeout: 100s, start_interval: 10ms, on_failure: report }} }}"
        );
    }
    let wharf = Wharf::up(&yaml);
    let hung = || (0..20).filter(|one| wharf.folder.join(format!("hung.{one}")).exists()).count();
    until("hanging checks", || (hung() >= 16).then_some(()));
    yaml.push_str("  late: { ready: { exec: 'true', timeout: 3s }, restart: no }\n");
    wharf.write(&yaml);
    wharf.ok(&["reload"]);
    wharf.wait_state("late", "running");
    assert!(wharf.records().is_empty());
}

#[test]
fn t44_nothing_is_left_after_ten_thousand_probes() {
    let services = 10;
    let wharf = Wharf::new("");
    let mut yaml = "services:\n".to_owned();
    for service in 0..services {
        use std::fmt::Write as _;
        let exec = if service % 2 == 0 { "[/bin/true]" } else { "[sh, -c, 'sleep 900 & exit 0']" };
        let _ = writeln!(
            yaml,
            "  s{service}: {{ command: [sleep, '1000'], healthcheck: {{ exec: {exec}, interval: 10ms, start_interval: 10ms }} }}"
        );
    }
    wharf.write(&yaml);
    wharf.ok(&["up", "-d"]);
    let manager = wharf.manager_pid();
    let open = || wharf::os::usage::open_descriptors(manager).unwrap();
    let children = || {
        let all = wharf::os::procfs::all().unwrap();
        all.iter().filter(|one| one.parent == manager).count()
    };
    until("all to be well", || {
        wharf.ps().iter().all(|row| row["health"]["state"] == "healthy").then_some(())
    });
    let before = open();
    // Each probe of a service is seen by its check's time.
    let mut seen = 0;
    let mut last = vec![Value::Null; services];
    let whole = times(10_000);
    until_for(whole, || {
        for (row, last) in wharf.ps().iter().zip(&mut last) {
            if row["check"]["at"] != *last {
                *last = row["check"]["at"].clone();
                seen += 1;
            }
            assert_eq!(row["health"]["state"], "healthy", "{row}");
        }
        seen >= whole
    });
    wharf.write("services: {}\n");
    wharf.ok(&["reload"]);
    until("no child to be left", || (children() == 0).then_some(()));
    assert!(open() <= before, "{} descriptors, {before} before", open());
    assert!(wharf.records().iter().all(|record| record["exit"]["cause"] == "config_changed"));
}

/// Looks until something is so; as long as that takes for so many things.
fn until_for(count: usize, mut is_so: impl FnMut() -> bool) {
    let limit = crate::support::LIMIT + std::time::Duration::from_millis(20 * count as u64);
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "waited in vain");
        crate::support::look_again();
    }
}

/// The same exit code, for causes of which each is told.
#[test]
fn t9_what_a_run_is_watched_by_is_its_cause() {
    let trapped = "trap 'exit 1' TERM; systemd-notify --ready; while :; do sleep 0.05; done";
    let eats = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(1))\nx = bytearray(80 << 20)\nwhile True: time.sleep(0.05)\n";
    let wharf = Wharf::new("");
    std::fs::write(wharf.folder.join("eats.py"), eats).unwrap();
    wharf.write(&format!(
        "defaults: {{ restart: no, command: [bash, -c, \"{trapped}\"] }}
services:
  health: {{ ready: {{ notify: systemd }}, healthcheck: {{ exec: 'false', start_interval: 20ms, retries: 1 }} }}
  watchdog: {{ ready: {{ notify: systemd }}, watchdog: 200ms }}
  memory: {{ command: [python3, eats.py], max_memory: 40MiB, ready: {{ exec: 'true' }} }}
  old: {{ ready: {{ notify: systemd }}, max_lifetime: 1s, restart: always }}
  late: {{ ready: {{ tcp: 'unix:/nowhere', timeout: 200ms }} }}
"
    ));
    wharf.ok(&["up", "-d"]);
    for (service, cause, words) in [
        ("health", "health_failed", "exited with code 1"),
        ("watchdog", "watchdog", "no sign of life within 200ms"),
        ("memory", "max_memory", "more than max_memory (40MiB)"),
        ("old", "max_lifetime", "max_lifetime (1s)"),
        ("late", "ready_timeout", "no such file or directory"),
    ] {
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.cause"), cause, "{record}");
        if cause != "ready_timeout" {
            assert_eq!(at(&record, "process.exit.code"), 1, "{record}");
        }
        assert!(evidence(&record).contains(words), "{record}");
        assert!(at(&record, "exit.requested_by").is_null(), "{record}");
    }
    assert_eq!(wharf.row("health")["state"], "failed");
    wharf.wait_state("old", "running");
}

#[test]
fn who_gives_signs_of_life_lives_and_who_asks_for_time_gets_it() {
    let lives = "systemd-notify --ready; test $WATCHDOG_PID = $$$$ || exit 9; test $WATCHDOG_USEC = 2000000 || exit 8; \
                 for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 0.2; systemd-notify WATCHDOG=1; done; echo alive; sleep 1000";
    let slow =
        "systemd-notify EXTEND_TIMEOUT_USEC=60000000; sleep 5; systemd-notify --ready; sleep 1000";
    let parts = "systemd-notify --ready; systemd-notify STOPPING=1; exec sleep 1000";
    let moves = "systemd-notify --ready MAINPID=1; systemd-notify FDSTORE=1; exit 3";
    let wharf = Wharf::up(&format!(
        "defaults: {{ restart: no, ready: {{ notify: systemd, timeout: 4s }} }}
services:
  lives: {{ command: [bash, -c, '{lives}'], watchdog: 2s }}
  slow: {{ command: [bash, -c, '{slow}'] }}
  parts: {{ command: [bash, -c, '{parts}'], stop_grace_period: 300ms, healthcheck: {{ exec: 'false', start_interval: 1s, retries: 1 }} }}
  moves: {{ command: [bash, -c, '{moves}'] }}
"
    ));
    wharf.wait_state("slow", "running");
    until("the last sign of life", || wharf.logs("lives").contains("alive").then_some(()));
    let record = wharf.wait_records("parts", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "stop_timeout", "{record}");
    assert!(evidence(&record).contains("STOPPING=1"), "{record}");
    let record = wharf.wait_records("moves", 1).remove(0);
    let told = evidence(&record);
    assert!(
        told.contains("(MAINPID) was refused") && told.contains("(FDSTORE) was refused"),
        "{told}"
    );
    // Silent from here on.
    let record = wharf.wait_records("lives", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "watchdog", "{record}");
}

/// Each of them speaks in time, while the manager gets no processor; then it hears of all at once.
#[test]
fn a_manager_that_was_stopped_blames_nobody_for_that() {
    let signs = "while :; do systemd-notify WATCHDOG=1; sleep 0.2; done";
    let waits = "touch $WHARF_SERVICE.began; while ! test -e stopped; do sleep 0.02; done";
    let wharf = Wharf::up(&format!(
        "defaults: {{ restart: no }}
services:
  notify:
    command: [sh, -c, '{waits}; systemd-notify --ready --status=here; sleep 6; touch late; sleep 1000']
    ready: {{ notify: systemd, timeout: 5s }}
  line:
    command: [sh, -c, '{waits}; echo here; exec sleep 1000']
    ready: {{ log_line: here, timeout: 5s }}
  asked:
    command: [sh, -c, '{waits}; touch $WHARF_SERVICE.up; exec sleep 1000']
    ready: {{ exec: 'test -e asked.up', interval: 500ms, timeout: 5s }}
  dog:
    command: [bash, -c, 'systemd-notify --ready; {signs}']
    ready: {{ notify: systemd }}
    watchdog: 2s
  check:
    command: [sleep, '1000']
    healthcheck: {{ exec: 'sleep 0.3', timeout: 3s, interval: 10ms, start_interval: 10ms, retries: 1 }}
"
    ));
    for service in ["notify", "line", "asked"] {
        let began = wharf.folder.join(format!("{service}.began"));
        until("it to begin", || began.exists().then_some(()));
    }
    until("a healthy service", || {
        (wharf.row("check")["health"]["state"] == "healthy").then_some(())
    });
    let manager = wharf.manager_pid();
    send(manager, libc_stop());
    std::fs::write(wharf.folder.join("stopped"), "").unwrap();
    until("all times to be over", || wharf.folder.join("late").exists().then_some(()));
    send(manager, "SIGCONT".parse::<wharf::exit::Signal>().unwrap().number());
    for service in ["notify", "line", "asked", "dog", "check"] {
        wharf.wait_state(service, "running");
    }
    assert_eq!(wharf.row("notify")["status_text"], "here");
    assert!(wharf.records().is_empty(), "{:?}", wharf.records());
}

/// Nobody but what a run started is listened to.
#[test]
fn strangers_cannot_say_that_a_program_is_ready() {
    let wharf = Wharf::up(
        "services:
  web:
    command: [sh, -c, 'echo $NOTIFY_SOCKET; exec sleep 1000']
    ready: { notify: systemd, timeout: 2s }
    restart: no
",
    );
    let address = until("the socket's name", || {
        let line = text(&wharf.run(&["logs", "web"]).stdout);
        let at = line.find('@')?;
        Some(line[at..].trim().to_owned())
    });
    let sent = std::process::Command::new("python3")
        .arg("-c")
        .arg("import socket,sys,time\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.sendto(b'READY=1','\\0'+sys.argv[1][1:])\ntime.sleep(1)")
        .arg(&address)
        .status()
        .unwrap();
    assert!(sent.success());
    let record = wharf.wait_records("web", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "ready_timeout", "{record}");
    assert!(evidence(&record).contains("none of the program's"), "{record}");
}

#[test]
fn a_reload_changes_what_is_asked_without_a_new_run() {
    let yaml = |exec: &str| {
        format!(
            "services:\n  web: {{ command: [sleep, '1000'], healthcheck: {{ exec: '{exec}', interval: 50ms, start_interval: 50ms, on_failure: report }} }}\n"
        )
    };
    let wharf = Wharf::up(&yaml("true"));
    let health = |state: &str| {
        until(state, || (wharf.row("web")["health"]["state"] == state).then_some(()));
    };
    health("healthy");
    let pid = wharf.pid("web");
    wharf.write(&yaml("false"));
    wharf.ok(&["reload"]);
    health("unhealthy");
    wharf.write(&yaml("true"));
    wharf.ok(&["reload"]);
    health("healthy");
    assert!(wharf.pid("web") == pid && alive(pid));
}

/// What many ask at once is asked in turn, and no answer of one waits for what hangs at another.
#[test]
fn many_services_are_asked_fairly() {
    let count = 200;
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = hole.local_addr().unwrap().port();
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = door.local_addr().unwrap().port();
    std::thread::spawn(move || door.incoming().for_each(drop));
    let mut yaml = "defaults: { command: [sleep, '1000'] }\nservices:\n".to_owned();
    for service in 0..count {
        use std::fmt::Write as _;
        // Half of them ask somebody who never answers.
        let check = if service % 2 == 0 {
            format!("http: 'http://127.0.0.1:{silent}/', timeout: 500ms")
        } else {
            format!("tcp: '127.0.0.1:{port}', timeout: 3s")
        };
        let _ = writeln!(
            yaml,
            "  s{service}: {{ healthcheck: {{ {check}, interval: 1s, start_interval: 1s, on_failure: report }} }}"
        );
    }
    let wharf = Wharf::up(&yaml);
    until("everybody's answer", || {
        let rows = wharf.ps();
        let told = rows.iter().filter(|row| {
            let number: usize = row["service"].as_str().unwrap()[1..].parse().unwrap();
            let state = if number.is_multiple_of(2) { "unhealthy" } else { "healthy" };
            row["health"]["state"] == state
        });
        (told.count() == count).then_some(())
    });
    assert!(wharf.records().is_empty());
}
