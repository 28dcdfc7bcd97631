//! Dashboard, alerts and the catalogue of metrics name the same things.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::dashboard::{dashboard, label_values, list, rules, targets, variables, word};
use crate::expression::{Selector, kept_labels, named_labels, selectors};

/// Labels that Prometheus itself puts on whatever it scrapes.
const PROMETHEUS: [&str; 2] = ["job", "instance"];

/// The metrics by name, each with its type and labels.
fn catalogue() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = include_str!("../../docs/metrics.json");
    let rows: Vec<Value> = serde_json::from_str(text).unwrap();
    let labels = |row: &Value| {
        list(row, "labels").iter().map(|label| label.as_str().unwrap().to_owned()).collect()
    };
    rows.iter()
        .map(|row| (word(row, "name").to_owned(), (word(row, "type").to_owned(), labels(row))))
        .collect()
}

/// The catalogue's name of a metric in an expression: a histogram is used by its parts.
fn base<'a>(
    metric: &'a str,
    catalogue: &BTreeMap<String, (String, BTreeSet<String>)>,
) -> Option<&'a str> {
    if let Some((kind, _)) = catalogue.get(metric) {
        return (kind != "histogram").then_some(metric);
    }
    let parts = ["_bucket", "_sum", "_count"];
    let base = parts.iter().find_map(|part| metric.strip_suffix(part))?;
    catalogue.get(base).is_some_and(|(kind, _)| kind == "histogram").then_some(base)
}

/// Every use of a metric, with where it is.
fn uses() -> Vec<(String, Selector)> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    let mut add = |place: &str, expression: &str| {
        let here = selectors(expression);
        assert!(!here.is_empty(), "{place} names no metric");
        found.extend(here.into_iter().map(|selector| (place.to_owned(), selector)));
    };
    for target in targets(&dashboard) {
        add(&target.name, &target.expression);
    }
    for (name, variable) in variables(&dashboard) {
        if let Some((expression, _)) = label_values(word(variable, "query")) {
            add(name, expression);
        }
    }
    for rule in rules() {
        add(&rule.name, &rule.expression);
    }
    found
}

#[test]
fn whatever_is_named_exists_and_has_the_labels_it_is_asked_for() {
    let catalogue = catalogue();
    let records: Vec<_> = rules().into_iter().filter(|rule| !rule.alerts).collect();
    for (place, selector) in uses() {
        // `up` is Prometheus's own.
        if selector.metric == "up" || records.iter().any(|rule| rule.name == selector.metric) {
            continue;
        }
        let base = base(&selector.metric, &catalogue);
        let base = base.unwrap_or_else(|| panic!("{place}: there is no {}", selector.metric));
        for (label, _, _) in &selector.matchers {
            let known = catalogue[base].1.contains(label) || PROMETHEUS.contains(&label.as_str());
            assert!(known, "{place}: {base} has no label {label}");
        }
    }
}

#[test]
fn whatever_exists_is_shown_or_watched() {
    let catalogue = catalogue();
    let used: BTreeSet<_> = uses()
        .iter()
        .filter_map(|(_, selector)| base(&selector.metric, &catalogue).map(str::to_owned))
        .collect();
    let unused: Vec<_> = catalogue.keys().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "nothing shows {unused:?}");
}

/// What an expression yields has these labels: those kept by `by`, else those of its metrics.
fn yielded(
    expression: &str,
    catalogue: &BTreeMap<String, (String, BTreeSet<String>)>,
) -> BTreeSet<String> {
    let kept = kept_labels(expression);
    if !kept.is_empty() {
        return kept.into_iter().collect();
    }
    let own = selectors(expression);
    let own = own.iter().filter_map(|selector| base(&selector.metric, catalogue));
    let own = own.flat_map(|name| catalogue[name].1.iter().cloned());
    own.chain(PROMETHEUS.map(str::to_owned)).collect()
}

#[test]
fn every_label_that_is_kept_or_shown_is_one_that_there_is() {
    let catalogue = catalogue();
    let check = |place: &str, expression: &str, shown: &str| {
        let mut there: BTreeSet<_> = PROMETHEUS.map(str::to_owned).into();
        there.insert("le".to_owned());
        for selector in selectors(expression) {
            let base = base(&selector.metric, &catalogue);
            there.extend(base.iter().flat_map(|base| catalogue[*base].1.iter().cloned()));
        }
        for label in kept_labels(expression) {
            assert!(there.contains(&label), "{place}: nothing here has the label {label}");
        }
        for label in named_labels(shown) {
            let yielded = yielded(expression, &catalogue);
            assert!(yielded.contains(&label), "{place}: shows {label}, which it does not keep");
        }
    };
    for target in targets(&dashboard()) {
        check(&target.name, &target.expression, &target.legend);
    }
    for rule in rules() {
        let annotations = &rule.whole["annotations"];
        let said = format!("{} {}", word(annotations, "summary"), word(annotations, "description"));
        check(&rule.name, &rule.expression, &said);
    }
}

/// What a curve is called tells it from every other curve of its panel.
#[test]
fn a_legend_names_every_label_that_is_kept() {
    for target in targets(&dashboard()).iter().filter(|target| !target.table) {
        let named = named_labels(&target.legend);
        for label in kept_labels(&target.expression) {
            // `le` is used up by the quantile.
            assert!(label == "le" || named.contains(&label), "{}: {label}", target.name);
        }
    }
}
