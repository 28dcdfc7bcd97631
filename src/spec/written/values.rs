//! The values that are written as one word: durations, sizes, signals, names, expressions.
//!
//! Each says its `format` in the schema; `format` in the folder above knows how each is checked.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::exit::{Reason, Signal, signal_name};
use crate::time::{duration_text, parse_size};

/// Gives a type its inline schema.
macro_rules! schema {
    ($name:ident, $($schema:tt)+) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($schema)+)
            }
        }
    };
}

/// Any scalar, taken as the text that was written: `5` and `yes` are words too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Word(pub String);
schema!(Word, { "type": ["string", "number", "boolean"] });

/// A length of time with its unit: `10s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Length(#[serde(with = "duration_text")] pub Duration);
schema!(Length, {
    "type": "string",
    "format": "wharf-duration",
    "pattern": r"^(0|(\d+(\.\d+)?(us|ms|s|m|h|d))+)$",
    "examples": ["500ms", "10s", "1h30m"]
});

/// A number of bytes, with or without a unit: `10MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);
schema!(Size, {
    "type": ["string", "integer"],
    "format": "wharf-size",
    "examples": ["64KiB", "10MiB", "1GB", 4096]
});

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        parse_size(&String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A number of bytes, or `unlimited`, which the kernel writes as the largest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreSize(pub u64);
schema!(CoreSize, {
    "type": ["string", "integer"],
    "format": "wharf-size-or-unlimited",
    "examples": [0, "100MiB", "unlimited"]
});

impl<'de> Deserialize<'de> for CoreSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "unlimited" => Ok(Self(u64::MAX)),
            text => parse_size(text).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// A signal by name or number: `SIGTERM`, `HUP`, `15`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SignalText(#[serde(with = "signal_name")] pub Signal);
schema!(SignalText, {
    "type": ["string", "integer"],
    "format": "wharf-signal",
    "examples": ["SIGTERM", "SIGINT", "SIGRTMIN+3"]
});

/// A regular expression in the syntax of the Rust package `regex`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Pattern(pub String);
schema!(Pattern, { "type": "string", "format": "wharf-regex" });

/// A user by name or number, optionally with a group: `app`, `1000:1000`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct User(pub String);
schema!(User, { "type": ["string", "integer"], "format": "wharf-user" });

/// The name of something: up to 64 letters, digits, `_`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct NameText(pub String);
schema!(NameText, { "type": "string", "format": "wharf-name" });

/// `NAME=value`, or `NAME` alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct EnvEntry(pub String);
schema!(EnvEntry, { "type": "string", "format": "wharf-env-entry" });

/// A file mode in octal digits: `"022"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Octal(pub String);
schema!(Octal, { "type": ["string", "integer"], "format": "wharf-octal" });

/// A time pattern of five fields: minute, hour, day of month, month, day of week.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Cron(pub String);
schema!(Cron, { "type": "string", "format": "wharf-cron", "examples": ["0 3 * * *"] });

/// The absolute path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SocketPath(pub String);
schema!(SocketPath, {
    "type": "string",
    "format": "wharf-socket",
    "pattern": "^/",
    "examples": ["/dev/log"]
});

/// An address that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct UrlText(pub String);
schema!(UrlText, {
    "type": "string",
    "format": "wharf-url",
    "examples": ["http://127.0.0.1:8080/healthz", "http://unix:/run/app.sock:/healthz"]
});

/// Where something listens: `localhost:5432` or `unix:/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct EndpointText(pub String);
schema!(EndpointText, {
    "type": "string",
    "format": "wharf-endpoint",
    "examples": ["localhost:5432", "unix:/run/app.sock"]
});

/// Why a run ended, as one of the words of an exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ReasonWord(pub Reason);
schema!(ReasonWord, {
    "type": "string",
    "enum": Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>()
});
