//! The output of several replicas as one, in the order of time.
//!
//! Within a replica the order is never changed, whatever its clock did.

use super::{Line, Lines, OutputError};
use crate::name::ReplicaId;

/// Lines of several replicas, oldest first.
pub struct Merged {
    sources: Vec<(ReplicaId, Lines)>,
    /// The next line of each source.
    next: Vec<Option<Line>>,
    failed: Vec<OutputError>,
}

impl Merged {
    /// Merges `sources`. Lines of the same time come in the order of the sources.
    pub fn new(sources: Vec<(ReplicaId, Lines)>) -> Self {
        let count = sources.len();
        let mut merged = Self { sources, next: vec![None; count], failed: Vec::new() };
        for at in 0..count {
            merged.advance(at);
        }
        merged
    }

    fn advance(&mut self, at: usize) -> Option<Line> {
        let next = match self.sources[at].1.next() {
            Some(Ok(line)) => Some(line),
            Some(Err(error)) => {
                self.failed.push(error);
                None
            }
            None => None,
        };
        std::mem::replace(&mut self.next[at], next)
    }
}

impl Iterator for Merged {
    type Item = Result<(ReplicaId, Line), OutputError>;

    /// A source that cannot be read yields its error once and nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.pop() {
            return Some(Err(error));
        }
        let waiting = self.next.iter().enumerate();
        let (at, _) = waiting
            .filter_map(|(at, line)| Some((at, line.as_ref()?.at)))
            .min_by_key(|&(_, time)| time)?;
        let line = self.advance(at)?;
        Some(Ok((self.sources[at].0.clone(), line)))
    }
}
