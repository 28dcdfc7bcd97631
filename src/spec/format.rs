//! The values that are written as one word, and what each must look like.

use core::net::SocketAddr;

use super::{Endpoint, HttpUrl};
use crate::exit::Signal;
use crate::name::ServiceName;
use crate::time::cron::Cron;
use crate::time::{QuantityError, parse_duration, parse_size};

/// What a text must look like, by its `format` in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Anything.
    Free,
    /// A length of time.
    Duration,
    /// A number of bytes.
    Size,
    /// A number of bytes or `unlimited`.
    SizeOrUnlimited,
    /// A signal.
    Signal,
    /// A regular expression.
    Regex,
    /// A name of a service or the like.
    Name,
    /// The name of an environment variable.
    EnvName,
    /// `NAME=value` or `NAME`.
    EnvEntry,
    /// A user, optionally with a group.
    User,
    /// A file mode.
    Octal,
    /// A time pattern.
    Cron,
    /// A numeric address with its port.
    Address,
    /// The path of a socket.
    Socket,
    /// An address that is asked over HTTP.
    Url,
    /// Where something listens.
    Endpoint,
}

impl Format {
    /// The format of that name in the schema; what is not ours is free.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "wharf-duration" => Self::Duration,
            "wharf-size" => Self::Size,
            "wharf-size-or-unlimited" => Self::SizeOrUnlimited,
            "wharf-signal" => Self::Signal,
            "wharf-regex" => Self::Regex,
            "wharf-name" => Self::Name,
            "wharf-env-name" => Self::EnvName,
            "wharf-env-entry" => Self::EnvEntry,
            "wharf-user" => Self::User,
            "wharf-octal" => Self::Octal,
            "wharf-cron" => Self::Cron,
            "wharf-address" => Self::Address,
            "wharf-socket" => Self::Socket,
            "wharf-url" => Self::Url,
            "wharf-endpoint" => Self::Endpoint,
            _ => Self::Free,
        }
    }

    /// What is expected, in words.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Free => "a text",
            Self::Duration => "a duration such as 500ms, 10s or 1h30m",
            Self::Size => "a size such as 4096, 64KiB or 10MiB",
            Self::SizeOrUnlimited => "a size such as 0 or 100MiB, or unlimited",
            Self::Signal => "a signal such as SIGTERM",
            Self::Regex => "a regular expression",
            Self::Name => "a name",
            Self::EnvName => "the name of an environment variable",
            Self::EnvEntry => "NAME=value, or NAME",
            Self::User => "a user, or user:group",
            Self::Octal => "a file mode in octal digits such as \"022\"",
            Self::Cron => "a time pattern of five fields such as 0 3 * * *",
            Self::Address => "an address such as 127.0.0.1:9464 or [::1]:9464",
            Self::Socket => "an absolute path, true or false",
            Self::Url => "an address such as http://127.0.0.1:8080/healthz",
            Self::Endpoint => "an address such as localhost:5432 or unix:/run/app.sock",
        }
    }

    /// Says what is wrong with a text.
    pub(super) fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Free => Ok(()),
            Self::Duration => duration(text),
            Self::Size => parse_size(text).map(drop).map_err(|error| quoted(text, error)),
            Self::SizeOrUnlimited if text == "unlimited" => Ok(()),
            Self::SizeOrUnlimited => Self::Size.check(text),
            Self::Signal => text.parse::<Signal>().map(drop).map_err(|error| error.to_string()),
            Self::Regex => regex(text).map(drop),
            Self::Name => ServiceName::new(text).map(drop).map_err(|error| error.to_string()),
            Self::EnvName => env_name(text),
            Self::EnvEntry => env_name(text.split_once('=').map_or(text, |(name, _)| name)),
            Self::User => user(text),
            Self::Octal => octal(text),
            Self::Cron => cron(text),
            Self::Address => address(text).map(drop),
            Self::Url => HttpUrl::parse(text).map(drop),
            Self::Endpoint => Endpoint::parse(text).map(drop),
            Self::Socket if text.starts_with('/') && !text.contains('\0') => Ok(()),
            Self::Socket => Err(format!("`{text}` is not {}", self.expected())),
        }
    }
}

/// A compiled expression, or what is wrong with it in one line.
pub(super) fn regex(text: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::Regex::new(text).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{text}` is not a regular expression: {reason}")
    })
}

/// Of a header line that announces a length: as [`regex()`], over bytes and with ASCII's classes.
pub(super) fn header_regex(text: &str) -> Result<regex::bytes::Regex, String> {
    let header = regex::bytes::RegexBuilder::new(text).unicode(false).build();
    header.map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{text}` is not a regular expression over bytes: {reason}")
    })
}

/// An address of this machine with its port. Names are not looked up: what they mean may change
/// from one start to the next.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    match numeric.as_deref().unwrap_or(text).parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(format!("`{text}` has port 0, which nobody could find"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("`{text}` is not {}", Format::Address.expected())),
    }
}

fn cron(text: &str) -> Result<(), String> {
    Cron::parse(text).map(drop).map_err(|error| format!("`{text}` is no time pattern: {error}"))
}

fn quoted(text: &str, error: QuantityError) -> String {
    format!("`{text}` is no size: {error}")
}

fn duration(text: &str) -> Result<(), String> {
    match parse_duration(text) {
        Ok(_) => Ok(()),
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("`{text}` has no unit: write `{text}s` or `{text}ms`"))
        }
        Err(error) => Err(format!("`{text}` is no duration: {error}")),
    }
}

fn env_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("the name of an environment variable is missing".to_owned())
    } else if text.contains(['=', '\0']) {
        Err(format!("`{text}` cannot be the name of an environment variable"))
    } else {
        Ok(())
    }
}

fn user(text: &str) -> Result<(), String> {
    let mut parts = text.split(':');
    let whole = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
    let good =
        parts.next().is_some_and(whole) && parts.next().is_none_or(whole) && parts.next().is_none();
    if good { Ok(()) } else { Err(format!("`{text}` is not {}", Format::User.expected())) }
}

fn octal(text: &str) -> Result<(), String> {
    match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
        Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(()),
        _ => Err(format!("`{text}` is not {}", Format::Octal.expected())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_tells_good_from_bad() {
        for (format, good, bad) in [
            (Format::Duration, ["0", "10s", "1h30m"], ["", "10", "10x"]),
            (Format::Size, ["0", "10MiB", "4k"], ["", "ten", "1.5GB"]),
            (Format::SizeOrUnlimited, ["0", "1GB", "unlimited"], ["", "infinity", "-1"]),
            (Format::Signal, ["SIGTERM", "hup", "15"], ["", "SIGFOO", "65"]),
            (Format::Regex, ["", "^a+$", "(?P<length>\\d+)"], ["(", "a{2,1}", "[z-a]"]),
            (Format::Name, ["web", "a.b-c_d", "7"], ["", "-a", "a b"]),
            (Format::EnvName, ["PATH", "a.b", "é"], ["", "A=B", "A\0"]),
            (Format::EnvEntry, ["A", "A=", "A=b=c"], ["", "=a", "A\0=b"]),
            (Format::User, ["app", "1000", "app:staff"], ["", "a:", "a:b:c"]),
            (Format::Octal, ["022", "0o22", "7777"], ["", "8", "+22"]),
            (
                Format::Address,
                ["127.0.0.1:9464", "[::1]:1", "localhost:80"],
                ["", ":9464", "[::1]:0"],
            ),
            (Format::Cron, ["0 3 * * *", "* * * * *", "*/5 1,2 * * 1-5"], ["", "@daily", "* *"]),
        ] {
            for text in good {
                assert_eq!(format.check(text), Ok(()), "{format:?}");
            }
            for text in bad {
                assert!(format.check(text).is_err(), "{format:?} {text:?}");
            }
        }
    }
}
