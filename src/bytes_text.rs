//! Bytes as base64 text (RFC 4648), for JSON that has to carry them without loss.
//!
//! For saved state and records; never for what a program is sent or says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serializer};

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
