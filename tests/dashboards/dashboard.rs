//! Reads `dashboards/`: panels, what they ask for, template variables, rules. Judges nothing.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The folder under test.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards"))
}

pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// A YAML file of the folder; a key that stands twice is refused.
pub(crate) fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap()
}

/// The dashboard as Grafana imports it.
pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&text("wharf.json")).unwrap()
}

pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

/// Every panel, rows among them; those inside a collapsed row too.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = list(dashboard, "panels").iter();
    top.flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels"))).collect()
}

/// The panels that show something.
pub(crate) fn shown(dashboard: &Value) -> Vec<&Value> {
    panels(dashboard).into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// What one panel asks for.
pub(crate) struct Target {
    /// The panel's title and the letter of the query.
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) legend: String,
    /// Whether the present is asked for instead of the shown range.
    pub(crate) instant: bool,
    pub(crate) table: bool,
}

pub(crate) fn targets(dashboard: &Value) -> Vec<Target> {
    let mut found = Vec::new();
    for panel in shown(dashboard) {
        for target in list(panel, "targets") {
            found.push(Target {
                name: format!("{} ({})", word(panel, "title"), word(target, "refId")),
                expression: word(target, "expr").to_owned(),
                legend: word(target, "legendFormat").to_owned(),
                instant: target["instant"] == true,
                table: target["format"] == "table",
            });
        }
    }
    found
}

/// The template variables by name.
pub(crate) fn variables(dashboard: &Value) -> Vec<(&str, &Value)> {
    let variables = list(&dashboard["templating"], "list").iter();
    variables.map(|variable| (word(variable, "name"), variable)).collect()
}

/// The expression and the label of a variable's `label_values(expression, label)`.
pub(crate) fn label_values(query: &str) -> Option<(&str, &str)> {
    let inside = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (expression, label) = inside.rsplit_once(',')?;
    Some((expression.trim(), label.trim()))
}

/// What Grafana makes of an expression when everything is selected.
pub(crate) fn substituted(expression: &str) -> String {
    let mut done = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "10s"),
        ("$__range", "1m"),
        ("$job", "wharf"),
        ("$instance", ".+"),
        ("$service", ".+"),
    ] {
        done = done.replace(variable, value);
    }
    assert!(!done.contains('$'), "a variable that nobody gives a value: {done}");
    done
}

/// One alert or recording rule of `alerts.yaml`.
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) alerts: bool,
    pub(crate) whole: Value,
}

pub(crate) fn rules() -> Vec<Rule> {
    let file = yaml("alerts.yaml");
    let all = list(&file, "groups").iter().flat_map(|group| list(group, "rules"));
    all.map(|rule| {
        let alerts = rule.get("alert").is_some();
        Rule {
            name: word(rule, if alerts { "alert" } else { "record" }).to_owned(),
            expression: word(rule, "expr").to_owned(),
            alerts,
            whole: rule.clone(),
        }
    })
    .collect()
}
