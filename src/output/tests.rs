//! Programs' output on a real file system: formatted, rotated, compressed, removed, read and
//! followed, and every byte accounted for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::name::{ReplicaId, ServiceName};
use crate::spec::{Logging, WhenFull};
use crate::time::Wall;

const BASE: u64 = 1_795_332_688_000_000_000;

fn id(name: &str) -> ReplicaId {
    ReplicaId { service: ServiceName::new(name).unwrap(), replica: 1 }
}

fn logging(max_size: u64, max_files: u32, compress: bool) -> Logging {
    Logging { max_size, max_files, compress, when_full: WhenFull::Block, ..Logging::default() }
}

fn at(nanos: u64) -> Wall {
    Wall(BASE + nanos)
}

/// One line of standard output as it stands in a file.
fn line(time: u64, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    LineFormatter::default().push(
        Stream::Stdout,
        at(time),
        format!("{text}\n").as_bytes(),
        &mut out,
    );
    out
}

fn read(dir: &Path, name: &str, range: Range) -> Vec<Line> {
    let mut lines = LogReader::open(dir, &id(name)).unwrap().lines(range).unwrap();
    let found = lines.by_ref().map(Result::unwrap).collect();
    assert_eq!(lines.unreadable(), 0);
    found
}

fn texts(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

fn all(dir: &Path) -> Vec<String> {
    texts(&read(dir, "web", Range::default()))
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| name(entry).into_string().unwrap()).collect();
    names.sort();
    names
}

/// The bytes of each stream, pieces joined.
fn joined(lines: &[Line]) -> BTreeMap<Source, Vec<u8>> {
    let mut bytes: BTreeMap<Source, Vec<u8>> = BTreeMap::new();
    for line in lines {
        let stream = bytes.entry(line.source).or_default();
        line.put_raw(stream);
    }
    bytes
}

#[test]
fn long_lines_are_cut_into_pieces() {
    for (length, pieces) in [
        (PIECE - 1, &["F"][..]),
        (PIECE, &["F"]),
        (PIECE + 1, &["P", "F"]),
        (2 * PIECE, &["P", "F"]),
        (2 * PIECE + 7, &["P", "P", "F"]),
    ] {
        let bytes = [vec![b'x'; length], b"\n".to_vec()].concat();
        for cut in [bytes.len(), PIECE, PIECE - 1, 1, 40_000] {
            let mut formatter = LineFormatter::default();
            let (mut out, mut count) = (Vec::new(), 0);
            for chunk in bytes.chunks(cut) {
                count += formatter.push(Stream::Stderr, at(0), chunk, &mut out);
                assert!(formatter.held() <= PIECE);
            }
            assert_eq!(count, pieces.len());
            let text = String::from_utf8(out).unwrap();
            let flags: Vec<_> = text.lines().map(|line| &line[38..39]).collect();
            assert_eq!(flags, pieces, "a line of {length} in chunks of {cut}");
            assert_eq!(formatter.held(), 0);
        }
    }
}

#[test]
fn what_has_no_line_feed_comes_at_the_end_with_the_time_it_came() {
    let mut formatter = LineFormatter::default();
    let mut out = Vec::new();
    formatter.push(Stream::Stdout, at(1), b"login: ", &mut out);
    formatter.push(Stream::Stderr, at(2), b"", &mut out);
    assert_eq!((out.len(), formatter.held()), (0, 7));
    formatter.finish(&mut out);
    formatter.finish(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), format!("{} stdout F:noeol login: \n", at(1)));
}

#[test]
fn a_prompt_is_let_go_of_after_a_while_and_its_line_goes_on() {
    let mut formatter = LineFormatter::default();
    let mut out = Vec::new();
    formatter.push(Stream::Stdout, at(1), b"one\nlogin: ", &mut out);
    out.clear();
    formatter.settle(&mut out);
    assert_eq!((out.len(), formatter.held()), (0, 7), "it may still grow");
    formatter.push(Stream::Stderr, at(2), b"gro", &mut out);
    formatter.settle(&mut out);
    assert_eq!(formatter.held(), 3, "the prompt has waited long enough, the other has not");
    formatter.push(Stream::Stderr, at(3), b"wing", &mut out);
    formatter.settle(&mut out);
    formatter.push(Stream::Stdout, at(4), b"\npassword: ", &mut out);
    formatter.settle(&mut out);
    formatter.settle(&mut out);
    assert_eq!(formatter.held(), 0);
    formatter.finish(&mut out);
    formatter.finish(&mut out);
    let text = String::from_utf8(out).unwrap();
    let said: Vec<_> = text.lines().map(|line| &line[31..]).collect();
    assert_eq!(
        said,
        [
            "stdout P login: ",
            "stdout F ",
            "stderr P growing",
            "stdout P password: ",
            "stdout F:noeol ",
            "stderr F:noeol ",
        ]
    );
}

#[test]
fn what_an_earlier_life_left_unfinished_is_ended_before_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let (mut formatter, mut out) = (LineFormatter::default(), Vec::new());
    formatter.push(Stream::Stderr, at(0), b"whole\n", &mut out);
    formatter.push(Stream::Stdout, at(1), b"login: ", &mut out);
    formatter.settle(&mut out);
    formatter.settle(&mut out);
    let write = |files: &mut LogFiles, lines: &[u8]| {
        files.write(&id("web"), &logging(1 << 20, 5, false), lines).unwrap();
    };
    let mut files = LogFiles::open(dir.path()).unwrap();
    write(&mut files, &out);
    // In the same life the line may go on, though the file was closed meanwhile.
    files.close(&id("web"));
    out.clear();
    formatter.push(Stream::Stdout, at(2), b"ann", &mut out);
    formatter.settle(&mut out);
    formatter.settle(&mut out);
    write(&mut files, &out);
    let mut files = LogFiles::open(dir.path()).unwrap();
    write(&mut files, &line(3, "next"));
    let lines = read(dir.path(), "web", Range::default());
    assert_eq!(texts(&lines), ["whole", "login: ", "ann", "", "next"]);
    assert_eq!(joined(&lines)[&Source::Program(Stream::Stdout)], b"login: annnext\n");
    let ends: Vec<_> = lines.iter().map(|line| (line.partial, line.noeol)).collect();
    let (whole, piece, last) = ((false, false), (true, false), (false, true));
    assert_eq!(ends, [whole, piece, piece, last, whole]);
}

#[test]
fn a_line_that_has_not_ended_counts_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = LogFiles::open(dir.path()).unwrap();
    let (mut formatter, mut out) = (LineFormatter::default(), Vec::new());
    for (number, (stream, text)) in [
        (Stream::Stdout, "one\ntwo"),
        (Stream::Stderr, "err\n"),
        (Stream::Stdout, " halves\nlog"),
        (Stream::Stdout, "in: "),
    ]
    .into_iter()
    .enumerate()
    {
        formatter.push(stream, at(number as u64), text.as_bytes(), &mut out);
        formatter.settle(&mut out);
        formatter.settle(&mut out);
    }
    files.write(&id("web"), &logging(1 << 20, 5, false), &out).unwrap();
    let last = |last, stream| {
        let range = Range { last: Some(last), stream, ..Range::default() };
        texts(&read(dir.path(), "web", range)).join("|")
    };
    assert_eq!(last(0, None), "");
    assert_eq!(last(1, None), "log|in: ");
    assert_eq!(last(2, None), " halves|log|in: ");
    assert_eq!(last(1, Some(Stream::Stderr)), "err");
    assert_eq!(last(2, Some(Stream::Stdout)), "two| halves|log|in: ");
    assert_eq!(last(9, Some(Stream::Stdout)), "one|two| halves|log|in: ");
    let range = Range { last: Some(1), until: Some(at(1)), ..Range::default() };
    assert_eq!(texts(&read(dir.path(), "web", range)), ["err"]);
}

#[test]
fn missing_output_is_said_in_one_line() {
    let mut out = Vec::new();
    dropped_marker(at(0), Stream::Stdout, 12345, "disk\nfull", &mut out);
    let text = format!("{} wharf F dropped 12345 bytes of stdout: disk full\n", at(0));
    assert_eq!(String::from_utf8(out).unwrap(), text);
}

#[test]
fn files_are_rotated_between_lines_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = LogFiles::open(dir.path()).unwrap();
    let size = line(0, "000").len() as u64;
    let settings = logging(3 * size + 5, 2, false);
    let lines: Vec<u8> = (0..12).flat_map(|number| line(0, &format!("{number:03}"))).collect();
    assert!(files.write(&id("web"), &settings, &lines).unwrap().is_none());
    assert_eq!(names(dir.path()), ["web.1.log", "web.1.log.1", "web.1.log.2"]);
    assert_eq!(all(dir.path()), ["003", "004", "005", "006", "007", "008", "009", "010", "011"]);
    for name in names(dir.path()) {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().len(), 3 * size);
    }
    // Settings change while the file is open: fewer files, and none.
    files.write(&id("web"), &logging(3 * size, 1, false), &line(0, "012")).unwrap();
    assert_eq!(all(dir.path()), ["009", "010", "011", "012"]);
    files.write(&id("web"), &logging(size, 0, false), &line(0, "013")).unwrap();
    assert_eq!(names(dir.path()), ["web.1.log"]);
    assert_eq!(all(dir.path()), ["013"]);
    // A line longer than the bound has a file of its own.
    let long = "x".repeat(500);
    files.write(&id("web"), &logging(size, 9, false), &line(0, &long)).unwrap();
    files.write(&id("web"), &logging(size, 9, false), &line(0, "015")).unwrap();
    assert_eq!(all(dir.path()), ["013", &long, "015"]);
    assert_eq!(names(dir.path()).len(), 3);
}

#[test]
fn a_removed_or_emptied_file_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let current = dir.path().join("web.1.log");
    let settings = logging(1 << 20, 5, true);
    let mut files = LogFiles::open(dir.path()).unwrap();
    let mut write =
        |text: &str| files.write(&id("web"), &settings, &line(0, text)).map(|job| job.is_none());
    let mut follower = LogReader::open(dir.path(), &id("web")).unwrap().follower().unwrap();
    let mut seen = Vec::new();
    let mut look = |seen: &mut Vec<String>| seen.extend(texts(&follower.read_new().unwrap()));
    write("first").unwrap();
    look(&mut seen);
    write("unseen when removed").unwrap();
    fs::remove_file(&current).unwrap();
    look(&mut seen);
    write("second").unwrap();
    assert_eq!(all(dir.path()), ["second"]);
    look(&mut seen);
    fs::write(&current, "").unwrap();
    write("third").unwrap();
    look(&mut seen);
    assert_eq!(all(dir.path()), ["third"]);
    fs::remove_dir_all(dir.path()).unwrap();
    write("fourth").unwrap();
    look(&mut seen);
    assert_eq!(seen, ["first", "unseen when removed", "second", "third", "fourth"]);
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let settings = logging(1 << 20, 5, true);
    let mut files = LogFiles::open(dir.path()).unwrap();
    symlink("/dev/full", dir.path().join("web.1.log")).unwrap();
    let error = files.write(&id("web"), &settings, &line(0, "lost")).unwrap_err();
    assert_eq!((error.written, error.source.kind()), (0, std::io::ErrorKind::StorageFull));
    fs::remove_file(dir.path().join("web.1.log")).unwrap();
    files.close(&id("web"));
    files.write(&id("web"), &settings, &line(0, "kept")).unwrap();
    assert_eq!(all(dir.path()), ["kept"]);
}

#[test]
fn a_line_that_a_crash_tore_is_ended_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let torn = line(0, "torn in the middle");
    fs::write(dir.path().join("web.1.log"), &torn[..torn.len() - 8]).unwrap();
    let mut follower = LogReader::open(dir.path(), &id("web")).unwrap().follower().unwrap();
    assert_eq!(follower.read_new().unwrap(), []);
    let mut files = LogFiles::open(dir.path()).unwrap();
    files.write(&id("web"), &logging(1 << 20, 5, true), &line(0, "next")).unwrap();
    assert_eq!(all(dir.path()), ["torn in the", "next"]);
    assert_eq!(texts(&follower.read_new().unwrap()), ["torn in the", "next"]);
}

#[test]
fn few_files_are_open_for_many_replicas() {
    let open = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap_or_default())
    };
    let dir = tempfile::tempdir().unwrap();
    let settings = logging(1 << 20, 5, true);
    let mut files = LogFiles::open(dir.path()).unwrap();
    for round in 0..2 {
        for number in 0..200 {
            let name = format!("s{number}");
            files.write(&id(&name), &settings, &line(round, &format!("{round}"))).unwrap();
        }
    }
    assert_eq!(open().filter(|path| path.starts_with(dir.path())).count(), 64);
    for number in 0..200 {
        let found = read(dir.path(), &format!("s{number}"), Range::default());
        assert_eq!(texts(&found), ["0", "1"]);
    }
}

/// A folder with `zero` in an older file that a job is to compress, and `one` in the current one.
fn with_job(dir: &Path) -> (LogFiles, CompressJob) {
    let mut files = LogFiles::open(dir).unwrap();
    files.write(&id("web"), &logging(1, 3, true), &line(0, "zero")).unwrap();
    let job = files.write(&id("web"), &logging(1, 3, true), &line(1, "one")).unwrap().unwrap();
    (files, job)
}

#[test]
fn a_compressed_file_takes_the_place_of_the_one_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, job) = with_job(dir.path());
    assert_eq!(job.id(), &id("web"));
    let done = job.run();
    // Meanwhile it was renamed, and another one wants to be compressed.
    assert!(files.write(&id("web"), &logging(1, 3, true), &line(2, "two")).unwrap().is_none());
    let next = files.finish(done).unwrap().unwrap();
    assert_eq!(names(dir.path()), ["web.1.log", "web.1.log.1", "web.1.log.2.gz"]);
    assert_eq!(all(dir.path()), ["zero", "one", "two"]);
    assert!(files.finish(next.run()).unwrap().is_none());
    assert_eq!(names(dir.path()), ["web.1.log", "web.1.log.1.gz", "web.1.log.2.gz"]);
    assert_eq!(all(dir.path()), ["zero", "one", "two"]);
}

#[test]
fn a_file_that_was_dropped_while_it_was_compressed_stays_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, job) = with_job(dir.path());
    let done = job.run();
    files.write(&id("web"), &logging(1, 1, true), &line(2, "two")).unwrap();
    assert!(files.finish(done).unwrap().is_some(), "the one that took its number is next");
    assert_eq!(names(dir.path()), ["web.1.log", "web.1.log.1"]);
    assert_eq!(all(dir.path()), ["one", "two"]);
}

#[test]
fn a_job_that_fails_leaves_the_file_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, job) = with_job(dir.path());
    fs::create_dir(dir.path().join("web.1.log.gz.tmp")).unwrap();
    let error = files.finish(job.run()).unwrap_err();
    assert!(error.to_string().starts_with("compress an older file of the log"), "{error}");
    assert_eq!(all(dir.path()), ["zero", "one"]);
    fs::remove_dir(dir.path().join("web.1.log.gz.tmp")).unwrap();
    let mut job = files.write(&id("web"), &logging(1, 3, true), &line(2, "two")).unwrap();
    while let Some(next) = job {
        job = files.finish(next.run()).unwrap();
    }
    assert_eq!(names(dir.path()), ["web.1.log", "web.1.log.1.gz", "web.1.log.2.gz"]);
    assert_eq!(all(dir.path()), ["zero", "one", "two"]);
}

#[test]
fn a_crash_at_any_step_of_compressing_leaves_each_line_once() {
    for renamed in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let (files, job) = with_job(dir.path());
        let _done = job.run();
        drop(files);
        let path = |name: &str| dir.path().join(name);
        if renamed > 0 {
            fs::rename(path("web.1.log.gz.tmp"), path("web.1.log.1")).unwrap();
        }
        if renamed > 1 {
            fs::rename(path("web.1.log.1"), path("web.1.log.1.gz")).unwrap();
        }
        assert_eq!(all(dir.path()), ["zero", "one"], "after {renamed} renames");
        let mut files = LogFiles::open(dir.path()).unwrap();
        let older = if renamed > 0 { "web.1.log.1.gz" } else { "web.1.log.1" };
        assert_eq!(names(dir.path()), ["web.1.log", older], "after {renamed} renames");
        let job = files.write(&id("web"), &logging(1, 3, true), &line(2, "two")).unwrap();
        let _next = files.finish(job.unwrap().run()).unwrap();
        assert_eq!(all(dir.path()), ["zero", "one", "two"], "after {renamed} renames");
    }
}

#[test]
fn the_last_lines_and_those_since_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = LogFiles::open(dir.path()).unwrap();
    let settings = logging(3 * line(0, "0").len() as u64, 9, true);
    let mut job = None;
    for number in 0..8 {
        let text = number.to_string();
        job = job.or(files.write(&id("web"), &settings, &line(number, &text)).unwrap());
    }
    // 0 1 2 are compressed, 3 4 5 are not, 6 7 are in the current file.
    let _next = files.finish(job.unwrap().run()).unwrap();
    assert!(names(dir.path()).contains(&"web.1.log.2.gz".to_owned()));
    for last in 0..10 {
        let found = texts(&read(dir.path(), "web", Range { last: Some(last), ..Range::default() }));
        let expected: Vec<_> = (8_usize.saturating_sub(last)..8).map(|n| n.to_string()).collect();
        assert_eq!(found, expected, "the last {last}");
    }
    for since in 0..9_u8 {
        let range = Range { last: Some(5), since: Some(at(u64::from(since))), ..Range::default() };
        let expected: Vec<_> = (since.max(3)..8).map(|n| n.to_string()).collect();
        assert_eq!(texts(&read(dir.path(), "web", range)), expected, "since {since}");
    }
    let torn = [fs::read(dir.path().join("web.1.log")).unwrap(), b"2026-".to_vec()].concat();
    fs::write(dir.path().join("web.1.log"), torn).unwrap();
    assert_eq!(texts(&read(dir.path(), "web", Range { last: Some(1), ..Range::default() })), ["7"]);
}

#[test]
fn the_last_line_is_whole_though_it_was_cut_into_pieces_and_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = LogFiles::open(dir.path()).unwrap();
    let long = "y".repeat(3 * PIECE);
    let bytes = [line(0, "before"), line(1, &long)].concat();
    files.write(&id("web"), &logging(100_000, 9, false), &bytes).unwrap();
    assert!(names(dir.path()).len() > 2);
    let found = read(dir.path(), "web", Range { last: Some(1), ..Range::default() });
    assert_eq!(texts(&found).concat(), long);
}

#[test]
fn a_damaged_compressed_file_costs_its_own_lines_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, job) = with_job(dir.path());
    let _next = files.finish(job.run()).unwrap();
    let path = dir.path().join("web.1.log.1.gz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let lines = LogReader::open(dir.path(), &id("web")).unwrap().lines(Range::default()).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = lines.partition(Result::is_ok);
    let good: Vec<_> = good.into_iter().map(Result::unwrap).collect();
    assert_eq!((texts(&good), bad.len()), (vec!["one".to_owned()], 1));
}

#[test]
fn replicas_are_merged_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = LogFiles::open(dir.path()).unwrap();
    let settings = logging(1 << 20, 5, false);
    for (name, times) in [("a", [1, 4, 5]), ("b", [2, 3, 5])] {
        for time in times {
            files.write(&id(name), &settings, &line(time, &format!("{name}{time}"))).unwrap();
        }
    }
    let lines = |name| {
        let reader = LogReader::open(dir.path(), &id(name)).unwrap();
        (id(name), reader.lines(Range::default()).unwrap())
    };
    let merged: Vec<_> =
        Merged::new(vec![lines("a"), lines("b"), lines("none")]).map(Result::unwrap).collect();
    for (id, line) in &merged {
        assert_eq!(line.text[0], id.service.as_str().as_bytes()[0]);
    }
    let lines: Vec<_> = merged.into_iter().map(|(_, line)| line).collect();
    assert_eq!(texts(&lines), ["a1", "b2", "b3", "a4", "a5", "b5"]);
}

#[test]
fn a_follower_beside_a_writer_sees_each_line_once() {
    const LINES: u32 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let settings = logging(64 << 10, 10_000, true);
    let over = AtomicBool::new(false);
    let mut follower = LogReader::open(dir.path(), &id("web")).unwrap().follower().unwrap();
    let mut seen: Vec<u32> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut files = LogFiles::open(dir.path()).unwrap();
            for batch in 0..LINES / 20 {
                let lines = (batch * 20..(batch + 1) * 20)
                    .flat_map(|number| line(u64::from(batch), &number.to_string()));
                let job = files.write(&id("web"), &settings, &lines.collect::<Vec<_>>()).unwrap();
                if let Some(job) = job {
                    let _next = files.finish(job.run()).unwrap();
                }
            }
            over.store(true, Ordering::Release);
        });
        loop {
            // Asked before reading, so that the last look comes after the last write.
            let last = over.load(Ordering::Acquire);
            let lines = follower.read_new().unwrap();
            if last && lines.is_empty() {
                break;
            }
            seen.extend(texts(&lines).iter().map(|text| text.parse::<u32>().unwrap()));
        }
    });
    assert!(names(dir.path()).len() > 20);
    assert_eq!(follower.unreadable(), 0);
    let gap = seen.iter().zip(0..).find(|(seen, expected)| *seen != expected);
    assert_eq!((seen.len(), gap), (LINES as usize, None));
}

/// What a program writes: a stream and some bytes with line feeds here and there.
fn chunks() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let text = prop_oneof![
        8 => prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..200),
        1 => (PIECE - 3..PIECE + 3).prop_map(|length| vec![b'z'; length]),
        1 => (0..3 * PIECE).prop_map(|length| vec![b'l'; length]),
    ];
    prop::collection::vec((any::<bool>(), text), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Whatever is written, however it is cut, rotated, compressed and interrupted by restarts of
    /// the manager: reading back and following both give each stream's bytes exactly.
    #[test]
    fn every_byte_comes_back(
        chunks in chunks(),
        max_size in 1_u64..100_000,
        events in prop::collection::vec(0_u8..8, 40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(dir.path()).unwrap();
        let mut formatter = LineFormatter::default();
        let mut follower = LogReader::open(dir.path(), &id("web")).unwrap().follower().unwrap();
        let (mut followed, mut wrote) = (Vec::new(), BTreeMap::<Source, Vec<u8>>::new());
        let (mut job, mut done) = (None, None);
        for (number, ((is_err, bytes), event)) in chunks.into_iter().zip(events).enumerate() {
            let stream = if is_err { Stream::Stderr } else { Stream::Stdout };
            wrote.entry(Source::Program(stream)).or_default().extend_from_slice(&bytes);
            let mut out = Vec::new();
            let count = formatter.push(stream, at(number as u64), &bytes, &mut out);
            prop_assert_eq!(count, memchr::memchr_iter(b'\n', &out).count());
            match event {
                // An orderly restart: what is held back is written.
                4 => formatter.finish(&mut out),
                6 | 7 => formatter.settle(&mut out),
                _ => {}
            }
            // No file is ever dropped: what is dropped cannot come back.
            job = job.or(files.write(&id("web"), &logging(max_size, 10_000, true), &out).unwrap());
            match event {
                0 | 1 => {
                    let lines = follower.read_new().unwrap();
                    followed.extend(lines);
                }
                2 => done = done.or(job.take().map(CompressJob::run)),
                3 => if let Some(done) = done.take() {
                    job = files.finish(done).unwrap();
                }
                4 => {
                    (job, done) = (None, None);
                    files = LogFiles::open(dir.path()).unwrap();
                }
                5 => files.close(&id("web")),
                _ => {}
            }
        }
        let mut out = Vec::new();
        formatter.finish(&mut out);
        let _job = files.write(&id("web"), &logging(max_size, 10_000, true), &out).unwrap();
        wrote.retain(|_, bytes| !bytes.is_empty());
        let lines = read(dir.path(), "web", Range::default());
        prop_assert!(lines.iter().all(|line| line.text.len() <= PIECE));
        prop_assert!(joined(&lines) == wrote, "read back");
        loop {
            let more = follower.read_new().unwrap();
            if more.is_empty() {
                break;
            }
            followed.extend(more);
        }
        prop_assert_eq!(followed.len(), lines.len());
        prop_assert!(followed == lines, "followed");
        for last in [1, 2, 7] {
            let tail = read(dir.path(), "web", Range { last: Some(last), ..Range::default() });
            prop_assert!(lines.ends_with(&tail), "the last {}", last);
            let whole = |lines: &[Line]| lines.iter().filter(|line| !line.partial).count();
            prop_assert_eq!(whole(&tail), whole(&lines).min(last));
        }
    }
}
