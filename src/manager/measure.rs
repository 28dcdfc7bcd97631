//! The loop's dealings with metrics: what it counts as things happen, and the copy it hands to a
//! scrape. Nothing here looks at a process; that is done on the side of whoever scrapes.

use std::time::Duration;

use memchr::memchr;

use crate::event::State;
use crate::exit::{ExitRecord, Signal};
use crate::metrics::{
    Book, DETECTION, LastSample, ManagerSample, PortSample, ProcessSample, REQUEST, ReplicaSample,
    SPAWN, Sample, ServiceSample,
};
use crate::name::{Incarnation, ServiceName};
use crate::os::{clock, prctl};
use crate::output::Stream;
use crate::port::exchange::Counters;
use crate::spec::Spec;
use crate::supervise::View;
use crate::time::Tick;

use super::control::Control;
use super::request::LastExit;
use super::run::Run;

/// A wait of the poller that took longer than this was a sleep: nothing was ready when it began.
const SLEPT: Duration = Duration::from_micros(100);

/// A book with an entry for each service.
pub(super) fn book_of(spec: &Spec) -> Book {
    let mut book = Book::default();
    spec.services.keys().for_each(|name| book.open(name));
    book
}

impl Control {
    /// Another configuration is in effect.
    pub(super) fn measured_anew(&mut self) {
        let spec = std::sync::Arc::clone(&self.spec);
        spec.services.keys().for_each(|name| self.book.open(name));
        self.forward.wanted(spec.services.values().map(|service| &service.logging.forward));
        self.handle.configured(&spec);
        self.configured_at = clock::wall();
        self.health.reload_refused = false;
        self.metrics.send_if_modified(|metrics| {
            let changed = *metrics != spec.metrics;
            *metrics = spec.metrics;
            changed
        });
        if spec.metrics.is_none() {
            self.metrics_door(None);
        }
        // Those whose last replica was forgotten before are gone with it.
        let gone = self.book.names().filter(|name| !self.is_measured(name)).cloned();
        for name in gone.collect::<Vec<_>>() {
            self.book.close(&name);
        }
    }

    /// A replica is gone, and perhaps its service with it.
    pub(super) fn measured_no_more(&mut self, service: &ServiceName) {
        if !self.is_measured(service) {
            self.book.close(service);
        }
    }

    /// Whether a service is configured, or something of it is still there.
    fn is_measured(&self, service: &ServiceName) -> bool {
        self.spec.services.contains_key(service) || self.supervisor.has_replicas(service)
    }

    /// What is told of the listener for metrics.
    pub(super) fn metrics_door(&mut self, trouble: Option<String>) {
        if self.health.metrics != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!("{trouble}");
            }
            self.health.metrics = trouble;
            self.publish_health();
        }
    }

    /// A wait of the poller that began at `asked` is over; `all` says whether it told everything.
    pub(super) fn note_turn(&mut self, asked: Tick, all: bool) {
        let now = clock::now();
        // What was ready before a wait ends it at once. What ended a sleep happened just now.
        self.seen_from = if now.since(asked) > SLEPT { now } else { self.told_all };
        if all {
            self.told_all = now;
        }
    }

    /// An end is taken up.
    pub(super) fn measured_detection(&mut self, service: &ServiceName) {
        let delay = clock::now().since(self.seen_from);
        if let Some(counts) = self.book.of(service) {
            counts.ends().detection.observe(DETECTION, delay);
        }
    }

    /// A run has a process, or will never have one.
    pub(super) fn measured_start(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        if let Some(counts) = self.book.of(&run.replica.service) {
            counts.starts += 1;
        }
    }

    /// A run's program is executed.
    pub(super) fn measured_landing(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        if let Some(counts) = self.book.of(&run.replica.service) {
            counts.spawn.observe(SPAWN, clock::now().since(run.ordered));
        }
    }

    /// A record is published.
    pub(super) fn measured_exit(&mut self, record: &ExitRecord) {
        if let Some(counts) = self.book.of(&record.service.name) {
            counts.exited(record);
        }
    }

    /// The kernel killed processes because memory ran out.
    pub(super) fn measured_oom(&mut self, service: &ServiceName, killed: u64) {
        if let Some(counts) = self.book.of(service) {
            counts.oom_kills += killed;
        }
    }

    /// A run is over; what it did to storage is no part of its record.
    pub(super) fn measured_storage(&mut self, run: &Run) {
        if let (Some(counts), Some(end)) = (self.book.of(&run.replica.service), &run.end)
            && end.read_bytes + end.written_bytes > 0
        {
            let ends = counts.ends();
            ends.storage[0] += end.read_bytes;
            ends.storage[1] += end.written_bytes;
        }
    }

    /// A call has its outcome.
    pub(super) fn measured_request(&mut self, service: &ServiceName, took: Duration) {
        if let Some(counts) = self.book.of(service) {
            counts.port().requests.observe(REQUEST, took);
        }
    }

    /// A port's exchange is over.
    pub(super) fn measured_port(
        &mut self,
        service: &ServiceName,
        counters: &Counters,
        blocked: Duration,
    ) {
        if let Some(counts) = self.book.of(service) {
            let port = counts.port();
            port.frames[0] += counters.frames_in;
            port.frames[1] += counters.frames_out;
            port.bytes[0] += counters.bytes_in;
            port.bytes[1] += counters.bytes_out;
            port.blocked += blocked;
            port.unmatched(counters.unmatched);
            port.strays(counters.strays);
        }
    }

    /// Lines for a log, of either stream.
    pub(super) fn measured_lines(&mut self, service: &ServiceName, lines: &[u8]) {
        let Some(counts) = self.book.of(service) else { return };
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // The second word of a line is its stream.
            let word = memchr(b' ', line).map_or(line, |end| &line[end + 1..]);
            let stream = if word.starts_with(Stream::Stderr.as_str().as_bytes()) {
                Stream::Stderr
            } else {
                Stream::Stdout
            };
            counts.log_lines[stream as usize] += 1;
        }
    }

    /// The disk could not take lines.
    pub(super) fn measured_dropped(&mut self, service: &ServiceName, lines: u64) {
        if let Some(counts) = self.book.of(service) {
            counts.log_dropped += lines;
        }
    }

    /// The copy for a scrape: under a millisecond for a thousand services.
    pub(super) fn sample(&self) -> Sample {
        let began = clock::now();
        let mut services = Vec::with_capacity(self.spec.services.len());
        for (name, service) in &self.spec.services {
            let counts = self.book.get(name).cloned().unwrap_or_default();
            services.push(ServiceSample { service: std::sync::Arc::clone(service), counts });
        }
        let mut replicas = Vec::with_capacity(services.len());
        for (view, budget) in self.supervisor.views_and_budgets(began) {
            let name = &view.replica.service;
            let configured = self.spec.services.get_index_of(name);
            let at = configured.or_else(|| self.leaving(&view, &mut services));
            if let Some(service) = at {
                replicas.push(self.replica_sample(service, view, budget, began));
            }
        }
        Sample {
            manager_pid: prctl::pid(),
            cgroups: self.cgroups.as_ref().ok().map(|root| root.path().to_owned()),
            manager: ManagerSample {
                reload_refused: self.health.reload_refused,
                configured_at: self.configured_at,
                journal_errors: self.health.journal_errors,
            },
            services,
            replicas,
            took: clock::now().since(began),
        }
    }

    /// The place of a service that a reload took away and that still runs; the present run knows
    /// how it was configured.
    fn leaving(&self, view: &View, services: &mut Vec<ServiceSample>) -> Option<usize> {
        let name = &view.replica.service;
        // Replicas come sorted, so those of one service follow each other.
        if services.last().is_some_and(|last| last.service.name == *name) {
            return Some(services.len() - 1);
        }
        let run = self.runs.get(&view.incarnation?)?;
        let counts = self.book.get(name)?.clone();
        services.push(ServiceSample { service: std::sync::Arc::clone(&run.service), counts });
        Some(services.len() - 1)
    }

    fn replica_sample(&self, service: usize, view: View, budget: u32, now: Tick) -> ReplicaSample {
        let run = view.incarnation.and_then(|incarnation| self.runs.get(&incarnation));
        let run = run.filter(|run| run.pid != 0 && run.end.is_none() && run.ended.is_none());
        let waits = view.next_start.filter(|_| view.state == State::Backoff);
        let last = self.last.get(&view.replica).map(|last| last_sample(last));
        ReplicaSample {
            service,
            state: view.state,
            wanted: view.wanted,
            healthy: view.healthy,
            backoff: waits.map_or(Duration::ZERO, |until| until.since(view.since)),
            budget: if view.state == State::Failed { 0 } else { budget },
            process: run.map(|run| process_sample(run, now)),
            last,
            id: view.replica,
        }
    }
}

fn last_sample(last: &LastExit) -> LastSample {
    let signal = last.signal.as_ref().and_then(|name| name.parse::<Signal>().ok());
    LastSample { code: last.code, signal: signal.map(Signal::number), at: last.ts }
}

fn process_sample(run: &Run, now: Tick) -> ProcessSample {
    let port = run.exchange.as_ref().map(|exchange| {
        let counters = exchange.counters();
        PortSample {
            frames: [counters.frames_in, counters.frames_out],
            bytes: [counters.bytes_in, counters.bytes_out],
            queued: exchange.waiting().0,
            unmatched: counters.unmatched,
            strays: counters.strays,
            blocked: run.blocked(now),
        }
    });
    ProcessSample {
        incarnation: run.incarnation,
        pid: run.pid,
        created: run.created,
        grouped: run.group.is_some(),
        port,
    }
}
