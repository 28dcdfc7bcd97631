//! The journal on a real file system: every way in which its end can be torn, every moment at which
//! a rotation can be cut short, a full disk, and followers of all that.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::exit::ExitRecord;
use crate::name::Incarnation;
use crate::time::Wall;

fn record(incarnation: u64) -> ExitRecord {
    let name = ["web", "db", "worker"][usize::try_from(incarnation % 3).unwrap()];
    let reason = if incarnation.is_multiple_of(2) { "completed" } else { "failed" };
    let json = serde_json::json!({
        "ts": Wall(1_795_332_688_000_000_000 + incarnation).to_string(),
        "seq": 0, "schema": 1, "level": "info", "event": {"name": "process.exit"},
        "msg": "it \"ended\"", "host": {"name": "h", "boot_id": "b"}, "manager": {"generation": 1},
        "service": {"name": name, "replica": 1 + incarnation % 2, "incarnation": incarnation},
        "process": {"pid": 7, "exit": {"code": 0}},
        "exit": {"how": "exited", "reason": reason, "cause": "spontaneous", "evidence": [],
                 "certainty": "certain"},
        "stderr_tail": "x \"incarnation\":4711 \n\u{1F6A2}", "restart": {"decision": "no"},
    });
    serde_json::from_value(json).unwrap()
}

fn open(dir: &Path) -> (Journal, Opened) {
    Journal::open(dir).unwrap()
}

fn append(journal: &mut Journal, incarnations: impl IntoIterator<Item = u64>) {
    let mut records: Vec<_> = incarnations.into_iter().map(record).collect();
    journal.append(&mut records).unwrap();
}

fn entries(dir: &Path, filter: Filter) -> Vec<Entry> {
    Reader::open(dir).unwrap().entries(filter).unwrap().map(Result::unwrap).collect()
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.record.seq).collect()
}

fn all(dir: &Path) -> Vec<u64> {
    seqs(&entries(dir, Filter::default()))
}

#[test]
fn records_are_numbered_without_gaps_and_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, opened) = open(&dir.path().join("made/too"));
    assert_eq!(opened, Opened { last_seq: 0, repaired: None, last_incarnation_seen: None });
    append(&mut journal, [5, 9]);
    append(&mut journal, [7]);
    let (mut journal, opened) = open(&dir.path().join("made/too"));
    let last_incarnation_seen = Some(Incarnation(9));
    assert_eq!(opened, Opened { last_seq: 3, repaired: None, last_incarnation_seen });
    append(&mut journal, [10]);
    let entries = entries(&dir.path().join("made/too"), Filter::default());
    assert_eq!(seqs(&entries), [1, 2, 3, 4]);
    for entry in entries {
        assert_eq!(serde_json::from_slice::<ExitRecord>(&entry.line).unwrap(), entry.record);
        let expected =
            ExitRecord { seq: entry.record.seq, ..record(entry.record.service.incarnation.0) };
        assert_eq!(entry.record, expected);
    }
}

#[test]
fn a_last_record_cut_at_any_byte_is_set_aside_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [1, 2]);
    let kept = fs::metadata(dir.path().join(NAME)).unwrap().len();
    append(&mut journal, [3]);
    let whole = fs::read(dir.path().join(NAME)).unwrap();
    let kept = usize::try_from(kept).unwrap();
    for cut in kept..=whole.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), &whole[..cut]).unwrap();
        let (mut journal, opened) = open(dir.path());
        // A record that lacks only its LF is complete.
        let complete = cut + 1 >= whole.len();
        let torn = if complete { &[][..] } else { &whole[kept..cut] };
        assert_eq!(opened.last_seq, if complete { 3 } else { 2 }, "cut at {cut}");
        assert_eq!(opened.repaired, (!torn.is_empty()).then_some(torn.len() as u64), "at {cut}");
        let aside = fs::read(dir.path().join("exits.torn")).unwrap_or_default();
        assert_eq!(aside.strip_suffix(b"\n").unwrap_or_default(), torn, "cut at {cut}");
        append(&mut journal, [4]);
        let expected: &[u64] = if complete { &[1, 2, 3, 4] } else { &[1, 2, 3] };
        assert_eq!(all(dir.path()), expected, "cut at {cut}");
        let (_, again) = open(dir.path());
        assert_eq!(again.repaired, None, "cut at {cut}");
    }
}

#[test]
fn rubbish_at_the_end_is_set_aside_and_rubbish_elsewhere_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [1, 2]);
    let good = fs::read(dir.path().join(NAME)).unwrap();
    let rubbish = [&b"{\"seq\":99\n"[..], b"\n", b"plain text\n", &[0; 4096]].concat();
    fs::write(dir.path().join(NAME), [&b"not a record\n"[..], &good, &rubbish].concat()).unwrap();
    let (mut journal, opened) = open(dir.path());
    assert_eq!((opened.last_seq, opened.repaired), (2, Some(rubbish.len() as u64)));
    append(&mut journal, [3]);
    let mut entries = Reader::open(dir.path()).unwrap().entries(Filter::default()).unwrap();
    let found: Vec<_> = entries.by_ref().map(Result::unwrap).collect();
    assert_eq!((seqs(&found), entries.unreadable()), (vec![1, 2, 3], 1));
}

/// A journal whose files hold one record each: `exits.jsonl` the last, `.10` the first.
fn ten_files(dir: &Path) -> Journal {
    let (mut journal, _) = open(dir);
    journal.max_size_for_test(1);
    for incarnation in 1..=11 {
        append(&mut journal, [incarnation]);
    }
    journal
}

#[test]
fn old_files_go_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = ten_files(dir.path());
    assert_eq!(all(dir.path()), (1..=11).collect::<Vec<_>>());
    append(&mut journal, [12, 13]);
    assert_eq!(all(dir.path()), (2..=13).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 11);
    assert!(journal.trouble().is_none());
}

#[test]
fn a_rotation_killed_at_any_step_loses_and_repeats_nothing() {
    // A rotation is: remove .10, then .9 to .10 … .1 to .2, then the current one to .1.
    for steps in 0..=11 {
        let dir = tempfile::tempdir().unwrap();
        drop(ten_files(dir.path()));
        let files = family(dir.path());
        let name = |number| match number {
            0 => files.current(),
            _ => files.older(number, crate::rotation::Form::Plain),
        };
        if steps > 0 {
            fs::remove_file(name(10)).unwrap();
        }
        for step in 1..steps {
            fs::rename(name(10 - step), name(11 - step)).unwrap();
        }
        let first = if steps == 0 { 1 } else { 2 };
        assert_eq!(all(dir.path()), (first..=11).collect::<Vec<_>>(), "killed after {steps}");
        let (mut journal, opened) = open(dir.path());
        assert_eq!((opened.last_seq, opened.repaired), (11, None), "killed after {steps}");
        journal.max_size_for_test(1);
        append(&mut journal, [12]);
        let found = all(dir.path());
        assert_eq!(found, (2..=12).collect::<Vec<_>>(), "killed after {steps}");
    }
}

#[test]
fn a_full_disk_uses_up_no_number() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join(NAME)).unwrap();
    let (mut journal, opened) = open(dir.path());
    assert_eq!(opened.last_seq, 0);
    let mut records = vec![record(1), record(2)];
    for _ in 0..2 {
        let error = journal.append(&mut records).unwrap_err();
        assert!(
            matches!(&error, JournalError::Append { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull),
            "{error:?}"
        );
        assert_eq!((journal.last_seq(), records[0].seq, records[1].seq), (0, 0, 0));
    }
    fs::remove_file(dir.path().join(NAME)).unwrap();
    journal.append(&mut records).unwrap();
    assert_eq!((journal.last_seq(), all(dir.path())), (2, vec![1, 2]));
}

#[test]
fn what_a_failed_batch_left_is_cut_off_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [1]);
    journal.tear_for_test(b"{\"ts\":\"half a rec");
    append(&mut journal, [2]);
    assert_eq!(all(dir.path()), [1, 2]);
    assert_eq!(open(dir.path()).1.repaired, None);
}

#[test]
fn a_removed_journal_is_begun_anew_with_the_next_number() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [1]);
    let mut follower = Reader::open(dir.path()).unwrap().follower(Filter::default()).unwrap();
    append(&mut journal, [2]);
    fs::remove_file(dir.path().join(NAME)).unwrap();
    append(&mut journal, [3]);
    assert_eq!(all(dir.path()), [3]);
    assert_eq!(seqs(&follower.read_new().unwrap()), [2, 3]);
}

#[test]
fn recorded_incarnations_are_found_over_files() {
    let dir = tempfile::tempdir().unwrap();
    let journal = ten_files(dir.path());
    let set = |numbers: &[u64]| numbers.iter().copied().map(Incarnation).collect::<HashSet<_>>();
    assert_eq!(journal.recorded(&set(&[1, 11, 12, 4711])).unwrap(), set(&[1, 11]));
    assert_eq!(journal.recorded(&set(&[])).unwrap(), set(&[]));
}

#[test]
fn filters_choose() {
    let dir = tempfile::tempdir().unwrap();
    drop(ten_files(dir.path()));
    let targets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let none = Filter::default;
    for (filter, expected) in [
        (Filter { targets: targets(&["web"]), ..none() }, &[3, 6, 9][..]),
        (Filter { targets: targets(&["web/1", "db"]), ..none() }, &[1, 4, 6, 7, 10]),
        (Filter { targets: targets(&["we"]), ..none() }, &[]),
        (Filter { reason: Some("completed".parse().unwrap()), ..none() }, &[2, 4, 6, 8, 10]),
        (Filter { since: Some(record(9).ts), ..none() }, &[9, 10, 11]),
        (Filter { until: Some(record(2).ts), ..none() }, &[1, 2]),
        (Filter { until: Some(record(9).ts), last: Some(2), ..none() }, &[8, 9]),
        (Filter { cause: Some("spontaneous".parse().unwrap()), last: Some(1), ..none() }, &[11]),
        (Filter { cause: Some("stop_requested".parse().unwrap()), ..none() }, &[]),
        (Filter { since_seq: Some(9), ..none() }, &[10, 11]),
        (Filter { since_seq: Some(11), ..none() }, &[]),
        (Filter { since_seq: Some(u64::MAX), ..none() }, &[]),
        (Filter { last: Some(2), ..none() }, &[10, 11]),
        (Filter { last: Some(0), ..none() }, &[]),
        (Filter { last: Some(2), targets: targets(&["web"]), ..none() }, &[6, 9]),
        (Filter { last: Some(99), since_seq: Some(9), ..none() }, &[10, 11]),
    ] {
        assert_eq!(seqs(&entries(dir.path(), filter.clone())), expected, "{filter:?}");
    }
}

#[test]
fn a_follower_of_nothing_sees_the_first_record_and_a_new_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut follower = Reader::open(dir.path()).unwrap().follower(Filter::default()).unwrap();
    assert_eq!(follower.read_new().unwrap(), []);
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [1, 2]);
    assert_eq!(seqs(&follower.read_new().unwrap()), [1, 2]);
    fs::remove_file(dir.path().join(NAME)).unwrap();
    let (mut journal, _) = open(dir.path());
    append(&mut journal, [3]);
    assert_eq!(seqs(&follower.read_new().unwrap()), [1], "the numbers of a new journal begin at 1");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Batches of any size, rotations anywhere, a manager that is restarted with or without a torn
    /// line: a follower that looks now and then and a reader at the end see each record once.
    #[test]
    fn followers_see_each_record_once(
        steps in prop::collection::vec((1_u64..6, any::<bool>(), 0_u8..8), 1..30),
        max_size in 1_u64..6000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        let mut follower = Reader::open(dir.path()).unwrap().follower(Filter::default()).unwrap();
        let mut seen = Vec::new();
        let mut behind = 0;
        let mut next = 1;
        for (count, look, event) in steps {
            journal.max_size_for_test(max_size);
            append(&mut journal, next..next + count);
            next += count;
            behind += 1;
            if event == 0 {
                journal.tear_for_test(b"{\"ts\":\"torn");
                journal = open(dir.path()).0;
            }
            // Ten older files are kept: who looks seldom enough loses what is gone.
            if look || behind == 10 {
                seen.extend(seqs(&follower.read_new().unwrap()));
                behind = 0;
            }
        }
        seen.extend(seqs(&follower.read_new().unwrap()));
        prop_assert_eq!(seen, (1..next).collect::<Vec<_>>());
        let left = all(dir.path());
        prop_assert_eq!(&left, &(left[0]..next).collect::<Vec<_>>());
    }
}
