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

/// What is wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
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
    pub(super) fn run(self, context: &Context, verb: Verb) -> Result<u8, Failure> {
        let client = context.client(verb.word())?;
        let what = format!("/{}", verb.word());
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
    match replica.pid {
        Some(pid) => format!("{name} is {} (pid {pid})", replica.state.as_str()),
        None => format!("{name} is {}", replica.state.as_str()),
    }
}
