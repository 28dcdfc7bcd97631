//! `wharf status`: all about a service in the manner of `systemctl status`, or about the manager and
//! everything in short.
//!
//! What the manager knows comes from its API; what processes use is read from /proc by the command
//! itself, and the last lines from the log files, so that neither holds up the manager.

use std::fmt::Write as _;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::client::{Client, Question, parse, path_of};
use super::context::Context;
use super::failure::{Failure, NOT_RUNNING, OK};
use super::lines;
use super::out;
use super::overview;
use super::ps;
use super::text::{Show, cut, moment, ordinal, rounded_size, since, span};
use super::tree::{Finder, Processes, drawn};
use crate::event::State;
use crate::manager::{ManagerStatus, ReplicaStatus, SocketStatus};
use crate::name::{ReplicaId, ServiceName, Target};
use crate::os::{clock, procfs};
use crate::output::{Line, LogReader, Range};
use crate::time::Wall;

/// How many pieces of a line that has not ended are shown at most.
const PIECES: usize = 4;

/// Show all about a service; without a name, about the manager and every service
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf status
  wharf status web && echo it runs
  wharf status web/2 -n 50 --full
  wharf status web --json | jq '.[].processes.memory_bytes'

Exit code with a name: 0 it runs, 3 it does not.")]
pub(super) struct Status {
    /// A service, or a single replica
    #[arg(value_name = "NAME[/R]")]
    name: Option<Target>,
    /// How many of the last lines of output are shown
    #[arg(short = 'n', long = "lines", value_name = "LINES", default_value_t = 10)]
    lines: usize,
    /// Nothing is cut to the width of the terminal
    #[arg(short = 'l', long)]
    full: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client("status")?;
        let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
        match &self.name {
            None => self.everything(&client, show),
            Some(name) => self.one(name, &client, context, show),
        }
    }

    fn everything(&self, client: &Client, show: Show) -> Result<u8, Failure> {
        let manager: Value = client.get("/v1/manager")?;
        let replicas: Vec<ReplicaStatus> = client.get("/v1/services")?;
        let known: ManagerStatus = understood(&manager)?;
        let mut finder = Finder::new(known.realm);
        let found: Vec<_> = replicas.iter().map(|replica| finder.find(replica)).collect();
        if self.json {
            let services: Vec<Value> = replicas
                .iter()
                .zip(&found)
                .map(|(replica, found)| with(replica, "processes", json!(found)))
                .collect();
            out::print_document(&json!({ "manager": manager, "services": services }))?;
            return Ok(OK);
        }
        let now = clock::wall();
        let text = overview::manager(&known, now, &TimeZone::system(), show);
        out::print(&format!("{text}\n{}", overview::services(&replicas, &found, now, show)))?;
        Ok(OK)
    }

    fn one(
        &self,
        name: &Target,
        client: &Client,
        context: &Context,
        show: Show,
    ) -> Result<u8, Failure> {
        let reply = client.ask(Question::get(path_of(name, "")))?;
        let replicas: Vec<ReplicaStatus> = parse(&reply.body)?;
        let running =
            !replicas.is_empty() && replicas.iter().all(|replica| replica.state == State::Running);
        let manager: ManagerStatus = client.get("/v1/manager")?;
        let config: Value = client.get("/v1/config")?;
        let mut finder = Finder::new(manager.realm);
        let facts: Vec<Facts> = replicas
            .iter()
            .map(|replica| Facts {
                processes: finder.find(replica),
                executable: replica
                    .pid
                    .and_then(procfs::executable)
                    .map(|path| path.to_string_lossy().into_owned()),
                next: next(replica, policy(&config, &replica.service)),
                lines: last_lines(context, replica, self.lines),
            })
            .collect();
        if self.json {
            let all: Vec<Value> =
                replicas.iter().zip(&facts).map(|(replica, facts)| facts.json(replica)).collect();
            out::print_document(&all)?;
        } else if replicas.is_empty() {
            out::print(&format!("{name} has no replicas\n"))?;
        } else {
            let page = Page {
                now: clock::wall(),
                zone: TimeZone::system(),
                width: (!self.full).then(out::width).flatten(),
                show,
            };
            let blocks: Vec<String> =
                replicas.iter().zip(&facts).map(|(one, facts)| page.block(one, facts)).collect();
            out::print(&blocks.join("\n"))?;
        }
        Ok(if running { OK } else { NOT_RUNNING })
    }
}

fn understood(manager: &Value) -> Result<ManagerStatus, Failure> {
    parse(manager.to_string().as_bytes())
}

/// The object of a replica with one more field.
fn with(replica: &ReplicaStatus, field: &str, value: Value) -> Value {
    let mut object = json!(replica);
    if let Value::Object(map) = &mut object {
        map.insert(field.to_owned(), value);
    }
    object
}

/// What the command finds out by itself.
struct Facts {
    processes: Option<Processes>,
    executable: Option<String>,
    next: String,
    lines: Vec<Line>,
}

impl Facts {
    /// What the API says of the replica, and these facts beside it.
    fn json(&self, replica: &ReplicaStatus) -> Value {
        let mut object = with(replica, "processes", json!(self.processes));
        if let Value::Object(map) = &mut object {
            map.insert("executable".to_owned(), json!(self.executable));
            map.insert("next".to_owned(), json!(self.next));
            let id = id_of(replica);
            let lines =
                self.lines.iter().filter_map(|line| Some(lines::object(id.as_ref()?, line)));
            map.insert("log".to_owned(), lines.collect());
        }
        object
    }
}

fn id_of(replica: &ReplicaStatus) -> Option<ReplicaId> {
    let service = ServiceName::new(&replica.service).ok()?;
    Some(ReplicaId { service, replica: replica.replica })
}

/// The last lines of output. What cannot be read is missing: `wharf logs` says why.
fn last_lines(context: &Context, replica: &ReplicaStatus, count: usize) -> Vec<Line> {
    let Some(id) = id_of(replica) else { return Vec::new() };
    let range = Range { last: Some(count), ..Range::default() };
    let reader = LogReader::open(&context.state.output(), &id);
    let lines = reader.and_then(|reader| reader.lines(range)).into_iter().flatten();
    lines.flatten().collect()
}

/// The restart policy of a service, by the configuration in effect.
fn policy<'a>(config: &'a Value, service: &str) -> Option<&'a str> {
    config.get("services")?.get(service)?.get("restart")?.get("policy")?.as_str()
}

/// What happens next by itself, or what has to be done for anything to happen.
fn next(replica: &ReplicaStatus, policy: Option<&str>) -> String {
    let name = format!("{}/{}", replica.service, replica.replica);
    let after = match policy {
        Some("no") => "it is not started again when it ends",
        Some("on-failure") => "it is started again when it fails",
        Some("always") => "it is started again whenever it ends",
        Some("unless-stopped") => "it is started again whenever it ends, unless it was stopped",
        _ => "it is no longer configured: nothing starts it again",
    };
    match state_and_wait(replica) {
        (State::Running, _) => after.to_owned(),
        (State::Starting, _) if replica.uptime_s.is_some() => {
            "its program runs and is not ready yet; it is killed when it is not so in time"
                .to_owned()
        }
        (State::Starting, _) => "its program is being started".to_owned(),
        (State::Waiting | State::Failed, _) if replica.note.is_some() => {
            let note = replica.note.as_deref().unwrap_or_default();
            let then = if replica.state == State::Waiting {
                String::new()
            } else {
                format!("; `wharf start {name}` tries again")
            };
            format!("{note}{then}")
        }
        (State::Waiting, Some(wait)) => format!("it starts in {wait}"),
        (State::Waiting, None) => "it starts as soon as there is room".to_owned(),
        (State::Backoff, Some(wait)) => {
            let row = match replica.failures_in_a_row {
                0 | 1 => String::new(),
                many => format!(", {} failure in a row", ordinal(many)),
            };
            format!("start in {wait}{row}")
        }
        (State::Backoff, None) => "it starts again".to_owned(),
        (State::Stopping, Some(wait)) => {
            format!("start in {wait}, once nothing of it is left")
        }
        (State::Stopping, None) => "it is waited for until nothing of it is left".to_owned(),
        (State::Stopped, _) => format!("it stays down until `wharf start {name}`"),
        (State::Finished, Some(wait)) => format!("its schedule starts it in {wait}"),
        (State::Failed, Some(wait)) => {
            format!("its schedule starts it in {wait}; `wharf why {name}` tells why it failed")
        }
        (State::Finished, None) => {
            format!("its work is done; `wharf start {name}` runs it once more")
        }
        (State::Failed, None) => {
            format!("it stays down: `wharf why {name}` tells why, `wharf start {name}` tries again")
        }
        (State::Unkillable, _) => "it was killed and does not end: only the kernel can".to_owned(),
    }
}

fn state_and_wait(replica: &ReplicaStatus) -> (State, Option<String>) {
    (replica.state, replica.next_start_s.map(span))
}

/// How everything is shown.
struct Page {
    now: Wall,
    zone: TimeZone,
    /// How long lines may be; `None` for as long as they are.
    width: Option<usize>,
    show: Show,
}

impl Page {
    fn block(&self, replica: &ReplicaStatus, facts: &Facts) -> String {
        let show = self.show;
        let dot = show.state(replica.state, "●");
        let name = show.bold(&format!("{}/{}", replica.service, replica.replica));
        let state = show.state(replica.state, &ps::state(replica));
        let (at, age) = (moment(replica.since, &self.zone), since(replica.since, self.now));
        let mut text = format!("{dot} {name} {state} since {at} ({age} ago)\n");
        self.field(&mut text, "Command", &show.foreign(&shell_words::join(&replica.command)));
        self.process(&mut text, replica, facts);
        self.field(&mut text, "Ready", if replica.ready { "yes" } else { "no" });
        self.health(&mut text, replica);
        let row = match replica.failures_in_a_row {
            0 => String::new(),
            many => format!(", {many} failures in a row"),
        };
        if let (State::Running, Some(note)) = (replica.state, &replica.note) {
            self.field(&mut text, "Note", note);
        }
        self.field(&mut text, "Restarts", &format!("{}{row}", replica.restarts));
        for (at, limit) in replica.limits.iter().enumerate() {
            // Never cut: it says whether a limit holds.
            let name = if at == 0 { "Limits:" } else { "" };
            let _ = writeln!(text, "{name:>13} {limit}");
        }
        if let Some(port) = &replica.port {
            let (sent, got, queued) = (port.frames_in, port.frames_out, port.queued);
            let framing = &port.framing;
            let mut spoken = format!("{framing}: {sent} sent, {got} received, {queued} queued");
            if port.unmatched > 0 {
                let _ = write!(spoken, ", {} replies to no call dropped", port.unmatched);
            }
            if port.strays > 0 {
                let _ = write!(spoken, ", {} stray lines", port.strays);
            }
            if port.input_closed {
                spoken.push_str(", input closed");
            }
            if port.output_closed {
                spoken.push_str(", output closed");
            }
            self.field(&mut text, "Port", &spoken);
            if let Some(held_up) = port.held_up_s {
                let _ = writeln!(
                    text,
                    "{:>12}: a call that was given up {} ago has no reply yet; others wait for it",
                    "Held up",
                    span(held_up)
                );
            }
        }
        for socket in &replica.listen {
            let SocketStatus { name, address, fd, open } = socket;
            let closed = if *open { "" } else { ", closed while nothing of it runs" };
            let shown = show.foreign(&format!("{address} ({name}, descriptor {fd}{closed})"));
            self.field(&mut text, "Listens", &shown);
        }
        if !replica.labels.is_empty() {
            let labels: Vec<_> =
                replica.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            self.field(&mut text, "Labels", &show.foreign(&labels.join(" ")));
        }
        if let Some(processes) = &facts.processes {
            self.tree(&mut text, processes);
        }
        if let Some(last) = &replica.last_exit {
            let at = moment(last.ts, &self.zone);
            // A sentence that tells a reason is never cut.
            let _ = writeln!(text, "{:>12}: {at} {}", "Last exit", show.foreign(&last.msg));
        }
        let _ = writeln!(text, "{:>12}: {}", "Next", facts.next);
        self.log(&mut text, replica, &facts.lines);
        text
    }

    fn field(&self, text: &mut String, name: &str, value: &str) {
        let _ = writeln!(text, "{}", cut(&format!("{name:>12}: {value}"), self.width));
    }

    /// What is known of its health, and what it says of itself.
    fn health(&self, text: &mut String, replica: &ReplicaStatus) {
        if let Some(health) = ps::health(replica) {
            self.field(text, "Health", &health);
        }
        if let Some(check) = &replica.check {
            let age = since(check.at, self.now);
            let told = match &check.error {
                None => format!("good, {age} ago"),
                // What is wrong is never cut.
                Some(error) => format!("{age} ago: {}", self.show.foreign(error)),
            };
            let _ = writeln!(text, "{:>12}: {told}", "Last check");
        }
        if let Some(said) = &replica.status_text {
            self.field(text, "Status", &self.show.foreign(said));
        }
    }

    fn process(&self, text: &mut String, replica: &ReplicaStatus, facts: &Facts) {
        let (Some(pid), Some(run)) = (replica.pid, replica.incarnation) else { return };
        let program = match &facts.executable {
            Some(path) => format!(" ({})", self.show.foreign(path)),
            None => String::new(),
        };
        let up = replica.uptime_s.map(|up| format!(", up {}", span(up))).unwrap_or_default();
        self.field(text, "Main PID", &format!("{pid}{program}, run {run}{up}"));
    }

    fn tree(&self, text: &mut String, processes: &Processes) {
        let count = match processes.list.len() {
            1 => "1 process".to_owned(),
            many => format!("{many} processes"),
        };
        self.field(text, "Tasks", &format!("{} in {count}", processes.tasks));
        let peak = processes.memory_peak_bytes.map(|peak| format!(", peak {}", rounded_size(peak)));
        let how = if processes.memory_accounted {
            peak.unwrap_or_default()
        } else {
            " resident".to_owned()
        };
        self.field(text, "Memory", &format!("{}{how}", rounded_size(processes.memory_bytes)));
        self.field(text, "CPU", &span(processes.cpu_s));
        match &processes.cgroup {
            Some(folder) => self.field(text, "CGroup", &self.show.foreign(folder)),
            None => self.field(text, "Tree", "its descendants; it has no control group"),
        }
        let indent = "    ";
        let width = self.width.map(|width| width.saturating_sub(indent.len()));
        for line in drawn(&processes.list, width, self.show) {
            let _ = writeln!(text, "{indent}{line}");
        }
    }

    fn log(&self, text: &mut String, replica: &ReplicaStatus, lines: &[Line]) {
        let Some(id) = id_of(replica).filter(|_| !lines.is_empty()) else { return };
        text.push('\n');
        let joined = lines::told(&id, lines, &self.zone, self.show.terminal, PIECES);
        for line in joined.lines() {
            let _ = writeln!(text, "{}", cut(line, self.width));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::{NOW, checked, replica, some};
    use super::super::tree;
    use super::*;
    use crate::output::{Source, Stream};

    fn said(stream: Stream, text: &str, partial: bool) -> Line {
        let at = Wall(NOW.0 - 1_000_000_000);
        let text = text.as_bytes().to_vec();
        Line { at, source: Source::Program(stream), partial, noeol: false, text }
    }

    fn facts(replica: &ReplicaStatus, policy: &str) -> Facts {
        Facts {
            processes: None,
            executable: None,
            next: next(replica, Some(policy)),
            lines: vec![],
        }
    }

    fn page(width: Option<usize>) -> Page {
        let show = Show { terminal: true, color: false };
        Page { now: NOW, zone: TimeZone::UTC, width, show }
    }

    #[test]
    fn a_replica_with_all_there_is_to_say() {
        let lines = vec![
            said(Stream::Stdout, "listening on 8080", false),
            said(Stream::Stderr, "\x1b[31mred\x1b[0m", false),
            said(Stream::Stdout, "login: ", true),
        ];
        let mut all = some();
        let whole = Facts {
            processes: Some(tree::tests::some()),
            executable: Some("/usr/bin/server".into()),
            lines,
            ..facts(&all[0], "always")
        };
        let mut blocks =
            vec![page(None).block(&all[0], &whole), page(Some(40)).block(&all[0], &whole)];
        let alone = Processes { cgroup: None, memory_accounted: false, ..tree::tests::some() };
        let without = Facts { processes: Some(alone), ..facts(&all[2], "no") };
        blocks.push(page(None).block(&all.remove(2), &without));
        let plain = all.iter().skip(1).map(|one| page(None).block(one, &facts(one, "on-failure")));
        blocks.extend(plain);
        insta::assert_snapshot!(blocks.join("\n"));
    }

    #[test]
    fn health_is_told() {
        let blocks = checked();
        let blocks = blocks.iter().map(|one| page(None).block(one, &facts(one, "on-failure")));
        insta::assert_snapshot!(blocks.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn what_happens_next_is_said_for_every_state() {
        let mut told = String::new();
        for state in [
            State::Waiting,
            State::Starting,
            State::Running,
            State::Stopping,
            State::Backoff,
            State::Stopped,
            State::Finished,
            State::Failed,
            State::Unkillable,
        ] {
            for wait in [None, Some(3.21)] {
                let mut one = replica("web", 1, state);
                (one.next_start_s, one.failures_in_a_row) = (wait, 4);
                let _ = writeln!(told, "{:>10}: {}", state.as_str(), next(&one, Some("always")));
            }
        }
        let running = replica("web", 1, State::Running);
        for policy in [Some("no"), Some("on-failure"), Some("unless-stopped"), None] {
            let _ = writeln!(told, "{policy:?}: {}", next(&running, policy));
        }
        insta::assert_snapshot!(told);
    }

    #[test]
    fn the_facts_are_in_the_json_too() {
        let one = replica("web", 1, State::Running);
        let lines = vec![said(Stream::Stdout, "hello", false)];
        let whole =
            Facts { processes: Some(tree::tests::some()), lines, ..facts(&one, "on-failure") };
        let json = whole.json(&one);
        assert_eq!((&json["service"], &json["pid"]), (&json!("web"), &json!(4242)));
        assert_eq!(json["processes"]["list"][0]["pid"], 5);
        assert_eq!((&json["log"][0]["text"], &json["executable"]), (&json!("hello"), &Value::Null));
        assert_eq!(json["next"], "it is started again when it fails");
    }
}
