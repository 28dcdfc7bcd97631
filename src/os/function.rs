//! Functions as numbers that another process of the same executable understands.
//!
//! An executable is put at another address each time, as a whole: the distance between two of its functions stays.

use std::ffi::{c_int, c_void};

/// What distances are measured from. Not inlined, so that there is one.
#[inline(never)]
fn base() -> usize {
    let own: fn() -> usize = base;
    own as *const () as usize
}

/// The distance of a function, given as its address, from a fixed one of this executable; `None` where it
/// is not in the executable itself but in a library.
pub fn offset(function: usize) -> Option<i64> {
    is_own(function).then(|| function.wrapping_sub(base()).cast_signed() as i64)
}

/// The function at this distance, as a function pointer of the type `F`; `None` where the executable has
/// no code there.
///
/// The caller vouches that `offset` was made by [`offset`], of a function of the type `F`, in a process of the
/// same executable.
pub fn find<F: Copy + 'static>(offset: i64) -> Option<F> {
    const {
        assert!(size_of::<F>() == size_of::<usize>(), "a function pointer is one word");
    }
    let offset = isize::try_from(offset).ok()?;
    let address = base().wrapping_add_signed(offset);
    // SAFETY: a function pointer is one word, checked above, and by the caller's word there is a function of
    // that type at the address.
    is_own(address).then(|| unsafe { std::mem::transmute_copy::<usize, F>(&address) })
}

/// The only value of a type that has but one, such as the type of a function, or of a closure that
/// captures nothing.
///
/// The caller vouches that somebody had such a value and meant it to be used here.
pub fn only_value<F: Copy + 'static>() -> F {
    const {
        assert!(size_of::<F>() == 0, "a function that runs in another process captures nothing");
    }
    // SAFETY: it has no bytes, so there is nothing to initialise, and by the caller's word it is inhabited.
    unsafe { std::mem::zeroed() }
}

/// Whether an address is in the code of the executable.
fn is_own(address: usize) -> bool {
    struct Search {
        address: usize,
        found: bool,
    }
    unsafe extern "C" fn first(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr(3) hands a valid object whose headers are mapped, and our own pointer.
        let (object, search) = unsafe { (&*object, &mut *search.cast::<Search>()) };
        for at in 0..usize::from(object.dlpi_phnum) {
            // SAFETY: within the number of headers.
            let part = unsafe { &*object.dlpi_phdr.add(at) };
            let code = part.p_type == libc::PT_LOAD && part.p_flags & libc::PF_X != 0;
            let start = word(object.dlpi_addr).wrapping_add(word(part.p_vaddr));
            let inside = search.address.wrapping_sub(start) < word(part.p_memsz);
            search.found |= code && inside;
        }
        // The executable is the first one; the libraries behind it are not looked at.
        1
    }
    let mut search = Search { address, found: false };
    // SAFETY: the callback is as the manual page has it, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut search).cast()) };
    search.found
}

/// An address or size of the loader's as the machine counts.
fn word(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(number: u8) -> u8 {
        number * 2
    }

    #[test]
    fn a_function_is_found_by_its_distance() {
        let pointer: fn(u8) -> u8 = double;
        let distance = offset(pointer as *const () as usize).unwrap();
        let found: fn(u8) -> u8 = find(distance).unwrap();
        assert_eq!(found(21), 42);
    }

    #[test]
    fn what_is_no_code_of_ours_is_refused() {
        assert_eq!(offset(libc::getpid as *const () as usize), None, "it is in a library");
        assert_eq!(offset((&raw const base_data).addr()), None);
        assert!(find::<fn()>(i64::MAX).is_none());
    }

    #[expect(non_upper_case_globals, reason = "it stands for any data")]
    static base_data: u8 = 0;

    #[test]
    fn a_closure_without_captures_is_made_of_nothing() {
        fn again<F: Fn() -> u8 + Copy + 'static>(_: F) -> u8 {
            only_value::<F>()()
        }
        assert_eq!(again(|| 7), 7);
    }
}
