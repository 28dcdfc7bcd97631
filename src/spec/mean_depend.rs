//! The rules between services: who waits for whom, and who is in which group.
//!
//! What is checked here needs the whole configuration: names that do not exist, services that wait for
//! one another, conditions that can never come true.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::mistake::{Found, meant_instead};
use super::tree::{Entry, Node, Place};
use super::{Condition, Dependency, Group, OnGiveUp, Policy, Service, Strategy, written};
use crate::name::ServiceName;

/// What a service waits for, from written to meant. A list has become a map before.
pub(super) fn dependencies(
    written: Option<written::Dependencies>,
) -> impl Iterator<Item = (ServiceName, Dependency)> {
    let entries = match written {
        Some(written::Dependencies::Map(entries)) => entries,
        Some(written::Dependencies::List(_)) | None => IndexMap::new(),
    };
    entries.into_iter().filter_map(|(name, written)| {
        let usual = Dependency::default();
        let meant = match written {
            written::Dependency::Short(word) => Dependency { condition: condition(word), ..usual },
            written::Dependency::Long(long) => Dependency {
                condition: long.condition.map_or(usual.condition, condition),
                restart: long.restart.unwrap_or(usual.restart),
                required: long.required.unwrap_or(usual.required),
            },
        };
        Some((ServiceName::new(&name).ok()?, meant))
    })
}

fn condition(word: written::Condition) -> Condition {
    match word {
        written::Condition::ServiceStarted => Condition::Started,
        written::Condition::ServiceHealthy => Condition::Healthy,
        written::Condition::ServiceCompletedSuccessfully => Condition::Completed,
    }
}

/// A group from written to meant.
pub(super) fn group(written: written::Group) -> Group {
    let usual = Group::default();
    let names = written.services.into_iter();
    Group {
        services: names.filter_map(|name| ServiceName::new(&name.0).ok()).collect(),
        strategy: match written.strategy {
            None => usual.strategy,
            Some(written::Strategy::OneForOne) => Strategy::OneForOne,
            Some(written::Strategy::OneForAll) => Strategy::OneForAll,
            Some(written::Strategy::RestForOne) => Strategy::RestForOne,
        },
        max_restarts: written.max_restarts.unwrap_or(usual.max_restarts),
        within: written.within.map_or(usual.within, |length| length.0),
    }
}

/// All services and groups, with where they are written.
pub(super) struct Whole<'a> {
    /// What could be understood.
    pub(super) services: &'a IndexMap<ServiceName, Arc<Service>>,
    /// Every service as it is written, also those that could not be understood.
    pub(super) written: &'a [Entry],
    /// The groups that could be understood.
    pub(super) groups: &'a IndexMap<String, Group>,
    /// The `groups:` block.
    pub(super) block: Option<&'a Node>,
    pub(super) found: &'a mut Vec<Found>,
    pub(super) warnings: &'a mut Vec<Found>,
}

impl Whole<'_> {
    /// Looks at everything.
    pub(super) fn check(&mut self) {
        let at: HashMap<&str, usize> =
            self.written.iter().enumerate().map(|(at, one)| (one.key.as_str(), at)).collect();
        let homes = self.groups(&at);
        for service in self.services.values() {
            self.names(service, &at);
            let understood = self.block.is_none() || !self.groups.is_empty();
            if service.restart.on_give_up == OnGiveUp::Escalate
                && understood
                && !homes.contains_key(&service.name)
            {
                let message = "it is in no group that could be given up with it";
                self.complain(service, &at, &["restart", "on_give_up"], message.to_owned());
            }
        }
        self.cycles(&at, &homes);
    }

    fn place(&self, service: &str, at: &HashMap<&str, usize>, path: &[&str]) -> Option<Place> {
        let entry = &self.written[*at.get(service)?];
        let Some((last, before)) = path.split_last() else { return Some(entry.place) };
        let mut node = &entry.value;
        for step in before {
            node = node.get(step)?;
        }
        Some(node.entry(last).map_or(entry.place, |entry| entry.place))
    }

    fn complain(
        &mut self,
        service: &Service,
        at: &HashMap<&str, usize>,
        path: &[&str],
        message: String,
    ) {
        let place = self.place(service.name.as_str(), at, path);
        let path = format!("services.{}.{}", service.name, path.join("."));
        self.found.push(Found { place, path, message, help: None });
    }

    /// Names that are none, and conditions that can never come true.
    fn names(&mut self, service: &Service, at: &HashMap<&str, usize>) {
        for (name, dependency) in &service.depends_on {
            let path = ["depends_on", name.as_str()];
            match (self.services.get(name), at.contains_key(name.as_str())) {
                (None, false) => {
                    let near = meant_instead(name.as_str(), at.keys().copied());
                    let near = near.map(|near| format!("did you mean `{near}`?"));
                    let place = self.place(service.name.as_str(), at, &path);
                    let path = format!("services.{}.{}", service.name, path.join("."));
                    let message = format!("there is no service `{name}`");
                    if dependency.required {
                        self.found.push(Found { place, path, message, help: near });
                    } else {
                        let help = near.unwrap_or_else(|| {
                            format!("`{}` is started without it (required: false)", service.name)
                        });
                        self.warnings.push(Found { place, path, message, help: Some(help) });
                    }
                }
                (Some(needed), _)
                    if dependency.condition == Condition::Completed
                        && matches!(
                            needed.restart.policy,
                            Policy::Always | Policy::UnlessStopped
                        ) =>
                {
                    let word = needed.restart.policy.as_str();
                    let message = format!(
                        "`{name}` is started again whenever it ends (restart: {word}), so it never \
                         completes"
                    );
                    self.complain(service, at, &path, message);
                }
                // What is right, and what has mistakes of its own that are told.
                (Some(_), _) | (None, true) => {}
            }
        }
    }

    /// Each service's group and the one before it there.
    fn groups(
        &mut self,
        at: &HashMap<&str, usize>,
    ) -> HashMap<ServiceName, (String, Option<ServiceName>)> {
        let mut homes: HashMap<ServiceName, (String, Option<ServiceName>)> = HashMap::new();
        for (name, group) in self.groups {
            let block = self.block.and_then(|block| block.entry(name));
            let place = |path: &[&str]| block.map(|entry| entry.value.place_of(path));
            let mut wrong = Vec::new();
            let mut before: Option<ServiceName> = None;
            for (position, member) in group.services.iter().enumerate() {
                let step = position.to_string();
                let mut tell = |message: String, help: Option<String>| {
                    let path = format!("groups.{name}.services[{position}]");
                    let place = place(&["services", &step]);
                    wrong.push(Found { place, path, message, help });
                };
                if !at.contains_key(member.as_str()) {
                    let near = meant_instead(member.as_str(), at.keys().copied());
                    let near = near.map(|near| format!("did you mean `{near}`?"));
                    tell(format!("there is no service `{member}`"), near);
                    continue;
                }
                match homes.get(member) {
                    Some((other, _)) if other == name => {
                        tell(format!("`{member}` stands here twice"), None);
                        continue;
                    }
                    Some((other, _)) => {
                        tell(format!("`{member}` is in the group `{other}` already"), None);
                        continue;
                    }
                    None => {}
                }
                let home = (name.clone(), before.replace(member.clone()));
                homes.insert(member.clone(), home);
            }
            let path = |key: &str| format!("groups.{name}.{key}");
            if group.services.is_empty() {
                let message = "a group has at least one service".to_owned();
                let place = place(&["services"]);
                wrong.push(Found { place, path: path("services"), message, help: None });
            }
            if group.within.is_zero() {
                let message = "the time must be longer than 0".to_owned();
                let place = place(&["within"]);
                wrong.push(Found { place, path: path("within"), message, help: None });
            }
            self.found.extend(wrong);
        }
        homes
    }

    /// Services that wait for one another: every circle is told with all its members in order.
    fn cycles(
        &mut self,
        at: &HashMap<&str, usize>,
        homes: &HashMap<ServiceName, (String, Option<ServiceName>)>,
    ) {
        let edges = |name: &ServiceName| -> Vec<ServiceName> {
            let Some(service) = self.services.get(name) else { return Vec::new() };
            let before = homes.get(name).and_then(|(_, before)| before.clone());
            let needed = service.depends_on.keys().cloned();
            let known = |one: &ServiceName| self.services.contains_key(one);
            needed.chain(before).filter(known).collect()
        };
        for mut circle in circles(self.services.keys(), edges) {
            // It is told where somebody wrote that one waits for another: the order of a group alone
            // closes no circle.
            let written = |at: usize| {
                let (from, to) = (&circle[at], &circle[(at + 1) % circle.len()]);
                self.services[from].depends_on.contains_key(to)
            };
            let place = (0..circle.len()).rev().find(|at| written(*at)).unwrap_or_default();
            let count = circle.len();
            circle.rotate_left((place + 1) % count);
            let (first, last) = (&circle[0], &circle[circle.len() - 1]);
            let mut told: Vec<_> = circle.iter().map(ServiceName::as_str).collect();
            told.push(first.as_str());
            let message = match circle.len() {
                1 => "a service cannot wait for itself".to_owned(),
                _ => format!("these wait for one another: {}", told.join(" -> ")),
            };
            let grouped: Vec<_> = circle
                .iter()
                .zip(circle.iter().skip(1).chain([first]))
                .filter(|(from, to)| !self.services[*from].depends_on.contains_key(*to))
                .filter_map(|(from, to)| {
                    let (group, _) = homes.get(from)?;
                    Some(format!("`{from}` comes after `{to}` in the group `{group}`"))
                })
                .collect();
            let help = (!grouped.is_empty()).then(|| grouped.join(", "));
            let path = ["depends_on", first.as_str()];
            let place = self.place(last.as_str(), at, &path);
            let path = format!("services.{last}.{}", path.join("."));
            self.found.push(Found { place, path, message, help });
        }
    }
}

/// Every circle that a walk along the edges closes, each once, without recursion: a chain may be as
/// long as a configuration.
fn circles<'n>(
    nodes: impl Iterator<Item = &'n ServiceName>,
    edges: impl Fn(&ServiceName) -> Vec<ServiceName>,
) -> Vec<Vec<ServiceName>> {
    let mut found = Vec::new();
    // Where a node stands on the present way; `None` when all behind it has been looked at.
    let mut seen: HashMap<ServiceName, Option<usize>> = HashMap::new();
    for start in nodes {
        if seen.contains_key(start) {
            continue;
        }
        let mut way = vec![(start.clone(), edges(start))];
        seen.insert(start.clone(), Some(0));
        while let Some((node, left)) = way.last_mut() {
            let Some(next) = left.pop() else {
                seen.insert(node.clone(), None);
                way.pop();
                continue;
            };
            match seen.get(&next) {
                Some(Some(place)) => {
                    found.push(way[*place..].iter().map(|(node, _)| node.clone()).collect());
                }
                Some(None) => {}
                None => {
                    seen.insert(next.clone(), Some(way.len()));
                    let behind = edges(&next);
                    way.push((next, behind));
                }
            }
        }
    }
    found
}
