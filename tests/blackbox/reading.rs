//! What programs wrote, looked up: prompts of living programs, every byte, and following through
//! whatever happens to the files and the manager.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::support::{LIMIT, Wharf, send, soaking, text, times, until};

/// A `logs -f` that is read to its end, line by line.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(wharf: &Wharf, words: &[&str]) -> Self {
        let mut command = wharf.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let reader = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in reader.lines() {
                if tell.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_prompt_is_seen_while_its_program_waits() {
    let wharf = Wharf::up(
        "services:
  p: { command: [sh, -c, 'echo hello; printf \"login: \"; exec sleep 1000'] }
",
    );
    until("the prompt", || (wharf.logs("p") == "hello\nlogin: \n").then_some(()));
    let log = std::fs::read_to_string(wharf.state().join("log/p.1.log")).unwrap();
    assert!(log.ends_with(" stdout P login: \n"), "{log}");
    assert_eq!(wharf.ok(&["logs", "p", "-n", "1"]), "login: \n");
    assert_eq!(wharf.ok(&["logs", "p", "--raw"]), "hello\nlogin: ");
    // The next run does not go on with it, whether this one is stopped or dies with the manager.
    wharf.ok(&["restart", "p"]);
    until("the next", || (wharf.logs("p") == "hello\nlogin: \nhello\nlogin: \n").then_some(()));
    send(wharf.manager_pid(), 9);
    let all = "hello\nlogin: \n".repeat(3);
    until("the one after", || (text(&wharf.run(&["logs", "p"]).stdout) == all).then_some(()));
    assert_eq!(wharf.ok(&["logs", "p", "--raw"]), "hello\nlogin: ".repeat(3));
}

#[test]
fn every_byte_is_given_back() {
    let wharf = Wharf::new("");
    let program = "import os\n\
        every = bytes(range(256))\n\
        for round in range(40):\n\
        \x20   os.write(1, every * 13 + b'\\n' * (round % 3))\n\
        \x20   os.write(2, every[::-1] + b'\\r\\n')\n\
        os.write(1, b'x' * 200000 + b'\\n\\n\\x00\\xff last words')\n";
    std::fs::write(wharf.folder.join("bytes.py"), program).unwrap();
    wharf.write(
        "services:
  bytes:
    command: [python3, bytes.py]
    restart: no
    logging: { max_size: 64KiB, max_files: 100 }
",
    );
    wharf.ok(&["up", "-d"]);
    wharf.wait_records("bytes", 1);
    let every: Vec<u8> = (0..=255).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for round in 0..40 {
        (0..13).for_each(|_| out.extend_from_slice(&every));
        out.extend(std::iter::repeat_n(b'\n', round % 3));
        err.extend(every.iter().rev());
        err.extend_from_slice(b"\r\n");
    }
    out.extend(std::iter::repeat_n(b'x', 200_000));
    out.extend_from_slice(b"\n\n\x00\xff last words");
    let raw = |stream: &str| wharf.run(&["logs", "bytes", "--raw", "--stream", stream]).stdout;
    assert!(raw("stdout") == out, "standard output");
    assert!(raw("stderr") == err, "standard error");
    let both = wharf.run(&["logs", "--raw"]).stdout;
    assert_eq!(both.len(), out.len() + err.len());
    assert!(std::fs::read_dir(wharf.state().join("log")).unwrap().count() > 4, "it was rotated");
}

#[test]
fn a_damaged_file_keeps_back_nothing_of_the_others() {
    let wharf = Wharf::new("");
    let log = wharf.state().join("log");
    std::fs::create_dir_all(&log).unwrap();
    let line = |second: u32, text: &str| {
        format!("2026-11-22T07:00:{second:02}.000000000Z stdout F {text}\n")
    };
    let packed = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let old: String = (10..30).map(|at| line(at, &format!("old {}", at * at * at))).collect();
    let half = packed(&old);
    std::fs::write(log.join("web.1.log.2.gz"), &half[..half.len() / 2]).unwrap();
    std::fs::write(log.join("web.1.log.1"), line(40, "newer") + "nonsense\n").unwrap();
    std::fs::write(log.join("web.1.log"), line(41, "newest")).unwrap();
    std::fs::write(log.join("db.1.log"), line(42, "another's")).unwrap();
    for (words, last) in [
        (&["logs", "web"][..], "newer\nnewest\n"),
        (&["logs"], "web/1 | newer\nweb/1 | newest\ndb/1 | another's\n"),
    ] {
        let output = wharf.run(words);
        let (said, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(said.ends_with(last), "{said}");
        assert!(told.contains("web.1.log.2.gz: "), "{told}");
        assert!(told.contains("\n1 lines of the logs cannot be read\n"), "{told}");
    }
}

#[test]
fn a_flood_is_followed_over_rotation_without_loss_or_doubling() {
    let lines = times(400_000);
    // Two runs in all, and nothing is ever dropped.
    let size = if soaking() { 256 } else { 16 };
    let wharf = Wharf::up(&format!(
        "services:
  anchor: {{ command: [sleep, '1000'] }}
  flood:
    command: [sh, -c, 'seq {lines}; seq {lines} >&2']
    restart: no
    logging: {{ max_size: {size}KiB, max_files: 1000, when_full: block }}
"
    ));
    wharf.wait_state("flood", "finished");
    // A record never stands behind a flood, so the end of a program is known before its last words are
    // on disk.
    until("all of it", || {
        let last = wharf.ok(&["logs", "flood", "-n", "1", "--stream", "stderr"]);
        (last == format!("{lines}\n")).then_some(())
    });
    // Following begins with what comes after the first look, so that is waited for.
    let follow = |stream: &'static str| {
        let words = ["-v", "logs", "-f", "flood", "-n", "0", "--stream", stream];
        let mut command = wharf.command(&words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut word, mut words) = ([0; 10], child.stderr.take().unwrap());
        words.read_exact(&mut word).unwrap();
        assert_eq!(text(&word), "following\n");
        (BufReader::new(child.stdout.take().unwrap()), words, child)
    };
    let (mut out, words, first) = follow("stdout");
    let (mut err, other_words, second) = follow("stderr");
    wharf.ok(&["start", "flood"]);
    let numbers = |reader: &mut dyn BufRead| {
        for number in 1..=lines {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, format!("{number}\n"));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| numbers(&mut out));
        numbers(&mut err);
    });
    for (mut words, mut child) in [(words, first), (other_words, second)] {
        child.kill().unwrap();
        child.wait().unwrap();
        let mut said = String::new();
        words.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "nothing is missing");
    }
}

#[test]
fn following_goes_on_over_the_managers_death_and_over_down_and_up() {
    let wharf = Wharf::up("services:\n  s: { command: [sh, -c, 'echo run; exec sleep 1000'] }\n");
    let following = Following::start(&wharf, &["logs", "-f"]);
    let exits = Following::start(&wharf, &["exits", "-f", "s", "--json"]);
    assert_eq!(following.next(), "s/1 | run");
    wharf.wait_state("s", "running");
    send(wharf.manager_pid(), 9);
    assert_eq!(following.next(), "s/1 | run");
    assert!(exits.next().contains("\"manager_died\""));
    wharf.wait_state("s", "running");
    wharf.ok(&["down"]);
    assert!(exits.next().contains("\"manager_shutdown\""));
    wharf.ok(&["up", "-d"]);
    assert_eq!(following.next(), "s/1 | run");
    wharf.wait_state("s", "running");
    wharf.ok(&["stop", "s"]);
    assert!(exits.next().contains("\"stop_requested\""));
    assert!(following.lines.try_recv().is_err(), "nothing came twice");
}

#[test]
fn lines_have_a_stream_and_a_time() {
    let wharf = Wharf::up(
        "services:
  s: { command: [sh, -c, 'echo out; echo err >&2'], restart: no }
",
    );
    wharf.wait_records("s", 1);
    // The record comes first, the output may be a moment behind.
    until("both lines", || (wharf.logs("s").lines().count() == 2).then_some(()));
    let ok = |words: &str| wharf.ok(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(ok("logs s --stream stderr"), "err\n");
    assert_eq!(ok("logs s --stream stdout --until now"), "out\n");
    assert_eq!(ok("logs s --since today --until 1d"), "");
    let timed = ok("logs s -t --stream stderr");
    let at = timed.strip_suffix(" stderr err\n").unwrap();
    assert!(at.len() == "2026-11-22 07:31:28.576".len() && at.starts_with("20"), "{timed}");
    assert_eq!(ok("exits --cause stop_requested"), "");
    assert_eq!(ok("exits s/1 --cause spontaneous --reason completed").lines().count(), 1);
    assert_eq!(ok("exits --until yesterday"), "");
    assert!(wharf.fails(4, &["exits", "t"]).contains("there is no service t"));
    assert!(wharf.fails(2, &["logs", "--since", "noon"]).contains("a point in time is written"));
    assert!(wharf.fails(2, &["logs", "-f", "--until", "now"]).contains("--until"));
}

/// Readers that are frozen in the middle hold up no program: it goes on, and its output is kept.
#[test]
fn t30_frozen_readers_freeze_nobody() {
    let wharf = Wharf::up(
        "services:
  counts:
    command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo \"$i 0123456789012345678901234567890123456789\"; echo $i > at; done']
    port: { framing: lines, replies: none }
    logging: { max_size: 1MiB, max_files: 2 }
  floods: { command: ['yes'], logging: { max_size: 1MiB, max_files: 2 } }
",
    );
    wharf.wait_state("counts", "running");
    let readers = [&["logs", "-f", "floods"][..], &["events", "-f", "--json"], &["logs", "-f"]]
        .map(|words| Following::start(&wharf, words));
    // Each has begun before it is frozen.
    for reader in &readers {
        if wharf.row("floods")["state"] == "running" {
            let _ = reader.lines.recv_timeout(LIMIT);
        }
        send(i32::try_from(reader.child.id()).unwrap(), 19);
    }
    let at = || wharf.read("at").trim().parse::<u64>().ok();
    let log = || std::fs::metadata(wharf.state().join("log/floods.1.log")).map(|about| about.len());
    for _ in 0..5 {
        let (before, size) = (until("a number", at), log().ok());
        until("more numbers", || at().filter(|now| *now > before + 500));
        until("more output", || (log().ok() != size).then_some(()));
    }
    assert_eq!(wharf.row("counts")["state"], "running");
    for reader in &readers {
        send(i32::try_from(reader.child.id()).unwrap(), 18);
    }
}
