//! One life of the manager after the other: deaths, what the next one finds, and upgrades.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf::event::{Alive, End, Event, Oom, Past, PastEnd, State};
use wharf::exit::{Cause, How, Signal};
use wharf::name::ReplicaId;
use wharf::supervise::Supervisor;

use super::book::{Book, Plan, Run};
use super::history::{Sim, by};
use super::oracles::{Fault, Oracle, Tally};
use super::world::{Dice, Stage};

impl Sim {
    /// The supervisor is written down and read again.
    pub(crate) fn upgrade(&mut self, t: &mut Tally) -> Result<(), Fault> {
        let text = serde_json::to_string(&self.supervisor).unwrap();
        let read: Supervisor = serde_json::from_str(&text).unwrap();
        let same = read.views().eq(self.supervisor.views())
            && read.next_deadline() == self.supervisor.next_deadline()
            && read.stopped() == self.supervisor.stopped()
            && read.next_incarnation() == self.supervisor.next_incarnation();
        t.hold(Oracle::UpgradeCarriesOver, same, || format!("not the same again: {text}"))?;
        let next = |supervisor: &Supervisor| {
            let mut supervisor = supervisor.clone();
            let at = supervisor.next_deadline().unwrap_or(self.now).max(self.now);
            format!("{:?}", supervisor.step(at, Event::Time))
        };
        let (one, other) = (next(&self.supervisor), next(&read));
        t.hold(Oracle::UpgradeCarriesOver, one == other, || format!("{one}\n{other}"))?;
        self.supervisor = read;
        let services: Vec<_> =
            self.services.values().map(|known| Arc::clone(&known.service)).collect();
        let stopped = self.supervisor.stopped();
        if self.closing { Ok(()) } else { self.configure(&services, stopped, Vec::new(), t) }
    }

    /// The manager dies, with all it started, and a new life begins.
    pub(crate) fn crash(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        if self.closing {
            return Ok(());
        }
        let stopped = self.supervisor.stopped();
        let mut past = Vec::new();
        for (id, book) in &self.books {
            let ended = match (&book.run, book.plan) {
                (Some(run), _) if self.is_kept(run) && dice.one_in(2) => PastEnd::Alive(Alive {
                    incarnation: run.incarnation,
                    started: run.started.unwrap(),
                    ready: run.ready,
                    in_step: !dice.one_in(4),
                    service: None,
                    memo: self.noted(id, book, dice),
                    stale: dice.one_in(3),
                }),
                (Some(run), _) if run.made || dice.one_in(2) => {
                    let doom = self.world.processes.get(&run.incarnation).and_then(|p| p.doom);
                    let how = doom.unwrap_or_else(|| {
                        dice.pick(&[
                            How::Unseen,
                            How::Signaled(Signal::KILL),
                            How::Signaled(Signal::KILL),
                            How::Exited(0),
                            How::Exited(1),
                            How::Dumped(Signal::new(6).unwrap()),
                        ])
                    });
                    let end = End {
                        oom: if how.signal() == Some(Signal::KILL) && dice.one_in(5) {
                            Oom::Now
                        } else {
                            Oom::No
                        },
                        survivors: how != How::Unseen && dice.one_in(4),
                        ..End::plain(how)
                    };
                    let cause = dice.pick(&[Cause::ManagerDied, Cause::GuardianDied]);
                    PastEnd::Unrecorded { incarnation: run.incarnation, end, cause }
                }
                (None, Plan::Rest(rest)) => PastEnd::Resting(rest),
                (Some(_), _) | (None, Plan::At(_) | Plan::Due(..) | Plan::Deferred(..)) => {
                    PastEnd::Between
                }
            };
            let until = match (book.plan, &ended) {
                (Plan::At(at), PastEnd::Between) if dice.one_in(2) => Some(at),
                _ => None,
            };
            past.push(Past { replica: id.clone(), ended, row: book.row, until });
        }
        let seed = dice.roll();
        self.supervisor = Supervisor::new(self.supervisor.next_incarnation(), seed);
        let alive: BTreeSet<_> = past
            .iter()
            .filter(|past| matches!(past.ended, PastEnd::Alive(_)))
            .filter_map(|past| past.ended.incarnation())
            .collect();
        self.world.sweeps.clear();
        let (kept, gone) = std::mem::take(&mut self.world.processes)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(incarnation, _)| alive.contains(incarnation));
        self.world.processes = kept;
        self.over.extend(gone.into_keys());
        self.before = std::mem::take(&mut self.books);
        self.rolls.clear();
        self.teams.clear();
        self.views.clear();
        self.shown.clear();
        self.say(|| "--- the manager dies".to_owned());
        let services = std::mem::take(&mut self.services);
        let services: Vec<_> = services.into_values().map(|known| known.service).collect();
        // Perhaps that manager was asked to end everything, and died before it had heard of it.
        let down = dice.one_in(8).then(|| (Cause::ManagerShutdown, by("wharf down")));
        self.begin(&services, stopped, past.clone(), down, t)?;
        for past in past {
            if let PastEnd::Alive(alive) = &past.ended {
                self.went_on(&past.replica, alive, t)?;
            }
            if let Some(until) = past.until.filter(|at| *at > self.now && !self.closing)
                && let Some(view) = self.supervisor.view(&past.replica)
                && view.wanted
                // Another end of that life may have been one too many for its group.
                && !self.books.get(&past.replica).is_some_and(|book| book.given_up)
            {
                let waits = view.state == State::Backoff && view.next_start == Some(until);
                t.hold(Oracle::WaitsGoOn, waits, || format!("not until {until:?}: {view:?}"))?;
            }
        }
        Ok(())
    }

    /// What the manager noted of a run, if the next one finds that. What waits for others is not looked at
    /// here: what the others do is not noted.
    fn noted(&self, id: &ReplicaId, book: &Book, dice: &mut Dice) -> Option<(Box<str>, bool)> {
        let is_alone = book.configured && book.run.as_ref().is_some_and(|run| run.held.is_none());
        if !is_alone || dice.one_in(4) {
            return None;
        }
        Some((self.supervisor.memo(id, 2000)?.into_boxed_str(), true))
    }

    /// Whether a run can outlive the manager: its program runs, and with the present configuration.
    fn is_kept(&self, run: &Run) -> bool {
        let process = self.world.processes.get(&run.incarnation);
        process.is_some_and(|process| process.stage == Stage::Runs)
            && run.started.is_some()
            && !run.outdated
    }

    /// What became of a run that outlived the manager.
    fn went_on(&self, id: &ReplicaId, alive: &Alive, t: &mut Tally) -> Result<(), Fault> {
        let view = self.supervisor.view(id);
        let same = view.as_ref().is_some_and(|view| {
            view.incarnation == Some(alive.incarnation) && view.started_at == Some(alive.started)
        });
        t.hold(Oracle::KeptGoesOn, same, || format!("{id} went on as {alive:?}: {view:?}"))?;
        let run = self.books.get(id).and_then(|book| book.run.as_ref());
        if self.closing {
            let ends = |run: &Run| run.asked.is_some() || run.held.is_some();
            let words = || format!("{id} went on as {alive:?}: {run:?}");
            t.hold(Oracle::DownGoesOn, run.is_some_and(ends), words)?;
        }
        let before = self.before.get(id).and_then(|book| book.run.as_ref());
        // The machine that went on shows these only in what it would leave to the next one.
        let memo = self.supervisor.memo(id, 2000).unwrap_or_else(|| "{}".to_owned());
        let memo: serde_json::Value = serde_json::from_str(&memo).unwrap();
        let due = self.books.get(id).is_some_and(|book| book.due_again);
        let same = memo["due"].as_bool().unwrap_or(false) == due;
        t.hold(Oracle::OverlapIsQueued, same, || format!("{id} is due again: {due}, not {memo}"))?;
        let sent =
            run.and_then(|run| run.signal.as_ref()).map(|(_, by, at)| (by.who.as_str(), at.0));
        let same = (memo["signal"]["by"]["who"].as_str(), memo["signal"]["at"].as_u64())
            == (sent.map(|(who, _)| who), sent.map(|(_, at)| at));
        t.hold(Oracle::CauseIsTrue, same, || format!("{id} was sent {sent:?}, not {memo}"))?;
        let wanted = self.books.get(id).map(|book| book.wanted);
        let same = view.as_ref().map(|view| view.wanted) == wanted;
        t.hold(Oracle::StoppedStays, same, || format!("{id} is wanted: {wanted:?}, not {view:?}"))?;
        if let (Some(_), Some(before)) = (&alive.memo, before)
            && before.asked.is_some()
        {
            let ends = view
                .as_ref()
                .is_some_and(|view| matches!(view.state, State::Stopping | State::Unkillable));
            let same = run.is_some_and(|run| run.steps.len() == before.steps.len());
            return t.hold(Oracle::EndGoesOn, same && ends, || {
                format!("{id} was being ended {before:?}, and is {run:?}: {view:?}")
            });
        }
        if self.closing {
            return Ok(());
        }
        let steps = run.map_or(0, |run| run.steps.len());
        let down = view.is_some_and(|view| !view.wanted);
        // The end of another one, in the same step, may have been that of its group.
        let asked = run.and_then(|run| run.asked.as_ref()).map(|asked| asked.cause);
        let with_group = asked == Some(Cause::GroupStrategy);
        let (oracle, right) = match (down, alive.in_step) {
            (true, _) => (Oracle::KeptIsStopped, steps > 0),
            (false, false) => (Oracle::KeptOutOfStepIsRenewed, steps > 0),
            (false, true) => (Oracle::KeptGoesOn, (steps > 0) == with_group),
        };
        t.hold(oracle, right, || format!("{steps} steps were taken to end {id}: {alive:?}"))
    }
}
