//! A folder in which the commands of one document are run, one after the other, with a wharf of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command that only looks may be asked again until it shows what the document shows.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a command said, words and data in their order, and how it ended.
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) code: Option<i32>,
}

pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    _own: tempfile::TempDir,
}

impl Place {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().join("place");
        fs::create_dir(&folder).unwrap();
        Self { folder, _own: own }
    }

    /// A clone of this repository, with its services.yaml as it stands here.
    pub(crate) fn clone_of_the_repository() -> Self {
        let place = Self::new();
        let done = place.run(&format!(
            "git clone -q --no-hardlinks '{root}' . && cp '{root}/services.yaml' .",
            root = root().display()
        ));
        assert_eq!(done.code, Some(0), "{}", done.text);
        place
    }

    /// The environment of a newcomer: our binary first in the path, no settings.
    pub(crate) fn command(&self, program: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_wharf")).parent().unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .env("PATH", format!("{}:{}", binary.display(), std::env::var("PATH").unwrap()))
            .env("HOME", self.folder.parent().unwrap())
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("WHARF_STATE_DIR")
            .env_remove("WHARF_LOG");
        command
    }

    /// Runs a script to its end, which comes within a minute (code 124 otherwise).
    pub(crate) fn run(&self, script: &str) -> Said {
        // Words and data in one stream, as at a terminal; a file, because what is started in the
        // background would keep a pipe open.
        let file = tempfile::NamedTempFile::new().unwrap();
        let (out, words) = (file.reopen().unwrap(), file.reopen().unwrap());
        let mut command = self.command("timeout");
        command.args(["--kill-after=5", "60", "bash", "-e", "-o", "pipefail", "-c"]);
        command.arg(format!("exec 2>&1\n{script}"));
        let status = command.stdout(out).stderr(words).status().unwrap();
        let text = String::from_utf8_lossy(&fs::read(file.path()).unwrap()).into_owned();
        Said { text, code: status.code() }
    }

    /// Runs a command until `enough` is content with it; one that changes something only once.
    pub(crate) fn run_until(&self, script: &str, enough: impl Fn(&Said) -> bool) -> Said {
        let begin = Instant::now();
        loop {
            let said = self.run(script);
            if enough(&said) || !only_looks(script) || begin.elapsed() > PATIENCE {
                return said;
            }
            nix::poll::poll(&mut [], nix::poll::PollTimeout::from(50_u8)).unwrap();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.folder.join(".wharf/sock").exists() {
            let _ = self.command("wharf").arg("down").stderr(Stdio::null()).status();
        }
    }
}

/// Whether a command may be asked again without changing anything.
fn only_looks(script: &str) -> bool {
    const LOOKING: [&str; 12] = [
        "wharf ps",
        "wharf why",
        "wharf status",
        "wharf exits",
        "wharf logs",
        "wharf events",
        "wharf check",
        "jq ",
        "cat ",
        "curl -s",
        "head ",
        "grep ",
    ];
    LOOKING.iter().any(|word| script.starts_with(word)) && !script.contains('>')
}
