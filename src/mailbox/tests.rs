//! Whole histories of a family: a hub and processes made of the parts of this module, between them queues that
//! deliver when chance wants it, and deaths at any moment.
//!
//! The rules of `docs/adr/0011-native-processes.md` about the order of events are followed here as `process` follows
//! them; the oracles ask after each step what a user was promised. A planted fault shows that they see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::{Lives, Mailbox, Mark, Notice, Taken, WINDOW, Window};
use crate::name::Incarnation;

/// What a process finds in its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    /// The number counts the messages of that sender to this receiver.
    Message {
        from: u64,
        number: u64,
        bytes: u64,
    },
    Down {
        monitor: u64,
        who: u64,
        end: Option<u64>,
    },
}

/// What the hub tells a process.
#[derive(Debug, Clone, Copy)]
enum Word {
    /// There is a socket to somebody.
    Peer(u64),
    /// Somebody to whom there was a socket has ended.
    Gone(u64),
    Down {
        monitor: u64,
        who: u64,
        end: Option<u64>,
    },
}

/// What a process asks of the hub.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Peer(u64),
    Monitor { id: u64, target: u64 },
    Demonitor(u64),
    Link(u64),
}

#[derive(Debug, Clone, Copy)]
enum Parcel {
    Message { number: u64, bytes: u64 },
    Credit(u64),
}

#[derive(Debug, Default)]
struct Process {
    mailbox: Mailbox<Letter>,
    mark: Mark,
    peers: BTreeMap<u64, (Window, Taken)>,
    asked: BTreeSet<u64>,
    monitors: BTreeSet<u64>,
    /// From the hub, and to it.
    words: VecDeque<Word>,
    wishes: VecDeque<Wish>,
    /// It runs no more; the hub has not seen it yet.
    dead: bool,
    /// What the oracles know: messages sent to each, received of each, monitors by number, and what was told.
    sent: BTreeMap<u64, u64>,
    received: BTreeMap<u64, u64>,
    wanted: BTreeMap<u64, u64>,
    told: BTreeSet<u64>,
}

#[derive(Debug)]
struct World {
    processes: BTreeMap<u64, Process>,
    /// From whom, to whom.
    sockets: BTreeMap<(u64, u64), VecDeque<Parcel>>,
    lives: Lives<Arc<u64>>,
    /// How each ended, by the number of the step.
    ends: BTreeMap<u64, u64>,
    next: u64,
    /// The planted fault: an end is told before the socket is drained.
    hasty: bool,
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Spawn,
    Send(u64, u64, u64),
    Hear(u64),
    Read(u64, u64),
    Take(u64),
    Monitor(u64, u64),
    Demonitor(u64, u64),
    Link(u64, u64),
    Die(u64),
    Serve(u64),
    Bury(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let who = || 1..7_u64;
    let one = prop_oneof![
        2 => Just(Move::Spawn),
        8 => (who(), who(), 1..WINDOW).prop_map(|(a, b, bytes)| Move::Send(a, b, bytes)),
        6 => who().prop_map(Move::Hear),
        5 => (who(), who()).prop_map(|(a, b)| Move::Read(a, b)),
        6 => who().prop_map(Move::Take),
        3 => (who(), who()).prop_map(|(a, b)| Move::Monitor(a, b)),
        1 => (who(), 1..60_u64).prop_map(|(a, id)| Move::Demonitor(a, id)),
        1 => (who(), who()).prop_map(|(a, b)| Move::Link(a, b)),
        1 => who().prop_map(Move::Die),
        6 => who().prop_map(Move::Serve),
        2 => who().prop_map(Move::Bury),
    ];
    prop::collection::vec(one, 1..250)
}

impl World {
    fn new(hasty: bool) -> Self {
        Self {
            processes: BTreeMap::new(),
            sockets: BTreeMap::new(),
            lives: Lives::new(100, 1000),
            ends: BTreeMap::new(),
            next: 1,
            hasty,
        }
    }

    fn alive(&mut self, who: u64) -> Option<&mut Process> {
        self.processes.get_mut(&who).filter(|process| !process.dead)
    }

    fn step(&mut self, number: u64, one: Move) -> Result<(), String> {
        match one {
            Move::Spawn => {
                self.processes.insert(self.next, Process::default());
                self.lives.born(Incarnation(self.next));
                self.next += 1;
            }
            Move::Send(from, to, bytes) => self.send(from, to, bytes),
            Move::Hear(who) => return self.hear(who),
            Move::Read(who, from) => self.read(who, from),
            Move::Take(who) => return self.take(who),
            Move::Monitor(who, target) => {
                // Nobody knows the number of one who is yet to come.
                let target = if self.processes.contains_key(&target) { target } else { 99 };
                if let Some(process) = self.alive(who) {
                    process.monitors.insert(number);
                    process.wanted.insert(number, target);
                    process.wishes.push_back(Wish::Monitor { id: number, target });
                }
            }
            Move::Demonitor(who, id) => {
                if let Some(process) = self.alive(who) {
                    process.wanted.remove(&id);
                    if process.monitors.remove(&id) {
                        process.wishes.push_back(Wish::Demonitor(id));
                    }
                    let is_its = |letter: &Letter| matches!(letter, Letter::Down { monitor, .. } if *monitor == id);
                    process.mailbox.remove(is_its);
                }
            }
            Move::Link(who, other) => {
                let exists = self.processes.contains_key(&other);
                if let Some(process) = self.alive(who).filter(|_| exists) {
                    process.wishes.push_back(Wish::Link(other));
                }
            }
            Move::Die(who) => self.die(who, number),
            Move::Serve(who) => self.serve(who, number),
            Move::Bury(who) => self.bury(who, number),
        }
        Ok(())
    }

    fn die(&mut self, who: u64, number: u64) {
        if let Some(process) = self.alive(who) {
            process.dead = true;
            self.ends.insert(who, number);
        }
    }

    fn send(&mut self, from: u64, to: u64, bytes: u64) {
        let exists = self.processes.contains_key(&to) && from != to;
        let Some(process) = self.alive(from).filter(|_| exists) else { return };
        let Some((window, _)) = process.peers.get_mut(&to) else {
            if process.asked.insert(to) {
                process.wishes.push_back(Wish::Peer(to));
            }
            return;
        };
        if window.is_open() {
            window.sent(bytes);
            let sent = process.sent.entry(to).or_default();
            let number = *sent;
            *sent += 1;
            self.sockets
                .entry((from, to))
                .or_default()
                .push_back(Parcel::Message { number, bytes });
        }
    }

    /// A process hears one word of its hub.
    fn hear(&mut self, who: u64) -> Result<(), String> {
        let hasty = self.hasty;
        let Some(process) = self.alive(who) else { return Ok(()) };
        match process.words.pop_front() {
            None => {}
            Some(Word::Peer(other)) => {
                process.peers.entry(other).or_default();
            }
            Some(Word::Gone(other)) => {
                // All that the socket held when its sender died, before anything else is heard.
                while !hasty && self.sockets.get(&(other, who)).is_some_and(|held| !held.is_empty())
                {
                    self.read(who, other);
                }
                if !hasty {
                    self.alive(who).map(|process| process.peers.remove(&other));
                }
            }
            Some(Word::Down { monitor, who: other, end }) => {
                if process.monitors.remove(&monitor) {
                    process.mailbox.push(Letter::Down { monitor, who: other, end }, 0);
                } else if process.told.contains(&monitor) {
                    return Err(format!("monitor {monitor} is told twice"));
                }
            }
        }
        Ok(())
    }

    /// A process reads one parcel of another one.
    fn read(&mut self, who: u64, from: u64) {
        let Some(process) = self.processes.get_mut(&who).filter(|process| !process.dead) else {
            return;
        };
        let Some((window, _)) = process.peers.get_mut(&from) else { return };
        match self.sockets.get_mut(&(from, who)).and_then(VecDeque::pop_front) {
            Some(Parcel::Message { number, bytes }) => {
                let size = usize::try_from(bytes).unwrap();
                process.mailbox.push(Letter::Message { from, number, bytes }, size);
            }
            Some(Parcel::Credit(bytes)) => window.credit(bytes),
            None => {}
        }
    }

    /// A process takes what comes next; here it is asked whether that is as it was promised.
    fn take(&mut self, who: u64) -> Result<(), String> {
        let ends = self.ends.clone();
        let Some(process) = self.alive(who) else { return Ok(()) };
        process.mark = Mark::default();
        let Some((letter, ())) = process.mailbox.take(&mut process.mark, |_| Some(())) else {
            return Ok(());
        };
        match letter {
            Letter::Message { from, number, bytes } => {
                let next = process.received.entry(from).or_default();
                if number != *next {
                    return Err(format!("{who} has message {number} of {from}, and {next} is due"));
                }
                *next += 1;
                if let Some((_, taken)) = process.peers.get_mut(&from)
                    && let Some(bytes) = taken.took(bytes)
                {
                    self.sockets.entry((who, from)).or_default().push_back(Parcel::Credit(bytes));
                }
            }
            Letter::Down { monitor, who: other, end } => {
                if process.wanted.get(&monitor) != Some(&other) || !process.told.insert(monitor) {
                    return Err(format!("{who} did not want to hear of {other}, or has"));
                }
                if end != ends.get(&other).copied() {
                    return Err(format!(
                        "{other} ended by {:?}, and {end:?} is told",
                        ends.get(&other)
                    ));
                }
                let received = process.received.get(&other).copied().unwrap_or(0);
                let sent =
                    self.processes.get(&other).and_then(|other| other.sent.get(&who)).copied();
                if sent.is_some_and(|sent| sent != received) {
                    return Err(format!(
                        "{other} is told to be down after {received} of {sent:?} messages"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The hub serves one wish of a process.
    fn serve(&mut self, who: u64, number: u64) {
        let Some(wish) =
            self.processes.get_mut(&who).and_then(|process| process.wishes.pop_front())
        else {
            return;
        };
        let own = Incarnation(who);
        if !self.lives.lives(own) {
            return;
        }
        match wish {
            Wish::Peer(other) if self.lives.lives(Incarnation(other)) => {
                for (to, peer) in [(who, other), (other, who)] {
                    self.tell(to, Word::Peer(peer));
                }
            }
            Wish::Peer(other) => self.tell(who, Word::Gone(other)),
            Wish::Monitor { id, target } => {
                let notice = self.lives.monitor(own, id, Incarnation(target));
                if let Some(notice) = notice {
                    self.carry_out(notice, number);
                }
            }
            Wish::Demonitor(id) => {
                self.lives.demonitor(own, id);
            }
            Wish::Link(other) => {
                let notice = self.lives.link(own, Incarnation(other));
                if let Some(notice) = notice {
                    self.carry_out(notice, number);
                }
            }
        }
    }

    fn tell(&mut self, to: u64, word: Word) {
        if let Some(process) = self.processes.get_mut(&to) {
            process.words.push_back(word);
        }
    }

    fn carry_out(&mut self, notice: Notice<Arc<u64>>, number: u64) {
        match notice {
            Notice::Down { to, reference, who, end, .. } => {
                let end = end.map(|end| *end);
                self.tell(to.0, Word::Down { monitor: reference, who: who.0, end });
            }
            Notice::Linked { .. } => unreachable!("nobody traps here"),
            Notice::Kill { victim, .. } => self.die(victim.0, number),
        }
    }

    /// The hub sees that somebody has ended: what that one had asked for first, then all is told.
    fn bury(&mut self, who: u64, number: u64) {
        if !self.processes.get(&who).is_some_and(|process| process.dead)
            || !self.lives.lives(Incarnation(who))
        {
            return;
        }
        while self.processes.get(&who).is_some_and(|process| !process.wishes.is_empty()) {
            self.serve(who, number);
        }
        let peers: Vec<u64> =
            self.processes.keys().copied().filter(|other| *other != who).collect();
        for other in peers {
            self.tell(other, Word::Gone(who));
        }
        let end = Arc::new(self.ends[&who]);
        for notice in self.lives.ended(Incarnation(who), &end, number.is_multiple_of(3), 1) {
            self.carry_out(notice, number);
        }
    }

    /// All that can still happen happens: then nobody waits to be told any more.
    fn rest(&mut self) -> Result<(), String> {
        let mut number = 10_000;
        while self.is_busy() {
            number += 1;
            let all: Vec<u64> = self.processes.keys().copied().collect();
            for who in &all {
                self.bury(*who, number);
                self.serve(*who, number);
                self.hear(*who)?;
                self.take(*who)?;
                for from in &all {
                    self.read(*who, *from);
                }
            }
        }
        for (who, process) in self.processes.iter().filter(|(_, process)| !process.dead) {
            for (monitor, target) in &process.wanted {
                let ended = self.ends.contains_key(target) || !self.processes.contains_key(target);
                if ended != process.told.contains(monitor) {
                    return Err(format!("{who} is not told of {target}, or too early"));
                }
            }
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.processes.iter().any(|(who, process)| {
            let held =
                |from: &u64| self.sockets.get(&(*from, *who)).is_some_and(|held| !held.is_empty());
            if process.dead {
                return self.lives.lives(Incarnation(*who));
            }
            let queued = process.words.len() + process.wishes.len() + process.mailbox.len();
            queued > 0 || process.peers.keys().any(held)
        })
    }

    fn bounded(&self) -> Result<(), String> {
        for (who, process) in &self.processes {
            let count = u64::try_from(process.peers.len()).unwrap();
            if u64::try_from(process.mailbox.bytes()).unwrap() > (count + 6) * 2 * WINDOW {
                return Err(format!("{who} holds {} bytes of {count}", process.mailbox.bytes()));
            }
        }
        Ok(())
    }
}

fn play(moves: &[Move], hasty: bool) -> Result<(), String> {
    let mut world = World::new(hasty);
    for (number, one) in (1..).zip([Move::Spawn; 4].iter().chain(moves)) {
        world.step(number, *one)?;
        world.bounded()?;
    }
    world.rest()
}

proptest! {
    #[test]
    fn what_was_promised_holds_in_every_history(moves in moves()) {
        prop_assert_eq!(play(&moves, false), Ok(()));
    }
}

#[test]
fn an_end_that_is_told_too_early_is_noticed() {
    let history = [
        Move::Monitor(1, 2),
        Move::Serve(1),
        Move::Send(2, 1, 10),
        Move::Serve(2),
        Move::Hear(1),
        Move::Hear(2),
        Move::Send(2, 1, 10),
        Move::Die(2),
        Move::Bury(2),
        Move::Hear(1),
        Move::Hear(1),
        Move::Take(1),
        Move::Take(1),
    ];
    assert_eq!(play(&history, false), Ok(()));
    let noticed = play(&history, true).unwrap_err();
    assert!(noticed.contains("after 0 of Some(1) messages"), "{noticed}");
}
