//! Whether a run that outlived its manager can be gone on with, and how it is taken over.
//!
//! Its process always can: what may be lost is its conversation. The dead manager may have read half
//! a message, written half a request, or have been owed a reply that nobody will know any more.

use std::sync::Arc;

use crate::event::{Alive, Reread};
use crate::exit::Cause;
use crate::name::Requester;
use crate::spec::{Banner, Framing, Port, Ready, Replies};

use super::ladder::{After, Ending};
use super::machine::Phase::{Running, Starting};
use super::machine::{Context, Input, Run};
use super::memo::Memo;
use super::replica::Replica;

/// Where a conversation with a program stood when its manager died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conversation {
    /// Part of a message had been read, or nobody knows that none had.
    pub in_message: bool,
    /// Part of a message had been written to it, or nobody knows that none had.
    pub in_request: bool,
    /// It owed replies.
    pub owes: bool,
}

/// How a conversation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// With the next byte.
    Here,
    /// With what comes after the next byte of this value.
    After(u8),
}

/// What becomes of a kept service's runs when the manager dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They go on, whatever was under way.
    GoesOn,
    /// They go on, but for one to which a message was being written: that is ended and begun anew.
    UnlessWriting,
    /// They go on unless a message or a call was under way, for this reason.
    UnlessSpeaking(&'static str),
    /// They are ended and begun anew, for this reason.
    BegunAnew(&'static str),
}

/// Why no conversation of this kind can be entered in the middle.
fn hopeless(port: &Port) -> Option<&'static str> {
    if port.handshake.is_some() {
        return Some("a handshake is made once a run, and the next manager does not know it");
    }
    if let (Replies::Sections { .. }, Ready::Exchange { .. }, Banner::None) =
        (&port.replies, &port.ready, &port.banner)
    {
        return Some(
            "its clients are answered what it said once, and the next manager does not know it",
        );
    }
    match &port.framing {
        Framing::Envelope => Some("wire protocol 1 is agreed on once a run"),
        Framing::Eof => Some("its whole output is one message"),
        Framing::Prompt(_) => Some("framing prompt cannot be entered in the middle"),
        Framing::Stanza => Some("framing stanza cannot be entered in the middle"),
        Framing::Lines
        | Framing::Nul
        | Framing::Packet(_)
        | Framing::Counted { .. }
        | Framing::Netstring
        | Framing::PktLine
        | Framing::ContentLength
        | Framing::Json
        | Framing::Msgpack
        | Framing::Raw => None,
    }
}

/// The byte after which a message begins, where there is such a byte.
fn delimiter(framing: &Framing) -> Option<Resume> {
    match framing {
        Framing::Lines => Some(Resume::After(b'\n')),
        Framing::Nul => Some(Resume::After(0)),
        Framing::Raw => Some(Resume::Here),
        Framing::Packet(_)
        | Framing::Counted { .. }
        | Framing::Netstring
        | Framing::PktLine
        | Framing::ContentLength
        | Framing::Json
        | Framing::Msgpack
        | Framing::Stanza
        | Framing::Prompt(_)
        | Framing::Eof
        | Framing::Envelope => None,
    }
}

/// Whether a late reply could be taken for another's.
fn in_order(replies: &Replies) -> bool {
    match replies {
        Replies::None | Replies::Id(_) | Replies::Prefix { .. } => false,
        Replies::One
        | Replies::Until(_)
        | Replies::Sentinel { .. }
        | Replies::Bracket { .. }
        | Replies::Sections { .. }
        | Replies::Envelope => true,
    }
}

const NO_DELIMITER: &str = "nothing in its framing shows where the next message begins";
const NO_IDS: &str = "its replies do not say whose they are";

/// How the conversation with a run of this port goes on after its manager died; an error says why it
/// cannot. `ready` says whether the program had become ready.
pub fn resume(
    port: Option<&Port>,
    ready: bool,
    left: Conversation,
) -> Result<Resume, &'static str> {
    let Some(port) = port else { return Ok(Resume::Here) };
    if let Some(why) = hopeless(port) {
        return Err(why);
    }
    if !ready && port.ready != Ready::Started {
        return Err("it was not ready, and what it had said of that is not known");
    }
    if left.in_request {
        return Err("a message had been written to it in part");
    }
    if left.owes && in_order(&port.replies) {
        return Err(NO_IDS);
    }
    if left.in_message { delimiter(&port.framing).ok_or(NO_DELIMITER) } else { Ok(Resume::Here) }
}

/// What becomes of runs of a kept service with this port when the manager dies.
pub fn fate(port: Option<&Port>) -> Fate {
    let Some(port) = port else { return Fate::GoesOn };
    if let Some(why) = hopeless(port) {
        return Fate::BegunAnew(why);
    }
    if delimiter(&port.framing).is_none() {
        return Fate::UnlessSpeaking(NO_DELIMITER);
    }
    if in_order(&port.replies) { Fate::UnlessSpeaking(NO_IDS) } else { Fate::UnlessWriting }
}

impl Replica {
    /// What a run of an earlier life is to be told when everything else is known: that what its program reads
    /// may have changed unseen.
    pub(super) fn missed_news(&self, by: &Requester) -> Option<Box<Reread>> {
        let signal = self.service.reload_signal?.0;
        Some(Box::new(Reread { signal, by: by.clone(), files: Vec::new() }))
    }

    /// A run of an earlier life is still there: it is taken over as it is. One that cannot be spoken
    /// to any more is ended, and so is one that is to be down by now. Where it was being ended, that goes on
    /// from the step that it had come to.
    pub(super) fn take_over_run(&mut self, cx: &mut Context<'_>, alive: &Alive, by: &Requester) {
        let Alive { incarnation, started, ready, in_step, .. } = *alive;
        if let Some(own) = &alive.service {
            let present = std::mem::replace(&mut self.service, Arc::clone(own));
            self.next = (!Arc::ptr_eq(&present, own)).then_some(present);
        }
        let run =
            Run { spawned: true, started: Some(started), ready, ..Run::ordered(incarnation, 0) };
        let memo = alive.memo.as_ref().and_then(|(text, done)| Some((Memo::read(text)?, *done)));
        self.machine.since = cx.now;
        let run = match memo {
            Some((memo, done)) => self.recall(cx, run, &memo, done),
            None => Some(run),
        };
        let Some(run) = run else { return };
        self.machine.phase = if !in_step {
            let after = if self.is_wanted() { After::Again } else { After::Rest };
            self.stop(cx, run, Ending::of_nobody(Cause::ManagerDied, cx.now, after))
        } else if !self.is_wanted() {
            // It is asked to end at once, and nothing more of it is looked at.
            if ready.is_some() { Running(run) } else { Starting(run) }
        } else if ready.is_some() {
            self.running(cx, run)
        } else if self.service.ready.is_some() {
            self.readying(cx, run)
        } else {
            self.machine.deadline = Some(started + self.service.start_timeout);
            Starting(run)
        };
        if !self.is_wanted() && self.held().is_none() {
            self.step(cx, Input::Stop(by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::PacketWidth;

    fn port(framing: Framing, replies: Replies) -> Port {
        Port { framing, replies, ..Port::default() }
    }

    #[test]
    fn who_can_be_spoken_to_after_the_death_of_a_manager() {
        let at_rest = Conversation::default();
        let message = Conversation { in_message: true, ..at_rest };
        let request = Conversation { in_request: true, ..at_rest };
        let owes = Conversation { owes: true, ..at_rest };
        let lines = || Framing::Lines;
        let packets = || Framing::Packet(PacketWidth::Four);
        let newline = Ok(Resume::After(b'\n'));
        for (framing, replies, left, expected) in [
            (lines(), Replies::None, at_rest, Ok(Resume::Here)),
            (lines(), Replies::None, message, newline),
            (Framing::Nul, Replies::One, message, Ok(Resume::After(0))),
            (Framing::Raw, Replies::None, message, Ok(Resume::Here)),
            (lines(), Replies::None, owes, Ok(Resume::Here)),
            (lines(), Replies::One, at_rest, Ok(Resume::Here)),
            (lines(), Replies::One, owes, Err(NO_IDS)),
            (packets(), Replies::None, at_rest, Ok(Resume::Here)),
            (packets(), Replies::None, message, Err(NO_DELIMITER)),
            (lines(), Replies::None, request, Err("a message had been written to it in part")),
        ] {
            let port = port(framing, replies);
            assert_eq!(resume(Some(&port), true, left), expected, "{port:?} {left:?}");
        }
        assert_eq!(resume(None, false, message), Ok(Resume::Here));
        let envelope = port(Framing::Envelope, Replies::Envelope);
        assert!(resume(Some(&envelope), true, at_rest).is_err());
        let sections = || Replies::Sections { longer: Vec::new(), error: None };
        let ready = Ready::Exchange { send: "0004".into(), expect: "x".into() };
        let plain = port(Framing::PktLine, sections());
        assert_eq!(resume(Some(&plain), true, at_rest), Ok(Resume::Here));
        assert_eq!(resume(Some(&plain), true, owes), Err(NO_IDS));
        let welcomes = Port { ready, ..port(Framing::PktLine, sections()) };
        assert!(resume(Some(&welcomes), true, at_rest).is_err());
        let greets = Port { ready: Ready::FirstMessage, ..port(lines(), Replies::None) };
        assert!(resume(Some(&greets), false, at_rest).is_err());
        assert!(resume(Some(&greets), true, at_rest).is_ok());
    }

    #[test]
    fn what_is_promised_beforehand_holds() {
        assert_eq!(fate(None), Fate::GoesOn);
        assert_eq!(fate(Some(&port(Framing::Lines, Replies::None))), Fate::UnlessWriting);
        let one = port(Framing::Lines, Replies::One);
        assert_eq!(fate(Some(&one)), Fate::UnlessSpeaking(NO_IDS));
        let packets = port(Framing::Packet(PacketWidth::Four), Replies::None);
        assert_eq!(fate(Some(&packets)), Fate::UnlessSpeaking(NO_DELIMITER));
        let eof = port(Framing::Eof, Replies::One);
        assert!(matches!(fate(Some(&eof)), Fate::BegunAnew(_)));
    }
}
