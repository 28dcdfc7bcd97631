//! The loop's dealings with questions to programs: who asks them, and what becomes of the answers.
//!
//! HTTP and connections are asked by the [`Prober`], commands are executed by the spawner
//! (`probe_exec`), calls go over the port. Nothing here decides what an answer means.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Event, Purpose, State};
use crate::name::{Incarnation, ReplicaId, Target};
use crate::os::clock;
use crate::os::fds::Waker;
use crate::probe::{Outcome, Prober, Question, Told};
use crate::spec::{Check, Endpoint, HttpUrl, Service};
use crate::time::{Tick, Wall};

use super::caller::Caller;
use super::control::Control;
use super::probe_exec::{Asked, Execs};
use super::published::What;
use super::request::{CheckStatus, SpeakError, Speech};

/// Everything that asks.
pub(super) struct Probes {
    prober: Prober,
    pub(super) execs: Execs,
}

impl Probes {
    pub(super) fn new(waker: Waker) -> Self {
        Self { prober: Prober::new(waker), execs: Execs::default() }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Tick> {
        self.execs.due()
    }
}

/// What came of the last question to a run.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    at: Wall,
    error: Option<Box<str>>,
    said: Vec<u8>,
    /// How many failures in a row were the same.
    same: u32,
}

impl Control {
    /// Asks a program, as its service says.
    pub(super) fn probe(
        &mut self,
        incarnation: Incarnation,
        number: u64,
        purpose: Purpose,
        service: &Arc<Service>,
        timeout: Duration,
    ) {
        let check = match purpose {
            Purpose::Ready => service.ready_check(),
            Purpose::Health => service.healthcheck.as_ref().map(|check| &check.by),
        };
        let question = match check {
            Some(Check::Http(url)) => HttpUrl::parse(url).map(Question::Http),
            Some(Check::Tcp(address)) => Endpoint::parse(address).map(Question::Tcp),
            Some(Check::Exec(command)) => {
                let asked = Asked { run: incarnation, number, purpose, timeout };
                return self.ask_by_exec(asked, service, command);
            }
            Some(Check::Call(message)) => {
                return self.ask_by_call(incarnation, number, message.clone(), timeout);
            }
            // A configuration that took effect since has no question any more.
            None => return,
        };
        match question {
            Ok(question) => self.ask_prober(incarnation, number, question, timeout),
            Err(why) => self.probed(incarnation, number, Outcome::from(Err(why.into()))),
        }
    }

    fn ask_prober(
        &mut self,
        incarnation: Incarnation,
        number: u64,
        question: Question,
        timeout: Duration,
    ) {
        if let Err(error) = self.probes.prober.ask(incarnation, number, question, timeout) {
            // The question is asked again when its answer is seen not to come.
            tracing::warn!(%incarnation, %error, "cannot start the thread that asks programs");
        }
    }

    fn ask_by_call(
        &mut self,
        incarnation: Incarnation,
        number: u64,
        message: String,
        timeout: Duration,
    ) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        let ReplicaId { service, replica } = run.replica.clone();
        let target = Target { service, replica: Some(replica) };
        let caller = Caller::Probe { incarnation, number };
        let speech = Speech::Call(Some(timeout));
        self.speak_later(&target, message.into(), speech, u64::MAX, caller);
        self.write_spoken();
    }

    /// A call that was a question has its answer.
    pub(super) fn call_probed(
        &mut self,
        incarnation: Incarnation,
        number: u64,
        result: Result<Vec<bytes::Bytes>, SpeakError>,
    ) {
        let outcome = match result {
            Ok(messages) => {
                let mut said = messages.concat();
                said.truncate(crate::probe::KEPT);
                Outcome { result: Ok(()), said }
            }
            Err(error) => Err(error.to_string().into()).into(),
        };
        self.probed(incarnation, number, outcome);
    }

    /// Has a run's memory looked at.
    pub(super) fn measure(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get(&incarnation).filter(|run| run.pid != 0) else { return };
        if let Err(error) = self.probes.prober.measure(incarnation, run.pid, run.group.clone()) {
            tracing::warn!(%incarnation, %error, "cannot start the thread that looks at memory");
        }
    }

    /// Has what executed questions left behind killed.
    pub(super) fn sweep_probes(&mut self, marks: Vec<u64>) {
        if let Err(error) = self.probes.prober.sweep(marks) {
            tracing::warn!(%error, "cannot start the thread that looks for processes");
        }
    }

    /// Takes what the prober has found.
    pub(super) fn take_probed(&mut self) {
        while let Some(told) = self.probes.prober.told() {
            match told {
                Told::Answer { incarnation, number, outcome } => {
                    self.probed(incarnation, number, outcome);
                }
                Told::Memory { incarnation, bytes } => {
                    self.feed(Event::Measured { incarnation, bytes });
                }
                Told::Swept { killed } => {
                    if killed > 0 {
                        tracing::info!(killed, "killed what health checks left behind");
                    }
                    self.children_ended();
                }
            }
        }
    }

    /// A question has its answer: it is kept for those who look, told where it is news, and decided
    /// upon.
    pub(super) fn probed(&mut self, incarnation: Incarnation, number: u64, outcome: Outcome) {
        let Outcome { result, said } = outcome;
        let Some(run) = self.runs.get_mut(&incarnation).filter(|run| run.end.is_none()) else {
            return;
        };
        let error = result.as_ref().err().cloned();
        let before = run.checked.take();
        let is_same = before.as_ref().is_some_and(|before| before.error == error);
        let same =
            if is_same { before.map_or(1, |before| before.same.saturating_add(1)) } else { 1 };
        let at = clock::wall();
        run.checked = Some(Box::new(Checked { at, error: error.clone(), said, same }));
        let (replica, service) = (run.replica.clone(), Arc::clone(&run.service));
        if let Some(error) = error {
            let view = self.supervisor.view(&replica);
            let is_ready = view.is_some_and(|view| view.state == State::Running);
            let purpose = if is_ready { Purpose::Health } else { Purpose::Ready };
            if let Some(counts) = self.book.of(&service.name) {
                counts.probe_failures += 1;
            }
            // The same again and again is no news.
            let retries = service.healthcheck.as_ref().map_or(1, |check| check.retries);
            if same <= if is_ready { retries } else { 1 } {
                self.publish_of(
                    &replica.clone(),
                    What::ProbeFailed { replica, incarnation, purpose, error },
                );
            }
        }
        self.feed(Event::Probed { incarnation, number, result });
    }
}

impl Checked {
    /// For `status`.
    pub(super) fn status(&self) -> CheckStatus {
        let output = String::from_utf8_lossy(&self.said).into_owned();
        CheckStatus {
            at: self.at,
            ok: self.error.is_none(),
            error: self.error.as_deref().map(str::to_owned),
            output: Some(output).filter(|output| !output.is_empty()),
        }
    }
}
