//! Pseudo-terminals: a program's own terminal, seen from the other side (pty(7), termios(3)).
//!
//! The terminal is as quiet as one can be: it echoes nothing, changes nothing that the program writes,
//! makes no signals of what is typed and stops for no Ctrl-S. Lines remain its unit (`ICANON`), since
//! only then is there an end of input that does not hang up; what that costs is paid in `os::input`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    self, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices,
};

use super::io as to_io;

/// Both ends of a new terminal, closed on exec. Neither becomes this process's own.
#[derive(Debug)]
pub struct Terminal {
    /// Our end: what is written here is typed, what is read here was printed.
    pub ours: OwnedFd,
    /// The program's end. Once every copy of it is closed, ours has reached the end of output, which
    /// reads as `EIO`.
    pub theirs: OwnedFd,
}

/// So wide and high that no program folds a line or waits for a key after a page.
static SIZE: libc::winsize =
    libc::winsize { ws_row: 1000, ws_col: 1000, ws_xpixel: 0, ws_ypixel: 0 };

/// The character that ends a line that has none (Ctrl-D), and at the beginning of one the input.
const EOF: u8 = 4;
/// The character that takes the meaning from the next one (Ctrl-V).
const QUOTE: u8 = 22;

/// The most that a terminal may hold of what a program printed: 8 KiB on their way, 4 KiB to be read,
/// and something for good measure. Bytes.
pub const HOLDS: usize = 64 << 10;

/// Makes a terminal. `ENOSPC` where the system has no more of them (`kernel.pty.max`).
pub fn open() -> io::Result<Terminal> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = nix::pty::posix_openpt(flags).map_err(to_io)?;
    nix::pty::grantpt(&ours).map_err(to_io)?;
    nix::pty::unlockpt(&ours).map_err(to_io)?;
    // SAFETY: the descriptor was opened just now, belongs to `ours` alone and is given up by it.
    let ours = unsafe { OwnedFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(ours)) };
    let theirs = peer(ours.as_fd(), OFlag::empty())?;
    quieten(theirs.as_fd())?;
    // SAFETY: TIOCSWINSZ reads one winsize through the pointer, which is valid for it.
    if unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSWINSZ, &raw const SIZE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Terminal { ours, theirs })
}

/// Another description of the program's end, without its name (which another mount could hide).
fn peer(ours: BorrowedFd<'_>, more: OFlag) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
    // SAFETY: TIOCGPTPEER takes open(2)'s flags by value and touches no memory.
    let fd = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn quieten(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let mut modes = termios::tcgetattr(terminal).map_err(to_io)?;
    modes.input_flags = InputFlags::empty();
    modes.output_flags = OutputFlags::empty();
    // `IEXTEN` is what makes the quote work.
    modes.local_flags = LocalFlags::ICANON | LocalFlags::IEXTEN;
    // 0 is "no such character" (`_POSIX_VDISABLE`).
    modes.control_chars.fill(0);
    for (character, at) in [
        (EOF, SpecialCharacterIndices::VEOF),
        (QUOTE, SpecialCharacterIndices::VLNEXT),
        // For programs that turn lines off: a read waits for one byte.
        (1, SpecialCharacterIndices::VMIN),
    ] {
        modes.control_chars[at as usize] = character;
    }
    termios::tcsetattr(terminal, SetArg::TCSANOW, &modes).map_err(to_io)
}

/// What a terminal does to what is typed, as its program has it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    /// Whether lines are its unit.
    lines: bool,
    eof: u8,
    quote: u8,
}

impl Keys {
    /// Those of the terminal whose other end this is.
    pub(super) fn of(ours: BorrowedFd<'_>) -> io::Result<Self> {
        let modes = termios::tcgetattr(ours).map_err(to_io)?;
        let character = |at: SpecialCharacterIndices| modes.control_chars[at as usize];
        let quotes = modes.local_flags.contains(LocalFlags::IEXTEN);
        Ok(Self {
            lines: modes.local_flags.contains(LocalFlags::ICANON),
            eof: character(SpecialCharacterIndices::VEOF),
            quote: if quotes { character(SpecialCharacterIndices::VLNEXT) } else { 0 },
        })
    }

    /// What must be typed so that the program reads `bytes`, and at once: the two characters with a
    /// meaning are quoted, and a line that is not ended is pushed. Where a program does not use lines,
    /// bytes are bytes.
    pub(super) fn typed(self, bytes: &[u8], typed: &mut Vec<u8>) {
        if !self.lines {
            return typed.extend_from_slice(bytes);
        }
        for byte in bytes {
            if self.quote != 0 && (*byte == self.quote || (*byte == self.eof && self.eof != 0)) {
                typed.push(self.quote);
            }
            typed.push(*byte);
        }
        if bytes.last().is_some_and(|last| *last != b'\n') && self.eof != 0 {
            typed.push(self.eof);
        }
    }

    /// What must be typed to end the input: nothing where the program has no character for it.
    pub(super) fn end(self) -> Option<u8> {
        (self.eof != 0).then_some(self.eof)
    }
}

/// How many typed bytes the program has not read. Opens its end for a moment.
pub(super) fn unread(ours: BorrowedFd<'_>) -> io::Result<usize> {
    let theirs = peer(ours, OFlag::O_NONBLOCK)?;
    // What is on its way arrives when somebody asks for it.
    let mut fds = [PollFd::new(theirs.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map_err(to_io)?;
    super::fds::unread(theirs.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fds;

    #[test]
    fn a_new_terminal_echoes_nothing_and_changes_nothing() {
        let Terminal { ours, theirs } = open().unwrap();
        fds::set_nonblocking(ours.as_fd()).unwrap();
        assert!(fds::is_terminal(theirs.as_fd()));
        assert_eq!(fds::columns(theirs.as_fd()), Some(1000));
        fds::write(theirs.as_fd(), b"a\nb\tc\r\x04").unwrap();
        fds::write(ours.as_fd(), b"typed\n").unwrap();
        let mut buffer = [0; 64];
        let mut printed = Vec::new();
        while printed.len() < 7 {
            let count = fds::read(ours.as_fd(), &mut buffer).unwrap();
            printed.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(printed, b"a\nb\tc\r\x04");
        assert_eq!(unread(ours.as_fd()).unwrap(), 6);
        assert_eq!(fds::read(theirs.as_fd(), &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"typed\n");
    }

    #[test]
    fn what_was_printed_comes_before_the_end_which_is_an_error() {
        let Terminal { ours, theirs } = open().unwrap();
        fds::write(theirs.as_fd(), b"last words").unwrap();
        drop(theirs);
        assert!(!fds::hung_up(ours.as_fd()));
        let mut buffer = [0; 64];
        assert_eq!(fds::read(ours.as_fd(), &mut buffer).unwrap(), 10);
        let end = fds::read(ours.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(end.raw_os_error(), Some(libc::EIO));
        assert!(fds::hung_up(ours.as_fd()));
    }

    #[test]
    fn what_nobody_read_is_counted_also_behind_the_end() {
        let Terminal { ours, theirs } = open().unwrap();
        drop(theirs);
        let mut typed = Vec::new();
        Keys::of(ours.as_fd()).unwrap().typed(b"one\ntwo", &mut typed);
        assert_eq!(typed, b"one\ntwo\x04");
        fds::write(ours.as_fd(), &typed).unwrap();
        assert_eq!(unread(ours.as_fd()).unwrap(), 7);
    }

    #[test]
    fn what_has_a_meaning_is_quoted_where_lines_are_the_unit() {
        let keys = Keys { lines: true, eof: 4, quote: 22 };
        let typed = |keys: Keys, bytes: &[u8]| {
            let mut typed = Vec::new();
            keys.typed(bytes, &mut typed);
            typed
        };
        assert_eq!(typed(keys, b"a\n"), b"a\n");
        assert_eq!(typed(keys, b""), b"");
        assert_eq!(typed(keys, b"\x04\x16\x03\0"), b"\x16\x04\x16\x16\x03\0\x04");
        assert_eq!(typed(Keys { lines: false, ..keys }, b"\x04a"), b"\x04a");
        assert_eq!(typed(Keys { quote: 0, ..keys }, b"\x16a"), b"\x16a\x04");
        assert_eq!(typed(Keys { eof: 0, ..keys }, b"\0a"), b"\0a");
        assert_eq!(Keys { eof: 0, ..keys }.end(), None);
    }
}
