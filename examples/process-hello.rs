//! A function as a process of its own: `cargo run --example process-hello`.
//!
//! It says hello, and ends by a division that cannot be done; the first process is told why.

use std::io::Write as _;
use std::process::ExitCode;

use wharf::process::{Address, Down, Error, me, receive, send, spawn_monitor};

pub(crate) fn main() -> ExitCode {
    wharf::run(first)
}

fn first() -> Result<(), Box<dyn std::error::Error>> {
    let (child, _) = spawn_monitor(greet, (me()?, "world".to_owned()))?;
    let greeting: String = receive()?;
    send(&child, &0_u32)?;
    let down: Down = receive()?;
    let mut out = std::io::stdout();
    writeln!(out, "{greeting}")?;
    writeln!(out, "it {}", down.exit)?;
    Ok(())
}

fn greet((whom, name): (Address, String)) -> Result<u32, Error> {
    send(&whom, &format!("hello, {name}"))?;
    Ok(100 / receive::<u32>()?)
}
