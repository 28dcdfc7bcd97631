//! Lines of a file from the last to the first, without reading what comes before them.
//!
//! It reads at given places only and holds little more than one line.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memrchr;

/// How much is read at once.
const BLOCK: u64 = 1 << 16;

/// Something that can be read at any place.
#[derive(Debug)]
pub(crate) enum Text {
    /// A file.
    File(File),
    /// What was a compressed file.
    Memory(Vec<u8>),
}

impl Text {
    fn read_exact_at(&self, buffer: &mut [u8], place: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, place),
            Self::Memory(bytes) => {
                let from = usize::try_from(place).map_err(io::Error::other)?;
                let held = bytes.get(from..from + buffer.len());
                buffer.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// Walks backwards over lines.
#[derive(Debug)]
pub(crate) struct Backward<'a> {
    text: &'a Text,
    /// `held` is what stands at `start`; it is empty or its last byte ends a line.
    start: u64,
    held: Vec<u8>,
}

impl<'a> Backward<'a> {
    /// Walks over what stands before `end`, which must be the beginning of a line.
    pub(crate) fn new(text: &'a Text, end: u64) -> Self {
        Self { text, start: end, held: Vec::new() }
    }

    /// The line before, without its LF, and the place where it begins.
    pub(crate) fn line(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let body = self.held.len().saturating_sub(1);
            if let Some(before) = memrchr(b'\n', &self.held[..body]) {
                let line = self.held[before + 1..body].to_vec();
                self.held.truncate(before + 1);
                return Ok(Some((self.start + before as u64 + 1, line)));
            }
            if self.start == 0 {
                if self.held.is_empty() {
                    return Ok(None);
                }
                let mut line = std::mem::take(&mut self.held);
                line.truncate(body);
                return Ok(Some((0, line)));
            }
            // Doubling keeps one very long line from being copied again and again.
            let more = BLOCK.max(self.held.len() as u64).min(self.start);
            let mut block = vec![0; usize::try_from(more).map_err(io::Error::other)?];
            self.text.read_exact_at(&mut block, self.start - more)?;
            self.start -= more;
            block.append(&mut self.held);
            self.held = block;
        }
    }
}

/// The place after the last LF among the first `len` bytes; 0 where there is none.
pub(crate) fn end_of_lines(file: &File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut block = vec![0; usize::try_from(BLOCK.min(len)).map_err(io::Error::other)?];
    while end > 0 {
        let size = BLOCK.min(end);
        let part = &mut block[..usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact_at(part, end - size)?;
        if let Some(at) = memrchr(b'\n', part) {
            return Ok(end - size + at as u64 + 1);
        }
        end -= size;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_last_first_whatever_their_length() {
        let long = "x".repeat(300_000);
        let lines = ["first", "", "second", &long, "", "last"];
        let text: String = lines.join("\n") + "\n";
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        io::Write::write_all(&mut file, b"torn").unwrap();
        let end = end_of_lines(&file, file.metadata().unwrap().len()).unwrap();
        assert_eq!(end, text.len() as u64);
        for source in [Text::File(file), Text::Memory(text.clone().into_bytes())] {
            let mut backward = Backward::new(&source, end);
            let mut found = Vec::new();
            while let Some((place, line)) = backward.line().unwrap() {
                let from = usize::try_from(place).unwrap();
                assert_eq!(&text.as_bytes()[from..from + line.len()], line);
                found.push(String::from_utf8(line).unwrap());
            }
            found.reverse();
            assert_eq!(found, lines);
        }
    }
}
