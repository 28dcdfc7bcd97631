//! Bytes to frames, whatever the pieces in which they come.
//!
//! Memory grows with what was received, never with what a length announces: a length is checked as
//! soon as its four bytes are there, before anything is allocated. Each byte is looked at once.

use bytes::Bytes;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::error::{Fault, FrameError, Part};
use super::frame::{Frame, HEADER, IDS, Trace};
use super::kind::{Class, EXTENSIONS, Flags, Kind, misflagged};
use super::{Mode, line};
use crate::bytes_text::{self, Sample};

/// How many bytes the length has. It does not count itself.
const LENGTH: usize = 4;

/// How many bytes of the header the length counts.
const COUNTED: u64 = 10;

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A frame.
    Frame(Frame),
    /// A line that is no frame (NDJSON only): somebody printed where frames are due. What follows it
    /// can be read all the same.
    Stray {
        /// The line, without its end.
        line: Bytes,
        /// What is wrong with it, and where.
        error: FrameError,
    },
}

/// Where one stream of frames stands. It serialises, with what came of an unfinished frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    /// `None` until the first byte tells.
    mode: Option<Mode>,
    /// The largest payload, in bytes.
    max: u64,
    state: State,
    /// Where the present frame begins.
    start: u64,
    /// How many bytes have been used.
    at: u64,
    failed: Option<Box<FrameError>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Nothing has come, and either form may.
    Open,
    /// Inside the header, or between two frames.
    Header(#[serde(with = "bytes_text")] Vec<u8>),
    /// Inside the payload.
    Body {
        header: Header,
        #[serde(with = "bytes_text")]
        body: Vec<u8>,
    },
    /// Inside the payload of a frame that is ignored.
    Ignored { size: u64, left: u64 },
    /// Inside a line, or between two.
    Line(#[serde(with = "bytes_text")] Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    kind: Kind,
    flags: Flags,
    id: u64,
    /// Of what follows, in bytes.
    size: u64,
}

/// What some bytes led to.
pub(crate) struct Step {
    /// How many were used.
    pub(crate) used: usize,
    /// Whether a frame, or something in its place, ended with them.
    pub(crate) over: bool,
    pub(crate) read: Option<Read>,
}

impl Step {
    fn more(used: usize) -> Self {
        Self { used, over: false, read: None }
    }

    fn over(used: usize, read: Option<Read>) -> Self {
        Self { used, over: true, read }
    }
}

impl Decoder {
    /// Stands at the beginning of a stream. No payload may have more than `max_frame` bytes.
    pub fn new(mode: Mode, max_frame: u64) -> Self {
        Self { mode: Some(mode), ..Self::of_any(max_frame) }.anew()
    }

    /// The same for a stream whose first byte tells the form: see [`Mode::of_first`].
    pub fn of_any(max_frame: u64) -> Self {
        let (mode, state) = (None, State::Open);
        Self { mode, max: max_frame, state, start: 0, at: 0, failed: None }
    }

    fn anew(mut self) -> Self {
        self.state = State::new(self.mode);
        self
    }

    /// Takes the next bytes of the stream and gives `out` each frame that they complete, in order.
    ///
    /// After an error, which is given once the frames before it are out, the decoder stays failed and
    /// says the same again: a stream that lost its frames cannot find them again.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Read)) -> Result<(), FrameError> {
        if let Some(error) = &self.failed {
            return Err(FrameError::clone(error));
        }
        while !bytes.is_empty() {
            let before = self.held();
            let step = match self.step(bytes) {
                Ok(step) => step,
                Err(fault) => return Err(self.fail(fault, before, bytes)),
            };
            self.at += size(step.used);
            bytes = &bytes[step.used..];
            if step.over {
                self.start = self.at;
            }
            if let Some(read) = step.read {
                out(read);
            }
        }
        Ok(())
    }

    /// The stream has ended, which between two frames is no error.
    pub fn finish(&mut self) -> Result<(), FrameError> {
        if let Some(error) = &self.failed {
            return Err(FrameError::clone(error));
        }
        let (part, got, wanted) = match &self.state {
            State::Open => return Ok(()),
            State::Header(seen) | State::Line(seen) if seen.is_empty() => return Ok(()),
            State::Header(seen) => (Part::Header, size(seen.len()), size(HEADER)),
            State::Body { header, body } => (Part::Body, size(body.len()), header.size),
            State::Ignored { size, left } => (Part::Body, size - left, *size),
            State::Line(seen) => (Part::Body, size(seen.len()), size(seen.len()) + 1),
        };
        Err(self.fail(Fault::Truncated { part, got, wanted }, usize::MAX, b""))
    }

    /// Whether the stream is beyond use.
    pub fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The form that it reads, once that is known.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// How many bytes of an unfinished frame have come.
    pub fn unfinished(&self) -> u64 {
        self.at - self.start
    }

    /// The memory it owns for an unfinished frame, in bytes.
    pub fn capacity(&self) -> usize {
        match &self.state {
            State::Header(seen) | State::Line(seen) => seen.capacity(),
            State::Body { body, .. } => body.capacity(),
            State::Open | State::Ignored { .. } => 0,
        }
    }

    /// Takes some of the bytes, which are not empty. Who uses this keeps count of them, and goes no
    /// further after a fault.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, Fault> {
        if self.mode.is_none() {
            self.mode = Some(Mode::of_first(bytes[0]));
            self.state = State::new(self.mode);
        }
        match &mut self.state {
            State::Open => Ok(Step::more(0)),
            State::Header(seen) => {
                let used = bytes.len().min(HEADER - seen.len());
                add(seen, &bytes[..used], HEADER);
                let Some(announced) = read_header(seen, self.max)? else {
                    return Ok(Step::more(used));
                };
                let (state, step) = begin(&announced, bytes, used)?;
                self.state = state;
                Ok(step)
            }
            State::Body { header, body } => {
                let wanted = memory(header.size);
                let piece = &bytes[..bytes.len().min(wanted - body.len())];
                add(body, piece, wanted);
                if body.len() < wanted {
                    return Ok(Step::more(piece.len()));
                }
                let payload = Bytes::from(std::mem::take(body).into_boxed_slice());
                let frame = match whole(*header, payload.clone()) {
                    Ok(frame) => frame,
                    Err(fault) => {
                        // It is the sample.
                        body.extend_from_slice(&payload);
                        return Err(fault);
                    }
                };
                self.state = State::new(self.mode);
                Ok(Step::over(piece.len(), Some(Read::Frame(frame))))
            }
            State::Ignored { left, .. } => {
                let used = bytes.len().min(memory(*left));
                *left -= size(used);
                if *left > 0 {
                    return Ok(Step::more(used));
                }
                self.state = State::new(self.mode);
                Ok(Step::over(used, None))
            }
            State::Line(seen) => {
                let end = memchr(b'\n', bytes);
                let piece = &bytes[..end.unwrap_or(bytes.len())];
                let most = line::longest(self.max);
                if size(seen.len() + piece.len()) > most {
                    return Err(Fault::Oversize { announced: None, max: most });
                }
                if end.is_none() {
                    add(seen, piece, memory(most));
                    return Ok(Step::more(piece.len()));
                }
                let used = piece.len() + 1;
                let read = if seen.is_empty() {
                    line_read(piece, self.max, self.start)
                } else {
                    add(seen, piece, memory(most));
                    line_read(&std::mem::take(seen), self.max, self.start)
                };
                Ok(Step::over(used, read))
            }
        }
    }

    /// Gives up and lets go of what was gathered. The sample is what was held of the frame `before`
    /// the failing step, which may have added to it, and then that step's `bytes`.
    fn fail(&mut self, fault: Fault, before: usize, bytes: &[u8]) -> FrameError {
        let mut seen = self.seen();
        seen.truncate(before);
        let error = FrameError { fault, offset: self.start, sample: Sample::of(&seen, bytes) };
        self.failed = Some(Box::new(error.clone()));
        self.state = State::new(self.mode);
        error
    }

    /// How many bytes are held of the present frame, its header included.
    pub(crate) fn held(&self) -> usize {
        match &self.state {
            State::Header(seen) | State::Line(seen) => seen.len(),
            State::Body { body, .. } => HEADER + body.len(),
            State::Open | State::Ignored { .. } => 0,
        }
    }

    /// The beginning of what is held.
    pub(crate) fn seen(&self) -> Vec<u8> {
        let sample = |bytes: &[u8]| bytes[..bytes.len().min(Sample::MOST)].to_vec();
        match &self.state {
            State::Header(seen) | State::Line(seen) => sample(seen),
            State::Body { header, body } => {
                let mut seen = head(header.kind, header.flags, header.id, header.size).to_vec();
                seen.extend(sample(body));
                seen
            }
            State::Open | State::Ignored { .. } => Vec::new(),
        }
    }
}

impl State {
    fn new(mode: Option<Mode>) -> Self {
        match mode {
            None => Self::Open,
            Some(Mode::Frame) => Self::Header(Vec::new()),
            Some(Mode::Ndjson) => Self::Line(Vec::new()),
        }
    }
}

/// What a header announces.
enum Announced {
    Frame(Header),
    /// A kind that may be ignored, with a payload of this size.
    Ignored(u64),
}

/// Reads as much of a header as there is; `None` when more has to come.
fn read_header(seen: &[u8], max: u64) -> Result<Option<Announced>, Fault> {
    let Some(length) = seen.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u64::from(u32::from_be_bytes(*length));
    let Some(size) = length.checked_sub(COUNTED) else {
        let what = format!("announces {length} bytes, fewer than the {COUNTED} of its header");
        return Err(Fault::Garbage { what });
    };
    if size > max {
        return Err(Fault::Oversize { announced: Some(size), max });
    }
    let Some(header) = seen.first_chunk::<HEADER>() else { return Ok(None) };
    let (code, flags) = (header[LENGTH], Flags::of_bits(header[LENGTH + 1]));
    let [_, _, _, _, _, _, id @ ..] = *header;
    let id = u64::from_be_bytes(id);
    let Some(kind) = Kind::of_code(code) else {
        if code >= EXTENSIONS {
            return Ok(Some(Announced::Ignored(size)));
        }
        return Err(Fault::Garbage {
            what: format!("is of the kind {code:#04x}, which is not known"),
        });
    };
    if let Some(what) = misflagged(kind, flags) {
        return Err(Fault::Garbage { what });
    }
    if id >= IDS {
        return Err(Fault::Garbage { what: format!("has the id {id}, which is not below 2^53") });
    }
    Ok(Some(Announced::Frame(Header { kind, flags, id, size })))
}

/// A header is whole after so many of the bytes: what follows, at once where it is there already.
fn begin(announced: &Announced, bytes: &[u8], used: usize) -> Result<(State, Step), Fault> {
    let rest = &bytes[used..];
    match *announced {
        Announced::Frame(header) => {
            let Some(payload) = rest.get(..memory(header.size)) else {
                return Ok((State::Body { header, body: Vec::new() }, Step::more(used)));
            };
            let frame = whole(header, Bytes::copy_from_slice(payload))?;
            let step = Step::over(used + payload.len(), Some(Read::Frame(frame)));
            Ok((State::new(Some(Mode::Frame)), step))
        }
        Announced::Ignored(0) => Ok((State::new(Some(Mode::Frame)), Step::over(used, None))),
        Announced::Ignored(size) => Ok((State::Ignored { size, left: size }, Step::more(used))),
    }
}

/// A frame of its header and all that follows it.
fn whole(header: Header, mut payload: Bytes) -> Result<Frame, Fault> {
    let Header { kind, flags, id, .. } = header;
    let cut = |part: &str| Fault::Garbage { what: format!("ends inside its {part}") };
    let mut trace = None;
    if flags.has(Flags::TRACE) {
        let bytes = payload.first_chunk().ok_or_else(|| cut("trace context"))?;
        trace = Some(Trace::of_bytes(*bytes));
        payload = payload.slice(Trace::SIZE..);
    }
    let mut to = None;
    if flags.has(Flags::TO) {
        let length = payload.first_chunk().ok_or_else(|| cut("address"))?;
        let end = 2 + usize::from(u16::from_be_bytes(*length));
        let text = payload.get(2..end).ok_or_else(|| cut("address"))?;
        let address = serde_json::from_slice(text);
        to = Some(address.map_err(|error| Fault::Garbage {
            what: format!("has an address that cannot be read: {error}"),
        })?);
        payload = payload.slice(end..);
    }
    if kind.class() == Class::Empty && !payload.is_empty() {
        let what = format!("has a payload of {} bytes, and {kind} has none", payload.len());
        return Err(Fault::Garbage { what });
    }
    Ok(Frame { kind, flags: flags.meant(), id, trace, to, payload })
}

/// The header of a frame with so many bytes after it.
pub(crate) fn head(kind: Kind, flags: Flags, id: u64, size: u64) -> [u8; HEADER] {
    let length = u32::try_from(size + COUNTED).unwrap_or(u32::MAX);
    let mut head = [0; HEADER];
    head[..LENGTH].copy_from_slice(&length.to_be_bytes());
    head[LENGTH] = kind.code();
    head[LENGTH + 1] = flags.bits();
    head[LENGTH + 2..].copy_from_slice(&id.to_be_bytes());
    head
}

/// What a line is: a frame, nothing (an empty line, or a kind that may be ignored), or a stray.
fn line_read(text: &[u8], max: u64, offset: u64) -> Option<Read> {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return None;
    }
    match line::read(text, max) {
        Ok(frame) => frame.map(Read::Frame),
        Err(fault) => {
            let error = FrameError { fault, offset, sample: Sample::of(text, b"") };
            Some(Read::Stray { line: Bytes::copy_from_slice(text), error })
        }
    }
}

/// Adds bytes. The first ones get exactly the room they need, so that what came in one piece is
/// copied once; later ones double it, but never beyond `most`, the size the whole can have.
fn add(to: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let needed = to.len() + bytes.len();
    if needed > to.capacity() {
        let room = needed.max(to.capacity().saturating_mul(2).min(most));
        to.reserve_exact(room - to.len());
    }
    to.extend_from_slice(bytes);
}

/// A size as the machine counts memory. What does not fit cannot be allocated anyway.
fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A length of memory as a size in bytes.
pub(super) fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
