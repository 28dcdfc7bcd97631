//! A program of processes seen from outside: its first process ends, and so do all.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use wharf::process::{Address, ReplyTo};
use wharf::process::{
    Down, call, me, receive, receive_timeout, send, spawn, spawn_link, spawn_monitor,
};

use crate::{PATIENCE, play};

pub(crate) fn scenes() -> Vec<(&'static str, crate::Scene)> {
    vec![
        ("a_tree_that_waits", tree),
        ("a_first_process_that_panics", first_panics),
        ("a_first_process_that_returns", first_returns),
        ("a_first_process_that_is_linked", first_linked),
        ("an_executable_that_is_replaced", replaced),
        ("a_program_that_a_process_starts_is_no_process", stranger),
        ("a_process_looks_like_what_it_is", looks),
    ]
}

/// Whether a scene is none by itself: a test plays it and looks at it.
pub(crate) fn is_seen_from_outside(name: &str) -> bool {
    ["a_tree_that_waits", "an_executable_that_is_replaced"].contains(&name)
        || name.starts_with("a_first_process")
}

pub(crate) fn tests() -> Vec<Trial> {
    let tests: [(&str, fn()); 6] = [
        ("the_end_of_the_first_process_is_the_end_of_all", killed),
        ("ctrl_c_and_a_closed_terminal_end_all", signals),
        ("a_panic_of_the_first_process_ends_all", panicked),
        ("the_return_of_the_first_process_ends_all", returned),
        ("a_link_to_the_first_process_ends_the_program_with_a_word", linked),
        ("parent_and_child_are_the_same_build_whatever_becomes_of_the_file", built),
    ];
    let trial = |(name, run): (&'static str, fn())| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = tests.into_iter().map(trial).collect();
    trials.push(Trial::test("started_by_hand_a_process_says_what_it_is", || {
        let own = std::env::current_exe().unwrap();
        let mut command = std::process::Command::new("sh");
        let command = command.args(["-c", "exec \"$0\" wharf-native-process 7 3<&-"]).arg(own);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("cannot begin as a native process: open descriptor 3"), "{said}");
        Ok(())
    }));
    trials
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct WhoAreYou(ReplyTo<Vec<i32>>);

/// Tells its number and that of a child of its own.
fn branch(leaf: bool) -> Result<(), wharf::process::Error> {
    let mut pids = vec![wharf::os::prctl::pid()];
    if !leaf {
        let child = spawn(branch, true)?;
        pids.extend(call::<_, Vec<i32>>(&child, PATIENCE, WhoAreYou)?);
    }
    loop {
        let WhoAreYou(reply) = receive()?;
        reply.send(&pids)?;
    }
}

fn grow(branches: usize) {
    let mut out = std::io::stdout();
    for _ in 0..branches {
        let child = spawn(branch, false).unwrap();
        for pid in call::<_, Vec<i32>>(&child, PATIENCE, WhoAreYou).unwrap() {
            writeln!(out, "{pid}").unwrap();
        }
    }
    writeln!(out, "ready").unwrap();
    out.flush().unwrap();
}

fn tree() {
    grow(10);
    let _: () = receive().unwrap();
}

fn first_panics() {
    grow(2);
    panic!("it was too much");
}

fn first_returns() {
    grow(2);
}

fn first_linked() {
    grow(2);
    spawn_link(fail, ()).unwrap();
    let _: () = receive().unwrap();
}

fn fail(_: ()) -> Result<(), String> {
    Err("no more paper".to_owned())
}

/// Plays a scene that grows a tree; the numbers of its processes.
fn grown(scene: &str) -> (Child, Vec<i32>) {
    let mut child = play(scene).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let pids: Vec<i32> =
        lines.take_while(|line| line != "ready").map(|line| line.parse().unwrap()).collect();
    (child, pids)
}

/// How long it takes until none of them runs. Who buries them then is not ours to say.
fn until_gone(pids: &[i32], begin: Instant) -> Duration {
    let runs = |pid: &i32| wharf::os::procfs::stat(*pid).is_some_and(|one| !one.is_zombie());
    while pids.iter().any(runs) {
        assert!(begin.elapsed() < PATIENCE, "somebody is left");
        std::thread::yield_now();
    }
    begin.elapsed()
}

fn killed() {
    let mut best = Duration::MAX;
    for _ in 0..crate::times(60) {
        let (mut first, pids) = grown("a_tree_that_waits");
        assert_eq!(pids.len(), 20);
        let begin = Instant::now();
        first.kill().unwrap();
        best = best.min(until_gone(&pids, begin));
        first.wait().unwrap();
    }
    // The kernel does it; what else runs on this machine can only make it later.
    assert!(best < Duration::from_millis(100), "{best:?}");
}

fn signals() {
    for signal in [2, 1, 15] {
        let (mut first, pids) = grown("a_tree_that_waits");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(first.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
        until_gone(&pids, Instant::now());
        assert_eq!(first.wait().unwrap().signal(), Some(signal));
    }
}

fn panicked() {
    let (first, pids) = grown("a_first_process_that_panics");
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(101));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it was too much"));
    // Here the hub has buried them before the program ended.
    assert!(pids.iter().all(|pid| wharf::os::procfs::stat(*pid).is_none()));
}

fn returned() {
    let (mut first, pids) = grown("a_first_process_that_returns");
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert!(pids.iter().all(|pid| wharf::os::procfs::stat(*pid).is_none()));
}

fn linked() {
    let (first, pids) = grown("a_first_process_that_is_linked");
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("returned an error: no more paper"), "{said}");
    assert!(pids.iter().all(|pid| wharf::os::procfs::stat(*pid).is_none()));
}

fn built() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("program");
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    let mut command = std::process::Command::new(&copy);
    let output = command.args(["scene", "an_executable_that_is_replaced"]).output().unwrap();
    crate::good(&output);
}

fn replaced() {
    let own = std::env::current_exe().unwrap();
    std::fs::remove_file(&own).unwrap();
    std::fs::write(&own, "#!/bin/sh\nexit 9\n").unwrap();
    spawn_monitor(own_name, ()).unwrap();
    let down: Down = receive_timeout(PATIENCE).unwrap().unwrap();
    let name = down.exit.returned::<String>().unwrap().unwrap();
    assert!(name.ends_with(" (deleted)"), "{name}");
}

fn own_name(_: ()) -> Result<String, std::io::Error> {
    Ok(std::fs::read_link("/proc/self/exe")?.to_string_lossy().into_owned())
}

/// A native process starts this binary as a program: it begins from its beginning.
fn stranger() {
    spawn_monitor(start_a_program, ()).unwrap();
    let down: Down = receive_timeout(PATIENCE).unwrap().unwrap();
    let said = down.exit.returned::<String>().unwrap().unwrap();
    assert!(said.contains("a_pattern_looks_at_each_message_once: test"), "{said}");
}

fn start_a_program(_: ()) -> Result<String, std::io::Error> {
    let output = std::process::Command::new("/proc/self/exe").arg("--list").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `ps` and `/proc` show of a process.
fn looks() {
    let (child, _) = spawn_monitor(describe, me().unwrap()).unwrap();
    let (words, name, fds): (Vec<String>, String, usize) =
        receive_timeout(PATIENCE).unwrap().unwrap();
    assert!(words[0].ends_with("family::describe"), "{words:?}");
    assert_eq!(words[1..], ["wharf-native-process".to_owned(), child.incarnation.to_string()]);
    assert_eq!(name, "describe");
    // Three, the hub, the executable, its own poller, and the socket to here comes with the first message.
    assert!(fds <= 7, "{fds}");
}

fn describe(to: Address) -> Result<(), wharf::process::Error> {
    let words: Vec<String> = std::env::args().collect();
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    let fds = wharf::os::fds::count_open().unwrap_or(usize::MAX);
    send(&to, &(words, name.trim().to_owned(), fds))
}
