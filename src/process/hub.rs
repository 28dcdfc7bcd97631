//! The hub of a family: one thread of its first process, which makes every process and buries every one.
//!
//! It knows who lives, who watches whom and who has which name; no message between processes passes through
//! it. It never waits for anybody but in its one call to the poller, and every queue towards a process is bounded: who
//! does not read what it asked for is not heard any further.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Came, Channel};
use super::member::{Birth, Child, Instead, Member};
use super::wire::{Start, THE_CALL, Welcome};
use crate::exit::{Cause, Errno, How, Signal, Stage};
use crate::mailbox::{Exit, Lives, Notice};
use crate::message::{Frame, Hello, Kind, Payloads, Peer};
use crate::name::{Incarnation, Realm};
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::executable::Executable;
use crate::os::spawn::{Landing, Launch, Stacks, Started};
use crate::os::{clock, fds, signal, wait};
use crate::time::Tick;

/// The first process of a family has this incarnation.
pub(super) const FIRST: u64 = 1;

/// The word after the name in the command line of a native process; its incarnation follows.
pub(super) const MARK: &str = "wharf-native-process";

/// How many ends are remembered for those who ask late, and how many bytes of results and words.
const REMEMBERED: usize = 4096;
const REMEMBERED_BYTES: usize = 16 << 20;
/// How long a process may take until it runs its function.
const START: Duration = Duration::from_secs(30);
/// How long the others may take to die when the first one ends. They are killed, so only the kernel can hold them up.
const FAREWELL: Duration = Duration::from_secs(10);
/// Of a process with more than this waiting to be read by it, nothing more is heard, in bytes.
const UNREAD: usize = 1 << 20;
/// One read.
const READ: usize = 64 << 10;
/// So many reads of one process in a turn, so that nobody talks the others down.
const READS: usize = 4;

/// What a hub begins with.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) realm: Realm,
    pub(super) executable: Arc<Executable>,
    /// What every process of the family gets.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The mask of file modes that every process of the family gets.
    pub(super) umask: u32,
    /// The hub's end of the first process's channel.
    pub(super) first: OwnedFd,
}

/// The hub.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) setting: Surroundings,
    poller: Poller,
    stacks: Stacks,
    pub(super) members: HashMap<u64, Member>,
    pub(super) lives: Lives<Arc<Exit>>,
    pub(super) names: HashMap<String, u64>,
    next: u64,
    buffer: Vec<u8>,
    /// Since when the family is ending.
    ending: Option<Tick>,
}

/// What does not change.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) realm: Realm,
    executable: Arc<Executable>,
    environment: Vec<(OsString, OsString)>,
    umask: u32,
    nothing: OwnedFd,
}

/// What a token stands for, beside the incarnation in its upper bits.
const CHANNEL: u64 = 0;
const PIDFD: u64 = 1;
const FLIGHT: u64 = 2;

fn token(who: u64, what: u64) -> u64 {
    who << 2 | what
}

impl Hub {
    pub(super) fn new(setting: Setting) -> io::Result<Self> {
        let Setting { realm, executable, environment, umask, first } = setting;
        let nothing = std::fs::File::open("/dev/null")?.into();
        let mut hub = Self {
            setting: Surroundings { realm, executable, environment, umask, nothing },
            poller: Poller::new()?,
            stacks: Stacks::default(),
            members: HashMap::new(),
            lives: Lives::new(REMEMBERED, REMEMBERED_BYTES),
            names: HashMap::new(),
            next: FIRST + 1,
            buffer: vec![0; READ],
            ending: None,
        };
        hub.members.insert(FIRST, Member::new(Channel::new(first), None, None));
        hub.lives.born(Incarnation(FIRST));
        hub.watch(FIRST);
        Ok(hub)
    }

    /// Serves until the first process has closed its channel and all others are gone.
    pub(super) fn serve(mut self) {
        // It fails for no set of signals that exists.
        let _ = signal::block_all();
        let mut ready = Ready::new(128);
        loop {
            let now = clock::now();
            if self.is_over(now) {
                return;
            }
            if self.poller.wait(&mut ready, self.patience(now)).is_err() {
                continue;
            }
            let tokens: Vec<u64> = ready.tokens().collect();
            for token in tokens {
                let who = token >> 2;
                match token & 3 {
                    CHANNEL => self.hear(who),
                    PIDFD => self.ended(who),
                    _ => self.land(who),
                }
            }
            self.overdue(clock::now());
        }
    }

    fn is_over(&self, now: Tick) -> bool {
        let Some(since) = self.ending else { return false };
        let left = self.members.values().any(|member| member.child.is_some());
        !left || now.since(since) > FAREWELL
    }

    fn patience(&self, now: Tick) -> Option<Duration> {
        if self.ending.is_some() {
            return Some(FAREWELL);
        }
        let births = self.members.values().filter_map(|member| member.birth.as_ref());
        births.map(|birth| birth.deadline.since(now)).min()
    }

    /// Watches a process's channel for what is of interest now.
    fn watch(&mut self, who: u64) {
        let Some(member) = self.members.get_mut(&who) else { return };
        let waiting = member.channel.waiting();
        let wanted = match (waiting == 0, waiting > UNREAD) {
            (true, _) => Interest::Read,
            (false, false) => Interest::Both,
            (false, true) => Interest::Write,
        };
        let fd = member.channel.as_fd();
        let watched = match member.watched {
            Some(now) if now == wanted => Ok(()),
            Some(_) => self.poller.change(fd, token(who, CHANNEL), wanted),
            None => self.poller.add(fd, token(who, CHANNEL), wanted),
        };
        if watched.is_ok() {
            member.watched = Some(wanted);
        }
    }

    /// Sends a frame to a process; what there is no room for waits.
    pub(super) fn tell(&mut self, who: u64, frame: &Frame, fds: Vec<OwnedFd>) {
        let Some(member) = self.members.get_mut(&who) else { return };
        if member.channel.queue(frame, fds).is_err() {
            // Of all that is sent here only an end with its value can be too large for a frame.
            let failure =
                super::requests::failure("too_large", "the answer is larger than a frame");
            let _ = member.channel.queue(&Frame::failure(frame.id, &failure), Vec::new());
        }
        member.channel.flush();
        if member.watched.is_some() {
            self.watch(who);
        }
    }

    /// Something came from a process, or there is room towards it again.
    fn hear(&mut self, who: u64) {
        if let Some(member) = self.members.get_mut(&who) {
            member.channel.flush();
        }
        for _ in 0..READS {
            match self.read(who) {
                Came::Bytes(READ) => {}
                Came::Bytes(_) | Came::Nothing => break,
                Came::End => return self.closed(who),
            }
        }
        self.watch(who);
    }

    /// Reads once and does what was said.
    fn read(&mut self, who: u64) -> Came {
        let Some(member) = self.members.get_mut(&who) else { return Came::Nothing };
        let mut frames = Vec::new();
        let came = member.channel.read(&mut self.buffer, |frame| frames.push(frame));
        for frame in frames {
            self.heard(who, frame);
        }
        came.unwrap_or_else(|error| {
            self.broke(who, error.to_string());
            Came::End
        })
    }

    /// What a process sends is not what it should be: it is killed.
    pub(super) fn broke(&mut self, who: u64, what: String) {
        if let Some(member) = self.members.get_mut(&who) {
            member.instead.get_or_insert(Instead::Broke(what));
        }
        self.kill(who, Cause::Spontaneous);
    }

    /// A process has closed its channel. That of the first one is the end of all; any other is about to end, or has
    /// become another program, which is its own affair.
    fn closed(&mut self, who: u64) {
        let Some(member) = self.members.get_mut(&who) else { return };
        if member.watched.take().is_some() {
            let _ = self.poller.remove(member.channel.as_fd());
        }
        if who == FIRST {
            self.finish();
        }
    }

    /// Ends the family: everybody is killed.
    fn finish(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(clock::now());
        let all: Vec<u64> = self.members.keys().copied().filter(|who| *who != FIRST).collect();
        for who in all {
            self.kill(who, Cause::ParentDied);
        }
    }

    /// Kills a process; the first reason counts.
    pub(super) fn kill(&mut self, who: u64, cause: Cause) {
        self.strike(who, cause, None);
    }

    fn strike(&mut self, who: u64, cause: Cause, because: Option<Incarnation>) {
        let Some(member) = self.members.get_mut(&who) else { return };
        if member.cause == Cause::Spontaneous {
            member.cause = cause;
        }
        match &member.child {
            Some(child) => {
                let _ = signal::send(child.pidfd.as_fd(), Signal::KILL);
            }
            // The first process: all others go first, and then it does.
            None => self.give_up(cause, because),
        }
    }

    /// The first process itself is to end because of what happened to another one.
    fn give_up(&mut self, cause: Cause, because: Option<Incarnation>) {
        let end = because.and_then(|who| self.lives.end(who)).cloned();
        let why = match (cause, end) {
            (Cause::Linked, Some(exit)) => {
                format!("the first process is linked to one that {exit}")
            }
            (Cause::Linked, None) => {
                "the first process is linked to one that is not there".to_owned()
            }
            (Cause::SignalRequested, _) => "the first process was to be killed".to_owned(),
            _ => "the first process broke the protocol of its hub".to_owned(),
        };
        // There is nobody else to tell.
        super::run::say(&format!("{why}; all processes of this program end"));
        self.finish();
        let mut ready = Ready::new(128);
        while !self.is_over(clock::now()) {
            let _ = self.poller.wait(&mut ready, Some(FAREWELL));
            let tokens: Vec<u64> = ready.tokens().collect();
            for token in tokens.into_iter().filter(|token| token & 3 != CHANNEL) {
                if token & 3 == PIDFD { self.ended(token >> 2) } else { self.land(token >> 2) }
            }
        }
        std::process::exit(1)
    }

    /// Those that are late are killed.
    fn overdue(&mut self, now: Tick) {
        let late =
            |member: &Member| member.birth.as_ref().is_some_and(|birth| birth.deadline <= now);
        let late: Vec<u64> =
            self.members.iter().filter(|(_, member)| late(member)).map(|(who, _)| *who).collect();
        for who in late {
            if let Some(birth) = self.members.get_mut(&who).and_then(|one| one.birth.as_mut()) {
                birth.deadline = now + FAREWELL;
            }
            self.kill(who, Cause::StartTimeout);
        }
    }

    /// Makes a process.
    pub(super) fn spawn(&mut self, parent: u64, id: u64, order: Start, arguments: Frame) {
        if self.ending.is_some() {
            return;
        }
        let who = self.next;
        self.next += 1;
        self.lives.born(Incarnation(who));
        let (channel, started) = match self.make(who, &order, arguments) {
            Ok(made) => made,
            Err((stage, errno)) => return self.stillborn(parent, id, who, stage, errno),
        };
        let Started { pid, pidfd, flight } = started;
        let watched = self
            .poller
            .add(pidfd.as_fd(), token(who, PIDFD), Interest::Read)
            .and_then(|()| self.poller.add(flight.as_fd(), token(who, FLIGHT), Interest::Read));
        let child = Child { pid, pidfd, flight: Some(flight) };
        let birth = Birth { parent, id, order, deadline: clock::now() + START };
        self.members.insert(who, Member::new(channel, Some(child), Some(birth)));
        if watched.is_err() {
            // It cannot be watched: the kernel is out of memory. Its deadline ends it.
            self.kill(who, Cause::Spontaneous);
        }
        self.watch(who);
    }

    /// Nothing of a process came into being.
    fn stillborn(&mut self, parent: u64, id: u64, who: u64, stage: Stage, errno: Errno) {
        let Ok((ours, _theirs)) = fds::stream_pair() else {
            let failure = super::requests::failure("spawn_failed", &format!("{errno}"));
            return self.tell(parent, &Frame::failure(id, &failure), Vec::new());
        };
        let mut member = Member::new(Channel::new(ours), None, None);
        let exit = Arc::new(member.end(How::NotStarted(stage, errno)));
        self.unborn(parent, id, &exit);
        self.notify(Incarnation(who), &exit);
    }

    fn make(
        &mut self,
        who: u64,
        order: &Start,
        arguments: Frame,
    ) -> Result<(Channel, Started), (Stage, Errno)> {
        let failed = |error: io::Error| (Stage::Clone, crate::os::errno_of(&error));
        let (ours, theirs) = fds::stream_pair().map_err(failed)?;
        let around = &self.setting;
        let words = [around.executable.path(), MARK.to_owned(), who.to_string()];
        let pairs =
            around.environment.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        // A NUL byte is in none of these: the environment came from the kernel, the label is made here.
        let unwritable = |_| (Stage::Exec, Errno(libc::EINVAL));
        let mut launch = Launch::new(&words, pairs).map_err(unwritable)?;
        launch.argv0(&order.label).map_err(unwritable)?;
        launch.sealed().umask(around.umask);
        let handed = [(around.nothing.as_fd(), 0), (theirs.as_fd(), 3)];
        let started = Box::new(launch).start(&handed, &mut self.stacks)?;
        let mut channel = Channel::new(ours);
        let mut hello = Hello::new("wharf", env!("CARGO_PKG_VERSION"));
        hello.enc = Payloads::Msgpack;
        hello.peer = Some(Peer { name: order.label.clone(), incarnation: who });
        let welcome = Welcome { hello, realm: around.realm, function: order.function.clone() };
        let call = Frame { kind: Kind::Call, id: THE_CALL, ..arguments };
        // The arguments came in a frame of the same size.
        let _ = channel.queue(&Frame::control(Kind::Hello, 0, &welcome), Vec::new());
        let _ = channel.queue(&call, Vec::new());
        channel.flush();
        Ok((channel, started))
    }

    /// A process has become the program, or has not.
    fn land(&mut self, who: u64) {
        let Some(child) = self.members.get_mut(&who).and_then(|member| member.child.as_mut())
        else {
            return;
        };
        let Some(flight) = child.flight.as_mut() else { return };
        let Some(landing) = flight.landed(&mut self.stacks) else { return };
        if let Some(flight) = child.flight.take() {
            let _ = self.poller.remove(flight.as_fd());
        }
        match landing {
            // How a process that was killed on the way ended, its pidfd tells.
            Landing::Executed | Landing::Died => {}
            Landing::Failed { stage, errno, .. } => {
                if let Some(member) = self.members.get_mut(&who) {
                    member.instead = Some(Instead::NotStarted(How::NotStarted(stage, errno)));
                }
            }
        }
    }

    /// A process has ended: everything it said is heard first, everybody who is to know is told, then it is
    /// buried.
    fn ended(&mut self, who: u64) {
        let Some(child) = self.members.get(&who).and_then(|member| member.child.as_ref()) else {
            return;
        };
        let how = match wait::peek(child.pidfd.as_fd()) {
            Ok(None) => return,
            Ok(Some(ended)) => ended.how,
            Err(_) => How::Unseen,
        };
        self.land(who);
        self.drain(who);
        let Some(mut member) = self.members.remove(&who) else { return };
        if member.watched.is_some() {
            let _ = self.poller.remove(member.channel.as_fd());
        }
        let exit = Arc::new(member.end(how));
        if let Some(birth) = &member.birth {
            self.unborn(birth.parent, birth.id, &exit);
        }
        self.part(who, &member, &exit);
        self.names.retain(|_, named| *named != who);
        self.notify(Incarnation(who), &exit);
        if let Some(Child { pid, pidfd, flight }) = member.child {
            // While it is not reaped nobody else can have the group's number.
            let _ = signal::send_group(pid, Signal::KILL);
            let _ = self.poller.remove(pidfd.as_fd());
            if let Some(flight) = flight {
                let _ = self.poller.remove(flight.as_fd());
            }
            let _ = wait::reap(pidfd.as_fd());
        }
    }

    /// Hears what a process that has ended had said until then, and not what somebody it left behind adds.
    fn drain(&mut self, who: u64) {
        let Some(member) = self.members.get(&who) else { return };
        let mut left = member.channel.unread();
        while left > 0 {
            match self.read(who) {
                Came::Bytes(count) => left = left.saturating_sub(count),
                Came::Nothing | Came::End => return,
            }
        }
    }

    /// Tells everybody what the end of somebody means to them.
    fn notify(&mut self, who: Incarnation, exit: &Arc<Exit>) {
        let notices = self.lives.ended(who, exit, exit.is_normal(), exit.weight());
        self.carry_out_all(notices);
    }

    /// Does what the lives of the family ask for, in order.
    pub(super) fn carry_out_all(&mut self, notices: impl IntoIterator<Item = Notice<Arc<Exit>>>) {
        for notice in notices {
            self.carry_out(notice);
        }
    }

    fn carry_out(&mut self, notice: Notice<Arc<Exit>>) {
        match notice {
            Notice::Down { to, reference, who, end, late } => {
                self.tell_end(to.0, reference, who.0, end.as_deref(), late, false);
            }
            Notice::Linked { to, who, end } => {
                self.tell_end(to.0, 0, who.0, end.as_deref(), false, true);
            }
            Notice::Kill { victim, who } => self.strike(victim.0, Cause::Linked, Some(who)),
        }
    }
}
