//! What programs write: `log/SERVICE.REPLICA.log` in the CRI log format, written, rotated, compressed
//! and read back.
//!
//! It knows nothing of pipes and processes, and no clock: bytes and times come in as arguments.

mod compress;
mod cut;
mod end;
mod error;
mod file;
mod files;
mod format;
mod line;
mod merge;
mod reader;

pub use compress::{CompressJob, Compressed, discard_unfinished};
pub use error::{OutputError, WriteError};
pub use files::LogFiles;
pub use format::{Doubt, LineFormatter, PIECE, doubt_marker, dropped_marker};
pub use line::{Line, Source, Stream, parse_lines};
pub use merge::Merged;
pub use reader::{Follower, Lines, LogReader, Range};

use std::path::Path;

use crate::name::ReplicaId;
use crate::rotation::Family;

fn family(dir: &Path, id: &ReplicaId) -> Family {
    Family::new(dir, format!("{}.{}.log", id.service, id.replica))
}

#[cfg(test)]
mod tests;
