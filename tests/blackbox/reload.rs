//! A reload touches what changed and nothing else, for every field there is.

use serde_json::Value;

use crate::support::{Wharf, until};

const BASE: &str = "services:
  changed:
    command: [sh, -c, 'exec sleep 1000']
  same: { command: [sleep, '1000'] }
";

fn state_of(wharf: &Wharf, service: &str) -> (Value, Value) {
    let row = wharf.wait_state(service, "running");
    (row["pid"].clone(), row["incarnation"].clone())
}

#[test]
fn t38_an_unchanged_or_recommented_file_restarts_nothing() {
    let wharf = Wharf::up(BASE);
    let before = [state_of(&wharf, "changed"), state_of(&wharf, "same")];
    for yaml in [
        BASE.to_owned(),
        format!("# a comment\n{BASE}# another\n"),
        "services:\n  same: { command: \"sleep 1000\" }\n  changed: { command: ['sh', '-c', \"exec sleep 1000\"], replicas: 1 }\n".to_owned(),
    ] {
        wharf.write(&yaml);
        let plan = wharf.ok(&["reload", "--plan", "--json"]);
        assert!(!plan.contains("\"restart\"") && !plan.contains("\"live\""), "{plan}");
        wharf.ok(&["reload"]);
        assert_eq!(before, [state_of(&wharf, "changed"), state_of(&wharf, "same")]);
    }
    assert!(wharf.records().is_empty());
}

/// For each field of a service that works: another value, and whether the program must be started
/// again for it.
const FIELDS: &[(&str, &str, bool)] = &[
    ("command", "[sh, -c, 'exec sleep 1001']", true),
    ("working_dir", "/tmp", true),
    ("environment", "{ A: b }", true),
    ("env_file", "variables.env", true),
    ("listen", "[{ name: a, unix: a.sock }]", true),
    ("secrets", "[{ name: a, file: variables.env }]", true),
    ("config_files", "[variables.env]", false),
    ("reload_signal", "HUP", false),
    ("on_event", "{ exec: 'true', events: [give_up] }", false),
    ("user", "'0'", true),
    ("replicas", "2", false),
    ("port", "{ replies: one }", true),
    ("ready", "{ exec: 'true' }", true),
    ("healthcheck", "{ exec: 'true' }", false),
    ("watchdog", "1h", true),
    ("max_memory", "1GiB", false),
    ("max_lifetime", "1h", false),
    ("restart", "always", false),
    ("start_timeout", "59s", false),
    ("stop_signal", "SIGINT", false),
    ("stop_grace_period", "9s", false),
    ("stop_kill", "group", false),
    ("on_manager_exit", "keep", true),
    ("logging", "{ max_files: 4 }", false),
    ("limits", "{ nofile: 512 }", true),
    ("umask", "'027'", true),
    ("nice", "5", true),
    ("oom_score_adj", "500", true),
    ("group_add", "['4242']", true),
    ("no_new_privileges", "true", true),
    ("cap_drop", "[ALL]", true),
    ("schedule", "{ every: 1h }", false),
    ("labels", "{ a: b }", false),
    ("depends_on", "[same]", false),
    ("profiles", "[dev]", false),
];

#[test]
fn t39_every_field_has_exactly_its_effect() {
    let wharf = Wharf::up(BASE);
    let is_root = nix::unistd::geteuid().is_root();
    let same = state_of(&wharf, "same");
    std::fs::write(wharf.folder.join("variables.env"), "FROM_A_FILE=x\n").unwrap();
    for (field, value, restarts) in FIELDS {
        if ["user", "group_add", "cap_drop"].contains(field) && !is_root {
            // Only root may become somebody; what an ordinary user gets is another test's matter.
            continue;
        }
        let before = state_of(&wharf, "changed");
        let yaml = if *field == "command" {
            BASE.replace("'exec sleep 1000'", "'exec sleep 1001'")
        } else {
            BASE.replace("1000']\n  same", &format!("1000']\n    {field}: {value}\n  same"))
        };
        wharf.write(&yaml);
        let plan: Value = serde_json::from_str(&wharf.ok(&["reload", "--plan", "--json"])).unwrap();
        let changes = plan["changes"].as_array().unwrap();
        let change = changes.iter().find(|change| change["service"] == "changed").unwrap();
        assert_eq!(change["change"], "changed", "{field}: {plan}");
        assert_eq!(change["effect"], if *restarts { "restart" } else { "live" }, "{field}");
        let named = change["fields"].as_array().unwrap();
        // Files of variables are read with the configuration, and what they say is what counts.
        let root = match *field {
            "env_file" => "environment.FROM_A_FILE",
            "on_event" => field,
            other => other.split('_').next().unwrap(),
        };
        assert!(
            named.iter().any(|path| path.as_str().unwrap().contains(root)),
            "{field}: {named:?}"
        );
        assert_eq!(state_of(&wharf, "changed"), before, "a plan changes nothing");

        wharf.ok(&["reload"]);
        if *restarts {
            until("another run", || (state_of(&wharf, "changed") != before).then_some(()));
            let record = wharf.records_of("changed").pop().unwrap();
            assert_eq!(record["exit"]["cause"], "config_changed", "{field}");
        } else {
            assert_eq!(state_of(&wharf, "changed"), before, "{field}");
        }
        if *field == "replicas" {
            let count = || wharf.ps().iter().filter(|row| row["service"] == "changed").count();
            until("the second replica", || (count() == 2).then_some(()));
        }
        assert_eq!(state_of(&wharf, "same"), same, "{field}: the neighbour is left alone");
        // Back to where it was.
        wharf.write(BASE);
        wharf.ok(&["reload"]);
        until("one replica as before", || {
            let rows: Vec<_> =
                wharf.ps().into_iter().filter(|row| row["service"] == "changed").collect();
            (rows.len() == 1 && rows[0]["state"] == "running").then_some(())
        });
    }
}

#[test]
fn t39_every_supported_field_is_tried() {
    // The schema is the list of what there is; a field that works must be in the table above.
    let schema = wharf::spec::schema();
    let service = &schema["$defs"]["Service"]["properties"];
    let properties = service.as_object().expect("the schema describes a service");
    let tried: Vec<&str> = FIELDS.iter().map(|(field, ..)| *field).collect();
    for (name, property) in properties {
        let later = property["x-supported"] == false || name == "shell";
        assert!(later || tried.contains(&name.as_str()), "{name} is tried by nobody");
    }
}

#[test]
fn services_come_and_go() {
    let wharf = Wharf::up(BASE);
    let same = state_of(&wharf, "same");
    wharf.write(
        "services:\n  same: { command: [sleep, '1000'] }\n  new: { command: [sleep, '1000'] }\n",
    );
    let told = wharf.ok(&["reload"]);
    assert!(told.contains("changed") && told.contains("new"), "{told}");
    wharf.wait_state("new", "running");
    until("the removed one to go", || wharf.row("changed").is_null().then_some(()));
    assert_eq!(wharf.records_of("changed")[0]["exit"]["cause"], "config_changed");
    assert_eq!(state_of(&wharf, "same"), same);
}
