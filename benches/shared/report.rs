//! The tables, the promises and whether they are kept.

use std::fmt;

use serde_json::{Value, json};

use crate::samples::Samples;

/// Everything that was found out.
#[derive(Debug)]
pub(crate) struct Report {
    scheduler: &'static str,
    tables: Vec<Table>,
    promises: Vec<Promise>,
}

/// One thing measured of several contestants. The first one is the limit.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    unit: &'static str,
    rows: Vec<(String, Samples)>,
    /// Who has no such thing, and why.
    absent: Vec<(String, &'static str)>,
}

#[derive(Debug)]
struct Promise {
    text: String,
    value: f64,
    bound: Bound,
}

/// What a value is held against.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Most(f64),
    Least(f64),
}

impl Promise {
    fn is_kept(&self) -> bool {
        match self.bound {
            Bound::Most(most) => self.value <= most,
            Bound::Least(least) => self.value >= least,
        }
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, unit: &'static str) -> Self {
        Self { title: title.into(), unit, rows: Vec::new(), absent: Vec::new() }
    }

    pub(crate) fn row(mut self, contestant: impl Into<String>, samples: Samples) -> Self {
        self.rows.push((contestant.into(), samples));
        self
    }

    /// Somebody of whom this cannot be measured.
    pub(crate) fn absent(mut self, contestant: impl Into<String>, why: &'static str) -> Self {
        self.absent.push((contestant.into(), why));
        self
    }

    pub(crate) fn median(&self, contestant: &str) -> f64 {
        let samples = self.rows.iter().find(|(name, _)| name == contestant);
        samples.map_or(f64::NAN, |(_, samples)| samples.median())
    }

    /// The median of a contestant in those of the limit.
    pub(crate) fn ratio(&self, contestant: &str) -> f64 {
        self.median(contestant) / self.rows[0].1.median()
    }
}

impl Report {
    /// Nothing yet, with everybody in this class of the scheduler.
    pub(crate) fn new(scheduler: &'static str) -> Self {
        Self { scheduler, tables: Vec::new(), promises: Vec::new() }
    }

    fn kernel() -> String {
        let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        text.trim().to_owned()
    }

    fn cores() -> usize {
        std::thread::available_parallelism().map_or(0, usize::from)
    }

    pub(crate) fn table(&mut self, table: Table) {
        eprint!("{table}");
        self.tables.push(table);
    }

    /// A promise that `value` is `most` or less.
    pub(crate) fn promise(&mut self, text: impl Into<String>, value: f64, most: f64) {
        self.promises.push(Promise { text: text.into(), value, bound: Bound::Most(most) });
    }

    /// A promise that `value` is `least` or more.
    pub(crate) fn promise_least(&mut self, text: impl Into<String>, value: f64, least: f64) {
        self.promises.push(Promise { text: text.into(), value, bound: Bound::Least(least) });
    }

    pub(crate) fn is_missed(&self) -> bool {
        !self.promises.iter().all(Promise::is_kept)
    }

    pub(crate) fn json(&self) -> Value {
        let tables = self.tables.iter().map(|table| {
            let limit = table.rows[0].1.median();
            let rows = table.rows.iter().map(|(contestant, samples)| {
                let (lower, upper) = samples.quartiles();
                json!({
                    "contestant": contestant,
                    "n": samples.count(),
                    "median": samples.median(),
                    "quartiles": [lower, upper],
                    "min": samples.least(),
                    "max": samples.most(),
                    "ratio": samples.median() / limit,
                })
            });
            let rows = rows.collect::<Vec<_>>();
            let absent =
                table.absent.iter().map(|(who, why)| json!({ "contestant": who, "why": why }));
            let absent = absent.collect::<Vec<_>>();
            json!({ "title": table.title, "unit": table.unit, "rows": rows, "absent": absent })
        });
        let promises = self.promises.iter().map(|promise| {
            let (key, bound) = match promise.bound {
                Bound::Most(most) => ("at_most", most),
                Bound::Least(least) => ("at_least", least),
            };
            json!({
                "promise": promise.text,
                "value": promise.value,
                key: bound,
                "kept": promise.is_kept(),
            })
        });
        json!({
            "host": wharf::os::procfs::host_name(),
            "kernel": Self::kernel(),
            "cores": Self::cores(),
            "scheduler": self.scheduler,
            "at": wharf::os::clock::wall().to_string(),
            "tables": tables.collect::<Vec<_>>(),
            "promises": promises.collect::<Vec<_>>(),
        })
    }
}

/// A number with three digits that mean something, and no more.
fn short(value: f64) -> String {
    match value.abs() {
        huge if huge >= 1e7 => format!("{:.1} M", value / 1e6),
        million if million >= 1e6 => format!("{:.2} M", value / 1e6),
        large if large >= 1e4 => format!("{:.1} k", value / 1e3),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n### {}\n", self.title)?;
        writeln!(f, "| | median {} | middle half | min-max | n | ratio |", self.unit)?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (contestant, samples) in &self.rows {
            let (lower, upper) = samples.quartiles();
            let [median, lower, upper] = [samples.median(), lower, upper].map(short);
            let [least, most] = [samples.least(), samples.most()].map(short);
            let (count, ratio) = (samples.count(), short(self.ratio(contestant)));
            writeln!(
                f,
                "| {contestant} | {median} | {lower}-{upper} | {least}-{most} | {count} | {ratio} |"
            )?;
        }
        for (contestant, why) in &self.absent {
            writeln!(f, "| {contestant} | – | {why} | | | |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, cores, scheduler) = (Self::kernel(), Self::cores(), self.scheduler);
        writeln!(f, "Linux {kernel}, {cores} cores, scheduler {scheduler}")?;
        for table in &self.tables {
            write!(f, "{table}")?;
        }
        writeln!(f, "\n### Promises\n\n| | measured | bar | |\n|---|---|---|---|")?;
        for promise in &self.promises {
            let (words, bound) = match promise.bound {
                Bound::Most(most) => ("at most", most),
                Bound::Least(least) => ("at least", least),
            };
            let [value, bound] = [promise.value, bound].map(short);
            let kept = if promise.is_kept() { "kept" } else { "MISSED" };
            writeln!(f, "| {} | {value} | {words} {bound} | {kept} |", promise.text)?;
        }
        Ok(())
    }
}
