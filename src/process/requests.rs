//! What processes ask of their hub, and what they are told.

use std::collections::hash_map;
use std::sync::Arc;

use super::hub::Hub;
use super::member::{Instead, Member};
use super::wire::{Answer, Ask, Made, Start, THE_CALL, Told};
use crate::exit::Cause;
use crate::mailbox::Exit;
use crate::message::{
    Address, Down, Exit as Said, Failure, Flags, Frame, Kind, Monitor, Ready, Retry, Socket,
};
use crate::name::{Incarnation, ServiceName};
use crate::os::fds;

/// A refusal.
pub(super) fn failure(code: &str, message: &str) -> Failure {
    let (code, message) = (code.to_owned(), message.to_owned());
    Failure { code, message, data: None, retry: Retry::Never }
}

impl Hub {
    /// A process said something.
    pub(super) fn heard(&mut self, who: u64, frame: Frame) {
        let done = match frame.kind {
            Kind::Hello | Kind::Pong => Ok(()),
            Kind::Ready => frame.read().map(|ready: Ready| self.is_ready(who, ready)),
            Kind::Exit => frame.read().map(|said: Said| {
                self.member(who, |member| member.said = Some(said));
            }),
            Kind::Reply if frame.id == THE_CALL => {
                let value = frame.payload.to_vec();
                self.member(who, |member| member.value = Some(value));
                Ok(())
            }
            Kind::Spawn => frame.read().map(|order: Start| {
                self.member(who, |member| member.order = Some((frame.id, order)));
            }),
            Kind::Data => {
                self.arguments(who, frame);
                Ok(())
            }
            Kind::Monitor => frame.read().map(|wish: Monitor| {
                let target = self.meant(&wish.target);
                let notice = self.lives.monitor(Incarnation(who), frame.id, Incarnation(target));
                self.carry_out_all(notice);
            }),
            Kind::Demonitor => {
                self.lives.demonitor(Incarnation(who), frame.id);
                Ok(())
            }
            Kind::Link => frame.read().map(|wish: Monitor| {
                let target = self.meant(&wish.target);
                let notice = self.lives.link(Incarnation(who), Incarnation(target));
                self.carry_out_all(notice);
            }),
            Kind::Peer => frame.read().map(|wish: Socket| self.connect(who, wish.incarnation)),
            Kind::Call => frame.read().map(|ask: Ask| self.asked(who, frame.id, ask)),
            Kind::Ping => {
                self.tell(who, &Frame::new(Kind::Pong, frame.id, ""), Vec::new());
                Ok(())
            }
            other => {
                let refusal = Failure::not_supported(other);
                self.tell(who, &Frame::failure(frame.id, &refusal), Vec::new());
                Ok(())
            }
        };
        if let Err(bad) = done {
            self.broke(who, format!("cannot {bad}"));
        }
    }

    fn member(&mut self, who: u64, change: impl FnOnce(&mut Member)) {
        self.members.get_mut(&who).map(change);
    }

    /// Who is meant; 0, which is nobody, where the name is not known.
    fn meant(&self, address: &Address) -> u64 {
        match address {
            Address::Incarnation(who) => *who,
            Address::Name(name) => self.names.get(name).copied().unwrap_or(0),
        }
    }

    /// The arguments for the process that was ordered before.
    fn arguments(&mut self, who: u64, frame: Frame) {
        let Some(member) = self.members.get_mut(&who) else { return };
        // What somebody orders and does not live to see is not made.
        let dead = member.child.as_ref().is_some_and(|child| {
            crate::os::wait::peek(std::os::fd::AsFd::as_fd(&child.pidfd))
                .is_ok_and(|end| end.is_some())
        });
        match member.order.take() {
            Some((id, order)) if id == frame.id && !dead => self.spawn(who, id, order, frame),
            _ => {}
        }
    }

    /// A process runs its function, or never will.
    fn is_ready(&mut self, who: u64, ready: Ready) {
        let Some(member) = self.members.get_mut(&who) else { return };
        if let Some(why) = ready.failed {
            member.instead.get_or_insert(Instead::Refused(why));
            return;
        }
        let Some(birth) = member.birth.take() else { return };
        let (parent, child) = (Incarnation(birth.parent), Incarnation(who));
        // All in one turn: nothing can happen to it in between that would go untold.
        let mut notices = Vec::new();
        if birth.order.monitor {
            notices.extend(self.lives.monitor(parent, birth.id, child));
        }
        if birth.order.link && self.lives.lives(parent) {
            notices.extend(self.lives.link(parent, child));
        } else if birth.order.link {
            // Who wanted to share its life is gone already.
            notices.extend(self.lives.link(child, parent));
        }
        let made = Frame::control(Kind::Reply, birth.id, &Made { incarnation: who });
        self.tell(birth.parent, &made, Vec::new());
        self.carry_out_all(notices);
    }

    /// A process that was ordered ended before it ran its function.
    pub(super) fn unborn(&mut self, parent: u64, id: u64, exit: &Arc<Exit>) {
        let mut refusal = failure("spawn_failed", &exit.to_string());
        refusal.data = serde_json::to_value(&**exit).ok().map(Box::new);
        self.tell(parent, &Frame::failure(id, &refusal), Vec::new());
    }

    /// Gives two processes a socket between them.
    fn connect(&mut self, who: u64, target: u64) {
        let Some(member) = self.members.get(&who) else { return };
        if member.peers.contains(&target) {
            // It is on its way: both asked.
            return;
        }
        if who == target || !self.lives.lives(Incarnation(target)) {
            let end = self.lives.end(Incarnation(target)).cloned();
            return self.tell_end(who, 0, target, end.as_deref(), true, false);
        }
        let Ok((one, other)) = fds::stream_pair() else {
            // Out of descriptors: nothing is known to have ended, and nothing can be sent.
            let exit = Exit {
                message: Some("there is no descriptor left for a socket to it".to_owned()),
                ..Exit::unknown()
            };
            return self.tell_end(who, 0, target, Some(&exit), true, false);
        };
        for (to, peer, socket) in [(target, who, one), (who, target, other)] {
            self.member(to, |member| {
                member.peers.insert(peer);
            });
            let frame =
                Frame::control(Kind::Peer, 0, &Socket { incarnation: peer }).with(Flags::FDS);
            self.tell(to, &frame, vec![socket]);
        }
    }

    /// Tells those who have a socket to somebody that it has ended.
    pub(super) fn part(&mut self, who: u64, member: &Member, exit: &Arc<Exit>) {
        for peer in &member.peers {
            self.member(*peer, |other| {
                other.peers.remove(&who);
            });
            self.tell_end(*peer, 0, who, Some(exit), false, false);
        }
    }

    /// Tells somebody of an end.
    pub(super) fn tell_end(
        &mut self,
        to: u64,
        id: u64,
        who: u64,
        end: Option<&Exit>,
        late: bool,
        linked: bool,
    ) {
        let exit = end.cloned().unwrap_or_else(Exit::unknown);
        let down = Down {
            target: Address::Incarnation(who),
            incarnation: who,
            reason: exit.reason,
            cause: exit.cause,
            msg: format!("process {who} {exit}"),
            late,
            is_final: true,
        };
        self.tell(to, &Frame::control(Kind::Down, id, &Told { down, exit, linked }), Vec::new());
    }

    /// A process asked for something.
    fn asked(&mut self, who: u64, id: u64, ask: Ask) {
        let plain = |done| Answer { incarnation: None, done };
        let answer = match ask {
            Ask::Register { name, incarnation } => match self.register(name, incarnation) {
                Ok(()) => plain(true),
                Err(why) => {
                    let refusal = Frame::failure(id, &failure("bad_request", &why));
                    return self.tell(who, &refusal, Vec::new());
                }
            },
            Ask::Unregister { name } => plain(self.names.remove(&name).is_some()),
            Ask::Whereis { name } => {
                let incarnation = self.names.get(&name).copied();
                Answer { incarnation, done: incarnation.is_some() }
            }
            Ask::Trap { on } => {
                self.lives.trap(Incarnation(who), on);
                plain(true)
            }
            Ask::Unlink { incarnation } => {
                plain(self.lives.unlink(Incarnation(who), Incarnation(incarnation)))
            }
            Ask::Kill { incarnation } => {
                let lives = self.lives.lives(Incarnation(incarnation));
                if lives {
                    self.kill(incarnation, Cause::SignalRequested);
                }
                plain(lives)
            }
        };
        self.tell(who, &Frame::control(Kind::Reply, id, &answer), Vec::new());
    }

    fn register(&mut self, name: String, who: u64) -> Result<(), String> {
        ServiceName::new(&name).map_err(|error| format!("take the name {name:?}: {error}"))?;
        if !self.lives.lives(Incarnation(who)) {
            return Err(format!("give {name:?} to a process that is not there"));
        }
        match self.names.entry(name) {
            hash_map::Entry::Vacant(free) => {
                free.insert(who);
                Ok(())
            }
            hash_map::Entry::Occupied(taken) if *taken.get() == who => Ok(()),
            hash_map::Entry::Occupied(taken) => {
                Err(format!("take the name {:?}: process {} has it", taken.key(), taken.get()))
            }
        }
    }
}
