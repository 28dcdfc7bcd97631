//! What stands in the files that a program reads its own configuration from, as far as a reload has to know:
//! whether it is the same as before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What stood in a file or folder when the configuration was read. It tells an edit, and is no defence
/// against somebody who wants two files to look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Contents {
    /// A file: its size and digest, or why it has none.
    File(String),
    /// A folder: the files in it, and in the folders below, by their paths from there.
    Folder(BTreeMap<String, String>),
}

impl Contents {
    /// There is nothing at that path.
    pub fn absent() -> Self {
        Self::File("absent".to_owned())
    }

    /// There is something that cannot be read, for this reason.
    pub fn unreadable(why: &str) -> Self {
        Self::File(format!("unreadable: {why}"))
    }

    /// Why a file cannot be looked into now, in words; `None` where it can.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::File(text) if text == "absent" => Some("it is not there"),
            Self::File(text) => text.strip_prefix("unreadable: "),
            Self::Folder(_) => None,
        }
    }
}

/// A digest in the making: FNV-1a of the bytes and how many there were.
#[derive(Debug, Clone, Copy)]
pub struct Digest {
    sum: u64,
    bytes: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { sum: 0xcbf2_9ce4_8422_2325, bytes: 0 }
    }
}

impl Digest {
    /// Adds what comes next.
    pub fn add(&mut self, bytes: &[u8]) {
        let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        self.sum = bytes.iter().fold(self.sum, step);
        self.bytes += bytes.len() as u64;
    }

    /// The number of it all.
    pub fn number(self) -> u64 {
        self.sum
    }

    /// How it is written down.
    pub fn text(self) -> String {
        format!("{} bytes, {:016x}", self.bytes, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_bytes_however_they_are_cut() {
        let mut whole = Digest::default();
        whole.add(b"worker_processes 4;\n");
        let mut pieces = Digest::default();
        pieces.add(b"worker_");
        pieces.add(b"processes 4;\n");
        assert_eq!(whole.text(), pieces.text());
        let mut other = Digest::default();
        other.add(b"worker_processes 5;\n");
        assert_ne!(whole.text(), other.text());
        // The published value of FNV-1a 64 for "a".
        let mut a = Digest::default();
        a.add(b"a");
        assert_eq!(a.number(), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn what_has_no_digest_says_why() {
        assert_eq!(Contents::absent().trouble(), Some("it is not there"));
        assert_eq!(Contents::unreadable("no").trouble(), Some("no"));
        assert_eq!(Contents::File(Digest::default().text()).trouble(), None);
    }
}
