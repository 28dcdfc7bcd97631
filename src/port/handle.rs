//! The handle of an embedded port: what its owner, or several tasks at once, can do with it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::builder::Builder;
use super::error::PortError;
use super::exchange::{Counters, ReadState};
use super::exit::Exit;
use super::messages::{Messages, Queue};
use super::shared::{Outcome, Shared};
use super::stderr::Stderr;
use crate::exit::{Cause, Signal};

/// How many messages may wait for a subscriber, unless it says otherwise.
const SUBSCRIBED: usize = 1024;
/// How many bytes may wait for a subscriber, or one message if that is larger.
const SUBSCRIBED_BYTES: usize = 1 << 20;

/// A running program that is spoken to in messages. See [the module](super) for what that is good for.
///
/// A port can be cloned; every clone is the same program, and callers are served in turn. When the last
/// clone is dropped the program is asked to end as [`Port::stop`] does, by a task of the runtime.
#[derive(Debug)]
pub struct Port {
    life: Arc<Life>,
    /// By which callers have their turns.
    client: u64,
}

/// Ends with the last handle.
#[derive(Debug)]
struct Life {
    shared: Arc<Shared>,
    stderr: Stderr,
    clients: AtomicU64,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.dropped();
    }
}

impl Clone for Port {
    fn clone(&self) -> Self {
        let client = self.life.clients.fetch_add(1, Ordering::Relaxed);
        Self { life: Arc::clone(&self.life), client }
    }
}

impl Port {
    pub(super) fn new(shared: Arc<Shared>, stderr: Stderr) -> Self {
        let life = Life { shared, stderr, clients: AtomicU64::new(2) };
        Self { life: Arc::new(life), client: 1 }
    }

    /// A program to be run: a path, or a name that is looked for in `PATH`. No shell is involved.
    pub fn command(program: impl AsRef<OsStr>) -> Builder {
        Builder::new(program.as_ref())
    }

    /// A program that is known, spoken to as its profile says: `bc`, `sqlite3`, … (`ports/` of the source,
    /// and `wharf::spec::built_in_profiles`). What the profile says can be replaced; one without a
    /// command of its own needs [`Builder::command`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bc = wharf::Port::profile("bc")?.open().await?;
    /// assert_eq!(bc.call("6 * 7").await?.text(), "42");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "daemon")]
    pub fn profile(name: &str) -> Result<Builder, super::OpenError> {
        Builder::profile(name)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.life.shared
    }

    /// Sends a message and waits for its reply, at most for the port's timeout.
    ///
    /// Dropped before it is ready, it takes the message back where it has not been written; where it has,
    /// its reply is swallowed and reaches nobody else.
    pub async fn call(&self, message: impl Into<Bytes>) -> Result<Reply, PortError> {
        let port = self.shared().service.port.as_ref();
        let timeout = port.map_or(Duration::from_secs(30), |port| port.timeout);
        self.call_within(timeout, message).await
    }

    /// The same with a timeout of its own.
    pub async fn call_within(
        &self,
        timeout: Duration,
        message: impl Into<Bytes>,
    ) -> Result<Reply, PortError> {
        let outcome = self.shared().ask(self.client, Some(timeout), message.into());
        self.outcome(outcome).await.map(|messages| Reply { messages })
    }

    /// Sends the last message of a run, once all before it are written and every call is answered, and
    /// closes the program's input behind it. Its reply is all that the program says from then on, whatever
    /// the rule for [`Replies`](crate::port::Replies), given when the run has ended with success; a run
    /// that ends otherwise is an error with its reason. With an empty message only the input is closed.
    ///
    /// From now on nothing else is taken. It waits at most for the port's timeout.
    pub async fn call_last(&self, message: impl Into<Bytes>) -> Result<Reply, PortError> {
        let port = self.shared().service.port.as_ref();
        let timeout = port.map_or(Duration::from_secs(30), |port| port.timeout);
        self.call_last_within(timeout, message).await
    }

    /// The same with a timeout of its own.
    pub async fn call_last_within(
        &self,
        timeout: Duration,
        message: impl Into<Bytes>,
    ) -> Result<Reply, PortError> {
        let outcome = self.shared().ask_last(self.client, timeout, message.into());
        self.outcome(outcome).await.map(|messages| Reply { messages })
    }

    /// Sends a message that wants no reply, and waits until all of it is in the program's input.
    ///
    /// It waits for its turn where others wait already; a full queue refuses it as busy.
    pub async fn send(&self, message: impl Into<Bytes>) -> Result<(), PortError> {
        let outcome = self.shared().ask(self.client, None, message.into());
        self.outcome(outcome).await.map(drop)
    }

    /// Puts a message into the queue, as soon as there is room in it: the way to send many. What becomes of
    /// it [`Port::flush`] tells, or the end of the program.
    pub async fn feed(&self, message: impl Into<Bytes>) -> Result<(), PortError> {
        self.feed_all(std::iter::once(message.into())).await
    }

    /// Puts messages into the queue one after the other, waiting for room.
    pub async fn feed_all(
        &self,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), PortError> {
        let shared = self.shared();
        let mut messages = messages.into_iter().peekable();
        loop {
            // Made before the queue is tried, it hears of room that comes in between.
            let room = shared.room.notified();
            if shared.feed_many(self.client, &mut messages)? {
                return Ok(());
            }
            room.await;
        }
    }

    /// Waits until the program's input has taken everything that was fed before.
    pub async fn flush(&self) -> Result<(), PortError> {
        let shared = self.shared();
        loop {
            let room = shared.room.notified();
            if let Some(exit) = shared.ended() {
                let (read, so_far) = (ReadState::MaybeRead, Vec::new());
                return Err(PortError::Ended { exit, read, so_far });
            }
            if shared.lock().exchange.waiting() == (0, 0) {
                return Ok(());
            }
            room.await;
        }
    }

    async fn outcome(&self, asked: Result<u64, PortError>) -> Outcome {
        let (shared, id) = (self.shared(), asked?);
        let mut patience = Patience { shared, id: Some(id) };
        let outcome = std::future::poll_fn(|context| shared.poll_outcome(id, context)).await;
        patience.id = None;
        outcome
    }

    /// Hears what the program says and nobody asked for: everything that is no reply. Each subscriber hears
    /// all of it.
    ///
    /// The program is read while a call is open or a subscriber has room; otherwise it waits, as at the
    /// end of any pipe. A subscriber that has none while the program is read for others misses messages,
    /// and is told how many. What is said before the first subscription waits in the pipe, also beyond the
    /// program's end, unless a call had it read.
    pub fn subscribe(&self) -> Messages {
        self.subscribe_with(SUBSCRIBED)
    }

    /// The same with room for so many messages, and for what one read gives beyond (at most 64 KiB).
    pub fn subscribe_with(&self, messages: usize) -> Messages {
        let port = self.shared().service.port.as_ref();
        let frame =
            port.and_then(|port| usize::try_from(port.max_frame).ok()).unwrap_or(usize::MAX);
        let queue = Queue::new(messages.max(1), SUBSCRIBED_BYTES.min(frame));
        let mut state = self.shared().lock();
        state.is_subscribed = true;
        if self.shared().ended().is_some() {
            queue.push(std::mem::take(&mut state.left), true);
            queue.close();
        } else {
            state.subscribers.push(Arc::clone(&queue));
            state.wake();
        }
        Messages::new(queue, Arc::downgrade(self.shared()))
    }

    /// What the program writes on standard error from now on, as it comes. It is always read; a listener
    /// that is too slow misses some. `None` where it is inherited.
    pub fn stderr(&self) -> Option<Messages> {
        if self.life.stderr == Stderr::Inherit {
            return None;
        }
        let queue = Queue::new(SUBSCRIBED, SUBSCRIBED_BYTES);
        let mut state = self.shared().lock();
        if self.shared().ended().is_some() {
            queue.close();
        } else {
            state.error_subscribers.push(Arc::clone(&queue));
        }
        Some(Messages::new(queue, Arc::downgrade(self.shared())))
    }

    /// Closes the program's input once everything that waits is written: `sort`, `gzip` and `wc` answer
    /// then. It can still be heard; nothing more can be sent.
    pub fn close_input(&self) {
        self.shared().tell(|state, _| state.exchange.close_input());
    }

    /// Sends a signal to the program, and to no other whatever becomes of its number.
    pub fn signal(&self, signal: Signal) {
        self.send_signal(signal, false);
    }

    /// Sends a signal to the program and to what it started in its process group.
    pub fn signal_group(&self, signal: Signal) {
        self.send_signal(signal, true);
    }

    fn send_signal(&self, signal: Signal, group: bool) {
        self.shared().tell(|state, now| {
            state.signals.push((signal, group));
            state.single.signalled(signal, now);
        });
    }

    /// Kills the program and all it started, and waits for its end.
    pub async fn kill(&self) -> Arc<Exit> {
        self.shared().kill();
        self.wait().await
    }

    /// Asks the program to end, one step after the other, and waits for its end: the quit message, the
    /// end of its input, the stop signal, the kill, each with its time. The steps that were needed are in
    /// the [`Exit`].
    pub async fn stop(&self) -> Arc<Exit> {
        self.shared().tell(|state, now| state.single.stop(Cause::StopRequested, now));
        self.wait().await
    }

    /// Waits for the program's end, and tells how and why. It can be asked at any time, also after the
    /// end, and by several at once; all get the same.
    pub async fn wait(&self) -> Arc<Exit> {
        let mut exit = self.shared().exit.subscribe();
        loop {
            if let Some(exit) = exit.borrow_and_update().clone() {
                return exit;
            }
            // The sender lives as long as this port.
            if exit.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How and why it ended, if it has.
    pub fn exit(&self) -> Option<Arc<Exit>> {
        self.shared().ended()
    }

    /// The program's process number. Once it has ended it may belong to another process.
    pub fn pid(&self) -> i32 {
        self.shared().pid
    }

    /// What has passed through.
    pub fn counters(&self) -> Counters {
        self.shared().lock().exchange.counters()
    }

    /// How many messages, and how many bytes, wait to be written to the program.
    pub fn waiting(&self) -> (u64, u64) {
        self.shared().lock().exchange.waiting()
    }
}

/// Takes a request back when nobody waits for it any more.
struct Patience<'a> {
    shared: &'a Shared,
    id: Option<u64>,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.forget(id);
        }
    }
}

/// The reply to a call: one message, or several where the port's rule says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    messages: Vec<Bytes>,
}

impl Reply {
    /// Its messages, without what framed them. There may be none: a statement that gives no rows.
    pub fn messages(&self) -> &[Bytes] {
        &self.messages
    }

    /// The same, handed over.
    pub fn into_messages(self) -> Vec<Bytes> {
        self.messages
    }

    /// All of it: one message as it is, without a copy; several with a newline between them.
    pub fn bytes(&self) -> Bytes {
        match &self.messages[..] {
            [one] => one.clone(),
            several => several.join(&b'\n').into(),
        }
    }

    /// All of it as text; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        match String::from_utf8_lossy(&self.bytes()) {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        }
    }
}
