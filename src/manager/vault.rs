//! The manager's end of the conversation about kept runs: what the guardian holds for them.
//!
//! It never waits for the guardian but at its own start. What finds no room is said later, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::guardian::{WORD, Word};
use crate::name::Incarnation;
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::{clock, fds};
use crate::time::Tick;

/// Stands for what belongs to no run: the control socket, and what stands for its file.
pub(super) const NO_RUN: Incarnation = Incarnation(0);
/// How long the guardian may take to answer a manager that starts.
const PATIENCE: Duration = Duration::from_secs(5);
/// When what found no room is said again.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Vault {
    guardian: OwnedFd,
    unsaid: VecDeque<[u8; WORD]>,
    again: Option<Tick>,
}

impl Vault {
    pub(super) fn new(guardian: OwnedFd) -> Self {
        Self { guardian, unsaid: VecDeque::new(), again: None }
    }

    /// Another descriptor of the same conversation, for the thread that makes processes.
    pub(super) fn another(&self) -> io::Result<OwnedFd> {
        fds::duplicate(&self.guardian)
    }

    /// What the guardian holds of a run; `None` where that is nothing. For a manager that starts.
    pub(super) fn take(&self, run: Incarnation) -> io::Result<Option<Vec<OwnedFd>>> {
        fds::send(self.guardian.as_fd(), &Word::Take.encode(run), &[])?;
        let poller = Poller::new()?;
        poller.add(self.guardian.as_fd(), 0, Interest::Read)?;
        let deadline = clock::now() + PATIENCE;
        loop {
            poller.wait(&mut Ready::new(1), Some(deadline.since(clock::now())))?;
            let mut bytes = [0; WORD];
            if let Some(received) = fds::receive(self.guardian.as_fd(), &mut bytes)? {
                return match Word::decode(&bytes[..received.bytes]) {
                    Some((Word::Given, of)) if of == run && !received.lost => {
                        Ok(Some(received.fds))
                    }
                    Some(_) => Ok(None),
                    None => Err(io::Error::other("the guardian is gone")),
                };
            }
            if clock::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Has the guardian keep descriptors that are no ends of a run's pipes, under a number of their own.
    pub(super) fn store(&self, number: Incarnation, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        fds::try_send(self.guardian.as_fd(), &Word::Store.encode(number), &fds)
    }

    /// Says a word of a run.
    pub(super) fn say(&mut self, word: Word, run: Incarnation) {
        self.unsaid.push_back(word.encode(run));
        self.flush(clock::now());
    }

    /// Says what found no room, as far as there is some by now.
    pub(super) fn flush(&mut self, now: Tick) {
        self.again = None;
        while let Some(word) = self.unsaid.front() {
            match fds::try_send(self.guardian.as_fd(), word, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.again = Some(now + AGAIN);
                    return;
                }
                // One that is gone needs to hear nothing.
                Ok(()) | Err(_) => drop(self.unsaid.pop_front()),
            }
        }
    }

    /// When something is to be said again.
    pub(super) fn due(&self) -> Option<Tick> {
        self.again
    }
}
