//! Cuts the notes of a release out of CHANGELOG.md: `cargo run --example release-notes [VERSION]`.
//!
//! Without a version it is the newest section that says something. It reads one file, prints, and knows
//! nothing of tags or servers. A Rust program rather than a script, because a release then needs nothing
//! that a build does not need.

use std::io::Write as _;
use std::process::ExitCode;

/// The section of a version (`Unreleased` is one too), or the newest that is not empty, without its
/// heading. `None` where there is none.
pub(crate) fn notes(changelog: &str, version: Option<&str>) -> Option<String> {
    let mut sections = changelog.split("\n## ").skip(1).filter_map(|section| {
        let (heading, body) = section.split_once('\n')?;
        let name = heading.trim_start_matches('[').split(']').next()?;
        // Links of the whole file stand at its end.
        let lines = body.lines().filter(|line| !(line.starts_with('[') && line.contains("]: ")));
        let body = lines.collect::<Vec<_>>().join("\n").trim().to_owned();
        Some((name.trim().to_owned(), body))
    });
    let wanted = |(name, body): &(String, String)| match version {
        Some(version) => name == version.trim_start_matches('v'),
        None => !body.is_empty(),
    };
    sections.find(wanted).map(|(_, body)| body)
}

fn main() -> ExitCode {
    let version = std::env::args().nth(1);
    let say = |words: String| {
        let _ = writeln!(std::io::stderr(), "{words}");
        ExitCode::FAILURE
    };
    let changelog = match std::fs::read_to_string("CHANGELOG.md") {
        Ok(changelog) => changelog,
        Err(error) => return say(format!("cannot read CHANGELOG.md: {error}")),
    };
    match notes(&changelog, version.as_deref()) {
        Some(notes) => match writeln!(std::io::stdout(), "{notes}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(format!("cannot write: {error}")),
        },
        None => say(format!("CHANGELOG.md has no section {}", version.unwrap_or_default())),
    }
}
