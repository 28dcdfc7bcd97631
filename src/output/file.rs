//! One log file that is written to: whole lines, whatever the disk does, rotated between lines.
//!
//! Of a line that the disk took in part the rest is kept and written first next time, so that no
//! line is torn and none is written twice.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};

use memchr::memrchr;

use super::cut::unfinished;
use super::end::{End, first_line};
use crate::rotation::Family;
use crate::spec::Logging;

/// The current log file of a replica.
#[derive(Debug)]
pub(super) struct LogFile {
    family: Family,
    file: Option<File>,
    /// How long it is, and what must be written to it before any new line.
    end: End,
    /// The inode and the length of the file that something is owed to while it is closed.
    parked: Option<(u64, u64)>,
    /// How many older files there may be, as last heard.
    kept: u32,
    /// Nothing was written to it in this life of the manager yet: what is unfinished in it is an
    /// earlier one's, and nobody will go on with it.
    strange: bool,
}

/// How a write ended. Both may be: rotated, and then failed.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The file was rotated at least once.
    pub(super) rotated: bool,
    /// How many bytes need not be written again, and why not all.
    pub(super) failed: Option<(usize, io::Error)>,
}

impl LogFile {
    /// Nothing is opened before something is written. `strange` for the first time in a life.
    pub(super) fn new(family: Family, kept: u32, strange: bool) -> Self {
        Self { family, file: None, end: End::default(), parked: None, kept, strange }
    }

    /// Whether it takes a descriptor.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the file. `true` where this value must be kept, since it holds the rest of a line.
    pub(super) fn park(&mut self) -> bool {
        let file = self.file.take();
        let ino = file.and_then(|file| Some(file.metadata().ok()?.ino()));
        self.parked = ino.filter(|_| !self.end.owed.is_empty()).map(|ino| (ino, self.end.size));
        self.parked.is_some()
    }

    /// Writes whole lines, rotating where they would make the file longer than `max_size`. A line
    /// that is longer than that has a file of its own.
    pub(super) fn write(&mut self, logging: &Logging, lines: &[u8]) -> Outcome {
        let mut outcome = Outcome { rotated: false, failed: None };
        let mut done = 0;
        if let Err(error) = self.write_all(logging, lines, &mut done, &mut outcome.rotated) {
            outcome.failed = Some((done, error));
        }
        outcome
    }

    fn write_all(
        &mut self,
        logging: &Logging,
        lines: &[u8],
        done: &mut usize,
        rotated: &mut bool,
    ) -> io::Result<()> {
        if logging.max_files < self.kept {
            self.family.prune(logging.max_files)?;
        }
        self.kept = logging.max_files;
        self.find_file()?;
        if let Some(file) = &mut self.file {
            self.end.pay(file)?;
        }
        while *done < lines.len() {
            let left = &lines[*done..];
            let room = logging.max_size.saturating_sub(self.end.size);
            let fits = whole_lines(left, usize::try_from(room).unwrap_or(usize::MAX));
            if fits == 0 && self.end.size > 0 {
                self.rotate(logging)?;
                *rotated = true;
                continue;
            }
            let part = if fits > 0 { fits } else { first_line(left) };
            let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
            let (end, result) = self.end.put(file, &left[..part]);
            *done += end;
            result?;
        }
        Ok(())
    }

    /// Makes sure of a file that still has a name, and of its length: anybody may have removed or
    /// emptied it.
    fn find_file(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let metadata = file.metadata()?;
            if metadata.nlink() > 0 {
                if metadata.len() < self.end.size {
                    self.end.owed.clear();
                }
                self.end.size = metadata.len();
                return Ok(());
            }
            self.file = None;
        }
        self.open()
    }

    fn open(&mut self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o750).create(self.family.dir())?;
        let mut options = OpenOptions::new();
        let path = self.family.current();
        let file = options.read(true).append(true).create(true).mode(0o640).open(path)?;
        let metadata = file.metadata()?;
        self.end.size = metadata.len();
        if self.parked.take() != Some((metadata.ino(), self.end.size)) {
            self.end.owed.clear();
        }
        if self.end.size > 0 && self.end.owed.is_empty() {
            // The line that a crash of the machine or of the manager tore ends here.
            let mut last = [0];
            file.read_exact_at(&mut last, self.end.size - 1)?;
            if last[0] != b'\n' {
                self.end.owed.push(b'\n');
            }
        }
        if std::mem::take(&mut self.strange) {
            unfinished(&file, self.end.size, &mut self.end.owed)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new file. Where the name belongs to another file by now, that one is gone on with.
    fn rotate(&mut self, logging: &Logging) -> io::Result<()> {
        let ours = match (&self.file, fs::metadata(self.family.current())) {
            (Some(file), Ok(named)) => {
                let held = file.metadata()?;
                (held.dev(), held.ino()) == (named.dev(), named.ino())
            }
            _ => false,
        };
        if ours {
            self.family.rotate(logging.max_files)?;
        }
        self.file = None;
        self.open()?;
        match &mut self.file {
            Some(file) => self.end.pay(file),
            None => Ok(()),
        }
    }
}

/// How many of the first `room` bytes are whole lines.
fn whole_lines(bytes: &[u8], room: usize) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    memrchr(b'\n', &bytes[..room]).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_line_goes_to_its_own_file_or_nowhere() {
        let logging = Logging { max_size: 99, max_files: 1, compress: false, ..Logging::default() };
        for replaced in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = LogFile::new(Family::new(dir.path(), "web.1.log"), 1, true);
            assert!(log.write(&logging, b"whole\nto").failed.is_none());
            log.end.owed.extend_from_slice(b"rn\n");
            assert!(log.park(), "it holds the rest of a line");
            assert!(!log.is_open());
            let path = dir.path().join("web.1.log");
            if replaced {
                fs::rename(&path, dir.path().join("elsewhere")).unwrap();
                fs::write(&path, "another\nto").unwrap();
            }
            assert!(log.write(&logging, b"next\n").failed.is_none());
            let expected = if replaced { "another\nto\nnext\n" } else { "whole\ntorn\nnext\n" };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert!(!log.park(), "nothing is owed any more");
        }
    }
}
