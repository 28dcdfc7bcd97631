//! Making room for another binary: everybody is answered and seen off, nothing is under way, what only
//! memory holds is written down, and the guardian starts the successor.
//!
//! Programs notice nothing, being kept as at a death of the manager; so only a manager all of whose runs
//! are kept can be succeeded. What does not come to rest in time is left as it is, and everybody is let
//! in again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::guardian::{NEXT, SUCCEEDED};
use crate::metrics::Book;
use crate::name::{Generation, Incarnation, Requester};
use crate::os::listen::Described;
use crate::os::{self, clock, fds};
use crate::port::exchange::{Exchange, Saved, Standing};
use crate::state::StateDir;
use crate::supervise::{Fate, Supervisor, fate};
use crate::time::Tick;

use super::LAST_WRITES;
use super::control::Control;
use super::request::Refusal;
use super::run::Run;
use super::spawner::Answer;

/// The form of all that one manager leaves to the next: this file, the live table, the notes and the ring. A binary
/// with another form cannot succeed.
pub const FORM: u32 = 2;
/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest path that the guardian takes (PATH_MAX).
const LONGEST: usize = 4095;
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// A succession that is under way.
pub(super) struct Succession {
    binary: PathBuf,
    deadline: Tick,
    /// Who asked for it; `None` once that has been answered.
    reply: Option<oneshot::Sender<Result<(), Refusal>>>,
    /// How many connections are left that wait for an answer; `None` before that is known.
    left: Option<usize>,
}

#[derive(Serialize)]
struct Written<'a> {
    form: u32,
    generation: Generation,
    supervisor: &'a Supervisor,
    book: &'a Book,
    exchanges: Vec<(Incarnation, &'a Exchange)>,
}

/// What a predecessor left.
#[derive(Deserialize)]
pub(super) struct Inherited {
    form: u32,
    generation: Generation,
    pub(super) supervisor: Supervisor,
    pub(super) book: Book,
    pub(super) exchanges: Vec<(Incarnation, Saved)>,
}

impl Inherited {
    /// Reads what an earlier generation left that made room; it is removed once this one serves, so that
    /// another may read it where this one does not come so far. `None` where there is nothing, or where
    /// these are not the runs that were left.
    pub(super) fn read(
        state: &StateDir,
        generation: Generation,
        runs: &[Incarnation],
    ) -> Option<Self> {
        let path = state.handover();
        let text = fs::read(&path).ok()?;
        let left: Self = match serde_json::from_slice(&text) {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "cannot read what the manager before left; counts begin anew");
                return None;
            }
        };
        let mut known: Vec<_> =
            left.supervisor.views().filter_map(|view| view.incarnation).collect();
        let mut runs = runs.to_vec();
        known.sort_unstable();
        runs.sort_unstable();
        let ours = left.form == FORM && left.generation < generation && known == runs;
        ours.then_some(left)
    }
}

impl Control {
    /// Somebody wants another binary to succeed.
    pub(super) fn upgrade(
        &mut self,
        binary: PathBuf,
        form: u32,
        by: &Requester,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let refusal = if self.shutting_down {
            Some(Refusal::ShuttingDown)
        } else if self.succession.is_some() {
            Some(Refusal::Upgrade { msg: "another upgrade is under way".to_owned() })
        } else if !binary.is_absolute() || binary.as_os_str().len() > LONGEST {
            let msg = "the path of the binary is not absolute, or too long".to_owned();
            Some(Refusal::Upgrade { msg })
        } else if form == FORM {
            self.would_end().map(|msg| Refusal::Upgrade { msg })
        } else {
            let msg = format!(
                "that binary takes over in form {form}, this manager hands over in form {FORM}: \
                 `wharf down` and `wharf up` are needed"
            );
            Some(Refusal::Upgrade { msg })
        };
        if let Some(refusal) = refusal {
            return drop(reply.send(Err(refusal)));
        }
        tracing::info!(binary = %binary.display(), by = by.who, uid = by.uid, pid = by.pid, "upgrade");
        let deadline = clock::now() + PATIENCE;
        self.succession = Some(Succession { binary, deadline, reply: Some(reply), left: None });
        self.handle.drain(true);
    }

    /// What would not live to see the successor, in words.
    fn would_end(&self) -> Option<String> {
        let mut runs: Vec<_> = self.runs.values().collect();
        runs.sort_by(|one, other| one.replica.cmp(&other.replica));
        runs.into_iter().find_map(|run| {
            let why = match (run.is_kept(), fate(run.service.port.as_ref())) {
                (false, _) => "its on_manager_exit is die",
                (true, Fate::BegunAnew(why)) => why,
                (true, Fate::GoesOn | Fate::UnlessWriting | Fate::UnlessSpeaking(_)) => {
                    return None;
                }
            };
            Some(format!("{} would be restarted: {why}", run.replica))
        })
    }

    /// So many connections are left.
    pub(super) fn drained(&mut self, left: usize) {
        if let Some(succession) = &mut self.succession {
            succession.left = Some(left);
        }
    }

    /// When a succession is to be looked at again.
    pub(super) fn succession_due(&self) -> Option<Tick> {
        self.succession.as_ref().map(|_| clock::now() + LOOK)
    }

    /// Goes as far with a succession as can be gone now.
    pub(super) fn look_at_succession(&mut self, now: Tick) {
        let Some(succession) = &self.succession else { return };
        let (left, late) = (succession.left, succession.deadline <= now);
        let refused = self.shutting_down.then(|| "everything is being stopped".to_owned());
        let unrest = refused.or_else(|| self.would_end()).or_else(|| self.unrest());
        let Some(succession) = &mut self.succession else { return };
        match (left, unrest) {
            (Some(0), None) => self.give_way(),
            (Some(1), None) => self.answer_succession(),
            (_, unrest) if late || self.shutting_down => {
                let why = unrest.unwrap_or_else(|| "somebody still waits for an answer".to_owned());
                let seconds = PATIENCE.as_secs();
                let msg = format!("nothing was changed: within {seconds} s {why}");
                tracing::warn!("no upgrade: {msg}");
                if let Some(reply) = succession.reply.take() {
                    let _ = reply.send(Err(Refusal::Upgrade { msg }));
                }
                self.succession = None;
                self.handle.drain(false);
            }
            _ => {}
        }
    }

    /// Nobody is left but who asked for the upgrade: hears whether what is handed over can be written.
    fn answer_succession(&mut self) {
        let Some(reply) = self.succession.as_mut().and_then(|one| one.reply.take()) else { return };
        match self.write_handover() {
            Ok(()) => drop(reply.send(Ok(()))),
            Err(error) => {
                let path = self.state.handover();
                let _ = fs::remove_file(&path);
                let msg = format!("nothing was changed: cannot write {}: {error}", path.display());
                tracing::error!("no upgrade: {msg}");
                let _ = reply.send(Err(Refusal::Upgrade { msg }));
                self.succession = None;
                self.handle.drain(false);
            }
        }
    }

    /// What is still under way, in words; `None` where nothing is.
    fn unrest(&self) -> Option<String> {
        let speaks = |run: &Run| {
            let exchange = run.exchange.as_ref();
            exchange
                .is_some_and(|one| one.standing() != Standing::default() || one.waiting() != (0, 0))
        };
        let run = self.runs.values().find_map(|run| {
            let way = if run.landing != Some(Answer::Executed) {
                "was being started"
            } else if run.end.is_some() || run.ended.is_some() {
                "was ending"
            } else if speaks(run) {
                "was being spoken to"
            } else {
                return None;
            };
            Some(format!("{} {way}", run.replica))
        });
        let waits = [
            (!self.calls.is_empty(), "calls were open"),
            (self.hooks.is_busy(), "a hook was running"),
            (!self.pending.is_empty() || !self.untold.is_empty(), "an end was not written down"),
            (!self.sweeping.is_empty(), "what a run left behind was being ended"),
            (
                self.lingering.values().any(|one| one.slot.is_none()),
                "what a run left behind held its pipes",
            ),
            (!self.waiters.is_empty() || !self.applying.is_empty(), "a command was under way"),
            (self.intent > self.persisted, "what operators want was not written down"),
            (self.output_paused.is_some(), "the disk did not take the programs' output"),
        ];
        let wait = waits.into_iter().find(|(is, _)| *is).map(|(_, words)| words.to_owned());
        run.or(wait)
    }

    /// Leaves everything to the successor. It does not return unless that cannot be begun.
    fn give_way(&mut self) {
        let Some(succession) = self.succession.take() else { return };
        let mut word = NEXT.to_vec();
        word.extend_from_slice(succession.binary.as_os_str().as_bytes());
        let begun =
            self.write_handover().and_then(|()| fds::try_send(self.guardian.as_fd(), &word, &[]));
        if let Err(error) = begun {
            tracing::error!(%error, "cannot make room for a new binary; everything goes on");
            let _ = fs::remove_file(self.state.handover());
            self.handle.drain(false);
            return;
        }
        if !self.disk.close(LAST_WRITES) {
            tracing::error!("the disk does not answer; the successor writes what is missing");
        }
        self.forward.close(LAST_WRITES);
        self.terminal.flush(LAST_WRITES);
        std::process::exit(SUCCEEDED);
    }

    fn write_handover(&self) -> io::Result<()> {
        let exchanges = self.runs.iter().filter_map(|(run, what)| {
            let exchange = what.exchange.as_deref()?;
            Some((*run, exchange))
        });
        let written = Written {
            form: FORM,
            generation: self.origin.generation,
            supervisor: &self.supervisor,
            book: &self.book,
            exchanges: exchanges.collect(),
        };
        let text = serde_json::to_vec(&written)?;
        write_alone(&self.state.handover(), &text)
    }
}

/// Writes a file for its owner's eyes.
fn write_alone(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file?.write_all(text)
}

/// Where a manager listens.
pub(super) struct Listening {
    pub(super) socket: UnixListener,
    /// Whether what is in the state directory for it goes with the last manager.
    pub(super) is_ours: bool,
    /// What stands for its file, where the guardian is to hold both.
    pub(super) file: Option<OwnedFd>,
}

/// The listening socket that was handed over to wharf, or that a predecessor left with what stands for
/// its file, or a new one. The one that was left is used also where nobody finds it any more and another
/// cannot be made: a manager that nobody reaches still looks after what runs.
pub(super) fn listener(
    state: &StateDir,
    given: Option<OwnedFd>,
    left: Vec<OwnedFd>,
) -> io::Result<Listening> {
    let path = state.socket();
    if let Some(socket) = given {
        let is_ours = lead_to(&path, socket.as_fd())?;
        return Ok(Listening { socket: socket.into(), is_ours, file: None });
    }
    let mut left = left.into_iter();
    let (socket, file) = (left.next(), left.next());
    let place = file.as_ref().and_then(|file| os::listen::identity_of(file.as_fd()));
    let (socket, file) = match socket {
        Some(socket) if place.is_some() && place == os::listen::identity(&path) => {
            (socket.into(), file)
        }
        Some(socket) => match os::socket::listen(&path) {
            Ok(made) => (made, fds::pin(&path).ok()),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot make the socket anew; this manager cannot be reached");
                (socket.into(), file)
            }
        },
        None => (os::socket::listen(&path)?, fds::pin(&path).ok()),
    };
    Ok(Listening { socket, is_ours: true, file })
}

/// Makes `path` lead to a socket that somebody else has opened, for who looks for it there. False where
/// it is that very socket's own path.
fn lead_to(path: &Path, socket: BorrowedFd<'_>) -> io::Result<bool> {
    let Described::Unix { path: place } = os::listen::described(socket)? else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = |path: &Path| path.parent().and_then(|folder| folder.canonicalize().ok());
    if folder(&place) == folder(path) && place.file_name() == path.file_name() {
        return Ok(false);
    }
    if fs::read_link(path).is_ok_and(|leads| leads == place) {
        return Ok(true);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(place, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_handed_over_is_found_where_it_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(folder.path());
        let own = state.socket();
        let elsewhere = folder.path().join("elsewhere");
        let given = || Some(os::listen::unix(&elsewhere, 8).unwrap());
        fs::write(&own, "an old one").unwrap();
        let first = listener(&state, given(), Vec::new()).unwrap();
        assert!(first.is_ours && first.file.is_none());
        assert_eq!(fs::read_link(&own).unwrap(), elsewhere);
        os::socket::connect(&own).unwrap();
        // A later manager finds it done.
        let again = os::fds::duplicate(&first.socket).unwrap();
        assert!(listener(&state, Some(again), Vec::new()).unwrap().is_ours);
        fs::remove_file(&own).unwrap();
        let right = os::listen::unix(&own, 8).unwrap();
        assert!(!listener(&state, Some(right), Vec::new()).unwrap().is_ours);
        os::socket::connect_now(&own).expect_err("it was closed, and its file is there");
        assert!(own.symlink_metadata().is_ok());
    }

    #[test]
    fn a_socket_that_was_left_is_gone_on_with_where_it_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(folder.path());
        let own = state.socket();
        let left = |listening: &Listening| {
            let socket = fds::duplicate(&listening.socket).unwrap();
            vec![socket, fds::duplicate(listening.file.as_ref().unwrap()).unwrap()]
        };
        let first = listener(&state, None, Vec::new()).unwrap();
        let inode = os::listen::identity(&own);
        let second = listener(&state, None, left(&first)).unwrap();
        assert_eq!(os::listen::identity(&own), inode, "it is the same");
        // One that nobody finds is made anew.
        fs::remove_file(&own).unwrap();
        let third = listener(&state, None, left(&second)).unwrap();
        assert!(os::listen::identity(&own).is_some_and(|found| Some(found) != inode));
        // Where that cannot be done, the old one has to do.
        fs::remove_file(&own).unwrap();
        fs::create_dir_all(own.join("in the way")).unwrap();
        let fourth = listener(&state, None, left(&third)).unwrap();
        let name = |socket: &UnixListener| os::listen::described(socket.as_fd()).unwrap();
        assert_eq!(name(&fourth.socket), name(&third.socket));
    }
}
