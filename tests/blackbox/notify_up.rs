//! wharf below a service manager: what that one hears at NOTIFY_SOCKET (sd_notify(3)), over reloads, deaths
//! of the manager, an upgrade, hangs and the end. The test is the service manager.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{LIMIT, Wharf, alive, send, text, until, wait_gone};

/// The socket of a service manager.
pub(crate) struct Above {
    socket: UnixDatagram,
    pub(crate) address: String,
}

/// What was heard: the process that said it, and its words.
type Heard = (i32, String);

impl Above {
    /// At a path.
    pub(crate) fn at_path(wharf: &Wharf) -> Self {
        let path = wharf.folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true).unwrap();
        Self { socket, address: path.to_str().unwrap().to_owned() }
    }

    /// At an abstract name.
    fn at_name(wharf: &Wharf) -> Self {
        let name = format!("test{}", wharf.folder.display());
        let socket = wharf::os::socket::listen_abstract(&name).unwrap();
        Self { socket, address: format!("@{name}") }
    }

    /// The next message within a time.
    fn within(&self, limit: Duration) -> Option<Heard> {
        let end = Instant::now() + limit;
        loop {
            let mut buffer = [0; 4096];
            if let Some(received) =
                wharf::os::fds::receive_from(self.socket.as_fd(), &mut buffer).unwrap()
            {
                let said = text(&buffer[..received.bytes]);
                return Some((received.sender.unwrap().pid, said));
            }
            let left = end.checked_duration_since(Instant::now())?;
            let left = nix::poll::PollTimeout::try_from(left).unwrap();
            let fd = nix::poll::PollFd::new(self.socket.as_fd(), nix::poll::PollFlags::POLLIN);
            nix::poll::poll(&mut [fd], left).unwrap();
        }
    }

    /// The next message that is neither a status nor a sign of life.
    #[track_caller]
    pub(crate) fn word(&self) -> Heard {
        self.heard(|said| !said.starts_with("STATUS=") && said != "WATCHDOG=1")
    }

    /// The next message that is meant; others are passed over.
    #[track_caller]
    pub(crate) fn heard(&self, mut is: impl FnMut(&str) -> bool) -> Heard {
        let end = Instant::now() + LIMIT;
        let mut passed = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.within(left) {
                Some(heard) if is(&heard.1) => return heard,
                other => passed.extend(other),
            }
        }
        panic!("waited in vain; what was heard: {passed:?}");
    }

    /// Everything that is left to be heard.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.within(Duration::ZERO)).map(|heard| heard.1).collect()
    }
}

/// `wharf up` below it, in the foreground, with further variables.
fn below(wharf: &Wharf, above: &Above, more: &[(&str, &str)]) -> Child {
    let mut command = wharf.command(&["up"]);
    command.env("NOTIFY_SOCKET", &above.address).envs(more.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn number(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// Kills the manager and waits for the next one.
fn kill_manager(wharf: &Wharf) {
    let before = wharf.manager_pid();
    send(before, 9);
    until("another manager", || {
        let body = wharf.try_get("/v1/manager").ok()?;
        let manager: serde_json::Value = serde_json::from_str(&body).unwrap();
        (manager["pid"] != before).then_some(())
    });
}

const ONE: &str = "services:
  web: { command: [sh, -c, 'env > env.txt; exec sleep 1000'] }
";

#[test]
fn a_service_manager_is_told_of_ready_reload_status_and_the_end() {
    let wharf = Wharf::new(ONE);
    let above = Above::at_path(&wharf);
    let own = std::process::id().to_string();
    // What was told to somebody else is nothing to wharf, and to nobody below it.
    let more = [("LISTEN_FDS", "1"), ("LISTEN_PID", own.as_str()), ("FDSTORE", "1")];
    let mut guardian = below(&wharf, &above, &more);
    let pid = number(&guardian);
    assert_eq!(above.word(), (pid, "READY=1".to_owned()));
    assert_eq!(wharf.guardian_pid(), pid, "it answers when it says that it is ready");
    above.heard(|said| said == "STATUS=1 of 1 running");

    let manager = wharf.manager_pid();
    for name in wharf::guardian::VARIABLES {
        assert_eq!(wharf::os::procfs::variable(manager, name), None, "{name}");
    }
    let environment = until("the program's environment", || {
        Some(wharf.read("env.txt")).filter(|text| text.contains("PATH="))
    });
    for part in ["NOTIFY", "LISTEN", "WATCHDOG", "FDSTORE"] {
        assert!(!environment.contains(part), "{environment}");
    }

    // A plan is no reload; a reload is one whatever comes of it and whoever asks.
    wharf.ok(&["reload", "--plan"]);
    let reload = |ask: &dyn Fn()| {
        let before = wharf::os::clock::now().0 / 1_000;
        ask();
        let (sender, said) = above.word();
        assert_eq!(sender, pid);
        let usec = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&said);
        let usec: u64 = usec.parse().unwrap();
        assert!((before..=wharf::os::clock::now().0 / 1_000).contains(&usec));
        assert_eq!(above.word(), (pid, "READY=1".to_owned()));
    };
    reload(&|| drop(wharf.ok(&["reload"])));
    reload(&|| send(pid, 1));
    wharf.write("services: { web: { comand: x } }");
    reload(&|| drop(wharf.fails(3, &["reload"])));
    reload(&|| send(pid, 1));
    wharf.write("services:\n  web: { command: [sh, -c, 'exit 1'], restart: { delay: 300ms, max_delay: 300ms, max_restarts: 1000 } }\n");
    reload(&|| drop(wharf.ok(&["reload"])));
    above.heard(|said| said.ends_with("; crash-looping: web/1"));

    // Killed in the middle of a reload or not: it is over with the next manager at the latest.
    for _ in 0..3 {
        let manager = wharf.manager_pid();
        send(pid, 1);
        assert!(above.word().1.starts_with("RELOADING=1"));
        send(manager, 9);
        assert_eq!(above.word(), (pid, "READY=1".to_owned()));
        until("another manager", || wharf.try_get("/v1/manager").ok());
    }
    send(pid, 15);
    assert_eq!(above.word(), (pid, "STOPPING=1".to_owned()));
    assert!(guardian.wait().unwrap().success());
    assert!(!above.rest().iter().any(|said| said.contains("READY") || said.contains("STOPPING")));
}

#[test]
fn neither_deaths_of_the_manager_nor_an_upgrade_are_told() {
    let wharf =
        Wharf::new("services:\n  web: { command: [sleep, '1000'], on_manager_exit: keep }\n");
    let above = Above::at_name(&wharf);
    let mut guardian = below(&wharf, &above, &[]);
    assert_eq!(above.word().1, "READY=1");
    wharf.wait_state("web", "running");
    let web = wharf.pid("web");
    for _ in 0..3 {
        kill_manager(&wharf);
    }
    let copy = wharf.folder.join("another");
    fs::copy(env!("CARGO_BIN_EXE_wharf"), &copy).unwrap();
    wharf.ok(&["upgrade", copy.to_str().unwrap()]);
    let runs = fs::read_link(format!("/proc/{}/exe", wharf.manager_pid())).unwrap();
    assert_eq!(runs, copy);
    assert_eq!(wharf.pid("web"), web);
    // The new binary tells as the old one did: of a stop, and of the end.
    wharf.ok(&["stop", "web"]);
    above.heard(|said| said == "STATUS=0 of 1 running, 1 stopped");
    wharf.ok(&["down"]);
    let (sender, said) = above.word();
    assert_eq!((sender, said.as_str()), (number(&guardian), "STOPPING=1"));
    assert!(guardian.wait().unwrap().success());
}

#[test]
fn signs_of_life_are_given_while_the_loop_turns_and_the_manager_comes_back() {
    let wharf = Wharf::new(ONE);
    let above = Above::at_path(&wharf);
    let expected = Duration::from_secs(4);
    let mut guardian = below(&wharf, &above, &[("WATCHDOG_USEC", "4000000")]);
    above.heard(|said| said == "READY=1");
    // Managers are killed all the time, and the service manager never loses sight of wharf.
    let (mut last, mut beats) = (Instant::now(), 0);
    while beats < 4 {
        kill_manager(&wharf);
        while let Some((_, said)) = above.within(Duration::from_millis(100)) {
            assert_ne!(said, "STOPPING=1");
            if said == "WATCHDOG=1" {
                assert!(last.elapsed() < expected, "{:?}", last.elapsed());
                (last, beats) = (Instant::now(), beats + 1);
            }
        }
    }
    // One that hangs is not vouched for …
    let (manager, web) = (wharf.manager_pid(), wharf.pid("web"));
    send(manager, 19);
    above.within(Duration::from_millis(2500)); // What was on its way.
    let later = above.within(expected).filter(|heard| heard.1 == "WATCHDOG=1");
    assert_eq!(later, None);
    // … until it goes on, …
    send(manager, 18);
    above.heard(|said| said == "WATCHDOG=1");
    // … or the service manager has had enough: nothing is left of it.
    send(manager, 19);
    send(number(&guardian), 6);
    assert_eq!(above.word().1, "STOPPING=1");
    assert_eq!(guardian.wait().unwrap().code(), Some(1));
    assert!(!alive(manager));
    wait_gone(web);
    assert!(!alive(web));
}

#[test]
fn a_watchdog_of_another_process_is_none_of_ours() {
    let wharf = Wharf::new(ONE);
    let above = Above::at_path(&wharf);
    let own = std::process::id().to_string();
    let more = [("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", own.as_str())];
    let mut guardian = below(&wharf, &above, &more);
    above.heard(|said| said == "STATUS=1 of 1 running");
    // What is told next comes half a second later.
    wharf.ok(&["stop", "web"]);
    let mut heard = Vec::new();
    above.heard(|said| {
        heard.push(said.to_owned());
        said == "STATUS=0 of 1 running, 1 stopped"
    });
    assert!(!heard.iter().any(|said| said == "WATCHDOG=1"), "{heard:?}");
    wharf.ok(&["down"]);
    assert!(guardian.wait().unwrap().success());
}

#[test]
fn a_guardian_in_the_background_becomes_the_main_process() {
    let wharf = Wharf::new(ONE);
    let above = Above::at_path(&wharf);
    // The number is the shell's, and then wharf's.
    let words = "WATCHDOG_USEC=2000000 WATCHDOG_PID=$$ exec \"$0\" up -d";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", words, env!("CARGO_BIN_EXE_wharf")]).current_dir(&wharf.folder);
    command.env_remove("WHARF_STATE_DIR").env("NOTIFY_SOCKET", &above.address);
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let up = number(&child);
    assert!(child.wait_with_output().unwrap().status.success());
    let guardian = wharf.guardian_pid();
    assert_eq!(above.heard(|said| said.contains("MAINPID")), (up, format!("MAINPID={guardian}")));
    assert_eq!(above.word(), (guardian, "READY=1".to_owned()));
    assert_eq!(above.heard(|said| said == "WATCHDOG=1").0, guardian);
    wharf.ok(&["down"]);
    assert_eq!(above.word(), (guardian, "STOPPING=1".to_owned()));
}

#[test]
fn a_service_manager_that_does_not_listen_holds_up_nothing() {
    let wharf = Wharf::new(ONE);
    let above = Above::at_path(&wharf);
    let mut guardian = below(&wharf, &above, &[("WATCHDOG_USEC", "20000")]);
    // Nobody reads until its queue is full, and longer.
    wharf.wait_state("web", "running");
    for _ in 0..5 {
        kill_manager(&wharf);
    }
    until("a queue that takes no more", || {
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        other.send_to(b"x", &above.address).err().map(|_| ())
    });
    wharf.ok(&["reload"]);
    assert_eq!(above.heard(|said| said == "READY=1").0, number(&guardian));
    above.heard(|said| said.starts_with("RELOADING=1"));
    above.heard(|said| said == "READY=1");
    // And one that is gone neither.
    fs::remove_file(&above.address).unwrap();
    drop(above);
    kill_manager(&wharf);
    wharf.ok(&["down"]);
    assert!(guardian.wait().unwrap().success());
}

#[test]
fn an_address_that_cannot_be_used_is_refused() {
    let wharf = Wharf::new(ONE);
    for address in ["run/notify", "vsock:2:1"] {
        let mut command = wharf.command(&["up"]);
        let output = command.env("NOTIFY_SOCKET", address).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(address) && said.contains("neither an absolute path"), "{said}");
    }
    wharf.fails(5, &["ps"]);
}
