//! Plays a transcript: one manager, one service with the profile, the control socket in between.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};

use crate::messages::{bytes, compare, shown};
use crate::programs;
use crate::support::{LIMIT, Wharf, at, look_again, text};
use crate::transcript::{Exchange, Expected, Quit, Transcript};

/// Stops with what is wrong, and where.
pub(crate) fn play(name: &str, transcript: &Transcript) {
    let path = programs::path(transcript);
    let wharf = Wharf::new(&services(name, transcript));
    prepare(&wharf.folder, transcript, &path);
    let mut up = wharf.command(&["up", "-d"]);
    let up = up.env("PATH", &path).stdin(Stdio::null()).output().unwrap();
    assert!(up.status.success(), "{}{}", text(&up.stderr), wharf.own_log());
    let mut events = Events::listen(&wharf, name);
    wharf.wait_state(name, "running");
    for (number, exchange) in transcript.exchanges.iter().enumerate() {
        if let Err(wrong) = step(&wharf, name, exchange, &mut events) {
            let said = text(&wharf.run(&["logs", name]).stdout);
            let status = text(&wharf.run(&["status", name]).stdout);
            panic!(
                "exchange {}: {wrong}\n--- {exchange:?}\n--- log\n{said}--- status\n{status}",
                number + 1
            );
        }
    }
    end(&wharf, name, &transcript.quit);
}

/// services.yaml, which may be JSON.
fn services(name: &str, transcript: &Transcript) -> String {
    let mut service = json!(transcript.service);
    let port = service["port"].take();
    let mut keys = port.as_object().cloned().unwrap_or_default();
    keys.insert("use".to_owned(), json!(name));
    service["port"] = Value::Object(keys);
    json!({ "services": { name: service } }).to_string()
}

fn prepare(folder: &Path, transcript: &Transcript, path: &str) {
    for (file, content) in &transcript.files {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    for words in &transcript.before {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(folder).env("PATH", path).env("HOME", folder);
        // What a user of git has set up, and what the transcript does not want to know of.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Wharf");
            command.env(format!("GIT_{who}_EMAIL"), "wharf@example.com");
            command.env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    }
}

fn step(wharf: &Wharf, name: &str, exchange: &Exchange, events: &mut Events) -> Result<(), String> {
    if let Some(message) = &exchange.send {
        let (status, body) = post(wharf, &format!("/v1/services/{name}/send"), &bytes(message)?);
        if status != 204 {
            return Err(format!("send: {status}: {}", text(&body)));
        }
    }
    if let Some(message) = &exchange.call {
        let query = exchange.timeout.as_ref().map(|time| format!("?timeout={time}"));
        let path = format!("/v1/services/{name}/call{}", query.unwrap_or_default());
        let (status, body) = post(wharf, &path, &bytes(message)?);
        match (&exchange.reply, &exchange.fails) {
            (Some(reply), _) if status == 200 => {
                compare(reply, &body).map_err(|wrong| format!("{wrong}: {}", shown(&body)))?;
            }
            (None, Some(code)) if status != 200 => {
                let told: Value = serde_json::from_slice(&body).unwrap_or_default();
                if told["code"] != json!(code) {
                    return Err(format!("it failed otherwise: {}", text(&body)));
                }
            }
            _ => return Err(format!("{status}: {}", shown(&body))),
        }
    }
    if let Some(expected) = &exchange.event {
        events.wait(expected)?;
    }
    if let Some(pattern) = &exchange.stderr {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        let start = Instant::now();
        while !regex.is_match(&text(&wharf.run(&["logs", name]).stdout)) {
            if start.elapsed() > LIMIT {
                return Err(format!("/{pattern}/ did not come on standard error"));
            }
            look_again();
        }
    }
    Ok(())
}

/// A stop, and the record of it.
fn end(wharf: &Wharf, name: &str, quit: &Quit) {
    wharf.ok(&["stop", name]);
    let records = wharf.wait_records(name, 1);
    let record = &records[0];
    assert_eq!(records.len(), 1, "the program ended before: {record}");
    let steps: Vec<&str> = at(record, "exit.stop.steps")
        .as_array()
        .map(|steps| steps.iter().map(|step| step["step"].as_str().unwrap()).collect())
        .unwrap_or_default();
    let code = &at(record, "process.exit.code");
    let log = text(&wharf.run(&["logs", name]).stdout);
    assert_eq!(
        (&steps, code.as_i64(), at(record, "exit.reason").as_str()),
        (
            &quit.steps.iter().map(String::as_str).collect(),
            Some(quit.code),
            Some(quit.reason.as_str())
        ),
        "{record}\n{log}"
    );
    assert_eq!(at(record, "exit.cause"), "stop_requested", "{record}");
    assert_eq!(at(record, "port.partial_frame"), false, "{record}");
}

fn post(wharf: &Wharf, path: &str, message: &[u8]) -> (u16, Vec<u8>) {
    let mut socket = wharf.connect().unwrap();
    socket.set_read_timeout(Some(2 * LIMIT)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        message.len()
    );
    socket.write_all(&[head.as_bytes(), message].concat()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let status = text(&answer[..12]).rsplit(' ').next().unwrap().parse().unwrap();
    (status, answer.split_off(body))
}

/// What the program says that is no reply, from its beginning.
struct Events {
    socket: BufReader<UnixStream>,
    /// What has come and was not waited for yet.
    kept: Vec<Vec<u8>>,
}

impl Events {
    fn listen(wharf: &Wharf, name: &str) -> Self {
        let mut socket = wharf.connect().unwrap();
        // Shorter than the heartbeat of a silent stream.
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let asked = format!(
            "GET /v1/events?kind=message&since=1h&service={name} HTTP/1.1\r\nhost: w\r\n\r\n"
        );
        socket.write_all(asked.as_bytes()).unwrap();
        Self { socket: BufReader::new(socket), kept: Vec::new() }
    }

    /// Waits for a message like that, and forgets it.
    fn wait(&mut self, expected: &Expected) -> Result<(), String> {
        let start = Instant::now();
        let mut at = 0;
        loop {
            while let Some(message) = self.kept.get(at) {
                if compare(expected, message).is_ok() {
                    self.kept.remove(at);
                    return Ok(());
                }
                at += 1;
            }
            let mut line = String::new();
            let come = self.socket.read_line(&mut line);
            if come.as_ref().is_ok_and(|size| *size == 0) || start.elapsed() > LIMIT {
                let kept: Vec<String> = self.kept.iter().map(|message| shown(message)).collect();
                return Err(format!("no such message has come, only {kept:#?}"));
            }
            let data = line.strip_prefix("data:").map(str::trim_start);
            let Some(data) = data else { continue };
            let notice: Value = serde_json::from_str(data).unwrap();
            if let Some(text) = notice["message"]["text"].as_str() {
                self.kept.push(text.as_bytes().to_vec());
            }
        }
    }
}
