//! Slots for replies: what is waited for by its number skips the mailbox.
//!
//! A slot is filled once, by whoever has its address, or fails with the process that was asked. What
//! comes for a slot that is not open is nobody's: it came too late, or twice.

use std::collections::HashMap;

use crate::name::Incarnation;

/// The replies that are waited for.
#[derive(Debug, Clone)]
pub struct Slots<R, E> {
    open: HashMap<u64, Slot<R, E>>,
}

#[derive(Debug, Clone)]
struct Slot<R, E> {
    /// Who was asked.
    asked: Incarnation,
    outcome: Option<Result<R, E>>,
}

impl<R, E> Default for Slots<R, E> {
    fn default() -> Self {
        Self { open: HashMap::new() }
    }
}

impl<R, E: Clone> Slots<R, E> {
    /// None is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the slot with this number, which nobody has used, for an answer to what `asked` is asked.
    pub fn open(&mut self, reference: u64, asked: Incarnation) {
        self.open.insert(reference, Slot { asked, outcome: None });
    }

    /// A reply has come; `false` where nobody waits for it. The first one counts.
    pub fn fill(&mut self, reference: u64, reply: R) -> bool {
        match self.open.get_mut(&reference) {
            Some(slot @ Slot { outcome: None, .. }) => {
                slot.outcome = Some(Ok(reply));
                true
            }
            Some(Slot { outcome: Some(_), .. }) | None => false,
        }
    }

    /// Somebody has ended: what was asked of it, and has no reply, has none for this reason.
    pub fn ended(&mut self, who: Incarnation, why: &E) {
        let waits = |slot: &&mut Slot<R, E>| slot.asked == who && slot.outcome.is_none();
        for slot in self.open.values_mut().filter(waits) {
            slot.outcome = Some(Err(why.clone()));
        }
    }

    /// What there is to say; the slot is closed with it. `None` while there is nothing.
    pub fn take(&mut self, reference: u64) -> Option<Result<R, E>> {
        self.open.get(&reference)?.outcome.as_ref()?;
        self.open.remove(&reference)?.outcome
    }

    /// Nobody waits for it any more.
    pub fn close(&mut self, reference: u64) {
        self.open.remove(&reference);
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reply_counts_and_a_closed_slot_takes_none() {
        let mut slots = Slots::<_, ()>::new();
        assert!(!slots.fill(1, "unasked"));
        slots.open(1, Incarnation(5));
        assert_eq!(slots.take(1), None);
        assert!(slots.fill(1, "first"));
        assert!(!slots.fill(1, "second"));
        slots.ended(Incarnation(5), &());
        assert_eq!(slots.take(1), Some(Ok("first")));
        assert_eq!(slots.take(1), None);
        slots.open(2, Incarnation(5));
        slots.close(2);
        assert!(!slots.fill(2, "late") && slots.is_empty());
    }

    #[test]
    fn who_was_asked_and_ended_fails_its_own_slots_alone() {
        let mut slots = Slots::<u8, &str>::new();
        slots.open(1, Incarnation(5));
        slots.open(2, Incarnation(6));
        slots.ended(Incarnation(5), &"panicked");
        assert_eq!(slots.take(1), Some(Err("panicked")));
        assert!(slots.take(2).is_none() && slots.fill(2, 3) && slots.len() == 1);
    }
}
