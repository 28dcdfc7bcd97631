//! The way to the manager: HTTP over its Unix socket, in a blocking style.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::failure::Failure;
use crate::name::Target;
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::{clock, procfs, signal, socket};
use crate::state::StateDir;

/// How long to wait for a manager that its guardian is just starting again.
const RESTART: Duration = Duration::from_secs(5);
/// The pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);
/// The pause before a stream that broke off is taken up again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer to a question may take.
const QUESTION: Duration = Duration::from_secs(60);
/// How long an answer to a command may take; the manager itself gives up after an hour.
const COMMAND: Duration = Duration::from_secs(3700);

/// How many questions of one command may wait for answers: half of what the manager takes.
const AT_ONCE: usize = 128;

/// The way to the manager of one state directory.
#[derive(Debug)]
pub(super) struct Client {
    state: StateDir,
    socket: PathBuf,
    command: String,
    runtime: Runtime,
}

/// A whole answer that is no error.
#[derive(Debug)]
pub(super) struct Reply {
    /// Its body.
    pub(super) body: Bytes,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    method: Method,
    path: String,
    body: Bytes,
    last_event: Option<String>,
}

/// A part of a stream of events: an event, or only a place in the stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// Its place in the stream; empty where it has none.
    pub(super) id: String,
    /// Its kind; empty where it is no event.
    pub(super) kind: String,
    /// Its JSON; empty where it is no event.
    pub(super) data: String,
}

impl Question {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Bytes::new(), last_event: None }
    }

    pub(super) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.into(), body: body.into(), last_event: None }
    }
}

/// The path of a service or replica; `what` follows it.
pub(super) fn path_of(target: &Target, what: &str) -> String {
    let name = target.to_string().replace('/', "%2F");
    format!("/v1/services/{name}{what}")
}

impl Client {
    /// A client that calls itself `wharf COMMAND`.
    pub(super) fn new(state: &StateDir, command: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            state: state.clone(),
            socket: state.socket(),
            command: format!("wharf {command}"),
            runtime: runtime.map_err(|source| Failure::Io { doing: "wait for answers", source })?,
        })
    }

    /// Asks and takes the answer apart.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        parse(&self.ask(Question::get(path))?.body)
    }

    /// Asks one thing.
    pub(super) fn ask(&self, question: Question) -> Result<Reply, Failure> {
        let stream = self.connect()?;
        self.runtime.block_on(whole(stream, question, self.command.clone()))
    }

    /// Asks once, without patience for a manager that is just being started.
    pub(super) fn ask_now(&self, question: Question) -> Result<Reply, Failure> {
        let stream = socket::connect(&self.socket);
        let stream = stream.map_err(|error| unreachable(&self.socket, &error))?;
        self.runtime.block_on(whole(stream, question, self.command.clone()))
    }

    /// Asks once and waits no longer than `limit`.
    pub(super) fn ask_briefly(
        &self,
        question: Question,
        limit: Duration,
    ) -> Result<Reply, Failure> {
        let stream = socket::connect(&self.socket);
        let stream = stream.map_err(|error| unreachable(&self.socket, &error))?;
        let asked = whole(stream, question, self.command.clone());
        self.runtime.block_on(async {
            tokio::time::timeout(limit, asked)
                .await
                .unwrap_or_else(|_| Err(Failure::TimedOut("the manager gave no answer".to_owned())))
        })
    }

    /// Asks several things at once, so that a slow one holds up none of the others, but no more at a
    /// time than the manager takes. The answers come in the order of the questions.
    pub(super) fn ask_all(&self, questions: Vec<Question>) -> Vec<Result<Reply, Failure>> {
        let asked = questions.into_iter().map(async |question| {
            let stream = self.connect()?;
            whole(stream, question, self.command.clone()).await
        });
        self.runtime.block_on(stream::iter(asked).buffered(AT_ONCE).collect())
    }

    /// Listens to events until the stream ends, for whatever reason. `last` is the id of the last
    /// event that was heard before.
    pub(super) fn events(
        &self,
        path: &str,
        last: Option<&str>,
        mut each: impl FnMut(&Heard) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let stream = self.connect()?;
        let mut question = Question::get(path);
        question.last_event = last.map(str::to_owned);
        self.runtime.block_on(async {
            let answer = exchange(stream, question, &self.command);
            let limited = tokio::time::timeout(QUESTION, answer).await;
            let (_sender, response) = limited.unwrap_or_else(|_| Err(silent(QUESTION)))?;
            let (parts, mut body) = response.into_parts();
            if parts.status != StatusCode::OK {
                return Err(refused(&body.collect().await.map_err(broken)?.to_bytes()));
            }
            let mut parser = Parser::default();
            // A stream that breaks off has ended.
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                parser.feed(&data, &mut each)?;
            }
            Ok(())
        })
    }

    /// Waits a moment where the guardian lives, since then there will be a manager again; says
    /// whether it does.
    pub(super) fn will_be_back(&self) -> Result<bool, Failure> {
        match guardian_of(&self.state) {
            None => Ok(false),
            Some(guardian) => Ok(!ends_within(&guardian, PAUSE)?),
        }
    }

    /// Connects. Where the guardian lives and only the manager does not answer, it is being started
    /// again: that is waited for.
    pub(super) fn connect(&self) -> Result<UnixStream, Failure> {
        let deadline = clock::now() + RESTART;
        let mut guardian = None;
        loop {
            let error = match socket::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let away =
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
            if guardian.is_none() {
                guardian = guardian_of(&self.state);
            }
            let Some(guardian) = guardian.as_ref().filter(|_| away && clock::now() < deadline)
            else {
                return Err(unreachable(&self.socket, &error));
            };
            if ends_within(guardian, RETRY)? {
                return Err(unreachable(&self.socket, &error));
            }
        }
    }
}

/// The living guardian of a state directory, as far as its lock says; the pid alone could be a
/// stranger's by now, so it must run the same program.
pub(super) fn guardian_of(state: &StateDir) -> Option<OwnedFd> {
    let pid = state.lock_holder().or_else(|| state.orphan())?;
    let guardian = signal::open_pidfd(pid).ok()?;
    let name = |path: PathBuf| -> Option<String> {
        let name = path.file_name()?.to_str()?;
        Some(name.trim_end_matches(" (deleted)").to_owned())
    };
    let theirs = name(procfs::executable(pid)?)?;
    let ours = name(std::env::current_exe().ok()?)?;
    let lives = !ends_within(&guardian, Duration::ZERO).ok()?;
    (lives && theirs == ours).then_some(guardian)
}

/// Waits for the end of a process; says whether it has come.
pub(super) fn ends_within(process: &OwnedFd, limit: Duration) -> Result<bool, Failure> {
    let wait = || {
        let poller = Poller::new()?;
        poller.add(process.as_fd(), 0, Interest::Read)?;
        let mut ready = Ready::new(1);
        poller.wait(&mut ready, Some(limit))?;
        Ok(ready.tokens().next().is_some())
    };
    wait().map_err(|source| Failure::Io { doing: "wait for a process", source })
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    const START: &str = "`wharf up -d` starts one";
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::Unreachable { why: format!("there is no socket {path}"), hint: START }
        }
        io::ErrorKind::ConnectionRefused => {
            Failure::Unreachable { why: format!("nobody listens at {path}"), hint: START }
        }
        io::ErrorKind::PermissionDenied => Failure::Unreachable {
            why: format!("{path} may not be used by this user"),
            hint: "only the user who started the manager, and root, may speak to it",
        },
        _ => Failure::Unreachable { why: format!("{path}: {error}"), hint: START },
    }
}

/// Takes JSON apart.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::Broken(format!("the manager's answer is not understood: {error}"))
    })
}

async fn whole(stream: UnixStream, question: Question, command: String) -> Result<Reply, Failure> {
    let limit = if question.method == Method::GET { QUESTION } else { COMMAND };
    let conversation = async {
        let (_sender, response) = exchange(stream, question, &command).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        if status.is_success() { Ok(Reply { body }) } else { Err(refused(&body)) }
    };
    tokio::time::timeout(limit, conversation).await.unwrap_or_else(|_| Err(silent(limit)))
}

fn silent(limit: Duration) -> Failure {
    Failure::TimedOut(format!("the manager gave no answer within {} s", limit.as_secs()))
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn exchange(
    stream: UnixStream,
    question: Question,
    command: &str,
) -> Result<(Sender, Response<Incoming>), Failure> {
    let begin = || {
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    };
    let stream = begin().map_err(|source| Failure::Io { doing: "use the socket", source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let mut request = Request::builder();
    if let Some(id) = question.last_event {
        request = request.header("last-event-id", id);
    }
    let request = request
        .method(question.method)
        .uri(question.path)
        .header("host", "wharf")
        .header("x-wharf-command", command)
        .body(Full::new(question.body))
        .map_err(|error| Failure::Broken(format!("the question cannot be written: {error}")))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((sender, response))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where a function is mapped")]
fn broken(error: hyper::Error) -> Failure {
    let mut text = format!("the conversation with the manager broke off: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::Broken(text)
}

pub(super) fn refused(body: &[u8]) -> Failure {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
    Failure::Refused {
        code: text("code").unwrap_or_default(),
        error: text("error").unwrap_or_else(|| "the manager refused without a word".to_owned()),
        body: Box::new(body),
    }
}

/// Takes a stream of events apart (WHATWG HTML, section 9.2.6), as far as ours go.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    heard: Heard,
}

impl Parser {
    fn feed(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&Heard) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.pop_if(|last| *last == b'\n').is_none() {
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            if line.is_empty() {
                let heard = std::mem::take(&mut self.heard);
                if heard != Heard::default() {
                    each(&heard)?;
                }
            } else if let Some(kind) = line.strip_prefix("event: ") {
                kind.clone_into(&mut self.heard.kind);
            } else if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut self.heard.id);
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.heard.data.push_str(data);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_understood_wherever_they_are_cut() {
        let text = ": listening\nretry: 1\nid: 6\n\nevent: exit\nid: 7\ndata: {\"seq\":7}\n\n:\n\nevent: gap\ndata: {}\n\n";
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            let mut each = |heard: &Heard| {
                found.push(format!("{}|{}|{}", heard.id, heard.kind, heard.data));
                Ok(())
            };
            parser.feed(&text.as_bytes()[..cut], &mut each).unwrap();
            parser.feed(&text.as_bytes()[cut..], &mut each).unwrap();
            assert_eq!(found, ["6||", "7|exit|{\"seq\":7}", "|gap|{}"], "{cut}");
        }
    }

    #[test]
    fn nobody_at_the_socket_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(folder.path());
        let client = Client::new(&state, "ps").unwrap();
        let failure = client.ask(Question::get("/v1/manager")).unwrap_err();
        assert_eq!(failure.code(), 5);
        assert!(failure.text().contains("there is no socket"), "{}", failure.text());
        drop(socket::listen(&state.socket()).unwrap());
        let failure = client.ask(Question::get("/v1/manager")).unwrap_err();
        assert_eq!(failure.code(), 5);
        assert!(failure.text().contains("nobody listens at"), "{}", failure.text());
        assert!(failure.text().contains("wharf up -d"), "{}", failure.text());
    }

    #[test]
    fn a_path_names_a_service_or_a_replica() {
        assert_eq!(path_of(&"web".parse().unwrap(), ""), "/v1/services/web");
        assert_eq!(path_of(&"web/2".parse().unwrap(), "/call"), "/v1/services/web%2F2/call");
    }
}
