//! The loop's dealings with pipes: output to the log files, messages to the exchanges.
//!
//! A stream whose program has ended may live on in somebody who inherited it. It is read as long as
//! it is open, so that a survivor neither stalls nor dies of a broken pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::guardian::Word;
use crate::name::{Incarnation, ReplicaId};
use crate::os::live::{PORT_IN_MESSAGE, Phase};
use crate::os::{clock, fds, spool, terminal};
use crate::output::{LineFormatter, Stream};
use crate::spec::{KillScope, Service, WhenFull};

use super::control::{Control, Kind, token};
use super::disk::Chunk;
use super::guest;
use super::hooks::Hooks;
use super::run::Run;
use super::spawner::Wiring;

/// Streams that outlived their program.
pub(super) struct Lingering {
    pub(super) replica: ReplicaId,
    pub(super) service: Arc<Service>,
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    log: Option<OwnedFd>,
    pub(super) formatter: LineFormatter,
    /// Whether `output` spoke a port's protocol: then nobody wants it any more.
    is_port: bool,
    /// The slot that tells a later manager whose they are, where the guardian holds them too.
    pub(super) slot: Option<usize>,
}

impl Lingering {
    fn stream(&mut self, kind: Kind) -> &mut Option<OwnedFd> {
        match kind {
            Kind::Error => &mut self.error,
            Kind::Log => &mut self.log,
            Kind::Output
            | Kind::Process
            | Kind::Input
            | Kind::Memory
            | Kind::Ready
            | Kind::Notice => &mut self.output,
        }
    }

    fn is_over(&self) -> bool {
        self.output.is_none() && self.error.is_none() && self.log.is_none()
    }
}

/// How long output waits for the disk before the oldest of it is dropped.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);
/// What is read of a port at once: parsing it takes longer than writing it down.
pub(super) const HEARD: usize = 32 << 10;
/// Output of this length at once is a flood: when it is over, what it took is given back.
const FLOOD: usize = 32 << 10;
/// Lives of one replica whose streams may linger; beyond this the oldest is closed.
const LINGERING: usize = 4;

/// What one read gave.
enum Read {
    Bytes(usize),
    Later,
    End,
    /// The end, told by an error: that is how terminals do it, and sockets where something was never
    /// read.
    Cut(io::Error),
}

fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Read {
    match fds::read(fd, buffer) {
        Ok(0) => Read::End,
        Ok(count) => Read::Bytes(count),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Read::Later
        }
        Err(error) => Read::Cut(error),
    }
}

impl Control {
    /// A stream that goes to a log file has something.
    pub(super) fn log_ready(&mut self, token: u64) {
        let (incarnation, kind) = Kind::of(token);
        if Hooks::is_one(incarnation) {
            self.read_hook(incarnation, kind);
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if self.runs.get(&incarnation).is_some_and(|run| run.end.is_none()) {
            self.read_log(incarnation, kind, &mut buffer);
        } else if self.lingering.contains_key(&incarnation) {
            self.read_lingering(incarnation, kind, &mut buffer);
        }
        self.buffer = buffer;
    }

    fn read_log(&mut self, incarnation: Incarnation, kind: Kind, buffer: &mut [u8]) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let blocked = self.output_overdue && run.service.logging.when_full == WhenFull::Block;
        let Some(fd) = run.stream(kind) else { return };
        if blocked {
            // It waits until there is room; `output_room` watches it again. To watch it for nothing
            // would not do: a hang-up is always told.
            let _ = self.logs.remove(fd.as_fd());
            return;
        }
        match self.read_kept(incarnation, kind, buffer) {
            Read::Later => {}
            Read::Bytes(count) => self.log(incarnation, kind, &buffer[..count]),
            Read::End | Read::Cut(_) => {
                let Some(run) = self.runs.get_mut(&incarnation) else { return };
                if let Some(fd) = run.stream(kind).take() {
                    let _ = self.logs.remove(fd.as_fd());
                }
            }
        }
    }

    /// Reads a stream. Where its run is to outlive this manager and it goes to a log, what is read is
    /// left where the next manager finds it, until it is written.
    fn read_kept(&mut self, incarnation: Incarnation, kind: Kind, buffer: &mut [u8]) -> Read {
        let Some(run) = self.runs.get_mut(&incarnation) else { return Read::Later };
        let stream = run.kept_stream(kind);
        let at = stream.map_or(0, |stream| run.heard[stream as usize]);
        let Some(fd) = run.stream(kind) else { return Read::Later };
        match (&mut self.spool, stream) {
            (Some(spool), Some(_)) => {
                match spool.read(fd.as_fd(), kind.token(incarnation), at, buffer) {
                    Ok(spool::Read::Bytes(count)) => Read::Bytes(count),
                    Ok(spool::Read::Later) => Read::Later,
                    Ok(spool::Read::End) => Read::End,
                    Err(error) => Read::Cut(error),
                }
            }
            _ => read(fd.as_fd(), buffer),
        }
    }

    /// A port's stream has something, or its input has room; or it is a client's connection.
    pub(super) fn port_ready(&mut self, token: u64) {
        if token & guest::TOKEN != 0 {
            return self.guest_ready(token);
        }
        let (incarnation, kind) = Kind::of(token);
        let Some(run) = self.runs.get(&incarnation) else { return };
        if kind == Kind::Input {
            return self.write_input(incarnation);
        }
        let Some(fd) = &run.output else { return };
        // Asked before it is heard: the reply that ends a call was wanted too.
        let awaited = run.exchange.as_ref().is_some_and(|exchange| exchange.is_awaited());
        let mut buffer = std::mem::take(&mut self.buffer);
        self.doubt_conversation(incarnation, PORT_IN_MESSAGE);
        match read(fd.as_fd(), &mut buffer[..HEARD]) {
            Read::Later => self.note_conversation(incarnation),
            Read::Bytes(count) => {
                let logged = self.heard(incarnation, &buffer[..count]);
                let unasked = if awaited { 0 } else { count.saturating_sub(logged) };
                self.rest_from(incarnation, unasked);
                self.rest_from_drops(incarnation);
            }
            end @ (Read::End | Read::Cut(_)) => {
                let _ = self.ports.remove(fd.as_fd());
                if let Some(run) = self.runs.get_mut(&incarnation) {
                    let output = run.output.take();
                    run.left = output.filter(|_| run.wiring() == Wiring::Terminal);
                    if let (Read::Cut(error), Some(input)) = (end, &mut run.input) {
                        input.heard(&error);
                    }
                }
                self.output_closed(incarnation);
            }
        }
        self.buffer = buffer;
    }

    /// Sends what a program wrote to its log file and to the terminal.
    pub(super) fn log(&mut self, incarnation: Incarnation, kind: Kind, bytes: &[u8]) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        if let Some(stream) = run.kept_stream(kind) {
            run.heard[stream as usize] += bytes.len() as u64;
        }
        let stream = if kind == Kind::Error {
            run.tail.push(bytes);
            Stream::Stderr
        } else {
            Stream::Stdout
        };
        let mut lines = self.disk.buffer();
        let count = run.formatter.push(stream, clock::wall(), bytes, &mut lines);
        let is_ready = run.line.as_mut().is_some_and(|line| line.is_in(stream, bytes));
        if let Some(counts) = self.book.of(&run.replica.service) {
            counts.log_lines[stream as usize] += count as u64;
        }
        if run.formatter.held() > 0 {
            self.prompts.hold(incarnation, clock::now());
        }
        let (replica, service) = (run.replica.clone(), Arc::clone(&run.service));
        self.write_log(incarnation, replica, &service, lines);
        if is_ready {
            self.shown_ready(incarnation);
        }
    }

    /// Sends lines to the log file, to the terminal and to whoever else is to have them.
    pub(super) fn write_log(
        &mut self,
        incarnation: Incarnation,
        replica: ReplicaId,
        service: &Service,
        lines: Vec<u8>,
    ) {
        if lines.is_empty() {
            return;
        }
        self.rested &= lines.len() < FLOOD;
        let run = self.runs.get(&incarnation);
        let pid = run.map(|run| run.pid).filter(|pid| *pid != 0);
        let marker = run.filter(|run| run.is_kept()).map(|run| {
            let upto = run.put_out();
            self.table.marker(run.slot, upto)
        });
        self.forward.lines(&replica, incarnation, pid, &service.logging.forward, &lines);
        self.terminal.output(&replica, &lines);
        let (full, dropped) =
            self.disk.output(Chunk { replica, logging: service.logging.clone(), lines, marker });
        for (service, lines) in dropped {
            self.measured_dropped(&service, lines);
        }
        if full && self.output_paused.is_none() {
            self.output_paused = Some(clock::now() + OUTPUT_PATIENCE);
            let _ = self.poller.remove(self.logs.as_fd());
        }
    }

    /// The disk has taken nothing for a while: what may be dropped is read on and dropped.
    pub(super) fn output_overdue(&mut self) {
        self.output_overdue = true;
        self.watch_logs();
    }

    /// There is room again.
    pub(super) fn output_room(&mut self) {
        if self.output_paused.take().is_none() {
            return;
        }
        if std::mem::take(&mut self.output_overdue) {
            let runs = self.runs.values().filter(|run| run.end.is_none()).flat_map(|run| {
                let output = run.output.as_ref().filter(|_| run.exchange.is_none());
                let (error, log) = (run.error.as_ref(), run.log.as_ref());
                let streams = [(output, Kind::Output), (error, Kind::Error), (log, Kind::Log)];
                streams.map(|(fd, kind)| (run.incarnation, fd, kind))
            });
            let lingering = self.lingering.iter().flat_map(|(incarnation, one)| {
                let (output, error, log) = (&one.output, &one.error, &one.log);
                let streams = [(output, Kind::Output), (error, Kind::Error), (log, Kind::Log)];
                streams.map(|(fd, kind)| (*incarnation, fd.as_ref(), kind))
            });
            for (incarnation, fd, kind) in runs.chain(lingering) {
                if let Some(fd) = fd {
                    // Those that were read on are watched already.
                    let read = crate::os::epoll::Interest::Read;
                    let _ = self.logs.add(fd.as_fd(), kind.token(incarnation), read);
                }
            }
        } else {
            self.watch_logs();
        }
    }

    fn watch_logs(&self) {
        let read = crate::os::epoll::Interest::Read;
        if let Err(error) = self.poller.add(self.logs.as_fd(), token::LOGS, read) {
            tracing::error!(%error, "cannot watch programs' output");
        }
    }

    /// Delivers what a program that has ended left in its pipes: as much as was there when it was
    /// seen to be dead, so that a chatty survivor cannot prolong this. A terminal cannot tell how much
    /// that is, only how much it can hold. What remains open lingers.
    pub(super) fn drain(&mut self, incarnation: Incarnation) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for kind in [Kind::Output, Kind::Log, Kind::Error] {
            let Some(run) = self.runs.get_mut(&incarnation) else { break };
            let is_port = run.exchange.is_some() && kind == Kind::Output;
            let is_terminal = kind == Kind::Output && run.wiring().is_shown();
            let held = |fd: &OwnedFd| {
                if is_terminal { terminal::HOLDS } else { fds::unread(fd.as_fd()).unwrap_or(0) }
            };
            let mut left = run.stream(kind).as_ref().map_or(0, held);
            while left > 0 {
                let most = left.min(buffer.len());
                let answer = self.read_kept(incarnation, kind, &mut buffer[..most]);
                let Read::Bytes(count) = answer else { break };
                left -= count;
                if is_port {
                    self.heard(incarnation, &buffer[..count]);
                } else {
                    self.log(incarnation, kind, &buffer[..count]);
                }
            }
        }
        self.buffer = buffer;
    }

    /// Nothing more comes of a run: the lines that it left unfinished go to its log.
    pub(super) fn finish_log(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let mut lines = Vec::new();
        run.formatter.finish(&mut lines);
        let (replica, service) = (run.replica.clone(), Arc::clone(&run.service));
        self.measured_lines(&replica.service, &lines);
        self.write_log(incarnation, replica, &service, lines);
    }

    /// Keeps reading the streams of a run that has ended where somebody still holds them.
    pub(super) fn linger(&mut self, run: &mut Run) {
        let is_port = run.exchange.is_some();
        let open = |fd: &mut Option<OwnedFd>, kind: Kind| -> Option<OwnedFd> {
            let stream = fd.take()?;
            let poller = if is_port && kind == Kind::Output { &self.ports } else { &self.logs };
            let _ = poller.remove(stream.as_fd());
            // Empty and without a writer: the usual case, and the end of it.
            if fds::hung_up(stream.as_fd()) {
                return None;
            }
            let token = kind.token(run.incarnation);
            self.logs.add(stream.as_fd(), token, crate::os::epoll::Interest::Read).ok()?;
            Some(stream)
        };
        let output = open(&mut run.output, Kind::Output);
        let error = open(&mut run.error, Kind::Error);
        let log = open(&mut run.log, Kind::Log);
        if output.is_none() && error.is_none() && log.is_none() {
            return;
        }
        let same = |lingering: &Lingering| lingering.replica == run.replica;
        let others: Vec<_> =
            self.lingering.iter().filter(|(_, one)| same(one)).map(|(which, _)| *which).collect();
        if others.len() >= LINGERING {
            tracing::warn!(replica = %run.replica, "too many survivors hold its pipes; the oldest is cut off");
            self.lingered(others[0]);
        }
        let spares = run.is_kept() && run.service.stop.kill == KillScope::Process;
        if spares {
            // Nobody speaks to it any more, and who reads that must come to its end.
            self.vault.say(Word::CloseInput, run.incarnation);
        }
        let lingering = Lingering {
            replica: run.replica.clone(),
            service: Arc::clone(&run.service),
            output,
            error,
            log,
            formatter: LineFormatter::default(),
            is_port,
            slot: spares.then_some(run.slot),
        };
        self.lingering.insert(run.incarnation, lingering);
    }

    /// Goes on to read what outlived its run under an earlier manager.
    pub(super) fn linger_on(&mut self) {
        let slots = self.table.used().filter(|(_, slot)| slot.phase() == Phase::Lingers);
        let left: Vec<_> = slots
            .filter_map(|(index, slot)| Some((index, slot.incarnation(), slot.replica()?)))
            .collect();
        for (slot, incarnation, replica) in left {
            let held = self.vault.take(incarnation).ok().flatten().unwrap_or_default();
            let service = self.spec.services.get(&replica.service).map(Arc::clone);
            let mut held = held.into_iter();
            let (error, output) = (held.next(), held.next());
            let (Some(service), true) = (service, error.is_some() || output.is_some()) else {
                self.vault.say(Word::Release, incarnation);
                self.release(slot);
                continue;
            };
            for (fd, kind) in [(&error, Kind::Error), (&output, Kind::Output)] {
                if let Some(fd) = fd {
                    let token = kind.token(incarnation);
                    let _ = self.logs.add(fd.as_fd(), token, crate::os::epoll::Interest::Read);
                }
            }
            let (formatter, is_port) = (LineFormatter::default(), service.port.is_some());
            let (log, slot) = (None, Some(slot));
            let one = Lingering { replica, service, output, error, log, formatter, is_port, slot };
            self.guarded.insert(incarnation);
            self.lingering.insert(incarnation, one);
        }
    }

    /// Nobody holds the pipes of a run any more, or nobody listens.
    fn lingered(&mut self, incarnation: Incarnation) {
        let slot = self.lingering.remove(&incarnation).and_then(|one| one.slot);
        // Before its record is written its slot and its pipes are still those of a run.
        if let Some(slot) = slot.filter(|slot| self.table.slot(*slot).phase() == Phase::Lingers) {
            self.release(slot);
            self.let_go(incarnation);
        }
    }

    fn read_lingering(&mut self, incarnation: Incarnation, kind: Kind, buffer: &mut [u8]) {
        let Some(one) = self.lingering.get_mut(&incarnation) else { return };
        let blocked = self.output_overdue && one.service.logging.when_full == WhenFull::Block;
        let Some(stream) = one.stream(kind) else { return };
        if blocked {
            let _ = self.logs.remove(stream.as_fd());
            return;
        }
        let mut lines = Vec::new();
        match read(stream.as_fd(), buffer) {
            Read::Later => return,
            Read::Bytes(count) => {
                let stream = if kind == Kind::Error { Stream::Stderr } else { Stream::Stdout };
                if kind != Kind::Output || !one.is_port {
                    one.formatter.push(stream, clock::wall(), &buffer[..count], &mut lines);
                    if one.formatter.held() > 0 {
                        self.prompts.hold(incarnation, clock::now());
                    }
                }
            }
            Read::End | Read::Cut(_) => {
                *one.stream(kind) = None;
                if one.is_over() {
                    one.formatter.finish(&mut lines);
                }
            }
        }
        let (replica, service) = (one.replica.clone(), Arc::clone(&one.service));
        if one.is_over() {
            self.lingered(incarnation);
        }
        self.measured_lines(&replica.service, &lines);
        self.write_log(incarnation, replica, &service, lines);
    }
}
