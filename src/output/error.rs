//! What can go wrong with log files.

use std::io;
use std::path::PathBuf;

/// Why log files cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder cannot be made or put in order.
    #[error("open the log folder {}", path.display())]
    Open {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("read the log {}", path.display())]
    Read {
        /// Which file; the current one of its family where it is about all of them.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An older file stays as it is, uncompressed. It is tried again after the next rotation.
    #[error("compress an older file of the log {}", path.display())]
    Compress {
        /// The current file of its family.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Lines were not written, or not all of them.
#[derive(Debug, thiserror::Error)]
#[error("write the log {}", path.display())]
pub struct WriteError {
    /// How many of the bytes need not be written again; a whole number of lines. Of a line that is
    /// on disk in part the rest is kept and written before anything else.
    pub written: usize,
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}
