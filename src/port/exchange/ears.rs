//! What is read of a program's output finds its way: to the greeting, to the calls, or to the stray
//! text.

use super::desk::Desk;
use super::envelope::{Envelope, Heard};
use super::greeting::Greeting;
use super::protocol::Protocol;
use super::words::Delivery;
use crate::framing::{Fault, FramingError, Message, Said, Sample, Stray};
use crate::message::{self, Form, Mode};
use crate::spec;
use crate::time::Tick;

/// Who hears what one read gave.
pub(super) struct Ears<'a> {
    pub(super) protocol: &'a Protocol,
    pub(super) desk: &'a mut Desk,
    pub(super) greeting: &'a mut Option<Box<Greeting>>,
    pub(super) envelope: &'a mut Option<Box<Envelope>>,
    pub(super) now: Tick,
    pub(super) deliveries: &'a mut Vec<Delivery>,
    /// What made the output unusable, though it was cut well. What comes after it is not heard.
    pub(super) broken: Option<FramingError>,
}

impl Ears<'_> {
    pub(super) fn hear(&mut self, said: Said) {
        match said {
            Said::Message { message, at } => self.message(message, at),
            Said::Frame { frame, mode, at } => self.frame(&frame, mode, at),
            Said::Stray(stray) => self.stray(stray),
        }
    }

    pub(super) fn message(&mut self, message: Message, at: u64) {
        if self.broken.is_some() {
            return;
        }
        let Some(greeting) = self.greeting else { return self.say(message, at) };
        self.desk.counters.frames_out += 1;
        let over = greeting.heard(&self.protocol.greeting, &message.payload);
        self.deliveries.push(Delivery::Event(message));
        if over {
            *self.greeting = None;
            if self.protocol.greeting.holds() {
                self.deliveries.push(Delivery::Ready);
            }
        }
    }

    /// A frame of wire protocol 1.
    fn frame(&mut self, frame: &message::Frame, mode: Mode, at: u64) {
        let (Some(envelope), None) = (&mut *self.envelope, &self.broken) else { return };
        self.desk.counters.frames_out += 1;
        match envelope.hear(frame.clone(), self.protocol.max_reply) {
            Heard::Nothing | Heard::Hello | Heard::Hopeless => {}
            Heard::Dropped => self.desk.counters.unmatched += 1,
            Heard::Ready => self.deliveries.push(Delivery::Ready),
            Heard::Event(payload) => {
                self.deliveries.push(Delivery::Event(Message { payload, partial: false }));
            }
            Heard::Log(line) => self.deliveries.push(Delivery::Log(line)),
            Heard::Reply { number, payload, more } => {
                let max = self.protocol.max_reply;
                self.desk.replied(envelope, number, &payload, more, max, self.deliveries);
            }
            Heard::Failed { number, failure } => {
                self.desk.refused(envelope, number, failure, self.deliveries);
            }
            Heard::Wrong(what) => {
                let wire = frame.encode(&Form { max_frame: u64::MAX, ..Form::new(mode) });
                let sample = wire.map_or_else(
                    |_| Sample::of(&frame.payload, b""),
                    |wire| Sample::of(&wire.head, &wire.body),
                );
                let fault = Fault::Garbage { what };
                self.broken = Some(FramingError { fault, offset: at, sample });
            }
        }
    }

    fn say(&mut self, message: Message, at: u64) {
        let foreign = self.desk.heard(self.protocol, message, self.now, self.deliveries);
        let Some(message) = foreign else { return };
        match self.protocol.stray {
            None => {
                self.desk.counters.unasked += 1;
                self.deliveries.push(Delivery::Event(message));
            }
            Some(spec::Stray::Log | spec::Stray::Drop) => {
                let mut line = message.payload.to_vec();
                line.push(b'\n');
                self.stray(Stray { bytes: line.into(), begins: true, at });
            }
            Some(spec::Stray::Kill) => {
                let what = "is no JSON".to_owned();
                let sample = message.payload.iter().take(Sample::MOST).copied().collect();
                let fault = Fault::Garbage { what };
                self.broken = Some(FramingError { fault, offset: at, sample: Sample(sample) });
            }
        }
    }

    pub(super) fn stray(&mut self, stray: Stray) {
        if self.broken.is_some() {
            return;
        }
        if self.protocol.stray == Some(spec::Stray::Kill) {
            self.broken = Some(stray.into_error());
            return;
        }
        self.desk.counters.strays += u64::from(stray.begins);
        if self.protocol.stray == Some(spec::Stray::Log) {
            self.deliveries.push(Delivery::Stray(stray.bytes));
        }
    }
}
