//! What is to be run in a port, and how it is spoken to.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::driver::{Driver, Parts};
use super::error::OpenError;
use super::exchange::{Exchange, Protocol};
use super::handle::Port;
use super::keeper::{self, Grave, MARKER, NotBorn, Order};
use super::shared::Shared;
use super::stdbuf;
use super::stderr::Stderr;
use crate::exit::{Errno, Signal, Stage};
use crate::name::ServiceName;
use crate::os::limits::Resource;
use crate::os::spawn::{ChildLimit, Launch};
use crate::os::{clock, fds, random, user};
use crate::spec::{
    Banner, Channel, Eof, Framing, KillScope, Port as Spoken, Ready, Replies, Service, Stray,
    Unbuffer,
};

/// A program to be run in a port, and how it is spoken to; made by [`Port::command`] and
/// [`Port::profile`], and started by [`Builder::open`].
///
/// Unless told otherwise the program gets this process's environment and working directory, a session of
/// its own, and a umask of 022. It speaks in lines and nothing it says is a reply.
#[derive(Debug, Clone)]
#[must_use = "a port begins with `open`"]
pub struct Builder {
    words: Vec<OsString>,
    variables: Vec<(OsString, Option<OsString>)>,
    clean: bool,
    folder: Option<PathBuf>,
    stderr: Stderr,
    service: Service,
    port: Spoken,
}

impl Builder {
    pub(super) fn new(program: &OsStr) -> Self {
        let name = ServiceName::new("port").expect("these are letters");
        let service = Service::new(name);
        Self {
            words: vec![program.to_owned()],
            variables: Vec::new(),
            clean: false,
            folder: None,
            stderr: Stderr::default(),
            service,
            port: Spoken::default(),
        }
    }

    /// What a service of a configuration says, its profile included.
    #[cfg(feature = "daemon")]
    pub(crate) fn of_service(service: &Service) -> Self {
        let mut builder = Self::new(OsStr::new(""));
        builder.words = service.command.iter().map(OsString::from).collect();
        let variables = service.environment.iter();
        builder.variables =
            variables.map(|(name, value)| (name.into(), Some(value.into()))).collect();
        builder.port = service.port.clone().unwrap_or_default();
        builder.service = service.clone();
        builder
    }

    #[cfg(feature = "daemon")]
    pub(super) fn profile(name: &str) -> Result<Self, OpenError> {
        let failed = |why: String| OpenError::Profile { name: name.to_owned(), why };
        if !crate::spec::built_in_profiles().any(|known| known == name) {
            let known: Vec<_> = crate::spec::built_in_profiles().collect();
            return Err(failed(format!("there are {}", known.join(", "))));
        }
        // A command for those profiles that have none; theirs comes before it.
        let text = |command: &str| {
            format!("version: 1\nservices: {{ port: {{ {command}port: {{ use: {name} }} }} }}\n")
        };
        let load = |command| crate::spec::load_text(name, text(command), None, &|_| None);
        let loaded = load("").or_else(|_| load("command: [\"\"], "));
        let spec = loaded.map_err(|mistakes| failed(mistakes.to_string()))?.spec;
        let service = spec.services.values().next();
        service.map(|service| Self::of_service(service)).ok_or_else(|| failed(String::new()))
    }

    /// Adds a word to the command.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds words to the command.
    pub fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Replaces the whole command, for a profile whose own does not suit. The first word is a path, or is
    /// looked for in the `PATH` that the program gets.
    pub fn command(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let pair = (name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self.variables.push(pair);
        self
    }

    /// Leaves out an environment variable of this process.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), None));
        self
    }

    /// Leaves out all environment variables of this process, and those that were set before.
    pub fn env_clear(mut self) -> Self {
        self.variables.clear();
        self.clean = true;
        self
    }

    /// The working directory.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Runs it as another user: `name`, `1000`, `name:group`. Only root may.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.service.user = Some(user.into());
        self
    }

    /// The most descriptors it may have open.
    pub fn max_open_files(mut self, most: u64) -> Self {
        self.service.limits.nofile = Some(most);
        self
    }

    /// The largest core dump it may leave, in bytes.
    pub fn max_core_size(mut self, bytes: u64) -> Self {
        self.service.limits.core = Some(bytes);
        self
    }

    /// How bytes become messages. Lines, unless told otherwise.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.port.framing = framing;
        self
    }

    /// Which message is the reply to which call. None is, unless told otherwise.
    pub fn replies(mut self, replies: Replies) -> Self {
        self.port.replies = replies;
        self
    }

    /// The largest message, either way, in bytes. 16 MiB, unless told otherwise; a longer one that the
    /// program announces or says is a protocol error, and costs no memory.
    pub fn max_frame(mut self, bytes: u64) -> Self {
        self.port.max_frame = bytes;
        self
    }

    /// The most messages that may wait to be written to the program, and the most calls that may be open
    /// at once. 1,024, unless told otherwise. In bytes the bound is 1 MiB, or one message.
    pub fn queue(mut self, messages: u32) -> Self {
        self.port.queue = messages;
        self
    }

    /// How long a call may take unless it says otherwise. 30 s, unless told otherwise.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.port.timeout = timeout;
        self
    }

    /// What the program says before it is spoken to; it is no reply to anything. Nothing, unless told
    /// otherwise.
    pub fn banner(mut self, banner: Banner) -> Self {
        self.port.banner = banner;
        self
    }

    /// When the program can be spoken to: as soon as it runs, unless told otherwise. Calls that are made
    /// before wait, and end at their deadline.
    pub fn ready(mut self, ready: Ready) -> Self {
        self.port.ready = ready;
        self
    }

    /// What becomes of text that is no protocol, where it can be told: it goes to the log, unless told
    /// otherwise.
    pub fn stray(mut self, stray: Stray) -> Self {
        self.port.stray = Some(stray);
        self
    }

    /// How the program is kept from holding its output back: [`Unbuffer::Stdbuf`] reaches those that print
    /// through C's `stdout` and are linked dynamically. Not at all, unless told otherwise.
    /// [`Unbuffer::Pty`] needs a manager.
    pub fn unbuffer(mut self, unbuffer: Unbuffer) -> Self {
        self.port.unbuffer = unbuffer;
        self
    }

    /// The message that asks the program to end: the first step of [`Port::stop`].
    pub fn quit(mut self, message: impl Into<String>) -> Self {
        self.port.quit = Some(message.into());
        self
    }

    /// What the end of its input means to the program; [`Eof::Ignored`] spares [`Port::stop`] the step.
    pub fn eof(mut self, eof: Eof) -> Self {
        self.port.eof = eof;
        self
    }

    /// How long [`Port::stop`] waits after the quit message, and again after the end of the input.
    /// 3 s, unless told otherwise.
    pub fn eof_grace(mut self, grace: Duration) -> Self {
        self.port.eof_grace = grace;
        self
    }

    /// The signal by which [`Port::stop`] asks after that. `SIGTERM`, unless told otherwise.
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.service.stop.signal = signal;
        self
    }

    /// How long [`Port::stop`] waits after the signal, before it kills. 10 s, unless told otherwise.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.service.stop.grace = grace;
        self
    }

    /// How far a kill goes, and what is looked for after the end: [`KillScope::Tree`], unless told
    /// otherwise.
    pub fn kill_scope(mut self, scope: KillScope) -> Self {
        self.service.stop.kill = scope;
        self
    }

    /// The exit codes that are a success. 0, unless told otherwise.
    pub fn success_exit_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.service.restart.success_exit_codes = codes.into_iter().collect();
        self
    }

    /// How long it may take until the program runs; a working directory on a dead mount hangs.
    /// 60 s, unless told otherwise.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.service.start_timeout = timeout;
        self
    }

    /// What becomes of standard error. It goes to the log, unless told otherwise.
    pub fn stderr(mut self, stderr: Stderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Starts the program. The port is there when the program runs; what keeps it from running is an
    /// error, with the step that failed.
    ///
    /// The port lives in the tokio runtime that this is called in. When that ends, the program is killed.
    ///
    /// # Panics
    /// Where that runtime has no input and output or no time (`enable_all` of its builder has both).
    pub async fn open(mut self) -> Result<Port, OpenError> {
        if Handle::try_current().is_err() {
            return Err(OpenError::NoRuntime);
        }
        let beyond = match (self.port.channel, self.port.unbuffer) {
            (Channel::Stdio, Unbuffer::None | Unbuffer::Stdbuf) => None,
            (Channel::Fd3, _) => Some("channel: fd3"),
            (Channel::Pty, _) => Some("channel: pty"),
            (Channel::Stdio, Unbuffer::Pty) => Some("unbuffer: pty"),
        };
        if let Some(beyond) = beyond {
            return Err(OpenError::Channel(beyond));
        }
        if self.port.stray.is_none() && self.port.can_bear_strays() {
            self.port.stray = Some(Stray::Log);
        }
        let protocol = Arc::new(Protocol::new(&self.port)?);
        let program =
            self.words.first().map_or_else(String::new, |word| word.display().to_string());
        let marker = marker();
        let launch = self.launch(&program, &marker).await?;
        self.service.port = Some(self.port);
        let service = Arc::new(self.service);
        let grave = Grave { scope: service.stop.kill, marker };
        let failed = |source| OpenError::Io { program: program.clone(), source };
        let Pipes { child, ours } = Pipes::make(self.stderr).map_err(failed)?;
        let (reply, answer) = oneshot::channel();
        let started = clock::now();
        let deadline = started + service.start_timeout;
        let order = Order { launch, streams: child, deadline, grave: grave.clone(), reply };
        keeper::start(order).map_err(failed)?;
        // A keeper that is gone is not to be thought of as an answer.
        let gone = |_| failed(std::io::Error::other("the thread that starts ports is gone"));
        let born = answer.await.map_err(gone)?.map_err(|not| not_started(&program, not))?;
        let exchange = Exchange::new(protocol, seed());
        let shared = Shared::new(exchange, service, born.pid);
        let parts = Parts {
            shared: Arc::clone(&shared),
            streams: ours,
            pidfd: born.pidfd,
            grave,
            program: program.clone(),
            started: clock::now(),
            stderr: self.stderr,
        };
        let driver = Driver::new(parts).map_err(failed)?;
        tokio::spawn(driver);
        Ok(Port::new(shared, self.stderr))
    }

    async fn launch(&self, program: &str, marker: &str) -> Result<Box<Launch>, OpenError> {
        let nul = |_| OpenError::Nul { program: program.to_owned() };
        let mut variables: indexmap::IndexMap<OsString, OsString> =
            if self.clean { indexmap::IndexMap::new() } else { std::env::vars_os().collect() };
        for (name, value) in &self.variables {
            match value {
                Some(value) => drop(variables.insert(name.clone(), value.clone())),
                None => drop(variables.shift_remove(name)),
            }
        }
        variables.insert(MARKER.into(), marker.into());
        if self.port.unbuffer == Unbuffer::Stdbuf {
            let value = |name: &str| variables.get(OsStr::new(name)).cloned().unwrap_or_default();
            let library = stdbuf::library(&value("PATH").to_string_lossy());
            let library = library
                .map_err(|source| OpenError::Stdbuf { program: program.to_owned(), source })?;
            for (name, value) in stdbuf::variables(&library, &value("LD_PRELOAD")) {
                variables.insert(name.into(), value);
            }
        }
        let words: Vec<&[u8]> = self.words.iter().map(|word| word.as_bytes()).collect();
        let pairs = variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut launch = Box::new(Launch::new(&words, pairs).map_err(nul)?);
        launch.sealed();
        if let Some(folder) = &self.folder {
            launch.folder(folder).map_err(nul)?;
        }
        for (resource, limit) in [
            (Resource::Nofile, self.service.limits.nofile),
            (Resource::Core, self.service.limits.core),
        ] {
            if let Some(limit) = limit {
                launch.limit(ChildLimit { resource, soft: limit, hard: limit });
            }
        }
        if let Some(name) = self.service.user.clone() {
            // It may ask a server on the network.
            let found = tokio::task::spawn_blocking(move || user::find(&name)).await;
            let identity = found.unwrap_or(Err(Errno(libc::ECANCELED))).map_err(|errno| {
                let (stage, interpreter_missing) = (Stage::User, false);
                not_started(program, NotBorn { stage, errno, interpreter_missing })
            })?;
            // Who is not root may not even become who he is already (setgroups(2)).
            if identity.uid == 0 || (identity.uid, identity.gid) != user::ids() {
                launch.identity(identity);
            }
        }
        Ok(launch)
    }
}

fn not_started(program: &str, not: NotBorn) -> OpenError {
    let NotBorn { stage, errno, interpreter_missing } = not;
    OpenError::NotStarted { program: program.to_owned(), stage, errno, interpreter_missing }
}

/// A number that no two ports of this process share, and hardly any two processes.
fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Without chance the time does: it only has to differ from that of other ports.
    let chance = random::number().unwrap_or_else(|_| clock::wall().0);
    chance ^ NEXT.fetch_add(1, Ordering::Relaxed)
}

/// By which the descendants of one port are known.
fn marker() -> String {
    format!("{:016x}", seed())
}

/// The two ends of the three streams.
struct Pipes {
    child: [OwnedFd; 3],
    ours: [Option<OwnedFd>; 3],
}

impl Pipes {
    fn make(stderr: Stderr) -> std::io::Result<Self> {
        let input = fds::pipe()?;
        let output = fds::pipe()?;
        // Each end of a pipe has flags of its own, so the program's ends stay as programs expect them.
        fds::set_nonblocking(input.write.as_fd())?;
        fds::set_nonblocking(output.read.as_fd())?;
        let (error, ours) = match stderr {
            Stderr::Inherit => (fds::duplicate(std::io::stderr())?, None),
            Stderr::Log | Stderr::Quiet => {
                let error = fds::pipe()?;
                fds::set_nonblocking(error.read.as_fd())?;
                (error.write, Some(error.read))
            }
        };
        Ok(Self {
            child: [input.read, output.write, error],
            ours: [Some(input.write), Some(output.read), ours],
        })
    }
}
