//! What a process uses right now, as /proc tells it: times, memory, threads, descriptors, storage.
//!
//! Each function reads one file; `None` when the process is gone or the file may not be read.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// CPU time, and whose child it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Whether it has ended and only waits to be reaped.
    pub is_zombie: bool,
    /// Its parent.
    pub parent: i32,
    /// Seconds in user mode, of itself and of the children it waited for.
    pub user_s: f64,
    /// Seconds in the kernel, of itself and of the children it waited for.
    pub system_s: f64,
}

/// Memory and threads.
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

/// CPU times. The kernel counts in clock ticks and rounds down.
pub fn times(pid: i32) -> Option<Times> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything, parentheses included.
    let after = text.iter().rposition(|byte| *byte == b')')? + 2;
    let fields: Vec<&[u8]> = text.get(after..)?.split(|byte| *byte == b' ').collect();
    let field = |at: usize| std::str::from_utf8(fields.get(at)?).ok();
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hz| u32::try_from(hz).ok());
    let ticks = f64::from(ticks.unwrap_or(100));
    let number = |at: usize| field(at)?.parse::<f64>().ok();
    let seconds = |one: usize, other: usize| Some((number(one)? + number(other)?) / ticks);
    Some(Times {
        is_zombie: matches!(fields.first()?, [b'Z' | b'X']),
        parent: field(1)?.parse().ok()?,
        // Fields 14 to 17 of proc(5); the first here is its third.
        user_s: seconds(11, 13)?,
        system_s: seconds(12, 14)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::prctl;

    #[test]
    fn this_process_uses_something() {
        let pid = prctl::pid();
        let times = times(pid).unwrap();
        assert!(!times.is_zombie && times.parent == prctl::parent());
        assert!(times.user_s >= 0.0 && times.system_s >= 0.0);
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 1 << 16 && memory.peak >= memory.resident / 2);
        assert!(memory.threads >= 1);
        let open = open_descriptors(pid).unwrap();
        assert!(open >= 3 && open <= descriptor_limit(pid).unwrap());
        assert!(storage(pid).is_some());
        assert_eq!(super::times(i32::MAX), None);
    }
}
