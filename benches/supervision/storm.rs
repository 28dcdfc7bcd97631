//! Many services that end at once, all the time: how many runs a second each supervisor gets through.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use wharf::os::clock;

use crate::Contest;
use crate::contest::{ALL, OURS, Peer};
use crate::crew::{Crew, Task};
use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::stamps::Started;
use crate::wait::{between, pass};

/// How many services there are.
const SERVICES: usize = 100;
/// How long a storm lasts before it is measured, and while it is.
const RISES: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(2);

pub(crate) fn measure(contest: &Contest<'_>, report: &mut Report) {
    let mut all = ALL.map(|peer| (peer, Samples::default()));
    for _ in 0..contest.rounds {
        for (peer, samples) in &mut all {
            pass(Duration::from_millis(500));
            samples.push(storm(contest, *peer));
        }
    }
    let title = format!("{SERVICES} services that end at once: runs");
    let table = all.into_iter().fold(Table::new(title, "a second"), |table, (peer, samples)| {
        table.row(peer.name(), samples)
    });
    let others = ALL.into_iter().filter(|peer| peer.is_other());
    let best = others.max_by(|a, b| table.median(a.name()).total_cmp(&table.median(b.name())));
    let best = best.unwrap().name();
    for ours in OURS {
        let value = table.median(ours.name()) / table.median(best);
        let text = format!("{}: runs a second, × the best peer ({best})", ours.name());
        report.promise_least(text, value, 1.0);
    }
    report.table(table);
}

/// Runs a second of one contestant.
fn storm(contest: &Contest<'_>, peer: Peer) -> f64 {
    let task = Task { brief: true, ..Task::of(SERVICES) };
    let mut crew = Crew::begin(contest.shop, peer, task);
    let first = crew.stamps.next();
    let mut runs = Runs::new(&crew.stamps.path);
    crew.settle(0);
    runs.count(RISES);
    let (before, count) = (clock::now(), runs.seen);
    runs.count(LASTS);
    let seconds = between(before, clock::now()) / 1e6;
    let count = f64::from(u32::try_from(runs.seen - count).unwrap());
    let wharf = peer.is_wharf().then(|| crew.as_wharf().folder());
    let nobody: [Started; 0] = [];
    crew.stop(&nobody);
    if let Some(folder) = wharf {
        // Each run, the first one too, has a record, and none has two.
        runs.count(Duration::from_millis(100));
        let records = last_seq(&folder.join(".wharf/exits.jsonl"));
        let seen = runs.seen + 1;
        assert!(
            first.pid > 0 && records >= seen && records <= seen + SERVICES * 2,
            "{records} records of {seen} runs"
        );
    }
    eprintln!("{}: {:.0} runs a second", peer.name(), count / seconds);
    count / seconds
}

/// The number of the journal's last record.
fn last_seq(journal: &std::path::Path) -> usize {
    let text = std::fs::read_to_string(journal).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    usize::try_from(last["seq"].as_u64().unwrap()).unwrap()
}

/// Counts runs by what they write to the named pipe.
struct Runs {
    pipe: File,
    buffer: Vec<u8>,
    seen: usize,
}

impl Runs {
    fn new(path: &std::path::Path) -> Self {
        let mut options = File::options();
        let pipe = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).unwrap();
        Self { pipe, buffer: vec![0; 64 << 10], seen: 0 }
    }

    /// Counts for so long.
    fn count(&mut self, long: Duration) {
        let end = clock::now() + long;
        while !end.since(clock::now()).is_zero() {
            match self.pipe.read(&mut self.buffer) {
                Ok(count) => self.seen += count / 16,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            pass(Duration::from_millis(5));
        }
    }
}
