//! Every error of the API as JSON with a fitting status.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::event::State;
use crate::exit::Reason;
use crate::manager::{ReadState, Refusal, SpeakError};
use crate::message::Failure;
use crate::name::Incarnation;
use crate::spec::Mistake;

/// An error by its code.
pub(super) struct Known {
    pub(super) code: &'static str,
    pub(super) status: u16,
    pub(super) about: &'static str,
}

const fn known(status: u16, code: &'static str, about: &'static str) -> Known {
    Known { code, status, about }
}

/// Every code, with its status: what the document says, and what is answered.
pub(super) const CODES: &[Known] = &[
    known(400, "bad_request", "what was sent is no HTTP/1.1"),
    known(400, "bad_path", "the path is not percent-encoded UTF-8"),
    known(400, "bad_query", "a query key is unknown, repeated, or has no such value"),
    known(400, "bad_header", "a header has no such value"),
    known(400, "bad_name", "what stands for a service or replica cannot be a name"),
    known(400, "bad_replicas", "a service cannot have so many replicas"),
    known(400, "bad_body", "the body is not what is expected"),
    known(400, "no_such_signal", "there is no such signal"),
    known(404, "no_such_route", "there is no such path"),
    known(404, "no_such_service", "there is no such service"),
    known(404, "no_such_replica", "the service has no such replica"),
    known(405, "wrong_verb", "this path is not used with that verb; `Allow` has those that are"),
    known(408, "slow_body", "the body did not come in time"),
    known(409, "ended", "it ended instead"),
    known(409, "input_closed", "the program's input is closed"),
    known(
        409,
        "listen",
        "a socket of the new configuration cannot be opened; the one in effect stays",
    ),
    known(409, "not_running", "it does not run"),
    known(409, "upgrade", "the manager cannot be replaced now, or not by that binary"),
    known(413, "too_large", "the body is too large"),
    known(414, "uri_too_long", "the address is too long"),
    known(415, "unsupported_type", "the body is of another type, or compressed"),
    known(422, "invalid", "the configuration has mistakes; the one in effect stays"),
    known(422, "not_a_port", "the service has no port"),
    known(422, "one_replica", "this is done to a service as a whole"),
    known(422, "no_replies", "the port gives no replies"),
    known(422, "unfit", "the message does not fit the port"),
    known(426, "upgrade_required", "this path is for another protocol, which `Upgrade` names"),
    known(431, "headers_too_large", "there are too many headers, or they are too long"),
    known(500, "disk", "it could not be written down"),
    known(500, "internal", "something of the manager's own failed"),
    known(502, "bad_reply", "the reply is not the port's protocol, or too large"),
    known(502, "program_error", "the program answered with an error"),
    known(503, "busy", "too much is waiting already"),
    known(503, "taken", "the whole output of this run is the reply to another call"),
    known(503, "shutting_down", "everything is being stopped"),
    known(503, "unfinished", "the request was not whole when the manager made room for another"),
    known(504, "timed_out", "no answer in time"),
];

/// What an error looks like. Which of the parts beside the first two are there depends on the code.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "it only describes; errors of the manager serialise themselves")]
pub(super) struct ErrorBody {
    /// What is wrong, as a sentence.
    error: String,
    /// The same as one word of a closed list.
    code: String,
    /// Which service or replica is meant.
    #[schemars(default)]
    name: Option<String>,
    /// `no_such_service`: a name that is close to it.
    #[schemars(default)]
    suggestion: Option<String>,
    /// `no_such_replica`: the service.
    #[schemars(default)]
    service: Option<String>,
    /// `no_such_replica`: how many it has.
    #[schemars(default)]
    replicas: Option<u32>,
    /// `not_running`: its state.
    #[schemars(default)]
    state: Option<State>,
    /// The end or the failure as a sentence.
    #[schemars(default)]
    msg: Option<String>,
    /// `timed_out`: how long was waited, in seconds.
    #[schemars(default)]
    after_s: Option<f64>,
    /// `timed_out`: whether a call that was given up, and that the program has not answered, held it up.
    #[schemars(default)]
    held_up: Option<bool>,
    /// `ended`: why.
    #[schemars(default)]
    reason: Option<Reason>,
    /// `ended`: the exit code, where it exited.
    #[schemars(default)]
    exit_code: Option<i32>,
    /// `ended`: the signal's name, where one ended it.
    #[schemars(default)]
    signal: Option<String>,
    /// `program_error`: what the program said.
    #[schemars(default)]
    failure: Option<Failure>,
    /// `ended`: which run.
    #[schemars(default, with = "Option<u64>")]
    incarnation: Option<Incarnation>,
    /// `ended`, `timed_out`: whether the program can have seen the message.
    #[schemars(default)]
    read: Option<ReadState>,
    /// `invalid`: how many mistakes there are.
    #[schemars(default)]
    total: Option<usize>,
    /// `invalid`: the first thousand of them.
    #[schemars(default)]
    mistakes: Option<Vec<Mistake>>,
    /// `invalid`: the mistakes as a text for people.
    #[schemars(default)]
    text: Option<String>,
}

/// What a client is told instead of what it wanted.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    /// `code` and whatever else belongs to it.
    fields: Map<String, Value>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &str, error: impl Into<String>) -> Self {
        let fields = Map::from_iter([("code".to_owned(), code.into())]);
        Self { status, error: error.into(), fields }
    }

    /// The same with another field.
    pub(super) fn with(mut self, field: &str, value: Value) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }

    pub(super) fn bad_request(code: &str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, error)
    }

    /// Something of ours failed; the whole chain of causes is told.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        let mut text = format!("cannot {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    }

    /// An error that serialises with its own `code`.
    fn of(status: StatusCode, error: &(impl Serialize + ToString)) -> Self {
        let fields = match serde_json::to_value(error) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        Self { status, error: error.to_string(), fields }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::of(refusal_status(&refusal), &refusal)
    }
}

fn refusal_status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoSuchService { .. } | Refusal::NoSuchReplica { .. } => StatusCode::NOT_FOUND,
        Refusal::Ended { .. }
        | Refusal::NotRunning { .. }
        | Refusal::Listen { .. }
        | Refusal::Upgrade { .. } => StatusCode::CONFLICT,
        Refusal::ShuttingDown | Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<SpeakError> for ApiError {
    fn from(error: SpeakError) -> Self {
        let status = match &error {
            SpeakError::Refused(refusal) => refusal_status(refusal),
            SpeakError::NotAPort { .. }
            | SpeakError::NoReplies { .. }
            | SpeakError::Unfit { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            SpeakError::NotRunning { .. }
            | SpeakError::Ended { .. }
            | SpeakError::InputClosed { .. } => StatusCode::CONFLICT,
            SpeakError::Busy { .. } | SpeakError::Taken { .. } => StatusCode::SERVICE_UNAVAILABLE,
            SpeakError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            SpeakError::BadReply { .. } | SpeakError::ProgramError { .. } => {
                StatusCode::BAD_GATEWAY
            }
        };
        Self::of(status, &error)
    }
}

impl ApiError {
    /// Its JSON, with a newline.
    pub(super) fn body(self) -> String {
        let mut body = Map::from_iter([("error".to_owned(), self.error.into())]);
        body.extend(self.fields);
        Value::Object(body).to_string() + "\n"
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let text = self.body();
        (status, [(CONTENT_TYPE, "application/json")], text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Retry;

    /// What is answered is what the document says: the code's status, and no field it knows not.
    fn is_described(error: &ApiError) {
        let code = error.fields["code"].as_str().unwrap();
        let known = CODES.iter().find(|known| known.code == code).unwrap();
        assert_eq!(known.status, error.status.as_u16(), "{code}");
        let schema = schemars::schema_for!(ErrorBody);
        let fields = schema.get("properties").unwrap();
        for field in error.fields.keys() {
            assert!(fields.get(field).is_some(), "{code}: {field}");
        }
    }

    /// Every error with its status, one a line.
    fn told(errors: impl IntoIterator<Item = ApiError>) -> String {
        let line = |error: ApiError| {
            is_described(&error);
            let mut body = Map::from_iter([("error".to_owned(), error.error.into())]);
            body.extend(error.fields);
            format!("{} {}", error.status.as_u16(), Value::Object(body))
        };
        errors.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_refusal_has_a_status_a_code_and_a_sentence() {
        let name = || "web/1".to_owned();
        let refusals = [
            Refusal::NoSuchService { name: "wbe".into(), suggestion: Some("web".into()) },
            Refusal::NoSuchService { name: "x".into(), suggestion: None },
            Refusal::NoSuchReplica { name: "web/9".into(), service: "web".into(), replicas: 2 },
            Refusal::Ended { msg: "web/1 exited with code 1".into() },
            Refusal::NotRunning { name: name(), state: State::Backoff },
            Refusal::ShuttingDown,
            Refusal::Busy,
            Refusal::Disk { msg: "no space left".into() },
            Refusal::Upgrade { msg: "nothing was changed".into() },
            Refusal::Listen { msg: "cannot listen on tcp 127.0.0.1:80 (http): taken".into() },
        ];
        let spoken = [
            SpeakError::Refused(Refusal::ShuttingDown),
            SpeakError::NotAPort { name: name() },
            SpeakError::NoReplies { name: name() },
            SpeakError::NotRunning { name: name(), state: State::Failed, msg: None },
            SpeakError::NotRunning { name: name(), state: State::Failed, msg: Some("m".into()) },
            SpeakError::Busy { name: name() },
            SpeakError::Taken { name: name() },
            SpeakError::InputClosed { name: name() },
            SpeakError::Unfit { msg: "it holds a newline".into() },
            SpeakError::TimedOut { after_s: 5.0, read: ReadState::MaybeRead, held_up: false },
            SpeakError::TimedOut { after_s: 5.000_1, read: ReadState::NeverRead, held_up: true },
            SpeakError::Ended {
                msg: "web/1 was killed by SIGKILL".into(),
                reason: Reason::Signaled,
                exit_code: None,
                signal: Some("SIGKILL".into()),
                incarnation: Incarnation(7),
                read: ReadState::MaybeRead,
            },
            SpeakError::BadReply { msg: "larger than 16MiB".into() },
            SpeakError::ProgramError {
                failure: Box::new(Failure {
                    code: "bad_request".into(),
                    message: "no such city".into(),
                    data: None,
                    retry: Retry::Never,
                }),
            },
        ];
        let all = refusals.map(ApiError::from).into_iter().chain(spoken.map(ApiError::from));
        insta::assert_snapshot!(told(all));
    }

    #[test]
    fn an_error_of_ours_tells_its_whole_chain() {
        let source = std::io::Error::from_raw_os_error(libc::EIO);
        let error = crate::state::StateError::File { path: "/x".into(), source };
        insta::assert_snapshot!(told([ApiError::internal(&error)]));
    }
}
