//! The loop's dealings with ends: evidence, record, journal, reaping, and what was left behind.
//!
//! The order is fixed. A pidfd is readable; how it ended is peeked at without reaping; its pipes are
//! drained of what was in them; the supervisor decides; the record goes to the journal; when it is
//! there it is published and the process is reaped. A manager killed in between loses nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{End, Event, Verdict};
use crate::exit::{Cause, Decision, ExitRecord, How, Reason, RestartPart, Signal};
use crate::guardian::Word;
use crate::journal::{Filter, Reader};
use crate::name::{Incarnation, ReplicaId};
use crate::os::cgroup::Group;
use crate::os::input::Input;
use crate::os::live::Phase;
use crate::os::wait::{self, Ended};
use crate::os::{clock, mark, signal};
use crate::output;
use crate::spec::KillScope;
use crate::supervise;
use crate::time::Tick;

use super::LAST_WRITES;
use super::announce::Once;
use super::control::Control;
use super::disk::Done;
use super::published::What;
use super::record::{self, Facts};
use super::request::LastExit;
use super::run::{Keeping, Run};
use super::spawner::Answer;
use super::sweeper::{Report, Sweep, Swept};

/// A run whose record is on its way to the journal.
pub(super) struct Pending {
    replica: ReplicaId,
    pidfd: Option<OwnedFd>,
    /// Its slot in the table, unless an earlier life left none.
    slot: Option<usize>,
    /// Past this the end is told and the process reaped, record or not; `None` once that is done.
    deadline: Option<Tick>,
    /// Kept for the case that the disk does not answer in time.
    record: Arc<ExitRecord>,
    once: Once,
}

impl Pending {
    /// Whether its end has still to be told.
    pub(super) fn is_open(&self) -> bool {
        self.deadline.is_some()
    }

    /// Of which replica it was a run.
    pub(super) fn replica(&self) -> &ReplicaId {
        &self.replica
    }
}

/// How many of the journal's last records are looked at when a manager starts.
const RECALLED: usize = 2_000;

/// How long a manager that is done waits for those who listen to events.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long an end waits for its record to be written before it is told all the same.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

impl Control {
    /// A pidfd became readable.
    pub(super) fn process_ended(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if run.end.is_some() || run.ended.is_some() {
            return;
        }
        let Some(pidfd) = &run.pidfd else { return };
        let seen = if run.keeping == Keeping::TakenOver {
            // It would be told of again and again until its guardian tells the rest.
            self.stop_watching(incarnation);
            Ok(self.told_end(incarnation))
        } else {
            wait::peek(pidfd.as_fd())
        };
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(pidfd) = &run.pidfd else { return };
        let ended = match seen {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            Err(error) => {
                // Nobody else reaps; if the kernel says there is no such child, that is all we know.
                tracing::error!(%incarnation, %error, "cannot learn how a process ended");
                Ended::unseen(run.pid)
            }
        };
        let _ = self.poller.remove(pidfd.as_fd());
        let service = run.service.name.clone();
        self.measured_detection(&service);
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if run.landing.is_none() {
            // The word on how it started is still on its way, and comes first.
            run.ended = Some(ended);
        } else {
            self.finish(incarnation, ended);
        }
    }

    /// The end of a run whose start is known: evidence is taken and the supervisor told.
    pub(super) fn finish(&mut self, incarnation: Incarnation, ended: Ended) {
        // Where memory may have been why, the kernel's count is what tells.
        let Some(oom) = self.memory_at_end(incarnation, &ended) else { return };
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let how = match run.landing {
            Some(Answer::Failed { stage, errno, .. }) => How::NotStarted(stage, errno),
            _ => ended.how,
        };
        // Any later death of this manager still leaves the truth about this run in the table.
        self.table.slot(run.slot).keep_end(how, &ended.usage);
        self.drain(incarnation);
        self.end_questions(incarnation);
        self.close_notices(incarnation);
        let run = self.runs.get(&incarnation);
        let unread = run.and_then(|run| run.input.as_ref()).map_or(Some(0), Input::unread);
        self.end_exchange(incarnation, unread);
        self.finish_log(incarnation);
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if run.writing {
            run.set_writing(false, clock::now());
            if let Some(input) = &run.input {
                let _ = self.ports.remove(input.as_fd());
            }
        }
        run.input = None;
        run.end = Some(ended);
        // Without a control group only a look at every process can tell.
        let populated = run.populated();
        let mut survivors =
            run.service.stop.kill != KillScope::Process && populated.unwrap_or(true);
        let may_escape = run.service.stop.kill == KillScope::Tree && run.pid != 0;
        let spares = run.service.stop.kill == KillScope::Process && run.pid != 0;
        if populated == Some(true) {
            run.survivors = run.group.as_ref().map(Group::members).unwrap_or_default();
        }
        if spares && populated.unwrap_or(false) {
            run.evidence.push("what it started lives on: its stop_kill is process".to_owned());
        }
        let (replica, service) = (run.replica.clone(), Arc::clone(&run.service));
        let protocol_error = run.protocol_error.is_some();
        let cpu_spent = run.service.limits.is_cpu_spent(&ended.usage);
        survivors = survivors || may_escape && self.has_escaped(incarnation);
        let end = End { oom, protocol_error, survivors, cpu_spent, ..End::plain(how) };
        if spares && populated.unwrap_or(true) {
            self.look_for_spared(incarnation);
        }
        self.look_at_sockets_of(&replica, &service);
        self.feed(Event::Ended { incarnation, end });
    }

    /// Makes the record of a run and sends it to the journal.
    pub(super) fn write_record(
        &mut self,
        incarnation: Incarnation,
        replica: &ReplicaId,
        verdict: Verdict,
    ) {
        let run = self.runs.remove(&incarnation);
        if self.present.get(replica) == Some(&incarnation) {
            self.present.remove(replica);
        }
        let mut lost = Vec::new();
        let (record, pidfd, slot, forward) = if let Some(mut run) = run {
            lost = std::mem::take(&mut run.lost);
            self.linger(&mut run);
            self.measured_storage(&run);
            let record = self.judged(&mut run, verdict);
            if let Some(group) = run.group.take().filter(|_| self.shutting_down) {
                // Nothing follows, so it is not needed any more; and a thousand take a while.
                self.discarding += 1;
                self.sweeper.discard(group);
            }
            let forward = run.service.logging.forward.clone();
            (record, run.pidfd.take(), Some(run.slot), forward)
        } else {
            // A run of an earlier generation.
            let (record, slot) = self.inherited(incarnation, replica, verdict);
            let service = self.spec.services.get(&replica.service);
            let forward = service.map(|service| service.logging.forward.clone());
            (record, None, slot, forward.unwrap_or_default())
        };
        let record = Arc::new(record);
        self.remember(replica, &record);
        self.tell_lost(lost, &record);
        self.guests.ended(replica, &record);
        let held = self.held.entry(replica.clone()).or_default();
        held.ends += 1;
        // Ends are told in their order, by the disk thread: what this one ends is told right before it.
        let once = Once::new(forward, std::mem::take(&mut held.events));
        let deadline = clock::now() + RECORD_PATIENCE;
        self.record_deadlines.insert((deadline, incarnation));
        let pending = Pending {
            replica: replica.clone(),
            pidfd,
            slot,
            deadline: Some(deadline),
            record: Arc::clone(&record),
            once: once.clone(),
        };
        self.pending.insert(incarnation, pending);
        self.disk.record(record, once);
    }

    fn judged(&self, run: &mut Run, verdict: Verdict) -> ExitRecord {
        let uptime = verdict.started_at.map(|at| clock::now().since(at).as_secs_f64());
        let main = verdict.reason == Reason::OomKilled
            && verdict.how == How::Signaled(Signal::KILL)
            && verdict.stop.is_none();
        let facts = Facts {
            pid: (run.pid != 0).then_some(run.pid),
            created: (run.pid != 0).then_some(run.created),
            executable: run.executable.take().or_else(|| run.service.command.first().cloned()),
            usage: run.end.as_ref().map(|ended| ended.usage),
            uptime_s: uptime,
            port: run.port.take(),
            stderr_tail: run.tail.take(),
            evidence: std::mem::take(&mut run.evidence),
            oom: run.oom_part(main),
            survivors: std::mem::take(&mut run.survivors),
        };
        record::record(&self.origin, clock::wall(), &run.replica, run.incarnation, verdict, facts)
    }

    /// The record of a run of an earlier generation, from what its slot still says.
    fn inherited(
        &self,
        incarnation: Incarnation,
        replica: &ReplicaId,
        verdict: Verdict,
    ) -> (ExitRecord, Option<usize>) {
        let slot = self.table.used().find(|(_, slot)| slot.incarnation() == incarnation);
        let index = slot.as_ref().map(|(index, _)| *index);
        let mut facts = Facts::default();
        if let Some((_, slot)) = slot {
            if slot.kept().ran().is_some() {
                facts
                    .evidence
                    .push("it was to outlive the manager and could not be taken over".into());
            }
            facts.pid = slot.pid();
            facts.created = Some(slot.started());
            facts.usage = slot.kept_end().map(|(_, usage)| usage);
        }
        facts.evidence.push(if facts.usage.is_some() {
            "seen by the guardian; what it had written and nobody had read is lost".to_owned()
        } else {
            "nobody saw its end: neither guardian nor manager was alive".to_owned()
        });
        let record =
            record::record(&self.origin, clock::wall(), replica, incarnation, verdict, facts);
        (record, index)
    }

    /// Records runs of an earlier life that had a successor already.
    pub(super) fn superseded(&mut self, runs: Vec<(ReplicaId, Incarnation, End, Cause)>) {
        for (replica, incarnation, end, cause) in runs {
            let name = &replica.service;
            let service = self.spec.services.get(name).map(|service| &**service);
            let verdict = supervise::of_predecessor(name, service, &end, cause);
            self.write_record(incarnation, &replica, verdict);
        }
    }

    /// Writes what is still to be written and cleans up behind a manager that is done.
    pub(super) fn say_goodbye(&mut self, orderly: bool) {
        if orderly {
            tracing::info!("everything is down");
        }
        if !self.disk.close(LAST_WRITES) {
            tracing::error!("the disk does not answer; the last records may be missing");
        }
        while let Ok(done) = self.disk.done.try_recv() {
            self.disk_done(done);
        }
        self.sockets.end();
        self.end_hooks();
        if orderly {
            self.publish(What::ManagerStop);
            self.see_subscribers_off();
            self.discard_groups();
            if self.removes_socket {
                let _ = std::fs::remove_file(self.state.socket());
            }
            let _ = std::fs::remove_file(self.state.spool());
            let _ = std::fs::remove_file(self.state.notes());
            let _ = output::discard_unfinished(&self.state.output());
        }
        self.forward.close(LAST_WRITES);
        self.terminal.flush(LAST_WRITES);
    }

    /// Removes the control groups: the sweeper has begun with the first, so the last come first here.
    fn discard_groups(&mut self) {
        self.controllers.remove_groups(&[]);
        let Ok(root) = &self.cgroups else { return };
        root.groups().iter().rev().for_each(Group::remove);
        while self.discarding > 0 {
            match self.sweeper.reports.recv_timeout(LAST_WRITES) {
                Ok(Report::Discarded(count)) => self.discarding -= count,
                Ok(Report::Swept(_)) => {}
                Err(_) => break,
            }
        }
        root.remove();
    }

    /// Gives those who listen a moment to hear the last words.
    fn see_subscribers_off(&self) {
        if !self.announcer.is_heard() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        if let Ok(runtime) = runtime {
            let gone = async { tokio::time::timeout(LAST_WORDS, self.announcer.unheard()).await };
            let _ = runtime.block_on(gone);
        }
    }

    /// Learns the last end of each replica from the journal's newest records, for `ps` and `status`.
    /// What cannot be read is not missed: the journal itself is in use by now.
    pub(super) fn recall(&mut self) {
        let most =
            self.spec.services.values().map(|service| service.replicas as usize).sum::<usize>();
        let filter = Filter { last: Some((4 * most).clamp(100, RECALLED)), ..Filter::default() };
        let entries = Reader::open(&self.state.state).and_then(|reader| reader.entries(filter));
        for entry in entries.into_iter().flatten().flatten() {
            let service = &entry.record.service;
            if !self.spec.services.contains_key(&service.name) {
                continue;
            }
            let replica = ReplicaId { service: service.name.clone(), replica: service.replica };
            self.remember(&replica, &entry.record);
        }
    }

    /// Keeps the end for `ps` and `status`.
    fn remember(&mut self, replica: &ReplicaId, record: &ExitRecord) {
        let last = LastExit {
            ts: record.ts,
            incarnation: record.service.incarnation,
            reason: record.exit.reason,
            cause: record.exit.cause,
            code: record.process.exit.as_ref().map(|exit| exit.code),
            signal: record.exit.signal.map(|signal| signal.to_string()),
            msg: record.msg.clone(),
        };
        self.last.insert(replica.clone(), Arc::new(last));
        if let Some(exit_with) = &mut self.exit_with {
            exit_with.ended(replica, record);
        }
    }

    /// Takes what the disk thread has to tell.
    pub(super) fn disk_done(&mut self, done: Done) {
        match done {
            Done::Appended(runs) => {
                for incarnation in runs {
                    self.close_run(incarnation, true);
                }
                if self.health.journal.take().is_some() {
                    tracing::info!("the journal is written again; nothing was lost");
                    self.publish_health();
                }
                self.children_ended();
                self.settle();
            }
            Done::JournalFailed(error) => {
                self.health.journal_errors += 1;
                if self.health.journal.as_ref() != Some(&error) {
                    tracing::error!(%error, "exit records wait in memory: the journal cannot be written");
                    self.health.journal = Some(error);
                    self.publish_health();
                }
            }
            Done::Persisted(version, result) => self.persisted(version, result),
            Done::Room => self.output_room(),
            Done::Dropped { service, bytes, lines } => {
                self.measured_dropped(&service, lines);
                self.health.dropped += bytes;
            }
            Done::Failing(error) => {
                tracing::error!(%error, "program output cannot be written");
                self.health.output = Some(error);
                self.publish_health();
            }
            Done::Recovered => {
                if self.health.output.take().is_some() {
                    tracing::info!("program output is written again");
                    self.publish_health();
                }
            }
        }
    }

    /// The record is in the journal, or has been waited for long enough: the process is reaped, and
    /// what was held back until the end was told is told.
    fn close_run(&mut self, incarnation: Incarnation, written: bool) {
        let Some(pending) = self.pending.get_mut(&incarnation) else { return };
        let deadline = pending.deadline.take();
        let pidfd = pending.pidfd.take();
        let (replica, record) = (pending.replica.clone(), Arc::clone(&pending.record));
        if written {
            // Only now may the table forget the run.
            let slot = pending.slot;
            self.pending.remove(&incarnation);
            match slot {
                Some(slot) if self.holds_pipes(incarnation) => {
                    self.table.slot(slot).set_phase(Phase::Lingers);
                }
                Some(slot) => self.release(slot),
                None => {}
            }
            self.let_go(incarnation);
        } else {
            self.announcer.late_end(&pending.once, replica.clone(), &record);
        }
        if let Some(deadline) = deadline {
            self.record_deadlines.remove(&(deadline, incarnation));
            self.measured_exit(&record);
            self.guests.down(incarnation, &record);
            self.tell_restart(&replica, incarnation, &record.restart);
            self.fire_for_end(&replica, &record);
            self.release_held(&replica, &record);
        }
        match (pidfd, self.sweeping.get_mut(&incarnation)) {
            // While its survivors are searched for, its number must not be given to a stranger.
            (Some(pidfd), Some(sweeping)) => sweeping.1 = Some(pidfd),
            (Some(pidfd), None) => drop(wait::reap(pidfd.as_fd())),
            (None, _) => {}
        }
    }

    /// Whether what a kept run started, which is left alone, holds its pipes.
    pub(super) fn holds_pipes(&self, incarnation: Incarnation) -> bool {
        self.lingering.get(&incarnation).is_some_and(|one| one.slot.is_some())
    }

    /// What was decided upon an end that has been told.
    fn tell_restart(&self, replica: &ReplicaId, incarnation: Incarnation, restart: &RestartPart) {
        let replica = replica.clone();
        let (delay_s, attempt) = (restart.delay_s.unwrap_or(0.0), restart.attempt);
        match restart.decision {
            Decision::Restart => {
                self.publish(What::Restart { replica, incarnation, delay_s, attempt });
            }
            Decision::GaveUp => self.publish(What::GiveUp { replica, incarnation }),
            Decision::No | Decision::Stopped => {}
        }
    }

    /// An end of this replica has been told: after its last one, what waited for it is told too.
    fn release_held(&mut self, replica: &ReplicaId, record: &ExitRecord) {
        let Some(held) = self.held.get_mut(replica) else { return };
        held.ends -= 1;
        if held.ends == 0
            && let Some(held) = self.held.remove(replica)
        {
            self.fire_for_news(replica, &held.events, record);
            held.events.into_iter().for_each(|event| self.publish(event));
        }
    }

    /// Goes on without the disk where it has not answered in time.
    pub(super) fn overdue_records(&mut self, now: Tick) {
        let overdue = self.record_deadlines.iter().take_while(|(at, _)| *at <= now);
        let overdue: Vec<_> = overdue.map(|(_, incarnation)| *incarnation).collect();
        if overdue.is_empty() {
            return;
        }
        if self.health.journal.is_none() {
            let error = "the disk does not answer".to_owned();
            tracing::error!(%error, "exit records wait in memory");
            self.health.journal = Some(error);
            self.publish_health();
        }
        for incarnation in overdue {
            self.close_run(incarnation, false);
        }
    }

    pub(super) fn publish_health(&self) {
        self.publish(What::Degraded { what: self.degraded() });
    }

    /// Reaps orphans of programs that were given to this process. Runs have their own way: while one
    /// of them waits for its record, the kernel may show it first, and then orphans wait too.
    pub(super) fn children_ended(&mut self) {
        while let Ok(Some(_)) = self.children.take() {}
        let unreaped = self.pending.values().any(|pending| pending.pidfd.is_some());
        if unreaped || self.sweeping.values().any(|(_, pidfd)| pidfd.is_some()) {
            return;
        }
        while let Ok(Some(ended)) = wait::peek_any() {
            let is_run = self.runs.values().any(|run| self.process_of(run) == Some(ended.pid));
            let is_other = self.probes.execs.may_own(ended.pid) || self.hooks.may_own(ended.pid);
            if is_run || is_other {
                // Its pidfd tells in a moment.
                return;
            }
            let _ = wait::reap_pid(ended.pid);
        }
    }

    /// The process of a run. The spawner's word on a new one may be slower than its death: until
    /// then the table knows the number, which the kernel writes before the process takes a step.
    fn process_of(&self, run: &Run) -> Option<i32> {
        if run.pid == 0 { self.table.slot(run.slot).pid() } else { Some(run.pid) }
    }

    /// Sends a signal to a run.
    pub(super) fn send_signal(&mut self, incarnation: Incarnation, signal: Signal, group: bool) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        let Some(pidfd) = &run.pidfd else { return };
        if run.end.is_some() {
            return;
        }
        // The leader has not been reaped, so the group's number is still its own. A child that has
        // not come to opening its session yet has no group: then the process alone is meant.
        let to_group = group && signal::send_group(run.pid, signal).is_ok();
        if !to_group && let Err(error) = signal::send(pidfd.as_fd(), signal) {
            tracing::debug!(%incarnation, %signal, %error, "a signal found nobody");
        }
    }

    /// Kills a run.
    pub(super) fn kill(&mut self, incarnation: Incarnation, scope: KillScope) {
        if let Some(run) = self.runs.get(&incarnation)
            && let (KillScope::Tree, Some(group)) = (scope, &run.group)
        {
            self.killed_groups.insert(run.replica.clone());
            if let Err(error) = group.kill() {
                tracing::warn!(%incarnation, %error, "cannot kill a control group");
            }
        }
        self.send_signal(incarnation, Signal::KILL, scope != KillScope::Process);
    }

    /// Has the survivors of a run killed.
    pub(super) fn sweep(&mut self, incarnation: Incarnation, scope: KillScope) {
        // The record of the run is made after all actions, so the run is still here.
        let (pid, group, replica) = match self.runs.get(&incarnation) {
            Some(run) => (run.pid, run.group.clone(), Some(run.replica.clone())),
            None => (0, None, None),
        };
        if let Some(replica) = replica {
            self.killed_groups.insert(replica.clone());
            self.sweeping.insert(incarnation, (replica, None));
        }
        let group = group.filter(|_| scope == KillScope::Tree);
        let mark = mark::of(self.realm, incarnation);
        self.sweeper.ask(Sweep { incarnation, pid, scope, group, mark, spared: false });
    }

    /// Has looked for what a run leaves behind that is to be left alone: it is told, and lives on.
    fn look_for_spared(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        let (pid, group, replica) = (run.pid, run.group.clone(), run.replica.clone());
        if run.is_kept() {
            self.vault.say(Word::Spare, incarnation);
        }
        self.sweeping.insert(incarnation, (replica, None));
        let (scope, mark) = (KillScope::Tree, mark::of(self.realm, incarnation));
        self.sweeper.ask(Sweep { incarnation, pid, scope, group, mark, spared: true });
    }

    /// A sweep is done.
    pub(super) fn swept(&mut self, swept: &Swept) {
        let (replica, pidfd) = self.sweeping.remove(&swept.incarnation).unzip();
        if let Some(pidfd) = pidfd.flatten() {
            let _ = wait::reap(pidfd.as_fd());
            self.children_ended();
        }
        if !self.pending.contains_key(&swept.incarnation) {
            self.let_go(swept.incarnation);
        }
        if let Some(replica) = replica.filter(|_| {
            !(swept.killed.is_empty() && swept.left.is_empty() && swept.spared.is_empty())
        }) {
            tracing::info!(%replica, incarnation = %swept.incarnation, killed = ?swept.killed, left = ?swept.left,
                spared = ?swept.spared, "a run left something behind");
            self.publish(What::Cleaned {
                replica,
                incarnation: swept.incarnation,
                killed: swept.killed.clone().into(),
                left: swept.left.clone().into(),
                spared: swept.spared.clone().into(),
                exact: swept.exact,
            });
        }
        let (incarnation, stuck) = (swept.incarnation, !swept.left.is_empty());
        self.feed(Event::Swept { incarnation, stuck });
    }
}
