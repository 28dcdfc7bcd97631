//! What a program is given besides its words, as meant: sockets and secrets, and which descriptor is
//! which.

use core::net::{IpAddr, SocketAddr};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Channel, Service};

/// How many connections may wait to be accepted unless written otherwise: as many as Linux allows
/// unless told otherwise (`net.core.somaxconn`, 4096 since Linux 5.4).
pub const BACKLOG: u32 = 4096;

/// Who may connect to a Unix socket unless written otherwise: its owner.
pub const SOCKET_MODE: u32 = 0o600;

/// The most sockets, and the most secrets, of one service.
pub const MOST_GIVEN: usize = 64;

/// The largest secret, in bytes. What is larger is data.
pub const LARGEST_SECRET: u64 = 1 << 20;

/// The longest path, and the longest abstract name, of a Unix socket, in bytes (unix(7)).
pub const LONGEST_SOCKET: usize = 107;

/// The first descriptor that is handed over by the protocol of sd_listen_fds(3).
pub const FIRST_DESCRIPTOR: i32 = 3;

/// The name of a port's channel among `LISTEN_FDNAMES`, where it stands on descriptor 3.
pub const CHANNEL_NAME: &str = "port";

/// A socket that the manager holds and hands over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listen {
    /// Its name in `LISTEN_FDNAMES`; the service has no other of that name.
    pub name: String,
    /// Where it listens.
    #[serde(flatten)]
    pub address: ListenAddress,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// Whether `[::]` leaves IPv4 alone.
    #[serde(default)]
    pub ipv6_only: bool,
    /// The mode of the file of a Unix socket.
    pub mode: u32,
    /// Who owns that file; `None` is the service's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenAddress {
    /// For connections over TCP; its port is not 0.
    Tcp(SocketAddr),
    /// For datagrams over UDP; its port is not 0.
    Udp(SocketAddr),
    /// For connections, at this absolute path, or at an abstract name that begins with `@`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

impl Listen {
    /// The variable that tells its descriptor.
    pub fn variable(&self) -> String {
        format!("WHARF_LISTEN_{}", variable(&self.name))
    }

    /// Whether the two cannot be held at the same time: a connection to one could be to the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let both = |here: &SocketAddr, there: &SocketAddr| {
            here.port() == there.port()
                && (self.covers(here.ip(), there.ip()) || other.covers(there.ip(), here.ip()))
        };
        match (&self.address, &other.address) {
            (ListenAddress::Tcp(here), ListenAddress::Tcp(there))
            | (ListenAddress::Udp(here), ListenAddress::Udp(there)) => both(here, there),
            (ListenAddress::Unix(here), ListenAddress::Unix(there)) => here == there,
            (
                ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Unix(_),
                ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Unix(_),
            ) => false,
        }
    }

    /// Whether what comes to `there` would come to `own`, the address of this socket.
    fn covers(&self, own: IpAddr, there: IpAddr) -> bool {
        // An address of IPv4 in the clothes of IPv6 is that address.
        match (own.to_canonical(), there.to_canonical()) {
            (own, there) if own == there => true,
            (IpAddr::V4(own), IpAddr::V4(_)) => own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V6(_)) => own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && !self.ipv6_only,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// A secret of a service: never its text, only where that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// The file that holds it; an absolute path.
    pub file: PathBuf,
    /// How the program gets it.
    pub by: SecretBy,
}

/// How a program gets a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretBy {
    /// As a file; the variable `NAME_FILE` is its path.
    File,
    /// As an open descriptor; the variable `NAME_FD` is its number.
    Fd,
}

impl Secret {
    /// The variable that tells where it is.
    pub fn variable(&self) -> String {
        let end = match self.by {
            SecretBy::File => "FILE",
            SecretBy::Fd => "FD",
        };
        format!("{}_{end}", variable(&self.name))
    }
}

/// A name as a part of a variable's name.
fn variable(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

impl Service {
    /// Whether its port's channel stands on descriptor 3, before its sockets.
    pub fn has_channel_descriptor(&self) -> bool {
        self.port.as_ref().is_some_and(|port| port.channel == Channel::Fd3)
    }

    /// The descriptor of its first socket: 3, or 4 where its port speaks over 3.
    pub fn first_socket(&self) -> i32 {
        FIRST_DESCRIPTOR + i32::from(self.has_channel_descriptor())
    }

    /// The descriptor of its first secret: after the sockets.
    pub fn first_secret(&self) -> i32 {
        self.first_socket() + i32::try_from(self.listen.len()).unwrap_or(i32::MAX)
    }

    /// The first descriptor that nothing of this stands on.
    pub fn first_free_descriptor(&self) -> i32 {
        self.first_secret() + i32::try_from(self.secrets.len()).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: ListenAddress, ipv6_only: bool) -> Listen {
        let (backlog, mode) = (BACKLOG, SOCKET_MODE);
        Listen { name: "http".to_owned(), address, backlog, ipv6_only, mode, owner: None }
    }

    #[test]
    fn what_cannot_be_held_together_is_known() {
        let tcp = |text: &str| listen(ListenAddress::Tcp(text.parse().unwrap()), false);
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("[::]:80", "127.0.0.2:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
        ] {
            let (one, other) = (tcp(one), tcp(other));
            assert_eq!(one.overlaps(&other), expected, "{} {}", one.address, other.address);
            assert_eq!(other.overlaps(&one), expected, "{} {}", other.address, one.address);
        }
        let alone = listen(ListenAddress::Tcp("[::]:80".parse().unwrap()), true);
        assert!(!alone.overlaps(&tcp("0.0.0.0:80")) && alone.overlaps(&tcp("[::1]:80")));
        let udp = listen(ListenAddress::Udp("127.0.0.1:80".parse().unwrap()), false);
        assert!(!udp.overlaps(&tcp("127.0.0.1:80")) && udp.overlaps(&udp));
        let unix = listen(ListenAddress::Unix("/run/a".into()), false);
        assert!(unix.overlaps(&unix) && !unix.overlaps(&udp));
    }

    #[test]
    fn names_become_variables() {
        let mut secret =
            Secret { name: "api-token.v2".to_owned(), file: "/a".into(), by: SecretBy::File };
        assert_eq!(secret.variable(), "API_TOKEN_V2_FILE");
        secret.by = SecretBy::Fd;
        assert_eq!(secret.variable(), "API_TOKEN_V2_FD");
        let unix = listen(ListenAddress::Unix("/run/a".into()), false);
        assert_eq!(unix.variable(), "WHARF_LISTEN_HTTP");
    }
}
