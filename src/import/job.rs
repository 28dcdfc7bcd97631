//! One import from beginning to end: the files that were read, the services so far, and what is
//! wrong or missing.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::command::escape;
use super::compose::interpolate::without_environment;
use super::draft::{Draft, Missing, Origin, put};
use super::emit::{self, Whole};
use super::loss::{Loss, Weight};
use super::table::{Row, told};
use super::{Format, ImportError, Imported, Order, World, detect};
use crate::name::{MAX_NAME, ServiceName};
use crate::spec::{
    Found, Keys, Mistakes, Node, Place, Rule, Source, merge, mistakes_in, parse, read_dotenv,
};

/// What is said where values of an environment file were copied.
const COPIED: &str = "keep services.yaml as private as that file; later changes there are not seen";

/// An import in progress.
pub(super) struct Job<'a> {
    pub(super) order: &'a Order,
    pub(super) world: World<'a>,
    /// Every file that was read, in the order of reading.
    pub(super) sources: Vec<Source>,
    /// Their absolute paths.
    paths: Vec<PathBuf>,
    /// The services so far.
    pub(super) drafts: Vec<Draft>,
    /// `groups:` of services.yaml, and where each came from.
    pub(super) groups: Map<String, Value>,
    /// What concerns no single service.
    pub(super) missing: Vec<Missing>,
    /// What is wrong with the files.
    pub(super) found: Vec<Found>,
    /// The files of secrets by name, absolute.
    pub(super) secret_files: HashMap<String, PathBuf>,
    /// Whether values of environment files were copied.
    secrets: bool,
    /// What services.yaml can say.
    keys: Keys,
}

impl<'a> Job<'a> {
    pub(super) fn new(order: &'a Order, world: World<'a>, schema: &Value) -> Self {
        Self {
            keys: Keys::of(schema),
            order,
            world,
            sources: Vec::new(),
            paths: Vec::new(),
            drafts: Vec::new(),
            groups: Map::new(),
            missing: Vec::new(),
            found: Vec::new(),
            secret_files: HashMap::new(),
            secrets: false,
        }
    }

    /// Reads the files that were named.
    pub(super) fn open_all(&mut self) -> Result<Vec<usize>, ImportError> {
        let mut files = Vec::new();
        for (name, path) in &self.order.files {
            if detect::is_javascript(path) {
                return Err(ImportError::JavaScript { file: name.clone() });
            }
            // An instance of a unit such as worker@1.service is read from worker@.service.
            let template = super::systemd::template(path).filter(|_| self.missing_file(path));
            let actual = template.as_deref().unwrap_or(path);
            let shown = if template.is_some() { self.shown(actual) } else { name.clone() };
            match self.open_as(actual, shown) {
                Some(file) => {
                    path.clone_into(&mut self.paths[file]);
                    files.push(file);
                }
                None if self.missing_file(actual) => {
                    self.wrong_file(name, "cannot be read: there is no such file");
                }
                None => {}
            }
        }
        if self.found.is_empty() {
            Ok(files)
        } else {
            let found = std::mem::take(&mut self.found);
            Err(ImportError::Mistakes(Mistakes::new(found, &self.sources)))
        }
    }

    fn missing_file(&self, path: &Path) -> bool {
        (self.world.read)(path).is_none()
    }

    /// The one format of all files.
    pub(super) fn format(&self, files: &[usize]) -> Result<Format, ImportError> {
        if let Some(format) = self.order.format {
            return Ok(format);
        }
        let mut all: Option<Format> = None;
        for &file in files {
            let text = &self.sources[file].text;
            let Some(format) = detect(&self.paths[file], text) else {
                return Err(ImportError::Unknown { file: self.sources[file].name.clone() });
            };
            match all {
                Some(first) if first != format => {
                    return Err(ImportError::Mixed { first, second: format });
                }
                _ => all = Some(format),
            }
        }
        all.ok_or_else(|| ImportError::Unknown { file: String::new() })
    }

    /// Reads one more file, once; `None` where there is none or it cannot be read, which is said.
    pub(super) fn open(&mut self, path: &Path) -> Option<usize> {
        if let Some(known) = self.paths.iter().position(|known| known == path) {
            return Some(known);
        }
        let shown = self.shown(path);
        self.open_as(path, shown)
    }

    fn open_as(&mut self, path: &Path, name: String) -> Option<usize> {
        match (self.world.read)(path)? {
            Ok(text) => {
                let nul = text.find('\0');
                self.sources.push(Source { name, text });
                self.paths.push(path.to_owned());
                let file = self.sources.len() - 1;
                if let Some(at) = nul {
                    let from = Origin::new(String::new(), place(file, at, at + 1));
                    self.wrong(&from, "a NUL byte cannot be passed to a program", "");
                }
                Some(file)
            }
            Err(why) => {
                self.wrong_file(&name, &format!("cannot be read: {why}"));
                None
            }
        }
    }

    /// The absolute path of a file that was read.
    pub(super) fn path(&self, file: usize) -> &Path {
        &self.paths[file]
    }

    /// The folder of a file that was read.
    pub(super) fn folder(&self, file: usize) -> PathBuf {
        self.paths[file].parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// A path as it is shown: from the current folder where it lies below it.
    pub(super) fn shown(&self, path: &Path) -> String {
        from_folder(path, &self.order.here)
    }

    /// Says that a file is wrong as a whole.
    fn wrong_file(&mut self, name: &str, message: &str) {
        let (path, message) = (name.to_owned(), message.to_owned());
        self.found.push(Found { place: None, path, message, help: None });
    }

    /// Says that the file is wrong at a place.
    pub(super) fn wrong(&mut self, from: &Origin, message: impl Into<String>, help: &str) {
        self.found.push(Found {
            place: Some(from.place),
            path: from.key.clone(),
            message: message.into(),
            help: (!help.is_empty()).then(|| help.to_owned()),
        });
    }

    /// Says that something asked for will not happen, in no service in particular.
    pub(super) fn lose(&mut self, from: &Origin, why: impl Into<String>, instead: &str) {
        let (why, instead) = (why.into(), instead.to_owned());
        let origin = from.clone();
        self.missing.push(Missing { weight: Weight::Loss, origin, why, instead });
    }

    /// Says that something is done in another way.
    pub(super) fn note(&mut self, from: &Origin, why: impl Into<String>) {
        let (why, instead) = (why.into(), String::new());
        self.missing.push(Missing { weight: Weight::Note, origin: from.clone(), why, instead });
    }

    /// Says what the format's table says of a key.
    pub(super) fn lose_by(&mut self, table: &[Row], from: &Origin) {
        let (weight, why, instead) = told(table, &from.key);
        let (why, instead) = (why.to_owned(), instead.to_owned());
        self.missing.push(Missing { weight, origin: from.clone(), why, instead });
    }

    /// The place where a file begins.
    pub(super) fn top(file: usize) -> Place {
        Place { file: narrow(file), start: 0, end: 0 }
    }

    /// A new service; a name that cannot be one is changed, which is said.
    pub(super) fn draft(&mut self, name: &str, from: &Origin) -> Draft {
        let good = self.free_name(&good_name(name));
        let mut draft = Draft::new(good.clone(), from.place);
        if good != name {
            draft.note(from, format!("`{name}` is called `{good}` here"));
        }
        draft
    }

    fn free_name(&self, name: &str) -> String {
        let mut free = name.to_owned();
        let mut number = 2_u32;
        while self.drafts.iter().any(|draft| draft.name == free) {
            let end = format!("-{number}");
            free = format!("{}{end}", &name[..name.len().min(MAX_NAME - end.len())]);
            number += 1;
        }
        free
    }

    /// The variables of an environment file; `None` where there is none. What is wrong is said.
    pub(super) fn variables(&mut self, path: &Path) -> Option<Vec<(String, String)>> {
        let file = self.open(path)?;
        let read = read_dotenv(&self.sources[file].text);
        let mut variables = Vec::new();
        for line in read {
            let start = narrow(line.start);
            let place = Place { file: narrow(file), start, end: start + 1 };
            match line.variable {
                Ok(variable) => variables.push(variable),
                Err(message) => self.wrong(&Origin::new(String::new(), place), message, ""),
            }
        }
        Some(variables)
    }

    /// Sets the user, `NAME` or `NAME:GROUP`, escaped already.
    pub(super) fn user(&mut self, draft: &mut Draft, value: &str, from: &Origin) {
        let plain = without_environment(value);
        let parts: Vec<_> = plain.split(':').collect();
        let whole = |part: &&str| !part.is_empty() && !part.contains(char::is_whitespace);
        if parts.len() <= 2 && parts.iter().all(whole) {
            draft.put("user", value, from);
        } else {
            self.wrong(from, format!("`{plain}` is no user"), "write NAME or NAME:GROUP");
        }
    }

    /// Whether a key of a service works, by its dotted path.
    pub(super) fn works(&self, path: &str) -> bool {
        let whole: Vec<&str> = ["services", "any"].into_iter().chain(path.split('.')).collect();
        self.keys.find(&whole).is_some_and(|(_, supported)| supported)
    }

    /// Whether a key at the top of the file works.
    pub(super) fn works_at_top(&self, key: &str) -> bool {
        self.keys.find(&[key]).is_some_and(|(_, supported)| supported)
    }

    /// Gives a service the variables of an environment file: by `env_file` where that works, else
    /// as copies below what it sets itself. Returns whether there is such a file.
    /// One that is not `needed` is written as such.
    pub(super) fn env_file(
        &mut self,
        draft: &mut Draft,
        path: &Path,
        needed: bool,
        from: &Origin,
    ) -> bool {
        let read = self.variables(path);
        if self.works("env_file") && (read.is_some() || !needed) {
            let mut files = match draft.get("env_file") {
                Some(Value::Array(files)) => files.clone(),
                _ => Vec::new(),
            };
            let written = escape(&from_folder(path, &self.order.folder));
            let optional = json!({ "path": written, "required": false });
            files.insert(0, if needed { Value::String(written) } else { optional });
            draft.put("env_file", files, from);
            return read.is_some();
        }
        let Some(variables) = read else { return false };
        for (name, value) in variables {
            if !draft.has_variable(&name) {
                draft.variable(&name, escape(&value));
                self.secrets = true;
            }
        }
        let shown = self.shown(path);
        draft.tell(Weight::Note, from, format!("the values of {shown} were copied"), COPIED);
        true
    }

    /// Says that the values of an environment file stand in the result.
    pub(super) fn copied(&mut self, path: &Path) {
        self.secrets = true;
        let file = self.paths.iter().rposition(|known| known == path).unwrap_or_default();
        let origin = Origin::new(self.shown(path), Self::top(file));
        let (why, instead) = ("its values were copied".to_owned(), COPIED.to_owned());
        self.missing.push(Missing { weight: Weight::Note, origin, why, instead });
    }

    /// A secret by name with the file that it comes from; `None` where that is not known.
    pub(super) fn secret(&self, name: &str) -> Option<Value> {
        let file = from_folder(self.secret_files.get(name)?, &self.order.folder);
        Some(json!({ "name": name, "file": escape(&file) }))
    }

    /// The folder to run in, as services.yaml writes it; `None` where it is that file's own folder.
    pub(super) fn working_dir(&self, folder: &Path) -> Option<String> {
        let written = from_folder(folder, &self.order.folder);
        (written != ".").then_some(written)
    }

    /// What came of it all.
    pub(super) fn finish(mut self, format: Format) -> Result<Imported, ImportError> {
        if !self.found.is_empty() {
            return Err(ImportError::Mistakes(Mistakes::new(self.found, &self.sources)));
        }
        for draft in &mut self.drafts {
            if draft.held {
                put(&mut draft.keys, "replicas", Value::from(0));
            }
            longest_wait(draft);
            not_yet(draft, &self.keys);
        }
        let lines = Lines::new(&self.sources);
        let resolved = |missing: &Missing, service: Option<&str>| Loss {
            weight: missing.weight,
            file: lines.file(missing.origin.place),
            line: lines.line(missing.origin.place),
            service: service.map(str::to_owned),
            key: missing.origin.key.clone(),
            why: missing.why.clone(),
            instead: missing.instead.clone(),
        };
        let order = |missing: &Missing| (missing.origin.place.file, missing.origin.place.start);
        let general: Vec<_> = self.missing.iter().map(|m| (order(m), resolved(m, None))).collect();
        let mut services = Vec::new();
        let mut all = general.clone();
        for draft in &self.drafts {
            let own = draft.missing.iter().map(|m| (order(m), resolved(m, Some(&draft.name))));
            let mut own: Vec<_> = own.collect();
            own.sort_by_key(|(order, _)| *order);
            services.push(own.iter().map(|(_, loss)| loss.clone()).collect());
            all.extend(own);
        }
        all.sort_by_key(|(order, _)| *order);
        let losses: Vec<Loss> = all.into_iter().map(|(_, loss)| loss).collect();
        if self.drafts.is_empty() {
            let lost = losses.into_iter().filter(|loss| loss.weight == Weight::Loss).collect();
            return Err(ImportError::Nothing { losses: lost });
        }
        let general: Vec<Loss> = general.into_iter().map(|(_, loss)| loss).collect();
        let mut names: Vec<&str> = Vec::new();
        for source in &self.sources {
            if !names.contains(&source.name.as_str()) {
                names.push(&source.name);
            }
        }
        let whole = Whole {
            format,
            files: &names,
            general: &general,
            drafts: &self.drafts,
            losses: &services,
            groups: &self.groups,
            keys: &self.keys,
        };
        let yaml = emit::yaml(&whole);
        let services = self.drafts.len();
        self.check(&yaml);
        if !self.found.is_empty() {
            return Err(ImportError::Mistakes(Mistakes::new(self.found, &self.sources)));
        }
        Ok(Imported { format, yaml, services, losses, secrets: self.secrets })
    }

    /// Says of what services.yaml could not hold where it comes from: a value that is none here was
    /// none there. What an importer does not look at closely is found here.
    fn check(&mut self, yaml: &str) {
        for mistake in mistakes_in(yaml.to_owned()) {
            if mistake.message.ends_with("is not supported yet") {
                continue; // the schema that was given knows more than this program's own
            }
            let below = mistake.path.strip_prefix("services.").unwrap_or(&mistake.path);
            let begins = |name: &str| {
                below
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let Some(draft) = self.drafts.iter().find(|draft| begins(&draft.name)) else {
                let from = Origin::new(String::new(), Self::top(0));
                self.wrong(&from, mistake.message, "");
                continue;
            };
            let key = below[draft.name.len()..].trim_start_matches('.');
            let mut origins =
                draft.origins.iter().filter(|(path, _)| key.starts_with(path.as_str()));
            let start = Origin::new(draft.name.as_str(), draft.place);
            let from = origins.next_back().map_or(start, |(_, origin)| origin.clone());
            self.wrong(&from, format!("`{key}`: {}", mistake.message), "");
        }
    }
}

/// A wait that is longer than the longest by default needs a longest of its own.
fn longest_wait(draft: &mut Draft) {
    let Some(delay) = draft.get("restart.delay").and_then(Value::as_str).map(str::to_owned) else {
        return;
    };
    let longest = crate::spec::Restart::default().max_delay;
    let long = crate::time::parse_duration(&delay).is_ok_and(|delay| delay > longest);
    if long && draft.get("restart.max_delay").is_none() {
        put(&mut draft.keys, "restart.max_delay", Value::String(delay));
    }
}

/// Says of each key that does not work yet that it is written as a comment.
fn not_yet(draft: &mut Draft, keys: &Keys) {
    let mut told = HashSet::new();
    for (path, origin) in draft.origins.clone() {
        let steps: Vec<&str> = path.split('.').collect();
        let below: Vec<&str> = ["services", draft.name.as_str()].into_iter().chain(steps).collect();
        let unusable = (3..=below.len()).find(|end| {
            let found = keys.find(&below[..*end]);
            found.is_some_and(|(_, supported)| !supported)
        });
        if let Some(end) = unusable {
            let key = below[2..end].join(".");
            if draft.get(&path).is_some() && told.insert((key.clone(), origin.place)) {
                let why = format!("`{key}` is not supported yet");
                draft.lose(&origin, why, "it is written as a comment");
            }
        }
    }
}

/// The lines of all files, counted once.
struct Lines<'s> {
    sources: &'s [Source],
    starts: Vec<Vec<usize>>,
}

impl<'s> Lines<'s> {
    fn new(sources: &'s [Source]) -> Self {
        let starts = sources.iter().map(|source| {
            let ends = source.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        });
        Self { sources, starts: starts.collect() }
    }

    fn file(&self, place: Place) -> String {
        let source = usize::try_from(place.file).ok().and_then(|file| self.sources.get(file));
        source.map(|source| source.name.clone()).unwrap_or_default()
    }

    /// The line, from 1; `None` for a file as a whole.
    fn line(&self, place: Place) -> Option<usize> {
        if place.start == 0 && place.end == 0 {
            return None;
        }
        let starts = self.starts.get(usize::try_from(place.file).ok()?)?;
        let start = usize::try_from(place.start).ok()?;
        Some(starts.partition_point(|begin| *begin <= start))
    }
}

/// An index or offset as places keep it.
pub(super) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The place of a stretch of a file.
pub(super) fn place(file: usize, start: usize, end: usize) -> Place {
    Place { file: narrow(file), start: narrow(start), end: narrow(end) }
}

/// The place of a key of a YAML map.
pub(super) fn key_origin(entry: &crate::spec::Entry) -> Origin {
    Origin::new(entry.key.clone(), entry.place)
}

/// The YAML files, each laid over those before it: maps with this key. Complains of those that are not.
pub(super) fn layered(job: &mut Job<'_>, files: &[usize], key: &str) -> Option<Node> {
    let mut whole: Option<Node> = None;
    for &file in files {
        let Some(node) = parse(file, &job.sources, &mut job.found) else {
            if job.found.is_empty() {
                let top = Origin::new(String::new(), place(file, 0, 1));
                job.wrong(&top, "the file is empty", "");
            }
            continue;
        };
        if !matches!(node.kind, crate::spec::Kind::Map(_)) {
            let top = Origin::new(String::new(), node.place);
            job.wrong(&top, format!("expected a map with the key `{key}`"), "");
            continue;
        }
        match &mut whole {
            None => whole = Some(node),
            Some(base) => merge(base, node, Rule::Deep),
        }
    }
    whole
}

/// Whether a key without an equal asks for anything: nothing, `false` and what is the user's own
/// (`x-`) do not.
pub(super) fn asks(entry: &crate::spec::Entry) -> bool {
    use crate::spec::Kind;
    let empty = match &entry.value.kind {
        Kind::Null => true,
        Kind::Scalar { text, .. } => text.is_empty() || text == "false",
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.is_empty(),
        Kind::Bad => false,
    };
    !empty && !entry.key.starts_with("x-")
}

/// A list of texts, or one text; `None` where it is something else.
pub(super) fn texts(node: &Node) -> Option<Vec<(String, Place)>> {
    match &node.kind {
        crate::spec::Kind::List(items) => {
            items.iter().map(|item| Some((item.text()?.to_owned(), item.place))).collect()
        }
        crate::spec::Kind::Scalar { text, .. } => Some(vec![(text.clone(), node.place)]),
        _ => None,
    }
}

fn good_name(name: &str) -> String {
    if ServiceName::new(name).is_ok() {
        return name.to_owned();
    }
    let kept = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
    let text: String = name.chars().map(kept).collect();
    let text = text.trim_start_matches(['-', '_', '.']).trim_end_matches('-');
    let text: String = text.chars().take(MAX_NAME).collect();
    if text.is_empty() { "service".to_owned() } else { text }
}

/// A path from a folder where it lies below it, absolute elsewhere.
fn from_folder(path: &Path, folder: &Path) -> String {
    let path = tidy(path);
    match path.strip_prefix(tidy(folder)) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

/// A path without `.` and with `..` taken back.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}
