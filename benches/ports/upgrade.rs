//! Calls over `Upgrade: wharf`: a manager with one port, and a client that does the least it can.
//!
//! The manager is the release binary, which cargo is asked to build; it, its program and the client
//! share one core, as port and program do in the direct ping-pong.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf::message::{Address, Form, Frame, Hello, Kind, Mode};
use wharf::os::{clock, socket};

use crate::workshop::Workshop;

/// A wharf with the program for its only service, on one core.
pub(crate) struct Manager {
    program: PathBuf,
    folder: PathBuf,
}

impl Manager {
    /// Starts it and waits until it answers.
    pub(crate) fn up(workshop: &Workshop) -> Self {
        let program = release();
        let folder = Self::folder(workshop);
        std::fs::create_dir_all(&folder).unwrap();
        let echo = workshop.program("echo");
        let yaml = format!(
            "services:\n  echo: {{ command: [{}], port: {{ framing: packet4, replies: one }} }}\n",
            echo.display()
        );
        std::fs::write(folder.join("services.yaml"), yaml).unwrap();
        let manager = Self { program, folder };
        manager.command(&["up", "-d"]);
        manager
    }

    fn folder(workshop: &Workshop) -> PathBuf {
        workshop.temporary.path().join("upgrade")
    }

    /// Where its door is.
    pub(crate) fn socket(workshop: &Workshop) -> PathBuf {
        Self::folder(workshop).join(".wharf/sock")
    }

    fn command(&self, words: &[&str]) {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(&self.program).args(words).current_dir(&self.folder);
        command.env_remove("WHARF_STATE_DIR").env_remove("WHARF_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.command(&["down"]);
    }
}

/// The release binary as it is now.
fn release() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--bin", "wharf"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("release/wharf")
}

/// The client: prints the median of `count` round trips, in microseconds.
pub(crate) fn main(words: &[String]) {
    let (door, size, count) = (&words[0], words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut client = Client::join(Path::new(door));
    let mut call = Frame::new(Kind::Call, 0, vec![0; size]);
    call.to = Some(Address::Name("echo".to_owned()));
    let mut call = call.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    let mut took = Vec::with_capacity(count);
    for round in 0..count + 100 {
        let from = clock::now();
        // Length, kind and flags stand before the id.
        let id = u64::try_from(round).unwrap() + 1;
        call[6..14].copy_from_slice(&id.to_be_bytes());
        client.socket.write_all(&call).unwrap();
        let (kind, payload) = client.frame();
        assert_eq!((kind, payload), (Kind::Reply.code(), size), "{:?}", client.buffer);
        if round >= 100 {
            took.push(clock::now().since(from));
        }
    }
    took.sort();
    println!("{}", took[count / 2].as_secs_f64() * 1e6);
}

struct Client {
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    /// One that has said hello and was greeted.
    fn join(door: &Path) -> Self {
        let socket = socket::connect(door).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self { socket, buffer: vec![0; 2 << 20] };
        let head = "host: wharf\r\nconnection: upgrade\r\nupgrade: wharf";
        let asked = format!("GET /v1/connect HTTP/1.1\r\n{head}\r\n\r\n");
        client.socket.write_all(asked.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.socket.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        let hello = Frame::control(Kind::Hello, 0, &Hello::new("bench", "1"));
        let hello = hello.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
        client.socket.write_all(&hello).unwrap();
        assert_eq!(client.frame().0, Kind::Hello.code());
        client
    }

    /// Reads a frame: its kind, and the size of its payload.
    fn frame(&mut self) -> (u8, usize) {
        let mut got = 0;
        loop {
            got += self.socket.read(&mut self.buffer[got..]).unwrap();
            assert!(got > 0, "the manager closed the connection");
            let Some(length) = self.buffer.first_chunk::<4>().filter(|_| got >= 14) else {
                continue;
            };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
            if got == length + 4 {
                return (self.buffer[4], length - 10);
            }
        }
    }
}
