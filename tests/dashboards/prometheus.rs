//! A Prometheus of a test's own: started as the documentation says, on free loopback ports, asked over
//! HTTP, and ended by its pid. It cannot outlive the test, whatever becomes of that.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::dashboard::{folder, text};
use crate::support::{LIMIT, until};

pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

/// A loopback port that nobody uses at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

impl Prometheus {
    /// Runs `command_line`, which is the documentation's, with the shipped configuration: only
    /// addresses are others, and it looks every second instead of every 15.
    pub(crate) fn start(command_line: &str, wharf: u16) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let shipped = text("prometheus.yaml");
        let config = shipped.replace("127.0.0.1:9464", &format!("127.0.0.1:{wharf}"));
        assert!(config != shipped && config.contains(": 15s"));
        fs::create_dir(scratch.path().join("dashboards")).unwrap();
        let inside = |name: &str| scratch.path().join("dashboards").join(name);
        fs::write(inside("prometheus.yaml"), config.replace(": 15s", ": 1s")).unwrap();
        fs::copy(folder().join("alerts.yaml"), inside("alerts.yaml")).unwrap();
        let port = free_port();
        let command_line = command_line.replace("127.0.0.1:9090", &format!("127.0.0.1:{port}"));
        assert!(command_line.contains(&port.to_string()), "{command_line}");
        let log = fs::File::create(scratch.path().join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(command_line.split_whitespace())
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut this = Self { child, port, folder: scratch };
        until("Prometheus", || {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none(), "Prometheus ended: {}", this.log());
            get(this.port, "/-/ready").ok().filter(|(status, _)| *status == 200)
        });
        this
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// What its API answers under `data`.
    pub(crate) fn ask(&self, path: &str) -> Value {
        let (status, body) = get(self.port, path).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(status == 200 && body["status"] == "success", "{path}: {status} {body}");
        body["data"].clone()
    }

    /// The series that an expression yields now, each with its labels and value.
    pub(crate) fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.ask(&format!("/api/v1/query?query={}", escaped(expression)));
        let rows = data["result"].as_array().unwrap().iter();
        rows.map(|row| (row["metric"].clone(), number(&row["value"][1]))).collect()
    }

    /// The same over the time since `start`, as a curve is drawn.
    pub(crate) fn query_range(&self, expression: &str, start: f64) -> Vec<(Value, Vec<f64>)> {
        let data = self.ask(&format!(
            "/api/v1/query_range?query={}&start={start:.3}&end={:.3}&step=1",
            escaped(expression),
            now()
        ));
        let rows = data["result"].as_array().unwrap().iter();
        rows.map(|row| {
            let values = row["values"].as_array().unwrap().iter();
            (row["metric"].clone(), values.map(|value| number(&value[1])).collect())
        })
        .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // By its pid; it has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

pub(crate) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| escaped + &format!("%{byte:02X}"))
}

/// One request, written by hand; HTTP/1.0, so that the answer comes in one piece.
pub(crate) fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let failed = |error: std::io::Error| error.to_string();
    let address = ([127, 0, 0, 1], port).into();
    let mut socket =
        TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(failed)?;
    socket.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or("no status")?, body.to_owned()))
}

/// The words of a command line of the documentation, run in a folder.
pub(crate) fn shell(folder: &Path, command: &str) -> (bool, String) {
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", command])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
