//! What the guardian keeps for runs that outlive their manager: the manager's ends of their pipes, and
//! their ends when they end, until a manager has written them down; and sockets, so that there is no
//! moment in which nobody holds them.
//!
//! A manager hands the descriptors over before it makes the process, so that there is no moment in which
//! its death would close them. The words on this conversation are sixteen bytes: what, and of which run.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::name::{Incarnation, Realm, ReplicaId};
use crate::os::live::{Phase, Table};
use crate::os::procfs::{self, Stat};
use crate::os::wait::{self, Ended};
use crate::os::{fds, listen, mark};

/// What is said between manager and guardian of a kept run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Manager: keep these descriptors (our ends of error, output, input and log, in this order), and
    /// from now on the run. Or what else its number stands for.
    Store,
    /// Manager: its input is closed.
    CloseInput,
    /// Manager: it is over and recorded.
    Release,
    /// Manager: give me what you have of it. Answered by `Given` or `Unknown`.
    Take,
    /// Manager: runs that were not taken are no more.
    Settled,
    /// Manager: what this run started lives on when it is over (`stop_kill: process`).
    Spare,
    /// Guardian: here they are.
    Given,
    /// Guardian: there is nothing of it.
    Unknown,
}

/// From here on numbers stand for addresses that are listened at: the socket, and of a Unix socket what
/// stands for its file.
pub const ADDRESSES: Incarnation = Incarnation(1 << 60);
/// From here on numbers stand for the sockets at which runs are heard: that of the run, and this added.
pub const NOTICES: Incarnation = Incarnation(1 << 61);

/// The length of a word.
pub const WORD: usize = 16;

impl Word {
    const ALL: [Self; 8] = [
        Self::Store,
        Self::CloseInput,
        Self::Release,
        Self::Take,
        Self::Settled,
        Self::Spare,
        Self::Given,
        Self::Unknown,
    ];

    /// As it is sent.
    pub fn encode(self, incarnation: Incarnation) -> [u8; WORD] {
        let mut bytes = [0; WORD];
        bytes[0] = self as u8;
        bytes[8..].copy_from_slice(&incarnation.0.to_le_bytes());
        bytes
    }

    /// Reads it; `None` for what is no word.
    pub fn decode(bytes: &[u8]) -> Option<(Self, Incarnation)> {
        let bytes: &[u8; WORD] = bytes.try_into().ok()?;
        let word = *Self::ALL.get(usize::from(bytes[0]))?;
        let number = u64::from_le_bytes(bytes[8..].try_into().ok()?);
        Some((word, Incarnation(number)))
    }
}

/// Where the input stands among the descriptors of a run.
const INPUT: usize = 2;

#[derive(Debug, Default)]
struct Kept {
    fds: Vec<OwnedFd>,
    /// Its process, once that was seen to have ended and is not reaped.
    ended: Option<i32>,
    /// Whether the present manager knows of it.
    taken: bool,
}

/// So many runs are remembered of which what they started lives on; of more, the newest.
const MOST_SPARED: usize = 10_000;

/// The kept runs.
#[derive(Debug, Default)]
pub(super) struct Vault {
    kept: HashMap<Incarnation, Kept>,
    /// Runs that are over or will be, and what they started is not killed.
    spare: BTreeSet<Incarnation>,
}

impl Vault {
    /// Nothing is kept any more; who has ended is reaped.
    pub(super) fn clear(&mut self) {
        self.kept.drain().for_each(|(number, kept)| kept.forget(number));
        self.spare.clear();
    }

    /// Whether there are runs that would be left without anybody.
    pub(super) fn keeps_runs(&self) -> bool {
        let is_run = |number: &Incarnation| (1..ADDRESSES.0).contains(&number.0);
        self.kept.iter().any(|(number, kept)| is_run(number) && kept.ended.is_none())
    }

    /// A manager has ended, and the next one knows of nothing.
    pub(super) fn forsaken(&mut self) {
        self.kept.values_mut().for_each(|kept| kept.taken = false);
    }

    /// Takes everything that a manager has said. False once it never will say anything again.
    pub(super) fn hear(&mut self, manager: BorrowedFd<'_>) -> io::Result<bool> {
        let mut bytes = [0; WORD];
        while let Some(received) = fds::receive(manager, &mut bytes)? {
            if received.bytes == 0 {
                return Ok(false);
            }
            let Some((word, incarnation)) = Word::decode(&bytes[..received.bytes]) else {
                continue;
            };
            match word {
                // Without room for its descriptors it cannot be kept; it is then no run of ours.
                Word::Store if received.lost => {}
                Word::Store => {
                    let kept = Kept { fds: received.fds, ended: None, taken: true };
                    self.kept.insert(incarnation, kept);
                }
                Word::CloseInput => {
                    if let Some(kept) = self.kept.get_mut(&incarnation) {
                        kept.fds.truncate(INPUT);
                    }
                }
                Word::Release => {
                    if let Some(kept) = self.kept.remove(&incarnation) {
                        kept.reap();
                    }
                }
                Word::Spare => {
                    self.spare.insert(incarnation);
                    if self.spare.len() > MOST_SPARED {
                        self.spare.pop_first();
                    }
                }
                Word::Take => self.give(manager, incarnation),
                Word::Settled => {
                    let left = self.kept.extract_if(|_, kept| !kept.taken);
                    left.for_each(|(number, kept)| kept.forget(number));
                }
                Word::Given | Word::Unknown => {}
            }
        }
        Ok(true)
    }

    fn give(&mut self, manager: BorrowedFd<'_>, incarnation: Incarnation) {
        let kept = self.kept.get_mut(&incarnation);
        let fds: Option<Vec<RawFd>> = kept.map(|kept| {
            kept.taken = true;
            kept.fds.iter().map(AsRawFd::as_raw_fd).collect()
        });
        let word = if fds.is_some() { Word::Given } else { Word::Unknown };
        // One that does not listen any more is about to end, and its end is seen.
        let _ = fds::try_send(manager, &word.encode(incarnation), &fds.unwrap_or_default());
    }

    /// Notes how a kept run ended. It stays a zombie, so that its number stays its own until a manager
    /// has written its end down. False for whoever is none.
    pub(super) fn note(&mut self, table: Option<&Table>, ended: &Ended) -> bool {
        let Some(table) = table else { return false };
        let open = table.used().filter(|(_, slot)| slot.phase() == Phase::Open);
        let owner = open
            .filter(|(_, slot)| slot.pid() == Some(ended.pid))
            .max_by_key(|(_, slot)| slot.incarnation());
        let Some((_, slot)) = owner else { return false };
        let Some(kept) = self.kept.get_mut(&slot.incarnation()) else { return false };
        if slot.kept_end().is_none() {
            slot.keep_end(ended.how, &ended.usage);
        }
        kept.ended = Some(ended.pid);
        true
    }

    /// Those of kept runs whose programs run: they and what they started are spared.
    pub(super) fn spared(&self, table: Option<&Table>) -> Spared {
        let Some(table) = table else { return Spared::default() };
        let runs = table
            .used()
            .filter(|(_, slot)| slot.phase() == Phase::Open && slot.kept().ran().is_some())
            .filter(|(_, slot)| self.kept.contains_key(&slot.incarnation()));
        let mut spared = Spared { realm: Some(table.realm()), ..Spared::default() };
        spared.marks = self.spare.iter().map(|run| mark::of(table.realm(), *run)).collect();
        for (_, slot) in runs {
            let (Some(pid), Some(replica)) = (slot.pid(), slot.replica()) else { continue };
            spared.leaders.insert(pid);
            spared.marks.insert(mark::of(table.realm(), slot.incarnation()));
            spared.groups.insert(group_of(table.realm(), &replica));
            spared.runs.insert(slot.incarnation(), replica);
        }
        spared
    }

    /// Reaps what has ended of our children, except for the manager, which its own watch reaps, and for
    /// kept runs, whose ends are noted. `keep` is told of each that is reaped.
    pub(super) fn reap_others(
        &mut self,
        manager: Option<i32>,
        table: Option<&Table>,
        keep: impl Fn(&Ended),
    ) -> io::Result<Left> {
        loop {
            match wait::peek_any() {
                Ok(None) => return Ok(Left::Some),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    return Ok(Left::Nobody);
                }
                Err(error) => return Err(error),
                // The sweep after it finds the others.
                Ok(Some(ended)) if Some(ended.pid) == manager => return Ok(Left::Some),
                Ok(Some(ended)) if self.note(table, &ended) => break,
                Ok(Some(ended)) => {
                    wait::reap_pid(ended.pid)?;
                    keep(&ended);
                }
            }
        }
        // The kernel shows one that stays, and would show no other: look for them.
        let me = crate::os::prctl::pid();
        for zombie in procfs::all()?.iter().filter(|one| one.parent == me && one.is_zombie()) {
            if Some(zombie.pid) == manager {
                continue;
            }
            if let Ok(Some(ended)) = wait::peek_pid(zombie.pid)
                && !self.note(table, &ended)
            {
                wait::reap_pid(ended.pid)?;
                keep(&ended);
            }
        }
        Ok(Left::Some)
    }
}

/// Whether there is any child left, ended or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nobody,
    Some,
}

impl Kept {
    /// Nobody comes back for it: a run that has ended is reaped, the file of a socket is removed.
    fn forget(self, number: Incarnation) {
        self.reap();
        if (ADDRESSES.0..NOTICES.0).contains(&number.0)
            && let Some(file) = self.fds.get(1)
        {
            listen::remove_pinned(file.as_fd());
        }
    }

    fn reap(&self) {
        if let Some(pid) = self.ended {
            let _ = wait::reap_pid(pid);
        }
    }
}

/// How the path of a replica's control group ends (`os::cgroup::Root`).
fn group_of(realm: Realm, replica: &ReplicaId) -> String {
    format!("/wharf-{realm}/{}.{}", replica.service, replica.replica)
}

/// What is known of kept runs by which what they started is recognised.
#[derive(Debug, Default)]
pub(super) struct Spared {
    realm: Option<Realm>,
    leaders: HashSet<i32>,
    marks: HashSet<u64>,
    groups: HashSet<String>,
    runs: HashMap<Incarnation, ReplicaId>,
}

impl Spared {
    /// Whether a process is one of them, or was started by one as far as can be seen: by its session or
    /// process group, by the mark that every run carries, by the control group, or, where no mark of this
    /// realm says whose it is, by its environment.
    pub(super) fn spares(&self, process: &Stat) -> bool {
        let Some(realm) = self.realm.filter(|_| !self.marks.is_empty()) else { return false };
        let known = [process.pid, process.session, process.group];
        if known.iter().any(|pid| self.leaders.contains(pid)) {
            return true;
        }
        let mark = mark::read(process.pid);
        if mark.is_some_and(|mark| self.marks.contains(&mark)) {
            return true;
        }
        if procfs::groups(process.pid).iter().any(|path| self.holds(path)) {
            return true;
        }
        !mark.is_some_and(|mark| mark::is_of(realm, mark)) && self.names(process.pid)
    }

    /// Whether a control group is that of a kept run, or lies below it.
    fn holds(&self, path: &str) -> bool {
        self.groups.iter().any(|group| {
            let rest = path.find(group.as_str()).and_then(|at| path.get(at + group.len()..));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Whether the environment of a process says that it belongs to one of these runs.
    fn names(&self, pid: i32) -> bool {
        let number = |name: &str| procfs::variable(pid, name)?.parse::<u64>().ok();
        let run = number("WHARF_INCARNATION").map(Incarnation);
        let Some(replica) = run.and_then(|run| self.runs.get(&run)) else { return false };
        procfs::variable(pid, "WHARF_SERVICE").as_deref() == Some(replica.service.as_str())
            && number("WHARF_REPLICA") == Some(u64::from(replica.replica))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceName;

    #[test]
    fn words_survive_the_socket() {
        for word in Word::ALL {
            let bytes = word.encode(Incarnation(1 << 50));
            assert_eq!(Word::decode(&bytes), Some((word, Incarnation(1 << 50))));
        }
        assert_eq!(Word::decode(&[9; WORD]), None);
        assert_eq!(Word::decode(b"short"), None);
    }

    #[test]
    fn what_was_handed_over_outlives_who_handed_it_over() {
        let (guardian, manager) = fds::message_pair().unwrap();
        let pipe = fds::pipe().unwrap();
        let run = Incarnation(5);
        let sent = [pipe.read.as_raw_fd()];
        fds::send(manager.as_fd(), &Word::Store.encode(run), &sent).unwrap();
        let mut vault = Vault::default();
        drop((manager, pipe.read));
        assert!(!vault.hear(guardian.as_fd()).unwrap(), "it is gone");
        vault.forsaken();
        fds::write(pipe.write.as_fd(), b"x").expect("somebody holds the other end");

        let (guardian, manager) = fds::message_pair().unwrap();
        for (asked, answer, count) in [(run, Word::Given, 1), (Incarnation(6), Word::Unknown, 0)] {
            fds::send(manager.as_fd(), &Word::Take.encode(asked), &[]).unwrap();
            assert!(vault.hear(guardian.as_fd()).unwrap());
            let mut bytes = [0; WORD];
            let received = fds::receive(manager.as_fd(), &mut bytes).unwrap().unwrap();
            assert_eq!(Word::decode(&bytes), Some((answer, asked)));
            assert_eq!(received.fds.len(), count);
        }
        for (word, left) in [(Word::Settled, 1), (Word::Release, 0)] {
            fds::send(manager.as_fd(), &word.encode(run), &[]).unwrap();
            vault.hear(guardian.as_fd()).unwrap();
            assert_eq!(vault.kept.len(), left, "{word:?}");
        }
        assert!(fds::write(pipe.write.as_fd(), b"x").is_err(), "nobody holds it any more");
    }

    /// A configuration without its address took effect, and the manager died before it had closed it.
    #[test]
    fn a_socket_that_nobody_takes_back_is_closed_and_its_file_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (guardian, manager) = fds::message_pair().unwrap();
        let mut vault = Vault::default();
        let hear = |vault: &mut Vault| vault.hear(guardian.as_fd()).unwrap();
        let store = |name: &str, number: u64| {
            let path = folder.path().join(name);
            let socket = listen::unix(&path, 8).unwrap();
            let file = fds::pin(&path).unwrap();
            let word = Word::Store.encode(Incarnation(number));
            fds::send(manager.as_fd(), &word, &[socket.as_raw_fd(), file.as_raw_fd()]).unwrap();
            path
        };
        let address = ADDRESSES.0 + 7;
        let (left, taken, replaced, control) = (
            store("left", address),
            store("taken", address + 1),
            store("replaced", address + 2),
            store("control", 0),
        );
        std::fs::remove_file(&replaced).unwrap();
        std::fs::write(&replaced, "precious").unwrap();
        hear(&mut vault);
        vault.forsaken();
        assert!(!vault.keeps_runs());
        let take = Word::Take.encode(Incarnation(address + 1));
        fds::send(manager.as_fd(), &take, &[]).unwrap();
        fds::send(manager.as_fd(), &Word::Settled.encode(Incarnation(0)), &[]).unwrap();
        hear(&mut vault);
        let there = [&left, &taken, &replaced, &control].map(|path| path.exists());
        assert_eq!(there, [false, true, true, true]);
        // The guardian has nobody left to guard.
        vault.clear();
        assert!(!taken.exists() && replaced.exists());
    }

    #[test]
    fn what_carries_the_mark_of_a_kept_run_is_spared() {
        let realm = Realm(3);
        let replica = ReplicaId { service: ServiceName::new("web").unwrap(), replica: 2 };
        let group = group_of(realm, &replica);
        let spared = Spared { groups: [group.clone()].into(), ..Spared::default() };
        assert_eq!(group, format!("/wharf-{realm}/web.2"));
        for (path, holds) in [
            (format!("/user.slice{group}"), true),
            (format!("/user.slice{group}/below"), true),
            (format!("/user.slice{group}0"), false),
            (format!("/wharf-{realm}/web.1"), false),
        ] {
            assert_eq!(spared.holds(&path), holds, "{path}");
        }
    }
}
