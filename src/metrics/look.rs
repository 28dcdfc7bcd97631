//! A look at everything: the loop's copy, and what `/proc` and the control groups tell beside it.
//!
//! It reads hundreds of small files a second and so never runs on the loop's thread. What it
//! remembers from one look to the next keeps counters from falling: a process that was reaped
//! between the loop's copy and the look is in neither, for one look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::counts::Counts;
use super::sample::{LastSample, ManagerSample, ProcessSample, ReplicaSample, Sample};
use crate::event::State;
use crate::name::ServiceName;
use crate::os::cgroup::{Group, Root};
use crate::os::usage::{self, Account};
use crate::spec::Service;
use crate::time::Wall;

/// Everything a scrape tells.
#[derive(Debug, Default)]
pub struct Look {
    /// The manager.
    pub(super) manager: ManagerSample,
    /// The services.
    pub(super) services: Vec<ServiceRow>,
    /// The replicas, those of one service beside each other.
    pub(super) replicas: Vec<ReplicaRow>,
    /// How long the loop took for its part.
    pub by_loop: Duration,
    /// How long the whole took; for whoever had it done to fill in.
    pub took: Duration,
}

/// One service with all its replicas.
#[derive(Debug)]
pub(super) struct ServiceRow {
    pub(super) service: Arc<Service>,
    pub(super) counts: Counts,
    pub(super) states: [u32; State::ALL.len()],
    pub(super) desired: u32,
    pub(super) healthy: u32,
    pub(super) backoff: Duration,
    pub(super) budget: u32,
    pub(super) queued: u64,
    pub(super) uses: Uses,
}

/// What the processes of a service use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uses {
    pub(super) cpu: [f64; 2],
    pub(super) storage: [u64; 2],
    pub(super) resident: u64,
    pub(super) peak: u64,
    pub(super) open: u64,
    pub(super) allowed: u64,
    pub(super) worst: f64,
    pub(super) threads: u64,
}

/// What is told of a single replica.
#[derive(Debug)]
pub(super) struct ReplicaRow {
    pub(super) service: ServiceName,
    pub(super) replica: u32,
    pub(super) created: Option<Wall>,
    pub(super) last: Option<LastSample>,
}

/// Looks, and remembers what must not fall.
#[derive(Debug, Default)]
pub struct Looker {
    shown: HashMap<ServiceName, Shown>,
}

/// What was told of a service last time.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    /// Of which entry in the book: one that was removed and came again begins anew.
    number: u64,
    cpu: [f64; 2],
    storage: [u64; 2],
}

impl Looker {
    /// Looks at what the loop's copy names. Takes some 100 µs a process.
    pub fn look(&mut self, sample: Sample) -> Look {
        let Sample { manager_pid, cgroups, manager, services, replicas, took } = sample;
        let mut rows: Vec<ServiceRow> = services
            .into_iter()
            .map(|one| ServiceRow {
                service: one.service,
                counts: one.counts,
                states: [0; State::ALL.len()],
                desired: 0,
                healthy: 0,
                backoff: Duration::ZERO,
                budget: u32::MAX,
                queued: 0,
                uses: Uses::default(),
            })
            .collect();
        let root = cgroups.map(Root::at);
        let counts_memory = root.as_ref().is_some_and(Root::counts_memory);
        let mut told = Vec::with_capacity(replicas.len());
        for replica in replicas {
            let Some(row) = rows.get_mut(replica.service) else { continue };
            row.add(&replica);
            if let Some(process) = &replica.process {
                let name = format!("{}.{}", replica.id.service, replica.id.replica);
                let group = root.as_ref().filter(|_| process.grouped);
                let group = group.map(|root| root.existing(&name));
                row.uses.add(manager_pid, process, group.as_ref().map(|one| (one, counts_memory)));
            }
            told.push(ReplicaRow {
                created: replica.process.map(|process| process.created),
                last: replica.last,
                replica: replica.id.replica,
                service: replica.id.service,
            });
        }
        self.never_fall(&mut rows);
        Look { manager, services: rows, replicas: told, by_loop: took, took }
    }

    /// Adds what has ended, and holds counters at what was told last time where they would fall.
    fn never_fall(&mut self, rows: &mut [ServiceRow]) {
        let mut shown = HashMap::with_capacity(rows.len());
        for row in rows {
            let number = row.counts.number;
            let name = row.service.name.clone();
            let before = self.shown.get(&name).filter(|shown| shown.number == number);
            let before = before.copied().unwrap_or_default();
            let uses = &mut row.uses;
            let ends = row.counts.ends.as_deref();
            for at in 0..2 {
                let ended = ends.map_or((0.0, 0), |ends| (ends.cpu[at], ends.storage[at]));
                uses.cpu[at] = (uses.cpu[at] + ended.0).max(before.cpu[at]);
                uses.storage[at] = (uses.storage[at] + ended.1).max(before.storage[at]);
            }
            let Uses { cpu, storage, .. } = *uses;
            shown.insert(name, Shown { number, cpu, storage });
        }
        self.shown = shown;
    }
}

impl ServiceRow {
    fn add(&mut self, replica: &ReplicaSample) {
        self.states[replica.state as usize] += 1;
        self.healthy += u32::from(replica.healthy);
        self.desired += u32::from(replica.wanted && replica.state != State::Finished);
        self.backoff = self.backoff.max(replica.backoff);
        self.budget = self.budget.min(replica.budget);
        let port = replica.process.as_ref().and_then(|process| process.port.as_ref());
        if let Some(port) = port {
            let counts = self.counts.port();
            for at in 0..2 {
                counts.frames[at] += port.frames[at];
                counts.bytes[at] += port.bytes[at];
            }
            counts.blocked += port.blocked;
            counts.unmatched(port.unmatched);
            counts.strays(port.strays);
            self.queued += port.queued;
        }
    }
}

impl Uses {
    /// Adds a process, with whatever else is in its group.
    fn add(&mut self, parent: i32, process: &ProcessSample, group: Option<(&Group, bool)>) {
        let pid = process.pid;
        // It may have been reaped since, and its number be a stranger's.
        let account = usage::account(pid).filter(|account| account.parent == parent);
        let Some(Account { cpu, children_cpu, .. }) = account else { return };
        self.cpu[0] += (cpu.user + children_cpu.user).as_secs_f64();
        self.cpu[1] += (cpu.system + children_cpu.system).as_secs_f64();
        if let Some(storage) = usage::storage(pid) {
            self.storage[0] += storage.read;
            self.storage[1] += storage.written;
        }
        let members = group.map(|(group, _)| group.members()).filter(|all| all.contains(&pid));
        let peak = group.filter(|(_, counts)| *counts).and_then(|(group, _)| group.memory_peak());
        let before = self.peak;
        for member in members.unwrap_or_else(|| vec![pid]) {
            self.add_process(member);
        }
        if let Some(peak) = peak {
            self.peak = before + peak;
        }
    }

    fn add_process(&mut self, pid: i32) {
        let Some(memory) = usage::memory(pid) else { return };
        self.resident += memory.resident;
        self.peak += memory.peak;
        self.threads += memory.threads;
        let (open, allowed) = (usage::open_descriptors(pid), usage::descriptor_limit(pid));
        if let (Some(open), Some(allowed)) = (open, allowed) {
            self.open += open;
            self.allowed += allowed;
            if allowed > 0 {
                self.worst = self.worst.max(super::number(open) / super::number(allowed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::counts::Book;
    use crate::metrics::sample::ServiceSample;
    use crate::name::Incarnation;
    use crate::os::prctl;

    fn service() -> Arc<Service> {
        let command = vec!["x".to_owned()];
        Arc::new(Service { command, ..Service::new(ServiceName::new("web").unwrap()) })
    }

    /// One replica whose process is this one.
    fn sample(counts: &Counts, pid: Option<i32>, cgroups: Option<&std::path::Path>) -> Sample {
        let service = service();
        let replica = ReplicaSample {
            service: 0,
            id: crate::name::ReplicaId { service: service.name.clone(), replica: 1 },
            state: State::Running,
            wanted: true,
            healthy: true,
            backoff: Duration::ZERO,
            budget: 10,
            process: pid.map(|pid| ProcessSample {
                incarnation: Incarnation(1),
                pid,
                created: Wall(1),
                grouped: cgroups.is_some(),
                port: None,
            }),
            last: None,
        };
        Sample {
            manager_pid: prctl::parent(),
            cgroups: cgroups.map(std::path::Path::to_owned),
            services: vec![ServiceSample { service, counts: counts.clone() }],
            replicas: vec![replica],
            ..Sample::default()
        }
    }

    #[test]
    fn a_process_that_is_reaped_between_copy_and_look_takes_nothing_back() {
        let mut book = Book::default();
        let name = service().name.clone();
        book.open(&name);
        let mut looker = Looker::default();
        let cpu = |look: Look| look.services[0].uses.cpu[0] + look.services[0].uses.cpu[1];
        // Long enough that the kernel's clock ticks have counted something.
        let mut alive = 0.0;
        while alive < 0.02 {
            let counts = book.get(&name).unwrap().clone();
            alive = cpu(looker.look(sample(&counts, Some(prctl::pid()), None)));
        }
        let counts = book.get(&name).unwrap().clone();
        let gone = cpu(looker.look(sample(&counts, Some(i32::MAX), None)));
        assert!((gone - alive).abs() < 1e-9, "{gone} {alive}");
        // Its account arrives with its record, and is not added twice.
        book.of(&name).unwrap().ends().cpu = [alive + 0.5, 0.0];
        let counts = book.get(&name).unwrap().clone();
        let ended = cpu(looker.look(sample(&counts, None, None)));
        assert!(ended >= alive + 0.5 && ended < 2.0 * alive + 0.6, "{ended} {alive}");
        // Another service of the same name has nothing to do with it.
        book.close(&name);
        book.open(&name);
        let counts = book.get(&name).unwrap().clone();
        assert!(cpu(looker.look(sample(&counts, None, None))) < 1e-9);
    }

    #[test]
    fn a_process_that_is_not_our_child_is_a_stranger_with_a_used_number() {
        let mut book = Book::default();
        book.open(&service().name);
        let counts = book.get(&service().name).unwrap().clone();
        let stranger = Sample { manager_pid: 1, ..sample(&counts, Some(prctl::pid()), None) };
        let look = Looker::default().look(stranger);
        assert_eq!((look.services[0].uses.threads, look.services[0].uses.open), (0, 0));
    }

    #[test]
    fn what_control_groups_count_is_taken_from_them() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("web.1");
        std::fs::create_dir(&group).unwrap();
        let write = |name: &str, text: &str| std::fs::write(group.join(name), text).unwrap();
        std::fs::write(folder.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        write("cgroup.procs", &format!("{}\n", prctl::pid()));
        write("memory.peak", "123456789\n");
        let mut book = Book::default();
        book.open(&service().name);
        let counts = book.get(&service().name).unwrap().clone();
        let seen = sample(&counts, Some(prctl::pid()), Some(folder.path()));
        let look = Looker::default().look(seen);
        assert_eq!(look.services[0].uses.peak, 123_456_789);
        assert!(look.services[0].uses.resident > 0 && look.services[0].uses.threads > 0);
    }

    #[test]
    fn the_states_count_in_their_order() {
        for (at, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, at, "{}", state.as_str());
        }
    }
}
