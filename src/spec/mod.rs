//! services.yaml: as written, then as meant. All mistakes are found at once, each with its place.

mod meant;

pub use meant::{
    Cgroups, Eof, Framing, KillScope, Limits, Logging, OnGiveUp, OnProtocolError, PacketWidth,
    Policy, Port, Replies, Restart, START_TIMEOUT, Service, SignalName, Spec, Stop, WhenFull,
};
