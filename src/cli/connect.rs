//! `wharf connect`: a program that speaks a port's own protocol on its standard input and output, so
//! that a client which expects to launch a server is pointed at one that runs already.
//!
//! It decides nothing about the port: ids, turns and handshakes are the manager's. What it adds is
//! patience while the server is being started again, and an answer to every request that got none.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::batch::{self, Batch};
use super::client::Client;
use super::context::Context;
use super::failure::{FAILED, Failure, OK};
use super::joined::{Joined, Meaning};
use super::out::{self, Out};
use super::requests::{Asked, Requests};
use super::wire::{self, Ear, Heard, Mouth};
use crate::framing::{Codec, Decoder, FramingError};
use crate::message::{Down, Failure as Told, Frame, Kind, Missed, Retry};
use crate::name::Target;
use crate::os::clock;
use crate::spec::Replies;
use crate::time::Tick;

/// How many calls are with the manager at once where replies come in any order …
const MANY: usize = 256;
/// … and where they come one after the other.
const FEW: usize = 32;
/// What the manager's records say who asks.
const COMMAND: &str = "wharf connect";
/// The first id of a call.
const FIRST: u64 = wire::MONITOR + 1;
/// What JSON-RPC leaves to servers for errors of their own.
const SERVER_ERROR: i32 = -32000;

/// Speak a port's own protocol on standard input and output
///
/// For a client that launches a server and talks to its standard input and output: an editor, an MCP
/// client, git with a filter. Give it this command in the server's place, and all of them share the one server that the
/// manager runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf connect pyright
  wharf connect everything/1
  git config filter.lfs.process 'wharf -f /srv/services.yaml connect lfs'")]
pub(super) struct Connect {
    /// A service with a port, or a single replica; of several, the least busy one is kept to
    #[arg(value_name = "NAME[/R]")]
    name: Target,
}

/// A call that has not been answered.
#[derive(Clone)]
struct Open {
    /// Its caller's id; `None` where messages have none in JSON.
    own: Option<Bytes>,
    /// The list that it came in, by its number.
    batch: Option<u64>,
    message: Bytes,
    since: Tick,
    /// Whether a part of its reply has been passed on.
    is_begun: bool,
}

impl Open {
    fn new(own: Option<Bytes>, batch: Option<u64>, message: Bytes) -> Self {
        Self { own, batch, message, since: clock::now(), is_begun: false }
    }
}

/// What both directions know.
#[derive(Default)]
struct Desk {
    open: BTreeMap<u64, Open>,
    /// Calls that wait for the server to be started again.
    parked: BTreeMap<u64, Open>,
    /// Lists of messages that are answered with a list.
    batches: BTreeMap<u64, Batch>,
    last: u64,
    /// Whether the client has said all that it will say …
    is_over: bool,
    /// … and the manager has done something about all of it.
    is_heard: bool,
    /// Whether something could not be said to the port.
    failed: bool,
    /// Why nothing more is taken from it.
    wrong: Option<String>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Told whenever a call is answered.
    answered: Condvar,
    mouth: Mutex<Mouth>,
    /// Where the client hears us.
    out: Mutex<Out>,
    /// Whether it has heard anything.
    has_heard: AtomicBool,
    codec: Codec,
    joined: Joined,
    /// The largest message that the manager takes, in bytes.
    largest: u64,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mouth(&self) -> MutexGuard<'_, Mouth> {
        self.mouth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a message to the client, in the port's framing.
    fn write(&self, message: Bytes) -> Result<(), Failure> {
        self.has_heard.store(true, Ordering::Relaxed);
        let frame = self.codec.encode(message);
        let frame = frame.map_err(|error| Failure::Broken(format!("cannot {error}")))?;
        let mut out = self.out();
        frame.into_pieces().iter().try_for_each(|piece| out.bytes(piece))
    }

    /// Writes an answer, or keeps it until the others of its list are there.
    fn tell(&self, batch: Option<u64>, answer: Bytes) -> Result<(), Failure> {
        let Some(batch) = batch else { return self.write(answer) };
        let whole = {
            let mut desk = self.desk();
            let whole = desk.batches.get_mut(&batch).and_then(|one| one.answered(answer));
            if whole.is_some() {
                desk.batches.remove(&batch);
            }
            whole
        };
        whole.map_or(Ok(()), |whole| self.write(whole))
    }

    /// Answers a call with an error.
    fn refuse(&self, open: &Open, told: &Told) -> Result<(), Failure> {
        let Some(own) = &open.own else {
            let between = self.has_heard.load(Ordering::Relaxed) && !open.is_begun;
            if let (Replies::Sections { error: Some(error), .. }, true) =
                (&self.joined.port.replies, between)
            {
                out::say(&format!("wharf: {}", told.message));
                return self.write(Bytes::copy_from_slice(error.as_bytes()));
            }
            // No other protocol has words for it: it is what a server that ended would look like.
            self.out().flush()?;
            return Err(Failure::Broken(told.message.clone()));
        };
        let id = String::from_utf8_lossy(own);
        let mut data = told.data.as_deref().cloned().unwrap_or_else(|| json!({}));
        if let Value::Object(fields) = &mut data {
            fields.insert("code".to_owned(), told.code.clone().into());
        }
        let error = json!({ "code": SERVER_ERROR, "message": told.message, "data": data });
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}");
        self.tell(open.batch, answer.into())
    }
}

impl Connect {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client("connect")?;
        let joined = Joined::find(&client, &self.name)?;
        let codec = Codec::new(&joined.port.framing, joined.port.max_frame);
        let codec = codec.map_err(|error| Failure::Broken(format!("cannot {error}")))?;
        let (mouth, ear) = joined.begin(&client, COMMAND, hears(&joined))?;
        let requests = Requests::of(&joined.port, mouth.largest())?;
        let desk = Mutex::new(Desk { last: FIRST, ..Desk::default() });
        let largest = mouth.largest();
        let (answered, mouth, out) = (Condvar::new(), Mutex::new(mouth), Mutex::new(Out::new()));
        let has_heard = AtomicBool::new(false);
        let shared =
            Arc::new(Shared { desk, answered, mouth, out, has_heard, codec, joined, largest });
        let listener = Arc::clone(&shared);
        let listen = move || listen(&listener, requests);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(listen)
            .map_err(|source| Failure::Io { doing: "read standard input", source })?;
        let mut teller = Teller { context, shared: &shared };
        teller.serve(&client, ear)
    }
}

/// Passes on what the client says, until it has said all.
fn listen(shared: &Shared, mut requests: Requests) {
    let codec = &shared.codec;
    let mut decoder = Decoder::new(codec);
    let mut buffer = vec![0; 64 << 10];
    let mut input = std::io::stdin().lock();
    let wrong = loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => {
                break match decoder.finish(codec) {
                    Ok(Some(message)) if !message.payload.is_empty() => {
                        let asked = requests.take(codec, message.payload);
                        pass_on(shared, &requests, asked.into_iter().collect()).err()
                    }
                    Ok(_) => None,
                    Err(error) => Some(no_message(&error)),
                }
                .or_else(|| {
                    let cut = "what came in ended within a request";
                    requests.is_within().then(|| cut.to_owned())
                });
            }
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => break Some(format!("standard input cannot be read: {error}")),
        };
        let mut messages = Vec::new();
        let read = decoder.push(codec, &buffer[..count], &mut |message| {
            messages.extend(requests.take(codec, message.payload));
        });
        match pass_on(shared, &requests, messages) {
            Ok(false) => {}
            Ok(true) => break None,
            Err(wrong) => break Some(wrong),
        }
        if let Err(error) = read {
            break Some(no_message(&error));
        }
    };
    let mut desk = shared.desk();
    desk.is_over = true;
    desk.wrong = wrong;
    let over = desk.wrong.is_some();
    drop(desk);
    if over {
        shared.mouth().hang_up();
    } else {
        say(shared, &mut vec![ask_whether_heard()]);
    }
}

fn no_message(error: &FramingError) -> String {
    format!("what came in is no message: {error}")
}

/// It is answered when the manager has come to it, behind all that was said.
fn ask_whether_heard() -> Frame {
    Frame::new(Kind::Ping, 0, Bytes::new())
}

/// Says messages of the client to the port. Whether it took its leave with one of them; or what is
/// wrong with one that nothing can follow.
fn pass_on(shared: &Shared, requests: &Requests, messages: Vec<Asked>) -> Result<bool, String> {
    let mut frames = Vec::new();
    for asked in messages {
        let message = match asked {
            Asked::Whole(message) => message,
            Asked::TooLarge => {
                say(shared, &mut frames);
                let most = requests.largest();
                let text = format!("a request of more than {most} bytes cannot be sent");
                refuse_too_large(shared, None, None, text)?;
                continue;
            }
        };
        let Some(parts) = batch::parts(&shared.joined, &message) else {
            if pass(shared, message, None, &mut frames)? {
                say(shared, &mut frames);
                return Ok(true);
            }
            continue;
        };
        let number = {
            let mut desk = shared.desk();
            desk.last += 1;
            let number = desk.last;
            desk.batches.extend(Batch::of(&shared.joined, &parts).map(|batch| (number, batch)));
            number
        };
        for part in parts {
            if pass(shared, part, Some(number), &mut frames)? {
                say(shared, &mut frames);
                return Ok(true);
            }
        }
    }
    say(shared, &mut frames);
    Ok(false)
}

/// Adds a message of the client to what is to be said. Whether it took its leave with it.
fn pass(
    shared: &Shared,
    message: Bytes,
    batch: Option<u64>,
    frames: &mut Vec<Frame>,
) -> Result<bool, String> {
    let target = &shared.joined.target;
    let fits = u64::try_from(message.len()).is_ok_and(|size| size <= shared.largest);
    let meaning = shared.joined.meaning(&message);
    if !fits && meaning != Meaning::Leave {
        let (size, most) = (message.len(), shared.largest);
        let text = format!("the message has {size} bytes, {most} are allowed");
        match meaning {
            Meaning::Call(own) => {
                say(shared, frames);
                refuse_too_large(shared, own, batch, text)?;
            }
            Meaning::Send | Meaning::Leave => out::say(&format!("wharf: {text}; it is dropped")),
        }
        return Ok(false);
    }
    match meaning {
        Meaning::Call(own) => {
            let id = {
                let mut desk = wait_for_room(shared, frames);
                desk.last += 1;
                let id = desk.last;
                desk.open.insert(id, Open::new(own, batch, message.clone()));
                id
            };
            frames.push(wire::call(target, id, message));
        }
        Meaning::Send => frames.push(wire::data(target, message)),
        Meaning::Leave => return Ok(true),
    }
    Ok(false)
}

/// Answers a call that is larger than the port or the manager takes: where answers have no ids, once all
/// before it are there.
fn refuse_too_large(
    shared: &Shared,
    own: Option<Bytes>,
    batch: Option<u64>,
    message: String,
) -> Result<(), String> {
    if own.is_none() {
        let mut desk = shared.desk();
        while !desk.open.is_empty() || !desk.parked.is_empty() {
            desk = shared.answered.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }
    let told = Told { code: "too_large".to_owned(), message, data: None, retry: Retry::Never };
    let open = Open::new(own, batch, Bytes::new());
    let refused = shared.refuse(&open, &told).and_then(|()| shared.out().flush());
    refused.map_err(|failure| failure.to_string())
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

/// Whether a client hears what the program says of itself: between packets nothing else may stand.
fn hears(joined: &Joined) -> bool {
    !matches!(joined.port.replies, Replies::Sections { .. })
}

/// Tells the client what comes from the manager.
struct Teller<'a> {
    context: &'a Context,
    shared: &'a Arc<Shared>,
}

impl Teller<'_> {
    fn serve(&mut self, client: &Client, mut ear: Ear) -> Result<u8, Failure> {
        loop {
            if !ear.has_more() {
                self.shared.out().flush()?;
            }
            match ear.next(self.patience())? {
                Heard::Frame(frame) => self.take(&frame)?,
                Heard::Nothing => self.give_up_parked()?,
                Heard::End => {
                    let mut desk = self.shared.desk();
                    if let Some(wrong) = desk.wrong.take() {
                        return Err(Failure::Broken(wrong));
                    }
                    if desk.is_over && desk.open.is_empty() && desk.parked.is_empty() {
                        break;
                    }
                    drop(desk);
                    self.lose_all("the manager is gone")?;
                    self.shared.out().flush()?;
                    // Where its guardian lives there will be another.
                    let joined = &self.shared.joined;
                    let (mouth, again) = joined.begin(client, COMMAND, hears(joined))?;
                    *self.shared.mouth() = mouth;
                    ear = again;
                    if self.shared.desk().is_over {
                        say(self.shared, &mut vec![ask_whether_heard()]);
                    }
                }
            }
            let desk = self.shared.desk();
            if desk.is_heard && desk.open.is_empty() && desk.parked.is_empty() {
                break;
            }
        }
        self.shared.out().flush()?;
        Ok(if self.shared.desk().failed { FAILED } else { OK })
    }

    fn take(&mut self, frame: &Frame) -> Result<(), Failure> {
        match frame.kind {
            Kind::Reply => {
                if wire::has_more(frame) {
                    if let Some(open) = self.shared.desk().open.get_mut(&frame.id) {
                        open.is_begun = true;
                    }
                    return self.shared.write(frame.payload.clone());
                }
                // Written before it counts as answered: with the last one we may end.
                let batch = self.shared.desk().open.get(&frame.id).and_then(|open| open.batch);
                self.shared.tell(batch, frame.payload.clone())?;
                self.close(frame.id);
            }
            Kind::Data => self.shared.write(frame.payload.clone())?,
            Kind::Error => self.failed(frame)?,
            Kind::Pong => self.shared.desk().is_heard = true,
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

    /// A call has its answer.
    fn close(&self, id: u64) {
        let mut desk = self.shared.desk();
        desk.open.remove(&id);
        desk.parked.remove(&id);
        self.shared.answered.notify_all();
    }

    /// Something could not be done: a call waits where the server will be back, or has an error.
    fn failed(&mut self, frame: &Frame) -> Result<(), Failure> {
        let told: Told = frame.read().map_err(|error| Failure::Broken(error.to_string()))?;
        if frame.id < FIRST {
            if frame.id == wire::MONITOR {
                return Err(Failure::Broken(told.message));
            }
            self.shared.desk().failed = true;
            self.context.say(&format!("wharf: {}", told.message));
            return Ok(());
        }
        let open = {
            let mut desk = self.shared.desk();
            let Some(open) = desk.open.get(&frame.id).cloned() else { return Ok(()) };
            let since = clock::now().since(open.since);
            if will_be_back(&told) && since < self.shared.joined.port.timeout {
                desk.open.remove(&frame.id);
                desk.parked.insert(frame.id, open);
                return Ok(());
            }
            open
        };
        self.shared.refuse(&open, &told)?;
        self.close(frame.id);
        Ok(())
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
        if frames.is_empty() {
            return Ok(());
        }
        // Not by us: the manager may take nothing more before we have heard what it says.
        let shared = Arc::clone(self.shared);
        std::thread::Builder::new()
            .name("again".to_owned())
            .spawn(move || say(&shared, &mut frames))
            .map(drop)
            .map_err(|source| Failure::Io { doing: "start a thread", source })
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
        let mut late = self.shared.desk().parked.clone();
        late.retain(|_, open| now.since(open.since) >= limit);
        let text = format!("{} was not back in time", self.shared.joined.target);
        self.lose(&late, "timed_out", &text)
    }

    fn lose_all(&mut self, why: &str) -> Result<(), Failure> {
        let all = {
            let desk = self.shared.desk();
            let both = desk.open.iter().chain(&desk.parked);
            both.map(|(id, open)| (*id, open.clone())).collect()
        };
        self.lose(&all, "shutting_down", why)
    }

    fn lose(&self, lost: &BTreeMap<u64, Open>, code: &str, why: &str) -> Result<(), Failure> {
        let (code, message) = (code.to_owned(), why.to_owned());
        let told = Told { code, message, data: None, retry: Retry::Unsafe };
        for (id, open) in lost {
            self.shared.refuse(open, &told)?;
            self.close(*id);
        }
        Ok(())
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
