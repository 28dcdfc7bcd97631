//! New records as they are appended, over rotation, each once. It waits for nothing.

use super::reader::read_error;
use super::{Entry, Filter, JournalError};
use crate::rotation::{Family, Follow};
use crate::time::Wall;

/// A place in the journal that moves on with it. Made by [`Reader::follower`](super::Reader).
#[derive(Debug)]
pub struct Follower {
    follow: Follow,
    family: Family,
    filter: Filter,
    /// The last record that was read, so that none comes twice after somebody wrote into the file.
    last: Option<(u64, Wall)>,
    unreadable: u64,
}

impl Follower {
    pub(super) fn new(follow: Follow, family: Family, filter: Filter) -> Self {
        Self { follow, family, filter, last: None, unreadable: 0 }
    }

    /// The wanted records that were appended since the last call, oldest first.
    pub fn read_new(&mut self) -> Result<Vec<Entry>, JournalError> {
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let more = self.follow.read(&mut bytes);
            let all = Filter::default();
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line).to_vec();
                let Some(entry) = all.entry(line, &mut self.unreadable) else { continue };
                let now = (entry.record.seq, entry.record.ts);
                // A smaller number with a later time is a journal begun anew, not a repetition.
                if self.last.is_some_and(|last| now.0 <= last.0 && now.1 <= last.1) {
                    continue;
                }
                self.last = Some(now);
                if self.filter.wants(&entry.record) {
                    found.push(entry);
                }
            }
            if !more.map_err(|source| read_error(&self.family, source))? {
                return Ok(found);
            }
        }
    }

    /// How many lines so far were no records.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}
