//! A contestant that is one program and its helpers: the C loop, Erlang, another supervisor.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use wharf::exit::Signal;
use wharf::os::{procfs, signal};

use crate::stamps::{Stamps, Started};
use crate::workshop::Workshop;

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

    pub(crate) fn start(mut command: Command) -> Self {
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
