//! The graph's answers, and what they cost.

use std::sync::Arc;

use super::*;
use crate::spec::Dependency;
use crate::supervise::sample::service;

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn marks(standing: Standing) -> Marks {
    use Standing::{Ending, Healthy, Ready, Started};
    let busy = matches!(standing, Started | Ready | Healthy | Ending);
    Marks { standing: Some(standing), busy, ..Marks::default() }
}

/// A graph in which everything rests, and the marks of each service.
struct Told(Graph, BTreeMap<ServiceName, Marks>);

impl Told {
    fn new(services: &[(&str, &[(&str, Dependency)])], groups: &[(&str, Group)]) -> Self {
        let services: Vec<_> = services
            .iter()
            .map(|(one, needs)| {
                let mut one = service(one);
                one.depends_on = needs.iter().map(|(needed, how)| (name(needed), *how)).collect();
                Arc::new(one)
            })
            .collect();
        let groups = groups.iter().map(|(name, group)| (*name, group));
        let mut graph = Graph::new(services.iter(), groups, &Graph::default());
        let mut all = BTreeMap::new();
        for service in services {
            let marks = marks(Standing::Stopped);
            graph.update(&service.name, Marks::default(), marks);
            all.insert(service.name.clone(), marks);
        }
        graph.stale.clear();
        graph.freed.clear();
        Self(graph, all)
    }

    fn stands(&mut self, one: &str, standing: Standing) {
        let before = self.1.insert(name(one), marks(standing)).unwrap();
        self.0.update(&name(one), before, marks(standing));
    }

    fn gate(&self, one: &str) -> String {
        self.0.gate(&name(one)).map(|hold| hold.to_string()).unwrap_or_default()
    }
}

fn needs(condition: Condition) -> Dependency {
    Dependency { condition, ..Dependency::default() }
}

#[test]
fn a_condition_is_waited_for_as_long_as_it_can_come_true() {
    use Condition::{Completed, Healthy, Started as Runs};
    use Standing::{
        Backoff, Coming, Ending, Failed, Finished, Ready, Scheduled, Started, Stopped, Stuck,
    };
    let waits = |what: &str| format!("waits for db to {what}");
    for (condition, standing, words) in [
        (Runs, Coming, waits("run")),
        (Runs, Backoff, waits("run")),
        (Runs, Ending, waits("run")),
        (Runs, Stuck, waits("run")),
        (Runs, Started, String::new()),
        (Runs, Ready, String::new()),
        (Runs, Finished, String::new()),
        (Runs, Stopped, "skipped: db is stopped".to_owned()),
        (Runs, Failed, "skipped: db has failed".to_owned()),
        (Healthy, Started, waits("be healthy")),
        (Runs, Standing::Healthy, String::new()),
        (Runs, Scheduled, waits("run")),
        (Healthy, Ready, waits("be healthy")),
        (Healthy, Standing::Healthy, String::new()),
        (Healthy, Scheduled, waits("be healthy")),
        (Completed, Scheduled, waits("complete")),
        (Healthy, Finished, "skipped: db has finished and is not healthy".to_owned()),
        (Completed, Ready, waits("complete")),
        (Completed, Backoff, waits("complete")),
        (Completed, Finished, String::new()),
        (Completed, Failed, "skipped: db has failed and has not completed".to_owned()),
    ] {
        let mut told = Told::new(&[("db", &[]), ("web", &[("db", needs(condition))])], &[]);
        told.stands("db", standing);
        assert_eq!(told.gate("web"), words, "{condition:?} of {standing:?}");
        let optional = Dependency { required: false, ..needs(condition) };
        let mut told = Told::new(&[("db", &[]), ("web", &[("db", optional)])], &[]);
        told.stands("db", standing);
        assert_eq!(told.gate("web").is_empty(), !words.starts_with("waits"), "{standing:?}");
    }
}

#[test]
fn a_group_starts_in_order_and_ends_in_reverse() {
    let members = || ["a", "b", "c"].map(name).to_vec();
    let all: &[(&str, &[(&str, Dependency)])] = &[("a", &[]), ("b", &[]), ("c", &[])];
    let group = Group { services: members(), strategy: Strategy::OneForAll, ..Group::default() };
    let mut told = Told::new(all, &[("g", group)]);
    for one in ["a", "b", "c"] {
        told.stands(one, Standing::Coming);
    }
    assert_eq!(told.gate("a"), "");
    assert_eq!(told.gate("c"), "waits for those before it in the group g");
    told.stands("a", Standing::Ready);
    assert_eq!((told.gate("b"), told.0.stale.contains(&name("b"))), (String::new(), true));
    assert_eq!(told.gate("c"), "waits for those before it in the group g");
    // One that rests holds up nobody.
    told.stands("b", Standing::Failed);
    assert_eq!((told.gate("c"), told.0.stale.contains(&name("c"))), (String::new(), true));
    told.stands("c", Standing::Ready);
    assert!(told.0.is_in_the_way(&name("a"), Scope::Group));
    assert!(!told.0.is_in_the_way(&name("c"), Scope::Everything));
    told.stands("c", Standing::Ending);
    assert_eq!(told.gate("a"), "waits for those after it in the group g to end");
    told.0.freed.clear();
    told.stands("c", Standing::Stopped);
    assert!(told.0.freed.contains(&name("a")) && !told.0.is_in_the_way(&name("a"), Scope::Group));
    assert_eq!(told.gate("a"), "");
}

#[test]
fn one_that_keeps_failing_holds_up_its_siblings_only_where_they_are_restarted_with_it() {
    for (strategy, open) in
        [(Strategy::OneForOne, true), (Strategy::OneForAll, false), (Strategy::RestForOne, false)]
    {
        let group = Group { services: ["a", "b"].map(name).to_vec(), strategy, ..Group::default() };
        let mut told = Told::new(&[("a", &[]), ("b", &[])], &[("g", group)]);
        told.stands("a", Standing::Backoff);
        assert_eq!(told.gate("b").is_empty(), open, "{strategy:?}");
    }
}

/// A thousand services in a chain, and a thousand that wait for one: an event about one service says of
/// nobody else but those next to it that they have to be looked at, and of these only when an answer is
/// another one.
#[test]
fn an_event_concerns_only_those_who_wait_for_what_it_changes() {
    const COUNT: usize = 1_000;
    let names: Vec<_> = (0..COUNT).map(|at| format!("s{at:04}")).collect();
    let needed: Vec<_> =
        (0..COUNT).map(|at| [(names[at.max(1) - 1].as_str(), Dependency::default())]).collect();
    let chain: Vec<(&str, &[(&str, Dependency)])> =
        (0..COUNT).map(|at| (&*names[at], &needed[at][usize::from(at == 0)..])).collect();
    let mut told = Told::new(&chain, &[]);
    let mut looked = 0;
    for one in &names {
        for standing in [Standing::Coming, Standing::Started, Standing::Ready, Standing::Healthy] {
            told.stands(one, standing);
            looked += std::mem::take(&mut told.0.stale).len();
            assert!(told.0.freed.is_empty());
        }
    }
    // To be on the way, and to run: each once, and to be well is another answer for `service_healthy`.
    assert_eq!(looked, 3 * (COUNT - 1));

    let first = [(names[0].as_str(), Dependency::default())];
    let star: Vec<(&str, &[(&str, Dependency)])> =
        (0..COUNT).map(|at| (&*names[at], &first[usize::from(at == 0)..])).collect();
    let mut told = Told::new(&star, &[]);
    let mut looked = 0;
    for one in &names[1..] {
        told.stands(one, Standing::Ready);
        looked += told.0.stale.len() + told.0.freed.len();
    }
    assert_eq!(looked, 0, "those who wait are no business of their neighbours");
    told.stands("s0000", Standing::Coming);
    assert_eq!(told.0.stale.len(), COUNT - 1);
    assert!(told.0.is_in_the_way(&name("s0000"), Scope::Dependents));
}
