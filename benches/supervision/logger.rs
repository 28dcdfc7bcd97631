//! Who writes down what programs say, how it is started with a program that says much, and where it writes.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use wharf::exit::Signal;
use wharf::os::signal;

use crate::install::Shop;
use crate::wharf::Wharf;

/// A contestant. All but `cat` rotate at 10 MiB, and pm2, which needs a module for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logger {
    Cat,
    Wharf,
    /// The same, compressing what is rotated, which is what happens unless it is told not to.
    Compressing,
    S6,
    S6Timed,
    Multilog,
    Svlogd,
    Supervisord,
    Circus,
    Pm2,
}

pub(crate) const ALL: [Logger; 10] = [
    Logger::Cat,
    Logger::Wharf,
    Logger::Compressing,
    Logger::S6,
    Logger::S6Timed,
    Logger::Multilog,
    Logger::Svlogd,
    Logger::Supervisord,
    Logger::Circus,
    Logger::Pm2,
];

impl Logger {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cat => "cat > file",
            Self::Wharf => "wharf: rotation, time, stream",
            Self::Compressing => "wharf: the same, and gzip",
            Self::S6 => "s6-log: rotation alone",
            Self::S6Timed => "s6-log T: rotation, time",
            Self::Multilog => "multilog t: rotation, time",
            Self::Svlogd => "svlogd -tt: rotation, time",
            Self::Supervisord => "supervisord: rotation alone",
            Self::Circus => "circus: rotation, time",
            Self::Pm2 => "pm2: time alone",
        }
    }
}

/// How large a file becomes before the next is begun.
const ROTATED: u64 = 10 << 20;
/// How many are kept: all.
const KEPT: u64 = 900;

/// A logger at work.
pub(crate) struct Work<'a> {
    shop: &'a Shop,
    folder: PathBuf,
    /// What it is and, where it is no supervisor, the program that writes.
    processes: Vec<Child>,
    wharf: Option<Wharf>,
    is_pm2: bool,
    /// The file that is written to.
    pub(crate) current: PathBuf,
    /// Where that and what was rotated is.
    pub(crate) logs: PathBuf,
}

impl<'a> Work<'a> {
    /// Starts it with a program that writes so many lines.
    pub(crate) fn start(shop: &'a Shop, logger: Logger, lines: usize, stamps: &str) -> Self {
        let folder = tempfile::tempdir_in(shop.workshop.temporary.path()).unwrap().keep();
        let logs = folder.join("logs");
        fs::create_dir(&logs).unwrap();
        let flood = shop.workshop.program("flood");
        let words = [lines.to_string(), stamps.to_owned()];
        let (processes, is_pm2) = (Vec::new(), logger == Logger::Pm2);
        let current = logs.join("current");
        let mut work = Self { shop, folder, processes, wharf: None, is_pm2, current, logs };
        let command = format!("{} {}", flood.display(), words.join(" "));
        match logger {
            Logger::Wharf | Logger::Compressing => work.wharf(&command, logger),
            Logger::Supervisord => work.supervisord(&command),
            Logger::Circus => work.circus(&flood, &words),
            Logger::Pm2 => work.pm2(&flood, &words),
            Logger::Cat | Logger::S6 | Logger::S6Timed | Logger::Multilog | Logger::Svlogd => {
                let mut flood = Command::new(flood);
                let mut flood = flood.args(words).stdout(Stdio::piped()).spawn().unwrap();
                let mut command = work.piped(logger);
                command.stdin(flood.stdout.take().unwrap());
                work.processes = vec![command.spawn().unwrap(), flood];
            }
        }
        work
    }

    /// A logger that reads its standard input.
    fn piped(&self, logger: Logger) -> Command {
        let (size, kept) = (format!("s{ROTATED}"), format!("n{KEPT}"));
        let mut command;
        match logger {
            Logger::S6 | Logger::S6Timed => {
                command = Command::new("s6-log");
                command.args((logger == Logger::S6Timed).then_some("T"));
                command.args([kept, size]).arg(&self.logs);
            }
            Logger::Multilog => {
                command = Command::new("multilog");
                command.args(["t".to_owned(), size, kept]).arg(&self.logs);
            }
            Logger::Svlogd => {
                fs::write(self.logs.join("config"), format!("{size}\n{kept}\n")).unwrap();
                command = Command::new("svlogd");
                command.arg("-tt").arg(&self.logs);
            }
            _ => {
                command = Command::new("cat");
                command.stdout(File::create(&self.current).unwrap());
            }
        }
        command.stderr(Stdio::null());
        command
    }

    fn wharf(&mut self, command: &str, logger: Logger) {
        let compress = logger == Logger::Compressing;
        let yaml = format!(
            "services:\n  flood:\n    command: {command}\n    restart: no\n    \
             logging: {{ max_size: {ROTATED}, max_files: {KEPT}, compress: {compress} }}\n"
        );
        let mut wharf = Wharf::new(&self.shop.workshop, &yaml);
        self.logs = wharf.folder().join(".wharf/log");
        self.current = self.logs.join("flood.1.log");
        wharf.up(&[]);
        self.wharf = Some(wharf);
    }

    fn supervisord(&mut self, command: &str) {
        let (place, current) = (self.folder.display(), self.current.display());
        let text = format!(
            "[supervisord]\nnodaemon=true\nlogfile={place}/supervisord.log\npidfile={place}/pid\n\
             user=root\n[program:flood]\ncommand={command}\nautorestart=false\nstartsecs=0\n\
             stdout_logfile={current}\nstdout_logfile_maxbytes={ROTATED}\n\
             stdout_logfile_backups={KEPT}\n"
        );
        let path = self.folder.join("supervisord.conf");
        fs::write(&path, text).unwrap();
        let mut command = Command::new("supervisord");
        self.run(command.arg("-c").arg(path));
    }

    fn circus(&mut self, flood: &Path, words: &[String]) {
        let (place, current) = (self.folder.display(), self.current.display());
        let text = format!(
            "[circus]\nendpoint = ipc://{place}/endpoint\npubsub_endpoint = ipc://{place}/pubsub\n\
             [watcher:flood]\ncmd = {}\nargs = {}\nrespawn = False\n\
             stdout_stream.class = FileStream\nstdout_stream.filename = {current}\n\
             stdout_stream.max_bytes = {ROTATED}\nstdout_stream.backup_count = {KEPT}\n\
             stdout_stream.time_format = %%Y-%%m-%%d %%H:%%M:%%S\n",
            flood.display(),
            words.join(" "),
        );
        let path = self.folder.join("circus.ini");
        fs::write(&path, text).unwrap();
        let mut circusd = self.shop.circusd();
        self.run(circusd.arg(path));
    }

    fn pm2(&mut self, flood: &Path, words: &[String]) {
        let list = serde_json::json!({ "apps": [{
            "name": "flood", "script": flood, "args": words, "interpreter": "none",
            "exec_mode": "fork", "autorestart": false, "out_file": self.current,
            "log_date_format": "YYYY-MM-DD HH:mm:ss.SSS", "merge_logs": true,
        }] });
        let path = self.folder.join("flood.json");
        fs::write(&path, list.to_string()).unwrap();
        let mut start = self.shop.pm2(&self.folder);
        let start = start.arg("start").arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(start.status().unwrap().success(), "pm2 start");
    }

    fn run(&mut self, command: &mut Command) {
        let said = File::create(self.folder.join("said")).unwrap();
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        self.processes.push(command.spawn().unwrap());
    }

    /// Ends everything. `flood` is the program that writes.
    pub(crate) fn stop(&mut self, flood: i32) {
        let flood = signal::open_pidfd(flood).unwrap();
        if let Some(wharf) = &mut self.wharf {
            wharf.down();
        } else if self.is_pm2 {
            let mut kill = self.shop.pm2(&self.folder);
            let kill = kill.arg("kill").stdout(Stdio::null()).stderr(Stdio::null());
            assert!(kill.status().unwrap().success(), "pm2 kill");
        }
        for one in &self.processes {
            let _ = signal::send_pid(i32::try_from(one.id()).unwrap(), Signal::TERM);
        }
        let _ = signal::send(flood.as_fd(), Signal::KILL);
        for one in &mut self.processes {
            let _ = one.wait();
        }
    }

    /// Removes what it wrote: gigabytes by the end.
    pub(crate) fn remove(self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}
