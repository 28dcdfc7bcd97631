//! Other people's configurations as services.yaml: text in, services and what could not be carried
//! over out.
//!
//! Each format has a file that reads it and a table that says what becomes of each of its keys;
//! `docs/import.md` shows the tables. Nothing here touches a file: who calls brings the way to read.

mod command;
mod detect;
mod draft;
mod emit;
mod job;
mod loss;
mod table;

mod compose;
mod ini;
mod pm2;
mod process_compose;
mod procfile;
mod supervisord;
mod systemd;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::spec::Mistakes;

pub use detect::{Format, detect};
pub use loss::{Loss, Weight};
pub use table::documented;

use job::Job;

/// How files are reached.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The text of a file, or in words why it cannot be read; `None` when there is none.
    pub read: &'a dyn Fn(&Path) -> Option<Result<String, String>>,
    /// The names in a folder; empty when there is none.
    pub list: &'a dyn Fn(&Path) -> Vec<String>,
}

/// What is to be imported, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// The files as the user named them, each with its absolute path.
    pub files: Vec<(String, PathBuf)>,
    /// The current folder, absolute: files are shown from there.
    pub here: PathBuf,
    /// The folder in which the result will lie, absolute: its relative paths start there.
    pub folder: PathBuf,
    /// The format, where the user says it.
    pub format: Option<Format>,
    /// How many of each process of a Procfile run, such as `web=2,all=1`.
    pub formation: Option<String>,
    /// The first port of a Procfile.
    pub port: Option<u16>,
    /// Environment files of a Procfile in place of `.env`, absolute.
    pub env_files: Vec<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The format that was read.
    pub format: Format,
    /// The text of services.yaml.
    pub yaml: String,
    /// What could not be carried over and what should be known, in the order of the files.
    pub losses: Vec<Loss>,
    /// How many services there are.
    pub services: usize,
    /// Whether values of environment files, which may be secrets, stand in the text.
    pub secrets: bool,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Mistakes in the files, each with its place.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// The format is not known.
    #[error("tell what {file} is; say --from {}", Format::words())]
    Unknown {
        /// The file.
        file: String,
    },
    /// Files of several formats at once.
    #[error("import {first} and {second} in one go; import one after the other")]
    Mixed {
        /// The format of the first file.
        first: Format,
        /// Another.
        second: Format,
    },
    /// A program in a language, not a configuration.
    #[error(
        "import {file}: it is a program in JavaScript; \
         run `pm2 prettylist > ecosystem.json` where it runs, and import that"
    )]
    JavaScript {
        /// The file.
        file: String,
    },
    /// Options that make no sense for the format.
    #[error("use {option} with {format}; it is for a Procfile")]
    Option {
        /// The option.
        option: &'static str,
        /// The format.
        format: Format,
    },
    /// The text of `--formation`.
    #[error("understand the formation `{0}`; write it as web=2,worker=1")]
    Formation(String),
    /// Not one service could be made.
    #[error("make a single service of it: {}", said(.losses))]
    Nothing {
        /// What was lost.
        losses: Vec<Loss>,
    },
}

fn said(losses: &[Loss]) -> String {
    if losses.is_empty() {
        return "there is none in it".to_owned();
    }
    let lines: Vec<_> = losses.iter().map(|loss| format!("\n{loss}")).collect();
    format!("nothing in it can run here{}", lines.concat())
}

/// Imports what is ordered. `schema` is that of services.yaml: keys that it does not support yet
/// become comments.
pub fn import(order: &Order, world: World<'_>, schema: &Value) -> Result<Imported, ImportError> {
    let mut job = Job::new(order, world, schema);
    let files = job.open_all()?;
    let format = job.format(&files)?;
    if format != Format::Procfile {
        for (given, option) in [
            (order.formation.is_some(), "--formation"),
            (order.port.is_some(), "--port"),
            (!order.env_files.is_empty(), "--env-file"),
        ] {
            if given {
                return Err(ImportError::Option { option, format });
            }
        }
    }
    match format {
        Format::Procfile => procfile::read(&mut job, &files)?,
        Format::Supervisord => supervisord::read(&mut job, &files),
        Format::Compose => compose::read(&mut job, &files),
        Format::ProcessCompose => process_compose::read(&mut job, &files),
        Format::Systemd => systemd::read(&mut job, &files),
        Format::Pm2 => pm2::read(&mut job, &files),
    }
    job.finish(format)
}
