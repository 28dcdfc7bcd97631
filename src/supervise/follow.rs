//! What follows the end of a run: the record, the sweep, and what the restart policy says.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Action, End, Oom, Rest, Verdict};
use crate::exit::{Cause, Decision, How, Reason, RestartPart, Signal, Stage};
use crate::name::Incarnation;
use crate::spec::{KillScope, OnGiveUp, OnProtocolError, Policy};

use super::backoff;
use super::ladder::{After, Ending};
use super::machine::Phase::{self, Backoff, Down, Sweeping};
use super::machine::{Context, Fallout, Next, Run};
use super::replica::Replica;
use super::verdict::{self, Facts};
use super::view::LastEnd;

/// How long a sweep may take before the replica goes on without it.
pub const SWEEP_PATIENCE: Duration = Duration::from_secs(5);

impl Replica {
    /// A run is over: it is judged and recorded, and what follows is decided.
    pub(super) fn over(
        &mut self,
        cx: &mut Context<'_>,
        run: &Run,
        why: Option<&Ending>,
        end: &End,
    ) -> Phase {
        let was_long = |at| cx.now.since(at) >= self.service.restart.reset_after;
        // Who became as old as it may did not fail, however short that is.
        let was_old = why.is_some_and(|why| why.cause == Cause::MaxLifetime);
        if was_old || run.ready.is_some_and(was_long) {
            self.machine.row = 0;
        }
        // One that was to end as soon as nobody is in the way ended by itself, or had to be killed.
        let held = self.machine.held.take().map_or(After::Judge, |held| {
            self.machine.hold = held.hold;
            held.after
        });
        let after = match why {
            Some(why) if why.after != After::Judge => {
                self.machine.hold.clone_from(&why.hold);
                why.after
            }
            Some(_) | None => held,
        };
        let facts = Facts {
            service: &Arc::clone(&self.service),
            end,
            ending: why,
            signal: run.signal.as_deref(),
            past: None,
            now: cx.now,
        };
        self.record(cx, run, after, &facts)
    }

    /// A run of an earlier life of the manager is over. What died with the manager did not fail.
    pub(super) fn recover(
        &mut self,
        cx: &mut Context<'_>,
        incarnation: Incarnation,
        end: &End,
        cause: Cause,
    ) {
        // The manager's death closes its ends of all pipes as well. A port sees its input end and may
        // be quick enough to exit by itself before it is killed; a writer may die of its output.
        let with_manager = match end.how {
            How::Unseen => true,
            How::Signaled(Signal::KILL) => end.oom != Oom::Now,
            How::Signaled(signal) => signal == Signal::PIPE,
            How::Exited(_) => self.service.port.is_some(),
            How::Dumped(_) | How::NotStarted(..) => false,
        };
        let after = match (self.machine.wanted, with_manager) {
            (false, _) => After::Rest,
            (true, true) => After::Again,
            (true, false) => After::Judge,
        };
        let run = Run::ordered(incarnation, 0);
        let facts = Facts {
            service: &Arc::clone(&self.service),
            end,
            ending: None,
            signal: None,
            past: Some(cause),
            now: cx.now,
        };
        self.machine.phase = self.record(cx, &run, after, &facts);
        self.machine.since = cx.now;
    }

    fn record(
        &mut self,
        cx: &mut Context<'_>,
        run: &Run,
        after: After,
        facts: &Facts<'_>,
    ) -> Phase {
        let incarnation = run.incarnation;
        let how = facts.end.how;
        let mut judged = verdict::judge(facts);
        let (decision, delay, attempt, next) = match after {
            After::Rest => (Decision::Stopped, None, None, Next::Rest(Rest::Stopped)),
            After::GiveUp => (Decision::GaveUp, None, None, Next::Rest(Rest::Failed)),
            After::Again => (Decision::Restart, Some(Duration::ZERO), None, Next::Start(cx.now)),
            After::Judge => {
                let failed = facts.ending.is_some_and(Ending::is_failure);
                let told = (judged.reason, how, failed);
                match self.policy(cx, told, &mut judged.evidence) {
                    // Its time has come again meanwhile.
                    (Decision::No, .., Next::Rest(_)) if self.machine.due => {
                        (Decision::Restart, Some(Duration::ZERO), None, Next::Start(cx.now))
                    }
                    decided => decided,
                }
            }
        };
        let last = LastEnd { incarnation, how, reason: judged.reason, cause: judged.cause };
        self.machine.last = Some(last);
        cx.actions.push(Action::Record {
            incarnation,
            replica: self.id.clone(),
            verdict: Box::new(Verdict {
                how,
                reason: judged.reason,
                cause: judged.cause,
                requested_by: judged.by,
                stop: judged.stop,
                evidence: judged.evidence,
                certainty: judged.certainty,
                restart: RestartPart {
                    decision,
                    attempt,
                    delay_s: delay.map(|delay| delay.as_secs_f64()),
                },
                started_at: run.started,
            }),
        });
        let scope = self.service.stop.kill;
        self.adopt_next();
        if facts.end.survivors && scope != KillScope::Process {
            cx.actions.push(Action::Sweep { incarnation, scope });
            self.machine.deadline = Some(cx.now + SWEEP_PATIENCE);
            return Sweeping(incarnation, next);
        }
        self.go(cx, next)
    }

    /// What the restart policy says to an end, which may be a failure whatever the program says.
    fn policy(
        &mut self,
        cx: &mut Context<'_>,
        (reason, how, failed): (Reason, How, bool),
        evidence: &mut Vec<String>,
    ) -> (Decision, Option<Duration>, Option<u32>, Next) {
        let service = Arc::clone(&self.service);
        let restart = &service.restart;
        let success = !failed && verdict::is_success(reason, how, restart);
        let stays_broken = reason == Reason::ProtocolError
            && service
                .port
                .as_ref()
                .is_some_and(|port| port.on_protocol_error == OnProtocolError::Stop);
        let again = match restart.policy {
            Policy::No => false,
            Policy::Always | Policy::UnlessStopped => true,
            Policy::OnFailure => !success,
        };
        let passes = matches!(how, How::NotStarted(Stage::Exec, errno) if errno.may_pass());
        let never = restart.never_on.contains(&reason) && !passes;
        if stays_broken || never || !again {
            let rest = if success { Rest::Finished } else { Rest::Failed };
            if success {
                self.machine.row = 0;
            }
            return (Decision::No, None, None, Next::Rest(rest));
        }
        let given_up = (Decision::GaveUp, None, None, Next::Rest(Rest::Failed));
        let mut retry = None;
        if !self.machine.recent.allows(cx.now, restart.max_restarts, restart.within) {
            self.machine.recent.clear();
            evidence.push(format!(
                "more than {} restarts within {}",
                restart.max_restarts,
                crate::time::format_duration(restart.within)
            ));
            match restart.on_give_up {
                OnGiveUp::Stop => return given_up,
                OnGiveUp::Escalate => {
                    cx.fallout = Some(Fallout::GiveUp);
                    return given_up;
                }
                OnGiveUp::RetryEvery(wait) => retry = Some(wait),
            }
        }
        if self.is_one_too_many(cx, evidence) {
            return given_up;
        }
        match retry {
            Some(wait) => self.again(cx, |_, _| wait),
            None => self.again(cx, |row, chance| backoff::wait(restart, row, chance)),
        }
    }

    /// Whether a restart is more than the group allows. If not it counts there, once for all whom the
    /// strategy restarts with it.
    fn is_one_too_many(&mut self, cx: &mut Context<'_>, evidence: &mut Vec<String>) -> bool {
        let Some(team) = &mut cx.team else { return false };
        let (max, within) = (team.group.max_restarts, team.group.within);
        if team.recent.allows(cx.now, max, within) {
            cx.fallout = Some(Fallout::Restart);
            return false;
        }
        evidence.push(format!(
            "more than {max} restarts in the group {} within {}",
            team.name,
            crate::time::format_duration(within)
        ));
        self.machine.recent.clear();
        cx.fallout = Some(Fallout::GiveUp);
        true
    }

    /// A restart by the policy, which counts, after a wait that depends on the row and on chance.
    fn again(
        &mut self,
        cx: &mut Context<'_>,
        wait: impl FnOnce(u32, f64) -> Duration,
    ) -> (Decision, Option<Duration>, Option<u32>, Next) {
        let row = self.machine.row.saturating_add(1);
        self.machine.row = row;
        self.machine.restarts += 1;
        let wait = wait(row, cx.source.chance.draw());
        (Decision::Restart, Some(wait), Some(row), Next::Start(cx.now + wait))
    }

    pub(super) fn go(&mut self, cx: &mut Context<'_>, next: Next) -> Phase {
        match next {
            Next::Rest(rest) => Down(rest),
            Next::Start(at) if at <= cx.now => self.queue(cx),
            Next::Start(at) => {
                self.machine.deadline = Some(at);
                Backoff
            }
        }
    }
}
