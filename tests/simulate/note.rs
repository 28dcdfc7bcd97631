//! Events are entered into the books: what each of them makes due.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wharf::event::{Alive, Configure, Event, PastEnd, Rest, Verb};
use wharf::exit::{Cause, Signal};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use wharf::spec::{OnOom, Overlap, Service};
use wharf::time::Tick;

use super::book::{Asked, Book, PATIENCE, Plan, Run, Then};
use super::configs::{FILE, plain, shut_out};
use super::expect::Due;
use super::history::{Known, Sim};
use super::relate::{Held, Roll, Scope, Team};
use super::watch::Watch;

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
        self.rolls.retain(|name, _| wanted.contains_key(name));
        let news: BTreeSet<_> = wanted
            .iter()
            .filter(|(name, new)| {
                self.services.get(*name).is_some_and(|old| is_news(&old.service, new))
            })
            .map(|(name, _)| name.clone())
            .collect();
        let before: Vec<_> = wanted
            .iter()
            .map(|(name, new)| {
                let old = self.services.get(name);
                let changed = old.is_some_and(|old| {
                    let unheard = is_news(&old.service, new) && new.reload_signal.is_none();
                    old.service.command != new.command || unheard
                });
                let stopped =
                    old.map_or_else(|| configure.stopped.contains(name), |old| old.stopped);
                (name, new, changed, stopped)
            })
            .collect();
        for (name, new, _, stopped) in &before {
            let known = Known { service: Arc::clone(new), stopped: *stopped };
            self.services.insert((*name).clone(), known);
        }
        self.note_groups(configure);
        for (name, new, changed, stopped) in before {
            let mut turns = BTreeSet::new();
            let waits = changed && self.is_in_the_way(name, Scope::Restarting);
            if waits {
                self.restart_behind(name, by);
            }
            if changed {
                self.rolls.remove(name);
            }
            let run = |book: &Book| {
                let run = book.run.as_ref();
                run.is_some_and(|run| run.asked.is_none() && run.held.is_none())
            };
            if changed && !waits {
                let all = self.configured(name).into_iter();
                turns = all.filter(|id| run(&self.books[id])).map(|id| id.replica).collect();
            }
            let shut_out = |replica: &u32| {
                let id = ReplicaId { service: name.clone(), replica: *replica };
                self.books[&id].run.as_ref().is_some_and(|run| shut_out(&run.service, new))
            };
            if turns.len() < 2 || turns.iter().any(shut_out) {
                turns.clear();
            }
            for number in 1..=new.replicas {
                let id = ReplicaId { service: name.clone(), replica: number };
                let how = if turns.contains(&number) {
                    How::InTurn
                } else if waits {
                    How::AfterOthers
                } else {
                    How::Now
                };
                match self.books.get_mut(&id) {
                    Some(book) => {
                        let stays = book.configured && !changed;
                        book.reconfigure(new, changed, how, stopped, by, now, step);
                        if stays && news.contains(name) {
                            book.hear_of_changes();
                        }
                    }
                    None => self.note_arrival(id, new, stopped, configure),
                }
            }
            if !turns.is_empty() {
                let cause = Cause::ConfigChanged;
                let roll = Roll { cause, by: by.clone(), left: turns, current: None };
                self.rolls.insert(name.clone(), roll);
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

    /// Groups that are as before keep count of their restarts.
    fn note_groups(&mut self, configure: &Configure) {
        let before = std::mem::take(&mut self.teams);
        for (name, group) in &configure.spec.groups {
            let limit = (group.max_restarts, group.within);
            let same = before
                .get(name)
                .filter(|team| (team.group.max_restarts, team.group.within) == limit);
            let recent = same.map(|team| team.recent.clone()).unwrap_or_default();
            self.teams.insert(name.clone(), Team { group: group.clone(), recent });
        }
    }

    pub(crate) fn note_arrival(
        &mut self,
        id: ReplicaId,
        new: &Arc<Service>,
        stopped: bool,
        configure: &Configure,
    ) {
        let past = configure.past.iter().find(|past| past.replica == id);
        let (wanted, plan) = match past.map(|past| &past.ended) {
            _ if stopped => (false, Plan::Rest(Rest::Stopped)),
            Some(PastEnd::Unrecorded { .. }) if configure.down.is_some() => {
                (false, Plan::Rest(Rest::Stopped))
            }
            Some(PastEnd::Resting(rest)) => (*rest != Rest::Stopped, Plan::Rest(*rest)),
            None if new.schedule.is_some() => (true, Plan::Rest(Rest::Scheduled)),
            Some(PastEnd::Unrecorded { .. } | PastEnd::Alive(_) | PastEnd::Between) | None => {
                let until = past.and_then(|past| past.until).filter(|at| *at > self.now);
                (true, until.map_or(Plan::Due(None, self.step), Plan::At))
            }
        };
        let mut book = Book::new(Arc::clone(new), wanted, plan);
        book.row = past.map_or(0, |past| past.row);
        if let Some(PastEnd::Alive(alive)) = past.map(|past| &past.ended) {
            book.go_on(alive, self.now);
            let before = self.before.get(&id).filter(|_| alive.memo.is_some());
            let is_ending = before.is_some_and(|before| book.recall(before));
            if stopped && !is_ending {
                book.ask(Cause::StopRequested, &configure.by, self.now, Then::Rest);
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
            held: None,
            signal: None,
            news: None,
            steps: Vec::new(),
            unkillable: false,
            watch: Watch::default(),
        };
        if alive.in_step {
            run.note_started(now);
            run.ready = alive.ready;
            let signal = self.service.reload_signal.filter(|_| alive.stale && self.wanted);
            run.news = signal.map(|signal| (signal.0, true));
        }
        self.run = Some(run);
    }

    /// What was noted of its run is so again. True where that is being ended.
    fn recall(&mut self, before: &Self) -> bool {
        self.wanted &= before.wanted;
        self.due_again = before.due_again;
        let (Some(run), Some(was)) = (&mut self.run, &before.run) else { return false };
        run.signal.clone_from(&was.signal);
        let Some(asked) = &was.asked else { return false };
        let mut asked = asked.clone();
        if !self.wanted && asked.then != Then::GiveUp {
            asked.then = Then::Rest;
        }
        (run.asked, run.news) = (Some(asked), None);
        (run.steps, run.unkillable) = (was.steps.clone(), was.unkillable);
        true
    }

    /// A file changed that its program reads, if there is one that can be told.
    fn hear_of_changes(&mut self) {
        let Some(signal) = self.service.reload_signal else { return };
        let run = self.run.as_mut().filter(|run| run.asked.is_none());
        // What does not run yet, and is ready as soon as it does, finds what stands there now.
        if let Some(run) = run.filter(|run| run.ready.is_some() || run.service.awaits_ready()) {
            run.news = Some((signal.0, false));
        }
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
    #[expect(clippy::too_many_arguments, reason = "each says something else of one reload")]
    pub(crate) fn reconfigure(
        &mut self,
        new: &Arc<Service>,
        changed: bool,
        how: How,
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
        let runs_on =
            self.run.as_ref().is_some_and(|run| run.asked.is_none() && run.started.is_some());
        if let Some(run) = &mut self.run {
            run.outdated = true;
        }
        match how {
            How::InTurn => {}
            How::AfterOthers if runs_on && !returns => {
                let (cause, by) = (Cause::ConfigChanged, Some(by.clone()));
                let held = Held { cause, by, then: Then::Again, scope: Scope::Restarting };
                self.run.as_mut().expect("it runs").held = Some(held);
            }
            How::AfterOthers | How::Now => self.change(by, now, step),
        }
    }
}

/// Whether something else stands in a file that both read.
fn is_news(old: &Service, new: &Service) -> bool {
    let path = Path::new(FILE);
    match (old.config_files.get(path), new.config_files.get(path)) {
        (Some(before), Some(after)) => before != after,
        (None, _) | (_, None) => false,
    }
}

/// When a run makes room for another configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Now,
    /// When its turn comes.
    InTurn,
    /// When those are down that are restarted with it.
    AfterOthers,
}
