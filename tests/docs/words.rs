//! The closed lists against the documents that explain them: a word that is added and not explained
//! fails here, and so does one that is explained and no longer exists.

use std::collections::BTreeSet;

use wharf::exit::{Cause, Reason};

use crate::documents::read;

/// The words of the first column of the table under a heading.
fn explained(document: &str, heading: &str) -> BTreeSet<String> {
    let text = read(document);
    let section = text.split(&format!("\n## {heading}\n")).nth(1).expect(heading);
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

#[test]
fn every_reason_and_every_cause_is_explained() {
    let document = "docs/guide/reading-why.md";
    let reasons: BTreeSet<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(explained(document, "Reasons"), reasons);
    let causes: BTreeSet<String> = Cause::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(explained(document, "Causes"), causes);
}

#[test]
fn every_profile_is_told_of() {
    let profiles: BTreeSet<String> = wharf::spec::built_in_profiles().map(str::to_owned).collect();
    assert_eq!(explained("docs/guide/ports.md", "Profiles"), profiles);
}
