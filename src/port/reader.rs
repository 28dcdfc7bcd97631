//! How a program's output is read: small messages many at once, large ones to where they will stay.
//!
//! It knows nothing of who waits and never waits itself.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;

use super::exchange::{Delivery, Exchange};
use crate::os::fds;
use crate::time::Tick;

/// How much is read at once, and how much of it is remembered between ports of one thread, in bytes.
pub(super) const BUFFER: usize = 64 << 10;

thread_local! {
    /// What is read lands here first; ports of one thread share it, as none keeps it while it waits.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the memory that reads land in first.
pub(super) fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(BUFFER, 0);
        use_it(scratch)
    })
}

/// How a program's output is read: small messages many at once, large ones to where they will stay.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The size of the last message where that was a large one. As much may be made room for at once;
    /// otherwise memory only doubles with what came.
    large: usize,
}

/// From this size on a message is large, in bytes.
const LARGE: usize = 16 << 10;
/// So much of what follows a large message is read with it, in bytes: the length of the next one and
/// little of what would have to be copied.
const BEYOND: usize = 4 << 10;

impl Reader {
    /// Reads once: how many bytes came, and whether there were no more.
    pub(super) fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        exchange: &mut Exchange,
        now: Tick,
        deliveries: &mut Vec<Delivery>,
    ) -> io::Result<(usize, bool)> {
        with_scratch(|scratch| {
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

/// Reads what is in a pipe now, and no more.
pub(super) fn rest_of(pipe: BorrowedFd<'_>, mut take: impl FnMut(&[u8])) {
    let mut left = fds::unread(pipe).unwrap_or(0);
    with_scratch(|scratch| {
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
