//! The states of a replica, drawn from the machine itself: every event is tried in every situation,
//! and `docs/replica-states.md` has to say what came of it. `WHARF_BLESS=1` writes the page anew.

#![expect(clippy::unwrap_used, reason = "a page that cannot be drawn should stop the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use wharf::event::{Action, Configure, End, Event, Said, Verb};
use wharf::exit::{Cause, Errno, How, Signal};
use wharf::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use wharf::spec::{
    Cgroups, Check, Contents, Healthcheck, Missed, OnOom, Overlap, Policy, Port, Readiness, Ready,
    ReadyBy, Restart, Rhythm, Schedule, Service, SignalName, Spec,
};
use wharf::supervise::{MAX_STARTING, Supervisor, View};
use wharf::time::Tick;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/replica-states.md");

/// Everything that can happen to a replica.
const EVENTS: &[&str] = &[
    "start",
    "stop",
    "restart",
    "signal",
    "shutdown",
    "second shutdown",
    "another configuration",
    "a changed file",
    "removed",
    "made",
    "runs",
    "ready",
    "no resources",
    "exit 0",
    "exit 1",
    "exit 1, survivors",
    "swept",
    "protocol error",
    "its time comes",
    "a helper out of memory",
    "good answer",
    "bad answer",
    "too much memory",
    "WATCHDOG=trigger",
    "STOPPING=1",
    "deadline",
];

/// Every situation a replica can be in, and how it gets there from its first start.
const SITUATIONS: &[(&str, &[&str])] = &[
    ("in line for its start", &["crowded"]),
    ("without resources to start", &["no resources"]),
    ("ordered", &[]),
    ("made", &["made"]),
    ("runs, not ready yet", &["slow", "made", "runs"]),
    ("asked whether it is ready", &["checked", "made", "runs"]),
    ("running", &["made", "runs"]),
    ("asked whether it is well", &["checked", "made", "runs", "good answer", "deadline"]),
    ("about to end by itself", &["checked", "made", "runs", "good answer", "STOPPING=1"]),
    ("running after a failure", &["made", "runs", "exit 1", "made", "runs"]),
    ("backing off", &["made", "runs", "exit 1", "made", "runs", "exit 1"]),
    ("to stop, not made yet", &["stop"]),
    ("asked to stop", &["made", "runs", "stop"]),
    ("asked to make room for a restart", &["made", "runs", "restart"]),
    ("killed", &["made", "runs", "stop", "deadline"]),
    ("killed and still there", &["made", "runs", "stop", "deadline", "deadline"]),
    ("swept before a restart", &["made", "runs", "exit 1, survivors"]),
    ("swept after a stop", &["made", "runs", "stop", "exit 1, survivors"]),
    ("stopped", &["stop", "made", "exit 0"]),
    ("finished", &["made", "runs", "exit 0"]),
    ("failed", &["policy no", "made", "runs", "exit 1"]),
    ("before its time", &["scheduled"]),
    ("running by its schedule", &["scheduled", "its time comes", "made", "runs"]),
    (
        "running, due again",
        &["scheduled", "queue", "its time comes", "made", "runs", "its time comes"],
    ),
    ("running, to be replaced when due", &["scheduled", "kill", "its time comes", "made", "runs"]),
    ("finished until its time", &["scheduled", "its time comes", "made", "runs", "exit 0"]),
];

struct Bench {
    supervisor: Supervisor,
    now: Tick,
    service: Service,
    crowd: Option<Arc<Service>>,
    /// The last run that the replica had.
    run: Incarnation,
    /// The last question it was asked.
    question: u64,
}

fn id() -> ReplicaId {
    ReplicaId { service: ServiceName::new("web").unwrap(), replica: 1 }
}

fn by() -> Requester {
    Requester { uid: None, pid: None, who: "test".to_owned() }
}

fn service(name: &str) -> Service {
    Service {
        command: vec!["server".to_owned()],
        config_files: [("/etc/server.conf".into(), Contents::File("a text".to_owned()))].into(),
        reload_signal: Some(SignalName(Signal::HUP)),
        restart: Restart { jitter: 0.0, ..Restart::default() },
        ..Service::new(ServiceName::new(name).unwrap())
    }
}

/// The same, watched in every way.
fn checked(service: Service) -> Service {
    let check = || Check::Tcp("localhost:1".to_owned());
    let (timeout, interval) = (Duration::from_secs(60), Duration::from_secs(1));
    Service {
        ready: Some(Readiness { by: ReadyBy::Probe(check()), timeout, interval }),
        healthcheck: Some(Healthcheck { retries: 1, ..Healthcheck::new(check()) }),
        watchdog: Some(timeout),
        max_memory: Some(1 << 30),
        ..service
    }
}

impl Bench {
    /// A replica in the situation that these events lead to.
    fn new(path: &[&str]) -> Self {
        let mut bench = Self {
            supervisor: Supervisor::new(Incarnation(1), 7),
            now: Tick(0),
            service: service("web"),
            crowd: None,
            run: Incarnation(0),
            question: 0,
        };
        bench.service.limits.on_oom = OnOom::Kill;
        if path.contains(&"policy no") {
            bench.service.restart.policy = Policy::No;
        }
        if path.contains(&"slow") {
            let port = Port { ready: Ready::FirstMessage, ..Port::default() };
            bench.service.port = Some(port);
        }
        if path.contains(&"scheduled") {
            let overlap = match path {
                [_, "queue", ..] => Overlap::Queue,
                [_, "kill", ..] => Overlap::Kill,
                _ => Overlap::Skip,
            };
            let rhythm = Rhythm::Every(Duration::from_secs(600));
            bench.service.schedule = Some(Schedule { rhythm, overlap, missed: Missed::Run });
            bench.service.restart.policy = Policy::No;
        }
        if path.contains(&"checked") {
            bench.service = checked(bench.service);
        }
        if path.contains(&"crowded") {
            let replicas = u32::try_from(MAX_STARTING).unwrap();
            bench.crowd = Some(Arc::new(Service { replicas, ..service("crowd") }));
        }
        bench.configure(true);
        for event in path {
            if !["policy no", "crowded", "slow", "scheduled", "queue", "kill", "checked"]
                .contains(event)
            {
                bench.happens(event);
            }
        }
        bench
    }

    fn configure(&mut self, present: bool) -> Vec<Action> {
        let service = present.then(|| Arc::new(self.service.clone()));
        let services = self.crowd.iter().cloned().chain(service);
        let spec = Spec {
            files: Vec::new(),
            cgroups: Cgroups::Auto,
            metrics: None,
            on_event: Vec::new(),
            services: services.map(|service| (service.name.clone(), service)).collect(),
            groups: indexmap::IndexMap::new(),
        };
        let spec = Arc::new(spec);
        let configure =
            Configure { spec, by: by(), past: Vec::new(), stopped: Vec::new(), down: None };
        self.step(Event::Configure(Box::new(configure)))
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.supervisor.step(self.now, event);
        for action in &actions {
            if let Action::Spawn { incarnation, replica, .. } = action
                && *replica == id()
            {
                self.run = *incarnation;
            }
            if let Action::Probe { number, .. } = action {
                self.question = *number;
            }
        }
        actions
    }

    fn happens(&mut self, event: &str) -> Vec<Action> {
        let incarnation = self.run;
        let command = |verb| Event::Command {
            verb,
            target: Target { service: id().service, replica: None },
            by: by(),
        };
        let ended = |code, survivors| Event::Ended {
            incarnation,
            end: End { survivors, ..End::plain(How::Exited(code)) },
        };
        let shutdown = || Event::Shutdown { cause: Cause::ManagerShutdown, by: by() };
        self.now = self.now + Duration::from_millis(1);
        let event = match event {
            "start" => command(Verb::Start),
            "stop" => command(Verb::Stop),
            "restart" => command(Verb::Restart),
            "signal" => command(Verb::Signal(Signal::HUP)),
            "shutdown" => shutdown(),
            "second shutdown" => {
                self.step(shutdown());
                shutdown()
            }
            "another configuration" => {
                self.service.command.push("-v".to_owned());
                return self.configure(true);
            }
            "a changed file" => {
                let stands = Contents::File("another text".to_owned());
                self.service.config_files.insert("/etc/server.conf".into(), stands);
                return self.configure(true);
            }
            "removed" => return self.configure(false),
            "made" => Event::Spawned { incarnation },
            "runs" => Event::Started { incarnation },
            "ready" => Event::Ready { incarnation },
            "no resources" => Event::Deferred { incarnation, errno: Errno(11) },
            "exit 0" => ended(0, false),
            "exit 1" => ended(1, false),
            "exit 1, survivors" => ended(1, true),
            "swept" => Event::Swept { incarnation, stuck: false },
            "protocol error" => Event::ProtocolError { incarnation },
            "its time comes" => Event::Due { service: id().service },
            "a helper out of memory" => Event::OutOfMemory { incarnation },
            "good answer" | "bad answer" => {
                let good = event == "good answer";
                let result = if good { Ok(()) } else { Err("refused".into()) };
                Event::Probed { incarnation, number: self.question, result }
            }
            "too much memory" => Event::Measured { incarnation, bytes: 1 << 40 },
            "WATCHDOG=trigger" => Event::Said { incarnation, said: Said::Unwell },
            "STOPPING=1" => Event::Said { incarnation, said: Said::Stopping },
            "deadline" => {
                self.now = self.supervisor.next_deadline().unwrap_or(self.now);
                Event::Time
            }
            other => panic!("no event: {other}"),
        };
        self.step(event)
    }

    fn view(&self) -> Option<View> {
        self.supervisor.view(&id())
    }

    fn state(&self) -> &'static str {
        self.view().map_or("forgotten", |view| view.state.as_str())
    }

    /// The actions about the replica in a few words.
    fn tell(&self, actions: &[Action]) -> Vec<String> {
        let mine = |incarnation: &Incarnation| {
            *incarnation == self.run
                || self.view().and_then(|view| view.last).map(|last| last.incarnation)
                    == Some(*incarnation)
        };
        let mut told = Vec::new();
        for action in actions {
            match action {
                Action::Spawn { replica, .. } if *replica == id() => told.push("Spawn".to_owned()),
                Action::Signal { incarnation, signal, .. } if mine(incarnation) => {
                    told.push(signal.to_string());
                }
                Action::Reread { replica, reread, .. } if *replica == id() => {
                    told.push(format!("Reread ({})", reread.signal));
                }
                Action::Kill { incarnation, .. } if mine(incarnation) => {
                    told.push("Kill".to_owned());
                }
                Action::Record { replica, verdict, .. } if *replica == id() => {
                    told.push(format!("Record ({})", verdict.cause));
                }
                Action::Sweep { incarnation, .. } if mine(incarnation) => {
                    told.push("Sweep".to_owned());
                }
                Action::Probe { incarnation, purpose, .. } if mine(incarnation) => {
                    told.push(format!("Probe ({purpose:?})"));
                }
                Action::Measure { incarnation } if mine(incarnation) => {
                    told.push("Measure".to_owned());
                }
                Action::Forget { replica } if *replica == id() => told.push("Forget".to_owned()),
                Action::Overlapped { replica } if *replica == id() => {
                    told.push("Overlapped".to_owned());
                }
                Action::Down => told.push("Down".to_owned()),
                Action::Spawn { .. }
                | Action::Signal { .. }
                | Action::Reread { .. }
                | Action::Kill { .. }
                | Action::Record { .. }
                | Action::Sweep { .. }
                | Action::Probe { .. }
                | Action::Measure { .. }
                | Action::Forget { .. }
                | Action::Overlapped { .. }
                | Action::SendQuit { .. }
                | Action::CloseInput { .. }
                | Action::Changed { .. }
                | Action::Halted { .. }
                | Action::Persist => {}
            }
        }
        told
    }
}

/// What is seen of a replica when it is looked at closely, to tell whether anything happened.
fn close_look(bench: &Bench) -> String {
    let view = bench.view().map(|view| View { since: Tick(0), ..view });
    format!("{view:?} {:?}", bench.supervisor.next_deadline())
}

fn page() -> String {
    let mut edges: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut rows = String::new();
    for (situation, path) in SITUATIONS {
        for event in EVENTS {
            let mut bench = Bench::new(path);
            let (from, before) = (bench.state(), close_look(&bench));
            let actions = bench.happens(event);
            let to = bench.state();
            let told = bench.tell(&actions);
            if from != to {
                edges.entry((from, to)).or_default().insert(event);
            }
            if from != to || !told.is_empty() || close_look(&bench) != before {
                let told = if told.is_empty() { "—".to_owned() } else { told.join(", ") };
                let _ = writeln!(rows, "| {from}: {situation} | {event} | {to} | {told} |");
            }
        }
    }
    let mut page = String::from(
        "# The states of a replica\n\nDrawn by `tests/states.rs` from the machine itself: every event was tried \
         in every situation. Where the policy restarts\nsomething at once, the start is part of the same step. \
         The rules are in [POLICY.md](POLICY.md).\n\n```mermaid\nstateDiagram-v2\n    [*] --> starting: configured\n",
    );
    for ((from, to), events) in edges {
        let to = if to == "forgotten" { "[*]" } else { to };
        let events: Vec<_> = EVENTS.iter().copied().filter(|e| events.contains(e)).collect();
        let _ = writeln!(page, "    {from} --> {to}: {}", events.join(" / "));
    }
    page.push_str("```\n\nWhat is not in the table changes nothing that can be seen.\n\n");
    page.push_str("| in | when | then | actions |\n|---|---|---|---|\n");
    page.push_str(&rows);
    page
}

#[test]
fn the_page_shows_the_machine() {
    let drawn = page();
    if std::env::var_os("WHARF_BLESS").is_some() {
        std::fs::write(PAGE, &drawn).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        drawn == written,
        "docs/replica-states.md is not what the machine does; WHARF_BLESS=1 writes it anew"
    );
}

#[test]
fn every_state_is_drawn() {
    let reached: BTreeSet<_> =
        SITUATIONS.iter().map(|(_, path)| Bench::new(path).state()).collect();
    let all = [
        "backoff",
        "failed",
        "finished",
        "running",
        "starting",
        "stopped",
        "stopping",
        "unkillable",
        "waiting",
    ];
    assert_eq!(reached, BTreeSet::from(all));
}
