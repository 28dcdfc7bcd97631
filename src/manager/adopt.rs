//! Runs that outlived an earlier manager: which of them can be taken over, and taking them over.
//!
//! The table of what is alive says which runs were to be kept and how far they had come; the guardian
//! holds their pipes and has not reaped those that ended meanwhile. A run that cannot be taken over is
//! killed, and recorded like any other that died with its manager. One that the kernel does not let end is
//! taken over all the same, to be ended: it has no successor before it is gone.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Alive, Event};
use crate::exit::Signal;
use crate::guardian::Word;
use crate::journal::{Journal, JournalError};
use crate::name::{Incarnation, ReplicaId};
use crate::os::live::{
    Kept as Slot, LONGEST_NOTE, Notes, PORT_IN_MESSAGE, PORT_IN_REQUEST, PORT_OWES, Phase,
    Slot as TableSlot, Table,
};
use crate::os::procfs::Stuck;
use crate::os::spool::{Left, Spool};
use crate::os::wait::Ended;
use crate::os::{clock, epoll, mark, prctl, procfs, signal};
use crate::output::{Doubt, Stream, doubt_marker};
use crate::port::exchange::{Exchange, Saved};
use crate::spec::{KillScope, Service, Spec, contents_number, fingerprint};
use crate::state::Earlier;
use crate::supervise::{Conversation, Resume, Supervisor, resume};
use crate::time::Tick;

use super::control::{Control, Kind};
use super::run::{Keeping, Run};
use super::spawner::Answer;
use super::start::Ends;
use super::vault::Vault;

/// A run of an earlier life that goes on.
pub(super) struct Found {
    pub(super) alive: Alive,
    pub(super) replica: ReplicaId,
    slot: usize,
    service: Arc<Service>,
    pid: i32,
    pidfd: OwnedFd,
    ends: Vec<OwnedFd>,
    resume: Result<Resume, &'static str>,
}

/// How long what cannot be taken over may take to die.
const BOUND: Duration = Duration::from_secs(5);
/// How long after the death of a taken-over run its guardian may take to tell of it …
const WORD_PATIENCE: Duration = Duration::from_secs(5);
/// … and how often that is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// What is known of kept runs beside the table.
pub(super) struct Known<'a> {
    /// The present configuration.
    pub(super) spec: &'a Spec,
    /// What was it before, as far as a run may have it.
    pub(super) earlier: &'a [Earlier],
    /// What the manager before had noted.
    pub(super) notes: Option<&'a Notes>,
}

/// A number for what a service's runs are started with.
pub(super) fn configuration(spec: &Spec, service: &Service) -> u64 {
    fingerprint(service) ^ spec.cgroups as u64
}

/// The runs of an earlier life under the same guardian that go on. All others that were to are killed
/// and have ended when this returns, unless the kernel holds them.
pub(super) fn find(
    table: &Table,
    journal: &Journal,
    known: &Known<'_>,
    vault: &Vault,
) -> Result<Vec<Found>, JournalError> {
    let spec = known.spec;
    let open = table.used().filter(|(_, slot)| slot.phase() == Phase::Open);
    let kept: Vec<usize> = open
        .filter(|(_, slot)| slot.kept().ran().is_some() && slot.pid().is_some())
        .map(|(index, _)| index)
        .collect();
    let wanted: HashSet<Incarnation> =
        kept.iter().map(|index| table.slot(*index).incarnation()).collect();
    let recorded = journal.recorded(&wanted)?;
    let mut newest: HashMap<ReplicaId, Incarnation> = HashMap::new();
    for index in &kept {
        if let Some(replica) = table.slot(*index).replica() {
            let last = newest.entry(replica).or_insert(Incarnation(0));
            *last = (*last).max(table.slot(*index).incarnation());
        }
    }
    let mut found = Vec::new();
    let mut strays = Vec::new();
    for index in kept {
        let slot = table.slot(index);
        let (Some(replica), Some(pid)) = (slot.replica(), slot.pid()) else { continue };
        let incarnation = slot.incarnation();
        if recorded.contains(&incarnation) {
            continue;
        }
        let is_last = newest.get(&replica) == Some(&incarnation);
        match taken(known, slot.kept(), incarnation, &replica, pid, vault) {
            Some((service, is_own, pidfd, ends)) if is_last => {
                let ready = slot.kept().ready();
                let left = conversation(slot.kept().port());
                let resume = resume(service.port.as_ref(), ready.is_some(), left);
                let started = slot.kept().ran().unwrap_or_default();
                let memo = known.notes.and_then(|notes| notes.read(index, incarnation));
                let memo = memo.and_then(|note| {
                    let text = String::from_utf8(note.bytes).ok()?;
                    Some((text.into_boxed_str(), note.done))
                });
                let own = is_own.then(|| Arc::clone(&service));
                let (in_step, stale) = (resume.is_ok(), is_stale(slot.kept(), &service));
                let alive =
                    Alive { incarnation, started, ready, in_step, service: own, memo, stale };
                found.push(Found {
                    alive,
                    replica,
                    slot: index,
                    service,
                    pid,
                    pidfd,
                    ends,
                    resume,
                });
            }
            _ => {
                let service = spec.services.get(&replica.service);
                let leaves = service.is_some_and(|one| one.stop.kill == KillScope::Process);
                let mark = (!leaves).then(|| mark::of(table.realm(), incarnation));
                strays.push(Stray { slot: index, pid, mark });
            }
        }
    }
    end(table, &strays);
    let mut open: Vec<_> = table.used().filter(|(_, slot)| slot.phase() == Phase::Open).collect();
    open.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.incarnation()));
    let mut known: HashSet<ReplicaId> = found.iter().map(|found| found.replica.clone()).collect();
    for one in open {
        if one.1.replica().is_some_and(|replica| !known.contains(&replica))
            && let Some(run) = held(spec, one, vault)
        {
            known.insert(run.replica.clone());
            found.push(run);
        }
    }
    Ok(found)
}

/// A run that was killed and is still there. Its number is its own: a child of the guardian, which has
/// not reaped it.
fn held(spec: &Spec, (index, slot): (usize, &TableSlot), vault: &Vault) -> Option<Found> {
    let (replica, pid) = (slot.replica()?, slot.pid()?);
    let stat = procfs::stat(pid)?;
    if slot.kept_end().is_some() || stat.is_zombie() || stat.parent != prctl::parent() {
        return None;
    }
    let pidfd = signal::open_pidfd(pid).ok()?;
    let incarnation = slot.incarnation();
    tracing::error!(%replica, %incarnation, pid, "a run was killed and does not end; it is not waited for");
    let service = spec.services.get(&replica.service).map_or_else(
        || Arc::new(Service { replicas: 0, ..Service::new(replica.service.clone()) }),
        Arc::clone,
    );
    let started = slot.kept().executed().unwrap_or_else(clock::now);
    let alive = Alive {
        incarnation,
        started,
        ready: None,
        in_step: false,
        service: None,
        memo: None,
        stale: false,
    };
    let ends = vault.take(incarnation).ok().flatten().unwrap_or_default();
    let resume = Err("its manager died, and it could not be killed then");
    Some(Found { alive, replica, slot: index, service, pid, pidfd, ends, resume })
}

/// Whether a file that a run reads changed and it was not told: its manager died in between.
fn is_stale(slot: &Slot, service: &Service) -> bool {
    slot.contents().is_some_and(|number| number != contents_number(service))
}

/// Whether a run in a slot goes on under this configuration: it was started with it, and where its files
/// changed it can be told.
fn goes_on_under(slot: &Slot, number: u64, service: &Service) -> bool {
    let untold = service.reload_signal.is_none() && is_stale(slot, service);
    slot.configuration() == Some(number) && !untold
}

/// What is needed to go on with a run: its configuration, and whether that is not the present one; `None`
/// where something of it is gone.
fn taken(
    known: &Known<'_>,
    slot: &Slot,
    incarnation: Incarnation,
    replica: &ReplicaId,
    pid: i32,
    vault: &Vault,
) -> Option<(Arc<Service>, bool, OwnedFd, Vec<OwnedFd>)> {
    let present = known.spec.services.get(&replica.service);
    let present =
        present.filter(|service| goes_on_under(slot, configuration(known.spec, service), service));
    let earlier = || {
        let mut all = known.earlier.iter().filter(|one| one.service.name == replica.service);
        all.find(|one| goes_on_under(slot, one.number, &one.service)).map(|one| &one.service)
    };
    let service = present.or_else(earlier)?;
    let is_own = present.is_none_or(|service| replica.replica > service.replicas);
    let ends = match vault.take(incarnation) {
        Ok(ends) => ends?,
        Err(error) => {
            tracing::error!(%replica, %error, "cannot take over what the guardian keeps");
            return None;
        }
    };
    // The guardian reaps no kept run before it is released: the number is still its own.
    let pidfd = signal::open_pidfd(pid).ok()?;
    Some((Arc::clone(service), is_own, pidfd, ends))
}

fn conversation(bits: u32) -> Conversation {
    Conversation {
        in_message: bits & PORT_IN_MESSAGE != 0,
        in_request: bits & PORT_IN_REQUEST != 0,
        owes: bits & PORT_OWES != 0,
    }
}

/// A run that cannot be taken over.
struct Stray {
    slot: usize,
    pid: i32,
    /// What everything carries that it started; `None` where that is to live on.
    mark: Option<u64>,
}

/// Kills what strays have started and the guardian has spared. Who dies hands its children to the
/// guardian, so only its own are looked at, again and again.
fn kill_started(strays: &[Stray]) -> Vec<i32> {
    let marks: HashSet<u64> = strays.iter().filter_map(|stray| stray.mark).collect();
    if marks.is_empty() {
        return Vec::new();
    }
    let all = procfs::all().unwrap_or_default().into_iter();
    let orphans = all.filter(|stat| stat.parent == prctl::parent() && !stat.is_zombie());
    let others = orphans.filter(|stat| strays.iter().all(|stray| stray.pid != stat.pid));
    let marked = others.filter(|stat| mark::read(stat.pid).is_some_and(|it| marks.contains(&it)));
    let found: Vec<_> = marked.collect();
    for stat in &found {
        // A descriptor first and a second look: the guardian may have reaped it meanwhile.
        let Ok(pidfd) = signal::open_pidfd(stat.pid) else { continue };
        if procfs::stat(stat.pid).map(|now| now.start) == Some(stat.start) {
            let _ = signal::send(pidfd.as_fd(), Signal::KILL);
        }
    }
    found.into_iter().map(|stat| stat.pid).collect()
}

/// Kills runs and what they started, and waits until the guardian has seen how the runs ended.
fn end(table: &Table, strays: &[Stray]) {
    let deadline = clock::now() + BOUND;
    let Ok(poller) = epoll::Poller::new() else { return };
    for Stray { pid, .. } in strays {
        // Not reaped before it is released: number and group are still its own.
        let _ = signal::send_group(*pid, Signal::KILL);
        let _ = signal::send_pid(*pid, Signal::KILL);
    }
    let mut stuck = Stuck::default();
    loop {
        let open = strays.iter().filter(|stray| table.slot(stray.slot).kept_end().is_none());
        let mut left: Vec<i32> = open.map(|stray| stray.pid).collect();
        left.extend(kill_started(strays));
        let now = clock::now();
        if left.is_empty() || now >= deadline || stuck.for_good(left, now) {
            return;
        }
        let _ = poller.wait(&mut epoll::Ready::new(1), Some(LOOK));
    }
}

impl Control {
    /// Takes over a run. The supervisor hears of it with the configuration.
    pub(super) fn take_over(&mut self, found: Found, saved: Option<Saved>) {
        let Found { alive, replica, slot, service, pid, pidfd, ends, resume } = found;
        let incarnation = alive.incarnation;
        let created = self.table.slot(slot).started();
        let mut run = Run::ordered(
            incarnation,
            replica.clone(),
            Arc::clone(&service),
            slot,
            (created, alive.started),
        );
        run.keeping = Keeping::TakenOver;
        self.guarded.insert(incarnation);
        run.pid = pid;
        run.landing = Some(Answer::Executed);
        run.executable = procfs::executable(pid).map(|path| path.to_string_lossy().into_owned());
        if let Ok(root) = &self.cgroups {
            let group = root.existing(&format!("{}.{}", replica.service, replica.replica));
            run.group = Some(group).filter(|group| group.path().is_dir());
            run.census = run.group.as_ref().and_then(|group| group.census().ok());
        }
        if let Ok(Some(protocol)) = self.protocols.of(&service) {
            // Late replies to what an earlier manager asked must not look like replies to us.
            let seed = self.realm.0 ^ incarnation.0 ^ self.origin.generation.0.rotate_left(32);
            let restored =
                saved.and_then(|saved| Exchange::restore(Arc::clone(&protocol), saved).ok());
            let exchange = restored.unwrap_or_else(|| {
                let mut fresh = Exchange::new(protocol, seed);
                fresh.take_up();
                fresh
            });
            run.exchange = Some(Box::new(exchange));
        }
        run.evidence.push(format!(
            "it outlived the manager that started it; manager {} took it over",
            self.origin.generation.0
        ));
        match resume {
            Ok(Resume::Here) => {}
            Ok(Resume::After(delimiter)) => run.skipping = Some(delimiter),
            Err(why) => run.evidence.push(format!("it was ended because {why}")),
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (logged, open) = self.table.slot(slot).kept().logged(stream as usize);
            run.heard[stream as usize] = logged;
            if open {
                run.formatter.resume(stream);
            }
        }
        tracing::info!(%replica, %incarnation, pid, in_step = alive.in_step, "took over a run");
        self.present.insert(replica, incarnation);
        self.runs.insert(incarnation, Box::new(run));
        self.wire(incarnation, Ends::of(Some(pidfd), ends, service.ready_fd().is_some()));
        self.confine_again(incarnation);
        if let Err(error) = self.reopen_notices(incarnation) {
            tracing::error!(%incarnation, %error, "cannot hear what a run that goes on says of itself");
        }
        self.note_conversation(incarnation);
    }

    /// Goes on with what the manager before decided.
    pub(super) fn go_on_with(&mut self, supervisor: Supervisor) {
        self.supervisor = supervisor;
        for replica in self.supervisor.views().map(|view| view.replica).collect::<Vec<_>>() {
            self.changed(&replica);
        }
        self.feed(Event::Time);
    }

    /// Writes to the logs what an earlier manager had read of runs that go on and had not written.
    pub(super) fn write_left(&mut self, left: Left) {
        let adopted: Vec<Incarnation> = self.runs.keys().copied().collect();
        for incarnation in &adopted {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let Some(run) = self.runs.get(incarnation) else { continue };
                let kept = self.table.slot(run.slot).kept();
                let (logged, upto) =
                    (kept.logged(stream as usize).0, kept.writing(stream as usize));
                if upto > logged {
                    self.doubt(*incarnation, stream, logged..upto, Doubt::Twice);
                }
            }
        }
        for piece in left.pieces {
            let (incarnation, kind) = Kind::of(piece.owner);
            let Some(run) = self.runs.get(&incarnation) else { continue };
            let stream = if kind == Kind::Error { Stream::Stderr } else { Stream::Stdout };
            let heard = run.heard[stream as usize];
            let end = piece.at + piece.bytes.len() as u64;
            if end <= heard {
                continue;
            }
            if piece.at > heard {
                self.doubt(incarnation, stream, heard..piece.at, Doubt::Lost);
            }
            let from = usize::try_from(heard.saturating_sub(piece.at)).unwrap_or(usize::MAX);
            if let Some(run) = self.runs.get_mut(&incarnation) {
                run.heard[stream as usize] = heard.max(piece.at);
            }
            self.log(incarnation, kind, piece.bytes.get(from..).unwrap_or_default());
        }
        if let Some((owner, at, length)) = left.uncertain {
            let (incarnation, kind) = Kind::of(owner);
            let stream = if kind == Kind::Error { Stream::Stderr } else { Stream::Stdout };
            self.doubt(incarnation, stream, at..at + length as u64, Doubt::Missing);
        }
    }

    /// Says in a log what is not certain of some bytes.
    fn doubt(
        &mut self,
        incarnation: Incarnation,
        stream: Stream,
        bytes: core::ops::Range<u64>,
        doubt: Doubt,
    ) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        let (replica, service) = (run.replica.clone(), Arc::clone(&run.service));
        tracing::warn!(%replica, %stream, ?bytes, ?doubt, "output at the death of a manager");
        let mut line = Vec::new();
        doubt_marker(clock::wall(), stream, bytes, doubt, &mut line);
        self.write_log(incarnation, replica, &service, line);
    }

    /// How a run that was taken over ended, as its guardian saw it; `None` while that is not told.
    pub(super) fn told_end(&mut self, incarnation: Incarnation) -> Option<Ended> {
        let run = self.runs.get(&incarnation)?;
        if let Some((how, usage)) = self.table.slot(run.slot).kept_end() {
            self.untold.remove(&incarnation);
            return Some(Ended { how, usage, ..Ended::unseen(run.pid) });
        }
        let now = clock::now();
        let deadline = self.untold.entry(incarnation).or_insert(now + WORD_PATIENCE);
        if *deadline > now && !self.alone {
            return None;
        }
        self.untold.remove(&incarnation);
        Some(Ended::unseen(run.pid))
    }

    /// When the ends that are not told yet are looked for again.
    pub(super) fn untold_due(&self) -> Option<Tick> {
        (!self.untold.is_empty()).then(|| clock::now() + LOOK)
    }

    /// Looks for ends that were not told.
    pub(super) fn look_for_ends(&mut self) {
        for incarnation in self.untold.keys().copied().collect::<Vec<_>>() {
            self.process_ended(incarnation);
        }
    }

    /// The guardian need not keep anything of a run any more.
    pub(super) fn let_go(&mut self, incarnation: Incarnation) {
        if self.holds_pipes(incarnation) {
            return;
        }
        if !self.sweeping.contains_key(&incarnation) && self.guarded.remove(&incarnation) {
            self.vault.say(Word::Release, incarnation);
            self.vault.say(Word::Release, super::notify::number_of(incarnation));
        }
    }

    /// A run is to outlive this manager: what the next one needs to know is noted.
    pub(super) fn keep(&mut self, incarnation: Incarnation) -> std::io::Result<()> {
        if self.spool.is_none() {
            self.spool = Some(Spool::open(&self.state.spool())?);
        }
        if let Some(run) = self.runs.get_mut(&incarnation) {
            run.keeping = Keeping::Outlives;
            let number = configuration(&self.spec, &run.service);
            let kept = self.table.slot(run.slot).kept();
            kept.set_contents(contents_number(&run.service));
            kept.keep(number);
            self.guarded.insert(incarnation);
        }
        Ok(())
    }

    /// Writes down what the next manager has to know of what was just decided about kept runs. Their slots.
    pub(super) fn note_decisions(&mut self) -> Vec<usize> {
        let mut noted = Vec::new();
        for replica in self.supervisor.renoted() {
            let run = self.present.get(&replica).and_then(|run| self.runs.get(run));
            let Some(run) = run.filter(|run| run.is_kept()) else { continue };
            let (slot, incarnation) = (run.slot, run.incarnation);
            match self.supervisor.memo(&replica, LONGEST_NOTE) {
                Some(text) => match self.write_note(slot, incarnation, &text) {
                    Ok(()) => noted.push(slot),
                    Err(error) => {
                        tracing::error!(%replica, %error, "cannot note what was decided; a new manager would not know of it");
                    }
                },
                None => self.notes.iter().for_each(|notes| notes.clear(slot)),
            }
        }
        noted
    }

    fn write_note(
        &mut self,
        slot: usize,
        incarnation: Incarnation,
        text: &str,
    ) -> std::io::Result<()> {
        let notes = match self.notes.take() {
            Some(notes) => notes,
            None => Notes::open(&self.state.notes())?,
        };
        self.notes.insert(notes).write(slot, incarnation, text.as_bytes())
    }

    /// What followed from what was noted has been done.
    pub(super) fn note_done(&self, noted: &[usize]) {
        if let Some(notes) = &self.notes {
            for slot in noted {
                notes.done(*slot);
            }
        }
    }

    /// What kept runs may have been started with once another configuration is in effect.
    pub(super) fn earlier(&self, next: &Spec) -> Vec<Earlier> {
        let mut earlier: Vec<Earlier> = Vec::new();
        let present = self.spec.services.values().filter(|service| service.is_kept());
        let present = present.map(|service| (configuration(&self.spec, service), service));
        let runs = self.runs.values().filter_map(|run| {
            Some((self.table.slot(run.slot).kept().configuration()?, &run.service))
        });
        for (number, service) in present.chain(runs) {
            let contents = contents_number(service);
            let is_same = |one: &Service| contents_number(one) == contents;
            let next_one = next.services.get(&service.name);
            let stays = next_one.is_some_and(|one| {
                configuration(next, one) == number && (one.reload_signal.is_some() || is_same(one))
            });
            let is_there = |one: &Earlier| {
                one.number == number && one.service.name == service.name && is_same(&one.service)
            };
            if !stays && !earlier.iter().any(is_there) {
                earlier.push(Earlier { number, service: Arc::clone(service) });
            }
        }
        earlier
    }

    /// The input of a run is closed: nobody else may hold it open.
    pub(super) fn drop_input(&mut self, incarnation: Incarnation) {
        let Some(run) = self.runs.get_mut(&incarnation) else { return };
        run.input = None;
        if run.is_kept() {
            self.vault.say(Word::CloseInput, incarnation);
        }
    }

    /// Notes where the conversation with a kept run's port stands, now that it is known.
    pub(super) fn note_conversation(&self, incarnation: Incarnation) {
        let run = self.runs.get(&incarnation).filter(|run| run.is_kept());
        let Some((run, exchange)) = run.and_then(|run| Some((run, run.exchange.as_ref()?))) else {
            return;
        };
        let standing = exchange.standing();
        let bit = |is: bool, bit: u32| if is { bit } else { 0 };
        let bits = bit(standing.in_message || run.skipping.is_some(), PORT_IN_MESSAGE)
            | bit(standing.in_request, PORT_IN_REQUEST)
            | bit(standing.owes, PORT_OWES);
        self.table.slot(run.slot).kept().set_port(bits);
    }

    /// Notes that for the moment nobody could say where it stands: it is being read, or written to.
    pub(super) fn doubt_conversation(&self, incarnation: Incarnation, bits: u32) {
        if let Some(run) = self.runs.get(&incarnation).filter(|run| run.is_kept()) {
            let kept = self.table.slot(run.slot).kept();
            kept.set_port(kept.port() | bits);
        }
    }

    /// Notes what a successor has to know of an event.
    pub(super) fn note_event(&self, event: &Event) {
        let (incarnation, ready) = match event {
            Event::Started { incarnation } => (incarnation, false),
            Event::Ready { incarnation } => (incarnation, true),
            _ => return,
        };
        let Some(run) = self.runs.get(incarnation) else { return };
        let kept = self.table.slot(run.slot).kept();
        let now = clock::now();
        if !ready {
            kept.set_ran(now);
        }
        if ready || !run.service.awaits_ready() {
            kept.set_ready(now);
        }
    }

    /// Whom a pidfd that became readable is about, where somebody else reaps it.
    pub(super) fn stop_watching(&self, incarnation: Incarnation) {
        if let Some(pidfd) = self.runs.get(&incarnation).and_then(|run| run.pidfd.as_ref()) {
            let _ = self.poller.remove(pidfd.as_fd());
        }
    }
}
