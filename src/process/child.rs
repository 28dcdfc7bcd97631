//! The life of a native process that another one has spawned: who it is, its function, its last word.

use std::any::Any;
use std::cell::RefCell;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Came, Channel};
use super::function::{Functions, Prepared};
use super::inside;
use super::run::say;
use super::shared::{self, Shared};
use super::wire::{THE_CALL, Welcome};
use crate::mailbox::code;
use crate::message::{Ending, Exit as Said, Frame, Hello, Kind, Payloads, Ready};
use crate::name::{Address, Incarnation};
use crate::os::epoll::{Interest, Poller, Ready as Tokens};
use crate::os::executable::Executable;
use crate::os::{clock, fds, prctl};

/// How long what was sent may take to leave before the process ends.
const FLUSH: Duration = Duration::from_secs(5);
/// How much of a backtrace is told, in bytes.
const BACKTRACE: usize = 32 << 10;
/// The code of a process that could not begin, which the hub never sees: it says why before.
const NOT_BEGUN: i32 = 125;

/// Lives that life; it ends here.
pub(super) fn live(incarnation: u64, functions: &Functions) -> ! {
    let (shared, prepared) = match begin(incarnation, functions) {
        Ok(begun) => begun,
        Err(why) => {
            say(&format!("cannot begin as a native process: {why}"));
            std::process::exit(NOT_BEGUN);
        }
    };
    let run = match prepared {
        Ok(run) => run,
        Err(why) => {
            tell(shared, &Frame::control(Kind::Ready, 0, &Ready { failed: Some(why), peer: None }));
            flush(shared);
            std::process::exit(NOT_BEGUN);
        }
    };
    std::panic::set_hook(panicking(std::panic::take_hook()));
    tell(shared, &Frame::control(Kind::Ready, 0, &Ready::default()));
    let said = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => returned(shared, value),
        Ok(Err(error)) => last_word(Ending::ReturnedError, Some(error)),
        Err(panic) => panicked(&*panic),
    };
    let code = code(said.reason);
    tell(shared, &Frame::control(Kind::Exit, 0, &said));
    flush(shared);
    std::process::exit(code)
}

/// Finds out who this is and what it is to do.
fn begin(incarnation: u64, functions: &Functions) -> Result<(&'static Shared, Prepared), String> {
    let socket = fds::inherited(3).map_err(|error| format!("open descriptor 3: {error}"))?;
    let mut hub = Channel::new(socket);
    let (welcome, arguments, rest) = introduction(&mut hub)?;
    if welcome.hello.peer.as_ref().is_none_or(|peer| peer.incarnation != incarnation) {
        return Err("be two at once: the command line and the hub name different ones".to_owned());
    }
    let executable = Executable::hold().map_err(|error| format!("open /proc/self/exe: {error}"))?;
    let executable = Arc::new(executable);
    if let Some(peer) = &welcome.hello.peer {
        prctl::name_thread(&short(&peer.name));
    }
    let entry = functions.find(&welcome.function, &executable);
    let me = Address::new(welcome.realm, Incarnation(incarnation));
    let shared = shared::begin(me, hub, executable, rest);
    let shared = shared.map_err(|error| format!("watch sockets: {error}"))?;
    let mut hello = Hello::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    hello.enc = Payloads::Msgpack;
    tell(shared, &Frame::control(Kind::Hello, 0, &hello));
    Ok((shared, entry.and_then(|entry| entry(&arguments))))
}

/// The last part of a function's path, as much as the kernel keeps.
fn short(name: &str) -> std::ffi::CString {
    let last = name.rsplit("::").find(|part| !part.starts_with('{')).unwrap_or(name);
    std::ffi::CString::new(last.bytes().take(15).collect::<Vec<_>>()).unwrap_or_default()
}

/// The hub's HELLO, the arguments, and what else has come with them.
fn introduction(hub: &mut Channel) -> Result<(Welcome, bytes::Bytes, Vec<Frame>), String> {
    let poller = Poller::new().map_err(|error| format!("watch descriptor 3: {error}"))?;
    poller
        .add(hub.as_fd(), 0, Interest::Read)
        .map_err(|error| format!("talk to a hub on descriptor 3: {error}"))?;
    let (mut frames, mut buffer, mut ready) = (Vec::new(), vec![0; 64 << 10], Tokens::new(1));
    // No time limit: the hub has one, and its end is the end of this process too.
    while frames.len() < 2 {
        match hub.read(&mut buffer, |frame| frames.push(frame)) {
            Ok(Came::Bytes(_)) => {}
            Ok(Came::Nothing) => {
                let _ = poller.wait(&mut ready, None);
            }
            Ok(Came::End) => {
                return Err("hear what to do: descriptor 3 is closed, or no socket".to_owned());
            }
            Err(error) => return Err(format!("understand the hub: {error}")),
        }
    }
    let rest = frames.split_off(2);
    let [hello, call] = &frames[..] else { return Err("hear what to do".to_owned()) };
    if (hello.kind, call.kind, call.id) != (Kind::Hello, Kind::Call, THE_CALL) {
        return Err(format!("begin with {} and {}", hello.kind, call.kind));
    }
    let welcome: Welcome = hello.read().map_err(|error| error.to_string())?;
    Ok((welcome, call.payload.clone(), rest))
}

fn tell(shared: &Shared, frame: &Frame) {
    // It is of a size that fits, but for results, which are looked at before.
    shared.with(|inside, poller| {
        let _ = inside.tell_hub(frame, poller);
    });
}

/// Waits until all that was sent has left.
pub(super) fn flush(shared: &Shared) {
    let deadline = clock::now() + FLUSH;
    let _ = shared.until(Some(deadline), |inside, _| inside.all_left().then_some(()));
}

/// Sends the result.
fn returned(shared: &Shared, value: Vec<u8>) -> Said {
    let sent = shared.with(|inside, poller| {
        inside::fits_twice(&value)?;
        inside.tell_hub(&Frame::reply(THE_CALL, value), poller)
    });
    match sent {
        Ok(()) => last_word(Ending::Returned, None),
        Err(error) => last_word(Ending::ReturnedError, Some(format!("cannot {error}"))),
    }
}

fn last_word(reason: Ending, message: Option<String>) -> Said {
    Said { reason, message, place: None, backtrace: None, value: None }
}

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<Option<Said>> = const { RefCell::new(None) };
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// Keeps what a panic says; where it will not unwind, the hub is told at once.
fn panicking(before: Hook) -> Hook {
    Box::new(move |info| {
        before(info);
        let mut said = last_word(Ending::Panicked, Some(words(info.payload())));
        said.place = info.location().map(ToString::to_string);
        let mut backtrace = std::backtrace::Backtrace::force_capture().to_string();
        let most = (0..=BACKTRACE.min(backtrace.len())).rev();
        backtrace
            .truncate(most.into_iter().find(|at| backtrace.is_char_boundary(*at)).unwrap_or(0));
        said.backtrace = Some(backtrace);
        let aborts = cfg!(panic = "abort");
        if aborts && let Ok(shared) = shared::shared() {
            let frame = Frame::control(Kind::Exit, 0, &said);
            shared.try_with(|inside, poller| {
                let _ = inside.tell_hub(&frame, poller);
            });
        }
        PANIC.with(|last| last.replace(Some(said)));
    })
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

/// The last word of a function that panicked.
fn panicked(payload: &(dyn Any + Send)) -> Said {
    let last = PANIC.with(RefCell::take);
    // Resumed unwinding does not pass the hook.
    last.unwrap_or_else(|| last_word(Ending::Panicked, Some(words(payload))))
}
