//! Another configuration reaches a replica: in place, with the next run, by a new run, or by a signal at which its
//! program reads its files again.

use std::sync::Arc;

use crate::event::{Action, Reread, Rest};
use crate::exit::Cause;
use crate::name::Requester;
use crate::spec::Service;

use super::hold::Held;
use super::ladder::{After, Ending};
use super::machine::Phase::{
    self, Backoff, Deferred, Down, Queued, Running, Starting, Stopping, Sweeping, Unkillable,
};
use super::machine::{Context, Input, Next, Run, Sent, Turn};
use super::replica::Replica;

impl Replica {
    /// Another configuration, which a run of the present one has to make room for.
    pub(super) fn changed(&mut self, cx: &mut Context<'_>, phase: Phase, by: &Requester) -> Phase {
        let after = if self.machine.wanted { After::Again } else { After::Rest };
        match phase {
            // What the clock starts, no configuration starts.
            same @ Down(Rest::Finished | Rest::Failed | Rest::Scheduled)
                if self.service.schedule.is_some() =>
            {
                same
            }
            Down(Rest::Finished | Rest::Failed | Rest::Scheduled) | Backoff
                if self.machine.wanted =>
            {
                self.queue(cx)
            }
            Deferred(retry) => Queued(Turn::Again(retry)),
            same @ (Starting(_) | Running(_)) if self.is_to_rest() => same,
            Starting(run) | Running(run) => {
                self.machine.held = None;
                let why = Ending::asked(Cause::ConfigChanged, by, cx.now, After::Again);
                self.stop(cx, run, why)
            }
            ending @ (Stopping(..) | Unkillable(..)) => ending.then(after),
            // It was leaving and stays after all: it waits for its time, as one that is new would.
            Sweeping(run, Next::Rest(Rest::Stopped))
                if self.machine.wanted && self.service.schedule.is_some() =>
            {
                Sweeping(run, Next::Rest(Rest::Scheduled))
            }
            same @ Sweeping(_, Next::Rest(_)) if self.service.schedule.is_some() => same,
            Sweeping(run, _) if self.machine.wanted => Sweeping(run, Next::Start(cx.now)),
            // What is stopped stays so, also where it rested already when that was wished.
            same @ (Down(_) | Queued(_) | Sweeping(..) | Backoff) => same,
        }
    }

    /// Whether it is to end as soon as nobody is in the way, and to stay down.
    pub(super) fn is_to_rest(&self) -> bool {
        let held = self.machine.held.as_ref();
        held.is_some_and(|held| matches!(held.after, After::Rest | After::GiveUp))
    }

    /// Whether a new run for the sake of others is nothing to it: it was stopped, and only waits for others to
    /// be down.
    pub(super) fn is_deaf_to(&self, wish: &Held) -> bool {
        matches!(wish.after, After::Again | After::Judge)
            && !self.machine.wanted
            && self.is_to_rest()
    }

    pub(super) fn adopt_next(&mut self) {
        if let Some(next) = self.next.take() {
            self.service = next;
        }
    }

    /// A configuration that takes effect in place. Another limit of restarts is a new allowance: what
    /// was forgotten under the old one cannot count under the new one.
    pub(super) fn take_over(&mut self, cx: &mut Context<'_>, service: &Arc<Service>) {
        let before = Arc::clone(&self.service);
        let present = self.next.as_mut().unwrap_or(&mut self.service);
        let (old, new) = (&present.restart, &service.restart);
        if (old.max_restarts, old.within) != (new.max_restarts, new.within) {
            self.machine.recent.clear();
        }
        *present = Arc::clone(service);
        let phase = std::mem::replace(&mut self.machine.phase, Backoff);
        self.machine.phase = match phase {
            Running(run) => self.watch_anew(cx, run, &before),
            same @ (Down(_) | Queued(_) | Deferred(_) | Starting(_) | Stopping(..)
            | Unkillable(..) | Sweeping(..) | Backoff) => same,
        };
        // What waited for its time waits for nothing where there is no schedule any more.
        let waits = matches!(
            self.machine.phase,
            Down(Rest::Scheduled) | Sweeping(_, Next::Rest(Rest::Scheduled))
        );
        if service.schedule.is_none() && waits {
            self.step(cx, Input::Start);
        }
    }

    /// A configuration that needs a new run, or a replica that comes back while it was leaving.
    /// It is another program: what the old one failed at does not count against it.
    pub(super) fn change(&mut self, cx: &mut Context<'_>, service: &Arc<Service>, by: &Requester) {
        self.change_later(service);
        self.step(cx, Input::Changed(by));
    }

    /// The same, except that the run goes on until something else ends it.
    pub(super) fn change_later(&mut self, service: &Arc<Service>) {
        match self.machine.phase {
            Starting(_) | Running(_) | Stopping(..) | Unkillable(..) => {
                self.next = Some(Arc::clone(service));
            }
            Down(_) | Queued(_) | Deferred(_) | Sweeping(..) | Backoff => {
                self.service = Arc::clone(service);
            }
        }
        self.machine.row = 0;
        self.machine.recent.clear();
    }

    /// Tells a program that is ready to read its files again. Should it end by that, it is as with any
    /// signal that somebody had sent.
    pub(super) fn tell(&self, cx: &mut Context<'_>, run: Run, reread: Box<Reread>) -> Run {
        let (signal, by) = (reread.signal, reread.by.clone());
        let (incarnation, replica) = (run.incarnation, self.id.clone());
        cx.actions.push(Action::Reread { incarnation, replica, reread });
        Run { signal: Some(Box::new(Sent { signal, by, at: cx.now })), ..run }
    }
}
