//! When services with a schedule are due. Pure: both clocks and the time zone are arguments.
//!
//! A rhythm goes by the monotonic clock, which nobody can set and which stands still while the
//! machine sleeps. A pattern goes by the wall clock, which jumps: what its jumps mean is said here.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::name::ServiceName;
use crate::spec::{Missed, Rhythm, Schedule, Spec};
use crate::time::cron::Cron;
use crate::time::{Tick, Wall};

/// A wall clock that goes back by no more than this repeats no time that has been; one that goes back
/// further has been corrected, and times are new times. (As with Vixie's cron, and for its reason:
/// clocks that change in autumn, and small corrections.)
pub const REPEATS: Duration = Duration::from_secs(3 * 3600);

/// A start that comes later than this was missed: the machine slept, its clock was set or nobody was
/// there to start it.
pub const LATE: Duration = Duration::from_secs(60);

/// The schedules of a configuration, each with the next time it names.
#[derive(Debug, Clone)]
pub struct Timetable {
    zone: TimeZone,
    entries: BTreeMap<ServiceName, Entry>,
    /// The wall clock when it was last looked at.
    seen: Wall,
}

#[derive(Debug, Clone)]
struct Entry {
    schedule: Schedule,
    next: Next,
}

#[derive(Debug, Clone)]
enum Next {
    /// At this time, or never again.
    At(Box<Cron>, Option<Wall>),
    /// With this tick, and each time so much later.
    In(Duration, Tick),
}

/// A service whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which service.
    pub service: ServiceName,
    /// Whether it is started; else the time was missed and is left out.
    pub run: bool,
}

impl Timetable {
    /// No schedules yet, in this time zone.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, entries: BTreeMap::new(), seen: Wall(0) }
    }

    /// Takes over the schedules of a configuration. One that is the same as before keeps its time.
    /// `before` says when services were last due. A pattern asks only for what was missed between two
    /// lives of the manager: one that is new with a reload names times to come.
    pub fn configure(
        &mut self,
        spec: &Spec,
        (now, wall): (Tick, Wall),
        before: &BTreeMap<ServiceName, Wall>,
    ) {
        let is_first = self.seen == Wall(0);
        self.look(wall);
        let mut entries = BTreeMap::new();
        for (name, service) in &spec.services {
            let Some(schedule) = &service.schedule else { continue };
            let same = self.entries.remove(name).filter(|entry| entry.schedule == *schedule);
            let entry = same.or_else(|| {
                let before =
                    before.get(name).copied().filter(|_| is_first || !is_pattern(schedule));
                let next = self.first(schedule, (now, wall), before)?;
                Some(Entry { schedule: schedule.clone(), next })
            });
            entries.extend(entry.map(|entry| (name.clone(), entry)));
        }
        self.entries = entries;
    }

    /// The first time of a schedule that is new here. `None` for a pattern that cannot be read, which
    /// the configuration has refused.
    fn first(
        &self,
        schedule: &Schedule,
        (now, wall): (Tick, Wall),
        before: Option<Wall>,
    ) -> Option<Next> {
        // A time to come is none that has been.
        let before = before.filter(|before| *before <= wall);
        Some(match &schedule.rhythm {
            Rhythm::Cron(pattern) => {
                let cron = Cron::parse(pattern).ok()?;
                let next = cron.next(before.unwrap_or(wall), &self.zone);
                Next::At(Box::new(cron), next)
            }
            Rhythm::Every(length) => {
                let left = before.map_or(Duration::ZERO, |before| {
                    length.saturating_sub(Duration::from_nanos(wall.0 - before.0))
                });
                Next::In(*length, now + left)
            }
        })
    }

    /// The services whose time has come, each once however often it came since the last look.
    pub fn due(&mut self, (now, wall): (Tick, Wall)) -> Vec<Due> {
        self.look(wall);
        let mut due = Vec::new();
        for (name, entry) in &mut self.entries {
            let late = match &mut entry.next {
                Next::At(cron, next) => {
                    let Some(at) = next.filter(|at| *at <= wall) else { continue };
                    *next = cron.next(wall, &self.zone);
                    Duration::from_nanos(wall.0 - at.0)
                }
                Next::In(length, next) => {
                    if *next > now {
                        continue;
                    }
                    let late = now.since(*next);
                    let passed = late.as_nanos() / length.as_nanos().max(1) + 1;
                    *next =
                        *next + length.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
                    late
                }
            };
            let run = late <= LATE || entry.schedule.missed == Missed::Run;
            due.push(Due { service: name.clone(), run });
        }
        due
    }

    /// How long it is until something is due, as the clocks stand. The wall clock may be set: who
    /// waits looks again when that happens.
    pub fn patience(&self, now: Tick, wall: Wall) -> Option<Duration> {
        self.entries.values().filter_map(|entry| entry.patience(now, wall)).min()
    }

    /// The same for one service; `None` where it has no schedule or its time never comes.
    pub fn patience_of(&self, service: &ServiceName, now: Tick, wall: Wall) -> Option<Duration> {
        self.entries.get(service)?.patience(now, wall)
    }

    /// Whether any time depends on the wall clock.
    pub fn goes_by_the_wall(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.next, Next::At(..)))
    }

    /// Notices a wall clock that went back far.
    fn look(&mut self, wall: Wall) {
        let back = Duration::from_nanos(self.seen.0.saturating_sub(wall.0));
        if back > REPEATS {
            for entry in self.entries.values_mut() {
                if let Next::At(cron, next) = &mut entry.next {
                    *next = cron.next(wall, &self.zone);
                }
            }
        }
        // Until it has caught up, a clock that went back a little shows times that have been.
        if back.is_zero() || back > REPEATS {
            self.seen = wall;
        }
    }
}

fn is_pattern(schedule: &Schedule) -> bool {
    matches!(schedule.rhythm, Rhythm::Cron(_))
}

impl Entry {
    fn patience(&self, now: Tick, wall: Wall) -> Option<Duration> {
        match &self.next {
            Next::At(_, next) => next.map(|at| Duration::from_nanos(at.0.saturating_sub(wall.0))),
            Next::In(_, at) => Some(at.since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spec::{Cgroups, Overlap, Service};
    use crate::supervise::sample::service;

    const HOUR: u64 = 3600;

    /// A timetable with one service, and the two clocks.
    struct Bench {
        table: Timetable,
        now: Tick,
        wall: Wall,
    }

    fn spec(rhythm: Rhythm, missed: Missed) -> Spec {
        let schedule = Some(Schedule { rhythm, overlap: Overlap::Skip, missed });
        let service = Service { schedule, ..service("job") };
        let services = [(service.name.clone(), Arc::new(service))].into_iter().collect();
        Spec {
            files: Vec::new(),
            cgroups: Cgroups::Auto,
            metrics: None,
            on_event: Vec::new(),
            services,
            groups: indexmap::IndexMap::new(),
        }
    }

    impl Bench {
        fn new(at: &str, rhythm: Rhythm, missed: Missed) -> Self {
            let mut bench = Self {
                table: Timetable::new(TimeZone::UTC),
                now: Tick(1_000_000_000_000),
                wall: at.parse().unwrap(),
            };
            let clocks = (bench.now, bench.wall);
            bench.table.configure(&spec(rhythm, missed), clocks, &BTreeMap::new());
            bench
        }

        fn daily(at: &str) -> Self {
            Self::new(at, Rhythm::Cron("0 3 * * *".to_owned()), Missed::Run)
        }

        /// So many seconds pass on both clocks, looked at each minute: how often was it started?
        fn pass(&mut self, seconds: u64) -> usize {
            let mut starts = 0;
            for _ in 0..seconds / 60 {
                self.now = self.now + Duration::from_secs(60);
                self.wall.0 += 60_000_000_000;
                starts += self.look();
            }
            starts
        }

        fn look(&mut self) -> usize {
            self.table.due((self.now, self.wall)).iter().filter(|due| due.run).count()
        }

        fn set(&mut self, to: &str) -> usize {
            self.wall = to.parse().unwrap();
            self.look()
        }
    }

    #[test]
    fn a_pattern_comes_once_a_day() {
        let mut bench = Bench::daily("2026-11-22T00:00:00Z");
        assert_eq!(bench.look(), 0);
        assert_eq!(
            bench.table.patience(bench.now, bench.wall),
            Some(Duration::from_secs(3 * HOUR))
        );
        assert_eq!(bench.pass(10 * 24 * HOUR), 10);
    }

    #[test]
    fn a_clock_that_goes_back_an_hour_repeats_nothing() {
        let mut bench = Bench::daily("2026-11-22T02:30:00Z");
        assert_eq!(bench.pass(HOUR), 1);
        assert_eq!(bench.set("2026-11-22T02:30:00Z"), 0);
        assert_eq!(bench.pass(HOUR), 0);
        assert_eq!(bench.pass(24 * HOUR), 1);
        // Also when it goes back again and again.
        let mut bench = Bench::daily("2026-11-22T02:30:00Z");
        assert_eq!(bench.pass(HOUR), 1);
        assert_eq!(bench.set("2026-11-22T01:30:00Z"), 0);
        assert_eq!(bench.set("2026-11-22T00:30:00Z"), 0);
        assert_eq!(bench.pass(4 * HOUR), 0);
    }

    #[test]
    fn a_clock_that_goes_on_an_hour_leaves_nothing_out() {
        let mut bench = Bench::daily("2026-11-22T02:30:00Z");
        assert_eq!(bench.set("2026-11-22T03:30:00Z"), 1);
        assert_eq!(bench.pass(2 * HOUR), 0);
    }

    #[test]
    fn ten_years_are_one_start() {
        let mut bench = Bench::daily("2026-11-22T02:30:00Z");
        assert_eq!(bench.set("2036-11-22T12:00:00Z"), 1);
        assert_eq!(bench.pass(24 * HOUR), 1);
        assert_eq!(bench.set("2026-11-22T02:30:00Z"), 0);
        assert_eq!(bench.pass(HOUR), 1);
    }

    #[test]
    fn what_was_missed_can_be_left_out() {
        let pattern = || Rhythm::Cron("0 3 * * *".to_owned());
        let mut bench = Bench::new("2026-11-22T02:30:00Z", pattern(), Missed::Skip);
        bench.wall = "2026-11-22T03:30:00Z".parse().unwrap();
        let due = bench.table.due((bench.now, bench.wall));
        assert_eq!(due.iter().map(|due| due.run).collect::<Vec<_>>(), [false]);
        assert_eq!(bench.pass(24 * HOUR), 1);
    }

    #[test]
    fn a_rhythm_does_not_care_for_the_wall() {
        let every = || Rhythm::Every(Duration::from_secs(600));
        let mut bench = Bench::new("2026-11-22T02:30:00Z", every(), Missed::Run);
        assert_eq!(bench.look(), 1);
        assert_eq!(bench.pass(HOUR), 6);
        for to in ["2036-01-01T00:00:00Z", "1996-01-01T00:00:00Z", "2026-11-22T02:30:00Z"] {
            assert_eq!(bench.set(to), 0);
            assert_eq!(bench.pass(HOUR), 6);
        }
        // A loop that was stopped for an hour.
        bench.now = bench.now + Duration::from_secs(HOUR);
        assert_eq!((bench.look(), bench.look()), (1, 0));
        assert_eq!(bench.pass(HOUR), 6);
    }

    #[test]
    fn another_life_of_the_manager_goes_on_where_the_last_one_was() {
        let wall: Wall = "2026-11-22T10:00:00Z".parse().unwrap();
        let now = Tick(5_000_000_000);
        let last = |at: &str| BTreeMap::from([("job".parse().unwrap(), at.parse().unwrap())]);
        let every = Rhythm::Every(Duration::from_secs(600));
        let daily = Rhythm::Cron("0 3 * * *".to_owned());
        for (rhythm, before, due) in [
            (&every, last("2026-11-22T09:55:00Z"), Some(300)),
            (&every, last("2026-11-22T09:00:00Z"), Some(0)),
            (&every, last("2026-11-22T10:30:00Z"), Some(0)),
            (&daily, last("2026-11-22T03:00:00Z"), Some(17 * HOUR)),
            (&daily, last("2026-11-21T03:00:00Z"), Some(0)),
            (&daily, BTreeMap::new(), Some(17 * HOUR)),
        ] {
            let mut table = Timetable::new(TimeZone::UTC);
            table.configure(&spec(rhythm.clone(), Missed::Run), (now, wall), &before);
            let patience = table.patience(now, wall).map(|length| length.as_secs());
            assert_eq!(patience, due, "{rhythm:?} {before:?}");
        }
    }

    #[test]
    fn a_reload_moves_only_what_it_changes() {
        let every = |seconds| Rhythm::Every(Duration::from_secs(seconds));
        let mut bench = Bench::new("2026-11-22T02:30:00Z", every(600), Missed::Run);
        bench.look();
        bench.pass(300);
        let clocks = (bench.now, bench.wall);
        let configure = |table: &mut Timetable, spec: &Spec| {
            table.configure(spec, clocks, &BTreeMap::new());
            table.patience(clocks.0, clocks.1).map(|length| length.as_secs())
        };
        assert_eq!(configure(&mut bench.table, &spec(every(600), Missed::Run)), Some(300));
        assert_eq!(configure(&mut bench.table, &spec(every(900), Missed::Run)), Some(0));
        let nothing = Spec { services: indexmap::IndexMap::new(), ..spec(every(1), Missed::Run) };
        assert_eq!(configure(&mut bench.table, &nothing), None);
    }

    #[test]
    fn only_a_pattern_needs_the_wall_clock_to_be_looked_at() {
        let every = Rhythm::Every(Duration::from_secs(600));
        let bench = Bench::new("2026-11-22T02:30:00Z", every, Missed::Run);
        assert!(!bench.table.goes_by_the_wall());
        assert!(Bench::daily("2026-11-22T02:30:00Z").table.goes_by_the_wall());
    }
}
