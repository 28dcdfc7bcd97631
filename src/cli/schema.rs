//! `wharf schema`: what services.yaml may hold, for editors.

use clap::Args;

use super::failure::{Failure, OK};
use super::out;
use crate::spec;

/// Print the JSON Schema of services.yaml
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf schema > services.schema.json
  wharf schema --json | jq .properties
  wharf schema --profile > port.schema.json")]
pub(super) struct Schema {
    /// The schema of a profile, ports/NAME/port.yaml, instead
    #[arg(long)]
    profile: bool,
    /// It is JSON in any case; on one line then
    #[arg(long)]
    json: bool,
}

impl Schema {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let schema = if self.profile { spec::profile_schema() } else { spec::schema() };
        if self.json {
            out::print(&format!("{schema}\n"))?;
        } else {
            out::print_document(&schema)?;
        }
        Ok(OK)
    }
}
