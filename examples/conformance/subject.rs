//! One run of the program under test: its pipes, and what came out of it. It knows the wire and no rule.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the runner is a program of its own: nobody else spawns, reaps or asks for the time in it"
)]

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf::message::{Decoder, Flags, Form, Frame, Hello, Kind, Mode, Read};

/// What is tested, and how.
pub(crate) struct Bench {
    pub(crate) command: Vec<String>,
    /// What the program is called with.
    pub(crate) payload: Bytes,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

impl Default for Bench {
    fn default() -> Self {
        let (payload, patience) = (Bytes::from_static(b"\"ping\""), Duration::from_secs(10));
        Self { command: Vec::new(), payload, patience }
    }
}

/// What came out of the program.
#[derive(Debug)]
enum Seen {
    Frame(Frame),
    /// Something that is no frame.
    Foreign(String),
    End,
}

/// One run of the program. It is killed when it is let go of.
pub(crate) struct Subject {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Seen>,
    patience: Duration,
    /// What it said of itself.
    pub(crate) hello: Hello,
    pub(crate) form: Form,
    /// What it is called with.
    pub(crate) payload: Bytes,
    next: u64,
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill and only its status to be taken.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// Starts the program and hears its HELLO.
    pub(crate) fn start(&self) -> Result<Subject, String> {
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .envs([("PORT_PROTO", "1"), ("PORT_MODES", "frame,ndjson"), ("PORT_CHANNEL", "0,1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {:?}: {error}", self.command[0]))?;
        let (tell, output) = mpsc::channel();
        let (tell_mode, mode) = mpsc::sync_channel(1);
        let mut pipe = child.stdout.take().ok_or("it has no output")?;
        thread::spawn(move || {
            let mut decoder = Decoder::of_any(64 << 20);
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let goes_on = hear(&mut decoder, &buffer[..count], &tell);
                // Only the first one finds room, and only that one is wanted.
                let _ = decoder.mode().map(|mode| tell_mode.try_send(mode));
                if !goes_on {
                    return;
                }
            }
            let _ = tell.send(match decoder.finish() {
                Ok(()) => Seen::End,
                Err(error) => Seen::Foreign(error.to_string()),
            });
        });
        let input = child.stdin.take();
        let mut subject = Subject {
            child,
            input,
            output,
            patience: self.patience,
            hello: Hello::new("", ""),
            form: Form::new(Mode::Frame),
            payload: self.payload.clone(),
            next: 0,
        };
        let first = subject.frame("HELLO")?;
        if first.kind != Kind::Hello {
            return Err(format!("the first frame is of the kind {}, and HELLO is due", first.kind));
        }
        subject.hello = first.read().map_err(|error| format!("cannot {error}"))?;
        if subject.hello.proto != 1 {
            return Err(format!("it speaks version {} of the protocol", subject.hello.proto));
        }
        let mode = mode.recv_timeout(self.patience).map_err(|error| error.to_string())?;
        subject.form = Form { mode, enc: subject.hello.enc, max_frame: subject.hello.max_frame };
        Ok(subject)
    }

    /// The same, with the manager's HELLO and READY.
    pub(crate) fn ready(&self) -> Result<Subject, String> {
        let mut subject = self.start()?;
        let hello = r#"{"proto":1,"name":"conformance","version":"1","concurrency":0,"max_frame":16777216,"of_a_later_version":{"max_frame":[1]}}"#;
        subject.send(&Frame::new(Kind::Hello, 0, hello))?;
        let ready = subject.frame("READY")?;
        match ready.kind {
            Kind::Ready if ready.payload.is_empty() || &ready.payload[..] == b"{}" => Ok(subject),
            Kind::Ready => Err(format!("it is not ready: {}", ready.payload.escape_ascii())),
            kind => Err(format!("a frame of the kind {kind} came before READY")),
        }
    }
}

/// Tells the frames in some bytes. `false` when nobody listens or nothing more can be read.
fn hear(decoder: &mut Decoder, bytes: &[u8], tell: &Sender<Seen>) -> bool {
    let mut heard = true;
    let result = decoder.push(bytes, &mut |read| {
        heard &= match read {
            Read::Frame(frame) => tell.send(Seen::Frame(frame)).is_ok(),
            Read::Stray { error, .. } => tell.send(Seen::Foreign(error.to_string())).is_ok(),
        };
    });
    if let Err(error) = result {
        let _ = tell.send(Seen::Foreign(error.to_string()));
        return false;
    }
    heard
}

impl Subject {
    /// The next frame, of which something is expected.
    pub(crate) fn frame(&mut self, due: &str) -> Result<Frame, String> {
        match self.output.recv_timeout(self.patience) {
            Ok(Seen::Frame(frame)) => Ok(frame),
            Ok(Seen::Foreign(what)) => Err(format!("it wrote what is no frame: {what}")),
            Ok(Seen::End) | Err(RecvTimeoutError::Disconnected) => {
                Err(format!("its output ended, and {due} was waited for"))
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("{due} did not come within {:?}", self.patience))
            }
        }
    }

    /// The next frame that is neither DATA nor LOG, which may come at any time.
    pub(crate) fn answer(&mut self, due: &str) -> Result<Frame, String> {
        loop {
            let frame = self.frame(due)?;
            if !matches!(frame.kind, Kind::Data | Kind::Log | Kind::Metric | Kind::Credit) {
                return Ok(frame);
            }
        }
    }

    /// All of the answer to a call.
    pub(crate) fn answered(&mut self, id: u64) -> Result<(), String> {
        loop {
            let frame = self.answer("the answer to a call")?;
            match frame.kind {
                Kind::Reply | Kind::Error if frame.id == id => {
                    if !frame.flags.has(Flags::MORE) {
                        return Ok(());
                    }
                }
                kind => {
                    return Err(format!("{kind} {} came, and the answer to {id} is due", frame.id));
                }
            }
        }
    }

    /// A call of the usual kind under an id of its own.
    pub(crate) fn call(&mut self) -> Frame {
        self.next += 1;
        Frame::new(Kind::Call, self.next, self.payload.clone())
    }

    /// Sends a call and waits for its answer.
    pub(crate) fn calls(&mut self) -> Result<(), String> {
        let call = self.call();
        self.send(&call)?;
        self.answered(call.id)
    }

    pub(crate) fn bytes(&self, frame: &Frame) -> Result<Vec<u8>, String> {
        let form = Form { max_frame: self.form.max_frame.max(1 << 16), ..self.form };
        frame.encode(&form).map(|wire| wire.to_vec()).map_err(|error| format!("cannot {error}"))
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> Result<(), String> {
        let bytes = self.bytes(frame)?;
        self.write(&bytes)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        let written = input.write_all(bytes).and_then(|()| input.flush());
        written.map_err(|error| format!("it does not read: {error}"))
    }

    pub(crate) fn close(&mut self) {
        self.input = None;
    }

    /// Waits for the end of its output, before which nothing more may come, and of the program.
    pub(crate) fn ends(&mut self) -> Result<Option<i32>, String> {
        match self.output.recv_timeout(self.patience) {
            Ok(Seen::End) | Err(RecvTimeoutError::Disconnected) => {}
            Ok(Seen::Frame(frame)) => return Err(format!("{} came as well", frame.kind)),
            Ok(Seen::Foreign(what)) => return Err(format!("it wrote what is no frame: {what}")),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("its output did not end within {:?}", self.patience));
            }
        }
        let since = Instant::now();
        while since.elapsed() < self.patience {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status.code()),
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(format!("cannot wait for it: {error}")),
            }
        }
        Err(format!("it did not end within {:?} after its output", self.patience))
    }

    /// What comes until the output ends, whatever it is.
    pub(crate) fn rest(&mut self) -> Result<Vec<Frame>, String> {
        let mut rest = Vec::new();
        loop {
            match self.output.recv_timeout(self.patience) {
                Ok(Seen::Frame(frame)) => rest.push(frame),
                Ok(Seen::Foreign(_)) => {}
                Ok(Seen::End) | Err(RecvTimeoutError::Disconnected) => return Ok(rest),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("it did not end within {:?}", self.patience));
                }
            }
        }
    }
}
