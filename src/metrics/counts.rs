//! The counters: what has happened to each service since this life of the manager began.
//!
//! Compact on purpose: what most services never do takes no room until they do it. They only grow.
//! Ends are counted on the exit record itself, so that counters and journal cannot disagree.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::{Decision, ExitRecord, Reason};
use crate::framing::Fault;
use crate::name::ServiceName;

/// How many upper bounds every histogram here has.
pub const BOUNDS: usize = 5;

/// Durations by upper bound. The bounds stand in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// How many were within each bound and above the one before; the last are beyond all.
    pub counts: [u64; BOUNDS + 1],
    /// Their sum, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Takes a duration; `bounds` are the same every time.
    pub fn observe(&mut self, bounds: &[f64], duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = bounds.iter().take(BOUNDS).filter(|bound| seconds > **bound).count();
        self.counts[at] += 1;
        self.sum += seconds;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What has happened to one service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Which entry this is: a service that was removed and came again has another number.
    pub number: u64,
    /// Runs begun.
    pub starts: u64,
    /// From the order to the program, in seconds.
    pub spawn: Histogram,
    /// Lines for the log: standard output, standard error.
    pub log_lines: [u64; 2],
    /// Lines that the disk could not take.
    pub log_dropped: u64,
    /// Processes that the kernel killed because memory ran out.
    pub oom_kills: u64,
    /// Questions whether it is ready or well that had no good answer.
    pub probe_failures: u64,
    /// What its ends brought; `None` before the first.
    pub ends: Option<Box<Ends>>,
    /// What went over its port; `None` where nothing has.
    pub port: Option<Box<PortCounts>>,
}

/// What the ends of a service brought.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ends {
    /// Exit records by reason, in the order of [`Reason::ALL`].
    pub exits: [u64; Reason::ALL.len()],
    /// Restarts that the policy decided upon.
    pub restarts: u64,
    /// CPU seconds of runs that have ended: in user mode, in the kernel.
    pub cpu: [f64; 2],
    /// Bytes from and to storage of runs that have ended.
    pub storage: [u64; 2],
    /// From the end of a process to its being taken up.
    pub detection: Histogram,
}

/// What went over a service's port.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PortCounts {
    /// Messages to and from the program, of runs that have ended.
    pub frames: [u64; 2],
    /// Bytes to and from the program, of runs that have ended.
    pub bytes: [u64; 2],
    /// How often its protocol was broken, in the order of
    /// [`PROTOCOL_FAULTS`](super::PROTOCOL_FAULTS); the last two of runs that have ended.
    pub faults: [u64; super::PROTOCOL_FAULTS.len()],
    /// From the arrival of a call to its outcome.
    pub requests: Histogram,
    /// How long messages waited with a full pipe, of runs that have ended.
    pub blocked: Duration,
}

impl Counts {
    /// What its ends brought, to be added to.
    pub fn ends(&mut self) -> &mut Ends {
        self.ends.get_or_insert_default()
    }

    /// What went over its port, to be added to.
    pub fn port(&mut self) -> &mut PortCounts {
        self.port.get_or_insert_default()
    }

    /// Counts an end by its record.
    pub fn exited(&mut self, record: &ExitRecord) {
        let ends = self.ends();
        // Both stand in the order of the declaration.
        ends.exits[record.exit.reason as usize] += 1;
        // An attempt has a number where the policy decided; a restart that was asked for has none.
        let restart = &record.restart;
        if restart.decision == Decision::Restart && restart.attempt.is_some() {
            ends.restarts += 1;
        }
        if let Some(usage) = &record.usage {
            ends.cpu[0] += usage.cpu_user_s;
            ends.cpu[1] += usage.cpu_system_s;
        }
    }
}

impl PortCounts {
    /// Counts replies to no open call.
    pub fn unmatched(&mut self, count: u64) {
        self.faults[3] += count;
    }

    /// Counts lines that are no protocol and were borne.
    pub fn strays(&mut self, count: u64) {
        self.faults[4] += count;
    }

    /// Counts a break of the protocol.
    pub fn broke(&mut self, fault: &Fault) {
        let at = match fault {
            Fault::Garbage { .. } => 0,
            Fault::Oversize { .. } => 1,
            Fault::Truncated { .. } => 2,
        };
        self.faults[at] += 1;
    }
}

/// The counters of all services that there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Book {
    services: HashMap<ServiceName, Box<Counts>>,
    last: u64,
}

impl Book {
    /// Opens an entry for a service that has none.
    pub fn open(&mut self, service: &ServiceName) {
        if !self.services.contains_key(service) {
            self.last += 1;
            let counts = Counts { number: self.last, ..Counts::default() };
            self.services.insert(service.clone(), Box::new(counts));
        }
    }

    /// The services with an entry.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Forgets a service.
    pub fn close(&mut self, service: &ServiceName) {
        self.services.remove(service);
    }

    /// The counters of a service; `None` for one that was removed.
    pub fn get(&self, service: &ServiceName) -> Option<&Counts> {
        self.services.get(service).map(|counts| &**counts)
    }

    /// The same, to be added to.
    pub fn of(&mut self, service: &ServiceName) -> Option<&mut Counts> {
        self.services.get_mut(service).map(|counts| &mut **counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CATALOGUE, Kind};

    #[test]
    fn a_duration_counts_within_the_smallest_bound_that_holds_it() {
        let bounds = [0.001, 0.01, 0.1, 1.0, 10.0];
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 10, 11, 1000, 9999, 10_000, 10_001, 100_000] {
            histogram.observe(&bounds, Duration::from_millis(millis));
        }
        assert_eq!(histogram.counts, [2, 2, 1, 1, 2, 2]);
        assert_eq!(histogram.count(), 10);
        assert!((histogram.sum - 131.024).abs() < 1e-9, "{}", histogram.sum);
    }

    #[test]
    fn every_histogram_of_the_catalogue_has_as_many_bounds() {
        for metric in CATALOGUE {
            if let Kind::Histogram(bounds) = metric.kind {
                assert_eq!(bounds.len(), BOUNDS, "{}", metric.name);
            }
        }
    }

    #[test]
    fn the_reasons_count_in_their_order() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at, "{reason}");
        }
    }

    #[test]
    fn a_service_that_comes_again_begins_anew() {
        let name: ServiceName = "web".parse().unwrap();
        let mut book = Book::default();
        book.open(&name);
        book.of(&name).unwrap().starts += 1;
        book.open(&name);
        let before = book.get(&name).unwrap().clone();
        assert_eq!(before.starts, 1);
        book.close(&name);
        assert!(book.of(&name).is_none());
        book.open(&name);
        let after = book.get(&name).unwrap();
        assert!(after.starts == 0 && after.number != before.number);
    }
}
