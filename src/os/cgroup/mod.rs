//! Control groups: one group a replica in version 2, killing a group, and limits in either version.
//!
//! What is here works without controllers (`cgroup.procs`, `.kill`, `.events`), so a hybrid host's bare
//! cgroup2 mount serves for trees; limits (`controllers`, `confine`) are the kernel's to enforce in
//! whichever version has the controller.

mod confine;
mod controllers;
mod hierarchy;

pub use confine::{MemoryCount, Version, group_as_it_is, own_group};
pub use controllers::{Controller, Controllers, Seat};

use hierarchy::Hierarchies;

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
        let found = Hierarchies::read()?;
        let own = found.v2_own().ok_or("there is no cgroup2 mount")?;
        let folder = controllers::beside(own, name).join(name);
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

/// Writes a word to a file of a group.
fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).truncate(true).open(file)?.write_all(text.as_bytes())
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
        let found = Hierarchies::parse(&mounts, &groups);
        let folder = found.v2_own()?.to_owned();
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
