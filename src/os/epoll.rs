//! Waiting for many descriptors at once: epoll(7), level-triggered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::io as to_io;

/// A set of descriptors, each with a token of the owner's choice.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

/// What a descriptor is watched for. Errors and hang-ups are always told: what is to be left alone
/// must be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data to read, or the end of the stream.
    Read,
    /// Room to write, or nobody to read it.
    Write,
    /// Either of the two.
    Both,
    /// Nothing but errors and hang-ups, which are always told.
    Nothing,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Self::Nothing => EpollFlags::empty(),
        }
    }
}

/// Room for what one wait returns.
#[derive(Debug)]
pub struct Ready {
    events: Vec<EpollEvent>,
    count: usize,
}

impl Ready {
    /// Room for `capacity` descriptors a wait.
    pub fn new(capacity: usize) -> Self {
        Self { events: vec![EpollEvent::empty(); capacity], count: 0 }
    }

    /// The tokens of the descriptors that are ready.
    pub fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.events[..self.count].iter().map(EpollEvent::data)
    }
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(to_io)?;
        Ok(Self { epoll })
    }

    /// Adds a descriptor. It must be removed before it is closed if anybody else holds its
    /// description.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.epoll.add(fd, EpollEvent::new(interest.flags(), token)).map_err(to_io)
    }

    /// Watches a descriptor for something else.
    pub fn change(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.epoll.modify(fd, &mut EpollEvent::new(interest.flags(), token)).map_err(to_io)
    }

    /// Takes a descriptor out.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.delete(fd).map_err(to_io)
    }

    /// Waits until something is ready, at most `limit` (`None`: without limit). An interrupted wait ends
    /// early, with what is ready by then: the process may have been stopped for long.
    pub fn wait(&self, ready: &mut Ready, limit: Option<Duration>) -> io::Result<()> {
        let timeout = match limit {
            None => EpollTimeout::NONE,
            Some(limit) => {
                // Rounded up: waking a moment early would only mean another turn of the loop.
                let millis = limit.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(u64::try_from(millis).unwrap_or(u64::MAX).min(3_600_000))
                    .unwrap_or(EpollTimeout::ZERO)
            }
        };
        let told = match self.epoll.wait(&mut ready.events, timeout) {
            Err(nix::errno::Errno::EINTR) => self.epoll.wait(&mut ready.events, EpollTimeout::ZERO),
            told => told,
        };
        ready.count = match told {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(to_io(error)),
        };
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
