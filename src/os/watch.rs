//! Being told that something happens to the files of a folder: inotify(7).
//!
//! It says that there is something new and not what: whoever waits looks for itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::io as to_io;

/// A watched folder; the descriptor is readable when a file in it grew, came or went.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
}

impl Watch {
    /// Watches `folder`, not what is below its own folders.
    pub fn folder(folder: &Path) -> io::Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).map_err(to_io)?;
        let what = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, what).map_err(to_io)?;
        Ok(Self { inotify })
    }

    /// Takes note of everything that happened so far; the next thing makes it readable again.
    pub fn clear(&self) {
        // Reads what is there; an empty queue is an error that says so.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::epoll::{Interest, Poller, Ready};
    use std::time::Duration;

    #[test]
    fn growth_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::folder(folder.path()).unwrap();
        let poller = Poller::new().unwrap();
        poller.add(watch.as_fd(), 7, Interest::Read).unwrap();
        let mut ready = Ready::new(1);
        let mut told = |limit| {
            poller.wait(&mut ready, Some(limit)).unwrap();
            ready.tokens().count() == 1
        };
        assert!(!told(Duration::ZERO));
        std::fs::write(folder.path().join("log"), "line\n").unwrap();
        assert!(told(Duration::from_secs(20)));
        watch.clear();
        assert!(!told(Duration::ZERO));
        std::fs::remove_file(folder.path().join("log")).unwrap();
        assert!(told(Duration::from_secs(20)));
    }
}
