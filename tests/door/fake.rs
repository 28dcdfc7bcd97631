//! A manager's loop that does nothing: it answers what a test wants and remembers what it was asked.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use wharf::event::{State, Verb};
use wharf::manager::{
    Announcer, Handle, History, ManagerStatus, REQUESTS, ReadState, Refusal, ReplicaStatus,
    Request, Snapshot, SpeakError, Speech, What,
};
use wharf::name::{Generation, Incarnation, Realm, ReplicaId, Requester, ServiceName};
use wharf::os::fds::Waker;
use wharf::os::socket;
use wharf::spec::{self, Spec};
use wharf::state::{Applied, StateDir};
use wharf::time::Wall;

/// What the loop was asked, in short.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Command(Verb, String, Requester),
    Speak(String, Bytes, Speech),
    /// A question that is left without an answer; it is dropped when the test drops this.
    Kept(Kept),
    Scale(String, u32, Requester),
    Apply(Vec<String>, Requester),
    Shutdown(Requester),
}

/// Holds a question open.
#[derive(Debug)]
pub(crate) struct Kept(pub(crate) oneshot::Sender<Result<Vec<Bytes>, SpeakError>>);

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

/// The API in front of a loop that does nothing.
pub(crate) struct Fake {
    pub(crate) _folder: TempDir,
    pub(crate) state: StateDir,
    pub(crate) told: Announcer,
    pub(crate) asked: Receiver<Asked>,
    /// Metrics are not to be scraped over TCP as long as this is held.
    _metrics: watch::Sender<Option<spec::Metrics>>,
}

pub(crate) const SERVICES: &str = "\
version: 1
services:
  web: { command: [./server], replicas: 2, environment: { API_TOKEN: hunter2 } }
  db: { command: [sqlite3], port: { framing: lines, replies: one } }
  none: { command: [x], replicas: 0 }
";

pub(crate) fn write_services(state: &StateDir, text: &str) -> Spec {
    let file = state.state.parent().unwrap().join("services.yaml");
    std::fs::write(&file, text).unwrap();
    spec::load(&[file], &|_| None).unwrap().spec
}

/// A folder with services.yaml and a state directory whose socket's path is longer than 107 bytes.
pub(crate) fn folder() -> (TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let state = StateDir::project(&long.join(".wharf"));
    state.create().unwrap();
    (folder, state)
}

pub(crate) fn start() -> Fake {
    let (folder, state) = folder();
    let spec = Arc::new(write_services(&state, SERVICES));
    let applied =
        Applied { schema: 1, realm: Realm(7), spec: (*spec).clone(), earlier: Vec::new() };
    state.write_applied(&applied).unwrap();
    let listener = socket::listen(&state.socket()).unwrap();
    let (requests, inbox) = sync_channel(REQUESTS);
    let history = History::new(Realm(7), Generation(1), 0, Wall(0));
    let host = wharf::exit::HostPart { name: "h".to_owned(), boot_id: "b".to_owned() };
    let told = Announcer::new(history, host);
    let (metrics, wanted) = watch::channel(None);
    let handle = Handle::new(requests, Waker::new().unwrap(), told.clone(), wanted);
    wharf::api::serve(listener, handle, state.clone()).unwrap();
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        let mut life = Loop { spec, asked: tell };
        for request in inbox {
            life.answer(request);
        }
    });
    Fake { _folder: folder, state, told, asked, _metrics: metrics }
}

struct Loop {
    spec: Arc<Spec>,
    asked: Sender<Asked>,
}

impl Loop {
    fn answer(&mut self, request: Request) {
        // A client that went away, and a test that is over, want no answer.
        match request {
            Request::Snapshot { reply } => drop(reply.send(snapshot())),
            Request::Spec { reply } | Request::Written { reply } => {
                drop(reply.send(Arc::clone(&self.spec)));
            }
            Request::Scale { service, replicas, by, reply } => {
                let _ = reply.send(command(service.as_str()));
                let _ = self.asked.send(Asked::Scale(service.to_string(), replicas, by));
            }
            Request::Command { verb, target, by, reply } => {
                let name = target.to_string();
                let _ = reply.send(command(&name));
                let _ = self.asked.send(Asked::Command(verb, name, by));
            }
            Request::Speak { target, payload, kind, reply, .. } => {
                let name = target.to_string();
                if name == "mute" {
                    let _ = self.asked.send(Asked::Kept(Kept(reply)));
                    return;
                }
                let _ = reply.send(speak(&name, &payload));
                let _ = self.asked.send(Asked::Speak(name, payload, kind));
            }
            Request::Measure { reply } => drop(reply.send(Box::default())),
            Request::Join(_)
            | Request::Forget
            | Request::ReloadRefused
            | Request::Drained { .. }
            | Request::MetricsDoor { .. } => {}
            Request::Apply { spec, by, reply } => {
                let names = spec.services.keys().map(ToString::to_string).collect();
                self.spec = Arc::new(*spec);
                let _ = reply.send(Ok(()));
                let _ = self.asked.send(Asked::Apply(names, by));
            }
            Request::Upgrade { reply, .. } => {
                let msg = "web/1 would be restarted: its on_manager_exit is die".to_owned();
                let _ = reply.send(Err(Refusal::Upgrade { msg }));
            }
            Request::Shutdown { by, reply } => {
                let _ = reply.send(());
                let _ = self.asked.send(Asked::Shutdown(by));
            }
        }
    }
}

fn command(name: &str) -> Result<Vec<ReplicaStatus>, Refusal> {
    match name {
        "nosuch" => Err(Refusal::NoSuchService {
            name: name.to_owned(),
            suggestion: Some("none".to_owned()),
        }),
        "broken" => Err(Refusal::Ended { msg: "broken/1 exited with code 1".to_owned() }),
        "down" => Err(Refusal::NotRunning { name: name.to_owned(), state: State::Stopped }),
        "busy" => Err(Refusal::Busy),
        _ => Ok(vec![replica(name.split('/').next().unwrap(), 1, State::Running)]),
    }
}

fn speak(name: &str, payload: &Bytes) -> Result<Vec<Bytes>, SpeakError> {
    match name {
        "plain" => Err(SpeakError::NotAPort { name: name.to_owned() }),
        "slow" => {
            Err(SpeakError::TimedOut { after_s: 0.5, read: ReadState::MaybeRead, held_up: false })
        }
        "garbled" => Err(SpeakError::BadReply { msg: "no newline".to_owned() }),
        "nosuch" => {
            let name = name.to_owned();
            Err(SpeakError::Refused(Refusal::NoSuchService { name, suggestion: None }))
        }
        "dead" => Err(SpeakError::Ended {
            msg: "dead/1 was killed by SIGKILL".to_owned(),
            reason: wharf::exit::Reason::Signaled,
            exit_code: None,
            signal: Some("SIGKILL".to_owned()),
            incarnation: Incarnation(3),
            read: ReadState::NeverRead,
        }),
        // The words of the message, each a message of the reply.
        "words" => Ok(payload.split(|byte| *byte == b' ').map(Bytes::copy_from_slice).collect()),
        "silent" => Ok(Vec::new()),
        _ => Ok(vec![payload.clone()]),
    }
}

pub(crate) fn replica(service: &str, number: u32, state: State) -> ReplicaStatus {
    ReplicaStatus {
        listen: Vec::new(),
        service: service.to_owned(),
        replica: number,
        state,
        pid: (state == State::Running).then_some(4242),
        incarnation: Some(Incarnation(17)),
        restarts: 0,
        ready: state == State::Running,
        uptime_s: None,
        crash_looping: false,
        failures_in_a_row: 0,
        since: Wall(0),
        health: None,
        check: None,
        status_text: None,
        next_start_s: None,
        last_exit: None,
        port: None,
        limits: vec![],
        command: vec!["./server".to_owned()],
        note: None,
        labels: std::collections::BTreeMap::new(),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        manager: ManagerStatus {
            version: "0.1.0".to_owned(),
            pid: 12,
            guardian_pid: 11,
            generation: Generation(1),
            realm: Realm(7),
            started_at: Wall(0),
            cgroups: "in use".to_owned(),
            degraded: vec!["the disk is full".to_owned()],
            output_dropped_bytes: 0,
            forward_dropped: 0,
            hooks_dropped: 0,
            journal_write_errors: 0,
            records_waiting: 0,
            shutting_down: false,
        },
        replicas: vec![
            replica("web", 1, State::Running),
            replica("web", 2, State::Backoff),
            replica("db", 1, State::Running),
        ],
    }
}

/// A message of a port that is no reply.
pub(crate) fn message(text: &str) -> What {
    What::Message {
        replica: ReplicaId { service: ServiceName::new("web").unwrap(), replica: 1 },
        incarnation: Incarnation(17),
        text: Some(text.into()),
        bytes: 1,
    }
}

/// An exit that is in the journal, if the caller puts it there.
pub(crate) fn exit(seq: u64, service: &str) -> What {
    let line = exit_line(seq, service, "failed");
    let record = serde_json::from_str(&line).unwrap();
    What::Exit { record: Arc::new(record), line: line.into() }
}

/// A line of the journal.
pub(crate) fn exit_line(seq: u64, service: &str, reason: &str) -> String {
    let ts = format!("2026-11-22T07:31:{:02}.000000000Z", seq % 60);
    format!(
        r#"{{"ts":"{ts}","seq":{seq},"schema":1,"level":"warn","event":{{"name":"process.exit"}},"msg":"{service}/1 ended","host":{{"name":"h","boot_id":"b"}},"manager":{{"generation":1}},"service":{{"name":"{service}","replica":1,"incarnation":{seq}}},"process":{{"pid":7,"exit":{{"code":3}}}},"exit":{{"how":"exited","reason":"{reason}","cause":"spontaneous","evidence":[],"certainty":"certain"}},"uptime_s":1.5,"stderr_tail":"oh no\n","restart":{{"decision":"no"}}}}"#
    )
}

pub(crate) fn write_journal(state: &Path, lines: &[String]) {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    std::fs::write(state.join("exits.jsonl"), text).unwrap();
}
