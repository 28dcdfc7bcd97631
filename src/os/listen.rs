//! Sockets that listen: made, told who may wait, and who has an address that is taken.
//!
//! They block, as programs expect of what they are handed, and are closed on exec. A file is never
//! removed here but by [`remove_stale`], and only where it is a socket at which nobody listens.

use core::net::{IpAddr, SocketAddr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use super::io as to_io;
use super::{procfs, socket as unix_socket};

/// The longest path that fits into a `sockaddr_un`, in bytes.
const LONGEST: usize = 107;

/// Which protocol an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A socket at an address of this machine. Of TCP it listens, and its address may be used although
/// connections of an earlier socket are still being taken down (`SO_REUSEADDR`). `ipv6_only` is set
/// either way, whatever the machine's default is.
pub fn internet(
    protocol: Protocol,
    address: SocketAddr,
    ipv6_only: bool,
    backlog: u32,
) -> io::Result<OwnedFd> {
    let (family, kind) = match (address, protocol) {
        (SocketAddr::V4(_), Protocol::Tcp) => (AddressFamily::Inet, SockType::Stream),
        (SocketAddr::V4(_), Protocol::Udp) => (AddressFamily::Inet, SockType::Datagram),
        (SocketAddr::V6(_), Protocol::Tcp) => (AddressFamily::Inet6, SockType::Stream),
        (SocketAddr::V6(_), Protocol::Udp) => (AddressFamily::Inet6, SockType::Datagram),
    };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map_err(to_io)?;
    if protocol == Protocol::Tcp {
        setsockopt(&made, sockopt::ReuseAddr, &true).map_err(to_io)?;
    }
    if address.is_ipv6() {
        setsockopt(&made, sockopt::Ipv6V6Only, &ipv6_only).map_err(to_io)?;
    }
    bind(made.as_raw_fd(), &SockaddrStorage::from(address)).map_err(to_io)?;
    if protocol == Protocol::Tcp {
        listen(made.as_fd(), backlog)?;
    }
    Ok(made)
}

/// A socket that listens at a path, or at an abstract name where the path begins with `@`. The path
/// may be longer than a `sockaddr_un` holds. `EADDRINUSE` where there is anything already.
pub fn unix(path: &Path, backlog: u32) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let made = if let Some(name) = bytes.strip_prefix(b"@") {
        UnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?
    } else if bytes.len() <= LONGEST {
        UnixListener::bind(path)?
    } else {
        let (_folder, short) = unix_socket::short(path)?;
        UnixListener::bind(short)?
    };
    let made = OwnedFd::from(made);
    listen(made.as_fd(), backlog)?;
    Ok(made)
}

/// Sets how many connections may wait; also of a socket that listens already.
pub fn listen(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: listen(2) touches no memory.
    let answer = unsafe { libc::listen(socket.as_raw_fd(), backlog) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a descriptor is that somebody handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Described {
    /// A Unix stream socket that listens.
    Unix {
        /// Its path; empty where it has an abstract name.
        path: PathBuf,
    },
    /// A TCP socket that listens.
    Tcp(SocketAddr),
    /// Something else, in words.
    Other(&'static str),
}

impl std::fmt::Display for Described {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix { path } if path.as_os_str().is_empty() => {
                f.write_str("a Unix stream socket with an abstract name")
            }
            Self::Unix { path } => write!(f, "a Unix stream socket at {}", path.display()),
            Self::Tcp(address) => write!(f, "a TCP socket at {address}"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// Looks at what a descriptor is.
pub fn described(fd: BorrowedFd<'_>) -> io::Result<Described> {
    use nix::sys::socket::{UnixAddr, getsockname, getsockopt};
    let kind = match getsockopt(&fd, sockopt::SockType) {
        Err(nix::errno::Errno::ENOTSOCK) => return Ok(Described::Other("no socket")),
        answer => answer.map_err(to_io)?,
    };
    let is_stream = kind == SockType::Stream;
    let listens = is_stream && getsockopt(&fd, sockopt::AcceptConn).map_err(to_io)?;
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(to_io)?;
    let internet = address
        .as_sockaddr_in()
        .map(|address| SocketAddr::from(std::net::SocketAddrV4::from(*address)))
        .or_else(|| {
            let address = address.as_sockaddr_in6()?;
            Some(SocketAddr::from(std::net::SocketAddrV6::from(*address)))
        });
    let unix: Option<UnixAddr> = address.as_unix_addr().copied();
    Ok(match (unix, internet) {
        (Some(_), _) if !is_stream => Described::Other("a Unix socket that is none for streams"),
        (_, Some(_)) if !is_stream => Described::Other("a UDP socket"),
        (Some(_), _) if !listens => Described::Other("a Unix socket that does not listen"),
        (_, Some(_)) if !listens => Described::Other("a TCP socket that does not listen"),
        (Some(unix), _) => {
            Described::Unix { path: unix.path().map(Path::to_owned).unwrap_or_default() }
        }
        (None, Some(address)) => Described::Tcp(address),
        (None, None) => Described::Other("a socket of another kind"),
    })
}

/// Gives the file of a socket its owner and mode.
pub fn dress(path: &Path, owner: Option<(u32, u32)>, mode: u32) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Device and inode of what is at a path: whether it is still the same.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let about = fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

/// The same of what a descriptor of [`super::fds::pin`] stands for.
pub fn identity_of(pinned: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let about = nix::sys::stat::fstat(pinned).ok()?;
    Some((about.st_dev, about.st_ino))
}

/// Removes what a descriptor of [`super::fds::pin`] stands for, if it still stands where it was.
pub fn remove_pinned(pinned: BorrowedFd<'_>) {
    let Ok(path) = fs::read_link(format!("/proc/self/fd/{}", pinned.as_raw_fd())) else { return };
    // One that was removed is shown with a word behind its name, where there is nothing.
    if identity(&path).is_some_and(|found| Some(found) == identity_of(pinned)) {
        let _ = fs::remove_file(&path);
    }
}

/// What stands where a Unix socket is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, any more.
    Nothing,
    /// A socket at which nobody listens; it was removed.
    Stale,
    /// A socket at which this process listens, as far as it can be seen.
    Taken(Option<Holder>),
    /// Something that is no socket.
    Other,
}

/// Removes the file of a socket at which nobody listens any more, and nothing else.
pub fn remove_stale(path: &Path) -> io::Result<Standing> {
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        answer => answer?,
    };
    if !about.file_type().is_socket() {
        return Ok(Standing::Other);
    }
    match knock(path) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
            fs::remove_file(path)?;
            Ok(Standing::Stale)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Nothing),
        Ok(holder) => Ok(Standing::Taken(holder)),
        // A queue that is full, another kind of socket, no right to connect: somebody has it.
        Err(_) => Ok(Standing::Taken(None)),
    }
}

/// Connects without waiting, to see who listens.
fn knock(path: &Path) -> io::Result<Option<Holder>> {
    let made = unix_socket::connect_now(path)?;
    let peer = unix_socket::peer(made.as_fd())?;
    let pid = (peer.pid > 0).then_some(peer.pid);
    Ok(Some(Holder { pid, name: pid.and_then(procfs::name), uid: peer.uid }))
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process, where that can be seen.
    pub pid: Option<i32>,
    /// What its program is called.
    pub name: Option<String>,
    /// Its user.
    pub uid: u32,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, &self.name) {
            (Some(pid), Some(name)) => write!(f, "pid {pid} ({name}) has it"),
            (Some(pid), None) => write!(f, "pid {pid} has it"),
            (None, _) => {
                write!(f, "a process of user {} has it, which cannot be seen from here", self.uid)
            }
        }
    }
}

/// Who has an address of the internet protocols, from /proc/net; `None` where nobody can be seen, as
/// of another network namespace. Looks at every process.
pub fn holder(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let names = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let lines = names.iter().flat_map(|name| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        text.lines().skip(1).filter_map(Row::of).collect::<Vec<_>>()
    });
    let text = hexadecimal(address.ip());
    let row = lines
        .filter(|row| row.port == address.port())
        // 0A is LISTEN; a socket for datagrams has no such state.
        .filter(|row| protocol == Protocol::Udp || row.state == "0A")
        // The very address, or all of them; one of another family may be in the way too.
        .min_by_key(|row| (row.address != text, row.address.bytes().any(|digit| digit != b'0')))?;
    let wanted = PathBuf::from(format!("socket:[{}]", row.inode));
    let owner = procfs::all()
        .ok()?
        .into_iter()
        .find(|stat| !stat.is_zombie() && procfs::open_files(stat.pid).contains(&wanted));
    let pid = owner.map(|stat| stat.pid);
    Some(Holder { pid, name: pid.and_then(procfs::name), uid: row.uid })
}

/// An address as /proc/net/tcp and its like have it: words of 32 bits as this machine reads them.
fn hexadecimal(address: IpAddr) -> String {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (words, _) = bytes.as_chunks::<4>();
    let text: Vec<_> =
        words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
    text.concat()
}

/// A line of /proc/net/tcp and its like.
struct Row {
    address: String,
    port: u16,
    state: String,
    uid: u32,
    inode: u64,
}

impl Row {
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.rsplit_once(':')?;
        Some(Self {
            address: address.to_owned(),
            port: u16::from_str_radix(port, 16).ok()?,
            state: (*words.get(3)?).to_owned(),
            uid: words.get(7)?.parse().ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_address_is_found() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refused = internet(Protocol::Tcp, address, false, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let holder = holder(Protocol::Tcp, address).unwrap();
        assert_eq!(holder.pid, Some(super::super::prctl::pid()));
        let text = holder.to_string();
        assert!(text.starts_with("pid ") && text.ends_with(" has it"), "{text}");
    }

    #[test]
    fn only_a_socket_at_which_nobody_listens_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        let path = long.join("s");
        assert_eq!(remove_stale(&path).unwrap(), Standing::Nothing);
        let held = unix(&path, 8).unwrap();
        let Standing::Taken(Some(holder)) = remove_stale(&path).unwrap() else { panic!() };
        assert_eq!(holder.pid, Some(super::super::prctl::pid()));
        dress(&path, None, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        drop(held);
        assert_eq!(remove_stale(&path).unwrap(), Standing::Stale);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(remove_stale(&path).unwrap(), Standing::Other);
        assert!(path.exists());
        // A queue that is full belongs to somebody.
        fs::remove_file(&path).unwrap();
        let busy = unix(&path, 0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = unix_socket::connect_now(&path) {
            waiting.push(one);
        }
        assert_eq!(remove_stale(&path).unwrap(), Standing::Taken(None));
        drop(busy);
    }

    #[test]
    fn what_took_the_place_of_a_file_is_not_removed_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let held = unix(&path, 8).unwrap();
        let pinned = super::super::fds::pin(&path).unwrap();
        assert_eq!(identity_of(pinned.as_fd()), identity(&path));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_ne!(identity_of(pinned.as_fd()), identity(&path), "its number is not given again");
        remove_pinned(pinned.as_fd());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let pinned = super::super::fds::pin(&path).unwrap();
        remove_pinned(pinned.as_fd());
        assert!(!path.exists());
        drop(held);
    }

    #[test]
    fn what_a_descriptor_is_can_be_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listening = unix(&path, 8).unwrap();
        assert_eq!(described(listening.as_fd()).unwrap(), Described::Unix { path });
        let tcp = internet(Protocol::Tcp, "127.0.0.1:0".parse().unwrap(), false, 8).unwrap();
        assert!(matches!(described(tcp.as_fd()).unwrap(), Described::Tcp(_)));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let udp = internet(Protocol::Udp, "127.0.0.1:0".parse().unwrap(), false, 8).unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        for (fd, words) in [
            (one.as_fd(), "a Unix socket that does not listen"),
            (datagrams.as_fd(), "a Unix socket that is none for streams"),
            (udp.as_fd(), "a UDP socket"),
            (file.as_fd(), "no socket"),
        ] {
            assert_eq!(described(fd).unwrap().to_string(), words);
        }
    }

    #[test]
    fn abstract_names_are_no_files() {
        let name = format!("@wharf-test-{}", super::super::prctl::pid());
        let held = unix(Path::new(&name), 8).unwrap();
        let refused = unix(Path::new(&name), 8).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        drop(unix(Path::new(&name), 8).unwrap());
    }

    #[test]
    fn both_families_can_have_a_port_where_ipv6_is_alone() {
        let first = internet(Protocol::Tcp, "[::1]:0".parse().unwrap(), true, 8).unwrap();
        let bound = std::net::TcpListener::from(first).local_addr().unwrap();
        assert!(bound.is_ipv6());
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let held = internet(Protocol::Udp, free, false, 8).unwrap();
        assert!(internet(Protocol::Udp, free, false, 8).is_err(), "datagrams are not shared");
        drop(held);
    }
}
