//! One run without a supervisor: how it is ended and how its end is judged, by the same ladder and the
//! same judgement as every service's. Nothing follows from the end: there is no policy and no successor.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Action, End};
use crate::exit::{Cause, Certainty, Reason, Signal, StopPart};
use crate::name::{Incarnation, Requester};
use crate::spec::{KillScope, Service};
use crate::time::Tick;

use super::ladder::{After, Climber, Ending};
use super::machine::Sent;
use super::verdict::{Facts, judge};

/// A run on its own.
#[derive(Debug)]
pub struct Single {
    service: Arc<Service>,
    ending: Option<Ending>,
    sent: Option<Sent>,
    /// Until when the last step of the ladder is given time.
    next: Option<Tick>,
}

/// What is to be said of an end.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Why it ended.
    pub reason: Reason,
    /// What led to that.
    pub cause: Cause,
    /// What was done to stop it.
    pub stop: Option<StopPart>,
    /// What the reason rests on.
    pub evidence: Vec<String>,
    /// How far reason and cause are known.
    pub certainty: Certainty,
}

fn embedder() -> Requester {
    Requester { uid: None, pid: None, who: "the program it is embedded in".to_owned() }
}

impl Single {
    /// A run of `service`, which nobody has asked to end.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, ending: None, sent: None, next: None }
    }

    /// It is to end, for this cause; the ladder begins now. Asked twice, it goes on as it is.
    pub fn stop(&mut self, cause: Cause, now: Tick) {
        if self.ending.is_none() {
            self.ending = Some(Ending::asked(cause, &embedder(), now, After::Rest));
            self.next = Some(now);
        }
    }

    /// It is to be killed now, as far as `scope`, whatever was under way.
    pub fn kill(&mut self, cause: Cause, scope: KillScope, now: Tick) {
        self.stop(cause, now);
        if let Some(ending) = &mut self.ending
            && !ending.is_killed()
        {
            ending.hurry(scope);
            self.next = Some(now);
        }
    }

    /// What it wrote is not its protocol: it is killed.
    pub fn broke_protocol(&mut self, now: Tick) {
        if self.ending.is_none() {
            self.ending = Some(Ending::killed(Cause::Spontaneous, now, true));
            self.next = Some(now);
        }
    }

    /// A signal was sent to it on request.
    pub fn signalled(&mut self, signal: Signal, now: Tick) {
        self.sent = Some(Sent { signal, by: embedder(), at: now });
    }

    /// Whether it is being ended.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// When the ladder wants to be climbed.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.next
    }

    /// Takes the next step if it is due, and says what is to be done. `ready` is whether the program can
    /// be spoken to.
    pub fn climb(&mut self, now: Tick, ready: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let due = self.next.is_some_and(|at| at <= now);
        if let (true, Some(ending)) = (due, &mut self.ending) {
            let climber = Climber { incarnation: Incarnation(0), runs: true, ready };
            let wait: Option<Duration> = ending.climb(now, &self.service, climber, &mut actions);
            self.next = wait.filter(|_| !ending.is_killed()).map(|wait| now + wait);
        }
        actions
    }

    /// Judges its end.
    pub fn judge(&self, end: &End, now: Tick) -> Judged {
        let facts = Facts {
            service: &self.service,
            end,
            ending: self.ending.as_ref(),
            signal: self.sent.as_ref(),
            past: None,
            now,
        };
        let judgement = judge(&facts);
        Judged {
            reason: judgement.reason,
            cause: judgement.cause,
            stop: judgement.stop,
            evidence: judgement.evidence,
            certainty: judgement.certainty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::How;
    use crate::name::ServiceName;
    use crate::spec::Port;

    fn port() -> Arc<Service> {
        let mut service = Service::new(ServiceName::new("port").unwrap());
        service.port = Some(Port { quit: Some("quit".to_owned()), ..Port::default() });
        Arc::new(service)
    }

    fn steps(single: &mut Single) -> Vec<String> {
        while let Some(at) = single.next_deadline() {
            assert!(!single.climb(at, true).is_empty());
        }
        let stop = single.judge(&End::plain(How::Exited(0)), Tick(0)).stop.unwrap();
        stop.steps.into_iter().map(|step| step.step).collect()
    }

    #[test]
    fn it_climbs_the_ladder_of_a_service() {
        let mut single = Single::new(port());
        assert!(single.climb(Tick(5), true).is_empty() && single.next_deadline().is_none());
        single.stop(Cause::StopRequested, Tick(5));
        single.stop(Cause::Cancelled, Tick(6));
        assert_eq!(steps(&mut single), ["quit", "close_stdin", "SIGTERM", "SIGKILL"]);
    }

    #[test]
    fn a_kill_skips_what_is_left_and_happens_once() {
        let mut single = Single::new(port());
        single.stop(Cause::StopRequested, Tick(0));
        assert_eq!(single.climb(Tick(0), true).len(), 1);
        single.kill(Cause::Cancelled, KillScope::Tree, Tick(1));
        assert_eq!(steps(&mut single), ["quit", "SIGKILL"]);
        single.kill(Cause::Cancelled, KillScope::Tree, Tick(2));
        assert!(single.next_deadline().is_none());
    }

    #[test]
    fn the_same_end_has_its_own_cause() {
        let code = |code| End::plain(How::Exited(code));
        let alone = Single::new(port()).judge(&code(1), Tick(0));
        assert_eq!((alone.reason, alone.cause), (Reason::Failed, Cause::Spontaneous));
        let mut broken = Single::new(port());
        broken.broke_protocol(Tick(0));
        let broken = broken.judge(&code(0), Tick(0));
        assert_eq!((broken.reason, broken.cause), (Reason::ProtocolError, Cause::Spontaneous));
        let mut signalled = Single::new(port());
        signalled.signalled(Signal::HUP, Tick(0));
        let end = End { how: How::Signaled(Signal::HUP), ..code(0) };
        let signalled = signalled.judge(&end, Tick(1));
        assert_eq!((signalled.reason, signalled.cause), (Reason::Signaled, Cause::SignalRequested));
    }
}
