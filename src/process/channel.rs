//! One socket of protocol 1 between processes of a family: frames in, frames out, descriptors with them.
//!
//! It never waits. What there is no room for stays in a queue that its owner keeps short; what comes is handed
//! out as whole frames.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use bytes::Bytes;

use crate::message::{Decoder, EncodeError, Form, Frame, FrameError, MAX_FRAME, Mode, Read};
use crate::os::fds;

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other side has closed.
    End,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
    /// Descriptors that came and belong to frames that were not looked at.
    came: VecDeque<OwnedFd>,
    out: VecDeque<Piece>,
    out_bytes: usize,
}

/// Bytes to be sent, and the descriptors that go with the first of them.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    fds: Vec<OwnedFd>,
}

/// So many pieces go in one system call.
const GATHERED: usize = 32;

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let decoder = Decoder::new(Mode::Frame, MAX_FRAME);
        Self { socket, decoder, came: VecDeque::new(), out: VecDeque::new(), out_bytes: 0 }
    }

    /// Reads once into `buffer` and hands out the frames that are whole.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        mut frame: impl FnMut(Frame),
    ) -> Result<Came, FrameError> {
        let received = match fds::receive(self.socket.as_fd(), buffer) {
            Ok(None) => return Ok(Came::Nothing),
            Ok(Some(received)) => received,
            // Nothing more will come of a socket that cannot be read.
            Err(_) => return Ok(Came::End),
        };
        self.came.extend(received.fds);
        if received.bytes == 0 {
            return Ok(Came::End);
        }
        let mut each = |read| {
            // Strays are of the other form.
            if let Read::Frame(one) = read {
                frame(one);
            }
        };
        self.decoder.push(&buffer[..received.bytes], &mut each)?;
        Ok(Came::Bytes(received.bytes))
    }

    /// The descriptor that came with a frame; the frames ask in the order in which they came.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.came.pop_front()
    }

    /// How many bytes can be read now.
    pub(super) fn unread(&self) -> usize {
        fds::unread(self.socket.as_fd()).unwrap_or(0)
    }

    /// Puts a frame into the queue.
    pub(super) fn queue(&mut self, frame: &Frame, fds: Vec<OwnedFd>) -> Result<(), EncodeError> {
        let mut fds = fds;
        for bytes in frame.encode(&Form::new(Mode::Frame))?.into_pieces() {
            self.out_bytes += bytes.len();
            self.out.push_back(Piece { bytes, fds: std::mem::take(&mut fds) });
        }
        Ok(())
    }

    /// Sends what there is room for. When the other side is gone the queue is empty too: nobody is there to
    /// be told.
    pub(super) fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.send_once() {
                Ok(count) => self.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.out.clear();
                    self.out_bytes = 0;
                }
            }
        }
    }

    /// One call: the first piece with its descriptors, and those behind it up to the next that has any.
    fn send_once(&self) -> io::Result<usize> {
        let mut pieces = [IoSlice::new(&[]); GATHERED];
        let mut count = 0;
        for (piece, slot) in self.out.iter().zip(&mut pieces) {
            if count > 0 && !piece.fds.is_empty() {
                break;
            }
            *slot = IoSlice::new(&piece.bytes);
            count += 1;
        }
        let first = self.out.front().map_or(&[][..], |piece| &piece.fds);
        let numbers: Vec<RawFd> = first.iter().map(AsRawFd::as_raw_fd).collect();
        fds::send_some(self.socket.as_fd(), &pieces[..count], &numbers)
    }

    fn sent(&mut self, mut count: usize) {
        self.out_bytes -= count;
        while let Some(piece) = self.out.front_mut() {
            // They went with the first byte.
            piece.fds.clear();
            if count < piece.bytes.len() {
                piece.bytes = piece.bytes.slice(count..);
                return;
            }
            count -= piece.bytes.len();
            self.out.pop_front();
            if count == 0 {
                return;
            }
        }
    }

    /// Sends nothing more; the other side is told.
    pub(super) fn shut(&mut self) {
        self.out.clear();
        self.out_bytes = 0;
        let _ = fds::shut(self.socket.as_fd());
    }

    /// How many bytes wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.out_bytes
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Flags, Kind};

    fn all(channel: &mut Channel) -> Vec<Frame> {
        let (mut frames, mut buffer) = (Vec::new(), vec![0; 4096]);
        while let Came::Bytes(_) = channel.read(&mut buffer, |frame| frames.push(frame)).unwrap() {}
        frames
    }

    #[test]
    fn frames_and_their_descriptors_arrive_in_order_whatever_there_is_room_for() {
        let (here, there) = fds::stream_pair().unwrap();
        let (mut here, mut there) = (Channel::new(here), Channel::new(there));
        let large = vec![7; 600_000];
        for number in 0..20 {
            let frame = Frame::new(Kind::Data, number, large.clone());
            here.queue(&frame, Vec::new()).unwrap();
            let pipe = fds::pipe().unwrap();
            let frame = Frame::control(Kind::Peer, number, &()).with(Flags::FDS);
            here.queue(&frame, vec![pipe.read]).unwrap();
        }
        let mut came = Vec::new();
        while here.waiting() > 0 {
            here.flush();
            came.extend(all(&mut there));
        }
        came.extend(all(&mut there));
        let ids: Vec<u64> = came.iter().map(|frame| frame.id).collect();
        assert_eq!(ids, (0..20).flat_map(|id| [id, id]).collect::<Vec<_>>());
        assert!(
            came.iter().all(|frame| frame.kind == Kind::Peer || frame.payload[..] == large[..])
        );
        assert_eq!(std::iter::from_fn(|| there.descriptor()).count(), 20);
    }

    #[test]
    fn nothing_waits_for_somebody_who_is_gone() {
        let (here, there) = fds::stream_pair().unwrap();
        let mut here = Channel::new(here);
        drop(there);
        here.queue(&Frame::new(Kind::Data, 0, "x"), Vec::new()).unwrap();
        here.flush();
        assert_eq!(here.waiting(), 0);
        assert_eq!(here.read(&mut [0; 16], |_| ()).unwrap(), Came::End);
    }
}
