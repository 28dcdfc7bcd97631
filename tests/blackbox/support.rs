//! A wharf in a folder of its own, and how to wait for things.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest any single thing may take before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What a test waits between two looks where there is no event to wait for.
pub(crate) fn look_again() {
    nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5_u8)).unwrap();
}

/// Waits until `look` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        look_again();
    }
}

/// How many times a repeated test runs: `whole` in a soak, a twentieth of it otherwise.
pub(crate) fn times(whole: usize) -> usize {
    if soaking() { whole } else { (whole / 20).max(1) }
}

/// Whether the whole counts are asked for (`make soak`).
pub(crate) fn soaking() -> bool {
    std::env::var_os("WHARF_SOAK").is_some()
}

pub(crate) struct Wharf {
    pub(crate) folder: PathBuf,
    /// Removed at the end; `None` for a folder that somebody else owns.
    _own: Option<tempfile::TempDir>,
    guardian: Option<Child>,
}

impl Wharf {
    /// A folder with this services.yaml, and nothing running.
    pub(crate) fn new(yaml: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().to_owned();
        fs::write(folder.join("services.yaml"), yaml).unwrap();
        Self { folder, _own: Some(own), guardian: None }
    }

    /// The same, with its manager running in the background.
    pub(crate) fn up(yaml: &str) -> Self {
        let wharf = Self::new(yaml);
        wharf.ok(&["up", "-d"]);
        wharf
    }

    /// The same, with its manager running in the foreground, so that its guardian is our child.
    pub(crate) fn foreground(yaml: &str) -> Self {
        let mut wharf = Self::new(yaml);
        wharf.start_foreground();
        wharf
    }

    pub(crate) fn start_foreground(&mut self) {
        self.start_foreground_to(Stdio::null());
    }

    /// The same, with this standard error.
    pub(crate) fn start_foreground_to(&mut self, stderr: Stdio) {
        let mut command = self.command(&["up"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        self.guardian = Some(command.spawn().unwrap());
        until("the socket", || self.try_get("/v1/manager").ok());
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(words).current_dir(&self.folder).env_remove("WHARF_STATE_DIR");
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed and returns what it says.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{words:?}: {}\n{said}{complained}{}",
            output.status,
            self.own_log()
        );
        said
    }

    /// Runs a command that must fail with this code and returns its complaint.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let complaint = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}{complaint}",
            text(&output.stdout)
        );
        complaint
    }

    pub(crate) fn own_log(&self) -> String {
        fs::read_to_string(self.state().join("wharf.log")).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join(".wharf")
    }

    pub(crate) fn write(&self, yaml: &str) {
        fs::write(self.folder.join("services.yaml"), yaml).unwrap();
    }

    /// A file of the folder, as text.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Every record of the journal's current file and the rotated ones, oldest first; each line must
    /// parse but for a last one that is being written.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut all = String::new();
        for number in (1..=10).rev() {
            let path = self.state().join(format!("exits.jsonl.{number}"));
            all.push_str(&fs::read_to_string(path).unwrap_or_default());
        }
        all.push_str(&fs::read_to_string(self.state().join("exits.jsonl")).unwrap_or_default());
        let whole = all.rfind('\n').map_or("", |end| &all[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    pub(crate) fn records_of(&self, service: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["service"]["name"] == service).collect()
    }

    /// Waits for at least `count` records of a service.
    #[track_caller]
    pub(crate) fn wait_records(&self, service: &str, count: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let records = self.records_of(service);
            if records.len() >= count {
                return records;
            }
            assert!(
                start.elapsed() < LIMIT,
                "{} of {count} records of {service}\n{}\n{}",
                records.len(),
                text(&self.run(&["ps"]).stdout),
                self.own_log()
            );
            look_again();
        }
    }

    /// The rows of `ps --json`, by the API.
    pub(crate) fn ps(&self) -> Vec<Value> {
        let rows: Value = serde_json::from_str(&self.get("/v1/services")).unwrap();
        rows.as_array().unwrap().clone()
    }

    pub(crate) fn row(&self, service: &str) -> Value {
        let rows = self.ps();
        rows.into_iter().find(|row| row["service"] == service).unwrap_or(Value::Null)
    }

    #[track_caller]
    pub(crate) fn wait_state(&self, service: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            if let Ok(body) = self.try_get("/v1/services") {
                let rows: Vec<Value> = serde_json::from_str(&body).unwrap();
                if let Some(row) = rows.into_iter().find(|row| row["service"] == service) {
                    if row["state"] == state {
                        return row;
                    }
                    last = row;
                }
            }
            assert!(
                start.elapsed() < LIMIT,
                "{service} is not {state} but {last}\n{}",
                self.own_log()
            );
            look_again();
        }
    }

    pub(crate) fn pid(&self, service: &str) -> i32 {
        i32::try_from(self.row(service)["pid"].as_i64().unwrap()).unwrap()
    }

    pub(crate) fn manager(&self) -> Value {
        serde_json::from_str(&self.get("/v1/manager")).unwrap()
    }

    pub(crate) fn manager_pid(&self) -> i32 {
        i32::try_from(self.manager()["pid"].as_i64().unwrap()).unwrap()
    }

    pub(crate) fn guardian_pid(&self) -> i32 {
        i32::try_from(self.manager()["guardian_pid"].as_i64().unwrap()).unwrap()
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        self.try_get(path).unwrap()
    }

    pub(crate) fn try_get(&self, path: &str) -> Result<String, String> {
        let (status, body) = self.http("GET", path, b"")?;
        if status == 200 { Ok(body) } else { Err(format!("{status}: {body}")) }
    }

    /// One request over the socket, written by hand so that no client of ours is in between.
    pub(crate) fn http(
        &self,
        verb: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(u16, String), String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut socket = self.connect().map_err(failed)?;
        socket.set_read_timeout(Some(LIMIT)).map_err(failed)?;
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nhost: wharf\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).map_err(failed)?;
        // A refusal may come before the body is taken.
        let _ = socket.write_all(body);
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or("no status")?, body.to_owned()))
    }

    /// A `POST` whose answer is bytes.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut socket = self.connect().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        // A refusal may come before the body is taken.
        let _ = socket.write_all(body);
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let status = text(&answer[..12]).rsplit(' ').next().unwrap().parse().unwrap();
        (status, answer.split_off(body))
    }

    pub(crate) fn connect(&self) -> std::io::Result<UnixStream> {
        wharf::os::socket::connect(&self.state().join("sock"))
    }

    /// What `logs` prints for a service.
    pub(crate) fn logs(&self, service: &str) -> String {
        self.ok(&["logs", service])
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        // Two requests: the second one kills what does not obey.
        if let Ok(manager) = self.try_get("/v1/manager") {
            let guardian =
                serde_json::from_str::<Value>(&manager).unwrap_or_default()["guardian_pid"]
                    .as_i64();
            let _ = self.http("POST", "/v1/shutdown", b"");
            let _ = self.http("POST", "/v1/shutdown", b"");
            if let Some(pid) = guardian.and_then(|pid| i32::try_from(pid).ok()) {
                wait_gone(pid);
            }
        }
        if let Some(guardian) = &mut self.guardian {
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a process exists and is no zombie.
pub(crate) fn alive(pid: i32) -> bool {
    wharf::os::procfs::stat(pid).is_some_and(|stat| !stat.is_zombie())
}

/// Waits, within the limit, until a process is gone or a zombie.
pub(crate) fn wait_gone(pid: i32) {
    let start = Instant::now();
    while alive(pid) && start.elapsed() < LIMIT {
        look_again();
    }
}

/// Sends a signal to a process that this test knows to be its own.
pub(crate) fn send(pid: i32, signal: i32) {
    let signal = wharf::exit::Signal::new(signal).unwrap();
    let _ = wharf::os::signal::send_pid(pid, signal);
}

/// The processes whose environment says that they were started for `folder`'s services.
pub(crate) fn marked(marker: &str) -> Vec<i32> {
    let all = wharf::os::procfs::all().unwrap();
    all.into_iter()
        .filter(|stat| !stat.is_zombie())
        .filter(|stat| wharf::os::procfs::variable(stat.pid, "MARK").as_deref() == Some(marker))
        .map(|stat| stat.pid)
        .collect()
}

/// A field of a record by its dotted path.
pub(crate) fn at<'a>(record: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(record, |value, key| &value[key])
}

/// A program written for a test, executable.
pub(crate) fn script(folder: &Path, name: &str, content: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A program in C, compiled.
pub(crate) fn compiled(folder: &Path, name: &str, source: &str) -> String {
    let file = folder.join(format!("{name}.c"));
    fs::write(&file, source).unwrap();
    let program = folder.join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-o"]).arg(&program).arg(&file);
    let done = gcc.output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    program.to_str().unwrap().to_owned()
}

/// The living processes of which one argument is this.
pub(crate) fn with_argument(argument: &str) -> Vec<i32> {
    let all = wharf::os::procfs::all().unwrap().into_iter();
    let living = all.filter(|stat| !stat.is_zombie()).map(|stat| stat.pid);
    let has =
        |pid: &i32| wharf::os::procfs::arguments(*pid).iter().any(|one| one == argument.as_bytes());
    living.filter(has).collect()
}
