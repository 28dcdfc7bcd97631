//! The task that moves an embedded port's bytes and sees its end. There is one for each port, and it
//! alone reads, writes, signals and looks at the process.
//!
//! It never waits for anybody who listens. Its exit notice is built from three facts in a fixed order: the
//! pidfd is readable; what the pipes hold is read, as much as was there then, and delivered; the end is
//! judged and told. So a caller never hears of an end before the reply that came with it, and nobody
//! who inherited a pipe can delay the end.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep};

use super::exchange::{Delivery, Exchange, Kind, Request};
use super::exit::Exit;
use super::keeper::{self, Grave};
use super::shared::{Shared, State};
use super::stderr::{Stderr, StderrLog};
use crate::event::{Action, End};
use crate::exit::{Cause, How, PortPart, Tail};
use crate::os::wait::{self, Ended};
use crate::os::{clock, fds, reactor, signal};
use crate::time::Tick;

/// How much is read at once, and how much of it is remembered between ports of one thread, in bytes.
const BUFFER: usize = 64 << 10;
/// How often one stream is read before others have their turn.
const READS: usize = 16;
/// What a pipe is made to hold where messages are large, in bytes; the default is 64 KiB.
const LARGE_PIPE: usize = 1 << 20;
/// How long the end of a program whose input broke may take to show.
const BROKEN_PATIENCE: Duration = Duration::from_millis(200);

thread_local! {
    /// What is read lands here first; ports of one thread share it, as none keeps it while it waits.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The task.
pub(super) struct Driver {
    shared: Arc<Shared>,
    input: Option<AsyncFd<OwnedFd>>,
    output: Option<AsyncFd<OwnedFd>>,
    error: Option<AsyncFd<OwnedFd>>,
    /// `None` once it is buried.
    process: Option<AsyncFd<OwnedFd>>,
    grave: Grave,
    program: String,
    started: Tick,
    log: StderrLog,
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off; nothing is due before.
    armed: Option<Tick>,
    /// When the input counts as closed, after a write found nobody to read it.
    broken_at: Option<Tick>,
    /// What was wrong with its output.
    protocol_error: Option<String>,
    /// Whether the pipes have been asked to be large, input and output.
    enlarged: [bool; 2],
    deliveries: Vec<Delivery>,
    reader: Reader,
    luck: Luck,
}

/// What a driver begins with.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) streams: [Option<OwnedFd>; 3],
    pub(super) pidfd: OwnedFd,
    pub(super) grave: Grave,
    pub(super) program: String,
    pub(super) started: Tick,
    pub(super) stderr: Stderr,
}

impl Driver {
    /// Must be called in a runtime. Where it fails, the process is buried.
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            shared,
            streams: [input, output, error],
            pidfd,
            grave,
            program,
            started,
            stderr,
        } = parts;
        let duplicate = fds::duplicate(&pidfd);
        let process = duplicate.and_then(reactor::watch_reads);
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                keeper::bury(shared.pid, pidfd, grave);
                return Err(error);
            }
        };
        drop(pidfd);
        let log = StderrLog::new(stderr, program.clone(), shared.pid);
        let mut driver = Self {
            shared,
            input: None,
            output: None,
            error: None,
            process: Some(process),
            grave,
            program,
            started,
            log,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            armed: None,
            broken_at: None,
            protocol_error: None,
            enlarged: [false; 2],
            deliveries: Vec::new(),
            reader: Reader::default(),
            luck: Luck::new(),
        };
        // From here on a failure drops the driver, which buries the process.
        driver.input = input.map(reactor::watch_writes).transpose()?;
        driver.output = output.map(reactor::watch_reads).transpose()?;
        driver.error = error.map(reactor::watch_reads).transpose()?;
        Ok(driver)
    }

    /// Reads what the program says, as long as somebody wants it. True when there may be more.
    fn read_output(&mut self, state: &mut State, now: Tick, context: &mut Context<'_>) -> bool {
        for _ in 0..READS {
            let Some(output) = self.output.as_ref().filter(|_| state.is_heard()) else {
                return false;
            };
            let read = when_readable(output, context, |fd| {
                self.reader.read(fd, &mut state.exchange, now, &mut self.deliveries)
            });
            match read {
                Poll::Pending => return false,
                Poll::Ready(0) => {
                    self.output_closed(state);
                    return false;
                }
                Poll::Ready(count) => {
                    self.heard(state, false);
                    if count >= BUFFER / 2 && !std::mem::replace(&mut self.enlarged[1], true) {
                        self.enlarge(true);
                    }
                }
            }
        }
        true
    }

    /// Has a pipe hold more, where the user's quota has room (pipe(7)); without, it works as well.
    fn enlarge(&self, output: bool) {
        let fd = if output { &self.output } else { &self.input };
        if let Some(fd) = fd {
            let _ = fds::enlarge(fd.as_fd(), LARGE_PIPE);
        }
    }

    fn output_closed(&mut self, state: &mut State) {
        self.output = None;
        self.deliveries.extend(state.exchange.output_closed(clock::now()));
        self.heard(state, false);
    }

    /// Hands on what the exchange had to tell.
    fn heard(&mut self, state: &mut State, last: bool) {
        if let Some(error) = state.deliver(&mut self.deliveries, last) {
            self.protocol_error = Some(error.to_string());
            self.output = None;
        }
        for text in state.texts.drain(..) {
            self.log.stray(&text);
        }
    }

    /// Looks for an answer straight after a write, without asking the reactor. Where program and port
    /// share a core the kernel has often run the program meanwhile; where it never has, this is not
    /// tried any more but now and then. Whether there was one.
    fn read_at_once(&mut self, state: &mut State, now: Tick) -> bool {
        let Some(output) = self.output.as_ref().filter(|_| state.calls > 0 && self.luck.is_in())
        else {
            return false;
        };
        let exchange = &mut state.exchange;
        match self.reader.read(output.as_fd(), exchange, now, &mut self.deliveries) {
            Ok((0, _)) => self.output_closed(state),
            Ok(_) => {
                self.luck.was(true);
                self.heard(state, false);
                return true;
            }
            // What is wrong with it, if anything, shows again when it is told to be readable.
            Err(_) => self.luck.was(false),
        }
        false
    }

    /// Writes what waits for the program, as far as its pipe takes it. Whether anything was written.
    fn write_input(&mut self, state: &mut State, context: &mut Context<'_>) -> bool {
        let mut written = false;
        while let (Some(input), None) = (&self.input, self.broken_at) {
            let mut large = false;
            let wrote = state.exchange.write_by(&mut self.deliveries, |pieces, wanted| {
                large = wanted > BUFFER;
                match write_once(input, context, pieces, wanted) {
                    Poll::Ready(wrote) => wrote.map_err(Some),
                    Poll::Pending => Err(None),
                }
            });
            if large && !std::mem::replace(&mut self.enlarged[0], true) {
                self.enlarge(false);
            }
            match wrote {
                Some(Ok(_)) => written = true,
                None | Some(Err(None)) => break,
                // It closed its input or is dying. Its end, which says more, is given a moment.
                Some(Err(Some(_))) => self.broken_at = Some(clock::now() + BROKEN_PATIENCE),
            }
        }
        if state.exchange.is_input_done() {
            self.input = None;
        }
        if written {
            self.heard(state, false);
            self.shared.room.notify_waiters();
        }
        written
    }

    /// Reads standard error, whoever listens. True when there may be more.
    fn read_error(&mut self, state: &mut State, context: &mut Context<'_>) -> bool {
        for _ in 0..READS {
            let Some(error) = &self.error else { return false };
            let listeners = &mut state.error_subscribers;
            let read = when_readable(error, context, |fd| {
                SCRATCH.with_borrow_mut(|scratch| {
                    scratch.resize(BUFFER, 0);
                    let count = fds::read(fd, scratch)?;
                    self.log.heard(&scratch[..count], listeners, false);
                    Ok((count, count < BUFFER))
                })
            });
            match read {
                Poll::Pending => return false,
                Poll::Ready(0) => {
                    self.error = None;
                    return false;
                }
                Poll::Ready(_) => {}
            }
        }
        true
    }

    /// Does what was asked for, and what is due.
    fn act(&mut self, state: &mut State, now: Tick) {
        let Some(process) = &self.process else { return };
        let pid = self.shared.pid;
        for (which, group) in state.signals.drain(..) {
            send(pid, process.as_fd(), which, group);
        }
        let ready = state.exchange.is_ready();
        for action in state.single.climb(now, ready) {
            match action {
                Action::SendQuit { .. } => Self::send_quit(&self.shared, state, now),
                Action::CloseInput { .. } => state.exchange.close_input(),
                Action::Signal { signal, group, .. } => send(pid, process.as_fd(), signal, group),
                Action::Kill { scope, .. } => keeper::kill(pid, process.as_fd(), scope),
                // Of these the ladder has none.
                Action::Spawn { .. }
                | Action::Record { .. }
                | Action::Sweep { .. }
                | Action::Changed { .. }
                | Action::Forget { .. }
                | Action::Overlapped { .. }
                | Action::Persist
                | Action::Down => {}
            }
        }
        if state.exchange.next_deadline().is_some_and(|at| at <= now) {
            self.deliveries.extend(state.exchange.expire(now));
            self.heard(state, false);
        }
        if self.broken_at.is_some_and(|at| at <= now) {
            self.broken_at = None;
            self.input = None;
            self.deliveries.extend(state.exchange.input_closed());
            self.heard(state, false);
            self.shared.room.notify_waiters();
        }
    }

    fn send_quit(shared: &Shared, state: &mut State, now: Tick) {
        let port = shared.service.port.as_ref();
        if let Some(port) = port {
            let patience = u64::try_from(port.eof_grace.as_millis()).unwrap_or(u64::MAX);
            state.exchange.drain(patience);
        }
        let quit = port.and_then(|port| port.quit.clone());
        if let Some(quit) = quit {
            // Its number is that of no other request, and nobody waits for it.
            let request = Request { id: 0, client: 0, kind: Kind::Send, payload: quit.into() };
            if let Err(refusal) = state.exchange.submit(request, now) {
                tracing::warn!(pid = shared.pid, "cannot {refusal}: the quit message was not sent");
            }
        }
    }

    /// Arms the timer for what is due first. True when that is now.
    fn wait_until_due(&mut self, state: &State, now: Tick, context: &mut Context<'_>) -> bool {
        let due = state.exchange.next_deadline();
        let due = due.into_iter().chain(self.broken_at).chain(state.single.next_deadline()).min();
        let Some(due) = due else { return false };
        // A timer that goes off too early is armed again then: deadlines that are met cost nothing.
        if self.armed.is_none_or(|armed| due < armed) {
            self.arm(due);
        } else if self.armed.is_some_and(|armed| now < armed) {
            // It knows this task since it was armed.
            return false;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if due <= clock::now() {
                self.armed = None;
                return true;
            }
            self.arm(due);
        }
        false
    }

    fn arm(&mut self, due: Tick) {
        // The kernel's clock and the runtime's agree but for what rounding does.
        let wait = due.since(clock::now()) + Duration::from_micros(1);
        self.timer.as_mut().reset(Instant::now() + wait);
        self.armed = Some(due);
    }

    /// Whether the program has ended, and how.
    fn has_ended(&mut self, context: &mut Context<'_>) -> Option<Ended> {
        let process = self.process.as_ref()?;
        let Poll::Ready(ready) = process.poll_read_ready(context) else { return None };
        match wait::peek(process.as_fd()) {
            Ok(Some(ended)) => Some(ended),
            Ok(None) => {
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
                // The waker is registered again, or what happened meanwhile is seen.
                context.waker().wake_by_ref();
                None
            }
            // Somebody else has reaped it, or ignores SIGCHLD.
            Err(_) => Some(Ended::unseen(self.shared.pid)),
        }
    }

    /// The last reads, the judgement, and the end told to everybody.
    fn finish(&mut self, state: &mut State, ended: &Ended) {
        let unread = self.input.as_ref().and_then(|input| fds::unread(input.as_fd()).ok());
        let unread = u64::try_from(unread.unwrap_or(0)).unwrap_or(0);
        self.drain(state);
        self.conclude(state, ended, unread, None);
        if let Some(process) = self.process.take() {
            keeper::bury(self.shared.pid, process.into_inner(), self.grave.clone());
        }
    }

    /// Takes what is in the pipes now and no more.
    fn drain(&mut self, state: &mut State) {
        let fd = |fd: Option<AsyncFd<OwnedFd>>| fd.map(AsyncFd::into_inner);
        if let Some(output) = fd(self.output.take()) {
            rest_of(output.as_fd(), |bytes| {
                let exchange = &mut state.exchange;
                exchange.received_into(bytes, clock::now(), &mut self.deliveries);
            });
            self.heard(state, true);
        }
        if let Some(error) = fd(self.error.take()) {
            let listeners = &mut state.error_subscribers;
            rest_of(error.as_fd(), |bytes| self.log.heard(bytes, listeners, true));
        }
        self.log.finish();
    }

    /// Judges the end and tells it.
    fn conclude(&mut self, state: &mut State, ended: &Ended, unread: u64, cause: Option<Cause>) {
        let now = clock::now();
        let ending = state.exchange.ended(unread, now);
        self.deliveries.extend(ending.deliveries);
        self.heard(state, true);
        self.input = None;
        let protocol_error = self.protocol_error.is_some();
        let end = End { how: ended.how, oom: false, protocol_error, survivors: false };
        let mut judged = state.single.judge(&end, now);
        judged.evidence.extend(state.exchange.unready());
        judged.evidence.extend(state.exchange.farewell());
        let counters = state.exchange.counters();
        let port = self.shared.service.port.as_ref();
        let exit = Arc::new(Exit {
            program: self.program.clone(),
            pid: self.shared.pid,
            how: ended.how,
            reason: judged.reason,
            cause: cause.unwrap_or(judged.cause),
            certainty: judged.certainty,
            evidence: judged.evidence,
            stop: judged.stop,
            uptime: now.since(self.started),
            usage: ended.usage,
            port: PortPart {
                framing: port.map_or("", |port| port.framing.name()).to_owned(),
                frames_in: counters.frames_in,
                frames_out: counters.frames_out,
                partial_frame: counters.partial_frame,
                unread_stdin_bytes: Some(unread),
                error: self.protocol_error.take(),
            },
            stderr_tail: Tail(self.log.tail()),
        });
        self.shared.exit.send_replace(Some(Arc::clone(&exit)));
        state.tell_lost(ending.unanswered, &exit);
        for queue in state.subscribers.drain(..).chain(state.error_subscribers.drain(..)) {
            queue.close();
        }
        self.shared.room.notify_waiters();
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        let shared = Arc::clone(&driver.shared);
        let mut state = shared.lock();
        state.driven_by(context.waker());
        if let Some(ended) = driver.has_ended(context) {
            driver.finish(&mut state, &ended);
            return Poll::Ready(());
        }
        let now = clock::now();
        let mut more = driver.read_output(&mut state, now, context);
        more |= driver.read_error(&mut state, context);
        driver.act(&mut state, now);
        // An answer that is there at once may let the next call go.
        let mut rounds = 0;
        while driver.write_input(&mut state, context) && driver.read_at_once(&mut state, now) {
            rounds += 1;
            if rounds == READS {
                more = true;
                break;
            }
        }
        more |= driver.wait_until_due(&state, now, context);
        if more {
            // Others have their turn, then it goes on.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    /// The runtime has ended while the program ran: it is killed, since nobody can speak to it any more.
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        keeper::kill(shared.pid, process.as_fd(), self.grave.scope);
        let unseen = Ended { how: How::Unseen, ..Ended::unseen(shared.pid) };
        self.conclude(&mut state, &unseen, 0, Some(Cause::ParentDied));
        keeper::bury(shared.pid, process.into_inner(), self.grave.clone());
    }
}

/// Reads once where there is something: how many bytes came, 0 at the end of the stream. `read` says that,
/// and whether the pipe is empty now, so that what comes from then on is told anew.
fn when_readable(
    stream: &AsyncFd<OwnedFd>,
    context: &mut Context<'_>,
    mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<(usize, bool)>,
) -> Poll<usize> {
    loop {
        let Ok(mut ready) = std::task::ready!(stream.poll_read_ready(context)) else {
            return Poll::Ready(0);
        };
        match read(stream.as_fd()) {
            Ok((count, emptied)) => {
                if count > 0 && emptied {
                    ready.clear_ready();
                }
                return Poll::Ready(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Poll::Ready(0),
        }
    }
}

/// Writes once.
fn write_once(
    stream: &AsyncFd<OwnedFd>,
    context: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
    wanted: usize,
) -> Poll<io::Result<usize>> {
    loop {
        let mut ready = std::task::ready!(stream.poll_write_ready(context))?;
        let wrote = match pieces {
            [one] => fds::write(stream.as_fd(), one),
            several => fds::write_pieces(stream.as_fd(), several),
        };
        match wrote {
            Ok(count) => {
                if count < wanted {
                    // The pipe is full; that there is room again is told anew.
                    ready.clear_ready();
                }
                return Poll::Ready(Ok(count));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// How a program's output is read: small messages many at once, large ones to where they will stay.
#[derive(Debug, Default)]
struct Reader {
    /// The size of the last message where that was a large one. As much may be made room for at once;
    /// otherwise memory only doubles with what came.
    large: usize,
}

/// From this size on a message is large, in bytes.
const LARGE: usize = 128 << 10;
/// So much of what follows a large message is read with it, in bytes: the length of the next one and
/// little of what would have to be copied.
const BEYOND: usize = 4 << 10;

impl Reader {
    /// Reads once: how many bytes came, and whether there were no more.
    fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        exchange: &mut Exchange,
        now: Tick,
        deliveries: &mut Vec<Delivery>,
    ) -> io::Result<(usize, bool)> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(BUFFER, 0);
            let missing = exchange.missing();
            if missing >= LARGE {
                return self.read_large(fd, exchange, now, deliveries, scratch);
            }
            let most = if self.large > 0 { BUFFER.min(missing + BEYOND) } else { BUFFER };
            let count = fds::read(fd, &mut scratch[..most])?;
            exchange.received_into(&scratch[..count], now, deliveries);
            let last = deliveries.last().map_or(0, size_of_message);
            if last >= LARGE {
                self.large = last;
            } else if count == most && exchange.missing() < LARGE {
                self.large = 0;
            }
            Ok((count, count < most))
        })
    }

    /// The same inside a large message: it is not copied, and the beginning of the next comes along.
    fn read_large(
        &mut self,
        fd: BorrowedFd<'_>,
        exchange: &mut Exchange,
        now: Tick,
        deliveries: &mut Vec<Delivery>,
        scratch: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let (mut count, mut most, mut beyond, mut whole) = (0, 0, 0, 0);
        let received = exchange.received_by(now, deliveries, |body, missing| {
            let before = body.len();
            let grown = before.max(BUFFER).max(self.large.saturating_sub(before)).min(missing);
            if body.capacity() - before < grown {
                body.reserve_exact(grown);
            }
            let room = missing.min(body.capacity() - before);
            let rest = if room == missing { BEYOND } else { 0 };
            count = fds::read_two(fd, body, room, &mut scratch[..rest])?;
            most = room + rest;
            beyond = count - (body.len() - before);
            whole = before + missing;
            Ok::<_, io::Error>(())
        });
        received.transpose()?;
        if beyond > 0 || count == most {
            self.large = whole;
        }
        if beyond > 0 {
            exchange.received_into(&scratch[..beyond], now, deliveries);
        }
        Ok((count, count < most))
    }
}

/// The size of the last message in what there is to tell.
fn size_of_message(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Event(message) => message.payload.len(),
        Delivery::Reply { messages, .. } => messages.last().map_or(0, bytes::Bytes::len),
        Delivery::Sent { .. }
        | Delivery::Failed { .. }
        | Delivery::Protocol(_)
        | Delivery::Ready
        | Delivery::Log(_)
        | Delivery::Stray(_) => 0,
    }
}

/// Whether looking for an answer straight after a write has been worth it lately.
#[derive(Debug)]
struct Luck {
    hits: u8,
    passed: u8,
}

impl Luck {
    /// So many misses in a row, and it is tried only now and then.
    const PATIENCE: u8 = 8;
    /// How seldom that is.
    const SELDOM: u8 = 64;

    fn new() -> Self {
        Self { hits: Self::PATIENCE, passed: 0 }
    }

    fn is_in(&mut self) -> bool {
        self.passed = (self.passed + 1) % Self::SELDOM;
        self.hits > 0 || self.passed == 0
    }

    fn was(&mut self, hit: bool) {
        self.hits = if hit { Self::PATIENCE } else { self.hits.saturating_sub(1) };
    }
}

/// Sends a signal to a process that has not been reaped, or to its group.
fn send(pid: i32, pidfd: BorrowedFd<'_>, which: crate::exit::Signal, group: bool) {
    let to_group = group && signal::send_group(pid, which).is_ok();
    if !to_group {
        // It may have ended a moment ago.
        let _ = signal::send(pidfd, which);
    }
}

/// Reads what is in a pipe now, and no more.
fn rest_of(pipe: BorrowedFd<'_>, mut take: impl FnMut(&[u8])) {
    let mut left = fds::unread(pipe).unwrap_or(0);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(BUFFER, 0);
        while left > 0 {
            let most = left.min(scratch.len());
            match fds::read(pipe, &mut scratch[..most]) {
                Ok(0) => break,
                Ok(count) => {
                    left -= count.min(left);
                    take(&scratch[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
}
