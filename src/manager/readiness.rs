//! The loop's dealings with programs that show by themselves that they are ready: by a line of their
//! output, or by a line on a descriptor of its own.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use memchr::memchr;
use regex::bytes::Regex;

use crate::event::Event;
use crate::name::Incarnation;
use crate::os::fds;
use crate::output::Stream;
use crate::spec::{ReadyBy, Service};

use super::control::Control;
use super::spawner::Answer;

/// How much of a line is looked at, in bytes.
const LINE: usize = 64 << 10;

/// How many expressions are kept compiled that nobody waits for: what is started again needs its own soon.
const LATEST: usize = 16;

/// The compiled expressions of services by their text: those that are waited for, and the latest. A thousand
/// services may have the same one, or each its own of some 10 KiB.
#[derive(Default)]
pub(super) struct Patterns {
    compiled: HashMap<String, Weak<Regex>>,
    latest: VecDeque<Arc<Regex>>,
}

impl Patterns {
    /// What is looked for in the output of a run.
    fn of(&mut self, service: &Service) -> Option<Box<Awaited>> {
        let ReadyBy::LogLine(pattern) = &service.ready.as_ref()?.by else { return None };
        let regex = if let Some(regex) = self.compiled.get(pattern).and_then(Weak::upgrade) {
            regex
        } else {
            // The configuration was checked; one of an earlier version may be beyond this one.
            let regex = Arc::new(Regex::new(pattern).ok()?);
            self.compiled.retain(|_, regex| regex.strong_count() > 0);
            self.compiled.insert(pattern.clone(), Arc::downgrade(&regex));
            self.latest.push_back(Arc::clone(&regex));
            if self.latest.len() > LATEST {
                self.latest.pop_front();
            }
            regex
        };
        Some(Box::new(Awaited { regex, parts: [Vec::new(), Vec::new()] }))
    }
}

/// A line that is waited for.
#[derive(Debug)]
pub(super) struct Awaited {
    regex: Arc<Regex>,
    /// The unfinished line of each stream.
    parts: [Vec<u8>; 2],
}

impl Awaited {
    /// Whether it is among the lines that end in these bytes.
    pub(super) fn is_in(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let part = &mut self.parts[stream as usize];
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            keep(part, &rest[..end]);
            let line = part.strip_suffix(b"\r").unwrap_or(part);
            let found = self.regex.is_match(line);
            part.clear();
            if found {
                return true;
            }
            rest = &rest[end + 1..];
        }
        keep(part, rest);
        false
    }
}

fn keep(part: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE.saturating_sub(part.len());
    part.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl Control {
    /// Looks for the line that shows that a run is ready, from its first byte on.
    pub(super) fn await_line(&mut self, incarnation: Incarnation) {
        if let Some(run) = self.runs.get_mut(&incarnation) {
            run.line = self.patterns.of(&run.service);
        }
    }

    /// A program has shown that it is ready. Where the word that it runs is still on its way, that comes
    /// first.
    pub(super) fn shown_ready(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        run.line = None;
        run.said_ready = true;
        if run.landing == Some(Answer::Executed) && run.end.is_none() {
            self.feed(Event::Ready { incarnation });
        }
    }

    /// The descriptor to which a program writes when it is ready has something to read.
    pub(super) fn ready_line(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Some(fd) = &run.ready else { return };
        let mut bytes = [0; 512];
        let said = match fds::read(fd.as_fd(), &mut bytes) {
            Ok(count) => &bytes[..count],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => &[],
        };
        let is_ready = memchr(b'\n', said).is_some();
        if is_ready || said.is_empty() {
            let _ = self.poller.remove(fd.as_fd());
            run.ready = None;
        }
        if is_ready {
            self.shown_ready(incarnation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(pattern: &str) -> Awaited {
        let regex = Arc::new(Regex::new(pattern).unwrap());
        Awaited { regex, parts: [Vec::new(), Vec::new()] }
    }

    #[test]
    fn a_line_is_found_however_it_is_cut() {
        let text = b"starting\r\nlistening on 80\nmore\n";
        for cut in 0..text.len() {
            let mut line = awaited("^listening on \\d+$");
            let (first, second) = text.split_at(cut);
            let found = [first, second].map(|bytes| line.is_in(Stream::Stdout, bytes));
            assert!(found.contains(&true), "cut at {cut}");
        }
        assert!(awaited("starting$").is_in(Stream::Stderr, text), "a CR is no part of a line");
    }

    #[test]
    fn streams_are_told_apart_and_unfinished_lines_waited_for() {
        let mut line = awaited("^ready$");
        assert!(!line.is_in(Stream::Stdout, b"rea"));
        assert!(!line.is_in(Stream::Stderr, b"dy\n"));
        assert!(!line.is_in(Stream::Stdout, b"dy"));
        assert!(line.is_in(Stream::Stdout, b"\n"));
    }

    #[test]
    fn of_a_long_line_the_beginning_is_looked_at() {
        let mut line = awaited("^begin.*");
        assert!(!line.is_in(Stream::Stdout, b"begin"));
        for _ in 0..100 {
            assert!(!line.is_in(Stream::Stdout, &[b'x'; 10_000]));
        }
        assert_eq!(line.parts[0].len(), LINE);
        assert!(line.is_in(Stream::Stdout, b"\n"));
    }
}
