//! How fast wharf is: beside the least that C can do, and beside Erlang, in one run.
//!
//! Absolute times mean nothing on a shared machine, so the contestants take turns and every promise
//! is a ratio to the C program of the same run. The contestants' sources are in `benches/c` and
//! `benches/erlang`; they are compiled here, into `target/bench`. The results are a table on standard
//! output and `target/bench/speed.json`.
//!
//! `cargo bench --bench speed -- [--strict] [--real-time] [--rounds N] [--services N] [--only PART,…]`
//!
//! Where others work on the same machine, `--real-time` (root) puts all contestants alike before them:
//! the scheduler's class FIFO, which children inherit.

#![expect(clippy::unwrap_used, reason = "a measurement stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "the contestants are started as a user would")]
#![expect(clippy::print_stdout, reason = "the table is the product")]
#![expect(clippy::print_stderr, reason = "what goes on is told aside from the table")]

mod exit_event;
#[path = "../shared/exits.rs"]
mod exits;
mod hang;
#[path = "../shared/idle.rs"]
mod idle;
#[path = "../shared/priority.rs"]
mod priority;
#[path = "../shared/program.rs"]
mod program;
#[path = "../shared/report.rs"]
#[expect(dead_code, reason = "another bench promises a least, and misses contestants")]
mod report;
mod restart;
mod rival;
#[path = "../shared/samples.rs"]
mod samples;
mod spawn;
#[path = "../shared/stamps.rs"]
mod stamps;
mod thousand;
#[path = "../shared/wait.rs"]
mod wait;
#[path = "../shared/wharf.rs"]
#[expect(dead_code, reason = "another bench looks at its files")]
mod wharf;
#[path = "../shared/workshop.rs"]
mod workshop;

use std::process::ExitCode;

use priority::come_first;
use report::Report;
use workshop::Workshop;

/// What is measured, and how often.
#[derive(Debug)]
struct Options {
    /// Whether a missed promise is a failure.
    strict: bool,
    /// Whether all contestants come before everybody else on the machine.
    real_time: bool,
    /// How many rounds count; [`WARM_UP`] more come before.
    rounds: usize,
    /// How many services are many.
    services: usize,
    /// The parts to measure; empty means all.
    only: Vec<String>,
}

/// Rounds that do not count.
const WARM_UP: usize = 5;

type Part = fn(&Workshop, &Options, &mut Report);

const PARTS: &[(&str, Part)] = &[
    ("restart", restart::measure),
    ("exit-event", exit_event::measure),
    ("spawn", spawn::measure),
    ("hang", hang::measure),
    ("thousand", thousand::measure),
];

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("nothing is measured but by `cargo bench --bench speed`");
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprintln!("error: {complaint}");
            return ExitCode::from(2);
        }
    };
    if options.real_time && !come_first() {
        eprintln!("error: cannot get real-time priority (chrt of util-linux, as root)");
        return ExitCode::FAILURE;
    }
    let workshop =
        match Workshop::open(&["child", "supervisor", "pidfd", "spawn"], "supervisor_bench") {
            Ok(workshop) => workshop,
            Err(missing) => {
                eprintln!("error: cannot measure: {missing}");
                return ExitCode::FAILURE;
            }
        };
    let mut report = Report::new(if options.real_time { "FIFO" } else { "ordinary" });
    for (name, measure) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            eprintln!("measuring: {name}");
            measure(&workshop, &options, &mut report);
        }
    }
    print!("{report}");
    let path = workshop.folder.join("speed.json");
    std::fs::write(&path, format!("{:#}\n", report.json())).unwrap();
    println!("\nAlso in {}.", path.display());
    if options.strict && report.is_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Reads the words. `None` when it is not cargo's `bench` that started us: `cargo test` may.
fn options(words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options =
        Options { strict: false, real_time: false, rounds: 40, services: 1000, only: Vec::new() };
    let mut bench = false;
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--bench" => bench = true,
            "--strict" => options.strict = true,
            "--real-time" => options.real_time = true,
            "--rounds" => options.rounds = number(&word, &value()?)?,
            "--services" => options.services = number(&word, &value()?)?,
            "--only" => options.only = value()?.split(',').map(ToOwned::to_owned).collect(),
            other => {
                return Err(format!(
                    "{other}: --strict, --real-time, --rounds, --services or --only?"
                ));
            }
        }
    }
    let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !names.contains(&only.as_str())) {
        return Err(format!("there is no part {unknown}; there are {}", names.join(", ")));
    }
    Ok(bench.then_some(options))
}

fn number(word: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or(format!("{word} needs a number above 0, not {text}"))
}
