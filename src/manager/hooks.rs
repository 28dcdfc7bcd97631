//! Commands that are run when something happens (`on_event:`), and the loop's dealings with them.
//!
//! A hook is nobody's service: it has no policy and no record, only an event of its own when it ended,
//! and nothing that happens to it runs another. Few run at once, few wait, each has its time and is then
//! killed with all it started; of what it says the last bytes are kept. So a hook that hangs, forks,
//! floods or does not exist harms nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::exit::{Decision, Errno, ExitRecord, How, Reason, Signal, Stage};
use crate::name::{Incarnation, Realm, ReplicaId};
use crate::os::cgroup::Group;
use crate::os::epoll::Interest;
use crate::os::spawn::Launch;
use crate::os::wait::{self, Ended};
use crate::os::{clock, errno_of, fds, mark, sealed, signal};
use crate::spec::{Hook, HookEvent, KillScope};
use crate::time::Tick;

use super::control::{Control, Kind};
use super::history::Cursor;
use super::notice::{Notice, Teller};
use super::published::{Published, What};
use super::spawner::{self, Answer, Wiring};
use super::sweeper::{Sweep, Swept};

/// How many run at once. More would be a burden of their own when everything fails at the same time.
const AT_ONCE: usize = 4;
/// How many wait. What happens beyond that is counted and runs none.
const WAITING: usize = 64;
/// How much of what a hook said is kept, in bytes.
const TAIL: usize = 1024;
/// Hooks are told from runs by their numbers, which begin where those of runs never come; what probes
/// run has numbers, and tokens, beyond twice this.
const FIRST: u64 = 1 << 58;

/// How a hook ended.
#[derive(Debug, Clone, PartialEq)]
pub struct HookEnd {
    /// What it was run for.
    pub event: HookEvent,
    /// Its program, the first word of its command.
    pub program: String,
    /// The kernel's word.
    pub how: How,
    /// Whether it took longer than it may and was killed.
    pub timed_out: bool,
    /// How long it took.
    pub took: Duration,
    /// The last it said, on standard output and standard error together, where it is text.
    pub output: String,
    /// Processes that it left behind and that were killed.
    pub killed: Vec<i32>,
}

impl HookEnd {
    /// Whether somebody must look.
    pub fn is_bad(&self) -> bool {
        self.timed_out || self.how != How::Exited(0)
    }
}

/// The hooks that wait and run.
#[derive(Default)]
pub(super) struct Hooks {
    waiting: VecDeque<Job>,
    running: HashMap<Incarnation, Running>,
    deadlines: BTreeSet<(Tick, Incarnation)>,
    /// How many there were.
    count: u64,
    /// How many were not run, for too many waited.
    pub(super) dropped: u64,
}

struct Job {
    hook: Hook,
    event: HookEvent,
    replica: ReplicaId,
    /// The run that it is about.
    incarnation: Incarnation,
    msg: String,
    json: Arc<[u8]>,
}

struct Running {
    job: Job,
    started: Tick,
    deadline: Tick,
    group: Option<Group>,
    /// 0 until there is a process.
    pid: i32,
    pidfd: Option<OwnedFd>,
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    landing: Option<Answer>,
    ended: Option<Ended>,
    timed_out: bool,
    tail: Vec<u8>,
}

impl Running {
    fn stream(&mut self, kind: Kind) -> &mut Option<OwnedFd> {
        if kind == Kind::Error { &mut self.error } else { &mut self.output }
    }

    fn say(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let drop = (self.tail.len() + new.len()).saturating_sub(TAIL);
        self.tail.drain(..drop);
        self.tail.extend_from_slice(new);
    }
}

impl Hooks {
    /// Whether this is the number of a hook and not of a run.
    pub(super) fn is_one(incarnation: Incarnation) -> bool {
        (FIRST..2 * FIRST).contains(&incarnation.0)
    }

    /// Whether any runs or waits.
    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// When the next one has had its time.
    pub(super) fn due(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whether a process that has ended is one of them, or may be: one whose number is not known yet.
    pub(super) fn may_own(&self, pid: i32) -> bool {
        let unknown = |hook: &Running| hook.pid == 0 && hook.ended.is_none();
        self.running.values().any(|hook| hook.pid == pid || unknown(hook))
    }
}

impl Control {
    /// The end of a run has been told: runs what is to be run for it.
    pub(super) fn fire_for_end(&mut self, replica: &ReplicaId, record: &ExitRecord) {
        self.fire(HookEvent::Exit, replica, record);
        if record.exit.reason == Reason::OomKilled {
            self.fire(HookEvent::OomKilled, replica, record);
        }
        if record.restart.decision == Decision::GaveUp {
            self.fire(HookEvent::GiveUp, replica, record);
        }
    }

    /// What came with the end of a run is told: a row of failures may have become a crash loop by it.
    pub(super) fn fire_for_news(
        &mut self,
        replica: &ReplicaId,
        news: &[What],
        record: &ExitRecord,
    ) {
        if news.iter().any(|what| matches!(what, What::CrashLoop { active: true, .. })) {
            self.fire(HookEvent::CrashLooping, replica, record);
        }
    }

    /// Something happened to a run that goes on.
    pub(super) fn fire_for_event(&mut self, hook: HookEvent, replica: &ReplicaId, what: What) {
        let Some(about) = what.about().and_then(|(_, incarnation)| incarnation) else { return };
        let teller = Teller { host: self.origin.host.clone(), generation: self.origin.generation };
        // It has its number when it is published, with what else is told of the replica.
        let event = Published { number: 0, seq: 0, ts: clock::wall(), what };
        let id = Cursor { seq: 0, generation: teller.generation, number: 0, realm: self.realm };
        let Some(notice) = Notice::of(&event, id, &teller) else { return };
        let story = || told(&notice, "id");
        self.fire_about(hook, replica, about, &notice.msg, story);
    }

    fn fire(&mut self, event: HookEvent, replica: &ReplicaId, record: &ExitRecord) {
        // The journal gives the `seq`.
        let story = || told(record, "seq");
        self.fire_about(event, replica, record.service.incarnation, &record.msg, story);
    }

    fn fire_about(
        &mut self,
        event: HookEvent,
        replica: &ReplicaId,
        incarnation: Incarnation,
        msg: &str,
        story: impl FnOnce() -> Vec<u8>,
    ) {
        let own = self.spec.services.get(&replica.service).map(|service| service.on_event.iter());
        let hooks = self.spec.on_event.iter().chain(own.into_iter().flatten());
        let hooks: Vec<Hook> = hooks.filter(|hook| hook.events.contains(&event)).cloned().collect();
        if hooks.is_empty() || self.shutting_down {
            return;
        }
        let json: Arc<[u8]> = story().into();
        for hook in hooks {
            if self.hooks.waiting.len() >= WAITING {
                self.hooks.dropped += 1;
                tracing::warn!(%replica, event = event.as_str(), "too many hooks wait: one is not run");
                continue;
            }
            self.hooks.waiting.push_back(Job {
                hook,
                event,
                replica: replica.clone(),
                incarnation,
                msg: msg.to_owned(),
                json: Arc::clone(&json),
            });
        }
        self.start_hooks();
    }

    fn start_hooks(&mut self) {
        while self.hooks.running.len() < AT_ONCE {
            let Some(job) = self.hooks.waiting.pop_front() else { return };
            self.hooks.count += 1;
            let id = Incarnation(FIRST + self.hooks.count);
            let started = clock::now();
            let deadline = started + job.hook.timeout;
            let mut hook = Running {
                job,
                started,
                deadline,
                group: None,
                pid: 0,
                pidfd: None,
                output: None,
                error: None,
                landing: None,
                ended: None,
                timed_out: false,
                tail: Vec::new(),
            };
            let ordered = self.order_hook(id, &mut hook);
            self.hooks.running.insert(id, hook);
            match ordered {
                Ok(()) => {
                    self.hooks.deadlines.insert((deadline, id));
                }
                Err(error) => {
                    self.hook_over(id, How::NotStarted(Stage::Clone, errno_of(&error)), Vec::new());
                }
            }
        }
    }

    fn order_hook(&mut self, id: Incarnation, hook: &mut Running) -> io::Result<()> {
        let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
        let environment = self.hook_environment(id, &hook.job);
        let pairs = environment.iter().map(|(name, value)| (&**name, &**value));
        let mut launch = Box::new(Launch::new(&hook.job.hook.exec, pairs).map_err(invalid)?);
        launch.folder(&hook.job.hook.folder).map_err(invalid)?;
        for limit in self.surroundings.usual_limits(mark_of(self.realm, id)) {
            launch.limit(limit);
        }
        if let Ok(root) = &self.cgroups {
            // No service has a name that begins like this.
            hook.group = root.group(&format!("-hook.{}", self.hooks.count)).ok();
        }
        if let Some(group) = &hook.group {
            launch.cgroup(&group.procs(), self.make_inside).map_err(invalid)?;
        }
        let input = sealed::holding("event", &hook.job.json)?;
        let handed = self.hand_over.send(&[(input, 0)])?;
        let request = spawner::Request {
            incarnation: id,
            launch,
            wiring: Wiring::Server,
            owner: None,
            kept: false,
            ready_fd: None,
            handed,
        };
        let sent = self.spawner.try_send(request);
        self.bell.wake();
        sent.map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn hook_environment(&self, id: Incarnation, job: &Job) -> BTreeMap<String, String> {
        let mut environment = self.surroundings.clean.clone();
        let told = [
            ("WHARF_EVENT", job.event.as_str().to_owned()),
            ("WHARF_EVENT_INCARNATION", job.incarnation.to_string()),
            ("WHARF_EVENT_MSG", job.msg.clone()),
            // Its own, by which what it leaves behind is found.
            ("WHARF_INCARNATION", id.to_string()),
            ("WHARF_REPLICA", job.replica.replica.to_string()),
            ("WHARF_SERVICE", job.replica.service.to_string()),
        ];
        environment.extend(told.map(|(name, value)| (name.to_owned(), value)));
        environment
    }

    /// The spawner tells of a hook.
    pub(super) fn hook_answer(&mut self, id: Incarnation, answer: Answer, received: fds::Received) {
        let Some(hook) = self.hooks.running.get_mut(&id) else {
            if let Some(pidfd) = received.fds.first() {
                let _ = signal::send(pidfd.as_fd(), Signal::KILL);
            }
            return;
        };
        match answer {
            Answer::Spawned { pid } => {
                let mut arrived = received.fds.into_iter();
                (hook.pid, hook.pidfd) = (pid, arrived.next());
                (hook.error, hook.output) = (arrived.next(), arrived.next());
                let watched = [
                    (&self.poller, hook.pidfd.as_ref(), Kind::Process),
                    (&self.logs, hook.error.as_ref(), Kind::Error),
                    (&self.logs, hook.output.as_ref(), Kind::Output),
                ];
                for (poller, fd, kind) in watched {
                    if let Some(fd) = fd {
                        let _ = poller.add(fd.as_fd(), kind.token(id), Interest::Read);
                    }
                }
                if received.lost || hook.output.is_none() {
                    // The kernel had no descriptor left for us: nobody could see its end.
                    let _ = signal::send_pid(pid, Signal::KILL);
                    self.hook_over(
                        id,
                        How::NotStarted(Stage::Clone, Errno(libc::EMFILE)),
                        Vec::new(),
                    );
                }
                // Orphans waited until its number was known.
                self.children_ended();
            }
            Answer::Refused { stage, errno } => {
                self.hook_over(id, How::NotStarted(stage, errno), Vec::new());
                self.children_ended();
            }
            Answer::Executed | Answer::Died | Answer::Failed { .. } => {
                hook.landing = Some(answer);
                if hook.ended.is_some() {
                    self.hook_done(id);
                }
            }
        }
    }

    /// The pidfd of a hook became readable.
    pub(super) fn hook_ended(&mut self, id: Incarnation) {
        let Some(hook) = self.hooks.running.get_mut(&id) else { return };
        let Some(pidfd) = &hook.pidfd else { return };
        let ended = match wait::peek(pidfd.as_fd()) {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            Err(_) => Ended::unseen(hook.pid),
        };
        let _ = self.poller.remove(pidfd.as_fd());
        hook.ended = Some(ended);
        if hook.landing.is_some() {
            self.hook_done(id);
        }
    }

    /// A hook has ended, and how it started is known: what it left behind is searched for.
    fn hook_done(&mut self, id: Incarnation) {
        for kind in [Kind::Output, Kind::Error] {
            // What was in its pipes then, and no more: a survivor may go on for ever.
            let Some(hook) = self.hooks.running.get_mut(&id) else { return };
            let held = |fd: &OwnedFd| fds::unread(fd.as_fd()).unwrap_or(0);
            let mut left = hook.stream(kind).as_ref().map_or(0, held);
            while left > 0 {
                let count = self.read_hook(id, kind);
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count);
            }
        }
        let Some(hook) = self.hooks.running.get_mut(&id) else { return };
        for stream in [hook.output.take(), hook.error.take()].into_iter().flatten() {
            let _ = self.logs.remove(stream.as_fd());
        }
        let (pid, group) = (hook.pid, hook.group.clone());
        let (scope, mark) = (KillScope::Tree, mark_of(self.realm, id));
        self.sweeper.ask(Sweep { incarnation: id, pid, scope, group, mark, spared: false });
    }

    /// A stream of a hook has something; how many bytes were read.
    pub(super) fn read_hook(&mut self, id: Incarnation, kind: Kind) -> usize {
        let Some(hook) = self.hooks.running.get_mut(&id) else { return 0 };
        let Some(fd) = hook.stream(kind) else { return 0 };
        match fds::read(fd.as_fd(), &mut self.buffer) {
            Ok(count) if count > 0 => {
                hook.say(&self.buffer[..count]);
                count
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                0
            }
            Ok(_) | Err(_) => {
                let _ = self.logs.remove(fd.as_fd());
                *hook.stream(kind) = None;
                0
            }
        }
    }

    /// What a hook left behind was searched for and killed.
    pub(super) fn hook_swept(&mut self, swept: &Swept) {
        let Some(hook) = self.hooks.running.get(&swept.incarnation) else { return };
        let how = match (hook.landing, hook.ended) {
            (Some(Answer::Failed { stage, errno, .. }), _) => How::NotStarted(stage, errno),
            (_, Some(ended)) => ended.how,
            (_, None) => How::Unseen,
        };
        self.hook_over(swept.incarnation, how, swept.killed.clone());
    }

    /// Kills the hooks that have had their time.
    pub(super) fn hooks_due(&mut self, now: Tick) {
        while let Some((at, id)) =
            self.hooks.deadlines.first().copied().filter(|(at, _)| *at <= now)
        {
            self.hooks.deadlines.remove(&(at, id));
            if let Some(hook) = self.hooks.running.get_mut(&id) {
                hook.timed_out = hook.ended.is_none();
                kill(hook);
            }
        }
    }

    /// Tells how a hook ended, and forgets it.
    fn hook_over(&mut self, id: Incarnation, how: How, killed: Vec<i32>) {
        let Some(mut hook) = self.hooks.running.remove(&id) else { return };
        self.hooks.deadlines.remove(&(hook.deadline, id));
        if let Some(pidfd) = hook.pidfd.take() {
            let _ = wait::reap(pidfd.as_fd());
        }
        if let Some(group) = hook.group.take() {
            self.discarding += 1;
            self.sweeper.discard(group);
        }
        let end = HookEnd {
            event: hook.job.event,
            program: hook.job.hook.exec.first().cloned().unwrap_or_default(),
            how,
            timed_out: hook.timed_out,
            took: clock::now().since(hook.started),
            output: text_of(&hook.tail),
            killed,
        };
        let Job { replica, incarnation, .. } = hook.job;
        if end.is_bad() {
            let (program, event) = (&end.program, end.event.as_str());
            tracing::warn!(%replica, program, event, how = %end.how, timed_out = end.timed_out,
                output = end.output, "a hook failed");
        }
        self.publish(What::Hook { replica, incarnation, end: Box::new(end) });
        self.start_hooks();
    }

    /// The manager ends, and what still runs with it.
    pub(super) fn end_hooks(&mut self) {
        self.hooks.waiting.clear();
        let running: Vec<Incarnation> = self.hooks.running.keys().copied().collect();
        for id in running {
            if let Some(hook) = self.hooks.running.get(&id) {
                kill(hook);
            }
            self.hook_over(id, How::Unseen, Vec::new());
        }
    }
}

/// The mark of what a hook starts.
fn mark_of(realm: Realm, id: Incarnation) -> u64 {
    mark::of_hook(realm, id.0)
}

fn kill(hook: &Running) {
    if let Some(group) = &hook.group {
        let _ = group.kill();
    }
    if let Some(pidfd) = &hook.pidfd
        && hook.ended.is_none()
    {
        let _ = signal::send_group(hook.pid, Signal::KILL);
        let _ = signal::send(pidfd.as_fd(), Signal::KILL);
    }
}

/// A record or event as a hook gets it: without its number, which is given later.
fn told(story: &impl Serialize, number: &str) -> Vec<u8> {
    let mut value = serde_json::to_value(story).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove(number);
    }
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The last of what was said, from the beginning of a character on.
fn text_of(tail: &[u8]) -> String {
    let cut = tail.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
    String::from_utf8_lossy(&tail[cut..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::probe_exec;
    use super::*;

    #[test]
    fn hooks_are_told_from_runs_and_fit_into_tokens() {
        assert!(!Hooks::is_one(Incarnation(1 << 40)));
        let last = Incarnation(FIRST + (1 << 40));
        assert!(Hooks::is_one(last));
        for kind in [Kind::Process, Kind::Output, Kind::Error] {
            let token = kind.token(last);
            assert_eq!(Kind::of(token), (last, kind));
            assert!(token & (1 << 63) == 0 && token & super::super::guest::TOKEN == 0);
            assert!(token & probe_exec::TOKEN == 0 && !probe_exec::is_question(last));
        }
        for number in [1, 1 << 40] {
            assert!(!Hooks::is_one(Kind::of(probe_exec::TOKEN | number << 1).0));
            assert!(!Hooks::is_one(Incarnation(probe_exec::NUMBER | number)));
        }
    }

    #[test]
    fn what_a_hook_starts_is_never_taken_for_what_a_run_started() {
        for number in [1, 7, 1 << 38] {
            let run = mark::of(Realm(5), Incarnation(number));
            assert_ne!(mark_of(Realm(5), Incarnation(FIRST + number)), run);
        }
    }

    #[test]
    fn the_last_words_are_kept_whole() {
        assert_eq!(text_of("é".as_bytes()), "é");
        assert_eq!(text_of(&"é!".as_bytes()[1..]), "!");
        assert_eq!(text_of(b""), "");
    }
}
