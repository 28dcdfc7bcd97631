//! The process as its threads and tasks see it: one of them reads for all, and nothing is held locked while anything is
//! waited for.

use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::channel::Channel;
use super::error::Error;
use super::inside::{HUB, Inside};
use crate::message::Frame;
use crate::name::Address;
use crate::os::clock;
use crate::os::epoll::{Interest, Poller};
use crate::os::executable::Executable;
use crate::time::Tick;

/// The process, as all its threads see it.
#[derive(Debug)]
pub(super) struct Shared {
    inside: Mutex<Inside>,
    turned: Condvar,
    poller: Poller,
    pub(super) executable: Arc<Executable>,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// This process, if it is one.
pub(super) fn shared() -> Result<&'static Shared, Error> {
    SHARED.get().ok_or(Error::Outside)
}

/// Makes this a native process. That happens once.
pub(super) fn begin(
    me: Address,
    hub: Channel,
    executable: Arc<Executable>,
    heard: Vec<Frame>,
) -> std::io::Result<&'static Shared> {
    let poller = Poller::new()?;
    poller.add(hub.as_fd(), HUB, Interest::Read)?;
    let mut inside = Inside::new(me, hub);
    for frame in heard {
        inside.hear_word(frame, &poller);
    }
    let (inside, turned) = (Mutex::new(inside), Condvar::new());
    let twice = |_| std::io::Error::other("this process has been one of a family before");
    SHARED.set(Shared { inside, turned, poller, executable }).map_err(twice)?;
    SHARED.get().ok_or_else(|| std::io::Error::other("nothing was begun"))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that needs no waiting.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Inside, &Poller) -> T) -> T {
        work(&mut self.lock(), &self.poller)
    }

    /// The same where nobody else is at it.
    pub(super) fn try_with(&self, work: impl FnOnce(&mut Inside, &Poller)) {
        if let Ok(mut inside) = self.inside.try_lock() {
            work(&mut inside, &self.poller);
        }
    }

    /// Reads what there is to read without waiting, if nobody else is about to; whether there was anything.
    pub(super) fn glance(&self) -> bool {
        let mut inside = self.lock();
        let Some(mut ready) = inside.ready.take() else { return false };
        let looked = self.poller.wait(&mut ready, Some(std::time::Duration::ZERO));
        let any = looked.is_ok() && ready.tokens().next().is_some();
        if any {
            inside.turn(&ready, &self.poller);
        }
        inside.ready = Some(ready);
        if inside.followers > 0 {
            self.turned.notify_all();
        }
        any
    }

    /// What becomes readable when there is something to read.
    pub(super) fn readiness(&self) -> &Poller {
        &self.poller
    }

    /// Waits until `attempt` has something to give, and reads all sockets meanwhile. `None` once
    /// `deadline` has passed; everything that had come by then was seen.
    pub(super) fn until<T>(
        &self,
        deadline: Option<Tick>,
        mut attempt: impl FnMut(&mut Inside, &Poller) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut inside = self.lock();
        let mut looked = false;
        loop {
            if let Some(got) = attempt(&mut inside, &self.poller) {
                return Ok(Some(got));
            }
            if inside.hub_gone {
                return Err(Error::Hub);
            }
            let left = deadline.map(|deadline| deadline.since(clock::now()));
            if looked && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            looked = true;
            let Some(mut ready) = inside.ready.take() else {
                inside = self.follow(inside, left);
                continue;
            };
            drop(inside);
            let waited = self.poller.wait(&mut ready, left);
            inside = self.lock();
            if waited.is_ok() {
                inside.turn(&ready, &self.poller);
            }
            inside.ready = Some(ready);
            if inside.followers > 0 {
                self.turned.notify_all();
            }
        }
    }

    /// Waits for the thread that reads.
    fn follow<'a>(
        &self,
        mut inside: MutexGuard<'a, Inside>,
        left: Option<std::time::Duration>,
    ) -> MutexGuard<'a, Inside> {
        inside.followers += 1;
        let mut inside = match left {
            None => self.turned.wait(inside).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                let woken = self.turned.wait_timeout(inside, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        inside.followers -= 1;
        inside
    }
}
