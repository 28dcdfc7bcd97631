//! The real binary, the real kernel and real programs, seen from outside.
//!
//! Every test has a state directory and a manager of its own. What is waited for is a line of the
//! journal, an answer of the manager or the end of a process, each with a limit.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests start the binary as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod support;

mod activation;
mod bad_input;
mod causes;
mod channels;
mod connect;
mod converge;
mod conversation;
mod deaths;
mod descriptors;
mod enveloped;
mod environment;
mod erlang_defects;
mod events;
mod exit_with;
mod flow;
mod forward;
mod framings;
mod git_filters;
mod guarded;
mod half_close;
mod health;
mod hooks;
mod identity;
mod keep;
mod ladders;
mod limits;
mod listen;
mod looking;
mod loops;
mod mcp;
mod memory;
mod notify_up;
mod output;
mod people;
mod ports;
mod reading;
mod reload;
mod remember;
mod reread;
mod restarts;
mod rotation;
mod schedules;
mod schemathesis;
mod secrets;
mod sharing;
mod together;
mod trees;
mod truth;
mod upgrade;
mod wire;
