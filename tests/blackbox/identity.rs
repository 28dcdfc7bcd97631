//! Who a program is: user, groups, priorities and rights. What an ordinary user may not ask for is
//! tested beside the limits.

use std::fs;

use crate::support::{Wharf, at, text};

/// What `id` says of a user, as sorted numbers.
fn groups_of(user: &str) -> Vec<u32> {
    let said = std::process::Command::new("id").args(["-G", user]).output().unwrap();
    let mut groups: Vec<u32> =
        text(&said.stdout).split_whitespace().map(|word| word.parse().unwrap()).collect();
    groups.sort_unstable();
    groups
}

/// Somebody else who is in as many groups as anybody here.
fn joiner() -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let names = users.lines().filter_map(|line| line.split(':').next());
    names
        .filter(|name| *name != "root")
        .max_by_key(|name| groups_of(name).len())
        .unwrap()
        .to_owned()
}

const ASK: &str = "id -u; id -g; id -G; umask; nice; cat /proc/self/oom_score_adj; echo $USER $HOME; \
                   stat -L -c %u /dev/fd/1; echo again > /dev/stdout; grep -E '^(Cap|NoNew)' /proc/self/status";

#[test]
fn a_program_is_who_it_is_declared_to_be() {
    if !nix::unistd::geteuid().is_root() {
        // Only root may become somebody; that others are refused is tested beside the limits.
        let wharf = Wharf::up("services:\n  s: { command: 'true', user: root, restart: no }\n");
        let record = wharf.wait_records("s", 1).remove(0);
        assert_eq!(at(&record, "exit.reason"), "setup_failed");
        return;
    }
    let user = joiner();
    let wharf = Wharf::foreground(&format!(
        "services:
  s:
    command: [sh, -c, \"{ASK}\"]
    working_dir: /
    user: '{user}'
    group_add: [daemon, 4242]
    umask: '0027'
    nice: -3
    oom_score_adj: 321
    no_new_privileges: true
    cap_drop: [ALL]
    restart: no
  added: {{ command: [id, -G], group_add: [4242], restart: no }}
"
    ));
    let record = wharf.wait_records("s", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record} {}", wharf.logs("s"));
    let said = wharf.logs("s");
    let lines: Vec<&str> = said.lines().filter_map(|line| line.split(" | ").last()).collect();
    let own = nix::unistd::User::from_name(&user).unwrap().unwrap();
    assert_eq!(lines[0], own.uid.to_string(), "{said}");
    assert_eq!(lines[1], own.gid.to_string(), "{said}");
    let mut groups: Vec<u32> = lines[2].split(' ').map(|group| group.parse().unwrap()).collect();
    groups.sort_unstable();
    let mut expected = groups_of(&user);
    expected.extend([1, 4242]);
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(groups, expected, "those of the user, and those that were added");
    assert_eq!(&lines[3..6], ["0027", "-3", "321"], "{said}");
    assert_eq!(lines[6], format!("{user} {}", own.dir.display()));
    assert_eq!(lines[7], own.uid.to_string(), "the pipe is its own");
    assert_eq!(lines[8], "again", "so it may be opened anew");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(said.contains(&format!("{set}:\t0000000000000000")), "{said}");
    }
    assert!(said.contains("NoNewPrivs:\t1"), "{said}");
    // A child that has a priority of its own shares nothing with us.
    for pid in [wharf.manager_pid(), wharf.guardian_pid()] {
        let adjustment = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(adjustment, ours);
    }
    wharf.wait_records("added", 1);
    let added = wharf.logs("added");
    let mut groups: Vec<u32> = added
        .trim()
        .rsplit(" | ")
        .next()
        .unwrap()
        .split(' ')
        .map(|group| group.parse().unwrap())
        .collect();
    groups.sort_unstable();
    assert!(groups.contains(&4242) && groups.contains(&0), "{added}");
}

/// Root without its capabilities is refused what an ordinary user is, and cannot get them back.
#[test]
fn dropped_capabilities_are_gone_for_good() {
    if !nix::unistd::geteuid().is_root() {
        let wharf =
            Wharf::up("services:\n  s: { command: 'true', cap_drop: [ALL], restart: no }\n");
        assert_eq!(at(&wharf.wait_records("s", 1)[0], "exit.stage"), "privileges");
        return;
    }
    let wharf = Wharf::new(
        "defaults: { restart: no }
services:
  chown: { command: [chown, '1', file], cap_drop: [CHOWN] }
  bare: { command: [sh, -c, 'setpriv --reuid 1 true || echo refused; grep CapBnd /proc/self/status'], cap_drop: [ALL] }
  kept: { command: [sh, -c, 'chown 1 file && echo done'], cap_drop: [NET_RAW, CAP_SYS_ADMIN] }
",
    );
    fs::write(wharf.folder.join("file"), "").unwrap();
    wharf.ok(&["up", "-d"]);
    let record = wharf.wait_records("bare", 1).remove(0);
    assert_eq!(at(&record, "exit.reason"), "completed", "{record}");
    let said = wharf.logs("bare");
    assert!(said.contains("refused") && said.contains("CapBnd:\t0000000000000000"), "{said}");
    for (service, code) in [("chown", 1), ("kept", 0)] {
        let record = wharf.wait_records(service, 1).remove(0);
        assert_eq!(at(&record, "process.exit.code"), code, "{service}: {record}");
    }
}
