//! Services that wait for one another, live and die together, and make room one after the other.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Wharf, alive, at, text, times, until};

/// What began and ended, in the order of time, as `+db/1` and `-db/1`. (An end is told when its record is
/// on disk, which may be after the start of another service that followed it.)
fn story(wharf: &Wharf) -> Vec<String> {
    let told = wharf.ok(&["events", "--json"]);
    let mut events: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    events.sort_by_key(|event| event["ts"].as_str().unwrap().to_owned());
    events
        .into_iter()
        .filter_map(|event| {
            let sign = match event["kind"].as_str()? {
                "start" => "+",
                "exit" => "-",
                _ => return None,
            };
            let service = &event["service"];
            Some(format!("{sign}{}/{}", service["name"].as_str()?, service["replica"]))
        })
        .collect()
}

/// Where something stands in the story, the last time.
#[track_caller]
fn place(story: &[String], what: &str) -> usize {
    story.iter().rposition(|one| one == what).unwrap_or_else(|| panic!("no {what} in {story:?}"))
}

fn note(wharf: &Wharf, service: &str, what: &str) {
    until(what, || (wharf.row(service)["note"].as_str() == Some(what)).then_some(()));
}

#[test]
fn t43_a_dependency_that_becomes_ready_late_is_waited_for() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sleep, '1000'], depends_on: { db: { condition: service_healthy } } }
  db:
    command: [bash, -c, 'until [ -e go ]; do read -t 0.01 x; done <> <(:); echo hello; exec sleep 1000']
    port: { ready: first_message }
",
    );
    note(&wharf, "web", "waits for db to be healthy");
    assert_eq!(wharf.row("web")["state"], "waiting");
    assert!(wharf.ok(&["ps"]).contains("waiting for db to be healthy"));
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    wharf.wait_state("web", "running");
    let story = story(&wharf);
    assert_eq!(story, ["+db/1", "+web/1"]);
    wharf.ok(&["down"]);
    let records = wharf.records();
    let ended: Vec<_> =
        records.iter().map(|one| at(one, "service.name").as_str().unwrap()).collect();
    assert_eq!(ended, ["web", "db"], "what others depend on ends after them");
}

#[test]
fn t43_a_dependency_that_fails_skips_those_who_need_it_until_it_comes_back() {
    let wharf = Wharf::up(
        "services:
  optional: { command: [sleep, '1000'], depends_on: { db: { required: false } } }
  last: { command: [sleep, '1000'], depends_on: [web] }
  web: { command: [sleep, '1000'], depends_on: { migrate: service_completed_successfully } }
  migrate: { command: [bash, -c, 'test -e fixed'], restart: no }
  db: { command: ./no-such-program }
",
    );
    note(&wharf, "web", "skipped: migrate has failed and has not completed");
    note(&wharf, "last", "skipped: web has failed");
    assert_eq!(wharf.row("web")["state"], "failed");
    wharf.wait_state("optional", "running");
    assert!(wharf.records_of("web").is_empty(), "it never ran");
    let why = wharf.ok(&["why", "web"]);
    assert!(why.contains("skipped: migrate has failed"), "{why}");
    let status = text(&wharf.run(&["status", "web"]).stdout);
    assert!(status.contains("skipped: migrate has failed"), "{status}");
    let told = wharf.ok(&["events", "--json"]);
    let because = "\"because\":\"skipped: migrate has failed and has not completed\"";
    assert!(told.replace("\": \"", "\":\"").contains(because), "{told}");
    // A start that cannot come true says so; it tries what the service needs once more.
    let refused = wharf.fails(1, &["start", "web"]);
    assert!(refused.contains("skipped: migrate has failed"), "{refused}");
    wharf.wait_records("migrate", 2);
    // When the dependency comes back, so do those who were skipped, in order.
    std::fs::write(wharf.folder.join("fixed"), "").unwrap();
    wharf.ok(&["start", "migrate"]);
    wharf.wait_state("last", "running");
    let story = story(&wharf);
    assert!(place(&story, "+web/1") < place(&story, "+last/1"), "{story:?}");
    assert!(place(&story, "-migrate/1") < place(&story, "+web/1"), "{story:?}");
}

#[test]
fn t43_a_dependency_that_restarts_or_exits_fast_leaves_nobody_waiting() {
    let wharf = Wharf::up(
        "services:
  after: { command: [sleep, '1000'], depends_on: { job: service_completed_successfully } }
  beside: { command: [sleep, '1000'], depends_on: [job] }
  never: { command: [sleep, '1000'], depends_on: { quick: service_healthy } }
  quick: { command: ['true'], port: { ready: first_message } }
  job:
    command: [bash, -c, 'test -e once && exit 0; touch once; exit 1']
    restart: { delay: 10ms }
",
    );
    wharf.wait_state("after", "running");
    wharf.wait_state("beside", "running");
    note(&wharf, "never", "skipped: quick has finished and is not healthy");
    assert_eq!(wharf.records_of("job").len(), 2);
    for row in wharf.ps() {
        assert_ne!(row["state"], "waiting", "{row}");
    }
}

#[test]
fn a_stop_is_for_one_unless_its_dependents_are_meant_too() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sleep, '1000'], depends_on: [db] }
  top: { command: [sleep, '1000'], depends_on: [web] }
  db: { command: [sleep, '1000'] }
",
    );
    let top = wharf.wait_state("top", "running")["pid"].clone();
    let web = wharf.pid("web");
    wharf.ok(&["stop", "db"]);
    assert_eq!(wharf.row("top")["pid"], top, "what depends on it runs on");
    // What ends now is not started without what it needs.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(web), nix::sys::signal::SIGKILL).unwrap();
    note(&wharf, "web", "skipped: db is stopped");
    // A start brings what it needs.
    wharf.ok(&["start", "web"]);
    wharf.wait_state("db", "running");
    let before = story(&wharf).len();
    wharf.ok(&["stop", "db", "--dependents"]);
    assert_eq!(story(&wharf)[before..], ["-top/1", "-web/1", "-db/1"]);
    let records = wharf.records();
    for record in &records[records.len() - 3..] {
        let name = at(record, "service.name").as_str().unwrap();
        let cause = if name == "db" { "stop_requested" } else { "dependency_stopped" };
        assert_eq!(at(record, "exit.cause"), cause, "{record}");
        assert_eq!(at(record, "exit.requested_by.who"), "wharf stop", "{record}");
    }
    wharf.fails(2, &["stop", "db/1", "--dependents"]);
    assert_eq!(wharf.row("top")["state"], "stopped");
}

#[test]
fn a_restart_takes_those_with_it_who_ask_for_it() {
    let wharf = Wharf::up(
        "services:
  with: { command: [sleep, '1000'], depends_on: { db: { restart: true } } }
  without: { command: [sleep, '1000'], depends_on: [db] }
  db: { command: [sleep, '1000'] }
",
    );
    wharf.wait_state("with", "running");
    let without = wharf.wait_state("without", "running")["pid"].clone();
    let before = story(&wharf).len();
    wharf.ok(&["restart", "db"]);
    wharf.wait_records("with", 1);
    wharf.wait_state("with", "running");
    assert_eq!(story(&wharf)[before..], ["-with/1", "-db/1", "+db/1", "+with/1"]);
    assert_eq!(at(&wharf.records_of("with")[0], "exit.cause"), "dependency_stopped");
    assert_eq!(wharf.row("without")["pid"], without);
    // What fails by itself takes nobody with it.
    wharf.ok(&["signal", "db", "KILL"]);
    wharf.wait_records("db", 2);
    wharf.wait_state("db", "running");
    assert_eq!(wharf.records_of("with").len(), 1);
}

#[test]
fn a_dependency_that_rests_takes_those_with_it_too() {
    let wharf = Wharf::up(
        "services:
  app: { command: [sleep, '1000'], depends_on: { migrate: { condition: service_completed_successfully, restart: true } } }
  migrate: { command: ['true'], restart: no }
",
    );
    wharf.wait_state("app", "running");
    wharf.ok(&["restart", "migrate"]);
    let ended = wharf.wait_records("app", 1).remove(0);
    assert_eq!(at(&ended, "exit.cause"), "dependency_stopped", "{ended}");
    wharf.wait_state("app", "running");
    assert_eq!(wharf.records_of("migrate").len(), 2);
}

#[test]
fn t40_a_reload_with_a_cycle_is_refused_and_changes_nothing() {
    let yaml = "services:
  a: { command: [sleep, '1000'], depends_on: [b] }
  b: { command: [sleep, '1000'], depends_on: [c] }
  c: { command: [sleep, '1000'] }
";
    let wharf = Wharf::up(yaml);
    let before = wharf.wait_state("a", "running")["pid"].clone();
    wharf.write(&yaml.replace(
        "  c: { command: [sleep, '1000']",
        "  c: { command: [sleep, '1000'], depends_on: [a]",
    ));
    let refused = wharf.fails(3, &["reload"]);
    assert!(refused.contains("these wait for one another: a -> b -> c -> a"), "{refused}");
    assert!(refused.contains("services.yaml:4:"), "{refused}");
    let refused = wharf.fails(3, &["check"]);
    assert!(refused.contains("a -> b -> c -> a"), "{refused}");
    wharf.write(&yaml.replace("[c]", "[cc]"));
    let refused = wharf.fails(3, &["reload"]);
    assert!(refused.contains("there is no service `cc`") && refused.contains("did you mean `c`?"));
    assert_eq!(wharf.row("a")["pid"], before);
}

#[test]
fn a_removed_or_changed_dependency_converges() {
    let wharf = Wharf::up(
        "services:
  web: { command: [sleep, '1000'], depends_on: { db: { condition: service_healthy } } }
  db: { command: ./no-such-program }
",
    );
    note(&wharf, "web", "skipped: db has failed and is not healthy");
    wharf.write("services:\n  web: { command: [sleep, '1000'] }\n");
    wharf.ok(&["reload"]);
    wharf.wait_state("web", "running");
    wharf.write(
        "services:
  web: { command: [sleep, '1001'], depends_on: { db: { condition: service_healthy } } }
  db: { command: [sleep, '1000'] }
",
    );
    wharf.ok(&["reload"]);
    wharf.wait_records("web", 1);
    wharf.wait_state("web", "running");
    let story = story(&wharf);
    assert!(place(&story, "+db/1") < place(&story, "+web/1"), "{story:?}");
}

fn group(strategy: &str) -> String {
    let mut yaml = "services:\n".to_owned();
    for name in ["a", "b", "c"] {
        let _ = writeln!(yaml, "  {name}: {{ command: [sleep, '1000'], restart: always }}");
    }
    let _ = writeln!(
        yaml,
        "groups:\n  g: {{ services: [a, b, c], strategy: {strategy}, max_restarts: 3, within: 5m }}"
    );
    yaml
}

#[test]
fn t21_groups_restart_in_erlangs_order() {
    for (strategy, order) in [
        ("one_for_one", "-b +b"),
        ("one_for_all", "-b -c -a +a +b +c"),
        ("rest_for_one", "-b -c +b +c"),
    ] {
        let wharf = Wharf::up(&group(strategy));
        wharf.wait_state("c", "running");
        assert_eq!(story(&wharf), ["+a/1", "+b/1", "+c/1"], "{strategy}");
        wharf.ok(&["signal", "b", "KILL"]);
        let order: Vec<_> = order.split(' ').map(|one| format!("{one}/1")).collect();
        until("all to be told", || (story(&wharf).len() == 3 + order.len()).then_some(()));
        assert_eq!(story(&wharf)[3..], order, "{strategy}");
        for record in wharf.records() {
            let own = at(&record, "service.name") == "b";
            let cause = if own { "signal_requested" } else { "group_strategy" };
            assert_eq!(at(&record, "exit.cause"), cause, "{record}");
            let evidence = at(&record, "exit.evidence").to_string();
            assert_eq!(evidence.contains("because of b/1 (signaled)"), !own, "{record}");
        }
    }
}

#[test]
fn t21_one_restart_too_many_ends_the_group_with_the_reason_of_the_last_one() {
    let wharf = Wharf::up(&group("one_for_all"));
    for run in 1..=4 {
        wharf.wait_state("c", "running");
        wharf.wait_state("b", "running");
        wharf.ok(&["signal", "b", "KILL"]);
        wharf.wait_records("b", run);
        wharf.wait_records("a", run);
    }
    for name in ["a", "b", "c"] {
        wharf.wait_state(name, "failed");
        let records = wharf.records_of(name);
        assert_eq!(records.len(), 4, "each restart of the group is one end of each");
        assert_eq!(at(&records[3], "restart.decision"), "gave_up", "{name}");
    }
    let last = &wharf.records_of("b")[3];
    let evidence = at(last, "exit.evidence").to_string();
    assert!(evidence.contains("more than 3 restarts in the group g within 5m"), "{evidence}");
    let other = &wharf.records_of("a")[3];
    assert_eq!(at(other, "exit.cause"), "group_strategy");
    let evidence = at(other, "exit.evidence").to_string();
    assert!(evidence.contains("the group g is given up because of b/1 (signaled)"), "{evidence}");
    assert_eq!(wharf.row("a")["note"], "the group g was given up when b/1 ended");
    // Whoever starts it begins anew.
    wharf.ok(&["start", "a", "b", "c"]);
    wharf.wait_state("c", "running");
}

#[test]
fn t21_a_member_that_is_given_up_escalates() {
    let wharf = Wharf::up(
        "services:
  a: { command: [sleep, '1000'] }
  b: { command: [bash, -c, 'exit 7'], restart: { max_restarts: 1, on_give_up: escalate } }
groups:
  g: { services: [a, b], max_restarts: 100, within: 1m }
",
    );
    wharf.wait_state("a", "failed");
    let record = &wharf.records_of("a")[0];
    assert!(
        at(record, "exit.evidence").to_string().contains("because of b/1 (failed)"),
        "{record}"
    );
    assert_eq!(wharf.records_of("b").len(), 2);
}

#[test]
fn scale_outlives_the_manager_and_yields_to_the_file() {
    let yaml = "services:\n  web: { command: [sleep, '1000'], replicas: 2 }\n";
    let wharf = Wharf::up(yaml);
    let count = || wharf.ps().iter().filter(|row| row["state"] == "running").count();
    until("two", || (count() == 2).then_some(()));
    let said = text(&wharf.run(&["scale", "web=4"]).stderr);
    assert!(said.contains("web/4 is running"), "{said}");
    assert_eq!(count(), 4);
    wharf.ok(&["scale", "web=3"]);
    assert_eq!((count(), wharf.ps().len()), (3, 3), "those above are gone when it is answered");
    // Nothing of the file changed, so a reload keeps it, and so does a new manager.
    assert_eq!(wharf.ok(&["reload", "--plan"]), "nothing changes\n");
    wharf.ok(&["reload"]);
    assert_eq!(wharf.ps().len(), 3);
    let manager = wharf.manager_pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(manager), nix::sys::signal::SIGKILL).unwrap();
    until("another manager", || {
        let known = wharf.try_get("/v1/manager").ok()?;
        let known: Value = serde_json::from_str(&known).unwrap();
        (known["pid"] != manager && count() == 3).then_some(())
    });
    wharf.write(&yaml.replace("replicas: 2", "replicas: 1"));
    wharf.ok(&["reload"]);
    until("what the file says", || (wharf.ps().len() == 1).then_some(()));
    wharf.fails(4, &["scale", "wbe=2"]);
    wharf.fails(2, &["scale", "web"]);
    wharf.fails(2, &["scale", "web=10001"]);
    wharf.ok(&["scale", "web=0"]);
    assert_eq!(wharf.ps().len(), 0);
}

const ROLLED: &str = "services:
  web:
    command: [bash, -c, 'test -e broken && exit 3; echo up; exec sleep 1000']
    replicas: 3
    port: { ready: first_message }
    restart: no
";

#[test]
fn a_rolling_restart_takes_one_replica_after_the_other() {
    let wharf = Wharf::up(ROLLED);
    let ready = || wharf.ps().iter().filter(|row| row["ready"] == true).count();
    until("three", || (ready() == 3).then_some(()));
    for _ in 0..times(20) {
        let before = story(&wharf).len();
        wharf.ok(&["restart", "web", "--rolling"]);
        assert_eq!(ready(), 3);
        let order = ["-web/1", "+web/1", "-web/2", "+web/2", "-web/3", "+web/3"];
        assert_eq!(story(&wharf)[before..], order);
    }
    let pids =
        |wharf: &Wharf| wharf.ps().into_iter().map(|row| row["pid"].clone()).collect::<Vec<_>>();
    // A changed configuration does the same by itself.
    let before = (story(&wharf).len(), pids(&wharf));
    wharf.write(&ROLLED.replace("echo up", "echo UP"));
    wharf.ok(&["reload"]);
    until("all to be new", || (story(&wharf).len() == before.0 + 6 && ready() == 3).then_some(()));
    let order = ["-web/1", "+web/1", "-web/2", "+web/2", "-web/3", "+web/3"];
    assert_eq!(story(&wharf)[before.0..], order);
    // Where a new run does not become ready it stops, and says so.
    let before = pids(&wharf);
    std::fs::write(wharf.folder.join("broken"), "").unwrap();
    let refused = wharf.fails(1, &["restart", "web", "--rolling"]);
    assert!(refused.contains("web/1"), "{refused}");
    assert_eq!(pids(&wharf)[1..], before[1..], "the others keep their runs");
    assert!(wharf.own_log().contains("not ready: the rest keep their present runs"));
    wharf.fails(2, &["restart", "web/2", "--rolling"]);
}

#[test]
fn a_rolled_configuration_that_fails_leaves_the_older_one_running() {
    let wharf = Wharf::up(ROLLED);
    let ready = || wharf.ps().iter().filter(|row| row["ready"] == true).count();
    until("three", || (ready() == 3).then_some(()));
    wharf.write(&ROLLED.replace("exit 3; echo up", "exit 3; exit 4"));
    wharf.ok(&["reload"]);
    let old =
        "it still runs with the configuration before the last reload: web/1 did not become ready";
    until("the note", || (wharf.ps()[2]["note"] == old).then_some(()));
    assert_eq!(ready(), 2);
    assert_eq!(wharf.records_of("web").len(), 2, "the old run of the first and its new one");
    let status = text(&wharf.run(&["status", "web/3"]).stdout);
    assert!(status.contains(old), "{status}");
}

#[test]
fn profiles_choose_what_up_starts() {
    let yaml = "services:
  web: { command: [sleep, '1000'] }
  shell: { command: [sleep, '1000'], profiles: [dev], depends_on: [web] }
  probe: { command: [sleep, '1000'], profiles: [test], depends_on: [shell] }
";
    let states = |wharf: &Wharf| {
        let rows = wharf.ps();
        rows.iter()
            .map(|row| row["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let settled = |wharf: &Wharf, wanted: &str| {
        until(wanted, || (states(wharf) == wanted).then_some(()));
        wharf.ok(&["down"]);
    };
    let wharf = Wharf::new(yaml);
    wharf.ok(&["up", "-d"]);
    settled(&wharf, "running stopped stopped");
    wharf.ok(&["up", "-d", "--profile", "dev"]);
    settled(&wharf, "running running stopped");
    let up = wharf.command(&["up", "-d"]).env("WHARF_PROFILES", "dev,test").output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    settled(&wharf, "running running running");
    // Named, a service is started whatever its profile, with what it needs.
    wharf.ok(&["up", "-d", "shell"]);
    until("both", || (states(&wharf) == "running running stopped").then_some(()));
    // What comes with a reload follows the choice.
    wharf.write(&format!("{yaml}  other: {{ command: [sleep, '1000'], profiles: [dev] }}\n"));
    wharf.ok(&["reload"]);
    settled(&wharf, "running running stopped stopped");
    let refused = wharf.fails(2, &["up", "-d", "--profile", "test"]);
    assert!(
        refused.contains("probe depends on shell") && refused.contains("--profile dev"),
        "{refused}"
    );
    let refused = wharf.fails(2, &["up", "-d", "--profile", "tset"]);
    assert!(refused.contains("did you mean test?"), "{refused}");
}

#[test]
fn the_graph_is_drawn_with_and_without_a_manager() {
    let yaml = "services:
  web: { command: [sleep, '1000'], depends_on: { db: { condition: service_healthy } } }
  db: { command: [sleep, '1000'] }
";
    let wharf = Wharf::new(yaml);
    assert_eq!(wharf.ok(&["graph"]), "web\n└─ db (is healthy)\n");
    let dot = wharf.ok(&["graph", "--dot"]);
    assert!(dot.contains("\"web\" -> \"db\" [label=\"is healthy\"]"), "{dot}");
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("web", "running");
    assert_eq!(wharf.ok(&["graph"]), "web [running]\n└─ db (is healthy) [running]\n");
    let json: Value = serde_json::from_str(&wharf.ok(&["graph", "--json"])).unwrap();
    assert_eq!(json["services"]["web"]["replicas"][0]["state"], "running");
    assert_eq!(json["services"]["web"]["depends_on"]["db"]["condition"], "service_healthy");
}

#[test]
fn what_cannot_be_ended_holds_nobody_up_for_ever() {
    // It ignores the request to stop, so that its dependency waits for the kill.
    let wharf = Wharf::up(
        "services:
  web:
    command: [bash, -c, 'trap \"\" TERM; echo up; while :; do read -t 0.05 x; done <> <(:)']
    stop_grace_period: 300ms
    depends_on: [db]
  db: { command: [sleep, '1000'] }
",
    );
    wharf.wait_state("web", "running");
    until("the trap", || wharf.logs("web").contains("up").then_some(()));
    let db = wharf.pid("db");
    wharf.ok(&["down"]);
    assert!(!alive(db));
    let records = wharf.records();
    assert_eq!(at(&records[0], "exit.stop.escalated"), true, "{}", records[0]);
    assert_eq!(at(&records[1], "service.name"), "db");
}
