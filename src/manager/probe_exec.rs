//! Questions that are programs: made by the spawner like every process, each in a session of its own
//! and, where there are control groups, in a group of its own, so that it can be killed with all it
//! started: when its time is up, and when it has ended.
//!
//! They are no runs: they have no exit record and no place in the journal. [`AT_ONCE`] are executed at
//! the same time, the others wait in line; a run has one at most, also where one cannot be killed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::exit::{How, Signal};
use crate::name::{Incarnation, ReplicaId};
use crate::os::cgroup::Group;
use crate::os::epoll::Interest;
use crate::os::{clock, fds, signal, wait};
use crate::probe::{KEPT, Outcome, late};
use crate::spec::Service;
use crate::time::Tick;

use super::control::Control;
use super::launch::{self, Order};
use super::spawner::{self, Answer, Wiring};

/// So many are executed at once.
const AT_ONCE: usize = 16;
/// What is not gone this long after it was killed does not hold up the others.
const STUCK: Duration = Duration::from_secs(5);
/// So much is read of what one writes; then it waits with a full pipe until its time is up.
const READ: usize = 4 << 20;
/// How much of the last line is told with a failure.
const SHOWN: usize = 200;
/// How long orphans of questions may live where only a look at every process finds them.
const SWEEP: Duration = Duration::from_secs(1);
/// The mark of its processes.
pub(super) const MARK: &str = "WHARF_PROBE";

/// What tells the numbers of questions from those of runs, which never come that far: in what the
/// spawner is asked and answers …
pub(super) const NUMBER: u64 = 1 << 61;
/// … and among the poller's tokens.
pub(super) const TOKEN: u64 = 1 << 62;

/// One question.
struct Exec {
    run: Incarnation,
    number: u64,
    replica: ReplicaId,
    timeout: Duration,
    /// When its time is up; after that, when it counts as stuck.
    deadline: Tick,
    /// 0 until there is a process.
    pid: i32,
    pidfd: Option<OwnedFd>,
    output: Option<OwnedFd>,
    group: Option<Group>,
    said: Written,
    /// Why it could not be executed.
    unable: Option<String>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its answer is waited for.
    Asked,
    /// It has been killed; nobody waits for its answer.
    Killed,
    /// It was killed long ago and is still there.
    Stuck,
}

/// One that waits for its turn.
struct Waiting {
    run: Incarnation,
    number: u64,
    service: Arc<Service>,
    command: Vec<String>,
    timeout: Duration,
}

/// All questions that are programs.
#[derive(Default)]
pub(super) struct Execs {
    line: VecDeque<Waiting>,
    under_way: HashMap<u64, Exec>,
    /// Of which runs.
    runs: HashSet<Incarnation>,
    deadlines: BTreeSet<(Tick, u64)>,
    next: u64,
    /// Groups that could not be removed yet.
    dying: Vec<Group>,
    /// The marks of those that have ended since the last look, where there are no control groups.
    ended: Vec<String>,
    sweep_at: Option<Tick>,
}

impl Execs {
    /// When something is due.
    pub(super) fn due(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at).into_iter().chain(self.sweep_at).min()
    }

    /// Whether this child may be one of them: then its end is theirs to see.
    pub(super) fn may_own(&self, pid: i32) -> bool {
        self.under_way.values().any(|exec| exec.pid == pid || exec.pid == 0)
    }

    fn busy(&self) -> usize {
        self.under_way.values().filter(|exec| exec.stage != Stage::Stuck).count()
    }

    fn remove(&mut self, id: u64) -> Option<Exec> {
        let exec = self.under_way.remove(&id)?;
        self.deadlines.remove(&(exec.deadline, id));
        self.runs.remove(&exec.run);
        Some(exec)
    }

    fn set_deadline(&mut self, id: u64, at: Tick) {
        if let Some(exec) = self.under_way.get_mut(&id) {
            self.deadlines.remove(&(exec.deadline, id));
            exec.deadline = at;
            self.deadlines.insert((at, id));
        }
    }
}

/// What a token of the poller is about: which question, and whether its output.
fn of_token(token: u64) -> (u64, bool) {
    ((token & !TOKEN) >> 1, token & 1 == 1)
}

fn token(id: u64, is_output: bool) -> u64 {
    TOKEN | id << 1 | u64::from(is_output)
}

/// Whether the spawner speaks of a question.
pub(super) fn is_question(incarnation: Incarnation) -> bool {
    incarnation.0 & NUMBER != 0
}

impl Control {
    /// Executes a question, when it is its turn.
    pub(super) fn ask_by_exec(
        &mut self,
        run: Incarnation,
        number: u64,
        service: &Arc<Service>,
        command: &[String],
        timeout: Duration,
    ) {
        let (service, command) = (Arc::clone(service), command.to_vec());
        if self.probes.execs.runs.contains(&run) {
            let outcome: Outcome = Err("the last one was killed and is still there".into()).into();
            return self.probed(run, number, outcome);
        }
        self.probes.execs.runs.insert(run);
        self.probes.execs.line.push_back(Waiting { run, number, service, command, timeout });
        self.execute_next();
    }

    /// Executes those whose turn it is.
    fn execute_next(&mut self) {
        while self.probes.execs.busy() < AT_ONCE
            && let Some(waiting) = self.probes.execs.line.pop_front()
        {
            let (run, number) = (waiting.run, waiting.number);
            if let Err(outcome) = self.execute(waiting) {
                self.probes.execs.runs.remove(&run);
                if let Some(outcome) = outcome {
                    self.probed(run, number, outcome);
                }
            }
        }
    }

    /// Hands one to the spawner. Nothing is said of a run that is over, and of a spawner that has no
    /// room: that question is asked again.
    fn execute(&mut self, waiting: Waiting) -> Result<(), Option<Outcome>> {
        let Waiting { run: incarnation, number, service, command, timeout } = waiting;
        let run = self.runs.get(&incarnation).filter(|run| run.end.is_none()).ok_or(None)?;
        self.probes.execs.next += 1;
        let id = self.probes.execs.next;
        let (replica, identity) = (run.replica.clone(), run.identity.clone());
        let group = self.cgroups.as_ref().ok().and_then(|root| {
            root.group(&format!("{}.{}.probe-{id}", replica.service, replica.replica)).ok()
        });
        // It is given none of the descriptors that the program is.
        let asked = Service {
            command,
            port: None,
            listen: Vec::new(),
            secrets: Vec::new(),
            ..(*service).clone()
        };
        let procs = group.as_ref().map(Group::procs);
        let order = Order {
            service: &asked,
            replica: &replica,
            incarnation,
            identity,
            // A group of its own is a new one each time, so that it never was killed.
            cgroup: procs.as_deref().map(|procs| (procs, self.make_inside)),
            entered: &[],
            pid_cell: None,
            more: vec![(MARK, self.mark(id))],
        };
        let prepared = launch::prepare(&self.surroundings, order);
        let launch = prepared.map_err(|refusal| {
            let why = How::NotStarted(refusal.stage, refusal.errno).to_string();
            Some(Outcome::from(Err(why.into())))
        });
        let sent = launch.and_then(|launch| {
            let request = spawner::Request {
                incarnation: Incarnation(NUMBER | id),
                launch,
                wiring: Wiring::Question,
                owner: None,
                ready_fd: None,
                kept: false,
                handed: spawner::Handed::default(),
            };
            self.spawner.try_send(request).map_err(|_| None)
        });
        if let Err(outcome) = sent {
            if let Some(group) = group {
                group.remove();
            }
            return Err(outcome);
        }
        self.bell.wake();
        let deadline = clock::now() + timeout;
        let exec = Exec {
            run: incarnation,
            number,
            replica,
            timeout,
            deadline,
            pid: 0,
            pidfd: None,
            output: None,
            group,
            said: Written::default(),
            unable: None,
            stage: Stage::Asked,
        };
        self.probes.execs.under_way.insert(id, exec);
        self.probes.execs.deadlines.insert((deadline, id));
        Ok(())
    }

    /// The mark of a question: no other life of this manager, and no other manager, uses it.
    fn mark(&self, id: u64) -> String {
        format!("{}-{}-{id}", self.realm, self.origin.generation.0)
    }

    /// The spawner has something to say of a question.
    pub(super) fn question_answered(
        &mut self,
        incarnation: Incarnation,
        answer: Answer,
        received: fds::Received,
    ) {
        let id = incarnation.0 & !NUMBER;
        let Some(exec) = self.probes.execs.under_way.get_mut(&id) else { return };
        match answer {
            Answer::Spawned { pid } => {
                let mut arrived = received.fds.into_iter();
                (exec.pid, exec.pidfd, exec.output) = (pid, arrived.next(), arrived.next());
                let watched = [(&exec.pidfd, false), (&exec.output, true)];
                for (fd, is_output) in watched {
                    let Some(fd) = fd else { continue };
                    let token = token(id, is_output);
                    if let Err(error) = self.poller.add(fd.as_fd(), token, Interest::Read) {
                        tracing::error!(%error, "cannot watch a health check");
                    }
                }
                if exec.pidfd.is_none() {
                    // The kernel had no descriptor left for us: it is undone.
                    let _ = signal::send_pid(pid, Signal::KILL);
                    self.abandon(id);
                } else if exec.stage != Stage::Asked {
                    self.kill_question(id);
                }
            }
            Answer::Refused { stage, errno } => {
                let why = How::NotStarted(stage, errno).to_string();
                if let Some(exec) = self.abandon(id).filter(|exec| exec.stage == Stage::Asked)
                    && !super::start::is_lack(errno)
                {
                    self.probed(exec.run, exec.number, Outcome::from(Err(why.into())));
                }
            }
            Answer::Failed { stage, errno, .. } => {
                exec.unable = Some(How::NotStarted(stage, errno).to_string());
            }
            Answer::Executed | Answer::Died => {}
        }
    }

    /// One is over without a process.
    fn abandon(&mut self, id: u64) -> Option<Exec> {
        let exec = self.probes.execs.remove(id)?;
        self.dispose(exec.group.clone());
        self.children_ended();
        self.execute_next();
        Some(exec)
    }

    /// A descriptor of a question is ready.
    pub(super) fn question_ready(&mut self, token: u64) {
        let (id, is_output) = of_token(token);
        if is_output { self.read_question(id) } else { self.question_ended(id) }
    }

    fn read_question(&mut self, id: u64) {
        let Some(exec) = self.probes.execs.under_way.get_mut(&id) else { return };
        let Some(output) = &exec.output else { return };
        let count = fds::read(output.as_fd(), &mut self.buffer);
        if let Err(error) = &count
            && error.kind() == std::io::ErrorKind::WouldBlock
        {
            return;
        }
        let count = count.unwrap_or(0);
        exec.said.keep(&self.buffer[..count]);
        if count == 0 || exec.said.count >= READ {
            let _ = self.poller.remove(output.as_fd());
            if count == 0 {
                exec.output = None;
            }
        }
    }

    /// The process of a question ended: with it ends all that it started.
    fn question_ended(&mut self, id: u64) {
        let Some(exec) = self.probes.execs.under_way.get_mut(&id) else { return };
        let Some(pidfd) = &exec.pidfd else { return };
        let how = match wait::peek(pidfd.as_fd()) {
            Ok(Some(ended)) => ended.how,
            Ok(None) => return,
            Err(_) => How::Unseen,
        };
        let _ = self.poller.remove(pidfd.as_fd());
        if let Some(output) = &exec.output {
            // What it had written by now, and not what a survivor goes on to write.
            let mut left = fds::unread(output.as_fd()).unwrap_or(0);
            while left > 0 {
                let most = left.min(self.buffer.len());
                let read = fds::read(output.as_fd(), &mut self.buffer[..most]);
                let Some(count) = read.ok().filter(|count| *count > 0) else { break };
                exec.said.keep(&self.buffer[..count]);
                left -= count;
            }
            let _ = self.poller.remove(output.as_fd());
        }
        self.kill_question(id);
        let Some(exec) = self.probes.execs.remove(id) else { return };
        if let Some(pidfd) = &exec.pidfd {
            let _ = wait::reap(pidfd.as_fd());
        }
        if self.cgroups.is_err() {
            let mark = self.mark(id);
            let execs = &mut self.probes.execs;
            execs.ended.push(mark);
            execs.sweep_at.get_or_insert(clock::now() + SWEEP);
        }
        self.dispose(exec.group.clone());
        self.children_ended();
        self.execute_next();
        if exec.stage == Stage::Asked {
            self.probed(exec.run, exec.number, exec.outcome(how));
        }
    }

    /// Kills a question's process with all it started, as far as that can be seen from here.
    fn kill_question(&mut self, id: u64) {
        let Some(exec) = self.probes.execs.under_way.get(&id) else { return };
        if let Some(group) = exec.group.as_ref().filter(|group| group.populated().unwrap_or(true))
            && let Err(error) = group.kill()
        {
            tracing::warn!(replica = %exec.replica, %error, "cannot kill a health check's control group");
        }
        if exec.pid != 0 {
            // Its process has not been reaped, so that the number of its session is its own.
            let _ = signal::send_group(exec.pid, Signal::KILL);
        }
        if let Some(pidfd) = &exec.pidfd {
            let _ = signal::send(pidfd.as_fd(), Signal::KILL);
        }
    }

    /// Removes groups that are needed no more, as soon as they are empty.
    fn dispose(&mut self, group: Option<Group>) {
        let dying = &mut self.probes.execs.dying;
        dying.extend(group);
        dying.retain(|group| !group.remove_if_empty());
    }

    /// What is due of the questions.
    pub(super) fn questions_due(&mut self, now: Tick) {
        let due = self.probes.execs.deadlines.iter().take_while(|(at, _)| *at <= now);
        for (_, id) in due.copied().collect::<Vec<_>>() {
            self.question_late(id, now);
        }
        if self.probes.execs.sweep_at.is_some_and(|at| at <= now) {
            let execs = &mut self.probes.execs;
            execs.sweep_at = None;
            let marks = std::mem::take(&mut execs.ended);
            self.sweep_probes(MARK, marks);
        }
    }

    /// The time of one is up, or it is still there after it was killed.
    fn question_late(&mut self, id: u64, now: Tick) {
        let Some(exec) = self.probes.execs.under_way.get_mut(&id) else { return };
        let (run, number, stage) = (exec.run, exec.number, exec.stage);
        match stage {
            Stage::Asked => {
                exec.stage = Stage::Killed;
                let outcome = exec.late();
                self.probes.execs.set_deadline(id, now + STUCK);
                self.kill_question(id);
                self.probed(run, number, outcome);
            }
            Stage::Killed => {
                tracing::warn!(replica = %exec.replica, pid = exec.pid, "a health check cannot be killed");
                exec.stage = Stage::Stuck;
                self.probes.execs.deadlines.remove(&(exec.deadline, id));
                self.execute_next();
            }
            Stage::Stuck => {}
        }
    }

    /// A run ended: what was asked of it is of no interest any more.
    pub(super) fn end_questions(&mut self, run: Incarnation) {
        let execs = &mut self.probes.execs;
        if !execs.runs.contains(&run) {
            return;
        }
        if let Some(at) = execs.line.iter().position(|waiting| waiting.run == run) {
            execs.line.remove(at);
            execs.runs.remove(&run);
            return;
        }
        let found = execs.under_way.iter_mut().find(|(_, exec)| exec.run == run);
        if let Some((id, exec)) = found.filter(|(_, exec)| exec.stage == Stage::Asked) {
            let id = *id;
            exec.stage = Stage::Killed;
            execs.set_deadline(id, clock::now() + STUCK);
            self.kill_question(id);
        }
    }
}

/// What a question wrote.
#[derive(Debug, Default)]
struct Written {
    /// The last of it.
    last: Vec<u8>,
    /// How much it was.
    count: usize,
}

impl Written {
    fn keep(&mut self, bytes: &[u8]) {
        self.count += bytes.len();
        let new = &bytes[bytes.len().saturating_sub(KEPT)..];
        let keep = KEPT - new.len();
        let drop = self.last.len().saturating_sub(keep);
        self.last.drain(..drop);
        self.last.extend_from_slice(new);
    }

    /// Its last line, behind a colon.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.last);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let line: String =
            line.unwrap_or_default().chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        if line.is_empty() { line } else { format!(": {line}") }
    }
}

impl Exec {
    fn late(&self) -> Outcome {
        let words = format!("{}{}", late(self.timeout), self.said.last_line());
        Outcome { result: Err(words.into()), said: self.said.last.clone() }
    }

    fn outcome(&self, how: How) -> Outcome {
        let result = match (&self.unable, how) {
            (Some(why), _) => Err(why.clone().into()),
            (None, How::Exited(0)) => Ok(()),
            (None, how) => Err(format!("{how}{}", self.said.last_line()).into()),
        };
        Outcome { result, said: self.said.last.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_tell_process_from_output() {
        for id in [1, 77, 1 << 40] {
            for is_output in [false, true] {
                assert_eq!(of_token(token(id, is_output)), (id, is_output));
            }
        }
        assert!(is_question(Incarnation(NUMBER | 1)) && !is_question(Incarnation(1 << 40)));
    }
}
