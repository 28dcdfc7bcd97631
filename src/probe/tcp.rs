//! A connection: to a host by name or number, or to a Unix socket. No byte is sent.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::spec::Endpoint;

/// Something that carries bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects; of a host with several addresses to the first that accepts. The error says why not in
/// words that can follow a colon.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Stream>, Box<str>> {
    match endpoint {
        Endpoint::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| words(&error))
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| words(&error))
        }
    }
}

/// `Connection refused (os error 111)` as `connection refused`.
pub(super) fn words(error: &io::Error) -> Box<str> {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
