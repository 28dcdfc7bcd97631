//! Every block of every document: run, checked or, with a reason, neither.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::blocks::{Block, blocks};
use crate::matching::matches;
use crate::place::{Place, root};

/// Documents whose commands are run in a clone of the repository, where the demo is.
const IN_A_CLONE: [&str; 2] = ["README.md", "docs/guide/01-first-quarter-of-an-hour.md"];

/// The blocks that are not run: how many a document may have. Their reasons stand in the documents.
const NOT_RUN: &[(&str, usize)] = &[
    ("README.md", 1),
    ("docs/guide/01-first-quarter-of-an-hour.md", 1),
    ("docs/guide/installing.md", 1),
    ("docs/guide/operations.md", 2),
];

/// Kinds of blocks that hold no commands.
const PROSE: [&str; 3] = ["text", "mermaid", "rust"];

/// README, CONTRIBUTING, and everything under docs and ports.
pub(crate) fn documents() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["docs", "ports", "packaging"] {
        walk(&root().join(folder), &mut found);
    }
    let name = |path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = found.into_iter().map(name).collect();
    names.sort();
    names
}

pub(crate) fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

/// Does what a document says, in a place of its own; the complaints.
fn follow(document: &str) -> String {
    let blocks = blocks(&read(document));
    let acts = blocks.iter().any(|block| !PROSE.contains(&block.kind.as_str()));
    if !acts {
        return String::new();
    }
    let _alone = alone(&blocks);
    let place = if IN_A_CLONE.contains(&document) {
        Place::clone_of_the_repository()
    } else {
        Place::new()
    };
    let mut complaints = String::new();
    for block in blocks.iter().filter(|block| block.mark("not-run").is_none()) {
        if let Err(complaint) = act(block, &place) {
            let _ = writeln!(complaints, "{document}:{}: {complaint}", block.line);
        }
    }
    complaints
}

/// A document that names an address of this machine has it for itself, until what is returned is
/// dropped: no other document, and no other run of these tests, uses any meanwhile.
fn alone(blocks: &[Block]) -> Option<fs::File> {
    let names_one = |block: &Block| block.text.contains("127.0.0.1");
    blocks.iter().any(names_one).then(|| {
        let path = std::env::temp_dir().join("wharf-documents.lock");
        let mut options = fs::OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(path).unwrap();
        lock.lock().unwrap();
        lock
    })
}

fn act(block: &Block, place: &Place) -> Result<(), String> {
    match block.kind.as_str() {
        "console" => transcript(block, place),
        "sh" => {
            let said = place.run(&block.text);
            if said.code == Some(0) {
                Ok(())
            } else {
                Err(format!("{:?}: {}", said.code, said.text))
            }
        }
        "yaml" => configuration(block, place),
        "json" => parsed::<serde_json::Value, _>(serde_json::from_str(&block.text)),
        "ini" => {
            parse_in_python(block, place, "configparser.RawConfigParser(strict=True).read_string")
        }
        "toml" => parse_in_python(block, place, "tomllib.loads"),
        kind if PROSE.contains(&kind) => prose(block),
        kind => Err(format!("nobody knows what to do with {kind}")),
    }
}

fn parsed<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

/// What looks like a command belongs into a block that is run.
fn prose(block: &Block) -> Result<(), String> {
    let command = |line: &&str| line.starts_with("$ ") || line.trim_start().starts_with("wharf ");
    match block.text.lines().find(command) {
        Some(line) => Err(format!("a command in a block that is not run: {line}")),
        None => Ok(()),
    }
}

fn transcript(block: &Block, place: &Place) -> Result<(), String> {
    for (command, expected) in block.steps() {
        let said = place
            .run_until(&command, |said| said.code == Some(0) && matches(&expected, &said.text));
        if said.code != Some(0) {
            return Err(format!("{command}: exit code {:?}\n{}", said.code, said.text));
        }
        if !matches(&expected, &said.text) {
            let shown = format!("--- shown\n{expected}--- said\n{}", said.text);
            return Err(format!("{command}\n{shown}"));
        }
    }
    Ok(())
}

/// A configuration is checked; with `file=`, it is there for the commands that follow. What belongs to
/// another program has to be YAML, and passes the program that `check=` names.
fn configuration(block: &Block, place: &Place) -> Result<(), String> {
    let ours = block.text.lines().any(|line| line.starts_with("services:"))
        || block.mark("refused").is_some();
    let name = block.mark("file").unwrap_or(".checked.yaml");
    fs::write(place.folder.join(name), &block.text).unwrap();
    if !ours {
        parsed(serde_saphyr::from_str::<serde_json::Value>(&block.text))?;
        let Some(program) = block.mark("check") else { return Ok(()) };
        let said = place.run(&format!("{program} {name}"));
        return if said.code == Some(0) { Ok(()) } else { Err(said.text) };
    }
    let said = place.run(&format!("wharf check --json -f {name}"));
    match (block.mark("refused").is_some(), said.code) {
        (false, Some(0)) => Ok(()),
        (true, Some(3)) => refused(&said.text),
        (false, _) => Err(format!("the check says {}", said.text)),
        (true, _) => Err("what is shown as refused passes the check: it works now".to_owned()),
    }
}

/// Each mistake must be that something does not work yet.
pub(crate) fn refused(answer: &str) -> Result<(), String> {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    let mistakes = answer["mistakes"].as_array().unwrap();
    let others = mistakes.iter().filter(|mistake| {
        !mistake["message"].as_str().unwrap_or_default().contains("is not supported yet")
    });
    let others: Vec<_> = others.map(ToString::to_string).collect();
    if others.is_empty() { Ok(()) } else { Err(others.join("\n")) }
}

fn parse_in_python(block: &Block, place: &Place, parser: &str) -> Result<(), String> {
    if let Some(name) = block.mark("file") {
        fs::write(place.folder.join(name), &block.text).unwrap();
    }
    let script = format!("import sys, configparser, tomllib; {parser}(sys.argv[1])");
    let mut python = place.command("python3");
    let output = python.args(["-c", &script, &block.text]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(complaint) }
}

#[test]
fn what_the_documents_show_is_true() {
    let documents = documents();
    let complaints: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> =
            documents.iter().map(|document| scope.spawn(move || follow(document))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let complaints: String = complaints.concat();
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn what_is_not_run_has_a_reason_and_is_counted() {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for document in documents() {
        for block in blocks(&read(&document)) {
            if let Some(reason) = block.mark("not-run") {
                assert!(reason.len() > 10, "{document}:{}: why?", block.line);
                println!("not run: {document}:{}: {reason}", block.line);
                *counted.entry(document.clone()).or_default() += 1;
            }
        }
    }
    let allowed: BTreeMap<String, usize> =
        NOT_RUN.iter().map(|(document, count)| ((*document).to_owned(), *count)).collect();
    assert_eq!(counted, allowed);
}

/// The pieces of code within the prose of a document.
fn inline_code(document: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut inside = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let pieces = prose.split('`').skip(1).step_by(2);
    pieces.map(|piece| piece.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_command_that_the_prose_names_exists() {
    let place = Place::new();
    let mut complaints = String::new();
    let mut tried = 0;
    for document in documents() {
        for code in inline_code(&read(&document)) {
            let Some(words) = code.strip_prefix("wharf ") else { continue };
            // Placeholders and redirections are no words of ours.
            let words = words.split(['|', '>', '<', '[', ';', '&', '…']).next().unwrap();
            let words = shell_words::split(words).unwrap();
            let placeholder =
                |word: &String| ["NAME", "WORD", "FILE", "DIR", "COMMAND"].contains(&word.as_str());
            let words: Vec<String> =
                words.into_iter().take_while(|word| !placeholder(word)).collect();
            let output = place.command("wharf").args(&words).arg("--help").output().unwrap();
            tried += 1;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let _ = writeln!(complaints, "{document}: `{code}`: {said}");
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
    assert!(tried > 30, "only {tried} were found");
}

#[test]
fn the_files_that_they_point_to_exist() {
    let mut complaints = String::new();
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.contains("://") {
                continue;
            }
            let path = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            if !path.exists() {
                let _ = writeln!(complaints, "{document} points to {target}");
            } else if !anchor.is_empty() && !anchors(&path).contains(&anchor.to_owned()) {
                let _ = writeln!(complaints, "{document} points to {target}: no such heading");
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

/// The headings of a document, as links name them.
fn anchors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|line| {
            let line = line.trim_start_matches('#').trim().to_lowercase();
            let kept = line.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}
