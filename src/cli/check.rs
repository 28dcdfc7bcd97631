//! `wharf check`: is the configuration good, and what can it cost.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::failure::{Failure, OK};
use super::out;
use super::text::rounded_size;
use crate::spec;

/// Check the configuration and say everything that is wrong with it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf check
  wharf check --file services.yaml --file services.prod.yaml
  wharf check --json | jq .mistakes")]
pub(super) struct Check {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let loaded = match context.load() {
            Err(Failure::Invalid(mistakes)) if self.json => {
                out::print_document(&json!({
                    "ok": false,
                    "total": mistakes.total(),
                    "mistakes": mistakes.iter().collect::<Vec<_>>(),
                }))?;
                return Ok(Failure::Invalid(mistakes).code());
            }
            answer => answer?,
        };
        let bound = spec::disk_bound(&loaded.spec);
        let services = loaded.spec.services.len();
        if self.json {
            let warnings = &loaded.warnings;
            out::print_document(&json!({
                "ok": true, "services": services, "disk_bound_bytes": bound, "warnings": warnings,
            }))?;
        } else {
            out::print(&verdict(services, bound))?;
        }
        Ok(OK)
    }
}

fn verdict(services: usize, bound: u64) -> String {
    let noun = if services == 1 { "service" } else { "services" };
    format!(
        "OK: {services} {noun}; logs and journal take at most {} of disk\n",
        rounded_size(bound)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_said_in_words() {
        assert_eq!(
            verdict(1, (10 << 20) * 17),
            "OK: 1 service; logs and journal take at most 170MiB of disk\n"
        );
    }
}
