//! `wharf events`: what happens, as it happens.

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Failure, OK};
use super::out::{self, Out};
use super::text::{Show, moment};
use crate::journal::{Filter, Reader};
use crate::time::Wall;

/// Show what happens: ends, changes of state, messages, reloads
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf events -f                everything from now on, until the manager ends
  wharf events -f --json | jq -c 'select(.kind == \"state\")'
  wharf events --json            what is kept: the ends")]
pub(super) struct Events {
    /// Everything from now on, instead of the ends that are kept [short: -f]
    #[arg(long)]
    follow: bool,
    /// As JSON, one event a line
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
        let zone = TimeZone::system();
        let mut out = Out::new();
        if !self.follow {
            for entry in Reader::open(&context.state.state)?.entries(Filter::default())? {
                let mut event = json!({ "kind": "exit" });
                if let (Value::Object(event), Ok(Value::Object(record))) =
                    (&mut event, serde_json::from_slice(&entry?.line))
                {
                    event.extend(record);
                }
                self.write(&event, &zone, show, &mut out)?;
            }
            out.flush()?;
            return Ok(OK);
        }
        context.client("events")?.events(|kind, data| {
            if kind.is_empty() && data.is_empty() {
                context.say_more("listening");
                return Ok(());
            }
            let event: Value = serde_json::from_str(data).unwrap_or_default();
            self.write(&event, &zone, show, &mut out)?;
            out.flush()
        })?;
        context.say("the manager ended the stream");
        Ok(OK)
    }

    fn write(
        &self,
        event: &Value,
        zone: &TimeZone,
        show: Show,
        out: &mut Out,
    ) -> Result<(), Failure> {
        if self.json { out.json_line(event) } else { out.line(&line(event, zone, show)) }
    }
}

/// An event as a sentence.
fn line(event: &Value, zone: &TimeZone, show: Show) -> String {
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| event.get(field).and_then(Value::as_u64).unwrap_or_default();
    let pids = |field: &str| {
        let all = event.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let name = || format!("{}/{}", text("service"), number("replica"));
    let sentence = match text("kind") {
        "exit" => text("msg").to_owned(),
        "state" => match event.get("pid").and_then(Value::as_i64) {
            Some(pid) => format!("{} is {} (pid {pid})", name(), text("state")),
            None => format!("{} is {}", name(), text("state")),
        },
        "message" => match event.get("text").and_then(Value::as_str) {
            Some(said) => format!("{} says: {said}", name()),
            None => format!("{} says {} bytes that are no text", name(), number("bytes")),
        },
        "cleaned" => {
            let (killed, left) = (pids("killed"), pids("left"));
            let mut parts = Vec::new();
            if !killed.is_empty() {
                parts.push(format!("what {} left behind was killed: pid {killed}", name()));
            }
            if !left.is_empty() {
                parts.push(format!("what {} left behind cannot be killed: pid {left}", name()));
            }
            parts.join("; ")
        }
        "reload" => {
            let by = event.get("by").and_then(|by| by.get("who")).and_then(Value::as_str);
            format!("a configuration took effect, by {}", by.unwrap_or("nobody known"))
        }
        "degraded" => {
            let what = event.get("what").and_then(Value::as_array).cloned().unwrap_or_default();
            let what: Vec<_> = what.iter().filter_map(Value::as_str).collect();
            if what.is_empty() { "all is well again".to_owned() } else { what.join("; ") }
        }
        "missed" => format!("{} events were missed: this reader is too slow", number("missed")),
        _ => event.to_string(),
    };
    let at = text("ts").parse::<Wall>().map(|at| moment(at, zone));
    let at = at.unwrap_or_else(|_| " ".repeat(19));
    show.foreign(&format!("{at}  {sentence}"))
}

#[cfg(test)]
mod tests {
    use super::super::story;
    use super::*;
    use crate::event::State;
    use crate::manager::Published;
    use crate::name::{Incarnation, Requester};

    #[test]
    fn every_kind_is_told() {
        let ts = Wall(1_795_332_688_576_123_456);
        let (service, replica) = ("web".to_owned(), 2);
        let state = |state, pid| Published::State {
            ts,
            service: service.clone(),
            replica,
            state,
            pid,
            incarnation: None,
        };
        let message = |text: Option<&str>| Published::Message {
            ts,
            service: service.clone(),
            replica,
            text: text.map(str::to_owned),
            bytes: 9,
        };
        let cleaned = |killed: &[i32], left: &[i32]| Published::Cleaned {
            ts,
            service: service.clone(),
            replica,
            incarnation: Incarnation(3),
            killed: killed.to_vec(),
            left: left.to_vec(),
            exact: true,
        };
        let by = Requester { uid: Some(0), pid: None, who: "wharf reload".into() };
        let all = [
            Published::Exit(Box::new(story::tests::some().remove(0))),
            state(State::Running, Some(7)),
            state(State::Stopped, None),
            message(Some("tick\x1b[2J")),
            message(None),
            cleaned(&[5, 6], &[]),
            cleaned(&[], &[8]),
            Published::Reload { ts, by },
            Published::Degraded { ts, what: vec!["the disk is full".into()] },
            Published::Degraded { ts, what: Vec::new() },
        ];
        let mut events: Vec<Value> =
            all.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
        events.push(json!({ "kind": "missed", "missed": 12 }));
        events.push(json!({ "kind": "unheard_of" }));
        let show = Show { terminal: true, color: false };
        let lines: Vec<_> = events.iter().map(|event| line(event, &TimeZone::UTC, show)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
