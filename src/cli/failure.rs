//! Why a command did not do what it was asked, and the exit code that says so.

use std::error::Error;
use std::io;

use serde_json::Value;

use super::context::USUAL;
use super::out;
use crate::guardian::{GivenError, GuardianError, NotifyError};
use crate::import::ImportError;
use crate::journal::JournalError;
use crate::output::OutputError;
use crate::port::{OpenError, PortError};
use crate::spec::Mistakes;
use crate::state::StateError;

/// Done.
pub(super) const OK: u8 = 0;
/// Not done.
pub(super) const FAILED: u8 = 1;
/// `status`: not running.
pub(super) const NOT_RUNNING: u8 = 3;
/// Some of several things were done.
pub(super) const PARTLY: u8 = 7;

const FIRST: &str = USUAL[0];
const SECOND: &str = USUAL[1];

/// Why a command failed. The messages are fragments that follow "cannot", unless they are whole
/// sentences of somebody else's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Whoever read our output has had enough. Nothing is said, and it is no failure.
    #[error("write any more")]
    ClosedPipe,
    /// The words make no sense together.
    #[error("understand that: {0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(#[from] Mistakes),
    /// There is no configuration.
    #[error("find services.yaml (or services.yml) in this folder")]
    NoFile,
    /// Nobody answers at the socket.
    #[error("reach a manager: {why}")]
    Unreachable {
        /// Which socket, and what happened.
        why: String,
        /// What can be done about it.
        hint: &'static str,
    },
    /// The manager did not do it; its own words.
    #[error("{error}")]
    Refused {
        /// The word for it.
        code: String,
        /// The sentence.
        error: String,
        /// The whole answer.
        body: Box<Value>,
    },
    /// The conversation with the manager broke off.
    #[error("{0}")]
    Broken(String),
    /// There is no such service, here and now without a manager.
    #[error("there is no service {name}{}", suggestion.as_deref().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default())]
    NoSuchService {
        /// What was asked for.
        name: String,
        /// A name that is close to it.
        suggestion: Option<String>,
    },
    /// There is no such profile.
    #[error("there is no profile {name}{}", suggestion.as_deref().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default())]
    NoSuchProfile {
        /// What was asked for.
        name: String,
        /// A name that is close to it.
        suggestion: Option<String>,
    },
    /// A service has no such replica, and there is no output of one.
    #[error("there is no {name}, though there is {service}")]
    NoSuchReplica {
        /// What was asked for.
        name: String,
        /// The service.
        service: String,
    },
    /// It took too long.
    #[error("{0}")]
    TimedOut(String),
    /// The new guardian ended at once; what it said.
    #[error("{0}")]
    NotStarted(String),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The log files.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The guardian.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
    /// Sockets that were handed over.
    #[error(transparent)]
    Given(#[from] GivenError),
    /// Who wants to be told how wharf is.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Another tool's configuration.
    #[error(transparent)]
    Import(ImportError),
    /// A file that is not overwritten.
    #[error("write {0}: it is there already")]
    Exists(String),
    /// A program of our own could not be started.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It got no answer.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A configuration of the other usual name, which another one would come before.
    #[error("write {FIRST}: there is a {SECOND}, which would not be found any more")]
    Hides,
    /// A file cannot be written.
    #[error("write {path}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something of the system.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Mistakes(mistakes) => Self::Invalid(mistakes),
            other => Self::Import(other),
        }
    }
}

impl Failure {
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::ClosedPipe => OK,
            Self::Invalid(_) | Self::NoFile | Self::Import(ImportError::Mistakes(_)) => 3,
            Self::NoSuchService { .. }
            | Self::NoSuchProfile { .. }
            | Self::NoSuchReplica { .. } => 4,
            Self::Unreachable { .. } => 5,
            Self::TimedOut(_) => 6,
            Self::Port(error) if error.is_timeout() => 6,
            Self::Refused { code, .. } => match code.as_str() {
                "no_such_service" | "no_such_replica" => 4,
                "timed_out" => 6,
                "invalid" => 3,
                "bad_name" | "bad_query" | "bad_replicas" | "no_such_signal" | "one_replica" => 2,
                _ => FAILED,
            },
            Self::Import(ImportError::Nothing { .. })
            | Self::Broken(_)
            | Self::NotStarted(_)
            | Self::State(_)
            | Self::Journal(_)
            | Self::Output(_)
            | Self::Guardian(_)
            | Self::Given(_)
            | Self::Notify(_)
            | Self::Exists(_)
            | Self::Open(_)
            | Self::Port(_)
            | Self::Hides
            | Self::Write { .. }
            | Self::Io { .. } => FAILED,
            Self::Usage(_) | Self::Import(_) => 2,
        }
    }

    /// The whole of it for a person.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Invalid(mistakes) => mistakes.to_string(),
            Self::Refused { code, body, .. } if code == "invalid" => {
                body.get("text").and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            Self::Refused { .. }
            | Self::Broken(_)
            | Self::TimedOut(_)
            | Self::NotStarted(_)
            | Self::NoSuchService { .. }
            | Self::NoSuchProfile { .. }
            | Self::NoSuchReplica { .. } => format!("wharf: {self}"),
            _ => {
                let mut text = format!("wharf: cannot {self}");
                let mut cause = self.source();
                while let Some(error) = cause {
                    text.push_str(": ");
                    text.push_str(&error.to_string());
                    cause = error.source();
                }
                text
            }
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::State(StateError::Taken { .. }) => Some(
                "`wharf ps` shows what runs, `wharf reload` takes over an edited configuration, \
                 `wharf start NAME` starts what is down",
            ),
            Self::State(StateError::Orphaned { .. }) => Some("`wharf down` ends it"),
            Self::Exists(_) => Some("--force writes over it"),
            Self::NoSuchProfile { .. } => Some("`wharf profiles` lists them"),
            Self::Hides => Some("--force writes it all the same"),
            Self::NoFile => Some("name one with -f FILE, or change to its folder"),
            Self::Unreachable { hint, .. } => Some(hint),
            _ => None,
        }
    }

    /// What goes to standard error.
    pub(super) fn text(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{}\nhint: {hint}", self.words()),
            None => self.words(),
        }
    }

    /// Says it on standard error and returns the exit code.
    pub(super) fn tell(&self) -> u8 {
        if !matches!(self, Self::ClosedPipe) {
            out::say(&self.text());
        }
        self.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(code: &str, error: &str, body: Value) -> Failure {
        Failure::Refused { code: code.into(), error: error.into(), body: Box::new(body) }
    }

    #[test]
    fn every_failure_has_its_code_and_words() {
        let io = || io::Error::from_raw_os_error(libc::ENOSPC);
        let nowhere = ["/no/such/services.yaml".into()];
        let all = [
            Failure::ClosedPipe,
            Failure::usage("one of the two"),
            Failure::Invalid(crate::spec::load(&nowhere, &|_| None).unwrap_err()),
            Failure::NoFile,
            Failure::Unreachable { why: "there is no socket /x/sock".into(), hint: "start it" },
            refused("no_such_service", "there is no service x", json!({})),
            refused("timed_out", "no reply within 5 s", json!({})),
            refused("invalid", "…", json!({ "text": "error: services.web\n1 mistake" })),
            refused("ended", "web/1 exited with code 1", json!({})),
            Failure::Broken("the manager hung up".into()),
            Failure::NoSuchService { name: "wbe".into(), suggestion: Some("web".into()) },
            Failure::NoSuchProfile { name: "sqlite".into(), suggestion: Some("sqlite3".into()) },
            Failure::NoSuchReplica { name: "web/9".into(), service: "web".into() },
            Failure::TimedOut("no answer within 30 s".into()),
            Failure::NotStarted("the manager did not start".into()),
            StateError::Taken { path: "/x".into(), holder: "wharf with pid 7".into() }.into(),
            StateError::File { path: "/x/lock".into(), source: io() }.into(),
            JournalError::Read { path: "/x/exits.jsonl".into(), source: io() }.into(),
            OutputError::Read { path: "/x/log/web.1.log".into(), source: io() }.into(),
            GuardianError::GaveUp("it ended 5 times".into()).into(),
            GuardianError::Aborted(Some(1)).into(),
            GivenError::Unknown("wharf.socket".into()).into(),
            NotifyError::Address("run/notify".into()).into(),
            ImportError::Unknown { file: "notes.txt".into() }.into(),
            ImportError::JavaScript { file: "ecosystem.config.js".into() }.into(),
            ImportError::Formation("web".into()).into(),
            ImportError::Nothing { losses: Vec::new() }.into(),
            Failure::Exists("services.yaml".into()),
            Failure::Hides,
            Failure::Write { path: "/x/services.yaml".into(), source: io() },
            Failure::Io { doing: "read standard input", source: io() },
        ];
        let told: Vec<_> =
            all.iter().map(|failure| format!("[{}] {}", failure.code(), failure.text())).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
