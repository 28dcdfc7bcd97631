//! `wharf ps`: a line for each replica.

use clap::Args;
use serde_json::Value;

use super::client::{Client, Question, parse, path_of};
use super::context::Context;
use super::failure::{Failure, OK};
use super::many;
use super::out;
use super::text::{Cell, Show, since, span, table};
use crate::event::State;
use crate::manager::{LastExit, ManagerStatus, ReplicaStatus};
use crate::name::Target;
use crate::os::clock;
use crate::time::Wall;

/// List every replica and what it does
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf ps
  wharf ps web db/2
  wharf ps --json | jq '.[] | select(.crash_looping)'")]
pub(super) struct Ps {
    /// Only these services or single replicas; all without any
    #[arg(value_name = "NAME[/R]")]
    names: Vec<Target>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Ps {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client("ps")?;
        let (rows, code) = self.rows(&client)?;
        if self.json {
            out::print_document(&rows)?;
            return Ok(code);
        }
        if rows.is_empty() && code != OK {
            return Ok(code);
        }
        let replicas: Vec<ReplicaStatus> = parse(Value::Array(rows).to_string().as_bytes())?;
        let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
        out::print(&listed(&replicas, clock::wall(), show))?;
        let manager: ManagerStatus = client.get("/v1/manager")?;
        for what in &manager.degraded {
            context.say(&format!("warning: {what}"));
        }
        Ok(code)
    }

    /// What the API says of those that are meant, each once, and the exit code.
    fn rows(&self, client: &Client) -> Result<(Vec<Value>, u8), Failure> {
        if self.names.is_empty() {
            return Ok((client.get("/v1/services")?, OK));
        }
        let mut rows: Vec<Value> = Vec::new();
        let questions = self.names.iter().map(|name| Question::get(path_of(name, ""))).collect();
        let code = many::each(client, questions, |reply| {
            for row in parse::<Vec<Value>>(&reply.body)? {
                let same = |known: &Value| {
                    ["service", "replica"].iter().all(|key| known.get(key) == row.get(key))
                };
                if !rows.iter().any(same) {
                    rows.push(row);
                }
            }
            Ok(())
        })?;
        Ok((rows, code))
    }
}

/// The table of all replicas.
pub(super) fn listed(replicas: &[ReplicaStatus], now: Wall, show: Show) -> String {
    let mut head = vec!["SERVICE", "STATE", "PID", "UPTIME", "RESTARTS", "READY", "LAST EXIT"];
    let mut rows: Vec<_> = replicas.iter().map(|replica| row(replica, replicas, now)).collect();
    // Where nobody's health is looked at, nothing is to be said of it.
    if replicas.iter().any(|replica| replica.health.is_some()) {
        let at = head.len() - 1;
        head.insert(at, "HEALTH");
        for (row, replica) in rows.iter_mut().zip(replicas) {
            row.insert(at, health(replica).unwrap_or_else(|| "-".to_owned()).into());
        }
    }
    table(&head, &rows, show)
}

/// What is known of its health, in a few words.
pub(super) fn health(replica: &ReplicaStatus) -> Option<String> {
    let health = replica.health?;
    let word = health.state.as_str();
    Some(match health.failures {
        0 => word.to_owned(),
        many => format!("{word} ({many} failed)"),
    })
}

/// What was wrong with the last answer, where it is not ready or not well because of that.
pub(super) fn wrong(replica: &ReplicaStatus) -> Option<&str> {
    replica.check.as_ref()?.error.as_deref()
}

fn row(replica: &ReplicaStatus, all: &[ReplicaStatus], now: Wall) -> Vec<Cell> {
    let dash = || "-".to_owned();
    vec![
        name(replica, all).into(),
        Cell::of_state(state(replica), replica.state),
        replica.pid.map_or_else(dash, |pid| pid.to_string()).into(),
        replica.uptime_s.map_or_else(dash, span).into(),
        replica.restarts.to_string().into(),
        if replica.ready { "yes".to_owned() } else { "no".to_owned() }.into(),
        replica.last_exit.as_ref().map_or_else(dash, |last| last_exit(last, now)).into(),
    ]
}

/// `web`, or `web/2` where there are several.
pub(super) fn name(replica: &ReplicaStatus, all: &[ReplicaStatus]) -> String {
    let siblings = all.iter().filter(|other| other.service == replica.service).count();
    if siblings == 1 && replica.replica == 1 {
        replica.service.clone()
    } else {
        format!("{}/{}", replica.service, replica.replica)
    }
}

/// The state, with what a person has to know about it.
pub(super) fn state(replica: &ReplicaStatus) -> String {
    let mut text = replica.state.as_str().to_owned();
    let waits = matches!(replica.state, State::Backoff | State::Waiting);
    if let Some(seconds) = replica.next_start_s.filter(|_| waits) {
        text.push(' ');
        text.push_str(&span(seconds));
    }
    match (replica.state, &replica.note) {
        (State::Waiting, Some(note)) => {
            let what = note.strip_prefix("waits").unwrap_or(note).trim_start();
            text = format!("waiting {what}");
        }
        (State::Failed, Some(note)) => text = format!("failed ({note})"),
        _ => {}
    }
    if replica.crash_looping {
        text.push_str(" (crash-looping)");
    }
    text
}

/// How the last run ended, in a few words.
pub(super) fn last_exit(last: &LastExit, now: Wall) -> String {
    let how = match (&last.signal, last.code) {
        (Some(signal), _) => format!("{} ({signal})", last.reason),
        (None, Some(code)) => format!("{} (code {code})", last.reason),
        (None, None) => last.reason.to_string(),
    };
    format!("{how} {} ago", since(last.ts, now))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::Health;
    use crate::exit::{Cause, Reason};
    use crate::manager::{CheckStatus, HealthStatus, PortStatus};
    use crate::name::Incarnation;
    use std::collections::BTreeMap;

    pub(in crate::cli) const NOW: Wall = Wall(1_795_332_688_576_123_456);

    pub(in crate::cli) fn ago(seconds: u64) -> Wall {
        Wall(NOW.0 - seconds * 1_000_000_000)
    }

    pub(in crate::cli) fn replica(service: &str, number: u32, state: State) -> ReplicaStatus {
        let runs = matches!(state, State::Running | State::Stopping | State::Unkillable);
        ReplicaStatus {
            listen: Vec::new(),
            service: service.to_owned(),
            replica: number,
            state,
            pid: runs.then_some(4242),
            incarnation: runs.then_some(Incarnation(17)),
            restarts: 0,
            ready: state == State::Running,
            uptime_s: runs.then_some(192.4),
            crash_looping: false,
            failures_in_a_row: 0,
            since: ago(192),
            next_start_s: None,
            health: None,
            check: None,
            status_text: None,
            last_exit: None,
            port: None,
            limits: vec![],
            command: vec!["./server".into(), "--port".into(), "80 80".into()],
            note: None,
            labels: BTreeMap::new(),
        }
    }

    fn last(reason: Reason, code: Option<i32>, signal: Option<&str>) -> LastExit {
        LastExit {
            ts: ago(200),
            incarnation: Incarnation(16),
            reason,
            cause: Cause::Spontaneous,
            code,
            signal: signal.map(str::to_owned),
            msg: "web/1 exited with code 3 after 1.2s;\x1b[31m restart in 200ms".to_owned(),
        }
    }

    pub(in crate::cli) fn some() -> Vec<ReplicaStatus> {
        let mut crashing = replica("web", 1, State::Backoff);
        crashing.crash_looping = true;
        crashing.failures_in_a_row = 6;
        crashing.next_start_s = Some(3.21);
        crashing.restarts = 5;
        crashing.last_exit = Some(last(Reason::Failed, Some(3), None));
        let mut killed = replica("web", 2, State::Running);
        killed.restarts = 1;
        killed.last_exit = Some(last(Reason::Signaled, None, Some("SIGKILL")));
        let mut port = replica("db", 1, State::Running);
        port.port = Some(PortStatus {
            framing: "lines".into(),
            frames_in: 3,
            frames_out: 2,
            queued: 1,
            open: 0,
            unmatched: 0,
            held_up_s: None,
            strays: 0,
            input_closed: false,
            output_closed: false,
        });
        port.labels = BTreeMap::from([("team".to_owned(), "core".to_owned())]);
        let mut missing = replica("mail", 1, State::Failed);
        missing.last_exit = Some(last(Reason::ExecFailed, None, None));
        vec![port, crashing, killed, missing, replica("batch", 1, State::Stopping)]
    }

    /// Three that are looked at: one that starts, one that is well and one that is not.
    pub(in crate::cli) fn checked() -> Vec<ReplicaStatus> {
        let check = |error: Option<&str>| CheckStatus {
            at: ago(4),
            ok: error.is_none(),
            error: error.map(str::to_owned),
            output: None,
        };
        let mut starting = replica("db", 1, State::Starting);
        starting.health = Some(HealthStatus { state: Health::Starting, failures: 0 });
        starting.check = Some(check(Some("connection refused")));
        let mut well = replica("web", 1, State::Running);
        well.health = Some(HealthStatus { state: Health::Healthy, failures: 0 });
        well.check = Some(check(None));
        well.status_text = Some("serving\x1b[31m 3 people".to_owned());
        let mut ill = replica("web", 2, State::Running);
        ill.health = Some(HealthStatus { state: Health::Unhealthy, failures: 3 });
        ill.check = Some(check(Some("status 503: no database")));
        vec![starting, well, ill, replica("batch", 1, State::Running)]
    }

    #[test]
    fn health_is_shown_where_it_is_looked_at() {
        let plain = Show { terminal: true, color: false };
        insta::assert_snapshot!(listed(&checked(), NOW, plain));
    }

    #[test]
    fn the_table() {
        let plain = Show { terminal: true, color: false };
        let coloured = listed(&some()[..1], NOW, Show { color: true, ..plain });
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}",
            listed(&some(), NOW, plain),
            listed(&[], NOW, plain),
            coloured.escape_debug()
        ));
    }
}
