//! What is forwarded: a line of a program, or an end.

use crate::exit::ExitRecord;
use crate::name::{Incarnation, ReplicaId};
use crate::output::{Line, Source, Stream};

use super::Severity;

/// One thing to forward, and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    /// The replica.
    pub replica: &'a ReplicaId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its process, where that is known.
    pub pid: Option<i32>,
    /// What it is.
    pub what: What<'a>,
}

/// A line or an end.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// A line of output, or a piece of one.
    Line(&'a Line),
    /// The end of a run.
    Exit(&'a ExitRecord),
}

impl Forwarded<'_> {
    /// How loud it is: standard error as an error, as other forwarders have it; an end by its level.
    pub(super) fn severity(&self) -> Severity {
        match self.what {
            What::Line(line) if line.source == Source::Program(Stream::Stderr) => Severity::Error,
            What::Exit(record) if record.level == "warn" => Severity::Warning,
            What::Line(_) | What::Exit(_) => Severity::Info,
        }
    }

    /// Whether there is anything to say: the mere end of a line of which pieces went before is not.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.what, What::Line(line) if line.text.is_empty())
    }
}
