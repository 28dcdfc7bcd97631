//! Who runs it and from where: an ordinary user, a terminal that is halted or goes away.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use crate::support::{Wharf, alive, at, look_again, marked, send, text, until, wait_gone};

/// Runs the quick tour as a user without rights: `nobody` where the tests run as root.
#[test]
fn an_ordinary_user_can_do_everything() {
    let wharf = Wharf::new(
        "services:
  bc: { command: [bc, -q], port: { use: bc } }
  crash: { command: [sh, -c, 'exit 5'] }
  hider: { command: [sh, -c, 'setsid sleep 1000 & echo up; wait'], environment: { MARK: ordinary } }
  other: { command: ['true'], user: root, restart: no }
",
    );
    let folder = wharf.folder.clone();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let binary = folder.join("wharf");
    // By a program of its own: a copy written here could be held open for a moment by a child that
    // another test is just starting, and cannot be executed then.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_wharf")).arg(&binary).status().unwrap();
    assert!(copied.success());
    let is_root = nix::unistd::geteuid().is_root();
    let run = |words: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(words).current_dir(&folder).env("NO_COLOR", "1").stdin(Stdio::null());
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        let output = command.output().unwrap();
        let said = format!(
            "{}{}",
            crate::support::text(&output.stdout),
            crate::support::text(&output.stderr)
        );
        assert!(output.status.success(), "{words:?}: {said}");
        said
    };
    run(&["up", "-d"]);
    assert!(run(&["call", "bc", "6*7"]).contains("42"));
    until("the hidden one", || (marked("ordinary").len() >= 2).then_some(()));
    let hidden = marked("ordinary");
    run(&["stop", "hider"]);
    for pid in hidden {
        assert!(!alive(pid), "{pid} outlived the stop of its service");
    }
    let record = wharf.wait_records("other", 1).remove(0);
    assert_eq!(at(&record, "exit.stage"), "user", "{record}");
    assert_eq!(at(&record, "exit.errno.name"), "EPERM");
    assert_eq!(at(&record, "exit.reason"), "setup_failed");
    assert!(run(&["exits"]).contains("crash/1 exited with code 5"));
    run(&["down"]);
}

/// Both ends of a terminal. No program that another test is just starting inherits them: as long as
/// anybody holds the keyboard's end, the terminal does not hang up.
fn terminal() -> (File, OwnedFd) {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let keyboard = nix::pty::posix_openpt(flags).unwrap();
    nix::pty::grantpt(&keyboard).unwrap();
    nix::pty::unlockpt(&keyboard).unwrap();
    let name = nix::pty::ptsname_r(&keyboard).unwrap();
    let mode = nix::sys::stat::Mode::empty();
    let screen = nix::fcntl::open(name.as_str(), flags, mode).unwrap();
    (File::from(OwnedFd::from(keyboard)), screen)
}

/// A terminal of our own with wharf in its foreground.
struct Terminal {
    keyboard: File,
    child: Child,
}

impl Terminal {
    fn start(wharf: &Wharf) -> Self {
        let (keyboard, screen) = terminal();
        let mut command = wharf.command(&["up"]);
        command.stdin(screen.try_clone().unwrap());
        command.stdout(screen.try_clone().unwrap()).stderr(screen);
        let become_leader = || {
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY on descriptor 0, which is the terminal; it takes a plain number.
            #[expect(unsafe_code, reason = "a controlling terminal is set by ioctl alone")]
            let answer = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
            if answer == -1 {
                return Err(std::io::Error::last_os_error());
            }
            // Under nohup(1) a hang-up is ignored, by the tests and all that they start.
            let usual = nix::sys::signal::SigHandler::SigDfl;
            // SAFETY: no handler is installed.
            #[expect(unsafe_code, reason = "what signals do is set for the whole process")]
            unsafe {
                nix::sys::signal::signal(nix::sys::signal::SIGHUP, usual)?;
            }
            Ok(())
        };
        // SAFETY: setsid(2), ioctl(2) and sigaction(2) are plain system calls, safe between fork and
        // exec.
        #[expect(unsafe_code, reason = "a terminal is taken between fork and exec")]
        unsafe {
            command.pre_exec(become_leader);
        }
        let child = command.spawn().unwrap();
        drop(command);
        let terminal = Self { keyboard, child };
        until("the socket", || wharf.try_get("/v1/manager").ok());
        terminal
    }

    fn press(&self, key: u8) {
        nix::unistd::write(self.keyboard.as_fd(), &[key]).unwrap();
    }

    /// What is on the screen until `wanted` shows.
    fn read_until(&mut self, wanted: &str) -> String {
        let mut shown = String::new();
        let mut buffer = [0; 4096];
        while !shown.contains(wanted) {
            let length = self.keyboard.read(&mut buffer).unwrap();
            shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        shown
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CTRL_C: u8 = 3;
const CTRL_S: u8 = 19;

const TALKER: &str = "services:
  talker: { command: [sh, -c, 'while :; do echo words; done'] }
  quiet: { command: [sleep, '1000'], restart: always }
";

#[test]
fn ctrl_c_reaches_the_guardian_alone() {
    let wharf = Wharf::new(TALKER);
    let mut terminal = Terminal::start(&wharf);
    assert!(terminal.read_until("talker | words").contains("talker | words"));
    wharf.wait_state("quiet", "running");
    terminal.press(CTRL_C);
    // The screen must be read, or the kernel keeps the last words and the terminal waits for them.
    let drain = terminal.keyboard.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut drain = drain;
        let mut buffer = [0; 4096];
        while drain.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    assert!(terminal.child.wait().unwrap().success());
    let record = wharf.records_of("quiet").remove(0);
    assert_eq!(at(&record, "exit.requested_by.who"), "Ctrl-C");
    assert_eq!(at(&record, "exit.signal.name"), "SIGTERM", "not the terminal's own SIGINT");
    assert_eq!(at(&record, "exit.cause"), "manager_shutdown");
}

#[test]
fn a_halted_terminal_never_stops_supervision() {
    let wharf = Wharf::new(TALKER);
    let mut terminal = Terminal::start(&wharf);
    terminal.read_until("words");
    terminal.press(CTRL_S);
    // Nobody reads the screen any more, and the talker goes on.
    for round in 1..=5 {
        wharf.wait_state("quiet", "running");
        send(wharf.pid("quiet"), 9);
        wharf.wait_records("quiet", round);
    }
    let flags = nix::fcntl::fcntl(&terminal.keyboard, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & libc::O_NONBLOCK, 0, "{:?}", terminal.keyboard.as_raw_fd());
    let size =
        || std::fs::metadata(wharf.state().join("log/talker.1.log")).map_or(0, |file| file.len());
    let before = size();
    until("the log to grow", || (size() != before).then_some(()));
    wharf.ok(&["down"]);
}

#[test]
fn a_terminal_that_goes_away_takes_a_foreground_run_with_it() {
    let wharf = Wharf::new(TALKER);
    let mut terminal = Terminal::start(&wharf);
    terminal.read_until("words");
    wharf.wait_state("quiet", "running");
    let (guardian, quiet) = (wharf.guardian_pid(), wharf.pid("quiet"));
    let null = File::open("/dev/null").unwrap();
    drop(std::mem::replace(&mut terminal.keyboard, null));
    wait_gone(guardian);
    assert!(!alive(guardian) && !alive(quiet));
    let record = wharf.records_of("quiet").remove(0);
    assert_eq!(at(&record, "exit.requested_by.who"), "hang-up of the terminal");
}

#[test]
fn a_hang_up_of_a_background_run_is_a_reload() {
    let wharf = Wharf::up("services:\n  one: { command: [sleep, '1000'] }\n");
    wharf.wait_state("one", "running");
    let pid = wharf.pid("one");
    wharf.write(
        "services:\n  one: { command: [sleep, '1000'] }\n  two: { command: [sleep, '1000'] }\n",
    );
    send(wharf.guardian_pid(), 1);
    wharf.wait_state("two", "running");
    assert_eq!(wharf.pid("one"), pid);
    look_again();
}

#[test]
fn control_groups_can_be_switched_off_and_programs_are_moved() {
    let wharf = Wharf::up("services:\n  s: { command: [sleep, '1000'] }\n");
    wharf.wait_state("s", "running");
    let pid = wharf.pid("s");
    wharf.write("cgroups: off\nservices:\n  s: { command: [sleep, '1000'] }\n");
    assert!(wharf.ok(&["reload", "--plan"]).contains("restart"));
    wharf.ok(&["reload"]);
    until("another run", || {
        let row = wharf.row("s");
        (row["state"] == "running" && row["pid"] != pid).then_some(())
    });
    assert_eq!(wharf.manager()["cgroups"], "not in use: cgroups: off");
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", wharf.pid("s"))).unwrap();
    assert!(!group.contains("wharf-"), "{group}");
}

#[test]
fn a_thousand_names_at_once_are_no_more_than_the_manager_takes() {
    let names: Vec<_> = (0..40).map(|at| format!("s{at}")).collect();
    let service = |name: &String| format!("  {name}: {{ command: [sleep, '1000'] }}\n");
    let wharf = Wharf::up(&format!("services:\n{}", names.iter().map(service).collect::<String>()));
    wharf.wait_state("s39", "running");
    let mut words = vec!["restart"];
    words.extend(names.iter().map(String::as_str).cycle().take(1000));
    let output = wharf.run(&words);
    let told = text(&output.stderr);
    let refused: Vec<_> = told.lines().filter(|line| line.starts_with("wharf: ")).collect();
    assert!(output.status.success() && refused.is_empty(), "{refused:?}");
    assert_eq!(told.lines().filter(|line| line.contains("is running")).count(), 1000);
}
