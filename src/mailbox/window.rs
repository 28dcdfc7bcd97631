//! How much may be on its way from one sender to one receiver.
//!
//! The sender counts what has not been taken out of the other's mailbox, and waits where that is a window
//! or more; the receiver says from time to time how much was taken. A message larger than what is left of the window
//! is let through, so what waits is less than a window and one message. Replies are not counted.

/// So much may be on its way, in bytes.
pub const WINDOW: u64 = 256 * 1024;

/// The sender's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Sent, and not known to be taken.
    out: u64,
}

impl Window {
    /// Whether another message may be sent.
    pub fn is_open(self) -> bool {
        self.out < WINDOW
    }

    /// A message was sent that counts for so many bytes.
    pub fn sent(&mut self, bytes: u64) {
        self.out = self.out.saturating_add(bytes);
    }

    /// The receiver says that so many more were taken.
    pub fn credit(&mut self, bytes: u64) {
        self.out = self.out.saturating_sub(bytes);
    }
}

/// The receiver's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Taken, and not told.
    untold: u64,
}

impl Taken {
    /// A message that counts for so many bytes was taken out of the mailbox; how much is to be told to its
    /// sender now, if anything.
    ///
    /// It is told a quarter of a window at a time: what is kept back never closes a window by itself.
    pub fn took(&mut self, bytes: u64) -> Option<u64> {
        self.untold = self.untold.saturating_add(bytes);
        (self.untold >= WINDOW / 4).then(|| std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Whatever the sizes: a sender that waits is let go on once all was taken, and what waits is bounded.
        #[test]
        fn it_is_bounded_and_never_stuck(
            sizes in prop::collection::vec(1..3 * WINDOW, 1..200),
            eager in any::<u64>(),
        ) {
            let (mut window, mut taken) = (Window::default(), Taken::default());
            let (mut waiting, mut told) = (VecDeque::new(), VecDeque::new());
            let largest = sizes.iter().copied().max().unwrap();
            for (number, size) in sizes.into_iter().enumerate() {
                while !window.is_open() {
                    // The receiver takes one, or all that it was told of has reached the sender.
                    match waiting.pop_front() {
                        Some(bytes) => told.extend(taken.took(bytes)),
                        None => prop_assert!(!told.is_empty(), "stuck at {number}"),
                    }
                    if eager >> (number % 64) & 1 == 1 || waiting.is_empty() {
                        told.drain(..).for_each(|bytes| window.credit(bytes));
                    }
                }
                window.sent(size);
                waiting.push_back(size);
                prop_assert!(waiting.iter().sum::<u64>() < WINDOW + largest);
            }
        }
    }
}
