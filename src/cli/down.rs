//! `wharf down`: stop everything and wait until nothing of it is left.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use clap::Args;

use super::client::{Client, Question, ends_within, guardian_of, parse};
use super::context::Context;
use super::failure::{Failure, OK};
use crate::event::State;
use crate::exit::Signal;
use crate::manager::{ManagerStatus, ReplicaStatus};
use crate::os::signal::{self, open_pidfd};

/// How long a shutdown may take before the waiting is explained.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the explanation is looked at again.
const LOOK: Duration = Duration::from_secs(1);
/// How many names a line has.
const NAMED: usize = 10;

/// Stop everything and the manager itself; returns when all of it is gone
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf down
  wharf down -q && rm -r .wharf")]
pub(super) struct Down {}

impl Down {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let Self {} = self;
        let client = context.client("down")?;
        let manager: ManagerStatus = match client.get("/v1/manager") {
            Ok(manager) => manager,
            Err(failure @ Failure::Unreachable { .. }) => {
                let guardian = guardian_of(&context.state);
                if let Some(guardian) = guardian.as_ref().filter(|_| is_cut_off(context)) {
                    return end_by_signal(context, guardian);
                }
                // A guardian whose manager does not come back is no reason to say that all is well.
                if guardian.is_some() || failure.words().contains("may not") {
                    return Err(failure);
                }
                context.say("nothing runs");
                return Ok(OK);
            }
            Err(failure) => return Err(failure),
        };
        // Opened before the request, so that the numbers are still theirs.
        let guardian = open_pidfd(manager.guardian_pid).ok();
        let mut life = (manager.pid, open_pidfd(manager.pid).ok());
        match client.ask(Question::post("/v1/shutdown", "")) {
            Ok(_) | Err(Failure::Broken(_) | Failure::Unreachable { .. }) => {}
            Err(failure) => return Err(failure),
        }
        let mut patience = PATIENCE;
        let mut told = String::new();
        while !gone(guardian.as_ref(), patience)? {
            patience = LOOK;
            explain(&client, context, &mut told);
            insist(&client, &mut life)?;
        }
        gone(life.1.as_ref(), LOOK)?;
        Ok(OK)
    }
}

/// Whether the socket was removed, by hand or with all of the state directory: nothing will ever
/// answer there.
fn is_cut_off(context: &Context) -> bool {
    let looked = context.state.socket().symlink_metadata();
    looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Ends what cannot be asked any more.
fn end_by_signal(context: &Context, guardian: &OwnedFd) -> Result<u8, Failure> {
    context.say("its socket was removed: it is sent SIGTERM");
    signal::send(guardian.as_fd(), Signal::TERM)
        .map_err(|source| Failure::Io { doing: "signal the guardian", source })?;
    while !gone(Some(guardian), PATIENCE)? {}
    Ok(OK)
}

/// Whether a process has ended, after waiting for it; one that cannot be opened is gone already.
fn gone(process: Option<&OwnedFd>, limit: Duration) -> Result<bool, Failure> {
    process.map_or(Ok(true), |process| ends_within(process, limit))
}

/// Says who is still being stopped, when that has changed.
fn explain(client: &Client, context: &Context, told: &mut String) {
    let Ok(reply) = client.ask_now(Question::get("/v1/services")) else { return };
    let Ok(replicas) = parse::<Vec<ReplicaStatus>>(&reply.body) else { return };
    let words = waiting_for(&replicas);
    if !words.is_empty() && words != *told {
        context.say(&words);
        *told = words;
    }
}

fn waiting_for(replicas: &[ReplicaStatus]) -> String {
    let is_held = |one: &&ReplicaStatus| !one.state.is_resting() && one.pid.is_some();
    let mut held: Vec<_> = replicas.iter().filter(is_held).collect();
    held.sort_by_key(|replica| replica.state != State::Unkillable);
    let mut names: Vec<_> = held
        .iter()
        .take(NAMED)
        .map(|replica| {
            let name = format!("{}/{}", replica.service, replica.replica);
            let pid = replica.pid.unwrap_or_default();
            match replica.state {
                State::Unkillable => format!("{name} (pid {pid}, killed and still there)"),
                _ => format!("{name} (pid {pid})"),
            }
        })
        .collect();
    if held.len() > NAMED {
        names.push(format!("and {} more", held.len() - NAMED));
    }
    if names.is_empty() { String::new() } else { format!("waiting for {}", names.join(", ")) }
}

/// A manager that died during the shutdown has a successor that knows nothing of it.
fn insist(client: &Client, life: &mut (i32, Option<OwnedFd>)) -> Result<(), Failure> {
    if !gone(life.1.as_ref(), Duration::ZERO)? {
        return Ok(());
    }
    let Ok(reply) = client.ask_now(Question::get("/v1/manager")) else { return Ok(()) };
    let manager: ManagerStatus = parse(&reply.body)?;
    if manager.pid != life.0 {
        *life = (manager.pid, open_pidfd(manager.pid).ok());
        if !manager.shutting_down {
            let _ = client.ask_now(Question::post("/v1/shutdown", ""));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::{replica, some};
    use super::*;

    #[test]
    fn who_holds_up_a_shutdown_is_named() {
        assert_eq!(waiting_for(&[replica("a", 1, State::Stopped)]), "");
        let mut all = some();
        all.push(replica("ghost", 1, State::Unkillable));
        assert_eq!(
            waiting_for(&all),
            "waiting for ghost/1 (pid 4242, killed and still there), db/1 (pid 4242), \
             web/2 (pid 4242), batch/1 (pid 4242)"
        );
        let many: Vec<_> = (1..=12).map(|number| replica("web", number, State::Stopping)).collect();
        assert!(waiting_for(&many).ends_with("web/10 (pid 4242), and 2 more"));
    }
}
