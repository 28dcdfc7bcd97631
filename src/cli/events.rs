//! `wharf events`: what happened, and what happens, as it happens.
//!
//! Followed, it outlives the manager: where the guardian starts another one, the stream is taken up
//! where it broke off, so that nothing is missing and nothing comes twice.

use std::fmt::Write as _;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::client::Heard;
use super::context::Context;
use super::exits::known;
use super::failure::{Failure, OK};
use super::out::{self, Out};
use super::text::{Show, moment};
use crate::journal::{Entry, Filter, Reader};
use crate::manager::{Cursor, Kind, Since};
use crate::name::Target;
use crate::os::clock;
use crate::time::Wall;

/// Show what happens: starts, ends, changes of state, messages, reloads
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf events                   what is kept: all ends, and what else happened lately
  wharf events -f                everything from now on, until the manager is gone
  wharf events -f --service web --kind exit,restart
  wharf events --since 10m --json | jq -c 'select(.level == \"warn\")'")]
pub(super) struct Events {
    /// Go on with new ones as they come; without --since from now on [short: -f]
    #[arg(long)]
    follow: bool,
    /// From then on: 10m, 2026-11-22 07:00, RFC 3339, the number of an exit or the id of an event
    #[arg(long, value_name = "TIME|SEQ|ID", value_parser = place)]
    since: Option<String>,
    /// Only of this service or replica; may be given several times
    #[arg(long = "service", value_name = "NAME[/R]", value_delimiter = ',')]
    services: Vec<Target>,
    /// Only of this kind, such as exit, start, state, restart; may be given several times
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// As JSON, one event a line
    #[arg(long)]
    json: bool,
}

fn place(text: &str) -> Result<String, String> {
    let since = Since::parse(text, clock::wall());
    since.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl Events {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut told = Teller::new(context);
        if self.follow { self.follow(context, &mut told) } else { self.list(context, &mut told) }
    }

    /// Prints what is there and ends. Without a manager that is the journal.
    fn list(&self, context: &Context, told: &mut Teller) -> Result<u8, Failure> {
        let path = self.path(self.since.as_deref().or(Some("0")), false);
        let client = context.client("events")?;
        match client.events(&path, None, |heard| self.hear(heard, told)) {
            Err(Failure::Unreachable { .. }) => self.journal(context, told)?,
            result => result?,
        }
        told.out.flush()?;
        if !told.any {
            known(context, &self.services)?;
        }
        Ok(OK)
    }

    /// Prints what happens, until there is no manager and will not be one.
    fn follow(&self, context: &Context, told: &mut Teller) -> Result<u8, Failure> {
        let client = context.client("events")?;
        let path = self.path(self.since.as_deref(), true);
        let mut lost = false;
        loop {
            let place = told.last.clone();
            let result = client.events(&path, place.as_deref(), |heard| {
                if !told.listening {
                    told.listening = true;
                    context.say_more("listening");
                }
                if std::mem::take(&mut lost) {
                    context.say("a manager is there again; nothing was missed but what is said");
                }
                self.hear(heard, told)?;
                told.out.flush()
            });
            match result {
                Ok(()) if told.over => {
                    context.say("the manager has ended");
                    return Ok(OK);
                }
                Ok(()) | Err(Failure::Broken(_) | Failure::TimedOut(_)) => {}
                Err(Failure::Refused { code, .. })
                    if told.listening && matches!(&*code, "shutting_down" | "busy") => {}
                Err(Failure::Unreachable { .. }) if told.listening => {}
                Err(failure) => return Err(failure),
            }
            if !std::mem::replace(&mut lost, true) {
                context.say("the stream broke off; waiting for the manager");
            }
            if !client.will_be_back()? {
                let why = "nothing keeps a manager running any more".to_owned();
                let hint = "`wharf up -d` starts one";
                return self.gone(context, told, Failure::Unreachable { why, hint });
            }
        }
    }

    /// The manager is gone without a word: what it recorded last is in the journal.
    fn gone(&self, context: &Context, told: &mut Teller, why: Failure) -> Result<u8, Failure> {
        self.journal(context, told)?;
        told.out.flush()?;
        Err(why)
    }

    fn path(&self, since: Option<&str>, follow: bool) -> String {
        let mut path = format!("/v1/events?follow={follow}");
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = write!(path, "&{name}={}", escaped(value));
            }
        };
        add("since", since.unwrap_or_default());
        let all = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(",");
        add("service", &all(&mut self.services.iter().map(ToString::to_string)));
        add("kind", &all(&mut self.kinds.iter().map(ToString::to_string)));
        path
    }

    fn hear(&self, heard: &Heard, told: &mut Teller) -> Result<(), Failure> {
        if !heard.id.is_empty() {
            told.last = Some(heard.id.clone());
        }
        // Where everything that is kept is asked for, nothing is missing.
        let idle = heard.kind == Kind::Gap.as_str() && !self.follow && self.since.is_none();
        if heard.data.is_empty() || idle {
            return Ok(());
        }
        let event: Value = serde_json::from_str(&heard.data).unwrap_or_default();
        let over = event.pointer("/event/name") == Some(&"manager.stop".into());
        told.over |= over;
        if over && !self.kinds.is_empty() && !self.kinds.contains(&Kind::Manager) {
            return Ok(());
        }
        told.any = true;
        if self.json {
            told.out.line(&heard.data)
        } else {
            let line = line(&event, &told.zone, told.show);
            told.out.line(&line)
        }
    }

    /// The exits that were not told yet, from the journal.
    fn journal(&self, context: &Context, told: &mut Teller) -> Result<(), Failure> {
        if !self.kinds.is_empty() && !self.kinds.contains(&Kind::Exit) {
            return Ok(());
        }
        let text = told.last.as_ref().or(self.since.as_ref());
        let since = text.and_then(|text| Since::parse(text, clock::wall()).ok());
        let mut filter = Filter { targets: self.services.clone(), ..Filter::default() };
        match since {
            Some(Since::Time(at)) => filter.since = Some(at),
            Some(Since::Seq(seq) | Since::Id(Cursor { seq, .. })) => filter.since_seq = Some(seq),
            None => {}
        }
        for entry in Reader::open(&context.state.state)?.entries(filter)? {
            let heard = exit(&entry?);
            self.hear(&heard, told)?;
        }
        Ok(())
    }
}

/// How it is told, and how far it has come.
struct Teller {
    out: Out,
    zone: TimeZone,
    show: Show,
    /// The place of the last event that was heard.
    last: Option<String>,
    /// Whether a stream has begun.
    listening: bool,
    /// Whether anything was told.
    any: bool,
    /// Whether the manager has said its last word.
    over: bool,
}

impl Teller {
    fn new(context: &Context) -> Self {
        Self {
            out: Out::new(),
            zone: TimeZone::system(),
            show: Show { terminal: out::stdout_is_terminal(), color: context.color },
            last: None,
            listening: false,
            any: false,
            over: false,
        }
    }
}

/// A record as an event. Its number alone is its place, for want of a manager.
fn exit(entry: &Entry) -> Heard {
    let mut event = Map::new();
    event.insert("kind".to_owned(), Kind::Exit.as_str().into());
    event.insert("id".to_owned(), entry.record.seq.to_string().into());
    if let Ok(Value::Object(record)) = serde_json::from_slice(&entry.line) {
        event.extend(record);
    }
    Heard {
        id: entry.record.seq.to_string(),
        kind: Kind::Exit.as_str().to_owned(),
        data: Value::Object(event).to_string(),
    }
}

/// An event as a sentence.
fn line(event: &Value, zone: &TimeZone, show: Show) -> String {
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    let at = text("ts").parse::<Wall>().map(|at| moment(at, zone));
    let at = at.unwrap_or_else(|_| " ".repeat(19));
    show.foreign(&format!("{at}  {}", text("msg")))
}

/// A value as it may stand in a query (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_moment_and_a_sentence_and_does_nothing_to_a_terminal() {
        let event =
            serde_json::json!({ "ts": "2026-11-22T07:31:28Z", "msg": "web/1 says: \x1b[2J" });
        let show = Show { terminal: true, color: false };
        let line = line(&event, &TimeZone::UTC, show);
        assert!(line.starts_with("2026-11-22 07:31:28  web/1 says: "), "{line}");
        assert!(!line.contains('\x1b'), "{line:?}");
    }

    #[test]
    fn what_is_asked_for_survives_its_way_through_a_query() {
        assert_eq!(escaped("2026-11-22T07:00:00+02:00"), "2026-11-22T07%3A00%3A00%2B02%3A00");
        assert_eq!(escaped("web/1,db é"), "web%2F1%2Cdb%20%C3%A9");
    }
}
