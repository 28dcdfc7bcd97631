//! One service from written to meant: defaults filled in, and the rules between keys.
//!
//! Everything here has passed the schema; what is left are the mistakes that a schema cannot see.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::check::Environment;
use super::env_file::Answer;
use super::mistake::{Found, Source};
use super::tree::{Entry, Node, Place};
use super::{
    Contents, Forward, JOURNALD, KillScope, Logging, Missed, OnGiveUp, OnManagerExit, Overlap,
    Policy, Restart, Rhythm, START_TIMEOUT, SYSLOG, Schedule, Service, SignalName, Stop, WhenFull,
    mean_depend, mean_files, mean_given, mean_health, mean_hook, mean_port, mean_rights, written,
};
use crate::name::ServiceName;

/// The smallest log file, in bytes. Below it a log would be rotated for every other line.
const SMALLEST_LOG: u64 = 1024;
/// The shortest rhythm of a schedule. What is to run more often is a service with a loop.
const SHORTEST_RHYTHM: std::time::Duration = std::time::Duration::from_secs(1);

/// Reads a file of variables, adding its text to the sources and what is wrong in it to the mistakes.
type ReadVariables<'a> = dyn FnMut(&str, &mut Vec<Source>, &mut Vec<Found>) -> Answer + 'a;

/// What surrounds the services.
pub(super) struct Mean<'a> {
    /// Where mistakes go.
    pub(super) found: &'a mut Vec<Found>,
    /// Where warnings go.
    pub(super) warnings: &'a mut Vec<Found>,
    /// The manager's own environment.
    pub(super) environment: Environment<'a>,
    /// The folder of the first file, absolute.
    pub(super) folder: &'a Path,
    /// Where texts go that mistakes are found in.
    pub(super) sources: &'a mut Vec<Source>,
    /// The files of variables that were read so far.
    pub(super) env_files: &'a mut ReadVariables<'a>,
    /// Where the secrets at the top of the file come from.
    pub(super) secret_sources: &'a HashMap<String, Option<String>>,
    /// Why a file cannot be read, in words.
    pub(super) trouble_with: &'a dyn Fn(&Path) -> Option<String>,
    /// What stands in a file or folder, or why that is nothing to look into.
    pub(super) contents: &'a dyn Fn(&Path) -> Result<Contents, String>,
}

/// One service while it is looked at.
pub(super) struct Subject<'s, 'a> {
    mean: &'s mut Mean<'a>,
    entry: &'s Entry,
}

impl Mean<'_> {
    /// The service that `entry` writes; `None` when something stands in the way of making it.
    pub(super) fn service(
        &mut self,
        entry: &Entry,
        written: written::Service,
    ) -> Option<Arc<Service>> {
        let name = ServiceName::new(&entry.key).ok()?;
        let mut subject = Subject { mean: self, entry };
        let codes = written.port.as_ref().and_then(|port| port.success_exit_codes.clone());
        let mut spoken = written.port;
        let mut ready = written.ready;
        mean_health::give_to_port(&mut subject, ready.as_mut(), spoken.as_mut());
        let port = spoken.map(|port| mean_port::port(&mut subject, port));
        let service = Service {
            name,
            command: subject.command(written.command, written.shell.unwrap_or(false)),
            working_dir: subject.working_dir(written.working_dir),
            environment: mean_given::variables(&mut subject, written.env_file, written.environment),
            listen: mean_given::listen(&mut subject, written.listen),
            config_files: mean_files::config_files(&mut subject, written.config_files),
            reload_signal: mean_files::reload_signal(&mut subject, written.reload_signal),
            secrets: mean_given::secrets(&mut subject, written.secrets),
            on_event: subject.hooks(written.on_event),
            user: written.user.map(|user| user.0),
            replicas: written.replicas.unwrap_or(1),
            depends_on: mean_depend::dependencies(written.depends_on).collect(),
            profiles: profiles(written.profiles),
            ready: mean_health::ready(&mut subject, ready, port.as_ref()),
            healthcheck: mean_health::healthcheck(&mut subject, written.healthcheck, port.as_ref()),
            watchdog: mean_health::watchdog(&mut subject, written.watchdog),
            max_memory: mean_health::max_memory(&mut subject, written.max_memory),
            max_lifetime: mean_health::max_lifetime(&mut subject, written.max_lifetime),
            port,
            restart: subject.restart(written.restart, codes, written.schedule.is_some()),
            start_timeout: subject.start_timeout(written.start_timeout),
            stop: stop(written.stop_signal, written.stop_grace_period, written.stop_kill),
            on_manager_exit: on_manager_exit(written.on_manager_exit),
            logging: subject.logging(written.logging),
            limits: mean_rights::limits(&mut subject, written.limits),
            rights: mean_rights::rights(
                &mut subject,
                mean_rights::Written {
                    umask: written.umask,
                    nice: written.nice,
                    oom_score_adj: written.oom_score_adj,
                    group_add: written.group_add,
                    no_new_privileges: written.no_new_privileges,
                    cap_drop: written.cap_drop,
                },
            ),
            schedule: written.schedule.and_then(|schedule| subject.schedule(&schedule)),
            labels: subject.labels(written.labels),
        };
        mean_given::rules(&mut subject, &service);
        mean_files::rules(&mut subject, &service);
        Some(Arc::new(service))
    }
}

impl Subject<'_, '_> {
    fn node(&self) -> &Node {
        &self.entry.value
    }

    /// Whether one of these keys is written in a block, rightly or wrongly.
    pub(super) fn has_any(&self, block: &str, keys: &[&str]) -> bool {
        let block = self.node().get(block);
        block.is_some_and(|block| keys.iter().any(|key| block.get(key).is_some()))
    }

    /// A mistake at the value with this path, below the service.
    pub(super) fn complain(&mut self, path: &[&str], message: impl Into<String>) {
        let place = self.node().place_of(path);
        self.complain_at(place, path, message, None);
    }

    /// The same, with what could be done.
    pub(super) fn complain_with(&mut self, path: &[&str], message: String, help: &str) {
        let place = self.node().place_of(path);
        self.complain_at(place, path, message, Some(help));
    }

    fn complain_at(
        &mut self,
        place: Place,
        path: &[&str],
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        let found = self.found(place, path, message.into(), help);
        self.mean.found.push(found);
    }

    /// Something to be told without refusing the file.
    pub(super) fn warn(&mut self, path: &[&str], message: impl Into<String>, help: &str) {
        let place = self.node().place_of(path);
        let found = self.found(place, path, message.into(), Some(help));
        self.mean.warnings.push(found);
    }

    fn found(&self, place: Place, path: &[&str], message: String, help: Option<&str>) -> Found {
        let mut whole = format!("services.{}", self.entry.key);
        for step in path {
            if step.parse::<usize>().is_ok() {
                let _ = write!(whole, "[{step}]");
            } else {
                whole.push('.');
                whole.push_str(step);
            }
        }
        Found { place: Some(place), path: whole, message, help: help.map(str::to_owned) }
    }

    fn command(&mut self, written: Option<written::Command>, shell: bool) -> Vec<String> {
        let at = &["command"];
        let words = match written {
            None if self.node().get("command").is_some() => return Vec::new(), // said already
            None => {
                let help = "what to run: a list, or a text that is split into words";
                let place = self.entry.place;
                self.complain_at(place, &[], "the key `command` is missing", Some(help));
                return Vec::new();
            }
            Some(written::Command::Words(_)) if shell => {
                self.complain(
                    &["shell"],
                    "a list is executed as it stands; a shell takes one text as `command`",
                );
                return Vec::new();
            }
            Some(written::Command::Words(words)) => words.into_iter().map(|word| word.0).collect(),
            Some(written::Command::Line(line)) if shell && line.0.trim().is_empty() => Vec::new(),
            Some(written::Command::Line(line)) if shell => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), line.0]
            }
            Some(written::Command::Line(line)) => {
                let Ok(words) = shell_words::split(&line.0) else {
                    self.complain(at, "a quote is opened and not closed");
                    return Vec::new();
                };
                self.warn_of_shell_words(&words);
                words
            }
        };
        if words.first().is_none_or(String::is_empty) {
            self.complain(at, "the command is empty");
        }
        if words.iter().any(|word| word.contains('\0')) {
            self.complain(at, "a NUL byte cannot be passed to a program");
        }
        words
    }

    fn warn_of_shell_words(&mut self, words: &[String]) {
        const OPERATORS: &[&str] = &["|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>"];
        if let Some(word) = words.iter().find(|word| OPERATORS.contains(&word.as_str())) {
            self.warn(
                &["command"],
                format!("`{word}` is passed to the program as a word"),
                "write `shell: true` beside it to have a shell read the line",
            );
        }
    }

    fn working_dir(&mut self, written: Option<written::Word>) -> PathBuf {
        match written {
            None => self.mean.folder.to_owned(),
            Some(path) => {
                if path.0.is_empty() || path.0.contains('\0') {
                    self.complain(&["working_dir"], "this is not a path");
                }
                self.mean.folder.join(path.0)
            }
        }
    }

    fn hooks(&mut self, written: Option<written::Hooks>) -> Vec<super::Hook> {
        let (hooks, wrong) = mean_hook::hooks(written, self.mean.folder);
        for (path, message) in wrong {
            let path: Vec<&str> =
                ["on_event"].into_iter().chain(path.iter().map(String::as_str)).collect();
            self.complain(&path, message);
        }
        hooks
    }

    /// Whether something stands at this path, be it right or wrong.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        let (last, before) = path.split_last().map_or(("", path), |(last, before)| (*last, before));
        self.node().at(before).is_some_and(|node| node.get(last).is_some())
    }

    /// The value of a variable in the manager's own environment.
    pub(super) fn around(&self, name: &str) -> Option<String> {
        (self.mean.environment)(name)
    }

    /// A path from the folder of the first file, absolute.
    pub(super) fn beside(&self, written: &str) -> PathBuf {
        self.mean.folder.join(written)
    }

    /// Where a secret comes from by the top of the file.
    pub(super) fn secret_source(&self, name: &str) -> Option<String> {
        self.mean.secret_sources.get(name).cloned().flatten()
    }

    /// Whether the top of the file has a secret of that name.
    pub(super) fn is_declared_secret(&self, name: &str) -> bool {
        self.mean.secret_sources.contains_key(name)
    }

    /// Why a file cannot be read, in words.
    pub(super) fn trouble_with(&self, path: &Path) -> Option<String> {
        (self.mean.trouble_with)(path)
    }

    /// What stands in a file or folder, or why that is nothing to look into.
    pub(super) fn contents(&self, path: &Path) -> Result<Contents, String> {
        (self.mean.contents)(path)
    }

    /// The variables of a file.
    pub(super) fn env_file(&mut self, path: &str) -> Answer {
        (self.mean.env_files)(path, self.mean.sources, self.mean.found)
    }

    /// `codes` are those that the port, or its profile, says mean success. What is started by the
    /// clock is started again by the clock.
    fn restart(
        &mut self,
        written: Option<written::Restart>,
        codes: Option<Vec<i32>>,
        scheduled: bool,
    ) -> Restart {
        let mut usual = Restart::default();
        if scheduled {
            usual.policy = Policy::No;
        }
        usual.success_exit_codes = codes.unwrap_or(usual.success_exit_codes);
        let long = match written {
            None => return usual,
            Some(written::Restart::Short(word)) => {
                return Restart { policy: policy(word), ..usual };
            }
            Some(written::Restart::Long(long)) => *long,
        };
        let restart = Restart {
            policy: long.policy.map_or(usual.policy, policy),
            delay: long.delay.map_or(usual.delay, |length| length.0),
            factor: long.factor.unwrap_or(usual.factor),
            max_delay: long.max_delay.map_or(usual.max_delay, |length| length.0),
            jitter: long.jitter.unwrap_or(usual.jitter),
            reset_after: long.reset_after.map_or(usual.reset_after, |length| length.0),
            max_restarts: long.max_restarts.unwrap_or(usual.max_restarts),
            within: long.within.map_or(usual.within, |length| length.0),
            on_give_up: long.on_give_up.map_or(usual.on_give_up, on_give_up),
            success_exit_codes: long.success_exit_codes.unwrap_or(usual.success_exit_codes),
            success_signals: long.success_signals.map_or(usual.success_signals, |signals| {
                signals.into_iter().map(|signal| SignalName(signal.0)).collect()
            }),
            never_on: long.never_on.map_or(usual.never_on, |reasons| {
                reasons.into_iter().map(|reason| reason.0).collect()
            }),
        };
        self.restart_rules(&restart);
        restart
    }

    fn restart_rules(&mut self, restart: &Restart) {
        if restart.max_delay < restart.delay {
            let at = if self.node().get("restart").is_some_and(|r| r.get("max_delay").is_some()) {
                "max_delay"
            } else {
                "delay"
            };
            let message = format!(
                "`delay` ({}) is longer than `max_delay` ({})",
                crate::time::format_duration(restart.delay),
                crate::time::format_duration(restart.max_delay),
            );
            self.complain(&["restart", at], message);
        }
        if restart.within.is_zero() {
            self.complain(&["restart", "within"], "the time must be longer than 0");
        }
        if let OnGiveUp::RetryEvery(length) = restart.on_give_up
            && length.is_zero()
        {
            let at = ["restart", "on_give_up", "retry_every"];
            self.complain(&at, "the time must be longer than 0");
        }
    }

    fn start_timeout(&mut self, written: Option<written::Length>) -> std::time::Duration {
        let length = written.map_or(START_TIMEOUT, |length| length.0);
        if length.is_zero() {
            self.complain(&["start_timeout"], "the time must be longer than 0");
        }
        length
    }

    fn logging(&mut self, written: Option<written::Logging>) -> Logging {
        let usual = Logging::default();
        let Some(written) = written else { return usual };
        let max_size = written.max_size.map_or(usual.max_size, |size| size.0);
        if max_size < SMALLEST_LOG {
            self.complain(&["logging", "max_size"], "the size must be at least 1KiB");
        }
        Logging {
            max_size,
            max_files: written.max_files.unwrap_or(usual.max_files),
            compress: written.compress.unwrap_or(usual.compress),
            when_full: match written.when_full {
                None => usual.when_full,
                Some(written::WhenFull::DropOldest) => WhenFull::DropOldest,
                Some(written::WhenFull::Block) => WhenFull::Block,
            },
            forward: Forward {
                journald: forward(written.journald, JOURNALD),
                syslog: forward(written.syslog, SYSLOG),
            },
        }
    }

    fn schedule(&mut self, written: &written::Schedule) -> Option<Schedule> {
        let rhythm = match (&written.cron, written.every) {
            (Some(pattern), None) => Rhythm::Cron(pattern.0.clone()),
            (None, Some(length)) => {
                if length.0 < SHORTEST_RHYTHM {
                    self.complain(&["schedule", "every"], "the time must be at least 1s");
                }
                Rhythm::Every(length.0)
            }
            (Some(_), Some(_)) => {
                self.complain(
                    &["schedule", "every"],
                    "`cron` says when already; write one of them",
                );
                return None;
            }
            (None, None) => {
                // What is wrong with one that is there has been said.
                if !["cron", "every"].iter().any(|key| self.has(&["schedule", key])) {
                    self.complain(&["schedule"], "one of `cron` and `every` is missing");
                }
                return None;
            }
        };
        Some(Schedule {
            rhythm,
            overlap: match written.overlap {
                None | Some(written::Overlap::Skip) => Overlap::Skip,
                Some(written::Overlap::Queue) => Overlap::Queue,
                Some(written::Overlap::Kill) => Overlap::Kill,
            },
            missed: match written.missed {
                None | Some(written::Missed::Run) => Missed::Run,
                Some(written::Missed::Skip) => Missed::Skip,
            },
        })
    }

    fn labels(
        &mut self,
        written: Option<IndexMap<String, written::Word>>,
    ) -> BTreeMap<String, String> {
        let labels = written.unwrap_or_default();
        if labels.contains_key("") {
            self.complain(&["labels"], "a label has no name");
        }
        labels.into_iter().map(|(key, word)| (key, word.0)).collect()
    }
}

fn forward(written: Option<written::Forward>, usual: &str) -> Option<String> {
    match written {
        None | Some(written::Forward::Switch(false)) => None,
        Some(written::Forward::Switch(true)) => Some(usual.to_owned()),
        Some(written::Forward::Socket(path)) => Some(path.0),
    }
}

fn policy(word: written::Policy) -> Policy {
    match word {
        written::Policy::No | written::Policy::False => Policy::No,
        written::Policy::Always => Policy::Always,
        written::Policy::OnFailure | written::Policy::OnFailureToo => Policy::OnFailure,
        written::Policy::UnlessStopped => Policy::UnlessStopped,
    }
}

fn on_give_up(written: written::OnGiveUp) -> OnGiveUp {
    match written {
        written::OnGiveUp::Stop => OnGiveUp::Stop,
        written::OnGiveUp::Escalate => OnGiveUp::Escalate,
        written::OnGiveUp::RetryEvery(length) => OnGiveUp::RetryEvery(length.0),
    }
}

/// Each once, in the order written.
fn profiles(written: Option<Vec<written::NameText>>) -> Vec<String> {
    let names: indexmap::IndexSet<_> =
        written.unwrap_or_default().into_iter().map(|name| name.0).collect();
    names.into_iter().collect()
}

fn stop(
    signal: Option<written::SignalText>,
    grace: Option<written::Length>,
    kill: Option<written::KillScope>,
) -> Stop {
    let usual = Stop::default();
    Stop {
        signal: signal.map_or(usual.signal, |signal| signal.0),
        grace: grace.map_or(usual.grace, |length| length.0),
        kill: match kill {
            None => usual.kill,
            Some(written::KillScope::Tree) => KillScope::Tree,
            Some(written::KillScope::Group) => KillScope::Group,
            Some(written::KillScope::Process) => KillScope::Process,
        },
    }
}

fn on_manager_exit(written: Option<written::OnManagerExit>) -> OnManagerExit {
    match written {
        None => OnManagerExit::default(),
        Some(written::OnManagerExit::Die) => OnManagerExit::Die,
        Some(written::OnManagerExit::Keep) => OnManagerExit::Keep,
    }
}
