//! The form of the tables that say what becomes of each key of a format.
//!
//! A table serves twice: what an importer does not carry over is told in its words, and
//! `docs/import.md` shows it.

use std::fmt::Write as _;

use super::detect::Format;
use super::loss::Weight;

/// One key of a format. A key that ends with `*` stands for all that begin so.
#[derive(Debug)]
pub(super) struct Row {
    /// The key as the format writes it.
    pub(super) key: &'static str,
    /// What becomes of it.
    pub(super) fate: Fate,
}

/// What becomes of a key.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is carried over.
    Carried {
        /// The key of services.yaml, or what is done.
        to: &'static str,
        /// What is different; may be empty.
        remark: &'static str,
    },
    /// It is not.
    Told {
        /// Whether something is missing then.
        weight: Weight,
        /// Why.
        why: &'static str,
        /// What to do instead; may be empty.
        instead: &'static str,
    },
}

/// A key that is carried over.
pub(super) const fn carried(key: &'static str, to: &'static str, remark: &'static str) -> Row {
    Row { key, fate: Fate::Carried { to, remark } }
}

/// A key without an equal.
pub(super) const fn lost(key: &'static str, why: &'static str, instead: &'static str) -> Row {
    Row { key, fate: Fate::Told { weight: Weight::Loss, why, instead } }
}

/// A key that has no equal and needs none.
pub(super) const fn noted(key: &'static str, why: &'static str) -> Row {
    Row { key, fate: Fate::Told { weight: Weight::Note, why, instead: "" } }
}

/// What is said of a key that is not carried over.
pub(super) fn told(table: &[Row], key: &str) -> (Weight, &'static str, &'static str) {
    let fits = |row: &&Row| match row.key.strip_suffix('*') {
        Some(beginning) => key.starts_with(beginning),
        None => row.key == key,
    };
    match table.iter().find(|row| row.key == key).or_else(|| table.iter().find(fits)) {
        Some(Row { fate: Fate::Told { weight, why, instead }, .. }) => (*weight, why, instead),
        Some(Row { fate: Fate::Carried { .. }, .. }) => {
            (Weight::Loss, "cannot be carried over from here", "see the table in docs/import.md")
        }
        None => (Weight::Loss, "is not a key that this importer knows", "look up what it does"),
    }
}

/// The tables of `docs/import.md`, each under its heading.
pub fn documented() -> String {
    let mut text = String::new();
    for (format, table) in [
        (Format::Procfile, super::procfile::TABLE),
        (Format::Supervisord, super::supervisord::TABLE),
        (Format::Compose, super::compose::TABLE),
        (Format::ProcessCompose, super::process_compose::TABLE),
        (Format::Systemd, super::systemd::TABLE),
        (Format::Pm2, super::pm2::TABLE),
    ] {
        let _ =
            write!(text, "## {}\n\n| key | becomes | remark |\n|---|---|---|\n", format.title());
        for row in table {
            let (becomes, remark) = match row.fate {
                Fate::Carried { to, remark } => (to, remark.to_owned()),
                Fate::Told { weight, why, instead } => {
                    let becomes = if weight == Weight::Loss { "*lost*" } else { "*noted*" };
                    let gap = if instead.is_empty() { "" } else { "; " };
                    (becomes, format!("{why}{gap}{instead}"))
                }
            };
            let key = row.key.replace('|', "\\|");
            let _ = writeln!(text, "| `{key}` | {becomes} | {} |", remark.replace('|', "\\|"));
        }
        text.push('\n');
    }
    text
}
