//! `wharf attach`: a person at a port. What is typed is sent line by line, what the program says is
//! shown as it comes, and its end and next start are told. Who detaches leaves the program running.

use std::io::BufRead as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use clap::Args;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor, ExternalPrinter};

use super::context::Context;
use super::failure::{FAILED, Failure, OK};
use super::joined::{Joined, Meaning};
use super::out::{self, Out};
use super::wire::{self, Ear, Heard, Mouth};
use crate::message::{Down, Failure as Told, Frame, Kind, Missed, Ready};
use crate::name::Target;
use crate::os::fds;
use crate::spec::{IdPlace, Replies};

/// The first id of a call.
const FIRST: u64 = wire::MONITOR + 1;
/// How many lines are remembered.
const HISTORY: usize = 1000;

/// Talk to a port at a terminal: what is typed is sent, what it says is shown
///
/// Ctrl-D detaches and leaves the program running. Where standard input is no terminal its lines are
/// sent one after the other, each once the one before it is answered.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf attach db
  wharf attach chat/2
  echo '2^64' | wharf attach bc")]
pub(super) struct Attach {
    /// A service with a port, or a single replica; of several, the least busy one
    #[arg(value_name = "NAME[/R]")]
    name: Target,
}

impl Attach {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client("attach")?;
        let joined = Joined::find(&client, &self.name)?;
        let (mouth, ear) = joined.begin(&client, "wharf attach", true)?;
        let terminal = fds::is_terminal(std::io::stdin().as_fd()) && out::stdout_is_terminal();
        if terminal && can_edit() {
            person(&joined, mouth, ear)
        } else {
            piped(context, joined, mouth, ear)
        }
    }
}

/// Whether the terminal is one where lines can be edited; others, such as a shell within Emacs, are
/// treated like a pipe.
fn can_edit() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    !["dumb", "cons25", "emacs"].iter().any(|plain| term.eq_ignore_ascii_case(plain))
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|source| Failure::Io { doing: "start a thread", source })
}

fn editing(error: ReadlineError) -> Failure {
    Failure::Io { doing: "edit lines", source: std::io::Error::other(error) }
}

/// Where the lines that were typed are kept, as the XDG base directories have it.
fn history_file() -> Option<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).filter(|set| !set.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("wharf/attach_history"))
}

/// At a terminal: nothing that is typed waits for an answer, where the program's protocol allows it.
fn person(joined: &Joined, mut mouth: Mouth, ear: Ear) -> Result<u8, Failure> {
    let config = Config::builder().max_history_size(HISTORY).map_err(editing)?;
    let config = config.auto_add_history(true).build();
    let mut editor: Editor<(), FileHistory> = Editor::with_config(config).map_err(editing)?;
    let history = history_file();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    let mut printer = editor.create_external_printer().map_err(editing)?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let prompt = format!("{}> ", joined.target);
    thread("output", move || {
        let end = show(ear, &mut |shown| {
            let text = match shown {
                Shown::Said(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Shown::Told(text) => format!("-- {text}"),
            };
            // A terminal that is gone ends the other thread as well.
            let _ = printer.print(text + "\n");
            true
        });
        let _ = printer.print(format!("-- {end}; press Enter to leave\n"));
        seen.store(true, Ordering::Relaxed);
    })?;
    out::say("Ctrl-D detaches; the program goes on");
    let mut id = FIRST;
    loop {
        let line = match editor.readline(prompt.as_str()) {
            Ok(line) => line,
            // The line that was begun is dropped.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(editing(error)),
        };
        if over.load(Ordering::Relaxed) {
            break;
        }
        id += 1;
        let message = Bytes::from(line);
        let frame = if must_call(joined, &message) {
            wire::call(&joined.target, id, message)
        } else {
            wire::data(&joined.target, message)
        };
        mouth.say(&[frame])?;
    }
    if let Some(path) = &history {
        keep(&mut editor, path);
    }
    Ok(OK)
}

/// Keeps what was typed; where that cannot be, it is no reason to fail.
fn keep(editor: &mut Editor<(), FileHistory>, path: &std::path::Path) {
    let kept = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let kept = kept.map_err(ReadlineError::Io).and_then(|()| editor.save_history(path));
    if let Err(error) = kept {
        out::say(&format!("wharf: the lines that were typed are not kept: {error}"));
    }
}

/// Whether a message is lost unless it is a call: its reply bears a number that only a call has.
fn must_call(joined: &Joined, message: &Bytes) -> bool {
    match (&joined.port.replies, &joined.ids) {
        (Replies::Id(IdPlace::Pointer(_)), Some(_)) => {
            matches!(joined.meaning(message), Meaning::Call(_))
        }
        (Replies::Id(_) | Replies::Prefix { .. }, _) => true,
        _ => false,
    }
}

/// From a pipe: one line after the other.
fn piped(context: &Context, joined: Joined, mouth: Mouth, ear: Ear) -> Result<u8, Failure> {
    let pace = Arc::new(Pace::default());
    let theirs = Arc::clone(&pace);
    thread("input", move || send_lines(&joined, mouth, &theirs))?;
    let mut out = Out::new();
    let (mut failed, mut broken) = (false, None);
    let mut ear = ear;
    let result = loop {
        if !ear.has_more() {
            out.flush()?;
        }
        let frame = match ear.next(None)? {
            Heard::Frame(frame) => frame,
            Heard::Nothing => continue,
            Heard::End => break Err(Failure::Broken("the manager hung up".to_owned())),
        };
        if frame.kind == Kind::Pong {
            break Ok(if failed || pace.failed.load(Ordering::Relaxed) { FAILED } else { OK });
        }
        let answers = matches!(frame.kind, Kind::Reply | Kind::Error) && frame.id >= FIRST;
        failed |= frame.kind == Kind::Error;
        if answers && !wire::has_more(&frame) {
            *pace.waits.lock().unwrap_or_else(PoisonError::into_inner) = false;
            pace.told.notify_one();
        }
        each(&frame, &mut |shown| {
            let written = match shown {
                Shown::Said(bytes) => {
                    let newline: &[u8] = if bytes.ends_with(b"\n") { b"" } else { b"\n" };
                    out.bytes(&bytes).and_then(|()| out.bytes(newline))
                }
                Shown::Told(text) => {
                    context.say(&format!("wharf: {text}"));
                    Ok(())
                }
            };
            broken = written.err();
            broken.is_none()
        });
        if let Some(failure) = broken {
            break Err(failure);
        }
    };
    out.flush()?;
    result
}

/// What those who send lines and who hear answers know of each other.
#[derive(Default)]
struct Pace {
    /// Whether the last line has not been answered yet.
    waits: Mutex<bool>,
    /// Told when it has.
    told: Condvar,
    /// Whether a line could not be sent.
    failed: AtomicBool,
}

fn send_lines(joined: &Joined, mut mouth: Mouth, pace: &Pace) {
    let mut input = std::io::stdin().lock();
    let mut id = FIRST;
    let mut line = Vec::new();
    let most = mouth.largest();
    // A line that is too long is not kept to its end.
    while std::io::Read::take(&mut input, most + 2)
        .read_until(b'\n', &mut line)
        .is_ok_and(|count| count > 0)
    {
        line.pop_if(|last| *last == b'\n');
        if u64::try_from(line.len()).is_ok_and(|size| size > most) {
            out::say(&format!(
                "wharf: a line of more than {most} bytes; it is not sent, and no more"
            ));
            pace.failed.store(true, Ordering::Relaxed);
            break;
        }
        let message = Bytes::from(std::mem::take(&mut line));
        id += 1;
        let calls = joined.port.replies != Replies::None
            && (joined.ids.is_none() || must_call(joined, &message));
        let frame = if calls {
            wire::call(&joined.target, id, message)
        } else {
            wire::data(&joined.target, message)
        };
        let mut waiting = pace.waits.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = calls;
        // A manager that is gone is noticed by who listens to it.
        if mouth.say(&[frame]).is_err() {
            return;
        }
        while *waiting {
            waiting = pace.told.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
    let _ = mouth.say(&[Frame::new(Kind::Ping, id, Bytes::new())]);
}

/// Something for the eyes.
enum Shown {
    /// The program said it.
    Said(Bytes),
    /// It happened.
    Told(String),
}

/// Shows what comes until nothing more does; says why.
fn show(mut ear: Ear, shown: &mut impl FnMut(Shown) -> bool) -> String {
    loop {
        match ear.next(None) {
            Ok(Heard::Frame(frame)) => each(&frame, shown),
            Ok(Heard::Nothing) => {}
            Ok(Heard::End) => return "the manager is gone".to_owned(),
            Err(failure) => return failure.to_string(),
        }
    }
}

fn each(frame: &Frame, shown: &mut impl FnMut(Shown) -> bool) {
    let told = match frame.kind {
        Kind::Data | Kind::Reply => {
            shown(Shown::Said(frame.payload.clone()));
            return;
        }
        Kind::Ready => frame
            .read::<Ready>()
            .ok()
            .and_then(|ready| ready.peer)
            .map(|peer| format!("{} runs (run {})", peer.name, peer.incarnation)),
        Kind::Down => frame.read::<Down>().ok().map(|down| down.msg),
        Kind::Missed => {
            let missed = frame.read::<Missed>().ok();
            missed.map(|missed| format!("{} messages were not read in time", missed.frames))
        }
        Kind::Error => frame.read::<Told>().ok().map(|told| told.message),
        _ => None,
    };
    if let Some(text) = told {
        shown(Shown::Told(text));
    }
}
