//! The manager and every service in short: what `wharf status` shows without a name.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::ps;
use super::text::{Cell, Show, moment, rounded_size, since, span, table};
use super::tree::Processes;
use crate::manager::{ManagerStatus, ReplicaStatus};
use crate::time::Wall;

/// The manager.
pub(super) fn manager(manager: &ManagerStatus, now: Wall, zone: &TimeZone, show: Show) -> String {
    let started = moment(manager.started_at, zone);
    let age = since(manager.started_at, now);
    let mut text = format!("{}\n", show.bold(&format!("wharf {}", manager.version)));
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:>12}: {value}");
    };
    let pid = format!("{} (guardian {})", manager.pid, manager.guardian_pid);
    field("Manager", &pid);
    field("Since", &format!("{started} ({age} ago), generation {}", manager.generation.0));
    field("Groups", &show.foreign(&manager.cgroups));
    if manager.output_dropped_bytes > 0 {
        field("Dropped", &format!("{} bytes of output", manager.output_dropped_bytes));
    }
    if manager.forward_dropped > 0 {
        field("Dropped", &format!("{} messages to journald or syslog", manager.forward_dropped));
    }
    if manager.hooks_dropped > 0 {
        field("Dropped", &format!("{} hooks, for too many were waiting", manager.hooks_dropped));
    }
    if manager.journal_write_errors > 0 || manager.records_waiting > 0 {
        let (errors, waiting) = (manager.journal_write_errors, manager.records_waiting);
        field("Journal", &format!("{errors} failed writes, {waiting} records wait in memory"));
    }
    for what in &manager.degraded {
        field("Degraded", &show.foreign(what));
    }
    if manager.shutting_down {
        field("Now", "everything is being stopped");
    }
    text
}

/// A line for each replica, with what its processes use.
pub(super) fn services(
    replicas: &[ReplicaStatus],
    found: &[Option<Processes>],
    now: Wall,
    show: Show,
) -> String {
    let head = ["  SERVICE", "STATE", "SINCE", "PID", "TASKS", "MEMORY", "CPU", "LAST EXIT"];
    let row = |(replica, found): (&ReplicaStatus, &Option<Processes>)| -> Vec<Cell> {
        let dash = || "-".to_owned();
        let of =
            |tell: &dyn Fn(&Processes) -> String| found.as_ref().map_or_else(dash, tell).into();
        vec![
            Cell::of_state(format!("● {}", ps::name(replica, replicas)), replica.state),
            Cell::of_state(ps::state(replica), replica.state),
            since(replica.since, now).into(),
            replica.pid.map_or_else(dash, |pid| pid.to_string()).into(),
            of(&|found| found.tasks.to_string()),
            of(&|found| rounded_size(found.memory_bytes)),
            of(&|found| span(found.cpu_s)),
            replica.last_exit.as_ref().map_or_else(dash, |last| ps::last_exit(last, now)).into(),
        ]
    };
    let rows: Vec<_> = replicas.iter().zip(found).map(row).collect();
    table(&head, &rows, show)
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::{NOW, ago, some};
    use super::super::tree;
    use super::*;
    use crate::name::{Generation, Realm};

    const SHOW: Show = Show { terminal: true, color: false };

    fn well() -> ManagerStatus {
        ManagerStatus {
            version: "0.1.0".into(),
            pid: 12,
            guardian_pid: 11,
            generation: Generation(3),
            realm: Realm(7),
            started_at: ago(4000),
            cgroups: "in use".into(),
            degraded: Vec::new(),
            output_dropped_bytes: 0,
            forward_dropped: 0,
            hooks_dropped: 0,
            journal_write_errors: 0,
            records_waiting: 0,
            shutting_down: false,
        }
    }

    #[test]
    fn the_manager_in_good_and_in_bad_times() {
        let bad = ManagerStatus {
            cgroups: "there is no cgroup2 mount".into(),
            degraded: vec!["the disk of the journal is full".into()],
            output_dropped_bytes: 4096,
            forward_dropped: 3,
            hooks_dropped: 2,
            journal_write_errors: 2,
            records_waiting: 1,
            shutting_down: true,
            ..well()
        };
        let text = |status| super::manager(status, NOW, &TimeZone::UTC, SHOW);
        insta::assert_snapshot!(format!("{}\n{}", text(&well()), text(&bad)));
    }

    #[test]
    fn every_service_in_a_line() {
        let replicas = some();
        let mut found: Vec<Option<Processes>> = replicas.iter().map(|_| None).collect();
        found[0] = Some(tree::tests::some());
        insta::assert_snapshot!(services(&replicas, &found, NOW, SHOW));
    }
}
