//! The words of the command line. What a command's own words mean stands in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::attach::Attach;
use super::call::{Call, Send};
use super::check::Check;
use super::completions::Completions;
use super::config::Config;
use super::connect::Connect;
use super::down::Down;
use super::events::Events;
use super::exits::Exits;
use super::graph::Graph;
use super::guard::{Guardian, Manager};
use super::import::Import;
use super::init::Init;
use super::logs::Logs;
use super::man::Man;
use super::profiles::Profiles;
use super::ps::Ps;
use super::reload::Reload;
use super::scale::Scale;
use super::schema::Schema;
use super::signal::Signal;
use super::status::Status;
use super::switch::{Restart, Stop, Switch};
use super::up::Up;
use super::upgrade::{Succession, Upgrade};
use super::why::Why;

const EXAMPLES: &str = "\
Examples:
  wharf up -d                  start what services.yaml says, in the background
  wharf ps                     see what runs
  wharf why web                read why it ended, and what happens next
  wharf call db 'select 1;'    speak to a program in messages
  wharf down                   stop everything

Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration invalid, 4 no such service,
5 manager not reachable, 6 timed out, 7 partly done.";

/// A process manager in which every executable is a port: started, spoken to in messages, watched,
/// and always ending with a reason.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(propagate_version = true, infer_subcommands = false, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) globals: Globals,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Globals {
    /// A configuration; several are laid over one another [default: services.yaml, services.yml]
    #[arg(short = 'f', long = "file", global = true, value_name = "FILE", help_heading = "Global")]
    pub(super) files: Vec<PathBuf>,
    /// The state directory [default: .wharf beside the first file] [env: WHARF_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global")]
    #[arg(conflicts_with = "system")]
    pub(super) state_dir: Option<PathBuf>,
    /// Use the system's places: /etc/wharf, /run/wharf, /var/lib/wharf, /var/log/wharf
    #[arg(long, global = true, help_heading = "Global")]
    pub(super) system: bool,
    /// Say nothing but what was asked for
    #[arg(short, long, global = true, help_heading = "Global", conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more
    #[arg(short, long, global = true, help_heading = "Global")]
    pub(super) verbose: bool,
    /// Whether to use colours; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(help_heading = "Global")]
    pub(super) color: Color,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// At a terminal.
    #[default]
    Auto,
    /// Whatever the output is.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Up(Up),
    Down(Down),
    Ps(Ps),
    Status(Status),
    Why(Why),
    /// Start services that are down, and what they depend on
    #[command(after_help = "Examples:\n  wharf start web\n  wharf start web/2 db")]
    Start(Switch),
    /// Stop services and keep them down, also when the manager is restarted
    #[command(
        after_help = "Examples:\n  wharf stop web\n  wharf stop web/2 db\n  wharf stop db --dependents"
    )]
    Stop(Stop),
    /// Stop services and start them again
    #[command(
        after_help = "Examples:\n  wharf restart web\n  wharf restart web/2 db\n  wharf restart web --rolling"
    )]
    Restart(Restart),
    Scale(Scale),
    Signal(Signal),
    Reload(Reload),
    Upgrade(Upgrade),
    Graph(Graph),
    Check(Check),
    Config(Config),
    Schema(Schema),
    Profiles(Profiles),
    Init(Init),
    Import(Import),
    Logs(Logs),
    Exits(Exits),
    Events(Events),
    Call(Call),
    Send(Send),
    Connect(Connect),
    Attach(Attach),
    Completions(Completions),
    Man(Man),
    Guardian(Guardian),
    Manager(Manager),
    Succession(Succession),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_words_do_not_contradict_one_another() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_two_examples_or_more() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n"), "{name}");
            let examples = help.lines().filter(|line| line.starts_with("  wharf ")).count();
            assert!((2..=6).contains(&examples), "{name} has {examples}");
            for line in help.lines().filter_map(|line| line.strip_prefix("  wharf ")) {
                assert!(line.starts_with(name), "{name}: {line}");
            }
        }
    }

    #[test]
    fn every_example_is_understood() {
        let root = Cli::command();
        for command in root.get_subcommands().chain([&root]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  wharf ")) {
                let line = line.split("   ").next().unwrap().split(" | ").next().unwrap();
                let words = shell_words::split(&format!("wharf {line}")).unwrap();
                let words =
                    words.into_iter().take_while(|word| !matches!(&**word, ">" | "<" | "&&"));
                let words = super::super::words::understood(words.map(Into::into));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn what_is_no_command_line_is_refused() {
        for words in [
            "wharf",
            "wharf fly",
            "wharf start",
            "wharf ps --jsn",
            "wharf call db",
            "wharf signal web",
            "wharf --system --state-dir x ps",
            "wharf -q -v ps",
            "wharf exits --reason exploded",
            "wharf start we/b",
            "wharf logs -n x",
            "wharf signal web NOSUCH",
            "wharf call db x --timeout 0",
        ] {
            let error = Cli::try_parse_from(words.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }
}
