//! The writing end: repairs, numbers, appends, rotates. One process writes, many may read.
//!
//! Nothing is flushed to the platter: a record outlives its manager, not a loss of power. A crash
//! of the machine leaves at most a torn last line, which the next start moves aside.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::sink::{Sink, append_whole};
use super::{JournalError, KEEP, MAX_SIZE, family};
use crate::exit::ExitRecord;
use crate::name::Incarnation;
use crate::rotation::{Backward, Family, Text, end_of_lines};

/// How far back from the end incarnations are looked for, in bytes.
const LOOK_BACK: u64 = 4 << 20;

/// Where torn lines go, and how long that file may grow before it is begun anew.
const TORN_NAME: &str = "exits.torn";
const TORN_SIZE: u64 = 1 << 20;

/// The exit journal, opened for writing. There must be one such in the whole world.
#[derive(Debug)]
pub struct Journal {
    family: Family,
    file: File,
    /// How long the file is when only whole records count.
    good: u64,
    /// There may be more than `good` bytes, and they are rubbish.
    torn: bool,
    last_seq: u64,
    max_size: u64,
    trouble: Option<JournalError>,
}

/// What was found when the journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The number of the last record among the last 4 MiB; 0 where there is none.
    pub last_seq: u64,
    /// How many bytes of torn lines were moved to `exits.torn`.
    pub repaired: Option<u64>,
    /// The greatest incarnation among the last 4 MiB of records.
    pub last_incarnation_seen: Option<Incarnation>,
}

/// As much of a record as the writer looks at.
#[derive(Deserialize)]
struct Glance {
    seq: Option<u64>,
    service: Option<Who>,
}

#[derive(Deserialize)]
struct Who {
    incarnation: Option<Incarnation>,
}

impl Journal {
    /// Opens or makes the journal in `dir`. A torn last line is moved to `exits.torn`.
    pub fn open(dir: &Path) -> Result<(Self, Opened), JournalError> {
        let family = family(dir);
        let (file, good, repaired) = attach(&family)?;
        let (last_seq, last_incarnation_seen) =
            last_numbers(&family).map_err(|source| read_error(&family, source))?;
        let journal =
            Self { family, file, good, torn: false, last_seq, max_size: MAX_SIZE, trouble: None };
        Ok((journal, Opened { last_seq, repaired, last_incarnation_seen }))
    }

    /// The number of the last record that was written.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Numbers `records` and writes them, all or none. After an error they keep the numbers they
    /// had, none is used up, and the same call may be made again. Returns each record as it stands
    /// in the journal: its line, without the LF.
    pub fn append(&mut self, records: &mut [ExitRecord]) -> Result<Vec<Bytes>, JournalError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.find_file()?;
        self.cut_rubbish()?;
        if self.good >= self.max_size {
            self.rotate();
        }
        let numbers: Vec<u64> = records.iter().map(|record| record.seq).collect();
        let result = self.write(records);
        if result.is_err() {
            for (record, number) in records.iter_mut().zip(numbers) {
                record.seq = number;
            }
        }
        result
    }

    /// What went wrong beside the records, once: a rotation that failed. Records are not affected.
    pub fn trouble(&mut self) -> Option<JournalError> {
        self.trouble.take()
    }

    /// Which of `wanted` have a record among the last 4 MiB.
    pub fn recorded(
        &self,
        wanted: &HashSet<Incarnation>,
    ) -> Result<HashSet<Incarnation>, JournalError> {
        let mut found = HashSet::new();
        let look = |line: &[u8]| {
            if mentioned(line).is_some_and(|incarnation| wanted.contains(&incarnation)) {
                found.extend(glance(line).and_then(|glance| glance.service?.incarnation));
            }
            found.len() < wanted.len()
        };
        if !wanted.is_empty() {
            backwards(&self.family, look).map_err(|source| read_error(&self.family, source))?;
        }
        found.retain(|incarnation| wanted.contains(incarnation));
        Ok(found)
    }

    fn write(&mut self, records: &mut [ExitRecord]) -> Result<Vec<Bytes>, JournalError> {
        let mut bytes = Vec::with_capacity(records.len() * 1024);
        let mut ends = Vec::with_capacity(records.len());
        let mut seq = self.last_seq;
        for record in records {
            seq += 1;
            record.seq = seq;
            serde_json::to_writer(&mut bytes, record)
                .map_err(|error| self.append_error(error.into()))?;
            ends.push(bytes.len());
            bytes.push(b'\n');
        }
        match append_whole(&mut self.file, self.good, &bytes) {
            Ok(()) => {
                self.good += bytes.len() as u64;
                self.last_seq = seq;
                // Slices of what was written, so that nobody makes the text again.
                let all = Bytes::from(bytes);
                let mut start = 0;
                let lines = ends.into_iter().map(|end| {
                    let line = all.slice(start..end);
                    start = end + 1;
                    line
                });
                Ok(lines.collect())
            }
            Err(unwritten) => {
                self.torn = unwritten.torn;
                Err(self.append_error(unwritten.source))
            }
        }
    }

    /// Somebody may have removed or replaced the file; then a new one is begun.
    fn find_file(&mut self) -> Result<(), JournalError> {
        let same = fs::metadata(self.family.current()).and_then(|named| {
            let held = self.file.metadata()?;
            Ok((named.dev(), named.ino()) == (held.dev(), held.ino()))
        });
        if !same.unwrap_or(false) {
            (self.file, self.good, _) = attach(&self.family)?;
            self.torn = false;
        }
        Ok(())
    }

    fn cut_rubbish(&mut self) -> Result<(), JournalError> {
        if self.torn {
            self.file.cut(self.good).map_err(|source| self.append_error(source))?;
            self.torn = false;
        }
        Ok(())
    }

    /// A record matters more than the length of a file: where it fails, the old file goes on.
    fn rotate(&mut self) {
        if let Err(source) = self.family.rotate(KEEP) {
            self.trouble = Some(JournalError::Rotate { path: self.family.current(), source });
        }
        if let Err(error) = self.find_file() {
            self.trouble = Some(error);
        }
    }

    /// Makes files shorter than ten mebibytes, so that tests have many.
    #[cfg(test)]
    pub(super) fn max_size_for_test(&mut self, max_size: u64) {
        self.max_size = max_size;
    }

    /// Leaves what a failed write leaves when it cannot be cut off.
    #[cfg(test)]
    pub(super) fn tear_for_test(&mut self, half: &[u8]) {
        self.file.write_all(half).unwrap();
        self.torn = true;
    }

    fn append_error(&self, source: io::Error) -> JournalError {
        JournalError::Append { path: self.family.current(), source }
    }
}

fn read_error(family: &Family, source: io::Error) -> JournalError {
    JournalError::Read { path: family.current(), source }
}

/// Opens the current file and repairs its end: the file, its good length, what was moved aside.
fn attach(family: &Family) -> Result<(File, u64, Option<u64>), JournalError> {
    let path = family.current();
    let opened =
        DirBuilder::new().recursive(true).mode(0o750).create(family.dir()).and_then(|()| {
            OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)
        });
    let mut file = match opened {
        Ok(file) => file,
        Err(source) => return Err(JournalError::Open { path, source }),
    };
    match repair(family, &mut file) {
        Ok((good, repaired)) => Ok((file, good, repaired)),
        Err(source) => Err(JournalError::Repair { path, source }),
    }
}

/// Moves what is no record from the end of the file to `exits.torn`. A record that lacks nothing
/// but its LF is given one.
fn repair(family: &Family, file: &mut File) -> io::Result<(u64, Option<u64>)> {
    let len = file.metadata()?.len();
    let mut good = end_of_lines(file, len)?;
    let mut rest = vec![0; usize::try_from(len - good).map_err(io::Error::other)?];
    file.read_exact_at(&mut rest, good)?;
    if is_json(&rest) {
        file.write_all(b"\n")?;
        return Ok((len + 1, None));
    }
    let text = Text::File(file.try_clone()?);
    let mut backward = Backward::new(&text, good);
    while let Some((place, line)) = backward.line()? {
        if is_json(&line) {
            break;
        }
        good = place;
    }
    if good == len {
        return Ok((good, None));
    }
    let mut torn = vec![0; usize::try_from(len - good).map_err(io::Error::other)?];
    file.read_exact_at(&mut torn, good)?;
    set_aside(&family.dir().join(TORN_NAME), &torn)?;
    file.set_len(good)?;
    Ok((good, Some(len - good)))
}

fn set_aside(path: &PathBuf, torn: &[u8]) -> io::Result<()> {
    let full = fs::metadata(path).is_ok_and(|metadata| metadata.len() > TORN_SIZE);
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o640).open(path)?;
    if full {
        file.set_len(0)?;
    }
    file.write_all(torn)?;
    if torn.last() == Some(&b'\n') { Ok(()) } else { file.write_all(b"\n") }
}

fn is_json(line: &[u8]) -> bool {
    line.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

fn glance(line: &[u8]) -> Option<Glance> {
    serde_json::from_slice(line).ok()
}

/// The incarnation a line names, without parsing it. Inside a text the quotes would be escaped.
fn mentioned(line: &[u8]) -> Option<Incarnation> {
    const KEY: &[u8] = b"\"incarnation\":";
    let digits = &line[memchr::memmem::find(line, KEY)? + KEY.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok().map(Incarnation)
}

/// The last number and the greatest incarnation, not too far back.
fn last_numbers(family: &Family) -> io::Result<(u64, Option<Incarnation>)> {
    let mut last_seq = None;
    let mut greatest = None;
    backwards(family, |line| {
        let glance = glance(line);
        if last_seq.is_none() {
            last_seq = glance.as_ref().and_then(|glance| glance.seq);
        }
        greatest = greatest.max(glance.and_then(|glance| glance.service?.incarnation));
        true
    })?;
    Ok((last_seq.unwrap_or(0), greatest))
}

/// Shows lines to `look`, the last first, until it has seen enough or [`LOOK_BACK`] bytes are over.
fn backwards(family: &Family, mut look: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut left = LOOK_BACK;
    for member in family.members()? {
        let end = end_of_lines(&member.file, member.file.metadata()?.len())?;
        let text = Text::File(member.file);
        let mut backward = Backward::new(&text, end);
        while let Some((_, line)) = backward.line()? {
            let size = line.len() as u64 + 1;
            if !look(&line) || size > left {
                return Ok(());
            }
            left -= size;
        }
    }
    Ok(())
}
