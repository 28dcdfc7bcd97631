//! Opening one socket that programs are to be given: what is in the way is said, and never removed but
//! where it is the file of a socket at which nobody listens.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::exit::Errno;
use crate::os::errno_of;
use crate::os::listen::{self, Protocol, Standing};
use crate::spec::{Listen, ListenAddress};

/// Why a socket could not be opened.
pub(super) struct Trouble {
    pub(super) errno: Errno,
    pub(super) why: String,
}

/// Makes a socket; with it what its file is.
pub(super) fn made(wanted: &Listen) -> Result<(OwnedFd, Option<(u64, u64)>), Trouble> {
    let internet = |protocol, address| {
        listen::internet(protocol, address, wanted.ipv6_only, wanted.backlog)
            .map(|socket| (socket, None))
            .map_err(|error| refused(&error, protocol, address))
    };
    match &wanted.address {
        ListenAddress::Tcp(address) => internet(Protocol::Tcp, *address),
        ListenAddress::Udp(address) => internet(Protocol::Udp, *address),
        ListenAddress::Unix(path) => at_path(path, wanted.backlog),
    }
}

fn refused(error: &io::Error, protocol: Protocol, address: core::net::SocketAddr) -> Trouble {
    let errno = errno_of(error);
    let why = match errno.0 {
        libc::EADDRINUSE => match listen::holder(protocol, address) {
            Some(holder) => format!("the address is in use: {holder}"),
            None => "the address is in use, by whom cannot be seen from here".to_owned(),
        },
        libc::EADDRNOTAVAIL => "this machine has no such address".to_owned(),
        libc::EACCES => "a port this low takes root or CAP_NET_BIND_SERVICE".to_owned(),
        _ => error.to_string(),
    };
    Trouble { errno, why }
}

/// Whether a socket at this path has a file, and no abstract name.
pub(super) fn is_file(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().starts_with(b"@")
}

/// Listens at a path. The file of a socket that nobody listens at any more is replaced, nothing else.
fn at_path(path: &Path, backlog: u32) -> Result<(OwnedFd, Option<(u64, u64)>), Trouble> {
    let is_file = is_file(path);
    let mut replaced = false;
    loop {
        let error = match listen::unix(path, backlog) {
            Ok(socket) => return Ok((socket, listen::identity(path).filter(|_| is_file))),
            Err(error) => error,
        };
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        let standing = if in_use && is_file {
            listen::remove_stale(path)
                .map_err(|error| Trouble { errno: errno_of(&error), why: error.to_string() })?
        } else {
            Standing::Taken(None)
        };
        let why = match standing {
            Standing::Nothing | Standing::Stale if !replaced => {
                replaced = true;
                continue;
            }
            Standing::Nothing | Standing::Stale => "somebody else is making it too".to_owned(),
            Standing::Taken(_) if !in_use => error.to_string(),
            Standing::Taken(Some(holder)) => format!("the address is in use: {holder}"),
            Standing::Taken(None) => "the address is in use".to_owned(),
            Standing::Other => "what is there is no socket, and is left alone".to_owned(),
        };
        return Err(Trouble { errno: errno_of(&error), why });
    }
}
