//! The two ways out: data on standard output, words on standard error.
//!
//! A pipe that nobody reads any more ends a command quietly.

use std::io::{self, BufWriter, Stdout, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use super::failure::Failure;
use crate::os::fds;

/// Standard output, buffered; [`Out::flush`] before anything is waited for.
#[derive(Debug)]
pub(super) struct Out {
    to: BufWriter<Stdout>,
}

impl Out {
    /// The one of this process.
    pub(super) fn new() -> Self {
        Self { to: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(failure)
    }

    /// A text and a newline.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// One document of JSON, made for reading.
    pub(super) fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.to, value).map_err(|error| failure(error.into()))?;
        self.bytes(b"\n")
    }

    /// One object of JSON on a line of its own.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, value).map_err(|error| failure(error.into()))?;
        self.bytes(b"\n")
    }

    /// Hands everything over.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(failure)
    }
}

fn failure(source: io::Error) -> Failure {
    if source.kind() == io::ErrorKind::BrokenPipe {
        Failure::ClosedPipe
    } else {
        Failure::Io { doing: "write to standard output", source }
    }
}

/// Writes a whole text to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = Out::new();
    out.bytes(text.as_bytes())?;
    out.flush()
}

/// Writes one document of JSON to standard output.
pub(super) fn print_document(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = Out::new();
    out.document(value)?;
    out.flush()
}

/// Says something on standard error. Where that is not possible there is nobody to tell.
pub(super) fn say(words: &str) {
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// Whether a person reads standard output.
pub(super) fn stdout_is_terminal() -> bool {
    fds::is_terminal(io::stdout().as_fd())
}

/// How many columns standard output has; `None` where it is no terminal.
pub(super) fn width() -> Option<usize> {
    fds::columns(io::stdout().as_fd()).map(usize::from)
}

/// Whether a person reads standard error.
pub(super) fn stderr_is_terminal() -> bool {
    fds::is_terminal(io::stderr().as_fd())
}
