//! The examples, run as they are shown, and what they say.

use std::process::{Command, ExitCode};

use libtest_mimic::Trial;

#[path = "../../examples/process-area.rs"]
mod area;
#[path = "../../examples/process-hello.rs"]
mod hello;
#[path = "../../examples/process-ring.rs"]
mod ring;
#[path = "../../examples/process-selective.rs"]
mod selective;

/// An example: its name, its `main`, and what it says on standard output. `*` is anything.
type Example = (&'static str, fn() -> ExitCode, &'static str);

const EXAMPLES: &[Example] = &[
    (
        "process-hello",
        hello::main,
        "hello, world\nit panicked at *process-hello.rs:*: attempt to divide by zero\n",
    ),
    (
        "process-area",
        area::main,
        "circle: 3.142\nrectangle: 42\nthe server panicked at *process-area.rs:*: a radius of -1\n",
    ),
    ("process-ring", ring::main, "20 processes handed on the number 2000\n"),
    (
        "process-selective",
        selective::main,
        "that is all\nurgent: 3\nurgent: 6\nthen: 1\nthen: 2\nthen: 4\nthen: 5\n",
    ),
];

/// Which example is to be run; its words are its own.
const WANTED: &str = "NATIVE_EXAMPLE";

/// The `main` of the example that is to be run.
pub(crate) fn wanted() -> Option<fn() -> ExitCode> {
    let wanted = std::env::var(WANTED).ok()?;
    EXAMPLES.iter().find(|(this, ..)| *this == wanted).map(|(_, main, _)| *main)
}

pub(crate) fn tests() -> Vec<Trial> {
    let run = |(name, _, expected): &'static Example| {
        Trial::test(format!("example::{name}"), move || {
            let output = Command::new("/proc/self/exe").env(WANTED, name).output().unwrap();
            crate::good(&output);
            let said = String::from_utf8(output.stdout).unwrap();
            let mut rest = said.as_str();
            for part in expected.split('*') {
                let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in {said}"));
                rest = &rest[at + part.len()..];
            }
            assert_eq!(rest, "", "{said}");
            Ok(())
        })
    };
    EXAMPLES.iter().map(run).collect()
}
