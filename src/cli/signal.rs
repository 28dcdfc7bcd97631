//! `wharf signal`: send a signal to what runs.

use clap::Args;
use serde_json::json;

use super::client::{Question, parse, path_of};
use super::context::Context;
use super::failure::{Failure, OK};
use crate::manager::ReplicaStatus;
use crate::name::Target;

/// Send a signal to the running processes of a service
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf signal web HUP
  wharf signal web/2 -s SIGUSR1")]
pub(super) struct Signal {
    /// A service, or a single replica
    #[arg(value_name = "NAME[/R]")]
    name: Target,
    /// The signal, such as HUP, SIGTERM, 9 or RTMIN+1
    #[arg(value_name = "SIGNAL", required_unless_present = "flag", conflicts_with = "flag")]
    signal: Option<crate::exit::Signal>,
    /// The same
    #[arg(id = "flag", short = 's', long = "signal", value_name = "SIGNAL")]
    flag: Option<crate::exit::Signal>,
}

impl Signal {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let Some(signal) = self.signal.or(self.flag) else {
            return Err(Failure::usage("which signal is meant"));
        };
        let client = context.client("signal")?;
        let body = json!({ "signal": signal.to_string() }).to_string();
        let reply = client.ask(Question::post(path_of(&self.name, "/signal"), body))?;
        for replica in parse::<Vec<ReplicaStatus>>(&reply.body)? {
            if let Some(pid) = replica.pid {
                let name = format!("{}/{}", replica.service, replica.replica);
                context.say(&format!("sent {signal} to {name} (pid {pid})"));
            }
        }
        Ok(OK)
    }
}
