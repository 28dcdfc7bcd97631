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
    let data = serde_json::to_string(published).unwrap_or_default();
    let kind = kind(&data).unwrap_or("unknown");
    let mut text = String::with_capacity(data.len() + 64);
    let _ = writeln!(text, "event: {kind}");
    if let Published::Exit(record) = published {
        let _ = writeln!(text, "id: {}", record.seq);
    }
    let _ = write!(text, "data: {data}\n\n");
    text
}

/// The kind of an event, which is its tag and so comes first.
fn kind(data: &str) -> Option<&str> {
    data.strip_prefix("{\"kind\":\"")?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    #[test]
    fn an_event_is_named_by_its_kind() {
        let published = Published::Degraded { ts: Wall(0), what: vec!["a \"disk\"".to_owned()] };
        let text = event(&published);
        let (name, data) = text.trim_end().split_once('\n').unwrap();
        let value: serde_json::Value =
            serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), value["kind"].as_str());
        assert!(text.ends_with("\n\n"));
    }
}
