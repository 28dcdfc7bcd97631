//! The kinds of frames and the flags they bear: the numbers of the binary form and the words of NDJSON.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $word:literal, $class:ident;)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number in the header.
            pub fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// Its word in NDJSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What its payload is.
            pub fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// The kind with this number.
            pub fn of_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The kind with this word.
            pub fn of_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A message that nobody answers; its id is a channel, 0 where there is but one.
    Data = 0x00, "data", Opaque;
    /// A request that is answered by [`Kind::Reply`] or [`Kind::Error`] with the same id.
    Call = 0x01, "call", Opaque;
    /// The answer to a call, or a part of it.
    Reply = 0x02, "reply", Opaque;
    /// The call with this id failed; with id 0, something else did.
    Error = 0x03, "error", Json;
    /// Nobody waits for the answer to the call with this id any more.
    Cancel = 0x04, "cancel", Empty;
    /// So many more [`Kind::Data`] frames may be sent on the channel that the id names.
    Credit = 0x05, "credit", Json;
    /// So many frames were not sent on the channel that the id names, for want of credit or room.
    Missed = 0x06, "missed", Json;
    /// The first frame in each direction: who is there and what it can do.
    Hello = 0x10, "hello", Json;
    /// The program can be called, or never will.
    Ready = 0x11, "ready", Json;
    /// Asks for a [`Kind::Pong`] with the same id.
    Ping = 0x12, "ping", Empty;
    /// Answers a [`Kind::Ping`].
    Pong = 0x13, "pong", Empty;
    /// No more calls will come: finish, say [`Kind::Exit`], end.
    Drain = 0x14, "drain", Json;
    /// Why the program is about to end; its last frame.
    Exit = 0x15, "exit", Json;
    /// A message for somebody else than the peer.
    Send = 0x20, "send", Opaque;
    /// Asks to be told when something ends, with [`Kind::Down`] under the same id.
    Monitor = 0x21, "monitor", Json;
    /// Takes back the monitor with this id.
    Demonitor = 0x22, "demonitor", Empty;
    /// What the monitor with this id watched has ended.
    Down = 0x23, "down", Json;
    /// Binds its own life to another's.
    Link = 0x24, "link", Json;
    /// Takes back the link with this id.
    Unlink = 0x25, "unlink", Empty;
    /// Asks for a program to be started.
    Spawn = 0x26, "spawn", Json;
    /// Asks for a socket to a process of the same family, or brings one end of it.
    Peer = 0x27, "peer", Json;
    /// A line for the program's log.
    Log = 0x30, "log", Json;
    /// A measurement.
    Metric = 0x31, "metric", Json;
}

impl fmt::Display for Kind {
    /// In capitals, as in the specification.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str().to_ascii_uppercase())
    }
}

/// What the payload of a kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Any bytes: they belong to those who talk, not to the protocol.
    Opaque,
    /// A JSON object with a type in this module.
    Json,
    /// Nothing.
    Empty,
}

/// From this number on, kinds that are not known are ignored; below, they are errors.
pub(super) const EXTENSIONS: u8 = 0x80;

/// The same in NDJSON: what a kind begins with that may be ignored.
pub(super) const EXTENSION: &str = "x-";

/// What modifies a frame, as the bits of the header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(u8);

impl Flags {
    /// Another part of the same reply follows. On [`Kind::Reply`] only.
    pub const MORE: Self = Self(0x01);
    /// Descriptors are attached. On [`Kind::Peer`] only, between native processes and their hub.
    pub const FDS: Self = Self(0x02);
    /// A trace context stands before the payload.
    pub const TRACE: Self = Self(0x04);
    /// The call wants no answer. On [`Kind::Call`] only.
    pub const NOREPLY: Self = Self(0x08);
    /// An address stands before the payload (after the trace context).
    pub const TO: Self = Self(0x10);
    /// Refuse the frame rather than ignore a flag that is not known.
    pub const CRITICAL: Self = Self(0x80);

    /// The bits that version 1 gives a meaning.
    const KNOWN: u8 = 0x9f;

    /// The flags with these bits.
    pub fn of_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `flags` are set.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These and `flags`.
    #[must_use]
    pub fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// These without `flags`.
    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    /// The bits that mean nothing yet.
    pub fn unknown(self) -> u8 {
        self.0 & !Self::KNOWN
    }

    /// Those that say something of their own: neither unknown, nor about what stands before the payload.
    pub(super) fn meant(self) -> Self {
        Self(self.0 & (Self::MORE.0 | Self::NOREPLY.0 | Self::FDS.0))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// What is wrong with the flags of a frame of this kind, in words that can follow "the frame".
pub(super) fn misflagged(kind: Kind, flags: Flags) -> Option<String> {
    if flags.has(Flags::CRITICAL) && flags.unknown() != 0 {
        return Some(format!(
            "has the critical flags {:#04x}, which are not known",
            flags.unknown()
        ));
    }
    if flags.has(Flags::FDS) && kind != Kind::Peer {
        return Some("announces descriptors, which this channel cannot carry".to_owned());
    }
    let only = [
        (Flags::MORE, "more", kind == Kind::Reply),
        (Flags::NOREPLY, "noreply", kind == Kind::Call),
        (Flags::TO, "to", matches!(kind, Kind::Data | Kind::Call | Kind::Send)),
    ];
    let wrong = only.iter().find(|(flag, _, fits)| flags.has(*flag) && !fits);
    if let Some((_, word, _)) = wrong {
        return Some(format!("is of the kind {kind}, which cannot have the flag `{word}`"));
    }
    (kind == Kind::Send && !flags.has(Flags::TO))
        .then(|| "is of the kind SEND and says not to whom".to_owned())
}
