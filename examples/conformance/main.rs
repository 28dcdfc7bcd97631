//! Plays the manager for a program of wire protocol 1 and prints a verdict for each rule.
//!
//! `cargo run --example conformance -- [--call TEXT] [--seconds N] COMMAND [ARGUMENT …]`. TEXT is what
//! the program is called with; it may answer with an error, but it has to answer. One line a rule, so
//! that the runner is itself a port; the exit code is 0 when every rule holds, 1 when one does not and
//! 2 when it was used wrongly. The rules have the names that `docs/PROTOCOL.md` gives them.

mod rules;
mod subject;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use rules::RULES;
use subject::Bench;

const USAGE: &str = "usage: conformance [--call TEXT] [--seconds N] COMMAND [ARGUMENT …]";

fn bench() -> Result<Bench, String> {
    let mut words = std::env::args().skip(1).peekable();
    let mut bench = Bench::default();
    while let Some(option) = words.next_if(|word| word.starts_with("--")) {
        let mut value = || words.next().ok_or_else(|| format!("{option} needs a value; {USAGE}"));
        match &*option {
            "--" => break,
            "--call" => bench.payload = value()?.into(),
            "--seconds" => {
                let seconds = value()?.parse().map_err(|error| format!("--seconds: {error}"))?;
                bench.patience = Duration::from_secs(seconds);
            }
            _ => return Err(format!("there is no option {option}; {USAGE}")),
        }
    }
    bench.command = words.collect();
    if bench.command.is_empty() { Err(USAGE.to_owned()) } else { Ok(bench) }
}

fn main() -> io::Result<ExitCode> {
    let bench = match bench() {
        Ok(bench) => bench,
        Err(error) => {
            writeln!(io::stderr(), "{error}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let mut broken = 0;
    for rule in RULES {
        let verdict = (rule.holds)(&bench);
        let mut out = io::stdout().lock();
        match verdict {
            Ok(()) => writeln!(out, "ok    {:<13} {}", rule.name, rule.about)?,
            Err(why) => {
                broken += 1;
                writeln!(out, "FAIL  {:<13} {}: {why}", rule.name, rule.about)?;
            }
        }
        out.flush()?;
    }
    writeln!(io::stdout(), "{} rules, {broken} broken", RULES.len())?;
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
