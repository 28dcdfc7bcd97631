//! The `wharf` command. Everything it does is in the library; see `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wharf::cli::main(std::env::args_os()))
}
