//! The end of a log file: where a disk that takes only part of a line must not leave it torn.
//!
//! Kept apart from the file so that a test can put a disk in its place that fails where it likes.

use std::io::{self, Write};

use memchr::memchr;

/// How a log file ends.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The length of the file, in bytes.
    pub(super) size: u64,
    /// What must be written before any new line.
    pub(super) owed: Vec<u8>,
}

impl End {
    /// Writes whole lines. Returns how many bytes are dealt with, a whole number of lines: written,
    /// or owed because the disk took the beginning of their line; and what stopped it.
    pub(super) fn put(&mut self, sink: &mut impl Write, lines: &[u8]) -> (usize, io::Result<()>) {
        let (written, result) = write_whole(sink, lines);
        self.size += written as u64;
        let torn = written > 0 && lines[written - 1] != b'\n';
        let end = if torn { written + first_line(&lines[written..]) } else { written };
        self.owed.extend_from_slice(&lines[written..end]);
        (end, result)
    }

    /// Writes what is owed.
    pub(super) fn pay(&mut self, sink: &mut impl Write) -> io::Result<()> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let (written, result) = write_whole(sink, &self.owed);
        self.size += written as u64;
        self.owed.drain(..written);
        result?;
        self.owed = Vec::new();
        Ok(())
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

/// The length of the first line with its LF.
pub(super) fn first_line(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes, which takes at most five at once.
    struct Disk {
        held: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match bytes.len().min(5).min(self.room - self.held.len()) {
                0 => Err(io::ErrorKind::StorageFull.into()),
                count => {
                    self.held.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_tears_no_line_whether_the_rest_is_given_up_or_not() {
        let lines = b"first line\nsecond\n\nfourth line\n";
        for room in 0..lines.len() {
            for give_up in [false, true] {
                let mut disk = Disk { held: Vec::new(), room };
                let mut end = End::default();
                let (done, result) = end.put(&mut disk, lines);
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
                assert!(done >= room, "{room}");
                assert!(done == 0 || lines[done - 1] == b'\n', "{room}: a whole number of lines");
                let owes = end.owed.len();
                disk.room += 3.min(owes);
                assert_eq!(end.pay(&mut disk).is_ok(), owes <= 3, "{room}: still too little room");
                disk.room = 1000;
                end.pay(&mut disk).unwrap();
                let next = if give_up { &b"next\n"[..] } else { &lines[done..] };
                end.put(&mut disk, next).1.unwrap();
                assert_eq!(disk.held, [&lines[..done], next].concat(), "{room}");
                assert_eq!((end.size, end.owed.len()), (disk.held.len() as u64, 0));
            }
        }
    }
}
