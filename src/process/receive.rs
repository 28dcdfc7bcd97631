//! Receiving: by type, or by a pattern.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::Error;
use super::inside::{Inside, Letter};
use super::shared::shared;
use super::value::{tag, unpack};
use crate::mailbox::Mark;
use crate::os::clock;
use crate::os::epoll::Poller;
use crate::time::Tick;

/// Waits for the first message that was sent as a `T`, and takes it out of the mailbox.
///
/// Others stay where they are, in their order. Looking again for the same type costs nothing for what was looked at
/// before. A message whose sender did not say what it is, as those of other languages, is a `T` if it can be read as one.
pub fn receive<T: DeserializeOwned>() -> Result<T, Error> {
    typed(None)?.ok_or(Error::Timeout)
}

/// The same, but no longer than `limit`; `None` when none has come by then. With a limit of zero it
/// takes what has come and does not wait.
pub fn receive_timeout<T: DeserializeOwned>(limit: Duration) -> Result<Option<T>, Error> {
    typed(Some(clock::now() + limit))
}

fn typed<T: DeserializeOwned>(deadline: Option<Tick>) -> Result<Option<T>, Error> {
    let tag = tag::<T>();
    shared()?.until(deadline, |inside, poller| take_typed(inside, poller, tag))?.transpose()
}

pub(super) fn take_typed<T: DeserializeOwned>(
    inside: &mut Inside,
    poller: &Poller,
    tag: u64,
) -> Option<Result<T, Error>> {
    let Inside { mailbox, marks, .. } = inside;
    let (letter, read) =
        mailbox.take(marks.entry(tag).or_default(), |letter: &Letter| match letter.tag {
            0 => unpack(&letter.payload).ok().map(Ok),
            this => (this == tag).then(|| unpack(&letter.payload)),
        })?;
    inside.taken(&letter, poller);
    Some(read)
}

/// A message in the mailbox, which a pattern looks at.
#[derive(Debug)]
pub struct Message<'a>(&'a Letter);

impl Message<'_> {
    /// Whether it was sent as a `T`.
    pub fn is<T>(&self) -> bool {
        self.0.tag == tag::<T>()
    }

    /// The message, if it was sent as a `T`, or its sender did not say what it is and it can be read as one.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        (self.0.tag == 0 || self.is::<T>()).then(|| unpack(&self.0.payload).ok())?
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.payload
    }
}

/// Waits for the first message for which the pattern has something to give, and takes it out of the mailbox.
/// Without a limit it waits as long as it takes.
///
/// Each message is shown to the pattern once. The pattern must not send or receive itself.
pub fn receive_match<T>(
    limit: Option<Duration>,
    pattern: impl FnMut(&Message<'_>) -> Option<T>,
) -> Result<Option<T>, Error> {
    Pattern::new(pattern).receive(limit)
}

/// A pattern that remembers what it has looked at.
///
/// It is shown each message once, however often it receives: what did not match the first time costs nothing
/// the next time. So it has to be one that would answer the same again.
#[derive(Debug)]
pub struct Pattern<F> {
    matches: F,
    mark: Mark,
}

impl<F> Pattern<F> {
    /// A pattern that has looked at nothing.
    pub fn new<T>(matches: F) -> Self
    where
        F: FnMut(&Message<'_>) -> Option<T>,
    {
        Self { matches, mark: Mark::default() }
    }

    /// Like [`receive_match`], going on where it stopped looking.
    pub fn receive<T>(&mut self, limit: Option<Duration>) -> Result<Option<T>, Error>
    where
        F: FnMut(&Message<'_>) -> Option<T>,
    {
        let deadline = limit.map(|limit| clock::now() + limit);
        let Self { matches, mark } = self;
        shared()?.until(deadline, |inside, poller| {
            let (letter, got) = inside.mailbox.take(mark, |letter| matches(&Message(letter)))?;
            inside.taken(&letter, poller);
            Some(got)
        })
    }
}

/// How many messages wait in the mailbox, those included that can be read without waiting.
pub fn waiting() -> Result<usize, Error> {
    let shared = shared()?;
    shared.glance();
    Ok(shared.with(|inside, _| inside.mailbox.len()))
}
