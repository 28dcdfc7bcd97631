//! What Prometheus's own tool says of rules, configuration and every query of the dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::dashboard::{
    dashboard, folder, label_values, list, rules, substituted, targets, variables, word, yaml,
};

/// What promtool says, and whether it is content.
fn promtool(folder: &Path, words: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(words).current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[track_caller]
fn content(folder: &Path, words: &[&str]) -> String {
    let (content, said) = promtool(folder, words);
    assert!(content, "promtool {words:?}: {said}");
    said
}

#[test]
fn rules_and_configuration_are_valid() {
    let strict = ["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"];
    let said = content(&folder(), &strict);
    assert!(said.contains(&format!("{} rules found", rules().len())), "{said}");
    content(&folder(), &["check", "config", "prometheus.yaml"]);
    content(&folder(), &["test", "rules", "alerts_test.yaml"]);
}

#[test]
fn every_query_of_the_dashboard_is_valid() {
    let dashboard = dashboard();
    let mut expressions: Vec<_> =
        targets(&dashboard).iter().map(|target| substituted(&target.expression)).collect();
    for (_, variable) in variables(&dashboard) {
        let query = label_values(word(variable, "query"));
        expressions.extend(query.map(|(expression, _)| substituted(expression)));
    }
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(at, expression)| json!({ "record": format!("query:{at}"), "expr": expression }))
        .collect();
    let scratch = tempfile::tempdir().unwrap();
    let check = |rules: &[Value]| {
        let file = json!({ "groups": [{ "name": "queries", "rules": rules }] });
        fs::write(scratch.path().join("queries.yaml"), file.to_string()).unwrap();
        promtool(scratch.path(), &["check", "rules", "queries.yaml"])
    };
    let (valid, said) = check(&rules);
    assert!(valid && said.contains(&format!("{} rules found", rules.len())), "{said}");
    // The check finds what it is for.
    let (valid, said) = check(&[json!({ "record": "query:0", "expr": "sum by (rate(x[10s]))" })]);
    assert!(!valid, "{said}");
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    for rule in rules().iter().filter(|rule| rule.alerts) {
        let severity = word(&rule.whole["labels"], "severity");
        assert!(["warning", "critical"].contains(&severity), "{}: {severity:?}", rule.name);
        let annotations = &rule.whole["annotations"];
        assert!(!word(annotations, "summary").is_empty(), "{}", rule.name);
        assert!(word(annotations, "description").contains("wharf"), "{}: no command", rule.name);
    }
}

#[test]
fn the_alerts_are_those_that_are_promised() {
    let names: BTreeSet<_> = rules().into_iter().map(|rule| rule.name).collect();
    for name in [
        "BackoffLong",
        "ConfigReloadFailed",
        "FdNearLimit",
        "JournalWriteErrors",
        "ManagerDown",
        "ProtocolErrors",
        "ServiceFailed",
        "ServiceFlapping",
        "ServiceOOMKilled",
        "service:wharf_process_exits:rate5m",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

/// Of each alert the tests ask for a time at which it fires and one at which it does not; and they
/// notice when it fires always or never.
#[test]
fn each_alert_is_tested_firing_and_not_firing() {
    let tests = yaml("alerts_test.yaml");
    let cases: Vec<_> =
        list(&tests, "tests").iter().flat_map(|test| list(test, "alert_rule_test")).collect();
    for rule in rules().iter().filter(|rule| rule.alerts) {
        let of_it = cases.iter().filter(|case| case["alertname"] == rule.name.as_str());
        let (quiet, firing): (Vec<&Value>, Vec<&Value>) =
            of_it.partition(|case| list(case, "exp_alerts").is_empty());
        assert!(!quiet.is_empty() && !firing.is_empty(), "{}", rule.name);
        for expression in ["vector(0) > 1", "vector(1)"] {
            let (content, said) = with_expression(&rule.name, expression);
            assert!(!content, "{} as {expression} is not noticed: {said}", rule.name);
            assert!(said.contains(&rule.name), "{said}");
        }
    }
}

/// The tests of the rules, with one alert's expression replaced.
fn with_expression(alert: &str, expression: &str) -> (bool, String) {
    let scratch = tempfile::tempdir().unwrap();
    let mut file = yaml("alerts.yaml");
    for group in file["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            if rule["alert"] == alert {
                rule["expr"] = json!(expression);
            }
        }
    }
    fs::write(scratch.path().join("alerts.yaml"), file.to_string()).unwrap();
    fs::copy(folder().join("alerts_test.yaml"), scratch.path().join("alerts_test.yaml")).unwrap();
    promtool(scratch.path(), &["test", "rules", "alerts_test.yaml"])
}
