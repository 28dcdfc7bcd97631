//! What becomes of a replica by what is watched of its run: when it is ready, what is asked of it,
//! and which of its failings end it.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Action, Health, Purpose, Said};
use crate::exit::Cause;
use crate::spec::{HealthFailure, Readiness, ReadyBy, Service};
use crate::time::{Tick, format_duration, format_size};

use super::health::{Care, LONGEST_EXTENSION, READY_QUESTION};
use super::ladder::{After, Ending};
use super::machine::Phase::{self, Running, Starting};
use super::machine::{Context, Run};
use super::replica::Replica;

impl Replica {
    /// Whether it is ready, and well as far as that is known: what others may depend upon.
    pub(super) fn is_healthy(&self) -> bool {
        matches!(self.machine.phase, Running(_))
            && self.health().is_none_or(|health| health == Health::Healthy)
    }

    /// What is known of its health, where that is looked at.
    pub(super) fn health(&self) -> Option<Health> {
        self.service.healthcheck.as_ref()?;
        match &self.machine.phase {
            Starting(_) => Some(Health::Starting),
            Running(run) => Some(run.care.as_ref().map_or(Health::Starting, |care| care.health)),
            _ => None,
        }
    }

    /// Its failed checks in a row.
    pub(super) fn failed_checks(&self) -> u32 {
        match &self.machine.phase {
            Running(run) => run.care.as_ref().map_or(0, |care| care.failures),
            _ => 0,
        }
    }

    /// Its program runs, and has to show that it is ready.
    pub(super) fn readying(&mut self, cx: &mut Context<'_>, mut run: Run) -> Phase {
        let Some(ready) = &self.service.ready else { return Starting(run) };
        let mut care = Box::new(Care::new(cx.source.chance.draw()));
        care.await_ready(cx.now, cx.now + ready.timeout, self.service.ready_check().is_some());
        run.care = Some(care);
        self.unready(cx, run)
    }

    /// It is not ready yet: what is due is asked.
    fn unready(&mut self, cx: &mut Context<'_>, mut run: Run) -> Phase {
        self.ask(cx, &mut run);
        if let Some(care) = &run.care {
            self.machine.deadline = care.next();
        }
        Starting(run)
    }

    /// The deadline of a run that is not ready has passed.
    pub(super) fn still_unready(&mut self, cx: &mut Context<'_>, run: Run) -> Phase {
        let ready = self.service.ready.as_ref();
        let (Some(care), Some(ready)) = (&run.care, ready) else {
            let cause =
                if run.started.is_some() { Cause::ReadyTimeout } else { Cause::StartTimeout };
            return self.stop(cx, run, Ending::killed(cause, cx.now, false));
        };
        if is_due(care.stopping, cx.now) {
            let why = never_ended(&self.service);
            let ending = Ending::killed(Cause::StopTimeout, cx.now, false).because(why);
            return self.stop(cx, run, ending);
        }
        if is_due(care.ready_by, cx.now) && !care.is_to_be_answered(cx.now) {
            let last = if care.is_asked() { Some(UNANSWERED) } else { care.last.as_deref() };
            let why = unready_words(ready, last);
            let ending = Ending::killed(Cause::ReadyTimeout, cx.now, false).because(why);
            return self.stop(cx, run, ending);
        }
        self.unready(cx, run)
    }

    /// A question whether it is ready has its answer.
    pub(super) fn asked_ready(
        &mut self,
        cx: &mut Context<'_>,
        mut run: Run,
        number: u64,
        result: Result<(), Box<str>>,
    ) -> Phase {
        let interval = self.service.ready.as_ref().map_or(Duration::ZERO, |ready| ready.interval);
        let Some(care) = run.care.as_mut().filter(|care| care.awaits(number)) else {
            return Starting(run);
        };
        match result {
            Ok(()) => self.running(cx, Run { ready: Some(cx.now), ..run }),
            Err(words) => {
                care.ask_at(cx.now + interval);
                if is_due(care.ready_by, cx.now) {
                    // Its time was over already, and only this answer was waited for. One that had but
                    // the rest of that time tells less than the one before it.
                    care.last.get_or_insert(words);
                    return self.still_unready(cx, run);
                }
                care.last = Some(words);
                self.unready(cx, run)
            }
        }
    }

    /// It is ready: from now on it is seen to be well.
    pub(super) fn running(&mut self, cx: &mut Context<'_>, mut run: Run) -> Phase {
        if is_watched(&self.service) && run.care.is_none() {
            run.care = Some(Box::new(Care::new(cx.source.chance.draw())));
        }
        if let Some(care) = &mut run.care {
            care.begin(&self.service, cx.now);
        }
        if let Some(reread) = run.reread.take() {
            run = self.tell(cx, run, reread);
        }
        self.keep_running(run)
    }

    /// When a run is renewed for its age. One that is to end as soon as nobody is in the way is not.
    fn renewal(&self, run: &Run) -> Option<Tick> {
        too_old(&self.service, run).filter(|_| self.machine.held.is_none())
    }

    /// Waits for what is due next of a run that is ready.
    pub(super) fn keep_running(&mut self, run: Run) -> Phase {
        let row = run.ready.and_then(|ready| self.end_of_row(ready));
        let watched = run.care.as_ref().and_then(|care| care.next());
        let age = self.renewal(&run);
        self.machine.deadline = [row, watched, age].into_iter().flatten().min();
        Running(run)
    }

    /// When a run that was ready at `ready` will have ended the row of failures.
    fn end_of_row(&self, ready: Tick) -> Option<Tick> {
        (self.machine.row > 0).then(|| ready + self.service.restart.reset_after)
    }

    /// Something about a run that is ready is due.
    pub(super) fn look_after(&mut self, cx: &mut Context<'_>, mut run: Run) -> Phase {
        if is_due(run.ready.and_then(|ready| self.end_of_row(ready)), cx.now) {
            self.machine.row = 0;
        }
        if let Some(ending) = self.overdue(&run, cx.now) {
            return self.stop(cx, run, ending);
        }
        self.ask(cx, &mut run);
        if run.care.as_mut().is_some_and(|care| care.looks(cx.now)) {
            cx.actions.push(Action::Measure { incarnation: run.incarnation });
        }
        self.keep_running(run)
    }

    /// Why a run has to end now, if it has to.
    fn overdue(&self, run: &Run, now: Tick) -> Option<Ending> {
        let care = run.care.as_ref()?;
        if is_due(care.stopping, now) {
            let why = never_ended(&self.service);
            return Some(Ending::killed(Cause::StopTimeout, now, false).because(why));
        }
        if is_due(care.watchdog, now) {
            let silence = format_duration(care.silence(&self.service));
            let why = format!("it gave no sign of life within {silence} (WATCHDOG=1)");
            return Some(Ending::ordered(Cause::Watchdog, now, After::Judge, why));
        }
        if is_due(self.renewal(run), now) {
            let most = format_duration(self.service.max_lifetime.unwrap_or_default());
            let why = format!("it is renewed before it is older than max_lifetime ({most})");
            return Some(Ending::ordered(Cause::MaxLifetime, now, After::Again, why));
        }
        None
    }

    /// Asks what is due.
    fn ask(&self, cx: &mut Context<'_>, run: &mut Run) {
        let Some(care) = &mut run.care else { return };
        let (purpose, timeout) = match (run.ready, &self.service.healthcheck) {
            (None, _) => {
                let left = care.ready_by.map_or(READY_QUESTION, |by| by.since(cx.now));
                let whole = self.service.ready.as_ref().map_or(READY_QUESTION, |own| own.timeout);
                let left = if left.is_zero() { whole } else { left };
                (Purpose::Ready, READY_QUESTION.min(left))
            }
            (Some(_), Some(check)) => (Purpose::Health, check.timeout),
            (Some(_), None) => return,
        };
        if let Some(number) = care.ask(cx.now, timeout) {
            let (incarnation, service) = (run.incarnation, Arc::clone(&self.service));
            cx.actions.push(Action::Probe { incarnation, number, purpose, service, timeout });
        }
    }

    /// A health check has its answer.
    pub(super) fn asked_health(
        &mut self,
        cx: &mut Context<'_>,
        mut run: Run,
        number: u64,
        result: Result<(), Box<str>>,
    ) -> Phase {
        let ready = run.ready.unwrap_or(cx.now);
        let Some(care) = run.care.as_mut().filter(|care| care.awaits(number)) else {
            return Running(run);
        };
        let failed = result.is_err();
        care.answered(result, &self.service, ready, cx.now);
        if let Some(check) = &self.service.healthcheck
            && (failed, care.health) == (true, Health::Unhealthy)
            && check.on_failure == HealthFailure::Restart
        {
            let (question, last) = (check.by.words(), care.last.as_deref().unwrap_or_default());
            let why = match care.failures {
                1 => format!("its health check failed: {question}: {last}"),
                many => format!(
                    "its health check failed {many} times in a row: {question}, the last time: {last}"
                ),
            };
            let ending = Ending::ordered(Cause::HealthFailed, cx.now, After::Judge, why);
            return self.stop(cx, run, ending);
        }
        self.keep_running(run)
    }

    /// What its processes hold is known.
    pub(super) fn measured(&mut self, cx: &mut Context<'_>, run: Run, bytes: u64) -> Phase {
        match self.service.max_memory {
            Some(most) if bytes > most => {
                let why = format!(
                    "its processes held {} of memory together, more than max_memory ({})",
                    mebibytes(bytes),
                    format_size(most)
                );
                let ending = Ending::ordered(Cause::MaxMemory, cx.now, After::Judge, why);
                self.stop(cx, run, ending)
            }
            Some(_) | None => Running(run),
        }
    }

    /// A program that is not ready said something of itself.
    pub(super) fn said_unready(&mut self, cx: &mut Context<'_>, mut run: Run, said: Said) -> Phase {
        let Some(care) = &mut run.care else { return Starting(run) };
        match said {
            Said::NeedsTime(length) => care.extend(cx.now + length.min(LONGEST_EXTENSION)),
            Said::Stopping => care.part(cx.now + self.service.stop.grace),
            Said::AliveEvery(length) => care.promise(length),
            // Signs of life count once it is ready.
            Said::Alive | Said::Unwell => {}
        }
        self.machine.deadline = care.next();
        Starting(run)
    }

    /// A program that is ready said something of itself.
    pub(super) fn said(&mut self, cx: &mut Context<'_>, mut run: Run, said: Said) -> Phase {
        let Some(care) = &mut run.care else { return Running(run) };
        match said {
            Said::Alive => care.give_sign(&self.service, cx.now),
            Said::AliveEvery(length) => {
                care.promise(length);
                care.give_sign(&self.service, cx.now);
            }
            Said::Unwell if self.service.watchdog.is_some() && care.stopping.is_none() => {
                let why = "it said itself that it is not well (WATCHDOG=trigger)".to_owned();
                let ending = Ending::ordered(Cause::Watchdog, cx.now, After::Judge, why);
                return self.stop(cx, run, ending);
            }
            Said::NeedsTime(length) => care.extend(cx.now + length.min(LONGEST_EXTENSION)),
            Said::Stopping => care.part(cx.now + self.service.stop.grace),
            // Nobody counts its signs of life.
            Said::Unwell => {}
        }
        self.keep_running(run)
    }

    /// A program that has been asked to end said something of itself.
    pub(super) fn said_stopping(&mut self, cx: &Context<'_>, why: &Ending, said: Said) {
        if let (Said::NeedsTime(length), true) = (said, why.is_asked()) {
            let until = cx.now + length.min(LONGEST_EXTENSION);
            self.machine.deadline = self.machine.deadline.map(|by| by.max(until));
        }
    }

    /// Other settings took effect in place, of what `before` said.
    pub(super) fn watch_anew(
        &mut self,
        cx: &mut Context<'_>,
        mut run: Run,
        before: &Service,
    ) -> Phase {
        let service = Arc::clone(&self.service);
        if is_watched(&service) && run.care.is_none() {
            run.care = Some(Box::new(Care::new(cx.source.chance.draw())));
        }
        if let Some(care) = run.care.as_mut().filter(|care| care.stopping.is_none()) {
            let (old, new) = (&before.healthcheck, &service.healthcheck);
            if old != new {
                let question = |check: &Option<crate::spec::Healthcheck>| {
                    check.as_ref().map(|check| check.by.clone())
                };
                if question(old) != question(new) {
                    care.forget_health();
                }
                care.begin_health(&service, cx.now);
            }
            care.begin_looking(&service, cx.now);
        }
        self.keep_running(run)
    }
}

/// What is said where the time to be ready ends with an open question.
const UNANSWERED: &str = "the question could not be asked, or its answer was lost";

/// Whether anything is watched of its runs once they are ready.
fn is_watched(service: &Service) -> bool {
    service.healthcheck.is_some()
        || service.is_notifying()
        || service.max_memory.is_some()
        || service.max_lifetime.is_some()
}

fn is_due(at: Option<Tick>, now: Tick) -> bool {
    at.is_some_and(|at| at <= now)
}

fn too_old(service: &Service, run: &Run) -> Option<Tick> {
    let care = run.care.as_ref().filter(|care| care.stopping.is_none())?;
    care.too_old(service, run.started?)
}

/// A size to a person's precision.
fn mebibytes(bytes: u64) -> String {
    let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    format!("{:.1}MiB", f64::from(kibibytes) / 1024.0)
}

fn never_ended(service: &Service) -> String {
    let grace = format_duration(service.stop.grace);
    format!("it said STOPPING=1 and did not end within stop_grace_period ({grace})")
}

/// What was waited for in vain.
fn unready_words(ready: &Readiness, last: Option<&str>) -> String {
    let awaited = match &ready.by {
        ReadyBy::Probe(check) => check.words(),
        ReadyBy::LogLine(pattern) => format!("a line that matches {pattern:?}"),
        ReadyBy::Notify => "READY=1".to_owned(),
        ReadyBy::Fd(number) => format!("a line on descriptor {number}"),
        ReadyBy::Port => "what its port says of being ready".to_owned(),
    };
    let last = last.map(|last| format!(", the last time: {last}")).unwrap_or_default();
    let timeout = format_duration(ready.timeout);
    format!("it was not ready within ready.timeout ({timeout}): {awaited} was waited for{last}")
}
