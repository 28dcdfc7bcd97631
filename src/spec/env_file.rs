//! Files of variables for services: each is read once, however many services name it.
//!
//! Values are taken as they stand: a `$` in them is itself.

use std::collections::HashMap;
use std::rc::Rc;

use super::dotenv;
use super::mistake::{Found, Source};
use super::read::Given;
use super::tree::Place;

/// What such a file says, in its order.
pub(super) type Variables = Rc<Vec<(String, String)>>;

/// The files that were read so far.
pub(super) struct EnvFiles<'a> {
    /// Opens a file by its path as written; `None` when there is none.
    open: &'a dyn Fn(&str) -> Option<Given>,
    known: HashMap<String, Answer>,
}

/// What came of a file.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Its variables; what is wrong in it has been said.
    Read(Variables),
    /// It is not there.
    Missing,
    /// It cannot be read at all, and why.
    Unreadable(String),
}

impl<'a> EnvFiles<'a> {
    pub(super) fn new(open: &'a dyn Fn(&str) -> Option<Given>) -> Self {
        Self { open, known: HashMap::new() }
    }

    /// The variables of a file. Mistakes inside it are added to `found`, its text to `sources`.
    pub(super) fn read(
        &mut self,
        path: &str,
        sources: &mut Vec<Source>,
        found: &mut Vec<Found>,
    ) -> Answer {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let answer = match (self.open)(path) {
            None => Answer::Missing,
            Some(Given { refused: Some((reason, _)), .. }) => Answer::Unreadable(reason),
            Some(Given { source, .. }) => {
                let file = u32::try_from(sources.len()).unwrap_or(u32::MAX);
                let variables = variables(&source, file, found);
                sources.push(source);
                Answer::Read(Rc::new(variables))
            }
        };
        self.known.insert(path.to_owned(), answer.clone());
        answer
    }
}

fn variables(source: &Source, file: u32, found: &mut Vec<Found>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let before = source.text.len() - text.len();
    for line in dotenv::read(text) {
        let wrong = match line.variable {
            Ok((_, value)) if value.contains('\0') => {
                "a NUL byte cannot be passed to a program".to_owned()
            }
            Ok(variable) => {
                variables.push(variable);
                continue;
            }
            Err(message) => message,
        };
        let start = u32::try_from(before + line.start).unwrap_or(u32::MAX);
        found.push(Found {
            place: Some(Place { file, start, end: start.saturating_add(1) }),
            path: String::new(),
            message: wrong,
            help: None,
        });
    }
    variables
}
