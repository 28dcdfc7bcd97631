//! A contestant that keeps children running: the C loop, Erlang, or wharf.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use wharf::exit::Signal;
use wharf::os::{clock, procfs, signal};
use wharf::time::Tick;

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

/// A contestant that is one program and its helpers.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) process: Child,
}

impl Program {
    pub(crate) fn c(workshop: &Workshop, count: usize, stamps: &Stamps) -> Self {
        let mut command = Command::new(workshop.program("supervisor"));
        command.arg(count.to_string()).arg(workshop.child()).arg(stamps.text());
        Self::start(command)
    }

    pub(crate) fn erlang(workshop: &Workshop, count: usize, stamps: &Stamps) -> Self {
        let mut command = Command::new("erl");
        command.args(["-noshell", "-noinput", "-pa"]).arg(&workshop.folder);
        command.args(["-run", "supervisor_bench", "main"]);
        command.arg(count.to_string()).arg(workshop.child()).arg(stamps.text());
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        Self { process }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    /// This process and those of its descendants that are no children of the contest.
    pub(crate) fn processes(&self, children: &[Started]) -> Vec<i32> {
        let children: BTreeSet<i32> = children.iter().map(|child| child.pid).collect();
        let mut found = vec![self.pid()];
        let all = procfs::all().unwrap();
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            found.extend(
                all.iter()
                    .filter(|one| one.parent == parent && !children.contains(&one.pid))
                    .map(|one| one.pid),
            );
            at += 1;
        }
        found
    }

    /// Ends it, politely; the C loop takes its children with it.
    pub(crate) fn stop(&mut self) {
        let _ = signal::send_pid(self.pid(), Signal::TERM);
        let _ = self.process.wait();
    }
}
