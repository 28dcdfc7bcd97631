//! Exit records from the journal, as one JSON array that is written while it is read.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use super::input;
use super::server::Door;
use crate::exit::Reason;
use crate::journal::{Entries, Filter, JournalError, Reader, parse_since};
use crate::name::Target;
use crate::os::clock;

/// A piece of the answer has about this many bytes.
const PIECE: usize = 64 << 10;
/// How many pieces may wait for a slow client; then reading waits for it.
const PIECES: usize = 4;

/// `?since_seq=&service=&reason=&since=&limit=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    since_seq: Option<u64>,
    service: Option<String>,
    reason: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
}

/// With `since_seq` a `limit` is that of a page, the first ones after it; without it the last ones
/// are meant.
pub(super) async fn exits(
    State(shared): Door,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wanted = input::query(query)?;
    let bad =
        |what: &str, why: String| ApiError::bad_request("bad_query", format!("{what}: {why}"));
    let mut filter = Filter { since_seq: wanted.since_seq, ..Filter::default() };
    if let Some(service) = wanted.service.filter(|service| !service.is_empty()) {
        let target: Result<Target, _> = service.parse();
        filter.targets.push(target.map_err(|error| bad("service", error.to_string()))?);
    }
    if let Some(reason) = wanted.reason.filter(|reason| !reason.is_empty()) {
        let reason: Result<Reason, String> = reason.parse();
        filter.reason = Some(reason.map_err(|error| bad("reason", error))?);
    }
    if let Some(since) = wanted.since.filter(|since| !since.is_empty()) {
        let since = parse_since(&since, clock::wall());
        filter.since = Some(since.map_err(|error| bad("since", error.to_string()))?);
    }
    let mut first = usize::MAX;
    match (wanted.limit, filter.since_seq) {
        (Some(limit), Some(_)) => first = limit,
        (limit, _) => filter.last = limit,
    }

    let folder = shared.state.state.clone();
    let (opened, answer) = oneshot::channel();
    let (pieces, body) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        match Reader::open(&folder).and_then(|reader| reader.entries(filter)) {
            Err(error) => drop(opened.send(Err(error))),
            // A client that has gone away by now wants none of it.
            Ok(entries) => {
                if opened.send(Ok(())).is_ok() {
                    write(entries, first, &pieces);
                }
            }
        }
    });
    match answer.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(ApiError::internal(&error)),
        Err(_) => return Err(crate::manager::Refusal::ShuttingDown.into()),
    }
    let body = Body::from_stream(ReceiverStream::new(body));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

type Piece = Result<Bytes, JournalError>;

fn write(entries: Entries, first: usize, pieces: &mpsc::Sender<Piece>) {
    let mut text = b"[".to_vec();
    let mut separator: &[u8] = b"\n";
    for entry in entries.take(first) {
        let entry = match entry {
            Ok(entry) => entry,
            // The connection is cut, so that nobody takes half of it for all of it.
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be read to its end");
                let _ = pieces.blocking_send(Err(error));
                return;
            }
        };
        text.extend_from_slice(separator);
        text.extend_from_slice(&entry.line);
        separator = b",\n";
        if text.len() >= PIECE
            && pieces.blocking_send(Ok(std::mem::take(&mut text).into())).is_err()
        {
            return;
        }
    }
    text.extend_from_slice(b"\n]\n");
    let _ = pieces.blocking_send(Ok(text.into()));
}
