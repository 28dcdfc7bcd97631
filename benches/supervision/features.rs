//! What each thing that a service can be given costs at a restart, by itself.

use crate::Contest;
use crate::contest::Peer;
use crate::crew::{Crew, Lone, Task};
use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::wait::{QUIET, between, pass};
use crate::wharf::ROW;

/// Names, and what stands in the service; `PLACE` is a folder of its own.
const FEATURES: [(&str, &str); 12] = [
    ("nothing", ""),
    ("ready: log_line", "ready: { log_line: ^ready$ }"),
    ("healthcheck: exec", "healthcheck: { exec: ['true'], interval: 1m }"),
    ("limits: nofile, core", "limits: { nofile: 256, core: 0 }"),
    ("limits: memory, pids", "limits: { memory: 64MiB, pids: 20 }"),
    ("listen", "listen: [{ name: s, unix: '@PLACE' }]"),
    ("on_event", "on_event: { exec: ['true'], events: [give_up] }"),
    ("env_file", "env_file: PLACE/variables"),
    ("secrets", "secrets: [{ name: token, file: PLACE/secret }]"),
    ("on_manager_exit: keep", "on_manager_exit: keep"),
    ("umask, nice, no_new_privileges", "umask: '027', nice: 0, no_new_privileges: true"),
    ("oom_score_adj", "oom_score_adj: 100"),
];

/// Rounds that do not count.
const WARM_UP: usize = 2;

pub(crate) fn measure(contest: &Contest<'_>, report: &mut Report) {
    let mut all = FEATURES.map(|(name, extra)| {
        let task = Task { extra: Some(extra), ..Task::of(1) };
        let (crew, children, _) = Crew::start(contest.shop, Peer::Wharf, task);
        (name, Lone::of(crew, children[0]), Samples::default())
    });
    for round in 0..WARM_UP + contest.rounds {
        pass(ROW);
        for (_, one, samples) in &mut all {
            pass(QUIET);
            let killed = one.kill();
            let took = between(killed, one.successor());
            if round >= WARM_UP {
                samples.push(took);
            }
        }
    }
    let mut table = Table::new("Kill → successor runs, by what the service has", "µs");
    for (name, one, samples) in all {
        table = table.row(name, samples);
        one.stop();
    }
    report.table(table);
}
