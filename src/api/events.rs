//! Server-sent events (WHATWG HTML, section 9.2): everything that is published, from now on.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use super::server::Door;
use crate::manager::Published;

/// How often a silent stream says that it is alive, so that the death of a client is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many events wait in the connection; more wait in the subscription, which may miss some.
const WAITING: usize = 16;

pub(super) async fn events(State(shared): Door) -> Result<Response, ApiError> {
    let Ok(place) = Arc::clone(&shared.subscribers).try_acquire_owned() else {
        let text = "too many subscribers listen already";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text));
    };
    let subscription = shared.handle.subscribe();
    let (events, body) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        tell(subscription, &events).await;
        drop(place);
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(body))).into_response())
}

type Told = mpsc::Sender<Result<Bytes, Infallible>>;

async fn tell(mut subscription: broadcast::Receiver<Arc<Published>>, events: &Told) {
    // The first words let a client know that nothing from here on is missed.
    let mut text = ": listening\n\n".to_owned();
    loop {
        if events.send(Ok(text.into())).await.is_err() {
            return;
        }
        let next = tokio::select! {
            () = events.closed() => return,
            next = tokio::time::timeout(HEARTBEAT, subscription.recv()) => next,
        };
        text = match next {
            Err(_) => ":\n\n".to_owned(),
            Ok(Ok(published)) => event(&published),
            Ok(Err(RecvError::Lagged(missed))) => {
                format!("event: missed\ndata: {{\"kind\":\"missed\",\"missed\":{missed}}}\n\n")
            }
            Ok(Err(RecvError::Closed)) => return,
        };
    }
}

/// One event: its kind, the record's number for an exit, and the whole as one line of JSON.
fn event(published: &Published) -> String {
    let value = serde_json::to_value(published).unwrap_or_default();
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("unknown");
    let mut text = format!("event: {kind}\n");
    if let Published::Exit(record) = published {
        let _ = writeln!(text, "id: {}", record.seq);
    }
    let _ = write!(text, "data: {value}\n\n");
    text
}
