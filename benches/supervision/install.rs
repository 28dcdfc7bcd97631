//! What is measured beside us and is no Debian package: circus and pm2, in the versions that are written
//! down in `peers/`, under `target/bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workshop::Workshop;

/// Everything that is there before anything is measured.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) workshop: Workshop,
    /// Where the sources of followers are.
    pub(crate) sources: PathBuf,
    /// The virtual environment that has circus.
    python: PathBuf,
    /// The folder that has pm2.
    node: PathBuf,
}

/// Programs and the Debian packages they come from.
const PROGRAMS: [(&str, &str); 8] = [
    ("runsvdir", "runit"),
    ("svlogd", "runit"),
    ("svscan", "daemontools"),
    ("multilog", "daemontools"),
    ("s6-svscan", "s6"),
    ("s6-log", "s6"),
    ("supervisord", "supervisor"),
    ("node", "nodejs"),
];

impl Shop {
    /// Installs what is missing. The error says what could not be.
    pub(crate) fn open(workshop: Workshop) -> Result<Self, String> {
        for (program, package) in PROGRAMS {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            if !found.is_ok_and(|output| output.status.success()) {
                return Err(format!("{program} is missing (Debian package: {package})"));
            }
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/supervision/peers");
        let brief = workshop.program("brief");
        let _ = fs::remove_file(&brief);
        fs::hard_link(workshop.program("child"), brief).unwrap();
        let (python, node) = (workshop.folder.join("circus"), workshop.folder.join("pm2"));
        once(&python, &sources, &["requirements.txt"], |folder| {
            let venv = ["-m", "venv", "--clear"];
            run(Command::new("python3").args(venv).arg(folder))?;
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
            run(pip.arg(sources.join("requirements.txt")))
        })?;
        once(&node, &sources, &["package.json", "package-lock.json"], |folder| {
            for name in ["package.json", "package-lock.json"] {
                fs::copy(sources.join(name), folder.join(name)).unwrap();
            }
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
            run(npm.current_dir(folder))
        })?;
        Ok(Self { workshop, sources, python, node })
    }

    /// The program of every service: one that waits, or one that ends at once.
    pub(crate) fn program(&self, brief: bool) -> String {
        let name = if brief { "brief" } else { "child" };
        self.workshop.program(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn circusd(&self) -> Command {
        Command::new(self.python.join("bin/circusd"))
    }

    /// Python with what circus is made of.
    pub(crate) fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.python.join("bin/python"));
        command.arg(self.sources.join(script));
        command
    }

    /// pm2 with a daemon of its own, which lives in `home`.
    pub(crate) fn pm2(&self, home: &Path) -> Command {
        let mut command = Command::new(self.node.join("node_modules/.bin/pm2"));
        command.env("PM2_HOME", home).stdin(Stdio::null());
        command
    }

    /// Node with what pm2 is made of.
    pub(crate) fn node(&self, script: &str, home: &Path) -> Command {
        let mut command = Command::new("node");
        command.arg(self.sources.join(script));
        command.env("NODE_PATH", self.node.join("node_modules")).env("PM2_HOME", home);
        command
    }
}

/// Installs into `folder` unless exactly that has been done before.
fn once(
    folder: &Path,
    sources: &Path,
    files: &[&str],
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let read = |name: &&str| fs::read_to_string(sources.join(name)).unwrap();
    let wanted: String = files.iter().map(read).collect();
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    fs::create_dir_all(folder).unwrap();
    install(folder)?;
    fs::write(stamp, wanted).unwrap();
    Ok(())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed (is there a package index?):\n{complaint}"))
}
