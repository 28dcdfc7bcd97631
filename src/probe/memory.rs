//! How much memory a program and all it started hold together.
//!
//! Each process counts with its proportional share, so that what a server shares with its workers
//! counts once; where the kernel does not tell that, with what is resident. Page cache never counts,
//! as it does in a control group's own figure.

use std::collections::HashMap;

use crate::os::cgroup::Group;
use crate::os::procfs::{self, Stat};
use crate::os::usage;

/// All processes there are, looked at once and only if somebody needs it.
#[derive(Debug, Default)]
pub(super) struct Processes(Option<Vec<Stat>>);

impl Processes {
    fn all(&mut self) -> &[Stat] {
        self.0.get_or_insert_with(|| procfs::all().unwrap_or_default())
    }

    /// A process, its session and group, and all their descendants.
    fn tree(&mut self, pid: i32) -> Vec<i32> {
        let all = self.all();
        let parents: HashMap<i32, i32> = all.iter().map(|one| (one.pid, one.parent)).collect();
        let belongs = |one: &&Stat| {
            let mut at = one.pid;
            // No chain is longer than there are processes.
            for _ in 0..all.len() {
                match parents.get(&at) {
                    _ if at == pid => return true,
                    Some(parent) if *parent > 0 => at = *parent,
                    _ => break,
                }
            }
            one.session == pid || one.group == pid
        };
        all.iter().filter(belongs).map(|one| one.pid).collect()
    }
}

/// What `pid` and all it started hold, in bytes; `None` when nothing of it is left.
pub(super) fn held(pid: i32, group: Option<&Group>, processes: &mut Processes) -> Option<u64> {
    let members = group.map(Group::all_members).filter(|members| members.contains(&pid));
    let members = members.unwrap_or_else(|| processes.tree(pid));
    let share = |pid: i32| {
        usage::proportional(pid).or_else(|| usage::memory(pid).map(|memory| memory.resident))
    };
    let shares: Vec<u64> = members.into_iter().filter_map(share).collect();
    (!shares.is_empty()).then(|| shares.iter().sum())
}
