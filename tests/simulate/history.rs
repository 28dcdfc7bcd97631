//! A history: moves, the events they become, and the questions asked after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use wharf::event::{Action, Configure, Event, Past, Rest};
use wharf::exit::{Cause, Signal};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName};
use wharf::spec::{Cgroups, Group, Service, Spec};
use wharf::supervise::{Supervisor, View};
use wharf::time::Tick;

use super::book::{Book, Plan};
use super::configs::{some_groups, some_listen, some_service, valid};
use super::expect::Due;
use super::oracles::{Fault, Oracle, Tally};
use super::relate::{Fallout, Roll, Team};
use super::shown::Shown;
use super::world::{Dice, World};

/// One move. It carries its own chance, so that leaving out others does not change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    kind: Kind,
    chance: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Progress,
    Say,
    Die,
    Pass,
    Command,
    Due,
    Protocol,
    Memory,
    Stale,
    Reload,
    Upgrade,
    Crash,
    Shutdown,
}

/// How often each kind of move comes up, of 100.
const WEIGHTS: [(Kind, u64); 13] = [
    (Kind::Progress, 32),
    (Kind::Say, 5),
    (Kind::Die, 15),
    (Kind::Pass, 16),
    (Kind::Command, 13),
    (Kind::Due, 4),
    (Kind::Protocol, 2),
    (Kind::Memory, 2),
    (Kind::Stale, 3),
    (Kind::Reload, 5),
    (Kind::Upgrade, 1),
    (Kind::Crash, 1),
    (Kind::Shutdown, 1),
];

/// The moves of the history with this seed.
pub(crate) fn moves(seed: u64) -> Vec<Move> {
    let mut dice = Dice(seed ^ 0x6d6f_7665_7300);
    let count = 30 + dice.below(110);
    let one = |dice: &mut Dice| {
        let mut at = dice.below(100);
        let kind = WEIGHTS.iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        Move { kind: kind.expect("the weights sum to 100").0, chance: dice.roll() }
    };
    (0..count).map(|_| one(&mut dice)).collect()
}

/// A configured service.
pub(crate) struct Known {
    pub(crate) service: Arc<Service>,
    pub(crate) stopped: bool,
}

/// The supervisor, the world, and what the oracles know.
pub(crate) struct Sim {
    pub(crate) supervisor: Supervisor,
    pub(crate) world: World,
    pub(crate) books: BTreeMap<ReplicaId, Book>,
    /// The books of the life before, as far as the next manager is told of it.
    pub(crate) before: BTreeMap<ReplicaId, Book>,
    pub(crate) services: BTreeMap<ServiceName, Known>,
    /// The groups that a configuration is made with.
    pub(crate) groups: IndexMap<String, Group>,
    /// The groups in force.
    pub(crate) teams: BTreeMap<String, Team>,
    pub(crate) rolls: BTreeMap<ServiceName, Roll>,
    /// Ends that concern a group, until all that ended in the step is recorded.
    pub(crate) fallouts: VecDeque<(ReplicaId, Fallout)>,
    /// Where turns came to an end in this step.
    pub(crate) halts: Vec<(ReplicaId, u32)>,
    pub(crate) now: Tick,
    pub(crate) step: u64,
    pub(crate) closing: bool,
    pub(crate) down: bool,
    pub(crate) newest: Incarnation,
    pub(crate) over: Vec<Incarnation>,
    /// Ends that have to be recorded in this step.
    pub(crate) due: BTreeMap<Incarnation, (ReplicaId, Due)>,
    pub(crate) views: BTreeMap<ReplicaId, View>,
    /// Runs that have to be told in this step that a file changed, by which signal, and whether an earlier
    /// manager owed that.
    pub(crate) news: Vec<(Incarnation, Signal, bool)>,
    pub(crate) shown: BTreeMap<ReplicaId, Shown>,
    /// Replicas of which it has to be told that a start is left out.
    pub(crate) overlapped: Vec<ReplicaId>,
    pub(crate) log: Option<String>,
}

pub(crate) fn by(who: &str) -> Requester {
    Requester { uid: Some(1000), pid: None, who: who.to_owned() }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut sim = Self {
            supervisor: Supervisor::new(Incarnation(1), dice.roll()),
            world: World::default(),
            books: BTreeMap::new(),
            before: BTreeMap::new(),
            services: BTreeMap::new(),
            groups: IndexMap::new(),
            teams: BTreeMap::new(),
            rolls: BTreeMap::new(),
            fallouts: VecDeque::new(),
            halts: Vec::new(),
            now: Tick(1_000_000_000),
            step: 0,
            closing: false,
            down: false,
            newest: Incarnation(0),
            over: Vec::new(),
            due: BTreeMap::new(),
            views: BTreeMap::new(),
            news: Vec::new(),
            shown: BTreeMap::new(),
            overlapped: Vec::new(),
            log: None,
        };
        // Apart from the rest, so that what a seed once found it goes on to find.
        let mut doors = Dice(seed ^ 0x646f_6f72_7300);
        for name in ["a", "b", "c", "d"].into_iter().take(1 + dice.place(4)) {
            let mut service = some_service(name, &mut dice);
            if doors.one_in(2) {
                service.listen = some_listen(&mut doors);
            }
            if name == "a" && dice.one_in(60) {
                service.replicas = 40;
            }
            sim.services.insert(
                service.name.clone(),
                Known { service: Arc::new(service), stopped: dice.one_in(8) },
            );
        }
        sim.groups = some_groups(&mut dice);
        sim
    }

    /// Plays the moves, then lets everything come to its end.
    pub(crate) fn play(&mut self, moves: &[Move], t: &mut Tally) -> Result<(), Fault> {
        let first = std::mem::take(&mut self.services);
        let stopped = first.iter().filter(|(_, known)| known.stopped);
        let stopped = stopped.map(|(name, _)| name.clone()).collect();
        let services: Vec<_> = first.into_values().map(|known| known.service).collect();
        self.configure(&services, stopped, Vec::new(), t)?;
        for one in moves {
            let mut dice = Dice(one.chance);
            self.make(one.kind, &mut dice, t)?;
        }
        self.come_to_the_end(t)
    }

    /// The moves in words, up to the fault.
    pub(crate) fn tell(mut self, moves: &[Move]) -> String {
        self.log = Some(String::new());
        let mut tally = Tally::default();
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = self.play(moves, &mut tally);
        }));
        let mut log = self.log.take().unwrap_or_default();
        if played.is_err() {
            log.push_str("(panic)\n");
        }
        log
    }

    fn make(&mut self, kind: Kind, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        match kind {
            Kind::Progress => self.progress(dice, t),
            Kind::Say => self.say_something(dice, t),
            Kind::Die => self.die(dice, t),
            Kind::Pass => self.pass(dice, t),
            Kind::Command => self.command(dice, t),
            Kind::Due => self.come_due(dice, t),
            Kind::Protocol => self.protocol_error(dice, t),
            Kind::Memory => self.out_of_memory(dice, t),
            Kind::Stale => self.stale(dice, t),
            Kind::Reload => self.reload(dice, t),
            Kind::Upgrade => self.upgrade(t),
            Kind::Crash => self.crash(dice, t),
            Kind::Shutdown => {
                let cause = dice.pick(&[Cause::ManagerShutdown, Cause::GuardianDied]);
                self.feed(&Event::Shutdown { cause, by: by("Ctrl-C") }, dice, t)
            }
        }
    }

    pub(crate) fn configure(
        &mut self,
        services: &[Arc<Service>],
        stopped: Vec<ServiceName>,
        past: Vec<Past>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        self.begin(services, stopped, past, None, t)
    }

    pub(crate) fn begin(
        &mut self,
        services: &[Arc<Service>],
        stopped: Vec<ServiceName>,
        past: Vec<Past>,
        down: Option<(Cause, Requester)>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let (services, groups) = valid(services, &self.groups);
        let spec = Spec {
            files: Vec::new(),
            cgroups: Cgroups::Auto,
            metrics: None,
            on_event: Vec::new(),
            services,
            groups,
        };
        let by = by("wharf reload");
        let configure = Configure { spec: Arc::new(spec), by, past, stopped, down };
        self.feed(&Event::Configure(Box::new(configure)), &mut Dice(self.step), t)
    }

    // ---- one step ----------------------------------------------------------------------------

    pub(crate) fn say(&mut self, words: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let seconds = Duration::from_nanos(self.now.0).as_secs_f64();
            let _ = writeln!(log, "{seconds:>12.6} {}", words());
        }
    }

    /// An event reaches the supervisor, its actions reach the world, and the oracles are asked.
    pub(crate) fn feed(
        &mut self,
        event: &Event,
        dice: &mut Dice,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        self.step += 1;
        self.say(|| match event {
            Event::Configure(configure) => {
                let services = configure.spec.services.values();
                let told: Vec<_> = services
                    .map(|s| {
                        format!(
                            "{}x{} {:?} needs {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                            s.name,
                            s.replicas,
                            s.command,
                            s.depends_on,
                            s.restart,
                            s.stop,
                            s.ready,
                            s.healthcheck,
                            s.watchdog,
                            s.max_memory,
                            s.max_lifetime
                        )
                    })
                    .collect();
                format!(
                    "Configure {told:#?} groups {:?} stopped {:?} past {:?} down {:?}",
                    configure.spec.groups, configure.stopped, configure.past, configure.down
                )
            }
            other => format!("{other:?}"),
        });
        let stopped_before = self.supervisor.stopped();
        let was_down = self.down;
        let asked: BTreeSet<_> = self
            .books
            .values()
            .filter_map(|book| book.run.as_ref().filter(|run| run.asked.is_some()))
            .map(|run| run.incarnation)
            .collect();
        let others: BTreeSet<_> = self
            .books
            .iter()
            .filter_map(|(id, book)| {
                let run = book.run.as_ref().filter(|run| run.asked.is_none())?;
                Some((id.service.clone(), run.incarnation))
            })
            .collect();
        self.halts.clear();
        let mut signals = self.note(event);
        let reload = self.untouched(event);
        let actions = self.supervisor.step(self.now, event.clone());
        for action in &actions {
            self.say(|| format!("    {}", short(action)));
            self.check(action, event, &mut signals, dice, t)?;
        }
        t.hold(Oracle::RecordedOnce, self.due.is_empty(), || {
            format!("not recorded: {:?}", self.due)
        })?;
        let owed = std::mem::take(&mut self.overlapped);
        t.hold(Oracle::OverlapIsTold, owed.is_empty(), || format!("not told: {owed:?}"))?;
        if let Event::Due { service } = event {
            let idle = |(id, book): (&ReplicaId, &Book)| {
                id.service == *service && book.plan == Plan::Rest(Rest::Scheduled) && book.wanted
            };
            let asleep = !self.closing && self.books.iter().any(idle);
            t.hold(Oracle::DueStarts, !asleep, || format!("{service} is not started"))?;
        }
        t.hold(Oracle::SignalIsPassedOn, signals.is_empty(), || format!("not sent: {signals:?}"))?;
        let mut owed = std::mem::take(&mut self.news);
        // What is to end by now, with others of its group, is told nothing more.
        owed.retain(|(run, ..)| self.run(*run).is_some_and(|run| run.asked.is_none()));
        let oracle = match owed.first() {
            Some((.., true)) => Oracle::KeptHearsOfChanges,
            Some(_) | None => Oracle::ChangedFilesAreTold,
        };
        t.hold(oracle, owed.is_empty(), || format!("not told: {owed:?}"))?;
        for id in reload {
            let touched = actions.iter().any(|action| about(action, &id, &self.books));
            t.hold(Oracle::UnchangedIsUntouched, !touched, || format!("{id} was touched"))?;
        }
        self.others_run_on(event, &others, t)?;
        self.held_are_held(t)?;
        self.turns_are_taken(&actions, t)?;
        self.after_shutdown(event, &asked, t)?;
        self.after_all(event, t)?;
        self.after_watch(event, t)?;
        let stopped: Vec<_> = self
            .services
            .iter()
            .filter(|(_, known)| known.stopped)
            .map(|(name, _)| name.clone())
            .collect();
        let persists = actions.iter().filter(|action| matches!(action, Action::Persist)).count();
        let right = self.supervisor.stopped() == stopped
            && persists == usize::from(stopped != stopped_before);
        t.hold(Oracle::StopIsPersisted, right, || {
            format!(
                "stopped {stopped:?}, kept {:?}, told {persists} times",
                self.supervisor.stopped()
            )
        })?;
        let busy = self.books.values().any(|book| match &book.run {
            Some(run) => !run.unkillable,
            None => book.sweeping.is_some(),
        });
        let downs = actions.iter().filter(|action| matches!(action, Action::Down)).count();
        let expected = usize::from(self.closing && !busy && !was_down);
        let last = downs == 0 || matches!(actions.last(), Some(Action::Down));
        t.hold(Oracle::DownOnceWhenEmpty, downs == expected && last, || {
            format!("said {downs} times that it is down, busy: {busy}")
        })?;
        self.down |= downs > 0;
        self.told(&actions, t)?;
        self.agree(t)?;
        self.all_is_true(event, &actions, t)
    }

    /// Replicas that this reload must leave alone.
    pub(crate) fn untouched(&self, event: &Event) -> Vec<ReplicaId> {
        let Event::Configure(configure) = event else {
            return Vec::new();
        };
        if !configure.past.is_empty() || self.closing {
            return Vec::new();
        }
        self.books
            .iter()
            .filter(|(id, book)| {
                let before = self.views.get(*id);
                book.configured
                    && before.is_some()
                    && !(book.run.is_none() && matches!(book.plan, Plan::Due(..)))
                    && book.run.as_ref().is_none_or(|run| !run.outdated && run.asked.is_none())
            })
            .map(|(id, _)| id.clone())
            .collect()
    }
}

/// Whether an action does something to a replica.
fn about(action: &Action, id: &ReplicaId, books: &BTreeMap<ReplicaId, Book>) -> bool {
    match action {
        Action::Spawn { replica, .. } | Action::Record { replica, .. } => replica == id,
        Action::Signal { incarnation, .. }
        | Action::Kill { incarnation, .. }
        | Action::SendQuit { incarnation }
        | Action::CloseInput { incarnation } => {
            books.get(id).and_then(|book| book.run.as_ref()).map(|run| run.incarnation)
                == Some(*incarnation)
        }
        Action::Sweep { .. }
        | Action::Probe { .. }
        | Action::Measure { .. }
        | Action::Reread { .. }
        | Action::Changed { .. }
        | Action::Forget { .. }
        | Action::Overlapped { .. }
        | Action::Halted { .. }
        | Action::Persist
        | Action::Down => false,
    }
}

/// An action without its configuration.
pub(crate) fn short(action: &Action) -> String {
    match action {
        Action::Spawn { incarnation, replica, .. } => format!("Spawn {incarnation} {replica}"),
        Action::Record { incarnation, replica, verdict } => format!(
            "Record {incarnation} {replica} {} {} {:?} {:?}",
            verdict.reason, verdict.cause, verdict.restart, verdict.stop
        ),
        Action::Probe { incarnation, number, purpose, timeout, .. } => {
            format!("Probe {incarnation} number {number} {purpose:?} {timeout:?}")
        }
        other => format!("{other:?}"),
    }
}
