//! Clients that speak wire protocol 1 with the loop itself, over connections that the API has handed
//! on: no other thread stands between them and a program.
//!
//! A guest is read while little waits to be written to it, so that who does not read what it asked
//! for asks no more. What it does wrong ends the guest with a word about it, and nothing else.

mod monitor;
mod obey;
mod outbox;
mod stream;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::message::{
    Decoder, Failure, Form, Frame, FrameError, Kind as FrameKind, Missed, Mode, Read, Retry,
};
use crate::name::{Incarnation, ReplicaId, Requester};
use crate::os::epoll::Interest;
use crate::os::fds;

use self::monitor::Recalled;
use self::outbox::Outbox;
use self::stream::{Stream, Told};
use self::wait::Backlog;
use super::control::Control;

/// While more than this waits to be written to a client, it is not read, in bytes.
const UNREAD: usize = 256 << 10;
/// While more than this waits to be written to a client, what it listens to waits too, in bytes. So
/// a reply is never behind more than this.
const AHEAD: usize = 64 << 10;
/// The most that replies may hold for a client that does not read, in bytes; the next ones fail.
const REPLIES: usize = 64 << 20;
/// The most that replies may hold for all clients together that do not read, in bytes; then the next
/// ones fail of those for whom more than a little waits.
const ALL_REPLIES: usize = 256 << 20;

/// Marks the tokens of guests among those of runs.
pub(super) const TOKEN: u64 = 1 << 62;

/// A connection that was handed on.
#[derive(Debug)]
pub struct Joining {
    /// The connection.
    pub socket: OwnedFd,
    /// What came behind the request already.
    pub received: Bytes,
    /// Who it is.
    pub by: Requester,
    /// The number of the connection; messages of different ones are served in turn.
    pub client: u64,
    /// Its place among so many.
    pub place: OwnedSemaphorePermit,
}

/// One client.
pub(super) struct Guest {
    socket: OwnedFd,
    /// Whose messages take turns with those of others.
    client: u64,
    by: Requester,
    /// The largest payload that is taken from it, in bytes.
    largest: u64,
    decoder: Decoder,
    /// How frames are written to it.
    form: Form,
    outbox: Outbox,
    /// Whether it has said hello, so that it may say more.
    greeted: bool,
    /// How many messages it takes on each channel from the beginning.
    credit: Option<u32>,
    /// Its open calls: its id, ours.
    calls: HashMap<u64, u64>,
    /// What it listens to, by its monitor's id.
    streams: BTreeMap<u64, Stream>,
    /// The ends that it waits for without listening: the monitor's id, the run.
    monitors: HashMap<u64, Option<Incarnation>>,
    /// What waits for room.
    backlog: Backlog,
    /// What its socket is watched for.
    watched: Interest,
    /// Whether it ends with what is on its way.
    leaving: bool,
    /// Whether it is in the list of those that have something to write.
    is_due: bool,
    /// Given back at its end.
    _place: OwnedSemaphorePermit,
}

/// All guests, and who of them waits for what.
pub(super) struct Guests {
    all: HashMap<u64, Box<Guest>>,
    last: u64,
    /// Those that have something to write.
    due: Vec<u64>,
    /// Who listens to a replica: guests with the ids of their monitors.
    listeners: HashMap<ReplicaId, Vec<(u64, u64)>>,
    /// How many streams that are, of all clients.
    streams: usize,
    /// Who waits for the end of a run without listening.
    watchers: HashMap<Incarnation, Vec<(u64, u64)>>,
    /// Runs whose input has something to be written, once the frames of a read are all obeyed.
    pub(super) unwritten: Vec<Incarnation>,
    /// Those whose messages wait for room.
    stalled: Vec<u64>,
    /// How many look-ups of old records are under way.
    looking: usize,
    /// What they found.
    recalled: (Sender<Recalled>, Receiver<Recalled>),
}

impl Guests {
    pub(super) fn new() -> Self {
        Self {
            all: HashMap::new(),
            last: 0,
            due: Vec::new(),
            listeners: HashMap::new(),
            streams: 0,
            watchers: HashMap::new(),
            unwritten: Vec::new(),
            stalled: Vec::new(),
            looking: 0,
            recalled: channel(),
        }
    }

    /// Whether anybody listens to a replica; where somebody does, whether one of them has room.
    pub(super) fn room(&self, replica: &ReplicaId) -> Option<bool> {
        if self.listeners.is_empty() {
            return None;
        }
        let listeners = self.listeners.get(replica)?;
        let room = |(guest, id): &(u64, u64)| {
            let stream = self.all.get(guest).and_then(|guest| guest.streams.get(id));
            stream.is_some_and(Stream::has_room)
        };
        Some(listeners.iter().any(room))
    }

    /// Whether so much waits for a client to read that its next reply is dropped; how much that is.
    fn is_sated(&self, key: u64) -> Option<usize> {
        let waits = self.all.get(&key)?.outbox.len();
        if waits > REPLIES {
            return Some(waits);
        }
        let all = || self.all.values().map(|guest| guest.outbox.len()).sum::<usize>();
        (waits > UNREAD && all() > ALL_REPLIES).then_some(waits)
    }

    /// Puts a frame on its way to a client that may be gone.
    fn say(&mut self, key: u64, frame: &Frame) {
        let Some(guest) = self.all.get_mut(&key) else { return };
        guest.say(frame);
        if !guest.is_due {
            guest.is_due = true;
            self.due.push(key);
        }
    }

    /// Has what waits for a client written at the end of the turn.
    fn have_written(&mut self, key: u64) {
        if let Some(guest) = self.all.get_mut(&key)
            && !guest.is_due
        {
            guest.is_due = true;
            self.due.push(key);
        }
    }
}

impl Guest {
    /// Puts a frame on its way, behind what the client was told before as far as there is room.
    fn say(&mut self, frame: &Frame) {
        if !self.leaving {
            self.pump();
            put(&mut self.outbox, &self.form, frame);
        }
    }

    /// Moves what it listens to behind what is on its way, as far as there is room: a frame of each
    /// channel in turn.
    fn pump(&mut self) {
        let Self { streams, outbox, form, .. } = self;
        let mut moved = true;
        while moved && outbox.len() < AHEAD {
            moved = false;
            for (id, stream) in streams.iter_mut() {
                let Some(told) = stream.next() else { continue };
                moved = true;
                let frame = match told {
                    Told::Message(bytes) => Frame::new(FrameKind::Data, *id, bytes),
                    Told::Start(json) => Frame::new(FrameKind::Ready, *id, json),
                    Told::End(json) => Frame::new(FrameKind::Down, *id, json),
                    Told::Missed(frames) => {
                        Frame::control(FrameKind::Missed, *id, &Missed { frames })
                    }
                };
                put(outbox, form, &frame);
            }
        }
    }

    /// What its socket is to be watched for now.
    fn wanted(&self) -> Interest {
        let reads = self.outbox.len() <= UNREAD && !self.backlog.is_stalled();
        match (reads, self.outbox.len() > 0) {
            (true, false) => Interest::Read,
            (true, true) => Interest::Both,
            (false, true) => Interest::Write,
            (false, false) => Interest::Nothing,
        }
    }
}

impl Control {
    /// Takes over a connection from the API.
    pub(super) fn join(&mut self, joining: Joining) {
        let Joining { socket, received, by, client, place } = joining;
        self.guests.last += 1;
        let key = self.guests.last;
        if let Err(error) = self.ports.add(socket.as_fd(), TOKEN | key, Interest::Read) {
            return tracing::warn!(%error, "a client of protocol 1 cannot be watched; it is let go");
        }
        tracing::debug!(guest = key, by = by.who, uid = by.uid, pid = by.pid, "a client joined");
        let largest = self.handle.largest();
        let guest = Guest {
            socket,
            client,
            by,
            largest,
            decoder: Decoder::new(Mode::Frame, largest),
            form: Form::new(Mode::Frame),
            outbox: Outbox::default(),
            greeted: false,
            credit: None,
            calls: HashMap::new(),
            streams: BTreeMap::new(),
            monitors: HashMap::new(),
            backlog: Backlog::default(),
            watched: Interest::Read,
            leaving: false,
            is_due: false,
            _place: place,
        };
        self.guests.all.insert(key, Box::new(guest));
        self.guest_said(key, &received);
    }

    /// A client's socket has something, or room.
    pub(super) fn guest_ready(&mut self, token: u64) {
        let key = token & !TOKEN;
        let Some(guest) = self.guests.all.get(&key) else { return };
        if guest.watched == Interest::Write || guest.watched == Interest::Both {
            self.guests.have_written(key);
        }
        let Some(guest) = self.guests.all.get(&key) else { return };
        match guest.watched {
            Interest::Read | Interest::Both => {}
            // It is told that the client hung up.
            Interest::Nothing => return self.leave(key),
            Interest::Write => return,
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        match fds::read(guest.socket.as_fd(), &mut buffer) {
            Ok(0) => self.leave(key),
            Ok(count) => self.guest_said(key, &buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.leave(key),
        }
        self.buffer = buffer;
    }

    /// Obeys what a client sent, and then has the programs it spoke to written to.
    fn guest_said(&mut self, key: u64, bytes: &[u8]) {
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        let mut frames = Vec::new();
        let read = guest.decoder.push(bytes, &mut |read| {
            if let Read::Frame(frame) = read {
                frames.push(frame);
            }
        });
        self.obey_all(key, frames);
        if let Err(error) = read {
            self.dismiss(key, &bad_frame(&error));
        }
        self.write_spoken();
    }

    /// Ends a guest with a last word.
    fn dismiss(&mut self, key: u64, failure: &Failure) {
        self.guests.say(key, &Frame::failure(0, failure));
        if let Some(guest) = self.guests.all.get_mut(&key) {
            tracing::info!(
                guest = key,
                by = guest.by.who,
                pid = guest.by.pid,
                error = failure.message,
                "a client is dismissed"
            );
            guest.leaving = true;
        }
        self.take_back(key);
    }

    /// A client is gone.
    fn leave(&mut self, key: u64) {
        self.take_back(key);
        if let Some(guest) = self.guests.all.remove(&key) {
            let _ = self.ports.remove(guest.socket.as_fd());
        }
    }

    /// Takes back what a client asked for and what it waited for.
    fn take_back(&mut self, key: u64) {
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        let calls: Vec<_> = guest.calls.drain().map(|(_, call)| call).collect();
        let streams = std::mem::take(&mut guest.streams);
        let monitors = std::mem::take(&mut guest.monitors);
        guest.backlog = Backlog::default();
        for call in calls {
            self.cancel_call(call);
        }
        for (id, stream) in streams {
            self.unlisten(key, id, &stream.replica);
        }
        for (id, run) in monitors {
            if let Some(run) = run {
                self.guests.unwatch(key, id, run);
            }
        }
    }

    /// Writes what waits for clients. Asked once a turn, when all that happened in it has been told.
    pub(super) fn flush_guests(&mut self) {
        while let Some(key) = self.guests.due.pop() {
            self.flush_guest(key);
        }
    }

    fn flush_guest(&mut self, key: u64) {
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        guest.is_due = false;
        loop {
            guest.pump();
            let before = guest.outbox.len();
            if before == 0 {
                break;
            }
            if guest.outbox.flush(guest.socket.as_fd()).is_err() {
                return self.leave(key);
            }
            if guest.outbox.len() > 0 {
                break;
            }
        }
        if guest.leaving {
            // Who does not take its last word at once goes without it.
            return self.leave(key);
        }
        let wanted = guest.wanted();
        if wanted != guest.watched {
            guest.watched = wanted;
            if let Err(error) = self.ports.change(guest.socket.as_fd(), TOKEN | key, wanted) {
                tracing::error!(guest = key, %error, "cannot watch a client");
                return self.leave(key);
            }
        }
        let over = guest.streams.iter().filter(|(_, stream)| stream.is_over());
        let over: Vec<_> = over.map(|(id, stream)| (*id, stream.replica.clone())).collect();
        let open = guest.streams.values().filter(|stream| stream.has_room());
        let open: Vec<_> = open.map(|stream| stream.replica.clone()).collect();
        for (id, _) in &over {
            guest.streams.remove(id);
        }
        for (id, replica) in over {
            self.unlisten(key, id, &replica);
        }
        for replica in open {
            self.read_on(&replica);
        }
    }

    /// Reads a port again that was left alone because nobody who listens had room.
    fn read_on(&mut self, replica: &ReplicaId) {
        if let Some(incarnation) = self.present.get(replica).copied()
            && self.runs.get(&incarnation).is_some_and(|run| run.held_back)
        {
            self.rise(incarnation);
        }
    }
}

/// Puts a frame on its way; where it is larger than the client takes, a word about that.
fn put(outbox: &mut Outbox, form: &Form, frame: &Frame) {
    let wire = frame.encode(form).or_else(|error| {
        let failure = Failure {
            code: "bad_reply".to_owned(),
            message: format!("cannot {error}"),
            data: None,
            retry: Retry::Never,
        };
        Frame::failure(frame.id, &failure).encode(form)
    });
    if let Ok(wire) = wire {
        outbox.push(wire);
    }
}

fn bad_frame(error: &FrameError) -> Failure {
    Failure {
        code: "bad_frame".to_owned(),
        message: error.to_string(),
        data: None,
        retry: Retry::Never,
    }
}
