//! How a history ends: the world turns kind, and everything comes to rest; then it is shut down.

use std::time::Duration;

use wharf::event::{Event, Health, Rest, Said, State};
use wharf::exit::{Cause, How, Signal};
use wharf::name::{Incarnation, ReplicaId, ServiceName};
use wharf::spec::Condition;
use wharf::supervise::Hold;
use wharf::time::Tick;

use super::book::{Asked, Book, Plan, Run, Then};
use super::history::{Sim, by};
use super::oracles::{Fault, Oracle, Tally};
use super::world::{Dice, Process, Stage, Temper};

/// More replicas than this never are all there at once where each is renewed again and again.
const MANY: usize = 3;

impl Sim {
    /// First the world turns kind: what is wanted comes up, what is not goes down. Then everything
    /// is shut down.
    pub(crate) fn come_to_the_end(&mut self, t: &mut Tally) -> Result<(), Fault> {
        let mut dice = Dice(self.step);
        self.say(|| "--- the world turns kind".to_owned());
        for process in self.world.processes.values_mut() {
            process.temper = Temper::Stubborn;
        }
        self.settle(&mut dice, t)?;
        for (id, book) in &self.books {
            let skipped = book.state() == State::Waiting && self.is_skipped(&id.service);
            let state = if skipped { State::Failed } else { book.state() };
            if self.closing || !book.wanted {
                t.hold(Oracle::StopEnds, state.is_resting(), || format!("{id} is {state:?}"))?;
            } else {
                let scheduled = book.plan == Plan::Rest(Rest::Scheduled);
                let well = [State::Running, State::Finished, State::Failed].contains(&state)
                    || state == State::Waiting && scheduled
                    || self.is_one_of_many_renewed(id, book);
                t.hold(Oracle::WantedRunsInTheEnd, well, || format!("{id} is {state:?}"))?;
            }
        }
        for process in self.world.processes.values_mut() {
            process.temper = dice.pick(&[Temper::Polite, Temper::Stubborn, Temper::Stuck]);
        }
        let event = Event::Shutdown { cause: Cause::ManagerShutdown, by: by("SIGTERM") };
        self.feed(&event, &mut dice, t)?;
        let began = self.now;
        self.settle(&mut dice, t)?;
        t.hold(Oracle::DownOnceWhenEmpty, self.down, || "nobody said that it is down".to_owned())?;
        let took = self.now.since(began);
        t.hold(Oracle::StopEnds, took < Duration::from_secs(200), || format!("took {took:?}"))
    }

    /// Lets happen whatever will, until nothing is left that would.
    pub(crate) fn settle(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        for _ in 0..20_000 {
            // What is started in a kind world can be ended: a group may want that, or its age.
            let stuck = |process: &&mut Process| process.temper == Temper::Stuck;
            for process in self.world.processes.values_mut().filter(stuck) {
                if !self.closing {
                    process.temper = Temper::Stubborn;
                }
            }
            let ready = self.world.under_way().next();
            // A process that hangs in a kill does end once the world is kind, unless it is stuck.
            let hung = self.books.values().find_map(|book| {
                let run = book.run.as_ref().filter(|run| run.is_killed())?;
                let process = self.world.processes.get(&run.incarnation)?;
                (process.temper != Temper::Stuck && process.doom.is_none())
                    .then_some(run.incarnation)
            });
            if let Some(incarnation) = ready {
                self.advance(incarnation, dice, true, t)?;
                if let Some(process) = self.world.processes.get_mut(&incarnation)
                    && process.stage == Stage::Ordered
                {
                    process.temper = Temper::Polite;
                }
            } else if let Some(incarnation) = hung {
                self.finish(incarnation, How::Signaled(Signal::KILL), dice, t)?;
            } else if self.is_at_rest() {
                if let Some(service) = self.overdue() {
                    self.feed(&Event::Due { service }, dice, t)?;
                } else if let Some(incarnation) = self.awaited() {
                    self.finish(incarnation, How::Exited(0), dice, t)?;
                } else {
                    return Ok(());
                }
            } else if let Some(next) = self.supervisor.next_deadline() {
                // Who is to give signs of life gives them in time.
                let due = |book: &Book| book.sign_due().is_some_and(|at| at <= next);
                let silent = self.books.values().find(|book| due(book));
                if let Some(run) = silent.and_then(|book| book.run.as_ref()) {
                    let incarnation = run.incarnation;
                    self.now = Tick(next.0.saturating_sub(1)).max(self.now);
                    self.feed(&Event::Said { incarnation, said: Said::Alive }, dice, t)?;
                    continue;
                }
                self.now = next.max(self.now);
                self.feed(&Event::Time, dice, t)?;
            } else {
                return Ok(());
            }
        }
        t.hold(Oracle::WantedMovesOn, false, || "it never comes to rest".to_owned())
    }

    /// Whether what is still to come are only questions, looks and signs of life.
    fn is_at_rest(&self) -> bool {
        let waits = self.is_anybody_awaited();
        self.books.iter().all(|(id, book)| {
            let state = book.state();
            let in_line = book.is_empty() && matches!(book.plan, Plan::Due(..));
            let well = |run: &Run| run.health().is_none_or(|health| health == Health::Healthy);
            state.is_resting()
                || book.is_empty() && matches!(book.plan, Plan::Rest(_))
                || in_line && self.gate(&id.service).is_some()
                || state == State::Unkillable
                || !waits && self.is_one_of_many_renewed(id, book)
                || state == State::Running && book.row == 0 && book.run.as_ref().is_some_and(well)
        })
    }

    /// Whether a run makes room for the next because of its age. Of many whose life is short there is always
    /// one.
    fn is_one_of_many_renewed(&self, id: &ReplicaId, book: &Book) -> bool {
        let asked = book.run.as_ref().and_then(|run| run.asked.as_ref());
        let renewed =
            |asked: &Asked| asked.cause == Cause::MaxLifetime && asked.then == Then::Again;
        asked.is_some_and(renewed) && self.configured(&id.service).len() > MANY
    }

    /// Whether somebody in line waits for others to get anywhere, but for the completion of one that runs.
    fn is_anybody_awaited(&self) -> bool {
        let in_line = |book: &Book| book.is_empty() && matches!(book.plan, Plan::Due(..));
        let gates = self.books.iter().filter(|(_, book)| in_line(book));
        gates.filter_map(|(id, _)| self.gate(&id.service)).any(|hold| match hold {
            Hold::Until { condition, .. } => {
                condition != Condition::Completed || self.awaited().is_none()
            }
            Hold::Turn { .. } | Hold::Emptying { .. } => true,
            Hold::Without { .. } | Hold::GaveUp { .. } => false,
        })
    }

    /// Whom others in line wait for, and for what.
    fn waited_for(&self) -> impl Iterator<Item = (ServiceName, Condition)> + '_ {
        let in_line = |book: &Book| book.is_empty() && matches!(book.plan, Plan::Due(..));
        let all = self.books.iter().filter(move |(_, book)| !self.closing && in_line(book));
        all.filter_map(|(id, _)| match self.gate(&id.service)? {
            Hold::Until { service, condition } => Some((service, condition)),
            _ => None,
        })
    }

    /// A service that somebody waits for and that waits for its own time.
    fn overdue(&self) -> Option<ServiceName> {
        self.waited_for().map(|(service, _)| service).find(|service| {
            let all = self.configured(service);
            all.iter().any(|id| self.books[id].plan == Plan::Rest(Rest::Scheduled))
        })
    }

    /// A run that somebody waits for to complete.
    fn awaited(&self) -> Option<Incarnation> {
        let mut completes =
            self.waited_for().filter(|(_, condition)| *condition == Condition::Completed);
        completes.find_map(|(service, _)| {
            let all = self.books.iter().filter(|(id, _)| id.service == service);
            all.filter_map(|(_, book)| book.run.as_ref())
                .find(|run| run.started.is_some() && run.asked.is_none())
                .map(|run| run.incarnation)
        })
    }
}
