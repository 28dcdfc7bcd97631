//! The moves: what can happen in the world, and what somebody can want of the supervisor. Deaths of the manager
//! and upgrades are in `lives`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wharf::event::{End, Event, Said, Verb};
use wharf::exit::{Errno, How, Signal, Stage as Step_};
use wharf::name::{Incarnation, Target};
use wharf::spec::{Check, Contents, Service};
use wharf::time::Tick;

use super::configs::{
    FILE, read_files, some_dependencies, some_groups, some_listen, some_restart, some_schedule,
    some_service, some_stop,
};
use super::history::{Sim, by};
use super::oracles::{Fault, Oracle, Tally};
use super::watch::live;
use super::world::{Dice, Stage};

impl Sim {
    /// Something that is under way in the world comes to pass.
    pub(crate) fn progress(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let ready: Vec<_> = self.world.under_way().collect();
        if ready.is_empty() {
            return Ok(());
        }
        let incarnation = dice.pick(&ready);
        self.advance(incarnation, dice, false, t)
    }

    /// One run takes its next step. In a kind world nothing fails.
    pub(crate) fn advance(
        &mut self,
        incarnation: Incarnation,
        dice: &mut Dice,
        kind: bool,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let Some(process) = self.world.processes.get_mut(&incarnation) else {
            self.world.sweeps.retain(|sweep| *sweep != incarnation);
            let stuck = !kind && dice.one_in(5);
            return self.feed(&Event::Swept { incarnation, stuck }, dice, t);
        };
        if let Some(how) = process.doom {
            return self.finish(incarnation, how, dice, t);
        }
        match process.stage {
            Stage::Ordered if !kind && dice.one_in(6) => {
                self.world.processes.remove(&incarnation);
                let errno = Errno(11);
                self.feed(&Event::Deferred { incarnation, errno }, dice, t)
            }
            Stage::Ordered if !kind && dice.one_in(12) => {
                let how = How::NotStarted(dice.pick(&[Step_::Clone, Step_::Deadline]), Errno(110));
                self.finish(incarnation, how, dice, t)
            }
            Stage::Ordered => {
                process.stage = Stage::Made;
                self.feed(&Event::Spawned { incarnation }, dice, t)
            }
            Stage::Made if !kind && dice.one_in(8) => {
                let stage = dice.pick(&[Step_::Exec, Step_::Exec, Step_::User, Step_::WorkingDir]);
                self.finish(
                    incarnation,
                    How::NotStarted(stage, Errno(dice.pick(&[2, 2, 2, 26]))),
                    dice,
                    t,
                )
            }
            Stage::Made => {
                process.stage = Stage::Runs;
                self.feed(&Event::Started { incarnation }, dice, t)
            }
            Stage::Runs if process.unready && (kind || dice.one_in(3)) => {
                process.unready = false;
                self.feed(&Event::Ready { incarnation }, dice, t)
            }
            Stage::Runs if process.measured => {
                process.measured = false;
                let bytes = if kind { 1 } else { dice.below(120) };
                self.feed(&Event::Measured { incarnation, bytes }, dice, t)
            }
            Stage::Runs => match process.question.take() {
                Some(number) => {
                    let good = kind || dice.one_in(2);
                    let result = if good { Ok(()) } else { Err("refused".into()) };
                    self.feed(&Event::Probed { incarnation, number, result }, dice, t)
                }
                None => Ok(()),
            },
        }
    }

    /// A running program says something of itself.
    pub(crate) fn say_something(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let running = self.world.processes.iter().filter(|(_, one)| one.stage == Stage::Runs);
        let running: Vec<_> = running.map(|(incarnation, _)| *incarnation).collect();
        if running.is_empty() {
            return Ok(());
        }
        let incarnation = dice.pick(&running);
        let length = Duration::from_secs(dice.pick(&[1, 7, 20]));
        let said = dice.pick(&[
            Said::Alive,
            Said::Alive,
            Said::Unwell,
            Said::AliveEvery(length),
            Said::NeedsTime(length),
            Said::Stopping,
        ]);
        self.feed(&Event::Said { incarnation, said }, dice, t)
    }

    /// A running program ends by itself.
    pub(crate) fn die(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
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

    pub(crate) fn finish(
        &mut self,
        incarnation: Incarnation,
        how: How,
        dice: &mut Dice,
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let end = self.world.end(incarnation, how, dice);
        self.feed(&Event::Ended { incarnation, end }, dice, t)
    }

    /// Time passes: to the next deadline, just short of it, or for a while.
    pub(crate) fn pass(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let next = self.supervisor.next_deadline();
        let silent = dice.one_in(6);
        self.now = match (dice.below(6), next) {
            (0..=2, Some(next)) => next.max(self.now),
            (3, Some(next)) => Tick(next.0.saturating_sub(1)).max(self.now),
            (4, _) => self.now + Duration::from_millis(dice.below(2_000)),
            _ => self.now + Duration::from_secs(dice.below(40)),
        };
        // The clock may move without the supervisor being told, when something else happens first.
        if silent { Ok(()) } else { self.feed(&Event::Time, dice, t) }
    }

    pub(crate) fn command(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let names: Vec<_> = self.services.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let service = names[dice.place(names.len())].clone();
        let replicas = self.services[&service].service.replicas;
        let replica = (replicas > 0 && dice.one_in(2)).then(|| 1 + dice.few(replicas));
        let signals = [Signal::HUP, Signal::INT, Signal::KILL, Signal::XCPU];
        let (verb, who) = match dice.below(11) {
            0..=1 => (Verb::Start, "wharf start"),
            2..=4 => (Verb::Stop, "wharf stop"),
            5..=6 => (Verb::Restart, "wharf restart"),
            7 => (Verb::StopWithDependents, "wharf stop --dependents"),
            8..=9 => (Verb::Roll, "wharf restart --rolling"),
            _ => (Verb::Signal(dice.pick(&signals)), "wharf signal"),
        };
        let target = Target { service, replica };
        self.feed(&Event::Command { verb, target, by: by(who) }, dice, t)
    }

    /// The time of a schedule comes.
    pub(crate) fn come_due(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let scheduled = self.services.iter().filter(|(_, known)| known.service.schedule.is_some());
        let names: Vec<_> = scheduled.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let service = names[dice.place(names.len())].clone();
        self.feed(&Event::Due { service }, dice, t)
    }

    pub(crate) fn protocol_error(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
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
        self.feed(&Event::ProtocolError { incarnation }, dice, t)
    }

    /// The kernel kills something that a program had started.
    pub(crate) fn out_of_memory(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let runs = self.world.processes.iter().filter(|(_, process)| process.stage == Stage::Runs);
        let runs: Vec<_> = runs.map(|(incarnation, _)| *incarnation).collect();
        if runs.is_empty() {
            return Ok(());
        }
        self.feed(&Event::OutOfMemory { incarnation: dice.pick(&runs) }, dice, t)
    }

    /// Something is said of a run that is over or never was, or is said twice: nothing follows.
    pub(crate) fn stale(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let mut runs = self.over.clone();
        runs.retain(|run| !self.world.sweeps.contains(run));
        runs.push(Incarnation(self.newest.0 + 1_000_000));
        let incarnation = dice.pick(&runs);
        let end = End { survivors: dice.one_in(2), ..End::plain(How::Exited(1)) };
        let event = match dice.below(12) {
            8 => Event::OutOfMemory { incarnation },
            9 => Event::Probed { incarnation, number: 1, result: Err("late".into()) },
            10 => Event::Said { incarnation, said: Said::Stopping },
            11 => Event::Measured { incarnation, bytes: 1_000 },
            7 => Event::Ready { incarnation },
            0 => Event::Spawned { incarnation },
            1 => Event::Started { incarnation },
            2 => Event::Deferred { incarnation, errno: Errno(11) },
            3 => Event::Ended { incarnation, end },
            4 => Event::Swept { incarnation, stuck: true },
            5 => Event::ProtocolError { incarnation },
            _ => {
                // An answer to a question that nobody asks any more.
                let asked = self.world.processes.iter().find(|(_, p)| p.question.is_some());
                if let Some((incarnation, _)) = asked.filter(|_| dice.one_in(2)) {
                    let (incarnation, number) = (*incarnation, u64::MAX);
                    let result = if dice.one_in(2) { Ok(()) } else { Err("late".into()) };
                    return self.stale_event(&Event::Probed { incarnation, number, result }, t);
                }
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
        self.stale_event(&event, t)
    }

    fn stale_event(&mut self, event: &Event, t: &mut Tally) -> Result<(), Fault> {
        self.say(|| format!("stale: {event:?}"));
        let actions = self.supervisor.step(self.now, event.clone());
        t.hold(Oracle::StaleIsIgnored, actions.is_empty(), || {
            format!("{event:?} led to {actions:?}")
        })?;
        self.agree(t)
    }

    pub(crate) fn reload(&mut self, dice: &mut Dice, t: &mut Tally) -> Result<(), Fault> {
        let mut services: Vec<_> =
            self.services.values().map(|known| Arc::clone(&known.service)).collect();
        let mut stopped = self.supervisor.stopped();
        for _ in 0..=dice.below(2) {
            let at = dice.place(services.len());
            let kind = dice.below(14);
            if kind == 10 {
                self.groups = some_groups(dice);
                continue;
            }
            if kind == 8 || services.is_empty() {
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
                0 | 3 if new.healthcheck.is_some() => {
                    let check = new.healthcheck.as_mut().unwrap();
                    check.by = Check::Tcp(format!("localhost:{}", 3 + dice.below(9)));
                }
                0 => {}
                1 => new.restart = some_restart(dice),
                2 => new.stop = some_stop(dice),
                3 => drop(new.labels.insert("k".to_owned(), dice.below(9).to_string())),
                4 => new.replicas = dice.few(4),
                5 if dice.one_in(2) => live(&mut new, dice),
                5 => {
                    new.command.push(dice.below(9).to_string());
                    if dice.one_in(3) || !new.listen.is_empty() {
                        new.listen = some_listen(dice);
                    }
                }
                6 => new.schedule = dice.one_in(2).then(|| some_schedule(dice)),
                9 => new.depends_on = some_dependencies(new.name.as_str(), dice),
                11..=12 => {
                    if let Some(stands) = new.config_files.get_mut(Path::new(FILE)) {
                        *stands = Contents::File(dice.below(5).to_string());
                    }
                }
                13 => read_files(&mut new, dice),
                _ => {
                    services.remove(at);
                    continue;
                }
            }
            services[at] = Arc::new(new);
        }
        self.configure(&services, stopped, Vec::new(), t)
    }
}
