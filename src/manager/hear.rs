//! What ports say: bytes become replies, messages and errors, and nothing is read that nobody has room for.

use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Bytes;
use memchr::memchr_iter;

use crate::correlation;
use crate::event::Event;
use crate::framing::FramingError;
use crate::name::Incarnation;
use crate::os::clock;
use crate::os::epoll::Interest;
use crate::port::exchange::{CallError, Delivery};
use crate::spec::WhenFull;

use super::control::{Control, Kind};
use super::published::What;
use super::request::{ReadState as ToldState, SpeakError};
use super::spawner::{Answer, Wiring};
use super::speak::BROKEN_PATIENCE;
use super::streams::HEARD;

/// How much of what nobody asked for is read of one port, in bytes …
const UNASKED: usize = 64 << 10;
/// … in this time, while nobody listens to events.
const UNASKED_WITHIN: Duration = Duration::from_millis(100);

/// A flood that goes on is looked at after twice the time, so often at most: every 3.2 s in the end.
/// Who calls the program does not wait for that; who begins to listen does, once.
const MOST_RESTS: u32 = 5;

/// A read of fewer bytes than this is a drop …
const DROP: usize = 2048;
/// … and after so many in a row that made no message whole, the next is left to grow for a moment.
const DROPS: u32 = 32;
/// How long that moment is. It is also what the end of such a message waits for at most.
const GROW: Duration = Duration::from_millis(1);

/// How many messages that nobody asked for are kept of one port in that time, while nobody listens.
const UNHEARD: usize = 64;

/// The largest text of an event that is published; of longer ones only the size is told.
const SHOWN: usize = 4096;

impl Control {
    /// Takes bytes that a program wrote. Gives how many of them went to its log.
    pub(super) fn heard(&mut self, incarnation: Incarnation, bytes: &[u8]) -> usize {
        let now = clock::now();
        let Some(run) = self.runs.get_mut(&incarnation) else { return 0 };
        let bytes = run.past_the_cut(bytes);
        let Some(exchange) = run.exchange.as_mut() else { return 0 };
        let greeted = exchange.is_greeting();
        let deliveries = exchange.received(bytes, now);
        let is_drop = deliveries.is_empty() && bytes.len() < DROP;
        run.drops = if is_drop { run.drops.saturating_add(1) } else { 0 };
        let more = greeted || exchange.has_word() || exchange.waiting().0 > 0;
        let logged = deliveries.iter().map(|delivery| match delivery {
            Delivery::Stray(text) | Delivery::Log(text) => text.len(),
            _ => 0,
        });
        let logged = logged.sum();
        let became_ready = greeted && self.hear_welcome(incarnation, &deliveries);
        self.deliver(incarnation, deliveries);
        if became_ready {
            self.end_reception(incarnation);
        }
        if more {
            self.write_input(incarnation);
        }
        self.note_conversation(incarnation);
        self.note_deadline(incarnation);
        logged
    }

    /// Text that is no protocol goes to the program's log. A log that would have the program wait for
    /// the disk cannot have that here, where messages pass too: then the text is dropped and counted.
    fn stray(&mut self, incarnation: Incarnation, text: &[u8]) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        if self.output_paused.is_some() && run.service.logging.when_full == WhenFull::Block {
            let service = run.replica.service.clone();
            return self.measured_dropped(&service, memchr_iter(b'\n', text).count() as u64);
        }
        self.log(incarnation, Kind::Output, text);
    }

    /// A program can be spoken to. Where the word that it runs is still on its way, that comes first.
    fn became_ready(&mut self, incarnation: Incarnation) {
        let is_word = self.runs.get(&incarnation).is_some_and(|run| {
            run.service.is_ready_by_port() && run.landing == Some(Answer::Executed)
        });
        if is_word {
            self.feed(Event::Ready { incarnation });
        }
    }

    /// Leaves a port's output alone where nobody wants more of it: the program then waits with a full
    /// pipe, instead of costing a processor or what others have room for. Where nobody listens at all
    /// that is so for a while after a lot has come; where somebody does, until one of them has room.
    pub(super) fn rest_from(&mut self, incarnation: Incarnation, count: usize) {
        let now = clock::now();
        let listened_to = self.announcer.is_heard();
        let Some(run) = self.runs.get(&incarnation) else { return };
        let wanted = run.exchange.as_ref().is_none_or(|exchange| exchange.is_awaited());
        let mut room = self.guests.room(&run.replica);
        if room == Some(false) {
            // What has been told may be on its way already.
            self.flush_guests();
            let Some(run) = self.runs.get(&incarnation) else { return };
            room = self.guests.room(&run.replica);
        }
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        // A program that fills each read has more to say, however long we take for one.
        let over = now.since(run.unasked.1) >= UNASKED_WITHIN;
        if listened_to || wanted || (over && count < HEARD) {
            if listened_to || wanted || run.unasked.0 <= UNASKED {
                run.rests = 0;
            }
            run.unasked = (0, now);
            run.told = 0;
        }
        run.unasked.0 += count;
        let Some(output) = run.output.as_ref().filter(|_| !wanted) else { return };
        match room {
            Some(false) => {
                let _ = self.ports.remove(output.as_fd());
                run.held_back = true;
            }
            None if run.unasked.0 > UNASKED && !listened_to => {
                let _ = self.ports.remove(output.as_fd());
                let from = if over { now } else { run.unasked.1 };
                run.resting = Some(from + UNASKED_WITHIN * (1 << run.rests));
                run.rests = (run.rests + 1).min(MOST_RESTS);
                self.note_deadline(incarnation);
            }
            Some(true) | None => {}
        }
    }

    /// Lets the output of a program that writes byte by byte gather in its pipe: each read costs a
    /// turn, and whoever shares the processors with us would pay for as many turns as bytes.
    pub(super) fn rest_from_drops(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(output) = run.output.as_ref().filter(|_| run.drops >= DROPS) else { return };
        if run.resting.is_none() && !run.held_back {
            let _ = self.ports.remove(output.as_fd());
            run.resting = Some(clock::now() + GROW);
            self.note_deadline(incarnation);
        }
    }

    /// Reads a port's output again.
    pub(super) fn rise(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let rested = run.resting.take().is_some() | std::mem::take(&mut run.held_back);
        if let (true, Some(output), None) = (rested, &run.output, &run.end) {
            let token = Kind::Output.token(incarnation);
            if let Err(error) = self.ports.add(output.as_fd(), token, Interest::Read) {
                tracing::error!(%incarnation, %error, "cannot watch a port's output");
            }
        }
    }

    /// A program closed its output and goes on.
    pub(super) fn output_closed(&mut self, incarnation: Incarnation) {
        let now = clock::now();
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if run.wiring() == Wiring::Terminal {
            // Nobody has the terminal open, so nobody will read what is typed; and a watch on it for
            // room would tell of that for ever.
            run.broken_at.get_or_insert(now + BROKEN_PATIENCE);
            if let (true, Some(input)) = (run.writing, &run.input) {
                let _ = self.ports.remove(input.as_fd());
                run.set_writing(false, now);
            }
        }
        let Some(exchange) = run.exchange.as_mut() else { return };
        let deliveries = exchange.output_closed(now);
        self.deliver(incarnation, deliveries);
        self.note_deadline(incarnation);
    }

    pub(super) fn deliver(&mut self, incarnation: Incarnation, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            match delivery {
                Delivery::Reply { id, messages } => self.answer(id, Ok(messages)),
                Delivery::Sent { id } => self.answer(id, Ok(Vec::new())),
                Delivery::Failed { id, error, .. } => self.call_failed(id, &error),
                Delivery::Event(message) => self.said(incarnation, &message.payload),
                Delivery::Ready => self.became_ready(incarnation),
                Delivery::Stray(text) | Delivery::Log(text) => self.stray(incarnation, &text),
                Delivery::Protocol(error) => self.broke_protocol(incarnation, &error),
            }
        }
    }

    fn call_failed(&mut self, id: u64, error: &CallError) {
        let waited =
            self.calls.get(&id).map_or(Duration::ZERO, |call| clock::now().since(call.since));
        let told = match error {
            CallError::Unanswered => SpeakError::TimedOut {
                after_s: waited.as_secs_f64(),
                read: ToldState::MaybeRead,
                held_up: false,
            },
            CallError::Unsent { stuck } => SpeakError::TimedOut {
                after_s: waited.as_secs_f64(),
                read: ToldState::NeverRead,
                held_up: *stuck,
            },
            CallError::ReplyTooLarge { .. } | CallError::InputClosed => {
                SpeakError::BadReply { msg: format!("cannot {error}") }
            }
            CallError::Refused(failure) => {
                SpeakError::ProgramError { failure: Box::new(failure.clone()) }
            }
            CallError::Unfit(why) => SpeakError::Unfit { msg: why.to_string() },
        };
        self.answer(id, Err(told));
    }

    /// A message that is nobody's reply goes to whoever listens to the port, or to events.
    fn said(&mut self, incarnation: Incarnation, message: &Bytes) {
        let own =
            self.has_json_ids(incarnation).then(|| correlation::progress_of(message)).flatten();
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        // Progress of one client's call is its own business.
        let message = if let Some((guest, message)) = &own {
            self.guests.said_to(&run.replica, *guest, message);
            message
        } else {
            self.guests.said(&run.replica, message);
            message
        };
        if let Some(shake) = self.shakes.get_mut(&incarnation) {
            shake.said(message);
        }
        run.told += 1;
        if run.told > UNHEARD && !self.announcer.is_heard() {
            return self.announcer.overlook();
        }
        let text = std::str::from_utf8(message).ok().filter(|text| text.len() <= SHOWN);
        let (text, bytes) = (text.map(Box::from), message.len() as u64);
        let replica = run.replica.clone();
        self.publish(What::Message { replica, incarnation, text, bytes });
    }

    fn broke_protocol(&mut self, incarnation: Incarnation, error: &FramingError) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        tracing::warn!(replica = %run.replica, %incarnation, %error, "output is not its protocol");
        run.protocol_error = Some(error.to_string());
        if let Some(counts) = self.book.of(&run.replica.service) {
            counts.port().broke(&error.fault);
        }
        if let Some(output) = &run.output {
            let _ = self.ports.remove(output.as_fd());
        }
        run.output = None;
        let alive = run.end.is_none();
        let (replica, error) = (run.replica.clone(), error.to_string().into());
        self.publish(What::ProtocolError { replica, incarnation, error });
        if alive {
            self.feed(Event::ProtocolError { incarnation });
        }
    }
}
