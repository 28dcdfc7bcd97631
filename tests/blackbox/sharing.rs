//! Several callers share one program by ids: each gets its own reply or the reason why there is none,
//! in whatever order replies come and however the program ends. The programs are jq, xargs with its
//! children side by side, gdb, tmux and a language's own JSON-RPC library.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf::message::Kind;

use crate::support::{LIMIT, Wharf, send, text, times, until};
use crate::wire::Wire;

/// One connection, kept from call to call.
struct Client {
    socket: BufReader<UnixStream>,
}

impl Client {
    fn new(wharf: &Wharf) -> Self {
        let socket = wharf.connect().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket: BufReader::new(socket) }
    }

    /// Sends a message; the answer is to be taken by `answer`.
    fn post(&mut self, path: &str, body: &[u8]) {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n", body.len());
        self.socket.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
    }

    fn answer(&mut self) -> (u16, Vec<u8>) {
        let (mut line, mut status, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            assert!(self.socket.read_line(&mut line).unwrap() > 0, "the manager hung up");
            let text = line.trim().to_ascii_lowercase();
            if text.is_empty() {
                break;
            } else if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(size) = text.strip_prefix("content-length: ") {
                length = size.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).unwrap();
        (status, body)
    }

    fn call(&mut self, service: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.post(&format!("/v1/services/{service}/call"), body);
        self.answer()
    }
}

/// Holds every message back until the next one has been answered: replies come in the wrong order.
const SWAPS: &str = "foreach inputs as $m ([]; \
    if length == 1 then [$m, .[0]] else [$m] end; if length == 2 then .[] else empty end)";

#[test]
fn replies_out_of_order_reach_their_callers() {
    let filter = json!(SWAPS).to_string();
    let wharf = Wharf::up(&format!(
        "services:
  swaps:
    command: [jq, -n, --unbuffered, -c, {filter}]
    port: {{ replies: {{ id: {{ pointer: /id }} }} }}
"
    ));
    wharf.wait_state("swaps", "running");
    let (mut first, mut second) = (Client::new(&wharf), Client::new(&wharf));
    for number in 0..times(400) {
        first
            .post("/v1/services/swaps/call", format!("{{\"id\":1,\"first\":{number}}}").as_bytes());
        until("the first call to be with the program", || {
            (wharf.row("swaps")["port"]["frames_in"] == 2 * number + 1).then_some(())
        });
        let (_, reply) =
            second.call("swaps", format!("{{\"id\":1,\"second\":{number}}}").as_bytes());
        assert_eq!(text(&reply), format!("{{\"id\":1,\"second\":{number}}}"));
        let (_, reply) = first.answer();
        assert_eq!(text(&reply), format!("{{\"id\":1,\"first\":{number}}}"));
    }
    assert_eq!(wharf.row("swaps")["port"]["unmatched"], 0);
}

#[test]
fn every_caller_has_its_own_id_back_byte_for_byte() {
    let wharf = Wharf::up(
        "services:
  echo: { command: [jq, --unbuffered, -c, .], port: { replies: { id: { pointer: /id } } } }
",
    );
    wharf.wait_state("echo", "running");
    let ids = [
        "1",
        "-7",
        "1.50",
        "1e400",
        "12345678901234567890123",
        "null",
        "true",
        "\"\"",
        "\"a\\u00e9\"",
        "[1, 2]",
        "{\"id\" :  2}",
        "\"1073741824\"",
    ];
    for id in ids {
        let reply = wharf.ok(&["call", "--raw", "echo", &format!("{{\"x\":[],\"id\":{id}}}")]);
        assert_eq!(reply, format!("{{\"x\":[],\"id\":{id}}}"));
    }
    let told = wharf.fails(1, &["call", "echo", "{\"x\":1}"]);
    assert!(told.contains("nothing at /id") && told.contains("send"), "{told}");
    let told = wharf.fails(1, &["call", "echo", "hello"]);
    assert!(told.contains("not JSON"), "{told}");
    wharf.ok(&["send", "echo", "{\"x\":1}"]);
    assert_eq!(wharf.row("echo")["state"], "running");
}

/// xargs starts eight children at once, each of which says its line when the kernel lets it.
const CROWD: &str = "services:
  crowd:
    command: [xargs, -d, '\\n', -P, '8', -n, '1', printf, '%s\\n']
    port: { replies: { id: { pointer: /id } }, timeout: 30s }
    restart: { policy: always, delay: 1ms, max_delay: 10ms, max_restarts: 1000000 }
";

/// Twenty callers, who all use the same ids, with so many calls each; what each call was told.
fn crowd(wharf: &Wharf, calls: usize, told: &(impl Fn(u16, &Value) + Sync)) {
    std::thread::scope(|scope| {
        for caller in 0..20 {
            scope.spawn(move || {
                let mut client = Client::new(wharf);
                for number in 0..calls {
                    let own = json!({ "id": number, "caller": caller }).to_string();
                    let (status, body) = client.call("crowd", own.as_bytes());
                    if status == 200 {
                        assert_eq!(text(&body), own, "the reply of another");
                        told(status, &Value::Null);
                    } else {
                        told(status, &serde_json::from_slice(&body).unwrap());
                    }
                }
            });
        }
    });
}

#[test]
fn twenty_callers_share_one_program_and_none_gets_the_reply_of_another() {
    let wharf = Wharf::up(CROWD);
    wharf.wait_state("crowd", "running");
    let answered = AtomicUsize::new(0);
    let calls = times(200);
    crowd(&wharf, calls, &|status, body| {
        assert_eq!(status, 200, "{body}");
        answered.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(answered.into_inner(), 20 * calls);
    let port = &wharf.row("crowd")["port"];
    assert_eq!((&port["unmatched"], &port["open"]), (&json!(0), &json!(0)));
}

#[test]
fn a_program_that_is_killed_answers_its_callers_or_they_are_told_why_not() {
    let wharf = Wharf::up(CROWD);
    wharf.wait_state("crowd", "running");
    let (done, answered, lost) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let calls = times(200);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A new run is killed as soon as it has answered something.
            let mut killed = 0;
            while !done.load(Ordering::Relaxed) {
                let row = wharf.row("crowd");
                let pid = row["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
                if let Some(pid) = pid.filter(|pid| *pid != killed)
                    && row["port"]["frames_out"].as_u64() > Some(20)
                {
                    send(pid, 9);
                    killed = pid;
                }
                crate::support::look_again();
            }
        });
        crowd(&wharf, calls, &|status, body| {
            if status == 200 {
                answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let told = body.to_string();
            let ended = told.contains("SIGKILL")
                && (told.contains("never_read") || told.contains("maybe_read"));
            assert!(ended || told.contains("not_running"), "{told}");
            lost.fetch_add(usize::from(ended), Ordering::Relaxed);
        });
        done.store(true, Ordering::Relaxed);
    });
    assert!(answered.into_inner() > 0 && lost.into_inner() > 0);
    let record = wharf.wait_records("crowd", 1).remove(0);
    assert_eq!(record["exit"]["signal"]["name"], "SIGKILL");
}

#[test]
fn a_call_that_times_out_holds_up_nobody_and_its_late_reply_is_dropped() {
    let filter = json!(SWAPS).to_string();
    let wharf = Wharf::up(&format!(
        "services:
  swaps:
    command: [jq, -n, --unbuffered, -c, {filter}]
    port: {{ replies: {{ id: {{ pointer: /id }} }}, timeout: 30s }}
"
    ));
    wharf.wait_state("swaps", "running");
    let mut client = Client::new(&wharf);
    wharf.fails(6, &["call", "--timeout", "100ms", "swaps", "{\"id\":\"late\"}"]);
    let start = Instant::now();
    let (_, reply) = client.call("swaps", b"{\"id\":\"next\"}");
    assert_eq!(text(&reply), "{\"id\":\"next\"}");
    assert!(start.elapsed() < Duration::from_secs(10));
    until("the late reply", || (wharf.row("swaps")["port"]["frames_out"] == 2).then_some(()));
    assert_eq!(wharf.row("swaps")["port"]["open"], 0);
}

#[test]
fn a_call_behind_one_that_was_never_answered_is_told_so() {
    let wharf = Wharf::up(
        "services:
  some: { command: [jq, --unbuffered, -c, 'select(. != 0)'], port: { replies: one } }
",
    );
    wharf.wait_state("some", "running");
    assert_eq!(wharf.ok(&["call", "some", "1"]), "1\n");
    assert!(wharf.row("some")["port"].get("held_up_s").is_none());
    let told = wharf.fails(6, &["call", "some", "0", "--timeout", "200ms"]);
    assert!(told.contains("no reply within 0.2") && !told.contains("given up"), "{told}");
    // Its reply will never come, and nothing tells whose the next one is.
    let told = wharf.fails(6, &["call", "some", "2", "--timeout", "200ms"]);
    assert!(told.contains("still owes the reply") && told.contains("never read"), "{told}");
    let (status, told) = wharf.post("/v1/services/some/call?timeout=200ms", b"2");
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(
        (status, &told["held_up"], &told["read"]),
        (504, &json!(true), &json!("never_read")),
        "{told}"
    );
    assert!(wharf.row("some")["port"]["held_up_s"].as_f64().unwrap() > 0.3);
    assert!(wharf.run(&["status", "some"]).stdout.windows(7).any(|word| word == b"Held up"));
    wharf.ok(&["restart", "some"]);
    assert_eq!(wharf.ok(&["call", "some", "2"]), "2\n");
}

#[test]
fn what_the_program_says_of_itself_reaches_every_listener_and_nobodys_reply_is_counted() {
    let wharf = Wharf::up(
        "services:
  tells:
    command: [jq, --unbuffered, -c, '{method: \"log\", params: .id}, {id: 5, method: \"ask\"}, {id}, {id}, {id: \"?\"}']
    port: { replies: { id: { pointer: /id } } }
",
    );
    wharf.wait_state("tells", "running");
    let listeners: Vec<_> = (0..2)
        .map(|_| {
            let mut socket = wharf.connect().unwrap();
            // Shorter than the heartbeat of a silent stream, which would keep us waiting.
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let asked = b"GET /v1/events?kind=message HTTP/1.1\r\nhost: w\r\n\r\n";
            socket.write_all(asked).unwrap();
            let mut reader = BufReader::new(socket);
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(line.contains("200"), "{line}");
            reader
        })
        .collect();
    assert_eq!(wharf.ok(&["call", "tells", "{\"id\":\"mine\"}"]), "{\"id\":\"mine\"}\n");
    for mut listener in listeners {
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let mut line = String::new();
            assert!(listener.read_line(&mut line).unwrap() > 0);
            let said = line
                .strip_prefix("data:")
                .and_then(|json| serde_json::from_str::<Value>(json).ok());
            heard.extend(said.and_then(|said| said["message"]["text"].as_str().map(str::to_owned)));
        }
        assert!(
            heard[0].contains("\"log\"") && heard[1] == "{\"id\":5,\"method\":\"ask\"}",
            "{heard:?}"
        );
    }
    until("the replies to nobody", || (wharf.row("tells")["port"]["unmatched"] == 2).then_some(()));
    assert!(wharf.ok(&["status", "tells"]).contains("2 replies to no call dropped"));
    let metrics = wharf.get("/metrics");
    let line = "wharf_port_protocol_errors_total{service=\"tells\",kind=\"unmatched\"} 2";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn gdb_is_called_by_prefix() {
    let wharf = Wharf::up(
        "services:
  gdb:
    command: [gdb, -q, -nx, --interpreter=mi2]
    port: { replies: { prefix: { send: '{token}', expect: '{token}' } }, quit: -gdb-exit }
",
    );
    wharf.wait_state("gdb", "running");
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let wharf = &wharf;
            scope.spawn(move || {
                for number in 0..10 {
                    let asked = format!("-data-evaluate-expression {caller}*100+{number}");
                    let (_, reply) = Client::new(wharf).call("gdb", asked.as_bytes());
                    let value = caller * 100 + number;
                    assert_eq!(text(&reply), format!("^done,value=\"{value}\""));
                }
            });
        }
    });
    let told = wharf.ok(&["call", "gdb", "--", "-nonsense"]);
    assert!(told.starts_with("^error,msg=\"Undefined MI command"), "{told}");
    wharf.ok(&["stop", "gdb"]);
    let record = wharf.wait_records("gdb", 1).remove(0);
    assert_eq!(record["exit"]["stop"]["steps"][0]["step"], "quit");
    assert_eq!(record["process"]["exit"]["code"], 0);
}

#[test]
fn tmux_is_called_by_brackets() {
    let wharf = Wharf::new(
        "services:
  tmux:
    command: [tmux, -S, ./tmux.sock, -f, /dev/null, -C, new-session, -s, ours, sleep infinity]
    environment: { TERM: xterm, LC_ALL: C.UTF-8 }
    port:
      replies:
        bracket:
          begin: '^%begin \\d+ (?P<number>\\d+) '
          end: '^%(?:end|(?P<keep>error)) \\d+ (?P<number>\\d+) '
",
    );
    wharf.ok(&["up", "-d"]);
    // The first bracket is nobody's: that of the command line.
    until("tmux to have begun", || {
        (wharf.row("tmux")["port"]["frames_out"].as_u64() >= Some(3)).then_some(())
    });
    assert_eq!(wharf.ok(&["call", "tmux", "display-message -p hello"]), "hello\n");
    assert_eq!(wharf.ok(&["call", "tmux", "list-sessions -F '#S'"]), "ours\n");
    let told = wharf.ok(&["call", "tmux", "nonsense"]);
    assert!(told.contains("unknown command: nonsense") && told.ends_with("error\n"), "{told}");
    assert_eq!(wharf.ok(&["call", "tmux", "set-option -g status off"]), "\n", "an empty reply");
    wharf.ok(&["send", "tmux", "kill-server"]);
    wharf.wait_records("tmux", 1);
}

/// A command in namespaces of its own, where it may do as root does.
fn apart(namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(namespaces).env_remove("WHARF_STATE_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A question by name to inet_gethost, with the same number whoever asks: a name whose address is
/// 10.0.0.0 + `number` and takes its time.
fn question(number: u16) -> Vec<u8> {
    let delay = if number.is_multiple_of(5) { 40 } else { 0 };
    let name = format!("{delay}-{number}.test\0");
    [&[0, 0, 0, 7, 1, 1][..], name.as_bytes()].concat()
}

#[test]
fn inet_gethost_answers_each_caller_in_whatever_order() {
    const CALLERS: u16 = 8;
    const EACH: u16 = 30;
    let wharf = Wharf::new("services: { resolver: { port: { use: inet-gethost } } }\n");
    let resolv = wharf.folder.join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:20 attempts:1\n").unwrap();
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/names.py");
    let mut command = apart(&["--mount", "--net", "python3"]);
    command.arg(names).arg(resolv).args([env!("CARGO_BIN_EXE_wharf"), "up"]);
    let mut manager = command.current_dir(&wharf.folder).spawn().unwrap();
    wharf.wait_state("resolver", "running");
    let overtaken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (wharf, overtaken) = (&wharf, &overtaken);
            scope.spawn(move || {
                let mut wire = Wire::new(wharf, None);
                let numbers = caller * EACH..(caller + 1) * EACH;
                let mut open: BTreeSet<u64> = numbers.clone().map(u64::from).collect();
                numbers.for_each(|number| wire.call("resolver", number.into(), question(number)));
                while let Some(first) = open.first().copied() {
                    let frame = wire.next();
                    assert_eq!(frame.kind, Kind::Reply, "{}", text(&frame.payload));
                    assert!(open.remove(&frame.id), "{} is answered twice", frame.id);
                    overtaken.fetch_add(usize::from(frame.id != first), Ordering::Relaxed);
                    let [high, low] = u16::try_from(frame.id).unwrap().to_be_bytes();
                    let expected = [0, 0, 0, 7, 4, 0, 0, 0, 1, 10, 0, high, low];
                    let told = frame.payload.escape_ascii().to_string();
                    assert!(frame.payload.starts_with(&expected), "{}: {told}", frame.id);
                }
            });
        }
    });
    let overtaken = overtaken.into_inner();
    assert!(overtaken > 0, "all replies came in order, so that nothing was shown");
    let port = &wharf.row("resolver")["port"];
    assert_eq!((&port["unmatched"], &port["open"]), (&json!(0), &json!(0)), "{port}");
    assert_eq!(port["frames_out"], CALLERS * EACH, "{port}");
    wharf.ok(&["down"]);
    assert!(manager.wait().unwrap().success());
}

#[test]
fn who_calls_a_run_that_never_gets_a_process_is_told_so_at_once() {
    let wharf = Wharf::new(
        "services:
  shown:
    command: [cat]
    port: { channel: pty, replies: one, timeout: 10m }
    restart: { policy: always, delay: 1ms, factor: 1, max_restarts: 1000000, within: 1s }
",
    );
    // Where this is no terminal, none can be had, and the spawner refuses.
    let script = "mount --bind /dev/null /dev/ptmx && exec \"$0\" up";
    let mut command = apart(&["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_wharf")]);
    let mut manager = command.current_dir(&wharf.folder).spawn().unwrap();
    wharf.wait_records("shown", 1);
    // Some of many calls come between the order to start it and the refusal. What they do not come to
    // is their deadline: the socket's is shorter.
    let (mut wire, mut met) = (Wire::new(&wharf, None), 0);
    let start = Instant::now();
    for id in 0.. {
        wire.call("shown", id, "hello");
        let told = wire.told(Kind::Error, id);
        if told["code"] == "ended" {
            assert_eq!(told["data"]["read"], "never_read", "{told}");
            assert_eq!(told["data"]["reason"], "setup_failed", "{told}");
            met += 1;
        } else {
            assert_eq!(told["code"], "not_running", "{told}");
        }
        if met == 3 {
            break;
        }
        assert!(start.elapsed() < LIMIT, "no call came in between, of {id}");
    }
    wharf.ok(&["down"]);
    assert!(manager.wait().unwrap().success());
}
