//! `wharf status`: all about a service, or about the manager and everything.

use std::fmt::Write as _;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::client::{Client, Question, parse, path_of};
use super::context::Context;
use super::failure::{Failure, NOT_RUNNING, OK};
use super::out;
use super::ps;
use super::text::{Show, moment, since, span};
use crate::event::State;
use crate::manager::{ManagerStatus, ReplicaStatus};
use crate::name::{ReplicaId, ServiceName, Target};
use crate::os::clock;
use crate::output::{LogReader, Range};
use crate::time::Wall;

/// How many lines of output are shown.
const LINES: usize = 10;

/// Show all about a service; without a name, about the manager and every service
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf status
  wharf status web && echo it runs
  wharf status web/2 --json

Exit code with a name: 0 it runs, 3 it does not.")]
pub(super) struct Status {
    /// A service, or a single replica
    #[arg(value_name = "NAME[/R]")]
    name: Option<Target>,
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
        if self.json {
            let manager: Value = client.get("/v1/manager")?;
            let services: Value = client.get("/v1/services")?;
            out::print_document(&json!({ "manager": manager, "services": services }))?;
            return Ok(OK);
        }
        let manager: ManagerStatus = client.get("/v1/manager")?;
        let replicas: Vec<ReplicaStatus> = client.get("/v1/services")?;
        let now = clock::wall();
        let text = manager_text(&manager, now, &TimeZone::system(), show);
        out::print(&format!("{text}\n{}", ps::listed(&replicas, now, show)))?;
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
        if self.json {
            out::print_document(&parse::<Value>(&reply.body)?)?;
        } else if replicas.is_empty() {
            out::print(&format!("{name} has no replicas\n"))?;
        } else {
            let zone = TimeZone::system();
            let blocks: Vec<String> = replicas
                .iter()
                .map(|replica| {
                    let lines = last_lines(context, replica);
                    replica_text(replica, &lines, clock::wall(), &zone, show)
                })
                .collect();
            out::print(&blocks.join("\n"))?;
        }
        Ok(if running { OK } else { NOT_RUNNING })
    }
}

/// The last lines of output. What cannot be read is missing: `wharf logs` says why.
fn last_lines(context: &Context, replica: &ReplicaStatus) -> Vec<String> {
    let Ok(service) = ServiceName::new(&replica.service) else { return Vec::new() };
    let id = ReplicaId { service, replica: replica.replica };
    let range = Range { last: Some(LINES), since: None };
    let reader = LogReader::open(&context.state.output(), &id);
    let lines = reader.and_then(|reader| reader.lines(range)).into_iter().flatten();
    lines.flatten().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

fn manager_text(manager: &ManagerStatus, now: Wall, zone: &TimeZone, show: Show) -> String {
    let started = moment(manager.started_at, zone);
    let age = since(manager.started_at, now);
    let mut text = format!("{}\n", show.bold(&format!("wharf {}", manager.version)));
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:>12}: {value}");
    };
    let pid = format!("{} (guardian {})", manager.pid, manager.guardian_pid);
    field("Manager", &pid);
    field("Since", &format!("{started} ({age}), generation {}", manager.generation.0));
    field("Groups", &show.foreign(&manager.cgroups));
    if manager.output_dropped_bytes > 0 {
        field("Dropped", &format!("{} bytes of output", manager.output_dropped_bytes));
    }
    if manager.journal_write_errors > 0 || manager.records_waiting > 0 {
        let (errors, waiting) = (manager.journal_write_errors, manager.records_waiting);
        field("Journal", &format!("{errors} failed writes, {waiting} records wait in memory"));
    }
    for what in &manager.degraded {
        field("Degraded", &show.foreign(what));
    }
    if manager.shutting_down {
        field("Now", "everything is being stopped");
    }
    text
}

fn replica_text(
    replica: &ReplicaStatus,
    lines: &[String],
    now: Wall,
    zone: &TimeZone,
    show: Show,
) -> String {
    let dot = show.state(replica.state, "●");
    let name = show.bold(&format!("{}/{}", replica.service, replica.replica));
    let state = show.state(replica.state, &ps::state(replica));
    let (at, age) = (moment(replica.since, zone), since(replica.since, now));
    let mut text = format!("{dot} {name} {state} since {at} ({age})\n");
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:>12}: {value}");
    };
    field("Command", &show.foreign(&shell_words::join(&replica.command)));
    if let (Some(pid), Some(run)) = (replica.pid, replica.incarnation) {
        let uptime = replica.uptime_s.map(|up| format!(", up {}", span(up))).unwrap_or_default();
        field("Process", &format!("{pid} (run {run}{uptime})"));
    }
    field("Ready", if replica.ready { "yes" } else { "no" });
    let row = match replica.failures_in_a_row {
        0 => String::new(),
        many => format!(", {many} failures in a row"),
    };
    field("Restarts", &format!("{}{row}", replica.restarts));
    if let Some(port) = &replica.port {
        let (sent, got, queued) = (port.frames_in, port.frames_out, port.queued);
        field("Port", &format!("{}: {sent} sent, {got} received, {queued} queued", port.framing));
    }
    if !replica.labels.is_empty() {
        let labels: Vec<_> =
            replica.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        field("Labels", &show.foreign(&labels.join(" ")));
    }
    if let Some(last) = &replica.last_exit {
        let at = moment(last.ts, zone);
        field("Last exit", &format!("{at} {}", show.foreign(&last.msg)));
    }
    if !lines.is_empty() {
        text.push('\n');
        for line in lines {
            let _ = writeln!(text, "    {}", show.foreign(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::{NOW, ago, some};
    use super::*;
    use crate::name::{Generation, Realm};

    const SHOW: Show = Show { terminal: true, color: false };

    fn manager() -> ManagerStatus {
        ManagerStatus {
            version: "0.1.0".into(),
            pid: 12,
            guardian_pid: 11,
            generation: Generation(3),
            realm: Realm(7),
            started_at: ago(4000),
            cgroups: "in use".into(),
            degraded: Vec::new(),
            output_dropped_bytes: 0,
            journal_write_errors: 0,
            records_waiting: 0,
            shutting_down: false,
        }
    }

    #[test]
    fn the_manager_in_good_and_in_bad_times() {
        let bad = ManagerStatus {
            cgroups: "there is no cgroup2 mount".into(),
            degraded: vec!["the disk of the journal is full".into()],
            output_dropped_bytes: 4096,
            journal_write_errors: 2,
            records_waiting: 1,
            shutting_down: true,
            ..manager()
        };
        let text = |manager| manager_text(manager, NOW, &TimeZone::UTC, SHOW);
        insta::assert_snapshot!(format!("{}\n{}", text(&manager()), text(&bad)));
    }

    #[test]
    fn a_replica_with_all_there_is_to_say() {
        let lines = ["listening on 8080".to_owned(), "\x1b[31mred\x1b[0m".to_owned()];
        let blocks: Vec<String> = some()
            .iter()
            .enumerate()
            .map(|(at, replica)| {
                let lines = if at == 0 { &lines[..] } else { &[] };
                replica_text(replica, lines, NOW, &TimeZone::UTC, SHOW)
            })
            .collect();
        insta::assert_snapshot!(blocks.join("\n"));
    }
}
