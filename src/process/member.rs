//! One process of a family, as its hub knows it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use super::channel::Channel;
use super::wire::Start;
use crate::exit::{Cause, How};
use crate::mailbox::{Exit, Facts, judge};
use crate::message::Exit as Said;
use crate::os::spawn::Flight;
use crate::time::Tick;

/// A process of the family.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) channel: Channel,
    /// Whether the channel is watched, and what for.
    pub(super) watched: Option<crate::os::epoll::Interest>,
    /// The kernel's side of it; the first process, in which the hub lives, has none.
    pub(super) child: Option<Child>,
    /// Until it runs its function: who waits for that.
    pub(super) birth: Option<Birth>,
    /// The order to spawn whose arguments have not come yet.
    pub(super) order: Option<(u64, Start)>,
    /// Its last word.
    pub(super) said: Option<Said>,
    /// Its result.
    pub(super) value: Option<Vec<u8>>,
    /// What the hub did to it.
    pub(super) cause: Cause,
    /// Why the kernel's word is not the first of its end: it never ran, or broke the protocol.
    pub(super) instead: Option<Instead>,
    /// Who has a socket to it.
    pub(super) peers: BTreeSet<u64>,
}

/// A process as the kernel has it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Its way to the program, while it is on it.
    pub(super) flight: Option<Flight>,
}

/// A process that does not run its function yet.
#[derive(Debug)]
pub(super) struct Birth {
    /// Who wants it.
    pub(super) parent: u64,
    /// The id of the order.
    pub(super) id: u64,
    pub(super) order: Start,
    /// Until when it is waited for.
    pub(super) deadline: Tick,
}

/// What is to be said of an end beside the kernel's word.
#[derive(Debug)]
pub(super) enum Instead {
    /// A step before the program failed.
    NotStarted(How),
    /// It said why it cannot run its function.
    Refused(String),
    /// What it sent was no protocol 1, and it was killed for it.
    Broke(String),
}

impl Member {
    pub(super) fn new(channel: Channel, child: Option<Child>, birth: Option<Birth>) -> Self {
        Self {
            channel,
            watched: None,
            child,
            birth,
            order: None,
            said: None,
            value: None,
            cause: Cause::Spontaneous,
            instead: None,
            peers: BTreeSet::new(),
        }
    }

    /// What is to be told of its end.
    pub(super) fn end(&mut self, how: How) -> Exit {
        let how = match &self.instead {
            Some(Instead::NotStarted(how)) => *how,
            Some(Instead::Refused(_) | Instead::Broke(_)) | None => how,
        };
        let (said, value) = (self.said.take(), self.value.take());
        let mut exit = judge(Facts { how, cause: self.cause, said, value });
        match self.instead.take() {
            Some(Instead::Refused(why)) => {
                exit.reason = crate::exit::Reason::SetupFailed;
                exit.message = Some(why);
            }
            Some(Instead::Broke(what)) => {
                exit.reason = crate::exit::Reason::ProtocolError;
                exit.message = Some(what);
            }
            Some(Instead::NotStarted(_)) | None => {}
        }
        exit
    }
}
