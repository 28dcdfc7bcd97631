//! The manager's loop: where what happens meets what is decided.
//!
//! One thread owns everything here and never waits but in one place. It turns what descriptors,
//! threads and clients tell into events, hands them to the [`Supervisor`], and carries out the
//! actions that come back. It decides nothing itself. The other files of this folder are the loop's
//! dealings with one neighbour each.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::Duration;

use tokio::sync::watch;

use crate::event::{Action, Event, Health as RunHealth, State, Verdict};
use crate::metrics::Book;
use crate::name::{Incarnation, Realm, ReplicaId, Requester, ServiceName};
use crate::os::cgroup;
use crate::os::epoll::{Poller, Ready};
use crate::os::fds::Waker;
use crate::os::live::{Notes, Table};
use crate::os::signal::Inbox;
use crate::os::spool::Spool;
use crate::os::{clock, memory};
use crate::spec::{self, Spec};
use crate::state::StateDir;
use crate::supervise::{Supervisor, Timetable};
use crate::time::{Tick, Wall};

use super::announce::Announcer;

use super::commands::Waiter;
use super::disk::Disk;
use super::ending::Pending;
use super::errand::Found;
use super::escaped::Strays;
use super::exit_with::ExitWith;
use super::forward::Forwarder;
use super::guest::Guests;
use super::hooks::Hooks;
use super::lateness::{Lateness, Turn};
use super::launch::Surroundings;
use super::probes::Probes;
use super::prompts::Prompts;
use super::published::{SkipReason, What};
use super::readiness::Patterns;
use super::reception::Reception;
use super::record::Origin;
use super::report::Tidings;
use super::request::{Handle, LastExit, Request};
use super::run::Run;
use super::shake::{Manners, Shake};
use super::sockets::Sockets;
use super::speak::Call;
use super::streams::Lingering;
use super::succeed::Succession;
use super::sweeper::{Report, Sweeper};
use super::terminal::Terminal;
use super::timing::LastDue;
use super::vault::Vault;
use super::{probe_exec, room, spawner, speak};

/// Tokens of the descriptors that are not a run's. A run's are its incarnation, shifted, and a kind.
pub(super) mod token {
    pub(in crate::manager) const WAKER: u64 = 0;
    pub(in crate::manager) const SPAWNER: u64 = 1;
    pub(in crate::manager) const GUARDIAN: u64 = 2;
    pub(in crate::manager) const GUARDIAN_DEATH: u64 = 3;
    pub(in crate::manager) const CHILDREN: u64 = 1 << 63;
    pub(in crate::manager) const LOGS: u64 = (1 << 63) + 1;
    pub(in crate::manager) const PORTS: u64 = (1 << 63) + 2;
}

/// What a token of a run's descriptor is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Process,
    /// Standard output, or what a port's messages come over.
    Output,
    Error,
    Input,
    /// Standard output, where a port's messages come over something else.
    Log,
    /// Tells that memory ran out.
    Memory,
    /// Where it writes a line when it is ready.
    Ready,
    /// Where it says how it is.
    Notice,
}

impl Kind {
    /// The token for this descriptor of a run.
    pub(super) fn token(self, incarnation: Incarnation) -> u64 {
        incarnation.0 << 3 | self as u64
    }

    /// Which run and which of its descriptors.
    pub(super) fn of(token: u64) -> (Incarnation, Self) {
        let kind = match token & 7 {
            0 => Self::Process,
            1 => Self::Output,
            2 => Self::Error,
            3 => Self::Input,
            4 => Self::Log,
            5 => Self::Memory,
            6 => Self::Ready,
            _ => Self::Notice,
        };
        (Incarnation(token >> 3), kind)
    }
}

/// What the loop owns; see `mod.rs` for how it is put together.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact of the loop")]
pub(super) struct Control {
    pub(super) state: StateDir,
    pub(super) realm: Realm,
    pub(super) origin: Origin,
    pub(super) started_at: Wall,
    pub(super) guardian_pid: i32,
    /// The configuration in effect.
    pub(super) spec: Arc<Spec>,
    /// The same as it was read, without what operators want beside it.
    pub(super) written: Arc<Spec>,
    /// How many replicas operators want, where that is not what is written.
    pub(super) scale: BTreeMap<ServiceName, u32>,
    /// The profiles that were chosen.
    pub(super) profiles: Vec<String>,
    pub(super) supervisor: Supervisor,
    pub(super) surroundings: Surroundings,
    pub(super) cgroups: Result<cgroup::Root, String>,
    /// Where limits can be enforced.
    pub(super) controllers: cgroup::Controllers,
    /// When the memory of runs is looked at again.
    pub(super) memory_looks: BTreeSet<(Tick, Incarnation)>,
    /// Replicas whose control group was killed and so must be made anew.
    pub(super) killed_groups: HashSet<ReplicaId>,
    /// Whether processes are made inside their control groups.
    pub(super) make_inside: bool,
    /// How many descriptors this process may have.
    pub(super) descriptors: usize,

    pub(super) poller: Poller,
    /// Streams that go to log files; read while there is room for their output.
    pub(super) logs: Poller,
    /// Streams of ports.
    pub(super) ports: Poller,
    pub(super) waker: Waker,
    pub(super) children: Inbox,
    pub(super) guardian: OwnedFd,
    pub(super) requests: Receiver<Request>,
    pub(super) announcer: Announcer,
    /// What is told of replicas whose last end has not been told yet: it comes after that.
    pub(super) held: HashMap<ReplicaId, Held>,
    pub(super) spawner: SyncSender<spawner::Request>,
    /// Hands it descriptors that go to programs.
    pub(super) hand_over: spawner::HandOver,
    /// Announces requests to the spawner.
    pub(super) bell: Waker,
    pub(super) answers: OwnedFd,
    pub(super) disk: Disk,
    pub(super) sweeper: Sweeper,
    pub(super) forward: Forwarder,
    pub(super) terminal: Terminal,
    pub(super) found: (Sender<Found>, Receiver<Found>),
    /// The sockets of services.
    pub(super) sockets: Sockets,
    /// Commands that are run when something happens.
    pub(super) hooks: Hooks,

    pub(super) table: Table,
    /// What is said to the guardian of kept runs.
    pub(super) vault: Vault,
    /// A succession by another binary that is under way.
    pub(super) succession: Option<Succession>,
    /// What was read of kept runs last; made with the first of them.
    pub(super) spool: Option<Spool>,
    /// What the next manager has to know of kept runs; made with the first that there is something to say
    /// of.
    pub(super) notes: Option<Notes>,
    /// Runs of which the guardian keeps something.
    pub(super) guarded: HashSet<Incarnation>,
    /// Runs that are over and whose guardian has not told how, with when it is waited for no longer.
    pub(super) untold: HashMap<Incarnation, Tick>,
    /// Whether the guardian is dead.
    pub(super) alone: bool,
    /// Slots that may be claimed; more are taken from the table when it is empty.
    pub(super) free_slots: Vec<usize>,
    /// Every slot from here on is free.
    pub(super) table_mark: usize,
    /// The slot that tells how a replica rests.
    pub(super) homes: HashMap<ReplicaId, usize>,
    pub(super) runs: HashMap<Incarnation, Box<Run>>,
    pub(super) present: HashMap<ReplicaId, Incarnation>,
    pub(super) pending: HashMap<Incarnation, Pending>,
    /// Of those of them whose end has not been told.
    pub(super) record_deadlines: BTreeSet<(Tick, Incarnation)>,
    /// Runs whose survivors are being killed.
    pub(super) sweeping: HashMap<Incarnation, (ReplicaId, Option<OwnedFd>)>,
    /// How many control groups are being removed beside the loop.
    pub(super) discarding: usize,
    pub(super) lingering: BTreeMap<Incarnation, Lingering>,
    /// Unfinished lines that are held back.
    pub(super) prompts: Prompts,
    pub(super) last: HashMap<ReplicaId, Arc<LastExit>>,
    pub(super) shown: HashMap<ReplicaId, Shown>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) calls: HashMap<u64, Call>,
    /// Messages that found no room.
    pub(super) room: room::Queue,
    pub(super) next_call: u64,
    /// Clients that speak protocol 1.
    pub(super) guests: Guests,
    /// The handshakes of runs whose ports have one.
    pub(super) shakes: HashMap<Incarnation, Shake>,
    /// The welcomes of runs whose ports have one.
    pub(super) receptions: HashMap<Incarnation, Reception>,
    /// What clients greeted replicas with, for their next runs.
    pub(super) manners: HashMap<ReplicaId, Manners>,
    pub(super) port_deadlines: BTreeSet<(Tick, Incarnation)>,
    pub(super) protocols: speak::Protocols,

    /// What asks programs whether they are ready and well.
    pub(super) probes: Probes,
    /// The compiled expressions of `ready.log_line`, by their text.
    pub(super) patterns: Patterns,

    /// The version of the small files that was last asked for.
    pub(super) intent: u64,
    /// The version of the small files that is on disk.
    pub(super) persisted: u64,
    /// When the small file of what operators want is tried again, after it could not be written.
    pub(super) intent_again: Option<Tick>,
    /// Configurations that take effect once they are on disk.
    pub(super) applying: Vec<(u64, Arc<Spec>, Requester)>,
    /// Whether a hang-up asks for a reload, or else for the end.
    pub(super) reload_on_hang_up: bool,
    /// Whether the file of the control socket goes with the manager: not where it was handed over.
    pub(super) removes_socket: bool,
    /// What the guardian is told of how things are.
    pub(super) tidings: Tidings,
    /// The service with which everything ends.
    pub(super) exit_with: Option<ExitWith>,
    pub(super) handle: Handle,
    pub(super) guardian_life: OwnedFd,
    pub(super) stopped: Vec<ServiceName>,
    /// When services are due by their schedules.
    pub(super) timetable: Timetable,
    pub(super) last_due: LastDue,
    /// When the clocks are looked at next.
    pub(super) look_at: Option<Tick>,
    pub(super) output_paused: Option<Tick>,
    pub(super) output_overdue: bool,
    pub(super) health: Health,
    /// What has happened to each service.
    pub(super) book: Book,
    /// Where metrics are to be scraped over TCP.
    pub(super) metrics: watch::Sender<Option<spec::Metrics>>,
    /// When the configuration in effect took effect.
    pub(super) configured_at: Wall,
    /// The last moment at which the poller had told everything there was.
    pub(super) told_all: Tick,
    /// What is seen to have ended in this turn was running until here at least.
    pub(super) seen_from: Tick,
    /// The processes that were given to this one, once they were looked for in this turn.
    pub(super) strays: Option<Strays>,
    /// Whether deadlines wait for what has to be taken first.
    pub(super) lateness: Lateness,
    pub(super) shutting_down: bool,
    /// When it is said next who holds up a shutdown.
    pub(super) explained: Option<Tick>,
    pub(super) down: bool,
    pub(super) buffer: Vec<u8>,
    pub(super) inbox: VecDeque<Event>,
    pub(super) verdicts: Vec<(Incarnation, ReplicaId, Box<Verdict>)>,
    /// What is told of replicas once the records of this turn are under way.
    pub(super) news: Vec<(ReplicaId, What)>,
    pub(super) feeding: bool,
    /// Whether it has come to rest since the last configuration or request.
    pub(super) rested: bool,
}

/// Events of one replica that wait for its ends to be told.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// How many ends are on their way to the journal.
    pub(super) ends: usize,
    /// What comes after them, in order.
    pub(super) events: Vec<What>,
}

/// What was last told of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: State,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) crash_looping: bool,
    pub(super) health: Option<RunHealth>,
}

/// What is not as it should be.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) journal: Option<String>,
    pub(super) output: Option<String>,
    pub(super) journal_errors: u64,
    pub(super) dropped: u64,
    /// Why what operators want is not on disk.
    pub(super) intent: Option<String>,
    /// Why metrics cannot be scraped over TCP.
    pub(super) metrics: Option<String>,
    /// Whether the last configuration that was to take effect did not.
    pub(super) reload_refused: bool,
}

/// How many descriptors the main poller tells at once.
const TOLD: usize = 64;
/// How many ports are looked at in a turn, and how many streams that go to logs, of which more is read at
/// once: so that supervision is never far away.
const PORTS: usize = 16;
const LOGS: usize = 8;
/// When nothing has happened for this long after a configuration or a request the loop counts as at
/// rest.
const REST: Duration = Duration::from_millis(500);

impl Control {
    /// Runs until everything is down.
    pub(super) fn serve(&mut self) -> std::io::Result<()> {
        let mut ready = Ready::new(TOLD);
        let (mut ports, mut logs) = (Ready::new(PORTS), Ready::new(LOGS));
        let mut tokens = Vec::new();
        self.disk.go();
        while !self.down {
            let patience = self.patience();
            let at_rest = !self.rested && patience.is_none_or(|patience| patience > REST);
            let patience = if at_rest { Some(REST) } else { patience };
            let asked = clock::now();
            self.poller.wait(&mut ready, patience)?;
            tokens.clear();
            tokens.extend(ready.tokens());
            self.note_turn(asked, tokens.len() < TOLD);
            self.strays = None;
            if at_rest && tokens.is_empty() {
                self.rested = true;
                self.disk.give_back();
                memory::give_back();
            }
            let mut some = (false, false);
            let output = |token: &u64| matches!(*token, token::LOGS | token::PORTS);
            let mut turn = Turn { asked, quiet: tokens.iter().all(output) };
            for token in &tokens {
                match *token {
                    token::WAKER => self.waker.clear(),
                    token::SPAWNER => self.spawner_answers()?,
                    token::GUARDIAN => self.guardian_speaks()?,
                    token::GUARDIAN_DEATH => self.guardian_died(),
                    token::CHILDREN => self.children_ended(),
                    token::LOGS => some.0 = true,
                    token::PORTS => some.1 = true,
                    token if token & probe_exec::TOKEN != 0 => self.question_ready(token),
                    token if Hooks::is_one(Kind::of(token).0) => {
                        self.hook_ended(Kind::of(token).0);
                    }
                    token => self.run_ready(token),
                }
            }
            if some.1 {
                self.ports.wait(&mut ports, Some(Duration::ZERO))?;
                tokens.clear();
                tokens.extend(ports.tokens());
                turn.quiet &= tokens.len() < PORTS;
                for token in &tokens {
                    self.port_ready(*token);
                }
            }
            if some.0 {
                self.logs.wait(&mut logs, Some(Duration::ZERO))?;
                tokens.clear();
                tokens.extend(logs.tokens());
                turn.quiet &= tokens.len() < LOGS;
                for token in &tokens {
                    self.log_ready(*token);
                }
            }
            // What has ended is on its way to the disk while the rest is looked at.
            self.disk.go();
            // Not only when the waker says so: behind a thousand ends it would be heard last.
            self.take_messages();
            let due = self.earliest();
            if self.lateness.is_over(clock::now(), due, turn) {
                self.pass_time();
            }
            self.look_for_room();
            self.look_for_guests_room();
            self.close_sockets();
            self.flush_guests();
            self.look_at_exit_with();
            self.disk.go();
            self.look_at_succession(clock::now());
            self.look_at_report(clock::now());
        }
        Ok(())
    }

    /// A descriptor of a run is ready that is none of its streams.
    fn run_ready(&mut self, token: u64) {
        match Kind::of(token) {
            (incarnation, Kind::Ready) => self.ready_line(incarnation),
            (incarnation, Kind::Notice) => self.take_notices(incarnation),
            (incarnation, Kind::Memory) => self.memory_told(incarnation),
            (incarnation, _) => self.process_ended(incarnation),
        }
    }

    /// How long nothing needs to happen by itself; `None` for ever.
    fn patience(&self) -> Option<Duration> {
        let now = clock::now();
        self.earliest().map(|at| at.since(now))
    }

    /// When the first thing is due.
    fn earliest(&self) -> Option<Tick> {
        let deadlines = [
            self.supervisor.next_deadline(),
            self.port_deadlines.first().map(|(at, _)| *at),
            self.output_paused.filter(|_| !self.output_overdue),
            self.intent_again,
            self.prompts.due(),
            self.record_deadlines.first().map(|(at, _)| *at),
            self.room.due(),
            self.look_at.filter(|_| !self.shutting_down),
            self.guests.due(),
            self.untold_due(),
            self.vault.due(),
            self.memory_looks.first().map(|(at, _)| *at),
            self.probes.due(),
            self.explained,
            self.succession_due(),
            self.hooks.due(),
            self.tidings.due(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due.
    fn pass_time(&mut self) {
        let now = clock::now();
        if self.supervisor.next_deadline().is_some_and(|at| at <= now) {
            self.feed(Event::Time);
        }
        // Each once: what is due again at once is the next turn's.
        let due = self.port_deadlines.iter().take_while(|(at, _)| *at <= now);
        for (_, incarnation) in due.copied().collect::<Vec<_>>() {
            self.port_expired(incarnation, now);
        }
        if self.output_paused.is_some_and(|at| at <= now) && !self.output_overdue {
            self.output_overdue();
        }
        if self.prompts.due().is_some_and(|at| at <= now) {
            self.look_at_prompts(now);
        }
        self.look_at_clocks(now);
        self.intent_due(now);
        self.questions_due(now);
        self.overdue_records(now);
        self.look_for_ends();
        if self.vault.due().is_some_and(|at| at <= now) {
            self.vault.flush(now);
        }
        self.look_at_memory(now);
        self.shutdown_due(now);
        self.hooks_due(now);
    }

    /// Hands an event to the supervisor and carries out what it wants done.
    pub(super) fn feed(&mut self, event: Event) {
        self.note_event(&event);
        self.inbox.push_back(event);
        if self.feeding {
            return;
        }
        self.feeding = true;
        while let Some(event) = self.inbox.pop_front() {
            let actions = self.supervisor.step(clock::now(), event);
            // First that it was decided, then that it was done: a manager killed in between is no excuse.
            let noted = self.note_decisions();
            for action in actions {
                self.act(action);
            }
            self.note_done(&noted);
        }
        self.write_records();
        for (replica, event) in std::mem::take(&mut self.news) {
            self.publish_of(&replica, event);
        }
        self.feeding = false;
        self.settle();
    }

    /// Makes the records that are due. Not at once when they are: a sweep still needs the run.
    fn write_records(&mut self) {
        for (incarnation, replica, verdict) in std::mem::take(&mut self.verdicts) {
            self.write_record(incarnation, &replica, *verdict);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { incarnation, replica, service } => {
                self.order(incarnation, replica, &service);
            }
            Action::Signal { incarnation, signal, group } => {
                self.send_signal(incarnation, signal, group);
            }
            Action::Kill { incarnation, scope } => self.kill(incarnation, scope),
            Action::SendQuit { incarnation } => self.send_quit(incarnation),
            Action::CloseInput { incarnation } => self.close_input(incarnation),
            Action::Record { incarnation, replica, verdict } => {
                self.verdicts.push((incarnation, replica, verdict));
            }
            Action::Sweep { incarnation, scope } => self.sweep(incarnation, scope),
            Action::Probe { incarnation, number, purpose, service, timeout } => {
                self.probe(incarnation, number, purpose, &service, timeout);
            }
            Action::Measure { incarnation } => self.measure(incarnation),
            Action::Reread { incarnation, replica, reread } => {
                self.reread(incarnation, &replica, *reread);
            }
            Action::Changed { replica } => self.changed(&replica),
            Action::Forget { replica } => self.forget(&replica),
            Action::Overlapped { replica } => self.skipped_one(replica, SkipReason::Overlap),
            Action::Halted { replica, left } => {
                tracing::warn!(%replica, left, "not ready: the rest keep their present runs");
            }
            Action::Persist => self.persist_intent(),
            Action::Down => self.down = true,
        }
    }

    /// Tells everybody who listens.
    pub(super) fn publish(&self, event: What) {
        self.announcer.publish(event);
    }

    /// Tells of one replica: after its last end, where that is still on its way to the journal.
    pub(super) fn publish_of(&mut self, replica: &ReplicaId, event: What) {
        match self.held.get_mut(replica) {
            Some(held) => held.events.push(event),
            None => self.publish(event),
        }
    }

    /// Takes what other threads have put down.
    fn take_messages(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            self.take_request(request);
        }
        while let Ok(done) = self.disk.done.try_recv() {
            self.disk_done(done);
        }
        while let Ok(report) = self.sweeper.reports.try_recv() {
            match report {
                Report::Swept(swept) if Hooks::is_one(swept.incarnation) => self.hook_swept(&swept),
                Report::Swept(swept) => self.swept(&swept),
                Report::Discarded(count) => self.discarding -= count,
            }
        }
        while let Ok(found) = self.found.1.try_recv() {
            self.errand_done(found);
        }
        while let Ok(told) = self.sockets.told.try_recv() {
            self.sockets_told(told);
        }
        self.take_recalled();
        self.take_probed();
        if self.forward.has_news() {
            self.publish_health();
        }
    }

    /// The poller's descriptors of the loop itself.
    pub(super) fn watch_own(&self) -> std::io::Result<()> {
        use crate::os::epoll::Interest::Read;
        self.poller.add(self.waker.as_fd(), token::WAKER, Read)?;
        self.poller.add(self.answers.as_fd(), token::SPAWNER, Read)?;
        self.poller.add(self.guardian.as_fd(), token::GUARDIAN, Read)?;
        self.poller.add(self.guardian_life.as_fd(), token::GUARDIAN_DEATH, Read)?;
        self.poller.add(self.children.as_fd(), token::CHILDREN, Read)?;
        self.poller.add(self.logs.as_fd(), token::LOGS, Read)?;
        self.poller.add(self.ports.as_fd(), token::PORTS, Read)
    }
}
