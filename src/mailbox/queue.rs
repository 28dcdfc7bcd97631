//! The mailbox itself: messages in the order in which they came, taken out by a pattern.
//!
//! Who looks for something keeps a [`Mark`] of what it has seen, so that a message is shown to it
//! once: looking again costs nothing for what did not match before. The bound is the senders' business
//! ([`Window`](super::Window)); here it is counted only.

use std::collections::BTreeMap;

/// How far a pattern has looked: nothing before it matches.
///
/// It is good for one pattern. A pattern that would answer differently now needs a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark(u64);

/// Messages in the order of their arrival.
#[derive(Debug, Clone)]
pub struct Mailbox<M> {
    /// By the number of their arrival, which only grows.
    messages: BTreeMap<u64, (usize, M)>,
    next: u64,
    bytes: usize,
    /// How often a message was shown to a pattern.
    looked: u64,
}

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self { messages: BTreeMap::new(), next: 0, bytes: 0, looked: 0 }
    }
}

impl<M> Mailbox<M> {
    /// Nothing has come.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message has come; `bytes` is what it counts for.
    pub fn push(&mut self, message: M, bytes: usize) {
        self.messages.insert(self.next, (bytes, message));
        self.next += 1;
        self.bytes += bytes;
    }

    /// Takes out the first message behind `mark` for which the pattern has something to say. The mark
    /// moves behind all that was looked at.
    pub fn take<T>(
        &mut self,
        mark: &mut Mark,
        mut pattern: impl FnMut(&M) -> Option<T>,
    ) -> Option<(M, T)> {
        // Most receivers want what has been there longest.
        let from = mark.0;
        let mut found = None;
        for (at, (_, message)) in self.messages.range(from..) {
            self.looked += 1;
            if let Some(said) = pattern(message) {
                found = Some((*at, said));
                break;
            }
        }
        let Some((at, said)) = found else {
            mark.0 = self.next;
            return None;
        };
        mark.0 = at + 1;
        let (bytes, message) = self.messages.remove(&at)?;
        self.bytes -= bytes;
        Some((message, said))
    }

    /// Takes out every message that is to go, wherever it is.
    pub fn remove(&mut self, mut goes: impl FnMut(&M) -> bool) -> Vec<M> {
        let gone: Vec<u64> = self
            .messages
            .iter()
            .filter(|(_, (_, message))| goes(message))
            .map(|(at, _)| *at)
            .collect();
        let taken = gone.iter().filter_map(|at| self.messages.remove(at));
        let taken: Vec<(usize, M)> = taken.collect();
        self.bytes -= taken.iter().map(|(bytes, _)| bytes).sum::<usize>();
        taken.into_iter().map(|(_, message)| message).collect()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What they count for together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often a message was shown to a pattern since the beginning: what looking has cost.
    pub fn looked(&self) -> u64 {
        self.looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(wanted: u8) -> impl FnMut(&u8) -> Option<()> {
        move |message| (*message == wanted).then_some(())
    }

    #[test]
    fn what_does_not_match_stays_in_order() {
        let mut mailbox = Mailbox::new();
        for message in [1, 2, 3, 2, 1] {
            mailbox.push(message, 1);
        }
        assert_eq!(mailbox.take(&mut Mark::default(), is(2)), Some((2, ())));
        assert_eq!(mailbox.take(&mut Mark::default(), is(9)), None);
        assert_eq!((mailbox.len(), mailbox.bytes()), (4, 4));
        let mut all = Mark::default();
        let rest: Vec<u8> = std::iter::from_fn(|| mailbox.take(&mut all, |_| Some(())))
            .map(|(one, ())| one)
            .collect();
        assert_eq!(rest, [1, 3, 2, 1]);
        assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
    }

    #[test]
    fn looking_again_costs_what_is_new() {
        let mut mailbox = Mailbox::new();
        for _ in 0..100_000 {
            mailbox.push(0, 8);
        }
        let mut mark = Mark::default();
        assert_eq!(mailbox.take(&mut mark, is(1)), None);
        assert_eq!(mailbox.looked(), 100_000);
        for _ in 0..3 {
            mailbox.push(1, 8);
            assert_eq!(mailbox.take(&mut mark, is(1)), Some((1, ())));
            assert_eq!(mailbox.take(&mut mark, is(1)), None);
        }
        assert_eq!(mailbox.looked(), 100_003);
    }

    /// One move of somebody with several patterns, each with a mark of its own.
    #[derive(Debug, Clone)]
    enum Move {
        Push(u8),
        Take { wanted: u8, marked: bool },
        Remove(u8),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let kind = 0..4_u8;
        let one = prop_oneof![
            4 => kind.clone().prop_map(Move::Push),
            3 => (kind.clone(), any::<bool>()).prop_map(|(wanted, marked)| Move::Take { wanted, marked }),
            1 => kind.prop_map(Move::Remove),
        ];
        prop::collection::vec(one, 0..200)
    }

    proptest! {
        /// A list without marks is the model: with them the same messages come, in the same order.
        #[test]
        fn marks_change_the_cost_and_nothing_else(moves in moves()) {
            let (mut mailbox, mut model) = (Mailbox::new(), Vec::<(u8, usize)>::new());
            let mut marks = [Mark::default(); 4];
            for (number, one) in moves.into_iter().enumerate() {
                match one {
                    Move::Push(kind) => {
                        mailbox.push((kind, number), number);
                        model.push((kind, number));
                    }
                    Move::Take { wanted, marked } => {
                        let mut fresh = Mark::default();
                        let mark = if marked { &mut marks[usize::from(wanted)] } else { &mut fresh };
                        let taken = mailbox.take(mark, |(kind, _)| (*kind == wanted).then_some(()));
                        let at = model.iter().position(|(kind, _)| *kind == wanted);
                        prop_assert_eq!(taken.map(|(message, ())| message), at.map(|at| model.remove(at)));
                    }
                    Move::Remove(kind) => {
                        let gone = mailbox.remove(|(this, _)| *this == kind);
                        let expected: Vec<_> = model.iter().copied().filter(|(this, _)| *this == kind).collect();
                        model.retain(|(this, _)| *this != kind);
                        prop_assert_eq!(gone, expected);
                    }
                }
                prop_assert_eq!(mailbox.len(), model.len());
                prop_assert_eq!(mailbox.bytes(), model.iter().map(|(_, bytes)| bytes).sum::<usize>());
            }
        }
    }
}
