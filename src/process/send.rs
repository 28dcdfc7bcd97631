//! Sending, and asking for an answer.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::Error;
use super::inside::Sent;
use super::shared::{Shared, shared};
use super::value::{pack, tag, unpack};
use crate::mailbox::Exit;
use crate::message::{Frame, Kind};
use crate::name::Address;
use crate::os::clock;
use crate::time::Tick;

/// How long [`send`] waits for room in the receiver's mailbox.
pub const SEND_LIMIT: Duration = Duration::from_secs(30);

/// Sends a value to a mailbox, or to a slot for a reply.
///
/// It returns as soon as the message has left this process. While the receiver has 256 KiB from this process that it has not taken out of
/// its mailbox, sending waits, at most [`SEND_LIMIT`]; after that it is [`Error::Full`], and nothing was sent. To somebody
/// who has ended, or whose realm is not this one, nothing is sent, which is no error.
pub fn send<T: Serialize + ?Sized>(to: &Address, value: &T) -> Result<(), Error> {
    send_timeout(to, value, SEND_LIMIT)
}

/// The same with a limit of one's own, which may be zero.
pub fn send_timeout<T: Serialize + ?Sized>(
    to: &Address,
    value: &T,
    limit: Duration,
) -> Result<(), Error> {
    let frame = frame::<T>(*to, value)?;
    deliver(shared()?, *to, &frame, clock::now() + limit).map(drop)
}

pub(super) fn frame<T: Serialize + ?Sized>(to: Address, value: &T) -> Result<Frame, Error> {
    let payload: Bytes = pack(value)?.into();
    Ok(match to.reference {
        0 => Frame::new(Kind::Data, tag::<T>(), payload),
        reference => Frame::new(Kind::Reply, reference, payload),
    })
}

fn deliver(shared: &Shared, to: Address, frame: &Frame, deadline: Tick) -> Result<Sent, Error> {
    let sent = shared.until(Some(deadline), |inside, poller| inside.send(to, frame, poller))?;
    let sent = sent.ok_or(Error::Full)??;
    // A large one leaves in pieces. It is accepted now, so that what is left of it at the deadline follows
    // whenever this process sends, receives or ends.
    shared.until(Some(deadline), |inside, _| inside.has_left(to).then_some(()))?;
    Ok(sent)
}

/// Where one reply is waited for, as a value that can be sent: who has it may [`send`](ReplyTo::send) a `T`, once.
pub struct ReplyTo<T> {
    address: Address,
    reply: PhantomData<fn(T)>,
}

impl<T: Serialize> ReplyTo<T> {
    /// Sends the reply. It skips the mailbox, and nobody is told where it comes too late.
    pub fn send(self, reply: &T) -> Result<(), Error> {
        send(&self.address, reply)
    }
}

impl<T> ReplyTo<T> {
    /// The address of the slot.
    pub fn address(&self) -> Address {
        self.address
    }
}

impl<T> Clone for ReplyTo<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ReplyTo<T> {}

impl<T> fmt::Debug for ReplyTo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplyTo({})", self.address)
    }
}

impl<T> Serialize for ReplyTo<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.address.serialize(s)
    }
}

impl<'de, T> Deserialize<'de> for ReplyTo<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Address::deserialize(d).map(|address| Self { address, reply: PhantomData })
    }
}

/// Asks a process and waits for its reply.
///
/// `request` makes the message, which carries where the reply goes. Whoever that is given to may reply. The call
/// ends with the reply, with [`Error::Down`] and the reason when the process that was asked has ended, or with
/// [`Error::Timeout`]; a reply that comes later is dropped.
pub fn call<M: Serialize, T: DeserializeOwned>(
    to: &Address,
    limit: Duration,
    request: impl FnOnce(ReplyTo<T>) -> M,
) -> Result<T, Error> {
    let (shared, deadline) = (shared()?, clock::now() + limit);
    let slot = opened(*to)?;
    let frame = frame(*to, &request(slot.reply_to()))?;
    if let Sent::Dead(exit) = deliver(shared, *to, &frame, deadline)? {
        return Err(Error::Down(Box::new((*exit).clone())));
    }
    let answer = shared.until(Some(deadline), |inside, _| inside.slots.take(slot.reference))?;
    reply_of(answer.ok_or(Error::Timeout)?)
}

/// A slot for one reply, closed when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) reference: u64,
    address: Address,
}

/// Opens a slot for an answer to what `to` is asked.
pub(super) fn opened(to: Address) -> Result<Slot, Error> {
    Ok(shared()?.with(|inside, _| {
        let reference = inside.fresh();
        inside.slots.open(reference, to.incarnation);
        Slot { reference, address: inside.me.slot(reference) }
    }))
}

impl Slot {
    /// Where the reply goes.
    pub(super) fn reply_to<T>(&self) -> ReplyTo<T> {
        ReplyTo { address: self.address, reply: PhantomData }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Ok(shared) = shared() {
            shared.with(|inside, _| inside.slots.close(self.reference));
        }
    }
}

/// The reply, or why there is none.
pub(super) fn reply_of<T: DeserializeOwned>(answer: Result<Bytes, Arc<Exit>>) -> Result<T, Error> {
    match answer {
        Ok(reply) => unpack(&reply),
        Err(exit) => Err(Error::Down(Box::new((*exit).clone()))),
    }
}
