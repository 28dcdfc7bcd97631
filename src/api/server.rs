//! The thread that serves: connections, their bound, and who is at the other end.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request as HttpRequest};
use axum::http::header::{ALLOW, CONNECTION};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot, watch};

use super::error::ApiError;
use super::input::{self, Caller};
use super::line::Line;
use super::routes::{Place, ROUTES, Verb};
use super::whole::Whole;
use super::{listener, metrics};
use crate::manager::{Handle, Refusal, Request as Question};
use crate::os::socket;
use crate::state::StateDir;

/// How many connections are served at once; the next ones wait in the socket's own queue.
const CONNECTIONS: usize = 1024;
/// How many of them may be subscribers of events, so that they can never keep out a `wharf down`.
const SUBSCRIBERS: usize = 128;
/// How many connections may have gone on to protocol 1 at once.
const GUESTS: usize = 256;
/// How many bytes of replies may wait for clients that do not take them.
pub(super) const REPLIES: usize = 256 << 20;
/// How many threads may read files at once.
const READERS: usize = 4;
/// How long a connection may stay open without a request.
const IDLE: Duration = Duration::from_secs(30);
/// How long a client may leave what is written to it where it is, before it counts as gone.
const STALL: Duration = Duration::from_secs(30);
/// The longest wait for the loop to answer a question.
const QUESTION: Duration = Duration::from_secs(30);
/// How long a connection without a request is left open where everybody is seen off.
const GRACE: Duration = Duration::from_millis(200);
/// How often it is looked who is left.
const LOOK: Duration = Duration::from_millis(2);
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
    /// Room for connections that have gone on to protocol 1.
    pub(super) guests: Arc<Semaphore>,
    /// Room for replies that wait to be taken, in bytes.
    pub(super) replies: Arc<Semaphore>,
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
    serve_also(listener, None, handle, state)
}

/// The same, and metrics at a socket that somebody else has opened.
pub fn serve_also(
    listener: UnixListener,
    given: Option<TcpListener>,
    handle: Handle,
    state: StateDir,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    if let Some(given) = &given {
        given.set_nonblocking(true)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .thread_name("api-files")
        .build()?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let subscribers = Arc::new(Semaphore::new(SUBSCRIBERS));
    let guests = Arc::new(Semaphore::new(GUESTS));
    let wanted = handle.metrics();
    let scrapes = metrics::Scrapes::default();
    let replies = Arc::new(Semaphore::new(REPLIES));
    let shared =
        Arc::new(Shared { handle, state, environment, subscribers, guests, replies, scrapes });
    std::thread::Builder::new().name("api".to_owned()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(listener::follow(Arc::clone(&shared), given, wanted));
            match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => accept(listener, router(Arc::clone(&shared)), shared).await,
                Err(error) => tracing::error!(%error, "the control socket cannot be served"),
            }
        });
    })
}

async fn accept(listener: tokio::net::UnixListener, router: Router, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut draining = shared.handle.draining();
    let mut connection = 0;
    loop {
        if *draining.borrow_and_update() {
            see_off(&shared, &room, &mut draining).await;
        }
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let changed = std::pin::pin!(draining.changed());
        let accepted = match select(std::pin::pin!(listener.accept()), changed).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connection += 1;
                let (router, draining) = (router.clone(), shared.handle.draining());
                tokio::spawn(async move {
                    converse(stream, connection, router, draining).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client cannot be let in; trying again");
                pause(PAUSE).await;
            }
        }
    }
}

async fn pause(length: Duration) {
    let _ = tokio::time::timeout(length, std::future::pending::<()>()).await;
}

/// Tells the loop how many connections wait for an answer, until everybody is to be let in again. Those
/// who come meanwhile wait in the socket's own queue.
async fn see_off(shared: &Shared, room: &Semaphore, draining: &mut watch::Receiver<bool>) {
    let mut told = None;
    while *draining.borrow_and_update() {
        let open = CONNECTIONS - room.available_permits();
        let left = open.saturating_sub(SUBSCRIBERS - shared.subscribers.available_permits());
        if told != Some(left) && shared.handle.ask(Question::Drained { left }).is_ok() {
            told = Some(left);
        }
        pause(LOOK).await;
    }
}

async fn converse(
    stream: UnixStream,
    connection: u64,
    router: Router,
    draining: watch::Receiver<bool>,
) {
    let caller = Caller { peer: socket::peer(stream.as_fd()).ok(), connection };
    let inner = TowerToHyperService::new(router);
    let (leaving, asked) = (draining.clone(), AtomicBool::new(false));
    let service = service_fn(|mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(caller);
        let (request, whole) = Whole::watch(request);
        let (answer, leaving) = (inner.call(request), leaving.clone());
        async move {
            let late = std::pin::pin!(is_late(leaving.clone(), &whole));
            let mut answer = match select(std::pin::pin!(answer), late).await {
                Either::Left((answer, _)) => answer?,
                Either::Right(_) => unfinished(),
            };
            if *leaving.borrow() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(Line::new(stream, STALL)), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let served = match select(served.as_mut(), std::pin::pin!(is_idle(draining))).await {
        Either::Left((served, _)) => served,
        // Not even the head of a first request has come. (Between two requests the library ends it.)
        Either::Right(_) if !asked.load(Ordering::Relaxed) => return,
        Either::Right(_) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        // Clients hang up as they like.
        tracing::debug!(%error, connection, "a connection ended");
    }
}

/// Returns when a connection that says nothing is to be closed: a while after everybody is seen off, so
/// that a request which is on its way is answered.
async fn is_idle(mut draining: watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        return std::future::pending().await;
    }
    pause(GRACE).await;
}

/// Returns when no answer is owed to a request, since the rest of it did not come in time.
async fn is_late(draining: watch::Receiver<bool>, whole: &Whole) {
    is_idle(draining).await;
    if whole.is() {
        std::future::pending::<()>().await;
    }
}

/// What who sent half a request is told.
fn unfinished() -> Response {
    let text = "the manager makes room for another, and the request was not whole; \
                nothing was done, send it again";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unfinished", text).into_response()
}

/// The router of the table. Every path answers `OPTIONS` with the verbs it knows.
fn router(shared: Arc<Shared>) -> Router {
    let mut paths: BTreeMap<&str, MethodRouter<Arc<Shared>>> = BTreeMap::new();
    for route in ROUTES {
        let served = paths.remove(route.path).unwrap_or_default().merge((route.serve)());
        paths.insert(route.path, served);
    }
    let mut router = Router::new();
    for (path, served) in paths {
        let verbs =
            ROUTES.iter().filter(|route| route.path == path).map(|route| match route.verb {
                Verb::Get => "GET,HEAD",
                Verb::Post => "POST",
            });
        let allow = verbs.chain(["OPTIONS"]).collect::<Vec<_>>().join(",");
        let options = move || {
            let allow = allow.clone();
            async move { (StatusCode::NO_CONTENT, [(ALLOW, allow)]) }
        };
        router = router.route(path, served.options(options));
    }
    router
        .route_layer(middleware::from_fn(strictly))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_verb)
        .with_state(shared)
}

/// Nothing of an address is ignored: what cannot be read or is not known is refused.
async fn strictly(request: HttpRequest, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let verb = match *request.method() {
        Method::GET | Method::HEAD => Some(Verb::Get),
        Method::POST => Some(Verb::Post),
        _ => None,
    };
    let route = ROUTES.iter().find(|route| Some(route.path) == path && Some(route.verb) == verb);
    let keys = route.map(|route| {
        let queries = route.parameters.iter().filter(|one| one.place == Place::Query);
        queries.map(|one| one.name).collect::<Vec<_>>()
    });
    match input::address(request.uri(), keys.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn unknown(uri: Uri) -> ApiError {
    if let Err(error) = input::address(&uri, None) {
        return error;
    }
    let text = format!("there is no {}; /openapi.json lists what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", text)
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
