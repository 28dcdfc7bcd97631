//! `docs/import.md` says what the code does: its tables are the code's own, and what they call
//! carried over is really in the configurations that are imported here.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the tables begin.
const BEGIN: &str =
    "<!-- The tables below are written by `WHARF_BLESS=1 cargo test --test import`. -->\n\n";

#[test]
fn the_tables_are_those_of_the_code() {
    let path = Path::new("docs/import.md");
    let page = fs::read_to_string(path).unwrap();
    let (before, tables) = page.split_once(BEGIN).unwrap();
    let documented = wharf::import::documented();
    if std::env::var_os("WHARF_BLESS").is_some() {
        fs::write(path, format!("{before}{BEGIN}{documented}")).unwrap();
    } else {
        assert_eq!(tables, documented, "WHARF_BLESS=1 writes the tables anew");
    }
}

/// All text of a format's cases, and all that was lost in them.
fn cases(format: &str) -> (String, String) {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new("tests/import").join(format), &mut files);
    let (mut given, mut lost) = (String::new(), String::new());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        match name {
            "losses.txt" => lost.push_str(&text),
            "services.yaml" | "started.txt" | "ends" => {}
            _ => given.push_str(&text),
        }
    }
    (given, lost)
}

#[test]
fn every_key_that_is_carried_over_is_tried() {
    let mut missing = Vec::new();
    let documented = wharf::import::documented();
    for section in documented.split("## ").skip(1) {
        let title = section.lines().next().unwrap();
        let folder = if title == "docker compose" { "compose" } else { title };
        let (given, lost) = cases(&folder.to_lowercase());
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
            let key = cells.next().unwrap().trim_matches('`');
            let carried = !cells.next().unwrap().starts_with('*');
            let word = !key.is_empty()
                && key.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
            if carried && word && !given.contains(key) {
                missing.push(format!("{title}: {key} is in no case"));
            }
            if carried && lost.contains(&format!(" {key}: cannot be carried over from here")) {
                missing.push(format!("{title}: {key} is not carried over"));
            }
        }
        assert!(!lost.contains("cannot be carried over from here"), "{lost}");
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}
