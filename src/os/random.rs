//! Chance: the kernel's random numbers (random(4)).

use std::fs::File;
use std::io::{self, Read as _};

/// A number that nobody can guess.
pub fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
