//! The configuration of each contestant, for the same services.
//!
//! Whatever makes a supervisor wait before it starts a program again is as short as it can be set.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::contest::Peer;

/// What is to be supervised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Services<'a> {
    pub(crate) count: usize,
    /// Whether programs end at once.
    pub(crate) brief: bool,
    /// What else stands in each service of a plain wharf, `PLACE` being the folder.
    pub(crate) extra: Option<&'a str>,
    pub(crate) program: &'a str,
    /// The named pipe on which programs say that they have started.
    pub(crate) stamps: &'a str,
}

/// services.yaml. `folder` takes the files that it names.
pub(crate) fn wharf(peer: Peer, folder: &Path, services: Services<'_>) -> String {
    fs::write(folder.join("variables"), "RUST_LOG=info\n").unwrap();
    fs::write(folder.join("secret"), "what nobody sees\n").unwrap();
    match peer {
        Peer::Full => full(folder, services, ""),
        // Not its processors: in version 1 the kernel lets nobody with real-time priority into such a group.
        Peer::Limited => full(folder, services, "memory: 64MiB, pids: 20, "),
        _ => plain(folder, services),
    }
}

/// A row of failures ends sooner than a round, so that every restart is a first one; and no number of
/// restarts is too many, because restarts are what is measured.
const RESTART: &str = "restart: { policy: always, reset_after: 50ms, delay: 1us, max_delay: 1us, \
     max_restarts: 1000000, within: 1s }";

fn plain(folder: &Path, services: Services<'_>) -> String {
    let Services { count, extra, program, stamps, .. } = services;
    let word = if extra.is_some() { ", ready" } else { "" };
    let extra = extra.filter(|extra| !extra.is_empty()).map(|extra| format!(", {extra}"));
    let extra = extra.unwrap_or_default().replace("PLACE", folder.to_str().unwrap());
    (1..=count).fold(format!("defaults: {{ {RESTART} }}\nservices:\n"), |mut text, number| {
        let _ = writeln!(text, "  s{number}: {{ command: [{program}, {stamps}{word}]{extra} }}");
        text
    })
}

/// Ready by a line, asked for its health, limited, in a group, in an order, with a socket, hooks, secrets,
/// variables of a file, an identity, a log that is rotated, and kept by the guardian. `limits` are further
/// ones. The order is left out where programs end at once: what a service waits for would never be there.
/// `oom_score_adj` is left out too, since it takes a fork; `features.rs` tells what that costs.
fn full(folder: &Path, services: Services<'_>, limits: &str) -> String {
    let Services { count, brief, program, stamps, .. } = services;
    let place = folder.display();
    let quiet = Path::new(program).with_file_name("child");
    let quiet = quiet.display();
    let mut text = format!(
        "on_event: {{ exec: [{quiet}], events: [give_up, oom_killed], timeout: 10s }}
defaults:
  {RESTART}
  ready: {{ log_line: ^ready$ }}
  healthcheck: {{ exec: [{quiet}], interval: 1m }}
  limits: {{ {limits}nofile: 256, core: 0 }}
  env_file: {place}/variables
  secrets: [{{ name: token, file: {place}/secret }}]
  on_manager_exit: keep
  logging: {{ max_size: 1MiB, max_files: 3, compress: true }}
  umask: \"027\"
  nice: 0
  no_new_privileges: true
services:
  nightly: {{ command: [{quiet}], schedule: {{ cron: \"0 3 1 1 *\" }}, restart: no, ready: {{ log_line: never }} }}
"
    );
    for number in 1..=count {
        let socket = format!("@{place}/{number}");
        let _ = write!(
            text,
            "  s{number}: {{ command: [{program}, {stamps}, ready], listen: [{{ name: s, unix: \"{socket}\" }}]"
        );
        // A tree, each node of which waits for the one above.
        if number > 1 && !brief {
            let _ = write!(text, ", depends_on: [s{}]", number / 2);
        }
        text.push_str(" }\n");
    }
    let names: Vec<_> = (1..=count).map(|number| format!("s{number}")).collect();
    let names = names.join(", ");
    let _ = writeln!(
        text,
        "groups:\n  all: {{ services: [{names}], strategy: one_for_one, max_restarts: 1000000, within: 1s }}"
    );
    text
}

/// A folder of services for runit, daemontools and s6: in each a `run`, a script whose interpreter is the
/// program itself, so that no shell stands in between.
pub(crate) fn folders(folder: &Path, Services { count, program, stamps, .. }: Services<'_>) {
    for number in 1..=count {
        let service = folder.join(format!("s{number}"));
        fs::create_dir_all(&service).unwrap();
        let run = service.join("run");
        fs::write(&run, format!("#!{program} {stamps}\n")).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// supervisord.conf; `listener` is a command that is told of ends.
pub(crate) fn supervisord(
    folder: &Path,
    Services { count, program, stamps, .. }: Services<'_>,
    listener: Option<&str>,
) -> String {
    let place = folder.display();
    let mut text = format!(
        "[supervisord]\nnodaemon=true\nlogfile={place}/supervisord.log\npidfile={place}/pid\n\
         childlogdir={place}\nminfds=4096\nuser=root\n"
    );
    if let Some(command) = listener {
        let _ = write!(
            text,
            "[eventlistener:follower]\ncommand={command}\nevents=PROCESS_STATE_EXITED\n"
        );
    }
    for number in 1..=count {
        let _ = write!(
            text,
            "[program:s{number}]\ncommand={program} {stamps}\nautorestart=true\nstartsecs=0\n\
             startretries=1000000\n"
        );
    }
    text
}

/// circus.ini. What circus does by itself it does every tenth of a second here, and every five otherwise.
pub(crate) fn circus(
    folder: &Path,
    Services { count, program, stamps, .. }: Services<'_>,
) -> String {
    let place = folder.display();
    let mut text = format!(
        "[circus]\ncheck_delay = 0.1\nendpoint = ipc://{place}/endpoint\n\
         pubsub_endpoint = ipc://{place}/pubsub\n"
    );
    for number in 1..=count {
        let _ = write!(
            text,
            "[watcher:s{number}]\ncmd = {program}\nargs = {stamps}\nwarmup_delay = 0\n"
        );
    }
    text
}

/// pm2's list of applications.
pub(crate) fn pm2(Services { count, program, stamps, .. }: Services<'_>) -> String {
    let apps: Vec<_> = (1..=count)
        .map(|number| {
            serde_json::json!({
                "name": format!("s{number}"),
                "script": program,
                "args": [stamps],
                "interpreter": "none",
                "exec_mode": "fork",
                "restart_delay": 0,
                "min_uptime": 0,
                "max_restarts": 1_000_000_000,
            })
        })
        .collect();
    serde_json::json!({ "apps": apps }).to_string()
}
