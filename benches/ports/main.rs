//! How fast an embedded port is: beside a bare parent in C and Erlang's `open_port`, in one run.
//!
//! All contestants speak to the same program, which writes what it reads, in messages with a length of
//! four bytes before them. They are processes of their own, take turns, and print one number each; only
//! ratios are promised. The sources of the others are `benches/c/ports.c` and
//! `benches/erlang/ports_bench.erl`; ours is `embedded.rs`. Calls through a manager (`upgrade.rs`) are held
//! against direct ones. Results: a table, and `target/bench/ports.json`.
//!
//! `cargo bench --profile embedded --bench ports -- [--strict] [--rounds N] [--only PART,…]`

#![expect(clippy::unwrap_used, reason = "a measurement stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "the contestants are started as a user would")]
#![expect(clippy::print_stdout, reason = "the table is the product")]
#![expect(clippy::print_stderr, reason = "what goes on is told aside from the table")]

mod embedded;
#[path = "../shared/report.rs"]
#[expect(dead_code, reason = "another bench misses contestants")]
mod report;
#[path = "../shared/samples.rs"]
mod samples;
mod upgrade;
#[path = "../shared/workshop.rs"]
#[expect(dead_code, reason = "the other bench has a program of its own and files of a run")]
mod workshop;

use std::process::{Command, ExitCode, Stdio};

use report::{Report, Table};
use samples::Samples;
use upgrade::Manager;
use workshop::Workshop;

/// How a rival is started for a part.
type Rival<Part> = fn(&Part, &Workshop) -> Command;

const C: &str = "C: bare parent";
const ERLANG: &str = "Erlang: open_port";
const WHARF: &str = "wharf::Port";
const UPGRADE: &str = "wharf: over `Upgrade: wharf`";

/// By which a contestant knows what it is.
const CONTESTANT: &str = "contestant";

#[derive(Debug)]
struct Options {
    strict: bool,
    rounds: usize,
    only: Vec<String>,
}

/// One thing that is measured.
struct Part {
    name: &'static str,
    title: &'static str,
    mode: &'static str,
    size: usize,
    /// How many messages a round has.
    count: usize,
    /// How many programs there are, where it is not one.
    ports: Option<usize>,
    /// Whether everything shares one core.
    pinned: bool,
    promise: Promise,
}

enum Promise {
    /// At most so many times the time of C.
    TimesC(f64),
    /// At least so many times the rate of Erlang.
    TimesErlang(f64),
    /// At least so many times the rate of C.
    ShareOfC(f64),
    /// At most so many times the time of `wharf::Port`.
    TimesDirect(f64),
}

const PARTS: &[Part] = &[
    Part {
        name: "pingpong-16",
        title: "Ping-pong, 16 B, one core",
        mode: "pingpong",
        size: 16,
        count: 20_000,
        ports: None,
        pinned: true,
        promise: Promise::TimesC(1.3),
    },
    Part {
        name: "pingpong-1k",
        title: "Ping-pong, 1 KiB, one core",
        mode: "pingpong",
        size: 1024,
        count: 20_000,
        ports: None,
        pinned: true,
        promise: Promise::TimesC(1.3),
    },
    Part {
        name: "pipelined-16",
        title: "Pipelined, 16 B",
        mode: "pipelined",
        size: 16,
        count: 1_000_000,
        ports: None,
        pinned: false,
        promise: Promise::TimesErlang(5.0),
    },
    Part {
        name: "pipelined-1k",
        title: "Pipelined, 1 KiB",
        mode: "pipelined",
        size: 1024,
        count: 400_000,
        ports: None,
        pinned: false,
        promise: Promise::TimesErlang(2.5),
    },
    Part {
        name: "pipelined-64k",
        title: "Pipelined, 64 KiB",
        mode: "pipelined",
        size: 1 << 16,
        count: 10_000,
        ports: None,
        pinned: false,
        promise: Promise::TimesErlang(3.5),
    },
    Part {
        name: "pipelined-1m",
        title: "Pipelined, 1 MiB",
        mode: "pipelined",
        size: 1 << 20,
        count: 400,
        ports: None,
        pinned: false,
        promise: Promise::TimesErlang(7.0),
    },
    Part {
        name: "fanout",
        title: "1,000 ports at once, 16 B, one message at a time with each",
        mode: "fanout",
        size: 16,
        count: 100_000,
        ports: Some(1000),
        pinned: false,
        promise: Promise::ShareOfC(0.9),
    },
    Part {
        name: "upgrade-16",
        title: "Calls through a manager, 16 B, one core",
        mode: "upgrade",
        size: 16,
        count: 20_000,
        ports: None,
        pinned: true,
        promise: Promise::TimesDirect(4.0),
    },
    Part {
        name: "upgrade-1k",
        title: "Calls through a manager, 1 KiB, one core",
        mode: "upgrade",
        size: 1024,
        count: 20_000,
        ports: None,
        pinned: true,
        promise: Promise::TimesDirect(4.0),
    },
];

impl Part {
    fn measure(&self, workshop: &Workshop, rounds: usize, report: &mut Report) {
        let manager = self.is_upgrade().then(|| Manager::up(workshop));
        let other: (&str, Rival<Self>) =
            if self.is_upgrade() { (UPGRADE, Self::upgrade) } else { (ERLANG, Self::erlang) };
        let contestants: [(&str, Rival<Self>); 3] = [(C, Self::c), other, (WHARF, Self::wharf)];
        let mut rows = contestants.map(|(name, command)| (name, command, Samples::default()));
        // The first round warms up.
        for round in 0..=rounds {
            for (_, command, samples) in &mut rows {
                let value = value_of(command(self, workshop));
                if round > 0 {
                    samples.push(value);
                }
            }
        }
        drop(manager);
        let unit = if self.is_latency() { "µs" } else { "messages/s" };
        let mut table = Table::new(self.title, unit);
        for (name, _, samples) in rows {
            table = table.row(name, samples);
        }
        let ours = table.median(WHARF);
        match self.promise {
            Promise::TimesC(most) => {
                report.promise(format!("{}: × C", self.title), ours / table.median(C), most);
            }
            Promise::TimesErlang(least) => {
                let text = format!("{}: × Erlang", self.title);
                report.promise_least(text, ours / table.median(ERLANG), least);
            }
            Promise::ShareOfC(least) => {
                let text = format!("{}: × C", self.title);
                report.promise_least(text, ours / table.median(C), least);
            }
            Promise::TimesDirect(most) => {
                let text = format!("{}: × wharf::Port", self.title);
                report.promise(text, table.median(UPGRADE) / ours, most);
            }
        }
        report.table(table);
    }

    /// Whether the contest is one of calls through a manager, beside the direct ones.
    fn is_upgrade(&self) -> bool {
        self.mode == "upgrade"
    }

    /// Whether times are measured, and not rates.
    fn is_latency(&self) -> bool {
        self.mode == "pingpong" || self.is_upgrade()
    }

    /// A command, on one core where that is asked for.
    fn on(&self, program: &std::path::Path) -> Command {
        if self.pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(program);
            command
        } else {
            Command::new(program)
        }
    }

    fn words(&self, command: &mut Command, workshop: &Workshop) {
        let mode = if self.is_latency() { "pingpong" } else { self.mode };
        command.arg(mode).arg(workshop.program("echo"));
        command.arg(self.size.to_string()).arg(self.count.to_string());
        command.args(self.ports.map(|ports| ports.to_string()));
    }

    fn c(&self, workshop: &Workshop) -> Command {
        let mut command = self.on(&workshop.program("ports"));
        self.words(&mut command, workshop);
        command
    }

    fn erlang(&self, workshop: &Workshop) -> Command {
        let mut command = self.on("erl".as_ref());
        command.args(["-noshell", "-noinput", "-pa"]).arg(&workshop.folder);
        command.args(["-run", "ports_bench", "main"]);
        self.words(&mut command, workshop);
        command
    }

    fn wharf(&self, workshop: &Workshop) -> Command {
        let mut command = self.on(&std::env::current_exe().unwrap());
        command.arg(CONTESTANT);
        self.words(&mut command, workshop);
        command
    }

    fn upgrade(&self, workshop: &Workshop) -> Command {
        let mut command = self.on(&std::env::current_exe().unwrap());
        command.args([CONTESTANT, UPGRADE]).arg(Manager::socket(workshop));
        command.arg(self.size.to_string()).arg(self.count.to_string());
        command
    }
}

/// Runs a contestant and reads the number that it prints.
fn value_of(mut command: Command) -> f64 {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {}", output.status);
    text.trim().parse().unwrap_or_else(|_| panic!("{command:?} said {text}"))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == CONTESTANT) {
        match &*words[1] {
            UPGRADE => upgrade::main(&words[2..]),
            _ => embedded::main(&words[1..]),
        }
        return ExitCode::SUCCESS;
    }
    let options = match options(words.into_iter()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("nothing is measured but by `cargo bench --bench ports`");
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprintln!("error: {complaint}");
            return ExitCode::from(2);
        }
    };
    let workshop = match Workshop::open(&["echo", "ports"], "ports_bench") {
        Ok(workshop) => workshop,
        Err(missing) => {
            eprintln!("error: cannot measure: {missing}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::new("ordinary");
    for part in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == part.name) {
            eprintln!("measuring: {}", part.name);
            part.measure(&workshop, options.rounds, &mut report);
        }
    }
    print!("{report}");
    let path = workshop.folder.join("ports.json");
    std::fs::write(&path, format!("{:#}\n", report.json())).unwrap();
    println!("\nAlso in {}.", path.display());
    if options.strict && report.is_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Reads the words. `None` when it is not cargo's `bench` that started us: `cargo test` may.
fn options(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { strict: false, rounds: 7, only: Vec::new() };
    let mut bench = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--bench" => bench = true,
            "--strict" => options.strict = true,
            "--rounds" => {
                let text = value()?;
                let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
                options.rounds = rounds.ok_or(format!("--rounds needs a number, not {text}"))?;
            }
            "--only" => options.only = value()?.split(',').map(ToOwned::to_owned).collect(),
            other => return Err(format!("{other}: --strict, --rounds or --only?")),
        }
    }
    let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !names.contains(&only.as_str())) {
        return Err(format!("there is no part {unknown}; there are {}", names.join(", ")));
    }
    Ok(bench.then_some(options))
}
