//! `wharf why`: the last ends as stories, and what happens now. Works without a manager.

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::client::{Question, parse, path_of};
use super::context::Context;
use super::exits::since;
use super::failure::{Failure, OK};
use super::fold::{Fold, More, folded};
use super::logs;
use super::out;
use super::ps;
use super::story::story;
use super::text::{Show, moment, span};
use crate::exit::ExitRecord;
use crate::journal::{Filter, Reader};
use crate::manager::ReplicaStatus;
use crate::name::Target;
use crate::os::clock;
use crate::time::Wall;

/// How many ends are looked at, the last ones. A crash loop at full backoff takes most of a day for
/// them.
const LOOK_BACK: usize = 2_000;
/// How many stories are told of a service.
const STORIES: usize = 3;
/// How many are told of all services.
const STORIES_OF_ALL: usize = 5;

/// Tell why services ended: what happened, the evidence, the last words, what happens next
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf why                      the last ends over all services
  wharf why web
  wharf why web/2 --since yesterday -n 10
  wharf why web --json | jq '.exits[-1].exit'

Ends in a row that are alike are one story: the latest is told, the others are counted.")]
pub(super) struct Why {
    /// A service, or a single replica; all without it
    #[arg(value_name = "NAME[/R]")]
    name: Option<Target>,
    /// How many stories, the last ones [default: 3; 5 of all services; all with --since]
    #[arg(short = 'n', long = "number", value_name = "N")]
    number: Option<usize>,
    /// Only of ends not older than this: 1h30m, today, yesterday, 07:00, 2026-11-22 07:00, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Wall>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Why {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let ends = self.ends(context)?;
        let path = match &self.name {
            Some(name) => path_of(name, ""),
            None => "/v1/services".to_owned(),
        };
        let now = match context.client("why")?.ask_now(Question::get(path)) {
            Ok(reply) => Some(reply.body),
            Err(failure @ Failure::Refused { .. }) if ends.is_empty() => return Err(failure),
            // Without a manager, or for a service that is no longer configured, the past remains.
            Err(_) => None,
        };
        if let (None, true, Some(name)) = (&now, ends.is_empty(), &self.name) {
            logs::known(context, std::slice::from_ref(name))?;
        }
        let whole = ends.len() < LOOK_BACK;
        let mut stories = folded(ends, whole);
        let kept = self.number.unwrap_or(match (&self.since, &self.name) {
            (Some(_), _) => usize::MAX,
            (None, Some(_)) => STORIES,
            (None, None) => STORIES_OF_ALL,
        });
        stories.drain(..stories.len().saturating_sub(kept));
        if self.json {
            let now = now.map(|body| parse::<Value>(&body)).transpose()?;
            out::print_document(&json!({ "exits": objects(&stories), "now": now }))?;
            return Ok(OK);
        }
        let mut replicas = now.map(|body| parse::<Vec<ReplicaStatus>>(&body)).transpose()?;
        if let (None, Some(replicas)) = (&self.name, &mut replicas) {
            replicas.retain(|one| stories.iter().any(|fold| is_of(&fold.record, one)));
        }
        let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
        let none = self.none(&TimeZone::system());
        out::print(&told(self.name.is_some(), none, &stories, replicas.as_deref(), show))?;
        Ok(OK)
    }

    /// What to say where there is nothing to tell; nothing where nothing was asked for.
    fn none(&self, zone: &TimeZone) -> Option<String> {
        let who = match &self.name {
            Some(name) => format!("{name} has not"),
            None => "nothing has".to_owned(),
        };
        match (self.number, self.since) {
            (Some(0), _) => None,
            (_, Some(at)) => Some(format!("{who} ended since {}\n", moment(at, zone))),
            (_, None) => Some(format!("{who} ended yet\n")),
        }
    }

    fn ends(&self, context: &Context) -> Result<Vec<ExitRecord>, Failure> {
        let filter = Filter {
            targets: self.name.iter().cloned().collect(),
            since: self.since,
            last: Some(LOOK_BACK),
            ..Filter::default()
        };
        let entries = Reader::open(&context.state.state)?.entries(filter)?;
        entries.map(|entry| Ok(entry?.record)).collect()
    }
}

fn is_of(record: &ExitRecord, replica: &ReplicaStatus) -> bool {
    record.service.name.as_str() == replica.service && record.service.replica == replica.replica
}

/// The records, each with those that were like it as `more_like_this`.
fn objects(stories: &[Fold]) -> Vec<Value> {
    let object = |fold: &Fold| {
        let mut object = json!(fold.record);
        if let (Value::Object(map), Some(more)) = (&mut object, fold.more) {
            map.insert("more_like_this".to_owned(), json!(more));
        }
        object
    };
    stories.iter().map(object).collect()
}

fn told(
    named: bool,
    none: Option<String>,
    stories: &[Fold],
    replicas: Option<&[ReplicaStatus]>,
    show: Show,
) -> String {
    let (zone, clock) = (TimeZone::system(), clock::wall());
    let one = |fold: &Fold| {
        let mut text = story(&fold.record, clock, &zone, show);
        if let Some(more) = fold.more {
            text.push_str(&before(more, &zone));
        }
        text
    };
    let mut blocks: Vec<String> = stories.iter().map(one).collect();
    if blocks.is_empty() {
        blocks.extend(none);
    }
    if named || replicas.is_none_or(|replicas| !replicas.is_empty()) {
        blocks.push(now(named, replicas, show));
    }
    blocks.join("\n")
}

/// Those that were like the one that was told.
fn before(more: More, zone: &TimeZone) -> String {
    let (from, to) = (moment(more.from, zone), moment(more.to, zone));
    let least = if more.at_least { "at least " } else { "" };
    let when = if from == to { format!("at {from}") } else { format!("between {from} and {to}") };
    format!("{:>12}: {least}{} more like this {when}\n", "before", more.count)
}

/// What each replica does at this moment.
fn now(named: bool, replicas: Option<&[ReplicaStatus]>, show: Show) -> String {
    let Some(replicas) = replicas else {
        let or = if named { ", or the service is no longer configured" } else { "" };
        return format!("now: no manager answers{or}\n");
    };
    let line = |replica: &ReplicaStatus| {
        let name = format!("{}/{}", replica.service, replica.replica);
        let state = show.state(replica.state, &ps::state(replica));
        let pid = replica.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let up = replica.uptime_s.map(|up| format!(", up {}", span(up))).unwrap_or_default();
        let health = ps::health(replica).map(|health| format!(", {health}")).unwrap_or_default();
        let wrong = ps::wrong(replica).map(|wrong| format!(": {}", show.foreign(wrong)));
        format!("now: {name} is {state}{pid}{up}{health}{}\n", wrong.unwrap_or_default())
    };
    replicas.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::{checked, some};
    use super::*;

    #[test]
    fn the_present_is_told_too() {
        let show = Show { terminal: true, color: false };
        let text = format!("{}{}", now(true, Some(&some()), show), now(true, None, show));
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(now(true, Some(&checked()), show));
        let none = || Some("nothing has ended yet\n".to_owned());
        let nothing = told(true, none(), &[], Some(&[]), show);
        assert_eq!(nothing, "nothing has ended yet\n\n");
        assert_eq!(told(false, none(), &[], Some(&[]), show), "nothing has ended yet\n");
        let alone = told(false, none(), &[], None, show);
        assert_eq!(alone, "nothing has ended yet\n\nnow: no manager answers\n");
    }

    #[test]
    fn that_there_is_nothing_to_tell_is_said_as_it_was_asked() {
        let said = |name: Option<&str>, number, since| {
            let name = name.map(|name| name.parse().unwrap());
            Why { name, number, since, json: false }.none(&TimeZone::UTC)
        };
        for (name, number, since, words) in [
            (Some("web"), None, None, Some("web has not ended yet\n")),
            (None, Some(3), None, Some("nothing has ended yet\n")),
            (
                Some("web/2"),
                None,
                Some(Wall(0)),
                Some("web/2 has not ended since 1970-01-01 00:00:00\n"),
            ),
            (None, None, Some(Wall(0)), Some("nothing has ended since 1970-01-01 00:00:00\n")),
            (Some("web"), Some(0), None, None),
        ] {
            assert_eq!(said(name, number, since).as_deref(), words);
        }
    }

    #[test]
    fn those_before_are_counted() {
        let (from, to) = (Wall(0), Wall(60_000_000_000));
        let more = More { count: 5, from, to, at_least: true };
        assert_eq!(
            before(more, &TimeZone::UTC),
            "      before: at least 5 more like this between 1970-01-01 00:00:00 and 1970-01-01 00:01:00\n"
        );
        let more = More { count: 1, from, to: from, at_least: false };
        assert_eq!(
            before(more, &TimeZone::UTC),
            "      before: 1 more like this at 1970-01-01 00:00:00\n"
        );
    }
}
