//! The files of a configuration: the only place of this folder that reads any.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::LARGEST_SECRET;
use super::mistake::{Mistakes, Source, meant_instead};
use super::profile::{built_in, built_in_profiles, built_in_readme};
use super::read::{Given, Loaded, World, profile_value, read};
use super::{Contents, Digest};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 16 << 20;
/// How much is looked into for one entry of `config_files`, in bytes, …
const MOST_LOOKED_INTO: u64 = 256 << 20;
/// … and in files of a folder.
const MOST_FILES: usize = 10_000;

/// Reads `files`, a later one laid over those before it, and says everything that is wrong with
/// them at once. `environment` is the environment for `${NAME}`.
///
/// Relative paths start at the folder of the first file. Profiles are looked for in `ports/`
/// beside it, then among those that are compiled in.
pub fn load(
    files: &[PathBuf],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Mistakes> {
    let absolute: Vec<PathBuf> = files
        .iter()
        .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
        .collect();
    let folder = absolute.first().and_then(|file| file.parent()).unwrap_or(Path::new("/"));
    let beside =
        files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).join("ports");
    let ports = folder.join("ports");
    let given = files.iter().map(|file| file_of(file, file.display().to_string())).collect();
    let shown = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
    let world = World {
        environment,
        profile: &|name| profile(&ports, &beside, name),
        profiles: &|| profiles(&ports),
        env_file: &|name| env_file(&folder.join(name), shown.join(name).display().to_string()),
        trouble_with: &trouble_with,
        contents: &contents,
        folder: folder.to_owned(),
        files: absolute.clone(),
    };
    read(given, world)
}

/// Reads one text that is no file, `name` being what it is called in complaints. Profiles are looked
/// for in `ports/` of `folder`, where one is given, then among those that are compiled in.
pub fn load_text(
    name: &str,
    text: String,
    folder: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Mistakes> {
    let ports = folder.map(|folder| folder.join("ports"));
    let world = World {
        environment,
        profile: &|name| match &ports {
            Some(ports) => profile(ports, ports, name),
            None => built_in_profile(name),
        },
        profiles: &|| match &ports {
            Some(ports) => profiles(ports),
            None => built_in_profiles().map(str::to_owned).collect(),
        },
        env_file: &|name| env_file(&folder.unwrap_or(Path::new("/")).join(name), name.to_owned()),
        trouble_with: &trouble_with,
        contents: &contents,
        folder: folder.unwrap_or(Path::new("/")).to_owned(),
        files: Vec::new(),
    };
    let source = Source { name: name.to_owned(), text };
    read(vec![Given { source, refused: None }], world)
}

fn file_of(path: &Path, name: String) -> Given {
    let refused = |text: String, reason: String, offset| Given {
        source: Source { name: name.clone(), text },
        refused: Some((reason, offset)),
    };
    match bytes_of(path) {
        Err(error) => refused(String::new(), format!("cannot be read: {error}"), None),
        Ok(bytes) if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST => {
            let size = crate::time::format_size(LARGEST);
            refused(String::new(), format!("is larger than {size}"), None)
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Given { source: Source { name, text }, refused: None },
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                refused(text, "this is not UTF-8".to_owned(), Some(offset))
            }
        },
    }
}

/// A file of variables; `None` when there is none.
fn env_file(path: &Path, name: String) -> Option<Given> {
    path.try_exists().unwrap_or(true).then(|| file_of(path, name))
}

/// What is said of pipes, devices and folders.
const NO_FILE: &str = "it is no regular file";

/// Why a secret cannot be read, in words. A pipe or a device is not opened: that could wait for ever.
fn trouble_with(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Err(error) => Some(error.to_string()),
        Ok(about) if !about.is_file() => Some(NO_FILE.to_owned()),
        Ok(about) if about.len() > LARGEST_SECRET => {
            Some(format!("it is larger than {}", crate::time::format_size(LARGEST_SECRET)))
        }
        Ok(_) => File::open(path).err().map(|error| error.to_string()),
    }
}

/// What stands in a file or folder that a program reads, or why that is nothing to look into.
fn contents(path: &Path) -> Result<Contents, String> {
    let mut left = MOST_LOOKED_INTO;
    let contents = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::absent(),
        Err(error) => Contents::unreadable(&error.to_string()),
        Ok(about) if about.is_dir() => Contents::Folder(folder_contents(path, &mut left)?),
        Ok(about) if about.is_file() => Contents::File(file_contents(path, &mut left)),
        Ok(_) => return Err("it is neither a file nor a folder".to_owned()),
    };
    if left == 0 {
        let most = crate::time::format_size(MOST_LOOKED_INTO);
        return Err(format!("there is more in it than {most}"));
    }
    Ok(contents)
}

/// The files of a folder and of those below, by their paths from there. What begins with a dot or ends with
/// `~` does not count, being an editor's; a link to a file is that file, a link to a folder is not followed.
fn folder_contents(folder: &Path, left: &mut u64) -> Result<BTreeMap<String, String>, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let entries = match fs::read_dir(folder.join(&below)) {
            Ok(entries) => entries,
            Err(error) => {
                files.insert(below.display().to_string(), format!("unreadable: {error}"));
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b".") || bytes.ends_with(b"~") {
                continue;
            }
            let (path, below) = (entry.path(), below.join(&name));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(below);
            } else if fs::metadata(&path).is_ok_and(|about| about.is_file()) {
                files.insert(below.display().to_string(), file_contents(&path, left));
            }
            if files.len() + folders.len() > MOST_FILES {
                return Err(format!("there are more than {MOST_FILES} files in it"));
            }
        }
    }
    Ok(files)
}

/// The digest of a file, or why it has none; less is left to be looked into afterwards.
fn file_contents(path: &Path, left: &mut u64) -> String {
    let mut digest = Digest::default();
    let mut read = || -> io::Result<u64> {
        let mut file = File::open(path)?.take(*left);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(file.limit()),
                count => digest.add(&buffer[..count]),
            }
        }
    };
    match read() {
        Ok(unread) => {
            *left = unread;
            digest.text()
        }
        Err(error) => format!("unreadable: {error}"),
    }
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A pipe is not opened: that could wait for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other(NO_FILE));
    }
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn profile(ports: &Path, beside: &Path, name: &str) -> Option<Given> {
    let inside = Path::new(name).join("port.yaml");
    let path = ports.join(&inside);
    if path.exists() {
        return Some(file_of(&path, beside.join(&inside).display().to_string()));
    }
    built_in_profile(name)
}

fn built_in_profile(name: &str) -> Option<Given> {
    let text = built_in(name)?.to_owned();
    Some(Given { source: Source { name: format!("ports/{name}/port.yaml"), text }, refused: None })
}

/// A profile as `port: { use: NAME }` finds it.
#[derive(Debug)]
pub struct KnownProfile {
    /// Its name.
    pub name: String,
    /// Its `port.yaml` where it is one of the user's own; absent where it is compiled in.
    pub file: Option<PathBuf>,
    /// The text of its `port.yaml`.
    pub text: String,
    /// The text of its `README.md`, where it has one.
    pub readme: Option<String>,
    /// What its `port.yaml` says, in the shape of `ports/port.schema.json`.
    pub value: Result<Value, Mistakes>,
}

/// The names of the profiles for a configuration whose first file is the first of `files`: those in
/// `ports/` beside it, or in the current folder where there is none, and those that are compiled in.
pub fn profile_names(files: &[PathBuf]) -> Vec<String> {
    profiles(&ports_beside(files))
}

/// The profile of that name, found as [`profile_names`] finds it; else a name that is close to it,
/// where there is one.
pub fn known_profile(files: &[PathBuf], name: &str) -> Result<KnownProfile, Option<String>> {
    let ports = ports_beside(files);
    let names = profiles(&ports);
    // Only what is listed: a name with slashes leads nowhere.
    if !names.iter().any(|known| known == name) {
        let near = meant_instead(name, names.iter().map(String::as_str));
        return Err(near.map(str::to_owned));
    }
    let folder = ports.join(name);
    let file = Some(folder.join("port.yaml")).filter(|file| file.exists());
    let readme = match &file {
        Some(_) => Some(file_of(&folder.join("README.md"), String::new()))
            .filter(|given| given.refused.is_none())
            .map(|given| given.source.text),
        None => built_in_readme(name).map(str::to_owned),
    };
    let given = profile(&ports, &ports, name).ok_or(None)?;
    let text = given.source.text.clone();
    Ok(KnownProfile { name: name.to_owned(), file, text, readme, value: profile_value(given) })
}

fn ports_beside(files: &[PathBuf]) -> PathBuf {
    let first = files.first().and_then(|file| file.parent());
    first.unwrap_or(Path::new("")).join("ports")
}

fn profiles(ports: &Path) -> Vec<String> {
    let mut names: Vec<String> = built_in_profiles().map(str::to_owned).collect();
    let folders = fs::read_dir(ports).into_iter().flatten().flatten();
    names.extend(
        folders
            .filter(|folder| folder.path().join("port.yaml").is_file())
            .map(|folder| folder.file_name().to_string_lossy().into_owned()),
    );
    names.sort();
    names.dedup();
    names
}
