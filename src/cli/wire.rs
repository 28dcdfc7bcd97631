//! A conversation with the manager in wire protocol 1, in a blocking style: one half to say things
//! with, one to hear.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;

use super::failure::Failure;
use crate::message::{
    Address, Decoder, Flags, Form, Frame, Hello, Kind, Mode, Monitor, Payloads, Read,
};
use crate::name::Target;

/// The largest payload that is taken from the manager, in bytes: what the largest port says.
const LARGEST: u64 = 1 << 30;
/// The longest head of an answer, in bytes.
const HEAD: usize = 16 << 10;
/// How long the manager may take to answer the request and the greeting.
const GREETING: Duration = Duration::from_secs(30);
/// The id of the monitor.
pub(super) const MONITOR: u64 = 1;

/// The half to say things with.
#[derive(Debug)]
pub(super) struct Mouth {
    stream: UnixStream,
    form: Form,
}

/// The half to hear.
#[derive(Debug)]
pub(super) struct Ear {
    stream: UnixStream,
    decoder: Decoder,
    heard: VecDeque<Frame>,
    buffer: Vec<u8>,
}

/// What came of listening.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame.
    Frame(Frame),
    /// Nothing, for as long as was said.
    Nothing,
    /// The manager hung up.
    End,
}

fn broken(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Io { doing, source }
}

/// Goes on in protocol 1 over a connection to the manager.
pub(super) fn join(stream: UnixStream, command: &str) -> Result<(Mouth, Ear), Failure> {
    let io = broken("speak to the manager");
    stream.set_read_timeout(Some(GREETING)).map_err(&io)?;
    let request = format!(
        "GET /v1/connect HTTP/1.1\r\nhost: wharf\r\nconnection: upgrade\r\nupgrade: wharf\r\n\
         x-wharf-command: {command}\r\n\r\n"
    );
    (&stream).write_all(request.as_bytes()).map_err(&io)?;
    let behind = switched(&stream)?;
    let form = Form { mode: Mode::Frame, enc: Payloads::Raw, max_frame: LARGEST };
    let mut mouth = Mouth { stream: stream.try_clone().map_err(&io)?, form };
    let decoder = Decoder::new(Mode::Frame, LARGEST);
    let mut ear = Ear { stream, decoder, heard: VecDeque::new(), buffer: vec![0; 64 << 10] };
    ear.take(&behind)?;
    let mut hello = Hello::new(command, env!("CARGO_PKG_VERSION"));
    hello.max_frame = LARGEST;
    hello.features = vec!["wait".to_owned()];
    mouth.say(&[Frame::control(Kind::Hello, 0, &hello)])?;
    match ear.next(None)? {
        Heard::Frame(frame) if frame.kind == Kind::Hello => {
            let theirs: Hello = frame.read().map_err(|error| odd(&error.to_string()))?;
            mouth.form.max_frame = theirs.max_frame;
        }
        Heard::Frame(frame) => return Err(odd(&format!("it greets with {}", frame.kind))),
        Heard::Nothing | Heard::End => return Err(odd("it does not greet")),
    }
    ear.stream.set_read_timeout(None).map_err(io)?;
    Ok((mouth, ear))
}

fn odd(what: &str) -> Failure {
    Failure::Broken(format!("the manager is not understood: {what}"))
}

/// Reads the answer to the request; gives what came behind it.
fn switched(mut stream: &UnixStream) -> Result<Vec<u8>, Failure> {
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let count = stream.read(&mut buffer).map_err(broken("hear from the manager"))?;
        seen.extend_from_slice(&buffer[..count]);
        let end = memchr::memmem::find(&seen, b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let text = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            if text.starts_with("http/1.1 101 ") {
                return Ok(seen.split_off(end));
            }
            let mut lengths = text.lines().filter_map(|line| line.strip_prefix("content-length:"));
            let length = lengths.find_map(|length| length.trim().parse::<usize>().ok());
            if count == 0 || seen.len() - end >= length.unwrap_or(0).min(HEAD) {
                return Err(super::client::refused(&seen[end..]));
            }
        } else if count == 0 || seen.len() > HEAD {
            return Err(odd("its answer is no HTTP"));
        }
    }
}

impl Mouth {
    /// The largest message that the manager takes, in bytes.
    pub(super) fn largest(&self) -> u64 {
        // A frame says besides whom it is for.
        self.form.max_frame.saturating_sub(1024)
    }

    /// Says several things at once.
    pub(super) fn say(&mut self, frames: &[Frame]) -> Result<(), Failure> {
        let mut all = Vec::new();
        for frame in frames {
            let wire = frame.encode(&self.form);
            let wire = wire.map_err(|error| Failure::Broken(format!("cannot {error}")))?;
            for piece in wire.into_pieces() {
                all.extend_from_slice(&piece);
            }
        }
        self.stream.write_all(&all).map_err(broken("speak to the manager"))
    }

    /// Hangs up: the ear hears the end.
    pub(super) fn hang_up(&self) {
        // It has been hung up already where this fails.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Ear {
    /// The next frame, waiting for no longer than `limit`.
    pub(super) fn next(&mut self, limit: Option<Duration>) -> Result<Heard, Failure> {
        loop {
            if let Some(frame) = self.heard.pop_front() {
                return Ok(Heard::Frame(frame));
            }
            if limit.is_some_and(|limit| limit.is_zero()) {
                return Ok(Heard::Nothing);
            }
            if let Some(limit) = limit {
                let set = self.stream.set_read_timeout(Some(limit));
                set.map_err(broken("hear from the manager"))?;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.stream.read(&mut buffer);
            if limit.is_some() {
                let _ = self.stream.set_read_timeout(None);
            }
            let taken = match read {
                Ok(0) => Ok(Some(Heard::End)),
                Ok(count) => self.take(&buffer[..count]).map(|()| None),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(Some(Heard::Nothing)),
                    io::ErrorKind::Interrupted => Ok(None),
                    // What was sent to it and it never read tells the same.
                    io::ErrorKind::ConnectionReset => Ok(Some(Heard::End)),
                    _ => Err(broken("hear from the manager")(error)),
                },
            };
            self.buffer = buffer;
            if let Some(heard) = taken? {
                return Ok(heard);
            }
        }
    }

    /// Whether the next frame is here already.
    pub(super) fn has_more(&self) -> bool {
        !self.heard.is_empty()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let heard = &mut self.heard;
        let mut each = |read| {
            if let Read::Frame(frame) = read {
                heard.push_back(frame);
            }
        };
        self.decoder.push(bytes, &mut each).map_err(|error| odd(&error.to_string()))
    }
}

/// A call to a port.
pub(super) fn call(to: &Target, id: u64, payload: Bytes) -> Frame {
    Frame { to: Some(Address::Name(to.to_string())), ..Frame::new(Kind::Call, id, payload) }
}

/// A message to a port.
pub(super) fn data(to: &Target, payload: Bytes) -> Frame {
    Frame { to: Some(Address::Name(to.to_string())), ..Frame::new(Kind::Data, 0, payload) }
}

/// The wish to hear of each end and each start of a replica, and of all that it says where `messages`
/// are wanted too.
pub(super) fn monitor(target: &Target, messages: bool) -> Frame {
    let target = Address::Name(target.to_string());
    Frame::control(Kind::Monitor, MONITOR, &Monitor { target, messages, follow: true })
}

/// Whether another part of the same reply follows.
pub(super) fn has_more(frame: &Frame) -> bool {
    frame.flags.has(Flags::MORE)
}
