//! Looking things up: `status` with real processes, `why` as a story of many ends.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Wharf, at, until};

fn json(wharf: &Wharf, words: &[&str]) -> Value {
    let output = wharf.run(words);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn status_shows_the_tree_with_what_each_process_uses() {
    for cgroups in ["auto", "off"] {
        let wharf = Wharf::up(&format!(
            "cgroups: {cgroups}
services:
  web:
    command: [sh, -c, 'echo hello; echo oops >&2; (sleep 1001 & exec sleep 1002) & exec sleep 1003']
  other: {{ command: [sleep, '1004'] }}
"
        ));
        let processes = until("the whole tree", || {
            let status = json(&wharf, &["status", "web", "--json"]);
            let processes = status[0]["processes"].clone();
            let list = processes["list"].as_array()?.clone();
            let sleeps = |one: &Value| one["command"][0] == "sleep";
            (list.len() == 3 && list.iter().all(sleeps)).then_some(processes)
        });
        let list = processes["list"].as_array().unwrap();
        let numbers: BTreeSet<_> =
            list.iter().map(|one| one["command"][1].as_str().unwrap()).collect();
        assert_eq!(numbers, BTreeSet::from(["1001", "1002", "1003"]));
        assert_eq!(
            (&list[0]["command"][1], &list[0]["pid"]),
            (&"1003".into(), &wharf.pid("web").into())
        );
        assert_eq!(processes["tasks"], 3);
        let docs = include_str!("../../docs/LOOKING.md");
        let keys = processes.as_object().unwrap().keys();
        for key in keys.chain(list[0].as_object().unwrap().keys()) {
            assert!(docs.contains(&format!("`{key}`")), "{key} is not in docs/LOOKING.md");
        }
        assert!(processes["memory_bytes"].as_u64() > Some(100_000), "{processes}");
        assert!(list.iter().all(|one| one["memory_bytes"].as_u64() > Some(10_000)), "{processes}");
        let used = wharf.manager()["cgroups"] == "in use";
        assert_eq!(processes["cgroup"].is_string(), used, "{processes}");
        let text = until("both lines", || {
            let text = wharf.ok(&["status", "web"]);
            (text.contains("hello\n") && text.contains("oops\n")).then_some(text)
        });
        for part in [
            "● web/1 running since 20",
            "Main PID: ",
            "sleep), run ",
            "Tasks: 3 in 3 processes",
            "└─",
            "sleep 1003",
            "  Next: it is started again when it fails",
            " stdout hello\n",
            " stderr oops\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("1004"), "{text}");
        assert!(!wharf.ok(&["status", "web", "-n", "0"]).contains(" stdout hello"));
        let all = wharf.ok(&["status"]);
        assert!(all.contains("● web") && all.contains("● other"), "{all}");
        let all = json(&wharf, &["status", "--json"]);
        assert_eq!(all["services"][1]["processes"]["list"][0]["command"][1], "1004");
        wharf.ok(&["stop", "web"]);
        let output = wharf.run(&["status", "web"]);
        assert_eq!(output.status.code(), Some(3));
        let text = crate::support::text(&output.stdout);
        assert!(text.contains("Next: it stays down until `wharf start web/1`"), "{text}");
        assert_eq!(json(&wharf, &["status", "web", "--json"])[0]["processes"], Value::Null);
    }
}

#[test]
fn many_ends_are_told_as_few_stories_with_and_without_a_manager() {
    let wharf = Wharf::up(
        "services:
  crashing:
    command: [sh, -c, 'echo \"attempt at $(date +%s%N): no route\" >&2; exit 3']
    restart: { delay: 1ms, max_delay: 1ms, jitter: 0, max_restarts: 6, on_give_up: stop }
  once: { command: [sh, -c, 'exit 0'], restart: no }
",
    );
    wharf.wait_state("crashing", "failed");
    wharf.wait_records("once", 1);
    let records = wharf.wait_records("crashing", 7);
    assert_eq!(records.len(), 7);
    let check = |present: &str| {
        let why = wharf.ok(&["why", "crashing"]);
        // Six were restarted, the seventh was not: two stories, the oldest first.
        let stories: Vec<_> = why.split("\n\n").collect();
        assert_eq!(stories.len(), 3, "{why}");
        assert!(stories[0].contains("before: 5 more like this "), "{why}");
        assert!(stories[0].contains("last words: attempt at "), "{why}");
        assert!(stories[1].contains("given up") && !stories[1].contains("more like"), "{why}");
        assert!(stories[2].contains(present), "{why}");
        let one = wharf.ok(&["why", "crashing", "-n", "1"]);
        assert!(!one.contains("more like this"), "{one}");
        let all = json(&wharf, &["why", "--json"]);
        let ends = all["exits"].as_array().unwrap();
        assert_eq!(ends.len(), 3, "of both services: {all}");
        let folded = ends.iter().find(|end| end.get("more_like_this").is_some()).unwrap();
        assert_eq!(folded["more_like_this"]["count"], 5);
        assert_eq!(folded["more_like_this"]["from"], records[0]["ts"]);
        assert_eq!(folded["more_like_this"]["to"], records[4]["ts"]);
        assert_eq!(
            (at(folded, "seq"), at(folded, "exit.reason")),
            (&records[5]["seq"], &"failed".into())
        );
        let late = json(&wharf, &["why", "--since", records[6]["ts"].as_str().unwrap(), "--json"]);
        assert_eq!(late["exits"][0]["seq"], records[6]["seq"]);
    };
    check("now: crashing/1 is failed");
    wharf.ok(&["down"]);
    check("now: no manager answers");
    assert!(wharf.ok(&["why"]).contains("now: no manager answers"));
    wharf.fails(4, &["why", "nobody"]);
}

#[test]
fn a_name_that_is_no_service_is_told_by_whatever_looks_up() {
    let wharf = Wharf::up("services:\n  web: { command: [sleep, '1000'] }\n");
    wharf.wait_state("web", "running");
    for words in [
        &["events", "--service", "wbe"][..],
        &["exits", "wbe"],
        &["why", "wbe"],
        &["logs", "wbe"],
        &["ps", "wbe"],
        &["status", "wbe"],
    ] {
        let told = wharf.fails(4, words);
        assert!(told.contains("there is no service wbe (did you mean web?)"), "{words:?} {told}");
    }
    assert_eq!(wharf.ok(&["events", "--service", "web", "--kind", "give_up"]), "");
    assert!(wharf.fails(4, &["logs", "web/7"]).contains("there is no web/7, though there is web"));
    assert!(wharf.fails(4, &["status", "web/7"]).contains("web has 1 replica, there is no web/7"));
    // Two letters are no slip of one another.
    assert!(!wharf.fails(4, &["status", "x"]).contains("did you mean"));
    wharf.ok(&["down"]);
    wharf.fails(4, &["events", "--service", "wbe"]);
}
