//! A calculator shared by several tasks: `cargo run --example calculator`.
//!
//! One `bc` answers all of them, each its own sums; what it cannot do goes to its standard error.

use std::error::Error;
use std::io::Write as _;

use wharf::Port;
use wharf::port::{Replies, Stderr};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let bc = Port::command("bc")
        .arg("-q")
        .env("BC_LINE_LENGTH", "0")
        // Nothing ends a reply of bc, so that it is made to print a token after each.
        .replies(Replies::sentinel("print \"{token}\\n\"", "{token}"))
        .quit("quit")
        .stderr(Stderr::Quiet)
        .open()
        .await?;

    let tasks = ["2^100", "scale = 20; sqrt(2)", "1 / 0", "6 * 7"].map(|sum| {
        let bc = bc.clone();
        tokio::spawn(async move { (sum, bc.call(sum).await) })
    });
    let mut out = std::io::stdout();
    for task in tasks {
        let (sum, reply) = task.await?;
        writeln!(out, "{sum} = {}", reply?.text())?;
    }

    let exit = bc.stop().await;
    writeln!(out, "{exit}")?;
    write!(out, "It complained: {}", String::from_utf8_lossy(&exit.stderr_tail.0))?;
    Ok(())
}
