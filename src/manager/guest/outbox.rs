//! What is on its way to one client: frames as bytes, written as far as its socket takes them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::message::Wire;
use crate::os::fds;

/// A piece up to this size is copied together with its neighbours, so that they are written at once.
const SMALL: usize = 4096;
/// How much is copied together before a new piece is begun.
const JOINED: usize = 64 << 10;
/// How many pieces one write takes.
const PIECES: usize = 64;

/// Frames on their way. Written out, it keeps at most the memory of one small piece.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whole pieces, the first one perhaps written in part.
    pieces: VecDeque<Bytes>,
    /// What small frames are added to; comes after `pieces`.
    open: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// How many bytes have not been written.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Puts a frame behind the others. A large payload is not copied.
    pub(super) fn push(&mut self, frame: Wire) {
        for piece in [frame.head, frame.body, frame.tail] {
            self.bytes += piece.len();
            if piece.len() <= SMALL {
                self.open.extend_from_slice(&piece);
            } else {
                self.close();
                self.pieces.push_back(piece);
            }
        }
        if self.open.len() >= JOINED {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(self.open.split().freeze());
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.bytes > 0 {
            let written = if self.pieces.is_empty() {
                fds::write(socket, &self.open)
            } else {
                let all = self.pieces.iter().map(|piece| &piece[..]).chain([&self.open[..]]);
                let slices: Vec<_> = all.take(PIECES).map(IoSlice::new).collect();
                fds::write_pieces(socket, &slices)
            };
            match written {
                Ok(count) => self.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wrote(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(first) = self.pieces.front_mut() else {
                self.open.advance(count);
                break;
            };
            let now = count.min(first.len());
            first.advance(now);
            count -= now;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.bytes == 0 {
            self.pieces = VecDeque::new();
            // Its memory comes back to its beginning, unless that is more than the usual.
            self.open.clear();
            if !self.open.try_reclaim(SMALL) || self.open.capacity() > 2 * SMALL {
                self.open = BytesMut::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Form;
    use crate::message::{Frame, Kind, Mode};
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_pushed_arrives_in_order_however_little_the_socket_takes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let form = Form::new(Mode::Frame);
        let (mut outbox, mut all) = (Outbox::default(), Vec::new());
        for (id, size) in
            [0, 3, 5_000, 10, 700_000, 1, 4_096, 4_097, 65_536, 2].into_iter().enumerate()
        {
            let payload = vec![b'x'; size];
            let id = u64::try_from(id).unwrap();
            let wire = Frame::new(Kind::Data, id, payload).encode(&form).unwrap();
            all.extend(wire.to_vec());
            outbox.push(wire);
        }
        assert_eq!(outbox.len(), all.len());
        let (mut heard, mut buffer) = (Vec::new(), vec![0; 100_000]);
        while heard.len() < all.len() {
            outbox.flush(ours.as_fd()).unwrap();
            let count = theirs.read(&mut buffer).unwrap();
            heard.extend_from_slice(&buffer[..count]);
        }
        assert!(heard == all);
        assert_eq!((outbox.len(), outbox.pieces.len()), (0, 0));
    }
}
