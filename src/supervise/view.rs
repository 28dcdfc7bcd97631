//! What can be seen of a replica from outside: the words of `ps` and `status`.

use serde::{Deserialize, Serialize};

use crate::event::{Health, Rest, State};
use crate::exit::{Cause, How, Reason};
use crate::name::{Incarnation, ReplicaId};
use crate::time::Tick;

use super::backoff::CRASH_LOOPING;
use super::graph::Standing;
use super::hold::Hold;
use super::machine::Next;
use super::machine::Phase::{
    Backoff, Deferred, Down, Queued, Running, Starting, Stopping, Sweeping, Unkillable,
};
use super::machine::{Retry, Turn};
use super::replica::Replica;

/// One replica as it stands.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact of a replica")]
pub struct View {
    /// The replica.
    pub replica: ReplicaId,
    /// Its state.
    pub state: State,
    /// Since when it has been in that state.
    pub since: Tick,
    /// The present run, while there is one or what it left behind is being swept.
    pub incarnation: Option<Incarnation>,
    /// When the program of the present run was seen to run.
    pub started_at: Option<Tick>,
    /// Restarts decided by the policy. What operators, reloads and recovery start does not count.
    pub restarts: u64,
    /// Failures in a row, as the backoff counts them.
    pub row: u32,
    /// Whether it keeps failing: the row has reached [`CRASH_LOOPING`] and it
    /// is not resting.
    pub crash_looping: bool,
    /// When it will be started or tried again, where that is a matter of time.
    pub next_start: Option<Tick>,
    /// How the last run ended that was recorded.
    pub last: Option<LastEnd>,
    /// Whether it is wanted up: it is configured and no operator stopped it. (It may rest all the
    /// same, finished or failed.)
    pub wanted: bool,
    /// Whether something that the last run left behind could not be killed.
    pub left_behind: bool,
    /// Why nothing of it runs and nothing happens by itself; `None` where something does.
    pub rest: Option<Rest>,
    /// What is known of its health, where a health check is declared and a run is there to be asked.
    pub health: Option<Health>,
    /// Health checks that failed in a row, as far as they count.
    pub failed_checks: u32,
    /// Whether it is ready and, where that is looked at, seen to be well: `service_healthy`.
    pub healthy: bool,
    /// Why it is not started although it is wanted: what it waits for, or for whose sake it is skipped.
    pub hold: Option<Box<Hold>>,
    /// Whether its run is that of an older configuration, because its turn has not come.
    pub outdated: bool,
}

/// The end of a run in four words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// Which run.
    pub incarnation: Incarnation,
    /// The kernel's word.
    pub how: How,
    /// The reason.
    pub reason: Reason,
    /// The cause.
    pub cause: Cause,
}

/// What the supervisor's indexes hold of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks {
    pub(super) deadline: Option<Tick>,
    pub(super) queued: Option<Turn>,
    pub(super) deferred: Option<Retry>,
    pub(super) run: Option<Incarnation>,
    /// It is between the order to start and the program.
    pub(super) starting: bool,
    /// A shutdown waits for it.
    pub(super) busy: bool,
    /// How it stands for those who wait for it; `None` where it is no longer configured.
    pub(super) standing: Option<Standing>,
}

impl Replica {
    /// The state in the words of `ps`.
    pub(super) fn state(&self) -> State {
        match &self.machine.phase {
            Down(Rest::Stopped) => State::Stopped,
            Down(Rest::Finished) => State::Finished,
            Down(Rest::Failed) => State::Failed,
            Queued(_) if self.is_skipped() => State::Failed,
            Down(Rest::Scheduled) | Queued(_) | Deferred(_) => State::Waiting,
            Starting(_) => State::Starting,
            Running(_) => State::Running,
            Stopping(..) | Sweeping(..) => State::Stopping,
            Unkillable(..) => State::Unkillable,
            Backoff => State::Backoff,
        }
    }

    /// What the supervisor's indexes hold of it.
    pub(super) fn marks(&self) -> Marks {
        let standing = (!self.machine.leaving).then(|| self.standing());
        let marks = Marks { deadline: self.machine.deadline, standing, ..Marks::default() };
        match &self.machine.phase {
            Down(_) | Backoff => marks,
            Queued(_) if self.machine.hold.is_some() => marks,
            Queued(turn) => Marks { queued: Some(*turn), ..marks },
            Deferred(retry) => Marks { deferred: Some(*retry), ..marks },
            Running(run) => Marks { run: Some(run.incarnation), busy: true, ..marks },
            Starting(run) | Stopping(run, _) => {
                let starting = run.started.is_none();
                Marks { run: Some(run.incarnation), starting, busy: true, ..marks }
            }
            Unkillable(run, _) => Marks { run: Some(run.incarnation), ..marks },
            Sweeping(incarnation, _) => Marks { run: Some(*incarnation), busy: true, ..marks },
        }
    }

    /// Whether it is in line and kept from starting for good.
    fn is_skipped(&self) -> bool {
        self.machine.hold.as_ref().is_some_and(|hold| hold.is_shut())
    }

    /// How it stands for those who wait for it. (A declared readiness is what makes it ready.)
    pub(super) fn standing(&self) -> Standing {
        match &self.machine.phase {
            Down(Rest::Stopped) => Standing::Stopped,
            Down(Rest::Finished) => Standing::Finished,
            Down(Rest::Failed) => Standing::Failed,
            Down(Rest::Scheduled) => Standing::Scheduled,
            Queued(_) if self.is_skipped() => Standing::Failed,
            Starting(_) | Running(_) if self.machine.held.is_some() => Standing::Ending,
            Starting(run) if run.started.is_some() => Standing::Started,
            Queued(_) | Deferred(_) | Starting(_) => Standing::Coming,
            Running(_) if self.is_healthy() => Standing::Healthy,
            Running(_) => Standing::Ready,
            Stopping(..) | Sweeping(..) => Standing::Ending,
            Unkillable(..) => Standing::Stuck,
            Backoff => Standing::Backoff,
        }
    }

    /// How many restarts it has left before it is given up.
    pub(super) fn budget(&self, now: Tick) -> u32 {
        let restart = &self.service.restart;
        restart.max_restarts.saturating_sub(self.machine.recent.spent(now, restart.within))
    }

    /// What can be seen of it.
    pub(super) fn view(&self) -> View {
        let started_at = match &self.machine.phase {
            Starting(run) | Running(run) | Stopping(run, _) | Unkillable(run, _) => run.started,
            Down(_) | Queued(_) | Deferred(_) | Sweeping(..) | Backoff => None,
        };
        let next_start = match &self.machine.phase {
            Backoff | Deferred(_) => self.machine.deadline,
            Sweeping(_, Next::Start(at)) => Some(*at),
            Sweeping(_, Next::Rest(_))
            | Down(_)
            | Queued(_)
            | Starting(_)
            | Running(_)
            | Stopping(..)
            | Unkillable(..) => None,
        };
        let state = self.state();
        View {
            replica: self.id.clone(),
            state,
            since: self.machine.since,
            incarnation: self.marks().run,
            started_at,
            restarts: self.machine.restarts,
            row: self.machine.row,
            crash_looping: self.machine.row >= CRASH_LOOPING && !state.is_resting(),
            next_start,
            last: self.machine.last,
            wanted: self.machine.wanted && !self.machine.leaving,
            left_behind: self.machine.left_behind,
            rest: match &self.machine.phase {
                Down(rest) => Some(*rest),
                _ => None,
            },
            health: self.health(),
            failed_checks: self.failed_checks(),
            healthy: self.is_healthy(),
            hold: match &self.machine.phase {
                Queued(_) | Down(Rest::Failed) => self.machine.hold.clone(),
                Down(_) | Deferred(_) | Starting(_) | Running(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff => None,
            },
            outdated: self.next.is_some() && matches!(self.machine.phase, Running(_)),
        }
    }
}
