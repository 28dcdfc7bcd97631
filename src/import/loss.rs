//! What could not be carried over, and what should be known: one line each.

use std::fmt;

use serde::Serialize;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Something that the configuration asked for will not happen.
    Loss,
    /// Nothing is missing, but it is done in another way.
    Note,
}

/// Something that is not in the result, or not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// How much it matters.
    pub weight: Weight,
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1; absent where the file as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The service it concerns; absent where it concerns all or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The key as the file writes it.
    pub key: String,
    /// Why it is not carried over.
    pub why: String,
    /// What can be done instead; may be empty.
    pub instead: String,
}

impl Loss {
    /// Where it is written: `Procfile:3`.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        }
    }

    /// Why, and what to do instead.
    pub fn reason(&self) -> String {
        if self.instead.is_empty() {
            self.why.clone()
        } else {
            format!("{}; {}", self.why, self.instead)
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.weight {
            Weight::Loss => "lost",
            Weight::Note => "note",
        };
        let service = self.service.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let known = [Some(&self.file), self.service.as_ref()].contains(&Some(&self.key));
        let key = if known { String::new() } else { format!("{}: ", self.key) };
        write!(f, "{word}: {}: {service}{key}{}", self.place(), self.reason())
    }
}
