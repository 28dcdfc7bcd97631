//! What decides in native processes: the mailbox, and who is told when somebody ends.
//!
//! The inside of a process ([`Mailbox`], [`Slots`], [`Window`]) and its hub ([`Lives`], [`judge`]) are made of these; the
//! sockets, the clock and the waiting are in `process`. Pure: nothing here reads, waits or looks at the clock, and no
//! message is ever looked into but by the pattern that the receiver brings.

mod end;
mod lives;
mod queue;
mod slots;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use end::code;
pub use end::{Exit, Facts, Packed, judge};
pub use lives::{Lives, Notice};
pub use queue::{Mailbox, Mark};
pub use slots::Slots;
pub use window::{Taken, WINDOW, Window};
