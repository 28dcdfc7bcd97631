//! Waiting for files of a folder to grow, as long as somebody reads what we write.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::failure::Failure;
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::watch::Watch;

/// How often is looked without being told: some file systems tell nothing.
const LOOK: Duration = Duration::from_secs(1);

const FILES: u64 = 0;
const READER: u64 = 1;

/// Waits for news in one folder.
#[derive(Debug)]
pub(super) struct News {
    poller: Poller,
    watch: Option<Watch>,
    ready: Ready,
}

impl News {
    /// News of `folder`. Open it before the first look, so that nothing falls in between.
    pub(super) fn of(folder: &Path) -> Result<Self, Failure> {
        let open = || {
            let poller = Poller::new()?;
            // Without a watch (no folder yet, no inotify left for this user) looking has to do.
            let watch = Watch::folder(folder).ok();
            if let Some(watch) = &watch {
                poller.add(watch.as_fd(), FILES, Interest::Read)?;
            }
            // A plain file cannot be polled, and nobody hangs up on one.
            let _ = poller.add(io::stdout().as_fd(), READER, Interest::Nothing);
            Ok(Self { poller, watch, ready: Ready::new(2) })
        };
        open().map_err(|source| Failure::Io { doing: "wait for new lines", source })
    }

    /// Waits until it is worth looking again.
    pub(super) fn wait(&mut self) -> Result<(), Failure> {
        let failed = |source| Failure::Io { doing: "wait for new lines", source };
        self.poller.wait(&mut self.ready, Some(LOOK)).map_err(failed)?;
        if self.ready.tokens().any(|token| token == READER) {
            return Err(Failure::ClosedPipe);
        }
        if let Some(watch) = &self.watch {
            watch.clear();
        }
        Ok(())
    }
}
