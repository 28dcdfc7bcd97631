//! The same for tasks of a tokio program: sending, asking and receiving that wait without holding up a thread.
//!
//! A face over the same inside as the functions of [`process`](super): both may be used at once. A call that is dropped while it waits has
//! taken nothing out of the mailbox, and has sent its message or not.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::inside::{Inside, Sent};
use super::receive::take_typed;
use super::send::{ReplyTo, SEND_LIMIT, frame, opened, reply_of};
use super::shared::shared;
use super::value::tag;
use crate::name::Address;
use crate::os::epoll::Poller;
use crate::os::{fds, reactor};

/// Like [`receive`](super::receive()).
pub async fn receive<T: DeserializeOwned>() -> Result<T, Error> {
    let tag = tag::<T>();
    until(|inside, poller| take_typed(inside, poller, tag)).await?
}

/// Like [`receive_timeout`](super::receive_timeout).
pub async fn receive_timeout<T: DeserializeOwned>(limit: Duration) -> Result<Option<T>, Error> {
    // What has come by now is taken, also with a limit of zero.
    if let Some(one) = super::receive_timeout(Duration::ZERO)? {
        return Ok(Some(one));
    }
    tokio::time::timeout(limit, receive()).await.ok().transpose()
}

/// Like [`send`](super::send()).
pub async fn send<T: Serialize + ?Sized>(to: &Address, value: &T) -> Result<(), Error> {
    let (to, frame) = (*to, frame(*to, value)?);
    let sent = until(|inside, poller| inside.send(to, &frame, poller));
    tokio::time::timeout(SEND_LIMIT, sent).await.map_err(|_| Error::Full)??.map(drop)
}

/// Like [`call`](super::call).
pub async fn call<M: Serialize, T: DeserializeOwned>(
    to: &Address,
    limit: Duration,
    request: impl FnOnce(ReplyTo<T>) -> M,
) -> Result<T, Error> {
    let slot = opened(*to)?;
    let (to, frame) = (*to, frame(*to, &request(slot.reply_to()))?);
    let answered = async {
        let sent = until(|inside, poller| inside.send(to, &frame, poller)).await??;
        if let Sent::Dead(exit) = sent {
            return Err(Error::Down(Box::new((*exit).clone())));
        }
        until(|inside, _| inside.slots.take(slot.reference)).await
    };
    let answer = tokio::time::timeout(limit, answered).await.map_err(|_| Error::Timeout)??;
    reply_of(answer)
}

/// Waits until `attempt` has something to give.
async fn until<T>(mut attempt: impl FnMut(&mut Inside, &Poller) -> Option<T>) -> Result<T, Error> {
    let shared = shared()?;
    // Registered for this call alone: a runtime of its own may make the next one.
    let watched = fds::duplicate(shared.readiness().as_fd()).and_then(reactor::watch_reads);
    let watched = watched.map_err(|error| Error::Refused(format!("watch its sockets: {error}")))?;
    loop {
        let busy = shared.glance();
        let looked = |inside: &mut Inside, poller: &Poller| {
            attempt(inside, poller).ok_or((inside.turns, inside.is_alone()))
        };
        let turns = match shared.with(looked) {
            Ok(got) => return Ok(got),
            Err((_, true)) => return Err(Error::Hub),
            Err((_, false)) if busy => continue,
            Err((turns, false)) => turns,
        };
        poll_fn(|context| {
            // Another thread may read what this one waits for.
            if !shared.with(|inside, _| inside.wake_after(turns, context.waker())) {
                return Poll::Ready(());
            }
            match watched.poll_read_ready(context) {
                Poll::Ready(Ok(mut ready)) => {
                    ready.clear_ready();
                    Poll::Ready(())
                }
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }
}
