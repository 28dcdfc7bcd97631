//! This process's own executable, held open, so that it can be executed again whatever becomes of the file.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, fstat};

use super::io as to_io;

/// The executable that this process runs.
#[derive(Debug)]
pub struct Executable {
    fd: OwnedFd,
    build: u64,
}

/// Its descriptor is to have at least this number, so that what a child is handed does not take its place
/// before it is executed.
const HIGH: [i32; 2] = [256, 32];

impl Executable {
    /// Opens it. That is done once, at the start; by name it may be another one soon.
    pub fn hold() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let opened = nix::fcntl::open("/proc/self/exe", flags, Mode::empty()).map_err(to_io)?;
        let moved = |least| fcntl(&opened, FcntlArg::F_DUPFD_CLOEXEC(least)).map_err(to_io);
        let number = moved(HIGH[0]).or_else(|_| moved(HIGH[1]))?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let build = build(&fd)?;
        Ok(Self { fd, build })
    }

    /// The path by which a child of this process executes it. It means nothing to anybody else.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// A number that two processes have in common when they run the same file: its device, inode, size and
    /// time of change, folded. Below 2^53.
    pub fn build(&self) -> u64 {
        self.build
    }
}

fn build(fd: &OwnedFd) -> io::Result<u64> {
    let stat = fstat(fd).map_err(to_io)?;
    // Not the time of the inode's own change: that moves when the file is replaced or linked.
    let parts = [
        stat.st_dev,
        stat.st_ino,
        stat.st_size.cast_unsigned(),
        stat.st_mtime.cast_unsigned(),
        stat.st_mtime_nsec.cast_unsigned(),
    ];
    let bytes = parts.iter().flat_map(|part| part.to_ne_bytes());
    let folded = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(folded >> 11)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_this_very_file() {
        let held = Executable::hold().unwrap();
        let own = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(std::fs::metadata(held.path()).unwrap().ino(), own.ino());
        assert!(held.fd.as_raw_fd() >= 32);
        assert_eq!(held.build(), Executable::hold().unwrap().build());
        assert!(held.build() < 1 << 53);
    }
}
