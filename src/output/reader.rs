//! The reading end: the lines of one replica, oldest first, over all its files, compressed or not.
//!
//! It needs no manager and waits for nothing. A last line without LF is being written and is left.

use std::collections::VecDeque;
use std::io::{self, BufRead, Cursor, Read as _};
use std::path::{Path, PathBuf};

use memchr::memrchr;

use super::line::{Head, Parser};
use super::{Line, OutputError, Source, Stream, family};
use crate::name::ReplicaId;
use crate::rotation::{Backward, Family, Follow, Form, Member, Text, end_of_lines};
use crate::time::Wall;

/// The output of a replica as it was when it was opened.
#[derive(Debug)]
pub struct LogReader {
    family: Family,
    /// Youngest first.
    members: Vec<Member>,
    /// Where the last whole line of the current file ends.
    end: u64,
}

/// Which lines are wanted. The default wants all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// No more than the last so many of the lines that are wanted otherwise, `since` aside; the
    /// pieces of a long line count as one, and so do those of one that has not ended yet.
    pub last: Option<usize>,
    /// None older than this.
    pub since: Option<Wall>,
    /// None younger than this.
    pub until: Option<Wall>,
    /// Only what the program wrote to this stream.
    pub stream: Option<Stream>,
}

impl Range {
    /// Whether a line is wanted, `last` aside.
    pub fn wants(&self, at: Wall, source: Source) -> bool {
        self.since.is_none_or(|since| at >= since) && self.may_count(at, source)
    }

    /// Whether a line counts for `last`.
    fn may_count(&self, at: Wall, source: Source) -> bool {
        self.until.is_none_or(|until| at <= until)
            && self.stream.is_none_or(|stream| source == Source::Program(stream))
    }
}

impl LogReader {
    /// Opens the log files of `id` in `dir`; where there are none, there are no lines.
    pub fn open(dir: &Path, id: &ReplicaId) -> Result<Self, OutputError> {
        let family = family(dir, id);
        let open = || {
            let members = family.members()?;
            let end = match members.first().filter(|member| member.number == 0) {
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
    pub fn follower(&self) -> Result<Follower, OutputError> {
        let follow = Follow::after(self.family.clone(), &self.members, self.end)
            .map_err(|source| read_error(&self.family, source))?;
        let family = self.family.clone();
        Ok(Follower { follow, family, parser: Parser::default(), unreadable: 0 })
    }

    /// The wanted lines, oldest first.
    pub fn lines(self, range: Range) -> Result<Lines, OutputError> {
        let mut counting = range.last.map(|left| Counting { range, left, ended: Vec::new() });
        let mut parts = VecDeque::new();
        let mut unreadable = 0;
        for member in self.members {
            let path = match member.number {
                0 => self.family.current(),
                number => self.family.older(number, member.form),
            };
            let end = if member.number == 0 { self.end } else { u64::MAX };
            let mut broken = false;
            let part = match &mut counting {
                None => Ok((member.into_reader(), end, false)),
                Some(counting) => tail(member, end, counting, &mut broken),
            };
            let (reader, end, enough) = match part {
                Ok(part) => part,
                Err(source) => return Err(OutputError::Read { path, source }),
            };
            parts.push_front(Part { path, reader, end });
            unreadable += u64::from(broken);
            if enough {
                break;
            }
        }
        Ok(Lines { parts, range, parser: Parser::default(), unreadable })
    }
}

/// The lines of one file from some place on.
struct Part {
    /// What the file was called when it was opened.
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// How many bytes are to be read.
    end: u64,
}

/// The count of lines on the way back.
struct Counting {
    range: Range,
    /// How many are still wanted.
    left: usize,
    /// Who has ended a line already, seen from the end.
    ended: Vec<Source>,
}

impl Counting {
    /// Whether this is the end of a line that is one too many.
    fn is_enough(&mut self, head: Head) -> bool {
        let Head { at, source, partial, .. } = head;
        if !self.range.may_count(at, source) {
            return false;
        }
        let latest = !self.ended.contains(&source);
        if latest {
            self.ended.push(source);
        }
        // Pieces before an end belong to it, or to a line that went on meanwhile. A piece after the
        // last end is a line that has not ended yet.
        if partial && !latest {
            return false;
        }
        let enough = self.left == 0;
        self.left = self.left.saturating_sub(1);
        enough
    }
}

/// Goes back over lines of the program until enough are found and the end of the one before them,
/// or the file is over; says whether it was enough. Of a damaged compressed file it takes what there is.
fn tail(
    member: Member,
    end: u64,
    counting: &mut Counting,
    broken: &mut bool,
) -> io::Result<(Box<dyn BufRead + Send>, u64, bool)> {
    let text = match member.form {
        Form::Plain => Text::File(member.file.try_clone()?),
        Form::Packed => {
            let mut bytes = Vec::new();
            *broken = member.try_clone()?.into_reader().read_to_end(&mut bytes).is_err();
            bytes.truncate(memrchr(b'\n', &bytes).map_or(0, |at| at + 1));
            Text::Memory(bytes)
        }
    };
    let end = match &text {
        Text::File(file) => end_of_lines(file, end.min(file.metadata()?.len()))?,
        Text::Memory(bytes) => bytes.len() as u64,
    };
    let mut backward = Backward::new(&text, end);
    let mut parser = Parser::default();
    let mut from = end;
    let mut enough = false;
    while let Some((place, line)) = backward.line()? {
        if parser.head(&line).is_some_and(|head| counting.is_enough(head)) {
            enough = true;
            break;
        }
        from = place;
    }
    let reader: Box<dyn BufRead + Send> = match text {
        Text::File(_) => member.into_reader_from(from),
        Text::Memory(bytes) => {
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(from);
            Box::new(cursor)
        }
    };
    Ok((reader, end - from, enough))
}

/// Lines of a replica, oldest first.
pub struct Lines {
    parts: VecDeque<Part>,
    range: Range,
    parser: Parser,
    unreadable: u64,
}

impl Lines {
    /// How many lines passed so far have not the format.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn next_line(&mut self) -> Result<Option<Line>, OutputError> {
        let mut bytes = Vec::new();
        while let Some(part) = self.parts.front_mut() {
            bytes.clear();
            let count = part.reader.by_ref().take(part.end).read_until(b'\n', &mut bytes);
            if let Ok(count) = count
                && count > 0
            {
                part.end -= count as u64;
            } else {
                // What is left of a file that cannot be read is given up, not the other files.
                let part = self.parts.pop_front();
                match (count, part) {
                    (Err(source), Some(Part { path, .. })) => {
                        return Err(OutputError::Read { path, source });
                    }
                    _ => continue,
                }
            }
            if bytes.pop() != Some(b'\n') {
                continue;
            }
            if let Some(head) = self.parser.head(&bytes)
                && !self.range.wants(head.at, head.source)
            {
                continue;
            }
            match self.parser.parse(&bytes) {
                Some(line) => return Ok(Some(line)),
                None => self.unreadable += 1,
            }
        }
        Ok(None)
    }
}

impl Iterator for Lines {
    type Item = Result<Line, OutputError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

/// A place in the output of a replica that moves on with it. Made by [`LogReader::follower`].
#[derive(Debug)]
pub struct Follower {
    follow: Follow,
    family: Family,
    parser: Parser,
    unreadable: u64,
}

impl Follower {
    /// The lines written since the last call, oldest first; about a mebibyte of them at most, so
    /// call again until there are none.
    pub fn read_new(&mut self) -> Result<Vec<Line>, OutputError> {
        let mut bytes = Vec::new();
        let mut lines = Vec::new();
        loop {
            bytes.clear();
            let more = self.follow.read(&mut bytes);
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                match self.parser.parse(line.strip_suffix(b"\n").unwrap_or(line)) {
                    Some(line) => lines.push(line),
                    None => self.unreadable += 1,
                }
            }
            let more = more.map_err(|source| read_error(&self.family, source))?;
            if !more || !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// How many lines so far have not the format.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Whether lines may have been missed since the last time this was asked, for files were dropped
    /// faster than they were read.
    pub fn take_gap(&mut self) -> bool {
        self.follow.take_gap()
    }
}

fn read_error(family: &Family, source: io::Error) -> OutputError {
    OutputError::Read { path: family.current(), source }
}
