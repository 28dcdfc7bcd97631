//! The invariants of the house, as tests: floors, purity, where `unsafe` lives, how files open.
//!
//! A rule that is not tested here is a wish. The rules themselves stand in `docs/ARCHITECTURE.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the source should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of every top-level module, in tens; the ones order the rooms of a floor. A module
/// imports only from lower numbers; inside its own folder it may look sideways.
const FLOORS: &[(&str, u32)] = &[
    ("bytes_text", 0),
    ("few", 0),
    ("name", 0),
    ("time", 0),
    ("exit", 1),
    ("message", 10),
    ("spec", 10),
    ("framing", 11),
    ("correlation", 11),
    ("import", 12),
    ("os", 12),
    ("rotation", 13),
    ("event", 20),
    ("mailbox", 30),
    ("supervise", 30),
    ("port", 31),
    ("journal", 31),
    ("output", 31),
    ("forward", 32),
    ("probe", 32),
    ("metrics", 32),
    ("state", 32),
    ("process", 40),
    ("guardian", 50),
    ("manager", 51),
    ("api", 60),
    ("tasks", 60),
    ("cli", 70),
    ("lib", 80),
    ("main", 90),
];

/// Modules that decide: values in, values out.
const DECIDING: &[&str] = &[
    "bytes_text",
    "exit",
    "few",
    "name",
    "time",
    "framing",
    "correlation",
    "message",
    "spec",
    "import",
    "event",
    "mailbox",
    "supervise",
];

/// Files of deciding folders that read what a user wrote, and nothing else.
const READS_FILES: &[&str] = &["src/spec/load.rs"];

/// Words that a deciding file must not contain, and what they would let in.
const WORLD: &[(&str, &str)] = &[
    ("std::fs", "files"),
    ("std::env", "the environment"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("std::net", "sockets"),
    ("tokio", "the reactor"),
    ("nix::", "system calls"),
    ("libc::", "system calls"),
    ("crate::os", "system calls"),
    ("rand::", "chance"),
    ("fastrand", "chance"),
];

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

impl Source {
    /// The text without tests, comments and strings' worth of prose: what the compiler builds in.
    fn code(&self) -> String {
        let built = self.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        built
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_owned();
            let module = path.iter().nth(1).unwrap().to_str().unwrap();
            let module = module.trim_end_matches(".rs").to_owned();
            Source { path, module, text }
        })
        .collect()
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The top-level modules that a source names, by `crate::x` or `wharf::x`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "wharf::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            if rest.starts_with('{') {
                let inside = &rest[1..rest.find('}').unwrap_or(rest.len())];
                for part in inside.split(',') {
                    let word = part.trim().split("::").next().unwrap_or("");
                    found.push(word.to_owned());
                }
            } else {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                found.push(rest[..end.unwrap_or(rest.len())].to_owned());
            }
        }
    }
    found
}

#[test]
fn every_module_stands_on_a_floor_and_imports_only_from_below() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut complaints = Vec::new();
    for source in sources() {
        let Some(&floor) = floors.get(source.module.as_str()) else {
            complaints.push(format!("{} stands on no floor", source.path.display()));
            continue;
        };
        for import in imports(&source.code()) {
            match floors.get(import.as_str()) {
                Some(&below) if below < floor || import == source.module => {}
                Some(&above) => complaints.push(format!(
                    "{} (floor {floor}) imports {import} (floor {above})",
                    source.path.display()
                )),
                None => {}
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn deciding_files_do_not_touch_the_world() {
    let mut complaints = Vec::new();
    for source in sources() {
        let reads = READS_FILES.iter().any(|path| source.path == Path::new(path));
        if !DECIDING.contains(&source.module.as_str()) || reads {
            continue;
        }
        let code = source.code();
        for (word, what) in WORLD {
            if code.contains(word) {
                complaints.push(format!("{} names {what}: {word}", source.path.display()));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn unsafe_lives_in_os_alone_and_every_block_says_why() {
    let mut complaints = Vec::new();
    for source in sources() {
        if source.module == "os" {
            let lines: Vec<_> = source.text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let opens = line.contains("unsafe {") && !line.trim_start().starts_with("//");
                let before = &lines[at.saturating_sub(6)..=at];
                if opens && !before.iter().any(|line| line.contains("SAFETY:")) {
                    complaints.push(format!("{}:{}: no SAFETY", source.path.display(), at + 1));
                }
            }
        } else if source.code().contains("unsafe ") {
            complaints.push(format!("{} has unsafe code", source.path.display()));
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_file_says_what_it_is_for() {
    let complaints: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{} does not open with //!", source.path.display()))
        .collect();
    assert_none(&complaints);
}

#[test]
fn tokio_has_no_process_feature_and_nobody_uses_the_standard_command() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let tokio = manifest.lines().find(|line| line.starts_with("tokio =")).unwrap();
    assert!(!tokio.contains("\"process\"") && !tokio.contains("\"full\""), "{tokio}");
    let complaints: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.code().contains("process::Command"))
        .map(|source| format!("{} names process::Command", source.path.display()))
        .collect();
    assert_none(&complaints);
}

#[test]
fn every_bare_lint_exception_is_an_expectation_with_a_reason() {
    let complaints: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.code().contains("#[allow(") || source.code().contains("#![allow("))
        .map(|source| format!("{} has an #[allow]", source.path.display()))
        .collect();
    assert_none(&complaints);
}

/// The names of the tests of scenarios, `t` and a number, in a text.
fn scenarios(text: &str, before: &str) -> std::collections::BTreeSet<String> {
    let name = |at: usize| {
        let rest = &text[at + before.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let name = &rest[..end];
        let number = name.strip_prefix('t')?.split('_').next()?;
        let is_one = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (is_one && name.contains('_')).then(|| name.to_owned())
    };
    text.match_indices(before).filter_map(|(at, _)| name(at)).collect()
}

#[test]
fn the_list_of_scenarios_and_their_tests_name_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/SCENARIOS.md")).unwrap();
    let listed = scenarios(&page, "`");
    let mut written = std::collections::BTreeSet::new();
    for folder in fs::read_dir(root.join("tests")).unwrap().flatten() {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        let files = files.map(|file| file.path()).chain([folder.path()]);
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "rs")) {
            // What is not run is no test.
            let text = fs::read_to_string(file).unwrap();
            written.extend(scenarios(&text, "#[test]\nfn "));
        }
    }
    let silent: Vec<_> = written.difference(&listed).collect();
    let missing: Vec<_> = listed.difference(&written).collect();
    assert!(silent.is_empty(), "tests that docs/SCENARIOS.md does not list: {silent:?}");
    assert!(missing.is_empty(), "what docs/SCENARIOS.md lists and nobody tests: {missing:?}");
    for line in page.lines().filter(|line| line.starts_with("| T")) {
        let number = line[3..].split(' ').next().unwrap();
        let own = scenarios(line, "`");
        let right = own.iter().all(|name| name[1..].split('_').next() == Some(number));
        assert!(right && !own.is_empty(), "{line}");
    }
    assert!(listed.len() >= 60);
}

/// Records of decisions are referred to by number and name.
#[test]
fn no_two_records_of_decisions_share_a_number_and_what_refers_to_one_finds_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeMap::new();
    let mut texts = Vec::new();
    for entry in fs::read_dir(root.join("docs/adr")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let number: u32 = name[..4].parse().unwrap();
        assert!(text.starts_with(&format!("# {number}. ")), "{name} opens with another number");
        let other = names.insert(number, name.clone());
        assert_eq!(other, None, "{name} has the same number");
        texts.push((path, text));
    }
    assert!(names.keys().copied().eq(1..=u32::try_from(names.len()).unwrap()), "{names:?}");
    for page in ["README.md", "docs/ARCHITECTURE.md", "docs/PROTOCOL.md"] {
        texts.push((page.into(), fs::read_to_string(root.join(page)).unwrap()));
    }
    texts.extend(sources().into_iter().map(|source| (source.path, source.text)));
    let link = regex::Regex::new(r"\[ADR (\d+)\]\((?:adr/)?([^)]+)\)").unwrap();
    let place = regex::Regex::new(r"docs/adr/(\d{4}[^`)\s]*)").unwrap();
    let mut complaints = Vec::new();
    for (path, text) in texts {
        for found in link.captures_iter(&text) {
            if names.get(&found[1].parse().unwrap()).is_none_or(|name| *name != found[2]) {
                complaints.push(format!("{}: {}", path.display(), &found[0]));
            }
        }
        for found in place.captures_iter(&text) {
            if !names.values().any(|name| *name == found[1]) {
                complaints.push(format!("{}: {}", path.display(), &found[0]));
            }
        }
    }
    assert_none(&complaints);
}
