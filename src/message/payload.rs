//! The payloads of control frames, each as its JSON. Keys that are not known are ignored, so that a
//! later version may add some; what must not be ignored has a kind or a critical flag of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kind::Kind;
use super::{Frame, MAX_FRAME, PROTO};
use crate::exit::{Cause, Reason};

/// [`Kind::Hello`]: who is there and what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol: 1.
    pub proto: u32,
    /// What the sender is called.
    #[serde(default)]
    pub name: String,
    /// Its own version.
    #[serde(default)]
    pub version: String,
    /// How many calls it works on at once; more are not sent to it.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// The largest payload it takes, in bytes.
    #[serde(default = "max_frame")]
    pub max_frame: u64,
    /// What its opaque payloads are.
    #[serde(default)]
    pub enc: Payloads,
    /// What it can do beyond the least, or acts on: names of kinds and of extensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// How many data frames may be sent to it on each channel before it grants more; without it, as
    /// many as its input takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u32>,
    /// Who the receiver is, as the manager knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

fn one() -> u32 {
    1
}

fn max_frame() -> u64 {
    MAX_FRAME
}

impl Hello {
    /// A hello of this version with nothing beyond the least.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            proto: PROTO,
            name: name.to_owned(),
            version: version.to_owned(),
            concurrency: 1,
            max_frame: MAX_FRAME,
            enc: Payloads::default(),
            features: Vec::new(),
            credit: None,
            peer: None,
        }
    }
}

/// What opaque payloads are. In NDJSON it says how they are best written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payloads {
    /// Any bytes.
    #[default]
    Raw,
    /// UTF-8.
    Text,
    /// JSON texts.
    Json,
    /// MessagePack.
    Msgpack,
    /// CBOR.
    Cbor,
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its service and replica, `web/2`.
    pub name: String,
    /// Its run.
    pub incarnation: u64,
}

/// [`Kind::Ready`]: the program can be called, or never will.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ready {
    /// Why it never will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Of a run that a monitor with messages watches: which one began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// [`Kind::Error`]: why a call, or something else, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct Failure {
    /// A word for programs: `not_supported`, `bad_request`, or one of the program's own.
    pub code: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// More, as the code has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<Value>>,
    /// Whether the same may be tried again.
    #[serde(default)]
    pub retry: Retry,
}

impl Failure {
    /// Nothing was done because the receiver cannot act on this kind.
    pub fn not_supported(kind: Kind) -> Self {
        let message = format!("{kind} is not supported yet");
        Self { code: "not_supported".to_owned(), message, data: None, retry: Retry::Never }
    }
}

/// Whether what failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// Nothing was done.
    Safe,
    /// Something may have been done.
    #[default]
    Unsafe,
    /// It would fail again.
    Never,
}

/// [`Kind::Credit`]: the receiver of this may send more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// So many data frames more.
    #[serde(default)]
    pub frames: u32,
    /// Between native processes: so many bytes more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// [`Kind::Missed`]: what a slow receiver did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// So many data frames.
    pub frames: u64,
}

/// [`Kind::Drain`]: the end is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// How long the program may take until the next, harder step, in milliseconds.
    pub deadline_ms: u64,
}

/// [`Kind::Exit`]: why the program is about to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// In one word.
    pub reason: Ending,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where, of a panic: file and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What called what, of a panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// The result of a program that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// How a program says that it ends. The kernel's word on how it did end stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is done.
    Returned,
    /// It gives up.
    ReturnedError,
    /// It came upon a fault of its own.
    Panicked,
}

impl Ending {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::ReturnedError => "returned_error",
            Self::Panicked => "panicked",
        }
    }
}

/// Whom something is for, or about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// A service, or a replica of one: `web`, `web/2`.
    Name(String),
    /// One run of anything.
    Incarnation(u64),
}

/// [`Kind::Monitor`] and [`Kind::Link`]: what is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// What is watched.
    pub target: Address,
    /// Whether its messages are wanted too, as data frames on the channel with the monitor's id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub messages: bool,
    /// Whether it goes on with the runs that follow: each begins with [`Kind::Ready`] and ends with
    /// [`Kind::Down`], both with the monitor's id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

/// [`Kind::Down`]: what a monitor watched has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// What it watched.
    pub target: Address,
    /// The run that ended.
    pub incarnation: u64,
    /// Why.
    pub reason: Reason,
    /// Why, seen from the manager.
    pub cause: Cause,
    /// The story as one sentence.
    pub msg: String,
    /// Whether it had ended before the monitor was asked for.
    #[serde(default)]
    pub late: bool,
    /// Whether nothing better will ever be known.
    #[serde(default = "yes", rename = "final")]
    pub is_final: bool,
}

fn yes() -> bool {
    true
}

/// [`Kind::Peer`]: from a native process, that it wants a socket to another one; from its hub, with one end of it
/// attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The run at the other end.
    pub incarnation: u64,
}

/// [`Kind::Spawn`]: a program to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// The words to execute.
    pub command: Vec<String>,
    /// Added to its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Whether the sender wants a [`Kind::Down`] under the same id at its end.
    #[serde(default)]
    pub monitor: bool,
}

/// [`Kind::Log`]: a line for the program's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// How bad it is.
    #[serde(default)]
    pub level: Level,
    /// What happened.
    pub message: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of every logging library")]
pub enum Level {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// [`Kind::Metric`]: a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What kind of number it is.
    pub kind: MetricKind,
    /// The number; of a counter, what is added.
    pub value: f64,
    /// What it is about.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What kind of number a measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A control frame whose payload is not what its kind has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the payload of {kind}: {why}")]
pub struct BadPayload {
    /// The kind.
    pub kind: Kind,
    /// In the words of the parser.
    pub why: String,
}

impl Frame {
    /// A control frame with its payload.
    ///
    /// # Panics
    ///
    /// If `payload` is something that JSON cannot say, such as a map with keys that are no texts. The
    /// types of this module are not.
    pub fn control(kind: Kind, id: u64, payload: &impl Serialize) -> Self {
        let json = serde_json::to_vec(payload);
        Self::new(kind, id, json.expect("a payload has text keys and numbers that JSON knows"))
    }

    /// The payload of a control frame. An empty one is an object without keys.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, BadPayload> {
        let text: &[u8] = if self.payload.is_empty() { b"{}" } else { &self.payload };
        serde_json::from_slice(text)
            .map_err(|error| BadPayload { kind: self.kind, why: error.to_string() })
    }

    /// An answer to the call, or to the other thing, with this id.
    pub fn failure(id: u64, failure: &Failure) -> Self {
        Self::control(Kind::Error, id, failure)
    }

    /// A reply to the call with this id.
    pub fn reply(id: u64, payload: impl Into<Bytes>) -> Self {
        Self::new(Kind::Reply, id, payload)
    }
}
