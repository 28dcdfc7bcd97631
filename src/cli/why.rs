//! `wharf why`: the last ends as stories, and what happens now. Works without a manager.

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::client::{Question, parse, path_of};
use super::context::Context;
use super::failure::{Failure, OK};
use super::logs;
use super::out;
use super::ps;
use super::story::story;
use super::text::{Show, span};
use crate::exit::ExitRecord;
use crate::journal::{Filter, Reader};
use crate::manager::ReplicaStatus;
use crate::name::Target;
use crate::os::clock;

/// Tell why a service ended: what happened, the evidence, its last words, what happens next
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf why web
  wharf why web/2 -n 10
  wharf why web --json | jq '.exits[-1].exit'")]
pub(super) struct Why {
    /// A service, or a single replica
    #[arg(value_name = "NAME[/R]")]
    name: Target,
    /// How many ends, the last ones
    #[arg(short = 'n', long = "number", value_name = "N", default_value_t = 3)]
    number: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Why {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let filter = Filter {
            targets: vec![self.name.clone()],
            last: Some(self.number),
            ..Filter::default()
        };
        let mut ends: Vec<ExitRecord> = Vec::new();
        for entry in Reader::open(&context.state.state)?.entries(filter)? {
            ends.push(entry?.record);
        }
        let now = match context.client("why")?.ask_now(Question::get(path_of(&self.name, ""))) {
            Ok(reply) => Some(reply.body),
            Err(failure @ Failure::Refused { .. }) if ends.is_empty() => return Err(failure),
            // Without a manager, or for a service that is no longer configured, the past remains.
            Err(_) => None,
        };
        if now.is_none() && ends.is_empty() {
            logs::known(context, std::slice::from_ref(&self.name))?;
        }
        if self.json {
            let now = now.map(|body| parse::<Value>(&body)).transpose()?;
            out::print_document(&json!({ "exits": ends, "now": now }))?;
            return Ok(OK);
        }
        let replicas = now.map(|body| parse::<Vec<ReplicaStatus>>(&body)).transpose()?;
        let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
        out::print(&told(&self.name, &ends, replicas.as_deref(), show))?;
        Ok(OK)
    }
}

fn told(
    name: &Target,
    ends: &[ExitRecord],
    replicas: Option<&[ReplicaStatus]>,
    show: Show,
) -> String {
    let (zone, clock) = (TimeZone::system(), clock::wall());
    let mut blocks: Vec<String> = ends.iter().map(|end| story(end, clock, &zone, show)).collect();
    if blocks.is_empty() {
        blocks.push(format!("{name} has not ended yet\n"));
    }
    blocks.push(now(replicas, show));
    blocks.join("\n")
}

/// What each replica does at this moment.
fn now(replicas: Option<&[ReplicaStatus]>, show: Show) -> String {
    let Some(replicas) = replicas else {
        return "now: no manager answers, or the service is no longer configured\n".to_owned();
    };
    let line = |replica: &ReplicaStatus| {
        let name = format!("{}/{}", replica.service, replica.replica);
        let state = show.state(replica.state, &ps::state(replica));
        let pid = replica.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let up = replica.uptime_s.map(|up| format!(", up {}", span(up))).unwrap_or_default();
        format!("now: {name} is {state}{pid}{up}\n")
    };
    replicas.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::some;
    use super::*;

    #[test]
    fn the_present_is_told_too() {
        let show = Show { terminal: true, color: false };
        let text = format!("{}{}", now(Some(&some()), show), now(None, show));
        insta::assert_snapshot!(text);
        let nothing = told(&"web".parse().unwrap(), &[], Some(&[]), show);
        assert_eq!(nothing, "web has not ended yet\n\n");
    }
}
