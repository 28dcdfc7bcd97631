//! The loop's dealings with handshakes: one for each run, however many clients believe that they are
//! the first.

use std::sync::Arc;

use bytes::Bytes;

use crate::name::Incarnation;
use crate::port::exchange::{ReadState, Unanswered};
use crate::port::handshake::{Asked, Handshake, Part, is_error};
use crate::spec;

use super::caller::Caller;
use super::control::Control;
use super::request::{SpeakError, Speech};
use super::speak::{Call, Posted};
use crate::os::clock;

/// How many messages wait for a handshake, and how many clients for its reply.
const WAITING: usize = 4096;
/// The most bytes of messages that wait for one, unless it is a single message.
const WAITING_BYTES: usize = 16 << 20;
/// Whose turn the manager's own messages are.
const OURS: u64 = u64::MAX - 1;

/// The handshake of one run.
pub(super) struct Shake {
    rule: Arc<Handshake>,
    stage: Stage,
    /// Calls that wait for the reply, each with its own id.
    waiting: Vec<(u64, Bytes)>,
    /// What is said meanwhile to a run that is being greeted by us.
    held: Vec<Posted>,
    /// Their bytes.
    held_bytes: usize,
    /// Whether the message that ends it has gone through.
    is_done: bool,
    /// What the program asks of its clients.
    asked: Asked,
}

enum Stage {
    /// Nobody has begun it.
    Fresh,
    /// This was sent; by us where a client had said it to an earlier run.
    Sent { request: Bytes, by_us: bool },
    /// This was the reply.
    Over(Bytes),
}

/// What the clients of a replica greet it with.
pub(super) struct Manners {
    words: spec::Handshake,
    begin: Bytes,
    done: Option<Bytes>,
}

impl Shake {
    /// The program said something of its own.
    pub(super) fn said(&mut self, message: &Bytes) {
        if let Some(id) = self.rule.asks(message) {
            self.asked.note(&id);
        }
    }

    /// What a run that ended has never heard.
    pub(super) fn unspoken(self) -> impl Iterator<Item = Unanswered> {
        let waiting = self.waiting.into_iter().map(|(id, _)| id);
        let held = self.held.into_iter().map(|message| message.id);
        waiting.chain(held).map(|id| Unanswered {
            id,
            read: ReadState::NeverRead,
            so_far: Vec::new(),
            is_reply: false,
        })
    }
}

impl Control {
    /// A run is on its way: where its port has a handshake that clients have made before, it is the
    /// first thing that it hears.
    pub(super) fn greet_program(&mut self, incarnation: Incarnation) {
        self.open_reception(incarnation);
        let Some(run) = self.runs.get(&incarnation) else { return };
        let Some(port) = run.service.port.as_ref() else { return };
        let Some(words) = port.handshake.as_ref() else { return };
        let rule = match Handshake::of(port) {
            Ok(Some(rule)) => Arc::new(rule),
            // The configuration was checked; without ids there is no handshake.
            Ok(None) | Err(_) => return,
        };
        let known = self.manners.get(&run.replica).filter(|known| known.words == *words);
        let begin = known.map(|known| known.begin.clone());
        let mut shake = Shake {
            rule,
            stage: Stage::Fresh,
            waiting: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            is_done: false,
            asked: Asked::default(),
        };
        if let Some(request) = begin.clone() {
            shake.stage = Stage::Sent { request, by_us: true };
        }
        self.shakes.insert(incarnation, shake);
        if let Some(begin) = begin {
            self.say_ourselves(incarnation, begin, Speech::Call(None));
        }
    }

    fn say_ourselves(&mut self, incarnation: Incarnation, payload: Bytes, speech: Speech) {
        let id = self.next_call;
        self.next_call += 1;
        let caller = match speech {
            Speech::Call(_) | Speech::CallLast(_) => Caller::Handshake(incarnation),
            Speech::Send | Speech::SendLast => Caller::Nobody,
        };
        self.calls.insert(id, Call { incarnation, asked: None, since: clock::now(), caller });
        self.submit(incarnation, Posted { id, client: OURS, speech, payload });
    }

    /// What of a client's message is to go to the program now; the rest is seen to.
    pub(super) fn mannered(&mut self, incarnation: Incarnation, message: Posted) -> Option<Posted> {
        let message = self.received(incarnation, message)?;
        let Some(shake) = self.shakes.get_mut(&incarnation) else { return Some(message) };
        if matches!(message.speech, Speech::CallLast(_) | Speech::SendLast) {
            // Who ends the program's input needs no manners.
            return Some(message);
        }
        let is_call = matches!(message.speech, Speech::Call(_));
        let message = match (shake.rule.read(&message.payload), is_call) {
            (Part::Begin(id), true) => {
                self.begin_shake(incarnation, message, &id);
                return None;
            }
            (Part::Leave(answer), true) => {
                self.answer(message.id, Ok(vec![answer]));
                return None;
            }
            (Part::Left, false) => {
                self.answer(message.id, Ok(Vec::new()));
                return None;
            }
            (Part::Done, false) => self.end_shake(incarnation, message)?,
            (Part::Answer(id), false) if !shake.asked.is_first(&id) => {
                self.answer(message.id, Ok(Vec::new()));
                return None;
            }
            _ => message,
        };
        let shake = self.shakes.get_mut(&incarnation)?;
        if !matches!(shake.stage, Stage::Sent { by_us: true, .. }) {
            return Some(message);
        }
        let bytes = shake.held_bytes.saturating_add(message.payload.len());
        let fits = shake.held.len() < WAITING && bytes <= WAITING_BYTES;
        if fits || shake.held.is_empty() {
            shake.held_bytes = bytes;
            shake.held.push(message);
        } else {
            self.too_many(incarnation, message.id);
        }
        None
    }

    fn too_many(&mut self, incarnation: Incarnation, id: u64) {
        let name = self.runs.get(&incarnation).map(|run| run.replica.to_string());
        self.answer(id, Err(SpeakError::Busy { name: name.unwrap_or_default() }));
    }

    /// A client begins the handshake, or believes so.
    fn begin_shake(&mut self, incarnation: Incarnation, message: Posted, id: &Bytes) {
        let Some(shake) = self.shakes.get_mut(&incarnation) else { return };
        let id = Bytes::copy_from_slice(id);
        match &shake.stage {
            Stage::Over(reply) => {
                let reply = shake.rule.readdressed(reply, &id);
                self.answer(message.id, Ok(vec![reply]));
            }
            Stage::Sent { .. } if shake.waiting.len() >= WAITING => {
                self.too_many(incarnation, message.id);
            }
            Stage::Sent { .. } => shake.waiting.push((message.id, id)),
            Stage::Fresh => {
                shake.waiting.push((message.id, id));
                shake.stage = Stage::Sent { request: message.payload.clone(), by_us: false };
                // Ours, so that it goes on where this client leaves.
                self.say_ourselves(incarnation, message.payload, message.speech);
            }
        }
    }

    /// A client ends the handshake; the first one does.
    fn end_shake(&mut self, incarnation: Incarnation, message: Posted) -> Option<Posted> {
        let shake = self.shakes.get_mut(&incarnation)?;
        let by_us = matches!(shake.stage, Stage::Sent { by_us: true, .. });
        let replica = self.runs.get(&incarnation).map(|run| &run.replica);
        let known = replica.and_then(|replica| self.manners.get_mut(replica));
        let said_before = by_us && known.as_ref().is_some_and(|known| known.done.is_some());
        if shake.is_done || said_before {
            self.answer(message.id, Ok(Vec::new()));
            return None;
        }
        shake.is_done = true;
        if let Some(known) = known {
            known.done = Some(message.payload.clone());
        }
        Some(message)
    }

    /// The reply to the request that begins a handshake, or why there is none.
    pub(super) fn shaken(
        &mut self,
        incarnation: Incarnation,
        result: Result<Vec<Bytes>, SpeakError>,
    ) {
        let Some(shake) = self.shakes.get_mut(&incarnation) else { return };
        let waiting = std::mem::take(&mut shake.waiting);
        let held = std::mem::take(&mut shake.held);
        shake.held_bytes = 0;
        let rule = Arc::clone(&shake.rule);
        let stage = std::mem::replace(&mut shake.stage, Stage::Fresh);
        let result = result.map(|messages| messages.into_iter().next().unwrap_or_default());
        if let (Ok(reply), Stage::Sent { request, by_us }) = (&result, stage)
            && !is_error(reply)
        {
            shake.stage = Stage::Over(reply.clone());
            self.keep_manners(incarnation, request, by_us);
        }
        for (id, own) in waiting {
            let told = result.clone().map(|reply| vec![rule.readdressed(&reply, &own)]);
            self.answer(id, told);
        }
        for message in held {
            // Whoever was gone meanwhile has taken it back.
            if self.calls.contains_key(&message.id) {
                self.submit(incarnation, message);
            }
        }
        self.write_spoken();
    }

    /// A handshake went well: what was said is kept for the next run, or said to the end now.
    fn keep_manners(&mut self, incarnation: Incarnation, begin: Bytes, by_us: bool) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        if by_us {
            let done = self.manners.get(&run.replica).and_then(|known| known.done.clone());
            if let (Some(done), Some(shake)) = (done, self.shakes.get_mut(&incarnation))
                && !shake.is_done
            {
                shake.is_done = true;
                self.say_ourselves(incarnation, done, Speech::Send);
            }
            return;
        }
        let words = run.service.port.as_ref().and_then(|port| port.handshake.clone());
        if let Some(words) = words {
            let replica = run.replica.clone();
            self.manners.insert(replica, Manners { words, begin, done: None });
        }
    }
}
