//! `wharf logs`: what programs wrote, byte for byte, with or without a manager.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use clap::Args;
use serde_json::json;

use super::context::Context;
use super::exits::since;
use super::failure::{Failure, OK};
use super::follow::News;
use super::out::Out;
use crate::name::{ReplicaId, ServiceName, Target};
use crate::output::{Follower, Line, LogReader, Merged, Range, Source};
use crate::state::StateError;
use crate::time::Wall;

/// Print what programs wrote
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf logs web -n 100
  wharf logs -f                  everything, as it comes; -f FILE.yaml names a configuration
  wharf logs web/2 db --since 10m --json")]
pub(super) struct Logs {
    /// Services, or single replicas; all without any
    #[arg(value_name = "NAME[/R]")]
    names: Vec<Target>,
    /// Go on with new output as it comes [short: -f]
    #[arg(long)]
    follow: bool,
    /// The last so many lines of each replica
    #[arg(short = 'n', long = "number", visible_alias = "tail", value_name = "N")]
    number: Option<usize>,
    /// Not older than this: 10m, 2026-11-22, 2026-11-22 07:00, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Wall>,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let folder = context.state.output();
        let mut news = self.follow.then(|| News::of(&folder)).transpose()?;
        let mut replicas = known(context, &self.names)?;
        let mut writer = Writer::new(self.json, several(&self.names, &replicas));
        let range = Range { last: self.number, since: self.since };
        let mut followers = BTreeMap::new();
        let mut sources = Vec::new();
        for id in &replicas {
            let reader = LogReader::open(&folder, id)?;
            if self.follow {
                followers.insert(id.clone(), reader.follower()?);
            }
            sources.push((id.clone(), reader.lines(range)?));
        }
        for line in Merged::new(sources) {
            let (id, line) = line?;
            writer.write(&id, &line)?;
        }
        writer.flush()?;
        while let Some(news) = &mut news {
            // Read until all are at their end, then wait.
            while follow(&mut followers, &mut writer)? {}
            writer.flush()?;
            news.wait()?;
            let there = known(context, &self.names)?;
            for id in there.difference(&replicas) {
                let reader = LogReader::open(&folder, id)?;
                followers.insert(id.clone(), reader.follower()?);
                writer.many |= several(&self.names, &there);
                for line in reader.lines(Range::default())? {
                    writer.write(id, &line?)?;
                }
            }
            replicas = there;
        }
        Ok(OK)
    }
}

/// Whether lines need the name of their replica.
fn several(names: &[Target], replicas: &BTreeSet<ReplicaId>) -> bool {
    replicas.len() > 1 || names.len() != 1
}

fn follow(
    followers: &mut BTreeMap<ReplicaId, Follower>,
    writer: &mut Writer,
) -> Result<bool, Failure> {
    let mut any = false;
    for (id, follower) in followers {
        for line in follower.read_new()? {
            any = true;
            writer.write(id, &line)?;
        }
    }
    Ok(any)
}

/// The replicas that are meant: those of the configuration in effect and those that left logs.
pub(super) fn known(context: &Context, names: &[Target]) -> Result<BTreeSet<ReplicaId>, Failure> {
    let mut all = BTreeSet::new();
    let mut services = BTreeSet::new();
    match context.state.read_applied() {
        Ok(applied) => {
            for (name, service) in &applied.spec.services {
                services.insert(name.clone());
                let one = |replica| ReplicaId { service: name.clone(), replica };
                all.extend((1..=service.replicas).map(one));
            }
        }
        Err(StateError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let entries = std::fs::read_dir(context.state.output()).into_iter().flatten().flatten();
    let left = entries.filter_map(|entry| replica_of(entry.file_name().to_str()?));
    all.extend(left);
    services.extend(all.iter().map(|id| id.service.clone()));
    for name in names {
        let there = match name.replica {
            None => services.contains(&name.service),
            Some(replica) => all.contains(&ReplicaId { service: name.service.clone(), replica }),
        };
        if !there {
            let near = services.iter().map(|known| {
                (strsim::damerau_levenshtein(known.as_str(), name.service.as_str()), known)
            });
            let best = near.filter(|(distance, _)| (1..=2).contains(distance)).min();
            return Err(Failure::NoSuchService {
                name: name.to_string(),
                suggestion: best.map(|(_, known)| known.to_string()),
            });
        }
    }
    let meant = |id: &ReplicaId| {
        names.is_empty()
            || names.iter().any(|name| {
                name.service == id.service
                    && name.replica.is_none_or(|replica| replica == id.replica)
            })
    };
    all.retain(meant);
    Ok(all)
}

/// The replica whose file has this name: `SERVICE.REPLICA.log`, perhaps with a number and `.gz`.
fn replica_of(file: &str) -> Option<ReplicaId> {
    let (at, _) = file
        .match_indices(".log")
        .filter(|(at, _)| {
            let rest = &file[at + 4..];
            rest.is_empty() || rest.starts_with('.')
        })
        .last()?;
    let (service, replica) = file[..at].rsplit_once('.')?;
    Some(ReplicaId { service: ServiceName::new(service).ok()?, replica: replica.parse().ok()? })
}

/// Puts lines together again.
struct Writer {
    out: Out,
    json: bool,
    many: bool,
    /// Whose unfinished line was written last.
    open: Option<(ReplicaId, Source)>,
}

impl Writer {
    fn new(json: bool, many: bool) -> Self {
        Self { out: Out::new(), json, many, open: None }
    }

    fn write(&mut self, id: &ReplicaId, line: &Line) -> Result<(), Failure> {
        if self.json {
            return self.out.json_line(&object(id, line));
        }
        let mut bytes = Vec::with_capacity(line.text.len() + 32);
        piece(&mut self.open, id, line, self.many, &mut bytes);
        self.out.bytes(&bytes)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }
}

/// Appends a line, or a piece of one; `open` is whose line is unfinished.
fn piece(
    open: &mut Option<(ReplicaId, Source)>,
    id: &ReplicaId,
    line: &Line,
    many: bool,
    bytes: &mut Vec<u8>,
) {
    let continues =
        open.as_ref().is_some_and(|(whose, source)| whose == id && *source == line.source);
    if open.is_some() && !continues {
        bytes.push(b'\n');
    }
    if !continues {
        if many {
            bytes.extend_from_slice(format!("{id} | ").as_bytes());
        }
        if line.source == Source::Wharf {
            bytes.extend_from_slice(b"[wharf] ");
        }
    }
    bytes.extend_from_slice(&line.text);
    *open = line.partial.then(|| (id.clone(), line.source));
    if !line.partial {
        bytes.push(b'\n');
    }
}

fn object(id: &ReplicaId, line: &Line) -> serde_json::Value {
    let text = String::from_utf8_lossy(&line.text);
    let mut object = json!({
        "ts": line.at,
        "service": id.service,
        "replica": id.replica,
        "stream": line.source.as_str(),
        "partial": line.partial,
        "text": text,
    });
    if let (std::borrow::Cow::Owned(_), Some(map)) = (&text, object.as_object_mut()) {
        // Lossless all the same.
        let encoded = base64::engine::general_purpose::STANDARD.encode(&line.text);
        map.insert("text_base64".to_owned(), encoded.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Stream;

    fn id(text: &str) -> ReplicaId {
        let target: Target = text.parse().unwrap();
        ReplicaId { service: target.service, replica: target.replica.unwrap() }
    }

    fn line(text: &[u8], source: Source, partial: bool) -> Line {
        Line { at: Wall(0), source, partial, text: text.to_vec() }
    }

    #[test]
    fn files_are_known_by_their_names() {
        for (file, meant) in [
            ("web.1.log", Some("web/1")),
            ("web.12.log.3", Some("web/12")),
            ("web.1.log.3.gz", Some("web/1")),
            ("a.log.b.2.log", Some("a.log.b/2")),
            ("web.log", None),
            ("web.x.log", None),
            ("web.1.logs", None),
            (".1.log", None),
        ] {
            assert_eq!(replica_of(file).map(|id| id.to_string()).as_deref(), meant, "{file}");
        }
    }

    #[test]
    fn pieces_become_lines_again() {
        let (out, err) = (Source::Program(Stream::Stdout), Source::Program(Stream::Stderr));
        let said = [
            ("web/1", line(b"one", out, false)),
            ("web/1", line(b"two ", out, true)),
            ("web/1", line(b"halves", out, false)),
            ("web/1", line(b"cut", out, true)),
            ("web/2", line(b"\xff\x00", err, false)),
            ("web/1", line(b"off", out, false)),
            ("web/1", line(b"dropped 5 bytes of stdout: disk full", Source::Wharf, false)),
        ];
        let written = |many| {
            let mut bytes = Vec::new();
            let mut open = None;
            for (name, line) in &said {
                piece(&mut open, &id(name), line, many, &mut bytes);
            }
            bytes
        };
        assert_eq!(
            written(true),
            b"web/1 | one\nweb/1 | two halves\nweb/1 | cut\nweb/2 | \xff\x00\nweb/1 | off\n\
              web/1 | [wharf] dropped 5 bytes of stdout: disk full\n"
        );
        assert_eq!(
            written(false),
            b"one\ntwo halves\ncut\n\xff\x00\noff\n[wharf] dropped 5 bytes of stdout: disk full\n"
        );
    }

    #[test]
    fn json_is_lossless() {
        let out = Source::Program(Stream::Stdout);
        let text = object(&id("web/1"), &line("é".as_bytes(), out, false)).to_string();
        assert_eq!(
            text,
            r#"{"ts":"1970-01-01T00:00:00.000000000Z","service":"web","replica":1,"stream":"stdout","partial":false,"text":"é"}"#
        );
        let text = object(&id("web/1"), &line(b"\xff", out, true));
        assert_eq!((&text["text"], &text["text_base64"]), (&json!("\u{fffd}"), &json!("/w==")));
    }
}
