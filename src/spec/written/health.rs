//! `ready:` and `healthcheck:`, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, EndpointText, Length, Pattern, SendExpect, UrlText};

/// How a service says that it is ready.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotifyBy {
    /// By `READY=1` to the socket in `NOTIFY_SOCKET`, as sd_notify(3) and systemd-notify(1) do.
    Systemd,
}

/// When a service counts as ready: one of the first eight keys says what shows it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// An address that answers with a status of 200 to 399; it is asked again and again.
    pub http: Option<UrlText>,
    /// An address that accepts a connection; it is tried again and again.
    pub tcp: Option<EndpointText>,
    /// A command that exits with 0, with the service's folder, user and environment; it is run again
    /// and again.
    pub exec: Option<Command>,
    /// A line of its output that matches.
    pub log_line: Option<Pattern>,
    /// It says so itself.
    pub notify: Option<NotifyBy>,
    /// It writes a line to this descriptor, as programs for s6 do.
    #[schemars(range(min = 3, max = 1023))]
    pub fd: Option<u32>,
    /// A message on its port that matches; an empty expression is the first one.
    pub message: Option<Pattern>,
    /// A question over its port and what the answer matches.
    pub exchange: Option<SendExpect>,
    /// How long it may take, from the moment its program runs; beyond it, it is killed with cause
    /// `ready_timeout`.
    pub timeout: Option<Length>,
    /// The wait between two questions, where it is asked.
    pub interval: Option<Length>,
}

/// How a service is seen to be well: one of the first four keys is the question.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// An address that answers with a status of 200 to 399.
    pub http: Option<UrlText>,
    /// An address that accepts a connection.
    pub tcp: Option<EndpointText>,
    /// A command that exits with 0, with the service's folder, user and environment.
    pub exec: Option<Command>,
    /// A message on its port that is replied to.
    pub call: Option<String>,
    /// The wait between an answer and the next question.
    pub interval: Option<Length>,
    /// How long an answer may take.
    pub timeout: Option<Length>,
    /// How many failures in a row mean that it is not well.
    #[schemars(range(min = 1, max = 1000))]
    pub retries: Option<u32>,
    /// Failures in this time after it became ready do not count, until the first success.
    pub start_period: Option<Length>,
    /// The wait between an answer and the next question until the first success.
    pub start_interval: Option<Length>,
    /// What follows when it is not well.
    pub on_failure: Option<HealthFailure>,
}

/// What follows when a service is not well.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthFailure {
    /// It is ended, with cause `health_failed`; that counts as a failure, whatever its exit code.
    Restart,
    /// It is shown as not well, and goes on.
    Report,
}
