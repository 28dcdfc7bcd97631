//! The small process above the manager: starts it, restarts it when it dies, reaps and keeps the
//! ends of what it left behind, and relays signals with their origin.
//!
//! No threads, no reactor, no configuration: there is as little here that can fail as possible. It is
//! a subreaper (or PID 1), so orphans of a dead manager come to it; it kills them, writes how they
//! ended into the table of what is alive, and lets the next generation of the manager tell. Runs that
//! are to outlive their manager it spares, keeps their pipes open, and hands them to the next one. A
//! service manager above wharf hears of everything from it alone.

mod binary;
mod given;
mod life;
mod notify;
mod vault;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::{How, Signal};
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::live::{Phase, Table};
use crate::os::procfs::Stuck;
use crate::os::signal::{Arrived, Inbox};
use crate::os::wait::{self, Ended};
use crate::os::{clock, fds, limits, prctl, procfs, signal};
use crate::state::StateDir;
use crate::time::Tick;

use self::binary::Binary;
use self::life::{Abort, Life};
use self::notify::{News, Notifier};
use self::vault::{Left, Vault};

pub use self::given::{Given, GivenError, Role};
pub use self::notify::{NotifyAt, NotifyError, VARIABLES};
pub use self::vault::{ADDRESSES, NOTICES, WORD, Word};

/// The descriptor on which a manager finds the lock of its state directory.
pub const LOCK_FD: i32 = 3;
/// The descriptor on which a manager finds its conversation with the guardian.
pub const CHANNEL_FD: i32 = 4;
/// The descriptor on which a manager hands over what is to outlive it.
pub const VAULT_FD: i32 = 5;
/// The first of the descriptors on which a manager finds sockets that were handed over to wharf.
pub const GIVEN_FD: i32 = 6;
/// What a manager says once it serves its socket.
pub const READY: &[u8] = b"ready";
/// What a manager says before the path of the binary that is to succeed it.
pub const NEXT: &[u8] = b"next ";
/// What a manager says before the [`Relayed`] wish of a client that everything end: the next manager is to
/// know of it, should this one not live to fulfil it.
pub const DOWN: &[u8] = b"down ";
/// What a manager is asked, and what its loop answers: whether it turns.
pub const ALIVE: &[u8] = b"alive";
/// What a manager says when it begins to read its configuration anew …
pub const RELOADING: &[u8] = b"reloading";
/// … when it is done with that, whatever came of it …
pub const RELOADED: &[u8] = b"reloaded";
/// … when everything is to end …
pub const STOPPING: &[u8] = b"stopping";
/// … before a line that says how things are …
pub const STATUS: &[u8] = b"status ";
/// … and before the code with which wharf is to exit, as the last word of an orderly end.
pub const EXIT: &[u8] = b"exit ";
/// The exit code of a manager that makes room for its successor.
pub const SUCCEEDED: i32 = 76;
/// The exit code with which a manager says that starting it again would not help.
pub const HOPELESS: i32 = 78;

/// What the guardian tells the manager: a signal that somebody sent, or what stands for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Which.
    pub signal: Signal,
    /// The sender's process; `None` when the kernel sent it (Ctrl-C, hang-up).
    pub pid: Option<i32>,
    /// The sender's user.
    pub uid: Option<u32>,
    /// Who wished it, where that was no signal but a command that an earlier manager had accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
}

impl From<Arrived> for Relayed {
    fn from(arrived: Arrived) -> Self {
        Self { signal: arrived.signal, pid: arrived.pid, uid: arrived.uid, who: None }
    }
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
    /// What a hang-up means.
    pub hang_up: HangUp,
    /// Who is told how wharf is.
    pub notify: Option<NotifyAt>,
    /// Sockets that were handed over.
    pub given: Given,
}

/// What a hang-up of the guardian means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// Nothing: it was started by `nohup`.
    Nothing,
    /// The terminal is gone, and with it whoever looked on: everything ends.
    End,
    /// Somebody wants the configuration to be read again.
    Reload,
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
    /// Somebody, such as the watchdog of a service manager, has sent `SIGABRT`.
    #[error("go on: SIGABRT was sent{}, so the manager and all it started were killed", by(*.0))]
    Aborted(Option<i32>),
}

fn by(sender: Option<i32>) -> String {
    sender.map(|pid| format!(" by pid {pid}")).unwrap_or_default()
}

/// More ends of the manager than this …
const MOST_ENDS: usize = 1_000;
/// … within this time, or [`HELPLESS`] in a row before it was ready, and the guardian gives up.
const WITHIN: Duration = Duration::from_secs(60);
/// Ends in a row before the manager was ready, not counting those by `SIGKILL`, which come from
/// outside.
const HELPLESS: u32 = 5;
/// So many of those of a binary that is not the guardian's own, and the guardian's own is tried.
const FOREIGN: u32 = 3;
/// How often a successor that there are no resources for (a limit on processes, say) is tried, and
/// how long after another. The first manager is not: who starts it sees what is wrong.
const REFUSED: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);
/// How often that time is doubled where no manager can run and kept runs go on.
const MOST_DOUBLED: u32 = 3;
/// How long the first manager of a new binary may take to serve.
const NEW_PATIENCE: Duration = Duration::from_secs(30);
/// How long the orphans of a dead manager may take to die, but for those that the kernel holds.
const SWEEP_BOUND: Duration = Duration::from_secs(5);

const SIGNALS: u64 = 0;
const MANAGER: u64 = 1;
const CHANNEL: u64 = 2;
const VAULT: u64 = 3;

/// What a guardian waits with.
struct Watch {
    poller: Poller,
    inbox: Inbox,
    /// Children that it had before it was a guardian.
    spared: HashSet<(i32, u64)>,
    vault: Vault,
    notifier: Notifier,
    /// The limit on open descriptors that its managers are given: it needs more for itself.
    nofile: limits::Limit,
}

impl Guardian {
    /// Guards until the manager ends in an orderly way, and returns the exit code for this process.
    ///
    /// # Panics
    /// Never: the signals it names exist.
    pub fn run(self) -> Result<u8, GuardianError> {
        let system = |doing| move |source| GuardianError::System { doing, source };
        // What a shell or a test left open by mistake would otherwise stay open for ever.
        let ours: Vec<_> = self.given.numbers().chain([self.lock.as_raw_fd()]).collect();
        fds::close_others(&ours).map_err(system("closing descriptors"))?;
        signal::block_all().map_err(system("blocking signals"))?;
        prctl::become_subreaper().map_err(system("becoming a subreaper"))?;
        let quit = Signal::new(libc::SIGQUIT).expect("SIGQUIT is a signal");
        let child = Signal::new(libc::SIGCHLD).expect("SIGCHLD is a signal");
        let abort = Signal::new(libc::SIGABRT).expect("SIGABRT is a signal");
        let inbox = Inbox::open(&[Signal::INT, Signal::TERM, Signal::HUP, quit, abort, child])
            .map_err(system("receiving signals"))?;
        let poller = Poller::new().map_err(system("waiting"))?;
        poller.add(inbox.as_fd(), SIGNALS, Interest::Read).map_err(system("waiting"))?;

        // A shell that executes wharf may have children already; they are none of our business.
        let all = children().map_err(system("waiting"))?;
        let spared = all.iter().map(|child| (child.pid, child.start)).collect();
        let nofile = limits::raise_nofile().map_err(system("raising the descriptor limit"))?;
        let notifier = Notifier::new(self.notify.as_ref()).map_err(system("making a socket"))?;
        let vault = Vault::default();
        let mut watch = Watch { poller, inbox, spared, vault, notifier, nofile };
        let guarded = self.guard(&mut watch);
        if let Err(error) = &guarded {
            watch.notifier.status(&format!("cannot {error}"), clock::now());
            watch.notifier.hear(News::Stopping, clock::now());
            // Nobody comes back for what was kept.
            watch.vault.clear();
            self.sweep(&mut watch, &mut Vec::new()).map_err(system("sweeping"))?;
        }
        guarded
    }

    /// Starts one manager after the other.
    fn guard(&self, watch: &mut Watch) -> Result<u8, GuardianError> {
        let system = |doing| move |source| GuardianError::System { doing, source };
        let mut ends = VecDeque::new();
        let mut helpless = 0;
        // The wish that everything end, until a manager has fulfilled it: one that is killed before
        // it read its relayed signal must not undo it.
        let mut asked: Option<Relayed> = None;
        let (mut refused, mut vain) = (0, 0);
        // Signals that came while there was no manager; they are the next one's.
        let mut kept = Vec::new();
        // The binary of the present manager, where that is not this one; and one to be tried.
        let (mut program, mut next): (Option<Binary>, Option<Binary>) = (None, None);
        let mut began = false;
        loop {
            let tried = next.take();
            let binary = tried.as_ref().or(program.as_ref());
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
                    pause(watch, AGAIN, &mut kept).map_err(system("waiting"))?;
                    continue;
                }
                life => life?,
            };
            (refused, began) = (0, true);
            watch.notifier.begin(clock::now());
            life.trial = tried.is_some().then(|| clock::now() + NEW_PATIENCE);
            if let Some(wish) = &asked {
                relay(&life, wish);
            }
            for arrived in kept.drain(..) {
                self.obey(arrived, &mut life, watch, &mut asked).map_err(system("waiting"))?;
            }
            let fds = [(&life.pidfd, MANAGER), (&life.channel, CHANNEL), (&life.vault, VAULT)];
            for (fd, token) in fds {
                let watched = watch.poller.add(fd.as_fd(), token, Interest::Read);
                watched.map_err(system("waiting"))?;
            }
            let ended = self.watch(&mut life, watch, &mut asked).map_err(system("waiting"))?;
            let failed = tried.is_some() && !life.ready;
            vain = if life.ready { 0 } else { vain };
            let hopeless = ended.how == How::Exited(HOPELESS) && !failed;
            let is_wanted = asked.is_none() && watch.vault.keeps_runs();
            let goes_on = hopeless && (program.is_some() || is_wanted);
            if (hopeless || ended.how == How::Exited(0)) && !failed && !goes_on {
                watch.vault.clear();
            }
            let left = self.sweep(watch, &mut kept).map_err(system("sweeping"))?;
            if let Some(Abort { by }) = life.aborted {
                return Err(GuardianError::Aborted(by));
            }
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
                    next = life.next.as_deref().and_then(successor);
                }
                How::Exited(0) => return Ok(life.exit.unwrap_or(0)),
                How::Exited(HOPELESS) if program.take().is_some() => {
                    tracing::error!(
                        "the binary of the last manager cannot run here; this one is tried"
                    );
                }
                How::Exited(HOPELESS) if goes_on => {
                    tracing::error!(
                        "no manager can run here, see above; what is kept goes on, and it is tried again"
                    );
                    let doubled = AGAIN.saturating_mul(1 << vain);
                    vain = (vain + 1).min(MOST_DOUBLED);
                    pause(watch, doubled, &mut kept).map_err(system("waiting"))?;
                    let end = kept.iter().position(|one| self.means_the_end(one.signal));
                    asked = end.map(|at| Relayed::from(kept.remove(at)));
                }
                How::Exited(HOPELESS) => {
                    return Err(GuardianError::GaveUp("it cannot run here, see above".into()));
                }
                how => {
                    let killed = how.signal() == Some(Signal::KILL);
                    helpless = if life.ready || killed { 0 } else { helpless + 1 };
                    if helpless >= FOREIGN && program.take().is_some() {
                        tracing::error!(%how, "the binary of the last manager does not come to serve; this one is tried");
                        helpless = 0;
                    }
                    give_up(&mut ends, clock::now(), helpless, how)?;
                    tracing::warn!(pid = ended.pid, %how, "the manager died; starting it again");
                }
            }
        }
    }

    /// Watches a manager to its end, relaying signals to it and reaping strays.
    fn watch(
        &self,
        life: &mut Life,
        watch: &mut Watch,
        asked: &mut Option<Relayed>,
    ) -> io::Result<Ended> {
        let mut ready = Ready::new(8);
        loop {
            let trial = life.trial.filter(|_| !life.ready);
            let due = trial.into_iter().chain(watch.notifier.due()).min();
            watch.poller.wait(&mut ready, due.map(|until| until.since(clock::now())))?;
            if trial.is_some_and(|until| until <= clock::now()) {
                tracing::error!("the new binary does not come to serve; it is killed");
                signal::send(life.pidfd.as_fd(), Signal::KILL)?;
                life.trial = None;
            }
            let tokens: Vec<u64> = ready.tokens().collect();
            if tokens.contains(&SIGNALS) {
                self.signalled(life, watch, asked)?;
            }
            if tokens.contains(&CHANNEL) && !life.hear(&mut watch.notifier, asked)? {
                watch.poller.remove(life.channel.as_fd())?;
            }
            if tokens.contains(&VAULT) && !watch.vault.hear(life.vault.as_fd())? {
                watch.poller.remove(life.vault.as_fd())?;
            }
            if watch.notifier.tick(clock::now(), life.ready) {
                // One that takes nothing any more gives no sign of life either.
                let _ = fds::try_send(life.channel.as_fd(), ALIVE, &[]);
            }
            if let Some(ended) = wait::reap(life.pidfd.as_fd())? {
                watch.poller.remove(life.pidfd.as_fd())?;
                // Gone already where its end was read; else it would stay readable from now on.
                let _ = watch.poller.remove(life.channel.as_fd());
                let _ = watch.poller.remove(life.vault.as_fd());
                // Whatever it said before it died counts.
                life.hear(&mut watch.notifier, asked)?;
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

    /// Takes the signals that have arrived.
    fn signalled(
        &self,
        life: &mut Life,
        watch: &mut Watch,
        asked: &mut Option<Relayed>,
    ) -> io::Result<()> {
        while let Some(arrived) = watch.inbox.take()? {
            self.obey(arrived, life, watch, asked)?;
        }
        Ok(())
    }

    fn obey(
        &self,
        arrived: Arrived,
        life: &mut Life,
        watch: &mut Watch,
        asked: &mut Option<Relayed>,
    ) -> io::Result<()> {
        if arrived.signal.number() == libc::SIGABRT {
            // It comes where a manager gives no sign of life: nothing is to be expected of that one.
            tracing::error!(pid = arrived.pid, "SIGABRT: everything is killed");
            life.aborted = Some(Abort { by: arrived.pid });
            return signal::send(life.pidfd.as_fd(), Signal::KILL);
        }
        if arrived.signal == Signal::HUP && self.hang_up == HangUp::Nothing {
            return Ok(());
        }
        if self.means_the_end(arrived.signal) {
            *asked = Some(Relayed::from(arrived));
            watch.notifier.hear(News::Stopping, clock::now());
        }
        relay(life, &Relayed::from(arrived));
        Ok(())
    }

    /// The table of what is alive, where a manager has come to making it.
    fn table(&self) -> Option<Table> {
        Table::existing(&self.state.live()).ok().flatten()
    }

    /// Whether a signal asks for the end of everything; a hang-up of a background run does not.
    fn means_the_end(&self, signal: Signal) -> bool {
        match signal.number() {
            libc::SIGCHLD => false,
            libc::SIGHUP => self.hang_up == HangUp::End,
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
        let mut stuck = Stuck::default();
        loop {
            let keep = |ended: &Ended| keep(table.as_ref(), ended);
            if watch.vault.reap_others(None, table.as_ref(), keep)? == Left::Nobody {
                return Ok(0);
            }
            let kept = watch.vault.spared(table.as_ref());
            let mut orphans = Vec::new();
            for orphan in children()? {
                if watch.spared.contains(&(orphan.pid, orphan.start)) || kept.spares(&orphan) {
                    continue;
                }
                // A child of ours that we have not reaped keeps its number.
                let _ = signal::send_pid(orphan.pid, Signal::KILL);
                orphans.push(orphan.pid);
            }
            let (left, now) = (orphans.len(), clock::now());
            // Who dies hands its children to us a moment later: only a second empty look counts.
            if now >= deadline || (left == 0 && was_empty) || stuck.for_good(orphans, now) {
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
    let now = clock::now();
    let due = watch.notifier.due().map(|due| due.since(now));
    watch.poller.wait(&mut Ready::new(4), Some(due.map_or(limit, |due| due.min(limit))))?;
    watch.notifier.tick(clock::now(), false);
    while let Some(arrived) = watch.inbox.take()? {
        if arrived.signal.number() != libc::SIGCHLD {
            signals.push(arrived);
        }
    }
    Ok(())
}

/// Waits for so long, and keeps the signals that come.
fn pause(watch: &mut Watch, length: Duration, signals: &mut Vec<Arrived>) -> io::Result<()> {
    let until = clock::now() + length;
    while clock::now() < until {
        collect(watch, until.since(clock::now()), signals)?;
    }
    Ok(())
}

/// The living children of this process.
fn children() -> io::Result<Vec<procfs::Stat>> {
    let me = prctl::pid();
    let all = procfs::all()?.into_iter();
    Ok(all.filter(|one| one.parent == me && !one.is_zombie()).collect())
}

fn relay(life: &Life, relayed: &Relayed) {
    if relayed.signal.number() == libc::SIGCHLD {
        return;
    }
    if let Ok(text) = serde_json::to_vec(relayed) {
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

/// The binary that a manager makes room for; `None` where it is gone.
fn successor(path: &Path) -> Option<Binary> {
    match Binary::open(path.to_owned()) {
        Ok(binary) => {
            tracing::info!(binary = %binary.path().display(), "the manager makes room for a new one");
            Some(binary)
        }
        Err(error) => {
            tracing::error!(binary = %path.display(), %error, "the new binary is gone; the old one goes on");
            None
        }
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
