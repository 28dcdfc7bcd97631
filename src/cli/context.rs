//! What the global words mean: which files, which state directory, how to show things.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{Color, Globals};
use super::client::Client;
use super::failure::Failure;
use super::out;
use crate::spec::{self, Loaded};
use crate::state::StateDir;

/// What a command works with.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
pub(super) struct Context {
    /// The configuration's files, absolute; empty where none was named and none was found.
    pub(super) files: Vec<PathBuf>,
    /// Where the state is.
    pub(super) state: StateDir,
    /// The words that lead another wharf to the same state.
    pub(super) state_words: Vec<String>,
    /// Say nothing but what was asked for.
    pub(super) quiet: bool,
    /// Say more.
    pub(super) verbose: bool,
    /// Colours on standard output.
    pub(super) color: bool,
    /// Colours on standard error.
    pub(super) color_words: bool,
}

/// What the world says: where we are, what is set, which files exist.
struct World<'a> {
    folder: &'a Path,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    exists: &'a dyn Fn(&Path) -> bool,
}

/// The names of a configuration that is not named, in the order of looking.
pub(super) const USUAL: [&str; 2] = ["services.yaml", "services.yml"];
/// Where the system's configuration is.
const SYSTEM: &str = "/etc/wharf/services.yaml";

impl Context {
    /// Understands the global words.
    pub(super) fn new(globals: &Globals) -> Result<Self, Failure> {
        let folder = std::env::current_dir()
            .map_err(|source| Failure::Io { doing: "find the current folder", source })?;
        let world = World {
            folder: &folder,
            variable: &|name| std::env::var_os(name),
            exists: &|path| path.exists(),
        };
        let color = |terminal: bool| colors(globals.color, terminal, world.variable);
        let (files, state, state_words) = places(globals, &world)?;
        Ok(Self {
            files,
            state,
            state_words,
            quiet: globals.quiet,
            verbose: globals.verbose,
            color: color(out::stdout_is_terminal()),
            color_words: color(out::stderr_is_terminal()),
        })
    }

    /// Says something on standard error, unless told to be quiet.
    pub(super) fn say(&self, words: &str) {
        if !self.quiet {
            out::say(words);
        }
    }

    /// Says something on standard error to those who want to know more.
    pub(super) fn say_more(&self, words: &str) {
        if self.verbose {
            out::say(words);
        }
    }

    /// The way to the manager; `command` is what its records say who asked.
    pub(super) fn client(&self, command: &str) -> Result<Client, Failure> {
        self.say_more(&format!("the socket is {}", self.state.socket().display()));
        Client::new(&self.state, command)
    }

    /// Reads the configuration. Warnings go to standard error.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        if self.files.is_empty() {
            return Err(Failure::NoFile);
        }
        let variable = |name: &str| std::env::var(name).ok();
        let loaded = spec::load(&self.files, &variable)?;
        for warning in &loaded.warnings {
            self.say(warning.as_text("warning").trim_end());
        }
        Ok(loaded)
    }
}

/// Whether to use colours.
fn colors(choice: Color, terminal: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let no_color = || variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    // A terminal that obeys nothing shows what it was to obey.
    let dumb = || variable("TERM").is_some_and(|kind| kind == "dumb");
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !no_color() && !dumb(),
    }
}

type Places = (Vec<PathBuf>, StateDir, Vec<String>);

fn places(globals: &Globals, world: &World<'_>) -> Result<Places, Failure> {
    let absolute = |path: &Path| world.folder.join(path);
    let mut files: Vec<_> = globals.files.iter().map(|file| absolute(file)).collect();
    if files.is_empty() {
        let usual = if globals.system {
            vec![PathBuf::from(SYSTEM)]
        } else {
            USUAL.iter().map(|name| absolute(Path::new(name))).collect()
        };
        files.extend(usual.into_iter().find(|file| (world.exists)(file)));
    }
    if globals.system {
        let variable = |name: &str| (world.variable)(name)?.into_string().ok();
        return Ok((files, StateDir::system(variable), vec!["--system".to_owned()]));
    }
    let given = globals.state_dir.clone().or_else(|| {
        let set = (world.variable)("WHARF_STATE_DIR").filter(|value| !value.is_empty());
        set.map(PathBuf::from)
    });
    let beside = || {
        let first = files.first().and_then(|file| file.parent());
        first.unwrap_or(world.folder).join(".wharf")
    };
    let folder = given.map_or_else(beside, |folder| absolute(&folder));
    let Some(text) = folder.to_str() else {
        return Err(Failure::usage("the path of the state directory is not UTF-8"));
    };
    let words = vec!["--state-dir".to_owned(), text.to_owned()];
    Ok((files, StateDir::project(&folder), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(globals: &Globals, set: Option<&str>, there: &[&str], files: &[&str], state: &str) {
        let world = World {
            folder: Path::new("/home/ann/shop"),
            variable: &|name| set.filter(|_| name == "WHARF_STATE_DIR").map(OsString::from),
            exists: &|path| there.iter().any(|file| Path::new(file) == path),
        };
        let (found, place, words) = places(globals, &world).unwrap();
        assert_eq!(found, files.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(place.state, Path::new(state));
        assert!(words.contains(&"--system".to_owned()) == globals.system);
    }

    #[test]
    fn colours_are_for_terminals_that_understand_them() {
        for (choice, terminal, set, expected) in [
            (Color::Auto, true, ("TERM", "xterm"), true),
            (Color::Auto, true, ("TERM", "dumb"), false),
            (Color::Auto, true, ("NO_COLOR", "1"), false),
            (Color::Auto, true, ("NO_COLOR", ""), true),
            (Color::Auto, false, ("TERM", "xterm"), false),
            (Color::Always, false, ("TERM", "dumb"), true),
            (Color::Never, true, ("TERM", "xterm"), false),
        ] {
            let variable = |name: &str| (name == set.0).then(|| OsString::from(set.1));
            assert_eq!(colors(choice, terminal, &variable), expected, "{choice:?} {set:?}");
        }
    }

    #[test]
    fn state_is_beside_the_first_file_unless_said_otherwise() {
        let none = Globals::default();
        let named = |files: &[&str], state: Option<&str>| Globals {
            files: files.iter().map(PathBuf::from).collect(),
            state_dir: state.map(PathBuf::from),
            ..Globals::default()
        };
        let (first, second) = ("/home/ann/shop/services.yaml", "/home/ann/shop/services.yml");
        check(&none, None, &[first, second], &[first], "/home/ann/shop/.wharf");
        check(&none, None, &[second], &[second], "/home/ann/shop/.wharf");
        check(&none, None, &[], &[], "/home/ann/shop/.wharf");
        check(&none, Some(""), &[], &[], "/home/ann/shop/.wharf");
        check(&none, Some("/var/x"), &[first], &[first], "/var/x");
        check(&named(&[], Some("st")), Some("/var/x"), &[], &[], "/home/ann/shop/st");
        let two = named(&["/srv/a.yaml", "b.yaml"], None);
        check(&two, None, &[], &["/srv/a.yaml", "/home/ann/shop/b.yaml"], "/srv/.wharf");
        let system = Globals { system: true, ..Globals::default() };
        check(&system, Some("/var/x"), &[SYSTEM, first], &[SYSTEM], "/var/lib/wharf");
    }
}
