//! The inside of a native process: its sockets and its mailbox, and what is done when something has come.
//!
//! There is no thread of ours in here, and nothing here waits: whoever wants something lets [`Inside`] take its
//! turns meanwhile (`shared.rs`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use super::channel::{Came, Channel};
use super::error::Error;
use super::events::{Down, Exited};
use super::value::{pack, tag};
use super::wire::Told;
use crate::mailbox::{Exit, Mailbox, Mark, Slots, Taken, Window};
use crate::message::{Credit, Frame, Kind, MAX_FRAME, Socket};
use crate::name::{Address, Incarnation};
use crate::os::epoll::{Interest, Poller, Ready};

/// The token of the hub's channel; those of others are their incarnations, from 1.
pub(super) const HUB: u64 = 0;
/// One read.
const READ: usize = 64 << 10;
/// So many reads of one socket in a turn.
const READS: usize = 4;
/// So many of the dead are remembered, so that what is sent to them goes nowhere without asking.
const DEAD: usize = 1024;

/// A message that waits.
#[derive(Debug)]
pub(super) struct Letter {
    /// Who sent it: an incarnation, or 0 for the hub.
    pub(super) from: u64,
    /// What it is; 0 where the sender did not say.
    pub(super) tag: u64,
    pub(super) payload: Bytes,
    /// The monitor that it belongs to, or 0.
    pub(super) monitor: u64,
}

impl Letter {
    /// What it counts for: its bytes and what surrounds them.
    fn size(payload: &Bytes) -> usize {
        payload.len() + 64
    }
}

/// Somebody to whom there is a socket, or will be one.
#[derive(Debug)]
enum Other {
    /// The hub has been asked.
    Asked,
    /// There it is.
    Open(Box<Open>),
}

#[derive(Debug)]
struct Open {
    channel: Channel,
    /// Whether it is watched for room too.
    writing: bool,
    window: Window,
    taken: Taken,
}

/// How sending went.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on its way.
    Done,
    /// There is nobody any more.
    Dead(Arc<Exit>),
}

/// All that a process knows.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) me: Address,
    hub: Channel,
    hub_writing: bool,
    pub(super) hub_gone: bool,
    others: HashMap<u64, Other>,
    dead: VecDeque<(u64, Arc<Exit>)>,
    pub(super) mailbox: Mailbox<Letter>,
    /// How far each type has been looked for, by its tag.
    pub(super) marks: HashMap<u64, Mark>,
    pub(super) slots: Slots<Bytes, Arc<Exit>>,
    /// What it has sent to itself and not taken.
    own: (Window, Taken),
    /// Monitors that have not been told.
    pub(super) monitors: HashSet<u64>,
    /// What the hub was asked, and its answers.
    asked: HashMap<u64, Option<Frame>>,
    next: u64,
    buffer: Vec<u8>,
    /// Where the one who waits is told what is ready; taken while somebody does.
    pub(super) ready: Option<Ready>,
    /// How many wait for that one.
    pub(super) followers: usize,
    /// How often anything was read, and the tasks that wait for the next time.
    pub(super) turns: u64,
    wakers: Vec<Waker>,
}

impl Inside {
    /// Nothing was said yet.
    pub(super) fn new(me: Address, hub: Channel) -> Self {
        Self {
            me,
            hub,
            hub_writing: false,
            hub_gone: false,
            others: HashMap::new(),
            dead: VecDeque::new(),
            mailbox: Mailbox::new(),
            marks: HashMap::new(),
            slots: Slots::new(),
            own: (Window::default(), Taken::default()),
            monitors: HashSet::new(),
            asked: HashMap::new(),
            next: super::wire::THE_CALL,
            buffer: vec![0; READ],
            ready: Some(Ready::new(64)),
            followers: 0,
            turns: 0,
            wakers: Vec::new(),
        }
    }

    /// A number that was not used before in this process.
    pub(super) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the next turn with all that is ready.
    pub(super) fn turn(&mut self, ready: &Ready, poller: &Poller) {
        for token in ready.tokens() {
            if token == HUB {
                self.hear_hub(poller);
            } else {
                self.hear(token, poller);
            }
        }
        self.turns += 1;
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Has a task woken by the next turn after `turns`; `false` where that is over.
    pub(super) fn wake_after(&mut self, turns: u64, waker: &Waker) -> bool {
        if self.turns == turns && !self.wakers.iter().any(|other| other.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
        self.turns == turns
    }

    /// Whether there is no hub any more.
    pub(super) fn is_alone(&self) -> bool {
        self.hub_gone
    }

    /// Says farewell to the hub: nothing more comes from this process.
    pub(super) fn close_hub(&mut self) {
        self.hub.shut();
    }

    /// Sends a frame to the hub; what there is no room for follows.
    pub(super) fn tell_hub(&mut self, frame: &Frame, poller: &Poller) -> Result<(), Error> {
        self.hub.queue(frame, Vec::new()).map_err(too_large)?;
        self.flush_hub(poller);
        Ok(())
    }

    fn flush_hub(&mut self, poller: &Poller) {
        self.hub.flush();
        let writing = self.hub.waiting() > 0;
        if writing != self.hub_writing && !self.hub_gone {
            let interest = if writing { Interest::Both } else { Interest::Read };
            let _ = poller.change(self.hub.as_fd(), HUB, interest);
            self.hub_writing = writing;
        }
    }

    /// Asks the hub for something; the number under which the answer will be found.
    pub(super) fn ask_hub(&mut self, frame: &Frame, poller: &Poller) -> Result<u64, Error> {
        self.tell_hub(frame, poller)?;
        self.asked.insert(frame.id, None);
        Ok(frame.id)
    }

    /// The hub's answer, once it is there.
    pub(super) fn answer(&mut self, id: u64) -> Option<Frame> {
        self.asked.get(&id)?.as_ref()?;
        self.asked.remove(&id)?
    }

    fn hear_hub(&mut self, poller: &Poller) {
        self.flush_hub(poller);
        for _ in 0..READS {
            let mut frames = Vec::new();
            let came = self.hub.read(&mut self.buffer, |frame| frames.push(frame));
            for frame in frames {
                self.hear_word(frame, poller);
            }
            match came {
                Ok(Came::Bytes(READ)) => {}
                Ok(Came::Bytes(_) | Came::Nothing) => return,
                Ok(Came::End) | Err(_) => {
                    self.hub_gone = true;
                    let _ = poller.remove(self.hub.as_fd());
                    return;
                }
            }
        }
    }

    pub(super) fn hear_word(&mut self, frame: Frame, poller: &Poller) {
        match frame.kind {
            Kind::Peer => {
                let Ok(Socket { incarnation }) = frame.read() else { return };
                match self.hub.descriptor() {
                    Some(socket) => self.meet(incarnation, socket, poller),
                    None => self.cannot_meet(incarnation, poller),
                }
            }
            Kind::Down => {
                let Ok(told) = frame.read::<Told>() else { return };
                self.told(frame.id, told, poller);
            }
            Kind::Reply | Kind::Error => {
                if let Some(answer) = self.asked.get_mut(&frame.id) {
                    *answer = Some(frame);
                }
            }
            Kind::Ping => {
                let _ = self.tell_hub(&Frame::new(Kind::Pong, frame.id, ""), poller);
            }
            // Nothing else comes from a hub of this version.
            _ => {}
        }
    }

    /// There is a socket to somebody.
    fn meet(&mut self, who: u64, socket: OwnedFd, poller: &Poller) {
        let channel = Channel::new(socket);
        if poller.add(channel.as_fd(), who, Interest::Read).is_err() {
            return self.cannot_meet(who, poller);
        }
        let (window, taken) = (Window::default(), Taken::default());
        let open = Open { channel, writing: false, window, taken };
        self.others.insert(who, Other::Open(Box::new(open)));
    }

    /// There was no room for the descriptor of a socket to somebody: to this process that one is gone.
    fn cannot_meet(&mut self, who: u64, poller: &Poller) {
        let message = Some("there is no descriptor left for a socket to it".to_owned());
        self.gone(who, &Arc::new(Exit { message, ..Exit::unknown() }), poller);
    }

    /// Somebody has ended.
    fn told(&mut self, id: u64, told: Told, poller: &Poller) {
        let Told { down, exit, linked } = told;
        let address = Address::new(self.me.realm, Incarnation(down.incarnation));
        if id != 0 {
            if self.monitors.remove(&id) {
                let late = down.late;
                self.notice(&Down { monitor: id, address, exit, late }, id);
            }
        } else if linked {
            self.notice(&Exited { address, exit }, 0);
        } else {
            self.gone(down.incarnation, &Arc::new(exit), poller);
        }
    }

    /// A message from the hub, which is one like any other.
    fn notice<T: serde::Serialize>(&mut self, value: &T, monitor: u64) {
        // What came as JSON can be written as MessagePack.
        let Ok(payload) = pack(value) else { return };
        self.accept(0, tag::<T>(), payload.into(), monitor);
    }

    fn accept(&mut self, from: u64, tag: u64, payload: Bytes, monitor: u64) {
        let size = Letter::size(&payload);
        self.mailbox.push(Letter { from, tag, payload, monitor }, size);
    }

    /// Somebody to whom there is a socket has ended: what it had sent is taken, as much as there is now.
    fn gone(&mut self, who: u64, exit: &Arc<Exit>, poller: &Poller) {
        if let Some(Other::Open(open)) = self.others.get(&who) {
            let mut left = open.channel.unread();
            while left > 0 {
                match self.read(who) {
                    Came::Bytes(count) => left = left.saturating_sub(count),
                    Came::Nothing | Came::End => break,
                }
            }
        }
        self.leave(who, poller);
        self.slots.ended(Incarnation(who), exit);
        if self.known_dead(who).is_none() {
            self.dead.push_back((who, Arc::clone(exit)));
            if self.dead.len() > DEAD {
                self.dead.pop_front();
            }
        }
    }

    /// How somebody ended of whom that is known here.
    fn known_dead(&self, who: u64) -> Option<Arc<Exit>> {
        self.dead.iter().find(|(dead, _)| *dead == who).map(|(_, exit)| Arc::clone(exit))
    }

    fn leave(&mut self, who: u64, poller: &Poller) {
        if let Some(Other::Open(open)) = self.others.remove(&who) {
            let _ = poller.remove(open.channel.as_fd());
        }
    }

    /// There is something to read from somebody, or room to write.
    fn hear(&mut self, who: u64, poller: &Poller) {
        self.flush(who, poller);
        for _ in 0..READS {
            match self.read(who) {
                Came::Bytes(READ) => {}
                Came::Bytes(_) | Came::Nothing => return,
                Came::End => {
                    // The hub will say why. Until then it must not be told again and again.
                    if let Some(Other::Open(open)) = self.others.get(&who) {
                        let _ = poller.remove(open.channel.as_fd());
                    }
                    return;
                }
            }
        }
    }

    /// Reads once what somebody has sent.
    fn read(&mut self, who: u64) -> Came {
        let Some(Other::Open(open)) = self.others.get_mut(&who) else { return Came::Nothing };
        let mut frames = Vec::new();
        let came = open.channel.read(&mut self.buffer, |frame| frames.push(frame));
        for frame in frames {
            match frame.kind {
                Kind::Data => self.accept(who, frame.id, frame.payload, 0),
                // A reply for nobody came too late.
                Kind::Reply => {
                    self.slots.fill(frame.id, frame.payload);
                }
                Kind::Credit => {
                    let credit: Result<Credit, _> = frame.read();
                    if let (Ok(Credit { bytes: Some(bytes), .. }), Some(Other::Open(open))) =
                        (credit, self.others.get_mut(&who))
                    {
                        open.window.credit(bytes);
                    }
                }
                // Nothing else is said between processes in this version.
                _ => {}
            }
        }
        // What is no protocol is not read on; the bytes that follow have no meaning.
        came.unwrap_or(Came::End)
    }

    fn flush(&mut self, who: u64, poller: &Poller) {
        let Some(Other::Open(open)) = self.others.get_mut(&who) else { return };
        open.channel.flush();
        let writing = open.channel.waiting() > 0;
        if writing != open.writing {
            let interest = if writing { Interest::Both } else { Interest::Read };
            let _ = poller.change(open.channel.as_fd(), who, interest);
            open.writing = writing;
        }
    }

    /// Sends a frame to somebody, DATA for the mailbox or REPLY for a slot. `None`: there is no room yet, or
    /// no socket; nothing of it was sent.
    pub(super) fn send(
        &mut self,
        to: Address,
        frame: &Frame,
        poller: &Poller,
    ) -> Option<Result<Sent, Error>> {
        let who = to.incarnation.0;
        if to.realm != self.me.realm || to.node != self.me.node {
            return Some(Ok(Sent::Dead(Arc::new(Exit::unknown()))));
        }
        if who == self.me.incarnation.0 {
            return self.send_own(frame);
        }
        let Some(other) = self.others.get_mut(&who) else {
            if let Some(exit) = self.known_dead(who) {
                return Some(Ok(Sent::Dead(exit)));
            }
            self.others.insert(who, Other::Asked);
            let wish = Frame::control(Kind::Peer, 0, &Socket { incarnation: who });
            return self.tell_hub(&wish, poller).err().map(Err);
        };
        let Other::Open(open) = other else { return None };
        let counted = frame.kind == Kind::Data;
        if counted && !open.window.is_open() || open.channel.waiting() > 0 {
            return None;
        }
        if let Err(error) = open.channel.queue(frame, Vec::new()) {
            return Some(Err(too_large(error)));
        }
        if counted {
            open.window.sent(count(Letter::size(&frame.payload)));
        }
        self.flush(who, poller);
        Some(Ok(Sent::Done))
    }

    fn send_own(&mut self, frame: &Frame) -> Option<Result<Sent, Error>> {
        if frame.kind == Kind::Reply {
            self.slots.fill(frame.id, frame.payload.clone());
        } else if self.own.0.is_open() {
            self.own.0.sent(count(Letter::size(&frame.payload)));
            self.accept(self.me.incarnation.0, frame.id, frame.payload.clone(), 0);
        } else {
            return None;
        }
        Some(Ok(Sent::Done))
    }

    /// Whether all that was sent to somebody has left this process.
    pub(super) fn has_left(&self, to: Address) -> bool {
        match self.others.get(&to.incarnation.0) {
            Some(Other::Open(open)) => open.channel.waiting() == 0,
            Some(Other::Asked) | None => true,
        }
    }

    /// Whether everything that was sent has left this process.
    pub(super) fn all_left(&self) -> bool {
        let left = |other: &Other| match other {
            Other::Open(open) => open.channel.waiting() == 0,
            Other::Asked => true,
        };
        self.hub.waiting() == 0 && self.others.values().all(left)
    }

    /// A letter was taken out: its sender may send more.
    pub(super) fn taken(&mut self, letter: &Letter, poller: &Poller) {
        let bytes = count(Letter::size(&letter.payload));
        if letter.from == self.me.incarnation.0 {
            if let Some(told) = self.own.1.took(bytes) {
                self.own.0.credit(told);
            }
            return;
        }
        let Some(Other::Open(open)) = self.others.get_mut(&letter.from) else { return };
        let Some(bytes) = open.taken.took(bytes) else { return };
        let credit = Frame::control(Kind::Credit, 0, &Credit { frames: 0, bytes: Some(bytes) });
        // It is small, and a peer that reads none of it is at its own loss.
        let _ = open.channel.queue(&credit, Vec::new());
        self.flush(letter.from, poller);
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

pub(super) fn too_large(error: crate::message::EncodeError) -> Error {
    match error {
        crate::message::EncodeError::TooLarge { size, max } => Error::TooLarge { size, max },
        crate::message::EncodeError::Misfit { what } => Error::Encode(what),
    }
}

/// Whether there is room for this in one frame.
pub(super) fn fits(payload: &[u8]) -> Result<(), Error> {
    fits_into(payload, MAX_FRAME)
}

/// Whether there is room for this in one frame as text too, as a result is told.
pub(super) fn fits_twice(payload: &[u8]) -> Result<(), Error> {
    fits_into(payload, MAX_FRAME / 4 * 3 - (64 << 10))
}

fn fits_into(payload: &[u8], max: u64) -> Result<(), Error> {
    let size = count(payload.len());
    if size <= max { Ok(()) } else { Err(Error::TooLarge { size, max }) }
}
