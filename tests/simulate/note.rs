//! Events are entered into the books: what each of them makes due.

use std::collections::BTreeSet;
use std::time::Duration;

use wharf::event::{Event, Rest, Verb};
use wharf::exit::{Cause, Signal};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use wharf::spec::{OnOom, Overlap};
use wharf::time::Tick;

use super::book::{Book, PATIENCE, Plan, Run, Then};
use super::expect::Due;
use super::history::Sim;
use super::relate::{Held, Roll, Scope};

impl Sim {
    /// Enters an event into the books. Returns the runs to which a signal has to be sent.
    pub(crate) fn note(&mut self, event: &Event) -> Vec<(Incarnation, Signal)> {
        let (now, step) = (self.now, self.step);
        let mut signals = Vec::new();
        match event {
            Event::Configure(configure) => {
                self.note_configuration(configure);
                if let Some((cause, by)) = &configure.down {
                    self.note_shutdown(*cause, by);
                }
            }
            Event::Command { verb, target, by } => {
                signals = self.note_command(*verb, target, by);
            }
            Event::Shutdown { cause, by } => self.note_shutdown(*cause, by),
            Event::Spawned { incarnation } | Event::Started { incarnation } => {
                if let Some(run) = self.run(*incarnation) {
                    if !run.made && run.unkillable {
                        run.unkillable = false;
                        run.asked.as_mut().expect("only what is to end hangs").hurried = true;
                    }
                    run.made = true;
                    if matches!(event, Event::Started { .. }) {
                        run.started = Some(now);
                        run.ready = (!run.service.awaits_ready()).then_some(now);
                        if run.asked.is_none() {
                            run.note_started(now);
                        }
                    }
                }
            }
            Event::Ready { incarnation } => {
                if let Some(run) = self.run(*incarnation).filter(|run| run.asked.is_none()) {
                    run.note_ready(now);
                }
            }
            Event::Deferred { incarnation, .. } => self.note_deferral(*incarnation),
            Event::Ended { incarnation, end } => {
                let found = self.book_of(*incarnation).map(|(id, _)| id.clone());
                let id = found.expect("the world ends what runs");
                self.due.insert(*incarnation, (id, Due { end: end.clone(), past: None }));
                self.wake();
            }
            Event::Swept { incarnation, .. } => {
                for book in self.books.values_mut() {
                    if book.sweeping.is_some_and(|(swept, _)| swept == *incarnation) {
                        book.sweeping = None;
                        book.ripen(now, step);
                    }
                }
            }
            Event::ProtocolError { incarnation } => {
                let book = self.books.values_mut().find(|book| {
                    book.run
                        .as_ref()
                        .is_some_and(|run| run.incarnation == *incarnation && run.asked.is_none())
                });
                if let Some(book) = book {
                    book.kill(Cause::Spontaneous, now, true);
                }
            }
            Event::Due { service } => self.note_due(service),
            Event::OutOfMemory { incarnation } => {
                let book = self.books.values_mut().find(|book| {
                    book.run.as_ref().is_some_and(|run| {
                        run.incarnation == *incarnation
                            && run.asked.is_none()
                            && run.service.limits.on_oom == OnOom::Kill
                    })
                });
                if let Some(book) = book {
                    book.kill(Cause::Spontaneous, now, false);
                    if let Some(asked) = book.run.as_mut().and_then(|run| run.asked.as_mut()) {
                        asked.oom = true;
                    }
                }
            }
            Event::Probed { .. } | Event::Said { .. } | Event::Measured { .. } => {
                self.note_watched(event);
            }
            Event::Time => {
                for book in self.books.values_mut() {
                    book.pass(now, step);
                }
            }
        }
        self.note_news();
        self.follow();
        signals
    }

    /// Everything is to end; a second time at once.
    fn note_shutdown(&mut self, cause: Cause, by: &Requester) {
        self.rolls.clear();
        for id in self.books.keys().cloned().collect::<Vec<_>>() {
            if self.closing {
                let book = self.books.get_mut(&id).expect("it was there");
                let held = book.run.as_mut().and_then(|run| run.held.take());
                if let Some(held) = held {
                    book.ask_for(held.cause, held.by, self.now, held.then);
                }
                if let Some(asked) = book.run.as_mut().and_then(|run| run.asked.as_mut()) {
                    asked.hurried = true;
                }
                continue;
            }
            let by = Some(by.clone());
            let held = Held { cause, by, then: Then::Rest, scope: Scope::Everything };
            self.end_in_order(&id, held);
        }
        self.closing = true;
    }

    /// Who is ready and has not heard of a change has to be told.
    fn note_news(&mut self) {
        for run in self.books.values_mut().filter_map(|book| book.run.as_mut()) {
            if run.asked.is_none()
                && run.ready.is_some()
                && let Some((signal, kept)) = run.news.take()
            {
                self.news.push((run.incarnation, signal, kept));
            }
        }
    }

    /// The time of a schedule has come.
    fn note_due(&mut self, service: &ServiceName) {
        let (now, step) = (self.now, self.step);
        if self.closing {
            return;
        }
        let clock = Requester { uid: None, pid: None, who: "the schedule".to_owned() };
        let meant = |(id, book): &(&ReplicaId, &mut Book)| {
            id.service == *service && book.configured && book.wanted
        };
        for (id, book) in self.books.iter_mut().filter(meant) {
            let schedule = book.run.as_ref().and_then(|run| run.service.schedule.as_ref());
            match (&book.run, schedule.map(|own| own.overlap)) {
                (None, _) if matches!(book.plan, Plan::Rest(_)) => book.due(step),
                (None, _) if book.sweeping.is_none() && matches!(book.plan, Plan::At(_)) => {
                    book.due(step);
                }
                (Some(_), Some(Overlap::Kill)) => {
                    book.ask(Cause::Replaced, &clock, now, Then::Again);
                }
                (Some(_), Some(Overlap::Queue)) if !book.due_again => book.due_again = true,
                (None, _) | (Some(_), Some(Overlap::Queue | Overlap::Skip) | None) => {
                    self.overlapped.push(id.clone());
                }
            }
        }
    }

    pub(crate) fn run(&mut self, incarnation: Incarnation) -> Option<&mut Run> {
        let runs = self.books.values_mut().filter_map(|book| book.run.as_mut());
        runs.into_iter().find(|run| run.incarnation == incarnation)
    }

    pub(crate) fn book_of(&self, incarnation: Incarnation) -> Option<(&ReplicaId, &Book)> {
        self.books
            .iter()
            .find(|(_, book)| book.run.as_ref().is_some_and(|run| run.incarnation == incarnation))
    }

    /// Who waits longest for resources tries again.
    pub(crate) fn wake(&mut self) {
        let step = self.step;
        let waiting = self.books.values_mut().filter_map(|book| match (&book.run, book.plan) {
            (None, Plan::Deferred(incarnation, ..)) => Some((incarnation, book)),
            _ => None,
        });
        if let Some((_, book)) = waiting.min_by_key(|(incarnation, _)| *incarnation) {
            book.due(step);
        }
    }

    pub(crate) fn note_deferral(&mut self, incarnation: Incarnation) {
        let (now, step) = (self.now, self.step);
        let book = self.books.values_mut().find(|book| {
            book.run.as_ref().is_some_and(|run| run.incarnation == incarnation && !run.made)
        });
        let Some(book) = book else {
            return;
        };
        let run = book.run.take().expect("it was found by its run");
        let tries = run.tries + 1;
        let wait = Duration::from_millis(100) * tries.min(10);
        let then = run.asked.map(|asked| asked.then);
        book.plan = match then {
            None | Some(Then::Judge) => Plan::Deferred(incarnation, tries, now + wait),
            Some(Then::Again) => Plan::Due(Some((incarnation, tries)), step),
            Some(Then::Rest) => Plan::Rest(Rest::Stopped),
            Some(Then::GiveUp) => Plan::Rest(Rest::Failed),
        };
        book.given_up = then == Some(Then::GiveUp);
    }

    pub(crate) fn note_command(
        &mut self,
        verb: Verb,
        target: &Target,
        by: &Requester,
    ) -> Vec<(Incarnation, Signal)> {
        let (now, step) = (self.now, self.step);
        let mut signals = Vec::new();
        if self.closing && matches!(verb, Verb::Start | Verb::Restart | Verb::Roll) {
            return signals;
        }
        let starts = matches!(verb, Verb::Start | Verb::Restart | Verb::Roll);
        if starts {
            self.pull(&target.service);
        }
        let whole = target.replica.is_none();
        match verb {
            Verb::Stop | Verb::Restart | Verb::StopWithDependents | Verb::Roll => {
                self.rolls.remove(&target.service);
            }
            Verb::Start | Verb::Signal(_) => {}
        }
        if verb == Verb::StopWithDependents {
            self.stop_behind(&target.service, by);
        }
        if verb == Verb::Restart && whole {
            self.restart_behind(&target.service, by);
        }
        let mut left = BTreeSet::new();
        for id in self.configured(&target.service) {
            if target.replica.is_some_and(|replica| replica != id.replica) {
                continue;
            }
            let cleared = self.is_being_cleared(&id.service);
            let waits = whole && self.is_in_the_way(&id.service, Scope::Restarting);
            let book = self.books.get_mut(&id).expect("it is configured");
            let runs =
                book.run.as_ref().is_some_and(|run| run.asked.is_none() && run.started.is_some());
            let hold = |book: &mut Book, cause, then, scope| {
                let held = Held { cause, by: Some(by.clone()), then, scope };
                book.run.as_mut().expect("it runs").held = Some(held);
            };
            match verb {
                Verb::Start => {
                    book.wanted = true;
                    book.start(step);
                }
                Verb::Restart => {
                    book.wanted = true;
                    if runs && waits {
                        hold(book, Cause::RestartRequested, Then::Again, Scope::Restarting);
                    } else if book.run.is_none() {
                        book.due(step);
                    } else {
                        book.ask(Cause::RestartRequested, by, now, Then::Again);
                    }
                }
                Verb::Roll => {
                    book.wanted = true;
                    let stays = |run: &Run| run.asked.is_none() && run.held.is_none();
                    if book.run.as_ref().is_some_and(stays) {
                        left.insert(id.replica);
                    } else if book.run.is_none() {
                        book.due(step);
                    } else {
                        book.ask(Cause::RestartRequested, by, now, Then::Again);
                    }
                }
                Verb::Stop | Verb::StopWithDependents => {
                    book.wanted = false;
                    book.plan = Plan::Rest(Rest::Stopped);
                    if runs && cleared {
                        hold(book, Cause::StopRequested, Then::Rest, Scope::Dependents);
                    } else {
                        book.ask(Cause::StopRequested, by, now, Then::Rest);
                    }
                }
                Verb::Signal(signal) => {
                    if let Some(run) = book.run.as_mut().filter(|run| run.made) {
                        run.signal = Some((signal, by.clone(), now));
                        signals.push((run.incarnation, signal));
                    }
                }
            }
        }
        if verb == Verb::Roll {
            let cause = Cause::RestartRequested;
            let roll = Roll { cause, by: by.clone(), left, current: None };
            self.rolls.insert(target.service.clone(), roll);
        }
        let any = self
            .books
            .iter()
            .any(|(id, book)| id.service == target.service && book.configured && book.wanted);
        if let Some(known) = self.services.get_mut(&target.service) {
            match verb {
                Verb::Start | Verb::Restart | Verb::Roll => known.stopped = false,
                Verb::Stop | Verb::StopWithDependents => {
                    known.stopped = target.replica.is_none() || !any;
                }
                Verb::Signal(_) => {}
            }
        }
        signals
    }
}

impl Book {
    /// Time has passed.
    pub(crate) fn pass(&mut self, now: Tick, step: u64) {
        if let Some(run) = &mut self.run {
            match (&run.asked, run.ready) {
                (None, None) if run.started.is_some() && run.service.ready.is_some() => {
                    run.note_time(now);
                }
                (None, None) if now >= run.ordered + run.service.start_timeout => {
                    let ran = run.started.is_some();
                    let cause = if ran { Cause::ReadyTimeout } else { Cause::StartTimeout };
                    self.kill(cause, now, false);
                }
                (None, Some(at)) => {
                    if now >= at + run.service.restart.reset_after {
                        self.row = 0;
                    }
                    run.note_time(now);
                }
                (None, None) => {}
                (Some(asked), _) => {
                    let hung = match run.steps.last() {
                        Some(last) => last.rank == 3 && now >= last.at + last.patience,
                        None => now >= asked.at + PATIENCE,
                    };
                    run.unkillable |= hung;
                }
            }
            return;
        }
        if let Some((_, since)) = self.sweeping
            && now >= since + PATIENCE
        {
            self.sweeping = None;
        }
        if self.sweeping.is_none() {
            self.ripen(now, step);
        }
    }

    /// What was to start at a time that has come is due.
    pub(crate) fn ripen(&mut self, now: Tick, step: u64) {
        match self.plan {
            Plan::At(at) | Plan::Deferred(.., at) if at <= now => self.due(step),
            Plan::Due(None, _) => self.plan = Plan::Due(None, step),
            Plan::At(_) | Plan::Deferred(..) | Plan::Due(Some(_), _) | Plan::Rest(_) => {}
        }
    }
}
