//! A mark that every process of a run carries and that nothing washes off by accident.
//!
//! It is the soft limit on file locks, which has had no effect on anything since Linux 2.4.25
//! (getrlimit(2)). Like every resource limit it is inherited by whatever a process starts and survives
//! exec, sessions, double forks, cleared environments and changes of user, and everybody may read it
//! (`/proc/PID/limits`). A process that means to can change it; one that hides without meaning us
//! does not.

use std::fs;

use super::limits::{Limit, Resource};
use super::spawn::ChildLimit;
use crate::name::{Incarnation, Realm};

/// How many bits are the run's; those above them are the realm's.
const RUN_BITS: u32 = 40;
const RUN: u64 = (1 << RUN_BITS) - 1;
/// The bits that tell the marks of hooks, and of questions, from those of runs, which never come that far.
const HOOK: u64 = 1 << 39;
const QUESTION: u64 = 0b11 << 38;
/// The largest mark; the kernel's word for "no limit" lies above it.
const ALL: u64 = i64::MAX.cast_unsigned();

/// The mark of a run of a realm.
pub fn of(realm: Realm, incarnation: Incarnation) -> u64 {
    let folded = realm.0 ^ (realm.0 >> 23) ^ (realm.0 >> 46);
    ((folded << RUN_BITS) | (incarnation.0 & RUN)) & ALL
}

/// The mark of a hook, by its number.
pub fn of_hook(realm: Realm, number: u64) -> u64 {
    of(realm, Incarnation(HOOK | number))
}

/// The mark of an executed question, by its number.
pub fn of_question(realm: Realm, number: u64) -> u64 {
    of(realm, Incarnation(QUESTION | number))
}

/// Whether a mark is that of a run of this realm.
pub fn is_of(realm: Realm, mark: u64) -> bool {
    mark >> RUN_BITS == of(realm, Incarnation(0)) >> RUN_BITS
}

/// The limit that marks a child, where the hard limit of this process leaves room for it.
pub fn limit(mark: u64, present: Limit) -> Option<ChildLimit> {
    let resource = Resource::Locks;
    (mark <= present.hard).then_some(ChildLimit { resource, soft: mark, hard: present.hard })
}

/// The mark that a process carries; `None` where it has none or is gone.
pub fn read(pid: i32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_realms_have_marks_of_their_own() {
        let one = of(Realm(7), Incarnation(1));
        assert_ne!(one, of(Realm(7), Incarnation(2)));
        assert_ne!(one, of(Realm(8), Incarnation(1)));
        for number in [1, 7, 1 << 37] {
            let all = [of(Realm(7), Incarnation(number)), of_hook(Realm(7), number)];
            assert!(all[0] != all[1] && !all.contains(&of_question(Realm(7), number)));
        }
        assert!(is_of(Realm(7), one) && !is_of(Realm(8), one));
        assert!(is_of(Realm(u64::MAX), of(Realm(u64::MAX), Incarnation(u64::MAX))));
        assert!(of(Realm(u64::MAX), Incarnation(u64::MAX)) <= ALL);
        let free = Limit { soft: u64::MAX, hard: u64::MAX };
        assert_eq!(limit(one, free).unwrap().soft, one);
        assert_eq!(limit(one, Limit { soft: 1, hard: 1 }), None);
    }

    #[test]
    fn a_mark_is_found_among_the_limits() {
        let line = |soft: &str| {
            format!(
                "Max stack size 1 2 bytes\nMax file locks            {soft}             unlimited            locks     \n"
            )
        };
        assert_eq!(parse(&line("12345")), Some(12345));
        assert_eq!(parse(&line("unlimited")), None);
        assert_eq!(parse(""), None);
    }
}
