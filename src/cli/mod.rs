//! The `wharf` command: one file a command.
//!
//! Commands ask the manager over its socket or read what is on disk; they decide nothing about
//! services. Data goes to standard output, words to standard error.

mod args;
mod batch;
mod chosen;
mod client;
mod context;
mod failure;
mod fold;
mod follow;
mod joined;
mod lines;
mod many;
mod out;
mod overview;
mod requests;
mod story;
mod text;
mod tree;
mod wire;
mod words;

mod attach;
mod call;
mod check;
mod completions;
mod config;
mod connect;
mod detach;
mod direct;
mod down;
mod events;
mod exits;
mod graph;
mod guard;
mod import;
mod init;
mod logs;
mod machine;
mod man;
mod profiles;
mod ps;
mod reload;
mod scale;
mod schema;
mod signal;
mod status;
mod switch;
mod up;
mod upgrade;
mod why;

use std::ffi::OsString;

use clap::Parser as _;

use args::{Cli, Command};
use context::Context;
use failure::Failure;

/// Runs a command given as words, the program's name first, and returns the exit code.
pub fn main(mut words: impl Iterator<Item = OsString>) -> u8 {
    if let Some(code) = completions::answered(&mut words) {
        return code;
    }
    let cli = match Cli::try_parse_from(words::understood(words)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nobody to tell is no reason to fail differently.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let context = match Context::new(&cli.globals) {
        Ok(context) => context,
        Err(failure) => return failure.tell(),
    };
    match run(cli.command, &context) {
        Ok(code) => code,
        Err(failure) => failure.tell(),
    }
}

fn run(command: Command, context: &Context) -> Result<u8, Failure> {
    match command {
        Command::Up(command) => command.run(context),
        Command::Down(command) => command.run(context),
        Command::Ps(command) => command.run(context),
        Command::Status(command) => command.run(context),
        Command::Why(command) => command.run(context),
        Command::Start(command) => command.start(context),
        Command::Stop(command) => command.run(context),
        Command::Restart(command) => command.run(context),
        Command::Scale(command) => command.run(context),
        Command::Signal(command) => command.run(context),
        Command::Reload(command) => command.run(context),
        Command::Upgrade(command) => command.run(context),
        Command::Graph(command) => command.run(context),
        Command::Check(command) => command.run(context),
        Command::Config(command) => command.run(context),
        Command::Schema(command) => command.run(),
        Command::Profiles(command) => command.run(context),
        Command::Init(command) => command.run(context),
        Command::Import(command) => command.run(context),
        Command::Logs(command) => command.run(context),
        Command::Exits(command) => command.run(context),
        Command::Events(command) => command.run(context),
        Command::Call(command) => command.run(context),
        Command::Send(command) => command.run(context),
        Command::Attach(command) => command.run(context),
        Command::Connect(command) => command.run(context),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Guardian(command) => command.run(context),
        Command::Manager(command) => Ok(command.run(context)),
        Command::Succession(command) => command.run(),
    }
}
