//! Questions that are programs: made by the spawner like every process, each in a session of its own
//! and, where there are control groups, in a group of its own, so that it can be killed with all it
//! started: when its time is up, and when it has ended.
//!
//! They are no runs: they have no exit record and no place in the journal. [`AT_ONCE`] of each purpose
//! are executed at the same time, the others wait in line, and the time of each counts from when there is
//! a process; a run has one at most, also where one cannot be killed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event::Purpose;
use crate::exit::{How, Signal};
use crate::name::{Incarnation, ReplicaId};
use crate::os::cgroup::Group;
use crate::os::epoll::Interest;
use crate::os::{clock, fds, mark, signal, wait};
use crate::probe::{KEPT, Outcome, late};
use crate::spec::Service;
use crate::time::Tick;

use super::control::Control;
use super::launch::{self, Order};
use super::spawner::{self, Answer, Wiring};

/// So many are executed at once that ask whether somebody is well, and as many that ask whether somebody
/// is ready: these are short, and no health check that hangs holds them up.
const AT_ONCE: usize = 16;
/// What is not gone this long after it was killed does not hold up the others.
const STUCK: Duration = Duration::from_secs(5);
/// So much is read of what one writes; then it waits with a full pipe until its time is up.
const READ: usize = 4 << 20;
/// How much of the last line is told with a failure.
const SHOWN: usize = 200;
/// How long orphans of questions may live where only a look at every process finds them.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the spawner may take to make one.
const START: Duration = Duration::from_secs(10);

/// What tells the numbers of questions from those of runs, which never come that far: in what the
/// spawner is asked and answers …
pub(super) const NUMBER: u64 = 1 << 61;
/// … and among the poller's tokens.
pub(super) const TOKEN: u64 = 1 << 62;

/// Who is asked what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) run: Incarnation,
    /// Which question of that run.
    pub(super) number: u64,
    pub(super) purpose: Purpose,
    pub(super) timeout: Duration,
}

/// One question.
struct Exec {
    asked: Asked,
    replica: ReplicaId,
    /// When its time is up, or before there is a process that of the spawner; after that, when it counts
    /// as stuck.
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
    asked: Asked,
    service: Arc<Service>,
    command: Vec<String>,
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
    ended: Vec<u64>,
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

    /// Takes the first in line for whose purpose there is room.
    fn next_in_line(&mut self) -> Option<Waiting> {
        let busy = |purpose: Purpose| {
            let counts = |exec: &&Exec| exec.asked.purpose == purpose && exec.stage != Stage::Stuck;
            self.under_way.values().filter(counts).count()
        };
        let free = [Purpose::Ready, Purpose::Health].map(|purpose| busy(purpose) < AT_ONCE);
        let has_room = |waiting: &Waiting| match waiting.asked.purpose {
            Purpose::Ready => free[0],
            Purpose::Health => free[1],
        };
        let at = self.line.iter().position(has_room)?;
        self.line.remove(at)
    }

    fn remove(&mut self, id: u64) -> Option<Exec> {
        let exec = self.under_way.remove(&id)?;
        self.deadlines.remove(&(exec.deadline, id));
        self.runs.remove(&exec.asked.run);
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
    pub(super) fn ask_by_exec(&mut self, asked: Asked, service: &Arc<Service>, command: &[String]) {
        let (service, command) = (Arc::clone(service), command.to_vec());
        let execs = &mut self.probes.execs;
        let waiting = execs.line.iter_mut().find(|waiting| waiting.asked.run == asked.run);
        if let Some(waiting) = waiting {
            // It has waited so long that it is asked again; it keeps its place.
            *waiting = Waiting { asked, service, command };
            return;
        }
        if execs.runs.contains(&asked.run) {
            if execs.under_way.values().any(|exec| exec.asked.run == asked.run && exec.pid == 0) {
                // Nobody was asked; that says nothing of the program.
                return;
            }
            let outcome: Outcome = Err("the last one was killed and is still there".into()).into();
            return self.probed(asked.run, asked.number, outcome);
        }
        execs.runs.insert(asked.run);
        execs.line.push_back(Waiting { asked, service, command });
        self.execute_next();
    }

    /// Executes those whose turn it is.
    fn execute_next(&mut self) {
        while let Some(waiting) = self.probes.execs.next_in_line() {
            let asked = waiting.asked;
            if let Err(outcome) = self.execute(waiting) {
                self.probes.execs.runs.remove(&asked.run);
                if let Some(outcome) = outcome {
                    self.probed(asked.run, asked.number, outcome);
                }
            }
        }
    }

    /// Hands one to the spawner. Nothing is said of a run that is over, and of a spawner that has no
    /// room: that question is asked again.
    fn execute(&mut self, waiting: Waiting) -> Result<(), Option<Outcome>> {
        let Waiting { asked: question, service, command } = waiting;
        let incarnation = question.run;
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
            mark: mark::of_question(self.realm, id),
            more: Vec::new(),
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
        let deadline = clock::now() + START;
        let exec = Exec {
            asked: question,
            replica,
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
                } else if exec.stage == Stage::Asked {
                    let until = clock::now() + exec.asked.timeout;
                    self.probes.execs.set_deadline(id, until);
                } else {
                    self.kill_question(id);
                }
            }
            Answer::Refused { stage, errno } => {
                let why = How::NotStarted(stage, errno).to_string();
                if let Some(exec) = self.abandon(id).filter(|exec| exec.stage == Stage::Asked)
                    && !super::start::is_lack(errno)
                {
                    self.probed(exec.asked.run, exec.asked.number, Outcome::from(Err(why.into())));
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
            let mark = mark::of_question(self.realm, id);
            let execs = &mut self.probes.execs;
            execs.ended.push(mark);
            execs.sweep_at.get_or_insert(clock::now() + SWEEP);
        }
        self.dispose(exec.group.clone());
        self.children_ended();
        self.execute_next();
        if exec.stage == Stage::Asked {
            self.probed(exec.asked.run, exec.asked.number, exec.outcome(how));
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
            self.sweep_probes(marks);
        }
    }

    /// The time of one is up, or it is still there after it was killed.
    fn question_late(&mut self, id: u64, now: Tick) {
        let Some(exec) = self.probes.execs.under_way.get_mut(&id) else { return };
        let (asked, stage) = (exec.asked, exec.stage);
        match stage {
            Stage::Asked => {
                exec.stage = Stage::Killed;
                let outcome = (exec.pid != 0).then(|| exec.late());
                self.probes.execs.set_deadline(id, now + STUCK);
                self.kill_question(id);
                if let Some(outcome) = outcome {
                    self.probed(asked.run, asked.number, outcome);
                } else {
                    tracing::warn!("a health check could not be started in time");
                }
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
        if let Some(at) = execs.line.iter().position(|waiting| waiting.asked.run == run) {
            execs.line.remove(at);
            execs.runs.remove(&run);
            return;
        }
        let found = execs.under_way.iter_mut().find(|(_, exec)| exec.asked.run == run);
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
        let words = format!("{}{}", late(self.asked.timeout), self.said.last_line());
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
