//! The main thread's whole life: making processes, and telling the loop how it went.
//!
//! It has a descriptor table of its own, so that a child copies and closes a handful of descriptors
//! however many programs the loop watches. Requests come through a channel, announced by an eventfd (to
//! wake by a socket would have the scheduler wait until the loop sleeps); answers go through a socket that carries the child's descriptors over to the loop's table. It never decides anything.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use crate::exit::{Errno, Signal, Stage};
use crate::guardian::Word;
use crate::name::Incarnation;
use crate::os::epoll::{Interest, Poller, Ready};
use crate::os::fds::{self, Pipe, Waker};
use crate::os::spawn::{Flight, Landing, Launch, Stacks};
use crate::os::terminal::{self, Terminal};
use crate::os::{errno_of, prctl, signal};
use crate::spec::{Channel, Port, Unbuffer};

/// One process to make.
#[derive(Debug)]
pub(super) struct Request {
    /// For which run.
    pub(super) incarnation: Incarnation,
    /// What it becomes.
    pub(super) launch: Box<Launch>,
    /// What its descriptors are.
    pub(super) wiring: Wiring,
    /// Who is to own the pipes, where the program runs as another user.
    pub(super) owner: Option<(u32, u32)>,
    /// Whether it is to outlive this manager.
    pub(super) kept: bool,
    /// The descriptor to which it writes a line when it is ready.
    pub(super) ready_fd: Option<RawFd>,
    /// What it is given besides, which was handed over before.
    pub(super) handed: Handed,
}

/// Descriptors that were handed over for one request.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// The number of the messages that brought them.
    ticket: u64,
    /// The numbers they get in the program, in the order of the messages.
    targets: Vec<RawFd>,
}

/// The loop's way to hand descriptors to the spawner, which has a table of its own: ahead of the request
/// that they are for, in messages that carry its number. What a request that was never sent left
/// behind is dropped with the next.
#[derive(Debug)]
pub(super) struct HandOver {
    socket: OwnedFd,
    ticket: u64,
}

impl HandOver {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, ticket: 0 }
    }

    /// Sends descriptors with the numbers they are to get. Fails where there is no room, rather than
    /// wait.
    pub(super) fn send(&mut self, given: &[(OwnedFd, RawFd)]) -> io::Result<Handed> {
        self.ticket += 1;
        for part in given.chunks(fds::MAX_FDS) {
            let numbers: Vec<RawFd> = part.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
            fds::try_send(self.socket.as_fd(), &self.ticket.to_le_bytes(), &numbers)?;
        }
        let targets = given.iter().map(|(_, target)| *target).collect();
        Ok(Handed { ticket: self.ticket, targets })
    }
}

/// Takes what was handed over for a request.
fn take_handed(socket: &OwnedFd, handed: Handed) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    let lost = || io::Error::from_raw_os_error(libc::EMFILE);
    let mut taken = Vec::with_capacity(handed.targets.len());
    let mut number = [0; 8];
    while taken.len() < handed.targets.len() {
        // It was sent before the request was.
        let received = fds::receive(socket.as_fd(), &mut number)?.ok_or_else(lost)?;
        if received.bytes == 0 || received.lost {
            return Err(lost());
        }
        if u64::from_le_bytes(number) == handed.ticket {
            taken.extend(received.fds);
        }
    }
    Ok(taken.into_iter().zip(handed.targets).collect())
}

/// What a program's descriptors are. Standard error is a pipe of its own in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wiring {
    /// No input; its output is a pipe.
    Server,
    /// Pipes.
    Pipes,
    /// A socket on descriptor 3; no input, and its output is a pipe.
    Socket,
    /// A terminal, that of its session.
    Terminal,
    /// Its input is a pipe, its output a terminal, for the look of it.
    Display,
    /// No input; output and error are one pipe.
    Question,
}

impl Wiring {
    /// That of a service.
    pub(super) fn of(port: Option<&Port>) -> Self {
        match port.map(|port| (port.channel, port.unbuffer)) {
            None => Self::Server,
            Some((Channel::Fd3, _)) => Self::Socket,
            Some((Channel::Pty, _)) => Self::Terminal,
            Some((Channel::Stdio, Unbuffer::Pty)) => Self::Display,
            Some((Channel::Stdio, Unbuffer::None | Unbuffer::Stdbuf)) => Self::Pipes,
        }
    }

    /// Whether its output is a terminal.
    pub(super) fn is_shown(self) -> bool {
        matches!(self, Self::Terminal | Self::Display)
    }
}

/// What the loop is told. A message is 24 bytes: incarnation, kind, three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The process exists; its descriptors come with the message, in the order pidfd, error, output,
    /// input, and standard output where that is none of the channel's; the last two where there are.
    /// Of a question: pidfd and output. What it writes to when it is ready comes last.
    Spawned { pid: i32 },
    /// There is no process: this step failed.
    Refused { stage: Stage, errno: Errno },
    /// The program runs.
    Executed,
    /// The process was killed on its way to the program.
    Died,
    /// There was a process, and this step failed in it; it has ended by itself.
    Failed { stage: Stage, errno: Errno, interpreter_missing: bool, which: u8 },
}

const MESSAGE: usize = 24;

impl Answer {
    fn encode(self, incarnation: Incarnation) -> [u8; MESSAGE] {
        let (kind, numbers) = match self {
            Self::Spawned { pid } => (0, [pid, 0, 0]),
            Self::Refused { stage, errno } => (1, [stage as i32, errno.0, 0]),
            Self::Executed => (2, [0; 3]),
            Self::Failed { stage, errno, interpreter_missing, which } => {
                let hint = i32::from(which) << 1 | i32::from(interpreter_missing);
                (3, [stage as i32, errno.0, hint])
            }
            Self::Died => (4, [0; 3]),
        };
        let mut message = [0; MESSAGE];
        message[..8].copy_from_slice(&incarnation.0.to_le_bytes());
        for (at, number) in [kind, numbers[0], numbers[1], numbers[2]].into_iter().enumerate() {
            message[8 + at * 4..12 + at * 4].copy_from_slice(&number.to_le_bytes());
        }
        message
    }

    /// Reads a message; `None` for one that this program did not write.
    pub(super) fn decode(message: &[u8]) -> Option<(Incarnation, Self)> {
        let message: &[u8; MESSAGE] = message.try_into().ok()?;
        let number =
            |at: usize| message[8 + at * 4..12 + at * 4].try_into().map_or(0, i32::from_le_bytes);
        let stage = || u8::try_from(number(1)).ok().and_then(Stage::from_number);
        let answer = match number(0) {
            0 => Self::Spawned { pid: number(1) },
            1 => Self::Refused { stage: stage()?, errno: Errno(number(2)) },
            2 => Self::Executed,
            3 => Self::Failed {
                stage: stage()?,
                errno: Errno(number(2)),
                interpreter_missing: number(3) & 1 == 1,
                which: u8::try_from(number(3) >> 1).ok()?,
            },
            4 => Self::Died,
            _ => return None,
        };
        let incarnation = Incarnation(u64::from_le_bytes(message[..8].try_into().ok()?));
        Some((incarnation, answer))
    }
}

/// The buffer a message fits in.
pub(super) const BUFFER: usize = MESSAGE;

/// Both ends of what a program reads and writes.
struct Ends {
    /// Ours, in the order of [`Answer::Spawned`].
    ours: Vec<OwnedFd>,
    /// The program's, each with the numbers it gets there.
    theirs: Vec<(OwnedFd, Vec<RawFd>)>,
}

impl Ends {
    fn new(wiring: Wiring) -> io::Result<Self> {
        let mut ends = Self { ours: Vec::new(), theirs: Vec::new() };
        if wiring != Wiring::Question {
            ends.reads(&[2])?;
        }
        match wiring {
            Wiring::Question => ends.reads(&[1, 2])?,
            Wiring::Server => ends.reads(&[1])?,
            Wiring::Pipes => {
                ends.reads(&[1])?;
                ends.writes()?;
            }
            Wiring::Socket => {
                let (ours, theirs) = fds::stream_pair()?;
                ends.both(ours, theirs, &[3])?;
                ends.reads(&[1])?;
            }
            Wiring::Terminal => {
                let Terminal { ours, theirs } = terminal::open()?;
                ends.both(ours, theirs, &[0, 1])?;
            }
            Wiring::Display => {
                let Terminal { ours, theirs } = terminal::open()?;
                ends.ours.push(ours);
                ends.theirs.push((theirs, vec![1]));
                ends.writes()?;
            }
        }
        Ok(ends)
    }

    /// A pipe that we read.
    fn reads(&mut self, places: &[RawFd]) -> io::Result<()> {
        let Pipe { read, write } = fds::pipe()?;
        self.ours.push(read);
        self.theirs.push((write, places.to_vec()));
        Ok(())
    }

    /// A pipe that the program reads.
    fn writes(&mut self) -> io::Result<()> {
        let Pipe { read, write } = fds::pipe()?;
        self.ours.push(write);
        self.theirs.push((read, vec![0]));
        Ok(())
    }

    /// Something that is read and written: two descriptors of ours, so that each can be watched and
    /// closed by itself.
    fn both(&mut self, ours: OwnedFd, theirs: OwnedFd, places: &[RawFd]) -> io::Result<()> {
        let input = fds::duplicate(&ours)?;
        self.ours.extend([ours, input]);
        self.theirs.push((theirs, places.to_vec()));
        Ok(())
    }
}

struct Spawner {
    null: File,
    /// Where what is to outlive this manager is handed over.
    guardian: OwnedFd,
    answers: OwnedFd,
    handed_over: OwnedFd,
    poller: Poller,
    stacks: Stacks,
    flights: Vec<Way>,
    /// The signals that this process ignores, which does not change.
    ignored: Arc<[i32]>,
}

/// A process on its way to the program.
struct Way {
    incarnation: Incarnation,
    flight: Flight,
    /// Whether the loop knows of it.
    told: bool,
}

/// Tokens beside the incarnations, which begin at 1 and never come that far.
const BELL: u64 = 0;
const SOCKET: u64 = u64::MAX;

/// The spawner's ends of its links to the others.
#[derive(Debug)]
pub(super) struct Links {
    /// To the loop: what became of its requests.
    pub(super) answers: OwnedFd,
    /// From the loop: descriptors that programs are given.
    pub(super) handed_over: OwnedFd,
    /// To the guardian: descriptors that are to outlive this manager.
    pub(super) guardian: OwnedFd,
}

/// Serves requests, announced by `bell`, until the loop closes its end of the socket. Must run on
/// the main thread, after all other threads were started.
pub(super) fn serve(requests: &Receiver<Request>, bell: &Waker, links: Links) -> io::Result<()> {
    prctl::unshare_descriptors()?;
    let Links { answers: socket, handed_over, guardian } = links;
    let kept = [
        socket.as_raw_fd(),
        handed_over.as_raw_fd(),
        bell.as_fd().as_raw_fd(),
        guardian.as_raw_fd(),
    ];
    fds::close_others(&kept)?;
    let poller = Poller::new()?;
    poller.add(bell.as_fd(), BELL, Interest::Read)?;
    poller.add(socket.as_fd(), SOCKET, Interest::Read)?;
    let mut spawner = Spawner {
        null: File::options().read(true).write(true).open("/dev/null")?,
        guardian,
        answers: socket,
        handed_over,
        poller,
        stacks: Stacks::default(),
        flights: Vec::new(),
        ignored: signal::all_ignored().into(),
    };
    let mut ready = Ready::new(64);
    loop {
        spawner.poller.wait(&mut ready, None)?;
        let tokens: Vec<u64> = ready.tokens().collect();
        for token in tokens {
            match token {
                BELL => {
                    bell.clear();
                    if !spawner.take_requests(requests) {
                        return Ok(());
                    }
                }
                // Nothing is ever sent this way, so the loop has closed its end.
                SOCKET => return Ok(()),
                incarnation => spawner.land(Incarnation(incarnation)),
            }
        }
    }
}

impl Spawner {
    /// Takes what is in the channel; false when the loop is gone.
    fn take_requests(&mut self, requests: &Receiver<Request>) -> bool {
        loop {
            let request = match requests.try_recv() {
                Ok(request) => request,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            let incarnation = request.incarnation;
            if let Err((stage, errno)) = self.start(request) {
                let _ = self.answer(incarnation, Answer::Refused { stage, errno }, &[]);
            }
        }
    }

    fn start(&mut self, request: Request) -> Result<(), (Stage, Errno)> {
        let failed = |error: io::Error| (Stage::Clone, errno_of(&error));
        let given = take_handed(&self.handed_over, request.handed).map_err(failed)?;
        let mut ends = Ends::new(request.wiring).map_err(failed)?;
        if let Some(number) = request.ready_fd {
            ends.reads(&[number]).map_err(failed)?;
        }
        let Ends { ours, theirs } = ends;
        if let Some((uid, gid)) = request.owner {
            theirs
                .iter()
                .try_for_each(|(fd, _)| fds::give_to(fd.as_fd(), uid, gid))
                .map_err(|error| (Stage::User, errno_of(&error)))?;
        }
        // O_NONBLOCK is a matter of each end's own description: the child's ends never have it.
        ours.iter().try_for_each(|fd| fds::set_nonblocking(fd.as_fd())).map_err(failed)?;
        if request.kept {
            // Before there is anybody who could write to them. Without an answer: what is on its way to
            // the guardian is kept by the kernel, whatever becomes of us.
            let word = Word::Store.encode(request.incarnation);
            let ours: Vec<RawFd> = ours.iter().map(AsRawFd::as_raw_fd).collect();
            fds::try_send(self.guardian.as_fd(), &word, &ours)
                .map_err(|_| (Stage::Clone, Errno(libc::EAGAIN)))?;
        }
        let places =
            theirs.iter().flat_map(|(fd, places)| places.iter().map(|place| (fd.as_fd(), *place)));
        let given = given.iter().map(|(fd, place)| (fd.as_fd(), *place));
        let mut places: Vec<_> = places.chain(given).collect();
        if places.iter().all(|(_, place)| *place != 0) {
            places.push((self.null.as_fd(), 0));
        }
        let mut launch = request.launch;
        launch.ignored_signals(Arc::clone(&self.ignored));
        let started = launch.start(&places, &mut self.stacks)?;

        let incarnation = request.incarnation;
        let mut sent: Vec<RawFd> = vec![started.pidfd.as_raw_fd()];
        sent.extend(ours.iter().map(AsRawFd::as_raw_fd));
        let told = self.answer(incarnation, Answer::Spawned { pid: started.pid }, &sent);
        if told.is_err() {
            // The kernel carries no more descriptors for this user (unix(7), ETOOMANYREFS). A process
            // that nobody watches must not be; its own way has to be seen to its end all the same.
            let _ = signal::send(started.pidfd.as_fd(), Signal::KILL);
        }
        let watched = self.poller.add(started.flight.as_fd(), incarnation.0, Interest::Read);
        let told = match (told, watched) {
            (told, Ok(())) => {
                let way = Way { incarnation, flight: started.flight, told: told.is_ok() };
                self.flights.push(way);
                told
            }
            // Without a watch on its way the start counts as done; the end will be seen all the same.
            (Ok(()), Err(_)) => self.answer(incarnation, Answer::Executed, &[]),
            (told, Err(_)) => told,
        };
        told.map_err(|_| (Stage::Clone, Errno(libc::EAGAIN)))
    }

    fn land(&mut self, incarnation: Incarnation) {
        let mut landed = None;
        for (at, way) in self.flights.iter_mut().enumerate() {
            if way.incarnation == incarnation
                && let Some(landing) = way.flight.landed(&mut self.stacks)
            {
                landed = Some((at, landing));
                break;
            }
        }
        let Some((at, landing)) = landed else { return };
        let way = self.flights.swap_remove(at);
        // A child that was made meanwhile has its end open too until it executes its program: closing ours
        // alone would leave the watch on it, and that would be ready again and again.
        let _ = self.poller.remove(way.flight.as_fd());
        if !way.told {
            return;
        }
        let answer = match landing {
            Landing::Executed => Answer::Executed,
            Landing::Died => Answer::Died,
            Landing::Failed { stage, errno, interpreter_missing, which } => {
                Answer::Failed { stage, errno, interpreter_missing, which }
            }
        };
        // Without descriptors it fails only where the loop is gone.
        let _ = self.answer(incarnation, answer, &[]);
    }

    /// Tells the loop. It waits where the socket is full: the loop always reads it before anything
    /// that could wait for us. A loop that is gone needs no answer.
    fn answer(&self, incarnation: Incarnation, answer: Answer, sent: &[RawFd]) -> io::Result<()> {
        fds::send(self.answers.as_fd(), &answer.encode(incarnation), sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_reaches_its_own_request() {
        let (here, there) = fds::message_pair().unwrap();
        let mut hand_over = HandOver::new(here);
        let files = |count: RawFd| -> Vec<(OwnedFd, RawFd)> {
            let null = || OwnedFd::from(File::open("/dev/null").unwrap());
            (3..3 + count).map(|target| (null(), target)).collect()
        };
        // The first request is never sent.
        hand_over.send(&files(5)).unwrap();
        let nothing = hand_over.send(&[]).unwrap();
        let many = hand_over.send(&files(40)).unwrap();
        assert!(take_handed(&there, nothing).unwrap().is_empty());
        let taken = take_handed(&there, many).unwrap();
        let targets: Vec<RawFd> = taken.iter().map(|(_, target)| *target).collect();
        assert_eq!(targets, (3..43).collect::<Vec<_>>());
        let never_sent = Handed { ticket: 9, targets: vec![3] };
        assert!(take_handed(&there, never_sent).is_err());
    }

    #[test]
    fn answers_survive_the_socket() {
        for answer in [
            Answer::Spawned { pid: 77 },
            Answer::Refused { stage: Stage::Clone, errno: Errno(11) },
            Answer::Executed,
            Answer::Died,
            Answer::Failed {
                stage: Stage::Exec,
                errno: Errno(2),
                interpreter_missing: true,
                which: 0,
            },
            Answer::Failed {
                stage: Stage::Privileges,
                errno: Errno(1),
                interpreter_missing: false,
                which: 255,
            },
        ] {
            let message = answer.encode(Incarnation(1 << 40));
            assert_eq!(Answer::decode(&message), Some((Incarnation(1 << 40), answer)));
        }
        assert_eq!(Answer::decode(b"short"), None);
    }
}
