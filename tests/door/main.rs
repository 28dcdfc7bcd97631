//! The door for others, from outside: the API as clients see it and the commands as users run them,
//! in front of a loop that does nothing but answer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::disallowed_types, reason = "the program under test is started from outside")]

mod api;
mod commands;
mod events;
mod fake;
