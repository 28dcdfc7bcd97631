//! Limits written into groups, and what the kernel counts there about memory.
//!
//! Of version 1: `Documentation/admin-guide/cgroup-v1`; of version 2: `cgroup-v2.rst` there.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Group, write};
use crate::os::epoll::Interest;

/// In which a quota of processor time is given, in microseconds.
const PERIOD: u64 = 100_000;

/// Which version of control groups a group is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy.
    Two,
}

impl Version {
    /// The file that bounds memory.
    pub fn memory_file(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    /// The file that bounds processor time.
    pub fn cpus_file(self) -> &'static str {
        match self {
            Self::One => "cpu.cfs_quota_us",
            Self::Two => "cpu.max",
        }
    }

    /// The file that bounds processes and threads.
    pub fn pids_file(self) -> &'static str {
        "pids.max"
    }
}

/// Makes an empty group `name` below a folder of a hierarchy of version 1. One that something still
/// lives in is taken as it is.
pub fn own_group(folder: &Path, name: &str) -> io::Result<Group> {
    let group = Group { folder: folder.join(name) };
    // Its counters begin anew.
    let _ = fs::remove_dir(&group.folder);
    fs::create_dir_all(&group.folder)?;
    Ok(group)
}

/// The group `name` of a run that an earlier manager started, with all that is counted in it, also where
/// nothing lives in it any more; made where there is none.
pub fn group_as_it_is(folder: &Path, name: &str) -> io::Result<Group> {
    let group = Group { folder: folder.join(name) };
    fs::create_dir_all(&group.folder)?;
    Ok(group)
}

impl Group {
    /// Bounds its memory, in bytes, swap included; `None` lifts the bound. With `together` a kill for
    /// memory ends all its processes, where the kernel can do that (version 2).
    pub fn set_memory(
        &self,
        version: Version,
        most: Option<u64>,
        together: bool,
    ) -> io::Result<()> {
        let bound = most.map_or_else(|| unlimited(version).to_owned(), |most| most.to_string());
        write(&self.folder.join(version.memory_file()), &bound)?;
        match version {
            // Absent where the kernel does not count swap. It must not be below the first one.
            Version::One => optional(&self.folder.join("memory.memsw.limit_in_bytes"), &bound),
            Version::Two => {
                let swap = if most.is_some() { "0" } else { "max" };
                optional(&self.folder.join("memory.swap.max"), swap)?;
                let together = if together { "1" } else { "0" };
                optional(&self.folder.join("memory.oom.group"), together)
            }
        }
    }

    /// Bounds its processor time, in processors; `None` lifts the bound.
    pub fn set_cpus(&self, version: Version, most: Option<f64>) -> io::Result<()> {
        let quota = most.map(quota);
        let file = self.folder.join(version.cpus_file());
        match version {
            Version::One => {
                write(&self.folder.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
                let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                write(&file, &quota)
            }
            Version::Two => {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                write(&file, &format!("{quota} {PERIOD}"))
            }
        }
    }

    /// Bounds its processes and threads; `None` lifts the bound.
    pub fn set_pids(&self, version: Version, most: Option<u32>) -> io::Result<()> {
        let bound = most.map_or_else(|| "max".to_owned(), |most| most.to_string());
        write(&self.folder.join(version.pids_file()), &bound)
    }
}

fn unlimited(version: Version) -> &'static str {
    match version {
        Version::One => "-1",
        Version::Two => "max",
    }
}

/// Microseconds in each period; the kernel takes no fewer than 1,000.
fn quota(cpus: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a number of processors is positive and far below 2^40; the cast saturates"
    )]
    let quota = (cpus * PERIOD as f64) as u64;
    quota.max(1_000)
}

/// Writes to a file that need not exist.
fn optional(file: &Path, text: &str) -> io::Result<()> {
    match write(file, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

/// What the kernel counts about the memory of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCount {
    folder: PathBuf,
    version: Version,
}

impl MemoryCount {
    /// That of a group; `None` where the kernel does not count there.
    pub fn of(group: &Group, version: Version) -> Option<Self> {
        let count = Self { folder: group.folder.clone(), version };
        count.kills().is_some().then_some(count)
    }

    /// The file that tells of kills.
    fn file(&self) -> PathBuf {
        self.folder.join(match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        })
    }

    /// Where the number of kills is from, such as `cgroup v1 memory.oom_control`.
    pub fn source(&self) -> &'static str {
        match self.version {
            Version::One => "cgroup v1 memory.oom_control",
            Version::Two => "cgroup v2 memory.events",
        }
    }

    fn field(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file()).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    /// How many processes of the group the kernel has killed because memory ran out. It counts before
    /// it kills (`__oom_kill_process`), so whoever has seen the end sees the count.
    pub fn kills(&self) -> Option<u64> {
        self.field("oom_kill")
    }

    /// How often the group was at its limit.
    pub fn hits(&self) -> Option<u64> {
        match self.version {
            Version::One => {
                fs::read_to_string(self.folder.join("memory.failcnt")).ok()?.trim().parse().ok()
            }
            Version::Two => self.field("max"),
        }
    }

    /// A descriptor that tells when memory runs out, to be waited for as [`interest`](Self::interest)
    /// says.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        let file = File::open(self.file())?;
        match self.version {
            Version::Two => Ok(file.into()),
            Version::One => {
                // SAFETY: eventfd(2) touches no memory of ours.
                let number = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
                if number < 0 {
                    return Err(io::Error::last_os_error());
                }
                // SAFETY: the kernel has just made this descriptor for us.
                let event = unsafe { OwnedFd::from_raw_fd(number) };
                let words = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
                write(&self.folder.join("cgroup.event_control"), &words)?;
                Ok(event)
            }
        }
    }

    /// What a watch is to be waited for: a file of version 2 counts as always readable and tells a
    /// change as an error.
    pub fn interest(&self) -> Interest {
        match self.version {
            Version::One => Interest::Read,
            Version::Two => Interest::Nothing,
        }
    }

    /// Takes what a watch has told, so that it tells only what comes after it.
    pub fn heard(&self, watch: &OwnedFd) {
        let mut text = [0; 512];
        let _ = match self.version {
            Version::One => nix::unistd::read(watch, &mut text[..8]),
            Version::Two => nix::sys::uio::pread(watch, &mut text, 0),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[&str]) -> (tempfile::TempDir, Group) {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let group = Group { folder: folder.path().to_owned() };
        (folder, group)
    }

    fn read(group: &Group, name: &str) -> String {
        fs::read_to_string(group.path().join(name)).unwrap()
    }

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
        let (_one, one) =
            group(&["memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us"]);
        one.set_memory(Version::One, Some(4096), true).unwrap();
        one.set_cpus(Version::One, Some(1.5)).unwrap();
        assert_eq!(read(&one, "memory.limit_in_bytes"), "4096");
        assert_eq!(read(&one, "cpu.cfs_quota_us"), "150000");
        one.set_cpus(Version::One, Some(0.001)).unwrap();
        assert_eq!(read(&one, "cpu.cfs_quota_us"), "1000");
        let (_two, two) = group(&["memory.max", "memory.oom.group", "cpu.max", "pids.max"]);
        two.set_memory(Version::Two, Some(4096), true).unwrap();
        two.set_cpus(Version::Two, Some(0.5)).unwrap();
        two.set_pids(Version::Two, Some(100)).unwrap();
        assert_eq!(read(&two, "memory.max"), "4096");
        assert_eq!(read(&two, "memory.oom.group"), "1");
        assert_eq!(read(&two, "cpu.max"), "50000 100000");
        assert_eq!(read(&two, "pids.max"), "100");
        two.set_memory(Version::Two, None, false).unwrap();
        two.set_cpus(Version::Two, None).unwrap();
        assert_eq!(
            (read(&two, "memory.max"), read(&two, "cpu.max")),
            ("max".into(), "max 100000".into())
        );
        assert!(two.set_pids(Version::One, None).is_ok());
        assert!(one.set_pids(Version::One, Some(1)).is_err(), "no such file");
    }

    #[test]
    fn kills_are_counted_by_either_version() {
        let (_one, one) = group(&[]);
        assert_eq!(MemoryCount::of(&one, Version::One), None);
        let put = |name: &str, text: &str| fs::write(one.path().join(name), text).unwrap();
        put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        put("memory.failcnt", "17\n");
        put("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n");
        let count = MemoryCount::of(&one, Version::One).unwrap();
        assert_eq!((count.kills(), count.hits()), (Some(3), Some(17)));
        let count = MemoryCount::of(&one, Version::Two).unwrap();
        assert_eq!((count.kills(), count.hits()), (Some(1), Some(9)));
    }
}
