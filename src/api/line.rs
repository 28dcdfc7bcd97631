//! The line to a client, with the two things that the HTTP library leaves out.
//!
//! A client that takes nothing of what is written to it is given up after a while: what waits for it
//! would wait for ever. And where the library itself refuses a request, before any of our code sees
//! it, it does so without a word; here it gets the JSON that every error has.

use std::future::{Future as _, Pending};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Timeout, timeout};

use super::error::ApiError;

/// A connection.
pub(super) struct Line {
    stream: UnixStream,
    patience: Duration,
    /// Runs while a write waits for the client.
    waiting: Option<Pin<Box<Timeout<Pending<()>>>>>,
    /// A refusal of our own, in place of the library's, and how much of it is written.
    refusal: Option<(Vec<u8>, usize)>,
}

impl Line {
    pub(super) fn new(stream: UnixStream, patience: Duration) -> Self {
        Self { stream, patience, waiting: None, refusal: None }
    }

    /// The connection itself, where the rest of the conversation is another's.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Lets time count against a client that does not take what is written.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let patience = self.patience;
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(timeout(patience, std::future::pending())));
        let _ = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes the rest of a refusal.
    fn refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((text, written)) = &mut self.refusal {
            let rest = &text[*written..];
            if rest.is_empty() {
                self.refusal = None;
                break;
            }
            let result = Pin::new(&mut self.stream).poll_write(cx, rest);
            let count = ready!(self.judge(cx, result))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some((_, written)) = &mut self.refusal {
                *written += count;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The head of an answer that the library made without us: it has an error's status and no body.
/// Every error of ours has one.
fn refusal(head: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 4")?;
    let lower = head.to_ascii_lowercase();
    if !lower.contains("\r\ncontent-length: 0\r\n") || !head.ends_with("\r\n\r\n") {
        return None;
    }
    let (status, code, text) = match status.get(..2)? {
        "00" => (StatusCode::BAD_REQUEST, "bad_request", "what was sent is no HTTP/1.1"),
        "14" => (StatusCode::URI_TOO_LONG, "uri_too_long", "the address is too long"),
        "31" => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "there are too many headers, or they are too long",
        ),
        _ => return None,
    };
    let body = ApiError::new(status, code, text).body();
    let length = body.len();
    Some(
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes(),
    )
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.refuse(cx))?;
        if let Some(text) = refusal(bytes) {
            self.refusal = Some((text, 0));
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.refuse(cx))?;
        let filled = pieces.iter().filter(|piece| !piece.is_empty());
        if let (Some(head), 1) = (filled.clone().next(), filled.count())
            && let Some(text) = refusal(head)
        {
            self.refusal = Some((text, 0));
            return Poll::Ready(Ok(head.len()));
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judge(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.refuse(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.refuse(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_refuses_is_given_words() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(refusal(bare).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(body.contains("\"code\":\"headers_too_large\""));
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nx",
            b"\xff\xfe",
        ] {
            assert!(refusal(other).is_none());
        }
    }
}
