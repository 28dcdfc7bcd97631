//! Commands that are run when something happens: what they are told, and that they harm nobody.

use serde_json::Value;

use crate::support::{Wharf, alive, at, marked, script, until};

/// Every `hook.ended` that is kept.
fn ended(wharf: &Wharf) -> Vec<Value> {
    let events = wharf.ok(&["events", "--json", "--kind", "hook"]);
    events.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn wait_ended(wharf: &Wharf, count: usize) -> Vec<Value> {
    until("the hooks to end", || Some(ended(wharf)).filter(|all| all.len() >= count))
}

/// Writes down what it is told: a line for each call.
const CLERK: &str = "#!/bin/sh
exec >> \"$1\"
echo \"$WHARF_EVENT $WHARF_SERVICE/$WHARF_REPLICA run $WHARF_EVENT_INCARNATION secret=$OUTSIDE\"
cat
echo \"$PWD\" >&2
";

/// A service that fails for good at its third start, with these hooks.
fn failing(hooks: &str) -> String {
    format!(
        "{hooks}services:\n  web:\n    command: [sh, -c, 'echo oh no >&2; exit 3']\n    \
         restart: {{ delay: 1ms, max_restarts: 2, within: 60s }}\n"
    )
}

#[test]
fn a_hook_gets_the_record_of_a_service_that_was_given_up() {
    let wharf = Wharf::new(&failing("on_event: { exec: ./clerk book }\n"));
    script(&wharf.folder, "clerk", CLERK);
    let mut up = wharf.command(&["up", "-d"]);
    up.env("OUTSIDE", "leaks");
    assert!(up.output().unwrap().status.success());
    wharf.wait_state("web", "failed");
    let end = wait_ended(&wharf, 1).remove(0);
    assert_eq!(at(&end, "hook.event"), "give_up");
    assert_eq!(at(&end, "hook.code"), 0);
    assert_eq!(at(&end, "event.name"), "hook.ended");
    assert_eq!(at(&end, "service.incarnation"), 3);
    assert!(at(&end, "hook.output").as_str().unwrap().contains(wharf.folder.to_str().unwrap()));
    let book = wharf.read("book");
    let (head, json) = book.split_once('\n').unwrap();
    assert_eq!(head, "give_up web/1 run 3 secret=");
    let record: Value = serde_json::from_str(json).unwrap();
    assert_eq!(at(&record, "process.exit.code"), 3);
    assert_eq!(at(&record, "restart.decision"), "gave_up");
    assert_eq!(record["stderr_tail"], "oh no\n");
    // It was run once, and its own end is no event for it.
    assert_eq!(ended(&wharf).len(), 1);
    assert_eq!(wharf.records().len(), 3, "a hook has no record of its own");
}

#[test]
fn a_service_has_hooks_beside_those_of_all() {
    let yaml = failing("on_event: { exec: ./clerk all, events: [exit, give_up] }\n")
        + "    on_event:\n      - { exec: [./clerk, own], events: [exit] }\n      \
           - { exec: ./clerk loop, events: [crash_looping] }\n  other: { command: sh -c 'exit 0' }\n";
    let wharf = Wharf::new(&yaml.replace("max_restarts: 2", "max_restarts: 6"));
    script(&wharf.folder, "clerk", CLERK);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("web", "failed");
    wharf.wait_state("other", "finished");
    // Seven ends of web for both, one of other for all, a give-up, and the crash loop it became.
    let count = 7 + 7 + 1 + 1 + 1;
    wait_ended(&wharf, count);
    assert_eq!(ended(&wharf).len(), count);
    let lines = |file: &str, event: &str| {
        let text = wharf.read(file);
        text.lines().filter(|line| line.starts_with(&format!("{event} "))).count()
    };
    assert_eq!(lines("all", "exit"), 8);
    assert_eq!(lines("all", "give_up"), 1);
    assert_eq!(lines("own", "exit"), 7);
    assert_eq!(lines("loop", "crash_looping"), 1);
    let told = wharf.read("loop");
    assert!(told.contains("\"attempt\":5,"), "{told}");
}

/// What is run for a failed health check is told the event, and comes once.
#[test]
fn a_hook_gets_the_event_of_a_replica_that_is_not_well() {
    let wharf = Wharf::new(
        "on_event: { exec: ./clerk book, events: [unhealthy] }
services:
  web:
    command: sleep 1000
    healthcheck: { exec: [sh, -c, 'test ! -e sick'], interval: 50ms, start_interval: 50ms, retries: 2, on_failure: report }
",
    );
    script(&wharf.folder, "clerk", CLERK);
    wharf.ok(&["up", "-d"]);
    until("a healthy replica", || (wharf.row("web")["health"]["state"] == "healthy").then_some(()));
    std::fs::write(wharf.folder.join("sick"), "").unwrap();
    let end = wait_ended(&wharf, 1).remove(0);
    assert_eq!(at(&end, "hook.event"), "unhealthy");
    assert_eq!(at(&end, "service.incarnation"), 1);
    let book = wharf.read("book");
    let (head, json) = book.split_once('\n').unwrap();
    assert_eq!(head, "unhealthy web/1 run 1 secret=");
    let told: Value = serde_json::from_str(json).unwrap();
    assert_eq!(at(&told, "event.name"), "service.health");
    assert_eq!(at(&told, "health.state"), "unhealthy");
    assert_eq!(told.get("id"), None, "it has no number yet");
    assert_eq!(ended(&wharf).len(), 1);
}

#[test]
fn a_hook_that_hangs_and_forks_is_killed_with_all_it_started() {
    let marker = format!("hook-{}", std::process::id());
    let hooks = "on_event: { exec: ./hanging, timeout: 300ms }\n";
    let wharf = Wharf::new(&failing(hooks));
    let hanging = format!(
        "#!/bin/sh\nexport MARK={marker}\ntrap '' TERM\nsleep 1000 &\nsetsid sleep 1000 &\n\
         (setsid sh -c 'sleep 1000 & sleep 1000' &)\necho begun\nwait\n"
    );
    script(&wharf.folder, "hanging", &hanging);
    wharf.ok(&["up", "-d"]);
    let end = wait_ended(&wharf, 1).remove(0);
    assert_eq!(at(&end, "hook.timed_out"), true);
    assert_eq!(at(&end, "hook.signal"), "SIGKILL");
    assert_eq!(at(&end, "hook.output"), "begun\n");
    assert_eq!(end["level"], "warn");
    assert!(end["msg"].as_str().unwrap().ends_with("took too long and was killed"), "{end}");
    until("all of it to be gone", || marked(&marker).is_empty().then_some(()));
    assert!(alive(wharf.manager_pid()));
}

#[test]
fn a_hook_that_floods_keeps_its_last_words_and_holds_up_nobody() {
    let wharf = Wharf::new(&failing("on_event: { exec: ./flood }\n"));
    script(
        &wharf.folder,
        "flood",
        "#!/bin/sh\nhead -c 20000000 /dev/zero | tr '\\0' x\necho; echo the last words\n",
    );
    wharf.ok(&["up", "-d"]);
    let end = wait_ended(&wharf, 1).remove(0);
    let output = at(&end, "hook.output").as_str().unwrap();
    assert!(output.ends_with("the last words\n") && output.len() <= 1024, "{output}");
    assert_eq!(at(&end, "hook.code"), 0);
    assert!(!wharf.logs("web").contains("xxx"), "what it says is not the service's");
}

#[test]
fn a_hook_that_cannot_be_run_is_told_and_nothing_else() {
    let wharf = Wharf::new(&failing(
        "on_event: [{ exec: ./no-such-program }, { exec: sh -c 'kill -SEGV $$$$' }]\n",
    ));
    wharf.ok(&["up", "-d"]);
    let ends = wait_ended(&wharf, 2);
    let missing = ends.iter().find(|end| at(end, "hook.how") == "not_started").unwrap();
    assert_eq!(at(missing, "hook.stage"), "exec");
    assert_eq!(at(missing, "hook.errno"), "ENOENT");
    let died = ends.iter().find(|end| at(end, "hook.signal") == "SIGSEGV");
    assert!(died.is_some(), "{ends:?}");
    assert_eq!(wharf.row("web")["state"], "failed");
}

/// Four run, sixty-four wait, and what is beyond that is counted: the services do not notice.
#[test]
fn too_many_hooks_are_counted_and_not_run() {
    let wharf = Wharf::new(
        "on_event: { exec: ./slow, events: [exit], timeout: 60s }
services:
  many:
    command: [sh, -c, 'exit 1']
    replicas: 80
    restart: no
",
    );
    script(&wharf.folder, "slow", "#!/bin/sh\nuntil test -e go; do sleep 0.05; done\n");
    wharf.ok(&["up", "-d"]);
    wharf.wait_records("many", 80);
    let dropped = until("the count", || {
        wharf.manager()["hooks_dropped"].as_u64().filter(|count| *count == 80 - 64 - 4)
    });
    assert!(wharf.ok(&["status"]).contains(&format!("{dropped} hooks, for too many were waiting")));
    assert!(ended(&wharf).is_empty());
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    assert_eq!(wait_ended(&wharf, 68).len(), 68);
}

#[test]
fn a_reload_changes_hooks_and_touches_no_program() {
    let wharf = Wharf::new(&failing("").replace("exit 3", "exec sleep 1000"));
    script(&wharf.folder, "clerk", CLERK);
    wharf.ok(&["up", "-d"]);
    let before = wharf.wait_state("web", "running")["pid"].clone();
    let yaml = wharf.read("services.yaml");
    wharf.write(&format!("on_event: {{ exec: ./clerk book, events: [exit] }}\n{yaml}"));
    let plan = wharf.ok(&["reload", "--plan"]);
    assert!(plan.contains("on_event") && !plan.contains("restart ("), "{plan}");
    wharf.ok(&["reload"]);
    assert_eq!(wharf.row("web")["pid"], before);
    wharf.ok(&["restart", "web"]);
    wait_ended(&wharf, 1);
    assert!(wharf.read("book").starts_with("exit web/1 run 1 "), "{}", wharf.read("book"));
}

/// A hook that runs when everything ends is ended with it, and nothing of it is left.
#[test]
fn nothing_waits_for_a_hook_at_the_end() {
    let marker = format!("hook-end-{}", std::process::id());
    let wharf = Wharf::new(&failing("on_event: { exec: ./long }\n"));
    let long = format!("#!/bin/sh\nexport MARK={marker}\nsleep 1000 &\ntouch begun\nwait\n");
    script(&wharf.folder, "long", &long);
    wharf.ok(&["up", "-d"]);
    until("the hook to begin", || wharf.folder.join("begun").exists().then_some(()));
    let begin = std::time::Instant::now();
    wharf.ok(&["down"]);
    assert!(begin.elapsed() < std::time::Duration::from_secs(20));
    until("all of it to be gone", || marked(&marker).is_empty().then_some(()));
}

/// A hook is seen to its end before another manager takes over; one that takes too long is a reason to
/// refuse.
#[test]
fn an_upgrade_waits_for_hooks() {
    let wharf = Wharf::new(
        "on_event: { events: [exit], exec: ./long, timeout: 100s }
services:
  web: { command: [sh, -c, 'exit 1'], restart: no, on_manager_exit: keep }
",
    );
    script(
        &wharf.folder,
        "long",
        "#!/bin/sh\ntouch begun\nwhile ! test -e go; do sleep 0.02; done\ntouch done\n",
    );
    wharf.ok(&["up", "-d"]);
    until("the hook to begin", || wharf.folder.join("begun").exists().then_some(()));
    let manager = wharf.manager_pid();
    let told = wharf.fails(1, &["upgrade"]);
    assert!(told.contains("a hook was running"), "{told}");
    assert_eq!(wharf.manager_pid(), manager);
    let mut upgrade = wharf.command(&["upgrade"]).spawn().unwrap();
    std::fs::write(wharf.folder.join("go"), "").unwrap();
    assert!(upgrade.wait().unwrap().success());
    assert!(wharf.folder.join("done").exists());
    assert_ne!(wharf.manager_pid(), manager);
}
