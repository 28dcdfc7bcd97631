//! The loop's dealings with welcomes: what a program answered when it became ready is what each of its
//! clients is answered that begins in the same way.

use std::sync::Arc;

use bytes::Bytes;

use crate::name::Incarnation;
use crate::port::exchange::{Delivery, ReadState, Unanswered};
use crate::port::welcome::{Answers, Welcome};

use super::control::Control;
use super::request::{SpeakError, Speech};
use super::speak::Posted;

/// How many clients wait for a program to become ready.
const WAITING: usize = 4096;

/// The welcome of one run.
pub(super) struct Reception {
    welcome: Arc<Welcome>,
    answers: Answers,
    /// Whether the program is ready, so that no more is to come.
    is_over: bool,
    /// Calls that wait for the program to be ready: each with the request that it is.
    waiting: Vec<(u64, usize)>,
}

impl Reception {
    fn answer(&self, which: usize) -> Result<Vec<Bytes>, SpeakError> {
        let answer = self.answers.to(which).map(<[Bytes]>::to_vec);
        answer.ok_or_else(|| SpeakError::BadReply {
            msg: "what the program answered when it became ready was too long to be kept".into(),
        })
    }

    /// What a run that ended has never heard.
    pub(super) fn unspoken(self) -> impl Iterator<Item = Unanswered> {
        self.waiting.into_iter().map(|(id, _)| Unanswered {
            id,
            read: ReadState::NeverRead,
            so_far: Vec::new(),
            is_reply: false,
        })
    }
}

impl Control {
    /// A run is on its way: where its port welcomes clients, what it answers is kept.
    pub(super) fn open_reception(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        // Its protocol was compiled, so that its welcome can be.
        let welcome = run.service.port.as_ref().and_then(|port| Welcome::of(port).ok().flatten());
        let Some(welcome) = welcome.map(Arc::new) else { return };
        let answers = Answers::default();
        let reception = Reception { welcome, answers, is_over: false, waiting: Vec::new() };
        self.receptions.insert(incarnation, reception);
    }

    /// A program said something while it was not ready. Whether it is ready now.
    pub(super) fn hear_welcome(&mut self, run: Incarnation, deliveries: &[Delivery]) -> bool {
        let Some(reception) = self.receptions.get_mut(&run) else { return false };
        for delivery in deliveries {
            match delivery {
                Delivery::Event(message) => {
                    reception.answers.heard(&reception.welcome, &message.payload);
                }
                Delivery::Ready => {
                    reception.is_over = true;
                    return true;
                }
                Delivery::Reply { .. }
                | Delivery::Sent { .. }
                | Delivery::Log(_)
                | Delivery::Stray(_)
                | Delivery::Failed { .. }
                | Delivery::Protocol(_) => {}
            }
        }
        false
    }

    /// The program is ready: who waited for that is answered.
    pub(super) fn end_reception(&mut self, incarnation: Incarnation) {
        let Some(reception) = self.receptions.get_mut(&incarnation) else { return };
        let waiting = std::mem::take(&mut reception.waiting);
        let answer = |(id, which)| (id, reception.answer(which));
        for (id, answer) in waiting.into_iter().map(answer).collect::<Vec<_>>() {
            self.answer(id, answer);
        }
    }

    /// Answers a client's message where the program has answered the same; otherwise gives it back.
    pub(super) fn received(&mut self, incarnation: Incarnation, message: Posted) -> Option<Posted> {
        let Some(reception) = self.receptions.get_mut(&incarnation) else { return Some(message) };
        if !matches!(message.speech, Speech::Call(_)) {
            return Some(message);
        }
        let Some(which) = reception.welcome.which(&message.payload) else { return Some(message) };
        if reception.is_over {
            let answer = reception.answer(which);
            self.answer(message.id, answer);
        } else if reception.waiting.len() < WAITING {
            reception.waiting.push((message.id, which));
        } else {
            let name = self.runs.get(&incarnation).map(|run| run.replica.to_string());
            self.answer(message.id, Err(SpeakError::Busy { name: name.unwrap_or_default() }));
        }
        None
    }
}
