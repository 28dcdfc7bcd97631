//! Lines of which an earlier life of the manager wrote pieces only: who died with it goes on with none
//! of them, and the next run must not seem to.
//!
//! It reads the end of a file and writes nothing itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{PIECE, cut_off};
use super::line::Parser;
use super::{Source, Stream};

/// How far back is looked, in bytes: room for a whole piece of each stream.
const FAR: u64 = 2 * (PIECE as u64 + 64);

/// Appends to `owed` an end for each stream whose last line among the first `size` bytes of `file` is
/// a piece. `owed` is the end of the file's last line, where that was torn.
pub(super) fn unfinished(file: &File, size: u64, owed: &mut Vec<u8>) -> io::Result<()> {
    let start = size.saturating_sub(FAR);
    let mut bytes = vec![0; usize::try_from(size - start).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    let mut parser = Parser::default();
    let mut seen = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').rev() {
        let Some(head) = parser.head(line) else { continue };
        if let Source::Program(stream) = head.source
            && !seen.contains(&stream)
        {
            seen.push(stream);
            if head.partial {
                cut_off(head.at, stream, owed);
            }
            if seen.len() == [Stream::Stdout, Stream::Stderr].len() {
                break;
            }
        }
    }
    Ok(())
}
