//! The one letter with two meanings: `-f FILE` names a configuration, and after `logs`, `exits` and
//! `events` a bare `-f` means to follow, as everywhere else in the world.
//!
//! After these commands a `-f` before a word that ends in `.yaml` or `.yml` still names a file.

use std::ffi::OsString;

/// The commands that can follow.
const FOLLOWING: [&str; 3] = ["logs", "exits", "events"];
/// Global options that take a value as the next word.
const WITH_VALUE: [&str; 4] = ["-f", "--file", "--state-dir", "--color"];

/// Writes `-f` as `--follow` where that is meant. The first word is the program's name.
pub(super) fn understood(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = words.collect();
    let Some(command) = command(&words) else { return words };
    if !FOLLOWING.iter().any(|known| words[command] == *known) {
        return words;
    }
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let mut out = Vec::with_capacity(words.len() + 1);
    for (at, word) in words.iter().enumerate() {
        let text = word.to_str().unwrap_or_default();
        if at <= command || at >= end {
            out.push(word.clone());
        } else if text == "-f" {
            let file = words.get(at + 1).is_some_and(names_a_file);
            out.push(if file { "-f" } else { "--follow" }.into());
        } else if let Some(rest) = clustered(text) {
            out.extend(["--follow".into(), rest.into()]);
        } else {
            out.push(word.clone());
        }
    }
    out
}

/// Where the command stands.
fn command(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = words.get(at) {
        let text = word.to_str()?;
        if !text.starts_with('-') {
            return Some(at);
        }
        at += if WITH_VALUE.contains(&text) { 2 } else { 1 };
    }
    None
}

/// `-fn5` and `-fq` without the `f`.
fn clustered(text: &str) -> Option<String> {
    let rest = text.strip_prefix("-f")?;
    let letter = rest.starts_with(['n', 'q', 'v', 'f']);
    (letter && !names_a_file(&OsString::from(text))).then(|| format!("-{rest}"))
}

fn names_a_file(word: &OsString) -> bool {
    let extension = std::path::Path::new(word).extension();
    extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_two_meanings() {
        for (typed, meant) in [
            ("wharf logs -f", "wharf logs --follow"),
            ("wharf logs -f web", "wharf logs --follow web"),
            ("wharf logs web -f -n 5", "wharf logs web --follow -n 5"),
            ("wharf logs -fn5 web", "wharf logs --follow -n5 web"),
            ("wharf -f a.yaml -f b.yml logs -f", "wharf -f a.yaml -f b.yml logs --follow"),
            (
                "wharf -q --color never exits -f --json",
                "wharf -q --color never exits --follow --json",
            ),
            ("wharf events -f dir/services.yaml -f", "wharf events -f dir/services.yaml --follow"),
            ("wharf logs -fservices.yml", "wharf logs -fservices.yml"),
            ("wharf --state-dir logs ps -f x", "wharf --state-dir logs ps -f x"),
            ("wharf up -f x", "wharf up -f x"),
            ("wharf logs -- -f", "wharf logs -- -f"),
            ("wharf -f", "wharf -f"),
            ("wharf", "wharf"),
        ] {
            let words = understood(typed.split(' ').map(OsString::from));
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), meant);
        }
    }
}
