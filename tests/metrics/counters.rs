//! Counters: they only grow, they are the journal's, and they go with their service.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use wharf::metrics::{CATALOGUE, Kind};

use crate::scrape::{Scrape, family, number};
use crate::support::{Wharf, at, send, until};

/// The counters of a scrape, the parts of histograms among them.
pub(crate) fn counters(scrape: &Scrape) -> BTreeMap<&str, f64> {
    let counts = |series: &str| {
        let name = family(series);
        let metric = CATALOGUE.iter().find(|metric| metric.name == name);
        metric.is_some_and(|metric| metric.kind != Kind::Gauge)
    };
    let all = scrape.values.iter().map(|(series, value)| (series.as_str(), *value));
    all.filter(|(series, _)| counts(series)).collect()
}

/// No counter of `before` is missing or smaller in `after`.
#[track_caller]
pub(crate) fn grown(before: &Scrape, after: &Scrape) {
    let after = counters(after);
    for (series, value) in counters(before) {
        let now = after.get(series);
        assert!(now.is_some_and(|now| *now >= value), "{series} fell from {value} to {now:?}");
    }
}

/// How many records of each service and reason a journal has.
pub(crate) fn in_journal(records: &[Value]) -> BTreeMap<(String, String), f64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let text = |path: &str| at(record, path).as_str().unwrap().to_owned();
        *counts.entry((text("service.name"), text("exit.reason"))).or_default() += 1.0;
    }
    counts
}

/// The same by a scrape, without those that never happened.
pub(crate) fn in_scrape(scrape: &Scrape) -> BTreeMap<(String, String), f64> {
    let exits = scrape
        .values
        .iter()
        .filter(|(series, value)| family(series) == "wharf_process_exits_total" && **value > 0.0);
    let labels = |series: &str| {
        let mut quoted = series.split('"');
        (quoted.nth(1).unwrap().to_owned(), quoted.nth(1).unwrap().to_owned())
    };
    exits.map(|(series, value)| (labels(series), *value)).collect()
}

const BUSY: &str = "
    restart: { delay: 1ms, max_delay: 20ms, max_restarts: 100000 }
";

#[test]
fn no_counter_falls_while_services_come_and_go() {
    let mut yaml = "services:\n".to_owned();
    for at in 0..6 {
        // Time in both modes and bytes on disk, some of them a child's.
        let work = format!(
            "i=0; while [ $$i -lt {} ]; do i=$$((i+1)); done; dd if=/dev/zero of=out{at} bs=64k count=4 conv=fsync 2>/dev/null; echo done; exit {at}",
            2000 + at * 3000
        );
        write!(yaml, "  s{at}:\n    command: [sh, -c, '{work}']{BUSY}").unwrap();
    }
    let wharf = Wharf::up(&yaml);
    let mut before = Scrape::of(&wharf);
    let mut scrapes = 0;
    until("two hundred ends", || {
        let after = Scrape::of(&wharf);
        grown(&before, &after);
        scrapes += 1;
        let ends = after.sum("wharf_process_exits_total", "");
        before = after;
        (ends >= 200.0).then_some(())
    });
    assert!(scrapes > 10, "{scrapes} scrapes");
    assert!(before.sum("wharf_cpu_seconds_total", "") > 0.05);
    assert!(before.sum("wharf_service_restarts_total", "") > 100.0);
    // What everything used altogether is at least what the journal says of those that ended.
    let records = wharf.records();
    let used = |key: &str| -> f64 {
        let of = |record: &Value| at(record, &format!("usage.{key}")).as_f64().unwrap_or(0.0);
        records.iter().map(of).sum()
    };
    let last = Scrape::of(&wharf);
    let told = last.sum("wharf_cpu_seconds_total", "mode=\"user\"");
    assert!(told >= used("cpu_user_s") - 1e-6, "{told} {}", used("cpu_user_s"));
}

#[test]
fn the_counts_are_the_journals() {
    let wharf = Wharf::up(
        r#"services:
  done: { command: "true", restart: no }
  fails: { command: [sh, -c, "sleep 0.01; exit 3"], restart: { delay: 1ms, max_delay: 2ms, max_restarts: 30 } }
  killed: { command: [sh, -c, "kill -9 $$$$"], restart: { delay: 1ms, max_delay: 2ms, max_restarts: 20 } }
  missing: { command: [/does/not/exist], restart: no }
  nowhere: { command: [sleep, "1"], working_dir: /does/not/exist, restart: no }
  babble: { command: [sh, -c, "echo what is this; exec sleep 100"], port: { framing: packet4, max_frame: 1KiB }, restart: no }
  rests: { command: [sleep, "1000"] }
"#,
    );
    for (service, state) in [
        ("done", "finished"),
        ("fails", "failed"),
        ("killed", "failed"),
        ("missing", "failed"),
        ("babble", "failed"),
    ] {
        wharf.wait_state(service, state);
    }
    wharf.wait_records("nowhere", 1);
    wharf.ok(&["stop", "rests"]);
    wharf.wait_records("rests", 1);
    let (records, scrape) = until("the last exit in a scrape", || {
        let (records, scrape) = (wharf.records(), Scrape::of(&wharf));
        let counts: f64 = in_scrape(&scrape).values().sum();
        (counts >= number(records.len())).then_some((records, scrape))
    });
    assert_eq!(in_scrape(&scrape), in_journal(&records));
    for (series, value) in [
        ("wharf_service_restarts_total{service=\"fails\"}", 30.0),
        ("wharf_process_exits_total{service=\"fails\",reason=\"failed\"}", 31.0),
        ("wharf_process_starts_total{service=\"fails\"}", 31.0),
        ("wharf_restart_budget_remaining{service=\"fails\"}", 0.0),
        ("wharf_port_protocol_errors_total{service=\"babble\",kind=\"oversize\"}", 1.0),
        ("wharf_port_protocol_errors_total{service=\"babble\",kind=\"garbage\"}", 0.0),
        // Somebody asked for that end: it is no restart, and nobody wants it up any more.
        ("wharf_service_restarts_total{service=\"rests\"}", 0.0),
        ("wharf_service_replicas_desired{service=\"rests\"}", 0.0),
        ("wharf_service_replicas_desired{service=\"done\"}", 0.0),
        ("wharf_service_replicas_desired{service=\"fails\"}", 1.0),
    ] {
        assert!((scrape.get(series) - value).abs() < 1e-9, "{series} {}", scrape.get(series));
    }
}

#[test]
fn a_removed_service_takes_its_series_along_and_begins_anew_when_it_comes_again() {
    let one = "services:\n  stays: { command: [sleep, '1000'] }\n";
    let both = format!(
        "{one}  goes: {{ command: [sh, -c, 'exit 1'], restart: {{ delay: 1ms, max_delay: 2ms, max_restarts: 5 }} }}\n"
    );
    let wharf = Wharf::up(&both);
    wharf.wait_state("goes", "failed");
    let series = "wharf_process_exits_total{service=\"goes\",reason=\"failed\"}";
    until("its ends", || (Scrape::of(&wharf).get(series) > 5.0).then_some(()));

    wharf.write(one);
    wharf.ok(&["reload"]);
    until("its series to go", || {
        let scrape = Scrape::of(&wharf);
        assert!(scrape.text.contains("service=\"stays\""));
        (!scrape.text.contains("service=\"goes\"")).then_some(())
    });
    let idle = format!("{one}  goes: {{ command: [sleep, '1000'] }}\n");
    wharf.write(&idle);
    wharf.ok(&["reload"]);
    wharf.wait_state("goes", "running");
    assert!(Scrape::of(&wharf).get(series).abs() < 1e-9);
    assert!(
        (Scrape::of(&wharf).get("wharf_process_starts_total{service=\"goes\"}") - 1.0).abs() < 1e-9
    );
}

#[test]
fn a_new_life_of_the_manager_counts_from_0_and_says_so() {
    let wharf = Wharf::up(
        "services:\n  s: { command: [sh, -c, 'exec sleep 1000'] }\n  f: { command: 'false', restart: { delay: 1ms, max_delay: 2ms, max_restarts: 4 } }\n",
    );
    wharf.wait_state("f", "failed");
    let failed = "wharf_process_exits_total{service=\"f\",reason=\"failed\"}";
    until("its ends", || (Scrape::of(&wharf).get(failed) > 4.0).then_some(()));
    let manager = wharf.manager_pid();
    send(manager, 9);
    until("another manager", || {
        let other: Value = serde_json::from_str(&wharf.try_get("/v1/manager").ok()?).unwrap();
        (other["pid"] != manager).then_some(())
    });
    // What died with the manager is recorded by the new one, and counted with the record.
    let lost = wharf.wait_records("s", 1);
    let reason = at(&lost[0], "exit.reason").as_str().unwrap();
    let scrape = until("the end that the old manager's death brought", || {
        let scrape = Scrape::of(&wharf);
        let series = format!("wharf_process_exits_total{{service=\"s\",reason=\"{reason}\"}}");
        (scrape.get(&series) > 0.5).then_some(scrape)
    });
    assert!(scrape.get(failed).abs() < 1e-9, "that was the old one's");
    // The last end is known all the same: it is in the journal.
    assert!((scrape.get("wharf_last_exit_code{service=\"f\",replica=\"1\"}") - 1.0).abs() < 1e-9);
    for metric in CATALOGUE.iter().filter(|metric| metric.kind == Kind::Counter) {
        assert!(metric.help.contains("each life of the manager"), "{}", metric.name);
    }
}

#[test]
fn reloads_are_told() {
    let good = "services:\n  s: { command: [sleep, '1000'] }\n";
    let wharf = Wharf::up(good);
    let worked = "wharf_config_last_reload_successful";
    let when = "wharf_config_last_reload_timestamp_seconds";
    let first = Scrape::of(&wharf);
    assert!((first.get(worked) - 1.0).abs() < 1e-9);
    wharf.write("services:\n  s: { comand: x }\n");
    wharf.fails(3, &["reload", "--plan"]);
    assert!((Scrape::of(&wharf).get(worked) - 1.0).abs() < 1e-9, "a plan is no reload");
    wharf.fails(3, &["reload"]);
    let refused = until("the refusal", || {
        let scrape = Scrape::of(&wharf);
        (scrape.get(worked) < 0.5).then_some(scrape)
    });
    assert!((refused.get(when) - first.get(when)).abs() < 1e-9, "the old one is still in effect");
    wharf.write(good);
    wharf.ok(&["reload"]);
    let again = Scrape::of(&wharf);
    assert!(again.get(worked) > 0.5 && again.get(when) > first.get(when));
}

#[test]
fn ports_that_wait_and_disks_that_are_full_show() {
    let wharf = Wharf::new(
        r#"services:
  deaf: { command: [sleep, "1000"], port: { framing: lines, replies: none } }
  loud: { command: [sh, -c, "echo one; echo two; echo oh >&2; exec sleep 1000"] }
  crowd: { command: [bash, -c, "exec 5</dev/null 6</dev/null 7</dev/null; exec sleep 1000"], limits: { nofile: 8 } }
"#,
    );
    std::fs::create_dir_all(wharf.state().join("log")).unwrap();
    std::os::unix::fs::symlink("/dev/full", wharf.state().join("log/loud.1.log")).unwrap();
    std::os::unix::fs::symlink("/dev/full", wharf.state().join("exits.jsonl")).unwrap();
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("deaf", "running");
    // A pipe holds 64 KiB; what is more waits for a program that never reads.
    let large = "x".repeat(200 << 10);
    for _ in 0..2 {
        let mut socket = wharf.connect().unwrap();
        let head = format!(
            "POST /v1/services/deaf/send HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            large.len()
        );
        std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();
        std::io::Write::write_all(&mut socket, large.as_bytes()).unwrap();
        // It stays open: whoever goes away takes the message along.
        std::mem::forget(socket);
    }
    let blocked = "wharf_port_blocked_seconds_total{service=\"deaf\"}";
    let first = until("a port that waits", || {
        let scrape = Scrape::of(&wharf);
        let queued = scrape.get("wharf_port_queue_length{service=\"deaf\"}");
        (scrape.get(blocked) > 0.0 && queued > 1.5).then(|| scrape.get(blocked))
    });
    until("more of it", || (Scrape::of(&wharf).get(blocked) > first + 0.05).then_some(()));
    let scrape = until("what the disk did not take", || {
        let scrape = Scrape::of(&wharf);
        (scrape.get("wharf_log_dropped_lines_total{service=\"loud\"}") > 2.5).then_some(scrape)
    });
    assert!(
        (scrape.get("wharf_log_lines_total{service=\"loud\",stream=\"stdout\"}") - 2.0).abs()
            < 1e-9
    );
    assert!(
        (scrape.get("wharf_log_lines_total{service=\"loud\",stream=\"stderr\"}") - 1.0).abs()
            < 1e-9
    );
    let ratio = scrape.get("wharf_worst_fd_ratio{service=\"crowd\"}");
    assert!((ratio - 0.75).abs() < 1e-9, "six of eight descriptors: {ratio}");
    assert!((scrape.get("wharf_max_fds{service=\"crowd\"}") - 8.0).abs() < 1e-9);

    // An end that cannot be written down is counted all the same, and so is the failure to write.
    let pid = wharf.pid("crowd");
    send(pid, 9);
    until("the end and the failure", || {
        let scrape = Scrape::of(&wharf);
        let ends = scrape.get("wharf_process_exits_total{service=\"crowd\",reason=\"signaled\"}");
        (ends > 0.5 && scrape.get("wharf_journal_write_errors_total") > 0.5).then_some(())
    });
}
