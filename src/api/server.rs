//! The thread that serves: connections, their bound, and who is at the other end.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::{Method, Request, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};

use super::error::ApiError;
use super::input::Caller;
use super::{command, config, events, exits, listener, metrics, read};
use crate::manager::{Handle, Refusal, Request as Question};
use crate::os::socket;
use crate::state::StateDir;

/// How many connections are served at once; the next ones wait in the socket's own queue.
const CONNECTIONS: usize = 1024;
/// How many of them may be subscribers of events, so that they can never keep out a `wharf down`.
const SUBSCRIBERS: usize = 128;
/// How many threads may read files at once.
const READERS: usize = 4;
/// How long a connection may stay open without a request.
const IDLE: Duration = Duration::from_secs(60);
/// The longest wait for the loop to answer a question.
const QUESTION: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The way to the loop.
    pub(super) handle: Handle,
    /// Where the journal is.
    pub(super) state: StateDir,
    /// The manager's environment, for `${NAME}` in the files of a reload.
    pub(super) environment: Vec<(String, String)>,
    /// Room for subscribers of events.
    pub(super) subscribers: Arc<Semaphore>,
    /// What scrapes share.
    pub(super) scrapes: metrics::Scrapes,
}

pub(super) type Door = axum::extract::State<Arc<Shared>>;

/// Serves `listener` in a thread of its own, named `api`, for as long as this process lives.
///
/// The thread takes its signal mask from the caller, who has every signal blocked.
pub fn serve(
    listener: UnixListener,
    handle: Handle,
    state: StateDir,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .thread_name("api-files")
        .build()?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let subscribers = Arc::new(Semaphore::new(SUBSCRIBERS));
    let wanted = handle.metrics();
    let scrapes = metrics::Scrapes::default();
    let shared = Arc::new(Shared { handle, state, environment, subscribers, scrapes });
    std::thread::Builder::new().name("api".to_owned()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(listener::follow(Arc::clone(&shared), wanted));
            match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => accept(listener, router(shared)).await,
                Err(error) => tracing::error!(%error, "the control socket cannot be served"),
            }
        });
    })
}

async fn accept(listener: tokio::net::UnixListener, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connection = 0;
    loop {
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                connection += 1;
                let router = router.clone();
                tokio::spawn(async move {
                    converse(stream, connection, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client cannot be let in; trying again");
                let _ = tokio::time::timeout(PAUSE, std::future::pending::<()>()).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, connection: u64, router: Router) {
    let caller = Caller { peer: socket::peer(stream.as_fd()).ok(), connection };
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        inner.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        // Clients hang up as they like.
        tracing::debug!(%error, connection, "a connection ended");
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/manager", get(read::manager))
        .route("/v1/services", get(read::services))
        .route("/v1/services/{name}", get(read::service))
        .route("/v1/services/{name}/start", post(command::start))
        .route("/v1/services/{name}/stop", post(command::stop))
        .route("/v1/services/{name}/restart", post(command::restart))
        .route("/v1/services/{name}/signal", post(command::signal))
        .route("/v1/services/{name}/call", post(command::call))
        .route("/v1/services/{name}/send", post(command::send))
        .route("/v1/shutdown", post(command::shutdown))
        .route("/v1/exits", get(exits::exits))
        .route("/v1/events", get(events::events))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/config", get(config::config))
        .route("/v1/reload", post(config::reload))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_verb)
        .with_state(shared)
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", format!("there is no {}", uri.path()))
}

async fn wrong_verb(method: Method, uri: Uri) -> Response {
    let text = format!("{} is not done with {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_verb", text).into_response()
}

impl Shared {
    /// Asks the loop a question that it answers at once.
    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, ApiError> {
        self.ask_within(QUESTION, question).await
    }

    /// Asks the loop and waits at most `limit`. A client that goes away takes its question with it.
    pub(super) async fn ask_within<T>(
        &self,
        limit: Duration,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.handle.ask(question(reply))?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Refusal::ShuttingDown.into()),
            Err(_) => {
                let text = format!("the manager gave no answer within {} s", limit.as_secs());
                Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timed_out", text))
            }
        }
    }
}
