//! The reading end: records oldest first over all files, with or without a manager.
//!
//! A line that is no record is passed over and counted. A last line without LF is left alone: it is
//! being written, or the next start of the manager repairs it.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::{Follower, JournalError, family};
use crate::exit::{Cause, ExitRecord, Reason};
use crate::name::Target;
use crate::rotation::{Backward, Family, Follow, Member, Text, end_of_lines};
use crate::time::Wall;

/// One record and the line it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The line as it stands in the journal, without its LF.
    pub line: Vec<u8>,
    /// What it says.
    pub record: ExitRecord,
}

/// Which records are wanted. The default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of any of these; of all services where it is empty.
    pub targets: Vec<Target>,
    /// With this reason.
    pub reason: Option<Reason>,
    /// With this cause.
    pub cause: Option<Cause>,
    /// Not older than this.
    pub since: Option<Wall>,
    /// Not younger than this.
    pub until: Option<Wall>,
    /// With a greater number than this.
    pub since_seq: Option<u64>,
    /// No more than so many, the last ones. A follower does not count.
    pub last: Option<usize>,
}

/// The journal as it was when it was opened.
#[derive(Debug)]
pub struct Reader {
    family: Family,
    /// Youngest first.
    members: Vec<Member>,
    /// Where the last whole line of the current file ends.
    end: u64,
}

impl Reader {
    /// Opens the journal in `dir`; where there is none it is empty.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let family = family(dir);
        let open = || {
            let members = family.members()?;
            let end = match members.first() {
                Some(current) => end_of_lines(&current.file, current.file.metadata()?.len())?,
                None => 0,
            };
            Ok((members, end))
        };
        match open() {
            Ok((members, end)) => Ok(Self { family, members, end }),
            Err(source) => Err(read_error(&family, source)),
        }
    }

    /// What comes after everything this reader shows.
    pub fn follower(&self, filter: Filter) -> Result<Follower, JournalError> {
        Follow::after(self.family.clone(), &self.members, self.end)
            .map(|follow| Follower::new(follow, self.family.clone(), filter))
            .map_err(|source| read_error(&self.family, source))
    }

    /// The wanted records, oldest first.
    pub fn entries(mut self, filter: Filter) -> Result<Entries, JournalError> {
        let mut entries = Entries {
            family: self.family,
            source: Source::Files { reading: None, files: VecDeque::new() },
            filter,
            unreadable: 0,
        };
        let family = entries.family.clone();
        let fail = |source| read_error(&family, source);
        if let Some(count) = entries.filter.last {
            entries.collect_last(self.members, self.end, count).map_err(fail)?;
            return Ok(entries);
        }
        if let Some(seq) = entries.filter.since_seq {
            forget_older(&mut self.members, seq).map_err(fail)?;
        }
        let mut files = VecDeque::new();
        for (at, member) in self.members.into_iter().enumerate() {
            let end = if at == 0 { self.end } else { u64::MAX };
            files.push_front((member, end));
        }
        entries.source = Source::Files { reading: None, files };
        Ok(entries)
    }
}

/// The wanted records, oldest first.
pub struct Entries {
    family: Family,
    source: Source,
    filter: Filter,
    unreadable: u64,
}

enum Source {
    Files { reading: Option<Box<dyn BufRead + Send>>, files: VecDeque<(Member, u64)> },
    Collected(VecDeque<Entry>),
}

impl Entries {
    /// How many lines passed so far were no records.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn collect_last(&mut self, members: Vec<Member>, end: u64, count: usize) -> io::Result<()> {
        let mut found = VecDeque::new();
        for (at, member) in members.into_iter().enumerate() {
            let len = if at == 0 { end } else { member.file.metadata()?.len() };
            let end = end_of_lines(&member.file, len)?;
            let text = Text::File(member.file);
            let mut backward = Backward::new(&text, end);
            while found.len() < count {
                let Some((_, line)) = backward.line()? else { break };
                if let Some(entry) = self.filter.entry(line, &mut self.unreadable) {
                    found.push_front(entry);
                }
            }
        }
        self.source = Source::Collected(found);
        Ok(())
    }

    fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let (reading, files) = match &mut self.source {
                Source::Collected(found) => return Ok(found.pop_front()),
                Source::Files { reading, files } => (reading, files),
            };
            let Some(reader) = reading else {
                let Some((member, end)) = files.pop_front() else { return Ok(None) };
                *reading = Some(Box::new(member.into_reader().take(end)));
                continue;
            };
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => {
                    *reading = None;
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    // The rest of this file is given up, not that of the others.
                    *reading = None;
                    return Err(error);
                }
            }
            if line.pop() == Some(b'\n')
                && let Some(entry) = self.filter.entry(line, &mut self.unreadable)
            {
                return Ok(Some(entry));
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().map_err(|source| read_error(&self.family, source)).transpose()
    }
}

impl Filter {
    /// Makes an entry of a line where it is wanted; counts it where it is no record.
    pub(super) fn entry(&self, line: Vec<u8>, unreadable: &mut u64) -> Option<Entry> {
        if !self.may_want(&line) {
            return None;
        }
        if let Ok(record) = serde_json::from_slice(&line) {
            self.wants(&record).then_some(Entry { line, record })
        } else {
            *unreadable += 1;
            None
        }
    }

    /// Whether a record is wanted, `last` aside.
    pub fn wants(&self, record: &ExitRecord) -> bool {
        let service = &record.service;
        let named = |target: &Target| {
            target.service == service.name
                && target.replica.is_none_or(|replica| replica == service.replica)
        };
        (self.targets.is_empty() || self.targets.iter().any(named))
            && self.reason.is_none_or(|reason| reason == record.exit.reason)
            && self.cause.is_none_or(|cause| cause == record.exit.cause)
            && self.since.is_none_or(|since| record.ts >= since)
            && self.until.is_none_or(|until| record.ts <= until)
            && self.since_seq.is_none_or(|seq| record.seq > seq)
    }

    /// A cheap look that spares most lines from being parsed.
    fn may_want(&self, line: &[u8]) -> bool {
        let has =
            |word: &str| memchr::memmem::find(line, format!("\"{word}\"").as_bytes()).is_some();
        (self.targets.is_empty() || self.targets.iter().any(|target| has(target.service.as_str())))
            && self.reason.is_none_or(|reason| has(reason.as_str()))
            && self.cause.is_none_or(|cause| has(cause.as_str()))
    }
}

/// Drops the files in which no number is greater than `seq`.
fn forget_older(members: &mut Vec<Member>, seq: u64) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: u64,
    }
    for at in 0..members.len() {
        let mut line = Vec::new();
        BufReader::new(members[at].try_clone()?.into_reader()).read_until(b'\n', &mut line)?;
        if serde_json::from_slice::<Numbered>(&line)
            .is_ok_and(|first| first.seq <= seq.saturating_add(1))
        {
            members.truncate(at + 1);
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn read_error(family: &Family, source: io::Error) -> JournalError {
    JournalError::Read { path: family.current(), source }
}
