//! What can be seen of the loop from outside.

use crate::event::State;
use crate::name::ReplicaId;
use crate::os::{clock, prctl};
use crate::supervise::View;
use crate::time::{Tick, Wall};

use super::confine;
use super::control::Control;
use super::request::{HealthStatus, ManagerStatus, PortStatus, ReplicaStatus, Snapshot};

impl Control {
    /// Everything at this instant.
    pub(super) fn snapshot(&self) -> Snapshot {
        let replicas = self.spec.services.values().flat_map(|service| {
            let name = &service.name;
            (1..=service.replicas)
                .map(|replica| ReplicaId { service: name.clone(), replica })
                .filter_map(|id| self.status_of(&id))
        });
        let mut replicas: Vec<_> = replicas.collect();
        // What a reload took away shows until nothing of it runs.
        let leaving = self.supervisor.views().filter(|view| !self.is_configured(&view.replica));
        replicas.extend(leaving.filter_map(|view| self.status_of(&view.replica)));
        Snapshot { manager: self.manager_status(), replicas }
    }

    fn is_configured(&self, id: &ReplicaId) -> bool {
        let service = self.spec.services.get(&id.service);
        service.is_some_and(|service| id.replica <= service.replicas)
    }

    fn manager_status(&self) -> ManagerStatus {
        ManagerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: prctl::pid(),
            guardian_pid: self.guardian_pid,
            generation: self.origin.generation,
            realm: self.realm,
            started_at: self.started_at,
            cgroups: match &self.cgroups {
                Ok(_) => "in use".to_owned(),
                Err(why) => format!("not in use: {why}"),
            },
            degraded: self.degraded(),
            output_dropped_bytes: self.health.dropped + self.disk.dropped(),
            journal_write_errors: self.health.journal_errors,
            forward_dropped: self.forward.dropped(),
            hooks_dropped: self.hooks.dropped,
            records_waiting: self.pending.len() as u64,
            shutting_down: self.shutting_down,
        }
    }

    /// What is not as it should be, in words.
    pub(super) fn degraded(&self) -> Vec<String> {
        let journal = self.health.journal.as_ref();
        let output = self.health.output.as_ref();
        let journal = journal.map(|why| format!("exit records wait in memory: {why}"));
        let output = output.map(|why| format!("program output waits or is dropped: cannot {why}"));
        let intent = self.health.intent.as_ref();
        let intent = intent.map(|why| format!("what operators want is not on disk: {why}"));
        let metrics = self.health.metrics.clone();
        let forward = self.forward.trouble();
        let troubles = journal.into_iter().chain(output).chain(intent).chain(metrics);
        troubles.chain(forward).chain(self.unenforced()).collect()
    }

    /// The process of a replica; `None` when there is none.
    pub(super) fn pid_of(&self, id: &ReplicaId) -> Option<i32> {
        let run = self.runs.get(self.present.get(id)?)?;
        (run.pid != 0 && run.end.is_none() && run.ended.is_none()).then_some(run.pid)
    }

    /// What the state of a replica alone does not say.
    fn note_of(&self, view: &View) -> Option<String> {
        if let Some(hold) = &view.hold {
            return Some(hold.to_string());
        }
        if !view.outdated {
            return None;
        }
        let service = &view.replica.service;
        let old = "it still runs with the configuration before the last reload";
        Some(match self.supervisor.halted(service) {
            Some(halted) => format!("{old}: {service}/{} did not become ready", halted.replica),
            None => format!("{old}: its turn is yet to come"),
        })
    }

    /// One row of `ps`.
    pub(super) fn status_of(&self, id: &ReplicaId) -> Option<ReplicaStatus> {
        let view = self.supervisor.view(id)?;
        let now = clock::now();
        let service = self.spec.services.get(&id.service);
        let run = view.incarnation.and_then(|incarnation| self.runs.get(&incarnation));
        let up = view.started_at.filter(|_| self.pid_of(id).is_some());
        let last = self.last.get(id).map(|last| (**last).clone());
        let port = run.and_then(|run| {
            let exchange = run.exchange.as_ref()?;
            let counters = exchange.counters();
            Some(PortStatus {
                framing: run.service.port.as_ref()?.framing.name().to_owned(),
                frames_in: counters.frames_in,
                frames_out: counters.frames_out,
                queued: exchange.waiting().0,
                open: exchange.open_calls(),
                unmatched: counters.unmatched,
                strays: counters.strays,
                held_up_s: exchange.stuck_since().map(|since| now.since(since).as_secs_f64()),
                input_closed: !exchange.is_input_open(),
                output_closed: run.output.is_none() && run.is_running(),
            })
        });
        let waits = view.next_start.map(|at| at.since(now));
        let next_start = waits.or_else(|| {
            // An operator's stop is stronger than the clock.
            view.wanted.then(|| self.next_due(&id.service, now)).flatten()
        });
        Some(ReplicaStatus {
            service: id.service.to_string(),
            replica: id.replica,
            state: view.state,
            pid: self.pid_of(id),
            incarnation: view.incarnation.or(last.as_ref().map(|last| last.incarnation)),
            restarts: view.restarts,
            ready: view.state == State::Running,
            uptime_s: up.map(|at| now.since(at).as_secs_f64()),
            crash_looping: view.crash_looping,
            failures_in_a_row: view.row,
            since: wall_of(view.since, now),
            next_start_s: next_start.map(|wait| wait.as_secs_f64()),
            note: self.note_of(&view),
            health: view.health.map(|state| HealthStatus { state, failures: view.failed_checks }),
            check: run.and_then(|run| run.checked.as_ref()).map(|checked| checked.status()),
            status_text: run.and_then(|run| run.status_text()),
            last_exit: last,
            port,
            limits: match run {
                Some(run) => run.limits.clone(),
                None => service
                    .map(|service| confine::foreseen(&service.limits, &self.controllers))
                    .unwrap_or_default(),
            },
            command: service.map(|service| service.command.clone()).unwrap_or_default(),
            labels: service.map(|service| service.labels.clone()).unwrap_or_default(),
            listen: service.map(|service| self.sockets_of(service)).unwrap_or_default(),
        })
    }
}

/// A point on the monotonic clock as a wall-clock time, by how long ago it was.
fn wall_of(at: Tick, now: Tick) -> Wall {
    let ago = u64::try_from(now.since(at).as_nanos()).unwrap_or(u64::MAX);
    Wall(clock::wall().0.saturating_sub(ago))
}
