//! The same ports with plain functions, for programs without a runtime.
//!
//! ```
//! use wharf::port::{Port, Replies};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sed = Port::command("sed").args(["-u", "s/.*/\\U&/"]).replies(Replies::One);
//! let mut sed = wharf::port::blocking::open(sed)?;
//! assert_eq!(sed.call("hello")?.text(), "HELLO");
//! assert!(sed.stop().is_success());
//! # Ok(())
//! # }
//! ```
//!
//! Everything happens in the thread that calls, while it calls: between two calls nothing is read, not even
//! standard error, and no step of a ladder is taken. A port that is to be watched all the time belongs into
//! a runtime.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::builder::Builder;
use super::error::{OpenError, PortError};
use super::exit::Exit;
use super::handle::Reply;
use super::messages::Missed;
use crate::framing::Message;

/// A port whose functions wait.
#[derive(Debug)]
pub struct Port {
    // Dropped in this order: the runtime last, which kills what would not end.
    messages: super::Messages,
    port: super::Port,
    runtime: Runtime,
}

/// Starts a program; [`Builder::open`] says more. It must not be called in a runtime.
pub fn open(builder: Builder) -> Result<Port, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|source| OpenError::Io { program: "a runtime of its own".to_owned(), source })?;
    let port = runtime.block_on(builder.open())?;
    let messages = port.subscribe();
    Ok(Port { messages, port, runtime })
}

impl Port {
    /// As [`Port::call`](super::Port::call).
    pub fn call(&mut self, message: impl Into<Bytes>) -> Result<Reply, PortError> {
        self.runtime.block_on(self.port.call(message))
    }

    /// As [`Port::call_within`](super::Port::call_within).
    pub fn call_within(
        &mut self,
        timeout: Duration,
        message: impl Into<Bytes>,
    ) -> Result<Reply, PortError> {
        self.runtime.block_on(self.port.call_within(timeout, message))
    }

    /// As [`Port::call_last`](super::Port::call_last).
    pub fn call_last(&mut self, message: impl Into<Bytes>) -> Result<Reply, PortError> {
        self.runtime.block_on(self.port.call_last(message))
    }

    /// As [`Port::send`](super::Port::send).
    pub fn send(&mut self, message: impl Into<Bytes>) -> Result<(), PortError> {
        self.runtime.block_on(self.port.send(message))
    }

    /// As [`Port::close_input`](super::Port::close_input).
    pub fn close_input(&mut self) {
        self.port.close_input();
    }

    /// As [`Port::stop`](super::Port::stop).
    pub fn stop(&mut self) -> Arc<Exit> {
        self.runtime.block_on(self.port.stop())
    }

    /// As [`Port::kill`](super::Port::kill).
    pub fn kill(&mut self) -> Arc<Exit> {
        self.runtime.block_on(self.port.kill())
    }

    /// As [`Port::wait`](super::Port::wait).
    pub fn wait(&mut self) -> Arc<Exit> {
        self.runtime.block_on(self.port.wait())
    }

    /// The program's process number.
    pub fn pid(&self) -> i32 {
        self.port.pid()
    }
}

/// The messages that are no reply, until the program has ended.
impl Iterator for Port {
    type Item = Result<Message, Missed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.messages.next())
    }
}
