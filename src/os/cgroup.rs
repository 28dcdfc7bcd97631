//! Control groups, version 2: finding a writable mount, one group a replica, killing a group.
//!
//! Only what works without controllers is used here (`cgroup.procs`, `.kill`, `.events`), so a
//! hybrid host's bare cgroup2 mount serves too. Version 1 is never touched.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The folder in which one manager keeps its groups.
#[derive(Debug, Clone)]
pub struct Root {
    folder: PathBuf,
}

impl Root {
    /// Makes a folder named `name` below this process's own group, if the mount is there and may be
    /// written to. `Err` says why not, in words for `status`.
    pub fn open(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("cannot read the mounts: {error}"))?;
        let mount = find_mount(&mounts).ok_or("there is no cgroup2 mount")?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let folder = mount.join(own.trim_start_matches('/')).join(name);
        let made = match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            answer => answer,
        };
        made.map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        let root = Self { folder };
        // A folder that exists may still not let us in: try with a group that holds nothing.
        let probe = root.group("probe").map_err(|error| format!("cannot use cgroup2: {error}"))?;
        let enter = fs::OpenOptions::new().write(true).open(probe.procs());
        probe.remove();
        enter.map_err(|error| format!("cannot enter groups: {error}"))?;
        Ok(root)
    }

    /// Makes (or finds) the group `name`.
    pub fn group(&self, name: &str) -> io::Result<Group> {
        let folder = self.folder.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Group { folder })
    }

    /// Removes the group `name`, so that the next one of that name is a new one. False when something
    /// lives in it that could not be killed.
    pub fn renew(&self, name: &str) -> bool {
        let folder = self.folder.join(name);
        Group { folder: folder.clone() }.remove();
        !folder.exists()
    }

    /// The groups that exist.
    pub fn groups(&self) -> Vec<Group> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| Group { folder: entry.path() })
            .collect()
    }

    /// The folder that another thread's [`Root::open`] found.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Whether the kernel counts the memory of the groups below it.
    pub fn counts_memory(&self) -> bool {
        let enabled = fs::read_to_string(self.folder.join("cgroup.subtree_control"));
        enabled.is_ok_and(|text| text.split_whitespace().any(|word| word == "memory"))
    }

    /// The group `name`, whether it exists or not. Nothing is made.
    pub fn existing(&self, name: &str) -> Group {
        Group { folder: self.folder.join(name) }
    }

    /// Removes the folder; it must be empty of groups.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The mount point of the cgroup2 hierarchy in the text of `/proc/self/mountinfo`.
fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_v2 = after.split(' ').next()? == "cgroup2";
        is_v2.then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or_default()))
    })
}

/// One group.
#[derive(Debug, Clone)]
pub struct Group {
    folder: PathBuf,
}

impl Group {
    /// The group that a process is in; `None` when it cannot be told.
    pub fn of(pid: i32) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let folder = find_mount(&mounts)?.join(path.trim_start_matches('/'));
        folder.is_dir().then_some(Self { folder })
    }

    /// The group above it that `wanted` says yes to, or itself.
    pub fn ancestor(&self, wanted: impl Fn(&Path) -> bool) -> Option<Self> {
        let folder = self.folder.ancestors().find(|folder| wanted(folder))?;
        Some(Self { folder: folder.to_owned() })
    }

    /// The processes in it and below it.
    pub fn all_members(&self) -> Vec<i32> {
        let mut found = self.members();
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.extend(Self { folder: entry.path() }.all_members());
        }
        found
    }

    /// The file a process writes `0` to in order to enter.
    pub fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Whether any process that is not a zombie is in it or below it.
    pub fn populated(&self) -> io::Result<bool> {
        self.census()?.populated()
    }

    /// Opens what tells whether it is populated, for questions that are to be cheap.
    pub fn census(&self) -> io::Result<Census> {
        File::open(self.folder.join("cgroup.events")).map(Census)
    }

    /// Removes it if no process that is not a zombie is in it or below it; whether that is so. The
    /// removal itself is the question, which is cheaper than asking first.
    pub fn remove_if_empty(&self) -> bool {
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                !self.populated().unwrap_or(true)
            }
            _ => true,
        }
    }

    /// The processes in it.
    pub fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.procs()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The most memory it ever held, in bytes; `None` where the kernel does not count it (cgroup v2,
    /// `memory.peak`, kernel 5.19).
    pub fn memory_peak(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join("memory.peak")).ok()?.trim().parse().ok()
    }

    /// How many of its processes the kernel killed because memory ran out; `None` where the kernel
    /// does not count memory (cgroup v2, `memory.events`).
    pub fn oom_kills(&self) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join("memory.events")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Sends `SIGKILL` to everything in it and below it, in one step that nothing can fork out of
    /// (kernel 5.14; before that one by one, and the caller looks again).
    pub fn kill(&self) -> io::Result<()> {
        match fs::OpenOptions::new().write(true).open(self.folder.join("cgroup.kill")) {
            Ok(mut file) => file.write_all(b"1"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for pid in self.members() {
                    let _ = super::signal::send_pid(pid, crate::exit::Signal::KILL);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes it, where nothing is left in it.
    pub fn remove(&self) {
        if fs::remove_dir(&self.folder).is_ok() {
            return;
        }
        // Programs may have made groups of their own below it.
        if let Ok(entries) = fs::read_dir(&self.folder) {
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                Self { folder: entry.path() }.remove();
            }
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A group's `cgroup.events`, held open: to open it takes several times as long as to read it.
#[derive(Debug)]
pub struct Census(File);

impl Census {
    /// Whether any process that is not a zombie is in the group or below it.
    pub fn populated(&self) -> io::Result<bool> {
        let mut text = [0; 128];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(text[..length].windows(11).any(|window| window == b"populated 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let hybrid = "31 23 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";
        let other = "24 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 none rw\n";
        assert_eq!(find_mount(hybrid).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(find_mount(other).unwrap(), Path::new("/sys/fs/cgroup"));
        assert_eq!(find_mount("24 1 0:22 / /proc rw - proc proc rw\n"), None);
    }
}
