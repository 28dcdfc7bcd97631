//! Exit records from the journal, as one JSON array that is written while it is read.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;

use super::error::ApiError;
use super::input;
use super::pages::Pages;
use super::server::Door;
use crate::exit::Reason;
use crate::journal::{Filter, JournalError, parse_since};
use crate::name::Target;
use crate::os::clock;

/// `?since_seq=&service=&reason=&since=&limit=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    since_seq: Option<u64>,
    service: Option<String>,
    reason: Option<String>,
    since: Option<String>,
    limit: Option<u32>,
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
    if let Some(service) = wanted.service {
        let target: Result<Target, _> = service.parse();
        filter.targets.push(target.map_err(|error| bad("service", error.to_string()))?);
    }
    if let Some(reason) = wanted.reason {
        let reason: Result<Reason, String> = reason.parse();
        filter.reason = Some(reason.map_err(|error| bad("reason", error))?);
    }
    if let Some(since) = wanted.since {
        let since = parse_since(&since, clock::wall());
        filter.since = Some(since.map_err(|error| bad("since", error.to_string()))?);
    }
    let mut first = usize::MAX;
    let limit = wanted.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    match (limit, filter.since_seq) {
        (Some(limit), Some(_)) => first = limit,
        (limit, _) => filter.last = limit,
    }

    let pages = Pages::open(shared.state.state.clone(), filter).await?;
    let answer = Answer { pages, left: first, began: false, ended: false };
    let body = Body::from_stream(stream::unfold(answer, async |mut answer| {
        let piece = answer.next().await?;
        Some((piece, answer))
    }));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// An array that is written while it is read.
struct Answer {
    pages: Pages,
    /// How many records may still come.
    left: usize,
    began: bool,
    ended: bool,
}

impl Answer {
    /// The next piece of it. After an error the connection is cut, so that nobody takes half of it
    /// for all of it.
    async fn next(&mut self) -> Option<Result<Bytes, JournalError>> {
        if self.ended {
            return None;
        }
        let mut page = if self.left == 0 {
            Vec::new()
        } else {
            match self.pages.next().await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read to its end");
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        };
        page.truncate(self.left);
        self.left -= page.len();
        self.ended = page.is_empty();
        let mut text =
            Vec::with_capacity(page.iter().map(|entry| entry.line.len() + 2).sum::<usize>() + 4);
        for entry in page {
            let separator: &[u8] =
                if std::mem::replace(&mut self.began, true) { b",\n" } else { b"[\n" };
            text.extend_from_slice(separator);
            text.extend_from_slice(&entry.line);
        }
        if self.ended {
            text.extend_from_slice(if self.began { b"\n]\n" } else { b"[]\n" });
        }
        Some(Ok(text.into()))
    }
}
