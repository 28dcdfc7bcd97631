//! Signals as values with names. Numbers are those of Linux on x86-64 and arm64 (`signal(7)`).

use std::fmt;
use std::str::FromStr;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A signal, 1 to 64; in JSON `{"number": 15, "name": "SIGTERM"}`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

/// Why a text or a number is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The number is not within 1..=64.
    #[error("signals have the numbers 1 to 64, not {0}")]
    Number(i64),
    /// No signal has that name.
    #[error("there is no signal named {0:?} (written like SIGTERM, HUP or SIGRTMIN+3)")]
    Name(String),
}

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal a program may use; glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const MAX: i32 = 64;

impl Signal {
    /// Hang-up: the terminal went away, or "read your configuration again".
    pub const HUP: Self = Self(1);
    /// Interrupt, as by Ctrl-C.
    pub const INT: Self = Self(2);
    /// Abort: the program gave itself up.
    pub const ABRT: Self = Self(6);
    /// Kill: cannot be caught.
    pub const KILL: Self = Self(9);
    /// Broken pipe: written to where nobody reads.
    pub const PIPE: Self = Self(13);
    /// Terminate: the usual request to end.
    pub const TERM: Self = Self(15);
    /// Stop: cannot be caught.
    pub const STOP: Self = Self(19);
    /// Continue when stopped.
    pub const CONT: Self = Self(18);
    /// CPU time limit exceeded.
    pub const XCPU: Self = Self(24);
    /// File size limit exceeded.
    pub const XFSZ: Self = Self(25);

    /// The signal with this number, 1 to 64.
    pub fn new(number: i32) -> Result<Self, SignalError> {
        if (1..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(SignalError::Number(number.into()))
        }
    }

    /// The number, 1 to 64.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0 - 1).unwrap_or(usize::MAX);
        match NAMES.get(index) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let unknown = || SignalError::Name(text.to_owned());
        if let Ok(number) = text.parse::<i64>() {
            let number = i32::try_from(number).map_err(|_| SignalError::Number(number))?;
            return Self::new(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return i32::try_from(at + 1).map(Self).map_err(|_| unknown());
        }
        let offset = |text: &str| -> Option<i32> {
            if text.is_empty() { Some(0) } else { text.strip_prefix(['+', '-'])?.parse().ok() }
        };
        let number = match name {
            "IOT" => 6,
            "POLL" => 29,
            "CLD" => 17,
            _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
                (Some(plus), _) => RTMIN + offset(plus).ok_or_else(unknown)?,
                (_, Some(minus)) => MAX - offset(minus).ok_or_else(unknown)?,
                _ => return Err(unknown()),
            },
        };
        if number == 6 || number == 29 || number == 17 || number >= RTMIN {
            Self::new(number).map_err(|_| unknown())
        } else {
            Err(unknown())
        }
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut s = s.serialize_struct("Signal", 2)?;
        s.serialize_field("number", &self.0)?;
        s.serialize_field("name", &self.to_string())?;
        s.end()
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            number: i32,
        }
        let written = Written::deserialize(d)?;
        Self::new(written.number).map_err(serde::de::Error::custom)
    }
}

/// A signal that is written as its name alone (`SIGTERM`) in files.
pub mod as_name {
    use super::{Deserialize, Deserializer, Serializer, Signal};

    /// Writes `SIGTERM`.
    pub fn serialize<S: Serializer>(signal: &Signal, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(signal)
    }

    /// Reads `SIGTERM`, `TERM` or `15`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Signal, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_survives_its_name() {
        for number in 1..=64 {
            let signal = Signal::new(number).unwrap();
            if number == 32 || number == 33 {
                continue; // glibc's own: they have a number but no name anybody could write
            }
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(number.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        for (text, number) in [
            ("term", 15),
            ("SIGKILL", 9),
            ("9", 9),
            ("rtmin+3", 37),
            ("SIGRTMAX-1", 63),
            ("IOT", 6),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "65", "-9", "SIGFOO", "RTMIN+99", "RTMAX-60", "SIG"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?}");
        }
    }
}
