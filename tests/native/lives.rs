//! Monitors, links and names.

use std::time::Duration;

use wharf::exit::{Cause, Reason};
use wharf::process::{Address, Down, Error, Exited};
use wharf::process::{
    demonitor, kill, link, me, monitor, receive, receive_timeout, register, send, spawn,
    spawn_link, spawn_monitor, spawn_named, trap_exits, unlink, unregister, waiting, whereis,
};

use crate::{PATIENCE, times};

pub(crate) fn scenes() -> Vec<(&'static str, crate::Scene)> {
    vec![
        ("a_monitor_taken_back_is_silent", taken_back),
        ("a_trapped_link_tells_and_a_normal_end_kills_nobody", trapped),
        ("links_carry_an_end_through_a_chain", chain),
        ("names_are_found_and_end_with_their_process", names),
        ("a_function_with_a_name_of_its_own", named),
        ("a_thousand_times_everybody_is_told_once", storm),
    ]
}

pub(crate) fn double(number: u64) -> u64 {
    number * 2
}

/// Ends as it is told.
fn obey(_: ()) -> Result<String, String> {
    receive::<Result<String, String>>().map_err(|error| error.to_string())?
}

fn next_down() -> Down {
    receive_timeout(PATIENCE).unwrap().expect("an end is told")
}

fn taken_back() {
    let (child, kept) = spawn_monitor(obey, ()).unwrap();
    let early = monitor(&child).unwrap();
    let flushed = monitor(&child).unwrap();
    assert!(demonitor(early).unwrap());
    assert!(!demonitor(early).unwrap());
    send(&child, &Ok::<_, String>("done".to_owned())).unwrap();
    let down = next_down();
    // The other one may be there already or not; after this it is nowhere.
    demonitor(if down.monitor == kept.id() { flushed } else { kept }).unwrap();
    assert_eq!(waiting().unwrap(), 0);
    assert_eq!(receive_timeout::<Down>(Duration::from_millis(50)).unwrap(), None);
}

fn trapped() {
    trap_exits(true).unwrap();
    let child = spawn_link(obey, ()).unwrap();
    send(&child, &Err::<String, _>("enough".to_owned())).unwrap();
    let exited: Exited = receive_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((exited.address, exited.exit.message.as_deref()), (child, Some("enough")));

    let child = spawn_link(obey, ()).unwrap();
    assert!(unlink(&child).unwrap() && !unlink(&child).unwrap());
    kill(&child).unwrap();
    monitor(&child).unwrap();
    assert_eq!(next_down().exit.cause, Cause::SignalRequested);
    assert_eq!(receive_timeout::<Exited>(Duration::ZERO).unwrap(), None);

    trap_exits(false).unwrap();
    let child = spawn_link(obey, ()).unwrap();
    monitor(&child).unwrap();
    send(&child, &Ok::<_, String>("normal".to_owned())).unwrap();
    assert_eq!(next_down().exit.reason, Reason::Returned);
}

/// Links itself to the one before it, says so, and waits for the end.
fn linked((before, first): (Option<Address>, Address)) {
    if let Some(before) = before {
        link(&before).unwrap();
    }
    send(&first, "linked").unwrap();
    let _: () = receive().unwrap();
}

fn chain() {
    let mut before = None;
    let all: Vec<Address> = (0..10)
        .map(|_| {
            let (one, _) = spawn_monitor(linked, (before, me().unwrap())).unwrap();
            before = Some(one);
            one
        })
        .collect();
    for _ in &all {
        receive_timeout::<String>(PATIENCE).unwrap().expect("it is linked");
    }
    assert_eq!(receive_timeout::<Down>(Duration::ZERO).unwrap(), None);
    kill(&all[4]).unwrap();
    let mut causes = Vec::new();
    for _ in &all {
        let down = next_down();
        assert_eq!(down.exit.reason, Reason::Signaled);
        causes.push((down.address == all[4], down.exit.cause));
    }
    assert_eq!(causes.iter().filter(|(_, cause)| *cause == Cause::Linked).count(), 9);
    assert!(causes.contains(&(true, Cause::SignalRequested)));
}

fn names() {
    let child = spawn(obey, ()).unwrap();
    register("printer", &child).unwrap();
    register("printer", &child).unwrap();
    register("first", &me().unwrap()).unwrap();
    assert_eq!(whereis("printer").unwrap(), Some(child));
    let other = spawn(obey, ()).unwrap();
    let taken = register("printer", &other).unwrap_err();
    assert!(matches!(taken, Error::Refused(_)), "{taken}");
    assert!(register("not a name", &other).is_err());
    kill(&child).unwrap();
    monitor(&child).unwrap();
    next_down();
    assert_eq!(whereis("printer").unwrap(), None);
    assert!(register("printer", &child).is_err(), "it has ended");
    register("printer", &other).unwrap();
    assert!(unregister("printer").unwrap() && !unregister("printer").unwrap());
    assert_eq!(whereis("first").unwrap(), Some(me().unwrap()));
}

fn named() {
    let child = spawn_named("double.v1", &21_u64).unwrap();
    monitor(&child).unwrap();
    let down = next_down();
    assert_eq!(down.exit.returned::<u64>().unwrap().unwrap(), 42);
}

/// Spawns one more and waits for the end of the world.
fn parent(_: ()) {
    spawn(obey, ()).unwrap();
    let _: () = receive().unwrap();
}

fn storm() {
    let before = wharf::os::fds::count_open().unwrap();
    let all: Vec<Address> = (0..times(1000))
        .map(|number| {
            let (address, _) = spawn_monitor(parent, ()).unwrap();
            // Some are killed at once, others have a child by then.
            if number % 3 == 0 {
                kill(&address).unwrap();
            }
            address
        })
        .collect();
    for address in &all {
        kill(address).unwrap();
    }
    let mut told: Vec<Address> = all.iter().map(|_| next_down().address).collect();
    told.sort_unstable();
    let mut expected = all.clone();
    expected.sort_unstable();
    assert_eq!(told, expected, "each once");
    assert_eq!(receive_timeout::<Down>(Duration::from_millis(50)).unwrap(), None);
    // What they had spawned is ended too, and then nothing is left of any of them.
    let own = wharf::os::prctl::pid();
    let left =
        || wharf::os::procfs::all().unwrap().into_iter().filter(|one| one.parent == own).count();
    let first = me().unwrap().incarnation.0;
    let mut orphan = me().unwrap();
    for incarnation in first + 1..=first + 2 * u64::try_from(all.len()).unwrap() {
        orphan.incarnation.0 = incarnation;
        if kill(&orphan).unwrap() {
            monitor(&orphan).unwrap();
            next_down();
        }
    }
    // The hub tells an end before it buries.
    let begin = std::time::Instant::now();
    while left() > 0 || wharf::os::fds::count_open().unwrap() > before {
        let fds = wharf::os::fds::count_open().unwrap();
        assert!(begin.elapsed() < PATIENCE, "{} left, {fds} descriptors, {before} before", left());
        std::thread::yield_now();
    }
}
