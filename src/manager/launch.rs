//! From a service's configuration to a prepared start: environment, limits, folder, identity.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::exit::{Errno, Stage};
use crate::name::{Incarnation, ReplicaId};
use crate::os::limits::{self, Limit, Resource};
use crate::os::live::PidCell;
use crate::os::mark;
use crate::os::spawn::{ChildLimit, Launch, Privileges};
use crate::os::user::Identity;
use crate::port::stdbuf;
use crate::spec::{CHANNEL_NAME, CPU_GRACE, Channel, Rights, SecretBy, Service, Unbuffer};

use super::confine::resources;
use super::spawner::Wiring;

/// What all programs are given, as this manager found it at its own start.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// `PATH HOME USER LANG TZ`, those that are set.
    pub(super) clean: BTreeMap<String, String>,
    own: Own,
}

/// What this manager is itself.
#[derive(Debug, Clone)]
pub(super) struct Own {
    /// The user and group it runs as.
    pub(super) ids: (u32, u32),
    /// Its further groups.
    pub(super) groups: Vec<u32>,
    /// The limit on open descriptors before it raised its own.
    pub(super) nofile: Limit,
    /// The limit in which runs are marked.
    pub(super) locks: Option<Limit>,
}

impl Own {
    /// Whether it is that user already. Who is not root may not even become who he is (setgroups(2)).
    fn is(&self, identity: &Identity) -> bool {
        identity.uid != 0
            && (identity.uid, identity.gid) == self.ids
            && identity.added.iter().all(|group| self.groups.contains(group))
    }
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
        itself: Own,
    ) -> Self {
        let set = PASSED.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
        let mut clean: BTreeMap<_, _> = set.collect();
        clean.entry("PATH".to_owned()).or_insert_with(|| USUAL_PATH.to_owned());
        if let Some((name, home)) = own {
            clean.entry("USER".to_owned()).or_insert(name);
            clean.entry("HOME".to_owned()).or_insert(home);
        }
        Self { clean, own: itself }
    }

    /// The limits that whatever is started has: that on descriptors which this manager found, and the
    /// mark by which what it leaves behind is found.
    pub(super) fn usual_limits(&self, mark: u64) -> impl Iterator<Item = ChildLimit> {
        let Limit { soft, hard } = self.own.nofile;
        let nofile = ChildLimit { resource: Resource::Nofile, soft, hard };
        let marked = self.own.locks.and_then(|locks| mark::limit(mark, locks));
        std::iter::once(nofile).chain(marked)
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
        if let Some(login) = identity.and_then(|identity| identity.login.as_ref()) {
            environment.insert("USER".to_owned(), login.name.clone());
            environment.insert("HOME".to_owned(), login.home.clone());
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
        environment.extend(given(service));
        environment
    }
}

/// The number of a program, as sd_listen_fds(3) wants it, which is written by the program itself.
const LISTEN_PID: &str = "LISTEN_PID";

/// The variables that tell a program which of its descriptors is what. A port's channel on descriptor 3
/// is counted among the sockets, for these begin at 3 by the protocol.
fn given(service: &Service) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    if !service.listen.is_empty() {
        let channel = service.has_channel_descriptor().then_some(CHANNEL_NAME);
        let names = service.listen.iter().map(|socket| socket.name.as_str());
        let names: Vec<&str> = channel.into_iter().chain(names).collect();
        told.insert("LISTEN_FDS".to_owned(), names.len().to_string());
        told.insert("LISTEN_FDNAMES".to_owned(), names.join(":"));
    }
    for (socket, number) in service.listen.iter().zip(service.first_socket()..) {
        told.insert(socket.variable(), number.to_string());
    }
    for (secret, number) in service.secrets.iter().zip(service.first_secret()..) {
        let value = match secret.by {
            SecretBy::File => format!("/dev/fd/{number}"),
            SecretBy::Fd => number.to_string(),
        };
        told.insert(secret.variable(), value);
    }
    told
}

/// One run to prepare.
pub(super) struct Order<'a> {
    pub(super) service: &'a Service,
    pub(super) replica: &'a ReplicaId,
    pub(super) incarnation: Incarnation,
    pub(super) identity: Option<Identity>,
    /// The `cgroup.procs` of its group, and whether it may be made inside.
    pub(super) cgroup: Option<(&'a Path, bool)>,
    /// Those of further groups, that limit it.
    pub(super) entered: &'a [PathBuf],
    /// Where the kernel is to write its number.
    pub(super) pid_cell: Option<PidCell>,
    /// What all its processes carry.
    pub(super) mark: u64,
    /// Variables of the manager's own, beside those that every run has.
    pub(super) more: Vec<(&'static str, String)>,
}

/// Why a start cannot even be tried.
#[derive(Debug)]
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
    let Order { service, replica, incarnation, identity, cgroup, entered, pid_cell, mark, more } =
        order;
    let mut environment =
        surroundings.environment(service, replica, incarnation, identity.as_ref());
    let is_watched = more.iter().any(|(name, _)| *name == "WATCHDOG_USEC");
    environment.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    if service.port.as_ref().is_some_and(|port| port.unbuffer == Unbuffer::Stdbuf) {
        let path = surroundings.clean.get("PATH").map(String::as_str).unwrap_or_default();
        let library = stdbuf::library(path).map_err(|why| Refusal {
            stage: Stage::Exec,
            errno: Errno(libc::ENOENT),
            why: Some(why.to_string()),
        })?;
        let preloads = environment.get("LD_PRELOAD").cloned().unwrap_or_default();
        for (name, value) in stdbuf::variables(&library, preloads.as_ref()) {
            environment.insert(name.to_owned(), value.to_string_lossy().into_owned());
        }
    }
    if !service.listen.is_empty() {
        environment.remove(LISTEN_PID);
    }
    let pairs = environment.iter().map(|(name, value)| (&**name, &**value));
    let mut launch = Box::new(Launch::new(&service.command, pairs).map_err(invalid)?);
    if !service.listen.is_empty() {
        launch.pid_variable(LISTEN_PID).map_err(invalid)?;
    }
    launch.folder(&service.working_dir).map_err(invalid)?;
    if let Some(cell) = pid_cell {
        launch.pid_cell(cell);
    }
    if is_watched {
        launch.pid_variable("WATCHDOG_PID").map_err(invalid)?;
    }
    if service.is_kept() {
        launch.outlives_parent();
    }
    if Wiring::of(service.port.as_ref()) == Wiring::Terminal {
        launch.terminal();
    }
    if let Some((procs, inside)) = cgroup {
        launch.cgroup(procs, inside).map_err(invalid)?;
    }
    for procs in entered {
        launch.enter(procs).map_err(invalid)?;
    }
    if let Some(identity) = identity.filter(|one| !surroundings.own.is(one)) {
        launch.identity(identity);
    }
    set_rights(&mut launch, &service.rights);
    // In the order of `resources`: a child that is refused one says which by its place.
    for (resource, value) in resources(&service.limits) {
        let hard = if resource == Resource::Cpu { kills_at(value) } else { value };
        launch.limit(ChildLimit { resource, soft: value, hard });
    }
    let set_already = service.limits.nofile.is_some();
    for limit in surroundings.usual_limits(mark) {
        if !(set_already && limit.resource == Resource::Nofile) {
            launch.limit(limit);
        }
    }
    Ok(launch)
}

/// Where the processor time of a program ends that was told that its limit is reached, and went on; in
/// seconds. What is not ours to give is not given.
fn kills_at(cpu: u64) -> u64 {
    let most = limits::cpu().map_or(u64::MAX, |own| own.hard);
    cpu.saturating_add(CPU_GRACE.as_secs()).min(most.max(cpu))
}

fn set_rights(launch: &mut Launch, rights: &Rights) {
    launch.umask(rights.umask);
    if let Some(nice) = rights.nice {
        launch.nice(nice);
    }
    if let Some(adjustment) = rights.oom_score_adj {
        launch.oom_score_adj(adjustment);
    }
    let dropped = rights.cap_drop.iter().fold(0, |all, one| all | one.mask());
    launch.privileges(Privileges { dropped, no_new: rights.no_new_privileges });
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
        let nofile = Limit { soft: 1, hard: 2 };
        let itself = Own { ids: (1, 1), groups: Vec::new(), nofile, locks: None };
        let surroundings = Surroundings::collect(manager, own, itself);
        let pairs: Vec<_> = surroundings.clean.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(pairs, ["HOME=/home/ada", "PATH=/bin", "USER=ada"]);
    }
}
