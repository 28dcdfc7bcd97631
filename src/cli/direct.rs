//! `wharf call --use`: a program that is in no services.yaml, started for the call and stopped after it.
//! No manager is asked and none is needed.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::path::Path;
use std::time::Duration;

use super::call::{message, show};
use super::context::Context;
use super::failure::{FAILED, Failure, OK, PARTLY};
use super::out::{self, Out};
use crate::port::{Builder, Port, PortError, Stderr};
use crate::spec;

/// The longest line that is taken for a message, in bytes.
const LONGEST: u64 = 16 << 20;

/// What is to be started, and what is to be said to it.
pub(super) struct Direct {
    pub(super) profile: Option<String>,
    pub(super) framing: Option<String>,
    pub(super) replies: Option<String>,
    pub(super) command: Vec<OsString>,
    pub(super) messages: Vec<OsString>,
    pub(super) lines: bool,
    pub(super) raw: bool,
    pub(super) timeout: Option<Duration>,
}

/// How the calls went.
#[derive(Default)]
struct Tally {
    answered: usize,
    failed: usize,
    /// The last failure, which is told by whoever ran us.
    last: Option<PortError>,
    /// Nobody reads our output any more, or it cannot be written.
    stopped: Option<Failure>,
}

impl Direct {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.lines != self.messages.is_empty() {
            return Err(Failure::usage(
                "which messages are meant: some MESSAGE, or --lines, not both",
            ));
        }
        let builder = self.builder(context)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Failure::Io { doing: "make a runtime", source })?;
        runtime.block_on(self.speak(builder))
    }

    /// The port as the words describe it, read like a service of a configuration.
    fn builder(&self, context: &Context) -> Result<Builder, Failure> {
        let file = context.files.first().and_then(|file| file.parent());
        let folder = file.unwrap_or(Path::new("."));
        let environment = |name: &str| std::env::var(name).ok();
        let text = self.text()?;
        let loaded = spec::load_text("the command line", text, Some(folder), &environment)?;
        let Some(service) = loaded.spec.services.values().next() else {
            return Err(Failure::usage("a program without a command"));
        };
        let mut builder = Builder::of_service(service).stderr(Stderr::Inherit);
        if !self.command.is_empty() {
            builder = builder.command(&self.command);
        }
        Ok(builder)
    }

    fn text(&self) -> Result<String, Failure> {
        let mut text = String::from("version: 1\nservices:\n  program:\n");
        if !self.command.is_empty() {
            // Its words are handed over as they are, whatever bytes they hold.
            text.push_str("    command: [given]\n");
        }
        text.push_str("    port:\n");
        let plain = (self.profile.is_none() && self.replies.is_none()).then_some("one");
        for (key, value) in [
            ("use", self.profile.as_deref()),
            ("framing", self.framing.as_deref()),
            ("replies", self.replies.as_deref().or(plain)),
        ] {
            let Some(value) = value else { continue };
            if value.contains('\n') {
                return Err(Failure::usage(format!("--{key} with a line break in it")));
            }
            // `until: ^$` is a map with one key.
            let map = value.contains(": ") && !value.trim_start().starts_with('{');
            let between = if map { "\n        " } else { " " };
            let _ = writeln!(text, "      {key}:{between}{value}");
        }
        Ok(text)
    }

    async fn speak(self, builder: Builder) -> Result<u8, Failure> {
        let port = builder.open().await?;
        let mut tally = Tally::default();
        let mut out = Out::new();
        if self.lines {
            let mut stdin = std::io::stdin().lock();
            loop {
                // The program is not read meanwhile, and can wait.
                let Some(line) = line(&mut stdin)? else { break };
                if !self.call(&port, line, &mut out, &mut tally).await {
                    break;
                }
            }
        } else {
            for word in &self.messages {
                if !self.call(&port, message(word.clone())?, &mut out, &mut tally).await {
                    break;
                }
            }
        }
        port.stop().await;
        match tally {
            Tally { stopped: Some(failure), .. } => Err(failure),
            Tally { failed: 0, .. } => Ok(OK),
            Tally { answered: 0, failed: 1, last: Some(error), .. } => Err(error.into()),
            Tally { last, answered, .. } => {
                if let Some(error) = last {
                    out::say(&Failure::from(error).text());
                }
                Ok(if answered == 0 { FAILED } else { PARTLY })
            }
        }
    }

    /// Makes one call; false when it was the last one that can be made.
    async fn call(&self, port: &Port, message: Vec<u8>, out: &mut Out, tally: &mut Tally) -> bool {
        let reply = match self.timeout {
            Some(timeout) => port.call_within(timeout, message).await,
            None => port.call(message).await,
        };
        match reply {
            Ok(reply) => {
                tally.answered += 1;
                // Who waits for a reply gets it now.
                let shown = show(out, &reply.bytes(), self.raw).and_then(|()| out.flush());
                tally.stopped = shown.err();
                tally.stopped.is_none()
            }
            Err(error) => {
                tally.failed += 1;
                let over = error.exit().is_some();
                if let Some(before) = tally.last.replace(error) {
                    out::say(&Failure::from(before).text());
                }
                !over
            }
        }
    }
}

/// The next line of standard input without its end.
fn line(stdin: &mut std::io::StdinLock<'_>) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = std::io::Read::take(stdin, LONGEST + 1).read_until(b'\n', &mut line);
    let read = read.map_err(|source| Failure::Io { doing: "read standard input", source })?;
    if u64::try_from(read).unwrap_or(u64::MAX) > LONGEST {
        return Err(Failure::usage(format!("a line of more than {LONGEST} bytes")));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok((read > 0).then_some(line))
}
