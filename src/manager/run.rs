//! What the loop holds of one run: its process, its pipes, and what it has said.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::exit::PortPart;
use crate::name::{Incarnation, ReplicaId};
use crate::os::cgroup::{Census, Group};
use crate::os::input::Input;
use crate::os::user::Identity;
use crate::os::wait::Ended;
use crate::output::{LineFormatter, Stream};
use crate::port::exchange::{Exchange, Unanswered};
use crate::spec::Service;
use crate::time::{Tick, Wall};

use super::control::Kind;
use super::notify::Notices;
use super::oom::Watched;
use super::probes::Checked;
use super::readiness::Awaited;
use super::request::LimitStatus;
use super::spawner::{Answer, Wiring};

/// How much of standard error is kept for the exit record, in bytes.
const TAIL: usize = 4096;

/// What becomes of a run when its manager dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It dies.
    Dies,
    /// It goes on.
    Outlives,
    /// It goes on once more: an earlier manager started it, and so the guardian reaps it.
    TakenOver,
}

/// One run, from the order to start it until its record is written.
pub(super) struct Run {
    pub(super) incarnation: Incarnation,
    pub(super) replica: ReplicaId,
    pub(super) service: Arc<Service>,
    /// Its slot in the table of what is alive.
    pub(super) slot: usize,
    pub(super) group: Option<Group>,
    /// What is enforced of its limits, and by what.
    pub(super) limits: Vec<LimitStatus>,
    /// Its memory, where it is limited and the kernel counts it.
    pub(super) memory: Option<Box<Watched>>,
    /// Tells whether anything lives in the group.
    pub(super) census: Option<Census>,
    /// 0 until there is a process.
    pub(super) pid: i32,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) input: Option<Input>,
    /// Standard output, or what its messages come over.
    pub(super) output: Option<OwnedFd>,
    pub(super) error: Option<OwnedFd>,
    /// Standard output, where its messages come over something else.
    pub(super) log: Option<OwnedFd>,
    /// Our end of its terminal where it has left that and lives on: to close it would be to hang up.
    pub(super) left: Option<OwnedFd>,
    /// The user that it runs as, where that is said.
    pub(super) identity: Option<Identity>,
    /// Where it writes a line when it is ready.
    pub(super) ready: Option<OwnedFd>,
    /// Where it says how it is, and what it has said.
    pub(super) notices: Option<Box<Notices>>,
    /// What is looked for in its output to see that it is ready.
    pub(super) line: Option<Box<Awaited>>,
    /// Whether it has shown that it is ready, perhaps before the word that it runs.
    pub(super) said_ready: bool,
    /// What came of the last question to it.
    pub(super) checked: Option<Box<Checked>>,
    pub(super) created: Wall,
    /// When it was ordered.
    pub(super) ordered: Tick,
    /// What becomes of it when this manager dies.
    pub(super) keeping: Keeping,
    /// Of a run that is kept: how many bytes were read of standard output and standard error.
    pub(super) heard: [u64; 2],
    /// What its program says is no message before the next of these bytes.
    pub(super) skipping: Option<u8>,
    /// How the way to the program ended, once known.
    pub(super) landing: Option<Answer>,
    /// Its end, where that was seen before the landing.
    pub(super) ended: Option<Ended>,
    pub(super) executable: Option<String>,
    pub(super) formatter: LineFormatter,
    pub(super) tail: StderrTail,
    pub(super) exchange: Option<Box<Exchange>>,
    /// The next deadline of its exchange, as it stands in the loop's list.
    pub(super) deadline: Option<Tick>,
    /// When its input counts as closed, after a write found nobody to read it.
    pub(super) broken_at: Option<Tick>,
    /// What its program will never answer.
    pub(super) lost: Vec<Unanswered>,
    /// What was read lately that nobody had asked for, and since when that is counted.
    pub(super) unasked: (usize, Tick),
    /// How often in a row its output was left alone for a while since then.
    pub(super) rests: u32,
    /// How many messages of it were told since then.
    pub(super) told: usize,
    /// How many small reads in a row made no message whole.
    pub(super) drops: u32,
    /// Until when its output is not read: nobody wants it, or it is to gather.
    pub(super) resting: Option<Tick>,
    /// Whether its output is not read, for nobody who listens to it has room.
    pub(super) held_back: bool,
    /// Whether its input is watched for room.
    pub(super) writing: bool,
    /// Since when, and how long altogether before that.
    blocked: (Tick, Duration),
    /// What was wrong with its output, where it broke its protocol.
    pub(super) protocol_error: Option<String>,
    pub(super) evidence: Vec<String>,
    /// What it had started that lived when it ended, as far as its control group tells.
    pub(super) survivors: Vec<i32>,
    /// What is known of its port at the end.
    pub(super) port: Option<PortPart>,
    /// When the kernel's account and the end were taken.
    pub(super) end: Option<Ended>,
}

impl Run {
    /// A run that has been ordered and has no process yet.
    pub(super) fn ordered(
        incarnation: Incarnation,
        replica: ReplicaId,
        service: Arc<Service>,
        slot: usize,
        (now, ordered): (Wall, Tick),
    ) -> Self {
        Self {
            incarnation,
            replica,
            service,
            slot,
            group: None,
            limits: Vec::new(),
            memory: None,
            census: None,
            pid: 0,
            pidfd: None,
            input: None,
            output: None,
            error: None,
            log: None,
            left: None,
            identity: None,
            ready: None,
            notices: None,
            line: None,
            said_ready: false,
            checked: None,
            created: now,
            ordered,
            keeping: Keeping::Dies,
            heard: [0; 2],
            skipping: None,
            landing: None,
            ended: None,
            executable: None,
            formatter: LineFormatter::default(),
            tail: StderrTail::default(),
            exchange: None,
            deadline: None,
            broken_at: None,
            unasked: (0, Tick(0)),
            rests: 0,
            told: 0,
            drops: 0,
            resting: None,
            held_back: false,
            lost: Vec::new(),
            writing: false,
            blocked: (Tick(0), Duration::ZERO),
            protocol_error: None,
            evidence: Vec::new(),
            survivors: Vec::new(),
            port: None,
            end: None,
        }
    }

    /// Whether it is to outlive this manager.
    pub(super) fn is_kept(&self) -> bool {
        self.keeping != Keeping::Dies
    }

    /// What its descriptors are.
    pub(super) fn wiring(&self) -> Wiring {
        Wiring::of(self.service.port.as_ref())
    }

    /// What it says of itself.
    pub(super) fn status_text(&self) -> Option<String> {
        let notices = self.notices.as_ref()?;
        match (&notices.status, notices.reloading) {
            (status, false) => status.clone(),
            (None, true) => Some("reloading".to_owned()),
            (Some(status), true) => Some(format!("reloading: {status}")),
        }
    }

    /// Whether its program runs, as far as is known.
    pub(super) fn is_running(&self) -> bool {
        self.landing == Some(Answer::Executed) && self.end.is_none() && self.ended.is_none()
    }

    /// A stream that is read.
    pub(super) fn stream(&mut self, kind: Kind) -> &mut Option<OwnedFd> {
        match kind {
            Kind::Error => &mut self.error,
            Kind::Log => &mut self.log,
            Kind::Ready => &mut self.ready,
            Kind::Output | Kind::Process | Kind::Input | Kind::Memory | Kind::Notice => {
                &mut self.output
            }
        }
    }

    /// What of these bytes comes after a message that an earlier manager had read in part.
    pub(super) fn past_the_cut<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(delimiter) = self.skipping else { return bytes };
        match memchr::memchr(delimiter, bytes) {
            Some(at) => {
                self.skipping = None;
                &bytes[at + 1..]
            }
            None => &[],
        }
    }

    /// Which stream of the log a descriptor's bytes go to, where they are kept for the next manager: those
    /// of a pipe, as they are.
    pub(super) fn kept_stream(&self, kind: Kind) -> Option<Stream> {
        match kind {
            _ if !self.is_kept() => None,
            Kind::Error => Some(Stream::Stderr),
            Kind::Log => Some(Stream::Stdout),
            Kind::Output if self.exchange.is_none() && !self.wiring().is_shown() => {
                Some(Stream::Stdout)
            }
            Kind::Output
            | Kind::Process
            | Kind::Input
            | Kind::Memory
            | Kind::Ready
            | Kind::Notice => None,
        }
    }

    /// How far the bytes of each stream have been put out as lines, and whether the last line is a piece.
    pub(super) fn put_out(&self) -> [Option<(u64, bool)>; 2] {
        let stdout = [Kind::Output, Kind::Log].map(|kind| self.kept_stream(kind));
        let has = [stdout.contains(&Some(Stream::Stdout)), true];
        [Stream::Stdout, Stream::Stderr].map(|stream| {
            let (held, open) = self.formatter.standing(stream);
            let upto = self.heard[stream as usize].saturating_sub(held as u64);
            has[stream as usize].then_some((upto, open))
        })
    }

    /// Notes whether its input is watched for room: whether messages wait for the program to read.
    pub(super) fn set_writing(&mut self, writing: bool, now: Tick) {
        self.blocked = (now, self.blocked(now));
        self.writing = writing;
    }

    /// How long messages have waited for the program to read.
    pub(super) fn blocked(&self, now: Tick) -> Duration {
        let present = if self.writing { now.since(self.blocked.0) } else { Duration::ZERO };
        self.blocked.1 + present
    }

    /// Whether anything lives in its control group; `None` where nobody knows.
    pub(super) fn populated(&self) -> Option<bool> {
        match (&self.census, &self.group) {
            (Some(census), _) => census.populated().ok(),
            (None, Some(group)) => group.populated().ok(),
            (None, None) => None,
        }
    }
}

/// The last bytes of standard error. Nothing is held for a silent program.
#[derive(Debug, Default)]
pub(super) struct StderrTail {
    bytes: Vec<u8>,
}

impl StderrTail {
    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let keep = TAIL - new.len();
        if self.bytes.len() > keep {
            let drop = self.bytes.len() - keep;
            self.bytes.drain(..drop);
        }
        self.bytes.extend_from_slice(new);
    }

    /// The last 4 KiB, not beginning in the middle of a character.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() == TAIL {
            // A cut character shows as one to three continuation bytes at the start.
            let cut = bytes.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
            bytes.drain(..cut);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_4_kib() {
        let mut all = Vec::new();
        let mut tail = StderrTail::default();
        for size in [10, 5_000, 1, 4_095, 3, 4_096, 200] {
            let piece: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
            tail.push(&piece);
            all.extend(piece);
            assert_eq!(tail.bytes, all[all.len().saturating_sub(TAIL)..]);
        }
        let mut tail = StderrTail::default();
        tail.push("é".repeat(TAIL).as_bytes());
        tail.push(b"x");
        let kept = String::from_utf8(tail.take()).unwrap();
        assert!(kept.starts_with('é') && kept.ends_with('x'));
    }
}
