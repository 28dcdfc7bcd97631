//! A program that answers when its input ends, fed while it is heard: `cargo run --example word-count`.
//!
//! `sort | uniq -c | sort -rn` over the words of this very file, without a shell: three ports, each
//! feeding the next, and none faster than it can take it.

use std::error::Error;
use std::io::Write as _;

use wharf::Port;
use wharf::port::{Builder, Bytes};

/// The most frequent words, with how often they stand there.
async fn count(text: &'static str) -> Result<Vec<String>, Box<dyn Error>> {
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 3);
    let sorted = Port::command("sort").env("LC_ALL", "C").open().await?;
    let (feeding, input) = (sorted.clone(), words.map(Bytes::from).collect::<Vec<_>>());
    let fed = tokio::spawn(async move {
        let fed = feeding.feed_all(input).await;
        feeding.close_input();
        fed
    });
    let counted = pipe(&sorted, Port::command("uniq").arg("-c")).await?;
    let ranked = pipe(&counted, Port::command("sort").arg("-rn").env("LC_ALL", "C")).await?;
    let mut lines = ranked.subscribe();
    let mut most = Vec::new();
    while let Some(line) = lines.next().await {
        most.push(String::from_utf8_lossy(&line?.payload).trim().to_owned());
    }
    fed.await??;
    for port in [sorted, counted, ranked] {
        let exit = port.wait().await;
        assert!(exit.is_success(), "{exit}");
    }
    Ok(most)
}

/// Starts a program that is fed everything that another one says.
async fn pipe(from: &Port, to: Builder) -> Result<Port, Box<dyn Error>> {
    let to = to.open().await?;
    let (mut lines, feeding) = (from.subscribe(), to.clone());
    tokio::spawn(async move {
        while let Some(Ok(line)) = lines.next().await {
            // It waits while the next program has no room, and then this one's waits too.
            if feeding.feed(line.payload).await.is_err() {
                break;
            }
        }
        feeding.close_input();
    });
    Ok(to)
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    for line in count(include_str!("word-count.rs")).await?.iter().take(5) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
