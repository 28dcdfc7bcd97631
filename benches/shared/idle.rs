//! What processes cost while nothing happens: memory and wake-ups, as procfs accounts for them.

use std::fs;

/// The proportional set size of these processes together, in KiB.
pub(crate) fn memory(pids: &[i32]) -> f64 {
    let kib = pids.iter().map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        field(&text, "Pss:")
    });
    let kib = u32::try_from(kib.sum::<u64>()).unwrap();
    f64::from(kib)
}

/// How often the threads of these processes have waited for something until now.
pub(crate) fn switches(pids: &[i32]) -> u64 {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    let counts = threads.map(|thread| {
        let text = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        field(&text, "voluntary_ctxt_switches:")
    });
    counts.sum()
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.split_whitespace().next().unwrap().parse().unwrap()
}
