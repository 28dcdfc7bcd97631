//! The output of several replicas as one, in the order of time.
//!
//! Within a replica the order is never changed, whatever the clock of the machine did.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Line, Lines, OutputError};
use crate::name::ReplicaId;
use crate::time::Wall;

/// Lines of several replicas, oldest first.
pub struct Merged {
    sources: Vec<(ReplicaId, Lines)>,
    /// The next line of each source.
    next: Vec<Option<Line>>,
    /// The times of those lines, the earliest on top.
    order: BinaryHeap<Reverse<(Wall, usize)>>,
    failed: Vec<OutputError>,
}

impl Merged {
    /// Merges `sources`. Lines of the same time come in the order of the sources.
    pub fn new(sources: Vec<(ReplicaId, Lines)>) -> Self {
        let count = sources.len();
        let next = vec![None; count];
        let mut merged = Self { sources, next, order: BinaryHeap::new(), failed: Vec::new() };
        for at in 0..count {
            merged.advance(at);
        }
        merged
    }

    /// How many lines passed so far have not the format.
    pub fn unreadable(&self) -> u64 {
        self.sources.iter().map(|(_, lines)| lines.unreadable()).sum()
    }

    /// Fetches the next line of a source and hands out the one it takes the place of.
    fn advance(&mut self, at: usize) -> Option<Line> {
        // What comes after a file that cannot be read is still wanted; each fails but once.
        let next = loop {
            match self.sources[at].1.next() {
                Some(Err(error)) => self.failed.push(error),
                Some(Ok(line)) => break Some(line),
                None => break None,
            }
        };
        if let Some(line) = &next {
            self.order.push(Reverse((line.at, at)));
        }
        std::mem::replace(&mut self.next[at], next)
    }
}

impl Iterator for Merged {
    type Item = Result<(ReplicaId, Line), OutputError>;

    /// A file that cannot be read yields its error once; the others go on.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.pop() {
            return Some(Err(error));
        }
        let Reverse((_, at)) = self.order.pop()?;
        let line = self.advance(at)?;
        Some(Ok((self.sources[at].0.clone(), line)))
    }
}
