//! schemathesis, which knows nothing of wharf but its OpenAPI document, against a running one: no
//! server error, no answer that is not as described, no hang.

use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Wharf, soaking, text};

const YAML: &str = "services:
  web: { command: [sleep, '1000'], replicas: 2 }
  db: { command: [cat], port: { framing: lines, replies: one } }
  worker: { command: [sh, -c, 'exit 3'], replicas: 3, restart: { policy: always, delay: 1s } }
";

/// Installs what the requirements say, once, and returns the program.
fn program() -> PathBuf {
    let requirements =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/requirements.txt");
    let wanted = fs::read_to_string(&requirements).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("schemathesis");
    let (program, stamp) = (folder.join("bin/schemathesis"), folder.join("installed"));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return program;
    }
    let run = |what: &str, command: &mut Command| {
        let output = command.output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(
            output.status.success(),
            "schemathesis is missing: {what} failed (is there a package index, and python3-venv?)\n{said}"
        );
    };
    run("python3 -m venv", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    run("pip install -r tests/schemathesis/requirements.txt", pip.arg(&requirements));
    fs::write(stamp, wanted).unwrap();
    program
}

/// A port of loopback that leads to the socket; `schemathesis` speaks TCP only.
fn forward(wharf: &Wharf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = wharf.state().join("sock");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(tcp), Ok(unix)) = (stream, wharf::os::socket::connect(&socket)) else { break };
            let (mut from, mut to) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            std::thread::spawn(move || {
                // Whoever hangs up has said all there is.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || back(unix, &tcp));
        }
    });
    format!("http://{address}")
}

fn back(mut unix: std::os::unix::net::UnixStream, mut tcp: &TcpStream) {
    let _ = io::copy(&mut unix, &mut tcp);
    let _ = tcp.shutdown(Shutdown::Both);
}

/// One run. A stream is read to its end, a call waits long enough for the reply, and what a
/// shutdown does is tried elsewhere, as is an upgrade, which runs whatever file it is told to.
fn check(wharf: &Wharf, url: &str, config: &str, examples: usize) {
    let file = wharf.folder.join("schemathesis.toml");
    fs::write(&file, config).unwrap();
    let count = examples.to_string();
    let mut command = Command::new(program());
    command
        .arg("--no-color")
        .arg("--config-file")
        .arg(&file)
        .arg("run")
        .arg(format!("{url}/openapi.json"));
    command.args(["--checks", "all", "--max-examples", &count, "--request-timeout", "20"]);
    for elsewhere in ["shutdown", "upgrade"] {
        command.args(["--exclude-operation-id", elsewhere]);
    }
    command.args(["--workers", "1", "--warnings", "off"]);
    command.args(["--suppress-health-check", "all"]);
    if soaking() {
        command.args(["--generation-database", "none"]);
    } else {
        // The same cases each time, so that a failure can be looked at.
        command.args(["--seed", "1", "--generation-deterministic"]);
    }
    command.current_dir(&wharf.folder).env("NO_PROXY", "*");
    let output = command.output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", wharf.own_log());
}

/// What is described and well-formed may still be refused for what there is: no such service, not
/// running, no port. A service that there is would be scaled to thousands of replicas.
const DESCRIBED: &str = "[checks]
positive_data_acceptance.expected-statuses = [\"2xx\", \"404\", \"409\", \"422\", \"426\"]

[[operations]]
include-operation-id = \"streamEvents\"
parameters = { \"query.follow\" = \"false\" }

[[operations]]
include-operation-id = \"callService\"
parameters = { \"query.timeout\" = \"10s\" }

[[operations]]
include-operation-id = \"scaleService\"
parameters = { \"path.name\" = \"nobody\" }
";

#[test]
fn the_api_is_what_its_document_says() {
    let wharf = Wharf::up(YAML);
    wharf.wait_state("db", "running");
    let url = forward(&wharf);
    let examples = if soaking() { 200 } else { 10 };
    check(&wharf, &url, DESCRIBED, examples);
    // And with services that there are.
    let named = format!("{DESCRIBED}\n[parameters]\n\"path.name\" = \"db\"\n");
    check(&wharf, &url, &named, examples);
    let manager = wharf.manager();
    assert_eq!((&manager["generation"], &manager["shutting_down"]), (&1.into(), &false.into()));
    assert!(!wharf.own_log().contains("panicked"), "{}", wharf.own_log());
}
