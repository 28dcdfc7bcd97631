//! From a service's configuration to a prepared start: environment, limits, folder, identity.

use std::collections::BTreeMap;
use std::path::Path;

use crate::exit::{Errno, Stage};
use crate::name::{Incarnation, ReplicaId};
use crate::os::limits::Limit;
use crate::os::live::PidCell;
use crate::os::spawn::{ChildLimit, Launch, Resource};
use crate::os::user::Identity;
use crate::spec::{Channel, Service, Unbuffer};

use super::spawner::Wiring;
use super::stdbuf;

/// What all programs are given, as this manager found it at its own start.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// `PATH HOME USER LANG TZ`, those that are set.
    pub(super) clean: BTreeMap<String, String>,
    /// The limit on open descriptors before the manager raised its own.
    pub(super) nofile: Limit,
    /// The user and group this manager runs as.
    pub(super) ids: (u32, u32),
}

/// The variables that pass from the manager's environment into a program's.
const PASSED: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TZ"];
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What tells a program that wire protocol 1 is spoken to it; see docs/PROTOCOL.md.
const OFFERED: [(&str, &str); 2] = [("PORT_PROTO", "1"), ("PORT_MODES", "frame,ndjson")];

/// The descriptors that it is spoken over, for `PORT_CHANNEL`.
fn descriptors(channel: Channel) -> &'static str {
    match channel {
        Channel::Stdio | Channel::Pty => "0,1",
        Channel::Fd3 => "3",
    }
}

impl Surroundings {
    /// Collects them; `variable` reads the manager's environment, `own` is its user's name and home.
    pub(super) fn collect(
        variable: impl Fn(&str) -> Option<String>,
        own: Option<(String, String)>,
        ids: (u32, u32),
        nofile: Limit,
    ) -> Self {
        let set = PASSED.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
        let mut clean: BTreeMap<_, _> = set.collect();
        clean.entry("PATH".to_owned()).or_insert_with(|| USUAL_PATH.to_owned());
        if let Some((name, home)) = own {
            clean.entry("USER".to_owned()).or_insert(name);
            clean.entry("HOME".to_owned()).or_insert(home);
        }
        Self { clean, nofile, ids }
    }

    /// The whole environment of one run.
    fn environment(
        &self,
        service: &Service,
        replica: &ReplicaId,
        incarnation: Incarnation,
        identity: Option<&Identity>,
    ) -> BTreeMap<String, String> {
        let mut environment = self.clean.clone();
        if let Some(identity) = identity {
            environment.insert("USER".to_owned(), identity.name.clone());
            environment.insert("HOME".to_owned(), identity.home.clone());
        }
        if service.port.as_ref().is_some_and(|port| Wiring::of(Some(port)).is_shown()) {
            environment.insert("TERM".to_owned(), "dumb".to_owned());
        }
        environment.extend(service.environment.clone());
        environment.insert("WHARF_SERVICE".to_owned(), replica.service.to_string());
        environment.insert("WHARF_REPLICA".to_owned(), replica.replica.to_string());
        environment.insert("WHARF_INCARNATION".to_owned(), incarnation.to_string());
        if let Some(port) = service.port.as_ref().filter(|port| port.is_enveloped()) {
            let offered = OFFERED.map(|(name, value)| (name.to_owned(), value.to_owned()));
            environment.extend(offered);
            environment.insert("PORT_CHANNEL".to_owned(), descriptors(port.channel).to_owned());
        }
        environment
    }
}

/// One run to prepare.
pub(super) struct Order<'a> {
    pub(super) service: &'a Service,
    pub(super) replica: &'a ReplicaId,
    pub(super) incarnation: Incarnation,
    pub(super) identity: Option<Identity>,
    /// The `cgroup.procs` of its group, and whether it may be made inside.
    pub(super) cgroup: Option<(&'a Path, bool)>,
    pub(super) pid_cell: PidCell,
}

/// Why a start cannot even be tried.
pub(super) struct Refusal {
    pub(super) stage: Stage,
    pub(super) errno: Errno,
    /// In words, where stage and errno do not say it.
    pub(super) why: Option<String>,
}

/// Prepares a start. It fails on a NUL byte, which no program could be handed, and where a library that
/// is to be preloaded is not there.
pub(super) fn prepare(
    surroundings: &Surroundings,
    order: Order<'_>,
) -> Result<Box<Launch>, Refusal> {
    let invalid = |_| Refusal { stage: Stage::Exec, errno: Errno(libc::EINVAL), why: None };
    let Order { service, replica, incarnation, identity, cgroup, pid_cell } = order;
    let mut environment =
        surroundings.environment(service, replica, incarnation, identity.as_ref());
    if service.port.as_ref().is_some_and(|port| port.unbuffer == Unbuffer::Stdbuf) {
        let path = surroundings.clean.get("PATH").map(String::as_str).unwrap_or_default();
        let library = stdbuf::library(path).map_err(|why| Refusal {
            stage: Stage::Exec,
            errno: Errno(libc::ENOENT),
            why: Some(why.to_string()),
        })?;
        stdbuf::preload(&library, &mut environment);
    }
    let pairs = environment.iter().map(|(name, value)| (&**name, &**value));
    let mut launch = Box::new(Launch::new(&service.command, pairs).map_err(invalid)?);
    launch.folder(&service.working_dir).map_err(invalid)?;
    launch.pid_cell(pid_cell);
    if service.is_kept() {
        launch.outlives_parent();
    }
    if Wiring::of(service.port.as_ref()) == Wiring::Terminal {
        launch.terminal();
    }
    if let Some((procs, inside)) = cgroup {
        launch.cgroup(procs, inside).map_err(invalid)?;
    }
    // Who is not root may not even become who he is already (setgroups(2)).
    let already = |one: &Identity| one.uid != 0 && (one.uid, one.gid) == surroundings.ids;
    if let Some(identity) = identity.filter(|one| !already(one)) {
        launch.identity(identity);
    }
    let nofile = service
        .limits
        .nofile
        .map_or(surroundings.nofile, |number| Limit { soft: number, hard: number });
    launch.limit(ChildLimit { resource: Resource::Nofile, soft: nofile.soft, hard: nofile.hard });
    if let Some(core) = service.limits.core {
        launch.limit(ChildLimit { resource: Resource::Core, soft: core, hard: core });
    }
    Ok(launch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_start_with_a_clean_environment() {
        let manager = |name: &str| match name {
            "PATH" => Some("/bin".to_owned()),
            "SECRET" => Some("x".to_owned()),
            _ => None,
        };
        let own = Some(("ada".to_owned(), "/home/ada".to_owned()));
        let limit = Limit { soft: 1, hard: 2 };
        let surroundings = Surroundings::collect(manager, own, (1, 1), limit);
        let pairs: Vec<_> = surroundings.clean.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(pairs, ["HOME=/home/ada", "PATH=/bin", "USER=ada"]);
    }
}
