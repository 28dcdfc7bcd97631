//! One entry of `services:`, and what belongs to running any program.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::health::{Healthcheck, Ready};
use super::{
    Capability, Dependencies, EnvEntry, EnvFiles, Hooks, Length, Limits, Listen, NameText, Octal,
    Port, ReasonWord, Schedule, Secret, SignalText, Size, SocketPath, User, Word,
};

/// One program that is kept running.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What to run. A list is executed as it stands; a text is split into words without a shell.
    pub command: Option<Command>,
    /// Whether `command` is a line for `/bin/sh -c`.
    pub shell: Option<bool>,
    /// How the program is spoken to over its standard input and output. Without it the program is
    /// a plain server.
    pub port: Option<Port>,
    /// The folder to run in. A relative path starts at the folder of the first file, which is also
    /// the default.
    pub working_dir: Option<Word>,
    /// The user to run as: a name or a number, optionally `user:group`.
    pub user: Option<User>,
    /// Environment variables, as a map or a list of `NAME=value`. Without a value it is taken from
    /// the manager's own environment when the file is read.
    pub environment: Option<Environment>,
    /// Files with environment variables, one `NAME=value` a line, read with the configuration. What
    /// `environment` says comes before them.
    pub env_file: Option<EnvFiles>,
    /// Files and folders that it reads its own configuration from; a relative path starts at the folder of
    /// the first configuration file. Where a reload finds that what stands in one has changed, the
    /// program is told by `reload_signal`, or restarted where there is none.
    pub config_files: Option<Vec<Word>>,
    /// The signal at which it reads its `config_files` again.
    pub reload_signal: Option<SignalText>,
    /// Secrets, given by descriptor or file and never by environment.
    pub secrets: Option<Vec<Secret>>,
    /// How many run at once. 0 keeps the service defined but not running.
    #[schemars(range(max = 10_000))]
    pub replicas: Option<u32>,
    /// Sockets that the manager holds and hands over, so that a restart refuses nobody.
    pub listen: Option<Vec<Listen>>,
    /// What must be there before it is started.
    pub depends_on: Option<Dependencies>,
    /// When it counts as ready; without it, as soon as it runs, or as its port says.
    pub ready: Option<Ready>,
    /// How it is seen to be well, once it is ready.
    pub healthcheck: Option<Healthcheck>,
    /// The longest time between two signs of life (`WATCHDOG=1`, see sd_notify(3)); beyond it the
    /// replica is ended, which counts as a failure. The program is told in `WATCHDOG_USEC`.
    pub watchdog: Option<Length>,
    /// What follows an end.
    pub restart: Option<Restart>,
    /// Commands that are run when something happens to it.
    pub on_event: Option<Hooks>,
    /// How long a start may take: until the program is ready, or until it runs where `ready` says how
    /// long it may take from there.
    pub start_timeout: Option<Length>,
    /// The signal that asks it to end.
    pub stop_signal: Option<SignalText>,
    /// How long it may take to end after the signal before it is killed.
    pub stop_grace_period: Option<Length>,
    /// What a kill reaches.
    pub stop_kill: Option<KillScope>,
    /// What becomes of it when the manager dies.
    pub on_manager_exit: Option<OnManagerExit>,
    /// Limits on what it may use.
    pub limits: Option<Limits>,
    /// What becomes of its output.
    pub logging: Option<Logging>,
    /// When it is started, instead of always. It is not restarted then unless `restart` says so.
    pub schedule: Option<Schedule>,
    /// The nodes it may run on.
    #[schemars(extend("x-supported" = false))]
    pub nodes: Option<Vec<NameText>>,
    /// Whether one runs in the whole cluster.
    #[schemars(extend("x-supported" = false))]
    pub singleton: Option<bool>,
    /// The memory beyond which a replica is ended, which counts as a failure: what all its processes
    /// hold together, pages that they share counted once. It is looked at every 5 s.
    pub max_memory: Option<Size>,
    /// The age at which a replica is restarted, or up to a tenth earlier, so that replicas which began
    /// together do not end together.
    pub max_lifetime: Option<Length>,
    /// The file mode bits that are off in what it creates, in octal.
    pub umask: Option<Octal>,
    /// Its scheduling priority: -20 is the most favoured.
    #[schemars(range(min = -20, max = 19))]
    pub nice: Option<i32>,
    /// How readily the kernel kills it when memory runs out.
    #[schemars(range(min = -1000, max = 1000))]
    pub oom_score_adj: Option<i32>,
    /// Further groups it is in, by name or number.
    pub group_add: Option<Vec<User>>,
    /// Whether it can never gain privileges by executing something.
    pub no_new_privileges: Option<bool>,
    /// Capabilities that are taken from it.
    pub cap_drop: Option<Vec<Capability>>,
    /// It is started by `up` only when one of these profiles is chosen.
    pub profiles: Option<Vec<NameText>>,
    /// Free words for people and tools.
    #[schemars(extend("x-own-keys" = true))]
    pub labels: Option<IndexMap<String, Word>>,
}

/// What to run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    /// The program and its arguments, executed as they stand.
    Words(Vec<Word>),
    /// A line that is split into words; quotes and backslashes work as in a shell, nothing else.
    Line(Word),
}

/// Environment variables.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Environment {
    /// By name; without a value it is taken from the manager's environment.
    Map(
        #[schemars(extend(
            "x-own-keys" = true,
            "propertyNames" = {"format": "wharf-env-name"}
        ))]
        IndexMap<String, Option<Word>>,
    ),
    /// Each `NAME=value`, or `NAME` to take it from the manager's environment.
    List(Vec<EnvEntry>),
}

/// What follows an end.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Restart {
    /// Which ends lead to a restart; all else as by default.
    Short(Policy),
    /// Everything spelled out.
    Long(Box<RestartLong>),
}

/// Which ends lead to a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// None.
    No,
    /// All.
    Always,
    /// Those that are no success.
    OnFailure,
    /// All; and a stop by an operator outlives `down` and `up`.
    UnlessStopped,
    /// The same as `on-failure`.
    #[serde(rename = "on_failure")]
    #[schemars(extend("x-also" = true))]
    OnFailureToo,
    /// The same as `no`, which some YAML readers take for this.
    #[serde(rename = "false")]
    #[schemars(extend("type" = "boolean", "const" = false, "x-also" = true))]
    False,
}

/// What follows an end, spelled out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartLong {
    /// Which ends lead to a restart.
    pub policy: Option<Policy>,
    /// The wait before the second restart in a row; the first is immediate.
    pub delay: Option<Length>,
    /// The growth of the wait from one failure in a row to the next.
    #[schemars(range(min = 1, max = 1000))]
    pub factor: Option<f64>,
    /// The longest wait.
    pub max_delay: Option<Length>,
    /// The share by which a wait is lengthened or shortened by chance.
    #[schemars(range(min = 0, max = 1))]
    pub jitter: Option<f64>,
    /// A run of this length ends the row of failures.
    pub reset_after: Option<Length>,
    /// More restarts than this within `within`, and the service is given up.
    pub max_restarts: Option<u32>,
    /// The time in which `max_restarts` are counted.
    pub within: Option<Length>,
    /// What giving up means.
    pub on_give_up: Option<OnGiveUp>,
    /// Exit codes that mean success.
    #[schemars(inner(range(min = 0, max = 255)))]
    pub success_exit_codes: Option<Vec<i32>>,
    /// Signals that mean success when they end the service.
    pub success_signals: Option<Vec<SignalText>>,
    /// Reasons after which it is never restarted, whatever the policy; not where the program could not be
    /// executed for want of something that comes back by itself, such as `ETXTBSY`.
    pub never_on: Option<Vec<ReasonWord>>,
}

/// What giving up means.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnGiveUp {
    /// It stays down until somebody starts it.
    Stop,
    /// Its group is given up with it: all of it is ended.
    Escalate,
    /// It is tried again after this time.
    RetryEvery(Length),
}

/// What a kill reaches.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KillScope {
    /// Everything the program started, however it hid.
    Tree,
    /// The program's process group.
    Group,
    /// The program alone.
    Process,
}

/// What becomes of a program when the manager dies.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnManagerExit {
    /// It is killed.
    Die,
    /// It lives on and is taken over by the next manager.
    Keep,
}

/// What becomes of output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// A log file is rotated before it grows beyond this; at least 1KiB.
    pub max_size: Option<Size>,
    /// How many rotated files are kept.
    #[schemars(range(max = 1000))]
    pub max_files: Option<u32>,
    /// Whether rotated files are compressed with gzip.
    pub compress: Option<bool>,
    /// What happens when the disk cannot take output as fast as it comes.
    pub when_full: Option<WhenFull>,
    /// Whether lines and ends go to systemd's journal too; a path names another socket than
    /// `/run/systemd/journal/socket`.
    pub journald: Option<Forward>,
    /// Whether lines and ends go to the syslog daemon of this machine too; a path names another
    /// socket than `/dev/log`.
    pub syslog: Option<Forward>,
}

/// Whether something is forwarded, and where to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Forward {
    /// To the usual socket, or not.
    Switch(bool),
    /// To this Unix datagram socket.
    Socket(SocketPath),
}

/// What happens when the disk cannot take output as fast as it comes.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The program waits a moment, then its oldest output not yet on disk is dropped and counted.
    DropOldest,
    /// The program waits.
    Block,
}
