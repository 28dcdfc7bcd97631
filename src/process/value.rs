//! Values as bytes, and how a type is told apart from others: what a message is before and after its way.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use crate::mailbox::Exit;

/// A value as MessagePack, with the names of fields, so that other languages can read it.
pub(super) fn pack<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    rmp_serde::to_vec_named(value).map_err(|error| Error::Encode(error.to_string()))
}

/// Reads what [`pack`] wrote, or any other writer of MessagePack.
pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(bytes).map_err(|error| Error::Decode {
        wanted: std::any::type_name::<T>(),
        why: error.to_string(),
    })
}

/// The number by which messages of a type are told apart: below 2^53, never 0.
///
/// It is a hash of the type's name, so it is the same in every process of the program, and whatever is read as
/// a `String` may be sent as a `str`, likewise slices and references.
pub(super) fn tag<T: ?Sized>() -> u64 {
    tag_of(std::any::type_name::<T>())
}

fn tag_of(name: &str) -> u64 {
    let name = name.trim_start_matches('&');
    let hash = |seed, text: &str| {
        text.bytes()
            .fold(seed, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let seed = 0xcbf2_9ce4_8422_2325;
    let whole = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if !inner.contains(';') => {
            hash(hash(hash(seed, "alloc::vec::Vec<"), inner), ">")
        }
        _ if name == "str" => hash(seed, "alloc::string::String"),
        _ => hash(seed, name),
    };
    (whole >> 11).max(1)
}

impl Exit {
    /// What the process returned, where it did.
    ///
    /// `None` where there is no value, because it ended in another way; an error where the value is no `T`.
    pub fn returned<T: DeserializeOwned>(&self) -> Option<Result<T, Error>> {
        self.value.as_ref().map(|packed| unpack(&packed.0))
    }
}

/// What a function of a process returns: nothing, a value, or a value or an error.
///
/// A value of a type of one's own is returned as `Ok(value)`; numbers, texts, lists, maps and pairs can be
/// returned as they are.
pub trait Outcome {
    /// The value as MessagePack, or the error with all that led to it as one line.
    fn outcome(self) -> Result<Vec<u8>, String>;
}

fn returned<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    pack(value).map_err(|error| format!("cannot {error}"))
}

impl<T: Serialize, E: Into<Box<dyn std::error::Error>>> Outcome for Result<T, E> {
    fn outcome(self) -> Result<Vec<u8>, String> {
        match self {
            Ok(value) => returned(&value),
            Err(error) => Err(chain(&*error.into())),
        }
    }
}

/// An error and its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

macro_rules! outcomes {
    ($([$($generic:ident),*] $type:ty;)*) => {$(
        impl<$($generic: Serialize),*> Outcome for $type {
            fn outcome(self) -> Result<Vec<u8>, String> {
                returned(&self)
            }
        }
    )*};
}

outcomes! {
    [] (); [] bool; [] char; [] String; [] &str;
    [] u8; [] u16; [] u32; [] u64; [] u128; [] usize;
    [] i8; [] i16; [] i32; [] i64; [] i128; [] isize;
    [] f32; [] f64; [] serde_json::Value; [] crate::name::Address;
    [T] Vec<T>; [T] Option<T>; [T] Box<T>;
    [A, B] (A, B); [A, B, C] (A, B, C); [A, B, C, D] (A, B, C, D);
    [K, V] std::collections::BTreeMap<K, V>; [K, V] std::collections::HashMap<K, V>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_can_be_read_as_one_another_has_one_tag() {
        assert_eq!(tag::<str>(), tag::<String>());
        assert_eq!(tag::<&&str>(), tag::<String>());
        assert_eq!(tag::<[u8]>(), tag::<Vec<u8>>());
        assert_ne!(tag::<[u8; 3]>(), tag::<Vec<u8>>());
        assert_ne!(tag::<u8>(), tag::<u16>());
        assert!(tag::<u8>() < 1 << 53);
    }

    #[test]
    fn an_error_is_told_with_all_that_led_to_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot print")]
        struct Printer(#[source] io::Error);
        let failed: Result<u8, Printer> = Err(Printer(io::Error::other("no more paper")));
        assert_eq!(failed.outcome(), Err("cannot print: no more paper".to_owned()));
        assert_eq!(Err::<(), _>("just so").outcome(), Err("just so".to_owned()));
        assert_eq!(unpack::<(u8, String)>(&(7, "x".to_owned()).outcome().unwrap()).unwrap().0, 7);
    }
}
