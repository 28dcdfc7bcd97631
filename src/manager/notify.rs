//! The loop's dealings with programs that say how they are: the datagrams of sd_notify(3).
//!
//! Each run has a socket of its own at an abstract address, so that neither a long path nor a folder
//! of another user is in its way. The kernel tells who sends; only what a run started is listened to. The
//! guardian holds the sockets of kept runs too, so that a manager which dies or is replaced closes none.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::event::{Event, Said};
use crate::guardian::NOTICES;
use crate::name::Incarnation;
use crate::os::epoll::Interest;
use crate::os::socket::{self, Peer};
use crate::os::{fds, procfs, random};
use crate::spec::ReadyBy;

use super::control::{Control, Kind};
use super::run::Run;

/// The largest message, as systemd has it.
const LARGEST: usize = 4096;
/// So many messages of one run are read in a turn.
const TURN: usize = 16;
/// How much of a `STATUS` is kept, in characters.
const STATUS: usize = 400;
/// How far up from a sender its run is looked for.
const ANCESTORS: usize = 64;

/// The number under which the guardian holds the socket of a run.
pub(super) fn number_of(incarnation: Incarnation) -> Incarnation {
    Incarnation(NOTICES.0 | incarnation.0)
}

/// Where a run says how it is, and what it has said.
#[derive(Debug)]
pub(super) struct Notices {
    socket: UnixDatagram,
    /// Its `STATUS`.
    pub(super) status: Option<String>,
    /// Whether it reads its configuration anew.
    pub(super) reloading: bool,
    /// What was refused; each is told once.
    refused: Vec<&'static str>,
}

impl Control {
    /// Opens the socket of a run, where its service has one, and gives the variables that tell of it.
    pub(super) fn open_notices(
        &mut self,
        incarnation: Incarnation,
    ) -> io::Result<Vec<(&'static str, String)>> {
        self.await_line(incarnation);
        let Some(run) = self.runs.get_mut(&incarnation) else { return Ok(Vec::new()) };
        if !run.service.is_notifying() {
            return Ok(Vec::new());
        }
        let watchdog = run.service.watchdog;
        let name = format!("wharf/{}/{incarnation}-{:016x}", self.realm, random::number()?);
        let is_kept = run.is_kept();
        let socket = socket::listen_abstract(&name)?;
        if is_kept {
            // What is sent while there is no manager waits there for the next.
            self.vault.store(number_of(incarnation), &[socket.as_fd()])?;
        }
        self.hear(incarnation, socket)?;
        let mut variables = vec![("NOTIFY_SOCKET", format!("@{name}"))];
        if let Some(length) = watchdog {
            variables.push(("WATCHDOG_USEC", length.as_micros().to_string()));
        }
        Ok(variables)
    }

    /// Goes on to hear a run that an earlier manager started, at the socket that the guardian holds.
    pub(super) fn reopen_notices(&mut self, incarnation: Incarnation) -> io::Result<()> {
        self.await_line(incarnation);
        let Some(run) = self.runs.get(&incarnation) else { return Ok(()) };
        if !run.service.is_notifying() {
            return Ok(());
        }
        let held = self.vault.take(number_of(incarnation))?;
        let socket = held.and_then(|fds| fds.into_iter().next());
        let socket =
            socket.ok_or_else(|| io::Error::other("the guardian does not hold its socket"))?;
        self.hear(incarnation, socket.into())
    }

    fn hear(&mut self, incarnation: Incarnation, socket: UnixDatagram) -> io::Result<()> {
        let Some(run) = self.runs.get_mut(&incarnation) else { return Ok(()) };
        self.poller.add(socket.as_fd(), Kind::Notice.token(incarnation), Interest::Read)?;
        let (status, reloading, refused) = (None, false, Vec::new());
        run.notices = Some(Box::new(Notices { socket, status, reloading, refused }));
        Ok(())
    }

    /// A run said something, or several things.
    pub(super) fn take_notices(&mut self, incarnation: Incarnation) {
        let mut buffer = [0; LARGEST];
        for _ in 0..TURN {
            let Some(run) = self.runs.get_mut(&incarnation) else { return };
            let Some(notices) = &run.notices else { return };
            let received = match fds::receive_from(notices.socket.as_fd(), &mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%incarnation, %error, "cannot hear what a program says of itself");
                    let _ = self.poller.remove(notices.socket.as_fd());
                    return;
                }
            };
            let said = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
            if is_of(run, received.sender) {
                self.noticed(incarnation, &said);
            } else {
                self.refuse_notice(
                    incarnation,
                    "SENDER",
                    "it came from a process that is none of the program's",
                );
            }
            // Descriptors that came along are closed with this: nothing is kept, and a sender that
            // waits for that (`BARRIER=1`) goes on.
            drop(received);
        }
    }

    fn noticed(&mut self, incarnation: Incarnation, said: &str) {
        for (key, value) in said.lines().filter_map(|line| line.split_once('=')) {
            let length = || value.parse().ok().filter(|usec| *usec > 0).map(Duration::from_micros);
            let said = match (key, value) {
                ("READY", "1") => {
                    self.noticed_ready(incarnation);
                    continue;
                }
                ("STATUS" | "RELOADING", _) => {
                    self.noticed_status(incarnation, key, value);
                    continue;
                }
                ("STOPPING", "1") => Some(Said::Stopping),
                ("WATCHDOG", "1") => Some(Said::Alive),
                ("WATCHDOG", "trigger") => Some(Said::Unwell),
                ("WATCHDOG_USEC", _) => length().map(Said::AliveEvery),
                ("EXTEND_TIMEOUT_USEC", _) => length().map(Said::NeedsTime),
                ("MAINPID", pid) => {
                    let own = self.runs.get(&incarnation).map(|run| run.pid.to_string());
                    if own.as_deref() != Some(pid) {
                        let why = "the process that was started is the one that is watched";
                        self.refuse_notice(incarnation, "MAINPID", why);
                    }
                    continue;
                }
                ("FDSTORE", _) => {
                    let why = "descriptors are not kept over a restart";
                    self.refuse_notice(incarnation, "FDSTORE", why);
                    continue;
                }
                // Others are free to be said (sd_notify(3)) and mean nothing here.
                _ => continue,
            };
            if let Some(said) = said {
                self.feed(Event::Said { incarnation, said });
            } else {
                let why = "its value is no number of microseconds";
                self.refuse_notice(incarnation, "a time", why);
            }
        }
    }

    fn noticed_ready(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if let Some(notices) = &mut run.notices {
            notices.reloading = false;
        }
        let awaited = run.service.ready.as_ref().is_some_and(|ready| ready.by == ReadyBy::Notify);
        if awaited && !run.said_ready {
            self.shown_ready(incarnation);
        }
    }

    fn noticed_status(&mut self, incarnation: Incarnation, key: &str, value: &str) {
        let notices = self.runs.get_mut(&incarnation).and_then(|run| run.notices.as_mut());
        let Some(notices) = notices else { return };
        if key == "RELOADING" {
            notices.reloading = value == "1";
            return;
        }
        let text: String = value.chars().filter(|c| !c.is_control()).take(STATUS).collect();
        notices.status = Some(text).filter(|text| !text.is_empty());
    }

    /// What a program said is not done: that is told once a run, in the log and in its exit record.
    fn refuse_notice(&mut self, incarnation: Incarnation, what: &'static str, why: &str) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(notices) = &mut run.notices else { return };
        if notices.refused.contains(&what) {
            return;
        }
        notices.refused.push(what);
        tracing::warn!(replica = %run.replica, %incarnation, what, why, "a notice was refused");
        run.evidence.push(format!("what it said by sd_notify ({what}) was refused: {why}"));
    }

    /// A run ended: what it said last goes into its record.
    pub(super) fn close_notices(&mut self, incarnation: Incarnation) {
        self.take_notices(incarnation);
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(notices) = run.notices.take() else { return };
        let _ = self.poller.remove(notices.socket.as_fd());
        run.evidence.extend(notices.status.map(|status| format!("its last STATUS was: {status}")));
    }
}

/// Whether a message comes from what a run started. A sender that has ended since can no longer be
/// looked at (`systemd-notify --no-block` is such); it is believed where it ran as the run's user.
fn is_of(run: &Run, sender: Option<Peer>) -> bool {
    let Some(Peer { pid, uid }) = sender.filter(|peer| peer.pid > 0) else { return false };
    let Some(stat) = procfs::stat(pid) else {
        let own = nix::unistd::getuid().as_raw();
        return uid == run.identity.as_ref().map_or(own, |identity| identity.uid);
    };
    let is_near = |pid: i32| run.pid > 0 && pid == run.pid;
    if is_near(pid) || is_near(stat.session) || is_near(stat.group) {
        return true;
    }
    if run.group.as_ref().is_some_and(|group| group.all_members().contains(&pid)) {
        return true;
    }
    let mut parent = stat.parent;
    for _ in 0..ANCESTORS {
        if is_near(parent) {
            return true;
        }
        match procfs::stat(parent) {
            Some(above) if above.parent > 1 => parent = above.parent,
            _ => break,
        }
    }
    let mark = procfs::variable(pid, "WHARF_INCARNATION");
    mark.is_some_and(|mark| mark == run.incarnation.to_string())
}
