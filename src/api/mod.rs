//! The door for others: HTTP/1.1 on the state directory's Unix socket.
//!
//! It asks the manager's loop and reads the journal; it decides nothing. One thread with one reactor
//! serves everybody, so a client that is slow holds up only itself. Every wait has an end.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/manager` | the manager's own state |
//! | `GET /v1/services` | every replica |
//! | `GET /v1/services/NAME` | the replicas of one service |
//! | `POST /v1/services/NAME/start`, `stop`, `restart` | its replicas, once it has come true |
//! | `POST /v1/services/NAME/signal` | `{"signal": "HUP"}`; its replicas |
//! | `POST /v1/services/NAME/call` | body: the message; answer: the reply's bytes |
//! | `POST /v1/services/NAME/send` | body: the message; no content |
//! | `GET /v1/exits` | exit records from the journal |
//! | `GET /v1/events` | server-sent events from now on |
//! | `GET /v1/config` | the configuration in effect, secrets masked |
//! | `GET /metrics` | everything that can be measured, in Prometheus's text format |
//! | `POST /v1/reload` | `{"plan": true}` to see what would change |
//! | `POST /v1/shutdown` | everything is stopped |
//!
//! `NAME` is a service or, as `NAME%2F2` or with `?replica=2`, one replica. An error is
//! `{"error": "<a sentence>", "code": "<a word>", …}`.

mod command;
mod config;
mod error;
mod events;
mod exits;
mod input;
mod listener;
mod metrics;
mod read;
mod server;

pub use server::serve;
