//! Unix sockets whose paths may be longer than the 107 bytes of `sockaddr_un`.
//!
//! Binding and connecting go through `/proc/thread-self/fd/N/NAME`, with N the opened folder. Not
//! through `/proc/self`: that is the main thread, which may have a descriptor table of its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::sockopt::{PassCred, PeerCredentials};
use nix::sys::socket::{getsockopt, setsockopt};

/// Who is at the other end, as the kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process number when it connected.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// A path that fits into a `sockaddr_un` and leads to the same place while the folder is open.
pub(super) fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or_else(|| Path::new(".")))?;
    let short = PathBuf::from(format!("/proc/thread-self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((folder, short))
}

/// Listens at `path`, replacing what is there, for this user alone (mode 0600).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, short) = short(path)?;
    match std::fs::remove_file(&short) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&short)?;
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_folder, short) = short(path)?;
    UnixStream::connect(short)
}

/// Connects to the socket at `path` without waiting for room in its queue (`EAGAIN`).
pub fn connect_now(path: &Path) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let (_folder, short) = short(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(super::io)?;
    let address = UnixAddr::new(&short).map_err(super::io)?;
    connect(made.as_raw_fd(), &address).map_err(super::io)?;
    Ok(UnixStream::from(made))
}

/// A socket for datagrams to the one at `path`; it waits for room unless told otherwise.
pub fn connect_datagram(path: &Path) -> io::Result<UnixDatagram> {
    let (_folder, short) = short(path)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect(short)?;
    Ok(socket)
}

/// A socket for datagrams at an abstract address (unix(7)), which names no file and needs no folder that
/// another user may enter. Whoever sends is told with what was sent (`SO_PASSCRED`); nothing that is
/// received waits.
pub fn listen_abstract(name: &str) -> io::Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let socket = UnixDatagram::bind_addr(&address)?;
    setsockopt(&socket, PassCred, &true).map_err(super::io)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Who is at the other end of a connection.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = getsockopt(&socket, PeerCredentials).map_err(super::io)?;
    Ok(Peer { pid: credentials.pid(), uid: credentials.uid() })
}
