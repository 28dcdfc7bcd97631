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

/// How many times a listing is tried while files are being renamed under it; the last one is taken
/// as it is.
const LISTINGS: u32 = 4;

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
    /// rename and compress them.
    pub(crate) fn members(&self) -> io::Result<Vec<Member>> {
        for _ in 1..LISTINGS {
            let (members, moved) = self.open_all()?;
            if !moved {
                return Ok(members);
            }
        }
        Ok(self.open_all()?.0)
    }

    /// Opens one file after the other, by ascending numbers: since files only ever move to a higher
    /// number, none that stays is missed. What was met a second time has moved meanwhile, and its
    /// later place is the right one beside what is met after it.
    fn open_all(&self) -> io::Result<(Vec<Member>, bool)> {
        let mut members: Vec<(Member, Identity)> = Vec::new();
        let (mut number, mut moved) = (0, false);
        loop {
            let last = self.entries()?.last().map_or(0, |entry| entry.0);
            if number > last {
                return Ok((members.into_iter().map(|(member, _)| member).collect(), moved));
            }
            while number <= last {
                if let Some(member) = self.open_at(number)? {
                    let identity = member.identity()?;
                    let same = |(held, known): &(Member, Identity)| {
                        held.ino == member.ino || known.is_same(&identity)
                    };
                    if let Some(at) = members.iter().position(same) {
                        moved = true;
                        members.remove(at);
                    }
                    members.push((member, identity));
                }
                number += 1;
            }
        }
    }

    /// The file with this number. Where somebody else's `gzip -k` left a copy beside the original, the
    /// original counts.
    fn open_at(&self, number: u32) -> io::Result<Option<Member>> {
        let paths = if number == 0 {
            vec![self.current()]
        } else {
            vec![self.older(number, Form::Plain), self.older(number, Form::Packed)]
        };
        for path in paths {
            match Member::open(number, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
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
                // A damaged file is known by what is left of it.
                let _ = packed.by_ref().take(limit).read_to_end(&mut head);
                packed.header().and_then(|header| parse_mark(header.comment()?)).unwrap_or((0, 0))
            }
        };
        Ok(Self { ino, born, head })
    }

    /// Whether both are the same file, of which one may have grown since.
    fn is_same(&self, other: &Self) -> bool {
        (self.ino, self.born) == (other.ino, other.born)
            && self.ino != 0
            && (self.head.starts_with(&other.head) || other.head.starts_with(&self.head))
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
    fn a_listing_beside_a_writer_that_rotates_all_the_time_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let family = Family::new(dir.path(), "x.log");
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..300 {
                    fs::write(family.current(), format!("{number:04}")).unwrap();
                    family.rotate(1_000).unwrap();
                }
                over.store(true, std::sync::atomic::Ordering::Release);
            });
            while !over.load(std::sync::atomic::Ordering::Acquire) {
                let members = family.members().unwrap();
                let shown: Vec<u32> = members
                    .into_iter()
                    .filter_map(|member| {
                        let mut text = String::new();
                        member.into_reader().read_to_string(&mut text).unwrap();
                        // The youngest may be empty still.
                        text.parse().ok()
                    })
                    .collect();
                let first = shown.first().map_or(0, |first| first + 1);
                assert_eq!(shown, (0..first).rev().collect::<Vec<_>>());
            }
        });
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
