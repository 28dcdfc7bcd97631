//! What /proc tells: start times, parents, sessions, environments, this boot.

use std::fs;
use std::io;
use std::time::Duration;

use crate::time::Tick;

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: i32,
    /// `R`, `S`, `D`, `Z` …
    pub state: u8,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// When it started, in clock ticks since boot: with the boot id and the number, its identity.
    pub start: u64,
}

impl Stat {
    /// Whether it has ended and only waits to be reaped.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Looks at one process; `None` when there is none with that number.
pub fn stat(pid: i32) -> Option<Stat> {
    let text = stat_text(pid)?;
    let (_, mut fields) = stat_fields(&text)?;
    let state = *fields.next()?.first()?;
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<i64>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // Fields 7 to 21 lie between the session and the start time.
    let start = (7..=22).map(|_| number()).last()??;
    let small = |number: i64| i32::try_from(number).unwrap_or(0);
    Some(Stat {
        pid,
        state,
        parent: small(parent),
        group: small(group),
        session: small(session),
        start: u64::try_from(start).unwrap_or(0),
    })
}

/// The content of `/proc/PID/stat`.
pub(super) fn stat_text(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/stat")).ok()
}

/// Its second field, the name, without the parentheses, and the fields from the third on.
pub(super) fn stat_fields(text: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    // The name may hold anything, parentheses and spaces included.
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let rest = text.get(close + 2..)?.trim_ascii_end();
    Some((text.get(open + 1..close)?, rest.split(|byte| *byte == b' ')))
}

/// Whether a process runs and nobody has killed it: it is no zombie, and no `SIGKILL` waits for it.
pub fn is_untouched(pid: i32) -> bool {
    standing(pid).is_some_and(|(state, killed)| !matches!(state, b'Z' | b'X') && !killed)
}

/// Whether something holds a process that somebody has killed: it sleeps uninterruptibly, or is frozen,
/// and `SIGKILL` waits; or whoever traces it does not let it end (ptrace(2), `PTRACE_O_TRACEEXIT`).
fn is_held(pid: i32) -> bool {
    standing(pid).is_some_and(|(state, killed)| (state == b'D' && killed) || state == b't')
}

/// The state of a process, and whether a `SIGKILL` waits for it.
fn standing(pid: i32) -> Option<(u8, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let kill = 1_u64 << (libc::SIGKILL - 1);
    let waiting =
        |key: &str| field(key).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let state = *field("State:")?.as_bytes().first()?;
    Some((state, (waiting("SigPnd:") | waiting("ShdPnd:")) & kill != 0))
}

/// How long the same processes must have been held before they are not waited for.
const HELD: Duration = Duration::from_millis(500);

/// Tells processes that take a while to die from those that are held.
#[derive(Debug, Default)]
pub struct Stuck {
    same: Option<(Vec<i32>, Tick)>,
}

impl Stuck {
    /// Whether each of these, all of which were killed, is held where it is, and has been for a while.
    pub fn for_good(&mut self, mut pids: Vec<i32>, now: Tick) -> bool {
        pids.sort_unstable();
        if pids.is_empty() || !pids.iter().copied().all(is_held) {
            self.same = None;
            return false;
        }
        match &self.same {
            Some((same, since)) if *same == pids => now.since(*since) >= HELD,
            Some(_) | None => {
                self.same = Some((pids, now));
                false
            }
        }
    }
}

/// Every process there is.
pub fn all() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            found.extend(stat(pid));
        }
    }
    Ok(found)
}

/// The children of this process, of whichever of its threads. It takes a kernel that lists them
/// (`CONFIG_PROC_CHILDREN`).
pub fn children() -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        match fs::read_to_string(task.join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().flat_map(str::parse::<i32>)),
            // Not that thread's, if it has ended meanwhile: they are another's then.
            Err(_) if !task.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// One variable of a process's environment as it was at its start; `None` when there is none or it
/// may not be read.
pub fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// The paths of the control groups that a process is in, one of each hierarchy; empty when it is gone.
pub fn groups(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    text.lines().filter_map(path).collect()
}

/// The file a process executes; `None` when it may not be read or the process is gone.
pub fn executable(pid: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// What a process calls itself (comm); `None` when the process is gone.
pub fn name(pid: i32) -> Option<String> {
    let text = stat_text(pid)?;
    let (name, _) = stat_fields(&text)?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// A process's arguments; empty when they may not be read or the process is gone.
pub fn arguments(pid: i32) -> Vec<Vec<u8>> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// What a process's descriptors refer to; a file that was removed has ` (deleted)` behind its path.
/// Empty when they may not be read or the process is gone.
pub fn open_files(pid: i32) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// The mask of file modes of this process, which can be asked for without changing it only here.
pub fn own_umask() -> Option<u32> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let mask = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}

/// The kernel's random number of this boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The machine's host name.
pub fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found() {
        let me = stat(super::super::prctl::pid()).unwrap();
        assert_eq!(me.parent, super::super::prctl::parent());
        assert!(me.start > 0 && !me.is_zombie());
        assert!(all().unwrap().iter().any(|other| other.pid == me.pid && other.start == me.start));
        assert!(boot_id().len() > 30);
        assert!(own_umask().is_some_and(|mask| mask <= 0o777));
    }

    #[test]
    fn children_are_listed_where_the_kernel_keeps_a_list() {
        let me = super::super::prctl::pid();
        let keeps = std::path::Path::new("/proc/thread-self/children").exists();
        match children() {
            Ok(listed) => {
                let own = |pid: &i32| stat(*pid).is_none_or(|child| child.parent == me);
                assert!(keeps && listed.iter().all(own), "{listed:?}");
            }
            Err(error) => assert!(!keeps && error.kind() == io::ErrorKind::NotFound, "{error}"),
        }
    }
}
