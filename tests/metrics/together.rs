//! A thousand services, a scrape a second, a hundred ends a second for a minute: no end is missing,
//! the counts are the journal's, and there are never more series than at the beginning.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use wharf::metrics::{CATALOGUE, Of};

use crate::counters::{grown, in_journal, in_scrape};
use crate::scrape::{Scrape, family, number};
use crate::support::{Wharf, times, until};

/// Ends a second.
const RATE: usize = 100;

/// The series whose number is fixed: all but those of a replica, which come with its first end.
fn fixed(scrape: &Scrape) -> BTreeSet<String> {
    let of_replica = |series: &str| {
        let name = family(series);
        CATALOGUE.iter().any(|metric| metric.name == name && metric.of == Of::Replica)
    };
    scrape.values.keys().filter(|series| !of_replica(series)).cloned().collect()
}

#[test]
fn no_end_is_missing_at_a_hundred_a_second() {
    let (services, ends) = (times(1000), times(60 * RATE));
    let period = number(services) / number(RATE);
    let mut yaml = "defaults:\n  restart: { policy: always, delay: 1ms, max_delay: 10ms, max_restarts: 1000000, reset_after: 100ms }\nservices:\n".to_owned();
    for at in 0..services {
        // Spread over the period, and ending in five ways.
        let life = period * (0.75 + 0.5 * number(at) / number(services));
        let end = ["exit 0", "exit 3", "kill -9 $$$$", "kill -15 $$$$", "kill -24 $$$$"][at % 5];
        writeln!(yaml, "  s{at}: {{ command: [sh, -c, 'sleep {life:.3}; {end}'] }}").unwrap();
    }
    let wharf = Wharf::up(&yaml);
    until("the services", || (wharf.ps().len() == services).then_some(()));

    let began = Instant::now();
    let first = Scrape::of(&wharf);
    let series = fixed(&first);
    let mut before = first;
    let mut scrapes = 1;
    loop {
        std::thread::park_timeout(
            Duration::from_secs(1)
                .saturating_sub(Duration::from_millis(u64::from(began.elapsed().subsec_millis()))),
        );
        let written = in_journal(&wharf.records());
        let scrape = Scrape::of(&wharf);
        scrapes += 1;
        grown(&before, &scrape);
        let told = in_scrape(&scrape);
        // What was in the journal before the scrape is in the scrape, but for what was just written.
        let behind: f64 = written
            .iter()
            .map(|(key, count)| (count - told.get(key).copied().unwrap_or(0.0)).max(0.0))
            .sum();
        assert!(behind <= 5.0, "{behind} records are in the journal and not counted");
        let now = fixed(&scrape);
        assert!(
            now == series,
            "{:?}",
            now.symmetric_difference(&series).take(5).collect::<Vec<_>>()
        );
        let counted: f64 = told.values().sum();
        before = scrape;
        if counted >= number(ends) {
            break;
        }
        let patience = Duration::from_secs_f64(60.0 + 3.0 * number(ends) / number(RATE));
        assert!(began.elapsed() < patience, "{counted} of {ends} ends");
    }
    let took = began.elapsed();

    let names: Vec<_> = (0..services).map(|at| format!("s{at}")).collect();
    // No more at once than the manager takes.
    for some in names.chunks(100) {
        let mut words = vec!["stop"];
        words.extend(some.iter().map(String::as_str));
        wharf.ok(&words);
    }
    let records = wharf.records();
    let last = until("the last ends in a scrape", || {
        let scrape = Scrape::of(&wharf);
        let counted: f64 = in_scrape(&scrape).values().sum();
        (counted >= number(records.len())).then_some(scrape)
    });
    grown(&before, &last);
    assert_eq!(in_scrape(&last), in_journal(&records), "the counts are the journal's");
    assert_eq!(fixed(&last), series);
    let starts = last.sum("wharf_process_starts_total", "");
    assert!((starts - number(records.len())).abs() < 1e-9, "everything that was started has ended");
    let noticed = last.sum("wharf_exit_detection_seconds_bucket", "le=\"0.1\"");
    eprintln!(
        "{} ends in {took:?} by {services} services, {scrapes} scrapes; {noticed} of them seen within 100 ms",
        records.len()
    );
}
