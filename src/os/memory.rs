//! The C library's allocator: how it is told to stay small.

/// Keeps the heap small for a process with few threads that lives long: one arena instead of one a
/// thread, and memory given back to the kernel early.
pub fn stay_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) may be called at any time; wrong values are ignored.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 * 1024);
    }
}

/// Has the allocator keep what is freed, as far as it goes by what it sees: after the first piece of
/// this size that was freed, the C library's no longer gives the end of its heap back to the kernel as soon
/// as 128 KiB of it are free, but 2 MiB (mallopt(3), `M_MMAP_THRESHOLD`). Before, a stream of messages of
/// 64 KiB spends most of its time in page faults. Nothing is set, so a process that chose otherwise is
/// left as it is; asked once, it does nothing more.
pub fn keep_freed() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20))));
}

/// Gives back what a process that comes to rest does not need: unused heap, and the code that only
/// ran while it started (the pages stay in the page cache; what is needed again is mapped again).
/// Takes about a millisecond.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code_of) {
        // SAFETY: madvise(2) with MADV_DONTNEED on a mapping that is private, never written to and
        // backed by a file: its pages hold what the file holds, before and after.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Address and length of a line of /proc/self/maps, if its pages are as they are in their file: code,
/// and what stands at the file's beginning (constants without relocations). Read-only pages elsewhere
/// may have been relocated (`RELRO`) and are not the file's any more.
fn code_of(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let is_untouched = rights == "r-xp" || (rights == "r--p" && offset == "00000000");
    if !is_untouched || !words.nth(2)?.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    Some((start, usize::from_str_radix(end, 16).ok()?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_files_is_given_back() {
        for (line, expected) in [
            ("5000-7000 r-xp 00001000 fe:00 12 /usr/bin/wharf", Some((0x5000, 0x2000))),
            ("5000-7000 r--p 00000000 fe:00 12 /usr/bin/wharf", Some((0x5000, 0x2000))),
            ("5000-7000 r--p 00001000 fe:00 12 /usr/bin/wharf", None),
            ("5000-7000 rwxp 00001000 fe:00 12 /usr/bin/wharf", None),
            ("5000-7000 r-xp 00000000 00:00 0 [vdso]", None),
            ("5000-7000 r-xp 00000000 00:00 0", None),
        ] {
            assert_eq!(code_of(line), expected, "{line}");
        }
        give_back();
    }
}
