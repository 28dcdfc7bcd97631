//! Where control groups are mounted, of either version, and where this process is in each.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The mounts of control groups, as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchies(Vec<Hierarchy>);

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// The controllers of a mount of version 1; none for version 2, which tells them itself.
    controllers: Option<Vec<String>>,
    /// The folder of this process's own group.
    own: PathBuf,
}

impl Hierarchies {
    /// Reads /proc.
    pub(super) fn read() -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("cannot read the mounts: {error}"))?;
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Ok(Self::parse(&mounts, &groups))
    }

    /// Understands the texts of `/proc/self/mountinfo` and `/proc/PID/cgroup` (proc(5), cgroups(7)).
    pub(super) fn parse(mounts: &str, groups: &str) -> Self {
        let hierarchies = mounts.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut kind = after.split(' ');
            let version = kind.next()?;
            let options = kind.nth(1).unwrap_or_default();
            let mut fields = before.split(' ').skip(3);
            let (root, mount) = (unescaped(fields.next()?), unescaped(fields.next()?));
            let controllers = match version {
                "cgroup2" => None,
                "cgroup" => Some(options.split(',').map(str::to_owned).collect::<Vec<_>>()),
                _ => return None,
            };
            let own = groups.lines().find_map(|line| own_path(line, controllers.as_deref()));
            let own = below(Path::new(&mount), Path::new(&root), Path::new(own.unwrap_or("/")));
            Some(Hierarchy { controllers, own })
        });
        Self(hierarchies.collect())
    }

    /// The folder of this process's own group in version 2: where that may be written to, if it is
    /// mounted several times.
    pub(super) fn v2_own(&self) -> Option<&Path> {
        let mut all = self.0.iter().filter(|one| one.controllers.is_none());
        let writable = |one: &&Hierarchy| access(&one.own, AccessFlags::W_OK).is_ok();
        let found = all.clone().find(writable).or_else(|| all.next());
        found.map(|found| found.own.as_path())
    }

    /// The folder of this process's own group in the hierarchy of version 1 that has a controller.
    pub(super) fn v1_own(&self, controller: &str) -> Option<&Path> {
        let has = |one: &&Hierarchy| {
            one.controllers.as_ref().is_some_and(|all| all.iter().any(|name| name == controller))
        };
        self.0.iter().find(has).map(|found| found.own.as_path())
    }
}

/// The path in a line of `/proc/PID/cgroup`, if it is that of this hierarchy.
fn own_path<'l>(line: &'l str, controllers: Option<&[String]>) -> Option<&'l str> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (names, path) = (fields.next()?, fields.next()?);
    let is_it = match controllers {
        None => names.is_empty(),
        Some(controllers) => {
            !names.is_empty() && names.split(',').all(|name| controllers.iter().any(|c| c == name))
        }
    };
    is_it.then_some(path)
}

/// The folder of the group `own` where only what is below `root` can be seen, at `mount`.
fn below(mount: &Path, root: &Path, own: &Path) -> PathBuf {
    match own.strip_prefix(root) {
        Ok(rest) => mount.join(rest),
        // Outside of what is mounted (a container that sees its host's paths): the top is all there is.
        Err(_) => mount.to_owned(),
    }
}

/// A path as mountinfo writes it: blanks and backslashes are three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[3..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "24 1 0:22 / /proc rw - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /pods/a /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
";
    const GROUPS: &str = "4:memory:/pods/a/x\n1:cpu,cpuacct:/\n1:name=systemd:/y\n0::/user.slice\n";

    #[test]
    fn each_hierarchy_is_found_with_our_own_place_in_it() {
        let found = Hierarchies::parse(HYBRID, GROUPS);
        assert_eq!(found.v2_own().unwrap(), Path::new("/sys/fs/cgroup/unified/user.slice"));
        assert_eq!(found.v1_own("memory").unwrap(), Path::new("/sys/fs/cgroup/mem ory/x"));
        assert_eq!(found.v1_own("cpu").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.v1_own("pids"), None);
    }

    #[test]
    fn of_several_mounts_the_one_that_can_be_written_to_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let mounts = format!(
            "1 0 0:1 / /no/such/mount ro - cgroup2 none ro\n2 0 0:1 / {path} rw - cgroup2 none rw\n"
        );
        assert_eq!(Hierarchies::parse(&mounts, "0::/\n").v2_own().unwrap(), folder.path());
    }

    #[test]
    fn a_place_that_cannot_be_seen_is_the_top_of_what_can() {
        let found = Hierarchies::parse(HYBRID, "4:memory:/../other\n0::/../..\n");
        assert_eq!(found.v1_own("memory").unwrap(), Path::new("/sys/fs/cgroup/mem ory"));
        assert_eq!(
            Hierarchies::parse("24 1 0:22 / /proc rw - proc proc rw\n", ""),
            Hierarchies(vec![])
        );
    }
}
