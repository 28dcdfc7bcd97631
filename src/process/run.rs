//! The beginning and the end of a program whose functions run as processes.

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::channel::Channel;
use super::function::Functions;
use super::hub::{FIRST, Hub, MARK, Setting};
use super::value::Outcome;
use super::{child, shared};
use crate::name::{Address, Incarnation, Realm};
use crate::os::executable::Executable;
use crate::os::{fds, limits, procfs, random};

/// Makes this program one whose functions can run as processes, and runs `main` in its first process.
///
/// It is the one line of the program's `main`, before anything else is done, because every process of the
/// program comes through here; in all but the first it does not return. When `main` is over, however it ends, all
/// other processes are killed. The code is 0, or 1 where `main` returned an error, which is printed.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     wharf::run(|| {
///         wharf::spawn(greet, (wharf::process::me()?, "world".to_owned()))?;
///         let greeting: String = wharf::receive()?;
///         assert_eq!(greeting, "hello, world");
///         Ok::<_, wharf::process::Error>(())
///     })
/// }
///
/// fn greet((whom, name): (wharf::process::Address, String)) -> Result<(), wharf::process::Error> {
///     wharf::send(&whom, &format!("hello, {name}"))
/// }
/// ```
pub fn run<R: Outcome>(main: impl FnOnce() -> R) -> ExitCode {
    Program::new().run(main)
}

/// A program whose functions can run as processes, some of them under names of their own.
#[derive(Debug, Default)]
pub struct Program {
    functions: Functions,
}

impl Program {
    /// Any function can be spawned by itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a function a name that stays the same from build to build, such as `resize.v1`, for
    /// [`spawn_named`](super::spawn_named).
    #[must_use]
    pub fn function<W, A, R>(mut self, name: &str, worker: W) -> Self
    where
        W: Fn(A) -> R + Copy + 'static,
        A: DeserializeOwned + 'static,
        R: Outcome,
    {
        self.functions.add(name, worker);
        self
    }

    /// Like [`run`].
    pub fn run<R: Outcome>(self, main: impl FnOnce() -> R) -> ExitCode {
        if let Some(incarnation) = marked() {
            child::live(incarnation, &self.functions);
        }
        match first(main) {
            Ok(code) => code,
            Err(error) => {
                say(&format!("cannot begin as a program of processes: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Says something on standard error, where there is nobody else to tell.
pub(super) fn say(words: &str) {
    let _ = writeln!(io::stderr(), "wharf: {words}");
}

/// The incarnation of the native process that this is to be, by its command line. Nothing that is inherited
/// says so: a program that a native process starts is none.
fn marked() -> Option<u64> {
    let mut words = std::env::args_os().skip(1);
    (words.next()? == MARK).then(|| words.next()?.to_str()?.parse().ok())?
}

/// The thread that never ends before the others have. What it makes belongs to it.
fn hub(setting: Setting) -> io::Result<std::thread::JoinHandle<()>> {
    let (told, begun) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("wharf-hub".to_owned()).spawn(move || {
        let hub = Hub::new(setting);
        let (hub, error) = match hub {
            Ok(hub) => (Some(hub), None),
            Err(error) => (None, Some(error)),
        };
        // Who began this waits for it.
        let _ = told.send(error);
        if let Some(hub) = hub {
            hub.serve();
        }
    })?;
    match begun.recv() {
        Ok(None) => Ok(thread),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(io::Error::other("its thread ended at once")),
    }
}

fn first<R: Outcome>(main: impl FnOnce() -> R) -> io::Result<ExitCode> {
    let executable = Arc::new(Executable::hold()?);
    let realm = Realm(random::number()?);
    // A hub needs two descriptors for each process, a process one for each that it talks with.
    limits::raise_nofile()?;
    let (ours, theirs) = fds::stream_pair()?;
    let setting = Setting {
        realm,
        executable: Arc::clone(&executable),
        environment: std::env::vars_os().collect(),
        umask: procfs::own_umask().unwrap_or(0o022),
        first: theirs,
    };
    let me = Address::new(realm, Incarnation(FIRST));
    let shared = shared::begin(me, Channel::new(ours), executable, Vec::new())?;
    let thread = hub(setting)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| main().outcome()));
    child::flush(shared);
    shared.with(|inside, _| inside.close_hub());
    // The hub ends when all others are gone.
    let _ = thread.join();
    match outcome {
        Ok(Ok(_)) => Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => {
            say(&error);
            Ok(ExitCode::FAILURE)
        }
        Err(panic) => resume_unwind(panic),
    }
}
