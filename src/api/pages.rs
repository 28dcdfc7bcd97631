//! The journal a page at a time, read on a thread that may wait for the disk.
//!
//! Between two pages no thread is held, so that clients who are slow to take what was read keep
//! nobody else from reading.

use std::path::PathBuf;

use crate::journal::{Entries, Entry, Filter, JournalError, Reader};
use crate::manager::Refusal;

use super::error::ApiError;

/// A page has about this many bytes.
const PAGE: usize = 64 << 10;

/// The wanted records that are still to be read.
pub(super) struct Pages {
    /// `None` at the end.
    entries: Option<Entries>,
}

impl Pages {
    /// Opens the journal in `folder`.
    pub(super) async fn open(folder: PathBuf, filter: Filter) -> Result<Self, ApiError> {
        let open = move || Reader::open(&folder)?.entries(filter);
        match tokio::task::spawn_blocking(open).await {
            Ok(Ok(entries)) => Ok(Self { entries: Some(entries) }),
            Ok(Err(error)) => Err(ApiError::internal(&error)),
            Err(_) => Err(Refusal::ShuttingDown.into()),
        }
    }

    /// The next records, oldest first; none at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<Entry>, JournalError> {
        let Some(mut entries) = self.entries.take() else { return Ok(Vec::new()) };
        let read = move || {
            let mut page = Vec::new();
            let mut bytes = 0;
            while bytes < PAGE {
                match entries.next() {
                    Some(Ok(entry)) => {
                        bytes += entry.line.len();
                        page.push(entry);
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Ok((None, page)),
                }
            }
            Ok((Some(entries), page))
        };
        // A task that was given up belongs to a process that is ending.
        let Ok(read) = tokio::task::spawn_blocking(read).await else { return Ok(Vec::new()) };
        let (rest, page) = read?;
        self.entries = rest;
        Ok(page)
    }
}
