//! Why a run ended: the kernel's word, our reason, the cause, and the record that holds them all.
//!
//! Pure values. Looking at processes is the business of `os`; deciding what follows is `supervise`'s.

mod cause;
mod errno;
mod how;
mod reason;
mod record;
mod sentence;
mod signal;

pub use cause::Cause;
pub use errno::Errno;
pub use how::{How, Stage};
pub use reason::Reason;
#[cfg(feature = "daemon")]
pub use record::record_schema;
pub use record::{
    Certainty, CreationPart, Decision, EventPart, ExecutablePart, ExitCodePart, ExitPart,
    ExitRecord, HostPart, ManagerPart, OomPart, PortPart, ProcessPart, RestartPart, SCHEMA,
    ServicePart, StopPart, StopStep, Tail, Usage,
};
pub use sentence::sentence;
pub use signal::{Signal, SignalError, as_name as signal_name};
