//! Whether anything of a run has left its control group: a process that may write where groups are
//! managed (root's, mostly) can, and then its group is empty although something lives.
//!
//! This process is a subreaper, so what has lost its parents is its child and bears the run's mark
//! (`os::mark`). Where the kernel lists no children, the sweeper looks at every process instead, and
//! nothing waits for that. Nothing is searched for or killed here.

use std::collections::HashSet;

use crate::name::Incarnation;
use crate::os::{mark, procfs};
use crate::spec::KillScope;

use super::control::Control;
use super::sweeper::Sweep;

/// What is known of processes that were given to this one.
pub(super) enum Strays {
    /// The marks they bear.
    Marked(HashSet<u64>),
    /// The kernel does not list them.
    Unlisted,
}

impl Control {
    /// Whether a process that this one was given bears the mark of a run that has ended, with an empty
    /// group. Where that cannot be told at once, it is found, killed and told a moment later.
    pub(super) fn has_escaped(&mut self, incarnation: Incarnation) -> bool {
        // Once for all that ended in the same turn of the loop: they were dead before it began.
        let strays = self.strays.take().unwrap_or_else(|| self.look_for_strays());
        let own = mark::of(self.realm, incarnation);
        let escaped = match &strays {
            Strays::Marked(marks) => marks.contains(&own),
            Strays::Unlisted => {
                self.search_for_escaped(incarnation, own);
                false
            }
        };
        self.strays = Some(strays);
        escaped
    }

    fn look_for_strays(&self) -> Strays {
        let Ok(mut children) = procfs::children() else { return Strays::Unlisted };
        let runs: HashSet<i32> = self.runs.values().map(|run| run.pid).collect();
        children.retain(|pid| !runs.contains(pid));
        let lives = |pid: &i32| procfs::stat(*pid).is_some_and(|stat| !stat.is_zombie());
        Strays::Marked(children.into_iter().filter(lives).filter_map(mark::read).collect())
    }

    fn search_for_escaped(&mut self, incarnation: Incarnation, mark: u64) {
        let Some(run) = self.runs.get(&incarnation) else { return };
        let (pid, replica) = (run.pid, run.replica.clone());
        self.sweeping.insert(incarnation, (replica, None));
        // Its group is empty, and may be the next run's in a moment.
        let (scope, group, spared) = (KillScope::Tree, None, false);
        self.sweeper.ask(Sweep { incarnation, pid, scope, group, mark, spared });
    }
}
