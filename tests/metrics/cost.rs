//! What a scrape costs at a thousand services: the loop's time, and memory before, while and after.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::scrape::{Scrape, judge, unchunked};
use crate::support::{LIMIT, Wharf, until};

const SERVICES: usize = 1000;
/// What a scrape may add, in KiB.
const MOST: u64 = 2048;

fn thousand() -> Wharf {
    let mut yaml = "services:\n".to_owned();
    for at in 0..SERVICES {
        writeln!(yaml, "  service-{at}: {{ command: [sleep, '1000'] }}").unwrap();
    }
    let wharf = Wharf::up(&yaml);
    until("all to run", || wharf.ps().iter().all(|row| row["state"] == "running").then_some(()));
    wharf
}

/// Of a process's memory: what it has allocated, and its share of everything (KiB).
fn memory(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let of = |key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (of("Pss_Anon:"), of("Pss:"))
}

fn ask(wharf: &Wharf) -> UnixStream {
    let mut stream = wharf.connect().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    stream
}

/// Reads an answer to its end: how long the loop took, in milliseconds, and the text.
fn read(mut stream: UnixStream) -> (f64, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let by_loop = head.split("loop;dur=").nth(1).unwrap().split(',').next().unwrap();
    (by_loop.parse().unwrap(), unchunked(body))
}

#[test]
fn a_scrape_of_a_thousand_services_is_cheap() {
    let wharf = thousand();
    let manager = wharf.manager_pid();
    // As it is at rest, after a hundred looks without a change.
    let (mut last, mut same) = ((0, 0), 0);
    let before = until("the manager to rest", || {
        let now = memory(manager);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 100).then_some(now)
    });

    // At rest a manager gives its own code back. The first answer, whatever it is about, maps what
    // answering takes again: that is no cost of a scrape.
    wharf.get("/v1/services");
    let answered = memory(manager);

    // While it is scraped somebody looks at its memory all the time.
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&over);
    let watcher = std::thread::spawn(move || {
        let mut most = (0, 0);
        let mut looks = 0;
        while !done.load(Ordering::Relaxed) {
            let now = memory(manager);
            most = (most.0.max(now.0), most.1.max(now.1));
            looks += 1;
        }
        (most, looks)
    });
    let mut by_loop = Vec::new();
    let mut text = String::new();
    for _ in 0..10 {
        let (millis, body) = read(ask(&wharf));
        by_loop.push(millis);
        text = body;
    }
    over.store(true, Ordering::Relaxed);
    let (most, looks) = watcher.join().unwrap();
    let after = memory(manager);

    judge(&text);
    let scrape = Scrape::read(&text);
    assert!(scrape.values.len() > SERVICES * 60, "{}", scrape.values.len());
    assert!(looks >= 10, "{looks} looks at the memory");
    by_loop.sort_by(f64::total_cmp);
    eprintln!(
        "memory at rest, after another answer, while and after (KiB, allocated and all): \
         {before:?} {answered:?} {most:?} {after:?}; \
         the loop's time: {by_loop:?} ms; {} series, {} KiB of text",
        scrape.values.len(),
        text.len() >> 10
    );
    let added = most.0.saturating_sub(before.0);
    assert!(added < MOST, "a scrape allocates {added} KiB");
    assert!(after.0.saturating_sub(before.0) < MOST, "{before:?} {after:?}");
    // Other tests take the processor away in between: the better quarter is the loop's own doing.
    if cfg!(debug_assertions) {
        // Unoptimised code takes some ten times as long.
        assert!(by_loop[2] < 20.0, "{by_loop:?}");
    } else {
        let added = most.1.saturating_sub(answered.1);
        assert!(added < MOST, "a scrape adds {added} KiB");
        assert!(by_loop[2] < 1.0, "the loop is held up for {by_loop:?} ms");
    }
}

#[test]
fn clients_that_do_not_read_hold_up_nobody_but_each_other() {
    let wharf = thousand();
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = ask(&wharf);
            // Its head says that it has its turn; the rest is left lying.
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            stream
        })
        .collect();
    // Everything else is answered as ever.
    assert_eq!(wharf.ps().len(), SERVICES);
    wharf.ok(&["restart", "service-7"]);
    // The next one waits a while for its turn and is then told why there is none.
    let (status, body) = wharf.http("GET", "/metrics", b"").unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("\"code\":\"busy\"") && body.contains("do not read"), "{body}");
    drop(stuck);
    until("their places", || {
        wharf.http("GET", "/metrics", b"").is_ok_and(|answer| answer.0 == 200).then_some(())
    });
}

#[test]
fn scrapes_at_the_same_time_share_a_look() {
    let wharf = thousand();
    let streams: Vec<_> = (0..4).map(|_| ask(&wharf)).collect();
    let readers: Vec<_> =
        streams.into_iter().map(|stream| std::thread::spawn(move || read(stream).1)).collect();
    let took = |text: String| {
        let took = Scrape::read(&text).get("wharf_scrape_duration_seconds");
        took.to_string()
    };
    let mut looks: Vec<_> =
        readers.into_iter().map(|reader| took(reader.join().unwrap())).collect();
    looks.sort();
    looks.dedup();
    assert!(looks.len() < 4, "four scrapes made four looks: {looks:?}");
}
