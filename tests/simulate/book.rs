//! What the oracles know of each replica: what was asked, what the world told, and what is due.
//!
//! It is kept from events, and from the actions that were checked, never from the supervisor.

use std::sync::Arc;
use std::time::Duration;

use wharf::event::{Rest, State};
use wharf::exit::{Cause, Signal};
use wharf::name::{Incarnation, Requester};
use wharf::spec::{Eof, KillScope, Service};
use wharf::time::Tick;

use super::relate::Held;
use super::watch::Watch;

/// How long a kill or a process that is still being made is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// One replica.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Book {
    /// The configuration in force.
    pub(crate) service: Arc<Service>,
    pub(crate) wanted: bool,
    pub(crate) configured: bool,
    pub(crate) row: u32,
    pub(crate) restarts: u64,
    /// Restarts by policy of late.
    pub(crate) recent: Vec<Tick>,
    pub(crate) run: Option<Run>,
    /// The run whose survivors are being swept, and since when.
    pub(crate) sweeping: Option<(Incarnation, Tick)>,
    /// A sweep that has to be ordered before this step is over.
    pub(crate) sweep_owed: Option<KillScope>,
    /// What follows, when there is no run.
    pub(crate) plan: Plan,
    /// Its time came during its run, and another run waits for the end of that.
    pub(crate) due_again: bool,
    /// It rests because its group was given up.
    pub(crate) given_up: bool,
}

/// What is to become of a replica that has no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    Rest(Rest),
    /// It is started at this time.
    At(Tick),
    /// It is started now; the number is that of the step in which that was decided.
    Due(Option<(Incarnation, u32)>, u64),
    /// Run, how often it was deferred, and when it is tried again.
    Deferred(Incarnation, u32, Tick),
}

impl Plan {
    /// Whether it is down by a word, and not for want of its time.
    pub(crate) fn is_rest(self) -> bool {
        matches!(self, Self::Rest(Rest::Stopped | Rest::Finished | Rest::Failed))
    }
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) incarnation: Incarnation,
    pub(crate) service: Arc<Service>,
    /// Whether another configuration waits for its end.
    pub(crate) outdated: bool,
    pub(crate) ordered: Tick,
    pub(crate) tries: u32,
    pub(crate) made: bool,
    pub(crate) started: Option<Tick>,
    pub(crate) ready: Option<Tick>,
    pub(crate) asked: Option<Asked>,
    /// It is to be asked as soon as nobody is in the way.
    pub(crate) held: Option<Held>,
    pub(crate) signal: Option<(Signal, Requester, Tick)>,
    /// The signal that it is to be told by as soon as it is ready, and whether an earlier manager owed it.
    pub(crate) news: Option<(Signal, bool)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) unkillable: bool,
    pub(crate) watch: Watch,
}

/// An end that was asked for.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Asked {
    pub(crate) cause: Cause,
    pub(crate) by: Option<Requester>,
    pub(crate) at: Tick,
    pub(crate) then: Then,
    /// It is killed without being asked, with its tree.
    pub(crate) kill: bool,
    pub(crate) protocol: bool,
    /// Because memory ran out for a part of it.
    pub(crate) oom: bool,
    pub(crate) hurried: bool,
}

/// What follows an end that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Judge,
    Again,
    Rest,
    GiveUp,
}

/// A step of the ladder that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) rank: u8,
    pub(crate) name: String,
    pub(crate) at: Tick,
    pub(crate) patience: Duration,
}

impl Book {
    pub(crate) fn new(service: Arc<Service>, wanted: bool, plan: Plan) -> Self {
        Self {
            service,
            wanted,
            configured: true,
            row: 0,
            restarts: 0,
            recent: Vec::new(),
            run: None,
            sweeping: None,
            sweep_owed: None,
            plan,
            due_again: false,
            given_up: false,
        }
    }

    /// Somebody wants its end. The first word is the cause; the last one says what follows.
    pub(crate) fn ask(&mut self, cause: Cause, by: &Requester, now: Tick, then: Then) {
        self.ask_for(cause, Some(by.clone()), now, then);
    }

    /// The same for somebody or nobody.
    pub(crate) fn ask_for(&mut self, cause: Cause, by: Option<Requester>, now: Tick, then: Then) {
        if let Some(run) = &mut self.run {
            run.held = None;
            match &mut run.asked {
                Some(asked) => asked.then = then,
                None => {
                    run.asked = Some(Asked {
                        cause,
                        by,
                        at: now,
                        then,
                        kill: false,
                        protocol: false,
                        oom: false,
                        hurried: false,
                    });
                }
            }
        }
    }

    /// It is ended by force.
    pub(crate) fn kill(&mut self, cause: Cause, now: Tick, protocol: bool) {
        if let Some(run) = &mut self.run {
            run.asked = Some(Asked {
                cause,
                by: None,
                at: now,
                then: Then::Judge,
                kill: true,
                protocol,
                oom: false,
                hurried: false,
            });
        }
    }

    /// Somebody wants it up.
    pub(crate) fn start(&mut self, step: u64) {
        match &mut self.run {
            None => self.due(step),
            Some(run) => {
                run.held = None;
                if let Some(asked) = &mut run.asked {
                    asked.then = Then::Again;
                }
            }
        }
    }

    /// Its present configuration is another one's, which has to make room; what is to rest, rests.
    pub(crate) fn change(&mut self, by: &Requester, now: Tick, step: u64) {
        match &self.run {
            Some(run) if run.asked.is_none() && run.is_to_rest() => {}
            Some(_) => {
                let then = if self.wanted { Then::Again } else { Then::Rest };
                self.ask(Cause::ConfigChanged, by, now, then);
            }
            // What was to leave, and stays, waits for its time as one that is new would.
            None if self.service.schedule.is_some()
                && self.wanted
                && self.plan == Plan::Rest(Rest::Stopped) =>
            {
                self.plan = Plan::Rest(Rest::Scheduled);
            }
            // What the clock starts, no configuration starts.
            None if self.service.schedule.is_some() && matches!(self.plan, Plan::Rest(_)) => {}
            None if self.wanted => self.due(step),
            None => {}
        }
    }

    /// The start is due in this step.
    pub(crate) fn due(&mut self, step: u64) {
        self.plan = match self.plan {
            Plan::Due(retry, since) => Plan::Due(retry, since),
            Plan::Deferred(incarnation, tries, _) => Plan::Due(Some((incarnation, tries)), step),
            Plan::Rest(_) | Plan::At(_) => Plan::Due(None, step),
        };
    }

    /// The state that the supervisor has to show.
    pub(crate) fn state(&self) -> State {
        match &self.run {
            Some(run) if run.unkillable => State::Unkillable,
            Some(run) if run.asked.is_some() => State::Stopping,
            Some(run) if run.ready.is_some() => State::Running,
            Some(_) => State::Starting,
            None if self.sweeping.is_some() => State::Stopping,
            None => match self.plan {
                Plan::Rest(Rest::Stopped) => State::Stopped,
                Plan::Rest(Rest::Finished) => State::Finished,
                Plan::Rest(Rest::Failed) => State::Failed,
                Plan::At(_) => State::Backoff,
                Plan::Rest(Rest::Scheduled) | Plan::Due(..) | Plan::Deferred(..) => State::Waiting,
            },
        }
    }

    /// Whether nothing of it is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.run.is_none() && self.sweeping.is_none()
    }
}

impl Run {
    /// The steps its ladder has, as (place, patience), given what has been asked.
    pub(crate) fn ladder(&self) -> Vec<(u8, Duration)> {
        let kill = (3, PATIENCE);
        if self.asked.as_ref().is_some_and(|asked| asked.kill || asked.hurried) {
            return vec![kill];
        }
        let mut steps = Vec::new();
        if let (Some(port), Some(_)) = (&self.service.port, self.started) {
            if port.quit.is_some() && self.ready.is_some() {
                steps.push((0, port.eof_grace));
            }
            if port.eof != Eof::Ignored {
                steps.push((1, port.eof_grace));
            }
        }
        if self.service.stop.signal != Signal::KILL {
            steps.push((2, self.service.stop.grace));
        }
        steps.push(kill);
        steps
    }

    /// Whether it is to end as soon as nobody is in the way, and to stay down.
    pub(crate) fn is_to_rest(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| matches!(held.then, Then::Rest | Then::GiveUp))
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.steps.last().is_some_and(|step| step.rank == 3)
    }

    /// How far its kill reaches.
    pub(crate) fn scope(&self) -> KillScope {
        match &self.asked {
            Some(asked) if asked.kill => KillScope::Tree,
            _ => self.service.stop.kill,
        }
    }
}
