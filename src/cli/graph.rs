//! `wharf graph`: who waits for whom, as a tree, as DOT or as JSON.
//!
//! It is drawn from the configuration, so no manager is needed; where one answers, each service shows how
//! it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Question, parse};
use super::context::Context;
use super::failure::{Failure, OK};
use super::out;
use super::text::Show;
use crate::event::State;
use crate::manager::ReplicaStatus;
use crate::name::ServiceName;
use crate::spec::{Condition, Dependency, Spec, Strategy};

/// Show which services wait for which, and the groups
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf graph                  as a tree: below each service stands what it waits for
  wharf graph --dot | dot -Tsvg > graph.svg
  wharf graph --json | jq '.services.web.depends_on'")]
pub(super) struct Graph {
    /// In the language of Graphviz
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How the replicas of each service stand, where a manager answers.
type Stand = BTreeMap<String, Vec<ReplicaStatus>>;

impl Graph {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let spec = context.load()?.spec;
        let asked = context.client("graph")?.ask_now(Question::get("/v1/services"));
        // Without a manager the configuration is all there is.
        let stand = asked.ok().map(|reply| parse::<Vec<ReplicaStatus>>(&reply.body)).transpose()?;
        let stand = stand.map(|replicas| {
            let mut stand = Stand::new();
            for replica in replicas {
                stand.entry(replica.service.clone()).or_default().push(replica);
            }
            stand
        });
        let show = Show { terminal: out::stdout_is_terminal(), color: context.color };
        if self.json {
            out::print_document(&object(&spec, stand.as_ref()))?;
        } else if self.dot {
            out::print(&dot(&spec, stand.as_ref()))?;
        } else {
            out::print(&tree(&spec, stand.as_ref(), show))?;
        }
        Ok(OK)
    }
}

/// What is waited for, in a few words.
fn condition(how: Dependency) -> String {
    let mut words = match how.condition {
        Condition::Started => "runs",
        Condition::Healthy => "is healthy",
        Condition::Completed => "has completed",
    }
    .to_owned();
    if how.restart {
        words.push_str(", restarts with it");
    }
    if !how.required {
        words.push_str(", if it can be had");
    }
    words
}

/// How a service stands: one word where its replicas agree, otherwise how many stand how.
fn standing(replicas: &[ReplicaStatus]) -> String {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for replica in replicas {
        *counts.entry(replica.state).or_default() += 1;
    }
    let mut text = match counts.iter().next() {
        None => "no replicas".to_owned(),
        Some((state, _)) if counts.len() == 1 => state.as_str().to_owned(),
        Some(_) => {
            let counted = counts.iter().map(|(state, count)| format!("{count} {}", state.as_str()));
            counted.collect::<Vec<_>>().join(", ")
        }
    };
    let note = replicas.iter().find_map(|replica| replica.note.as_ref());
    if let Some(note) = note {
        let _ = write!(text, ": {note}");
    }
    text
}

fn tree(spec: &Spec, stand: Option<&Stand>, show: Show) -> String {
    let needed: BTreeSet<&ServiceName> =
        spec.services.values().flat_map(|service| service.depends_on.keys()).collect();
    let mut text = String::new();
    let mut tree = Tree { spec, stand, show, told: BTreeSet::new(), text: &mut text };
    // Who is waited for is told below those who wait.
    for name in spec.services.keys().filter(|name| !needed.contains(name)) {
        tree.node(name, None, "", "");
    }
    for (name, group) in &spec.groups {
        let members: Vec<_> = group.services.iter().map(ServiceName::as_str).collect();
        let line = format!(
            "group {name} ({}, {} restarts within {}): {}\n",
            group.strategy.as_str(),
            group.max_restarts,
            crate::time::format_duration(group.within),
            members.join(" then ")
        );
        tree.text.push_str(&line);
    }
    text
}

struct Tree<'a> {
    spec: &'a Spec,
    stand: Option<&'a Stand>,
    show: Show,
    /// What stands below these has been told.
    told: BTreeSet<ServiceName>,
    text: &'a mut String,
}

impl Tree<'_> {
    fn node(&mut self, name: &ServiceName, how: Option<&Dependency>, head: &str, below: &str) {
        let service = self.spec.services.get(name);
        let how = how.map(|how| format!(" ({})", condition(*how))).unwrap_or_default();
        let state = self.stand.map(|stand| {
            let replicas = stand.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            format!(" [{}]", standing(replicas))
        });
        let again = service.is_some_and(|service| !service.depends_on.is_empty())
            && !self.told.insert(name.clone());
        let missing = if service.is_none() { " [not configured]" } else { "" };
        let more = if again { " (see above)" } else { "" };
        let bold = self.show.bold(name.as_str());
        let state = state.filter(|_| service.is_some()).unwrap_or_default();
        let _ = writeln!(self.text, "{head}{bold}{how}{state}{missing}{more}");
        let Some(service) = service.filter(|_| !again) else { return };
        let mut needs = service.depends_on.iter().peekable();
        while let Some((needed, how)) = needs.next() {
            let (branch, line) =
                if needs.peek().is_some() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            self.node(needed, Some(how), &format!("{below}{branch}"), &format!("{below}{line}"));
        }
    }
}

/// A text in double quotes, as DOT reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn dot(spec: &Spec, stand: Option<&Stand>) -> String {
    let mut text = "digraph services {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (name, group) in &spec.groups {
        let label = format!("{name}: {}", group.strategy.as_str());
        let _ = writeln!(text, "  subgraph {} {{", quoted(&format!("cluster_{name}")));
        let _ = writeln!(text, "    label={};", quoted(&label));
        for member in &group.services {
            let _ = writeln!(text, "    {};", quoted(member.as_str()));
        }
        text.push_str("  }\n");
        for pair in group.services.windows(2) {
            let (later, earlier) = (quoted(pair[1].as_str()), quoted(pair[0].as_str()));
            let _ = writeln!(text, "  {later} -> {earlier} [style=dotted];");
        }
    }
    for (name, service) in &spec.services {
        let label = match stand {
            None => name.to_string(),
            Some(stand) => {
                let replicas = stand.get(name.as_str()).map_or(&[][..], Vec::as_slice);
                format!("{name}\\n{}", standing(replicas))
            }
        };
        let label = format!("\"{}\"", label.replace('"', "\\\""));
        let _ = writeln!(text, "  {} [label={label}];", quoted(name.as_str()));
        for (needed, how) in &service.depends_on {
            let style = if how.required { "" } else { ", style=dashed" };
            let (from, to) = (quoted(name.as_str()), quoted(needed.as_str()));
            let label = quoted(&condition(*how));
            let _ = writeln!(text, "  {from} -> {to} [label={label}{style}];");
        }
    }
    text.push_str("}\n");
    text
}

fn object(spec: &Spec, stand: Option<&Stand>) -> Value {
    let services: Map<String, Value> = spec
        .services
        .iter()
        .map(|(name, service)| {
            let mut value =
                json!({ "depends_on": service.depends_on, "profiles": service.profiles });
            if let (Some(stand), Value::Object(map)) = (stand, &mut value) {
                let replicas = stand.get(name.as_str()).map_or(&[][..], Vec::as_slice);
                let states = replicas.iter().map(
                    |one| json!({ "replica": one.replica, "state": one.state, "note": one.note }),
                );
                map.insert("replicas".to_owned(), states.collect());
            }
            (name.to_string(), value)
        })
        .collect();
    let strategy = |strategy: Strategy| strategy.as_str();
    let groups: Map<String, Value> = spec
        .groups
        .iter()
        .map(|(name, group)| {
            let value = json!({ "services": group.services, "strategy": strategy(group.strategy) });
            (name.clone(), value)
        })
        .collect();
    json!({ "services": services, "groups": groups })
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::replica;
    use super::*;

    const FILE: &str = "services:
  web: { command: [a], depends_on: { db: { condition: service_healthy, restart: true }, cache: { required: false } } }
  worker: { command: [a], depends_on: [db] }
  db: { command: [a], depends_on: { disk: service_completed_successfully } }
  disk: { command: [a], restart: no }
  cache: { command: [a] }
  alone: { command: [a], replicas: 2 }
groups:
  core: { services: [cache, worker], strategy: rest_for_one }
";

    fn spec() -> Spec {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        std::fs::write(&file, FILE).unwrap();
        crate::spec::load(&[file], &|_| None).unwrap().spec
    }

    fn stand() -> Stand {
        let mut web = replica("web", 1, State::Waiting);
        web.note = Some("waits for db to be healthy".to_owned());
        let db = replica("db", 1, State::Starting);
        let alone = [State::Running, State::Backoff].map(|state| replica("alone", 1, state));
        [("web", vec![web]), ("db", vec![db]), ("alone", alone.to_vec())]
            .map(|(name, replicas)| (name.to_owned(), replicas))
            .into()
    }

    #[test]
    fn the_graph_is_drawn() {
        let show = Show { terminal: false, color: false };
        let (spec, stand) = (spec(), stand());
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}",
            tree(&spec, None, show),
            tree(&spec, Some(&stand), show),
            dot(&spec, Some(&stand))
        ));
    }

    #[test]
    fn the_json_has_states_where_there_is_a_manager() {
        let whole = object(&spec(), None);
        assert_eq!(whole["services"]["web"]["depends_on"]["db"]["condition"], "service_healthy");
        assert_eq!(whole["services"]["web"]["replicas"], Value::Null);
        assert_eq!(whole["groups"]["core"]["strategy"], "rest_for_one");
        let whole = object(&spec(), Some(&stand()));
        assert_eq!(whole["services"]["web"]["replicas"][0]["note"], "waits for db to be healthy");
    }
}
