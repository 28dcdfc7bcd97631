//! Sockets that the manager holds: who gets them, what they survive, and when they are closed.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{LIMIT, Wharf, at, script, send, text, times, until};

/// An address of this machine that no other test has: 127.0.0.0/8 is all ours.
fn address() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let part = |number: u32| u8::try_from(number % 250 + 1).unwrap();
    let last = part(u32::try_from(number).unwrap());
    SocketAddr::from(([127, part(pid), part(pid / 250), last], 7070))
}

/// A server that says which of its runs it is to everybody who comes to its first socket.
const GREETER: &str = "import os, socket
listener = socket.socket(fileno=int(os.environ['FIRST']))
while True:
    connection, _ = listener.accept()
    connection.sendall(os.environ['WHARF_INCARNATION'].encode())
    connection.close()
";

/// A wharf with the greeter in its folder.
fn greeting(yaml: &str) -> Wharf {
    let wharf = Wharf::new(yaml);
    script(&wharf.folder, "greeter.py", GREETER);
    wharf
}

fn service(keys: &str) -> String {
    format!(
        "services:\n  web:\n    command: python3 greeter.py\n    environment: {{ FIRST: '3' }}\n    \
         stop_grace_period: 2s\n    {keys}\n"
    )
}

fn tcp(address: SocketAddr) -> String {
    format!("listen: [{{ name: http, tcp: '{address}' }}]")
}

/// What a server says to whoever comes; an error where it was refused, or reset.
fn greeted(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Says what it was given, the descriptors as the kernel knows them.
const TELLER: &str = "import os, socket, time
kinds = [socket.socket(fileno=number) for number in (3, 4, 5)]
print('own', os.environ.pop('LISTEN_PID') == str(os.getpid()))
print('kinds', *[kind.family.name + ':' + kind.type.name for kind in kinds])
print('open', *sorted(n for n in range(64) if os.path.exists(f'/proc/self/fd/{n}')))
print('blocking', *[os.get_blocking(number) for number in (3, 4, 5)])
print('told', *sorted(f'{k}={v}' for k, v in os.environ.items() if 'LISTEN' in k), flush=True)
time.sleep(1000)
";

#[test]
fn a_program_gets_its_sockets_as_systemd_hands_them_over() {
    let (http, dns) = (address(), address());
    let wharf = Wharf::new(&format!(
        "services:
  web:
    command: python3 teller.py
    listen:
      - {{ name: http, tcp: '{http}' }}
      - {{ name: local-api, unix: api.sock }}
      - {{ name: dns, udp: '{dns}' }}
  other:
    command: [sh, -c, 'ls /proc/self/fd | tr \"\\n\" \" \"; env | grep -c LISTEN; exec sleep 1000']
"
    ));
    script(&wharf.folder, "teller.py", TELLER);
    wharf.ok(&["up", "-d"]);
    let said = until("what it was given", || {
        let said = wharf.logs("web");
        said.contains("told").then_some(said)
    });
    for part in [
        "own True",
        "kinds AF_INET:SOCK_STREAM AF_UNIX:SOCK_STREAM AF_INET:SOCK_DGRAM",
        "open 0 1 2 3 4 5\n",
        "blocking True True True",
        "told LISTEN_FDNAMES=http:local-api:dns LISTEN_FDS=3 WHARF_LISTEN_DNS=5 WHARF_LISTEN_HTTP=3 \
         WHARF_LISTEN_LOCAL_API=4",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // `ls` itself has one open for the folder.
    let other = until("the other's word", || {
        let said = wharf.logs("other");
        said.contains(" 3 ").then_some(said)
    });
    assert!(other.contains("0 1 2 3 0"), "{other}");
    let status = wharf.ok(&["status", "web"]);
    for part in [
        format!("Listens: tcp {http} (http, descriptor 3)"),
        format!("Listens: udp {dns} (dns, descriptor 5)"),
        "api.sock (local-api, descriptor 4)".to_owned(),
    ] {
        assert!(status.contains(&part), "{status}");
    }
    UdpSocket::bind(dns).expect_err("the manager has it");
    wharf.ok(&["down"]);
    assert!(!wharf.folder.join("api.sock").exists(), "its file goes with it");
}

#[test]
fn replicas_share_a_socket_and_a_restart_refuses_nobody() {
    let address = address();
    let yaml = service(&format!("replicas: 3\n    {}", tcp(address)));
    let wharf = greeting(&yaml);
    wharf.ok(&["up", "-d"]);
    let mut seen = BTreeSet::new();
    until("all three to answer", || {
        seen.insert(greeted(address).unwrap());
        (seen.len() == 3).then_some(())
    });
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let client = std::thread::spawn(move || {
        let (mut answered, mut failed) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match greeted(address) {
                Ok(said) if !said.is_empty() => answered += 1,
                // A greeter that is told to end may have accepted.
                Ok(_) => {}
                Err(error) => failed.push(error.kind()),
            }
        }
        (answered, failed)
    });
    wharf.ok(&["restart", "web"]);
    wharf.write(&yaml.replace("FIRST: '3'", "FIRST: '3', ANOTHER: x"));
    wharf.ok(&["reload"]);
    for replica in 1..=3 {
        wharf.ok(&["restart", &format!("web/{replica}")]);
    }
    done.store(true, Ordering::Relaxed);
    let (answered, failed) = client.join().unwrap();
    assert!(answered > 10, "{answered}");
    assert!(!failed.contains(&ErrorKind::ConnectionRefused), "{failed:?}");
}

/// The scenario of the shared listener: 1,000 connections a second, and the server killed again and
/// again. It takes one connection at a time, so that each kill can cost one at most.
#[test]
fn a_server_killed_fifty_times_refuses_nobody() {
    const CLIENTS: usize = 8;
    const A_SECOND: usize = 1_000;
    let kills = times(50).max(5);
    let address = address();
    let restart = "restart: { policy: always, delay: 1ms, max_restarts: 1000 }";
    let wharf = greeting(&service(&format!("{restart}\n    {}", tcp(address))));
    wharf.ok(&["up", "-d"]);
    greeted(address).unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let (mut answered, mut refused, mut cut) = (0, 0, 0);
                let pace = Duration::from_secs(1) * u32::try_from(CLIENTS).unwrap()
                    / u32::try_from(A_SECOND).unwrap();
                let begin = Instant::now();
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    match greeted(address) {
                        Ok(said) if !said.is_empty() => answered += 1,
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
                        Ok(_) => cut += 1,
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => cut += 1,
                        Err(error) => panic!("{error}"),
                    }
                    number += 1;
                    let due = begin + pace * number;
                    let wait = due.saturating_duration_since(Instant::now());
                    let wait = u16::try_from(wait.as_millis()).unwrap();
                    nix::poll::poll(&mut [], nix::poll::PollTimeout::from(wait)).unwrap();
                }
                (answered, refused, cut)
            })
        })
        .collect();
    let begin = Instant::now();
    for _ in 0..kills {
        let before = wharf.row("web")["incarnation"].clone();
        send(wharf.pid("web"), libc_kill());
        until("another run", || {
            let row = wharf.row("web");
            (row["state"] == "running" && row["incarnation"] != before).then_some(())
        });
        // It has served somebody before it is killed again.
        greeted(address).unwrap();
    }
    let took = begin.elapsed();
    done.store(true, Ordering::Relaxed);
    let mut sum = (0, 0, 0);
    for client in clients {
        let (answered, refused, cut) = client.join().unwrap();
        sum = (sum.0 + answered, sum.1 + refused, sum.2 + cut);
    }
    let (answered, refused, cut) = sum;
    println!("{kills} kills in {took:?}: {answered} answered, {refused} refused, {cut} cut");
    assert_eq!(refused, 0);
    assert!(cut <= kills, "{cut} connections were cut by {kills} kills");
    assert!(answered > kills, "{answered}");
    let records = wharf.records_of("web");
    let killed = records.iter().filter(|record| at(record, "exit.signal.name") == "SIGKILL");
    assert_eq!(killed.count(), kills);
}

fn libc_kill() -> i32 {
    wharf::exit::Signal::KILL.number()
}

/// Answers a line over descriptor 3 with what it was told and the port that it listens at.
const ANSWERER: &str = "import os, socket
channel, told = socket.socket(fileno=3), [os.environ[name] for name in
    ('LISTEN_FDS', 'LISTEN_FDNAMES', 'WHARF_LISTEN_HTTP')]
listener = socket.socket(fileno=int(told[2]))
for line in channel.makefile('r'):
    answer = ' '.join([line.strip(), *told, str(listener.getsockname()[1])])
    channel.sendall(answer.encode() + bytes([10]))
";

#[test]
fn a_port_on_descriptor_3_stands_before_the_sockets() {
    let wharf = Wharf::new(&format!(
        "services:
  both:
    command: python3 answerer.py
    port: {{ channel: fd3, replies: one }}
    {}
",
        tcp(address())
    ));
    script(&wharf.folder, "answerer.py", ANSWERER);
    wharf.ok(&["up", "-d"]);
    assert_eq!(wharf.ok(&["call", "both", "hello"]).trim(), "hello 2 port:http 4 7070");
}

#[test]
fn a_stopped_service_refuses_and_a_started_one_accepts_again() {
    let address = address();
    let wharf = greeting(&service(&format!("replicas: 2\n    {}", tcp(address))));
    wharf.ok(&["up", "-d"]);
    greeted(address).unwrap();
    wharf.ok(&["stop", "web/1"]);
    greeted(address).unwrap();
    wharf.ok(&["stop", "web"]);
    until("it to refuse", || refused(address).then_some(()));
    let status = text(&wharf.run(&["status", "web", "--json"]).stdout);
    assert!(status.contains("\"open\": false"), "{status}");
    wharf.ok(&["start", "web"]);
    greeted(address).unwrap();
    wharf.ok(&["down"]);
    assert!(refused(address));
}

#[test]
fn what_waits_in_the_queue_is_served_after_a_backoff() {
    let address = address();
    let wharf = greeting(
        &service(&format!("restart: {{ delay: 300ms }}\n    shell: true\n    {}", tcp(address)))
            .replace("command: python3", "command: test -e fine && exec python3"),
    );
    wharf.ok(&["up", "-d"]);
    let client =
        std::thread::spawn(move || until("the first socket", || TcpStream::connect(address).ok()));
    let mut waiting = client.join().unwrap();
    wharf.wait_records("web", 3);
    std::fs::write(wharf.folder.join("fine"), "").unwrap();
    waiting.set_read_timeout(Some(LIMIT)).unwrap();
    let mut said = String::new();
    waiting.read_to_string(&mut said).unwrap();
    assert!(!said.is_empty());
}

#[test]
fn an_address_in_use_is_told_with_who_has_it() {
    let address = address();
    let stranger = TcpListener::bind(address).unwrap();
    let wharf = greeting(&service(&format!("restart: {{ delay: 50ms }}\n    {}", tcp(address))));
    assert_eq!(wharf.run(&["up", "-d"]).status.code(), Some(0));
    let record = wharf.wait_records("web", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "setup_failed");
    assert_eq!(at(&record, "exit.stage"), "listen");
    let evidence = at(&record, "exit.evidence").to_string();
    let pid = std::process::id();
    let told = format!("cannot listen on tcp {address} (http): the address is in use: pid {pid} (");
    assert!(evidence.contains(&told), "{evidence}");
    drop(stranger);
    wharf.wait_state("web", "running");
    greeted(address).unwrap();
}

#[test]
fn a_reload_that_cannot_listen_changes_nothing() {
    let (first, second) = (address(), address());
    let yaml = service(&tcp(first));
    let wharf = greeting(&yaml);
    wharf.ok(&["up", "-d"]);
    let before = greeted(first).unwrap();
    let stranger = TcpListener::bind(second).unwrap();
    wharf.write(&service(&tcp(second)));
    let complaint = wharf.fails(1, &["reload"]);
    assert!(complaint.contains(&format!("cannot listen on tcp {second} (http)")), "{complaint}");
    assert_eq!(greeted(first).unwrap(), before);
    drop(stranger);
    let plan = wharf.ok(&["reload", "--plan"]);
    assert!(plan.contains("web: restart (listen)"), "{plan}");
    wharf.ok(&["reload"]);
    let after = greeted(second).unwrap();
    assert_ne!(after, before);
    until("the old one to be closed", || refused(first).then_some(()));
    assert!(
        wharf.records_of("web").iter().all(|record| at(record, "exit.reason") != "setup_failed")
    );
}

/// Both cannot be held at once, and the programs of the old configuration have theirs until they end.
#[test]
fn an_address_can_grow_to_all_of_the_machine() {
    let port = address().ip().to_string().rsplit('.').next().unwrap().parse::<u16>().unwrap();
    let port = 17_000 + port + u16::try_from(std::process::id() % 97).unwrap() * 250;
    let small = SocketAddr::from(([127, 0, 0, 1], port));
    let yaml = service(&format!("replicas: 2\n    {}", tcp(small)));
    let wharf = greeting(&yaml);
    wharf.ok(&["up", "-d"]);
    greeted(small).unwrap();
    wharf.write(&yaml.replace("127.0.0.1", "0.0.0.0"));
    wharf.ok(&["reload"]);
    let other = SocketAddr::from(([127, 9, 9, 9], port));
    until("the whole machine", || greeted(other).ok());
    until("both replicas", || wharf.ps().iter().all(|row| row["state"] == "running").then_some(()));
    let failed = wharf.records_of("web");
    assert!(failed.iter().all(|record| at(record, "exit.reason") != "setup_failed"), "{failed:?}");
}

/// Replicas that take their time to end are replaced one after the other; meanwhile somebody thinks
/// better of it.
#[test]
fn an_address_can_be_gone_back_to_while_old_programs_have_it() {
    let (old, new) = (address(), address());
    let yaml = |at| {
        let slow = "[sh, -c, 'trap \"sleep 1; exit 0\" TERM; while :; do sleep 0.05; done']";
        format!(
            "services:\n  web: {{ command: {slow}, replicas: 3, stop_grace_period: 5s, {} }}\n",
            tcp(at)
        )
    };
    let wharf = Wharf::up(&yaml(old));
    until("all to run", || {
        (wharf.ps().iter().all(|row| row["state"] == "running") && !refused(old)).then_some(())
    });
    wharf.write(&yaml(new));
    wharf.ok(&["reload"]);
    until("the first to make room", || {
        let rows = wharf.ps();
        rows.iter().any(|row| row["state"] == "stopping").then_some(())
    });
    assert!(!refused(old), "others serve there");
    wharf.write(&yaml(old));
    wharf.ok(&["reload"]);
    until("the new one to be closed", || refused(new).then_some(()));
    until("all to run", || wharf.ps().iter().all(|row| row["state"] == "running").then_some(()));
    assert!(!refused(old));
    // And when nobody has it any more, it is closed.
    wharf.write(&yaml(new));
    wharf.ok(&["reload"]);
    until("the old one to be closed", || refused(old).then_some(()));
    assert!(!refused(new));
}

#[test]
fn a_socket_goes_over_to_another_service() {
    let address = address();
    let yaml = service(&tcp(address));
    let wharf = greeting(&yaml);
    wharf.ok(&["up", "-d"]);
    let before = greeted(address).unwrap();
    wharf.write(&yaml.replace("  web:", "  site:"));
    wharf.ok(&["reload"]);
    wharf.wait_state("site", "running");
    until("the successor", || (greeted(address).unwrap() != before).then_some(()));
}

#[test]
fn a_unix_socket_has_its_mode_and_replaces_only_what_is_stale() {
    let wharf = greeting(&service(
        "listen: [{ name: api, unix: run/api.sock, mode: '0660' }]\n    restart: { delay: 50ms }",
    ));
    let folder = wharf.folder.join("run");
    let path = folder.join("api.sock");
    std::fs::create_dir(&folder).unwrap();
    // Nobody listens there any more.
    drop(UnixListener::bind(&path).unwrap());
    wharf.ok(&["up", "-d"]);
    let said = || -> Option<String> {
        let mut stream = UnixStream::connect(&path).ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok().map(|_| said)
    };
    until("a greeting", said);
    let about = std::fs::metadata(&path).unwrap();
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o660);
    // A restart keeps the same file.
    wharf.ok(&["restart", "web"]);
    until("a greeting", said);
    wharf.ok(&["stop", "web"]);
    until("its file to go", || (!path.exists()).then_some(()));

    std::fs::write(&path, "precious").unwrap();
    wharf.fails(1, &["start", "web"]);
    let record = wharf.records_of("web").pop().unwrap();
    let evidence = at(&record, "exit.evidence").to_string();
    assert!(evidence.contains("what is there is no socket, and is left alone"), "{evidence}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    // Somebody else listens there.
    let stranger = UnixListener::bind(&path).unwrap();
    let count = wharf.records_of("web").len();
    let record = wharf.wait_records("web", count + 1).pop().unwrap();
    let evidence = at(&record, "exit.evidence").to_string();
    let pid = std::process::id();
    assert!(evidence.contains(&format!("in use: pid {pid} (")) || evidence.contains("no socket"));
    drop(stranger);
    until("a greeting", said);
}

/// The next manager finds the file of a socket that nobody listens at, and its own programs gone.
#[test]
fn a_killed_manager_comes_back_with_its_sockets() {
    let address = address();
    let wharf = greeting(&service(&format!(
        "listen: [{{ name: http, tcp: '{address}' }}, {{ name: api, unix: api.sock }}]"
    )));
    wharf.ok(&["up", "-d"]);
    let before = greeted(address).unwrap();
    send(wharf.manager_pid(), libc_kill());
    until("a greeting after it", || {
        greeted(address).ok().filter(|said| !said.is_empty() && *said != before)
    });
    UnixStream::connect(wharf.folder.join("api.sock")).unwrap();
}

/// The guardian holds what the manager holds: nobody is refused between two managers, and the socket is
/// the same for who is started by the second.
#[test]
fn a_kept_server_and_its_socket_outlive_the_manager_and_an_upgrade() {
    let address = address();
    let keys = format!("on_manager_exit: keep\n    {}", tcp(address));
    let wharf = greeting(&service(&keys));
    wharf.ok(&["up", "-d"]);
    until("a greeting", || greeted(address).ok());
    let stop = Arc::new(AtomicBool::new(false));
    let callers = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut calls = 0;
            while !stop.load(Ordering::Relaxed) {
                // A connection that a server had accepted when it was ended is lost with it.
                match greeted(address) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => panic!("refused"),
                    Ok(_) | Err(_) => calls += 1,
                }
            }
            calls
        })
    };
    let socket = || wharf.row("web")["listen"][0].clone();
    crate::keep::kill_manager(&wharf);
    until("the socket", || (socket()["open"] == true).then_some(()));
    assert_eq!(wharf.row("web")["incarnation"], 1, "it was kept");
    wharf.ok(&["restart", "web"]);
    assert_eq!(until("the next run", || greeted(address).ok()), "2");
    wharf.ok(&["upgrade", env!("CARGO_BIN_EXE_wharf")]);
    wharf.ok(&["restart", "web"]);
    assert_eq!(until("the run after it", || greeted(address).ok()), "3");
    stop.store(true, Ordering::Relaxed);
    assert!(callers.join().unwrap() > 10);
    wharf.ok(&["stop", "web"]);
    until("the socket to be closed", || refused(address).then_some(()));
}

#[test]
fn ipv6_is_served_alone_or_with_ipv4() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("this machine has no IPv6");
        return;
    }
    let port = 17_000 + address().port() % 10 + u16::try_from(std::process::id() % 20_000).unwrap();
    let yaml = |only: bool| {
        service(&format!("listen: [{{ name: http, tcp: '[::]:{port}', ipv6_only: {only} }}]"))
    };
    let (four, six) =
        (SocketAddr::from(([127, 0, 0, 1], port)), format!("[::1]:{port}").parse().unwrap());
    let wharf = greeting(&yaml(true));
    wharf.ok(&["up", "-d"]);
    greeted(six).unwrap();
    assert!(refused(four));
    wharf.write(&yaml(false));
    wharf.ok(&["reload"]);
    until("both", || greeted(four).ok());
    greeted(six).unwrap();
}

#[test]
fn the_examples_serve_behind_one_socket() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let wharf = Wharf::new("");
    let folder = root.join("examples/shared-listener");
    for file in ["services.yaml", "server.py"] {
        std::fs::copy(folder.join(file), wharf.folder.join(file)).unwrap();
    }
    let address = address();
    let yaml = wharf.read("services.yaml").replace("127.0.0.1:${PORT:-8080}", &address.to_string());
    wharf.write(&yaml);
    wharf.ok(&["up", "-d"]);
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    let mut seen = BTreeSet::new();
    until("all three replicas to answer", || {
        let said = asked().unwrap();
        let replica = said.split("replica ").nth(1)?.chars().next()?;
        seen.insert(replica);
        (seen.len() == 3).then_some(())
    });
    wharf.ok(&["signal", "web/2", "KILL"]);
    for _ in 0..20 {
        match asked() {
            Ok(said) => assert!(said.is_empty() || said.contains("replica"), "{said}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    // The one that is written in Rust takes the same socket over.
    let example = std::env::current_exe().unwrap();
    let words = "--exact, listen::the_example_in_rust_is_a_server, --nocapture";
    let command = format!("command: [{}, {words}]", example.display());
    let yaml = yaml.replace("command: python3 server.py", &command);
    wharf.write(&yaml.replace("name: http", "name: greetings"));
    wharf.ok(&["reload"]);
    until("the other server", || {
        let mut said = String::new();
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.read_to_string(&mut said);
        said.starts_with("hello from replica").then_some(())
    });
}

#[path = "../../examples/shared-listener/main.rs"]
mod example;

/// As a service of the test above it serves; alone it says that nothing was handed to it.
#[test]
fn the_example_in_rust_is_a_server() {
    let complaint = example::main().unwrap_err();
    assert_eq!(complaint.to_string(), "no sockets were handed to this process");
}

#[test]
fn an_ordinary_user_is_told_about_low_ports() {
    // A number that is refused to whoever is not root, unless the machine says otherwise.
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let low = first.ok().and_then(|text| text.trim().parse::<u16>().ok()).is_some_and(|at| at > 81);
    if nix::unistd::geteuid().is_root() || !low {
        println!("every port may be had here");
        return;
    }
    let wharf = greeting(&service("listen: [{ name: http, tcp: '127.0.0.1:81' }]"));
    wharf.run(&["up", "-d"]);
    let record: Value = wharf.wait_records("web", 1).remove(0);
    let said = text(at(&record, "exit.evidence").to_string().as_bytes());
    assert!(said.contains("CAP_NET_BIND_SERVICE"), "{said}");
}
