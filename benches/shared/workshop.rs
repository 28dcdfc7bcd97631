//! The contestants' programs, compiled from the sources beside this bench.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Everything that is there before anything is measured.
#[derive(Debug)]
pub(crate) struct Workshop {
    /// `target/bench`, where programs and results are.
    pub(crate) folder: PathBuf,
    /// Where named pipes and state directories are, until the end of this run.
    pub(crate) temporary: TempDir,
}

impl Workshop {
    /// Compiles these sources: `benches/c/NAME.c` and `benches/erlang/NAME.erl`. The error says what is missing.
    pub(crate) fn open(c: &[&str], erlang: &str) -> Result<Self, String> {
        for (program, package) in [("gcc", "gcc and libc6-dev"), ("erl", "erlang-base")] {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            if !found.is_ok_and(|output| output.status.success()) {
                return Err(format!("{program} is missing (Debian packages: {package})"));
            }
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder).unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        for name in c {
            let mut compiler = Command::new("gcc");
            compiler.args(["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-static", "-o"]);
            compiler.arg(folder.join(name)).arg(sources.join(format!("c/{name}.c")));
            succeed(compiler)?;
        }
        let mut compiler = Command::new("erlc");
        compiler.arg("-o").arg(&folder).arg(sources.join(format!("erlang/{erlang}.erl")));
        succeed(compiler)?;
        let temporary = tempfile::tempdir_in(target).unwrap();
        Ok(Self { folder, temporary })
    }

    /// A program that was compiled from C.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The service that every contestant runs.
    pub(crate) fn child(&self) -> String {
        self.program("child").to_str().unwrap().to_owned()
    }
}

fn succeed(mut command: Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed:\n{complaint}"))
}
