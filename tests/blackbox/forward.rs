//! Forwarding: the real systemd-journald by its own protocol and by syslog, receivers that come and
//! go, and one that never reads.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Wharf, text, until};

/// A journald of its own, in a mount namespace where everything it writes is gone at the end.
struct Journald {
    child: Child,
    /// Its `/run` as seen from here.
    run: std::path::PathBuf,
}

const JOURNALD: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal \
    && exec /lib/systemd/systemd-journald";

impl Journald {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", JOURNALD]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // unshare and then sh execute what follows: the process stays the same.
        let run = Path::new("/proc").join(child.id().to_string()).join("root/run");
        let mut this = Self { child, run };
        until("journald", || {
            assert_eq!(this.child.try_wait().unwrap(), None, "journald does not run");
            // Before it has a /run of its own, that is the machine's.
            let own = std::fs::read_to_string(format!("/proc/{}/comm", this.child.id())).ok()?;
            (own.starts_with("systemd-journal") && this.native().exists()).then_some(())
        });
        this
    }

    fn native(&self) -> std::path::PathBuf {
        self.run.join("systemd/journal/socket")
    }

    fn syslog(&self) -> std::path::PathBuf {
        self.run.join("systemd/journal/dev-log")
    }

    /// The entries that match, oldest first.
    fn entries(&self, wanted: &str) -> Vec<Value> {
        let folder = self.run.join("log/journal");
        let output = Command::new("journalctl")
            .args(["--no-pager", "--all", "-o", "json", "-D", folder.to_str().unwrap(), wanted])
            .output()
            .unwrap();
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn journald_gets_lines_and_ends_with_their_fields() {
    let journald = Journald::start();
    let wharf = Wharf::up(&format!(
        "defaults: {{ logging: {{ journald: '{}' }} }}
services:
  web:
    command: [sh, -c, 'echo listening; printf \"one\\033[1m\\377\\n\" >&2; printf \"last words\"; exit 3']
    restart: no
  quiet: {{ command: [sh, -c, 'echo nobody hears'], restart: no, logging: {{ journald: false }} }}
",
        journald.native().display()
    ));
    wharf.wait_records("quiet", 1);
    let record = wharf.wait_records("web", 1).remove(0);
    let entries = until("the entries", || {
        let entries = journald.entries("WHARF_SERVICE=web");
        (entries.len() == 4).then_some(entries)
    });
    let said: Vec<_> = entries
        .iter()
        .map(|entry| (entry["WHARF_STREAM"].as_str(), entry["PRIORITY"].as_str().unwrap()))
        .collect();
    let (out, err) = ((Some("stdout"), "6"), (Some("stderr"), "3"));
    assert!(said[..3].contains(&err) && said[..3].iter().filter(|one| **one == out).count() == 2);
    let messages: Vec<_> = entries.iter().map(|entry| entry["MESSAGE"].clone()).collect();
    assert!(messages.contains(&"listening".into()) && messages.contains(&"last words".into()));
    // What is no text comes as its bytes.
    let bytes: Value = b"one\x1b[1m\xff".iter().map(|byte| Value::from(*byte)).collect();
    assert!(messages.contains(&bytes), "{messages:?}");
    let exit = &journald.entries(&format!("MESSAGE_ID={}", wharf::forward::EXIT_MESSAGE_ID))[0];
    for (field, value) in [
        ("MESSAGE", record["msg"].as_str().unwrap()),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "web"),
        ("WHARF_EVENT", "process.exit"),
        ("WHARF_EXIT_REASON", "failed"),
        ("WHARF_EXIT_CAUSE", "spontaneous"),
        ("WHARF_EXIT_CODE", "3"),
        ("WHARF_RESTART", "no"),
        ("WHARF_SEQ", &record["seq"].to_string()),
        ("WHARF_INCARNATION", &record["service"]["incarnation"].to_string()),
        ("SYSLOG_PID", &record["process"]["pid"].to_string()),
    ] {
        assert_eq!(exit[field], value, "{field} of {exit}");
    }
    let whole: Value = serde_json::from_str(exit["WHARF_RECORD"].as_str().unwrap()).unwrap();
    assert_eq!(whole, record);
    assert_eq!(journald.entries("WHARF_SERVICE=quiet"), Vec::<Value>::new());
}

#[test]
fn a_syslog_daemon_understands_what_it_gets_and_a_reload_turns_it_on_and_off() {
    let journald = Journald::start();
    let yaml = |syslog: &str| {
        format!(
            "services:\n  err: {{ command: [sh, -c, 'while sleep 0.05; do echo tick >&2; done'], \
             logging: {{ syslog: {syslog} }} }}\n"
        )
    };
    let wharf = Wharf::up(&yaml("false"));
    wharf.wait_state("err", "running");
    let pid = wharf.pid("err");
    assert_eq!(journald.entries("SYSLOG_IDENTIFIER=err/1"), Vec::<Value>::new());
    wharf.write(&yaml(journald.syslog().to_str().unwrap()));
    let plan = wharf.ok(&["reload", "--plan"]);
    assert!(plan.contains("err: live (logging.syslog)"), "{plan}");
    wharf.ok(&["reload"]);
    let entry = until("a line", || journald.entries("SYSLOG_IDENTIFIER=err/1").pop());
    for (field, value) in [
        ("MESSAGE", "tick"),
        ("PRIORITY", "3"),
        ("SYSLOG_FACILITY", "3"),
        ("SYSLOG_PID", &pid.to_string()),
        ("_TRANSPORT", "syslog"),
    ] {
        assert_eq!(entry[field], value, "{field} of {entry}");
    }
    assert_eq!(wharf.pid("err"), pid, "nothing was restarted");
    wharf.ok(&["stop", "err"]);
    let end = until("the end", || {
        let entries = journald.entries("SYSLOG_IDENTIFIER=err/1");
        entries.into_iter().find(|entry| entry["MESSAGE"] != "tick")
    });
    assert!(end["MESSAGE"].as_str().unwrap().contains("a stop was requested"), "{end}");
    assert_eq!(end["PRIORITY"], "6");
}

#[test]
fn a_receiver_that_reads_nothing_holds_up_nobody_and_what_is_dropped_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let receiver = UnixDatagram::bind(&path).unwrap();
    let wharf = Wharf::up(&format!(
        "defaults: {{ restart: no, logging: {{ journald: '{}', when_full: block }} }}
services:
  flood: {{ command: [seq, '100000'] }}
  last: {{ command: [echo, hello] }}
",
        path.display()
    ));
    wharf.wait_state("flood", "finished");
    wharf.wait_state("last", "finished");
    until("all of it in the log", || {
        (wharf.logs("flood").lines().count() == 100_000).then_some(())
    });
    let manager = until("the count", || {
        let manager = wharf.manager();
        let away = manager["degraded"][0].is_string();
        (away && manager["forward_dropped"].as_u64() > Some(50_000)).then_some(manager)
    });
    assert!(manager["degraded"][0].as_str().unwrap().starts_with("nothing is forwarded to"));
    assert!(wharf.ok(&["status"]).contains("messages to journald or syslog"));
    // It reads again, and gets what comes from then on.
    receiver.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 16];
    while receiver.recv(&mut buffer).is_ok() {}
    until("it to go on", || {
        wharf.ok(&["start", "last"]);
        let got: Vec<_> =
            std::iter::from_fn(|| receiver.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
                .collect();
        got.iter().any(|entry| entry.starts_with(b"MESSAGE=hello\n")).then_some(())
    });
    until("all to be well", || {
        wharf.manager()["degraded"].as_array().unwrap().is_empty().then_some(())
    });
    assert!(wharf.own_log().contains("forwarding goes on"));
}

#[test]
fn a_receiver_that_goes_away_is_told_and_that_nobody_wants_it_any_more_too() {
    let wharf = Wharf::new("");
    let path = wharf.folder.join("receiver");
    let yaml = |logging: &str| {
        format!(
            "services:\n  a: {{ command: [sh, -c, 'while echo hi; do sleep 0.01; done']{logging} }}\n"
        )
    };
    let forwarding = yaml(&format!(", logging: {{ journald: {} }}", path.display()));
    wharf.write(&forwarding);
    let receiver = UnixDatagram::bind(&path).unwrap();
    wharf.ok(&["up", "-d"]);
    receiver.recv(&mut [0; 4096]).unwrap();
    let degraded = || wharf.manager()["degraded"].as_array().unwrap().len();
    let told = |count: usize, last: &str| {
        until("the event", || {
            let told = wharf.ok(&["events", "--kind", "degraded"]);
            let last = told.lines().last().is_some_and(|line| line.contains(last));
            (last && told.lines().count() == count).then_some(())
        });
    };
    drop(receiver);
    std::fs::remove_file(&path).unwrap();
    told(1, "nothing is forwarded to");
    assert_eq!(degraded(), 1);
    // It comes back by itself.
    let receiver = UnixDatagram::bind(&path).unwrap();
    told(2, "all is well again");
    assert_eq!(degraded(), 0);
    drop(receiver);
    std::fs::remove_file(&path).unwrap();
    told(3, "nothing is forwarded to");
    // Whom nobody wants is not missed, and is again once it is wanted again.
    wharf.write(&yaml(""));
    wharf.ok(&["reload"]);
    told(4, "all is well again");
    assert_eq!(degraded(), 0);
    wharf.write(&forwarding);
    wharf.ok(&["reload"]);
    told(5, "nothing is forwarded to");
}
