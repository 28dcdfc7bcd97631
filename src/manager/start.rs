//! The loop's dealings with the spawner: ordering runs, and what becomes of the orders.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::event::{End, Event, State};
use crate::exit::{Errno, How, Signal, Stage};
use crate::name::{Incarnation, ReplicaId};
use crate::os::epoll::Interest;
use crate::os::input::Input;
use crate::os::live::Phase;
use crate::os::{clock, errno_of, fds, mark, procfs, signal};
use crate::port::exchange::Exchange;
use crate::spec::Service;

use super::confine::Counted;
use super::control::{Control, Kind};
use super::errand::Fetched;
use super::hooks::Hooks;
use super::launch::{self, Order};
use super::probe_exec;
use super::published::What;
use super::refused;
use super::run::Run;
use super::spawner::{self, Answer, Wiring};

/// Descriptors kept for everything that is no run: sockets of clients, log files, the journal.
const RESERVE: usize = 1536;
/// What a run needs: pidfd, output, error, input, census, one more where messages go over a socket, and
/// one where its memory is limited.
const EACH: usize = 7;

/// Our descriptors of a run.
pub(super) struct Ends {
    pidfd: Option<OwnedFd>,
    error: Option<OwnedFd>,
    output: Option<OwnedFd>,
    input: Option<OwnedFd>,
    log: Option<OwnedFd>,
    /// Where it writes a line when it is ready.
    ready: Option<OwnedFd>,
}

impl Ends {
    /// In the order in which they are handed over: error, output, input, log; and last, where there is
    /// one, what it writes to when it is ready.
    pub(super) fn of(pidfd: Option<OwnedFd>, mut ends: Vec<OwnedFd>, has_ready: bool) -> Self {
        let ready = if has_ready { ends.pop() } else { None };
        let mut ends = ends.into_iter();
        let (error, output, input, log) = (ends.next(), ends.next(), ends.next(), ends.next());
        Self { pidfd, error, output, input, log, ready }
    }
}

/// Errors that mean "not now".
pub(super) fn is_lack(errno: Errno) -> bool {
    matches!(errno.0, libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM | libc::ENOSPC)
}

impl Control {
    /// Orders a run. Whatever comes of it comes as an event.
    pub(super) fn order(
        &mut self,
        incarnation: Incarnation,
        replica: ReplicaId,
        service: &Arc<Service>,
    ) {
        self.table.set_next_incarnation(self.supervisor.next_incarnation());
        if self.room_for_descriptors() < EACH + self.socket_descriptors(service) {
            self.feed(Event::Deferred { incarnation, errno: Errno(libc::EMFILE) });
            return;
        }
        let slot = match self.claim(&replica, Phase::Open) {
            Ok(slot) => slot,
            Err(error) => {
                self.feed(Event::Deferred { incarnation, errno: errno_of(&error) });
                return;
            }
        };
        let now = clock::wall();
        self.table.slot(slot).open(incarnation, now);
        self.present.insert(replica.clone(), incarnation);
        let run =
            Run::ordered(incarnation, replica, Arc::clone(service), slot, (now, clock::now()));
        self.runs.insert(incarnation, Box::new(run));
        if service.is_kept()
            && let Err(error) = self.keep(incarnation)
        {
            tracing::error!(%incarnation, %error, "cannot make room for what a kept run says");
            return self.not_now(incarnation, errno_of(&error));
        }
        self.run_errand(incarnation, service);
    }

    /// How many descriptors more may be opened for runs.
    pub(super) fn room_for_descriptors(&self) -> usize {
        let runs = self.runs.len() * EACH + self.pending.len() + self.lingering.len() * 2;
        let open = self.sockets.open.len();
        // What is on its way is not told yet.
        let coming: usize = if self.sockets.is_used() {
            let starting = self.runs.values().filter(|run| run.pid == 0);
            starting.map(|run| self.socket_descriptors(&run.service)).sum()
        } else {
            0
        };
        let reserve = RESERVE.min(self.descriptors / 4);
        self.descriptors.saturating_sub(runs + open + coming + reserve)
    }

    /// How many descriptors the sockets of a start take: those that are not open yet, and a copy of each
    /// until its program has them.
    fn socket_descriptors(&self, service: &Service) -> usize {
        let open = &self.sockets.open;
        let new = service.listen.iter().filter(|socket| !open.contains(&socket.address)).count();
        new + service.listen.len()
    }

    /// Takes a slot of the table for a replica.
    pub(super) fn claim(&mut self, replica: &ReplicaId, phase: Phase) -> io::Result<usize> {
        let from = self.free_slots.pop();
        match from {
            Some(slot) => self.table.claim(replica, phase, slot),
            None => self.table.claim(replica, phase, self.table_mark),
        }
        .inspect(|slot| self.table_mark = self.table_mark.max(*slot + 1))
    }

    /// Gives a slot back.
    pub(super) fn release(&mut self, slot: usize) {
        self.table.slot(slot).set_phase(Phase::Free);
        self.free_slots.push(slot);
    }

    /// Goes on with a start whose errand is done.
    pub(super) fn launch(&mut self, incarnation: Incarnation, fetched: Fetched) {
        let Fetched { identity, sockets, secrets } = fetched;
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let name = format!("{}.{}", run.replica.service, run.replica.replica);
        if let Ok(root) = &self.cgroups {
            // A group that was killed must be a new one; see `Launch::cgroup`.
            if self.killed_groups.remove(&run.replica) && !root.renew(&name) {
                self.killed_groups.insert(run.replica.clone());
            }
            match root.group(&name) {
                Ok(group) => run.group = Some(group),
                Err(error) => run.evidence.push(format!("ran outside its control group: {error}")),
            }
        }
        if run.service.port.is_some() {
            match self.protocols.of(&run.service) {
                Ok(protocol) => {
                    let seed = self.realm.0 ^ incarnation.0;
                    run.exchange = protocol.map(|protocol| Box::new(Exchange::new(protocol, seed)));
                }
                Err(error) => {
                    run.evidence.push(format!("cannot {error}"));
                    return self.never_started(
                        incarnation,
                        Stage::Descriptors,
                        Errno(libc::EINVAL),
                    );
                }
            }
        }
        let Some(entered) = self.confine_run(incarnation, &name) else { return };
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let owner = identity.as_ref().map(|identity| (identity.uid, identity.gid));
        run.identity.clone_from(&identity);
        let ready_fd = run.service.ready_fd().and_then(|number| i32::try_from(number).ok());
        let notified = match self.open_notices(incarnation) {
            Ok(variables) => variables,
            Err(error) => return self.not_now(incarnation, errno_of(&error)),
        };
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let procs = run.group.as_ref().map(crate::os::cgroup::Group::procs);
        let inside = self.make_inside && !self.killed_groups.contains(&run.replica);
        let order = Order {
            service: &run.service,
            replica: &run.replica,
            incarnation,
            identity,
            cgroup: procs.as_deref().map(|procs| (procs, inside)),
            entered: &entered,
            pid_cell: Some(self.table.slot(run.slot).pid_cell()),
            mark: mark::of(self.realm, incarnation),
            more: notified,
        };
        let wiring = run.wiring();
        let launch = match launch::prepare(&self.surroundings, order) {
            Ok(launch) => launch,
            Err(refusal) => {
                run.evidence.extend(refusal.why);
                return self.never_started(incarnation, refusal.stage, refusal.errno);
            }
        };
        let kept = run.is_kept();
        let targets = run.service.first_socket()..;
        let given: Vec<_> = sockets.into_iter().chain(secrets).zip(targets).collect();
        let handed = match self.hand_over.send(&given) {
            Ok(handed) => handed,
            Err(error) => return self.not_now(incarnation, errno_of(&error)),
        };
        drop(given);
        let request =
            spawner::Request { incarnation, launch, wiring, owner, kept, ready_fd, handed };
        // The supervisor starts few at once, so the channel is never full.
        let sent = self.spawner.try_send(request).map_err(|_| Errno(libc::EAGAIN));
        self.bell.wake();
        match sent {
            Ok(()) => self.greet_program(incarnation),
            Err(errno) => self.not_now(incarnation, errno),
        }
    }

    /// Keeps a run within its limits; the files of the groups that it has to enter. `None`: it may not
    /// run without them, and that has been said.
    fn confine_run(&mut self, incarnation: Incarnation, name: &str) -> Option<Vec<PathBuf>> {
        let run = self.runs.get(&incarnation)?;
        let (service, group) = (Arc::clone(&run.service), run.group.clone());
        match self.confine(&service, name, group.as_ref(), None) {
            Ok(confined) => {
                let run = self.runs.get_mut(&incarnation)?;
                let lacking = confined.limits.iter().filter(|one| one.not_enforced.is_some());
                run.evidence.extend(lacking.map(ToString::to_string));
                (run.limits, run.memory) = (confined.limits, confined.memory);
                self.watch_memory(incarnation);
                Some(confined.procs)
            }
            Err(refusal) => {
                self.runs.get_mut(&incarnation)?.evidence.extend(refusal.why);
                self.never_started(incarnation, refusal.stage, refusal.errno);
                None
            }
        }
    }

    /// Goes on to watch the limits of a run that an earlier manager started; its groups are there.
    pub(super) fn confine_again(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        let name = format!("{}.{}", run.replica.service, run.replica.replica);
        let (service, group) = (Arc::clone(&run.service), run.group.clone());
        let counted = Counted { memory: self.table.slot(run.slot).kept().memory() };
        match self.confine(&service, &name, group.as_ref(), Some(counted)) {
            Ok(confined) => {
                let Some(run) = self.runs.get_mut(&incarnation) else { return };
                (run.limits, run.memory) = (confined.limits, confined.memory);
                self.watch_memory(incarnation);
                // What was killed meanwhile, nobody was told of.
                self.memory_told(incarnation);
            }
            Err(refusal) => {
                tracing::warn!(%incarnation, why = refusal.why, "a run that goes on has no limits any more");
            }
        }
    }

    /// There were no resources: nothing happened, and it is tried again.
    pub(super) fn not_now(&mut self, incarnation: Incarnation, errno: Errno) {
        if let Some(run) = self.runs.remove(&incarnation) {
            self.release(run.slot);
            self.present.remove(&run.replica);
            self.let_go(incarnation);
            self.unheard(incarnation, &run.replica);
        }
        self.feed(Event::Deferred { incarnation, errno });
    }

    /// There never was a process.
    pub(super) fn never_started(&mut self, incarnation: Incarnation, stage: Stage, errno: Errno) {
        let end = End::plain(How::NotStarted(stage, errno));
        self.measured_start(incarnation);
        // Who has spoken to it already is told with the record.
        self.end_exchange(incarnation, Some(0));
        self.feed(Event::Ended { incarnation, end });
    }

    /// Takes what the spawner has to tell.
    pub(super) fn spawner_answers(&mut self) -> io::Result<()> {
        let mut buffer = [0; spawner::BUFFER];
        while let Some(received) = fds::receive(self.answers.as_fd(), &mut buffer)? {
            let Some((incarnation, answer)) = Answer::decode(&buffer[..received.bytes]) else {
                return Err(io::Error::other("the spawner is gone"));
            };
            if probe_exec::is_question(incarnation) {
                self.question_answered(incarnation, answer, received);
                continue;
            }
            if Hooks::is_one(incarnation) {
                self.hook_answer(incarnation, answer, received);
                continue;
            }
            match answer {
                Answer::Spawned { pid } => self.spawned(incarnation, pid, received),
                Answer::Refused { stage, errno } if stage == Stage::Clone && is_lack(errno) => {
                    self.not_now(incarnation, errno);
                    // A process that was made and undone again may have ended already.
                    self.children_ended();
                }
                Answer::Refused { stage, errno } => {
                    if let Some(run) = self.runs.get_mut(&incarnation) {
                        run.evidence.extend(refused::why(&run.service, stage, errno, 0));
                    }
                    self.never_started(incarnation, stage, errno);
                }
                Answer::Executed | Answer::Died | Answer::Failed { .. } => {
                    self.landed(incarnation, answer);
                }
            }
        }
        Ok(())
    }

    fn spawned(&mut self, incarnation: Incarnation, pid: i32, received: fds::Received) {
        let Some(run) = self.runs.get_mut(&incarnation) else {
            // Given up meanwhile: a process that nobody supervises must not be.
            tracing::warn!(%incarnation, pid, "a process was made for a run that is over");
            if let Some(pidfd) = received.fds.first() {
                let _ = signal::send(pidfd.as_fd(), Signal::KILL);
            }
            return;
        };
        let mut arrived = received.fds.into_iter();
        let pidfd = arrived.next();
        let ends = Ends::of(pidfd, arrived.collect(), run.service.ready_fd().is_some());
        if received.lost || ends.output.is_none() {
            // The kernel had no descriptor left for us: undo it and try again later.
            tracing::warn!(%incarnation, pid, "no descriptors for a new process; it is started again");
            let _ = signal::send_pid(pid, Signal::KILL);
            self.not_now(incarnation, Errno(libc::EMFILE));
            // It may have ended before, and its signal was not for us then.
            self.children_ended();
            return;
        }
        run.pid = pid;
        if run.is_kept() {
            let born = procfs::stat(pid).map_or(0, |stat| stat.start);
            self.table.slot(run.slot).kept().set_born(born);
        }
        self.wire(incarnation, ends);
        self.measured_start(incarnation);
        self.feed(Event::Spawned { incarnation });
    }

    /// Has the descriptors of a run watched.
    pub(super) fn wire(&mut self, incarnation: Incarnation, ends: Ends) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        let Ends { pidfd, error, output, input, log, ready } = ends;
        let streams = if run.exchange.is_some() { &self.ports } else { &self.logs };
        let watched = [
            (&self.poller, pidfd.as_ref(), Kind::Process),
            (streams, output.as_ref(), Kind::Output),
            (&self.logs, error.as_ref(), Kind::Error),
            (&self.logs, log.as_ref(), Kind::Log),
            (&self.poller, ready.as_ref(), Kind::Ready),
        ];
        for (poller, fd, kind) in watched {
            let Some(fd) = fd else { continue };
            if let Err(error) = poller.add(fd.as_fd(), kind.token(incarnation), Interest::Read) {
                // Only a lack of kernel memory comes to this.
                tracing::error!(%incarnation, fd = fd.as_raw_fd(), %error, "cannot watch a descriptor");
            }
        }
        // Now, while the program is on its way, and not when it has ended.
        run.census = run.group.as_ref().and_then(|group| group.census().ok());
        run.pidfd = pidfd;
        run.output = output;
        run.error = error;
        run.log = log;
        run.ready = ready;
        run.input = input.map(match run.wiring() {
            Wiring::Socket => Input::socket,
            Wiring::Terminal => Input::terminal,
            Wiring::Server | Wiring::Pipes | Wiring::Display | Wiring::Question => Input::pipe,
        });
    }

    fn landed(&mut self, incarnation: Incarnation, answer: Answer) {
        let run = self.runs.get_mut(&incarnation);
        // Without a process the word is on an earlier attempt, which was undone.
        let Some(run) = run.filter(|run| run.pid != 0) else { return };
        run.landing = Some(answer);
        match answer {
            Answer::Executed => {
                let path = procfs::executable(run.pid);
                run.executable = path.map(|path| path.to_string_lossy().into_owned());
                // One that has ended already shows none any more.
                let asked = run.service.command.first();
                let executable = run.executable.as_ref().or(asked).map(|path| path.as_str().into());
                let (replica, pid) = (run.replica.clone(), run.pid);
                self.measured_landing(incarnation);
                let start = What::Start { replica: replica.clone(), incarnation, pid, executable };
                self.guests.started(&replica, incarnation);
                self.publish_of(&replica, start);
                self.feed(Event::Started { incarnation });
                let run = self.runs.get(&incarnation).filter(|run| run.service.awaits_ready());
                // What it said may have been read before the word that it runs.
                let spoken = run.filter(|run| run.service.is_ready_by_port());
                let spoken = spoken.and_then(|run| run.exchange.as_ref());
                if spoken.is_some_and(|one| one.is_ready()) || run.is_some_and(|run| run.said_ready)
                {
                    self.feed(Event::Ready { incarnation });
                }
                self.write_input(incarnation);
            }
            Answer::Failed { interpreter_missing: true, .. } => run.evidence.push(
                "the file is there, so the interpreter or loader that it names is missing".into(),
            ),
            Answer::Failed { stage, errno, which, .. } => {
                run.evidence.extend(refused::why(&run.service, stage, errno, which));
            }
            Answer::Died => {
                run.evidence.push("it was killed before the program was executed".into());
                // If nobody wanted that, the kernel itself may have done it, because our own group
                // was killed once. To enter a group from outside always works.
                let view = self.supervisor.view(&run.replica);
                if view.is_some_and(|view| view.state == State::Starting) {
                    self.make_inside = false;
                }
            }
            Answer::Spawned { .. } | Answer::Refused { .. } => {}
        }
        let ended = self.runs.get_mut(&incarnation).and_then(|run| run.ended.take());
        if let Some(ended) = ended {
            self.finish(incarnation, ended);
        }
    }
}
