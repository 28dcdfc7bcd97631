//! Files in memory that nobody can change: memfd_create(2) with every seal.
//!
//! What is in them never touches a disk by our doing, has no name in any folder, and is gone with the
//! last process that has it open. (The kernel may swap them out like any memory.)

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::io as to_io;

/// A copy of a file of at most `most` bytes, at its beginning, that can only be read; its file belongs
/// to `owner`, who alone may open it (mode 0400). The bytes go from file to file within the kernel.
pub fn copy_of(path: &Path, most: u64, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let mut options = File::options();
    // To open a pipe could wait for ever.
    let source = options.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = source.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let made = new("secret")?;
    let mut copied = 0;
    while copied <= most {
        let room = usize::try_from(most + 1 - copied).unwrap_or(usize::MAX);
        // SAFETY: sendfile(2) between two descriptors of ours; without an offset it touches no memory.
        let answer = unsafe {
            libc::sendfile(made.as_raw_fd(), source.as_raw_fd(), std::ptr::null_mut(), room)
        };
        match u64::try_from(answer) {
            Ok(0) => break,
            Ok(count) => copied += count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    if copied > most {
        let size = crate::time::format_size(most);
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is larger than {size}"),
        ));
    }
    finished(&made, owner)
}

/// A file with these bytes, at its beginning, that can only be read.
pub fn holding(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    let mut made = new(name)?;
    made.write_all(bytes)?;
    finished(&made, None)
}

fn new(name: &str) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    memfd_create(name, flags).map(File::from).map_err(to_io)
}

fn finished(made: &File, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(made.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(to_io)?;
    // Another description: for reading, and at the beginning. Not through /proc/self: that is the
    // main thread, which may have a descriptor table of its own.
    let again = File::open(format!("/proc/thread-self/fd/{}", made.as_raw_fd()))?;
    made.set_permissions(Permissions::from_mode(0o400))?;
    if let Some((uid, gid)) = owner {
        super::fds::give_to(made.as_fd(), uid, gid)?;
    }
    Ok(again.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_copy_can_be_read_and_never_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "hunter2\n").unwrap();
        let copy = copy_of(&path, 100, None).unwrap();
        let link = fs::read_link(format!("/proc/thread-self/fd/{}", copy.as_raw_fd())).unwrap();
        assert!(link.starts_with("/memfd:secret (deleted)"), "{}", link.display());
        fs::write(&path, "another").unwrap();
        let again = format!("/proc/thread-self/fd/{}", copy.as_raw_fd());
        assert_eq!(fs::metadata(&again).unwrap().permissions().mode() & 0o777, 0o400);
        let mut copy = File::from(copy);
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hunter2\n");
        assert_eq!(fs::read_to_string(&again).unwrap(), "hunter2\n", "opened again it begins anew");
        assert!(copy.write_all(b"x").is_err());
        // Who may open everything may still not write to it.
        let opened = File::options().write(true).open(&again);
        assert!(opened.and_then(|mut file| file.write_all(b"x")).is_err());
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, [b'x'; 101]).unwrap();
        let refused = copy_of(&path, 100, None).unwrap_err();
        assert_eq!(refused.to_string(), "it is larger than 100B");
        assert!(copy_of(&path, 101, None).is_ok());
        assert_eq!(
            copy_of(folder.path(), 100, None).unwrap_err().to_string(),
            "it is no regular file"
        );
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(copy_of(&pipe, 100, None).is_err());
        assert!(copy_of(Path::new("/no/such/file"), 100, None).is_err());
    }
}
