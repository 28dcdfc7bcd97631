//! The most disk that a configuration can come to use.

use super::Spec;

/// The exit journal: files of this many bytes …
const JOURNAL_FILE: u64 = 10 << 20;
/// … the current one and the rotated ones.
const JOURNAL_FILES: u64 = 11;

/// The worst case in bytes: every log of every replica full, and the exit journal. Rotated logs
/// count in full, since nothing promises that they can be compressed.
pub fn disk_bound(spec: &Spec) -> u64 {
    let logs = spec.services.values().map(|service| {
        let files = u64::from(service.logging.max_files) + 1;
        service.logging.max_size.saturating_mul(files).saturating_mul(service.replicas.into())
    });
    logs.fold(JOURNAL_FILE * JOURNAL_FILES, u64::saturating_add)
}
