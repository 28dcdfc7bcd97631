//! The files that belong together: `name`, `name.1`, `name.2.gz` …, the higher the older.
//!
//! Renaming is the only thing that is done to them here. Numbers may have a gap: that is what a
//! process killed between two renames leaves, and the next rotation closes it.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::bufread::{GzDecoder, MultiGzDecoder};

/// How many times a listing is repeated while files are being renamed under it.
const LISTINGS: u32 = 8;

/// How many bytes of its beginning tell a file from its siblings.
const HEAD: usize = 128;

/// The first two bytes of a gzip file (RFC 1952). No line that is written begins with them.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A current file and its older ones.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    dir: PathBuf,
    name: String,
}

/// How a file holds its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// Compressed with gzip.
    Packed,
}

/// What stays the same about a file when it is renamed and when it is compressed.
///
/// The inode's number alone would not do: file systems give it to the next file at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    ino: u64,
    born: u128,
    head: Vec<u8>,
}

/// One opened file of a family.
#[derive(Debug)]
pub(crate) struct Member {
    /// 0 for the current file.
    pub(crate) number: u32,
    /// The file; only ever read at given places, so that copies of the descriptor do not disturb.
    pub(crate) file: File,
    /// By its first bytes, not by its name.
    pub(crate) form: Form,
    ino: u64,
}

impl Family {
    /// The family whose current file is `dir/name`.
    pub(crate) fn new(dir: &Path, name: impl Into<String>) -> Self {
        Self { dir: dir.to_owned(), name: name.into() }
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that is written to.
    pub(crate) fn current(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// The path of an older file.
    pub(crate) fn older(&self, number: u32, form: Form) -> PathBuf {
        self.dir.join(match form {
            Form::Plain => format!("{}.{number}", self.name),
            Form::Packed => format!("{}.{number}.gz", self.name),
        })
    }

    /// Where a compressed file grows before it gets its number.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.dir.join(format!("{}.gz.tmp", self.name))
    }

    /// The older files that exist, youngest first; the form is that of the name.
    pub(crate) fn entries(&self) -> io::Result<Vec<(u32, Form)>> {
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in listing {
            if let Some(numbered) = entry?.file_name().to_str().and_then(|name| self.number(name)) {
                found.push(numbered);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn number(&self, file_name: &str) -> Option<(u32, Form)> {
        let rest = file_name.strip_prefix(&self.name)?.strip_prefix('.')?;
        let (digits, form) = match rest.strip_suffix(".gz") {
            Some(digits) => (digits, Form::Packed),
            None => (rest, Form::Plain),
        };
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        Some((digits.parse().ok().filter(|_| plain)?, form))
    }

    /// Every file of the family, opened, youngest first. Each is there once, also while others
    /// rename them.
    pub(crate) fn members(&self) -> io::Result<Vec<Member>> {
        let mut members = self.open_all()?;
        for _ in 1..LISTINGS {
            let seen: Vec<_> = members.iter().map(|member| (member.number, member.ino)).collect();
            let again = self.open_all()?;
            let stable = again.iter().map(|member| (member.number, member.ino)).eq(seen);
            members = again;
            if stable {
                break;
            }
        }
        Ok(members)
    }

    fn open_all(&self) -> io::Result<Vec<Member>> {
        let mut members: Vec<Member> = Vec::new();
        let older = self.entries()?.into_iter().map(|(n, form)| (n, self.older(n, form)));
        for (number, path) in std::iter::once((0, self.current())).chain(older) {
            match Member::open(number, &path) {
                // Somebody else's `gzip -k` leaves a copy beside the original; the original counts.
                Ok(member) => {
                    let twice = |held: &Member| held.ino == member.ino || held.number == number;
                    if number == 0 || !members.iter().any(twice) {
                        members.push(member);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(members)
    }

    /// Renames every file one number up and the current one to `.1`, so that at most `keep` older
    /// ones exist. Killed in between it leaves a gap and loses nothing but what was to go anyway.
    pub(crate) fn rotate(&self, keep: u32) -> io::Result<()> {
        self.prune(keep)?;
        if keep == 0 {
            return gone_is_fine(fs::remove_file(self.current()));
        }
        let entries = self.entries()?;
        let taken = |number| entries.iter().any(|entry| entry.0 == number);
        let free = (1..=keep).find(|number| !taken(*number)).unwrap_or(keep);
        for &(number, form) in entries.iter().rev() {
            if number == free {
                gone_is_fine(fs::remove_file(self.older(number, form)))?;
            } else if number < free {
                fs::rename(self.older(number, form), self.older(number + 1, form))?;
            }
        }
        gone_is_fine(fs::rename(self.current(), self.older(1, Form::Plain)))
    }

    /// Removes the older files whose number is greater than `keep`.
    pub(crate) fn prune(&self, keep: u32) -> io::Result<()> {
        for (number, form) in self.entries()? {
            if number > keep {
                gone_is_fine(fs::remove_file(self.older(number, form)))?;
            }
        }
        Ok(())
    }
}

impl Member {
    /// Opens one file and looks whether it is compressed.
    pub(crate) fn open(number: u32, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let ino = file.metadata()?.ino();
        let mut first = [0; 2];
        let packed = file.read_at(&mut first, 0)? == 2 && first == GZIP;
        Ok(Self { number, form: if packed { Form::Packed } else { Form::Plain }, file, ino })
    }

    /// The same open file once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, ..*self })
    }

    /// What it is known by after renaming and compressing.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Identity::of(&self.file, self.form)
    }

    /// Its lines from the first on.
    pub(crate) fn into_reader(self) -> Box<dyn BufRead + Send> {
        self.into_reader_from(0)
    }

    /// What stands in the file from `place` on; of a compressed file only 0 makes sense.
    pub(crate) fn into_reader_from(self, place: u64) -> Box<dyn BufRead + Send> {
        let file = At { file: self.file, place };
        match self.form {
            Form::Plain => Box::new(BufReader::with_capacity(1 << 16, file)),
            Form::Packed => {
                let packed = MultiGzDecoder::new(BufReader::new(file));
                Box::new(BufReader::with_capacity(1 << 16, packed))
            }
        }
    }
}

impl Identity {
    /// The identity of an open file.
    pub(crate) fn of(file: &File, form: Form) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD);
        let whole = At { file: file.try_clone()?, place: 0 };
        let limit = HEAD as u64;
        let (ino, born) = match form {
            Form::Plain => {
                whole.take(limit).read_to_end(&mut head)?;
                birth(&file.metadata()?)
            }
            Form::Packed => {
                let mut packed = GzDecoder::new(BufReader::new(whole));
                packed.by_ref().take(limit).read_to_end(&mut head)?;
                packed.header().and_then(|header| parse_mark(header.comment()?)).unwrap_or((0, 0))
            }
        };
        Ok(Self { ino, born, head })
    }

    /// What is written into a compressed file so that it is known to be this one.
    pub(crate) fn mark(&self) -> String {
        format!("{} {}", self.ino, self.born)
    }

    /// Whether the file with these data is this one and not compressed.
    pub(crate) fn is_plain(&self, metadata: &Metadata) -> bool {
        (self.ino, self.born) == birth(metadata)
    }
}

fn parse_mark(comment: &[u8]) -> Option<(u64, u128)> {
    let (ino, born) = std::str::from_utf8(comment).ok()?.split_once(' ')?;
    Some((ino.parse().ok()?, born.parse().ok()?))
}

/// The inode's number and when it was made, in nanoseconds; 0 where the file system does not say.
fn birth(metadata: &Metadata) -> (u64, u128) {
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    (metadata.ino(), born.map_or(0, |since| since.as_nanos()))
}

/// Whether `path` names the file that `file` is.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(named) => {
            let held = file.metadata()?;
            Ok((named.dev(), named.ino()) == (held.dev(), held.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a file from a place of its own, leaving the descriptor's offset alone.
struct At {
    file: File,
    place: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.place)?;
        self.place += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(family: &Family, number: u32, form: Form, text: &str) {
        fs::write(family.older(number, form), text).unwrap();
    }

    fn shown(family: &Family) -> Vec<(u32, String)> {
        let read = |member: Member| {
            let number = member.number;
            let mut text = String::new();
            member.into_reader().read_to_string(&mut text).unwrap();
            (number, text)
        };
        family.members().unwrap().into_iter().map(read).collect()
    }

    #[test]
    fn rotation_closes_a_gap_before_it_drops_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let family = Family::new(dir.path(), "x.log");
        fs::write(family.current(), "now").unwrap();
        put(&family, 1, Form::Plain, "one");
        put(&family, 3, Form::Plain, "three");
        family.rotate(3).unwrap();
        let pairs = [(1, "now"), (2, "one"), (3, "three")].map(|(n, t)| (n, t.to_owned()));
        assert_eq!(shown(&family), pairs);
        fs::write(family.current(), "later").unwrap();
        family.rotate(3).unwrap();
        let pairs = [(1, "later"), (2, "now"), (3, "one")].map(|(n, t)| (n, t.to_owned()));
        assert_eq!(shown(&family), pairs);
        family.rotate(1).unwrap();
        assert_eq!(shown(&family), [], "with nothing current the last one is dropped all the same");
    }

    #[test]
    fn only_members_of_the_family_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let family = Family::new(dir.path(), "a.1.log");
        for name in
            ["a.1.log.1", "a.1.log.12.gz", "a.1.log.01", "a.1.log.x", "a.1.log.gz.tmp", "a.1.log1"]
        {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::write(dir.path().join("aa.1.log.1"), "").unwrap();
        assert_eq!(family.entries().unwrap(), [(1, Form::Plain), (12, Form::Packed)]);
    }
}
