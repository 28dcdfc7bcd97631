//! Memory that ran out: what the kernel counts in a run's group, and whom it killed.
//!
//! The kernel counts a kill before it sends it, so an end is judged by a count that is there already.
//! A kill that the program itself survives is told by an event of the group; the count is looked at
//! twice, a moment apart, so that the end of the program is not taken for that of a helper.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::event::{Event, Oom, State};
use crate::exit::{How, OomPart, Signal};
use crate::name::Incarnation;
use crate::os::cgroup::MemoryCount;
use crate::os::live::Memory;
use crate::os::wait::Ended;
use crate::os::{clock, procfs};
use crate::spec::HookEvent;
use crate::time::Tick;

use super::control::{Control, Kind};
use super::published::What;
use super::run::Run;

/// Between two looks at a count.
const LOOK: Duration = Duration::from_millis(20);
/// How long after the kernel's word, or after an end by `SIGKILL` at the limit, a count may lag behind.
const PATIENCE: Duration = Duration::from_millis(100);

/// A run's memory, as the kernel counts it.
#[derive(Debug)]
pub(super) struct Watched {
    count: MemoryCount,
    limit: u64,
    event: Option<OwnedFd>,
    /// The counts when the run was ordered.
    kills_before: u64,
    hits_before: u64,
    /// The count at the end: a successor's group may be made before the record is.
    kills_at_end: Option<u64>,
    /// Kills up to this count were of helpers, and have been told.
    told: u64,
    /// When that was told last.
    told_at: Option<Tick>,
    /// A count that is to be looked at again.
    seen: Option<u64>,
    /// Until when a count is looked for.
    until: Tick,
    /// The next look, as it stands in the loop's list.
    look: Option<Tick>,
    /// Whether the program has ended and its end waits for the count.
    is_last: bool,
}

impl Watched {
    /// With a limit in bytes, and from now on, or from where an earlier manager began to count and what
    /// it had told.
    pub(super) fn new(count: MemoryCount, limit: u64, before: Option<Memory>) -> Self {
        let now = |count: &MemoryCount| {
            let kills = count.kills().unwrap_or(0);
            let hits_before = count.hits().unwrap_or(0);
            Memory { kills_before: kills, hits_before, told: kills }
        };
        let Memory { kills_before, hits_before, told } = before.unwrap_or_else(|| now(&count));
        Self {
            event: None,
            kills_before,
            hits_before,
            kills_at_end: None,
            told,
            told_at: None,
            seen: None,
            until: Tick(0),
            look: None,
            is_last: false,
            count,
            limit,
        }
    }

    /// What the next manager has to know of it.
    pub(super) fn counted(&self) -> Memory {
        let Self { kills_before, hits_before, told, .. } = *self;
        Memory { kills_before, hits_before, told }
    }

    fn kills(&self) -> u64 {
        self.count.kills().unwrap_or(self.told).max(self.told)
    }

    /// What the record says of it, where anything was killed.
    pub(super) fn part(&self, main: bool) -> Option<OomPart> {
        let killed = self.kills_at_end.unwrap_or(self.told) - self.kills_before;
        (killed > 0).then(|| OomPart {
            killed,
            main,
            limit_bytes: self.limit,
            source: self.count.source().to_owned(),
        })
    }
}

impl Control {
    /// Has the kernel tell when memory runs out in a run's group. Without that a kill is still seen at
    /// the end.
    pub(super) fn watch_memory(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(memory) = &mut run.memory else { return };
        let token = Kind::Memory.token(incarnation);
        let watched = memory.count.watch().and_then(|event| {
            self.poller.add(event.as_fd(), token, memory.count.interest())?;
            Ok(event)
        });
        self.table.slot(run.slot).kept().set_memory(memory.counted());
        match watched {
            Ok(event) => memory.event = Some(event),
            Err(error) => {
                tracing::warn!(%incarnation, %error, "cannot hear when memory runs out");
            }
        }
    }

    /// The kernel says that memory ran out, or that something near it happened.
    pub(super) fn memory_told(&mut self, incarnation: Incarnation) {
        let Some(memory) = self.runs.get_mut(&incarnation).and_then(|run| run.memory.as_mut())
        else {
            return;
        };
        if let Some(event) = &memory.event {
            memory.count.heard(event);
        }
        memory.until = clock::now() + PATIENCE;
        if memory.look.is_none() && !memory.is_last {
            self.look_later(incarnation);
        }
    }

    fn look_later(&mut self, incarnation: Incarnation) {
        let Some(memory) = self.runs.get_mut(&incarnation).and_then(|run| run.memory.as_mut())
        else {
            return;
        };
        let at = clock::now() + LOOK;
        memory.look = Some(at);
        self.memory_looks.insert((at, incarnation));
    }

    /// Looks at the counts that are due.
    pub(super) fn look_at_memory(&mut self, now: Tick) {
        let due = self.memory_looks.iter().take_while(|(at, _)| *at <= now);
        for (at, incarnation) in due.copied().collect::<Vec<_>>() {
            self.memory_looks.remove(&(at, incarnation));
            let Some(run) = self.runs.get_mut(&incarnation) else { continue };
            let Some(memory) = &mut run.memory else { continue };
            memory.look = None;
            if memory.is_last {
                if let Some(ended) = run.ended.take() {
                    self.finish(incarnation, ended);
                }
            } else {
                self.look_at_helpers(incarnation, now);
            }
        }
    }

    /// Whether the kernel has killed something that the program survived.
    fn look_at_helpers(&mut self, incarnation: Incarnation, now: Tick) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(memory) = &mut run.memory else { return };
        if run.end.is_some() || run.ended.is_some() {
            return;
        }
        let kills = memory.kills();
        let lives = procfs::is_untouched(run.pid);
        if kills > memory.told && memory.seen == Some(kills) && lives {
            let killed = kills - memory.told;
            (memory.told, memory.told_at, memory.seen) = (kills, Some(now), None);
            self.table.slot(run.slot).kept().set_memory(memory.counted());
            let (replica, limit) = (run.replica.clone(), memory.limit);
            tracing::warn!(%replica, %incarnation, killed, limit, "memory ran out; the program itself lives on");
            self.measured_oom(&replica.service, killed);
            let what = What::Oom { replica: replica.clone(), incarnation, killed, limit };
            self.publish_of(&replica, what.clone());
            self.fire_for_event(HookEvent::OomKilled, &replica, what);
            self.feed(Event::OutOfMemory { incarnation });
        } else if kills > memory.told && lives {
            memory.seen = Some(kills);
            self.look_later(incarnation);
        } else if now < memory.until && lives {
            self.look_later(incarnation);
        }
        // Else it is dying itself, and its end tells.
    }

    /// What the kernel killed in the group of a run that has ended. `None`: its end waits a moment, for
    /// it was killed at its limit and the kernel has counted nothing.
    pub(super) fn memory_at_end(&mut self, incarnation: Incarnation, ended: &Ended) -> Option<Oom> {
        let Some(run) = self.runs.get_mut(&incarnation) else { return Some(Oom::No) };
        let Some(memory) = &mut run.memory else { return Some(Oom::No) };
        let now = clock::now();
        let kills = memory.kills();
        memory.kills_at_end = Some(kills);
        if kills > memory.told {
            let (service, killed) = (run.replica.service.clone(), kills - memory.told);
            self.measured_oom(&service, killed);
            return Some(Oom::Now);
        }
        let told = memory.told_at.map_or(Oom::No, |at| Oom::Before(now.since(at)));
        let killed = ended.how == How::Signaled(Signal::KILL);
        let at_limit = memory.count.hits().is_some_and(|hits| hits > memory.hits_before);
        let view = self.supervisor.view(&run.replica);
        let ours =
            view.is_some_and(|view| matches!(view.state, State::Stopping | State::Unkillable));
        if !memory.is_last {
            memory.until = now + PATIENCE;
        }
        if !killed || !at_limit || ours || now >= memory.until {
            return Some(told);
        }
        memory.is_last = true;
        if let Some(at) = memory.look.take() {
            self.memory_looks.remove(&(at, incarnation));
        }
        run.ended = Some(*ended);
        self.look_later(incarnation);
        None
    }
}

impl Run {
    /// What its record says of memory.
    pub(super) fn oom_part(&self, main: bool) -> Option<OomPart> {
        self.memory.as_ref().and_then(|memory| memory.part(main))
    }
}
