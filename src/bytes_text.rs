//! Bytes as base64 text (RFC 4648), for JSON that has to carry them without loss.
//!
//! For saved state, records and samples of what a program said; never for messages.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes bytes as text.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads what [`encode`] wrote; `None` when the text is not base64.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// For `#[serde(with = "bytes_text")]`.
pub fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&encode(bytes.as_ref()))
}

/// For `#[serde(with = "bytes_text")]`.
pub fn deserialize<'de, T: From<Vec<u8>>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    let text = String::deserialize(d)?;
    decode(&text).map(T::from).ok_or_else(|| serde::de::Error::custom("the text is not base64"))
}

/// The beginning of an offending message: at most [`Sample::MOST`] bytes, fewer where no more had
/// been read when the fault was seen.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sample(#[serde(with = "self")] pub Vec<u8>);

impl Sample {
    /// The most bytes a sample holds.
    pub const MOST: usize = 64;

    /// The beginning of `first` followed by `then`.
    pub fn of(first: &[u8], then: &[u8]) -> Self {
        Self(first.iter().chain(then).take(Self::MOST).copied().collect())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// For `#[serde(with = "bytes_text::list")]`: a list of byte strings.
pub mod list {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a list of texts.
    pub fn serialize<S: Serializer>(list: &[Bytes], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().map(|bytes| super::encode(bytes)))
    }

    /// Reads a list of texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Bytes>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        let read = |text: &String| super::decode(text).map(Bytes::from);
        texts
            .iter()
            .map(|text| read(text).ok_or_else(|| serde::de::Error::custom("not base64")))
            .collect()
    }
}
