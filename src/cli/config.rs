//! `wharf config`: the configuration with everything filled in.

use clap::Args;

use super::context::Context;
use super::failure::{Failure, OK};
use super::out;
use crate::spec;

/// Print the configuration as it is meant: merged, with every default, secrets masked
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf config
  wharf config --json | jq '.services | keys'
  wharf config --file services.yaml --file services.prod.yaml")]
pub(super) struct Config {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let loaded = context.load()?;
        if self.json {
            out::print_document(&spec::resolved_value(&loaded.spec, true))?;
        } else {
            out::print(&spec::resolved(&loaded.spec, true))?;
        }
        Ok(OK)
    }
}
