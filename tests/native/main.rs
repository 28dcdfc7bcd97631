//! Native processes as they are: this binary is the program whose functions run as processes.
//!
//! A test runs a **scene**, a function of this binary, in a first process of its own, started as a user would start a
//! program. The scene checks what it sees from the inside and ends with code 0; the test looks from the outside.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "a test starts programs")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod endings;
mod examples;
mod family;
mod lives;
mod mailbox;
mod messages;
mod tasks;

use std::process::{Command, ExitCode, Output};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use wharf::process::Program;

/// A function that is the first process of a program.
type Scene = fn();

/// Every scene, by the name of its test.
fn scenes() -> Vec<(&'static str, Scene)> {
    let mut scenes = endings::scenes();
    scenes.extend(family::scenes());
    scenes.extend(lives::scenes());
    scenes.extend(mailbox::scenes());
    scenes.extend(messages::scenes());
    scenes.extend(tasks::scenes());
    scenes
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("scene" | "wharf-native-process") => {}
        _ => {
            // The tests themselves are no program of processes.
            return examples::wanted().map_or_else(tests, |main| main());
        }
    }
    let program = Program::new().function("double.v1", lives::double);
    program.run(|| {
        let wanted = words.get(2).cloned().unwrap_or_default();
        let scene = scenes().into_iter().find(|(name, _)| *name == wanted);
        let (_, scene) = scene.unwrap_or_else(|| panic!("there is no scene {wanted:?}"));
        scene();
    })
}

fn tests() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = scenes()
        .into_iter()
        .filter(|(name, _)| !family::is_seen_from_outside(name))
        .map(|(name, _)| {
            Trial::test(name, move || {
                let output = play(name).output().unwrap();
                good(&output);
                Ok(())
            })
        })
        .collect();
    trials.extend(family::tests());
    trials.extend(examples::tests());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The command that plays a scene.
pub(crate) fn play(scene: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["scene", scene]).env("RUST_BACKTRACE", "0");
    command
}

/// A scene must have ended well.
pub(crate) fn good(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
}

/// How many times a repeated thing is done: `whole` in a soak, a twentieth of it otherwise.
pub(crate) fn times(whole: usize) -> usize {
    if std::env::var_os("WHARF_SOAK").is_some() { whole } else { (whole / 20).max(1) }
}

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
