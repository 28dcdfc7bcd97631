//! Reads what is appended to a family of files, over rotation, compression and removal, each line
//! once. It waits for nothing: who follows asks again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memrchr;

use super::family::{Family, Form, Identity, Member, names};

/// How much one call returns, about; a longer line is still returned whole.
const BUDGET: usize = 1 << 20;

/// How much is read at once.
const BLOCK: usize = 1 << 16;

/// A place in a family of files that moves on with them.
#[derive(Debug)]
pub(crate) struct Follow {
    family: Family,
    /// The file being read; a file that lost its name is still read to its end.
    reading: Option<Member>,
    /// Where the next unread line begins in it; of a compressed file only whether it was read.
    place: u64,
    /// What was read before it, so that older files are not taken for newer ones.
    behind: Vec<Identity>,
    /// What comes after it, oldest first.
    ahead: VecDeque<Member>,
    /// Files may have been dropped before they were read.
    gap: bool,
}

impl Follow {
    /// Follows from `place` in the youngest of `members`, which are the family's, youngest first.
    /// All others count as read.
    pub(crate) fn after(family: Family, members: &[Member], place: u64) -> io::Result<Self> {
        let current = members.first().filter(|member| member.number == 0);
        let older = if current.is_some() { &members[1..] } else { members };
        Ok(Self {
            reading: current.map(Member::try_clone).transpose()?,
            place: if current.is_some() { place } else { 0 },
            behind: older.iter().map(Member::identity).collect::<io::Result<_>>()?,
            ahead: VecDeque::new(),
            gap: false,
            family,
        })
    }

    /// Whether lines may have been missed since the last time this was asked: of what was read last
    /// there is nothing left, so that nobody can say what came after it.
    pub(crate) fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.gap)
    }

    /// Appends whole lines, each with its LF, that were not returned before. `true` means that
    /// there is more to be had at once.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let start = out.len();
        match self.read_on(out) {
            // What was read counts as returned; an error that lasts comes again.
            Err(_) if out.len() > start => Ok(true),
            result => result,
        }
    }

    fn read_on(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let limit = out.len() + BUDGET;
        loop {
            // Asked before reading: once another file has the name, nobody writes to this one.
            let over = self.is_over()?;
            let start = out.len();
            if let Some(member) = &self.reading {
                let more = match member.form {
                    Form::Plain => read_lines(&member.file, &mut self.place, limit, out)?,
                    Form::Packed if self.place > 0 => false,
                    Form::Packed => {
                        self.place = 1;
                        unpack(member.try_clone()?, out)?
                    }
                };
                if more {
                    return Ok(true);
                }
            }
            if !over {
                return Ok(false);
            }
            self.advance(out)?;
            if self.reading.is_none() {
                return Ok(false);
            }
            if out.len() > start && out.len() >= limit {
                return Ok(true);
            }
        }
    }

    /// Whether the file being read will not grow any more.
    fn is_over(&self) -> io::Result<bool> {
        if !self.ahead.is_empty() {
            return Ok(true);
        }
        let path = self.family.current();
        match &self.reading {
            // Only a new file means that the writer has moved on; a missing one does not.
            Some(member) => Ok(path.try_exists()? && !names(&path, &member.file)?),
            None => path.try_exists(),
        }
    }

    fn advance(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(done) = self.reading.take() {
            if done.form == Form::Plain {
                read_torn(&done.file, self.place, out)?;
            }
            self.behind.push(done.identity()?);
        }
        self.place = 0;
        if self.ahead.is_empty() {
            let mut known = Vec::new();
            for member in self.family.members()? {
                let identity = member.identity()?;
                if known.is_empty() && !self.behind.contains(&identity) {
                    self.ahead.push_front(member);
                } else {
                    known.push(identity);
                }
            }
            let last = self.behind.pop();
            self.gap |= last.is_some() && known.is_empty() && !self.ahead.is_empty();
            self.behind = known;
            self.behind.extend(last);
        }
        self.reading = self.ahead.pop_front();
        Ok(())
    }
}

/// Reads whole lines from `place` on until the end or until `out` holds `limit` bytes.
fn read_lines(file: &File, place: &mut u64, limit: usize, out: &mut Vec<u8>) -> io::Result<bool> {
    if file.metadata()?.len() < *place {
        // Somebody emptied it; what it has now is new.
        *place = 0;
    }
    let start = out.len();
    let mut last = None;
    loop {
        let held = out.len();
        out.resize(held + BLOCK, 0);
        let count = file.read_at(&mut out[held..], *place + (held - start) as u64);
        let count = match count {
            Ok(count) => count,
            Err(error) => {
                out.truncate(start);
                return Err(error);
            }
        };
        out.truncate(held + count);
        let ended = count == 0;
        last = memrchr(b'\n', &out[held..]).map(|at| held + at + 1).or(last);
        let full = !ended && last.is_some() && out.len() >= limit;
        if ended || full {
            out.truncate(last.unwrap_or(start));
            *place += (out.len() - start) as u64;
            return Ok(full);
        }
    }
}

/// A last line without LF in a file that nobody writes to any more.
fn read_torn(file: &File, place: u64, out: &mut Vec<u8>) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut torn = vec![0; usize::try_from(len.saturating_sub(place)).map_err(io::Error::other)?];
    file.read_exact_at(&mut torn, place)?;
    if !torn.is_empty() {
        out.append(&mut torn);
        out.push(b'\n');
    }
    Ok(())
}

fn unpack(member: Member, out: &mut Vec<u8>) -> io::Result<bool> {
    let start = out.len();
    let result = member.into_reader().read_to_end(out);
    if result.is_err() {
        out.truncate(start);
    }
    result.map(|_| false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_file_without_successor_ended_with_comes_before_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let family = Family::new(dir.path(), "x.log");
        fs::write(family.older(1, Form::Plain), "older\n").unwrap();
        let mut follow = Follow::after(family.clone(), &family.members().unwrap(), 0).unwrap();
        let mut read = || {
            let mut out = Vec::new();
            assert!(!follow.read(&mut out).unwrap(), "all of it at once");
            String::from_utf8(out).unwrap()
        };
        assert_eq!(read(), "");
        fs::write(family.current(), "one\nto").unwrap();
        assert_eq!(read(), "one\n");
        fs::remove_file(family.current()).unwrap();
        assert_eq!(read(), "", "the writer may still end the line");
        fs::write(family.current(), "next\n").unwrap();
        assert_eq!(read(), "to\nnext\n");
        family.rotate(9).unwrap();
        family.rotate(9).unwrap();
        fs::write(family.current(), "last\n").unwrap();
        assert_eq!(read(), "last\n");
    }

    #[test]
    fn much_is_returned_in_parts_of_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let family = Family::new(dir.path(), "x.log");
        let mut follow = Follow::after(family.clone(), &[], 0).unwrap();
        let long = vec![b'x'; 2 * BUDGET];
        let many = "0123456789\n".repeat(BUDGET / 4);
        fs::write(family.current(), [&long, &b"\n"[..], many.as_bytes()].concat()).unwrap();
        let (mut all, mut parts) = (Vec::new(), 0);
        loop {
            let mut out = Vec::new();
            let more = follow.read(&mut out).unwrap();
            assert_eq!(out.last().copied().unwrap_or(b'\n'), b'\n');
            all.extend(out);
            parts += 1;
            if !more {
                break;
            }
        }
        assert!(parts > 2, "{parts}");
        assert!(all == fs::read(family.current()).unwrap());
    }
}
