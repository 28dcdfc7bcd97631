//! Debian's Prometheus scrapes a wharf whose services crash, flap, fail for good, talk, mumble and
//! simply run; then every query of the dashboard has an answer and the alerts name the right services.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::dashboard::{
    Target, dashboard, label_values, rules, substituted, targets, variables, word,
};
use crate::documents::{commands, readme};
use crate::prometheus::{Prometheus, escaped, free_port, get, now, shell};
use crate::support::{LIMIT, Wharf, look_again, until};

/// One of each kind of service that there is something to see of.
const SERVICES: &str = r#"version: 1
metrics: { listen: "127.0.0.1:9464" }
services:
  steady:
    command: while sleep 0.2; do echo said; echo complained >&2; done
    shell: true
    replicas: 2
  flapping:
    command: sleep 0.2; kill -KILL $$$$
    shell: true
    restart: { delay: 100ms, max_delay: 200ms, max_restarts: 100000 }
  crashing:
    command: exit 3
    shell: true
    restart: { delay: 300ms, max_restarts: 100000 }
  gone:
    command: exit 1
    shell: true
    restart: { delay: 50ms, max_restarts: 2 }
  missing:
    command: [/nonexistent/program]
  calculator:
    command: [awk, -W, interactive, "{ print $$1 * $$2; fflush() }"]
    port: { use: awk }
  mumbles:
    command: sleep 0.3; echo this is no packet; exec sleep 1000
    shell: true
    port: { framing: packet4, replies: none }
    restart: { delay: 100ms, max_delay: 200ms, max_restarts: 100000 }
  stopped:
    command: sleep 1000
"#;

/// The two programs, and since when one looks at the other.
struct World {
    wharf: Wharf,
    port: u16,
    prometheus: Prometheus,
    since: f64,
}

impl World {
    fn new() -> Self {
        let port = free_port();
        let services = SERVICES.replace("9464", &port.to_string());
        let wharf = Wharf::new(&services);
        wharf.ok(&["up", "-d"]);
        wharf.wait_state("steady", "running");
        wharf.ok(&["stop", "stopped"]);
        let command = commands().into_iter().find(|command| command.starts_with("prometheus "));
        let prometheus = Prometheus::start(&command.unwrap(), port);
        let since = now();
        Self { wharf, port, prometheus, since }
    }

    /// Why Prometheus has nothing, if that is so.
    fn trouble(&self) -> String {
        let targets = self.prometheus.ask("/api/v1/targets");
        let target = &targets["activeTargets"][0];
        format!(
            "scrape: {} {}\nPrometheus: {}\nwharf: {}",
            target["health"],
            target["lastError"],
            self.prometheus.log(),
            self.wharf.own_log()
        )
    }

    /// Keeps the port busy until `done` finds nothing missing any more.
    #[track_caller]
    fn until_complete<T: std::fmt::Debug>(&self, mut missing: impl FnMut() -> Vec<T>) {
        let start = Instant::now();
        loop {
            assert_eq!(self.wharf.ok(&["call", "calculator", "6 7"]), "42\n");
            let missing = missing();
            if missing.is_empty() {
                return;
            }
            let late = start.elapsed() > LIMIT;
            assert!(!late, "nothing for {missing:#?}\n{}", self.trouble());
            look_again();
        }
    }

    /// Whether a query of the dashboard yields a number, asked as Grafana asks.
    fn has_data(&self, target: &Target) -> bool {
        let expression = substituted(&target.expression);
        if target.instant {
            let found = self.prometheus.query(&expression);
            return found.iter().any(|(_, value)| value.is_finite());
        }
        let found = self.prometheus.query_range(&expression, self.since);
        found.iter().any(|(_, values)| values.iter().any(|value| value.is_finite()))
    }

    /// The services that an alert is about to name or names, by alert.
    fn alerts(&self) -> BTreeSet<(String, String)> {
        let data = self.prometheus.ask("/api/v1/alerts");
        let alerts = data["alerts"].as_array().unwrap().iter();
        let named = alerts.map(|alert| {
            let label = |name: &str| word(&alert["labels"], name).to_owned();
            (label("alertname"), label("service"))
        });
        named.collect()
    }
}

#[test]
fn every_query_has_an_answer_and_every_alert_names_the_right_service() {
    let world = World::new();
    let dashboard = dashboard();
    let mut open = targets(&dashboard);
    assert!(open.len() > 40);
    world.until_complete(|| {
        open.retain(|target| !world.has_data(target));
        open.iter().map(|target| format!("{}: {}", target.name, target.expression)).collect()
    });
    variables_are_filled(&world, &dashboard);
    the_numbers_are_those_of_the_services(&world);
    the_rules_are_evaluated(&world);
    a_refused_configuration_is_told(&world);
    the_commands_of_the_documentation_work(&world);
}

/// What stands in the lists from which one chooses.
fn variables_are_filled(world: &World, dashboard: &Value) {
    let wanted: [(&str, &[&str]); 3] = [
        ("job", &["wharf"]),
        ("instance", &[&format!("127.0.0.1:{}", world.port)]),
        (
            "service",
            &[
                "calculator",
                "crashing",
                "flapping",
                "gone",
                "missing",
                "mumbles",
                "steady",
                "stopped",
            ],
        ),
    ];
    let variables = variables(dashboard);
    for (name, values) in wanted {
        let variable = variables.iter().find(|variable| variable.0 == name).unwrap().1;
        let (expression, label) = label_values(word(variable, "query")).unwrap();
        let matching = escaped(&substituted(expression));
        let found =
            world.prometheus.ask(&format!("/api/v1/label/{label}/values?match[]={matching}"));
        assert_eq!(found, serde_json::json!(values), "{name}");
    }
}

/// A few numbers, as Prometheus has them, that are known otherwise.
fn the_numbers_are_those_of_the_services(world: &World) {
    let holds = [
        ("wharf_service_replicas{service=\"steady\"}", "== 2"),
        ("wharf_service_replicas_desired{service=\"steady\"}", "== 2"),
        ("wharf_service_replicas_desired{service=\"stopped\"}", "== 0"),
        ("wharf_service_state{service=\"stopped\", state=\"stopped\"}", "== 1"),
        ("wharf_service_state{service=\"gone\", state=\"failed\"}", "== 1"),
        ("wharf_restart_budget_remaining{service=\"gone\"}", "== 0"),
        ("wharf_process_exits_total{service=\"gone\", reason=\"failed\"}", "== 3"),
        ("wharf_service_restarts_total{service=\"gone\"}", "== 2"),
        ("wharf_process_exits_total{service=\"missing\", reason=\"exec_failed\"}", "> 0"),
        ("wharf_process_exits_total{service=\"flapping\", reason=\"signaled\"}", "> 3"),
        ("sum(wharf_process_exits_total{service=\"steady\"})", "== 0"),
        ("wharf_last_exit_code{service=\"crashing\"}", "== 3"),
        ("wharf_last_exit_signal{service=\"flapping\"}", "== 9"),
        ("wharf_port_frames_total{service=\"calculator\", direction=\"out\"}", "> 0"),
        ("sum(wharf_port_protocol_errors_total{service=\"mumbles\"})", "> 0"),
        ("wharf_log_lines_total{service=\"steady\", stream=\"stderr\"}", "> 1"),
        ("wharf_open_fds{service=\"steady\"}", "> 5"),
        ("wharf_worst_fd_ratio{service=\"steady\"}", "< 0.5"),
        ("wharf_config_last_reload_successful", "== 1"),
        ("wharf_journal_write_errors_total", "== 0"),
    ];
    let mut open = holds.to_vec();
    world.until_complete(|| {
        open.retain(|(expression, condition)| {
            world.prometheus.query(&format!("{expression} {condition}")).is_empty()
        });
        open.iter()
            .map(|(expression, condition)| {
                (*condition, *expression, world.prometheus.query(expression))
            })
            .collect()
    });
}

/// The shipped rules run without a fault; those alerts and no others are on their way.
fn the_rules_are_evaluated(world: &World) {
    let named = |alert: &str, service: &str| (alert.to_owned(), service.to_owned());
    let wanted = [
        named("ServiceFlapping", "flapping"),
        named("ServiceFlapping", "mumbles"),
        named("ServiceFailed", "gone"),
        named("ProtocolErrors", "mumbles"),
    ];
    world.until_complete(|| {
        let alerts = world.alerts();
        let open = wanted.iter().filter(|alert| !alerts.contains(alert));
        open.cloned().collect()
    });
    world.until_complete(|| {
        let recorded = world.prometheus.query("service:wharf_process_exits:rate5m > 0");
        if recorded.is_empty() { vec!["the recording rule"] } else { vec![] }
    });
    let evaluated = world.prometheus.ask("/api/v1/rules");
    let groups = evaluated["groups"].as_array().unwrap().iter();
    let evaluated: Vec<_> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert_eq!(evaluated.len(), rules().len());
    for rule in evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // `crashing` and `missing` may flap as well; whoever is well is never named.
    let possible = ["flapping", "mumbles", "crashing", "missing", "gone"];
    for (alert, service) in world.alerts() {
        // A machine under load may miss one scrape of a second.
        let late = alert == "ManagerDown";
        assert!(late || possible.contains(&service.as_str()), "{alert} names {service:?}");
    }
}

fn a_refused_configuration_is_told(world: &World) {
    let good = world.wharf.read("services.yaml");
    world.wharf.write(&good.replace("replicas: 2", "replicas: many"));
    world.wharf.fails(3, &["reload"]);
    let refused = ("ConfigReloadFailed".to_owned(), String::new());
    world.until_complete(|| {
        if world.alerts().contains(&refused) { vec![] } else { vec!["the refusal"] }
    });
    world.wharf.write(&good);
    world.wharf.ok(&["reload"]);
    world.until_complete(|| {
        if world.alerts().contains(&refused) { vec!["the acceptance"] } else { vec![] }
    });
}

/// What the documentation asks of a running wharf, beside the command that started Prometheus.
fn the_commands_of_the_documentation_work(world: &World) {
    let address = format!("127.0.0.1:{}", world.port);
    let asking: Vec<_> =
        commands().into_iter().filter(|command| command.contains("127.0.0.1:9464")).collect();
    assert!(!asking.is_empty());
    for command in asking {
        let command = command.replace("127.0.0.1:9464", &address);
        let (worked, said) = shell(&world.wharf.folder, &command);
        assert!(worked, "{command}: {said}");
    }
    assert!(readme().contains("metrics: { listen: \"127.0.0.1:9464\" }"));
    assert!(SERVICES.contains("metrics: { listen: \"127.0.0.1:9464\" }"));
}

/// A wharf that is gone is told by the one thing that is left: that it does not answer.
#[test]
fn a_wharf_that_is_gone_is_told() {
    let world = World::new();
    let down = ("ManagerDown".to_owned(), String::new());
    until("a scrape", || (!world.prometheus.query("up == 1").is_empty()).then_some(()));
    until("no alert", || (!world.alerts().contains(&down)).then_some(()));
    world.wharf.ok(&["down"]);
    assert!(get(world.port, "/metrics").is_err(), "it still answers");
    until("the alert", || world.alerts().contains(&down).then_some(()));
}
