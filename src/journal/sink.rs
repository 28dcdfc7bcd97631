//! Writing a batch whole or not at all, as far as the disk allows.
//!
//! Kept apart from the file so that a test can put a disk in its place that fails where it likes.

use std::fs::File;
use std::io::{self, Write as _};

/// What a batch is written to.
pub(super) trait Sink {
    /// Appends some of `bytes` and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts everything after `len` bytes off.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Sink for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// A batch was not written.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// Why.
    pub(super) source: io::Error,
    /// Part of it is on disk and could not be cut off again.
    pub(super) torn: bool,
}

/// Appends `bytes` to a file of `good` bytes, in one write where the disk takes them.
pub(super) fn append_whole(sink: &mut impl Sink, good: u64, bytes: &[u8]) -> Result<(), Unwritten> {
    let mut written = 0;
    while written < bytes.len() {
        let source = match sink.append(&bytes[written..]) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let torn = written > 0 && sink.cut(good).is_err();
        return Err(Unwritten { source, torn });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes, which takes at most seven at once.
    struct Disk {
        held: Vec<u8>,
        room: usize,
        cuts: bool,
    }

    impl Sink for Disk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(7).min(self.room - self.held.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.held.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn cut(&mut self, len: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            self.held.truncate(usize::try_from(len).unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_batch_is_on_disk_whole_or_not_at_all() {
        let batch = b"{\"seq\":2}\n{\"seq\":3}\n";
        for room in 10..=10 + batch.len() {
            let mut disk = Disk { held: b"{\"seq\":1}\n".to_vec(), room, cuts: true };
            let result = append_whole(&mut disk, 10, batch);
            let fits = room == 10 + batch.len();
            assert_eq!(result.is_ok(), fits, "room for {room}");
            assert_eq!(disk.held.len(), if fits { 30 } else { 10 }, "room for {room}");
        }
    }

    #[test]
    fn what_cannot_be_cut_off_is_reported() {
        for (room, torn) in [(10, false), (13, true)] {
            let mut disk = Disk { held: b"{\"seq\":1}\n".to_vec(), room, cuts: false };
            assert_eq!(append_whole(&mut disk, 10, b"{\"seq\":2}\n").unwrap_err().torn, torn);
        }
    }
}
