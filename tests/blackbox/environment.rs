//! Variables: files of them, what comes before what, and `${…}`.

use serde_json::Value;

use crate::support::{Wharf, until};

/// A service that says what it was given for these names.
fn telling(keys: &str) -> String {
    format!(
        "services:\n  web:\n    command: [sh, -c, 'echo \"A=$$A B=$$B C=$$C D=$$D;\"; exec sleep 1000']\n    {keys}\n"
    )
}

fn said(wharf: &Wharf, part: &str) {
    until(part, || wharf.logs("web").contains(part).then_some(()));
}

#[test]
fn what_is_declared_comes_before_a_later_file_before_an_earlier_one() {
    let wharf = Wharf::new(&telling(
        "environment: { A: declared }\n    env_file:\n      - first.env\n      - { path: second.env }\n      \
         - { path: none.env, required: false }",
    ));
    let write = |name: &str, text: &str| std::fs::write(wharf.folder.join(name), text).unwrap();
    write(
        "first.env",
        "A=first\nB=first\nC=first # a remark\nexport D='two  words $HOME ${HOME}'\n",
    );
    write("second.env", "\u{feff}# a comment\r\nA=second\r\nB=\"second\\tone\"\r\n");
    wharf.ok(&["up", "-d"]);
    said(&wharf, "A=declared B=second\tone C=first D=two  words $HOME ${HOME};");
}

#[test]
fn a_reload_sees_what_changed_in_a_file_and_nothing_else() {
    let wharf = Wharf::new(&telling("env_file: web.env"));
    let file = wharf.folder.join("web.env");
    std::fs::write(&file, "A=1\n").unwrap();
    wharf.ok(&["up", "-d"]);
    said(&wharf, "A=1");
    let before = wharf.wait_state("web", "running")["pid"].clone();
    std::fs::write(&file, "# another remark\nA=1\n").unwrap();
    assert_eq!(wharf.ok(&["reload", "--plan"]).trim(), "nothing changes");
    wharf.ok(&["reload"]);
    assert_eq!(wharf.row("web")["pid"], before);
    std::fs::write(&file, "A=2\n").unwrap();
    let plan = wharf.ok(&["reload", "--plan"]);
    assert!(plan.contains("web: restart (environment.A)"), "{plan}");
    wharf.ok(&["reload"]);
    said(&wharf, "A=2");
    std::fs::remove_file(&file).unwrap();
    let complaint = wharf.fails(3, &["reload"]);
    assert!(complaint.contains("there is no file web.env"), "{complaint}");
    assert_eq!(wharf.row("web")["state"], "running", "the old configuration stays in effect");
}

/// A restarted manager works from what was applied, never from a file that was edited meanwhile.
#[test]
fn a_new_manager_has_the_values_that_were_applied() {
    let wharf = Wharf::new(&telling("env_file: web.env"));
    let file = wharf.folder.join("web.env");
    std::fs::write(&file, "A=applied\n").unwrap();
    wharf.ok(&["up", "-d"]);
    said(&wharf, "A=applied");
    std::fs::write(&file, "A=edited\n").unwrap();
    crate::support::send(wharf.manager_pid(), wharf::exit::Signal::KILL.number());
    until("the next manager's run", || {
        (wharf.logs("web").matches("A=applied").count() == 2).then_some(())
    });
    assert!(!wharf.logs("web").contains("edited"));
}

#[test]
fn references_are_those_of_compose() {
    let wharf = Wharf::new(
        "services:
  web:
    command: sleep 1000
    environment:
      A: ${UNSET-x} ${UNSET:-y} ${EMPTY-z} ${EMPTY:-w}
      B: ${FULL:+is set} ${EMPTY:+no} ${EMPTY+but there}
      C: ${FULL:?never said} ${UNSET:-${FULL:-deep}}
      D: $FULL $(FULL) ${FULL%x} $$FULL ^a$
",
    );
    let output = wharf.command(&["config", "--json"]).env("FULL", "full").env("EMPTY", "").output();
    let output = output.unwrap();
    let config: Value = serde_json::from_slice(&output.stdout).unwrap();
    let environment = &config["services"]["web"]["environment"];
    for (name, value) in [
        ("A", "x y  w"),
        ("B", "is set  but there"),
        ("C", "full full"),
        ("D", "$FULL $(FULL) ${FULL%x} $FULL ^a$"),
    ] {
        assert_eq!(environment[name], value);
    }
    let complaint = wharf.fails(3, &["check"]);
    let words = "the environment variable `FULL` is not set or empty: never said";
    assert!(complaint.contains(words), "{complaint}");
}
