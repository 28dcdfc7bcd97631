//! A reload at any time leads to what is written, with one run of each at most; and one of hundreds of
//! services is one pass.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::loops::cpu;
use crate::support::{Wharf, at, soaking, times, until};

/// Whoever runs holds a lock and so does all it starts: a second copy ends with this code.
const DOUBLE: i64 = 99;

/// What a service is doing while the configuration changes.
const DOING: [&str; 7] =
    ["running", "ready-waiting", "probed", "backing-off", "stopping", "restarting", "line"];
/// What becomes of it.
const CHANGES: [&str; 4] = ["command", "remove", "add", "live"];

/// One service, as it is before the change or after it.
fn service(doing: &str, change: &str, after: bool) -> Option<String> {
    let name = format!("{doing}-{change}");
    let changed = after && change == "command";
    let body = match doing {
        _ if changed => "exec sleep 1001",
        "backing-off" => "exit 1",
        "stopping" | "restarting" => "trap '' TERM; while :; do sleep 0.2; done",
        _ => "exec sleep 1000",
    };
    let keys = match doing {
        "ready-waiting" => "ready: { exec: [test, -e, go], interval: 100ms }, ",
        "probed" => "healthcheck: { exec: [sleep, '100'], timeout: 2m, start_interval: 100ms }, ",
        "backing-off" => "restart: { policy: always, delay: 1h, max_delay: 1h }, ",
        "stopping" | "restarting" => "stop_grace_period: 2s, ",
        "line" => "depends_on: { ready-waiting-live: { condition: service_healthy } }, ",
        _ => "",
    };
    let live = if after && change == "live" { "labels: { a: b }, " } else { "" };
    (!after || change != "remove").then(|| {
        format!(
            "  {name}: {{ {keys}{live}command: [flock, -n, -F, -E, '{DOUBLE}', {name}.lock, \
             sh, -c, \"{body}\"] }}\n"
        )
    })
}

fn yaml(after: bool, without: &[&str]) -> String {
    let mut yaml = "services:\n".to_owned();
    for doing in DOING {
        for change in CHANGES.iter().filter(|change| !without.contains(change)) {
            yaml.extend(service(doing, change, after));
        }
    }
    yaml
}

fn words_of(row: &Value) -> String {
    let pid = i32::try_from(row["pid"].as_i64().unwrap_or(0)).unwrap();
    wharf::os::procfs::arguments(pid)
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Brings every service to what it is to be doing.
fn bring_about(wharf: &Wharf) -> Vec<std::process::Child> {
    let mut asking = Vec::new();
    for change in CHANGES {
        for doing in ["running", "probed", "stopping", "restarting"] {
            wharf.wait_state(&format!("{doing}-{change}"), "running");
        }
        wharf.wait_state(&format!("ready-waiting-{change}"), "starting");
        wharf.wait_state(&format!("line-{change}"), "waiting");
        wharf.wait_state(&format!("backing-off-{change}"), "backoff");
    }
    // A probe that hangs is a process of its own.
    until("the probes", || {
        let probes = crate::support::with_argument("100");
        (probes.len() >= CHANGES.len()).then_some(())
    });
    for change in CHANGES {
        for (verb, doing) in [("stop", "stopping"), ("restart", "restarting")] {
            let name = format!("{doing}-{change}");
            let mut command = wharf.command(&[verb, &name]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            asking.push(command.spawn().unwrap());
            until("it is being stopped", || {
                let state = wharf.row(&name)["state"].clone();
                (state == "stopping").then_some(())
            });
        }
    }
    asking
}

#[test]
fn t41_a_reload_in_every_state_converges_and_nothing_ever_runs_twice() {
    let wharf = Wharf::up(&yaml(false, &[]));
    let asking = bring_about(&wharf);
    let before: Vec<Value> = wharf.ps();
    let pid_before = |name: &str| {
        before.iter().find(|row| row["service"] == name).map(|row| row["pid"].clone()).unwrap()
    };
    // Some are taken away and come back before they have ended.
    wharf.write(&yaml(true, &["add"]));
    wharf.ok(&["reload"]);
    wharf.write(&yaml(true, &[]));
    wharf.ok(&["reload"]);
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    // Whoever asked for something is told what became of that, also where others wanted something else.
    for mut asking in asking {
        until("an answer", || asking.try_wait().unwrap());
    }
    for doing in DOING {
        for change in CHANGES {
            let name = format!("{doing}-{change}");
            let state = match (doing, change) {
                (_, "remove") => None,
                ("backing-off", "live" | "add") => Some("backoff"),
                // What an operator stopped stays so, unless it is another one by now.
                ("stopping", "live" | "command") => Some("stopped"),
                _ => Some("running"),
            };
            let Some(state) = state else {
                until("the removed one to be gone", || wharf.row(&name).is_null().then_some(()));
                continue;
            };
            let row = wharf.wait_state(&name, state);
            if state == "running" {
                let words = words_of(&row);
                let newest = change == "command";
                assert_eq!(words.contains("sleep 1001"), newest, "{name}: {words}");
                let stays =
                    change == "live" && ["running", "probed", "ready-waiting"].contains(&doing);
                if stays {
                    assert_eq!(row["pid"], pid_before(&name), "{name} is left alone");
                }
            }
        }
    }
    check_no_doubles(&wharf);
    // It stays so: a further reload finds nothing.
    assert_eq!(wharf.ok(&["reload", "--plan"]), "nothing changes\n");
    wharf.ok(&["down"]);
    let causes = wharf.records_of("running-remove");
    assert_eq!(causes.len(), 1);
    assert_eq!(at(&causes[0], "exit.cause"), "config_changed");
    for change in ["command", "add"] {
        let records = wharf.records_of(&format!("running-{change}"));
        assert_eq!(records.len(), 2, "one run before and one after: {records:?}");
    }
}

fn check_no_doubles(wharf: &Wharf) {
    for record in wharf.records() {
        let code = at(&record, "process.exit.code");
        assert!(*code != DOUBLE, "two copies at once: {record}");
    }
}

/// Reloads that nobody waits for catch services at every step of a start and of an end.
#[test]
fn t41_reloads_one_upon_another_end_with_the_last_one() {
    let yaml = |round: usize| {
        (0..12).fold("services:\n".to_owned(), |mut yaml, number| {
            // Each is another one in most rounds, and in some it is not there.
            let version = 1_000 + (round + number) / (1 + number % 3);
            if !(round + number).is_multiple_of(7) {
                let _ = writeln!(
                    yaml,
                    "  s{number}: {{ stop_grace_period: 5s, command: [flock, -n, -F, -E, '{DOUBLE}', \
                     s{number}.lock, sleep, '{version}'] }}"
                );
            }
            yaml
        })
    };
    let wharf = Wharf::up(&yaml(1));
    let rounds = times(400);
    for round in 2..=rounds.max(2) {
        wharf.write(&yaml(round));
        wharf.ok(&["reload"]);
    }
    let last = rounds.max(2);
    for number in 0..12 {
        let name = format!("s{number}");
        if (last + number).is_multiple_of(7) {
            until("it to be gone", || wharf.row(&name).is_null().then_some(()));
            continue;
        }
        let version = format!("sleep {}", 1_000 + (last + number) / (1 + number % 3));
        until("the last one", || {
            let row = wharf.row(&name);
            (row["state"] == "running" && words_of(&row).contains(&version)).then_some(())
        });
    }
    check_no_doubles(&wharf);
}

/// `count` services, of which every other one of the first 600 is another in round 2; a chain of three
/// that wait for one another; and one that takes its time to end.
fn many(count: usize, round: u32) -> String {
    let mut yaml = "services:\n".to_owned();
    for number in 0..count {
        let changed = number.is_multiple_of(2) && number < 600;
        let length = if changed { 1_000 + round } else { 1_000 };
        // Each of those that change takes a second to end: one after the other that were minutes.
        let command = if changed {
            format!("[sh, -c, 'trap \"kill $!; sleep 1; exit 0\" TERM; sleep {length} & wait']")
        } else {
            format!("[sleep, '{length}']")
        };
        let _ = writeln!(yaml, "  s{number}: {{ command: {command} }}");
    }
    for (name, needs) in [("c1", ""), ("c2", "c1"), ("c3", "c2")] {
        let needs = if needs.is_empty() {
            String::new()
        } else {
            format!("depends_on: {{ {needs}: {{ condition: service_healthy, restart: true }} }}, ")
        };
        let _ = writeln!(
            yaml,
            "  {name}: {{ {needs}ready: {{ log_line: up }}, command: [sh, -c, 'echo {name} begins >> order; \
             sleep 0.3; echo {name} ready >> order; echo up; exec sleep {}'] }}",
            1_000 + round
        );
    }
    yaml
}

#[test]
fn hundreds_of_services_reload_in_one_pass() {
    let count = if soaking() { 1_000 } else { 600 };
    let wharf = Wharf::new(&many(count, 1));
    let all_up = || {
        until("all to run", || {
            let rows = wharf.ps();
            let up = rows.iter().filter(|row| row["state"] == "running").count();
            (rows.len() == count + 3 && up == rows.len()).then_some(())
        });
    };
    let began = Instant::now();
    wharf.ok(&["up", "-d"]);
    all_up();
    let (up, manager) = (began.elapsed(), wharf.manager_pid());
    let up_cpu = cpu(manager);
    let before: Vec<Value> = wharf.ps();

    wharf.write(&many(count, 2));
    let plan = wharf.ok(&["reload", "--plan"]);
    assert_eq!(plan.lines().filter(|line| line.contains(": restart (command")).count(), 303);
    let began = Instant::now();
    wharf.ok(&["reload"]);
    let run = |rows: &[Value], number: usize| {
        let name = format!("s{number}");
        let row = rows.iter().find(|row| row["service"] == *name).unwrap();
        (row["pid"].clone(), row["incarnation"].clone(), row["state"].clone())
    };
    let changed = |number: usize| number.is_multiple_of(2) && number < 600;
    let after = until("all changed ones to be others", || {
        let rows = wharf.ps();
        let others = (0..count).filter(|number| changed(*number));
        let done = others.clone().all(|number| {
            let (now, then) = (run(&rows, number), run(&before, number));
            now.1 != then.1 && now.2 == "running"
        });
        (done && rows.iter().all(|row| row["state"] == "running")).then_some(rows)
    });
    let (took, used) = (began.elapsed(), cpu(manager) - up_cpu);
    println!(
        "{count} services up in {up:.1?}, manager {up_cpu:.2} s; 303 of them anew in {took:.1?}, manager {used:.2} s: {:.2} of up",
        took.as_secs_f64() / up.as_secs_f64()
    );
    for number in (0..count).filter(|number| !changed(*number)) {
        assert_eq!(run(&after, number), run(&before, number), "s{number} is left alone");
    }
    // One after the other it would have been 300 s and more.
    assert!(took < Duration::from_secs(100), "{took:?}");
    // What a reload costs the manager is of the kind of what a start costs, which is known to be linear.
    assert!(used < 4.0 * up_cpu + 0.5, "{used} s of processor time, {up_cpu} s to start all");
    let order = wharf.read("order");
    let chain = "c1 begins\nc1 ready\nc2 begins\nc2 ready\nc3 begins\nc3 ready\n";
    assert_eq!(order, chain.repeat(2), "each waits for the one before it, also in a reload");
}
