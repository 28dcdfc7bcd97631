//! What a manager notes of a run that outlives it, so that the next one goes on with what was decided: that
//! it was asked to end, why, by whom, how far that had come and what follows it; and what it waits for.

use serde::{Deserialize, Serialize};

use crate::event::Alive;
use crate::exit::Signal;
use crate::name::{ReplicaId, Requester, ServiceName};
use crate::time::Tick;

use super::hold::Held;
use super::ladder::{After, Ending};
use super::machine::Phase::{
    Backoff, Deferred, Down, Queued, Running, Starting, Stopping, Sweeping, Unkillable,
};
use super::machine::{Context, Run, Sent};
use super::replica::Replica;
use super::roll::Halted;
use super::supervisor::Supervisor;

/// What is known of a run beside that it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// Whether the replica is wanted up.
    pub(super) wanted: bool,
    /// Its time came during the run; another one follows it.
    pub(super) due: bool,
    /// When the next step is taken.
    pub(super) deadline: Option<Tick>,
    /// The end that is under way.
    pub(super) ending: Option<Box<Ending>>,
    /// The end that comes as soon as nobody is in the way.
    pub(super) held: Option<Box<Held>>,
    /// The last signal that an operator had sent to it.
    pub(super) signal: Option<Box<Sent>>,
    /// It keeps an older configuration, since the change was halted here.
    pub(super) halted: Option<Halted>,
}

/// How much of the name of a requester there is always room for.
const SHORT: usize = 60;

impl Memo {
    /// Where a change of the service was halted, as far as a run that went on tells.
    pub(super) fn halted(alive: &Alive) -> Option<Halted> {
        Self::read(&alive.memo.as_ref()?.0)?.halted
    }

    /// What a manager before wrote; `None` for what this one does not understand.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As text, of at most so many bytes: where there is no room, what only the record would have said is
    /// left out.
    fn write(mut self, longest: usize) -> Option<String> {
        let text = |memo: &Self| serde_json::to_string(memo).ok();
        let whole = text(&self)?;
        if whole.len() <= longest {
            return Some(whole);
        }
        let by = |by: &mut Option<Requester>| {
            if let Some(by) = by {
                by.who = by.who.chars().take(SHORT).collect();
            }
        };
        if let Some(ending) = &mut self.ending {
            ending.why = None;
            by(&mut ending.by);
        }
        if let Some(held) = &mut self.held {
            held.why = None;
            by(&mut held.by);
        }
        if let Some(sent) = &mut self.signal {
            sent.by.who = sent.by.who.chars().take(SHORT).collect();
        }
        text(&self).filter(|text| text.len() <= longest)
    }
}

/// As much of a memo as shows that another one is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gist {
    ending: Option<(usize, bool, After)>,
    held: bool,
    due: bool,
    signal: Option<(Signal, Tick)>,
    unwanted: bool,
}

impl Replica {
    pub(super) fn gist(&self) -> Gist {
        let machine = &self.machine;
        let signal = |run: &Run| run.signal.as_deref().map(|sent| (sent.signal, sent.at));
        let (ending, signal) = match &machine.phase {
            Stopping(run, why) | Unkillable(run, why) => {
                (Some((why.steps_taken(), why.is_hurried(), why.after)), signal(run))
            }
            Starting(run) | Running(run) => (None, signal(run)),
            Down(_) | Queued(_) | Deferred(_) | Sweeping(..) | Backoff => return Gist::default(),
        };
        let (held, due) = (machine.held.is_some(), machine.due);
        Gist { ending, held, due, signal, unwanted: !machine.wanted }
    }

    /// What is to be noted of its run; `None` where there is nothing to say of it.
    fn memo(&self, halted: Option<Halted>) -> Option<Memo> {
        let machine = &self.machine;
        let halted = halted.filter(|_| self.has_news());
        if self.gist() == Gist::default() && halted.is_none() {
            return None;
        }
        let (run, ending) = match &machine.phase {
            Stopping(run, why) | Unkillable(run, why) => (run, Some(why.clone())),
            Starting(run) | Running(run) => (run, None),
            Down(_) | Queued(_) | Deferred(_) | Sweeping(..) | Backoff => return None,
        };
        Some(Memo {
            wanted: machine.wanted,
            due: machine.due,
            deadline: machine.deadline.filter(|_| ending.is_some()),
            ending,
            held: machine.held.clone(),
            signal: run.signal.clone(),
            halted,
        })
    }

    /// What a manager before had decided of its run is so again. Gives the run back unless it was being
    /// ended: then that goes on.
    pub(super) fn recall(
        &mut self,
        cx: &mut Context<'_>,
        mut run: Run,
        memo: &Memo,
        done: bool,
    ) -> Option<Run> {
        self.machine.wanted &= memo.wanted;
        self.machine.due = memo.due;
        run.signal.clone_from(&memo.signal);
        self.machine.held.clone_from(&memo.held);
        let Some(mut ending) = memo.ending.clone() else { return Some(run) };
        if !self.machine.wanted && ending.after != After::GiveUp {
            ending.after = After::Rest;
        }
        self.machine.deadline = memo.deadline;
        if !done {
            // Perhaps it was not: what is done twice is done.
            ending.step_back();
            self.machine.phase = self.stop_on(cx, run, ending);
        } else if memo.deadline.is_some() {
            self.machine.phase = Stopping(run, ending);
        } else {
            self.machine.phase = Unkillable(run, ending);
        }
        None
    }
}

impl Supervisor {
    /// What the next manager has to know of the run of a replica, for
    /// [`Alive::memo`](crate::event::Alive::memo), in at most so many bytes; `None` where that is nothing.
    pub fn memo(&self, id: &ReplicaId, longest: usize) -> Option<String> {
        let halted = self.halted(&id.service);
        self.replicas.get(id)?.memo(halted)?.write(longest)
    }

    /// The replicas with another memo than when this was last asked, of services that are kept.
    pub fn renoted(&mut self) -> Vec<ReplicaId> {
        std::mem::take(&mut self.noted).into_iter().collect()
    }

    /// All replicas of a service have another memo.
    pub(super) fn note_all(&mut self, service: &ServiceName) {
        let kept = |one: &&Replica| one.service.is_kept();
        let all: Vec<_> =
            self.replicas_of(service).filter(kept).map(|one| one.id.clone()).collect();
        self.noted.extend(all);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Action, Configure, End, Event, Past, PastEnd, State, Verb, Verdict};
    use crate::exit::{Cause, Decision, How};
    use crate::name::{Incarnation, Target};
    use crate::spec::{Cgroups, OnManagerExit, Service, Spec};
    use crate::supervise::sample;

    const RUN: Incarnation = Incarnation(1);

    fn by(who: &str) -> Requester {
        Requester { uid: Some(7), pid: None, who: who.to_owned() }
    }

    fn id(replica: u32) -> ReplicaId {
        ReplicaId { service: "web".parse().unwrap(), replica }
    }

    fn kept(word: &str) -> Arc<Service> {
        let mut service = sample::service("web");
        service.on_manager_exit = OnManagerExit::Keep;
        service.command.push(word.to_owned());
        Arc::new(service)
    }

    fn configure(service: &Arc<Service>, past: Vec<Past>) -> Event {
        let spec = Spec {
            files: Vec::new(),
            cgroups: Cgroups::Auto,
            metrics: None,
            on_event: Vec::new(),
            services: [(service.name.clone(), Arc::clone(service))].into_iter().collect(),
            groups: indexmap::IndexMap::new(),
        };
        let by = by("up");
        Event::Configure(Box::new(Configure {
            spec: Arc::new(spec),
            by,
            past,
            stopped: Vec::new(),
            down: None,
        }))
    }

    fn running(service: &Arc<Service>) -> Supervisor {
        let mut supervisor = Supervisor::new(RUN, 1);
        supervisor.step(Tick(1), configure(service, Vec::new()));
        for number in 0..u64::from(service.replicas) {
            let incarnation = Incarnation(RUN.0 + number);
            supervisor.step(Tick(1), Event::Spawned { incarnation });
            supervisor.step(Tick(1), Event::Started { incarnation });
        }
        assert_eq!(supervisor.renoted(), [], "nothing is to be said of a run that only runs");
        supervisor
    }

    fn went_on(supervisor: &Supervisor, number: u32, service: Option<&Arc<Service>>) -> Past {
        let started = Tick(1);
        let memo = supervisor.memo(&id(number), 2000);
        let alive = Alive {
            incarnation: Incarnation(u64::from(number)),
            started,
            ready: Some(started),
            in_step: true,
            service: service.cloned(),
            memo: memo.map(|text| (text.into_boxed_str(), true)),
            stale: false,
        };
        Past { replica: id(number), ended: PastEnd::Alive(alive), row: 0, until: None }
    }

    fn exited(supervisor: &mut Supervisor) -> Box<Verdict> {
        let end = End::plain(How::Exited(0));
        let actions = supervisor.step(Tick(9), Event::Ended { incarnation: RUN, end });
        let record = actions.into_iter().find_map(|action| match action {
            Action::Record { verdict, .. } => Some(verdict),
            _ => None,
        });
        record.expect("a record")
    }

    #[test]
    fn the_next_supervisor_goes_on_with_an_end_that_was_asked_for() {
        let service = kept("1");
        for (verb, cause, decision) in [
            (Verb::Restart, Cause::RestartRequested, Decision::Restart),
            (Verb::Stop, Cause::StopRequested, Decision::Stopped),
        ] {
            let mut first = running(&service);
            let target = Target { service: service.name.clone(), replica: Some(1) };
            first.step(Tick(2), Event::Command { verb, target, by: by(&"x".repeat(5000)) });
            assert_eq!(first.renoted(), [id(1)]);
            let mut second = Supervisor::new(Incarnation(2), 2);
            let asked = second.step(Tick(3), configure(&service, vec![went_on(&first, 1, None)]));
            let signals = asked.iter().filter(|one| matches!(one, Action::Signal { .. })).count();
            assert_eq!(signals, 0, "it was asked before: {asked:?}");
            assert_eq!(second.view(&id(1)).unwrap().state, State::Stopping);
            assert_eq!(second.next_deadline(), first.next_deadline());
            let verdict = exited(&mut second);
            assert_eq!((verdict.cause, verdict.restart.decision), (cause, decision));
            assert_eq!(verdict.requested_by.unwrap().uid, Some(7));
            assert_eq!(verdict.stop.unwrap().steps.len(), 1);
        }
    }

    #[test]
    fn what_was_perhaps_not_done_is_done_once_more() {
        let service = kept("1");
        let mut first = running(&service);
        let target = Target { service: service.name.clone(), replica: None };
        first.step(Tick(2), Event::Command { verb: Verb::Restart, target, by: by("x") });
        let mut past = went_on(&first, 1, None);
        if let PastEnd::Alive(Alive { memo: Some((_, done)), .. }) = &mut past.ended {
            *done = false;
        }
        let mut second = Supervisor::new(Incarnation(2), 2);
        let asked = second.step(Tick(3), configure(&service, vec![past]));
        assert!(asked.iter().any(|one| matches!(one, Action::Signal { .. })), "{asked:?}");
        assert_eq!(exited(&mut second).stop.unwrap().steps.len(), 1);
    }

    #[test]
    fn a_run_keeps_its_configuration_and_is_ended_by_its_own_ladder() {
        let (old, new) = (kept("old"), kept("new"));
        let first = running(&old);
        let mut second = Supervisor::new(Incarnation(2), 2);
        let past = went_on(&first, 1, Some(&old));
        let asked = second.step(Tick(3), configure(&new, vec![past]));
        assert!(asked.iter().any(|one| matches!(one, Action::Signal { .. })), "{asked:?}");
        assert!(!asked.iter().any(|one| matches!(one, Action::Kill { .. })), "{asked:?}");
        let verdict = exited(&mut second);
        assert_eq!(verdict.cause, Cause::ConfigChanged);
        assert_eq!(second.replicas[&id(1)].service, new);
    }

    #[test]
    fn a_change_goes_on_one_after_the_other_unless_it_was_halted() {
        let three = |word| Arc::new(Service { replicas: 3, ..Service::clone(&kept(word)) });
        let (old, new) = (three("old"), three("new"));
        let mut first = running(&old);
        first.step(Tick(2), configure(&new, Vec::new()));
        assert!(first.is_rolling(&old.name));
        for halted in [false, true] {
            if halted {
                first.halt(&old.name, 1, &mut Vec::new());
                assert_eq!(first.renoted(), [id(1), id(2), id(3)]);
            }
            let all = (1..=3).map(|number| went_on(&first, number, Some(&old))).collect();
            let mut second = Supervisor::new(Incarnation(4), 2);
            second.step(Tick(3), configure(&new, all));
            let states: Vec<_> = second.views().map(|view| view.state).collect();
            assert_eq!(states, [State::Stopping, State::Running, State::Running]);
            assert_eq!(second.is_rolling(&old.name), !halted);
            assert_eq!(second.halted(&old.name).is_some(), halted);
        }
    }

    #[test]
    fn a_signal_and_what_is_to_be_down_are_not_forgotten() {
        let service = Arc::new(Service { replicas: 2, ..Service::clone(&kept("1")) });
        let target = |replica| Target { service: service.name.clone(), replica: Some(replica) };
        let command = |verb, replica| Event::Command { verb, target: target(replica), by: by("x") };
        let mut first = running(&service);
        first.step(Tick(2), command(Verb::Signal(Signal::HUP), 1));
        first.step(Tick(2), command(Verb::Stop, 2));
        let mut second = Supervisor::new(Incarnation(3), 2);
        let past = (1..=2).map(|number| went_on(&first, number, None)).collect();
        second.step(Tick(3), configure(&service, past));
        let wanted: Vec<_> = second.views().map(|view| view.wanted).collect();
        assert_eq!(wanted, [true, false]);
        let verdict = exited(&mut second);
        assert_eq!(verdict.cause, Cause::SignalRequested);
        assert_eq!(verdict.requested_by.unwrap().who, "x");
    }

    #[test]
    fn with_a_down_that_is_still_to_be_carried_out_nothing_is_started() {
        let service = Arc::new(Service { replicas: 3, ..Service::clone(&kept("1")) });
        let first = running(&service);
        let killed = PastEnd::Unrecorded {
            incarnation: Incarnation(2),
            end: End::plain(How::Signaled(Signal::KILL)),
            cause: Cause::ManagerDied,
        };
        let ended = |number, ended| Past { replica: id(number), ended, row: 0, until: None };
        let past = vec![
            went_on(&first, 1, None),
            ended(2, killed),
            Past { until: Some(Tick(5)), ..ended(3, PastEnd::Between) },
        ];
        let mut event = configure(&service, past);
        if let Event::Configure(configure) = &mut event {
            configure.down = Some((Cause::ManagerShutdown, by("wharf down")));
        }
        let mut second = Supervisor::new(Incarnation(4), 2);
        let actions = second.step(Tick(3), event);
        assert!(!actions.iter().any(|one| matches!(one, Action::Spawn { .. })), "{actions:?}");
        let states: Vec<_> = second.views().map(|view| view.state).collect();
        assert_eq!(states, [State::Stopping, State::Stopped, State::Stopped]);
        let decided = actions.iter().find_map(|action| match action {
            Action::Record { verdict, .. } => Some((verdict.cause, verdict.restart.decision)),
            _ => None,
        });
        assert_eq!(decided, Some((Cause::ManagerDied, Decision::Stopped)));
        assert!(second.step(Tick(9), Event::Time).is_empty());
        let verdict = exited(&mut second);
        assert_eq!(verdict.cause, Cause::ManagerShutdown);
        assert_eq!(verdict.requested_by.unwrap().who, "wharf down");
        // Where nothing runs any more it is down at once.
        let mut event = configure(&service, Vec::new());
        if let Event::Configure(configure) = &mut event {
            configure.down = Some((Cause::ManagerShutdown, by("wharf down")));
        }
        let actions = Supervisor::new(Incarnation(1), 1).step(Tick(3), event);
        assert!(matches!(actions.last(), Some(Action::Down)), "{actions:?}");
    }

    #[test]
    fn what_waits_to_be_started_again_waits_as_long_as_before() {
        let service = kept("1");
        let past =
            Past { replica: id(1), ended: PastEnd::Between, row: 3, until: Some(Tick(1000)) };
        let mut second = Supervisor::new(Incarnation(2), 2);
        let actions = second.step(Tick(3), configure(&service, vec![past.clone()]));
        assert!(!actions.iter().any(|one| matches!(one, Action::Spawn { .. })), "{actions:?}");
        let view = second.view(&id(1)).unwrap();
        assert_eq!((view.state, view.next_start), (State::Backoff, Some(Tick(1000))));
        let actions = second.step(Tick(1000), Event::Time);
        assert!(actions.iter().any(|one| matches!(one, Action::Spawn { .. })), "{actions:?}");
        let mut late = Supervisor::new(Incarnation(2), 2);
        let actions = late.step(Tick(2000), configure(&service, vec![past]));
        assert!(actions.iter().any(|one| matches!(one, Action::Spawn { .. })), "{actions:?}");
    }
}
