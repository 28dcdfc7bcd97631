//! One replica as a state machine: the table from (input, phase) to the next phase.
//!
//! It has one deadline, not timers. It never sees another replica: who may start when is the
//! [`Supervisor`](super::Supervisor)'s business.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Action, Rest};
use crate::exit::{Cause, Signal};
use crate::name::{ReplicaId, Requester};
use crate::spec::{OnOom, Overlap, Service};
use crate::time::Tick;

use super::hold::{Held, Hold};
use super::intensity::Intensity;
use super::ladder::{After, Climber, Ending, KILL_PATIENCE};
use super::machine::Phase::{
    self, Backoff, Deferred, Down, Queued, Running, Starting, Stopping, Sweeping, Unkillable,
};
use super::machine::{Context, Heard, Input, Machine, Next, Run, Sent, Turn};

/// The wait after the first deferral; it grows by as much with each further one.
const DEFERRAL: Duration = Duration::from_millis(100);
/// The longest wait after a deferral, in multiples of [`DEFERRAL`].
const LONGEST_DEFERRAL: u32 = 10;

/// One replica.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) id: ReplicaId,
    /// What the present run was started with, or the next one will be.
    pub(super) service: Arc<Service>,
    /// What the next run will be started with, where that is something else.
    pub(super) next: Option<Arc<Service>>,
    pub(super) machine: Machine,
}

impl Replica {
    /// A replica that rests, stopped, until it is told otherwise.
    pub(super) fn new(id: ReplicaId, service: Arc<Service>, now: Tick) -> Self {
        let machine = Machine {
            phase: Down(Rest::Stopped),
            deadline: None,
            since: now,
            wanted: false,
            leaving: false,
            left_behind: false,
            due: false,
            row: 0,
            restarts: 0,
            recent: Intensity::default(),
            last: None,
            hold: None,
            held: None,
        };
        Self { id, service, next: None, machine }
    }

    /// What can happen, and in which phases it means something. Every line names all phases: one
    /// that is added cannot be forgotten here.
    pub(super) fn step(&mut self, cx: &mut Context<'_>, input: Input<'_>) {
        let before = self.state();
        let kept = self.machine.hold.take().filter(|_| self.keeps_hold());
        let phase = std::mem::replace(&mut self.machine.phase, Backoff);
        self.machine.phase = match input {
            Input::Start => self.start(cx, phase),
            Input::Restart(by) => match phase {
                Starting(run) | Running(run) => {
                    self.machine.held = None;
                    let why = Ending::asked(Cause::RestartRequested, by, cx.now, After::Again);
                    self.stop(cx, run, why)
                }
                other @ (Down(_) | Queued(_) | Deferred(_) | Stopping(..) | Unkillable(..)
                | Sweeping(..) | Backoff) => self.start(cx, other),
            },
            Input::Stop(by) => match phase {
                Down(_) | Queued(_) | Deferred(_) | Backoff => Down(Rest::Stopped),
                Starting(run) | Running(run) => {
                    self.machine.held = None;
                    let why = Ending::asked(Cause::StopRequested, by, cx.now, After::Rest);
                    self.stop(cx, run, why)
                }
                ending @ (Stopping(..) | Unkillable(..)) => ending.then(After::Rest),
                Sweeping(run, _) => Sweeping(run, Next::Rest(Rest::Stopped)),
            },
            Input::End(cause, by) => match phase {
                Queued(_) | Deferred(_) | Backoff | Down(Rest::Scheduled) => Down(Rest::Stopped),
                Starting(run) | Running(run) => {
                    self.machine.held = None;
                    self.stop(cx, run, Ending::asked(cause, by, cx.now, After::Rest))
                }
                ending @ (Stopping(..) | Unkillable(..)) => ending.then(After::Rest),
                Sweeping(run, Next::Start(_) | Next::Rest(Rest::Scheduled)) => {
                    Sweeping(run, Next::Rest(Rest::Stopped))
                }
                same @ (Down(_) | Sweeping(_, Next::Rest(_))) => same,
            },
            Input::Yield(wish) => self.make_way(cx, phase, *wish),
            Input::Hold(wish) => match phase {
                same @ (Starting(_) | Running(_)) if self.is_deaf_to(&wish) => same,
                Starting(Run { started: Some(_), .. }) | Running(_) => {
                    self.machine.held = Some(wish);
                    phase
                }
                other @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff) => self.make_way(cx, other, *wish),
            },
            Input::LetGo => match phase {
                Starting(run) | Running(run) if self.machine.held.is_some() => {
                    let wish = self.machine.held.take().expect("it was looked at");
                    self.stop(cx, run, wish.ending(cx.now))
                }
                // It is being ended already, for another reason; what follows is as was wished.
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Running(_)
                | Stopping(..) | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Input::Hurry => match phase {
                Starting(run) | Running(run) if self.machine.held.is_some() => {
                    let wish = self.machine.held.take().expect("it was looked at");
                    let mut why = wish.ending(cx.now);
                    why.hurry(self.service.stop.kill);
                    self.stop(cx, run, why)
                }
                Stopping(run, mut why) if !why.is_killed() => {
                    why.hurry(self.service.stop.kill);
                    self.climb(cx, run, why)
                }
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Running(_)
                | Stopping(..) | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Input::Changed(by) => self.changed(cx, phase, by),
            Input::Reread(reread) => match phase {
                Running(run) => Running(self.tell(cx, run, reread)),
                // A program that is not ready may not listen to signals yet. One that does not run yet, and
                // would be ready as soon as it does, reads what stands there now.
                Starting(run) if self.service.awaits_ready() => {
                    Starting(Run { reread: Some(reread), ..run })
                }
                // There is no program that has read the files, or it is about to end.
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Input::Due(clock) => self.due(cx, phase, clock),
            Input::Signal(signal, by) => match phase {
                Starting(run) => Starting(signalled(cx, run, signal, by)),
                Running(run) => Running(signalled(cx, run, signal, by)),
                Stopping(run, why) => Stopping(signalled(cx, run, signal, by), why),
                Unkillable(run, why) => Unkillable(signalled(cx, run, signal, by), why),
                // There is no process that could hear it.
                same @ (Down(_) | Queued(_) | Deferred(_) | Sweeping(..) | Backoff) => same,
            },
            Input::Admit => match phase {
                Queued(turn) => self.spawn(cx, turn),
                same @ (Down(_) | Deferred(_) | Starting(_) | Running(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Input::Wake => match phase {
                Deferred(retry) => Queued(Turn::Again(retry)),
                same @ (Down(_) | Queued(_) | Starting(_) | Running(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Input::Heard(heard) => self.hear(cx, phase, heard),
            Input::Deadline => self.deadline(cx, phase),
        };
        if matches!(self.machine.phase, Down(_) | Queued(_) | Unkillable(..)) {
            self.machine.deadline = None;
        }
        if matches!(self.machine.phase, Down(_)) {
            self.machine.due = false;
        }
        if !self.keeps_hold() {
            self.machine.hold = None;
        } else if self.machine.hold.is_none() {
            self.machine.hold = kept;
        }
        if self.state() != before {
            self.machine.since = cx.now;
        }
    }

    /// Whether it is in a phase in which there can be something that keeps it from starting.
    fn keeps_hold(&self) -> bool {
        match self.machine.phase {
            Queued(_) | Down(Rest::Failed) | Sweeping(_, Next::Rest(Rest::Failed)) => true,
            Down(_) | Deferred(_) | Starting(_) | Running(_) | Stopping(..) | Unkillable(..)
            | Sweeping(..) | Backoff => false,
        }
    }

    /// Its run, if it has one, is to end; what else was to come of it comes to nothing where it is to stay
    /// down.
    fn make_way(&mut self, cx: &mut Context<'_>, phase: Phase, held: Held) -> Phase {
        let rest = match held.after {
            After::Rest => Some(Rest::Stopped),
            After::GiveUp => Some(Rest::Failed),
            After::Again | After::Judge => None,
        };
        match (phase, rest) {
            (same @ (Starting(_) | Running(_)), _) if self.is_deaf_to(&held) => same,
            (Starting(run) | Running(run), _) => {
                self.machine.held = None;
                self.stop(cx, run, held.ending(cx.now))
            }
            // What waits for its time is down with everything else; a group leaves it alone.
            (Down(Rest::Scheduled), Some(Rest::Stopped)) => Down(Rest::Stopped),
            (Sweeping(run, Next::Rest(Rest::Scheduled)), Some(Rest::Stopped)) => {
                Sweeping(run, Next::Rest(Rest::Stopped))
            }
            (Queued(_) | Deferred(_) | Backoff, Some(rest)) => {
                self.machine.hold = held.hold;
                Down(rest)
            }
            (Sweeping(run, Next::Start(_)), Some(rest)) => {
                self.machine.hold = held.hold;
                Sweeping(run, Next::Rest(rest))
            }
            // What an operator wants down is no part of what the group gives up.
            (Stopping(run, mut why), Some(_)) if why.after != After::Rest => {
                (why.after, why.hold) = (held.after, held.hold);
                Stopping(run, why)
            }
            (Unkillable(run, mut why), Some(_)) if why.after != After::Rest => {
                (why.after, why.hold) = (held.after, held.hold);
                Unkillable(run, why)
            }
            (
                same @ (Down(_) | Queued(_) | Deferred(_) | Stopping(..) | Unkillable(..)
                | Sweeping(..) | Backoff),
                _,
            ) => same,
        }
    }

    /// What the world says of the present run.
    fn hear(&mut self, cx: &mut Context<'_>, phase: Phase, heard: Heard) -> Phase {
        match heard {
            Heard::Spawned => match phase {
                Starting(run) => Starting(Run { spawned: true, ..run }),
                Stopping(run, why) | Unkillable(run, why) if !run.spawned => {
                    self.late(cx, Run { spawned: true, ..run }, why)
                }
                same @ (Down(_) | Queued(_) | Deferred(_) | Running(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Heard::Started => match phase {
                // Said twice.
                Starting(run) if run.started.is_some() => Starting(run),
                Starting(run) => {
                    let run = self.runs(cx, run);
                    if run.ready.is_some() { self.running(cx, run) } else { self.readying(cx, run) }
                }
                Stopping(run, why) | Unkillable(run, why) if !run.spawned => {
                    let run = self.runs(cx, run);
                    self.late(cx, run, why)
                }
                Stopping(run, why) => Stopping(self.runs(cx, run), why),
                Unkillable(run, why) => Unkillable(self.runs(cx, run), why),
                same
                @ (Down(_) | Queued(_) | Deferred(_) | Running(_) | Sweeping(..) | Backoff) => same,
            },
            Heard::Ready => match phase {
                Starting(run) if run.started.is_some() => {
                    self.running(cx, Run { ready: Some(cx.now), ..run })
                }
                // It is being ended, is ready already, or is not even known to run.
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Running(_)
                | Stopping(..) | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Heard::Lacking => match phase {
                Starting(run) if !run.spawned => {
                    self.adopt_next();
                    self.deferred(cx, &run)
                }
                Stopping(run, why) | Unkillable(run, why) if !run.spawned => {
                    self.adopt_next();
                    match why.after {
                        After::Judge => self.deferred(cx, &run),
                        After::Again => Queued(Turn::Again(run.retry())),
                        After::Rest => Down(Rest::Stopped),
                        After::GiveUp => {
                            self.machine.hold = why.hold;
                            Down(Rest::Failed)
                        }
                    }
                }
                // A process that exists lacked nothing.
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Running(_)
                | Stopping(..) | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Heard::Ended(end) => match phase {
                Starting(run) | Running(run) => self.over(cx, &run, None, &end),
                Stopping(run, why) | Unkillable(run, why) => self.over(cx, &run, Some(&why), &end),
                same @ (Down(_) | Queued(_) | Deferred(_) | Sweeping(..) | Backoff) => same,
            },
            Heard::Swept { stuck } => match phase {
                Sweeping(_, next) => {
                    self.machine.left_behind = stuck;
                    self.go(cx, next)
                }
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Running(_)
                | Stopping(..) | Unkillable(..) | Backoff) => same,
            },
            Heard::ProtocolError => match phase {
                Starting(run) | Running(run) => {
                    self.stop(cx, run, Ending::killed(Cause::Spontaneous, cx.now, true))
                }
                // It is being ended anyway, or is over.
                same @ (Down(_) | Queued(_) | Deferred(_) | Stopping(..) | Unkillable(..)
                | Sweeping(..) | Backoff) => same,
            },
            Heard::OutOfMemory => match phase {
                Starting(run) | Running(run) if self.service.limits.on_oom == OnOom::Kill => {
                    self.stop(cx, run, Ending::out_of_memory(cx.now))
                }
                // It lives on, is being ended anyway, or is over.
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Running(_)
                | Stopping(..) | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
            Heard::Probed { number, result } => match phase {
                Starting(run) => self.asked_ready(cx, run, number, result),
                Running(run) => self.asked_health(cx, run, number, result),
                // What was asked is of no interest any more.
                same @ (Down(_) | Queued(_) | Deferred(_) | Stopping(..) | Unkillable(..)
                | Sweeping(..) | Backoff) => same,
            },
            Heard::Said(said) => match phase {
                Starting(run) => self.said_unready(cx, run, said),
                Running(run) => self.said(cx, run, said),
                Stopping(run, why) => {
                    self.said_stopping(cx, &why, said);
                    Stopping(run, why)
                }
                // Nothing that it says helps it any more.
                same @ (Down(_) | Queued(_) | Deferred(_) | Unkillable(..) | Sweeping(..)
                | Backoff) => same,
            },
            Heard::Measured(bytes) => match phase {
                Running(run) => self.measured(cx, run, bytes),
                same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Stopping(..)
                | Unkillable(..) | Sweeping(..) | Backoff) => same,
            },
        }
    }

    /// The deadline has passed.
    fn deadline(&mut self, cx: &mut Context<'_>, phase: Phase) -> Phase {
        match phase {
            Deferred(retry) => Queued(Turn::Again(retry)),
            Starting(run) => self.still_unready(cx, run),
            Running(run) => self.look_after(cx, run),
            Stopping(run, why) if run.spawned => self.climb(cx, run, why),
            Stopping(run, why) => Unkillable(run, why),
            Sweeping(_, next) => {
                self.machine.left_behind = true;
                self.go(cx, next)
            }
            Backoff => self.queue(cx),
            // These have no deadline.
            same @ (Down(_) | Queued(_) | Unkillable(..)) => same,
        }
    }

    /// An operator wants it up.
    fn start(&mut self, cx: &mut Context<'_>, phase: Phase) -> Phase {
        match phase {
            Down(_) | Backoff => self.queue(cx),
            Deferred(retry) => Queued(Turn::Again(retry)),
            ending @ (Stopping(..) | Unkillable(..)) => ending.then(After::Again),
            Sweeping(run, _) => Sweeping(run, Next::Start(cx.now)),
            Running(run) => {
                self.machine.held = None;
                self.keep_running(run)
            }
            same @ (Queued(_) | Starting(_)) => {
                self.machine.held = None;
                same
            }
        }
    }

    /// The time of its schedule has come, and it is wanted.
    fn due(&mut self, cx: &mut Context<'_>, phase: Phase, clock: &Requester) -> Phase {
        let overlap = self.service.schedule.as_ref().map_or(Overlap::Skip, |own| own.overlap);
        match (phase, overlap) {
            (Down(Rest::Scheduled | Rest::Finished | Rest::Failed) | Backoff, _) => self.queue(cx),
            // It has ended; what it left behind is still being killed.
            (Sweeping(run, Next::Rest(_)), _) => Sweeping(run, Next::Start(cx.now)),
            (Starting(run) | Running(run), Overlap::Kill) => {
                self.machine.held = None;
                let why = Ending::asked(Cause::Replaced, clock, cx.now, After::Again);
                self.stop(cx, run, why)
            }
            (ending @ (Stopping(..) | Unkillable(..)), Overlap::Kill) => ending.then(After::Again),
            (same @ (Starting(_) | Running(_) | Stopping(..) | Unkillable(..)), Overlap::Queue)
                if !self.machine.due =>
            {
                self.machine.due = true;
                same
            }
            // It is about to start anyway, or another start may not wait.
            (
                same @ (Queued(_)
                | Deferred(_)
                | Starting(_)
                | Running(_)
                | Stopping(..)
                | Unkillable(..)
                | Sweeping(_, Next::Start(_))
                | Down(Rest::Stopped)),
                Overlap::Skip | Overlap::Queue | Overlap::Kill,
            ) => {
                cx.actions.push(Action::Overlapped { replica: self.id.clone() });
                same
            }
        }
    }

    /// Takes its place among those that wait to be started.
    pub(super) fn queue(&mut self, cx: &mut Context<'_>) -> Phase {
        self.adopt_next();
        Queued(cx.source.turn())
    }

    fn spawn(&mut self, cx: &mut Context<'_>, turn: Turn) -> Phase {
        let (incarnation, tries) = match turn {
            Turn::Again(retry) => (retry.incarnation, retry.tries),
            Turn::First(_) => (cx.source.incarnation(), 0),
        };
        self.machine.left_behind = false;
        self.machine.due = false;
        self.machine.deadline = Some(cx.now + self.service.start_timeout);
        cx.actions.push(Action::Spawn {
            incarnation,
            replica: self.id.clone(),
            service: Arc::clone(&self.service),
        });
        Starting(Run::ordered(incarnation, tries))
    }

    fn deferred(&mut self, cx: &Context<'_>, run: &Run) -> Phase {
        let retry = run.retry();
        self.machine.deadline = Some(cx.now + DEFERRAL * retry.tries.min(LONGEST_DEFERRAL));
        Deferred(retry)
    }

    /// The program of a run was seen to run, now or before.
    fn runs(&self, cx: &Context<'_>, run: Run) -> Run {
        let started = run.started.unwrap_or(cx.now);
        let ready = run.ready.or((!self.service.awaits_ready()).then_some(started));
        Run { spawned: true, started: Some(started), ready, ..run }
    }

    /// Begins to end a run. What does not exist yet is waited for, but not for long.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>, mut run: Run, why: Ending) -> Phase {
        run.care = None;
        self.machine.deadline = Some(cx.now + KILL_PATIENCE);
        self.climb(cx, run, Box::new(why))
    }

    /// A process that is to end has come to exist only now. If it took too long, asking is over.
    fn late(&mut self, cx: &mut Context<'_>, run: Run, mut why: Box<Ending>) -> Phase {
        if self.machine.deadline.is_none() {
            why.hurry(self.service.stop.kill);
        }
        self.climb(cx, run, why)
    }

    /// Goes on with the end of a run that another manager began.
    pub(super) fn stop_on(&mut self, cx: &mut Context<'_>, run: Run, why: Box<Ending>) -> Phase {
        self.climb(cx, run, why)
    }

    /// Takes the next step of the ladder, as soon as there is something to climb after.
    fn climb(&mut self, cx: &mut Context<'_>, run: Run, mut why: Box<Ending>) -> Phase {
        if !run.spawned {
            return Stopping(run, why);
        }
        let (runs, ready) = (run.started.is_some(), run.ready.is_some());
        let target = Climber { incarnation: run.incarnation, runs, ready };
        match why.climb(cx.now, &self.service, target, cx.actions) {
            Some(patience) => {
                self.machine.deadline = Some(cx.now + patience);
                Stopping(run, why)
            }
            None => Unkillable(run, why),
        }
    }

    /// Whether its program runs, and nobody has asked it to end.
    pub(super) fn runs_on(&self) -> bool {
        match &self.machine.phase {
            Starting(run) | Running(run) => run.started.is_some(),
            Down(_) | Queued(_) | Deferred(_) | Stopping(..) | Unkillable(..) | Sweeping(..)
            | Backoff => false,
        }
    }

    /// Whether it has a run that nobody has asked to end, and that is to end for no other reason.
    pub(super) fn has_run(&self) -> bool {
        self.machine.held.is_none() && matches!(self.machine.phase, Starting(_) | Running(_))
    }

    /// Whether its work is done.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.machine.phase, Down(Rest::Finished))
    }

    /// Whether it waits for its turn to start, or for something that has to be there first.
    pub(super) fn is_in_line(&self) -> bool {
        matches!(self.machine.phase, Queued(_))
    }

    /// What keeps it from starting while it is in line.
    pub(super) fn set_hold(&mut self, now: Tick, hold: Option<Hold>) {
        if self.machine.hold.as_deref() != hold.as_ref() {
            let before = self.state();
            self.machine.hold = hold.map(Box::new);
            if self.state() != before {
                self.machine.since = now;
            }
        }
    }

    /// The end that it waits for.
    pub(super) fn held(&self) -> Option<&Held> {
        self.machine.held.as_deref()
    }

    /// Whether its next run is that of another configuration.
    pub(super) fn has_news(&self) -> bool {
        self.next.is_some()
    }

    pub(super) fn set_wanted(&mut self, wanted: bool) {
        self.machine.wanted = wanted;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.machine.wanted
    }

    pub(super) fn set_leaving(&mut self, leaving: bool) {
        self.machine.leaving = leaving;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.machine.leaving
    }

    /// Whether nothing of it is left and it is no longer configured.
    pub(super) fn is_gone(&self) -> bool {
        self.machine.leaving && matches!(self.machine.phase, Down(_))
    }

    pub(super) fn set_row(&mut self, row: u32) {
        self.machine.row = row;
    }

    /// It is started at this time, as an earlier life had decided.
    pub(super) fn wait_until(&mut self, now: Tick, at: Tick) {
        self.machine.phase = Backoff;
        (self.machine.deadline, self.machine.since) = (Some(at), now);
    }

    pub(super) fn rest(&mut self, rest: Rest) {
        self.machine.phase = Down(rest);
    }
}

/// Sends an operator's signal and remembers who sent it. A process that does not exist yet hears
/// nothing.
fn signalled(cx: &mut Context<'_>, run: Run, signal: Signal, by: &Requester) -> Run {
    if !run.spawned {
        return run;
    }
    cx.actions.push(Action::Signal { incarnation: run.incarnation, signal, group: false });
    Run { signal: Some(Box::new(Sent { signal, by: by.clone(), at: cx.now })), ..run }
}

#[cfg(test)]
mod tests {
    use super::Replica;

    /// Thousands of replicas are nothing special; the shared service and names come on top once.
    #[test]
    fn a_replica_is_small() {
        let size = size_of::<Replica>();
        assert!(size <= 240, "{size} bytes");
    }
}
