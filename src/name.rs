//! Names and numbers that say which thing is meant: services, replicas, incarnations, realms.
//!
//! Values only: nothing here looks at a process. A pid is never an identity; an [`Incarnation`] is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod address;

pub use address::{Address, AddressError};

/// The longest service name, in bytes: it must fit a file name beside its suffixes.
pub const MAX_NAME: usize = 64;

/// The name of a service: one to 64 of `a-z A-Z 0-9 _ -` and `.`, beginning with a letter or digit.
///
/// It appears in file names, metric labels and URLs, hence the small alphabet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// Why a text cannot be a [`ServiceName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty or longer than [`MAX_NAME`].
    #[error("a name has 1 to {MAX_NAME} characters, this one has {0}")]
    Length(usize),
    /// A character outside the alphabet, or a first character that is no letter or digit.
    #[error(
        "a name is made of letters, digits, `_`, `-` and `.`, beginning with a letter or digit; found {0:?}"
    )]
    Character(char),
}

impl ServiceName {
    /// Checks `text` and makes a name of it.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(NameError::Length(text.chars().count()));
        }
        for (at, c) in text.chars().enumerate() {
            let inside = c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '_' | '-' | '.'));
            if !inside {
                return Err(NameError::Character(c));
            }
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for ServiceName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// One replica of a service, written `web/2`. Replicas are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The service.
    pub service: ServiceName,
    /// The number of the replica, from 1.
    pub replica: u32,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.replica)
    }
}

/// What a user typed where a service is meant: `web` (all replicas) or `web/2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// One replica, or all of them.
    pub replica: Option<u32>,
}

impl FromStr for Target {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None => Ok(Self { service: ServiceName::new(text)?, replica: None }),
            Some((service, number)) => match number.parse() {
                Ok(replica) if replica > 0 => {
                    Ok(Self { service: ServiceName::new(service)?, replica: Some(replica) })
                }
                _ => Err(NameError::Character('/')),
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replica {
            Some(replica) => write!(f, "{}/{replica}", self.service),
            None => write!(f, "{}", self.service),
        }
    }
}

/// One run of anything. The number only grows within a state directory and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The manager's own lives within a state directory, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Generation(pub u64);

/// A random number made with the state directory, so that an address from before it was wiped
/// reaches nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Realm(pub u64);

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(feature = "daemon")]
impl schemars::JsonSchema for Realm {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Realm".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{16}$" })
    }
}

impl FromStr for Realm {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Realm {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Realm {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who asked for something: the peer of the control socket or the sender of a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct Requester {
    /// The user's number, as the kernel vouches for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// The process's number at the time of asking; it may be gone by now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<i32>,
    /// In words: `wharf stop`, `SIGTERM`, `Ctrl-C`, `guardian`.
    pub who: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_small_alphabet() {
        let longest = "x".repeat(MAX_NAME);
        for good in ["a", "web", "web-2.x_y", "7z", &longest] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-web", ".web", "we b", "web/1", "wéb", "a\n", &"x".repeat(MAX_NAME + 1)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_target_is_a_service_or_one_replica() {
        assert_eq!("web".parse::<Target>().unwrap().replica, None);
        assert_eq!("web/3".parse::<Target>().unwrap().to_string(), "web/3");
        for bad in ["web/0", "web/x", "/1", "web/1/2", "web/-1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_realm_survives_its_text() {
        let realm = Realm(0x00ab_cdef_0123_4567);
        assert_eq!(realm.to_string().parse(), Ok(realm));
    }
}
