//! Every profile of `ports/` against the real program: a manager is started with the profile as a
//! service, its `transcript.yaml` is played through the control socket, and the exit record is held
//! against what the transcript says of the end.
//!
//! A test a profile, by its name, made from the folders: adding a profile needs no Rust. Transcripts
//! marked `soak` are played with `WHARF_SOAK=1`. A program that is missing is a failure by name.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests start the binary as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod commands;
mod guide;
mod messages;
mod play;
mod programs;
mod shelf;
#[path = "../blackbox/support.rs"]
#[expect(dead_code, reason = "what these tests share with others is not all theirs")]
mod support;
mod transcript;

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = guide::tests();
    trials.extend(shelf::tests());
    trials.extend(messages::tests());
    trials.extend(commands::tests());
    for name in transcript::names() {
        let loaded = transcript::load(&name);
        // One that cannot be read fails in any case.
        let later = loaded.as_ref().is_ok_and(|transcript| transcript.soak);
        if later && !support::soaking() {
            continue;
        }
        trials.push(Trial::test(format!("speaks::{name}"), move || {
            play::play(&name, &loaded?);
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test by its name; it fails by a panic.
fn test(name: &str, run: fn()) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}
