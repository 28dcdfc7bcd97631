//! What the record of an end has to say, from what the world and the books know.

use std::time::Duration;

use wharf::event::{End, Oom, Rest, Verdict};
use wharf::exit::{Cause, Certainty, Decision, Errno, How, Reason, Signal, Stage};
use wharf::spec::{Eof, OnGiveUp, OnProtocolError, Policy, Service};
use wharf::time::Tick;

use super::book::{Book, Plan, Run, Then};
use super::oracles::{Fault, Oracle, Tally};
use super::relate::{Fallout, Team};
use super::watch::is_failure;

/// An end that has to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) end: End,
    /// The death of manager or guardian, for a run of an earlier life.
    pub(crate) past: Option<Cause>,
}

/// Compares a verdict with the truth and enters what follows into the book.
pub(crate) fn record(
    book: &mut Book,
    due: &Due,
    verdict: &Verdict,
    now: Tick,
    step: u64,
    team: Option<&mut Team>,
    t: &mut Tally,
) -> Result<Option<Fallout>, Fault> {
    let run = book.run.take();
    book.given_up = false;
    let service = run.as_ref().map_or_else(|| book.service.clone(), |run| run.service.clone());
    let reason = judge(run.as_ref(), &service, due, verdict, now, t)?;

    let started = run.as_ref().and_then(|run| run.started);
    t.hold(Oracle::UptimeIsTrue, verdict.started_at == started, || {
        format!("started at {started:?}, recorded {:?}", verdict.started_at)
    })?;
    let ready = run.as_ref().and_then(|run| run.ready);
    let old = verdict.cause == Cause::MaxLifetime;
    if old || ready.is_some_and(|at| now.since(at) >= service.restart.reset_after) {
        book.row = 0;
    }
    let with_manager = due.past.is_some()
        && match due.end.how {
            How::Unseen => true,
            How::Exited(_) => service.port.is_some(),
            How::Signaled(signal) => {
                signal == Signal::PIPE || signal == Signal::KILL && due.end.oom != Oom::Now
            }
            How::Dumped(_) | How::NotStarted(..) => false,
        };
    let then = match &run {
        Some(run) => {
            // What was to end when nobody is in the way is over before that.
            let held = run.held.as_ref().map_or(Then::Judge, |held| held.then);
            let asked = run.asked.as_ref().map(|asked| asked.then);
            asked.filter(|then| *then != Then::Judge).unwrap_or(held)
        }
        None if !book.wanted => Then::Rest,
        None if with_manager => Then::Again,
        None => Then::Judge,
    };
    let part = &verdict.restart;
    let mut fallout = None;
    match then {
        Then::GiveUp => {
            t.hold(Oracle::GroupEndsAsOne, part.decision == Decision::GaveUp, || {
                format!("decided {part:?} though its group is given up")
            })?;
            book.plan = Plan::Rest(Rest::Failed);
            book.given_up = true;
        }
        Then::Rest => {
            t.hold(Oracle::StoppedStays, part.decision == Decision::Stopped, || {
                format!("decided {part:?} though it is to stay down")
            })?;
            book.plan = Plan::Rest(Rest::Stopped);
        }
        Then::Again => {
            let oracle = match due.past {
                Some(_) => Oracle::ManagersDeathIsNoFailure,
                None if verdict.cause == Cause::ConfigChanged => Oracle::ChangedRunsAnew,
                None if verdict.cause == Cause::Replaced => Oracle::OverlapIsReplaced,
                None if verdict.cause == Cause::ManagerDied => Oracle::KeptOutOfStepIsRenewed,
                None if verdict.cause == Cause::MaxLifetime => Oracle::LifetimeIsBounded,
                None if verdict.cause == Cause::GroupStrategy => Oracle::GroupRestartsTogether,
                None if verdict.cause == Cause::DependencyStopped => Oracle::DependentsRestartToo,
                None => Oracle::RestartRunsAnew,
            };
            let at_once = part.decision == Decision::Restart && part.delay_s == Some(0.0);
            t.hold(oracle, at_once && part.attempt.is_none(), || {
                format!("decided {part:?} though a new run is wanted at once")
            })?;
            book.plan = Plan::Due(None, step);
        }
        Then::Judge => {
            let asked = run.as_ref().and_then(|run| run.asked.as_ref());
            let failed = asked.is_some_and(|asked| is_failure(asked.cause));
            fallout = policy(book, &service, (reason, failed), verdict, (now, step), team, t)?;
        }
    }
    let scope = service.stop.kill;
    if due.end.survivors && scope != wharf::spec::KillScope::Process {
        book.sweep_owed = Some(scope);
    }
    Ok(fallout)
}

/// Reason, cause, requester, certainty and ladder.
fn judge(
    run: Option<&Run>,
    service: &Service,
    due: &Due,
    verdict: &Verdict,
    now: Tick,
    t: &mut Tally,
) -> Result<Reason, Fault> {
    let end = &due.end;
    let asked = run.and_then(|run| run.asked.as_ref());
    let signal = run
        .and_then(|run| run.signal.as_ref())
        .filter(|(_, _, at)| now.since(*at) <= service.stop.grace);
    let ours = |signal_asked: Signal| {
        signal.is_some_and(|(sent, ..)| *sent == signal_asked)
            || run.is_some_and(|run| {
                run.steps.iter().any(|step| step.name == signal_asked.to_string())
            })
    };
    let broke = match asked {
        Some(asked) => asked.protocol,
        None => end.protocol_error,
    };
    let limits = [Signal::XCPU, Signal::XFSZ];
    let reason = match end.how {
        _ if broke => Reason::ProtocolError,
        _ if asked.is_some_and(|asked| asked.oom) => Reason::OomKilled,
        How::Exited(code) => {
            // The end of its input was the last step, and an error code is its way to end then.
            let last = run.and_then(|run| run.steps.last()).filter(|_| asked.is_some());
            let usual = service.port.as_ref().is_some_and(|port| port.eof == Eof::Error)
                && last.is_some_and(|step| step.rank == 1);
            let soon = match end.oom {
                Oom::No => false,
                Oom::Now => true,
                Oom::Before(ago) => ago <= Duration::from_secs(5),
            };
            if usual || service.restart.success_exit_codes.contains(&code) {
                Reason::Completed
            } else if soon && asked.is_none() && signal.is_none() {
                Reason::OomKilled
            } else {
                Reason::Failed
            }
        }
        How::Signaled(Signal::KILL) if end.oom == Oom::Now && !ours(Signal::KILL) => {
            Reason::OomKilled
        }
        How::Signaled(Signal::KILL) if end.cpu_spent && !ours(Signal::KILL) => {
            Reason::ResourceLimit
        }
        How::Signaled(by) | How::Dumped(by) if limits.contains(&by) && !ours(by) => {
            Reason::ResourceLimit
        }
        How::Signaled(_) => Reason::Signaled,
        How::Dumped(_) => Reason::CoreDumped,
        How::NotStarted(Stage::Exec, _) => Reason::ExecFailed,
        How::NotStarted(..) => Reason::SetupFailed,
        How::Unseen => Reason::Lost,
    };
    let whole = verdict.reason == reason && verdict.how == end.how;
    t.hold(Oracle::ReasonIsTrue, whole, || {
        format!("it was {reason} ({}), recorded {} ({})", end.how, verdict.reason, verdict.how)
    })?;

    let explained = matches!(end.how, How::NotStarted(..))
        || matches!(reason, Reason::ProtocolError | Reason::OomKilled | Reason::ResourceLimit);
    let (cause, by) = match (asked, due.past, signal) {
        (Some(asked), ..) => (asked.cause, asked.by.as_ref()),
        (None, Some(past), _) => (past, None),
        (None, None, _) if matches!(end.how, How::NotStarted(Stage::Deadline, _)) => {
            (Cause::StartTimeout, None)
        }
        (None, None, Some((_, by, _))) if !explained => (Cause::SignalRequested, Some(by)),
        (None, None, _) => (Cause::Spontaneous, None),
    };
    t.hold(Oracle::CauseIsTrue, verdict.cause == cause, || {
        format!("the cause was {cause}, recorded {}", verdict.cause)
    })?;
    let told = |begins: &str, goes_on: &str| {
        let told = |words: &String| words.starts_with(begins) && words.contains(goes_on);
        verdict.evidence.iter().any(told)
    };
    let named = match cause {
        Cause::DependencyStopped => {
            told("", " is restarted, and it with it") || told("", " is stopped with all")
        }
        Cause::GroupStrategy => told("the group ", " because of "),
        _ => true,
    };
    t.hold(Oracle::CauseIsTrue, named, || {
        format!("it does not say whose end it was: {:?}", verdict.evidence)
    })?;
    t.hold(Oracle::RequesterIsTrue, verdict.requested_by.as_ref() == by, || {
        format!("it was {by:?}, recorded {:?}", verdict.requested_by)
    })?;

    let died_of_it = signal.is_some_and(|(sent, ..)| end.how.signal() == Some(*sent));
    let doubtful = due.past.is_some()
        || cause == Cause::SignalRequested && !died_of_it
        || reason == Reason::ResourceLimit
        || reason == Reason::Signaled && end.oom == Oom::Now
        || reason == Reason::OomKilled && end.how.code().is_some() && asked.is_none();
    let certainty = match (reason, doubtful) {
        (Reason::Lost, _) => Certainty::Unknown,
        (_, true) => Certainty::Inferred,
        (_, false) => Certainty::Certain,
    };
    t.hold(Oracle::CertaintyIsTrue, verdict.certainty == certainty, || {
        format!("{certainty:?}, recorded {:?}", verdict.certainty)
    })?;

    let steps: Option<Vec<_>> =
        asked.and(run).map(|run| run.steps.iter().map(|step| step.name.clone()).collect());
    let told: Option<Vec<_>> =
        verdict.stop.as_ref().map(|stop| stop.steps.iter().map(|step| step.step.clone()).collect());
    let escalated = run.is_some_and(|run| run.is_killed() && run.steps.len() > 1);
    let took = asked.map(|asked| now.since(asked.at).as_secs_f64());
    let same = steps == told
        && verdict.stop.as_ref().is_none_or(|stop| stop.escalated == escalated)
        && verdict.stop.as_ref().map(|stop| stop.took_s) == took;
    t.hold(Oracle::StopPartIsTrue, same, || {
        format!("steps {steps:?}, escalated {escalated}, took {took:?}: {:?}", verdict.stop)
    })?;
    Ok(reason)
}

/// The restart policy, sentence by sentence.
fn policy(
    book: &mut Book,
    service: &Service,
    (reason, failed): (Reason, bool),
    verdict: &Verdict,
    (now, step): (Tick, u64),
    team: Option<&mut Team>,
    t: &mut Tally,
) -> Result<Option<Fallout>, Fault> {
    let restart = &service.restart;
    let part = &verdict.restart;
    let success = reason == Reason::Completed
        || ![Reason::OomKilled, Reason::ProtocolError].contains(&reason)
            && verdict
                .how
                .signal()
                .is_some_and(|signal| restart.success_signals.iter().any(|good| good.0 == signal));
    // The file was being written: it can be executed another time.
    let passes = verdict.how == How::NotStarted(Stage::Exec, Errno(26));
    let never = restart.never_on.contains(&reason) && !passes;
    let well = success && restart.policy == Policy::OnFailure && failed;
    if well && !never {
        let decided = part.decision != Decision::No;
        t.hold(Oracle::OwnEndsAreFailures, decided, || format!("decided {part:?}"))?;
    }
    let success = success && !failed;
    let rest = if success { Rest::Finished } else { Rest::Failed };
    let refuses =
        service.port.as_ref().is_some_and(|port| port.on_protocol_error == OnProtocolError::Stop);
    let silent = match restart.policy {
        Policy::No => Some(Oracle::PolicyDecides),
        Policy::OnFailure if success => Some(Oracle::PolicyDecides),
        _ if reason == Reason::ProtocolError && refuses => Some(Oracle::ProtocolErrorRests),
        _ if never => Some(Oracle::NeverOnRests),
        Policy::OnFailure | Policy::Always | Policy::UnlessStopped => None,
    };
    if silent.is_some() && book.due_again {
        let at_once = part.decision == Decision::Restart && part.delay_s == Some(0.0);
        t.hold(Oracle::OverlapIsQueued, at_once && part.attempt.is_none(), || {
            format!("decided {part:?} though its time has come again")
        })?;
        if success {
            book.row = 0;
        }
        book.plan = Plan::Due(None, step);
        return Ok(None);
    }
    if let Some(oracle) = silent {
        t.hold(oracle, part.decision == Decision::No && part.delay_s.is_none(), || {
            format!("decided {part:?} after {reason} with policy {:?}", restart.policy)
        })?;
        if success {
            book.row = 0;
        }
        book.plan = Plan::Rest(rest);
        return Ok(None);
    }
    let recent = book.recent.iter().filter(|at| now.since(**at) < restart.within).count();
    let exhausted = recent >= usize::try_from(restart.max_restarts).unwrap();
    let escalates = restart.on_give_up == OnGiveUp::Escalate;
    if exhausted && (restart.on_give_up == OnGiveUp::Stop || escalates) {
        t.hold(Oracle::LimitIsExact, part.decision == Decision::GaveUp, || {
            format!("decided {part:?} after {recent} restarts")
        })?;
        book.recent.clear();
        book.plan = Plan::Rest(Rest::Failed);
        return Ok(escalates.then_some(Fallout::GiveUp));
    }
    let mut fallout = None;
    if let Some(team) = team {
        let most = usize::try_from(team.group.max_restarts).unwrap();
        let (spent, within) = (team.spent(now), team.within());
        let one_too_many = spent >= most;
        t.hold(
            Oracle::GroupLimitIsExact,
            (part.decision == Decision::GaveUp) == one_too_many,
            || format!("decided {part:?} after {spent} of {most} restarts in {within:?}"),
        )?;
        if one_too_many {
            book.recent.clear();
            book.plan = Plan::Rest(Rest::Failed);
            return Ok(Some(Fallout::GiveUp));
        }
        team.recent.push(now);
        fallout = Some(Fallout::Restart);
    }
    t.hold(Oracle::LimitIsExact, part.decision != Decision::GaveUp, || {
        format!("gave up after only {recent} restarts")
    })?;
    t.hold(Oracle::PolicyDecides, part.decision == Decision::Restart, || {
        format!("decided {part:?} after {reason} with policy {:?}", restart.policy)
    })?;
    book.row += 1;
    book.restarts += 1;
    t.hold(Oracle::RowCounts, part.attempt == Some(book.row), || {
        format!("failure {} in a row, recorded {part:?}", book.row)
    })?;
    let wait = part.delay_s.unwrap_or(-1.0);
    if let (true, OnGiveUp::RetryEvery(every)) = (exhausted, restart.on_give_up) {
        book.recent.clear();
        t.hold(Oracle::RetryEvery, close(wait, every.as_secs_f64()), || {
            format!("tried again after {wait} s instead of {every:?}")
        })?;
    } else {
        book.recent.push(now);
        if book.row == 1 {
            t.hold(Oracle::FirstRestartAtOnce, wait == 0.0, || format!("waits {wait} s"))?;
        } else {
            let exponent = i32::try_from(book.row - 2).unwrap();
            let grown = restart.delay.as_secs_f64() * restart.factor.powi(exponent);
            let capped = grown.min(restart.max_delay.as_secs_f64());
            let low = capped * (1.0 - restart.jitter) - 1e-6;
            let high = capped * (1.0 + restart.jitter) + 1e-6;
            t.hold(Oracle::BackoffWithinBounds, (low..=high).contains(&wait), || {
                format!("waits {wait} s after failure {}, not {low} to {high}", book.row)
            })?;
        }
    }
    book.plan = if wait == 0.0 {
        Plan::Due(None, step)
    } else {
        Plan::At(now + Duration::from_secs_f64(wait))
    };
    Ok(fallout)
}

/// Whether two lengths of time are the same but for rounding.
pub(crate) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}
