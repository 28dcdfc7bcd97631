//! `wharf completions`: what a shell needs to complete our words, and the answers it then asks for.
//!
//! The script holds no words itself: at each press of the key the shell asks this very program, by
//! `WHARF_COMPLETE`, so that the names of services are those of the manager that runs, or of the
//! configuration where none does. Asking never waits long and never complains.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Arg, Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use super::args::{Cli, Globals};
use super::client::{Question, parse};
use super::context::Context;
use super::failure::{Failure, OK};
use super::{out, words};
use crate::exit::Reason;
use crate::manager::ReplicaStatus;

/// The environment variable by which a shell asks; its value is the shell's name.
const ASKED: &str = "WHARF_COMPLETE";
/// A person waits for the answer of a manager that may be stuck.
const PATIENCE: Duration = Duration::from_millis(500);

/// Print what a shell needs to complete wharf's words
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf completions bash > ~/.local/share/bash-completion/completions/wharf
  wharf completions zsh > ~/.zfunc/_wharf
  wharf completions fish > ~/.config/fish/completions/wharf.fish

Names of services are completed from the running manager, or else from the configuration.")]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The shells that are tried by the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

impl Completions {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let name = self.shell.name();
        let mut script = Vec::new();
        let known = Shells::builtins();
        let shell = known
            .completer(name)
            .ok_or_else(|| Failure::usage(format!("there are no completions for {name}")))?;
        shell
            .write_registration(ASKED, "wharf", "wharf", "wharf", &mut script)
            .map_err(|source| Failure::Io { doing: "write the script", source })?;
        let mut out = out::Out::new();
        out.bytes(&script)?;
        out.flush()?;
        Ok(OK)
    }
}

/// Answers a shell that asks: `shell` is its name, `asked` the words after the program's own, where
/// those to be completed follow a `--`. Nothing is printed where there is nothing to offer.
fn answer(shell: &str, asked: Vec<OsString>) -> io::Result<()> {
    let Some(at) = asked.iter().position(|word| word == "--") else { return Ok(()) };
    let typed = asked.into_iter().skip(at + 1).collect();
    let known = Shells::builtins();
    let Some(shell) = known.completer(shell) else { return Ok(()) };
    let typed = understood(typed);
    let mut command = completable(&typed);
    let folder = std::env::current_dir().ok();
    let mut offered = Vec::new();
    shell.write_complete(&mut command, typed, folder.as_deref(), &mut offered)?;
    io::stdout().lock().write_all(&offered)
}

/// Answers a shell, if it is one that asks. Returns the exit code then.
pub(super) fn answered(words: &mut dyn Iterator<Item = OsString>) -> Option<u8> {
    let shell = std::env::var(ASKED).ok().filter(|shell| !shell.is_empty())?;
    // A shell in the middle of a line has no place for a complaint.
    let done = answer(&shell, words.skip(1).collect());
    Some(u8::from(done.is_err()))
}

/// `-f` means to follow after some commands; which word is being completed must not change.
fn understood(typed: Vec<OsString>) -> Vec<OsString> {
    let meant = words::understood(typed.iter().cloned());
    if meant.len() == typed.len() { meant } else { typed }
}

/// The command line, with what is known here and now about the words that others choose.
fn completable(typed: &[OsString]) -> Command {
    let globals = globals(typed);
    let mut command = Cli::command();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().into()).collect();
    for name in names {
        let globals = globals.clone();
        command = command.mut_subcommand(name, |sub| {
            sub.mut_args(move |arg| {
                let globals = globals.clone();
                match placeholder(&arg).as_str() {
                    "NAME[/R]" => with(arg, move || replicas(&globals)),
                    "NAME" => with(arg, move || configured(&globals)),
                    "REASON" => with(arg, reasons),
                    "SIGNAL" => with(arg, signals),
                    _ => arg,
                }
            })
        });
    }
    command
}

fn placeholder(arg: &Arg) -> String {
    let told = arg.get_value_names().and_then(<[_]>::first);
    told.map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string)
}

fn with(arg: Arg, offer: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Arg {
    arg.add(ArgValueCompleter::new(move |current: &OsStr| {
        let typed = current.to_string_lossy().into_owned();
        let fitting = offer().into_iter().filter(|name| name.starts_with(&typed));
        fitting.map(CompletionCandidate::new).collect::<Vec<_>>()
    }))
}

/// The global words that say where to look; the line is not finished, so nothing else is understood.
fn globals(typed: &[OsString]) -> Globals {
    let mut found = Globals { quiet: true, ..Globals::default() };
    let mut words = typed.iter().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        match text.split_once('=') {
            Some(("--file", file)) => found.files.push(file.into()),
            Some(("--state-dir", folder)) => found.state_dir = Some(folder.into()),
            _ => match text {
                "-f" | "--file" => found.files.extend(words.next().map(Into::into)),
                "--state-dir" => found.state_dir = words.next().map(Into::into),
                "--system" => found.system = true,
                _ => {}
            },
        }
    }
    found
}

/// Services and, where there are several, their replicas, as the manager knows them.
fn replicas(globals: &Globals) -> Vec<String> {
    let Ok(context) = Context::new(globals) else { return Vec::new() };
    let asked = context
        .client("completions")
        .and_then(|client| client.ask_briefly(Question::get("/v1/services"), PATIENCE))
        .and_then(|reply| parse::<Vec<ReplicaStatus>>(&reply.body));
    let Ok(known) = asked else { return configured(globals) };
    let mut names: Vec<String> = Vec::new();
    for replica in &known {
        if !names.contains(&replica.service) {
            names.push(replica.service.clone());
        }
    }
    let several = |replica: &&ReplicaStatus| {
        known.iter().any(|other| other.service == replica.service && other.replica > 1)
    };
    let numbered = known.iter().filter(several);
    names.extend(numbered.map(|replica| format!("{}/{}", replica.service, replica.replica)));
    names
}

/// The services of the configuration; none where it cannot be read.
fn configured(globals: &Globals) -> Vec<String> {
    let loaded = Context::new(globals).and_then(|context| context.load());
    let Ok(loaded) = loaded else { return Vec::new() };
    loaded.spec.services.keys().map(ToString::to_string).collect()
}

fn reasons() -> Vec<String> {
    Reason::ALL.iter().map(ToString::to_string).collect()
}

/// The signals that people send; any other is understood too.
fn signals() -> Vec<String> {
    ["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH"]
        .map(str::to_owned)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn where_to_look_is_understood_in_the_middle_of_a_line() {
        let found = globals(&words("wharf -f a.yaml --file=b.yaml stop --state-dir st we"));
        assert_eq!(found.files, [Path::new("a.yaml"), Path::new("b.yaml")]);
        assert_eq!(found.state_dir.as_deref(), Some(Path::new("st")));
        assert!(globals(&words("wharf --system ps")).system);
        assert!(globals(&words("wharf stop -f")).files.is_empty());
    }

    #[test]
    fn names_are_offered_where_a_name_belongs() {
        let command = completable(&words("wharf stop"));
        for (command, sub) in
            [(&command, "stop"), (&command, "logs"), (&command, "up"), (&command, "call")]
        {
            let sub = command.find_subcommand(sub).unwrap();
            let offers = sub.get_arguments().any(|arg| arg.get::<ArgValueCompleter>().is_some());
            assert!(offers, "{}", sub.get_name());
        }
    }
}
