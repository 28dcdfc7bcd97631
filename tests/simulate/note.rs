//! Events are entered into the books: what each of them makes due.

use std::sync::Arc;
use std::time::Duration;

use wharf::event::{Alive, Configure, Event, Past, PastEnd, Rest, Verb};
use wharf::exit::{Cause, Signal};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use wharf::spec::{OnOom, Overlap, Service};
use wharf::time::Tick;

use crate::book::{Asked, Book, PATIENCE, Plan, Run, Then};
use crate::configs::plain;
use crate::expect::Due;
use crate::history::{Known, Sim};
use crate::watch::Watch;

impl Sim {
    /// Enters an event into the books. Returns the runs to which a signal has to be sent.
    pub(crate) fn note(&mut self, event: &Event) -> Vec<(Incarnation, Signal)> {
        let (now, step) = (self.now, self.step);
        let mut signals = Vec::new();
        match event {
            Event::Configure(configure) => self.note_configuration(configure),
            Event::Command { verb, target, by } => {
                signals = self.note_command(*verb, target, by);
            }
            Event::Shutdown { cause, by } => {
                for book in self.books.values_mut() {
                    if self.closing {
                        if let Some(asked) = book.run.as_mut().and_then(|run| run.asked.as_mut()) {
                            asked.hurried = true;
                        }
                        continue;
                    }
                    book.ask(*cause, by, now, Then::Rest);
                    if book.run.is_none() && !book.plan.is_rest() {
                        book.plan = Plan::Rest(Rest::Stopped);
                    }
                }
                self.closing = true;
            }
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
        signals
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
        book.plan = match run.asked.map(|asked| asked.then) {
            None | Some(Then::Judge) => Plan::Deferred(incarnation, tries, now + wait),
            Some(Then::Again) => Plan::Due(Some((incarnation, tries)), step),
            Some(Then::Rest) => Plan::Rest(Rest::Stopped),
        };
    }

    pub(crate) fn note_command(
        &mut self,
        verb: Verb,
        target: &Target,
        by: &Requester,
    ) -> Vec<(Incarnation, Signal)> {
        let (now, step) = (self.now, self.step);
        let mut signals = Vec::new();
        if self.closing && matches!(verb, Verb::Start | Verb::Restart) {
            return signals;
        }
        for (id, book) in &mut self.books {
            let meant = id.service == target.service
                && target.replica.is_none_or(|replica| replica == id.replica);
            if !meant || !book.configured {
                continue;
            }
            match verb {
                Verb::Start | Verb::Restart => {
                    book.wanted = true;
                    if book.run.is_none() {
                        book.due(step);
                    } else if verb == Verb::Restart {
                        book.ask(Cause::RestartRequested, by, now, Then::Again);
                    } else if let Some(asked) = book.run.as_mut().and_then(|run| run.asked.as_mut())
                    {
                        asked.then = Then::Again;
                    }
                }
                Verb::Stop => {
                    book.wanted = false;
                    book.ask(Cause::StopRequested, by, now, Then::Rest);
                    book.plan = Plan::Rest(Rest::Stopped);
                }
                Verb::Signal(signal) => {
                    if let Some(run) = book.run.as_mut().filter(|run| run.made) {
                        run.signal = Some((signal, by.clone(), now));
                        signals.push((run.incarnation, signal));
                    }
                }
            }
        }
        let any = self
            .books
            .iter()
            .any(|(id, book)| id.service == target.service && book.configured && book.wanted);
        if let Some(known) = self.services.get_mut(&target.service) {
            match verb {
                Verb::Start | Verb::Restart => known.stopped = false,
                Verb::Stop => known.stopped = target.replica.is_none() || !any,
                Verb::Signal(_) => {}
            }
        }
        signals
    }

    pub(crate) fn note_configuration(&mut self, configure: &Configure) {
        if self.closing {
            return;
        }
        let (now, step) = (self.now, self.step);
        let by = &configure.by;
        let wanted = &configure.spec.services;
        self.services.retain(|name, _| wanted.contains_key(name));
        for (id, book) in &mut self.books {
            let stays = wanted.get(&id.service).is_some_and(|new| id.replica <= new.replicas);
            if book.configured && !stays {
                book.configured = false;
                book.ask(Cause::ConfigChanged, by, now, Then::Rest);
                if !book.plan.is_rest() {
                    book.plan = Plan::Rest(Rest::Stopped);
                }
            }
        }
        for (name, new) in wanted {
            let old = self.services.get(name);
            let changed = old.is_some_and(|old| old.service.command != new.command);
            let stopped = old.map_or_else(|| configure.stopped.contains(name), |old| old.stopped);
            self.services.insert(name.clone(), Known { service: Arc::clone(new), stopped });
            for number in 1..=new.replicas {
                let id = ReplicaId { service: name.clone(), replica: number };
                match self.books.get_mut(&id) {
                    Some(book) => book.reconfigure(new, changed, stopped, by, now, step),
                    None => self.note_arrival(id, new, stopped, by, &configure.past),
                }
            }
        }
        for past in &configure.past {
            if let PastEnd::Alive(alive) = &past.ended {
                self.newest = self.newest.max(alive.incarnation);
                if !self.books.contains_key(&past.replica) {
                    let service = Arc::new(plain(past.replica.service.as_str()));
                    let mut book = Book::new(service, true, Plan::Rest(Rest::Stopped));
                    book.go_on(alive, now);
                    book.configured = false;
                    book.wanted = false;
                    book.ask(Cause::ConfigChanged, by, now, Then::Rest);
                    self.books.insert(past.replica.clone(), book);
                }
            }
            if let PastEnd::Unrecorded { incarnation, end, cause } = &past.ended {
                let due = Due { end: end.clone(), past: Some(*cause) };
                self.due.insert(*incarnation, (past.replica.clone(), due));
                self.newest = self.newest.max(*incarnation);
                if !self.books.contains_key(&past.replica) {
                    let service = Arc::new(plain(past.replica.service.as_str()));
                    let mut book = Book::new(service, false, Plan::Rest(Rest::Stopped));
                    book.configured = false;
                    self.books.insert(past.replica.clone(), book);
                }
            }
        }
    }

    pub(crate) fn note_arrival(
        &mut self,
        id: ReplicaId,
        new: &Arc<Service>,
        stopped: bool,
        by: &Requester,
        past: &[Past],
    ) {
        let past = past.iter().find(|past| past.replica == id);
        let (wanted, plan) = match past.map(|past| &past.ended) {
            _ if stopped => (false, Plan::Rest(Rest::Stopped)),
            Some(PastEnd::Resting(rest)) => (*rest != Rest::Stopped, Plan::Rest(*rest)),
            None if new.schedule.is_some() => (true, Plan::Rest(Rest::Scheduled)),
            Some(PastEnd::Unrecorded { .. } | PastEnd::Alive(_) | PastEnd::Between) | None => {
                (true, Plan::Due(None, self.step))
            }
        };
        let mut book = Book::new(Arc::clone(new), wanted, plan);
        book.row = past.map_or(0, |past| past.row);
        if let Some(PastEnd::Alive(alive)) = past.map(|past| &past.ended) {
            book.go_on(alive, self.now);
            if stopped {
                book.ask(Cause::StopRequested, by, self.now, Then::Rest);
            }
        }
        self.books.insert(id, book);
    }
}

impl Book {
    /// A run of an earlier life goes on; one that is out of step is to be ended.
    pub(crate) fn go_on(&mut self, alive: &Alive, now: Tick) {
        let then = if self.wanted { Then::Again } else { Then::Rest };
        let renewed = Asked {
            cause: Cause::ManagerDied,
            by: None,
            at: now,
            then,
            kill: false,
            protocol: false,
            oom: false,
            hurried: false,
        };
        let mut run = Run {
            incarnation: alive.incarnation,
            service: Arc::clone(&self.service),
            outdated: false,
            ordered: alive.started,
            tries: 0,
            made: true,
            started: Some(alive.started),
            ready: alive.ready,
            asked: (!alive.in_step).then_some(renewed),
            signal: None,
            steps: Vec::new(),
            unkillable: false,
            watch: Watch::default(),
        };
        if alive.in_step {
            run.note_started(now);
            run.ready = alive.ready;
        }
        self.run = Some(run);
    }

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

    /// A configuration reaches a replica that was there before.
    pub(crate) fn reconfigure(
        &mut self,
        new: &Arc<Service>,
        changed: bool,
        stopped: bool,
        by: &Requester,
        now: Tick,
        step: u64,
    ) {
        let returns = !self.configured;
        self.configured = true;
        if returns {
            self.wanted = !stopped;
        }
        let old = std::mem::replace(&mut self.service, Arc::clone(new)).restart.clone();
        if (old.max_restarts, old.within) != (new.restart.max_restarts, new.restart.within) {
            self.recent.clear();
        }
        if !changed && !returns {
            if let Some(run) = self.run.as_mut().filter(|run| !run.outdated) {
                let old = std::mem::replace(&mut run.service, Arc::clone(new));
                run.note_settings(&old, now);
            }
            if new.schedule.is_none() && self.plan == Plan::Rest(Rest::Scheduled) {
                self.due(step);
            }
            return;
        }
        self.row = 0;
        self.recent.clear();
        match &mut self.run {
            Some(run) => {
                run.outdated = true;
                let then = if self.wanted { Then::Again } else { Then::Rest };
                self.ask(Cause::ConfigChanged, by, now, then);
            }
            None if new.schedule.is_some() && matches!(self.plan, Plan::Rest(_)) => {}
            None if self.wanted => self.due(step),
            None => {}
        }
    }
}
