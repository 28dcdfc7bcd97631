//! One log file that is written to: whole lines, whatever the disk does, rotated between lines.
//!
//! Of a line that the disk took in part the rest is kept and written first next time, so that no
//! line is torn and none is written twice.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};

use memchr::{memchr, memrchr};

use crate::rotation::Family;
use crate::spec::Logging;

/// The current log file of a replica.
#[derive(Debug)]
pub(super) struct LogFile {
    family: Family,
    file: Option<File>,
    size: u64,
    /// What must be written before any new line.
    owed: Vec<u8>,
    /// The inode and the length of the file that something is owed to while it is closed.
    parked: Option<(u64, u64)>,
    /// How many older files there may be, as last heard.
    kept: u32,
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
    /// Nothing is opened before something is written.
    pub(super) fn new(family: Family, kept: u32) -> Self {
        Self { family, file: None, size: 0, owed: Vec::new(), parked: None, kept }
    }

    /// Whether it takes a descriptor.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the file. `true` where this value must be kept, since it holds the rest of a line.
    pub(super) fn park(&mut self) -> bool {
        let file = self.file.take();
        let ino = file.and_then(|file| Some(file.metadata().ok()?.ino()));
        self.parked = ino.filter(|_| !self.owed.is_empty()).map(|ino| (ino, self.size));
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
        self.pay()?;
        while *done < lines.len() {
            let left = &lines[*done..];
            let room = logging.max_size.saturating_sub(self.size);
            let fits = whole_lines(left, usize::try_from(room).unwrap_or(usize::MAX));
            if fits == 0 && self.size > 0 {
                self.rotate(logging)?;
                *rotated = true;
                continue;
            }
            let part = if fits > 0 { fits } else { first_line(left) };
            self.put(&left[..part], done)?;
        }
        Ok(())
    }

    fn put(&mut self, lines: &[u8], done: &mut usize) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (written, result) = write_whole(file, lines);
        self.size += written as u64;
        let torn = written > 0 && lines[written - 1] != b'\n';
        let end = if torn { written + first_line(&lines[written..]) } else { written };
        self.owed.extend_from_slice(&lines[written..end]);
        *done += end;
        result
    }

    /// Writes what is owed.
    fn pay(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.as_mut().filter(|_| !self.owed.is_empty()) {
            let (written, result) = write_whole(file, &self.owed);
            self.size += written as u64;
            self.owed.drain(..written);
            result?;
            self.owed = Vec::new();
        }
        Ok(())
    }

    /// Makes sure of a file that still has a name, and of its length: anybody may have removed or
    /// emptied it.
    fn find_file(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let metadata = file.metadata()?;
            if metadata.nlink() > 0 {
                if metadata.len() < self.size {
                    self.owed.clear();
                }
                self.size = metadata.len();
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
        self.size = metadata.len();
        if self.parked.take() != Some((metadata.ino(), self.size)) {
            self.owed.clear();
        }
        if self.size > 0 && self.owed.is_empty() {
            // The line that a crash of the machine or of the manager tore ends here.
            let mut last = [0];
            file.read_exact_at(&mut last, self.size - 1)?;
            if last[0] != b'\n' {
                self.owed.push(b'\n');
            }
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
        self.pay()
    }
}

/// Writes `bytes`; how many were written, and what stopped it.
fn write_whole(sink: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// How many of the first `room` bytes are whole lines.
fn whole_lines(bytes: &[u8], room: usize) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    memrchr(b'\n', &bytes[..room]).map_or(0, |at| at + 1)
}

/// The length of the first line with its LF.
fn first_line(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}
