//! A contestant with services of its own: its start, its processes, its end.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use wharf::exit::Signal;
use wharf::os::{clock, signal};
use wharf::time::Tick;

use crate::contest::Peer;
use crate::install::Shop;
use crate::program::Program;
use crate::stamps::{Stamps, Started};
use crate::wait::{LIMIT, between, pass, readable, until};
use crate::wharf::Wharf;
use crate::written::{self, Services};

/// A supervisor that is running.
#[derive(Debug)]
enum Life {
    Program(Program),
    Wharf {
        wharf: Wharf,
        up: Option<Child>,
    },
    /// Its own folder; the program that starts it ends when everything runs.
    Pm2 {
        home: PathBuf,
        start: Option<Child>,
    },
}

/// A contestant and the services it runs.
#[derive(Debug)]
pub(crate) struct Crew<'a> {
    pub(crate) peer: Peer,
    shop: &'a Shop,
    /// Its files.
    pub(crate) folder: PathBuf,
    pub(crate) stamps: Stamps,
    life: Life,
    /// When its own start began.
    began: Tick,
    stopped: bool,
}

/// What a crew is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) count: usize,
    /// Whether programs end at once.
    pub(crate) brief: bool,
    /// Where ends are to be told, for those who must know at their own start.
    pub(crate) heard: Option<&'a Path>,
    /// What else stands in each service of a plain wharf, and has it say that it is ready.
    pub(crate) extra: Option<&'a str>,
}

impl Task<'_> {
    /// So many services that wait to be killed, and nothing else.
    pub(crate) fn of(count: usize) -> Self {
        Self { count, brief: false, heard: None, extra: None }
    }
}

impl<'a> Crew<'a> {
    /// Begins a start. Whether it comes to its end [`Stamps`] tell.
    pub(crate) fn begin(shop: &'a Shop, peer: Peer, task: Task<'_>) -> Self {
        let folder = tempfile::tempdir_in(shop.workshop.temporary.path()).unwrap().keep();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let stamps = Stamps::new(&shop.workshop, name.trim_start_matches('.'));
        let program = shop.program(task.brief);
        let Task { count, brief, extra, .. } = task;
        let services = Services { count, brief, extra, program: &program, stamps: stamps.text() };
        let life = match peer {
            Peer::Wharf | Peer::Full | Peer::Limited => {
                let yaml = written::wharf(peer, &folder, services);
                Life::Wharf { wharf: Wharf::new(&shop.workshop, &yaml), up: None }
            }
            Peer::Pm2 => Life::Pm2 { home: folder.join("pm2"), start: None },
            Peer::C
            | Peer::Erlang
            | Peer::Runit
            | Peer::Daemontools
            | Peer::S6
            | Peer::Supervisord
            | Peer::Circus => {
                let mut command = command(shop, peer, &folder, services, task.heard);
                let said = File::create(folder.join("said")).unwrap();
                command.stdout(said.try_clone().unwrap()).stderr(said);
                let began = clock::now();
                let life = Life::Program(Program::start(command));
                return Self { peer, shop, folder, stamps, life, began, stopped: false };
            }
        };
        let text = written::pm2(services);
        let began = clock::now();
        let mut crew = Self { peer, shop, folder, stamps, life, began, stopped: false };
        match &mut crew.life {
            Life::Wharf { wharf, up } => *up = Some(wharf.begin_up(&[])),
            Life::Pm2 { home, start } => {
                let list = crew.folder.join("services.json");
                fs::write(&list, text).unwrap();
                let mut command = shop.pm2(home);
                command.arg("start").arg(list).stdout(Stdio::null()).stderr(Stdio::null());
                crew.began = clock::now();
                *start = Some(command.spawn().unwrap());
            }
            Life::Program(_) => {}
        }
        crew
    }

    /// A start up to its end: its services, and how long it took until the last of them ran, in ms.
    pub(crate) fn start(shop: &'a Shop, peer: Peer, task: Task<'_>) -> (Self, Vec<Started>, f64) {
        let mut crew = Self::begin(shop, peer, task);
        let children = crew.stamps.take(task.count);
        let last = children.iter().map(|child| between(crew.began, child.at)).fold(0.0, f64::max);
        crew.settle(task.count);
        (crew, children, last / 1e3)
    }

    /// Waits until the start is over for the supervisor, too, and as many services run by its own words.
    pub(crate) fn settle(&mut self, count: usize) {
        match &mut self.life {
            Life::Wharf { wharf, up } => {
                if let Some(up) = up.take() {
                    wharf.end_up(up);
                    until("all to run", || (wharf.count("running") >= count).then_some(()));
                }
            }
            Life::Pm2 { start, .. } => {
                if let Some(mut start) = start.take() {
                    assert!(start.wait().unwrap().success(), "pm2 start");
                }
            }
            Life::Program(_) => {}
        }
    }

    /// The wharf, where this is one.
    pub(crate) fn as_wharf(&self) -> &Wharf {
        match &self.life {
            Life::Wharf { wharf, .. } => wharf,
            Life::Program(_) | Life::Pm2 { .. } => panic!("this is no wharf"),
        }
    }

    /// pm2's own folder.
    pub(crate) fn home(&self) -> &Path {
        match &self.life {
            Life::Pm2 { home, .. } => home,
            Life::Program(_) | Life::Wharf { .. } => panic!("this is no pm2"),
        }
    }

    /// The processes that supervise: neither services nor what starts a supervisor.
    pub(crate) fn supervisors(&self, children: &[Started]) -> Vec<i32> {
        match &self.life {
            Life::Program(program) => program.processes(children),
            Life::Wharf { wharf, .. } => wharf.pids().to_vec(),
            Life::Pm2 { home, .. } => {
                let pid = fs::read_to_string(home.join("pm2.pid")).unwrap();
                vec![pid.trim().parse().unwrap()]
            }
        }
    }

    /// Asks for the end of everything and waits for it; how long it took until the services had ended, in
    /// ms. Whoever leaves something behind has it killed.
    pub(crate) fn stop(&mut self, children: &[Started]) -> f64 {
        self.settle(0);
        self.stopped = true;
        let open = |pid: i32| signal::open_pidfd(pid).ok();
        let services: Vec<OwnedFd> = children.iter().filter_map(|one| open(one.pid)).collect();
        let own: Vec<OwnedFd> = self.supervisors(children).into_iter().filter_map(open).collect();
        let request = clock::now();
        self.ask_to_stop();
        if let (Life::Program(program), Some(_)) = (&mut self.life, self.peer.leaves_programs()) {
            // Before it is gone it would start them again.
            let _ = program.process.wait();
            kill(&services);
        }
        // The last one first: it is the one that takes longest, and the others wake nobody.
        for one in services.iter().rev() {
            assert!(readable(one.as_fd(), LIMIT), "{}: a service does not end", self.peer.name());
        }
        let took = between(request, clock::now()) / 1e3;
        let patience = clock::now() + LIMIT / 6;
        for one in &own {
            readable(one.as_fd(), patience.since(clock::now()));
        }
        kill(&own);
        match &mut self.life {
            Life::Program(program) => drop(program.process.wait()),
            Life::Wharf { wharf, .. } => wharf.wait_down(),
            Life::Pm2 { .. } => {}
        }
        took
    }

    fn ask_to_stop(&mut self) {
        match &mut self.life {
            Life::Wharf { wharf, .. } => drop(wharf.ask("POST", "/v1/shutdown")),
            Life::Pm2 { home, .. } => {
                let mut kill = self.shop.pm2(home);
                let kill = kill.arg("kill").stdout(Stdio::null()).stderr(Stdio::null());
                assert!(kill.status().unwrap().success(), "pm2 kill");
            }
            Life::Program(program) => {
                let signal = if self.peer == Peer::Runit { Signal::HUP } else { Signal::TERM };
                signal::send_pid(program.pid(), signal).unwrap();
                if self.peer == Peer::Daemontools {
                    // What svscan started goes on without it.
                    let services = fs::read_dir(self.folder.join("services")).unwrap();
                    let mut svc = Command::new("svc");
                    svc.arg("-dx").args(services.map(|one| one.unwrap().path()));
                    assert!(svc.status().unwrap().success(), "svc -dx");
                }
            }
        }
    }
}

impl Drop for Crew<'_> {
    /// A measurement that went wrong leaves nobody behind either.
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        match &self.life {
            Life::Program(program) => {
                for pid in program.processes(&[]) {
                    let _ = signal::send_pid(pid, Signal::KILL);
                }
            }
            Life::Pm2 { home, .. } => drop(self.shop.pm2(home).arg("kill").status()),
            Life::Wharf { .. } => {}
        }
    }
}

/// The program to start, its files written.
fn command(
    shop: &Shop,
    peer: Peer,
    folder: &Path,
    services: Services<'_>,
    heard: Option<&Path>,
) -> Command {
    let Services { count, program, stamps, .. } = services;
    let place = folder.join("services");
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let mut command;
    match peer {
        Peer::C => {
            command = Command::new(shop.workshop.program("supervisor"));
            command.args([&count.to_string(), program, stamps]);
        }
        Peer::Erlang => {
            command = Command::new("erl");
            command.args(["-noshell", "-noinput", "-pa"]).arg(&shop.workshop.folder);
            command.args(["-run", "supervisor_bench", "main"]);
            command.args([&count.to_string(), program, stamps]).args(heard);
        }
        Peer::Runit => {
            written::folders(&place, services);
            command = Command::new("runsvdir");
            command.arg("-P").arg(place);
        }
        Peer::Daemontools => {
            written::folders(&place, services);
            command = Command::new("svscan");
            command.arg(place);
        }
        Peer::S6 => {
            written::folders(&place, services);
            command = Command::new("s6-svscan");
            command.args(["-c", "2000"]).arg(place);
        }
        Peer::Supervisord => {
            let script = shop.sources.join("supervisord_listener.py");
            let listener =
                heard.map(|heard| format!("python3 {} {}", script.display(), heard.display()));
            let text = written::supervisord(folder, services, listener.as_deref());
            command = Command::new("supervisord");
            command.arg("-c").arg(write("supervisord.conf", text));
        }
        Peer::Circus => {
            command = shop.circusd();
            command.arg(write("circus.ini", written::circus(folder, services)));
        }
        Peer::Wharf | Peer::Full | Peer::Limited | Peer::Pm2 => {
            unreachable!("they are started otherwise")
        }
    }
    command
}

fn kill(pidfds: &[OwnedFd]) {
    for one in pidfds {
        let _ = signal::send(one.as_fd(), Signal::KILL);
    }
}

/// A contestant with one service, which is killed again and again.
#[derive(Debug)]
pub(crate) struct Lone<'a> {
    pub(crate) crew: Crew<'a>,
    child: Started,
    pidfd: OwnedFd,
}

impl<'a> Lone<'a> {
    pub(crate) fn start(shop: &'a Shop, peer: Peer, heard: Option<&Path>) -> Self {
        let (crew, children, _) = Crew::start(shop, peer, Task { heard, ..Task::of(1) });
        Self::of(crew, children[0])
    }

    /// A crew of one.
    pub(crate) fn of(crew: Crew<'a>, child: Started) -> Self {
        Self { crew, child, pidfd: signal::open_pidfd(child.pid).unwrap() }
    }

    /// Kills the service and tells when.
    pub(crate) fn kill(&self) -> Tick {
        let at = clock::now();
        signal::send(self.pidfd.as_fd(), Signal::KILL).unwrap();
        at
    }

    /// Waits for the successor and tells when its first instruction was.
    pub(crate) fn successor(&mut self) -> Tick {
        self.child = self.crew.stamps.next();
        self.pidfd = signal::open_pidfd(self.child.pid).unwrap();
        self.child.at
    }

    pub(crate) fn stop(mut self) {
        self.crew.stop(&[self.child]);
    }
}

/// The uptime from which on no supervisor takes a restart for one in a row.
pub(crate) fn grow_old() {
    pass(std::time::Duration::from_millis(1200));
}
