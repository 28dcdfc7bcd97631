//! The documents, held to what they say: every command is run, every configuration checked, every key
//! and every word of the closed lists told, every link followed. So are the manual pages, the
//! completions and the packages, which are documents too.
//!
//! How a block is marked and what its expected output may leave open stands in CONTRIBUTING.md.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests start the binary as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test waits no longer than so long")]

mod blocks;
mod configuration;
mod documents;
mod manual;
mod matching;
mod packages;
mod place;
mod shells;
mod words;
