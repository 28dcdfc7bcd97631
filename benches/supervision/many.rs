//! One service, a hundred, a thousand: starting them, ending them, and what they cost at rest.

use std::fs;
use std::time::Duration;

use crate::Contest;
use crate::contest::{ALL, OURS, Peer};
use crate::crew::{Crew, Task};
use crate::idle;
use crate::report::{Report, Table};
use crate::restart::best;
use crate::samples::Samples;
use crate::wait::pass;

/// How long it takes until a start is behind everybody, first questions after health included.
const SETTLED: Duration = Duration::from_millis(2500);
/// How long supervisors at rest are watched.
const WATCHED: Duration = Duration::from_secs(3);

/// What a contestant did with so many services, once.
#[derive(Debug, Clone, Copy)]
struct Course {
    peer: Peer,
    count: usize,
    /// From its own start to the first instruction of the last service, in ms.
    start: f64,
    /// From the request to stop until the last service had ended, in ms.
    stop: f64,
    /// PSS of all that supervises, in MiB.
    memory: f64,
    /// Of one core, in percent.
    cpu: f64,
    /// How often a thread of it has waited, a second.
    wakeups: f64,
}

pub(crate) fn measure(contest: &Contest<'_>, report: &mut Report) {
    let mut courses = Vec::new();
    for _ in 0..contest.rounds {
        for &count in &contest.options.counts {
            for peer in ALL {
                if peer.is_left_out(count).is_none() {
                    // The kernel still cleans up behind the one before, a thousand groups for example.
                    pass(Duration::from_millis(500));
                    courses.push(run(contest, peer, count));
                }
            }
        }
    }
    for &count in &contest.options.counts {
        let of = |title: &str, unit, value: fn(&Course) -> Option<f64>| {
            let title = format!("{count} services: {title}");
            ALL.into_iter().fold(Table::new(title, unit), |table, peer| {
                let mine = courses.iter().filter(|one| one.peer == peer && one.count == count);
                let samples: Samples = mine.filter_map(value).collect();
                match peer.is_left_out(count).or(peer.leaves_programs()) {
                    Some(why) if samples.count() == 0 => table.absent(peer.name(), why),
                    _ => table.row(peer.name(), samples),
                }
            })
        };
        let ended = |one: &Course| one.peer.leaves_programs().is_none().then_some(one.stop);
        let start = of("started", "ms", |one| Some(one.start));
        let stop = of("ended", "ms", ended);
        let memory = of("memory at rest (PSS)", "MiB", |one| Some(one.memory));
        let cpu = of("processor at rest", "% of a core", |one| Some(one.cpu));
        let wakeups = of("wake-ups at rest", "a second", |one| Some(one.wakeups));
        if Some(&count) == contest.options.counts.iter().max() {
            promise(report, count, &start, &stop, &memory);
        }
        for table in [start, stop, memory, cpu, wakeups] {
            report.table(table);
        }
    }
}

fn promise(report: &mut Report, count: usize, start: &Table, stop: &Table, memory: &Table) {
    for ours in OURS {
        let name = ours.name();
        let mut promise = |text: &str, value: f64, bar: f64| {
            report.promise(format!("{name}: {count} services, {text}"), value, bar);
        };
        promise("start, × C loop", start.ratio(name), 2.0);
        promise("stop, × C loop", stop.ratio(name), 2.0);
        promise("PSS, MiB", memory.median(name), 8.0);
        for (what, table) in [("start", start), ("stop", stop), ("PSS", memory)] {
            let (peer, median) = best(table);
            let text = format!("{what}, × the best peer ({peer})");
            promise(&text, table.median(name) / median, 1.0);
        }
    }
}

fn run(contest: &Contest<'_>, peer: Peer, count: usize) -> Course {
    let task = Task::of(count);
    let (mut crew, children, start) = Crew::start(contest.shop, peer, task);
    pass(SETTLED);
    let pids = crew.supervisors(&children);
    let memory = idle::memory(&pids) / 1024.0;
    let (spent, woken) = (spent(&pids), idle::switches(&pids));
    pass(WATCHED);
    let seconds = WATCHED.as_secs_f64();
    let cpu = (self::spent(&pids) - spent) / seconds * 100.0;
    let wakeups = idle::switches(&pids).saturating_sub(woken);
    let wakeups = f64::from(u32::try_from(wakeups).unwrap()) / seconds;
    let stop = crew.stop(&children);
    eprintln!("{}, {count}: started in {start:.0} ms, ended in {stop:.0} ms", peer.name());
    Course { peer, count, start, stop, memory, cpu, wakeups }
}

/// The time on a processor of all threads of these processes so far, in seconds.
fn spent(pids: &[i32]) -> f64 {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    let times = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        let nanoseconds = text.split_whitespace().next().unwrap().parse().unwrap();
        Duration::from_nanos(nanoseconds).as_secs_f64()
    });
    times.sum()
}
