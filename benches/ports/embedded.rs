//! The contestant that embeds `wharf::Port`: this very program, started again.
//!
//! An ordinary tokio program of one thread. What is measured and printed is said in
//! `benches/c/ports.c`.

use std::time::Duration;

use wharf::Port;
use wharf::os::clock;
use wharf::port::{Builder, Bytes, Framing, PacketWidth, Replies, Stderr};

/// Runs one contest and prints its number.
pub(crate) fn main(words: &[String]) {
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    let (mode, echo, size, count) = (&*words[0], &*words[1], number(2), number(3));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let message = Bytes::from(vec![0; size]);
    let (mode, echo) = (mode.to_owned(), echo.to_owned());
    let many = words.get(4).map_or(0, |_| number(4));
    let contest = async move {
        match &*mode {
            "pingpong" => pingpong(&echo, message, count).await,
            "pipelined" => pipelined(&echo, message, count).await,
            "fanout" => fanout(&echo, message, count, many).await,
            other => panic!("{other} is no contest"),
        }
    };
    // A task, as in a program that has several: the future of `block_on` itself is polled in turn with
    // the reactor, which costs a look at it more.
    let value = runtime.block_on(runtime.spawn(contest)).unwrap();
    println!("{value}");
}

fn port(echo: &str) -> Builder {
    let framing = Framing::Packet(PacketWidth::Four);
    Port::command(echo).framing(framing).replies(Replies::One).stderr(Stderr::Quiet)
}

async fn pingpong(echo: &str, message: Bytes, count: usize) -> f64 {
    let port = port(echo).open().await.unwrap();
    let mut took = Vec::with_capacity(count);
    for round in 0..count + 100 {
        let from = clock::now();
        port.call(message.clone()).await.unwrap();
        if round >= 100 {
            took.push(clock::now().since(from));
        }
    }
    took.sort();
    took[count / 2].as_secs_f64() * 1e6
}

async fn pipelined(echo: &str, message: Bytes, count: usize) -> f64 {
    let port = port(echo).replies(Replies::None).open().await.unwrap();
    let mut messages = port.subscribe();
    let from = clock::now();
    let sender = port.clone();
    let sent = tokio::spawn(async move {
        let messages = std::iter::repeat_n(message, count);
        sender.feed_all(messages).await.unwrap();
    });
    for _ in 0..count {
        messages.next().await.unwrap().unwrap();
    }
    let rate = per_second(count, clock::now().since(from));
    sent.await.unwrap();
    rate
}

async fn fanout(echo: &str, message: Bytes, count: usize, many: usize) -> f64 {
    wharf::os::limits::raise_nofile().unwrap();
    let mut ports = Vec::with_capacity(many);
    for _ in 0..many {
        let port = port(echo).open().await.unwrap();
        port.call(message.clone()).await.unwrap();
        ports.push(port);
    }
    let each = count / many;
    let from = clock::now();
    let callers: Vec<_> = ports
        .into_iter()
        .map(|port| {
            let message = message.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    port.call(message.clone()).await.unwrap();
                }
                // Its end is not part of the contest.
                port
            })
        })
        .collect();
    let mut ports = Vec::with_capacity(many);
    for caller in callers {
        ports.push(caller.await.unwrap());
    }
    per_second(each * many, clock::now().since(from))
}

fn per_second(count: usize, time: Duration) -> f64 {
    let count = u32::try_from(count).unwrap();
    f64::from(count) / time.as_secs_f64()
}
