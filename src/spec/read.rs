//! From texts to a configuration: parse, check, merge, understand. No file is touched here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use super::check::{Check, Environment};
use super::env_file::EnvFiles;
use super::format::address;
use super::mean::Mean;
use super::mean_depend::{self, Whole};
use super::merge::{Rule, merge, spell_out};
use super::mistake::{Found, Mistake, Mistakes, Source, meant_instead, told};
use super::schema::{profile_schema, schema};
use super::shape::Shape;
use super::tree::{Entry, Kind, Node, Place};
use super::yaml::parse;
use super::{Cgroups, Contents, Group, Hook, Metrics, Spec, mean_given, mean_hook, written};
use crate::name::ServiceName;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What is meant.
    pub spec: Spec,
    /// What is allowed and probably not intended, in the order of the files.
    pub warnings: Vec<Mistake>,
}

/// A file as it came: its text, or what is wrong with it as a whole.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) source: Source,
    /// Why the text is not to be read, and at which byte that shows.
    pub(super) refused: Option<(String, Option<usize>)>,
}

/// Where what is not in the text comes from.
pub(super) struct World<'a> {
    /// The manager's own environment.
    pub(super) environment: Environment<'a>,
    /// The profile of that name; `None` when there is none.
    pub(super) profile: &'a dyn Fn(&str) -> Option<Given>,
    /// The names of all profiles.
    pub(super) profiles: &'a dyn Fn() -> Vec<String>,
    /// A file of variables, by its path as written; `None` when there is none.
    pub(super) env_file: &'a dyn Fn(&str) -> Option<Given>,
    /// Why a file cannot be read, in words; `None` when it can.
    pub(super) trouble_with: &'a dyn Fn(&Path) -> Option<String>,
    /// What stands in a file or folder, or why that is nothing to look into.
    pub(super) contents: &'a dyn Fn(&Path) -> Result<Contents, String>,
    /// The folder of the first file, absolute.
    pub(super) folder: PathBuf,
    /// The files, absolute.
    pub(super) files: Vec<PathBuf>,
}

/// Reads the files in the order of merging.
pub(super) fn read(given: Vec<Given>, world: World<'_>) -> Result<Loaded, Mistakes> {
    let mut reader = Reader {
        world,
        sources: Vec::new(),
        found: Vec::new(),
        warnings: Vec::new(),
        shape: Shape::of(&schema()),
        profile_shape: None,
        profiles: HashMap::new(),
    };
    let spec = reader.files(given);
    let Reader { found, warnings, sources, .. } = reader;
    match spec {
        Some(spec) if found.is_empty() => Ok(Loaded { spec, warnings: told(warnings, &sources).0 }),
        _ => Err(Mistakes::new(found, &sources)),
    }
}

/// What is wrong with a text, the files that it refers to being as they should and no variable set.
pub(crate) fn mistakes_in(text: String) -> Vec<Mistake> {
    let source = Source { name: "services.yaml".to_owned(), text };
    let world = World {
        environment: &|_| None,
        profile: &|_| None,
        profiles: &Vec::new,
        env_file: &|_| Some(Given::default()),
        trouble_with: &|_| None,
        contents: &|_| Ok(Contents::absent()),
        folder: PathBuf::from("/"),
        files: Vec::new(),
    };
    match read(vec![Given { source, refused: None }], world) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().cloned().collect(),
    }
}

/// What a profile says, in the shape of its schema; variables are left as they stand.
pub(super) fn profile_value(given: Given) -> Result<Value, Mistakes> {
    let Given { source, refused } = given;
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    let sources = vec![source];
    if let Some((message, _)) = refused {
        let path = sources[0].name.clone();
        found.push(Found { place: None, path, message, help: None });
        return Err(Mistakes::new(found, &sources));
    }
    let mut tree = parse(0, &sources, &mut found);
    let value = tree.as_mut().and_then(|tree| {
        Check::new(&mut found, &mut warnings, None).value(tree, &Shape::of(&profile_schema()))
    });
    match value {
        Some(value) if found.is_empty() => Ok(value),
        _ => Err(Mistakes::new(found, &sources)),
    }
}

struct Reader<'a> {
    world: World<'a>,
    sources: Vec<Source>,
    found: Vec<Found>,
    warnings: Vec<Found>,
    shape: Shape,
    profile_shape: Option<Shape>,
    /// Profiles by name, spelled out; `None` for one that cannot be used.
    profiles: HashMap<String, Option<Node>>,
}

impl Reader<'_> {
    fn files(&mut self, given: Vec<Given>) -> Option<Spec> {
        let mut trees = Vec::with_capacity(given.len());
        let count = given.len();
        let shape = self.shape.clone();
        for given in given {
            trees.extend(self.file(given, &shape));
        }
        if trees.len() < count {
            return None; // a missing part would make mistakes of what is right
        }
        let mut whole: Option<Node> = None;
        for mut tree in trees {
            spell_out_file(&mut tree);
            match &mut whole {
                None => whole = Some(tree),
                Some(base) => merge(base, tree, Rule::File),
            }
        }
        self.spec(whole?)
    }

    /// Parses and checks one file; `None` when nothing of it can be used.
    fn file(&mut self, given: Given, shape: &Shape) -> Option<Node> {
        let index = self.sources.len();
        let name = given.source.name.clone();
        self.sources.push(given.source);
        let file = u32::try_from(index).unwrap_or(u32::MAX);
        if let Some((message, offset)) = given.refused {
            let place = offset.and_then(|offset| u32::try_from(offset).ok());
            let place = place.map(|start| Place { file, start, end: start + 1 });
            self.found.push(Found { place, path: name, message, help: None });
            return None;
        }
        let before = self.found.len();
        let tree = parse(index, &self.sources, &mut self.found);
        let mut tree = match tree {
            Some(tree) if !matches!(tree.kind, Kind::Null) => tree,
            _ => {
                if self.found.len() == before {
                    let message = "the file is empty".to_owned();
                    self.found.push(Found { place: None, path: name, message, help: None });
                }
                return None;
            }
        };
        let environment = Some(self.world.environment);
        let mut check = Check::new(&mut self.found, &mut self.warnings, environment);
        check.value(&mut tree, shape)?;
        Some(tree)
    }

    fn spec(&mut self, mut whole: Node) -> Option<Spec> {
        let cgroups = match whole.get("cgroups").and_then(Node::text) {
            Some("off") => Cgroups::Off,
            _ => Cgroups::Auto,
        };
        let metrics = whole.get("metrics").and_then(|block| self.metrics(block));
        let on_event = whole.take("on_event").map(|entry| self.hooks(entry)).unwrap_or_default();
        let secret_sources = whole.get("secrets").map(mean_given::sources).unwrap_or_default();
        let defaults = whole.take("defaults").map(|entry| entry.value);
        let Some(services) = whole.take("services") else {
            self.found.push(Found {
                place: Some(Place { end: whole.place.start, ..whole.place }),
                path: String::new(),
                message: "the key `services` is missing".to_owned(),
                help: Some("services: { web: { command: ./server } } is a whole file".to_owned()),
            });
            return None;
        };
        let shape = self.shape.at("services").and_then(|services| services.at_any_name())?;
        let Kind::Map(entries) = services.value.kind else { return None };
        let block = whole.take("groups").map(|entry| entry.value);
        let mut meant = IndexMap::with_capacity(entries.len());
        let mut listening = IndexMap::new();
        let mut env_files = EnvFiles::new(self.world.env_file);
        let mut read = Vec::with_capacity(entries.len());
        for entry in entries {
            if matches!(entry.value.kind, Kind::Bad) {
                read.push(entry);
                continue; // said already
            }
            let (entry, written) = self.written(entry, defaults.as_ref(), &shape);
            let mut mean = Mean {
                found: &mut self.found,
                warnings: &mut self.warnings,
                environment: self.world.environment,
                folder: &self.world.folder,
                sources: &mut self.sources,
                env_files: &mut |path, sources, found| env_files.read(path, sources, found),
                secret_sources: &secret_sources,
                trouble_with: self.world.trouble_with,
                contents: self.world.contents,
            };
            let service = written.and_then(|written| mean.service(&entry, written));
            if let (Ok(name), Some(service)) = (ServiceName::new(&entry.key), service) {
                if !service.listen.is_empty() {
                    listening.insert(name.clone(), entry.value.clone());
                }
                meant.insert(name, service);
            }
            read.push(entry);
        }
        let groups = block.clone().map(|block| self.groups(block)).unwrap_or_default();
        let mut between = Whole {
            services: &meant,
            written: &read,
            groups: &groups,
            block: block.as_ref(),
            found: &mut self.found,
            warnings: &mut self.warnings,
        };
        between.check();
        let files = std::mem::take(&mut self.world.files);
        let spec = Spec { files, cgroups, metrics, on_event, services: meant, groups };
        mean_given::addresses(&spec, &listening, &mut self.found);
        Some(spec)
    }

    /// The `on_event:` of all services; its keys have been checked where they stand.
    fn hooks(&mut self, mut entry: Entry) -> Vec<Hook> {
        let Some(shape) = self.shape.at("on_event") else { return Vec::new() };
        let (mut nothing, mut nothing_more) = (Vec::new(), Vec::new());
        let value =
            Check::new(&mut nothing, &mut nothing_more, None).value(&mut entry.value, &shape);
        let written = value.and_then(|value| serde_json::from_value(value).ok());
        let (hooks, wrong) = mean_hook::hooks(written, &self.world.folder);
        for (path, message) in wrong {
            let steps: Vec<&str> = path.iter().map(String::as_str).collect();
            self.found.push(Found {
                place: Some(entry.value.place_of(&steps)),
                path: format!("on_event.{}", path.join(".")),
                message,
                help: None,
            });
        }
        hooks
    }

    /// The `groups:` block; what was wrong with it has been said.
    fn groups(&self, mut block: Node) -> IndexMap<String, Group> {
        let (mut nothing, mut nothing_more) = (Vec::new(), Vec::new());
        let mut check = Check::new(&mut nothing, &mut nothing_more, None);
        let shape = self.shape.at("groups");
        let value = shape.and_then(|shape| check.value(&mut block, &shape));
        let written: IndexMap<String, written::Group> =
            value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
        written.into_iter().map(|(name, group)| (name, mean_depend::group(group))).collect()
    }

    /// The `metrics:` block; its keys have been checked where they stand.
    fn metrics(&mut self, block: &Node) -> Option<Metrics> {
        let written = block.get("listen")?;
        let listen = address(written.text()?).ok()?;
        let allowed = block
            .get("allow_remote")
            .and_then(Node::text)
            .is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let found = |message: String, help: &str| Found {
            place: Some(written.place),
            path: "metrics.listen".to_owned(),
            message,
            help: Some(help.to_owned()),
        };
        match (listen.ip().is_loopback(), allowed) {
            (true, _) => {}
            (false, true) => self.warnings.push(found(
                format!("whoever can reach {listen} can read the metrics, without a password"),
                "they name the services and tell how they fare; nothing can be changed there",
            )),
            (false, false) => self.found.push(found(
                format!("other machines can reach {listen}"),
                "write a loopback address such as 127.0.0.1:9464, or say `allow_remote: true` beside it",
            )),
        }
        Some(Metrics { listen, allow_remote: allowed })
    }

    /// A service with its profile and the defaults under it, in the written types.
    fn written(
        &mut self,
        mut entry: Entry,
        defaults: Option<&Node>,
        shape: &Shape,
    ) -> (Entry, Option<written::Service>) {
        if let Some(defaults) = defaults {
            lay_under(&mut entry.value, defaults.clone());
        }
        if let Some(profile) = self.profile_of(&entry) {
            lay_under(&mut entry.value, profile);
        }
        // Everything in it has been checked where it was written: nothing new is said here.
        let (mut nothing, mut nothing_more) = (Vec::new(), Vec::new());
        let value =
            Check::new(&mut nothing, &mut nothing_more, None).value(&mut entry.value, shape);
        let written = value.and_then(|value| self.typed(&entry, value));
        (entry, written)
    }

    fn typed(&mut self, entry: &Entry, value: Value) -> Option<written::Service> {
        match serde_json::from_value(value) {
            Ok(written) => Some(written),
            Err(error) => {
                // Schema and types come from one source, so this cannot happen; were it to
                // happen, a refused file is better than one half understood.
                self.found.push(Found {
                    place: Some(entry.place),
                    path: format!("services.{}", entry.key),
                    message: format!("cannot be understood: {error}"),
                    help: None,
                });
                None
            }
        }
    }

    /// What the profile that a service uses brings, as a service.
    fn profile_of(&mut self, entry: &Entry) -> Option<Node> {
        let port = entry.value.get("port")?;
        let usage = port.get("use")?;
        let name = usage.text()?.to_owned();
        if !self.profiles.contains_key(&name) {
            let profile = self.profile(&name, usage.place, &entry.key);
            self.profiles.insert(name.clone(), profile);
        }
        self.profiles.get(&name)?.clone()
    }

    fn profile(&mut self, name: &str, place: Place, service: &str) -> Option<Node> {
        let Some(given) = (self.world.profile)(name) else {
            let names = (self.world.profiles)();
            let help = match meant_instead(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`? there are {}", names.join(", ")),
                None => format!("there are {}", names.join(", ")),
            };
            self.found.push(Found {
                place: Some(place),
                path: format!("services.{service}.port.use"),
                message: format!("there is no profile named `{name}`"),
                help: Some(help),
            });
            return None;
        };
        let shape = match &self.profile_shape {
            Some(shape) => shape.clone(),
            None => self.profile_shape.insert(Shape::of(&profile_schema())).clone(),
        };
        let mut profile = self.file(given, &shape)?;
        profile.take("description");
        if let Some(own) = profile.get("port").and_then(|port| port.entry("use")) {
            self.found.push(Found {
                place: Some(own.place),
                path: "port.use".to_owned(),
                message: "a profile cannot use another".to_owned(),
                help: None,
            });
        }
        spell_out(&mut profile);
        Some(profile)
    }
}

fn lay_under(service: &mut Node, mut below: Node) {
    let place = service.place;
    let above = std::mem::replace(service, Node::new(place, Kind::Bad));
    merge(&mut below, above, Rule::Service);
    *service = below;
}

fn spell_out_file(tree: &mut Node) {
    if let Some(defaults) = tree.get_mut("defaults") {
        spell_out(defaults);
    }
    if let Some(services) = tree.get_mut("services")
        && let Kind::Map(entries) = &mut services.kind
    {
        for entry in entries {
            spell_out(&mut entry.value);
        }
    }
}
