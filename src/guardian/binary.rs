//! The binary of a manager that is not the guardian's own, held open.
//!
//! A path is only a name: what stands there at the manager's next death may be anything. The open file is
//! what was asked for, and it stays what it is when its name is gone or given to another. It is never
//! looked up anew, but for a script, which its interpreter can only find by its path: one that was
//! changed since is refused.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::os::fds;

/// A file to execute.
#[derive(Debug)]
pub(super) struct Binary {
    path: PathBuf,
    /// Its number is above all those that a manager is started with.
    file: OwnedFd,
    /// What it was, of a script.
    script: Option<Stamp>,
}

/// What tells one content of a file from another: device, inode, and when it was last changed.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino(), file.ctime(), file.ctime_nsec())
    }
}

/// The lowest number of a descriptor that is in the way of none of a manager's.
const ABOVE: i32 = 64;

impl Binary {
    /// Opens what stands at `path` now.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = fds::pin_above(&path, ABOVE)?;
        let script = if is_script(&path) { Some(Stamp::of(&fs::metadata(&path)?)) } else { None };
        Ok(Self { path, file, script })
    }

    /// The path by which to execute it.
    pub(super) fn program(&self) -> io::Result<Vec<u8>> {
        let Some(stamp) = &self.script else {
            return Ok(format!("/proc/self/fd/{}", self.file.as_raw_fd()).into_bytes());
        };
        if Stamp::of(&fs::metadata(&self.path)?) != *stamp {
            return Err(io::Error::other("the script is not what it was"));
        }
        Ok(self.path.as_os_str().as_bytes().to_vec())
    }

    /// Where it was found.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a file names its interpreter (execve(2)); one that may not be read does not.
fn is_script(path: &Path) -> bool {
    let mut first = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *b"#!"
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_takes_the_place_of_a_binary_is_not_executed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::copy("/bin/true", &path).unwrap();
        let binary = Binary::open(path.clone()).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        fs::rename(&path, folder.path().join("old")).unwrap();
        fs::write(&path, "something else").unwrap();
        let program = String::from_utf8(binary.program().unwrap()).unwrap();
        assert_eq!(fs::metadata(&program).unwrap().ino(), before);
        let number: i32 = program.rsplit('/').next().unwrap().parse().unwrap();
        assert!(number >= ABOVE, "{program}");
        assert_eq!(binary.path(), path);
    }

    #[test]
    fn a_script_that_was_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let binary = Binary::open(path.clone()).unwrap();
        assert_eq!(binary.program().unwrap(), path.as_os_str().as_bytes());
        let other = folder.path().join("other");
        fs::write(&other, "#!/bin/sh\nexit 1\n").unwrap();
        fs::rename(&other, &path).unwrap();
        binary.program().unwrap_err();
    }
}
