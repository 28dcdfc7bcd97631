//! Rotation under a flood: no line is lost or doubled while somebody follows and somebody removes files, and
//! the disk is bounded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Instant;

use crate::support::{Wharf, soaking, text, until};

/// Writes so many numbered lines of 100 bytes as fast as they are taken.
const FLOOD: &str = "
import os, sys
count, lines = int(sys.argv[1]), []
for number in range(1, count + 1):
    lines.append(b'%012d %086d\\n' % (number, number))
    if len(lines) == 600 or number == count:
        whole = b''.join(lines)
        lines.clear()
        while whole:
            whole = whole[os.write(1, whole):]
";

/// The bytes of all the files of a service's log.
fn on_disk(wharf: &Wharf, service: &str) -> u64 {
    let files = std::fs::read_dir(wharf.state().join("log")).unwrap().flatten();
    let ours = files.filter(|file| file.file_name().to_string_lossy().starts_with(service));
    ours.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The number at the beginning of a line of the flood.
fn number(line: &str) -> u32 {
    assert_eq!(line.len(), 99, "a torn line: {line:?}");
    line[..12].parse().unwrap()
}

/// Follows a service and gives the numbers of its lines, up to the last.
struct Follower {
    child: Child,
    words: ChildStderr,
    reading: std::thread::JoinHandle<Vec<u32>>,
}

impl Follower {
    fn start(wharf: &Wharf, service: &str, last: u32) -> Self {
        let mut command = wharf.command(&["-v", "logs", "-f", service, "-n", "0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut word, mut words) = ([0; 10], child.stderr.take().unwrap());
        words.read_exact(&mut word).unwrap();
        assert_eq!(text(&word), "following\n");
        let reader = BufReader::new(child.stdout.take().unwrap());
        let reading = std::thread::spawn(move || {
            let mut told = Vec::new();
            for line in reader.lines() {
                told.push(number(&line.unwrap()));
                if told.last() == Some(&last) {
                    break;
                }
            }
            told
        });
        Self { child, words, reading }
    }

    /// What it told, and what it said of that.
    fn finish(mut self) -> (Vec<u32>, String) {
        let told = self.reading.join().unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut said = String::new();
        self.words.read_to_string(&mut said).unwrap();
        (told, said)
    }
}

/// Somebody takes away the file that is being written, whichever that is, and removes it. What stood and
/// will stand in it can be read by whoever has it open.
fn remove_current(wharf: &Wharf) -> File {
    let log = wharf.state().join("log");
    std::fs::rename(log.join("followed.1.log"), log.join("taken")).unwrap();
    let file = File::open(log.join("taken")).unwrap();
    std::fs::remove_file(log.join("taken")).unwrap();
    file
}

#[test]
fn t45_a_flood_is_rotated_without_loss_while_it_is_followed_and_a_file_is_removed() {
    // 100 bytes a line: 40 MB of each of two, in a soak 200 MB.
    let lines: u32 = if soaking() { 2_000_000 } else { 400_000 };
    let wharf = Wharf::new(&format!(
        "defaults: {{ restart: no, command: [python3, flood.py, '{lines}'] }}
services:
  anchor: {{ command: [sleep, '1000'] }}
  followed: {{ logging: {{ max_size: 4MiB, max_files: 1000, when_full: block, compress: false }} }}
  bounded: {{ logging: {{ max_size: 1MiB, max_files: 3, when_full: block, compress: false }} }}
"
    ));
    std::fs::write(wharf.folder.join("flood.py"), FLOOD).unwrap();
    std::fs::create_dir_all(wharf.state().join("log")).unwrap();
    // There is something to follow before the first line.
    std::fs::write(wharf.state().join("log/followed.1.log"), "").unwrap();
    wharf.ok(&["up", "-d", "anchor"]);
    let follower = Follower::start(&wharf, "followed", lines);
    let began = Instant::now();
    wharf.ok(&["start", "followed", "bounded"]);
    // The bound is that of the files: between rotations one of them is being renamed.
    let bound = (3 + 1) << 20;
    let (mut most, mut removed) = (0, None);
    until_finished(&wharf, &mut || {
        most = most.max(on_disk(&wharf, "bounded"));
        let is_time = removed.is_none() && wharf.state().join("log/followed.1.log.2").exists();
        if is_time && wharf.state().join("log/followed.1.log").exists() {
            removed = Some(remove_current(&wharf));
        }
    });
    let rate = 200.0 * f64::from(lines) / 1e6 / began.elapsed().as_secs_f64();
    println!("{lines} lines of each of two programs, {rate:.0} MB/s, at most {most} bytes on disk");
    assert!(most > 3 << 20 && most <= bound, "{most} bytes on disk, {bound} allowed");
    assert_eq!(wharf.manager()["output_dropped_bytes"], 0);

    // Every line is in one file, those of the removed one among them.
    let kept = |service: &str| {
        until("its last line", || {
            let kept = wharf.logs(service);
            let last = kept.lines().last().map(number);
            (last == Some(lines)).then(|| kept.lines().map(number).collect::<Vec<u32>>())
        })
    };
    let mut gone = String::new();
    removed.expect("nothing was removed").read_to_string(&mut gone).unwrap();
    let said = |line: &str| number(line.splitn(4, ' ').nth(3).unwrap());
    let gone: Vec<u32> = gone.lines().map(said).collect();
    assert!(!gone.is_empty());
    let mut all = [kept("followed"), gone.clone()].concat();
    all.sort_unstable();
    assert!(all.iter().copied().eq(1..=lines), "a line is lost or doubled");

    // Who follows is told each once and in order; what it can have missed was in the removed file.
    let (told, words) = follower.finish();
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "a line is doubled or out of order");
    let told: BTreeSet<u32> = told.into_iter().collect();
    let gone: BTreeSet<u32> = gone.into_iter().collect();
    let missed: Vec<u32> =
        (1..=lines).filter(|line| !told.contains(line) && !gone.contains(line)).collect();
    assert!(missed.is_empty(), "{} lines were not followed: {words}", missed.len());

    // What is kept where little may be are the last lines, each once.
    let kept = kept("bounded");
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is lost or doubled");
}

/// Until both floods are over, which may take longer than a single wait.
fn until_finished(wharf: &Wharf, look: &mut impl FnMut()) {
    let over = |name: &str| wharf.row(name)["state"] == "finished";
    let rounds = if soaking() { 10 } else { 2 };
    for round in 0..rounds {
        let began = Instant::now();
        let finished = until("both to finish, or a while", || {
            look();
            let finished = over("followed") && over("bounded");
            let enough = began.elapsed() > crate::support::LIMIT / 2;
            (finished || enough).then_some(finished)
        });
        if finished {
            return;
        }
        assert!(round + 1 < rounds, "the floods do not end");
    }
}
