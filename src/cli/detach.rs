//! Starting the guardian in the background and waiting until its manager answers.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::client::{Question, ends_within, parse};
use super::context::Context;
use super::failure::{Failure, OK};
use super::guard::{self, HANDED_ON};
use crate::guardian::{Given, LOCK_FD, NotifyAt};
use crate::manager::ManagerStatus;
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::spawn::{Landing, Launch, Stacks, Started};
use crate::os::{clock, signal};

/// How long the manager may take to answer.
const BOUND: Duration = Duration::from_secs(30);
/// The pause between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(10);
/// How long a service manager may take to be told who the guardian is.
const NOTIFY: Duration = Duration::from_secs(5);
/// How much of the log is shown when it did not work, in bytes.
const TAIL: u64 = 8 << 10;

/// Starts a guardian with a session of its own, hands it the lock and returns once the socket
/// answers.
pub(super) fn start(context: &Context, lock: OwnedFd, given: Given) -> Result<u8, Failure> {
    let notify = guard::notify()?;
    let path = context.state.own_log();
    let failed = |doing| move |source| Failure::Io { doing, source };
    let log = File::options().append(true).create(true).mode(0o600).open(&path);
    let log = log.map_err(failed("open wharf.log"))?;
    let before = log.metadata().map_err(failed("open wharf.log"))?.len();
    let mut stacks = Stacks::default();
    let above = (&given, notify.as_ref());
    let mut started = signal::with_all_blocked(|| launch(context, &lock, &log, above, &mut stacks))
        .map_err(failed("block signals"))??;
    // From here on the guardian alone holds the directory.
    drop((lock, given));
    land(&mut started, &mut stacks)?;
    if let Some(notify) = notify {
        // What it says counts only once a service manager knows it to be what it looks after.
        let text = format!("MAINPID={}", started.pid);
        if let Err(error) = notify.say(&text, NOTIFY) {
            context.say(&format!("warning: the service manager cannot be told of it: {error}"));
        }
    }
    wait_for_answer(context, &started, &path, before)
}

fn launch(
    context: &Context,
    lock: &OwnedFd,
    log: &File,
    (given, notify): (&Given, Option<&NotifyAt>),
    stacks: &mut Stacks,
) -> Result<Started, Failure> {
    let failed = |doing| move |source| Failure::Io { doing, source };
    let mut words = vec!["/proc/self/exe".to_owned(), "guardian".to_owned()];
    words.extend(context.state_words.iter().cloned());
    words.extend(given.word().into_iter().flat_map(|word| ["--given".to_owned(), word]));
    let mut environment = guard::environment(context);
    if let Some(notify) = notify {
        let address = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        environment.push(("NOTIFY_SOCKET".to_owned(), address));
        let usec = notify.watchdog().map(|length| length.as_micros().to_string());
        environment.extend(usec.map(|usec| ("WATCHDOG_USEC".to_owned(), usec)));
    }
    let pairs = environment.iter().map(|(name, value)| (&**name, &**value));
    let nul =
        |_| Failure::NotStarted("a NUL byte stands in the path of the state directory".into());
    let mut launch = Box::new(Launch::new(&words, pairs).map_err(nul)?);
    launch.outlives_parent();
    // It must not hold on to whatever folder we happen to be in.
    launch.folder(Path::new("/")).map_err(nul)?;
    let null = File::open("/dev/null").map_err(failed("open /dev/null"))?;
    let places = [(null.as_fd(), 0), (log.as_fd(), 1), (log.as_fd(), 2), (lock.as_fd(), LOCK_FD)];
    let places: Vec<_> = places.into_iter().chain(given.places(HANDED_ON)).collect();
    launch.start(&places, stacks).map_err(not_started)
}

fn not_started((stage, errno): (crate::exit::Stage, crate::exit::Errno)) -> Failure {
    let (stage, why) = (stage.doing(), errno.text());
    Failure::NotStarted(format!("the guardian did not start: {stage} failed with {errno} ({why})"))
}

/// Waits until the guardian's program runs.
fn land(started: &mut Started, stacks: &mut Stacks) -> Result<(), Failure> {
    let failed = |source| Failure::Io { doing: "wait for the guardian", source };
    let poller = Poller::new().map_err(failed)?;
    poller.add(started.flight.as_fd(), 0, Interest::Read).map_err(failed)?;
    let mut ready = Ready::new(1);
    loop {
        poller.wait(&mut ready, None).map_err(failed)?;
        match started.flight.landed(stacks) {
            None => {}
            Some(Landing::Failed { stage, errno, .. }) => return Err(not_started((stage, errno))),
            Some(_) => return Ok(()),
        }
    }
}

fn wait_for_answer(
    context: &Context,
    started: &Started,
    log: &Path,
    before: u64,
) -> Result<u8, Failure> {
    let client = context.client("up")?;
    let deadline = clock::now() + BOUND;
    loop {
        if let Ok(reply) = client.ask_now(Question::get("/v1/manager")) {
            let manager: ManagerStatus = parse(&reply.body)?;
            let (pid, guardian) = (manager.pid, manager.guardian_pid);
            context.say(&format!("the manager runs (pid {pid}, guardian {guardian})"));
            return Ok(OK);
        }
        if ends_within(&started.pidfd, RETRY)? {
            let said = tail(log, before).unwrap_or_default();
            let path = log.display();
            return Err(Failure::NotStarted(format!(
                "the manager did not start; the end of {path}:\n{}",
                said.trim_end()
            )));
        }
        if clock::now() > deadline {
            let (seconds, path) = (BOUND.as_secs(), log.display());
            return Err(Failure::TimedOut(format!(
                "the manager does not answer after {seconds} s; it goes on trying, see {path}"
            )));
        }
    }
}

/// What was written into the log since it had `before` bytes, the last part of it.
fn tail(log: &Path, before: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    // A log that was rotated meanwhile is shorter.
    let from = if length < before { 0 } else { before };
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_words_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("wharf.log");
        std::fs::write(&log, "old\nnew\n").unwrap();
        assert_eq!(tail(&log, 4).unwrap(), "new\n");
        assert_eq!(tail(&log, 100).unwrap(), "old\nnew\n");
        std::fs::write(&log, format!("{}last\n", "x".repeat(10_000))).unwrap();
        let text = tail(&log, 0).unwrap();
        assert_eq!(text.len(), 8 << 10);
        assert!(text.ends_with("last\n"));
    }
}
