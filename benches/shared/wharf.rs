//! A wharf in a folder of its own, driven by its command line and its socket.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::wait::{LIMIT, readable};
use crate::workshop::Workshop;

/// A service of the child that says when it starts; `extra` are further lines of its block, indented
/// by four.
pub(crate) fn service(name: &str, child: &str, stamps: &str, extra: &str) -> String {
    // The row of failures ends sooner than a round, so that every restart is a first one; and no
    // number of restarts is too many, because restarts are what is measured.
    format!(
        "  {name}:\n    command: [{child}, {stamps}]\n    \
         restart: {{ policy: always, reset_after: 50ms, max_restarts: 1000000, within: 1s }}\n{extra}"
    )
}

/// The time after which a run of [`service`] has ended its row of failures.
pub(crate) const ROW: std::time::Duration = std::time::Duration::from_millis(70);

#[derive(Debug)]
pub(crate) struct Wharf {
    folder: PathBuf,
    /// Guardian and manager, once they are known.
    pids: Option<[i32; 2]>,
    /// The guardian, whatever becomes of its number.
    guardian: Option<OwnedFd>,
}

impl Wharf {
    /// A folder with this services.yaml, and nothing running.
    pub(crate) fn new(workshop: &Workshop, yaml: &str) -> Self {
        let folder = tempfile::tempdir_in(workshop.temporary.path()).unwrap().keep();
        fs::write(folder.join("services.yaml"), yaml).unwrap();
        Self { folder, pids: None, guardian: None }
    }

    /// Where its configuration and its state are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Begins `wharf up -d`, which ends by itself.
    pub(crate) fn begin_up(&self, names: &[&str]) -> Child {
        self.command(&["up", "-d"]).args(names).spawn().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(words).current_dir(&self.folder);
        command.env_remove("WHARF_STATE_DIR").env_remove("WHARF_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Waits for the end of `wharf up -d` and learns who guards and manages.
    pub(crate) fn end_up(&mut self, mut up: Child) {
        let status = up.wait().unwrap();
        assert!(status.success(), "wharf up: {status}\n{}", self.own_log());
        let manager = self.get("/v1/manager");
        let pid = |name: &str| i32::try_from(manager[name].as_i64().unwrap()).unwrap();
        self.pids = Some([pid("guardian_pid"), pid("pid")]);
        self.guardian = Some(wharf::os::signal::open_pidfd(pid("guardian_pid")).unwrap());
    }

    pub(crate) fn up(&mut self, names: &[&str]) {
        let up = self.begin_up(names);
        self.end_up(up);
    }

    /// Guardian and manager.
    pub(crate) fn pids(&self) -> [i32; 2] {
        self.pids.expect("it is up")
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let socket = wharf::os::socket::connect(&self.folder.join(".wharf/sock")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    /// Sends a request and does not wait for the answer.
    pub(crate) fn ask(&self, verb: &str, path: &str) -> UnixStream {
        let mut socket = self.connect();
        let head = "host: wharf\r\nconnection: close\r\ncontent-length: 0";
        socket.write_all(format!("{verb} {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).unwrap();
        socket
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let mut answer = String::new();
        self.ask("GET", path).read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// How many replicas are in this state.
    pub(crate) fn count(&self, state: &str) -> usize {
        let rows = self.get("/v1/services");
        rows.as_array().unwrap().iter().filter(|row| row["state"] == state).count()
    }

    /// The exit records, oldest first.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join(".wharf/exits.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn own_log(&self) -> String {
        fs::read_to_string(self.folder.join(".wharf/wharf.log")).unwrap_or_default()
    }
}

impl Wharf {
    /// Asks for the end of everything and waits for it.
    pub(crate) fn down(&mut self) {
        if self.pids.is_some() {
            let _asked = self.ask("POST", "/v1/shutdown");
            self.wait_down();
        }
    }

    /// Waits until the guardian, the last one, is gone.
    pub(crate) fn wait_down(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            assert!(readable(guardian.as_fd(), LIMIT), "the guardian does not end");
        }
        self.pids = None;
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        if self.pids.is_none() {
            // Down already, or a start that came to no end.
            let _ = self.command(&["down"]).status();
        }
        self.down();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
