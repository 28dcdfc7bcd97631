//! What living processes and control groups use, as the kernel accounts it: memory, processor time,
//! threads. It reads and adds nothing up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// A process as `/proc/PID/stat` accounts it (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// `R`, `S`, `D`, `Z` …
    pub state: char,
    /// The name the kernel has for it, at most 15 bytes.
    pub name: String,
    /// How many threads it has.
    pub threads: u64,
    /// What of it is in memory, in bytes; pages that several processes share count in each.
    pub resident_bytes: u64,
    /// Processor time of its own, in user mode and in the kernel.
    pub cpu: Duration,
    /// Processor time of children that it has waited for.
    pub children_cpu: Duration,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

/// Looks at one process; `None` when there is none with that number.
pub fn account(pid: i32) -> Option<Account> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &text, unit(SysconfVar::CLK_TCK, 100), unit(SysconfVar::PAGE_SIZE, 4096))
}

fn unit(which: SysconfVar, usual: u64) -> u64 {
    let asked = sysconf(which).ok().flatten();
    asked.and_then(|unit| u64::try_from(unit).ok()).filter(|unit| *unit > 0).unwrap_or(usual)
}

fn parse(pid: i32, text: &[u8], ticks: u64, page: u64) -> Option<Account> {
    // The second field is the name in parentheses and may hold anything, parentheses included.
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(text.get(close + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The third field of the manual page is the first here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let time =
        |field: usize| Some(Duration::from_millis(number(field)?.saturating_mul(1000) / ticks));
    Some(Account {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        name,
        threads: number(20)?,
        resident_bytes: number(24)?.saturating_mul(page),
        cpu: time(14)? + time(15)?,
        children_cpu: time(16)? + time(17)?,
        start: number(22)?,
    })
}

/// What a control group accounts; what its controllers do not tell is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupUsage {
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The most memory that was ever in use, in bytes (kernel 5.19).
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Processor time, that of ended processes included. Without the controller it is told too.
    pub cpu: Option<Duration>,
}

/// Looks at the control group with this folder.
pub fn group(folder: &Path) -> GroupUsage {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse().ok();
    let cpu = read("cpu.stat").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        line.trim().parse().ok().map(Duration::from_micros)
    });
    GroupUsage {
        memory_bytes: number("memory.current"),
        memory_peak_bytes: number("memory.peak"),
        tasks: number("pids.current"),
        cpu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_behind_the_name() {
        let text = b"7 (a) b ( c) S 1 7 7 0 -1 4194560 5 6 0 0 150 50 300 25 20 0 3 0 987 40960 2 18446744073709551615 1 1\n";
        let account = parse(7, text, 100, 4096).unwrap();
        assert_eq!((account.name.as_str(), account.state, account.parent), ("a) b ( c", 'S', 1));
        assert_eq!(account.cpu, Duration::from_secs(2));
        assert_eq!(account.children_cpu, Duration::from_millis(3250));
        assert_eq!((account.threads, account.start, account.resident_bytes), (3, 987, 8192));
        assert_eq!(parse(7, b"7 (cut", 100, 4096), None);
        assert_eq!(parse(7, b"7 (cut) S 1 7", 100, 4096), None);
    }

    #[test]
    fn this_process_is_accounted_for() {
        let me = account(super::super::prctl::pid()).unwrap();
        assert!(me.threads >= 1 && me.resident_bytes > 100_000, "{me:?}");
        assert_eq!(me.parent, super::super::prctl::parent());
    }

    #[test]
    fn a_group_tells_what_its_controllers_know() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(group(folder.path()), GroupUsage::default());
        fs::write(folder.path().join("cpu.stat"), "usage_usec 1500000\nuser_usec 1\n").unwrap();
        fs::write(folder.path().join("memory.current"), "4096\n").unwrap();
        let usage = group(folder.path());
        assert_eq!(usage.cpu, Some(Duration::from_millis(1500)));
        assert_eq!((usage.memory_bytes, usage.tasks), (Some(4096), None));
    }
}
