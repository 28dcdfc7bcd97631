//! The sockets of all services, held by one thread, and the loop's dealings with it.
//!
//! A socket belongs to its address: whoever is configured with it next gets the same one, so that a
//! restart, a reload and another replica refuse no connection. It is opened before the first start
//! that needs it and closed when no service with it has a replica that will run by itself: nobody
//! would ever accept what waits there. The guardian holds each too, so that a manager which dies or is
//! replaced closes none: the next one takes them back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::event::State;
use crate::exit::Stage;
use crate::guardian::{ADDRESSES, Word};
use crate::name::{Incarnation, ReplicaId, Requester};
use crate::os::errno_of;
use crate::os::fds::{self, Waker};
use crate::os::listen;
use crate::spec::{Listen, ListenAddress, Service, Spec};

use super::control::Control;
use super::errand::{Fetched, Found, Unfetched};
use super::opening::{Trouble, is_file, made};
use super::request::{Refusal, SocketStatus};
use super::vault::Vault;

/// A socket to open.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) listen: Listen,
    /// Who is to own its file.
    pub(super) owner: Option<(u32, u32)>,
}

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// Open what is not open yet, and give a run copies; with what else was fetched for it.
    Open { incarnation: Incarnation, orders: Vec<Order>, fetched: Fetched },
    /// Open what is not open yet, for a configuration that is about to take effect.
    Try { number: u64, sockets: Vec<Listen> },
    /// Open what can be opened, and tell when that is done: what cannot, its start tells.
    First(Vec<Listen>, Sender<()>),
    /// Close all others.
    Keep(BTreeSet<ListenAddress>),
    /// Close all and remove their files; tell when that is done.
    End(Sender<()>),
}

/// What the thread tells.
#[derive(Debug)]
pub(super) enum Told {
    /// Whether the sockets of a configuration can be opened.
    Tried { number: u64, result: Result<(), String> },
    /// What is open now.
    Open(BTreeSet<ListenAddress>),
}

/// The loop's end. The channel is bounded by the number of replicas: each has at most one start under
/// way, and the loop asks one other thing at a time.
pub(super) struct Sockets {
    /// The thread, once anything was asked of it.
    asks: Option<Sender<Ask>>,
    /// What it begins with.
    keeper: Option<Keeper>,
    found: Sender<Found>,
    waker: Waker,
    tell: Sender<Told>,
    pub(super) told: Receiver<Told>,
    /// What is open, as last told.
    pub(super) open: BTreeSet<ListenAddress>,
    /// Whether what is to be open may have changed.
    pub(super) stale: bool,
    /// Runs that found an address in use, and nobody of ours that had it.
    once_more: HashSet<Incarnation>,
    /// Configurations whose sockets are being opened.
    trying: Vec<Trying>,
    /// The number of the last of them.
    number: u64,
}

struct Trying {
    number: u64,
    spec: Arc<Spec>,
    by: Requester,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

/// How many of those are remembered; a run that is forgotten is tried once more again.
const ONCE_MORE: usize = 1_000;

/// How long a manager that begins waits for its sockets to be opened.
const FIRST: Duration = Duration::from_secs(2);
/// How long a manager that is done waits for the files of its sockets to be removed.
const LAST_FILES: Duration = Duration::from_secs(1);

impl Sockets {
    /// `keeper` holds what was left by an earlier manager.
    pub(super) fn new(waker: Waker, found: Sender<Found>, keeper: Keeper) -> Self {
        let (tell, told) = channel();
        let open: BTreeSet<_> = keeper.held.keys().cloned().collect();
        let (stale, keeper) = (!open.is_empty(), Some(keeper));
        let (once_more, trying, number) = (HashSet::new(), Vec::new(), 0);
        let asks = None;
        Self { asks, keeper, found, waker, tell, told, open, stale, once_more, trying, number }
    }

    /// Whether there is, or may be, any socket.
    pub(super) fn is_used(&self) -> bool {
        self.asks.is_some() || !self.open.is_empty()
    }

    /// The way to the thread, which is started when it is first needed.
    pub(super) fn asks(&mut self) -> io::Result<Sender<Ask>> {
        if let Some(asks) = &self.asks {
            return Ok(asks.clone());
        }
        let (asks, inbox) = channel();
        let keeper =
            self.keeper.take().ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))?;
        let (found, tell, waker) = (self.found.clone(), self.tell.clone(), self.waker.clone());
        super::vital("sockets", move || keeper.serve(&inbox, &found, &tell, &waker))?;
        self.asks = Some(asks.clone());
        Ok(asks)
    }

    fn ask(&self, ask: Ask) {
        if let Some(asks) = &self.asks {
            // The thread ends only with its last handle.
            let _ = asks.send(ask);
        }
    }

    /// Closes everything, and waits a moment for the files to be gone.
    pub(super) fn end(&self) {
        if self.asks.is_some() {
            let (done, wait) = channel();
            self.ask(Ask::End(done));
            let _ = wait.recv_timeout(LAST_FILES);
        }
    }
}

/// What the thread holds.
pub(super) struct Keeper {
    held: BTreeMap<ListenAddress, Held>,
    /// Whether that has changed since it was told.
    changed: bool,
    /// Who holds them too.
    guardian: Arc<OwnedFd>,
}

struct Held {
    socket: OwnedFd,
    listen: Listen,
    guardian: Arc<OwnedFd>,
    /// Its file: device and inode.
    file: Option<(u64, u64)>,
}

impl Held {
    /// Whether it can serve as `wanted` too.
    fn fits(&self, wanted: &Listen) -> bool {
        let same_file = match (&wanted.address, self.file) {
            (ListenAddress::Unix(path), Some(file)) => listen::identity(path) == Some(file),
            (ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Unix(_), _) => true,
        };
        same_file && self.listen.ipv6_only == wanted.ipv6_only
    }
}

/// The number under which the guardian holds the socket of an address, far above those of runs. 60 bits
/// of FNV-1a: among thousands of addresses no two ever have the same.
fn number_of(address: &ListenAddress) -> Incarnation {
    let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = address.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    Incarnation(ADDRESSES.0 | sum >> 4)
}

/// Has the guardian let go of the socket of an address.
fn release(guardian: &OwnedFd, address: &ListenAddress) {
    // It hears at once, and one that is gone needs to hear nothing.
    let _ = fds::send(guardian.as_fd(), &Word::Release.encode(number_of(address)), &[]);
}

/// Has the guardian hold a socket too, and with it what stands for its file: whoever takes it back can
/// tell that file from what took its place.
fn store(guardian: &OwnedFd, wanted: &Listen, socket: &OwnedFd, has_file: bool) -> io::Result<()> {
    let file = match &wanted.address {
        ListenAddress::Unix(path) if has_file => Some(fds::pin(path)?),
        ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Unix(_) => None,
    };
    let fds: Vec<_> = [Some(socket), file.as_ref()].into_iter().flatten().collect();
    let numbers: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    fds::send(guardian.as_fd(), &Word::Store.encode(number_of(&wanted.address)), &numbers)
}

impl Drop for Held {
    fn drop(&mut self) {
        release(&self.guardian, &self.listen.address);
        if let (ListenAddress::Unix(path), Some(file)) = (&self.listen.address, self.file)
            && listen::identity(path) == Some(file)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Keeper {
    fn new(guardian: OwnedFd) -> Self {
        Self { held: BTreeMap::new(), changed: false, guardian: Arc::new(guardian) }
    }

    /// Takes back from the guardian what an earlier manager held for this configuration.
    pub(super) fn inherit(spec: &Spec, vault: &Vault) -> io::Result<Self> {
        let mut keeper = Self::new(vault.another()?);
        for listen in spec.services.values().flat_map(|service| &service.listen) {
            let given = vault.take(number_of(&listen.address))?.unwrap_or_default();
            let mut given = given.into_iter();
            let Some(socket) = given.next() else { continue };
            let file = match &listen.address {
                ListenAddress::Unix(path) if is_file(path) => {
                    let pinned = given.next();
                    let file = pinned.and_then(|file| listen::identity_of(file.as_fd()));
                    if file.is_none() || file != listen::identity(path) {
                        // Nobody finds it any more: it is made anew. What stands there is not ours.
                        release(&keeper.guardian, &listen.address);
                        continue;
                    }
                    file
                }
                ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Unix(_) => None,
            };
            let guardian = Arc::clone(&keeper.guardian);
            let held = Held { socket, listen: listen.clone(), guardian, file };
            keeper.held.insert(listen.address.clone(), held);
        }
        Ok(keeper)
    }

    fn serve(
        mut self,
        inbox: &Receiver<Ask>,
        found: &Sender<Found>,
        tell: &Sender<Told>,
        waker: &Waker,
    ) {
        while let Ok(ask) = inbox.recv() {
            let answered = match ask {
                Ask::Open { incarnation, orders, fetched } => {
                    let answer = self.open_all(&orders);
                    let answer = answer.map(|sockets| Fetched { sockets, ..fetched });
                    found.send((incarnation, answer)).is_ok()
                }
                Ask::Try { number, sockets } => {
                    let result = self.attempt(&sockets);
                    tell.send(Told::Tried { number, result }).is_ok()
                }
                Ask::First(sockets, done) => {
                    for socket in &sockets {
                        let _ = self.open(socket, None);
                    }
                    // Nobody waits any more where that took too long.
                    let _ = done.send(());
                    true
                }
                Ask::Keep(wanted) => {
                    let before = self.held.len();
                    self.held.retain(|address, _| wanted.contains(address));
                    self.changed |= self.held.len() != before;
                    true
                }
                Ask::End(done) => {
                    self.held.clear();
                    self.changed = true;
                    self.until_heard();
                    done.send(()).is_ok()
                }
            };
            let changed = std::mem::take(&mut self.changed);
            let open = || Told::Open(self.held.keys().cloned().collect());
            let told = !changed || tell.send(open()).is_ok();
            if !answered || !told {
                return;
            }
            waker.wake();
        }
    }

    /// Waits until the guardian has heard everything, so that the addresses are free: it answers in the
    /// order in which it is spoken to.
    fn until_heard(&self) {
        let vault = fds::duplicate(&self.guardian).map(Vault::new);
        let _ = vault.and_then(|vault| vault.take(Incarnation(u64::MAX)));
    }

    fn open_all(&mut self, orders: &[Order]) -> Result<Vec<OwnedFd>, Unfetched> {
        let mut sockets = Vec::with_capacity(orders.len());
        for Order { listen, owner } in orders {
            sockets.push(self.open(listen, *owner).map_err(|Trouble { errno, why }| {
                Unfetched {
                    stage: Stage::Listen,
                    errno,
                    why: Some(format!(
                        "cannot listen on {} ({}): {why}",
                        listen.address, listen.name
                    )),
                    socket: Some(Box::new(listen.clone())),
                }
            })?);
        }
        Ok(sockets)
    }

    /// Opens what a new configuration needs. What is in the way of what is held cannot be tried before
    /// that is closed.
    fn attempt(&mut self, sockets: &[Listen]) -> Result<(), String> {
        for socket in sockets {
            if self.held.values().any(|held| held.listen.overlaps(socket)) {
                continue;
            }
            if let Err(Trouble { why, .. }) = self.open(socket, None) {
                return Err(format!(
                    "cannot listen on {} ({}): {why}",
                    socket.address, socket.name
                ));
            }
        }
        Ok(())
    }

    /// A copy of the socket at this address, which is made where it is not held yet.
    fn open(&mut self, wanted: &Listen, owner: Option<(u32, u32)>) -> Result<OwnedFd, Trouble> {
        let plain = |error: io::Error| Trouble { errno: errno_of(&error), why: error.to_string() };
        if self.held.get(&wanted.address).is_some_and(|held| !held.fits(wanted)) {
            self.held.remove(&wanted.address);
            self.changed = true;
        }
        let held = if let Some(held) = self.held.get_mut(&wanted.address) {
            if held.listen.backlog != wanted.backlog {
                listen::listen(held.socket.as_fd(), wanted.backlog).map_err(plain)?;
            }
            held.listen = wanted.clone();
            held
        } else {
            let (socket, file) = made(wanted)?;
            if let Err(error) = store(&self.guardian, wanted, &socket, file.is_some()) {
                tracing::warn!(address = %wanted.address, %error, "a socket that ends with this manager");
            }
            let guardian = Arc::clone(&self.guardian);
            let held = Held { socket, listen: wanted.clone(), guardian, file };
            self.changed = true;
            self.held.entry(wanted.address.clone()).or_insert(held)
        };
        if let (ListenAddress::Unix(path), Some(_)) = (&wanted.address, held.file) {
            listen::dress(path, owner, wanted.mode).map_err(plain)?;
        }
        fds::duplicate(&held.socket).map_err(plain)
    }
}

impl Control {
    /// The thread has something to tell.
    pub(super) fn sockets_told(&mut self, told: Told) {
        match told {
            Told::Open(open) => {
                for address in open.difference(&self.sockets.open) {
                    tracing::info!(%address, "listening");
                }
                for address in self.sockets.open.difference(&open) {
                    tracing::info!(%address, "not listening any more");
                }
                self.sockets.open = open;
                self.sockets.stale = true;
            }
            Told::Tried { number, result } => {
                let at = self.sockets.trying.iter().position(|trying| trying.number == number);
                let Some(at) = at else { return };
                let Trying { spec, by, reply, .. } = self.sockets.trying.remove(at);
                self.sockets.stale = true;
                match result {
                    Ok(()) => self.persist_applied(spec, by, reply),
                    Err(msg) => {
                        tracing::error!(error = %msg, "not reloaded, the old configuration stays in effect");
                        self.health.reload_refused = true;
                        let _ = reply.send(Err(Refusal::Listen { msg }));
                    }
                }
            }
        }
    }

    /// Opens the sockets of all that is to run, before anybody hears that this manager is ready: whoever
    /// does may connect at once. A path that does not answer is not waited for.
    pub(super) fn open_first_sockets(&mut self) {
        let wanted = self.unopened(&self.spec);
        if wanted.is_empty() || self.sockets.asks().is_err() {
            return;
        }
        let (done, wait) = channel();
        self.sockets.ask(Ask::First(wanted, done));
        let _ = wait.recv_timeout(FIRST);
    }

    /// The sockets of a configuration that are not open, of services that are to run.
    fn unopened(&self, spec: &Spec) -> Vec<Listen> {
        let wanted =
            |service: &&Arc<Service>| service.replicas > 0 && !self.stopped.contains(&service.name);
        let sockets = spec.services.values().filter(wanted).flat_map(|service| &service.listen);
        let new = sockets.filter(|socket| !self.sockets.open.contains(&socket.address));
        new.take(self.room_for_descriptors()).cloned().collect()
    }

    /// Opens the sockets that a configuration brings before it takes effect, so that one which cannot
    /// be opened is told to whoever asked and changes nothing.
    pub(super) fn try_sockets(
        &mut self,
        spec: Arc<Spec>,
        by: Requester,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let new = self.unopened(&spec);
        // Without a thread, or descriptors, they are opened, or not, by the starts that need them.
        if new.is_empty() || self.sockets.asks().is_err() {
            return self.persist_applied(spec, by, reply);
        }
        self.sockets.number += 1;
        let number = self.sockets.number;
        self.sockets.trying.push(Trying { number, spec, by, reply });
        self.sockets.ask(Ask::Try { number, sockets: new });
    }

    /// Notes that a replica has come to rest: perhaps nobody will accept at its sockets any more. One that
    /// begins only wants more.
    pub(super) fn look_at_sockets(&mut self, replica: &ReplicaId, state: State) {
        let service = self.spec.services.get(&replica.service);
        let has_any = || service.is_some_and(|service| !service.listen.is_empty());
        self.sockets.stale |= state.is_resting() && has_any();
    }

    /// Notes that a run has ended. What one of the present configuration had is wanted until it rests.
    pub(super) fn look_at_sockets_of(&mut self, replica: &ReplicaId, service: &Arc<Service>) {
        let is_same = |present| Arc::ptr_eq(present, service);
        let is_present = self.spec.services.get(&service.name).is_some_and(is_same)
            && self.supervisor.view(replica).is_some();
        self.sockets.stale |= !is_present && !service.listen.is_empty();
    }

    /// Has sockets closed that nobody will accept at.
    pub(super) fn close_sockets(&mut self) {
        if !std::mem::take(&mut self.sockets.stale) || self.sockets.open.is_empty() {
            return;
        }
        let wanted = self.wanted_sockets();
        if !self.sockets.open.is_subset(&wanted) && self.sockets.asks().is_ok() {
            self.sockets.ask(Ask::Keep(wanted));
        }
    }

    /// The addresses of services that run or will run by themselves, of configurations that are about
    /// to take effect, and of runs of an earlier one that have not ended: who comes back to it finds its
    /// sockets open.
    fn wanted_sockets(&self) -> BTreeSet<ListenAddress> {
        let coming = self.sockets.trying.iter().map(|trying| &trying.spec);
        let coming = coming.chain(self.applying.iter().map(|(_, spec, _)| spec));
        let coming = coming.flat_map(|spec| spec.services.values());
        let present = self.spec.services.values().filter(|service| {
            let id = |replica| ReplicaId { service: service.name.clone(), replica };
            (1..=service.replicas).any(|replica| {
                let view = self.supervisor.view(&id(replica));
                view.is_some_and(|view| !view.state.is_resting())
            })
        });
        let past = self.runs.values().filter(|run| run.end.is_none()).map(|run| &run.service);
        let sockets = coming.chain(present).chain(past);
        sockets.flat_map(|service| &service.listen).map(|socket| socket.address.clone()).collect()
    }

    /// Whether an address that is in use may soon be free: a run of ours, which an earlier configuration
    /// gave it, has it and will end, or may have ended meanwhile.
    pub(super) fn is_worth_another_try(
        &mut self,
        incarnation: Incarnation,
        socket: &Listen,
    ) -> bool {
        let ours = self.runs.values().any(|run| {
            let has_it = || run.service.listen.iter().any(|own| own.overlaps(socket));
            run.incarnation != incarnation && run.pid != 0 && has_it()
        });
        if self.sockets.once_more.len() >= ONCE_MORE {
            self.sockets.once_more.clear();
        }
        ours || self.sockets.once_more.insert(incarnation)
    }

    /// The sockets of a service as they are shown.
    pub(super) fn sockets_of(&self, service: &Service) -> Vec<SocketStatus> {
        let numbers = service.first_socket()..;
        let shown = |(socket, fd): (&Listen, i32)| SocketStatus {
            name: socket.name.clone(),
            address: socket.address.to_string(),
            fd,
            open: self.sockets.open.contains(&socket.address),
        };
        service.listen.iter().zip(numbers).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::{BACKLOG, SOCKET_MODE};

    /// A guardian that hears and says nothing.
    fn nobody() -> OwnedFd {
        fds::message_pair().unwrap().0
    }

    #[test]
    fn addresses_have_numbers_where_no_run_has() {
        let number = |path: &str| number_of(&ListenAddress::Unix(path.into())).0;
        assert_ne!(number("/run/a"), number("/run/b"));
        assert!((1 << 60..1 << 61).contains(&number("/run/a")));
    }

    fn unix(path: &Path) -> Listen {
        Listen {
            name: "s".to_owned(),
            address: ListenAddress::Unix(path.to_owned()),
            backlog: BACKLOG,
            ipv6_only: false,
            mode: SOCKET_MODE,
            owner: None,
        }
    }

    #[test]
    fn a_socket_is_held_until_it_is_not_wanted_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let mut keeper = Keeper::new(nobody());
        let first = keeper.open(&unix(&path), None).ok().unwrap();
        let file = listen::identity(&path);
        drop(first);
        drop(keeper.open(&unix(&path), None).ok().unwrap());
        assert_eq!(listen::identity(&path), file, "it is the same socket");
        // One that somebody removed is made anew.
        std::fs::remove_file(&path).unwrap();
        drop(keeper.open(&unix(&path), None).ok().unwrap());
        assert!(listen::identity(&path).is_some());
        keeper.held.clear();
        assert_eq!(listen::identity(&path), None);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        let mut keeper = Keeper::new(nobody());
        let trouble = keeper.open(&unix(&path), None).err().unwrap();
        assert_eq!(trouble.errno.0, libc::EADDRINUSE);
        assert_eq!(trouble.why, "what is there is no socket, and is left alone");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    /// What took the place of a socket's file is somebody else's.
    #[test]
    fn what_took_the_place_of_a_file_is_not_removed_with_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let mut keeper = Keeper::new(nobody());
        drop(keeper.open(&unix(&path), None).ok().unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        keeper.held.clear();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
