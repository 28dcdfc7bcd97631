//! Metrics over TCP: a listener of its own that answers `GET /metrics` and refuses all else.
//!
//! It follows the configuration in effect. Beside that it serves a socket that was handed over to wharf,
//! for as long as wharf lives: that one is whoever's who opened it. An address that cannot be listened at is a degraded
//! state of the manager, told in words and tried again; no service ever notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::error::ApiError;
use super::metrics;
use super::server::Shared;
use crate::manager::Request;
use crate::spec::Metrics;

/// How many connections are served at once; the next ones wait in the listener's own queue.
const CONNECTIONS: usize = 32;
/// How long a connection may stay open without a request.
const IDLE: Duration = Duration::from_secs(120);
/// How long a connection is kept at all, however busy: what does not read is cut off by it.
const LIFE: Duration = Duration::from_secs(600);
/// How long after that an answer under way may take.
const LAST_ANSWER: Duration = Duration::from_secs(30);
/// The pause before an address is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Listens where `wanted` says, for as long as it has a sender, and at a socket that was handed over.
pub(super) async fn follow(
    shared: Arc<Shared>,
    scraped: Option<std::net::TcpListener>,
    mut wanted: watch::Receiver<Option<Metrics>>,
) {
    let router = router(Arc::clone(&shared));
    let given = scraped.and_then(|scraped| serve_given(scraped, router.clone()));
    loop {
        let listen = wanted.borrow_and_update().map(|metrics| metrics.listen);
        let changed = match listen {
            None => wanted.changed().await,
            // It is served already.
            Some(address) if Some(address) == given => {
                tell(&shared, address, None).await;
                wanted.changed().await
            }
            Some(address) => {
                tokio::select! {
                    changed = wanted.changed() => changed,
                    never = listen_at(&shared, address, &router) => match never {},
                }
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Serves a socket that was handed over, beside all else; its address.
fn serve_given(scraped: std::net::TcpListener, router: Router) -> Option<SocketAddr> {
    let address = scraped.local_addr().ok();
    match TcpListener::from_std(scraped) {
        Ok(listener) => {
            tracing::info!(?address, "metrics can be scraped at the socket that was handed over");
            tokio::spawn(async move { accept(&listener, &router).await });
            address
        }
        Err(error) => {
            tracing::error!(%error, "the socket that was handed over for metrics cannot be served");
            None
        }
    }
}

enum Never {}

async fn listen_at(shared: &Shared, address: SocketAddr, router: &Router) -> Never {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "metrics can be scraped");
                tell(shared, address, None).await;
                accept(&listener, router).await;
            }
            Err(error) => {
                let every = RETRY.as_secs();
                let trouble = format!(
                    "metrics cannot be scraped over TCP: cannot listen at {address}: {error}; \
                     tried again every {every} s"
                );
                tell(shared, address, Some(trouble)).await;
            }
        }
        pause(RETRY).await;
    }
}

/// Tells the loop how the listener fares. A loop that is too busy is told again.
async fn tell(shared: &Shared, listen: SocketAddr, trouble: Option<String>) {
    let told = || Request::MetricsDoor { listen, trouble: trouble.clone() };
    while shared.handle.ask(told()).is_err() {
        pause(RETRY).await;
    }
}

async fn pause(length: Duration) {
    let _ = tokio::time::timeout(length, std::future::pending::<()>()).await;
}

/// Serves connections until the listener breaks. Those that are open end with it: their address is
/// not the configured one any more.
async fn accept(listener: &TcpListener, router: &Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                open.spawn(async move {
                    converse(stream, router).await;
                    drop(place);
                });
            }
            // One client's trouble, or a lack of descriptors: either passes.
            Err(error) => {
                tracing::warn!(%error, "a scrape cannot be let in; trying again");
                pause(RETRY).await;
            }
        }
        while open.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    if tokio::time::timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_verb)
        .with_state(shared)
}

async fn unknown(uri: Uri) -> ApiError {
    let text = format!(
        "there is no {} here: this address answers GET /metrics and nothing else; the rest is on \
         the control socket",
        uri.path()
    );
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", text)
}

async fn wrong_verb(method: Method) -> Response {
    let text = format!("/metrics is only read: {method} is not done with it");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_verb", text).into_response()
}
