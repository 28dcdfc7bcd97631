//! The door for others: HTTP/1.1 on the state directory's Unix socket.
//!
//! It asks the manager's loop and reads the journal; it decides nothing. One thread with one reactor
//! serves everybody, so a client that is slow holds up only itself. Every wait has an end.
//!
//! The table of routes is in `routes`; `GET /openapi.json` describes them all, and `docs/openapi.json`
//! is the same.
//!
//! `NAME` is a service or, as `NAME%2F2` or with `?replica=2`, one replica. An error is
//! `{"error": "<a sentence>", "code": "<a word>", …}`.

mod command;
mod config;
mod error;
mod events;
mod exits;
mod input;
mod line;
mod listener;
mod metrics;
mod openapi;
mod pages;
mod read;
mod routes;
mod server;
mod upgrade;
mod whole;

pub use openapi::document;
pub use server::{serve, serve_also};
