//! Compressing an older log file, on any thread, so that a crash at any moment leaves each line once.
//!
//! The compressed file grows under a temporary name, takes the place of the uncompressed one in one
//! rename, and gets its `.gz` in a second. Between the two a file has the wrong name but the right
//! bytes, and readers go by the bytes. So there are never two files of one number.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

use super::files::remove;
use crate::name::ReplicaId;
use crate::rotation::{Family, Form, Identity, Member};

/// The work of compressing one older file.
#[must_use = "until its result is finished no other file of the replica is compressed"]
#[derive(Debug)]
pub struct CompressJob {
    id: ReplicaId,
    member: Member,
    identity: Identity,
    temporary: PathBuf,
}

/// The result of a [`CompressJob`], for [`LogFiles::finish`](super::LogFiles::finish).
#[must_use = "until it is finished no other file of the replica is compressed"]
#[derive(Debug)]
pub struct Compressed {
    id: ReplicaId,
    identity: Identity,
    temporary: PathBuf,
    result: io::Result<()>,
}

impl CompressJob {
    pub(super) fn new(id: ReplicaId, files: &Family, number: u32) -> io::Result<Self> {
        let member = Member::open(number, &files.older(number, Form::Plain))?;
        Ok(Self { id, identity: member.identity()?, member, temporary: files.temporary() })
    }

    /// Whose file it is.
    pub fn id(&self) -> &ReplicaId {
        &self.id
    }

    /// Does the work; takes about a tenth of a second for 10 MiB.
    pub fn run(self) -> Compressed {
        let result = pack(self.member, &self.identity, &self.temporary);
        Compressed { id: self.id, identity: self.identity, temporary: self.temporary, result }
    }
}

impl Compressed {
    pub(super) fn id(&self) -> &ReplicaId {
        &self.id
    }

    /// Renames; the number is looked up now, since the file may have been renamed meanwhile, or may
    /// be gone because newer ones took all numbers.
    pub(super) fn install(self, files: &Family) -> io::Result<()> {
        let placed = self.result.and_then(|()| {
            for (number, form) in files.entries()? {
                let path = files.older(number, form);
                if form == Form::Plain && self.identity.is_plain(&fs::metadata(&path)?) {
                    fs::rename(&self.temporary, &path)?;
                    return fs::rename(&path, files.older(number, Form::Packed));
                }
            }
            Ok(())
        });
        let removed = remove(&self.temporary);
        placed.and(removed)
    }
}

fn pack(member: Member, identity: &Identity, temporary: &Path) -> io::Result<()> {
    if member.form == Form::Packed {
        return Err(io::Error::other("it is compressed already"));
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o640).open(temporary)?;
    let mut packed = GzBuilder::new().comment(identity.mark()).write(file, Compression::default());
    io::copy(&mut member.into_reader(), &mut packed)?;
    let file: File = packed.finish()?;
    // The lines are about to lose their other copy.
    file.sync_all()
}

/// Removes what was being compressed when everything ended; the uncompressed file is whole.
pub fn discard_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(UNFINISHED)) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// How the name ends of what is being compressed.
const UNFINISHED: &str = ".log.gz.tmp";

/// Puts in order what a crash left: temporary files go, compressed ones get their name.
pub(super) fn recover(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(UNFINISHED) {
            remove(&path)?;
        } else if let Some((log, number)) = name.rsplit_once('.')
            && log.rsplit_once('.').is_some_and(|(_, extension)| extension == "log")
            && number.parse::<u32>().is_ok()
            && Member::open(0, &path)?.form == Form::Packed
        {
            fs::rename(&path, path.with_file_name(format!("{name}.gz")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_being_compressed_at_the_end_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["web.1.log", "web.1.log.1", "web.1.log.gz.tmp", "web.1.log.2.gz"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        discard_unfinished(folder.path()).unwrap();
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["web.1.log", "web.1.log.1", "web.1.log.2.gz"]);
    }
}
