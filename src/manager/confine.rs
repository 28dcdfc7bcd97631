//! What keeps a replica within its limits: the groups it is put into, and the plain words on what is
//! enforced here and by what.
//!
//! A limit of the kernel's that every machine has (setrlimit(2)) is set or the start fails. Memory,
//! processors and the number of processes need a control group, which not every machine lets us have:
//! there the replica runs without that bound and everybody is told, unless `limits.required` says that
//! it must not run then.

use std::path::PathBuf;

use crate::exit::{Errno, Stage};
use crate::os::cgroup::{self, Controller, Controllers, Group, MemoryCount, Seat, Version};
use crate::os::limits::Resource;
use crate::os::live::Memory;
use crate::spec::{Limits, OnOom, Service};
use crate::time::{format_duration, format_size};

use super::control::Control;
use super::launch::Refusal;
use super::oom::Watched;
use super::request::LimitStatus;

/// A bound that needs a control group.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Memory(u64),
    Cpus(f64),
    Pids(u32),
}

impl Bound {
    fn all(limits: &Limits) -> impl Iterator<Item = Self> {
        let memory = limits.memory.map(Self::Memory);
        let cpus = limits.cpus.map(Self::Cpus);
        memory.into_iter().chain(cpus).chain(limits.pids.map(Self::Pids))
    }

    fn controller(self) -> Controller {
        match self {
            Self::Memory(_) => Controller::Memory,
            Self::Cpus(_) => Controller::Cpu,
            Self::Pids(_) => Controller::Pids,
        }
    }

    /// The key in services.yaml and its value.
    fn words(self) -> (&'static str, String) {
        match self {
            Self::Memory(bytes) => ("memory", format_size(bytes)),
            Self::Cpus(cpus) => ("cpus", cpus.to_string()),
            Self::Pids(pids) => ("pids", pids.to_string()),
        }
    }

    fn file(self, version: Version) -> String {
        let (number, file) = match (version, self) {
            (_, Self::Memory(_)) => (version, version.memory_file()),
            (_, Self::Cpus(_)) => (version, version.cpus_file()),
            (_, Self::Pids(_)) => (version, version.pids_file()),
        };
        let number = if number == Version::One { 1 } else { 2 };
        format!("cgroup v{number} {file}")
    }

    fn set(self, group: &Group, version: Version, limits: &Limits) -> std::io::Result<()> {
        let together = limits.on_oom == OnOom::Kill;
        match self {
            Self::Memory(bytes) => group.set_memory(version, Some(bytes), together),
            Self::Cpus(cpus) => group.set_cpus(version, Some(cpus)),
            Self::Pids(pids) => group.set_pids(version, Some(pids)),
        }
    }

    fn told(self, enforced: Result<Version, String>) -> LimitStatus {
        let (limit, value) = self.words();
        let (enforced_by, not_enforced) = match enforced {
            Ok(version) => (Some(self.file(version)), None),
            Err(why) => (None, Some(why)),
        };
        LimitStatus { limit: limit.to_owned(), value, enforced_by, not_enforced }
    }
}

/// What would be enforced of a service's limits, and by what; `None` as for a service without any.
pub(crate) fn foreseen(limits: &Limits, controllers: &Controllers) -> Vec<LimitStatus> {
    let version = |bound: Bound| match controllers.seat(bound.controller()) {
        Ok(Seat::Unified) => Ok(Version::Two),
        Ok(Seat::Own(_)) => Ok(Version::One),
        Err(why) => Err(why.to_owned()),
    };
    let mut told: Vec<_> = Bound::all(limits).map(|bound| bound.told(version(bound))).collect();
    told.extend(by_the_kernel(limits));
    told
}

/// The limits that every kernel enforces on each process, with their values.
pub(super) fn resources(limits: &Limits) -> Vec<(Resource, u64)> {
    let seconds = limits.cpu.map(|cpu| cpu.as_secs());
    [
        (Resource::Core, limits.core),
        (Resource::Nproc, limits.nproc),
        (Resource::Stack, limits.stack),
        (Resource::As, limits.address_space),
        (Resource::Data, limits.data),
        (Resource::Fsize, limits.fsize),
        (Resource::Memlock, limits.memlock),
        (Resource::Cpu, seconds),
        (Resource::Msgqueue, limits.msgqueue),
        (Resource::Sigpending, limits.sigpending),
        (Resource::Rtprio, limits.rtprio),
        (Resource::Nofile, limits.nofile),
    ]
    .into_iter()
    .filter_map(|(resource, value)| Some((resource, value?)))
    .collect()
}

fn by_the_kernel(limits: &Limits) -> impl Iterator<Item = LimitStatus> {
    resources(limits).into_iter().map(|(resource, value)| {
        let shown = shown(resource, value);
        let limit = resource.name().trim_start_matches("RLIMIT_").to_ascii_lowercase();
        let enforced_by = Some(format!("setrlimit {}", resource.name()));
        LimitStatus { limit, value: shown, enforced_by, not_enforced: None }
    })
}

/// A limit's value as people write it.
pub(super) fn shown(resource: Resource, value: u64) -> String {
    match resource {
        _ if value == u64::MAX => "unlimited".to_owned(),
        _ if value == 0 => "0".to_owned(),
        Resource::Cpu => format_duration(std::time::Duration::from_secs(value)),
        Resource::Nofile | Resource::Nproc | Resource::Rtprio | Resource::Sigpending => {
            value.to_string()
        }
        Resource::As
        | Resource::Core
        | Resource::Data
        | Resource::Fsize
        | Resource::Locks
        | Resource::Memlock
        | Resource::Msgqueue
        | Resource::Stack => format_size(value),
    }
}

/// What keeps one run within its limits.
#[derive(Debug, Default)]
pub(super) struct Confined {
    /// The `cgroup.procs` files it has to enter beside its own group's.
    pub(super) procs: Vec<PathBuf>,
    /// What is enforced.
    pub(super) limits: Vec<LimitStatus>,
    /// Its memory, where the kernel counts it.
    pub(super) memory: Option<Box<Watched>>,
}

/// What had been counted of a run that an earlier manager started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Of its memory, where that was noted.
    pub(super) memory: Option<Memory>,
}

impl Control {
    /// Makes the groups of a run and writes its limits into them. `own` is its group of version 2.
    /// `counted` is there for a run that an earlier manager started: its groups stay as they are, and
    /// their counts go on from there.
    pub(super) fn confine(
        &self,
        service: &Service,
        name: &str,
        own: Option<&Group>,
        counted: Option<Counted>,
    ) -> Result<Confined, Refusal> {
        let limits = &service.limits;
        let mut confined = Confined::default();
        self.lift(limits, own);
        for bound in Bound::all(limits) {
            let made = self.bound(bound, limits, (name, own), counted.is_some());
            if let Ok((group, version)) = &made {
                if *version == Version::One {
                    confined.procs.push(group.procs());
                }
                if let (Bound::Memory(bytes), Some(count)) =
                    (bound, MemoryCount::of(group, *version))
                {
                    let counted = counted.and_then(|counted| counted.memory);
                    confined.memory = Some(Box::new(Watched::new(count, bytes, counted)));
                }
            }
            if let (Err(why), true) = (&made, limits.required) {
                let (limit, value) = bound.words();
                return Err(Refusal {
                    stage: Stage::Limits,
                    errno: Errno(libc::EOPNOTSUPP),
                    why: Some(format!(
                        "{limit} {value} cannot be enforced: {why} (limits.required)"
                    )),
                });
            }
            confined.limits.push(bound.told(made.map(|(_, version)| version)));
        }
        confined.limits.extend(by_the_kernel(limits));
        Ok(confined)
    }

    /// A group of version 2 outlives a run, and so do bounds that are not wanted any more.
    fn lift(&self, limits: &Limits, own: Option<&Group>) {
        let Some(own) = own else { return };
        let has = |controller| Bound::all(limits).any(|bound| bound.controller() == controller);
        let unified = |one| self.controllers.seat(one) == Ok(&Seat::Unified);
        for controller in Controller::ALL.into_iter().filter(|one| unified(*one) && !has(*one)) {
            // Where the controller is not in use there is no such file, and nothing to lift.
            let _ = match controller {
                Controller::Memory => own.set_memory(Version::Two, None, false),
                Controller::Cpu => own.set_cpus(Version::Two, None),
                Controller::Pids => own.set_pids(Version::Two, None),
            };
        }
    }

    fn bound(
        &self,
        bound: Bound,
        limits: &Limits,
        (name, own): (&str, Option<&Group>),
        again: bool,
    ) -> Result<(Group, Version), String> {
        let seat = self.controllers.seat(bound.controller())?;
        let failed = |error: std::io::Error| format!("its control group refuses it: {error}");
        let (group, version) = match (seat, own, &self.cgroups) {
            (Seat::Own(folder), ..) => {
                let make = if again { cgroup::group_as_it_is } else { cgroup::own_group };
                let group = make(folder, name)
                    .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
                (group, Version::One)
            }
            (Seat::Unified, Some(own), Ok(root)) => {
                root.enable(bound.controller()).map_err(failed)?;
                (own.clone(), Version::Two)
            }
            (Seat::Unified, ..) => return Err("it runs outside its control group".to_owned()),
        };
        bound.set(&group, version, limits).map_err(failed)?;
        Ok((group, version))
    }

    /// The limits that no replica of a service is held to here, in words for everybody.
    pub(super) fn unenforced(&self) -> impl Iterator<Item = String> + '_ {
        self.spec.services.values().flat_map(|service| {
            let limits = &service.limits;
            let lacking = foreseen(limits, &self.controllers).into_iter();
            lacking.filter_map(|one| {
                let why = one.not_enforced?;
                let (name, limit, value) = (&service.name, one.limit, one.value);
                Some(format!("{limit} {value} of {name} is not enforced: {why}"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_what_is_enforced_and_by_what() {
        let limits = Limits {
            memory: Some(50 << 20),
            cpus: Some(1.5),
            pids: Some(100),
            nofile: Some(64),
            core: Some(u64::MAX),
            cpu: Some(std::time::Duration::from_secs(90)),
            ..Limits::default()
        };
        let told = foreseen(&limits, &Controllers::none("cgroups: off"));
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "memory 50MiB: not enforced: cgroups: off",
                "cpus 1.5: not enforced: cgroups: off",
                "pids 100: not enforced: cgroups: off",
                "core unlimited: setrlimit RLIMIT_CORE",
                "cpu 1m30s: setrlimit RLIMIT_CPU",
                "nofile 64: setrlimit RLIMIT_NOFILE",
            ]
        );
        assert_eq!(Bound::Memory(1).file(Version::One), "cgroup v1 memory.limit_in_bytes");
        assert_eq!(Bound::Cpus(1.0).file(Version::Two), "cgroup v2 cpu.max");
        assert!(foreseen(&Limits::default(), &Controllers::none("")).is_empty());
    }
}
