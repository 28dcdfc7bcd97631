//! `wharf upgrade`: another binary goes on with everything, and no service notices.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, Question, ends_within};
use super::context::Context;
use super::failure::{Failure, OK};
use super::out;
use crate::manager::{FORM, ManagerStatus};
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::spawn::{Launch, Stacks};
use crate::os::{clock, fds, procfs, signal, wait};

/// How long a new binary may take to say what it is.
const PROBE: Duration = Duration::from_secs(10);
/// How long the successor may take to answer.
const BOUND: Duration = Duration::from_secs(60);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(5);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Replace the running wharf by another binary; services go on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf upgrade                        by the binary of this command
  wharf upgrade /usr/local/bin/wharf   by that one")]
pub(super) struct Upgrade {
    /// The new binary [default: the one of this command]
    #[arg(value_name = "BINARY")]
    binary: Option<PathBuf>,
}

/// Say in which form this binary takes over (`wharf upgrade` asks a new one)
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Succession {}

/// What a binary says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    /// Its version.
    wharf: String,
    /// The form in which it takes over.
    form: u32,
}

impl Succession {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Self {} = self;
        out::print_document(&json!(Known {
            wharf: env!("CARGO_PKG_VERSION").to_owned(),
            form: FORM
        }))?;
        Ok(OK)
    }
}

impl Upgrade {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let failed = |source| Failure::Io { doing: "find the new binary", source };
        let binary = match self.binary {
            Some(path) => path,
            None => std::env::current_exe().map_err(failed)?,
        };
        let binary = fs::canonicalize(&binary).map_err(failed)?;
        let known = probe(&binary)?;
        let client = context.client("upgrade")?;
        let before: ManagerStatus = client.get("/v1/manager")?;
        let body = json!({ "binary": binary, "form": known.form }).to_string();
        client.ask(Question::post("/v1/upgrade", body))?;
        let after = successor(&client, &before)?;
        let runs = procfs::executable(after.pid).and_then(|path| identity(&path));
        if runs != identity(&binary) {
            return Err(Failure::NotStarted(format!(
                "the new binary did not come to serve, and the old one goes on (pid {}); why is told \
                 in {}",
                after.pid,
                context.state.own_log().display()
            )));
        }
        context.say(&format!(
            "wharf {} goes on with everything (pid {}, before {} with pid {})",
            after.version, after.pid, before.version, before.pid
        ));
        Ok(OK)
    }
}

/// Which file it is.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Waits for another manager to answer.
fn successor(client: &Client, before: &ManagerStatus) -> Result<ManagerStatus, Failure> {
    let deadline = clock::now() + BOUND;
    let old = signal::open_pidfd(before.pid).ok();
    loop {
        if let Ok(reply) = client.ask_briefly(Question::get("/v1/manager"), QUESTION) {
            let manager: ManagerStatus = super::client::parse(&reply.body)?;
            if manager.pid != before.pid {
                return Ok(manager);
            }
        }
        if clock::now() > deadline {
            let seconds = BOUND.as_secs();
            let text = format!("no other manager answers after {seconds} s");
            return Err(Failure::TimedOut(text));
        }
        match &old {
            Some(old) => drop(ends_within(old, LOOK)?),
            None => drop(client.will_be_back()?),
        }
    }
}

/// Runs a new binary once, to learn whether it runs at all and what it can take over.
fn probe(binary: &Path) -> Result<Known, Failure> {
    let failed = |source| Failure::Io { doing: "try the new binary", source };
    let unfit = |why: String| {
        let path = binary.display();
        Failure::NotStarted(format!("{path} cannot succeed: {why}; nothing was changed"))
    };
    let nul = |_| unfit("there is a NUL byte in its path".to_owned());
    let words = [binary.as_os_str().as_encoded_bytes(), b"succession"];
    let mut launch = Box::new(Launch::new(&words, [("PATH", "/usr/bin:/bin")]).map_err(nul)?);
    launch.sealed();
    let pipe = fds::pipe().map_err(failed)?;
    let null = fs::File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    let places = [(null.as_fd(), 0), (pipe.write.as_fd(), 1), (null.as_fd(), 2)];
    let mut stacks = Stacks::default();
    let started =
        signal::with_all_blocked(|| launch.start(&places, &mut stacks)).map_err(failed)?;
    let mut started = started
        .map_err(|(stage, errno)| unfit(format!("{} failed with {errno}", stage.doing())))?;
    drop(pipe.write);
    let ended = ends_within(&started.pidfd, PROBE)?;
    if !ended {
        signal::send(started.pidfd.as_fd(), crate::exit::Signal::KILL).map_err(failed)?;
    }
    let poller = Poller::new().map_err(failed)?;
    poller.add(started.pidfd.as_fd(), 0, Interest::Read).map_err(failed)?;
    poller.wait(&mut Ready::new(1), None).map_err(failed)?;
    started.flight.landed(&mut stacks);
    let end = wait::reap(started.pidfd.as_fd()).map_err(failed)?;
    if !ended {
        return Err(unfit(format!("it did not say within {} s what it is", PROBE.as_secs())));
    }
    let mut said = String::new();
    fds::set_nonblocking(pipe.read.as_fd()).map_err(failed)?;
    let _ = fs::File::from(pipe.read).take(4096).read_to_string(&mut said);
    serde_json::from_str(&said).map_err(|_| {
        let how = end.map(|end| end.how.to_string()).unwrap_or_default();
        unfit(format!("asked what it is, it {how} and did not say"))
    })
}
