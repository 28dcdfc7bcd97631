//! The reading end: the lines of one replica, oldest first, over all its files, compressed or not.
//!
//! It needs no manager and waits for nothing. A last line without LF is being written and is left.

use std::collections::VecDeque;
use std::io::{self, BufRead, Cursor, Read as _};
use std::path::Path;

use memchr::memrchr;

use super::line::Parser;
use super::{Line, OutputError, family};
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
    /// No more than the last so many lines of the program; the pieces of a long line count as one.
    pub last: Option<usize>,
    /// None older than this.
    pub since: Option<Wall>,
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
        let mut left = range.last;
        let mut parts = VecDeque::new();
        let mut unreadable = 0;
        for member in self.members {
            let end = if member.number == 0 { self.end } else { u64::MAX };
            let mut broken = false;
            let part = match &mut left {
                None => Ok((Part { reader: member.into_reader(), end }, false)),
                Some(left) => tail(member, end, left, &mut broken),
            };
            let (part, enough) = part.map_err(|source| read_error(&self.family, source))?;
            parts.push_front(part);
            unreadable += u64::from(broken);
            if enough {
                break;
            }
        }
        Ok(Lines {
            family: self.family,
            parts,
            since: range.since,
            parser: Parser::default(),
            unreadable,
        })
    }
}

/// The lines of one file from some place on.
struct Part {
    reader: Box<dyn BufRead + Send>,
    /// How many bytes are to be read.
    end: u64,
}

/// Goes back over lines of the program until `left` are found and the end of the one before them,
/// or the file is over; says whether it was enough. Of a damaged compressed file it takes what there is.
fn tail(member: Member, end: u64, left: &mut usize, broken: &mut bool) -> io::Result<(Part, bool)> {
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
        if parser.is_whole(&line) {
            // Pieces before it belong to it, or to a line that went on meanwhile.
            if *left == 0 {
                enough = true;
                break;
            }
            *left -= 1;
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
    Ok((Part { reader, end: end - from }, enough))
}

/// Lines of a replica, oldest first.
pub struct Lines {
    family: Family,
    parts: VecDeque<Part>,
    since: Option<Wall>,
    parser: Parser,
    unreadable: u64,
}

impl Lines {
    /// How many lines passed so far have not the format.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
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
                self.parts.pop_front();
                count?;
                continue;
            }
            if bytes.pop() != Some(b'\n') {
                continue;
            }
            if let Some(since) = self.since
                && self.parser.time(&bytes).is_some_and(|at| at < since)
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
        self.next_line().map_err(|source| read_error(&self.family, source)).transpose()
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
}

fn read_error(family: &Family, source: io::Error) -> OutputError {
    OutputError::Read { path: family.current(), source }
}
