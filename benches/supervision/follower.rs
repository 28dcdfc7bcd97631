//! Who hears from a supervisor that a program has ended, and when.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use wharf::os::clock;
use wharf::time::Tick;

use crate::contest::Peer;
use crate::crew::Lone;
use crate::exits::Subscriber;
use crate::install::Shop;
use crate::wait::{LIMIT, readable};

/// A named pipe on which a program writes when it has heard of an end: CLOCK_MONOTONIC in ns, a line each.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) path: PathBuf,
    file: BufReader<File>,
}

impl Heard {
    pub(crate) fn new(shop: &Shop, peer: Peer) -> Self {
        let name = format!("heard-{peer:?}.fifo");
        let path = shop.workshop.temporary.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Open for both: it never comes to an end, and opening it waits for nobody.
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Self { path, file: BufReader::new(file) }
    }

    fn next(&mut self) -> Tick {
        if self.file.buffer().is_empty() {
            assert!(readable(self.file.get_ref().as_fd(), LIMIT), "nobody heard of the end");
        }
        let mut line = String::new();
        self.file.read_line(&mut line).unwrap();
        Tick(line.trim().parse().unwrap())
    }
}

/// Somebody who follows.
pub(crate) enum Follower {
    Wharf(Subscriber),
    /// The supervisor itself writes it down, or a program that it started.
    Own(Heard),
    /// A program of its own, which ends with us.
    Program(Heard, Child),
    /// One that hears of one end.
    S6 {
        event: PathBuf,
        waits: Option<(Child, ChildStdout)>,
    },
}

impl Follower {
    /// The one that a rival has, to whom `heard` was given at its start where it tells by itself.
    pub(crate) fn new(shop: &Shop, rival: &Lone<'_>, heard: Option<Heard>) -> Self {
        let folder = &rival.crew.folder;
        let start = |command: &mut Command| command.stdin(Stdio::null()).spawn().unwrap();
        match (rival.crew.peer, heard) {
            (Peer::S6, _) => {
                let event = folder.join("services/s1/event");
                Self::S6 { event, waits: None }
            }
            (Peer::Circus, Some(mut heard)) => {
                let endpoint = format!("ipc://{}/pubsub", folder.display());
                let mut python = shop.python("circus_follower.py");
                let child = start(python.arg(endpoint).arg(&heard.path));
                heard.next();
                Self::Program(heard, child)
            }
            (Peer::Pm2, Some(mut heard)) => {
                let mut node = shop.node("pm2_follower.js", rival.crew.home());
                let child = start(node.arg(&heard.path));
                heard.next();
                Self::Program(heard, child)
            }
            (_, Some(heard)) => Self::Own(heard),
            (_, None) => Self::Wharf(Subscriber::new(rival.crew.as_wharf().connect())),
        }
    }

    /// Makes sure that the next end is heard of.
    pub(crate) fn attend(&mut self) {
        if let Self::S6 { event, waits } = self {
            let mut listen = Command::new("s6-ftrig-listen1");
            listen.arg(&*event).args(["d", "echo", "attentive"]);
            let mut child = listen.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut said = child.stdout.take().unwrap();
            let mut word = [0; "attentive\n".len()];
            said.read_exact(&mut word).unwrap();
            *waits = Some((child, said));
        }
    }

    /// When the end was heard of.
    pub(crate) fn heard(&mut self) -> Tick {
        match self {
            Self::Wharf(subscriber) => subscriber.exit(),
            Self::Own(heard) | Self::Program(heard, _) => heard.next(),
            Self::S6 { waits, .. } => {
                let (mut child, mut said) = waits.take().expect("it attends");
                said.read_exact(&mut [0]).unwrap();
                let at = clock::now();
                child.wait().unwrap();
                at
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Self::Program(_, child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
