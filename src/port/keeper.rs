//! The one thread that makes the processes of embedded ports, and buries them.
//!
//! It never ends, because `PR_SET_PDEATHSIG` is bound to the thread that made a child: were ports
//! started from a pool, a program would be killed when the pool shrinks. It has every signal blocked, so
//! that no handler of the surrounding program ever runs in a child, and it reaps by pidfd what it
//! made itself and nothing else. No subreaper, no handler, no `SIGCHLD`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::exit::{Errno, Signal, Stage};
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::fds::Waker;
use crate::os::spawn::{Flight, Landing, Launch, Stacks};
use crate::os::{clock, procfs, signal, wait};
use crate::spec::KillScope;
use crate::time::Tick;

/// A process to make.
pub(super) struct Order {
    pub(super) launch: Box<Launch>,
    /// Standard input, output and error, in this order.
    pub(super) streams: [OwnedFd; 3],
    /// When it must have become the program.
    pub(super) deadline: Tick,
    pub(super) grave: Grave,
    pub(super) reply: oneshot::Sender<Result<Born, NotBorn>>,
}

/// A process that has become the program.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

/// Why there is no program. What there was of a process is being buried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotBorn {
    pub(super) stage: Stage,
    pub(super) errno: Errno,
    pub(super) interpreter_missing: bool,
}

/// What is to be done about what a program leaves behind.
#[derive(Debug, Clone)]
pub(super) struct Grave {
    /// How far it is searched for.
    pub(super) scope: KillScope,
    /// The variable by which its descendants are known, wherever they went.
    pub(super) marker: String,
}

/// The variable in which [`Grave::marker`] stands.
pub(super) const MARKER: &str = "WHARF_PORT";

/// How long a search for survivors goes on.
const BOUND: Duration = Duration::from_secs(3);
/// Between two looks at the survivors that were killed.
const LOOK: Duration = Duration::from_millis(5);

enum Work {
    Start(Order),
    Bury(Corpse),
}

/// A process that nobody speaks to any more: it has ended, or is killed now.
struct Corpse {
    pid: i32,
    pidfd: OwnedFd,
    grave: Grave,
    /// Once it has ended: since when what it left is searched for.
    since: Option<Tick>,
}

/// The way to the thread. What waits in the channel is bounded by the ports there are: each has one
/// order and one burial.
struct Keeper {
    work: Sender<Work>,
    bell: Waker,
}

/// The thread of this process; the first port starts it.
fn keeper() -> io::Result<&'static Keeper> {
    static KEEPER: OnceLock<Keeper> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(keeper) = KEEPER.get() {
        return Ok(keeper);
    }
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(keeper) = KEEPER.get() {
        return Ok(keeper);
    }
    let made = Keeper::start()?;
    Ok(KEEPER.get_or_init(|| made))
}

/// Has a process made. The answer comes through the order.
pub(super) fn start(order: Order) -> io::Result<()> {
    keeper()?.ask(Work::Start(order))
}

/// Reaps a process once it has ended, and kills what it left behind. One that still runs is killed.
pub(super) fn bury(pid: i32, pidfd: OwnedFd, grave: Grave) {
    // A port exists, so the thread does; without it the process dies with this one (PDEATHSIG).
    if let Ok(keeper) = keeper() {
        let _ = keeper.ask(Work::Bury(Corpse { pid, pidfd, grave, since: None }));
    }
}

impl Keeper {
    fn start() -> io::Result<Self> {
        let (work, inbox) = channel();
        let bell = Waker::new()?;
        let poller = Poller::new()?;
        poller.add(bell.as_fd(), BELL, Interest::Read)?;
        let own = bell.clone();
        std::thread::Builder::new().name("wharf-keeper".to_owned()).spawn(move || {
            // It fails for no set of signals that exists.
            let _ = signal::block_all();
            let yard = Yard {
                poller,
                stacks: Stacks::default(),
                next: BELL + 1,
                flights: HashMap::new(),
                corpses: HashMap::new(),
            };
            yard.serve(&inbox, &own);
        })?;
        Ok(Self { work, bell })
    }

    fn ask(&self, work: Work) -> io::Result<()> {
        self.work
            .send(work)
            .map_err(|_| io::Error::other("the thread that starts ports is gone"))?;
        self.bell.wake();
        Ok(())
    }
}

const BELL: u64 = 0;

/// What the thread looks after.
struct Yard {
    poller: Poller,
    stacks: Stacks,
    /// The next token.
    next: u64,
    flights: HashMap<u64, Way>,
    corpses: HashMap<u64, Corpse>,
}

/// A process on its way to the program.
struct Way {
    flight: Flight,
    pid: i32,
    pidfd: OwnedFd,
    deadline: Tick,
    grave: Grave,
    /// Taken when the answer has been given, which may be before it lands.
    reply: Option<oneshot::Sender<Result<Born, NotBorn>>>,
}

impl Yard {
    fn serve(mut self, inbox: &Receiver<Work>, bell: &Waker) {
        let mut ready = Ready::new(64);
        loop {
            let patience = self.patience(clock::now());
            if self.poller.wait(&mut ready, patience).is_err() {
                continue;
            }
            let tokens: Vec<u64> = ready.tokens().collect();
            for token in tokens {
                if token == BELL {
                    bell.clear();
                    while let Ok(work) = inbox.try_recv() {
                        match work {
                            Work::Start(order) => self.start(order),
                            Work::Bury(corpse) => self.bury(corpse),
                        }
                    }
                } else if self.flights.contains_key(&token) {
                    self.land(token);
                } else if let Some(corpse) = self.corpses.get_mut(&token) {
                    let _ = self.poller.remove(corpse.pidfd.as_fd());
                    corpse.since = Some(clock::now());
                }
            }
            self.overdue(clock::now());
            self.search(clock::now());
        }
    }

    /// How long there is nothing to do but to wait.
    fn patience(&self, now: Tick) -> Option<Duration> {
        if self.corpses.values().any(|corpse| corpse.since.is_some()) {
            return Some(LOOK);
        }
        let waiting = self.flights.values().filter(|way| way.reply.is_some());
        waiting.map(|way| way.deadline.since(now)).min()
    }

    fn start(&mut self, order: Order) {
        let Order { launch, streams, deadline, grave, reply } = order;
        let fds: Vec<(BorrowedFd<'_>, RawFd)> =
            streams.iter().zip(0..).map(|(fd, number)| (fd.as_fd(), number)).collect();
        match launch.start(&fds, &mut self.stacks) {
            Ok(started) => {
                let token = self.next;
                self.next += 1;
                let crate::os::spawn::Started { pid, pidfd, flight } = started;
                let watched = self.poller.add(flight.as_fd(), token, Interest::Read);
                let way = Way { flight, pid, pidfd, deadline, grave, reply: Some(reply) };
                self.flights.insert(token, way);
                if watched.is_err() {
                    // It cannot be waited for, so it is given up; the kernel is out of memory.
                    self.give_up(token, Stage::Clone, Errno(libc::ENOMEM));
                }
            }
            Err((stage, errno)) => {
                let _ = reply.send(Err(NotBorn { stage, errno, interpreter_missing: false }));
            }
        }
    }

    fn land(&mut self, token: u64) {
        let Some(way) = self.flights.get_mut(&token) else { return };
        let Some(landing) = way.flight.landed(&mut self.stacks) else { return };
        let Some(way) = self.flights.remove(&token) else { return };
        let _ = self.poller.remove(way.flight.as_fd());
        let Way { pid, pidfd, grave, reply, .. } = way;
        let answer = match landing {
            // How a process that was killed on the way ended, its pidfd tells.
            Landing::Executed | Landing::Died => Ok(Born { pid, pidfd }),
            Landing::Failed { stage, errno, interpreter_missing, .. } => {
                self.bury(Corpse { pid, pidfd, grave, since: None });
                let failed = NotBorn { stage, errno, interpreter_missing };
                let _ = reply.map(|reply| reply.send(Err(failed)));
                return;
            }
        };
        let unheard = match reply {
            Some(reply) => reply.send(answer).err(),
            None => Some(answer),
        };
        // Whoever wanted it has gone.
        if let Some(Ok(Born { pid, pidfd })) = unheard {
            self.bury(Corpse { pid, pidfd, grave, since: None });
        }
    }

    /// Answers for those that are late. They are killed, and buried when they have landed.
    fn overdue(&mut self, now: Tick) {
        let late = |way: &Way| way.reply.is_some() && way.deadline <= now;
        let late: Vec<u64> =
            self.flights.iter().filter(|(_, way)| late(way)).map(|(token, _)| *token).collect();
        for token in late {
            self.give_up(token, Stage::Deadline, Errno(libc::ETIMEDOUT));
        }
    }

    fn give_up(&mut self, token: u64, stage: Stage, errno: Errno) {
        let Some(way) = self.flights.get_mut(&token) else { return };
        let _ = signal::send(way.pidfd.as_fd(), Signal::KILL);
        if let Some(reply) = way.reply.take() {
            let _ = reply.send(Err(NotBorn { stage, errno, interpreter_missing: false }));
        }
    }

    fn bury(&mut self, corpse: Corpse) {
        let ended = wait::peek(corpse.pidfd.as_fd()).map_or(true, |ended| ended.is_some());
        if !ended {
            kill(corpse.pid, corpse.pidfd.as_fd(), corpse.grave.scope);
        }
        let token = self.next;
        self.next += 1;
        let mut corpse = corpse;
        // One that cannot be watched is looked at until it has ended.
        if ended || self.poller.add(corpse.pidfd.as_fd(), token, Interest::Read).is_err() {
            corpse.since = Some(clock::now());
        }
        self.corpses.insert(token, corpse);
    }

    /// Kills what can be seen of all that has ended, by one look at `/proc`, and reaps those that left
    /// nothing.
    fn search(&mut self, now: Tick) {
        let ended = |corpse: &Corpse| corpse.since.is_some();
        if !self.corpses.values().any(ended) {
            return;
        }
        let trees = |corpse: &Corpse| ended(corpse) && corpse.grave.scope == KillScope::Tree;
        let any = self.corpses.values().any(trees);
        let processes = if any { procfs::all().unwrap_or_default() } else { Vec::new() };
        self.corpses.retain(|_, corpse| {
            let Some(since) = corpse.since else { return true };
            if corpse.grave.scope != KillScope::Process {
                // While it is not reaped nobody else can have the group's number.
                let _ = signal::send_group(corpse.pid, Signal::KILL);
            }
            let left = corpse.grave.scope == KillScope::Tree && corpse.kill_left(&processes);
            let over = !left || now.since(since) > BOUND;
            let reaped =
                over && wait::reap(corpse.pidfd.as_fd()).map_or(true, |reaped| reaped.is_some());
            !reaped
        });
    }
}

impl Corpse {
    /// Kills what it left outside its group; whether there was anything.
    fn kill_left(&self, processes: &[procfs::Stat]) -> bool {
        let own = processes.iter().find(|one| one.pid == self.pid);
        let Some(start) = own.map(|own| own.start) else { return false };
        let mut found = false;
        for process in processes {
            let later = process.pid != self.pid && process.start >= start && !process.is_zombie();
            if !later {
                continue;
            }
            let marked = || {
                let value = procfs::variable(process.pid, MARKER);
                value.is_some_and(|value| value == self.grave.marker)
            };
            if process.session != self.pid && process.group != self.pid && !marked() {
                continue;
            }
            found = true;
            // A descriptor first, then a second look: the number still means the same process.
            let Ok(pidfd) = signal::open_pidfd(process.pid) else { continue };
            if procfs::stat(process.pid).is_some_and(|now| now.start == process.start) {
                let _ = signal::send(pidfd.as_fd(), Signal::KILL);
            }
        }
        found
    }
}

/// Kills a process that has not been reaped, and its group where that is meant.
pub(super) fn kill(pid: i32, pidfd: BorrowedFd<'_>, scope: KillScope) {
    let group = scope != KillScope::Process && signal::send_group(pid, Signal::KILL).is_ok();
    if !group {
        let _ = signal::send(pidfd, Signal::KILL);
    }
}
