//! wharf beside seven other supervisors and a bare loop in C, in one run: how soon it sees an end and has a
//! successor running, what it costs at rest and in a storm, and how fast it writes down what programs say.
//!
//! Contestants take turns, so that what else the machine does meets all of them alike; only ratios are
//! promised. wharf takes part twice: as it is without a word of configuration, and with everything that its
//! configuration offers in use (`written.rs`). circus and pm2 are installed by `install.rs`, the others are
//! Debian packages. Results: a table, and `target/bench/supervision.json`.
//!
//! `cargo bench --bench supervision -- [--strict] [--real-time] [--rounds N] [--counts N,…] [--lines N] [--only PART,…]`

#![expect(clippy::unwrap_used, reason = "a measurement stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "the contestants are started as a user would")]
#![expect(clippy::print_stdout, reason = "the table is the product")]
#![expect(clippy::print_stderr, reason = "what goes on is told aside from the table")]

mod capture;
mod contest;
mod crew;
mod exit_event;
#[path = "../shared/exits.rs"]
mod exits;
mod features;
mod follower;
#[path = "../shared/idle.rs"]
mod idle;
mod install;
mod logger;
mod many;
#[path = "../shared/priority.rs"]
mod priority;
#[path = "../shared/program.rs"]
#[expect(dead_code, reason = "this bench starts these two with other words")]
mod program;
#[path = "../shared/report.rs"]
mod report;
mod restart;
#[path = "../shared/samples.rs"]
mod samples;
#[path = "../shared/stamps.rs"]
mod stamps;
mod storm;
#[path = "../shared/wait.rs"]
mod wait;
#[path = "../shared/wharf.rs"]
#[expect(dead_code, reason = "the other bench asks more of it")]
mod wharf;
#[path = "../shared/workshop.rs"]
mod workshop;
mod written;

use std::process::ExitCode;

use install::Shop;
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
    /// How many rounds count, where not as many as each part takes by itself.
    rounds: Option<usize>,
    /// With how many services everything is done that depends on their number.
    counts: Vec<usize>,
    /// How many lines a program writes.
    lines: usize,
    /// The parts to measure; empty means all.
    only: Vec<String>,
}

/// What a part is measured with.
struct Contest<'a> {
    shop: &'a Shop,
    options: &'a Options,
    rounds: usize,
}

struct Part {
    name: &'static str,
    /// How many rounds it takes by itself.
    rounds: usize,
    measure: fn(&Contest<'_>, &mut Report),
}

const PARTS: [Part; 6] = [
    Part { name: "restart", rounds: 20, measure: restart::measure },
    Part { name: "features", rounds: 30, measure: features::measure },
    Part { name: "exit-event", rounds: 20, measure: exit_event::measure },
    Part { name: "many", rounds: 3, measure: many::measure },
    Part { name: "storm", rounds: 5, measure: storm::measure },
    Part { name: "capture", rounds: 10, measure: capture::measure },
];

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("nothing is measured but by `cargo bench --bench supervision`");
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
    let sources = ["child", "supervisor", "pidfd", "flood"];
    let shop = Workshop::open(&sources, "supervisor_bench").and_then(Shop::open);
    let shop = match shop {
        Ok(shop) => shop,
        Err(missing) => {
            eprintln!("error: cannot measure: {missing}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::new(if options.real_time { "FIFO" } else { "ordinary" });
    for part in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == part.name) {
            eprintln!("measuring: {}", part.name);
            let rounds = options.rounds.unwrap_or(part.rounds);
            (part.measure)(&Contest { shop: &shop, options: &options, rounds }, &mut report);
        }
    }
    print!("{report}");
    let path = shop.workshop.folder.join("supervision.json");
    std::fs::write(&path, format!("{:#}\n", report.json())).unwrap();
    println!("\nAlso in {}.", path.display());
    if options.strict && report.is_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Reads the words. `None` when it is not cargo's `bench` that started us: `cargo test` may.
fn options(words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        strict: false,
        real_time: false,
        rounds: None,
        counts: vec![1, 100, 1000],
        lines: 2_000_000,
        only: Vec::new(),
    };
    let mut bench = false;
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--bench" => bench = true,
            "--strict" => options.strict = true,
            "--real-time" => options.real_time = true,
            "--rounds" => options.rounds = Some(number(&word, &value()?)?),
            "--counts" => {
                let counts = value()?;
                options.counts = counts
                    .split(',')
                    .map(|count| number(&word, count))
                    .collect::<Result<_, _>>()?;
            }
            "--lines" => options.lines = number(&word, &value()?)?,
            "--only" => options.only = value()?.split(',').map(ToOwned::to_owned).collect(),
            other => {
                return Err(format!(
                    "{other}: --strict, --real-time, --rounds, --counts, --lines or --only?"
                ));
            }
        }
    }
    let names = PARTS.map(|part| part.name);
    if let Some(unknown) = options.only.iter().find(|only| !names.contains(&only.as_str())) {
        return Err(format!("there is no part {unknown}; there are {}", names.join(", ")));
    }
    Ok(bench.then_some(options))
}

fn number(word: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or(format!("{word} needs a number above 0, not {text}"))
}
