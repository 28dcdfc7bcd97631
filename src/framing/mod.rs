//! Bytes to messages and messages to bytes, one file a framing.
//!
//! A [`Codec`] is the compiled rule and is shared by every port of a service; a [`Decoder`] is where
//! one stream stands, small, and serialisable so that an upgrade can carry it over. Bytes come in as
//! arguments; nothing here reads, waits or looks at the clock.
//!
//! Three promises hold for every framing. The messages do not depend on how the stream was cut into
//! reads (except `raw`, where they are the reads). Each byte is looked at once, however small the
//! pieces are. Memory grows with what was received, never with what a length announces: the length
//! is checked against `max_frame` before anything is allocated.

mod codec;
mod content_length;
mod counted;
mod decoder;
mod envelope;
mod eof;
mod error;
mod gather;
mod json;
mod lines;
mod msgpack;
mod netstring;
mod nul;
mod packet;
mod pkt_line;
mod prompt;
mod raw;
mod stanza;

#[cfg(test)]
mod tests;

pub use codec::{Codec, Frame};
pub use decoder::{Decoder, Message, Said};
pub use error::{BadRule, EncodeError, Fault, FramingError, Part, Sample};
pub use gather::Stray;
