//! Many ends as few stories: ends of a replica in a row that are all alike are told once.
//!
//! It compares and counts; it reads and prints nothing.

use std::collections::HashMap;

use serde::Serialize;

use crate::exit::ExitRecord;
use crate::time::Wall;

/// An end, and those before it that were like it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fold {
    /// The latest of them.
    pub(super) record: ExitRecord,
    /// The others; `None` where it is alone.
    pub(super) more: Option<More>,
}

/// The ends before one that were like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct More {
    /// How many.
    pub(super) count: u64,
    /// The first of them.
    pub(super) from: Wall,
    /// The last of them.
    pub(super) to: Wall,
    /// There may be earlier ones that were not looked at.
    pub(super) at_least: bool,
}

/// Folds ends that come oldest first. `whole` says that nothing came before them.
pub(super) fn folded(ends: Vec<ExitRecord>, whole: bool) -> Vec<Fold> {
    let mut folds: Vec<Fold> = Vec::new();
    let mut latest: HashMap<(String, u32), usize> = HashMap::new();
    for record in ends {
        let replica = (record.service.name.to_string(), record.service.replica);
        match latest.get(&replica).and_then(|at| folds.get_mut(*at)) {
            Some(fold) if alike(&fold.record, &record) => fold.take(record),
            _ => {
                latest.insert(replica, folds.len());
                folds.push(Fold { record, more: None });
            }
        }
    }
    if !whole {
        // What a replica's first fold begins with may have begun before.
        let mut seen = Vec::new();
        for fold in &mut folds {
            let service = &fold.record.service;
            let replica = (service.name.clone(), service.replica);
            if !seen.contains(&replica) {
                seen.push(replica);
                if let Some(more) = &mut fold.more {
                    more.at_least = true;
                }
            }
        }
    }
    folds.sort_by_key(|fold| fold.record.seq);
    folds
}

impl Fold {
    fn take(&mut self, record: ExitRecord) {
        let at = self.record.ts;
        let more = self.more.get_or_insert(More { count: 0, from: at, to: at, at_least: false });
        more.count += 1;
        more.to = at;
        self.record = record;
    }
}

/// Whether two ends tell the same: how, why, by whom, what was decided, and what was said last,
/// numbers aside.
fn alike(one: &ExitRecord, other: &ExitRecord) -> bool {
    let code = |record: &ExitRecord| record.process.exit.as_ref().map(|exit| exit.code);
    let by =
        |record: &ExitRecord| record.exit.requested_by.as_ref().map(|by| (by.uid, by.who.clone()));
    let error = |record: &ExitRecord| record.port.as_ref().and_then(|port| port.error.clone());
    let (left, right) = (&one.exit, &other.exit);
    left.how == right.how
        && left.reason == right.reason
        && left.cause == right.cause
        && left.signal == right.signal
        && left.core_dumped == right.core_dumped
        && (left.stage, left.errno) == (right.stage, right.errno)
        && code(one) == code(other)
        && by(one) == by(other)
        && error(one) == error(other)
        && one.restart.decision == other.restart.decision
        && last_line(one) == last_line(other)
}

/// The last line on standard error, with every number in it the same: times, pids and counters tell
/// nothing apart.
fn last_line(record: &ExitRecord) -> String {
    let text = String::from_utf8_lossy(&record.stderr_tail.0);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut same = String::with_capacity(line.len());
    for c in line.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if c != '0' || !same.ends_with('0') {
            same.push(c);
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::record;
    use super::*;
    use crate::exit::{Decision, Reason, Tail};

    fn shown(folds: &[Fold]) -> String {
        let one = |fold: &Fold| match fold.more {
            Some(more) => format!(
                "{}+{}{}",
                fold.record.seq,
                more.count,
                if more.at_least { " at least" } else { "" }
            ),
            None => fold.record.seq.to_string(),
        };
        folds.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn ends_in_a_row_that_are_alike_are_one_story() {
        let of = |seq, replica| record(seq, |record| record.service.replica = replica);
        // Two replicas take turns; each has its own row.
        let ends = vec![of(1, 1), of(2, 2), of(3, 1), of(4, 2), of(5, 1)];
        let folds = folded(ends.clone(), true);
        assert_eq!(shown(&folds), "4+1, 5+2");
        let more = folds[1].more.unwrap();
        assert_eq!((more.from, more.to), (ends[0].ts, ends[2].ts));
        assert_eq!(shown(&folded(ends, false)), "4+1 at least, 5+2 at least");
        assert_eq!(shown(&folded(Vec::new(), true)), "");
    }

    #[test]
    fn whatever_is_told_apart_is_another_story() {
        let said = |seq, text: &str| {
            record(seq, |record| record.stderr_tail = Tail(text.as_bytes().to_vec()))
        };
        let ends = vec![
            said(1, "pid 41: no route at 07:31\n"),
            said(2, "noise\npid 4242: no route at 23:59\n\n"),
            said(3, "pid 43: no disk at 07:31\n"),
            record(4, |record| record.restart.decision = Decision::GaveUp),
            record(5, |record| record.exit.reason = Reason::Completed),
            record(6, |record| record.process.exit = None),
            record(7, |record| record.process.exit = None),
        ];
        assert_eq!(shown(&folded(ends, true)), "2+1, 3, 4, 5, 7+1");
    }
}
