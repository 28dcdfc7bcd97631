//! `ports/NAME/transcript.yaml`: a conversation with the real program, as data.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// A conversation with the program of a profile: what is sent, what must come back, how it quits.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "transcript.yaml")]
pub(crate) struct Transcript {
    /// The programs it needs and the Debian packages they come from, each `PROGRAM:PACKAGE`; on one
    /// line, which the Makefile reads too.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[^\s:,]+:[a-z0-9][a-z0-9.+-]+$")))]
    pub(crate) debian: Vec<String>,
    /// The programs it needs from `tests/profiles/requirements.txt`.
    #[serde(default)]
    pub(crate) python: Vec<String>,
    /// The programs it needs from `tests/profiles/package.json`.
    #[serde(default)]
    pub(crate) node: Vec<String>,
    /// It is played in `make soak` alone, since its programs cost much to install.
    #[serde(default)]
    pub(crate) soak: bool,
    /// Files that must be in the folder of the service, by their path.
    #[serde(default)]
    pub(crate) files: IndexMap<String, String>,
    /// Commands that are run in that folder before the service is started.
    #[serde(default)]
    pub(crate) before: Vec<Vec<String>>,
    /// Keys of the service beside `port: { use: NAME }`, as a user of the profile writes them.
    #[serde(default)]
    pub(crate) service: IndexMap<String, Value>,
    /// What is sent and what must come back, in this order: three at least, one of them an error.
    #[schemars(length(min = 3))]
    pub(crate) exchanges: Vec<Exchange>,
    /// What a stop does and how the program then ends.
    pub(crate) quit: Quit,
}

/// One step: a message to the program, what it answers, what it says besides.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// A message that wants a reply.
    pub(crate) call: Option<Message>,
    /// A message that wants none.
    pub(crate) send: Option<Message>,
    /// The reply to the call; several messages have a line feed between them.
    pub(crate) reply: Option<Expected>,
    /// Why the call is not answered: the `code` of the API's error.
    pub(crate) fails: Option<String>,
    /// A message that is no reply and must have come by now.
    pub(crate) event: Option<Expected>,
    /// A regular expression for what must be on its standard error by now.
    pub(crate) stderr: Option<String>,
    /// This is how the program tells of an error.
    #[serde(default)]
    pub(crate) error: bool,
    /// How long the call may take, where the port's own timeout is not meant.
    pub(crate) timeout: Option<String>,
}

/// A message to the program.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Message {
    /// As it stands.
    Text(String),
    /// In another form.
    Form(Form),
}

/// A message that is written in another form than text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// A JSON value, sent on one line.
    Json(Value),
    /// A JSON value that is sent as MessagePack.
    Msgpack(Value),
    /// Bytes, two hexadecimal digits each; spaces and what follows a `#` in a line are left out.
    Hex(String),
}

/// What a message must be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Expected {
    /// Exactly this text.
    Text(String),
    /// By another measure.
    By(By),
}

/// What a message must be, by another measure than its exact text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// A regular expression that matches somewhere in it.
    Regex(String),
    /// JSON that says this: a key that is not named may have any value, and a list may go on.
    Json(Value),
    /// MessagePack that says this, likewise.
    Msgpack(Value),
    /// Exactly these bytes.
    Hex(String),
    /// A regular expression that matches somewhere in its hexadecimal digits.
    HexRegex(String),
}

/// What a stop does, and how the program ends.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quit {
    /// The steps that the record must name, in their order.
    pub(crate) steps: Vec<String>,
    /// The exit code.
    pub(crate) code: i64,
    /// The reason of the record.
    #[serde(default = "completed")]
    pub(crate) reason: String,
}

fn completed() -> String {
    "completed".to_owned()
}

/// The folder of all profiles.
pub(crate) fn ports() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ports")
}

/// The profiles that are in the repository, by name.
pub(crate) fn names() -> Vec<String> {
    let folders = fs::read_dir(ports()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = folders
        .filter(|folder| folder.is_dir())
        .map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The transcript of a profile, or what is wrong with it.
pub(crate) fn load(name: &str) -> Result<Transcript, String> {
    let file = format!("ports/{name}/transcript.yaml");
    let text = fs::read_to_string(ports().join(name).join("transcript.yaml"))
        .map_err(|error| format!("{file}: {error}"))?;
    let read: Transcript =
        serde_saphyr::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    read.sound().map_err(|wrong| format!("{file}: {wrong}"))?;
    Ok(read)
}

impl Transcript {
    /// What the schema cannot say.
    fn sound(&self) -> Result<(), String> {
        if self.exchanges.len() < 3 {
            return Err("three exchanges at least are needed".to_owned());
        }
        if !self.exchanges.iter().any(|exchange| exchange.error) {
            return Err("no exchange is an error (`error: true`)".to_owned());
        }
        if self.debian.is_empty() && self.python.is_empty() && self.node.is_empty() {
            return Err("it names no program (`debian`, `python` or `node`)".to_owned());
        }
        let is_installed_by_a_manager = !self.python.is_empty() || !self.node.is_empty();
        if !self.soak && is_installed_by_a_manager {
            return Err("what pip or npm installs is for `soak: true`".to_owned());
        }
        for (at, exchange) in self.exchanges.iter().enumerate() {
            exchange.sound().map_err(|wrong| format!("exchange {}: {wrong}", at + 1))?;
        }
        Ok(())
    }
}

impl Exchange {
    fn sound(&self) -> Result<(), &'static str> {
        match (&self.call, &self.send, &self.reply, &self.fails) {
            (Some(_), Some(_), ..) => Err("it is either `call` or `send`"),
            (Some(_), None, Some(_), None) | (Some(_), None, None, Some(_)) => Ok(()),
            (Some(_), None, ..) => Err("a call has either `reply` or `fails`"),
            (None, _, None, None) if self.event.is_some() || self.stderr.is_some() => Ok(()),
            (None, ..) => Err("without a call there is `event` or `stderr`, and no reply"),
        }
    }
}
