//! What the oracles know of what is watched of a run: questions, health, signs of life, memory, age.

use std::time::Duration;

use wharf::event::{Action, Event, Health, Purpose, Said};
use wharf::exit::Cause;
use wharf::name::Incarnation;
use wharf::spec::{Check, HealthFailure, Healthcheck, Port, Readiness, ReadyBy, Service};
use wharf::supervise::{MEMORY_INTERVAL, PROBE_PATIENCE, READY_QUESTION};
use wharf::time::Tick;

use super::book::{Asked, Book, Run, Then};
use super::history::Sim;
use super::oracles::{Fault, Oracle, Tally};
use super::world::Dice;

/// What is watched of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    /// How many questions it was asked.
    asked: u64,
    /// When the open one was asked, and how long its answer may take.
    open: Option<(Tick, Duration)>,
    /// Not before the first and not after the second is the next one asked.
    next: Option<(Tick, Tick)>,
    pub(crate) ready_by: Option<Tick>,
    succeeded: bool,
    failures: u32,
    ill: bool,
    every: Option<Duration>,
    pub(crate) watchdog: Option<Tick>,
    look_by: Option<Tick>,
    stopping: Option<Tick>,
    /// Whether something was watched of it before other settings took effect.
    pub(crate) cared: bool,
}

/// Settings drawn by chance.
pub(crate) fn watched(service: &mut Service, dice: &mut Dice) {
    let by_port = service.port.as_ref().is_some_and(Port::awaits_ready);
    let by = match dice.below(6) {
        _ if by_port => Some(ReadyBy::Port),
        0 | 1 => Some(ReadyBy::Probe(Check::Tcp("localhost:1".to_owned()))),
        2 => Some(ReadyBy::Notify),
        3 => Some(ReadyBy::LogLine("up".to_owned())),
        _ => None,
    };
    service.ready = by.filter(|_| dice.one_in(2)).map(|by| Readiness {
        by,
        timeout: Duration::from_secs(dice.pick(&[2, 10, 40])),
        interval: Duration::from_millis(dice.pick(&[500, 3_000])),
    });
    service.watchdog = dice.one_in(5).then(|| Duration::from_secs(dice.pick(&[5, 20])));
    live(service, dice);
}

/// Those of them that take effect in place.
pub(crate) fn live(service: &mut Service, dice: &mut Dice) {
    service.healthcheck = dice.one_in(3).then(|| Healthcheck {
        interval: Duration::from_secs(dice.pick(&[2, 10])),
        timeout: Duration::from_secs(dice.pick(&[1, 3])),
        retries: dice.pick(&[1, 2, 3]),
        start_period: Duration::from_secs(dice.pick(&[0, 0, 6])),
        start_interval: Duration::from_secs(dice.pick(&[1, 4])),
        on_failure: dice.pick(&[
            HealthFailure::Restart,
            HealthFailure::Restart,
            HealthFailure::Report,
        ]),
        ..Healthcheck::new(Check::Tcp(dice.pick(&["localhost:1", "localhost:2"]).to_owned()))
    });
    service.max_memory = dice.one_in(5).then_some(100);
    service.max_lifetime = dice.one_in(6).then(|| Duration::from_secs(dice.pick(&[20, 300])));
}

/// Whether an end for this cause is a failure whatever the program's exit code says.
pub(crate) fn is_failure(cause: Cause) -> bool {
    [Cause::HealthFailed, Cause::Watchdog, Cause::MaxMemory, Cause::StopTimeout].contains(&cause)
}

impl Run {
    /// It is to be ended because of what was seen of it.
    fn order(&mut self, cause: Cause, now: Tick, then: Then, kill: bool) {
        let (by, protocol, hurried) = (None, false, false);
        self.asked = Some(Asked { cause, by, at: now, then, kill, protocol, oom: false, hurried });
    }

    /// Its program runs.
    pub(crate) fn note_started(&mut self, now: Tick) {
        if self.ready.is_some() {
            return self.note_ready(now);
        }
        if let Some(ready) = &self.service.ready {
            self.watch.ready_by = Some(now + ready.timeout);
            self.watch.next = self.service.ready_check().map(|_| (now, now));
        }
    }

    /// It is ready.
    pub(crate) fn note_ready(&mut self, now: Tick) {
        self.ready = Some(now);
        self.watch.ready_by = None;
        self.watch.look_by = self.service.max_memory.map(|_| now + MEMORY_INTERVAL);
        self.watch.watchdog = self.silence().map(|silence| now + silence);
        self.begin_questions(now);
        if self.watch.stopping.is_some() {
            self.part();
        }
    }

    fn silence(&self) -> Option<Duration> {
        self.service.watchdog.map(|usual| self.watch.every.unwrap_or(usual))
    }

    fn begin_questions(&mut self, now: Tick) {
        self.watch.open = None;
        self.watch.next = self
            .service
            .healthcheck
            .as_ref()
            .map(|check| (now, now + check.interval.min(check.start_interval)));
    }

    fn part(&mut self) {
        (self.watch.open, self.watch.next) = (None, None);
        (self.watch.watchdog, self.watch.look_by) = (None, None);
    }

    /// Other settings took effect in place.
    pub(crate) fn note_settings(&mut self, old: &Service, now: Tick) {
        if self.ready.is_none() || self.asked.is_some() || self.watch.stopping.is_some() {
            return;
        }
        let new = self.service.clone();
        let before = Self { service: old.clone().into(), ..self.clone() };
        self.watch.cared = before.is_cared_for();
        if old.healthcheck != new.healthcheck {
            let question =
                |service: &Service| service.healthcheck.as_ref().map(|check| check.by.clone());
            if question(old) != question(&new) {
                (self.watch.succeeded, self.watch.failures, self.watch.ill) = (false, 0, false);
            }
            self.begin_questions(now);
        }
        self.watch.look_by =
            new.max_memory.map(|_| self.watch.look_by.unwrap_or(now + MEMORY_INTERVAL));
    }

    /// Whether it has not been asked to end, or only in this very step, in which others first let it go.
    fn is_unasked(&self, now: Tick) -> bool {
        self.asked.as_ref().is_none_or(|asked| asked.at == now && self.steps.is_empty())
    }

    /// What is known of its health.
    pub(crate) fn health(&self) -> Option<Health> {
        self.service.healthcheck.as_ref().filter(|_| self.asked.is_none())?;
        Some(match (self.ready, self.watch.ill, self.watch.succeeded) {
            (None, ..) | (_, false, false) => Health::Starting,
            (_, true, _) => Health::Unhealthy,
            (_, false, true) => Health::Healthy,
        })
    }

    /// Time has passed: whether it is to be ended now, by force or not.
    pub(crate) fn note_time(&mut self, now: Tick) {
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if due(self.watch.stopping) {
            self.order(Cause::StopTimeout, now, Then::Judge, true);
        } else if self.ready.is_none() && due(self.watch.ready_by) && !self.awaits_answer(now) {
            self.order(Cause::ReadyTimeout, now, Then::Judge, true);
        } else if self.ready.is_some() && due(self.watch.watchdog) {
            self.order(Cause::Watchdog, now, Then::Judge, false);
        }
    }

    /// Whether an answer may still come, or is still to be asked for, that belongs to the time to be ready.
    fn awaits_answer(&self, now: Tick) -> bool {
        let open = |(at, timeout): (Tick, Duration)| now < at + timeout + PROBE_PATIENCE;
        let missed = |(first, _): (Tick, Tick)| self.watch.ready_by.is_some_and(|by| first < by);
        self.watch.open.is_some_and(open) || self.watch.next.is_some_and(missed)
    }

    fn note_answer(&mut self, good: bool, now: Tick) {
        self.watch.open = None;
        let Some(ready) = self.ready else {
            if good {
                self.note_ready(now);
            } else if self.watch.ready_by.is_some_and(|by| by <= now) {
                self.order(Cause::ReadyTimeout, now, Then::Judge, true);
            } else if let Some(ready) = &self.service.ready {
                let at = now + ready.interval;
                self.watch.next = Some((at, at));
            }
            return;
        };
        let Some(check) = self.service.healthcheck.clone() else { return };
        let counts = self.watch.succeeded || now.since(ready) >= check.start_period;
        if good {
            (self.watch.succeeded, self.watch.failures, self.watch.ill) = (true, 0, false);
        } else if counts {
            self.watch.failures += 1;
        }
        if !good && self.watch.failures >= check.retries {
            self.watch.ill = true;
        }
        if !good && self.watch.ill && check.on_failure == HealthFailure::Restart {
            return self.order(Cause::HealthFailed, now, Then::Judge, false);
        }
        let wait = if self.watch.succeeded { check.interval } else { check.start_interval };
        self.watch.next = Some((now + wait, now + wait));
    }

    fn note_said(&mut self, said: Said, now: Tick) {
        let later = |by: Option<Tick>, length| by.map(|by| by.max(now + length));
        if let Some(asked) = &self.asked {
            if let (Said::NeedsTime(length), false, Some(last)) =
                (said, asked.kill || asked.hurried, self.steps.last_mut())
                && last.rank < 3
            {
                last.patience = last.patience.max((now + length).since(last.at));
            }
            return;
        }
        // Without `ready` or `watchdog` nobody listens.
        if self.started.is_none() || self.ready.is_none() && self.service.ready.is_none() {
            return;
        }
        let is_watched = self.ready.is_some()
            && self.service.watchdog.is_some()
            && self.watch.stopping.is_none();
        let cared_for = self.ready.is_none() || self.is_cared_for();
        match said {
            Said::NeedsTime(length) => {
                self.watch.ready_by = later(self.watch.ready_by, length);
                self.watch.stopping = later(self.watch.stopping, length);
            }
            Said::Stopping if cared_for => {
                let by = now + self.service.stop.grace;
                self.watch.stopping = self.watch.stopping.or(Some(by));
                self.part();
            }
            // What it promised before anybody counted holds from then on.
            Said::AliveEvery(every) if cared_for => {
                self.watch.every = Some(every);
                if is_watched {
                    self.watch.watchdog = Some(now + every);
                }
            }
            Said::Alive if is_watched => {
                self.watch.watchdog = self.silence().map(|silence| now + silence);
            }
            Said::Unwell if is_watched => self.order(Cause::Watchdog, now, Then::Judge, false),
            Said::Stopping | Said::AliveEvery(_) | Said::Alive | Said::Unwell => {}
        }
    }

    /// Whether anything at all is watched of it, or was.
    fn is_cared_for(&self) -> bool {
        let service = &self.service;
        service.ready.is_some()
            || service.healthcheck.is_some()
            || service.watchdog.is_some()
            || service.max_memory.is_some()
            || service.max_lifetime.is_some()
            || self.watch.cared
    }
}

impl Sim {
    /// Enters what was heard of a run that is watched.
    pub(crate) fn note_watched(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Probed { incarnation, number, result } => {
                let run = self.run(*incarnation).filter(|run| run.asked.is_none());
                if let Some(run) = run
                    && run.watch.open.is_some()
                    && run.watch.asked == *number
                {
                    run.note_answer(result.is_ok(), now);
                }
            }
            Event::Said { incarnation, said } => {
                if let Some(run) = self.run(*incarnation).filter(|run| !run.unkillable) {
                    run.note_said(*said, now);
                }
            }
            Event::Measured { incarnation, bytes } => {
                let run = self.run(*incarnation).filter(|run| run.asked.is_none());
                if let Some(run) = run.filter(|run| run.ready.is_some())
                    && run.service.max_memory.is_some_and(|most| *bytes > most)
                {
                    run.order(Cause::MaxMemory, now, Then::Judge, false);
                }
            }
            _ => {}
        }
    }

    /// Looks at a question, or a look at memory.
    pub(crate) fn check_question(&mut self, action: &Action, t: &mut Tally) -> Result<(), Fault> {
        let now = self.now;
        match action {
            Action::Probe { incarnation, number, purpose, timeout, .. } => {
                let Some(run) = self.run(*incarnation) else {
                    return t.hold(Oracle::NothingToTheDead, false, || format!("{action:?}"));
                };
                let expected = match (run.ready, &run.service.healthcheck) {
                    (Some(_), Some(check)) => Some((Purpose::Health, check.timeout)),
                    (None, _) if run.service.ready_check().is_some() => {
                        let left = run.watch.ready_by.map_or(READY_QUESTION, |by| by.since(now));
                        let whole = run.service.ready.as_ref().map(|ready| ready.timeout);
                        let left = whole.filter(|_| left.is_zero()).unwrap_or(left);
                        Some((Purpose::Ready, READY_QUESTION.min(left)))
                    }
                    _ => None,
                };
                let right = run.is_unasked(now)
                    && run.watch.stopping.is_none()
                    && expected == Some((*purpose, *timeout));
                t.hold(Oracle::QuestionsAreDeclared, right, || {
                    format!("{expected:?} is to be asked, not {purpose:?} {timeout:?}: {run:?}")
                })?;
                let lost = |(at, timeout): (Tick, Duration)| now >= at + timeout + PROBE_PATIENCE;
                let alone = run.watch.open.is_none_or(lost) && *number == run.watch.asked + 1;
                t.hold(Oracle::OneQuestionAtATime, alone, || format!("{number}: {run:?}"))?;
                let early = run.watch.next.is_some_and(|(first, _)| now < first);
                t.hold(Oracle::QuestionsKeepTheirTime, !early, || format!("too early: {run:?}"))?;
                run.watch.asked = *number;
                run.watch.open = Some((now, *timeout));
                run.watch.next = None;
            }
            Action::Measure { incarnation } => {
                let run = self.run(*incarnation);
                let right = run.as_ref().is_some_and(|run| {
                    run.watch.look_by.is_some() && run.is_unasked(now) && run.ready.is_some()
                });
                t.hold(Oracle::MemoryIsBounded, right, || format!("{action:?}: {run:?}"))?;
                if let Some(run) = run {
                    run.watch.look_by = Some(now + MEMORY_INTERVAL);
                }
            }
            other => unreachable!("{other:?} is no question"),
        }
        Ok(())
    }

    /// A step of a ladder that nobody asked for may be the end of a long life.
    pub(crate) fn check_age(
        &mut self,
        incarnation: Incarnation,
        event: &Event,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let now = self.now;
        let Some(run) = self.run(incarnation).filter(|run| run.asked.is_none()) else {
            return Ok(());
        };
        let (Some(most), Some(started), Event::Time) =
            (run.service.max_lifetime, run.started, event)
        else {
            return Ok(());
        };
        let old =
            run.ready.is_some() && run.held.is_none() && now.since(started) >= most.mul_f64(0.9);
        t.hold(Oracle::LifetimeIsBounded, old && run.watch.stopping.is_none(), || {
            format!("it is ended at the age of {:?}: {run:?}", now.since(started))
        })?;
        run.order(Cause::MaxLifetime, now, Then::Again, false);
        Ok(())
    }

    /// What is due of what is watched has been done.
    pub(crate) fn after_watch(&self, event: &Event, t: &mut Tally) -> Result<(), Fault> {
        if !matches!(event, Event::Time) {
            return Ok(());
        }
        let now = self.now;
        let runs = self.books.values().filter_map(|book| book.run.as_ref());
        for run in runs.filter(|run| run.asked.is_none()) {
            let late = |at: Option<Tick>| at.is_some_and(|at| at <= now);
            let next = run.watch.next.map(|(_, last)| last);
            t.hold(Oracle::QuestionsKeepTheirTime, !late(next), || format!("not asked: {run:?}"))?;
            let lost = run.watch.open.map(|(at, timeout)| at + timeout + PROBE_PATIENCE);
            t.hold(Oracle::OneQuestionAtATime, !late(lost), || format!("lost: {run:?}"))?;
            t.hold(Oracle::MemoryIsBounded, !late(run.watch.look_by), || {
                format!("nobody looks at its memory: {run:?}")
            })?;
            if let (Some(_), Some(started), Some(most)) =
                (run.ready, run.started, run.service.max_lifetime)
            {
                // One that is to end as soon as nobody is in the way is not renewed.
                let parts = run.watch.stopping.is_some() || run.held.is_some();
                let young = parts || now.since(started) < most;
                t.hold(Oracle::LifetimeIsBounded, young, || format!("too old: {run:?}"))?;
            }
        }
        Ok(())
    }

    /// What is shown of a replica's health is what its answers were.
    pub(crate) fn agree_on_health(&self, t: &mut Tally) -> Result<(), Fault> {
        for view in self.supervisor.views() {
            let Some(book) = self.books.get(&view.replica) else { continue };
            let run = book.run.as_ref().filter(|run| run.asked.is_none());
            let health = run.and_then(Run::health);
            let runs = run.is_some_and(|run| run.ready.is_some());
            let failures = run.filter(|_| runs).map_or(0, |run| run.watch.failures);
            let healthy = runs && health.is_none_or(|health| health == Health::Healthy);
            let same =
                (view.health, view.failed_checks, view.healthy) == (health, failures, healthy);
            t.hold(Oracle::HealthIsShown, same, || {
                format!("{health:?}, {failures} failures, healthy: {healthy}; shown as {view:?}")
            })?;
        }
        Ok(())
    }
}

/// Which promise is kept where a run is being ended for this cause.
pub(crate) fn oracle_of(cause: Cause) -> Option<Oracle> {
    match cause {
        Cause::HealthFailed => Some(Oracle::HealthFailureEnds),
        Cause::Watchdog => Some(Oracle::WatchdogEnds),
        Cause::MaxMemory => Some(Oracle::MemoryIsBounded),
        Cause::MaxLifetime => Some(Oracle::LifetimeIsBounded),
        Cause::StopTimeout => Some(Oracle::StoppingIsBelieved),
        _ => None,
    }
}

impl Book {
    /// When its signs of life are due.
    pub(crate) fn sign_due(&self) -> Option<Tick> {
        let run = self.run.as_ref().filter(|run| run.asked.is_none())?;
        run.watch.watchdog.filter(|_| run.ready.is_some())
    }
}
