//! `wharf profiles`, as a user runs it.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Wharf;
use crate::transcript::names;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        crate::test("commands::profiles_are_listed_and_shown", listed),
        crate::test("commands::a_profile_of_ones_own_comes_first", own),
    ]
}

fn listed() {
    let wharf = Wharf::new("services: {}\n");
    let table = wharf.ok(&["profiles"]);
    let listed: Vec<&str> =
        table.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(listed, names());
    assert!(table.contains("wharf  bc, the calculator with numbers of any length\n"), "{table}");
    let all: Vec<Value> = serde_json::from_str(&wharf.ok(&["profiles", "--json"])).unwrap();
    let bc = all.iter().find(|profile| profile["name"] == "bc").unwrap();
    assert_eq!((&bc["command"], &bc["file"]), (&json!(["bc", "-q"]), &Value::Null));
    assert_eq!(bc["port"]["quit"], "quit");
    let page = wharf.ok(&["profiles", "bc"]);
    for part in ["# bc\n", "ports/bc/port.yaml", "```yaml\n", "command: [bc, -q]\n"] {
        assert!(page.contains(part), "{page}");
    }
    let one: Value = serde_json::from_str(&wharf.ok(&["profiles", "--json", "bc"])).unwrap();
    assert!(one["readme"].as_str().unwrap().starts_with("# bc\n"), "{one}");
    let told = wharf.fails(4, &["profiles", "sqlite"]);
    assert!(told.contains("no profile sqlite (did you mean sqlite3?)"), "{told}");
    wharf.fails(4, &["profiles", "../bc"]);
}

fn own() {
    let wharf = Wharf::new("services: {}\n");
    let put = |name: &str, text: &str| {
        let folder = wharf.folder.join("ports").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("port.yaml"), text).unwrap();
    };
    put("bc", "description: My own\nport: { framing: nul }\n");
    put("mine", "description: Only here\nport: { framing: nul }\n");
    put("wrong", "description: No\nport: { framing: null }\n");
    let table = wharf.ok(&["profiles"]);
    for line in ["ports/  My own\n", "mine", "Only here\n", "(has mistakes)\n"] {
        assert!(table.contains(line), "{line}: {table}");
    }
    let one: Value = serde_json::from_str(&wharf.ok(&["profiles", "--json", "bc"])).unwrap();
    let file = wharf.folder.join("ports/bc/port.yaml");
    assert_eq!((&one["file"], &one["readme"]), (&json!(file), &Value::Null), "{one}");
    assert!(wharf.ok(&["profiles", "mine"]).contains("framing: nul"));
    let told = wharf.fails(3, &["profiles", "wrong"]);
    assert!(told.contains("port.framing"), "{told}");
    let all: Vec<Value> = serde_json::from_str(&wharf.ok(&["profiles", "--json"])).unwrap();
    let wrong = all.iter().find(|profile| profile["name"] == "wrong").unwrap();
    assert_eq!(wrong["mistakes"][0]["path"], "port.framing", "{wrong}");
}
