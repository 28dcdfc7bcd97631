//! systemd's units: services with their drop-ins, timers and sockets.

mod exec;
mod needs;
mod neighbours;
mod reload;
mod restart;
mod schedule;
mod service;
mod start;
mod unit;

use std::path::{Path, PathBuf};

use super::draft::Origin;
use super::job::Job;
use super::table::{Row, carried, lost, noted};
use unit::{Line, Names};

/// What becomes of the keys of units.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    carried("ExecStart", "`command`", "prefixes are followed or told; variables are put in as systemd does; several become one line for a shell"),
    carried("ExecStartPre", "`command`", "run before it in the same shell line; a failure keeps it from starting"),
    carried("ExecReload", "`reload_signal`", "where it is a `kill -SIGNAL $MAINPID`, also by a shell; others are lost. `config_files` are those that the command names by absolute paths that end with .conf, .yaml and the like"),
    carried("ReloadSignal", "`reload_signal`", "with `Type=notify-reload`, for which it is SIGHUP otherwise"),
    carried("ExecStop", "`stop_signal`", "where it is a `kill -SIGNAL $MAINPID`; others are lost"),
    carried("Type", "`ready` for notify, `reload_signal` for notify-reload, `restart: no` for oneshot", "forking is lost: the program must stay in the foreground"),
    carried("Environment", "`environment`", ""),
    carried("EnvironmentFile", "`env_file`", ""),
    carried("PassEnvironment", "`environment: { NAME: \"${NAME:-}\" }`", ""),
    carried("UnsetEnvironment", "left out of `environment`", ""),
    carried("WorkingDirectory", "`working_dir`", "`/` where it is not written"),
    carried("User", "`user`", "with `Group`"),
    carried("Group", "`user`", "without `User` it is lost"),
    carried("SupplementaryGroups", "`group_add`", ""),
    carried("Restart", "`restart`", "`no` where it is not written; on-abnormal, on-abort and on-success by `never_on`"),
    carried("RestartSec", "`restart.delay`", "with `factor: 1`; the first restart in a row is immediate"),
    carried("RestartMaxDelaySec", "`restart.max_delay`", "with `factor: 2`"),
    carried("StartLimitIntervalSec", "`restart.within`", "also StartLimitInterval"),
    carried("StartLimitInterval", "`restart.within`", ""),
    carried("StartLimitBurst", "`restart.max_restarts`", ""),
    carried("SuccessExitStatus", "`restart.success_exit_codes`, `success_signals`", "SIGHUP, SIGINT, SIGTERM and SIGPIPE are successes, as for systemd"),
    carried("RestartPreventExitStatus", "`restart.success_exit_codes`", "so that they end it; the reason is `completed` then"),
    carried("TimeoutStopSec", "`stop_grace_period`", "90s where it is not written, as for systemd"),
    carried("TimeoutStartSec", "`start_timeout`", ""),
    carried("TimeoutSec", "`start_timeout`, `stop_grace_period`", ""),
    carried("WatchdogSec", "`watchdog`", "what misses it is asked to end with the stop signal, not SIGABRT"),
    carried("KillSignal", "`stop_signal`", ""),
    carried("KillMode", "`stop_kill`", "control-group and mixed are tree, process is process; none is lost"),
    carried("LimitNOFILE", "`limits.nofile`", "the hard limit; infinity is 1048576"),
    carried("LimitCORE", "`limits.core`", "likewise STACK, AS, DATA, FSIZE, MEMLOCK and MSGQUEUE"),
    carried("LimitNPROC", "`limits.nproc`", "likewise SIGPENDING and RTPRIO; infinity is left out"),
    carried("LimitCPU", "`limits.cpu`", "infinity is left out"),
    carried("OOMPolicy", "`limits.on_oom`", "stop is kill: the kernel has killed a part of it already"),
    carried("MemoryMax", "`limits.memory`", "also MemoryLimit; a percentage is lost"),
    carried("MemoryLimit", "`limits.memory`", ""),
    carried("CPUQuota", "`limits.cpus`", ""),
    carried("TasksMax", "`limits.pids`", "infinity is left out, a percentage is lost"),
    carried("Nice", "`nice`", ""),
    carried("UMask", "`umask`", ""),
    carried("OOMScoreAdjust", "`oom_score_adj`", ""),
    carried("NoNewPrivileges", "`no_new_privileges`", ""),
    carried("CapabilityBoundingSet", "`cap_drop`", "where it begins with ~; a list of what is kept is lost"),
    carried("RuntimeDirectory", "`environment: { RUNTIME_DIRECTORY }`", "likewise State-, Cache-, Logs- and ConfigurationDirectory; nobody makes the folder"),
    carried("StateDirectory", "`environment: { STATE_DIRECTORY }`", ""),
    carried("CacheDirectory", "`environment: { CACHE_DIRECTORY }`", ""),
    carried("LogsDirectory", "`environment: { LOGS_DIRECTORY }`", ""),
    carried("ConfigurationDirectory", "`environment: { CONFIGURATION_DIRECTORY }`", ""),
    carried("Description", "a comment", ""),
    carried("After", "`depends_on`", "for units of the same import, with the condition that `Type` stands for; targets are there before wharf"),
    carried("Requires", "`depends_on`", "also Wants, with `required: false`, BindsTo and Requisite"),
    carried("Wants", "`depends_on`", ""),
    carried("BindsTo", "`depends_on`", ""),
    carried("Requisite", "`depends_on`", ""),
    carried("OnCalendar", "`schedule.cron`", "of a timer"),
    carried("OnUnitActiveSec", "`schedule.every`", "of a timer; also OnUnitInactiveSec"),
    carried("OnUnitInactiveSec", "`schedule.every`", ""),
    carried("Unit", "the service it is for", "of a timer"),
    carried("Service", "the service it is for", "of a socket"),
    carried("ListenStream", "`listen`", "of a socket: an address, a port, or a path"),
    carried("ListenDatagram", "`listen`", "an address or a port"),
    carried("FileDescriptorName", "`listen.name`", ""),
    carried("%i", "the instance", "in `wharf import worker@1.service`; likewise n N p P I j f t S C L E T V; h and u are ${HOME} and ${USER}"),
    carried("StandardInput", "nothing to write", "null; everything else is lost"),
    carried("StandardOutput", "nothing to write", "the journal's place is .wharf/log; files and null are lost"),
    carried("StandardError", "nothing to write", ""),
    noted("Documentation", "see the unit"),
    noted("WantedBy", "`wharf up` starts it"),
    noted("RequiredBy", "`wharf up` starts it"),
    noted("Also", "name the other units in the same import"),
    noted("DefaultDependencies", "wharf is started when the machine is up"),
    noted("RemainAfterExit", "what has finished with success counts as finished, not as failed"),
    noted("GuessMainPID", "the main process is the one that was started"),
    noted("SyslogIdentifier", "lines carry the service's name"),
    noted("Slice", "each replica has a control group below wharf's"),
    noted("Delegate", "a program does not get its control group"),
    noted("MemoryAccounting", "usage is always kept"),
    noted("CPUAccounting", "usage is always kept"),
    noted("TasksAccounting", "usage is always kept"),
    noted("IOAccounting", "usage is always kept"),
    noted("TimeoutStopFailureMode", "what does not obey is killed"),
    lost("Alias", "a service has one name", ""),
    lost("ExecStartPost", "nothing is run after a start", "put it into the command, or into a service of its own"),
    lost("ExecStopPost", "nothing is run after an end", "follow `wharf exits -f`"),
    lost("ExecCondition", "no condition is asked", "put it into the command"),
    lost("PIDFile", "a program that goes into the background has ended for wharf", "have it stay in the foreground"),
    lost("BusName", "D-Bus names are not waited for", ""),
    noted("NotifyAccess", "whatever the service started is listened to, and nobody else"),
    lost("RestartForceExitStatus", "codes do not force a restart", "`restart: always`"),
    lost("RestartSteps", "waits grow by a factor", "see `restart.factor`"),
    lost("RuntimeMaxSec", "what ran for long enough is renewed and does not fail", "see `max_lifetime`"),
    lost("SendSIGKILL", "what does not obey is always killed", ""),
    lost("SendSIGHUP", "one signal asks to end", ""),
    lost("FinalKillSignal", "the last signal is SIGKILL", ""),
    lost("RestartKillSignal", "one signal asks to end", ""),
    lost("StartLimitAction", "the machine is left alone", ""),
    lost("FailureAction", "the machine is left alone", ""),
    lost("SuccessAction", "the machine is left alone", ""),
    lost("OnFailure", "no other unit is started", "follow `wharf exits -f`"),
    lost("OnSuccess", "no other unit is started", "follow `wharf exits -f`"),
    lost("Before", "order is written the other way round", "write `depends_on` below the other service"),
    lost("PartOf", "a stop of one stops no other", ""),
    lost("Conflicts", "nothing is stopped for another", ""),
    lost("Upholds", "no other unit is started", ""),
    lost("ReloadPropagatedFrom", "a reload reaches one service", ""),
    lost("PropagatesReloadTo", "a reload reaches one service", ""),
    lost("JoinsNamespaceOf", "services share this machine's folders", ""),
    lost("RequiresMountsFor", "mounts are not waited for", "start wharf after them"),
    lost("StopWhenUnneeded", "nothing is stopped by itself", ""),
    lost("RefuseManual*", "everything can be started and stopped by hand", ""),
    lost("AllowIsolate", "there are no targets", ""),
    lost("CollectMode", "exits are kept in the journal", ""),
    lost("SourcePath", "comes from elsewhere", ""),
    lost("Condition*", "conditions are not asked", "put a test into the command"),
    lost("Assert*", "conditions are not asked", "put a test into the command"),
    lost("DynamicUser", "no user is made for it", "make one and write `user:`"),
    lost("RootDirectory", "programs see this machine's folders", ""),
    lost("RootImage", "programs see this machine's folders", ""),
    lost("Limit*", "there is no such limit", "set it before `wharf up` with ulimit"),
    lost("MemoryDenyWriteExecute", "system calls are not restricted", ""),
    lost("Memory*", "there is no such limit", "`limits.memory` is the one there is"),
    lost("CPU*", "processors are not shared out", "`limits.cpus` bounds it"),
    lost("IO*", "input and output are not limited", ""),
    lost("BlockIO*", "input and output are not limited", ""),
    lost("Ambient*", "nothing is granted", "give the file the capability with setcap"),
    lost("SecureBits", "nothing is granted", ""),
    lost("Protect*", "folders and the kernel are not hidden", "run it as a user of its own"),
    lost("Private*", "folders, devices and networks are not private", "run it as a user of its own"),
    lost("Restrict*", "system calls and namespaces are not restricted", "run it as a user of its own"),
    lost("SystemCall*", "system calls are not filtered", ""),
    lost("ReadWritePaths", "folders are not hidden", ""),
    lost("ReadOnlyPaths", "folders are not hidden", ""),
    lost("InaccessiblePaths", "folders are not hidden", ""),
    lost("ReadWriteDirectories", "folders are not hidden", ""),
    lost("BindPaths", "nothing is mounted", ""),
    lost("BindReadOnlyPaths", "nothing is mounted", ""),
    lost("TemporaryFileSystem", "nothing is mounted", ""),
    lost("MountFlags", "mounts are this machine's", ""),
    lost("ProcSubset", "folders are not hidden", ""),
    lost("LockPersonality", "system calls are not restricted", ""),
    lost("RemoveIPC", "shared memory is left alone", ""),
    lost("KeyringMode", "keyrings are left alone", ""),
    lost("Device*", "devices are not restricted", ""),
    lost("IPAddress*", "addresses are not filtered", "use a firewall"),
    lost("SocketBind*", "addresses are not filtered", ""),
    lost("LoadCredential*", "credentials are not handed over yet", "see `secrets`"),
    lost("SetCredential*", "credentials are not handed over yet", "see `secrets`"),
    lost("IgnoreSIGPIPE", "SIGPIPE is as a program finds it by default", ""),
    lost("RuntimeDirectoryMode", "nobody makes the folder", "make it with install -d"),
    lost("StateDirectoryMode", "nobody makes the folder", "make it with install -d"),
    lost("CacheDirectoryMode", "nobody makes the folder", "make it with install -d"),
    lost("LogsDirectoryMode", "nobody makes the folder", "make it with install -d"),
    lost("ConfigurationDirectoryMode", "nobody makes the folder", "make it with install -d"),
    lost("RuntimeDirectoryPreserve", "nobody removes the folder", ""),
    lost("Log*", "logs are kept whole", "choose with `wharf logs`"),
    lost("Syslog*", "output is kept in .wharf/log", ""),
    lost("TTY*", "programs have no terminal", ""),
    lost("UtmpIdentifier", "there is no terminal", ""),
    lost("PAMName", "no session is opened", ""),
    lost("CPUScheduling*", "there is `nice` alone", ""),
    lost("NUMA*", "memory is the kernel's to place", ""),
    lost("Personality", "programs run as they are", ""),
    lost("Sockets", "a socket is `listen` of its service", "import the .socket beside it"),
    lost("NonBlocking", "descriptors are as the program makes them", ""),
    lost("FileDescriptorStoreMax", "descriptors are not kept over a restart", ""),
    lost("USBFunction*", "nothing to do with services here", ""),
    lost("OnBootSec", "the first run has no time of its own", ""),
    lost("OnStartupSec", "the first run has no time of its own", ""),
    lost("OnActiveSec", "the first run has no time of its own", ""),
    lost("Persistent", "only times missed while wharf is up are made up for", ""),
    lost("AccuracySec", "times are exact", ""),
    lost("RandomizedDelaySec", "times are exact", ""),
    lost("FixedRandomDelay", "times are exact", ""),
    lost("WakeSystem", "the machine is left to sleep", ""),
    lost("Accept", "one program serves all connections", ""),
    lost("Socket*", "sockets have the usual options", ""),
    lost("NoDelay", "sockets have the usual options", ""),
    lost("KeepAlive*", "sockets have the usual options", ""),
    lost("Backlog", "sockets have the usual options", ""),
    lost("ReusePort", "sockets have the usual options", ""),
    lost("FreeBind", "sockets have the usual options", ""),
    lost("Broadcast", "sockets have the usual options", ""),
    lost("Pass*", "sockets have the usual options", ""),
    lost("BindIPv6Only", "sockets have the usual options", ""),
    lost("MaxConnections*", "connections are not counted", ""),
    lost("DirectoryMode", "folders have the usual mode", ""),
    lost("ListenSequentialPacket", "there are streams and datagrams", ""),
    lost("ListenFIFO", "there are sockets only", ""),
    lost("ListenNetlink", "there are sockets only", ""),
    lost("ListenSpecial", "there are sockets only", ""),
    lost("RemoveOnStop", "a socket's path is made anew at each start", ""),
];

/// A unit with its drop-ins.
struct Unit {
    names: Names,
    file: usize,
    lines: Vec<Line>,
}

impl Unit {
    fn kind(&self) -> &str {
        self.names.full.rsplit_once('.').map_or("service", |(_, kind)| kind)
    }

    /// The values of a key that is a list; an empty one takes back those before it.
    fn all(&self, section: &str, key: &str) -> Vec<&Line> {
        let lines =
            self.lines.iter().filter(|line| line.section == section && line.from.key == key);
        let mut values: Vec<&Line> = Vec::new();
        for line in lines {
            if line.value.is_empty() {
                values.clear();
            } else {
                values.push(line);
            }
        }
        values
    }

    /// The last value of a key.
    fn last(&self, section: &str, key: &str) -> Option<&Line> {
        let mut lines = self.lines.iter().rev();
        lines.find(|line| line.section == section && line.from.key == key)
    }
}

/// The template of an instance: `worker@.service` for `worker@1.service`.
pub(super) fn template(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (prefix, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| path.with_file_name(format!("{prefix}@.{kind}")))
}

/// Reads the files, with what lies beside them.
pub(super) fn read(job: &mut Job<'_>, files: &[usize]) {
    let mut units = Vec::new();
    for &file in files {
        let unit = open(job, file);
        units.push(unit);
    }
    neighbours::find(job, &mut units);
    let mut made: Vec<needs::Made> = Vec::new();
    for unit in units.iter().filter(|unit| unit.kind() == "service") {
        if let Some((mut draft, needs)) = service::read(job, unit) {
            for other in units.iter().filter(|other| neighbours::served(other) == unit.names.full) {
                match other.kind() {
                    "timer" => neighbours::timer(job, &mut draft, other),
                    "socket" => neighbours::socket(job, &mut draft, other),
                    _ => {}
                }
            }
            made.push(needs::Made {
                unit: unit.names.full.clone(),
                name: draft.name.clone(),
                condition: needs::condition(unit),
                needs,
            });
            job.drafts.push(draft);
        }
    }
    for unit in &units {
        let for_whom = neighbours::served(unit);
        if unit.kind() != "service" && !made.iter().any(|made| made.unit == for_whom) {
            let from = Origin::new(unit.names.full.as_str(), Job::top(unit.file));
            let why = format!("{for_whom}, which it is for, is not part of this import");
            job.lose(&from, why, "name that unit too");
        }
    }
    let others: Vec<_> = units.iter().filter(|unit| unit.kind() != "service").collect();
    let others: Vec<_> = others.iter().map(|unit| unit.names.full.clone()).collect();
    needs::dependencies(job, &made, &others);
}

/// A unit with its drop-ins, from a file that was read.
fn open(job: &mut Job<'_>, file: usize) -> Unit {
    let path = job.path(file).to_owned();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let known =
        ["service", "timer", "socket"].iter().any(|kind| name.ends_with(&format!(".{kind}")));
    let full = if known { name.to_owned() } else { format!("{name}.service") };
    let mut lines = unit::read(job, file);
    let names = Names { full };
    let mut folders = Vec::new();
    if let Some(template) = template(&path) {
        folders.push(with_end(&template));
    }
    folders.push(with_end(&path));
    for folder in folders {
        let mut dropped = (job.world.list)(&folder);
        dropped.retain(|name| Path::new(name).extension().is_some_and(|end| end == "conf"));
        dropped.sort();
        for name in dropped {
            if let Some(more) = job.open(&folder.join(name)) {
                lines.extend(unit::read(job, more));
            }
        }
    }
    Unit { names, file, lines }
}

/// The folder of a unit's drop-ins.
fn with_end(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".d");
    PathBuf::from(name)
}
