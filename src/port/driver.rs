//! The task that drives an embedded port and sees its end. There is one for each port, and it alone
//! signals and looks at the process, reads standard error, and does what is due. It moves the bytes too,
//! but for those of a request that is alone ([`super::pipes`]).
//!
//! It never waits for anybody who listens. Its exit notice is built from three facts in a fixed order: the
//! pidfd is readable; what the pipes hold is read, as much as was there then, and delivered; the end is
//! judged and told. So a caller never hears of an end before the reply that came with it, and nobody
//! who inherited a pipe can delay the end.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep};

use super::exchange::{Kind, Request};
use super::exit::Exit;
use super::keeper::{self, Grave};
use super::pipes::{READS, when_readable};
use super::reader::{rest_of, with_scratch};
use super::shared::{Shared, State};
use super::stderr::{Stderr, StderrLog};
use crate::event::{Action, End};
use crate::exit::{Cause, How, PortPart, Tail};
use crate::os::wait::{self, Ended};
use crate::os::{clock, fds, reactor, signal};
use crate::time::Tick;

/// The task.
pub(super) struct Driver {
    shared: Arc<Shared>,
    error: Option<AsyncFd<OwnedFd>>,
    /// `None` once it is buried.
    process: Option<AsyncFd<OwnedFd>>,
    grave: Grave,
    program: String,
    started: Tick,
    log: StderrLog,
    timer: Pin<Box<Sleep>>,
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
            error: None,
            process: Some(process),
            grave,
            program,
            started,
            log,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
        };
        // From here on a failure drops the driver, which buries the process.
        driver.error = error.map(reactor::watch_reads).transpose()?;
        let input = input.map(reactor::watch_writes).transpose()?;
        let output = output.map(reactor::watch_reads).transpose()?;
        let shared = Arc::clone(&driver.shared);
        let mut state = shared.lock();
        state.pipes.input = input;
        state.pipes.output = output;
        drop(state);
        Ok(driver)
    }

    /// Reads standard error, whoever listens. True when there may be more.
    fn read_error(&mut self, state: &mut State, context: &mut Context<'_>) -> bool {
        for _ in 0..READS {
            let Some(error) = &self.error else { return false };
            let listeners = &mut state.error_subscribers;
            let read = when_readable(error, context, |fd| {
                with_scratch(|scratch| {
                    let count = fds::read(fd, scratch)?;
                    self.log.heard(&scratch[..count], listeners, false);
                    Ok((count, count < scratch.len()))
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

    /// Text that is no protocol goes to the log.
    fn tell_strays(&mut self, state: &mut State) {
        for text in state.texts.drain(..) {
            self.log.stray(&text);
        }
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
                | Action::Probe { .. }
                | Action::Measure { .. }
                | Action::Changed { .. }
                | Action::Forget { .. }
                | Action::Overlapped { .. }
                | Action::Halted { .. }
                | Action::Persist
                | Action::Reread { .. }
                | Action::Down => {}
            }
        }
        if state.exchange.next_deadline().is_some_and(|at| at <= now) {
            state.deliveries.extend(state.exchange.expire(now));
            state.heard(false);
        }
        if state.pipes.broken_at.is_some_and(|at| at <= now) {
            state.pipes.broken_at = None;
            state.pipes.input = None;
            state.deliveries.extend(state.exchange.input_closed());
            state.heard(false);
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
    fn wait_until_due(&mut self, state: &mut State, now: Tick, context: &mut Context<'_>) -> bool {
        let Some(due) = state.due() else {
            // One that has gone off waits for nothing any more.
            state.armed = state.armed.filter(|armed| now < *armed);
            return false;
        };
        // A timer that goes off too early is armed again then: deadlines that are met cost nothing.
        if state.armed.is_none_or(|armed| due < armed) {
            state.armed = Some(self.arm(due));
        } else if state.armed.is_some_and(|armed| now < armed) {
            // It knows this task since it was armed.
            return false;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if due <= clock::now() {
                state.armed = None;
                return true;
            }
            state.armed = Some(self.arm(due));
        }
        false
    }

    fn arm(&mut self, due: Tick) -> Tick {
        // The kernel's clock and the runtime's agree but for what rounding does.
        let wait = due.since(clock::now()) + Duration::from_micros(1);
        self.timer.as_mut().reset(Instant::now() + wait);
        due
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
        let unread = state.pipes.input.as_ref().and_then(|input| fds::unread(input.as_fd()).ok());
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
        if let Some(output) = fd(state.pipes.output.take()) {
            rest_of(output.as_fd(), |bytes| {
                let exchange = &mut state.exchange;
                exchange.received_into(bytes, clock::now(), &mut state.deliveries);
            });
            state.heard(true);
            self.tell_strays(state);
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
        state.deliveries.extend(ending.deliveries);
        state.heard(true);
        self.tell_strays(state);
        state.pipes.input = None;
        state.pipes.output = None;
        let protocol_error = state.protocol_error.is_some();
        let end = End { protocol_error, ..End::plain(ended.how) };
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
                error: state.protocol_error.take(),
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
        let mut more = state.read_output(now, context);
        more |= driver.read_error(&mut state, context);
        driver.act(&mut state, now);
        more |= state.write_input(now, context);
        driver.tell_strays(&mut state);
        more |= driver.wait_until_due(&mut state, now, context);
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

/// Sends a signal to a process that has not been reaped, or to its group.
fn send(pid: i32, pidfd: BorrowedFd<'_>, which: crate::exit::Signal, group: bool) {
    let to_group = group && signal::send_group(pid, which).is_ok();
    if !to_group {
        // It may have ended a moment ago.
        let _ = signal::send(pidfd, which);
    }
}
