//! `wharf scale`: so many replicas, whatever the configuration says.

use std::str::FromStr;

use clap::Args;
use serde_json::json;

use super::client::{Question, parse, path_of};
use super::context::Context;
use super::failure::Failure;
use super::many;
use super::switch::outcome;
use crate::manager::ReplicaStatus;
use crate::name::{ServiceName, Target};

/// Change how many replicas of a service there are
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf scale web=3
  wharf scale web=3 worker=0

The number outlives the manager. A reload keeps it, unless `replicas` of the service is another
in the file than before; `wharf up` begins with what the file says.")]
pub(super) struct Scale {
    /// How many of which service, 0 to 10000
    #[arg(required = true, value_name = "NAME=N")]
    wishes: Vec<Wish>,
}

/// So many of that service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    name: ServiceName,
    replicas: u32,
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) =
            text.split_once('=').ok_or("a name, `=` and a number are expected, such as web=3")?;
        let name = name.parse::<ServiceName>().map_err(|error| error.to_string())?;
        let replicas = count.parse().ok().filter(|count| *count <= 10_000);
        let replicas = replicas.ok_or("the number of replicas is 0 to 10000")?;
        Ok(Self { name, replicas })
    }
}

impl Scale {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client("scale")?;
        let ask = |wish: &Wish| {
            let target = Target { service: wish.name.clone(), replica: None };
            let body = json!({ "replicas": wish.replicas }).to_string();
            Question::post(path_of(&target, "/scale"), body)
        };
        many::each(&client, self.wishes.iter().map(ask).collect(), |reply| {
            for replica in parse::<Vec<ReplicaStatus>>(&reply.body)? {
                context.say(&outcome(&replica));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_a_name_and_a_number() {
        let wish = Wish { name: "web".parse().unwrap(), replicas: 3 };
        assert_eq!("web=3".parse(), Ok(wish));
        for wrong in ["web", "web=", "web=-1", "web=10001", "=3", "web/1=3", "web=x"] {
            assert!(wrong.parse::<Wish>().is_err(), "{wrong}");
        }
    }
}
