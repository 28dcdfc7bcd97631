//! Addresses of mailboxes, as values: they can be compared, printed, written down and sent in messages.
//!
//! Nothing here knows whether anybody is there. An address never reaches a stranger: it names one run, and
//! no number is given twice within a realm.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Incarnation, Realm};

/// Where a message can be sent.
///
/// As text, and in text formats such as JSON: `00abcdef01234567/0/9`, which is realm, node and
/// incarnation; then `/2` for a mailbox that is not the first, and `#7` for a reply slot. In binary formats such as
/// MessagePack it is a list of five numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Who counts the incarnations.
    pub realm: Realm,
    /// The node, where there are several; 0 is the node that the realm began on.
    pub node: u64,
    /// The run.
    pub incarnation: Incarnation,
    /// Which of its mailboxes; 0 is the one that every native process has.
    pub mailbox: u64,
    /// A slot for one reply; 0 is none.
    pub reference: u64,
}

impl Address {
    /// The address of the first mailbox of a run.
    pub fn new(realm: Realm, incarnation: Incarnation) -> Self {
        Self { realm, node: 0, incarnation, mailbox: 0, reference: 0 }
    }

    /// The same run's slot for one reply.
    #[must_use]
    pub fn slot(self, reference: u64) -> Self {
        Self { reference, ..self }
    }

    /// The same without a slot: the process itself.
    #[must_use]
    pub fn process(self) -> Self {
        Self { reference: 0, ..self }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.realm, self.node, self.incarnation)?;
        if self.mailbox != 0 {
            write!(f, "/{}", self.mailbox)?;
        }
        if self.reference != 0 {
            write!(f, "#{}", self.reference)?;
        }
        Ok(())
    }
}

/// A text that is no [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the address {0:?}: it is no REALM/NODE/INCARNATION, such as 00abcdef01234567/0/9")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        read(text).ok_or_else(|| AddressError(text.chars().take(80).collect()))
    }
}

fn read(text: &str) -> Option<Address> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (text, reference) = match text.split_once('#') {
        Some((text, reference)) => (text, number(reference).filter(|slot| *slot != 0)?),
        None => (text, 0),
    };
    let mut parts = text.split('/');
    let realm = parts.next().filter(|realm| realm.len() == 16)?;
    let realm =
        realm.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| realm.parse().ok())??;
    let node = number(parts.next()?)?;
    let incarnation = Incarnation(number(parts.next()?)?);
    let mailbox = parts.next().map_or(Some(0), number)?;
    parts.next().is_none().then_some(Address { realm, node, incarnation, mailbox, reference })
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            return s.collect_str(self);
        }
        let numbers = (self.realm.0, self.node, self.incarnation.0, self.mailbox, self.reference);
        numbers.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            return String::deserialize(d)?.parse().map_err(serde::de::Error::custom);
        }
        let (realm, node, incarnation, mailbox, reference) = Deserialize::deserialize(d)?;
        let (realm, incarnation) = (Realm(realm), Incarnation(incarnation));
        Ok(Self { realm, node, incarnation, mailbox, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Address> {
        let plain = Address::new(Realm(0x00ab_cdef_0123_4567), Incarnation(9));
        vec![
            plain,
            plain.slot(7),
            Address { mailbox: 2, ..plain.slot(1) },
            Address { node: 3, ..plain },
        ]
    }

    #[test]
    fn an_address_survives_its_text_and_both_kinds_of_formats() {
        assert_eq!(some()[0].to_string(), "00abcdef01234567/0/9");
        assert_eq!(some()[2].to_string(), "00abcdef01234567/0/9/2#1");
        for address in some() {
            assert_eq!(address.to_string().parse(), Ok(address));
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
            let packed = rmp_serde::to_vec(&address).unwrap();
            assert_eq!(rmp_serde::from_slice::<Address>(&packed).unwrap(), address);
            assert!(packed.len() <= 32, "{}", packed.len());
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "9",
            "00abcdef01234567/0",
            "00abcdef01234567/0/9#0",
            "00abcdef01234567/0/9#",
            "00abcdef01234567/0/+9",
            "abc/0/9",
            "00abcdef01234567/0/9/1/2",
            "+0abcdef01234567/0/9",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
