//! Whose end concerns this process: monitors and links, and ending others.

use super::error::Error;
use super::shared::shared;
use super::spawn::asked;
use super::wire::Ask;
use crate::message::{self, Frame, Kind};
use crate::name::Address;

/// A monitor: a [`Down`](super::Down) comes when the process ends that it watches. It goes on when this is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Monitor {
    pub(super) id: u64,
    pub(super) address: Address,
}

impl Monitor {
    /// Its number, which stands in [`Down::monitor`](super::Down::monitor).
    pub fn id(self) -> u64 {
        self.id
    }

    /// Who is watched.
    pub fn address(self) -> Address {
        self.address
    }
}

/// Watches a process. One that has ended already is told at once, with its true reason.
pub fn monitor(address: &Address) -> Result<Monitor, Error> {
    shared()?.with(|inside, poller| {
        let id = inside.fresh();
        // Nobody of another realm is known here; the hub has no process 0 and says so.
        let known = address.realm == inside.me.realm;
        let target = if known { address.incarnation.0 } else { 0 };
        inside.monitors.insert(id);
        let target = message::Address::Incarnation(target);
        let wish = message::Monitor { target, messages: false, follow: false };
        inside.tell_hub(&Frame::control(Kind::Monitor, id, &wish), poller)?;
        Ok(Monitor { id, address: address.process() })
    })
}

/// Takes a monitor back. No [`Down`](super::Down) of it comes after this, and one that waits in the mailbox is taken out;
/// `true` where there was none.
pub fn demonitor(monitor: Monitor) -> Result<bool, Error> {
    shared()?.with(|inside, poller| {
        let open = inside.monitors.remove(&monitor.id);
        if open {
            inside.tell_hub(&Frame::new(Kind::Demonitor, monitor.id, ""), poller)?;
        }
        let flushed = inside.mailbox.remove(|letter| letter.monitor == monitor.id);
        Ok(open && flushed.is_empty())
    })
}

/// Binds this process's life to another's, both ways: when one ends in any way but
/// [a normal one](super::Exit::is_normal), the other one is killed, unless it [traps](trap_exits) that. When the first process is linked and
/// to be killed, the program ends with code 1.
pub fn link(address: &Address) -> Result<(), Error> {
    shared()?.with(|inside, poller| {
        let known = address.realm == inside.me.realm;
        let target = message::Address::Incarnation(if known { address.incarnation.0 } else { 0 });
        let wish = message::Monitor { target, messages: false, follow: false };
        let id = inside.fresh();
        inside.tell_hub(&Frame::control(Kind::Link, id, &wish), poller)
    })
}

/// Takes a link back, whoever made it; `false` where there is none. After this nothing follows from it.
pub fn unlink(address: &Address) -> Result<bool, Error> {
    asked(&Ask::Unlink { incarnation: address.incarnation.0 }).map(|answer| answer.done)
}

/// From now on the end of a process that this one is linked to does not kill it, but comes as a message,
/// [`Exited`](super::Exited); also a normal end. With `false` it is again as in the beginning.
pub fn trap_exits(on: bool) -> Result<(), Error> {
    asked(&Ask::Trap { on }).map(drop)
}

/// Ends a process by SIGKILL; `false` where it has ended already. Its end is told with the cause `signal_requested`.
pub fn kill(address: &Address) -> Result<bool, Error> {
    let here = shared()?.with(|inside, _| inside.me.realm == address.realm);
    if !here {
        return Ok(false);
    }
    asked(&Ask::Kill { incarnation: address.incarnation.0 }).map(|answer| answer.done)
}
