//! Sockets that are handed over to wharf itself (sd_listen_fds(3)): by a shell, and by a real program of
//! systemd's; over deaths of the manager and an upgrade; and what is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{LIMIT, Wharf, send, text, until};

const KEPT: &str = "services:\n  web: { command: [sleep, '1000'], on_manager_exit: keep }\n";

/// `wharf up`, as the process that the variables speak of, with these sockets from descriptor 3 on. They
/// come as standard input and output, which a shell moves to where they belong.
fn handed(
    wharf: &Wharf,
    variables: &str,
    first: OwnedFd,
    second: Option<OwnedFd>,
    up: &str,
) -> Command {
    let moved = if second.is_some() { "4>&1 >/dev/null" } else { "" };
    let words = format!("exec 3<&0 </dev/null {moved}; {variables} LISTEN_PID=$$ exec \"$0\" {up}");
    let mut command = Command::new("sh");
    command.args(["-c", &words, env!("CARGO_BIN_EXE_wharf")]).current_dir(&wharf.folder);
    command.env_remove("WHARF_STATE_DIR").env("RUST_BACKTRACE", "0");
    command.stdin(first).stderr(Stdio::null());
    command.stdout(second.map_or(Stdio::null(), Stdio::from));
    command
}

/// One answer of the API over a connection that is there.
fn ask(mut socket: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn connected(path: &Path) -> UnixStream {
    let socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn finish(mut guardian: Child) {
    assert!(guardian.wait().unwrap().success());
}

#[test]
fn a_control_socket_that_was_handed_over_refuses_nobody_over_deaths_and_an_upgrade() {
    let wharf = Wharf::new(KEPT);
    let place = wharf.folder.join("control.sock");
    let held = UnixListener::bind(&place).unwrap();
    let copy: OwnedFd = held.try_clone().unwrap().into();
    // Who connects before wharf runs is answered when it does.
    let early = connected(&place);
    let guardian =
        handed(&wharf, "LISTEN_FDS=1 LISTEN_FDNAMES=control", copy, None, "up").spawn().unwrap();
    assert!(ask(early, "/v1/manager").starts_with("HTTP/1.1 200"));
    // It is found where it is looked for, too.
    wharf.wait_state("web", "running");
    let web = wharf.pid("web");
    assert_eq!(fs::read_link(wharf.state().join("sock")).unwrap(), place);
    for _ in 0..5 {
        send(wharf.manager_pid(), 9);
        let answers: Vec<_> = (0..10).map(|_| connected(&place)).collect();
        // One that the dead manager had accepted is lost with it; the others wait.
        let right = answers.into_iter().map(ask_or_lost).collect::<Vec<_>>();
        assert!(right.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count() >= 9);
    }
    let other = wharf.folder.join("another");
    fs::copy(env!("CARGO_BIN_EXE_wharf"), &other).unwrap();
    wharf.ok(&["upgrade", other.to_str().unwrap()]);
    assert!(ask(connected(&place), "/v1/manager").starts_with("HTTP/1.1 200"));
    assert_eq!(wharf.pid("web"), web);
    wharf.ok(&["down"]);
    finish(guardian);
    // It is whoever's who made it; what led to it is gone.
    assert!(place.exists());
    assert!(wharf.state().join("sock").symlink_metadata().is_err());
    held.set_nonblocking(true).unwrap();
    connected(&place);
    held.accept().unwrap();
}

fn ask_or_lost(mut socket: UnixStream) -> String {
    let request = "GET /v1/manager HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    let _ = socket
        .write_all(request.as_bytes())
        .and_then(|()| socket.read_to_string(&mut answer).map(drop));
    answer
}

#[test]
fn metrics_are_scraped_at_a_socket_that_was_handed_over_also_in_the_background() {
    let wharf = Wharf::new(KEPT);
    fs::create_dir(wharf.state()).unwrap();
    let place = wharf.state().join("sock");
    let control = UnixListener::bind(&place).unwrap();
    let scraped = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = scraped.local_addr().unwrap();
    wharf.write(&format!("metrics: {{ listen: '{address}' }}\n{KEPT}"));
    let names = "LISTEN_FDS=2 LISTEN_FDNAMES=metrics:control";
    let mut up = handed(&wharf, names, scraped.into(), Some(control.into()), "up -d");
    let output = up.stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stderr), wharf.own_log());
    // What was handed over is wharf's alone now.
    drop(up);
    wharf.wait_state("web", "running");
    for _ in 0..3 {
        let answer = ask(TcpStream::connect(address).unwrap(), "/metrics");
        assert!(answer.contains("\nwharf_build_info"), "{answer}");
        // The address of the configuration is that very socket's: nothing is amiss.
        assert_eq!(wharf.manager()["degraded"].as_array().unwrap().len(), 0);
        let before = wharf.manager_pid();
        send(before, 9);
        until("another manager", || {
            wharf
                .try_get("/v1/manager")
                .ok()
                .filter(|now| !now.contains(&format!("\"pid\":{before},")))
        });
    }
    // Nobody made another file of it, and nobody removes it.
    wharf.ok(&["down"]);
    assert!(place.exists());
    assert!(TcpStream::connect(address).is_err(), "nobody else holds it");
}

#[test]
fn what_cannot_be_what_it_is_called_is_refused_by_name() {
    let wharf = Wharf::new(KEPT);
    let unix = || UnixListener::bind(wharf.folder.join(format!("s{}", rand()))).unwrap();
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let datagrams = || OwnedFd::from(UnixDatagram::unbound().unwrap());
    let check = |variables: &str, first: OwnedFd, words: &str| {
        let mut command = handed(&wharf, variables, first, None, "up");
        let output: Output = command.stderr(Stdio::piped()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variables}: {said}");
        assert!(said.contains(words), "{variables}: {said}");
        assert!(!wharf.state().exists(), "nothing was begun");
    };
    check(
        "LISTEN_FDS=1 LISTEN_FDNAMES=http",
        unix().into(),
        "\"http\": the names are control and metrics",
    );
    check(
        "LISTEN_FDS=1 LISTEN_FDNAMES=control",
        tcp(),
        "descriptor 3 as control: it is a TCP socket at",
    );
    check("LISTEN_FDS=1", null(), "it is no socket, and has to be a Unix stream socket");
    check("LISTEN_FDS=1", datagrams(), "it is a Unix socket that is none for streams");
    check(
        "LISTEN_FDS=1 LISTEN_FDNAMES=metrics",
        unix().into(),
        "as metrics: it is a Unix stream socket at",
    );
    check("LISTEN_FDS=2", unix().into(), "there are 2 of them");
    check(
        "LISTEN_FDS=2 LISTEN_FDNAMES=control",
        unix().into(),
        "says 2, and LISTEN_FDNAMES names 1",
    );
    check("LISTEN_FDS=2 LISTEN_FDNAMES=control:control", unix().into(), "one is enough");
    check("LISTEN_FDS=x", unix().into(), "LISTEN_FDS is \"x\"");
    // One that is promised and not there.
    check(
        "LISTEN_FDS=2 LISTEN_FDNAMES=control:metrics",
        unix().into(),
        "descriptor 4, which was handed over",
    );
}

fn rand() -> u64 {
    wharf::os::random::number().unwrap()
}

#[test]
fn systemds_own_program_starts_wharf_with_the_first_connection() {
    let wharf = Wharf::new(KEPT);
    fs::create_dir(wharf.state()).unwrap();
    let place = wharf.state().join("sock");
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("-l").arg(&place).args(["--fdname=control", env!("CARGO_BIN_EXE_wharf"), "up"]);
    activate.current_dir(&wharf.folder).env_remove("WHARF_STATE_DIR");
    activate.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let guardian = activate.spawn().unwrap();
    until("the socket", || place.exists().then_some(()));
    // It executes wharf, and stays the same process.
    wharf.wait_state("web", "running");
    assert_eq!(wharf.guardian_pid().cast_unsigned(), guardian.id());
    wharf.ok(&["down"]);
    finish(guardian);
}
