//! What the guardian keeps for runs that outlive their manager: the manager's ends of their pipes, and
//! their ends when they end, until a manager has written them down.
//!
//! A manager hands the descriptors over before it makes the process, so that there is no moment in which
//! its death would close them. The words on this conversation are sixteen bytes: what, and of which run.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::name::Incarnation;
use crate::os::fds;
use crate::os::live::{Phase, Table};
use crate::os::procfs::{self, Stat};
use crate::os::wait::{self, Ended};

/// What is said between manager and guardian of a kept run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Manager: keep these descriptors (our ends of error, output, input and log, in this order), and
    /// from now on the run.
    Store,
    /// Manager: its input is closed.
    CloseInput,
    /// Manager: it is over and recorded.
    Release,
    /// Manager: give me what you have of it. Answered by `Given` or `Unknown`.
    Take,
    /// Manager: runs that were not taken are no more.
    Settled,
    /// Guardian: here they are.
    Given,
    /// Guardian: there is nothing of it.
    Unknown,
}

/// The length of a word.
pub const WORD: usize = 16;

impl Word {
    const ALL: [Self; 7] = [
        Self::Store,
        Self::CloseInput,
        Self::Release,
        Self::Take,
        Self::Settled,
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

/// The kept runs.
#[derive(Debug, Default)]
pub(super) struct Vault {
    kept: HashMap<Incarnation, Kept>,
}

impl Vault {
    /// Nothing is kept any more; who has ended is reaped.
    pub(super) fn clear(&mut self) {
        self.kept.drain().for_each(|(_, kept)| kept.reap());
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
                Word::Take => self.give(manager, incarnation),
                Word::Settled => {
                    self.kept.extract_if(|_, kept| !kept.taken).for_each(|(_, kept)| kept.reap());
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
        let slots = table.into_iter().flat_map(Table::used);
        let runs = slots
            .filter(|(_, slot)| slot.phase() == Phase::Open && slot.kept().ran().is_some())
            .filter(|(_, slot)| self.kept.contains_key(&slot.incarnation()))
            .filter_map(|(_, slot)| Some((slot.pid()?, slot.incarnation())));
        Spared(runs.collect())
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
    fn reap(&self) {
        if let Some(pid) = self.ended {
            let _ = wait::reap_pid(pid);
        }
    }
}

/// The processes of kept runs, each with its run.
pub(super) struct Spared(HashMap<i32, Incarnation>);

impl Spared {
    /// Whether a process is one of them, or was started by one as far as can be seen.
    pub(super) fn spares(&self, process: &Stat) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let known = [process.pid, process.session, process.group];
        known.iter().any(|pid| self.0.contains_key(pid)) || {
            let run = procfs::variable(process.pid, "WHARF_INCARNATION");
            let run = run.and_then(|run| run.parse().ok()).map(Incarnation);
            run.is_some_and(|run| self.0.values().any(|kept| *kept == run))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

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
}
