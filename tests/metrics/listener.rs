//! Metrics over TCP: where the configuration says, nothing else there, and no service ever notices.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::scrape::{Scrape, judge, unchunked};
use crate::support::{LIMIT, Wharf, until};

/// A port of the loopback that is free at this moment.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn services(port: Option<u16>) -> String {
    let metrics = port.map(|port| format!("metrics: {{ listen: \"127.0.0.1:{port}\" }}\n"));
    format!("{}services:\n  s: {{ command: [sleep, '1000'] }}\n", metrics.unwrap_or_default())
}

/// One request over TCP: status, head and body.
fn ask(port: u16, verb: &str, path: &str) -> std::io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "{verb} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, head.to_lowercase(), body.to_owned()))
}

fn scrape(port: u16) -> Scrape {
    let (status, head, body) = until("an answer", || ask(port, "GET", "/metrics").ok());
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    Scrape::read(&unchunked(&body))
}

#[test]
fn it_answers_get_metrics_and_refuses_everything_else_by_name() {
    let port = free();
    let wharf = Wharf::up(&services(Some(port)));
    let over_tcp = scrape(port);
    judge(&over_tcp.text);
    let keys = |scrape: &Scrape| scrape.values.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&over_tcp), keys(&Scrape::of(&wharf)), "both doors tell the same");

    for (verb, path, status, code) in [
        ("GET", "/", 404, "no_such_route"),
        ("GET", "/v1/services", 404, "no_such_route"),
        ("POST", "/v1/services/s/stop", 404, "no_such_route"),
        ("POST", "/v1/shutdown", 404, "no_such_route"),
        ("GET", "/metrics/", 404, "no_such_route"),
        ("POST", "/metrics", 405, "wrong_verb"),
        ("DELETE", "/metrics", 405, "wrong_verb"),
    ] {
        let (found, _, body) = ask(port, verb, path).unwrap();
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{verb} {path}: {body}");
        let told = error["error"].as_str().unwrap();
        assert!(told.contains(if status == 404 { path } else { verb }), "{told}");
    }
    let (status, _, body) = ask(port, "HEAD", "/metrics").unwrap();
    assert_eq!((status, body.as_str()), (200, ""));
    // Nonsense is answered or closed, and nothing else suffers.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    scrape(port);
    assert_eq!(wharf.row("s")["state"], "running");
}

#[test]
fn a_reload_moves_the_listener_and_touches_no_service() {
    let (one, other) = (free(), free());
    let wharf = Wharf::up(&services(Some(one)));
    let before = wharf.wait_state("s", "running");
    scrape(one);
    for (from, to) in [(Some(one), Some(other)), (Some(other), None), (None, Some(one))] {
        wharf.write(&services(to));
        let plan = wharf.ok(&["reload", "--plan"]);
        let named = if from.is_some() && to.is_some() { "metrics.listen" } else { "metrics" };
        assert_eq!(plan, format!("the manager itself: {named}\nunchanged: s\n"));
        wharf.ok(&["reload"]);
        assert_eq!(wharf.ok(&["reload", "--plan"]), "nothing changes\n");
        if let Some(port) = to {
            scrape(port);
        }
        if let Some(port) = from {
            until("the old one to close", || {
                TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
            });
        }
        let now = wharf.row("s");
        assert_eq!((&now["pid"], &now["incarnation"]), (&before["pid"], &before["incarnation"]));
    }
    assert!(wharf.records().is_empty(), "nothing ended");
    let config = wharf.get("/v1/config");
    assert!(config.contains(&format!("\"listen\":\"127.0.0.1:{one}\"")), "{config}");
}

#[test]
fn an_address_that_is_taken_is_told_and_tried_again() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let wharf = Wharf::up(&services(Some(port)));
    let degraded = || {
        let manager = wharf.manager();
        manager["degraded"].as_array().unwrap().first().cloned().unwrap_or_default()
    };
    let told = until("the trouble", || degraded().as_str().map(str::to_owned));
    let words = format!("cannot listen at 127.0.0.1:{port}: Address already in use");
    assert!(told.contains(&words) && told.contains("tried again"), "{told}");
    assert!(wharf.ok(&["status"]).contains(&words));
    // Supervision is whole, and metrics are there by the socket.
    wharf.wait_state("s", "running");
    Scrape::of(&wharf);

    drop(holder);
    scrape(port);
    until("all to be well", || degraded().is_null().then_some(()));

    // Another address that is taken, and then none at all: nothing is wrong any more.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    wharf.write(&services(Some(holder.local_addr().unwrap().port())));
    wharf.ok(&["reload"]);
    until("the trouble again", || degraded().as_str().map(drop));
    wharf.write(&services(None));
    wharf.ok(&["reload"]);
    until("all to be well again", || degraded().is_null().then_some(()));
}

#[test]
fn an_address_that_others_reach_needs_to_be_allowed() {
    let wharf =
        Wharf::new("metrics: { listen: \"0.0.0.0:9464\" }\nservices:\n  s: { command: x }\n");
    let complaint = wharf.fails(3, &["check"]);
    assert!(complaint.contains("other machines can reach 0.0.0.0:9464"), "{complaint}");
    assert!(complaint.contains("allow_remote: true"), "{complaint}");
    wharf.fails(3, &["up", "-d"]);
    wharf.write(
        "metrics: { listen: \"0.0.0.0:9464\", allow_remote: true }\nservices:\n  s: { command: x }\n",
    );
    let output = wharf.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("without a password"), "{said}");
    for listen in ["127.0.0.1:9464", "localhost:9464", "[::1]:9464", "127.8.0.1:1"] {
        wharf.write(&format!(
            "metrics: {{ listen: \"{listen}\" }}\nservices:\n  s: {{ command: x }}\n"
        ));
        assert!(wharf.ok(&["check"]).starts_with("OK"), "{listen}");
    }
}

#[test]
fn more_clients_than_there_is_room_for_wait_their_turn() {
    let port = free();
    let wharf = Wharf::up(&services(Some(port)));
    scrape(port);
    let mut idle: Vec<_> =
        (0..32).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    // Each has been let in once it has an answer.
    for stream in &mut idle {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
    }
    let mut late = TcpStream::connect(("127.0.0.1", port)).unwrap();
    late.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(late.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    Scrape::of(&wharf);
    drop(idle.pop());
    late.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = [0; 12];
    late.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}
