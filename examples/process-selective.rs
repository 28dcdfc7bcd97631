//! What is urgent comes first: `cargo run --example process-selective`.
//!
//! The mailbox keeps what a pattern does not want, in order, and a pattern that is used again looks at what is new only.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf::process::{Address, Error, Message, Pattern, me, receive, receive_timeout, send, spawn};

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    number: u32,
    urgent: bool,
}

pub(crate) fn main() -> ExitCode {
    wharf::run(first)
}

fn first() -> Result<(), Box<dyn std::error::Error>> {
    spawn(order, me()?)?;
    let all: String = receive()?;
    let mut out = std::io::stdout();
    writeln!(out, "{all}")?;
    let mut urgent =
        Pattern::new(|message: &Message<'_>| message.read::<Job>().filter(|job| job.urgent));
    while let Some(job) = urgent.receive(Some(Duration::ZERO))? {
        writeln!(out, "urgent: {}", job.number)?;
    }
    while let Some(job) = receive_timeout::<Job>(Duration::ZERO)? {
        writeln!(out, "then: {}", job.number)?;
    }
    Ok(())
}

fn order(to: Address) -> Result<(), Error> {
    for number in 1..=6 {
        send(&to, &Job { number, urgent: number % 3 == 0 })?;
    }
    send(&to, "that is all")
}
