//! The manual pages, read by the programs that will show them.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::place::Place;

fn pages(place: &Place) -> Vec<PathBuf> {
    assert_eq!(place.run("wharf man pages").code, Some(0));
    let mut found = Vec::new();
    for section in ["man1", "man5"] {
        let folder = place.folder.join("pages").join(section);
        found.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert!(found.len() > 20, "{found:?}");
    found.sort();
    found
}

#[test]
fn neither_man_nor_mandoc_complains() {
    let place = Place::new();
    let pages = pages(&place);
    let mut complaints = String::new();
    // Style hints are of another taste: a page made by a program has long lines.
    let mut mandoc = place.command("mandoc");
    let output = mandoc.args(["-Tlint", "-Wwarning"]).args(&pages).output().unwrap();
    complaints.push_str(&String::from_utf8_lossy(&output.stdout));
    complaints.push_str(&String::from_utf8_lossy(&output.stderr));
    for page in &pages {
        let mut man = place.command("man");
        man.args(["--warnings", "--encoding=utf8", "--local-file"]).arg(page);
        let output = man.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", page.display());
        complaints.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn pages_are_found_by_their_names_and_read_as_meant() {
    let place = Place::new();
    pages(&place);
    let said = |words: &str| {
        let said =
            place.run(&format!("MANPATH=$PWD/pages MANWIDTH=100 man -P cat {words} | col -b"));
        assert_eq!(said.code, Some(0), "{words}: {}", said.text);
        said.text
    };
    let whole = said("wharf");
    for words in ["EXIT STATUS", "wharf-why(1)", "WHARF_STATE_DIR", ".wharf/exits.jsonl"] {
        assert!(whole.contains(words), "{words}\n{whole}");
    }
    let why = said("wharf-why");
    assert!(why.contains("wharf why web/2 --since yesterday -n 10"), "{why}");
    for name in ["5 wharf.yaml", "5 services.yaml"] {
        let file = said(name);
        for words in ["restart.delay: duration (default 200ms)", "unless-stopped", "A SERVICE"] {
            assert!(file.contains(words), "{words}\n{file}");
        }
    }
    let one = place.run("wharf man");
    assert!(one.text.contains(".TH wharf 1 "), "{}", one.text);
}

#[test]
fn a_folder_that_cannot_be_written_is_said_so() {
    let place = Place::new();
    let said = place.run("touch taken; wharf man taken");
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("cannot write the manual pages"), "{}", said.text);
}
