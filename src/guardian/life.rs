//! One life of the manager: how it is started, and what it has to say.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::exit::{Errno, Stage};
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::limits::{Limit, Resource};
use crate::os::spawn::{ChildLimit, Landing, Launch, Stacks};
use crate::os::{clock, fds, memory};
use crate::time::Tick;

use super::binary::Binary;
use super::notify::{News, Notifier};
use super::{
    ALIVE, CHANNEL_FD, DOWN, EXIT, GIVEN_FD, Guardian, GuardianError, LOCK_FD, NEXT, READY,
    RELOADED, RELOADING, Relayed, STATUS, STOPPING, VAULT_FD,
};

/// Room for the longest word of a manager: a path (PATH_MAX) and what stands before it.
const LONGEST: usize = 4096 + NEXT.len();

/// A manager that was started.
pub(super) struct Life {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: OwnedFd,
    /// The conversation about kept runs.
    pub(super) vault: OwnedFd,
    pub(super) ready: bool,
    /// The binary that it wants to succeed it.
    pub(super) next: Option<PathBuf>,
    /// Until when it must serve, where it is the first of a new binary.
    pub(super) trial: Option<Tick>,
    /// The code with which wharf is to exit.
    pub(super) exit: Option<u8>,
    /// It is killed because `SIGABRT` came.
    pub(super) aborted: Option<Abort>,
}

/// `SIGABRT` came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abort {
    /// From this process; `None` when the kernel sent it.
    pub(super) by: Option<i32>,
}

impl Life {
    /// Takes everything that it has said; `asked` becomes the wish of its clients that everything end. False
    /// once it never will say anything again.
    pub(super) fn hear(
        &mut self,
        notifier: &mut Notifier,
        asked: &mut Option<Relayed>,
    ) -> io::Result<bool> {
        let mut message = [0; LONGEST];
        while let Some(received) = fds::receive(self.channel.as_fd(), &mut message)? {
            let now = clock::now();
            match &message[..received.bytes] {
                [] => return Ok(false),
                READY => {
                    self.ready = true;
                    notifier.hear(News::Serving, now);
                    memory::give_back();
                }
                ALIVE => notifier.alive(now),
                RELOADING => notifier.hear(News::Reloading, now),
                RELOADED => notifier.hear(News::Reloaded, now),
                STOPPING => notifier.hear(News::Stopping, now),
                said => self.hear_more(said, notifier, asked, now),
            }
        }
        Ok(true)
    }

    /// Takes a word that has something to say.
    fn hear_more(
        &mut self,
        said: &[u8],
        notifier: &mut Notifier,
        asked: &mut Option<Relayed>,
        now: Tick,
    ) {
        if let Some(path) = said.strip_prefix(NEXT) {
            self.next = Some(PathBuf::from(OsStr::from_bytes(path)));
        } else if let Some(text) = said.strip_prefix(STATUS) {
            notifier.status(&String::from_utf8_lossy(text), now);
        } else if let Some(wish) = said.strip_prefix(DOWN) {
            *asked = serde_json::from_slice(wish).ok().or(asked.take());
        } else if let Some(code) = said.strip_prefix(EXIT) {
            self.exit = str::from_utf8(code).ok().and_then(|code| code.parse().ok());
        }
    }
}

impl Guardian {
    /// Starts a manager: of this very binary, or of another.
    pub(super) fn start(
        &self,
        nofile: Limit,
        binary: Option<&Binary>,
    ) -> Result<Life, GuardianError> {
        let system = |doing| move |source| GuardianError::System { doing, source };
        let (ours, theirs) = fds::message_pair().map_err(system("making a socket"))?;
        let (vault, stored) = fds::message_pair().map_err(system("making a socket"))?;
        // The open file itself, unless a new binary was asked for.
        let program = match binary {
            None => b"/proc/self/exe".to_vec(),
            Some(binary) => binary.program().map_err(system("finding the binary"))?,
        };
        let arguments = self.arguments.iter().map(String::as_bytes);
        let words: Vec<&[u8]> = std::iter::once(&*program).chain(arguments).collect();
        let environment = self.environment.iter().map(|(name, value)| (&**name, &**value));
        let nul = |_| GuardianError::Start("its arguments", Errno(libc::EINVAL));
        let mut launch = Box::new(Launch::new(&words, environment).map_err(nul)?);
        launch.argv0("wharf").map_err(nul)?.outlives_parent();
        let resource = Resource::Nofile;
        launch.limit(ChildLimit { resource, soft: nofile.soft, hard: nofile.hard });
        let null = File::open("/dev/null").map_err(system("opening /dev/null"))?;
        let places = [
            (null.as_fd(), 0),
            (self.lock.as_fd(), LOCK_FD),
            (theirs.as_fd(), CHANNEL_FD),
            (stored.as_fd(), VAULT_FD),
        ];
        let places: Vec<_> = places.into_iter().chain(self.given.places(GIVEN_FD)).collect();
        let mut stacks = Stacks::default();
        let failed = |(stage, errno): (Stage, _)| GuardianError::Start(stage.doing(), errno);
        let mut started = launch.start(&places, &mut stacks).map_err(failed)?;
        let poller = Poller::new().map_err(system("waiting"))?;
        poller.add(started.flight.as_fd(), 0, Interest::Read).map_err(system("waiting"))?;
        let mut ready = Ready::new(1);
        loop {
            poller.wait(&mut ready, None).map_err(system("waiting"))?;
            match started.flight.landed(&mut stacks) {
                None => {}
                // A manager that died on its way is seen to be dead like any other.
                Some(Landing::Executed | Landing::Died) => break,
                Some(Landing::Failed { stage, errno, .. }) => {
                    return Err(failed((stage, errno)));
                }
            }
        }
        Ok(Life {
            pid: started.pid,
            pidfd: started.pidfd,
            channel: ours,
            vault,
            ready: false,
            next: None,
            trial: None,
            exit: None,
            aborted: None,
        })
    }
}
