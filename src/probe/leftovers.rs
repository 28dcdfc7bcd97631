//! Killing what an executed question left behind where no control group holds it together: processes
//! that left its session, were orphaned to this process, and still bear its mark.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::exit::Signal;
use crate::os::{epoll, mark, procfs, signal};

/// How often is looked again: each time those are found whose parent was killed the time before.
const ROUNDS: usize = 20;
/// How long a killed process may take to be gone before the next look.
const PATIENCE: Duration = Duration::from_millis(50);

/// Kills orphans that carry one of these marks (`os::mark`); how many it were.
pub(super) fn kill_marked(marks: &[u64]) -> usize {
    let me = crate::os::prctl::pid();
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS {
        let found: Vec<_> = procfs::all()
            .unwrap_or_default()
            .into_iter()
            .filter(|one| one.parent == me && !one.is_zombie() && !killed.contains(&one.pid))
            .filter(|one| mark::read(one.pid).is_some_and(|mark| marks.contains(&mark)))
            .collect();
        let mut last = None;
        for one in found {
            // A descriptor first and a second look make sure that the number means the same process.
            let Ok(pidfd) = signal::open_pidfd(one.pid) else { continue };
            if procfs::stat(one.pid).map(|now| now.start) == Some(one.start) {
                let _ = signal::send(pidfd.as_fd(), Signal::KILL);
                killed.insert(one.pid);
                last = Some(pidfd);
            }
        }
        match last {
            Some(pidfd) => wait_for(&pidfd),
            None => break,
        }
    }
    killed.len()
}

/// Waits until a killed process is gone, but not for long.
fn wait_for(pidfd: &OwnedFd) {
    if let Ok(poller) = epoll::Poller::new()
        && poller.add(pidfd.as_fd(), 0, epoll::Interest::Read).is_ok()
    {
        let _ = poller.wait(&mut epoll::Ready::new(1), Some(PATIENCE));
    }
}
