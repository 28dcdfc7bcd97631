//! Requests of what a client of `wharf connect` says: a message each, or several packets where messages
//! have sections.
//!
//! Bounded: of packets that are more than the port takes in one request nothing is kept but that they were
//! there. A message that is a request by itself was bounded when it was read.

use bytes::{Bytes, BytesMut};

use super::failure::Failure;
use crate::correlation::Sections;
use crate::framing::Codec;
use crate::spec::{Port, Replies};

/// Makes requests of messages.
pub(super) struct Requests {
    sections: Option<Sections>,
    /// The largest request in packets, in bytes.
    largest: usize,
    /// How many sections of the present one are still to end.
    left: Option<u32>,
    /// The packets of the present one as they are on the wire.
    packets: BytesMut,
    is_too_large: bool,
}

/// A request.
pub(super) enum Asked {
    /// It.
    Whole(Bytes),
    /// Packets that are more than the port takes.
    TooLarge,
}

impl Requests {
    /// For the clients of a port; the manager takes frames of so many bytes.
    pub(super) fn of(port: &Port, most: u64) -> Result<Self, Failure> {
        let sections = match &port.replies {
            Replies::Sections { longer, .. } => Some(Sections::new(longer)),
            _ => None,
        };
        let sections = sections.transpose();
        let sections = sections.map_err(|error| Failure::Broken(format!("cannot {error}")))?;
        let largest = usize::try_from(port.max_frame.min(most)).unwrap_or(usize::MAX);
        let (left, packets) = (None, BytesMut::new());
        Ok(Self { sections, largest, left, packets, is_too_large: false })
    }

    /// The largest request in packets, in bytes.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Takes the next message of the client; gives the request that it completes.
    pub(super) fn take(&mut self, codec: &Codec, message: Bytes) -> Option<Asked> {
        let Some(sections) = &self.sections else {
            return Some(Asked::Whole(message));
        };
        let is_last = sections.ends(&message, &mut self.left);
        match codec.encode(message) {
            Ok(frame) if self.packets.len() + frame.len() <= self.largest => {
                for piece in frame.into_pieces() {
                    self.packets.extend_from_slice(&piece);
                }
            }
            Ok(_) | Err(_) => self.is_too_large = true,
        }
        if self.is_too_large {
            self.packets = BytesMut::new();
        }
        if !is_last {
            return None;
        }
        let request = std::mem::take(&mut self.packets).freeze();
        let is_too_large = std::mem::take(&mut self.is_too_large);
        Some(if is_too_large { Asked::TooLarge } else { Asked::Whole(request) })
    }

    /// Whether a request has begun and has not ended.
    pub(super) fn is_within(&self) -> bool {
        self.left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Framing, Longer};

    #[test]
    fn packets_make_a_request_and_a_large_one_is_not_kept() {
        let longer = vec![Longer { first: "^command=".to_owned(), count: 2 }];
        let port = Port {
            framing: Framing::PktLine,
            replies: Replies::Sections { longer, error: None },
            max_frame: 40,
            ..Port::default()
        };
        let codec = Codec::new(&port.framing, port.max_frame).unwrap();
        let mut requests = Requests::of(&port, 1 << 20).unwrap();
        let mut take = |packet: &'static str| match requests.take(&codec, packet.into()) {
            None => String::new(),
            Some(Asked::Whole(request)) => String::from_utf8(request.to_vec()).unwrap(),
            Some(Asked::TooLarge) => "too large".to_owned(),
        };
        assert_eq!([take("version=2\n"), take("0000")], ["", "000eversion=2\n0000"]);
        let whole = [take("command=x\n"), take("0000"), take("00080000"), take("0000")];
        assert_eq!(whole, ["", "", "", "000ecommand=x\n0000000800000000"]);
        let large = [take("command=x\n"), take("0000"), take("0123456789abcdef"), take("0000")];
        assert_eq!(large, ["", "", "", "too large"]);
        assert_eq!([take("x"), take("0000")], ["", "0005x0000"], "the next one is taken");
        assert!(!requests.is_within());
    }
}
