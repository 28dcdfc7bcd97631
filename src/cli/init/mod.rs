//! `wharf init`: a services.yaml to begin with.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::context::{Context, USUAL};
use super::failure::{Failure, OK};
use super::import::write;
use crate::import::{Format, detect};
use crate::spec;

/// Write a commented services.yaml that works, and its schema for editors
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf init
  wharf init --example ports
  wharf init --force")]
pub(super) struct Init {
    /// What to begin with
    #[arg(long, value_name = "NAME", default_value = "starter")]
    example: Example,
    /// Write over what is there
    #[arg(long)]
    force: bool,
}

/// What there is to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Example {
    /// A server and a worker, with what one changes first
    Starter,
    /// Programs that are spoken to in messages
    Ports,
    /// What follows an end: restarts, backoff, giving up
    Restarts,
}

impl Example {
    fn text(self) -> &'static str {
        match self {
            Self::Starter => include_str!("starter.yaml"),
            Self::Ports => include_str!("ports.yaml"),
            Self::Restarts => include_str!("restarts.yaml"),
        }
    }
}

/// The names of the two files.
const FILE: &str = USUAL[0];
const SCHEMA: &str = "services.schema.json";

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let here = std::env::current_dir()
            .map_err(|source| Failure::Io { doing: "find the current folder", source })?;
        let schema = here.join(SCHEMA);
        if !self.force && here.join(FILE).exists() {
            return Err(Failure::Exists(FILE.to_owned()));
        }
        if !self.force && USUAL[1..].iter().any(|name| here.join(name).exists()) {
            return Err(Failure::Hides);
        }
        write(&here.join(FILE), self.example.text(), 0o644, self.force)?;
        let text = serde_json::to_string_pretty(&spec::schema())
            .map_err(|error| Failure::Io { doing: "write the schema", source: error.into() })?;
        match write(&schema, &format!("{text}\n"), 0o644, self.force) {
            Ok(()) => context.say(&format!("{FILE} and {SCHEMA} are written")),
            Err(Failure::Exists(_)) => {
                context.say(&format!("{FILE} is written; {SCHEMA} is there and left alone"));
            }
            Err(other) => return Err(other),
        }
        context.say("`wharf check` checks it, `wharf up` runs it, `wharf ps` shows what runs");
        for (name, format) in importable(&here) {
            context.say(&format!(
                "there is a configuration of {format} here; to have its services instead: \
                 wharf import {} -o {FILE} --force",
                shell_words::quote(&name)
            ));
        }
        Ok(OK)
    }
}

/// Files of a folder that `wharf import` can read, told by their names.
fn importable(folder: &Path) -> Vec<(String, Format)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> =
        names.filter_map(|name| Some((name.clone(), detect(Path::new(&name), "")?))).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}
