//! `wharf check`: is the configuration good, and what can it cost.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::failure::{Failure, OK};
use super::machine::concerns;
use super::out;
use super::text::rounded_size;
use crate::port::stdbuf;
use crate::spec::{self, Mistake, Spec, Unbuffer};
use crate::supervise::{Fate, fate};

/// Check the configuration and say everything that is wrong with it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf check
  wharf check --file services.yaml --file services.prod.yaml
  wharf check --json | jq .mistakes")]
pub(super) struct Check {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let loaded = match context.load() {
            Err(Failure::Invalid(mistakes)) if self.json => {
                out::print_document(&json!({
                    "ok": false,
                    "total": mistakes.total(),
                    "mistakes": mistakes.iter().collect::<Vec<_>>(),
                }))?;
                return Ok(Failure::Invalid(mistakes).code());
            }
            answer => answer?,
        };
        let mut warnings = loaded.warnings;
        for warning in here(&loaded.spec) {
            context.say(warning.as_text("warning").trim_end());
            warnings.push(warning);
        }
        let bound = spec::disk_bound(&loaded.spec);
        let services = loaded.spec.services.len();
        let concerns = concerns(&loaded.spec);
        if self.json {
            out::print_document(&json!({
                "ok": true, "services": services, "disk_bound_bytes": bound, "warnings": warnings,
                "kept": kept_document(&loaded.spec),
                "machine": concerns,
            }))?;
        } else {
            for words in concerns {
                context.say(&format!("warning: {words}"));
            }
            out::print(&(verdict(services, bound) + &kept_words(&loaded.spec)))?;
        }
        Ok(OK)
    }
}

/// What the machine lacks that this was asked on.
fn here(spec: &Spec) -> impl Iterator<Item = Mistake> {
    let preloads = |port: &spec::Port| port.unbuffer == Unbuffer::Stdbuf;
    let services = spec.services.values();
    let mut wanting =
        services.filter(move |service| service.port.as_ref().is_some_and(preloads)).peekable();
    let path = std::env::var("PATH").unwrap_or_default();
    let missing = wanting.peek().and_then(|_| stdbuf::library(&path).err());
    wanting.filter_map(move |service| {
        Some(Mistake {
            path: format!("services.{}.port.unbuffer", service.name),
            message: format!("on this machine it cannot be started: {}", missing.as_ref()?),
            help: None,
            at: None,
        })
    })
}

fn verdict(services: usize, bound: u64) -> String {
    let noun = if services == 1 { "service" } else { "services" };
    format!(
        "OK: {services} {noun}; logs and journal take at most {} of disk\n",
        rounded_size(bound)
    )
}

/// What becomes of the runs of each kept service when the manager dies.
fn kept(spec: &Spec) -> impl Iterator<Item = (&str, Fate)> {
    let kept = spec.services.values().filter(|service| service.is_kept());
    kept.map(|service| (service.name.as_str(), fate(service.port.as_ref())))
}

fn kept_words(spec: &Spec) -> String {
    let words = |(name, fate): (&str, Fate)| match fate {
        Fate::GoesOn => format!("{name} goes on when the manager dies\n"),
        Fate::UnlessWriting => format!(
            "{name} goes on when the manager dies; a run that a message was being written to is \
             restarted\n"
        ),
        Fate::UnlessSpeaking(why) => format!(
            "{name} goes on when the manager dies; a run in the middle of a message or a call is \
             restarted, because {why}\n"
        ),
        Fate::BegunAnew(why) => {
            format!("{name} is restarted when the manager dies, because {why}\n")
        }
    };
    kept(spec).map(words).collect()
}

fn kept_document(spec: &Spec) -> serde_json::Value {
    let entry = |(name, fate): (&str, Fate)| {
        let (word, why) = match fate {
            Fate::GoesOn => ("goes_on", None),
            Fate::UnlessWriting => ("unless_writing", None),
            Fate::UnlessSpeaking(why) => ("unless_speaking", Some(why)),
            Fate::BegunAnew(why) => ("restarted", Some(why)),
        };
        (name.to_owned(), json!({ "when_manager_dies": word, "why": why }))
    };
    kept(spec).map(entry).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_restarted_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        let text = "defaults: { on_manager_exit: keep }
services:
  plain: { command: [a] }
  events: { command: [a], port: {} }
  packets: { command: [a], port: { framing: packet4 } }
  whole: { command: [a], port: { framing: eof, replies: one } }
  usual: { command: [a], on_manager_exit: die }
";
        std::fs::write(&file, text).unwrap();
        let spec = spec::load(&[file], &|_| None).unwrap().spec;
        let words = kept_words(&spec);
        assert_eq!(
            words.lines().collect::<Vec<_>>(),
            [
                "plain goes on when the manager dies",
                "events goes on when the manager dies; a run that a message was being written to is \
                 restarted",
                "packets goes on when the manager dies; a run in the middle of a message or a call is \
                 restarted, because nothing in its framing shows where the next message begins",
                "whole is restarted when the manager dies, because its whole output is one message",
            ],
        );
        let document = kept_document(&spec);
        assert_eq!(document["plain"]["when_manager_dies"], "goes_on");
        assert_eq!(document["whole"]["when_manager_dies"], "restarted");
        assert!(document.get("usual").is_none());
    }

    #[test]
    fn a_bound_is_said_in_words() {
        assert_eq!(
            verdict(1, (10 << 20) * 17),
            "OK: 1 service; logs and journal take at most 170MiB of disk\n"
        );
    }
}
