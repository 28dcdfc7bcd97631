//! How a service is seen to be ready and well, as meant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::duration_text;

/// When a service counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What shows it.
    pub by: ReadyBy,
    /// How long it may take, from the moment its program runs.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// The wait between two questions, where it has to be asked.
    #[serde(with = "duration_text")]
    pub interval: Duration,
}

/// What shows that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyBy {
    /// The answer to a question that is asked until it is the right one.
    Probe(Check),
    /// A line of its output that matches this regular expression.
    LogLine(String),
    /// It says `READY=1`, as sd_notify(3) does.
    Notify,
    /// It writes a line to this descriptor, which is 3 or more, as the programs of s6 do.
    Fd(u32),
    /// What its port says of being ready ([`Ready`](super::Ready)).
    Port,
}

/// How a service is seen to be well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// The question.
    pub by: Check,
    /// The wait between an answer and the next question.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// So many failures in a row mean that it is not well; at least 1.
    pub retries: u32,
    /// Failures in this time after it is ready do not count, until the first success.
    #[serde(with = "duration_text")]
    pub start_period: Duration,
    /// The wait between an answer and the next question until the first success.
    #[serde(with = "duration_text")]
    pub start_interval: Duration,
    /// What follows when it is not well.
    pub on_failure: HealthFailure,
}

/// A question to a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `GET` of this address; see [`HttpUrl`].
    Http(String),
    /// A connection to this address; see [`Endpoint`].
    Tcp(String),
    /// These words are executed; they have to exit with 0.
    Exec(Vec<String>),
    /// This message, sent over the service's port, has to have a reply.
    Call(String),
}

impl Check {
    /// The question in a few words.
    pub fn words(&self) -> String {
        match self {
            Self::Http(url) => format!("GET {url}"),
            Self::Tcp(address) => format!("a connection to {address}"),
            Self::Exec(command) => format!("`{}`", command.join(" ")),
            Self::Call(message) => format!("a reply to {message:?}"),
        }
    }
}

/// What follows when a service is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthFailure {
    /// It is ended, which counts as a failure.
    Restart,
    /// It is shown.
    Report,
}

/// How long it may take to become ready unless written otherwise.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The wait between two questions whether it is ready.
pub const READY_INTERVAL: Duration = Duration::from_millis(500);

impl Healthcheck {
    /// One with every default.
    pub fn new(by: Check) -> Self {
        Self {
            by,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            retries: 3,
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(1),
            on_failure: HealthFailure::Restart,
        }
    }
}

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host by name or number, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(String),
}

impl Endpoint {
    /// Reads `127.0.0.1:80`, `localhost:80`, `[::1]:80` or `unix:/run/app.sock`; the error is a
    /// sentence about `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let good = path.starts_with('/') && !path.contains('\0');
            return if good { Ok(Self::Unix(path.to_owned())) } else { Err(no_socket(text)) };
        }
        let expected = || format!("`{text}` is not HOST:PORT, such as localhost:8080");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = bare.is_some_and(|host| host.parse::<core::net::Ipv6Addr>().is_ok())
            || bare.is_none() && is_host(host);
        match port.parse::<u16>() {
            Ok(port) if port > 0 && named => Ok(Self::Tcp(bare.unwrap_or(host).to_owned(), port)),
            _ => Err(expected()),
        }
    }
}

/// An address that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What the header `Host` says.
    pub host: String,
    /// The path with its query; it begins with a slash.
    pub path: String,
}

impl HttpUrl {
    /// Reads `http://HOST[:PORT][/PATH]` or `http://unix:/run/app.sock[:/PATH]`; the error is a sentence
    /// about `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!(
                "`{text}` is encrypted, and a check speaks plain HTTP: ask the program on loopback, \
                 or use `exec` with curl"
            ));
        }
        let expected =
            || format!("`{text}` is not an address such as http://127.0.0.1:8080/healthz");
        let rest = text.strip_prefix("http://").ok_or_else(expected)?;
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(format!(
                "`{text}` has characters that an address cannot have: write them as %XX"
            ));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        if let Some(socket) = rest.strip_prefix("unix:") {
            let (socket, path) = socket.split_once(':').unwrap_or((socket, "/"));
            let good = socket.starts_with('/') && path.starts_with('/');
            return if good {
                let endpoint = Endpoint::Unix(socket.to_owned());
                Ok(Self { endpoint, host: "localhost".to_owned(), path: path.to_owned() })
            } else {
                Err(no_socket(text))
            };
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        if host.contains('@') {
            return Err(format!("`{text}` has a password in it, which a check does not send"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let whole = if has_port { host.to_owned() } else { format!("{host}:80") };
        let endpoint = Endpoint::parse(&whole).map_err(|_| expected())?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { endpoint, host: host.to_owned(), path: format!("{slash}{path}") })
    }
}

fn no_socket(text: &str) -> String {
    format!("`{text}` does not name a socket by its absolute path, such as unix:/run/app.sock")
}

/// Whether a text can be the name or number of a host.
fn is_host(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(letter)
}

/// A length of time that need not be there.
pub(super) mod optional_length {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::duration_text;

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub(in crate::spec::meant) fn serialize<S: Serializer>(
        length: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match length {
            Some(length) => duration_text::serialize(length, s),
            None => s.serialize_none(),
        }
    }

    pub(in crate::spec::meant) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Length(#[serde(with = "duration_text")] Duration);
        Ok(Option::<Length>::deserialize(d)?.map(|length| length.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let tcp = |host: &str, port| Ok(Endpoint::Tcp(host.to_owned(), port));
        for (text, expected) in [
            ("127.0.0.1:80", tcp("127.0.0.1", 80)),
            ("localhost:8080", tcp("localhost", 8080)),
            ("[::1]:5432", tcp("::1", 5432)),
            ("unix:/run/a b.sock", Ok(Endpoint::Unix("/run/a b.sock".to_owned()))),
        ] {
            assert_eq!(Endpoint::parse(text), expected);
        }
        for text in
            ["", "80", ":80", "a:0", "a:65536", "a b:1", "::1:80", "[x]:1", "unix:run", "unix:"]
        {
            assert!(Endpoint::parse(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn addresses_are_read() {
        for (text, host, path) in [
            ("http://127.0.0.1:8080/healthz?a=b", "127.0.0.1:8080", "/healthz?a=b"),
            ("http://localhost", "localhost", "/"),
            ("http://localhost?x", "localhost", "/?x"),
            ("http://[::1]/x#y", "[::1]", "/x"),
            ("http://[::1]:81", "[::1]:81", "/"),
            ("http://unix:/run/app.sock:/healthz", "localhost", "/healthz"),
            ("http://unix:/run/app.sock", "localhost", "/"),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.path.as_str()), (host, path));
        }
        assert_eq!(HttpUrl::parse("http://a/").unwrap().endpoint, Endpoint::Tcp("a".into(), 80));
        for (text, word) in [
            ("https://a/", "plain HTTP"),
            ("ftp://a/", "not an address"),
            ("http://", "not an address"),
            ("http://a:0/", "not an address"),
            ("http://a/b c", "%XX"),
            ("http://a/\r\nX: y", "%XX"),
            ("http://me:it@a/", "password"),
            ("http://unix:app.sock", "absolute path"),
        ] {
            let error = HttpUrl::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
