//! The stop ladder: what is done, one step after another, to end a run. Never an endless wait.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Action;
use crate::exit::{Cause, Signal, StopPart, StopStep};
use crate::name::{Incarnation, Requester};
use crate::spec::{Eof, KillScope, Port, Service};
use crate::time::Tick;

use super::hold::{Held, Hold};

/// How long after `SIGKILL` a run that is still there is reported as unkillable; also how long a
/// stop waits for a process that is still being made.
pub const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// One step, in the order in which they are climbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rung {
    /// The port's quit message.
    Quit,
    /// The end of its input.
    CloseInput,
    /// The stop signal.
    Ask(Signal),
    /// The kill.
    Kill,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("quit"),
            Self::CloseInput => f.write_str("close_stdin"),
            Self::Ask(signal) => signal.fmt(f),
            Self::Kill => Signal::KILL.fmt(f),
        }
    }
}

/// What follows the end of a run that is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum After {
    /// The policy decides, as after any end.
    Judge,
    /// A new run at once.
    Again,
    /// Nothing.
    Rest,
    /// Nothing: its group is given up.
    GiveUp,
}

/// A run's end that is under way: why, and how far up the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) cause: Cause,
    pub(super) by: Option<Requester>,
    pub(super) since: Tick,
    pub(super) after: After,
    /// Whether it is ended because of what it wrote.
    pub(super) protocol_error: bool,
    /// Whether it is ended because the kernel killed a part of it for memory.
    #[serde(default)]
    pub(super) oom: bool,
    /// What the record has to say of it, beside the cause.
    #[serde(default)]
    pub(super) why: Option<Box<str>>,
    /// Nothing is asked any more, only killed, and as far as this.
    kill: Option<KillScope>,
    steps: Vec<(Rung, Tick)>,
    /// Why it is not started again, where its group is given up.
    #[serde(default)]
    pub(super) hold: Option<Box<Hold>>,
}

impl Ending {
    /// It is asked first.
    pub(super) fn asked(cause: Cause, by: &Requester, since: Tick, after: After) -> Self {
        Self {
            cause,
            by: Some(by.clone()),
            since,
            after,
            protocol_error: false,
            oom: false,
            why: None,
            kill: None,
            steps: Vec::new(),
            hold: None,
        }
    }

    /// It is asked first; the wish is older than the asking.
    pub(super) fn wanted(held: Held, since: Tick) -> Self {
        let Held { cause, by, after, scope: _, why, hold } = held;
        Self {
            cause,
            by,
            since,
            after,
            protocol_error: false,
            oom: false,
            why,
            kill: None,
            steps: Vec::new(),
            hold,
        }
    }

    /// It is asked first, though nobody wanted it.
    pub(super) fn of_nobody(cause: Cause, since: Tick, after: After) -> Self {
        let kill = None;
        Self { after, kill, ..Self::killed(cause, since, false) }
    }

    /// It is asked first, because of what was seen of it; nobody wanted that.
    pub(super) fn ordered(cause: Cause, since: Tick, after: After, why: String) -> Self {
        Self::of_nobody(cause, since, after).because(why)
    }

    /// The same with what the record has to say of it.
    pub(super) fn because(self, why: String) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    /// Whether an end like this is a failure, whatever the program's exit code says.
    pub(super) fn is_failure(&self) -> bool {
        matches!(
            self.cause,
            Cause::HealthFailed | Cause::Watchdog | Cause::MaxMemory | Cause::StopTimeout
        )
    }

    /// Whether the program has been asked and not been killed.
    pub(super) fn is_asked(&self) -> bool {
        self.steps.last().is_some_and(|(rung, _)| *rung != Rung::Kill)
    }

    /// It is killed, with all it started; the policy decides what follows.
    pub(super) fn killed(cause: Cause, since: Tick, protocol_error: bool) -> Self {
        Self {
            cause,
            by: None,
            since,
            after: After::Judge,
            protocol_error,
            oom: false,
            why: None,
            kill: Some(KillScope::Tree),
            steps: Vec::new(),
            hold: None,
        }
    }

    /// It is killed, with all it started, because the kernel killed a part of it for memory.
    pub(super) fn out_of_memory(since: Tick) -> Self {
        Self { oom: true, ..Self::killed(Cause::Spontaneous, since, false) }
    }

    /// From now on nothing is asked any more.
    pub(super) fn hurry(&mut self, scope: KillScope) {
        self.kill.get_or_insert(scope);
    }

    /// How many steps have been taken.
    pub(super) fn steps_taken(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is asked any more.
    pub(super) fn is_hurried(&self) -> bool {
        self.kill.is_some()
    }

    /// Nobody knows whether the last step was taken: it is taken next.
    pub(super) fn step_back(&mut self) {
        self.steps.pop();
    }

    /// Whether the kill has been sent.
    pub(super) fn is_killed(&self) -> bool {
        self.steps.last().is_some_and(|(rung, _)| *rung == Rung::Kill)
    }

    /// Whether the ladder itself sent this signal.
    pub(super) fn sent(&self, signal: Signal) -> bool {
        self.steps.iter().any(|(rung, _)| match rung {
            Rung::Ask(asked) => *asked == signal,
            Rung::Kill => signal == Signal::KILL,
            Rung::Quit | Rung::CloseInput => false,
        })
    }

    /// Whether the end of its input was the last thing that was done.
    pub(super) fn is_at_end_of_input(&self) -> bool {
        self.steps.last().is_some_and(|(rung, _)| *rung == Rung::CloseInput)
    }

    /// Takes the next step: its actions are appended, and it returns how long to wait for them to
    /// help. `None` when there is nothing above the kill.
    pub(super) fn climb(
        &mut self,
        now: Tick,
        service: &Service,
        target: Climber,
        actions: &mut Vec<Action>,
    ) -> Option<Duration> {
        let rung = self.next_rung(service, target)?;
        self.steps.push((rung, now));
        let incarnation = target.incarnation;
        Some(match rung {
            Rung::Quit => {
                actions.push(Action::SendQuit { incarnation });
                eof_grace(service)
            }
            Rung::CloseInput => {
                actions.push(Action::CloseInput { incarnation });
                eof_grace(service)
            }
            Rung::Ask(signal) => {
                let group = service.stop.kill != KillScope::Process;
                actions.push(Action::Signal { incarnation, signal, group });
                // A program that is stopped (SIGSTOP, Ctrl-Z) hears nothing until it continues.
                if signal != Signal::CONT {
                    actions.push(Action::Signal { incarnation, signal: Signal::CONT, group });
                }
                service.stop.grace
            }
            Rung::Kill => {
                let scope = self.kill.unwrap_or(service.stop.kill);
                actions.push(Action::Kill { incarnation, scope });
                KILL_PATIENCE
            }
        })
    }

    fn next_rung(&self, service: &Service, target: Climber) -> Option<Rung> {
        let last = self.steps.last().map(|(rung, _)| *rung);
        if self.kill.is_some() {
            return (last != Some(Rung::Kill)).then_some(Rung::Kill);
        }
        // A program that does not run yet cannot be talked to, one that is not ready not in messages.
        let port = service.port.as_ref().filter(|_| target.runs);
        let quit = target.ready && port.is_some_and(Port::can_quit);
        let input = port.is_some_and(|port| port.eof != Eof::Ignored);
        let asked = service.stop.signal != Signal::KILL;
        [
            quit.then_some(Rung::Quit),
            input.then_some(Rung::CloseInput),
            asked.then_some(Rung::Ask(service.stop.signal)),
            Some(Rung::Kill),
        ]
        .into_iter()
        .flatten()
        .find(|rung| last.is_none_or(|last| rank(last) < rank(*rung)))
    }

    /// The record's account of it.
    pub(super) fn part(&self, now: Tick) -> StopPart {
        StopPart {
            steps: self
                .steps
                .iter()
                .map(|(rung, at)| StopStep {
                    step: rung.to_string(),
                    at_s: at.since(self.since).as_secs_f64(),
                })
                .collect(),
            escalated: self.is_killed() && self.steps.len() > 1,
            took_s: now.since(self.since).as_secs_f64(),
        }
    }
}

/// The run that is being ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Climber {
    pub(super) incarnation: Incarnation,
    /// Whether the program itself runs.
    pub(super) runs: bool,
    /// Whether it can be spoken to.
    pub(super) ready: bool,
}

/// The place of a step; a stop signal that changed meanwhile is no new step.
fn rank(rung: Rung) -> u8 {
    match rung {
        Rung::Quit => 0,
        Rung::CloseInput => 1,
        Rung::Ask(_) => 2,
        Rung::Kill => 3,
    }
}

fn eof_grace(service: &Service) -> Duration {
    service.port.as_ref().map_or(Duration::ZERO, |port| port.eof_grace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Port, Stop};
    use crate::supervise::sample::service;

    /// Climbs to the top and tells each step with the wait after it, in seconds.
    fn climb(service: &Service, runs: bool, mut ending: Ending) -> Vec<(String, u64)> {
        let target = Climber { incarnation: Incarnation(1), runs, ready: runs };
        let mut told = Vec::new();
        while let Some(wait) = ending.climb(Tick(0), service, target, &mut Vec::new()) {
            told.push((ending.steps.last().unwrap().0.to_string(), wait.as_secs()));
        }
        told
    }

    fn asked() -> Ending {
        let by = Requester { uid: None, pid: None, who: "test".to_owned() };
        Ending::asked(Cause::StopRequested, &by, Tick(0), After::Rest)
    }

    fn told(steps: &[(&str, u64)]) -> Vec<(String, u64)> {
        steps.iter().map(|(step, wait)| ((*step).to_owned(), *wait)).collect()
    }

    #[test]
    fn each_service_has_its_ladder() {
        let mut plain = service("a");
        assert_eq!(climb(&plain, true, asked()), told(&[("SIGTERM", 10), ("SIGKILL", 5)]));
        plain.stop = Stop { signal: Signal::KILL, ..Stop::default() };
        assert_eq!(climb(&plain, true, asked()), told(&[("SIGKILL", 5)]));

        let mut port = service("a");
        port.port = Some(Port { quit: Some(".quit".to_owned()), ..Port::default() });
        let whole = [("quit", 3), ("close_stdin", 3), ("SIGTERM", 10), ("SIGKILL", 5)];
        assert_eq!(climb(&port, true, asked()), told(&whole));
        assert_eq!(climb(&port, false, asked()), told(&whole[2..]), "it cannot listen yet");
        let unready = Climber { incarnation: Incarnation(1), runs: true, ready: false };
        let mut ending = asked();
        ending.climb(Tick(0), &port, unready, &mut Vec::new()).unwrap();
        assert!(ending.is_at_end_of_input(), "no message for one that is not ready");
        port.port = Some(Port { eof: Eof::Ignored, ..Port::default() });
        assert_eq!(climb(&port, true, asked()), told(&whole[2..]));
        port.port = Some(Port { eof: Eof::Error, ..Port::default() });
        assert_eq!(climb(&port, true, asked()), told(&whole[1..]));
    }

    #[test]
    fn a_hurry_kills_at_once_and_only_once() {
        let plain = service("a");
        let target = Climber { incarnation: Incarnation(1), runs: true, ready: true };
        let mut ending = asked();
        ending.climb(Tick(0), &plain, target, &mut Vec::new()).unwrap();
        assert!(!ending.part(Tick(0)).escalated);
        ending.hurry(KillScope::Group);
        let mut actions = Vec::new();
        ending.climb(Tick(7), &plain, target, &mut actions).unwrap();
        assert!(matches!(actions[..], [Action::Kill { scope: KillScope::Group, .. }]));
        assert!(ending.climb(Tick(8), &plain, target, &mut actions).is_none());
        let part = ending.part(Tick(2_000_000_000));
        assert!(part.escalated);
        assert!((part.took_s - 2.0).abs() < 1e-9);
        assert!(
            ending.sent(Signal::TERM) && ending.sent(Signal::KILL) && !ending.sent(Signal::HUP)
        );
    }

    #[test]
    fn what_is_killed_without_asking_is_no_escalation() {
        let ending = Ending::killed(Cause::StartTimeout, Tick(0), false);
        assert_eq!(climb(&service("a"), true, ending.clone()), told(&[("SIGKILL", 5)]));
        assert!(!ending.part(Tick(0)).escalated);
    }

    #[test]
    fn the_stop_signal_reaches_the_group_and_is_followed_by_a_continue() {
        for (kill, group) in
            [(KillScope::Tree, true), (KillScope::Group, true), (KillScope::Process, false)]
        {
            let mut service = service("a");
            service.stop.kill = kill;
            let mut actions = Vec::new();
            let target = Climber { incarnation: Incarnation(1), runs: true, ready: true };
            asked().climb(Tick(0), &service, target, &mut actions).unwrap();
            let sent: Vec<_> = actions
                .iter()
                .map(|action| match action {
                    Action::Signal { signal, group, .. } => (*signal, *group),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(sent, [(Signal::TERM, group), (Signal::CONT, group)]);
        }
    }
}
