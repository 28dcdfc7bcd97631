//! What is wanted: start, stop, restart, signal, speak, shut down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::sync::OwnedSemaphorePermit;

use super::error::ApiError;
use super::input::{self, Asked};
use super::read::OfReplica;
use super::server::{Door, REPLIES, Shared};
use crate::event::Verb;
use crate::exit::Signal;
use crate::manager::{ReplicaStatus, Request, Speech};
use crate::name::{Requester, Target};
use crate::time::parse_duration;

/// The longest wait for a command to come true; a stop may have a long grace period.
const COMMAND: Duration = Duration::from_secs(3600);
/// The most replicas of a service; the schema of services.yaml says the same.
const MOST_REPLICAS: u32 = 10_000;
/// What a call may take beyond its own time-out before the API gives up on the loop.
const SLACK: Duration = Duration::from_secs(30);
/// A reply up to this size needs no room to wait in, in bytes.
const SMALL_REPLY: usize = 16 << 10;

type Replicas = Result<Json<Vec<ReplicaStatus>>, ApiError>;
type OneReplica = Result<Query<OfReplica>, QueryRejection>;

pub(super) async fn start(
    State(shared): Door,
    Path(name): Path<String>,
    query: OneReplica,
    asked: Asked,
    request: HttpRequest,
) -> Replicas {
    plain(&shared, Verb::Start, &name, query, asked.by, request).await
}

pub(super) async fn stop(
    State(shared): Door,
    Path(name): Path<String>,
    query: Result<Query<Stop>, QueryRejection>,
    asked: Asked,
    request: HttpRequest,
) -> Replicas {
    let Stop { replica, dependents } = input::query(query)?;
    let verb = if dependents { Verb::StopWithDependents } else { Verb::Stop };
    whole(&name, replica, dependents, "what depends on a service depends on all of it")?;
    plain(&shared, verb, &name, Ok(Query(OfReplica { replica })), asked.by, request).await
}

/// `?replica=2&dependents=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    replica: Option<u32>,
    #[serde(default)]
    dependents: bool,
}

/// `?replica=2&rolling=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restart {
    replica: Option<u32>,
    #[serde(default)]
    rolling: bool,
}

/// Refuses a single replica where only a service makes sense.
fn whole(name: &str, replica: Option<u32>, needed: bool, why: &str) -> Result<(), ApiError> {
    if needed && input::target(name, replica)?.replica.is_some() {
        return Err(of_a_replica(why));
    }
    Ok(())
}

fn of_a_replica(why: &str) -> ApiError {
    let words = format!("name a service, not a replica: {why}");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "one_replica", words)
}

/// How many replicas there are to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    /// So many.
    #[schemars(range(max = 10_000))]
    #[serde(deserialize_with = "whole_number")]
    replicas: u32,
}

pub(super) async fn scale(
    State(shared): Door,
    Path(name): Path<String>,
    asked: Asked,
    request: HttpRequest,
) -> Replicas {
    let (parts, body) = request.into_parts();
    let Scale { replicas } = input::json(&parts, body, "").await?;
    let target = input::target(&name, None)?;
    if target.replica.is_some() {
        return Err(of_a_replica("one alone is not several"));
    }
    if replicas > MOST_REPLICAS {
        let words = format!("a service has 0 to {MOST_REPLICAS} replicas");
        return Err(ApiError::bad_request("bad_replicas", words));
    }
    let (service, by) = (target.service, asked.by);
    let question = |reply| Request::Scale { service, replicas, by, reply };
    Ok(Json(shared.ask_within(COMMAND, question).await??))
}

pub(super) async fn restart(
    State(shared): Door,
    Path(name): Path<String>,
    query: Result<Query<Restart>, QueryRejection>,
    asked: Asked,
    request: HttpRequest,
) -> Replicas {
    let Restart { replica, rolling } = input::query(query)?;
    let verb = if rolling { Verb::Roll } else { Verb::Restart };
    whole(&name, replica, rolling, "one alone has no turn")?;
    plain(&shared, verb, &name, Ok(Query(OfReplica { replica })), asked.by, request).await
}

async fn plain(
    shared: &Shared,
    verb: Verb,
    name: &str,
    query: OneReplica,
    by: Requester,
    request: HttpRequest,
) -> Replicas {
    let (parts, body) = request.into_parts();
    input::nothing(&parts, body).await?;
    obey(shared, verb, name, query, by).await
}

/// Which signal to send.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Its name with or without `SIG`, or its number as text: `HUP`, `SIGTERM`, `15`.
    #[schemars(schema_with = "signal_names")]
    signal: String,
}

fn signal_names(_: &mut SchemaGenerator) -> Schema {
    // Those up to 31 have names, the others are counted from SIGRTMIN on.
    let names = (1..=31).filter_map(|number| Signal::new(number).ok()).map(|one| one.to_string());
    let names: Vec<_> = names.map(|name| name.trim_start_matches("SIG").to_owned()).collect();
    let pattern = format!("^((SIG)?({}|RTMIN(\\+[0-9])?)|[1-9]|[12][0-9]|3[01])$", names.join("|"));
    json_schema!({ "type": "string", "pattern": pattern })
}

pub(super) async fn signal(
    State(shared): Door,
    Path(name): Path<String>,
    query: OneReplica,
    asked: Asked,
    request: HttpRequest,
) -> Replicas {
    let (parts, body) = request.into_parts();
    let which: Which = input::json(&parts, body, "{}").await?;
    let signal: Signal = which.signal.parse().map_err(|error: crate::exit::SignalError| {
        ApiError::bad_request("no_such_signal", error.to_string())
    })?;
    obey(&shared, Verb::Signal(signal), &name, query, asked.by).await
}

async fn obey(
    shared: &Shared,
    verb: Verb,
    name: &str,
    query: OneReplica,
    by: Requester,
) -> Replicas {
    let target = input::target(name, input::query(query)?.replica)?;
    let command = |reply| Request::Command { verb, target, by, reply };
    Ok(Json(shared.ask_within(COMMAND, command).await??))
}

/// `?timeout=5s&wait=10s&replica=2&close=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    replica: Option<u32>,
    timeout: Option<String>,
    wait: Option<String>,
    #[serde(default)]
    close: bool,
}

/// `?wait=10s&replica=2&close=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Send {
    replica: Option<u32>,
    wait: Option<String>,
    #[serde(default)]
    close: bool,
}

/// A length of time in a query.
fn length(key: &str, given: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let bad = |text: String| Err(ApiError::bad_request("bad_query", text));
    match given.map(parse_duration) {
        None => Ok(None),
        Some(Ok(length)) if !length.is_zero() && length <= COMMAND => Ok(Some(length)),
        Some(Ok(_)) => bad(format!("a {key} is longer than nothing and at most 1h")),
        Some(Err(error)) => bad(format!("{key}: {error}")),
    }
}

pub(super) async fn call(
    State(shared): Door,
    Path(name): Path<String>,
    query: Result<Query<Call>, QueryRejection>,
    asked: Asked,
    request: HttpRequest,
) -> Result<Response, ApiError> {
    let query = input::query(query)?;
    let timeout = length("timeout", query.timeout.as_deref())?;
    let kind = if query.close { Speech::CallLast(timeout) } else { Speech::Call(timeout) };
    let wait = length("wait", query.wait.as_deref())?;
    let target = input::target(&name, query.replica)?;
    let messages = speak(&shared, target, kind, wait, asked, request).await?;
    let count = messages.len().to_string();
    let reply = take_room(&shared, join(messages))?;
    let headers =
        [(CONTENT_TYPE.as_str(), "application/octet-stream"), ("x-wharf-messages", &count)];
    Ok((headers, reply).into_response())
}

/// A reply that takes part of the room for those that wait, until it is written or its client is gone.
struct Waiting {
    reply: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

/// A reply that has room to wait for its client; a small one needs none.
fn take_room(shared: &Shared, reply: Bytes) -> Result<Bytes, ApiError> {
    if reply.len() <= SMALL_REPLY {
        return Ok(reply);
    }
    // One that is larger than all the room has it alone.
    let size = u32::try_from(reply.len().min(REPLIES)).unwrap_or(u32::MAX);
    let Ok(room) = Arc::clone(&shared.replies).try_acquire_many_owned(size) else {
        let text = "the reply is dropped: too many others wait already for clients to take them";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text));
    };
    Ok(Bytes::from_owner(Waiting { reply, _room: room }))
}

/// Several messages of one reply with a newline between them; one as it is, without a copy.
fn join(mut messages: Vec<Bytes>) -> Bytes {
    if messages.len() == 1 {
        return messages.remove(0);
    }
    messages.join(&b'\n').into()
}

pub(super) async fn send(
    State(shared): Door,
    Path(name): Path<String>,
    query: Result<Query<Send>, QueryRejection>,
    asked: Asked,
    request: HttpRequest,
) -> Result<StatusCode, ApiError> {
    let query = input::query(query)?;
    let kind = if query.close { Speech::SendLast } else { Speech::Send };
    let wait = length("wait", query.wait.as_deref())?;
    let target = input::target(&name, query.replica)?;
    speak(&shared, target, kind, wait, asked, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn speak(
    shared: &Shared,
    target: Target,
    kind: Speech,
    wait: Option<Duration>,
    asked: Asked,
    request: HttpRequest,
) -> Result<Vec<Bytes>, ApiError> {
    let (parts, body) = request.into_parts();
    let most = usize::try_from(shared.handle.largest()).unwrap_or(usize::MAX);
    let payload = input::body(&parts, body, most).await?;
    let limit = match kind {
        Speech::Call(Some(own)) | Speech::CallLast(Some(own)) => own + SLACK,
        Speech::Call(None) | Speech::CallLast(None) | Speech::Send | Speech::SendLast => COMMAND,
    };
    let limit = limit + wait.unwrap_or_default();
    let client = asked.connection;
    let question = |reply| Request::Speak { target, payload, kind, client, wait, reply };
    let mut patient = Patient { shared, waits: true };
    let answer = shared.ask_within(limit, question).await;
    patient.waits = false;
    Ok(answer??)
}

/// A client that waits for an answer. Dropped while it does, it has hung up.
struct Patient<'a> {
    shared: &'a Shared,
    waits: bool,
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        if self.waits {
            // Where the loop is too busy for it, the next caller has it looked after.
            let _ = self.shared.handle.ask(Request::Forget);
        }
    }
}

/// Which binary is to succeed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upgrade {
    /// Its path, absolute.
    binary: PathBuf,
    /// The form in which it takes over: what `BINARY succession` says.
    #[serde(deserialize_with = "whole_number")]
    form: u32,
}

/// A whole number in any of its spellings (`1.0` is one to JSON); one that is too large for us is as far
/// from every form that we know.
fn whole_number<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let number = f64::deserialize(d)?;
    if number < 0.0 || number.fract() != 0.0 {
        return Err(D::Error::custom("not a whole number"));
    }
    Ok(number.to_string().parse().unwrap_or(u32::MAX))
}

pub(super) async fn upgrade(
    State(shared): Door,
    asked: Asked,
    request: HttpRequest,
) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    let Upgrade { binary, form } = input::json(&parts, body, "{}").await?;
    let by = asked.by;
    shared.ask(|reply| Request::Upgrade { binary, form, by, reply }).await??;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn shutdown(
    State(shared): Door,
    asked: Asked,
    request: HttpRequest,
) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    input::nothing(&parts, body).await?;
    shared.ask(|reply| Request::Shutdown { by: asked.by, reply }).await?;
    Ok(StatusCode::ACCEPTED)
}
