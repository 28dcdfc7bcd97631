//! What is shown of a replica beside its state: since when, with which run, how the last one ended,
//! and what is left to it. It is derived from what was seen of the supervisor's actions and from the
//! books, never from the supervisor.

use wharf::event::{Action, Event, State};
use wharf::name::{Incarnation, ReplicaId};
use wharf::supervise::{LastEnd, View};
use wharf::time::Tick;

use super::book::{Book, Plan};
use super::history::Sim;
use super::oracles::{Fault, Oracle, Tally};

/// One replica as it was shown after the last step.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    state: State,
    since: Tick,
    last: Option<LastEnd>,
    /// What is being swept.
    swept: Option<Incarnation>,
    left_behind: bool,
}

impl Shown {
    fn new(view: &View) -> Self {
        Self { state: view.state, since: view.since, last: None, swept: None, left_behind: false }
    }

    /// What this step did to it.
    fn pass(&mut self, id: &ReplicaId, event: &Event, actions: &[Action], book: &Book) {
        let swept = book.sweeping.map(|(incarnation, _)| incarnation);
        if self.swept.is_some() && swept.is_none() {
            // Either the sweep was done, or it had its time.
            self.left_behind = !matches!(event, Event::Swept { stuck: false, .. });
        }
        self.swept = swept;
        for action in actions {
            match action {
                Action::Record { incarnation, replica, verdict } if replica == id => {
                    self.last = Some(LastEnd {
                        incarnation: *incarnation,
                        how: verdict.how,
                        reason: verdict.reason,
                        cause: verdict.cause,
                    });
                }
                Action::Spawn { replica, .. } if replica == id => self.left_behind = false,
                _ => {}
            }
        }
    }
}

impl Sim {
    /// Everything that is shown of each replica is so.
    pub(crate) fn all_is_true(
        &mut self,
        event: &Event,
        actions: &[Action],
        t: &mut Tally,
    ) -> Result<(), Fault> {
        let now = self.now;
        let views: Vec<_> = self.supervisor.views_and_budgets(now).collect();
        for name in ["a", "b", "c", "d"].map(|name| name.parse().unwrap()) {
            let there = views.iter().any(|(view, _)| view.replica.service == name);
            t.hold(Oracle::BeliefIsWorld, self.supervisor.has_replicas(&name) == there, || {
                format!("{name} has replicas: {there}")
            })?;
        }
        self.shown.retain(|id, _| views.iter().any(|(view, _)| view.replica == *id));
        for (view, budget) in views {
            let id = &view.replica;
            let Some(book) = self.books.get(id) else { continue };
            let shown = self.shown.entry(id.clone()).or_insert_with(|| Shown::new(&view));
            shown.pass(id, event, actions, book);
            // It may have been elsewhere and have come back within one step.
            let stood = view.state == shown.state && view.since == shown.since;
            (shown.state, shown.since) = (view.state, view.since);
            let mut agrees = |what: &str, holds: bool| {
                t.hold(Oracle::BeliefIsWorld, holds, || {
                    format!("{what} of {id} is not {view:?}; {shown:?} {book:?}")
                })
            };
            agrees("the time", stood || view.since == now)?;
            agrees("the last end", view.last == shown.last)?;
            agrees("what was left behind", view.left_behind == shown.left_behind)?;
            let run = book.run.as_ref();
            agrees("the start", view.started_at == run.and_then(|run| run.started))?;
            let rest = match book.plan {
                Plan::Rest(rest) if book.is_empty() => Some(rest),
                Plan::Rest(_) | Plan::At(_) | Plan::Due(..) | Plan::Deferred(..) => None,
            };
            agrees("the rest", view.rest == rest)?;
            // That of a run which has to make room is still the old one's.
            let restart = match run {
                Some(run) if run.outdated => continue,
                Some(_) | None => &book.service.restart,
            };
            let spent = book.recent.iter().filter(|at| now.since(**at) < restart.within).count();
            let left = usize::try_from(restart.max_restarts).unwrap().saturating_sub(spent);
            agrees("the allowance", usize::try_from(budget).unwrap() == left)?;
        }
        Ok(())
    }
}
