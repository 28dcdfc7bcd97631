//! Native processes: Rust functions that run as Linux processes, with Erlang's manners.
//!
//! A program says [`run`](run()) first in its `main`. Then any of its functions can be [`spawn`](spawn())ed as a process of its own, by
//! executing the same executable again: nothing is shared, and whatever happens to one, by a panic or by SIGKILL,
//! happens to it alone. Each has an [`Address`] and one mailbox; [`send`](send()) and [`receive`](receive()) carry any value that serde
//! knows. A [`monitor`] is told once how and why somebody ended, after the last message of that one. When the first
//! process ends, whatever ends it, all of them do.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use wharf::process::{Down, Error, receive, spawn_monitor};
//!
//! fn main() -> ExitCode {
//!     wharf::run(first)
//! }
//!
//! fn first() -> Result<(), Error> {
//!     let (_, monitor) = spawn_monitor(divide, (7_u32, 0))?;
//!     let down: Down = receive()?;
//!     assert_eq!(down.monitor, monitor.id());
//!     assert!(down.exit.message.unwrap().contains("divide by zero"));
//!     Ok(())
//! }
//!
//! fn divide((a, b): (u32, u32)) -> u32 {
//!     a / b
//! }
//! ```
//!
//! # Rules
//!
//! - Messages of one sender to one receiver arrive in the order in which they were sent, each once, and none that was
//!   accepted is lost but with its receiver, or with its sender while it has not left.
//! - A message is received by its type or by a [`Pattern`]; the others stay, in order.
//! - A sender waits while the receiver has 256 KiB of its messages that were not received. Every wait has an end.
//! - A process that computes without sending or receiving reads nothing; its senders wait.
//! - What a process started by other means than this module is killed with its process group when it ends. A program that
//!   leaves that group, or survives the SIGKILL of the first process, is its own master.
//!
//! The design, with its reasons and prices, is in `docs/adr/0011-native-processes.md`.

pub mod asynchronous;
mod channel;
mod child;
mod error;
mod events;
mod function;
mod hub;
mod inside;
mod member;
mod receive;
mod requests;
mod run;
mod send;
mod shared;
mod spawn;
mod value;
mod watch;
mod wire;

pub use crate::mailbox::Exit;
pub use crate::name::Address;
pub use error::Error;
pub use events::{Down, Exited};
pub use receive::{Message, Pattern, receive, receive_match, receive_timeout, waiting};
pub use run::{Program, run};
pub use send::{ReplyTo, SEND_LIMIT, call, send, send_timeout};
pub use spawn::{me, register, spawn, spawn_link, spawn_monitor, spawn_named, unregister, whereis};
pub use value::Outcome;
pub use watch::{Monitor, demonitor, kill, link, monitor, trap_exits, unlink};
