//! From HTTP to wire protocol 1: a connection that asks for `Upgrade: wharf` is handed on to the loop,
//! and this thread has nothing more to do with it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::error::ApiError;
use super::input::Asked;
use super::line::Line;
use super::server::{Door, Shared};
use crate::manager::{Joining, Refusal, Request};

/// The protocol's name in the header.
const WHARF: HeaderValue = HeaderValue::from_static("wharf");
/// How long the answer to the request may take to be taken.
const HANDING: Duration = Duration::from_secs(30);

pub(super) async fn connect(
    State(shared): Door,
    asked: Asked,
    mut request: HttpRequest,
) -> Result<Response, ApiError> {
    if !is_wanted(&request) {
        let text =
            "this is for wire protocol 1: ask with `Connection: Upgrade` and `Upgrade: wharf`";
        let error = ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text);
        return Ok(([(UPGRADE, WHARF)], error).into_response());
    }
    let Ok(place) = Arc::clone(&shared.guests).try_acquire_owned() else {
        return Err(Refusal::Busy.into());
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(Ok(upgraded)) = tokio::time::timeout(HANDING, upgrade_of(upgrade)).await {
            hand_over(&shared, upgraded, asked, place);
        }
    });
    let headers = [(CONNECTION, HeaderValue::from_static("upgrade")), (UPGRADE, WHARF)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

async fn upgrade_of(upgrade: OnUpgrade) -> hyper::Result<Upgraded> {
    upgrade.await
}

/// Whether a request asks to go on in protocol 1 (RFC 9110, section 7.8).
fn is_wanted(request: &HttpRequest) -> bool {
    let has = |name, word| lists(request.headers(), name, word);
    *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has(CONNECTION.as_str(), "upgrade")
        && has(UPGRADE.as_str(), "wharf")
}

fn lists(headers: &HeaderMap, name: &str, word: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

/// Takes the connection out of the HTTP library's hands and gives it to the loop.
fn hand_over(shared: &Shared, upgraded: Upgraded, asked: Asked, place: OwnedSemaphorePermit) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Line>>() else { return };
    let received: Bytes = parts.read_buf;
    let stream = match parts.io.into_inner().into_stream().into_std() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a client cannot be handed on"),
    };
    let Asked { by, connection } = asked;
    let socket = OwnedFd::from(stream);
    let joining = Joining { socket, received, by, client: connection, place };
    if let Err(refusal) = shared.handle.ask(Request::Join(joining)) {
        // It is dropped, and the client sees the connection closed.
        tracing::warn!(%refusal, "a client of protocol 1 is turned away");
    }
}
