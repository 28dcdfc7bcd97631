//! wharf: a process manager for Linux in which every executable is a port.
//!
//! A **port** is one run of an executable that speaks messages and ends with a reason.
//!
//! The house has two columns that grow side by side. The *deciding* modules are pure, values in and
//! values out; the *doing* modules do one thing and report what happened. They know each other only
//! through the words of `event` and meet in one place, the manager's loop. A module imports only
//! from lower floors; `tests/house.rs` holds it to that, and `docs/ARCHITECTURE.md` tells the whole.
//!
//! # For those who embed it
//!
//! [`Port`] runs any program inside a tokio program of yours and speaks to it in messages, with no manager
//! and no configuration: [Erlang ports for Rust](port). [`spawn`] runs a function of your program as a process of its
//! own, with a mailbox and a reason when it ends: [native processes](process). Without the feature `daemon`
//! (`default-features = false`) the crate is these two and what they are made of.

// Floor 0: words and numbers.
pub mod bytes_text;
pub mod exit;
mod few;
pub mod name;
pub mod time;

// Floor 1: what was asked for, how it is spoken, and the operating system.
pub mod correlation;
pub mod framing;
#[cfg(feature = "daemon")]
pub mod import;
pub mod message;
pub mod os;
#[cfg(feature = "daemon")]
mod rotation;
pub mod spec;

// Floor 2: the words between deciding and doing.
pub mod event;

// Floor 3: deciding, and the single things that are done.
#[cfg(feature = "daemon")]
pub mod forward;
#[cfg(feature = "daemon")]
pub mod journal;
pub mod mailbox;
#[cfg(feature = "daemon")]
pub mod metrics;
#[cfg(feature = "daemon")]
pub mod output;
pub mod port;
#[cfg(feature = "daemon")]
pub mod probe;
#[cfg(feature = "daemon")]
pub mod state;
pub mod supervise;

pub use port::Port;

// Floor 4: the inside of a native process.
pub mod process;

pub use process::{call, receive, receive_timeout, run, send, spawn, spawn_link, spawn_monitor};

// Floor 5: where the two columns meet, and the process above.
#[cfg(feature = "daemon")]
pub mod guardian;
#[cfg(feature = "daemon")]
pub mod manager;

// Floor 6: the door for others.
#[cfg(feature = "daemon")]
pub mod api;

// Floor 7: the commands.
#[cfg(feature = "daemon")]
pub mod cli;
