//! Questions asked of every action, and of everything after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wharf::event::{Action, Event, Reread, Rest, State, Verb};
use wharf::exit::{Cause, Signal};
use wharf::name::{Incarnation, ReplicaId, ServiceName};
use wharf::spec::{KillScope, Service};
use wharf::supervise::{CRASH_LOOPING, Hold, MAX_STARTING};

use super::book::{PATIENCE, Plan, Run, Step};
use super::configs::FILE;
use super::expect;
use super::history::{Sim, short};
use super::oracles::{Fault, Oracle, Tally};
use super::relate::Scope;
use super::watch::{Watch, oracle_of};
use super::world::Dice;

impl Sim {
    /// Looks at one action before and while it is carried out.
    pub(crate) fn check(
        &mut self,
        action: &Action,
        event: &Event,
        signals: &mut Vec<(Incarnation, Signal)>,
        dice: &mut Dice,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        match action {
            Action::Spawn { incarnation, replica, service } => {
                self.check_spawn(*incarnation, replica, service, t)?;
            }
            Action::Record { incarnation, replica, verdict } => {
                let due = self.due.remove(incarnation).filter(|(id, _)| id == replica);
                t.hold(Oracle::RecordedOnce, due.is_some(), || {
                    format!("{incarnation} of {replica} is not to be recorded now")
                })?;
                let (now, step) = (self.now, self.step);
                let (_, due) = due.expect("it was looked at");
                if due.past.is_some() {
                    t.hold(Oracle::PastIsRecorded, true, String::new)?;
                }
                let home = self.home(&replica.service).map(|(name, ..)| name.to_owned());
                let team = home.and_then(|name| self.teams.get_mut(&name));
                let book = self.books.get_mut(replica).expect("what is due has a book");
                let sweeping = book.sweeping.is_some();
                let fallout = expect::record(book, &due, verdict, now, step, team, t)?;
                self.fallouts.extend(fallout.map(|fallout| (replica.clone(), fallout)));
                t.hold(Oracle::OrderAtAnEnd, !sweeping, || "swept before it ended".to_owned())?;
                self.over.push(*incarnation);
                if self.books[replica].sweep_owed.is_none() {
                    self.follow();
                }
            }
            Action::Sweep { incarnation, scope } => {
                let last = self.over.last() == Some(incarnation)
                    || matches!(event, Event::Configure(_)) && self.over.contains(incarnation);
                t.hold(Oracle::OrderAtAnEnd, last, || {
                    format!("{incarnation} is swept before it is recorded")
                })?;
                let found = self.books.values_mut().find(|book| {
                    book.run.is_none() && book.sweeping.is_none() && book.sweep_owed == Some(*scope)
                });
                let now = self.now;
                let needed = found.map(|book| {
                    book.sweep_owed = None;
                    book.sweeping = Some((*incarnation, now));
                });
                t.hold(Oracle::SweepOnlyWhenNeeded, needed.is_some(), || {
                    format!("nobody needs {scope:?} of {incarnation} to be swept")
                })?;
                self.follow();
            }
            Action::Forget { replica } => {
                let gone = self.books.remove(replica);
                let right = gone.as_ref().is_some_and(|book| !book.configured && book.is_empty());
                t.hold(Oracle::RemovedIsForgotten, right, || {
                    format!("{replica} is forgotten: {gone:?}")
                })?;
            }
            Action::Signal { .. }
            | Action::Kill { .. }
            | Action::SendQuit { .. }
            | Action::CloseInput { .. } => self.check_step(action, event, signals, t)?,
            Action::Reread { incarnation, replica, reread } => {
                self.check_news(*incarnation, replica, reread, t)?;
            }
            Action::Probe { .. } | Action::Measure { .. } => self.check_question(action, t)?,
            Action::Changed { replica } => {
                t.hold(Oracle::ChangesAreTold, self.books.contains_key(replica), || {
                    format!("{replica} changed but is unknown")
                })?;
            }
            Action::Overlapped { replica } => {
                let at = self.overlapped.iter().position(|owed| owed == replica);
                t.hold(Oracle::OverlapIsTold, at.is_some(), || {
                    format!("nothing of {replica} is left out")
                })?;
                self.overlapped.remove(at.expect("it was looked at"));
            }
            Action::Halted { .. } | Action::Persist | Action::Down => {}
        }
        self.world.apply(action, dice).or_else(|words| {
            t.hold(Oracle::NothingToTheDead, false, || format!("{}: {words}", short(action)))
        })
    }

    /// A program is told to read its files again.
    fn check_news(
        &mut self,
        incarnation: Incarnation,
        replica: &ReplicaId,
        reread: &Reread,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let now = self.now;
        let at = self.news.iter().position(|(run, ..)| *run == incarnation);
        let owed = at.map(|at| self.news.remove(at));
        t.hold(Oracle::OnlyNewsIsTold, owed.is_some(), || {
            format!("{replica} is told of {:?}, which is no news to it", reread.files)
        })?;
        let (_, signal, kept) = owed.expect("it was looked at");
        let files: &[String] = if kept { &[] } else { &[FILE.to_owned()] };
        let right = reread.signal == signal && reread.files == files;
        let oracle = if kept { Oracle::KeptHearsOfChanges } else { Oracle::ChangedFilesAreTold };
        t.hold(oracle, right, || {
            format!("{replica} is told {reread:?} instead of {signal} of {files:?}")
        })?;
        let run = self.run(incarnation).filter(|run| run.asked.is_none() && run.ready.is_some());
        let well = run.is_some();
        if let Some(run) = run {
            run.signal = Some((signal, reread.by.clone(), now));
        }
        t.hold(Oracle::OnlyNewsIsTold, well, || format!("{replica} is not there to be told"))
    }

    pub(crate) fn check_spawn(
        &mut self,
        incarnation: Incarnation,
        replica: &ReplicaId,
        service: &Arc<Service>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let in_flight = self.in_flight();
        t.hold(Oracle::StartsAreGentle, in_flight < MAX_STARTING, || {
            format!("{in_flight} are being started already")
        })?;
        t.hold(Oracle::NothingStartsAfterShutdown, !self.closing, || {
            format!("{replica} is started though everything is to end")
        })?;
        let gate = self.gate(&replica.service);
        let oracle = match &gate {
            Some(Hold::Turn { .. } | Hold::Emptying { .. }) => Oracle::GroupStartsInOrder,
            Some(Hold::Without { .. }) => Oracle::DependentsAreSkipped,
            Some(Hold::Until { .. } | Hold::GaveUp { .. }) | None => {
                Oracle::DependenciesAreWaitedFor
            }
        };
        t.hold(oracle, gate.is_none(), || format!("{replica} is started: {gate:?}"))?;
        let first = self
            .books
            .iter()
            .filter(|(id, book)| {
                let due = book.is_empty() && matches!(book.plan, Plan::Due(..));
                due && self.gate(&id.service).is_none()
            })
            .filter_map(|(_, book)| match book.plan {
                Plan::Due(retry, step) => Some((retry.is_none(), retry, step)),
                Plan::Rest(_) | Plan::At(_) | Plan::Deferred(..) => None,
            })
            .min();
        let twin = self.world.processes.values().any(|process| process.replica == *replica);
        let Some(book) = self.books.get_mut(replica) else {
            return t.hold(Oracle::RemovedIsForgotten, false, || format!("{replica} is unknown"));
        };
        t.hold(Oracle::OneLife, book.run.is_none() && !twin, || {
            format!("{replica} has a run already")
        })?;
        t.hold(
            Oracle::SweepBeforeSuccessor,
            book.sweeping.is_none() && book.sweep_owed.is_none(),
            || format!("{replica} starts beside what its last run left behind"),
        )?;
        t.hold(Oracle::RemovedIsForgotten, book.configured, || {
            format!("{replica} is started though it is not configured")
        })?;
        t.hold(Oracle::StoppedStays, book.wanted, || {
            format!("{replica} is started though it was stopped")
        })?;
        let (retry, since) = match book.plan {
            Plan::Due(retry, since) => (retry, since),
            Plan::At(at) => {
                return t.hold(Oracle::BackoffWithinBounds, false, || {
                    format!("{replica} is started before {at:?}")
                });
            }
            Plan::Deferred(.., at) => {
                return t.hold(Oracle::DeferredIsTriedAgain, false, || {
                    format!("{replica} is tried again before {at:?}")
                });
            }
            Plan::Rest(Rest::Scheduled) => {
                return t.hold(Oracle::ScheduledWaits, false, || {
                    format!("{replica} is started before its time")
                });
            }
            Plan::Rest(rest) => {
                return t.hold(Oracle::PolicyDecides, false, || {
                    format!("{replica} is started though it rests, {rest:?}")
                });
            }
        };
        t.hold(Oracle::StartsAreFair, first == Some((retry.is_none(), retry, since)), || {
            format!("{replica} is started before others: {first:?}")
        })?;
        if let Some((tried, _)) = retry {
            t.hold(Oracle::DeferredIsTriedAgain, incarnation == tried, || {
                format!("{tried} is tried again as {incarnation}")
            })?;
        } else {
            let newest = self.newest;
            t.hold(Oracle::IncarnationsGrow, incarnation > newest, || {
                format!("{incarnation} comes after {newest}")
            })?;
            self.newest = incarnation;
        }
        let newest = Arc::ptr_eq(service, &book.service) || **service == *book.service;
        t.hold(Oracle::NewestConfiguration, newest, || {
            format!("{replica} is started with {service:?} instead of {:?}", book.service)
        })?;
        t.hold(Oracle::ScheduledWaits, true, String::new)?;
        book.due_again = false;
        book.run = Some(Run {
            incarnation,
            service: Arc::clone(service),
            outdated: false,
            ordered: self.now,
            tries: retry.map_or(0, |(_, tries)| tries),
            made: false,
            started: None,
            ready: None,
            asked: None,
            held: None,
            signal: None,
            news: None,
            steps: Vec::new(),
            unkillable: false,
            watch: Watch::default(),
        });
        Ok(())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.books
            .values()
            .filter_map(|book| book.run.as_ref())
            .filter(|run| run.started.is_none() && !run.unkillable)
            .count()
    }

    /// A step of a ladder, or an operator's signal on its way.
    pub(crate) fn check_step(
        &mut self,
        action: &Action,
        event: &Event,
        signals: &mut Vec<(Incarnation, Signal)>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let now = self.now;
        let (incarnation, rank) = match action {
            Action::SendQuit { incarnation } => (*incarnation, 0),
            Action::CloseInput { incarnation } => (*incarnation, 1),
            Action::Signal { incarnation, .. } => (*incarnation, 2),
            Action::Kill { incarnation, .. } => (*incarnation, 3),
            other => unreachable!("{other:?} is no step"),
        };
        if let (
            Action::Signal { signal, group, .. },
            Event::Command { verb: Verb::Signal(_), .. },
        ) = (action, event)
        {
            let at = signals.iter().position(|owed| *owed == (incarnation, *signal));
            t.hold(Oracle::SignalIsPassedOn, at.is_some() && !group, || {
                format!("{signal} to {incarnation} was not asked for")
            })?;
            signals.remove(at.expect("it was looked at"));
            return Ok(());
        }
        self.check_age(incarnation, event, t)?;
        let Some(run) = self.run(incarnation) else {
            return t.hold(Oracle::NothingToTheDead, false, || short(action));
        };
        t.hold(Oracle::NothingToTheDead, run.made, || format!("{} too early", short(action)))?;
        if let (Some(held), None) = (&run.held, &run.asked) {
            let oracle = match held.scope {
                Scope::Group => Oracle::GroupEndsInReverse,
                Scope::Restarting => Oracle::DependentsRestartToo,
                Scope::Dependents | Scope::Everything => Oracle::DependentsStopFirst,
            };
            return t.hold(oracle, false, || format!("{} comes too early", short(action)));
        }
        t.hold(Oracle::LadderInOrder, run.asked.is_some(), || {
            format!("nobody asked for {}", short(action))
        })?;
        if let Action::Signal { signal: Signal::CONT, group, .. } = action {
            let after = run.steps.last().is_some_and(|step| step.rank == 2 && step.at == now);
            let same = *group == (run.service.stop.kill != KillScope::Process);
            return t.hold(Oracle::LadderInOrder, after && same, || "a stray SIGCONT".to_owned());
        }
        let name = match action {
            Action::SendQuit { .. } => "quit".to_owned(),
            Action::CloseInput { .. } => "close_stdin".to_owned(),
            Action::Signal { signal, group, .. } => {
                let right = *signal == run.service.stop.signal
                    && *group == (run.service.stop.kill != KillScope::Process);
                t.hold(Oracle::LadderInOrder, right, || format!("{} is wrong", short(action)))?;
                signal.to_string()
            }
            _ => "SIGKILL".to_owned(),
        };
        let last = run.steps.last();
        let next =
            run.ladder().into_iter().find(|(place, _)| last.is_none_or(|last| last.rank < *place));
        t.hold(Oracle::LadderInOrder, next.is_some_and(|(place, _)| place == rank), || {
            format!("{} is not the next step of {:?}", short(action), run.ladder())
        })?;
        let forced = run.asked.as_ref().is_some_and(|asked| asked.kill || asked.hurried);
        let early = last.is_some_and(|last| now.since(last.at) < last.patience);
        t.hold(Oracle::LadderTakesItsTime, forced || !early, || {
            format!("{} comes {:?} after {last:?}", short(action), last.map(|l| now.since(l.at)))
        })?;
        if let Action::Kill { scope, .. } = action {
            let right = *scope == run.scope();
            t.hold(Oracle::LadderInOrder, right, || format!("{} is too far", short(action)))?;
        }
        let patience = next.map_or(PATIENCE, |(_, patience)| patience);
        run.steps.push(Step { rank, name, at: now, patience });
        Ok(())
    }

    pub(crate) fn after_shutdown(
        &mut self,
        event: &Event,
        asked: &BTreeSet<Incarnation>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let begins = match event {
            Event::Shutdown { .. } => true,
            Event::Configure(configure) => configure.down.is_some(),
            _ => false,
        };
        if !begins {
            return Ok(());
        }
        for run in self.books.values().filter_map(|book| book.run.as_ref()) {
            if !run.made || run.held.is_some() && run.asked.is_none() {
                continue;
            }
            if asked.contains(&run.incarnation) {
                let hurried = run.asked.as_ref().is_some_and(|asked| asked.hurried);
                t.hold(Oracle::SecondHurries, !hurried || run.is_killed(), || {
                    format!("{} was not killed", run.incarnation)
                })?;
            } else {
                t.hold(Oracle::AllAreAskedAtOnce, !run.steps.is_empty(), || {
                    format!("{} was not asked", run.incarnation)
                })?;
            }
        }
        Ok(())
    }

    /// A stop that names a service is about that service.
    pub(crate) fn others_run_on(
        &self,
        event: &Event,
        before: &BTreeSet<(ServiceName, Incarnation)>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let Event::Command { verb: Verb::Stop, target, .. } = event else {
            return Ok(());
        };
        for (service, run) in before.iter().filter(|(service, _)| *service != target.service) {
            let book = self.book_of(*run).map(|(_, book)| book);
            let asked = book.and_then(|book| book.run.as_ref()?.asked.as_ref());
            t.hold(Oracle::StopIsForOne, asked.is_none(), || {
                format!("{service} is ended too: {asked:?}")
            })?;
        }
        Ok(())
    }

    /// What has to be true after every step.
    pub(crate) fn after_all(&mut self, event: &Event, t: &mut Tally) -> Result<(), Fault> {
        let now = self.now;
        let full = self.in_flight() >= MAX_STARTING;
        for (id, book) in &self.books {
            t.hold(Oracle::SweepOnlyWhenNeeded, book.sweep_owed.is_none(), || {
                format!("what {id} left behind is not swept")
            })?;
            let forgotten = book.configured || !book.is_empty();
            t.hold(Oracle::RemovedIsForgotten, forgotten, || format!("{id} is not forgotten"))?;
            if let Some(run) = &book.run {
                if let Some(asked) = run.asked.as_ref().filter(|_| run.made) {
                    let oracle = match (asked.cause, asked.protocol) {
                        _ if asked.oom => Oracle::OomEndsAll,
                        (_, true) => Oracle::ProtocolErrorKills,
                        (Cause::StartTimeout, _) => Oracle::StartTimeoutKills,
                        (Cause::ReadyTimeout, _) => Oracle::ReadyTimeoutKills,
                        (Cause::ConfigChanged, _) => Oracle::ChangedRunsAnew,
                        (Cause::RestartRequested, _) => Oracle::RestartRunsAnew,
                        (Cause::ManagerDied, _) => Oracle::KeptOutOfStepIsRenewed,
                        (Cause::GroupStrategy, _) => Oracle::GroupRestartsTogether,
                        (Cause::DependencyStopped, _) => Oracle::DependentsRestartToo,
                        (cause, _) => oracle_of(cause).unwrap_or(Oracle::StopIsHeard),
                    };
                    t.hold(oracle, !run.steps.is_empty(), || {
                        format!("nothing is done to end {id}: {run:?}")
                    })?;
                    let late = matches!(event, Event::Time)
                        && !run.unkillable
                        && run.steps.last().is_some_and(|last| last.at + last.patience <= now);
                    t.hold(Oracle::LadderGoesOn, !late, || {
                        format!("nothing more is done to end {id}: {run:?}")
                    })?;
                }
                if run.is_killed() {
                    let kills = matches!(
                        run.asked.as_ref().map(|asked| (asked.cause, asked.kill)),
                        Some((Cause::StartTimeout, true))
                    );
                    t.hold(Oracle::StartTimeoutKills, !kills || run.steps.len() == 1, || {
                        format!("{id} was asked before it was killed")
                    })?;
                    let kills = matches!(
                        run.asked.as_ref().map(|asked| (asked.cause, asked.kill)),
                        Some((Cause::ReadyTimeout, true))
                    );
                    t.hold(Oracle::ReadyTimeoutKills, !kills || run.steps.len() == 1, || {
                        format!("{id} was asked before it was killed")
                    })?;
                    let oom = run.asked.as_ref().is_some_and(|asked| asked.oom);
                    t.hold(Oracle::OomEndsAll, !oom || run.steps.len() == 1, || {
                        format!("{id} was asked before it was killed")
                    })?;
                    let protocol = run.asked.as_ref().is_some_and(|asked| asked.protocol);
                    t.hold(Oracle::ProtocolErrorKills, !protocol || run.steps.len() == 1, || {
                        format!("{id} was asked before it was killed")
                    })?;
                }
            } else if let (Plan::Due(retry, _), None) = (book.plan, book.sweeping) {
                let oracle = match (retry, event) {
                    (Some(_), _) => Oracle::DeferredIsTriedAgain,
                    (None, Event::Time) => Oracle::WantedMovesOn,
                    (None, Event::Configure(_)) => Oracle::ReplicasFollow,
                    (None, _) => Oracle::StartRuns,
                };
                let gate = self.gate(&id.service);
                let oracle = if self.needs(&id.service).is_empty() {
                    oracle
                } else {
                    Oracle::DependentsStartWhenTheyCan
                };
                t.hold(oracle, full || gate.is_some(), || format!("{id} is due and not started"))?;
            }
            let moving = book.wanted && book.configured && !self.closing && book.is_empty();
            if moving && let Plan::At(at) | Plan::Deferred(.., at) = book.plan {
                let next = self.supervisor.next_deadline();
                let soon = next.is_some_and(|next| next <= at + Duration::from_micros(1));
                t.hold(Oracle::WantedMovesOn, soon, || format!("{id} waits for {next:?}"))?;
            }
        }
        if matches!(event, Event::Time) {
            let next = self.supervisor.next_deadline();
            t.hold(Oracle::TimeIsHandled, next.is_none_or(|next| next > now), || {
                format!("the next deadline is {next:?}")
            })?;
        }
        for (id, known) in self.services.values().flat_map(|known| {
            let name = &known.service.name;
            let id = move |replica| ReplicaId { service: name.clone(), replica };
            (1..=known.service.replicas).map(move |replica| (id(replica), known))
        }) {
            let there = self.closing || self.supervisor.view(&id).is_some();
            t.hold(Oracle::ReplicasFollow, there, || {
                format!("{id} is missing of {}", known.service.replicas)
            })?;
        }
        Ok(())
    }

    /// Whatever can be seen to have changed was said to have changed.
    pub(crate) fn told(&mut self, actions: &[Action], t: &mut Tally) -> Result<(), Fault> {
        let views: BTreeMap<_, _> =
            self.supervisor.views().map(|view| (view.replica.clone(), view)).collect();
        for (id, view) in &views {
            let told = self.views.get(id) == Some(view)
                || actions
                    .iter()
                    .any(|action| matches!(action, Action::Changed { replica } if replica == id));
            t.hold(Oracle::ChangesAreTold, told, || format!("{id} changed: {view:?}"))?;
        }
        self.views = views;
        Ok(())
    }

    /// What the supervisor shows is what the books and the world say.
    pub(crate) fn agree(&mut self, t: &mut Tally) -> Result<(), Fault> {
        let now = self.now;
        let mut shown = 0;
        for view in self.supervisor.views() {
            shown += 1;
            let id = &view.replica;
            let Some(book) = self.books.get(id) else {
                return t.hold(Oracle::BeliefIsWorld, false, || format!("{id} is unknown"));
            };
            self.hold_is_true(id, view.hold.as_deref(), t)?;
            let due = book.is_empty() && matches!(book.plan, Plan::Due(..));
            let skipped = due && self.is_skipped(&id.service);
            let state = if skipped { State::Failed } else { book.state() };
            let book = self.books.get_mut(id).expect("it was looked at");
            let waits = book.run.as_ref().is_some_and(|run| run.started.is_some());
            let oracle = match (view.state, state) {
                (_, State::Starting) if waits => Oracle::ReadyIsWaitedFor,
                (_, State::Unkillable) => Oracle::UnkillableIsReported,
                (State::Stopping, _) if book.run.is_none() => Oracle::SweepIsBounded,
                (_, State::Failed) if skipped => Oracle::DependentsAreSkipped,
                (_, State::Finished | State::Failed) => Oracle::RestStays,
                (_, State::Stopped) => Oracle::StopIsHeard,
                _ => Oracle::BeliefIsWorld,
            };
            t.hold(oracle, view.state == state, || {
                format!("{id} is shown as {:?} and is {state:?}: {book:?}", view.state)
            })?;
            let run = book.run.as_ref().map(|run| run.incarnation);
            let run = run.or(book.sweeping.map(|(incarnation, _)| incarnation));
            t.hold(Oracle::BeliefIsWorld, view.incarnation == run, || {
                format!("{id} is shown as run {:?} and is {run:?}", view.incarnation)
            })?;
            let oracle = if matches!(book.plan, Plan::Due(None, step) if step == self.step) {
                Oracle::CommandsDoNotCount
            } else {
                Oracle::RowEnds
            };
            t.hold(oracle, view.row == book.row, || {
                format!("{id} has failed {} times in a row, shown as {}", book.row, view.row)
            })?;
            let looping = book.row >= CRASH_LOOPING && !state.is_resting();
            t.hold(Oracle::CrashLooping, view.crash_looping == looping, || {
                format!("{id} failed {} times in a row: {view:?}", book.row)
            })?;
            t.hold(Oracle::RestartsAreCounted, view.restarts == book.restarts, || {
                format!("{id} was restarted {} times, shown as {}", book.restarts, view.restarts)
            })?;
            let wanted = book.wanted && book.configured;
            t.hold(Oracle::BeliefIsWorld, view.wanted == wanted, || {
                format!("{id} wanted: {wanted}, shown as {}", view.wanted)
            })?;
            // Seconds in a record are rounded; from here on the exact time is known.
            if let Plan::At(at) = book.plan
                && book.run.is_none()
                && let Some(next) = view.next_start
            {
                let apart = at.0.abs_diff(next.0);
                t.hold(Oracle::BackoffWithinBounds, apart < 1_000, || {
                    format!("{id} is to start at {at:?}, shown as {next:?}")
                })?;
                book.plan = Plan::At(next);
            }
            if let (State::Waiting, Plan::Deferred(.., at)) = (state, book.plan) {
                t.hold(Oracle::DeferredIsTriedAgain, view.next_start == Some(at), || {
                    format!(
                        "{id} is tried again at {:?}, not {at:?} (now {now:?})",
                        view.next_start
                    )
                })?;
            }
        }
        self.agree_on_health(t)?;
        let known = self.books.len();
        t.hold(Oracle::BeliefIsWorld, shown == known, || format!("{known} are, {shown} shown"))
    }
}
