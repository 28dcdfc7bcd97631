//! Memory: how a process that lives long stays small.

use std::fs;

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

/// Gives unused heap back to the kernel; worth a call after something large was freed.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the code and the constants of the program that were needed so far. What is needed again
/// comes back from the kernel's cache by itself; most of what a start needs is never needed again.
pub fn forget_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: madvise(2) on a private mapping of a file that nobody has ever been able to write
        // to: its pages are the file's, so to forget them changes no byte that anybody can read.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Where a line of `/proc/self/maps` is about pages of a program that are as they are in its file:
/// their start and length. That is executable code, and what stands before it, from the file's first
/// byte on. Read-only pages elsewhere may have been relocated (`RELRO`) and are not the file's any more.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).ok());
    let (start, end) = (start?, end?);
    let (rights, offset) = (fields.next()?, fields.next()?);
    let is_untouched = rights == "r-xp" || rights == "r--p" && offset == "00000000";
    let is_file = fields.nth(2)?.starts_with('/');
    (is_untouched && is_file).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_forgotten() {
        for (line, range) in [
            ("1000-3000 r-xp 0018 fe:00 123  /usr/bin/wharf", Some((0x1000, 0x2000))),
            ("1000-3000 r--p 00000000 fe:00 123  /usr/bin/wharf", Some((0x1000, 0x2000))),
            ("1000-3000 r--p 00180000 fe:00 123  /usr/bin/wharf", None),
            ("1000-3000 rw-p 00000000 fe:00 123  /usr/bin/wharf", None),
            ("1000-3000 rwxp 0018 fe:00 123  /usr/bin/wharf", None),
            ("1000-3000 r-xp 0000 00:00 0    [vdso]", None),
            ("1000-3000 r-xp 0000 00:00 0", None),
            ("", None),
        ] {
            assert_eq!(code(line), range, "{line}");
        }
    }

    #[test]
    fn the_code_comes_back() {
        let before = "forgotten".to_owned();
        forget_code();
        assert_eq!(format!("{before} and remembered"), "forgotten and remembered");
    }
}
