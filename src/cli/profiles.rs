//! `wharf profiles`: the programs that wharf knows how to speak to.
//!
//! What is listed is what `port: { use: NAME }` finds; no manager is asked.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Failure, OK};
use super::out;
use super::text::{Show, table};
use crate::spec::{self, KnownProfile};

/// List the profiles: programs that are spoken to with `port: { use: NAME }`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf profiles
  wharf profiles sqlite3
  wharf profiles --json | jq '.[].name'")]
pub(super) struct Profiles {
    /// One of them: what there is to know about it, and its port.yaml
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Profiles {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let find = |name: &str| {
            spec::known_profile(&context.files, name)
                .map_err(|suggestion| Failure::NoSuchProfile { name: name.to_owned(), suggestion })
        };
        let Some(name) = &self.name else {
            let names = spec::profile_names(&context.files);
            let all = names.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
            let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
            return self.told(|| listed(&all, show), || all.iter().map(object).collect());
        };
        let profile = find(name)?;
        if let Err(mistakes) = profile.value {
            return Err(Failure::Invalid(mistakes));
        }
        let whole = || {
            let mut whole = object(&profile);
            whole["readme"] = json!(profile.readme);
            whole
        };
        self.told(|| page(&profile), whole)
    }

    fn told(
        &self,
        text: impl FnOnce() -> String,
        value: impl FnOnce() -> Value,
    ) -> Result<u8, Failure> {
        if self.json {
            out::print_document(&value())?;
        } else {
            out::print(&text())?;
        }
        Ok(OK)
    }
}

/// A line a profile.
fn listed(all: &[KnownProfile], show: Show) -> String {
    let line = |profile: &KnownProfile| {
        let told = match &profile.value {
            Ok(value) => show.foreign(value["description"].as_str().unwrap_or_default()),
            Err(_) => "(has mistakes)".to_owned(),
        };
        let from = if profile.file.is_some() { "ports/" } else { "wharf" };
        vec![profile.name.clone().into(), from.to_owned().into(), told.into()]
    };
    table(&["NAME", "FROM", "WHAT"], &all.iter().map(line).collect::<Vec<_>>(), show)
}

/// Its page, and below it what is meant by `use`.
fn page(profile: &KnownProfile) -> String {
    let mut page = String::new();
    if let Some(readme) = &profile.readme {
        page.push_str(readme.trim_end());
        page.push_str("\n\n");
    }
    let place = profile.file.as_ref().map_or_else(
        || format!("ports/{}/port.yaml", profile.name),
        |file| file.display().to_string(),
    );
    let _ = write!(page, "`{place}`:\n\n```yaml\n{}\n```\n", profile.text.trim_end());
    page
}

/// What its file says, its name, and where it is: `null` where it is compiled in. One that has
/// mistakes has those in place of what it says.
fn object(profile: &KnownProfile) -> Value {
    let mut whole = json!({ "name": profile.name, "file": profile.file });
    match &profile.value {
        Ok(Value::Object(keys)) => {
            for (key, value) in keys {
                whole[key] = value.clone();
            }
        }
        Ok(_) => {}
        Err(mistakes) => whole["mistakes"] = json!(mistakes.iter().collect::<Vec<_>>()),
    }
    whole
}
