//! `wharf connect`: a program that speaks a port's own protocol on its standard input and output, so
//! that a client which expects to launch a server is pointed at one that runs already.
//!
//! It decides nothing about the port: ids, turns and handshakes are the manager's. What it adds is
//! patience while the server is being started again, and an answer to every request that got none.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::context::Context;
use super::failure::{Failure, OK};
use super::joined::Joined;
use super::out::Out;
use super::wire::{self, Ear, Heard, Mouth};
use crate::correlation::Letter;
use crate::framing::{Codec, Decoder};
use crate::message::{Down, Failure as Told, Frame, Kind, Missed};
use crate::name::Target;
use crate::os::clock;
use crate::spec::{Framing, Replies};
use crate::time::Tick;

/// How many calls are with the manager at once where replies come in any order …
const MANY: usize = 256;
/// … and where they come one after the other.
const FEW: usize = 32;
/// The first id of a call.
const FIRST: u64 = wire::MONITOR + 1;
/// What JSON-RPC leaves to servers for errors of their own.
const SERVER_ERROR: i32 = -32000;

/// Speak a port's own protocol on standard input and output
///
/// For a client that launches a server and talks to its standard input and output: an editor, an MCP
/// client. Give it this command in the server's place, and all of them share the one server that the
/// manager runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf connect pyright
  wharf connect everything/1")]
pub(super) struct Connect {
    /// A service with a port, or a single replica; of several, the least busy one is kept to
    #[arg(value_name = "NAME[/R]")]
    name: Target,
}

/// A call that has not been answered.
struct Open {
    /// Its caller's id; `None` where messages have none in JSON.
    own: Option<Bytes>,
    message: Bytes,
    since: Tick,
}

/// What both directions know.
#[derive(Default)]
struct Desk {
    open: BTreeMap<u64, Open>,
    /// Calls that wait for the server to be started again.
    parked: BTreeMap<u64, Open>,
    last: u64,
    /// Whether the client has said all that it will say.
    is_over: bool,
    /// Why its messages cannot be read any more.
    wrong: Option<String>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Told whenever a call is answered.
    answered: Condvar,
    mouth: Mutex<Mouth>,
    joined: Joined,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mouth(&self) -> MutexGuard<'_, Mouth> {
        self.mouth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connect {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client("connect")?;
        let joined = Joined::find(&client, &self.name)?;
        let codec = Codec::new(&joined.port.framing, joined.port.max_frame);
        let codec = Arc::new(codec.map_err(|error| Failure::Broken(format!("cannot {error}")))?);
        let (mouth, ear) = joined.begin(&client, "wharf connect")?;
        let desk = Mutex::new(Desk { last: FIRST, ..Desk::default() });
        let (answered, mouth) = (Condvar::new(), Mutex::new(mouth));
        let shared = Arc::new(Shared { desk, answered, mouth, joined });
        let listener = (Arc::clone(&shared), Arc::clone(&codec));
        let listen = move || listen(&listener.0, &listener.1);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(listen)
            .map_err(|source| Failure::Io { doing: "read standard input", source })?;
        let mut teller = Teller { context, shared: &shared, codec: &codec, out: Out::new() };
        teller.serve(&client, ear)
    }
}

/// Passes on what the client says, until it has said all.
fn listen(shared: &Shared, codec: &Codec) {
    let mut decoder = Decoder::new(codec);
    let mut buffer = vec![0; 64 << 10];
    let mut input = std::io::stdin().lock();
    let wrong = loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => {
                break match decoder.finish(codec) {
                    Ok(Some(message)) if !message.payload.is_empty() => {
                        pass_on(shared, vec![message.payload]);
                        None
                    }
                    Ok(_) => None,
                    Err(error) => Some(error.to_string()),
                };
            }
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => break Some(format!("standard input cannot be read: {error}")),
        };
        let mut messages = Vec::new();
        let read = decoder.push(codec, &buffer[..count], &mut |message| {
            messages.push(message.payload);
        });
        if pass_on(shared, messages) {
            break None;
        }
        if let Err(error) = read {
            break Some(error.to_string());
        }
    };
    let mut desk = shared.desk();
    desk.is_over = true;
    desk.wrong = wrong;
    let idle = desk.open.is_empty() && desk.parked.is_empty();
    let over = idle || desk.wrong.is_some();
    drop(desk);
    if over {
        shared.mouth().hang_up();
    }
}

/// Says messages of the client to the port. Whether it took its leave with one of them.
fn pass_on(shared: &Shared, messages: Vec<Bytes>) -> bool {
    let mut frames = Vec::new();
    let mut left = false;
    for message in messages {
        let target = &shared.joined.target;
        match meaning(&shared.joined, &message) {
            Meaning::Call(own) => {
                let id = {
                    let mut desk = wait_for_room(shared, &mut frames);
                    desk.last += 1;
                    let id = desk.last;
                    let open = Open { own, message: message.clone(), since: clock::now() };
                    desk.open.insert(id, open);
                    id
                };
                frames.push(wire::call(target, id, message));
            }
            Meaning::Send => frames.push(wire::data(target, message)),
            Meaning::Leave => {
                left = true;
                break;
            }
        }
    }
    say(shared, &mut frames);
    left
}

/// Waits until another call may be made; what has been collected is said before that.
fn wait_for_room<'a>(shared: &'a Shared, frames: &mut Vec<Frame>) -> MutexGuard<'a, Desk> {
    let most = match shared.joined.port.replies {
        Replies::Id(_) | Replies::Prefix { .. } => MANY,
        _ => FEW,
    };
    let mut desk = shared.desk();
    while desk.open.len() + desk.parked.len() >= most {
        if frames.is_empty() {
            desk = shared.answered.wait(desk).unwrap_or_else(PoisonError::into_inner);
        } else {
            drop(desk);
            say(shared, frames);
            desk = shared.desk();
        }
    }
    desk
}

fn say(shared: &Shared, frames: &mut Vec<Frame>) {
    if !frames.is_empty() {
        // A manager that is gone is noticed by who listens to it, who has the calls answered.
        let _ = shared.mouth().say(frames);
        frames.clear();
    }
}

/// What a message of the client is to the port.
enum Meaning {
    /// It is answered; the id that its caller gave it.
    Call(Option<Bytes>),
    Send,
    /// It is the client's last word, and nobody else's business.
    Leave,
}

fn meaning(joined: &Joined, message: &Bytes) -> Meaning {
    let Some(ids) = &joined.ids else {
        return match joined.port.replies {
            Replies::None => Meaning::Send,
            // Of MessagePack-RPC: a list that begins with 0 is a request.
            Replies::Id(_) if joined.port.framing == Framing::Msgpack => match message.get(1) {
                Some(0) => Meaning::Call(None),
                _ => Meaning::Send,
            },
            _ => Meaning::Call(None),
        };
    };
    let ends = |method: &String| {
        joined.port.handshake.as_ref().is_some_and(|words| words.end.contains(method))
    };
    match ids.read(message) {
        Letter::Request { id, .. } => Meaning::Call(Some(Bytes::copy_from_slice(&message[id]))),
        Letter::Notification { method } if ends(&method) => Meaning::Leave,
        Letter::Answer { .. } | Letter::Notification { .. } | Letter::Other => Meaning::Send,
    }
}

/// Tells the client what comes from the manager.
struct Teller<'a> {
    context: &'a Context,
    shared: &'a Shared,
    codec: &'a Codec,
    out: Out,
}

impl Teller<'_> {
    fn serve(&mut self, client: &Client, mut ear: Ear) -> Result<u8, Failure> {
        loop {
            if !ear.has_more() {
                self.out.flush()?;
            }
            match ear.next(self.patience())? {
                Heard::Frame(frame) => self.take(&frame)?,
                Heard::Nothing => self.give_up_parked()?,
                Heard::End => {
                    let mut desk = self.shared.desk();
                    if let Some(wrong) = desk.wrong.take() {
                        return Err(Failure::Broken(format!(
                            "what came in is no message: {wrong}"
                        )));
                    }
                    if desk.is_over && desk.open.is_empty() && desk.parked.is_empty() {
                        break;
                    }
                    drop(desk);
                    self.lose_all("the manager is gone")?;
                    self.out.flush()?;
                    // Where its guardian lives there will be another.
                    let (mouth, again) = self.shared.joined.begin(client, "wharf connect")?;
                    *self.shared.mouth() = mouth;
                    ear = again;
                }
            }
            let desk = self.shared.desk();
            if desk.is_over && desk.open.is_empty() && desk.parked.is_empty() {
                break;
            }
        }
        self.out.flush()?;
        Ok(OK)
    }

    fn take(&mut self, frame: &Frame) -> Result<(), Failure> {
        match frame.kind {
            Kind::Reply => {
                self.write(frame.payload.clone())?;
                if !wire::has_more(frame) {
                    self.close(frame.id);
                }
            }
            Kind::Data => self.write(frame.payload.clone())?,
            Kind::Error => self.failed(frame)?,
            Kind::Ready => self.speak_again()?,
            Kind::Down => {
                if let Ok(down) = frame.read::<Down>()
                    && !down.late
                {
                    self.context.say(&format!("wharf: {}", down.msg));
                }
            }
            Kind::Missed => {
                let missed = frame.read::<Missed>().map_or(0, |missed| missed.frames);
                self.context.say(&format!("wharf: {missed} messages were not read in time"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes a message to the client, in the port's framing.
    fn write(&mut self, message: Bytes) -> Result<(), Failure> {
        let frame = self.codec.encode(message);
        let frame = frame.map_err(|error| Failure::Broken(format!("cannot {error}")))?;
        for piece in frame.into_pieces() {
            self.out.bytes(&piece)?;
        }
        Ok(())
    }

    fn close(&self, id: u64) -> Option<Open> {
        let mut desk = self.shared.desk();
        let open = desk.open.remove(&id);
        self.shared.answered.notify_all();
        open
    }

    /// Something could not be done: a call waits where the server will be back, or has an error.
    fn failed(&mut self, frame: &Frame) -> Result<(), Failure> {
        let told: Told = frame.read().map_err(|error| Failure::Broken(error.to_string()))?;
        if frame.id < FIRST {
            if frame.id == wire::MONITOR {
                return Err(Failure::Broken(told.message));
            }
            self.context.say(&format!("wharf: {}", told.message));
            return Ok(());
        }
        let Some(open) = self.close(frame.id) else { return Ok(()) };
        let since = clock::now().since(open.since);
        if will_be_back(&told) && since < self.shared.joined.port.timeout {
            self.shared.desk().parked.insert(frame.id, open);
            return Ok(());
        }
        self.refuse(&open, &told)
    }

    /// Answers a call with an error.
    fn refuse(&mut self, open: &Open, told: &Told) -> Result<(), Failure> {
        let Some(own) = &open.own else {
            // No other protocol has words for it: it is what a server that ended would look like.
            self.out.flush()?;
            return Err(Failure::Broken(told.message.clone()));
        };
        let id = String::from_utf8_lossy(own);
        let mut data = told.data.as_deref().cloned().unwrap_or_else(|| json!({}));
        if let Value::Object(fields) = &mut data {
            fields.insert("code".to_owned(), told.code.clone().into());
        }
        let error = json!({ "code": SERVER_ERROR, "message": told.message, "data": data });
        self.write(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}").into())
    }

    /// The server runs again: what waited for it is said.
    fn speak_again(&mut self) -> Result<(), Failure> {
        let mut frames = Vec::new();
        {
            let mut desk = self.shared.desk();
            for (id, open) in std::mem::take(&mut desk.parked) {
                frames.push(wire::call(&self.shared.joined.target, id, open.message.clone()));
                desk.open.insert(id, open);
            }
        }
        if frames.is_empty() { Ok(()) } else { self.shared.mouth().say(&frames) }
    }

    /// How long the first of the waiting calls may still wait.
    fn patience(&self) -> Option<Duration> {
        let limit = self.shared.joined.port.timeout;
        let desk = self.shared.desk();
        let first = desk.parked.values().map(|open| open.since).min()?;
        Some((first + limit).since(clock::now()).max(Duration::from_millis(1)))
    }

    fn give_up_parked(&mut self) -> Result<(), Failure> {
        let (limit, now) = (self.shared.joined.port.timeout, clock::now());
        let late: Vec<_> = {
            let mut desk = self.shared.desk();
            let (late, parked): (BTreeMap<_, _>, _) = std::mem::take(&mut desk.parked)
                .into_iter()
                .partition(|(_, open)| now.since(open.since) >= limit);
            desk.parked = parked;
            late.into_iter().collect()
        };
        let text = format!("{} was not back in time", self.shared.joined.target);
        self.lose(&late, "timed_out", &text)
    }

    fn lose_all(&mut self, why: &str) -> Result<(), Failure> {
        let mut desk = self.shared.desk();
        let mut all = std::mem::take(&mut desk.open);
        all.append(&mut desk.parked);
        drop(desk);
        self.lose(&all.into_iter().collect::<Vec<_>>(), "shutting_down", why)
    }

    fn lose(&mut self, lost: &[(u64, Open)], code: &str, why: &str) -> Result<(), Failure> {
        self.shared.answered.notify_all();
        let told = Told {
            code: code.to_owned(),
            message: why.to_owned(),
            data: None,
            retry: crate::message::Retry::Unsafe,
        };
        lost.iter().try_for_each(|(_, open)| self.refuse(open, &told))
    }
}

/// Whether a call that failed so was never heard, by a server that is being started again.
fn will_be_back(told: &Told) -> bool {
    let field = |name: &str| told.data.as_ref()?.get(name)?.as_str().map(str::to_owned);
    match &*told.code {
        "ended" => field("read").is_some_and(|read| read == "never_read"),
        "not_running" => field("state").is_some_and(|state| {
            matches!(&*state, "waiting" | "starting" | "running" | "stopping" | "backoff")
        }),
        _ => false,
    }
}
