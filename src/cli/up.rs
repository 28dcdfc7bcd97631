//! `wharf up`: check, claim the state directory, write down what is wanted, and guard a manager.

use clap::Args;

use super::chosen;
use super::context::Context;
use super::detach;
use super::failure::Failure;
use super::guard;
use crate::name::{Realm, ServiceName};
use crate::os::random;
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
  wharf up -d --profile dev    also the services of the profile `dev`")]
pub(super) struct Up {
    /// In the background
    #[arg(short, long)]
    detach: bool,
    /// Also start services of this profile; several may be chosen [env: WHARF_PROFILES]
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// Start only these services, whatever their profiles, and what they depend on
    #[arg(value_name = "NAME")]
    names: Vec<ServiceName>,
}

impl Up {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let spec = context.load()?.spec;
        for name in &self.names {
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
        chosen::intent(&spec, &Intent::default(), &self.names, profiles.clone())?;
        let state = &context.state;
        state.create()?;
        let lock = state.lock()?;
        let before = kept(state.read_intent(), context)?.unwrap_or_default();
        let realm = realm(state, context)?;
        let intent = chosen::intent(&spec, &before, &self.names, profiles)?;
        state.write_intent(&intent)?;
        state.write_applied(&Applied { schema: APPLIED, realm, spec })?;
        if self.detach { detach::start(context, lock) } else { guard::guard(context, lock, true) }
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
