//! Services that the clock starts. The wall clock is moved by libfaketime, in the manager alone: the
//! system's own is never touched.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Wharf, at, look_again, send, until};

/// How many runs of a service have been recorded.
fn ends(wharf: &Wharf, service: &str) -> usize {
    wharf.records_of(service).len()
}

#[test]
fn a_rhythm_starts_and_a_stop_is_stronger() {
    let wharf = Wharf::up(
        "services:\n  tick: { command: 'true', schedule: { every: 1s } }\n  \
         later: { command: 'true', schedule: { cron: '0 0 1 1 *' } }\n  \
         failing: { command: 'false', schedule: { every: 1s } }\n",
    );
    wharf.wait_records("tick", 3);
    // What fails is not restarted before its time.
    let failed = wharf.wait_records("failing", 3);
    assert!(failed.iter().all(|record| at(record, "restart.decision") == "no"), "{failed:?}");
    let starts: Vec<f64> = failed.iter().map(started).collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] > 0.5), "{starts:?}");

    let row = wharf.row("later");
    assert_eq!((&row["state"], &row["pid"]), (&"waiting".into(), &serde_json::Value::Null));
    assert!(row["next_start_s"].as_f64().unwrap() > 0.0, "{row}");
    assert!(
        String::from_utf8_lossy(&wharf.run(&["status", "later"]).stdout).contains("it starts in")
    );

    wharf.ok(&["stop", "tick"]);
    let stopped = ends(&wharf, "tick");
    let failing = ends(&wharf, "failing");
    wharf.wait_records("failing", failing + 3);
    assert_eq!(ends(&wharf, "tick"), stopped);
    wharf.ok(&["start", "later"]);
    wharf.wait_records("later", 1);
    wharf.ok(&["start", "tick"]);
    wharf.wait_records("tick", stopped + 2);
}

/// When a run began, in seconds.
fn started(record: &serde_json::Value) -> f64 {
    let text = at(record, "process.creation.time").as_str().unwrap();
    let created: jiff::Timestamp = text.parse().unwrap();
    created.as_duration().as_secs_f64()
}

#[test]
fn what_overlaps_is_left_out_queued_or_replaced() {
    let wharf = Wharf::up(
        "services:\n  skip: { command: sleep 2.5, schedule: { every: 1s } }\n  \
         queue: { command: sleep 2.5, schedule: { every: 1s, overlap: queue } }\n  \
         kill: { command: sleep 60, schedule: { every: 1s, overlap: kill } }\n",
    );
    let replaced = wharf.wait_records("kill", 3);
    for record in &replaced {
        assert_eq!(at(record, "exit.cause"), "replaced", "{record}");
        assert_eq!(at(record, "exit.requested_by.who"), "the schedule", "{record}");
    }
    let queued = wharf.wait_records("queue", 2);
    assert_eq!(at(&queued[0], "restart.decision"), "restart", "{}", queued[0]);
    assert_eq!(at(&queued[0], "restart.delay_s"), 0.0);
    let skipped = wharf.wait_records("skip", 2);
    let (first, second) = (started(&skipped[0]), started(&skipped[1]));
    assert!((2.5..4.0).contains(&(second - first)), "{first} {second}");
    let told =
        wharf.ok(&["events", "--kind", "skipped", "--json", "--since", "1h", "--service", "skip"]);
    assert!(told.lines().count() >= 2, "{told}");
    assert!(told.contains("\"skipped\":\"overlap\""), "{told}");
    assert!(told.contains("its last run has not ended"), "{told}");
}

#[test]
fn a_manager_that_dies_neither_forgets_nor_repeats() {
    let wharf = Wharf::up(
        "services:\n  hourly: { command: 'true', schedule: { every: 1h } }\n  \
         often: { command: 'true', schedule: { every: 1s } }\n",
    );
    wharf.wait_records("hourly", 1);
    for _ in 0..3 {
        let seen = ends(&wharf, "often");
        let pid = wharf.manager_pid();
        send(pid, libc::SIGKILL);
        until("another manager", || {
            let manager = wharf.try_get("/v1/manager").ok()?;
            (!manager.contains(&format!("\"pid\":{pid},"))).then_some(())
        });
        wharf.wait_records("often", seen + 2);
    }
    assert_eq!(ends(&wharf, "hourly"), 1);
    assert!(wharf.row("hourly")["next_start_s"].as_f64().unwrap() > 3000.0);
}

#[test]
fn a_reload_leaves_a_run_alone() {
    let yaml = |every| {
        format!("services:\n  job: {{ command: sleep 60, schedule: {{ every: {every} }} }}\n")
    };
    let wharf = Wharf::up(&yaml("1h"));
    wharf.wait_state("job", "running");
    let pid = wharf.pid("job");
    wharf.write(&yaml("2h"));
    assert_eq!(wharf.ok(&["reload"]), "job: live (schedule.every)\n");
    assert_eq!(wharf.pid("job"), pid);
    // Without a schedule it is a service like any other.
    wharf.write("services:\n  job: { command: sleep 60, restart: no }\n");
    assert_eq!(wharf.ok(&["reload"]), "job: live (schedule)\n");
    assert_eq!(wharf.pid("job"), pid);
    wharf.write("services:\n  job: { command: sleep 61, schedule: { cron: '0 0 1 1 *' } }\n");
    wharf.ok(&["reload"]);
    wharf.wait_state("job", "running");
}

/// A manager whose wall clock can be set.
struct Faked {
    wharf: Wharf,
    offset: PathBuf,
}

impl Faked {
    fn up(yaml: &str, clock: &str) -> Self {
        let wharf = Wharf::new(yaml);
        let offset = wharf.folder.join("clock");
        let faked = Self { wharf, offset };
        faked.set(clock);
        let library = fs::read_dir("/usr/lib").unwrap().flatten().find_map(|folder| {
            let library = folder.path().join("faketime/libfaketimeMT.so.1");
            library.exists().then_some(library)
        });
        let library = library.expect("libfaketime is installed: see TEST_PROGRAMS in the Makefile");
        let mut command = faked.wharf.command(&["up", "-d"]);
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &faked.offset);
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
        let said = command.stdin(Stdio::null()).output().unwrap();
        assert!(said.status.success(), "{said:?} {}", faked.wharf.own_log());
        faked
    }

    /// From now on the wall clock shows this time.
    fn set(&self, clock: &str) {
        let shown: jiff::Timestamp = clock.parse().unwrap();
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let offset = shown.as_second() - i64::try_from(real.as_secs()).unwrap();
        let next = self.offset.with_extension("next");
        fs::write(&next, format!("{offset:+}s\n")).unwrap();
        fs::rename(next, &self.offset).unwrap();
    }

    /// What the manager says the time is.
    fn until_it_shows(&self, day: &str) {
        until("the clock", || {
            self.wharf.ok(&["signal", "steady", "CONT"]);
            let since = self.wharf.row("later")["since"].to_string();
            since.contains(day).then_some(())
        });
    }
}

/// An hour and ten years, to and fro: nothing is restarted, no rhythm changes, and a time comes once.
#[test]
fn a_wall_clock_that_jumps() {
    let faked = Faked::up(
        "services:\n  steady: { command: sleep 1000 }\n  \
         nightly: { command: 'true', schedule: { cron: '0 3 * * *' } }\n  \
         later: { command: 'true', schedule: { cron: '0 0 29 2 *' } }\n  \
         rhythm: { command: 'true', schedule: { every: 5s } }\n",
        "2030-01-15T02:30:00Z",
    );
    let wharf = &faked.wharf;
    wharf.wait_state("steady", "running");
    let pid = wharf.pid("steady");
    faked.until_it_shows("2030-01-15T02:3");
    let next = wharf.row("nightly")["next_start_s"].as_f64().unwrap();
    assert!((1_500.0..=1_800.0).contains(&next), "{next}");

    let mut nightly = 0;
    let mut began = std::time::Instant::now();
    let mut beats = ends(wharf, "rhythm");
    for (clock, runs) in [
        ("2030-01-15T03:30:00Z", 1),
        // Back an hour, and over the same time again.
        ("2030-01-15T02:59:50Z", 0),
        ("2040-01-15T12:00:00Z", 1),
        ("2030-01-15T02:30:00Z", 0),
        ("2030-01-15T02:59:55Z", 1),
    ] {
        faked.set(clock);
        nightly += runs;
        // The manager trusts a clock for half a minute at most; a jump is seen within that.
        let patience = Duration::from_secs(40);
        let set = std::time::Instant::now();
        while set.elapsed() < patience && (runs == 0 || ends(wharf, "nightly") < nightly) {
            look_again();
        }
        assert_eq!(ends(wharf, "nightly"), nightly, "at {clock}: {:?}", wharf.records());
        let (took, now) = (began.elapsed().as_secs_f64(), ends(wharf, "rhythm"));
        let beaten = f64::from(u32::try_from(now - beats).unwrap());
        let expected = took / 5.0;
        assert!((beaten - expected).abs() <= 1.5, "{beaten} in {took} s");
        (began, beats) = (std::time::Instant::now(), now);
    }
    assert_eq!(wharf.pid("steady"), pid);
    assert!(ends(wharf, "steady") == 0 && ends(wharf, "later") <= 1, "{:?}", wharf.records());
}
