//! `wharf upgrade`: another binary goes on with everything, under load, and a broken one changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Wharf, script, soaking, text, until};

const YAML: &str = "defaults: { on_manager_exit: keep }
services:
  calculator:
    command: [awk, -W, interactive, '{ print $1 + $2; fflush() }']
    port: { replies: one, timeout: 20s }
    replicas: 2
  letters:
    command: [python3, letters.py]
    port: { framing: packet4, replies: { id: { pointer: /id } } }
  count: { command: [sh, -c, 'while echo $((i=i+1)); do sleep 0.02; done'], logging: { max_size: 1GiB } }
  flaky:
    command: [sh, -c, 'test -e once && exec sleep 1000; touch once; exit 1']
    restart: always
  later: { command: [sh, -c, 'exit 1'], restart: { policy: always, delay: 1h, max_delay: 1h, jitter: 0 } }
";

const LETTERS: &str = "import json, struct, sys
while True:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4: break
    letter = json.loads(sys.stdin.buffer.read(struct.unpack('>I', head)[0]))
    said = json.dumps({'id': letter['id'], 'said': letter['say']}).encode()
    sys.stdout.buffer.write(struct.pack('>I', len(said)) + said)
    sys.stdout.buffer.flush()
";

/// One call on a connection of its own; the whole answer.
fn call(socket: &Path, path: &str, message: &str) -> std::io::Result<String> {
    let mut socket = wharf::os::socket::connect(socket)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = message.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{message}"
    );
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Callers that never pause. Every call must be answered, and rightly.
struct Callers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
    began: Instant,
}

impl Callers {
    fn start(wharf: &Wharf, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|caller| {
            let (stop, socket) = (Arc::clone(&stop), wharf.state().join("sock"));
            std::thread::spawn(move || {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (path, message, right) = if caller % 2 == 0 {
                        let path = "/v1/services/calculator/call";
                        (path, format!("{answered} 1"), (answered + 1).to_string())
                    } else {
                        let path = "/v1/services/letters/call";
                        let message = format!("{{\"id\":{caller},\"say\":{answered}}}");
                        (path, message, format!("{{\"id\": {caller}, \"said\": {answered}}}"))
                    };
                    let answer = call(&socket, path, &message);
                    let answer = answer.unwrap_or_else(|error| panic!("call {answered}: {error}"));
                    assert!(answer.ends_with(&format!("\r\n\r\n{right}")), "{message}: {answer:?}");
                    answered += 1;
                }
                answered
            })
        });
        Self { threads: threads.collect(), stop, began: Instant::now() }
    }

    /// How many calls were answered, and how many that is a second.
    fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let answered = self.threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        (answered, answered * 1000 / u64::try_from(self.began.elapsed().as_millis()).unwrap())
    }
}

/// What each replica runs: process, incarnation, restarts, state.
fn runs(wharf: &Wharf) -> BTreeMap<String, [Value; 4]> {
    let row = |row: &Value| {
        let name = format!("{}/{}", row["service"].as_str().unwrap(), row["replica"]);
        (name, ["pid", "incarnation", "restarts", "state"].map(|key| row[key].clone()))
    };
    wharf.ps().iter().map(row).collect()
}

/// The counters of a scrape that may only grow.
fn counters(wharf: &Wharf) -> BTreeMap<String, f64> {
    let scrape = wharf.get("/metrics");
    let is_ours = |line: &&str| {
        ["wharf_process_starts_total", "wharf_service_restarts_total", "wharf_port_frames_total"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    scrape.lines().filter(is_ours).map(pair).collect()
}

fn copy_of_the_binary(wharf: &Wharf, name: &str) -> String {
    let path = wharf.folder.join(name);
    fs::copy(env!("CARGO_BIN_EXE_wharf"), &path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_upgrade_under_calls_loses_none_and_nothing_is_out_of_step() {
    let wharf = Wharf::new(YAML);
    script(&wharf.folder, "letters.py", LETTERS);
    wharf.ok(&["up", "-d"]);
    for name in ["calculator", "letters", "count"] {
        wharf.wait_state(name, "running");
    }
    until("the second run", || {
        let row = wharf.row("flaky");
        (row["state"] == "running" && row["restarts"] == 1).then_some(())
    });
    wharf.wait_state("later", "backoff");
    let binaries = ["one", "two"].map(|name| copy_of_the_binary(&wharf, name));
    let (before, generation) = (runs(&wharf), wharf.manager()["generation"].as_u64().unwrap());
    let callers = Callers::start(&wharf, 6);
    let rounds = if soaking() { 100 } else { 8 };
    for round in 0..rounds {
        let counted = counters(&wharf);
        let binary = &binaries[round % 2];
        let said = wharf.run(&["upgrade", binary]);
        assert!(said.status.success(), "{}{}", text(&said.stderr), wharf.own_log());
        let manager = wharf.manager_pid();
        let runs_now = fs::read_link(format!("/proc/{manager}/exe")).unwrap();
        assert_eq!(runs_now.to_str().unwrap(), binary);
        assert_eq!(runs(&wharf), before, "{}", wharf.own_log());
        for (name, count) in counters(&wharf) {
            let earlier = counted.get(&name).copied().unwrap_or(0.0);
            assert!(count >= earlier, "{name} fell from {earlier} to {count}");
        }
    }
    let (answered, rate) = callers.finish();
    println!("{answered} calls, {rate} a second, {rounds} upgrades");
    assert!(answered > 100);
    let manager = wharf.manager();
    assert_eq!(manager["generation"].as_u64().unwrap(), generation + rounds as u64);
    wharf.ok(&["down"]);
    let log = wharf.read(".wharf/log/count.1.log");
    let numbers: Vec<u64> =
        log.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{log}");
    let ends = wharf.records();
    let stopped = ends.iter().filter(|end| end["exit"]["cause"] == "manager_shutdown").count();
    assert_eq!((ends.len(), stopped), (8, 5), "one end of flaky, two of later, and these five");
}

#[test]
fn a_binary_that_does_not_come_to_serve_changes_nothing() {
    let wharf = Wharf::up(
        "services: { web: { command: [sleep, '1000'], on_manager_exit: keep } }
",
    );
    let pid = wharf.wait_state("web", "running")["pid"].clone();
    let real = env!("CARGO_BIN_EXE_wharf");
    // Those that are seen to be unfit beforehand: the manager is not even asked.
    let manager = wharf.manager_pid();
    fs::write(wharf.folder.join("plain"), "no program").unwrap();
    script(&wharf.folder, "fails", "#!/bin/sh\nexit 3\n");
    script(&wharf.folder, "chatters", "#!/bin/sh\necho hello\n");
    script(&wharf.folder, "other", "#!/bin/sh\necho '{\"wharf\":\"9.9.9\",\"form\":999}'\n");
    for (binary, words) in [
        ("missing", "No such file"),
        ("plain", "cannot succeed"),
        ("fails", "cannot succeed"),
        ("chatters", "did not say"),
        ("other", "in form 999"),
    ] {
        let said = wharf.fails(1, &["upgrade", &format!("./{binary}")]);
        assert!(said.contains(words), "{binary}: {said}");
        assert_eq!((wharf.manager_pid(), &wharf.row("web")["pid"]), (manager, &pid));
    }
    // Those that show it too late: the guardian goes back to the one that served.
    let shows = format!("#!/bin/sh\ntest \"$1\" = succession && exec {real} succession\n");
    for (name, end) in
        [("crashes", "kill -SEGV $$\n"), ("exits", "exit 0\n"), ("refuses", "exit 78\n")]
    {
        script(&wharf.folder, name, &format!("{shows}{end}"));
        let said = wharf.fails(1, &["upgrade", &format!("./{name}")]);
        assert!(said.contains("the old one goes on"), "{name}: {said}");
        assert!(wharf.own_log().contains("the new binary ended before it served"));
        assert_eq!(wharf.wait_state("web", "running")["pid"], pid, "{name}");
    }
    assert!(wharf.records().is_empty());
    // And it can be replaced all the same, also after a death: the new one is started again.
    let copy = copy_of_the_binary(&wharf, "copy");
    wharf.ok(&["upgrade", &copy]);
    let old = wharf.manager_pid();
    crate::support::send(old, 9);
    let manager = until("another manager", || {
        let body = wharf.try_get("/v1/manager").ok()?;
        let manager: Value = serde_json::from_str(&body).ok()?;
        manager["pid"].as_i64().filter(|pid| *pid != i64::from(old))
    });
    let runs_now = fs::read_link(format!("/proc/{manager}/exe")).unwrap();
    assert_eq!(runs_now.to_str().unwrap(), copy);
    assert_eq!(wharf.wait_state("web", "running")["pid"], pid);
    wharf.ok(&["down"]);
}

#[test]
fn what_would_end_by_an_upgrade_is_told_and_nothing_is_changed() {
    let wharf = Wharf::new(
        "services:
  kept: { command: [sleep, '1000'], on_manager_exit: keep }
  usual: { command: [sleep, '1000'] }
  slow: { command: [python3, slow.py], port: { replies: one, timeout: 60s }, on_manager_exit: keep }
",
    );
    let slow = "import sys, time
sys.stdin.readline()
print('asked', file=sys.stderr, flush=True)
time.sleep(1000)
";
    script(&wharf.folder, "slow.py", slow);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("usual", "running");
    wharf.wait_state("slow", "running");
    let manager = wharf.manager_pid();
    let said = wharf.fails(1, &["upgrade"]);
    assert!(
        said.contains("usual/1 would be restarted") && said.contains("on_manager_exit"),
        "{said}"
    );
    wharf.ok(&["stop", "usual"]);
    // A call that takes too long is not lost either.
    let socket = wharf.state().join("sock");
    let caller = std::thread::spawn(move || call(&socket, "/v1/services/slow/call", "x"));
    let log = ".wharf/log/slow.1.log";
    until("the call to be heard", || wharf.read(log).contains("asked").then_some(()));
    let said = wharf.fails(1, &["upgrade"]);
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(wharf.manager_pid(), manager);
    assert_eq!(wharf.row("kept")["state"], "running");
    wharf.ok(&["stop", "slow"]);
    let answer = caller.join().unwrap().unwrap();
    assert!(answer.contains("\"code\":\"ended\""), "{answer}");
    wharf.ok(&["upgrade"]);
    assert_ne!(wharf.manager_pid(), manager);
    assert_eq!(wharf.row("usual")["state"], "stopped");
    wharf.ok(&["down"]);
}

/// Who never sends the rest of a request holds nothing up; who has sent all of it is answered.
#[test]
fn half_a_request_holds_no_upgrade_up() {
    let wharf = Wharf::new(
        "services:
  slow: { command: [python3, slow.py], port: { replies: one, timeout: 60s }, on_manager_exit: keep }
",
    );
    let slow = "import os, sys, time
for line in sys.stdin:
    print('asked', file=sys.stderr, flush=True)
    while not os.path.exists('go'): time.sleep(0.01)
    print('answered', flush=True)
";
    script(&wharf.folder, "slow.py", slow);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("slow", "running");
    let manager = wharf.manager_pid();
    let limit = Some(Duration::from_secs(30));
    let open = |bytes: &str| {
        let mut socket = wharf::os::socket::connect(&wharf.state().join("sock")).unwrap();
        socket.set_read_timeout(limit).unwrap();
        socket.write_all(bytes.as_bytes()).unwrap();
        socket
    };
    let whole = "GET /v1/manager HTTP/1.1\r\nhost: w\r\n\r\n";
    let mut head = open("POST /v1/services/slow/call HTT");
    let mut body =
        open("POST /v1/services/slow/call HTTP/1.1\r\nhost: w\r\ncontent-length: 9\r\n\r\nhal");
    let mut chunk = open(
        "POST /v1/services/slow/call HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhal\r\n",
    );
    let mut second = open(whole);
    let mut answer = [0; 4096];
    assert_ne!(second.read(&mut answer).unwrap(), 0);
    second.write_all(&whole.as_bytes()[..20]).unwrap();
    let socket = wharf.state().join("sock");
    let caller = std::thread::spawn(move || call(&socket, "/v1/services/slow/call", "x"));
    let log = ".wharf/log/slow.1.log";
    until("the call to be heard", || wharf.read(log).contains("asked").then_some(()));

    let upgrade = wharf.command(&["upgrade"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Half a request is not waited for, though the upgrade itself still waits for the call.
    for (socket, what) in
        [(&mut head, "head"), (&mut second, "second"), (&mut body, "body"), (&mut chunk, "chunk")]
    {
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        if ["head", "second"].contains(&what) {
            assert!(!said.contains("503"), "{what}: {said}");
        } else {
            assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("unfinished"), "{said}");
        }
    }
    assert_eq!(wharf.read(log).matches("asked").count(), 1, "nothing of them was done");
    fs::write(wharf.folder.join("go"), "").unwrap();
    assert!(caller.join().unwrap().unwrap().ends_with("answered"));
    let said = upgrade.wait_with_output().unwrap();
    assert!(said.status.success(), "{}{}", text(&said.stderr), wharf.own_log());
    assert_ne!(wharf.manager_pid(), manager);
    wharf.ok(&["down"]);
}
