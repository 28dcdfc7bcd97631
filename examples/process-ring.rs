//! A ring of processes that hand a number on: `cargo run --release --example process-ring -- 100 1000`.
//!
//! The first word is how many processes there are, the second how often the number goes round.

use std::io::Write as _;
use std::process::ExitCode;

use wharf::os::clock;
use wharf::process::{Address, Error, me, receive, send, spawn};

pub(crate) fn main() -> ExitCode {
    wharf::run(first)
}

fn first() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let mut word = |default| words.next().map_or(Ok(default), |word| word.parse::<u32>());
    let (processes, rounds) = (word(20)?, word(100)?);
    let begin = clock::now();
    let mut next = me()?;
    for _ in 0..processes {
        next = spawn(pass_on, next)?;
    }
    let made = clock::now();
    let mut number = 0_u64;
    for _ in 0..rounds {
        send(&next, &number)?;
        number = receive()?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{processes} processes handed on the number {number}")?;
    let each = |length: std::time::Duration, count: u32| length / count.max(1);
    let hops = processes.saturating_add(1).saturating_mul(rounds);
    let spawning = each(made.since(begin), processes);
    writeln!(
        std::io::stderr(),
        "{spawning:?} a process, {:?} a message",
        each(clock::now().since(made), hops)
    )?;
    Ok(())
}

fn pass_on(next: Address) -> Result<(), Error> {
    loop {
        send(&next, &(receive::<u64>()? + 1))?;
    }
}
