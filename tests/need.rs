//! `scripts/need` installs what the tests need and leaves nothing running or switched on. In a mount
//! namespace with a package manager that only writes down what it is asked, so that this machine stays
//! as it is.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "the script is started as make does")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Stands in for the package manager: says whether a package's daemon might start now.
const APT_GET: &str = r#"#!/bin/sh
echo "apt-get $*" >>"$LOG"
[ "$1" = install ] || exit 0
policy=0
/usr/sbin/policy-rc.d prometheus start || policy=$?
echo "policy $policy" >>"$LOG"
exit "${FAILS:-0}"
"#;

const DPKG: &str = "#!/bin/sh\nprintf '%s\\n' /usr/bin/$2 /etc/init.d/$2d /etc/default/$2\n";

const UPDATE_RC_D: &str = "#!/bin/sh\necho \"update-rc.d $*\" >>\"$LOG\"\n";

fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the script as root of a namespace of its own, in which `/usr/sbin` is empty but for what
/// `before` puts there; returns whether it succeeded, what was asked of the system, and what is left.
fn need(before: &str, words: &str, fails: &str) -> (bool, String, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("apt-get", APT_GET), ("dpkg", DPKG), ("update-rc.d", UPDATE_RC_D)] {
        program(folder.path(), name, text);
    }
    let (log, left) = (folder.path().join("asked"), folder.path().join("left"));
    fs::write(&log, "").unwrap();
    let script = format!(
        "mount -t tmpfs none /usr/sbin && {{ {before}; }} || exit 99
         result=0; scripts/need {words} || result=$?
         for file in /usr/sbin/*; do [ -e \"$file\" ] && {{ echo \"$file\"; cat \"$file\"; }}; done >{}
         exit $result",
        left.display()
    );
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .envs([("PATH", path.as_str()), ("LOG", log.to_str().unwrap()), ("FAILS", fails)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() != Some(99), "no namespace: {said}");
    let read = |path| fs::read_to_string(path).unwrap();
    (output.status.success(), read(&log), read(&left))
}

const INSTALLED: &str = "apt-get update -qq
apt-get install -y -qq --no-install-recommends quarks quirks
policy 101
update-rc.d quarksd disable
update-rc.d quirksd disable
";

#[test]
fn no_daemon_is_started_now_or_later() {
    let (good, asked, left) = need("true", "sh:dash quark:quarks quirk:quirks", "0");
    assert!(good);
    assert_eq!((asked.as_str(), left.as_str()), (INSTALLED, ""));
}

#[test]
fn a_policy_of_somebody_else_is_put_back_also_after_a_failure() {
    let own = "echo mine >/usr/sbin/policy-rc.d";
    let back = "/usr/sbin/policy-rc.d\nmine\n";
    let (good, asked, left) = need(own, "quark:quarks quirk:quirks", "0");
    assert!(good);
    assert_eq!((asked.as_str(), left.as_str()), (INSTALLED, back));
    let (good, asked, left) = need(own, "quark:quarks", "7");
    assert!(!good);
    assert!(asked.ends_with("policy 101\n"), "{asked}");
    assert_eq!(left, back);
}

#[test]
fn what_is_there_is_not_installed_again() {
    let (good, asked, left) = need("true", "sh:dash cat:coreutils", "0");
    assert!(good);
    assert_eq!((asked.as_str(), left.as_str()), ("", ""));
}
