//! Secrets reach the program that they are for, and nothing else that can be looked at.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::support::{Wharf, at, script, send, text, until};

/// What must be found nowhere. (In two parts, lest this file be where it is found.)
fn secret() -> String {
    ["correct-horse", "battery-staple-4711"].join("-")
}

/// Reads its secrets in both ways and says only whether they are what a file elsewhere holds.
const READER: &str = "#!/bin/sh
cmp -s \"$API_TOKEN_FILE\" \"$1\" && cmp -s \"$API_TOKEN_FILE\" \"$1\" && echo file is right
cat <&\"$DB_PASSWORD_FD\" | cmp -s - \"$1\" && echo descriptor is right
echo open $(ls /proc/$$/fd | sort -n | tr '\\n' ' ')
while read -r line; do case $line in Sig[BIC]*) echo \"$line\";; esac; done < /proc/$$/status
test \"$(stat -Lc %a:%u \"$API_TOKEN_FILE\")\" = \"400:$(id -u)\" && echo only mine
exec sleep 1000
";

/// A wharf with a secret in `vault/token`.
fn guarded(yaml: &str) -> Wharf {
    let wharf = Wharf::new(yaml);
    std::fs::create_dir(wharf.folder.join("vault")).unwrap();
    std::fs::write(wharf.folder.join("vault/token"), secret()).unwrap();
    script(&wharf.folder, "reader", READER);
    wharf
}

/// Every file below a folder that holds the secret.
fn holding(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(holding(&path));
        } else if kind.is_file() && text(&std::fs::read(&path).unwrap()).contains(&secret()) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Looks wherever anybody could.
#[track_caller]
fn assert_unseen(wharf: &Wharf, when: &str) {
    assert_eq!(holding(&wharf.state()), [""; 0], "{when}");
    for path in [
        "/v1/services",
        "/v1/services/web",
        "/v1/manager",
        "/v1/config",
        "/v1/exits",
        "/metrics",
        "/openapi.json",
    ] {
        let answer = wharf.http("GET", path, b"").unwrap().1;
        assert!(!answer.contains(&secret()), "{when}: {path}");
    }
    for words in [
        &["status"][..],
        &["status", "web", "--full"],
        &["status", "web", "--json"],
        &["ps", "--json"],
        &["config"],
        &["config", "--json"],
        &["check", "--json"],
        &["why", "web"],
        &["exits", "--json"],
        &["logs", "web", "--json"],
        &["reload", "--plan"],
    ] {
        let output = wharf.run(words);
        assert_eq!(output.status.code(), Some(0), "{when}: {words:?}");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains(&secret()), "{when}: {words:?}");
    }
    let events = wharf.ok(&["events", "--json"]);
    assert!(events.contains("process.start") && !events.contains(&secret()), "{when}: events");
    let mut pids = vec![wharf.manager_pid(), wharf.guardian_pid()];
    pids.extend(wharf.row("web")["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()));
    for pid in pids {
        for file in ["environ", "cmdline"] {
            let content = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!text(&content).contains(&secret()), "{when}: {file} of {pid}");
        }
    }
}

fn by_both(more: &str) -> String {
    format!(
        "secrets: {{ api_token: {{ file: vault/token }} }}
services:
  web:
    command: [./reader, vault/token]
    secrets: [api_token, {{ name: db-password, file: vault/token, by: fd }}]
{more}"
    )
}

#[test]
fn t37_a_secret_is_seen_by_its_program_alone() {
    let wharf = guarded(&by_both(""));
    wharf.ok(&["up", "-d"]);
    let said = until("what it says", || {
        let said = wharf.logs("web");
        said.contains("only mine").then_some(said)
    });
    for part in [
        "file is right",
        "descriptor is right",
        "open 0 1 2 3 4",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_unseen(&wharf, "running");
    let environment = std::fs::read(format!("/proc/{}/environ", wharf.pid("web"))).unwrap();
    let environment = text(&environment);
    assert!(environment.contains("API_TOKEN_FILE=/dev/fd/3"), "{environment}");
    assert!(environment.contains("DB_PASSWORD_FD=4"), "{environment}");

    send(wharf.pid("web"), wharf::exit::Signal::KILL.number());
    wharf.wait_records("web", 1);
    wharf.wait_state("web", "running");
    assert_unseen(&wharf, "after an end");
    wharf.ok(&["reload"]);
    wharf.ok(&["restart", "web"]);
    assert_unseen(&wharf, "after a restart");
    send(wharf.manager_pid(), wharf::exit::Signal::KILL.number());
    until("the next manager's run", || {
        (wharf.logs("web").matches("descriptor is right").count() == 4).then_some(())
    });
    assert_unseen(&wharf, "after the manager's death");
    wharf.ok(&["down"]);
    assert_eq!(holding(&wharf.state()), [""; 0]);
}

#[test]
fn another_user_has_its_secret_and_nobody_elses() {
    if !nix::unistd::geteuid().is_root() {
        println!("only root can start a program as somebody else");
        return;
    }
    let wharf = guarded(&by_both("    user: nobody\n    working_dir: /\n"));
    let yaml = wharf.read("services.yaml");
    // The folder of the test is root's alone: the program is to see nothing but what it is given.
    let program =
        "[sh, -c, 'cat \"$$API_TOKEN_FILE\" - <&\"$$DB_PASSWORD_FD\" | wc -c; exec sleep 1000']";
    wharf.write(&yaml.replace("[./reader, vault/token]", program));
    wharf.ok(&["up", "-d"]);
    let twice = (2 * secret().len()).to_string();
    until("both", || wharf.logs("web").contains(&twice).then_some(()));
    let about = std::fs::metadata(format!("/proc/{}/fd/3", wharf.pid("web"))).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!((about.uid(), about.permissions().mode() & 0o777), (nobody.uid.as_raw(), 0o400));
}

#[test]
fn a_secret_that_is_not_there_is_a_warning_and_then_a_reason() {
    let wharf = guarded(
        "services:\n  web:\n    command: [sh, -c, 'cat \"$$KEY_FILE\" >&2; exec sleep 1000']\n    \
         secrets: [{ name: key, file: later/key }]\n    restart: { delay: 50ms }\n",
    );
    let output = wharf.run(&["check"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("the secret `key` cannot be read now: later/key: No such file"),
        "{said}"
    );
    wharf.run(&["up", "-d"]);
    let record = wharf.wait_records("web", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "setup_failed");
    assert_eq!(at(&record, "exit.stage"), "secrets");
    let evidence = at(&record, "exit.evidence").to_string();
    assert!(evidence.contains("the secret key: ") && evidence.contains("later/key"), "{evidence}");
    // A folder is no secret, and nothing waits for a pipe to be written.
    let file = wharf.folder.join("later/key");
    std::fs::create_dir_all(&file).unwrap();
    let count = wharf.records_of("web").len();
    let record = wharf.wait_records("web", count + 2).pop().unwrap();
    assert!(at(&record, "exit.evidence").to_string().contains("it is no regular file"));
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, "at last").unwrap();
    wharf.wait_state("web", "running");
    until("its text", || wharf.logs("web").contains("at last").then_some(()));
    // Another text is there from the next start on.
    std::fs::write(&file, "a new one").unwrap();
    wharf.ok(&["restart", "web"]);
    until("its new text", || wharf.logs("web").contains("a new one").then_some(()));
}

#[test]
fn a_name_alone_is_a_file_of_the_folder_secrets() {
    let wharf = Wharf::new(
        "services:\n  web:\n    command: [sh, -c, 'wc -c < \"$$API_TOKEN_FILE\"; exec sleep 1000']\n    \
         secrets: [api_token]\n",
    );
    let complaint = wharf.fails(3, &["check"]);
    assert!(
        complaint.contains("nothing says where the secret `api_token` comes from")
            && complaint.contains("services.yaml:4:15"),
        "{complaint}"
    );
    std::fs::create_dir(wharf.folder.join("secrets")).unwrap();
    std::fs::write(wharf.folder.join("secrets/api_token"), "12345").unwrap();
    wharf.ok(&["up", "-d"]);
    until("its length", || wharf.logs("web").contains('5').then_some(()));
}
