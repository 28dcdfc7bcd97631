//! The processes of a replica: those of its control group where it has one, otherwise those that
//! descend from its process; what each uses, and how they are drawn.
//!
//! Everything is read from /proc by the command itself, so that it never holds up the manager.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::text::{Show, cut, rounded_size, span};
use crate::manager::ReplicaStatus;
use crate::name::Realm;
use crate::os::cgroup::Group;
use crate::os::procfs;
use crate::os::usage::{self, Account, GroupUsage};

/// The processes of one replica and what they use together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Processes {
    /// The folder of its control group; absent where it has none and descendants were looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cgroup: Option<String>,
    /// Processes and threads.
    pub(super) tasks: u64,
    /// Memory, in bytes: what the control group accounts, otherwise the sum of resident sizes.
    pub(super) memory_bytes: u64,
    /// Whether `memory_bytes` is the control group's account.
    pub(super) memory_accounted: bool,
    /// The most memory that was ever in use, where the control group tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_peak_bytes: Option<u64>,
    /// Seconds of processor time, that of ended processes included as far as it is known.
    pub(super) cpu_s: f64,
    /// Each of them, parents before children.
    pub(super) list: Vec<One>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct One {
    pub(super) pid: i32,
    pub(super) parent: i32,
    /// `R`, `S`, `D`, `Z` …
    pub(super) state: char,
    /// Its arguments; its name alone where they cannot be read.
    pub(super) command: Vec<String>,
    pub(super) threads: u64,
    pub(super) memory_bytes: u64,
    pub(super) cpu_s: f64,
}

/// Looks processes up; what costs a look at all of them is done once.
#[derive(Debug)]
pub(super) struct Finder {
    realm: Realm,
    children: Option<HashMap<i32, Vec<i32>>>,
}

impl Finder {
    /// For the replicas of the manager of this realm.
    pub(super) fn new(realm: Realm) -> Self {
        Self { realm, children: None }
    }

    /// The processes of a replica; `None` where it has none.
    pub(super) fn find(&mut self, replica: &ReplicaStatus) -> Option<Processes> {
        let pid = replica.pid?;
        let group = self.group(pid, replica);
        let (pids, usage) = match &group {
            Some(group) => (group.all_members(), usage::group(group.path())),
            None => (self.descendants(pid), GroupUsage::default()),
        };
        let found: Vec<Account> = pids.into_iter().filter_map(usage::account).collect();
        if found.is_empty() {
            return None;
        }
        let list = found.iter().map(One::new).collect();
        let cgroup = group.map(|group| group.path().display().to_string());
        Some(together(cgroup, usage, &found, ordered(list, pid)))
    }

    /// The control group that was made for this replica, not one it shares with others.
    fn group(&self, pid: i32, replica: &ReplicaStatus) -> Option<Group> {
        let name = format!("{}.{}", replica.service, replica.replica);
        let root = format!("wharf-{}", self.realm);
        Group::of(pid)?.ancestor(|folder| {
            let above = folder.parent().and_then(|above| above.file_name());
            folder.file_name().is_some_and(|own| own == &*name)
                && above.is_some_and(|above| above == &*root)
        })
    }

    fn descendants(&mut self, pid: i32) -> Vec<i32> {
        let children = self.children.get_or_insert_with(|| {
            let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
            for stat in procfs::all().unwrap_or_default() {
                children.entry(stat.parent).or_default().push(stat.pid);
            }
            children
        });
        let mut found = vec![pid];
        let mut at = 0;
        while let Some(parent) = found.get(at) {
            found.extend(children.get(parent).into_iter().flatten());
            at += 1;
        }
        found
    }
}

impl One {
    fn new(account: &Account) -> Self {
        let mut command: Vec<String> = procfs::arguments(account.pid)
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        // The last argument is ended too.
        command.pop_if(|last| last.is_empty());
        if command.is_empty() {
            command.push(format!("[{}]", account.name));
        }
        Self {
            pid: account.pid,
            parent: account.parent,
            state: account.state,
            command,
            threads: account.threads,
            memory_bytes: account.resident_bytes,
            cpu_s: account.cpu.total().as_secs_f64(),
        }
    }
}

fn together(
    cgroup: Option<String>,
    usage: GroupUsage,
    found: &[Account],
    list: Vec<One>,
) -> Processes {
    let resident = found.iter().map(|one| one.resident_bytes).sum();
    let cpu: Duration = found.iter().map(|one| one.cpu.total() + one.children_cpu.total()).sum();
    Processes {
        cgroup,
        tasks: usage.tasks.unwrap_or_else(|| found.iter().map(|one| one.threads).sum()),
        memory_bytes: usage.memory_bytes.unwrap_or(resident),
        memory_accounted: usage.memory_bytes.is_some(),
        memory_peak_bytes: usage.memory_peak_bytes,
        cpu_s: usage.cpu.unwrap_or(cpu).as_secs_f64(),
        list,
    }
}

/// Puts parents before their children, `main` before all others.
fn ordered(list: Vec<One>, main: i32) -> Vec<One> {
    let known: BTreeSet<i32> = list.iter().map(|one| one.pid).collect();
    let mut below: BTreeMap<i32, Vec<One>> = BTreeMap::new();
    for one in list {
        // 0 stands for whoever is not among them.
        let above = if known.contains(&one.parent) && one.pid != main { one.parent } else { 0 };
        below.entry(above).or_default().push(one);
    }
    for siblings in below.values_mut() {
        siblings.sort_by_key(|one| (one.pid != main, one.pid));
    }
    let mut sorted = Vec::new();
    let mut next: Vec<One> = below.remove(&0).unwrap_or_default();
    next.reverse();
    while let Some(one) = next.pop() {
        if let Some(children) = below.remove(&one.pid) {
            next.extend(children.into_iter().rev());
        }
        sorted.push(one);
    }
    sorted
}

/// The tree, a line a process, each at most `width` characters long.
pub(super) fn drawn(list: &[One], width: Option<usize>, show: Show) -> Vec<String> {
    // What each line begins with, and what the lines of its children do.
    let mut indents: HashMap<i32, String> = HashMap::new();
    // A parent that was sorted behind its child is none here.
    let above = |(at, one): (usize, &One)| {
        list[..at].iter().any(|other| other.pid == one.parent).then_some(one.parent)
    };
    let parents: Vec<Option<i32>> = list.iter().enumerate().map(above).collect();
    let mut lines = Vec::new();
    for (at, one) in list.iter().enumerate() {
        let parent = parents[at];
        let indent = parent.and_then(|parent| indents.get(&parent).cloned()).unwrap_or_default();
        let more = parents[at + 1..].contains(&parent);
        let (branch, below) = if more { ("├─", "│ ") } else { ("└─", "  ") };
        indents.insert(one.pid, format!("{indent}{below}"));
        let defunct = if one.state == 'Z' { " (defunct)" } else { "" };
        let (memory, cpu) = (rounded_size(one.memory_bytes), span(one.cpu_s));
        let command = match &one.command[..] {
            [name] if name.starts_with('[') => name.clone(),
            words => shell_words::join(words),
        };
        let command = show.foreign(&command.replace('\n', "\\n"));
        let line = format!("{indent}{branch}{} {command}{defunct}", one.pid);
        let uses = format!("{memory:>9} {cpu:>7}  ");
        let room = width.map(|width| width.saturating_sub(uses.chars().count()));
        lines.push(format!("{uses}{}", cut(&line, room)));
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn one(pid: i32, parent: i32, command: &[&str]) -> One {
        One {
            pid,
            parent,
            state: if command[0].starts_with('[') { 'Z' } else { 'S' },
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            threads: 1,
            memory_bytes: u64::try_from(pid).unwrap() << 20,
            cpu_s: 1.25,
        }
    }

    /// A program with children and a grandchild, and one that was given to somebody else.
    pub(in crate::cli) fn some() -> Processes {
        let list = vec![
            one(9, 1, &["strayed", "far from home"]),
            one(7, 5, &["worker", "--number", "2"]),
            one(5, 3, &["./server", "--port", "80 80", "\x1b[2J"]),
            one(6, 5, &["worker", "--number", "1"]),
            one(8, 6, &["[sh]"]),
        ];
        Processes {
            cgroup: Some("/sys/fs/cgroup/wharf-7/web.1".into()),
            tasks: 6,
            memory_bytes: 80 << 20,
            memory_accounted: true,
            memory_peak_bytes: Some(100 << 20),
            cpu_s: 61.0,
            list: ordered(list, 5),
        }
    }

    #[test]
    fn parents_come_before_children_and_lines_fit() {
        let show = Show { terminal: true, color: false };
        let tree = drawn(&some().list, None, show).join("\n");
        let narrow = drawn(&some().list, Some(36), show);
        assert!(narrow.iter().all(|line| line.chars().count() <= 36), "{narrow:?}");
        insta::assert_snapshot!(format!("{tree}\n\n{}", narrow.join("\n")));
    }

    #[test]
    fn a_child_of_ours_is_found_and_accounted_for() {
        let own = crate::os::prctl::pid();
        let mut replica = super::super::ps::tests::replica("web", 1, crate::event::State::Running);
        replica.pid = Some(own);
        let found = Finder::new(Realm(7)).find(&replica).unwrap();
        assert_eq!((found.cgroup, found.list[0].pid), (None, own));
        assert!(found.tasks >= 1 && found.memory_bytes > 100_000 && !found.memory_accounted);
        replica.pid = None;
        assert_eq!(Finder::new(Realm(7)).find(&replica), None);
    }
}
