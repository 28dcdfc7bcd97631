//! A folder with a configuration in it, and the real binary run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest anything may take before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Variables that the configurations refer to.
pub(crate) const SET: &[(&str, &str)] = &[("APP_HOME", "/srv/app"), ("WORKERS", "4")];

/// Waits until `look` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &dyn Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "waited in vain for {}", what());
        nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5_u8)).unwrap();
    }
}

/// Compares with a committed file, or writes it.
pub(crate) fn compare(path: &Path, text: &str) {
    if std::env::var_os("WHARF_BLESS").is_some() {
        fs::write(path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(text == expected, "{} is not as expected; it is\n{text}", path.display());
}

/// A folder that goes away, and whatever runs in it with it.
pub(crate) struct Place {
    _own: tempfile::TempDir,
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().canonicalize().unwrap();
        Self { _own: own, folder }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(words).current_dir(&self.folder).env_clear();
        command.env("PATH", format!("{}/programs:/usr/bin:/bin", self.folder.display()));
        command.env("HOME", "/home/ann").env("USER", "ann").envs(SET.iter().copied());
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed; what it says on standard output and standard error.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> (String, String) {
        let output = self.run(words);
        let (said, told) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{said}{told}", output.status);
        (said, told)
    }

    /// Runs a command that must fail with this code and returns its complaint.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}{told}", text(&output.stdout));
        told
    }

    /// The rows of `ps --json`.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let (said, _) = self.ok(&["ps", "--json", "--state-dir", "state"]);
        serde_json::from_str::<Value>(&said).unwrap().as_array().unwrap().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.folder.join("state").exists() {
            let _ = self.run(&["down", "--state-dir", "state"]);
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
