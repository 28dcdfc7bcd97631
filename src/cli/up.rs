//! `wharf up`: check, claim the state directory, write down what is wanted, and guard a manager.

use std::collections::BTreeSet;

use clap::Args;

use super::context::Context;
use super::detach;
use super::failure::Failure;
use super::guard;
use crate::name::{Realm, ServiceName};
use crate::os::random;
use crate::spec::{Policy, Spec, meant_instead};
use crate::state::{Applied, Intent, StateDir, StateError};

/// The version of `applied.json`.
const APPLIED: u32 = 1;

/// Start what the configuration says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf up                     in the foreground; Ctrl-C stops everything
  wharf up -d                  in the background; returns once the manager answers
  wharf up -d db web           only these; the others stay down until `wharf start`")]
pub(super) struct Up {
    /// In the background
    #[arg(short, long)]
    detach: bool,
    /// Start only these services
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
        let state = &context.state;
        state.create()?;
        let lock = state.lock()?;
        let before = kept(state.read_intent(), context)?.unwrap_or_default();
        let realm = realm(state, context)?;
        let intent = intent(&spec, &before, &self.names);
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

/// What is to stay down: a stop outlives `down` only where the policy says so, and who names
/// services wants no others.
fn intent(spec: &Spec, before: &Intent, names: &[ServiceName]) -> Intent {
    let stopped: BTreeSet<_> = before.stopped.iter().collect();
    let stays = |(name, service): &(&ServiceName, &std::sync::Arc<crate::spec::Service>)| {
        if names.is_empty() {
            stopped.contains(name) && service.restart.policy == Policy::UnlessStopped
        } else {
            !names.contains(name)
        }
    };
    let stopped = spec.services.iter().filter(stays).map(|(name, _)| name.clone()).collect();
    Intent { stopped, ..Intent::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_down() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        let text = "version: 1\nservices:\n  \
            a: { command: [a], restart: unless-stopped }\n  \
            b: { command: [b], restart: always }\n  \
            c: { command: [c], restart: unless-stopped }\n";
        std::fs::write(&file, text).unwrap();
        let spec = crate::spec::load(&[file], &|_| None).unwrap().spec;
        let names = |words: &str| -> Vec<ServiceName> {
            words.split_whitespace().map(|word| word.parse().unwrap()).collect()
        };
        for (before, named, after) in [
            ("", "", ""),
            ("a b gone", "", "a"),
            ("c b a", "", "a c"),
            ("", "b", "a c"),
            ("a b", "a c", "b"),
        ] {
            let before = Intent { stopped: names(before), ..Intent::default() };
            assert_eq!(intent(&spec, &before, &names(named)).stopped, names(after));
        }
    }
}
