//! `GET` over plain HTTP/1.1: the status decides, redirects are not followed, and no more is read than
//! [`MOST`] bytes of head and as many of body.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::{KEPT, Outcome, tcp};
use crate::spec::HttpUrl;

/// How much of an answer's head, and of its body, is read.
const MOST: usize = 64 << 10;
/// How much of what the program says is told with a status that is none of success.
const SHOWN: usize = 200;

/// Asks. The whole answer has to come, or [`MOST`] bytes of it; for how long is the caller's to say.
pub(super) async fn get(url: &HttpUrl) -> Outcome {
    let stream = match tcp::connect(&url.endpoint).await {
        Ok(stream) => TokioIo::new(stream),
        Err(words) => return Err(words).into(),
    };
    let mut client = http1::Builder::new();
    let shaken = client.max_buf_size(MOST).handshake::<_, Empty<Bytes>>(stream).await;
    let (mut sender, connection) = match shaken {
        Ok(both) => both,
        Err(error) => return Err(broken(&error)).into(),
    };
    // It ends with the sender, or with this task's own end.
    let connection = Abort(tokio::spawn(connection));
    let request = Request::get(&url.path)
        .header("host", &url.host)
        .header("user-agent", concat!("wharf/", env!("CARGO_PKG_VERSION")))
        .header("accept", "*/*")
        .header("connection", "close")
        .body(Empty::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Err(error.to_string().into()).into(),
    };
    let answer = match sender.send_request(request).await {
        Ok(answer) => answer,
        Err(error) => return Err(broken(&error)).into(),
    };
    let outcome = judge(answer).await;
    drop(connection);
    outcome
}

/// A task that ends with its handle.
struct Abort<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn judge(answer: Response<Incoming>) -> Outcome {
    let status = answer.status();
    let mut body = answer.into_body();
    let mut said = Vec::new();
    let mut read = 0;
    while read < MOST
        && let Some(frame) = body.frame().await
    {
        match frame {
            Ok(frame) => {
                let piece = frame.into_data().unwrap_or_default();
                read += piece.len();
                said.extend_from_slice(&piece[..piece.len().min(KEPT - said.len())]);
            }
            Err(error) => return Outcome { result: Err(broken(&error)), said },
        }
    }
    let result = if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        let text = String::from_utf8_lossy(&said);
        let line = text.lines().next().unwrap_or_default().trim();
        let line: String = line.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let colon = if line.is_empty() { "" } else { ": " };
        Err(format!("status {}{colon}{line}", status.as_u16()).into())
    };
    Outcome { result, said }
}

fn broken(error: &hyper::Error) -> Box<str> {
    format!("its answer is not HTTP: {error}").into()
}
