//! What units need of one another, as `depends_on`.

use serde_json::{Map, Value, json};

use super::Unit;
use super::unit::Line;
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;

/// Another unit that one needs.
pub(super) struct Need {
    /// Its full name.
    unit: String,
    /// Whether it is one that must be there, and not only an order.
    strength: Strength,
    from: Origin,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Strength {
    Order,
    Wish,
    Must,
}

/// Takes one key of `[Unit]` over; `false` where it has no equal.
pub(super) fn unit_key(draft: &mut Draft, key: &str, line: &Line, needs: &mut Vec<Need>) -> bool {
    let strength = match key {
        "Description" | "StartLimitIntervalSec" | "StartLimitInterval" | "StartLimitBurst" => {
            return true;
        }
        "After" => Strength::Order,
        "Wants" => Strength::Wish,
        "Requires" | "BindsTo" | "Requisite" => Strength::Must,
        key => return key.starts_with("X-"),
    };
    for unit in line.value.split_whitespace() {
        if unit.ends_with(".target") {
            draft.note(&line.from, format!("{unit} is reached before wharf is started"));
        } else {
            match needs.iter_mut().find(|need| need.unit == unit) {
                Some(known) => known.strength = known.strength.max(strength),
                None => {
                    needs.push(Need { unit: unit.to_owned(), strength, from: line.from.clone() });
                }
            }
        }
    }
    true
}

/// A service that was made of a unit.
pub(super) struct Made {
    /// The unit's full name.
    pub(super) unit: String,
    /// The service's name.
    pub(super) name: String,
    /// What it has reached when others may start: the unit's `Type` says it.
    pub(super) condition: &'static str,
    pub(super) needs: Vec<Need>,
}

/// What a unit must have reached before those that come after it are started.
pub(super) fn condition(unit: &Unit) -> &'static str {
    match unit.last("Service", "Type").map(|line| line.value.as_str()) {
        Some("oneshot") => "service_completed_successfully",
        Some("notify" | "notify-reload") => "service_healthy",
        _ => "service_started",
    }
}

/// Gives services what they need of one another, now that all names are known. `others` are the
/// units of the import that are no services.
pub(super) fn dependencies(job: &mut Job<'_>, made: &[Made], others: &[String]) {
    for one in made {
        let Some(at) = job.drafts.iter().position(|draft| draft.name == one.name) else { continue };
        for need in one.needs.iter().filter(|need| !others.contains(&need.unit)) {
            let draft = &mut job.drafts[at];
            let Some(other) = made.iter().find(|other| other.unit == need.unit) else {
                let why = format!("{} is not part of this import", need.unit);
                draft.lose(&need.from, why, "see to it that it runs");
                continue;
            };
            let mut value = json!({ "condition": other.condition });
            if need.strength == Strength::Wish {
                value["required"] = json!(false);
            }
            if let Some(Value::Object(map)) = draft.keys.get_mut("depends_on") {
                map.insert(other.name.clone(), value);
            } else {
                let map = Map::from_iter([(other.name.clone(), value)]);
                draft.put("depends_on", Value::Object(map), &need.from);
            }
        }
    }
}
