//! The state directory: where things are in it, and the two small files that outlive a manager.
//!
//! One state directory is one realm: `.wharf/` beside services.yaml, or the system's places.
//! The journal and the programs' output have modules of their own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{Realm, ServiceName};
use crate::os::{clock, lock, procfs};
use crate::spec::{Service, Spec};
use crate::time::Wall;

/// How long the lock of a guardian that was killed is waited for, and how often it is tried.
const DYING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// The places of one realm. In project mode all three are the same folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    /// What must survive a reboot: journal, applied configuration, lock.
    pub state: PathBuf,
    /// What must not: the socket and the table of what is alive.
    pub runtime: PathBuf,
    /// The programs' output, and the manager's own.
    pub logs: PathBuf,
}

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A folder cannot be made.
    #[error("create the folder {path}")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("understand {path}")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another manager has the directory.
    #[error("start a second manager: {holder} already manages {path}")]
    Taken {
        /// The state directory.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// A manager runs on whose directory was removed.
    #[error("start a second manager: wharf with pid {pid} runs on, though its {path} was removed")]
    Orphaned {
        /// The state directory.
        path: PathBuf,
        /// The guardian.
        pid: i32,
    },
}

/// Nothing tells when the last thread of a process that was killed has closed its files.
#[expect(clippy::disallowed_methods, reason = "flock(2) has no limit of its own, and wakes nobody")]
fn wait_a_moment() {
    std::thread::sleep(LOOK);
}

impl StateDir {
    /// Everything in one folder.
    pub fn project(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { state: folder.clone(), runtime: folder.clone(), logs: folder }
    }

    /// The system's places; `variable` reads the environment, where systemd's `RUNTIME_DIRECTORY`,
    /// `STATE_DIRECTORY` and `LOGS_DIRECTORY` come first.
    pub fn system(variable: impl Fn(&str) -> Option<String>) -> Self {
        let place = |name: &str, usual: &str| {
            // systemd.exec(5): several folders are separated by colons; the first is ours.
            let given = variable(name).unwrap_or_default();
            let first = given.split(':').next().filter(|first| !first.is_empty());
            PathBuf::from(first.unwrap_or(usual))
        };
        Self {
            state: place("STATE_DIRECTORY", "/var/lib/wharf"),
            runtime: place("RUNTIME_DIRECTORY", "/run/wharf"),
            logs: place("LOGS_DIRECTORY", "/var/log/wharf"),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("sock")
    }

    /// The table of what is alive.
    pub fn live(&self) -> PathBuf {
        self.runtime.join("live")
    }

    /// What was read of kept programs and may not be in their logs yet.
    pub fn spool(&self) -> PathBuf {
        self.runtime.join("spool")
    }

    /// What a manager leaves to the one that a new binary starts.
    pub fn handover(&self) -> PathBuf {
        self.runtime.join("handover")
    }

    /// What the next manager has to know of kept runs.
    pub fn notes(&self) -> PathBuf {
        self.runtime.join("notes")
    }

    /// The folder of the programs' output.
    pub fn output(&self) -> PathBuf {
        self.logs.join("log")
    }

    /// The manager's own log.
    pub fn own_log(&self) -> PathBuf {
        self.logs.join("wharf.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.state.join("lock")
    }

    fn applied_file(&self) -> PathBuf {
        self.state.join("applied.json")
    }

    fn intent_file(&self) -> PathBuf {
        self.state.join("intent.json")
    }

    /// Makes the folders, readable by their owner alone: configurations hold secrets.
    pub fn create(&self) -> Result<(), StateError> {
        for path in [&self.state, &self.runtime, &self.logs, &self.output()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| StateError::Create { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// Takes the lock that only one guardian and its manager hold. Where the guardian that signed it was
    /// killed, what is left of its manager is about to end and is waited for: five seconds at most.
    pub fn lock(&self) -> Result<OwnedFd, StateError> {
        if let Some(pid) = self.orphan() {
            return Err(StateError::Orphaned { path: self.state.clone(), pid });
        }
        let path = self.lock_file();
        let failed = |source| StateError::File { path: path.clone(), source };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let until = clock::now() + DYING;
        loop {
            file = match lock::try_lock(file).map_err(failed)? {
                Ok(held) => return Ok(held),
                Err(file) => file,
            };
            let holder = self.lock_holder();
            let is_dead = |pid| procfs::stat(pid).is_none_or(|one| one.is_zombie());
            let dying = holder.is_some_and(is_dead);
            if !dying || clock::now() >= until {
                let holder = match holder {
                    None => "another wharf".to_owned(),
                    Some(pid) if dying => format!("what is left of wharf with pid {pid}"),
                    Some(pid) => format!("wharf with pid {pid}"),
                };
                return Err(StateError::Taken { path: self.state.clone(), holder });
            }
            wait_a_moment();
        }
    }

    /// The guardian that holds a lock on this directory that was removed from under it: with the file,
    /// or with the whole directory. Nothing else keeps a second one from starting then.
    pub fn orphan(&self) -> Option<i32> {
        let folder = self.state.canonicalize().or_else(|_| {
            let parent = self.state.parent().unwrap_or(Path::new("/")).canonicalize()?;
            Ok::<_, io::Error>(parent.join(self.state.file_name().unwrap_or_default()))
        });
        let mut removed = folder.ok()?.join("lock").into_os_string();
        removed.push(" (deleted)");
        let removed = PathBuf::from(removed);
        let all = procfs::all().ok()?;
        let manager = all.into_iter().filter(|stat| !stat.is_zombie()).find(|stat| {
            procfs::arguments(stat.pid).get(1).is_some_and(|word| word == b"manager")
                && procfs::open_files(stat.parent).contains(&removed)
        })?;
        Some(manager.parent)
    }

    /// Writes down who holds the lock, for whoever finds it taken.
    pub fn sign_lock(&self, guardian: i32) -> Result<(), StateError> {
        let path = self.lock_file();
        fs::write(&path, format!("{guardian}\n"))
            .map_err(|source| StateError::File { path, source })
    }

    /// The guardian's process number as signed; `None` where nobody signed.
    pub fn lock_holder(&self) -> Option<i32> {
        fs::read_to_string(self.lock_file()).ok()?.trim().parse().ok()
    }

    /// The configuration in effect.
    pub fn read_applied(&self) -> Result<Applied, StateError> {
        read_json(&self.applied_file())
    }

    /// Makes a configuration the one in effect.
    pub fn write_applied(&self, applied: &Applied) -> Result<(), StateError> {
        write_json(&self.applied_file(), applied)
    }

    /// What operators want; the default where nothing was ever said.
    pub fn read_intent(&self) -> Result<Intent, StateError> {
        match read_json(&self.intent_file()) {
            Err(StateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Intent::default())
            }
            answer => answer,
        }
    }

    /// Remembers what operators want.
    pub fn write_intent(&self, intent: &Intent) -> Result<(), StateError> {
        write_json(&self.intent_file(), intent)
    }
}

/// The configuration in effect, as persisted. A new generation of the manager works from this and
/// never from a file that may have been edited meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The version of this file's shape.
    pub schema: u32,
    /// The realm.
    pub realm: Realm,
    /// The configuration.
    pub spec: Spec,
    /// What runs that outlive a manager may still have been started with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
}

/// An earlier configuration of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Earlier {
    /// The number by which the table of what is alive knows it.
    pub number: u64,
    /// The service.
    pub service: Arc<Service>,
}

/// What operators want, as persisted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Intent {
    /// Services that are to stay down.
    pub stopped: Vec<ServiceName>,
    /// When each service with a schedule was last due, in the life that `up` began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub due: BTreeMap<ServiceName, Wall>,
    /// How many replicas there are to be, where that is not what the configuration says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scale: BTreeMap<ServiceName, u32>,
    /// The profiles that were chosen: services that come with a reload are started if they have none, or
    /// one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, StateError> {
    let path = path.to_owned();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(StateError::File { path, source }),
    };
    serde_json::from_slice(&text).map_err(|source| StateError::Content { path, source })
}

/// Writes beside the file and renames, so that a reader sees the old or the new one and never half.
fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let failed = |source| StateError::File { path: path.to_owned(), source };
    let text = serde_json::to_vec(value)
        .map_err(|source| StateError::Content { path: path.to_owned(), source })?;
    let temporary = path.with_extension("new");
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    file.and_then(|mut file| file.write_all(&text)).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(&folder.path().join("deep/.wharf"));
        state.create().unwrap();
        let held = state.lock().unwrap();
        state.sign_lock(4711).unwrap();
        let refused = state.lock().unwrap_err();
        assert!(refused.to_string().contains("wharf with pid 4711"), "{refused}");
        drop(held);
        state.lock().unwrap();
    }

    #[test]
    fn intent_survives() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::project(folder.path());
        assert_eq!(state.read_intent().unwrap(), Intent::default());
        let web = ServiceName::new("web").unwrap();
        let intent = Intent {
            stopped: vec![web.clone()],
            due: BTreeMap::from([(web.clone(), Wall(1_800_000_000_000_000_000))]),
            scale: BTreeMap::from([(web, 3)]),
            profiles: vec!["dev".to_owned()],
        };
        state.write_intent(&intent).unwrap();
        assert_eq!(state.read_intent().unwrap(), intent);
        fs::write(state.intent_file(), "{").unwrap();
        assert!(matches!(state.read_intent(), Err(StateError::Content { .. })));
    }

    #[test]
    fn systemds_folders_come_first() {
        let state =
            StateDir::system(|name| (name == "STATE_DIRECTORY").then(|| "/s:/t".to_owned()));
        assert_eq!(state.state, Path::new("/s"));
        assert_eq!(state.runtime, Path::new("/run/wharf"));
    }
}
