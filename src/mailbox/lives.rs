//! Who lives, who wants to be told of whose end, and how those ended that are gone.
//!
//! Monitors and links as Erlang has them: a monitor is told once; a link ends the other one too, unless that one
//! traps ends, or the end was a normal one. The ends are kept, the newest of them, so that who asks late hears the
//! truth. What is to be done comes back as [`Notice`]s, in order; nothing here sends anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::name::Incarnation;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice<E> {
    /// A monitor is told; it is over with that.
    Down {
        /// Whose it is.
        to: Incarnation,
        /// Its number, as that one gave it.
        reference: u64,
        /// Who ended.
        who: Incarnation,
        /// How; `None` where nothing is known of such a one.
        end: Option<E>,
        /// It had ended before the monitor was asked for.
        late: bool,
    },
    /// A link is told, whose holder traps ends.
    Linked {
        /// Who is told.
        to: Incarnation,
        /// Who ended.
        who: Incarnation,
        /// How; `None` where nothing is known of such a one.
        end: Option<E>,
    },
    /// A link is carried out: this one is to be killed.
    Kill {
        /// Who is to be killed.
        victim: Incarnation,
        /// Who ended.
        who: Incarnation,
    },
}

/// The lives of a hub.
#[derive(Debug, Clone)]
pub struct Lives<E> {
    alive: HashSet<Incarnation>,
    /// By watcher and number: who is watched.
    monitors: BTreeMap<(Incarnation, u64), Incarnation>,
    /// The other way round.
    watched: HashMap<Incarnation, BTreeSet<(Incarnation, u64)>>,
    /// Both ways.
    links: HashMap<Incarnation, BTreeSet<Incarnation>>,
    trapping: HashSet<Incarnation>,
    /// How they ended, and whether that was a normal end.
    ends: HashMap<Incarnation, (E, bool)>,
    /// The same, oldest first, with what each weighs.
    order: VecDeque<(Incarnation, usize)>,
    weight: usize,
    kept: usize,
    heaviest: usize,
}

impl<E: Clone> Lives<E> {
    /// Nobody lives, and nobody has. At most `kept` ends are remembered, that weigh `heaviest` together; the newest one
    /// is in any case.
    pub fn new(kept: usize, heaviest: usize) -> Self {
        Self {
            alive: HashSet::new(),
            monitors: BTreeMap::new(),
            watched: HashMap::new(),
            links: HashMap::new(),
            trapping: HashSet::new(),
            ends: HashMap::new(),
            order: VecDeque::new(),
            weight: 0,
            kept,
            heaviest,
        }
    }

    /// Somebody lives from now on. No number is used twice.
    pub fn born(&mut self, who: Incarnation) {
        self.alive.insert(who);
    }

    /// Whether somebody lives.
    pub fn lives(&self, who: Incarnation) -> bool {
        self.alive.contains(&who)
    }

    /// How somebody ended, where that is remembered.
    pub fn end(&self, who: Incarnation) -> Option<&E> {
        self.ends.get(&who).map(|(end, _)| end)
    }

    /// `watcher` wants to be told once when `target` ends; at once, if it does not live. Of two monitors with
    /// the same number the first one counts.
    #[must_use]
    pub fn monitor(
        &mut self,
        watcher: Incarnation,
        reference: u64,
        target: Incarnation,
    ) -> Option<Notice<E>> {
        if !self.lives(watcher) || self.monitors.contains_key(&(watcher, reference)) {
            return None;
        }
        if self.lives(target) {
            self.monitors.insert((watcher, reference), target);
            self.watched.entry(target).or_default().insert((watcher, reference));
            return None;
        }
        let end = self.end(target).cloned();
        Some(Notice::Down { to: watcher, reference, who: target, end, late: true })
    }

    /// Takes back a monitor; `false` where it is over or never was.
    pub fn demonitor(&mut self, watcher: Incarnation, reference: u64) -> bool {
        let Some(target) = self.monitors.remove(&(watcher, reference)) else { return false };
        if let Some(watchers) = self.watched.get_mut(&target) {
            watchers.remove(&(watcher, reference));
            if watchers.is_empty() {
                self.watched.remove(&target);
            }
        }
        true
    }

    /// Binds two lives. With somebody who has ended already it is as if that had happened just now.
    #[must_use]
    pub fn link(&mut self, who: Incarnation, other: Incarnation) -> Option<Notice<E>> {
        if !self.lives(who) || who == other {
            return None;
        }
        if self.lives(other) {
            self.links.entry(who).or_default().insert(other);
            self.links.entry(other).or_default().insert(who);
            return None;
        }
        let (end, normal) = match self.ends.get(&other) {
            Some((end, normal)) => (Some(end.clone()), *normal),
            None => (None, false),
        };
        self.struck(who, other, end, normal)
    }

    /// Takes a link back, whoever of the two made it; `false` where there is none.
    pub fn unlink(&mut self, who: Incarnation, other: Incarnation) -> bool {
        let mut there = false;
        for (one, two) in [(who, other), (other, who)] {
            if let Some(linked) = self.links.get_mut(&one) {
                there |= linked.remove(&two);
                if linked.is_empty() {
                    self.links.remove(&one);
                }
            }
        }
        there
    }

    /// Whether somebody is told of the ends of those it is linked to, rather than killed.
    pub fn trap(&mut self, who: Incarnation, traps: bool) {
        if traps && self.lives(who) {
            self.trapping.insert(who);
        } else {
            self.trapping.remove(&who);
        }
    }

    /// Somebody has ended: who is told, monitors first. A normal end does not kill who is linked.
    /// Of somebody who does not live nothing follows, so that an end is told once. `weight` is what it costs to
    /// remember it.
    pub fn ended(
        &mut self,
        who: Incarnation,
        end: &E,
        normal: bool,
        weight: usize,
    ) -> Vec<Notice<E>> {
        if !self.alive.remove(&who) {
            return Vec::new();
        }
        self.trapping.remove(&who);
        self.remember(who, end.clone(), normal, weight);
        let own = self.monitors.range((who, 0)..=(who, u64::MAX));
        let own: Vec<u64> = own.map(|((_, reference), _)| *reference).collect();
        for reference in own {
            self.demonitor(who, reference);
        }
        let mut notices = Vec::new();
        for (to, reference) in self.watched.remove(&who).unwrap_or_default() {
            self.monitors.remove(&(to, reference));
            notices.push(Notice::Down { to, reference, who, end: Some(end.clone()), late: false });
        }
        for other in self.links.remove(&who).unwrap_or_default() {
            self.unlink(other, who);
            notices.extend(self.struck(other, who, Some(end.clone()), normal));
        }
        notices
    }

    /// What the end of `who` means to somebody who is linked to it.
    fn struck(
        &self,
        to: Incarnation,
        who: Incarnation,
        end: Option<E>,
        normal: bool,
    ) -> Option<Notice<E>> {
        match (self.trapping.contains(&to), normal) {
            (true, _) => Some(Notice::Linked { to, who, end }),
            (false, true) => None,
            (false, false) => Some(Notice::Kill { victim: to, who }),
        }
    }

    fn remember(&mut self, who: Incarnation, end: E, normal: bool, weight: usize) {
        self.ends.insert(who, (end, normal));
        self.order.push_back((who, weight));
        self.weight += weight;
        while self.order.len() > 1 && (self.order.len() > self.kept || self.weight > self.heaviest)
        {
            if let Some((oldest, weight)) = self.order.pop_front() {
                self.ends.remove(&oldest);
                self.weight -= weight;
            }
        }
    }

    /// Monitors and links that are held, each once: what would leak if it were not let go.
    pub fn bonds(&self) -> usize {
        self.monitors.len() + self.links.values().map(BTreeSet::len).sum::<usize>() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);
    const C: Incarnation = Incarnation(3);

    fn three(kept: usize) -> Lives<&'static str> {
        let mut lives = Lives::new(kept, 100);
        for who in [A, B, C] {
            lives.born(who);
        }
        lives
    }

    fn down(
        to: Incarnation,
        reference: u64,
        who: Incarnation,
        end: Option<&'static str>,
        late: bool,
    ) -> Notice<&'static str> {
        Notice::Down { to, reference, who, end, late }
    }

    #[test]
    fn a_monitor_is_told_once_and_a_late_one_the_truth() {
        let mut lives = three(10);
        assert_eq!(lives.monitor(A, 7, B), None);
        assert_eq!(lives.monitor(A, 8, B), None);
        assert!(lives.demonitor(A, 8) && !lives.demonitor(A, 8));
        assert_eq!(lives.ended(B, &"panicked", false, 1), [down(A, 7, B, Some("panicked"), false)]);
        assert_eq!(lives.ended(B, &"again", false, 1), []);
        assert_eq!(lives.monitor(A, 9, B), Some(down(A, 9, B, Some("panicked"), true)));
        assert_eq!(
            lives.monitor(A, 10, Incarnation(99)),
            Some(down(A, 10, Incarnation(99), None, true))
        );
        assert_eq!(lives.bonds(), 0);
    }

    #[test]
    fn the_oldest_ends_are_forgotten() {
        let mut lives = three(1);
        let _ = lives.ended(B, &"one", false, 1);
        let _ = lives.ended(C, &"two", false, 1);
        assert_eq!((lives.end(B), lives.end(C)), (None, Some(&"two")));
        let mut lives = three(10);
        for (who, weight) in [(A, 40), (B, 40), (C, 1000)] {
            let _ = lives.ended(who, &"heavy", false, weight);
        }
        let known = [A, B, C].map(|who| lives.end(who).is_some());
        assert_eq!(known, [false, false, true], "the newest is kept whatever it weighs");
    }

    #[test]
    fn a_link_kills_unless_it_is_trapped_or_the_end_is_normal() {
        let kill = |victim, who| Notice::Kill { victim, who };
        let mut lives = three(10);
        assert_eq!((lives.link(A, B), lives.link(C, B), lives.link(A, A)), (None, None, None));
        lives.trap(C, true);
        let told = Notice::Linked { to: C, who: B, end: Some("failed") };
        assert_eq!(lives.ended(B, &"failed", false, 1), [kill(A, B), told]);
        assert_eq!(lives.link(A, B), Some(kill(A, B)), "late");

        let mut lives = three(10);
        assert_eq!((lives.link(A, B), lives.link(C, B)), (None, None));
        assert!(lives.unlink(B, C) && !lives.unlink(C, B));
        assert_eq!(lives.ended(B, &"returned", true, 1), []);
        assert_eq!(
            (lives.link(A, B), lives.link(A, Incarnation(9))),
            (None, Some(kill(A, Incarnation(9))))
        );
        assert_eq!(lives.bonds(), 0);
    }

    #[derive(Debug, Clone)]
    enum Move {
        Born,
        Monitor(u64, u64),
        Demonitor(usize),
        Link(u64, u64),
        Unlink(u64, u64),
        Trap(u64, bool),
        End(u64, bool),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let who = 1..8_u64;
        let pair = (who.clone(), who.clone());
        let one = prop_oneof![
            2 => Just(Move::Born),
            5 => pair.clone().prop_map(|(a, b)| Move::Monitor(a, b)),
            2 => (0..20_usize).prop_map(Move::Demonitor),
            3 => pair.clone().prop_map(|(a, b)| Move::Link(a, b)),
            1 => pair.prop_map(|(a, b)| Move::Unlink(a, b)),
            1 => (who.clone(), any::<bool>()).prop_map(|(who, traps)| Move::Trap(who, traps)),
            2 => (who, any::<bool>()).prop_map(|(who, normal)| Move::End(who, normal)),
        ];
        prop::collection::vec(one, 0..150)
    }

    /// The plain model: what is watched as a list of facts, looked through from the beginning each time.
    #[derive(Default)]
    struct Model {
        born: u64,
        /// The end is its number, so that a wrong reason shows.
        ended: BTreeMap<u64, (u64, bool)>,
        monitors: Vec<(u64, u64, u64)>,
        links: Vec<(u64, u64)>,
        traps: BTreeSet<u64>,
    }

    impl Model {
        fn lives(&self, who: u64) -> bool {
            who <= self.born && !self.ended.contains_key(&who)
        }

        fn struck(&self, to: u64, who: u64, end: Option<u64>, normal: bool) -> Option<Notice<u64>> {
            let (to, who) = (Incarnation(to), Incarnation(who));
            if self.traps.contains(&to.0) {
                Some(Notice::Linked { to, who, end })
            } else {
                (!normal).then_some(Notice::Kill { victim: to, who })
            }
        }

        fn end(&mut self, who: u64, number: u64, normal: bool) -> Vec<Notice<u64>> {
            if !self.lives(who) {
                return Vec::new();
            }
            self.ended.insert(who, (number, normal));
            self.traps.remove(&who);
            let mut told = Vec::new();
            let mut watching: Vec<_> =
                self.monitors.iter().copied().filter(|(_, _, target)| *target == who).collect();
            watching.sort_unstable();
            for (to, reference, _) in watching.into_iter().filter(|(to, ..)| *to != who) {
                let (to, who) = (Incarnation(to), Incarnation(who));
                told.push(Notice::Down { to, reference, who, end: Some(number), late: false });
            }
            self.monitors.retain(|(to, _, target)| *to != who && *target != who);
            let mut linked: Vec<u64> = self
                .links
                .iter()
                .filter_map(|(a, b)| if *a == who { Some(*b) } else { (*b == who).then_some(*a) })
                .collect();
            linked.sort_unstable();
            linked.dedup();
            self.links.retain(|(a, b)| *a != who && *b != who);
            told.extend(
                linked.into_iter().filter_map(|to| self.struck(to, who, Some(number), normal)),
            );
            told
        }
    }

    proptest! {
        #[test]
        fn monitors_and_links_do_what_the_model_does(moves in moves()) {
            let (mut lives, mut model) = (Lives::new(1000, 1000), Model::default());
            let mut asked = Vec::new();
            for (number, one) in (1_u64..).zip(moves) {
                match one {
                    Move::Born => {
                        model.born += 1;
                        lives.born(Incarnation(model.born));
                    }
                    Move::Monitor(who, target) => {
                        let told = lives.monitor(Incarnation(who), number, Incarnation(target));
                        let late = (model.lives(who) && !model.lives(target)).then(|| Notice::Down {
                            to: Incarnation(who), reference: number, who: Incarnation(target),
                            end: model.ended.get(&target).map(|(end, _)| *end), late: true,
                        });
                        prop_assert_eq!(told, late);
                        if model.lives(who) && model.lives(target) {
                            model.monitors.push((who, number, target));
                        }
                        asked.push((who, number));
                    }
                    Move::Demonitor(which) => {
                        let Some((who, reference)) = asked.get(which).copied() else { continue };
                        let before = model.monitors.len();
                        model.monitors.retain(|(to, this, _)| (*to, *this) != (who, reference));
                        prop_assert_eq!(lives.demonitor(Incarnation(who), reference), before != model.monitors.len());
                    }
                    Move::Link(who, other) => {
                        let told = lives.link(Incarnation(who), Incarnation(other));
                        let mut expected = None;
                        if model.lives(who) && who != other {
                            if model.lives(other) {
                                let pair = (who.min(other), who.max(other));
                                if !model.links.contains(&pair) { model.links.push(pair); }
                            } else {
                                let end = model.ended.get(&other).copied();
                                expected = model.struck(who, other, end.map(|(end, _)| end), end.is_some_and(|(_, normal)| normal));
                            }
                        }
                        prop_assert_eq!(told, expected);
                    }
                    Move::Unlink(who, other) => {
                        let pair = (who.min(other), who.max(other));
                        let before = model.links.len();
                        model.links.retain(|this| *this != pair);
                        prop_assert_eq!(lives.unlink(Incarnation(who), Incarnation(other)), before != model.links.len());
                    }
                    Move::Trap(who, traps) => {
                        lives.trap(Incarnation(who), traps);
                        if traps && model.lives(who) { model.traps.insert(who); } else { model.traps.remove(&who); }
                    }
                    Move::End(who, normal) => {
                        let told = lives.ended(Incarnation(who), &number, normal, 1);
                        prop_assert_eq!(told, model.end(who, number, normal));
                    }
                }
                prop_assert_eq!(lives.bonds(), model.monitors.len() + model.links.len());
            }
            for who in 1..=model.born {
                let _ = lives.ended(Incarnation(who), &0, true, 1);
            }
            prop_assert_eq!(lives.bonds(), 0, "what the dead held is let go");
        }
    }
}
