//! `wharf start`, `stop` and `restart`: the same words, another wish.

use clap::Args;

use super::client::{Question, parse, path_of};
use super::context::Context;
use super::failure::Failure;
use super::many;
use crate::manager::ReplicaStatus;
use crate::name::Target;

/// Which services.
#[derive(Debug, Args)]
pub(super) struct Switch {
    /// Services, or single replicas
    #[arg(required = true, value_name = "NAME[/R]")]
    names: Vec<Target>,
}

/// Which services are stopped.
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    names: Switch,
    /// Before it, all that depends on it; without this only what is named is stopped
    #[arg(long)]
    dependents: bool,
}

/// Which services are restarted.
#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    names: Switch,
    /// One replica after the other, the next one when the new run is ready
    #[arg(long)]
    rolling: bool,
}

impl Stop {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let how = if self.dependents { "?dependents=true" } else { "" };
        self.names.ask(context, Verb::Stop, how)
    }
}

impl Restart {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let how = if self.rolling { "?rolling=true" } else { "" };
        self.names.ask(context, Verb::Restart, how)
    }
}

/// What is wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Restart,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

impl Switch {
    pub(super) fn start(self, context: &Context) -> Result<u8, Failure> {
        self.ask(context, Verb::Start, "")
    }

    fn ask(self, context: &Context, verb: Verb, how: &str) -> Result<u8, Failure> {
        let client = context.client(verb.word())?;
        let what = format!("/{}{how}", verb.word());
        let ask = |name: &Target| Question::post(path_of(name, &what), "");
        many::each(&client, self.names.iter().map(ask).collect(), |reply| {
            for replica in parse::<Vec<ReplicaStatus>>(&reply.body)? {
                context.say(&outcome(&replica));
            }
            Ok(())
        })
    }
}

/// What a replica does now, in a few words.
pub(super) fn outcome(replica: &ReplicaStatus) -> String {
    let name = format!("{}/{}", replica.service, replica.replica);
    match (replica.pid, &replica.note) {
        (Some(pid), _) => format!("{name} is {} (pid {pid})", replica.state.as_str()),
        (None, Some(note)) => format!("{name} is {}: {note}", replica.state.as_str()),
        (None, None) => format!("{name} is {}", replica.state.as_str()),
    }
}
