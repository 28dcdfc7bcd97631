//! The clocks. Whoever needs the time asks here once and hands it on as a value.

use crate::time::{Tick, Wall};

fn read(clock: nix::time::ClockId) -> u64 {
    // The two clocks asked for always exist, and both are far from the end of an u64.
    let at = clock.now().unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    u64::try_from(at.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u64::try_from(at.tv_nsec()).unwrap_or(0)
}

/// Now, on the clock that never jumps (`CLOCK_MONOTONIC`).
pub fn now() -> Tick {
    Tick(read(nix::time::ClockId::CLOCK_MONOTONIC))
}

/// Now, on the wall clock.
pub fn wall() -> Wall {
    Wall(read(nix::time::ClockId::CLOCK_REALTIME))
}
