//! The rules of Grafana's dashboard-linter, and a few of our own, on `wharf.json`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::dashboard::{
    dashboard, label_values, list, panels, shown, targets, text, variables, word,
};
use crate::expression::selectors;

/// Grafana's names of the units that the dashboard uses; a misspelt one shows plain numbers.
const UNITS: [&str; 9] =
    ["none", "ops", "reqps", "s", "bytes", "Bps", "percentunit", "dateTimeFromNow", "percent"];

const DATASOURCE: &str = "${datasource}";

/// Every rule that the dashboard breaks, one line each.
fn complaints(dashboard: &Value) -> Vec<String> {
    let mut all = of_the_whole(dashboard);
    all.extend(of_variables(dashboard));
    for panel in shown(dashboard) {
        let title = word(panel, "title");
        all.extend(of_panel(panel).into_iter().map(|complaint| format!("{title:?} {complaint}")));
    }
    all.extend(of_places(dashboard));
    for target in targets(dashboard) {
        let broken = of_expression(&target.expression);
        all.extend(broken.into_iter().map(|complaint| format!("{}: {complaint}", target.name)));
    }
    all
}

fn of_the_whole(dashboard: &Value) -> Vec<String> {
    let rules = [
        (dashboard["id"].is_null() && dashboard.get("id").is_some(), "id is not null"),
        (dashboard["uid"] == "wharf", "uid has changed: links to it break"),
        (dashboard["editable"] == false, "it is editable"),
        (dashboard["refresh"] == "30s", "it is not refreshed every 30 s"),
        (!list(dashboard, "tags").is_empty(), "it has no tags"),
        (!word(dashboard, "title").is_empty(), "it has no title"),
        (!word(dashboard, "description").is_empty(), "it has no description"),
        (dashboard["schemaVersion"] == 36, "its schema is not that of Grafana 9"),
        (dashboard.get("__inputs").is_none(), "it asks for inputs when imported"),
    ];
    rules.iter().filter(|rule| !rule.0).map(|rule| rule.1.to_owned()).collect()
}

fn of_variables(dashboard: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let names: Vec<_> = variables(dashboard).iter().map(|variable| variable.0).collect();
    if names != ["datasource", "job", "instance", "service"] {
        all.push(format!("the variables are {names:?}"));
    }
    for (name, variable) in variables(dashboard) {
        let mut must = |holds: bool, complaint: &str| {
            if !holds {
                all.push(format!("variable {name} {complaint}"));
            }
        };
        if name == "datasource" {
            must(variable["type"] == "datasource", "is no data source");
            must(variable["query"] == "prometheus", "is no Prometheus");
            must(variable["label"] == "Data source", "is not labelled as the linter wants");
            continue;
        }
        let (first, rest) = name.split_at(1);
        must(variable["type"] == "query", "is no query");
        must(variable["datasource"]["uid"] == DATASOURCE, "does not use the chosen data source");
        must(word(variable, "label") == first.to_uppercase() + rest, "has another label");
        must(variable["multi"] == true && variable["includeAll"] == true, "is no multi select");
        must(variable["allValue"] == ".+", "has another value for all");
        must(variable["refresh"] == 2, "is not read again when the time range changes");
        must(variable["query"] == variable["definition"], "is defined otherwise than it asks");
        let query = label_values(word(variable, "query"));
        must(query.is_some_and(|(_, label)| label == name), "does not ask for its own label");
        // Each narrows the next: an instance of the chosen jobs, a service of the chosen instances.
        let narrowed: BTreeSet<_> = ["job", "instance", "service"]
            .into_iter()
            .take_while(|before| *before != name)
            .map(|before| format!("{before}=~\"${before}\""))
            .collect();
        let expression = query.map_or("", |(expression, _)| expression);
        must(narrowed.iter().all(|matcher| expression.contains(matcher)), "is not narrowed");
    }
    all
}

fn of_panel(panel: &Value) -> Vec<String> {
    let unit = word(&panel["fieldConfig"]["defaults"], "unit");
    let overrides = list(&panel["fieldConfig"], "overrides").iter();
    let changed = overrides.flat_map(|change| list(change, "properties"));
    let units = changed.filter(|property| property["id"] == "unit");
    let units: Vec<_> = units.map(|property| word(property, "value")).chain([unit]).collect();
    let targets = list(panel, "targets");
    let letters: BTreeSet<_> = targets.iter().map(|target| word(target, "refId")).collect();
    let known = ["stat", "timeseries", "table", "state-timeline"];
    let rules = [
        (known.contains(&word(panel, "type")), "is of a kind that the rules do not know"),
        (!word(panel, "title").is_empty(), "has no title"),
        (word(panel, "description").ends_with('.'), "has no sentence as description"),
        (panel["datasource"]["uid"] == DATASOURCE, "does not use the chosen data source"),
        (panel["datasource"]["type"] == "prometheus", "does not ask a Prometheus"),
        (units.iter().all(|unit| UNITS.contains(unit)), "has a unit that Grafana does not know"),
        (!targets.is_empty(), "asks for nothing"),
        (letters.len() == targets.len(), "names two queries alike"),
        (
            targets.iter().all(|target| target["datasource"]["uid"] == DATASOURCE),
            "has a query that does not use the chosen data source",
        ),
        (
            targets.iter().all(|target| target["instant"] != target["range"]),
            "has a query that is neither instant nor over the range",
        ),
        (
            panel["type"] != "timeseries"
                || targets.iter().all(|target| !word(target, "legendFormat").is_empty()),
            "has a query without a legend",
        ),
    ];
    rules.iter().filter(|rule| !rule.0).map(|rule| rule.1.to_owned()).collect()
}

/// Rows and panels: numbers used once, nothing on top of something else, six rows and one for itself.
fn of_places(dashboard: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut numbers = BTreeSet::new();
    let mut cells = BTreeSet::new();
    let mut titles = BTreeSet::new();
    let mut row = String::new();
    for panel in panels(dashboard) {
        let title = word(panel, "title");
        if panel["type"] == "row" {
            title.clone_into(&mut row);
        } else if !titles.insert((row.clone(), title)) {
            all.push(format!("{title:?} stands twice in its row"));
        }
        if !numbers.insert(panel["id"].as_u64()) {
            all.push(format!("{title:?} has the id of another"));
        }
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        if place("x") + place("w") > 24 {
            all.push(format!("{title:?} does not fit"));
        }
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                if !cells.insert((x, y)) {
                    all.push(format!("{title:?} lies on top of another at {x}, {y}"));
                }
            }
        }
    }
    let rows = panels(dashboard).into_iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.map(|row| word(row, "title")).collect();
    let wanted = [
        "Fleet",
        "Service: $service",
        "Exits by reason",
        "Restarts",
        "Ports",
        "Resources",
        "wharf itself",
    ];
    if rows != wanted {
        all.push(format!("the rows are {rows:?}"));
    }
    all
}

fn of_expression(expression: &str) -> Vec<String> {
    let mut all = Vec::new();
    let found = selectors(expression);
    if found.is_empty() {
        all.push("names no metric".to_owned());
    }
    for selector in found {
        let mut must = |holds: bool, complaint: &str| {
            if !holds {
                all.push(format!("{} {complaint}", selector.metric));
            }
        };
        for variable in ["job", "instance"] {
            let matcher = (variable.to_owned(), "=~".to_owned(), format!("${variable}"));
            must(selector.matchers.contains(&matcher), "is not narrowed by job and instance");
        }
        let counter = ["_total", "_bucket", "_sum", "_count"];
        let counter = counter.iter().any(|end| selector.metric.ends_with(end));
        let function = selector.inside.as_str();
        let growth = ["rate", "irate", "increase"].contains(&function);
        must(counter == growth, "is a counter without a rate, or the rate of no counter");
        match selector.range.as_deref() {
            None | Some("$__rate_interval") => {}
            // How much there was in what is shown: a total, not a curve.
            Some("$__range") => must(function == "increase", "is a rate over the whole range"),
            Some(_) => must(false, "has a range that does not follow the scrape interval"),
        }
    }
    all
}

#[test]
fn the_dashboard_keeps_the_rules() {
    let broken = complaints(&dashboard());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_row_but_the_fleet_and_wharf_itself_follows_the_chosen_service() {
    let dashboard = dashboard();
    let mut row = "";
    for panel in panels(&dashboard) {
        if panel["type"] == "row" {
            row = word(panel, "title");
        }
        let whole = ["Fleet", "wharf itself"].contains(&row);
        for target in list(panel, "targets") {
            for selector in selectors(word(target, "expr")) {
                let chosen = selector.matchers.iter().any(|matcher| matcher.2 == "$service");
                assert_eq!(chosen, !whole, "{row}: {}: {}", word(panel, "title"), selector.metric);
            }
        }
    }
}

/// The rules themselves: each of these breaks one, and is told.
#[test]
fn a_broken_dashboard_is_told_what_is_broken() {
    let spoilt: &[(&str, Value, &str)] = &[
        ("/id", json!(7), "id is not null"),
        ("/editable", json!(true), "editable"),
        ("/refresh", json!("5s"), "not refreshed"),
        ("/templating/list/0/query", json!("loki"), "is no Prometheus"),
        ("/templating/list/1/allValue", json!(".*"), "another value for all"),
        ("/templating/list/1/refresh", json!(1), "not read again"),
        ("/templating/list/2/multi", json!(false), "no multi select"),
        ("/templating/list/3/query", json!("label_values(up, service)"), "not narrowed"),
        ("/panels/1/datasource/uid", json!("prometheus"), "does not use the chosen data source"),
        ("/panels/1/targets/0/datasource/uid", json!("x"), "a query that does not use the chosen"),
        ("/panels/1/title", json!(""), "has no title"),
        ("/panels/1/description", json!(""), "no sentence as description"),
        ("/panels/1/fieldConfig/defaults/unit", json!("seconds"), "unit that Grafana does not"),
        ("/panels/1/targets", json!([]), "asks for nothing"),
        ("/panels/2/id", json!(2), "has the id of another"),
        ("/panels/2/gridPos/x", json!(0), "lies on top of another"),
        ("/panels/1/gridPos/x", json!(23), "does not fit"),
        ("/panels/0/title", json!("Flee"), "the rows are"),
        ("/panels/1/targets/0/expr", json!("vector(1)"), "names no metric"),
        ("/panels/1/targets/0/expr", json!("wharf_x{job=~\"$job\"}"), "job and instance"),
        (
            "/panels/1/targets/0/expr",
            json!("wharf_x_total{job=~\"$job\", instance=~\"$instance\"}"),
            "a counter without a rate",
        ),
        (
            "/panels/1/targets/0/expr",
            json!("rate(wharf_x_total{job=~\"$job\", instance=~\"$instance\"}[5m])"),
            "does not follow the scrape interval",
        ),
        (
            "/panels/1/targets/0/expr",
            json!("rate(wharf_x_total{job=~\"$job\", instance=~\"$instance\"}[$__range])"),
            "over the whole range",
        ),
    ];
    for (place, value, complaint) in spoilt {
        let mut dashboard = dashboard();
        *dashboard.pointer_mut(place).expect(place) = value.clone();
        let told = complaints(&dashboard).join("\n");
        assert!(told.contains(complaint), "{place} {value}: {told:?}");
    }
}

#[test]
fn the_file_is_as_grafana_writes_it() {
    let text = text("wharf.json");
    let written = serde_json::to_string_pretty(&dashboard()).unwrap() + "\n";
    assert_eq!(text, written, "not indented by two, or a key stands twice");
}
