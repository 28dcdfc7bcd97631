//! Our end of a program's input: a pipe, one direction of a socket, or what is typed at a terminal.
//!
//! They differ in how a write is made, in how the input is ended while the output goes on, and in what
//! can be learnt about bytes that were never read. Everything else is the owner's business: nothing
//! here waits, and nothing is retried.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::sockopt::SocketError;
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, sendmsg, shutdown};

use super::io as to_io;
use super::terminal::{self, Keys};

/// Our end of a program's input; in non-blocking mode.
#[derive(Debug)]
pub struct Input {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Pipe,
    Socket {
        /// Whether the program closed it and left something unread: the kernel tells that once.
        cut: bool,
    },
    Terminal {
        /// Keys that found no room yet, beginning with the first that is still to be typed.
        waiting: Vec<u8>,
        /// Whether the last key is the end of the input.
        ended: bool,
    },
}

/// As many bytes are typed at once; with everything quoted that is half of what a terminal takes.
const BLOCK: usize = 1024;

impl Input {
    /// The writing end of a pipe.
    pub fn pipe(fd: OwnedFd) -> Self {
        Self { fd, kind: Kind::Pipe }
    }

    /// A socket that the program reads from. Another descriptor of it may be read from.
    pub fn socket(fd: OwnedFd) -> Self {
        Self { fd, kind: Kind::Socket { cut: false } }
    }

    /// Our end of a terminal. Another descriptor of it may be read from.
    pub fn terminal(fd: OwnedFd) -> Self {
        Self { fd, kind: Kind::Terminal { waiting: Vec::new(), ended: false } }
    }

    /// Writes what there is room for and tells how much that was. At a terminal a little more may be
    /// held back, which [`Input::flush`] writes. `WouldBlock`: no room.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Pipe => super::fds::write_pieces(self.fd.as_fd(), pieces),
            Kind::Socket { cut } => {
                let flags = MsgFlags::MSG_NOSIGNAL;
                let sent = sendmsg::<()>(self.fd.as_raw_fd(), pieces, &[], flags, None);
                *cut |= sent == Err(nix::errno::Errno::ECONNRESET);
                sent.map_err(to_io)
            }
            Kind::Terminal { .. } => {
                self.flush()?;
                let mut block = Vec::with_capacity(BLOCK);
                for piece in pieces {
                    let room = BLOCK - block.len();
                    block.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                let keys = Keys::of(self.fd.as_fd())?;
                if let Kind::Terminal { waiting, .. } = &mut self.kind {
                    keys.typed(&block, waiting);
                }
                match self.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    Ok(()) | Err(_) => Ok(block.len()),
                }
            }
        }
    }

    /// Writes what was held back. `WouldBlock`: some of it still is.
    pub fn flush(&mut self) -> io::Result<()> {
        let Kind::Terminal { waiting, .. } = &mut self.kind else { return Ok(()) };
        while !waiting.is_empty() {
            match super::fds::write(self.fd.as_fd(), waiting) {
                // A terminal says that it has no room by taking nothing.
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(count) => drop(waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        *waiting = Vec::new();
        Ok(())
    }

    /// Ends the input; the output goes on. A pipe is to be dropped after that. `WouldBlock`: not yet,
    /// there must be room first. A program that turned the end of input off at its terminal hears
    /// nothing of it.
    pub fn end(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Pipe => return Ok(()),
            Kind::Socket { .. } => {
                return shutdown(self.fd.as_raw_fd(), Shutdown::Write).map_err(to_io);
            }
            Kind::Terminal { waiting, ended } => {
                if !*ended {
                    waiting.extend(Keys::of(self.fd.as_fd())?.end());
                    *ended = true;
                }
            }
        }
        self.flush()
    }

    /// The other descriptor of the same socket was read and told this error.
    pub fn heard(&mut self, error: &io::Error) {
        if let Kind::Socket { cut } = &mut self.kind {
            *cut |= error.kind() == io::ErrorKind::ConnectionReset;
        }
    }

    /// How many bytes were written and have not been read; of a socket nobody can say while the program
    /// has it, and once that is closed only whether it was none: `None` is "some".
    pub fn unread(&self) -> Option<u64> {
        let count = match &self.kind {
            Kind::Pipe => super::fds::unread(self.fd.as_fd()),
            Kind::Socket { cut } => {
                let cut = *cut || getsockopt(&self.fd, SocketError) == Ok(libc::ECONNRESET);
                return (!cut).then_some(0);
            }
            Kind::Terminal { waiting, .. } => {
                terminal::unread(self.fd.as_fd()).map(|count| count + waiting.len())
            }
        };
        Some(count.map_or(0, |count| count as u64))
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fds;
    use crate::os::terminal::Terminal;

    /// Writes everything to one end while another thread reads the other to its end.
    fn carried(mut input: Input, theirs: OwnedFd, sent: &[u8], at_once: usize) -> Vec<u8> {
        let reader = std::thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), vec![0; at_once]);
            loop {
                match fds::read(theirs.as_fd(), &mut buffer).unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&buffer[..count]),
                }
            }
        });
        fds::set_nonblocking(input.as_fd()).unwrap();
        let room = |input: &Input| {
            let flags = nix::poll::PollFlags::POLLOUT;
            let mut fds = [nix::poll::PollFd::new(input.as_fd(), flags)];
            nix::poll::poll(&mut fds, 20_000_u16).unwrap();
        };
        let mut rest = sent;
        while !rest.is_empty() {
            // In two pieces, as messages and what frames them are.
            let (one, two) = rest.split_at(rest.len().min(700));
            match input.write(&[IoSlice::new(one), IoSlice::new(two)]) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => room(&input),
                Err(error) => panic!("{error}"),
            }
        }
        while let Err(error) = input.end() {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            room(&input);
        }
        let keep = match input.kind {
            Kind::Pipe => {
                drop(input);
                None
            }
            Kind::Socket { .. } | Kind::Terminal { .. } => Some(input),
        };
        let all = reader.join().unwrap();
        drop(keep);
        all
    }

    #[test]
    fn every_kind_of_input_carries_every_byte_and_an_end() {
        let random = |count: u32| -> Vec<u8> {
            (0..count).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()
        };
        let special = [4, 22, 3, 0, 255, 13, 10, 17, 19, 127, 8].repeat(3000);
        let cases =
            [Vec::new(), b"a line\n".to_vec(), b"no line".to_vec(), random(100_000), special];
        let long = vec![b'x'; 50_000];
        let empty_lines = vec![b'\n'; 50_000];
        for sent in cases.into_iter().chain([long, empty_lines]) {
            let pipe = fds::pipe().unwrap();
            assert!(carried(Input::pipe(pipe.write), pipe.read, &sent, 4096) == sent);
            let (ours, theirs) = fds::stream_pair().unwrap();
            assert!(carried(Input::socket(ours), theirs, &sent, 4096) == sent);
            for at_once in [7, 1024, 1025, 65_536] {
                let Terminal { ours, theirs } = crate::os::terminal::open().unwrap();
                let got = carried(Input::terminal(ours), theirs, &sent, at_once);
                assert!(got == sent, "{} bytes by {at_once}: {} came", sent.len(), got.len());
            }
        }
    }

    #[test]
    fn a_socket_that_was_closed_with_something_in_it_says_so() {
        for (leave, unread) in [(false, Some(0)), (true, None)] {
            let (ours, theirs) = fds::stream_pair().unwrap();
            let mut input = Input::socket(ours);
            assert_eq!(input.write(&[IoSlice::new(b"hello")]).unwrap(), 5);
            if !leave {
                fds::read(theirs.as_fd(), &mut [0; 5]).unwrap();
            }
            drop(theirs);
            assert_eq!(input.unread(), unread);
        }
    }
}
