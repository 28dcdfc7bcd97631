//! A thousand services: starting them, stopping them, and what they cost while they are idle.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use wharf::exit::Signal;
use wharf::os::{clock, signal};
use wharf::time::Tick;

use crate::Options;
use crate::idle;
use crate::program::Program;
use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::stamps::{Stamps, Started};
use crate::wait::{LIMIT, between, pass, readable, until};
use crate::wharf::{Wharf, service};
use crate::workshop::Workshop;

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    C,
    Wharf,
    /// wharf without control groups, as an ordinary user often has to run it.
    Plain,
    Erlang,
}

const ALL: [Who; 4] = [Who::C, Who::Wharf, Who::Plain, Who::Erlang];

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::C => "C: vfork, exec, waitpid",
            Self::Wharf => "wharf",
            Self::Plain => "wharf, cgroups: off",
            Self::Erlang => "Erlang: port owners",
        }
    }
}

/// What a contestant did with so many services, once.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// From its own start to the first instruction of the last child, in milliseconds.
    start: f64,
    /// Erlang's children survive it.
    stop: Option<Stop>,
    /// Of all its processes together, in MiB: just asked for the state of everything.
    asked: f64,
    /// The same a second later, when nothing happens.
    memory: f64,
}

/// From the request to stop, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Stop {
    /// Until the last service has ended.
    services: f64,
    /// Until the supervisor has written what it has to write, and is gone too.
    supervisor: f64,
}

/// A round takes seconds, so only this one does not count.
const FIRST: usize = 1;
/// How long idle processes are watched.
const WATCHED: Duration = Duration::from_secs(10);

pub(crate) fn measure(workshop: &Workshop, options: &Options, report: &mut Report) {
    let many = options.services;
    let mut courses: Vec<(Who, usize, Course)> = Vec::new();
    let all = FIRST + options.rounds;
    for round in 0..all {
        for who in ALL {
            for count in [1, many] {
                // The kernel still cleans up behind the one before, a thousand groups for example.
                pass(Duration::from_millis(500));
                let course = match who {
                    Who::C => of_c(workshop, count),
                    Who::Wharf => of_wharf(workshop, count, ""),
                    Who::Plain => of_wharf(workshop, count, "cgroups: off\n"),
                    Who::Erlang => of_erlang(workshop, count),
                };
                if round >= FIRST {
                    courses.push((who, count, course));
                }
            }
        }
    }
    let table = |title, unit, count: usize, value: fn(&Course) -> Option<f64>| {
        let mut table = Table::new(title, unit);
        for who in ALL {
            let mine = courses.iter().filter(|(one, number, _)| *one == who && *number == count);
            let samples: Samples = mine.filter_map(|(.., course)| value(course)).collect();
            if samples.count() > 0 {
                table = table.row(who.name(), samples);
            }
        }
        table
    };
    let start = table("Many services: started", "ms", many, |course| Some(course.start));
    let one = table("One service: started", "ms", 1, |course| Some(course.start));
    let stop = table("Many services: ended", "ms", many, |course| Some(course.stop?.services));
    let down = table("Many services: ended, and their supervisor", "ms", many, |course| {
        Some(course.stop?.supervisor)
    });
    let asked =
        table("Many services: memory (PSS), just asked for their states", "MiB", many, |course| {
            Some(course.asked)
        });
    let memory =
        table("Many services: memory (PSS), at rest", "MiB", many, |course| Some(course.memory));

    report.promise(format!("start of {many} services, × C loop"), start.ratio("wharf"), 2.0);
    report.promise(format!("stop of {many} services, × C loop"), stop.ratio("wharf"), 2.0);
    let gone = format!("stop of {many} services until the supervisor is gone, × C loop");
    report.promise(gone, down.ratio("wharf"), 2.0);
    let resident = format!("PSS of guardian and manager with {many} services, MiB");
    report.promise(format!("{resident}, at rest"), memory.median("wharf"), 8.0);
    report.promise(format!("{resident}, just asked"), asked.median("wharf"), 8.0);
    for table in [start, one, stop, down, asked, memory] {
        report.table(table);
    }
    let wakeups = wakeups(workshop, many);
    report.promise(format!("wake-ups of {many} idle services in 10 s"), wakeups, 0.0);
}

/// From `start` to the last first instruction, in milliseconds.
fn last(children: &[Started], start: Tick) -> f64 {
    children.iter().map(|child| between(start, child.at)).fold(0.0, f64::max) / 1e3
}

fn watched(children: &[Started]) -> Vec<OwnedFd> {
    children.iter().map(|child| signal::open_pidfd(child.pid).unwrap()).collect()
}

/// Waits until all of them have ended; how long that took, in milliseconds.
fn ended(pidfds: &[OwnedFd], request: Tick) -> f64 {
    // The last one first: it is the one that takes longest, and the others wake nobody.
    for pidfd in pidfds.iter().rev() {
        assert!(readable(pidfd.as_fd(), LIMIT), "a child does not end");
    }
    between(request, clock::now()) / 1e3
}

fn of_c(workshop: &Workshop, count: usize) -> Course {
    let stamps = Stamps::new(workshop, "many");
    let before = clock::now();
    let mut program = Program::c(workshop, count, &stamps);
    let children = stamps.take(count);
    let (asked, memory) = memory(&[program.pid()]);
    let pidfds = watched(&children);
    let request = clock::now();
    signal::send_pid(program.pid(), Signal::TERM).unwrap();
    let services = ended(&pidfds, request);
    program.stop();
    let supervisor = between(request, clock::now()) / 1e3;
    let stop = Some(Stop { services, supervisor });
    Course { start: last(&children, before), stop, asked, memory }
}

fn of_erlang(workshop: &Workshop, count: usize) -> Course {
    let stamps = Stamps::new(workshop, "many");
    let before = clock::now();
    let mut program = Program::erlang(workshop, count, &stamps);
    let children = stamps.take(count);
    let (asked, memory) = memory(&program.processes(&children));
    let pidfds = watched(&children);
    program.stop();
    for pidfd in &pidfds {
        let _ = signal::send(pidfd.as_fd(), Signal::KILL);
    }
    ended(&pidfds, before);
    Course { start: last(&children, before), stop: None, asked, memory }
}

fn of_wharf(workshop: &Workshop, count: usize, head: &str) -> Course {
    let stamps = Stamps::new(workshop, "many");
    let mut wharf = Wharf::new(workshop, &services(workshop, &stamps, count, head));
    let before = clock::now();
    let up = wharf.begin_up(&[]);
    let children = stamps.take(count);
    wharf.end_up(up);
    until("all to run", || (wharf.count("running") == count).then_some(()));
    let (asked, memory) = memory(&wharf.pids());
    let pidfds = watched(&children);
    let request = clock::now();
    let shutdown = wharf.ask("POST", "/v1/shutdown");
    let services = ended(&pidfds, request);
    wharf.wait_down();
    let supervisor = between(request, clock::now()) / 1e3;
    drop(shutdown);
    let stop = Some(Stop { services, supervisor });
    Course { start: last(&children, before), stop, asked, memory }
}

fn services(workshop: &Workshop, stamps: &Stamps, count: usize, head: &str) -> String {
    let child = workshop.child();
    let services =
        (1..=count).map(|number| service(&format!("s{number}"), &child, stamps.text(), ""));
    format!("{head}services:\n{}", services.collect::<String>())
}

/// Now, and when nothing has happened for a second; in MiB.
fn memory(pids: &[i32]) -> (f64, f64) {
    let mebibytes = || idle::memory(pids) / 1024.0;
    let asked = mebibytes();
    pass(Duration::from_secs(1));
    (asked, mebibytes())
}

/// How often guardian and manager wake up by themselves.
fn wakeups(workshop: &Workshop, count: usize) -> f64 {
    let stamps = Stamps::new(workshop, "many");
    let mut wharf = Wharf::new(workshop, &services(workshop, &stamps, count, ""));
    wharf.up(&[]);
    stamps.take(count);
    until("all to run", || (wharf.count("running") == count).then_some(()));
    // The last answer's connection is being closed meanwhile.
    pass(Duration::from_secs(1));
    let before = idle::switches(&wharf.pids());
    pass(WATCHED);
    let woken = idle::switches(&wharf.pids()) - before;
    f64::from(u32::try_from(woken).unwrap())
}
