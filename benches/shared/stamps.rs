//! The named pipe on which the children say when they started.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use wharf::os::fds;
use wharf::time::Tick;

use crate::wait::{LIMIT, readable};
use crate::workshop::Workshop;

/// One child's first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Started {
    /// When, by the child's own clock, which is everybody's.
    pub(crate) at: Tick,
    pub(crate) pid: i32,
}

/// The size of a record of `benches/c/child.c`.
const RECORD: usize = 16;

/// A named pipe. It holds 4,096 records, so no child ever waits for us.
#[derive(Debug)]
pub(crate) struct Stamps {
    pub(crate) path: PathBuf,
    file: File,
}

impl Stamps {
    pub(crate) fn new(workshop: &Workshop, name: &str) -> Self {
        let path = workshop.temporary.path().join(format!("{name}.fifo"));
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Open for both: it never comes to an end, and opening it waits for nobody.
        let file = File::options().read(true).write(true).open(&path).unwrap();
        fds::set_nonblocking(file.as_fd()).unwrap();
        Self { path, file }
    }

    pub(crate) fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The next child that starts.
    pub(crate) fn next(&self) -> Started {
        let mut record = [0; RECORD];
        assert!(readable(self.file.as_fd(), LIMIT), "no child started");
        assert_eq!(fds::read(self.file.as_fd(), &mut record).unwrap(), RECORD);
        let number = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().unwrap());
        Started { at: Tick(number(0)), pid: i32::try_from(number(8)).unwrap() }
    }

    /// The next `count` children that start.
    pub(crate) fn take(&self, count: usize) -> Vec<Started> {
        (0..count).map(|_| self.next()).collect()
    }
}
