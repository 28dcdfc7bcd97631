//! What a program's descriptors are: a socket on descriptor 3, a terminal, and ways to keep it from
//! holding back what it says. All with programs that nobody here wrote, or with Python's eyes.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use crate::loops::cpu;
use crate::support::{Wharf, alive, at, marked, send, text, times, until, wait_gone};

/// Bytes of every kind, the special characters of terminals among them.
fn bytes(count: u32) -> Vec<u8> {
    (0..count).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()
}

/// What the program looks like from inside, one line of Python each.
fn inside(wharf: &Wharf, service: &str, expression: &str) -> String {
    wharf.ok(&["call", service, expression]).trim_end().to_owned()
}

/// Answers each line, an expression, with its value; over descriptor `{}`.
const EVALUATE: &str = "import os, sys, fcntl, termios
read, write = (os.fdopen(fd, mode, buffering=1) for fd, mode in ((IN, 'r'), (OUT, 'w')))
for line in read:
    try: value = eval(line)
    except Exception as error: value = repr(error)
    write.write(f'{value}\\n')
    write.flush()
";

fn evaluator(wharf: &Wharf, input: u8, output: u8) {
    let program = EVALUATE.replace("IN", &input.to_string()).replace("OUT", &output.to_string());
    std::fs::write(wharf.folder.join("evaluate.py"), program).unwrap();
}

#[test]
fn t36_over_descriptor_3_messages_go_apart_from_logs() {
    let wharf = Wharf::new(
        "services:
  look: { command: [python3, evaluate.py], port: { channel: fd3, replies: one }, restart: no }
  chatty:
    command: [bash, -c, 'while read -ru3 line; do echo \"log of $$line\"; echo \"$$line!\" >&3; done; echo bye; exit 3']
    port: { channel: fd3, replies: one }
    restart: no
",
    );
    evaluator(&wharf, 3, 3);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("look", "running");
    wharf.wait_state("chatty", "running");
    assert_eq!(inside(&wharf, "look", "os.readlink('/proc/self/fd/3').split(':')[0]"), "socket");
    assert_eq!(inside(&wharf, "look", "os.readlink('/proc/self/fd/0')"), "/dev/null");
    assert_eq!(inside(&wharf, "look", "sys.stdin.read()"), "");
    for fd in [1, 2, 3] {
        let flags = format!("fcntl.fcntl({fd}, fcntl.F_GETFL) & os.O_NONBLOCK");
        assert_eq!(inside(&wharf, "look", &flags), "0", "descriptor {fd} waits");
    }
    let open = inside(&wharf, "look", "sorted(int(fd) for fd in os.listdir('/proc/self/fd'))");
    assert!(open.starts_with("[0, 1, 2, 3, 4]") || open.starts_with("[0, 1, 2, 3]"), "{open}");

    assert_eq!(wharf.ok(&["call", "chatty", "one"]), "one!\n");
    assert_eq!(wharf.ok(&["call", "chatty", "two"]), "two!\n");
    until("its log", || wharf.logs("chatty").contains("log of two").then_some(()));
    let status = wharf.row("chatty");
    assert_eq!(
        (&status["port"]["frames_in"], &status["port"]["frames_out"]),
        (&2.into(), &2.into())
    );
    // It learns of the end of its input, and what it says then is a log as before.
    wharf.ok(&["send", "chatty", "--close"]);
    let record = wharf.wait_records("chatty", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 3, "{record}");
    assert_eq!(at(&record, "port.unread_stdin_bytes"), 0);
    until("its last log", || wharf.logs("chatty").contains("bye").then_some(()));
    wharf.ok(&["stop", "look"]);
    let record = wharf.wait_records("look", 1).remove(0);
    assert_eq!(at(&record, "exit.stop.steps")[0]["step"], "close_stdin", "{record}");
    assert_eq!(at(&record, "process.exit.code"), 0);
}

#[test]
fn a_socket_carries_much_both_ways_and_knows_what_was_never_read() {
    let wharf = Wharf::up(
        "services:
  back: { command: [sh, -c, 'exec cat <&3 >&3'], port: { channel: fd3, framing: packet4, replies: one } }
  deaf:
    command: [sh, -c, 'head -c 4 <&3 >&3; kill -KILL $$$$']
    port: { channel: fd3, framing: raw, replies: one }
    restart: no
  hearing:
    command: [sh, -c, 'head -c 8 <&3 >&3; kill -KILL $$$$']
    port: { channel: fd3, framing: raw, replies: one }
    restart: no
",
    );
    wharf.wait_state("back", "running");
    let sent = bytes(4 << 20);
    let (status, got) = wharf.post("/v1/services/back/call", &sent);
    assert!(status == 200 && got == sent, "{status}: 4 MiB came back changed");
    for (service, first) in [("deaf", "abcd"), ("hearing", "abcd")] {
        wharf.wait_state(service, "running");
        let (_, got) = wharf.post(&format!("/v1/services/{service}/call"), b"abcdefgh");
        assert!(text(&got).starts_with(first), "{}", text(&got));
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "exit.signal.name"), "SIGKILL", "{record}");
        // How much was left nobody can say; that it was none, one can.
        let unread = at(&record, "port").get("unread_stdin_bytes");
        assert_eq!(unread.is_none(), service == "deaf", "{record}");
    }
    let told = wharf.ok(&["why", "deaf"]);
    assert!(told.contains("some input unread"), "{told}");
}

#[test]
fn a_program_has_a_terminal_of_its_own_session() {
    let wharf = Wharf::new(
        "services:
  look: { command: [python3, evaluate.py], port: { channel: pty, replies: one } }
  tty: { command: [tty], port: { channel: pty, framing: eof, replies: one }, restart: no }
  stty: { command: [stty, -a], port: { channel: pty, framing: eof, replies: one }, restart: no }
",
    );
    evaluator(&wharf, 0, 1);
    wharf.ok(&["up", "-d"]);
    wharf.wait_state("look", "running");
    assert_eq!(
        inside(&wharf, "look", "[os.isatty(fd) for fd in (0, 1, 2)]"),
        "[True, True, False]"
    );
    assert_eq!(inside(&wharf, "look", "os.ttyname(0) == os.ttyname(1)"), "True");
    assert_eq!(inside(&wharf, "look", "os.getsid(0) == os.getpid()"), "True");
    assert_eq!(inside(&wharf, "look", "os.tcgetpgrp(0) == os.getpid()"), "True");
    assert_eq!(inside(&wharf, "look", "os.isatty(os.open('/dev/tty', os.O_RDWR))"), "True");
    assert_eq!(inside(&wharf, "look", "tuple(os.get_terminal_size(0))"), "(1000, 1000)");
    assert_eq!(inside(&wharf, "look", "os.environ['TERM']"), "dumb");
    for fd in [0, 1, 2] {
        let flags = format!("fcntl.fcntl({fd}, fcntl.F_GETFL) & os.O_NONBLOCK");
        assert_eq!(inside(&wharf, "look", &flags), "0", "descriptor {fd} waits");
    }
    for service in ["tty", "stty"] {
        // Their whole output waits for whoever calls, as long as they have not ended.
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "process.exit.code"), 0, "{service}: {record}");
        assert_eq!(at(&record, "port.frames_out"), 1, "{service}: {record}");
    }
    let modes = inside(
        &wharf,
        "look",
        "[bool(termios.tcgetattr(0)[3] & mode) for mode in (termios.ECHO, termios.ISIG, termios.ICANON)]",
    );
    assert_eq!(modes, "[False, False, True]");
    // Nothing that is typed has a meaning, and a long line is as long as it is.
    let long = format!("len('{}')", "x".repeat(9000));
    assert_eq!(inside(&wharf, "look", &long), "9000");
    let odd = "'\u{3}\u{4}\u{15}\u{16}\u{11}\u{13}\u{1c}\u{7f}'.encode().hex()";
    assert_eq!(inside(&wharf, "look", odd), "0304151611131c7f");
}

#[test]
fn programs_for_people_are_spoken_to_over_a_terminal() {
    let wharf = Wharf::up(
        "services:
  shell:
    command: [bash, --norc, --noprofile, -i]
    port: { channel: pty, replies: { sentinel: { send: 'echo {token}', expect: '{token}' } }, quit: exit }
  bc: { command: [bc, -q], port: { channel: pty, replies: one } }
  awk: { command: [mawk, '{ print $$1 * 2 }'], port: { channel: pty, replies: one, timeout: 10s } }
  python: { command: [python3, -q], port: { channel: pty, framing: { prompt: '^>>> $$' }, replies: one } }
  sort: { command: [sort], port: { channel: pty }, restart: no }
  back: { command: [cat], port: { channel: pty, framing: raw }, restart: no }
",
    );
    for service in ["shell", "bc", "awk", "python", "sort", "back"] {
        wharf.wait_state(service, "running");
    }
    // No echo, no prompt (that is on standard error), no escape sequence, no CR.
    assert_eq!(wharf.ok(&["call", "shell", "echo $((6*7))"]), "42\n");
    assert!(wharf.ok(&["call", "shell", "tty"]).starts_with("/dev/pts/"));
    assert_eq!(wharf.ok(&["call", "bc", "2^64"]), "18446744073709551616\n");
    // It reads pipes in blocks and answers none of them before it is full.
    assert_eq!(wharf.ok(&["call", "awk", "21"]), "42\n");
    assert_eq!(wharf.ok(&["call", "awk", "4"]), "8\n");
    until("its prompt", || {
        wharf.row("python")["port"]["frames_out"].as_u64().filter(|said| *said >= 1)
    });
    assert_eq!(wharf.ok(&["call", "python", "6*7"]), "42\n");
    assert_eq!(wharf.ok(&["call", "python", "print('x' * 2000)"]).len(), 2001);
    // The end of input is told without hanging up, and what follows is delivered.
    for word in ["c", "b"] {
        wharf.ok(&["send", "sort", word]);
    }
    assert_eq!(wharf.ok(&["call", "sort", "--close", "a"]), "a\nb\nc\n");
    let sent = bytes(300_000);
    let (status, got) = wharf.post("/v1/services/back/call?close=true", &sent);
    assert!(status == 200 && got == sent, "{status}: {} of {} bytes", got.len(), sent.len());
    for service in ["shell", "bc", "awk"] {
        wharf.ok(&["stop", service]);
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "process.exit.code"), 0, "{service}: {record}");
        assert_eq!(at(&record, "exit.cause"), "stop_requested");
        assert_eq!(at(&record, "exit.stop.escalated"), false, "{record}");
    }
}

#[test]
fn the_last_words_at_a_terminal_come_before_the_end() {
    let wharf = Wharf::up(
        "services:
  dying:
    command: [sh, -c, 'read line; seq 1500; printf last; echo gone >&2; exit 3']
    port: { channel: pty, replies: { until: '^last$$' } }
    restart: no
  heir:
    command: [sh, -c, 'read line; sleep 1000 & echo started; exit 4']
    port: { channel: pty, replies: one }
    stop_kill: process
    restart: no
  deaf: { command: [sleep, '1000'], port: { channel: pty, eof: ignored }, restart: no }
",
    );
    for service in ["dying", "heir", "deaf"] {
        wharf.wait_state(service, "running");
    }
    let said = wharf.ok(&["call", "dying", "go"]);
    assert_eq!(said.lines().count(), 1501);
    assert!(said.ends_with("1500\nlast\n"), "{said}");
    let record = wharf.wait_records("dying", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 3, "{record}");
    assert_eq!(at(&record, "port.partial_frame"), true);
    assert_eq!(at(&record, "stderr_tail"), "gone\n");
    // Who lives on holds the terminal, and not the end.
    assert_eq!(wharf.ok(&["call", "heir", "go"]), "started\n");
    let record = wharf.wait_records("heir", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 4, "{record}");
    // What nobody read is counted to the byte.
    wharf.ok(&["send", "deaf", "0123456789"]);
    wharf.ok(&["signal", "deaf", "KILL"]);
    let record = wharf.wait_records("deaf", 1).remove(0);
    assert_eq!(at(&record, "port.unread_stdin_bytes"), 11, "{record}");
}

#[test]
fn a_program_that_leaves_its_terminal_costs_nothing_and_gets_nothing_more() {
    let wharf = Wharf::up(
        "services:
  gone:
    command: [sh, -c, 'head -c 10; exec <&- >&-; exec sleep 1000']
    port: { channel: pty }
    restart: no
",
    );
    wharf.wait_state("gone", "running");
    // More than a terminal holds: it is still being typed when the program leaves.
    let (status, told) = wharf.post("/v1/services/gone/send", &vec![b'x'; 100_000]);
    assert_eq!(status, 502, "{}", text(&told));
    assert!(text(&told).contains("closed its input"), "{}", text(&told));
    let told = wharf.fails(1, &["send", "gone", "more"]);
    assert!(told.contains("the input of gone/1 is closed"), "{told}");
    let manager = wharf.manager_pid();
    let (before, start) = (cpu(manager), std::time::Instant::now());
    until("a second to pass", || (start.elapsed().as_secs() >= 1).then_some(()));
    let spent = cpu(manager) - before;
    assert!(spent < 0.5, "{spent} s of processor time in a second");
    assert_eq!(wharf.row("gone")["state"], "running");
    wharf.ok(&["stop", "gone"]);
    let record = wharf.wait_records("gone", 1).remove(0);
    assert_eq!(at(&record, "exit.cause"), "stop_requested", "{record}");
}

#[test]
fn a_program_as_another_user_can_open_its_terminal_and_socket_files() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let wharf = Wharf::new(
        "services:
  look: { command: [python3, evaluate.py], user: nobody, port: { channel: pty, replies: one } }
  shown: { command: [python3, evaluate.py], user: nobody, port: { unbuffer: pty, replies: one } }
",
    );
    evaluator(&wharf, 0, 1);
    std::fs::set_permissions(&wharf.folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    wharf.ok(&["up", "-d"]);
    for service in ["look", "shown"] {
        wharf.wait_state(service, "running");
        let own = inside(&wharf, service, "os.getuid() == os.stat(os.ttyname(1)).st_uid != 0");
        assert_eq!(own, "True");
        let again =
            inside(&wharf, service, "os.isatty(os.open(os.ttyname(1), os.O_RDWR | os.O_NOCTTY))");
        assert_eq!(again, "True");
    }
}

#[test]
fn what_a_program_holds_back_is_had_by_stdbuf_or_a_terminal() {
    let programs = [("grep", "[grep, a]"), ("sed", "[sed, 's/x/y/']"), ("cut", "[cut, -c1-]")];
    let mut yaml = "services:\n".to_owned();
    for (name, command) in programs {
        for unbuffer in ["stdbuf", "pty"] {
            let port = format!("{{ unbuffer: {unbuffer}, replies: one }}");
            let _ = writeln!(yaml, "  {name}-{unbuffer}: {{ command: {command}, port: {port} }}");
        }
    }
    yaml.push_str("  plain: { command: [grep, a], port: { unbuffer: none, replies: one } }\n");
    yaml.push_str(
        "  look: { command: [python3, evaluate.py], port: { unbuffer: pty, replies: one } }\n",
    );
    yaml.push_str("  preloads: { command: [python3, evaluate.py], environment: { LD_PRELOAD: '' }, port: { unbuffer: stdbuf, replies: one } }\n");
    let wharf = Wharf::new(&yaml);
    evaluator(&wharf, 0, 1);
    wharf.ok(&["up", "-d"]);
    for (name, _) in programs {
        for unbuffer in ["stdbuf", "pty"] {
            let service = format!("{name}-{unbuffer}");
            wharf.wait_state(&service, "running");
            for word in ["an answer", "and another"] {
                assert_eq!(wharf.ok(&["call", &service, word]), format!("{word}\n"), "{service}");
            }
        }
    }
    wharf.wait_state("plain", "running");
    wharf.fails(6, &["call", "plain", "an answer", "--timeout", "300ms"]);
    wharf.wait_state("look", "running");
    assert_eq!(
        inside(&wharf, "look", "[os.isatty(fd) for fd in (0, 1, 2)]"),
        "[False, True, False]"
    );
    assert_eq!(inside(&wharf, "look", "os.environ['TERM']"), "dumb");
    // It is for the look of it: the session has no terminal that could hang up on it.
    let own = inside(&wharf, "look", "os.open('/dev/tty', os.O_RDWR)");
    assert!(own.contains("No such device or address"), "{own}");
    wharf.wait_state("preloads", "running");
    let preloads = inside(&wharf, "preloads", "os.environ['LD_PRELOAD'], os.environ['_STDBUF_O']");
    assert!(preloads.ends_with("libstdbuf.so', 'L')"), "{preloads}");
    // Input and output end as those of any port.
    wharf.ok(&["stop", "sed-pty"]);
    let record = wharf.wait_records("sed-pty", 1).remove(0);
    assert_eq!(at(&record, "process.exit.code"), 0, "{record}");
    assert_eq!(at(&record, "exit.stop.steps")[0]["step"], "close_stdin");
}

#[test]
fn a_killed_manager_leaves_nothing_of_sockets_and_terminals() {
    let wharf = Wharf::up(
        "services:
  socket: { command: [sh, -c, 'sleep 1000 & exec cat <&3 >&3'], environment: { MARK: ch-socket }, port: { channel: fd3, replies: one } }
  shell: { command: [bash, --norc, -i], environment: { MARK: ch-shell }, port: { channel: pty, replies: one } }
  shown: { command: [sh, -c, 'sleep 1000 & exec sed s/x/y/'], environment: { MARK: ch-shown }, port: { unbuffer: pty, replies: one } }
",
    );
    for _ in 0..times(20).clamp(2, 5) {
        let old: Vec<i32> = ["socket", "shell", "shown"]
            .iter()
            .flat_map(|service| {
                wharf.wait_state(service, "running");
                marked(&format!("ch-{service}"))
            })
            .collect();
        assert!(old.len() >= 3, "{old:?}");
        let manager = wharf.manager_pid();
        send(manager, 9);
        wait_gone(manager);
        for pid in old {
            wait_gone(pid);
            assert!(!alive(pid), "{pid} outlived its manager");
        }
        until("the next manager", || {
            let pid = wharf.try_get("/v1/manager").ok()?;
            (!pid.contains(&format!("\"pid\":{manager},"))).then_some(())
        });
        for service in ["socket", "shell", "shown"] {
            wharf.wait_state(service, "running");
            assert_eq!(
                wharf.ok(&["call", service, "echo hello"]).trim_end().rsplit(' ').next(),
                Some("hello")
            );
        }
    }
    wharf.ok(&["down"]);
    for mark in ["ch-socket", "ch-shell", "ch-shown"] {
        assert_eq!(marked(mark), [0; 0], "{mark}");
    }
}

#[test]
fn no_descriptor_of_any_channel_is_left_over() {
    let wharf = Wharf::up(
        "services:
  socket: { command: [sh, -c, 'exec cat <&3 >&3'], port: { channel: fd3 } }
  terminal: { command: [cat], port: { channel: pty } }
  shown: { command: [cat], port: { unbuffer: pty } }
  missing: { command: [/no/such/program], port: { channel: pty }, restart: no }
",
    );
    let services = ["socket", "terminal", "shown"];
    let open = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let rest = || {
        for service in services {
            wharf.wait_state(service, "running");
        }
        open(wharf.manager_pid())
    };
    // The log files are open by then.
    for service in services {
        wharf.ok(&["restart", service]);
    }
    let before = rest();
    for _ in 0..times(200) {
        for service in services {
            wharf.ok(&["restart", service]);
        }
        wharf.run(&["start", "missing"]);
    }
    until("as few descriptors as before", || (rest() <= before).then_some(()));
    for record in wharf.records_of("missing") {
        assert_eq!(at(&record, "exit.stage"), "exec", "{record}");
    }
}

#[test]
fn check_says_where_stdbuf_has_no_library() {
    let yaml = "services:
  filter: { command: [grep, x], port: { unbuffer: stdbuf } }
  other: { command: [cat] }
";
    let wharf = Wharf::new(yaml);
    let output = wharf.run(&["check"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    // The same machine without it.
    let hidden = "for folder in /usr/libexec/coreutils /usr/lib/coreutils; do
            test ! -e $folder || mount -t tmpfs tmpfs $folder || exit
        done; exec \"$0\" check";
    let hidden = |more: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!("{hidden} {}", more.join(" "));
        command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_wharf")]);
        command.current_dir(&wharf.folder).env("NO_COLOR", "1").output().unwrap()
    };
    let output = hidden(&[]);
    let said = text(&output.stderr);
    assert!(output.status.success() && text(&output.stdout).starts_with("OK: 2"), "{said}");
    assert!(
        said.contains(
            "warning: services.filter.port.unbuffer: on this machine it cannot be started"
        ) && said.contains("libstdbuf.so")
            && !said.contains("other"),
        "{said}"
    );
    let told: serde_json::Value = serde_json::from_slice(&hidden(&["--json"]).stdout).unwrap();
    assert_eq!(told["warnings"][0]["path"], "services.filter.port.unbuffer", "{told}");
}
