//! `prompt`: a message ends where the program prints its prompt and waits: `sqlite> `, `(gdb) `.
//!
//! The prompt is a regular expression over the bytes of a line that has no end yet, with `^` for its
//! beginning and `$` for what has come of it. **The first bytes that match are the prompt**, whatever
//! follows, since nothing but time could tell a prompt from the beginning of a longer line; time
//! depends on the machine, and then the same output would give other messages. So a prompt is best
//! anchored (`^sqlite> $`). A text without special characters stands for itself.
//!
//! The message is what stands before the prompt, without the end of its last line (LF, or CR LF).
//! What the stream leaves without a prompt is a message too. `max_frame` bounds a message and its
//! prompt together. Each byte is looked at once: the expression is compiled to a table that is
//! stepped through, byte by byte, and a line that cannot become a prompt any more is skipped.
//!
//! Outgoing a message is a line, as in `lines`.

use std::fmt;

use bytes::Bytes;
use memchr::memchr;
use regex::bytes::Regex;
use regex_automata::Anchored;
use regex_automata::dfa::dense::{self, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use serde::{Deserialize, Serialize};

use super::error::{BadRule, Fault};
use super::gather::{Gather, Stand, Step, memory};

/// The largest table an expression may need, in bytes. `^\w+> $` needs 200 KiB.
const LARGEST_TABLE: usize = 4 << 20;

/// The rule, compiled.
pub(super) struct Rule {
    /// Finds where a prompt begins whose end is known.
    regex: Regex,
    /// Finds its end.
    table: DFA<Vec<u32>>,
    start: StateID,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.regex.as_str()).finish()
    }
}

impl Rule {
    pub(super) fn new(pattern: &str) -> Result<Self, BadRule> {
        let bad = |why: String| BadRule::Prompt { pattern: pattern.to_owned(), why };
        let regex = Regex::new(pattern).map_err(|error| bad(error.to_string()))?;
        if regex.is_match(b"") {
            return Err(bad(
                "it matches nothing at all, so that every line would begin with it".into()
            ));
        }
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(LARGEST_TABLE))
            .determinize_size_limit(Some(LARGEST_TABLE));
        let table = dense::Builder::new()
            .configure(config)
            .syntax(syntax::Config::new().utf8(false))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(LARGEST_TABLE)))
            .build(pattern)
            .map_err(|error| bad(why(&error)))?;
        let from = start::Config::new().anchored(Anchored::No);
        let start = table.start_state(&from).map_err(|error| bad(error.to_string()))?;
        Ok(Self { regex, table, start })
    }

    /// Whether all that came of a line, up to this state, ends with a prompt.
    fn is_prompt(&self, state: StateID) -> bool {
        self.table.is_match_state(self.table.next_eoi_state(state))
    }

    /// Where in a line that ends with a prompt the prompt begins.
    fn begin(&self, line: &[u8]) -> usize {
        let found = self.regex.find(line).filter(|found| found.end() == line.len());
        found.map_or(line.len(), |found| found.start())
    }
}

/// An error with what caused it.
fn why(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", why(source)),
        None => error.to_string(),
    }
}

/// Where before a prompt the stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Prompt {
    text: Gather,
    /// Where in `text` the present line begins.
    line: usize,
    /// Where in the table that line stands; found again from the line after an upgrade.
    #[serde(skip)]
    state: Option<StateID>,
}

impl Prompt {
    pub(super) fn step(&mut self, rule: &Rule, bytes: &[u8], max: u64) -> Result<Step, Fault> {
        let before = self.text.len();
        let mut state = self.state.unwrap_or_else(|| self.stand(rule));
        let mut used = 0;
        while let Some(byte) = bytes.get(used) {
            let mut ends = false;
            if rule.table.is_dead_state(state) && *byte != b'\n' {
                used = memchr(b'\n', &bytes[used..]).map_or(bytes.len(), |length| used + length);
            } else {
                used += 1;
                if *byte == b'\n' {
                    self.line = before + used;
                    state = rule.start;
                } else {
                    state = rule.table.next_state(state, *byte);
                    ends = rule.is_prompt(state);
                }
            }
            if before + used > memory(max) {
                return Err(Fault::Oversize { announced: None, max });
            }
            if ends {
                self.text.add(&bytes[..used], memory(max));
                let line = &self.text.as_slice()[self.line..];
                self.text.truncate(self.line + rule.begin(line));
                let message = self.take();
                return Ok(Step::whole(used, message));
            }
        }
        self.text.add(bytes, memory(max));
        self.state = Some(state);
        Ok(Step::more(used))
    }

    /// Where in the table the present line stands.
    fn stand(&self, rule: &Rule) -> StateID {
        let line = &self.text.as_slice()[self.line..];
        line.iter().fold(rule.start, |state, byte| rule.table.next_state(state, *byte))
    }

    /// What is left of the stream without a prompt.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        (!self.text.is_empty()).then(|| self.take())
    }

    /// Hands over the text, without the end of its last line.
    fn take(&mut self) -> Bytes {
        if self.text.as_slice().last() == Some(&b'\n') {
            self.text.strip(b'\n');
            self.text.strip(b'\r');
        }
        let message = self.text.take();
        *self = Self::default();
        message
    }
}

impl Stand for Prompt {
    fn held(&self) -> usize {
        self.text.len()
    }

    fn seen(&self) -> Vec<u8> {
        self.text.seen()
    }

    fn capacity(&self) -> usize {
        self.text.capacity()
    }
}
