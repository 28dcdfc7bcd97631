//! What a program writes on standard error: its last bytes, its lines in the log, its listeners.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;

use super::messages::Queue;
use crate::framing::Message;

/// What becomes of standard error. However that is, it is read at once, so that no program is ever held
/// up by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stderr {
    /// Each line is an event of `tracing`, at level `info`, with the target `wharf::port` and the fields
    /// `program` and `pid`. The last 4 KiB are in the [`Exit`](super::Exit) besides.
    #[default]
    Log,
    /// Nothing but the last 4 KiB in the [`Exit`](super::Exit), and what
    /// [`Port::stderr`](super::Port::stderr) gives.
    Quiet,
    /// It is that of this process: nothing is kept, and nothing can be listened to.
    Inherit,
}

/// How much is kept for the exit, in bytes.
const TAIL: usize = 4096;
/// A line in the log is cut here, in bytes.
const LINE: usize = 8192;

/// Where the bytes go.
#[derive(Debug)]
pub(super) struct StderrLog {
    stderr: Stderr,
    program: String,
    pid: i32,
    tail: Vec<u8>,
    line: Vec<u8>,
}

impl StderrLog {
    pub(super) fn new(stderr: Stderr, program: String, pid: i32) -> Self {
        Self { stderr, program, pid, tail: Vec::new(), line: Vec::new() }
    }

    /// Takes what was read. `last` as in [`super::shared::State::deliver`].
    pub(super) fn heard(&mut self, bytes: &[u8], listeners: &mut Vec<Arc<Queue>>, last: bool) {
        if bytes.is_empty() {
            return;
        }
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + new.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(new);
        listeners.retain(|queue| !queue.is_left());
        if !listeners.is_empty() {
            let message = Message { payload: Bytes::copy_from_slice(bytes), partial: false };
            for queue in listeners {
                queue.push([message.clone()], last || queue.has_room());
            }
        }
        if self.stderr == Stderr::Log
            && tracing::enabled!(target: "wharf::port", tracing::Level::INFO)
        {
            self.log(bytes);
        }
    }

    /// Text that came where messages do and is none.
    pub(super) fn stray(&mut self, text: &[u8]) {
        if self.stderr != Stderr::Quiet {
            self.log(text);
        }
    }

    fn log(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            let room = LINE - self.line.len().min(LINE);
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            let Some(end) = end else { return };
            bytes = &bytes[end + 1..];
            self.tell();
        }
    }

    fn tell(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        tracing::info!(target: "wharf::port", program = %self.program, pid = self.pid, "{line}");
        self.line.clear();
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.tell();
        }
    }

    /// The last bytes.
    pub(super) fn tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_however_they_come() {
        for size in [1, 7, TAIL, TAIL + 1, 3 * TAIL] {
            let all: Vec<u8> = (0..=250).cycle().take(4 * TAIL).collect();
            let mut log = StderrLog::new(Stderr::Quiet, "x".to_owned(), 1);
            for piece in all.chunks(size) {
                log.heard(piece, &mut Vec::new(), false);
            }
            assert_eq!(log.tail(), all[3 * TAIL..]);
        }
    }
}
