//! From the kill of a service to the first instruction of its successor.

use crate::Contest;
use crate::contest::{ALL, OURS};
use crate::crew::{Lone, grow_old};
use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::wait::{QUIET, between, pass};
use crate::wharf::ROW;

/// Rounds that do not count.
const WARM_UP: usize = 2;
/// How often those take a turn in a round whose restart takes milliseconds.
pub(crate) const TURNS: usize = 3;

pub(crate) fn measure(contest: &Contest<'_>, report: &mut Report) {
    let mut rivals = ALL.map(|peer| (Lone::start(contest.shop, peer, None), Samples::default()));
    for round in 0..WARM_UP + contest.rounds {
        grow_old();
        for (rival, samples) in &mut rivals {
            let turns = if rival.crew.peer.is_brisk() { TURNS } else { 1 };
            for turn in 0..turns {
                pass(if turn == 0 { QUIET } else { ROW });
                let killed = rival.kill();
                let took = between(killed, rival.successor());
                if round >= WARM_UP {
                    samples.push(took);
                }
            }
        }
    }
    let mut table = Table::new("Kill → successor runs", "µs");
    for (rival, samples) in rivals {
        table = table.row(rival.crew.peer.name(), samples);
        rival.stop();
    }
    for ours in OURS {
        let name = ours.name();
        let bar = 1.3;
        report.promise(format!("{name}: kill → successor, × C loop"), table.ratio(name), bar);
        let best = best(&table);
        let value = table.median(name) / best.1;
        report.promise(
            format!("{name}: kill → successor, × the best peer ({})", best.0),
            value,
            1.0,
        );
    }
    report.table(table);
}

/// The best of the others: its name and its median.
pub(crate) fn best(table: &Table) -> (&'static str, f64) {
    let others = ALL.into_iter().filter(|peer| peer.is_other());
    let medians = others.map(|peer| (peer.name(), table.median(peer.name())));
    medians.filter(|(_, median)| !median.is_nan()).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}
