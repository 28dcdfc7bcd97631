//! What is watched of one run once its program runs: whether it is ready and well, gives signs of
//! life, and stays within its memory and its age.
//!
//! Data and its small steps; what they mean for the replica is in `watch.rs`. No clock, no probe: who
//! asks the program is the doing column.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Health;
use crate::spec::Service;
use crate::time::Tick;

/// The longest that a single question whether a program is ready may take.
pub const READY_QUESTION: Duration = Duration::from_secs(3);
/// How long beyond its own time the answer to a question may be on its way. One that is lost counts for
/// nothing, and the question is asked again.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(30);
/// The time between two looks at the memory of a run.
pub const MEMORY_INTERVAL: Duration = Duration::from_secs(5);
/// The longest time that a program can ask for at once (`EXTEND_TIMEOUT_USEC`).
pub const LONGEST_EXTENSION: Duration = Duration::from_secs(3600);
/// The share of `max_lifetime` by which chance makes a life shorter.
const LIFETIME_JITTER: f64 = 0.1;

/// What is watched of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Care {
    /// What spreads its questions and its age, from 0 up to 1.
    chance: f64,
    /// How many questions it has been asked.
    asked: u64,
    question: Question,
    /// When it has to be ready.
    pub(super) ready_by: Option<Tick>,
    pub(super) health: Health,
    /// Whether a health check has ever succeeded.
    succeeded: bool,
    /// Failed checks in a row, as far as they count.
    pub(super) failures: u32,
    /// What was wrong with the last answer.
    pub(super) last: Option<Box<str>>,
    /// How often it is to give a sign of life, where it said so itself.
    every: Option<Duration>,
    /// When the next sign of life is due.
    pub(super) watchdog: Option<Tick>,
    /// When its memory is looked at next.
    look: Option<Tick>,
    /// When it has to have ended, because it said that it is about to.
    pub(super) stopping: Option<Tick>,
}

/// Where the questions to a run stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    /// None is to be asked.
    None,
    /// The next one is to be asked at this time.
    Due(Tick),
    /// The last one has no answer yet; after this time it will never have one.
    Open(Tick),
}

impl Care {
    /// Nothing is watched yet.
    pub(super) fn new(chance: f64) -> Self {
        Self {
            chance,
            asked: 0,
            question: Question::None,
            ready_by: None,
            health: Health::Starting,
            succeeded: false,
            failures: 0,
            last: None,
            every: None,
            watchdog: None,
            look: None,
            stopping: None,
        }
    }

    /// The program has to be ready by `by`; `is_asked` says whether it is asked.
    pub(super) fn await_ready(&mut self, now: Tick, by: Tick, is_asked: bool) {
        self.ready_by = Some(by);
        self.question = if is_asked { Question::Due(now) } else { Question::None };
    }

    /// The program is ready: everything else begins.
    pub(super) fn begin(&mut self, service: &Service, now: Tick) {
        self.ready_by = None;
        self.last = None;
        self.begin_health(service, now);
        self.begin_looking(service, now);
        self.give_sign(service, now);
    }

    /// Health checks begin, or begin anew with other settings. What is known of its health stays.
    pub(super) fn begin_health(&mut self, service: &Service, now: Tick) {
        let check = service.healthcheck.as_ref().filter(|_| self.stopping.is_none());
        self.question = check.map_or(Question::None, |check| {
            let most = check.start_interval.min(check.interval);
            Question::Due(now + most.mul_f64(self.chance))
        });
    }

    /// Nothing is known of its health any more.
    pub(super) fn forget_health(&mut self) {
        (self.health, self.succeeded, self.failures) = (Health::Starting, false, 0);
        self.last = None;
    }

    /// Its memory is looked at from now on, or no more.
    pub(super) fn begin_looking(&mut self, service: &Service, now: Tick) {
        let most = service.max_memory.filter(|_| self.stopping.is_none());
        self.look = most.map(|_| self.look.unwrap_or(now + MEMORY_INTERVAL.mul_f64(self.chance)));
    }

    /// It gave a sign of life; the next one is due in its time.
    pub(super) fn give_sign(&mut self, service: &Service, now: Tick) {
        let usual = service.watchdog.filter(|_| self.stopping.is_none());
        let every = usual.map(|usual| self.every.unwrap_or(usual));
        self.watchdog = every.map(|every| now + every);
    }

    /// It will give signs of life this often.
    pub(super) fn promise(&mut self, every: Duration) {
        self.every = Some(every);
    }

    /// How long it may be silent.
    pub(super) fn silence(&self, service: &Service) -> Duration {
        self.every.or(service.watchdog).unwrap_or_default()
    }

    /// It said that it is about to end: nothing is asked of it any more, but that.
    pub(super) fn part(&mut self, by: Tick) {
        self.stopping = self.stopping.or(Some(by));
        self.question = Question::None;
        (self.watchdog, self.look) = (None, None);
    }

    /// It needs more time, until `until`, for what it is doing.
    pub(super) fn extend(&mut self, until: Tick) {
        let later = |by: Option<Tick>| by.map(|by| by.max(until));
        (self.ready_by, self.stopping) = (later(self.ready_by), later(self.stopping));
    }

    /// The number of the question that is to be asked now, if one is; its answer may take `timeout`.
    pub(super) fn ask(&mut self, now: Tick, timeout: Duration) -> Option<u64> {
        match self.question {
            Question::Due(at) | Question::Open(at) if at <= now => {
                self.asked += 1;
                self.question = Question::Open(now + timeout + PROBE_PATIENCE);
                Some(self.asked)
            }
            Question::None | Question::Due(_) | Question::Open(_) => None,
        }
    }

    /// Whether the last question has no answer yet.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.question, Question::Open(_))
    }

    /// Whether the time to be ready cannot be over yet although it has passed: a question is open whose
    /// answer may still come, or one is to be asked that was due within that time.
    pub(super) fn is_to_be_answered(&self, now: Tick) -> bool {
        match self.question {
            Question::None => false,
            Question::Due(at) => self.ready_by.is_some_and(|by| at < by),
            Question::Open(lost) => now < lost,
        }
    }

    /// Whether this is the answer that is waited for.
    pub(super) fn awaits(&self, number: u64) -> bool {
        matches!(self.question, Question::Open(_)) && number == self.asked
    }

    /// The next question comes at `at`.
    pub(super) fn ask_at(&mut self, at: Tick) {
        self.question = Question::Due(at);
    }

    /// A health check of a run that was ready at `ready` has its answer.
    pub(super) fn answered(
        &mut self,
        result: Result<(), Box<str>>,
        service: &Service,
        ready: Tick,
        now: Tick,
    ) {
        let Some(check) = &service.healthcheck else {
            self.question = Question::None;
            return;
        };
        match result {
            Ok(()) => {
                (self.health, self.succeeded, self.failures) = (Health::Healthy, true, 0);
                self.last = None;
            }
            Err(words) => {
                self.last = Some(words);
                if self.succeeded || now.since(ready) >= check.start_period {
                    self.failures = self.failures.saturating_add(1);
                }
                if self.failures >= check.retries {
                    self.health = Health::Unhealthy;
                }
            }
        }
        let wait = if self.succeeded { check.interval } else { check.start_interval };
        self.question = Question::Due(now + wait);
    }

    /// Whether its memory is to be looked at now; the next look follows in its time.
    pub(super) fn looks(&mut self, now: Tick) -> bool {
        let due = self.look.is_some_and(|at| at <= now);
        if due {
            self.look = Some(now + MEMORY_INTERVAL);
        }
        due
    }

    /// When a program that began to run at `started` is too old.
    pub(super) fn too_old(&self, service: &Service, started: Tick) -> Option<Tick> {
        let most = service.max_lifetime?;
        Some(started + most.mul_f64(1.0 - LIFETIME_JITTER * self.chance))
    }

    /// When something of this is due next, its age apart.
    pub(super) fn next(&self) -> Option<Tick> {
        let question = match self.question {
            Question::None => None,
            Question::Due(at) | Question::Open(at) => Some(at),
        };
        // The answer to an open question is waited for.
        let ready_by = self.ready_by.filter(|_| !self.is_asked());
        [question, ready_by, self.watchdog, self.look, self.stopping].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Check, Healthcheck};
    use crate::supervise::sample::service;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Tick {
        Tick(seconds * SECOND)
    }

    fn checked() -> Service {
        let check = Healthcheck::new(Check::Tcp("localhost:1".to_owned()));
        let start_period = Duration::from_secs(5);
        Service { healthcheck: Some(Healthcheck { start_period, ..check }), ..service("web") }
    }

    /// Tells after each answer, a second apart, the health, the failures and the wait.
    fn course(answers: &[bool]) -> Vec<(Health, u32, u64)> {
        let service = checked();
        let mut care = Care::new(0.0);
        care.begin(&service, at(0));
        let answer = |(second, good): (usize, &bool)| {
            let now = at(second as u64);
            let result = if *good { Ok(()) } else { Err("refused".into()) };
            care.answered(result, &service, at(0), now);
            (care.health, care.failures, care.next().unwrap().since(now).as_secs())
        };
        answers.iter().enumerate().map(answer).collect()
    }

    #[test]
    fn failures_count_once_it_was_well_or_its_start_period_is_over() {
        use Health::{Healthy, Starting, Unhealthy};
        assert_eq!(
            course(&[false, false, false, false, false, false, false, false, true]),
            [
                (Starting, 0, 1),
                (Starting, 0, 1),
                (Starting, 0, 1),
                (Starting, 0, 1),
                (Starting, 0, 1),
                (Starting, 1, 1),
                (Starting, 2, 1),
                (Unhealthy, 3, 1),
                (Healthy, 0, 10),
            ]
        );
        assert_eq!(
            course(&[true, false, false, false, true]),
            [
                (Healthy, 0, 10),
                (Healthy, 1, 10),
                (Healthy, 2, 10),
                (Unhealthy, 3, 10),
                (Healthy, 0, 10),
            ]
        );
    }

    #[test]
    fn a_question_is_asked_once_and_again_when_its_answer_is_lost() {
        let mut care = Care::new(0.5);
        care.begin(&checked(), at(0));
        let timeout = Duration::from_secs(3);
        assert_eq!(care.ask(at(0), timeout), None, "it begins within its start_interval");
        assert_eq!(care.ask(at(1), timeout), Some(1));
        assert!(care.awaits(1) && !care.awaits(0) && !care.awaits(2));
        assert_eq!(care.ask(at(33), timeout), None);
        assert_eq!(care.ask(at(34), timeout), Some(2));
        assert!(care.awaits(2) && !care.awaits(1));
    }

    #[test]
    fn the_age_is_spread_over_a_tenth() {
        let service = Service { max_lifetime: Some(Duration::from_secs(100)), ..service("web") };
        let age = |chance: f64| Care::new(chance).too_old(&service, at(7)).unwrap();
        assert_eq!(age(0.0), at(107));
        assert_eq!(age(0.5), at(102));
        assert!(age(0.999) > at(97));
    }

    #[test]
    fn who_parts_is_asked_nothing_more() {
        let service =
            Service { watchdog: Some(Duration::from_secs(2)), max_memory: Some(1), ..checked() };
        let mut care = Care::new(0.9);
        care.begin(&service, at(0));
        assert_eq!(care.watchdog, Some(at(2)));
        care.part(at(20));
        assert_eq!(care.next(), Some(at(20)));
        care.extend(at(30));
        care.extend(at(10));
        assert_eq!(care.next(), Some(at(30)));
    }
}
