//! `none`: nothing is a reply, so that every message is an event.

use super::Verdict;

/// The same even for a call that was begun against the rule, which nothing ever answers.
pub(super) fn judge() -> Verdict {
    Verdict::Foreign
}
