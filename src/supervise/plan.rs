//! What a changed configuration means for a service that runs.
//!
//! The difference is derived from the serialised form, never from a list of fields: a field that
//! nobody thought of here means a restart, which is the safe side.

use serde_json::Value;

use crate::spec::Service;

/// What takes effect without a restart, as dotted paths of a service.
pub const LIVE: &[&str] =
    &["labels", "logging", "port.timeout", "replicas", "restart", "start_timeout", "stop"];

/// Whether a run of `old` has to make room for a run of `new`.
pub fn restart_needed(old: &Service, new: &Service) -> bool {
    if old == new {
        return false;
    }
    match (serde_json::to_value(old), serde_json::to_value(new)) {
        (Ok(old), Ok(new)) => differ(&old, &new, ""),
        _ => true,
    }
}

/// Whether anything that is not live differs at or below `path`.
fn differ(old: &Value, new: &Value, path: &str) -> bool {
    if LIVE.contains(&path) || old == new {
        return false;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return true;
    };
    old.keys().chain(new.keys()).any(|key| {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let absent = Value::Null;
        differ(old.get(key).unwrap_or(&absent), new.get(key).unwrap_or(&absent), &below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Framing, KillScope, Policy, Port};
    use crate::supervise::sample::service;

    fn check(change: impl Fn(&mut Service), needed: bool) {
        let mut old = service("web");
        old.port = Some(Port::default());
        let mut new = old.clone();
        change(&mut new);
        assert_eq!(restart_needed(&old, &new), needed, "{new:?}");
        assert_eq!(restart_needed(&new, &old), needed, "and back");
    }

    #[test]
    fn live_fields_take_effect_in_place() {
        check(|_| {}, false);
        check(|new| new.restart.policy = Policy::Always, false);
        check(|new| new.stop.kill = KillScope::Group, false);
        check(|new| new.logging.max_files = 1, false);
        check(|new| new.start_timeout *= 2, false);
        check(|new| new.replicas = 7, false);
        check(|new| drop(new.labels.insert("a".to_owned(), "b".to_owned())), false);
        check(|new| new.port.as_mut().unwrap().timeout *= 2, false);
    }

    #[test]
    fn everything_else_needs_a_restart() {
        check(|new| new.command.push("-v".to_owned()), true);
        check(|new| drop(new.environment.insert("A".to_owned(), "b".to_owned())), true);
        check(|new| new.user = Some("app".to_owned()), true);
        check(|new| new.working_dir = "/srv".into(), true);
        check(|new| new.limits.core = Some(0), true);
        check(|new| new.port = None, true);
        check(|new| new.port.as_mut().unwrap().framing = Framing::Nul, true);
        check(|new| new.port.as_mut().unwrap().eof_grace *= 2, true);
    }

    #[test]
    fn a_field_nobody_knows_needs_a_restart() {
        let old = serde_json::json!({"name": "web", "restart": {"policy": "no"}});
        let new = serde_json::json!({"name": "web", "restart": {"policy": "always"}, "nice": 5});
        assert!(differ(&old, &new, "") && differ(&new, &old, ""));
    }

    #[test]
    fn every_live_path_exists() {
        let mut service = service("web");
        service.port = Some(Port::default());
        let value = serde_json::to_value(service).unwrap();
        for path in LIVE {
            let pointer = format!("/{}", path.replace('.', "/"));
            assert!(value.pointer(&pointer).is_some(), "{path}");
        }
    }
}
