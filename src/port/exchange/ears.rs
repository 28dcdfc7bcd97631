//! What is read of a program's output finds its way: to the greeting, to the calls, or to the stray
//! text.

use super::desk::Desk;
use super::greeting::Greeting;
use super::protocol::Protocol;
use super::words::Delivery;
use crate::framing::{Fault, FramingError, Message, Said, Sample, Stray};
use crate::spec;
use crate::time::Tick;

/// Who hears what one read gave.
pub(super) struct Ears<'a> {
    pub(super) protocol: &'a Protocol,
    pub(super) desk: &'a mut Desk,
    pub(super) greeting: &'a mut Option<Box<Greeting>>,
    pub(super) now: Tick,
    pub(super) deliveries: &'a mut Vec<Delivery>,
    /// What made the output unusable, though it was cut well. What comes after it is not heard.
    pub(super) broken: Option<FramingError>,
}

impl Ears<'_> {
    pub(super) fn hear(&mut self, said: Said) {
        match said {
            Said::Message { message, at } => self.message(message, at),
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
