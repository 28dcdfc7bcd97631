//! Schedules against two clocks: one that only grows and may stand still, and one that anybody may set.
//!
//! Times that a pattern names come at equal distances in UTC, so what is due when is a matter of
//! arithmetic here, and of a calendar there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use jiff::tz::TimeZone;
use wharf::name::ServiceName;
use wharf::spec::{Cgroups, Missed, Overlap, Rhythm, Schedule, Service, Spec};
use wharf::supervise::{Due, LATE, REPEATS, Timetable};
use wharf::time::{Tick, Wall};

use super::configs::plain;
use super::oracles::{Fault, Oracle, Tally};
use super::world::Dice;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const YEAR: u64 = 365 * 24 * HOUR;

/// A schedule, and when it is due next.
struct Known {
    name: ServiceName,
    /// The pattern, and how long after the beginning of each period it comes; none for a rhythm.
    pattern: Option<(&'static str, u64)>,
    period: u64,
    missed: Missed,
    /// By the wall clock for a pattern, by the other one for a rhythm.
    next: u64,
    /// The wall clock when it was last due.
    last: Option<u64>,
}

impl Known {
    /// The first time of a pattern after this one.
    fn named(&self, after: u64) -> u64 {
        let offset = self.pattern.map_or(0, |(_, offset)| offset);
        ((after - offset) / self.period + 1) * self.period + offset
    }

    fn schedule(&self) -> Schedule {
        let rhythm = match self.pattern {
            Some((text, _)) => Rhythm::Cron(text.to_owned()),
            None => Rhythm::Every(Duration::from_nanos(self.period)),
        };
        Schedule { rhythm, overlap: Overlap::Skip, missed: self.missed }
    }

    /// It is new to the timetable, or to this life of the manager.
    fn begin(&mut self, now: u64, wall: u64, is_first: bool) {
        let last = self.last.filter(|last| *last <= wall);
        self.next = match (self.pattern, last) {
            (Some(_), last) => self.named(last.filter(|_| is_first).unwrap_or(wall)),
            (None, Some(last)) => now + self.period.saturating_sub(wall - last),
            (None, None) => now,
        };
    }

    /// Whether it is due, and whether it is started then.
    fn look(&mut self, now: u64, wall: u64) -> Option<bool> {
        let clock = if self.pattern.is_some() { wall } else { now };
        let late = clock.checked_sub(self.next)?;
        self.next = match self.pattern {
            Some(_) => self.named(wall),
            None => self.next + (late / self.period + 1) * self.period,
        };
        self.last = Some(wall);
        Some(Duration::from_nanos(late) <= LATE || self.missed == Missed::Run)
    }
}

struct Clocks {
    table: Timetable,
    now: u64,
    wall: u64,
    /// The latest that the wall clock has shown since it was last corrected.
    high: u64,
    known: Vec<Known>,
}

impl Clocks {
    fn new(dice: &mut Dice) -> Self {
        let missed = |dice: &mut Dice| dice.pick(&[Missed::Run, Missed::Skip]);
        let (pattern, period) = dice.pick(&[
            (("17 * * * *", 1020 * SECOND), HOUR),
            (("30 3 * * *", 12_600 * SECOND), 24 * HOUR),
        ]);
        let known = |name: &str, pattern, period, missed| Known {
            name: name.parse().unwrap(),
            pattern,
            period,
            missed,
            next: 0,
            last: None,
        };
        let every = dice.pick(&[SECOND, 60 * SECOND, 600 * SECOND, 5 * HOUR]);
        let known = vec![
            known("every", None, every, missed(dice)),
            known("named", Some(pattern), period, missed(dice)),
        ];
        let wall = 56 * YEAR + dice.below(YEAR);
        Self { table: Timetable::new(TimeZone::UTC), now: 1000 * SECOND, wall, high: 0, known }
    }

    /// The configuration takes effect; those named are new by it.
    fn configure(&mut self, is_new: impl Fn(&Known) -> bool, is_first: bool) {
        let services = self.known.iter().map(|known| {
            let schedule = Some(known.schedule());
            let service = Service { schedule, ..plain(known.name.as_str()) };
            (service.name.clone(), Arc::new(service))
        });
        let spec = Spec {
            files: Vec::new(),
            cgroups: Cgroups::Auto,
            metrics: None,
            on_event: Vec::new(),
            services: services.collect(),
            groups: IndexMap::new(),
        };
        let last = |known: &Known| Some((known.name.clone(), Wall(known.last?)));
        let before: BTreeMap<_, _> = self.known.iter().filter_map(last).collect();
        self.table.configure(&spec, (Tick(self.now), Wall(self.wall)), &before);
        self.see();
        let (now, wall) = (self.now, self.wall);
        for known in self.known.iter_mut().filter(|known| is_new(known)) {
            known.begin(now, wall, is_first);
        }
    }

    /// A wall clock that goes back by more than is usual has been corrected.
    fn see(&mut self) {
        let back = self.high.saturating_sub(self.wall);
        if Duration::from_nanos(back) > REPEATS {
            self.high = self.wall;
            for known in self.known.iter_mut().filter(|known| known.pattern.is_some()) {
                known.next = known.named(self.wall);
            }
        }
        self.high = self.high.max(self.wall);
    }

    fn make(&mut self, dice: &mut Dice) {
        let little = [SECOND, 30 * SECOND, 61 * SECOND, 300 * SECOND];
        let much = [HOUR / 2, HOUR, 3 * HOUR - SECOND, 3 * HOUR, 3 * HOUR + SECOND, 30 * HOUR];
        let length = if dice.one_in(2) { dice.pick(&little) } else { dice.pick(&much) };
        match dice.below(12) {
            // Time passes.
            0..=6 => (self.now, self.wall) = (self.now + length, self.wall + length),
            // The machine sleeps.
            7 => self.wall += length,
            8 => self.wall += dice.pick(&[HOUR, 10 * YEAR]),
            9 => self.wall -= dice.pick(&[HOUR, 3 * HOUR, 10 * YEAR]).min(self.wall - 20 * YEAR),
            10 => {
                let other = dice.place(3);
                if let Some(known) = self.known.get_mut(other) {
                    known.missed = match known.missed {
                        Missed::Run => Missed::Skip,
                        Missed::Skip => Missed::Run,
                    };
                }
                let name = self.known.get(other).map(|known| known.name.clone());
                self.configure(|known| Some(&known.name) == name.as_ref(), false);
            }
            _ => {
                self.table = Timetable::new(TimeZone::UTC);
                self.high = 0;
                self.configure(|_| true, true);
            }
        }
    }

    /// The timetable is looked at, and asked how long nothing will be due.
    fn look(&mut self, t: &mut Tally) -> Result<(), Fault> {
        let (now, wall) = (self.now, self.wall);
        let due = self.table.due((Tick(now), Wall(wall)));
        self.see();
        let mut all = Vec::new();
        for known in &mut self.known {
            let found: Vec<&Due> = due.iter().filter(|one| one.service == known.name).collect();
            let next = known.next;
            let expected = known.look(now, wall);
            let oracle = match known.pattern {
                Some(_) => Oracle::PatternComesOnce,
                None => Oracle::RhythmKeepsItsInterval,
            };
            let words = || format!("{} at {now}, {wall}: {found:?}, due at {next}", known.name);
            t.hold(oracle, found.len() == usize::from(expected.is_some()), words)?;
            if let (Some(found), Some(run)) = (found.first(), expected) {
                t.hold(Oracle::MissedIsJudged, found.run == run, words)?;
            }
            let clock = if known.pattern.is_some() { wall } else { now };
            let left = Duration::from_nanos(known.next.saturating_sub(clock));
            let patience = self.table.patience_of(&known.name, Tick(now), Wall(wall));
            t.hold(oracle, patience == Some(left), || {
                format!("{} comes in {left:?}, and not in {patience:?}", known.name)
            })?;
            all.push(left);
        }
        let first = self.table.patience(Tick(now), Wall(wall));
        t.hold(Oracle::PatternComesOnce, first == all.into_iter().min(), || format!("{first:?}"))
    }
}

/// Plays a history of two clocks.
pub(crate) fn play(seed: u64, t: &mut Tally) -> Result<(), Fault> {
    let mut dice = Dice(seed ^ 0x0063_6c6f_636b_7300);
    let mut clocks = Clocks::new(&mut dice);
    clocks.configure(|_| true, true);
    clocks.look(t)?;
    for _ in 0..20 + dice.below(40) {
        clocks.make(&mut dice);
        clocks.look(t)?;
    }
    Ok(())
}
