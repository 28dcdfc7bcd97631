//! What receivers get, from sockets that the tests bind.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::exit::ExitRecord;
use crate::name::{Incarnation, ReplicaId};
use crate::os::clock;
use crate::output::{Line, Source, Stream};
use crate::time::Wall;

const SAMPLE: &str = include_str!("../../docs/exit-record.json");
const DOCS: &str = include_str!("../../docs/FORWARDING.md");

fn id() -> ReplicaId {
    ReplicaId { service: "web".parse().unwrap(), replica: 2 }
}

fn line(stream: Stream, text: &[u8], partial: bool) -> Line {
    let at = Wall(1_795_332_688_576_123_456);
    Line { at, source: Source::Program(stream), partial, noeol: false, text: text.to_vec() }
}

fn said<'a>(replica: &'a ReplicaId, what: What<'a>) -> Forwarded<'a> {
    Forwarded { replica, incarnation: Incarnation(17), pid: Some(4242), what }
}

#[test]
fn lines_and_ends_as_journald_and_syslog_get_them() {
    let (id, record) = (id(), serde_json::from_str::<ExitRecord>(SAMPLE).unwrap());
    let lines = [
        line(Stream::Stdout, b"listening", false),
        line(Stream::Stderr, b"a\x1b[0m\tb\x00\xff", true),
    ];
    let all = [What::Line(&lines[0]), What::Line(&lines[1]), What::Exit(&record)];
    let mut told = String::new();
    for what in all {
        let said = said(&id, what);
        for datagram in [journald::entry(&said), syslog::message(&said, &TimeZone::UTC)] {
            told.push_str(
                &String::from_utf8_lossy(&datagram).escape_debug().to_string().replace("\\n", "\n"),
            );
            told.push_str("\n--\n");
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn every_field_is_described() {
    let (id, record) = (id(), serde_json::from_str::<ExitRecord>(SAMPLE).unwrap());
    let line = line(Stream::Stdout, b"x", true);
    for what in [What::Line(&line), What::Exit(&record)] {
        let entry = journald::entry(&said(&id, what));
        let entry = String::from_utf8(entry).unwrap();
        for name in entry.lines().map(|line| line.split('=').next().unwrap()) {
            assert!(DOCS.contains(&format!("`{name}`")), "{name} is not in docs/FORWARDING.md");
        }
    }
    assert!(DOCS.contains(EXIT_MESSAGE_ID));
}

#[test]
fn a_receiver_that_is_away_costs_nothing_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than a socket's address may be.
    let folder = folder.path().join("x".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("socket");
    let mut receiver = Receiver::syslog(&path);
    let (id, hello) = (id(), line(Stream::Stdout, b"hello", false));
    let mut send = || receiver.send(&said(&id, What::Line(&hello)));
    assert!(matches!(send(), Sent::Lost(_)));
    assert!(matches!(send(), Sent::LostToo));
    let bind = || {
        let _ = std::fs::remove_file(&path);
        let there = std::fs::File::open(&folder).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&there);
        UnixDatagram::bind(format!("/proc/self/fd/{fd}/socket")).unwrap()
    };
    let bound = bind();
    let start = clock::now();
    let lost = loop {
        match send() {
            Sent::Back(lost) => break lost,
            Sent::LostToo => assert!(clock::now().since(start) < Duration::from_secs(20)),
            other => panic!("{other:?}"),
        }
    };
    assert!(lost >= 2, "{lost}");
    assert!(matches!(send(), Sent::Taken));
    let mut buffer = [0; 100];
    for _ in 0..2 {
        let count = bound.recv(&mut buffer).unwrap();
        assert!(buffer[..count].ends_with(b" web/2[4242]: hello"));
    }
    // Restarted in between: nothing is lost.
    drop(bound);
    let bound = bind();
    assert!(matches!(send(), Sent::Taken));
    assert!(bound.recv(&mut buffer).unwrap() > 5);
    // One that reads nothing is waited for once.
    let mut taken = 0;
    let start = clock::now();
    while !matches!(send(), Sent::Lost(_)) {
        taken += 1;
        assert!(taken < 100_000, "a socket without bounds");
    }
    assert!(clock::now().since(start) >= Duration::from_millis(900));
    let start = clock::now();
    for _ in 0..1_000 {
        assert!(matches!(send(), Sent::LostToo));
    }
    assert!(clock::now().since(start) < Duration::from_millis(900));
}
