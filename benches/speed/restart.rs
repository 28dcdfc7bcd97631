//! From the kill of a service to the first instruction of its successor.

use crate::report::{Report, Table};
use crate::rival::Rival;
use crate::samples::Samples;
use crate::wait::{QUIET, pass};
use crate::wharf::ROW;
use crate::workshop::Workshop;
use crate::{Options, WARM_UP};

pub(crate) fn measure(workshop: &Workshop, options: &Options, report: &mut Report) {
    let mut rivals = [
        ("C: vfork, exec, waitpid", Rival::c(workshop)),
        ("wharf", Rival::wharf(workshop, "wharf", "")),
        ("wharf, cgroups: off", Rival::wharf(workshop, "plain", "cgroups: off\n")),
        ("Erlang: port owner", Rival::erlang(workshop)),
    ];
    let mut samples = vec![Samples::default(); rivals.len()];
    for round in 0..WARM_UP + options.rounds {
        pass(ROW);
        for ((_, rival), samples) in rivals.iter_mut().zip(&mut samples) {
            pass(QUIET);
            let took = rival.restart();
            if round >= WARM_UP {
                samples.push(took);
            }
        }
    }
    for (_, rival) in &rivals[1..3] {
        assert_immediate(rival, options);
    }
    let names = rivals.iter().map(|(name, _)| *name);
    let table = names
        .zip(samples)
        .fold(Table::new("Kill → successor runs", "µs"), |table, (name, samples)| {
            table.row(name, samples)
        });
    let ratio = table.ratio("wharf");
    report.promise("kill → successor, × C loop", ratio, 1.3);
    report.promise("kill → successor, × Erlang", ratio / table.ratio("Erlang: port owner"), 1.0);
    report.table(table);
}

/// What was measured were immediate restarts: the records say so.
fn assert_immediate(rival: &Rival, options: &Options) {
    pass(ROW);
    let records = rival.as_wharf().records();
    assert!(records.len() >= WARM_UP + options.rounds - 1, "{} records", records.len());
    for record in records {
        let delay = record["restart"]["delay_s"].as_f64();
        assert!(delay.is_none_or(|delay| delay == 0.0), "not immediate: {record}");
    }
}
