//! What living processes and control groups use, as the kernel accounts it: processor time, memory,
//! threads, descriptors, storage. Each function reads one file, or one folder, and adds nothing up;
//! `None` when the process is gone or the file may not be read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::procfs;

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
    /// Processor time of its own.
    pub cpu: Cpu,
    /// Processor time of children that it has waited for.
    pub children_cpu: Cpu,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

/// Processor time. The kernel counts in clock ticks and rounds down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl Cpu {
    /// Both together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

/// Memory and threads, as `/proc/PID/status` tells them (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident now, in bytes.
    pub resident: u64,
    /// The most that was ever resident, in bytes.
    pub peak: u64,
    /// Threads.
    pub threads: u64,
}

/// Bytes from and to storage, of itself and of the children it waited for (proc(5), `/proc/PID/io`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Storage {
    /// Fetched from storage.
    pub read: u64,
    /// Sent to storage.
    pub written: u64,
}

/// Looks at one process; `None` when there is none with that number.
pub fn account(pid: i32) -> Option<Account> {
    let text = procfs::stat_text(pid)?;
    parse(pid, &text, unit(SysconfVar::CLK_TCK, 100), unit(SysconfVar::PAGE_SIZE, 4096))
}

fn unit(which: SysconfVar, usual: u64) -> u64 {
    let asked = sysconf(which).ok().flatten();
    asked.and_then(|unit| u64::try_from(unit).ok()).filter(|unit| *unit > 0).unwrap_or(usual)
}

fn parse(pid: i32, text: &[u8], ticks: u64, page: u64) -> Option<Account> {
    let (name, fields) = procfs::stat_fields(text)?;
    let fields: Vec<&str> = fields.map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    // The third field of the manual page is the first here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let time =
        |field: usize| Some(Duration::from_millis(number(field)?.saturating_mul(1000) / ticks));
    Some(Account {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        name: String::from_utf8_lossy(name).into_owned(),
        threads: number(20)?,
        resident_bytes: number(24)?.saturating_mul(page),
        cpu: Cpu { user: time(14)?, system: time(15)? },
        children_cpu: Cpu { user: time(16)?, system: time(17)? },
        start: number(22)?,
    })
}

/// Memory and threads. A zombie has neither.
pub fn memory(pid: i32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |key: &str| number(key).unwrap_or(0) * 1024;
    Some(Memory {
        resident: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
        threads: number("Threads:").unwrap_or(0),
    })
}

/// A process's share of memory, in bytes: pages that several processes share count in each by the share
/// it has of them (proc(5), `smaps_rollup`). The kernel walks through all its memory for this: some
/// milliseconds a GiB, so never on the loop.
pub fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Bytes from and to storage.
pub fn storage(pid: i32) -> Option<Storage> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let number =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    Some(Storage { read: number("read_bytes:")?, written: number("write_bytes:")? })
}

/// How many descriptors it has open.
pub fn open_descriptors(pid: i32) -> Option<u64> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|entries| entries.count() as u64)
}

/// How many descriptors it may have open (the soft limit).
pub fn descriptor_limit(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
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
        let cpu = |user, system| Cpu {
            user: Duration::from_millis(user),
            system: Duration::from_millis(system),
        };
        assert_eq!(account.cpu, cpu(1500, 500));
        assert_eq!(account.children_cpu, cpu(3000, 250));
        assert_eq!(account.children_cpu.total(), Duration::from_millis(3250));
        assert_eq!((account.threads, account.start, account.resident_bytes), (3, 987, 8192));
        assert_eq!(parse(7, b"7 (cut", 100, 4096), None);
        assert_eq!(parse(7, b"7 (cut) S 1 7", 100, 4096), None);
    }

    #[test]
    fn this_process_is_accounted_for() {
        let pid = super::super::prctl::pid();
        let me = account(pid).unwrap();
        assert!(me.threads >= 1 && me.resident_bytes > 100_000, "{me:?}");
        assert_eq!(me.parent, super::super::prctl::parent());
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 1 << 16 && memory.peak >= memory.resident / 2);
        assert!(memory.threads >= 1);
        let share = proportional(pid).unwrap();
        assert!(share > 1 << 16 && share <= memory.peak, "{share}");
        let open = open_descriptors(pid).unwrap();
        assert!(open >= 3 && open <= descriptor_limit(pid).unwrap());
        assert!(storage(pid).is_some());
        assert_eq!(super::account(i32::MAX), None);
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
