//! A history: moves, the events they become, and the questions asked after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use wharf::event::{Action, Configure, End, Event, Past, PastEnd, Rest, State, Verb};
use wharf::exit::{Cause, Errno, How, Reason, Signal, Stage as Step_};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use wharf::spec::{
    Cgroups, Eof, KillScope, Limits, Logging, OnGiveUp, OnProtocolError, Policy, Port, Restart,
    Service, SignalName, Spec, Stop,
};
use wharf::supervise::{CRASH_LOOPING, MAX_STARTING, Supervisor, View};
use wharf::time::Tick;

use crate::book::{Book, PATIENCE, Plan, Run, Step, Then};
use crate::expect::{self, Due};
use crate::oracles::{Fault, Oracle, Tally};
use crate::world::{Dice, Stage, Temper, World};

/// One move. It carries its own chance, so that leaving out others does not change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    kind: Kind,
    chance: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Progress,
    Die,
    Pass,
    Command,
    Protocol,
    Stale,
    Reload,
    Upgrade,
    Crash,
    Shutdown,
}

/// How often each kind of move comes up, of 100.
const WEIGHTS: [(Kind, u64); 10] = [
    (Kind::Progress, 40),
    (Kind::Die, 15),
    (Kind::Pass, 18),
    (Kind::Command, 14),
    (Kind::Protocol, 2),
    (Kind::Stale, 3),
    (Kind::Reload, 5),
    (Kind::Upgrade, 1),
    (Kind::Crash, 1),
    (Kind::Shutdown, 1),
];

/// The moves of the history with this seed.
pub(crate) fn moves(seed: u64) -> Vec<Move> {
    let mut dice = Dice(seed ^ 0x6d6f_7665_73);
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
struct Known {
    service: Arc<Service>,
    stopped: bool,
}

/// The supervisor, the world, and what the oracles know.
pub(crate) struct Sim {
    supervisor: Supervisor,
    world: World,
    books: BTreeMap<ReplicaId, Book>,
    services: BTreeMap<ServiceName, Known>,
    now: Tick,
    step: u64,
    closing: bool,
    down: bool,
    newest: Incarnation,
    over: Vec<Incarnation>,
    /// Ends that have to be recorded in this step.
    due: BTreeMap<Incarnation, (ReplicaId, Due)>,
    views: BTreeMap<ReplicaId, View>,
    log: Option<String>,
}

fn by(who: &str) -> Requester {
    Requester { uid: Some(1000), pid: None, who: who.to_owned() }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut sim = Self {
            supervisor: Supervisor::new(Incarnation(1), dice.roll()),
            world: World::default(),
            books: BTreeMap::new(),
            services: BTreeMap::new(),
            now: Tick(1_000_000_000),
            step: 0,
            closing: false,
            down: false,
            newest: Incarnation(0),
            over: Vec::new(),
            due: BTreeMap::new(),
            views: BTreeMap::new(),
            log: None,
        };
        for name in ["a", "b", "c", "d"].into_iter().take(1 + dice.below(4) as usize) {
            let mut service = some_service(name, &mut dice);
            if name == "a" && dice.one_in(60) {
                service.replicas = 40;
            }
            sim.services.insert(
                service.name.clone(),
                Known { service: Arc::new(service), stopped: dice.one_in(8) },
            );
        }
        sim
    }

    /// Plays the moves, then lets everything come to its end.
    pub(crate) fn play(&mut self, moves: &[Move], t: &mut Tally) -> Result<(), Fault> {
        let first = std::mem::take(&mut self.services);
        let stopped = first.iter().filter(|(_, known)| known.stopped);
        let stopped = stopped.map(|(name, _)| name.clone()).collect();
        let services = first.into_values().map(|known| known.service).collect();
        self.configure(services, stopped, Vec::new(), t)?;
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
            Kind::Die => self.die(dice, t),
            Kind::Pass => self.pass(dice, t),
            Kind::Command => self.command(dice, t),
            Kind::Protocol => self.protocol_error(dice, t),
            Kind::Stale => self.stale(dice, t),
            Kind::Reload => self.reload(dice, t),
            Kind::Upgrade => self.upgrade(t),
            Kind::Crash => self.crash(dice, t),
            Kind::Shutdown => {
                let cause = dice.pick(&[Cause::ManagerShutdown, Cause::GuardianDied]);
                self.feed(Event::Shutdown { cause, by: by("Ctrl-C") }, dice, t)
            }
        }
    }

    // ---- moves -------------------------------------------------------------------------------

    /// Something that is under way in the world comes to pass.
    fn progress(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let ready = |process: &crate::world::Process| {
            process.stage != Stage::Runs || process.doom.is_some()
        };
        let ready: Vec<_> = self
            .world
            .processes
            .iter()
            .filter(|(_, process)| ready(process))
            .map(|(incarnation, _)| *incarnation)
            .chain(self.world.sweeps.iter().copied())
            .collect();
        if ready.is_empty() {
            return Ok(());
        }
        let incarnation = dice.pick(&ready);
        self.advance(incarnation, dice, false, t)
    }

    /// One run takes its next step. In a kind world nothing fails.
    fn advance(
        &mut self,
        incarnation: Incarnation,
        dice: &mut Dice,
        kind: bool,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let Some(process) = self.world.processes.get_mut(&incarnation) else {
            self.world.sweeps.retain(|sweep| *sweep != incarnation);
            let stuck = !kind && dice.one_in(5);
            return self.feed(Event::Swept { incarnation, stuck }, dice, t);
        };
        if let Some(how) = process.doom {
            return self.finish(incarnation, how, dice, t);
        }
        match process.stage {
            Stage::Ordered if !kind && dice.one_in(6) => {
                self.world.processes.remove(&incarnation);
                let errno = Errno(11);
                self.feed(Event::Deferred { incarnation, errno }, dice, t)
            }
            Stage::Ordered if !kind && dice.one_in(12) => {
                let how = How::NotStarted(dice.pick(&[Step_::Clone, Step_::Deadline]), Errno(110));
                self.finish(incarnation, how, dice, t)
            }
            Stage::Ordered => {
                process.stage = Stage::Made;
                self.feed(Event::Spawned { incarnation }, dice, t)
            }
            Stage::Made if !kind && dice.one_in(8) => {
                let stage = dice.pick(&[Step_::Exec, Step_::Exec, Step_::User, Step_::WorkingDir]);
                self.finish(incarnation, How::NotStarted(stage, Errno(2)), dice, t)
            }
            Stage::Made => {
                process.stage = Stage::Runs;
                self.feed(Event::Started { incarnation }, dice, t)
            }
            Stage::Runs => Ok(()),
        }
    }

    /// A running program ends by itself.
    fn die(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let running: Vec<_> = self
            .world
            .processes
            .iter()
            .filter(|(_, process)| process.stage == Stage::Runs)
            .map(|(incarnation, _)| *incarnation)
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        let incarnation = dice.pick(&running);
        let signal = |number| Signal::new(number).unwrap();
        let how = dice.pick(&[
            How::Exited(0),
            How::Exited(1),
            How::Exited(3),
            How::Exited(1),
            How::Signaled(Signal::KILL),
            How::Signaled(Signal::TERM),
            How::Signaled(signal(11)),
            How::Dumped(signal(11)),
            How::Signaled(Signal::XCPU),
            How::Dumped(Signal::XFSZ),
        ]);
        self.finish(incarnation, how, dice, t)
    }

    fn finish(
        &mut self,
        incarnation: Incarnation,
        how: How,
        dice: &mut Dice,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let end = self.world.end(incarnation, how, dice);
        self.feed(Event::Ended { incarnation, end }, dice, t)
    }

    /// Time passes: to the next deadline, just short of it, or for a while.
    fn pass(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let next = self.supervisor.next_deadline();
        let silent = dice.one_in(6);
        self.now = match (dice.below(6), next) {
            (0..=2, Some(next)) => next.max(self.now),
            (3, Some(next)) => Tick(next.0.saturating_sub(1)).max(self.now),
            (4, _) => self.now + Duration::from_millis(dice.below(2_000)),
            _ => self.now + Duration::from_secs(dice.below(40)),
        };
        // The clock may move without the supervisor being told, when something else happens first.
        if silent { Ok(()) } else { self.feed(Event::Time, dice, t) }
    }

    fn command(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let names: Vec<_> = self.services.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let service = names[dice.below(names.len() as u64) as usize].clone();
        let replicas = self.services[&service].service.replicas;
        let replica = (replicas > 0 && dice.one_in(2))
            .then(|| 1 + u32::try_from(dice.below(replicas.into())).unwrap());
        let signals = [Signal::HUP, Signal::INT, Signal::KILL, Signal::XCPU];
        let (verb, who) = match dice.below(8) {
            0..=1 => (Verb::Start, "wharf start"),
            2..=4 => (Verb::Stop, "wharf stop"),
            5..=6 => (Verb::Restart, "wharf restart"),
            _ => (Verb::Signal(dice.pick(&signals)), "wharf signal"),
        };
        let target = Target { service, replica };
        self.feed(Event::Command { verb, target, by: by(who) }, dice, t)
    }

    fn protocol_error(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let alive: Vec<_> = self
            .world
            .processes
            .iter()
            .filter(|(_, process)| process.stage != Stage::Ordered)
            .map(|(incarnation, _)| *incarnation)
            .collect();
        if alive.is_empty() {
            return Ok(());
        }
        let incarnation = dice.pick(&alive);
        self.feed(Event::ProtocolError { incarnation }, dice, t)
    }

    /// Something is said of a run that is over or never was, or is said twice: nothing follows.
    fn stale(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let mut runs = self.over.clone();
        runs.retain(|run| !self.world.sweeps.contains(run));
        runs.push(Incarnation(self.newest.0 + 1_000_000));
        let incarnation = dice.pick(&runs);
        let end = End {
            how: How::Exited(1),
            oom: false,
            protocol_error: false,
            survivors: dice.one_in(2),
        };
        let event = match dice.below(7) {
            0 => Event::Spawned { incarnation },
            1 => Event::Started { incarnation },
            2 => Event::Deferred { incarnation, errno: Errno(11) },
            3 => Event::Ended { incarnation, end },
            4 => Event::Swept { incarnation, stuck: true },
            5 => Event::ProtocolError { incarnation },
            _ => {
                let running = self.world.processes.iter().find(|(_, p)| p.stage == Stage::Runs);
                let Some((incarnation, _)) = running else {
                    return Ok(());
                };
                let incarnation = *incarnation;
                if dice.one_in(2) {
                    Event::Spawned { incarnation }
                } else {
                    Event::Started { incarnation }
                }
            }
        };
        self.say(|| format!("stale: {event:?}"));
        let actions = self.supervisor.step(self.now, event.clone());
        t.hold(Oracle::StaleIsIgnored, actions.is_empty(), || {
            format!("{event:?} led to {actions:?}")
        })?;
        self.agree(t)
    }

    /// The supervisor is written down and read again.
    fn upgrade(&mut self, t: &mut Tally) -> Result<(), Fault> {
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
        if self.closing { Ok(()) } else { self.configure(services, stopped, Vec::new(), t) }
    }

    /// The manager dies, with all it started, and a new life begins.
    fn crash(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        if self.closing {
            return Ok(());
        }
        let stopped = self.supervisor.stopped();
        let mut past = Vec::new();
        for (id, book) in &self.books {
            let ended = match (&book.run, book.plan) {
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
                        how,
                        oom: how.signal() == Some(Signal::KILL) && dice.one_in(5),
                        protocol_error: false,
                        survivors: how != How::Unseen && dice.one_in(4),
                    };
                    let cause = dice.pick(&[Cause::ManagerDied, Cause::GuardianDied]);
                    PastEnd::Unrecorded { incarnation: run.incarnation, end, cause }
                }
                (None, Plan::Rest(rest)) => PastEnd::Resting(rest),
                (Some(_), _) | (None, Plan::At(_) | Plan::Due(..) | Plan::Deferred(..)) => {
                    PastEnd::Between
                }
            };
            past.push(Past { replica: id.clone(), ended, row: book.row });
        }
        let seed = dice.roll();
        self.supervisor = Supervisor::new(self.supervisor.next_incarnation(), seed);
        self.over.extend(self.world.processes.keys().copied());
        self.world = World::default();
        self.books.clear();
        self.views.clear();
        self.say(|| "--- the manager dies".to_owned());
        let services = std::mem::take(&mut self.services);
        let services = services.into_values().map(|known| known.service).collect();
        self.configure(services, stopped, past, t)
    }

    fn reload(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let mut services: Vec<_> =
            self.services.values().map(|known| Arc::clone(&known.service)).collect();
        let mut stopped = self.supervisor.stopped();
        for _ in 0..=dice.below(2) {
            let at = dice.below(services.len().max(1) as u64) as usize;
            let kind = dice.below(8);
            if kind == 7 || services.is_empty() {
                let name = dice.pick(&["a", "b", "c", "d", "e"]);
                if services.iter().all(|service| service.name.as_str() != name) {
                    let service = some_service(name, dice);
                    if dice.one_in(5) {
                        stopped.push(service.name.clone());
                    }
                    services.push(Arc::new(service));
                }
                continue;
            }
            let mut new = Service::clone(&services[at]);
            match kind {
                0 => {}
                1 => new.restart = some_restart(dice),
                2 => new.stop = some_stop(dice),
                3 => drop(new.labels.insert("k".to_owned(), dice.below(9).to_string())),
                4 => new.replicas = u32::try_from(dice.below(4)).unwrap(),
                5 => new.command.push(dice.below(9).to_string()),
                _ => {
                    services.remove(at);
                    continue;
                }
            }
            services[at] = Arc::new(new);
        }
        self.configure(services, stopped, Vec::new(), t)
    }

    fn configure(
        &mut self,
        services: Vec<Arc<Service>>,
        stopped: Vec<ServiceName>,
        past: Vec<Past>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let spec = Spec {
            files: Vec::new(),
            cgroups: Cgroups::Auto,
            services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        };
        let configure = Configure { spec: Arc::new(spec), by: by("wharf reload"), past, stopped };
        self.feed(Event::Configure(Box::new(configure)), &mut Dice(self.step), t)
    }

    /// First the world turns kind: what is wanted comes up, what is not goes down. Then everything
    /// is shut down.
    fn come_to_the_end(&mut self, t: &mut Tally) -> Result<(), Fault> {
        let mut dice = Dice(self.step);
        self.say(|| "--- the world turns kind".to_owned());
        for process in self.world.processes.values_mut() {
            process.temper = Temper::Stubborn;
        }
        self.settle(&mut dice, t)?;
        for (id, book) in &self.books {
            let state = book.state();
            if self.closing || !book.wanted {
                t.hold(Oracle::StopEnds, state.is_resting(), || format!("{id} is {state:?}"))?;
            } else {
                let well = [State::Running, State::Finished, State::Failed].contains(&state);
                t.hold(Oracle::WantedRunsInTheEnd, well, || format!("{id} is {state:?}"))?;
            }
        }
        for process in self.world.processes.values_mut() {
            process.temper = dice.pick(&[Temper::Polite, Temper::Stubborn, Temper::Stuck]);
        }
        let event = Event::Shutdown { cause: Cause::ManagerShutdown, by: by("SIGTERM") };
        self.feed(event, &mut dice, t)?;
        let began = self.now;
        self.settle(&mut dice, t)?;
        t.hold(Oracle::DownOnceWhenEmpty, self.down, || "nobody said that it is down".to_owned())?;
        let took = self.now.since(began);
        t.hold(Oracle::StopEnds, took < Duration::from_secs(60), || format!("took {took:?}"))
    }

    /// Lets happen whatever will, until nothing is left that would.
    fn settle(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        for _ in 0..2_000 {
            let ready = self
                .world
                .processes
                .iter()
                .filter(|(_, process)| process.stage != Stage::Runs || process.doom.is_some())
                .map(|(incarnation, _)| *incarnation)
                .chain(self.world.sweeps.iter().copied())
                .next();
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
            } else if let Some(next) = self.supervisor.next_deadline() {
                self.now = next.max(self.now);
                self.feed(Event::Time, dice, t)?;
            } else {
                return Ok(());
            }
        }
        t.hold(Oracle::WantedMovesOn, false, || "it never comes to rest".to_owned())
    }

    // ---- one step ----------------------------------------------------------------------------

    fn say(&mut self, words: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let seconds = Duration::from_nanos(self.now.0).as_secs_f64();
            let _ = writeln!(log, "{seconds:>12.6} {}", words());
        }
    }

    /// An event reaches the supervisor, its actions reach the world, and the oracles are asked.
    fn feed(&mut self, event: Event, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        self.step += 1;
        self.say(|| match &event {
            Event::Configure(configure) => {
                let services = configure.spec.services.values();
                let told: Vec<_> = services
                    .map(|s| {
                        format!(
                            "{}x{} {:?} {:?} {:?}",
                            s.name, s.replicas, s.command, s.restart, s.stop
                        )
                    })
                    .collect();
                format!(
                    "Configure {told:#?} stopped {:?} past {:?}",
                    configure.stopped, configure.past
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
        let mut signals = self.note(&event);
        let reload = self.untouched(&event);
        let actions = self.supervisor.step(self.now, event.clone());
        for action in &actions {
            self.say(|| format!("    {}", short(action)));
            self.check(action, &event, &mut signals, dice, t)?;
        }
        t.hold(Oracle::RecordedOnce, self.due.is_empty(), || {
            format!("not recorded: {:?}", self.due)
        })?;
        t.hold(Oracle::SignalIsPassedOn, signals.is_empty(), || format!("not sent: {signals:?}"))?;
        for id in reload {
            let touched = actions.iter().any(|action| about(action, &id, &self.books));
            t.hold(Oracle::UnchangedIsUntouched, !touched, || format!("{id} was touched"))?;
        }
        self.after_shutdown(&event, &asked, t)?;
        self.after_all(&event, t)?;
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
        self.agree(t)
    }

    /// Enters an event into the books. Returns the runs to which a signal has to be sent.
    fn note(&mut self, event: &Event) -> Vec<(Incarnation, Signal)> {
        let (now, step) = (self.now, self.step);
        let mut signals = Vec::new();
        match event {
            Event::Configure(configure) => self.note_configuration(configure),
            Event::Command { verb, target, by } => {
                signals = self.note_command(*verb, target, by);
            }
            Event::Shutdown { cause, by } => {
                for book in self.books.values_mut() {
                    if self.closing {
                        if let Some(asked) = book.run.as_mut().and_then(|run| run.asked.as_mut()) {
                            asked.hurried = true;
                        }
                        continue;
                    }
                    book.ask(*cause, by, now, Then::Rest);
                    if book.run.is_none() && !matches!(book.plan, Plan::Rest(_)) {
                        book.plan = Plan::Rest(Rest::Stopped);
                    }
                }
                self.closing = true;
            }
            Event::Spawned { incarnation } | Event::Started { incarnation } => {
                if let Some(run) = self.run(*incarnation) {
                    if !run.made && run.unkillable {
                        run.unkillable = false;
                        run.asked.as_mut().expect("only what is to end hangs").hurried = true;
                    }
                    run.made = true;
                    if matches!(event, Event::Started { .. }) {
                        run.started = Some(now);
                    }
                }
            }
            Event::Deferred { incarnation, .. } => self.note_deferral(*incarnation),
            Event::Ended { incarnation, end } => {
                let found = self.book_of(*incarnation).map(|(id, _)| id.clone());
                let id = found.expect("the world ends what runs");
                self.due.insert(*incarnation, (id, Due { end: end.clone(), past: None }));
                self.wake();
            }
            Event::Swept { incarnation, .. } => {
                for book in self.books.values_mut() {
                    if book.sweeping.is_some_and(|(swept, _)| swept == *incarnation) {
                        book.sweeping = None;
                        book.ripen(now, step);
                    }
                }
            }
            Event::ProtocolError { incarnation } => {
                let book = self.books.values_mut().find(|book| {
                    book.run
                        .as_ref()
                        .is_some_and(|run| run.incarnation == *incarnation && run.asked.is_none())
                });
                if let Some(book) = book {
                    book.kill(Cause::Spontaneous, now, true);
                }
            }
            Event::Time => {
                for book in self.books.values_mut() {
                    book.pass(now, step);
                }
            }
        }
        signals
    }

    fn run(&mut self, incarnation: Incarnation) -> Option<&mut Run> {
        let runs = self.books.values_mut().filter_map(|book| book.run.as_mut());
        runs.into_iter().find(|run| run.incarnation == incarnation)
    }

    fn book_of(&self, incarnation: Incarnation) -> Option<(&ReplicaId, &Book)> {
        self.books
            .iter()
            .find(|(_, book)| book.run.as_ref().is_some_and(|run| run.incarnation == incarnation))
    }

    /// Who waits longest for resources tries again.
    fn wake(&mut self) {
        let step = self.step;
        let waiting = self.books.values_mut().filter_map(|book| match (&book.run, book.plan) {
            (None, Plan::Deferred(incarnation, ..)) => Some((incarnation, book)),
            _ => None,
        });
        if let Some((_, book)) = waiting.min_by_key(|(incarnation, _)| *incarnation) {
            book.due(step);
        }
    }

    fn note_deferral(&mut self, incarnation: Incarnation) {
        let (now, step) = (self.now, self.step);
        let book = self.books.values_mut().find(|book| {
            book.run.as_ref().is_some_and(|run| run.incarnation == incarnation && !run.made)
        });
        let Some(book) = book else {
            return;
        };
        let run = book.run.take().expect("it was found by its run");
        let tries = run.tries + 1;
        let wait = Duration::from_millis(100) * tries.min(10);
        book.plan = match run.asked.map(|asked| asked.then) {
            None | Some(Then::Judge) => Plan::Deferred(incarnation, tries, now + wait),
            Some(Then::Again) => Plan::Due(Some((incarnation, tries)), step),
            Some(Then::Rest) => Plan::Rest(Rest::Stopped),
        };
    }

    fn note_command(
        &mut self,
        verb: Verb,
        target: &Target,
        by: &Requester,
    ) -> Vec<(Incarnation, Signal)> {
        let (now, step) = (self.now, self.step);
        let mut signals = Vec::new();
        if self.closing && matches!(verb, Verb::Start | Verb::Restart) {
            return signals;
        }
        for (id, book) in &mut self.books {
            let meant = id.service == target.service
                && target.replica.is_none_or(|replica| replica == id.replica);
            if !meant || !book.configured {
                continue;
            }
            match verb {
                Verb::Start | Verb::Restart => {
                    book.wanted = true;
                    if book.run.is_none() {
                        book.due(step);
                    } else if verb == Verb::Restart {
                        book.ask(Cause::RestartRequested, by, now, Then::Again);
                    } else if let Some(asked) = book.run.as_mut().and_then(|run| run.asked.as_mut())
                    {
                        asked.then = Then::Again;
                    }
                }
                Verb::Stop => {
                    book.wanted = false;
                    book.ask(Cause::StopRequested, by, now, Then::Rest);
                    book.plan = Plan::Rest(Rest::Stopped);
                }
                Verb::Signal(signal) => {
                    if let Some(run) = book.run.as_mut().filter(|run| run.made) {
                        run.signal = Some((signal, by.clone(), now));
                        signals.push((run.incarnation, signal));
                    }
                }
            }
        }
        let any = self
            .books
            .iter()
            .any(|(id, book)| id.service == target.service && book.configured && book.wanted);
        if let Some(known) = self.services.get_mut(&target.service) {
            match verb {
                Verb::Start | Verb::Restart => known.stopped = false,
                Verb::Stop => known.stopped = target.replica.is_none() || !any,
                Verb::Signal(_) => {}
            }
        }
        signals
    }

    fn note_configuration(&mut self, configure: &Configure) {
        if self.closing {
            return;
        }
        let (now, step) = (self.now, self.step);
        let by = &configure.by;
        let wanted = &configure.spec.services;
        self.services.retain(|name, _| wanted.contains_key(name));
        for (id, book) in &mut self.books {
            let stays = wanted.get(&id.service).is_some_and(|new| id.replica <= new.replicas);
            if book.configured && !stays {
                book.configured = false;
                book.ask(Cause::ConfigChanged, by, now, Then::Rest);
                if !matches!(book.plan, Plan::Rest(_)) {
                    book.plan = Plan::Rest(Rest::Stopped);
                }
            }
        }
        for (name, new) in wanted {
            let old = self.services.get(name);
            let changed = old.is_some_and(|old| old.service.command != new.command);
            let stopped = old.map_or_else(|| configure.stopped.contains(name), |old| old.stopped);
            self.services.insert(name.clone(), Known { service: Arc::clone(new), stopped });
            for number in 1..=new.replicas {
                let id = ReplicaId { service: name.clone(), replica: number };
                match self.books.get_mut(&id) {
                    Some(book) => book.reconfigure(new, changed, stopped, by, now, step),
                    None => self.note_arrival(id, new, stopped, &configure.past),
                }
            }
        }
        for past in &configure.past {
            if let PastEnd::Unrecorded { incarnation, end, cause } = &past.ended {
                let due = Due { end: end.clone(), past: Some(*cause) };
                self.due.insert(*incarnation, (past.replica.clone(), due));
                self.newest = self.newest.max(*incarnation);
                if !self.books.contains_key(&past.replica) {
                    let service = Arc::new(plain(past.replica.service.as_str()));
                    let mut book = Book::new(service, false, Plan::Rest(Rest::Stopped));
                    book.configured = false;
                    self.books.insert(past.replica.clone(), book);
                }
            }
        }
    }

    fn note_arrival(&mut self, id: ReplicaId, new: &Arc<Service>, stopped: bool, past: &[Past]) {
        let past = past.iter().find(|past| past.replica == id);
        let (wanted, plan) = match past.map(|past| &past.ended) {
            _ if stopped => (false, Plan::Rest(Rest::Stopped)),
            Some(PastEnd::Resting(rest)) => (*rest != Rest::Stopped, Plan::Rest(*rest)),
            Some(PastEnd::Unrecorded { .. } | PastEnd::Between) | None => {
                (true, Plan::Due(None, self.step))
            }
        };
        let mut book = Book::new(Arc::clone(new), wanted, plan);
        book.row = past.map_or(0, |past| past.row);
        self.books.insert(id, book);
    }

    /// Replicas that this reload must leave alone.
    fn untouched(&self, event: &Event) -> Vec<ReplicaId> {
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
                    && !matches!(book.plan, Plan::Due(_, step) if step == self.step)
                    && book.run.as_ref().is_none_or(|run| !run.outdated && run.asked.is_none())
            })
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Looks at one action before and while it is carried out.
    fn check(
        &mut self,
        action: &Action,
        event: &Event,
        signals: &mut Vec<(Incarnation, Signal)>,
        dice: &mut Dice,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        match action {
            Action::Spawn { incarnation, replica, service } => {
                self.check_spawn(*incarnation, replica, service, t)?;
            }
            Action::Record { incarnation, replica, verdict } => {
                let due = self.due.remove(incarnation).filter(|(id, _)| id == replica);
                t.hold(Oracle::RecordedOnce, due.is_some(), || {
                    format!("{incarnation} of {replica} is not to be recorded now")
                })?;
                let (now, step) = (self.now, self.step);
                let (_, due) = due.expect("it was looked at");
                if due.past.is_some() {
                    t.hold(Oracle::PastIsRecorded, true, String::new)?;
                }
                let book = self.books.get_mut(replica).expect("what is due has a book");
                let sweeping = book.sweeping.is_some();
                expect::record(book, &due, verdict, now, step, t)?;
                t.hold(Oracle::OrderAtAnEnd, !sweeping, || "swept before it ended".to_owned())?;
                self.over.push(*incarnation);
            }
            Action::Sweep { incarnation, scope } => {
                let last = self.over.last() == Some(incarnation)
                    || matches!(event, Event::Configure(_)) && self.over.contains(incarnation);
                t.hold(Oracle::OrderAtAnEnd, last, || {
                    format!("{incarnation} is swept before it is recorded")
                })?;
                let found = self.books.values_mut().find(|book| {
                    book.run.is_none() && book.sweeping.is_none() && book.sweep_owed == Some(*scope)
                });
                let now = self.now;
                let needed = found.map(|book| {
                    book.sweep_owed = None;
                    book.sweeping = Some((*incarnation, now));
                });
                t.hold(Oracle::SweepOnlyWhenNeeded, needed.is_some(), || {
                    format!("nobody needs {scope:?} of {incarnation} to be swept")
                })?;
            }
            Action::Forget { replica } => {
                let gone = self.books.remove(replica);
                let right = gone.as_ref().is_some_and(|book| !book.configured && book.is_empty());
                t.hold(Oracle::RemovedIsForgotten, right, || {
                    format!("{replica} is forgotten: {gone:?}")
                })?;
            }
            Action::Signal { .. }
            | Action::Kill { .. }
            | Action::SendQuit { .. }
            | Action::CloseInput { .. } => self.check_step(action, event, signals, t)?,
            Action::Changed { replica } => {
                t.hold(Oracle::ChangesAreTold, self.books.contains_key(replica), || {
                    format!("{replica} changed but is unknown")
                })?;
            }
            Action::Persist | Action::Down => {}
        }
        self.world.apply(action, dice).or_else(|words| {
            t.hold(Oracle::NothingToTheDead, false, || format!("{}: {words}", short(action)))
        })
    }

    fn check_spawn(
        &mut self,
        incarnation: Incarnation,
        replica: &ReplicaId,
        service: &Arc<Service>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let in_flight = self.in_flight();
        t.hold(Oracle::StartsAreGentle, in_flight < MAX_STARTING, || {
            format!("{in_flight} are being started already")
        })?;
        t.hold(Oracle::NothingStartsAfterShutdown, !self.closing, || {
            format!("{replica} is started though everything is to end")
        })?;
        let first = self
            .books
            .values()
            .filter(|book| book.is_empty())
            .filter_map(|book| match book.plan {
                Plan::Due(retry, step) => Some((retry.is_none(), retry, step)),
                Plan::Rest(_) | Plan::At(_) | Plan::Deferred(..) => None,
            })
            .min();
        let twin = self.world.processes.values().any(|process| process.replica == *replica);
        let Some(book) = self.books.get_mut(replica) else {
            return t.hold(Oracle::RemovedIsForgotten, false, || format!("{replica} is unknown"));
        };
        t.hold(Oracle::OneLife, book.run.is_none() && !twin, || {
            format!("{replica} has a run already")
        })?;
        t.hold(
            Oracle::SweepBeforeSuccessor,
            book.sweeping.is_none() && book.sweep_owed.is_none(),
            || format!("{replica} starts beside what its last run left behind"),
        )?;
        t.hold(Oracle::RemovedIsForgotten, book.configured, || {
            format!("{replica} is started though it is not configured")
        })?;
        t.hold(Oracle::StoppedStays, book.wanted, || {
            format!("{replica} is started though it was stopped")
        })?;
        let (retry, since) = match book.plan {
            Plan::Due(retry, since) => (retry, since),
            Plan::At(at) => {
                return t.hold(Oracle::BackoffWithinBounds, false, || {
                    format!("{replica} is started before {at:?}")
                });
            }
            Plan::Deferred(.., at) => {
                return t.hold(Oracle::DeferredIsTriedAgain, false, || {
                    format!("{replica} is tried again before {at:?}")
                });
            }
            Plan::Rest(rest) => {
                return t.hold(Oracle::PolicyDecides, false, || {
                    format!("{replica} is started though it rests, {rest:?}")
                });
            }
        };
        t.hold(Oracle::StartsAreFair, first == Some((retry.is_none(), retry, since)), || {
            format!("{replica} is started before others: {first:?}")
        })?;
        match retry {
            Some((tried, _)) => {
                t.hold(Oracle::DeferredIsTriedAgain, incarnation == tried, || {
                    format!("{tried} is tried again as {incarnation}")
                })?;
            }
            None => {
                let newest = self.newest;
                t.hold(Oracle::IncarnationsGrow, incarnation > newest, || {
                    format!("{incarnation} comes after {newest}")
                })?;
                self.newest = incarnation;
            }
        }
        let newest = Arc::ptr_eq(service, &book.service) || **service == *book.service;
        t.hold(Oracle::NewestConfiguration, newest, || {
            format!("{replica} is started with {service:?} instead of {:?}", book.service)
        })?;
        book.run = Some(Run {
            incarnation,
            service: Arc::clone(service),
            outdated: false,
            ordered: self.now,
            tries: retry.map_or(0, |(_, tries)| tries),
            made: false,
            started: None,
            asked: None,
            signal: None,
            steps: Vec::new(),
            unkillable: false,
        });
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.books
            .values()
            .filter_map(|book| book.run.as_ref())
            .filter(|run| run.started.is_none() && !run.unkillable)
            .count()
    }

    /// A step of a ladder, or an operator's signal on its way.
    fn check_step(
        &mut self,
        action: &Action,
        event: &Event,
        signals: &mut Vec<(Incarnation, Signal)>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let now = self.now;
        let (incarnation, rank) = match action {
            Action::SendQuit { incarnation } => (*incarnation, 0),
            Action::CloseInput { incarnation } => (*incarnation, 1),
            Action::Signal { incarnation, .. } => (*incarnation, 2),
            Action::Kill { incarnation, .. } => (*incarnation, 3),
            other => unreachable!("{other:?} is no step"),
        };
        if let (
            Action::Signal { signal, group, .. },
            Event::Command { verb: Verb::Signal(_), .. },
        ) = (action, event)
        {
            let at = signals.iter().position(|owed| *owed == (incarnation, *signal));
            t.hold(Oracle::SignalIsPassedOn, at.is_some() && !group, || {
                format!("{signal} to {incarnation} was not asked for")
            })?;
            signals.remove(at.expect("it was looked at"));
            return Ok(());
        }
        let Some(run) = self.run(incarnation) else {
            return t.hold(Oracle::NothingToTheDead, false, || short(action));
        };
        t.hold(Oracle::NothingToTheDead, run.made, || format!("{} too early", short(action)))?;
        t.hold(Oracle::LadderInOrder, run.asked.is_some(), || {
            format!("nobody asked for {}", short(action))
        })?;
        if let Action::Signal { signal: Signal::CONT, group, .. } = action {
            let after = run.steps.last().is_some_and(|step| step.rank == 2 && step.at == now);
            let same = *group == (run.service.stop.kill != KillScope::Process);
            return t.hold(Oracle::LadderInOrder, after && same, || "a stray SIGCONT".to_owned());
        }
        let name = match action {
            Action::SendQuit { .. } => "quit".to_owned(),
            Action::CloseInput { .. } => "close_stdin".to_owned(),
            Action::Signal { signal, group, .. } => {
                let right = *signal == run.service.stop.signal
                    && *group == (run.service.stop.kill != KillScope::Process);
                t.hold(Oracle::LadderInOrder, right, || format!("{} is wrong", short(action)))?;
                signal.to_string()
            }
            _ => "SIGKILL".to_owned(),
        };
        let last = run.steps.last();
        let next =
            run.ladder().into_iter().find(|(place, _)| last.is_none_or(|last| last.rank < *place));
        t.hold(Oracle::LadderInOrder, next.is_some_and(|(place, _)| place == rank), || {
            format!("{} is not the next step of {:?}", short(action), run.ladder())
        })?;
        let forced = run.asked.as_ref().is_some_and(|asked| asked.kill || asked.hurried);
        let early = last.is_some_and(|last| now.since(last.at) < last.patience);
        t.hold(Oracle::LadderTakesItsTime, forced || !early, || {
            format!("{} comes {:?} after {last:?}", short(action), last.map(|l| now.since(l.at)))
        })?;
        if let Action::Kill { scope, .. } = action {
            let right = *scope == run.scope();
            t.hold(Oracle::LadderInOrder, right, || format!("{} is too far", short(action)))?;
        }
        let patience = next.map_or(PATIENCE, |(_, patience)| patience);
        run.steps.push(Step { rank, name, at: now, patience });
        Ok(())
    }

    fn after_shutdown(
        &mut self,
        event: &Event,
        asked: &BTreeSet<Incarnation>,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        if !matches!(event, Event::Shutdown { .. }) {
            return Ok(());
        }
        for run in self.books.values().filter_map(|book| book.run.as_ref()) {
            if !run.made {
                continue;
            }
            if asked.contains(&run.incarnation) {
                let hurried = run.asked.as_ref().is_some_and(|asked| asked.hurried);
                t.hold(Oracle::SecondHurries, !hurried || run.is_killed(), || {
                    format!("{} was not killed", run.incarnation)
                })?;
            } else {
                t.hold(Oracle::AllAreAskedAtOnce, !run.steps.is_empty(), || {
                    format!("{} was not asked", run.incarnation)
                })?;
            }
        }
        Ok(())
    }

    /// What has to be true after every step.
    fn after_all(&mut self, event: &Event, t: &mut Tally) -> Result<(), Fault> {
        let now = self.now;
        let full = self.in_flight() >= MAX_STARTING;
        for (id, book) in &self.books {
            t.hold(Oracle::SweepOnlyWhenNeeded, book.sweep_owed.is_none(), || {
                format!("what {id} left behind is not swept")
            })?;
            let forgotten = book.configured || !book.is_empty();
            t.hold(Oracle::RemovedIsForgotten, forgotten, || format!("{id} is not forgotten"))?;
            if let Some(run) = &book.run {
                if let Some(asked) = run.asked.as_ref().filter(|_| run.made) {
                    let oracle = match (asked.cause, asked.protocol) {
                        (_, true) => Oracle::ProtocolErrorKills,
                        (Cause::StartTimeout, _) => Oracle::StartTimeoutKills,
                        (Cause::ConfigChanged, _) => Oracle::ChangedRunsAnew,
                        (Cause::RestartRequested, _) => Oracle::RestartRunsAnew,
                        _ => Oracle::StopIsHeard,
                    };
                    t.hold(oracle, !run.steps.is_empty(), || {
                        format!("nothing is done to end {id}: {run:?}")
                    })?;
                    let late = matches!(event, Event::Time)
                        && !run.unkillable
                        && run.steps.last().is_some_and(|last| last.at + last.patience <= now);
                    t.hold(Oracle::LadderGoesOn, !late, || {
                        format!("nothing more is done to end {id}: {run:?}")
                    })?;
                }
                if run.is_killed() {
                    let kills = matches!(
                        run.asked.as_ref().map(|asked| (asked.cause, asked.kill)),
                        Some((Cause::StartTimeout, true))
                    );
                    t.hold(Oracle::StartTimeoutKills, !kills || run.steps.len() == 1, || {
                        format!("{id} was asked before it was killed")
                    })?;
                    let protocol = run.asked.as_ref().is_some_and(|asked| asked.protocol);
                    t.hold(Oracle::ProtocolErrorKills, !protocol || run.steps.len() == 1, || {
                        format!("{id} was asked before it was killed")
                    })?;
                }
            } else if let (Plan::Due(retry, _), None) = (book.plan, book.sweeping) {
                let oracle = match (retry, event) {
                    (Some(_), _) => Oracle::DeferredIsTriedAgain,
                    (None, Event::Time) => Oracle::WantedMovesOn,
                    (None, Event::Configure(_)) => Oracle::ReplicasFollow,
                    (None, _) => Oracle::StartRuns,
                };
                t.hold(oracle, full, || format!("{id} is due and not started"))?;
            }
            let moving = book.wanted && book.configured && !self.closing && book.is_empty();
            if moving && let Plan::At(at) | Plan::Deferred(.., at) = book.plan {
                let next = self.supervisor.next_deadline();
                let soon = next.is_some_and(|next| next <= at + Duration::from_micros(1));
                t.hold(Oracle::WantedMovesOn, soon, || format!("{id} waits for {next:?}"))?;
            }
        }
        if matches!(event, Event::Time) {
            let next = self.supervisor.next_deadline();
            t.hold(Oracle::TimeIsHandled, next.is_none_or(|next| next > now), || {
                format!("the next deadline is {next:?}")
            })?;
        }
        for (id, known) in self.services.values().flat_map(|known| {
            let name = &known.service.name;
            let id = move |replica| ReplicaId { service: name.clone(), replica };
            (1..=known.service.replicas).map(move |replica| (id(replica), known))
        }) {
            let there = self.closing || self.supervisor.view(&id).is_some();
            t.hold(Oracle::ReplicasFollow, there, || {
                format!("{id} is missing of {}", known.service.replicas)
            })?;
        }
        Ok(())
    }

    /// Whatever can be seen to have changed was said to have changed.
    fn told(&mut self, actions: &[Action], t: &mut Tally) -> Result<(), Fault> {
        let views: BTreeMap<_, _> =
            self.supervisor.views().map(|view| (view.replica.clone(), view)).collect();
        for (id, view) in &views {
            let told = self.views.get(id) == Some(view)
                || actions
                    .iter()
                    .any(|action| matches!(action, Action::Changed { replica } if replica == id));
            t.hold(Oracle::ChangesAreTold, told, || format!("{id} changed: {view:?}"))?;
        }
        self.views = views;
        Ok(())
    }

    /// What the supervisor shows is what the books and the world say.
    fn agree(&mut self, t: &mut Tally) -> Result<(), Fault> {
        let now = self.now;
        let mut shown = 0;
        for view in self.supervisor.views() {
            shown += 1;
            let id = &view.replica;
            let Some(book) = self.books.get_mut(id) else {
                return t.hold(Oracle::BeliefIsWorld, false, || format!("{id} is unknown"));
            };
            let state = book.state();
            let oracle = match (view.state, state) {
                (_, State::Unkillable) => Oracle::UnkillableIsReported,
                (State::Stopping, _) if book.run.is_none() => Oracle::SweepIsBounded,
                (_, State::Finished | State::Failed) => Oracle::RestStays,
                (_, State::Stopped) => Oracle::StopIsHeard,
                _ => Oracle::BeliefIsWorld,
            };
            t.hold(oracle, view.state == state, || {
                format!("{id} is shown as {:?} and is {state:?}: {book:?}", view.state)
            })?;
            let run = book.run.as_ref().map(|run| run.incarnation);
            let run = run.or(book.sweeping.map(|(incarnation, _)| incarnation));
            t.hold(Oracle::BeliefIsWorld, view.incarnation == run, || {
                format!("{id} is shown as run {:?} and is {run:?}", view.incarnation)
            })?;
            let oracle = if matches!(book.plan, Plan::Due(None, _)) {
                Oracle::CommandsDoNotCount
            } else {
                Oracle::RowEnds
            };
            t.hold(oracle, view.row == book.row, || {
                format!("{id} has failed {} times in a row, shown as {}", book.row, view.row)
            })?;
            let looping = book.row >= CRASH_LOOPING && !state.is_resting();
            t.hold(Oracle::CrashLooping, view.crash_looping == looping, || {
                format!("{id} failed {} times in a row: {view:?}", book.row)
            })?;
            t.hold(Oracle::RestartsAreCounted, view.restarts == book.restarts, || {
                format!("{id} was restarted {} times, shown as {}", book.restarts, view.restarts)
            })?;
            let wanted = book.wanted && book.configured;
            t.hold(Oracle::BeliefIsWorld, view.wanted == wanted, || {
                format!("{id} wanted: {wanted}, shown as {}", view.wanted)
            })?;
            // Seconds in a record are rounded; from here on the exact time is known.
            if let Plan::At(at) = book.plan
                && book.run.is_none()
                && let Some(next) = view.next_start
            {
                let apart = at.0.abs_diff(next.0);
                t.hold(Oracle::BackoffWithinBounds, apart < 1_000, || {
                    format!("{id} is to start at {at:?}, shown as {next:?}")
                })?;
                book.plan = Plan::At(next);
            }
            if let (State::Waiting, Plan::Deferred(.., at)) = (state, book.plan) {
                t.hold(Oracle::DeferredIsTriedAgain, view.next_start == Some(at), || {
                    format!(
                        "{id} is tried again at {:?}, not {at:?} (now {now:?})",
                        view.next_start
                    )
                })?;
            }
        }
        let known = self.books.len();
        t.hold(Oracle::BeliefIsWorld, shown == known, || format!("{known} are, {shown} shown"))
    }
}

impl Book {
    /// Time has passed.
    fn pass(&mut self, now: Tick, step: u64) {
        if let Some(run) = &mut self.run {
            match (&run.asked, run.started) {
                (None, None) if now >= run.ordered + run.service.start_timeout => {
                    self.kill(Cause::StartTimeout, now, false);
                }
                (None, Some(at)) if now >= at + run.service.restart.reset_after => self.row = 0,
                (None, _) => {}
                (Some(asked), _) => {
                    let hung = match run.steps.last() {
                        Some(last) => last.rank == 3 && now >= last.at + last.patience,
                        None => now >= asked.at + PATIENCE,
                    };
                    run.unkillable |= hung;
                }
            }
            return;
        }
        if let Some((_, since)) = self.sweeping
            && now >= since + PATIENCE
        {
            self.sweeping = None;
        }
        if self.sweeping.is_none() {
            self.ripen(now, step);
        }
    }

    /// What was to start at a time that has come is due.
    fn ripen(&mut self, now: Tick, step: u64) {
        match self.plan {
            Plan::At(at) | Plan::Deferred(.., at) if at <= now => self.due(step),
            Plan::Due(None, _) => self.plan = Plan::Due(None, step),
            Plan::At(_) | Plan::Deferred(..) | Plan::Due(Some(_), _) | Plan::Rest(_) => {}
        }
    }

    /// A configuration reaches a replica that was there before.
    fn reconfigure(
        &mut self,
        new: &Arc<Service>,
        changed: bool,
        stopped: bool,
        by: &Requester,
        now: Tick,
        step: u64,
    ) {
        let returns = !self.configured;
        self.configured = true;
        if returns {
            self.wanted = !stopped;
        }
        self.service = Arc::clone(new);
        if !changed && !returns {
            if let Some(run) = self.run.as_mut().filter(|run| !run.outdated) {
                run.service = Arc::clone(new);
            }
            return;
        }
        self.row = 0;
        self.recent.clear();
        match &mut self.run {
            Some(run) => {
                run.outdated = true;
                let then = if self.wanted { Then::Again } else { Then::Rest };
                self.ask(Cause::ConfigChanged, by, now, then);
            }
            None if self.wanted => self.due(step),
            None => {}
        }
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
        | Action::Changed { .. }
        | Action::Forget { .. }
        | Action::Persist
        | Action::Down => false,
    }
}

/// An action without its configuration.
fn short(action: &Action) -> String {
    match action {
        Action::Spawn { incarnation, replica, .. } => format!("Spawn {incarnation} {replica}"),
        Action::Record { incarnation, replica, verdict } => format!(
            "Record {incarnation} {replica} {} {} {:?} {:?}",
            verdict.reason, verdict.cause, verdict.restart, verdict.stop
        ),
        other => format!("{other:?}"),
    }
}

// ---- configurations --------------------------------------------------------------------------

fn plain(name: &str) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        command: vec!["server".to_owned()],
        working_dir: "/".into(),
        environment: BTreeMap::new(),
        user: None,
        replicas: 1,
        port: None,
        restart: Restart::default(),
        start_timeout: Duration::from_secs(20),
        stop: Stop::default(),
        logging: Logging::default(),
        limits: Limits::default(),
        labels: BTreeMap::new(),
    }
}

fn some_service(name: &str, dice: &mut Dice) -> Service {
    let port = dice.one_in(2).then(|| Port {
        quit: dice.one_in(2).then(|| ".quit".to_owned()),
        eof: dice.pick(&[Eof::Graceful, Eof::Ignored, Eof::Error]),
        on_protocol_error: dice.pick(&[OnProtocolError::Restart, OnProtocolError::Stop]),
        ..Port::default()
    });
    Service {
        // Whether a configuration needs a new run is told by the command alone here.
        command: vec!["server".to_owned(), dice.roll().to_string()],
        replicas: u32::try_from(dice.below(4)).unwrap(),
        port,
        restart: some_restart(dice),
        stop: some_stop(dice),
        ..plain(name)
    }
}

fn some_restart(dice: &mut Dice) -> Restart {
    Restart {
        policy: dice.pick(&[
            Policy::No,
            Policy::Always,
            Policy::OnFailure,
            Policy::OnFailure,
            Policy::UnlessStopped,
        ]),
        delay: Duration::from_millis(dice.pick(&[0, 50, 200, 200, 1_000])),
        factor: dice.pick(&[1.0, 1.5, 2.0, 2.0]),
        max_delay: Duration::from_millis(dice.pick(&[300, 5_000, 30_000])),
        jitter: dice.pick(&[0.0, 0.2, 1.0]),
        reset_after: Duration::from_secs(dice.pick(&[1, 10, 30])),
        max_restarts: dice.pick(&[0, 1, 2, 5, 10, 100]),
        within: Duration::from_secs(dice.pick(&[1, 60, 600])),
        on_give_up: dice.pick(&[OnGiveUp::Stop, OnGiveUp::RetryEvery(Duration::from_secs(7))]),
        success_exit_codes: dice.pick(&[&[0][..], &[0, 3]]).to_vec(),
        success_signals: dice.pick(&[&[][..], &[SignalName(Signal::TERM)]]).to_vec(),
        never_on: dice.pick(&[&[][..], &[Reason::ExecFailed], &[Reason::CoreDumped]]).to_vec(),
    }
}

fn some_stop(dice: &mut Dice) -> Stop {
    Stop {
        signal: dice.pick(&[Signal::TERM, Signal::TERM, Signal::INT, Signal::KILL]),
        grace: Duration::from_secs(dice.pick(&[1, 5, 10])),
        kill: dice.pick(&[KillScope::Tree, KillScope::Tree, KillScope::Group, KillScope::Process]),
    }
}
