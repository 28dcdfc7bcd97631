//! Who hears of an end: the least that C can do, and a subscriber of wharf's stream of events.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use wharf::exit::Signal;
use wharf::os::{clock, signal};
use wharf::time::Tick;

use crate::stamps::{Stamps, Started};
use crate::wait::between;
use crate::workshop::Workshop;

/// The C program that waits on a pidfd.
pub(crate) struct Limit {
    process: Child,
    stamps: Stamps,
    child: Started,
    seen: ChildStdout,
}

impl Limit {
    pub(crate) fn new(workshop: &Workshop) -> Self {
        let stamps = Stamps::new(workshop, "pidfd");
        let mut command = Command::new(workshop.program("pidfd"));
        command.arg(workshop.child()).arg(stamps.text());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let seen = process.stdout.take().unwrap();
        let child = stamps.next();
        Self { process, stamps, child, seen }
    }

    /// The program starts a child after each end, so there is always one to kill.
    pub(crate) fn kill_and_see(&mut self) -> f64 {
        let pidfd = signal::open_pidfd(self.child.pid).unwrap();
        let killed = clock::now();
        signal::send(pidfd.as_fd(), Signal::KILL).unwrap();
        let mut at = [0; 8];
        self.seen.read_exact(&mut at).unwrap();
        self.child = self.stamps.next();
        between(killed, Tick(u64::from_ne_bytes(at)))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A client of `GET /v1/events` that knows as little of HTTP as it must.
pub(crate) struct Subscriber {
    socket: UnixStream,
    heard: Vec<u8>,
}

impl Subscriber {
    pub(crate) fn new(mut socket: UnixStream) -> Self {
        socket.write_all(b"GET /v1/events HTTP/1.1\r\nhost: wharf\r\n\r\n").unwrap();
        let mut subscriber = Self { socket, heard: Vec::new() };
        // From these words on nothing is missed.
        subscriber.hear_until(b": listening");
        subscriber
    }

    /// Waits for a whole exit event and tells when it was there.
    pub(crate) fn exit(&mut self) -> Tick {
        self.hear_until(b"event: exit\n");
        self.hear_until(b"\n\n");
        clock::now()
    }

    /// Reads until these bytes have come, and forgets everything up to their end.
    fn hear_until(&mut self, wanted: &[u8]) {
        let mut buffer = [0; 16 << 10];
        loop {
            let found = self.heard.windows(wanted.len()).position(|window| window == wanted);
            if let Some(at) = found {
                self.heard.drain(..at + wanted.len());
                return;
            }
            let read = self.socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the stream of events ended");
            self.heard.extend_from_slice(&buffer[..read]);
        }
    }
}
