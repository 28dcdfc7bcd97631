//! Descriptors: pipes, how much is in them, and handing descriptors to another table.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

use super::io as to_io;
use super::socket::Peer;

/// A pipe; both ends are closed on exec.
#[derive(Debug)]
pub struct Pipe {
    /// The end to read from.
    pub read: OwnedFd,
    /// The end to write to.
    pub write: OwnedFd,
}

/// Makes a pipe.
pub fn pipe() -> io::Result<Pipe> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(to_io)?;
    Ok(Pipe { read, write })
}

/// Another descriptor, closed on exec, for the same open file.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// Makes reads or writes through this open file return instead of wait. Never for a file that
/// another process shares: the flag belongs to the description, and a terminal would be broken for
/// everybody.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).map_err(to_io)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop).map_err(to_io)
}

/// Whether a descriptor survives exec in a child.
pub fn set_inheritable(fd: BorrowedFd<'_>, inherit: bool) -> io::Result<()> {
    let flags = if inherit { nix::fcntl::FdFlag::empty() } else { nix::fcntl::FdFlag::FD_CLOEXEC };
    fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop).map_err(to_io)
}

/// Enlarges a pipe to hold `bytes`. Refused with `EPERM` beyond the user's quota.
pub fn enlarge(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    fcntl(fd, FcntlArg::F_SETPIPE_SZ(bytes)).map(drop).map_err(to_io)
}

/// How many bytes are in a pipe and have not been read (`FIONREAD`); works on either end. Of a socket
/// and of a terminal: how many can be read here.
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which is valid for it.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if answer == 0 {
        Ok(usize::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads once.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    nix::unistd::read(fd, buffer).map_err(to_io)
}

/// Reads once: first to the end of `first`, at most `most` bytes and no more than it has room for, and
/// what comes beyond into `second`. How many bytes came in both.
pub fn read_two(
    fd: BorrowedFd<'_>,
    first: &mut Vec<u8>,
    most: usize,
    second: &mut [u8],
) -> io::Result<usize> {
    let room = most.min(first.capacity() - first.len());
    let end = first.spare_capacity_mut().as_mut_ptr().cast::<libc::c_void>();
    let pieces = [
        libc::iovec { iov_base: end, iov_len: room },
        libc::iovec { iov_base: second.as_mut_ptr().cast(), iov_len: second.len() },
    ];
    // SAFETY: readv(2) writes into the spare room of one vector, no more than it has, and into a
    // slice; both are ours alone.
    let answer = unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr(), 2) };
    let Ok(count) = usize::try_from(answer) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel has just written as many bytes to its end, and there was room for them.
    unsafe { first.set_len(first.len() + count.min(room)) };
    Ok(count)
}

/// Writes once.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    nix::unistd::write(fd, bytes).map_err(to_io)
}

/// Writes several pieces in one call.
pub fn write_pieces(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    nix::sys::uio::writev(fd, pieces).map_err(to_io)
}

/// Gives a file to another user, so that a program running as that user can reopen `/dev/stdin`.
pub fn give_to(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    nix::unistd::fchown(fd, Some(uid), Some(gid)).map_err(to_io)
}

/// Two connected sockets that keep message boundaries.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(to_io)
}

/// Two connected sockets that carry bytes, both closed on exec.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(to_io)
}

/// Sends one message with descriptors attached; waits for room.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    send_as(socket, bytes, fds, MsgFlags::MSG_NOSIGNAL)
}

/// The same without waiting; `WouldBlock` where there is no room.
pub fn try_send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    send_as(socket, bytes, fds, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
}

fn send_as(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], flags: MsgFlags) -> io::Result<()> {
    let pieces = [IoSlice::new(bytes)];
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &pieces, control, flags, None) {
            Err(nix::errno::Errno::EINTR) => {}
            answer => return answer.map(drop).map_err(to_io),
        }
    }
}

/// Sends as much as there is room for, several pieces in one call, without waiting; descriptors go with
/// the first byte. How many bytes were sent; `WouldBlock` where there is no room for any.
pub fn send_some(
    socket: BorrowedFd<'_>,
    pieces: &[IoSlice<'_>],
    fds: &[RawFd],
) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), pieces, control, flags, None) {
            Err(nix::errno::Errno::EINTR) => {}
            answer => return answer.map_err(to_io),
        }
    }
}

/// Sends nothing more through a socket: the other side reads its end.
pub fn shut(socket: BorrowedFd<'_>) -> io::Result<()> {
    nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write).map_err(to_io)
}

/// A message that was received.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the buffer it filled; 0 is the end of the conversation.
    pub bytes: usize,
    /// The descriptors that came with it, closed on exec.
    pub fds: Vec<OwnedFd>,
    /// Whether descriptors were lost because this process had no room for them.
    pub lost: bool,
    /// Who sent it, as the kernel vouches for it; only of sockets that ask for it (`SO_PASSCRED`).
    pub sender: Option<Peer>,
}

/// The most descriptors a message carries here.
pub const MAX_FDS: usize = 16;

/// Room for a header and [`MAX_FDS`] descriptors, as sendmsg(2) lays them out …
// SAFETY: CMSG_SPACE only computes.
const CONTROL: u32 = unsafe { libc::CMSG_SPACE(64) };
/// … and for these and the sender.
// SAFETY: as above.
const CONTROL_FROM: u32 = CONTROL + unsafe { libc::CMSG_SPACE(12) };
const _: () = assert!(MAX_FDS * size_of::<RawFd>() == 64 && size_of::<libc::ucred>() == 12);

/// Receives one message without waiting; `None` when there is none.
///
/// A peer that closed with something of ours unread is at its end too, though the kernel calls that
/// `ECONNRESET`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    receive_with(socket, buffer, CONTROL)
}

/// The same, with the sender, from a socket that asks for that.
pub fn receive_from(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    receive_with(socket, buffer, CONTROL_FROM)
}

fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    room: u32,
) -> io::Result<Option<Received>> {
    // Not through `nix`: where descriptors were lost it keeps back those that did arrive.
    let mut control = [0_u64; CONTROL_FROM as usize / 8 + 1];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr is numbers and pointers, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let bytes = loop {
        header.msg_controllen = room as _;
        // SAFETY: recvmsg(2) writes into the buffer and the control space, both ours alone and of the
        // lengths given.
        let answer = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(answer) {
            Ok(bytes) => break bytes,
            Err(_) => match nix::errno::Errno::last() {
                // Told once, and before what the peer sent and its end can be read.
                nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET => {}
                nix::errno::Errno::EAGAIN => return Ok(None),
                error => return Err(to_io(error)),
            },
        }
    };
    let (fds, sender) = arrived(&header);
    let lost = header.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Some(Received { bytes, fds, lost, sender }))
}

/// What came with a message: descriptors, all of them or as many as there was room for, and who sent it.
fn arrived(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<Peer>) {
    let (mut fds, mut sender) = (Vec::new(), None);
    // SAFETY: the CMSG macros walk the control space within the length that the kernel wrote; what
    // it wrote as SCM_RIGHTS are descriptors it has just made for us, owned by nobody else, and as
    // SCM_CREDENTIALS one ucred, which is read without asking where it lies.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(header);
        while !part.is_null() {
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_RIGHTS {
                let length: usize = (*part).cmsg_len as _;
                let count = length.saturating_sub(libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let numbers = libc::CMSG_DATA(part).cast::<[u8; size_of::<RawFd>()]>();
                for at in 0..count {
                    fds.push(OwnedFd::from_raw_fd(RawFd::from_ne_bytes(numbers.add(at).read())));
                }
            }
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_CREDENTIALS
            {
                let who = libc::CMSG_DATA(part).cast::<libc::ucred>().read_unaligned();
                sender = Some(Peer { pid: who.pid, uid: who.uid });
            }
            part = libc::CMSG_NXTHDR(header, part);
        }
    }
    (fds, sender)
}

/// A counter that wakes a poller in another thread (eventfd(2)).
#[derive(Debug, Clone)]
pub struct Waker {
    fd: std::sync::Arc<std::fs::File>,
}

impl Waker {
    /// A new counter at zero.
    pub fn new() -> io::Result<Self> {
        use nix::sys::eventfd::{EfdFlags, EventFd};
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let fd: OwnedFd = EventFd::from_flags(flags).map_err(to_io)?.into();
        Ok(Self { fd: std::sync::Arc::new(fd.into()) })
    }

    /// Wakes the poller. Never waits: a counter that is full wakes too.
    pub fn wake(&self) {
        let _ = (&*self.fd).write(&1_u64.to_ne_bytes());
    }

    /// Sets the counter back to zero.
    pub fn clear(&self) {
        let _ = (&*self.fd).read(&mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Closes every descriptor from 3 on but `keep` in the calling thread's table.
///
/// The caller must not use anything that owned one of them; it is for a thread that has just been
/// given a table of its own, where they are mere copies, and for the first moments of a process.
pub fn close_others(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: close_range(2) touches no memory; the caller vouches for the descriptors.
            let answer = unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0_u32) };
            if answer != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = fd.saturating_add(1).max(from);
    }
    Ok(())
}

/// Takes over a descriptor that this process was started with.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD touches no memory and fails on a number that is not open.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    if !open {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and the caller takes each inherited number once, at start-up.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_inheritable(fd.as_fd(), false)?;
    Ok(fd)
}

/// A descriptor that stands for the file at `path`, which it cannot be read through (`O_PATH`). What is
/// executed by `/proc/self/fd/NUMBER` is this very file. Its number is at least `lowest`.
pub fn pin_above(path: &std::path::Path, lowest: RawFd) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).map_err(to_io)?;
    let number = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(lowest)).map_err(to_io)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor that stands for what is at `path` itself, a link too, whatever becomes of the path.
pub fn pin(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).map_err(to_io)
}

/// Makes `number` another descriptor for the file behind `fd`; used for 0, 1 and 2.
pub fn replace(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2(2) touches no memory.
    let answer = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    nix::unistd::isatty(fd).unwrap_or(false)
}

/// How many columns a terminal has; `None` where it does not say or is none.
pub fn columns(fd: BorrowedFd<'_>) -> Option<u16> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize through the pointer, which is valid for it.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(size.ws_col)
}

/// How many descriptors this process has open.
pub fn count_open() -> io::Result<usize> {
    // The listing itself holds one.
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Whether a pipe, socket or terminal is empty and has no writer left (poll(2): `POLLHUP` without
/// `POLLIN`; a socket's end counts as something to read).
pub fn hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO).is_err() {
        return false;
    }
    let flags = fds[0].revents().unwrap_or(PollFlags::empty());
    let empty = || !flags.contains(PollFlags::POLLIN) || unread(fd).is_ok_and(|bytes| bytes == 0);
    flags.contains(PollFlags::POLLHUP) && empty()
}

/// Standard error for a process that must neither wait for a terminal nor fail with it: what cannot be
/// written at once is dropped and counted, and the count is said before what comes through next. (A
/// terminal halted by Ctrl-S has no room; to make it non-blocking would change it for everybody who
/// shares it.) It never answers with an error: who writes a log would panic about it.
#[derive(Debug, Clone, Copy)]
pub struct PoliteStderr;

/// How many pieces found no way to standard error.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

impl Write for PoliteStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        polite(io::stderr().as_fd(), &UNWRITTEN, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn polite(fd: BorrowedFd<'_>, unwritten: &AtomicU64, bytes: &[u8]) {
    let lost = unwritten.swap(0, Ordering::Relaxed);
    let note = format!("({lost} lines could not be written here)\n");
    if lost > 0 && !is_written(fd, note.as_bytes()) {
        unwritten.fetch_add(lost + 1, Ordering::Relaxed);
    } else if !is_written(fd, bytes) {
        unwritten.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes as much as can be written at once; whether that was all.
fn is_written(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    while !bytes.is_empty() {
        let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return false;
        }
        match write(fd, bytes) {
            Ok(count) if count > 0 => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_find_no_room_are_told_and_the_others_kept() {
        let (here, there) = message_pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for (sent, came, lost) in [(0, 0, false), (MAX_FDS, MAX_FDS, false), (20, MAX_FDS, true)] {
            send(here.as_fd(), b"x", &vec![null.as_raw_fd(); sent]).unwrap();
            let received = receive(there.as_fd(), &mut [0; 8]).unwrap().unwrap();
            assert_eq!((received.bytes, received.fds.len(), received.lost), (1, came, lost));
        }
        assert!(receive(there.as_fd(), &mut [0; 8]).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_later() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let pipe = pipe().unwrap();
        let lost = AtomicU64::new(0);
        for _ in 0..3 {
            polite(full.as_fd(), &lost, b"a line\n");
        }
        assert_eq!(lost.load(Ordering::Relaxed), 3);
        polite(pipe.write.as_fd(), &lost, b"another\n");
        assert_eq!(lost.load(Ordering::Relaxed), 0);
        let mut said = [0; 99];
        let length = read(pipe.read.as_fd(), &mut said).unwrap();
        assert_eq!(said[..length], *b"(3 lines could not be written here)\nanother\n");
    }

    #[test]
    fn a_peer_that_left_something_unread_has_ended_and_not_failed() {
        let (here, there) = message_pair().unwrap();
        send(here.as_fd(), b"never read", &[]).unwrap();
        send(there.as_fd(), b"last words", &[]).unwrap();
        drop(there);
        let mut buffer = [0; 16];
        for bytes in [10, 0, 0] {
            assert_eq!(receive(here.as_fd(), &mut buffer).unwrap().unwrap().bytes, bytes);
        }
    }
}
