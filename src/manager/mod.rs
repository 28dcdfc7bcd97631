//! The manager: one process that starts, watches, restarts and stops services.
//!
//! [`run()`] puts it together. The main thread becomes the spawner and nothing else; `control` is the
//! loop; `disk`, `sweeper` and `terminal` are threads that may wait for the world so that the loop
//! need not. Nothing here parses configurations or serves HTTP.

mod above;
mod adopt;
mod announce;
mod caller;

mod commands;
mod confine;
mod control;
mod disk;
mod ending;
mod errand;
mod escaped;
mod exit_with;
mod failing;
mod forward;
mod guest;
mod hear;
mod history;
mod hooks;
mod lateness;
mod launch;
mod measure;
mod notice;
mod notify;
mod oom;
mod opening;
mod probe_exec;
mod probes;
mod prompts;
mod published;
mod readiness;
mod reception;
mod record;
mod recover;
mod refusal;
mod refused;
mod reload;
mod report;
mod request;
mod room;
mod run;
mod scale;
mod shake;
mod snapshot;
mod sockets;
mod spawner;
mod speak;
mod start;
mod status;
mod streams;
mod succeed;
mod sweeper;
mod terminal;
mod timing;
mod vault;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Duration;

use crate::event::Configure;
use crate::exit::HostPart;
use crate::guardian::{
    CHANNEL_FD, GIVEN_FD, Given, GivenError, HOPELESS, LOCK_FD, READY, Role, VAULT_FD, Word,
};
use crate::journal::{Journal, JournalError};
use crate::name::{Incarnation, Realm, Requester, ServiceName};
use crate::os::fds::{self, Waker};
use crate::os::live::{Notes, Table};
use crate::os::signal::Inbox;
use crate::os::spool::{Left, Spool};
use crate::os::{cgroup, clock, epoll, limits, memory, prctl, procfs, signal, user};
use crate::output::{LogFiles, OutputError};
use crate::spec::{Cgroups, Spec};
use crate::state::{StateDir, StateError};
use crate::supervise::{MAX_STARTING, Supervisor, Timetable};

pub use announce::{Announcer, Subscription};
pub(crate) use confine::foreseen;
pub use guest::Joining;
pub use history::{
    Cursor, CursorError, Gap, GapReason, History, Missing, Recalled, Since, SinceTextError,
};
pub use hooks::HookEnd;
pub use notice::{
    AboutPart, CleanedPart, CrashLoopPart, ExitEvent, ExitKind, HealthPart, HookPart, MemoryPart,
    MessagePart, Notice, ProbePart, StreamEvent, Teller, event_schema,
};
pub use published::{Kind, Published, SkipReason, What};
pub use report::Reloading;
pub use request::{
    CheckStatus, EVENTS, Handle, HealthStatus, LastExit, LimitStatus, ManagerStatus, PortStatus,
    REQUESTS, ReadState, Refusal, ReplicaStatus, Request, Snapshot, SocketStatus, SpeakError,
    Speech,
};
pub use succeed::FORM;

/// How a manager is run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
pub struct Options {
    /// Where its state is; the lock on it is descriptor 3.
    pub state: StateDir,
    /// Whether output goes to the terminal.
    pub foreground: bool,
    /// Whether the terminal gets colours.
    pub color: bool,
    /// Whether a hang-up asks for a reload, or else for the end.
    pub reload_on_hang_up: bool,
    /// Whether the guardian wants to know how things are.
    pub notify: bool,
    /// Which sockets were handed over, from descriptor 6 on.
    pub given: Vec<Role>,
    /// The service with which everything ends.
    pub exit_with: Option<ServiceName>,
}

/// Where the manager is to be reached.
#[derive(Debug)]
pub struct Doors {
    /// The control socket.
    pub control: UnixListener,
    /// A socket that was handed over for scraping metrics.
    pub metrics: Option<TcpListener>,
}

/// Why a manager cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// A system call that cannot fail did.
    #[error("run the manager: {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The log files.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The sockets that were handed over.
    #[error(transparent)]
    Given(#[from] GivenError),
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> ManagerError {
    move |source| ManagerError::System { doing, source }
}

/// What is read of a program at once: what its pipe holds, so that it never waits for the second half.
const BUFFER: usize = 64 << 10;
/// The exit code of a manager that found a fault in itself; the guardian starts another.
const FAULT: i32 = 70;
/// How long a manager that is done waits for the disk, and then for the terminal.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs the manager in this process, which the guardian has started for it. `serve` starts the API
/// on a thread of its own. Returns the exit code only where the manager cannot run at all; otherwise
/// the process ends from within.
pub fn run(options: &Options, serve: impl FnOnce(Doors, Handle) -> io::Result<()>) -> i32 {
    memory::stay_small();
    // Else it is called after the descriptor by which it was executed.
    prctl::name_thread(c"wharf");
    match start(options, serve) {
        Ok(never) => match never {},
        Err(error) => {
            tracing::error!("cannot {}", disk::chain(&error));
            complain(&error);
            HOPELESS
        }
    }
}

/// Says on standard error why there is no manager; its log may not be writable.
fn complain(error: &dyn std::error::Error) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "error: cannot {}", disk::chain(error));
}

enum Never {}

/// The folder for this realm's control groups, or why there is none.
fn open_cgroups(spec: &Spec, realm: Realm) -> Result<cgroup::Root, String> {
    match spec.cgroups {
        Cgroups::Off => Err("cgroups: off".to_owned()),
        Cgroups::Auto => cgroup::Root::open(&format!("wharf-{realm}")),
    }
}

/// Where the limits of this realm's replicas can be enforced, or why not.
fn survey(spec: &Spec, realm: Realm) -> cgroup::Controllers {
    match spec.cgroups {
        Cgroups::Off => cgroup::Controllers::none("cgroups: off"),
        Cgroups::Auto => cgroup::Controllers::survey(&format!("wharf-{realm}")),
    }
}

fn start(
    options: &Options,
    serve: impl FnOnce(Doors, Handle) -> io::Result<()>,
) -> Result<Never, ManagerError> {
    signal::block_all().map_err(system("blocking signals"))?;
    prctl::become_subreaper().map_err(system("becoming a subreaper"))?;
    let nofile = limits::raise_nofile().map_err(system("raising the descriptor limit"))?;
    // Held for its lock alone: the same description as the guardian's.
    let lock = fds::inherited(LOCK_FD).map_err(system("taking over the lock"))?;
    let guardian = fds::inherited(CHANNEL_FD).map_err(system("talking to the guardian"))?;
    let vault = fds::inherited(VAULT_FD)
        .map(vault::Vault::new)
        .map_err(system("talking to the guardian"))?;
    let mut given = Given::inherit(&options.given, GIVEN_FD)?;
    let guardian_pid = prctl::parent();
    let guardian_life =
        signal::open_pidfd(guardian_pid).map_err(system("watching the guardian"))?;
    let state = options.state.clone();
    let applied = state.read_applied()?;
    let intent = state.read_intent()?;

    let width = applied.spec.services.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    let style = terminal::Style { output: options.foreground, color: options.color, width };
    let terminal =
        terminal::Terminal::start(style, &state.own_log()).map_err(system("starting a thread"))?;
    log_to(&terminal, options);

    let (journal, opened) = Journal::open(&state.state)?;
    if let Some(torn) = opened.repaired {
        tracing::warn!(bytes = torn, "the last line of the journal was torn; moved to exits.torn");
    }
    let table =
        Table::open(&state.live(), applied.realm).map_err(system("opening the live table"))?;
    let generation = table.next_generation();
    if let Some(seen) = opened.last_incarnation_seen {
        table.set_next_incarnation(Incarnation(seen.0 + 1));
    }
    let born = procfs::stat(guardian_pid).map_or(0, |stat| stat.start);
    let pid = u64::try_from(guardian_pid).unwrap_or(0);
    // Start times count from the boot, and two boots can be very alike.
    let boot =
        procfs::boot_id().bytes().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(byte));
    let same_guardian = table.same_guardian(born.rotate_left(24) ^ pid ^ boot);
    let cgroups = open_cgroups(&applied.spec, applied.realm);
    let controllers = survey(&applied.spec, applied.realm);
    let same_boot = table.same_boot(boot);
    let written = Arc::new(applied.spec);
    let spec = scale::scaled(&written, &intent.scale);
    let notes = if same_guardian { Notes::open(&state.notes()).ok() } else { None };
    let kept = if same_guardian {
        let known = adopt::Known { spec: &spec, earlier: &applied.earlier, notes: notes.as_ref() };
        adopt::find(&table, &journal, &known, &vault)?
    } else {
        Vec::new()
    };
    let spared: Vec<_> = kept.iter().map(|kept| kept.replica.clone()).collect();
    let alone = (!same_guardian).then_some(same_boot);
    // The counts go with the groups.
    let starved = recover::out_of_memory(&table, &controllers, cgroups.as_ref().ok());
    // What they started lives on after them.
    let mut left_alone = spared.clone();
    if same_guardian {
        left_alone.extend(recover::leaving(&spec));
    }
    let left = recover::clean_up(&table, cgroups.as_ref().ok(), alone, &left_alone);
    if !left.is_empty() {
        tracing::error!(pids = ?left, "processes of an earlier life cannot be killed");
    }
    // What else an earlier life limited is gone by now.
    controllers.remove_groups(&spared.iter().map(recover::group_name).collect::<Vec<_>>());
    let alive = kept.iter().map(|kept| kept.alive.clone()).collect();
    let before = recover::Before { same_guardian, alive, starved };
    let recovered = recover::recover(&table, &journal, before, |id| {
        let service = spec.services.get(&id.service);
        service.is_some_and(|service| (1..=service.replicas).contains(&id.replica))
    })?;

    let killed_groups = recover::killed_groups(cgroups.as_ref().ok(), &spec, &left_alone);

    let waker = Waker::new().map_err(system("making an eventfd"))?;
    let (requests, inbox) = sync_channel(REQUESTS);
    let realm = table.realm();
    let host = HostPart { name: procfs::host_name(), boot_id: procfs::boot_id() };
    let history = History::new(realm, generation, opened.last_seq, clock::wall());
    let forward = forward::Forwarder::waking(waker.clone());
    let announcer = Announcer::new(history, host.clone()).forwarding(forward.clone());
    announcer.publish(What::ManagerStart);
    let (metrics, wanted) = tokio::sync::watch::channel(spec.metrics);
    let handle = Handle::new(requests, waker.clone(), announcer.clone(), wanted);
    handle.configured(&spec);
    // A guardian that is new knows of none.
    let sockets =
        sockets::Keeper::inherit(&spec, &vault).map_err(system("talking to the guardian"))?;
    let left = if same_guardian { vault.take(vault::NO_RUN).ok().flatten() } else { None };
    let given_control = given.remove(Role::Control);
    let metrics_socket = given.remove(Role::Metrics);
    let listening = succeed::listener(&state, given_control, left.unwrap_or_default())
        .map_err(system("listening on the socket"))?;
    if let Some(file) = &listening.file {
        // Who comes while there is no manager waits for the next.
        let kept = vault.store(vault::NO_RUN, &[listening.socket.as_fd(), file.as_fd()]);
        kept.map_err(system("listening on the socket"))?;
    }
    let runs: Vec<_> = kept.iter().map(|kept| kept.alive.incarnation).collect();
    let inherited = succeed::Inherited::read(&state, generation, &runs);
    let mut output = LogFiles::open(&state.output())?;
    for replica in &spared {
        output.go_on(replica);
    }
    let (spool, unwritten) = spooled(&state, kept.is_empty());
    let files = disk::Files { state: state.clone(), journal, output };
    let disk = disk::Disk::start(files, waker.clone(), announcer.clone())
        .map_err(system("starting a thread"))?;
    let sweeper = sweeper::Sweeper::start(waker.clone(), guardian_pid)
        .map_err(system("starting a thread"))?;
    let bell = Waker::new().map_err(system("making an eventfd"))?;
    let (orders, ordered) = sync_channel(2 * MAX_STARTING);
    let store = vault.another().map_err(system("talking to the guardian"))?;
    let (answers, spawner_socket) = fds::message_pair().map_err(system("making a socket"))?;
    let (hand_over, handed_over) = fds::message_pair().map_err(system("making a socket"))?;
    let found = channel();
    let child = crate::exit::Signal::new(libc::SIGCHLD).expect("SIGCHLD is a signal");
    let poller = || epoll::Poller::new().map_err(system("waiting"));

    let variable = |name: &str| std::env::var(name).ok();
    let mut control = control::Control {
        state,
        realm,
        origin: record::Origin { host, generation },
        started_at: clock::wall(),
        guardian_pid,
        spec: Arc::clone(&spec),
        written,
        scale: intent.scale,
        profiles: intent.profiles,
        supervisor: Supervisor::new(table.next_incarnation(), table.realm().0 ^ generation.0),
        surroundings: launch::Surroundings::collect(
            variable,
            user::own(),
            launch::Own {
                ids: user::ids(),
                groups: user::own_groups(),
                nofile,
                locks: limits::locks().ok(),
            },
        ),
        cgroups,
        controllers,
        memory_looks: BTreeSet::new(),
        killed_groups,
        make_inside: true,
        descriptors: usize::try_from(nofile.hard).unwrap_or(usize::MAX),
        poller: poller()?,
        logs: poller()?,
        ports: poller()?,
        hooks: hooks::Hooks::default(),
        sockets: sockets::Sockets::new(waker.clone(), found.0.clone(), sockets),
        waker: waker.clone(),
        children: Inbox::open(&[child]).map_err(system("receiving signals"))?,
        guardian,
        requests: inbox,
        announcer,
        held: HashMap::new(),
        spawner: orders,
        hand_over: spawner::HandOver::new(hand_over),
        bell: bell.clone(),
        answers,
        disk,
        sweeper,
        forward,
        terminal,
        found,
        table,
        vault,
        succession: None,
        spool,
        notes,
        guarded: HashSet::new(),
        untold: HashMap::new(),
        alone: false,
        free_slots: recovered.free,
        table_mark: recovered.mark,
        homes: recovered.homes,
        runs: HashMap::new(),
        present: HashMap::new(),
        pending: HashMap::new(),
        record_deadlines: BTreeSet::new(),
        sweeping: HashMap::new(),
        discarding: 0,
        lingering: BTreeMap::new(),
        prompts: prompts::Prompts::default(),
        last: HashMap::new(),
        shown: HashMap::new(),
        waiters: Vec::new(),
        calls: HashMap::new(),
        room: room::Queue::default(),
        next_call: 1,
        guests: guest::Guests::new(),
        shakes: HashMap::new(),
        receptions: HashMap::new(),
        manners: HashMap::new(),
        port_deadlines: BTreeSet::new(),
        protocols: speak::Protocols::default(),
        probes: probes::Probes::new(waker.clone()),
        patterns: readiness::Patterns::default(),
        intent: 0,
        persisted: 0,
        intent_again: None,
        applying: Vec::new(),
        reload_on_hang_up: options.reload_on_hang_up,
        removes_socket: listening.is_ours,
        tidings: report::Tidings::new(options.notify),
        exit_with: options.exit_with.clone().map(exit_with::ExitWith::new),
        handle: handle.clone(),
        guardian_life,
        stopped: intent.stopped.clone(),
        timetable: Timetable::new(jiff::tz::TimeZone::system()),
        last_due: intent.due,
        look_at: None,
        output_paused: None,
        output_overdue: false,
        health: control::Health::default(),
        book: measure::book_of(&spec),
        metrics,
        configured_at: clock::wall(),
        told_all: clock::now(),
        seen_from: clock::now(),
        lateness: lateness::Lateness::default(),
        strays: None,
        shutting_down: false,
        explained: None,
        down: false,
        buffer: vec![0; BUFFER],
        inbox: VecDeque::new(),
        verdicts: Vec::new(),
        news: Vec::new(),
        feeding: false,
        rested: false,
    };
    control.watch_own().map_err(system("waiting"))?;
    control.recall();
    control.schedule();
    let configure = Configure {
        spec,
        by: Requester { uid: None, pid: None, who: "wharf up".to_owned() },
        past: recovered.past,
        stopped: intent.stopped,
        down: None,
    };
    let superseded = recovered.superseded;
    let live = move || {
        let (mut exchanges, supervisor) = match inherited {
            Some(left) => {
                control.book = left.book;
                (left.exchanges.into_iter().collect(), Some(left.supervisor))
            }
            None => (HashMap::new(), None),
        };
        for kept in kept {
            let saved = exchanges.remove(&kept.alive.incarnation);
            control.take_over(kept, saved);
        }
        control.linger_on();
        control.vault.say(Word::Settled, vault::NO_RUN);
        control.write_left(unwritten);
        control.superseded(superseded);
        match supervisor {
            Some(supervisor) => control.go_on_with(supervisor),
            None => control.begin(configure),
        }
        let _ = std::fs::remove_file(control.state.handover());
        control.open_first_sockets();
        let _ = fds::send(control.guardian.as_fd(), READY, &[]);
        let code = match control.serve() {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(%error, "the loop cannot go on");
                FAULT
            }
        };
        control.say_goodbye(code == 0);
        if code == 0 {
            control.say_exit_code();
        }
        std::process::exit(code);
    };
    // Whoever is let in before the loop turns waits for it; once the guardian hears that this manager is
    // ready, everybody is answered.
    let doors = Doors { control: listening.socket, metrics: metrics_socket.map(TcpListener::from) };
    serve(doors, handle).map_err(system("serving the socket"))?;
    vital("control", live).map_err(system("starting a thread"))?;
    let links = spawner::Links { answers: spawner_socket, handed_over, guardian: store };
    let served = spawner::serve(&ordered, &bell, links);
    // The loop ends the process; until then this thread must live, or its children would be killed.
    if let Err(error) = served {
        tracing::error!(%error, "the spawner cannot go on");
        std::process::exit(FAULT);
    }
    drop(lock);
    loop {
        std::thread::park();
    }
}

/// The ring of what was read of kept programs, and what an earlier life left in it. Without one what it
/// had not written is lost, and nobody can say how much that is.
fn spooled(state: &StateDir, is_fresh: bool) -> (Option<Spool>, Left) {
    if is_fresh {
        return (None, Left::default());
    }
    match Spool::open(&state.spool()) {
        Ok(mut spool) => {
            let left = spool.left();
            (Some(spool), left)
        }
        Err(error) => {
            tracing::error!(%error, "what an earlier manager had read and not written is lost");
            (None, Left::default())
        }
    }
}

/// Starts a thread without which the manager is worth nothing: should it panic, the process ends
/// and the guardian starts another.
fn vital(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let run = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            std::process::exit(FAULT);
        }
    };
    std::thread::Builder::new().name(name.to_owned()).stack_size(512 << 10).spawn(run).map(drop)
}

fn log_to(terminal: &terminal::Terminal, options: &Options) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WHARF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(options.foreground && options.color)
        .with_target(false)
        .with_writer(terminal.clone())
        .finish();
    // A second manager in one process would be a test's; it shares the first one's log.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
