//! What clients may send: names, queries, bodies, all of them bounded and checked.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::name::{Requester, Target};
use crate::os::socket::Peer;

/// The largest body of any other request, in bytes.
pub(super) const LARGEST_BODY: usize = 64 << 10;
/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How much of `x-wharf-command` is kept, in characters.
const LONGEST_COMMAND: usize = 64;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// As the kernel vouches for it; `None` where it does not know any more.
    pub(super) peer: Option<Peer>,
    /// The number of the connection; messages of different ones are served in turn.
    pub(super) connection: u64,
}

/// Who asks, and on which connection.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) by: Requester,
    pub(super) connection: u64,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().copied();
        let header = parts.headers.get("x-wharf-command").map(HeaderValue::as_bytes);
        Ok(Self {
            by: Requester {
                uid: caller.and_then(|caller| caller.peer).map(|peer| peer.uid),
                pid: caller.and_then(|caller| caller.peer).map(|peer| peer.pid),
                who: command(header),
            },
            connection: caller.map_or(0, |caller| caller.connection),
        })
    }
}

/// What the client calls itself. It is shown in records and at terminals, hence the small alphabet.
fn command(header: Option<&[u8]>) -> String {
    let text = String::from_utf8_lossy(header.unwrap_or_default());
    let kept: String =
        text.chars().filter(|c| matches!(c, ' '..='~')).take(LONGEST_COMMAND).collect();
    let kept = kept.trim();
    if kept.is_empty() { "http".to_owned() } else { kept.to_owned() }
}

/// A query string as `T`, with a clear word about what is wrong.
pub(super) fn query<T>(given: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    match given {
        Ok(Query(query)) => Ok(query),
        Err(wrong) => Err(ApiError::bad_request("bad_query", wrong.body_text())),
    }
}

/// The service or replica of the path, `?replica=` being another way to say which one.
pub(super) fn target(name: &str, replica: Option<u32>) -> Result<Target, ApiError> {
    let bad = |why: String| ApiError::bad_request("bad_name", why);
    let mut target: Target = name
        .parse()
        .map_err(|error| bad(format!("{name:?} is no NAME and no NAME/REPLICA: {error}")))?;
    match (target.replica, replica) {
        (_, Some(0)) => return Err(bad("replicas are counted from 1".to_owned())),
        (Some(one), Some(other)) if one != other => {
            return Err(bad(format!("the path says replica {one}, the query replica {other}")));
        }
        (one, other) => target.replica = one.or(other),
    }
    Ok(target)
}

/// The whole body, at most `most` bytes.
pub(super) async fn body(parts: &Parts, body: Body, most: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let text = format!("the body is larger than {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
    };
    let packed = parts.headers.get(CONTENT_ENCODING);
    if packed.is_some_and(|packed| !packed.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let text = "a compressed body is not read";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", text));
    }
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|all| all > most as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(ApiError::bad_request("bad_body", format!("the body cannot be read: {error}")))
        }
        Err(_) => {
            let text = format!("the body did not come within {} s", BODY_TIME.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow_body", text))
        }
    }
}

/// A JSON body; nothing at all means the default.
pub(super) async fn json<T: DeserializeOwned>(
    parts: &Parts,
    given: Body,
    empty: &str,
) -> Result<T, ApiError> {
    json_type(parts)?;
    let bytes = body(parts, given, LARGEST_BODY).await?;
    let bytes = if bytes.is_empty() { empty.as_bytes() } else { &bytes };
    // A list of the values in their order would be taken for the object itself.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::bad_request("bad_body", "the body is a list, an object is expected"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::bad_request("bad_body", format!("the body is not what is expected: {error}"))
    })
}

/// A body that is read as JSON must not say that it is something else. What curl says of any body
/// (`application/x-www-form-urlencoded`) says nothing.
fn json_type(parts: &Parts) -> Result<(), ApiError> {
    let Some(kind) = parts.headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = kind.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json =
        matches!(&*essence, "application/json" | "text/json" | "application/x-www-form-urlencoded");
    if json || essence.starts_with("application/") && essence.ends_with("+json") {
        return Ok(());
    }
    let text = "the body is read as application/json, and says that it is something else";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", text))
}

/// The path and the query must be what RFC 3986 allows: escapes of two digits that make UTF-8, and
/// of the query's keys each one that is `known`, once.
pub(super) fn address(uri: &Uri, known: Option<&[&str]>) -> Result<(), ApiError> {
    if let Err(why) = decoded(uri.path()) {
        return Err(ApiError::bad_request("bad_path", format!("the path {why}")));
    }
    let bad = |text: String| ApiError::bad_request("bad_query", text);
    let Some(known) = known else { return Ok(()) };
    let mut seen = Vec::new();
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decoded(key).map_err(|why| bad(format!("a key of the query {why}")))?;
        if !known.contains(&&*key) {
            let text = if known.is_empty() {
                format!("there is no query key {key:?} here, nor any other")
            } else {
                format!("there is no query key {key:?} here; there are {}", known.join(", "))
            };
            return Err(bad(text));
        }
        decoded(value).map_err(|why| bad(format!("{key}: the value {why}")))?;
        if seen.contains(&key) {
            return Err(bad(format!("{key} is given more than once")));
        }
        seen.push(key);
    }
    Ok(())
}

/// A text without its percent-encoding, or what is wrong with it.
fn decoded(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("has a % that two hexadecimal digits do not follow");
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| "has a digit that is none")?);
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

/// The body must be empty, or white space.
pub(super) async fn nothing(parts: &Parts, given: Body) -> Result<(), ApiError> {
    let bytes = body(parts, given, LARGEST_BODY).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) || bytes.trim_ascii() == b"{}" {
        return Ok(());
    }
    Err(ApiError::bad_request("bad_body", "this request takes no body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_calls_itself_is_harmless() {
        let long = "x".repeat(100);
        for (header, who) in [
            (None, "http"),
            (Some(&b""[..]), "http"),
            (Some(b"  "), "http"),
            (Some(b"wharf stop"), "wharf stop"),
            (Some(b"\x1b[31mred\t\xff"), "[31mred"),
            (Some(long.as_bytes()), &long[..64]),
        ] {
            assert_eq!(command(header), who);
        }
    }

    #[test]
    fn a_replica_is_named_in_the_path_or_in_the_query() {
        for (name, replica, meant) in [
            ("web", None, Some("web")),
            ("web", Some(2), Some("web/2")),
            ("web/2", None, Some("web/2")),
            ("web/2", Some(2), Some("web/2")),
            ("web/2", Some(3), None),
            ("web", Some(0), None),
            ("web/0", None, None),
            ("we b", None, None),
        ] {
            let found = target(name, replica).ok().map(|target| target.to_string());
            assert_eq!(found.as_deref(), meant, "{name} {replica:?}");
        }
    }
}
