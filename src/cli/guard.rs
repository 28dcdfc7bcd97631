//! The two commands that nobody types: the guardian in the background, and the manager.

use std::os::fd::OwnedFd;

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use crate::api;
use crate::exit::Signal;
use crate::guardian::{self, Given, HangUp, LOCK_FD, NotifyAt, Role};
use crate::manager::{self, Options};
use crate::name::ServiceName;
use crate::os::{fds, prctl, signal};

/// Where a guardian in the background finds the sockets that were handed over to `wharf up -d`.
pub(super) const HANDED_ON: i32 = LOCK_FD + 1;

/// Guard a manager in the background (`wharf up -d` runs this)
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Guardian {
    /// Which sockets were handed over
    #[arg(long, value_delimiter = ',', value_parser = role)]
    given: Vec<Role>,
}

/// Manage services (the guardian runs this)
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Manager {
    /// Somebody looks on at a terminal
    #[arg(long)]
    foreground: bool,
    /// A hang-up asks for a reload
    #[arg(long)]
    reload_on_hang_up: bool,
    /// A service manager wants to know how things are
    #[arg(long)]
    notify: bool,
    /// Which sockets were handed over
    #[arg(long, value_delimiter = ',', value_parser = role)]
    given: Vec<Role>,
    /// The service with which everything ends
    #[arg(long)]
    exit_with: Option<ServiceName>,
}

fn role(name: &str) -> Result<Role, String> {
    Role::of(name).ok_or_else(|| "control or metrics".to_owned())
}

impl Guardian {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let lock = fds::inherited(LOCK_FD)
            .map_err(|source| Failure::Io { doing: "take over the lock", source })?;
        let given = Given::inherit(&self.given, HANDED_ON)?;
        guard(context, lock, Way { given, foreground: false, exit_with: None })
    }
}

impl Manager {
    pub(super) fn run(self, context: &Context) -> u8 {
        let options = Options {
            state: context.state.clone(),
            foreground: self.foreground,
            color: context.color_words,
            reload_on_hang_up: self.reload_on_hang_up,
            notify: self.notify,
            given: self.given,
            exit_with: self.exit_with,
        };
        let state = context.state.clone();
        let serve = |doors: manager::Doors, handle| {
            api::serve_also(doors.control, doors.metrics, handle, state).map(drop)
        };
        let code = manager::run(&options, serve);
        u8::try_from(code).unwrap_or(super::failure::FAILED)
    }
}

/// How a guardian is to guard.
#[derive(Debug)]
pub(super) struct Way {
    /// Sockets that were handed over.
    pub(super) given: Given,
    /// Not in the background.
    pub(super) foreground: bool,
    /// The service with which everything ends.
    pub(super) exit_with: Option<ServiceName>,
}

/// Becomes the guardian of a manager; returns when everything is down, with the exit code.
pub(super) fn guard(context: &Context, lock: OwnedFd, way: Way) -> Result<u8, Failure> {
    context.state.sign_lock(prctl::pid())?;
    log_own_words(context);
    let notify = notify()?;
    let hang_up = hang_up(&way, notify.is_some());
    let mut arguments = vec!["manager".to_owned()];
    arguments.extend(context.state_words.iter().cloned());
    let words = [
        (way.foreground, "--foreground"),
        (hang_up == HangUp::Reload, "--reload-on-hang-up"),
        (notify.is_some(), "--notify"),
    ];
    arguments.extend(words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()));
    let named = [
        ("--given", way.given.word()),
        ("--exit-with", way.exit_with.as_ref().map(ToString::to_string)),
    ];
    for (word, value) in named {
        arguments.extend(value.into_iter().flat_map(|value| [word.to_owned(), value]));
    }
    let color = if way.foreground && context.color_words { "always" } else { "never" };
    arguments.extend(["--color".to_owned(), color.to_owned()]);
    let guardian = guardian::Guardian {
        state: context.state.clone(),
        lock,
        arguments,
        environment: environment(context),
        hang_up,
        notify,
        given: way.given,
    };
    Ok(guardian.run()?)
}

/// Who wants to be told how wharf is.
pub(super) fn notify() -> Result<Option<NotifyAt>, Failure> {
    Ok(NotifyAt::of(|name| std::env::var(name).ok(), prctl::pid())?)
}

/// In the background a hang-up can only be meant, as a reload; and so where nobody sits at a terminal of
/// wharf's: below a service manager, and as PID 1.
fn hang_up(way: &Way, is_told: bool) -> HangUp {
    if !way.foreground || is_told || prctl::pid() == 1 {
        HangUp::Reload
    } else if signal::ignored(Signal::HUP) {
        HangUp::Nothing
    } else {
        HangUp::End
    }
}

/// All of our environment but what a service manager told this very process; what is not UTF-8 has no
/// place in a configuration and is left out. `-v` and `-q` become the level of the manager's log, unless
/// `WHARF_LOG` is set.
pub(super) fn environment(context: &Context) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !guardian::VARIABLES.contains(&name.as_str()))
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
