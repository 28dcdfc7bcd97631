//! Which limits the kernel can be asked to enforce here, and by which version of control groups.
//!
//! A controller belongs to one hierarchy of the machine: to the unified one (version 2) or to one of
//! its own (version 1). Nothing is mounted or handed over by us.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::hierarchy::Hierarchies;
use super::{Group, Root, write};
use crate::os::prctl;

/// What enforces a kind of limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// The number of processes and threads.
    Pids,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// The kernel's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

/// Where the groups are in which a controller is to enforce something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seat {
    /// In each replica's own group of version 2.
    Unified,
    /// In groups of their own below this folder of a hierarchy of version 1.
    Own(PathBuf),
}

/// The seats of all controllers; each that has none says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controllers {
    memory: Result<Seat, String>,
    cpu: Result<Seat, String>,
    pids: Result<Seat, String>,
}

impl Controllers {
    /// None at all, for this reason.
    pub fn none(why: &str) -> Self {
        let why = || Err(why.to_owned());
        Self { memory: why(), cpu: why(), pids: why() }
    }

    /// Looks what this process could use, for groups in folders called `name`. Changes nothing.
    pub fn survey(name: &str) -> Self {
        match Hierarchies::read() {
            Ok(found) => Self::among(&found, name),
            Err(why) => Self::none(&why),
        }
    }

    fn among(found: &Hierarchies, name: &str) -> Self {
        let own = found.v2_own().map(|own| beside(own, name));
        let seat = |controller| {
            let unified = own.ok_or_else(|| "cgroup v2 is not mounted".to_owned());
            let unified = unified.and_then(|own| unified_seat(own, controller));
            let Err(second) = unified else { return unified };
            let first = match found.v1_own(controller.as_str()) {
                None => "and no cgroup v1 has it".to_owned(),
                Some(own) => match access(own, AccessFlags::W_OK | AccessFlags::X_OK) {
                    Ok(()) => return Ok(Seat::Own(own.join(name))),
                    Err(error) => format!("and {} cannot be written: {error}", own.display()),
                },
            };
            Err(format!("no writable {} controller: {second}, {first}", controller.as_str()))
        };
        Self {
            memory: seat(Controller::Memory),
            cpu: seat(Controller::Cpu),
            pids: seat(Controller::Pids),
        }
    }

    /// Where a controller's limits are enforced, or why they are not.
    pub fn seat(&self, controller: Controller) -> Result<&Seat, &str> {
        let seat = match controller {
            Controller::Memory => &self.memory,
            Controller::Cpu => &self.cpu,
            Controller::Pids => &self.pids,
        };
        seat.as_ref().map_err(String::as_str)
    }

    /// Removes the groups `name` of version 1, where nothing lives in them.
    pub fn forget(&self, name: &str) {
        for controller in Controller::ALL {
            if let Ok(Seat::Own(folder)) = self.seat(controller) {
                Group { folder: folder.join(name) }.remove();
            }
        }
    }

    /// Removes the groups of version 1 that nothing lives in, and their folders, but for groups that are
    /// called like one of `spared`: what is counted there is still to be read.
    pub fn remove_groups(&self, spared: &[String]) {
        for controller in Controller::ALL {
            let Ok(Seat::Own(folder)) = self.seat(controller) else { continue };
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let is_spared = spared.iter().any(|name| entry.file_name() == name.as_str());
                if !is_spared && entry.path().is_dir() {
                    Group { folder: entry.path() }.remove();
                }
            }
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Whether the groups that we make below `own` can have a controller of version 2.
fn unified_seat(own: &Path, controller: Controller) -> Result<Seat, String> {
    let name = controller.as_str();
    if !lists(&own.join("cgroup.controllers"), name) {
        return Err("cgroup v2 does not offer it here".to_owned());
    }
    let passed_on = own.join("cgroup.subtree_control");
    if lists(&passed_on, name) {
        return Ok(Seat::Unified);
    }
    access(&passed_on, AccessFlags::W_OK)
        .map_err(|error| format!("cgroup v2 does not hand it on ({error})"))?;
    // Only a group without processes hands controllers on, but for the topmost one.
    if own.join("cgroup.type").exists() && !is_ours_alone(own) {
        return Err(format!(
            "cgroup v2 does not hand it on, for {} holds other processes too; run wharf in a group of \
             its own (systemd: Delegate=yes)",
            own.display()
        ));
    }
    Ok(Seat::Unified)
}

/// Whether nothing lives in a group but this process and the one above it.
fn is_ours_alone(folder: &Path) -> bool {
    let members = Group { folder: folder.to_owned() }.members();
    members.iter().all(|pid| [prctl::pid(), prctl::parent()].contains(pid))
}

fn lists(file: &Path, name: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|word| word == name))
}

/// Our own group, or the one above it where we have stepped aside.
pub(super) fn beside<'p>(own: &'p Path, name: &str) -> &'p Path {
    let is_aside = own.ends_with(format!("{name}{ASIDE}"));
    own.parent().filter(|_| is_aside).unwrap_or(own)
}

/// What a group is called into which this process and the one above it step aside.
const ASIDE: &str = ".self";

impl Root {
    /// Has the kernel enforce this controller's limits in the groups below. Where our own group has to
    /// be empty for that, we and the process above us step into one beside it.
    pub fn enable(&self, controller: Controller) -> io::Result<()> {
        let name = controller.as_str();
        let word = format!("+{name}");
        let below = self.folder.join("cgroup.subtree_control");
        if lists(&below, name) {
            return Ok(());
        }
        if !lists(&self.folder.join("cgroup.controllers"), name) {
            let above = self.folder.parent().unwrap_or(&self.folder);
            let passed_on = above.join("cgroup.subtree_control");
            if write(&passed_on, &word).is_err() {
                self.step_aside(above)?;
                write(&passed_on, &word)?;
            }
        }
        write(&below, &word)
    }

    fn step_aside(&self, from: &Path) -> io::Result<()> {
        if !is_ours_alone(from) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let mut aside = self.folder.clone().into_os_string();
        aside.push(ASIDE);
        let aside = Group { folder: aside.into() };
        match fs::create_dir(&aside.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for pid in (Group { folder: from.to_owned() }).members() {
            write(&aside.procs(), &pid.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a group of version 2.
    fn group(controllers: &str, passed_on: &str, members: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("cgroup.controllers", controllers);
        put("cgroup.subtree_control", passed_on);
        put("cgroup.procs", members);
        put("cgroup.type", "domain\n");
        folder
    }

    #[test]
    fn a_controller_of_version_2_must_be_there_and_handed_on() {
        let me = format!("{}\n", prctl::pid());
        for (controllers, passed_on, members, can) in [
            ("memory pids\n", "memory\n", "1\n", true),
            ("memory pids\n", "pids\n", &me, true),
            ("memory pids\n", "pids\n", "1\n", false),
            ("pids\n", "pids\n", &me, false),
            ("", "", "", false),
        ] {
            let folder = group(controllers, passed_on, members);
            let seat = unified_seat(folder.path(), Controller::Memory);
            assert_eq!(seat.is_ok(), can, "{controllers:?} {passed_on:?} {seat:?}");
        }
    }

    #[test]
    fn version_1_serves_where_version_2_does_not() {
        let (unified, memory) = (group("", "", ""), tempfile::tempdir().unwrap());
        let mounts = format!(
            "1 1 0:1 / {} rw - cgroup2 none rw\n2 1 0:2 / {} rw - cgroup none rw,memory\n",
            unified.path().display(),
            memory.path().display()
        );
        let found = Hierarchies::parse(&mounts, "1:memory:/\n0::/\n");
        let controllers = Controllers::among(&found, "wharf-x");
        let own = Seat::Own(memory.path().join("wharf-x"));
        assert_eq!(controllers.seat(Controller::Memory), Ok(&own));
        let why = controllers.seat(Controller::Pids).unwrap_err();
        assert_eq!(
            why,
            "no writable pids controller: cgroup v2 does not offer it here, and no cgroup v1 has it"
        );
    }

    #[test]
    fn controllers_are_handed_on_down_to_the_replicas() {
        let me = format!("{}\n", prctl::pid());
        let above = group("memory\n", "", &me);
        let root = Root { folder: above.path().join("wharf-x") };
        fs::create_dir(&root.folder).unwrap();
        fs::write(root.folder.join("cgroup.subtree_control"), "").unwrap();
        root.enable(Controller::Memory).unwrap();
        for folder in [above.path(), &root.folder] {
            let text = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap();
            assert_eq!(text, "+memory", "{}", folder.display());
        }
    }
}
