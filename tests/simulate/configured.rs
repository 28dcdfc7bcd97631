//! A configuration is entered into the books: the first one with what an earlier life left, and reloads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use wharf::event::{Alive, Configure, PastEnd, Rest};
use wharf::exit::Cause;
use wharf::name::{ReplicaId, Requester};
use wharf::spec::Service;
use wharf::time::Tick;

use super::book::{Asked, Book, Plan, Run, Then};
use super::configs::{FILE, plain, shut_out};
use super::expect::Due;
use super::history::{Known, Sim};
use super::relate::{Held, Roll, Scope, Team};
use super::watch::Watch;

impl Sim {
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
            How::AfterOthers if !self.wanted && self.run.as_ref().is_some_and(Run::is_to_rest) => {}
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
