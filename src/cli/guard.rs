//! The two commands that nobody types: the guardian in the background, and the manager.

use std::os::fd::OwnedFd;

use clap::Args;

use super::context::Context;
use super::failure::{Failure, OK};
use crate::api;
use crate::guardian::{self, LOCK_FD};
use crate::manager::{self, Options};
use crate::os::{fds, prctl};

/// Guard a manager in the background (`wharf up -d` runs this)
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Guardian {}

/// Manage services (the guardian runs this)
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Manager {
    /// Somebody looks on at a terminal
    #[arg(long)]
    foreground: bool,
}

impl Guardian {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let Self {} = self;
        let lock = fds::inherited(LOCK_FD)
            .map_err(|source| Failure::Io { doing: "take over the lock", source })?;
        guard(context, lock, false)
    }
}

impl Manager {
    pub(super) fn run(self, context: &Context) -> u8 {
        let options = Options {
            state: context.state.clone(),
            foreground: self.foreground,
            color: context.color_words,
        };
        let state = context.state.clone();
        let serve = |listener, handle| api::serve(listener, handle, state).map(drop);
        let code = manager::run(&options, serve);
        u8::try_from(code).unwrap_or(super::failure::FAILED)
    }
}

/// Becomes the guardian of a manager; returns when everything is down.
pub(super) fn guard(context: &Context, lock: OwnedFd, foreground: bool) -> Result<u8, Failure> {
    context.state.sign_lock(prctl::pid())?;
    log_own_words(context);
    let mut arguments = vec!["manager".to_owned()];
    arguments.extend(context.state_words.iter().cloned());
    if foreground {
        arguments.push("--foreground".to_owned());
    }
    let color = if foreground && context.color_words { "always" } else { "never" };
    arguments.extend(["--color".to_owned(), color.to_owned()]);
    let guardian = guardian::Guardian {
        state: context.state.clone(),
        lock,
        arguments,
        environment: environment(context),
    };
    guardian.run()?;
    Ok(OK)
}

/// All of our environment; what is not UTF-8 has no place in a configuration and is left out. `-v`
/// and `-q` become the level of the manager's log, unless `WHARF_LOG` is set.
pub(super) fn environment(context: &Context) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let level = match (context.verbose, context.quiet) {
        (true, _) => Some("debug"),
        (_, true) => Some("warn"),
        _ => None,
    };
    if let Some(level) = level.filter(|_| !all.iter().any(|(name, _)| name == "WHARF_LOG")) {
        all.push(("WHARF_LOG".to_owned(), level.to_owned()));
    }
    all
}

/// The guardian's few words go to standard error, which is wharf.log in the background.
fn log_own_words(context: &Context) {
    use tracing_subscriber::EnvFilter;
    let level = if context.verbose { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("WHARF_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .with_writer(|| fds::PoliteStderr)
        .finish();
    // Set twice only in a test, which then shares the first one's.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
