//! The exit journal: one JSON line for each end, `exits.jsonl` and ten older files beside it.
//!
//! It writes records and reads them back, with or without a manager. It decides nothing about them
//! and knows no clock.

mod error;
mod follower;
mod reader;
mod since;
mod sink;
mod writer;

pub use error::JournalError;
pub use follower::Follower;
pub use reader::{Entries, Entry, Filter, Reader};
pub use since::{SinceError, parse_since};
pub use writer::{Journal, Opened};

use std::path::Path;

use crate::rotation::Family;

/// The file that is written to.
const NAME: &str = "exits.jsonl";

/// A file that is longer than this is rotated, in bytes.
const MAX_SIZE: u64 = 10 << 20;

/// How many older files are kept.
const KEEP: u32 = 10;

fn family(dir: &Path) -> Family {
    Family::new(dir, NAME)
}

#[cfg(test)]
mod tests;
