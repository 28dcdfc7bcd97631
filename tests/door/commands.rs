//! The commands as a user runs them, with a loop behind the socket that does nothing, and without.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::fake::{self, Asked, Fake};
use serde_json::{Value, json};
use wharf::event::Verb;
use wharf::manager::Speech;
use wharf::state::StateDir;

struct Ran {
    code: i32,
    out: Vec<u8>,
    words: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

fn wharf(state: &StateDir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(words).current_dir(state.state.parent().unwrap());
    command.env_remove("WHARF_STATE_DIR").env_remove("NO_COLOR").env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(state: &StateDir, words: &str) -> Ran {
    run_with(state, words, b"")
}

fn run_with(state: &StateDir, words: &str, input: &[u8]) -> Ran {
    let words: Vec<_> = words.split(' ').collect();
    let mut child = wharf(state, &words).stdin(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: output.stdout,
        words: String::from_utf8(output.stderr).unwrap(),
    }
}

fn check(fake: &Fake, words: &str, code: i32, out: &str, said: &str) {
    let ran = run(&fake.state, words);
    assert_eq!(ran.code, code, "{words}: {}", ran.words);
    assert!(ran.text().contains(out), "{words}: {:?}", ran.text());
    assert!(ran.words.contains(said), "{words}: {:?}", ran.words);
    if said.is_empty() {
        assert_eq!(ran.words, "", "{words}");
    }
}

#[test]
fn reading_commands_show_what_is() {
    let fake = fake::start();
    check(&fake, "ps", 0, "web/2    backoff", "warning: the disk is full");
    check(&fake, "ps -q", 0, "SERVICE  STATE", "");
    check(&fake, "ps db", 0, "db       running", "warning: the disk is full");
    check(&fake, "ps wbe", 4, "", "there is no service wbe (did you mean web?)");
    check(&fake, "ps web/1 wbe", 7, "web      running", "there is no service wbe");
    let some = run(&fake.state, "ps --json web web/2 db");
    let some: Value = serde_json::from_slice(&some.out).unwrap();
    let names = some.as_array().unwrap().iter().map(|row| (&row["service"], &row["replica"]));
    let names: Vec<_> = names.map(|(name, replica)| format!("{name}/{replica}")).collect();
    assert_eq!(names, ["\"web\"/1", "\"web\"/2", "\"db\"/1"]);
    check(&fake, "status", 0, "Degraded: the disk is full", "");
    check(&fake, "status db", 0, "db/1 running since", "");
    check(&fake, "status web", 3, "web/2 backoff since", "");
    check(&fake, "status web/1", 0, "web/1 running since", "");
    check(&fake, "status none", 3, "none has no replicas", "");
    check(&fake, "status wbe", 4, "", "there is no service wbe (did you mean web?)");
    check(&fake, "status web/9", 4, "", "web has 2 replicas");
    check(&fake, "ps --color always", 0, "\u{1b}[32mrunning\u{1b}[0m", "warning");
    let ps: Value = serde_json::from_slice(&run(&fake.state, "ps --json").out).unwrap();
    assert_eq!((&ps[1]["replica"], &ps[1]["pid"]), (&json!(2), &Value::Null));
    let all: Value = serde_json::from_slice(&run(&fake.state, "status --json").out).unwrap();
    assert_eq!(
        (&all["manager"]["pid"], &all["services"][2]["service"]),
        (&json!(12), &json!("db"))
    );
}

#[test]
fn several_names_are_each_on_their_own() {
    let fake = fake::start();
    check(
        &fake,
        "start web db",
        0,
        "",
        "web/1 is running (pid 4242)\ndb/1 is running (pid 4242)\n",
    );
    check(&fake, "stop -q web/2", 0, "", "");
    check(&fake, "restart web --rolling", 0, "", "web/1 is running");
    check(&fake, "restart web/1 --rolling", 2, "", "name a service, not a replica");
    check(&fake, "scale web=2 nosuch=1", 7, "", "there is no service nosuch");
    check(&fake, "stop nosuch", 4, "", "did you mean none?");
    check(&fake, "stop nosuch nosuch", 4, "", "there is no service nosuch");
    check(&fake, "restart nosuch broken", 1, "", "broken/1 exited with code 1");
    check(&fake, "restart web nosuch broken", 7, "", "web/1 is running");
    check(&fake, "signal web HUP", 0, "", "sent SIGHUP to web/1 (pid 4242)");
    check(&fake, "signal down -s HUP", 1, "", "down is stopped, there is no process to signal");
    let asked: Vec<_> = fake.asked.try_iter().collect();
    let Asked::Command(verb, name, by) = &asked[2] else { panic!("{asked:?}") };
    assert_eq!((*verb, name.as_str(), by.who.as_str()), (Verb::Stop, "web/2", "wharf stop"));
    assert_eq!(by.uid, Some(wharf::os::user::current()));
}

#[test]
fn messages_go_and_replies_come() {
    let fake = fake::start();
    let call = |words: &str, input: &[u8], code: i32, out: &[u8]| {
        let ran = run_with(&fake.state, words, input);
        assert_eq!((ran.code, ran.out.as_slice()), (code, out), "{words}: {}", ran.words);
    };
    call("call db hello", b"", 0, b"hello\n");
    call("call db/1 - --raw", b"\xff\x00no newline", 0, b"\xff\x00no newline");
    call("call db -", b"one newline\n", 0, b"one newline\n");
    call("call db - --raw --timeout 250ms", b"", 0, b"");
    call("call words -", b"one two", 0, b"one\ntwo\n");
    call("call slow x", b"", 6, b"");
    call("call dead x", b"", 1, b"");
    call("call plain x", b"", 1, b"");
    call("call nosuch x", b"", 4, b"");
    call("send db -", b"\x01\x02", 0, b"");
    check(&fake, "call dead x", 1, "", "never_read: it never saw the request");
    let asked: Vec<_> = fake.asked.try_iter().collect();
    let kind = Speech::Call(Some(Duration::from_millis(250)));
    assert_eq!(asked[3], Asked::Speak("db".into(), "".into(), kind));
    assert!(asked.contains(&Asked::Speak("db".into(), "\x01\x02".into(), Speech::Send)));
}

#[test]
fn a_reload_is_told() {
    let fake = fake::start();
    check(&fake, "reload --plan", 0, "nothing changes", "");
    fake::write_services(&fake.state, "version: 1\nservices:\n  new: { command: [n] }\n");
    check(&fake, "reload", 0, "new: added\nweb: removed\n", "");
    let file = fake.state.state.parent().unwrap().join("services.yaml");
    std::fs::write(file, "version: 1\nservices:\n  new: { comand: [n] }\n").unwrap();
    check(&fake, "reload", 3, "", "did you mean `command`?");
}

#[test]
fn the_past_is_told_with_and_without_a_manager() {
    let line = |seq: u64| fake::exit_line(seq, "web", "failed");
    let fake = fake::start();
    let (_folder, alone) = fake::folder();
    let bare = fake::write_services(&alone, fake::SERVICES);
    let applied = wharf::state::Applied {
        schema: 1,
        realm: wharf::name::Realm(1),
        spec: bare,
        earlier: Vec::new(),
    };
    alone.write_applied(&applied).unwrap();
    (1..=9).for_each(|seq| fake.told.publish(fake::exit(seq, "web")));
    for state in [&fake.state, &alone] {
        fake::write_journal(&state.state, &(1..=9).map(line).collect::<Vec<_>>());
        let exits = run(state, "exits --json");
        let lines: Vec<_> = exits.text().lines().map(str::to_owned).collect();
        assert_eq!(lines, (1..=9).map(line).collect::<Vec<_>>());
        let last = run(state, "exits -n 2 --service web --reason failed");
        assert_eq!(
            last.text(),
            "2026-11-22 07:31:08  web/1 ended\n2026-11-22 07:31:09  web/1 ended\n"
        );
        assert_eq!(run(state, "exits --service db").text(), "");
        assert_eq!(
            run(state, "exits --since 2026-11-22T07:31:09Z --json").text().lines().count(),
            1
        );
        let why = run(state, "why web -n 1");
        assert_eq!(why.code, 0);
        for part in ["web/1 ended\n", "reason: failed", "last words: oh no", "next: not restarted"]
        {
            assert!(why.text().contains(part), "{part}: {}", why.text());
        }
        let json: Value = serde_json::from_slice(&run(state, "why web --json").out).unwrap();
        assert_eq!(
            (&json["exits"][0]["seq"], json["now"].is_array()),
            (&json!(9), state == &fake.state)
        );
        assert_eq!(json["exits"][0]["more_like_this"]["count"], 8);
        let before = "before: 8 more like this between 2026-11-22 07:31:01 and 2026-11-22 07:31:08";
        assert!(why.text().contains(before), "{}", why.text());
        let all = run(state, "why");
        assert_eq!((all.code, all.text().matches("reason: failed").count()), (0, 1));
        let late = run(state, "why web --since 2026-11-22T07:31:08Z --json");
        let late: Value = serde_json::from_slice(&late.out).unwrap();
        assert_eq!(late["exits"][0]["more_like_this"]["count"], 1);
        let none = run(state, "why db");
        assert_eq!((none.code, none.text().contains("db has not ended yet")), (0, true));
        assert_eq!(run(state, "why wbe").code, 4);
        assert_eq!(run(state, "events --json").text().lines().count(), 9);
    }
    assert!(run(&fake.state, "why web").text().contains("now: web/2 is backoff"));
    assert!(run(&alone, "why web").text().contains("no manager answers"));
}

fn write_log(state: &StateDir, name: &str, lines: &[&str]) {
    let path = state.output().join(format!("{name}.log"));
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    for (at, line) in lines.iter().enumerate() {
        writeln!(file, "2026-11-22T07:31:0{at}.000000000Z {line}").unwrap();
    }
}

#[test]
fn output_is_printed_as_it_was_written() {
    let (_folder, state) = fake::folder();
    write_log(&state, "web.1", &["stdout F one", "stderr P tw", "stderr F o", "stdout F three"]);
    write_log(&state, "web.2", &["stdout F eins", "stdout F zwei"]);
    write_log(&state, "db.1", &["stdout F ready"]);
    let logs = |words: &str| run(&state, words).text().to_owned();
    assert_eq!(logs("logs web/1"), "one\ntwo\nthree\n");
    assert_eq!(logs("logs db"), "ready\n");
    assert_eq!(logs("logs web/1 -n 1"), "three\n");
    assert_eq!(logs("logs web/2 --since 2026-11-22T07:31:01Z"), "zwei\n");
    assert_eq!(
        logs("logs web"),
        "web/1 | one\nweb/2 | eins\nweb/1 | tw\nweb/2 | zwei\nweb/1 | o\nweb/1 | three\n"
    );
    assert_eq!(logs("logs -n 1"), "db/1 | ready\nweb/2 | zwei\nweb/1 | three\n");
    let first: Value =
        serde_json::from_str(logs("logs web/1 --json").lines().next().unwrap()).unwrap();
    assert_eq!((&first["stream"], &first["text"]), (&json!("stdout"), &json!("one")));
    let ran = run(&state, "logs wbe");
    assert_eq!(
        (ran.code, ran.words.as_str()),
        (4, "wharf: there is no service wbe (did you mean web?)\n")
    );
}

/// Starts a following command and gives its output line by line.
fn following(
    state: &StateDir,
    words: &[&str],
) -> (std::process::Child, impl FnMut() -> String + use<>) {
    let mut child = wharf(state, words).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let next = move || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line
    };
    (child, next)
}

#[test]
fn what_is_followed_comes_as_it_grows() {
    let fake = fake::start();
    let state = &fake.state;
    write_log(state, "web.1", &["stdout F old"]);
    let (mut child, mut next) = following(state, &["logs", "-f"]);
    assert_eq!(next(), "web/1 | old\n");
    write_log(state, "web.1", &["stdout F new"]);
    assert_eq!(next(), "web/1 | new\n");
    // A replica that begins to write later is followed too.
    write_log(state, "late.1", &["stdout F hello"]);
    assert_eq!(next(), "late/1 | hello\n");
    child.kill().unwrap();
    child.wait().unwrap();

    fake::write_journal(&state.state, &[fake::exit_line(1, "web", "failed")]);
    let (mut child, mut next) = following(state, &["exits", "-f", "--json"]);
    assert!(next().contains("\"seq\":1,"));
    let path = state.state.join("exits.jsonl");
    let mut journal = std::fs::File::options().append(true).open(path).unwrap();
    writeln!(journal, "{}", fake::exit_line(2, "web", "failed")).unwrap();
    assert!(next().contains("\"seq\":2,"));
    child.kill().unwrap();
    child.wait().unwrap();

    let mut child = wharf(state, &["-v", "events", "-f", "--json"]).spawn().unwrap();
    let mut words = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(words.any(|line| line.unwrap() == "listening"));
    fake.told.publish(fake::message("tick"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["kind"], &event["message"]["text"]), (&json!("message"), &json!("tick")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let (_folder, state) = fake::folder();
    let line = format!("stdout F {}", "x".repeat(1000));
    for _ in 0..1000 {
        write_log(&state, "web.1", &[&line]);
    }
    for words in [&["logs"][..], &["logs", "-f"], &["schema"]] {
        let mut child = wharf(&state, words).spawn().unwrap();
        let mut first = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{words:?}");
    }
}

#[test]
fn without_a_manager_it_is_said_what_to_do() {
    let (_folder, state) = fake::folder();
    fake::write_services(&state, fake::SERVICES);
    for words in ["ps", "status", "status web", "start web", "call db x", "reload", "events -f"] {
        let ran = run(&state, words);
        assert_eq!(ran.code, 5, "{words}");
        assert!(ran.words.contains("`wharf up -d` starts one"), "{words}: {}", ran.words);
        assert_eq!(ran.text(), "", "{words}");
    }
    let ran = run(&state, "down");
    assert_eq!((ran.code, ran.words.as_str()), (0, "nothing runs\n"));
}

#[test]
fn configurations_are_checked_and_shown() {
    let (_folder, state) = fake::folder();
    let ran = run(&state, "check");
    assert_eq!(ran.code, 3);
    assert!(ran.words.contains("cannot find services.yaml"), "{}", ran.words);
    fake::write_services(&state, fake::SERVICES);
    let ran = run(&state, "check");
    assert_eq!(
        (ran.code, ran.text()),
        (0, "OK: 3 services; logs and journal take at most 290MiB of disk\n")
    );
    let json: Value = serde_json::from_slice(&run(&state, "check --json").out).unwrap();
    assert_eq!((&json["ok"], &json["disk_bound_bytes"]), (&json!(true), &json!(290 << 20)));
    let config = run(&state, "config");
    assert!(
        config.text().contains("API_TOKEN: '***'") || config.text().contains("API_TOKEN: \"***\""),
        "{}",
        config.text()
    );
    let config: Value = serde_json::from_slice(&run(&state, "config --json").out).unwrap();
    assert_eq!(config["services"]["web"]["environment"]["API_TOKEN"], "***");

    let file = state.state.parent().unwrap().join("services.yaml");
    std::fs::write(&file, "version: 1\nservices:\n  web: { comand: [x], replicas: -1 }\n").unwrap();
    for words in ["check", "config", "up", "up -d"] {
        let ran = run(&state, words);
        assert_eq!((ran.code, ran.text()), (3, ""), "{words}");
        assert!(ran.words.contains("unknown key `comand`"), "{}", ran.words);
        assert!(ran.words.contains("services.web.replicas"), "{}", ran.words);
    }
    let ran = run(&state, "check --json");
    let json: Value = serde_json::from_slice(&ran.out).unwrap();
    assert_eq!((ran.code, &json["ok"], ran.words.as_str()), (3, &json!(false), ""));
    assert!(json["mistakes"].as_array().unwrap().len() >= 2);
    let other = run(&state, "check -f nowhere.yaml");
    assert_eq!((other.code, other.words.contains("cannot be read")), (3, true));
}

#[test]
fn a_second_up_is_refused_with_what_to_do() {
    let (_folder, state) = fake::folder();
    fake::write_services(&state, fake::SERVICES);
    let _held = state.lock().unwrap();
    state.sign_lock(4711).unwrap();
    for words in ["up", "up -d", "up web"] {
        let ran = run(&state, words);
        assert_eq!(ran.code, 1, "{words}");
        assert!(ran.words.contains("wharf with pid 4711 already manages"), "{}", ran.words);
        assert!(ran.words.contains("`wharf reload`"), "{}", ran.words);
    }
    assert!(state.read_applied().is_err(), "nothing was written");
    let ran = run(&state, "up wbe");
    assert_eq!((ran.code, ran.words.contains("did you mean web?")), (4, true), "{}", ran.words);
}

#[test]
fn the_state_is_where_it_was_said_to_be() {
    let fake = fake::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let code = |words: &[&str], variable: Option<&Path>| {
        let mut command = wharf(&fake.state, words);
        command.current_dir(elsewhere.path());
        if let Some(value) = variable {
            command.env("WHARF_STATE_DIR", value);
        }
        command.output().unwrap().status.code().unwrap()
    };
    let place = fake.state.state.to_str().unwrap();
    let file = fake.state.state.parent().unwrap().join("services.yaml");
    assert_eq!(code(&["ps"], None), 5);
    assert_eq!(code(&["ps", "--state-dir", place], None), 0);
    assert_eq!(code(&["--state-dir", place, "ps"], Some(Path::new("/nowhere"))), 0);
    assert_eq!(code(&["ps"], Some(&fake.state.state)), 0);
    assert_eq!(code(&["ps", "-f", file.to_str().unwrap()], None), 0);
    assert_eq!(code(&["exits", "-f", file.to_str().unwrap()], None), 0);
}

#[test]
fn help_and_mistakes_of_the_command_line() {
    let (_folder, state) = fake::folder();
    let help = run(&state, "--help");
    assert_eq!((help.code, help.words.as_str()), (0, ""));
    assert!(!help.text().contains("guardian  ") && help.text().contains("Exit codes"));
    assert!(run(&state, "--version").text().starts_with("wharf 0."));
    let wrong = run(&state, "restrat web");
    assert_eq!((wrong.code, wrong.text()), (2, ""));
    assert!(wrong.words.contains("'restart'"), "{}", wrong.words);
}

#[test]
fn a_manager_that_cannot_start_is_told_with_its_own_words() {
    let (_folder, state) = fake::folder();
    fake::write_services(&state, fake::SERVICES);
    // Something that cannot be replaced is where the socket should be.
    std::fs::create_dir_all(state.socket().join("occupied")).unwrap();
    let ran = run(&state, "up -d");
    assert_eq!(ran.code, 1, "{}", ran.words);
    assert!(ran.words.contains("the manager did not start; the end of"), "{}", ran.words);
    assert!(ran.words.contains("cannot keep the manager running"), "{}", ran.words);
    let own = state.lock_holder().unwrap();
    assert!(wharf::os::procfs::stat(own).is_none_or(|stat| stat.is_zombie()), "guardian {own}");

    let ran = run(&state, "up db");
    assert_eq!(ran.code, 1);
    assert!(ran.words.contains("cannot keep the manager running"), "{}", ran.words);
    let stopped: Vec<_> = state.read_intent().unwrap().stopped;
    assert_eq!(stopped.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web", "none"]);
}
