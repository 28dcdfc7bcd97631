//! The library by which `stdbuf` of GNU coreutils has another program write its output line by line.
//!
//! It is found and put into the environment as `stdbuf -oL` does it. It reaches programs that print
//! through the C library's `stdout` and are linked dynamically, and is ignored by all others.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The file's name.
const LIBRARY: &str = "libstdbuf.so";

/// Where distributions have it.
const USUAL: [&str; 5] = [
    "/usr/libexec/coreutils",
    "/usr/lib/coreutils",
    "/usr/lib64/coreutils",
    "/usr/local/libexec/coreutils",
    "/usr/local/lib/coreutils",
];

/// The library is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`unbuffer: stdbuf` needs {LIBRARY} of GNU coreutils, which is in none of {}; `unbuffer: pty` needs nothing",
    looked_in.join(", ")
)]
pub struct NotThere {
    looked_in: Vec<String>,
}

/// Finds the library: in the usual folders, or else beside the `stdbuf` of this `PATH`.
pub fn library(path: &str) -> Result<PathBuf, NotThere> {
    find(USUAL.map(PathBuf::from).into_iter().chain(beside(path)))
}

fn find(folders: impl Iterator<Item = PathBuf>) -> Result<PathBuf, NotThere> {
    let mut looked_in = Vec::new();
    for folder in folders {
        let library = folder.join(LIBRARY);
        if library.is_file() {
            return Ok(library);
        }
        looked_in.push(folder.display().to_string());
    }
    Err(NotThere { looked_in })
}

/// The folders that belong to the first `stdbuf` of a `PATH`.
fn beside(path: &str) -> Vec<PathBuf> {
    let mut programs = path.split(':').map(|folder| Path::new(folder).join("stdbuf"));
    let program = programs.find_map(|program| program.canonicalize().ok());
    let folder = program.as_deref().and_then(Path::parent);
    let inside = ["../libexec/coreutils", "../lib/coreutils", "."];
    folder.map(|folder| inside.map(|inside| folder.join(inside)).into()).unwrap_or_default()
}

/// The environment variables by which it is preloaded, beside what the program preloads already, and told
/// what it is to do.
pub fn variables(library: &Path, preloads: &OsStr) -> [(&'static str, OsString); 2] {
    let mut all = preloads.to_owned();
    if !all.is_empty() {
        all.push(":");
    }
    all.push(library);
    [("LD_PRELOAD", all), ("_STDBUF_O", "L".into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_beside_stdbuf_and_its_absence_says_where_it_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("stdbuf"), "").unwrap();
        let path = format!("/no/such/folder:{}", bin.display());
        let missing = find(beside(&path).into_iter()).unwrap_err();
        assert_eq!(missing.looked_in.len(), 3);
        assert!(missing.to_string().contains("libexec/coreutils"), "{missing}");
        let libexec = root.path().join("libexec/coreutils");
        std::fs::create_dir_all(&libexec).unwrap();
        std::fs::write(libexec.join(LIBRARY), "").unwrap();
        let found = find(beside(&path).into_iter()).unwrap();
        assert_eq!(found.canonicalize().unwrap(), libexec.join(LIBRARY).canonicalize().unwrap());
        assert!(beside("/no/such/folder").is_empty());
    }

    #[test]
    fn what_is_preloaded_already_stays() {
        for (preloads, all) in [("/a.so", "/a.so:/b.so"), ("", "/b.so")] {
            let [preload, mode] = variables(Path::new("/b.so"), OsStr::new(preloads));
            assert_eq!((preload.0, preload.1.to_str()), ("LD_PRELOAD", Some(all)));
            assert_eq!((mode.0, mode.1.to_str()), ("_STDBUF_O", Some("L")));
        }
    }
}
