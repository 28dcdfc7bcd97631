//! The pipes of an embedded port, and the turns in which bytes move through them.
//!
//! A turn is taken under the lock by whoever is concerned: the driver's task or, where one request is
//! all that is open, the task that waits for its outcome, which spares a round trip two changes of
//! tasks. A turn never waits; who took the last one is woken when pipes allow another. Whatever else
//! becomes due, the driver alone does.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::reader::{BUFFER, Reader};
use super::shared::State;
use crate::os::{clock, fds, memory};
use crate::time::Tick;

/// How often one stream is read before others have their turn.
pub(super) const READS: usize = 16;
/// What a pipe is made to hold where messages are large, in bytes; the default is 64 KiB.
const LARGE_PIPE: usize = 1 << 20;
/// How long the end of a program whose input broke may take to show.
const BROKEN_PATIENCE: Duration = Duration::from_millis(200);

/// Our ends, and how reading and writing has gone so far.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// `None` once it is closed.
    pub(super) input: Option<AsyncFd<OwnedFd>>,
    /// `None` once it has ended, or is not read any more.
    pub(super) output: Option<AsyncFd<OwnedFd>>,
    /// When the input counts as closed, after a write found nobody to read it.
    pub(super) broken_at: Option<Tick>,
    /// Whether the pipes have been asked to be large, input and output.
    enlarged: [bool; 2],
    reader: Reader,
    luck: Luck,
}

impl Pipes {
    /// Has a pipe hold more, once, where the user's quota has room (pipe(7)); without, it works as well.
    fn enlarge(&mut self, output: bool) {
        if std::mem::replace(&mut self.enlarged[usize::from(output)], true) {
            return;
        }
        // So much is on its way that the memory of its messages is better kept than asked for anew.
        memory::keep_freed();
        let fd = if output { &self.output } else { &self.input };
        if let Some(fd) = fd {
            let _ = fds::enlarge(fd.as_fd(), LARGE_PIPE);
        }
    }
}

impl State {
    /// Reads what the program says, as long as somebody wants it. True when there may be more.
    pub(super) fn read_output(&mut self, now: Tick, context: &mut Context<'_>) -> bool {
        for _ in 0..READS {
            if !self.is_heard() {
                return false;
            }
            let Self { pipes, exchange, deliveries, .. } = self;
            let Some(output) = &pipes.output else { return false };
            let reader = &mut pipes.reader;
            let read =
                when_readable(output, context, |fd| reader.read(fd, exchange, now, deliveries));
            match read {
                Poll::Pending => return false,
                Poll::Ready(0) => {
                    self.output_closed();
                    return false;
                }
                Poll::Ready(count) => {
                    if count >= BUFFER / 2 {
                        pipes.enlarge(true);
                    }
                    self.heard(false);
                }
            }
        }
        true
    }

    /// Writes what waits, and looks for answers straight away, which may let the next call go. True when
    /// there may be more.
    pub(super) fn write_input(&mut self, now: Tick, context: &mut Context<'_>) -> bool {
        for _ in 0..READS {
            if !self.write_waiting(context) || !self.read_at_once(now) {
                return false;
            }
        }
        true
    }

    fn output_closed(&mut self) {
        self.pipes.output = None;
        self.deliveries.extend(self.exchange.output_closed(clock::now()));
        self.heard(false);
    }

    /// Looks for an answer straight after a write, without asking the reactor. Where program and port
    /// share a core the kernel has often run the program meanwhile; where it never has, this is not
    /// tried any more but now and then. Whether there was one.
    fn read_at_once(&mut self, now: Tick) -> bool {
        let Self { pipes: Pipes { output, reader, luck, .. }, exchange, deliveries, .. } = self;
        let Some(output) = output.as_ref().filter(|_| self.calls > 0 && luck.is_in()) else {
            return false;
        };
        match reader.read(output.as_fd(), exchange, now, deliveries) {
            Ok((0, _)) => self.output_closed(),
            Ok(_) => {
                luck.was(true);
                self.heard(false);
                return true;
            }
            // What is wrong with it, if anything, shows again when it is told to be readable.
            Err(_) => luck.was(false),
        }
        false
    }

    /// Writes what waits for the program, as far as its pipe takes it. Whether anything was written.
    fn write_waiting(&mut self, context: &mut Context<'_>) -> bool {
        let mut written = false;
        while let (Some(input), None) = (&self.pipes.input, self.pipes.broken_at) {
            let mut large = false;
            let wrote = self.exchange.write_by(&mut self.deliveries, |pieces, wanted| {
                large = wanted > BUFFER;
                match write_once(input, context, pieces, wanted) {
                    Poll::Ready(wrote) => wrote.map_err(Some),
                    Poll::Pending => Err(None),
                }
            });
            if large {
                self.pipes.enlarge(false);
            }
            match wrote {
                Some(Ok(_)) => written = true,
                None | Some(Err(None)) => break,
                // It closed its input or is dying. Its end, which says more, is given a moment.
                Some(Err(Some(_))) => self.pipes.broken_at = Some(clock::now() + BROKEN_PATIENCE),
            }
        }
        if self.exchange.is_input_done() {
            self.pipes.input = None;
        }
        if written {
            self.heard(false);
            self.room.notify_waiters();
        }
        written
    }
}

/// Reads once where there is something: how many bytes came, 0 at the end of the stream. `read` says that,
/// and whether the pipe is empty now, so that what comes from then on is told anew.
pub(super) fn when_readable(
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

/// Whether looking for an answer straight after a write has been worth it lately.
#[derive(Debug)]
struct Luck {
    hits: u8,
    passed: u8,
}

impl Default for Luck {
    fn default() -> Self {
        Self { hits: Self::PATIENCE, passed: 0 }
    }
}

impl Luck {
    /// So many misses in a row, and it is tried only now and then.
    const PATIENCE: u8 = 8;
    /// How seldom that is.
    const SELDOM: u8 = 64;

    fn is_in(&mut self) -> bool {
        self.passed = (self.passed + 1) % Self::SELDOM;
        self.hits > 0 || self.passed == 0
    }

    fn was(&mut self, hit: bool) {
        self.hits = if hit { Self::PATIENCE } else { self.hits.saturating_sub(1) };
    }
}
