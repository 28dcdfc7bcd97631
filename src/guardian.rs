//! The small process above the manager: starts it, restarts it when it dies, reaps and keeps the
//! ends of what it left behind, and relays signals with their origin.
//!
//! No threads, no reactor, no configuration: there is as little here that can fail as possible. It is
//! a subreaper (or PID 1), so orphans of a dead manager come to it; it kills them, writes how they
//! ended into the table of what is alive, and lets the next generation of the manager tell. Runs that
//! are to outlive their manager it spares, keeps their pipes open, and hands them to the next one.

mod vault;

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::{How, Signal};
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::limits::Resource;
use crate::os::live::{Phase, Table};
use crate::os::signal::{Arrived, Inbox};
use crate::os::spawn::{ChildLimit, Landing, Launch, Stacks};
use crate::os::wait::{self, Ended};
use crate::os::{clock, fds, limits, memory, prctl, procfs, signal};
use crate::state::StateDir;
use crate::time::Tick;

use self::vault::{Left, Vault};

pub use self::vault::{WORD, Word};

/// The descriptor on which a manager finds the lock of its state directory.
pub const LOCK_FD: i32 = 3;
/// The descriptor on which a manager finds its conversation with the guardian.
pub const CHANNEL_FD: i32 = 4;
/// The descriptor on which a manager hands over what is to outlive it.
pub const VAULT_FD: i32 = 5;
/// What a manager says once it serves its socket.
pub const READY: &[u8] = b"ready";
/// What a manager says before the path of the binary that is to succeed it.
pub const NEXT: &[u8] = b"next ";
/// The exit code of a manager that makes room for its successor.
pub const SUCCEEDED: i32 = 76;
/// The exit code with which a manager says that starting it again would not help.
pub const HOPELESS: i32 = 78;

/// What the guardian tells the manager: a signal that somebody sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Which.
    pub signal: Signal,
    /// The sender's process; `None` when the kernel sent it (Ctrl-C, hang-up).
    pub pid: Option<i32>,
    /// The sender's user.
    pub uid: Option<u32>,
}

/// How a manager is started.
#[derive(Debug)]
pub struct Guardian {
    /// The state directory; its lock is held.
    pub state: StateDir,
    /// The lock, handed on to each manager.
    pub lock: OwnedFd,
    /// The words to run a manager with, after the program's name.
    pub arguments: Vec<String>,
    /// The environment to run it with.
    pub environment: Vec<(String, String)>,
    /// Whether a hang-up means something: not to who was started by `nohup`.
    pub hears_hang_up: bool,
}

/// Why a guardian stops without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// A system call that cannot fail did.
    #[error("guard the manager: {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The manager cannot be started.
    #[error("start the manager: {0} failed with {1}")]
    Start(&'static str, crate::exit::Errno),
    /// The manager ends again and again.
    #[error("keep the manager running: {0}")]
    GaveUp(String),
}

/// More ends of the manager than this …
const MOST_ENDS: usize = 1_000;
/// … within this time, or [`HELPLESS`] in a row before it was ready, and the guardian gives up.
const WITHIN: Duration = Duration::from_secs(60);
/// Ends in a row before the manager was ready, not counting those by `SIGKILL`, which come from
/// outside.
const HELPLESS: u32 = 5;
/// How often a successor that there are no resources for (a limit on processes, say) is tried, and
/// how long after another. The first manager is not: who starts it sees what is wrong.
const REFUSED: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);
/// How long the first manager of a new binary may take to serve.
const NEW_PATIENCE: Duration = Duration::from_secs(30);
/// How long the orphans of a dead manager may take to die.
const SWEEP_BOUND: Duration = Duration::from_secs(5);

const SIGNALS: u64 = 0;
const MANAGER: u64 = 1;
const CHANNEL: u64 = 2;
const VAULT: u64 = 3;
/// Room for the longest word of a manager: a path (PATH_MAX) and what stands before it.
const LONGEST: usize = 4096 + NEXT.len();

struct Life {
    pid: i32,
    pidfd: OwnedFd,
    channel: OwnedFd,
    /// The conversation about kept runs.
    vault: OwnedFd,
    ready: bool,
    /// The binary that it wants to succeed it.
    next: Option<PathBuf>,
    /// Until when it must serve, where it is the first of a new binary.
    trial: Option<Tick>,
}

/// What a guardian waits with.
struct Watch {
    poller: Poller,
    inbox: Inbox,
    /// Children that it had before it was a guardian.
    spared: HashSet<(i32, u64)>,
    vault: Vault,
    /// The limit on open descriptors that its managers are given: it needs more for itself.
    nofile: limits::Limit,
}

impl Guardian {
    /// Guards until the manager ends in an orderly way. The exit code for this process is 0 then.
    ///
    /// # Panics
    /// Never: the signals it names exist.
    pub fn run(self) -> Result<(), GuardianError> {
        let system = |doing| move |source| GuardianError::System { doing, source };
        // What a shell or a test left open by mistake would otherwise stay open for ever.
        fds::close_others(&[self.lock.as_raw_fd()]).map_err(system("closing descriptors"))?;
        signal::block_all().map_err(system("blocking signals"))?;
        prctl::become_subreaper().map_err(system("becoming a subreaper"))?;
        let quit = Signal::new(libc::SIGQUIT).expect("SIGQUIT is a signal");
        let child = Signal::new(libc::SIGCHLD).expect("SIGCHLD is a signal");
        let inbox = Inbox::open(&[Signal::INT, Signal::TERM, Signal::HUP, quit, child])
            .map_err(system("receiving signals"))?;
        let poller = Poller::new().map_err(system("waiting"))?;
        poller.add(inbox.as_fd(), SIGNALS, Interest::Read).map_err(system("waiting"))?;

        // A shell that executes wharf may have children already; they are none of our business.
        let all = children().map_err(system("waiting"))?;
        let spared = all.iter().map(|child| (child.pid, child.start)).collect();
        let nofile = limits::raise_nofile().map_err(system("raising the descriptor limit"))?;
        let mut watch = Watch { poller, inbox, spared, vault: Vault::default(), nofile };
        let guarded = self.guard(&mut watch);
        if guarded.is_err() {
            // Nobody comes back for what was kept.
            watch.vault.clear();
            self.sweep(&mut watch, &mut Vec::new()).map_err(system("sweeping"))?;
        }
        guarded
    }

    /// Starts one manager after the other.
    fn guard(&self, watch: &mut Watch) -> Result<(), GuardianError> {
        let system = |doing| move |source| GuardianError::System { doing, source };
        let mut ends = VecDeque::new();
        let mut helpless = 0;
        // The wish that everything end, until a manager has fulfilled it: one that is killed before
        // it read its relayed signal must not undo it.
        let mut asked = None;
        let mut refused = 0;
        // Signals that came while there was no manager; they are the next one's.
        let mut kept = Vec::new();
        // The binary of the present manager, where that is not this one; and one to be tried.
        let (mut program, mut next): (Option<PathBuf>, Option<PathBuf>) = (None, None);
        let mut began = false;
        loop {
            let tried = next.take();
            let binary = tried.as_deref().or(program.as_deref());
            let mut life = match self.start(watch.nofile, binary) {
                Err(error) if tried.is_some() => {
                    tracing::error!(%error, "the new binary cannot be started; the old one goes on");
                    continue;
                }
                Err(error) if program.is_some() => {
                    tracing::error!(%error, "the binary of the last manager cannot be started; this one is");
                    program = None;
                    continue;
                }
                Err(error) if refused < REFUSED && began => {
                    refused += 1;
                    tracing::warn!(%error, "trying again");
                    let until = clock::now() + AGAIN;
                    while clock::now() < until {
                        collect(watch, until.since(clock::now()), &mut kept)
                            .map_err(system("waiting"))?;
                    }
                    continue;
                }
                life => life?,
            };
            (refused, began) = (0, true);
            life.trial = tried.is_some().then(|| clock::now() + NEW_PATIENCE);
            for arrived in asked.into_iter().chain(kept.drain(..)) {
                relay(&life, arrived);
            }
            let fds = [(&life.pidfd, MANAGER), (&life.channel, CHANNEL), (&life.vault, VAULT)];
            for (fd, token) in fds {
                let watched = watch.poller.add(fd.as_fd(), token, Interest::Read);
                watched.map_err(system("waiting"))?;
            }
            let ended = self.watch(&mut life, watch, &mut asked).map_err(system("waiting"))?;
            let failed = tried.is_some() && !life.ready;
            let over = matches!(ended.how, How::Exited(0 | HOPELESS)) && !failed;
            if over {
                watch.vault.clear();
            }
            let left = self.sweep(watch, &mut kept).map_err(system("sweeping"))?;
            if left > 0 {
                tracing::warn!(processes = left, "could not be killed and are left behind");
            }
            if failed {
                let how = ended.how;
                tracing::error!(%how, "the new binary ended before it served; the old one goes on");
                continue;
            }
            program = tried.or(program);
            match ended.how {
                How::Exited(SUCCEEDED) if life.next.is_some() => {
                    next = life.next;
                    tracing::info!(binary = ?next, "the manager makes room for a new one");
                }
                How::Exited(0) => return Ok(()),
                How::Exited(HOPELESS) => {
                    return Err(GuardianError::GaveUp("it cannot run here, see above".into()));
                }
                how => {
                    let killed = how.signal() == Some(Signal::KILL);
                    helpless = if life.ready || killed { 0 } else { helpless + 1 };
                    give_up(&mut ends, clock::now(), helpless, how)?;
                    tracing::warn!(pid = ended.pid, %how, "the manager died; starting it again");
                }
            }
        }
    }

    fn start(&self, nofile: limits::Limit, binary: Option<&Path>) -> Result<Life, GuardianError> {
        let system = |doing| move |source| GuardianError::System { doing, source };
        let (ours, theirs) = fds::message_pair().map_err(system("making a socket"))?;
        let (vault, stored) = fds::message_pair().map_err(system("making a socket"))?;
        // The open file itself, unless a new binary was asked for.
        let own = Path::new("/proc/self/exe");
        let program = std::iter::once(binary.unwrap_or(own).as_os_str().as_bytes());
        let words: Vec<&[u8]> =
            program.chain(self.arguments.iter().map(String::as_bytes)).collect();
        let environment = self.environment.iter().map(|(name, value)| (&**name, &**value));
        let nul = |_| GuardianError::Start("its arguments", crate::exit::Errno(libc::EINVAL));
        let mut launch = Box::new(Launch::new(&words, environment).map_err(nul)?);
        launch.argv0("wharf").map_err(nul)?.outlives_parent();
        let resource = Resource::Nofile;
        launch.limit(ChildLimit { resource, soft: nofile.soft, hard: nofile.hard });
        let null = std::fs::File::open("/dev/null").map_err(system("opening /dev/null"))?;
        let places = [
            (null.as_fd(), 0),
            (self.lock.as_fd(), LOCK_FD),
            (theirs.as_fd(), CHANNEL_FD),
            (stored.as_fd(), VAULT_FD),
        ];
        let mut stacks = Stacks::default();
        let failed =
            |(stage, errno): (crate::exit::Stage, _)| GuardianError::Start(stage.doing(), errno);
        let mut started = launch.start(&places, &mut stacks).map_err(failed)?;
        let poller = Poller::new().map_err(system("waiting"))?;
        poller.add(started.flight.as_fd(), 0, Interest::Read).map_err(system("waiting"))?;
        let mut ready = Ready::new(1);
        loop {
            poller.wait(&mut ready, None).map_err(system("waiting"))?;
            match started.flight.landed(&mut stacks) {
                None => {}
                // A manager that died on its way is seen to be dead like any other.
                Some(Landing::Executed | Landing::Died) => break,
                Some(Landing::Failed { stage, errno, .. }) => {
                    return Err(failed((stage, errno)));
                }
            }
        }
        let (pid, pidfd) = (started.pid, started.pidfd);
        let (next, trial) = (None, None);
        Ok(Life { pid, pidfd, channel: ours, vault, ready: false, next, trial })
    }

    /// Watches a manager to its end, relaying signals to it and reaping strays.
    fn watch(
        &self,
        life: &mut Life,
        watch: &mut Watch,
        asked: &mut Option<Arrived>,
    ) -> io::Result<Ended> {
        let mut ready = Ready::new(8);
        loop {
            let trial = life.trial.filter(|_| !life.ready);
            watch.poller.wait(&mut ready, trial.map(|until| until.since(clock::now())))?;
            if trial.is_some_and(|until| until <= clock::now()) {
                tracing::error!("the new binary does not come to serve; it is killed");
                signal::send(life.pidfd.as_fd(), Signal::KILL)?;
                life.trial = None;
            }
            let tokens: Vec<u64> = ready.tokens().collect();
            if tokens.contains(&SIGNALS) {
                while let Some(arrived) = watch.inbox.take()? {
                    if arrived.signal != Signal::HUP || self.hears_hang_up {
                        if self.means_the_end(arrived.signal) {
                            *asked = Some(arrived);
                        }
                        relay(life, arrived);
                    }
                }
            }
            if tokens.contains(&CHANNEL) {
                let mut message = [0; LONGEST];
                while let Some(received) = fds::receive(life.channel.as_fd(), &mut message)? {
                    let said = &message[..received.bytes];
                    if said == READY {
                        life.ready = true;
                        memory::give_back();
                    } else if let Some(path) = said.strip_prefix(NEXT) {
                        life.next = Some(PathBuf::from(OsStr::from_bytes(path)));
                    } else if said.is_empty() {
                        watch.poller.remove(life.channel.as_fd())?;
                        break;
                    }
                }
            }
            if tokens.contains(&VAULT) && !watch.vault.hear(life.vault.as_fd())? {
                watch.poller.remove(life.vault.as_fd())?;
            }
            if let Some(ended) = wait::reap(life.pidfd.as_fd())? {
                watch.poller.remove(life.pidfd.as_fd())?;
                // Gone already where its end was read; else it would stay readable from now on.
                let _ = watch.poller.remove(life.channel.as_fd());
                let _ = watch.poller.remove(life.vault.as_fd());
                // Whatever it said before it died counts.
                watch.vault.hear(life.vault.as_fd())?;
                watch.vault.forsaken();
                return Ok(ended);
            }
            // While a manager is dying its children come to us before it is seen to be dead itself;
            // and those of an earlier one that were kept are ours.
            if let Ok(Some(_)) = wait::peek_any() {
                let table = self.table();
                let keep = |ended: &Ended| keep(table.as_ref(), ended);
                watch.vault.reap_others(Some(life.pid), table.as_ref(), keep)?;
            }
        }
    }

    /// The table of what is alive, where a manager has come to making it.
    fn table(&self) -> Option<Table> {
        Table::existing(&self.state.live()).ok().flatten()
    }

    /// Whether a signal asks for the end of everything; a hang-up of a background run does not.
    fn means_the_end(&self, signal: Signal) -> bool {
        match signal.number() {
            libc::SIGCHLD => false,
            libc::SIGHUP => self.arguments.iter().any(|word| word == "--foreground"),
            _ => true,
        }
    }

    /// Kills and reaps everything that came to us and is not kept, and keeps how each run of a service
    /// ended, and the signals that arrive meanwhile. Returns how many could not be killed within the
    /// bound.
    fn sweep(&self, watch: &mut Watch, signals: &mut Vec<Arrived>) -> io::Result<usize> {
        let table = self.table();
        let deadline = clock::now() + SWEEP_BOUND;
        let mut was_empty = false;
        loop {
            let keep = |ended: &Ended| keep(table.as_ref(), ended);
            if watch.vault.reap_others(None, table.as_ref(), keep)? == Left::Nobody {
                return Ok(0);
            }
            let kept = watch.vault.spared(table.as_ref());
            let mut left = 0;
            for orphan in children()? {
                if watch.spared.contains(&(orphan.pid, orphan.start)) || kept.spares(&orphan) {
                    continue;
                }
                // A child of ours that we have not reaped keeps its number.
                let _ = signal::send_pid(orphan.pid, Signal::KILL);
                left += 1;
            }
            // Who dies hands its children to us a moment later: only a second empty look counts.
            if clock::now() >= deadline || (left == 0 && was_empty) {
                return Ok(left);
            }
            was_empty = left == 0;
            if was_empty {
                continue;
            }
            collect(watch, Duration::from_millis(20), signals)?;
        }
    }
}

/// Waits for signals while there is no manager, at most `limit`, and keeps them.
fn collect(watch: &mut Watch, limit: Duration, signals: &mut Vec<Arrived>) -> io::Result<()> {
    watch.poller.wait(&mut Ready::new(4), Some(limit))?;
    while let Some(arrived) = watch.inbox.take()? {
        if arrived.signal.number() != libc::SIGCHLD {
            signals.push(arrived);
        }
    }
    Ok(())
}

/// The living children of this process.
fn children() -> io::Result<Vec<procfs::Stat>> {
    let me = prctl::pid();
    let all = procfs::all()?.into_iter();
    Ok(all.filter(|one| one.parent == me && !one.is_zombie()).collect())
}

fn relay(life: &Life, arrived: Arrived) {
    if arrived.signal.number() == libc::SIGCHLD {
        return;
    }
    let relayed = Relayed { signal: arrived.signal, pid: arrived.pid, uid: arrived.uid };
    if let Ok(text) = serde_json::to_vec(&relayed) {
        // A manager that does not listen any more is about to end, and its end is seen.
        let _ = fds::send(life.channel.as_fd(), &text, &[]);
    }
}

/// Writes how an orphan ended into the slot of its run. A number can stand in several slots when it
/// was reused; it can only have been the latest run's. What a manager saw before it died stays: it
/// knows of a failed start more than the exit code, and the number may have gone to a stranger since.
fn keep(table: Option<&Table>, ended: &Ended) {
    let Some(table) = table else { return };
    let slots = table.used().filter(|(_, slot)| slot.phase() == Phase::Open);
    let owner = slots
        .filter(|(_, slot)| slot.pid() == Some(ended.pid))
        .max_by_key(|(_, slot)| slot.incarnation());
    if let Some((_, slot)) = owner
        && slot.kept_end().is_none()
    {
        slot.keep_end(ended.how, &ended.usage);
    }
}

fn give_up(
    ends: &mut VecDeque<Tick>,
    now: Tick,
    helpless: u32,
    how: How,
) -> Result<(), GuardianError> {
    ends.push_back(now);
    while ends.front().is_some_and(|first| now.since(*first) > WITHIN) {
        ends.pop_front();
    }
    if helpless >= HELPLESS {
        let text = format!("it ended {helpless} times in a row before it was ready, last: {how}");
        return Err(GuardianError::GaveUp(text));
    }
    if ends.len() > MOST_ENDS {
        let text = format!("it ended {} times within a minute, last: {how}", ends.len());
        return Err(GuardianError::GaveUp(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_up_on_a_manager_that_never_gets_ready_or_dies_too_often() {
        let at = |seconds: u64| Tick(seconds * 1_000_000_000);
        let how = How::Exited(1);
        let mut ends = VecDeque::new();
        for helpless in 0..HELPLESS {
            give_up(&mut ends, at(1), helpless, how).unwrap();
        }
        let said = give_up(&mut ends, at(1), HELPLESS, how).unwrap_err().to_string();
        assert!(said.contains("5 times in a row") && said.contains("exited with code 1"), "{said}");

        let mut ends = VecDeque::new();
        for _ in 0..MOST_ENDS {
            give_up(&mut ends, at(1), 0, how).unwrap();
        }
        give_up(&mut ends.clone(), at(70), 0, how).unwrap();
        assert!(give_up(&mut ends, at(60), 0, how).is_err());
    }
}
