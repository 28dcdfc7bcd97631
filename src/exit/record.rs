//! The exit record: one JSON line for each incarnation, nested so that a dotted path is the
//! OpenTelemetry attribute where one exists (`process.exit.code`) and ours (`exit.*`) otherwise.
//!
//! What does not apply is absent. `docs/exit-record.json` is a committed sample.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Cause, Errno, How, Reason, Signal, Stage};
use crate::bytes_text;
use crate::name::{Generation, Incarnation, Requester, ServiceName};
use crate::time::Wall;

/// The version of the record's shape, in its `schema` field.
pub const SCHEMA: u32 = 1;

/// One end of one run, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ExitRecord {
    /// When the end was decided upon.
    #[cfg_attr(feature = "daemon", schemars(with = "String"))]
    pub ts: Wall,
    /// Gap-free within a state directory, from 1, so that a reader sees loss.
    pub seq: u64,
    /// [`SCHEMA`].
    pub schema: u32,
    /// `warn` when somebody should look, otherwise `info`.
    pub level: String,
    /// What kind of event this is.
    pub event: EventPart,
    /// The whole story as one sentence.
    pub msg: String,
    /// The machine.
    pub host: HostPart,
    /// The manager.
    pub manager: ManagerPart,
    /// Which run.
    pub service: ServicePart,
    /// The process, where there was one.
    pub process: ProcessPart,
    /// Why it ended.
    pub exit: ExitPart,
    /// Seconds from the start of the program to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uptime_s: Option<f64>,
    /// What it used, by the kernel's account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The port's counters, where it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<PortPart>,
    /// The last 4 KiB it wrote on standard error; empty where it wrote nothing.
    #[serde(flatten)]
    #[cfg_attr(feature = "daemon", schemars(with = "WrittenTail"))]
    pub stderr_tail: Tail,
    /// What happens next.
    pub restart: RestartPart,
}

impl ExitRecord {
    /// The kernel's word, as far as the record has it.
    pub fn how(&self) -> How {
        let code = self.process.exit.as_ref().map(|exit| exit.code);
        match (code, self.exit.signal, self.exit.stage, self.exit.errno) {
            (Some(code), ..) => How::Exited(code),
            (None, Some(signal), ..) if self.exit.core_dumped == Some(true) => How::Dumped(signal),
            (None, Some(signal), ..) => How::Signaled(signal),
            (None, None, Some(stage), Some(errno)) => How::NotStarted(stage, errno),
            (None, None, ..) => How::Unseen,
        }
    }

    /// The exit code of who ends because this run did; see [`How::passed_on`].
    pub fn passed_on(&self) -> u8 {
        self.how().passed_on()
    }
}

/// `event.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct EventPart {
    /// Always `process.exit`.
    pub name: String,
}

/// `host.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct HostPart {
    /// The machine's host name.
    pub name: String,
    /// The kernel's random number of this boot.
    pub boot_id: String,
}

/// `manager.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ManagerPart {
    /// The life of the manager that wrote the record.
    #[cfg_attr(feature = "daemon", schemars(with = "u64"))]
    pub generation: Generation,
}

/// `service.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ServicePart {
    /// The service.
    #[cfg_attr(feature = "daemon", schemars(with = "String"))]
    pub name: ServiceName,
    /// The replica, from 1.
    pub replica: u32,
    /// The run.
    #[cfg_attr(feature = "daemon", schemars(with = "u64"))]
    pub incarnation: Incarnation,
}

/// `process.*`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ProcessPart {
    /// The process's number; it may belong to another process by now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<i32>,
    /// `process.creation.*`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creation: Option<CreationPart>,
    /// `process.executable.*`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub executable: Option<ExecutablePart>,
    /// `process.exit.*`, only when it exited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<ExitCodePart>,
}

/// `process.creation.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct CreationPart {
    /// When the process was made.
    #[cfg_attr(feature = "daemon", schemars(with = "String"))]
    pub time: Wall,
}

/// `process.executable.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ExecutablePart {
    /// The program that was asked for, resolved through `PATH`.
    pub path: String,
}

/// `process.exit.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ExitCodePart {
    /// The exit code, 0 to 255.
    pub code: i32,
}

/// How far the record's reason and cause are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The kernel or the manager itself is the witness.
    Certain,
    /// It follows from what was seen, but nobody saw it.
    Inferred,
    /// Not known.
    Unknown,
}

/// `exit.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct ExitPart {
    /// The kernel's word: `exited`, `signaled`, `dumped`, `not_started` or `unseen`.
    pub how: String,
    /// The reason, of a closed list.
    pub reason: Reason,
    /// Why, seen from the manager.
    pub cause: Cause,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "daemon", schemars(with = "Option<NumberAndName>"))]
    pub signal: Option<Signal>,
    /// Whether a core dump was written; absent unless a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub core_dumped: Option<bool>,
    /// Who asked for the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requested_by: Option<Requester>,
    /// The step that failed, where the program never ran.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<Stage>,
    /// The error of that step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "daemon", schemars(with = "Option<NumberAndName>"))]
    pub errno: Option<Errno>,
    /// What was done to stop it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop: Option<StopPart>,
    /// What it had started and what lived when it ended, where its control group tells; whether it was
    /// killed then, `process.cleaned` says.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub survivors: Vec<i32>,
    /// What the kernel killed of it because memory ran out; absent where it killed nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oom: Option<OomPart>,
    /// What the reason rests on.
    pub evidence: Vec<String>,
    /// How far reason and cause are known.
    pub certainty: Certainty,
}

/// `exit.oom.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct OomPart {
    /// How many of the run's processes the kernel killed, by its own count.
    pub killed: u64,
    /// Whether the program itself was among them, and not only what it had started.
    pub main: bool,
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// Where the count is from, such as `cgroup v1 memory.oom_control`.
    pub source: String,
}

/// `exit.stop.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct StopPart {
    /// Each step of the ladder that was taken, in order.
    pub steps: Vec<StopStep>,
    /// Whether asking was not enough, so that it came to `SIGKILL`. False for what is killed unasked
    /// (`start_timeout`, a broken protocol).
    pub escalated: bool,
    /// Seconds from the request to the end.
    pub took_s: f64,
}

/// One step of the stop ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct StopStep {
    /// `quit`, `close_stdin`, `SIGTERM`, `SIGKILL` …
    pub step: String,
    /// Seconds after the request at which it was taken.
    pub at_s: f64,
}

/// `usage.*`: what the kernel accounted to the process and its waited-for children.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct Usage {
    /// CPU seconds in user mode.
    pub cpu_user_s: f64,
    /// CPU seconds in the kernel.
    pub cpu_system_s: f64,
    /// The largest resident size, in bytes. The kernel counts a new process as large as the manager
    /// that started it until it executes its program, so this is never below the manager's own size:
    /// for small programs it is an upper bound.
    pub max_rss_bytes: u64,
    /// Page faults served without input or output.
    pub minor_faults: u64,
    /// Page faults that needed input or output.
    pub major_faults: u64,
    /// Voluntary context switches.
    pub ctx_vol: u64,
    /// Involuntary context switches.
    pub ctx_invol: u64,
}

/// `port.*`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct PortPart {
    /// The framing's name.
    pub framing: String,
    /// Messages written to the program.
    pub frames_in: u64,
    /// Messages read from the program.
    pub frames_out: u64,
    /// Whether an unfinished message was left when it ended.
    pub partial_frame: bool,
    /// Bytes that were written to its standard input, or over its channel, and that it never read.
    /// Absent where there were some and nobody can say how many: the channel `fd3`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unread_stdin_bytes: Option<u64>,
    /// What was wrong with its output, where reason is `protocol_error`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// What the supervisor decided upon this end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It is started again.
    Restart,
    /// It is not started again: the policy says so.
    No,
    /// It is not started again: it failed too often.
    GaveUp,
    /// It is not started again: an operator wants it stopped, or everything is going down.
    Stopped,
}

/// `restart.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
pub struct RestartPart {
    /// What was decided.
    pub decision: Decision,
    /// Which start in the present row of failures the next one is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// Seconds until the next start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delay_s: Option<f64>,
}

/// How a signal and an error number are written.
#[cfg(feature = "daemon")]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "it only describes")]
struct NumberAndName {
    /// The kernel's number.
    number: i32,
    /// Its symbol, such as `SIGTERM` or `ENOENT`.
    name: String,
}

/// The JSON Schema of a record, as in `docs/exit-record.schema.json`.
#[cfg(feature = "daemon")]
pub fn record_schema() -> serde_json::Value {
    schemars::schema_for!(ExitRecord).to_value()
}

/// The last bytes on standard error, kept whole.
///
/// In JSON `stderr_tail` is the text. Where the bytes are not UTF-8 it has U+FFFD in their place and
/// `stderr_tail_base64` beside it holds the bytes themselves, so that nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
struct WrittenTail {
    #[serde(default)]
    stderr_tail: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    stderr_tail_base64: Option<String>,
}

impl Serialize for Tail {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = String::from_utf8_lossy(&self.0);
        let exact = matches!(text, std::borrow::Cow::Borrowed(_));
        WrittenTail {
            stderr_tail_base64: (!exact).then(|| bytes_text::encode(&self.0)),
            stderr_tail: text.into_owned(),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Tail {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let written = WrittenTail::deserialize(d)?;
        match written.stderr_tail_base64 {
            None => Ok(Self(written.stderr_tail.into_bytes())),
            Some(text) => bytes_text::decode(&text)
                .map(Self)
                .ok_or_else(|| serde::de::Error::custom("stderr_tail_base64 is not base64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_lossless() {
        for bytes in [&b""[..], b"plain\n", "grüße".as_bytes(), b"\xff\xfe\x00binary"] {
            let tail = Tail(bytes.to_vec());
            let json = serde_json::to_string(&tail).unwrap();
            assert_eq!(serde_json::from_str::<Tail>(&json).unwrap(), tail, "{json}");
        }
    }
}
