//! Clocks and waiting. Every wait ends: with what was waited for, or by stopping the measurement.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wharf::os::clock;
use wharf::time::Tick;

/// The longest that any single thing may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The pause between two contestants, so that what one still does is not counted to the next.
pub(crate) const QUIET: Duration = Duration::from_millis(5);

/// A length of time in microseconds.
pub(crate) fn micros(length: Duration) -> f64 {
    length.as_secs_f64() * 1e6
}

/// From a moment until another one, in microseconds.
pub(crate) fn between(from: Tick, to: Tick) -> f64 {
    micros(to.since(from))
}

/// Lets time pass, for a program to have run that long.
pub(crate) fn pass(length: Duration) {
    let end = clock::now() + length;
    loop {
        let left = end.since(clock::now());
        if left.is_zero() {
            return;
        }
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        poll(&mut [], PollTimeout::from(millis)).unwrap();
    }
}

/// Waits until a descriptor can be read; false when that takes longer than `limit`.
pub(crate) fn readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let millis = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(millis)).unwrap() > 0
}

/// Waits until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = clock::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::now().since(start) < LIMIT, "waited in vain for {what}");
        pass(Duration::from_millis(5));
    }
}
