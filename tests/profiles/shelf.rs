//! The folders of `ports/`: each has its three files, what says the same twice says the same, and the
//! schemas beside them are those of the types.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use schemars::generate::SchemaSettings;

use crate::support::text;
use crate::transcript::{Transcript, load, names, ports};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        crate::test("shelf::every_folder_has_its_three_files_and_is_compiled_in", folders),
        crate::test("shelf::a_dozen_profiles_are_tried_each_time_and_thirty_in_all", enough),
        crate::test("shelf::the_schema_of_transcripts_is_the_one_committed", schema),
        crate::test("shelf::the_makefile_finds_the_packages_of_every_transcript", packages),
    ]
}

fn folders() {
    let names = names();
    for name in &names {
        for file in ["port.yaml", "transcript.yaml", "README.md"] {
            let text = fs::read_to_string(ports().join(name).join(file)).expect(file);
            let schema = file.strip_suffix(".yaml").map(|stem| format!("../{stem}.schema.json"));
            let begins = schema.map_or_else(
                || format!("# {}", text.get(2..).and_then(|text| text.lines().next()).unwrap()),
                |schema| format!("# yaml-language-server: $schema={schema}"),
            );
            assert!(text.starts_with(&begins), "{name}/{file} does not begin with {begins}");
        }
    }
    let built_in: Vec<&str> = wharf::spec::built_in_profiles().collect();
    assert_eq!(built_in, names);
}

fn enough() {
    let all: Vec<Transcript> = names().iter().map(|name| load(name).unwrap()).collect();
    let quick = all.iter().filter(|transcript| !transcript.soak).count();
    assert!(quick >= 12 && all.len() >= 30, "{quick} of {}", all.len());
}

fn schema() {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = generator.into_root_schema_for::<Transcript>();
    let made = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let file = ports().join("transcript.schema.json");
    if std::env::var_os("WHARF_BLESS").is_some() {
        fs::write(&file, made).unwrap();
    } else {
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == made, "{} is another; WHARF_BLESS=1 rewrites it", file.display());
    }
}

/// What `make deps` and `make soak-deps` install.
fn packages() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/profile-programs");
    for (word, soak) in [("quick", false), ("all", true)] {
        let output = Command::new(&script).arg(word).output().unwrap();
        let said = text(&output.stdout);
        let found: BTreeSet<&str> = said.split_whitespace().collect();
        let transcripts: Vec<Transcript> = names()
            .iter()
            .map(|name| load(name).unwrap())
            .filter(|one| soak || !one.soak)
            .collect();
        let named: BTreeSet<&str> =
            transcripts.iter().flat_map(|one| &one.debian).map(String::as_str).collect();
        assert_eq!(found, named, "{word}");
    }
}
