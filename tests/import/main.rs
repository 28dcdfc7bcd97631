//! Each importer on configurations written in the manner of published ones: the text and the losses
//! are those committed, the result passes `wharf check`, and its services start.
//!
//! A start is tried with stand-ins: for every program that a configuration names there is one in
//! the test's own folder that notes down how it was called. To that end the imported configuration
//! is changed in three ways, and in these alone: absolute paths of programs and working folders
//! get the test's folder before them, users, sockets and secrets are left out (they do not exist or
//! are taken where tests run), and a
//! limit on descriptors is lowered to what the tests may have. `WHARF_BLESS=1` rewrites what is
//! expected.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::disallowed_types, reason = "the program under test is started from outside")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod bad;
mod cases;
mod docs;
mod init;
mod mutants;
mod stand_in;
mod support;
