//! Damaged configurations: each is either refused or makes a services.yaml that is good. None makes
//! an importer stop.

use std::fs;
use std::path::{Path, PathBuf};

use wharf::import::detect;
use wharf::spec;

use crate::cases::import_here;
use crate::support::Place;

/// Numbers in an order that is always the same (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(most.max(1)).unwrap()).unwrap()
    }
}

/// What is put in somewhere.
const PIECES: &[&str] = &[
    "",
    "=",
    ":",
    "\"",
    "'",
    "\\",
    "%",
    "%(",
    "$",
    "${",
    "}",
    "[",
    "]",
    "{",
    ",",
    " #",
    "\n",
    "\n\n",
    "\t",
    "é",
    "🚢",
    "- ",
    "x-",
    "0",
    "-1",
    "99999999999999999999",
    "\u{1}",
    "\u{0}",
    "%i",
    "&a",
    "*a",
    "<<: ",
    "!",
    "|",
    ">",
];

fn damaged(text: &str, numbers: &mut Numbers) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(chars.len());
        let end = (at + numbers.below(12)).min(chars.len());
        let piece = PIECES[numbers.below(PIECES.len())].chars();
        match numbers.below(3) {
            0 => drop(chars.splice(at..end, piece)),
            1 => drop(chars.splice(at..at, piece)),
            _ => {
                let copy: Vec<_> = chars[at..end].to_vec();
                let to = numbers.below(chars.len());
                chars.splice(to..to, copy);
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn damage_is_refused_or_harmless() {
    let soak = std::env::var_os("WHARF_SOAK").is_some();
    let rounds = if soak { 200 } else { 20 };
    let schema = spec::schema();
    let (mut good, mut refused) = (0, 0);
    let mut bad = Vec::new();
    for (at, case) in all_cases().into_iter().enumerate() {
        let place = Place::new();
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&case).unwrap();
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ u64::try_from(at).unwrap());
        for _ in 0..rounds {
            let text = damaged(&text, &mut numbers);
            place.write(&name, &text);
            match import_here(&place.folder, &[&name], &schema) {
                Err(_) => refused += 1,
                Ok(imported) => {
                    good += 1;
                    place.write("services.yaml", &imported.yaml);
                    let file = place.folder.join("services.yaml");
                    if let Err(mistakes) = spec::load(&[file], &|_| None) {
                        let what = format!(
                            "{}\n{mistakes}\n{text}\n---\n{}",
                            case.display(),
                            imported.yaml
                        );
                        bad.push(what);
                    }
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} bad, the first is {}", bad.len(), bad[0]);
    assert!(good > 100 && refused > 100, "{good} good, {refused} refused");
}

/// The first file of each case that is a configuration by itself.
fn all_cases() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for format in ["procfile", "supervisord", "compose", "process-compose", "systemd", "pm2"] {
        for case in fs::read_dir(Path::new("tests/import").join(format)).unwrap() {
            let mut files: Vec<_> = fs::read_dir(case.unwrap().path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            let main = files.into_iter().find(|file| {
                let ours = ["services.yaml", "started.txt", "losses.txt"];
                let name = file.file_name().unwrap().to_str().unwrap();
                let text = fs::read_to_string(file).unwrap_or_default();
                !ours.contains(&name) && !name.contains('@') && detect(file, &text).is_some()
            });
            found.extend(main);
        }
    }
    found.sort();
    assert!(found.len() >= 45, "{}", found.len());
    found
}
