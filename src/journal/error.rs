//! What can go wrong with the exit journal.

use std::io;
use std::path::PathBuf;

/// Why the journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder or the file cannot be made or opened.
    #[error("open the exit journal {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A torn last line cannot be moved aside.
    #[error("repair the exit journal {}", path.display())]
    Repair {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("read the exit journal {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Records were not written; none of their numbers is used up.
    #[error("append to the exit journal {}", path.display())]
    Append {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Files cannot be renamed. Records are still appended, to a file that grows too long.
    #[error("rotate the exit journal {}", path.display())]
    Rotate {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
