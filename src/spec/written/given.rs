//! What a program is given besides its words: files of variables, sockets, secrets.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{AddressText, NameText, Octal, User, Word};

/// Files with environment variables.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EnvFiles {
    /// Several; of two values of a variable that of the later file counts.
    More(Vec<EnvFile>),
    /// The path of one; it must be there.
    One(Word),
}

/// A file with environment variables.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EnvFile {
    /// Spelled out.
    Long(EnvFileLong),
    /// Its path; it must be there.
    Path(Word),
}

/// A file with environment variables, spelled out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvFileLong {
    /// Its path. A relative one starts at the folder of the first configuration file.
    pub path: Word,
    /// Whether it is a mistake that it is not there.
    pub required: Option<bool>,
}

/// A socket that the manager holds. It has one of `tcp`, `udp` and `unix`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: NameText,
    /// A numeric address with its port, such as `127.0.0.1:8080` or `[::]:8080`, for connections.
    pub tcp: Option<AddressText>,
    /// A numeric address with its port, such as `127.0.0.1:53`, for datagrams.
    pub udp: Option<AddressText>,
    /// The path of a Unix socket for connections. A relative one starts at the folder of the first
    /// configuration file, one that begins with `@` is no file but an abstract name.
    pub unix: Option<Word>,
    /// How many connections may wait to be accepted. The kernel has a bound of its own,
    /// `net.core.somaxconn`.
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: Option<u32>,
    /// Whether `[::]` takes connections by IPv6 alone, and not those by IPv4 too.
    pub ipv6_only: Option<bool>,
    /// The mode of the file of a Unix socket; who may write to it may connect.
    pub mode: Option<Octal>,
    /// Who owns the file of a Unix socket: a user, or `user:group`. Without it the service's `user`.
    pub owner: Option<User>,
}

/// A secret, by name or spelled out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Secret {
    /// How it comes and goes is spelled out.
    Long(SecretLong),
    /// By name; it arrives as a file named in `NAME_FILE`.
    Name(NameText),
}

/// A secret, spelled out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretLong {
    /// Its name.
    pub name: NameText,
    /// The file that holds it. Without it what `secrets` at the top says of the name, or else
    /// `secrets/NAME` in the folder of the first configuration file.
    pub file: Option<Word>,
    /// How the program gets it.
    pub by: Option<Destination>,
}

/// How a program gets a secret.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// As a file that only it can read; `NAME_FILE` is its path.
    File,
    /// As an open descriptor; `NAME_FD` is its number.
    Fd,
}

/// Where a secret comes from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// The file that holds it; it is read whenever a program starts that is to have it. A relative
    /// path starts at the folder of the first configuration file.
    pub file: Word,
}
