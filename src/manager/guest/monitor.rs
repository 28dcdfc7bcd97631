//! Who is told of ends, starts and messages: monitors of clients of protocol 1.
//!
//! A monitor gives exactly one DOWN, with the true reason, also where it is asked for late: of a
//! replica's present run, or else its last one. One with `messages` or `follow` is a stream: what the
//! program says comes before the DOWN of its run and, with `follow`, the next run's READY after it.
//! A stream hears of an end when it is judged, as callers do; a plain monitor when it is in the
//! journal.

use bytes::Bytes;
use serde::Serialize;

use crate::exit::ExitRecord;
use crate::journal::{Filter, Reader};
use crate::message::{Address, Down, Frame, Kind as FrameKind, Monitor, Peer, Ready, Retry};
use crate::name::{Incarnation, ReplicaId};

use super::super::control::Control;
use super::super::ending::Pending;
use super::super::request::{LastExit, SpeakError};
use super::super::spawner::Answer;
use super::Guests;
use super::obey::{Meant, bad_payload, failure, spoken};
use super::stream::{Stream, Told};

/// How many monitors a client may have.
const MONITORS: usize = 1024;
/// How many of them may be streams, which hold messages.
const STREAMS: usize = 64;
/// How many look-ups of old records run at once.
const LOOKING: usize = 4;

/// What a look-up of an old record found: for which monitor, of which run.
pub(super) type Recalled = (u64, u64, Incarnation, Option<Box<ExitRecord>>);

fn down_of(replica: Address, last: &LastExit, late: bool) -> Down {
    Down {
        target: replica,
        incarnation: last.incarnation.0,
        reason: last.reason,
        cause: last.cause,
        msg: last.msg.clone(),
        late,
        is_final: true,
    }
}

fn down_by(target: Address, record: &ExitRecord, late: bool) -> Down {
    Down {
        target,
        incarnation: record.service.incarnation.0,
        reason: record.exit.reason,
        cause: record.exit.cause,
        msg: record.msg.clone(),
        late,
        is_final: true,
    }
}

fn json(payload: &impl Serialize) -> Bytes {
    serde_json::to_vec(payload).expect("a payload has text keys").into()
}

fn named(replica: &ReplicaId) -> Address {
    Address::Name(replica.to_string())
}

impl Guests {
    /// Tells all who listen to a replica, each on its own stream.
    fn tell(&mut self, replica: &ReplicaId, told: &Told) {
        let Self { all, due, listeners, streams, .. } = self;
        let Some(listeners) = listeners.get(replica) else { return };
        let most = Stream::most(*streams);
        for (key, id) in listeners {
            let Some(guest) = all.get_mut(key) else { continue };
            if let Some(stream) = guest.streams.get_mut(id) {
                stream.take(told.clone(), most);
            }
            if !guest.is_due {
                guest.is_due = true;
                due.push(*key);
            }
        }
    }

    /// Whether anybody listens to a replica.
    pub(in crate::manager) fn hears(&self, replica: &ReplicaId) -> bool {
        !self.listeners.is_empty() && self.listeners.contains_key(replica)
    }

    /// The program said something that is nobody's reply.
    pub(in crate::manager) fn said(&mut self, replica: &ReplicaId, message: &Bytes) {
        if self.hears(replica) {
            self.tell(replica, &Told::Message(message.clone()));
        }
    }

    /// The program said something that is the business of one client, which may be gone.
    pub(in crate::manager) fn said_to(&mut self, replica: &ReplicaId, key: u64, message: &Bytes) {
        let most = Stream::most(self.streams);
        let Some(guest) = self.all.get_mut(&key) else { return };
        for stream in guest.streams.values_mut().filter(|stream| stream.replica == *replica) {
            stream.take(Told::Message(message.clone()), most);
        }
        self.have_written(key);
    }

    /// A program began to run.
    pub(in crate::manager) fn started(&mut self, replica: &ReplicaId, run: Incarnation) {
        if self.hears(replica) {
            self.tell(replica, &Told::Start(start(replica, run)));
        }
    }

    /// A run was judged; what it said has been told.
    pub(in crate::manager) fn ended(&mut self, replica: &ReplicaId, record: &ExitRecord) {
        if self.hears(replica) {
            self.tell(replica, &Told::End(json(&down_by(named(replica), record, false))));
        }
    }

    /// The end of a run is told to everybody.
    pub(in crate::manager) fn down(&mut self, run: Incarnation, record: &ExitRecord) {
        let part = &record.service;
        let replica = ReplicaId { service: part.name.clone(), replica: part.replica };
        for (key, id) in self.watchers.remove(&run).unwrap_or_default() {
            let known = self.all.get_mut(&key).and_then(|guest| guest.monitors.remove(&id));
            if known.is_some() {
                let down = down_by(named(&replica), record, false);
                self.say(key, &Frame::control(FrameKind::Down, id, &down));
            }
        }
    }

    pub(super) fn unwatch(&mut self, key: u64, id: u64, run: Incarnation) {
        if let Some(watchers) = self.watchers.get_mut(&run) {
            watchers.retain(|one| *one != (key, id));
            if watchers.is_empty() {
                self.watchers.remove(&run);
            }
        }
    }
}

fn start(replica: &ReplicaId, run: Incarnation) -> Bytes {
    let peer = Peer { name: replica.to_string(), incarnation: run.0 };
    json(&Ready { failed: None, peer: Some(peer) })
}

impl Control {
    /// A client wants to be told of an end, or of more.
    pub(super) fn monitor(&mut self, key: u64, frame: &Frame) {
        let id = frame.id;
        let Some(guest) = self.guests.all.get(&key) else { return };
        if guest.monitors_as(id) {
            let message = format!("the id {id} is that of another monitor");
            return self.dismiss(key, &failure("bad_request", message, Retry::Never));
        }
        let (monitors, streams) = (guest.monitors.len(), guest.streams.len());
        let wanted = match frame.read::<Monitor>() {
            Ok(wanted) => wanted,
            Err(error) => return self.refuse(key, id, &bad_payload(&error)),
        };
        let streaming = wanted.messages || wanted.follow;
        if monitors + streams >= MONITORS || (streaming && streams >= STREAMS) {
            let message = format!(
                "a client has at most {MONITORS} monitors, {STREAMS} of them with messages"
            );
            return self.refuse(key, id, &failure("busy", message, Retry::Safe));
        }
        match (self.one_replica(&wanted.target), streaming) {
            (Err(failure), _) => self.refuse(key, id, &failure),
            (Ok(Meant::Replica(replica)), true) => self.listen(key, id, &replica, &wanted),
            (Ok(Meant::Run(_)), true) => {
                let message = "messages are those of a replica, not of a single run".to_owned();
                self.refuse(key, id, &failure("bad_name", message, Retry::Never));
            }
            (Ok(Meant::Replica(replica)), false) => self.watch_replica(key, id, &replica),
            (Ok(Meant::Run(run)), false) => self.watch_run(key, id, run),
        }
    }

    /// Begins a stream.
    fn listen(&mut self, key: u64, id: u64, replica: &ReplicaId, wanted: &Monitor) {
        let service = self.spec.services.get(&replica.service);
        if wanted.messages && service.is_none_or(|service| service.port.is_none()) {
            let error = SpeakError::NotAPort { name: replica.to_string() };
            return self.refuse(key, id, &spoken(&error));
        }
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        let mut stream = Stream::new(replica.clone(), wanted, guest.credit);
        let run = self.present.get(replica).and_then(|run| self.runs.get(run));
        let runs = run.filter(|run| matches!(run.landing, Some(Answer::Executed)));
        match (runs, run, self.last.get(replica)) {
            (Some(run), ..) => {
                stream.take(Told::Start(start(replica, run.incarnation)), Stream::most(0));
            }
            // It begins as this is asked.
            (None, Some(_), _) | (None, None, None) => {}
            (None, None, Some(last)) => {
                stream.take(Told::End(json(&down_of(named(replica), last, true))), Stream::most(0));
            }
        }
        guest.streams.insert(id, stream);
        self.guests.listeners.entry(replica.clone()).or_default().push((key, id));
        self.guests.streams += 1;
        self.guests.have_written(key);
        // What was left alone because nobody wanted it is wanted now.
        if let Some(incarnation) = self.present.get(replica).copied() {
            self.rise(incarnation);
        }
    }

    /// Waits for the end of a replica's present run, or tells that of its last one.
    fn watch_replica(&mut self, key: u64, id: u64, replica: &ReplicaId) {
        let judged = || {
            let mut open = self.pending.iter().filter(|(_, pending)| pending.is_open());
            open.find(|(_, pending)| pending.replica() == replica).map(|(run, _)| *run)
        };
        if let Some(run) = self.present.get(replica).copied().or_else(judged) {
            return self.watch(key, id, run);
        }
        if let Some(last) = self.last.get(replica) {
            let down = down_of(named(replica), last, true);
            self.guests.say(key, &Frame::control(FrameKind::Down, id, &down));
        } else {
            let error = self.silent(&replica.to_string(), std::slice::from_ref(replica));
            self.refuse(key, id, &spoken(&error));
        }
    }

    fn watch(&mut self, key: u64, id: u64, run: Incarnation) {
        if let Some(guest) = self.guests.all.get_mut(&key) {
            guest.monitors.insert(id, Some(run));
            self.guests.watchers.entry(run).or_default().push((key, id));
        }
    }

    /// Waits for the end of a run, or finds out what it was.
    fn watch_run(&mut self, key: u64, id: u64, run: Incarnation) {
        let open = self.pending.get(&run).is_some_and(Pending::is_open);
        if self.runs.contains_key(&run) || open {
            return self.watch(key, id, run);
        }
        let last = self.last.values().find(|last| last.incarnation == run);
        if let Some(last) = last {
            let down = down_of(Address::Incarnation(run.0), last, true);
            return self.guests.say(key, &Frame::control(FrameKind::Down, id, &down));
        }
        if self.guests.looking >= LOOKING {
            let message = format!("{LOOKING} old records are being looked for already");
            return self.refuse(key, id, &failure("busy", message, Retry::Safe));
        }
        let (tell, waker) = (self.guests.recalled.0.clone(), self.waker.clone());
        let folder = self.state.state.clone();
        let look = move || {
            let entries =
                Reader::open(&folder).and_then(|reader| reader.entries(Filter::default()));
            let mut records = entries.into_iter().flatten().flatten().map(|entry| entry.record);
            let found = records.find(|record| record.service.incarnation == run);
            if tell.send((key, id, run, found.map(Box::new))).is_ok() {
                waker.wake();
            }
        };
        match std::thread::Builder::new().name("records".into()).spawn(look) {
            Ok(_) => {
                self.guests.looking += 1;
                if let Some(guest) = self.guests.all.get_mut(&key) {
                    guest.monitors.insert(id, None);
                }
            }
            Err(error) => {
                let message = format!("the journal cannot be looked into: {error}");
                self.refuse(key, id, &failure("busy", message, Retry::Safe));
            }
        }
    }

    /// Tells what look-ups found.
    pub(in crate::manager) fn take_recalled(&mut self) {
        while let Ok((key, id, run, found)) = self.guests.recalled.1.try_recv() {
            self.guests.looking -= 1;
            let asked = self.guests.all.get_mut(&key);
            if asked.and_then(|guest| guest.monitors.remove(&id)).is_none() {
                continue;
            }
            if let Some(record) = found {
                let down = down_by(Address::Incarnation(run.0), &record, true);
                self.guests.say(key, &Frame::control(FrameKind::Down, id, &down));
            } else {
                let message = format!("there is no run {run}, nor a record of it");
                self.refuse(key, id, &failure("no_such_run", message, Retry::Never));
            }
        }
    }

    /// A client wants to hear no more.
    pub(super) fn demonitor(&mut self, key: u64, id: u64) {
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        if let Some(stream) = guest.streams.remove(&id) {
            self.unlisten(key, id, &stream.replica);
        } else if let Some(Some(run)) = guest.monitors.remove(&id) {
            self.guests.unwatch(key, id, run);
        }
    }

    /// Strikes a stream off those that listen; who else listens, or nobody, goes on.
    pub(super) fn unlisten(&mut self, key: u64, id: u64, replica: &ReplicaId) {
        if let Some(listeners) = self.guests.listeners.get_mut(replica) {
            let before = listeners.len();
            listeners.retain(|one| *one != (key, id));
            self.guests.streams -= before - listeners.len();
            if listeners.is_empty() {
                self.guests.listeners.remove(replica);
            }
        }
        self.read_on(replica);
    }

    /// A replica is gone from the configuration: who listens to it is told that nothing will come.
    pub(in crate::manager) fn silence(&mut self, replica: &ReplicaId) {
        let listeners = self.guests.listeners.remove(replica).unwrap_or_default();
        self.guests.streams -= listeners.len();
        for (key, id) in listeners {
            let known = self.guests.all.get_mut(&key).and_then(|one| one.streams.remove(&id));
            if known.is_some() {
                let message = format!("{replica} is gone from the configuration");
                self.refuse(key, id, &failure("no_such_replica", message, Retry::Never));
            }
        }
    }
}
