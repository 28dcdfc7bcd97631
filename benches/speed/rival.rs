//! A contestant that keeps children running: the C loop, Erlang, or wharf.

use std::os::fd::{AsFd, OwnedFd};

use wharf::exit::Signal;
use wharf::os::{clock, signal};
use wharf::time::Tick;

use crate::program::Program;
use crate::stamps::{Stamps, Started};
use crate::wait::between;
use crate::wharf::{Wharf, service};
use crate::workshop::Workshop;

/// Who starts the successor.
#[derive(Debug)]
enum Life {
    Program(Program),
    Wharf(Wharf),
}

/// A contestant with one child, which is killed again and again.
#[derive(Debug)]
pub(crate) struct Rival {
    stamps: Stamps,
    child: Started,
    pidfd: OwnedFd,
    life: Life,
}

impl Rival {
    pub(crate) fn c(workshop: &Workshop) -> Self {
        let stamps = Stamps::new(workshop, "c");
        let program = Program::c(workshop, 1, &stamps);
        Self::with(stamps, Life::Program(program))
    }

    pub(crate) fn erlang(workshop: &Workshop) -> Self {
        let stamps = Stamps::new(workshop, "erlang");
        let program = Program::erlang(workshop, 1, &stamps);
        Self::with(stamps, Life::Program(program))
    }

    /// `head` comes before the services.
    pub(crate) fn wharf(workshop: &Workshop, name: &str, head: &str) -> Self {
        let stamps = Stamps::new(workshop, name);
        let service = service("one", &workshop.child(), stamps.text(), "");
        let mut wharf = Wharf::new(workshop, &format!("{head}services:\n{service}"));
        wharf.up(&[]);
        Self::with(stamps, Life::Wharf(wharf))
    }

    fn with(stamps: Stamps, life: Life) -> Self {
        let child = stamps.next();
        let pidfd = signal::open_pidfd(child.pid).unwrap();
        Self { stamps, child, pidfd, life }
    }

    /// Kills the child and tells when.
    pub(crate) fn kill(&self) -> Tick {
        let at = clock::now();
        signal::send(self.pidfd.as_fd(), Signal::KILL).unwrap();
        at
    }

    /// Waits for the successor and tells when its first instruction was.
    pub(crate) fn successor(&mut self) -> Tick {
        self.child = self.stamps.next();
        self.pidfd = signal::open_pidfd(self.child.pid).unwrap();
        self.child.at
    }

    /// From the kill to the successor's first instruction, in microseconds.
    pub(crate) fn restart(&mut self) -> f64 {
        let killed = self.kill();
        between(killed, self.successor())
    }

    /// The wharf, where this is one.
    pub(crate) fn as_wharf(&self) -> &Wharf {
        match &self.life {
            Life::Wharf(wharf) => wharf,
            Life::Program(_) => panic!("this is no wharf"),
        }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Life::Program(program) = &mut self.life {
            program.stop();
            // Erlang leaves its children behind.
            let _ = signal::send(self.pidfd.as_fd(), Signal::KILL);
        }
    }
}
