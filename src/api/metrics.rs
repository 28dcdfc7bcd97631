//! `GET /metrics`: one look at everything, told piece by piece as text.
//!
//! The look is made on a thread for files, never on the reactor nor on the loop; scrapes that come
//! while one is under way share it. The text is made as the client takes it, so that it never
//! stands in memory as a whole. A client that takes none loses its scrape after a while.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_stream::Stream;

use super::error::ApiError;
use super::server::{Door, Shared};
use crate::manager::{Refusal, Request};
use crate::metrics::{self, Look, Looker, Pieces};
use crate::os::clock;
use crate::time::Tick;

/// How many scrapes are told at once. Each holds its look, some hundred bytes a service.
const SCRAPES: usize = 4;
/// How long a scrape waits for its turn before it is refused.
const TURN: Duration = Duration::from_secs(5);
/// How long a client may take to read it all; Prometheus gives up after 10 s by itself.
const READING: Duration = Duration::from_secs(30);

/// What scrapes share.
#[derive(Debug)]
pub(super) struct Scrapes {
    room: Arc<Semaphore>,
    looker: Arc<Mutex<Looker>>,
    /// The last look and when it was over; held while one is made.
    last: tokio::sync::Mutex<Option<(Tick, std::sync::Weak<Look>)>>,
}

impl Default for Scrapes {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(SCRAPES)),
            looker: Arc::default(),
            last: tokio::sync::Mutex::default(),
        }
    }
}

/// Milliseconds that the loop and the whole look took (W3C Server Timing).
const TIMING: HeaderName = HeaderName::from_static("server-timing");

pub(super) async fn metrics(State(shared): Door) -> Result<Response, ApiError> {
    let arrived = clock::now();
    let room = Arc::clone(&shared.scrapes.room).acquire_owned();
    let Ok(Ok(place)) = tokio::time::timeout(TURN, room).await else {
        let text = format!("{SCRAPES} scrapes are being told; their clients do not read them");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text));
    };
    let look = look(&shared, arrived).await?;
    let millis = |length: Duration| length.as_secs_f64() * 1e3;
    let timing = format!("loop;dur={:.3}, look;dur={:.3}", millis(look.by_loop), millis(look.took));
    let head = [(CONTENT_TYPE, metrics::CONTENT_TYPE.to_owned()), (TIMING, timing)];
    Ok((head, Body::from_stream(Told::new(look, place))).into_response())
}

/// A look that was over no earlier than `arrived`.
async fn look(shared: &Shared, arrived: Tick) -> Result<Arc<Look>, ApiError> {
    let scrapes = &shared.scrapes;
    let mut last = scrapes.last.lock().await;
    if let Some((over, look)) = &*last
        && *over >= arrived
        && let Some(look) = look.upgrade()
    {
        return Ok(look);
    }
    let began = clock::now();
    let sample = shared.ask(|reply| Request::Measure { reply }).await?;
    let looker = Arc::clone(&scrapes.looker);
    let look = move || {
        let mut look = looker.lock().unwrap_or_else(PoisonError::into_inner).look(*sample);
        look.took = clock::now().since(began);
        Arc::new(look)
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(look) => {
            *last = Some((clock::now(), Arc::downgrade(&look)));
            Ok(look)
        }
        Err(_) => Err(Refusal::ShuttingDown.into()),
    }
}

/// What a scrape holds, until it is told or taken away from it.
type Held = Arc<Mutex<Option<(Arc<Look>, OwnedSemaphorePermit)>>>;

/// The text of a look as it is taken.
struct Told {
    held: Held,
    pieces: Pieces,
    limit: AbortHandle,
    /// Whether others have had their turn since the last piece.
    yielded: bool,
}

impl Told {
    fn new(look: Arc<Look>, place: OwnedSemaphorePermit) -> Self {
        let held: Held = Arc::new(Mutex::new(Some((look, place))));
        let taken = Arc::clone(&held);
        let limit = tokio::spawn(async move {
            // A stream whose client does not read is not asked, so this cannot be its own matter.
            let never = std::future::pending::<()>();
            let _ = tokio::time::timeout(READING, never).await;
            taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        let limit = limit.abort_handle();
        Self { held, pieces: Pieces::default(), limit, yielded: true }
    }
}

impl Stream for Told {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let told = self.get_mut();
        if !std::mem::replace(&mut told.yielded, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        told.yielded = false;
        let mut held = told.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((look, _)) = &*held else {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "read too slowly");
            return Poll::Ready(Some(Err(error)));
        };
        let piece = told.pieces.next(look);
        if piece.is_none() {
            *held = None;
        }
        Poll::Ready(piece.map(Ok))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.limit.abort();
    }
}
