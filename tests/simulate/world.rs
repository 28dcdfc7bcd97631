//! A world that carries out actions: processes that are made, run, hear signals, and end.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf::event::{Action, End, Oom};
use wharf::exit::{How, Signal};
use wharf::name::{Incarnation, ReplicaId};

/// Chance that repeats with its seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A number below `limit`, small enough to count replicas with.
    pub(crate) fn few(&mut self, limit: u32) -> u32 {
        u32::try_from(self.below(limit.into())).unwrap()
    }

    /// A place in a list of this length, or 0.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }
}

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It was ordered and does not exist.
    Ordered,
    /// It exists; its program does not run.
    Made,
    /// Its program runs.
    Runs,
}

/// What a program does when it is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Ends when it hears `quit`, the end of its input or a signal.
    Polite,
    /// Ends only upon a signal.
    NeedsSignal,
    /// Ends only when killed.
    Stubborn,
    /// Does not even end when killed, as in an uninterruptible sleep.
    Stuck,
}

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) replica: ReplicaId,
    pub(crate) stage: Stage,
    pub(crate) temper: Temper,
    /// It has something to say before it counts as ready.
    pub(crate) unready: bool,
    /// It is about to end like this.
    pub(crate) doom: Option<How>,
    /// The question it has been asked.
    pub(crate) question: Option<u64>,
    /// Its memory is to be looked at.
    pub(crate) measured: bool,
}

/// All processes, by run, and what is left of ended ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) processes: BTreeMap<Incarnation, Process>,
    /// Runs whose survivors are being swept.
    pub(crate) sweeps: Vec<Incarnation>,
}

/// An action that cannot be carried out.
pub(crate) type Impossible = String;

impl World {
    /// Carries out an action.
    pub(crate) fn apply(&mut self, action: &Action, dice: &mut Dice) -> Result<(), Impossible> {
        match action {
            Action::Spawn { incarnation, replica, service } => {
                let temper = dice.pick(&[
                    Temper::Polite,
                    Temper::Polite,
                    Temper::NeedsSignal,
                    Temper::Stubborn,
                    Temper::Stuck,
                ]);
                let process = Process {
                    replica: replica.clone(),
                    stage: Stage::Ordered,
                    temper,
                    unready: service.awaits_ready() && service.ready_check().is_none(),
                    doom: None,
                    question: None,
                    measured: false,
                };
                if self.processes.insert(*incarnation, process).is_some() {
                    return Err(format!("run {incarnation} was started twice"));
                }
            }
            Action::Signal { incarnation, signal, .. } => self.hear(*incarnation, *signal, dice)?,
            Action::Reread { incarnation, reread, .. } => {
                self.hear(*incarnation, reread.signal, dice)?;
            }
            Action::Kill { incarnation, .. } => {
                let process = self.alive(*incarnation)?;
                if process.temper != Temper::Stuck {
                    process.doom.get_or_insert(How::Signaled(Signal::KILL));
                }
            }
            Action::SendQuit { incarnation } | Action::CloseInput { incarnation } => {
                let process = self.alive(*incarnation)?;
                if process.temper == Temper::Polite {
                    let code = dice.pick(&[0, 1]);
                    process.doom.get_or_insert(How::Exited(code));
                }
            }
            Action::Probe { incarnation, number, .. } => {
                self.alive(*incarnation)?.question = Some(*number);
            }
            Action::Measure { incarnation } => self.alive(*incarnation)?.measured = true,
            Action::Sweep { incarnation, .. } => self.sweeps.push(*incarnation),
            Action::Record { .. }
            | Action::Changed { .. }
            | Action::Forget { .. }
            | Action::Overlapped { .. }
            | Action::Halted { .. }
            | Action::Persist
            | Action::Down => {}
        }
        Ok(())
    }

    /// A process hears a signal.
    fn hear(
        &mut self,
        incarnation: Incarnation,
        signal: Signal,
        dice: &mut Dice,
    ) -> Result<(), Impossible> {
        let process = self.alive(incarnation)?;
        let fatal = ![Signal::CONT, Signal::HUP].contains(&signal);
        let obeys = match process.temper {
            Temper::Polite | Temper::NeedsSignal => true,
            Temper::Stubborn => signal == Signal::KILL,
            Temper::Stuck => false,
        };
        if fatal && obeys {
            let exits = process.stage == Stage::Runs && signal != Signal::KILL && dice.one_in(2);
            let how = if exits { How::Exited(0) } else { How::Signaled(signal) };
            process.doom.get_or_insert(how);
        }
        Ok(())
    }

    /// The runs with which something will happen by itself.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = Incarnation> {
        let under_way = |process: &Process| {
            process.stage != Stage::Runs
                || process.unready
                || process.doom.is_some()
                || process.question.is_some()
                || process.measured
        };
        let processes = self.processes.iter().filter(move |(_, process)| under_way(process));
        processes.map(|(incarnation, _)| *incarnation).chain(self.sweeps.iter().copied())
    }

    /// A process that exists and has not ended.
    fn alive(&mut self, incarnation: Incarnation) -> Result<&mut Process, Impossible> {
        match self.processes.get_mut(&incarnation) {
            Some(process) if process.stage != Stage::Ordered => Ok(process),
            Some(_) => Err(format!("run {incarnation} does not exist yet")),
            None => Err(format!("run {incarnation} is over or never was")),
        }
    }

    /// A process ends now; its end is yet to be told.
    pub(crate) fn end(&mut self, incarnation: Incarnation, how: How, dice: &mut Dice) -> End {
        self.processes.remove(&incarnation);
        let ran = !matches!(how, How::NotStarted(..) | How::Unseen);
        End {
            how,
            oom: if ran && dice.one_in(4) {
                let ago = |seconds| Oom::Before(Duration::from_secs(seconds));
                dice.pick(&[Oom::Now, Oom::Now, ago(1), ago(5), ago(6)])
            } else {
                Oom::No
            },
            protocol_error: ran && dice.one_in(12),
            survivors: ran && dice.one_in(4),
            cpu_spent: ran && dice.one_in(8),
        }
    }
}
