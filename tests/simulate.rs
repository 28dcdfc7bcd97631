//! Whole histories of the supervisor against a simulated world.
//!
//! A history is a list of moves made from one number. Each move lets something happen in the world
//! or has somebody want something; the supervisor's actions are carried out in the world, and after
//! every step the oracles of `docs/POLICY.md` are asked. Nothing here waits for anything.
//!
//! `WHARF_HISTORIES` says how many histories are tried, `WHARF_SEED` which one comes first. Seeds
//! that once found a fault are in `tests/simulate.seeds` and run before all others. `WHARF_SHRINK=0` leaves a
//! history that fails as long as it is.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on should stop")]

#[path = "simulate/book.rs"]
mod book;
#[path = "simulate/check.rs"]
mod check;
#[path = "simulate/clocks.rs"]
mod clocks;
#[path = "simulate/configs.rs"]
mod configs;
#[path = "simulate/configured.rs"]
mod configured;
#[path = "simulate/expect.rs"]
mod expect;
#[path = "simulate/history.rs"]
mod history;
#[path = "simulate/lives.rs"]
mod lives;
#[path = "simulate/moves.rs"]
mod moves;
#[path = "simulate/note.rs"]
mod note;
#[path = "simulate/oracles.rs"]
mod oracles;
#[path = "simulate/relate.rs"]
mod relate;
#[path = "simulate/rest.rs"]
mod rest;
#[path = "simulate/shown.rs"]
mod shown;
#[path = "simulate/watch.rs"]
mod watch;
#[path = "simulate/world.rs"]
mod world;

use std::collections::{BTreeSet, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use wharf::event::{Action, Configure, Event, State};
use wharf::name::{Incarnation, Requester};
use wharf::spec::{Cgroups, Service, Spec};
use wharf::supervise::{MAX_STARTING, Supervisor};
use wharf::time::Tick;

use history::{Move, Sim};
use oracles::{Fault, Oracle, Tally};

/// So many histories are tried in the ordinary run.
const HISTORIES: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}

/// Plays a history; a panic of the supervisor is a fault like any other.
fn play(seed: u64, moves: &[Move], tally: &mut Tally) -> Result<(), Fault> {
    let played = panic::catch_unwind(AssertUnwindSafe(|| Sim::new(seed).play(moves, tally)));
    played.unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(Fault { oracle: "never-panics", words: words.unwrap_or_default() })
    })
}

/// Leaves out moves as long as the same oracle still complains.
fn shrink(seed: u64, mut moves: Vec<Move>, oracle: &str) -> Vec<Move> {
    let mut chunk = moves.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < moves.len() {
            let mut fewer = moves.clone();
            fewer.drain(at..(at + chunk).min(moves.len()));
            match play(seed, &fewer, &mut Tally::default()) {
                Err(fault) if fault.oracle == oracle => moves = fewer,
                _ => at += chunk,
            }
        }
        chunk /= 2;
    }
    moves
}

fn check(seed: u64, tally: &mut Tally) {
    if let Err(fault) = clocks::play(seed, tally) {
        panic!("{}: {}\nWHARF_SEED={seed} WHARF_HISTORIES=1", fault.oracle, fault.words);
    }
    let moves = history::moves(seed);
    if let Err(fault) = play(seed, &moves, tally) {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let small = number("WHARF_SHRINK") != Some(0);
        let fewer = if small { shrink(seed, moves, fault.oracle) } else { moves };
        let told = Sim::new(seed).tell(&fewer);
        panic::set_hook(hook);
        panic!(
            "{}: {}\nWHARF_SEED={seed} WHARF_HISTORIES=1, {} moves are enough:\n{told}",
            fault.oracle,
            fault.words,
            fewer.len()
        );
    }
}

fn found_seeds() -> Vec<u64> {
    include_str!("simulate.seeds")
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().unwrap_or_else(|_| panic!("no seed: {line:?}")))
        .collect()
}

#[test]
fn every_history_keeps_every_promise() {
    let mut tally = Tally::default();
    let first = number("WHARF_SEED");
    let count = number("WHARF_HISTORIES").unwrap_or(HISTORIES);
    if first.is_none() {
        for seed in found_seeds() {
            check(seed, &mut tally);
        }
    }
    let first = first.unwrap_or(1);
    for seed in first..first.saturating_add(count) {
        check(seed, &mut tally);
    }
    if count >= HISTORIES {
        let idle = tally.never_asked();
        assert!(idle.is_empty(), "oracles that were never asked: {idle:?}");
    }
}

/// The sentences of the policy and the oracles name each other.
#[test]
fn every_sentence_of_policy_has_its_oracle() {
    let page = include_str!("../docs/POLICY.md");
    let documented: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with("- "))
        .filter_map(|line| line.rsplit_once("— `")?.1.strip_suffix('`'))
        .collect();
    let asked: BTreeSet<_> = Oracle::ALL.iter().map(|oracle| oracle.name()).collect();
    let unknown: Vec<_> = documented.difference(&asked).collect();
    let silent: Vec<_> = asked.difference(&documented).collect();
    assert!(unknown.is_empty(), "sentences whose oracle does not exist: {unknown:?}");
    assert!(silent.is_empty(), "oracles without a sentence: {silent:?}");
    for line in page.lines().filter(|line| line.starts_with("- ")) {
        assert!(line.ends_with('`'), "a sentence without an oracle: {line}");
    }
}

/// Thousands of starts at once are taken a few at a time, in order, and all come up.
#[test]
fn five_thousand_starts_are_gentle_and_in_order() {
    const COUNT: u32 = 5_000;
    let service = Arc::new(Service { replicas: COUNT, ..configs::plain("many") });
    let spec = Spec {
        files: Vec::new(),
        cgroups: Cgroups::Auto,
        metrics: None,
        on_event: Vec::new(),
        services: [(service.name.clone(), service)].into_iter().collect(),
        groups: indexmap::IndexMap::new(),
    };
    let by = Requester { uid: None, pid: None, who: "test".to_owned() };
    let configure =
        Configure { spec: Arc::new(spec), by, past: Vec::new(), stopped: Vec::new(), down: None };
    let mut supervisor = Supervisor::new(Incarnation(1), 1);
    let spawned = |actions: Vec<Action>| {
        actions.into_iter().filter_map(|action| match action {
            Action::Spawn { incarnation, replica, .. } => Some((incarnation, replica.replica)),
            _ => None,
        })
    };
    let mut under_way: VecDeque<_> =
        spawned(supervisor.step(Tick(0), Event::Configure(Box::new(configure)))).collect();
    let mut order = Vec::new();
    while let Some((incarnation, replica)) = under_way.pop_front() {
        assert!(under_way.len() < MAX_STARTING);
        order.push(replica);
        supervisor.step(Tick(1), Event::Spawned { incarnation });
        under_way.extend(spawned(supervisor.step(Tick(1), Event::Started { incarnation })));
    }
    assert!(order.into_iter().eq(1..=COUNT));
    assert!(supervisor.views().all(|view| view.state == State::Running));
}
