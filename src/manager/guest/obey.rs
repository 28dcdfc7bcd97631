//! What each frame of a client leads to.

use crate::message::{
    Address, BadPayload, Credit, Failure, Flags, Frame, Hello, Kind as FrameKind, MAX_FRAME, PROTO,
    Retry,
};
use crate::name::{Incarnation, Target};

use super::super::caller::Caller;
use super::super::control::Control;
use super::super::request::{Refusal, SpeakError, Speech};
use super::Guest;
use super::wait::WAIT;

/// How many calls of one client may be open at once.
const CALLS: usize = 4096;
/// What the manager does beyond the least, by the names that clients may look for.
const FEATURES: [&str; 5] = ["credit", "monitor", "messages", "follow", WAIT];

impl Control {
    /// Does what a frame says.
    pub(super) fn obey(&mut self, key: u64, frame: Frame) {
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        if guest.leaving {
            return;
        }
        if !guest.greeted {
            return self.greet(key, &frame);
        }
        match frame.kind {
            FrameKind::Call => self.wire_call(key, frame),
            FrameKind::Data => self.wire_data(key, frame),
            FrameKind::Cancel => {
                if let Some(call) = guest.calls.remove(&frame.id) {
                    self.cancel_call(call);
                }
            }
            FrameKind::Credit => match frame.read::<Credit>() {
                Ok(credit) => {
                    if let Some(stream) = guest.streams.get_mut(&frame.id) {
                        stream.grant(credit.frames);
                        self.guests.have_written(key);
                    }
                }
                Err(error) => self.refuse(key, frame.id, &bad_payload(&error)),
            },
            FrameKind::Monitor => self.monitor(key, &frame),
            FrameKind::Demonitor => self.demonitor(key, frame.id),
            FrameKind::Ping => self.guests.say(key, &Frame::new(FrameKind::Pong, frame.id, "")),
            // Nothing was asked that it would answer.
            FrameKind::Pong => {}
            FrameKind::Hello => {
                let message = "HELLO is said once, at the beginning".to_owned();
                self.dismiss(key, &failure("bad_request", message, Retry::Never));
            }
            FrameKind::Send
            | FrameKind::Link
            | FrameKind::Unlink
            | FrameKind::Spawn
            | FrameKind::Peer
            | FrameKind::Log
            | FrameKind::Metric => {
                self.refuse(key, frame.id, &Failure::not_supported(frame.kind));
            }
            FrameKind::Reply
            | FrameKind::Error
            | FrameKind::Missed
            | FrameKind::Ready
            | FrameKind::Drain
            | FrameKind::Exit
            | FrameKind::Down => {
                let message = format!("{} is not for a client to say", frame.kind);
                self.refuse(key, frame.id, &failure("bad_request", message, Retry::Never));
            }
        }
    }

    pub(super) fn refuse(&mut self, key: u64, id: u64, failure: &Failure) {
        self.guests.say(key, &Frame::failure(id, failure));
    }

    /// Takes the first frame, which must be a greeting in a version that is known.
    fn greet(&mut self, key: u64, frame: &Frame) {
        let bad = |message: String| failure("bad_hello", message, Retry::Never);
        let hello = match (frame.kind, frame.read::<Hello>()) {
            (FrameKind::Hello, Ok(hello)) if hello.proto == PROTO => hello,
            (FrameKind::Hello, Ok(hello)) => {
                let message = format!("version {} is not spoken here, {PROTO} is", hello.proto);
                return self.dismiss(key, &bad(message));
            }
            (FrameKind::Hello, Err(error)) => {
                return self.dismiss(key, &bad(format!("cannot {error}")));
            }
            (other, _) => {
                let message = format!("the first frame must be a HELLO, and this is a {other}");
                return self.dismiss(key, &bad(message));
            }
        };
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        guest.greeted = true;
        guest.credit = hello.credit;
        guest.backlog.waits = hello.features.iter().any(|name| name == WAIT);
        // Less than an error needs would help nobody.
        guest.form.max_frame = hello.max_frame.clamp(1024, 1 << 30);
        let mut ours = Hello::new("wharf", env!("CARGO_PKG_VERSION"));
        ours.concurrency = u32::try_from(CALLS).unwrap_or(u32::MAX);
        ours.max_frame = guest.largest.max(MAX_FRAME);
        ours.features = FEATURES.iter().map(|&name| name.to_owned()).collect();
        self.guests.say(key, &Frame::control(FrameKind::Hello, 0, &ours));
    }

    /// A call to a port.
    fn wire_call(&mut self, key: u64, frame: Frame) {
        let Some(guest) = self.guests.all.get(&key) else { return };
        let client = guest.client;
        if frame.flags.has(Flags::NOREPLY) {
            return self.wire_data(key, Frame { id: 0, ..frame });
        }
        if guest.calls.contains_key(&frame.id) {
            let message = format!("the id {} is that of another open call", frame.id);
            return self.dismiss(key, &failure("bad_request", message, Retry::Never));
        }
        if guest.calls.len() >= CALLS {
            let message = format!("{CALLS} calls of this client are open already");
            return self.refuse(key, frame.id, &failure("busy", message, Retry::Safe));
        }
        let target = match target_of(frame.to.as_ref()) {
            Ok(target) => target,
            Err(failure) => return self.refuse(key, frame.id, &failure),
        };
        let caller = Caller::Guest { guest: key, id: frame.id };
        self.speak_later(&target, frame.payload, Speech::Call(None), client, caller);
    }

    /// A message to a port that wants no reply. What becomes of it is told where it fails.
    fn wire_data(&mut self, key: u64, frame: Frame) {
        let Some(guest) = self.guests.all.get(&key) else { return };
        let client = guest.client;
        let target = match target_of(frame.to.as_ref()) {
            Ok(target) => target,
            Err(failure) => return self.refuse(key, 0, &failure),
        };
        let caller = Caller::Sender { guest: key };
        self.speak_later(&target, frame.payload, Speech::Send, client, caller);
    }

    /// A message was accepted; a call of a client is its own from now on.
    pub(in crate::manager) fn wire_accepted(&mut self, guest: u64, id: u64, call: u64) {
        if let Some(guest) = self.guests.all.get_mut(&guest) {
            guest.calls.insert(id, call);
        }
    }

    /// The reply to a client's call, or why there is none.
    pub(in crate::manager) fn wire_answer(
        &mut self,
        key: u64,
        id: u64,
        result: Result<Vec<bytes::Bytes>, SpeakError>,
    ) {
        let sated = self.guests.is_sated(key);
        let Some(guest) = self.guests.all.get_mut(&key) else { return };
        guest.calls.remove(&id);
        let messages = match (result, sated) {
            (Ok(_), Some(waits)) => {
                let message = format!(
                    "the reply is dropped: {waits} bytes wait already for this client to read"
                );
                return self.refuse(key, id, &failure("busy", message, Retry::Unsafe));
            }
            (Ok(messages), None) => messages,
            (Err(error), _) => return self.refuse(key, id, &spoken(&error)),
        };
        let last = messages.len().saturating_sub(1);
        if messages.is_empty() {
            return self.guests.say(key, &Frame::reply(id, ""));
        }
        for (at, message) in messages.into_iter().enumerate() {
            let mut frame = Frame::reply(id, message);
            if at < last {
                frame = frame.with(Flags::MORE);
            }
            self.guests.say(key, &frame);
        }
    }

    /// A message of a client that wanted no reply could not be sent.
    pub(in crate::manager) fn wire_unsent(&mut self, key: u64, error: &SpeakError) {
        self.refuse(key, 0, &spoken(error));
    }

    /// The replica that a client means, or what is wrong with what it means.
    pub(super) fn one_replica(&self, address: &Address) -> Result<Meant, Failure> {
        let name = match address {
            Address::Incarnation(number) => return Ok(Meant::Run(Incarnation(*number))),
            Address::Name(name) => name,
        };
        let target = target_of(Some(&Address::Name(name.clone())))?;
        let mut replicas = self.replicas_of(&target).map_err(|error| refused(&error))?;
        match (replicas.pop(), replicas.len()) {
            (Some(replica), 0) => Ok(Meant::Replica(replica)),
            (None, _) => {
                let message = format!("{name} has no replicas");
                Err(failure("no_such_replica", message, Retry::Never))
            }
            (Some(_), more) => {
                let message = format!(
                    "{name} has {} replicas: say which one, {name}/1 for example",
                    more + 1
                );
                Err(failure("bad_name", message, Retry::Never))
            }
        }
    }
}

/// What a monitor is for.
pub(super) enum Meant {
    Replica(crate::name::ReplicaId),
    Run(Incarnation),
}

impl Guest {
    /// Whether an id names a monitor already.
    pub(super) fn monitors_as(&self, id: u64) -> bool {
        self.streams.contains_key(&id) || self.monitors.contains_key(&id)
    }
}

fn target_of(address: Option<&Address>) -> Result<Target, Failure> {
    match address {
        Some(Address::Name(name)) => name.parse().map_err(|error| {
            let message = format!("{name:?} is no NAME and no NAME/REPLICA: {error}");
            failure("bad_name", message, Retry::Never)
        }),
        Some(Address::Incarnation(_)) => {
            let message = "a port is spoken to by its name, not by a run of it".to_owned();
            Err(failure("bad_name", message, Retry::Never))
        }
        None => {
            let message = "the frame does not say whom it is for (flag `to`)".to_owned();
            Err(failure("bad_name", message, Retry::Never))
        }
    }
}

pub(super) fn failure(code: &str, message: String, retry: Retry) -> Failure {
    Failure { code: code.to_owned(), message, data: None, retry }
}

pub(super) fn bad_payload(error: &BadPayload) -> Failure {
    failure("bad_request", format!("cannot {error}"), Retry::Never)
}

fn refused(refusal: &Refusal) -> Failure {
    spoken(&SpeakError::Refused(refusal.clone()))
}

/// An error as it is told: its own word, a sentence, whether to try again, and all that it knows.
pub(super) fn spoken(error: &SpeakError) -> Failure {
    use super::super::request::ReadState;
    let retry = match error {
        // It has the program's own words.
        SpeakError::ProgramError { failure } => return Failure::clone(failure),
        SpeakError::NotRunning { .. } | SpeakError::Busy { .. } | SpeakError::Taken { .. } => {
            Retry::Safe
        }
        SpeakError::Ended { read: ReadState::NeverRead, .. }
        | SpeakError::TimedOut { read: ReadState::NeverRead, .. }
        | SpeakError::Refused(Refusal::Busy | Refusal::ShuttingDown) => Retry::Safe,
        SpeakError::Ended { .. } | SpeakError::TimedOut { .. } => Retry::Unsafe,
        SpeakError::NotAPort { .. }
        | SpeakError::NoReplies { .. }
        | SpeakError::Unfit { .. }
        | SpeakError::InputClosed { .. }
        | SpeakError::BadReply { .. }
        | SpeakError::Refused(_) => Retry::Never,
    };
    let mut data = serde_json::to_value(error).unwrap_or_default();
    let code = data.as_object_mut().and_then(|data| data.shift_remove("code"));
    let code = code.and_then(|code| code.as_str().map(str::to_owned)).unwrap_or_default();
    let data = Some(data).filter(|data| data.as_object().is_some_and(|data| !data.is_empty()));
    let data = data.map(Box::new);
    Failure { code, message: error.to_string(), data, retry }
}
