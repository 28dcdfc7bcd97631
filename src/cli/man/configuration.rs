//! services.yaml as a manual page, from the keys of its schema.
//!
//! What a key means stands in the schema alone; here are the words around it.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::page::{DATE, MANUAL, listed};
use crate::spec::{self, Key};

/// The text of wharf.yaml(5).
pub(super) fn text() -> String {
    let mut page = Roff::new();
    let version = concat!("wharf ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["wharf.yaml", "5", DATE, version, MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("wharf.yaml, services.yaml - the services that wharf keeps running")]);
    page.control("SH", ["DESCRIPTION"]);
    for (at, paragraph) in DESCRIPTION.iter().enumerate() {
        if at > 0 {
            page.control("PP", []);
        }
        page.text([roman(*paragraph)]);
    }
    listed("VALUES", VALUES, &mut page);
    let keys = spec::keys();
    let of = |top: &'static str| keys.iter().filter(move |key| is_under(&key.path, top));
    page.control("SH", ["THE FILE"]);
    for key in keys.iter().filter(|key| !key.path.contains('.')) {
        entry(key, &mut page);
    }
    for (heading, top) in SECTIONS {
        page.control("SH", [*heading]);
        for key in of(top) {
            entry(key, &mut page);
        }
    }
    page.control("SH", ["EXAMPLES"]).control("EX", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("EE", []);
    page.control("SH", ["SEE ALSO"]).text([bold("wharf"), roman("(1),")]);
    page.text([bold("wharf-check"), roman("(1),")]);
    page.text([bold("wharf-schema"), roman("(1)")]);
    page.render()
}

fn is_under(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.starts_with(['.', '[']) && rest != ".")
}

/// A key as it stands in its section: without the names above it.
pub(super) fn shown(path: &str) -> &str {
    let tops = SECTIONS.iter().filter_map(|(_, top)| path.strip_prefix(top)?.strip_prefix('.'));
    tops.min_by_key(|rest| rest.len()).unwrap_or(path)
}

fn entry(key: &Key, page: &mut Roff) {
    let mut head = vec![bold(shown(&key.path)), roman(": "), italic(key.kind.as_str())];
    if let Some(default) = &key.default {
        head.push(roman(format!(" (default {default})")));
    }
    page.control("TP", []).text(head);
    let missing = if key.supported { "" } else { " Not supported yet." };
    page.text(with_code(&format!("{}{missing}", key.meaning)));
    if key.words.is_empty() {
        return;
    }
    page.control("RS", []);
    for word in &key.words {
        let missing = if word.supported { "" } else { " Not supported yet." };
        let told = with_code(&format!("{}{missing}", word.meaning));
        if word.meaning.is_empty() {
            page.text([bold(word.word.as_str())]).control("br", []);
        } else {
            page.control("TP", []).text([bold(word.word.as_str())]).text(told);
        }
    }
    page.control("RE", []);
}

/// What stands between backticks is bold.
fn with_code(text: &str) -> Vec<Inline> {
    let pieces = text.split('`').enumerate();
    pieces.map(|(at, piece)| if at % 2 == 1 { bold(piece) } else { roman(piece) }).collect()
}

const SECTIONS: &[(&str, &str)] = &[
    ("SECRETS", "secrets.NAME"),
    ("HOOKS OF ALL SERVICES", "on_event"),
    ("A SERVICE", "services.NAME"),
    ("A GROUP", "groups.NAME"),
    ("A TASK", "tasks.NAME"),
    ("CLUSTER", "cluster"),
    ("METRICS", "metrics"),
];

const DESCRIPTION: &[&str] = &[
    "services.yaml says which programs wharf keeps running, and how. wharf reads services.yaml, or else \
     services.yml, in the present folder, or the files given with -f. Several files are laid over one \
     another: maps are joined, everything else is replaced by the later file.",
    "A key that is not known, a key that stands twice and a value of the wrong kind are mistakes; all \
     are told at once by wharf check. A key that is known and does not work yet is refused with the \
     words \"not supported yet\" and never ignored. Keys that begin with x- are yours and ignored.",
    "In every value ${NAME} is replaced by the variable of that name of the environment in which the \
     file is read, and ${NAME:-text} by the text where it is unset or empty; - alone, :? ? :+ and + work as \
     in docker-compose. $$ is one dollar; any other dollar is itself.",
];

const VALUES: &[(&str, &str)] = &[
    ("duration", "A number with its unit: us, ms, s, m, h, d. Parts add up: 1h30m."),
    ("size", "Bytes, or a number with its unit: KiB, MiB, GiB, or KB, MB, GB for powers of ten."),
    ("signal", "A name with or without SIG, such as SIGTERM or SIGRTMIN+3, or a number."),
    ("user", "A name or a number, optionally with a group: app, 1000, app:www."),
    ("name", "Letters, digits, _ - and ., beginning with a letter or a digit."),
    ("regular expression", "As in the Rust crate regex: without look-around and back-references."),
];

const EXAMPLE: &str = "\
version: 1
defaults: { restart: on-failure }
services:
  web:
    command: ./server --port 8080
    environment: { RUST_LOG: info }
    replicas: 2
    stop_grace_period: 20s
  calculator:
    command: [bc, -q]
    port: { use: bc }";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        std::fs::write(&file, EXAMPLE).unwrap();
        spec::load(&[file], &|_| None).unwrap();
    }

    #[test]
    fn keys_are_shown_as_they_stand_in_their_section() {
        for (path, short) in [
            ("version", "version"),
            ("services.NAME.restart.delay", "restart.delay"),
            ("services.NAME.depends_on.NAME.condition", "depends_on.NAME.condition"),
            ("tasks.NAME.retry.max", "retry.max"),
            ("metrics.listen", "listen"),
        ] {
            assert_eq!(shown(path), short);
        }
    }
}
