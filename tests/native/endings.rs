//! A gallery of endings: each is told to a monitor and to a late monitor, with the same true reason.

use std::collections::BTreeMap;

use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};
use wharf::exit::{Cause, How, Reason};
use wharf::process::{Address, Down, Exit, Exited};
use wharf::process::{
    kill, link, monitor, receive, receive_timeout, spawn, spawn_link, spawn_monitor, trap_exits,
};

use crate::PATIENCE;

pub(crate) fn scenes() -> Vec<(&'static str, crate::Scene)> {
    vec![
        ("every_ending_has_its_reason_also_when_asked_late", gallery),
        ("what_was_returned_comes_back_whatever_it_is", values),
        ("what_is_not_known_is_said_to_be_not_known", unknown),
        ("a_start_that_fails_says_why", not_started),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Ending {
    Return,
    Error,
    Panic,
    PanicWithoutWords,
    PanicTwice,
    ThreadPanics,
    Exit0,
    Exit3,
    Abort,
    Kill,
    Terminate,
    Segfault,
    Overflow,
    CpuLimit,
    Becomes,
    TooLarge,
    Killed,
    Linked,
}

/// Ending, reason, the kernel's word, and what the message contains.
const GALLERY: &[(Ending, Reason, &str, &str)] = &[
    (Ending::Return, Reason::Returned, "exited with code 0", ""),
    (Ending::Error, Reason::ReturnedError, "exited with code 1", "cannot print: no more paper"),
    (Ending::Panic, Reason::Panicked, "exited with code 101", "divide by zero"),
    (Ending::PanicWithoutWords, Reason::Panicked, "exited with code 101", "a panic without words"),
    (Ending::PanicTwice, Reason::Signaled, "killed by SIGABRT", ""),
    (Ending::ThreadPanics, Reason::Returned, "exited with code 0", ""),
    (Ending::Exit0, Reason::Completed, "exited with code 0", ""),
    (Ending::Exit3, Reason::Failed, "exited with code 3", ""),
    (Ending::Abort, Reason::Signaled, "killed by SIGABRT", ""),
    (Ending::Kill, Reason::Signaled, "killed by SIGKILL", ""),
    (Ending::Terminate, Reason::Signaled, "killed by SIGTERM", ""),
    (Ending::Segfault, Reason::Signaled, "killed by SIGSEGV", ""),
    (Ending::Overflow, Reason::Signaled, "killed by SIGABRT", ""),
    (Ending::CpuLimit, Reason::ResourceLimit, "killed by SIGXCPU", ""),
    (Ending::Becomes, Reason::Failed, "exited with code 7", ""),
    (Ending::TooLarge, Reason::ReturnedError, "exited with code 1", "are allowed"),
    (Ending::Killed, Reason::Signaled, "killed by SIGKILL", ""),
    (Ending::Linked, Reason::Signaled, "killed by SIGKILL", ""),
];

#[derive(Debug, thiserror::Error)]
#[error("cannot print")]
struct Printer(#[source] std::io::Error);

/// Panics while it panics.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("and again");
    }
}

#[expect(unconditional_recursion, reason = "it is to run out of stack")]
#[expect(clippy::large_types_passed_by_value, reason = "and soon")]
fn deeper(depth: [u64; 64]) -> u64 {
    let next = std::hint::black_box(depth.map(|one| one + 1));
    deeper(next) + next[7]
}

fn end(ending: Ending) -> Result<Vec<u8>, Printer> {
    // No core files from these, wherever this machine sends them.
    nix::sys::prctl::set_dumpable(false).unwrap();
    let by = |signal| {
        raise(signal).unwrap();
        unreachable!("{signal} was survived")
    };
    match ending {
        Ending::Return => Ok(vec![1, 2, 3]),
        Ending::Error => Err(Printer(std::io::Error::other("no more paper"))),
        Ending::Panic => Ok(vec![1 / std::hint::black_box(0)]),
        Ending::PanicWithoutWords => std::panic::panic_any(7_u8),
        Ending::PanicTwice => {
            let _fragile = Fragile;
            panic!("once");
        }
        Ending::ThreadPanics => {
            let thread = std::thread::spawn(|| panic!("in a thread"));
            assert!(thread.join().is_err());
            Ok(Vec::new())
        }
        Ending::Exit0 => std::process::exit(0),
        Ending::Exit3 => std::process::exit(3),
        Ending::Abort => std::process::abort(),
        Ending::Kill => by(Signal::SIGKILL),
        Ending::Terminate => by(Signal::SIGTERM),
        Ending::Segfault => {
            // Rust has a handler of its own for this one, which goes away at the first.
            raise(Signal::SIGSEGV).unwrap();
            by(Signal::SIGSEGV)
        }
        Ending::Overflow => Ok(vec![u8::from(deeper([0; 64]) == 1)]),
        Ending::CpuLimit => by(Signal::SIGXCPU),
        Ending::Becomes => {
            use std::os::unix::process::CommandExt as _;
            let failed = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).exec();
            unreachable!("{failed}")
        }
        Ending::TooLarge => Ok(vec![200; 20 << 20]),
        Ending::Killed | Ending::Linked => {
            let _: Option<()> = receive_timeout(PATIENCE).unwrap();
            Ok(Vec::new())
        }
    }
}

fn gallery() {
    let mut told: BTreeMap<Address, (usize, Exit)> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (number, (ending, ..)) in GALLERY.iter().enumerate() {
        let (address, _) = spawn_monitor(end, *ending).unwrap();
        all.insert(address, number);
        match ending {
            Ending::Killed => assert!(kill(&address).unwrap()),
            Ending::Linked => {
                spawn(link_and_fail, address).unwrap();
            }
            _ => {}
        }
    }
    for _ in GALLERY {
        let down: Down = receive_timeout(PATIENCE).unwrap().expect("an end is told");
        assert!(!down.late);
        told.insert(down.address, (all[&down.address], down.exit));
    }
    assert_eq!(told.len(), GALLERY.len(), "each is told once");
    for (address, (number, exit)) in &told {
        let (ending, reason, how, message) = GALLERY[*number];
        assert_eq!(exit.reason, reason, "{ending:?} {exit:?}");
        assert_eq!(exit.how.to_string().replace(" (core dumped)", ""), how, "{ending:?}");
        assert!(exit.message.clone().unwrap_or_default().contains(message), "{ending:?} {exit:?}");
        let cause = match ending {
            Ending::Killed => Cause::SignalRequested,
            Ending::Linked => Cause::Linked,
            _ => Cause::Spontaneous,
        };
        assert_eq!(exit.cause, cause, "{ending:?}");
        let panicked = reason == Reason::Panicked;
        let place =
            exit.place.as_ref().is_some_and(|place| place.starts_with("tests/native/endings.rs:"));
        assert_eq!(place, panicked, "{ending:?} {exit:?}");
        assert_eq!(exit.backtrace.is_some(), panicked, "{ending:?}");
        // Asked late, the same is told.
        let late = monitor(address).unwrap();
        let down: Down = receive_timeout(PATIENCE).unwrap().expect("a late monitor is told");
        assert!(down.late && down.monitor == late.id() && down.address == *address);
        assert_eq!(&down.exit, exit, "{ending:?}");
    }
    assert_eq!(receive_timeout::<Down>(std::time::Duration::ZERO).unwrap(), None);
}

fn link_and_fail(other: Address) {
    link(&other).unwrap();
    std::process::exit(9);
}

/// A value of every kind that serde has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    text: String,
    bytes: Vec<u8>,
    map: BTreeMap<(u8, bool), Option<f64>>,
    nothing: (),
    choice: Result<i64, char>,
    large: u64,
    address: Option<Address>,
}

#[expect(clippy::unnecessary_wraps, reason = "so a value of one's own type is returned")]
fn everything(value: Everything) -> Result<Everything, String> {
    Ok(value)
}

fn values() {
    let value = Everything {
        text: "päper\0".to_owned(),
        bytes: vec![0, 255, 10],
        map: [((1, true), Some(-0.5)), ((2, false), None)].into(),
        nothing: (),
        choice: Err('x'),
        large: u64::MAX,
        address: Some(wharf::process::me().unwrap()),
    };
    spawn_monitor(everything, value.clone()).unwrap();
    let down: Down = receive().unwrap();
    assert_eq!(down.exit.returned::<Everything>().unwrap().unwrap(), value);
    assert!(down.exit.returned::<Vec<bool>>().unwrap().is_err());
    // A closure that captures nothing is a function like any other.
    spawn_monitor(|(a, b): (u8, u8)| a + b, (20, 22)).unwrap();
    let down: Down = receive().unwrap();
    assert_eq!(down.exit.returned::<u8>().unwrap().unwrap(), 42);
    assert!(down.exit.is_normal());
}

fn unknown() {
    let mut nobody = wharf::process::me().unwrap();
    nobody.incarnation.0 = 4711;
    let mut stranger = wharf::process::me().unwrap();
    stranger.realm.0 ^= 1;
    for address in [nobody, stranger] {
        wharf::send(&address, "nobody is there").unwrap();
        monitor(&address).unwrap();
        let down: Down = receive_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!((down.exit.reason, down.exit.how, down.late), (Reason::Lost, How::Unseen, true));
        assert!(!kill(&address).unwrap());
    }
    // A link to somebody who is not there strikes at once.
    trap_exits(true).unwrap();
    link(&nobody).unwrap();
    let exited: Exited = receive_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((exited.address, exited.exit.reason), (nobody, Reason::Lost));
}

fn not_started() {
    use wharf::process::Error;
    let refused = wharf::process::spawn_named("nothing.v1", &()).unwrap_err();
    let Error::NotStarted(exit) = refused else { panic!("{refused}") };
    assert_eq!(exit.reason, Reason::SetupFailed);
    assert!(exit.message.unwrap().contains("no function named \"nothing.v1\""));
    let refused = wharf::process::spawn_named("double.v1", &"a text").unwrap_err();
    assert!(refused.to_string().contains("read what came as u64"), "{refused}");
    let refused = spawn(count_bytes, vec![7_u8; 20 << 20]).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    // After all that it goes on.
    let child = spawn_link(count_bytes, vec![7; 1 << 20]).unwrap();
    monitor(&child).unwrap();
    let down: Down = receive_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(down.exit.returned::<usize>().unwrap().unwrap(), 1 << 20);
}

#[expect(clippy::needless_pass_by_value, reason = "a process owns its arguments")]
fn count_bytes(bytes: Vec<u8>) -> usize {
    bytes.len()
}
