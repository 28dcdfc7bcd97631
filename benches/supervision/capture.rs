//! How fast what a program says is written down, and whether all of it is.
//!
//! From the moment before the program's first write until its last line is in the file. Then every line is
//! looked at: none may be missing, torn or there twice.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use wharf::os::clock;
use wharf::time::Tick;

use crate::Contest;
use crate::logger::{ALL, Logger, Work};
use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::stamps::Stamps;
use crate::wait::{between, pass, until};

/// The length of a line of `benches/c/flood.c` and of the number in it, in bytes.
const LINE: usize = 100;
const DIGITS: usize = 9;

/// What a file had that it should not have, or had not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Damage {
    lost: usize,
    torn: usize,
    doubled: usize,
}

pub(crate) fn measure(contest: &Contest<'_>, report: &mut Report) {
    let mut all = ALL.map(|logger| (logger, Samples::default(), Damage::default()));
    // The first one does not count.
    for round in 0..=contest.rounds {
        for (logger, samples, damage) in &mut all {
            let (speed, found) = capture(contest, *logger);
            damage.lost += found.lost;
            damage.torn += found.torn;
            damage.doubled += found.doubled;
            eprintln!("{}: {speed:.0} MB/s, {found:?}", logger.name());
            if round > 0 {
                samples.push(speed);
            }
        }
    }
    let ours =
        all.iter().filter(|(logger, ..)| matches!(logger, Logger::Wharf | Logger::Compressing));
    let damaged: usize = ours.map(|(.., damage)| damage.lost + damage.torn + damage.doubled).sum();
    let title = format!("{} lines of {LINE} bytes written down", contest.options.lines);
    let table =
        all.into_iter().fold(Table::new(title, "MB/s"), |table, (logger, samples, damage)| {
            let Damage { lost, torn, doubled } = damage;
            let whole = damage == Damage::default();
            let name = logger.name();
            let found = format!("{name} ({lost} lines lost, {torn} torn, {doubled} doubled)");
            table.row(if whole { name.to_owned() } else { found }, samples)
        });
    let ratio = table.ratio(Logger::Wharf.name());
    report.promise_least("output with rotation, time and stream, × cat > file", ratio, 0.6);
    let timed = table.median(Logger::S6Timed.name());
    let value = table.median(Logger::Wharf.name()) / timed;
    report.promise_least("output with rotation, time and stream, × s6-log T", value, 2.0);
    let damaged = f64::from(u32::try_from(damaged).unwrap());
    report.promise("lines of output that wharf lost, tore or doubled", damaged, 0.0);
    report.table(table);
}

/// MB/s of what the program wrote, and what became of it.
fn capture(contest: &Contest<'_>, logger: Logger) -> (f64, Damage) {
    let lines = contest.options.lines;
    let stamps = Stamps::new(&contest.shop.workshop, "flood");
    let mut work = Work::start(contest.shop, logger, lines, stamps.text());
    let began = stamps.next();
    // The second stamp is that of the last write.
    stamps.next();
    let ended = written(&work.current, lines);
    let seconds = between(began.at, ended) / 1e6;
    if logger == Logger::Compressing {
        until("all that was rotated to be compressed", || {
            let plain = files(&work.logs).filter(|name| !is_compressed(name)).count();
            (plain == 1).then_some(())
        });
    }
    work.stop(began.pid);
    let damage = look(&work.logs, lines);
    work.remove();
    let bytes = f64::from(u32::try_from(lines * LINE).unwrap());
    (bytes / seconds / 1e6, damage)
}

/// Waits until the last line is in the file and tells when.
fn written(current: &Path, lines: usize) -> Tick {
    let wanted = format!("{:0DIGITS$} x", lines - 1);
    loop {
        let mut end = [0; LINE];
        let file = File::open(current);
        let read = file.and_then(|file| {
            let from = file.metadata()?.len().saturating_sub(LINE as u64);
            file.read_at(&mut end, from)
        });
        if read.is_ok() && end.starts_with(wanted.as_bytes()) {
            return clock::now();
        }
        pass(Duration::from_millis(1));
    }
}

fn files(logs: &Path) -> impl Iterator<Item = String> {
    let names = fs::read_dir(logs).unwrap().map(|one| one.unwrap().file_name());
    names.map(|name| name.into_string().unwrap())
}

fn is_compressed(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "gz")
}

/// Reads everything that was written.
fn look(logs: &Path, lines: usize) -> Damage {
    let mut seen = vec![false; lines];
    let mut damage = Damage::default();
    // What the loggers keep beside their logs.
    let beside = ["lock", "state", "config"];
    for name in files(logs).filter(|name| !beside.contains(&name.as_str())) {
        let file = File::open(logs.join(&name)).unwrap();
        let plain: Box<dyn Read> =
            if is_compressed(&name) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut reader = BufReader::with_capacity(1 << 20, plain);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).unwrap() > 0 {
            match number(&line).and_then(|number| seen.get_mut(number)) {
                None => damage.torn += 1,
                Some(true) => damage.doubled += 1,
                Some(seen) => *seen = true,
            }
            line.clear();
        }
    }
    damage.lost = seen.iter().filter(|seen| !**seen).count();
    damage
}

/// The number of the program's line at the end of this one, where that is whole.
fn number(line: &[u8]) -> Option<usize> {
    let line = line.get(line.len().checked_sub(LINE)?..)?;
    let whole = line[DIGITS] == b' '
        && line[DIGITS + 1..LINE - 1].iter().all(|byte| *byte == b'x')
        && line[LINE - 1] == b'\n';
    let digits = std::str::from_utf8(&line[..DIGITS]).ok().filter(|_| whole)?;
    digits.parse().ok()
}
