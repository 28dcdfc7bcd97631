//! Every error of the API as JSON with a fitting status.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::manager::{Refusal, SpeakError};

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
        Refusal::Ended { .. } | Refusal::NotRunning { .. } => StatusCode::CONFLICT,
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
            SpeakError::NotRunning { .. } | SpeakError::Ended { .. } => StatusCode::CONFLICT,
            SpeakError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            SpeakError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            SpeakError::BadReply { .. } => StatusCode::BAD_GATEWAY,
        };
        Self::of(status, &error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = Map::from_iter([("error".to_owned(), self.error.into())]);
        body.extend(self.fields);
        let text = Value::Object(body).to_string() + "\n";
        (self.status, [(CONTENT_TYPE, "application/json")], text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::State;
    use crate::exit::Reason;
    use crate::manager::ReadState;
    use crate::name::Incarnation;

    /// Every error with its status, one a line.
    fn told(errors: impl IntoIterator<Item = ApiError>) -> String {
        let line = |error: ApiError| {
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
        ];
        let spoken = [
            SpeakError::Refused(Refusal::ShuttingDown),
            SpeakError::NotAPort { name: name() },
            SpeakError::NoReplies { name: name() },
            SpeakError::NotRunning { name: name(), state: State::Failed, msg: None },
            SpeakError::NotRunning { name: name(), state: State::Failed, msg: Some("m".into()) },
            SpeakError::Busy { name: name() },
            SpeakError::Unfit { msg: "it holds a newline".into() },
            SpeakError::TimedOut { after_s: 5.0 },
            SpeakError::Ended {
                msg: "web/1 was killed by SIGKILL".into(),
                reason: Reason::Signaled,
                exit_code: None,
                signal: Some("SIGKILL".into()),
                incarnation: Incarnation(7),
                read: ReadState::MaybeRead,
            },
            SpeakError::BadReply { msg: "larger than 16MiB".into() },
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
