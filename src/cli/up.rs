//! `wharf up`: check, claim the state directory, write down what is wanted, and guard a manager.

use clap::Args;

use super::chosen;
use super::context::Context;
use super::detach;
use super::failure::Failure;
use super::guard::{self, Way};
use crate::guardian::Given;
use crate::name::{Realm, ServiceName};
use crate::os::{prctl, random, signal};
use crate::spec::meant_instead;
use crate::state::{Applied, Intent, StateDir, StateError};

/// The version of `applied.json`.
const APPLIED: u32 = 1;

/// Start what the configuration says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf up                     in the foreground; Ctrl-C stops everything
  wharf up -d                  in the background; returns once the manager answers
  wharf up -d db web           only these and what they depend on
  wharf up -d --profile dev    also the services of the profile `dev`
  wharf up --exit-with web     in a container: ends with web, and with its exit code")]
pub(super) struct Up {
    /// In the background
    #[arg(short, long)]
    detach: bool,
    /// Also start services of this profile; several may be chosen [env: WHARF_PROFILES]
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// When this service has ended for good, stop everything and exit with its exit code, or with 128
    /// and the number of the signal that ended it
    #[arg(long, value_name = "NAME", conflicts_with = "detach")]
    exit_with: Option<ServiceName>,
    /// Start only these services, whatever their profiles, and what they depend on
    #[arg(value_name = "NAME")]
    names: Vec<ServiceName>,
}

impl Up {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        // First of all, before anything else opens a descriptor.
        let given = Given::take(|name| std::env::var(name).ok(), prctl::pid())?;
        if prctl::pid() == 1 {
            // The kernel drops what would end PID 1, unless it is blocked: then the guardian finds it.
            signal::block_all().map_err(|source| Failure::Io { doing: "block signals", source })?;
        }
        let spec = context.load()?.spec;
        for name in self.names.iter().chain(&self.exit_with) {
            if !spec.services.contains_key(name) {
                let known = spec.services.keys().map(ServiceName::as_str);
                return Err(Failure::NoSuchService {
                    name: name.to_string(),
                    suggestion: meant_instead(name.as_str(), known).map(str::to_owned),
                });
            }
        }
        let variable = std::env::var("WHARF_PROFILES").ok();
        let profiles = chosen::profiles(&spec, &self.profiles, variable.as_deref())?;
        // What cannot be started as it was asked for is refused before anything is written.
        let first = chosen::intent(&spec, &Intent::default(), &self.names, profiles.clone())?;
        if let Some(name) = &self.exit_with {
            let odd = chosen::ends(&spec.services[name], &first)?;
            if let Some(odd) = odd {
                context.say(&odd);
            }
        }
        let state = &context.state;
        state.create()?;
        let lock = state.lock()?;
        let before = kept(state.read_intent(), context)?.unwrap_or_default();
        let realm = realm(state, context)?;
        let intent = chosen::intent(&spec, &before, &self.names, profiles)?;
        if let Some(name) = &self.exit_with {
            // It may be one that stays stopped.
            chosen::ends(&spec.services[name], &intent)?;
        }
        state.write_intent(&intent)?;
        state.write_applied(&Applied { schema: APPLIED, realm, spec, earlier: Vec::new() })?;
        if self.detach {
            detach::start(context, lock, given)
        } else {
            let way = Way { given, foreground: true, exit_with: self.exit_with };
            guard::guard(context, lock, way)
        }
    }
}

/// A damaged file must not keep everything down: it is told and done without.
fn kept<T>(read: Result<T, StateError>, context: &Context) -> Result<Option<T>, Failure> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StateError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error @ StateError::Content { .. }) => {
            let words = Failure::State(error).words();
            context.say(&format!("{words}\nwarning: it is written anew"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn realm(state: &StateDir, context: &Context) -> Result<Realm, Failure> {
    if let Some(applied) = kept(state.read_applied(), context)? {
        return Ok(applied.realm);
    }
    let number = random::number();
    number.map(Realm).map_err(|source| Failure::Io { doing: "read random numbers", source })
}
