//! `raw`: whatever a read returned is a message, in pieces of at most `max_frame`. How the stream is
//! cut is chance, so this is for programs whose output is only shown or stored.

use bytes::Bytes;

use super::gather::{Step, memory};

pub(super) fn step(bytes: &[u8], max: u64) -> Step {
    let used = bytes.len().min(memory(max));
    Step::whole(used, Bytes::copy_from_slice(&bytes[..used]))
}
