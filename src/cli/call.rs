//! `wharf call` and `wharf send`: speak to a port in messages, byte for byte.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::Args;

use super::client::{Question, path_of};
use super::context::Context;
use super::direct::Direct;
use super::failure::{Failure, OK};
use super::out::Out;
use crate::name::Target;
use crate::time::{format_duration, parse_duration};

/// The largest message that is taken from standard input, in bytes: no port takes more.
const LARGEST: u64 = 1 << 30;

/// Send a message to a port and print the reply
///
/// With --use, --framing or --replies the port is a program that is started for this call and
/// stopped after it, without a manager; its command stands after --.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf call db 'select count(*) from orders;'
  wharf call resize/2 - --raw --timeout 5s < picture.jpg > small.jpg
  wharf call sort --close - < words.txt
  wharf call --use bc '2^64' 'sqrt(2)' -- bc -lq")]
pub(super) struct Call {
    /// A service (any of its running replicas), or a single replica
    #[arg(value_name = "NAME[/R]", required_unless_present_any = ["profile", "framing", "replies"])]
    name: Option<OsString>,
    /// The message; - takes it from standard input
    #[arg(value_name = "MESSAGE|-")]
    #[arg(required_unless_present_any = ["profile", "framing", "replies", "command", "close"])]
    messages: Vec<OsString>,
    /// Close the program's input after the message; the reply is all that it still says, given when it
    /// has ended
    #[arg(long)]
    close: bool,
    /// Print the reply as it is: no newline is added
    #[arg(long)]
    raw: bool,
    /// How long to wait for the reply [default: the port's own timeout]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Where as many messages wait as may, wait so long for room instead of failing at once
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    wait: Option<Duration>,
    /// Start a program for this call and speak to it as this profile says
    #[arg(
        long = "use",
        id = "profile",
        value_name = "PROFILE",
        help_heading = "Without a manager"
    )]
    profile: Option<String>,
    /// How bytes become messages, as after `framing:` in services.yaml [default: lines]
    #[arg(long, value_name = "FRAMING", help_heading = "Without a manager")]
    framing: Option<String>,
    /// Which message is the reply, as after `replies:` in services.yaml [default: one]
    #[arg(long, value_name = "REPLIES", help_heading = "Without a manager")]
    replies: Option<String>,
    /// Each line of standard input is a message
    #[arg(long, help_heading = "Without a manager")]
    lines: bool,
    /// The program and its words [default: those of the profile]
    #[arg(last = true, value_name = "COMMAND", help_heading = "Without a manager")]
    command: Vec<OsString>,
}

/// Send a message to a port and wait for no reply
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf send chat 'hello everybody'
  wharf send queue/1 - --wait 1m < job.json
  wharf send collector --close")]
pub(super) struct Send {
    /// A service (any of its running replicas), or a single replica
    #[arg(value_name = "NAME[/R]")]
    name: Target,
    /// The message; - takes it from standard input
    #[arg(value_name = "MESSAGE|-", required_unless_present = "close")]
    message: Option<OsString>,
    /// Close the program's input after the message, or without one
    #[arg(long)]
    close: bool,
    /// Where as many messages wait as may, wait so long for room instead of failing at once
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    wait: Option<Duration>,
}

/// The path of a question with what is asked beside the message.
fn path(target: &Target, verb: &str, times: &[(&str, Option<Duration>)], close: bool) -> String {
    let mut path = path_of(target, verb);
    let given = times.iter().filter_map(|(key, length)| Some((key, (*length)?)));
    let mut mark = '?';
    for (key, length) in given {
        let _ = write!(path, "{mark}{key}={}", format_duration(length));
        mark = '&';
    }
    if close {
        let _ = write!(path, "{mark}close=true");
    }
    path
}

fn timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(length) if !length.is_zero() && length <= Duration::from_secs(3600) => Ok(length),
        Ok(_) => Err("a timeout is longer than nothing and at most 1h".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Call {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.profile.is_none() && self.framing.is_none() && self.replies.is_none() {
            return self.ask(context);
        }
        if self.wait.is_some() {
            let words = "--wait with a program of its own: nobody else's messages wait for it";
            return Err(Failure::usage(words));
        }
        if self.close {
            let words = "--close with a program of its own: its input is closed after its calls";
            return Err(Failure::usage(words));
        }
        Direct {
            profile: self.profile,
            framing: self.framing,
            replies: self.replies,
            command: self.command,
            messages: self.name.into_iter().chain(self.messages).collect(),
            lines: self.lines,
            raw: self.raw,
            timeout: self.timeout,
        }
        .run(context)
    }

    /// Asks a manager.
    fn ask(self, context: &Context) -> Result<u8, Failure> {
        if self.lines {
            let words =
                "--lines with a service: it is for a program that --use or --framing starts";
            return Err(Failure::usage(words));
        }
        let name = self.name.unwrap_or_default();
        let target: Target = name
            .to_string_lossy()
            .parse()
            .map_err(|error| Failure::usage(format!("{}: {error}", name.display())))?;
        // After -- stands a message that begins with a dash.
        let mut words = [self.messages, self.command].concat();
        let message = match words.pop() {
            Some(word) if words.is_empty() => message(word)?,
            None if self.close => Vec::new(),
            _ => return Err(Failure::usage("more than one message to a service, or none")),
        };
        let times = [("timeout", self.timeout), ("wait", self.wait)];
        let path = path(&target, "/call", &times, self.close);
        let reply = context.client("call")?.ask(Question::post(path, message))?;
        let mut out = Out::new();
        show(&mut out, &reply.body, self.raw)?;
        out.flush()?;
        Ok(OK)
    }
}

/// Prints a reply.
pub(super) fn show(out: &mut Out, reply: &[u8], raw: bool) -> Result<(), Failure> {
    out.bytes(reply)?;
    if !raw && reply.last() != Some(&b'\n') {
        out.bytes(b"\n")?;
    }
    Ok(())
}

impl Send {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let message = self.message.map_or(Ok(Vec::new()), message)?;
        let path = path(&self.name, "/send", &[("wait", self.wait)], self.close);
        context.client("send")?.ask(Question::post(path, message))?;
        Ok(OK)
    }
}

/// A message as it stands among the words, or that of standard input.
pub(super) fn message(word: OsString) -> Result<Vec<u8>, Failure> {
    if word != "-" {
        return Ok(word.into_vec());
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(|source| Failure::Io { doing: "read standard input", source })?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(Failure::usage(format!("a message of more than {LARGEST} bytes")));
    }
    Ok(bytes)
}
