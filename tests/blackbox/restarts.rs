//! One service that ends and is started again, thousands of times: nothing grows, nothing is miscounted.

use std::collections::HashSet;
use std::fs;

use crate::support::{Wharf, at, times, until};

/// What a manager is made of while the service rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Makeup {
    descriptors: usize,
    threads: usize,
    zombies: usize,
    /// Resident memory in KiB.
    resident: u64,
}

impl Makeup {
    fn of(pid: i32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let all = wharf::os::procfs::all().unwrap();
        let zombies = all.iter().filter(|stat| stat.parent == pid && stat.is_zombie()).count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.split_whitespace().next().unwrap().parse().unwrap();
        Self { descriptors: count("fd"), threads: count("task"), zombies, resident }
    }
}

/// Before anything is compared: by then every bounded store has been full once, the largest of which
/// holds the last 2,048 events, three of each restart.
const WARM_UP: usize = 1_000;

/// Lets the service run until it has been started at least this often, and then end by itself; says how
/// often it was, by its own count.
fn restarted(wharf: &Wharf, starts: usize) -> usize {
    let counted = || wharf.read("starts").len();
    let halt = wharf.folder.join("halt");
    let _ = fs::remove_file(&halt);
    wharf.ok(&["start", "one"]);
    // The whole may take long, each hundred may not.
    while counted() < starts {
        let next = starts.min(counted() + 100);
        until("the next starts", || (counted() >= next).then_some(()));
    }
    fs::write(halt, "").unwrap();
    wharf.wait_state("one", "finished");
    counted()
}

/// A counter of a scrape with these labels.
fn counter(metrics: &str, series: &str) -> usize {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)).expect(series);
    line.trim().parse().unwrap()
}

#[test]
fn t19_ten_thousand_restarts_leave_nothing_behind_and_are_counted_exactly() {
    let wharf = Wharf::foreground(
        "services:
  one:
    command: [sh, -c, 'printf x >> starts; [ -e halt ] || exit 3']
    restart: { policy: on-failure, delay: 1ms, max_delay: 1ms, max_restarts: 1000000, within: 1s }
    logging: { max_size: 1MiB }
",
    );
    let (manager, guardian) = (wharf.manager_pid(), wharf.guardian_pid());
    restarted(&wharf, WARM_UP);
    wharf.get("/metrics");
    let before = Makeup::of(manager);
    let guarded = Makeup::of(guardian);

    let wanted = WARM_UP + times(10_000);
    let starts = restarted(&wharf, wanted);
    let records = wharf.records();
    let journalled = records.len();
    for pair in records.windows(2) {
        let number = |record: &serde_json::Value| record["seq"].as_u64().unwrap();
        assert_eq!(number(&pair[1]), number(&pair[0]) + 1, "no record is missing");
    }
    let last = records.last().unwrap();
    assert_eq!(last["seq"], starts, "a record for each start");
    let incarnations: HashSet<u64> =
        records.iter().map(|record| at(record, "service.incarnation").as_u64().unwrap()).collect();
    assert_eq!(incarnations.len(), journalled, "no run has two records");

    let metrics = wharf.get("/metrics");
    let of = |name: &str| counter(&metrics, &format!("{name}{{service=\"one\"}}"));
    assert_eq!(of("wharf_process_starts_total"), starts);
    let ends: usize = metrics
        .lines()
        .filter(|line| line.starts_with("wharf_process_exits_total{service=\"one\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(ends, starts, "an end for each start, by metrics");
    assert_eq!(of("wharf_service_restarts_total"), starts - 2, "we asked for two of them");

    // Memory that was freed is given back a moment later.
    let after = until("memory to be given back", || {
        let after = Makeup::of(manager);
        (after.resident <= before.resident + 1024).then_some(after)
    });
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    assert_eq!(after.zombies, 0);
    let now = Makeup::of(guardian);
    assert_eq!((now.descriptors, now.threads, now.zombies), (guarded.descriptors, 1, 0));
    assert!(now.resident <= guarded.resident + 1024, "{guarded:?} {now:?}");
}
