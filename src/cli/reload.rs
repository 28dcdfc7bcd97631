//! `wharf reload`: make the edited configuration the one in effect, or only say what would change.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Question, parse};
use super::context::Context;
use super::failure::{Failure, OK};
use super::out;
use crate::spec::{Change, ChangeKind};

/// Take over an edited configuration; only what differs is restarted, or told by a signal
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf reload --plan          see what would be started, stopped, restarted, told by a signal
  wharf reload                 do it")]
pub(super) struct Reload {
    /// Only say what would change
    #[arg(long, visible_alias = "dry-run")]
    plan: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    changes: Vec<Change>,
    /// What changes of the manager's own; no service takes part in it.
    #[serde(default)]
    manager: Vec<String>,
    warnings: Vec<Warning>,
}

#[derive(Debug, Deserialize)]
struct Warning {
    path: String,
    message: String,
}

impl Reload {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let body = json!({ "plan": self.plan }).to_string();
        let reply = context.client("reload")?.ask(Question::post("/v1/reload", body))?;
        if self.json {
            out::print_document(&parse::<Value>(&reply.body)?)?;
            return Ok(OK);
        }
        let answer: Answer = parse(&reply.body)?;
        for warning in &answer.warnings {
            context.say(&format!("warning: {}: {}", warning.path, warning.message));
        }
        out::print(&told(&answer.changes, &answer.manager, self.plan))?;
        Ok(OK)
    }
}

/// One change a line. A plan has a word on every service.
fn told(changes: &[Change], manager: &[String], plan: bool) -> String {
    let differs = |change: &&Change| change.kind != ChangeKind::Unchanged;
    let mut lines: Vec<_> = changes.iter().filter(differs).map(ToString::to_string).collect();
    if !manager.is_empty() {
        lines.push(format!("the manager itself: {}", manager.join(", ")));
    }
    if lines.is_empty() {
        return "nothing changes\n".to_owned();
    }
    let same = changes.iter().filter(|change| change.kind == ChangeKind::Unchanged);
    let same: Vec<_> = same.map(|change| change.service.as_str()).collect();
    if plan && !same.is_empty() {
        lines.push(format!("unchanged: {}", same.join(", ")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Signal;
    use crate::spec::{Effect, SignalName};

    #[test]
    fn changes_are_told_one_a_line() {
        let change = |name: &str, kind| Change { service: name.parse().unwrap(), kind };
        assert_eq!(told(&[change("web", ChangeKind::Unchanged)], &[], true), "nothing changes\n");
        let fields = vec!["command".to_owned(), "restart.delay".to_owned()];
        let all = [
            change("a", ChangeKind::Added),
            change("b", ChangeKind::Removed),
            change("c", ChangeKind::Unchanged),
            change("d", ChangeKind::Changed { fields, effect: Effect::Restart, signal: None }),
            change(
                "e",
                ChangeKind::Changed {
                    fields: vec!["config_files[/etc/e.conf]".to_owned()],
                    effect: Effect::Signal,
                    signal: Some(SignalName(Signal::HUP)),
                },
            ),
        ];
        let own = ["metrics.listen".to_owned()];
        assert_eq!(told(&[], &own, true), "the manager itself: metrics.listen\n");
        let changed = "a: added\nb: removed\nd: restart (command, restart.delay)\n\
                       e: signal SIGHUP (config_files[/etc/e.conf])\n";
        assert_eq!(told(&all, &[], false), changed);
        assert_eq!(told(&all, &[], true), format!("{changed}unchanged: c\n"));
    }
}
