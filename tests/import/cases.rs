//! The configurations, one folder each.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wharf::import::{ImportError, Imported, Order, World, import};
use wharf::spec;

use crate::stand_in::Stage;
use crate::support::{Place, SET, compare, until};

/// Files of a case that are not the configuration's.
const OURS: &[&str] = &["args", "ends", "losses.txt", "services.yaml", "started.txt"];
/// What a program has without its configuration saying so.
const GIVEN: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "WHARF_INCARNATION",
    "WHARF_SERVICE",
    "WHARF_REPLICA",
];

fn each_case(format: &str, least: usize) {
    let mut cases: Vec<PathBuf> = fs::read_dir(Path::new("tests/import").join(format))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= least, "{format} has {} cases", cases.len());
    let only = std::env::var("WHARF_CASE").unwrap_or_default();
    for case in cases.iter().filter(|case| case.to_str().unwrap().contains(&only)) {
        let checked = std::panic::catch_unwind(|| Case::new(case).check());
        assert!(checked.is_ok(), "{}: see above", case.display());
    }
}

#[test]
fn procfiles() {
    each_case("procfile", 10);
}

#[test]
fn supervisord_files() {
    each_case("supervisord", 10);
}

#[test]
fn compose_files() {
    each_case("compose", 10);
}

#[test]
fn process_compose_files() {
    each_case("process-compose", 10);
}

#[test]
fn systemd_units() {
    each_case("systemd", 10);
}

#[test]
fn pm2_lists() {
    each_case("pm2", 3);
}

struct Case {
    source: PathBuf,
    place: Place,
    ends: BTreeSet<String>,
}

impl Case {
    fn new(source: &Path) -> Self {
        let place = Place::new();
        copy(source, &place.folder, place.folder.to_str().unwrap());
        let ends = fs::read_to_string(source.join("ends")).unwrap_or_default();
        let ends = ends.lines().map(str::to_owned).collect();
        Self { source: source.to_owned(), place, ends }
    }

    fn check(&self) {
        let args = fs::read_to_string(self.source.join("args")).unwrap_or_else(|_| self.file());
        let mut words = vec!["import"];
        words.extend(args.split_whitespace());
        words.extend(["-o", "services.yaml"]);
        let (said, told) = self.place.ok(&words);
        assert_eq!(said, "");
        let yaml = self.place.read("services.yaml");
        compare(&self.source.join("services.yaml"), &self.shown(&yaml));
        compare(&self.source.join("losses.txt"), &self.shown(&told));
        let losses = told.lines().filter(|line| line.starts_with("lost: ")).count();
        words.extend(["--strict", "--force"]);
        assert_eq!(self.place.run(&words).status.code(), Some(i32::from(losses > 0)));
        let (said, warned) = self.place.ok(&["check"]);
        assert!(said.starts_with("OK: "), "{said}");
        // What this machine would not enforce, or not allow, is its own matter. Which files a program reads,
        // where its command does not name them, the import itself has asked for.
        let asked = told.contains("name what it reads in `config_files`");
        let mut of_here = false;
        let warning = warned.lines().find(|line| {
            // A warning, or the place and the help below it.
            if line.starts_with("warning: ") {
                of_here = line.contains(" is not enforced here: ")
                    || line.contains(" not be started here: ")
                    || asked
                        && line.contains("a file of `config_files` changed, and there is none");
            }
            !of_here
        });
        assert_eq!(warning, None, "a warning");
        self.later(&args);
        self.start();
    }

    /// With a schema in which everything works, nothing is a comment, and nothing is wrong with the
    /// result but that today's schema says "not supported yet".
    fn later(&self, args: &str) {
        if args.contains("--") {
            return; // options are the command's, and the same either way
        }
        let folder = &self.place.folder;
        let files: Vec<_> = args.split_whitespace().collect();
        let mut schema = spec::schema();
        all_supported(&mut schema);
        let imported = import_here(folder, &files, &schema).unwrap();
        assert!(!imported.yaml.contains("not supported yet"), "{}", imported.yaml);
        self.place.write("later.yaml", &imported.yaml);
        let file = folder.join("later.yaml");
        if let Err(mistakes) = spec::load(std::slice::from_ref(&file), &|_| None) {
            for mistake in mistakes.iter() {
                let words = mistake.as_text("error");
                assert!(
                    mistake.message.ends_with("is not supported yet"),
                    "{words}{}",
                    imported.yaml
                );
            }
        }
    }

    /// The one file that is no neighbour of another.
    fn file(&self) -> String {
        let names = fs::read_dir(&self.source).unwrap().map(|e| e.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let main = |name: &String| {
            let text = fs::read_to_string(self.source.join(name)).unwrap_or_default();
            !OURS.contains(&name.as_str())
                && wharf::import::detect(Path::new(name), &text).is_some()
        };
        let mut names: Vec<_> = names.filter(main).collect();
        names.sort();
        names.join(" ")
    }

    /// A text without the test's folder.
    fn shown(&self, text: &str) -> String {
        let folder = self.place.folder.to_str().unwrap();
        text.replace(&format!("{folder}/root/"), "/")
            .replace(&format!("{folder}/root"), "/")
            .replace(&format!("{folder}/programs/"), "")
            .replace(folder, "@FOLDER@")
    }

    /// Starts all services and compares how their programs were called.
    fn start(&self) {
        let file = self.place.folder.join("services.yaml");
        let set = |name: &str| {
            let set = SET.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        let loaded = spec::load(std::slice::from_ref(&file), &set).unwrap();
        let mut whole = spec::resolved_value(&loaded.spec, false);
        let stage = Stage { folder: &self.place.folder, ends: &self.ends };
        for folder in ["out", "programs", "root"] {
            fs::create_dir_all(self.place.folder.join(folder)).unwrap();
        }
        for service in whole["services"].as_object_mut().unwrap().values_mut() {
            stage.prepare(service);
        }
        // Each is looked at by itself: the programs here never end, and nobody is to wait for that.
        for service in whole["services"].as_object_mut().unwrap().values_mut() {
            service.as_object_mut().unwrap().remove("depends_on");
        }
        escape(&mut whole);
        self.place.write("stage.yaml", &whole.to_string());
        self.place.ok(&["up", "-d", "-f", "stage.yaml", "--state-dir", "state"]);
        let mut told = String::new();
        for (name, service) in whole["services"].as_object().unwrap() {
            let replicas = service["replicas"].as_u64().unwrap();
            if replicas == 0 {
                assert!(self.place.rows().iter().all(|row| row["service"] != **name));
                let _ = writeln!(told, "{name}: not started\n");
            }
            for replica in 1..=replicas {
                told.push_str(&self.run(name, replica, service));
            }
        }
        compare(&self.source.join("started.txt"), &self.shown(&told));
        self.place.ok(&["down", "--state-dir", "state"]);
    }

    /// How the program of one replica was called, once it is in the state it must be in.
    fn run(&self, name: &str, replica: u64, service: &Value) -> String {
        let wanted = if self.ends.contains(name) { "finished" } else { "running" };
        let out = self.place.folder.join(format!("out/{name}.{replica}"));
        let state = || {
            let rows = self.place.rows();
            let row =
                rows.into_iter().find(|row| row["service"] == *name && row["replica"] == replica);
            row.map(|row| row["state"].as_str().unwrap().to_owned())
        };
        let why = || {
            let why = self.place.run(&["why", name, "--state-dir", "state", "-f", "stage.yaml"]);
            let written = fs::read_to_string(&out).unwrap_or_default();
            format!(
                "{name} to be {wanted}: {:?}\n{written}\n{}",
                state(),
                crate::support::text(&why.stdout)
            )
        };
        // What the clock starts is not waited for, and what is in a profile is not started by itself.
        if service["schedule"].is_object()
            || !service["profiles"].as_array().is_none_or(Vec::is_empty)
        {
            self.place.ok(&["start", name, "--state-dir", "state", "-f", "stage.yaml"]);
        }
        let written = until(&why, || {
            let written = fs::read_to_string(&out).ok()?;
            (written.ends_with("\ndone\n") && state().as_deref() == Some(wanted)).then_some(written)
        });
        let mut told = format!("{name}/{replica}: {wanted}\n");
        let declared = service["environment"].as_object();
        for line in written.trim_end_matches("done\n").lines() {
            let variable = line.strip_prefix("variable: ").and_then(|line| line.split_once('='));
            let own = |name: &str| declared.is_some_and(|map| map.contains_key(name));
            if line == "done" {
                continue;
            }
            match variable {
                Some((name, _)) if GIVEN.contains(&name) && !own(name) => {}
                Some(("PATH", value)) => {
                    let value = value.split_once(':').unwrap().1.trim_end_matches(":/usr/bin:/bin");
                    let _ = writeln!(told, "  variable: PATH={value}");
                }
                _ => {
                    let _ = writeln!(told, "  {line}");
                }
            }
        }
        told.push('\n');
        told
    }
}

/// Copies a case's own files; `@FOLDER@` in them is the test's folder.
fn copy(from: &Path, to: &Path, folder: &str) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            fs::create_dir_all(to.join(name)).unwrap();
            copy(&path, &to.join(name), folder);
        } else if !OURS.contains(&name.to_str().unwrap()) {
            let text = fs::read_to_string(&path).unwrap().replace("@FOLDER@", folder);
            fs::write(to.join(name), text).unwrap();
        }
    }
}

/// Imports files of a folder, without the command.
pub(crate) fn import_here(
    folder: &Path,
    files: &[&str],
    schema: &Value,
) -> Result<Imported, ImportError> {
    let order = Order {
        files: files.iter().map(|file| ((*file).to_owned(), folder.join(file))).collect(),
        here: folder.to_owned(),
        folder: folder.to_owned(),
        format: None,
        formation: None,
        port: None,
        env_files: Vec::new(),
    };
    let read = |path: &Path| fs::read_to_string(path).ok().map(Ok);
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    import(&order, World { read: &read, list: &list }, schema)
}

/// Takes `x-supported: false` out of a schema.
fn all_supported(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("x-supported");
            map.values_mut().for_each(all_supported);
        }
        Value::Array(items) => items.iter_mut().for_each(all_supported),
        _ => {}
    }
}

/// JSON is YAML, but for the `$`.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}
